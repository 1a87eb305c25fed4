//! Requests of customers: everything goes, some must stay, a hold stops it, the same person asks twice.

use wangchuan::certify::codes::RefusalReason;
use wangchuan::control::HoldRow;
use wangchuan::erase::planner::subject_lookup;
use wangchuan::installation::Installation;
use wangchuan::keyring::Purpose;
use wangchuan::plan::Subject;
use wangchuan::stores::Engine;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::erasure::execute;
use wangchuan::tasks::request::{cancel, canonical_subject, plan_request, receive};
use wangchuan::tasks::shred::shred_due;

use crate::support::world::{TABLES, World, body, forget, pass_time, refusal, run_now, snapshot};

async fn rows_of(world: &World, table: &str, id: &str) -> i64 {
    let of = match table {
        "order_lines" => format!("order_id IN (SELECT order_id FROM orders WHERE customer_id = '{id}')"),
        _ => format!("customer_id = '{id}'"),
    };
    world.number("shop.db", &format!("SELECT count(*) FROM {table} WHERE {of}")).await
}

async fn request_state(installation: &Installation, number: i64) -> String {
    installation.control.read().await.unwrap().request(number).await.unwrap().unwrap().state
}

pub async fn hold_subject(installation: &Installation, id: &str, name: &str) {
    let mut tx = installation.control.begin().await.unwrap();
    let key = installation.keyring.work_key(&mut tx, Purpose::Lookup, "").await.unwrap();
    let hold = HoldRow {
        id: name.to_owned(),
        scope: "subject".to_owned(),
        store: None,
        collection: None,
        subject: Some(subject_lookup(&key, &Subject::new(id))),
        reason: "case 12".to_owned(),
        placed_at: installation.clock.now(),
        placed_by: "counsel".to_owned(),
        released_at: None,
    };
    tx.add_hold(&hold).await.unwrap();
    tx.commit().await.unwrap();
}

