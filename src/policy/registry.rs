//! The registry: stores, collections and policies as the configuration declares them, already typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::anonymise::{Method, SMALLEST_GROUP, SmallGroups};
use super::calendar::{BucketWidth, Grace, Period};
use super::classification::{Category, FieldKind, Level};

/// A registered data store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSpec {
    /// Its name, unique.
    pub name: String,
    /// Where it is; see [`SecretText`].
    pub url: SecretText,
    /// Where to read from, if not from `url`.
    pub read_url: Option<SecretText>,
    /// The responsible person or department.
    pub owner: Option<String>,
    /// What the data is for (`payment`, `medical`, `marketing`, …).
    pub purpose: Option<String>,
    /// The place it stands at, compared with the backup's site.
    pub site: Option<String>,
    /// The zone of its columns without one.
    pub timezone: Tz,
    /// Whether the agent backs it up; `none` must be said explicitly.
    pub backup: BackupMode,
    /// Further copies that the agent does not control.
    pub copies: Vec<CopySpec>,
    /// Its registered collections.
    pub collections: Vec<CollectionSpec>,
    /// Tables that hold nothing of a subject although their columns may look so.
    pub ignored: Vec<String>,
    /// How hard it may be worked on.
    pub budget: Budget,
    /// Replicas whose lag counts.
    pub replicas: Vec<ReplicaSpec>,
    /// What is known of its own files.
    pub files: FilesSpec,
}

/// What becomes of deleted rows in a store's own files, and where those are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilesSpec {
    /// How long something that passes by itself (a reader, an old transaction) may keep deleted rows in the files before `status` names it.
    pub settle_within: Period,
    /// A SQLite file up to this size, in megabytes, is looked through after an erasure and written anew (VACUUM) where unused parts of
    /// pages hold something; 0: never.
    pub vacuum_mb: u32,
    /// The data folder of the database server, where `verify residue` may read its files; otherwise the server is asked.
    pub data: Option<PathBuf>,
}

impl Default for FilesSpec {
    fn default() -> Self {
        Self { settle_within: Period::of_days(7), vacuum_mb: 64, data: None }
    }
}

/// How hard a store may be worked on: batches are kept so short, and pauses between them so long, that it stays within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// The length in milliseconds that the transaction of a batch aims at; the batch size follows it.
    pub transaction_ms: u32,
    /// At most so many rows in a second; without it as many as the rest allows.
    pub rows_per_second: Option<u32>,
    /// How long a batch waits for a lock, in milliseconds; then it gives up and comes back smaller. MariaDB counts whole seconds.
    pub lock_ms: u32,
    /// Other sessions at work (PostgreSQL: active, MariaDB: `Threads_running`) beyond which it slows down.
    pub active_sessions: u32,
    /// Log written by all sessions, in megabytes a second, beyond which it slows down.
    pub log_mb_per_second: u32,
    /// Deleted row versions that are not cleared away yet (PostgreSQL: dead rows, MariaDB: length of the history list) beyond which
    /// it slows down.
    pub unpurged: u64,
    /// Age in seconds of another session's transaction (PostgreSQL) beyond which it slows down: nothing is cleared away behind it.
    pub oldest_transaction_s: u32,
    /// A table with more rows than this is not read from end to end for want of an index, unless its collection says `allow_scan`.
    pub scan_rows: u64,
    /// How long, in seconds, it waits for a replica that is too far behind before the run stops, to go on later.
    pub patience_s: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            transaction_ms: 100,
            rows_per_second: None,
            lock_ms: 5000,
            active_sessions: 32,
            log_mb_per_second: 64,
            unpurged: 10_000_000,
            oldest_transaction_s: 3600,
            scan_rows: 100_000,
            patience_s: 600,
        }
    }
}

/// A replica of a store that must not fall behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Its name, unique in the store.
    pub name: String,
    /// Where to read from it.
    pub url: SecretText,
    /// How far it may be behind, in milliseconds.
    pub max_lag_ms: u32,
}

/// Whether a store is backed up by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackupMode {
    /// Yes, to the configured bucket.
    #[default]
    Bucket,
    /// No; whoever writes this has other backups, and declares them as copies.
    None,
}

/// A declared further copy of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopySpec {
    /// Its name.
    pub name: String,
    /// What it is (`replica`, `dump`, `export`, …); `database-log` for the store's own log and free pages.
    pub kind: String,
    /// When the records in it are gone: a period after erasure such as `30 days`, or `never`.
    pub dies: String,
}

/// What may stand in a column, written in one way or in several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Spellings {
    /// This.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl Spellings {
    /// Each of them.
    #[must_use]
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::Any(all) => all,
        }
    }
}

