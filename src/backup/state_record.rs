//! State records: the agent's durable control state, sealed into the second place. Pure.
//!
//! What the agent must remember (key tree, ledger, holds, certificates, outbox, …) would be lost with its host. So before a
//! snapshot, a key generation or a certificate counts, an image of it is stored as a *state record* in the second place.
//!
//! Invariants:
//! * A record is sealed under a key derived from the root key of the generation that it holds. When that root is destroyed,
//!   the record is noise, and so are all parts that only older records name: nothing shredded comes back from here.
//! * Records are numbered without gaps, chained by hash, and never overwritten. Two records of one number mean that two hosts
//!   work as the same installation, or that an old copy does.
//! * Which record is the newest, and of which generation, stands in the names: no key is needed to see it.
//!
//! # Format version 1
//!
//! Conventions and the envelope are those of [`crate::backup`]. Names below the repository's prefix:
//!
//! | name | content |
//! |---|---|
//! | `state/<number>-<generation>-<sha256>` | a record: 10 decimal digits each, SHA-256 of the object |
//! | `state-parts/<sha256>` | a part of an image: an envelope with the magic `WCSP` |
//! | `state-roots/<generation>-<sha256>` | a root as a key service wrapped it, in that slot's own form; none where the root itself lies in the slot |
//!
//! A record:
//!
//! | offset | field | |
//! |---|---|---|
//! | 0 | `[4]` magic | `WCST` |
//! | 4 | `u8` version | 1 |
//! | 5 | `u8` suite | 1 |
//! | 6 | `u16` | 0 |
//! | 8 | `u64` number | from 1 |
//! | 16 | `u64` generation | whose root opens it |
//! | 24 | `[32]` previous | SHA-256 of the record with the number before, zeros for none |
//! | 56 | `[16]` id | random |
//! | 72 | `[32]` commitment | derived with the key, for this id |
//! | 104 | `u32` n | bytes that follow, at least 16 |
//! | 108 | `[n]` sealed | ciphertext ‖ tag; the additional data are the 108 bytes before ‖ installation `[16]` |
//!
//! The key is that of a chain part (purpose `state-record`) under the root key, for the id. The plain text is wrapped like an
//! envelope's: `u64` time in milliseconds since 1970 UTC ‖ four `u64`: newest ledger position, newest snapshot number, newest
//! certificate number, fencing token of the work lease ‖ `[32]` digest of what counts as a change ‖ `u16` files, each `u16` length and name, `u32` length and bytes ‖
//! `u32` pieces, each `u8` kind ‖ `[32]` SHA-256 of the piece ‖ for kind 0 (inline) `u32` length and bytes, for kind 1 (part)
//! `[32]` SHA-256 of the part's object, `u32` its bytes, `[32]` the part's key.
//!
//! A part's envelope is sealed under the key of a chain part (purpose `state-part`) under the part's key, for its id; its
//! context is the installation `[16]`. Its content is one piece. What a piece means is the control database's business.

use chrono::{DateTime, Utc};
use thiserror::Error;
use zeroize::Zeroizing;

use super::codec::{Id128, Malformed, Reader, Sha256, unwrap_content, wrap_content};
use super::envelope::{self, EnvelopeError};
use crate::keys::suite::{self, Suite, TAG_BYTES};
use crate::keys::{Generation, Key, cell::derive_chain_part_key};
use crate::random::{Random, RandomUnavailable};

/// What the names of all records begin with.
pub const RECORDS: &str = "state/";
/// What the names of all parts begin with.
pub const PARTS: &str = "state-parts/";
/// What the names of all wrapped roots begin with.
pub const ROOTS: &str = "state-roots/";
const RECORD_MAGIC: [u8; 4] = *b"WCST";
const PART_MAGIC: [u8; 4] = *b"WCSP";
const VERSION: u8 = 1;
const RECORD_PURPOSE: &str = "state-record";
const PART_PURPOSE: &str = "state-part";
const HEADER_BYTES: usize = 108;
/// The key of a record is derived for its random id and seals this one message.
const NONCE: [u8; 12] = [0; 12];
/// A record may be so long; so may the content of a part. The longest row of a control database is far below.
pub const MAX_RECORD_BYTES: usize = 256 << 20;
/// A piece that is no longer than this stands in the record itself.
pub const INLINE_BYTES: usize = 16 << 10;
const INLINE: u8 = 0;
const PART: u8 = 1;
const MAX_NAME_NUMBER: u64 = 9_999_999_999;

