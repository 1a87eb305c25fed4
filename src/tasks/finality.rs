//! `final`: the last state of an erasure. The keys are destroyed, and the date of every copy that is known is past.
//!
//! What is shredded can still be reopened by whoever kept a copy: of the key service, of the store, of this host. Some of these
//! copies have a date by which they are gone, declared by the operator; others have none, and a run that left one never becomes
//! final by itself. A date is never forgotten because its declaration was taken out of the configuration or shortened: what
//! an earlier certificate of the run says counts as well.
//!
//! Nobody counts days by a doubtful clock: [`finalise_due`] asks for the same clock, lease and certainty about the control
//! database as a destruction does.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::{RunRow, Tx};
use crate::crash_point;
use crate::installation::Installation;

use super::certify::{FINAL, REFUSED, SHREDDED, residuals_of};
use super::erasure::RunBody;
use super::shred::held;
use super::{Result, TaskError};

/// The kind of a declared copy that stands for the store's own log and free pages: by when they are recycled.
pub const DATABASE_LOG: &str = "database-log";

/// What keeps a shredded run from being final, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResidualCode {
    /// A file held the root key (class D): any copy of the host brings it back, and no date ends that.
    HostCopies,
    /// Older copies of the key service, with what unseals it, could bring the root key back.
    ServiceCopies,
    /// A declared copy of the store.
    DeclaredCopy,
    /// A declared copy of the store that never dies.
    UndatedCopy,
    /// The store's own logs and free pages; without a day while none is declared for them (a copy of kind `database-log` does that).
    DatabaseLog,
    /// Something keeps rows in the store's files, or nobody sees whether it does: a reader or transaction, a missing right, a full-text
    /// index. No declared date is one for that.
    StoreFiles,
    /// The destruction of its keys is not on record.
    Unproven,
    /// Lists that were sealed for the run itself wait for the next change of keys.
    OwnLists,
    /// The store is not registered any more, so nobody knows of its copies.
    Unregistered,
    /// A legal hold covers it: its copies may be kept beyond their dates.
    Hold,
}

impl ResidualCode {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::HostCopies,
        Self::ServiceCopies,
        Self::DeclaredCopy,
        Self::UndatedCopy,
        Self::DatabaseLog,
        Self::StoreFiles,
        Self::Unproven,
        Self::OwnLists,
        Self::Unregistered,
        Self::Hold,
    ];

    /// Whether nothing that may still happen takes it away.
    fn is_for_ever(self) -> bool {
        self == Self::HostCopies
    }
}

/// Where erased rows may still be, or be brought back from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Residual {
    /// What it is.
    pub code: ResidualCode,
    /// Which one: the store, or store and declared copy; the hold; null where there is only one.
    pub of: Option<String>,
    /// The last day (UTC) on which it may be there; null while none is known.
    pub until: Option<NaiveDate>,
}

impl Residual {
    /// One without a date.
    #[must_use]
    pub fn undated(code: ResidualCode, of: Option<&str>) -> Self {
        Self { code, of: of.map(str::to_owned), until: None }
    }

    /// One with a last day.
    #[must_use]
    pub fn until(code: ResidualCode, of: Option<&str>, until: NaiveDate) -> Self {
        Self { until: Some(until), ..Self::undated(code, of) }
    }
}

/// Whether every date is past on this day. The last day itself counts as a whole.
#[must_use]
pub fn are_past(residuals: &[Residual], today: NaiveDate) -> bool {
    residuals.iter().all(|residual| residual.until.is_some_and(|until| until < today))
}

