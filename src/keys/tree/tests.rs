//! Tests of the key tree: what survives, what is forgotten, what is noticed.

#[cfg(test)]
mod part;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::node::{Entry, crown_context, node_context, open_entries, seal_entries};
use super::*;
use crate::keys::testing::{DryRandom, ScriptedRandom, SeededRandom, Vector, key_of};

const INSTALLATION: InstallationId = [7; 16];

fn slot(number: u32) -> Slot {
    Slot::new(Subtree::Subjects, number).unwrap()
}

/// The control database's part: everything ever written, and what is committed.
struct World {
    random: SeededRandom,
    nodes: NodeSet,
    crown: Vec<u8>,
    root: Key,
    tree: KeyTree,
}

impl World {
    fn new(seed: u8) -> Self {
        let random = SeededRandom::new(seed);
        let root = Key::make(&random).unwrap();
        let first = KeyTree::create(INSTALLATION, &root, &random).unwrap();
        let nodes = first.node_set();
        let tree = KeyTree::open(INSTALLATION, 1, &root, &first.crown, nodes.clone()).unwrap();
        Self { random, nodes, crown: first.crown, root, tree }
    }

    fn insert(&mut self, slots: &[Slot]) -> Vec<(Slot, [u8; 32])> {
        let keys: Vec<_> = slots.iter().map(|slot| (*slot, Key::make(&self.random).unwrap())).collect();
        let writes = self.tree.insert(&keys, &self.random).unwrap();
        for write in writes {
            let stored = self.nodes.get(&write.id).and_then(|sealed| node_mark(sealed));
            assert_eq!(stored, write.replaces, "only a state that was seen may be replaced");
            self.nodes.insert(write.id, write.sealed.clone());
            self.tree.supply([(write.id, write.sealed)]);
        }
        keys.iter().map(|(slot, key)| (*slot, *key.dangerous_bytes())).collect()
    }

    /// Shreds and commits; old nodes stay in `nodes` as a thief would have kept them.
    fn shred(&mut self, slots: &[Slot], put: &[(Slot, Key)]) -> SealedGeneration {
        let root = Key::make(&self.random).unwrap();
        let next = self.tree.rekey(slots, put, &root, &self.random).unwrap();
        self.nodes.extend(next.node_set());
        self.crown.clone_from(&next.crown);
        self.root = root;
        self.tree = self.reopened();
        next
    }

    fn reopened(&self) -> KeyTree {
        let generation = self.generation_of_crown();
        KeyTree::open(INSTALLATION, generation, &self.root, &self.crown, self.nodes.clone()).unwrap()
    }

    fn generation_of_crown(&self) -> Generation {
        let opens = |generation: &Generation| {
            let context = crown_context(&INSTALLATION, *generation);
            open_entries(NodeKind::Crown, &self.root, &context, &self.crown).is_ok()
        };
        (1..10_000).find(opens).unwrap()
    }

    fn bytes(&self, slot: Slot) -> Option<[u8; 32]> {
        self.tree.key(slot).unwrap().map(|key| *key.dangerous_bytes())
    }
}

#[test]
fn paths_are_computed_from_the_number_alone() {
    let path = slot(0b00_0001_0000_1000_0011_0001_0000_0101).path();
    let places: Vec<_> = path.iter().map(|place| (place.level, place.index)).collect();
    assert_eq!(places, [(0, 0), (1, 1), (2, 0b1_000010), (3, 0b1_000010_000011), (4, 0b1_000010_000011_000100)]);
    let last = slot(SLOTS - 1);
    for pair in last.path().windows(2) {
        assert_eq!(pair[0].child(last.position_at(pair[0].level)), pair[1]);
    }
    assert!(last.path()[4].is_leaf());
    assert_eq!(places_of(&[1, 2, 64]), 6, "two leaves under one chain of four nodes");
    assert_eq!(Slot::new(Subtree::Pins, 0), Err(BadSlotNumber));
    assert_eq!(Slot::new(Subtree::Pins, SLOTS), Err(BadSlotNumber));
}

fn places_of(numbers: &[u32]) -> usize {
    super::places(&numbers.iter().map(|number| slot(*number)).collect::<Vec<_>>()).len()
}

#[test]
fn debug_and_errors_show_no_slot_number() {
    assert_eq!(format!("{:?}", slot(987_654)), "Slot(Subjects, …)");
    let mut world = World::new(1);
    world.insert(&[slot(987_654)]);
    let taken = world.tree.insert(&[(slot(987_654), key_of(1))], &world.random).unwrap_err();
    assert!(matches!(taken, KeyTreeError::Occupied { .. }));
    assert!(!taken.to_string().contains("987654"));
}

