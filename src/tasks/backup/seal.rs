//! Reads the rows of a store and seals them, or those of them that changed, into packs and a directory.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;

use super::again::{Earlier, frames_of};
use super::cells::resolve_cells;
use super::changes::{Changes, Found, REMOVED_AT_ONCE};
use super::pending::Pending;
use super::{Begun, CellName};
use crate::backup::codec::Id128;
use crate::backup::directory::{
    CapturedSchema, CellRef, DirectoryBuilder, FrameEntry, PartKey, SealedPart, write_entries,
};
use crate::backup::envelope::HEADER_BYTES;
use crate::backup::frame::{
    FrameContent, FrameContext, FrameError, FrameKey, MAX_ROWS, MAX_SINGLE_ROW_BYTES, overhead_bytes, seal_frame,
    value_bytes,
};
use crate::backup::group::{ColumnGroup, group_columns, split_rows};
use crate::backup::manifest::{PackRef, PartRef};
use crate::backup::object_store::ObjectStore;
use crate::backup::pack::{FULL_AT_BYTES, PackBuilder};
use crate::backup::removed::{RemovedRows, seal_removed};
use crate::control::{CellRow, RowInCell, StoredPack, Tx};
use crate::crash_point;
use crate::erase::fate::bucket_of_row;
use crate::erase::planner::subject_lookup;
use crate::erase::survey::{OPEN, Shape, start_kind};
use crate::erase::{Ground, Site};
use crate::keyring::{KeyringError, cell_secret_in, slots_of_cells};
use crate::keys::cell::{CellSecret, derive_frame_key, derive_index_key};
use crate::keys::suite::Suite;
use crate::keys::tree::KeyTree;
use crate::plan::Subject;
use crate::plan::digest::{content_mac, row_mac};
use crate::plan::model::Collection;
use crate::policy::calendar::bucket_of;
use crate::policy::classification::{Cipher, classify, undeclared_cipher};
use crate::policy::start::{StartEvent, read_start};
use crate::stores::{ColumnRef, Filter, RowQuery, Snapshot};
use crate::tasks::{Result, TaskError};
use crate::value::{Row, Value};

/// The most rows read at once, and how many at first, when nothing is known of their size.
const PAGE: u32 = 1000;
const FIRST_PAGE: u32 = 50;
/// So many bytes are read at once, as far as the rows before tell.
const PAGE_BYTES: usize = 4 << 20;
/// Row bytes collected before they are sorted by cell and sealed; bounds the memory of a snapshot. Rows of one cell that are read far from
/// each other lie in one frame only if they are collected together; where they come together, more would cost memory for nothing.
const BUFFER_BYTES: usize = 16 << 20;
const GROUPED_BUFFER_BYTES: usize = 4 << 20;

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

/// The cells of buffered rows, with their secrets.
struct Resolved {
    cells: HashMap<CellName, CellRow>,
    secrets: HashMap<i64, CellSecret>,
}

impl Resolved {
    fn of(&self, name: &CellName) -> Result<(&CellRow, &CellSecret)> {
        let cell = self.cells.get(name);
        let cell = cell.ok_or_else(|| TaskError::Inconsistent("a cell was not resolved".to_owned()))?;
        let secret = self.secrets.get(&cell.id);
        Ok((cell, secret.ok_or_else(|| KeyringError::Lost("a cell of living rows".to_owned()))?))
    }
}

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
    pack: PackBuilder,
    /// A pack is closed at so many bytes.
    full_at: usize,
    packs: Vec<PackRef>,
    /// The frames of the pack that grows.
    entries: Vec<FrameEntry>,
    directory: DirectoryBuilder<'a>,
    parts: Vec<PartRef>,
    frames: u64,
    chunks: u32,
    rows: i64,
    living: i64,
    /// Rows of the pack that grows, each with its chunk, which history and index do not know yet.
    pending: Pending,
    /// What an increment compares with; none in a full snapshot.
    changes: Option<Changes>,
    /// Whether packs of an earlier try were taken over.
    goes_on: bool,
}

impl<'a> Sealer<'a> {
    pub(super) fn new(
        ground: &'a Ground<'a>,
        repository: &'a dyn ObjectStore,
        begun: &'a Begun,
        part_key: PartKey<'a>,
        changes: Option<Changes>,
    ) -> Self {
        let snapshot = Id128::parse(&begun.row.id).unwrap_or(Id128([0; 16]));
        Self {
            ground,
            repository,
            begun,
            // The first pack gets a fresh id before its first frame; this one is never used.
            pack: PackBuilder::new(Id128([0; 16])),
            full_at: crash_point::smaller("WANGCHUAN_PACK_BYTES", FULL_AT_BYTES),
            packs: Vec::new(),
            entries: Vec::new(),
            directory: DirectoryBuilder::new(begun.installation, snapshot, part_key, ground.random),
            parts: Vec::new(),
            frames: 0,
            chunks: 0,
            rows: 0,
            living: 0,
            pending: Pending::default(),
            changes,
            goes_on: false,
        }
    }

