//! A pack: an object of sealed frames, named after the SHA-256 of its bytes. Format version 1. Pure.
//!
//! Structure and integrity can be checked without any key, also after every frame in it was shredded.

use thiserror::Error;

use super::codec::{Id128, Malformed, Reader, Sha256};
use super::envelope::{EnvelopeHeader, HEADER_BYTES};
use super::frame::{FrameContext, FrameError, frame_header, max_sealed_bytes};

/// A pack is closed as soon as it has so many bytes.
pub const FULL_AT_BYTES: usize = 16 << 20;
/// A pack is closed as soon as it has so many frames.
pub const MAX_FRAMES: u32 = 65_536;

const MAGIC: [u8; 4] = *b"WCPK";
const VERSION: u8 = 1;
/// Bytes before the first frame.
pub const PACK_HEADER_BYTES: usize = 24;

/// The most bytes of a pack: full but for one byte, then a frame of the largest size.
#[must_use]
pub fn max_pack_bytes() -> usize {
    FULL_AT_BYTES + HEADER_BYTES + max_sealed_bytes()
}

/// The object name of the pack with this digest.
#[must_use]
pub fn pack_name(sha256: &Sha256) -> String {
    format!("packs/{sha256}")
}

/// Why a pack cannot be made or read. Trying again does not help, unless the transport changed the bytes.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum PackError {
    /// The bytes have another digest than expected.
    #[error("the pack's bytes have another SHA-256 than expected")]
    OtherDigest,
    /// The bytes are not a pack.
    #[error("the pack is corrupt: {0}")]
    Corrupt(Malformed),
    /// A newer version of the program wrote it.
    #[error("the pack has unknown format version {0}; a newer version of the program may know it")]
    UnknownVersion(u8),
    /// The frame at this offset has no well-formed header.
    #[error("at byte {offset} of the pack: {error}")]
    Frame {
        /// Where the frame begins.
        offset: usize,
        /// What is wrong.
        error: FrameError,
    },
    /// The pack holds another number of frames or bytes than expected.
    #[error("the pack has {found} {what} instead of {expected}")]
    OtherCount {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
    /// The pack is full: finish it and begin another.
    #[error("the pack is full")]
    Full,
}

/// Where a frame came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePlace {
    /// Its position, from 0.
    pub ordinal: u32,
    /// Its first byte in the pack.
    pub offset: u32,
    /// Its bytes.
    pub length: u32,
}

/// A finished pack, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The digest of `bytes`.
    pub sha256: Sha256,
    /// How many frames it holds.
    pub frames: u32,
    /// The whole object.
    pub bytes: Vec<u8>,
}

impl Pack {
    /// The object's name.
    #[must_use]
    pub fn name(&self) -> String {
        pack_name(&self.sha256)
    }
}

/// Collects sealed frames.
pub struct PackBuilder {
    id: Id128,
    frames: u32,
    bytes: Vec<u8>,
}

impl PackBuilder {
    /// Begins a pack with a fresh random id.
    #[must_use]
    pub fn new(id: Id128) -> Self {
        let mut bytes = Vec::with_capacity(PACK_HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
        bytes.extend_from_slice(&id.0);
        Self { id, frames: 0, bytes }
    }

    /// The context that the next frame must be sealed for.
    #[must_use]
    pub fn next_context(&self, repository: Id128) -> FrameContext {
        FrameContext { repository, pack: self.id, ordinal: self.frames }
    }

    /// Appends a frame that was sealed for [`Self::next_context`].
    ///
    /// # Errors
    /// When the pack is full or `frame` is not a frame.
    pub fn append(&mut self, frame: &[u8]) -> Result<FramePlace, PackError> {
        if self.is_full() {
            return Err(PackError::Full);
        }
        let offset = self.bytes.len();
        let header = frame_header(frame).map_err(|error| PackError::Frame { offset, error })?;
        if header.envelope_bytes() != frame.len() {
            return Err(PackError::Corrupt(Malformed { at: offset, what: "not exactly one frame" }));
        }
        let place = FramePlace { ordinal: self.frames, offset: offset as u32, length: frame.len() as u32 };
        self.bytes.extend_from_slice(frame);
        self.frames += 1;
        Ok(place)
    }

    /// Whether the pack must be finished before the next frame.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_AT_BYTES || self.frames >= MAX_FRAMES
    }

