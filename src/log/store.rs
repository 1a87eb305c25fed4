//! The leaf-store port: where the leaves of one log lie.
//!
//! A store handle is bound to one log. Level-0 hashes are the leaves; of the inner nodes only those at levels 8, 16, 24
//! … are kept (the tops of C2SP tiles), from which [`super::proofs`] computes the others.
//!
//! Invariants every adapter keeps: an append is one transaction, refused unless the log has exactly the expected size;
//! ids and hashes are unique within a log; index, id, entry and hash of a stored leaf never change.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use thiserror::Error;

use super::tree::{Hash, Node, leaf_hash};

/// Leaves per tile, and so the step between stored levels (2^8).
pub const TILE_LEVELS: u8 = 8;

/// A leaf to be appended.
#[derive(Clone)]
pub struct NewLeaf {
    /// Unique in the log; a random or hashed id, never personal data.
    pub id: String,
    /// What the tree commits to; kept for ever, so it must contain no personal data in clear.
    pub entry: Vec<u8>,
    /// The secret that makes `entry` unlinkable to `content` once dropped; only in logs whose content expires.
    pub salt: Option<Vec<u8>>,
    /// What the entry stands for; may be dropped later.
    pub content: Vec<u8>,
    /// When it happened, in milliseconds since 1970 UTC.
    pub time_ms: i64,
}

impl NewLeaf {
    /// The leaf's hash in the tree.
    #[must_use]
    pub fn hash(&self) -> Hash {
        leaf_hash(&self.entry)
    }
}

impl fmt::Debug for NewLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewLeaf({}, {} bytes)", self.id, self.content.len())
    }
}

/// A leaf as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredLeaf {
    /// Its place in the log, from 0.
    pub index: u64,
    /// Its id.
    pub id: String,
    /// Its hash in the tree.
    pub hash: Hash,
    /// What the tree commits to.
    pub entry: Vec<u8>,
    /// The salt, unless there was none or it has been dropped.
    pub salt: Option<Vec<u8>>,
    /// The content, unless it has been dropped.
    pub content: Option<Vec<u8>>,
    /// When it happened, in milliseconds since 1970 UTC.
    pub time_ms: i64,
}

impl fmt::Debug for StoredLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredLeaf({}, {})", self.index, self.id)
    }
}

/// What a leaf store may answer instead of doing its work.
#[derive(Debug, Error)]
pub enum LeafStoreError {
    /// Someone else appended. Read the log again, then retry.
    #[error("log {log} has {actual} leaves where {expected} were expected")]
    SizeChanged {
        /// The log.
        log: String,
        /// The size the caller knew.
        expected: u64,
        /// The size it has.
        actual: u64,
    },
    /// A leaf with the same id or hash is in the log already. Retrying does not help.
    #[error("log {log} already has a leaf with the id or hash of one of the new ones")]
    Duplicate {
        /// The log.
        log: String,
    },
    /// The database is locked or out of reach. Worth retrying; after a lost commit the outcome is unknown.
    #[error("log {log}: the database does not answer: {what}")]
    Unavailable {
        /// The log.
        log: String,
        /// The driver's message, without values.
        what: String,
    },
    /// What is stored contradicts itself. Retrying does not help.
    #[error("log {log} is damaged: {what}")]
    Damaged {
        /// The log.
        log: String,
        /// What contradicts.
        what: String,
    },
    /// The database refused. Retrying does not help.
    #[error("log {log}: the database refused: {what}")]
    Failed {
        /// The log.
        log: String,
        /// The driver's message, without values.
        what: String,
    },
}

impl LeafStoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::SizeChanged { .. })
    }
}

/// What stores return.
pub type Result<T, E = LeafStoreError> = std::result::Result<T, E>;

/// The leaves, tile tops and checkpoints of one log.
#[async_trait]
pub trait LeafStore: Send + Sync {
    /// The log's name within the database, for messages.
    fn name(&self) -> &str;

    /// How many leaves are stored.
    async fn size(&self) -> Result<u64>;

    /// Appends all leaves and inner nodes, or nothing. The log must have `expected` leaves.
    async fn append(&self, expected: u64, leaves: &[NewLeaf], nodes: &[(Node, Hash)]) -> Result<()>;

    /// Hashes of a stored level (0, 8, 16, …) from `start`, at most `count`; fewer when the level ends.
    async fn hashes(&self, level: u8, start: u64, count: u64) -> Result<Vec<Hash>>;

    /// Leaves of an index range, in order; fewer when the log ends.
    async fn leaves(&self, range: Range<u64>) -> Result<Vec<StoredLeaf>>;

    /// The leaves with these ids, in no particular order.
    async fn find(&self, ids: &[String]) -> Result<Vec<StoredLeaf>>;

    /// The signed note with the largest size.
    async fn last_checkpoint(&self) -> Result<Option<String>>;

    /// Signed notes with a size of at least `from`, smallest first, at most `limit`.
    async fn checkpoints(&self, from: u64, limit: u32) -> Result<Vec<String>>;

    /// Keeps a signed note. Notes are never replaced: the first of a size stays.
    async fn put_checkpoint(&self, size: u64, note: &str) -> Result<()>;

    /// Drops content and salt of leaves in the range, whose time is before `before_ms`; returns how many lost theirs.
    async fn drop_content(&self, range: Range<u64>, before_ms: i64) -> Result<u64>;
}
