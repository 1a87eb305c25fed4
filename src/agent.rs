//! The agent: runs declared jobs at their times, one at a time, and catches up what was missed.
//!
//! The waker only wakes; what is due is computed from the calendar and from what the control database says was done.
//! A claim (job, scheduled time) is unique there, which gives catch-up, no overlap and one runner among many.

mod back_up;
mod backups;
mod filing;
mod going_on;
mod verified;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use thiserror::Error;

use crate::control::ControlError;
use crate::erase::planner::StoredPlan;
use crate::installation::Installation;
use crate::plan::PlanBody;
use crate::policy::registry::BackupMode;
use crate::schedule::waker::{Waker, WakerError};
use crate::schedule::{BackupKind, ClockState, Due, Job, Missed, Task, VerifyTarget, agenda};
use crate::tasks::approval::{plan_of_request, waiting_plan};
use crate::tasks::certify::{certify_or_wait, roll_up_due};
use crate::tasks::drill::{picks_of, remove_leftovers, run_picked};
use crate::tasks::erasure::{Resumed, RunBody, drop_plan, execute, has_due_buckets, plan_retention, resume_runs};
use crate::tasks::orders::{open_run, paused_run};
use crate::tasks::outbox::file_due;
use crate::tasks::outcome::{note_outcome, note_retention_well};
use crate::tasks::outside::{OutsideReport, destroy_outside_keys};
use crate::tasks::request::reopen_waiting;
use crate::tasks::settle::{FollowUp, follow_up};
use crate::tasks::shred::{barrier_stores, shred_due};
use crate::tasks::stamps::stamp_due;
use crate::tasks::{Result, TaskError};
use back_up::back_up;
use filing::{Before, outbox};
use going_on::GoingOn;
use verified::Verified;

pub use backups::{Coverage, verify_backups, verify_part};

/// Why the agent does not run.
#[derive(Debug, Error)]
pub enum AgentError {
    /// A task that everything depends on failed.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The control database failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The waker failed.
    #[error("the scheduler could not be started")]
    Waker(#[from] WakerError),
}

/// How a piece of work ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// What it was.
    pub work: String,
    /// `done`, `partial`, `refused`, `failed`, or `stopped` together with the agent.
    pub state: &'static str,
    /// One line, without personal data.
    pub summary: String,
    /// Of what waits: why and until when, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

impl Done {
    fn good(work: &str, summary: String) -> Self {
        Self { work: work.to_owned(), state: "done", summary, details: Vec::new() }
    }

    /// With why a certificate waits, if one does.
    fn with_certificate(mut self, waiting: Option<String>) -> Self {
        if let Some(reason) = waiting {
            self.state = "partial";
            self.summary = format!("{}; {reason}", self.summary);
        }
        self
    }

    fn of(work: &str, result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self {
            work: work.to_owned(),
            state: match error {
                TaskError::Refused { .. } | TaskError::Stopping => "refused",
                TaskError::Paused { .. } => "partial",
                _ => "failed",
            },
            summary: error.with_causes(),
            details: Vec::new(),
        })
    }
}

/// Does a task once, and files what it certified.
pub async fn run_task(installation: &mut Installation, task: &Task) -> Done {
    let before = Before::task(installation, task).await;
    let done = do_task(installation, task).await;
    before.file_issued(installation).await;
    done
}

async fn do_task(installation: &mut Installation, task: &Task) -> Done {
    let name = task.name();
    let done = Done::of(name, try_task(installation, task).await);
    note(installation, std::slice::from_ref(&done)).await;
    done
}

/// Keeps how pieces of work of one name ended, for `status`: the first that was not done, if any.
async fn note(installation: &Installation, ended: &[Done]) {
    let Some(done) = ended.iter().find(|done| done.state != "done").or(ended.first()) else { return };
    if let Err(error) = note_outcome(installation, &done.work, done.state, &done.summary).await {
        tracing::warn!(error = %error, task = %done.work, "how a task ended could not be noted");
    }
}

