//! The JSON of `plan`, `erase` and `request run`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::output::shapes::{Counts, RunEntry, Skipped, Time};
use super::super::output::{Document, Exit, Outcome};
use crate::control::RunRow;
use crate::erase::caps::OverCap;
use crate::plan::diff::{Cause, CountChange, PlanDiff};
use crate::plan::unregistered::UnregisteredTable;
use crate::plan::{CollectionCounts, PlanBody, Technique};
use crate::policy::statute::CatalogueVersion;
use crate::tasks::erasure::RunBody;

/// The JSON of `plan`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlanDocument {
    /// `complete`, `nothing-found` when nothing is due, `partial` when a store was left out, `refused` with exit code 3 when a
    /// policy is beyond its cap, so that the plan can be looked at and not carried out.
    result: Outcome,
    /// What `erase --plan` takes: SHA-256 over everything that the plan fixes, in hex.
    hash: String,
    /// The one time at which it was decided what is due.
    cutoff: Time,
    /// The catalogue of statutes that counted.
    catalogue: Option<CatalogueVersion>,
    /// Due rows of all collections.
    due: u64,
    /// Of them, rows to be deleted.
    erase: u64,
    /// Of them, rows to be anonymised.
    anonymise: u64,
    /// Of them, rows to be stripped to their declared minimum.
    strip: u64,
    /// Of them, rows that stay untouched.
    kept: u64,
    /// By collection.
    collections: Vec<PlannedCollection>,
    /// Stores that could not be read.
    skipped: Vec<Skipped>,
    /// Tables that seem to hold a customer's data and are not registered: nothing is erased from them.
    unregistered: Vec<UnregisteredTable>,
    /// Policies beyond their cap, by collection.
    over_cap: Vec<BeyondCap>,
    /// Policies under which a row is due as soon as its start event is there.
    at_once: Vec<String>,
    /// With `--diff`: what changed since the last plan; null without, or when there is none.
    diff: Option<Changed>,
    /// How many different operators must agree before it can be carried out.
    approvals_needed: usize,
    /// Whether it can be carried out; a preview (`--at`) cannot, nor can a plan that needs approval before it has it.
    executable: bool,
}

impl Document for PlanDocument {
    const OF: &'static [&'static str] = &["plan"];
}

/// What changed since an earlier plan.
#[derive(Debug, Serialize, JsonSchema)]
struct Changed {
    /// The cutoff of that plan.
    since: Time,
    /// Counts that differ.
    changes: Vec<CountChange>,
    /// What can have changed them, besides time and what others did to the rows.
    why: Vec<Cause>,
}

impl Changed {
    fn of(diff: PlanDiff) -> Self {
        Self { since: diff.since.into(), changes: diff.changes, why: diff.why }
    }
}

/// A collection of which the plan takes more than its policy allows in one run.
#[derive(Debug, Serialize, JsonSchema)]
struct BeyondCap {
    /// The policy.
    policy: String,
    /// The store.
    store: String,
    /// The collection.
    collection: String,
    /// Rows that would be erased, anonymised or stripped.
    rows: u64,
    /// All its rows.
    total: u64,
    /// Whether there are more than these. Left out when it is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
    /// Rows that the policy allows.
    max_rows: u64,
    /// The share that it allows, in percent.
    max_percent: u8,
}

impl BeyondCap {
    fn of(over: &OverCap) -> Self {
        Self {
            policy: over.policy.clone(),
            store: over.store.clone(),
            collection: over.collection.clone(),
            rows: over.rows,
            total: over.total,
            at_least: over.at_least,
            max_rows: over.max_rows,
            max_percent: over.max_percent,
        }
    }
}

