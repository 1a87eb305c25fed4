//! A frame of removed rows: which rows of a cell, sealed in an earlier snapshot of the chain, are there no more. Pure.
//!
//! It names them by the keyed digests under which ledger and sealing history know rows, so it holds no value of theirs, and it
//! is sealed as any other frame of the cell: it opens as long as the versions that it takes away, and dies with them.
//! Byte layout and limits are in the documentation of [`crate::backup`].

use super::codec::{Id128, Malformed, Reader, Sha256, unwrap_content, wrap_content};
use super::envelope;
use super::frame::{FrameContext, FrameError, FrameKey, MAGIC, MAX_ROWS, max_sealed_bytes};
use crate::keys::suite::Suite;

/// A row's keyed digest.
pub type RowDigest = [u8; 16];

const KIND_REMOVED: u8 = 2;
const DIGEST_BYTES: usize = 32;
/// kind, collection, chunk, rows
const FIXED_BYTES: usize = 13;
/// The most content bytes: the fixed part, and a digest for each of the most rows that a frame can name.
const MAX_REMOVED_BYTES: usize = FIXED_BYTES + DIGEST_BYTES + MAX_ROWS * size_of::<RowDigest>();

/// What such a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedRows {
    /// The collection's number in the snapshot's directory.
    pub collection: u32,
    /// Its number among the row sets of the snapshot.
    pub chunk: u32,
    /// The rows, strictly ascending, at most [`MAX_ROWS`].
    pub rows: Vec<RowDigest>,
}

/// Seals digests of removed rows. `id` must be fresh and random, `key` derived for it; a retry needs both anew.
///
/// # Errors
/// When there are none, too many, or not in ascending order, or the cipher refuses.
pub fn seal_removed(
    removed: &RemovedRows,
    suite: Suite,
    id: Id128,
    key: &FrameKey,
    place: &FrameContext,
) -> Result<Vec<u8>, FrameError> {
    let plain = wrap_content(&encode(removed)?);
    Ok(envelope::seal(MAGIC, suite, id, key, &place.encode(), plain)?)
}

/// Opens a frame of removed rows; `bytes` are exactly its own.
///
/// # Errors
/// [`FrameError::WrongKey`] when it is sealed under another key, otherwise what is wrong with it. Never panics.
pub fn open_removed(bytes: &[u8], key: &FrameKey, place: &FrameContext) -> Result<RemovedRows, FrameError> {
    let (_, plain) = envelope::open(MAGIC, bytes, key, &place.encode(), max_sealed_bytes())?;
    decode(&unwrap_content(&plain, MAX_REMOVED_BYTES)?)
}

fn encode(removed: &RemovedRows) -> Result<Vec<u8>, FrameError> {
    if removed.rows.is_empty() || removed.rows.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(FrameError::NotSealable("no removed rows, or not in ascending order"));
    }
    let bytes = FIXED_BYTES + DIGEST_BYTES + removed.rows.len() * size_of::<RowDigest>();
    if removed.rows.len() > MAX_ROWS {
        return Err(FrameError::TooLarge { rows: removed.rows.len(), bytes });
    }
    let mut out = Vec::with_capacity(bytes);
    out.push(KIND_REMOVED);
    out.extend_from_slice(&removed.collection.to_be_bytes());
    out.extend_from_slice(&removed.chunk.to_be_bytes());
    out.extend_from_slice(&(removed.rows.len() as u32).to_be_bytes());
    let rows = removed.rows.concat();
    out.extend_from_slice(&Sha256::of_parts(&[&out, &rows]).0);
    out.extend_from_slice(&rows);
    Ok(out)
}

fn decode(content: &[u8]) -> Result<RemovedRows, FrameError> {
    let mut reader = Reader::new(content);
    let kind = reader.u8()?;
    if kind != KIND_REMOVED {
        return Err(FrameError::UnknownKind(kind));
    }
    let (collection, chunk, count) = (reader.u32()?, reader.u32()?, reader.u32()? as usize);
    if !(1..=MAX_ROWS).contains(&count) {
        return Err(reader.malformed("impossible counts").into());
    }
    let digest: [u8; DIGEST_BYTES] = reader.array()?;
    if Sha256::of_parts(&[&content[..FIXED_BYTES], &content[reader.at()..]]).0 != digest {
        return Err(reader.malformed("the content's digest differs").into());
    }
    let rows = (0..count).map(|_| reader.array()).collect::<Result<Vec<RowDigest>, Malformed>>()?;
    reader.expect_end()?;
    if rows.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(reader.malformed("the removed rows are not in ascending order").into());
    }
    Ok(RemovedRows { collection, chunk, rows })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::Key;
    use crate::keys::suite::{derive_key, mac};

    const ID: Id128 = Id128([9; 16]);
    const PLACE: FrameContext = FrameContext { repository: Id128([1; 16]), pack: Id128([2; 16]), ordinal: 3 };

    fn key() -> FrameKey {
        let secret = Key::dangerous_from_bytes(&[7; 32]);
        FrameKey {
            encryption: derive_key(Suite::Intl, &secret, &[b"test"]),
            commitment: mac(Suite::Intl, &secret, &[b"test"]),
        }
    }

    fn sealed(rows: Vec<RowDigest>) -> Result<Vec<u8>, FrameError> {
        seal_removed(&RemovedRows { collection: 4, chunk: 5, rows }, Suite::Intl, ID, &key(), &PLACE)
    }

    proptest! {
        #[test]
        fn removed_rows_round_trip(rows in proptest::collection::btree_set(any::<[u8; 16]>(), 1..50)) {
            let rows: Vec<RowDigest> = rows.into_iter().collect();
            let opened = open_removed(&sealed(rows.clone()).unwrap(), &key(), &PLACE).unwrap();
            prop_assert_eq!(opened, RemovedRows { collection: 4, chunk: 5, rows });
        }

        #[test]
        fn reading_never_panics(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&content);
        }

        #[test]
        fn any_changed_byte_is_found(at in any::<prop::sample::Index>(), with in 1u8..) {
            let mut content = encode(&RemovedRows { collection: 4, chunk: 5, rows: vec![[1; 16], [2; 16]] }).unwrap();
            let at = at.index(content.len());
            content[at] ^= with;
            prop_assert!(decode(&content).is_err());
        }
    }

    #[test]
    fn what_is_no_list_of_removed_rows_is_refused() {
        for rows in [vec![], vec![[2; 16], [1; 16]], vec![[1; 16]; 2]] {
            assert!(matches!(sealed(rows), Err(FrameError::NotSealable(_))));
        }
        let many = (0..=MAX_ROWS as u128).map(u128::to_be_bytes).collect();
        assert!(matches!(sealed(many), Err(FrameError::TooLarge { .. })));
        let most: Vec<RowDigest> = (0..MAX_ROWS as u128).map(u128::to_be_bytes).collect();
        assert_eq!(open_removed(&sealed(most).unwrap(), &key(), &PLACE).unwrap().rows.len(), MAX_ROWS);
        let rows = sealed(vec![[1; 16]]).unwrap();
        assert_eq!(super::super::frame::open_frame(&rows, &key(), &PLACE), Err(FrameError::UnknownKind(KIND_REMOVED)));
    }
}
