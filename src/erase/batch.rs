//! Carries out one chunk of a plan as one transaction in its store.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::anonymise::Telling;
use super::chunk::{ChunkItem, open_items, place_of};
use super::neutral::{is_unique, neutral_of, neutral_value};
use super::pace::Took;
use super::planner::{active_holds, covering_hold};
use super::pre_image::{ImageRow, PreImage, seal_image};
use super::referrers::blocked_rows;
use super::survey::{ReadRow, Shape, Surveyor, Target, subject_value};
use super::{EraseError, Ground, Site};
use crate::control::{ChunkCounts, ChunkRow, LedgerKind, RunRow};
use crate::crash_point;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::plan::digest::{erased_content_mac, row_mac};
use crate::plan::model::Collection;
use crate::plan::{PlanBody, Subject};
use crate::policy::hold::ActiveHolds;
use crate::stores::{Batch, BatchMarker, Column, ColumnKind, ColumnRef, Engine, Filter, Hop, RowQuery};
use crate::value::{RowKey, Value, encode_values};

/// The note of rows that stay because too few others are like them.
const TOO_FEW: &str = "too few anonymised rows have the same values by now, so rows stay as they are (k-anonymity)";

/// The outcome of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkOutcome {
    /// What became of its rows.
    pub counts: ChunkCounts,
    /// A problem, as one sentence without values.
    pub note: Option<String>,
    /// How long its transaction was open; none when there was none.
    pub took: Option<Took>,
}

/// What a transaction did: its marker, the digests of the rows that are gone (or anonymised, or stripped), a note, and how long the commit took.
pub(super) type Done = (BatchMarker, Vec<Gone>, Option<String>, Duration);

/// Keys that a run needs, opened once.
pub struct RunKeys {
    /// For row digests.
    pub suppression: Key,
    /// For subject digests.
    pub lookup: Key,
    /// For the plan's lists.
    pub plan: Key,
    /// For content digests in evidence.
    pub certificate: Key,
    /// Rows to be anonymised whose groups have become too small since the plan, by keyed digest: they stay.
    pub too_few: HashSet<[u8; 16]>,
    /// For pre-images; none when the run has no grace, and so nothing can be undone.
    pub pre_images: Option<Key>,
}

/// A row that is gone: the digest of its key and that of its content.
pub(super) type Gone = ([u8; 16], [u8; 32]);

impl RunKeys {
    /// Those with which rows are told.
    pub(super) fn telling(&self) -> Telling<'_> {
        Telling { suppression: &self.suppression, certificate: &self.certificate }
    }

    /// Opens them.
    pub async fn open(ground: &Ground<'_>, plan: &str) -> Result<Self, EraseError> {
        let mut tx = ground.control.begin().await?;
        let keys = Self {
            suppression: ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?,
            lookup: ground.keyring.work_key(&mut tx, Purpose::Lookup, "").await?,
            plan: ground.keyring.find_work_key(&mut tx, Purpose::Plan, plan).await?.ok_or_else(|| {
                EraseError::Inconsistent("the plan's key is gone: it was executed or expired".to_owned())
            })?,
            certificate: ground.keyring.work_key(&mut tx, Purpose::Certificate, "").await?,
            too_few: HashSet::new(),
            pre_images: None,
        };
        tx.commit().await?;
        Ok(keys)
    }
}

/// Runs one chunk: intent, transaction with marker, outcome. A chunk left `running` by a crash is settled first.
///
/// # Errors
/// When the control database fails, or the store fails before anything was changed.
pub async fn run_chunk(
    ground: &Ground<'_>,
    run: &RunRow,
    token: i64,
    chunk: &ChunkRow,
    keys: &RunKeys,
    target: &Target,
) -> Result<ChunkOutcome, EraseError> {
    let (site, collection) = place_of(ground, chunk)?;
    let plan = run.plan.as_deref().unwrap_or_default();
    let items = open_items(&keys.plan, plan, chunk.number, &chunk.sealed)?;
    let work = Work { ground, site, collection, run, chunk, keys, items: &items, token };
    if chunk.state == "running"
        && let Some(marker) = site.store.batch_outcome(&run.id, chunk.number).await?
    {
        return work.settle(&marker).await;
    }
    work.intend().await?;
    crash_point::reached("batch.intended");
    let begun = ground.clock.now();
    match work.transaction(target).await {
        Ok((marker, gone, note, commit)) => {
            let took = Took::new(since(ground, begun), commit);
            crash_point::reached("batch.committed");
            let recorded = work.record(&marker, &gone, note).await?;
            Ok(ChunkOutcome { took: Some(took), ..recorded })
        }
        Err(error) => work.fail(error).await,
    }
}

