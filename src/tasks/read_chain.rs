//! Reads what a snapshot stands for: itself and, when it is an increment, everything that it continues, back to the full one.
//!
//! A collection is read at a time, parents first, and of it the newest snapshot first. Of each row the newest version counts, and
//! none that a newer snapshot names as removed. Memory holds one pack, the rows of a few chunks, the directories, and 16 bytes for
//! every row of the collection that the increments sealed or removed; nothing for the rows of the full snapshot.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;

use crate::backup::directory::{CellRef, FrameEntry};
use crate::backup::object_store::ObjectStore;
use crate::backup::removed::RowDigest;
use crate::control::SnapshotRow;
use crate::erase::Ground;
use crate::installation::ManifestSigner;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::plan::digest::row_mac;
use crate::stores::Table;
use crate::value::{Row, RowKey};

use super::read_snapshot::{FrameSink, HeldPack, OpenSnapshot, SnapshotCounts, open_some};
use super::selection::Selection;
use super::{Result, TaskError};

/// A snapshot with everything that it continues.
pub struct OpenChain {
    /// The snapshots, oldest first: a full one, its increments, and the one that was asked for.
    pub parts: Vec<OpenSnapshot>,
    names: RowNames,
}

/// What rows are known by.
struct RowNames {
    store: String,
    suppression: Key,
}

impl RowNames {
    fn mac(&self, table: &str, key: &RowKey) -> RowDigest {
        row_mac(&self.suppression, &self.store, table, key)
    }
}

/// Living versions of rows of one cell.
pub struct Versions<'v> {
    /// The collection's number.
    pub collection: u32,
    /// Its table.
    pub table: &'v Table,
    /// Ordinals of the columns.
    pub columns: &'v [u16],
    /// The cell they lie in.
    pub cell: CellRef,
    /// The ledger's position when the snapshot that sealed them was begun: what was erased since was these versions.
    pub sealed_at: i64,
    /// The rows with their digests.
    pub rows: Vec<(RowDigest, Row)>,
}

/// Takes the versions that count as they open.
#[async_trait]
pub trait VersionSink: Send {
    /// Rows of parents come before those of their children.
    async fn take(&mut self, versions: Versions<'_>) -> Result<()>;
}

/// What became of the frames of a chain, and of the row versions in them.
#[derive(Debug, Default)]
pub struct ChainCounts {
    /// All frames, and the rows in them.
    pub all: SnapshotCounts,
    /// Versions that a later snapshot replaced or removed, by collection.
    pub superseded: BTreeMap<u32, u64>,
    /// Versions that count, by collection.
    pub living: BTreeMap<u32, u64>,
}

/// Opens the chain of a snapshot up to itself.
///
/// # Errors
/// When one of its snapshots is missing or cannot be opened, or they do not belong together.
pub async fn open_chain(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    row: SnapshotRow,
) -> Result<OpenChain> {
    open_some_of_chain(ground, repository, signer, row, &Selection::default()).await
}

/// The same for some of its rows.
///
/// # Errors
/// As [`open_chain`], and when it has no such collection.
pub(super) async fn open_some_of_chain(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    row: SnapshotRow,
    selection: &Selection,
) -> Result<OpenChain> {
    let mut tx = ground.control.begin().await?;
    let rows = tx.chain_of(&row).await?;
    let suppression = ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?;
    tx.commit().await?;
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        parts.push(open_some(ground, repository, signer, row, selection).await?);
    }
    check_links(&parts)?;
    Ok(OpenChain { parts, names: RowNames { store: row.store, suppression } })
}

/// That each snapshot continues the one before, by their manifests, and that all have the same tables.
fn check_links(parts: &[OpenSnapshot]) -> Result<()> {
    let wrong =
        |part: &OpenSnapshot, what: &str| Err(TaskError::Inconsistent(format!("snapshot {} {what}", part.row.id)));
    for (number, part) in parts.iter().enumerate() {
        let before = number.checked_sub(1).and_then(|number| parts.get(number));
        let expected = before.and_then(|before| before.row.manifest_sha256.clone());
        if part.manifest.parent.map(|digest| digest.to_string()) != expected {
            return wrong(part, "does not continue the snapshot before it in its chain");
        }
        let Some(before) = before else { continue };
        if part.manifest.chain != before.manifest.chain || part.schema.tables != before.schema.tables {
            return wrong(part, "has another chain or other tables than the one that it continues");
        }
    }
    Ok(())
}