/// What a plan does with one collection.
#[derive(Debug, Serialize, JsonSchema)]
struct PlannedCollection {
    /// Its store.
    store: String,
    /// Its name.
    collection: String,
    /// The policy that made rows due; null when no policy governs it.
    policy: Option<String>,
    /// All its rows.
    rows: u64,
    /// Whether they were not all counted, because these are enough to tell that the share of due ones is within its cap: there are at least so
    /// many. Left out when it is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
    /// Due rows.
    due: u64,
    /// Of them: to be deleted.
    erase: u64,
    /// Of them: to be anonymised.
    anonymise: u64,
    /// What anonymising changes in a row.
    changes: Vec<ChangedField>,
    /// Of them: to be stripped to their declared minimum.
    strip: u64,
    /// Of them: to stay untouched.
    kept: u64,
    /// Why rows stay, stripped ones included.
    reasons: Vec<KeptRows>,
    /// Rows that are not due because their start event is missing, unreadable or in the future.
    unknown_start: u64,
}

/// A field that anonymising changes.
#[derive(Debug, Serialize, JsonSchema)]
struct ChangedField {
    /// The column.
    field: String,
    /// What its value becomes.
    becomes: Technique,
}

impl ChangedField {
    fn of((field, technique): &(String, Technique)) -> Self {
        Self { field: field.clone(), becomes: *technique }
    }
}

/// Rows that stay for one reason.
#[derive(Debug, Serialize, JsonSchema)]
struct KeptRows {
    /// `hold:ID`, `statute:KEY`, `restricted:MINIMUM:MAXIMUM` (two statutes that contradict each other), `kept-child`, `kept-parent`, `k-anonymity`, `unregistered-child:TABLE`, `unknown-start`, `circle`, `canary` (the policy was edited, and this plan has the first share of its rows), `canary:TIME` (a run took that share; the rest goes from this time on) or `later` (came after the request).
    reason: String,
    /// How many.
    rows: u64,
}

impl PlannedCollection {
    fn of(counts: &CollectionCounts) -> Self {
        let reason = |(reason, rows): &(String, u64)| KeptRows { reason: reason.clone(), rows: *rows };
        Self {
            store: counts.store.clone(),
            collection: counts.collection.clone(),
            policy: counts.policy.clone(),
            rows: counts.total,
            at_least: counts.at_least,
            due: counts.due,
            erase: counts.erase,
            anonymise: counts.anonymise,
            changes: counts.changes.iter().map(ChangedField::of).collect(),
            strip: counts.strip,
            kept: untouched(counts),
            reasons: counts.keep.iter().map(reason).collect(),
            unknown_start: counts.unknown_start,
        }
    }
}

/// Due rows that stay as they are.
fn untouched(counts: &CollectionCounts) -> u64 {
    counts.due.saturating_sub(counts.to_do())
}

impl PlanDocument {
    /// Of a stored plan.
    pub fn of(
        hash: &str,
        body: &PlanBody,
        over: &[OverCap],
        at_once: Vec<String>,
        (approvals, is_preview): (usize, bool),
        diff: Option<PlanDiff>,
    ) -> Self {
        let result = match (over.is_empty(), body.skipped.is_empty(), body.due()) {
            (false, _, _) => Outcome::Refused,
            (true, false, _) => Outcome::Partial,
            (true, true, 0) => Outcome::NothingFound,
            (true, true, _) => Outcome::Complete,
        };
        Self {
            result,
            hash: hash.to_owned(),
            cutoff: body.cutoff.into(),
            catalogue: body.catalogue,
            due: body.due(),
            erase: body.collections.iter().map(|counts| counts.erase).sum(),
            anonymise: body.collections.iter().map(|counts| counts.anonymise).sum(),
            strip: body.collections.iter().map(|counts| counts.strip).sum(),
            kept: body.collections.iter().map(untouched).sum(),
            collections: body.collections.iter().map(PlannedCollection::of).collect(),
            skipped: Skipped::all(&body.skipped),
            unregistered: body.unregistered.clone(),
            over_cap: over.iter().map(BeyondCap::of).collect(),
            at_once,
            diff: diff.map(Changed::of),
            approvals_needed: approvals,
            executable: !is_preview && approvals == 0,
        }
    }
}