#[test]
fn a_slot_is_named_once_in_a_change() {
    let world = World::new(1);
    let twice = world.tree.rekey(&[slot(5)], &[(slot(5), key_of(1))], &key_of(2), &world.random);
    assert!(matches!(twice, Err(KeyTreeError::NamedTwice { .. })));
    let twice = world.tree.insert(&[(slot(5), key_of(1)), (slot(5), key_of(2))], &world.random);
    assert!(matches!(twice, Err(KeyTreeError::NamedTwice { .. })));
}

#[test]
fn a_change_shows_only_after_it_was_stored() {
    let world = World::new(1);
    let writes = world.tree.insert(&[(slot(5), key_of(1))], &world.random).unwrap();
    assert_eq!(writes.len(), DEPTH);
    assert!(world.tree.key(slot(5)).unwrap().is_none());
    assert!(world.tree.insert(&[(slot(5), key_of(1))], &DryRandom).unwrap_err().is_retryable());
}

#[test]
fn inserting_into_a_full_path_writes_the_leaf_only() {
    let mut world = World::new(1);
    world.insert(&[slot(64)]);
    let writes = world.tree.insert(&[(slot(65), key_of(1)), (slot(66), key_of(2))], &world.random).unwrap();
    assert_eq!(writes.len(), 1);
    assert!(writes[0].id.place.is_leaf());
    assert_ne!(writes[0].replaces, node_mark(&writes[0].sealed), "a fresh nonce");
}

#[test]
fn a_thief_with_every_node_ever_written_needs_the_old_root() {
    let mut world = World::new(3);
    let (victim, neighbour) = (slot(4100), slot(4101));
    let keys = world.insert(&[victim, neighbour, slot(900_000)]);
    let old_crown = world.crown.clone();
    let old_root = Key::dangerous_from_bytes(world.root.dangerous_bytes());
    world.shred(&[victim], &[]);

    assert_eq!(world.bytes(victim), None);
    assert_eq!(world.bytes(neighbour), Some(keys[1].1));

    // The old root opens the victim from old copies: the claim rests on its destruction alone.
    let thief = KeyTree::open(INSTALLATION, 1, &old_root, &old_crown, world.nodes.clone()).unwrap();
    assert_eq!(thief.key(victim).unwrap().unwrap().dangerous_bytes(), &keys[0].1);

    // The new root opens neither the old crown nor, by any key reachable from the new crown, any old node on the victim's path.
    assert!(KeyTree::open(INSTALLATION, 1, &world.root, &old_crown, world.nodes.clone()).is_err());
    let reachable = reachable_keys(&world);
    for place in victim.path() {
        let id = place.at(if place.level == 0 { 1 } else { version_before(&world, place) });
        let kind = if place.is_leaf() { NodeKind::Leaf } else { NodeKind::Inner };
        let context = node_context(kind, &INSTALLATION, id);
        for key in &reachable {
            let key = Key::dangerous_from_bytes(key);
            assert!(open_entries(kind, &key, &context, &world.nodes[&id]).is_err());
        }
    }
}

fn version_before(world: &World, place: NodePlace) -> Generation {
    let versions = world.nodes.keys().filter(|id| id.place == place).map(|id| id.version);
    versions.min().unwrap()
}

/// Every key that someone with the present root and all nodes ever written can get at.
fn reachable_keys(world: &World) -> BTreeSet<[u8; 32]> {
    let mut found = BTreeSet::from([*world.root.dangerous_bytes()]);
    let mut todo: Vec<[u8; 32]> = world.tree.crown.iter().flatten().map(|e| *e.key.dangerous_bytes()).collect();
    while let Some(bytes) = todo.pop() {
        if !found.insert(bytes) {
            continue;
        }
        let key = Key::dangerous_from_bytes(&bytes);
        for (id, sealed) in &world.nodes {
            let kind = if id.place.is_leaf() { NodeKind::Leaf } else { NodeKind::Inner };
            let context = node_context(kind, &INSTALLATION, *id);
            if let Ok(entries) = open_entries(kind, &key, &context, sealed) {
                todo.extend(entries.iter().flatten().map(|entry| *entry.key.dangerous_bytes()));
            }
        }
    }
    found
}

