//! The keyring: the key tree as it is stored in the control database and opened by the root slot.
//!
//! All changes happen inside a control-database transaction, so a key and the row that says what it is for become durable
//! together. The opened tree is cached and thrown away as soon as the stored one changed. Of the stored nodes only those on the
//! paths of the slots in question are read; all of them by [`Keyring::with_whole_tree`] and a recovery.

mod check;
pub mod doomed;
mod rekey;
#[cfg(test)]
mod residue_tests;
pub mod second_place;
mod staging;
#[cfg(test)]
mod tests;

pub use rekey::{Fence, ShredOrder, Shredded, recover, shred};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use thiserror::Error;
use tokio::sync::Mutex;

use crate::control::{CellRow, Control, ControlError, NodeRow, SlotTable, Tx};
use crate::keys::cell::{CellSecret, Factor, derive_cell_secret};
use crate::keys::slot::{RootSlot, SlotError, TokenError};
use crate::keys::tree::{
    BadSlotNumber, COHORT_SLOTS, KeyTree, KeyTreeError, NodeId, NodePlace, NodeSet, NodeWrite, ReloadFault, Slot,
    Subtree,
};
use crate::keys::{InstallationId, Key};
use crate::random::{Random, RandomUnavailable};
use second_place::{Second, SecondPlaceError};

/// What a work leaf is for. The first four outlive every run; the others are per plan, request, run or
/// outside key and die with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Row digests of ledger, sealing history and plans. Outlives every chain.
    Suppression,
    /// Subject digests of slots, requests and holds.
    Lookup,
    /// Subject pseudonyms in certificates.
    Certificate,
    /// Subject pseudonyms in the operation log.
    Log,
    /// A plan's lists.
    Plan,
    /// A request's subject id.
    Request,
    /// A run's pre-images.
    PreImage,
    /// Whose an outside key is, and its own name.
    OutsideKey,
}

impl Purpose {
    /// The name in the control database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Suppression => "suppression",
            Self::Lookup => "lookup",
            Self::Certificate => "certificate",
            Self::Log => "log",
            Self::Plan => "plan",
            Self::Request => "request",
            Self::PreImage => "pre-image",
            Self::OutsideKey => "outside-key",
        }
    }
}

/// What can go wrong with the keyring.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// The control database failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The root slot failed.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The key tree is damaged, or refused a change.
    #[error(transparent)]
    Tree(#[from] KeyTreeError),
    /// The reloaded generation is not what it must be; the old root was not destroyed.
    #[error("the new key generation failed its check; the old root key was kept")]
    Reload(#[from] ReloadFault),
    /// The state could not be sealed into the second place, or differs from what lies there.
    #[error(transparent)]
    SecondPlace(#[from] SecondPlaceError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// A slot number out of range.
    #[error(transparent)]
    SlotNumber(#[from] BadSlotNumber),
    /// A slot that is in use has no key in the tree: lost, not shredded.
    #[error("the key in {0} is lost: the slot is in use but the tree holds no key for it")]
    Lost(String),
    /// The control database is older than the root slot: a copy from before the last shred was put back.
    #[error(
        "the control database is at key generation {database}, but the root slot holds only generation {slot}: \
         an old copy of the control database must never be restored"
    )]
    RolledBack {
        /// Generation of the control database.
        database: i64,
        /// Newest generation in the slot.
        slot: i64,
    },
    /// The records of an interrupted generation change do not fit together; a human must look.
    #[error("the records of an interrupted key change contradict each other: {0}")]
    Contradiction(String),
    /// An earlier generation change is not finished; it must be settled first.
    #[error("the change to key generation {0} is not finished yet; it is settled before the next one begins")]
    Unsettled(i64),
    /// A hold was placed after the caller had looked. Nothing was destroyed.
    #[error("{0} came while keys were about to be destroyed; nothing was destroyed, the next attempt respects it")]
    Held(String),
    /// Another process went on with, or undid, this generation change. Nothing was destroyed by this one.
    #[error("another process has changed the key generation meanwhile ({0}); start again")]
    Overtaken(&'static str),
    /// There is no key tree yet.
    #[error("this installation has no key tree; `wangchuan init` makes one")]
    NoTree,
}

impl KeyringError {
    /// Whether the same call may succeed later with nothing else done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Control(error) => error.is_retryable(),
            Self::Slot(error) => error.is_retryable(),
            Self::Tree(error) => error.is_retryable(),
            Self::SecondPlace(error) => error.is_retryable(),
            Self::Random(_) | Self::Unsettled(_) | Self::Held(_) | Self::Overtaken(_) => true,
            _ => false,
        }
    }

    /// Whether it forbids a generation change that is not in force yet, so that the change is to be given up. Anything else may
    /// pass by itself.
    fn forbids_change(&self) -> bool {
        matches!(self, Self::Held(_) | Self::Overtaken(_) | Self::Contradiction(_) | Self::Lost(_))
    }
}

