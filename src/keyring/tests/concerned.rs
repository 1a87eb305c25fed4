//! What a generation change reads and what it finds damaged: the paths that it concerns, and not the rest.

use super::*;
use crate::control::testing::{follow, run, zeros_for};
use crate::keys::tree::DEPTH;

/// Customers of the tests that count: their tree has some 1,590 nodes.
const MANY: u32 = 100_000;

impl World {
    /// With keys of subjects in the slots 1 to `all`, of which every `listed`-th stands in the control database.
    async fn with_subjects(all: u32, listed: usize) -> Self {
        let world = Self::new().await;
        let mut tx = world.control.begin().await.unwrap();
        let slot = |number| Slot::new(Subtree::Subjects, number).unwrap();
        let keys: Vec<_> = (1..=all).map(|number| (slot(number), Key::make(&SystemRandom).unwrap())).collect();
        world.keyring.insert(&mut tx, &keys).await.unwrap();
        let subjects: Vec<_> = (1..=all).step_by(listed).map(|number| (number, lookup_of(number))).collect();
        tx.add_subjects(&subjects).await.unwrap();
        tx.commit().await.unwrap();
        world
    }

    async fn shred_subjects(&self, subjects: &[u32]) -> Result<Shredded> {
        let dying = DyingKeys { subjects: subjects.to_vec(), ..DyingKeys::default() };
        let order = ShredOrder { fence: fence(self.token), dying: &dying, preserved: &[], holds: &[] };
        shred(&self.keyring, &self.control, &order, &self.clock).await
    }

    /// The key as a keyring has it that knows nothing yet.
    async fn subject(&self, number: u32) -> (Result<Option<Key>>, u64) {
        let fresh = Keyring::new(ID, self.stage.clone(), Arc::new(SystemRandom));
        let mut tx = self.control.read().await.unwrap();
        let key = fresh.key(&mut tx, Subtree::Subjects, number).await;
        (key, fresh.nodes_read())
    }

    async fn left_over(&self) -> usize {
        let mut tx = self.control.read().await.unwrap();
        self.keyring.with_whole_tree(&mut tx, |tree| tree.survey().orphans.len()).await.unwrap()
    }
}