async fn try_task(installation: &mut Installation, task: &Task) -> Result<Done> {
    installation.refresh().await?;
    let result = match task {
        Task::Backup { stores, kind } => back_up(installation, stores, *kind).await,
        Task::Retention { .. } => retention(installation).await,
        Task::Requests => requests(installation).await,
        Task::Shred => shred(installation).await,
        Task::Outbox => outbox(installation).await,
        Task::RollUp => roll_up(installation).await,
        Task::Drill { stores } => drill(installation, stores).await,
        Task::Prune { stores } => backups::prune_backups(installation, stores).await,
        Task::Verify { targets, sample } => verify(installation, targets, *sample).await,
    };
    if matches!(task, Task::Retention { .. } | Task::Requests | Task::Shred | Task::Drill { .. } | Task::Prune { .. }) {
        seal_changes(installation).await;
    }
    result
}

/// Small changes (holds, requests, ledger) reach the second place together, behind a task. What must be there earlier is sealed
/// where it is made.
async fn seal_changes(installation: &Installation) {
    if let Err(error) = installation.keyring.seal_state(&installation.control, installation.clock.as_ref()).await {
        tracing::warn!(error = %error, "the newest changes are not in the second place yet");
    }
}

fn chosen(installation: &Installation, stores: &[String]) -> Vec<String> {
    let all = installation.config.registry.stores.iter().filter(|store| store.backup == BackupMode::Bucket);
    all.map(|store| store.name.clone()).filter(|name| stores.is_empty() || stores.contains(name)).collect()
}

async fn retention(installation: &Installation) -> Result<Done> {
    // Its rows would be planned twice.
    if let Some(run) = paused_run(installation, "retention").await? {
        return Err(TaskError::Paused { run });
    }
    if let Some(run) = open_run(installation, "retention").await? {
        let summary = format!("run {run} is not finished; nothing is planned until it is");
        return Ok(Done { state: "partial", ..Done::good("retention", summary) });
    }
    // What somebody was asked to agree to is not replaced under their eyes by another plan.
    let plan = match waiting_plan(installation, "retention", None).await? {
        Some((row, body, _)) => StoredPlan { row, body },
        None => plan_retention(installation).await?,
    };
    let skipped: Vec<&str> = plan.body.skipped.iter().map(|(store, _)| store.as_str()).collect();
    if plan.body.to_do() == 0
        && !is_newly_skipped(installation, &skipped).await?
        && !has_due_buckets(installation, &plan.body).await?
    {
        drop_plan(installation, &plan.row).await?;
        note_skipped(installation, &skipped).await?;
        if skipped.is_empty() {
            note_retention_well(installation).await?;
        }
        return Ok(nothing_to_do(&plan.body));
    }
    let run = execute(installation, &plan.row).await?;
    let body = RunBody::of(&run)?;
    let (_, waiting) = certify_or_wait(installation).await?;
    note_skipped(installation, &skipped).await?;
    let state = state_of(&body);
    let mut summary =
        format!("{} due, {} erased, {} kept, {} failed", body.due, body.erased, body.kept + body.stripped, body.failed);
    if body.anonymised > 0 {
        summary = format!("{summary}, {} anonymised", body.anonymised);
    }
    for (store, why) in &body.skipped {
        summary = format!("{summary}; store {store} was left out: {why}");
    }
    Ok(Done { state, ..Done::good("retention", summary) }.with_certificate(waiting))
}

/// How a task ended that made this run.
fn state_of(body: &RunBody) -> &'static str {
    match body {
        body if body.is_failed() => "failed",
        body if body.failed > 0 || !body.skipped.is_empty() || body.stopped > 0 => "partial",
        _ => "done",
    }
}

/// What the last retention could not reach, so that only a new absence makes a run, and a certificate, of its own.
const SKIPPED: &str = "retention_skipped";

