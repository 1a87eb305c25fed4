//! Which cells rows are sealed in: slots that there are, or new ones.

use std::collections::{HashMap, HashSet};

use super::CellName;
use crate::control::{BucketName, CellRow, SlotTable, Tx};
use crate::erase::Ground;
use crate::keyring::KeyringError;
use crate::keys::Key;
use crate::keys::tree::{Slot, Subtree};
use crate::tasks::{Result, TaskError};

/// Finds or makes the cells of these names: pinned cells first, then subject and bucket slots, new ones where missing.
pub(super) async fn resolve_cells<'n>(
    ground: &Ground<'_>,
    tx: &mut Tx,
    pinned: &HashMap<(Vec<u8>, String), i64>,
    names: impl Iterator<Item = &'n CellName>,
) -> Result<HashMap<CellName, CellRow>> {
    let mut cells = HashMap::new();
    let mut open: Vec<&CellName> = Vec::new();
    for name in names {
        let pin = if pinned.is_empty() { None } else { pinned.get(&(name.0.clone(), name.1.text())) };
        match pin {
            Some(id) => {
                let cell = tx.living_cell(*id).await?;
                cells.insert(
                    name.clone(),
                    cell.ok_or_else(|| TaskError::Inconsistent("a pinned cell is missing".to_owned()))?,
                );
            }
            None => open.push(name),
        }
    }
    let subjects = resolve_subjects(ground, tx, &open).await?;
    let buckets = resolve_buckets(ground, tx, &open).await?;
    let mut wanted = Vec::with_capacity(open.len());
    for name in &open {
        let bucket =
            *buckets.get(&name.1).ok_or_else(|| TaskError::Inconsistent("a bucket was not resolved".to_owned()))?;
        wanted.push((subjects.get(&name.0).copied(), bucket));
    }
    let found = tx.cells(&wanted).await?;
    for (name, slots) in open.into_iter().zip(&wanted) {
        let cell = found.get(slots).ok_or_else(|| TaskError::Inconsistent("a cell was not made".to_owned()))?;
        cells.insert(name.clone(), *cell);
    }
    Ok(cells)
}

async fn resolve_subjects(ground: &Ground<'_>, tx: &mut Tx, names: &[&CellName]) -> Result<HashMap<Vec<u8>, u32>> {
    let digests: HashSet<[u8; 32]> =
        names.iter().filter_map(|(lookup, _)| <[u8; 32]>::try_from(lookup.as_slice()).ok()).collect();
    let digests: Vec<[u8; 32]> = digests.into_iter().collect();
    let mut slots = tx.subject_slots(&digests).await?;
    let missing: Vec<[u8; 32]> = digests.into_iter().filter(|digest| !slots.contains_key(digest)).collect();
    let numbers = ground.keyring.free_numbers(tx, SlotTable::Subject, missing.len()).await?;
    let (mut keys, mut subjects) = (Vec::new(), Vec::new());
    for (digest, number) in missing.into_iter().zip(numbers) {
        keys.push((Slot::new(Subtree::Subjects, number).map_err(KeyringError::from)?, Key::make(ground.random)?));
        subjects.push((number, digest));
        slots.insert(digest, number);
    }
    tx.add_subjects(&subjects).await?;
    if !keys.is_empty() {
        ground.keyring.insert(tx, &keys).await?;
    }
    Ok(slots.into_iter().map(|(digest, slot)| (digest.to_vec(), slot)).collect())
}

async fn resolve_buckets(ground: &Ground<'_>, tx: &mut Tx, names: &[&CellName]) -> Result<HashMap<BucketName, u32>> {
    let wanted: HashSet<&BucketName> = names.iter().map(|(_, bucket)| bucket).collect();
    let mut slots = HashMap::new();
    let mut missing = Vec::new();
    for name in wanted {
        match tx.bucket_slot(name).await? {
            Some(slot) => {
                slots.insert(name.clone(), slot);
            }
            None => missing.push(name),
        }
    }
    let numbers = ground.keyring.free_numbers(tx, SlotTable::Bucket, missing.len()).await?;
    let mut keys = Vec::new();
    for (name, number) in missing.into_iter().zip(numbers) {
        keys.push((Slot::new(Subtree::Buckets, number).map_err(KeyringError::from)?, Key::make(ground.random)?));
        tx.add_bucket(number, name).await?;
        slots.insert(name.clone(), number);
    }
    if !keys.is_empty() {
        ground.keyring.insert(tx, &keys).await?;
    }
    Ok(slots)
}