fn lookup_of(number: u32) -> [u8; 32] {
    let mut lookup = [0; 32];
    lookup[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    lookup
}

#[tokio::test]
async fn what_is_read_follows_what_is_looked_up_and_shredded() {
    let world = World::with_subjects(MANY, 10).await;
    let mut tx = world.control.read().await.unwrap();
    let before = world.keyring.nodes_read();
    let all = world.keyring.with_whole_tree(&mut tx, |tree| tree.survey().opened.len()).await.unwrap() as u64;
    assert_eq!((world.keyring.nodes_read() - before, all > 1_500), (all, true));
    drop(tx);

    let (key, read) = world.subject(50_000).await;
    assert!(key.unwrap().is_some());
    assert_eq!(read, DEPTH as u64);

    // The tree before and the one behind: for each the victim's path, and those of 64 survivors, which have upper nodes in
    // common (2,500 slots of a cohort hang on 3 of them).
    let before = world.keyring.nodes_read();
    world.shred_subjects(&[50_001]).await.unwrap();
    let read = world.keyring.nodes_read() - before;
    assert!(read < 2 * (64 * 2 + 30), "{read} of {all} nodes were read");
    assert!(world.subject(50_001).await.0.unwrap().is_none());
    assert!(world.subject(50_002).await.0.unwrap().is_some());

    // More of them: a path each, in a part of the tree.
    let before = world.keyring.nodes_read();
    world.shred_subjects(&(1..=640).collect::<Vec<_>>()).await.unwrap();
    let read = world.keyring.nodes_read() - before;
    assert!(read < 2 * (64 * 2 + 30 + 11), "{read} of {all} nodes were read");
    assert_eq!((world.left_over().await, world.roots().await), (0, vec![3]));
}

#[tokio::test]
async fn a_written_node_that_is_damaged_keeps_the_old_root() {
    let zeroed = format!("UPDATE tree_node SET sealed = {} WHERE version = 2 AND level = 4", zeros_for("sealed"));
    for harm in [
        "DELETE FROM tree_node WHERE version = 2 AND level = 4",
        "DELETE FROM tree_node WHERE version = 2 AND level = 1",
        &zeroed,
        "UPDATE tree_node SET sealed = (SELECT o.sealed FROM tree_node o WHERE o.version = 1 AND o.level = tree_node.level \
         AND o.idx = tree_node.idx AND o.subtree = tree_node.subtree) WHERE version = 2 AND level = 4",
    ] {
        let world = World::with_subjects(2_000, 1).await;
        // In the very transaction that puts the generation in force: as late as it can be.
        follow(&world.control, "INSERT", "tree_root", "NEW.generation = 2", harm).await;
        assert!(world.shred_subjects(&[700]).await.is_err(), "{harm}");
        assert_eq!(world.roots().await, vec![1, 2], "{harm}");
        // Nor does a recovery destroy it.
        assert!(world.recover().await.is_err(), "{harm}");
        assert_eq!(world.roots().await, vec![1, 2], "{harm}");
    }
}

#[tokio::test]
async fn damage_on_a_path_stops_a_shred_before_anything_is_in_force() {
    let world = World::with_subjects(2_000, 1).await;
    // The leaf of 640 to 703.
    let zeros = zeros_for("sealed");
    let harm = format!("UPDATE tree_node SET sealed = {zeros} WHERE subtree = 1 AND level = 4 AND idx = 10");
    run(&world.control, &harm).await;
    assert!(matches!(world.shred_subjects(&[700]).await, Err(KeyringError::Tree(error)) if error.is_damage()));
    assert_eq!((world.roots().await, world.left_over().await), (vec![1], 0));
    // Elsewhere it neither stops a shred, which cannot save it, nor goes away with it.
    world.shred_subjects(&[800]).await.unwrap();
    assert_eq!(world.roots().await, vec![2]);
    assert!(world.subject(700).await.0.is_err());
    assert!(world.subject(800).await.0.unwrap().is_none());
    assert!(world.subject(801).await.0.unwrap().is_some());
    let mut tx = world.control.read().await.unwrap();
    let damaged = world.keyring.with_whole_tree(&mut tx, |tree| tree.survey().corrupt.len()).await.unwrap();
    assert_eq!(damaged, 1);
}

#[tokio::test]
async fn a_change_that_is_given_up_leaves_no_nodes_behind() {
    let world = World::with_subjects(2_000, 1).await;
    // The hold on all destruction comes while the new nodes lie there already.
    let hold = "INSERT INTO meta VALUES ('agent_hold', 'x')";
    follow(&world.control, "UPDATE", "rekey", "NEW.step = 'copy-to-second-place'", hold).await;
    assert!(matches!(world.shred_subjects(&[700]).await, Err(KeyringError::Held(_))));
    assert_eq!((world.roots().await, world.left_over().await), (vec![1], 0));
    assert!(world.subject(700).await.0.unwrap().is_some());
}

#[tokio::test]
async fn keys_that_come_behind_the_commit_are_kept() {
    let world = World::with_subjects(2_000, 1).await;
    // A crash between commit and destruction, and keys that come before the recovery.
    *world.stage.refuse_destroy.lock().unwrap() = true;
    assert!(world.shred_subjects(&[700]).await.is_err());
    let mut tx = world.control.begin().await.unwrap();
    world.keyring.work_key(&mut tx, Purpose::Plan, "later").await.unwrap();
    let slot = Slot::new(Subtree::Subjects, 5_000_000).unwrap();
    world.keyring.insert(&mut tx, &[(slot, key_of(7))]).await.unwrap();
    tx.commit().await.unwrap();
    world.recover().await.unwrap().unwrap();
    assert_eq!((world.roots().await, world.left_over().await), (vec![2], 0));
    assert!(world.subject(5_000_000).await.0.unwrap().is_some());
}

#[tokio::test]
async fn a_cached_part_grows_with_what_is_asked() {
    let world = World::with_subjects(2_000, 1).await;
    let keyring = Keyring::new(ID, world.stage.clone(), Arc::new(SystemRandom));
    let mut tx = world.control.begin().await.unwrap();
    for (number, read) in [(700, 5), (701, 5), (1_500, 6), (1_400, 7), (700, 7)] {
        assert!(keyring.key(&mut tx, Subtree::Subjects, number).await.unwrap().is_some());
        assert_eq!(keyring.nodes_read(), read, "at {number}");
    }
    // A key in a place of which nothing was read yet, and its neighbours.
    let slot = |number| Slot::new(Subtree::Subjects, number).unwrap();
    keyring.insert(&mut tx, &[(slot(2_001), key_of(1))]).await.unwrap();
    assert!(keyring.insert(&mut tx, &[(slot(1_999), key_of(1))]).await.is_err(), "the slot is taken");
    assert!(keyring.key(&mut tx, Subtree::Subjects, 2_001).await.unwrap().is_some());
    assert!(keyring.key(&mut tx, Subtree::Subjects, 1_998).await.unwrap().is_some());
    drop(tx);
    // It was rolled back: what is in memory is not what is stored.
    let mut tx = world.control.begin().await.unwrap();
    assert!(keyring.key(&mut tx, Subtree::Subjects, 2_001).await.unwrap().is_none());
    assert!(keyring.key(&mut tx, Subtree::Subjects, 1_998).await.unwrap().is_some());
}
