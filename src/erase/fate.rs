//! After absence is read back: which keys must die, and which cells must outlive them (rules of dying 1 and 3).
//!
//! A request's subject loses its slot, so that later snapshots know it as a stranger; a retention run marks the buckets
//! whose whole period is due. Rows that stay are pinned by cell: *preserving*, when nothing of the cell went, so that old
//! frames stay readable; *fresh* otherwise, so that the cell can die with what was erased from it.

pub mod rules;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};

use super::batch::RunKeys;
use super::chunk::open_items;
use super::planner::subject_lookup;
use super::survey::Target;
use super::{EraseError, Ground};
use crate::control::{BucketName, CellRow, DyingKeys, LedgerKind, PinKind, PinRow, PlanRow, RunRow, SlotTable, Tx};
use crate::keys::Key;
use crate::keys::tree::{Slot, Subtree};
use crate::plan::model::Collection;
use crate::plan::{CollectionCounts, PlanBody, Reason, Subject};
use crate::policy::calendar::BucketPeriod;
use crate::policy::statute::{Earliest, bucket_due_with};
use rules::{CleanCell, StandingPin, StayingRows, choose_pins};

/// Rows that stay, by subject digest and bucket.
#[derive(Debug, Default)]
struct Staying {
    /// How many, and the first reason.
    rows: u64,
    /// Of them, rows that were anonymised and so do not belong to their subject any more.
    moved: u64,
    reason: String,
    /// Whether any of them is a new version (stripped, or anonymised without a subject before), which must not share the old version's cell.
    new_version: bool,
    /// The cells in which unchanged rows of them were ever sealed, by the sealing history, whatever policy ruled then.
    cells: BTreeSet<i64>,
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
    let plan = tx.plan(run.plan.as_deref().unwrap_or_default()).await?;
    let plan = plan.ok_or_else(|| EraseError::Inconsistent("the run has no plan".to_owned()))?;
    let mut pins = Pins::new(ground, tx, run, &plan, &staying).await?;
    match target {
        Target::Request(subject) => request_fate(&mut pins, tx, keys, subject, staying).await?,
        Target::Retention => retention_fate(&mut pins, tx, plan.cutoff, staying).await?,
    }
    // What this run erased may have been the last that a pin of an earlier one held: the pin dies with this run.
    for slot in tx.spent_pins().await? {
        tx.mark_pin_dying(slot, &run.id).await?;
    }
    ground.keyring.insert(tx, &pins.added).await?;
    Ok(())
}

/// Whether the whole period of a bucket is due by today's policy. Never for one that no present policy governs.
///
/// # Errors
/// When a date lies outside the supported years.
pub fn is_bucket_due(ground: &Ground<'_>, bucket: &BucketName, cutoff: DateTime<Utc>) -> Result<bool, EraseError> {
    let Some(site) = ground.site(&bucket.store) else { return Ok(false) };
    let Some((_, collection)) = site.model.collection(&bucket.collection) else { return Ok(false) };
    let Some(governed) = collection.governed.as_ref().filter(|governed| governed.policy.id == bucket.policy) else {
        return Ok(false);
    };
    let Ok(period) = bucket.period.parse::<BucketPeriod>() else { return Ok(false) };
    let due = bucket_due_with(period, governed.policy.retention, &governed.statutes, site.model.spec.timezone)?;
    Ok(due <= Earliest::At(cutoff))
}

