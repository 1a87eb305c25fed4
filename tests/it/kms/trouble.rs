//! The process is killed, or the service goes away, at every step of a destruction that is irrevocable only at a date: nothing is
//! lost, nothing counts too early, and the next start finishes the work.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wangchuan::clock::Clock as _;
use wangchuan::crash_point::{DELAYED_POINTS, POINTS};
use wangchuan::installation::{Installation, Needs};
use wangchuan::keyring::KeyringError;
use wangchuan::keys::slot::{Presence, SlotError};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::key_check::check_keys;
use wangchuan::tasks::shred::shred_due;

use crate::support::bao::Gate;
use crate::support::kms::{Kms, call_off, days, root_section};
use crate::support::world::{
    Making, World, body, forget, manual_clock, manual_clock_at, pass_time, read_config, restore, retain, run_now,
    snapshot,
};

const FOLDER: &str = "WANGCHUAN_KMS_FOLDER";
const LEAVER: &str = "WANGCHUAN_KMS_LEAVER";
const CALLED_OFF: &str = "WANGCHUAN_KMS_CALLED_OFF";
const NOW: &str = "WANGCHUAN_KMS_NOW";

/// A world on a KMS of its own.
pub async fn world(customers: u32) -> (Kms, World) {
    let kms = Kms::start(manual_clock());
    let world = world_at(customers, &kms.address()).await;
    kms.follow(world.clock.clone());
    (kms, world)
}

async fn world_at(customers: u32, address: &str) -> World {
    let root = root_section(address, "root");
    World::make(Making { customers, bucket: "month", root, ..Making::default() }).await
}

/// The ids of the customers that are still there.
async fn customers(world: &World) -> Vec<String> {
    let rows = world.dump("shop.db", "customers").await;
    rows.iter().map(|row| row.split(',').next().unwrap().trim_matches('\'').to_owned()).collect()
}

/// Erases the next customer who has rows that may go, up to the barrier snapshot; the run.
pub async fn erase_one(world: &World, installation: &Installation) -> String {
    for id in customers(world).await {
        let run = forget(installation, &id).await;
        if body(&run).erased > 0 {
            snapshot(installation).await;
            return run.id;
        }
    }
    panic!("there is nobody left");
}

/// Lets the date of every doomed root pass, with a shred every other day, so that no leap of the clock is seen.
pub async fn let_dates_pass(world: &World, installation: &Installation) {
    for _ in 0..4 {
        pass_time(world, installation, days(2)).await;
        shred_due(installation).await.unwrap();
    }
}

/// Nothing is open, one root works and none waits, and the newest snapshot restores to what the shop holds.
async fn settled(world: &World, installation: &Installation, what: &str) {
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.open_rekey().await.unwrap(), None, "{what}");
    let (generation, _) = tx.tree_root().await.unwrap().unwrap();
    let last = tx.snapshots(None).await.unwrap().pop().unwrap();
    assert!(tx.runs(Some("shred-pending")).await.unwrap().is_empty(), "{what}");
    assert!(tx.doomed_roots().await.unwrap().iter().all(|root| root.gone_at.is_some()), "{what}");
    drop(tx);
    let roots = installation.keyring.slot().list().await.unwrap();
    let usable = roots.iter().filter(|root| root.presence == Presence::Usable).map(|root| root.generation);
    assert_eq!(usable.collect::<Vec<_>>(), [generation], "{what}");
    let file = format!("restored-{generation}.db");
    let _ = std::fs::remove_file(world.path(&file));
    let report = restore(world, installation, &last, &file).await.unwrap();
    assert!(report.is_whole(), "{what}: {report:?}");
    assert_eq!(world.dump_all(&file).await, world.dump_all("shop.db").await, "{what}");
}

async fn child(folder: &str) {
    let now = std::env::var(NOW).unwrap().parse().unwrap();
    let config = read_config(Path::new(folder));
    let clock = manual_clock_at(now);
    let installation = Installation::open(config, Needs::ALL, clock, Arc::new(SystemRandom)).await.unwrap();
    installation.confirm_clock().await.unwrap();
    if let Ok(leaver) = std::env::var(LEAVER) {
        forget(&installation, &leaver).await;
        snapshot(&installation).await;
    }
    if let Ok(key) = std::env::var(CALLED_OFF) {
        // While the process runs: at its start, and before a shred, it notices in another way.
        let address = installation.config.root.slot.clone();
        let wangchuan::config::SlotSettings::AwsKms { setup } = address else { panic!("{address:?}") };
        call_off(&setup.place(), &key).await;
        check_keys(&installation).await.unwrap();
    }
    shred_due(&installation).await.unwrap();
}

