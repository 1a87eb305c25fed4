//! Tests of evidence files.

use super::evidence::{After, EvidenceError, EvidenceRow, EvidenceWriter, OTHERS, verify_evidence};
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

/// The sample with so many erased rows, and so many that were retained.
fn with_counts(erased: u64, retained: u64) -> Predicate {
    let mut predicate = sample().predicate;
    let target = &mut predicate.targets[0];
    (target.records_erased, target.records_retained) = (erased, retained);
    predicate
}

#[test]
fn evidence_shows_as_many_rows_as_the_certificate_claims() {
    let file_of = |rows: &[EvidenceRow]| {
        let mut writer = EvidenceWriter::default();
        let file: String = rows.iter().map(|row| writer.line(row).unwrap()).collect();
        (file, writer.finish().0)
    };
    let check = |rows: &[EvidenceRow], predicate: Predicate| {
        let (file, digest) = file_of(rows);
        verify_evidence(file.as_bytes(), &Statement::new(&digest, predicate)).map(|_| ())
    };
    let wrong =
        |what, shown, claimed| Err(EvidenceError::OtherCount { target: "crm.customers".into(), what, shown, claimed });
    assert_eq!(check(&[], with_counts(100, 2)), wrong("erased", 0, 100));
    let absent = [row(1, After::Absent), row(2, After::Absent)];
    assert_eq!(check(&absent, with_counts(2, 0)), Ok(()));
    assert_eq!(check(&absent, with_counts(3, 0)), wrong("erased", 2, 3));
    assert_eq!(check(&absent, with_counts(1, 0)), wrong("erased", 2, 1));
    let stripped = [row(1, After::Absent), row(2, After::Present)];
    assert_eq!(check(&stripped, with_counts(1, 1)), Ok(()));
    assert_eq!(check(&stripped, with_counts(1, 0)), wrong("anonymized", 1, 0));
    let mut anonymised = with_counts(0, 0);
    anonymised.targets[0].records_anonymized = 2;
    assert_eq!(check(&[row(1, After::Present)], anonymised), wrong("anonymized", 1, 2));
    // Rows of a target of which the certificate says nothing, and of those that it sums up.
    let elsewhere = EvidenceRow { target_id: "crm.orders".into(), ..row(2, After::Absent) };
    let both = [row(1, After::Absent), elsewhere];
    let stray = EvidenceError::OtherCount { target: "crm.orders".into(), what: "at all", shown: 1, claimed: 0 };
    assert_eq!(check(&both, with_counts(1, 0)), Err(stray));
    let mut summed = with_counts(1, 0);
    let others = Target { target_id: OTHERS.into(), location: OTHERS.into(), ..summed.targets[0].clone() };
    summed.targets.push(others);
    assert_eq!(check(&both, summed.clone()), Ok(()));
    summed.targets[1].records_erased = 5;
    let short = EvidenceError::OtherCount { target: OTHERS.into(), what: "erased", shown: 1, claimed: 5 };
    assert_eq!(check(&both, summed), Err(short));
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
    let statement = Statement::new(&digest, with_counts(9, 2));
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
