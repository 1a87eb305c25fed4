use super::*;
use crate::audit::key_history::LoggedBefore;
use crate::certify::tests::signer;
use crate::log::checkpoint::CheckpointSigner;
use crate::random::SystemRandom;

fn trust() -> Trust {
    let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
    let log = CheckpointSigner::from_pkcs8("log.example/certificates", &pkcs8).unwrap().key().clone();
    let at = |text: &str| Some(text.parse().unwrap());
    let window = Window { start: at("2026-03-01T00:00:00Z"), end: at("2026-09-01T00:00:00Z") };
    Trust {
        signers: vec![(signer().public().clone(), window)],
        logs: vec![TrustedLog { key: log, window: Window { end: None, ..window }, operator: LogOperator::SelfHosted }],
        ended: Vec::new(),
        acknowledgers: [signer().public().clone()].into_iter().collect(),
        operation_logs: vec![CheckpointSigner::from_pkcs8("log.example/operations", &pkcs8).unwrap().key().clone()],
        quorum: Quorum::new(vec![WitnessKey::new("w.example/1", [7; 32]).unwrap()], 1).unwrap(),
        stamps: StampTrust::default(),
        stamp_chains: Vec::new(),
    }
}

#[test]
fn a_trust_file_is_read_back_whole() {
    let trust = trust();
    assert_eq!(Trust::parse(trust.to_json().to_string().as_bytes()).unwrap(), trust);
    let (id, at) = (trust.signers[0].0.key_id(), |text: &str| text.parse::<DateTime<Utc>>().unwrap());
    let good = |id: &str, said: &str| trust.judge(id, at(said), None, at("2026-09-01T00:00:00Z")).is_good();
    assert!(good(id, "2026-09-01T00:00:00Z"));
    assert!(!good(id, "2026-09-01T00:00:01Z"));
    assert!(!good(id, "2026-02-28T23:59:59Z"));
    assert!(!good("other", "2026-05-01T00:00:00Z"));
}

#[test]
fn a_key_that_has_ended_is_believed_only_with_a_witness_s_time() {
    let at = |text: &str| format!("{text}T00:00:00Z").parse::<DateTime<Utc>>().unwrap();
    let window = Window { start: Some(at("2026-03-01")), end: Some(at("2026-09-01")) };
    let judge = |said: Option<&str>, seen: Option<&str>, now| window.judge(said.map(at), seen.map(at), at(now));
    let (said, later) = (Some("2026-05-01"), "2027-01-01");
    assert_eq!(judge(said, None, "2026-08-01"), Standing::Good, "not ended yet");
    assert_eq!(judge(said, None, later), Standing::Unproved(at("2026-09-01")));
    assert_eq!(judge(said, Some("2026-05-02"), later), Standing::Seen(at("2026-05-02")));
    for outside in ["2026-09-02", "2026-02-01"] {
        assert_eq!(judge(said, Some(outside), later), Standing::Unproved(at("2026-09-01")), "seen {outside}");
        assert_eq!(judge(Some(outside), None, later), Standing::Outside, "said {outside}");
    }
    // Where a witness saw it, its own date counts no more; but there was no key before its beginning.
    assert_eq!(judge(Some("2026-09-02"), Some("2026-05-02"), later), Standing::Seen(at("2026-05-02")));
    assert_eq!(judge(Some("2026-02-01"), Some("2026-05-02"), later), Standing::Outside);
    let minutes_before = Some(at("2026-03-01") - chrono::TimeDelta::minutes(9));
    assert!(window.judge(said.map(at), minutes_before, at(later)).is_good(), "the clock of a witness");
    assert!(
        !window.judge(said.map(at), window.end.map(|end| end + chrono::TimeDelta::seconds(1)), at(later)).is_good()
    );
    // A log says no time of its own.
    assert_eq!(judge(None, None, later), Standing::Unproved(at("2026-09-01")));
    assert_eq!(judge(None, Some("2026-05-02"), later), Standing::Seen(at("2026-05-02")));
    assert_eq!(judge(None, None, "2026-02-01"), Standing::Outside, "not begun yet");
    assert_eq!(Window::default().judge(said.map(at), None, at(later)), Standing::Good);
}

