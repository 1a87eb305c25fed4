//! `backup`: takes a snapshot of a store: an increment that continues the newest chain, or a full one that begins a chain.
//!
//! Order of durability: slots, then sealing history and change index of the rows of a pack, then the pack with the parts of the directory
//! that it fills, then the rest of the directory, then the agent's state in the second place, then manifest, then the control-database row that commits it. A crash anywhere leaves a snapshot that is not committed; the
//! chain key of a full one dies with the next re-key, an increment's chain goes on without it. Another try within a day takes over the
//! packs whose rows are still what they were (`again`).
//!
//! An increment is as good a barrier as a full snapshot (rule of dying 2): a row whose cell is not the one that it would be sealed in
//! today, because its key is to die or a pin holds it, is sealed anew.

mod again;
mod cells;
mod changes;
mod pending;
mod seal;
mod why;

pub use why::{WhyFull, is_damage, note_damage};

use std::collections::HashMap;

use chrono::TimeDelta;

use crate::backup::codec::{Id128, Sha256};
use crate::backup::manifest::{FORMAT_VERSION, INCREMENT_VERSION, Manifest, SnapshotKind};
use crate::backup::object_store::ObjectStore;
use crate::backup::schema::{CapturedCollection, CapturedSchema};
use crate::config::{ChainBounds, Configuration};
use crate::control::{BucketName, ChangeBase, SlotTable, SnapshotRow, Tx, time_text};
use crate::crash_point;
use crate::erase::{Ground, Site};
use crate::installation::{LEASE_SECONDS, ManifestSigner, WORK_LEASE, settle_interrupted};
use crate::keyring::{KeyringError, Purpose};
use crate::keys::Key;
use crate::keys::cell::derive_chain_part_key;
use crate::keys::suite::Suite;
use crate::keys::tree::{Slot, Subtree};
use crate::plan::model::Collection;
use again::Earlier;
use changes::Changes;
pub use seal::suite_of;
use seal::{Sealed, Sealer};

use super::{Result, TaskError};

/// The purpose that separates directory keys from other chain keys.
pub const DIRECTORY_PURPOSE: &str = "directory";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A full snapshot.
    Full,
    /// An increment on the newest chain, as long as the chain is within these bounds and fit for one.
    Increment(ChainBounds),
}

impl Wanted {
    /// An increment within the bounds of the configuration.
    #[must_use]
    pub fn increment(config: &Configuration) -> Self {
        Self::Increment(config.backup.as_ref().map_or_else(ChainBounds::default, |backup| backup.chain))
    }
}

/// What a cell is known by before it has slots: its subject's digest (empty without one) and its bucket.
type CellName = (Vec<u8>, BucketName);

/// Takes a snapshot of a store and commits it. Where an increment cannot be taken a full one is, and its row says why.
///
/// # Errors
/// When the store, the bucket, the keys or the control database fail; nothing is committed then.
pub async fn take_snapshot(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    store: &str,
    wanted: Wanted,
) -> Result<SnapshotRow> {
    let site = ground.site(store).ok_or_else(|| TaskError::Unknown {
        what: format!("store {store} is not registered or cannot be reached"),
        advice: "see `wangchuan store list` and `wangchuan store check`".to_owned(),
    })?;
    settle_interrupted(ground.control, repository, ground.clock.now()).await?;
    let today = why::base_of(site)?;
    let kind = match wanted {
        Wanted::Full => Kind::Full(None),
        Wanted::Increment(bounds) => match why::continued(ground, repository, store, &today, bounds).await? {
            Ok(parent) => Kind::Increment(Box::new(parent)),
            Err(why) => Kind::Full(Some(why)),
        },
    };
    let begun = begin(ground, store, &kind, today).await?;
    crash_point::reached("backup.begun");
    let number = begun.row.number;
    let taken = seal_and_commit(ground, repository, signer, site, (kind, begun)).await;
    if taken.is_err() {
        // Without this the snapshot would count as running, and no key could die, until the next start. A failure after the
        // manifest was announced leaves open whether it was stored; that is settled by looking.
        let mut tx = ground.control.begin().await?;
        if tx.running_snapshot_rows().await?.iter().any(|row| row.number == number && row.manifest.is_none()) {
            tx.cancel_snapshot(number).await?;
        }
        tx.commit().await?;
    }
    taken
}

