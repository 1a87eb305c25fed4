//! `key move` between a file and a token, whatever happens meanwhile.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wangchuan::crash_point::POINTS;
use wangchuan::installation::{Installation, Needs};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::key_move::move_root;

use crate::support::softhsm::SoftHsm;
use crate::support::world::{FILE_ROOT, Making, World, manual_clock_at, read_config, restore, snapshot};

const FOLDER: &str = "WANGCHUAN_TOKEN_MOVE_FOLDER";
const NOW: &str = "WANGCHUAN_TOKEN_MOVE_NOW";
const TO: &str = "WANGCHUAN_TOKEN_MOVE_TO";

/// Files of a folder whose names end so.
fn files(world: &World, folder: &str, end: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(world.path(folder)) else { return 0 };
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(end)).count()
}

/// Moves from what `[root]` says to `to`, through a crash at `point`, and looks at what is left.
async fn moves(world: &World, from: &str, to: &str, kind: &str, point: &str) {
    world.edit_config(from, &format!("{to}\n\n[root.previous]\n{from}"));
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["pkcs11::moving::a_move_to_a_token_and_back_survives_a_kill_at_any_step", "--exact", "--test-threads=1"])
        .env(FOLDER, world.folder.path())
        .env(TO, kind)
        .env(NOW, wangchuan::control::time_text(wangchuan::clock::Clock::now(world.clock.as_ref())))
        .env("WANGCHUAN_CRASH_AT", point)
        .output()
        .unwrap();
    assert_eq!(done.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&done.stdout));
    world.clock.advance(chrono::TimeDelta::minutes(11));
    let installation = world.open().await;
    let report = move_root(&installation, kind).await.unwrap();
    assert_eq!(report.to, kind, "{point}");
    assert!(installation.keyring.slot().left_behind().await.unwrap().is_empty(), "{point}");
    let (keys, wrapped) = if kind == "pkcs11" { (0, 1) } else { (1, 0) };
    assert_eq!((files(world, "root", ".key"), files(world, "wrapped", ".wrapped")), (keys, wrapped), "{point}");
    let last = installation.control.read().await.unwrap().snapshots(None).await.unwrap().pop().unwrap();
    let file = format!("{kind}.db");
    assert!(restore(world, &installation, &last, &file).await.unwrap().is_whole(), "{point}");
    assert_eq!(world.dump_all(&file).await, world.dump_all("shop.db").await, "{point}");
    installation.close().await.unwrap();
    world.edit_config(&format!("\n\n[root.previous]\n{from}"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_a_token_and_back_survives_a_kill_at_any_step() {
    if let Ok(folder) = std::env::var(FOLDER) {
        let config = read_config(Path::new(&folder));
        let clock = manual_clock_at(std::env::var(NOW).unwrap().parse().unwrap());
        let installation = Installation::open(config, Needs::ALL, clock, Arc::new(SystemRandom)).await.unwrap();
        move_root(&installation, &std::env::var(TO).unwrap()).await.unwrap();
        return;
    }
    let Some(hsm) = SoftHsm::token() else { return };
    let template = World::make(Making { customers: 10, ..Making::default() }).await;
    let installation = template.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    let points: Vec<&str> = POINTS.iter().copied().filter(|point| point.starts_with("rekey.")).collect();
    assert_eq!(points.len(), 8);
    for point in points {
        // A token of its own: the copies are one installation.
        let token = hsm.another().root_section("wrapped");
        let world = template.copied();
        moves(&world, FILE_ROOT, &token, "pkcs11", point).await;
        moves(&world, &token, FILE_ROOT, "file", point).await;
    }
}
