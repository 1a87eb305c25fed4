//! `key move`: the root goes from one slot to another, whatever happens meanwhile.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wangchuan::certify::codes::{Limitation, SlotClass};
use wangchuan::crash_point::POINTS;
use wangchuan::installation::{Installation, Needs};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::key_move::move_root;
use wangchuan::tasks::shred::shred_due;

use super::cycle::predicates;
use crate::support::bao::{Bao, root_section};
use crate::support::program::Program;
use crate::support::world::{FILE_ROOT, Making, World, forget, manual_clock, read_config, refusal, restore, snapshot};

const FOLDER: &str = "WANGCHUAN_MOVE_FOLDER";

/// Configures a move from what `[root]` says now to `to`.
fn configure(world: &World, from: &str, to: &str) {
    world.edit_config(from, &format!("{to}\n\n[root.previous]\n{from}"));
}

fn files(world: &World, folder: &str, extension: &str) -> usize {
    let names = std::fs::read_dir(world.path(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(extension)).count()
}

/// The tree opens, every snapshot restores, the root lies in the configured slot only.
async fn moved(world: &World, what: &str) {
    let installation = world.open().await;
    let again = move_root(&installation, "transit").await.unwrap();
    assert_eq!(files(world, "root", ".key"), 0, "{what}");
    assert_eq!(files(world, "wrapped", ".wrapped"), 1, "{what}");
    assert!(installation.keyring.slot().left_behind().await.unwrap().is_empty(), "{what}");
    assert_eq!(again.to, "transit");
    let last = installation.control.read().await.unwrap().snapshots(None).await.unwrap().pop().unwrap();
    let report = restore(world, &installation, &last, "restored.db").await.unwrap();
    assert!(report.is_whole(), "{what}: {report:?}");
    assert!(!move_root(&installation, "transit").await.unwrap().moved, "{what}");
    installation.close().await.unwrap();
}

async fn child(folder: &str) {
    let config = read_config(Path::new(folder));
    let installation = Installation::open(config, Needs::ALL, manual_clock(), Arc::new(SystemRandom)).await.unwrap();
    move_root(&installation, "transit").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_killed_at_any_step_is_finished_or_undone() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["root"], "1h").await;
    let template = World::make(Making { customers: 10, ..Making::default() }).await;
    let installation = template.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    for point in POINTS.iter().filter(|point| point.starts_with("rekey.")) {
        let world = template.copied();
        let key = point.replace('.', "-");
        bao.make_key(&key).await;
        let section = root_section(&bao.address(), "wrapped", &token);
        configure(&world, FILE_ROOT, &section.replace("key = \"wangchuan\"", &format!("key = \"{key}\"")));
        let done = Command::new(std::env::current_exe().unwrap())
            .args([
                "transit::moving::a_move_that_is_killed_at_any_step_is_finished_or_undone",
                "--exact",
                "--test-threads=1",
            ])
            .env(FOLDER, world.folder.path())
            .env("WANGCHUAN_CRASH_AT", point)
            .output()
            .unwrap();
        assert_eq!(done.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&done.stdout));
        moved(&world, point).await;
    }
}

#[tokio::test]
async fn certificates_say_the_worst_of_the_slots_that_held_the_root() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["root"], "1h").await;
    for (key, backed_up_before, class) in [("late", true, SlotClass::D), ("early", false, SlotClass::B)] {
        let world = World::make(Making { customers: 12, ..Making::default() }).await;
        bao.make_key(key).await;
        let section = root_section(&bao.address(), "wrapped", &token).replace("\"wangchuan\"", &format!("\"{key}\""));
        let installation = world.open().await;
        if backed_up_before {
            snapshot(&installation).await;
        }
        assert!(refusal(move_root(&installation, "transit").await).contains("no slot to move"));
        installation.close().await.unwrap();
        configure(&world, FILE_ROOT, &section);
        let installation = world.open().await;
        assert!(refusal(move_root(&installation, "file").await).contains("kind transit"));
        let report = move_root(&installation, "transit").await.unwrap();
        assert!(report.moved && report.generation == 2, "{report:?}");
        world.clock.advance(chrono::TimeDelta::seconds(1));
        snapshot(&installation).await;
        forget(&installation, &world.shop.picks.leaver.clone()).await;
        snapshot(&installation).await;
        shred_due(&installation).await.unwrap();
        certify_due(&installation).await.unwrap();
        let last = predicates(&installation).await.pop().unwrap();
        assert_eq!(last.root_slot.as_ref().unwrap().class, class, "{key}");
        assert_eq!(last.limitations.contains(&Limitation::RootSlotClassD), class == SlotClass::D);
        installation.close().await.unwrap();
        world.edit_config(&format!("\n\n[root.previous]\n{FILE_ROOT}"), "");
        world.open().await.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_command_line_installs_on_a_key_service_checks_it_and_moves_the_root_away() {
    let Some(bao) = Bao::start().await else { return };
    let (role_id, secret_id) = bao.role("1h").await;
    let token = bao.token(&["wangchuan"], "1h").await;
    let folder = tempfile::tempdir().unwrap();
    let program = Program::in_directory(folder.path()).with("BAO_TOKEN", &token).with("BAO_ADDR", &bao.address());
    let made = program.json(&["init", "--dir", ".", "--root", "transit", "--snapshot-retention-days", "7"]);
    assert_eq!(made.code(), Some(0), "{made}");
    let text = std::fs::read_to_string(folder.path().join("wangchuan.toml")).unwrap();
    assert!(text.contains("kind = \"transit\"") && !text.contains(&token));
    let status = program.json(&["key", "status"]);
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(status.document()["claim"]["kind"], "transit");
    let doctor = program.run(&["doctor"]);
    assert!(doctor.out.contains("class B") && doctor.out.matches("keys:").count() == 1, "{doctor}");

    // By role instead of a token; then away from the service.
    let secrets = folder.path().join("secret");
    std::fs::write(&secrets, &secret_id).unwrap();
    Command::new("chmod").arg("600").arg(&secrets).status().unwrap();
    let by_role = format!("key = \"wangchuan\"\nrole_id = \"{role_id}\"\nsecret_id = \"file:secret\"");
    let config = folder.path().join("wangchuan.toml");
    let text = text.replacen("key = \"wangchuan\"", &by_role, 1);
    let start = text.find("kind = \"transit\"").unwrap();
    let end = start + text[start..].find("\n# ").unwrap();
    let section = text[start..end].to_owned();
    let moving = format!("kind = \"file\"\npath = \"kept\"\naccept_host_loss = true\n[root.previous]\n{section}");
    std::fs::write(&config, text.replace(&section, &moving)).unwrap();
    Command::new("chmod").arg("600").arg(&config).status().unwrap();
    let program = Program::in_directory(folder.path()).with("BAO_ADDR", &bao.address());
    let moved = program.json(&["key", "move", "--to", "file"]);
    assert_eq!(moved.code(), Some(0), "{moved}");
    assert_eq!((&moved.document()["moved"], &moved.document()["generation"]), (&true.into(), &2.into()));
    let available = bao.key("wangchuan").await["min_available_version"].as_u64().unwrap();
    assert_eq!(available, 3, "every version that was used is trimmed");
    assert!(folder.path().join("kept/root-2.key").exists());
    let again = program.json(&["key", "move", "--to", "file"]);
    assert_eq!(again.document()["moved"], false, "{again}");
}
