//! Puts the commit into `--version`.

use std::process::Command;

fn main() {
    // Elsewhere than in `.git` in a further working tree; a path that is not there would have everything built anew each time.
    let head = git(&["rev-parse", "--git-path", "HEAD"]).filter(|head| std::path::Path::new(head).exists());
    println!("cargo:rerun-if-changed={}", head.as_deref().unwrap_or("src/build.rs"));
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    println!("cargo:rustc-env=WANGCHUAN_COMMIT={}", commit.as_deref().unwrap_or("no commit"));
}

/// What git says; nothing where there is no git, or no repository.
fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