pub async fn release(installation: &Installation, name: &str) {
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold(name, "counsel", installation.clock.now()).await.unwrap());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_leaver_goes_entirely_and_the_keys_with_it() {
    let world = World::standard().await;
    let installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    let mut held = 0;
    for table in TABLES {
        held += rows_of(&world, table, &leaver).await;
    }
    let others =
        world.number("shop.db", "SELECT count(*) FROM orders").await - rows_of(&world, "orders", &leaver).await;
    let first = snapshot(&installation).await;
    let run = forget(&installation, &leaver).await;
    let counts = body(&run);
    assert_eq!((counts.due, counts.erased), (held, held));
    for table in TABLES {
        assert_eq!(rows_of(&world, table, &leaver).await, 0, "{table}");
    }
    assert_eq!(world.number("shop.db", "SELECT count(*) FROM orders").await, others);
    let orphans = "SELECT count(*) FROM order_lines WHERE order_id NOT IN (SELECT order_id FROM orders)";
    assert_eq!(world.number("shop.db", orphans).await, 0);
    assert_eq!(request_state(&installation, run.request.unwrap()).await, "done");

    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id.clone()], "{report:?}");
    assert_eq!(report.pinned, 0);
    let certificates = certify_due(&installation).await.unwrap();
    let stored = installation.control.read().await.unwrap().certificate(&certificates[0]).await.unwrap().unwrap();
    assert_eq!(stored.result, "complete");
    // What was shredded is exactly what was erased.
    let drill = wangchuan::tasks::drill::run_drill(&installation, first).await.unwrap();
    assert_eq!(drill.result, "passed", "{drill:?}");
    let gone: u64 = drill.collections.iter().map(|counts| counts.2).sum();
    assert_eq!(gone as i64, held, "{drill:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_keeper_keeps_recent_orders_and_loses_the_rest() {
    let world = World::standard().await;
    let installation = world.open().await;
    let keeper = world.shop.picks.keeper.clone();
    let recent = world
        .number(
            "shop.db",
            &format!(
                "SELECT count(*) FROM orders WHERE customer_id = '{keeper}' AND completed_at >= '2023-03-15 10:00:00'"
            ),
        )
        .await;
    let before = world.dump("shop.db", "orders").await;
    snapshot(&installation).await;
    let run = forget(&installation, &keeper).await;
    let counts = body(&run);
    assert!(counts.erased > 0 && counts.kept > 0 && counts.stripped == 1 && counts.failed == 0, "{counts:?}");
    assert_eq!(recent, 3);
    assert_eq!(rows_of(&world, "orders", &keeper).await, recent);
    assert!(rows_of(&world, "order_lines", &keeper).await > 0);
    for table in ["complaints", "newsletter"] {
        assert_eq!(rows_of(&world, table, &keeper).await, 0, "{table}");
    }
    assert!(world.dump("shop.db", "orders").await.iter().all(|row| before.contains(row)), "kept orders are untouched");
    let stripped = format!(
        "SELECT count(*) FROM customers WHERE customer_id = '{keeper}' AND name = '' AND id_card = '' AND mobile = '' \
         AND bank_card = '' AND email = '' AND address = '' AND birth_date = '' AND notes IS NULL AND credit_limit = 0"
    );
    assert_eq!(world.number("shop.db", &stripped).await, 1);
    assert_eq!(request_state(&installation, run.request.unwrap()).await, "waiting");
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id], "{report:?}");
    assert!(report.pinned > 0, "{report:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_hold_keeps_everything_until_it_is_released() {
    let world = World::standard().await;
    let installation = world.open().await;
    let held = world.shop.picks.held.clone();
    hold_subject(&installation, &held, "h-1").await;
    let before = world.dump_all("shop.db").await;
    let first = snapshot(&installation).await;
    let run = forget(&installation, &held).await;
    let counts = body(&run);
    assert!(counts.due > 0 && counts.kept == counts.due, "{counts:?}");
    assert_eq!(world.dump_all("shop.db").await, before);
    // Retention spares the customer as well, and its shred does not wait for the hold.
    let retained = crate::support::world::retain(&installation).await;
    assert!(body(&retained).erased > 0);
    for table in TABLES {
        assert!(rows_of(&world, table, &held).await > 0, "{table}");
    }
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.waiting.len(), 1, "{report:?}");
    assert_eq!(report.waiting[0].0, run.id);
    assert!(report.waiting[0].1.contains("h-1"));
    assert!(run_now(&installation, &retained.id).await.generation.is_some());
    // Every held row still opens in the snapshot from before.
    let restored = crate::support::world::restore(&world, &installation, &first, "again.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");
    for table in TABLES {
        let of = |table: &str| match table {
            "order_lines" => format!("order_id IN (SELECT order_id FROM orders WHERE customer_id = '{held}')"),
            _ => format!("customer_id = '{held}'"),
        };
        let found = world.number("again.db", &format!("SELECT count(*) FROM {table} WHERE {}", of(table))).await;
        assert_eq!(found, rows_of(&world, table, &held).await, "{table}");
    }
    release(&installation, "h-1").await;
    let run = forget(&installation, &held).await;
    let counts = body(&run);
    assert_eq!(counts.erased, counts.due, "{counts:?}");
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.contains(&run.id) && report.waiting.is_empty(), "{report:?}");
    let restored = crate::support::world::restore(&world, &installation, &first, "later.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");
    let left = format!("SELECT count(*) FROM orders WHERE customer_id = '{held}'");
    assert_eq!(world.number("later.db", &left).await, 0);
    let opened = restored.collections.iter().map(|counts| counts.erased_since).sum::<u64>();
    let still: i64 = run_now(&installation, &run.id).await.shredded_at.map_or(1, |_| 0);
    assert_eq!(still, 0);
    let pending: i64 =
        crate::support::world::body(&run_now(&installation, &retained.id).await).pending.map_or(0, |p| p.0);
    assert_eq!(opened as i64, pending, "only rows that wait for the end of their period still open");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn the_same_person_asks_once_and_a_stranger_is_told_so() {
    let world = World::standard().await;
    let installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    let first = receive(&installation, &Subject::new(leaver.as_str())).await.unwrap();
    let again = receive(&installation, &Subject::new(format!(" {leaver} "))).await.unwrap();
    assert!(!first.existing && again.existing);
    assert_eq!(first.request.number, again.request.number);
    assert!(receive(&installation, &Subject::new("  ")).await.is_err());

    snapshot(&installation).await;
    let run = forget(&installation, "C19000101000000").await;
    assert_eq!(body(&run).due, 0);
    assert_eq!(request_state(&installation, run.request.unwrap()).await, "nothing-found");
    shred_due(&installation).await.unwrap();
    let certificates = certify_due(&installation).await.unwrap();
    let stored = installation.control.read().await.unwrap().certificate(&certificates[0]).await.unwrap().unwrap();
    assert_eq!(stored.result, "nothing-found");

    // A withdrawn request is not carried out, not even with a plan made before.
    let plan = plan_request(&installation, first.request.number).await.unwrap();
    cancel(&installation, first.request.number, RefusalReason::Withdrawn).await.unwrap();
    assert!(refusal(execute(&installation, &plan.row).await).contains("is void already"));
    assert!(rows_of(&world, "customers", &leaver).await > 0);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_number_is_the_same_person_however_it_is_written() {
    let world = World::standard().await;
    world
        .run_sql(
            "CREATE TABLE members (member_id INTEGER PRIMARY KEY, name TEXT NOT NULL, left_at TEXT);
             INSERT INTO members VALUES (7, 'seven of nine', NULL), (70, 'another one', NULL)",
        )
        .await;
    let text = std::fs::read_to_string(world.path("wangchuan.toml")).unwrap();
    let (head, _) = text.split_once("[[store.collection]]").unwrap();
    std::fs::write(
        world.path("wangchuan.toml"),
        format!("{head}[[store.collection]]\ntable = \"members\"\nsubject = \"member_id\"\nfields.name = {{ kind = \"name\" }}\n"),
    )
    .unwrap();
    let installation = world.open().await;
    assert_eq!(installation.sites()[0].store.engine(), Engine::Sqlite);
    assert_eq!(canonical_subject(&installation, " 007 ").dangerous_text(), "7");
    snapshot(&installation).await;
    let first = receive(&installation, &Subject::new("007")).await.unwrap();
    let again = receive(&installation, &Subject::new("7")).await.unwrap();
    assert_eq!(first.request.number, again.request.number);
    let plan = plan_request(&installation, first.request.number).await.unwrap();
    let run = execute(&installation, &plan.row).await.unwrap();
    assert_eq!(body(&run).erased, 1);
    assert_eq!(world.number("shop.db", "SELECT count(*) FROM members WHERE member_id = 70").await, 1);
    snapshot(&installation).await;
    // No policy governs the table, so the default grace of 72 hours holds.
    assert_eq!(shred_due(&installation).await.unwrap().waiting.len(), 1);
    pass_time(&world, &installation, chrono::TimeDelta::hours(73)).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id], "{report:?}");
    installation.close().await.unwrap();
}
