//! `restore`: puts a snapshot's rows into a database, the ledger first.
//!
//! A row version that the ledger erased after the snapshot was begun never comes back, whether its key is destroyed yet or
//! not. A parent that is gone while its child lives is replaced by a stub that holds only its key. Never over existing rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::backup::object_store::ObjectStore;
use crate::control::SnapshotRow;
use crate::crash_point;
use crate::erase::Ground;
use crate::installation::ManifestSigner;
use crate::keyring::Purpose;
use crate::plan::digest::row_mac;
use crate::stop::Stop;
use crate::stores::{Column, ColumnKind, DataStore, Engine, Restore, Table};
use crate::value::{Row, RowKey, Value, encode_values};

use super::read_snapshot::{FrameState, OpenSnapshot, SnapshotRows, open};
use super::{Result, TaskError};

/// Rows inserted at once.
const INSERT_ROWS: usize = 500;

/// What a restore did with one collection; all counts are rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RestoredCollection {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// Rows put back.
    pub restored: u64,
    /// Rows whose key is destroyed.
    pub shredded: u64,
    /// Rows whose key is missing without having been destroyed.
    pub lost: u64,
    /// Rows in damaged frames.
    pub corrupt: u64,
    /// Rows that opened but that the ledger erased since.
    pub erased_since: u64,
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
    /// Frames in the manifest.
    pub frames: u64,
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

/// What came out of a snapshot, before it is put anywhere.
pub struct Recovered {
    /// The opened snapshot.
    pub snapshot: OpenSnapshot,
    /// Rows by collection number, after the ledger.
    pub rows: BTreeMap<u32, Vec<Row>>,
    /// The report so far.
    pub report: RestoreReport,
}

/// Reads a snapshot and applies the ledger.
///
/// # Errors
/// When it cannot be read, or an erasure is in the middle of happening (hard stop: the ledger must be settled first).
pub async fn recover_rows(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    row: SnapshotRow,
) -> Result<Recovered> {
    let snapshot = open(ground, repository, signer, row).await?;
    let read = snapshot.read(repository).await?;
    let mut tx = ground.control.begin().await?;
    let entries = tx.ledger_after(&snapshot.row.store, snapshot.row.ledger_position).await?;
    let suppression = ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?;
    tx.commit().await?;
    if entries.iter().any(|entry| entry.state == "intended") {
        return Err(TaskError::refused(
            "an erasure was interrupted and its outcome is not settled yet, so the ledger cannot be applied",
            "run `wangchuan agent --once` first; it settles what was interrupted",
        ));
    }
    let gone: HashSet<[u8; 16]> = entries.into_iter().map(|entry| entry.row_mac).collect();
    let mut recovered = Recovered { report: frame_report(&snapshot, &read), rows: BTreeMap::new(), snapshot };
    for captured in recovered.snapshot.schema.collections.iter().rev() {
        let mut counts = RestoredCollection {
            store: recovered.snapshot.row.store.clone(),
            collection: captured.table.clone(),
            ..RestoredCollection::default()
        };
        let in_state = |state| read.row_states.get(&(captured.number, state)).copied().unwrap_or(0);
        counts.shredded = in_state(FrameState::Shredded);
        counts.lost = in_state(FrameState::Lost);
        counts.corrupt = in_state(FrameState::Corrupt);
        let table = table_of(&recovered.snapshot, &captured.table)?;
        let mut kept = Vec::new();
        if let Some((columns, rows)) = read.rows.get(&captured.number) {
            let key_at = key_positions(table, columns)?;
            for row in rows {
                let key = RowKey(key_at.iter().filter_map(|at| row.get(*at)).cloned().collect());
                if gone.contains(&row_mac(&suppression, &recovered.snapshot.row.store, &captured.table, &key)) {
                    counts.erased_since += 1;
                } else {
                    kept.push(row.clone());
                }
            }
        }
        counts.restored = kept.len() as u64;
        recovered.rows.insert(captured.number, kept);
        recovered.report.collections.push(counts);
    }
    Ok(recovered)
}

