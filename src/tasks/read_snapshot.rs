//! Reads a committed snapshot back: every frame of its directory is opened, or said to be shredded, lost or corrupt.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use async_trait::async_trait;

use crate::backup::codec::{Id128, Sha256};
use crate::backup::directory::{
    CellRef, DirectoryPart, FrameEntry, MAX_PART_BYTES, check_complete, directory_name, open_part,
};
use crate::backup::frame::{FrameContent, FrameContext, FrameError, open_frame};
use crate::backup::group::rejoin;
use crate::backup::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::backup::object_store::ObjectStore;
use crate::backup::removed::{RowDigest, open_removed};
use crate::backup::schema::CapturedSchema;
use crate::control::{CellRow, SnapshotRow, Tx};
use crate::erase::Ground;
use crate::installation::ManifestSigner;
use crate::keyring::{KeyringError, cell_secret_in, slots_of_cells};
use crate::keys::Key;
use crate::keys::cell::{CellSecret, FrameKey, derive_chain_part_key, derive_frame_key};
use crate::keys::suite::Suite;
use crate::keys::tree::{KeyTree, Subtree};
use crate::value::Row;

use super::backup::DIRECTORY_PURPOSE;
use super::read_pack::{self, FoundFrame, PackBytes};
use super::selection::Selection;
use super::{Result, TaskError};

/// A pack, or what was read of it, of which every snapshot of a chain may keep one.
const SMALL_PACK_BYTES: usize = 1 << 20;

/// What a frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameState {
    /// It opened.
    Opened,
    /// Its key was destroyed on purpose.
    Shredded,
    /// Its key should be there and is not.
    Lost,
    /// Its bytes are not what was sealed.
    Corrupt,
}

/// A snapshot whose manifest and directory were read.
pub struct OpenSnapshot {
    /// The control database's row of it.
    pub row: SnapshotRow,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its captured schema.
    pub schema: CapturedSchema,
    /// The frames that are wanted of it: all, unless it was opened for a selection.
    pub entries: Vec<FrameEntry>,
    /// Bytes of its manifest and directory.
    pub listing_bytes: u64,
    /// Whether only some of its frames are wanted.
    is_selected: bool,
    chain: Key,
    cells: HashMap<CellRef, Option<CellSecret>>,
    states: HashMap<CellRef, FrameState>,
    later_pins: HashMap<(Option<u32>, u32), u32>,
}

/// What became of the frames of a snapshot and of the rows in them.
#[derive(Debug, Default)]
pub struct SnapshotCounts {
    /// Frames by state.
    pub frames: BTreeMap<FrameState, u64>,
    /// Rows by collection and state; rows of several column groups count once.
    pub row_states: BTreeMap<(u32, FrameState), u64>,
    /// Bytes read of packs.
    pub pack_bytes: u64,
}

impl SnapshotCounts {
    /// Frames in a state.
    #[must_use]
    pub fn frames_in(&self, state: FrameState) -> u64 {
        self.frames.get(&state).copied().unwrap_or(0)
    }

    /// Rows of a collection in a state.
    #[must_use]
    pub fn rows_in(&self, collection: u32, state: FrameState) -> u64 {
        self.row_states.get(&(collection, state)).copied().unwrap_or(0)
    }

    fn add_rows(&mut self, collection: u32, state: FrameState, rows: u64) {
        *self.row_states.entry((collection, state)).or_default() += rows;
    }
}

/// Takes the rows of a snapshot as they open.
#[async_trait]
pub trait RowSink: Send {
    /// Full rows of a collection, with the ordinals of their columns. All rows of parents come before those of their children.
    async fn take(&mut self, collection: u32, columns: &[u16], rows: Vec<Row>) -> Result<()>;
}

/// Takes what opens in a snapshot, frame by frame.
#[async_trait]
pub(super) trait FrameSink: Send {
    /// Full rows, with the ordinals of their columns; `entry` is one of the frames that held them.
    async fn rows(&mut self, entry: &FrameEntry, columns: &[u16], rows: Vec<Row>) -> Result<()>;

