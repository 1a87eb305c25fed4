//! Certificates about the end of a storage medium, and of runs whose copies ended with one: what they must say, and what not.

use super::*;
use crate::policy::media::{Checked, MediumKind, Technique};

const RECORD: &str = "0190a1b2-c3d4-7abc-8def-0123456789ad";

fn person(number: u8) -> String {
    format!("hmac-sha256:k7:{}", hex::encode([number; 32]))
}

/// A tape that was shredded before two witnesses.
fn sample() -> Statement {
    let mut statement = super::sample();
    let target = Target {
        target_id: "medium".into(),
        system: System::Media,
        location: "media/tape".into(),
        action: Action::SanitizeMedium,
        sanitization: Sanitization::Destroy,
        technique: "shred".into(),
        records_selected: 0,
        records_erased: 0,
        records_retained: 0,
        objects_erased: 1,
        keys: vec![],
        verification: Verification { method: VerificationMethod::Inspection, ..super::target().verification },
        backups: Backups { state: BackupState::None, expires_by: None },
        copies: vec![],
        media: Some(Media {
            make: "unknown".into(),
            model: "LTO-8".into(),
            serial: "unknown".into(),
            asset_tag: "T-0042".into(),
            kind: "tape".into(),
        }),
        ..super::target()
    };
    let predicate = &mut statement.predicate;
    predicate.targets = vec![target];
    predicate.retained = vec![];
    predicate.root_slot = None;
    predicate.residual_date = None;
    predicate.limitations = vec![Limitation::MediumDeclared];
    predicate.medium = Some(MediumEnd {
        version: 1,
        record_id: RECORD.into(),
        kind: MediumKind::Tape,
        technique: Technique::Shred,
        standard: "NIST-SP-800-88r2".into(),
        always_encrypted: false,
        sanitized_at: predicate.finished_at,
        of_stores: vec!["crm".into()],
        copies: vec!["crm/dump".into()],
        performed_by: person(1),
        witnesses: vec![person(2), person(3)],
        checked: Checked::Inspection,
        evidence_sha256: Some("88".repeat(32)),
    });
    statement
}

fn medium(predicate: &mut Predicate) -> &mut MediumEnd {
    predicate.medium.as_mut().unwrap()
}

#[test]
fn the_end_of_a_medium_is_issued_and_verifies() {
    let signer = signer();
    let envelope = issue(&sample(), &signer).unwrap();
    assert_eq!(verify(envelope.as_bytes(), &trusted(&signer)).unwrap().into_erasure(), Some(sample()));
}

/// Every change makes the statement say more than it shows.
#[test]
fn nothing_is_claimed_that_the_end_of_a_medium_does_not_show() {
    type Change = fn(&mut Predicate);
    let changes: [(&str, Change); 17] = [
        ("a row counted as erased", |p| (p.targets[0].records_selected, p.targets[0].records_erased) = (1, 1)),
        ("no object", |p| p.targets[0].objects_erased = 0),
        ("nothing reached", |p| p.targets[0].sanitization = Sanitization::None),
        ("another system", |p| p.targets[0].system = System::S3),
        ("no medium named", |p| p.targets[0].media = None),
        ("no members", |p| p.medium = None),
        ("a tape that was melted", |p| {
            medium(p).technique = Technique::Melt;
            p.targets[0].technique = "melt".into();
        }),
        ("more than a magnet reaches", |p| {
            medium(p).technique = Technique::Degauss;
            p.targets[0].technique = "degauss".into();
        }),
        ("another technique", |p| p.targets[0].technique = "incinerate".into()),
        ("one witness", |p| medium(p).witnesses.truncate(1)),
        ("a witness twice", |p| medium(p).witnesses[1] = person(2)),
        ("who did it as witness", |p| medium(p).witnesses[1] = person(1)),
        ("a name", |p| medium(p).witnesses[1] = "li.wei".into()),
        ("complete although nobody looked", |p| {
            medium(p).checked = Checked::Nobody;
            p.targets[0].verification.method = VerificationMethod::None;
            p.targets[0].verification.checked_at = None;
            p.limitations.push(Limitation::MediumUnverified);
        }),
        ("a declaration as a fact", |p| p.limitations.retain(|code| *code != Limitation::MediumDeclared)),
        ("no store", |p| medium(p).of_stores.clear()),
        ("another time", |p| medium(p).sanitized_at = time(50)),
    ];
    for (what, change) in changes {
        let mut statement = sample();
        change(&mut statement.predicate);
        if what != "a declaration as a fact" && statement.predicate.limitations.is_empty() {
            statement.predicate.limitations.push(Limitation::ClockUnverified);
        }
        assert!(check(&statement).is_err(), "{what} passes");
    }
}

/// A copy that is gone names the record and a time behind the erasure, and then no date of it is left.
type Change = fn(&mut DeclaredCopy);

#[test]
fn a_copy_that_ended_with_its_medium_names_the_record() {
    let with = |change: fn(&mut DeclaredCopy)| {
        let mut statement = super::sample();
        let copy = &mut statement.predicate.targets[0].copies[0];
        (copy.state, copy.dies_by) = (CopyState::Destroyed, None);
        (copy.destroyed_at, copy.media_record) = (Some(time(95)), Some(RECORD.into()));
        change(copy);
        statement.predicate.residual_date = None;
        check(&statement)
    };
    with(|_| ()).unwrap();
    let wrong: [(&str, Change); 5] = [
        ("no record", |copy| copy.media_record = None),
        ("no time", |copy| copy.destroyed_at = None),
        ("before the rows were gone", |copy| copy.destroyed_at = Some(time(80))),
        ("still to die", |copy| copy.dies_by = Some(date("2026-04-05"))),
        ("a record of a copy that lives", |copy| {
            (copy.state, copy.dies_by) = (CopyState::Expires, Some(date("2026-04-05")));
        }),
    ];
    for (what, change) in wrong {
        assert!(with(change).is_err(), "{what} passes");
    }
}