async fn seal_and_commit(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    site: &Site,
    (kind, begun): (Kind, Begun),
) -> Result<SnapshotRow> {
    let changes = match &kind {
        Kind::Full(_) => None,
        Kind::Increment(parent) => Some(Changes::since(ground, parent).await?),
    };
    let mut view = site.store.open_snapshot().await?;
    let part_key = |id: &Id128| derive_chain_part_key(Suite::Intl, &begun.chain_key, DIRECTORY_PURPOSE, &id.0);
    let mut sealer = Sealer::new(ground, repository, &begun, &part_key, changes);
    if let Some(earlier) = &begun.earlier {
        let mut earlier = Earlier::load(ground, repository, site, earlier).await?;
        for (number, collection) in site.model.collections.iter().enumerate() {
            sealer.read_collection(site, (number as u32, collection), view.as_mut(), Some(&mut earlier)).await?;
        }
        sealer.go_on(earlier).await?;
    }
    let mut captured = Vec::new();
    for (number, collection) in site.model.collections.iter().enumerate() {
        let rows = sealer.read_collection(site, (number as u32, collection), view.as_mut(), None).await?;
        captured.push(CapturedCollection { number: number as u32, table: collection.table.name.clone(), rows });
    }
    let tables: Vec<String> = site.model.collections.iter().map(|collection| collection.table.name.clone()).collect();
    // After the rows, so that no sequence is behind them.
    let definitions = view.definitions(&tables).await?;
    view.close().await?;
    sealer.seal_what_is_gone(site).await?;
    let schema = CapturedSchema {
        engine: site.store.engine(),
        server_version: site.store.server_version().await?,
        tables: site.model.collections.iter().map(captured_table).collect(),
        collections: captured,
        definitions,
    };
    let sealed = sealer.finish(schema).await?;
    crash_point::reached("backup.directory-stored");
    commit(ground, repository, signer, (&kind, begun), sealed).await
}

/// A table as captured: with the key that rows are known by.
fn captured_table(collection: &Collection) -> crate::stores::Table {
    let mut table = collection.table.clone();
    table.key.clone_from(&collection.key);
    table
}

struct Begun {
    row: SnapshotRow,
    installation: Id128,
    store_id: Id128,
    previous: Option<Sha256>,
    chain_key: Key,
    suppression: Key,
    lookup: Key,
    /// The token of the work lease when it began: whoever takes the lease over settles it, and it must not commit then.
    token: Option<i64>,
    pinned: HashMap<(Vec<u8>, String), i64>,
    /// The try that did not come to its end, if this one goes on with it.
    earlier: Option<SnapshotRow>,
}

/// The opaque id by which the bucket knows a store.
pub async fn store_id(tx: &mut Tx, ground: &Ground<'_>, store: &str) -> Result<Id128> {
    let name = format!("store_id:{store}");
    if let Some(text) = tx.meta(&name).await? {
        return Id128::parse(&text)
            .ok_or_else(|| TaskError::Inconsistent(format!("the opaque id of store {store} is damaged")));
    }
    let id = Id128::make(ground.random)?;
    tx.set_meta(&name, &id.to_string()).await?;
    Ok(id)
}

/// The digest of a committed snapshot's manifest.
fn manifest_digest(row: &SnapshotRow) -> Result<Sha256> {
    row.manifest_sha256
        .as_deref()
        .and_then(Sha256::parse)
        .ok_or_else(|| TaskError::Inconsistent("a manifest digest is damaged".to_owned()))
}

/// What is taken.
enum Kind {
    /// A full snapshot, and why it is one where an increment was asked for.
    Full(Option<WhyFull>),
    /// An increment that continues this snapshot.
    Increment(Box<SnapshotRow>),
}

impl Kind {
    fn of_manifest(&self) -> SnapshotKind {
        match self {
            Self::Full(_) => SnapshotKind::Full,
            Self::Increment(_) => SnapshotKind::Incremental,
        }
    }
}

/// The key of a new chain, and its slot.
async fn make_chain(ground: &Ground<'_>, tx: &mut Tx, store: &str) -> Result<(u32, Key)> {
    let chain = ground.keyring.free_numbers(tx, SlotTable::Chain, 1).await?[0];
    let chain_key = Key::make(ground.random)?;
    let copy = Key::dangerous_from_bytes(chain_key.dangerous_bytes());
    ground.keyring.insert(tx, &[(Slot::new(Subtree::Chains, chain).map_err(KeyringError::from)?, copy)]).await?;
    tx.add_chain(chain, store, ground.clock.now()).await?;
    Ok((chain, chain_key))
}

