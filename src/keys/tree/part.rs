//! A tree of which only some nodes are in memory: those on the paths of the slots that somebody asks for.
//!
//! A tree knows which places it was given, so "was not loaded" and "is not there" are never confused: the first is an error of
//! the program, [`KeyTreeError::NotLoaded`], and only the second may be read as an empty slot or as damage.

use std::collections::HashSet;

use super::node::Entry;
use super::{KeyTree, KeyTreeError, NodeId, NodePlace, NodeSet, Result, Slot, places};
use crate::keys::{Generation, InstallationId, Key};

/// The places whose stored nodes a tree has.
pub(super) enum Reach {
    /// All there are.
    Whole,
    /// These.
    Places(HashSet<NodePlace>),
}

impl KeyTree {
    /// Opens the crown of a generation. Nodes come by [`KeyTree::load`]; until then everything below is
    /// [`KeyTreeError::NotLoaded`].
    ///
    /// # Errors
    /// [`KeyTreeError::CrownDoesNotOpen`], [`KeyTreeError::Newer`].
    pub fn open_bare(installation: InstallationId, generation: Generation, root: &Key, crown: &[u8]) -> Result<Self> {
        let mut tree = Self::open(installation, generation, root, crown, NodeSet::new())?;
        tree.reach = Reach::Places(HashSet::new());
        Ok(tree)
    }

    /// The places on the paths of these slots that were not loaded yet, each once.
    #[must_use]
    pub fn unloaded(&self, slots: &[Slot]) -> Vec<NodePlace> {
        match &self.reach {
            Reach::Whole => Vec::new(),
            Reach::Places(known) => places(slots).into_iter().filter(|place| !known.contains(place)).collect(),
        }
    }

    /// Takes all stored nodes of these places; a place without any holds none.
    pub fn load(&mut self, places: &[NodePlace], nodes: impl IntoIterator<Item = (NodeId, Vec<u8>)>) {
        if let Reach::Places(known) = &mut self.reach {
            known.extend(places);
        }
        self.supply(nodes);
    }

    /// Takes all stored nodes there are.
    pub fn load_all(&mut self, nodes: NodeSet) {
        self.reach = Reach::Whole;
        self.supply(nodes);
    }

    pub(super) fn absent(&self, node: NodeId) -> KeyTreeError {
        match &self.reach {
            Reach::Places(known) if !known.contains(&node.place) => KeyTreeError::NotLoaded { place: node.place },
            _ => KeyTreeError::Missing { node },
        }
    }

    /// The nodes of this tree on the paths of these slots: those that a change of the slots replaces.
    ///
    /// # Errors
    /// Damage on the paths.
    pub fn nodes_on(&self, slots: &[Slot]) -> Result<Vec<NodeId>> {
        let mut sorted = slots.to_vec();
        sorted.sort_unstable();
        let mut found = Vec::new();
        for group in sorted.chunk_by(|a, b| a.subtree() == b.subtree()) {
            let subtree = group[0].subtree();
            self.collect_on(NodePlace::root_of(subtree), self.crown_entry(subtree)?, group, &mut found)?;
        }
        Ok(found)
    }

    fn collect_on(&self, place: NodePlace, entry: &Entry, slots: &[Slot], found: &mut Vec<NodeId>) -> Result<()> {
        let id = place.at(entry.version);
        let entries = self.entries(id, &entry.key)?;
        found.push(id);
        if place.is_leaf() {
            return Ok(());
        }
        for group in slots.chunk_by(|a, b| a.position_at(place.level) == b.position_at(place.level)) {
            let position = group[0].position_at(place.level);
            if let Some(child) = &entries[position] {
                self.collect_on(place.child(position), child, group, found)?;
            }
        }
        Ok(())
    }
}
