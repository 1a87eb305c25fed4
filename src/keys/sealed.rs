//! Sealing of small columns of the control database under a key of the tree.
//!
//! ```text
//! sealed = format (1) | nonce (12) | AES-256-GCM(content) with tag (16)
//! content = plain text | 0x80 | zeros up to a multiple of 32 bytes    (ISO/IEC 7816-4 padding)
//! ```
//! The cipher key is derived from the leaf key and the context, the context is authenticated too: a sealed value opens in its own
//! table, column and row only, and the leaf key itself never encrypts anything. Padding hides the length of short ids.

use thiserror::Error;
use zeroize::Zeroizing;

use super::Key;
use super::suite::{self, SealError, Suite, TAG_BYTES};
use crate::random::{Random, RandomUnavailable};

/// The version of the sealed form that this program writes.
pub const COLUMN_FORMAT: u8 = 1;
/// The longest plain text, in bytes. Larger things are cut into chunks by their owner.
pub const COLUMN_LIMIT_BYTES: usize = 64 << 20;

const NONCE_BYTES: usize = 12;
const PADDED_BYTES: usize = 32;

/// What can go wrong with a sealed column.
#[derive(Debug, Error)]
pub enum ColumnError {
    /// The value does not open: another key, another context, or changed bytes.
    #[error("the sealed column does not open with this key and context")]
    DoesNotOpen,
    /// Written by a newer version of the program.
    #[error("the sealed column has format {0}; a newer version of the program may know it")]
    Newer(u8),
    /// Longer than [`COLUMN_LIMIT_BYTES`].
    #[error("a value of {0} bytes is too long for a sealed column")]
    TooLong(usize),
    /// The cipher refused the value.
    #[error("the column could not be sealed")]
    Cipher(#[source] SealError),
    /// No randomness; the only fault that trying again may cure.
    #[error("no randomness for a nonce")]
    Random(#[from] RandomUnavailable),
}

impl ColumnError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Random(_))
    }
}

/// Seals a value. `context` says where it stands, for example table, column and row number; it is needed again to open.
///
/// # Errors
/// [`ColumnError::TooLong`], [`ColumnError::Random`].
pub fn seal_column(key: &Key, context: &[&[u8]], plain: &[u8], random: &dyn Random) -> Result<Vec<u8>, ColumnError> {
    if plain.len() > COLUMN_LIMIT_BYTES {
        return Err(ColumnError::TooLong(plain.len()));
    }
    let mut nonce = [0; NONCE_BYTES];
    random.fill(&mut nonce)?;
    let length = (plain.len() + 1).next_multiple_of(PADDED_BYTES);
    // Room for the tag as well: growing would leave a copy of the plain text behind.
    let mut padded = Zeroizing::new(Vec::with_capacity(length + TAG_BYTES));
    padded.extend_from_slice(plain);
    padded.push(0x80);
    padded.resize(length, 0);
    suite::seal(Suite::Intl, &column_key(key, context), nonce, &column_context(context), &mut padded)
        .map_err(ColumnError::Cipher)?;
    let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + padded.len());
    sealed.push(COLUMN_FORMAT);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&padded);
    Ok(sealed)
}

