//! Changes of the tree: new keys into free slots, and the shred. Both only compute what has to be stored.

use thiserror::Error;

use super::node::{self, Entry, NodeKind};
use super::{FAN_OUT, KeyTree, KeyTreeError, NodeId, NodePlace, NodeSet, Result, Slot, Subtree};
use crate::keys::{Generation, InstallationId, Key};
use crate::random::Random;

/// A sealed node to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeWrite {
    /// What it is stored under.
    pub id: NodeId,
    /// Its sealed form.
    pub sealed: Vec<u8>,
    /// The [`super::node_mark`] of the state from which it was computed. It must still be the stored one at the commit, else another
    /// writer's keys would be overwritten. `None`: a new node; what may lie under the id was never committed.
    pub replaces: Option<[u8; 12]>,
}

/// A node that a new generation does not use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplacedNode {
    /// The node.
    pub id: NodeId,
    /// Its [`super::node_mark`] when it was read. If it bears another one at the commit, keys were inserted meanwhile; they would be
    /// lost, so the generation must be computed again.
    pub mark: [u8; 12],
}

/// A new generation, to be stored as a whole before it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedGeneration {
    /// Its number.
    pub generation: Generation,
    /// Its crown, sealed by its root key.
    pub crown: Vec<u8>,
    /// The new nodes.
    pub nodes: Vec<NodeWrite>,
    /// Nodes that it no longer needs: garbage once the old generation's root key is destroyed.
    pub replaced: Vec<ReplacedNode>,
}

impl SealedGeneration {
    /// Its new nodes as a set.
    #[must_use]
    pub fn node_set(&self) -> NodeSet {
        self.nodes.iter().map(|node| (node.id, node.sealed.clone())).collect()
    }
}

/// Why a reloaded generation must not be trusted with the destruction of the old root.
#[derive(Debug, Error)]
pub enum ReloadFault {
    /// A shredded slot still yields a key.
    #[error("a slot of {subtree:?} that was to be shredded still opens in the new generation")]
    StillOpens {
        /// The slot's subtree.
        subtree: Subtree,
    },
    /// A slot that should be unchanged yields another key or none.
    #[error("a slot of {subtree:?} that must survive does not yield its key in the new generation")]
    SurvivorLost {
        /// The slot's subtree.
        subtree: Subtree,
    },
    /// A node that had to get a new key has not got one of this generation.
    #[error("the key node at {place} does not have a key of the new generation")]
    NotRenewed {
        /// The node's place.
        place: NodePlace,
    },
    /// A node of either generation is damaged.
    #[error("the key tree cannot be read back")]
    Unreadable(#[from] KeyTreeError),
}

/// Compares a reloaded generation with the one before: `shredded` slots must be empty, `survivors` hold the same keys.
///
/// # Errors
/// The first [`ReloadFault`]. The old root key must not be destroyed then.
pub fn check_reload(
    old: &KeyTree,
    new: &KeyTree,
    shredded: &[Slot],
    survivors: &[Slot],
) -> std::result::Result<(), ReloadFault> {
    for slot in shredded {
        if new.key(*slot)?.is_some() {
            return Err(ReloadFault::StillOpens { subtree: slot.subtree() });
        }
    }
    for slot in survivors {
        let same = match (old.key(*slot)?, new.key(*slot)?) {
            (Some(before), Some(after)) => before.is_same(after),
            _ => false,
        };
        if !same {
            return Err(ReloadFault::SurvivorLost { subtree: slot.subtree() });
        }
    }
    Ok(())
}

/// What happens to one slot.
enum Change<'c> {
    Shred,
    Put(&'c Key),
}

/// What a parent has to note about a child after a change.
enum Outcome {
    /// Key and version are as before.
    SameKey,
    /// The child has a new key.
    NewKey(Entry),
    /// The child holds nothing any more, or never existed.
    Empty,
}

/// A change being computed: which version new node keys get, and whether existing nodes get one too.
struct Draft<'t> {
    tree: Option<&'t KeyTree>,
    installation: InstallationId,
    version: Generation,
    renews: bool,
    random: &'t dyn Random,
    writes: Vec<NodeWrite>,
    replaced: Vec<ReplacedNode>,
}