async fn is_newly_skipped(installation: &Installation, skipped: &[&str]) -> Result<bool> {
    let known = installation.control.read().await?.meta(SKIPPED).await?.unwrap_or_default();
    Ok(skipped.iter().any(|store| !known.split(',').any(|known| known == *store)))
}

async fn note_skipped(installation: &Installation, skipped: &[&str]) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    tx.set_meta(SKIPPED, &skipped.join(",")).await?;
    Ok(tx.commit().await?)
}

/// The report of a retention that leaves no run and no certificate behind: nothing was to be erased, stripped or marked.
fn nothing_to_do(plan: &PlanBody) -> Done {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, rows) in plan.collections.iter().flat_map(|counts| &counts.keep) {
        *reasons.entry(reason).or_default() += rows;
    }
    let kept = reasons.iter().map(|(reason, rows)| format!("{rows} rows are kept: {reason}"));
    let skipped = plan.skipped.iter().map(|(store, why)| format!("store {store} was not reached: {why}"));
    let summary = match plan.due() {
        0 => "nothing is due".to_owned(),
        due => format!("{due} due, 0 erased, {due} kept, 0 failed"),
    };
    let state = if plan.skipped.is_empty() { "done" } else { "partial" };
    Done { state, details: kept.chain(skipped).collect(), ..Done::good("retention", summary) }
}

async fn requests(installation: &Installation) -> Result<Done> {
    reopen_waiting(installation).await?;
    let mut tx = installation.control.read().await?;
    let waiting = tx.requests(Some("received")).await?;
    drop(tx);
    let (mut done, mut failed) = (0, Vec::new());
    for request in waiting {
        let outcome = async {
            let plan = plan_of_request(installation, request.number).await?;
            execute(installation, &plan).await
        };
        match outcome.await {
            Ok(run) => {
                let body = RunBody::of(&run)?;
                if state_of(&body) == "done" {
                    done += 1;
                } else {
                    let (erased, lost, left_out) = (body.erased, body.failed, body.skipped.len());
                    let counts = format!("{erased} rows erased, {lost} failed, {left_out} stores left out");
                    failed.push(format!("request {}: {counts}", request.number));
                }
            }
            Err(TaskError::Stopping) => return Err(TaskError::Stopping),
            Err(error) => failed.push(format!("request {}: {error}", request.number)),
        }
    }
    let (_, waiting) = certify_or_wait(installation).await?;
    let state = if failed.is_empty() { "done" } else { "partial" };
    let mut summary = format!("{done} carried out");
    if !failed.is_empty() {
        summary = format!("{summary}; {}", failed.join("; "));
    }
    Ok(Done { state, ..Done::good("requests", summary) }.with_certificate(waiting))
}

async fn shred(installation: &Installation) -> Result<Done> {
    // First, so that what names a destroyed key dies in the same generation change.
    let outside = destroy_outside_keys(installation).await;
    let report = shred_due(installation).await?;
    let outside = outside?;
    let FollowUp { waiting: certificate, ended, settled, doubt, .. } = follow_up(installation).await?;
    let (shredded, waiting) = (report.shredded.len(), report.waiting.len());
    let mut summary = format!("{} keys destroyed, {shredded} runs shredded, {waiting} waiting", report.keys);
    if !ended.is_empty() {
        summary = format!("{summary}, {} final", ended.len());
    }
    if !settled.is_empty() {
        summary = format!("{summary}, {} settled in the files of their stores", settled.len());
    }
    if let Some(doubt) = &doubt {
        summary = format!("{summary}; {doubt}");
    }
    if !report.unread.is_empty() {
        summary = format!("{summary}; {}", report.unread.join("; "));
    }
    let doomed = &report.doomed;
    let called_off = doomed.called_off.iter().map(|(generation, at)| {
        format!(
            "somebody called off the destruction of root {generation}; it was begun again and is irrevocable at {at}"
        )
    });
    let unknown = doomed.unknown.iter().map(|(generation, why)| format!("root {generation} waits to be gone: {why}"));
    let roots: Vec<String> = called_off.chain(unknown).collect();
    if outside != OutsideReport::default() {
        let (gone, held_up) = (outside.destroyed.len(), outside.waiting.len());
        summary = format!("{summary}; {gone} outside keys destroyed, {held_up} waiting");
    }
    let is_held_up = outside.waiting.iter().any(|(_, _, why)| why.code.needs_somebody());
    let is_well = report.unread.is_empty()
        && doubt.is_none()
        && !is_held_up
        && doomed.called_off.is_empty()
        && doomed.unknown.is_empty();
    let state = if is_well { "done" } else { "partial" };
    let outside = outside.waiting.iter();
    let outside = outside.map(|(id, name, why)| format!("outside key {name} ({id}) waits: {}", why.what));
    let waiting = report.waiting.iter().map(|(run, reason)| format!("run {run} waits: {reason}"));
    let pending = report.pending.iter().map(|(run, rows, until)| match until.as_str() {
        "with its chain" => format!("run {run}: {rows} rows still open in backups, until their chain dies"),
        date => format!("run {run}: {rows} rows still open in backups, until {date}"),
    });
    let details = roots.into_iter().chain(waiting).chain(pending).chain(outside).collect();
    Ok(Done { state, details, ..Done::good("shred", summary) }.with_certificate(certificate))
}

