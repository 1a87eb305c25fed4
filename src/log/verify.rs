//! Replays a whole log against its signed checkpoints and says where it first differs.
//!
//! Every leaf is hashed again from its entry, its content (while it is kept) compared with that, and every signed head
//! ever kept is compared on the way: so an edit whose hashes were all recomputed still shows between two heads.

use serde::Serialize;
use thiserror::Error;

use super::checkpoint::{CheckpointError, CheckpointKey};
use super::store::{LeafStore, LeafStoreError, StoredLeaf};
use super::tree::{Frontier, leaf_hash};

/// Leaves read at once.
const PAGE_LEAVES: u64 = 1024;
/// Checkpoints read at once.
const PAGE_CHECKPOINTS: u32 = 1024;

/// What a log contains, when nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// All leaves.
    pub leaves: u64,
    /// Leaves whose content has been dropped.
    pub dropped: u64,
    /// Signed heads that were checked.
    pub checkpoints: u64,
    /// Leaves after the last signed head (a crash may leave some; the next start signs them).
    pub unsigned: u64,
}

/// Why a log is not what was signed. Retrying does not help, except after [`VerifyLogError::Store`].
#[derive(Debug, Error)]
pub enum VerifyLogError {
    /// The log could not be read.
    #[error("the log could not be read")]
    Store(#[from] LeafStoreError),
    /// A kept checkpoint is not by the log's key.
    #[error("the checkpoint after {after} leaves is not good")]
    Checkpoint {
        /// The size of the last good one.
        after: u64,
        /// What is wrong.
        #[source]
        source: CheckpointError,
    },
    /// A leaf is missing, moved or changed.
    #[error("entry {index} was changed, moved or removed: {what}")]
    Leaf {
        /// Its index.
        index: u64,
        /// What shows it.
        what: &'static str,
    },
    /// Leaves differ from what was signed, and their hashes were recomputed.
    #[error("one of the entries {from} to {last} differs from what was signed")]
    Between {
        /// The first index not covered by the last good head.
        from: u64,
        /// The last index covered by the bad one.
        last: u64,
    },
    /// There are fewer leaves than were signed.
    #[error("the log has {leaves} entries, {signed} were signed: the last ones were removed")]
    Truncated {
        /// What is there.
        leaves: u64,
        /// What was signed.
        signed: u64,
    },
}

/// Says what is wrong with a leaf's content, if it still has one: [`super::record::check_content`] for the operation
/// log, `audit::receipt::check_content` for filed certificates.
pub type ContentCheck<'a> = &'a (dyn Fn(&StoredLeaf) -> Option<&'static str> + Sync);

/// Replays the log.
///
/// `trusted` is a checkpoint note from elsewhere (an anchor, a receipt, an auditor's copy), if there is one; without it
/// a log cut back together with its checkpoints cannot be told from a shorter one.
pub async fn verify_log(
    store: &dyn LeafStore,
    key: &CheckpointKey,
    trusted: Option<&str>,
    content: ContentCheck<'_>,
) -> Result<LogReport, VerifyLogError> {
    let mut heads = Heads::new(store, key, trusted)?;
    let mut frontier = Frontier::default();
    let mut report = LogReport { leaves: 0, dropped: 0, checkpoints: 0, unsigned: 0 };
    heads.check(&frontier, &mut report).await?;
    loop {
        let start = frontier.size();
        let page = store.leaves(start..start + PAGE_LEAVES).await?;
        for leaf in &page {
            check_leaf(leaf, frontier.size(), content)?;
            report.dropped += u64::from(leaf.content.is_none());
            frontier.append(leaf.hash, |_, _| ());
            heads.check(&frontier, &mut report).await?;
        }
        if (page.len() as u64) < PAGE_LEAVES {
            break;
        }
    }
    report.leaves = frontier.size();
    report.unsigned = report.leaves - heads.good_size;
    if let Some(signed) = heads.largest_open() {
        return Err(VerifyLogError::Truncated { leaves: report.leaves, signed });
    }
    Ok(report)
}

fn check_leaf(leaf: &StoredLeaf, index: u64, content: ContentCheck<'_>) -> Result<(), VerifyLogError> {
    if leaf.index != index {
        return Err(VerifyLogError::Leaf { index, what: "no entry has this number" });
    }
    if leaf_hash(&leaf.entry) != leaf.hash {
        return Err(VerifyLogError::Leaf { index, what: "its hash does not fit" });
    }
    match content(leaf) {
        None => Ok(()),
        Some(what) => Err(VerifyLogError::Leaf { index, what }),
    }
}

/// The signed heads in order of size, read page by page.
struct Heads<'a> {
    store: &'a dyn LeafStore,
    key: &'a CheckpointKey,
    page: std::vec::IntoIter<String>,
    next: Option<super::checkpoint::Checkpoint>,
    trusted: Option<super::checkpoint::Checkpoint>,
    started: bool,
    good_size: u64,
}

impl<'a> Heads<'a> {
    fn new(store: &'a dyn LeafStore, key: &'a CheckpointKey, trusted: Option<&str>) -> Result<Self, VerifyLogError> {
        let open = |note| key.open(note).map_err(|source| VerifyLogError::Checkpoint { after: 0, source });
        let trusted = trusted.map(open).transpose()?.map(|signed| signed.checkpoint);
        let page = Vec::new().into_iter();
        Ok(Self { store, key, page, next: None, trusted, started: false, good_size: 0 })
    }

    /// Compares every head of the frontier's size with it.
    async fn check(&mut self, frontier: &Frontier, report: &mut LogReport) -> Result<(), VerifyLogError> {
        if !self.started {
            self.started = true;
            self.advance(0).await?;
        }
        while let Some(head) = self.next.clone().filter(|head| head.size <= frontier.size()) {
            self.compare(&head, frontier, report)?;
            self.advance(head.size + 1).await?;
        }
        if let Some(head) = self.trusted.clone().filter(|head| head.size == frontier.size()) {
            self.compare(&head, frontier, report)?;
            self.trusted = None;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        head: &super::checkpoint::Checkpoint,
        frontier: &Frontier,
        report: &mut LogReport,
    ) -> Result<(), VerifyLogError> {
        if head.root != frontier.root() {
            return Err(VerifyLogError::Between { from: self.good_size, last: head.size.saturating_sub(1) });
        }
        self.good_size = head.size;
        report.checkpoints += 1;
        Ok(())
    }

    async fn advance(&mut self, from: u64) -> Result<(), VerifyLogError> {
        let mut note = self.page.next();
        if note.is_none() {
            self.page = self.store.checkpoints(from, PAGE_CHECKPOINTS).await?.into_iter();
            note = self.page.next();
        }
        let after = self.good_size;
        let open = |note: String| self.key.open(&note).map_err(|source| VerifyLogError::Checkpoint { after, source });
        self.next = note.map(open).transpose()?.map(|signed| signed.checkpoint);
        Ok(())
    }

    /// The largest signed size that was never reached.
    fn largest_open(&self) -> Option<u64> {
        self.next.iter().chain(&self.trusted).map(|head| head.size).max()
    }
}
