//! The sealed form of a node and of the crown.
//!
//! ```text
//! sealed = format (1) | kind (1) | nonce (12) | AES-256-GCM(content) with tag (16)
//! content = bitmap (8) | one entry per set bit, lowest bit first
//! entry   = key (32) | version (8), in a leaf only the key
//! ```
//! Numbers are big-endian. The authenticated context holds the format, the kind, the installation and the node's whole id, so
//! that a node opens at its own place and version only. Sizes show how many slots of a node are taken, nothing else.

use zeroize::Zeroizing;

use super::super::suite::{self, Suite, TAG_BYTES};
use super::super::{Generation, InstallationId, Key};
use super::KeyTreeError;
use super::place::{FAN_OUT, NodeId};
use crate::random::Random;

/// The version of the sealed form that this program writes.
pub const NODE_FORMAT: u8 = 1;

const NONCE_BYTES: usize = 12;
const HEADER_BYTES: usize = 2 + NONCE_BYTES;
const BITMAP_BYTES: usize = 8;
const KEY_BYTES: usize = 32;
const VERSION_BYTES: usize = 8;

/// What a node holds; the number stands in the sealed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeKind {
    /// Keys and versions of child nodes.
    Inner = 1,
    /// Keys of slots.
    Leaf = 2,
    /// The roots of the five subtrees, sealed by the generation's root key.
    Crown = 4,
}

/// Reserved for leaves that hold seeds from which keys are computed.
pub const SEED_LEAF_KIND: u8 = 3;

/// A child: its key and the generation that gave it (0 in leaves, where it is not stored).
pub(super) struct Entry {
    pub key: Key,
    pub version: Generation,
}

/// An opened node.
pub(super) type Entries = Box<[Option<Entry>; FAN_OUT]>;

/// A node whose sealed form does not yield its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Written by a newer version of the program.
    Newer,
    /// Cut short, changed, or not sealed under this key for this place.
    Corrupt,
}

/// The context under which a node is sealed.
pub(super) fn node_context(kind: NodeKind, installation: &InstallationId, id: NodeId) -> Vec<u8> {
    let mut context = b"wangchuan.node".to_vec();
    context.extend_from_slice(&[NODE_FORMAT, kind as u8]);
    context.extend_from_slice(installation);
    context.extend_from_slice(&[id.place.subtree.number(), id.place.level]);
    context.extend_from_slice(&id.place.index.to_be_bytes());
    context.extend_from_slice(&id.version.to_be_bytes());
    context
}

/// The context under which the crown of a generation is sealed.
pub(super) fn crown_context(installation: &InstallationId, generation: Generation) -> Vec<u8> {
    let mut context = b"wangchuan.crown".to_vec();
    context.extend_from_slice(&[NODE_FORMAT, NodeKind::Crown as u8]);
    context.extend_from_slice(installation);
    context.extend_from_slice(&generation.to_be_bytes());
    context
}

/// Seals entries under `key` with a fresh nonce.
pub(super) fn seal_entries(
    kind: NodeKind,
    key: &Key,
    context: &[u8],
    entries: &[Option<&Entry>; FAN_OUT],
    random: &dyn Random,
) -> Result<Vec<u8>, KeyTreeError> {
    let mut nonce = [0; NONCE_BYTES];
    random.fill(&mut nonce)?;
    let mut plain = encode(kind, entries);
    suite::seal(Suite::Intl, key, nonce, context, &mut plain).map_err(KeyTreeError::Cipher)?;
    let mut sealed = Vec::with_capacity(HEADER_BYTES + plain.len());
    sealed.extend_from_slice(&[NODE_FORMAT, kind as u8]);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&plain);
    Ok(sealed)
}

/// Opens what [`seal_entries`] made.
pub(super) fn open_entries(kind: NodeKind, key: &Key, context: &[u8], sealed: &[u8]) -> Result<Entries, Unreadable> {
    decode(kind, &open_content(kind, key, context, sealed)?).ok_or(Unreadable::Corrupt)
}

/// The keys of an opened leaf where they lie, for a look that takes none of them out.
pub(super) struct LeafKeys {
    content: Zeroizing<Vec<u8>>,
    bitmap: u64,
}