#[test]
fn what_an_ended_key_signed_is_good_where_something_else_shows_that_it_was_before() {
    let at = |text: &str| format!("{text}T00:00:00Z").parse::<DateTime<Utc>>().unwrap();
    let mut trust = trust();
    let key_id = trust.signers[0].0.key_id().to_owned();
    let log = trust.logs[0].key.log_id();
    let logged = LoggedBefore { log_id: hex::encode(log), tree_size: 5 };
    let mut ended = Ended {
        by: EndedBy::Retired,
        since: None,
        last_certificate: None,
        logged_before: vec![logged],
        unfiled: vec![hex::encode([8; 32])],
    };
    let later = at("2027-01-01");
    let end = trust.signers[0].1.end.unwrap();
    let signed = Signed {
        key_id: &key_id,
        digest: &[7; 32],
        said: at("2026-05-01"),
        seen: None,
        logged: Some((log, 4)),
        is_chained: false,
    };
    assert_eq!(trust.judge_signed(signed, later), Standing::Unproved(end), "nothing is known of its end");
    for by in [EndedBy::Retired, EndedBy::Revoked] {
        ended.by = by;
        trust.ended = vec![(key_id.clone(), ended.clone())];
        let judge = |signed: Signed<'_>| trust.judge_signed(signed, later);
        assert_eq!(judge(signed), Standing::Logged(end));
        assert_eq!(judge(Signed { logged: Some((log, 5)), ..signed }), Standing::LoggedAfter(by, end));
        assert_eq!(judge(Signed { logged: Some(([1; 32], 0)), ..signed }), Standing::Unproved(end));
        assert_eq!(judge(Signed { logged: None, ..signed }), Standing::Unproved(end));
        assert_eq!(judge(Signed { digest: &[8; 32], logged: Some((log, 9)), ..signed }), Standing::Listed(end));
        assert_eq!(judge(Signed { is_chained: true, logged: None, ..signed }), Standing::Chained(end));
        // What a clock that was ahead wrote is good where something better shows it, and bad where nothing does.
        let after = Signed { said: at("2026-09-02"), ..signed };
        assert_eq!(judge(after), Standing::Logged(end));
        assert_eq!(judge(Signed { is_chained: true, logged: None, ..after }), Standing::Chained(end));
        assert_eq!(judge(Signed { digest: &[8; 32], logged: None, ..after }), Standing::Listed(end));
        let seen = at("2026-08-01");
        assert_eq!(judge(Signed { seen: Some(seen), logged: None, ..after }), Standing::Seen(seen));
        assert_eq!(judge(Signed { logged: None, ..after }), Standing::After(by, end));
        assert_eq!(judge(Signed { logged: Some((log, 5)), ..after }), Standing::After(by, end));
        let seen_late = Some(at("2026-09-02"));
        assert_eq!(judge(Signed { seen: seen_late, logged: None, ..signed }), Standing::Unproved(end));
        assert_eq!(judge(Signed { said: at("2026-02-01"), ..signed }), Standing::Outside);
    }
    assert_eq!(Trust::parse(trust.to_json().to_string().as_bytes()).unwrap(), trust);
}

#[test]
fn a_misspelt_window_opens_nothing() {
    for place in ["/certificateKeys/0", "/logs/0", "/certificateKeys/0/validFor", "/logs/0/validFor"] {
        let mut file = trust().to_json();
        file.pointer_mut(place).unwrap()["validfor"] = json!({"end": "2026-01-01T00:00:00Z"});
        let refused = Trust::parse(file.to_string().as_bytes()).unwrap_err();
        assert!(matches!(refused, TrustError::Json(_)), "{place}: {refused}");
    }
}

#[test]
fn each_log_says_who_runs_it() {
    let mut trust = trust();
    let own = trust.logs[0].clone();
    trust.logs[0].operator = LogOperator::Independent;
    assert_eq!(trust.to_json()["operator"], "independent");
    trust.logs.push(own);
    let mut file = trust.to_json();
    assert_eq!(file["operator"], "self-hosted", "one log of several");
    assert_eq!(Trust::parse(file.to_string().as_bytes()).unwrap(), trust);
    file["logs"][0].as_object_mut().unwrap().remove("operator");
    assert_eq!(Trust::parse(file.to_string().as_bytes()).unwrap().logs[0].operator, LogOperator::SelfHosted);
}

#[test]
fn a_trust_file_whose_parts_do_not_fit_is_refused() {
    let good = trust().to_json();
    let altered = |pointer: &str, value: Value| {
        let mut file = good.clone();
        *file.pointer_mut(pointer).unwrap() = value;
        Trust::parse(file.to_string().as_bytes()).unwrap_err()
    };
    assert!(matches!(altered("/mediaType", "other".into()), TrustError::OtherKind));
    assert!(matches!(altered("/certificateKeys/0/keyId", "00".into()), TrustError::Key("certificate")));
    assert!(matches!(altered("/logs/0/origin", "other.example".into()), TrustError::Key("log")));
    assert!(matches!(altered("/logs/0/logId", STANDARD.encode([0; 32]).into()), TrustError::Key("log")));
    assert!(matches!(altered("/certificateKeys", json!([])), TrustError::Empty));
    let wrong_id = altered("/acknowledgementKeys/0/keyId", "00".into());
    assert!(matches!(wrong_id, TrustError::Key("acknowledgement")), "{wrong_id}");
    // A webhook that signs for what it took keeps no log; with neither nothing shows that anything was filed.
    let mut without_log = good.clone();
    without_log["logs"] = json!([]);
    let read = Trust::parse(without_log.to_string().as_bytes()).unwrap();
    assert_eq!((read.logs.len(), read.operator()), (0, LogOperator::SelfHosted), "nobody else keeps anything");
    without_log["acknowledgementKeys"] = json!([]);
    assert!(matches!(Trust::parse(without_log.to_string().as_bytes()).unwrap_err(), TrustError::Empty));
    assert!(matches!(altered("/quorum", 2.into()), TrustError::Witnesses(_)));
    assert!(matches!(altered("/witnesses/0", "x".into()), TrustError::Witnesses(_)));
    assert!(matches!(Trust::parse(b"[]").unwrap_err(), TrustError::OtherKind));
}

#[test]
fn the_policy_names_logs_witnesses_and_quorum() {
    let trust = trust();
    let (log, witness) = (trust.logs[0].key.verifier_key(), trust.quorum.witnesses()[0].verifier_key());
    let expected = format!("log {log}\nwitness w1 {witness}\ngroup witnesses 1 w1\nquorum witnesses\n");
    assert_eq!(trust.tlog_policy(), expected);
    let alone = Trust { quorum: Quorum::default(), ..trust };
    assert_eq!(alone.tlog_policy(), format!("log {log}\nquorum none\n"));
}
