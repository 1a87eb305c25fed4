//! Tests of evidence files.

use super::evidence::{After, EvidenceError, EvidenceRow, EvidenceWriter, verify_evidence};
use super::statement::*;
use super::tests::{sample, time};

fn row(number: u8, after: After) -> EvidenceRow {
    EvidenceRow {
        target_id: "crm.customers".into(),
        reference: hex::encode([number; 32]),
        content_before: hex::encode([number + 100; 32]),
        action: Action::Delete,
        at: time(50),
        after,
        check: VerificationMethod::Requery,
    }
}

#[test]
fn evidence_is_bound_to_its_certificate() {
    let mut writer = EvidenceWriter::default();
    let mut file = String::new();
    for number in 0..10 {
        let after = if number == 3 { After::Present } else { After::Absent };
        file.push_str(&writer.line(&row(number, after)).unwrap());
    }
    let (digest, rows) = writer.finish();
    assert_eq!(rows, 10);
    let statement = Statement::new(&digest, sample().predicate);
    let totals = verify_evidence(file.as_bytes(), &statement).unwrap();
    assert_eq!((totals.absent["crm.customers"], totals.present["crm.customers"]), (9, 1));
    let altered = file.replacen("absent", "present", 1);
    assert_eq!(verify_evidence(altered.as_bytes(), &statement), Err(EvidenceError::OtherFile));
    assert_eq!(verify_evidence(file.as_bytes(), &sample()), Err(EvidenceError::OtherFile));
    let cut = file.trim_end();
    let of_cut = Statement::new(&hex::encode(crate::log::tree::sha256(cut.as_bytes())), sample().predicate);
    assert!(matches!(verify_evidence(cut.as_bytes(), &of_cut), Err(EvidenceError::Line { line: 10, .. })));
    let named = EvidenceRow { target_id: "13812345678".into(), ..row(1, After::Absent) };
    assert!(EvidenceWriter::default().line(&named).is_err());
    let plain = EvidenceRow { reference: "张三".into(), ..row(1, After::Absent) };
    assert!(EvidenceWriter::default().line(&plain).is_err());
}
