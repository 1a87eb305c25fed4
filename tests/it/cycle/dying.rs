//! The rules of dying: pins, the barrier, grace, holds between erasure and shred, buckets that are only partly due.

use chrono::TimeDelta;
use wangchuan::clock::Clock as _;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::erasure::{has_due_buckets, plan_retention};
use wangchuan::tasks::shred::shred_due;

use super::requests::{hold_subject, release};
use crate::support::world::{Making, World, body, forget, pass_time, restore, retain, run_now, snapshot};

#[tokio::test]
async fn no_key_dies_before_a_later_snapshot() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, Vec::<String>::new());
    assert_eq!(report.waiting.len(), 1);
    assert!(report.waiting[0].1.contains("no snapshot since the erasure"), "{report:?}");
    snapshot(&installation).await;
    assert_eq!(shred_due(&installation).await.unwrap().shredded, vec![run.id]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn no_key_dies_before_grace_ends_and_a_hold_stops_it_after() {
    let world = World::make(Making { grace: "72 hours", ..Making::default() }).await;
    let installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    let first = snapshot(&installation).await;
    let run = forget(&installation, &leaver).await;
    snapshot(&installation).await;
    let pending = certify_due(&installation).await.unwrap();
    world.clock.advance(TimeDelta::hours(71));
    let report = shred_due(&installation).await.unwrap();
    assert!(report.waiting[0].1.contains("grace lasts"), "{report:?}");
    // Pending is not gone: the rows still open, and a restore takes them out by the ledger.
    let restored = restore(&world, &installation, &first, "pending.db").await.unwrap();
    let taken: u64 = restored.collections.iter().map(|counts| counts.erased_since).sum();
    assert_eq!(taken as i64, body(&run).erased, "{restored:?}");
    assert_eq!(restored.frames_shredded, 0);

    hold_subject(&installation, &leaver, "h-9").await;
    world.clock.advance(TimeDelta::hours(2));
    let report = shred_due(&installation).await.unwrap();
    assert!(report.waiting[0].1.contains("h-9"), "{report:?}");
    release(&installation, "h-9").await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id.clone()], "{report:?}");
    let last = certify_due(&installation).await.unwrap();
    let mut tx = installation.control.read().await.unwrap();
    let all = tx.certificates(Some(&run.id)).await.unwrap();
    drop(tx);
    assert_eq!(all.iter().map(|row| row.result.as_str()).collect::<Vec<_>>(), ["partial", "complete"]);
    assert_eq!((all[0].id.as_str(), all[1].id.as_str()), (pending[0].as_str(), last[0].as_str()));
    assert_eq!(all[1].supersedes.as_ref(), Some(&pending[0]));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn kept_orders_of_the_old_snapshot_open_and_erased_rows_of_it_do_not() {
    // A bucket of a day: what is kept never shares a cell with what goes, so every pin preserves.
    let world = World::make(Making { bucket: "day", ..Making::default() }).await;
    let installation = world.open().await;
    let keeper = world.shop.picks.keeper.clone();
    let first = snapshot(&installation).await;
    let run = forget(&installation, &keeper).await;
    let counts = body(&run);
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id], "{report:?}");
    let pins = installation.control.read().await.unwrap().pins().await.unwrap();
    let preserving = pins.iter().filter(|pin| pin.kind == wangchuan::control::PinKind::Preserving).count();
    assert!(preserving >= 3 && preserving < pins.len(), "{pins:?}");
    let restored = restore(&world, &installation, &first, "old.db").await.unwrap();
    assert!(restored.is_whole() && restored.frames_shredded > 0, "{restored:?}");
    let of = format!("SELECT count(*) FROM orders WHERE customer_id = '{keeper}'");
    assert_eq!(world.number("old.db", &of).await, world.number("shop.db", &of).await);
    let shredded: u64 = restored.collections.iter().map(|counts| counts.shredded).sum();
    assert_eq!(shredded as i64, counts.erased + counts.stripped, "{restored:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_cell_of_which_rows_went_dies_and_its_kept_rows_live_on_under_a_fresh_pin() {
    let world = World::standard().await;
    let installation = world.open().await;
    let keeper = world.shop.picks.keeper.clone();
    // Two orders of one quarter, to both sides of the three years.
    world
        .run_sql(&format!(
            "INSERT INTO orders VALUES (999011, '{keeper}', 'completed', '2023-02-20 08:00:00', '2023-03-01 08:00:00', 1, 'a');
             INSERT INTO orders VALUES (999012, '{keeper}', 'completed', '2023-03-20 08:00:00', '2023-03-25 08:00:00', 1, 'b')"
        ))
        .await;
    let first = snapshot(&installation).await;
    let run = forget(&installation, &keeper).await;
    let second = snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id], "{report:?}");
    let one = |id: i64| format!("SELECT count(*) FROM orders WHERE order_id = {id}");
    restore(&world, &installation, &first, "first.db").await.unwrap();
    let restored = restore(&world, &installation, &second, "second.db").await.unwrap();
    assert!(restored.is_whole() && restored.frames_shredded == 0, "{restored:?}");
    assert_eq!(world.number("first.db", &one(999_011)).await, 0);
    assert_eq!(world.number("second.db", &one(999_011)).await, 0);
    assert_eq!(world.number("second.db", &one(999_012)).await, 1);
    // The next snapshot finds the pin again.
    let third = snapshot(&installation).await;
    restore(&world, &installation, &third, "third.db").await.unwrap();
    assert_eq!(world.number("third.db", &one(999_012)).await, 1);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn pinned_rows_die_when_their_own_time_comes() {
    let world = World::make(Making { bucket: "month", ..Making::default() }).await;
    let installation = world.open().await;
    let keeper = world.shop.picks.keeper.clone();
    let first = snapshot(&installation).await;
    forget(&installation, &keeper).await;
    let second = snapshot(&installation).await;
    assert!(shred_due(&installation).await.unwrap().pinned > 0);
    let of = format!("SELECT count(*) FROM orders WHERE customer_id = '{keeper}'");
    assert_eq!(world.number("shop.db", &of).await, 3);
    // Three years later, month by month, for the clock is not believed in longer leaps.
    let mut last = None;
    for _ in 0..13 {
        pass_time(&world, &installation, TimeDelta::days(90)).await;
        last = Some(retain(&installation).await);
        snapshot(&installation).await;
        shred_due(&installation).await.unwrap();
    }
    assert_eq!(world.number("shop.db", &of).await, 0);
    assert!(last.is_some());
    for old in [first, second] {
        let record = run_drill(&installation, old).await.unwrap();
        assert_eq!(record.result, "passed", "{record:?}");
        assert_eq!(record.collections.iter().map(|counts| counts.3).sum::<u64>(), 0, "{record:?}");
    }
    let pending = installation.control.read().await.unwrap().runs(Some("shred-pending")).await.unwrap();
    let waiting: Vec<_> = pending.iter().map(|run| body(run).pending).collect();
    assert!(
        waiting.iter().all(|found| found.as_ref().is_some_and(|(_, until)| until.as_str() > "2029")),
        "{waiting:?}"
    );
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_bucket_that_is_partly_due_waits_for_its_date_and_then_dies() {
    let world = World::make(Making { bucket: "quarter", ..Making::default() }).await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let run = retain(&installation).await;
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.pending.len(), 1, "{report:?}");
    let (id, rows, until) = report.pending[0].clone();
    assert_eq!(id, run.id);
    assert!(rows > 0 && until.as_str() > "2026-03-15" && until.as_str() <= "2026-04-01", "{report:?}");
    let first_certificate = certify_due(&installation).await.unwrap();
    let again = shred_due(&installation).await.unwrap();
    assert_eq!((again.shredded.len(), again.pending.len()), (0, 1), "{again:?}");

    pass_time(&world, &installation, TimeDelta::days(18)).await;
    let plan = plan_retention(&installation).await.unwrap().body;
    assert!(has_due_buckets(&installation, &plan).await.unwrap());
    retain(&installation).await;
    assert!(!has_due_buckets(&installation, &plan).await.unwrap());
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.contains(&run.id), "{report:?}");
    let second_certificates = certify_due(&installation).await.unwrap();
    let mut tx = installation.control.read().await.unwrap();
    let all = tx.certificates(Some(&run.id)).await.unwrap();
    drop(tx);
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].supersedes.as_ref(), Some(&first_certificate[0]));
    assert!(second_certificates.contains(&all[1].id));
    assert_eq!(all[1].result, "complete");
    let restored = restore(&world, &installation, &first, "old.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_late_row_of_a_dead_bucket_gets_a_new_key_and_dies_with_a_later_run() {
    let world = World::standard().await;
    let installation = world.open().await;
    let keeper = world.shop.picks.keeper.clone();
    snapshot(&installation).await;
    retain(&installation).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let late = format!(
        "INSERT INTO orders SELECT 999001, '{keeper}', 'completed', '2021-05-01 08:00:00', '2021-05-09 08:00:00', 1, 'late street'"
    );
    world.run_sql(&late).await;
    let with_late = snapshot(&installation).await;
    let restored = restore(&world, &installation, &with_late, "with.db").await.unwrap();
    assert!(restored.is_whole() && restored.frames_shredded == 0, "{restored:?}");
    assert_eq!(world.number("with.db", "SELECT count(*) FROM orders WHERE order_id = 999001").await, 1);

    let run = retain(&installation).await;
    assert_eq!(body(&run).erased, 1);
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.contains(&run.id), "{report:?}");
    assert_eq!(run_now(&installation, &run.id).await.state, "shredded");
    let restored = restore(&world, &installation, &with_late, "without.db").await.unwrap();
    let orders = restored.collections.iter().find(|counts| counts.collection == "orders").unwrap();
    assert_eq!(orders.shredded, 1, "{restored:?}");
    assert_eq!(world.number("without.db", "SELECT count(*) FROM orders WHERE order_id = 999001").await, 0);
    installation.close().await.unwrap();
}

