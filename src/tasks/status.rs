//! `status`: what is due, overdue or failing, from the control database alone, so that it answers at once.

mod filing;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Serialize;

use crate::clock::Clock;
use crate::control::{Control, DoomedRoot, DrillRow, RunRow, Tx};
use crate::erase::waits::Waits;
use crate::installation::{BulkAlert, WORK_LEASE};
use crate::keyring::second_place::Memory;
use crate::policy::registry::BackupMode;
use crate::stores::PhysicalStage;

use super::Result;
use super::erasure::RunBody;
use super::finality::FinalitySummary;
use super::media::{MediumWait, WaitingMedium, waiting_media};
use super::orders::Wish;
use super::outcome::{retention_well, troubles};
use super::outside::{OutsideWait, list_outside_keys};
use super::request::WAITING;
use super::settle::{is_settling, settle_by};
use super::stamps::stamp_status;
use super::witnesses::look_at_witnesses;
use filing::look_at_certificates;

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overdue {
    /// A code for scripts.
    pub code: &'static str,
    /// One sentence, without personal data.
    pub what: String,
    /// Since when, or when it was due.
    pub since: Option<DateTime<Utc>>,
}

/// An outside key that opens nothing any more and is deleted at a date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoomedOutsideKey {
    /// The id of its registration.
    pub id: String,
    /// The entry of the configuration.
    pub name: String,
    /// When nobody can call that off any more.
    pub irrevocable_at: DateTime<Utc>,
    /// How often somebody called it off, or moved its date.
    pub called_off: u32,
}

/// The state of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Status {
    /// The pid of the process that works, if any.
    pub working: Option<i64>,
    /// Since when all destruction is held.
    pub held_since: Option<String>,
    /// The newest snapshot of every store: name, time, rows.
    pub snapshots: Vec<(String, Option<DateTime<Utc>>, i64)>,
    /// Requests by state.
    pub requests: Vec<(String, u64)>,
    /// Runs by state.
    pub runs: Vec<(String, u64)>,
    /// How many runs are final, and what the shredded ones wait for.
    pub finality: FinalitySummary,
    /// Active holds.
    pub holds: u64,
    /// Certificates: issued, receipted, waiting, quarantined.
    pub certificates: [u64; 4],
    /// The last drill: when, and whether it passed.
    pub last_drill: Option<(DateTime<Utc>, bool)>,
    /// The newest state record in the second place: number, key generation, and when its image was taken.
    pub second_place: Option<(u64, i64, Option<String>)>,
    /// Runs whose keys are destroyed, but irrevocably only at a date.
    pub irrevocable_later: u64,
    /// Old roots that are destroyed at a date.
    pub doomed: Vec<DoomedRoot>,
    /// Outside keys that are deleted at a date.
    pub doomed_outside_keys: Vec<DoomedOutsideKey>,
    /// Records of destroyed and lost media that wait for something.
    pub waiting_media: Vec<WaitingMedium>,
    /// What needs a person; exit code 5 when there is any.
    pub overdue: Vec<Overdue>,
}

/// A snapshot older than this is overdue.
const SNAPSHOT_AGE: TimeDelta = TimeDelta::hours(50);
/// A drill older than a quarter and a bit is overdue.
const DRILL_AGE: TimeDelta = TimeDelta::days(95);
/// Keys that should have died so long ago are overdue.
const SHRED_AGE: TimeDelta = TimeDelta::hours(26);
/// A key service that promised to delete a key at a date may be so much later. As `ScheduleKeyDeletion` of AWS says, a day.
const DELETION_SLACK: TimeDelta = TimeDelta::hours(26);
/// A certificate that waits so long is overdue, for its filing as for its time stamp.
const FILING_AGE: TimeDelta = TimeDelta::hours(24);

