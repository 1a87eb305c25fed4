//! Every entry of the operation log of a whole life: what stands in all of them, which rows an erasure names, and which values can be
//! read while it can be undone.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::Value;
use wangchuan::control::HoldRow;
use wangchuan::installation::{Installation, Operation};
use wangchuan::keyring::Purpose;
use wangchuan::log::record::Change;
use wangchuan::log::tree::sha256;
use wangchuan::plan::digest::erased_content_mac;
use wangchuan::policy::mask::HIDDEN;
use wangchuan::stores::{ColumnRef, Filter, RowQuery};
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::oplog::{ArchiveFile, Entry, Query, archive, export, query, verify_archives};
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::undo::{expire_pre_images, undo_run};

use crate::output::schema;
use crate::support::logged::expected;
use crate::support::program::Program;
use crate::support::search::Search;
use crate::support::world::{Making, World, body, forget, retain, snapshot};

/// A table whose rows are anonymised.
const SURVEYS: &str = r#"[[store.collection]]
table = "surveys"
subject = "customer"
fields.answer = { kind = "free_text" }
fields.mobile = { kind = "mobile" }

[[policy]]
id = "old-surveys"
collections = ["surveys"]
retention = "1 year"
start = "closed_at"
action = "anonymise"
basis = "consent"
grace = "72 hours"
bucket = "quarter"
max = { rows = 1000, percent = 100 }
anonymise.answer = "null"
anonymise.mobile = "mask"
"#;

async fn made() -> World {
    let world = World::make(Making { customers: 40, grace: "72 hours", ..Making::default() }).await;
    world
        .run_sql(
            "CREATE TABLE surveys (id INTEGER PRIMARY KEY, customer TEXT, answer TEXT, mobile TEXT, closed_at TEXT);
             INSERT INTO surveys VALUES (11, 'who-1', 'mine is one', '13912345671', '2020-02-01'),
               (12, 'who-2', 'mine is two', '13912345672', '2020-03-01'), (13, 'who-1', NULL, '13912345673', '2020-02-01');",
        )
        .await;
    let policies = "[[policy]]\nid = \"completed-orders\"";
    world.edit_config(policies, &format!("{SURVEYS}\n{policies}"));
    world
}

/// Everything that an installation does, until the erasures can no longer be undone. What could be read of them before.
async fn life(world: &World, installation: &Installation) -> Vec<Entry> {
    snapshot(installation).await;
    assert!(body(&forget(installation, &world.shop.picks.leaver).await).erased > 0);
    let taken_back = forget(installation, &world.shop.picks.keeper).await;
    undo_run(installation, &taken_back).await.unwrap();
    let kept = body(&retain(installation).await);
    assert_eq!(kept.anonymised, 3, "{kept:?}");
    let now = wangchuan::clock::Clock::now(world.clock.as_ref());
    let hold = HoldRow {
        id: "case-1".to_owned(),
        scope: "everything".to_owned(),
        store: None,
        collection: None,
        subject: None,
        reason: "lawsuit".to_owned(),
        placed_at: now,
        placed_by: "clerk".to_owned(),
        released_at: None,
    };
    place_hold(installation, &hold, None).await.unwrap();
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold("case-1", "clerk", now).await.unwrap());
    tx.commit().await.unwrap();
    let ended = Query { operation: Some("run.end".to_owned()), ..Query::default() };
    let open = query(installation, &ended).await.unwrap();
    world.clock.advance(TimeDelta::hours(73));
    installation.confirm_clock().await.unwrap();
    snapshot(installation).await;
    expire_pre_images(installation).await.unwrap();
    assert!(shred_due(installation).await.unwrap().generation.is_some());
    assert!(!certify_due(installation).await.unwrap().is_empty());
    file_due(installation, false).await.unwrap();
    let closed = query(installation, &ended).await.unwrap();
    assert!(closed.iter().all(|entry| entry.values.is_empty()), "the keys are gone");
    open
}

