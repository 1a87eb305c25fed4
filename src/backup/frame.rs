//! A frame: rows of one cell, one collection, one column group, sealed. Format version 1. Pure.
//!
//! Byte layout and limits are in the documentation of [`crate::backup`].

use thiserror::Error;

use super::codec::{Id128, Malformed, Reader, Sha256, padded_length, unwrap_content, wrap_content};
use super::envelope::{self, EnvelopeError, EnvelopeHeader};
pub use crate::keys::cell::FrameKey;
use crate::keys::suite::{Suite, TAG_BYTES};
use crate::value::{Row, Value, decode_value, encode_value};

/// The most content bytes of a frame with several rows.
pub const MAX_CONTENT_BYTES: usize = 1 << 20;
/// The most content bytes of a frame with a single row: a row cannot be split, and documents in columns are larger.
pub const MAX_SINGLE_ROW_BYTES: usize = 48 << 20;
/// The most rows of a frame.
pub const MAX_ROWS: usize = 65_536;
/// The most columns of a frame; no supported engine has as many.
pub const MAX_COLUMNS: usize = 4096;

pub(super) const MAGIC: [u8; 4] = *b"WCFR";
const KIND_ROWS: u8 = 1;
/// Content bytes before the column ordinals: kind, collection, chunk, rows, columns.
const FIXED_BYTES: usize = 15;
const DIGEST_BYTES: usize = 32;

/// Where a frame stands; sealed in, so that a frame moved elsewhere does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameContext {
    /// The installation whose repository it is.
    pub repository: Id128,
    /// The pack's id.
    pub pack: Id128,
    /// The frame's position in the pack, from 0.
    pub ordinal: u32,
}

impl FrameContext {
    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.repository.0[..], &self.pack.0, &self.ordinal.to_be_bytes()].concat()
    }
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameContent {
    /// The collection's number in the snapshot's directory.
    pub collection: u32,
    /// Numbers the row sets of a snapshot: column groups of the same rows share it.
    pub chunk: u32,
    /// Ordinals of the columns in the captured table, strictly ascending.
    pub columns: Vec<u16>,
    /// The rows, each with one value per column.
    pub rows: Vec<Row>,
}

/// Why a frame cannot be made or opened. Trying again does not help with any of them.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The header's key commitment is another key's.
    #[error("the frame is sealed under another key than the one given")]
    WrongKey,
    /// The bytes are not what the format says, or were changed, or stand at another place than they were sealed for.
    #[error("the frame is corrupt: {0}")]
    Corrupt(Malformed),
    /// A newer version of the program wrote it.
    #[error("the frame has unknown format version {0}; a newer version of the program may know it")]
    UnknownVersion(u8),
    /// A suite that this version does not know.
    #[error("the frame has unknown cipher suite {0}; a newer version of the program may know it")]
    UnknownSuite(u8),
    /// A kind of content that this version does not know.
    #[error("the frame has unknown content kind {0}; a newer version of the program may know it")]
    UnknownKind(u8),
    /// More than a frame holds: split the rows.
    #[error("{rows} rows of {bytes} bytes do not fit into one frame")]
    TooLarge {
        /// Rows that were given.
        rows: usize,
        /// Bytes of their content.
        bytes: usize,
    },
    /// What was given to be sealed is not a rectangle of rows and ascending columns.
    #[error("not sealable: {0}")]
    NotSealable(&'static str),
    /// The cipher refused to seal.
    #[error("the cipher refused the frame")]
    Cipher,
}

impl From<EnvelopeError> for FrameError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::WrongKey => Self::WrongKey,
            EnvelopeError::Corrupt(malformed) => Self::Corrupt(malformed),
            EnvelopeError::UnknownVersion(version) => Self::UnknownVersion(version),
            EnvelopeError::UnknownSuite(suite) => Self::UnknownSuite(suite),
            EnvelopeError::Cipher => Self::Cipher,
        }
    }
}

impl From<Malformed> for FrameError {
    fn from(malformed: Malformed) -> Self {
        Self::Corrupt(malformed)
    }
}

/// Bytes that a value takes in a frame's content.
#[must_use]
pub fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null => 1,
        Value::Integer(_) | Value::Real(_) => 9,
        Value::Text(text) => 5 + text.len(),
        Value::Blob(bytes) => 5 + bytes.len(),
    }
}

/// Bytes of a frame's content besides the values, for so many columns.
#[must_use]
pub fn overhead_bytes(columns: usize) -> usize {
    FIXED_BYTES + 2 * columns + DIGEST_BYTES
}

/// The most bytes behind a frame's header.
#[must_use]
pub fn max_sealed_bytes() -> usize {
    // Compression method and two lengths precede the content.
    padded_length(9 + MAX_SINGLE_ROW_BYTES) + TAG_BYTES
}

/// Reads a frame's clear header at the start of `bytes`; more may follow.
///
/// # Errors
/// When there is no header of a known version and suite there.
pub fn frame_header(bytes: &[u8]) -> Result<EnvelopeHeader, FrameError> {
    Ok(EnvelopeHeader::parse(MAGIC, bytes, max_sealed_bytes())?)
}

