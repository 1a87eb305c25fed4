//! An erasure taken back within its grace: rows, ledger, keys and certificates are as if it had not been, but for the record.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chrono::TimeDelta;
use wangchuan::certify::codes::Limitation;
use wangchuan::control::RunRow;
use wangchuan::crash_point::UNDO_POINTS;
use wangchuan::installation::{Installation, Needs};
use wangchuan::keyring::Purpose;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::erasure::resume_runs;
use wangchuan::tasks::shred::{ShredReport, shred_due};
use wangchuan::tasks::undo::{undo_request, undo_run};

use super::requests::{hold_subject, release};
use crate::support::world::{
    Making, World, body, forget, manual_clock_at, pass_time, read_config, refusal, restore, retain, run_now, snapshot,
};

async fn in_grace() -> World {
    World::make(Making { grace: "72 hours", customers: 60, ..Making::default() }).await
}

async fn has_pre_images(installation: &Installation, run: &RunRow) -> bool {
    let mut tx = installation.control.begin().await.unwrap();
    let key = installation.keyring.find_work_key(&mut tx, Purpose::PreImage, &run.id).await.unwrap();
    let stored = tx.runs_with_pre_images().await.unwrap().contains(&run.id);
    assert_eq!(key.is_some(), stored);
    stored
}

async fn limitations(installation: &Installation, id: &str) -> Vec<Limitation> {
    let row = installation.control.read().await.unwrap().certificate(id).await.unwrap().unwrap();
    let envelope = wangchuan::certify::dsse::Envelope::parse(&row.envelope).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(envelope.payload()).unwrap();
    serde_json::from_value(statement["predicate"]["limitations"].clone()).unwrap()
}

#[tokio::test]
async fn everything_is_as_before_and_can_be_erased_again() {
    let world = in_grace().await;
    let installation = world.open().await;
    let keeper = world.shop.picks.keeper.clone();
    let before = world.dump_all("shop.db").await;
    let first = snapshot(&installation).await;
    let run = forget(&installation, &keeper).await;
    let counts = body(&run);
    assert!(counts.erased > 0 && counts.stripped == 1 && counts.kept > 0, "{counts:?}");
    let pending = certify_due(&installation).await.unwrap();
    let between = snapshot(&installation).await;
    assert!(has_pre_images(&installation, &run).await);

    let report = undo_request(&installation, run.request.unwrap()).await.unwrap();
    assert_eq!((report.restored as i64, report.superseded, report.refused), (counts.erased + counts.stripped, 0, 0));
    assert_eq!(world.dump_all("shop.db").await, before);
    let undone = run_now(&installation, &run.id).await;
    let now = body(&undone);
    assert_eq!((undone.state.as_str(), now.erased, now.stripped, now.kept), ("undone", 0, 0, now.due));
    assert!(!has_pre_images(&installation, &run).await);
    let request = installation.control.read().await.unwrap().request(run.request.unwrap()).await.unwrap().unwrap();
    assert_eq!(request.state, "cancelled");
    assert!(refusal(undo_run(&installation, &undone).await).contains("undone already"));

    let certificates = certify_due(&installation).await.unwrap();
    assert_eq!(certificates.len(), 1);
    let codes = limitations(&installation, &certificates[0]).await;
    assert!(codes.contains(&Limitation::ErasureUndone) && !codes.contains(&Limitation::KeyShredPending), "{codes:?}");
    let row = installation.control.read().await.unwrap().certificate(&certificates[0]).await.unwrap().unwrap();
    assert_eq!((row.result.as_str(), row.supersedes.as_ref()), ("partial", Some(&pending[0])));

    // Neither the shred nor the ledger knows the erasure any more.
    pass_time(&world, &installation, TimeDelta::hours(80)).await;
    let after = snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.is_empty() && report.waiting.is_empty(), "{report:?}");
    for (row, file) in [(&first, "first.db"), (&after, "after.db")] {
        let restored = restore(&world, &installation, row, file).await.unwrap();
        assert!(restored.is_whole() && restored.frames_shredded == 0, "{restored:?}");
        assert_eq!(world.dump_all(file).await, before, "{file}");
    }
    let restored = restore(&world, &installation, &between, "between.db").await.unwrap();
    assert!(restored.is_whole(), "{restored:?}");

    // Asked again, and not undone: no snapshot opens what goes now.
    let again = forget(&installation, &keeper).await;
    assert_eq!(body(&again).erased, counts.erased);
    snapshot(&installation).await;
    pass_time(&world, &installation, TimeDelta::hours(73)).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![again.id.clone()], "{report:?}");
    assert!(!has_pre_images(&installation, &again).await);
    for row in [first, between, after] {
        let drill = run_drill(&installation, row).await.unwrap();
        assert_eq!(drill.result, "passed", "{drill:?}");
    }
    installation.close().await.unwrap();
}

