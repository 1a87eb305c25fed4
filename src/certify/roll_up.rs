//! The list behind a roll-up: one line of JSON for each certificate of its period, and for each run that has none. Pure.
//!
//! It stays in the company beside the evidence files; the roll-up carries its digest.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::check::{is_id, is_sha256_hex, is_uuid};
use super::evidence::EvidenceError;
use super::statement::{CertificateTotals, ReceiptTotals, RollUpStatement, RunTotals, evidence_name};
use crate::log::tree::sha256;

/// How the filing of a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filed {
    /// With a receipt of this grade.
    GradeA,
    /// With a receipt of this grade.
    GradeB,
    /// With a receipt of this grade.
    GradeC,
    /// With a receipt of this grade.
    GradeD,
    /// Not filed yet.
    Waiting,
    /// Refused by the audit service.
    Refused,
}

/// A certificate in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedCertificate {
    /// Its id.
    pub certificate: String,
    /// Its number.
    pub sequence: u64,
    /// SHA-256 of what was signed, hex.
    pub digest: String,
    /// Its filing.
    pub filed: Filed,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListLine {
    /// The run or outside key that it is about; absent for a roll-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Its certificate; absent for a run that has none.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ListedCertificate>,
}

/// What a list comes to; `waiting_before` is not in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// The runs.
    pub runs: RunTotals,
    /// The certificates.
    pub certificates: CertificateTotals,
    /// Their receipts.
    pub receipts: ReceiptTotals,
}

/// Counts lines, which stand in the order of the numbers.
#[must_use]
pub fn totals(lines: &[ListLine], waiting_before: u64) -> Totals {
    let listed = || lines.iter().filter_map(|line| line.certificate.as_ref());
    let count = |filed: Filed| listed().filter(|certificate| certificate.filed == filed).count() as u64;
    let about = |is_certified: bool| -> BTreeSet<&str> {
        let lines = lines.iter().filter(|line| line.certificate.is_some() == is_certified);
        lines.filter_map(|line| line.about.as_deref()).collect()
    };
    // One that has a certificate, and not the one that its present state wants, is without.
    let without = about(false);
    let certified = about(true).difference(&without).count() as u64;
    let without = without.len() as u64;
    Totals {
        runs: RunTotals { ended: certified + without, certified, without_certificate: without },
        certificates: CertificateTotals {
            issued: listed().count() as u64,
            first_sequence: listed().next().map(|certificate| certificate.sequence),
            last_sequence: listed().next_back().map(|certificate| certificate.sequence),
        },
        receipts: ReceiptTotals {
            grade_a: count(Filed::GradeA),
            grade_b: count(Filed::GradeB),
            grade_c: count(Filed::GradeC),
            grade_d: count(Filed::GradeD),
            waiting: count(Filed::Waiting),
            refused: count(Filed::Refused),
            waiting_before,
        },
    }
}

/// The list as a file, and its digest in hex.
///
/// # Errors
/// When a line is not what it should be.
pub fn write(lines: &[ListLine]) -> Result<(String, String), EvidenceError> {
    let mut text = String::new();
    for (number, line) in (1..).zip(lines) {
        check_line(line).map_err(|what| EvidenceError::Line { line: number, what })?;
        let encoded = serde_json::to_string(line);
        text += &encoded.map_err(|_| EvidenceError::Line { line: number, what: "cannot be encoded" })?;
        text.push('\n');
    }
    let digest = hex::encode(sha256(text.as_bytes()));
    Ok((text, digest))
}

/// Checks a list against the roll-up that is about it, and returns its lines.
///
/// # Errors
/// When it is another file, damaged, or counts to something else.
pub fn verify(file: &[u8], statement: &RollUpStatement) -> Result<Vec<ListLine>, EvidenceError> {
    let name = evidence_name(&statement.predicate.certificate_id);
    let subject = statement.subject.iter().find(|subject| subject.name == name).ok_or(EvidenceError::OtherName)?;
    if hex::encode(sha256(file)) != subject.digest.sha256 {
        return Err(EvidenceError::OtherFile);
    }
    let mut lines = Vec::new();
    for (number, bytes) in (1u64..).zip(file.split_inclusive(|byte| *byte == b'\n')) {
        let malformed = |what| EvidenceError::Line { line: number, what };
        let line: ListLine = serde_json::from_slice(bytes).map_err(|_| malformed("is not a line of a list"))?;
        check_line(&line).map_err(malformed)?;
        lines.push(line);
    }
    let said = &statement.predicate;
    let found = totals(&lines, said.receipt_totals.waiting_before);
    let fits = (&found.runs, &found.certificates, &found.receipts)
        == (&said.run_totals, &said.certificate_totals, &said.receipt_totals);
    if fits { Ok(lines) } else { Err(EvidenceError::Line { line: 0, what: "the list counts to something else" }) }
}

fn check_line(line: &ListLine) -> Result<(), &'static str> {
    if line.about.as_deref().is_some_and(|about| !is_id(about)) {
        return Err("what it is about is no id");
    }
    match &line.certificate {
        None if line.about.is_none() => Err("is about nothing"),
        None => Ok(()),
        Some(found) if is_uuid(&found.certificate) && is_sha256_hex(&found.digest) => Ok(()),
        Some(_) => Err("does not name a certificate"),
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(sequence: u64, filed: Filed) -> ListLine {
        let certificate = format!("01a200dd-ae98-7942-a219-{sequence:012}");
        let digest = hex::encode(sha256(&sequence.to_be_bytes()));
        let listed = ListedCertificate { certificate, sequence, digest, filed };
        ListLine { about: Some(format!("run-{}", sequence / 2)), certificate: Some(listed) }
    }

    #[test]
    fn runs_are_counted_once_and_certificates_each() {
        let uncertified = ListLine { about: Some("run-9".into()), certificate: None };
        let known = ListLine { about: Some("run-1".into()), certificate: None };
        let lines = [
            certificate(2, Filed::GradeA),
            certificate(3, Filed::GradeB),
            certificate(4, Filed::Waiting),
            uncertified,
            known,
        ];
        let found = totals(&lines, 7);
        assert_eq!(found.runs, RunTotals { ended: 3, certified: 1, without_certificate: 2 });
        let range = (found.certificates.issued, found.certificates.first_sequence, found.certificates.last_sequence);
        assert_eq!(range, (3, Some(2), Some(4)));
        let receipts = found.receipts;
        assert_eq!((receipts.grade_a, receipts.grade_b, receipts.waiting, receipts.waiting_before), (1, 1, 1, 7));
    }

    #[test]
    fn lines_that_say_nothing_are_refused() {
        let nothing = ListLine { about: None, certificate: None };
        let personal = ListLine { about: Some("张三".into()), certificate: None };
        let mut damaged = certificate(1, Filed::GradeB);
        damaged.certificate.as_mut().unwrap().digest.pop();
        for line in [nothing, personal, damaged] {
            assert!(matches!(write(&[certificate(1, Filed::GradeB), line]), Err(EvidenceError::Line { line: 2, .. })));
        }
    }
}