/// Whether a bucket waits for a retention run to mark it, even if no row is due any more by this plan.
///
/// # Errors
/// As [`is_bucket_due`], and when the control database fails.
pub async fn has_due_buckets(ground: &Ground<'_>, tx: &mut Tx, plan: &PlanBody) -> Result<bool, EraseError> {
    let (cutoff, held_back) = (ground.clock.now(), held_back(plan));
    for (_, name) in tx.living_buckets().await? {
        if !held_back.contains(&(name.store.clone(), name.collection.clone())) && is_bucket_due(ground, &name, cutoff)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The collections of a plan in which rows wait because their policy was edited.
fn held_back(plan: &PlanBody) -> BTreeSet<(String, String)> {
    let waits = |counts: &&CollectionCounts| counts.keep.iter().any(|(code, _)| Reason::is_canary(code));
    let own = plan.collections.iter().filter(waits);
    own.map(|counts| (counts.store.clone(), counts.collection.clone())).collect()
}

/// Every planned row that is not gone: kept by the plan, kept at execution, failed, stripped, or anonymised by this run or before.
async fn staying_cells(
    ground: &Ground<'_>,
    tx: &mut Tx,
    run: &RunRow,
    keys: &RunKeys,
) -> Result<StayingCells, EraseError> {
    let plan = run.plan.as_deref().unwrap_or_default();
    let gone = tx.done_by_chunk(&run.id).await?;
    let left = tx.left_by_run(&run.id).await?;
    let mut staying = StayingCells::new();
    for chunk in tx.chunks(plan).await? {
        let site = ground.site(&chunk.store);
        let Some((_, collection)) = site.and_then(|site| site.model.collection(&chunk.collection)) else {
            return Err(EraseError::Refused {
                what: format!("{}.{} cannot be reached, so what stays there is unknown", chunk.store, chunk.collection),
                advice: "see `wangchuan store check`; the run goes on once it can be reached".to_owned(),
            });
        };
        // Where every row is gone, none stays.
        let kind = LedgerKind::of_verdict(&chunk.verdict);
        let gone = if chunk.is_work() { gone.get(&chunk.number).copied().unwrap_or(0) } else { 0 };
        if kind == LedgerKind::Erased && gone == chunk.rows {
            continue;
        }
        let of_chunk = if gone == 0 { HashSet::new() } else { tx.done_in_chunk(&run.id, chunk.number).await? };
        for item in open_items(&keys.plan, plan, chunk.number, &chunk.sealed)? {
            let mac = crate::plan::digest::row_mac(&keys.suppression, &chunk.store, &chunk.collection, &item.row.key);
            let done = of_chunk.contains(&mac).then_some(kind);
            if done == Some(LedgerKind::Erased) {
                continue;
            }
            let before = item
                .row
                .subject
                .as_ref()
                .map(|subject| subject_lookup(&keys.lookup, subject).to_vec())
                .unwrap_or_default();
            let is_anonymised = done == Some(LedgerKind::Anonymised);
            // The new version belongs to whom it leads to now: nobody, or somebody who never was.
            let now = is_anonymised.then(|| left.get(&mac).map(|left| left.lookup.clone()).unwrap_or_default());
            let is_same = now.as_ref().is_none_or(|now| *now == before);
            let lookup = now.unwrap_or(before);
            let entry = staying.entry((lookup, bucket_of_row(&chunk.store, collection, &item.row.period))).or_default();
            entry.rows += 1;
            if entry.reason.is_empty() {
                let reason = if is_anonymised { "anonymised" } else { "failed" };
                entry.reason = item.reason.unwrap_or_else(|| reason.to_owned());
            }
            match done {
                Some(LedgerKind::Stripped) => entry.new_version = true,
                // Of another subject's cells none ever held the old version.
                Some(LedgerKind::Anonymised) => {
                    entry.new_version |= is_same;
                    entry.moved += u64::from(!is_same);
                }
                _ => entry.cells.extend(tx.cells_of_row(&mac).await?),
            }
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
    let mut lookups = Vec::new();
    let mut dying = DyingKeys::default();
    for form in super::batch::forms_of(pins.ground, subject) {
        let lookup = subject_lookup(&keys.lookup, &form);
        for slot in tx.tombstone_subject(&lookup, &pins.run.id).await? {
            dying.subjects.push(slot);
            for cell in tx.cells_of_subject(slot).await? {
                let Some((name, _)) = tx.bucket_name(cell.bucket).await? else { continue };
                // Rows in a store that could not be reached were not erased: they stay, for that reason.
                if pins.skipped.contains(&name.store) {
                    let entry = staying.entry((lookup.to_vec(), name)).or_default();
                    "failed".clone_into(&mut entry.reason);
                    entry.cells.insert(cell.id);
                    pins.need(tx, cell.id).await?;
                }
            }
        }
        lookups.push(lookup);
    }
    // What an earlier run pinned for this subject goes too, unless its rows stay again.
    for pin in pins.active.clone() {
        let own = lookups.iter().any(|known| known[..] == pin.lookup[..]);
        let stays = staying.contains_key(&(pin.lookup.clone(), pin.bucket.clone())) || pins.needed.contains(&pin.cell);
        if own && !stays && !pins.skipped.contains(&pin.bucket.store) {
            tx.mark_pin_dying(pin.slot, &pins.run.id).await?;
        }
    }
    for ((lookup, bucket), stay) in &staying {
        // What was anonymised belongs to nobody whose key dies here.
        let pinned = pins.active.iter().any(|pin| holds(pin, lookup, bucket, stay));
        pins.pin(tx, lookup, bucket, &dying, stay.rows > stay.moved || pinned, stay).await?;
    }
    Ok(())
}

async fn retention_fate(
    pins: &mut Pins<'_>,
    tx: &mut Tx,
    cutoff: DateTime<Utc>,
    staying: StayingCells,
) -> Result<(), EraseError> {
    let mut dying = DyingKeys::default();
    let mut due: HashSet<BucketName> = HashSet::new();
    for (slot, name) in tx.living_buckets().await? {
        // Nothing was erased in a store that the plan or this run could not reach: its buckets wait for another run; and so do those of
        // rows that wait because their policy was edited, for copies of others lie there that nobody has in the store any more.
        if !pins.skipped.contains(&name.store)
            && !pins.is_held_back(&name)
            && is_bucket_due(pins.ground, &name, cutoff)?
        {
            dying.buckets.push(slot);
            due.insert(name);
        }
    }
    for pin in pins.active.clone() {
        let stays = staying.contains_key(&(pin.lookup.clone(), pin.bucket.clone())) || pins.needed.contains(&pin.cell);
        let may_die = !stays && !pins.skipped.contains(&pin.bucket.store) && !pins.is_held_back(&pin.bucket);
        if may_die && is_bucket_due(pins.ground, &pin.bucket, cutoff)? {
            tx.mark_pin_dying(pin.slot, &pins.run.id).await?;
        }
    }
    for ((lookup, bucket), stay) in &staying {
        let pinned = pins.active.iter().any(|pin| holds(pin, lookup, bucket, stay));
        // In a bucket that lives on, rows live with it; only what was sealed in a dying one must be pinned.
        pins.pin(tx, lookup, bucket, &dying, pinned || due.contains(bucket), stay).await?;
    }
    for slot in dying.buckets {
        tx.mark_bucket_dying(slot, &pins.run.id).await?;
    }
    Ok(())
}

/// Whether a pin holds rows that stay: by their subject and bucket, or by a cell in which they were sealed.
fn holds(pin: &PinRow, lookup: &[u8], bucket: &BucketName, stay: &Staying) -> bool {
    pin.lookup == lookup && (pin.bucket == *bucket || stay.cells.contains(&pin.cell))
}

/// The pins of a run in the making.
struct Pins<'a> {
    ground: &'a Ground<'a>,
    run: &'a RunRow,
    /// Active pins of earlier runs, oldest first.
    active: Vec<PinRow>,
    /// Living cells that hold rows which stay, and nothing that was erased: whatever pins them must not die.
    needed: HashSet<i64>,
    /// Stores that the plan or this process could not reach.
    skipped: HashSet<String>,
    /// Collections in which rows wait because their policy was edited.
    held_back: BTreeSet<(String, String)>,
    /// Keys that earlier runs marked and that are not destroyed yet.
    marked: DyingKeys,
    added: Vec<(Slot, Key)>,
}

impl<'a> Pins<'a> {
    async fn new(
        ground: &'a Ground<'a>,
        tx: &mut Tx,
        run: &'a RunRow,
        plan: &PlanRow,
        staying: &StayingCells,
    ) -> Result<Self, EraseError> {
        let body: PlanBody = serde_json::from_str(&plan.body)
            .map_err(|_| EraseError::Inconsistent(format!("plan {} is damaged", plan.id)))?;
        let skipped = body.skipped.iter().chain(ground.skipped).map(|(store, _)| store.clone()).collect();
        let active = tx.pins().await?;
        let pending: Vec<String> =
            tx.runs(Some("shred-pending")).await?.into_iter().map(|earlier| earlier.id).collect();
        let marked = tx.dying_cell_keys(&pending).await?;
        let (held_back, needed, added) = (held_back(&body), HashSet::new(), Vec::new());
        let mut pins = Self { ground, run, active, needed, skipped, held_back, marked, added };
        for cell in staying.values().flat_map(|stay| &stay.cells) {
            pins.need(tx, *cell).await?;
        }
        Ok(pins)
    }

    fn is_held_back(&self, bucket: &BucketName) -> bool {
        self.held_back.contains(&(bucket.store.clone(), bucket.collection.clone()))
    }

    /// Notes that a cell holds rows that stay, unless something was erased from it: then it must die with that.
    async fn need(&mut self, tx: &mut Tx, cell: i64) -> Result<(), EraseError> {
        if !self.needed.contains(&cell) && !tx.cell_lost_rows(cell).await? {
            self.needed.insert(cell);
        }
        Ok(())
    }

    /// Pins the rows of a subject that stay in a bucket as [`choose_pins`] decides. `dying` are the keys that this run lets
    /// die; those that earlier ones marked count as well, since rows may stay in their cells that those runs never saw.
    async fn pin(
        &mut self,
        tx: &mut Tx,
        lookup: &[u8],
        bucket: &BucketName,
        dying: &DyingKeys,
        own_key: bool,
        stay: &Staying,
    ) -> Result<(), EraseError> {
        let (mut standing, mut clean) = (Vec::new(), Vec::new());
        for pin in self.active.iter().filter(|pin| holds(pin, lookup, bucket, stay)) {
            let (is_needed, lost_rows) = (self.needed.contains(&pin.cell), tx.cell_lost_rows(pin.cell).await?);
            standing.push(StandingPin { slot: pin.slot, is_needed, lost_rows });
        }
        for id in stay.cells.iter().filter(|id| self.needed.contains(id)) {
            let is_pinned = self.active.iter().any(|pin| pin.cell == *id);
            clean.extend(tx.living_cell(*id).await?.map(|cell| CleanCell { cell, is_pinned }));
        }
        let rows = StayingRows { new_version: stay.new_version, own_key, cells: &clean, pins: &standing };
        let choice = choose_pins(&rows, &self.marked.joined(dying));
        for slot in choice.give_way {
            tx.mark_pin_dying(slot, &self.run.id).await?;
        }
        for cell in choice.preserve {
            let slot = self.ground.keyring.free_numbers(tx, SlotTable::Pin, 1).await?[0];
            // The pin stands for what the cell holds: a row that moved since the plan is not in the bucket it was planned in.
            let own = tx.bucket_name(cell.bucket).await?.map_or_else(|| bucket.clone(), |(name, _)| name);
            self.add(tx, slot, cell, PinKind::Preserving, (lookup, &own), stay).await?;
        }
        if choice.fresh {
            let slot = self.ground.keyring.free_numbers(tx, SlotTable::Pin, 1).await?[0];
            let place = Slot::new(Subtree::Pins, slot).map_err(crate::keyring::KeyringError::from)?;
            self.added.push((place, Key::make(self.ground.random)?));
            let number = self.bucket(tx, bucket).await?;
            let cell = tx.add_cell(None, number, Some(slot)).await?;
            self.add(tx, slot, cell, PinKind::Fresh, (lookup, bucket), stay).await?;
        }
        Ok(())
    }

    /// The slot of a bucket that takes new rows, made when no snapshot has met one of its rows yet: a removed row is named under it.
    async fn bucket(&mut self, tx: &mut Tx, bucket: &BucketName) -> Result<u32, EraseError> {
        if let Some(number) = tx.bucket_slot(bucket).await? {
            return Ok(number);
        }
        let number = self.ground.keyring.free_numbers(tx, SlotTable::Bucket, 1).await?[0];
        let place = Slot::new(Subtree::Buckets, number).map_err(crate::keyring::KeyringError::from)?;
        self.added.push((place, Key::make(self.ground.random)?));
        tx.add_bucket(number, bucket).await?;
        Ok(number)
    }

    async fn add(
        &mut self,
        tx: &mut Tx,
        slot: u32,
        cell: CellRow,
        kind: PinKind,
        (lookup, bucket): (&[u8], &BucketName),
        stay: &Staying,
    ) -> Result<(), EraseError> {
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
        // Another group of rows may have lain in the same cell; one cell has one pin.
        self.active.push(row);
        Ok(())
    }
}
