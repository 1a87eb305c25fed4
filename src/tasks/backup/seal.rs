//! Reads the rows of a store and seals them, or those of them that changed, into packs and a directory.

use std::collections::{BTreeMap, HashMap};

use super::cells::resolve_cells;
use super::changes::{Changes, Found, REMOVED_AT_ONCE};
use super::{Begun, CellName, DIRECTORY_PURPOSE};
use crate::backup::codec::Id128;
use crate::backup::directory::{CapturedSchema, CellRef, DirectoryBuilder, FrameEntry, SealedPart};
use crate::backup::frame::{FrameContext, FrameKey, MAX_ROWS, seal_frame};
use crate::backup::group::{ColumnGroup, group_columns, split_rows};
use crate::backup::manifest::{PackRef, PartRef};
use crate::backup::object_store::ObjectStore;
use crate::backup::pack::PackBuilder;
use crate::backup::removed::{RemovedRows, seal_removed};
use crate::control::{CellRow, IndexEntry, Tx};
use crate::crash_point;
use crate::erase::fate::bucket_of_row;
use crate::erase::planner::subject_lookup;
use crate::erase::survey::{OPEN, Shape, start_kind};
use crate::erase::{Ground, Site};
use crate::keyring::{KeyringError, cell_secret_in, slots_of_cells};
use crate::keys::cell::{CellSecret, derive_chain_part_key, derive_frame_key, derive_index_key};
use crate::keys::suite::Suite;
use crate::keys::tree::KeyTree;
use crate::plan::digest::{content_mac, row_mac};
use crate::plan::model::Collection;
use crate::policy::calendar::bucket_of;
use crate::policy::classification::{Cipher, classify, undeclared_cipher};
use crate::policy::start::{StartEvent, read_start};
use crate::stores::{ColumnRef, Filter, RowQuery, Snapshot};
use crate::tasks::{Result, TaskError};
use crate::value::{Row, Value, encode_values};

/// Rows read at once.
const PAGE: u32 = 1000;
/// Row bytes collected before they are sorted by cell and sealed; bounds the memory of a snapshot.
const BUFFER_BYTES: usize = 32 << 20;

/// What was sealed and stored.
pub(super) struct Sealed {
    pub packs: Vec<PackRef>,
    pub directory: Vec<PartRef>,
    pub rows: i64,
    pub living: i64,
    pub frames: u64,
}

/// A row before it is known whether it must be sealed.
struct Waiting {
    row_mac: [u8; 16],
    content: Row,
}

type Buffer = BTreeMap<CellName, Vec<Waiting>>;

/// What a frame holds.
struct Part {
    collection: u32,
    chunk: u32,
    group: u8,
    suite: Suite,
    rows: u32,
    removed: bool,
}

/// Seals what a snapshot consists of, as it comes.
pub(super) struct Sealer<'a> {
    ground: &'a Ground<'a>,
    repository: &'a dyn ObjectStore,
    begun: &'a Begun,
    snapshot: Id128,
    pack: PackBuilder,
    packs: Vec<PackRef>,
    entries: Vec<FrameEntry>,
    chunks: u32,
    rows: i64,
    living: i64,
    /// What an increment compares with; none in a full snapshot.
    changes: Option<Changes>,
}

impl<'a> Sealer<'a> {
    pub(super) fn new(
        ground: &'a Ground<'a>,
        repository: &'a dyn ObjectStore,
        begun: &'a Begun,
        changes: Option<Changes>,
    ) -> Self {
        let snapshot = Id128::parse(&begun.row.id).unwrap_or(Id128([0; 16]));
        // The first pack gets a fresh id before its first frame; this one is never used.
        let pack = PackBuilder::new(Id128([0; 16]));
        let (packs, entries) = (Vec::new(), Vec::new());
        Self { ground, repository, begun, snapshot, pack, packs, entries, chunks: 0, rows: 0, living: 0, changes }
    }