impl KeyTree {
    /// Generation 1 of a new tree, without any keys, sealed by its root key.
    ///
    /// # Errors
    /// [`KeyTreeError::Random`].
    pub fn create(installation: InstallationId, root: &Key, random: &dyn Random) -> Result<SealedGeneration> {
        Draft::new(None, installation, 1, random).into_generation(&[], root)
    }

    /// Computes the nodes to store so that free slots hold these keys. Leaves are sealed anew under their own key, so parents stay
    /// as they are; missing nodes are added. The tree shows the keys only after [`KeyTree::supply`].
    ///
    /// # Errors
    /// [`KeyTreeError::Occupied`], [`KeyTreeError::NamedTwice`], [`KeyTreeError::Random`], and damage on the paths.
    pub fn insert(&self, keys: &[(Slot, Key)], random: &dyn Random) -> Result<Vec<NodeWrite>> {
        let changes = sorted(&[], keys)?;
        let mut draft = Draft::new(Some(self), self.installation, self.generation, random);
        draft.renews = false;
        for group in changes.chunk_by(|a, b| a.0.subtree() == b.0.subtree()) {
            let subtree = group[0].0.subtree();
            // A subtree's root always exists, so the crown never changes here.
            draft.change_node(NodePlace::root_of(subtree), Some(self.crown_entry(subtree)?), group)?;
        }
        Ok(draft.writes)
    }

    /// Computes the next generation, sealed by `new_root`: every node on the paths of all named slots gets a new random key,
    /// empty slots included; everything else stays as it is. `shred` slots are left out, `put` slots are added.
    ///
    /// # Errors
    /// [`KeyTreeError::Occupied`], [`KeyTreeError::NamedTwice`], [`KeyTreeError::Random`], [`KeyTreeError::NoNextGeneration`], and
    /// damage on the paths: what cannot be opened cannot be carried over.
    pub fn rekey(
        &self,
        shred: &[Slot],
        put: &[(Slot, Key)],
        new_root: &Key,
        random: &dyn Random,
    ) -> Result<SealedGeneration> {
        let changes = sorted(shred, put)?;
        let generation = self.generation.checked_add(1).ok_or(KeyTreeError::NoNextGeneration)?;
        Draft::new(Some(self), self.installation, generation, random).into_generation(&changes, new_root)
    }
}

/// All changes by slot; a slot may be named once only.
fn sorted<'c>(shred: &[Slot], put: &'c [(Slot, Key)]) -> Result<Vec<(Slot, Change<'c>)>> {
    let shred = shred.iter().map(|slot| (*slot, Change::Shred));
    let mut changes: Vec<_> = shred.chain(put.iter().map(|(slot, key)| (*slot, Change::Put(key)))).collect();
    changes.sort_unstable_by_key(|(slot, _)| *slot);
    match changes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(KeyTreeError::NamedTwice { place: pair[0].0.path()[super::DEPTH - 1] }),
        None => Ok(changes),
    }
}

impl<'t> Draft<'t> {
    fn new(
        tree: Option<&'t KeyTree>,
        installation: InstallationId,
        version: Generation,
        random: &'t dyn Random,
    ) -> Self {
        Self { tree, installation, version, renews: true, random, writes: Vec::new(), replaced: Vec::new() }
    }

