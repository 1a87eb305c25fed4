//! A tree that was loaded in part does the same as the whole one, and a reloaded generation that is not what it must be is
//! noticed from the paths of the changed slots alone.

use super::super::node::open_entries;
use super::*;
use crate::keys::tree::{check_change, check_kept};

impl World {
    /// The present tree with the stored nodes of the paths of these slots, and nothing else.
    fn part(&self, slots: &[Slot]) -> KeyTree {
        let generation = self.generation_of_crown();
        let mut tree = KeyTree::open_bare(INSTALLATION, generation, &self.root, &self.crown).unwrap();
        self.load(&mut tree, slots);
        tree
    }

    fn load(&self, tree: &mut KeyTree, slots: &[Slot]) {
        let places = tree.unloaded(slots);
        let wanted: BTreeSet<NodePlace> = places.iter().copied().collect();
        let nodes = self.nodes.iter().filter(|(id, _)| wanted.contains(&id.place));
        tree.load(&places, nodes.map(|(id, sealed)| (*id, sealed.clone())).collect::<Vec<_>>());
    }

    /// The key of a node that the present tree reaches.
    fn key_of_node(&self, id: NodeId) -> Key {
        let mut entry = self.tree.crown_entry(id.place.subtree).unwrap();
        for level in 0..id.place.level {
            let above = 6 * u32::from(id.place.level - level);
            let place = NodePlace { level, index: id.place.index >> above, ..id.place };
            let position = (id.place.index >> (above - 6)) as usize % FAN_OUT;
            entry = self.tree.entries(place.at(entry.version), &entry.key).unwrap()[position].as_ref().unwrap();
        }
        assert_eq!(entry.version, id.version);
        Key::dangerous_from_bytes(entry.key.dangerous_bytes())
    }
}

fn key_bytes(tree: &KeyTree, slot: Slot) -> Option<[u8; 32]> {
    tree.key(slot).unwrap().map(|key| *key.dangerous_bytes())
}

fn keys_for(slots: &[Slot], random: &SeededRandom) -> Vec<(Slot, Key)> {
    slots.iter().map(|slot| (*slot, Key::make(random).unwrap())).collect()
}

#[test]
fn what_was_not_loaded_is_neither_empty_nor_damaged() {
    let mut world = World::new(20);
    let (one, far) = (slot(10), slot(900_000));
    world.insert(&[one, far]);
    let mut tree = world.part(&[one]);
    assert_eq!(tree.nodes.len(), DEPTH);
    assert!(tree.unloaded(&[one, slot(11)]).is_empty(), "its leaf is there, so its neighbours are known too");
    assert_eq!(key_bytes(&tree, slot(11)), None);
    let asked = tree.key(far).map(|_| ()).unwrap_err();
    assert!(matches!(asked, KeyTreeError::NotLoaded { place } if place == far.path()[2]), "{asked}");
    assert!(!asked.is_damage() && !asked.is_retryable());
    for refused in [
        tree.insert(&[(slot(900_001), key_of(1))], &world.random).map(|_| ()),
        tree.rekey(&[far], &[], &key_of(2), &world.random).map(|_| ()),
        tree.nodes_on(&[far]).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(KeyTreeError::NotLoaded { .. })));
    }
    assert!(!tree.survey().missing.is_empty(), "a survey of a part is not taken for one of the whole");
    world.load(&mut tree, &[far]);
    assert_eq!(tree.nodes.len(), 2 * DEPTH - 2);
    assert_eq!(key_bytes(&tree, far), world.bytes(far));
    // Asked for and not there is damage.
    let lost = far.path()[4].at(1);
    world.nodes.remove(&lost);
    assert!(matches!(world.part(&[far]).key(far), Err(KeyTreeError::Missing { node }) if node == lost));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_part_and_the_whole_change_alike(history in ops(), seed: u8) {
        let mut world = World::new(seed);
        let mut used: BTreeSet<Slot> = BTreeSet::new();
        for (step, op) in history.into_iter().enumerate() {
            // The same randomness for both, so that what they write is the same to the byte.
            let random = || SeededRandom::new(seed ^ step as u8);
            let fresh = |numbers: Vec<u32>, used: &mut BTreeSet<Slot>| -> Vec<Slot> {
                numbers.into_iter().map(slot).filter(|slot| used.insert(*slot)).collect()
            };
            match op {
                Op::Insert(numbers) => {
                    let slots = fresh(numbers, &mut used);
                    let keys = keys_for(&slots, &world.random);
                    let whole = world.tree.insert(&keys, &random()).unwrap();
                    prop_assert_eq!(&world.part(&slots).insert(&keys, &random()).unwrap(), &whole);
                    world.nodes.extend(whole.into_iter().map(|write| (write.id, write.sealed)));
                    world.tree = world.reopened();
                }
                Op::Shred(numbers, put) => {
                    let died: BTreeSet<Slot> = numbers.into_iter().map(slot).collect();
                    used.extend(&died);
                    let died: Vec<Slot> = died.into_iter().collect();
                    let put = keys_for(&fresh(put, &mut used), &world.random);
                    let came: Vec<Slot> = put.iter().map(|(slot, _)| *slot).collect();
                    let changed = [died.clone(), came.clone()].concat();
                    let root = Key::make(&world.random).unwrap();
                    let old = world.part(&changed);
                    let next = world.tree.rekey(&died, &put, &root, &random()).unwrap();
                    prop_assert_eq!(&old.rekey(&died, &put, &root, &random()).unwrap(), &next);
                    let replaced: BTreeSet<NodeId> = next.replaced.iter().map(|node| node.id).collect();
                    prop_assert_eq!(old.nodes_on(&changed).unwrap().into_iter().collect::<BTreeSet<_>>(), replaced);
                    let whole_old = world.reopened();
                    world.nodes.extend(next.node_set());
                    (world.crown, world.root) = (next.crown, root);
                    world.tree = world.reopened();
                    check_change(&old, &world.part(&changed), &died, &came).unwrap();
                    check_change(&whole_old, &world.tree, &died, &came).unwrap();
                    check_kept(&whole_old, &world.tree, &died).unwrap();
                }
                Op::Restart => {}
            }
            let all: Vec<Slot> = used.iter().copied().collect();
            let part = world.part(&all);
            for slot in &used {
                prop_assert_eq!(key_bytes(&part, *slot), world.bytes(*slot));
            }
        }
    }
}

