//! A lost host whose root was in OpenBao: bucket, service and configuration are enough. And a thief who has every object that
//! was ever in the bucket, wrapped roots included, and the live service.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wangchuan::backup::object_store::ObjectStore;
use wangchuan::backup::state_record::{RECORDS, RecordName};
use wangchuan::certify::codes::SlotClass;
use wangchuan::installation::{Installation, Needs, recover_site};
use wangchuan::keyring::KeyringError;
use wangchuan::keyring::second_place::{SecondPlaceError, fetch_record, fetch_root, fetch_tree, root_names};
use wangchuan::keys::Key;
use wangchuan::keys::slot::SlotError;
use wangchuan::keys::transit_slot::TransitSlot;
use wangchuan::keys::tree::KeyTree;
use wangchuan::keys::wrapped_root::WrappingSlot as _;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::read_snapshot::open;
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::site_drill::drill_from_bucket;

use super::cycle::predicates;
use crate::cycle::crash::cycle;
use crate::cycle::thief::{Slots, numbers, opened, reachable, shredded_frames};
use crate::support::bao::{Bao, root_section};
use crate::support::world::{Making, World, body, forget, manual_clock_at, read_config, restore, snapshot};

const FOLDER: &str = "WANGCHUAN_BURNT_FOLDER";
const LEAVER: &str = "WANGCHUAN_BURNT_LEAVER";
const NOW: &str = "WANGCHUAN_BURNT_NOW";

/// Loses everything on the host but the configuration: the folder of wrapped roots too.
fn burn(world: &World) {
    for folder in ["state", "audit", "root"] {
        std::fs::remove_dir_all(world.path(folder)).unwrap();
    }
}

async fn recover(world: &World) -> wangchuan::installation::Recovered {
    recover_site(world.config(), world.clock.clone(), Arc::new(SystemRandom)).await.unwrap()
}

async fn roots(installation: &Installation) -> Vec<i64> {
    installation.keyring.slot().list().await.unwrap().iter().map(|root| root.generation).collect()
}

