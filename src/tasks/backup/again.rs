//! Another try of a snapshot that was interrupted: packs that are stored already are taken over instead of being sealed again.
//!
//! What an earlier try sealed was read from an earlier view of the store. So a pack is taken over only when every row in it is in
//! today's view, would be sealed in the same cell, has the same content, and was not erased since; rows that came, changed, moved or
//! went make their packs useless, and the other rows in those are sealed anew. For that the store is read once more. The snapshot that
//! comes of it is a new one in everything else: its number, its place in the ledger, its view.
//!
//! A full snapshot goes on only while the key of the chain that its earlier try began is there: it is among those that die with the
//! next re-key, and so the packs of a try that nobody goes on with never outlive it.

use std::collections::HashSet;

use chrono::TimeDelta;

use super::changes::Found;
use super::seal::suites;
use super::{Begun, Kind};
use crate::backup::codec::Sha256;
use crate::backup::directory::{FrameEntry, read_entries};
use crate::backup::group::group_columns;
use crate::backup::manifest::PackRef;
use crate::backup::object_store::ObjectStore;
use crate::backup::pack::pack_name;
use crate::control::{ChangeBase, RowInCell, SnapshotRow, StoredPack, Tx};
use crate::erase::{Ground, Site};
use crate::keys::Key;
use crate::keys::tree::Subtree;
use crate::tasks::{Result, TaskError};

/// An earlier try is gone on with for so long.
const FRESH: TimeDelta = TimeDelta::hours(24);

/// The try that can be gone on with, and the key of its chain, which is kept from dying when it is that of a full snapshot.
pub(super) async fn earlier_try(
    ground: &Ground<'_>,
    tx: &mut Tx,
    store: &str,
    (kind, today): (&Kind, &ChangeBase),
) -> Result<Option<(SnapshotRow, Key)>> {
    let Some(row) = tx.interrupted_try(store).await? else { return Ok(None) };
    let is_alike = match kind {
        Kind::Full(_) => row.kind == "full",
        Kind::Increment(parent) => row.parent.as_ref() == Some(&parent.id) && row.chain == parent.chain,
    };
    let is_fresh = (ground.clock.now() - row.begun_at).abs() < FRESH;
    let base = tx.base_of_try(row.number).await?;
    let is_same = base.is_some_and(|base| (base.schema, base.layout) == (today.schema.clone(), today.layout.clone()));
    if !(is_alike && is_fresh && is_same) {
        return Ok(None);
    }
    let Some(key) = ground.keyring.key(tx, Subtree::Chains, row.chain).await? else { return Ok(None) };
    let is_kept = matches!(kind, Kind::Increment(_)) || tx.keep_chain(row.chain).await?;
    Ok(is_kept.then_some((row, key)))
}

/// A pack of an earlier try.
struct EarlierPack {
    stored: StoredPack,
    /// Rows of each of its chunks, from the first one, that were not found again yet.
    missing: Vec<u32>,
    /// Whether it can be taken over once none is missing.
    is_fit: bool,
}

/// What an earlier try stored.
pub(super) struct Earlier {
    number: i64,
    erased: HashSet<[u8; 16]>,
    packs: Vec<EarlierPack>,
}

/// Packs that were taken over, in their new order.
pub(super) struct TakenOver {
    pub packs: Vec<PackRef>,
    /// Behind every chunk of the earlier try.
    pub next_chunk: u32,
}

impl Earlier {
    /// Reads what a try noted, and sees whether its packs are there.
    pub(super) async fn load(
        ground: &Ground<'_>,
        repository: &dyn ObjectStore,
        site: &Site,
        row: &SnapshotRow,
    ) -> Result<Self> {
        let mut tx = ground.control.read().await?;
        let erased = tx.ledger_after(&row.store, row.ledger_position).await?;
        let stored = tx.stored_packs(row.number).await?;
        drop(tx);
        let frames_of_chunk: Vec<usize> =
            site.model.collections.iter().map(|collection| group_columns(&suites(collection)).len()).collect();
        let mut packs = Vec::with_capacity(stored.len());
        for stored in stored {
            let entries = ground.control.read().await?.entries_of_pack(row.number, stored.number).await?;
            let rows = match read_entries(&entries) {
                Ok(entries) => rows_of_chunks(&stored, &entries, &frames_of_chunk),
                Err(error) => {
                    tracing::warn!(pack = %stored.sha256, error = %error, "what is noted of a stored pack cannot be read; its rows are sealed anew");
                    None
                }
            };
            let is_there = rows.is_some() && is_stored(repository, &stored).await?;
            packs.push(EarlierPack { stored, is_fit: is_there, missing: rows.unwrap_or_default() });
        }
        let erased = erased.into_iter().map(|entry| entry.row_mac).collect();
        Ok(Self { number: row.number, erased, packs })
    }

