//! The JSON of `drill run`.

use serde::Serialize;

use super::super::backup::FailedStore;
use crate::tasks::drill::DrillRecord;

/// The worst of all drills of one call, and each of them.
#[derive(Debug, Serialize)]
pub struct RunDocument<'r> {
    /// `passed`, `failed` or `nothing-found`.
    pub result: &'static str,
    pub drill: Option<&'r str>,
    rto_seconds: f64,
    pub rpo_seconds: i64,
    erased_reappeared: u64,
    drills: Vec<RunDrill<'r>>,
    /// Stores that could not be drilled at all.
    failed: &'r [FailedStore],
}

/// A record with its numbers named. The record itself is shown by `drill show`, as it was signed.
#[derive(Debug, Serialize)]
struct RunDrill<'r> {
    drill: &'r str,
    result: &'r str,
    store: &'r str,
    snapshot: &'r str,
    rto_seconds: f64,
    rpo_seconds: i64,
    erased_reappeared: u64,
    frames: Frames,
    collections: Vec<DrilledCollection<'r>>,
    frames_tried: u64,
    keys_tried: u64,
    resurrected: u64,
    problems: &'r [String],
    cleaned_up: bool,
}

#[derive(Debug, Serialize)]
struct Frames {
    opened: u64,
    shredded: u64,
    lost: u64,
    corrupt: u64,
    total: u64,
}

#[derive(Debug, Serialize)]
struct DrilledCollection<'r> {
    store: &'r str,
    collection: &'r str,
    restored: u64,
    shredded: u64,
    erased_since: u64,
    stubs: u64,
}

impl<'r> RunDrill<'r> {
    fn of(record: &'r DrillRecord) -> Self {
        let [opened, shredded, lost, corrupt, total] = record.frames;
        let [frames_tried, keys_tried] = record.tried;
        let collection = |(name, restored, shredded, erased_since, stubs): &'r (String, u64, u64, u64, u64)| {
            let (restored, shredded, erased_since, stubs) = (*restored, *shredded, *erased_since, *stubs);
            DrilledCollection { store: &record.store, collection: name, restored, shredded, erased_since, stubs }
        };
        Self {
            drill: &record.drill,
            result: &record.result,
            store: &record.store,
            snapshot: &record.snapshot,
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
        }
    }
}

impl<'r> RunDocument<'r> {
    /// Sums up; a store that could not be drilled fails the call as a failed drill does.
    pub fn of(records: &'r [DrillRecord], not_drilled: &'r [FailedStore]) -> Self {
        let failed = records.iter().find(|record| record.result != "passed");
        let result = match (failed, records) {
            (Some(_), _) => "failed",
            (None, _) if !not_drilled.is_empty() => "failed",
            (None, []) => "nothing-found",
            (None, _) => "passed",
        };
        Self {
            result,
            drill: failed.or(records.last()).map(|record| record.drill.as_str()),
            rto_seconds: records.iter().map(|record| record.rto_seconds).fold(0.0, f64::max),
            rpo_seconds: records.iter().map(|record| record.rpo_seconds).max().unwrap_or(0),
            erased_reappeared: records.iter().map(|record| record.erased_reappeared).sum(),
            drills: records.iter().map(RunDrill::of).collect(),
            failed: not_drilled,
        }
    }
}
