//! A stored drill's signed record, checked before anything of it is believed.

use serde::Serialize;

use crate::certify::dsse::Envelope;
use crate::certify::signer::TrustedKeys;
use crate::control::{DrillRow, time_text};
use crate::tasks::drill::{DrillRecord, RECORD_TYPE};

/// A stored drill, read and checked.
#[derive(Debug, Serialize)]
pub struct CheckedDrill {
    pub drill: String,
    pub result: &'static str,
    pub store: String,
    pub snapshot: String,
    pub at: String,
    /// `valid` or `invalid`.
    pub signature: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<&'static str>,
    pub rto_seconds: Option<f64>,
    pub rpo_seconds: Option<i64>,
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
            drill: row.id.clone(),
            // What is not signed for did not pass.
            result: if row.passed && problem.is_none() { "passed" } else { "failed" },
            store: row.store.clone(),
            snapshot: row.snapshot.clone(),
            at: time_text(row.at),
            signature: if problem.is_none() { "valid" } else { "invalid" },
            problem,
            rto_seconds: record.as_ref().map(|record| record.rto_seconds),
            rpo_seconds: record.as_ref().map(|record| record.rpo_seconds),
            erased_reappeared: record.as_ref().map(|record| record.erased_reappeared),
            record,
        }
    }
}