    /// Rows of the frame's cell that were there no more.
    async fn removed(&mut self, entry: &FrameEntry, rows: Vec<RowDigest>) -> Result<()>;
}

struct OnlyRows<'s>(&'s mut dyn RowSink);

#[async_trait]
impl FrameSink for OnlyRows<'_> {
    async fn rows(&mut self, entry: &FrameEntry, columns: &[u16], rows: Vec<Row>) -> Result<()> {
        self.0.take(entry.collection, columns, rows).await
    }

    async fn removed(&mut self, _: &FrameEntry, _: Vec<RowDigest>) -> Result<()> {
        Ok(())
    }
}

/// What a frame turned out to hold.
enum Content {
    Rows(FrameContent),
    Removed(Vec<RowDigest>),
}

/// The pack that was read last.
#[derive(Default)]
pub(super) struct HeldPack {
    number: Option<u32>,
    bytes: Option<PackBytes>,
}

impl HeldPack {
    /// Frees its memory.
    fn let_go(&mut self) {
        *self = Self::default();
    }

    /// The same unless it is so small that the next collection may as well have it.
    pub(super) fn let_go_if_large(&mut self) {
        if self.bytes.as_ref().is_some_and(|bytes| bytes.length() > SMALL_PACK_BYTES) {
            self.let_go();
        }
    }
}

/// A chunk of rows of which not every column group has come yet.
#[derive(Default)]
struct Partial {
    parts: Vec<FrameContent>,
    /// Rows, once its first group has opened; they count as corrupt if the others do not come.
    rows: u64,
}

/// Reads manifest and directory of a snapshot, and finds the secrets of all its cells.
///
/// # Errors
/// When an object is missing or changed, or the chain's key is gone.
pub async fn open(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    row: SnapshotRow,
) -> Result<OpenSnapshot> {
    open_some(ground, repository, signer, row, &Selection::default()).await
}

/// The same for some of its rows.
///
/// # Errors
/// As [`open`], and when it has no such collection.
pub(super) async fn open_some(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    row: SnapshotRow,
    selection: &Selection,
) -> Result<OpenSnapshot> {
    let name = row
        .manifest
        .clone()
        .ok_or_else(|| TaskError::Inconsistent("a committed snapshot has no manifest".to_owned()))?;
    let bytes = repository.get(&name, MAX_MANIFEST_BYTES).await?;
    let manifest = Manifest::open(&name, &bytes, &|key_id, pae, signature| signer.verifies(key_id, pae, signature))?;
    let mut tx = ground.control.begin().await?;
    let chain = ground.keyring.key(&mut tx, Subtree::Chains, row.chain).await?;
    let chain = chain.ok_or_else(|| TaskError::Unknown {
        what: format!("the key of snapshot {} is destroyed", row.id),
        advice: "choose a newer snapshot: `wangchuan backup list`".to_owned(),
    })?;
    let part_key = |id: &Id128| derive_chain_part_key(Suite::Intl, &chain, DIRECTORY_PURPOSE, &id.0);
    let mut parts: Vec<DirectoryPart> = Vec::new();
    for (number, part) in manifest.directory.iter().enumerate() {
        let bytes = fetch(repository, &directory_name(&part.sha256), MAX_PART_BYTES, &part.sha256).await?;
        parts.push(open_part(&bytes, manifest.installation, manifest.snapshot, number as u32, &part_key)?);
    }
    let mut schema = check_complete(&parts)?.schema.clone();
    let mut entries: Vec<FrameEntry> = parts.into_iter().flat_map(|part| part.entries).collect();
    selection.narrow(&mut schema, &mut entries)?;
    let later_pins = tx.preserving_pins().await?;
    let (cells, states, is_selected) = (HashMap::new(), HashMap::new(), !selection.is_all());
    let listing_bytes = bytes.len() as u64 + manifest.directory.iter().map(|part| part.bytes).sum::<u64>();
    let mut snapshot =
        OpenSnapshot { row, manifest, schema, entries, listing_bytes, is_selected, chain, cells, states, later_pins };
    snapshot.find_secrets(ground, &mut tx).await?;
    tx.commit().await?;
    Ok(snapshot)
}