#[test]
fn shredding_an_empty_slot_renews_the_nodes_on_its_path() {
    let mut world = World::new(4);
    world.insert(&[slot(10)]);
    let next = world.shred(&[slot(11)], &[]);
    assert_eq!(next.nodes.len(), DEPTH, "its path exists and gets new keys");
    assert_eq!(next.replaced.len(), DEPTH);
    let next = world.shred(&[slot(500_000_000)], &[]);
    assert_eq!(next.nodes.len(), 1, "only the subtree's root lies on this path");
    assert!(world.bytes(slot(10)).is_some());
    assert!(next.nodes.iter().all(|node| node.id.version == 3 && node.replaces.is_none()));
}

#[test]
fn emptied_nodes_go_and_can_be_made_again() {
    let mut world = World::new(5);
    world.insert(&[slot(70)]);
    let next = world.shred(&[slot(70)], &[]);
    assert_eq!(next.nodes.len(), 1);
    assert_eq!(next.replaced.len(), DEPTH);
    world.insert(&[slot(71)]);
    assert!(world.bytes(slot(71)).is_some());
    assert_eq!(world.bytes(slot(70)), None);
}

#[test]
fn pins_are_put_in_the_same_generation_change() {
    let mut world = World::new(6);
    world.insert(&[slot(70)]);
    let pin = Slot::new(Subtree::Pins, 99).unwrap();
    world.shred(&[slot(70)], &[(pin, key_of(9))]);
    assert_eq!(world.bytes(pin), Some([9; 32]));
    assert_eq!(world.tree.generation(), 2);
    let survey = world.tree.survey();
    assert_eq!(survey.taken, [0, 0, 0, 1, 0]);
    assert!(survey.missing.is_empty() && survey.corrupt.is_empty());
    assert_eq!(survey.orphans.len(), DEPTH + 1, "the old path and the old root of the pins");
}

#[test]
fn a_missing_node_is_lost_and_a_changed_one_corrupt() {
    let mut world = World::new(7);
    world.insert(&[slot(10), slot(20_000)]);
    for place in slot(10).path() {
        let id = place.at(1);
        let whole = world.nodes.remove(&id).unwrap();
        let fault = world.reopened().key(slot(10)).map(|_| ()).unwrap_err();
        assert!(matches!(fault, KeyTreeError::Missing { node } if node == id));
        assert!(fault.is_damage() && !fault.is_retryable());
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            world.nodes.insert(id, changed);
            let fault = world.reopened().key(slot(10)).map(|_| ()).unwrap_err();
            assert!(fault.is_damage(), "byte {at} of {id}");
        }
        world.nodes.insert(id, whole);
    }
    assert!(world.reopened().key(slot(10)).unwrap().is_some());
    assert_eq!(world.reopened().survey().opened.len(), 5 + 4 + 2);
}

#[test]
fn an_old_version_under_a_new_parent_is_an_error() {
    let mut world = World::new(8);
    world.insert(&[slot(10), slot(11)]);
    let leaf = slot(10).path()[4];
    let old = world.nodes[&leaf.at(1)].clone();
    world.shred(&[slot(10)], &[]);
    world.nodes.insert(leaf.at(2), old);
    let fault = world.reopened().key(slot(11)).map(|_| ()).unwrap_err();
    assert!(matches!(fault, KeyTreeError::Corrupt { node } if node == leaf.at(2)));
}

#[test]
fn a_node_does_not_open_at_another_place_or_installation() {
    let mut world = World::new(9);
    world.insert(&[slot(10), slot(100)]);
    let (a, b) = (slot(10).path()[4].at(1), slot(100).path()[4].at(1));
    let moved = world.nodes[&a].clone();
    world.nodes.insert(b, moved);
    assert!(world.reopened().key(slot(100)).is_err());
    let elsewhere = KeyTree::open([8; 16], 1, &world.root, &world.crown, world.nodes.clone());
    assert!(matches!(elsewhere, Err(KeyTreeError::CrownDoesNotOpen { generation: 1 })));
    let later = KeyTree::open(INSTALLATION, 2, &world.root, &world.crown, world.nodes.clone());
    assert!(matches!(later, Err(KeyTreeError::CrownDoesNotOpen { generation: 2 })));
}

