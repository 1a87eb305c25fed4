//! A lost host whose root was in OpenBao: bucket, service and configuration are enough, whenever it burns.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wangchuan::certify::codes::SlotClass;
use wangchuan::installation::{Installation, Needs, recover_site};
use wangchuan::keyring::KeyringError;
use wangchuan::keys::slot::{RootSlot, SlotError};
use wangchuan::keys::transit_slot::TransitSlot;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::shred::shred_due;

use super::cycle::predicates;
use crate::cycle::burnt_service::{burn, comes_back, living_copies, old_copies_open_nothing, recover, roots};
use crate::cycle::crash::cycle;
use crate::support::bao::{Bao, root_section};
use crate::support::world::{Making, World, body, forget, manual_clock_at, read_config, snapshot};

const FOLDER: &str = "WANGCHUAN_BURNT_FOLDER";
const LEAVER: &str = "WANGCHUAN_BURNT_LEAVER";
const NOW: &str = "WANGCHUAN_BURNT_NOW";

/// A slot with a folder that has nothing.
fn empty_slot(bao: &Bao, token: &str, world: &World, id: [u8; 16]) -> Box<dyn RootSlot> {
    let folder = world.path("empty");
    let _ = std::fs::remove_dir_all(&folder);
    Box::new(TransitSlot::prepare(&bao.setup(&folder, token), id).unwrap())
}

#[tokio::test]
async fn bucket_service_and_configuration_bring_a_lost_host_back() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let root = root_section(&bao.address(), "root", &token);
    let world = World::make(Making { customers: 30, root, ..Making::default() }).await;
    comes_back(&world).await;

    // Without the service nothing is brought back: the copies open nothing by themselves.
    burn(&world);
    world.edit_config(&bao.address(), "http://127.0.0.1:9");
    let refused = recover_site(world.config(), world.clock.clone(), Arc::new(SystemRandom)).await.unwrap_err();
    assert!(matches!(refused, TaskError::Keyring(KeyringError::Slot(SlotError::Unavailable { .. }))), "{refused:?}");
    assert!(!world.path("state/control.db").exists());
}

#[tokio::test]
async fn every_object_that_ever_was_in_the_bucket_and_the_live_service_open_nothing_destroyed() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let root = root_section(&bao.address(), "root", &token);
    let world = World::make(Making { customers: 40, root, ..Making::default() }).await;
    old_copies_open_nothing(&world, async |id| empty_slot(&bao, &token, &world, id)).await;
}

async fn child(folder: &str) {
    let clock = manual_clock_at(std::env::var(NOW).unwrap().parse().unwrap());
    let config = read_config(Path::new(folder));
    let installation = Installation::open(config, Needs::ALL, clock, Arc::new(SystemRandom)).await.unwrap();
    forget(&installation, &std::env::var(LEAVER).unwrap()).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_burns_in_the_middle_of_a_generation_change_comes_back_at_every_step() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(&folder).await;
    }
    // The generation that must be in force when the site is recovered.
    for (point, generation) in [
        ("rekey.root-created", 1),
        ("state.root-stored", 1),
        ("rekey.staged", 1),
        ("rekey.copied", 2),
        ("rekey.committed", 2),
        ("rekey.root-destroyed", 2),
    ] {
        let Some(bao) = Bao::start().await else { return };
        let token = bao.token(&["wangchuan"], "1h").await;
        let root = root_section(&bao.address(), "root", &token);
        let world = World::make(Making { customers: 30, root, ..Making::default() }).await;
        let installation = world.open().await;
        snapshot(&installation).await;
        installation.close().await.unwrap();
        let name = "transit::burnt::a_host_that_burns_in_the_middle_of_a_generation_change_comes_back_at_every_step";
        let done = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--test-threads=1"])
            .env(FOLDER, world.folder.path())
            .env(LEAVER, &world.shop.picks.leaver)
            .env(NOW, wangchuan::clock::Clock::now(world.clock.as_ref()).to_rfc3339())
            .env("WANGCHUAN_CRASH_AT", point)
            .output()
            .unwrap();
        assert_eq!(done.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&done.stdout));
        burn(&world);
        assert_eq!(recover(&world).await.generation, generation, "{point}");
        let installation = world.open().await;
        assert_eq!(roots(&installation).await, [generation], "{point}");
        cycle(&installation, &world.shop.picks.leaver.clone()).await;
        // The end of the old root can still be read back from the service, whenever the host burnt.
        let classes: Vec<_> = predicates(&installation).await.into_iter().map(|p| p.root_slot.unwrap().class).collect();
        assert!(!classes.is_empty() && classes.iter().all(|class| *class == SlotClass::B), "{point}: {classes:?}");
        assert!(body(&forget(&installation, &world.shop.picks.keeper.clone()).await).erased > 0, "{point}");
        snapshot(&installation).await;
        let last = shred_due(&installation).await.unwrap().generation.unwrap();
        // Whatever was under way when the host burnt: only the root in force opens.
        let empty = empty_slot(&bao, &token, &world, installation.id());
        let living = living_copies(empty.as_ref(), &world, &installation).await;
        assert_eq!(living.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [last], "{point}");
        installation.close().await.unwrap();
    }
}
