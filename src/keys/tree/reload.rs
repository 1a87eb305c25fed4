//! What must hold between a generation and the one before it, so that the root of the earlier one may be destroyed.
//!
//! [`check_kept`] goes down wherever the two trees name different nodes, and nowhere else: everything that is not on such a path
//! hangs on the very same nodes in both, so the old root could not give it back if it were damaged, and keeping that root would
//! save nothing. On such a path every key of the old tree must be found again, under the same key and version, unless its slot
//! was to be shredded. Keys may have come since: by pins, and by insertions behind the commit.
//!
//! [`check_change`] asks besides that every node on the paths of the changed slots has a key of the new generation: only then
//! is the destruction of the old root worth anything.

use std::collections::HashSet;

use super::change::ReloadFault;
use super::node::{Entries, Entry, LeafKeys};
use super::{KeyTree, NodePlace, Slot, Subtree};

type Checked = std::result::Result<(), ReloadFault>;

/// Compares a reloaded generation with the one before, from which it was made by shredding and putting exactly these slots. Of
/// either tree the paths of these slots must be loaded.
///
/// # Errors
/// The first [`ReloadFault`]. The old root key must not be destroyed then.
pub fn check_change(old: &KeyTree, new: &KeyTree, shredded: &[Slot], put: &[Slot]) -> Checked {
    let died: HashSet<Slot> = shredded.iter().copied().collect();
    Walk { old, new, died: &died }.all()?;
    let mut changed = [shredded, put].concat();
    changed.sort_unstable();
    for group in changed.chunk_by(|a, b| a.subtree() == b.subtree()) {
        let subtree = group[0].subtree();
        renewed(new, NodePlace::root_of(subtree), new.crown_entry(subtree)?, group, &died)?;
    }
    Ok(())
}

/// Compares a reloaded generation with the one before: nothing but the slots that may have been shredded is missing.
///
/// # Errors
/// The first [`ReloadFault`].
pub fn check_kept(old: &KeyTree, new: &KeyTree, shredded: &[Slot]) -> Checked {
    let died: HashSet<Slot> = shredded.iter().copied().collect();
    Walk { old, new, died: &died }.all()
}

struct Walk<'w> {
    old: &'w KeyTree,
    new: &'w KeyTree,
    died: &'w HashSet<Slot>,
}

fn is_same(old: &Entry, new: &Entry) -> bool {
    old.version == new.version && old.key.is_same(&new.key)
}

impl Walk<'_> {
    fn all(&self) -> Checked {
        for subtree in Subtree::ALL {
            let (old, new) = (self.old.crown_entry(subtree)?, self.new.crown_entry(subtree)?);
            self.below(NodePlace::root_of(subtree), old, Some(new))?;
        }
        Ok(())
    }

    /// What the old tree has here must be below the new entry. What only the new one has came since, and is not looked into.
    fn below(&self, place: NodePlace, old: &Entry, new: Option<&Entry>) -> Checked {
        if new.is_some_and(|new| is_same(old, new)) {
            return Ok(());
        }
        if new.is_some_and(|new| new.version != self.new.generation() || new.key.is_same(&old.key)) {
            return Err(ReloadFault::NotRenewed { place });
        }
        let before = self.old.entries(place.at(old.version), &old.key)?;
        if place.is_leaf() {
            let after = new.map(|entry| self.new.leaf(place.at(entry.version), &entry.key)).transpose()?;
            return self.slots(place, before, after.as_ref());
        }
        let after = new.map(|entry| self.new.entries(place.at(entry.version), &entry.key)).transpose()?;
        for (position, old) in before.iter().enumerate() {
            let Some(old) = old else { continue };
            self.below(place.child(position), old, after.and_then(|entries| entries[position].as_ref()))?;
        }
        Ok(())
    }

    fn slots(&self, place: NodePlace, before: &Entries, after: Option<&LeafKeys>) -> Checked {
        for (position, old) in before.iter().enumerate() {
            let Some(old) = old else { continue };
            let is_kept = match after.and_then(|keys| keys.get(position)) {
                Some(found) => old.key.has_bytes(found),
                None => place.slot(position).is_some_and(|slot| self.died.contains(&slot)),
            };
            if !is_kept {
                return Err(ReloadFault::SurvivorLost { subtree: place.subtree });
            }
        }
        Ok(())
    }
}

/// Every node on the paths of these slots has a key of this generation; those that died are empty, the others hold a key.
fn renewed(new: &KeyTree, place: NodePlace, entry: &Entry, changed: &[Slot], died: &HashSet<Slot>) -> Checked {
    if entry.version != new.generation() {
        return Err(ReloadFault::NotRenewed { place });
    }
    if place.is_leaf() {
        let keys = new.leaf(place.at(entry.version), &entry.key)?;
        for slot in changed {
            match keys.get(slot.position_at(place.level)) {
                Some(_) if died.contains(slot) => return Err(ReloadFault::StillOpens { subtree: place.subtree }),
                None if !died.contains(slot) => return Err(ReloadFault::SurvivorLost { subtree: place.subtree }),
                _ => {}
            }
        }
        return Ok(());
    }
    let entries = new.entries(place.at(entry.version), &entry.key)?;
    for group in changed.chunk_by(|a, b| a.position_at(place.level) == b.position_at(place.level)) {
        let position = group[0].position_at(place.level);
        match &entries[position] {
            Some(child) => renewed(new, place.child(position), child, group, died)?,
            None if group.iter().any(|slot| !died.contains(slot)) => {
                return Err(ReloadFault::SurvivorLost { subtree: place.subtree });
            }
            None => {}
        }
    }
    Ok(())
}