/// Whether a process that shreds was killed at this point.
fn is_killed_at(world: &World, point: &str, with: Option<(&str, &str)>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["kms::trouble::a_kill_at_every_step_is_finished_by_the_next_start", "--exact", "--test-threads=1"])
        .env(FOLDER, world.folder.path())
        .env(NOW, wangchuan::control::time_text(world.clock.now()))
        .env("WANGCHUAN_CRASH_AT", point);
    if let Some((variable, value)) = with {
        command.env(variable, value);
    }
    let done = command.output().unwrap();
    let killed = done.status.signal() == Some(9);
    assert!(killed || done.status.success(), "{point}: {}", String::from_utf8_lossy(&done.stdout));
    killed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_step_is_finished_by_the_next_start() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    let (kms, world) = world(30).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    let points: Vec<&str> = POINTS.iter().copied().filter(|point| point.starts_with("rekey.")).collect();
    assert_eq!(points.len(), 8);
    let (mut leavers, mut waiting) = (customers(&world).await.into_iter(), 0);
    for point in points {
        loop {
            let leaver = leavers.next().unwrap_or_else(|| panic!("{point} is never reached"));
            if is_killed_at(&world, point, Some((LEAVER, &leaver))) {
                break;
            }
        }
        let installation = world.open().await;
        shred_due(&installation).await.unwrap();
        let pending = installation.control.read().await.unwrap().runs(Some("shred-pending")).await.unwrap();
        assert!(pending.iter().all(|run| body(run).irrevocable_at.is_some()), "{point}: {pending:?}");
        waiting = pending.len();
        installation.close().await.unwrap();
    }
    assert!(waiting > 0, "nothing is shredded before its date");
    // Behind the dates: the death of the process at each step there.
    let first = kms.machine().id_of(0);
    for (point, later, with) in [(DELAYED_POINTS[0], 4, Some((CALLED_OFF, &*first))), (DELAYED_POINTS[1], 8, None)] {
        world.clock.advance(days(later));
        assert!(is_killed_at(&world, point, with), "{point}");
        let installation = world.open().await;
        installation.confirm_clock().await.unwrap();
        shred_due(&installation).await.unwrap();
        installation.close().await.unwrap();
    }
    let installation = world.open().await;
    let_dates_pass(&world, &installation).await;
    assert!(!certify_due(&installation).await.unwrap().is_empty());
    settled(&world, &installation, "at the end").await;
    let called_off: Vec<i64> = installation
        .control
        .read()
        .await
        .unwrap()
        .doomed_roots()
        .await
        .unwrap()
        .iter()
        .map(|root| root.called_off)
        .collect();
    assert_eq!((called_off[0], called_off[1..].iter().sum::<i64>()), (1, 0), "{called_off:?}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_goes_away_at_any_request_loses_nothing() {
    let kms = Kms::start(manual_clock());
    let gate = Gate::before_port(kms.port()).await;
    let world = world_at(60, &gate.address).await;
    kms.follow(world.clock.clone());
    let installation = world.open().await;
    snapshot(&installation).await;
    let mut refusals = 0;
    // At every other request, for time's sake.
    for connections in (0..).step_by(2) {
        erase_one(&world, &installation).await;
        gate.allow(connections);
        let done = shred_due(&installation).await;
        let refused = gate.has_refused();
        gate.open();
        let what = format!("after {connections} requests");
        if !refused {
            assert!(done.unwrap().generation.is_some(), "{what}");
            break;
        }
        match done {
            Err(error @ TaskError::Keyring(KeyringError::Slot(SlotError::Unavailable { .. }))) => {
                assert!(error.is_retryable(), "{what}");
            }
            // What was not needed for the keys themselves is made up for later.
            Ok(_) => {}
            Err(other) => panic!("{what}: {other:?}"),
        }
        refusals += 1;
        shred_due(&installation).await.unwrap();
        let_dates_pass(&world, &installation).await;
    }
    assert!(refusals >= 7, "a generation change makes more requests than {refusals}");
    let_dates_pass(&world, &installation).await;
    settled(&world, &installation, "at the end").await;
    installation.close().await.unwrap();
}

/// The keys of its rows died with those that another run marked, and the process was killed before it could say so: the run waits for
/// the old roots all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_rows_another_runs_keys_took_along_waits_for_the_date_after_a_kill() {
    let (_kms, world) = world(60).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    // What is wholly due goes first, so that the next run marks nothing: its month has days to come.
    retain(&installation).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    pass_time(&world, &installation, days(9)).await;
    let run = retain(&installation).await;
    assert!(body(&run).erased > 0, "{run:?}");
    for _ in 0..4 {
        pass_time(&world, &installation, days(6)).await;
    }
    retain(&installation).await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    assert!(is_killed_at(&world, "rekey.committed", None));
    let installation = world.open().await;
    let begun = world.clock.now();
    shred_due(&installation).await.unwrap();
    let now = run_now(&installation, &run.id).await;
    assert_eq!((now.state.as_str(), body(&now).irrevocable_at), ("shred-pending", Some(begun + days(7))), "{now:?}");
    let_dates_pass(&world, &installation).await;
    assert_eq!(run_now(&installation, &run.id).await.state, "shredded");
    installation.close().await.unwrap();
}
