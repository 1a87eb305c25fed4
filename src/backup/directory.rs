//! A directory: the sealed list of where a snapshot's frames stand and whose cells they are, with the captured schema.
//! Format version 1. Pure.
//!
//! It is written as a stream of parts, so that a snapshot of any size needs the memory of one part only; the schema and
//! the totals come with the last part, when they are known. Byte layout: [`crate::backup`].

use thiserror::Error;

use super::codec::{Id128, Malformed, Reader, Sha256, padded_length, unwrap_content, wrap_content};
use super::envelope::{self, EnvelopeError, EnvelopeHeader};
use super::frame::FrameKey;
use super::schema::SchemaJson;
pub use super::schema::{CapturedCollection, CapturedSchema};
use crate::keys::suite::{Suite, TAG_BYTES};
use crate::random::{Random, RandomUnavailable};

/// The most frames that one part lists.
pub const MAX_ENTRIES_PER_PART: usize = 131_072;
/// The most content bytes of a part; sealed and padded it then stays below 8 MiB.
pub const MAX_PART_CONTENT_BYTES: usize = 7 << 20;
/// The most bytes of a part.
pub const MAX_PART_BYTES: usize = 8 << 20;
/// The most parts of a directory: 8.6 billion frames.
pub const MAX_PARTS: u32 = 65_536;

const MAGIC: [u8; 4] = *b"WCDR";
/// snapshot id, part number, last flag, entry count
const PREFIX_BYTES: usize = 16 + 4 + 1 + 4;
/// parts, frames, schema length
const TAIL_BYTES: usize = 4 + 8 + 4;
const ENTRY_BYTES: usize = 43;

/// Whose rows a frame holds, by slot numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellRef {
    /// The subject's (or owner set's) slot; `None` for rows without a subject.
    pub subject: Option<u32>,
    /// The bucket's slot.
    pub bucket: u32,
    /// The pin's slot, if the cell is pinned.
    pub pin: Option<u32>,
}

/// One frame of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEntry {
    /// Index of the pack in the manifest's list.
    pub pack: u32,
    /// The frame's position in the pack.
    pub ordinal: u32,
    /// Its first byte in the pack.
    pub offset: u32,
    /// Its bytes.
    pub length: u32,
    /// The cell whose key opens it.
    pub cell: CellRef,
    /// The collection's number.
    pub collection: u32,
    /// The row set that its rows are a column group of.
    pub chunk: u32,
    /// Which column group of the chunk it is, from 0.
    pub group: u8,
    /// Its suite.
    pub suite: Suite,
    /// Its rows; of a frame of removed rows, how many it names.
    pub rows: u32,
    /// Whether it names rows of this cell that are there no more, instead of holding rows.
    pub removed: bool,
}

/// Why a directory cannot be made or read. Only missing randomness is worth another try.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The part is sealed under another key.
    #[error("the directory part is sealed under another key than the one given")]
    WrongKey,
    /// The bytes are not what the format says, or were changed, or belong to another snapshot or position.
    #[error("the directory part is corrupt: {0}")]
    Corrupt(#[from] Malformed),
    /// A newer version of the program wrote it.
    #[error("the directory part has an unknown format version or suite: {0}")]
    Unknown(EnvelopeError),
    /// Parts are missing, doubled or from different snapshots.
    #[error("the directory is incomplete: {0}")]
    Incomplete(&'static str),
    /// The schema or the number of frames is beyond the format's limits.
    #[error("the directory is beyond the format's limits: {0}")]
    TooLarge(&'static str),
    /// The cipher refused to seal.
    #[error("the cipher refused the directory part")]
    Cipher,
    /// No randomness for the part's id.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

impl From<EnvelopeError> for DirectoryError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::WrongKey => Self::WrongKey,
            EnvelopeError::Corrupt(malformed) => Self::Corrupt(malformed),
            EnvelopeError::Cipher => Self::Cipher,
            unknown => Self::Unknown(unknown),
        }
    }
}

/// The object name of the directory part with this digest.
#[must_use]
pub fn directory_name(sha256: &Sha256) -> String {
    format!("directories/{sha256}")
}

/// A finished part, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedPart {
    /// The digest of `bytes`.
    pub sha256: Sha256,
    /// The whole object.
    pub bytes: Vec<u8>,
}

