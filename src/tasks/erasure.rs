//! `retention` and the carrying-out of every plan: preconditions, batches, read-back, fate of the keys.

use serde::{Deserialize, Serialize};

use crate::control::{ChunkCounts, PlanRow, RunRow};
use crate::crash_point;
use crate::erase::Ground;
use crate::erase::batch::{RunKeys, run_chunk};
use crate::erase::fate::seal_fate;
use crate::erase::planner::{StoredPlan, make_plan};
use crate::erase::read_back::{ReadBack, read_back};
use crate::erase::survey::Target;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::cell::pseudonym;
use crate::keys::sealed::open_column;
use crate::plan::{PlanBody, Subject};
use crate::policy::registry::BackupMode;
use crate::random::uuid7;

use super::{Result, TaskError};

/// The public part of a run, kept as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunBody {
    /// Rows that were due.
    pub due: i64,
    /// Rows absent from the live stores.
    pub erased: i64,
    /// Rows stripped to their minimum.
    pub stripped: i64,
    /// Rows that stay.
    pub kept: i64,
    /// Rows that could not be erased.
    pub failed: i64,
    /// Rows that the read-back looked for.
    pub looked_for: u64,
    /// Of them found all the same.
    pub residual: u64,
    /// What the stores say about their own files, by store.
    pub physical: Vec<(String, bool, String)>,
    /// Stores that were left out, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Problems, without values.
    pub notes: Vec<String>,
    /// The subject's pseudonym for certificates, hex, of a request.
    pub subject_ref: Option<String>,
    /// Rows that still open in backups after the last shred, and until when.
    pub pending: Option<(i64, String)>,
    /// The state that the newest certificate tells of.
    #[serde(default)]
    pub certified: Option<String>,
}

impl RunBody {
    /// Reads it.
    pub fn of(run: &RunRow) -> Result<Self> {
        serde_json::from_str(&run.body)
            .map_err(|_| TaskError::Inconsistent(format!("the record of run {} is damaged", run.id)))
    }

    fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|_| TaskError::Inconsistent("a run's record cannot be written".to_owned()))
    }

    /// Stores it in a run.
    pub fn put(&self, run: &mut RunRow) -> Result<()> {
        run.body = self.text()?;
        Ok(())
    }
}

/// Plans retention over all reachable stores.
///
/// # Errors
/// When nothing can be read, a cap is exceeded, or keys or control database fail.
pub async fn plan_retention(installation: &Installation) -> Result<StoredPlan> {
    let ground = installation.ground()?;
    let plan = make_plan(&ground, &Target::Retention, None).await?;
    crash_point::reached("plan.stored");
    Ok(plan)
}

/// Whether a retention run has something to do although no row is due: the period of a bucket has ended whose rows went
/// earlier, so that its key can die now.
///
/// # Errors
/// When the control database fails or a policy cannot be computed.
pub async fn has_due_buckets(installation: &Installation) -> Result<bool> {
    let mut tx = installation.control.read().await?;
    Ok(crate::erase::fate::has_due_buckets(&installation.ground()?, &mut tx).await?)
}

/// Finds a stored plan by a prefix of its hash.
///
/// # Errors
/// When there is none, or more than one.
pub async fn find_plan(installation: &Installation, prefix: &str) -> Result<PlanRow> {
    let mut tx = installation.control.read().await?;
    let mut found = if prefix.len() < 6 { Vec::new() } else { tx.plans_by_hash(prefix).await? };
    match (found.pop(), found.pop()) {
        (Some(plan), None) => Ok(plan),
        (Some(_), Some(_)) => Err(TaskError::Unknown {
            what: format!("several plans begin with {prefix}"),
            advice: "give more digits of the hash".to_owned(),
        }),
        (None, _) => Err(TaskError::Unknown {
            what: format!("there is no plan {prefix}"),
            advice: "make one with `wangchuan plan`; give at least six digits of its hash".to_owned(),
        }),
    }
}