/// What functions of this module return.
pub type Result<T, E = KeyringError> = std::result::Result<T, E>;

/// The opened key tree of an installation.
pub struct Keyring {
    installation: InstallationId,
    slot: Arc<dyn RootSlot>,
    random: Arc<dyn Random>,
    cache: Mutex<Option<Cached>>,
    second: Second,
    nodes_read: AtomicU64,
}

struct Cached {
    token: String,
    tree: KeyTree,
}

/// The first generation: nodes of every version.
const FIRST: i64 = 1;
/// The meta entry that changes with every change of the tree.
const TREE_TOKEN: &str = "tree_token";

impl Keyring {
    /// A keyring on a slot. Nothing is read yet.
    #[must_use]
    pub fn new(installation: InstallationId, slot: Arc<dyn RootSlot>, random: Arc<dyn Random>) -> Self {
        Self {
            installation,
            slot,
            random,
            cache: Mutex::new(None),
            second: Second::None,
            nodes_read: AtomicU64::new(0),
        }
    }

    /// The root slot.
    #[must_use]
    pub fn slot(&self) -> &Arc<dyn RootSlot> {
        &self.slot
    }

    /// Makes the first generation of a new installation; does nothing when there is one.
    pub async fn create_tree(&self, control: &Control, now: DateTime<Utc>) -> Result<()> {
        // Looked at first: an installation that has shredded must not get its first root again.
        if control.read().await?.tree_root().await?.is_some() {
            return Ok(());
        }
        let root = self.slot.create(1, self.random.as_ref()).await?;
        let mut tx = control.begin().await?;
        if tx.tree_root().await?.is_none() {
            let first = KeyTree::create(self.installation, &root, self.random.as_ref())?;
            tx.put_tree_root(first.generation, &first.crown, now).await?;
            self.store_nodes(&mut tx, &first.nodes).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn store_nodes(&self, tx: &mut Tx, nodes: &[NodeWrite]) -> Result<String> {
        let rows: Vec<NodeRow> = nodes.iter().map(|node| (node_number(node.id), node.sealed.clone())).collect();
        tx.put_tree_nodes(&rows).await?;
        let mut token = [0; 16];
        self.random.fill(&mut token)?;
        let token = hex::encode(token);
        tx.set_meta(TREE_TOKEN, &token).await?;
        Ok(token)
    }

    /// Makes the cached tree one of what is stored, with everything on the paths of these slots.
    async fn load(&self, tx: &mut Tx, cache: &mut Option<Cached>, slots: &[Slot]) -> Result<()> {
        let token = tx.meta(TREE_TOKEN).await?.unwrap_or_default();
        let cached = match cache.take().filter(|cached| cached.token == token) {
            Some(fitting) => fitting,
            None => Cached { token, tree: self.open_bare(tx).await? },
        };
        self.load_paths(tx, &mut cache.insert(cached).tree, slots, FIRST).await
    }

    /// Reads the nodes on the paths of these slots, as far as the tree has not got them; of all versions from `since` on.
    async fn load_paths(&self, tx: &mut Tx, tree: &mut KeyTree, slots: &[Slot], since: i64) -> Result<()> {
        let places = tree.unloaded(slots);
        if places.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = places.iter().map(|place| (place.subtree.number(), place.level, place.index)).collect();
        let rows = tx.tree_nodes_at(&wanted, since).await?;
        self.nodes_read.fetch_add(rows.len() as u64, Ordering::Relaxed);
        tree.load(&places, node_set(rows));
        Ok(())
    }

    /// Drops the cached tree, and with it every key that was opened; the next use loads it again.
    async fn forget(&self) {
        *self.cache.lock().await = None;
    }

    /// Opens the crown of the stored tree afresh, without the cache.
    async fn open_bare(&self, tx: &mut Tx) -> Result<KeyTree> {
        let (generation, crown) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
        let root = match self.slot.open(generation).await {
            Err(SlotError::Missing { .. }) => return Err(self.explain_missing(generation).await?),
            other => other?,
        };
        Ok(KeyTree::open_bare(self.installation, generation, &root, &crown)?)
    }

    /// Opens the stored tree afresh, with the paths of these slots: what a change of them reads and writes.
    async fn open_paths(&self, tx: &mut Tx, slots: &[Slot]) -> Result<KeyTree> {
        let mut tree = self.open_bare(tx).await?;
        self.load_paths(tx, &mut tree, slots, FIRST).await?;
        Ok(tree)
    }

    /// Opens a generation that was just put in force, with the paths of `changed` slots and of others. All nodes on the former must
    /// be of that generation, so the ones that they replaced are not read again.
    async fn open_changed(&self, tx: &mut Tx, changed: &[Slot], others: &[Slot]) -> Result<KeyTree> {
        let mut tree = self.open_bare(tx).await?;
        let generation = tree.generation();
        self.load_paths(tx, &mut tree, changed, generation).await?;
        self.load_paths(tx, &mut tree, others, FIRST).await?;
        Ok(tree)
    }

    /// Opens the whole stored tree afresh: for what concerns every node there is, as `key verify` and a recovery do.
    async fn open_tree(&self, tx: &mut Tx) -> Result<KeyTree> {
        let mut tree = self.open_bare(tx).await?;
        tree.load_all(self.stored_nodes(tx).await?);
        Ok(tree)
    }

    async fn stored_nodes(&self, tx: &mut Tx) -> Result<NodeSet> {
        let nodes = stored_nodes(tx).await?;
        self.nodes_read.fetch_add(nodes.len() as u64, Ordering::Relaxed);
        Ok(nodes)
    }

    /// Sealed nodes read from the control database since this keyring was made: what its work costs.
    #[must_use]
    pub fn nodes_read(&self) -> u64 {
        self.nodes_read.load(Ordering::Relaxed)
    }

    /// Opens a generation before the present one, as long as its root and its crown are still there.
    async fn open_former(&self, tx: &mut Tx, generation: i64) -> Result<Option<KeyTree>> {
        let Some(crown) = tx.crown_of(generation).await? else { return Ok(None) };
        let root = match self.slot.open(generation).await {
            // Also one whose destruction was begun: it cannot be opened any more.
            Err(
                SlotError::Missing { .. }
                | SlotError::VersionGone { .. }
                | SlotError::VersionDisabled { .. }
                | SlotError::KeyUnusable { .. }
                | SlotError::Token(TokenError::KeyGone { .. }),
            ) => return Ok(None),
            other => other?,
        };
        Ok(Some(KeyTree::open(self.installation, generation, &root, &crown, self.stored_nodes(tx).await?)?))
    }

    async fn explain_missing(&self, database: i64) -> Result<KeyringError> {
        let newest = self.slot.list().await?.last().map(|present| present.generation);
        Ok(match newest {
            Some(slot) if slot > database => KeyringError::RolledBack { database, slot },
            _ => KeyringError::Slot(SlotError::Missing {
                generation: database,
                place: "configured under [root]".to_owned(),
            }),
        })
    }

    /// Lets `look` look at the paths of these slots in the present tree.
    pub async fn with_tree<R>(&self, tx: &mut Tx, slots: &[Slot], look: impl FnOnce(&KeyTree) -> R) -> Result<R> {
        let mut cache = self.cache.lock().await;
        self.load(tx, &mut cache, slots).await?;
        let cached = cache.as_ref().ok_or(KeyringError::NoTree)?;
        Ok(look(&cached.tree))
    }

    /// Lets `look` look at all of the present tree, which is read for it and not kept.
    pub async fn with_whole_tree<R>(&self, tx: &mut Tx, look: impl FnOnce(&KeyTree) -> R) -> Result<R> {
        Ok(look(&self.open_tree(tx).await?))
    }

    /// Puts keys into free slots; durable with the transaction.
    pub async fn insert(&self, tx: &mut Tx, keys: &[(Slot, Key)]) -> Result<()> {
        let mut cache = self.cache.lock().await;
        let slots: Vec<Slot> = keys.iter().map(|(slot, _)| *slot).collect();
        self.load(tx, &mut cache, &slots).await?;
        let cached = cache.as_mut().ok_or(KeyringError::NoTree)?;
        let writes = cached.tree.insert(keys, self.random.as_ref())?;
        cached.token = self.store_nodes(tx, &writes).await?;
        // Should the transaction be rolled back, the token no longer fits and the tree is loaded again.
        cached.tree.supply(writes.into_iter().map(|write| (write.id, write.sealed)));
        Ok(())
    }

    /// A copy of the key in a slot; `None` when it is empty or shredded.
    pub async fn key(&self, tx: &mut Tx, subtree: Subtree, number: u32) -> Result<Option<Key>> {
        let slot = Slot::new(subtree, number)?;
        self.with_tree(tx, &[slot], |tree| tree.key(slot).map(|key| key.map(copy))).await?.map_err(Into::into)
    }

    /// The key of a work leaf, made when it is missing.
    pub async fn work_key(&self, tx: &mut Tx, purpose: Purpose, reference: &str) -> Result<Key> {
        if let Some(key) = self.find_work_key(tx, purpose, reference).await? {
            return Ok(key);
        }
        let number = self.free_numbers(tx, SlotTable::Work, 1).await?[0];
        let key = Key::make(self.random.as_ref())?;
        self.insert(tx, &[(Slot::new(Subtree::Work, number)?, copy(&key))]).await?;
        tx.add_work(number, purpose.name(), reference).await?;
        Ok(key)
    }

    /// The key of a work leaf, if the leaf is active.
    pub async fn find_work_key(&self, tx: &mut Tx, purpose: Purpose, reference: &str) -> Result<Option<Key>> {
        let Some(number) = tx.work_slot(purpose.name(), reference).await? else { return Ok(None) };
        let key = self.key(tx, Subtree::Work, number).await?;
        key.map(Some).ok_or_else(|| KeyringError::Lost(format!("work leaf {}", purpose.name())))
    }

    /// Draws `count` slot numbers that were never used; the caller inserts keys and registers them in this transaction.
    pub async fn free_numbers(&self, tx: &mut Tx, table: SlotTable, count: usize) -> Result<Vec<u32>> {
        let mut numbers = Vec::with_capacity(count);
        if count == 0 {
            return Ok(numbers);
        }
        let used = tx.slots_by_cohort(table, COHORT_SLOTS).await?;
        let mut cohort = 0;
        while numbers.len() < count {
            // Number 0 is never used, so the first cohort is full one below its size; the others are treated alike.
            if used.get(&cohort).copied().unwrap_or(0) + 1 < u64::from(COHORT_SLOTS) {
                let taken = tx.slots_in_use(table, cohort * COHORT_SLOTS, COHORT_SLOTS).await?;
                let (is_taken, wanted) = (|number| taken.contains(&number), count - numbers.len());
                numbers.extend(KeyTree::allocate(cohort, &is_taken, wanted, self.random.as_ref())?);
            }
            cohort += 1;
        }
        Ok(numbers)
    }
}

/// The slots whose keys make the secrets of these cells. A number that no slot has is left out; [`cell_secret_in`] refuses it.
pub fn slots_of_cells<'c>(cells: impl IntoIterator<Item = &'c CellRow>) -> Vec<Slot> {
    let mut slots = Vec::new();
    for cell in cells {
        if let Some(pin) = cell.pin {
            slots.extend(Slot::new(Subtree::Pins, pin));
            continue;
        }
        slots.extend(Slot::new(Subtree::Buckets, cell.bucket));
        slots.extend(cell.subject.and_then(|subject| Slot::new(Subtree::Subjects, subject).ok()));
    }
    slots
}

/// The secret of a cell as a tree has it; [`slots_of_cells`] must have been loaded.
pub fn cell_secret_in(tree: &KeyTree, cell: &CellRow) -> Result<Option<CellSecret>> {
    if let Some(pin) = cell.pin {
        return Ok(tree.key(Slot::new(Subtree::Pins, pin)?)?.map(CellSecret::from_pin));
    }
    let Some(bucket_key) = tree.key(Slot::new(Subtree::Buckets, cell.bucket)?)? else { return Ok(None) };
    let bucket = Factor { number: cell.bucket, key: bucket_key };
    match cell.subject {
        None => Ok(Some(derive_cell_secret(None, bucket))),
        Some(number) => {
            let Some(key) = tree.key(Slot::new(Subtree::Subjects, number)?)? else { return Ok(None) };
            Ok(Some(derive_cell_secret(Some(Factor { number, key }), bucket)))
        }
    }
}

/// The stored nodes of the key tree, sealed.
///
/// # Errors
/// When the control database fails.
pub async fn stored_nodes(tx: &mut Tx) -> Result<NodeSet> {
    Ok(node_set(tx.tree_nodes().await?))
}

fn node_set(rows: Vec<NodeRow>) -> NodeSet {
    rows.into_iter().filter_map(|(id, sealed)| Some((node_id(id)?, sealed))).collect()
}

fn copy(key: &Key) -> Key {
    Key::dangerous_from_bytes(key.dangerous_bytes())
}

fn node_number(id: NodeId) -> (u8, u8, u32, i64) {
    (id.place.subtree.number(), id.place.level, id.place.index, id.version)
}

fn node_id((subtree, level, index, version): (u8, u8, u32, i64)) -> Option<NodeId> {
    let place = NodePlace { subtree: Subtree::from_number(subtree)?, level, index };
    Some(NodeId { place, version })
}
