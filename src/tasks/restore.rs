//! `restore`: puts a snapshot's rows into a database, the ledger first.
//!
//! A row version that the ledger erased after the snapshot that sealed it was begun never comes back, whether its key is destroyed
//! yet or not. Of an increment, what it continues is restored too: of each row the newest version. A parent that is gone while its child lives is replaced by a stub that holds only its key. Never over existing rows.
//!
//! Rows go from the bucket into the database as their frames open, parents first. Memory holds one pack, the rows of a few
//! chunks, the directories of the snapshot and of those that it continues, 24 bytes for every erasure since, and 16 for every stub and
//! every row that an increment sealed or removed; never a table.

mod meter;

pub use meter::{Meter, Standing};

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Serialize;

use crate::backup::frame::value_bytes;
use crate::backup::object_store::ObjectStore;
use crate::control::SnapshotRow;
use crate::crash_point;
use crate::erase::Ground;
use crate::erase::neutral::{is_unique, neutral_value};
use crate::installation::ManifestSigner;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::plan::digest::row_mac;
use crate::stop::Stop;
use crate::stores::{Column, DataStore, Engine, ForeignKey, Restore, Table};
use crate::value::{Row, RowKey, Value, encode_values};

use super::read_chain::{ChainCounts, OpenChain, VersionSink, Versions, open_some_of_chain};
use super::read_snapshot::{FrameState, OpenSnapshot};
use super::selection::Selection;
use super::{Result, TaskError};

/// Rows inserted at once.
const INSERT_ROWS: usize = 5000;
/// Bytes of rows that wait to be inserted, beyond which they are.
const INSERT_BYTES: usize = 8 << 20;
/// Missing parents asked for at once.
const STUBS_AT_ONCE: u32 = 1000;

/// What a restore did with one collection; all counts are rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct RestoredCollection {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// Rows put back.
    pub restored: u64,
    /// Rows whose key is destroyed.
    pub shredded: u64,
    /// Rows whose key is missing without having been destroyed, and rows that the snapshot counted and no frame holds.
    pub lost: u64,
    /// Rows in damaged frames, and rows beyond those that the snapshot counted.
    pub corrupt: u64,
    /// Rows that opened but that the ledger erased since.
    pub erased_since: u64,
    /// Versions that opened but that a later increment replaced or removed.
    pub superseded: u64,
    /// Key-only rows put in for the sake of a child.
    pub stubs: u64,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: String,
    /// By collection, parents first.
    pub collections: Vec<RestoredCollection>,
    /// Frames that opened.
    pub frames_opened: u64,
    /// Frames whose key is destroyed.
    pub frames_shredded: u64,
    /// Frames whose key is lost.
    pub frames_lost: u64,
    /// Damaged frames.
    pub frames_corrupt: u64,
    /// Frames in the manifests of the snapshot and of those that it continues; of a part, those of the part.
    pub frames: u64,
    /// Bytes read of the backup.
    pub bytes_read: u64,
    /// Bytes that the snapshot has, with those that it continues.
    pub bytes_stored: u64,
    /// Foreign keys that were not restored, and violations, as sentences.
    pub notes: Vec<String>,
}

impl RestoreReport {
    /// Whether nothing was lost or damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.frames_lost == 0
            && self.frames_corrupt == 0
            && self.frames_opened + self.frames_shredded == self.frames
            && self.collections.iter().all(|collection| collection.lost == 0 && collection.corrupt == 0)
    }
}

/// The erasures since the oldest snapshot of a chain was begun, as keyed digests.
pub(super) struct Ledger {
    store: String,
    suppression: Key,
    /// By row, the position of the last entry.
    gone: HashMap<[u8; 16], i64>,
}

