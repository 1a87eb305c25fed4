//! Words and small shapes that many JSON documents share, so that a name means the same everywhere.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::Words;
use crate::control::{DoomedRoot, RunRow, SnapshotRow, time_text};
use crate::tasks::backup::WhyFull;
use crate::tasks::erasure::RunBody;
use crate::tasks::finality::last_date;
use crate::tasks::status::DoomedOutsideKey;

/// How a command ended; the same words everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All of it is done.
    Complete,
    /// A part is done; the rest failed, was skipped or is still to come, and the document says what.
    Partial,
    /// There was nothing to do or to show.
    NothingFound,
    /// Refused to protect data; nothing was done.
    Refused,
    /// It failed.
    Failed,
}

impl Outcome {
    /// Of a list: an empty one is nothing found.
    #[must_use]
    pub fn of_list(is_empty: bool) -> Self {
        if is_empty { Self::NothingFound } else { Self::Complete }
    }
}

/// How drills ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DrillOutcome {
    /// What must come back came back, and what was erased did not.
    Passed,
    /// Something is wrong, or could not be drilled.
    Failed,
    /// There is no snapshot to drill with.
    NothingFound,
}

impl DrillOutcome {
    /// By whether it passed.
    #[must_use]
    pub fn of(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

/// One thing that a verification checked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checked {
    /// What: `signature`, `receipt`, `sequence`, …
    pub check: String,
    /// Whether it fits.
    pub good: bool,
    /// In words.
    pub what: String,
}

/// How a verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// Everything that was checked fits.
    Valid,
    /// Something does not fit.
    Invalid,
    /// It could not be verified whole; nothing that was seen is wrong.
    Failed,
    /// There is nothing to verify.
    NothingFound,
}

impl Verification {
    /// By whether everything fits.
    #[must_use]
    pub fn of(is_valid: bool) -> Self {
        if is_valid { Self::Valid } else { Self::Invalid }
    }
}

/// An instant: RFC 3339, UTC, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(DateTime<Utc>);

impl From<DateTime<Utc>> for Time {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time)
    }
}

impl Time {
    /// The instant itself.
    #[must_use]
    pub fn instant(self) -> DateTime<Utc> {
        self.0
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&time_text(self.0))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "description": "an instant in RFC 3339, UTC, with milliseconds"})
    }
}

/// What became of due rows: `due = erased + anonymised + kept + failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Counts {
    /// Rows that were due.
    pub due: i64,
    /// Rows that are absent from the live stores. Whether backups still open them is said beside it.
    pub erased: i64,
    /// Rows that stay without anything that identifies a person.
    pub anonymised: i64,
    /// Rows that stay, with a reason; those stripped to their declared minimum included.
    pub kept: i64,
    /// Of the kept ones: stripped to their declared minimum.
    pub stripped: i64,
    /// Rows that could not be erased.
    pub failed: i64,
}

impl Counts {
    /// Of a run.
    #[must_use]
    pub fn of(body: &RunBody) -> Self {
        let kept = body.kept + body.stripped;
        let (due, erased, stripped, failed) = (body.due, body.erased, body.stripped, body.failed);
        Self { due, erased, anonymised: body.anonymised, kept, stripped, failed }
    }

    /// With the rows of another run.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            due: self.due + other.due,
            erased: self.erased + other.erased,
            anonymised: self.anonymised + other.anonymised,
            kept: self.kept + other.kept,
            stripped: self.stripped + other.stripped,
            failed: self.failed + other.failed,
        }
    }
}

/// A store that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Skipped {
    /// Its name.
    pub store: String,
    /// Why.
    pub what: String,
}

impl Skipped {
    /// All stores of a plan or run that were left out.
    #[must_use]
    pub fn all(skipped: &[(String, String)]) -> Vec<Self> {
        skipped.iter().map(|(store, what)| Self { store: store.clone(), what: what.clone() }).collect()
    }
}

