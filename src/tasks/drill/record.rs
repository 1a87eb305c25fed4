//! The record of a drill: signed, numbered, and chained to the one before it, so that none can be changed or left out unseen.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::pick::{Drawn, Picked};
use crate::backup::codec::Sha256;
use crate::certify::dsse::{Envelope, pae};
use crate::certify::signer::TrustedKeys;
use crate::control::DrillRow;
use crate::installation::{Installation, Operation};
use crate::tasks::oplog::logged_objects;
use crate::tasks::{Result, TaskError};

/// The payload type of a drill record's signed envelope.
pub const RECORD_TYPE: &str = "application/vnd.wangchuan.drill+json";

/// The form of records.
pub(super) const FORMAT_VERSION: u32 = 1;

#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// What a drill's record is called in the operation log.
const OPERATION: &str = "drill.run";

/// What a drill found. This, signed, is the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRecord {
    /// Version of this record's form.
    pub format_version: u32,
    /// Its id.
    pub drill: String,
    /// Its place among the records of the installation, from 1 without gaps.
    pub number: u64,
    /// SHA-256, hex, of the signed record before it; none in the first.
    pub previous: Option<String>,
    /// Why this snapshot.
    pub picked: Picked,
    /// How chance chose it, if it did.
    pub drawn: Option<Drawn>,
    /// `passed` or `failed`.
    pub result: String,
    /// The store.
    pub store: String,
    /// The snapshot.
    pub snapshot: String,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
    /// When the drill began.
    pub begun_at: DateTime<Utc>,
    /// Seconds from the start to a checked database.
    pub rto_seconds: f64,
    /// Seconds between the snapshot and the drill.
    pub rpo_seconds: i64,
    /// Snapshots that were read: it and those that it continues.
    #[serde(default = "one")]
    pub chain_length: u64,
    /// Frames: opened, shredded, lost, corrupt, and in the manifests of all of them.
    pub frames: [u64; 5],
    /// Rows by collection: name, restored, shredded, erased since, stubs.
    pub collections: Vec<(String, u64, u64, u64, u64)>,
    /// Versions that a later increment replaced or removed.
    #[serde(default)]
    pub superseded: u64,
    /// Rows that an erasure took since and that were in the restored database all the same.
    pub erased_reappeared: u64,
    /// Shredded frames tried, and keys tried on each.
    pub tried: [u64; 2],
    /// Of them opened; any makes the drill fail.
    pub resurrected: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// Whether the scratch database was wiped.
    pub cleaned_up: bool,
    /// What it was: a file's path, or the name of a database on the store's scratch server.
    #[serde(default)]
    pub scratch: String,
    /// Who ran it.
    pub operator: String,
}

/// A record from before there were increments.
fn one() -> u64 {
    1
}

impl DrillRecord {
    /// Rows and frames of erased data that were there again.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.erased_reappeared.saturating_add(self.resurrected)
    }
}

/// Gives a record its number and what it continues, signs and stores it, and logs it. Erased data that was there again is an error in
/// the log of the process too.
pub(in crate::tasks) async fn keep(installation: &Installation, record: &mut DrillRecord) -> Result<()> {
    let last = installation.control.read().await?.last_drill().await?;
    record.number = last.as_ref().map_or(0, |last| last.number.unsigned_abs()) + 1;
    record.previous = last.as_ref().map(|last| Sha256::of(&last.record).to_string());
    // In no transaction: the key may lie where it takes its time. Nobody else's record can have come between all the same.
    let row = sign(installation, record).await?;
    let mut tx = installation.control.begin().await?;
    if tx.last_drill().await?.map(|row| row.id) != last.map(|row| row.id) {
        return Err(TaskError::Inconsistent("another drill was recorded meanwhile".to_owned()));
    }
    tx.add_drill(&row).await?;
    tx.commit().await?;
    if row.returned > 0 {
        let (rows, frames) = (record.erased_reappeared, record.resurrected);
        tracing::error!(drill = %row.id, store = %row.store, snapshot = %row.snapshot, rows, frames, "erased data came back in a drill");
    }
    let references = [("erased_reappeared", record.erased_reappeared), ("resurrected", record.resurrected)];
    let operation = Operation {
        name: OPERATION,
        object: &row.id,
        outcome: if row.passed { "success" } else { "failure" },
        detail: (row.returned > 0).then(|| "RESURRECTED".to_owned()),
        references: references.map(|(name, count)| (name.to_owned(), count.to_string())).into(),
        ..Operation::default()
    };
    installation.log(operation).await
}

async fn sign(installation: &Installation, record: &DrillRecord) -> Result<DrillRow> {
    let payload = serde_json::to_vec(record).map_err(|error| TaskError::Proof(error.to_string()))?;
    let signed = pae(RECORD_TYPE, &payload);
    let signature = installation.signer.sign(&signed).await?;
    let envelope = Envelope::make(RECORD_TYPE, payload, signature, installation.signer.key_id());
    Ok(as_row(record, envelope.as_bytes().to_vec()))
}

/// What the control database would say of a signed record, for one that is not in it. Nothing is verified here.
///
/// # Errors
/// When it is no record.
pub fn row_of(record: &[u8]) -> std::result::Result<DrillRow, &'static str> {
    let envelope = Envelope::parse(record).map_err(|_| "the record is no signed envelope")?;
    let said: DrillRecord =
        serde_json::from_slice(envelope.payload()).map_err(|_| "the signed record cannot be read")?;
    Ok(as_row(&said, record.to_vec()))
}