/// A world before and after a shred with a pin, and the nodes that the shred wrote.
struct Changed {
    before: World,
    after: World,
    died: Vec<Slot>,
    came: Vec<Slot>,
    written: Vec<NodeId>,
}

impl Changed {
    fn new() -> Self {
        let mut before = World::new(21);
        let pin = |number| Slot::new(Subtree::Pins, number).unwrap();
        before.insert(&[slot(10), slot(11), slot(70), slot(4_000), slot(900_000), pin(3), pin(5_000)]);
        let mut after = World::new(21);
        (after.nodes, after.crown) = (before.nodes.clone(), before.crown.clone());
        after.root = Key::dangerous_from_bytes(before.root.dangerous_bytes());
        after.tree = after.reopened();
        // One with a neighbour in its leaf, one whose leaf and upper nodes hold nobody else, one that was never used.
        let (died, came) = (vec![slot(10), slot(900_000), slot(12_000)], vec![pin(4)]);
        let next = after.shred(&died, &[(came[0], key_of(9))]);
        let written = next.nodes.iter().map(|node| node.id).collect();
        Self { before, after, died, came, written }
    }

    fn check(&self) -> Result<(), ReloadFault> {
        let changed = [self.died.clone(), self.came.clone()].concat();
        check_change(&self.before.part(&changed), &self.after.part(&changed), &self.died, &self.came)
    }

    /// Writes a node of the new generation again, with one entry changed, and checks.
    fn with_entry(&mut self, id: NodeId, position: usize, entry: Option<Entry>) -> Result<(), ReloadFault> {
        let kind = if id.place.is_leaf() { NodeKind::Leaf } else { NodeKind::Inner };
        let context = node_context(kind, &INSTALLATION, id);
        let key = self.after.key_of_node(id);
        let stored = self.after.nodes[&id].clone();
        let mut entries = open_entries(kind, &key, &context, &stored).unwrap();
        entries[position] = entry;
        let refs = std::array::from_fn(|at| entries[at].as_ref());
        let sealed = seal_entries(kind, &key, &context, &refs, &SeededRandom::new(99)).unwrap();
        self.after.nodes.insert(id, sealed);
        let checked = self.check();
        self.after.nodes.insert(id, stored);
        checked
    }