/// Seals rows. `id` must be fresh and random, `key` derived for it; a retry needs both anew.
///
/// # Errors
/// When the content is empty, not rectangular or too large, or the cipher refuses.
pub fn seal_frame(
    content: &FrameContent,
    suite: Suite,
    id: Id128,
    key: &FrameKey,
    place: &FrameContext,
) -> Result<Vec<u8>, FrameError> {
    let plain = wrap_content(&encode_content(content)?);
    Ok(envelope::seal(MAGIC, suite, id, key, &place.encode(), plain)?)
}

/// Opens a frame; `bytes` are exactly its own.
///
/// # Errors
/// [`FrameError::WrongKey`] when it is sealed under another key, otherwise what is wrong with it. Never panics.
pub fn open_frame(bytes: &[u8], key: &FrameKey, place: &FrameContext) -> Result<FrameContent, FrameError> {
    let (_, plain) = envelope::open(MAGIC, bytes, key, &place.encode(), max_sealed_bytes())?;
    decode_content(&unwrap_content(&plain, MAX_SINGLE_ROW_BYTES)?)
}

fn encode_content(content: &FrameContent) -> Result<Vec<u8>, FrameError> {
    let (columns, rows) = (content.columns.len(), content.rows.len());
    if columns == 0 || rows == 0 {
        return Err(FrameError::NotSealable("no rows or no columns"));
    }
    if columns > MAX_COLUMNS || !ascending(&content.columns) {
        return Err(FrameError::NotSealable("column ordinals are not strictly ascending, or too many"));
    }
    if content.rows.iter().any(|row| row.len() != columns) {
        return Err(FrameError::NotSealable("a row has another number of values than there are columns"));
    }
    let bytes = overhead_bytes(columns) + content.rows.iter().flatten().map(value_bytes).sum::<usize>();
    if rows > MAX_ROWS || bytes > content_limit(rows) {
        return Err(FrameError::TooLarge { rows, bytes });
    }
    let mut out = Vec::with_capacity(bytes);
    out.push(KIND_ROWS);
    out.extend_from_slice(&content.collection.to_be_bytes());
    out.extend_from_slice(&content.chunk.to_be_bytes());
    out.extend_from_slice(&(rows as u32).to_be_bytes());
    out.extend_from_slice(&(columns as u16).to_be_bytes());
    for column in &content.columns {
        out.extend_from_slice(&column.to_be_bytes());
    }
    let digest_at = out.len();
    out.extend_from_slice(&[0; DIGEST_BYTES]);
    for column in 0..columns {
        for row in &content.rows {
            encode_value(&row[column], &mut out);
        }
    }
    let digest = Sha256::of_parts(&[&out[..digest_at], &out[digest_at + DIGEST_BYTES..]]);
    out[digest_at..digest_at + DIGEST_BYTES].copy_from_slice(&digest.0);
    Ok(out)
}

fn decode_content(content: &[u8]) -> Result<FrameContent, FrameError> {
    let mut reader = Reader::new(content);
    let kind = reader.u8()?;
    if kind != KIND_ROWS {
        return Err(FrameError::UnknownKind(kind));
    }
    let (collection, chunk) = (reader.u32()?, reader.u32()?);
    let (row_count, column_count) = (reader.u32()? as usize, reader.u16()? as usize);
    // Every value takes a byte at least, so these bounds also bound the memory that the counts can ask for.
    let possible = (1..=MAX_ROWS).contains(&row_count)
        && (1..=MAX_COLUMNS).contains(&column_count)
        && row_count * column_count <= content.len()
        && content.len() <= content_limit(row_count);
    if !possible {
        return Err(reader.malformed("impossible counts").into());
    }
    let columns = (0..column_count).map(|_| reader.u16()).collect::<Result<Vec<_>, _>>()?;
    if !ascending(&columns) {
        return Err(reader.malformed("column ordinals are not strictly ascending").into());
    }
    let digest_at = reader.at();
    let digest: [u8; DIGEST_BYTES] = reader.array()?;
    let mut at = reader.at();
    if Sha256::of_parts(&[&content[..digest_at], &content[at..]]).0 != digest {
        return Err(reader.malformed("the content's digest differs").into());
    }
    let mut rows: Vec<Row> = (0..row_count).map(|_| Vec::with_capacity(column_count)).collect();
    for _ in 0..column_count {
        for row in &mut rows {
            let value = decode_value(content, &mut at);
            row.push(value.map_err(|error| Malformed { at: error.at, what: error.what })?);
        }
    }
    if at != content.len() {
        return Err(Malformed { at, what: "bytes behind the last value" }.into());
    }
    Ok(FrameContent { collection, chunk, columns, rows })
}

fn content_limit(rows: usize) -> usize {
    if rows == 1 { MAX_SINGLE_ROW_BYTES } else { MAX_CONTENT_BYTES }
}

fn ascending(columns: &[u16]) -> bool {
    columns.windows(2).all(|pair| pair[0] < pair[1])
}

#[cfg(test)]
mod tests;
