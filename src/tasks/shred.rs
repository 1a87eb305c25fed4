//! `shred`: destroys the keys of runs whose grace is over, in one generation change for all of them.
//!
//! A run waits while a hold covers it, while its grace lasts, while an older snapshot is running, and until the barrier
//! snapshot of every store that its dying cells reach is committed and its pinned rows open with the keys that will survive.
//!
//! In a root slot that destroys only at a date, a run whose keys died stays `shred-pending` until the last root that could open them
//! is read back as gone. Nothing can keep it back then any more, a hold neither.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::control::{CellRow, DyingKeys, PinRow, RunRow, Tx};
use crate::crash_point;
use crate::erase::Ground;
use crate::erase::fate::rules::CellNames;
use crate::installation::{Installation, settle_interrupted};
use crate::keyring;
use crate::policy::registry::{BackupMode, StoreSpec};

use super::doomed::{self, DoomedRoots};
use super::erasure::{RunBody, forget_markers};
use super::prune::spare_needed;
use super::undo::expire_pre_images;
use super::{Result, TaskError};
pub(super) use barrier::read_barrier;

use barrier::Barrier;
use pending::pending_until;
use wait::{Wait, no_snapshot_since, slot_wait};

mod barrier;
mod pending;
mod wait;

pub use pending::still_open_behind_shred;
pub use wait::{GROUP_COMMIT, WaitCode, WaitingRun, next_group_commit, waiting_runs};

/// Tries of a shred when holds keep coming in the middle of it.
const HOLD_TRIES: u32 = 5;

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
    /// Snapshots that runs wait for and that are there, but could not be read.
    pub unread: Vec<String>,
    /// The same, with codes and dates.
    pub details: Vec<WaitingRun>,
    /// What became of roots that are destroyed only at a date.
    pub doomed: DoomedRoots,
}

impl ShredReport {
    fn wait(&mut self, run: &RunRow, wait: Wait) {
        self.waiting.push((run.id.clone(), wait.what.clone()));
        self.details.push(WaitingRun::of(run, wait));
    }
}

/// Destroys what is due.
///
/// # Errors
/// Refused when destruction is held or the clock is doubtful; otherwise what failed. A crash inside is finished at the next start.
pub async fn shred_due(installation: &Installation) -> Result<ShredReport> {
    installation.may_destroy().await?;
    installation.settle_keys().await?;
    let ground = installation.ground()?;
    let mut report = ShredReport::default();
    settle_leftovers(installation).await?;
    expire_pre_images(installation).await?;
    report.doomed = doomed::settle(installation).await?;
    let mut ready = find_ready(installation, &ground, &mut report).await?;
    let before = note_readable_rows(installation).await?;
    let whole = installation.begin_piece()?;
    if let Some(wait) = slot_wait(installation).await? {
        ready.drain(..).for_each(|run| report.wait(&run, wait.clone()));
    } else {
        let mut tries = 1;
        while destroy(installation, &ground, &mut ready, &mut report, tries).await? == Tried::HoldCame {
            tries += 1;
            installation.may_destroy().await?;
        }
    }
    settle_runs(installation, &ground, &before, &mut report).await?;
    drop(whole);
    crash_point::reached("run.shredded");
    Ok(report)
}

/// How a try to destroy keys ended.
#[derive(PartialEq, Eq)]
enum Tried {
    Done,
    /// A hold was placed meanwhile: nothing was destroyed, and what it does not cover can be tried again.
    HoldCame,
}

/// Destroys the keys of the runs that nothing keeps back. A hold that came since they were found ready takes out those that
/// it covers, and those that share cells with them; the others go on.
async fn destroy(
    installation: &Installation,
    ground: &Ground<'_>,
    ready: &mut Vec<RunRow>,
    report: &mut ShredReport,
    tries: u32,
) -> Result<Tried> {
    // In this order: a hold that comes after this reading is unknown to the change of generation, which then stops.
    let active = installation.control.read().await?.holds(true).await?;
    let holds: Vec<String> = active.into_iter().map(|hold| hold.id).collect();
    for run in std::mem::take(ready) {
        match why_waiting(installation, ground, &run).await? {
            Some(wait) => report.wait(&run, wait),
            None => ready.push(run),
        }
    }
    spare_needed(installation).await?;
    let runs: Vec<String> = ready.iter().map(|run| run.id.clone()).collect();
    let mut tx = installation.control.read().await?;
    let dying = tx.dying_keys(&runs).await?;
    let preserved = preserved_cells(&mut tx, &runs, &dying).await?;
    drop(tx);
    if dying.is_empty() {
        return Ok(Tried::Done);
    }
    let object = format!("keys-{}", dying.count());
    installation.log_operation("key.shred", &object, "intent").await?;
    let order =
        keyring::ShredOrder { fence: installation.fence(), dying: &dying, preserved: &preserved, holds: &holds };
    let changed =
        keyring::shred(&installation.keyring, &installation.control, &order, installation.clock.as_ref()).await;
    match changed {
        Ok(shredded) => {
            report.generation = Some(shredded.generation);
            report.keys = dying.count() as u64;
            report.pinned = preserved.len() as u64;
            installation.log_operation("key.shred", &format!("generation-{}", shredded.generation), "success").await?;
            Ok(Tried::Done)
        }
        Err(keyring::KeyringError::Held(_)) if tries < HOLD_TRIES => {
            installation.log_operation("key.shred", &object, "failure").await?;
            Ok(Tried::HoldCame)
        }
        Err(error) => Err(error.into()),
    }
}

