//! The operation log of a small company that forgets two customers.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::Value;
use wangchuan::control::{HoldRow, LedgerKind};
use wangchuan::installation::{Installation, Operation};
use wangchuan::log::record::commitment;
use wangchuan::log::store::LeafStore;
use wangchuan::log::verify::verify_log;
use wangchuan::plan::Subject;
use wangchuan::tasks::oplog::{Entry, Query, export, prune, query};
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::shred::shred_due;

use super::tools::filed;
use crate::support::program::Program;
use crate::support::search::Search;
use crate::support::world::{Making, World, body, forget, snapshot};

fn of(id: &str) -> Query {
    Query { subject: Some(Subject::new(id)), ..Query::default() }
}

fn text<'e>(entry: &'e Entry, pointer: &str) -> &'e str {
    entry.record.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {}", entry.record))
}

/// Who, when, from where, on whom, what kind, before and after: in every entry.
fn has_all_fields(entry: &Entry) {
    assert!(!text(entry, "/actor/user/uid").is_empty());
    assert_eq!(entry.record["time"].as_i64().unwrap(), entry.time.timestamp_millis());
    let from = entry.record.pointer("/src_endpoint/ip").or(entry.record.pointer("/src_endpoint/hostname"));
    assert!(!from.unwrap().as_str().unwrap().is_empty(), "a blank address in {}", entry.record);
    assert!(entry.record["unmapped"].get("customer").is_some(), "{}", entry.record);
    assert!(["R", "W", "M", "D"].contains(&text(entry, "/unmapped/operation")));
    assert!(!text(entry, "/activity_name").is_empty() && !text(entry, "/api/operation").is_empty());
    assert!(entry.record["unmapped"]["changes"].is_array());
}

async fn company() -> (World, Installation, [String; 2]) {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let people = [world.shop.picks.leaver.clone(), world.shop.picks.keeper.clone()];
    let run = forget(&installation, &people[0]).await;
    assert!(body(&run).erased > 0);
    forget(&installation, &people[1]).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    (world, installation, people)
}

#[tokio::test]
async fn a_customer_s_operations_are_found_after_the_erasure_and_no_others() {
    let (world, installation, people) = company().await;
    let mut seen: Vec<BTreeSet<u64>> = Vec::new();
    for id in &people {
        let found = query(&installation, &of(id)).await.unwrap();
        let operations: Vec<&str> = found.iter().map(|entry| text(entry, "/api/operation")).collect();
        assert_eq!(operations, ["request.new", "run.begin", "run.end", "log.query"], "of {id}");
        let ended = found.iter().find(|entry| text(entry, "/api/operation") == "run.end").unwrap();
        let count = |name: &str| text(ended, &format!("/unmapped/references/{name}")).parse::<i64>().unwrap();
        assert_eq!(count("due"), count("erased") + count("anonymised") + count("kept"));
        assert!(count("due") > 0);
        seen.push(found.iter().map(|entry| entry.index).collect());
    }
    assert!(seen[0].is_disjoint(&seen[1]));
    assert!(query(&installation, &of("nobody-has-this-id")).await.unwrap().len() == 1, "only the question itself");

    let all = export(&installation).await.unwrap();
    assert_eq!(all.len() as u64, installation.control.log_store("operations").await.unwrap().size().await.unwrap());
    all.iter().for_each(has_all_fields);
    let canaries = Search::of(world.shop.canaries());
    assert_eq!(canaries.hits(format!("of {} it is", people[0]).as_bytes()), [people[0].as_str()], "the search works");
    // Each line can be checked against what the tree holds, and none names a customer.
    for entry in &all {
        let (salt, text) = (hex::decode(entry.salt.as_ref().unwrap()).unwrap(), entry.text.as_ref().unwrap());
        assert_eq!(hex::encode(commitment(&salt, text.as_bytes())), entry.commitment);
        assert_eq!(canaries.hits(text.as_bytes()), Vec::<&str>::new(), "in {text}");
    }
    let runs = Query { operation: Some("run".to_owned()), ..Query::default() };
    assert!(
        query(&installation, &runs).await.unwrap().iter().all(|entry| text(entry, "/api/operation").starts_with("run"))
    );
    installation.close().await.unwrap();
}