/// First everything is certified and filed that can be, so that what the roll-up misses is really missing.
async fn roll_up(installation: &Installation) -> Result<Done> {
    let (waiting, fault) = match certify_or_wait(installation).await {
        Ok((_, waiting)) => (waiting, None),
        Err(TaskError::Stopping) => return Err(TaskError::Stopping),
        // What cannot be certified is what a roll-up is to show.
        Err(error) => (None, Some(error.to_string())),
    };
    let mut doubt = file_due(installation, true).await?.doubt;
    let mut summary = "there is one of today".to_owned();
    if let Some(id) = roll_up_due(installation).await? {
        let filed = file_due(installation, true).await?;
        let is_taken = filed.receipted.contains(&id) || filed.acknowledged.contains(&id);
        summary = format!("certificate {id}, {}", if is_taken { "filed" } else { "not filed yet" });
        doubt = doubt.or(filed.doubt);
    }
    // Nothing waits for these; what is missing, the job of the outbox and `status` tell.
    stamp_due(installation, false).await?;
    if let Some(doubt) = doubt {
        return Ok(Done { state: "failed", ..Done::good("roll-up", doubt) });
    }
    let state = if fault.is_some() { "partial" } else { "done" };
    if let Some(fault) = fault {
        summary = format!("{summary}; a certificate could not be issued: {fault}");
    }
    Ok(Done { state, ..Done::good("roll-up", summary) }.with_certificate(waiting))
}

async fn drill(installation: &Installation, stores: &[String]) -> Result<Done> {
    let mut lines = Vec::new();
    let mut passed = true;
    for store in chosen(installation, stores) {
        for pick in picks_of(installation, &store).await? {
            let picked = pick.picked.code();
            // One snapshot that cannot be drilled does not spare the others.
            match run_picked(installation, pick).await {
                Ok(record) => {
                    passed &= record.result == "passed";
                    lines.push(match record.returned() {
                        0 => format!("{store} {picked}: {}", record.result),
                        returned => {
                            format!("{store} {picked}: ERASED DATA CAME BACK ({returned}), drill {}", record.drill)
                        }
                    });
                }
                Err(TaskError::Stopping) => return Err(TaskError::Stopping),
                Err(error) => {
                    passed = false;
                    lines.push(format!("{store} {picked} was not drilled: {error}"));
                }
            }
            installation.renew_lease().await?;
        }
    }
    let state = if passed { "done" } else { "failed" };
    Ok(Done { state, ..Done::good("drill", lines.join("; ")) })
}