    /// Seals the rows of a collection, all or the changed ones, sorted by cell within the memory bound; or only compares them with those
    /// of an earlier try. Returns how many there are.
    pub(super) async fn read_collection(
        &mut self,
        site: &Site,
        (number, collection): (u32, &Collection),
        view: &mut dyn Snapshot,
        mut earlier: Option<&mut Earlier>,
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
        query.limit = FIRST_PAGE;
        // Rows of one cell that come together lie in one frame.
        let owner = collection.owner.as_ref().map(|owner| &owner.column);
        let is_grouped = owner.is_some() && view.is_grouping();
        let buffer_bytes = if is_grouped { GROUPED_BUFFER_BYTES } else { BUFFER_BYTES };
        let mut buffer = Buffer::new();
        let mut known = None;
        let (mut buffered, mut read_bytes, mut total) = (0, 0_usize, 0_u64);
        loop {
            let page = view.read_grouped(&query, owner).await?;
            let last = page.len() < query.limit as usize;
            let before = read_bytes;
            for mut row in page {
                let content = row.split_off(shape.width());
                let read = shape.read(row);
                query.after = Some(read.key.clone());
                let bytes = content.iter().map(value_bytes).sum::<usize>();
                (buffered, read_bytes) = (buffered + bytes, read_bytes + bytes);
                total += 1;
                let lookup = self.lookup(&mut known, read.subject);
                let name = self.cell_name(site, collection, lookup, read.start.as_ref());
                let row_mac =
                    row_mac(&self.begun.suppression, &site.model.spec.name, &collection.table.name, &read.key);
                buffer.entry(name).or_default().push(Waiting { row_mac, content });
            }
            query.limit = next_page(query.limit, read_bytes - before);
            if buffered >= buffer_bytes || last {
                let buffer = take(&mut buffer);
                match &mut earlier {
                    Some(earlier) => self.compare_buffer(earlier, buffer).await?,
                    None => self.seal_buffer(site, number, &groups, buffer).await?,
                }
                buffered = 0;
            }
            if last {
                self.living += if earlier.is_none() { total as i64 } else { 0 };
                return Ok(total);
            }
        }
    }

    /// The digest of a subject; the last one is kept, for its rows come together.
    fn lookup(&self, known: &mut Option<(Subject, Vec<u8>)>, subject: Option<Subject>) -> Vec<u8> {
        let Some(subject) = subject else { return Vec::new() };
        if let Some((_, lookup)) = known.as_ref().filter(|(last, _)| *last == subject) {
            return lookup.clone();
        }
        let lookup = subject_lookup(&self.begun.lookup, &subject).to_vec();
        *known = Some((subject, lookup.clone()));
        lookup
    }

    fn cell_name(&self, site: &Site, collection: &Collection, lookup: Vec<u8>, start: Option<&Value>) -> CellName {
        let zone = site.model.spec.timezone;
        let period = collection.governed.as_ref().zip(start).and_then(|(governed, value)| {
            match read_start(value, start_kind(governed.start.kind), zone, self.begun.row.begun_at) {
                StartEvent::At(at) => bucket_of(at, governed.policy.bucket, zone).ok().map(|period| period.to_string()),
                _ => None,
            }
        });
        (lookup, bucket_of_row(&site.model.spec.name, collection, period.as_deref().unwrap_or(OPEN)))
    }

    /// The cells of buffered rows; slots are made where there are none.
    async fn resolve(&self, tx: &mut Tx, buffer: &Buffer) -> Result<Resolved> {
        self.begun.keep_lease(self.ground, tx).await?;
        let cells = resolve_cells(self.ground, tx, &self.begun.pinned, buffer.keys()).await?;
        let secrets = self.secrets(tx, cells.values()).await?;
        Ok(Resolved { cells, secrets })
    }