/// Why a record or part cannot be made or read. Trying again helps only where there was no randomness.
#[derive(Debug, Error)]
pub enum StateRecordError {
    /// The bytes are not what the format says, or were changed.
    #[error("the state record is corrupt: {0}")]
    Corrupt(#[from] Malformed),
    /// Another key than the one given: another generation's, or another installation's.
    #[error("the state record is sealed under another root key than the one given")]
    WrongKey,
    /// Written by a newer program.
    #[error("the state record has unknown format version {0}; a newer version of the program may know it")]
    UnknownVersion(u8),
    /// A part of the image is not what the record says.
    #[error("a part of the state record is corrupt: {0}")]
    Part(#[source] EnvelopeError),
    /// A number that the format cannot hold.
    #[error("the state record cannot be written: {0}")]
    TooLarge(&'static str),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

type Result<T, E = StateRecordError> = std::result::Result<T, E>;

/// The name of a record, which says all that can be known without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordName {
    /// Its number, from 1.
    pub number: u64,
    /// The generation whose root opens it.
    pub generation: Generation,
    /// SHA-256 of the object.
    pub sha256: Sha256,
}

impl RecordName {
    /// The object's name.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{:010}-{}", prefix_of(self.number), self.generation, self.sha256)
    }

    /// Reads [`RecordName::text`]; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.strip_prefix(RECORDS)?.split('-');
        let digits = |field: &str| (field.len() == 10).then(|| field.parse::<u64>().ok()).flatten();
        let number = digits(fields.next()?)?;
        let generation = i64::try_from(digits(fields.next()?)?).ok()?;
        let sha256 = Sha256::parse(fields.next()?)?;
        let name = Self { number, generation, sha256 };
        // Only the canonical form: no signs, nothing behind it.
        (name.text() == text).then_some(name)
    }
}

/// What the names of all records with this number begin with; there should be one.
#[must_use]
pub fn prefix_of(number: u64) -> String {
    format!("{RECORDS}{number:010}-")
}

/// The name of a wrapped root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootName {
    /// Its generation.
    pub generation: Generation,
    /// SHA-256 of the object.
    pub sha256: Sha256,
}

impl RootName {
    /// The object's name.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{ROOTS}{:010}-{}", self.generation, self.sha256)
    }

    /// Reads [`RootName::text`]; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (generation, sha256) = text.strip_prefix(ROOTS)?.split_once('-')?;
        let name = Self { generation: generation.parse().ok()?, sha256: Sha256::parse(sha256)? };
        (name.generation > 0 && name.text() == text).then_some(name)
    }
}

/// A file that travels with the state: signing keys.
pub struct StateFile {
    /// Its name in the state folder.
    pub name: String,
    /// Its bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Where a piece of the image lies.
pub enum PiecePlace {
    /// In the record.
    Inline(Zeroizing<Vec<u8>>),
    /// In an object of its own.
    Part(PartRef),
}

/// A part of an image in the second place.
pub struct PartRef {
    /// SHA-256 of the object, which is its name.
    pub object: Sha256,
    /// The object's bytes.
    pub bytes: u32,
    /// The key that it is sealed under. It stands only in records, so it dies with the last root that opens one.
    pub key: Key,
}

impl PartRef {
    /// The object's name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{PARTS}{}", self.object)
    }
}

/// A piece of the image.
pub struct Piece {
    /// SHA-256 of its content.
    pub digest: Sha256,
    /// Where it lies.
    pub place: PiecePlace,
}

/// The heads of the state, to be compared with the image and with other witnesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateHeads {
    /// The newest position of the ledger.
    pub ledger: i64,
    /// The newest snapshot number given out.
    pub snapshots: i64,
    /// The newest certificate number.
    pub certificates: i64,
    /// The fencing token of the work lease.
    pub lease_token: i64,
}

/// What a record holds.
pub struct StateRecord {
    /// Its number.
    pub number: u64,
    /// The generation of the key tree in it.
    pub generation: Generation,
    /// The record before it.
    pub previous: Option<Sha256>,
    /// When the image was taken.
    pub at: DateTime<Utc>,
    /// The heads of the state.
    pub heads: StateHeads,
    /// A digest of everything whose change is worth another record.
    pub counted: Sha256,
    /// The files.
    pub files: Vec<StateFile>,
    /// The image, piece by piece.
    pub pieces: Vec<Piece>,
}

/// A sealed object and its name.
pub struct SealedRecord {
    /// Its name.
    pub name: RecordName,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

struct Header {
    number: u64,
    generation: Generation,
    previous: [u8; 32],
    id: [u8; 16],
    commitment: [u8; 32],
    sealed_bytes: u32,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&RECORD_MAGIC);
        out.extend_from_slice(&[VERSION, Suite::Intl as u8, 0, 0]);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.commitment);
        out.extend_from_slice(&self.sealed_bytes.to_be_bytes());
        out
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self> {
        if reader.array::<4>()? != RECORD_MAGIC {
            return Err(Malformed { at: 0, what: "wrong magic" }.into());
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(StateRecordError::UnknownVersion(version));
        }
        if reader.u8()? != Suite::Intl as u8 || reader.u16()? != 0 {
            return Err(reader.malformed("unknown suite or reserved bytes").into());
        }
        let number = u64::from_be_bytes(reader.array()?);
        let generation = i64::from_be_bytes(reader.array()?);
        let (previous, id, commitment) = (reader.array()?, reader.array()?, reader.array()?);
        let sealed_bytes = reader.u32()?;
        if number == 0 || generation < 1 || (sealed_bytes as usize) < TAG_BYTES {
            return Err(reader.malformed("impossible number").into());
        }
        Ok(Self { number, generation, previous, id, commitment, sealed_bytes })
    }
}