    /// Seals the rows of a collection, all or the changed ones, sorted by cell within the memory bound. Returns how many there are.
    pub(super) async fn seal_collection(
        &mut self,
        site: &Site,
        collection: &Collection,
        number: u32,
        view: &mut dyn Snapshot,
    ) -> Result<u64> {
        let shape = Shape::of(collection);
        let groups = group_columns(&suites(collection));
        let stored: Vec<&str> = collection
            .table
            .columns
            .iter()
            .filter(|column| !column.generated)
            .map(|column| column.name.as_str())
            .collect();
        let mut query: RowQuery = shape.query(collection, Filter::All);
        query.columns.extend(stored.iter().map(|column| ColumnRef::own(column)));
        query.limit = PAGE;
        let mut buffer = Buffer::new();
        let (mut buffered, mut total) = (0, 0_u64);
        loop {
            let page = view.read(&query).await?;
            let last = page.len() < PAGE as usize;
            for mut row in page {
                let content = row.split_off(shape.width());
                let read = shape.read(row);
                query.after = Some(read.key.clone());
                buffered += encode_values(&content).len();
                total += 1;
                let name = self.cell_name(site, collection, read.subject.as_ref(), read.start.as_ref());
                let row_mac =
                    row_mac(&self.begun.suppression, &site.model.spec.name, &collection.table.name, &read.key);
                buffer.entry(name).or_default().push(Waiting { row_mac, content });
            }
            if buffered >= BUFFER_BYTES || last {
                self.seal_buffer(site, number, &groups, std::mem::take(&mut buffer)).await?;
                buffered = 0;
            }
            if last {
                self.living += total as i64;
                return Ok(total);
            }
        }
    }

    fn cell_name(
        &self,
        site: &Site,
        collection: &Collection,
        subject: Option<&crate::plan::Subject>,
        start: Option<&Value>,
    ) -> CellName {
        let zone = site.model.spec.timezone;
        let period = collection.governed.as_ref().zip(start).and_then(|(governed, value)| {
            match read_start(value, start_kind(governed.start.kind), zone, self.begun.row.begun_at) {
                StartEvent::At(at) => bucket_of(at, governed.policy.bucket, zone).ok().map(|period| period.to_string()),
                _ => None,
            }
        });
        let lookup = subject.map(|subject| subject_lookup(&self.begun.lookup, subject).to_vec()).unwrap_or_default();
        (lookup, bucket_of_row(&site.model.spec.name, collection, period.as_deref().unwrap_or(OPEN)))
    }

