//! `shred`: destroys the keys of runs whose grace is over, in one generation change for all of them.
//!
//! A run waits while a hold covers it, while its grace lasts, while an older snapshot is running, and until the barrier
//! snapshot of every store it touched is committed and its pinned rows open with the keys that will survive.

use std::collections::HashSet;

use serde::Serialize;

use crate::backup::object_store::ObjectStore;
use crate::control::{CellRow, DyingKeys, PinRow, RunRow, SnapshotRow, Tx};
use crate::crash_point;
use crate::erase::Ground;
use crate::installation::Installation;
use crate::keyring;
use crate::policy::calendar::BucketPeriod;
use crate::policy::registry::BackupMode;
use crate::policy::statute::{self, Earliest, bucket_due_with};

use super::erasure::RunBody;
use super::read_snapshot::{FrameState, open};
use super::{Result, TaskError};

/// What a shred did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ShredReport {
    /// The new key generation, when there was something to destroy.
    pub generation: Option<i64>,
    /// Keys destroyed.
    pub keys: u64,
    /// Cells that survive under a pin.
    pub pinned: u64,
    /// Runs whose rows can no longer be opened anywhere.
    pub shredded: Vec<String>,
    /// Runs with rows that still open, how many, and until when.
    pub pending: Vec<(String, i64, String)>,
    /// Runs that wait, and why.
    pub waiting: Vec<(String, String)>,
}

/// Destroys what is due.
///
/// # Errors
/// Refused when destruction is held or the clock is doubtful; otherwise what failed. A crash inside is finished at the next start.
pub async fn shred_due(installation: &Installation) -> Result<ShredReport> {
    installation.may_destroy().await?;
    let ground = installation.ground()?;
    let mut report = ShredReport::default();
    let mut tx = installation.control.read().await?;
    let candidates = tx.runs(Some("shred-pending")).await?;
    drop(tx);
    let mut ready = Vec::new();
    for run in candidates {
        match why_waiting(installation, &ground, &run).await? {
            Some(reason) => report.waiting.push((run.id.clone(), reason)),
            None => ready.push(run),
        }
    }
    let runs: Vec<String> = ready.iter().map(|run| run.id.clone()).collect();
    let mut tx = installation.control.read().await?;
    let dying = tx.dying_keys(&runs).await?;
    let preserved = preserved_cells(&mut tx, &dying).await?;
    drop(tx);
    if !dying.is_empty() {
        installation.log_operation("key.shred", &format!("keys-{}", dying.count()), "intent").await?;
        // Holds are read once more: from here to the commit of the generation the shred counts as running.
        for run in &ready {
            if let Some(reason) = held(installation, run).await? {
                return Err(TaskError::refused(
                    format!("run {}: {reason}", run.id),
                    "the hold came first; try again later",
                ));
            }
        }
        let now = installation.clock.now();
        let shredded = keyring::shred(&installation.keyring, &installation.control, &dying, &preserved, now).await?;
        report.generation = Some(shredded.generation);
        report.keys = dying.count() as u64;
        report.pinned = preserved.len() as u64;
        installation.log_operation("key.shred", &format!("generation-{}", shredded.generation), "success").await?;
    }
    settle_runs(installation, &ground, &mut report).await?;
    crash_point::reached("run.shredded");
    Ok(report)
}

