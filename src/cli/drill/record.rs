//! A stored drill's signed record, checked before anything of it is believed.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::output::shapes::{DrillOutcome, Time, Verification};
use crate::certify::dsse::Envelope;
use crate::certify::signer::TrustedKeys;
use crate::control::DrillRow;
use crate::tasks::drill::{DrillRecord, RECORD_TYPE};

/// A stored drill, read and checked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CheckedDrill {
    /// How it ended; what is not signed for did not pass.
    pub result: DrillOutcome,
    /// Its id.
    pub drill: String,
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

/// Reads a stored record from the very bytes whose signature was checked.
fn check_record(row: &DrillRow, trusted: &TrustedKeys) -> Result<DrillRecord, &'static str> {
    let envelope = Envelope::parse(&row.record).map_err(|_| "the record is no signed envelope")?;
    if envelope.payload_type() != RECORD_TYPE {
        return Err("the envelope holds something else than a drill record");
    }
    let key = trusted.get(envelope.key_id()).ok_or("the record is signed by a key that is not trusted")?;
    if !key.verifies(&envelope.signed_bytes(), envelope.signature()) {
        return Err("the record was changed: its signature does not fit");
    }
    let record: DrillRecord =
        serde_json::from_slice(envelope.payload()).map_err(|_| "the signed record cannot be read")?;
    let passed = record.result == "passed";
    if record.drill != row.id || passed != row.passed || record.snapshot != row.snapshot {
        return Err("the control database says something else than the signed record");
    }
    Ok(record)
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