impl SealedPart {
    /// The object's name.
    #[must_use]
    pub fn name(&self) -> String {
        directory_name(&self.sha256)
    }
}

/// Derives the key of a part from the chain key and the part's id.
pub type PartKey<'a> = &'a (dyn Fn(&Id128) -> FrameKey + Sync);

fn context(repository: Id128, snapshot: Id128, number: u32) -> Vec<u8> {
    [&repository.0[..], &snapshot.0, &number.to_be_bytes()].concat()
}

/// Writes a directory, part by part.
pub struct DirectoryBuilder<'a> {
    repository: Id128,
    snapshot: Id128,
    key: PartKey<'a>,
    random: &'a dyn Random,
    entries: Vec<FrameEntry>,
    parts: u32,
    frames: u64,
}

impl<'a> DirectoryBuilder<'a> {
    /// Begins the directory of a snapshot.
    #[must_use]
    pub fn new(repository: Id128, snapshot: Id128, key: PartKey<'a>, random: &'a dyn Random) -> Self {
        Self { repository, snapshot, key, random, entries: Vec::new(), parts: 0, frames: 0 }
    }

    /// Adds a frame; returns a part that is full and must be stored.
    ///
    /// # Errors
    /// When a part cannot be sealed.
    pub fn push(&mut self, entry: FrameEntry) -> Result<Option<SealedPart>, DirectoryError> {
        self.entries.push(entry);
        self.frames += 1;
        if self.entries.len() < MAX_ENTRIES_PER_PART {
            return Ok(None);
        }
        Ok(Some(self.seal_part(None)?))
    }

    /// Ends the directory; the returned parts follow those that [`Self::push`] returned.
    ///
    /// # Errors
    /// When a part cannot be sealed, or the schema is too large.
    pub fn finish(mut self, schema: CapturedSchema) -> Result<Vec<SealedPart>, DirectoryError> {
        let schema = schema.to_json().map_err(|_| DirectoryError::TooLarge("the schema cannot be written as JSON"))?;
        let room = MAX_PART_CONTENT_BYTES - PREFIX_BYTES - TAIL_BYTES;
        if schema.len() > room {
            return Err(DirectoryError::TooLarge("the schema needs more than 7 MiB"));
        }
        let mut parts = Vec::new();
        if self.entries.len() * ENTRY_BYTES + schema.len() > room {
            parts.push(self.seal_part(None)?);
        }
        parts.push(self.seal_part(Some(&schema))?);
        Ok(parts)
    }

    fn seal_part(&mut self, schema: Option<&[u8]>) -> Result<SealedPart, DirectoryError> {
        if self.parts >= MAX_PARTS {
            return Err(DirectoryError::TooLarge("more than 65536 parts"));
        }
        let number = self.parts;
        let mut content = Vec::with_capacity(PREFIX_BYTES + self.entries.len() * ENTRY_BYTES);
        content.extend_from_slice(&self.snapshot.0);
        content.extend_from_slice(&number.to_be_bytes());
        content.push(u8::from(schema.is_some()));
        content.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
        encode_entries(&self.entries, &mut content);
        if let Some(schema) = schema {
            content.extend_from_slice(&(number + 1).to_be_bytes());
            content.extend_from_slice(&self.frames.to_be_bytes());
            content.extend_from_slice(&(schema.len() as u32).to_be_bytes());
            content.extend_from_slice(schema);
        }
        let id = Id128::make(self.random)?;
        let place = context(self.repository, self.snapshot, number);
        let bytes = envelope::seal(MAGIC, Suite::Intl, id, &(self.key)(&id), &place, wrap_content(&content))?;
        self.entries.clear();
        self.parts += 1;
        Ok(SealedPart { sha256: Sha256::of(&bytes), bytes })
    }
}

/// Entries as they are kept while their snapshot is not committed: as in a part, compressed.
#[must_use]
pub fn write_entries(entries: &[FrameEntry]) -> Vec<u8> {
    let mut content = Vec::with_capacity(4 + entries.len() * ENTRY_BYTES);
    content.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    encode_entries(entries, &mut content);
    wrap_content(&content)
}

