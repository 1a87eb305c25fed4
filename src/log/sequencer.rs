//! The only writer of a log: append, check, sign.
//!
//! Order within one append: leaves and inner nodes become durable; a consistency proof, read back from the store, shows
//! that the new tree extends the one signed last; the new head is signed and kept, in the store and in the anchor (a
//! place that a restored database does not take back with it). A crash between any two steps is made good by the next
//! [`Sequencer::open`], or by the next append when only this one call was lost.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::Mutex;

use super::checkpoint::{self, CheckpointError, CheckpointKey, CheckpointSigner, SignedCheckpoint};
use super::key_file::replace_durably;
use super::proofs::ProofReader;
use super::store::{LeafStore, LeafStoreError, NewLeaf, TILE_LEVELS};
use super::tree::{Frontier, Hash, Node, empty_root, verify_consistency};

/// How often an append starts again because another writer came first.
const MAX_RELOADS: usize = 8;

/// Why nothing was appended (or it is not known yet whether something was: then the next append finds out).
#[derive(Debug, Error)]
pub enum SequencerError {
    /// The store did not do its part.
    #[error("the log could not be written or read")]
    Store(#[from] LeafStoreError),
    /// A stored or anchored checkpoint is not one of this key. Retrying does not help.
    #[error("the last checkpoint of the log is not signed by its key")]
    Checkpoint(#[from] CheckpointError),
    /// The log is smaller than, or differs from, what was signed: a restored or altered database. Retrying does not
    /// help; nothing is signed any more.
    #[error("log {log} does not extend its checkpoint of {signed} leaves: it was rolled back or altered")]
    RolledBack {
        /// The log.
        log: String,
        /// The size that was signed.
        signed: u64,
    },
    /// The anchor cannot be read or written. Worth retrying.
    #[error("the checkpoint anchor cannot be read or written")]
    Anchor(#[source] io::Error),
    /// Other writers kept coming first. Worth retrying.
    #[error("other writers kept appending to the log")]
    Contended,
}

impl SequencerError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Anchor(_) | Self::Contended => true,
            Self::Checkpoint(_) | Self::RolledBack { .. } => false,
        }
    }
}

/// Where the last checkpoint is remembered outside the log's own database.
#[async_trait]
pub trait CheckpointAnchor: Send + Sync {
    /// The note kept last.
    async fn last(&self) -> io::Result<Option<String>>;
    /// Keeps a note, durably, instead of the one before.
    async fn keep(&self, note: &str) -> io::Result<()>;
}

/// An anchor in a file, best on another volume than the database.
#[derive(Debug, Clone)]
pub struct FileAnchor(pub PathBuf);

#[async_trait]
impl CheckpointAnchor for FileAnchor {
    async fn last(&self) -> io::Result<Option<String>> {
        let path = self.0.clone();
        tokio::task::spawn_blocking(move || kept_in_file(&place_of(&path)?)).await.map_err(io::Error::other)?
    }

    async fn keep(&self, note: &str) -> io::Result<()> {
        let (path, note) = (self.0.clone(), note.to_owned());
        tokio::task::spawn_blocking(move || keep_in_file(&path, &note)).await.map_err(io::Error::other)?
    }
}

/// Where the file lies, if the path is a link to it.
fn place_of(path: &Path) -> io::Result<PathBuf> {
    if !path.is_symlink() {
        return Ok(path.to_owned());
    }
    path.canonicalize().map_err(|error| {
        let what = format!("{} leads to a file that is not there; is its volume mounted?", path.display());
        io::Error::new(error.kind(), what)
    })
}

/// What the file holds; none when there is no file yet.
fn kept_in_file(place: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Several processes sign heads of one log, and the last to write need not have the newest: one at a time, and never backwards. The
/// file is locked and replaced where it lies, not the link to it.
fn keep_in_file(path: &Path, note: &str) -> io::Result<()> {
    let place = place_of(path)?;
    let mut lock = place.as_os_str().to_owned();
    lock.push(".lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock)?;
    lock.lock()?;
    let size = |note: &str| checkpoint::unverified_size(note).map_err(io::Error::other);
    if let Some(there) = kept_in_file(&place)?
        && size(&there)? >= size(note)?
    {
        return Ok(());
    }
    replace_durably(&place, note.as_bytes())
}

/// What became of one leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It is new, at this index.
    Appended(u64),
    /// The same leaf was there before, at this index.
    AlreadyThere(u64),
    /// Another leaf with its id stands at this index; the new one was not appended.
    Conflict(u64),
}

/// The outcome of an append: one placement per leaf, and a checkpoint that covers all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// In the order of the leaves.
    pub placements: Vec<Placement>,
    /// The signed head.
    pub checkpoint: SignedCheckpoint,
}