impl LeafKeys {
    /// Opens what [`seal_entries`] made of a leaf.
    pub(super) fn open(key: &Key, context: &[u8], sealed: &[u8]) -> Result<Self, Unreadable> {
        let content = open_content(NodeKind::Leaf, key, context, sealed)?;
        let (bitmap, _) = split_content(NodeKind::Leaf, &content).ok_or(Unreadable::Corrupt)?;
        Ok(Self { content, bitmap })
    }

    /// The key at a position, if it is taken.
    pub(super) fn get(&self, position: usize) -> Option<&[u8; KEY_BYTES]> {
        let bit = 1_u64 << position;
        let before = (self.bitmap & (bit - 1)).count_ones() as usize;
        let taken = self.bitmap & bit != 0;
        taken.then(|| self.content.get(BITMAP_BYTES + before * KEY_BYTES..)?.first_chunk()).flatten()
    }

    /// How many are taken.
    pub(super) fn count(&self) -> u64 {
        u64::from(self.bitmap.count_ones())
    }
}

fn open_content(kind: NodeKind, key: &Key, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
    let (header, body) = sealed.split_at_checked(HEADER_BYTES).ok_or(Unreadable::Corrupt)?;
    if header[0] > NODE_FORMAT || header[1] == SEED_LEAF_KIND {
        return Err(Unreadable::Newer);
    }
    if header[0] != NODE_FORMAT || header[1] != kind as u8 {
        return Err(Unreadable::Corrupt);
    }
    let nonce = header[2..].try_into().map_err(|_| Unreadable::Corrupt)?;
    let mut plain = Zeroizing::new(body.to_vec());
    suite::open(Suite::Intl, key, nonce, context, &mut plain).map_err(|_| Unreadable::Corrupt)?;
    Ok(plain)
}

/// The nonce of a sealed node: different after every change, so it serves as the mark of one written state.
#[must_use]
pub fn node_mark(sealed: &[u8]) -> Option<[u8; NONCE_BYTES]> {
    sealed.get(2..HEADER_BYTES)?.try_into().ok()
}

fn entry_bytes(kind: NodeKind) -> usize {
    if kind == NodeKind::Leaf { KEY_BYTES } else { KEY_BYTES + VERSION_BYTES }
}

/// The capacity covers the tag too: growing would leave a copy of the keys behind.
fn encode(kind: NodeKind, entries: &[Option<&Entry>; FAN_OUT]) -> Zeroizing<Vec<u8>> {
    let taken = entries.iter().flatten().count();
    let mut content = Zeroizing::new(Vec::with_capacity(BITMAP_BYTES + taken * entry_bytes(kind) + TAG_BYTES));
    let mut bitmap = 0_u64;
    for (position, entry) in entries.iter().enumerate() {
        bitmap |= u64::from(entry.is_some()) << position;
    }
    content.extend_from_slice(&bitmap.to_be_bytes());
    for entry in entries.iter().flatten() {
        content.extend_from_slice(entry.key.dangerous_bytes());
        if kind != NodeKind::Leaf {
            content.extend_from_slice(&entry.version.to_be_bytes());
        }
    }
    content
}

/// The bitmap, and entries of the length that it demands.
fn split_content(kind: NodeKind, content: &[u8]) -> Option<(u64, &[u8])> {
    let (bitmap, entries) = content.split_first_chunk::<BITMAP_BYTES>()?;
    let bitmap = u64::from_be_bytes(*bitmap);
    (entries.len() == bitmap.count_ones() as usize * entry_bytes(kind)).then_some((bitmap, entries))
}

fn decode(kind: NodeKind, content: &[u8]) -> Option<Entries> {
    let (bitmap, mut rest) = split_content(kind, content)?;
    let mut entries: Entries = Box::new([const { None }; FAN_OUT]);
    for (position, entry) in entries.iter_mut().enumerate() {
        if bitmap >> position & 1 == 0 {
            continue;
        }
        let (key, after) = rest.split_first_chunk::<KEY_BYTES>()?;
        rest = after;
        let mut version = 0;
        if kind != NodeKind::Leaf {
            let (bytes, after) = rest.split_first_chunk::<VERSION_BYTES>()?;
            rest = after;
            version = Generation::from_be_bytes(*bytes);
            if version < 1 {
                return None;
            }
        }
        *entry = Some(Entry { key: Key::dangerous_from_bytes(key), version });
    }
    Some(entries)
}
