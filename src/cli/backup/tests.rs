use chrono::{DateTime, Utc};

use super::verify::{show_verified, verified_store};
use super::*;
use crate::backup::verify::{Problem, Verification};

fn row(id: &str, store: &str, number: i64) -> SnapshotRow {
    SnapshotRow {
        number,
        id: id.to_owned(),
        store: store.to_owned(),
        chain: 1,
        kind: "full".to_owned(),
        ledger_position: 0,
        sequence: number,
        state: "committed".to_owned(),
        manifest: None,
        manifest_sha256: None,
        rows: 12_345,
        frames: 3,
        bytes: 9_999,
        begun_at: DateTime::<Utc>::UNIX_EPOCH,
        committed_at: None,
        begins_with: id.to_owned(),
        parent: None,
        living: 12_345,
        why_full: None,
    }
}

#[test]
fn a_snapshot_is_found_by_the_beginning_of_its_id() {
    let rows = [row("ab12", "shop", 1), row("ab99", "crm", 2), row("cd00", "shop", 3)];
    assert_eq!(choose(&rows, Some("AB1"), None).unwrap().number, 1);
    assert_eq!(choose(&rows, Some("ab"), Some("crm")).unwrap().number, 2);
    assert_eq!(choose(&rows, Some("ab"), None).unwrap_err().what.en, "several snapshots begin with ab");
    for missing in ["ff", ""] {
        assert_eq!(choose(&rows, Some(missing), None).unwrap_err().code, "SNAPSHOT_UNKNOWN");
    }
}

#[test]
fn without_an_id_the_newest_of_the_store_counts() {
    let rows = [row("a", "shop", 1), row("b", "crm", 2), row("c", "shop", 3)];
    assert_eq!(choose(&rows, None, Some("shop")).unwrap().number, 3);
    assert_eq!(choose(&rows, None, Some("hr")).unwrap_err().code, "SNAPSHOT_UNKNOWN");
    assert_eq!(choose(&rows, None, None).unwrap_err().code, "WHICH_STORE");
    assert_eq!(choose(&rows[..1], None, None).unwrap().number, 1);
    assert_eq!(choose(&[], None, None).unwrap_err().exit, Exit::Usage);
}

#[test]
fn of_a_time_the_newest_begun_by_then_counts() {
    let at = |second| DateTime::<Utc>::from_timestamp(second, 0).unwrap();
    let begun = |id, store, number, second| SnapshotRow { begun_at: at(second), ..row(id, store, number) };
    let rows = [begun("a", "shop", 1, 100), begun("b", "crm", 2, 200), begun("c", "shop", 3, 300)];
    let chosen = |second, store| choose_at(&rows, (None, Some(at(second))), store).map(|row| row.number);
    assert_eq!(chosen(300, Some("shop")).unwrap(), 3);
    assert_eq!(chosen(299, Some("shop")).unwrap(), 1);
    assert_eq!(chosen(199, None).unwrap(), 1);
    assert_eq!(chosen(200, None).unwrap_err().code, "WHICH_STORE");
    for (second, store) in [(99, None), (199, Some("crm"))] {
        assert_eq!(chosen(second, store).unwrap_err().code, "SNAPSHOT_UNKNOWN");
    }
    assert_eq!(choose_at(&rows, (Some("c"), None), None).unwrap().number, 3);
}

#[test]
fn verification_is_valid_only_without_problems() {
    let (_folder, config) = crate::cli::context::testing::config();
    let good = Verification { manifests: 1, packs: 2, ..Verification::default() };
    let problem =
        Problem { object: "packs/x".to_owned(), what: "it is missing".to_owned(), retryable: false, unread: false };
    let bad = Verification { problems: vec![problem], ..good.clone() };
    for (found, result, exit) in [(vec![good.clone()], "valid", Exit::Done), (vec![good, bad], "invalid", Exit::Failed)]
    {
        let (mut output, out, err) = crate::cli::output::testing::output(true);
        let coverage = crate::agent::Coverage::default();
        let stores: Vec<_> = found.into_iter().map(|found| verified_store("shop", found, &coverage)).collect();
        assert_eq!(show_verified(&mut output, &config, stores).unwrap(), exit);
        let document: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(document["result"], result);
        assert_eq!(err.text().contains("packs/x: it is missing"), exit == Exit::Failed);
    }
}

#[test]
fn every_store_counts_with_its_newest_snapshot() {
    let rows = [row("a", "shop", 1), row("b", "crm", 2), row("c", "shop", 3)];
    assert_eq!(newest_of_each(rows.iter()).iter().map(|row| row.number).collect::<Vec<_>>(), [2, 3]);
}