/// The last of the dates; none when something has none, or nothing is left.
#[must_use]
pub fn last_date(residuals: &[Residual]) -> Option<NaiveDate> {
    residuals.iter().map(|residual| residual.until).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The dates of declared copies, by store and name: as they are declared now, and as earlier certificates had them.
#[derive(Debug, Default)]
pub(super) struct CopyDates(Vec<CopyDate>);

#[derive(Debug)]
struct CopyDate {
    store: Option<String>,
    copy: String,
    is_declared: bool,
    is_undated: bool,
    dies_by: Option<NaiveDate>,
}

impl CopyDates {
    /// A copy as it is declared today.
    pub(super) fn declared(&mut self, store: Option<&str>, copy: &str, dies_by: Option<NaiveDate>) {
        self.add(store, copy, dies_by, true);
    }

    fn add(&mut self, store: Option<&str>, copy: &str, dies_by: Option<NaiveDate>, is_declared: bool) {
        let (store, copy) = (store.map(str::to_owned), copy.to_owned());
        self.0.push(CopyDate { store, copy, is_declared, is_undated: dies_by.is_none(), dies_by });
    }

    /// The same copy in an earlier certificate. A later date counts; that it had none then counts only while nobody has declared
    /// one for it since.
    pub(super) fn certified(&mut self, store: Option<&str>, copy: &str, dies_by: Option<NaiveDate>) {
        let mut is_known = false;
        let same = |known: &&mut CopyDate| known.copy == copy && (store.is_none() || known.store.as_deref() == store);
        for known in self.0.iter_mut().filter(same) {
            is_known = true;
            known.dies_by = known.dies_by.max(dies_by);
            known.is_undated |= dies_by.is_none() && !known.is_declared;
        }
        if !is_known {
            self.add(store, copy, dies_by, false);
        }
    }

    /// A copy that ended with its medium, whatever date it had. One that is only known without its store stays.
    pub(super) fn destroyed(&mut self, store: Option<&str>, copy: &str) {
        self.0.retain(|known| store.is_none() || known.store.as_deref() != store || known.copy != copy);
    }

    /// The residuals.
    pub(super) fn residuals(self) -> impl Iterator<Item = Residual> {
        self.0.into_iter().map(|known| {
            let name = known.store.map_or(known.copy.clone(), |store| format!("{store}/{}", known.copy));
            match known.dies_by.filter(|_| !known.is_undated) {
                Some(date) => Residual::until(ResidualCode::DeclaredCopy, Some(&name), date),
                None => Residual::undated(ResidualCode::UndatedCopy, Some(&name)),
            }
        })
    }
}

/// Whether a run that was looked at before is worth another look.
fn is_worth_a_look(body: &RunBody, today: NaiveDate) -> bool {
    // First the certificate of the shred: it tells the dates that are waited for.
    if !matches!(body.certified.as_deref(), Some(SHREDDED | REFUSED)) {
        return false;
    }
    let Some(residuals) = &body.residuals else { return true };
    let for_ever = residuals.iter().any(|residual| residual.code.is_for_ever());
    let to_come = residuals.iter().any(|residual| residual.until.is_some_and(|until| until >= today));
    !for_ever && !to_come
}

/// Moves every shredded run to `final` whose every residual date is past, and notes of the others what is left. Returns the runs
/// that became final; their superseding certificates are issued by the next [`super::certify::certify_due`].
///
/// # Errors
/// Refused with a doubtful clock, like a destruction; when the control database fails. A run that cannot be judged does not keep
/// others back: it is logged and stays shredded.
pub async fn finalise_due(installation: &Installation) -> Result<Vec<String>> {
    let runs = installation.control.read().await?.runs(Some(SHREDDED)).await?;
    let today = installation.clock.now().date_naive();
    let mut waiting = Vec::new();
    for run in runs {
        if is_worth_a_look(&RunBody::of(&run)?, today) {
            waiting.push(run);
        }
    }
    let mut done = Vec::new();
    if waiting.is_empty() {
        return Ok(done);
    }
    installation.may_destroy().await?;
    for run in waiting {
        match finalise(installation, &run).await {
            Ok(true) => {
                crash_point::reached("run.final");
                done.push(run.id);
            }
            Ok(false) => {}
            Err(error @ (TaskError::Control(_) | TaskError::Stopping)) => return Err(error),
            Err(error) => tracing::error!(run = %run.id, error = %error, "it cannot be told whether a run is final"),
        }
    }
    Ok(done)
}

/// The same behind a shred, whose result must not be lost because nothing more can be concluded now: why not is said instead.
///
/// # Errors
/// Only when the process is to stop.
pub async fn finalise_or_wait(installation: &Installation) -> Result<(Vec<String>, Option<String>)> {
    match finalise_due(installation).await {
        Ok(done) => Ok((done, None)),
        Err(TaskError::Stopping) => Err(TaskError::Stopping),
        Err(error) => Ok((Vec::new(), Some(format!("no run was made final: {error}")))),
    }
}

/// Judges one run. Whether it is final now.
async fn finalise(installation: &Installation, run: &RunRow) -> Result<bool> {
    let hold = held(installation, run).await?.map(|_| Residual::undated(ResidualCode::Hold, None));
    let mut tx = installation.control.begin().await?;
    // Read again under the write lock, with what the store has said just now.
    let Some(current) = tx.run(&run.id).await?.filter(|current| current.state == SHREDDED) else { return Ok(false) };
    let mut run = current;
    let mut body = RunBody::of(&run)?;
    body.forgotten = body.forgotten.or(forgotten_by(&mut tx, &run).await?);
    body.put(&mut run)?;
    let mut found = residuals_of(installation, &mut tx, &run).await?;
    found.extend(hold);
    found.sort_unstable();
    let now = installation.clock.now();
    let is_final = are_past(&found, now.date_naive()) && run.shredded_at.is_some_and(|at| at <= now);
    if !is_final && body.residuals.as_ref() == Some(&found) {
        return Ok(false);
    }
    body.residuals = Some(found);
    if is_final {
        body.final_at = Some(now);
        FINAL.clone_into(&mut run.state);
    }
    body.put(&mut run)?;
    if !tx.step_run(&run, SHREDDED).await? {
        return Err(TaskError::Inconsistent(format!("run {} changed while it was judged", run.id)));
    }
    tx.commit().await?;
    Ok(is_final)
}

/// The generation in force, once nothing that was sealed for a run itself opens any more and the end of the root before it is on
/// record.
pub(super) async fn forgotten_by(tx: &mut Tx, run: &RunRow) -> Result<Option<i64>> {
    if tx.has_own_leaves(run).await? {
        return Ok(None);
    }
    let Some((generation, _)) = tx.tree_root().await? else { return Ok(None) };
    Ok(tx.rekey_evidence(generation).await?.map(|_| generation))
}

/// A shredded run that is not final yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Remaining {
    /// The run.
    pub run: String,
    /// When its keys were destroyed (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub shredded_at: Option<String>,
    /// The day after which it becomes final; null while that cannot be said.
    pub final_after: Option<NaiveDate>,
    /// What is left, and until when.
    pub residuals: Vec<Residual>,
}

