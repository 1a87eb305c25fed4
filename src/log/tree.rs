//! The Merkle tree of RFC 6962 §2.1 (verification after RFC 9162 §2.1.3.2 and §2.1.4.2). Pure.
//!
//! A proof is described by the leaf ranges whose hashes it consists of ([`inclusion_ranges`], [`consistency_ranges`]),
//! a range by the complete subtrees it is folded from ([`complete_subtrees`]). Whoever holds hashes can thus answer any
//! proof without this module knowing where they lie.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// A complete subtree: the one at `position` (from the left, from 0) among those of 2^`level` leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Height above the leaves.
    pub level: u8,
    /// Place within the level.
    pub position: u64,
}

/// Leaves `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first leaf.
    pub start: u64,
    /// The leaf after the last.
    pub end: u64,
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// The root of a tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(b"")
}

/// The hash of a leaf: SHA-256(0x00 ‖ entry).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    prefixed(0, &[entry])
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    prefixed(1, &[left, right])
}

fn prefixed(prefix: u8, parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[prefix]);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The right edge of a growing tree: the hashes of its complete subtrees, largest first. All that appending needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    hashes: Vec<Hash>,
}

impl Frontier {
    /// The edge of a tree of `size` leaves, from the hashes of [`complete_subtrees`] of all its leaves; `None` when
    /// their number does not fit the size.
    #[must_use]
    pub fn from_hashes(size: u64, hashes: Vec<Hash>) -> Option<Self> {
        (hashes.len() == size.count_ones() as usize).then_some(Self { size, hashes })
    }

    /// The hashes of the complete subtrees of all its leaves, largest first.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// How many leaves the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf and tells `completed` every subtree above it that it completes, lowest first.
    pub fn append(&mut self, leaf: Hash, mut completed: impl FnMut(Node, Hash)) {
        let mut hash = leaf;
        let mut node = Node { level: 0, position: self.size };
        while node.position % 2 == 1 {
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            node = Node { level: node.level + 1, position: node.position / 2 };
            completed(node, hash);
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(&self.hashes).unwrap_or_else(empty_root)
    }
}

/// Joins the hashes of adjacent complete subtrees, largest first, into the hash of the whole; `None` for none.
#[must_use]
pub fn fold(hashes: &[Hash]) -> Option<Hash> {
    let (last, rest) = hashes.split_last()?;
    Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// The complete subtrees that make up a range which starts at a multiple of the largest power of two within its length
/// (as every range of a proof does), largest first.
#[must_use]
pub fn complete_subtrees(range: Range) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let level = (range.end - start).ilog2();
        nodes.push(Node { level: level as u8, position: start >> level });
        start += 1 << level;
    }
    nodes
}

/// The largest power of two below `length` (RFC 6962's k); `length` must be at least 2.
fn split(length: u64) -> u64 {
    1 << (length - 1).ilog2()
}

/// The ranges whose hashes prove that leaf `index` stands in a tree of `size` leaves, in proof order; `None` when it
/// does not.
#[must_use]
pub fn inclusion_ranges(index: u64, size: u64) -> Option<Vec<Range>> {
    if index >= size {
        return None;
    }
    let (mut start, mut end) = (0, size);
    let mut ranges = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            ranges.push(Range { start: middle, end });
            end = middle;
        } else {
            ranges.push(Range { start, end: middle });
            start = middle;
        }
    }
    ranges.reverse();
    Some(ranges)
}

/// The ranges whose hashes prove that the tree of `new` leaves extends the one of `old` leaves, in proof order. Empty
/// when there is nothing to prove (`old` is 0 or equals `new`); `None` when `old` is larger.
#[must_use]
pub fn consistency_ranges(old: u64, new: u64) -> Option<Vec<Range>> {
    if old > new {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let (mut start, mut end) = (0, new);
    let mut ranges = Vec::new();
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            ranges.push(Range { start: middle, end });
            end = middle;
        } else {
            ranges.push(Range { start, end: middle });
            start = middle;
        }
    }
    // The verifier knows the old root; only an old right edge that is not the whole old tree must be sent.
    if start > 0 {
        ranges.push(Range { start, end });
    }
    ranges.reverse();
    Some(ranges)
}

/// Whether `proof` shows that the leaf with hash `leaf` stands at `index` in the tree of `size` leaves and root `root`.
#[must_use]
pub fn verify_inclusion(index: u64, size: u64, leaf: &Hash, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut position, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if position % 2 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            while position % 2 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `new` leaves and root `new_root` extends the one of `old` leaves and root
/// `old_root`.
#[must_use]
pub fn verify_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let (first, rest) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        let Some((first, rest)) = proof.split_first() else { return false };
        (*first, rest)
    };
    let trailing = (old - 1).trailing_ones();
    let (mut position, mut last) = ((old - 1) >> trailing, (new - 1) >> trailing);
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if position % 2 == 1 || position == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while position % 2 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}