/// Carries a plan out, or goes on with it, until its rows are gone, read back, and its keys marked.
///
/// # Errors
/// Refused when something changed since the plan or destruction must not happen now; otherwise what failed. The run can be
/// gone on with afterwards by [`resume_runs`].
pub async fn execute(installation: &Installation, plan: &PlanRow) -> Result<RunRow> {
    if plan.state != "planned" {
        return Err(TaskError::refused(
            format!("plan {} is {} already", &plan.hash[..12], plan.state),
            "make a new one with `wangchuan plan`",
        ));
    }
    installation.may_destroy().await?;
    check_no_snapshot(installation).await?;
    check_unchanged(installation, plan).await?;
    check_backups(installation).await?;
    let now = installation.clock.now();
    let body = plan_body(plan)?;
    let record = RunBody { due: body.due() as i64, skipped: body.skipped, ..RunBody::default() };
    let run = RunRow {
        id: uuid7(now, installation.random.as_ref())?,
        kind: plan.kind.clone(),
        plan: Some(plan.id.clone()),
        request: plan.request,
        state: "approved".to_owned(),
        begun_at: now,
        ended_at: None,
        verified_at: None,
        verified_snapshot: None,
        grace_until: None,
        generation: None,
        shredded_at: None,
        body: record.text()?,
    };
    installation.log_operation("run.begin", &run.id, "intent").await?;
    let mut tx = installation.control.begin().await?;
    tx.add_run(&run).await?;
    tx.set_plan_state(&plan.id, "executed").await?;
    if let Some(number) = run.request
        && !tx.step_request(number, "received", "running", Some(&run.id), None).await?
    {
        return Err(TaskError::refused(
            format!(
                "request {number} does not wait to be carried out: it was withdrawn, or another plan was run for it"
            ),
            "see `wangchuan request show`",
        ));
    }
    tx.commit().await?;
    crash_point::reached("run.added");
    drive(installation, run).await
}

/// Goes on with every run that was interrupted.
///
/// # Errors
/// The first failure.
pub async fn resume_runs(installation: &Installation) -> Result<Vec<RunRow>> {
    let mut waiting = Vec::new();
    let mut tx = installation.control.read().await?;
    for state in ["approved", "deleted", "verified"] {
        waiting.extend(tx.runs(Some(state)).await?);
    }
    drop(tx);
    let mut done = Vec::new();
    for run in waiting {
        installation.may_destroy().await?;
        check_no_snapshot(installation).await?;
        done.push(drive(installation, run).await?);
    }
    Ok(done)
}

async fn drive(installation: &Installation, mut run: RunRow) -> Result<RunRow> {
    let ground = installation.ground()?;
    let target = target_of(installation, &run).await?;
    if run.state == "approved" {
        delete(installation, &ground, &mut run, &target).await?;
        crash_point::reached("run.deleted");
    }
    if run.state == "deleted" {
        verify(installation, &ground, &mut run).await?;
        crash_point::reached("run.verified");
    }
    if run.state == "verified" {
        mark_keys(installation, &ground, &mut run, &target).await?;
        crash_point::reached("run.shred-pending");
    }
    Ok(run)
}

/// What the run was planned for; a request's subject is opened from its seal.
async fn target_of(installation: &Installation, run: &RunRow) -> Result<Target> {
    let Some(number) = run.request else { return Ok(Target::Retention) };
    Ok(Target::Request(request_subject(installation, number).await?))
}

/// Opens the subject id of a request.
///
/// # Errors
/// When there is no such request, or its key is gone because it is finished.
pub async fn request_subject(installation: &Installation, number: i64) -> Result<Subject> {
    let mut tx = installation.control.begin().await?;
    let request = tx.request(number).await?.ok_or_else(|| TaskError::Unknown {
        what: format!("there is no request {number}"),
        advice: "see `wangchuan request list`".to_owned(),
    })?;
    let key = installation.keyring.find_work_key(&mut tx, Purpose::Request, &number.to_string()).await?;
    let key = key.ok_or_else(|| {
        TaskError::refused(
            format!("request {number} is finished; whom it was about is forgotten"),
            "nothing is left to do",
        )
    })?;
    tx.commit().await?;
    let plain = open_column(&key, &[b"request", &number.to_be_bytes()], &request.sealed)
        .map_err(crate::erase::EraseError::from)?;
    Ok(Subject::new(String::from_utf8_lossy(&plain).into_owned()))
}

fn plan_body(plan: &PlanRow) -> Result<PlanBody> {
    serde_json::from_str(&plan.body).map_err(|_| TaskError::Inconsistent(format!("plan {} is damaged", plan.id)))
}