impl Remaining {
    /// Of a run, if it is shredded and not final.
    ///
    /// # Errors
    /// When its record is damaged.
    pub fn of(run: &RunRow) -> Result<Option<Self>> {
        if run.state != SHREDDED {
            return Ok(None);
        }
        let residuals = RunBody::of(run)?.residuals.unwrap_or_default();
        let final_after = last_date(&residuals);
        let shredded_at = run.shredded_at.map(crate::control::time_text);
        Ok(Some(Self { run: run.id.clone(), shredded_at, final_after, residuals }))
    }

    /// Of all of these runs.
    ///
    /// # Errors
    /// When a record is damaged.
    pub fn all(runs: &[RunRow]) -> Result<Vec<Self>> {
        runs.iter().filter_map(|run| Self::of(run).transpose()).collect()
    }
}

/// How many runs are final, and what the shredded ones wait for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct FinalitySummary {
    /// Runs that are final.
    pub final_runs: u64,
    /// Shredded runs that become final by themselves, because everything that is left of them has a date.
    pub dated_runs: u64,
    /// The day after which the first of those does.
    pub next_final_after: Option<NaiveDate>,
    /// Shredded runs of which something has no date.
    pub undated_runs: u64,
    /// What is left, by how many shredded runs it is left of.
    pub residuals: Vec<ResidualCount>,
}

/// How often a residual is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ResidualCount {
    /// What it is.
    pub code: ResidualCode,
    /// Of how many runs.
    pub run_count: u64,
}

impl FinalitySummary {
    /// Of all runs.
    ///
    /// # Errors
    /// When a record is damaged.
    pub fn of(runs: &[RunRow]) -> Result<Self> {
        let mut summary =
            Self { final_runs: runs.iter().filter(|run| run.state == FINAL).count() as u64, ..Self::default() };
        let remaining = Remaining::all(runs)?;
        for run in &remaining {
            if run.final_after.is_some() {
                summary.dated_runs += 1;
            } else {
                summary.undated_runs += 1;
            }
        }
        summary.next_final_after = remaining.iter().filter_map(|run| run.final_after).min();
        let has = |run: &&Remaining, code| run.residuals.iter().any(|residual| residual.code == code);
        let count =
            |code| ResidualCount { code, run_count: remaining.iter().filter(|run| has(run, code)).count() as u64 };
        summary.residuals = ResidualCode::ALL.into_iter().map(count).filter(|count| count.run_count > 0).collect();
        Ok(summary)
    }
}

#[cfg(test)]
mod tests;
