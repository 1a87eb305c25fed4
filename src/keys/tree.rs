//! The key tree: 2^30 slots in each of five subtrees, and a way to forget any of them for good.
//!
//! Every node is sealed under a random key of its own, which only its parent holds; the parents of the five subtrees lie in the
//! crown, which the root key of the present generation opens. To shred slots means to give every node on their paths a new key
//! and the tree a new generation: once the old root key is destroyed, no copy of any node, old or new, leads to them.
//!
//! A [`KeyTree`] is a view of what is durable. [`KeyTree::insert`] and [`KeyTree::rekey`] do not change it: they return what has
//! to be stored, and after the commit [`KeyTree::supply`] or a new [`KeyTree::open`] makes it visible. So no key is ever used
//! that a crash could still lose.
//!
//! A tree need not be in memory as a whole: [`KeyTree::open_bare`] begins with the crown, and what is on the paths of the slots
//! in question is loaded by place (five nodes a slot at most).
//!
//! What it cannot see by itself: a leaf put back to an earlier state of the *same* generation lacks the keys that were inserted
//! since, and reads as an empty slot. Whoever knows that a slot is in use must treat `None` for it as lost, not as shredded.

mod change;
mod node;
mod part;
mod place;
mod reload;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::OnceLock;

use thiserror::Error;

pub use change::{NodeWrite, ReloadFault, ReplacedNode, SealedGeneration, check_reload};
pub use node::{NODE_FORMAT, NodeKind, SEED_LEAF_KIND, node_mark};
pub use place::{BadSlotNumber, COHORT_SLOTS, DEPTH, FAN_OUT, NodeId, NodePlace, SLOTS, Slot, Subtree, places};
pub use reload::{check_change, check_kept};

use super::suite::SealError;
use super::{Generation, InstallationId, Key};
use crate::random::{Random, RandomUnavailable};
use node::{Entries, Entry, LeafKeys, Unreadable};
use part::Reach;

/// Sealed nodes, as the control database gave them.
pub type NodeSet = HashMap<NodeId, Vec<u8>>;

/// What can go wrong with the tree.
#[derive(Debug, Error)]
pub enum KeyTreeError {
    /// The root key does not open the crown: not this generation's root, or the crown was changed.
    #[error("the crown of generation {generation} does not open with the root key of that generation")]
    CrownDoesNotOpen {
        /// The generation that was expected.
        generation: Generation,
    },
    /// A node that its parent names is not there. The keys below it are lost, not shredded.
    #[error("the key node {node} is missing, although its parent names it")]
    Missing {
        /// The node.
        node: NodeId,
    },
    /// The node's place was not loaded: a fault of the program, which says nothing about the node.
    #[error("the key node at {place} was not loaded before it was used; this is a fault of the program")]
    NotLoaded {
        /// The place.
        place: NodePlace,
    },
    /// A node is there but was changed, cut short or put there from another place or time.
    #[error("the key node {node} does not open: it was changed or does not belong there")]
    Corrupt {
        /// The node.
        node: NodeId,
    },
    /// A node or crown was written by a newer version of the program.
    #[error("the key tree was written by a newer version of the program")]
    Newer,
    /// The slot holds a key already; slots are never used twice.
    #[error("a slot in the key node at {place} is taken already")]
    Occupied {
        /// The node that holds the slot.
        place: NodePlace,
    },
    /// The same slot was named twice in one change.
    #[error("a slot in the key node at {place} was named twice in one change")]
    NamedTwice {
        /// The node that holds the slot.
        place: NodePlace,
    },
    /// Every number of the cohort is taken.
    #[error("cohort {cohort} has no free slot number")]
    CohortFull {
        /// The cohort.
        cohort: u32,
    },
    /// The number of generations is exhausted.
    #[error("there is no generation after this one")]
    NoNextGeneration,
    /// The cipher refused a node.
    #[error("a key node could not be sealed")]
    Cipher(#[source] SealError),
    /// No randomness.
    #[error("no randomness for new keys")]
    Random(#[from] RandomUnavailable),
}

impl KeyTreeError {
    /// Whether the same call may succeed later, with nothing else done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Random(_))
    }

    /// Whether stored key material is missing or damaged: what hangs on it is `lost` or `corrupt`, never `shredded`.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::CrownDoesNotOpen { .. } | Self::Missing { .. } | Self::Corrupt { .. } | Self::Newer)
    }
}