/// Reads the state.
///
/// # Errors
/// When the control database cannot be read.
pub async fn status(control: &Control, config: &crate::config::Configuration, clock: &dyn Clock) -> Result<Status> {
    let now = clock.now();
    let mut status = Status::default();
    let mut tx = control.read().await?;
    status.working = tx.lease_holder(WORK_LEASE, now).await?.map(|holder| holder.pid);
    status.held_since = tx.meta("agent_hold").await?;
    status.holds = tx.holds(true).await?.len() as u64;
    let memory = Memory::read(&mut tx).await?;
    status.second_place = memory.head.map(|head| (head.number, head.generation, memory.at));
    look_at_snapshots(&mut tx, config, now, &mut status).await?;
    look_at_work(&mut tx, config, now, &mut status).await?;
    look_at_doomed_roots(&mut tx, now, &mut status).await?;
    look_at_certificates(&mut tx, &config.audit.service, now, &mut status).await?;
    for trouble in
        look_at_witnesses(&mut tx, &config.audit, now).await?.into_iter().filter_map(std::result::Result::err)
    {
        status.add(trouble.code, trouble.what, trouble.since);
    }
    look_at_time_stamps(&mut tx, config, now, &mut status).await?;
    look_at_drills(&mut tx, now, &mut status).await?;
    look_at_outside_keys(&mut tx, now, &mut status).await?;
    look_at_media(&mut tx, now, &mut status).await?;
    for alert in BulkAlert::of_last(&mut tx, config.alerts.shown_days, now).await? {
        let BulkAlert { operation, object, operator, rows, at } = alert;
        let what = format!("outside of working hours {operator} worked on {rows} records: {operation} ({object})");
        status.add("off-hours-bulk", what, Some(at));
    }
    Ok(status)
}

impl Status {
    fn add(&mut self, code: &'static str, what: String, since: Option<DateTime<Utc>>) {
        self.overdue.push(Overdue { code, what, since });
    }
}

async fn look_at_snapshots(
    tx: &mut Tx,
    config: &crate::config::Configuration,
    now: DateTime<Utc>,
    status: &mut Status,
) -> Result<()> {
    for store in config.registry.stores.iter().filter(|store| store.backup == BackupMode::Bucket) {
        let newest = tx.snapshots(Some(&store.name)).await?.pop();
        let begun = newest.as_ref().map(|row| row.begun_at);
        match begun {
            None => status.add("no-snapshot", format!("store {} has no snapshot", store.name), None),
            Some(at) if now - at > SNAPSHOT_AGE => {
                status.add("old-snapshot", format!("the newest snapshot of store {} is old", store.name), begun);
            }
            Some(_) => {}
        }
        status.snapshots.push((store.name.clone(), begun, newest.map_or(0, |row| row.living)));
    }
    Ok(())
}

async fn look_at_work(
    tx: &mut Tx,
    config: &crate::config::Configuration,
    now: DateTime<Utc>,
    status: &mut Status,
) -> Result<()> {
    let mut subjects = HashMap::new();
    for request in tx.requests(None).await? {
        count(&mut status.requests, &request.state);
        let is_tried = request.state == WAITING && Waits::of(request.waits.as_deref()).again.is_some();
        if (is_tried || matches!(request.state.as_str(), "received" | "running")) && request.due_at < now {
            let what = format!("request {} is past its date", request.number);
            status.add("request-overdue", what, Some(request.due_at));
        }
        subjects.insert(request.number, request.lookup);
    }
    let runs = tx.runs(None).await?;
    status.finality = FinalitySummary::of(&runs)?;
    for run in &runs {
        count(&mut status.runs, &run.state);
        status.irrevocable_later += u64::from(RunBody::of(run)?.irrevocable_at.is_some());
        let shred_due = run
            .grace_until
            .filter(|until| run.state == "shred-pending" && run.generation.is_none() && now - *until > SHRED_AGE);
        if shred_due.is_some() {
            status.add("shred-overdue", format!("the keys of run {} should be destroyed", run.id), shred_due);
        }
        look_at_rest(run, now, status)?;
        look_at_files(run, config, now, status)?;
        if run.state == "approved"
            && let Some(order) = tx.order(&run.id).await?.filter(|order| order.wish == Wish::Pause.name())
        {
            status.add("run-paused", format!("run {} was paused by {}", run.id, order.asked_by), Some(order.asked_at));
        }
    }
    let well = retention_well(tx).await?;
    for (run, body) in not_made_good(&runs, &subjects, well)? {
        add_failure(status, run, &body);
    }
    for (task, trouble) in troubles(tx).await? {
        let what = format!("{task} ended {}: {}", trouble.state, trouble.summary);
        status.add("task-failed", what, Some(trouble.since));
    }
    Ok(())
}

/// Rows of a run that still open in backups behind the day on which their bucket was to die.
fn look_at_rest(run: &RunRow, now: DateTime<Utc>, status: &mut Status) -> Result<()> {
    if run.state != "shred-pending" {
        return Ok(());
    }
    let Some((rows, until)) = RunBody::of(run)?.pending else { return Ok(()) };
    let day = until.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0)).map(|at| at.and_utc());
    // The day itself is for the retention that marks the bucket, the next snapshot and the shred.
    if let Some(day) = day.filter(|day| now - *day > TimeDelta::days(1) + SHRED_AGE) {
        let what = format!("{rows} erased rows of run {} still open in backups, although their period is over", run.id);
        status.add("shred-overdue", what, Some(day));
    }
    Ok(())
}