/// Opens what [`seal_column`] made.
///
/// # Errors
/// [`ColumnError::DoesNotOpen`], [`ColumnError::Newer`].
pub fn open_column(key: &Key, context: &[&[u8]], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ColumnError> {
    let (format, rest) = sealed.split_first().ok_or(ColumnError::DoesNotOpen)?;
    match *format {
        COLUMN_FORMAT => {}
        newer if newer > COLUMN_FORMAT => return Err(ColumnError::Newer(newer)),
        _ => return Err(ColumnError::DoesNotOpen),
    }
    let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(ColumnError::DoesNotOpen)?;
    let mut padded = Zeroizing::new(body.to_vec());
    suite::open(Suite::Intl, &column_key(key, context), *nonce, &column_context(context), &mut padded)
        .map_err(|_| ColumnError::DoesNotOpen)?;
    let end = padded.iter().rposition(|byte| *byte != 0).filter(|end| padded[*end] == 0x80);
    padded.truncate(end.ok_or(ColumnError::DoesNotOpen)?);
    Ok(padded)
}

fn column_key(key: &Key, context: &[&[u8]]) -> Key {
    let mut parts: Vec<&[u8]> = vec![b"wangchuan.column"];
    parts.extend_from_slice(context);
    suite::derive_key(Suite::Intl, key, &parts)
}

/// The context parts with their lengths, so that different splits differ.
fn column_context(context: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![COLUMN_FORMAT];
    for part in context {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::testing::{DryRandom, ScriptedRandom, SeededRandom, Vector, key_of};
    use proptest::prelude::*;

    #[test]
    fn a_value_opens_only_with_its_key_and_context() {
        let random = SeededRandom::new(1);
        let sealed = seal_column(&key_of(1), &[b"request", b"subject"], b"42", &random).unwrap();
        assert_eq!(open_column(&key_of(1), &[b"request", b"subject"], &sealed).unwrap().as_slice(), b"42");
        let wrong: [(u8, &[&[u8]]); 4] =
            [(2, &[b"request", b"subject"]), (1, &[b"request"]), (1, &[b"requests", b"ubject"]), (1, &[])];
        for (key, context) in wrong {
            assert!(matches!(open_column(&key_of(key), context, &sealed), Err(ColumnError::DoesNotOpen)));
        }
    }

    #[test]
    fn short_values_of_different_length_look_alike() {
        let random = SeededRandom::new(1);
        let lengths = [0, 1, 18, 31].map(|n| seal_column(&key_of(1), &[], &vec![7; n], &random).unwrap().len());
        assert_eq!(lengths, [61; 4]);
    }

    #[test]
    fn a_newer_format_is_named_and_no_randomness_is_retryable() {
        assert!(matches!(open_column(&key_of(1), &[], &[2; 61]), Err(ColumnError::Newer(2))));
        assert!(seal_column(&key_of(1), &[], b"x", &DryRandom).unwrap_err().is_retryable());
    }

    #[test]
    fn other_padding_is_refused() {
        for (ending, is_fine) in [(0x80, true), (0x81, false), (0x00, false)] {
            let mut padded = vec![0; 32];
            padded[5] = ending;
            suite::seal(Suite::Intl, &column_key(&key_of(1), &[]), [0; 12], &column_context(&[]), &mut padded).unwrap();
            let sealed = [&[COLUMN_FORMAT][..], &[0; 12], &padded].concat();
            assert_eq!(open_column(&key_of(1), &[], &sealed).is_ok(), is_fine);
        }
    }

    #[test]
    fn sealing_matches_the_golden_vectors() {
        for vector in Vector::all(include_str!("../../tests/vectors/keys/column.json")) {
            let context: Vec<Vec<u8>> = vector.list("context").iter().map(|part| part.bytes("part")).collect();
            let context: Vec<&[u8]> = context.iter().map(Vec::as_slice).collect();
            let (key, plain, sealed) = (vector.key("key"), vector.bytes("plain"), vector.bytes("sealed"));
            let random = ScriptedRandom::new(vector.bytes("nonce"));
            assert_eq!(seal_column(&key, &context, &plain, &random).unwrap(), sealed);
            assert_eq!(*open_column(&key, &context, &sealed).unwrap(), plain);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn values_round_trip(plain in proptest::collection::vec(any::<u8>(), 0..200), seed: u8) {
            let sealed = seal_column(&key_of(3), &[b"c"], &plain, &SeededRandom::new(seed)).unwrap();
            prop_assert_eq!(&*open_column(&key_of(3), &[b"c"], &sealed).unwrap(), &plain);
        }

        #[test]
        fn any_changed_byte_is_noticed(at in 0_usize..61, bit in 0_u8..8) {
            let mut sealed = seal_column(&key_of(3), &[b"c"], b"secret", &SeededRandom::new(1)).unwrap();
            sealed[at] ^= 1 << bit;
            prop_assert!(open_column(&key_of(3), &[b"c"], &sealed).is_err());
        }

        #[test]
        fn opening_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(open_column(&key_of(3), &[], &bytes).is_err());
        }
    }
}