async fn verify(installation: &Installation, targets: &[VerifyTarget], sample: Option<u8>) -> Result<Done> {
    let mut found = Verified::default();
    // One that fails keeps none of the others from being done.
    if targets.contains(&VerifyTarget::Backups) {
        let looked = found.verify_bucket(installation, sample).await;
        found.note_failed("the bucket", looked)?;
    }
    if targets.contains(&VerifyTarget::Keys) {
        let looked = found.verify_keys(installation).await;
        found.note_failed("the keys", looked)?;
    }
    if targets.contains(&VerifyTarget::Erased) {
        let looked = found.look_for_erased(installation).await;
        found.note_failed("what was erased", looked)?;
    }
    Ok(found.ended())
}

/// Does everything that is pending or due now, in the order of a cycle, and ends.
///
/// # Errors
/// When the control database fails; a failing task is in the list instead.
pub async fn once(installation: &mut Installation) -> Result<Vec<Done>> {
    let mut all = Vec::new();
    all.extend(drill_leftovers(installation).await);
    let resumed = resume_runs(installation).await;
    all.extend(resumed_now(installation, resumed).await);
    if lacks_snapshot(installation).await? {
        all.push(run_task(installation, &Task::Backup { stores: Vec::new(), kind: BackupKind::Incremental }).await);
    }
    all.push(run_task(installation, &Task::Retention { policies: Vec::new() }).await);
    all.push(run_task(installation, &Task::Requests).await);
    if waits_for_barrier(installation).await? {
        all.push(run_task(installation, &Task::Backup { stores: Vec::new(), kind: BackupKind::Incremental }).await);
    }
    all.push(run_task(installation, &Task::Shred).await);
    all.push(run_task(installation, &Task::Outbox).await);
    if installation.stop_switch().is_asked() && all.iter().any(|done| done.state != "done") {
        return Err(TaskError::Stopping);
    }
    Ok(all)
}

/// Removes what interrupted drills left; what cannot be removed is reported.
async fn drill_leftovers(installation: &Installation) -> Option<Done> {
    match remove_leftovers(installation).await {
        Ok(left) if left.is_empty() => None,
        Ok(left) => Some(Done { state: "failed", ..Done::good("drill", left.join("; ")) }),
        Err(error) => Some(Done::of("drill", Err(error))),
    }
}

/// The report of what was gone on with, kept for `status`.
async fn resumed_now(installation: &Installation, resumed: Result<Resumed>) -> Vec<Done> {
    let all = resumed.map_or_else(|error| vec![Done::of("resume", Err(error))], resume_report);
    if all.is_empty() {
        note(installation, &[Done::good("resume", String::new())]).await;
    }
    note(installation, &all).await;
    all
}

fn resume_report(resumed: Resumed) -> Vec<Done> {
    let mut all = Vec::new();
    if !resumed.done.is_empty() {
        all.push(Done::good("resume", format!("{} interrupted runs finished", resumed.done.len())));
    }
    all.extend(resumed.failed.into_iter().map(|(_, error)| Done::of("resume", Err(error))));
    all
}