/// Stores whose files still hold rows of a run behind their deadline, because of something that should have passed.
fn look_at_files(
    run: &RunRow,
    config: &crate::config::Configuration,
    now: DateTime<Utc>,
    status: &mut Status,
) -> Result<()> {
    if !is_settling(run) {
        return Ok(());
    }
    for files in RunBody::of(run)?.physical.iter().filter(|files| files.stage() == PhysicalStage::Pending) {
        let spec = config.registry.stores.iter().find(|spec| spec.name == files.store);
        let Some(due) = spec.and_then(|spec| settle_by(files.since, spec.files.settle_within)) else { continue };
        if now > due {
            let what = format!(
                "the files of store {} still hold deleted rows of run {}, for something that should have passed: \
                 `wangchuan run show` names it",
                files.store, run.id
            );
            status.add("residue-overdue", what, Some(due));
        }
    }
    Ok(())
}

async fn look_at_doomed_roots(tx: &mut Tx, now: DateTime<Utc>, status: &mut Status) -> Result<()> {
    for root in tx.doomed_roots().await? {
        if root.gone_at.is_some() {
            continue;
        }
        let (generation, at) = (root.generation, root.irrevocable_at);
        if root.called_off > 0 {
            let what = format!(
                "somebody called off the destruction of the root of generation {generation}; it was begun again"
            );
            status.add("destruction-called-off", what, Some(at));
        }
        if now - at > DELETION_SLACK {
            status.add("root-not-gone", format!("the root of generation {generation} should be gone"), Some(at));
        }
        status.doomed.push(root);
    }
    Ok(())
}

/// Runs that left something undone which nothing later made good: for retention a later run, or a look that found nothing left;
/// for a request a later one of the same person.
fn not_made_good<'r, S: Eq + Hash>(
    runs: &'r [RunRow],
    subjects: &HashMap<i64, S>,
    well: Option<DateTime<Utc>>,
) -> Result<Vec<(&'r RunRow, RunBody)>> {
    let mut open: Vec<(Option<&S>, &RunRow, RunBody)> = Vec::new();
    for run in runs {
        if matches!(run.state.as_str(), "approved" | "deleted" | "verified" | "undoing" | "undone") {
            continue;
        }
        let body = RunBody::of(run)?;
        let about = run.request.and_then(|number| subjects.get(&number));
        open.retain(|(known, _, _)| *known != about);
        if run.state == "failed" || body.failed > 0 || !body.skipped.is_empty() {
            open.push((about, run, body));
        }
    }
    let is_well = |run: &RunRow| run.request.is_none() && well.is_some_and(|well| well > run.begun_at);
    Ok(open.into_iter().filter(|(_, run, _)| !is_well(run)).map(|(_, run, body)| (run, body)).collect())
}

fn add_failure(status: &mut Status, run: &RunRow, body: &RunBody) {
    let of = run.request.map_or_else(String::new, |number| format!(" of request {number}"));
    let counts = format!("{} rows failed, {} erased", body.failed, body.erased);
    if run.state == "failed" {
        status.add("run-failed", format!("run {}{of} failed: {counts}", run.id), run.ended_at);
    } else if body.failed > 0 {
        status.add("rows-failed", format!("run {}{of}: {counts}", run.id), run.ended_at);
    }
    for (store, why) in &body.skipped {
        status.add("store-skipped", format!("run {}{of} left out store {store}: {why}", run.id), run.ended_at);
    }
}

/// Certificates that an authority was to stamp with the time, and did not.
async fn look_at_time_stamps(
    tx: &mut Tx,
    config: &crate::config::Configuration,
    now: DateTime<Utc>,
    status: &mut Status,
) -> Result<()> {
    let Some(stamps) = stamp_status(config, tx).await? else { return Ok(()) };
    let reason = stamps.circuit.reason.unwrap_or_else(|| "not asked yet".to_owned());
    if stamps.circuit.alarm && !stamps.missing.is_empty() {
        status.add("stamp-alarm", format!("certificates get no time stamps: {reason}"), stamps.circuit.since);
    }
    let dates = || stamps.missing.iter().map(|missing| missing.issued_at);
    // One without a readable date waits for somebody, however old it is.
    let late: Vec<_> = dates().filter(|issued| issued.is_none_or(|issued| now - issued > FILING_AGE)).collect();
    if !late.is_empty() {
        let what = format!("{} certificates have no time stamp: {reason}", late.len());
        status.add("stamp-overdue", what, late.into_iter().flatten().min());
    }
    Ok(())
}

