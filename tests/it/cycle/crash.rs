//! Kill -9 at every named point, and at some of them at a later passage: the next start finishes the work, and what is
//! left is what a run without a crash leaves.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wangchuan::crash_point::POINTS;
use wangchuan::installation::{Installation, Needs};
use wangchuan::keys::slot::Presence;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::erasure::{has_due_buckets, resume_runs};
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::shred::shred_due;

use crate::support::announce::{LONG, switched_on};
use crate::support::control_database::server;
use crate::support::world::{
    Making, World, body, forget, increment, manual_clock, read_config, refusal, restore, retain, snapshot,
};

/// The folder and the customer of the child process.
const FOLDER: &str = "WANGCHUAN_CYCLE_FOLDER";
const LEAVER: &str = "WANGCHUAN_CYCLE_LEAVER";

/// The test that is its own child.
const SELF: &str = "cycle::crash::every_crash_is_finished_by_the_next_start";

/// Later passages of points that are passed often.
const LATER: &[&str] = &[
    "backup.begun:2",
    "backup.pack-stored:2",
    "backup.manifest-stored:2",
    "plan.stored:2",
    "run.added:2",
    "batch.intended:3",
    "batch.deleted:4",
    "batch.committed:2",
    "batch.committed:6",
    "batch.recorded:5",
    "run.verified:2",
    "run.shred-pending:2",
    "state.announced:4",
    "state.stored:2",
    "state.stored:3",
    "state.stored:4",
    "state.noted:3",
    "certificate.issued:2",
    "outbox.receipted:2",
];

/// A cycle as an agent would run it; each step finds out by itself what is left to do.
pub async fn cycle(installation: &Installation, leaver: &str) {
    resume_runs(installation).await.unwrap();
    if installation.control.read().await.unwrap().snapshots(None).await.unwrap().is_empty() {
        snapshot(installation).await;
    }
    let requests = installation.control.read().await.unwrap().requests(None).await.unwrap();
    if requests.is_empty() || requests[0].state == "received" {
        forget(installation, leaver).await;
    }
    let plan = wangchuan::tasks::erasure::plan_retention(installation).await.unwrap();
    if plan.body.to_do() > 0 || has_due_buckets(installation, &plan.body).await.unwrap() {
        wangchuan::tasks::erasure::execute(installation, &plan.row).await.unwrap();
    }
    // What the cycle of a process that was killed took may be the newest one.
    increment(installation).await;
    shred_due(installation).await.unwrap();
    certify_due(installation).await.unwrap();
    file_due(installation, true).await.unwrap();
}

/// What the child process does: one cycle, in which it is killed.
async fn child(folder: &str) {
    let config = read_config(Path::new(folder));
    let installation = Installation::open(config, Needs::ALL, manual_clock(), Arc::new(SystemRandom)).await.unwrap();
    cycle(&installation, &std::env::var(LEAVER).unwrap()).await;
    installation.close().await.unwrap();
}

/// Runs the cycle in a process that kills itself at `point`; whether it did.
pub fn crash_at(world: &World, point: &str) -> bool {
    let done = Command::new(std::env::current_exe().unwrap())
        .args([SELF, "--exact", "--test-threads=1"])
        .env(FOLDER, world.folder.path())
        .env(LEAVER, &world.shop.picks.leaver)
        .env("WANGCHUAN_CRASH_AT", point)
        .output()
        .unwrap();
    let killed = done.status.signal() == Some(9);
    assert!(killed || done.status.success(), "{point}: {}", String::from_utf8_lossy(&done.stdout));
    killed
}

