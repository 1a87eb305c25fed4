//! The evidence file of a certificate: one line of JSON per erased row, object or key. Pure.
//!
//! It stays in the company; the certificate carries its digest. `pre` is a keyed digest of the content, fixed *before*
//! the act, so that nothing can be made up afterwards; all keyed digests die with their key, and the file with them.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::check::is_sha256_hex;
use super::statement::{Action, Statement, Timestamp, VerificationMethod, evidence_name};

/// The target that sums up collections which do not fit into a certificate; the evidence file names each of them.
pub const OTHERS: &str = "others";

/// The longest line, in bytes.
const MAX_LINE_BYTES: usize = 4096;

/// What the check found afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// It is gone.
    Absent,
    /// It is still there.
    Present,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRow {
    /// The target's id.
    #[serde(rename = "t")]
    pub target_id: String,
    /// Keyed digest of the row's or object's key, hex.
    #[serde(rename = "r")]
    pub reference: String,
    /// Keyed digest of the content before the act, hex.
    #[serde(rename = "pre")]
    pub content_before: String,
    /// What was done.
    #[serde(rename = "a")]
    pub action: Action,
    /// When.
    pub at: Timestamp,
    /// What the check found.
    #[serde(rename = "post")]
    pub after: After,
    /// How it was checked.
    #[serde(rename = "chk")]
    pub check: VerificationMethod,
}

/// What is wrong with a row or a file. Trying again does not help.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EvidenceError {
    /// A row breaks the rules.
    #[error("evidence line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file shows less, or more, than the certificate claims.
    #[error("the evidence of {target} shows {shown} rows, and the certificate claims {claimed} {what}")]
    OtherCount {
        /// The target.
        target: String,
        /// Which rows.
        what: &'static str,
        /// How many the file has.
        shown: u64,
        /// How many the certificate has.
        claimed: u64,
    },
    /// The file is not the one the certificate is about.
    #[error("the evidence file does not have the digest in the certificate")]
    OtherFile,
    /// The certificate is not about this file name.
    #[error("the certificate is not about an evidence file of its own name")]
    OtherName,
}

/// Counts of a file, per target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EvidenceTotals {
    /// Lines that say absent, by target.
    pub absent: BTreeMap<String, u64>,
    /// Lines that say present, by target.
    pub present: BTreeMap<String, u64>,
}

/// Makes the lines of a file and its digest, without holding the file.
pub struct EvidenceWriter {
    context: Context,
    rows: u64,
}

impl Default for EvidenceWriter {
    fn default() -> Self {
        Self { context: Context::new(&SHA256), rows: 0 }
    }
}

impl EvidenceWriter {
    /// The next line, with its newline, to be appended to the file as it is.
    pub fn line(&mut self, row: &EvidenceRow) -> Result<String, EvidenceError> {
        let line = self.rows + 1;
        check_row(row).map_err(|what| EvidenceError::Line { line, what })?;
        let mut text =
            serde_json::to_string(row).map_err(|_| EvidenceError::Line { line, what: "cannot be encoded" })?;
        text.push('\n');
        self.context.update(text.as_bytes());
        self.rows = line;
        Ok(text)
    }

    /// The digest of the file in hex, and how many lines it has.
    #[must_use]
    pub fn finish(self) -> (String, u64) {
        (hex::encode(self.context.finish().as_ref()), self.rows)
    }
}

fn check_row(row: &EvidenceRow) -> Result<(), &'static str> {
    if !super::check::is_id(&row.target_id) || super::lint::personal_shape(&row.target_id).is_some() {
        return Err("the target is not an id");
    }
    if !is_sha256_hex(&row.reference) || !is_sha256_hex(&row.content_before) {
        return Err("a keyed digest is not 64 hex digits");
    }
    Ok(())
}

/// Checks a whole file against the certificate that is about it, and counts it.
pub fn verify_evidence(file: &[u8], statement: &Statement) -> Result<EvidenceTotals, EvidenceError> {
    let name = evidence_name(&statement.predicate.certificate_id);
    let subject = statement.subject.iter().find(|subject| subject.name == name).ok_or(EvidenceError::OtherName)?;
    if hex::encode(crate::log::tree::sha256(file)) != subject.digest.sha256 {
        return Err(EvidenceError::OtherFile);
    }
    let mut totals = EvidenceTotals::default();
    for (line, bytes) in (1u64..).zip(file.split_inclusive(|byte| *byte == b'\n')) {
        let malformed = |what| EvidenceError::Line { line, what };
        if bytes.last() != Some(&b'\n') || bytes.len() > MAX_LINE_BYTES {
            return Err(malformed("is too long or cut off"));
        }
        let row: EvidenceRow = serde_json::from_slice(bytes).map_err(|_| malformed("is not an evidence row"))?;
        check_row(&row).map_err(malformed)?;
        let counts = if row.after == After::Absent { &mut totals.absent } else { &mut totals.present };
        *counts.entry(row.target_id).or_default() += 1;
    }
    check_totals(&totals, statement)?;
    Ok(totals)
}

/// Every row that is said to be erased has a line that says absent, and every anonymised one a line that says present; stripped rows,
/// which are counted as retained, have one of those too.
fn check_totals(totals: &EvidenceTotals, statement: &Statement) -> Result<(), EvidenceError> {
    let predicate = &statement.predicate;
    let listed = |id: &str| predicate.targets.iter().any(|target| target.target_id == id);
    let of = |counts: &BTreeMap<String, u64>, target: &str| {
        let is_meant = |id: &str| if target == OTHERS { !listed(id) || id == OTHERS } else { id == target };
        counts.iter().filter(|(id, _)| is_meant(id)).map(|(_, rows)| *rows).sum::<u64>()
    };
    for target in &predicate.targets {
        // The end of an outside key or a medium is the end of one object.
        let erased = if predicate.is_of_object() { target.objects_erased } else { target.records_erased };
        let (absent, present) = (of(&totals.absent, &target.target_id), of(&totals.present, &target.target_id));
        let wrong = |what, shown, claimed| {
            Err(EvidenceError::OtherCount { target: target.target_id.clone(), what, shown, claimed })
        };
        if absent != erased {
            return wrong("erased", absent, erased);
        }
        let changed = target.records_anonymized;
        if present < changed || present > changed.saturating_add(target.records_retained) {
            return wrong("anonymized", present, changed);
        }
    }
    let has_others = listed(OTHERS);
    let mut strays = totals.absent.iter().chain(&totals.present).filter(|(id, _)| !listed(id) && !has_others);
    match strays.next() {
        Some((target, shown)) => {
            Err(EvidenceError::OtherCount { target: target.clone(), what: "at all", shown: *shown, claimed: 0 })
        }
        None => Ok(()),
    }
}
