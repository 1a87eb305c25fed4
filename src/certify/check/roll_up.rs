//! The rules for a roll-up.

use super::{CheckError, MAX_NUMBER, Result, check_digest, check_place, is_sha256_hex, is_uuid, require};
use crate::certify::codes::ErasureResult;
use crate::certify::statement::{
    CertificateTotals, ROLL_UP_TYPE, RollUp, RollUpStatement, STATEMENT_TYPE, evidence_name,
};

/// All rules but the size and the scan for personal data.
pub fn check_roll_up(statement: &RollUpStatement) -> Result {
    require(statement.statement_type == STATEMENT_TYPE, "_type", "is not in-toto Statement v1")?;
    require(statement.predicate_type == ROLL_UP_TYPE, "predicateType", "is not roll-up v1")?;
    let said = &statement.predicate;
    let [subject] = &statement.subject[..] else {
        return Err(CheckError::new("subject", "must be exactly the list of what was counted"));
    };
    require(is_uuid(&said.certificate_id), "certificateId", "is not a UUID")?;
    require(subject.name == evidence_name(&said.certificate_id), "subject", "names another list")?;
    check_digest(&subject.digest, "subject/digest")?;
    check_place(said.sequence, said.previous_certificate.as_ref())?;
    let ordered = said.from <= said.until && said.until <= said.issued_at;
    require(ordered, "until", "is not between from and issuedAt")?;
    require(is_sha256_hex(&said.operation_log.root_hash), "operationLog/rootHash", "is not a SHA-256 in hex")?;
    check_range(said)?;
    check_totals(said)
}

/// The numbers from the roll-up before, itself counted, to the one before this: none is left out, none counted twice.
fn check_range(said: &RollUp) -> Result {
    let first = match &said.previous_roll_up {
        Some(earlier) => {
            let is_earlier = is_uuid(&earlier.certificate_id) && (1..said.sequence).contains(&earlier.sequence);
            require(is_earlier, "previousRollUp", "is not an earlier one")?;
            earlier.sequence
        }
        None => 1,
    };
    let issued = said.sequence - first;
    let range = (issued > 0).then(|| (first, said.sequence - 1)).unzip();
    let CertificateTotals { issued: counted, first_sequence, last_sequence } = said.certificate_totals;
    let is_all = counted == issued && (first_sequence, last_sequence) == range;
    require(is_all, "certificateTotals", "are not all since the roll-up before")
}

fn check_totals(said: &RollUp) -> Result {
    let (runs, receipts) = (&said.run_totals, &said.receipt_totals);
    let sum = |numbers: &[u64]| numbers.iter().fold(0, |sum: u64, number| sum.saturating_add(*number));
    let small = sum(&[runs.ended, said.operation_log.size, receipts.waiting_before]) <= MAX_NUMBER;
    require(small, "runTotals", "have a number beyond 2^53")?;
    let adds_up = sum(&[runs.certified, runs.without_certificate]) == runs.ended;
    require(adds_up, "runTotals/ended", "is not the sum of those with and without a certificate")?;
    let grades = [receipts.grade_a, receipts.grade_b, receipts.grade_c, receipts.grade_d];
    let adds_up = sum(&[sum(&grades), receipts.waiting, receipts.refused]) == said.certificate_totals.issued;
    require(adds_up, "receiptTotals", "do not add up to the certificates")?;
    let missing = [runs.without_certificate, receipts.waiting, receipts.refused, receipts.waiting_before];
    let expected = if sum(&missing) == 0 { ErasureResult::Complete } else { ErasureResult::Partial };
    require(said.result == expected, "result", "is not what the counts say")
}
