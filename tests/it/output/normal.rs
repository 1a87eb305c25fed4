//! Makes documents comparable: what differs from run to run (ids, times, digests, sizes, paths) gets a name.

use chrono::{DateTime, NaiveDate, NaiveTime};
use serde_json::Value;

/// What else differs, and what it is called.
pub type Names<'n> = [(&'n str, &'n str)];

/// The document with everything volatile replaced.
pub fn normal(value: &Value, names: &Names<'_>) -> Value {
    member("", value, names)
}

fn member(name: &str, value: &Value, names: &Names<'_>) -> Value {
    match value {
        Value::String(_) if matches!(name, "script" | "text") => "‹text›".into(),
        Value::String(_) if name == "verifier_key" => "‹key›".into(),
        Value::String(_) if name == "hostname" => "‹host›".into(),
        Value::String(text) => plain(text, names).into(),
        Value::Number(_) if is_measured(name) => 0.into(),
        // What the host's processor and settings decide.
        Value::Array(items) if name == "checks" => {
            let of_host = |item: &&Value| matches!(item["check"].as_str(), Some("memory" | "sm4"));
            items.iter().filter(|item| !of_host(item)).map(|item| member("", item, names)).collect()
        }
        Value::Array(items) => items.iter().map(|item| member(name, item, names)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (plain(name, names), member(name, value, names))).collect()
        }
        other => other.clone(),
    }
}

/// Numbers that say how long, how large, or which process.
fn is_measured(name: &str) -> bool {
    // A log's length changes with every kind of step that is logged, which is tested elsewhere.
    let of_log = ["leaves", "checkpoints", "unsigned", "index", "entries", "time"].contains(&name);
    // How many nodes a tree has depends on the random numbers of its slots.
    let of_tree = name.starts_with("nodes_");
    of_log
        || of_tree
        || name.ends_with("_seconds")
        || name.ends_with("Ms")
        // A batch follows what the one before took.
        || ["paused_ms", "longest_ms", "rows_per_second", "batch_rows"].contains(&name)
        || name.starts_with("bytes")
        || name == "working"
        // Slots are drawn at random.
        || name == "chain"
}

/// The text with everything volatile replaced.
pub fn plain(text: &str, names: &Names<'_>) -> String {
    let mut text = text.to_owned();
    for (found, name) in names {
        text = text.replace(found, name);
    }
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-+:._".contains(letter);
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        if end == 0 {
            let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
            out.push_str(&rest[..next]);
            rest = &rest[next..];
        } else {
            let is_number = rest[..end].bytes().all(|byte| byte.is_ascii_digit());
            out.push_str(&match is_number {
                true if out.ends_with("process ") => "‹pid›".to_owned(),
                // What lies in a bucket is compressed, and holds dates and random numbers.
                true if rest[end..].starts_with(" bytes") => "‹size›".to_owned(),
                _ => token(&rest[..end]),
            });
            rest = &rest[end..];
        }
    }
    out
}

/// A word, or its parts when the whole is nothing known.
fn token(word: &str) -> String {
    if let Some(name) = kind(word) {
        return name.to_owned();
    }
    if let Some(begin) = word.strip_suffix(['.', ':']) {
        return format!("{}{}", token(begin), &word[begin.len()..]);
    }
    match word.find([':', '.', '+']) {
        Some(at) => format!("{}{}{}", token(&word[..at]), &word[at..=at], token(&word[at + 1..])),
        None => word.to_owned(),
    }
}

fn kind(word: &str) -> Option<&'static str> {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let groups: Vec<usize> = word.split('-').map(str::len).collect();
    if groups == [8, 4, 4, 4, 12] && word.split('-').all(is_hex) {
        Some("‹id›")
    } else if DateTime::parse_from_rfc3339(word).is_ok() {
        Some("‹time›")
    } else if NaiveDate::parse_from_str(word, "%Y-%m-%d").is_ok() {
        Some("‹date›")
    } else if word.starts_with('+') && word.len() > 1 && word[1..].bytes().all(|byte| byte.is_ascii_digit()) {
        Some("‹lag›")
    } else if word.len() >= 4 && NaiveTime::parse_from_str(word, "%H:%M").is_ok() {
        Some("‹clock›")
    } else if word.len() >= 12 && is_hex(word) && word.bytes().any(|byte| byte.is_ascii_digit()) {
        Some("‹hex›")
    } else {
        None
    }
}

/// The document with every number 0, for what depends on today's date.
pub fn without_numbers(value: &Value) -> Value {
    match value {
        Value::Number(_) => 0.into(),
        Value::Array(items) => items.iter().map(without_numbers).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), without_numbers(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn only_what_differs_is_replaced() {
    let names = [("/tmp/x7", "‹folder›")];
    for (text, expected) in [
        ("run 01a200dd-ae98-7942-a219-b5ae24273a9e: 12 rows", "run ‹id›: 12 rows"),
        ("evidence/01a200dd-ae98-7942-a219-b5ae24273a9e.ndjson", "evidence/‹id›.ndjson"),
        ("2026-03-01T00:00:00.123Z", "‹time›"),
        ("until 2026-12-30, at 2026-11-22 02:45.", "until ‹date›, at ‹date› ‹clock›."),
        ("hmac-sha256:k1:0123456789abcdef", "hmac-sha256:k1:‹hex›"),
        ("/tmp/x7/a.toml:12", "‹folder›/a.toml:12"),
        ("ready (+0 s)", "ready (‹lag› s)"),
        ("process 4711 is at work; 4711 rows", "process ‹pid› is at work; 4711 rows"),
        ("2 rows, 3283 bytes", "2 rows, ‹size› bytes"),
        ("0 2 * * 7, cn.ecl.31, 3 years, facade, 已销毁", "0 2 * * 7, cn.ecl.31, 3 years, facade, 已销毁"),
    ] {
        assert_eq!(plain(text, &names), expected);
    }
    let value = serde_json::json!({"rto_seconds": 1.5, "rows": 3, "working": 12, "script": "a"});
    assert_eq!(normal(&value, &[]), serde_json::json!({"rto_seconds": 0, "rows": 3, "working": 0, "script": "‹text›"}));
}