    /// Buffered rows as they would be sealed now, in their order.
    fn found(&self, resolved: &Resolved, buffer: &Buffer) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for (name, waiting) in buffer {
            let (cell, secret) = resolved.of(name)?;
            let key = derive_index_key(secret, &self.begun.chain_key);
            found.extend(waiting.iter().map(|row| Found {
                row_mac: row.row_mac,
                cell: cell.id,
                content: content_mac(&key, &row.row_mac, &row.content),
            }));
        }
        Ok(found)
    }

    /// Compares rows with those that an earlier try sealed.
    async fn compare_buffer(&mut self, earlier: &mut Earlier, buffer: Buffer) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let mut tx = self.ground.control.begin().await?;
        let resolved = self.resolve(&mut tx, &buffer).await?;
        earlier.compare(&mut tx, &self.found(&resolved, &buffer)?).await?;
        Ok(tx.commit().await?)
    }

    /// Goes on behind packs of an earlier try.
    pub(super) async fn go_on(&mut self, earlier: Earlier) -> Result<()> {
        let fit = earlier.take_over(self.ground, self.begun).await?;
        for (number, pack) in (0..).zip(fit.packs) {
            let entries = frames_of(self.ground, self.begun, number).await?;
            self.packs.push(pack);
            // A frame of the first column group for every row.
            self.rows +=
                entries.iter().filter(|entry| entry.group == 0).map(|entry| i64::from(entry.rows)).sum::<i64>();
            self.list(entries.into_iter().map(|entry| FrameEntry { pack: number, ..entry }).collect()).await?;
        }
        self.goes_on = !self.packs.is_empty();
        self.chunks = fit.next_chunk;
        Ok(())
    }

    /// Makes slots durable for the rows that must be sealed, then seals them into packs; history and index know of them before a pack is
    /// stored. Many at once: each time pages all over the index of digests are written.
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
        tx.keep_more_pages().await?;
        let resolved = self.resolve(&mut tx, &buffer).await?;
        let found = self.found(&resolved, &buffer)?;
        let must_be_sealed = self.must_be_sealed(&mut tx, &found).await?;
        let (mut wanted, mut sorted) = (must_be_sealed.iter(), Vec::with_capacity(buffer.len()));
        let mut numbers = Vec::new();
        for (name, mut rows) in buffer {
            rows.retain(|_| wanted.next().copied().unwrap_or(true));
            self.rows += rows.len() as i64;
            let rows = rows.into_iter().map(|row| row.content).collect();
            let chunks = split_rows(collection, self.chunks, groups, rows)?;
            for chunk in &chunks {
                let rows = chunk.first().map_or(1, |content| content.rows.len());
                numbers.extend(std::iter::repeat_n(i64::from(self.chunks), rows));
                self.chunks += 1;
            }
            sorted.push((name, chunks));
        }
        tx.commit().await?;
        let sealed = found.into_iter().zip(&must_be_sealed).filter(|(_, is_wanted)| **is_wanted).map(|(row, _)| row);
        self.pending.add(sealed.zip(numbers));
        if self.pending.is_large() {
            self.pending.enter(self.ground, self.begun).await?;
        }
        let table = site.model.collections.get(collection as usize).map_or("", |known| known.table.name.as_str());
        for (name, chunks) in sorted {
            let (cell, secret) = resolved.of(&name)?;
            for chunk in chunks {
                self.seal_chunk((table, groups), (cell, secret), chunk).await?;
            }
        }
        self.seal_removed(site, REMOVED_AT_ONCE).await
    }

    /// Seals the column groups of a chunk, into one pack where it has room for them.
    async fn seal_chunk(
        &mut self,
        (table, groups): (&str, &[ColumnGroup]),
        (cell, secret): (&CellRow, &CellSecret),
        chunk: Vec<FrameContent>,
    ) -> Result<()> {
        let bytes = chunk.iter().map(most_bytes).sum();
        if chunk.len() > 1 && !self.pack.is_empty() && !self.pack.has_room(chunk.len(), bytes, self.full_at) {
            self.store_pack().await?;
        }
        for (number, content) in chunk.into_iter().enumerate() {
            let suite = groups.get(number).map_or(Suite::Intl, |group| group.suite);
            let (id, key, place) = self.next_frame(suite, secret)?;
            let frame = seal_frame(&content, suite, id, &key, &place).map_err(|error| too_large(error, table))?;
            let FrameContent { collection, chunk, .. } = content;
            let (rows, group, removed) = (content.rows.len() as u32, number as u8, false);
            self.append(&frame, cell, Part { collection, chunk, group, suite, rows, removed }).await?;
        }
        Ok(())
    }

    /// For each row whether it must be sealed: it changed, and no pack of an earlier try holds it.
    async fn must_be_sealed(&mut self, tx: &mut Tx, found: &[Found]) -> Result<Vec<bool>> {
        let mut wanted = match &mut self.changes {
            Some(changes) => changes.compare(tx, self.begun.row.number, found).await?,
            None => vec![true; found.len()],
        };
        if !self.goes_on {
            return Ok(wanted);
        }
        let rows: Vec<RowInCell> = found.iter().map(|row| (row.row_mac, row.cell)).collect();
        let taken = tx.entered_rows(self.begun.row.number, &rows).await?;
        let mut history = Vec::new();
        for (row, wanted) in found.iter().zip(&mut wanted).filter(|(row, _)| taken.contains_key(&row.row_mac)) {
            history.push((row.row_mac, row.cell));
            *wanted = false;
        }
        tx.note_sealed_rows(self.begun.row.number, &history).await?;
        Ok(wanted)
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
        if self.pack.is_full() || !self.pack.has_room(0, 0, self.full_at) {
            self.store_pack().await?;
        }
        Ok(())
    }

    /// Makes sealing history and change index durable, stores the pack, notes it, and lists its frames in the directory.
    async fn store_pack(&mut self) -> Result<()> {
        self.pending.enter(self.ground, self.begun).await?;
        let pack = std::mem::replace(&mut self.pack, PackBuilder::new(Id128([0; 16]))).finish();
        let entries = take(&mut self.entries);
        let chunks = || entries.iter().map(|entry| i64::from(entry.chunk));
        let stored = StoredPack {
            number: self.packs.len() as i64,
            sha256: pack.sha256.to_string(),
            bytes: pack.bytes.len() as i64,
            frames: i64::from(pack.frames),
            first_chunk: chunks().min().unwrap_or(0),
            last_chunk: chunks().max().unwrap_or(0),
        };
        let reference = PackRef { sha256: pack.sha256, bytes: pack.bytes.len() as u64, frames: pack.frames };
        self.repository.put_if_absent(&pack.name(), pack.bytes).await?;
        self.packs.push(reference);
        let mut tx = self.ground.control.begin().await?;
        self.begun.keep_lease(self.ground, &mut tx).await?;
        tx.note_stored_pack(self.begun.row.number, &stored, &write_entries(&entries)).await?;
        tx.commit().await?;
        crash_point::reached("backup.pack-stored");
        self.list(entries).await
    }

    /// Lists frames of a stored pack; parts of the directory are stored as they get full.
    async fn list(&mut self, entries: Vec<FrameEntry>) -> Result<()> {
        self.frames += entries.len() as u64;
        for entry in entries {
            if let Some(part) = self.directory.push(entry)? {
                store_part(self.repository, &mut self.parts, part).await?;
            }
        }
        Ok(())
    }

    /// Stores the last pack and the rest of the directory.
    pub(super) async fn finish(mut self, schema: CapturedSchema) -> Result<Sealed> {
        if !self.pack.is_empty() {
            self.store_pack().await?;
        }
        let Self { packs, directory, mut parts, rows, living, frames, repository, .. } = self;
        for part in directory.finish(schema)? {
            store_part(repository, &mut parts, part).await?;
        }
        Ok(Sealed { packs, directory: parts, rows, living, frames })
    }
}

