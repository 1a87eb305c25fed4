//! Every kind of object that a life leaves behind, changed in every way, and the command that must find and name it.
//!
//! The kinds are not a list that somebody keeps: they are read from the bucket, the folders and the tables after the life, and one
//! that no case covers fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::database::Database;
use super::workplace::Workplace;
use crate::support::program::Program;

/// A way to change bytes; `None` takes the object away.
type Change = (&'static str, fn(Vec<u8>) -> Option<Vec<u8>>);

fn flipped(mut bytes: Vec<u8>, at: usize) -> Option<Vec<u8>> {
    let at = at.min(bytes.len().checked_sub(1)?);
    bytes[at] ^= 1;
    Some(bytes)
}

const CHANGES: [Change; 9] = [
    ("first byte", |bytes| flipped(bytes, 0)),
    ("byte of the header", |bytes| flipped(bytes, 20)),
    ("byte in the middle", |bytes| {
        let middle = bytes.len() / 2;
        flipped(bytes, middle)
    }),
    ("last byte", |bytes| flipped(bytes, usize::MAX)),
    ("last byte cut off", |bytes| Some(bytes[..bytes.len() - 1].to_vec())),
    ("half of it", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
    ("nothing left of it", |_| Some(Vec::new())),
    ("a byte more", |bytes| Some([bytes, vec![0]].concat())),
    ("taken away", |_| None),
];

/// Who must find a changed object of the bucket, by the first part of its name.
const OBJECTS: [(&str, &[&str]); 6] = [
    ("installation.json", &["backup", "verify"]),
    ("packs", &["backup", "verify"]),
    ("directories", &["backup", "verify"]),
    ("manifests", &["backup", "verify"]),
    ("state-parts", &["job", "run", "verify"]),
    // Last: a record that is lost is stored again, with other parts.
    ("state", &["job", "run", "verify"]),
];
/// Nothing reads these: what `doctor` left when it proved the endpoint's abilities.
const MEANINGLESS: [&str; 1] = ["probes"];

/// Files beside the bucket and the databases, and who must find a changed one.
const FILES: [(&str, &[&str]); 6] = [
    ("audit/log-head.txt", &["log", "verify"]),
    ("audit/log-key.pem", &["log", "verify"]),
    ("state/operation-log-head.txt", &["log", "verify"]),
    ("state/operation-log-key.pem", &["log", "verify"]),
    ("state/signing-key.pem", &["backup", "verify"]),
    ("root/root.key", &["key", "verify"]),
];
/// Files that hold nothing to be believed: locks, the databases (see [`COLUMNS`]), the shop, what an administrator writes.
const OTHER_FILES: [&str; 5] =
    ["audit/audit.db", "state/wangchuan.db", "state/audit-log-former.vkeys", "shop.db", "wangchuan.toml"];

/// A column of the control database (or, with `audit`, of the audit service's) that holds something signed or sealed: table, column,
/// the column that names the row, who must find a change, with `%` for the row's name.
const COLUMNS: [(&str, &str, &str, &str, &[&str]); 12] = [
    ("state", "signing_keys", "record", "number", &["audit", "verify"]),
    ("state", "certificate", "envelope", "id", &["certificate", "verify", "%"]),
    ("state", "certificate", "evidence", "id", &["certificate", "verify", "%"]),
    ("state", "outbox", "receipt", "certificate", &["certificate", "verify", "%"]),
    ("state", "drill", "record", "id", &["drill", "verify"]),
    ("state", "tree_node", "sealed", "rowid", &["key", "verify"]),
    ("state", "log_leaf", "content", "idx", &["log", "verify"]),
    ("state", "log_leaf", "hash", "idx", &["log", "verify"]),
    ("state", "log_checkpoint", "note", "size", &["log", "verify"]),
    ("audit", "log_leaf", "content", "idx", &["log", "verify"]),
    ("audit", "log_leaf", "hash", "idx", &["log", "verify"]),
    ("audit", "log_checkpoint", "note", "size", &["log", "verify"]),
];
/// Tables whose rows nothing signs: the agent's own notes, and what is sealed and found out when it is opened. Against whoever changes
/// these stands the sealed state in the second place.
const NOTES: [&str; 27] = [
    "meta",
    "lease",
    "tree_root",
    "rekey",
    "sqlite_sequence",
    "subject",
    "bucket",
    "chain",
    "work",
    "cell",
    "pin",
    "sealed_row",
    "change_index",
    "change_base",
    "snapshot",
    "plan",
    "plan_chunk",
    "run",
    "run_order",
    "run_pace",
    "ledger",
    "found_again",
    "request",
    "hold",
    "job_run",
    "read_back",
    "media",
];

/// A life with everything in it, and nothing running.
struct Life {
    place: Workplace,
}

impl Life {
    fn lived() -> Self {
        let place = Workplace::new();
        place.good(&["quickstart", "--dir", "try", "--customers", "60"]);
        let life = Self { place };
        for command in [
            &["audit", "key", "rotate"][..],
            &["backup", "run"],
            &["drill", "run"],
            &["job", "run", "verify"],
            &["doctor"],
        ] {
            life.program().json(command);
        }
        life
    }

    fn folder(&self) -> PathBuf {
        self.place.file("try")
    }

    fn program(&self) -> Program {
        Program::in_directory(&self.folder())
    }

    /// Names of the bucket's objects.
    fn objects(&self) -> Vec<String> {
        let root = self.folder().join("bucket/wangchuan");
        files_below(&root).into_iter().map(|path| name_in(&root, &path)).collect()
    }

    /// What nothing needs any more, by the program's own word.
    fn unneeded(&self) -> BTreeSet<String> {
        let named = self.program().run(&["backup", "unneeded"]).ends(0);
        named.out.lines().map(str::to_owned).collect()
    }

    /// Whether the command finds something wrong, and names it.
    fn finds(&self, command: &[&str], name: &str) -> Result<(), String> {
        let ended = self.program().run(command);
        let said = format!("{}{}", ended.out, ended.err);
        match ended.code() {
            Some(0) => Err(format!("`{}` found nothing:\n{said}", command.join(" "))),
            Some(1..=5) if said.contains(name) => Ok(()),
            code => Err(format!("`{}` ended with {code:?} and did not name {name}:\n{said}", command.join(" "))),
        }
    }

    /// Whether a lost record of the state is named, and the state stored again.
    fn stores_again(&self, command: &[&str], name: &str) -> Result<(), String> {
        let ended = self.program().run(command);
        let said = format!("{}{}", ended.out, ended.err);
        let is_told = said.contains(name) && said.contains("it is stored again");
        is_told.then_some(()).ok_or_else(|| format!("`{}` did not name {name}:\n{said}", command.join(" ")))
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn name_in(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().display().to_string()
}

/// What a PEM file says: everything up to its last line's dashes.
fn key_in(pem: &[u8]) -> &[u8] {
    let end = pem.windows(5).rposition(|window| window == b"-----");
    end.map_or(pem, |end| &pem[..end + 5])
}

/// Puts the changed bytes in a file's place, asks, and puts the file back.
fn with_changed(file: &Path, changed: Option<&[u8]>, ask: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let whole = fs::read(file).unwrap();
    let permissions = fs::metadata(file).unwrap().permissions();
    match changed {
        Some(bytes) => fs::write(file, bytes).unwrap(),
        None => fs::remove_file(file).unwrap(),
    }
    let asked = ask();
    fs::write(file, whole).unwrap();
    fs::set_permissions(file, permissions).unwrap();
    asked
}

fn tell(what: &str, tried: &BTreeMap<String, u32>, failures: &[String]) {
    eprintln!("changed and found, {what}: {tried:?}");
    assert!(failures.is_empty(), "{} changes were not found:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_changed_object_of_the_bucket_is_found_and_named() {
    let life = Life::lived();
    let (objects, unneeded) = (life.objects(), life.unneeded());
    let kind = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let unknown: BTreeSet<String> = objects.iter().map(|name| kind(name)).collect();
    let known: BTreeSet<String> = OBJECTS.iter().map(|(kind, _)| *kind).chain(MEANINGLESS).map(str::to_owned).collect();
    assert_eq!(unknown, known, "kinds of objects in the bucket that no case covers, or that do not exist");
    let root = life.folder().join("bucket/wangchuan");
    let (mut tried, mut failures) = (BTreeMap::new(), Vec::new());
    for (of, command) in OBJECTS {
        let all: Vec<&String> = objects.iter().filter(|name| kind(name) == of && !unneeded.contains(*name)).collect();
        // The first and the last of a kind; more are the same again.
        let chosen: BTreeSet<&String> = all.first().into_iter().chain(all.last()).copied().collect();
        for name in chosen {
            let bytes = fs::read(root.join(name)).unwrap();
            let older = objects.iter().find(|other| kind(other) == of && *other != name);
            let older = older.map(|older| fs::read(root.join(older)).unwrap());
            let other = older.map(|older| ("another one of its kind", Some(older)));
            let changed = CHANGES.iter().map(|(how, change)| (*how, change(bytes.clone())));
            for (how, changed) in other.into_iter().chain(changed) {
                // Whose prefix it is, the program writes down again.
                if of == "installation.json" && changed.is_none() {
                    continue;
                }
                *tried.entry(of.to_owned()).or_insert(0) += 1;
                let asked = with_changed(&root.join(name), changed.as_deref(), || match (of, &changed) {
                    ("state", None) => life.stores_again(command, name),
                    // The manifest that an increment continues is named by its digest.
                    ("manifests", None) => life.finds(command, &name[name.len() - 64..]),
                    _ => life.finds(command, name),
                });
                failures.extend(asked.err().map(|error| format!("{name}, {how}: {error}")));
            }
        }
        if let [one, .., other] = all[..] {
            let (first, second) = (root.join(one), root.join(other));
            let (bytes, swapped) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
            *tried.entry(of.to_owned()).or_insert(0) += 1;
            let asked = with_changed(&second, Some(&bytes), || {
                with_changed(&first, Some(&swapped), || {
                    life.finds(command, one).and_then(|()| life.finds(command, other))
                })
            });
            failures.extend(asked.err().map(|error| format!("{one} and {other} swapped: {error}")));
        }
    }
    tell("objects", &tried, &failures);
    for command in [&["backup", "verify"][..], &["job", "run", "verify"]] {
        life.program().json(command).ends(0);
    }
}

#[test]
fn every_changed_file_beside_the_bucket_is_found() {
    let life = Life::lived();
    let root = life.folder();
    let generic = |path: &Path| {
        let name = name_in(&root, path);
        // The generation is in the name of the root.
        if name.starts_with("root/root-") { "root/root.key".to_owned() } else { name }
    };
    let all = files_below(&root);
    let is_other = |name: &str| {
        let is_passing = [".lock", "-wal", "-shm"].iter().any(|end| name.ends_with(end));
        is_passing || name.starts_with("jobs/") || name.starts_with("bucket/") || OTHER_FILES.contains(&name)
    };
    let found: BTreeSet<String> = all.iter().map(|path| generic(path)).filter(|name| !is_other(name)).collect();
    let known: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known, "kinds of files that no case covers, or that do not exist");
    let (mut tried, mut failures) = (BTreeMap::new(), Vec::new());
    for (name, command) in FILES {
        let path = all.iter().find(|path| generic(path) == name).unwrap();
        let bytes = fs::read(path).unwrap();
        for (how, change) in CHANGES {
            let changed = change(bytes.clone());
            // What stands behind the last line of a PEM file is no part of the key.
            let is_same = changed.as_deref().is_some_and(|changed| {
                path.extension().is_some_and(|end| end == "pem") && key_in(changed) == key_in(&bytes)
            });
            if is_same {
                continue;
            }
            *tried.entry(name.to_owned()).or_insert(0) += 1;
            let asked = with_changed(path, changed.as_deref(), || life.finds(command, ""));
            failures.extend(asked.err().map(|error| format!("{name}, {how}: {error}")));
        }
    }
    tell("files", &tried, &failures);
    for (_, command) in FILES {
        life.program().json(command).ends(0);
    }
}

/// What a changed row is changed to: bytes, or gone.
fn set(database: &Database, (table, column, key): (&str, &str, &str), row: &str, bytes: Option<&[u8]>) {
    // Whoever has the file can take the triggers out.
    for trigger in database.texts("SELECT name FROM sqlite_master WHERE type = 'trigger'") {
        database.run(&format!("DROP TRIGGER {trigger}"));
    }
    let is_text = column == "note";
    database.run(&match bytes {
        None => format!("DELETE FROM {table} WHERE {key} = '{row}'"),
        Some(bytes) if is_text => {
            format!("UPDATE {table} SET {column} = CAST(x'{}' AS TEXT) WHERE {key} = '{row}'", hex::encode(bytes))
        }
        Some(bytes) => format!("UPDATE {table} SET {column} = x'{}' WHERE {key} = '{row}'", hex::encode(bytes)),
    });
}

#[test]
fn every_changed_row_that_is_signed_or_sealed_is_found() {
    let life = Life::lived();
    let (mut tried, mut failures) = (BTreeMap::new(), Vec::new());
    let mut covered: BTreeSet<String> = NOTES.iter().map(|table| (*table).to_owned()).collect();
    covered.extend(COLUMNS.iter().map(|(_, table, ..)| (*table).to_owned()));
    for file in ["state/wangchuan.db", "audit/audit.db"] {
        let database = Database::at(&life.folder().join(file));
        let tables = database.texts("SELECT name FROM sqlite_master WHERE type = 'table'");
        for table in tables.iter().filter(|table| database.rows(table) > 0) {
            assert!(covered.contains(table), "{file}: table {table} has rows and no case covers it");
        }
    }
    for (which, table, column, key, command) in COLUMNS {
        let file = if which == "state" { "state/wangchuan.db" } else { "audit/audit.db" };
        let file = life.folder().join(file);
        let database = Database::at(&file);
        let named = format!("SELECT CAST({key} AS TEXT) FROM {table} WHERE {column} IS NOT NULL ORDER BY {key}");
        let rows = database.texts(&named);
        let read = |row: &str| {
            let text = database.texts(&format!("SELECT hex({column}) FROM {table} WHERE {key} = '{row}'")).remove(0);
            hex::decode(text).unwrap()
        };
        let row = rows.last().unwrap();
        let (whole, other) = (read(row), rows.first().filter(|other| *other != row).map(|other| read(other)));
        let changes = CHANGES.iter().map(|(how, change)| (*how, change(whole.clone())));
        let replaced = other.map(|other| ("another row's", Some(other)));
        // A digest is unique in its log; whoever forges gives each another one.
        for (how, changed) in changes.chain(replaced.filter(|_| column != "hash")) {
            // A signed head that is taken out is no loss: the log is compared with the newest, which stands in a file beside it.
            if table == "log_checkpoint" && changed.is_none() {
                continue;
            }
            let beside = fs::read(&file).unwrap();
            set(&database, (table, column, key), row, changed.as_deref());
            let words: Vec<&str> = command.iter().map(|word| if *word == "%" { row.as_str() } else { *word }).collect();
            let name = if key == "id" { row.as_str() } else { "" };
            *tried.entry(format!("{which}.{table}.{column}")).or_insert(0) += 1;
            let asked = life.finds(&words, name);
            failures.extend(asked.err().map(|error| format!("{which} {table}.{column} of {row}, {how}: {error}")));
            fs::write(&file, beside).unwrap();
            for journal in ["-wal", "-shm"] {
                let _ = fs::remove_file(format!("{}{journal}", file.display()));
            }
        }
    }
    tell("rows", &tried, &failures);
}
