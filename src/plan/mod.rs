//! The plan: the fixed set of what a run will do, decided before anything is touched. Pure.
//!
//! [`model`] joins configuration and catalogue into one checked picture of a store, with what is changed in rows that are
//! anonymised ([`anonymise`]); [`decide`] turns surveyed rows into
//! verdicts; [`graph`] says in what order rows can go; [`digest`] fixes the result under a salted hash. Nothing here reads a clock or a database.
//!
//! Invariants: every due row has exactly one verdict; a row with an unknown, future or unreadable start event is never
//! due; a parent whose child stays is never erased; a row is anonymised only with all rows that lead to their subject over it.

pub mod anonymise;
pub mod canary;
pub mod decide;
pub mod diff;
pub mod digest;
pub mod graph;
pub mod lint;
pub mod model;
pub mod returned;
pub mod scans;
pub mod unregistered;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::unregistered::UnregisteredTable;
use crate::policy::statute::CatalogueVersion;
use crate::policy::statute::rules::PolicyRule;
use crate::value::{RowKey, Value};

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanKind {
    /// Rows past their retention period.
    Retention,
    /// Everything about one subject, on request.
    Request,
}

/// Why a due row stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "id")]
pub enum Reason {
    /// A legal hold, by its id.
    Hold(String),
    /// A statutory minimum that still runs, by its catalogue key.
    Statute(String),
    /// A statutory minimum that still runs contradicts a maximum that has ended or ends before it: the row stays, and ought to be
    /// used for nothing but storage until the minimum ends.
    Restricted {
        /// The statute that keeps it, by its catalogue key.
        minimum: String,
        /// The statute that wants it gone, by its catalogue key.
        maximum: String,
    },
    /// A row that refers to it stays.
    KeptChild,
    /// The row that it follows stays as it is, and it would lead to its subject over that.
    KeptParent,
    /// Too few other anonymised rows have the same values for it to be lost among them.
    KAnonymity,
    /// A table that is not registered refers to it, by its name.
    UnregisteredChild(String),
    /// A statute binds it, but its start event is missing, unreadable or in the future.
    UnknownStart,
    /// It changed between the plan and the batch, so it no longer is what was planned.
    Changed,
    /// It stands in a circle of rows that refer to each other which is too large for one transaction.
    Circle,
    /// It came after the request, which goes on by itself with what it knew when it began to wait.
    Later,
    /// Its policy was edited: a first share of its rows goes before it.
    Canary {
        /// When the rest goes, if a run took the first share already; none when this plan has it.
        until: Option<DateTime<Utc>>,
    },
    /// Deleting it failed.
    Failed,
}

impl Reason {
    /// Whether a code is that of a row whose policy was edited.
    #[must_use]
    pub fn is_canary(code: &str) -> bool {
        code.split(':').next() == Some("canary")
    }

    /// One word or key for tables, pins and certificates.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Hold(id) => format!("hold:{id}"),
            Self::Statute(key) => format!("statute:{key}"),
            Self::Restricted { minimum, maximum } => format!("restricted:{minimum}:{maximum}"),
            Self::KeptChild => "kept-child".to_owned(),
            Self::KeptParent => "kept-parent".to_owned(),
            Self::KAnonymity => "k-anonymity".to_owned(),
            Self::UnregisteredChild(table) => format!("unregistered-child:{table}"),
            Self::UnknownStart => "unknown-start".to_owned(),
            Self::Changed => "changed".to_owned(),
            Self::Circle => "circle".to_owned(),
            Self::Later => "later".to_owned(),
            Self::Canary { until: None } => "canary".to_owned(),
            Self::Canary { until: Some(until) } => {
                format!("canary:{}", until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
            }
            Self::Failed => "failed".to_owned(),
        }
    }
}

/// How a column of an anonymised row changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Technique {
    /// To NULL.
    Null,
    /// To one value, the same in every row.
    Fixed,
    /// To its strict mask.
    Mask,
    /// To a coarser value.
    Generalise,
    /// To a random value.
    Surrogate,
}

