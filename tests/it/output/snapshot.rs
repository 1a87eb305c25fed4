//! One snapshot: command, exit code and document, made comparable, against `tests/vectors/output/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::normal::{Names, normal, plain, without_numbers};
use super::schema;
use crate::support::program::Outcome;
use crate::support::source::{files_under, read, root};

fn path(name: &str) -> PathBuf {
    root().join("tests/vectors/output").join(format!("{name}.json"))
}

/// Checks the document of a command. The name is that of the schema, with `.variant` behind it for a further snapshot.
#[track_caller]
pub fn check(name: &str, outcome: &Outcome, names: &Names<'_>) {
    let document = outcome.document();
    check_value(name, outcome, &normal(&document, names), &document, names);
}

/// The same for what depends on today's date: no number is compared.
#[track_caller]
pub fn check_shape(name: &str, outcome: &Outcome, names: &Names<'_>) {
    let document = outcome.document();
    check_value(name, outcome, &without_numbers(&normal(&document, names)), &document, names);
}

#[track_caller]
fn check_value(name: &str, outcome: &Outcome, shown: &Value, document: &Value, names: &Names<'_>) {
    let snapshot = json!({"command": plain(&outcome.command, names), "exit": outcome.code(), "document": shown});
    compare(name, &snapshot);
    fits_schema(name, document);
}

/// Compares with the file, or renews it when `WANGCHUAN_UPDATE_SNAPSHOTS` is set.
#[track_caller]
pub fn compare(name: &str, snapshot: &Value) {
    let text = format!("{snapshot:#}\n");
    if std::env::var_os("WANGCHUAN_UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), &text).unwrap();
    }
    let expected = fs::read_to_string(path(name)).unwrap_or_default();
    assert!(
        expected == text,
        "{name} differs from its snapshot; if that is wanted, WANGCHUAN_UPDATE_SNAPSHOTS=1 renews it\n{}",
        differing_lines(&expected, &text)
    );
}

/// Checks a document against the schema that is published for it.
#[track_caller]
pub fn fits_schema(name: &str, document: &Value) {
    let slug = name.split('.').next().unwrap();
    let schema: Value = serde_json::from_str(&read(&format!("config/schema/output/{slug}.json"))).unwrap();
    let faults = schema::check(&schema, document, "");
    assert!(faults.is_empty(), "{name} is not as its schema says:\n  {}\n{document:#}", faults.join("\n  "));
}

/// The lines that only one of two texts has.
fn differing_lines(expected: &str, found: &str) -> String {
    let only = |text: &str, other: &str, mark: char| -> String {
        let known: BTreeSet<&str> = other.lines().collect();
        let lines: Vec<String> =
            text.lines().filter(|line| !known.contains(line)).map(|line| format!("{mark}{line}")).collect();
        lines.join("\n")
    };
    format!("{}\n{}", only(expected, found, '-'), only(found, expected, '+'))
}

#[test]
fn every_snapshot_is_taken_by_a_story() {
    let sources: String = ["errors", "stories"].map(|name| read(&format!("tests/it/output/{name}.rs"))).concat();
    let files = files_under("tests/vectors/output");
    let names = files.iter().map(|path| path.trim_start_matches("tests/vectors/output/").trim_end_matches(".json"));
    let stale: Vec<&str> = names.filter(|name| !sources.contains(&format!("\"{name}\""))).collect();
    assert_eq!(stale, Vec::<&str>::new(), "no story takes these");
    assert!(!files.is_empty());
}