/// Who, when and from where, how, on what and whom, of which kind, before and after.
fn is_whole(record: &Value, published: &Value) {
    assert_eq!(schema::check(published, record, ""), Vec::<String>::new(), "{record}");
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let from = record.pointer("/src_endpoint/ip").or(record.pointer("/src_endpoint/hostname"));
    assert!(!text("/actor/user/uid").is_empty() && from.is_some_and(|from| from != ""), "{record}");
    assert!(record["time"].as_i64().is_some_and(|time| time > 1_700_000_000_000), "{record}");
    assert_eq!(text("/unmapped/access"), "direct");
    let kind = (text("/unmapped/operation"), record["class_uid"].as_u64().unwrap());
    assert_eq!(Some(kind), expected(text("/api/operation")), "{record}");
    assert!(!text("/resources/0/uid").is_empty() && !text("/resources/0/type").is_empty(), "{record}");
    for change in record["unmapped"]["changes"].as_array().unwrap() {
        let length = |value: &Value| value.as_str().map(str::len);
        assert!(change["rows"].as_u64() > Some(0), "{change}");
        assert_eq!((length(&change["records"]["first"]), length(&change["records"]["last"])), (Some(32), Some(32)));
        assert_eq!(length(&change["before"]), Some(64), "{change}");
        assert_eq!(change["operation"] == "M", change["after"] != serde_json::json!({}), "{change}");
        let after = change.get("after_digest");
        assert_eq!(after.and_then(length), (change["operation"] == "M").then_some(64), "{change}");
        assert_ne!(after, Some(&change["before"]), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_of_a_life_has_all_fields() {
    let world = made().await;
    let installation = world.open().await;
    life(&world, &installation).await;
    let program = Program::in_directory(world.folder.path());
    let looks: [&[&str]; 10] = [
        &["request", "list"],
        &["request", "show", "1"],
        &["hold", "list"],
        &["run", "list"],
        &["certificate", "list"],
        &["certificate", "show", "1"],
        &["certificate", "export", "1", "--output", "one.json"],
        &["explain", "shop", "customers", &world.shop.picks.leaver],
        &["certificate", "trace", "1"],
        &["media", "list"],
    ];
    for look in looks {
        let _ = program.json(look);
    }
    program.json(&["hold", "place", "case-1", "--everything", "--reason", "again"]).ends(3);
    let all = export(&installation).await.unwrap();
    let published = schema::published("operation");
    let canaries = Search::of(world.shop.canaries());
    let mut kinds = BTreeSet::new();
    for entry in &all {
        is_whole(&entry.record, &published);
        assert_eq!(canaries.hits(entry.text.as_ref().unwrap().as_bytes()), Vec::<&str>::new(), "{}", entry.record);
        let operation = entry.record["api"]["operation"].as_str().unwrap();
        kinds.insert(operation.to_owned());
        let changes = entry.record["unmapped"]["changes"].as_array().unwrap();
        assert!(operation != "run.end" || !changes.is_empty(), "{}", entry.record);
    }
    let expected = [
        "run.begin",
        "run.end",
        "run.undo",
        "hold.place",
        "key.shred",
        "certificate.issue",
        "command.refused",
        "media.list",
        "certificate.trace",
    ];
    assert!(expected.iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
    // Entries of before name no digest of what was left.
    let changed = |entry: &Entry| {
        let changes = entry.record["unmapped"]["changes"].as_array().unwrap();
        changes.iter().position(|change| change.get("after_digest").is_some()).map(|at| (entry.record.clone(), at))
    };
    let (mut old, at) = all.iter().find_map(changed).unwrap();
    old["unmapped"]["changes"][at].as_object_mut().unwrap().remove("after_digest");
    assert_eq!(schema::check(&published, &old, ""), Vec::<String>::new());
    // The check can find something.
    let mut broken = all[0].record.clone();
    broken["unmapped"].as_object_mut().unwrap().remove("customer");
    assert_eq!(schema::check(&published, &broken, "").len(), 1);
    installation.close().await.unwrap();
}

/// The digest of the surveys as they are now, made from the rows.
async fn surveys_now(installation: &Installation) -> String {
    let mut tx = installation.control.begin().await.unwrap();
    let key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await.unwrap();
    tx.commit().await.unwrap();
    let columns = ["id", "customer", "answer", "mobile", "closed_at"];
    let query = RowQuery {
        table: "surveys".to_owned(),
        path: Vec::new(),
        columns: columns.map(ColumnRef::own).to_vec(),
        filter: Filter::All,
        key: vec!["id".to_owned()],
        after: None,
        limit: 10,
    };
    let mut view = installation.sites()[0].store.open_snapshot().await.unwrap();
    let rows = view.read(&query).await.unwrap();
    view.close().await.unwrap();
    let digests: Vec<u8> = rows.iter().flat_map(|row| erased_content_mac(&key, row)).collect();
    hex::encode(sha256(&digests))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_erasure_can_be_named_and_seen_masked_until_it_is_final() {
    let world = made().await;
    let installation = world.open().await;
    let open = life(&world, &installation).await;
    let canaries = Search::of(world.shop.canaries());
    let mut tx = installation.control.read().await.unwrap();
    let (mut deleted, mut modified) = (0, 0);
    for entry in open.iter().filter(|entry| !entry.values.is_empty()) {
        let run = entry.record["resources"][0]["uid"].as_str().unwrap();
        let ledger = tx.ledger_of_run(run).await.unwrap();
        for change in entry.record["unmapped"]["changes"].as_array().unwrap() {
            let rows: Vec<String> = ledger
                .iter()
                .filter(|line| change["field"] == format!("{}.{}", line.store, line.collection))
                .map(|line| hex::encode(line.row_mac))
                .collect();
            let ends = [&rows[0], rows.last().unwrap()].map(String::as_str);
            let named = [&change["records"]["first"], &change["records"]["last"]].map(|text| text.as_str().unwrap());
            assert!(
                ends == named || change["operation"] == "M" || rows.len() as u64 != change["rows"].as_u64().unwrap()
            );
        }
        for (table, letter, values) in &entry.values {
            assert!(!values.rows.is_empty() && values.rows.len() <= 10, "{table}");
            let shown = serde_json::to_string(values).unwrap();
            assert_eq!(canaries.hits(shown.as_bytes()), Vec::<&str>::new(), "{table}: {shown}");
            for row in &values.rows {
                assert_eq!(letter == "D", row.after.is_none(), "{table}: {row:?}");
                // At most one character at each end, and of an address its province; blank stays blank.
                let mut masked =
                    row.before.iter().filter(|(name, value)| !name.ends_with("address") && !value.is_empty());
                assert!(masked.all(|(_, value)| value.contains('*')), "{table}: {row:?}");
            }
            if table == "shop.surveys" {
                modified += values.rows.len();
                let first = &values.rows[0];
                assert_eq!(
                    (first.key.as_slice(), values.last.as_slice()),
                    (&["11".to_owned()][..], &["13".to_owned()][..])
                );
                assert_eq!(first.before["mobile"], "1*********1");
                assert!(!first.before["answer"].is_empty());
                assert_eq!(first.after.as_ref().unwrap()["answer"], "");
                let change = entry.record["unmapped"]["changes"].as_array().unwrap();
                let change = change.iter().find(|change| change["field"] == "shop.surveys").unwrap();
                assert_eq!(change["after_digest"], surveys_now(&installation).await);
            } else if letter == "D" {
                deleted += values.rows.len();
            }
            if table == "shop.customers" {
                assert_eq!(values.rows[0].key, [HIDDEN]);
            }
        }
    }
    assert!(deleted > 5 && modified == 3, "{deleted} {modified}");
    drop(tx);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_keeps_no_other_entry_back() {
    let world = made().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver).await;
    let damaged = Change {
        field: "shop.orders".to_owned(),
        operation: "D".to_owned(),
        rows: 1,
        sealed: Some("AAAA".to_owned()),
        ..Change::default()
    };
    let ended = Operation { name: "run.end", object: &run.id, outcome: "success", ..Operation::default() };
    installation.log(Operation { changes: vec![damaged], ..ended }).await.unwrap();
    let asked = Query { operation: Some("run.end".to_owned()), ..Query::default() };
    let found = query(&installation, &asked).await.unwrap();
    let opened: Vec<bool> = found.iter().map(|entry| !entry.values.is_empty()).collect();
    assert!(opened.contains(&true) && opened.last() == Some(&false), "{opened:?}");
    installation.close().await.unwrap();
}

/// Months of a log as files, and what is wrong with them.
async fn wrong(installation: &Installation, files: &[ArchiveFile]) -> (String, Option<u64>, String) {
    let fault = verify_archives(installation, files).await.unwrap().unwrap_err();
    (fault.archive, fault.line, fault.what)
}

#[tokio::test]
async fn monthly_archives_are_chained_and_an_edited_line_is_named() {
    let world = World::standard().await;
    let early = world.copied();
    let installation = world.open().await;
    assert_eq!(archive(&installation, &[]).await.unwrap(), [], "no month is over");
    for month in 0..3 {
        for at in 0..5 {
            installation.log_operation("request.new", &format!("request-{month}-{at}"), "success").await.unwrap();
        }
        world.clock.advance(TimeDelta::days(31));
    }
    let two = archive(&installation, &[]).await.unwrap();
    assert!(two.len() >= 2, "{two:?}");
    world.clock.advance(TimeDelta::days(31));
    let mut files = two.clone();
    files.extend(archive(&installation, &two).await.unwrap());
    assert!(files.len() > two.len() && files.is_sorted(), "added behind those that were there");
    assert_eq!(archive(&installation, &files).await.unwrap(), [], "once");
    let held = verify_archives(&installation, &files).await.unwrap().unwrap();
    let archived: u64 = files.iter().map(|(_, text)| text.lines().count() as u64 - 1).sum();
    assert!(held == archived && held >= 15, "{held} {archived}");
    let all = export(&installation).await.unwrap();
    for (at, line) in files.iter().flat_map(|(_, text)| text.lines().skip(1)).enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["record"].as_str(), all[at].text.as_deref(), "what was logged, byte for byte");
    }

    let edited = changes_are_named(&installation, &files).await;
    gaps_are_named(&installation, &files).await;
    let rolled_back = early.open_state().await;
    let found = wrong(&rolled_back, &files).await;
    assert!(found.0 == files[0].0 && found.2.contains("beyond the log's end"), "{found:?}");
    rolled_back.close().await.unwrap();

    // The same for whoever has the program and the folder.
    installation.close().await.unwrap();
    let program = Program::in_directory(world.folder.path());
    std::fs::create_dir(world.path("kept")).unwrap();
    let keep = |files: &[ArchiveFile]| {
        for (name, text) in files {
            std::fs::write(world.path("kept").join(name), text).unwrap();
        }
    };
    keep(&files);
    // By the host's clock more months may be over.
    program.json(&["log", "export", "--archive", "kept"]).ends(0);
    let good = program.json(&["log", "verify", "--archive", "kept"]).ends(0);
    assert!(good.document()["archives"]["entries"].as_u64() >= Some(held), "{good}");
    keep(&edited);
    let bad = program.json(&["log", "verify", "--archive", "kept"]).ends(1);
    assert_eq!(bad.document()["archives"]["line"], 4, "{bad}");
    program.run(&["log", "verify", "--archive", "kept"]).ends(1).says(&[&files[1].0, "line 4"]);
}

/// Archives that are not there, of the newest months too.
async fn gaps_are_named(installation: &Installation, files: &[ArchiveFile]) {
    let (newest, older) = files.split_last().unwrap();
    let found = wrong(installation, older).await;
    assert!(found.0 == newest.0 && found.2.contains("is missing"), "{found:?}");
    let found = wrong(installation, &[]).await;
    assert_eq!(found.0, files[0].0);
    let named = |file: &ArchiveFile| found.2.contains(&file.0["operations-".len()..][..7]);
    assert!(files[1..].iter().all(named), "{found:?}");
}

/// A line without its text, with another time, and an archive that says another month.
async fn unfit_lines_are_named(installation: &Installation, files: &[ArchiveFile]) {
    let with = |at: usize, change: &dyn Fn(&mut Value)| {
        let mut changed = files.to_vec();
        let mut lines: Vec<String> = changed[1].1.lines().map(str::to_owned).collect();
        let mut line: Value = serde_json::from_str(&lines[at]).unwrap();
        change(&mut line);
        lines[at] = line.to_string();
        changed[1].1 = lines.join("\n") + "\n";
        changed
    };
    let blanked = with(2, &|line| {
        line["salt"] = Value::Null;
        line["record"] = Value::Null;
    });
    let found = wrong(installation, &blanked).await;
    assert!(found.1 == Some(3) && found.2.contains("which the log still holds"), "{found:?}");
    let found = wrong(installation, &with(2, &|line| line["time"] = "2026-04-20T00:00:00.000Z".into())).await;
    assert!(found.1 == Some(3) && found.2.contains("another time"), "{found:?}");
    let mut moved = with(0, &|line| line["month"] = "2026-05".into());
    let found = wrong(installation, &moved).await;
    assert_eq!((found.0.as_str(), found.1), (files[1].0.as_str(), Some(1)), "{found:?}");
    moved[1].0 = files[1].0.replace("2026-04", "2026-05");
    let found = wrong(installation, &moved).await;
    assert!(found.0 != files[1].0 && found.1 == Some(2) && found.2.contains("month"), "{found:?}");
}

/// A line that was edited, taken out, moved, or made to fit, and an archive that is gone. Returns the archives with the edited line.
async fn changes_are_named(installation: &Installation, files: &[ArchiveFile]) -> Vec<ArchiveFile> {
    let name = files[1].0.clone();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed = files.to_vec();
        let mut lines: Vec<String> = changed[1].1.lines().map(str::to_owned).collect();
        change(&mut lines);
        changed[1].1 = lines.join("\n") + "\n";
        changed
    };
    let edited = with(&|lines| lines[3] = lines[3].replace("request-", "request_"));
    let found = wrong(installation, &edited).await;
    assert_eq!((found.0.as_str(), found.1), (name.as_str(), Some(4)), "{found:?}");
    let found = wrong(installation, &with(&|lines| drop(lines.remove(2)))).await;
    assert_eq!((found.0.as_str(), found.1), (name.as_str(), Some(3)), "{found:?}");
    let found = wrong(installation, &with(&|lines| lines.swap(2, 3))).await;
    assert_eq!((found.0.as_str(), found.1), (name.as_str(), Some(3)), "{found:?}");
    // With a digest to match: the log knows better.
    let forged = with(&|lines| {
        let mut entry: Value = serde_json::from_str(&lines[2]).unwrap();
        let text = entry["record"].as_str().unwrap().replace("request-", "request_");
        let salt = hex::decode(entry["salt"].as_str().unwrap()).unwrap();
        entry["commitment"] = hex::encode(wangchuan::log::record::commitment(&salt, text.as_bytes())).into();
        entry["record"] = text.into();
        lines[2] = entry.to_string();
    });
    let found = wrong(installation, &forged).await;
    assert_eq!((found.0.as_str(), found.1), (name.as_str(), Some(3)), "{found:?}");
    let without: Vec<ArchiveFile> = files.iter().filter(|file| file.0 != name).cloned().collect();
    assert_eq!(wrong(installation, &without).await.0, files[2].0);
    unfit_lines_are_named(installation, files).await;
    let refused = archive(installation, &edited).await.unwrap_err().to_string();
    assert!(refused.contains(&name) && refused.contains("line 4"), "{refused}");
    edited
}