/// Reads what [`write_entries`] wrote.
///
/// # Errors
/// When it is not that. Never panics.
pub fn read_entries(bytes: &[u8]) -> Result<Vec<FrameEntry>, DirectoryError> {
    let content = unwrap_content(bytes, MAX_PART_CONTENT_BYTES)?;
    let mut reader = Reader::new(&content);
    let count = reader.u32()? as usize;
    if count > MAX_ENTRIES_PER_PART {
        return Err(reader.malformed("more entries than the format allows").into());
    }
    let entries = decode_entries(&mut reader, count)?;
    reader.expect_end()?;
    Ok(entries)
}

/// Columnar, each column as differences from what the previous entry suggests: mostly zeros, which compress.
fn encode_entries(entries: &[FrameEntry], out: &mut Vec<u8>) {
    let mut column = |value: &dyn Fn(&FrameEntry, &FrameEntry) -> u32| {
        let mut before = &FIRST;
        for entry in entries {
            out.extend_from_slice(&value(entry, before).to_be_bytes());
            before = entry;
        }
    };
    column(&|entry, before| entry.pack.wrapping_sub(before.pack));
    column(&|entry, before| entry.ordinal.wrapping_sub(before.ordinal));
    column(&|entry, before| entry.offset.wrapping_sub(before.offset).wrapping_sub(before.length));
    column(&|entry, _| entry.length);
    column(&|entry, _| entry.cell.subject.unwrap_or(0));
    column(&|entry, _| entry.cell.bucket);
    column(&|entry, _| entry.cell.pin.unwrap_or(0));
    column(&|entry, before| entry.collection.wrapping_sub(before.collection));
    column(&|entry, before| entry.chunk.wrapping_sub(before.chunk));
    column(&|entry, _| entry.rows);
    out.extend(entries.iter().map(|entry| entry.group));
    out.extend(entries.iter().map(|entry| entry.suite as u8));
    out.extend(entries.iter().map(|entry| {
        u8::from(entry.cell.subject.is_some()) * HAS_SUBJECT
            + u8::from(entry.cell.pin.is_some()) * HAS_PIN
            + u8::from(entry.removed) * IS_REMOVED
    }));
}

const HAS_SUBJECT: u8 = 1;
const HAS_PIN: u8 = 2;
const IS_REMOVED: u8 = 4;
/// What the first entry of a part is compared with.
const FIRST: FrameEntry = FrameEntry {
    pack: 0,
    ordinal: 0,
    offset: 0,
    length: 0,
    cell: CellRef { subject: None, bucket: 0, pin: None },
    collection: 0,
    chunk: 0,
    group: 0,
    suite: Suite::Intl,
    rows: 0,
    removed: false,
};

fn decode_entries(reader: &mut Reader<'_>, count: usize) -> Result<Vec<FrameEntry>, Malformed> {
    let mut words = Vec::with_capacity(10);
    for _ in 0..10 {
        words.push(reader.take(count * 4)?);
    }
    let (groups, suites, flags) = (reader.take(count)?, reader.take(count)?, reader.take(count)?);
    let word = |column: usize, index: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&words[column][4 * index..4 * index + 4]);
        u32::from_be_bytes(bytes)
    };
    let slot = |column: usize, index: usize, flag: u8| match (flags[index] & flag != 0, word(column, index)) {
        (true, slot) => Ok(Some(slot)),
        (false, 0) => Ok(None),
        (false, _) => Err(Malformed { at: index, what: "an absent slot is not zero" }),
    };
    let mut entries = Vec::with_capacity(count);
    let mut before = FIRST;
    for index in 0..count {
        if flags[index] & !(HAS_SUBJECT | HAS_PIN | IS_REMOVED) != 0 {
            return Err(Malformed { at: index, what: "unknown flags of an entry" });
        }
        let suite = suites[index];
        let entry = FrameEntry {
            pack: before.pack.wrapping_add(word(0, index)),
            ordinal: before.ordinal.wrapping_add(word(1, index)),
            offset: before.offset.wrapping_add(before.length).wrapping_add(word(2, index)),
            length: word(3, index),
            cell: CellRef {
                subject: slot(4, index, HAS_SUBJECT)?,
                bucket: word(5, index),
                pin: slot(6, index, HAS_PIN)?,
            },
            collection: before.collection.wrapping_add(word(7, index)),
            chunk: before.chunk.wrapping_add(word(8, index)),
            group: groups[index],
            suite: Suite::try_from(suite).map_err(|_| Malformed { at: index, what: "unknown suite of an entry" })?,
            rows: word(9, index),
            removed: flags[index] & IS_REMOVED != 0,
        };
        entries.push(entry);
        before = entry;
    }
    Ok(entries)
}