async fn fetch(repository: &dyn ObjectStore, name: &str, limit: usize, sha256: &Sha256) -> Result<Vec<u8>> {
    let bytes = repository.get(name, limit).await?;
    if Sha256::of(&bytes) != *sha256 {
        let what = "its bytes have another SHA-256 than its name says".to_owned();
        return Err(crate::backup::object_store::RepositoryError::Corrupt { name: name.to_owned(), what }.into());
    }
    Ok(bytes)
}

impl OpenSnapshot {
    async fn find_secrets(&mut self, ground: &Ground<'_>, tx: &mut Tx) -> Result<()> {
        let row_of = |cell: &CellRef| CellRow {
            id: 0,
            subject: cell.subject,
            bucket: cell.bucket,
            fresh: cell.pin,
            pin: self.pin_of(cell),
        };
        let wanted: HashSet<CellRef> = self.entries.iter().map(|entry| entry.cell).collect();
        let wanted: Vec<(CellRef, CellRow)> = wanted.into_iter().map(|cell| (cell, row_of(&cell))).collect();
        let look = |tree: &KeyTree| wanted.iter().map(|(_, row)| cell_secret_in(tree, row)).collect::<Vec<_>>();
        let slots = slots_of_cells(wanted.iter().map(|(_, row)| row));
        let found = ground.keyring.with_tree(tx, &slots, look).await?;
        for ((cell, row), secret) in wanted.into_iter().zip(found) {
            let (secret, state) = match secret {
                Ok(Some(secret)) => (Some(secret), FrameState::Opened),
                Ok(None) if is_destroyed(tx, &row).await? => (None, FrameState::Shredded),
                Ok(None) => (None, FrameState::Lost),
                Err(KeyringError::Tree(error)) if error.is_damage() => (None, FrameState::Lost),
                Err(error) => return Err(error.into()),
            };
            self.cells.insert(cell, secret);
            self.states.insert(cell, state);
        }
        Ok(())
    }

    /// The key of a frame under a given cell secret; for drills that try every key they can reach.
    #[must_use]
    pub fn frame_key(&self, suite: Suite, secret: &CellSecret, frame_id: &[u8; 16]) -> FrameKey {
        derive_frame_key(suite, secret, &self.chain, frame_id)
    }

    /// The frames that its manifest counts, or those that are wanted of it.
    #[must_use]
    pub fn frames(&self) -> u64 {
        if self.is_selected { self.entries.len() as u64 } else { self.manifest.frames }
    }

    /// Every cell secret that could be found.
    pub fn secrets(&self) -> impl Iterator<Item = &CellSecret> {
        self.cells.values().flatten()
    }

    /// The pin that holds a cell's secret now, if any: one that came after the snapshot counts too.
    #[must_use]
    pub fn pin_of(&self, cell: &CellRef) -> Option<u32> {
        cell.pin.or_else(|| self.later_pins.get(&(cell.subject, cell.bucket)).copied())
    }

    /// What is known about a cell's key before any frame is opened.
    #[must_use]
    pub fn state_of(&self, cell: &CellRef) -> FrameState {
        self.states.get(cell).copied().unwrap_or(FrameState::Lost)
    }

