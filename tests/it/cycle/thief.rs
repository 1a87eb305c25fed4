//! The thief: a copy of everything from before the erasure, and the root as it is afterwards. What was shredded does not
//! open with any key that can be reached from both; with the root of before it does, which shows that the search works.

use std::collections::HashSet;
use std::path::Path;

use chrono::TimeDelta;
use wangchuan::backup::pack::{max_pack_bytes, pack_name, read_pack};
use wangchuan::backup::state_record::{RECORDS, RecordName, StateRecordError};
use wangchuan::control::{Control, NodeRow, SnapshotRow};
use wangchuan::installation::Installation;
use wangchuan::keyring::KeyringError;
use wangchuan::keyring::second_place::{SecondPlaceError, fetch_record, fetch_tree};
use wangchuan::keys::cell::{CellSecret, Factor, derive_cell_secret};
use wangchuan::keys::file_slot::FileSlot;
use wangchuan::keys::slot::RootSlot;
use wangchuan::keys::suite::Suite;
use wangchuan::keys::tree::{KeyTree, NodeId, NodePlace, NodeSet, Slot, Subtree};
use wangchuan::tasks::TaskError;
use wangchuan::tasks::read_snapshot::{FrameState, OpenSnapshot, open};
use wangchuan::tasks::shred::shred_due;

use crate::support::control_database::control_in;
use crate::support::world::{World, body, forget, restore, retain, snapshot};

/// What a control database holds of the key tree.
pub struct Tree {
    pub installation: [u8; 16],
    pub generation: i64,
    pub crown: Vec<u8>,
    pub nodes: Vec<NodeRow>,
}

/// What the control database of a world holds of it, or one that was kept in a folder.
pub async fn tree_in(folder: &Path) -> Tree {
    tree_kept_in(folder, None).await
}

/// The same, where its tables may have to be loaded into a database on a server.
pub async fn tree_kept_in(folder: &Path, server: Option<&str>) -> Tree {
    let opened = control_in(folder, server).await;
    let tree = tree_of(&opened.control).await;
    opened.control.close().await;
    tree
}

async fn tree_of(control: &Control) -> Tree {
    let mut tx = control.read().await.unwrap();
    let (generation, crown) = tx.tree_root().await.unwrap().unwrap();
    Tree { installation: tx.installation().await.unwrap(), generation, crown, nodes: tx.tree_nodes().await.unwrap() }
}

pub fn node_set<'n>(nodes: impl IntoIterator<Item = &'n NodeRow>) -> NodeSet {
    nodes
        .into_iter()
        .map(|((subtree, level, index, version), sealed)| {
            let subtree = Subtree::from_number(*subtree).unwrap();
            let place = NodePlace { subtree, level: *level, index: *index };
            (NodeId { place, version: *version }, sealed.clone())
        })
        .collect()
}

/// Every slot number that either control database ever gave out.
pub async fn numbers(worlds: [&World; 2], table: &str) -> Vec<u32> {
    let mut found = HashSet::new();
    for world in worlds {
        let joined = format!("SELECT count(*) FROM {table}");
        let count = world.number("state/control.db", &joined).await;
        for at in 0..count {
            let one = format!("SELECT slot FROM {table} ORDER BY slot LIMIT 1 OFFSET {at}");
            found.insert(world.number("state/control.db", &one).await as u32);
        }
    }
    found.into_iter().collect()
}

pub struct Slots {
    pub subjects: Vec<u32>,
    pub buckets: Vec<u32>,
    pub pins: Vec<u32>,
}

/// Every cell secret that a tree yields: all pins, all buckets alone, all subjects with all buckets.
pub fn reachable(tree: &KeyTree, slots: &Slots) -> Vec<CellSecret> {
    let key = |subtree, number| tree.key(Slot::new(subtree, number).unwrap()).unwrap_or(None);
    let mut secrets: Vec<CellSecret> =
        slots.pins.iter().filter_map(|pin| key(Subtree::Pins, *pin)).map(CellSecret::from_pin).collect();
    let buckets: Vec<Factor<'_>> = slots
        .buckets
        .iter()
        .filter_map(|number| Some(Factor { number: *number, key: key(Subtree::Buckets, *number)? }))
        .collect();
    for bucket in &buckets {
        secrets.push(derive_cell_secret(None, *bucket));
    }
    for subject in &slots.subjects {
        let Some(key) = key(Subtree::Subjects, *subject) else { continue };
        let factor = Factor { number: *subject, key };
        secrets.extend(buckets.iter().map(|bucket| derive_cell_secret(Some(factor), *bucket)));
    }
    secrets
}