#[tokio::test]
async fn retention_is_undone_with_its_buckets() {
    let world = in_grace().await;
    let installation = world.open().await;
    let before = world.dump_all("shop.db").await;
    let first = snapshot(&installation).await;
    installation.close().await.unwrap();
    let untouched = world.copied();
    let installation = world.open().await;
    let run = retain(&installation).await;
    assert!(body(&run).erased > 20);
    // Rows that live on go to new instances of the marked buckets.
    let between = snapshot(&installation).await;
    undo_run(&installation, &run).await.unwrap();
    assert_eq!(world.dump_all("shop.db").await, before);
    let after = snapshot(&installation).await;
    for (row, file) in [(&first, "first.db"), (&after, "after.db")] {
        let restored = restore(&world, &installation, row, file).await.unwrap();
        assert!(restored.is_whole() && restored.frames_shredded == 0, "{restored:?}");
        assert_eq!(world.dump_all(file).await, before, "{file}");
    }
    let again = retain(&installation).await;
    assert_eq!(body(&again).erased, body(&run).erased);
    snapshot(&installation).await;
    pass_time(&world, &installation, TimeDelta::hours(73)).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.waiting.is_empty() && report.generation.is_some(), "{report:?}");
    // The keys that the undone run had marked are at today's run's disposal: as much opens as if there had been no undo.
    let pending = |report: &ShredReport, run: &RunRow| {
        report.pending.iter().find(|(id, _, _)| *id == run.id).map_or(0, |(_, rows, _)| *rows)
    };
    let opened = restore(&world, &installation, &first, "gone.db").await.unwrap();
    let taken: u64 = opened.collections.iter().map(|counts| counts.erased_since).sum();
    let reference = untouched.open().await;
    let run = retain(&reference).await;
    snapshot(&reference).await;
    pass_time(&untouched, &reference, TimeDelta::hours(73)).await;
    let without = shred_due(&reference).await.unwrap();
    assert_eq!(pending(&report, &again), pending(&without, &run), "{report:?} {without:?}");
    assert_eq!(taken as i64, pending(&without, &run));
    reference.close().await.unwrap();
    for row in [first, between, after] {
        assert_eq!(run_drill(&installation, row).await.unwrap().result, "passed");
    }
    installation.close().await.unwrap();
}

