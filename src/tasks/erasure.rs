//! `retention` and the carrying-out of every plan: preconditions, batches, read-back, fate of the keys.

use std::collections::BTreeSet;

use crate::control::{ChunkRow, LedgerKind, PlanRow, RunRow, Tx};
use crate::crash_point;
use crate::erase::Ground;
use crate::erase::batch::RunKeys;
use crate::erase::chunk::place_of;
use crate::erase::crowds::{rows_in_small_groups, smallest_groups};
use crate::erase::fate::seal_fate;
use crate::erase::planner::{PlanUse, StoredPlan, is_intact, make_plan};
use crate::erase::read_back::read_back;
use crate::erase::survey::Target;
use crate::erase::waits::{ASKED_AGAIN, Rest, Waits, waits_of};
use crate::installation::{Installation, Operation};
use crate::keyring::Purpose;
use crate::keys::cell::pseudonym;
use crate::keys::sealed::open_column;
use crate::plan::{PlanBody, Subject};
use crate::random::uuid7;

use super::request::WAITING;
use super::settle::settle_after;
use super::{Result, TaskError};

mod batches;
mod body;
mod changes;
mod checks;
mod resume;
mod rights;

pub use body::{RunBody, SmallestGroup, StoreFiles};
pub(super) use changes::values::open_values;
pub use changes::values::{RowValues, TableValues};
pub use checks::changes_since;
pub use resume::{Resumed, resume_run, resume_runs};

/// Plans retention over all reachable stores.
///
/// # Errors
/// When nothing can be read, or keys or control database fail.
pub async fn plan_retention(installation: &Installation) -> Result<StoredPlan> {
    let ground = installation.ground()?;
    let plan = make_plan(&ground, &Target::Retention, PlanUse::Retention).await?;
    crash_point::reached("plan.stored");
    Ok(plan)
}

/// Plans retention only to show what it would do: what is stored of it is void at once, and plans that wait for somebody stay.
///
/// # Errors
/// As [`plan_retention`].
pub async fn preview_retention(installation: &Installation) -> Result<StoredPlan> {
    Ok(make_plan(&installation.ground()?, &Target::Retention, PlanUse::Look).await?)
}

/// Whether a retention run has something to do although no row is due: the period of a bucket has ended whose rows went
/// earlier, so that its key can die now.
///
/// # Errors
/// When the control database fails or a policy cannot be computed.
pub async fn has_due_buckets(installation: &Installation, plan: &PlanBody) -> Result<bool> {
    let mut tx = installation.control.read().await?;
    Ok(crate::erase::fate::has_due_buckets(&installation.ground()?, &mut tx, plan).await?)
}

/// Voids a plan that will not be carried out; what it lists is forgotten with the next shred.
///
/// # Errors
/// When the control database fails.
pub async fn drop_plan(installation: &Installation, plan: &PlanRow) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    tx.set_plan_state(&plan.id, "void").await?;
    tx.commit().await?;
    Ok(())
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
    let body = plan_body(plan)?;
    let chunks = checks::check_all(installation, plan, &body).await?;
    let refused = rights::check_rights(&installation.ground()?, &chunks).await?;
    let now = installation.clock.now();
    let skipped = body.skipped.iter().cloned().chain(refused).collect();
    let record = RunBody { due: body.due() as i64, skipped, ..RunBody::default() };
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
    let whole = installation.begin_piece()?;
    let subject = match plan.request {
        Some(number) => Some(request_subject(installation, number).await?),
        None => None,
    };
    let references = vec![("plan".to_owned(), plan.id.clone())];
    let intent =
        Operation { name: "run.begin", object: &run.id, outcome: "intent", references, ..Operation::default() };
    installation.log(Operation { subject: subject.as_ref(), ..intent }).await?;
    if let Err(error) = begin(installation, plan, &run).await {
        installation.log_operation("run.begin", &run.id, "failure").await?;
        return Err(error);
    }
    drop(whole);
    crash_point::reached("run.added");
    drive(installation, run, Some(chunks)).await
}