impl StateRecord {
    /// Seals the record under the root key of its generation.
    ///
    /// # Errors
    /// [`StateRecordError::TooLarge`], [`StateRecordError::Random`].
    pub fn seal(&self, installation: Id128, root: &Key, random: &dyn Random) -> Result<SealedRecord> {
        if self.number == 0 || self.number > MAX_NAME_NUMBER || !(1..=MAX_NAME_NUMBER as i64).contains(&self.generation)
        {
            return Err(StateRecordError::TooLarge("a number has more than ten digits"));
        }
        let content = self.encode()?;
        if content.len() > MAX_RECORD_BYTES {
            return Err(StateRecordError::TooLarge("more than 256 MiB"));
        }
        let mut plain = Zeroizing::new(wrap_content(&content));
        let id = Id128::make(random)?;
        let key = derive_chain_part_key(Suite::Intl, root, RECORD_PURPOSE, &id.0);
        let header = Header {
            number: self.number,
            generation: self.generation,
            previous: self.previous.map_or([0; 32], |previous| previous.0),
            id: id.0,
            commitment: key.commitment,
            sealed_bytes: (plain.len() + TAG_BYTES) as u32,
        };
        let mut bytes = header.encode();
        let context = [&bytes[..], &installation.0].concat();
        suite::seal(Suite::Intl, &key.encryption, NONCE, &context, &mut plain)
            .map_err(|_| StateRecordError::TooLarge("the cipher refused it"))?;
        bytes.extend_from_slice(&plain);
        let name = RecordName { number: self.number, generation: self.generation, sha256: Sha256::of(&bytes) };
        Ok(SealedRecord { name, bytes })
    }

    /// Opens a record that was fetched under `name`.
    ///
    /// # Errors
    /// [`StateRecordError::WrongKey`] with another root, [`StateRecordError::Corrupt`] for bytes that are not that record.
    pub fn open(bytes: &[u8], name: &RecordName, installation: Id128, root: &Key) -> Result<Self> {
        if Sha256::of(bytes) != name.sha256 {
            return Err(Malformed { at: 0, what: "another SHA-256 than its name says" }.into());
        }
        let mut reader = Reader::new(bytes);
        let header = Header::parse(&mut reader)?;
        if (header.number, header.generation) != (name.number, name.generation) {
            return Err(reader.malformed("another number or generation than its name says").into());
        }
        let sealed = reader.rest();
        if sealed.len() != header.sealed_bytes as usize {
            return Err(reader.malformed("length differs from the header's").into());
        }
        let key = derive_chain_part_key(Suite::Intl, root, RECORD_PURPOSE, &header.id);
        if !key.commits_to(&header.commitment) {
            return Err(StateRecordError::WrongKey);
        }
        let context = [&bytes[..HEADER_BYTES], &installation.0].concat();
        let mut plain = Zeroizing::new(sealed.to_vec());
        suite::open(Suite::Intl, &key.encryption, NONCE, &context, &mut plain)
            .map_err(|_| Malformed { at: HEADER_BYTES, what: "changed bytes, or of another installation" })?;
        let content = Zeroizing::new(unwrap_content(&plain, MAX_RECORD_BYTES)?);
        Self::decode(&header, &content)
    }

    fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(Vec::new());
        let heads = [self.heads.ledger, self.heads.snapshots, self.heads.certificates, self.heads.lease_token];
        for number in std::iter::once(self.at.timestamp_millis()).chain(heads) {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.counted.0);
        let short = |length: usize| u16::try_from(length).map_err(|_| StateRecordError::TooLarge("too many files"));
        let long = |length: usize| u32::try_from(length).map_err(|_| StateRecordError::TooLarge("a piece is too long"));
        out.extend_from_slice(&short(self.files.len())?.to_be_bytes());
        for file in &self.files {
            out.extend_from_slice(&short(file.name.len())?.to_be_bytes());
            out.extend_from_slice(file.name.as_bytes());
            out.extend_from_slice(&long(file.bytes.len())?.to_be_bytes());
            out.extend_from_slice(&file.bytes);
        }
        out.extend_from_slice(&long(self.pieces.len())?.to_be_bytes());
        for piece in &self.pieces {
            out.push(if matches!(piece.place, PiecePlace::Inline(_)) { INLINE } else { PART });
            out.extend_from_slice(&piece.digest.0);
            match &piece.place {
                PiecePlace::Inline(bytes) => {
                    out.extend_from_slice(&long(bytes.len())?.to_be_bytes());
                    out.extend_from_slice(bytes);
                }
                PiecePlace::Part(part) => {
                    out.extend_from_slice(&part.object.0);
                    out.extend_from_slice(&part.bytes.to_be_bytes());
                    out.extend_from_slice(part.key.dangerous_bytes());
                }
            }
        }
        Ok(out)
    }

    fn decode(header: &Header, content: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(content);
        let mut numbers = [0_i64; 5];
        for number in &mut numbers {
            *number = i64::from_be_bytes(reader.array()?);
        }
        let [millis, ledger, snapshots, certificates, lease_token] = numbers;
        let at = DateTime::from_timestamp_millis(millis).ok_or(reader.malformed("not a time"))?;
        let counted = Sha256(reader.array()?);
        let mut files = Vec::new();
        for _ in 0..reader.u16()? {
            let length = usize::from(reader.u16()?);
            let name = String::from_utf8(reader.take(length)?.to_vec()).map_err(|_| reader.malformed("not a name"))?;
            if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
                return Err(reader.malformed("not a plain file name").into());
            }
            let length = reader.u32()? as usize;
            files.push(StateFile { name, bytes: Zeroizing::new(reader.take(length)?.to_vec()) });
        }
        let mut pieces = Vec::new();
        for _ in 0..reader.u32()? {
            pieces.push(decode_piece(&mut reader)?);
        }
        reader.expect_end()?;
        Ok(Self {
            number: header.number,
            generation: header.generation,
            previous: (header.previous != [0; 32]).then_some(Sha256(header.previous)),
            at,
            heads: StateHeads { ledger, snapshots, certificates, lease_token },
            counted,
            files,
            pieces,
        })
    }
}

fn decode_piece(reader: &mut Reader<'_>) -> Result<Piece> {
    let kind = reader.u8()?;
    let digest = Sha256(reader.array()?);
    let place = match kind {
        INLINE => {
            let length = reader.u32()? as usize;
            let bytes = Zeroizing::new(reader.take(length)?.to_vec());
            if Sha256::of(&bytes) != digest {
                return Err(reader.malformed("a piece has another digest than stated").into());
            }
            PiecePlace::Inline(bytes)
        }
        PART => {
            let object = Sha256(reader.array()?);
            let bytes = reader.u32()?;
            let key = Zeroizing::new(reader.array()?);
            PiecePlace::Part(PartRef { object, bytes, key: Key::dangerous_from_bytes(&key) })
        }
        _ => return Err(reader.malformed("unknown kind of piece").into()),
    };
    Ok(Piece { digest, place })
}

/// Seals a piece of an image into a part under a key of its own.
///
/// # Errors
/// [`StateRecordError::TooLarge`], [`StateRecordError::Random`].
pub fn seal_part(content: &[u8], installation: Id128, random: &dyn Random) -> Result<(PartRef, Vec<u8>)> {
    if content.len() > MAX_RECORD_BYTES {
        return Err(StateRecordError::TooLarge("a piece has more than 256 MiB"));
    }
    let (key, id) = (Key::make(random)?, Id128::make(random)?);
    let part_key = derive_chain_part_key(Suite::Intl, &key, PART_PURPOSE, &id.0);
    let bytes = envelope::seal(PART_MAGIC, Suite::Intl, id, &part_key, &installation.0, wrap_content(content))
        .map_err(StateRecordError::Part)?;
    Ok((PartRef { object: Sha256::of(&bytes), bytes: bytes.len() as u32, key }, bytes))
}

/// Opens a part.
///
/// # Errors
/// When it is not what the record says.
pub fn open_part(bytes: &[u8], part: &PartRef, installation: Id128) -> Result<Vec<u8>> {
    if Sha256::of(bytes) != part.object {
        return Err(Malformed { at: 0, what: "a part has another SHA-256 than its name says" }.into());
    }
    let id: [u8; 16] = bytes.get(8..24).and_then(|id| id.try_into().ok()).unwrap_or_default();
    let key = derive_chain_part_key(Suite::Intl, &part.key, PART_PURPOSE, &id);
    let (_, plain) = envelope::open(PART_MAGIC, bytes, &key, &installation.0, 2 * MAX_RECORD_BYTES)
        .map_err(StateRecordError::Part)?;
    Ok(unwrap_content(&plain, MAX_RECORD_BYTES)?)
}

#[cfg(test)]
mod tests;