#[tokio::test]
async fn contents_go_after_three_years_and_not_while_they_are_held() {
    let (world, installation, people) = company().await;
    let before = export(&installation).await.unwrap().len() as u64;
    let now = wangchuan::clock::Clock::now(world.clock.as_ref());
    let young = prune(&installation, now + TimeDelta::days(3 * 365), true).await.unwrap();
    assert_eq!((young.dropped, young.held), (0, 0), "a day short of three years");
    let later = now + TimeDelta::days(3 * 366);
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
    place_hold(&installation, &hold, None).await.unwrap();
    let held = prune(&installation, later, true).await.unwrap();
    assert!(held.held >= 6, "{held:?}");
    assert_eq!(held.holds, ["case-1"]);
    assert_eq!(query(&installation, &of(&people[0])).await.unwrap().len(), 4, "what is held is still found");
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold("case-1", "clerk", now).await.unwrap());
    tx.commit().await.unwrap();
    let counted = prune(&installation, later, false).await.unwrap();
    let pruned = prune(&installation, later, true).await.unwrap();
    assert!(counted.dropped > 0 && pruned.dropped >= counted.dropped && pruned.held == 0, "{counted:?} {pruned:?}");
    let view = wangchuan::installation::view_operation_log(&installation).await.unwrap();
    let report =
        verify_log(&view.store, &view.key, view.head.as_deref(), &wangchuan::log::record::check_content).await.unwrap();
    assert!(report.leaves > before && report.dropped >= pruned.dropped, "{report:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn contents_go_only_under_the_lease_and_by_a_clock_that_is_believed() {
    let (world, installation, _) = company().await;
    let now = wangchuan::clock::Clock::now(world.clock.as_ref());
    let written = Operation { name: "request.new", object: "request-9", outcome: "success", ..Operation::default() };
    installation.log(Operation { at: Some(chrono::DateTime::UNIX_EPOCH), ..written }).await.unwrap();
    let pruned = prune(&installation, now, true).await.unwrap();
    assert_eq!(pruned.dropped, 0, "an entry is no older than the one before it, whatever the clock said: {pruned:?}");
    let later = now + TimeDelta::days(3 * 366);
    world.clock.advance(TimeDelta::days(3 * 366));
    prune(&installation, later, true).await.expect_err("the clock was set forward");
    let counted = prune(&installation, later, false).await.unwrap();
    assert!(counted.dropped > 0);
    installation.confirm_clock().await.unwrap();
    installation.close().await.unwrap();
    let looking = world.open_state().await;
    prune(&looking, later, true).await.expect_err("without the lease");
    assert_eq!(prune(&looking, later, false).await.unwrap().dropped, counted.dropped, "nothing has gone");
    looking.close().await.unwrap();
}

