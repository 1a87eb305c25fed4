//! Roll-ups: what they must say, and what they must not.

use super::*;
use crate::certify::roll_up::{Filed, ListLine, ListedCertificate, totals, write};
use crate::certify::statement::{Digest, EarlierRollUp, Issuer, LogHead, RollUp, RollUpStatement};
use crate::certify::{Draft, Said};

fn issue(statement: &RollUpStatement, signer: &CertificateSigner) -> Result<Envelope, IssueError> {
    let draft = Draft::of_roll_up(statement)?;
    let signature = signer.sign(&draft.message())?;
    Ok(draft.signed(signature, signer.public().key_id()))
}

fn list() -> Vec<ListLine> {
    let line = |sequence: u64, about: Option<&str>| {
        let certificate = format!("0190a1b2-c3d4-7abc-8def-{sequence:012}");
        let listed = ListedCertificate { certificate, sequence, digest: "5a".repeat(32), filed: Filed::GradeB };
        ListLine { about: about.map(ToOwned::to_owned), certificate: Some(listed) }
    };
    vec![line(4, None), line(5, Some("run-a")), line(6, Some("run-b"))]
}

fn roll_up() -> RollUpStatement {
    let found = totals(&list(), 0);
    let at = |text: &str| Timestamp::from(text.parse::<DateTime<Utc>>().unwrap());
    let predicate = RollUp {
        certificate_id: "0190a1b2-c3d4-7abc-8def-0123456789ab".into(),
        sequence: 7,
        previous_certificate: Some(Digest { sha256: "5a".repeat(32) }),
        issuer: Issuer {
            controller: "test".into(),
            agent_id: "agent".into(),
            agent_version: "1".into(),
            environment: "prod".into(),
        },
        from: at("2026-03-14T15:50:00Z"),
        until: at("2026-03-15T15:50:00Z"),
        issued_at: at("2026-03-15T15:50:00Z"),
        result: ErasureResult::Complete,
        run_totals: found.runs,
        certificate_totals: found.certificates,
        receipt_totals: found.receipts,
        operation_log: LogHead { size: 12, root_hash: "ab".repeat(32) },
        previous_roll_up: Some(EarlierRollUp {
            certificate_id: "0190a1b2-c3d4-7abc-8def-000000000004".into(),
            sequence: 4,
        }),
    };
    RollUpStatement::new(&write(&list()).unwrap().1, predicate)
}

#[test]
fn a_roll_up_is_issued_and_read_back_with_its_list() {
    let signer = signer();
    let envelope = issue(&roll_up(), &signer).unwrap();
    let found = verify(envelope.as_bytes(), &trusted(&signer)).unwrap();
    assert_eq!((found.id(), found.previous()), (roll_up().predicate.certificate_id.as_str(), Some(&*"5a".repeat(32))));
    assert_eq!(found.said, Said::RollUp(Box::new(roll_up())));
    let (text, _) = write(&list()).unwrap();
    assert_eq!(crate::certify::roll_up::verify(text.as_bytes(), &roll_up()).unwrap(), list());
    let shorter = text.lines().skip(1).fold(String::new(), |all, line| all + line + "\n");
    assert!(crate::certify::roll_up::verify(shorter.as_bytes(), &roll_up()).is_err());
}

type Change = fn(&mut RollUp);

#[test]
fn counts_that_do_not_add_up_are_not_signed() {
    let changes: [(&str, Change); 12] = [
        ("a run without its certificate", |said| said.run_totals.without_certificate = 1),
        ("a run that is not counted", |said| said.run_totals.ended -= 1),
        ("a certificate that is left out", |said| said.certificate_totals.issued -= 1),
        ("a gap at the beginning", |said| said.certificate_totals.first_sequence = Some(5)),
        ("a gap at the end", |said| said.certificate_totals.last_sequence = Some(5)),
        ("a gap to the one before", |said| said.previous_roll_up.as_mut().unwrap().sequence = 3),
        ("nothing before it", |said| said.previous_roll_up = None),
        ("a receipt too many", |said| said.receipt_totals.grade_a += 1),
        ("a waiting one that is called complete", |said| said.receipt_totals.waiting_before = 1),
        ("partial without a reason", |said| said.result = ErasureResult::Partial),
        ("an end before its beginning", |said| std::mem::swap(&mut said.from, &mut said.until)),
        ("a log without a root", |said| said.operation_log.root_hash.clear()),
    ];
    for (what, change) in changes {
        let mut statement = roll_up();
        change(&mut statement.predicate);
        assert!(issue(&statement, &signer()).is_err(), "{what}");
    }
    let mut other = roll_up();
    other.subject[0].name = "evidence/other.ndjson".into();
    assert!(issue(&other, &signer()).is_err());
}