    fn entries_of(&self, id: NodeId) -> Vec<Option<([u8; 32], Generation)>> {
        let key = self.after.key_of_node(id);
        let entries = self.after.tree.entries(id, &key).unwrap();
        entries.iter().map(|entry| entry.as_ref().map(|e| (*e.key.dangerous_bytes(), e.version))).collect()
    }
}

fn entry((key, version): ([u8; 32], Generation)) -> Entry {
    Entry { key: Key::dangerous_from_bytes(&key), version }
}

#[test]
fn every_entry_that_a_shred_copied_wrongly_keeps_the_old_root() {
    let mut world = Changed::new();
    world.check().unwrap();
    let mut tried = 0;
    for id in world.written.clone() {
        for (position, found) in world.entries_of(id).into_iter().enumerate() {
            let Some((key, version)) = found else { continue };
            let mut wrong = vec![("left out", None)];
            let mut other = key;
            other[0] ^= 1;
            // The secret of a pin is compared with its cell's, by whoever knows the cell.
            if !(id.place.is_leaf() && id.place.slot(position) == Some(world.came[0])) {
                wrong.push(("another key", Some((other, version))));
            }
            if !id.place.is_leaf() {
                wrong.push(("another version", Some((key, 3 - version))));
            }
            for (what, wrong) in wrong {
                tried += 1;
                assert!(world.with_entry(id, position, wrong.map(entry)).is_err(), "{what} at {position} of {id}");
            }
        }
    }
    assert!(tried > 30, "{tried}");
    world.check().unwrap();
}

#[test]
fn a_path_that_kept_its_key_keeps_the_old_root() {
    let mut world = Changed::new();
    let mut tried = 0;
    for id in world.written.clone().into_iter().filter(|id| !id.place.is_leaf()) {
        for position in 0..FAN_OUT {
            let child = id.place.child(position);
            // The node that the new one replaces, under the key that it had.
            let stale = world.before.nodes.contains_key(&child.at(1)).then(|| {
                let old = world.before.key_of_node(child.at(1));
                (*old.dangerous_bytes(), 1)
            });
            let Some(stale) = stale.filter(|_| world.written.contains(&child.at(2))) else { continue };
            tried += 1;
            let checked = world.with_entry(id, position, Some(entry(stale)));
            assert!(matches!(checked, Err(ReloadFault::NotRenewed { place }) if place == child), "{checked:?}");
        }
    }
    assert!(tried >= 6, "{tried}");
}

#[test]
fn a_victim_that_is_still_there_keeps_the_old_root() {
    let mut world = Changed::new();
    let leaf = slot(10).path()[4];
    let key = *world.before.tree.key(slot(10)).unwrap().unwrap().dangerous_bytes();
    let checked = world.with_entry(leaf.at(2), 10, Some(entry((key, 0))));
    assert!(matches!(checked, Err(ReloadFault::StillOpens { subtree: Subtree::Subjects })));
    // A key that came since is no fault: others insert while the generation is read back.
    world.with_entry(leaf.at(2), 12, Some(entry((key, 0)))).unwrap();
    world.after.insert(&[slot(20), slot(13_000), slot(1_000_000)]);
    world.check().unwrap();
}

#[test]
fn a_written_node_that_cannot_be_read_back_keeps_the_old_root_and_another_one_does_not_matter() {
    let mut world = Changed::new();
    let others: Vec<NodeId> = world.after.nodes.keys().filter(|id| !world.written.contains(id)).copied().collect();
    for id in world.written.clone() {
        let whole = world.after.nodes.remove(&id).unwrap();
        assert!(matches!(world.check(), Err(ReloadFault::Unreadable(KeyTreeError::Missing { node })) if node == id));
        for (at, bit) in [(0, 1), (5, 1), (whole.len() - 1, 128)] {
            let mut changed = whole.clone();
            changed[at] ^= bit;
            world.after.nodes.insert(id, changed);
            assert!(matches!(world.check(), Err(ReloadFault::Unreadable(_))), "byte {at} of {id}");
        }
        world.after.nodes.insert(id, whole);
    }
    // Replaced, or the same row for both generations: the old root could not give it back.
    for id in others {
        let whole = world.after.nodes.remove(&id).unwrap();
        world.check().unwrap();
        world.after.nodes.insert(id, whole);
    }
}