/// Frames of a snapshot that count as shredded, as suite, id and key commitment.
pub async fn shredded_frames(installation: &Installation, snapshot: &OpenSnapshot) -> Vec<(Suite, [u8; 16], [u8; 32])> {
    let repository = installation.backup().unwrap().repository.clone();
    let mut frames = Vec::new();
    for (index, pack) in snapshot.manifest.packs.iter().enumerate() {
        let bytes = repository.get(&pack_name(&pack.sha256), max_pack_bytes()).await.unwrap();
        let (_, packed) = read_pack(&bytes, &pack.sha256).unwrap();
        for entry in snapshot.entries.iter().filter(|entry| entry.pack as usize == index) {
            if snapshot.state_of(&entry.cell) == FrameState::Shredded {
                let header = &packed[entry.ordinal as usize].header;
                frames.push((entry.suite, header.id.0, header.commitment));
            }
        }
    }
    frames
}

/// How many of the frames some secret opens.
pub fn opened(snapshot: &OpenSnapshot, frames: &[(Suite, [u8; 16], [u8; 32])], secrets: &[CellSecret]) -> usize {
    let opens = |(suite, id, commitment): &&(Suite, [u8; 16], [u8; 32])| {
        secrets.iter().any(|secret| snapshot.frame_key(*suite, secret, id).commits_to(commitment))
    };
    frames.iter().filter(opens).count()
}

#[tokio::test]
async fn a_copy_of_everything_and_the_new_root_open_nothing_that_was_shredded() {
    let world = World::make(crate::support::world::Making { customers: 40, ..Default::default() }).await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let stolen = world.copied();
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    forget(&installation, &world.shop.picks.keeper.clone()).await;
    let retained = retain(&installation).await;
    assert!(body(&run).erased > 0 && body(&retained).erased > 0);
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.len() >= 2 && report.pinned > 0, "{report:?}");

    its_own_root_opens_everything(&stolen, &first).await;
    let now = open(
        &installation.ground().unwrap(),
        installation.backup().unwrap().repository.as_ref(),
        &installation.signer,
        first.clone(),
    )
    .await
    .unwrap();
    let frames = shredded_frames(&installation, &now).await;
    assert!(frames.len() > 30, "{}", frames.len());
    let (before, after) = (tree_in(stolen.folder.path()).await, tree_in(world.folder.path()).await);
    assert!(before.generation < after.generation);
    let both = [&stolen, &world];
    let slots = Slots {
        subjects: numbers(both, "subject").await,
        buckets: numbers(both, "bucket").await,
        pins: numbers(both, "pin").await,
    };

    let old_root = FileSlot::at(&stolen.path("root"), before.installation).unwrap();
    let old_key = old_root.open(before.generation).await.unwrap();
    let tree = KeyTree::open(before.installation, before.generation, &old_key, &before.crown, node_set(&before.nodes));
    assert_eq!(opened(&now, &frames, &reachable(&tree.unwrap(), &slots)), frames.len(), "the search finds old keys");

    // The root directory as it is now holds one root, which opens the new crown and no old one.
    let new_root = FileSlot::at(&world.path("root"), after.installation).unwrap();
    let present = new_root.list().await.unwrap();
    assert_eq!(present.iter().map(|root| root.generation).collect::<Vec<_>>(), [after.generation]);
    let new_key = new_root.open(after.generation).await.unwrap();
    for generation in [before.generation, after.generation] {
        let nodes = node_set(&before.nodes);
        assert!(KeyTree::open(before.installation, generation, &new_key, &before.crown, nodes).is_err());
    }
    // The new crown over the nodes of both databases, whichever copy of a node comes last.
    for nodes in [
        node_set(&after.nodes),
        node_set(before.nodes.iter().chain(&after.nodes)),
        node_set(after.nodes.iter().chain(&before.nodes)),
    ] {
        let tree = KeyTree::open(after.installation, after.generation, &new_key, &after.crown, nodes).unwrap();
        let secrets = reachable(&tree, &slots);
        assert!(secrets.len() > 100, "{}", secrets.len());
        assert_eq!(opened(&now, &frames, &secrets), 0, "a shredded frame opens");
    }
    is_refused_over_the_new_root(&stolen, &world, (before.generation, after.generation)).await;
    installation.close().await.unwrap();
}

