//! One document for each way in which a command can end with an error. The stories have those that need an installation.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::normal::normal;
use super::snapshot::{check, compare, fits_schema};
use crate::scenario::small;
use crate::scenario::workplace::Workplace;

#[test]
fn a_command_line_that_is_wrong_is_a_document_without_its_words() {
    let place = Workplace::new();
    let wrong = place.program().json(&["request", "new", "c-1001"]).ends(2);
    check("error.usage", &wrong, &[]);
    assert!(!wrong.out.contains("c-1001"), "{wrong}");
    let plain = place.program().run(&["request", "new", "c-1001"]).ends(2);
    assert!(plain.out.is_empty() && plain.err.contains("--help"), "{plain}");
}

#[test]
fn a_missing_configuration_is_a_matter_of_usage() {
    let place = Workplace::new();
    let folder = place.path().display().to_string();
    let outcome = place.program().json(&["status", "--config", "nowhere.toml"]).ends(2);
    check("error.configuration", &outcome, &[(&folder, "‹folder›")]);
}

#[test]
fn a_statute_that_nobody_knows_is_refused_before_anything_else() {
    let place = Workplace::new();
    let (other, _database) = small::installed();
    let text = std::fs::read_to_string(other.file("wangchuan.toml")).unwrap();
    place.write_private("wangchuan.toml", &text.replace("grace = \"0\"", "grace = \"0\"\nstatutes = [\"cn.nothing\"]"));
    let folder = other.path().display().to_string();
    let outcome = place.program().json(&["plan"]).ends(2);
    check("error.invalid", &outcome, &[(&folder, "‹folder›"), (&place.path().display().to_string(), "‹folder›")]);
}

#[test]
fn a_stopped_command_says_that_nothing_is_lost() {
    let place = Workplace::new();
    let limit = Duration::from_secs(30);
    // What is said to people on the other stream would stand between the lines of the document.
    let alone = place.program().through(&["bash", "-c", "exec \"$0\" \"$@\" 2>/dev/null"]);
    let running = alone.start(&["quickstart", "--dir", "try", "--json"]);
    let begun = Instant::now();
    while !place.file("try/wangchuan.toml").exists() {
        assert!(begun.elapsed() < limit, "{}", running.said().join("\n"));
        std::thread::sleep(Duration::from_millis(5));
    }
    let (code, said) = running.signal("INT", limit);
    let lines: Vec<&str> =
        said.lines().skip_while(|line| *line != "{").take_while(|line| *line != "}").chain(["}"]).collect();
    let document: Value = serde_json::from_str(&lines.join("\n")).unwrap_or_else(|error| panic!("{error}\n{said}"));
    fits_schema("error", &document);
    // The words say what is left, which depends on the moment.
    let mut shown = normal(&document, &[]);
    for words in ["what", "do", "where"] {
        shown[words] = "‹words›".into();
    }
    compare("error.interrupted", &json!({"command": "wangchuan quickstart --json", "exit": code, "document": shown}));
}

#[test]
fn a_reader_that_leaves_is_no_reason_to_complain() {
    let (place, _database) = small::installed();
    let shell = "\"$0\" manual | head -1; exit \"${PIPESTATUS[0]}\"";
    let outcome = place.program().through(&["bash", "-c", shell]).run(&[]);
    assert!(outcome.out.lines().count() == 1 && outcome.err.is_empty(), "{outcome}");
}
