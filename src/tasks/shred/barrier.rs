//! The barrier (rule of dying 2): where the newest snapshot of a store, with everything that it continues, holds the living rows.
//!
//! Nothing is taken from the control database for it: the frames are opened, and of an increment the rows are followed through its
//! chain, version by version.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;

use crate::backup::directory::CellRef;
use crate::control::DyingKeys;
use crate::erase::Ground;
use crate::erase::fate::rules::{CellNames, SealedCell, forbids_death};
use crate::installation::Installation;
use crate::tasks::backup::{is_damage, note_damage};
use crate::tasks::read_chain::{OpenChain, VersionSink, Versions, open_chain};
use crate::tasks::read_snapshot::FrameState;
use crate::tasks::{Result, TaskError};

/// The newest snapshot of a store as a barrier: what is sealed where, and why it is not good for one, if it is not.
pub(in crate::tasks) struct Barrier {
    pub number: i64,
    pub opened: Result<LivingCells, String>,
}

/// The cells in which living rows lie, with the pins that hold them now.
pub(in crate::tasks) struct LivingCells(Vec<(CellRef, Option<u32>)>);

impl LivingCells {
    /// Whether living rows lie in a cell that these keys would close.
    pub(super) fn forbid(&self, dying: &DyingKeys, preserved: &CellNames) -> bool {
        self.0.iter().any(|(cell, held_by)| {
            let CellRef { subject, bucket, pin } = *cell;
            let cell = SealedCell { subject, bucket, is_fresh: pin.is_some(), pin: *held_by };
            forbids_death(&cell, dying, preserved)
        })
    }
}

/// Reads it once for all runs. That it cannot be read is a reason to wait, not to fail.
pub(in crate::tasks) async fn read_barrier(
    installation: &Installation,
    ground: &Ground<'_>,
    store: &str,
) -> Result<Option<Barrier>> {
    let mut tx = installation.control.read().await?;
    let newest = tx.snapshots(Some(store)).await?.pop();
    drop(tx);
    let Some(row) = newest else { return Ok(None) };
    let (number, id, chain) = (row.number, row.id.clone(), row.chain);
    let repository = installation.backup()?.repository.clone();
    let opened = match open_chain(ground, repository.as_ref(), &installation.signer, row).await {
        Ok(opened) => find_living(&opened, repository.as_ref()).await,
        Err(error) => Err(error),
    };
    let opened = match opened {
        Ok(Found { fault: None, living }) => Ok(living),
        Ok(Found { fault: Some(fault), .. }) => {
            note_damage(&installation.control, chain).await?;
            Err(format!("{fault} of snapshot {id}, so no key may die on its account"))
        }
        Err(error) => {
            if is_damage(&error) {
                note_damage(&installation.control, chain).await?;
            }
            Err(format!("snapshot {id} cannot be read: {error}"))
        }
    };
    Ok(Some(Barrier { number, opened }))
}

struct Found {
    living: LivingCells,
    /// Why the chain is no barrier.
    fault: Option<String>,
}

/// Opens every frame of a chain, and notes the cells of the versions that count.
async fn find_living(chain: &OpenChain, repository: &dyn crate::backup::object_store::ObjectStore) -> Result<Found> {
    let newest = chain.newest()?;
    let mut cells = Cells::default();
    let counts = chain.read(repository, &mut cells).await?;
    let unread = counts.all.frames_in(FrameState::Corrupt) + counts.all.frames_in(FrameState::Lost);
    let missing: u64 = newest
        .schema
        .collections
        .iter()
        .map(|captured| differing(captured.rows, captured.number, &counts.living))
        .sum();
    let fault = if unread > 0 {
        Some(format!("{unread} frames do not open in the chain"))
    } else if missing > 0 && chain.parts.len() > 1 {
        Some(format!("{missing} rows are missing, or too many, in the chain"))
    } else {
        None
    };
    // A full snapshot alone holds living rows only, those included that no key opens.
    let all = newest.entries.iter().filter(|_| chain.parts.len() == 1).map(|entry| entry.cell);
    let cells: HashSet<CellRef> = cells.0.into_iter().chain(all).collect();
    let living = LivingCells(cells.into_iter().map(|cell| (cell, newest.pin_of(&cell))).collect());
    Ok(Found { living, fault })
}

fn differing(rows: u64, collection: u32, living: &BTreeMap<u32, u64>) -> u64 {
    living.get(&collection).copied().unwrap_or(0).abs_diff(rows)
}

#[derive(Default)]
struct Cells(HashSet<CellRef>);

#[async_trait]
impl VersionSink for Cells {
    async fn take(&mut self, versions: Versions<'_>) -> Result<(), TaskError> {
        self.0.insert(versions.cell);
        Ok(())
    }
}