    /// Applies changes to all subtrees and seals the crown.
    fn into_generation(mut self, changes: &[(Slot, Change<'_>)], root: &Key) -> Result<SealedGeneration> {
        let mut renewed: [Option<Entry>; FAN_OUT] = [const { None }; FAN_OUT];
        for subtree in Subtree::ALL {
            let old = self.tree.map(|tree| tree.crown_entry(subtree)).transpose()?;
            let first = changes.partition_point(|(slot, _)| slot.subtree() < subtree);
            let behind = changes.partition_point(|(slot, _)| slot.subtree() <= subtree);
            if old.is_some() && first == behind {
                continue;
            }
            let outcome = self.change_node(NodePlace::root_of(subtree), old, &changes[first..behind])?;
            if let Outcome::NewKey(entry) = outcome {
                renewed[subtree.position()] = Some(entry);
            }
        }
        let entries: [Option<&Entry>; FAN_OUT] = std::array::from_fn(|position| {
            renewed[position].as_ref().or_else(|| self.tree.and_then(|tree| tree.crown[position].as_ref()))
        });
        let context = node::crown_context(&self.installation, self.version);
        let crown = node::seal_entries(NodeKind::Crown, root, &context, &entries, self.random)?;
        Ok(SealedGeneration { generation: self.version, crown, nodes: self.writes, replaced: self.replaced })
    }

    /// Applies the changes below one node, children first.
    fn change_node(
        &mut self,
        place: NodePlace,
        old: Option<&'t Entry>,
        changes: &[(Slot, Change<'_>)],
    ) -> Result<Outcome> {
        let old_entries = match (self.tree, old) {
            (Some(tree), Some(entry)) => Some(tree.entries(place.at(entry.version), &entry.key)?),
            _ => None,
        };
        let old_child = |position: usize| old_entries.and_then(|entries| entries[position].as_ref());
        let mut renewed: [Option<Entry>; FAN_OUT] = [const { None }; FAN_OUT];
        let mut emptied = 0_u64;
        for group in changes.chunk_by(|a, b| a.0.position_at(place.level) == b.0.position_at(place.level)) {
            let position = group[0].0.position_at(place.level);
            let outcome = if place.is_leaf() {
                change_slot(place, old_child(position), &group[0].1)?
            } else {
                self.change_node(place.child(position), old_child(position), group)?
            };
            match outcome {
                Outcome::SameKey => {}
                Outcome::NewKey(entry) => renewed[position] = Some(entry),
                Outcome::Empty => emptied |= 1 << position,
            }
        }
        if !self.renews && renewed.iter().all(Option::is_none) {
            return Ok(Outcome::SameKey);
        }
        let entries: [Option<&Entry>; FAN_OUT] = std::array::from_fn(|position| {
            let kept = if emptied >> position & 1 == 1 { None } else { old_child(position) };
            renewed[position].as_ref().or(kept)
        });
        self.write_node(place, old, &entries)
    }

    fn write_node(
        &mut self,
        place: NodePlace,
        old: Option<&'t Entry>,
        entries: &[Option<&Entry>; FAN_OUT],
    ) -> Result<Outcome> {
        let kind = if place.is_leaf() { NodeKind::Leaf } else { NodeKind::Inner };
        let stored = old.map(|entry| place.at(entry.version)).and_then(|id| Some((id, self.tree?.mark(id)?)));
        if let (Some(entry), false) = (old, self.renews) {
            let id = place.at(entry.version);
            let context = node::node_context(kind, &self.installation, id);
            let sealed = node::seal_entries(kind, &entry.key, &context, entries, self.random)?;
            self.writes.push(NodeWrite { id, sealed, replaces: stored.map(|(_, mark)| mark) });
            return Ok(Outcome::SameKey);
        }
        self.replaced.extend(stored.map(|(id, mark)| ReplacedNode { id, mark }));
        if place.level > 0 && entries.iter().all(Option::is_none) {
            return Ok(Outcome::Empty);
        }
        let id = place.at(self.version);
        let key = Key::make(self.random)?;
        let context = node::node_context(kind, &self.installation, id);
        let sealed = node::seal_entries(kind, &key, &context, entries, self.random)?;
        self.writes.push(NodeWrite { id, sealed, replaces: None });
        Ok(Outcome::NewKey(Entry { key, version: self.version }))
    }
}

fn change_slot(place: NodePlace, old: Option<&Entry>, change: &Change<'_>) -> Result<Outcome> {
    match change {
        Change::Shred => Ok(Outcome::Empty),
        Change::Put(_) if old.is_some() => Err(KeyTreeError::Occupied { place }),
        Change::Put(key) => {
            let key = Key::dangerous_from_bytes(key.dangerous_bytes());
            Ok(Outcome::NewKey(Entry { key, version: 0 }))
        }
    }
}