impl OpenChain {
    /// The snapshot that was asked for.
    ///
    /// # Errors
    /// Never: a chain has at least one.
    pub fn newest(&self) -> Result<&OpenSnapshot> {
        self.parts.last().ok_or_else(|| TaskError::Inconsistent("a chain without a snapshot".to_owned()))
    }

    /// The frames that are wanted of it; all those in its manifests, unless it was opened for a selection.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.parts.iter().map(OpenSnapshot::frames).sum()
    }

    /// The bytes of manifests and directories, and those of packs.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let packs = self.parts.iter().flat_map(|part| &part.manifest.packs);
        (self.parts.iter().map(|part| part.listing_bytes).sum(), packs.map(|pack| pack.bytes).sum())
    }

    /// Opens every frame that can be opened, and hands on the versions that count.
    ///
    /// # Errors
    /// When the object store or the sink fails; a damaged pack is not an error but makes its frames corrupt.
    pub async fn read(&self, repository: &dyn ObjectStore, sink: &mut dyn VersionSink) -> Result<ChainCounts> {
        let newest = self.newest()?;
        let mut counts = ChainCounts::default();
        let mut held: Vec<HeldPack> = self.parts.iter().map(|_| HeldPack::default()).collect();
        // The schema lists children before their parents.
        for captured in newest.schema.collections.iter().rev() {
            let table = newest.schema.tables.iter().find(|table| table.name == captured.table);
            let table = table.ok_or_else(|| {
                TaskError::Inconsistent(format!("the snapshot's schema lacks table {}", captured.table))
            })?;
            let mut seen: HashSet<RowDigest> = HashSet::new();
            for (number, part) in self.parts.iter().enumerate().rev() {
                let mut fold = Fold {
                    names: &self.names,
                    table,
                    seen: &seen,
                    touched: (number > 0).then(Vec::new),
                    sealed_at: part.row.ledger_position,
                    superseded: 0,
                    living: 0,
                    sink,
                };
                let held = &mut held[number];
                part.read_collection(captured.number, repository, held, &mut fold, &mut counts.all).await?;
                *counts.superseded.entry(captured.number).or_default() += fold.superseded;
                *counts.living.entry(captured.number).or_default() += fold.living;
                seen.extend(fold.touched.unwrap_or_default());
                // One pack in memory, not one for each snapshot.
                held.let_go_if_large();
            }
        }
        Ok(counts)
    }
}

/// Sorts the versions of one collection in one snapshot.
struct Fold<'f> {
    names: &'f RowNames,
    table: &'f Table,
    /// Rows of which a newer snapshot has a version, or that it removed.
    seen: &'f HashSet<RowDigest>,
    /// The same of this snapshot; none in the oldest, behind which nothing is read.
    touched: Option<Vec<RowDigest>>,
    sealed_at: i64,
    superseded: u64,
    living: u64,
    sink: &'f mut dyn VersionSink,
}

#[async_trait]
impl FrameSink for Fold<'_> {
    async fn rows(&mut self, entry: &FrameEntry, columns: &[u16], rows: Vec<Row>) -> Result<()> {
        let key_at = key_positions(self.table, columns)?;
        let mut living = Vec::with_capacity(rows.len());
        for row in rows {
            let key = RowKey(key_at.iter().filter_map(|at| row.get(*at)).cloned().collect());
            let mac = self.names.mac(&self.table.name, &key);
            if let Some(touched) = &mut self.touched {
                touched.push(mac);
            }
            if self.seen.contains(&mac) {
                self.superseded += 1;
            } else {
                living.push((mac, row));
            }
        }
        self.living += living.len() as u64;
        if living.is_empty() {
            return Ok(());
        }
        let (collection, cell, sealed_at, table) = (entry.collection, entry.cell, self.sealed_at, self.table);
        self.sink.take(Versions { collection, table, columns, cell, sealed_at, rows: living }).await
    }

    async fn removed(&mut self, _: &FrameEntry, rows: Vec<RowDigest>) -> Result<()> {
        if let Some(touched) = &mut self.touched {
            touched.extend(rows);
        }
        Ok(())
    }
}

/// Where the key's columns stand in rows of these columns.
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
