//! Bad input is pinned by the full text of its error.

use std::path::Path;

use super::*;

const RULES: PolicyRules<'static> =
    PolicyRules { is_known_statute: &|key| key.starts_with("cn."), conflict: &|_| None };

fn no_variable(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> Result<Configuration, String> {
    read_with(text, &no_variable)
}

fn read_with(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Configuration, String> {
    let path = Path::new("/srv/w/wangchuan.toml");
    let file = File { shown_as: Path::new("wangchuan.toml"), source: path, is_world_readable: false };
    parse(text, &file, variable, &RULES).map_err(|faults| Faults(faults).to_string())
}

const HEAD: &str = r#"[agent]
name = "shop"
timezone = "Asia/Shanghai"

[root]
kind = "file"
path = "root.slot"
accept_host_loss = true

[backup]
endpoint = "embedded"

[audit]
url = "embedded"
"#;

#[test]
fn head_is_enough() {
    let configuration = read(HEAD).unwrap();
    assert_eq!(configuration.agent.state, StateLocation::Sqlite("/srv/w/wangchuan.db".into()));
    assert_eq!(configuration.agent.jobs, Path::new("/srv/w/jobs"));
    println!("{}", configuration.show());
}

#[test]
fn try_faults() {
    let text = HEAD
        .replace("timezone", "timezome")
        .replace("kind = \"file\"", "kind = \"fil\"")
        .replace("[audit]", "[audits]")
        + "\n[[store]]\nname = \"a\"\nnme=\"x\"\n\n[[store]]\nname=\"b\"\nurl=5\n";
    println!("{}", read(&text).unwrap_err());
}
