//! From leaf keys to the keys of cells and frames.
//!
//! ```text
//! cell secret = HMAC-SHA-256(subject key, "subject", ids) XOR HMAC-SHA-256(bucket key, "bucket", ids)      or a pin
//! frame base  = HMAC(cell secret, "cell", frame) XOR HMAC(chain key, "chain", frame)                       of the suite
//! encryption  = HMAC(frame base, "encrypt"),   commitment = HMAC(frame base, "commit")
//! ```
//! XOR makes each of them unknown as soon as one factor is. There is one secret per cell, whatever the suites of its frames,
//! so that a pin preserves a cell by copying just that secret.

use super::Key;
use super::suite::{Suite, derive_key, mac};

/// Which cell: numbers of slots, nothing that names anyone outside the key tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellRef {
    /// The slot number of the subject or owner set; `None` for rows without a subject.
    pub subject: Option<u32>,
    /// The slot number of the bucket.
    pub bucket: u32,
}

impl std::fmt::Debug for CellRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.subject.is_some() { "CellRef(owned)" } else { "CellRef(unowned)" })
    }
}

/// The key in a numbered slot.
#[derive(Clone, Copy)]
pub struct Factor<'k> {
    /// The slot's number.
    pub number: u32,
    /// The slot's key.
    pub key: &'k Key,
}

/// The one secret of a cell. Whoever has it and the chain's key opens the cell's frames.
pub struct CellSecret(Key);

impl CellSecret {
    /// The secret that a pin holds, whether it was copied from a cell or made fresh.
    #[must_use]
    pub fn from_pin(pin: &Key) -> Self {
        Self(Key::dangerous_from_bytes(pin.dangerous_bytes()))
    }

    /// A copy for a preserving pin. It outlives the subject's and the bucket's key.
    #[must_use]
    pub fn to_pin(&self) -> Key {
        Key::dangerous_from_bytes(self.0.dangerous_bytes())
    }

    /// Whether both are the same secret.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.is_same(&other.0)
    }
}

/// The secret of the cell of a subject and a bucket; without a subject the bucket alone decides.
#[must_use]
pub fn derive_cell_secret(subject: Option<Factor<'_>>, bucket: Factor<'_>) -> CellSecret {
    let owner = subject.map_or([0; 5], |subject| {
        let [a, b, c, d] = subject.number.to_be_bytes();
        [1, a, b, c, d]
    });
    let number = bucket.number.to_be_bytes();
    let part = |role: &[u8], key| derive_key(Suite::Intl, key, &[b"wangchuan.cell", role, &owner, &number]);
    let bucket_part = part(b"bucket", bucket.key);
    match subject {
        Some(subject) => CellSecret(part(b"subject", subject.key).derive_xor(&bucket_part)),
        None => CellSecret(bucket_part),
    }
}

/// The key under which the change index digests the content of a cell's rows in a chain: without either its entries are noise, as
/// the frames are.
#[must_use]
pub fn derive_index_key(cell: &CellSecret, chain: &Key) -> Key {
    let part = |role: &[u8], key| derive_key(Suite::Intl, key, &[b"wangchuan.change-index", role]);
    part(b"cell", &cell.0).derive_xor(&part(b"chain", chain))
}

/// The keys of one frame.
pub struct FrameKey {
    /// Seals the frame, in the frame's suite.
    pub encryption: Key,
    /// Stands in the frame's header and ties it to this key: GCM alone would let one message open under two keys.
    pub commitment: [u8; 32],
}

impl FrameKey {
    /// Whether a stored commitment is this key's; takes the same time whatever the answer.
    #[must_use]
    pub fn commits_to(&self, stored: &[u8; 32]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.commitment, stored).is_ok()
    }

    fn of_base(suite: Suite, base: &Key) -> Self {
        Self {
            encryption: derive_key(suite, base, &[b"wangchuan.frame", b"encrypt"]),
            commitment: mac(suite, base, &[b"wangchuan.frame", b"commit"]),
        }
    }
}

/// The keys of a frame of a cell in a chain. `frame_id` is random and never used twice.
#[must_use]
pub fn derive_frame_key(suite: Suite, cell: &CellSecret, chain: &Key, frame_id: &[u8; 16]) -> FrameKey {
    let number = [suite as u8];
    let cell_part = derive_key(suite, &cell.0, &[b"wangchuan.frame", b"cell", &number, frame_id]);
    let chain_part = derive_key(suite, chain, &[b"wangchuan.frame", b"chain", &number, frame_id]);
    FrameKey::of_base(suite, &cell_part.derive_xor(&chain_part))
}

/// The keys of something that belongs to a chain and to no cell, such as a pack's directory. `purpose` separates uses.
#[must_use]
pub fn derive_chain_part_key(suite: Suite, chain: &Key, purpose: &str, id: &[u8]) -> FrameKey {
    let number = [suite as u8];
    FrameKey::of_base(suite, &derive_key(suite, chain, &[b"wangchuan.chain-part", &number, purpose.as_bytes(), id]))
}