/// Why an erasure is not complete; the same codes stand in its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PartialCode {
    /// Some rows failed and are still there; exit code 4.
    RowsFailed,
    /// Some stores were not reached; exit code 4.
    TargetsUnreached,
    /// Somebody stopped a run before all of its rows were erased; exit code 4. Certificates say `ROWS_RETAINED`.
    RunStopped,
    /// Everything is gone from the live stores; backups open it until their keys die. Exit code 0.
    KeyShredPending,
    /// All that was due is kept, with reasons; exit code 0.
    RowsRetained,
}

/// The JSON of `erase` and `request run`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErasureDocument {
    /// `nothing-found`, `failed` when rows failed and none is gone, otherwise `partial`: it is only `complete` when the keys are
    /// destroyed too, which the last certificate says. `refused` when requests waited and none was begun.
    result: Outcome,
    /// Why it is partial, the gravest reason first.
    code: Option<PartialCode>,
    /// The rows of all its runs.
    #[serde(flatten)]
    counts: Counts,
    /// When the last of the keys may be destroyed: the end of grace. Until then the erased rows open in backups.
    grace_until: Option<Time>,
    /// Rows that were looked for again by another session, and were absent unless they count as failed.
    looked_for: u64,
    /// Rows that were looked at again by another session, and were stripped unless they count as failed.
    looked_at: u64,
    /// The request that was carried out, when it is a single one.
    request: Option<i64>,
    /// The ids of its runs.
    runs: Vec<String>,
    /// Each run with its own counts.
    details: Vec<RunEntry>,
    /// The certificates issued now.
    certificates: Vec<String>,
    /// Stores that were left out.
    skipped: Vec<Skipped>,
    /// Requests that waited and could not be carried out, each with its reason; they wait on.
    not_run: Vec<NotRun>,
    /// Problems, without values.
    notes: Vec<String>,
}

/// A request that could not be carried out.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NotRun {
    /// Its number.
    pub request: i64,
    /// A code for scripts.
    pub code: &'static str,
    /// What happened.
    pub what: String,
    /// What to do.
    pub r#do: Option<String>,
    /// Whether the same may succeed later without any change.
    pub retry: bool,
}

impl Document for ErasureDocument {
    const OF: &'static [&'static str] = &["erase", "request run"];
}

impl ErasureDocument {
    /// Sums runs up, and says how a command ends that made them.
    pub fn of(runs: &[(RunRow, RunBody)], certificates: Vec<String>) -> (Self, Exit) {
        let counts = runs.iter().map(|(_, body)| Counts::of(body)).fold(Counts::default(), Counts::and);
        let skipped: Vec<Skipped> = runs.iter().flat_map(|(_, body)| Skipped::all(&body.skipped)).collect();
        let gone = runs.iter().any(|(_, body)| body.gone() > 0);
        let (result, code, exit) = if counts.failed > 0 && !gone {
            (Outcome::Failed, Some(PartialCode::RowsFailed), Exit::Failed)
        } else if counts.failed > 0 {
            (Outcome::Partial, Some(PartialCode::RowsFailed), Exit::Partial)
        } else if !skipped.is_empty() {
            (Outcome::Partial, Some(PartialCode::TargetsUnreached), Exit::Partial)
        } else if runs.iter().any(|(_, body)| body.stopped > 0) {
            (Outcome::Partial, Some(PartialCode::RunStopped), Exit::Partial)
        } else if gone {
            (Outcome::Partial, Some(PartialCode::KeyShredPending), Exit::Done)
        } else if counts.due > 0 {
            (Outcome::Partial, Some(PartialCode::RowsRetained), Exit::Done)
        } else {
            (Outcome::NothingFound, None, Exit::Done)
        };
        let document = Self {
            result,
            code,
            counts,
            grace_until: runs.iter().filter_map(|(run, _)| run.grace_until).max().map(Time::from),
            looked_for: runs.iter().map(|(_, body)| body.looked_for).sum(),
            looked_at: runs.iter().map(|(_, body)| body.looked_at).sum(),
            request: if let [(run, _)] = runs { run.request } else { None },
            runs: runs.iter().map(|(run, _)| run.id.clone()).collect(),
            details: runs.iter().map(|(run, body)| RunEntry::of(run, body)).collect(),
            certificates,
            skipped,
            not_run: Vec::new(),
            notes: runs.iter().flat_map(|(_, body)| body.notes.clone()).collect(),
        };
        (document, exit)
    }