/// The stolen copy alone, with its own root, still opens everything: that is what the shred must make useless.
async fn its_own_root_opens_everything(stolen: &World, first: &SnapshotRow) {
    // It was taken while the process worked, write-ahead logs included, so its lease must run out first.
    stolen.clock.advance(TimeDelta::minutes(11));
    let theirs = stolen.open().await;
    let old = restore(stolen, &theirs, first, "stolen.db").await.unwrap();
    assert_eq!((old.frames_opened, old.frames_shredded), (old.frames, 0), "{old:?}");
    assert_eq!(stolen.dump_all("stolen.db").await, stolen.dump_all("shop.db").await);
    theirs.close().await.unwrap();
}

/// Put back over the new root, the old control database is refused.
async fn is_refused_over_the_new_root(stolen: &World, world: &World, generations: (i64, i64)) {
    std::fs::remove_dir_all(stolen.path("root")).unwrap();
    crate::support::world::copy_folder(&world.path("root"), &stolen.path("root"));
    stolen.clock.advance(TimeDelta::minutes(11));
    match stolen.try_open().await {
        Err(TaskError::Keyring(KeyringError::RolledBack { database, slot })) => {
            assert_eq!((database, slot), generations);
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("an old control database was accepted"),
    }
}

/// The other thief: everything that ever lay in the second place, and the root as it is afterwards.
#[tokio::test]
async fn every_state_record_and_the_new_root_open_nothing_that_was_shredded() {
    let world = World::make(crate::support::world::Making { customers: 40, ..Default::default() }).await;
    let installation = world.open().await;
    let id = installation.id();
    let first = snapshot(&installation).await;
    let old_key = installation.keyring.slot().open(1).await.unwrap();
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    assert!(body(&retain(&installation).await).erased > 0);
    snapshot(&installation).await;
    let slots_before = Slots {
        subjects: numbers([&world, &world], "subject").await,
        buckets: numbers([&world, &world], "bucket").await,
        pins: numbers([&world, &world], "pin").await,
    };
    assert_eq!(shred_due(&installation).await.unwrap().generation, Some(2));
    installation.keyring.seal_state(&installation.control, world.clock.as_ref()).await.unwrap();
    let store = installation.backup().unwrap().repository.clone();
    let now = open(&installation.ground().unwrap(), store.as_ref(), &installation.signer, first).await.unwrap();
    let frames = shredded_frames(&installation, &now).await;
    assert!(frames.len() > 20, "{}", frames.len());

    let new_key = installation.keyring.slot().open(2).await.unwrap();
    let listed = store.list(RECORDS).await.unwrap();
    let names: Vec<RecordName> = listed.iter().map(|object| RecordName::parse(&object.name).unwrap()).collect();
    let (mut old_nodes, mut new_crown, mut best_with_old_root) = (NodeSet::new(), Vec::new(), 0);
    for name in &names {
        let with_new = fetch_record(store.as_ref(), name, id, &new_key).await;
        if name.generation == 1 {
            assert!(matches!(with_new, Err(SecondPlaceError::Record(StateRecordError::WrongKey))), "{name:?}");
            let record = fetch_record(store.as_ref(), name, id, &old_key).await.unwrap();
            let (crown, nodes) = fetch_tree(store.as_ref(), &record, id).await.unwrap();
            old_nodes.extend(nodes.clone());
            let tree = KeyTree::open(id, 1, &old_key, &crown, nodes).unwrap();
            best_with_old_root = best_with_old_root.max(opened(&now, &frames, &reachable(&tree, &slots_before)));
        } else {
            let (crown, nodes) = fetch_tree(store.as_ref(), &with_new.unwrap(), id).await.unwrap();
            let tree = KeyTree::open(id, 2, &new_key, &crown, nodes).unwrap();
            assert!(tree.survey().orphans.is_empty(), "a node of the former generation was copied");
            assert_eq!(opened(&now, &frames, &reachable(&tree, &slots_before)), 0, "a shredded frame opens");
            new_crown = crown;
        }
    }
    assert_eq!(best_with_old_root, frames.len(), "the search finds old keys");
    let tree = KeyTree::open(id, 2, &new_key, &new_crown, old_nodes).unwrap();
    assert_eq!(opened(&now, &frames, &reachable(&tree, &slots_before)), 0, "a shredded frame opens");
    installation.close().await.unwrap();
}