/// Ends what a dead or timed-out snapshot left behind: it would hold up every shred. Only the holder of the work lease takes
/// snapshots, one at a time, and never beside a shred.
async fn settle_leftovers(installation: &Installation) -> Result<()> {
    if installation.control.read().await?.running_snapshots().await? == 0 {
        return Ok(());
    }
    let repository = installation.backup()?.repository.clone();
    settle_interrupted(&installation.control, repository.as_ref(), installation.clock.now()).await
}

/// How many rows of each waiting run still open. It is noted with the run: they may stop doing so with keys that another run marked,
/// and the process die before it can say with which generation.
async fn note_readable_rows(installation: &Installation) -> Result<HashMap<String, i64>> {
    let mut rows = HashMap::new();
    let mut tx = installation.control.begin().await?;
    for mut run in tx.runs(Some("shred-pending")).await? {
        let count = tx.rows_still_readable(&run.id, run.verified_snapshot.unwrap_or(i64::MAX)).await?;
        let mut body = RunBody::of(&run)?;
        // What is noted already is from before a change whose outcome is not entered yet.
        if body.opened.is_none() {
            body.opened = Some(count);
            body.put(&mut run)?;
            tx.step_run(&run, "shred-pending").await?;
        }
        rows.insert(run.id, count);
    }
    tx.commit().await?;
    Ok(rows)
}

/// The runs whose keys may die now; the others go into the report with what they wait for.
async fn find_ready(installation: &Installation, ground: &Ground<'_>, report: &mut ShredReport) -> Result<Vec<RunRow>> {
    let mut tx = installation.control.read().await?;
    let candidates = tx.runs(Some("shred-pending")).await?;
    drop(tx);
    let mut barriers = HashMap::new();
    let mut ready = Vec::new();
    for run in candidates {
        if RunBody::of(&run)?.irrevocable_at.is_some() {
            // Its keys died already; it only waits for the date.
            continue;
        }
        let wait = match why_waiting(installation, ground, &run).await? {
            None => behind_barrier(installation, ground, &mut barriers, &run).await?,
            wait => wait,
        };
        match wait {
            Some(wait) => report.wait(&run, wait),
            None => ready.push(run),
        }
    }
    let faults = barriers.into_values().flatten().filter_map(|barrier: Barrier| barrier.opened.err());
    report.unread.extend(faults);
    Ok(ready)
}

/// Enters the result of finished generation changes into all runs that wait for them.
///
/// A run gets the generation in which its own keys died, or in which rows of it stopped opening. One with nothing sealed
/// anywhere is shredded without any.
async fn settle_runs(
    installation: &Installation,
    ground: &Ground<'_>,
    before: &HashMap<String, i64>,
    report: &mut ShredReport,
) -> Result<()> {
    let now = installation.clock.now();
    let mut finished = Vec::new();
    let mut tx = installation.control.begin().await?;
    if tx.open_rekey().await?.is_some() {
        return Err(TaskError::Inconsistent(
            "a generation change is not finished yet, so nothing may be called shredded".to_owned(),
        ));
    }
    let (generation, _) = tx.tree_root().await?.ok_or(keyring::KeyringError::NoTree)?;
    for mut run in tx.runs(Some("shred-pending")).await? {
        if report.waiting.iter().any(|(waiting, _)| *waiting == run.id) {
            continue;
        }
        let barrier = run.verified_snapshot.unwrap_or(i64::MAX);
        let readable = tx.rows_still_readable(&run.id, barrier).await?;
        let mut body = RunBody::of(&run)?;
        let noted = body.opened.replace(readable).max(body.pending.as_ref().map(|(rows, _)| *rows));
        let earlier = before.get(&run.id).copied().max(noted).unwrap_or(0);
        if readable < earlier || (run.generation.is_none() && tx.keys_died_with(&run.id).await?) {
            run.generation = Some(generation);
        }
        let irrevocable_at = match run.generation {
            Some(generation) if readable == 0 => tx.irrevocable_before(generation).await?,
            _ => None,
        };
        body.irrevocable_at = irrevocable_at;
        if let Some(at) = irrevocable_at {
            body.pending = None;
            report.wait(&run, Wait::irrevocable(at));
        } else if readable == 0 {
            body.pending = None;
            run.shredded_at = Some(now);
            "shredded".clone_into(&mut run.state);
            report.shredded.push(run.id.clone());
            finished.push(run.clone());
        } else {
            let until = pending_until(ground, &mut tx, &run, barrier).await?;
            body.pending = Some((readable, until.clone()));
            report.pending.push((run.id.clone(), readable, until));
        }
        body.put(&mut run)?;
        tx.step_run(&run, "shred-pending").await?;
    }
    tx.commit().await?;
    for run in finished {
        // Again, for a crash may have come between the end of the run and the first time.
        forget_markers(ground, &run).await?;
    }
    Ok(())
}