/// A changed policy, schema or released hold voids a plan.
async fn check_unchanged(installation: &Installation, plan: &PlanRow) -> Result<()> {
    let ground = installation.ground()?;
    let body = plan_body(plan)?;
    let mut changed = Vec::new();
    if body.policy_digest != ground.policy_digest {
        changed.push("the policies or the registry changed".to_owned());
    }
    for (store, digest) in &body.schema_digest {
        match ground.site(store) {
            Some(site) if site.model.schema_digest == *digest => {}
            Some(_) => changed.push(format!("the schema of store {store} changed")),
            None => changed.push(format!("store {store} is not reachable now")),
        }
    }
    let mut tx = installation.control.begin().await?;
    let active: Vec<String> = tx.holds(true).await?.into_iter().map(|hold| hold.id).collect();
    if body.holds.iter().any(|hold| !active.contains(hold)) {
        changed.push("a hold was released".to_owned());
    }
    if changed.is_empty() {
        return Ok(());
    }
    tx.set_plan_state(&plan.id, "void").await?;
    tx.retire_work(Purpose::Plan.name(), &plan.id).await?;
    tx.commit().await?;
    Err(TaskError::refused(
        format!("since plan {} was made, {}; it is void", &plan.hash[..12], changed.join(" and ")),
        "make and look at a new one with `wangchuan plan`",
    ))
}

/// A snapshot that began before an erasure still sees the erased rows: it must not seal them under keys that outlive it.
async fn check_no_snapshot(installation: &Installation) -> Result<()> {
    if installation.control.read().await?.running_snapshots().await? == 0 {
        return Ok(());
    }
    Err(TaskError::refused("a snapshot is being taken; nothing is erased meanwhile", "try again when it is done"))
}

/// A store that is to be backed up must have a good snapshot before anything is destroyed in it.
async fn check_backups(installation: &Installation) -> Result<()> {
    let mut tx = installation.control.read().await?;
    for spec in &installation.config.registry.stores {
        if spec.backup == BackupMode::Bucket && tx.snapshots(Some(&spec.name)).await?.is_empty() {
            return Err(TaskError::refused(
                format!("store {} has no snapshot yet; nothing is destroyed before one is good", spec.name),
                "run `wangchuan backup run` first, or set `backup = \"none\"` for the store and declare its copies",
            ));
        }
    }
    Ok(())
}

async fn delete(installation: &Installation, ground: &Ground<'_>, run: &mut RunRow, target: &Target) -> Result<()> {
    let plan = run.plan.clone().unwrap_or_default();
    let keys = RunKeys::open(ground, &plan).await?;
    let mut tx = installation.control.read().await?;
    let chunks = tx.chunks(&plan).await?;
    drop(tx);
    let mut totals = ChunkCounts::default();
    let mut body = RunBody::of(run)?;
    for chunk in &chunks {
        let counts = match (chunk.verdict.as_str(), chunk.state.as_str()) {
            ("keep", _) => ChunkCounts { kept: chunk.rows, ..ChunkCounts::default() },
            (_, "done") => chunk.counts,
            _ => {
                installation.may_destroy().await?;
                let outcome = run_chunk(ground, run, installation.token, chunk, &keys, target).await?;
                body.notes.extend(outcome.note);
                outcome.counts
            }
        };
        totals.erased += counts.erased;
        totals.stripped += counts.stripped;
        totals.kept += counts.kept;
        totals.failed += counts.failed;
    }
    body.erased = totals.erased;
    body.stripped = totals.stripped;
    body.kept = totals.kept;
    body.failed = totals.failed;
    body.notes.sort();
    body.notes.dedup();
    if body.due != body.erased + body.stripped + body.kept + body.failed {
        return Err(TaskError::Inconsistent(format!(
            "run {}: {} rows were due, but {} erased + {} stripped + {} kept + {} failed are accounted for",
            run.id, body.due, body.erased, body.stripped, body.kept, body.failed
        )));
    }
    for site in ground.sites {
        let state = site.store.settle().await?;
        body.physical.push((site.model.spec.name.clone(), state.clean, state.note));
    }
    body.put(run)?;
    step(installation, run, "approved", "deleted").await
}

