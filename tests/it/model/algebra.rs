//! The model says by rule which frames open. Here the real keys say it: cell secrets and frame commitments of `keys::cell`
//! for every combination of keys that somebody with the root of today can reach, and the real key tree over every copy of
//! every node that was ever stored.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use wangchuan::keys::Key;
use wangchuan::keys::cell::{CellSecret, Factor, derive_cell_secret, derive_frame_key};
use wangchuan::keys::suite::Suite;
use wangchuan::keys::tree::{KeyTree, NodeSet, NodeWrite, SealedGeneration, Slot, Subtree};
use wangchuan::random::{Random, RandomUnavailable};

use super::world::{State, World};

const INSTALLATION: [u8; 16] = [9; 16];

/// Numbers that never repeat; nothing here is a secret.
#[derive(Default)]
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
        for chunk in out.chunks_mut(8) {
            let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&number.to_be_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// The key of a slot, the same in every world: slots are never used twice.
fn key_of(subtree: Subtree, slot: u8) -> Key {
    Key::dangerous_from_bytes(&[[subtree.number(), slot], [7, 7]].concat().repeat(8).try_into().unwrap())
}

fn place_of(subtree: Subtree, slot: u8) -> Slot {
    // Far enough apart that some slots share a leaf and some do not.
    Slot::new(subtree, u32::from(slot) * 40).unwrap()
}

fn pair(subject: Option<u8>, bucket: u8) -> CellSecret {
    let key = subject.map(|slot| key_of(Subtree::Subjects, slot));
    let subject = subject.zip(key.as_ref()).map(|(slot, key)| Factor { number: u32::from(slot), key });
    derive_cell_secret(subject, Factor { number: u32::from(bucket), key: &key_of(Subtree::Buckets, bucket) })
}

/// What a pin's slot holds: the copy of a cell's secret, or a key of its own.
fn pin_key(world: &World, slot: u8) -> Key {
    let pin = world.pins[slot as usize - 1];
    let cell = world.cells[pin.cell as usize];
    if pin.is_fresh { key_of(Subtree::Pins, slot) } else { pair(cell.subject, cell.bucket).to_pin() }
}

/// A slot with its key's beginning and its state.
type Life = (Subtree, u8, u8, State);

fn lives(world: &World) -> Vec<Life> {
    let mut all = Vec::new();
    let mut add = |subtree, states: Vec<(u8, State)>| {
        let slots = states.into_iter().enumerate();
        all.extend(slots.map(|(at, (born, state))| (subtree, at as u8 + 1, born, state)));
    };
    add(Subtree::Subjects, world.subjects.iter().map(|key| (key.born, key.state)).collect());
    add(Subtree::Buckets, world.buckets.iter().map(|key| (key.born, key.state)).collect());
    add(Subtree::Chains, world.snapshots.iter().map(|snapshot| (snapshot.born, snapshot.chain)).collect());
    add(Subtree::Pins, world.pins.iter().map(|pin| (pin.born, pin.state)).collect());
    // A preserving pin without a key is not in the tree.
    all.retain(|(_, _, born, _)| *born > 0);
    all
}

/// What was shown so far, so that nothing is computed twice.
#[derive(Default)]
pub struct Algebra {
    opened: HashMap<Vec<u8>, bool>,
    histories: HashSet<Vec<u8>>,
    /// Frames tried against every reachable key.
    pub frames: u64,
    most_histories: usize,
}

impl Algebra {
    pub fn new(most_histories: usize) -> Self {
        Self { most_histories, ..Self::default() }
    }

    /// Key histories for which the real tree was built.
    pub fn trees(&self) -> usize {
        self.histories.len()
    }

    /// Where the model and the real keys differ, if they do.
    pub fn differs(&mut self, world: &World) -> Option<String> {
        let lives = lives(world);
        let living: Vec<(Subtree, u8)> =
            lives.iter().filter(|life| !life.3.is_dead()).map(|life| (life.0, life.1)).collect();
        let known: Vec<u8> = living.iter().flat_map(|(subtree, slot)| [subtree.number(), *slot]).collect();
        for (number, snapshot) in world.snapshots.iter().enumerate() {
            for frame in &snapshot.frames {
                let cell = world.cells[frame.cell as usize];
                let (subject, fresh) = (cell.subject.unwrap_or(0), cell.fresh.unwrap_or(0));
                let sealed = [number as u8, frame.row, subject, cell.bucket, fresh];
                let pins = world.pins.iter().flat_map(|pin| [pin.cell, u8::from(pin.is_fresh)]);
                let cells = world.cells.iter().flat_map(|cell| [cell.subject.unwrap_or(0), cell.bucket]);
                let question = sealed.into_iter().chain(known.iter().copied()).chain(pins).chain(cells).collect();
                let opens = *self.opened.entry(question).or_insert_with(|| {
                    self.frames += 1;
                    let secret = match cell.fresh {
                        Some(pin) => CellSecret::from_pin(&key_of(Subtree::Pins, pin)),
                        None => pair(cell.subject, cell.bucket),
                    };
                    brute_force(world, &living, &secret, number as u8 + 1, frame.row)
                });
                if opens != world.opens(snapshot, *frame) {
                    return Some(format!("row {} of snapshot {}: with the real keys {opens}", frame.row, number + 1));
                }
            }
        }
        self.tree_differs(world, &lives)
    }

    fn tree_differs(&mut self, world: &World, lives: &[Life]) -> Option<String> {
        let death = |state: State| if let State::Dead(generation) = state { generation } else { 0 };
        let text =
            lives.iter().flat_map(|(subtree, slot, born, state)| [subtree.number(), *slot, *born, death(*state)]);
        if self.histories.len() >= self.most_histories || !self.histories.insert(text.collect()) {
            return None;
        }
        let history = History::replay(world, lives);
        let (oldest, newest) = (history.copies(true), history.copies(false));
        let tree = |nodes| {
            let generation = i64::from(world.generation);
            KeyTree::open(INSTALLATION, generation, &root(world.generation), &history.crown, nodes).unwrap()
        };
        let (oldest, newest) = (tree(oldest), tree(newest));
        for (subtree, slot, _, state) in lives {
            let place = place_of(*subtree, *slot);
            let found = newest.key(place).unwrap_or(None);
            let is_there = found.is_some();
            if is_there == state.is_dead() {
                return Some(format!("{subtree:?} {slot} is {state:?}, and the real tree holds it: {is_there}"));
            }
            if state.is_dead() && oldest.key(place).is_ok_and(|key| key.is_some()) {
                return Some(format!("{subtree:?} {slot} is {state:?} and opens from an old copy of its node"));
            }
            let wanted = if *subtree == Subtree::Pins { pin_key(world, *slot) } else { key_of(*subtree, *slot) };
            if found.is_some_and(|key| !key.is_same(&wanted)) {
                return Some(format!("{subtree:?} {slot} holds another key in the real tree"));
            }
        }
        None
    }
}

/// Whether any secret that can be made of the living keys opens a frame.
fn brute_force(world: &World, living: &[(Subtree, u8)], sealed: &CellSecret, chain: u8, row: u8) -> bool {
    let (id, chain_key) = ([chain, row].repeat(8).try_into().unwrap(), key_of(Subtree::Chains, chain));
    let wanted = derive_frame_key(Suite::Intl, sealed, &chain_key, &id);
    let of = |subtree: Subtree| living.iter().filter(move |(found, _)| *found == subtree).map(|(_, slot)| *slot);
    if !of(Subtree::Chains).any(|slot| slot == chain) {
        return false;
    }
    let pins = of(Subtree::Pins).map(|slot| CellSecret::from_pin(&pin_key(world, slot)));
    let owners = || of(Subtree::Subjects).map(Some).chain([None]);
    let pairs = of(Subtree::Buckets).flat_map(|bucket| owners().map(move |subject| pair(subject, bucket)));
    let commits =
        |secret: CellSecret| wanted.commits_to(&derive_frame_key(Suite::Intl, &secret, &chain_key, &id).commitment);
    pins.chain(pairs).any(commits)
}

fn root(generation: u8) -> Key {
    Key::dangerous_from_bytes(&[generation; 32])
}

/// Every node that was ever stored, in order, and the crown of today.
struct History {
    nodes: Vec<NodeWrite>,
    crown: Vec<u8>,
}

impl History {
    fn replay(world: &World, lives: &[Life]) -> Self {
        let random = Counting::default();
        let first = KeyTree::create(INSTALLATION, &root(1), &random).unwrap();
        let mut history = Self { nodes: first.nodes.clone(), crown: first.crown.clone() };
        let mut tree = Self::opened(1, &first, NodeSet::new());
        for generation in 1..=world.generation {
            if generation > 1 {
                let died = lives.iter().filter(|life| life.3 == State::Dead(generation));
                let shred: Vec<Slot> = died.map(|(subtree, slot, ..)| place_of(*subtree, *slot)).collect();
                let is_filled = |slot: u8, born: u8| born == generation && !world.pins[slot as usize - 1].is_fresh;
                let filled = lives.iter().filter(|life| life.0 == Subtree::Pins && is_filled(life.1, life.2));
                let put: Vec<(Slot, Key)> =
                    filled.map(|(subtree, slot, ..)| (place_of(*subtree, *slot), pin_key(world, *slot))).collect();
                let sealed = tree.rekey(&shred, &put, &root(generation), &random).unwrap();
                assert!(KeyTree::open(INSTALLATION, 1, &root(generation), &first.crown, NodeSet::new()).is_err());
                tree = Self::opened(generation, &sealed, history.copies(false));
                history.nodes.extend(sealed.nodes);
                history.crown = sealed.crown;
            }
            let born = lives.iter().filter(|(subtree, slot, born, _)| {
                let by_change = *subtree == Subtree::Pins && !world.pins[*slot as usize - 1].is_fresh;
                *born == generation && !by_change
            });
            for (subtree, slot, ..) in born {
                let writes = tree.insert(&[(place_of(*subtree, *slot), key_of(*subtree, *slot))], &random).unwrap();
                tree.supply(writes.iter().map(|write| (write.id, write.sealed.clone())));
                history.nodes.extend(writes);
            }
        }
        history
    }

    fn opened(generation: u8, sealed: &SealedGeneration, mut nodes: NodeSet) -> KeyTree {
        nodes.extend(sealed.node_set());
        KeyTree::open(INSTALLATION, i64::from(generation), &root(generation), &sealed.crown, nodes).unwrap()
    }

    /// One copy of each node: the first or the last that was stored.
    fn copies(&self, first: bool) -> NodeSet {
        let pairs = self.nodes.iter().map(|node| (node.id, node.sealed.clone()));
        if first { pairs.rev().collect() } else { pairs.collect() }
    }
}