#[test]
fn a_newer_format_is_not_called_corrupt() {
    let mut world = World::new(9);
    world.insert(&[slot(10)]);
    let leaf = slot(10).path()[4].at(1);
    for (at, value) in [(0, NODE_FORMAT + 1), (1, SEED_LEAF_KIND)] {
        let mut newer = world.nodes[&leaf].clone();
        newer[at] = value;
        let mut tree = world.reopened();
        tree.supply([(leaf, newer)]);
        assert!(matches!(tree.key(slot(10)), Err(KeyTreeError::Newer)));
    }
}

#[test]
fn a_reload_is_compared_with_the_generation_before() {
    let mut world = World::new(10);
    world.insert(&[slot(10), slot(11), slot(9_000)]);
    let old = world.reopened();
    world.shred(&[slot(10)], &[]);
    check_reload(&old, &world.tree, &[slot(10)], &[slot(11), slot(9_000)]).unwrap();
    let still = check_reload(&old, &world.tree, &[slot(11)], &[]);
    assert!(matches!(still, Err(ReloadFault::StillOpens { subtree: Subtree::Subjects })));
    let lost = check_reload(&old, &world.tree, &[], &[slot(10)]);
    assert!(matches!(lost, Err(ReloadFault::SurvivorLost { .. })));
    world.nodes.remove(&slot(11).path()[4].at(2));
    let unreadable = check_reload(&old, &world.reopened(), &[], &[slot(11)]);
    assert!(matches!(unreadable, Err(ReloadFault::Unreadable(KeyTreeError::Missing { .. }))));
}

#[test]
fn a_survivor_with_another_key_stops_the_destruction() {
    let mut world = World::new(10);
    world.insert(&[slot(10)]);
    let old = world.reopened();
    world.shred(&[slot(10)], &[]);
    world.insert(&[slot(10)]);
    let changed = check_reload(&old, &world.tree, &[], &[slot(10)]);
    assert!(matches!(changed, Err(ReloadFault::SurvivorLost { .. })));
}

#[test]
fn a_crown_names_exactly_the_five_subtrees() {
    let random = SeededRandom::new(13);
    let open_with = |positions: &[usize]| {
        let entry = Entry { key: key_of(1), version: 1 };
        let entries = std::array::from_fn(|at| positions.contains(&at).then_some(&entry));
        let context = crown_context(&INSTALLATION, 1);
        let crown = seal_entries(NodeKind::Crown, &key_of(2), &context, &entries, &random).unwrap();
        KeyTree::open(INSTALLATION, 1, &key_of(2), &crown, NodeSet::new()).map(|_| ())
    };
    open_with(&[0, 1, 2, 3, 4]).unwrap();
    for wrong in [&[0, 1, 2, 3][..], &[1, 2, 3, 4], &[0, 1, 2, 3, 4, 5], &[]] {
        assert!(matches!(open_with(wrong), Err(KeyTreeError::CrownDoesNotOpen { generation: 1 })));
    }
}

#[test]
fn a_child_without_a_generation_is_malformed() {
    let random = SeededRandom::new(13);
    for (version, is_fine) in [(1, true), (0, false), (-1, false)] {
        let entry = Entry { key: key_of(1), version };
        let entries = std::array::from_fn(|at| (at == 9).then_some(&entry));
        let sealed = seal_entries(NodeKind::Inner, &key_of(2), b"context", &entries, &random).unwrap();
        assert_eq!(open_entries(NodeKind::Inner, &key_of(2), b"context", &sealed).is_ok(), is_fine);
    }
}

#[test]
fn numbers_are_drawn_from_the_cohort_until_it_is_full() {
    let random = SeededRandom::new(11);
    let mut taken = BTreeSet::new();
    for count in (1..).take_while(|count| count * (count - 1) / 2 < COHORT_SLOTS as usize - 1) {
        let left = COHORT_SLOTS as usize - 1 - taken.len();
        let numbers = KeyTree::allocate(0, &|number| taken.contains(&number), count, &random).unwrap();
        assert_eq!(numbers.len(), count.min(left));
        for number in numbers {
            assert!((1..COHORT_SLOTS).contains(&number));
            assert!(taken.insert(number), "twice");
        }
    }
    assert_eq!(taken.len(), COHORT_SLOTS as usize - 1);
    let full = KeyTree::allocate(0, &|number| taken.contains(&number), 1, &random);
    assert!(matches!(full, Err(KeyTreeError::CohortFull { cohort: 0 })));
    let last = SLOTS / COHORT_SLOTS - 1;
    assert!(KeyTree::allocate(last, &|_| false, 1, &random).unwrap()[0] >= last * COHORT_SLOTS);
    assert!(KeyTree::allocate(last + 1, &|_| false, 1, &random).is_err());
    assert!(KeyTree::allocate(u32::MAX, &|_| false, 1, &random).is_err());
    let draws: BTreeSet<u32> = (0..50).flat_map(|_| KeyTree::allocate(3, &|_| false, 1, &random).unwrap()).collect();
    assert!(draws.len() > 40, "random, not in order");
    let all = KeyTree::allocate(3, &|_| false, COHORT_SLOTS as usize, &random).unwrap();
    assert!(all.windows(2).filter(|pair| pair[0] < pair[1]).count() < 2500, "random, not in order");
}