fn as_row(said: &DrillRecord, record: Vec<u8>) -> DrillRow {
    DrillRow {
        id: said.drill.clone(),
        number: i64::try_from(said.number).unwrap_or(i64::MAX),
        store: said.store.clone(),
        snapshot: said.snapshot.clone(),
        passed: said.result == "passed",
        returned: i64::try_from(said.returned()).unwrap_or(i64::MAX),
        at: said.begun_at,
        record,
    }
}

/// Reads a stored record from the very bytes whose signature was checked.
///
/// # Errors
/// Why it counts for nothing, as part of a sentence.
pub fn check_record(row: &DrillRow, trusted: &TrustedKeys) -> std::result::Result<DrillRecord, &'static str> {
    let envelope = Envelope::parse(&row.record).map_err(|_| "the record is no signed envelope")?;
    if envelope.payload_type() != RECORD_TYPE {
        return Err("the envelope holds something else than a drill record");
    }
    let key = trusted.get(envelope.key_id()).ok_or("the record is signed by a key that is not trusted")?;
    if !key.verifies(&envelope.signed_bytes(), envelope.signature()) {
        return Err("the record was changed: its signature does not fit");
    }
    // Read first, so that a newer form is told from a damaged one.
    let unreadable = "the signed record cannot be read";
    let Version { format_version } = serde_json::from_slice(envelope.payload()).map_err(|_| unreadable)?;
    if format_version != FORMAT_VERSION {
        return Err("the record has an unknown format version; a newer version of the program may know it");
    }
    let record: DrillRecord = serde_json::from_slice(envelope.payload()).map_err(|_| unreadable)?;
    let passed = record.result == "passed";
    let says_the_same = record.drill == row.id
        && i64::try_from(record.number) == Ok(row.number)
        && passed == row.passed
        && i64::try_from(record.returned()) == Ok(row.returned)
        && record.store == row.store
        && record.snapshot == row.snapshot
        && record.begun_at.timestamp_millis() == row.at.timestamp_millis();
    if !says_the_same {
        return Err("the control database says something else than the signed record");
    }
    Ok(record)
}

/// What is wrong in the chain of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainProblem {
    /// The drill; none where only its number is known.
    pub drill: Option<String>,
    /// Its number, if it is known.
    pub number: Option<u64>,
    /// What is wrong, as part of a sentence.
    pub what: &'static str,
}

/// Checks stored records, in the order of their numbers: signatures, numbers without a gap, and that each holds the digest of the
/// one before it. `logged` are the drills that the operation log knows of: the newest record could be taken away unseen otherwise.
#[must_use]
pub fn check_chain(rows: &[DrillRow], trusted: &TrustedKeys, logged: &[String]) -> Vec<ChainProblem> {
    check_part(rows, 1, trusted, logged)
}

/// The same of a part of the chain, which begins with this number.
#[must_use]
pub fn check_part(rows: &[DrillRow], first: u64, trusted: &TrustedKeys, logged: &[String]) -> Vec<ChainProblem> {
    let mut problems = Vec::new();
    let mut before: Option<(&DrillRow, bool)> = None;
    let mut next = first;
    for row in rows {
        let number = row.number.unsigned_abs();
        for missing in next..number.min(next + MAX_NAMED) {
            let what = "its record is missing in the chain";
            problems.push(ChainProblem { drill: None, number: Some(missing), what });
        }
        let is_next = number == next;
        next = number + 1;
        let checked = check_record(row, trusted);
        let what = match &checked {
            Err(what) => Some(*what),
            Ok(record) => broken_link(record, before.filter(|_| is_next)),
        };
        if let Some(what) = what {
            problems.push(ChainProblem { drill: Some(row.id.clone()), number: Some(number), what });
        }
        before = Some((row, checked.is_ok()));
    }
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    for drill in logged.iter().filter(|drill| !known.contains(drill.as_str())) {
        let what = "the operation log says that it was run, and its record is missing";
        problems.push(ChainProblem { drill: Some(drill.clone()), number: None, what });
    }
    problems
}

/// Missing numbers that are named one by one.
const MAX_NAMED: u64 = 100;

/// A record must continue the one before it, unless that one is wrong itself or missing, which is said of it alone.
fn broken_link(record: &DrillRecord, before: Option<(&DrillRow, bool)>) -> Option<&'static str> {
    match (before, &record.previous) {
        (None, Some(_)) if record.number == 1 => Some("the first record continues one that is not there"),
        (Some((row, true)), previous) if previous.as_ref() != Some(&Sha256::of(&row.record).to_string()) => {
            Some("it does not continue the record before it: one of the two was put in another's place")
        }
        _ => None,
    }
}

/// All stored records with what is wrong in their chain.
///
/// # Errors
/// When the control database or the operation log cannot be read.
pub async fn verify_records(installation: &Installation) -> Result<(Vec<DrillRow>, Vec<ChainProblem>)> {
    let logged = logged_objects(installation, OPERATION).await?;
    let rows = installation.control.read().await?.drills().await?;
    let problems = check_chain(&rows, installation.signer.trusted(), &logged);
    Ok((rows, problems))
}

#[cfg(test)]
mod tests;