    /// Notes which of these rows it sealed as they are now.
    pub(super) async fn compare(&mut self, tx: &mut Tx, found: &[Found]) -> Result<()> {
        let wanted: Vec<RowInCell> = found.iter().map(|row| (row.row_mac, row.cell)).collect();
        let entered = tx.entered_rows(self.number, &wanted).await?;
        for row in found.iter().filter(|row| !self.erased.contains(&row.row_mac)) {
            let Some(before) = entered.get(&row.row_mac) else { continue };
            if (before.cell, before.content) != (row.cell, row.content) {
                continue;
            }
            let behind = self.packs.partition_point(|pack| pack.stored.first_chunk <= before.chunk);
            let Some(pack) = behind.checked_sub(1).and_then(|at| self.packs.get_mut(at)) else { continue };
            let at = usize::try_from(before.chunk - pack.stored.first_chunk).unwrap_or(usize::MAX);
            if let Some(missing) = pack.missing.get_mut(at) {
                *missing = missing.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Lets the packs in which no row is missing be those of the running snapshot, and forgets the others.
    pub(super) async fn take_over(self, ground: &Ground<'_>, begun: &Begun) -> Result<TakenOver> {
        let next_chunk = self.packs.iter().map(|pack| pack.stored.last_chunk + 1).max().unwrap_or(0) as u32;
        let is_whole = |pack: &EarlierPack| pack.is_fit && pack.missing.iter().all(|missing| *missing == 0);
        let (fit, others): (Vec<_>, Vec<_>) = self.packs.into_iter().partition(is_whole);
        tracing::info!(packs = fit.len(), sealed_anew = others.len(), "goes on with a snapshot that was interrupted");
        let stored: Vec<StoredPack> = fit.into_iter().map(|pack| pack.stored).collect();
        let mut tx = ground.control.begin().await?;
        begun.keep_lease(ground, &mut tx).await?;
        tx.take_over_packs(self.number, begun.row.number, &stored).await?;
        tx.forget_tries(&begun.row.store, None).await?;
        tx.commit().await?;
        let packs = stored.iter().map(reference).collect::<Result<Vec<_>>>()?;
        Ok(TakenOver { packs, next_chunk })
    }
}

/// Whether a pack lies in the bucket as it was noted. One that the bucket does not answer for, while it answers for others, is as good
/// as gone: a snapshot must not wait for it.
async fn is_stored(repository: &dyn ObjectStore, pack: &StoredPack) -> Result<bool> {
    let why = match Sha256::parse(&pack.sha256) {
        None => "its digest is damaged in the control database".to_owned(),
        Some(sha256) => match repository.head(&pack_name(&sha256)).await {
            Ok(Some(bytes)) if bytes == pack.bytes as u64 => return Ok(true),
            Ok(Some(bytes)) => format!("it has {bytes} bytes instead of {}", pack.bytes),
            Ok(None) => "it is not in the bucket any more".to_owned(),
            Err(error) => {
                // Nothing has this name. Where that cannot be found out either, the bucket is away, and not the pack.
                repository.head(&pack_name(&Sha256::of(pack.sha256.as_bytes()))).await?;
                error.to_string()
            }
        },
    };
    tracing::warn!(pack = %pack.sha256, why, "a stored pack cannot be taken over; its rows are sealed anew");
    Ok(false)
}

fn reference(pack: &StoredPack) -> Result<PackRef> {
    let sha256 = Sha256::parse(&pack.sha256)
        .ok_or_else(|| TaskError::Inconsistent("the digest of a stored pack is damaged".to_owned()))?;
    Ok(PackRef { sha256, bytes: pack.bytes as u64, frames: pack.frames as u32 })
}

/// The frames of a pack that was taken over.
pub(super) async fn frames_of(ground: &Ground<'_>, begun: &Begun, number: u32) -> Result<Vec<FrameEntry>> {
    let entries = ground.control.read().await?.entries_of_pack(begun.row.number, i64::from(number)).await?;
    Ok(read_entries(&entries)?)
}

/// The rows of each chunk of a pack; none when a chunk is not whole in it, or it names removed rows: those are found out anew.
fn rows_of_chunks(pack: &StoredPack, entries: &[FrameEntry], frames_of_chunk: &[usize]) -> Option<Vec<u32>> {
    let chunks = usize::try_from(pack.last_chunk - pack.first_chunk + 1).ok()?;
    let mut found = vec![(0_usize, 0_u32, 0_usize); chunks];
    for entry in entries {
        if entry.removed {
            return None;
        }
        let chunk = found.get_mut(usize::try_from(i64::from(entry.chunk) - pack.first_chunk).ok()?)?;
        *chunk = (chunk.0 + 1, entry.rows, *frames_of_chunk.get(entry.collection as usize)?);
    }
    found.iter().map(|(frames, rows, wanted)| (frames == wanted && *frames > 0).then_some(*rows)).collect()
}