/// How long it is since then; nothing when the clock was put back.
pub(super) fn since(ground: &Ground<'_>, begun: DateTime<Utc>) -> Duration {
    (ground.clock.now() - begun).to_std().unwrap_or_default()
}

/// Leaves a chunk undone because the plan it belongs to must not go on, or not in this store; its rows stay, and count as the
/// caller says, for the reason that it gives. If a crash hid that its transaction was committed, that is settled first.
///
/// # Errors
/// When the control database fails, or the store of a chunk that was begun cannot be reached.
pub async fn withhold_chunk(
    ground: &Ground<'_>,
    run: &RunRow,
    token: i64,
    chunk: &ChunkRow,
    keys: &RunKeys,
    (counts, why): (ChunkCounts, String),
) -> Result<ChunkOutcome, EraseError> {
    if chunk.state == "running" {
        let (site, collection) = place_of(ground, chunk)?;
        if let Some(marker) = site.store.batch_outcome(&run.id, chunk.number).await? {
            let items = open_items(&keys.plan, run.plan.as_deref().unwrap_or_default(), chunk.number, &chunk.sealed)?;
            let work = Work { ground, site, collection, run, chunk, keys, items: &items, token };
            return work.settle(&marker).await;
        }
    }
    let outcome = ChunkOutcome { counts, note: Some(why), took: None };
    let mut tx = ground.control.begin().await?;
    tx.end_chunk(run, chunk, outcome.counts, &[], outcome.note.as_deref()).await?;
    tx.commit().await?;
    Ok(outcome)
}

/// A chunk in the hands of a run.
pub(super) struct Work<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) site: &'a Site,
    pub(super) collection: &'a Collection,
    pub(super) run: &'a RunRow,
    pub(super) chunk: &'a ChunkRow,
    pub(super) keys: &'a RunKeys,
    pub(super) items: &'a [ChunkItem],
    pub(super) token: i64,
}

/// What a transaction decides by.
pub(super) struct Terms {
    pub(super) holds: ActiveHolds,
    cutoff: DateTime<Utc>,
}

impl Terms {
    /// The holds as they are now, and the cutoff of the run's plan.
    pub(super) async fn read(ground: &Ground<'_>, run: &RunRow) -> Result<Self, EraseError> {
        let mut tx = ground.control.read().await?;
        let holds = active_holds(&tx.holds(true).await?, ground.clock.now());
        let plan = tx.plan(run.plan.as_deref().unwrap_or_default()).await?;
        let plan = plan.ok_or_else(|| EraseError::Inconsistent("the run has no plan".to_owned()))?;
        let body: PlanBody = serde_json::from_str(&plan.body)
            .map_err(|_| EraseError::Inconsistent("the plan's public part is damaged".to_owned()))?;
        Ok(Self { holds, cutoff: body.cutoff })
    }
}

/// The rows of a chunk that may go, locked.
pub(super) struct Locked {
    /// The parents that the predicate reaches over.
    pub(super) path: Vec<Hop>,
    /// The planned predicate.
    pub(super) predicate: Filter,
    contents: HashMap<Vec<u8>, [u8; 32]>,
    /// Keys of the rows.
    pub(super) doomed: Vec<RowKey>,
}

