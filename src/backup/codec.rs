//! Shared bytes of all backup formats: ids, digests, bounded reading, compression and padding. Pure.

use std::cell::RefCell;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::random::{Random, RandomUnavailable};

/// Bytes that are not what the format says.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("malformed at byte {at}: {what}")]
pub struct Malformed {
    /// Where reading stopped, counted from the start of the part that was read.
    pub at: usize,
    /// What was wrong there.
    pub what: &'static str,
}

/// A 128-bit id: of a frame, pack, directory part, snapshot, store or installation. Written as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id128(pub [u8; 16]);

impl Id128 {
    /// Draws a random id.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn make(random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut bytes = [0; 16];
        random.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Reads 32 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

/// A SHA-256 digest (FIPS 180-4). Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_parts(&[bytes])
    }

    /// The digest of the concatenation of `parts`.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in parts {
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// Reads 64 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let canonical = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (canonical && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

macro_rules! written_as_hex {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom($what))
            }
        }
    };
}

written_as_hex!(Id128, "expected 32 lower-case hex digits");
written_as_hex!(Sha256, "expected 64 lower-case hex digits");

/// Reads big-endian fields from bytes that may be hostile; never goes beyond them.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(self.malformed("cut short"))?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    pub(crate) fn expect_end(&self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed("bytes behind the end")) }
    }
}

/// The padded length of `length` bytes: Padmé (Nikitin et al., PETS 2019, "Reducing metadata leakage from encrypted
/// files"), but never finer than 64 bytes.
///
/// Padmé alone would leave small frames, the usual case, nearly exact (8-byte steps at 100 bytes); 64-byte steps alone
/// would leave large ones nearly exact. Together at most 63 bytes are added up to 2 KiB, and at most 12 % above.
#[must_use]
pub fn padded_length(length: usize) -> usize {
    const FINEST: usize = 64;
    if length <= FINEST {
        return FINEST;
    }
    let exponent = length.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    let step = FINEST.max(1 << (exponent - kept_bits));
    length.div_ceil(step) * step
}

/// The zstd level: higher ones cost five times the time for three percent of the bytes (measured).
const ZSTD_LEVEL: i32 = 3;
const STORED: u8 = 0;
const ZSTD: u8 = 1;
/// Bytes before the stored content: compression, content length, stored length.
const WRAP_BYTES: usize = 9;

thread_local! {
    // Only the working memory is kept between calls, never a window or a dictionary: every content is compressed alone.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compress(content: &[u8]) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(zstd::bulk::Compressor::new(ZSTD_LEVEL)?);
        }
        slot.as_mut().map_or_else(|| Ok(content.to_vec()), |compressor| compressor.compress(content))
    })
}

fn decompress(stored: &[u8], capacity: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(zstd::bulk::Decompressor::new()?);
        }
        slot.as_mut().map_or_else(|| Ok(Vec::new()), |decompressor| decompressor.decompress(stored, capacity))
    })
}

/// Makes the plain text of an envelope from `content`: compressed when that is smaller, then padded with zeros.
/// `content` must be shorter than 4 GiB, which every caller bounds far below.
pub(crate) fn wrap_content(content: &[u8]) -> Vec<u8> {
    let compressed = compress(content).ok().filter(|compressed| compressed.len() < content.len());
    let (method, stored) = compressed.as_deref().map_or((STORED, content), |compressed| (ZSTD, compressed));
    let padded = padded_length(WRAP_BYTES + stored.len());
    let mut plain = Vec::with_capacity(padded + crate::keys::suite::TAG_BYTES);
    plain.push(method);
    plain.extend_from_slice(&(content.len() as u32).to_be_bytes());
    plain.extend_from_slice(&(stored.len() as u32).to_be_bytes());
    plain.extend_from_slice(stored);
    plain.resize(padded, 0);
    plain
}

/// Undoes [`wrap_content`]. Never makes more than `limit` bytes, whatever the plain text claims.
pub(crate) fn unwrap_content(plain: &[u8], limit: usize) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(plain);
    let method = reader.u8()?;
    let content_length = reader.u32()? as usize;
    let stored_length = reader.u32()? as usize;
    if content_length > limit {
        return Err(reader.malformed("content longer than the format allows"));
    }
    let stored = reader.take(stored_length)?;
    if plain.len() != padded_length(reader.at()) || reader.rest().iter().any(|byte| *byte != 0) {
        return Err(reader.malformed("wrong padding"));
    }
    let content = match method {
        STORED => stored.to_vec(),
        ZSTD => decompress(stored, content_length).map_err(|_| reader.malformed("content does not decompress"))?,
        _ => return Err(Malformed { at: 0, what: "unknown compression" }),
    };
    if content.len() != content_length {
        return Err(reader.malformed("content has another length than stated"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wrapping_round_trips(content in proptest::collection::vec(any::<u8>(), 0..3000), repeat in 1usize..4) {
            let content = content.repeat(repeat);
            let plain = wrap_content(&content);
            prop_assert_eq!(plain.len(), padded_length(plain.len()));
            prop_assert_eq!(unwrap_content(&plain, content.len()).unwrap(), content);
        }

        #[test]
        fn unwrapping_never_panics(plain in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = unwrap_content(&plain, 1 << 20);
        }

        #[test]
        fn padding_is_stable_and_bounded(length in 0usize..100_000_000) {
            let padded = padded_length(length);
            prop_assert!(padded >= length && padded >= 64);
            prop_assert_eq!(padded_length(padded), padded);
            prop_assert!(padded - length <= 63.max(length * 12 / 100));
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_at_the_limit() {
        let bomb = wrap_content(&vec![0; 1 << 20]);
        assert!(bomb.len() < 1024);
        assert_eq!(
            unwrap_content(&bomb, 1000).unwrap_err(),
            Malformed { at: 9, what: "content longer than the format allows" }
        );
        // The same bytes with a smaller stated length must not grow beyond that statement either.
        let mut liar = bomb;
        liar[1..5].copy_from_slice(&1000u32.to_be_bytes());
        assert_eq!(unwrap_content(&liar, 1000).unwrap_err().what, "content does not decompress");
    }

    #[test]
    fn padding_must_be_zero_and_of_the_right_length() {
        let mut plain = wrap_content(b"abc");
        assert_eq!(plain.len(), 64);
        plain[63] = 1;
        assert_eq!(unwrap_content(&plain, 10).unwrap_err().what, "wrong padding");
        plain[63] = 0;
        plain.extend_from_slice(&[0; 64]);
        assert_eq!(unwrap_content(&plain, 10).unwrap_err().what, "wrong padding");
    }

    #[test]
    fn hex_is_canonical() {
        assert_eq!(Id128::parse(&"0a".repeat(16)).unwrap(), Id128([10; 16]));
        assert!(Id128::parse(&"0A".repeat(16)).is_none());
        assert!(Id128::parse("0a").is_none());
        assert!(Sha256::parse(&"zz".repeat(32)).is_none());
        assert_eq!(Sha256::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