#[tokio::test]
async fn an_entry_from_a_clock_that_was_far_ahead_keeps_nothing_back() {
    let (world, installation, _) = company().await;
    let now = wangchuan::clock::Clock::now(world.clock.as_ref());
    let before = export(&installation).await.unwrap().len() as u64;
    for (object, at) in [("request-9", Some(now + TimeDelta::days(10 * 366))), ("request-10", None)] {
        let written = Operation { name: "request.new", object, outcome: "success", ..Operation::default() };
        installation.log(Operation { at, ..written }).await.unwrap();
    }
    world.clock.advance(TimeDelta::days(3 * 366));
    installation.confirm_clock().await.unwrap();
    let later = wangchuan::clock::Clock::now(world.clock.as_ref());
    let counted = prune(&installation, later, false).await.unwrap();
    assert!(counted.dropped >= before + 2, "{counted:?}");
    assert_eq!(prune(&installation, later, true).await.unwrap().dropped, counted.dropped);
    assert_eq!(prune(&installation, later, true).await.unwrap().dropped, 0, "once");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_hold_that_comes_while_contents_go_stops_it() {
    let (world, installation, _) = company().await;
    let later = wangchuan::clock::Clock::now(world.clock.as_ref()) + TimeDelta::days(3 * 366);
    let counted = prune(&installation, later, false).await.unwrap();
    world.clock.advance(TimeDelta::days(3 * 366));
    installation.confirm_clock().await.unwrap();
    let hold = "INSERT INTO hold (id, scope, reason, placed_at, placed_by) \
                VALUES ('case-2', 'everything', 'lawsuit', '2026-01-01T00:00:00.000Z', 'clerk');";
    // It comes with the entry that says what is about to go.
    let trigger = format!("CREATE TRIGGER soon AFTER INSERT ON log_leaf BEGIN {hold} END");
    world.run_sql_in("state/control.db", &trigger).await;
    let refused = prune(&installation, later, true).await.unwrap_err();
    assert!(refused.to_string().contains("after 0 entries nothing more was dropped"), "{refused}");
    world.run_sql_in("state/control.db", "DROP TRIGGER soon; DELETE FROM hold").await;
    assert_eq!(prune(&installation, later, false).await.unwrap().dropped, counted.dropped);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_looks_are_logged_without_naming_anybody() {
    let world = World::standard().await;
    let program = Program::in_directory(world.folder.path()).with("SSH_CONNECTION", "10.8.0.5 51144 10.8.0.1 22");
    let place = ["hold", "place", "case-1", "--everything", "--reason", "lawsuit"];
    program.json(&place).ends(0);
    program.json(&place).ends(3);
    let id = &world.shop.picks.leaver;
    program.json(&["explain", "shop", "customers", id]).ends(0);
    let log = |operation: &str| program.json(&["log", "query", "--operation", operation]).ends(0).list("entries");
    let refused = log("command.refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    let record = &refused[0]["record"];
    assert_eq!((&record["resources"][0]["uid"], &record["status_detail"]), (&"hold place".into(), &"REFUSED".into()));
    assert_eq!((&record["src_endpoint"]["ip"], &record["status_id"]), (&"10.8.0.5".into(), &2.into()));
    let looked = log("explain");
    assert_eq!(looked.len(), 1, "{looked:?}");
    assert_eq!(looked[0]["record"]["unmapped"]["operation"], "R");
    assert!(looked[0]["record"]["unmapped"]["customer"].is_string() && !looked[0].to_string().contains(id.as_str()));
    let theirs = program.clone().reading(&format!("{id}\n")).json(&["log", "query", "--customer", "-"]).ends(0);
    let operations: Vec<String> = theirs
        .list("entries")
        .iter()
        .map(|entry| entry["record"]["api"]["operation"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(operations, ["explain", "log.query"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_look_at_requests_runs_holds_and_certificates_is_logged() {
    let world = filed(Making { customers: 12, ..Making::default() }, 1).await;
    let program = Program::in_directory(world.folder.path());
    let run = program.json(&["run", "list"]).ends(0).list("runs")[0]["run"].as_str().unwrap().to_owned();
    let certificate = program.json(&["certificate", "list"]).ends(0).list("certificates")[0].clone();
    let certificate = certificate.as_str().unwrap();
    let words: [&[&str]; 11] = [
        &["request", "list"],
        &["request", "show", "1"],
        &["hold", "list"],
        &["run", "show", &run],
        &["certificate", "list"],
        &["certificate", "show", "1"],
        &["certificate", "export", "1", "--output", "one.json"],
        &["certificate", "verify", "1"],
        &["run", "show", "13912345678"],
        &["certificate", "show", "010-88886666"],
        &["request", "show", "13912345678"],
    ];
    for command in &words {
        let _ = program.json(command);
    }
    let state = world.open_state().await;
    let entries = query(&state, &Query::default()).await.unwrap();
    state.close().await.unwrap();
    let looks: Vec<(&str, &str)> = entries
        .iter()
        .map(|entry| (text(entry, "/api/operation"), text(entry, "/resources/0/uid")))
        .skip_while(|(operation, _)| *operation != "run.list")
        .collect();
    let expected = [
        ("run.list", "runs"),
        ("certificate.list", "certificates"),
        ("request.list", "requests"),
        ("request.show", "request-1"),
        ("hold.list", "holds"),
        ("run.show", run.as_str()),
        ("certificate.list", "certificates"),
        ("certificate.show", certificate),
        ("certificate.export", certificate),
        ("run.show", "unknown"),
        ("certificate.show", "unknown"),
        ("request.show", "unknown"),
        ("log.query", "operations"),
    ];
    assert_eq!(looks, expected);
    entries.iter().for_each(has_all_fields);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_run_says_of_every_table_what_was_deleted_and_changed() {
    let (_world, installation, _) = company().await;
    let entries =
        query(&installation, &Query { operation: Some("run.end".to_owned()), ..Query::default() }).await.unwrap();
    assert_eq!(entries.len(), 2);
    let mut tx = installation.control.read().await.unwrap();
    for entry in &entries {
        let ledger = tx.ledger_of_run(text(entry, "/resources/0/uid")).await.unwrap();
        let changes = entry.record["unmapped"]["changes"].as_array().unwrap();
        let rows = |kind: &str| -> u64 {
            changes
                .iter()
                .filter(|change| change["operation"] == kind)
                .map(|change| change["rows"].as_u64().unwrap())
                .sum()
        };
        let stripped = ledger.iter().filter(|line| line.kind == LedgerKind::Stripped).count() as u64;
        assert_eq!((rows("M"), rows("D")), (stripped, ledger.len() as u64 - stripped), "{changes:?}");
        for change in changes {
            let before = change["before"].as_str().unwrap();
            let of_this = ledger.iter().filter(|line| {
                change["field"] == format!("{}.{}", line.store, line.collection)
                    && (line.kind == LedgerKind::Stripped) == (change["operation"] == "M")
            });
            let contents: Vec<u8> = of_this.flat_map(|line| line.content_mac).collect();
            assert_eq!(before, hex::encode(wangchuan::log::tree::sha256(&contents)), "{change}");
            let after = change.get("after_digest").and_then(|after| after.as_str());
            assert_eq!(after.map(str::len), (change["operation"] == "M").then_some(64), "{change}");
            assert_ne!(after, Some(before), "{change}");
        }
    }
    drop(tx);
    installation.close().await.unwrap();
}