    /// Whether so many frames of so many bytes in all fit before it is full at this size.
    #[must_use]
    pub fn has_room(&self, frames: usize, bytes: usize, full_at: usize) -> bool {
        self.frames as usize + frames < MAX_FRAMES as usize && self.bytes.len() + bytes < full_at
    }

    /// Whether it holds no frame yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Closes the pack.
    #[must_use]
    pub fn finish(self) -> Pack {
        Pack { sha256: Sha256::of(&self.bytes), frames: self.frames, bytes: self.bytes }
    }
}

/// One frame of a pack, not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedFrame<'a> {
    /// Where it stands.
    pub place: FramePlace,
    /// Its clear header.
    pub header: EnvelopeHeader,
    /// All its bytes.
    pub bytes: &'a [u8],
}

/// Reads the id in a pack's header; `bytes` need only be the pack's first [`PACK_HEADER_BYTES`].
///
/// # Errors
/// When they are not the beginning of a pack.
pub fn pack_id(bytes: &[u8]) -> Result<Id128, PackError> {
    let mut reader = Reader::new(bytes);
    let header = |reader: &mut Reader<'_>| -> Result<([u8; 4], u8, [u8; 3], Id128), Malformed> {
        Ok((reader.array()?, reader.u8()?, reader.array()?, Id128(reader.array()?)))
    };
    let (magic, version, reserved, id) = header(&mut reader).map_err(PackError::Corrupt)?;
    if magic != MAGIC {
        return Err(PackError::Corrupt(Malformed { at: 0, what: "wrong magic" }));
    }
    if version != VERSION {
        return Err(PackError::UnknownVersion(version));
    }
    if reserved != [0; 3] {
        return Err(PackError::Corrupt(Malformed { at: 5, what: "reserved bytes are not zero" }));
    }
    Ok(id)
}

/// Walks the frames of a pack. The pack must have the digest `expected`, so that what follows is what was written.
///
/// # Errors
/// When the digest differs or the structure is broken; then no frame is returned at all.
pub fn read_pack<'a>(bytes: &'a [u8], expected: &Sha256) -> Result<(Id128, Vec<PackedFrame<'a>>), PackError> {
    if Sha256::of(bytes) != *expected {
        return Err(PackError::OtherDigest);
    }
    walk(bytes)
}

fn walk(bytes: &[u8]) -> Result<(Id128, Vec<PackedFrame<'_>>), PackError> {
    let id = pack_id(bytes)?;
    let mut frames = Vec::new();
    let mut offset = PACK_HEADER_BYTES;
    while offset < bytes.len() {
        let header = frame_header(&bytes[offset..]).map_err(|error| PackError::Frame { offset, error })?;
        let end = offset + header.envelope_bytes();
        let frame = bytes.get(offset..end).ok_or(PackError::Frame {
            offset,
            error: FrameError::Corrupt(Malformed { at: bytes.len() - offset, what: "cut short" }),
        })?;
        let place = FramePlace { ordinal: frames.len() as u32, offset: offset as u32, length: frame.len() as u32 };
        frames.push(PackedFrame { place, header, bytes: frame });
        if frames.len() > MAX_FRAMES as usize {
            return Err(PackError::Corrupt(Malformed { at: offset, what: "more frames than the format allows" }));
        }
        offset = end;
    }
    Ok((id, frames))
}

/// Checks a pack without keys: digest, structure, size and number of frames.
///
/// # Errors
/// What is wrong with it.
pub fn verify_pack(bytes: &[u8], sha256: &Sha256, expected_bytes: u64, expected_frames: u32) -> Result<(), PackError> {
    let (_, frames) = read_pack(bytes, sha256)?;
    let counts =
        [("bytes", bytes.len() as u64, expected_bytes), ("frames", frames.len() as u64, u64::from(expected_frames))];
    match counts.into_iter().find(|(_, found, expected)| found != expected) {
        Some((what, found, expected)) => Err(PackError::OtherCount { what, found, expected }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