    /// Reads every pack and opens every frame that can be opened, a collection at a time, parents first. Holds the bytes of
    /// one pack and the rows of one chunk; a pack is read again for each collection that has frames in it and in another. What an
    /// increment continues is not read: that is [`super::read_chain`]'s.
    ///
    /// # Errors
    /// When the object store or the sink fails; a damaged pack is not an error but makes its frames corrupt.
    pub async fn read(&self, repository: &dyn ObjectStore, sink: &mut dyn RowSink) -> Result<SnapshotCounts> {
        let mut counts = SnapshotCounts::default();
        let mut held = HeldPack::default();
        let mut sink = OnlyRows(sink);
        // The schema lists children before their parents.
        for captured in self.schema.collections.iter().rev() {
            self.read_collection(captured.number, repository, &mut held, &mut sink, &mut counts).await?;
        }
        let known: BTreeSet<u32> = self.schema.collections.iter().map(|captured| captured.number).collect();
        let found: BTreeSet<u32> = self.entries.iter().map(|entry| entry.collection).collect();
        for number in found.difference(&known) {
            self.read_collection(*number, repository, &mut held, &mut sink, &mut counts).await?;
        }
        Ok(counts)
    }

    /// The same for one collection.
    pub(super) async fn read_collection(
        &self,
        collection: u32,
        repository: &dyn ObjectStore,
        held: &mut HeldPack,
        sink: &mut dyn FrameSink,
        counts: &mut SnapshotCounts,
    ) -> Result<()> {
        let of_collection = self.in_order(collection);
        let groups = groups_per_chunk(&of_collection);
        let mut pending: HashMap<u32, Partial> = HashMap::new();
        for of_pack in of_collection.chunk_by(|one, next| one.pack == next.pack) {
            let number = of_pack[0].pack;
            if held.number != Some(number) {
                // Before the next one comes: two packs are never held.
                held.let_go();
                *held = self.read_pack(repository, number, counts).await?;
            }
            let parsed = self.parse_pack(number, held.bytes.as_ref());
            // One after the other: the rows of a pack take many times its bytes.
            for entry in of_pack {
                let (state, content) = self.open_frame_of(parsed.as_ref(), entry);
                *counts.frames.entry(state).or_default() += 1;
                let content = match content {
                    Some(Content::Removed(rows)) => {
                        sink.removed(entry, rows).await?;
                        continue;
                    }
                    Some(Content::Rows(content)) => content,
                    None if entry.group == 0 && !entry.removed => {
                        counts.add_rows(collection, state, u64::from(entry.rows));
                        continue;
                    }
                    None => continue,
                };
                let partial = pending.entry(entry.chunk).or_default();
                if entry.group == 0 {
                    partial.rows = u64::from(entry.rows);
                }
                partial.parts.push(content);
                if Some(&partial.parts.len()) != groups.get(&entry.chunk) {
                    continue;
                }
                let whole = pending.remove(&entry.chunk).unwrap_or_default();
                match rejoin(whole.parts) {
                    Ok((columns, rows)) => {
                        counts.add_rows(collection, FrameState::Opened, rows.len() as u64);
                        sink.rows(entry, &columns, rows).await?;
                    }
                    Err(_) => counts.add_rows(collection, FrameState::Corrupt, whole.rows),
                }
            }
        }
        let torn: u64 = pending.values().map(|partial| partial.rows).sum();
        if torn > 0 {
            counts.add_rows(collection, FrameState::Corrupt, torn);
        }
        Ok(())
    }

    /// The frames of a collection in the order of their packs.
    fn in_order(&self, collection: u32) -> Vec<&FrameEntry> {
        let mut entries: Vec<&FrameEntry> =
            self.entries.iter().filter(|entry| entry.collection == collection).collect();
        entries.sort_by_key(|entry| (entry.pack, entry.ordinal));
        entries
    }

    /// Reads a pack: all of it, or only the frames that are wanted where that is much less.
    async fn read_pack(
        &self,
        repository: &dyn ObjectStore,
        number: u32,
        counts: &mut SnapshotCounts,
    ) -> Result<HeldPack> {
        let Some(pack) = self.manifest.packs.get(number as usize) else { return Ok(HeldPack::default()) };
        if self.is_selected {
            // Of all collections, so that the next one finds its own.
            let wanted: Vec<&FrameEntry> = self.entries.iter().filter(|entry| entry.pack == number).collect();
            if read_pack::pays(&wanted, pack.bytes) {
                let found = PackBytes::some(repository, pack, &wanted).await?;
                counts.pack_bytes += found.as_ref().map_or(0, |(_, read)| *read);
                return Ok(HeldPack { number: Some(number), bytes: found.map(|(bytes, _)| bytes) });
            }
        }
        let found = PackBytes::whole(repository, pack).await?;
        counts.pack_bytes += found.as_ref().map_or(0, |bytes| bytes.length() as u64);
        Ok(HeldPack { number: Some(number), bytes: found })
    }

