//! Puts the commit into `--version`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let commit = commit.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let commit = if commit.trim().is_empty() { "no commit" } else { commit.trim() };
    println!("cargo:rustc-env=WANGCHUAN_COMMIT={commit}");
}