async fn store_part(repository: &dyn ObjectStore, parts: &mut Vec<PartRef>, part: SealedPart) -> Result<()> {
    parts.push(PartRef { sha256: part.sha256, bytes: part.bytes.len() as u64 });
    repository.put_if_absent(&part.name(), part.bytes).await?;
    Ok(())
}

/// How many rows are read next, when the page before had so many rows and bytes: what fits, and not many times more than before.
fn next_page(rows: u32, bytes: usize) -> u32 {
    let fits = u64::from(rows) * PAGE_BYTES as u64 / bytes.max(1) as u64;
    fits.clamp(1, u64::from(rows.saturating_mul(4).min(PAGE))) as u32
}

/// Says which table has a row that no frame takes.
fn too_large(error: FrameError, table: &str) -> TaskError {
    match error {
        FrameError::TooLarge { bytes, .. } => TaskError::refused(
            format!(
                "a row of {table} has {bytes} bytes; a backup takes rows of {} MiB at most",
                MAX_SINGLE_ROW_BYTES >> 20
            ),
            "keep such values outside of the table, or split them over rows; the store has no backup until then",
        ),
        other => other.into(),
    }
}

/// The most bytes that a frame of this content takes, padding included.
fn most_bytes(content: &FrameContent) -> usize {
    let values: usize = content.rows.iter().flatten().map(value_bytes).sum();
    let bytes = values + overhead_bytes(content.columns.len()) + HEADER_BYTES + 64;
    bytes + bytes / 8
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
            (!column.generated).then_some(suite_of(cipher))
        })
        .collect()
}

/// The suite that stands for a class's cipher.
#[must_use]
pub fn suite_of(cipher: Cipher) -> Suite {
    match cipher {
        Cipher::Aes => Suite::Intl,
        Cipher::Sm4 => Suite::Gm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_size_of_rows() {
        assert_eq!(next_page(FIRST_PAGE, 0), 200);
        assert_eq!(next_page(200, 200 * 300), 800);
        assert_eq!(next_page(800, 800 * 300), PAGE);
        assert_eq!(next_page(PAGE, 1000 << 20), 4);
        assert_eq!(next_page(4, 4 * (40 << 20)), 1);
        assert_eq!(next_page(1, 10), 4);
    }
}