async fn lacks_snapshot(installation: &Installation) -> Result<bool> {
    let mut tx = installation.control.read().await?;
    for store in chosen(installation, &[]) {
        if tx.snapshots(Some(&store)).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn waits_for_barrier(installation: &Installation) -> Result<bool> {
    let now = installation.clock.now();
    let mut tx = installation.control.read().await?;
    for run in tx.runs(Some("shred-pending")).await? {
        if run.grace_until.is_some_and(|until| until > now) || run.generation.is_some() {
            continue;
        }
        let barrier = run.verified_snapshot.unwrap_or(i64::MAX);
        for spec in barrier_stores(&mut tx, installation, &run).await? {
            if !tx.snapshots(Some(&spec.name)).await?.iter().any(|snapshot| snapshot.number > barrier) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Runs until the installation's switch says stop. Finishes the batch in hand; what was begun goes on at the next start.
///
/// # Errors
/// When the control database fails or the lease is lost.
pub async fn serve(
    installation: &mut Installation,
    jobs: &[Job],
    said: &mut (dyn FnMut(&Done) + Send),
) -> Result<(), AgentError> {
    let stop = Arc::clone(installation.stop_switch());
    let started = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    let again = jobs.iter().filter(|job| job.missed == Missed::RunOnce).map(|job| job.name.as_str());
    tx.end_killed_jobs(&again.collect::<Vec<_>>(), started).await?;
    tx.commit().await?;
    drill_leftovers(installation).await.iter().for_each(&mut *said);
    let resumed = tokio::select! {
        biased;
        resumed = resume_runs(installation) => resumed,
        () = stop.ready() => return Ok(()),
    };
    resumed_now(installation, resumed).await.iter().for_each(&mut *said);
    let (waker, mut wakes) = Waker::start(1).await?;
    let mut renewed = started;
    let mut going_on = GoingOn::since(started);
    loop {
        tokio::select! {
            () = stop.asked() => break,
            wake = wakes.recv() => if wake.is_none() { break },
        }
        let now = installation.clock.now();
        for due in due_now(installation, jobs, started, now).await? {
            if stop.is_asked() {
                break;
            }
            run_due(installation, jobs, &due, said).await?;
        }
        tokio::select! {
            biased;
            done = going_on.look(installation) => done.iter().for_each(&mut *said),
            () = stop.ready() => break,
        }
        if now - renewed >= chrono::TimeDelta::minutes(1) {
            installation.renew_lease().await?;
            renewed = now;
        }
    }
    waker.stop().await?;
    Ok(())
}

/// What came of a job that ended with the agent.
const STOPPED: &str = "stopped with the agent; the next start goes on";

async fn due_now(
    installation: &Installation,
    jobs: &[Job],
    started: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<Due>, AgentError> {
    let mut tx = installation.control.read().await?;
    let last: HashMap<String, DateTime<Utc>> = tx.last_scheduled().await?;
    drop(tx);
    let pairs: Vec<(&Job, DateTime<Utc>)> =
        jobs.iter().map(|job| (job, last.get(&job.name).copied().unwrap_or(started))).collect();
    // Destructive tasks check the clock themselves before every batch; here it only decides what is due.
    Ok(agenda(pairs, ClockState::Trusted, now).due)
}

async fn run_due(
    installation: &mut Installation,
    jobs: &[Job],
    due: &Due,
    said: &mut (dyn FnMut(&Done) + Send),
) -> Result<(), AgentError> {
    let Some(job) = jobs.iter().find(|job| job.name == due.job) else { return Ok(()) };
    let mut tx = installation.control.begin().await?;
    let claimed = tx.claim_job(&job.name, due.scheduled_for, installation.clock.now()).await?;
    tx.commit().await?;
    if !claimed {
        return Ok(());
    }
    let stop = Arc::clone(installation.stop_switch());
    let before = Before::task(installation, &job.task).await;
    let outcome = tokio::select! {
        biased;
        outcome = stop.within(job.timeout, do_task(installation, &job.task)) => outcome,
        // What is in hand is finished first; anything else can be dropped where it is.
        () = stop.ready() => None,
    };
    let ended = |state, summary: &str| Done { state, ..Done::good(&job.name, summary.to_owned()) };
    let done = match outcome {
        Some(done) if done.state == "done" || !stop.is_asked() => done,
        _ if stop.is_asked() => ended("stopped", STOPPED),
        _ => {
            let late = ended("failed", "out of time");
            note(installation, &[Done { work: job.task.name().to_owned(), ..late.clone() }]).await;
            late
        }
    };
    if matches!(job.task, Task::Drill { .. }) {
        // A drill that ran out of time is dropped where it is.
        drill_leftovers(installation).await.iter().for_each(&mut *said);
    }
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    tx.end_job(&job.name, due.scheduled_for, done.state, &done.summary, now).await?;
    tx.commit().await?;
    tracing::info!(job = %job.name, state = done.state, "{}", done.summary);
    said(&done);
    // Behind the job's own time: a service that is slow is no fault of the job.
    before.file_issued(installation).await;
    Ok(())
}