    /// The same when some requests could not be begun: how each of them would have ended counts, the gravest when none was
    /// carried out.
    pub fn with_not_run(mut self, exit: Exit, not_run: Vec<(NotRun, Exit)>) -> (Self, Exit) {
        if not_run.is_empty() {
            return (self, exit);
        }
        let all_refused = not_run.iter().all(|(_, exit)| *exit == Exit::Refused);
        let exit = match (self.runs.is_empty(), all_refused) {
            (false, _) => Exit::Partial,
            (true, true) => Exit::Refused,
            (true, false) => Exit::Failed,
        };
        self.result = match exit {
            Exit::Refused => Outcome::Refused,
            Exit::Failed => Outcome::Failed,
            _ => Outcome::Partial,
        };
        self.not_run = not_run.into_iter().map(|(entry, _)| entry).collect();
        (self, exit)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    fn run(id: &str, due: i64, erased: i64, failed: i64) -> (RunRow, RunBody) {
        let kept = due - erased - failed;
        let row = RunRow {
            id: id.to_owned(),
            kind: "request".to_owned(),
            plan: None,
            request: Some(7),
            state: "shred-pending".to_owned(),
            begun_at: DateTime::<Utc>::UNIX_EPOCH,
            ended_at: None,
            verified_at: None,
            verified_snapshot: None,
            grace_until: DateTime::<Utc>::from_timestamp(erased, 0),
            generation: None,
            shredded_at: None,
            body: String::new(),
        };
        (row, RunBody { due, erased, kept, failed, ..RunBody::default() })
    }

    #[test]
    fn the_gravest_reason_decides_code_and_exit() {
        let left_out = |(row, body): (RunRow, RunBody)| {
            (row, RunBody { skipped: vec![("crm".to_owned(), "no answer".to_owned())], ..body })
        };
        let cases = [
            (vec![run("a", 0, 0, 0)], Outcome::NothingFound, None, Exit::Done),
            (vec![run("a", 3, 0, 0)], Outcome::Partial, Some(PartialCode::RowsRetained), Exit::Done),
            (vec![run("a", 3, 2, 0)], Outcome::Partial, Some(PartialCode::KeyShredPending), Exit::Done),
            (vec![run("a", 3, 0, 2)], Outcome::Failed, Some(PartialCode::RowsFailed), Exit::Failed),
            (vec![left_out(run("a", 3, 3, 0))], Outcome::Partial, Some(PartialCode::TargetsUnreached), Exit::Partial),
            (
                vec![run("a", 3, 3, 0), run("b", 2, 1, 1)],
                Outcome::Partial,
                Some(PartialCode::RowsFailed),
                Exit::Partial,
            ),
        ];
        for (runs, result, code, exit) in cases {
            let (document, ended) = ErasureDocument::of(&runs, Vec::new());
            assert_eq!((document.result, document.code, ended), (result, code, exit));
        }
    }

    #[test]
    fn runs_are_summed_and_stay_apart_in_the_details() {
        let (one, _) = ErasureDocument::of(&[run("a", 3, 2, 0)], vec!["c".to_owned()]);
        assert_eq!((one.request, one.counts.kept, one.certificates.len()), (Some(7), 1, 1));
        let (two, _) = ErasureDocument::of(&[run("a", 3, 2, 0), run("b", 5, 4, 1)], Vec::new());
        assert_eq!(two.counts, Counts { due: 8, erased: 6, anonymised: 0, kept: 1, stripped: 0, failed: 1 });
        assert_eq!((two.request, two.runs.as_slice()), (None, &["a".to_owned(), "b".to_owned()][..]));
        assert_eq!((two.details.len(), two.grace_until), (2, DateTime::<Utc>::from_timestamp(4, 0).map(Time::from)));
    }
}
