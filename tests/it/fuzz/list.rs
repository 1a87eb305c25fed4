//! That no parser is left out: the entry points are read from the sources of the format modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::targets::targets;

/// Modules that read bytes from outside.
const MODULES: [&str; 7] = ["backup", "certify", "log", "audit", "keys", "schedule", "config"];
/// How the names of such functions begin.
const VERBS: [&str; 8] = ["parse", "decode", "from_bytes", "from_pem", "from_spki", "open", "read", "check_next"];

/// Functions of such names that need no target of their own, and why.
const NOT_PARSERS: [(&str, &str); 14] = [
    ("config/law.rs::read_catalogue", "the same TOML reader as config/mod.rs::load, on the administrator's own file"),
    ("certify/signer.rs::open", "a key file of this host, read by log/key_file.rs and decoded as PEM"),
    ("log/key_file.rs::read", "reads a file as it is"),
    ("log/key_file.rs::open_checkpoint_key", "a key file of this host, decoded as PEM"),
    ("keys/tree/part.rs::open_bare", "keys/tree.rs::open"),
    ("keys/suite/gcm.rs::open", "keys/suite.rs::open"),
    ("schedule/declaration.rs::load_folder", "parse_job for each file"),
    ("config/document.rs::parse", "config/mod.rs::load and parse_job"),
    ("config/document.rs::read", "config/mod.rs::load and parse_job"),
    ("backup/envelope.rs::open", "open_frame, directory::open_part, state_record::open_part"),
    ("keys/file_slot.rs::open", "a slot's folder"),
    ("keys/moving_slot.rs::open", "two slots"),
    ("keys/pkcs11_slot.rs::open", "a token"),
    ("log/store.rs::open", "a database"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// `pub fn NAME…(` of a line that begins a function that others may call.
fn entry_point(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub fn ")?;
    let name = rest.split(['(', '<']).next()?;
    VERBS
        .iter()
        .any(|verb| name == *verb || name.strip_prefix(verb).is_some_and(|end| end.starts_with('_')))
        .then_some(name)
}

#[test]
fn every_parser_of_the_format_modules_is_fuzzed() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for module in MODULES {
        sources(&source.join(module), &mut files);
    }
    let mut found = BTreeSet::new();
    for file in
        files.iter().filter(|file| !file.ends_with("tests.rs") && !file.display().to_string().contains("/tests/"))
    {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let name = file.strip_prefix(&source).unwrap().display().to_string();
        found.extend(code.lines().filter_map(entry_point).map(|function| format!("{name}::{function}")));
    }
    assert!(found.len() > 20, "{found:?}");
    let fuzzed: BTreeSet<String> =
        targets().iter().map(|target| target.name.split(' ').next().unwrap().to_owned()).collect();
    let known: BTreeSet<String> = NOT_PARSERS.iter().map(|(name, _)| (*name).to_owned()).chain(fuzzed).collect();
    let missing: Vec<&String> = found.difference(&known).collect();
    assert!(missing.is_empty(), "parsers that nothing fuzzes: {missing:?}");
}