impl Work<'_> {
    pub(super) fn mac(&self, key: &RowKey) -> [u8; 16] {
        row_mac(&self.keys.suppression, &self.chunk.store, &self.chunk.collection, key)
    }

    pub(super) fn ledger_kind(&self) -> LedgerKind {
        LedgerKind::of_verdict(&self.chunk.verdict)
    }

    pub(super) async fn intend(&self) -> Result<(), EraseError> {
        let macs: Vec<[u8; 16]> = self.items.iter().map(|item| self.mac(&item.row.key)).collect();
        let mut tx = self.ground.control.begin().await?;
        tx.begin_chunk(self.run, self.chunk, self.ledger_kind(), &macs, self.ground.clock.now()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The destructive transaction.
    pub(super) async fn transaction(&self, target: &Target) -> Result<Done, EraseError> {
        let terms = Terms::read(self.ground, self.run).await?;
        if let Some(done) = self.take_all(target, &terms).await? {
            return Ok(done);
        }
        let mut batch = self.site.store.begin_batch().await?;
        let locked = self.lock(batch.as_mut(), target, &terms).await?;
        let changed = |done: Vec<RowKey>| done.iter().map(|key| self.gone_row(&locked, key)).collect();
        let (gone, note) = match self.ledger_kind() {
            LedgerKind::Stripped => {
                let done = self.strip(batch.as_mut(), &locked.doomed).await?;
                self.intend_after(batch.as_mut(), &done).await?;
                (changed(done), None)
            }
            LedgerKind::Anonymised => {
                let (done, note) = self.anonymise(batch.as_mut(), &locked.doomed).await?;
                self.intend_after(batch.as_mut(), &done).await?;
                (changed(done), note)
            }
            LedgerKind::Erased => self.delete(batch.as_mut(), &locked).await?,
        };
        crash_point::reached("batch.deleted");
        let marker = self.marker(gone.len() as i64);
        let commit = self.commit(batch, &marker).await?;
        Ok((marker, gone, note, commit))
    }

    /// Commits, and tells how long that took.
    pub(super) async fn commit(&self, batch: Box<dyn Batch>, marker: &BatchMarker) -> Result<Duration, EraseError> {
        let begun = self.ground.clock.now();
        batch.commit(marker).await?;
        Ok(since(self.ground, begun))
    }

    /// The query for the rows of the list that still meet the predicate, with all their columns behind those of the shape.
    pub(super) fn planned_rows(&self, target: &Target, terms: &Terms) -> Result<(Shape, RowQuery), EraseError> {
        let shape = Shape::of(self.collection);
        let predicate = self.predicate(target, terms)?;
        let mut query = shape.query(self.collection, Filter::And(vec![self.in_plan(), predicate]));
        query.limit = self.items.len() as u32 + 1;
        query.columns.extend(self.collection.table.columns.iter().map(|column| ColumnRef::own(&column.name)));
        Ok((shape, query))
    }

    /// The planned predicate.
    fn predicate(&self, target: &Target, terms: &Terms) -> Result<Filter, EraseError> {
        let never = |_: Option<&Subject>, _: &str| None;
        let (engine, cutoff) = (self.site.store.engine(), terms.cutoff);
        let surveyor = Surveyor { model: &self.site.model, engine, cutoff, held_by: &never };
        surveyor
            .filter(self.collection, target)?
            .ok_or_else(|| EraseError::Inconsistent("a planned collection has no predicate any more".to_owned()))
    }

    /// The marker of this chunk's transaction.
    pub(super) fn marker(&self, rows: i64) -> BatchMarker {
        let is_gone = self.ledger_kind() == LedgerKind::Erased;
        BatchMarker {
            run: self.run.id.clone(),
            chunk: self.chunk.number,
            token: self.token,
            erased: if is_gone { rows } else { 0 },
            changed: if is_gone { 0 } else { rows },
        }
    }

    /// Reads and locks the planned rows that still are what was planned, and keeps how they were.
    pub(super) async fn lock(
        &self,
        batch: &mut dyn Batch,
        target: &Target,
        terms: &Terms,
    ) -> Result<Locked, EraseError> {
        let predicate = self.predicate(target, terms)?;
        let (shape, query) = self.planned_rows(target, terms)?;
        if !shape.path().is_empty() {
            // A statement that waited for a row looks at that row again, and at its ancestors as they were before. So the wait comes first.
            self.present(batch, self.in_plan()).await?;
        }
        let mut contents = HashMap::new();
        let mut found: Vec<(ReadRow, Vec<Value>)> = Vec::new();
        for mut row in batch.read_for_update(&query).await? {
            let values = row.split_off(shape.width());
            let content = erased_content_mac(&self.keys.certificate, &values);
            let row = shape.read(row);
            contents.insert(encode_values(&row.key.0), content);
            found.push((row, values));
        }
        let planned: HashMap<Vec<u8>, &ChunkItem> =
            self.items.iter().map(|item| (encode_values(&item.row.key.0), item)).collect();
        let found = found.into_iter().filter(|(row, _)| {
            let item = planned.get(&encode_values(&row.key.0)).copied();
            self.is_doomed(row, item, &terms.holds)
        });
        let before: Vec<(RowKey, Vec<Value>)> = found.map(|(row, values)| (row.key, values)).collect();
        let doomed: Vec<RowKey> = before.iter().map(|(key, _)| key.clone()).collect();
        self.keep_pre_images(before).await?;
        Ok(Locked { path: shape.path().to_vec(), predicate, contents, doomed })
    }

    /// The rows of the chunk's list.
    pub(super) fn in_plan(&self) -> Filter {
        Filter::In(self.collection.key.clone(), self.items.iter().map(|item| item.row.key.clone()).collect())
    }

    fn gone_row(&self, locked: &Locked, key: &RowKey) -> Gone {
        (self.mac(key), locked.contents.get(&encode_values(&key.0)).copied().unwrap_or([0; 32]))
    }

    /// Rows of the plan that are absent now, whoever deleted them; the others of the plan stay.
    pub(super) async fn absent(&self, batch: &mut dyn Batch, locked: &Locked) -> Result<Vec<Gone>, EraseError> {
        let present = self.present(batch, self.in_plan()).await?;
        Ok(self.absent_from(&present, locked))
    }

    fn absent_from(&self, present: &HashSet<Vec<u8>>, locked: &Locked) -> Vec<Gone> {
        let absent = self.items.iter().filter(|item| !present.contains(&encode_values(&item.row.key.0)));
        absent.map(|item| self.gone_row(locked, &item.row.key)).collect()
    }

    /// Whether a row is still the one that was planned, and no hold covers it.
    pub(super) fn is_doomed(&self, row: &ReadRow, planned: Option<&ChunkItem>, holds: &ActiveHolds) -> bool {
        let unchanged = planned.is_some_and(|item| item.row.start == row.start && item.row.subject == row.subject);
        let subject = row.subject.as_ref();
        let is_lost = !self.keys.too_few.is_empty() && self.keys.too_few.contains(&self.mac(&row.key));
        unchanged
            && !is_lost
            && covering_hold(holds, &self.keys.lookup, self.site, &self.chunk.collection, subject).is_none()
    }

    /// Before anything is changed, so that a crash cannot come between the change and the copy that undoes it.
    pub(super) async fn keep_pre_images(&self, before: Vec<(RowKey, Vec<Value>)>) -> Result<(), EraseError> {
        let Some(key) = &self.keys.pre_images else { return Ok(()) };
        let all = &self.collection.table.columns;
        let stored = all.iter().filter(|column| !column.generated);
        let mut image = PreImage { columns: stored.map(|column| column.name.clone()).collect(), rows: Vec::new() };
        for (key, values) in before {
            let values = all.iter().zip(values).filter(|(column, _)| !column.generated);
            image.rows.push(ImageRow { key, values: values.map(|(_, value)| value).collect() });
        }
        let parts = seal_image(key, (&self.run.id, self.chunk.number), &image, self.ground.random)?;
        let mut tx = self.ground.control.begin().await?;
        tx.put_pre_images(&self.run.id, self.chunk.number, &parts).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Deletes the doomed rows whose children are all gone; children that appeared since the plan keep their parent. Returns the rows of the
    /// plan that are absent then.
    async fn delete(&self, batch: &mut dyn Batch, locked: &Locked) -> Result<(Vec<Gone>, Option<String>), EraseError> {
        let (blocked, note) = blocked_rows(batch, self.collection, &locked.doomed).await?;
        let free = locked.doomed.iter().filter(|key| !blocked.contains(&encode_values(&key.0)));
        let keys: Vec<RowKey> = free.cloned().collect();
        if keys.is_empty() {
            return Ok((self.absent(batch, locked).await?, note));
        }
        let filter = Filter::And(vec![Filter::In(self.collection.key.clone(), keys.clone()), locked.predicate.clone()]);
        let deleted = batch.delete(&self.collection.table.name, &locked.path, &filter).await?;
        // One look tells both: that of the rows to go none is left, and which rows of the plan are absent.
        let present = self.present(batch, self.in_plan()).await?;
        let left = keys.iter().filter(|key| present.contains(&encode_values(&key.0))).count();
        self.check_left(keys.len(), deleted, left)?;
        Ok((self.absent_from(&present, locked), note))
    }

    /// Refuses a transaction in which rows that were deleted are still there, or more were deleted than there are.
    pub(super) async fn check_gone(
        &self,
        batch: &mut dyn Batch,
        keys: &[RowKey],
        deleted: u64,
    ) -> Result<(), EraseError> {
        // A row that the deletion of another took along is not counted by every engine: what counts is that none is left.
        let left = self.present(batch, Filter::In(self.collection.key.clone(), keys.to_vec())).await?.len();
        self.check_left(keys.len(), deleted, left)
    }

    fn check_left(&self, locked: usize, deleted: u64, left: usize) -> Result<(), EraseError> {
        if left == 0 && deleted <= locked as u64 {
            return Ok(());
        }
        Err(EraseError::Inconsistent(format!(
            "{}.{}: {locked} rows were locked, {deleted} were deleted and {left} of them are still there; a trigger or rule \
             may swallow the DELETE",
            self.chunk.store, self.chunk.collection
        )))
    }

    async fn strip(&self, batch: &mut dyn Batch, doomed: &[RowKey]) -> Result<Vec<RowKey>, EraseError> {
        for key in doomed {
            let mut set = Vec::new();
            for column in &self.collection.table.columns {
                if !self.collection.stays_when_stripped(&column.name) {
                    set.push((column.name.clone(), self.placeholder(column)?));
                }
            }
            if !set.is_empty() {
                let one = Filter::In(self.collection.key.clone(), vec![key.clone()]);
                let changed = batch.update(&self.collection.table.name, &set, &one).await?;
                if changed != 1 {
                    return Err(EraseError::Inconsistent(format!(
                        "{}.{}: the strip of one row changed {changed} rows; a trigger or rule may swallow the UPDATE",
                        self.chunk.store, self.chunk.collection
                    )));
                }
            }
        }
        Ok(doomed.to_vec())
    }

    /// What a stripped column holds: NULL, or where that is forbidden an empty value, or a random one where it is unique.
    fn placeholder(&self, column: &Column) -> Result<Value, EraseError> {
        let table = &self.collection.table;
        let mut distinct = is_unique(table, column).then_some([0; 8]);
        if let Some(bytes) = &mut distinct {
            self.ground.random.fill(bytes)?;
        }
        neutral_value(column, self.site.store.engine(), distinct.as_ref()).ok_or_else(|| EraseError::Unsupported {
            what: format!(
                "column {}.{} is NOT NULL and its type {} has no neutral value; list it under `minimum` or allow NULL",
                table.name, column.name, column.type_name
            ),
        })
    }

    pub(super) async fn present(&self, batch: &mut dyn Batch, in_plan: Filter) -> Result<HashSet<Vec<u8>>, EraseError> {
        let query = RowQuery {
            table: self.collection.table.name.clone(),
            path: Vec::new(),
            columns: self.collection.key.iter().map(|column| ColumnRef::own(column)).collect(),
            filter: in_plan,
            key: self.collection.key.clone(),
            after: None,
            limit: u32::MAX,
        };
        Ok(batch.read_for_update(&query).await?.iter().map(|row| encode_values(row)).collect())
    }

    /// Rows that hold nothing any more in the columns that a strip empties.
    async fn blank(&self, batch: &mut dyn Batch, in_plan: Filter) -> Result<HashSet<Vec<u8>>, EraseError> {
        let columns = stripped_columns(self.collection);
        let key = &self.collection.key;
        let names = key.iter().chain(columns.iter().map(|column| &column.name));
        let query = RowQuery {
            table: self.collection.table.name.clone(),
            path: Vec::new(),
            columns: names.map(|column| ColumnRef::own(column)).collect(),
            filter: in_plan,
            key: key.clone(),
            after: None,
            limit: u32::MAX,
        };
        let engine = self.site.store.engine();
        let mut blank = HashSet::new();
        for mut row in batch.read_for_update(&query).await? {
            let values = row.split_off(key.len());
            if columns.iter().zip(&values).all(|(column, value)| is_blank(self.collection, column, value, engine)) {
                blank.insert(encode_values(&row));
            }
        }
        Ok(blank)
    }

    pub(super) async fn record(
        &self,
        marker: &BatchMarker,
        gone: &[Gone],
        note: Option<String>,
    ) -> Result<ChunkOutcome, EraseError> {
        let (counts, note) = self.outcome(marker, note);
        let mut tx = self.ground.control.begin().await?;
        tx.end_chunk(self.run, self.chunk, counts, gone, note.as_deref()).await?;
        tx.commit().await?;
        crash_point::reached("batch.recorded");
        Ok(ChunkOutcome { counts, note, took: None })
    }

    /// What became of the rows of a chunk whose transaction wrote this marker.
    pub(super) fn outcome(&self, marker: &BatchMarker, note: Option<String>) -> (ChunkCounts, Option<String>) {
        let left = self.items.len() as i64 - marker.erased - marker.changed;
        let mut counts = ChunkCounts { erased: marker.erased, kept: left, ..ChunkCounts::default() };
        match self.ledger_kind() {
            LedgerKind::Anonymised => counts.anonymised = marker.changed,
            _ => counts.stripped = marker.changed,
        }
        let is_lost = self.items.iter().any(|item| self.keys.too_few.contains(&self.mac(&item.row.key)));
        let why = if is_lost { TOO_FEW } else { "rows changed, or were put on hold, after the plan" };
        (counts, note.or_else(|| (left > 0).then(|| why.to_owned())))
    }

    /// After a crash: the marker says that the transaction was committed; which rows it took shows in the store.
    pub(super) async fn settle(&self, marker: &BatchMarker) -> Result<ChunkOutcome, EraseError> {
        let keys: Vec<RowKey> = self.items.iter().map(|item| item.row.key.clone()).collect();
        let mut batch = self.site.store.begin_batch().await?;
        let (kind, in_list) = (self.ledger_kind(), Filter::In(self.collection.key.clone(), keys));
        let found = match kind {
            LedgerKind::Stripped => self.blank(batch.as_mut(), in_list).await?,
            LedgerKind::Anonymised => self.left(batch.as_mut()).await?,
            LedgerKind::Erased => self.present(batch.as_mut(), in_list).await?,
        };
        batch.roll_back().await?;
        let mut gone: Vec<Gone> = Vec::new();
        for item in self.items {
            // Of rows that were deleted the present ones are left, of the others those that are as they should be are done.
            if found.contains(&encode_values(&item.row.key.0)) != (kind == LedgerKind::Erased) {
                gone.push((self.mac(&item.row.key), [0; 32]));
            }
        }
        let marker = BatchMarker { token: marker.token, ..self.marker(gone.len() as i64) };
        self.record(&marker, &gone, None).await
    }

    /// Nothing was committed: the rows count as failed, unless the failure is one that goes away by itself.
    pub(super) async fn fail(&self, error: EraseError) -> Result<ChunkOutcome, EraseError> {
        if error.is_retryable() || matches!(error, EraseError::Control(_) | EraseError::Keyring(_)) {
            return Err(error);
        }
        if self.site.store.batch_outcome(&self.run.id, self.chunk.number).await?.is_some() {
            return Err(error);
        }
        let counts = ChunkCounts { failed: self.items.len() as i64, ..ChunkCounts::default() };
        let note = error.to_string();
        let mut tx = self.ground.control.begin().await?;
        tx.end_chunk(self.run, self.chunk, counts, &[], Some(&note)).await?;
        tx.commit().await?;
        Ok(ChunkOutcome { counts, note: Some(note), took: None })
    }
}

/// The columns that a strip empties.
#[must_use]
pub fn stripped_columns(collection: &Collection) -> Vec<&Column> {
    let columns = collection.table.columns.iter();
    columns.filter(|column| !collection.stays_when_stripped(&column.name)).collect()
}

/// Whether a value of a column that a strip empties is what the strip leaves there. Unique columns get random values, of
/// which only the form can be told.
#[must_use]
pub fn is_blank(collection: &Collection, column: &Column, value: &Value, engine: Engine) -> bool {
    if column.nullable {
        return *value == Value::Null;
    }
    match (column.kind, value) {
        (Some(ColumnKind::Text), Value::Text(text)) if is_unique(&collection.table, column) => {
            text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        // Engines print their neutral values in forms of their own: 0 as 0.00, a time with its zone.
        (Some(ColumnKind::Integer | ColumnKind::Real | ColumnKind::Decimal), Value::Text(text)) => {
            text.parse::<f64>().is_ok_and(|number| number == 0.0)
        }
        (Some(ColumnKind::Boolean), Value::Text(text)) => matches!(text.as_str(), "f" | "false" | "0"),
        (Some(ColumnKind::Date | ColumnKind::LocalTime | ColumnKind::Instant), Value::Text(text)) => {
            text.starts_with("1970-01-01")
        }
        (Some(kind), value) => neutral_of(kind, engine).is_some_and(|neutral| neutral == *value),
        (None, _) => false,
    }
}

/// Every text under which a subject's id may be known: as given, and as each store's column writes it.
#[must_use]
pub fn forms_of(ground: &Ground<'_>, subject: &Subject) -> Vec<Subject> {
    let mut forms = vec![subject.clone()];
    for site in ground.sites {
        for collection in &site.model.collections {
            let form = subject_in(site, collection, subject).as_ref().and_then(Subject::of);
            forms.extend(form);
        }
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// The value of a subject in the terms of a site's column, for callers that look a subject up.
#[must_use]
pub fn subject_in(site: &Site, collection: &Collection, subject: &Subject) -> Option<Value> {
    let owner = collection.owner.as_ref()?;
    subject_value(subject, owner.kind, site.store.engine())
}