type Result<T, E = KeyTreeError> = std::result::Result<T, E>;

/// A sealed node, opened at its first use and kept open then.
struct Stored {
    sealed: Vec<u8>,
    opened: OnceLock<Entries>,
}

/// The key tree of one generation, as far as its nodes were supplied.
pub struct KeyTree {
    installation: InstallationId,
    generation: Generation,
    crown: Entries,
    nodes: HashMap<NodeId, Stored>,
    reach: Reach,
}

/// What a walk over everything supplied found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Taken slots per subtree, in the order of [`Subtree::ALL`].
    pub taken: [u64; 5],
    /// Nodes that opened.
    pub opened: Vec<NodeId>,
    /// Nodes that a parent names and that were not supplied.
    pub missing: Vec<NodeId>,
    /// Nodes that do not open.
    pub corrupt: Vec<NodeId>,
    /// Supplied nodes that no parent names: left over from earlier generations or from a change that was never committed.
    pub orphans: Vec<NodeId>,
}

impl KeyTree {
    /// Opens the tree of a generation. Nodes are opened when they are first used.
    ///
    /// # Errors
    /// [`KeyTreeError::CrownDoesNotOpen`], [`KeyTreeError::Newer`].
    pub fn open(
        installation: InstallationId,
        generation: Generation,
        root: &Key,
        crown: &[u8],
        nodes: NodeSet,
    ) -> Result<Self> {
        let context = node::crown_context(&installation, generation);
        let crown = node::open_entries(NodeKind::Crown, root, &context, crown).map_err(|fault| match fault {
            Unreadable::Newer => KeyTreeError::Newer,
            Unreadable::Corrupt => KeyTreeError::CrownDoesNotOpen { generation },
        })?;
        let complete = crown.iter().enumerate().all(|(at, entry)| entry.is_some() == (at < Subtree::ALL.len()));
        if !complete {
            return Err(KeyTreeError::CrownDoesNotOpen { generation });
        }
        let mut tree = Self { installation, generation, crown, nodes: HashMap::new(), reach: Reach::Whole };
        tree.supply(nodes);
        Ok(tree)
    }

    /// The generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Adds nodes that were loaded or just stored; a node that was there already is replaced.
    pub fn supply(&mut self, nodes: impl IntoIterator<Item = (NodeId, Vec<u8>)>) {
        let stored = nodes.into_iter().map(|(id, sealed)| (id, Stored { sealed, opened: OnceLock::new() }));
        self.nodes.extend(stored);
    }

    /// The key in a slot; `None` when the slot is empty, be it shredded or never used.
    ///
    /// # Errors
    /// [`KeyTreeError::Missing`], [`KeyTreeError::Corrupt`] or [`KeyTreeError::Newer`] when a node on the way is not as its
    /// parent says, [`KeyTreeError::NotLoaded`] when it was not asked for. None of them is ever to be read as shredded.
    pub fn key(&self, slot: Slot) -> Result<Option<&Key>> {
        let mut entry = self.crown_entry(slot.subtree())?;
        for place in slot.path() {
            let entries = self.entries(place.at(entry.version), &entry.key)?;
            match &entries[slot.position_at(place.level)] {
                Some(child) => entry = child,
                None => return Ok(None),
            }
        }
        Ok(Some(&entry.key))
    }