    /// The frames of a pack by their positions; nothing when it is damaged.
    fn parse_pack<'p>(&self, number: u32, bytes: Option<&'p PackBytes>) -> Option<ParsedPack<'p>> {
        let pack = self.manifest.packs.get(number as usize)?;
        let (id, frames) = bytes?.parsed(&pack.sha256)?;
        Some((id, frames.into_iter().collect()))
    }

    /// Opens a frame of a pack.
    fn open_frame_of(&self, pack: Option<&ParsedPack<'_>>, entry: &FrameEntry) -> (FrameState, Option<Content>) {
        let Some((id, frames)) = pack else { return (FrameState::Corrupt, None) };
        let place = FrameContext { repository: self.manifest.installation, pack: *id, ordinal: entry.ordinal };
        self.open_entry(entry, frames.get(&entry.ordinal).copied(), &place)
    }

    fn open_entry(
        &self,
        entry: &FrameEntry,
        frame: Option<(&[u8], Id128)>,
        place: &FrameContext,
    ) -> (FrameState, Option<Content>) {
        let state = self.state_of(&entry.cell);
        let (Some((bytes, id)), Some(Some(secret))) = (frame, self.cells.get(&entry.cell)) else {
            return (if frame.is_none() { FrameState::Corrupt } else { state }, None);
        };
        let key = derive_frame_key(entry.suite, secret, &self.chain, &id.0);
        let (found, at, content) = if entry.removed {
            match open_removed(bytes, &key, place) {
                Ok(removed) => {
                    (removed.rows.len(), (removed.collection, removed.chunk), Content::Removed(removed.rows))
                }
                Err(error) => return (state_of_failed(&error), None),
            }
        } else {
            match open_frame(bytes, &key, place) {
                Ok(content) => (content.rows.len(), (content.collection, content.chunk), Content::Rows(content)),
                Err(error) => return (state_of_failed(&error), None),
            }
        };
        if found == entry.rows as usize && at == (entry.collection, entry.chunk) {
            (FrameState::Opened, Some(content))
        } else {
            (FrameState::Corrupt, None)
        }
    }
}

fn state_of_failed(error: &FrameError) -> FrameState {
    if *error == FrameError::WrongKey { FrameState::Lost } else { FrameState::Corrupt }
}

/// The id of a pack, and its frames by their positions.
type ParsedPack<'p> = (Id128, HashMap<u32, FoundFrame<'p>>);

/// How many column groups each chunk has.
fn groups_per_chunk(entries: &[&FrameEntry]) -> HashMap<u32, usize> {
    let mut groups: HashMap<u32, usize> = HashMap::new();
    for entry in entries.iter().filter(|entry| !entry.removed) {
        *groups.entry(entry.chunk).or_default() += 1;
    }
    groups
}

/// Whether a key of the cell was destroyed on purpose, by the record of the control database.
async fn is_destroyed(tx: &mut Tx, cell: &CellRow) -> Result<bool> {
    if let Some(pin) = cell.pin {
        return Ok(tx.slot_state(crate::control::SlotTable::Pin, pin).await?.as_deref() == Some("destroyed"));
    }
    let bucket = tx.slot_state(crate::control::SlotTable::Bucket, cell.bucket).await?;
    let subject = match cell.subject {
        Some(subject) => tx.slot_state(crate::control::SlotTable::Subject, subject).await?,
        None => None,
    };
    Ok(bucket.as_deref() == Some("destroyed") || subject.as_deref() == Some("destroyed"))
}
