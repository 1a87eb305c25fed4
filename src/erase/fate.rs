//! After absence is read back: which keys must die, and which cells must outlive them (rules of dying 1 and 3).
//!
//! A request's subject loses its slot, so that later snapshots know it as a stranger; a retention run marks the buckets
//! whose whole period is due. Rows that stay are pinned by cell: *preserving*, when nothing of the cell went, so that old
//! frames stay readable; *fresh* otherwise, so that the cell can die with what was erased from it.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::batch::RunKeys;
use super::chunk::open_items;
use super::planner::subject_lookup;
use super::survey::Target;
use super::{EraseError, Ground};
use crate::control::{BucketName, CellRow, PinKind, PinRow, RunRow, SlotTable, Tx};
use crate::keys::Key;
use crate::keys::tree::{Slot, Subtree};
use crate::plan::Subject;
use crate::plan::model::Collection;
use crate::policy::calendar::BucketPeriod;
use crate::policy::statute::{self, Earliest, bucket_due_with};

/// Rows that stay, by subject digest and bucket.
#[derive(Debug, Default)]
struct Staying {
    /// How many, and the first reason.
    rows: u64,
    reason: String,
    /// Whether any of them is a new version (stripped), which must not share the old version's cell.
    new_version: bool,
}

type StayingCells = BTreeMap<(Vec<u8>, BucketName), Staying>;

/// The bucket that a row of a collection belongs to.
#[must_use]
pub fn bucket_of_row(store: &str, collection: &Collection, period: &str) -> BucketName {
    BucketName {
        store: store.to_owned(),
        collection: collection.table.name.clone(),
        policy: collection.governed.as_ref().map_or_else(|| "-".to_owned(), |governed| governed.policy.id.clone()),
        period: period.to_owned(),
    }
}

/// Marks the keys of a verified run for destruction and pins what stays, all in the caller's transaction.
///
/// # Errors
/// When the control database or the keys fail.
pub async fn seal_fate(
    ground: &Ground<'_>,
    tx: &mut Tx,
    run: &RunRow,
    keys: &RunKeys,
    target: &Target,
) -> Result<(), EraseError> {
    let staying = staying_cells(ground, tx, run, keys).await?;
    let mut pins = Pins { ground, run, active: active_pins(tx).await?, added: Vec::new() };
    match target {
        Target::Request(subject) => request_fate(&mut pins, tx, keys, subject, staying).await?,
        Target::Retention => {
            let plan = tx.plan(run.plan.as_deref().unwrap_or_default()).await?;
            let plan = plan.ok_or_else(|| EraseError::Inconsistent("the run has no plan".to_owned()))?;
            retention_fate(&mut pins, tx, plan.cutoff, staying).await?;
        }
    }
    ground.keyring.insert(tx, &pins.added).await?;
    Ok(())
}

/// Whether the whole period of a bucket is due by today's policy. Never for one that no present policy governs.
///
/// # Errors
/// When a policy names an unknown statute or a date lies outside the supported years.
pub fn is_bucket_due(ground: &Ground<'_>, bucket: &BucketName, cutoff: DateTime<Utc>) -> Result<bool, EraseError> {
    let Some(site) = ground.site(&bucket.store) else { return Ok(false) };
    let Some((_, collection)) = site.model.collection(&bucket.collection) else { return Ok(false) };
    let Some(governed) = collection.governed.as_ref().filter(|governed| governed.policy.id == bucket.policy) else {
        return Ok(false);
    };
    let Ok(period) = bucket.period.parse::<BucketPeriod>() else { return Ok(false) };
    let statutes = statute::find_all(&governed.policy.statutes)?;
    let due = bucket_due_with(period, governed.policy.retention, &statutes, site.model.spec.timezone)?;
    Ok(due <= Earliest::At(cutoff))
}