async fn why_waiting(installation: &Installation, ground: &Ground<'_>, run: &RunRow) -> Result<Option<Wait>> {
    let now = installation.clock.now();
    if let Some(until) = run.grace_until.filter(|until| *until > now) {
        let what = format!("grace lasts until {}", until.format("%Y-%m-%d %H:%M"));
        return Ok(Some(Wait::new(WaitCode::Grace, what).until(until)));
    }
    if let Some(wait) = held(installation, run).await? {
        return Ok(Some(wait));
    }
    if let Some(wait) = others_waiting(installation, run).await? {
        return Ok(Some(wait));
    }
    if let Some(wait) = unregistered(installation, ground, run).await? {
        return Ok(Some(wait));
    }
    if installation.control.read().await?.running_snapshots().await? > 0 {
        return Ok(Some(Wait::new(WaitCode::SnapshotRunning, "a snapshot is being taken")));
    }
    Ok(None)
}

/// Rows of other runs that lie in the cells which die with this one share its fate: they must be neither held, nor in grace,
/// nor in the middle of being erased.
async fn others_waiting(installation: &Installation, run: &RunRow) -> Result<Option<Wait>> {
    let now = installation.clock.now();
    let mut tx = installation.control.read().await?;
    let mut others = Vec::new();
    for id in tx.runs_in_dying_cells(&run.id).await? {
        others.extend(tx.run(&id).await?);
    }
    drop(tx);
    for other in others {
        let wait = |what: &str| Wait::new(WaitCode::OtherRun, what);
        let found = match other.state.as_str() {
            "shredded" | "final" | "undone" => continue,
            "approved" | "deleted" | "verified" | "undoing" => Some(wait("is not finished")),
            _ => match other.grace_until.filter(|until| *until > now) {
                Some(until) => {
                    Some(wait(&format!("is in grace until {}", until.format("%Y-%m-%d %H:%M"))).until(until))
                }
                None => held(installation, &other).await?,
            },
        };
        if let Some(wait) = found {
            let what = format!("rows of run {} lie in the same cells: {}", other.id, wait.what);
            return Ok(Some(Wait { what, ..wait }));
        }
    }
    Ok(None)
}

/// Where nothing is registered any more, nothing was erased and no snapshot shows what lives there.
async fn unregistered(installation: &Installation, ground: &Ground<'_>, run: &RunRow) -> Result<Option<Wait>> {
    let known = &installation.config.registry.stores;
    let collections = installation.control.read().await?.collections_of_dying_cells(&run.id).await?;
    let lost = collections.into_iter().find(|(store, name)| match ground.site(store) {
        Some(site) => site.model.collection(name).is_none(),
        None => !known.iter().any(|spec| spec.name == *store),
    });
    Ok(lost.map(|(store, name)| {
        let what = format!(
            "rows of {store}.{name} were sealed under its keys, but that is not registered any more; register it again"
        );
        Wait::new(WaitCode::Unregistered, what)
    }))
}