impl Ledger {
    /// Reads them.
    ///
    /// # Errors
    /// Hard stop when an erasure is in the middle of happening: its outcome must be settled first.
    pub(super) async fn since(ground: &Ground<'_>, chain: &OpenChain) -> Result<Self> {
        let snapshot = &chain.newest()?.row;
        let begin = chain.parts.iter().map(|part| part.row.ledger_position).min().unwrap_or(snapshot.ledger_position);
        let mut tx = ground.control.begin().await?;
        let entries = tx.ledger_after(&snapshot.store, begin).await?;
        let suppression = ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?;
        tx.commit().await?;
        if entries.iter().any(|entry| entry.state == "intended") {
            return Err(TaskError::refused(
                "an erasure was interrupted and its outcome is not settled yet, so the ledger cannot be applied",
                "run `wangchuan agent --once` first; it settles what was interrupted",
            ));
        }
        // In the order of their positions, so the last one of a row stays.
        let gone = entries.into_iter().map(|entry| (entry.row_mac, entry.position)).collect();
        Ok(Self { store: snapshot.store.clone(), suppression, gone })
    }

    /// Whether these are all erasures still.
    async fn is_that_of(&self, ground: &Ground<'_>, chain: &OpenChain) -> Result<bool> {
        Ok(Self::since(ground, chain).await?.gone == self.gone)
    }

    /// A ledger that erased these rows.
    #[cfg(test)]
    pub(super) fn for_test(store: &str, suppression: Key, rows: &[(&str, RowKey)]) -> Self {
        let gone = rows.iter().map(|(table, key)| (row_mac(&suppression, store, table, key), 1)).collect();
        Self { store: store.to_owned(), suppression, gone }
    }

    /// A row's digest.
    pub(super) fn mac(&self, table: &str, key: &RowKey) -> [u8; 16] {
        row_mac(&self.suppression, &self.store, table, key)
    }

    /// Whether the row with this digest was erased since a position of the ledger.
    pub(super) fn erased(&self, mac: &[u8; 16], since: i64) -> bool {
        self.gone.get(mac).is_some_and(|position| *position > since)
    }
}

/// Digests of the stubs that a restore put in.
pub(super) type Stubs = HashSet<[u8; 16]>;

/// Opens a snapshot and puts its rows into a database.
///
/// # Errors
/// When it cannot be read; refused when a table of the target holds rows already, or when rows of the store were erased while it ran.
/// Nothing is changed then, nor at any other failure but one: an erasure in the moment of the commit, which the error names.
pub async fn restore_snapshot(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    row: SnapshotRow,
    target: &dyn DataStore,
) -> Result<RestoreReport> {
    restore_until(&Stop::default(), ground, repository, signer, (row, &Selection::default()), target).await
}

/// The same for the wanted part of it, given up when a stop is asked for.
///
/// # Errors
/// As [`restore_snapshot`], and [`TaskError::Stopping`].
pub async fn restore_until(
    stop: &Stop,
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    from: (SnapshotRow, &Selection),
    target: &dyn DataStore,
) -> Result<RestoreReport> {
    restore_watched((stop, &Meter::default()), ground, repository, signer, from, target).await
}

/// The same, counting on a meter what was put in.
///
/// # Errors
/// As [`restore_until`].
pub async fn restore_watched(
    (stop, meter): (&Stop, &Meter),
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    (row, wanted): (SnapshotRow, &Selection),
    target: &dyn DataStore,
) -> Result<RestoreReport> {
    let snapshot = tokio::select! {
        snapshot = open_some_of_chain(ground, repository, signer, row, wanted) => snapshot?,
        () = stop.asked() => return Err(TaskError::Stopping),
    };
    let ledger = Ledger::since(ground, &snapshot).await?;
    let counted = if wanted.subject.is_none() { Counted::Rows } else { Counted::Nothing };
    let unchanged = async || ledger.is_that_of(ground, &snapshot).await;
    let may_commit = async || {
        if !unchanged().await? {
            return Err(erased_meanwhile("nothing was put in", "run the same command again"));
        }
        crash_point::reached("restore.filled");
        Ok(())
    };
    let (report, _) = fill_target((stop, meter), (&snapshot, counted), &ledger, repository, target, may_commit).await?;
    // Between that look and the commit there is a moment, too.
    let again = "empty the target and run the same command again";
    match unchanged().await {
        Ok(true) => Ok(report),
        Ok(false) => Err(erased_meanwhile("the target holds rows of what was erased while it was committed", again)),
        Err(error) => Err(TaskError::refused(
            format!(
                "the target is filled, and whether rows were erased meanwhile cannot be told: {}",
                error.with_causes()
            ),
            again,
        )),
    }
}