/// Whether a bucket waits for a retention run to mark it, even if no row is due any more.
///
/// # Errors
/// As [`is_bucket_due`], and when the control database fails.
pub async fn has_due_buckets(ground: &Ground<'_>, tx: &mut Tx) -> Result<bool, EraseError> {
    let cutoff = ground.clock.now();
    for (_, name) in tx.active_buckets().await? {
        if is_bucket_due(ground, &name, cutoff)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Every planned row that is not gone: kept by the plan, kept at execution, failed, or stripped.
async fn staying_cells(
    ground: &Ground<'_>,
    tx: &mut Tx,
    run: &RunRow,
    keys: &RunKeys,
) -> Result<StayingCells, EraseError> {
    let plan = run.plan.as_deref().unwrap_or_default();
    let mut erased = std::collections::HashSet::new();
    for entry in tx.ledger_of_run(&run.id).await? {
        if entry.kind == crate::control::LedgerKind::Erased {
            erased.insert(entry.row_mac);
        }
    }
    let mut staying = StayingCells::new();
    for chunk in tx.chunks(plan).await? {
        let Some(site) = ground.site(&chunk.store) else { continue };
        let Some((_, collection)) = site.model.collection(&chunk.collection) else { continue };
        for item in open_items(&keys.plan, plan, chunk.number, &chunk.sealed)? {
            let mac = crate::plan::digest::row_mac(&keys.suppression, &chunk.store, &chunk.collection, &item.row.key);
            if chunk.verdict == "erase" && erased.contains(&mac) {
                continue;
            }
            let lookup = item
                .row
                .subject
                .as_ref()
                .map(|subject| subject_lookup(&keys.lookup, subject).to_vec())
                .unwrap_or_default();
            let entry = staying.entry((lookup, bucket_of_row(&chunk.store, collection, &item.row.period))).or_default();
            entry.rows += 1;
            if entry.reason.is_empty() {
                entry.reason = item.reason.unwrap_or_else(|| "failed".to_owned());
            }
            entry.new_version |= chunk.verdict == "strip";
        }
    }
    Ok(staying)
}

async fn request_fate(
    pins: &mut Pins<'_>,
    tx: &mut Tx,
    keys: &RunKeys,
    subject: &Subject,
    mut staying: StayingCells,
) -> Result<(), EraseError> {
    let skipped = |store: &str| pins.ground.skipped.iter().any(|(name, _)| name == store);
    let mut lookups = Vec::new();
    let mut by_bucket: HashMap<BucketName, CellRow> = HashMap::new();
    for form in super::batch::forms_of(pins.ground, subject) {
        let lookup = subject_lookup(&keys.lookup, &form);
        if let Some(slot) = tx.tombstone_subject(&lookup, &pins.run.id).await? {
            for cell in tx.cells_of_subject(slot).await? {
                let Some((name, _)) = tx.bucket_name(cell.bucket).await? else { continue };
                // Rows in a store that could not be reached were not erased: they stay, for that reason.
                if skipped(&name.store) {
                    "failed".clone_into(&mut staying.entry((lookup.to_vec(), name.clone())).or_default().reason);
                }
                by_bucket.insert(name, cell);
            }
        }
        lookups.push(lookup);
    }
    // What an earlier run pinned for this subject goes too, unless its rows stay again.
    for ((lookup, _), pin) in &pins.active {
        let own = lookups.iter().any(|known| known[..] == lookup[..]);
        if own && !skipped(&pin.bucket.store) && !staying.contains_key(&(lookup.clone(), pin.bucket.clone())) {
            tx.mark_pin_dying(pin.slot, &pins.run.id).await?;
        }
    }
    for ((lookup, bucket), stay) in &staying {
        let cell = by_bucket.get(bucket).copied();
        pins.pin(tx, lookup, bucket, cell, stay).await?;
    }
    Ok(())
}

async fn retention_fate(
    pins: &mut Pins<'_>,
    tx: &mut Tx,
    cutoff: DateTime<Utc>,
    staying: StayingCells,
) -> Result<(), EraseError> {
    let mut dying: HashMap<BucketName, u32> = HashMap::new();
    for (slot, name) in tx.active_buckets().await? {
        if is_bucket_due(pins.ground, &name, cutoff)? {
            dying.insert(name, slot);
        }
    }
    for ((lookup, _), pin) in &pins.active {
        let stays = staying.contains_key(&(lookup.clone(), pin.bucket.clone()));
        if !stays && is_bucket_due(pins.ground, &pin.bucket, cutoff)? {
            tx.mark_pin_dying(pin.slot, &pins.run.id).await?;
        }
    }
    for ((lookup, bucket), stay) in &staying {
        let pinned = pins.active.contains_key(&(lookup.clone(), bucket.text()));
        let cell = match dying.get(bucket) {
            Some(slot) => cell_of(tx, lookup, *slot).await?,
            None if pinned => None,
            // The bucket lives on, and its rows with it.
            None => continue,
        };
        pins.pin(tx, lookup, bucket, cell, stay).await?;
    }
    for slot in dying.values() {
        tx.mark_bucket_dying(*slot, &pins.run.id).await?;
    }
    Ok(())
}

/// The living cell of a subject in a bucket slot.
async fn cell_of(tx: &mut Tx, lookup: &[u8], bucket: u32) -> Result<Option<CellRow>, EraseError> {
    let Ok(digest) = <[u8; 32]>::try_from(lookup) else { return Ok(tx.find_cell(None, bucket).await?) };
    match tx.subject_slots(&[digest]).await?.get(&digest) {
        Some(slot) => Ok(tx.find_cell(Some(*slot), bucket).await?),
        None => Ok(None),
    }
}

async fn active_pins(tx: &mut Tx) -> Result<HashMap<(Vec<u8>, String), PinRow>, EraseError> {
    let pins = tx.pins().await?;
    Ok(pins.into_iter().map(|pin| ((pin.lookup.clone(), pin.bucket.text()), pin)).collect())
}

/// The pins of a run in the making.
struct Pins<'a> {
    ground: &'a Ground<'a>,
    run: &'a RunRow,
    active: HashMap<(Vec<u8>, String), PinRow>,
    added: Vec<(Slot, Key)>,
}

impl Pins<'_> {
    /// Pins the rows of a subject that stay in a bucket. A pin that holds them already stays, unless something else was
    /// erased from its cell or the rows are new versions: then they move to a fresh one, and the old one dies.
    async fn pin(
        &mut self,
        tx: &mut Tx,
        lookup: &[u8],
        bucket: &BucketName,
        cell: Option<CellRow>,
        stay: &Staying,
    ) -> Result<(), EraseError> {
        let mut preserving = None;
        match self.active.get(&(lookup.to_vec(), bucket.text())) {
            Some(pin) if !stay.new_version && !tx.cell_lost_rows(pin.cell).await? => return Ok(()),
            Some(pin) => tx.mark_pin_dying(pin.slot, &self.run.id).await?,
            None => {
                if let Some(cell) = cell.filter(|_| !stay.new_version)
                    && !tx.cell_lost_rows(cell.id).await?
                {
                    preserving = Some(cell);
                }
            }
        }
        let slot = self.ground.keyring.free_numbers(tx, SlotTable::Pin, 1).await?[0];
        let (kind, cell) = if let Some(cell) = preserving {
            (PinKind::Preserving, cell)
        } else {
            let place = Slot::new(Subtree::Pins, slot).map_err(crate::keyring::KeyringError::from)?;
            self.added.push((place, Key::make(self.ground.random)?));
            let number = match cell {
                Some(cell) => cell.bucket,
                None => tx.bucket_slot(bucket).await?.unwrap_or(0),
            };
            (PinKind::Fresh, tx.add_cell(None, number, Some(slot)).await?)
        };
        let row = PinRow {
            slot,
            cell: cell.id,
            lookup: lookup.to_vec(),
            bucket: bucket.clone(),
            kind,
            reason: stay.reason.clone(),
            rows: stay.rows,
            run: self.run.id.clone(),
        };
        tx.add_pin(&row).await?;
        Ok(())
    }
}
