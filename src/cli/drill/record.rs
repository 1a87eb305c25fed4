//! A stored drill's signed record, checked before anything of it is believed.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::output::shapes::{DrillOutcome, Time, Verification};
use crate::certify::signer::TrustedKeys;
use crate::control::DrillRow;
use crate::tasks::drill::{DrillRecord, check_record};

/// A stored drill, read and checked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CheckedDrill {
    /// How it ended; what is not signed for did not pass.
    pub result: DrillOutcome,
    /// Its id.
    pub drill: String,
    /// Its place in the chain of records, from 1.
    pub number: i64,
    /// The store.
    pub store: String,
    /// The snapshot.
    pub snapshot: String,
    /// When it began.
    pub at: Time,
    /// Whether the record's signature fits.
    pub signature: Verification,
    /// Why it does not.
    pub problem: Option<&'static str>,
    /// Seconds from the start to a checked database.
    pub rto_seconds: Option<f64>,
    /// Seconds between the snapshot and the drill.
    pub rpo_seconds: Option<i64>,
    /// Erased rows that were in the restored database all the same.
    pub erased_reappeared: Option<u64>,
    #[serde(skip)]
    pub record: Option<DrillRecord>,
}

impl CheckedDrill {
    /// Checks a row.
    pub fn of(row: &DrillRow, trusted: &TrustedKeys) -> Self {
        let checked = check_record(row, trusted);
        let problem = checked.as_ref().err().copied();
        let record = checked.ok();
        Self {
            result: DrillOutcome::of(row.passed && problem.is_none()),
            drill: row.id.clone(),
            number: row.number,
            store: row.store.clone(),
            snapshot: row.snapshot.clone(),
            at: row.at.into(),
            signature: Verification::of(problem.is_none()),
            problem,
            rto_seconds: record.as_ref().map(|record| record.rto_seconds),
            rpo_seconds: record.as_ref().map(|record| record.rpo_seconds),
            erased_reappeared: record.as_ref().map(|record| record.erased_reappeared),
            record,
        }
    }
}
