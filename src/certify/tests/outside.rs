//! Certificates about the end of an outside key: what they must say, and what they must not.

use super::*;

/// A key that the agent destroyed in a service, of fields that never were in clear.
fn sample() -> Statement {
    let mut statement = super::sample();
    let target = Target {
        target_id: "outside-key".into(),
        system: System::Kms,
        location: "transit/notes".into(),
        action: Action::CryptoShred,
        sanitization: Sanitization::None,
        technique: "key-deletion".into(),
        records_selected: 0,
        records_erased: 0,
        records_retained: 0,
        objects_erased: 1,
        verification: Verification { method: VerificationMethod::KeyAbsence, ..super::target().verification },
        backups: Backups { state: BackupState::None, expires_by: None },
        copies: vec![],
        ..super::target()
    };
    let predicate = &mut statement.predicate;
    predicate.targets = vec![target];
    predicate.retained = vec![];
    predicate.root_slot = None;
    predicate.limitations = vec![Limitation::OutsideKeyClassB, Limitation::OutsideKeyDeclared];
    predicate.residual_date = Some(date("2026-04-05"));
    predicate.outside_key = Some(OutsideKeyEnd {
        version: 1,
        key_id: "0190a1b2-c3d4-7abc-8def-0123456789ac".into(),
        name: "notes".into(),
        key_ref: format!("hmac-sha256:k7:{}", "77".repeat(32)),
        bound_to: OutsideBinding::Subject,
        policy: None,
        period: None,
        fields: vec!["clinic/patients/note".into()],
        encrypted_since: date("2020-01-01"),
        ever_in_clear: false,
        in_clear_until: None,
        kind: "transit".into(),
        class: SlotClass::B,
        checks: vec!["key-absent".into(), "never-exportable".into()],
        read_back: Some(OutsideReadBack {
            latest_version: 3,
            exportable: false,
            allow_plaintext_backup: false,
            imported: false,
        }),
        snapshot_retention_days: Some(7),
        reopenable_until: Some(date("2026-04-05")),
        irrevocable_at: None,
    });
    statement
}

/// A key that a provider deleted at a date.
fn of_a_provider() -> Statement {
    let mut statement = sample();
    let predicate = &mut statement.predicate;
    predicate.limitations = vec![Limitation::OutsideKeyClassC, Limitation::OutsideKeyDeclared];
    let at = predicate.targets[0].keys[0].destroyed_at;
    let key = key(predicate);
    (key.kind, key.class, key.irrevocable_at) = ("aws-kms".into(), SlotClass::C, at);
    (key.snapshot_retention_days, key.reopenable_until) = (None, None);
    statement
}

#[test]
fn a_key_that_goes_at_a_date_is_gone_no_sooner() {
    type Change = fn(&mut Predicate);
    check(&of_a_provider()).unwrap();
    let changes: [(&str, Change); 5] = [
        ("no date", |p| key(p).irrevocable_at = None),
        ("gone before its date", |p| {
            let later = p.targets[0].keys[0].destroyed_at.unwrap().instant() + chrono::TimeDelta::seconds(1);
            key(p).irrevocable_at = Some(Timestamp::from(later));
        }),
        ("class unsaid", |p| p.limitations.retain(|code| *code != Limitation::OutsideKeyClassC)),
        ("another class", |p| key(p).class = SlotClass::B),
        ("not the service's word", |p| key(p).read_back.as_mut().unwrap().exportable = true),
    ];
    for (what, change) in changes {
        let mut statement = of_a_provider();
        change(&mut statement.predicate);
        assert!(check(&statement).is_err(), "{what} passes");
    }
}

fn key(predicate: &mut Predicate) -> &mut OutsideKeyEnd {
    predicate.outside_key.as_mut().unwrap()
}

#[test]
fn the_end_of_an_outside_key_is_issued_and_verifies() {
    let signer = signer();
    let envelope = issue(&sample(), &signer).unwrap();
    assert_eq!(verify(envelope.as_bytes(), &trusted(&signer)).unwrap().into_erasure(), Some(sample()));
}

/// Every change makes the statement say more than it shows.
#[test]
fn nothing_is_claimed_that_the_end_of_a_key_does_not_show() {
    type Change = fn(&mut Predicate);
    let changes: [(&str, Change); 22] = [
        ("a row counted as erased", |p| (p.targets[0].records_selected, p.targets[0].records_erased) = (1, 1)),
        ("no object", |p| p.targets[0].objects_erased = 0),
        ("a purge", |p| p.targets[0].sanitization = Sanitization::Purge),
        ("another action", |p| p.targets[0].action = Action::Delete),
        ("another system", |p| p.targets[0].system = System::Sqlite),
        ("no key", |p| p.targets[0].keys.clear()),
        ("a living key", |p| p.targets[0].keys[0].destroyed_at = None),
        ("another check", |p| p.targets[0].verification.method = VerificationMethod::Requery),
        ("two targets", |p| p.targets.push(p.targets[0].clone())),
        ("once in clear, unsaid", |p| key(p).ever_in_clear = true),
        ("once in clear, complete", |p| {
            key(p).ever_in_clear = true;
            p.limitations.push(Limitation::FieldOnceInClear);
        }),
        ("declared, unsaid", |p| p.limitations.retain(|code| *code != Limitation::OutsideKeyDeclared)),
        ("class unsaid", |p| p.limitations.retain(|code| *code != Limitation::OutsideKeyClassB)),
        ("another class", |p| key(p).class = SlotClass::D),
        ("gone before, complete", |p| {
            key(p).read_back = None;
            p.limitations.push(Limitation::OutsideKeyGoneBefore);
        }),
        ("exportable", |p| key(p).read_back.as_mut().unwrap().exportable = true),
        ("backed up", |p| key(p).read_back.as_mut().unwrap().allow_plaintext_backup = true),
        ("imported", |p| key(p).read_back.as_mut().unwrap().imported = true),
        ("not read back", |p| key(p).checks.remove(0).clear()),
        ("no date", |p| key(p).reopenable_until = None),
        ("a date before copies end", |p| key(p).reopenable_until = Some(date("2027-01-01"))),
        ("a name in clear", |p| key(p).key_ref = "note-of-li-lei".to_owned()),
    ];
    let mut told = std::collections::BTreeSet::new();
    for (what, change) in changes {
        let mut statement = sample();
        change(&mut statement.predicate);
        match check(&statement) {
            Err(error) => told.insert(error.to_string()),
            Ok(()) => panic!("{what} passes"),
        };
    }
    assert!(told.len() > 12, "{told:?}");
}

#[test]
fn what_was_once_in_clear_is_partial_and_only_outside_keys_have_their_codes() {
    let mut partial = sample();
    partial.predicate.result = ErasureResult::Partial;
    key(&mut partial.predicate).ever_in_clear = true;
    partial.predicate.limitations.push(Limitation::FieldOnceInClear);
    check(&partial).unwrap();
    let mut foreign = super::sample();
    foreign.predicate.limitations.push(Limitation::FieldOnceInClear);
    assert!(check(&foreign).is_err());
}