/// The plan becomes a run, and its request one that is carried out, or nothing at all happens.
async fn begin(installation: &Installation, plan: &PlanRow, run: &RunRow) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    if !tx.set_plan_state(&plan.id, "executed").await? {
        return Err(TaskError::refused(
            format!("plan {} was carried out or voided meanwhile", &plan.hash[..12]),
            "make a new one with `wangchuan plan`",
        ));
    }
    tx.add_run(run).await?;
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
    Ok(())
}

/// Goes on with a run from where it is. `checked` are the chunks of its plan when they were just found to be what its hash was made of.
async fn drive(installation: &Installation, mut run: RunRow, checked: Option<Vec<ChunkRow>>) -> Result<RunRow> {
    let ground = installation.ground()?;
    let target = target_of(installation, &run).await?;
    if run.state == "approved" {
        delete(installation, &ground, &mut run, (&target, checked)).await?;
        crash_point::reached("run.deleted");
    }
    if run.state == "deleted" {
        verify(installation, &ground, &mut run, &target).await?;
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

pub(super) fn plan_body(plan: &PlanRow) -> Result<PlanBody> {
    serde_json::from_str(&plan.body).map_err(|_| TaskError::Inconsistent(format!("plan {} is damaged", plan.id)))
}

async fn delete(
    installation: &Installation,
    ground: &Ground<'_>,
    run: &mut RunRow,
    (target, checked): (&Target, Option<Vec<ChunkRow>>),
) -> Result<()> {
    let plan = run.plan.clone().unwrap_or_default();
    let mut keys = RunKeys::open(ground, &plan).await?;
    let row = installation.control.read().await?.plan(&plan).await?;
    let row = row.ok_or_else(|| TaskError::Inconsistent(format!("run {} has no plan", run.id)))?;
    let planned = plan_body(&row)?;
    let chunks = match checked {
        Some(chunks) => chunks,
        None => intact_chunks(installation, run, (&row, &planned), &keys).await?,
    };
    if grace_of(ground, &touched_by(&chunks)) > 0 {
        let mut tx = installation.control.begin().await?;
        keys.pre_images = Some(installation.keyring.work_key(&mut tx, Purpose::PreImage, &run.id).await?);
        tx.commit().await?;
    }
    keys.too_few = rows_in_small_groups(ground, &plan, &chunks, &keys).await?;
    let mut body = RunBody::of(run)?;
    body.recount(&[]);
    let work = batches::Work { installation, ground, run, planned: &planned, keys: &keys, target };
    batches::carry_out(&work, chunks, &mut body).await?;
    body.notes.extend(installation.control.read().await?.chunk_notes(&plan).await?);
    body.notes.sort();
    body.notes.dedup();
    check_sum(run, &body)?;
    body.physical = settle_after(ground, &plan).await?;
    body.put(run)?;
    step(installation, run, "approved", "deleted").await
}

/// The chunks of a run's plan; none when they are not what its hash was made of.
async fn intact_chunks(
    installation: &Installation,
    run: &RunRow,
    (row, planned): (&PlanRow, &PlanBody),
    keys: &RunKeys,
) -> Result<Vec<ChunkRow>> {
    let chunks = installation.control.read().await?.chunks(&row.id).await?;
    if is_intact(row, planned, &chunks, keys)? {
        return Ok(chunks);
    }
    Err(TaskError::Inconsistent(format!(
        "run {}: what is stored of its plan is not what its hash was made of; nothing more is erased",
        run.id
    )))
}

/// Every due row has exactly one end.
fn check_sum(run: &RunRow, body: &RunBody) -> Result<()> {
    if body.due == body.gone() + body.kept + body.failed {
        return Ok(());
    }
    Err(TaskError::Inconsistent(format!(
        "run {}: {} rows were due, but {} erased + {} anonymised + {} stripped + {} kept + {} failed are accounted for",
        run.id, body.due, body.erased, body.anonymised, body.stripped, body.kept, body.failed
    )))
}

/// Looks for every row again. Rows that are there all the same count as failed, and the run goes on without them.
async fn verify(installation: &Installation, ground: &Ground<'_>, run: &mut RunRow, target: &Target) -> Result<()> {
    let keys = RunKeys::open(ground, run.plan.as_deref().unwrap_or_default()).await?;
    let found = read_back(ground, run, &keys, target).await?;
    let groups = smallest_groups(ground, run, &keys).await?;
    let mut body = RunBody::of(run)?;
    (body.looked_for, body.looked_at, body.looked_through) = (found.looked_for, found.stripped, found.anonymised);
    body.residual = found.residual();
    let mut tx = installation.control.begin().await?;
    for residue in &found.residues {
        let failed = tx.fail_rows(run, (residue.chunk, residue.kind), &residue.rows, RESIDUE).await?;
        *(match residue.kind {
            LedgerKind::Erased => &mut body.erased,
            LedgerKind::Anonymised => &mut body.anonymised,
            LedgerKind::Stripped => &mut body.stripped,
        }) -= failed;
        body.failed += failed;
    }
    tx.set_left_lookups(&run.id, &found.lookups).await?;
    body.note_groups(groups);
    if !found.residues.is_empty() {
        body.notes.push(RESIDUE.to_owned());
    }
    body.put(run)?;
    run.verified_at = Some(installation.clock.now());
    "verified".clone_into(&mut run.state);
    if !tx.step_run(run, "deleted").await? {
        return Err(TaskError::Inconsistent(format!("run {} is not in state deleted any more", run.id)));
    }
    tx.commit().await?;
    Ok(())
}

/// The note of rows that the read-back found.
const RESIDUE: &str = "rows that were deleted or changed are there again; something puts them back (a trigger, a replication, an application)";

/// One transaction: keys marked, pins made, grace fixed, lists retired, state entered. A run that erased nothing while rows
/// failed marks none and ends as failed.
async fn mark_keys(installation: &Installation, ground: &Ground<'_>, run: &mut RunRow, target: &Target) -> Result<()> {
    let _whole = installation.begin_piece()?;
    let plan = run.plan.clone().unwrap_or_default();
    let keys = RunKeys::open(ground, &plan).await?;
    let mut body = RunBody::of(run)?;
    let mut tx = installation.control.begin().await?;
    let chunks = tx.chunks(&plan).await?;
    // Rows that stay must be seen, to be pinned: a store that is away now must not lose their keys.
    for chunk in &chunks {
        place_of(ground, chunk).map_err(TaskError::Erase)?;
    }
    let is_failed = body.is_failed();
    if !is_failed {
        // What this run left out counts as not reached: its keys wait for another run.
        let skipped: Vec<(String, String)> = ground.skipped.iter().chain(&body.skipped).cloned().collect();
        seal_fate(&Ground { skipped: &skipped, ..*ground }, &mut tx, run, &keys, target).await?;
        // Only a snapshot begun after this transaction knows which cells are left: an earlier one is no barrier.
        run.verified_snapshot = Some(tx.snapshot_head().await?);
        let grace = chrono::TimeDelta::seconds(grace_of(ground, &touched_by(&chunks)));
        run.grace_until = run.verified_at.map(|verified| verified + grace);
    }
    if let Target::Request(subject) = target {
        let key = installation.keyring.work_key(&mut tx, Purpose::Certificate, "").await?;
        body.subject_ref = Some(hex::encode(pseudonym(&key, "certificate", &[subject.dangerous_text().as_bytes()])));
    }
    tx.retire_work(Purpose::Plan.name(), &plan).await?;
    if run.request.is_some() {
        close_request(ground, &mut tx, run, &body, &keys, &chunks).await?;
    }
    run.ended_at = Some(installation.clock.now());
    body.put(run)?;
    (if is_failed { "failed" } else { "shred-pending" }).clone_into(&mut run.state);
    if !tx.step_run(run, "verified").await? {
        return Err(TaskError::Inconsistent(format!("run {} is not in state verified any more", run.id)));
    }
    tx.commit().await?;
    crash_point::reached("run.keys-marked");
    finish(installation, run).await
}

/// Ends the run's request, or lets it wait for what keeps its rows; whom it is about is forgotten with its end only.
async fn close_request(
    ground: &Ground<'_>,
    tx: &mut Tx,
    run: &RunRow,
    body: &RunBody,
    keys: &RunKeys,
    chunks: &[ChunkRow],
) -> Result<()> {
    let Some(number) = run.request else { return Ok(()) };
    let plan = run.plan.as_deref().unwrap_or_default();
    let planned = tx.plan(plan).await?;
    let cutoff = planned.as_ref().map_or(run.begun_at, |plan| plan.cutoff);
    let ledger = tx.ledger_of_run(&run.id).await?;
    // An anonymised row is nobody's: the request has nothing to wait for there.
    let erased: BTreeSet<[u8; 16]> =
        ledger.into_iter().filter(|entry| entry.kind != LedgerKind::Stripped).map(|entry| entry.row_mac).collect();
    let mut rest = waits_of(ground, plan, (chunks, &erased), keys, cutoff)?;
    let before = tx.request(number).await?.and_then(|request| request.waits);
    if before.as_deref() == Some(ASKED_AGAIN) {
        tx.clear_request_waits(number).await?;
        tx.step_request(number, "running", "received", Some(&run.id), None).await?;
        return Ok(());
    }
    if body.stopped > 0 {
        // It waits to be carried out again, as far as it was to be.
        tx.step_request(number, "running", "received", Some(&run.id), None).await?;
        return Ok(());
    }
    let is_whole = body.failed == 0 && body.skipped.is_empty();
    let before = before.map(|text| Waits::of(Some(&text)));
    let carried = before.as_ref().is_some_and(|before| rest.carry_over(before, is_whole));
    if !is_whole {
        let away = planned.map(|plan| plan_body(&plan)).transpose()?.map(|body| body.skipped).unwrap_or_default();
        let away: Vec<String> = away.into_iter().map(|(store, _)| store).collect();
        rest.waits.try_again(before.as_ref(), &away, ground.clock.now());
    }
    let Rest { waits, later, .. } = rest;
    let has_taken = body.gone() > 0 || has_taken_before(tx, number, run).await?;
    let state = match (body.due, body.kept + body.stripped - later) {
        _ if carried || !is_whole => WAITING,
        (0, _) | (_, 0) if has_taken => "done",
        (0, _) | (_, 0) => "nothing-found",
        _ if !waits.is_empty() => WAITING,
        _ => "partly-kept",
    };
    if state == WAITING {
        tx.set_request_waits(number, &waits.text()?).await?;
    } else {
        tx.retire_work(Purpose::Request.name(), &number.to_string()).await?;
    }
    tx.step_request(number, "running", state, Some(&run.id), Some(ground.clock.now())).await?;
    Ok(())
}

/// Whether another run of the request took rows, and was not undone.
async fn has_taken_before(tx: &mut Tx, number: i64, run: &RunRow) -> Result<bool> {
    let others =
        tx.runs_of_request(number).await?.into_iter().filter(|other| other.id != run.id && other.state != "undone");
    for other in others {
        if RunBody::of(&other)?.gone() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What follows the last transaction of a run: its end in the operation log, its markers gone. Done again after a crash.
async fn finish(installation: &Installation, run: &mut RunRow) -> Result<()> {
    let outcome = if run.state == "failed" { "failure" } else { "success" };
    let mut body = RunBody::of(run)?;
    let kept = body.kept + body.stripped;
    let counts = [("due", body.due), ("erased", body.erased), ("anonymised", body.anonymised), ("kept", kept)];
    let references = counts.map(|(name, count)| (name.to_owned(), count.to_string())).to_vec();
    let changes = changes::changes_of(installation, run).await?;
    let ended = Operation { name: "run.end", object: &run.id, outcome, references, changes, ..Operation::default() };
    installation.log(ended).await?;
    forget_markers(&installation.ground()?, run).await?;
    body.closed = true;
    body.put(run)?;
    let state = run.state.clone();
    step(installation, run, &state, &state).await
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

/// The collections, as (store, collection), in which chunks erase, anonymise or strip.
fn touched_by(chunks: &[ChunkRow]) -> Vec<(String, String)> {
    let touched = chunks.iter().filter(|chunk| chunk.is_work());
    touched.map(|chunk| (chunk.store.clone(), chunk.collection.clone())).collect()
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
