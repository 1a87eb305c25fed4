//! The sealed envelope that frames and directory parts share. Pure.
//!
//! The key of an envelope is derived for its random id alone and seals exactly one message, so the nonce is the constant
//! zero: a (key, nonce) pair can repeat only if an id does. A retry must draw a new id.

use thiserror::Error;

use super::codec::{Id128, Malformed, Reader};
use super::frame::FrameKey;
use crate::keys::suite::{self, Suite, TAG_BYTES};

/// Bytes of the clear header.
pub const HEADER_BYTES: usize = 60;
const VERSION: u8 = 1;
const NONCE: [u8; 12] = [0; 12];

/// Why an envelope cannot be made or opened. Trying again does not help with any of them.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// The header's key commitment is another key's.
    #[error("sealed under another key than the one given")]
    WrongKey,
    /// The bytes are not what the format says, or were changed, or stand at another place than they were sealed for.
    #[error("corrupt: {0}")]
    Corrupt(#[from] Malformed),
    /// A newer version of the program wrote it.
    #[error("unknown format version {0}; a newer version of the program may know it")]
    UnknownVersion(u8),
    /// A suite that this version does not know.
    #[error("unknown cipher suite {0}; a newer version of the program may know it")]
    UnknownSuite(u8),
    /// The cipher refused to seal.
    #[error("the cipher refused the message")]
    Cipher,
}

/// What an envelope shows without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// The cipher suite.
    pub suite: Suite,
    /// The random id that its key was derived for.
    pub id: Id128,
    /// The commitment to its key.
    pub commitment: [u8; 32],
    /// Bytes behind the header, tag included.
    pub sealed_bytes: u32,
}

impl EnvelopeHeader {
    /// Bytes of the whole envelope.
    #[must_use]
    pub fn envelope_bytes(&self) -> usize {
        HEADER_BYTES + self.sealed_bytes as usize
    }

    /// Reads the header at the start of `bytes`; the sealed part must have at most `limit` bytes and may be absent.
    pub(crate) fn parse(magic: [u8; 4], bytes: &[u8], limit: usize) -> Result<Self, EnvelopeError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>()? != magic {
            return Err(Malformed { at: 0, what: "wrong magic" }.into());
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(EnvelopeError::UnknownVersion(version));
        }
        let suite = reader.u8()?;
        let suite = Suite::try_from(suite).map_err(|_| EnvelopeError::UnknownSuite(suite))?;
        if reader.u16()? != 0 {
            return Err(reader.malformed("reserved bytes are not zero").into());
        }
        let id = Id128(reader.array()?);
        let commitment = reader.array()?;
        let sealed_bytes = reader.u32()?;
        if (sealed_bytes as usize) > limit || (sealed_bytes as usize) < TAG_BYTES {
            return Err(reader.malformed("impossible length").into());
        }
        Ok(Self { suite, id, commitment, sealed_bytes })
    }

    fn encode(&self, magic: [u8; 4]) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&magic);
        out[4] = VERSION;
        out[5] = self.suite as u8;
        out[8..24].copy_from_slice(&self.id.0);
        out[24..56].copy_from_slice(&self.commitment);
        out[56..].copy_from_slice(&self.sealed_bytes.to_be_bytes());
        out
    }
}

/// Seals `plain`; `context` is authenticated together with the header but not stored.
pub(crate) fn seal(
    magic: [u8; 4],
    suite: Suite,
    id: Id128,
    key: &FrameKey,
    context: &[u8],
    mut plain: Vec<u8>,
) -> Result<Vec<u8>, EnvelopeError> {
    let sealed_bytes = (plain.len() + TAG_BYTES) as u32;
    let header = EnvelopeHeader { suite, id, commitment: key.commitment, sealed_bytes }.encode(magic);
    let aad = [&header, context].concat();
    suite::seal(suite, &key.encryption, NONCE, &aad, &mut plain).map_err(|_| EnvelopeError::Cipher)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + plain.len());
    out.extend_from_slice(&header);
    out.append(&mut plain);
    Ok(out)
}

/// Opens the envelope that `bytes` hold from their first to their last byte.
pub(crate) fn open(
    magic: [u8; 4],
    bytes: &[u8],
    key: &FrameKey,
    context: &[u8],
    limit: usize,
) -> Result<(EnvelopeHeader, Vec<u8>), EnvelopeError> {
    let header = EnvelopeHeader::parse(magic, bytes, limit)?;
    if bytes.len() != header.envelope_bytes() {
        return Err(Malformed { at: bytes.len(), what: "length differs from the header's" }.into());
    }
    if header.commitment != key.commitment {
        return Err(EnvelopeError::WrongKey);
    }
    let (clear, sealed) = bytes.split_at(HEADER_BYTES);
    let aad = [clear, context].concat();
    let mut plain = sealed.to_vec();
    suite::open(header.suite, &key.encryption, NONCE, &aad, &mut plain)
        .map_err(|_| Malformed { at: HEADER_BYTES, what: "changed bytes, or not the place it was sealed for" })?;
    Ok((header, plain))
}
