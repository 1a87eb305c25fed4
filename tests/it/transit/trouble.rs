//! The process is killed, or the service goes away, at every step of a generation change: nothing is lost, and the next start
//! finishes the work.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use wangchuan::crash_point::POINTS;
use wangchuan::installation::{Installation, Needs};
use wangchuan::keyring::KeyringError;
use wangchuan::keys::slot::{Shortcoming, SlotError};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::shred::shred_due;

use crate::support::bao::{Bao, Gate, root_section};
use crate::support::world::{
    Making, World, body, forget, manual_clock_at, read_config, restore, snapshot, try_snapshot,
};

const FOLDER: &str = "WANGCHUAN_TRANSIT_FOLDER";
const LEAVER: &str = "WANGCHUAN_TRANSIT_LEAVER";
const NOW: &str = "WANGCHUAN_TRANSIT_NOW";

/// The ids of the customers that are still there.
pub async fn customers(world: &World) -> Vec<String> {
    let rows = world.dump("shop.db", "customers").await;
    rows.iter().map(|row| row.split(',').next().unwrap().trim_matches('\'').to_owned()).collect()
}

/// Erases the next customer who has rows that may go, up to the barrier snapshot.
pub async fn erase_one(world: &World, installation: &Installation) {
    for id in customers(world).await {
        if body(&forget(installation, &id).await).erased > 0 {
            snapshot(installation).await;
            return;
        }
    }
    panic!("there is nobody left");
}

/// Nothing is open, one root is in the slot, and the newest snapshot restores to what the shop holds.
pub async fn settled(world: &World, installation: &Installation, what: &str) {
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.open_rekey().await.unwrap(), None, "{what}");
    let (generation, _) = tx.tree_root().await.unwrap().unwrap();
    let last = tx.snapshots(None).await.unwrap().pop().unwrap();
    assert!(tx.runs(Some("shred-pending")).await.unwrap().is_empty(), "{what}");
    drop(tx);
    let roots = installation.keyring.slot().list().await.unwrap();
    assert_eq!(roots.iter().map(|root| root.generation).collect::<Vec<_>>(), [generation], "{what}");
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
    forget(&installation, &std::env::var(LEAVER).unwrap()).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_step_is_finished_by_the_next_start() {
    let test = "transit::trouble::a_kill_at_every_step_is_finished_by_the_next_start";
    if is_child().await {
        return;
    }
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    killed_at_every_step(test, &root_section(&bao.address(), "root", &token)).await;
}

/// Whether this process is the one that is to be killed; it does its work then.
pub async fn is_child() -> bool {
    let Ok(folder) = std::env::var(FOLDER) else { return false };
    child(&folder).await;
    true
}

/// Kills processes that run this test, which then calls [`is_child`], at each step of a generation change with this slot.
pub async fn killed_at_every_step(test: &str, root: &str) {
    let root = root.to_owned();
    let world = World::make(Making { customers: 30, bucket: "month", root, ..Making::default() }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    let points: Vec<&str> = POINTS.iter().copied().filter(|point| point.starts_with("rekey.")).collect();
    assert_eq!(points.len(), 8);
    let mut leavers = customers(&world).await.into_iter();
    for point in points {
        loop {
            let leaver = leavers.next().unwrap_or_else(|| panic!("{point} is never reached"));
            let done = Command::new(std::env::current_exe().unwrap())
                .args([test, "--exact", "--test-threads=1"])
                .env(FOLDER, world.folder.path())
                .env(LEAVER, &leaver)
                .env(NOW, wangchuan::control::time_text(wangchuan::clock::Clock::now(world.clock.as_ref())))
                .env("WANGCHUAN_CRASH_AT", point)
                .output()
                .unwrap();
            let killed = done.status.signal() == Some(9);
            assert!(killed || done.status.success(), "{point}: {}", String::from_utf8_lossy(&done.stdout));
            if killed {
                break;
            }
        }
        let installation = world.open().await;
        shred_due(&installation).await.unwrap();
        assert!(!certify_due(&installation).await.unwrap().is_empty(), "{point}");
        settled(&world, &installation, point).await;
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_service_that_goes_away_at_any_request_loses_nothing() {
    let Some(bao) = Bao::start().await else { return };
    let gate = Gate::before(&bao).await;
    let token = bao.token(&["wangchuan"], "1h").await;
    let root = root_section(&gate.address, "root", &token);
    let world = World::make(Making { customers: 60, bucket: "month", root, ..Making::default() }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let mut refusals = 0;
    for connections in 0.. {
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
        match done.err() {
            Some(error @ TaskError::Keyring(KeyringError::Slot(SlotError::Unavailable { .. }))) => {
                assert!(error.is_retryable(), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        refusals += 1;
        shred_due(&installation).await.unwrap();
        settled(&world, &installation, &what).await;
    }
    assert!(refusals >= 10, "a generation change makes more requests than {refusals}");
    settled(&world, &installation, "at the end").await;
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_and_foreign_hands_are_told_and_a_new_start_goes_on() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let root = root_section(&bao.address(), "root", &token);
    let world = World::make(Making { customers: 30, bucket: "month", root, ..Making::default() }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    erase_one(&world, &installation).await;
    bao.good(Method::POST, "auth/token/revoke", json!({"token": token})).await;
    let refused = shred_due(&installation).await.err();
    assert!(
        matches!(refused, Some(TaskError::Keyring(KeyringError::Slot(SlotError::NotAuthenticated { .. })))),
        "{refused:?}"
    );
    installation.close().await.unwrap();
    let another = bao.token(&["wangchuan"], "1h").await;
    world.edit_config(&token, &another);
    let installation = world.open().await;
    shred_due(&installation).await.unwrap();
    settled(&world, &installation, "with a new token").await;
    installation.close().await.unwrap();

    let key = bao.key("wangchuan").await;
    let latest = key["latest_version"].as_u64().unwrap();
    bao.good(Method::POST, "transit/keys/wangchuan/rotate", json!({})).await;
    let least = json!({"min_decryption_version": latest + 1, "min_encryption_version": latest + 1});
    bao.good(Method::POST, "transit/keys/wangchuan/config", least.clone()).await;
    let installation = world.open().await;
    let refused = try_snapshot(&installation).await.err().unwrap();
    assert!(refused.to_string().contains("is switched off"), "{refused}");
    let found = installation.keyring.slot().shortcomings().await.unwrap();
    assert!(found.iter().any(|found| matches!(found, Shortcoming::VersionOff { .. })), "{found:?}");
    installation.close().await.unwrap();
    bao.good(Method::POST, "transit/keys/wangchuan/config", json!({"min_decryption_version": latest})).await;
    let installation = world.open().await;
    settled(&world, &installation, "switched on again").await;
    installation.close().await.unwrap();

    bao.good(Method::POST, "transit/keys/wangchuan/config", least).await;
    bao.good(Method::POST, "transit/keys/wangchuan/trim", json!({"min_available_version": latest + 1})).await;
    let kept = std::fs::read_dir(world.path("root")).unwrap().count();
    let refused = world.try_open().await.err();
    assert!(
        matches!(refused, Some(TaskError::Keyring(KeyringError::Slot(SlotError::VersionGone { .. })))),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_dir(world.path("root")).unwrap().count(), kept, "nothing is thrown away");
}
