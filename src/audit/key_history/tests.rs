use super::*;
use crate::certify::signer::CertificateSigner;

fn at(text: &str) -> DateTime<Utc> {
    format!("{text}T00:00:00Z").parse().unwrap()
}

fn held(signer: &CertificateSigner, name: &str) -> HeldKey {
    HeldKey::new(signer.public(), SigningKind::File, name, None)
}

fn ended(by: EndedBy) -> Ended {
    let last = LastCertificate { sequence: 4, digest: "ab".repeat(32) };
    let logged = LoggedBefore { log_id: hex::encode([3; 32]), tree_size: 7 };
    Ended { by, since: None, last_certificate: Some(last), logged_before: vec![logged], unfiled: vec!["cd".repeat(32)] }
}

/// Two keys, the second in use since March.
fn two() -> (KeyHistory, [CertificateSigner; 2]) {
    let keys = [(); 2].map(|()| CertificateSigner::in_memory().unwrap());
    let first = KeyHistory::of(held(&keys[0], "first"));
    let history = first.rotated(held(&keys[1], "second"), at("2026-03-01"), ended(EndedBy::Retired)).unwrap();
    (history, keys)
}

fn signed(history: &KeyHistory, signer: &CertificateSigner) -> Vec<u8> {
    let (payload, message) = history.to_sign().unwrap();
    KeyHistory::signed(payload, signer.sign(&message).unwrap(), signer.public().key_id())
}

#[test]
fn a_record_is_read_back_whole_and_names_itself_to_the_next() {
    let (history, keys) = two();
    let record = signed(&history, &keys[1]);
    let read = KeyHistory::open(&record).unwrap();
    assert_eq!(read.previous, Some(hex::encode(sha256(&record))));
    assert_eq!((read.number, &read.keys), (1, &history.keys));
    assert_eq!(read.in_use().unwrap().name, "second");
    assert_eq!(read.names(SigningKind::File), ["first", "second"]);
    assert!(read.names(SigningKind::Transit).is_empty());
    // From one key to the next without a gap.
    assert_eq!(read.keys[0].valid_for.end, read.keys[1].valid_for.start);
    let third = CertificateSigner::in_memory().unwrap();
    let next = read.rotated(held(&third, "third"), at("2026-05-01"), ended(EndedBy::Retired)).unwrap();
    assert_eq!((next.number, next.previous), (2, read.previous));
}

#[test]
fn a_record_counts_only_with_the_signature_of_the_key_in_use() {
    let (history, keys) = two();
    assert_eq!(KeyHistory::open(&signed(&history, &keys[0])), Err(HistoryError::Signature));
    let mut record = String::from_utf8(signed(&history, &keys[1])).unwrap();
    assert!(KeyHistory::open(record.as_bytes()).is_ok());
    let signature = record.find("\"sig\":\"").unwrap() + 20;
    record.replace_range(signature..=signature, if &record[signature..=signature] == "A" { "B" } else { "A" });
    assert!(KeyHistory::open(record.as_bytes()).is_err());
    for bad in ["", "{}", "[]"] {
        assert_eq!(KeyHistory::open(bad.as_bytes()), Err(HistoryError::Format));
    }
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let (history, keys) = two();
    let refused = |change: &dyn Fn(&mut KeyHistory)| {
        let mut changed = history.clone();
        change(&mut changed);
        matches!(KeyHistory::open(&signed(&changed, &keys[1])), Err(HistoryError::Inconsistent(_)))
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|history| history.keys[0].ended = None));
    assert!(refused(&|history| history.keys[1].valid_for.end = Some(at("2026-09-01"))));
    assert!(refused(&|history| history.keys[1].valid_for.start = Some(at("2026-03-02"))), "a gap");
    assert!(refused(&|history| history.keys[0].key_id = "00".to_owned()));
    assert!(refused(&|history| history.keys.clear()));
}