/// The generations of the copies in the bucket that the live service opens, with the roots.
async fn living_copies(bao: &Bao, token: &str, world: &World, installation: &Installation) -> Vec<(i64, Key)> {
    let empty = tempfile::tempdir().unwrap();
    let slot = TransitSlot::prepare(&bao.setup(&empty.path().join("root"), token), installation.id()).unwrap();
    let store = installation.backup().unwrap().repository.clone();
    let mut living = Vec::new();
    for name in root_names(store.as_ref()).await.unwrap() {
        let copy = fetch_root(store.as_ref(), &name).await.unwrap();
        // Also put back into a slot, it is refused.
        let put_back = slot.put_back(copy.generation, &copy.bytes).await.unwrap();
        match slot.open_copy(copy.generation, &copy.bytes).await {
            Ok(root) => living.push((copy.generation, root)),
            Err(SlotError::VersionGone { .. }) => assert!(!put_back, "a destroyed root was put back"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(world.path("bucket/wangchuan/state-roots").exists());
    living
}

#[tokio::test]
async fn bucket_service_and_configuration_bring_a_lost_host_back() {
    let Some(bao) = Bao::start().await else { return };
    let token = bao.token(&["wangchuan"], "1h").await;
    let root = root_section(&bao.address(), "root", &token);
    let world = World::make(Making { customers: 30, root, ..Making::default() }).await;
    let installation = world.open().await;
    cycle(&installation, &world.shop.picks.leaver.clone()).await;
    let rows = world.dump_all("shop.db").await;
    installation.close().await.unwrap();

    burn(&world);
    // A drill needs nothing of the slot's folder either, and makes none.
    let (clock, random) = (world.clock.clone(), Arc::new(SystemRandom));
    let drilled = drill_from_bucket(&world.config(), None, clock, random).await.unwrap();
    assert_eq!(drilled.records.iter().map(|record| record.result.as_str()).collect::<Vec<_>>(), ["passed"]);
    assert!(!world.path("state/site-drill").exists() && !world.path("root").exists());
    std::fs::remove_dir_all(world.path("state")).unwrap();

    let recovered = recover(&world).await;
    assert_eq!(recovered.generation, 2);
    let installation = world.open().await;
    assert_eq!(roots(&installation).await, [2]);
    let snapshots = installation.control.read().await.unwrap().snapshots(None).await.unwrap();
    restore(&world, &installation, snapshots.last().unwrap(), "restored.db").await.unwrap();
    assert_eq!(world.dump_all("restored.db").await, rows);
    let drill = run_drill(&installation, snapshots[0].clone()).await.unwrap();
    assert_eq!((drill.result.as_str(), drill.resurrected), ("passed", 0), "{drill:?}");

    // The work goes on, and the next root takes the place of the one that was put back.
    assert!(body(&forget(&installation, &world.shop.picks.keeper.clone()).await).erased > 0);
    snapshot(&installation).await;
    assert_eq!(shred_due(&installation).await.unwrap().generation, Some(3));
    assert!(!certify_due(&installation).await.unwrap().is_empty());
    file_due(&installation, true).await.unwrap();
    assert_eq!(roots(&installation).await, [3]);
    installation.close().await.unwrap();

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
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let before = world.copied();
    // So far they open everything: the copy of the root is a real one.
    let living = living_copies(&bao, &token, &world, &installation).await;
    assert_eq!(living.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [1]);
    assert!(living[0].1.is_same(&installation.keyring.slot().open(1).await.unwrap()));
    assert!(body(&forget(&installation, &world.shop.picks.leaver.clone()).await).erased > 0);
    snapshot(&installation).await;
    assert_eq!(shred_due(&installation).await.unwrap().generation, Some(2));
    certify_due(&installation).await.unwrap();

    // Nothing is ever overwritten or deleted there, so the bucket of now is every object that ever was.
    let store = installation.backup().unwrap().repository.clone();
    let store: &dyn ObjectStore = store.as_ref();
    let now_living = living_copies(&bao, &token, &world, &installation).await;
    assert_eq!(now_living.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [2]);
    let ground = installation.ground().unwrap();
    let repository = installation.backup().unwrap().repository.clone();
    let shown = open(&ground, repository.as_ref(), &installation.signer, first).await.unwrap();
    let frames = shredded_frames(&installation, &shown).await;
    assert!(frames.len() > 10, "{}", frames.len());
    let both = [&before, &world];
    let slots = Slots {
        subjects: numbers(both, "subject").await,
        buckets: numbers(both, "bucket").await,
        pins: numbers(both, "pin").await,
    };
    let mut records: BTreeMap<i64, [usize; 2]> = BTreeMap::new();
    let mut most = 0;
    for object in store.list(RECORDS).await.unwrap() {
        let name = RecordName::parse(&object.name).unwrap();
        for (root, is_old) in [(&living[0].1, true), (&now_living[0].1, false)] {
            let record = match fetch_record(store, &name, installation.id(), root).await {
                Ok(record) => record,
                Err(SecondPlaceError::Record(_)) => continue,
                Err(other) => panic!("{other}"),
            };
            let (crown, nodes) = fetch_tree(store, &record, installation.id()).await.unwrap();
            let tree = KeyTree::open(installation.id(), record.generation, root, &crown, nodes).unwrap();
            let count = opened(&shown, &frames, &reachable(&tree, &slots));
            if is_old {
                most = most.max(count);
            } else {
                assert_eq!(count, 0, "a shredded frame opens with {}", name.text());
            }
            records.entry(name.generation).or_default()[usize::from(is_old)] += 1;
        }
    }
    // Had the thief kept the root itself, every frame would open: the search finds what there is.
    assert_eq!(most, frames.len());
    // Each root opens the records of its own generation and no other, and there are some of both.
    assert!(records[&1][1] > 0 && records[&2][0] > 0, "{records:?}");
    assert_eq!((records[&1][0], records[&2][1]), (0, 0), "{records:?}");
    installation.close().await.unwrap();
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
        let living = living_copies(&bao, &token, &world, &installation).await;
        assert_eq!(living.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [last], "{point}");
        installation.close().await.unwrap();
    }
}
