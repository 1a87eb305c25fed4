//! What must be true of a new generation before the root of the one before is destroyed.

use std::collections::HashSet;

use super::{KeyringError, Result, cell_secret_in};
use crate::control::{CellRow, SlotTable, Tx};
use crate::keys::tree::{KeyTree, KeyTreeError, NodeId, ReloadFault, Slot, Subtree, Survey, check_reload};

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

fn subtree(table: SlotTable) -> Subtree {
    match table {
        SlotTable::Subject => Subtree::Subjects,
        SlotTable::Bucket => Subtree::Buckets,
        SlotTable::Chain => Subtree::Chains,
        SlotTable::Pin => Subtree::Pins,
        SlotTable::Work => Subtree::Work,
    }
}

/// A sample of the slots that must survive, of those that `old` holds: others were lost, or came, at another time.
pub(super) async fn survivors(tx: &mut Tx, old: &KeyTree, victims: &[Slot]) -> Result<Vec<Slot>> {
    let dying: HashSet<(u8, u32)> = victims.iter().map(|slot| (slot.subtree().number(), slot.number())).collect();
    let mut found = Vec::new();
    for table in SlotTable::ALL {
        for number in tx.sample_slots(table, CANARIES, old.generation()).await? {
            let slot = Slot::new(subtree(table), number)?;
            if !dying.contains(&(slot.subtree().number(), number)) && matches!(old.key(slot), Ok(Some(_))) {
                found.push(slot);
            }
        }
    }
    Ok(found)
}

/// What must hold for a generation change that is committed already, from the control database alone.
pub(super) async fn expected(tx: &mut Tx, old: &KeyTree) -> Result<Expected> {
    let mut victims = Vec::new();
    for table in SlotTable::ALL {
        for number in tx.destroyed_slots(table).await? {
            victims.push(Slot::new(subtree(table), number)?);
        }
    }
    let survivors = survivors(tx, old, &victims).await?;
    Ok(Expected { victims, survivors, pins: tx.filled_pins().await? })
}

/// Compares the reloaded generation with the one before.
///
/// # Errors
/// [`KeyringError::Reload`]: the old root must be kept.
pub(super) fn compare(old: &KeyTree, new: &KeyTree, expected: &Expected) -> Result<()> {
    check_reload(old, new, &expected.victims, &expected.survivors)?;
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