    /// Draws free slot numbers for a cohort, `count` of them or as many as are left: random ones of the cohort's 4096, never 0, none twice.
    /// Numbers are never used again, so `taken` must also know those whose keys were shredded.
    ///
    /// # Errors
    /// [`KeyTreeError::CohortFull`] when none is free or the cohort lies beyond the last slot; [`KeyTreeError::Random`].
    pub fn allocate(cohort: u32, taken: &dyn Fn(u32) -> bool, count: usize, random: &dyn Random) -> Result<Vec<u32>> {
        let full = KeyTreeError::CohortFull { cohort };
        let Some(first) = cohort.checked_mul(COHORT_SLOTS).filter(|first| *first < SLOTS) else {
            return Err(full);
        };
        let mut free: Vec<u32> =
            (first..first + COHORT_SLOTS).filter(|number| *number != 0 && !taken(*number)).collect();
        if free.is_empty() {
            return Err(full);
        }
        let count = count.min(free.len());
        // 64 random bits for at most 4096 choices each: the bias is below 2^-52.
        let mut bits = vec![0; 8 * count];
        random.fill(&mut bits)?;
        for (at, bits) in bits.chunks_exact(8).enumerate() {
            let number = bits.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
            let other = at + (number % (free.len() - at) as u64) as usize;
            free.swap(at, other);
        }
        free.truncate(count);
        Ok(free)
    }

    /// Walks everything that was supplied, opening each node. In a tree that was loaded in part, whatever was not loaded counts as
    /// missing.
    #[must_use]
    pub fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        for subtree in Subtree::ALL {
            if let Some(entry) = &self.crown[subtree.position()] {
                self.survey_below(NodePlace::root_of(subtree), entry, &mut survey);
            }
        }
        let opened: std::collections::HashSet<NodeId> = survey.opened.iter().chain(&survey.corrupt).copied().collect();
        survey.orphans = self.nodes.keys().filter(|id| !opened.contains(id)).copied().collect();
        survey.orphans.sort_unstable();
        survey
    }

    fn survey_below(&self, place: NodePlace, entry: &Entry, survey: &mut Survey) {
        let id = place.at(entry.version);
        let result = if place.is_leaf() {
            self.leaf(id, &entry.key).map(|keys| survey.taken[place.subtree.position()] += keys.count())
        } else {
            self.entries(id, &entry.key).map(|entries| {
                for (position, child) in entries.iter().enumerate() {
                    if let Some(child) = child {
                        self.survey_below(place.child(position), child, survey);
                    }
                }
            })
        };
        match result {
            Ok(()) => survey.opened.push(id),
            Err(KeyTreeError::Missing { .. } | KeyTreeError::NotLoaded { .. }) => survey.missing.push(id),
            Err(_) => survey.corrupt.push(id),
        }
    }

    /// The keys of a leaf, opened afresh and not kept: a walk over everything would bring all keys there are into memory.
    fn leaf(&self, id: NodeId, key: &Key) -> Result<LeafKeys> {
        let stored = self.nodes.get(&id).ok_or_else(|| self.absent(id))?;
        let context = node::node_context(NodeKind::Leaf, &self.installation, id);
        LeafKeys::open(key, &context, &stored.sealed).map_err(|fault| unreadable(fault, id))
    }

    fn crown_entry(&self, subtree: Subtree) -> Result<&Entry> {
        self.crown[subtree.position()].as_ref().ok_or(KeyTreeError::CrownDoesNotOpen { generation: self.generation })
    }

    fn mark(&self, id: NodeId) -> Option<[u8; 12]> {
        node_mark(&self.nodes.get(&id)?.sealed)
    }

    fn entries(&self, id: NodeId, key: &Key) -> Result<&Entries> {
        let stored = self.nodes.get(&id).ok_or_else(|| self.absent(id))?;
        if let Some(entries) = stored.opened.get() {
            return Ok(entries);
        }
        let kind = if id.place.is_leaf() { NodeKind::Leaf } else { NodeKind::Inner };
        let context = node::node_context(kind, &self.installation, id);
        let entries = node::open_entries(kind, key, &context, &stored.sealed).map_err(|fault| unreadable(fault, id))?;
        Ok(stored.opened.get_or_init(|| entries))
    }
}

fn unreadable(fault: Unreadable, node: NodeId) -> KeyTreeError {
    match fault {
        Unreadable::Newer => KeyTreeError::Newer,
        Unreadable::Corrupt => KeyTreeError::Corrupt { node },
    }
}