#[test]
fn thousands_of_slots_change_at_once() {
    let mut world = World::new(12);
    let all: Vec<Slot> = (1..5_000).map(|n| slot(n * 7)).collect();
    let keys = world.insert(&all);
    let (gone, kept): (Vec<_>, Vec<_>) = keys.iter().partition(|(slot, _)| slot.number() % 2 == 0);
    world.shred(&gone.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), &[]);
    assert!(gone.iter().all(|(slot, _)| world.bytes(*slot).is_none()));
    assert!(kept.iter().all(|(slot, key)| world.bytes(*slot) == Some(*key)));
}

#[test]
fn nodes_and_crowns_match_the_golden_vectors() {
    let nodes = Vector::all(include_str!("../../../tests/vectors/keys/node.json"));
    let crowns = Vector::all(include_str!("../../../tests/vectors/keys/crown.json"));
    for vector in nodes.iter().chain(&crowns) {
        let installation = vector.array("installation");
        let is_crown = vector.bytes("sealed")[1] == NodeKind::Crown as u8;
        let (kind, context) = if is_crown {
            (NodeKind::Crown, crown_context(&installation, vector.number("generation")))
        } else {
            let number = |name| u32::try_from(vector.number(name)).unwrap();
            let subtree = Subtree::from_number(number("subtree") as u8).unwrap();
            let place = NodePlace { subtree, level: number("level") as u8, index: number("index") };
            let kind = if place.is_leaf() { NodeKind::Leaf } else { NodeKind::Inner };
            (kind, node_context(kind, &installation, place.at(vector.number("version"))))
        };
        let mut entries = [const { None }; FAN_OUT];
        for entry in vector.list("entries") {
            let position = usize::try_from(entry.number("position")).unwrap();
            entries[position] = Some(Entry { key: entry.key("key"), version: entry.number("version") });
        }
        let sealed = vector.bytes("sealed");
        let refs = std::array::from_fn(|position| entries[position].as_ref());
        let random = ScriptedRandom::new(vector.bytes("nonce"));
        assert_eq!(seal_entries(kind, &vector.key("key"), &context, &refs, &random).unwrap(), sealed);
        let opened = open_entries(kind, &vector.key("key"), &context, &sealed).unwrap();
        for (opened, expected) in opened.iter().zip(&entries) {
            let shape = |entry: &Option<Entry>| entry.as_ref().map(|e| (*e.key.dangerous_bytes(), e.version));
            assert_eq!(shape(opened), shape(expected));
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<u32>),
    Shred(Vec<u32>, Vec<u32>),
    Restart,
}

/// Numbers close together and far apart, so that leaves and upper nodes are shared and not.
fn numbers() -> impl Strategy<Value = Vec<u32>> {
    let number = prop_oneof![1_u32..200, 4_000_u32..4_300, (1_u32..40).prop_map(|n| n * 20_000_000)];
    proptest::collection::vec(number, 1..6)
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => numbers().prop_map(Op::Insert),
        2 => (numbers(), numbers()).prop_map(|(shred, put)| Op::Shred(shred, put)),
        1 => Just(Op::Restart),
    ];
    proptest::collection::vec(op, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree_with_a_map(history in ops(), seed: u8) {
        let mut world = World::new(seed);
        let mut model: BTreeMap<Slot, [u8; 32]> = BTreeMap::new();
        let mut used: BTreeSet<Slot> = BTreeSet::new();
        for op in history {
            let fresh = |numbers: Vec<u32>, used: &mut BTreeSet<Slot>| -> Vec<Slot> {
                numbers.into_iter().map(slot).filter(|slot| used.insert(*slot)).collect()
            };
            match op {
                Op::Insert(numbers) => {
                    let slots = fresh(numbers, &mut used);
                    model.extend(world.insert(&slots));
                }
                Op::Shred(numbers, put) => {
                    let shred: BTreeSet<Slot> = numbers.into_iter().map(slot).collect();
                    used.extend(&shred);
                    let put: Vec<_> = fresh(put, &mut used).into_iter().map(|s| (s, Key::make(&world.random).unwrap())).collect();
                    world.shred(&shred.iter().copied().collect::<Vec<_>>(), &put);
                    model.retain(|slot, _| !shred.contains(slot));
                    model.extend(put.iter().map(|(slot, key)| (*slot, *key.dangerous_bytes())));
                }
                Op::Restart => world.tree = world.reopened(),
            }
            for slot in &used {
                prop_assert_eq!(world.bytes(*slot), model.get(slot).copied());
            }
            prop_assert_eq!(world.tree.survey().taken[0], model.len() as u64);
        }
    }

    #[test]
    fn replaced_nodes_are_exactly_what_a_generation_no_longer_reaches(history in ops(), seed: u8) {
        let mut world = World::new(seed);
        let mut used: BTreeSet<Slot> = BTreeSet::new();
        for op in history {
            match op {
                Op::Insert(numbers) => {
                    let slots: Vec<Slot> = numbers.into_iter().map(slot).filter(|slot| used.insert(*slot)).collect();
                    world.insert(&slots);
                }
                Op::Shred(numbers, _) => {
                    let shred: BTreeSet<Slot> = numbers.into_iter().map(slot).collect();
                    used.extend(&shred);
                    let next = world.shred(&shred.into_iter().collect::<Vec<_>>(), &[]);
                    for old in next.replaced {
                        let sealed = world.nodes.remove(&old.id).unwrap();
                        prop_assert_eq!(node_mark(&sealed), Some(old.mark));
                    }
                    world.tree = world.reopened();
                }
                Op::Restart => {}
            }
            let survey = world.tree.survey();
            prop_assert!(survey.orphans.is_empty() && survey.missing.is_empty() && survey.corrupt.is_empty());
        }
    }

    #[test]
    fn opening_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in [NodeKind::Inner, NodeKind::Leaf, NodeKind::Crown] {
            prop_assert!(open_entries(kind, &key_of(1), b"context", &bytes).is_err());
        }
    }

    #[test]
    fn decoding_arbitrary_content_never_panics(content in proptest::collection::vec(any::<u8>(), 0..200), truthful: bool) {
        // Sealed with the right key and context, so that the decoder behind the cipher is reached.
        let mut content = content;
        if truthful && content.len() >= 8 {
            let entries = (content.len() - 8) / 40;
            content.truncate(8 + entries * 40);
            content[..8].copy_from_slice(&((1_u64 << entries) - 1).to_be_bytes());
        }
        for kind in [NodeKind::Inner, NodeKind::Leaf, NodeKind::Crown] {
            let mut body = content.clone();
            super::super::suite::seal(super::super::suite::Suite::Intl, &key_of(1), [0; 12], b"context", &mut body).unwrap();
            let mut sealed = vec![NODE_FORMAT, kind as u8];
            sealed.extend_from_slice(&[0; 12]);
            sealed.extend_from_slice(&body);
            let _ = open_entries(kind, &key_of(1), b"context", &sealed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_shredded_key_is_reachable_from_the_present_root(history in ops(), seed: u8) {
        let mut world = World::new(seed);
        let mut used: BTreeSet<Slot> = BTreeSet::new();
        let mut keys: BTreeMap<Slot, [u8; 32]> = BTreeMap::new();
        let mut dead: Vec<[u8; 32]> = Vec::new();
        for op in history {
            match op {
                Op::Insert(numbers) => {
                    let slots: Vec<Slot> = numbers.into_iter().map(slot).filter(|slot| used.insert(*slot)).collect();
                    keys.extend(world.insert(&slots));
                }
                Op::Shred(numbers, _) => {
                    let shred: BTreeSet<Slot> = numbers.into_iter().map(slot).collect();
                    used.extend(&shred);
                    dead.extend(shred.iter().filter_map(|slot| keys.remove(slot)));
                    world.shred(&shred.into_iter().collect::<Vec<_>>(), &[]);
                }
                Op::Restart => {}
            }
        }
        // `world.nodes` still holds every node of every generation, as a thief's copies would.
        let reachable = reachable_keys(&world);
        prop_assert!(dead.iter().all(|key| !reachable.contains(key)));
        prop_assert!(keys.values().all(|key| reachable.contains(key)));
    }
}