/// Enters the result of finished generation changes into all runs that wait for them.
async fn settle_runs(installation: &Installation, ground: &Ground<'_>, report: &mut ShredReport) -> Result<()> {
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    let (generation, _) = tx.tree_root().await?.ok_or(keyring::KeyringError::NoTree)?;
    for mut run in tx.runs(Some("shred-pending")).await? {
        if report.waiting.iter().any(|(waiting, _)| *waiting == run.id) {
            continue;
        }
        let barrier = run.verified_snapshot.unwrap_or(i64::MAX);
        let readable = tx.rows_still_readable(&run.id, barrier).await?;
        let mut body = RunBody::of(&run)?;
        run.generation = Some(generation);
        if readable == 0 {
            body.pending = None;
            run.shredded_at = Some(now);
            "shredded".clone_into(&mut run.state);
            report.shredded.push(run.id.clone());
        } else {
            let until = pending_until(ground, &mut tx, &run, barrier).await?;
            body.pending = Some((readable, until.clone()));
            report.pending.push((run.id.clone(), readable, until));
        }
        body.put(&mut run)?;
        tx.step_run(&run, "shred-pending").await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The date at which the last bucket of a run's readable rows is due; `with its chain` where no date can be computed.
async fn pending_until(ground: &Ground<'_>, tx: &mut Tx, run: &RunRow, barrier: i64) -> Result<String> {
    let mut latest = None;
    for slot in tx.readable_buckets(&run.id, barrier).await? {
        let Some((name, _)) = tx.bucket_name(slot).await? else { continue };
        let due = ground.site(&name.store).and_then(|site| {
            let (_, collection) = site.model.collection(&name.collection)?;
            let governed = collection.governed.as_ref()?;
            let period: BucketPeriod = name.period.parse().ok()?;
            let statutes = statute::find_all(&governed.policy.statutes).ok()?;
            bucket_due_with(period, governed.policy.retention, &statutes, site.model.spec.timezone).ok()
        });
        match due {
            Some(Earliest::At(due)) => latest = latest.max(Some(due)),
            _ => return Ok("with its chain".to_owned()),
        }
    }
    Ok(latest.map_or_else(|| "with its chain".to_owned(), |due| due.format("%Y-%m-%d").to_string()))
}

async fn why_waiting(installation: &Installation, ground: &Ground<'_>, run: &RunRow) -> Result<Option<String>> {
    let now = installation.clock.now();
    if let Some(until) = run.grace_until.filter(|until| *until > now) {
        return Ok(Some(format!("grace lasts until {}", until.format("%Y-%m-%d %H:%M"))));
    }
    if let Some(reason) = held(installation, run).await? {
        return Ok(Some(reason));
    }
    let barrier = run.verified_snapshot.unwrap_or(i64::MAX);
    for spec in installation.config.registry.stores.iter().filter(|spec| spec.backup == BackupMode::Bucket) {
        let mut tx = installation.control.read().await?;
        let snapshots = tx.snapshots(Some(&spec.name)).await?;
        if tx.running_snapshots().await? > 0 {
            return Ok(Some("a snapshot is being taken".to_owned()));
        }
        drop(tx);
        let Some(newest) = snapshots.into_iter().rev().find(|snapshot| snapshot.number > barrier) else {
            return Ok(Some(format!("store {} has no snapshot since the erasure yet", spec.name)));
        };
        let connection = installation.backup()?;
        check_barrier(installation, ground, connection.repository.as_ref(), newest, run).await?;
    }
    Ok(None)
}

/// The barrier: the snapshot holds nothing in the dying cells, and what it holds in pinned cells opens.
async fn check_barrier(
    installation: &Installation,
    ground: &Ground<'_>,
    repository: &dyn ObjectStore,
    snapshot: SnapshotRow,
    run: &RunRow,
) -> Result<()> {
    let mut tx = installation.control.read().await?;
    let dying = tx.dying_keys(std::slice::from_ref(&run.id)).await?;
    let pinned: HashSet<(Option<u32>, u32)> =
        preserved_cells(&mut tx, &dying).await?.into_iter().map(|(_, cell)| (cell.subject, cell.bucket)).collect();
    drop(tx);
    let opened = open(ground, repository, &installation.signer, snapshot).await?;
    for entry in &opened.entries {
        let dies = entry.cell.pin.is_none()
            && (entry.cell.subject.is_some_and(|subject| dying.subjects.contains(&subject))
                || dying.buckets.contains(&entry.cell.bucket));
        if dies && !pinned.contains(&(entry.cell.subject, entry.cell.bucket)) {
            return Err(TaskError::Inconsistent(format!(
                "run {}: living rows were sealed under a key that is to die; it stays until a later snapshot holds them elsewhere",
                run.id
            )));
        }
        if opened.state_of(&entry.cell) == FrameState::Lost {
            return Err(TaskError::Inconsistent(format!(
                "snapshot {}: a frame's key is lost, so no key may be destroyed on its account",
                opened.row.id
            )));
        }
    }
    let read = opened.read(repository).await?;
    if read.frames_in(FrameState::Corrupt) + read.frames_in(FrameState::Lost) > 0 {
        return Err(TaskError::Inconsistent(format!(
            "snapshot {} does not open completely, so no key may be destroyed on its account",
            opened.row.id
        )));
    }
    Ok(())
}

/// Pins, of whatever run, whose cells lose a key now: their secrets must be copied in this very generation change.
async fn preserved_cells(tx: &mut Tx, dying: &DyingKeys) -> Result<Vec<(PinRow, CellRow)>> {
    let mut found = Vec::new();
    for pin in tx.pins().await? {
        let Some(cell) = tx.cell_by_id(pin.cell).await? else { continue };
        if cell.subject.is_some_and(|subject| dying.subjects.contains(&subject)) || dying.buckets.contains(&cell.bucket)
        {
            found.push((pin, cell));
        }
    }
    Ok(found)
}

/// The hold that covers rows of a run, if any.
async fn held(installation: &Installation, run: &RunRow) -> Result<Option<String>> {
    let mut tx = installation.control.read().await?;
    let holds = tx.holds(true).await?;
    if holds.is_empty() {
        return Ok(None);
    }
    let dying = tx.dying_keys(std::slice::from_ref(&run.id)).await?;
    let request = match run.request {
        Some(number) => tx.request(number).await?,
        None => None,
    };
    let touched: Vec<(String, String)> = tx
        .ledger_of_run(&run.id)
        .await?
        .into_iter()
        .map(|entry| (entry.store, entry.collection))
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    for hold in holds {
        let covers = match hold.scope.as_str() {
            "subject" => match hold.subject {
                Some(subject) => {
                    let by_request = request.as_ref().is_some_and(|request| request.lookup == subject);
                    by_request || subject_in_buckets(&mut tx, &subject, &dying).await?
                }
                None => true,
            },
            "store" => touched.iter().any(|(store, _)| Some(store) == hold.store.as_ref()),
            "collection" => touched
                .iter()
                .any(|(store, name)| Some(store) == hold.store.as_ref() && Some(name) == hold.collection.as_ref()),
            _ => true,
        };
        if covers {
            return Ok(Some(format!("hold {} covers it", hold.id)));
        }
    }
    Ok(None)
}

/// Whether rows of a subject were erased from a cell that would die now. Cells of which nothing went are pinned anyway.
async fn subject_in_buckets(tx: &mut Tx, lookup: &[u8; 32], dying: &DyingKeys) -> Result<bool> {
    let Some(slot) = tx.subject_slots(&[*lookup]).await?.get(lookup).copied() else { return Ok(false) };
    let cells = tx.cells_under(Some(slot), None).await?;
    for cell in cells.iter().filter(|cell| dying.buckets.contains(&cell.bucket)) {
        if tx.cell_lost_rows(cell.id).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