/// The barrier: a snapshot of every store that the dying cells reach, begun after the erasure, opens completely and holds nothing in the cells that a
/// run lets die, but for those that a pin preserves.
async fn behind_barrier(
    installation: &Installation,
    ground: &Ground<'_>,
    barriers: &mut HashMap<String, Option<Barrier>>,
    run: &RunRow,
) -> Result<Option<Wait>> {
    let runs = std::slice::from_ref(&run.id);
    let mut tx = installation.control.read().await?;
    let dying = tx.dying_cell_keys(runs).await?;
    let preserved = preserved_cells(&mut tx, runs, &dying).await?;
    let stores = barrier_stores(&mut tx, installation, run).await?;
    drop(tx);
    if !dying.has_cells() {
        return Ok(None);
    }
    let pinned: CellNames = preserved.into_iter().map(|(_, cell)| (cell.subject, cell.bucket)).collect();
    let after = run.verified_snapshot.unwrap_or(i64::MAX);
    for spec in stores {
        if !barriers.contains_key(&spec.name) {
            barriers.insert(spec.name.clone(), read_barrier(installation, ground, &spec.name).await?);
        }
        let Some(Some(barrier)) = barriers.get(&spec.name).map(|found| found.as_ref().filter(|b| b.number > after))
        else {
            return Ok(Some(no_snapshot_since(&spec.name)));
        };
        let opened = match &barrier.opened {
            Ok(opened) => opened,
            Err(fault) => return Ok(Some(Wait::new(WaitCode::SnapshotUnreadable, fault.clone()))),
        };
        if opened.forbid(&dying, &pinned) {
            let what = format!(
                "living rows of store {} are sealed under keys that are to die; a later snapshot must hold them elsewhere",
                spec.name
            );
            return Ok(Some(Wait::new(WaitCode::LivingRows, what)));
        }
    }
    Ok(None)
}

/// The backed-up stores in which rows were sealed in cells that lose their keys with a run: in any other nothing can live in them,
/// and no snapshot of it is waited for.
///
/// # Errors
/// When the control database fails.
pub async fn barrier_stores<'i>(
    tx: &mut Tx,
    installation: &'i Installation,
    run: &RunRow,
) -> Result<Vec<&'i StoreSpec>> {
    let touched = tx.collections_of_dying_cells(&run.id).await?;
    let backed_up = installation.config.registry.stores.iter().filter(|spec| spec.backup == BackupMode::Bucket);
    Ok(backed_up.filter(|spec| touched.iter().any(|(store, _)| *store == spec.name)).collect())
}

/// Cells that lose a factor now and must survive: their pins take their secrets over in the same generation change.
async fn preserved_cells(tx: &mut Tx, runs: &[String], dying: &DyingKeys) -> Result<Vec<(PinRow, CellRow)>> {
    let unfilled = tx.unfilled_pins(runs).await?;
    Ok(unfilled.into_iter().filter(|(_, cell)| dying.takes(cell.subject, cell.bucket, None)).collect())
}

/// The hold that covers erased rows of a run, if any.
pub(super) async fn held(installation: &Installation, run: &RunRow) -> Result<Option<Wait>> {
    let mut tx = installation.control.read().await?;
    let holds = tx.holds(true).await?;
    if holds.is_empty() {
        return Ok(None);
    }
    let request = match run.request {
        Some(number) => tx.request(number).await?,
        None => None,
    };
    let mut touched: HashSet<(String, String)> =
        tx.done_blocks(&run.id).await?.into_iter().map(|block| (block.store, block.collection)).collect();
    touched.extend(tx.collections_of_dying_cells(&run.id).await?);
    for hold in holds {
        let covers = match hold.scope.as_str() {
            "subject" => match hold.subject {
                Some(subject) => {
                    let by_request = request.as_ref().is_some_and(|request| request.lookup == subject);
                    by_request || subject_loses_rows(&mut tx, &subject, run).await?
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
            return Ok(Some(Wait::new(WaitCode::Hold, format!("hold {} covers it until it is released", hold.id))));
        }
    }
    Ok(None)
}

/// Whether a run lets a cell of a subject die. Cells that a pin preserves hold only rows that stay.
async fn subject_loses_rows(tx: &mut Tx, lookup: &[u8; 32], run: &RunRow) -> Result<bool> {
    let runs = std::slice::from_ref(&run.id);
    if tx.kills_pin_of(runs, lookup).await? {
        return Ok(true);
    }
    let dying = tx.dying_cell_keys(runs).await?;
    let kept: HashSet<i64> = preserved_cells(tx, runs, &dying).await?.into_iter().map(|(_, cell)| cell.id).collect();
    // A subject whose request was carried out has a slot until that is destroyed: rows erased from it may be held too.
    for slot in tx.known_subject_slots(lookup).await? {
        let cells = tx.cells_of_subject(slot).await?;
        if cells.iter().any(|cell| dying.takes(cell.subject, cell.bucket, None) && !kept.contains(&cell.id)) {
            return Ok(true);
        }
    }
    Ok(false)
}