/// Erased rows that backups still open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StillReadable {
    /// How many.
    pub rows: i64,
    /// The date by which the last of them cannot be opened any more.
    #[schemars(extend("format" = "date"))]
    pub until: String,
}

impl StillReadable {
    /// Of a run, if there are any.
    #[must_use]
    pub fn of(body: &RunBody) -> Option<Self> {
        body.pending.clone().map(|(rows, until)| Self { rows, until })
    }
}

/// A run of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RunEntry {
    /// Its id.
    pub run: String,
    /// `retention` or `request`.
    pub kind: String,
    /// Where it stands: `approved`, `deleted`, `verified`, `shred-pending`, `shredded`, `final`, `undoing`, `undone`
    /// or `failed`.
    pub state: String,
    /// The number of the request that it carries out.
    pub request: Option<i64>,
    /// When it began.
    pub begun_at: Time,
    /// When absence was read back.
    pub verified_at: Option<Time>,
    /// Its keys die after this time, not before.
    pub grace_until: Option<Time>,
    /// When its keys were destroyed.
    pub shredded_at: Option<Time>,
    /// The day after which a shredded run becomes final; null while that cannot be said, and for every other state.
    #[schemars(extend("format" = "date"))]
    pub final_after: Option<String>,
    /// When it became final: the date of every copy that is known was past.
    pub final_at: Option<Time>,
    /// Its rows.
    #[serde(flatten)]
    pub counts: Counts,
    /// Erased rows that backups still open after the last shred, because others share their keys.
    pub pending: Option<StillReadable>,
    /// When the destruction of its keys is irrevocable, while that is still to come: no key that is left opens its rows, but the root
    /// slot can be told to call that off until then.
    pub irrevocable_at: Option<Time>,
    /// Rows that were put back, and count as kept; null when the run was not undone.
    pub undone: Option<i64>,
}

impl RunEntry {
    /// Of a stored run.
    #[must_use]
    pub fn of(run: &RunRow, body: &RunBody) -> Self {
        Self {
            run: run.id.clone(),
            kind: run.kind.clone(),
            state: run.state.clone(),
            request: run.request,
            begun_at: run.begun_at.into(),
            verified_at: run.verified_at.map(Time::from),
            grace_until: run.grace_until.map(Time::from),
            shredded_at: run.shredded_at.map(Time::from),
            final_after: body
                .residuals
                .as_deref()
                .filter(|_| body.final_at.is_none())
                .and_then(last_date)
                .map(|date| date.to_string()),
            final_at: body.final_at.map(Time::from),
            counts: Counts::of(body),
            pending: StillReadable::of(body),
            irrevocable_at: body.irrevocable_at.map(Time::from),
            undone: body.undone,
        }
    }
}

/// An old root key whose slot destroys it only at a date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DoomedRootEntry {
    /// Its generation.
    pub generation: i64,
    /// When its destruction is irrevocable.
    pub irrevocable_at: Time,
    /// How often somebody called it off, so that it was begun again.
    pub called_off: i64,
}

impl DoomedRootEntry {
    /// Of a stored one.
    #[must_use]
    pub fn of(root: &DoomedRoot) -> Self {
        let irrevocable_at = Time::from(root.irrevocable_at);
        Self { generation: root.generation, irrevocable_at, called_off: root.called_off }
    }

    /// As one line.
    #[must_use]
    pub fn words(&self) -> Words {
        let Self { generation, irrevocable_at, called_off } = self;
        let Words { en, zh } = called_off_words(*called_off);
        Words::new(
            format!(
                "the root of generation {generation} opens nothing and is irrevocably gone at {irrevocable_at}{en}"
            ),
            format!("第 {generation} 代根密钥已不能使用，{irrevocable_at} 起不可恢复{zh}"),
        )
    }
}