async fn verify(installation: &Installation, ground: &Ground<'_>, run: &mut RunRow) -> Result<()> {
    let keys = RunKeys::open(ground, run.plan.as_deref().unwrap_or_default()).await?;
    let found: ReadBack = read_back(ground, run, &keys).await?;
    let mut body = RunBody::of(run)?;
    body.looked_for = found.looked_for + found.stripped;
    body.residual = found.present + found.unstripped;
    body.put(run)?;
    let now = installation.clock.now();
    if !found.is_clean() {
        run.ended_at = Some(now);
        step(installation, run, "deleted", "failed").await?;
        return Err(TaskError::Inconsistent(format!(
            "run {}: {} rows that were deleted are there again; something puts them back (a trigger, a replication, an application)",
            run.id, body.residual
        )));
    }
    run.verified_at = Some(now);
    step(installation, run, "deleted", "verified").await
}

/// One transaction: keys marked, pins made, grace fixed, lists retired, state entered.
async fn mark_keys(installation: &Installation, ground: &Ground<'_>, run: &mut RunRow, target: &Target) -> Result<()> {
    let plan = run.plan.clone().unwrap_or_default();
    let keys = RunKeys::open(ground, &plan).await?;
    let mut body = RunBody::of(run)?;
    let mut tx = installation.control.begin().await?;
    seal_fate(ground, &mut tx, run, &keys, target).await?;
    // Only a snapshot begun after this transaction knows which cells are left: an earlier one is no barrier.
    run.verified_snapshot = Some(tx.snapshot_head().await?);
    if let Target::Request(subject) = target {
        let key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
        body.subject_ref = Some(hex::encode(pseudonym(&key, "certificate", &[subject.dangerous_text().as_bytes()])));
    }
    let touched: Vec<(String, String)> = tx
        .chunks(&plan)
        .await?
        .into_iter()
        .filter(|chunk| chunk.verdict != "keep")
        .map(|chunk| (chunk.store, chunk.collection))
        .collect();
    tx.retire_work(Purpose::Plan.name(), &plan).await?;
    if let Some(number) = run.request {
        tx.retire_work(Purpose::Request.name(), &number.to_string()).await?;
        let state = match (body.due, body.kept + body.stripped, body.failed + body.skipped.len() as i64) {
            (0, _, 0) => "nothing-found",
            (_, 0, 0) => "done",
            (_, _, 0) => "partly-kept",
            _ => "failed",
        };
        tx.step_request(number, "running", state, Some(&run.id), Some(installation.clock.now())).await?;
    }
    run.grace_until = run.verified_at.map(|verified| verified + chrono::TimeDelta::seconds(grace_of(ground, &touched)));
    run.ended_at = Some(installation.clock.now());
    body.put(run)?;
    "shred-pending".clone_into(&mut run.state);
    if !tx.step_run(run, "verified").await? {
        return Err(TaskError::Inconsistent(format!("run {} is not in state verified any more", run.id)));
    }
    tx.commit().await?;
    installation.log_operation("run.end", &run.id, "success").await?;
    forget_markers(ground, run).await
}

/// Removes a finished run's markers from all stores.
///
/// # Errors
/// When a store fails; it is done again when the run's keys are destroyed.
pub async fn forget_markers(ground: &Ground<'_>, run: &RunRow) -> Result<()> {
    for site in ground.sites {
        site.store.forget_markers(&run.id).await?;
    }
    Ok(())
}

/// The longest grace of the policies that govern what was touched; 72 hours for what none governs.
fn grace_of(ground: &Ground<'_>, touched: &[(String, String)]) -> i64 {
    let default = crate::policy::calendar::Grace::default().seconds;
    touched
        .iter()
        .filter_map(|(store, collection)| {
            let collection = ground.site(store)?.model.collection(collection)?.1;
            Some(collection.governed.as_ref().map_or(default, |governed| governed.policy.grace.seconds))
        })
        .max()
        .unwrap_or(0) as i64
}

async fn step(installation: &Installation, run: &mut RunRow, from: &str, to: &str) -> Result<()> {
    to.clone_into(&mut run.state);
    let mut tx = installation.control.begin().await?;
    if !tx.step_run(run, from).await? {
        return Err(TaskError::Inconsistent(format!("run {} is not in state {from} any more", run.id)));
    }
    tx.commit().await?;
    Ok(())
}