/// What will become of a due row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Erase,
    /// It stays, without anything that leads to its subject.
    Anonymise,
    /// It was anonymised by an earlier run and is as that left it: it is not due, and only its keys are looked after.
    Settled,
    /// It stays, stripped to its minimum.
    Strip(Reason),
    /// It stays untouched.
    Keep(Reason),
}

/// A due row as surveyed. Holds customer data: only sealed forms of it are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRow {
    /// Its key.
    pub key: RowKey,
    /// Its subject's id in canonical text.
    pub subject: Option<Subject>,
    /// The start event exactly as the store has it, to recognise a renewed row.
    pub start: Option<Value>,
    /// The bucket period of that start event, or `open`.
    pub period: String,
}

/// A subject's id. Never printable.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Subject(String);

impl Subject {
    /// Takes the canonical text of an id over.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The canonical text of the value of a subject column; none for NULL.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Integer(number) => Some(Self(number.to_string())),
            Value::Real(number) => Some(Self(number.to_string())),
            Value::Text(text) => Some(Self(text.clone())),
            Value::Blob(bytes) => Some(Self(hex::encode(bytes))),
        }
    }

    /// The text, for a query or a keyed digest.
    #[must_use]
    pub fn dangerous_text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subject(…)")
    }
}

/// A decided row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Index of the collection in the [`model::Model`].
    pub collection: usize,
    /// The row.
    pub row: PlannedRow,
    /// Its verdict.
    pub verdict: Verdict,
    /// Rows with the same number refer to each other in a circle and can only go together; others have one of their own.
    pub component: usize,
}

/// Counts of one collection in a plan. Public: no personal data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CollectionCounts {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// The policy that made rows due.
    pub policy: Option<String>,
    /// All rows of the collection when surveyed.
    pub total: u64,
    /// Whether they were not all counted: a large table has at least `total`, which is enough to tell that no share is above its cap.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// Due rows.
    pub due: u64,
    /// Of them: to erase.
    pub erase: u64,
    /// Of them: to anonymise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub anonymise: u64,
    /// What anonymising changes, by column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<(String, Technique)>,
    /// Of them: to strip.
    pub strip: u64,
    /// Of them: to keep, by reason.
    pub keep: Vec<(String, u64)>,
    /// Rows that are not due because their start event is missing, unreadable or in the future.
    pub unknown_start: u64,
}

impl CollectionCounts {
    /// Rows to erase, anonymise or strip.
    #[must_use]
    pub fn to_do(&self) -> u64 {
        self.erase + self.anonymise + self.strip
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The public part of a plan; its hash covers it and the sealed lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanBody {
    /// What it is for.
    pub kind: PlanKind,
    /// The fixed cutoff.
    pub cutoff: DateTime<Utc>,
    /// SHA-256 of the policies, statutes and registry that decided, hex.
    pub policy_digest: String,
    /// The catalogue of statutes that counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<CatalogueVersion>,
    /// The retentions and statutes that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
    /// What of each policy decides which rows go and what becomes of them, by its id: SHA-256, hex ([`canary::definition`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub definitions: Vec<(String, String)>,
    /// SHA-256 of the schema of each store, hex.
    pub schema_digest: Vec<(String, String)>,
    /// Hold ids in force.
    pub holds: Vec<String>,
    /// Random salt, hex, so that the hash says nothing about its content.
    pub salt: String,
    /// SHA-256 over the keyed digests of all rows with their verdicts, hex.
    pub rows_digest: String,
    /// Counts by collection.
    pub collections: Vec<CollectionCounts>,
    /// How many different customers own rows that are to go; rows that lead to nobody are not counted.
    #[serde(default)]
    pub subjects: u64,
    /// Stores that could not be surveyed, with the reason; while there are any the result is never complete.
    pub skipped: Vec<(String, String)>,
    /// Tables that seem to hold a subject's data and are not registered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unregistered: Vec<UnregisteredTable>,
}

impl PlanBody {
    /// Rows to erase, anonymise or strip.
    #[must_use]
    pub fn to_do(&self) -> u64 {
        self.collections.iter().map(CollectionCounts::to_do).sum()
    }

    /// Sum of the due rows.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.collections.iter().map(|counts| counts.due).sum()
    }
}
