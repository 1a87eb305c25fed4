//! The JSON of `explain`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::super::output::shapes::Time;
use super::super::super::output::{Document, Outcome};
use crate::policy::statute::Verdict;

/// The JSON of `explain`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExplainDocument {
    /// `complete`, or `nothing-found` when there is no such record.
    pub(super) result: Outcome,
    /// The policy that governs the record; null when none does.
    pub(super) policy: Option<String>,
    /// The statutes that bind it, by their keys in the catalogue.
    pub(super) statutes: Vec<String>,
    /// The collection whose policy and start event count, when they are not the record's own.
    pub(super) follows: Option<String>,
    /// The start event.
    pub(super) start: Option<Time>,
    /// When it is due; null when it never is, or when nobody can say.
    pub(super) due_at: Option<Time>,
    /// By when it must be gone; null when no confirmed statute says so.
    pub(super) latest_at: Option<Time>,
    /// Whether the time at which it is due has come.
    pub(super) is_due: bool,
    /// What follows from its dates now; null without dates. A hold keeps it all the same.
    pub(super) verdict: Option<DatedVerdict>,
    /// What decided when it is due: the policy or a statute, in words.
    pub(super) decided_by: Option<String>,
    /// Every date that was compared, the policy's own first.
    pub(super) bounds: Vec<BoundEntry>,
    /// The hold that keeps it, whatever its date.
    pub(super) hold: Option<String>,
    /// Rows that refer to it: while one of them stays, it stays too, stripped to its minimum (or, under a policy that anonymises, as it is).
    pub(super) referred_by: Vec<Referring>,
    /// The bucket that its backups' key belongs to.
    pub(super) bucket: Option<String>,
    /// Why it has no due date.
    pub(super) reason: Option<String>,
}

impl Document for ExplainDocument {
    const OF: &'static [&'static str] = &["explain"];
}

/// Rows of one table that refer to the record.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Referring {
    /// The table.
    pub(super) table: String,
    /// How many.
    pub(super) rows: u64,
}

/// What follows from a record's dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DatedVerdict {
    /// Its time is not up.
    Keep,
    /// It may be erased.
    MayErase,
    /// It must be erased: a confirmed maximum has passed.
    MustErase,
    /// A minimum and a maximum contradict each other: it stays, for storage only, until it is due.
    Restrict,
}

impl From<Verdict> for DatedVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Keep => Self::Keep,
            Verdict::MayErase => Self::MayErase,
            Verdict::MustErase => Self::MustErase,
            Verdict::Restrict => Self::Restrict,
        }
    }
}

/// A date that was compared.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BoundEntry {
    /// The statute's key; null for the policy's own retention.
    pub(super) statute: Option<String>,
    /// Law and article; for the policy its basis.
    pub(super) source: String,
    /// What it demands, in words.
    pub(super) demands: String,
    /// The date that follows for this record; null for `permanently` and where no period follows.
    pub(super) at: Option<Time>,
    /// How far the entry was confirmed; null for the policy.
    pub(super) status: Option<String>,
    /// Whether it counts: a maximum that is not confirmed does not.
    pub(super) binds: bool,
    /// Whether it set the date at which the record is due, or by which it must be gone.
    pub(super) decides: bool,
}

impl ExplainDocument {
    /// A record without a due date.
    pub(super) fn undated(result: Outcome, reason: &str) -> Self {
        Self {
            result,
            policy: None,
            statutes: Vec::new(),
            follows: None,
            start: None,
            due_at: None,
            latest_at: None,
            is_due: false,
            verdict: None,
            decided_by: None,
            bounds: Vec::new(),
            hold: None,
            referred_by: Vec::new(),
            bucket: None,
            reason: Some(reason.to_owned()),
        }
    }
}