struct Head {
    frontier: Frontier,
    checkpoint: SignedCheckpoint,
}

/// Appends to one log and signs its heads.
pub struct Sequencer {
    store: Arc<dyn LeafStore>,
    signer: CheckpointSigner,
    anchor: Option<Box<dyn CheckpointAnchor>>,
    head: Mutex<Head>,
}

impl Sequencer {
    /// Opens the log: checks that it extends everything signed before, and signs a head over leaves that a crash left
    /// unsigned.
    pub async fn open(
        store: Arc<dyn LeafStore>,
        signer: CheckpointSigner,
        anchor: Option<Box<dyn CheckpointAnchor>>,
    ) -> Result<Self, SequencerError> {
        let head = load(&*store, &signer, anchor.as_deref()).await?;
        Ok(Self { store, signer, anchor, head: Mutex::new(head) })
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn LeafStore> {
        &self.store
    }

    /// The public key of the checkpoints.
    #[must_use]
    pub fn key(&self) -> &CheckpointKey {
        self.signer.key()
    }

    /// The last signed head that this sequencer knows.
    pub async fn checkpoint(&self) -> SignedCheckpoint {
        self.head.lock().await.checkpoint.clone()
    }

    /// The last signed head, after a look whether another process has appended since.
    pub async fn latest(&self) -> Result<SignedCheckpoint, SequencerError> {
        let mut head = self.head.lock().await;
        if self.store.size().await? != head.frontier.size() {
            *head = load(&*self.store, &self.signer, self.anchor.as_deref()).await?;
        }
        Ok(head.checkpoint.clone())
    }

    /// Appends leaves that are not there yet. After an error, or when the future is dropped, nothing is lost by calling
    /// again with the same leaves: what was stored meanwhile is found by its id.
    pub async fn append(&self, leaves: &[NewLeaf]) -> Result<Appended, SequencerError> {
        let mut head = self.head.lock().await;
        for _ in 0..MAX_RELOADS {
            match self.try_append(&mut head, leaves).await {
                Err(SequencerError::Store(LeafStoreError::SizeChanged { .. })) => {
                    *head = load(&*self.store, &self.signer, self.anchor.as_deref()).await?;
                }
                other => return other,
            }
        }
        Err(SequencerError::Contended)
    }

    async fn try_append(&self, head: &mut Head, leaves: &[NewLeaf]) -> Result<Appended, SequencerError> {
        let size = head.frontier.size();
        let mut known = self.known(leaves, size).await?;
        let mut frontier = head.frontier.clone();
        let (mut fresh, mut nodes, mut placements) = (Vec::new(), Vec::new(), Vec::with_capacity(leaves.len()));
        for leaf in leaves {
            let hash = leaf.hash();
            placements.push(match known.get(leaf.id.as_str()) {
                Some((index, there)) if *there == hash => Placement::AlreadyThere(*index),
                Some((index, _)) => Placement::Conflict(*index),
                None => {
                    let index = frontier.size();
                    frontier.append(hash, |node, hash| keep_tile_top(&mut nodes, node, hash));
                    known.insert(leaf.id.clone(), (index, hash));
                    fresh.push(leaf.clone());
                    Placement::Appended(index)
                }
            });
        }
        if !fresh.is_empty() {
            self.store.append(size, &fresh, &nodes).await?;
            let checkpoint = sign_extension(&*self.store, &self.signer, &head.checkpoint, &frontier).await?;
            keep(&*self.store, self.anchor.as_deref(), &checkpoint).await?;
            *head = Head { frontier, checkpoint };
        }
        Ok(Appended { placements, checkpoint: head.checkpoint.clone() })
    }

    /// Index and hash by id of those leaves that are in the log already.
    async fn known(&self, leaves: &[NewLeaf], size: u64) -> Result<HashMap<String, (u64, Hash)>, SequencerError> {
        let ids: Vec<String> = leaves.iter().map(|leaf| leaf.id.clone()).collect();
        let found = self.store.find(&ids).await?;
        // A leaf beyond our head was appended by a call that did not live to sign it, or by another writer.
        if let Some(leaf) = found.iter().find(|leaf| leaf.index >= size) {
            let log = self.store.name().to_owned();
            return Err(LeafStoreError::SizeChanged { log, expected: size, actual: leaf.index + 1 }.into());
        }
        Ok(found.into_iter().map(|leaf| (leaf.id, (leaf.index, leaf.hash))).collect())
    }
}

fn keep_tile_top(nodes: &mut Vec<(Node, Hash)>, node: Node, hash: Hash) {
    if node.level.is_multiple_of(TILE_LEVELS) {
        nodes.push((node, hash));
    }
}

/// Reads the log's edge, checks it against what was signed, and signs it when leaves were added since.
async fn load(
    store: &dyn LeafStore,
    signer: &CheckpointSigner,
    anchor: Option<&dyn CheckpointAnchor>,
) -> Result<Head, SequencerError> {
    // Heads first, then the size: another writer may append meanwhile, and a head is signed only after its leaves are
    // stored. The other way round a head could be newer than the size read here and look like a roll-back.
    let anchored = match anchor {
        Some(anchor) => anchor.last().await.map_err(SequencerError::Anchor)?,
        None => None,
    };
    let stored = store.last_checkpoint().await?;
    let size = store.size().await?;
    let mut reader = ProofReader::new(store);
    let frontier = reader.frontier(size).await?;
    let mut newest: Option<SignedCheckpoint> = None;
    let anchored_size = match &anchored {
        Some(note) => Some(signer.key().open(note)?.checkpoint.size),
        None => None,
    };
    for note in [anchored, stored].into_iter().flatten() {
        let checkpoint = signer.key().open(&note)?;
        let old = checkpoint.checkpoint.size;
        let same = old <= size && reader.frontier(old).await?.root() == checkpoint.checkpoint.root;
        if !same {
            return Err(SequencerError::RolledBack { log: store.name().to_owned(), signed: old });
        }
        if newest.as_ref().is_none_or(|newest| newest.checkpoint.size <= old) {
            newest = Some(checkpoint);
        }
    }
    let checkpoint = match newest {
        Some(checkpoint) if checkpoint.checkpoint.size == size => checkpoint,
        Some(older) => sign_extension(store, signer, &older, &frontier).await?,
        None => signer.sign(size, if size == 0 { empty_root() } else { frontier.root() }),
    };
    store.put_checkpoint(size, &checkpoint.note).await?;
    if let Some(anchor) = anchor.filter(|_| anchored_size != Some(size)) {
        anchor.keep(&checkpoint.note).await.map_err(SequencerError::Anchor)?;
    }
    Ok(Head { frontier, checkpoint })
}

/// Proves from the store that the new tree extends the signed one, then signs it.
async fn sign_extension(
    store: &dyn LeafStore,
    signer: &CheckpointSigner,
    last: &SignedCheckpoint,
    frontier: &Frontier,
) -> Result<SignedCheckpoint, SequencerError> {
    let (old, new) = (last.checkpoint.size, frontier.size());
    let proof = ProofReader::new(store).consistency(old, new).await?;
    let root = frontier.root();
    let extends = proof.is_some_and(|proof| verify_consistency(old, new, &last.checkpoint.root, &root, &proof));
    if !extends {
        return Err(SequencerError::RolledBack { log: store.name().to_owned(), signed: old });
    }
    Ok(signer.sign(new, root))
}

async fn keep(
    store: &dyn LeafStore,
    anchor: Option<&dyn CheckpointAnchor>,
    checkpoint: &SignedCheckpoint,
) -> Result<(), SequencerError> {
    store.put_checkpoint(checkpoint.checkpoint.size, &checkpoint.note).await?;
    if let Some(anchor) = anchor {
        anchor.keep(&checkpoint.note).await.map_err(SequencerError::Anchor)?;
    }
    Ok(())
}