/// An opened part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPart {
    /// Its position in the directory, from 0.
    pub number: u32,
    /// The frames it lists.
    pub entries: Vec<FrameEntry>,
    /// In the last part only: the schema and the totals.
    pub end: Option<DirectoryEnd>,
}

/// What the last part says about the whole directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEnd {
    /// Parts of the directory.
    pub parts: u32,
    /// Frames in all parts.
    pub frames: u64,
    /// The captured schema and collections.
    pub schema: CapturedSchema,
}

fn max_sealed_bytes() -> usize {
    padded_length(9 + MAX_PART_CONTENT_BYTES) + TAG_BYTES
}

/// Checks the clear header of a part, without keys.
///
/// # Errors
/// When the bytes do not have the structure of a part.
pub fn directory_header(bytes: &[u8]) -> Result<EnvelopeHeader, DirectoryError> {
    let header = EnvelopeHeader::parse(MAGIC, bytes, max_sealed_bytes())?;
    if header.envelope_bytes() != bytes.len() {
        return Err(Malformed { at: bytes.len(), what: "length differs from the header's" }.into());
    }
    Ok(header)
}

/// Opens part `number` of a snapshot's directory.
///
/// # Errors
/// What is wrong with it. Never panics.
pub fn open_part(
    bytes: &[u8],
    repository: Id128,
    snapshot: Id128,
    number: u32,
    key: PartKey<'_>,
) -> Result<DirectoryPart, DirectoryError> {
    let header = directory_header(bytes)?;
    let place = context(repository, snapshot, number);
    let (_, plain) = envelope::open(MAGIC, bytes, &key(&header.id), &place, max_sealed_bytes())?;
    decode_part(&unwrap_content(&plain, MAX_PART_CONTENT_BYTES)?, snapshot, number)
}

fn decode_part(content: &[u8], snapshot: Id128, number: u32) -> Result<DirectoryPart, DirectoryError> {
    let mut reader = Reader::new(content);
    if reader.array()? != snapshot.0 || reader.u32()? != number {
        return Err(reader.malformed("it belongs to another snapshot or position").into());
    }
    let last = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(reader.malformed("unknown flag").into()),
    };
    let count = reader.u32()? as usize;
    if count > MAX_ENTRIES_PER_PART {
        return Err(reader.malformed("more entries than the format allows").into());
    }
    let entries = decode_entries(&mut reader, count)?;
    let mut end = None;
    if last {
        let (parts, frames) = (reader.u32()?, u64::from_be_bytes(reader.array()?));
        let length = reader.u32()? as usize;
        let schema: SchemaJson = serde_json::from_slice(reader.take(length)?)
            .map_err(|_| reader.malformed("the schema is not the expected JSON"))?;
        end = Some(DirectoryEnd { parts, frames, schema: schema.into() });
    }
    reader.expect_end()?;
    Ok(DirectoryPart { number, entries, end })
}

/// Checks that opened parts, in order, are all of one directory, and returns its end.
///
/// # Errors
/// When a part is missing or the totals differ.
pub fn check_complete(parts: &[DirectoryPart]) -> Result<&DirectoryEnd, DirectoryError> {
    let frames: usize = parts.iter().map(|part| part.entries.len()).sum();
    let numbered = parts.iter().enumerate().all(|(index, part)| part.number as usize == index);
    let ends_early = parts.iter().rev().skip(1).any(|part| part.end.is_some());
    let end = parts.last().and_then(|part| part.end.as_ref());
    let fits = |end: &DirectoryEnd| end.parts as usize == parts.len() && end.frames == frames as u64;
    match end {
        Some(end) if numbered && !ends_early && fits(end) => Ok(end),
        _ => Err(DirectoryError::Incomplete("parts are missing, doubled or out of order")),
    }
}

#[cfg(test)]
mod tests;