/// The pseudonym of `parts` in a domain: a keyed hash that nobody can recompute or test once the key is shredded.
#[must_use]
pub fn pseudonym(key: &Key, domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut all: Vec<&[u8]> = vec![b"wangchuan.pseudonym", domain.as_bytes()];
    all.extend_from_slice(parts);
    mac(Suite::Intl, key, &all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::testing::{Vector, key_of};
    use proptest::prelude::*;

    fn owned(subject: u8, bucket: u8) -> CellSecret {
        let (subject, bucket) = (key_of(subject), key_of(bucket));
        derive_cell_secret(Some(Factor { number: 7, key: &subject }), Factor { number: 9, key: &bucket })
    }

    #[test]
    fn every_factor_of_a_cell_counts() {
        let cell = owned(1, 2);
        assert!(cell.is_same(&owned(1, 2)));
        assert!(!cell.is_same(&owned(3, 2)));
        assert!(!cell.is_same(&owned(1, 3)));
        let (subject, bucket) = (key_of(1), key_of(2));
        for (s, b) in [(8, 9), (7, 8), (9, 7)] {
            let other =
                derive_cell_secret(Some(Factor { number: s, key: &subject }), Factor { number: b, key: &bucket });
            assert!(!cell.is_same(&other));
        }
        assert!(!cell.is_same(&derive_cell_secret(None, Factor { number: 9, key: &bucket })));
    }

    #[test]
    fn cell_and_chain_count_in_the_change_index() {
        let key = derive_index_key(&owned(1, 2), &key_of(3));
        assert!(key.is_same(&derive_index_key(&owned(1, 2), &key_of(3))));
        assert!(!key.is_same(&derive_index_key(&owned(1, 4), &key_of(3))));
        assert!(!key.is_same(&derive_index_key(&owned(1, 2), &key_of(4))));
        let same = CellSecret::from_pin(&key_of(5));
        assert!(!derive_index_key(&same, &key_of(5)).is_same(&key_of(0)), "equal keys cancel out");
    }

    #[test]
    fn equal_subject_and_bucket_keys_do_not_cancel_out() {
        assert!(!owned(5, 5).is_same(&CellSecret::from_pin(&key_of(0))));
    }

    #[test]
    fn a_pin_preserves_the_frames_of_both_suites() {
        let (cell, chain, id) = (owned(1, 2), key_of(3), [4; 16]);
        let pin = cell.to_pin();
        for suite in [Suite::Intl, Suite::Gm] {
            let before = derive_frame_key(suite, &cell, &chain, &id);
            let after = derive_frame_key(suite, &CellSecret::from_pin(&pin), &chain, &id);
            assert!(before.encryption.is_same(&after.encryption));
            assert!(before.commits_to(&after.commitment));
        }
    }

    #[test]
    fn frames_differ_by_cell_chain_id_and_suite() {
        let (cell, chain) = (owned(1, 2), key_of(3));
        let frame = derive_frame_key(Suite::Intl, &cell, &chain, &[4; 16]);
        let others = [
            derive_frame_key(Suite::Gm, &cell, &chain, &[4; 16]),
            derive_frame_key(Suite::Intl, &owned(1, 1), &chain, &[4; 16]),
            derive_frame_key(Suite::Intl, &cell, &key_of(4), &[4; 16]),
            derive_frame_key(Suite::Intl, &cell, &chain, &[5; 16]),
            derive_chain_part_key(Suite::Intl, &chain, "directory", &[4; 16]),
        ];
        for other in others {
            assert!(!frame.encryption.is_same(&other.encryption));
            assert!(!frame.commits_to(&other.commitment));
        }
    }

    #[test]
    fn debug_shows_no_number() {
        let shown = format!("{:?}", CellRef { subject: Some(123_456), bucket: 654_321 });
        assert_eq!(shown, "CellRef(owned)");
    }

    #[test]
    fn derivations_match_the_golden_vectors() {
        for vector in Vector::all(include_str!("../../tests/vectors/keys/cell.json")) {
            let (subject, bucket, chain) =
                (vector.key("subject_key"), vector.key("bucket_key"), vector.key("chain_key"));
            let number = |name| u32::try_from(vector.number(name)).unwrap();
            let factor = Factor { number: number("subject"), key: &subject };
            let owner = (factor.number != 0).then_some(factor);
            let cell = derive_cell_secret(owner, Factor { number: number("bucket"), key: &bucket });
            assert_eq!(cell.to_pin().dangerous_bytes(), &vector.array("cell_secret"));
            for (suite, name) in [(Suite::Intl, "intl"), (Suite::Gm, "gm")] {
                let expect = |what: &str| vector.array::<32>(&format!("{name}_{what}"));
                let frame = derive_frame_key(suite, &cell, &chain, &vector.array("frame_id"));
                assert_eq!(frame.encryption.dangerous_bytes(), &expect("encryption"));
                assert_eq!(frame.commitment, expect("commitment"));
                let part = derive_chain_part_key(suite, &chain, "directory", &vector.bytes("frame_id"));
                assert_eq!(part.encryption.dangerous_bytes(), &expect("directory_encryption"));
                assert_eq!(part.commitment, expect("directory_commitment"));
            }
            let pseudonym = pseudonym(&chain, "suppression", &[b"a", b"bc"]);
            assert_eq!(pseudonym, vector.array("pseudonym"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pseudonyms_keep_parts_and_domains_apart(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 0..4)) {
            let key = key_of(1);
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let name = pseudonym(&key, "log", &slices);
            prop_assert_eq!(name, pseudonym(&key, "log", &slices));
            prop_assert_ne!(name, pseudonym(&key, "certificate", &slices));
            let joined: Vec<u8> = parts.concat();
            if parts.len() != 1 {
                prop_assert_ne!(name, pseudonym(&key, "log", &[&joined]));
            }
        }
    }
}
