//! Every name that the program writes to the operation log has a place among its operations, and the letter that it should have.

use std::collections::BTreeSet;

use wangchuan::log::record::{Activity, OPERATIONS};

use super::sources;
use crate::support::logged::{LOGGED, expected};
use crate::support::source::{read, test_files};

/// Where entries are written from.
const WRITERS: &[&str] = &["src/agent", "src/cli/", "src/installation", "src/schedule", "src/tasks/"];
/// How names of files end, which look like those of operations.
const FILES: &[&str] = &["db", "json", "lock", "ndjson", "pem", "toml", "txt", "vkey", "vkeys"];
/// Names of their form that are no operations.
const OTHERS: &[&str] = &["root.slot"];

/// Whether a text has the form of an operation: `run.begin`.
fn is_dotted(text: &str) -> bool {
    let is_word = |word: &str| {
        let letters =
            word.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()));
        letters && !FILES.contains(&word)
    };
    text.split_once('.').is_some_and(|(kind, done)| is_word(kind) && is_word(done))
}

/// The texts in a program file that are names of operations by their form, or by where they stand.
fn names_in(text: &str) -> BTreeSet<String> {
    let program = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let (mut before, mut found) = (String::new(), BTreeSet::new());
    for piece in program.split('"') {
        let is_told = ["log_operation(", "Operation { name:"].iter().any(|call| before.ends_with(call));
        if (is_told || is_dotted(piece)) && !OTHERS.contains(&piece) {
            found.insert(piece.to_owned());
        }
        before = piece.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    found
}

/// All names that the program writes.
fn written() -> BTreeSet<String> {
    let all = sources("src");
    let tests = test_files(&all);
    let points = read("src/crash_point.rs");
    let points: BTreeSet<&str> = points.split('"').collect();
    let writers =
        all.iter().filter(|(path, _)| WRITERS.iter().any(|place| path.starts_with(place)) && !tests.contains(path));
    writers.flat_map(|(_, text)| names_in(text)).filter(|name| !points.contains(name.as_str())).collect()
}

#[test]
fn names_of_operations_are_found_wherever_they_stand() {
    let sample = r#"
        let a = Operation {
            name: "explain",
            object: "x y",
        };
        let told = installation.log_operation(
            "look", "object", if done { "log.done" } else { "off-log.un-done" });
        (Command::List, ("run.list", None)); open("a.json", "Not.this", "nor.this.one", "root.slot");
        const OPERATION: &str = "report.make";
#[cfg(test)]
mod tests { const NONE: &str = "test.only"; }
"#;
    let names: Vec<String> = names_in(sample).into_iter().collect();
    assert_eq!(names, ["explain", "log.done", "look", "off-log.un-done", "report.make", "run.list"]);
}

#[test]
fn every_name_in_the_operation_log_has_a_place_and_every_place_a_name() {
    let placed: BTreeSet<String> = OPERATIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(placed.len(), OPERATIONS.len(), "one has two places");
    let written = written();
    let without: Vec<_> = written.difference(&placed).collect();
    assert!(without.is_empty(), "logged, and without a place in `OPERATIONS` (src/log/record/names.rs): {without:?}");
    let unused: Vec<_> = placed.difference(&written).collect();
    assert!(unused.is_empty(), "nothing is logged under these names: {unused:?}");
}

#[test]
fn every_operation_has_the_letter_and_the_class_of_what_it_does() {
    let known: Vec<&str> = LOGGED.iter().flat_map(|(_, _, names)| names.iter().copied()).collect();
    assert_eq!(known.len(), OPERATIONS.len(), "one stands twice in `LOGGED`, or is missing there");
    for (name, _) in OPERATIONS {
        let activity = Activity::of_operation(name);
        let (_, class, _) = activity.ocsf();
        let letter = format!("{:?}", activity.letter());
        assert_eq!(Some((letter.as_str(), u64::from(class))), expected(name), "{name}");
    }
    let unknown = Activity::of_operation("nothing.known");
    assert_eq!((unknown.name(), unknown.ocsf()), ("Unknown", (6, 6003, 0)));
}
