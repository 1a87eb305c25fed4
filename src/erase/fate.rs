//! After absence is read back: which keys must die, and which cells must outlive them (rules of dying 1 and 3).
//!
//! A request's subject loses its slot, so that later snapshots know it as a stranger; a retention run marks the buckets
//! whose whole period is due. Rows that stay are pinned by cell: *preserving*, when nothing of the cell went, so that old
//! frames stay readable; *fresh* otherwise, so that the cell can die with what was erased from it.

use std::collections::{BTreeMap, HashMap};

use super::batch::RunKeys;
use super::chunk::open_items;
use super::planner::subject_lookup;
use super::survey::{OPEN, Target};
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

/// Marks the keys of a verified run for destruction and pins what stays. Idempotent: what is marked already stays so.
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
    match target {
        Target::Request(subject) => request_fate(ground, tx, run, keys, subject, staying).await,
        Target::Retention => retention_fate(ground, tx, run, staying).await,
    }
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
    ground: &Ground<'_>,
    tx: &mut Tx,
    run: &RunRow,
    keys: &RunKeys,
    subject: &Subject,
    mut staying: StayingCells,
) -> Result<(), EraseError> {
    let lookup = subject_lookup(&keys.lookup, subject);
    let slot = tx.tombstone_subject(&lookup, &run.id).await?;
    let cells = match slot {
        Some(slot) => tx.cells_under(Some(slot), None).await?,
        None => Vec::new(),
    };
    let mut by_bucket: HashMap<BucketName, CellRow> = HashMap::new();
    for cell in cells {
        if let Some((name, _)) = tx.bucket_name(cell.bucket).await? {
            // Rows in a store that could not be reached were not erased: they stay, for that reason.
            if ground.skipped.iter().any(|(store, _)| *store == name.store) {
                let entry = staying.entry((lookup.to_vec(), name.clone())).or_default();
                entry.reason = "failed".to_owned();
            }
            by_bucket.insert(name, cell);
        }
    }
    for ((lookup, bucket), stay) in staying {
        let cell = by_bucket.get(&bucket).copied();
        pin(ground, tx, run, (&lookup, &bucket), cell, &stay).await?;
    }
    Ok(())
}

async fn retention_fate(
    ground: &Ground<'_>,
    tx: &mut Tx,
    run: &RunRow,
    staying: StayingCells,
) -> Result<(), EraseError> {
    let cutoff = {
        let plan = tx.plan(run.plan.as_deref().unwrap_or_default()).await?;
        plan.ok_or_else(|| EraseError::Inconsistent("the run has no plan".to_owned()))?.cutoff
    };
    let mut dying = Vec::new();
    for site in ground.sites {
        let spec = &site.model.spec;
        let mut policies: Vec<&crate::policy::registry::Policy> = Vec::new();
        for governed in site.model.collections.iter().filter_map(|collection| collection.governed.as_ref()) {
            if !policies.iter().any(|known| known.id == governed.policy.id) {
                policies.push(&governed.policy);
            }
        }
        for policy in policies {
            for (slot, name) in tx.active_buckets(&spec.name, &policy.id).await? {
                if name.period == OPEN {
                    continue;
                }
                let Ok(period) = name.period.parse::<BucketPeriod>() else { continue };
                let statutes = statute::find_all(&policy.statutes)?;
                if bucket_due_with(period, policy.retention, &statutes, spec.timezone)? <= Earliest::At(cutoff) {
                    dying.push((slot, name));
                }
            }
        }
    }
    let mut staying: BTreeMap<BucketName, Vec<(Vec<u8>, Staying)>> =
        staying.into_iter().fold(BTreeMap::new(), |mut by_bucket, ((lookup, bucket), stay)| {
            by_bucket.entry(bucket).or_insert_with(Vec::new).push((lookup, stay));
            by_bucket
        });
    for (slot, name) in dying {
        let owners = staying.remove(&name).unwrap_or_default();
        for (lookup, stay) in owners {
            let cell = cell_of(tx, &lookup, slot).await?;
            pin(ground, tx, run, (&lookup, &name), cell, &stay).await?;
        }
        tx.mark_bucket_dying(slot, &run.id).await?;
    }
    Ok(())
}

/// The living cell of a subject in a bucket slot.
async fn cell_of(tx: &mut Tx, lookup: &[u8], bucket: u32) -> Result<Option<CellRow>, EraseError> {
    let subject = match <[u8; 32]>::try_from(lookup) {
        Ok(digest) => tx.subject_slots(&[digest]).await?.get(&digest).copied(),
        Err(_) => None,
    };
    Ok(tx.cells_under(None, Some(bucket)).await?.into_iter().find(|cell| cell.subject == subject))
}

/// Pins the rows of a subject that stay in a bucket.
async fn pin(
    ground: &Ground<'_>,
    tx: &mut Tx,
    run: &RunRow,
    (lookup, bucket): (&[u8], &BucketName),
    cell: Option<CellRow>,
    stay: &Staying,
) -> Result<(), EraseError> {
    if tx.pinned_cells().await?.contains_key(&(lookup.to_vec(), bucket.text())) && !stay.new_version {
        return Ok(());
    }
    let slot = ground.keyring.free_numbers(tx, SlotTable::Pin, 1).await?[0];
    let preserving = match cell {
        Some(cell) if !stay.new_version => !tx.cell_lost_rows(cell.id).await?,
        _ => false,
    };
    let (kind, cell) = match (preserving, cell) {
        (true, Some(cell)) => (PinKind::Preserving, cell),
        (_, cell) => {
            let key = Key::make(ground.random)?;
            ground
                .keyring
                .insert(tx, &[(Slot::new(Subtree::Pins, slot).map_err(crate::keyring::KeyringError::from)?, key)])
                .await?;
            let number = match cell {
                Some(cell) => cell.bucket,
                None => tx.bucket_slot(bucket).await?.unwrap_or(0),
            };
            (PinKind::Fresh, tx.add_cell(None, number, Some(slot)).await?)
        }
    };
    let row = PinRow { slot, cell: cell.id, kind, reason: stay.reason.clone(), rows: stay.rows, run: run.id.clone() };
    tx.add_pin(&row, lookup, bucket).await?;
    Ok(())
}