/// Rows of a collection whose policy was edited wait; copies that only backups have lie under the keys of their periods, which wait too.
#[tokio::test]
async fn keys_of_periods_wait_with_the_rows_whose_policy_was_edited() {
    let world = World::make(Making { bucket: "quarter", ..Making::default() }).await;
    let text = std::fs::read_to_string(world.path("wangchuan.toml")).unwrap();
    let (before, complaints) = text.split_once("id = \"closed-complaints\"").unwrap();
    let with = |retention: &str| {
        let own = complaints.replacen("retention = \"3 years\"", &format!("{retention}\ncanary = {{ rows = 1 }}"), 1);
        std::fs::write(world.path("wangchuan.toml"), format!("{before}id = \"closed-complaints\"{own}")).unwrap();
    };
    with("retention = \"3 years\"");
    let installation = world.open().await;
    snapshot(&installation).await;
    retain(&installation).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    installation.close().await.unwrap();

    with("retention = \"1 year\"");
    let installation = world.open().await;
    pass_time(&world, &installation, TimeDelta::hours(1)).await;
    let living = async || {
        let all = installation.control.read().await.unwrap().living_buckets().await.unwrap();
        all.into_iter().filter(|(_, name)| name.collection == "complaints").count()
    };
    let (periods, rows) = (living().await, "SELECT count(*) FROM complaints");
    let count = world.number("shop.db", rows).await;
    let plan = plan_retention(&installation).await.unwrap().body;
    let own = plan.collections.iter().find(|counts| counts.collection == "complaints").unwrap();
    assert!(own.erase > 0 && own.keep.iter().any(|(code, rows)| code == "canary" && *rows > 0), "{own:?}");
    assert!(!has_due_buckets(&installation, &plan).await.unwrap());
    let run = retain(&installation).await;
    assert!(world.number("shop.db", rows).await < count && body(&run).erased > 0);
    assert_eq!(living().await, periods, "no key of a whole period dies with the first share");
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    let (_, _, until) = report.pending.iter().find(|(id, ..)| *id == run.id).unwrap();
    let today = world.clock.now().format("%Y-%m-%d").to_string();
    assert!(*until >= today, "a day that is over: {report:?}");

    pass_time(&world, &installation, TimeDelta::hours(21)).await;
    let plan = plan_retention(&installation).await.unwrap().body;
    assert!(plan.collections.iter().flat_map(|counts| &counts.keep).all(|(code, _)| code != "canary"), "{plan:?}");
    retain(&installation).await;
    assert!(living().await < periods);
    installation.close().await.unwrap();
}