async fn begin(ground: &Ground<'_>, store: &str, kind: &Kind, today: ChangeBase) -> Result<Begun> {
    let now = ground.clock.now();
    let mut tx = ground.control.begin().await?;
    let earlier = tx.snapshots(Some(store)).await?;
    let last = earlier.last();
    let sequence = last.map_or(1, |row| row.sequence + 1);
    let previous = last.map(manifest_digest).transpose()?;
    let earlier = again::earlier_try(ground, &mut tx, store, (kind, &today)).await?;
    tx.forget_tries(store, earlier.as_ref().map(|(row, _)| row.number)).await?;
    let (earlier, kept) = earlier.unzip();
    let (chain, chain_key) = match (kind, &earlier, kept) {
        (Kind::Full(_), Some(earlier), Some(key)) => (earlier.chain, key),
        (Kind::Full(_), ..) => make_chain(ground, &mut tx, store).await?,
        (Kind::Increment(parent), ..) => {
            let key = ground.keyring.key(&mut tx, Subtree::Chains, parent.chain).await?;
            (parent.chain, key.ok_or_else(|| KeyringError::Lost("a chain that is in use".to_owned()))?)
        }
    };
    let id = Id128::make(ground.random)?.to_string();
    let (begins_with, parent, why_full) = match kind {
        Kind::Full(why) => (id.clone(), None, why.map(|why| why.code().to_owned())),
        Kind::Increment(parent) => (parent.begins_with.clone(), Some(parent.id.clone()), None),
    };
    let mut row = SnapshotRow {
        number: 0,
        id,
        store: store.to_owned(),
        chain,
        kind: kind.of_manifest().name().to_owned(),
        ledger_position: 0,
        sequence,
        state: "running".to_owned(),
        manifest: None,
        manifest_sha256: None,
        rows: 0,
        frames: 0,
        bytes: 0,
        begun_at: now,
        committed_at: None,
        begins_with,
        parent,
        living: 0,
        why_full,
    };
    tx.begin_snapshot(&mut row).await?;
    tx.begin_change_base(store, &ChangeBase { snapshot: row.number, ..today }).await?;
    let begun = Begun {
        row,
        installation: Id128(tx.installation().await?),
        store_id: store_id(&mut tx, ground, store).await?,
        previous,
        chain_key,
        suppression: ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?,
        lookup: ground.keyring.work_key(&mut tx, Purpose::Lookup, "").await?,
        token: tx.held_token(WORK_LEASE).await?,
        pinned: tx.pinned_cells().await?,
        earlier,
    };
    tx.commit().await?;
    Ok(begun)
}

impl Begun {
    /// Makes sure, inside a writing transaction, that the work lease was not lost meanwhile, and keeps it.
    async fn keep_lease(&self, ground: &Ground<'_>, tx: &mut Tx) -> Result<()> {
        if let Some(token) = self.token {
            let now = ground.clock.now();
            tx.extend_lease(WORK_LEASE, token, now, now + TimeDelta::seconds(LEASE_SECONDS)).await?;
        }
        Ok(())
    }
}

async fn commit(
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    signer: &ManifestSigner,
    (kind, begun): (&Kind, Begun),
    sealed: Sealed,
) -> Result<SnapshotRow> {
    let now = ground.clock.now();
    let (format_version, parent) = match kind {
        Kind::Full(_) => (FORMAT_VERSION, None),
        Kind::Increment(parent) => (INCREMENT_VERSION, Some(manifest_digest(parent)?)),
    };
    let manifest = Manifest {
        format_version,
        installation: begun.installation,
        store: begun.store_id,
        snapshot: Id128::parse(&begun.row.id).unwrap_or(Id128([0; 16])),
        kind: kind.of_manifest(),
        chain: u64::from(begun.row.chain),
        sequence: begun.row.sequence as u64,
        previous: begun.previous,
        parent,
        ledger_position: begun.row.ledger_position as u64,
        begun: begun.row.begun_at,
        committed: now,
        packs: sealed.packs,
        directory: sealed.directory,
        frames: sealed.frames,
    };
    let draft = manifest.draft()?;
    let signature = signer.sign(&draft.message()).await?;
    let signed = draft.signed(signer.key_id(), &signature)?;
    let mut row = begun.row.clone();
    row.bytes = (manifest.stored_bytes() + signed.bytes.len() as u64) as i64;
    row.rows = sealed.rows;
    row.living = sealed.living;
    row.frames = sealed.frames as i64;
    row.manifest = Some(signed.name.clone());
    row.manifest_sha256 = Some(signed.sha256.to_string());
    let cancelled = || TaskError::refused("the snapshot was cancelled while it was taken", "take another one");
    let mut tx = ground.control.begin().await?;
    begun.keep_lease(ground, &mut tx).await?;
    if !tx.intend_manifest(&row).await? {
        return Err(cancelled());
    }
    tx.commit().await?;
    // Without its keys, cells and sealing history in the second place a snapshot would be lost with this host.
    ground.keyring.seal_state(ground.control, ground.clock).await?;
    repository.put_if_absent(&signed.name, signed.bytes).await?;
    crash_point::reached("backup.manifest-stored");
    let mut tx = ground.control.begin().await?;
    begun.keep_lease(ground, &mut tx).await?;
    if !tx.commit_snapshot(row.number, now).await? {
        return Err(cancelled());
    }
    tx.set_meta("last_backup", &time_text(now)).await?;
    tx.commit().await?;
    "committed".clone_into(&mut row.state);
    row.committed_at = Some(now);
    Ok(row)
}
