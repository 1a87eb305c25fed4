//! A lost host whose root is wrapped by a service or a token: bucket, service and configuration are enough. And a thief who has every
//! object that was ever in the bucket, wrapped roots included, and the live service. The same for every slot that wraps.

use std::collections::BTreeMap;
use std::sync::Arc;

use wangchuan::backup::object_store::ObjectStore;
use wangchuan::backup::state_record::{RECORDS, RecordName};
use wangchuan::installation::{Installation, recover_site};
use wangchuan::keyring::second_place::{SecondPlaceError, fetch_record, fetch_root, fetch_tree, root_names};
use wangchuan::keys::Key;
use wangchuan::keys::slot::{Presence, RootSlot, SlotError, TokenError};
use wangchuan::keys::tree::KeyTree;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::read_snapshot::open;
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::site_drill::drill_from_bucket;

use super::crash::cycle;
use super::thief::{Slots, numbers, opened, reachable, shredded_frames};
use crate::support::world::{World, body, forget, restore, snapshot};

/// Loses everything on the host but the configuration: the folder of wrapped roots too.
pub fn burn(world: &World) {
    for folder in ["state", "audit", "root"] {
        std::fs::remove_dir_all(world.path(folder)).unwrap();
    }
}

pub async fn recover(world: &World) -> wangchuan::installation::Recovered {
    recover_site(world.config(), world.clock.clone(), Arc::new(SystemRandom)).await.unwrap()
}

/// The generations whose roots work.
pub async fn roots(installation: &Installation) -> Vec<i64> {
    let present = installation.keyring.slot().list().await.unwrap();
    present.iter().filter(|root| root.presence == Presence::Usable).map(|root| root.generation).collect()
}

/// The generations of the copies in the bucket that the live service opens, with the roots. `slot` is one with an empty folder.
pub async fn living_copies(slot: &dyn RootSlot, world: &World, installation: &Installation) -> Vec<(i64, Key)> {
    let slot = slot.wrapping().unwrap();
    let store = installation.backup().unwrap().repository.clone();
    let mut living = Vec::new();
    for name in root_names(store.as_ref()).await.unwrap() {
        let copy = fetch_root(store.as_ref(), &name).await.unwrap();
        // Also put back into a slot, it is refused.
        let put_back = slot.put_back(copy.generation, &copy.bytes).await.unwrap();
        match slot.open_copy(copy.generation, &copy.bytes).await {
            Ok(root) => living.push((copy.generation, root)),
            Err(
                SlotError::VersionGone { .. }
                | SlotError::KeyUnusable { .. }
                | SlotError::Token(TokenError::KeyGone { .. }),
            ) => assert!(!put_back, "a destroyed root was put back"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(world.path("bucket/wangchuan/state-roots").exists());
    living
}

/// The host burns after a whole cycle, comes back from bucket, service and configuration, and works on.
pub async fn comes_back(world: &World) {
    let installation = world.open().await;
    cycle(&installation, &world.shop.picks.leaver.clone()).await;
    let rows = world.dump_all("shop.db").await;
    installation.close().await.unwrap();

    burn(world);
    // A drill needs nothing of the slot's folder either, and makes none.
    let (clock, random) = (world.clock.clone(), Arc::new(SystemRandom));
    let drilled = drill_from_bucket(&world.config(), None, clock, random).await.unwrap();
    assert_eq!(drilled.records.iter().map(|record| record.result.as_str()).collect::<Vec<_>>(), ["passed"]);
    assert!(!world.path("state/site-drill").exists() && !world.path("root").exists());
    std::fs::remove_dir_all(world.path("state")).unwrap();

    let recovered = recover(world).await;
    assert_eq!(recovered.generation, 2);
    let installation = world.open().await;
    assert_eq!(roots(&installation).await, [2]);
    let snapshots = installation.control.read().await.unwrap().snapshots(None).await.unwrap();
    restore(world, &installation, snapshots.last().unwrap(), "restored.db").await.unwrap();
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
}

/// Every object that ever was in the bucket, and the live service, open nothing that was destroyed. `slot` is one with an empty
/// folder.
pub async fn old_copies_open_nothing(world: &World, slot: impl AsyncFn([u8; 16]) -> Box<dyn RootSlot>) {
    let installation = world.open().await;
    let slot = slot(installation.id()).await;
    let slot = slot.as_ref();
    let first = snapshot(&installation).await;
    let before = world.copied();
    // So far they open everything: the copy of the root is a real one.
    let living = living_copies(slot, world, &installation).await;
    assert_eq!(living.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [1]);
    assert!(living[0].1.is_same(&installation.keyring.slot().open(1).await.unwrap()));
    assert!(body(&forget(&installation, &world.shop.picks.leaver.clone()).await).erased > 0);
    snapshot(&installation).await;
    assert_eq!(shred_due(&installation).await.unwrap().generation, Some(2));
    certify_due(&installation).await.unwrap();

    // Nothing is ever overwritten or deleted there, so the bucket of now is every object that ever was.
    let store = installation.backup().unwrap().repository.clone();
    let store: &dyn ObjectStore = store.as_ref();
    let now_living = living_copies(slot, world, &installation).await;
    assert_eq!(now_living.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [2]);
    let ground = installation.ground().unwrap();
    let repository = installation.backup().unwrap().repository.clone();
    let shown = open(&ground, repository.as_ref(), &installation.signer, first).await.unwrap();
    let frames = shredded_frames(&installation, &shown).await;
    assert!(frames.len() > 10, "{}", frames.len());
    let both = [&before, world];
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