/// A registered collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectionSpec {
    /// The table.
    pub table: String,
    /// The column that holds the subject's id.
    #[serde(default)]
    pub subject: Option<String>,
    /// Columns that say whose id `subject` holds, with what stands in them for customers: `{ author_type = "customer" }`, or several
    /// spellings, `{ author_type = ["customer", "Customer"] }`. Other rows are no customer's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subject_when: BTreeMap<String, Spellings>,
    /// Or the way to it: `["order_id -> orders"]`, hops separated by items. Composite: `"a, b -> parent"`.
    #[serde(default)]
    pub via: Vec<String>,
    /// The key columns, when the catalogue has none or another is wanted.
    #[serde(default)]
    pub key: Vec<String>,
    /// Columns that stay when the row must stay for the sake of a kept child (keys and foreign keys always stay).
    #[serde(default)]
    pub minimum: Vec<String>,
    /// Declared fields.
    #[serde(default)]
    pub fields: BTreeMap<String, FieldSpec>,
    /// Triggers on DELETE or UPDATE that are known and harmless, by name.
    #[serde(default)]
    pub triggers: Vec<String>,
    /// Whether plans and batches may read the whole table although it is large, because an index is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_scan: bool,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldSpec {
    /// Its kind, which decides mask and cipher.
    pub kind: FieldKind,
    /// Its category, if stricter than the kind's own. Who must agree to a plan follows from it, or from the level, once one of them
    /// is declared.
    #[serde(default)]
    pub category: Option<Category>,
    /// Its level, if stricter than the kind's own.
    #[serde(default)]
    pub level: Option<Level>,
}

/// What a policy does to due rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The row goes.
    Delete,
    /// The row stays, without anything that leads to its subject.
    Anonymise,
}

/// Who must agree before a plan of the policy runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// Nobody: the policy itself is the approval.
    #[default]
    None,
    /// One person.
    One,
    /// Two different persons.
    Two,
}

impl Approval {
    /// How many persons must agree, all different.
    #[must_use]
    pub fn persons(self) -> usize {
        match self {
            Self::None => 0,
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// The largest harm a single run may do; beyond it the run is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// Rows per run.
    #[serde(default = "Cap::default_rows")]
    pub rows: u64,
    /// Share of the collection's rows, in percent.
    #[serde(default = "Cap::default_percent")]
    pub percent: u8,
}

impl Cap {
    fn default_rows() -> u64 {
        100_000
    }

    fn default_percent() -> u8 {
        25
    }
}

impl Default for Cap {
    fn default() -> Self {
        Self { rows: Self::default_rows(), percent: Self::default_percent() }
    }
}

/// How much goes at first when a policy was edited, and how long the rest waits for somebody to notice what the edit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Rows of the policy in a store that may always go at first.
    #[serde(default = "Canary::default_rows")]
    pub rows: u64,
    /// Or this share of its due rows in the store, in percent, where that is more. 100: an edit counts at once.
    #[serde(default = "Canary::default_percent")]
    pub percent: u8,
    /// Hours that the rest waits, from the end of the run that took the first share.
    #[serde(default = "Canary::default_hours")]
    pub hours: u32,
}

impl Canary {
    fn default_rows() -> u64 {
        100
    }

    fn default_percent() -> u8 {
        1
    }

    /// Less than a day, so that the next night's run goes on.
    fn default_hours() -> u32 {
        20
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self { rows: Self::default_rows(), percent: Self::default_percent(), hours: Self::default_hours() }
    }
}

/// A deletion rule (ISO/IEC 27555).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its id, unique.
    pub id: String,
    /// The collections it governs, `table` or `store.table`. Collections that hang on one of them by `via` and have no policy
    /// of their own follow their parent row.
    pub collections: Vec<String>,
    /// How long rows are kept after the start event.
    pub retention: Period,
    /// The column with the start event.
    pub start: String,
    /// What happens then.
    pub action: Action,
    /// With `action = "anonymise"`: what becomes of each field, by the name of its column. Every declared field that is about a
    /// person needs a rule; the way to the subject is cut without one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub anonymise: BTreeMap<String, Method>,
    /// Columns that together could tell whose an anonymised row was: every combination of their values that is left must stand
    /// in at least `k` anonymised rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quasi: Vec<String>,
    /// The smallest such group, at least 5.
    #[serde(default = "Policy::default_k", skip_serializing_if = "Policy::is_default_k")]
    pub k: u32,
    /// What becomes of rows in smaller groups.
    #[serde(default, skip_serializing_if = "Policy::keeps_small_groups")]
    pub small_groups: SmallGroups,
    /// The legal basis of the processing (`contract`, `consent`, …).
    pub basis: String,
    /// Statutes that bind these rows, by catalogue key; those of the kind of records below are added to them.
    #[serde(default)]
    pub statutes: Vec<String>,
    /// The industry profile that counts for this policy, if not the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What kind of the profile's records these rows are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<String>,
    /// Time between deletion and the shred.
    #[serde(default)]
    pub grace: Grace,
    /// Width of the buckets.
    #[serde(default)]
    pub bucket: BucketWidth,
    /// Caps.
    #[serde(default)]
    pub max: Cap,
    /// Who must agree.
    #[serde(default)]
    pub approval: Approval,
    /// How it begins anew when it was edited.
    #[serde(default, skip_serializing_if = "Canary::is_default")]
    pub canary: Canary,
}

impl Policy {
    /// The `k` of a policy that names none.
    #[must_use]
    pub fn default_k() -> u32 {
        SMALLEST_GROUP
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    fn is_default_k(k: &u32) -> bool {
        *k == SMALLEST_GROUP
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    fn keeps_small_groups(small: &SmallGroups) -> bool {
        *small == SmallGroups::Keep
    }
}

/// Text that may hold a password: never printed, wiped on drop.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the driver that needs it.
    #[must_use]
    pub fn dangerous_text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}
