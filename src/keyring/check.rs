//! What must be true of a new generation before the root of the one before is destroyed.
//!
//! A change is checked on what it concerns (`compare_change`): the nodes on the paths of the slots that die and of the pins that
//! come, and a sample of survivors from the whole tree. On those paths every key of the old generation is looked for in the
//! new one, sibling by sibling, and every node must have a new key. All other nodes are the same stored rows for both
//! generations, under the same keys: should one be damaged, the old root could not give it back either. Whether any is, and
//! whether nodes are left over, `key verify` finds out by opening all of them. A change that was interrupted behind its commit
//! is checked on the whole tree (`compare_since`, `refuse_new_damage`), since what it was to do is not remembered.

use std::collections::HashSet;

use super::{KeyringError, Result, cell_secret_in, slots_of_cells};
use crate::control::{CellRow, SlotTable, Tx};
use crate::keys::tree::{
    KeyTree, KeyTreeError, NodeId, ReloadFault, Slot, Subtree, Survey, check_change, check_kept, check_reload,
};

/// Survivors of each subtree that are opened in the reloaded generation.
const CANARIES: u32 = 64;

/// What is compared between two generations.
pub(super) struct Expected {
    /// Slots that must be empty in the new one.
    pub(super) victims: Vec<Slot>,
    /// Slots that must hold the same key in both.
    pub(super) survivors: Vec<Slot>,
    /// Pins that must hold the secret of their cell.
    pub(super) pins: Vec<(u32, CellRow)>,
}

impl Expected {
    fn put(&self) -> Result<Vec<Slot>> {
        self.pins.iter().map(|(pin, _)| Ok(Slot::new(Subtree::Pins, *pin)?)).collect()
    }

    /// The slots on whose paths nodes are replaced.
    pub(super) fn changed(&self) -> Result<Vec<Slot>> {
        Ok([self.victims.clone(), self.put()?].concat())
    }

    /// All slots that the comparison looks at, in either generation.
    pub(super) fn concerned(&self) -> Result<Vec<Slot>> {
        let cells: Vec<CellRow> = self.pins.iter().map(|(_, cell)| CellRow { pin: None, ..*cell }).collect();
        Ok([self.changed()?, self.survivors.clone(), slots_of_cells(&cells)].concat())
    }
}

fn subtree(table: SlotTable) -> Subtree {
    match table {
        SlotTable::Subject => Subtree::Subjects,
        SlotTable::Bucket => Subtree::Buckets,
        SlotTable::Chain => Subtree::Chains,
        SlotTable::Pin => Subtree::Pins,
        SlotTable::Work => Subtree::Work,
    }
}

/// A sample of the slots in use that are not among the victims.
pub(super) async fn canaries(tx: &mut Tx, salt: i64, victims: &[Slot]) -> Result<Vec<Slot>> {
    let dying: HashSet<Slot> = victims.iter().copied().collect();
    let mut found = Vec::new();
    for table in SlotTable::ALL {
        for number in tx.sample_slots(table, CANARIES, salt).await? {
            found.push(Slot::new(subtree(table), number)?);
        }
    }
    found.retain(|slot| !dying.contains(slot));
    Ok(found)
}

/// Those that the tree before holds: others were lost, or came, at another time.
pub(super) fn retain_held(old: &KeyTree, canaries: &mut Vec<Slot>) {
    canaries.retain(|slot| matches!(old.key(*slot), Ok(Some(_))));
}

/// What must hold for a generation change that is committed already, from the control database alone.
pub(super) async fn expected(tx: &mut Tx, old: &KeyTree) -> Result<Expected> {
    let mut victims = Vec::new();
    for table in SlotTable::ALL {
        for number in tx.destroyed_slots(table).await? {
            victims.push(Slot::new(subtree(table), number)?);
        }
    }
    let mut survivors = canaries(tx, old.generation(), &victims).await?;
    retain_held(old, &mut survivors);
    Ok(Expected { victims, survivors, pins: tx.filled_pins().await? })
}

/// Compares the reloaded generation with the one before, from which it was made by exactly this change.
///
/// # Errors
/// [`KeyringError::Reload`]: the old root must be kept.
pub(super) fn compare_change(old: &KeyTree, new: &KeyTree, expected: &Expected) -> Result<()> {
    check_change(old, new, &expected.victims, &expected.put()?)?;
    compare_samples(old, new, expected)
}

/// Compares the generation in force with the one before, when the change is known by its traces only: both wholly loaded.
///
/// # Errors
/// [`KeyringError::Reload`]: the old root must be kept.
pub(super) fn compare_since(old: &KeyTree, new: &KeyTree, expected: &Expected) -> Result<()> {
    check_kept(old, new, &expected.victims)?;
    check_reload(old, new, &expected.victims, &[])?;
    compare_samples(old, new, expected)
}

/// Compares survivors and pins.
fn compare_samples(old: &KeyTree, new: &KeyTree, expected: &Expected) -> Result<()> {
    check_reload(old, new, &[], &expected.survivors)?;
    for (number, cell) in &expected.pins {
        let slot = Slot::new(Subtree::Pins, *number)?;
        let wanted = match old.key(slot)? {
            Some(key) => Some(super::copy(key)),
            None => cell_secret_in(old, &CellRow { pin: None, ..*cell })?.map(|secret| secret.to_pin()),
        };
        let same = match (wanted, new.key(slot)?) {
            (Some(wanted), Some(found)) => wanted.is_same(found),
            _ => false,
        };
        if !same {
            return Err(ReloadFault::SurvivorLost { subtree: Subtree::Pins }.into());
        }
    }
    Ok(())
}

/// Nodes that a parent names and that are missing or do not open.
fn damage(survey: Survey) -> Vec<NodeId> {
    survey.missing.into_iter().chain(survey.corrupt).collect()
}

/// Refuses damage that was not there before; without the generation before, any damage.
pub(super) fn refuse_new_damage(old: Option<&KeyTree>, new: &Survey) -> Result<()> {
    let found = damage(new.clone());
    if found.is_empty() {
        return Ok(());
    }
    let before: HashSet<NodeId> = old.map(|tree| damage(tree.survey())).unwrap_or_default().into_iter().collect();
    match found.into_iter().find(|node| !before.contains(node)) {
        Some(node) => Err(KeyringError::Tree(KeyTreeError::Missing { node })),
        None => Ok(()),
    }
}

/// What no crown reaches. Below a damaged node everything looks unreachable; it is kept for whoever repairs the node.
pub(super) fn collectable(survey: Survey) -> Vec<NodeId> {
    if survey.missing.is_empty() && survey.corrupt.is_empty() { survey.orphans } else { Vec::new() }
}