/// What drills found last of each snapshot that is still there, and stores whose last one is long ago.
async fn look_at_drills(tx: &mut Tx, now: DateTime<Utc>, status: &mut Status) -> Result<()> {
    let drills = tx.drills().await?;
    let kept: BTreeSet<String> = tx.snapshots(None).await?.into_iter().map(|row| row.id).collect();
    status.last_drill = drills.last().map(|drill| (drill.at, drill.passed));
    for (at, drill) in drills.iter().enumerate() {
        let is_last = |other: &&DrillRow| other.snapshot == drill.snapshot;
        // Of a snapshot that is gone, the next good drill of its store is the answer.
        let answers = |other: &&DrillRow| other.store == drill.store && other.passed && !kept.contains(&drill.snapshot);
        let later = &drills[at + 1..];
        if drill.passed || later.iter().any(|other| is_last(&other) || answers(&other)) {
            continue;
        }
        let (code, found) = match drill.returned {
            0 => ("drill-failed", "failed"),
            _ => ("drill-erased-returned", "found that erased data came back"),
        };
        let what = format!("restore drill {} of store {} {found} (snapshot {})", drill.id, drill.store, drill.snapshot);
        status.add(code, what, Some(drill.at));
    }
    let stores: Vec<String> = status.snapshots.iter().filter(|of| of.1.is_some()).map(|of| of.0.clone()).collect();
    for store in stores {
        match drills.iter().rev().find(|drill| drill.store == store).map(|drill| drill.at) {
            Some(at) if now - at <= DRILL_AGE => {}
            Some(at) => {
                let what = format!("the last restore drill of store {store} is more than a quarter old");
                status.add("drill-overdue", what, Some(at));
            }
            None => status.add("no-drill", format!("store {store} was never drilled"), None),
        }
    }
    Ok(())
}

async fn look_at_outside_keys(tx: &mut Tx, now: DateTime<Utc>, status: &mut Status) -> Result<()> {
    for key in list_outside_keys(tx).await? {
        if key.is_overdue(now, SHRED_AGE) {
            let what = format!("outside key {} ({}) should be destroyed", key.row.name, key.row.id);
            status.add("outside-key-overdue", what, key.irrevocable_at().or(key.row.due_at).or(key.row.ended_at));
        }
        let Some(irrevocable_at) = key.irrevocable_at() else { continue };
        if let Some(wait) = key.body.wait.as_ref().filter(|wait| wait.code == OutsideWait::Needed) {
            let what = format!("outside key {} ({}): {}", key.row.name, key.row.id, wait.what);
            status.add("outside-key-needed", what, Some(irrevocable_at));
        }
        let (id, name, called_off) = (key.row.id, key.row.name, key.body.called_off);
        if called_off > 0 {
            let what = format!("somebody called off the deletion of outside key {name} ({id}); it was ordered again");
            status.add("outside-key-called-off", what, Some(irrevocable_at));
        }
        status.doomed_outside_keys.push(DoomedOutsideKey { id, name, irrevocable_at, called_off });
    }
    Ok(())
}

/// Records of media that wait, and those that need a person or should have ended.
async fn look_at_media(tx: &mut Tx, now: DateTime<Utc>, status: &mut Status) -> Result<()> {
    status.waiting_media = waiting_media(tx).await?;
    for medium in status.waiting_media.clone() {
        let WaitingMedium { name, id, open_chains: open, .. } = &medium;
        if !medium.is_overdue(now, SHRED_AGE, status.holds > 0) {
            continue;
        }
        let (code, what) = match medium.wait {
            MediumWait::Certificate => {
                ("medium-certificate-overdue", format!("medium {name} ({id}) has no certificate yet"))
            }
            MediumWait::Decision => (
                "medium-open",
                format!(
                    "snapshots on lost medium {name} ({id}) open, and nobody ordered that their keys die (chains: {open})"
                ),
            ),
            MediumWait::Keys => (
                "medium-shred-overdue",
                format!(
                    "snapshots on lost medium {name} ({id}) still open, though their keys are to die (chains: {open})"
                ),
            ),
            MediumWait::Look => continue,
        };
        status.add(code, what, Some(medium.until.unwrap_or(medium.since)));
    }
    Ok(())
}

fn count(counts: &mut Vec<(String, u64)>, state: &str) {
    match counts.iter_mut().find(|(known, _)| known == state) {
        Some((_, count)) => *count += 1,
        None => counts.push((state.to_owned(), 1)),
    }
}