/// How often a destruction was called off, as the end of a sentence; empty when it never was.
fn called_off_words(times: i64) -> Words {
    match times {
        0 => Words::new("", ""),
        times => Words::new(
            format!("; called off {times} times, and begun again"),
            format!("；曾被撤回 {times} 次，已重新安排"),
        ),
    }
}

/// An application's key whose service deletes it only at a date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DoomedOutsideKeyEntry {
    /// The id of its registration.
    pub id: String,
    /// The entry of the configuration.
    pub name: String,
    /// When nobody can call that off any more.
    pub irrevocable_at: Time,
    /// How often somebody called it off, or moved its date.
    pub called_off: u32,
}

impl DoomedOutsideKeyEntry {
    /// Of one that `status` found.
    #[must_use]
    pub fn of(key: &DoomedOutsideKey) -> Self {
        let (id, name) = (key.id.clone(), key.name.clone());
        Self { id, name, irrevocable_at: Time::from(key.irrevocable_at), called_off: key.called_off }
    }

    /// As one line.
    #[must_use]
    pub fn words(&self) -> Words {
        let Self { id, name, irrevocable_at, called_off } = self;
        let Words { en, zh } = called_off_words(i64::from(*called_off));
        Words::new(
            format!("outside key {name} ({id}) opens nothing and is irrevocably gone at {irrevocable_at}{en}"),
            format!("外部密钥 {name}（{id}）已不能使用，{irrevocable_at} 起不可恢复{zh}"),
        )
    }
}

/// A snapshot in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnapshotEntry {
    /// The store it was taken of.
    pub store: String,
    /// Its id.
    pub snapshot: String,
    /// `full` or `incremental`.
    pub kind: String,
    /// The chain, by the id of the full snapshot with which it begins: increments share it.
    pub chain: String,
    /// The id of the snapshot that it continues; none for a full one.
    pub parent: Option<String>,
    /// Why it is a full one although an increment was asked for; none otherwise.
    pub why_full: Option<WhyFull>,
    /// Row versions in it: all of a full one, the changed ones of an increment.
    pub rows: i64,
    /// Rows that the store held when it was taken: what a restore of it is about.
    pub living_rows: i64,
    /// Sealed frames in it.
    pub frames: i64,
    /// Bytes in the bucket, encrypted and padded.
    pub bytes_stored: i64,
    /// When it began.
    pub begun_at: Time,
    /// When it counted as taken.
    pub committed_at: Option<Time>,
}

impl SnapshotEntry {
    /// Of a stored snapshot.
    #[must_use]
    pub fn of(row: &SnapshotRow) -> Self {
        Self {
            store: row.store.clone(),
            snapshot: row.id.clone(),
            kind: row.kind.clone(),
            chain: row.begins_with.clone(),
            parent: row.parent.clone(),
            why_full: row.why_full.as_deref().and_then(WhyFull::of_code),
            rows: row.rows,
            living_rows: row.living,
            frames: row.frames,
            bytes_stored: row.bytes,
            begun_at: row.begun_at.into(),
            committed_at: row.committed_at.map(Time::from),
        }
    }
}

/// Sealed frames by what became of them: `opened + shredded + lost + corrupt = total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Frames {
    /// Opened and checked.
    pub opened: u64,
    /// Their key was destroyed.
    pub shredded: u64,
    /// Their key is missing without having been destroyed.
    pub lost: u64,
    /// Damaged.
    pub corrupt: u64,
    /// In the manifest.
    pub total: u64,
}

/// The newest state record in the second place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SecondPlace {
    /// Its number.
    pub record: u64,
    /// The key generation that it belongs to.
    pub generation: i64,
    /// When its image was taken.
    #[schemars(extend("format" = "date-time"))]
    pub at: Option<String>,
}

/// A store that something could not be done for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailedStore {
    /// Its name.
    pub store: String,
    /// What happened.
    pub what: String,
    /// Whether the same command may succeed later without any change.
    pub retry: bool,
}