/// Everything that must hold at the end, whatever happened before.
pub async fn check(world: &World, point: &str, expected: &[(String, Vec<String>)], rows_before: i64) {
    let installation = world.open().await;
    cycle(&installation, &world.shop.picks.leaver.clone()).await;
    let left = world.dump_all("shop.db").await;
    assert_eq!(left, expected, "{point}");

    let mut tx = installation.control.read().await.unwrap();
    let runs = tx.runs(None).await.unwrap();
    let (mut erased, mut stripped, mut entries) = (0, 0, 0);
    for run in &runs {
        assert!(matches!(run.state.as_str(), "shredded" | "shred-pending"), "{point}: {}", run.state);
        let counts = body(run);
        erased += counts.erased;
        stripped += counts.stripped;
        entries += tx.ledger_of_run(&run.id).await.unwrap().len() as i64;
        assert_eq!(counts.failed, 0, "{point}: {counts:?}");
        assert!(!tx.certificates(Some(&run.id)).await.unwrap().is_empty(), "{point}");
    }
    let rows_after: i64 = left.iter().map(|(_, rows)| rows.len() as i64).sum();
    assert_eq!((erased, entries), (rows_before - rows_after, erased + stripped), "{point}");
    assert_eq!(tx.requests(None).await.unwrap().iter().map(|row| row.state.as_str()).collect::<Vec<_>>(), ["done"]);
    assert_eq!(tx.running_snapshots().await.unwrap(), 0, "{point}");
    assert_eq!(tx.open_rekey().await.unwrap(), None, "{point}");

    let (generation, _) = tx.tree_root().await.unwrap().unwrap();
    let roots = installation.keyring.slot().list().await.unwrap();
    let usable = roots.iter().filter(|root| root.presence == Presence::Usable);
    assert_eq!(usable.map(|root| root.generation).collect::<Vec<_>>(), [generation], "{point}");

    let certificates = tx.certificates(None).await.unwrap();
    let sequence: Vec<i64> = certificates.iter().map(|row| row.sequence).collect();
    assert_eq!(sequence, (1..=certificates.len() as i64).collect::<Vec<_>>(), "{point}");
    assert!(tx.outbox(None).await.unwrap().iter().all(|row| row.state == "receipted"), "{point}");
    let snapshots = tx.snapshots(None).await.unwrap();
    drop(tx);
    let verdict = verify_certificate(&installation, &certificates[0].id).await.unwrap();
    assert_eq!(verdict.result, "valid", "{point}: {verdict:?}");

    let sequence: Vec<i64> = snapshots.iter().map(|row| row.sequence).collect();
    assert_eq!(sequence, (1..=snapshots.len() as i64).collect::<Vec<_>>(), "{point}");
    let found = wangchuan::agent::verify_backups(&installation, "shop").await.unwrap();
    assert!(found.problems.is_empty(), "{point}: {:?}", found.problems);
    let last = snapshots.last().unwrap();
    let report = restore(world, &installation, last, "restored.db").await.unwrap();
    assert!(report.is_whole(), "{point}: {report:?}");
    assert_eq!(last.kind, "incremental", "{point}");
    assert_eq!(world.dump_all("restored.db").await, expected, "{point}");
    let drill = run_drill(&installation, snapshots[0].clone()).await.unwrap();
    assert_eq!(drill.result, "passed", "{point}: {drill:?}");
    installation.close().await.unwrap();
}

/// Crashes at these points, one world each; returns those that were hit.
async fn crash_at_all(
    template: Arc<World>,
    points: Vec<&'static str>,
    expected: Vec<(String, Vec<String>)>,
) -> Vec<&'static str> {
    let before: i64 = template.dump_all("shop.db").await.iter().map(|(_, rows)| rows.len() as i64).sum();
    let after: i64 = expected.iter().map(|(_, rows)| rows.len() as i64).sum();
    assert!(before - after > 20, "the cycle erases something");
    let mut hit = Vec::new();
    for point in points {
        let world = template.copied();
        if crash_at(&world, point) {
            hit.push(point);
        }
        check(&world, point, &expected, before).await;
    }
    hit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_crash_is_finished_by_the_next_start() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    let later = if switched_on(LONG).is_some() { LATER } else { &[] };
    let all: Vec<&'static str> = POINTS.iter().chain(later).copied().collect();
    crash_everywhere(Making::default(), &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_crash_is_finished_with_a_control_database_on_postgresql() {
    let Some(server) = server("crashes") else { return };
    // Keys, the second place and the batches; all points with `--long`.
    let is_some = |point: &&str| ["rekey.", "state.", "batch.", "backup."].iter().any(|part| point.starts_with(part));
    let is_long = switched_on(LONG).is_some();
    let points: Vec<&'static str> = POINTS.iter().copied().filter(|point| is_long || is_some(point)).collect();
    crash_everywhere(Making { server: Some(server), ..Making::default() }, &points).await;
}

/// One crash at each of these points, all of which must be hit.
async fn crash_everywhere(making: Making, all: &[&'static str]) {
    let on_server = making.server.is_some();
    let template = Arc::new(World::make(Making { customers: 14, ..making }).await);
    let reference = template.copied();
    let installation = reference.open().await;
    cycle(&installation, &reference.shop.picks.leaver.clone()).await;
    installation.close().await.unwrap();
    let expected = reference.dump_all("shop.db").await;

    let halves = [0, 1].map(|half| {
        let points = all.iter().copied().skip(half).step_by(2).collect();
        tokio::spawn(crash_at_all(Arc::clone(&template), points, expected.clone()))
    });
    let mut hits: BTreeMap<&str, u32> = BTreeMap::new();
    for half in halves {
        for point in half.await.unwrap() {
            *hits.entry(point.split(':').next().unwrap()).or_default() += 1;
        }
    }
    let never: Vec<&&str> = all.iter().filter(|point| !hits.contains_key(point.split(':').next().unwrap())).collect();
    assert!(never.is_empty(), "never hit: {never:?}");
    // The harness captures the print macros, but not a handle.
    let lines: Vec<String> = hits.iter().map(|(point, times)| format!("  {times} x {point}")).collect();
    let _ = writeln!(
        std::io::stderr().lock(),
        "processes killed{}, by point:\n{}",
        if on_server { ", control database on PostgreSQL" } else { "" },
        lines.join("\n")
    );
}

#[tokio::test]
async fn a_second_process_is_refused_while_one_works() {
    let world = World::make(Making { customers: 10, ..Making::default() }).await;
    let installation = world.open().await;
    let what = refusal(world.try_open().await);
    assert!(what.contains(&std::process::id().to_string()), "{what}");
    installation.close().await.unwrap();
    let again = world.open().await;
    snapshot(&again).await;
    assert!(body(&retain(&again).await).erased > 0);
    again.close().await.unwrap();
}