fn erased_meanwhile(state: &str, advice: &'static str) -> TaskError {
    TaskError::refused(format!("rows were erased while the restore was running; {state}"), advice)
}

/// What a snapshot says of how many rows are to be found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Those of each collection.
    Rows,
    /// Nothing: it counts nobody's rows.
    Nothing,
}

/// The same for all of what was read already; with the digests of the stubs.
pub(super) async fn bring_back(
    stop: &Stop,
    chain: &OpenChain,
    ledger: &Ledger,
    repository: &dyn ObjectStore,
    target: &dyn DataStore,
) -> Result<(RestoreReport, Stubs)> {
    let stop = (stop, &Meter::default());
    fill_target(stop, (chain, Counted::Rows), ledger, repository, target, async || Ok(())).await
}

/// Puts it all in, and commits when `may_commit` has nothing against it.
async fn fill_target(
    (stop, meter): (&Stop, &Meter),
    (chain, counted): (&OpenChain, Counted),
    ledger: &Ledger,
    repository: &dyn ObjectStore,
    target: &dyn DataStore,
    may_commit: impl AsyncFnOnce() -> Result<()>,
) -> Result<(RestoreReport, Stubs)> {
    let snapshot = chain.newest()?;
    let engine = snapshot.schema.engine;
    if target.engine() != engine {
        return Err(TaskError::refused(
            format!("the snapshot is of {engine:?}, the target is {:?}", target.engine()),
            "restore into a database of the same engine",
        ));
    }
    let (mut into, notes) = target.begin_restore_as(&snapshot.schema.tables, &snapshot.schema.definitions).await?;
    if counted == Counted::Rows {
        meter.awaits(snapshot.schema.collections.iter().map(|captured| captured.rows).sum());
    }
    let (waiting, done) = (None, BTreeMap::new());
    let mut filling = Filling { stop, meter, snapshot, counted, ledger, into: into.as_mut(), waiting, done };
    let filled = match filling.fill(chain, repository).await {
        // Indexes and checks take long on a large target: whether it may be committed is asked behind them.
        Ok(filled) => match refuse_violations(into.as_mut()).await {
            Ok(()) => may_commit().await.map(|()| filled),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    match filled {
        Ok((mut report, stubs)) => {
            report.notes.extend(notes);
            into.commit().await?;
            Ok((report, stubs))
        }
        Err(error) => {
            into.roll_back().await?;
            Err(error)
        }
    }
}

async fn refuse_violations(into: &mut dyn Restore) -> Result<()> {
    crash_point::reached("restore.put-in");
    let violations = into.check(false).await?;
    if violations.is_empty() {
        return Ok(());
    }
    Err(TaskError::refused(
        format!("the restored rows violate foreign keys: {}", violations.join("; ")),
        "restore into a database whose reference tables are loaded, or into an empty one",
    ))
}

/// Rows that wait until there are enough for one INSERT.
struct Waiting {
    table: String,
    columns: Vec<String>,
    rows: Vec<Row>,
    bytes: usize,
}

/// Rows put back, and rows left out because they were erased since.
#[derive(Default)]
struct Done {
    restored: u64,
    erased_since: u64,
}

/// A target being filled.
struct Filling<'f> {
    stop: &'f Stop,
    meter: &'f Meter,
    snapshot: &'f OpenSnapshot,
    counted: Counted,
    ledger: &'f Ledger,
    into: &'f mut dyn Restore,
    waiting: Option<Waiting>,
    /// By collection number.
    done: BTreeMap<u32, Done>,
}

impl Filling<'_> {
    async fn fill(&mut self, chain: &OpenChain, repository: &dyn ObjectStore) -> Result<(RestoreReport, Stubs)> {
        let snapshot = self.snapshot;
        for captured in &snapshot.schema.collections {
            let (name, rows) = (&captured.table, self.into.count(&captured.table).await?);
            if rows > 0 {
                return Err(TaskError::refused(
                    format!("table {name} of the target holds {rows} rows; a restore never writes over existing rows"),
                    "restore into an empty database, or empty the registered tables first",
                ));
            }
        }
        let counts = chain.read(repository, self).await?;
        self.flush().await?;
        let (stubs, by_table) = self.add_stubs().await?;
        let mut report = frame_report(chain, snapshot, &counts);
        self.meter.enter("");
        report.notes = self.into.complete().await?;
        for captured in snapshot.schema.collections.iter().rev() {
            let number = captured.number;
            let done = self.done.remove(&number).unwrap_or_default();
            let rows_in = |state| counts.all.rows_in(number, state);
            let [shredded, lost, corrupt] = [FrameState::Shredded, FrameState::Lost, FrameState::Corrupt].map(rows_in);
            // What does not open may be a version that counts, or one that a later snapshot replaced.
            let living = counts.living.get(&number).copied().unwrap_or(0);
            let expected = if self.counted == Counted::Rows { captured.rows } else { living };
            let missing = expected.saturating_sub(living + shredded + lost + corrupt);
            report.collections.push(RestoredCollection {
                store: snapshot.row.store.clone(),
                collection: captured.table.clone(),
                restored: done.restored,
                shredded,
                lost: lost + missing,
                corrupt: corrupt + living.saturating_sub(expected),
                superseded: counts.superseded.get(&number).copied().unwrap_or(0),
                erased_since: done.erased_since,
                stubs: by_table.get(&captured.table).copied().unwrap_or(0),
            });
        }
        Ok((report, stubs))
    }

    async fn insert(&mut self, table: &str, columns: &[String], rows: &[Row]) -> Result<()> {
        self.meter.enter(table);
        self.into.insert(table, columns, rows).await?;
        self.meter.add(rows);
        crash_point::reached("restore.rows-written");
        if self.stop.is_asked() {
            return Err(TaskError::Stopping);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if let Some(Waiting { table, columns, rows, .. }) = self.waiting.take() {
            for rows in rows.chunks(INSERT_ROWS) {
                self.insert(&table, &columns, rows).await?;
            }
        }
        Ok(())
    }

    /// Key-only rows for parents that are gone while a child refers to them; the database says which those are. Returns their
    /// digests, and how many there are by table.
    async fn add_stubs(&mut self) -> Result<(Stubs, BTreeMap<String, u64>)> {
        let (mut stubs, mut by_table) = (Stubs::new(), BTreeMap::new());
        // Children first, so that a stub that itself has a parent is seen by that parent.
        for captured in &self.snapshot.schema.collections {
            for key in &table_of(self.snapshot, &captured.table)?.foreign_keys {
                let is_registered = self.snapshot.schema.collections.iter().any(|parent| parent.table == key.parent);
                if !is_registered {
                    continue;
                }
                loop {
                    let missing = self.into.missing_parents(&captured.table, key, STUBS_AT_ONCE).await?;
                    if missing.is_empty() {
                        break;
                    }
                    *by_table.entry(key.parent.clone()).or_default() += missing.len() as u64;
                    self.add_missing(key, missing, &mut stubs).await?;
                }
            }
        }
        Ok((stubs, by_table))
    }

    async fn add_missing(&mut self, key: &ForeignKey, missing: Vec<Row>, stubs: &mut Stubs) -> Result<()> {
        let parent = table_of(self.snapshot, &key.parent)?;
        let stored: Vec<&Column> = parent.columns.iter().filter(|column| !column.generated).collect();
        let columns: Vec<String> = stored.iter().map(|column| column.name.clone()).collect();
        let mut rows = Vec::new();
        for values in missing {
            let row = stub(parent, &stored, (&key.parent_columns, &values), self.snapshot.schema.engine)?;
            let own_key = parent.key.iter().filter_map(|name| row.get(columns.iter().position(|known| known == name)?));
            stubs.insert(self.ledger.mac(&parent.name, &RowKey(own_key.cloned().collect())));
            rows.push(row);
        }
        for rows in rows.chunks(INSERT_ROWS) {
            self.insert(&parent.name, &columns, rows).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl VersionSink for Filling<'_> {
    async fn take(&mut self, versions: Versions<'_>) -> Result<()> {
        let Versions { collection, table, columns, sealed_at, rows, .. } = versions;
        let names = column_names(table, columns)?;
        let before = rows.len() as u64;
        let staying = rows.into_iter().filter(|(mac, _)| !self.ledger.erased(mac, sealed_at));
        let staying: Vec<Row> = staying.map(|(_, row)| row).collect();
        let done = self.done.entry(collection).or_default();
        done.restored += staying.len() as u64;
        done.erased_since += before - staying.len() as u64;
        let grown: usize = staying.iter().flatten().map(value_bytes).sum();
        match &mut self.waiting {
            Some(waiting) if waiting.table == table.name && waiting.columns == names => {
                waiting.rows.extend(staying);
                waiting.bytes += grown;
            }
            _ => {
                self.flush().await?;
                self.waiting = Some(Waiting { table: table.name.clone(), columns: names, rows: staying, bytes: grown });
            }
        }
        let is_enough = |waiting: &Waiting| waiting.rows.len() >= INSERT_ROWS || waiting.bytes >= INSERT_BYTES;
        if self.waiting.as_ref().is_some_and(is_enough) {
            self.flush().await?;
        }
        Ok(())
    }
}

fn frame_report(chain: &OpenChain, snapshot: &OpenSnapshot, counts: &ChainCounts) -> RestoreReport {
    let (counts, (listed, packed)) = (&counts.all, chain.bytes());
    RestoreReport {
        snapshot: snapshot.row.id.clone(),
        frames_opened: counts.frames_in(FrameState::Opened),
        frames_shredded: counts.frames_in(FrameState::Shredded),
        frames_lost: counts.frames_in(FrameState::Lost),
        frames_corrupt: counts.frames_in(FrameState::Corrupt),
        frames: chain.frames(),
        bytes_read: listed + counts.pack_bytes,
        bytes_stored: listed + packed,
        ..RestoreReport::default()
    }
}

fn table_of<'a>(snapshot: &'a OpenSnapshot, name: &str) -> Result<&'a Table> {
    snapshot
        .schema
        .tables
        .iter()
        .find(|table| table.name == name)
        .ok_or_else(|| TaskError::Inconsistent(format!("the snapshot's schema lacks table {name}")))
}

fn column_names(table: &Table, ordinals: &[u16]) -> Result<Vec<String>> {
    ordinals
        .iter()
        .map(|ordinal| table.columns.get(usize::from(*ordinal)).map(|column| column.name.clone()))
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| TaskError::Inconsistent(format!("the snapshot has rows of columns that {} lacks", table.name)))
}

/// A row that holds these values of `key` and nothing else. What must differ in every row follows from them: another text for
/// every stub, the same in every restore.
fn stub(table: &Table, stored: &[&Column], (key, values): (&[String], &[Value]), engine: Engine) -> Result<Row> {
    let mut digest = [0; 8];
    digest.copy_from_slice(&crate::log::tree::sha256(&encode_values(values))[..8]);
    let value = |column: &&Column| {
        if let Some(at) = key.iter().position(|name| *name == column.name) {
            return Ok(values.get(at).cloned().unwrap_or(Value::Null));
        }
        let distinct = is_unique(table, column).then_some(&digest);
        // Without a distinct value of its type the same one is tried: a single stub does no harm.
        let found = neutral_value(column, engine, distinct).or_else(|| neutral_value(column, engine, None));
        found.ok_or_else(|| {
            TaskError::refused(
                format!(
                    "a stub of {} is needed, but its column {} of type {} cannot be left empty",
                    table.name, column.name, column.type_name
                ),
                "allow NULL there in the target",
            )
        })
    };
    stored.iter().map(value).collect()
}
