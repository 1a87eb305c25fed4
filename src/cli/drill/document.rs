//! The JSON of `drill run`, and of a record in `drill show`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::output::Document;
use super::super::output::shapes::{DrillOutcome, FailedStore, Frames, Time};
use crate::tasks::drill::DrillRecord;

/// The worst of all drills of one call, and each of them.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RunDocument<'r> {
    /// `passed`, `failed` with exit code 1, or `nothing-found` without snapshots.
    pub result: DrillOutcome,
    /// The id of the first drill that failed, otherwise of the last.
    pub drill: Option<&'r str>,
    /// The longest of all: seconds from the start to a checked database.
    rto_seconds: f64,
    /// The oldest of all: seconds between the snapshot and the drill.
    pub rpo_seconds: i64,
    /// Erased rows that were in a restored database all the same.
    erased_reappeared: u64,
    /// Each drill.
    drills: Vec<RecordEntry<'r>>,
    /// Stores that could not be drilled at all.
    failed_stores: &'r [FailedStore],
}

impl Document for RunDocument<'_> {
    const OF: &'static [&'static str] = &["drill run"];
}

/// What a drill found; all of it is signed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RecordEntry<'r> {
    /// The drill's id.
    drill: &'r str,
    /// Its place in the chain of records, from 1.
    number: u64,
    /// SHA-256 of the signed record before it, in hex; null in the first.
    previous_sha256: Option<&'r str>,
    /// Why this snapshot: `latest`, `random`, `oldest` or `named`.
    picked: &'static str,
    /// The random seed of the choice, in hex; null when there was none.
    pick_seed: Option<&'r str>,
    /// Among how many snapshots the seed chose: seed modulo this, counted from the oldest; null when there was none.
    pick_among: Option<u64>,
    /// How it ended.
    result: DrillOutcome,
    /// The store.
    store: &'r str,
    /// The snapshot.
    snapshot: &'r str,
    /// SHA-256 of the snapshot's manifest, in hex.
    manifest_sha256: &'r str,
    /// When it began.
    begun_at: Time,
    /// Who ran it.
    operator: &'r str,
    /// Seconds from the start to a checked database.
    rto_seconds: f64,
    /// Seconds between the snapshot and the drill.
    rpo_seconds: i64,
    /// Erased rows that were in the restored database all the same.
    erased_reappeared: u64,
    /// What became of the snapshot's frames.
    frames: Frames,
    /// Rows by collection.
    collections: Vec<DrilledCollection<'r>>,
    /// Shredded frames that were tried to be opened.
    frames_tried: u64,
    /// Keys that were tried on each of them.
    keys_tried: u64,
    /// Of them opened; any makes the drill fail.
    resurrected: u64,
    /// What is wrong.
    problems: &'r [String],
    /// Whether the scratch database was wiped.
    cleaned_up: bool,
    /// What it was: a file's path, or the name of a database on the store's scratch server.
    scratch: &'r str,
}

/// The rows of one collection.
#[derive(Debug, Serialize, JsonSchema)]
struct DrilledCollection<'r> {
    /// The store.
    store: &'r str,
    /// The collection.
    collection: &'r str,
    /// Rows put back.
    restored: u64,
    /// Rows whose key is destroyed.
    shredded: u64,
    /// Rows that opened but were erased since.
    erased_since: u64,
    /// Key-only rows put in for the sake of a child.
    stubs: u64,
}

impl<'r> RecordEntry<'r> {
    /// Names a record's numbers.
    pub fn of(record: &'r DrillRecord) -> Self {
        let [opened, shredded, lost, corrupt, total] = record.frames;
        let [frames_tried, keys_tried] = record.tried;
        let collection = |(name, restored, shredded, erased_since, stubs): &'r (String, u64, u64, u64, u64)| {
            let (restored, shredded, erased_since, stubs) = (*restored, *shredded, *erased_since, *stubs);
            DrilledCollection { store: &record.store, collection: name, restored, shredded, erased_since, stubs }
        };
        Self {
            drill: &record.drill,
            number: record.number,
            previous_sha256: record.previous.as_deref(),
            picked: record.picked.code(),
            pick_seed: record.drawn.as_ref().map(|drawn| drawn.seed.as_str()),
            pick_among: record.drawn.as_ref().map(|drawn| drawn.among),
            result: DrillOutcome::of(record.result == "passed"),
            store: &record.store,
            snapshot: &record.snapshot,
            manifest_sha256: &record.manifest_sha256,
            begun_at: record.begun_at.into(),
            operator: &record.operator,
            rto_seconds: record.rto_seconds,
            rpo_seconds: record.rpo_seconds,
            erased_reappeared: record.erased_reappeared,
            frames: Frames { opened, shredded, lost, corrupt, total },
            collections: record.collections.iter().map(collection).collect(),
            frames_tried,
            keys_tried,
            resurrected: record.resurrected,
            problems: &record.problems,
            cleaned_up: record.cleaned_up,
            scratch: &record.scratch,
        }
    }
}

impl<'r> RunDocument<'r> {
    /// Sums up; a store that could not be drilled fails the call as a failed drill does.
    pub fn of(records: &'r [DrillRecord], not_drilled: &'r [FailedStore]) -> Self {
        let failed = records.iter().find(|record| record.result != "passed");
        let result = match (failed, records) {
            (Some(_), _) => DrillOutcome::Failed,
            (None, _) if !not_drilled.is_empty() => DrillOutcome::Failed,
            (None, []) => DrillOutcome::NothingFound,
            (None, _) => DrillOutcome::Passed,
        };
        Self {
            result,
            drill: failed.or(records.last()).map(|record| record.drill.as_str()),
            rto_seconds: records.iter().map(|record| record.rto_seconds).fold(0.0, f64::max),
            rpo_seconds: records.iter().map(|record| record.rpo_seconds).max().unwrap_or(0),
            erased_reappeared: records.iter().map(|record| record.erased_reappeared).sum(),
            drills: records.iter().map(RecordEntry::of).collect(),
            failed_stores: not_drilled,
        }
    }
}