#[test]
fn a_key_is_not_taken_twice_and_does_not_end_before_it_began() {
    let (history, keys) = two();
    let again = history.rotated(held(&keys[0], "first"), at("2026-04-01"), ended(EndedBy::Retired));
    assert!(matches!(again, Err(HistoryError::Inconsistent(_))));
    let third = CertificateSigner::in_memory().unwrap();
    let early = history.rotated(held(&third, "third"), at("2026-02-01"), ended(EndedBy::Retired));
    assert!(matches!(early, Err(HistoryError::When(_))));
}

#[test]
fn a_revoked_key_ends_when_it_was_lost_and_keeps_of_what_has_no_receipt_only_what_was_taken_by_then() {
    let (history, keys) = two();
    let id = keys[0].public().key_id();
    let known = |unfiled: Vec<String>| Ended { unfiled, ..ended(EndedBy::Retired) };
    let taken = history.revoked(id, at("2026-02-10"), known(vec!["cd".repeat(32), "ef".repeat(32)])).unwrap();
    assert_eq!(
        taken.keys[0].ended.as_ref().unwrap().unfiled,
        ["cd".repeat(32)],
        "and nothing that was not listed before"
    );
    let revoked = history.revoked(&id[..12], at("2026-02-10"), known(Vec::new())).unwrap();
    let key = &revoked.keys[0];
    assert_eq!((key.ended_by(), key.valid_for.end), (Some(EndedBy::Revoked), Some(at("2026-02-10"))));
    assert!(key.ended.as_ref().unwrap().unfiled.is_empty());
    assert!(KeyHistory::open(&signed(&revoked, &keys[1])).is_ok(), "a gap behind a revoked key is told, not hidden");
    // Never to a later time than was said before.
    let later = revoked.revoked(id, at("2026-02-20"), ended(EndedBy::Revoked));
    assert!(matches!(later, Err(HistoryError::When(_))));
    let in_use = history.revoked(keys[1].public().key_id(), at("2026-04-01"), ended(EndedBy::Revoked));
    assert!(matches!(in_use, Err(HistoryError::When(_))));
    assert_eq!(history.revoked("zz", at("2026-04-01"), ended(EndedBy::Revoked)), Err(HistoryError::Unknown));
}

#[test]
fn revoking_a_retired_key_lets_nothing_count_that_came_behind_its_end() {
    let (history, keys) = two();
    let id = keys[0].public().key_id();
    let later = Ended {
        last_certificate: Some(LastCertificate { sequence: 9, digest: "ef".repeat(32) }),
        logged_before: [[3; 32], [5; 32]].map(|log| LoggedBefore { log_id: hex::encode(log), tree_size: 20 }).to_vec(),
        ..ended(EndedBy::Retired)
    };
    let revoked = history.revoked(id, at("2026-05-01"), later.clone()).unwrap();
    let key = &revoked.keys[0];
    assert_eq!(key.valid_for.end, Some(at("2026-03-01")));
    let told = key.ended.clone().unwrap();
    assert_eq!((told.had_logged(&[3; 32], 6), told.had_logged(&[3; 32], 7)), (Some(true), Some(false)));
    assert_eq!(told.had_logged(&[5; 32], 0), None);
    assert_eq!(told.last_certificate.unwrap().sequence, 4);
    assert_eq!(told.unfiled, ["cd".repeat(32)], "listed when it was retired, before it was lost");
    // It was lost sooner than was thought, though still behind its end; never later.
    let sooner = revoked.revoked(id, at("2026-04-01"), later.clone()).unwrap();
    assert_eq!(sooner.keys[0].ended.as_ref().unwrap().since, Some(at("2026-04-01")));
    assert!(sooner.revoked(id, at("2026-04-02"), later).is_err());
}

#[test]
fn what_a_log_held_is_known_by_its_place() {
    let end = ended(EndedBy::Retired);
    assert_eq!(end.had_logged(&[3; 32], 6), Some(true));
    assert_eq!(end.had_logged(&[3; 32], 7), Some(false));
    assert_eq!(end.had_logged(&[4; 32], 0), None);
}