    /// Makes slots, sealing history and change index durable for the rows that must be sealed, then seals them into packs.
    async fn seal_buffer(
        &mut self,
        site: &Site,
        collection: u32,
        groups: &[ColumnGroup],
        buffer: Buffer,
    ) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let mut tx = self.ground.control.begin().await?;
        self.begun.keep_lease(self.ground, &mut tx).await?;
        let cells = resolve_cells(self.ground, &mut tx, &self.begun.pinned, buffer.keys()).await?;
        let secrets = self.secrets(&mut tx, cells.values()).await?;
        let (mut sorted, mut found) = (Vec::with_capacity(buffer.len()), Vec::new());
        for (name, waiting) in buffer {
            let cell = cells.get(&name).ok_or_else(|| TaskError::Inconsistent("a cell was not resolved".to_owned()))?;
            let secret = secrets.get(&cell.id).ok_or_else(|| KeyringError::Lost("a cell of living rows".to_owned()))?;
            let key = derive_index_key(secret, &self.begun.chain_key);
            found.extend(waiting.iter().map(|row| Found {
                row_mac: row.row_mac,
                cell: cell.id,
                content: content_mac(&key, &row.row_mac, &row.content),
            }));
            sorted.push((cell, secret, waiting));
        }
        let mut changed = self.enter(&mut tx, &found).await?.into_iter();
        tx.commit().await?;
        for (cell, secret, mut rows) in sorted {
            rows.retain(|_| changed.next().unwrap_or(true));
            self.rows += rows.len() as i64;
            let rows = rows.into_iter().map(|row| row.content).collect();
            for chunk in split_rows(collection, self.chunks, groups, rows)? {
                self.chunks += 1;
                for (number, content) in chunk.into_iter().enumerate() {
                    let suite = groups.get(number).map_or(Suite::Intl, |group| group.suite);
                    let (id, key, place) = self.next_frame(suite, secret)?;
                    let frame = seal_frame(&content, suite, id, &key, &place)?;
                    let (chunk, rows) = (content.chunk, content.rows.len() as u32);
                    let (group, removed) = (number as u8, false);
                    self.append(&frame, cell, Part { collection, chunk, group, suite, rows, removed }).await?;
                }
            }
        }
        self.seal_removed(site, REMOVED_AT_ONCE).await
    }

    /// Which rows must be sealed; those are entered into history and index.
    async fn enter(&mut self, tx: &mut Tx, found: &[Found]) -> Result<Vec<bool>> {
        let changed = match &mut self.changes {
            Some(changes) => changes.compare(tx, found).await?,
            None => vec![true; found.len()],
        };
        let must_be_sealed = || found.iter().zip(&changed).filter(|(_, is_changed)| **is_changed).map(|(row, _)| row);
        let history: Vec<_> = must_be_sealed().map(|row| (row.row_mac, row.cell)).collect();
        let entry = |row: &Found| IndexEntry { row_mac: row.row_mac, sealed: Some((row.cell, row.content)) };
        let entries: Vec<_> = must_be_sealed().map(entry).collect();
        tx.note_sealed_rows(self.begun.row.number, &history).await?;
        tx.enter_changes(self.begun.row.number, &entries).await?;
        Ok(changed)
    }

    /// The secrets of cells, by id; of those only whose keys are there.
    async fn secrets<'c>(
        &self,
        tx: &mut Tx,
        cells: impl Iterator<Item = &'c CellRow> + Clone,
    ) -> Result<HashMap<i64, CellSecret>> {
        let slots = slots_of_cells(cells.clone());
        let find = |tree: &KeyTree| {
            cells
                .map(|cell| Ok::<_, KeyringError>(cell_secret_in(tree, cell)?.map(|secret| (cell.id, secret))))
                .filter_map(Result::transpose)
                .collect::<Result<HashMap<_, _>, _>>()
        };
        Ok(self.ground.keyring.with_tree(tx, &slots, find).await??)
    }

    /// After every collection: names the rows as removed that the store has no more.
    pub(super) async fn seal_what_is_gone(&mut self, site: &Site) -> Result<()> {
        let mut after = Some(0);
        while let (Some(behind), Some(changes)) = (after, &mut self.changes) {
            let mut tx = self.ground.control.begin().await?;
            self.begun.keep_lease(self.ground, &mut tx).await?;
            after = changes.find_removed(&mut tx, self.begun.row.number, behind).await?;
            tx.commit().await?;
            self.seal_removed(site, REMOVED_AT_ONCE).await?;
        }
        self.seal_removed(site, 1).await
    }

    /// Seals the removed rows that wait once there are so many, each under the cell in which its version lies. What lies in a dead
    /// cell opens no more and needs no mention.
    async fn seal_removed(&mut self, site: &Site, at_least: usize) -> Result<()> {
        let Some(changes) = self.changes.as_mut().filter(|changes| changes.waiting() >= at_least) else {
            return Ok(());
        };
        let by_cell = changes.take_removed();
        let mut tx = self.ground.control.begin().await?;
        let mut cells = Vec::new();
        for id in by_cell.keys() {
            let Some(cell) = tx.living_cell(*id).await? else { continue };
            let name = tx.bucket_name(cell.bucket).await?.map(|(name, _)| name.collection);
            let number = name.and_then(|name| site.model.collection(&name)).map(|(number, _)| number as u32);
            let unknown = || TaskError::Inconsistent("a removed row lay in a collection that is not there".to_owned());
            cells.push((cell, number.ok_or_else(unknown)?));
        }
        let secrets = self.secrets(&mut tx, cells.iter().map(|(cell, _)| cell)).await?;
        tx.commit().await?;
        for (cell, collection) in cells {
            let (Some(secret), Some(gone)) = (secrets.get(&cell.id), by_cell.get(&cell.id)) else { continue };
            let mut gone = gone.clone();
            gone.sort_unstable();
            for rows in gone.chunks(MAX_ROWS) {
                let (suite, chunk) = (Suite::Intl, self.chunks);
                self.chunks += 1;
                let (id, key, place) = self.next_frame(suite, secret)?;
                let content = RemovedRows { collection, chunk, rows: rows.to_vec() };
                let frame = seal_removed(&content, suite, id, &key, &place)?;
                let (group, rows, removed) = (0, rows.len() as u32, true);
                self.append(&frame, &cell, Part { collection, chunk, group, suite, rows, removed }).await?;
            }
        }
        Ok(())
    }

    /// Id, key and place of the next frame.
    fn next_frame(&mut self, suite: Suite, secret: &CellSecret) -> Result<(Id128, FrameKey, FrameContext)> {
        if self.pack.is_empty() {
            self.pack = PackBuilder::new(Id128::make(self.ground.random)?);
        }
        let id = Id128::make(self.ground.random)?;
        let key = derive_frame_key(suite, secret, &self.begun.chain_key, &id.0);
        Ok((id, key, self.pack.next_context(self.begun.installation)))
    }

    async fn append(&mut self, frame: &[u8], cell: &CellRow, part: Part) -> Result<()> {
        let place = self.pack.append(frame)?;
        let Part { collection, chunk, group, suite, rows, removed } = part;
        self.entries.push(FrameEntry {
            pack: self.packs.len() as u32,
            ordinal: place.ordinal,
            offset: place.offset,
            length: place.length,
            cell: CellRef { subject: cell.subject, bucket: cell.bucket, pin: cell.fresh },
            collection,
            chunk,
            group,
            suite,
            rows,
            removed,
        });
        if self.pack.is_full() {
            self.store_pack().await?;
        }
        Ok(())
    }

    async fn store_pack(&mut self) -> Result<()> {
        let pack = std::mem::replace(&mut self.pack, PackBuilder::new(Id128([0; 16]))).finish();
        let reference = PackRef { sha256: pack.sha256, bytes: pack.bytes.len() as u64, frames: pack.frames };
        self.repository.put_if_absent(&pack.name(), pack.bytes).await?;
        self.packs.push(reference);
        let mut tx = self.ground.control.begin().await?;
        self.begun.keep_lease(self.ground, &mut tx).await?;
        tx.commit().await?;
        crash_point::reached("backup.pack-stored");
        Ok(())
    }

    /// Stores the last pack and the directory.
    pub(super) async fn finish(mut self, schema: CapturedSchema) -> Result<Sealed> {
        if !self.pack.is_empty() {
            self.store_pack().await?;
        }
        let frames = self.entries.len() as u64;
        let chain_key = &self.begun.chain_key;
        let part_key = |id: &Id128| derive_chain_part_key(Suite::Intl, chain_key, DIRECTORY_PURPOSE, &id.0);
        let mut builder = DirectoryBuilder::new(self.begun.installation, self.snapshot, &part_key, self.ground.random);
        let mut parts: Vec<SealedPart> = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            parts.extend(builder.push(entry)?);
        }
        parts.extend(builder.finish(schema)?);
        let mut directory = Vec::new();
        for part in parts {
            directory.push(PartRef { sha256: part.sha256, bytes: part.bytes.len() as u64 });
            self.repository.put_if_absent(&part.name(), part.bytes).await?;
        }
        Ok(Sealed { packs: self.packs, directory, rows: self.rows, living: self.living, frames })
    }
}

/// The suite of every column; none for columns that the engine computes.
pub(super) fn suites(collection: &Collection) -> Vec<Option<Suite>> {
    collection
        .table
        .columns
        .iter()
        .map(|column| {
            let cipher =
                collection.spec.fields.get(&column.name).map_or_else(undeclared_cipher, |field| classify(field).cipher);
            (!column.generated).then_some(match cipher {
                Cipher::Aes => Suite::Intl,
                Cipher::Sm4 => Suite::Gm,
            })
        })
        .collect()
}