fn frame_report(snapshot: &OpenSnapshot, read: &SnapshotRows) -> RestoreReport {
    RestoreReport {
        snapshot: snapshot.row.id.clone(),
        frames_opened: read.frames_in(FrameState::Opened),
        frames_shredded: read.frames_in(FrameState::Shredded),
        frames_lost: read.frames_in(FrameState::Lost),
        frames_corrupt: read.frames_in(FrameState::Corrupt),
        frames: snapshot.manifest.frames,
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

fn key_positions(table: &Table, columns: &[u16]) -> Result<Vec<usize>> {
    table
        .key
        .iter()
        .map(|name| {
            let ordinal = table.columns.iter().position(|column| column.name == *name);
            ordinal.and_then(|ordinal| columns.iter().position(|known| usize::from(*known) == ordinal))
        })
        .collect::<Option<Vec<usize>>>()
        .ok_or_else(|| TaskError::Inconsistent(format!("the snapshot lacks key columns of {}", table.name)))
}

/// Columns in the order in which rows of the snapshot carry them.
fn stored_columns(table: &Table) -> Vec<String> {
    table.columns.iter().filter(|column| !column.generated).map(|column| column.name.clone()).collect()
}

/// Puts recovered rows into a database.
///
/// # Errors
/// Refused when a table holds rows already; nothing is changed then, nor at any failure.
pub async fn restore_into(target: &dyn DataStore, recovered: Recovered) -> Result<RestoreReport> {
    restore_until(&Stop::default(), target, recovered).await
}

/// The same, given up when a stop is asked for.
///
/// # Errors
/// As [`restore_into`], and [`TaskError::Stopping`]; nothing is changed at any of them.
pub async fn restore_until(stop: &Stop, target: &dyn DataStore, recovered: Recovered) -> Result<RestoreReport> {
    Ok(restore_rows(stop, target, recovered).await?.0)
}

/// Tables and encoded keys of the stubs that a restore put in. Holds customer data.
pub(super) type StubKeys = HashSet<(String, Vec<u8>)>;

/// The same, with the keys of the stubs.
pub(super) async fn restore_rows(
    stop: &Stop,
    target: &dyn DataStore,
    mut recovered: Recovered,
) -> Result<(RestoreReport, StubKeys)> {
    let engine = recovered.snapshot.schema.engine;
    if target.engine() != engine {
        return Err(TaskError::refused(
            format!("the snapshot is of {engine:?}, the target is {:?}", target.engine()),
            "restore into a database of the same engine",
        ));
    }
    let tables = recovered.snapshot.schema.tables.clone();
    let (mut into, notes) = target.begin_restore(&tables).await?;
    recovered.report.notes.extend(notes);
    let done = fill(stop, into.as_mut(), &mut recovered, engine).await;
    match done {
        Ok(stubs) => {
            let violations = into.finish(false).await?;
            if !violations.is_empty() {
                return Err(TaskError::refused(
                    format!("the restored rows violate foreign keys: {}", violations.join("; ")),
                    "restore into a database whose reference tables are loaded, or into an empty one",
                ));
            }
            Ok((recovered.report, stubs))
        }
        Err(error) => {
            into.roll_back().await?;
            Err(error)
        }
    }
}

async fn fill(stop: &Stop, into: &mut dyn Restore, recovered: &mut Recovered, engine: Engine) -> Result<StubKeys> {
    let parents_first: Vec<(u32, String)> = recovered
        .snapshot
        .schema
        .collections
        .iter()
        .rev()
        .map(|captured| (captured.number, captured.table.clone()))
        .collect();
    for (_, name) in &parents_first {
        let rows = into.count(name).await?;
        if rows > 0 {
            return Err(TaskError::refused(
                format!("table {name} of the target holds {rows} rows; a restore never writes over existing rows"),
                "restore into an empty database, or empty the registered tables first",
            ));
        }
    }
    let stubs = make_stubs(recovered, engine)?;
    for (number, name) in &parents_first {
        let table = table_of(&recovered.snapshot, name)?;
        let columns = stored_columns(table);
        let own = recovered.rows.get(number).map_or(&[][..], Vec::as_slice);
        let added = stubs.get(name).map_or(&[][..], Vec::as_slice);
        for rows in own.chunks(INSERT_ROWS).chain(added.chunks(INSERT_ROWS)) {
            into.insert(name, &columns, rows).await?;
            crash_point::reached("restore.rows-written");
            if stop.is_asked() {
                return Err(TaskError::Stopping);
            }
        }
        let count = added.len() as u64;
        if let Some(counts) = recovered.report.collections.iter_mut().find(|counts| counts.collection == *name) {
            counts.stubs = count;
        }
    }
    let mut keys = StubKeys::new();
    for (name, rows) in &stubs {
        let table = table_of(&recovered.snapshot, name)?;
        keys.extend(rows.iter().map(|row| (name.clone(), encode_values(&pick(table, row, &table.key)))));
    }
    Ok(keys)
}

/// Key-only rows for parents that are gone while a child refers to them.
fn make_stubs(recovered: &Recovered, engine: Engine) -> Result<HashMap<String, Vec<Row>>> {
    let schema = &recovered.snapshot.schema;
    let numbers: HashMap<&str, u32> =
        schema.collections.iter().map(|captured| (captured.table.as_str(), captured.number)).collect();
    let mut stubs: HashMap<String, Vec<Row>> = HashMap::new();
    // Children first, so that a stub that itself has a parent is seen by that parent.
    for captured in &schema.collections {
        let table = table_of(&recovered.snapshot, &captured.table)?;
        for key in &table.foreign_keys {
            let Some(parent_number) = numbers.get(key.parent.as_str()) else { continue };
            let parent = table_of(&recovered.snapshot, &key.parent)?;
            let present: HashSet<Vec<u8>> = recovered
                .rows
                .get(parent_number)
                .into_iter()
                .flatten()
                .chain(stubs.get(&key.parent).into_iter().flatten())
                .map(|row| encode_values(&pick(parent, row, &key.parent_columns)))
                .collect();
            let mut missing: BTreeMap<Vec<u8>, Vec<Value>> = BTreeMap::new();
            let rows = recovered
                .rows
                .get(&captured.number)
                .into_iter()
                .flatten()
                .chain(stubs.get(&captured.table).into_iter().flatten());
            for row in rows {
                let wanted = pick(table, row, &key.columns);
                let encoded = encode_values(&wanted);
                if !wanted.contains(&Value::Null) && !present.contains(&encoded) {
                    missing.insert(encoded, wanted);
                }
            }
            for values in missing.into_values() {
                stubs.entry(key.parent.clone()).or_default().push(stub(parent, &key.parent_columns, &values, engine)?);
            }
        }
    }
    Ok(stubs)
}

fn pick(table: &Table, row: &Row, columns: &[String]) -> Vec<Value> {
    let stored = stored_columns(table);
    columns
        .iter()
        .map(|name| {
            stored.iter().position(|known| known == name).and_then(|at| row.get(at)).cloned().unwrap_or(Value::Null)
        })
        .collect()
}

fn stub(table: &Table, key: &[String], values: &[Value], engine: Engine) -> Result<Row> {
    table
        .columns
        .iter()
        .filter(|column| !column.generated)
        .map(|column| match key.iter().position(|name| *name == column.name) {
            Some(at) => Ok(values.get(at).cloned().unwrap_or(Value::Null)),
            None if is_unique_text(table, column) => Ok(Value::Text(digest_of(values))),
            None => neutral(table, column, engine),
        })
        .collect()
}

/// Whether two stubs with the same text there would be refused.
fn is_unique_text(table: &Table, column: &Column) -> bool {
    let unique = table.key.contains(&column.name) || table.unique.iter().any(|columns| columns.contains(&column.name));
    unique && !column.nullable && column.kind == Some(ColumnKind::Text)
}

/// 16 hex digits that follow from a stub's key: another text for every stub, the same in every restore.
fn digest_of(key: &[Value]) -> String {
    hex::encode(&crate::log::tree::sha256(&encode_values(key))[..8])
}

fn neutral(table: &Table, column: &Column, engine: Engine) -> Result<Value> {
    if column.nullable {
        return Ok(Value::Null);
    }
    let zero = || if engine == Engine::Sqlite { Value::Integer(0) } else { Value::Text("0".to_owned()) };
    match column.kind {
        Some(ColumnKind::Text) => Ok(Value::Text(String::new())),
        Some(ColumnKind::Integer | ColumnKind::Real | ColumnKind::Decimal) => Ok(zero()),
        Some(ColumnKind::Boolean) => {
            Ok(if engine == Engine::Postgres { Value::Text("false".to_owned()) } else { zero() })
        }
        Some(ColumnKind::Bytes) => Ok(Value::Blob(Vec::new())),
        Some(ColumnKind::Date) => Ok(Value::Text("1970-01-01".to_owned())),
        Some(ColumnKind::LocalTime | ColumnKind::Instant) => Ok(Value::Text("1970-01-01 00:00:00".to_owned())),
        Some(ColumnKind::Other) | None => Err(TaskError::refused(
            format!(
                "a stub of {} is needed, but its column {} of type {} cannot be left empty",
                table.name, column.name, column.type_name
            ),
            "allow NULL there in the target",
        )),
    }
}