#[tokio::test]
async fn it_is_refused_without_grace_and_after_it_but_a_hold_prolongs_it() {
    let world = in_grace().await;
    let installation = world.open().await;
    let (leaver, keeper) = (world.shop.picks.leaver.clone(), world.shop.picks.keeper.clone());
    let before = world.dump_all("shop.db").await;
    snapshot(&installation).await;
    let run = forget(&installation, &leaver).await;
    let other = forget(&installation, &keeper).await;
    hold_subject(&installation, &leaver, "h-1").await;
    pass_time(&world, &installation, TimeDelta::hours(73)).await;
    snapshot(&installation).await;
    let what = refusal(undo_run(&installation, &other).await);
    assert!(what.contains("its grace ended at"), "{what}");
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![other.id.clone()], "{report:?}");
    let what = refusal(undo_run(&installation, &run_now(&installation, &other.id).await).await);
    assert!(what.contains("stays gone"), "{what}");
    // What a hold covers waits, with its images.
    undo_run(&installation, &run).await.unwrap();
    let of = |rows: &[(String, Vec<String>)]| -> Vec<String> {
        let own = rows.iter().flat_map(|(_, rows)| rows).filter(|row| row.contains(&format!("'{leaver}'")));
        own.cloned().collect()
    };
    assert_eq!(of(&world.dump_all("shop.db").await), of(&before));
    release(&installation, "h-1").await;
    installation.close().await.unwrap();

    let world = World::make(Making { customers: 20, ..Making::default() }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = retain(&installation).await;
    assert!(!has_pre_images(&installation, &run).await);
    assert!(refusal(undo_run(&installation, &run).await).contains("no grace"));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_living_row_is_never_overwritten_and_both_its_keys_die_with_the_next_request() {
    let world = in_grace().await;
    let installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    let row = world.dump("shop.db", "customers").await.into_iter().find(|row| row.contains(&leaver)).unwrap();
    let first = snapshot(&installation).await;
    let run = forget(&installation, &leaver).await;
    // The person is back before the undo, under the same id, and a snapshot knows the new row by new keys.
    world.run_sql(&format!("INSERT INTO customers VALUES ({row})")).await;
    world.run_sql(&format!("UPDATE customers SET name = 'Somebody New' WHERE customer_id = '{leaver}'")).await;
    let back = snapshot(&installation).await;
    let report = undo_run(&installation, &run).await.unwrap();
    assert_eq!((report.superseded, report.restored as i64), (1, body(&run).erased - 1), "{report:?}");
    let named = format!("SELECT count(*) FROM customers WHERE customer_id = '{leaver}' AND name = 'Somebody New'");
    assert_eq!(world.number("shop.db", &named).await, 1);
    certify_due(&installation).await.unwrap();
    let after = snapshot(&installation).await;
    for (row, file) in [(&back, "back.db"), (&after, "after.db")] {
        let restored = restore(&world, &installation, row, file).await.unwrap();
        assert!(restored.is_whole(), "{restored:?}");
        assert_eq!(world.number(file, &named).await, 1, "{file}");
    }
    let again = forget(&installation, &leaver).await;
    assert_eq!(body(&again).erased, body(&run).erased);
    snapshot(&installation).await;
    pass_time(&world, &installation, TimeDelta::hours(73)).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![again.id.clone()], "{report:?}");
    for (row, file) in [(first, "1.db"), (back, "2.db"), (after, "3.db")] {
        let restored = restore(&world, &installation, &row, file).await.unwrap();
        let opened: u64 = restored.collections.iter().map(|counts| counts.erased_since).sum();
        assert_eq!(opened, 0, "{file}: {restored:?}");
        let left = format!("SELECT count(*) FROM customers WHERE customer_id = '{leaver}'");
        assert_eq!(world.number(file, &left).await, 0, "{file}");
    }
    installation.close().await.unwrap();
}

const FOLDER: &str = "WANGCHUAN_UNDO_FOLDER";
const RUN: &str = "WANGCHUAN_UNDO_RUN";

/// The child process: begins or goes on with the undo, and is killed in it.
async fn child(folder: &str) {
    let clock = manual_clock_at(crate::support::world::dawn());
    let config = read_config(Path::new(folder));
    let installation = Installation::open(config, Needs::ALL, clock, Arc::new(SystemRandom)).await.unwrap();
    resume_runs(&installation).await.unwrap();
    let run = run_now(&installation, &std::env::var(RUN).unwrap()).await;
    if run.state == "shred-pending" {
        undo_run(&installation, &run).await.unwrap();
    }
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_kill_at_any_step_of_an_undo_is_finished_by_the_next_start() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    let template = in_grace().await;
    let before = template.dump_all("shop.db").await;
    let installation = template.open().await;
    snapshot(&installation).await;
    let run = forget(&installation, &template.shop.picks.keeper.clone()).await;
    installation.close().await.unwrap();
    let later = ["undo.rows-stored:2", "undo.chunk-restored:3"];
    for point in UNDO_POINTS.iter().copied().chain(later) {
        let world = template.copied();
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["cycle::undo::a_kill_at_any_step_of_an_undo_is_finished_by_the_next_start", "--exact"])
            .env(FOLDER, world.folder.path())
            .env(RUN, &run.id)
            .env("WANGCHUAN_CRASH_AT", point)
            .output()
            .unwrap();
        assert!(!done.status.success(), "{point} was never reached: {}", String::from_utf8_lossy(&done.stdout));
        let installation = world.open().await;
        let resumed = resume_runs(&installation).await.unwrap();
        assert!(resumed.failed.is_empty(), "{point}: {:?}", resumed.failed);
        let undone = run_now(&installation, &run.id).await;
        let counts = body(&undone);
        assert_eq!((undone.state.as_str(), counts.erased, counts.stripped), ("undone", 0, 0), "{point}");
        assert_eq!(counts.undone, Some(body(&run).erased + body(&run).stripped), "{point}");
        assert_eq!(world.dump_all("shop.db").await, before, "{point}");
        assert!(!has_pre_images(&installation, &run).await, "{point}");
        installation.close().await.unwrap();
    }
}
