//! Interrupted runs: each goes on by itself, so that one that cannot does not hold up the others.

use crate::control::RunRow;
use crate::installation::Installation;
use crate::keyring::Purpose;

use super::super::undo::go_on;
use super::super::{Result, TaskError};
use super::checks::check_no_snapshot;
use super::{RunBody, drive, finish};

/// What became of interrupted runs.
#[derive(Debug, Default)]
pub struct Resumed {
    /// Runs that are done now.
    pub done: Vec<RunRow>,
    /// Runs that are not, by id, with the reason. Those that never can be are in state `failed` now.
    pub failed: Vec<(String, TaskError)>,
}

/// Goes on with every run that was interrupted.
///
/// # Errors
/// When the runs cannot be listed, or the process is to stop; what stops a single run is in the result.
pub async fn resume_runs(installation: &Installation) -> Result<Resumed> {
    let mut waiting = Vec::new();
    let mut tx = installation.control.read().await?;
    for state in ["approved", "deleted", "verified"] {
        waiting.extend(tx.runs(Some(state)).await?);
    }
    let mut ended = tx.runs(Some("shred-pending")).await?;
    ended.extend(tx.runs(Some("failed")).await?);
    let undoing = tx.runs(Some("undoing")).await?;
    drop(tx);
    let mut resumed = Resumed::default();
    for run in waiting {
        if is_paused(installation, &run).await? {
            continue;
        }
        let id = run.id.clone();
        match resume(installation, run).await {
            Ok(run) => resumed.done.push(run),
            Err(TaskError::Stopping) => return Err(TaskError::Stopping),
            Err(TaskError::Paused { .. }) => {}
            Err(error) => resumed.failed.push((id, error)),
        }
    }
    for run in undoing {
        let id = run.id.clone();
        if let Err(error) = go_on(installation, run).await {
            resumed.failed.push((id, error));
        }
    }
    for mut run in ended {
        if !RunBody::of(&run)?.closed
            && let Err(error) = finish(installation, &mut run).await
        {
            resumed.failed.push((run.id, error));
        }
    }
    Ok(resumed)
}

/// Whether somebody paused a run whose batches are not done.
async fn is_paused(installation: &Installation, run: &RunRow) -> Result<bool> {
    let order = installation.control.read().await?.order(&run.id).await?;
    Ok(run.state == "approved" && order.is_some_and(|order| order.wish == "pause"))
}

/// Goes on with one interrupted run.
///
/// # Errors
/// [`TaskError::Paused`] when somebody paused it, and what stops it.
pub async fn resume_run(installation: &Installation, run: RunRow) -> Result<RunRow> {
    if is_paused(installation, &run).await? {
        return Err(TaskError::Paused { run: run.id });
    }
    resume(installation, run).await
}

async fn resume(installation: &Installation, run: RunRow) -> Result<RunRow> {
    if let Some(what) = lost_key(installation, &run).await? {
        let note = format!("it can never go on: {what}");
        let id = run.id.clone();
        give_up(installation, run, &note).await?;
        return Err(TaskError::Inconsistent(format!("run {id} failed: {note}")));
    }
    installation.may_destroy().await?;
    check_no_snapshot(installation).await?;
    drive(installation, run, None).await
}

/// Says which key that a run needs is retired, if one is.
async fn lost_key(installation: &Installation, run: &RunRow) -> Result<Option<&'static str>> {
    let mut tx = installation.control.begin().await?;
    let plan = run.plan.clone().unwrap_or_default();
    if installation.keyring.find_work_key(&mut tx, Purpose::Plan, &plan).await?.is_none() {
        return Ok(Some("the key of its plan is retired"));
    }
    if let Some(number) = run.request
        && installation.keyring.find_work_key(&mut tx, Purpose::Request, &number.to_string()).await?.is_none()
    {
        return Ok(Some("its request is closed, and whom it was about is forgotten"));
    }
    Ok(None)
}

/// Ends a run as failed: what was recorded as done stays done, everything else counts as failed.
async fn give_up(installation: &Installation, mut run: RunRow, note: &str) -> Result<()> {
    let plan = run.plan.clone().unwrap_or_default();
    let now = installation.clock.now();
    let mut body = RunBody::of(&run)?;
    let mut tx = installation.control.begin().await?;
    tx.abandon_chunks(&plan, note).await?;
    body.recount(&tx.chunks(&plan).await?);
    body.notes.push(note.to_owned());
    body.closed = true;
    body.put(&mut run)?;
    let from = std::mem::replace(&mut run.state, "failed".to_owned());
    run.ended_at = Some(now);
    if !tx.step_run(&run, &from).await? {
        return Err(TaskError::Inconsistent(format!("run {} is not in state {from} any more", run.id)));
    }
    tx.retire_work(Purpose::Plan.name(), &plan).await?;
    if let Some(number) = run.request {
        // Whom it is about may be known still: then it is carried out anew.
        let is_known = tx.work_slot(Purpose::Request.name(), &number.to_string()).await?.is_some();
        let (state, closed) = if is_known { ("received", None) } else { ("failed", Some(now)) };
        tx.step_request(number, "running", state, Some(&run.id), closed).await?;
    }
    tx.commit().await?;
    installation.log_operation("run.end", &run.id, "failure").await
}
