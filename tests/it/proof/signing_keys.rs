//! Signing keys that follow one another: what was signed before the end of one stays good, what is signed or logged after it does not,
//! and it is said which. A kill while one takes the place of another leaves one of the two in use.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use wangchuan::audit::FiledOutcome;
use wangchuan::audit::trust::Trust;
use wangchuan::certify::dsse::{Envelope, pae};
use wangchuan::certify::signer::CertificateSigner;
use wangchuan::clock::Clock as _;
use wangchuan::crash_point::SIGNING_POINTS;
use wangchuan::installation::Installation;
use wangchuan::tasks::audit::verify_all;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::oplog::{Entry, Query, query};
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::signing_keys::{revoke, rotate};
use wangchuan::tasks::trust::{Given, GivenReceipt, trust, verify_with};

use super::tools::{customers, filed, stranger};
use crate::support::program::Program;
use crate::support::world::{Making, World, forget};

const KEY: &str = "state/signing-key.pem";

/// Forgets a customer and certifies that.
pub async fn one_more(world: &World, installation: &Installation, customer: usize) -> String {
    forget(installation, &customers(world)[customer]).await;
    certify_due(installation).await.unwrap().pop().unwrap()
}

/// That everything there is verifies.
pub async fn all_good(installation: &Installation) {
    let verdict = verify_all(installation).await.unwrap();
    assert_eq!(verdict.result, "valid", "{:?}", verdict.checks);
}

/// Windows follow one another without a gap; only the last is open.
pub fn without_a_gap(installation: &Installation, keys: usize) {
    let held = &installation.signer.history().keys;
    assert_eq!(held.len(), keys, "{held:?}");
    for pair in held.windows(2) {
        assert!(pair[0].valid_for.end.is_some());
        assert_eq!(pair[0].valid_for.end, pair[1].valid_for.start);
    }
    assert_eq!(held.last().unwrap().valid_for.end, None);
}

fn hour(world: &World) {
    world.clock.advance(TimeDelta::hours(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_takes_over_and_what_the_one_before_signed_stays_good() {
    let world = filed(Making::default(), 2).await;
    let mut installation = world.open().await;
    let first = installation.signer.key_id().to_owned();
    // One that is still to be filed when its key ends.
    let late = one_more(&world, &installation, 2).await;
    hour(&world);
    let change = rotate(&mut installation).await.unwrap();
    assert_eq!((&change.ended, change.unfiled), (&first, 1), "{change:?}");
    assert_ne!(change.key_id, first);
    hour(&world);
    one_more(&world, &installation, 3).await;
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    without_a_gap(&installation, 2);
    assert_eq!(verify_certificate(&installation, &late).await.unwrap().result, "valid");
    installation.close().await.unwrap();

    // The next start signs with the new key, whose file took the place of the old one's.
    let mut installation = world.open().await;
    assert_eq!(installation.signer.key_id(), change.key_id);
    assert_eq!(CertificateSigner::open(&world.path(KEY)).unwrap().public().key_id(), change.key_id);
    hour(&world);
    rotate(&mut installation).await.unwrap();
    hour(&world);
    one_more(&world, &installation, 4).await;
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    without_a_gap(&installation, 3);
    installation.close().await.unwrap();

    let owner = Program::in_directory(world.folder.path());
    let listed = owner.json(&["audit", "key", "list"]).ends(0).list("signing_keys");
    let standing: Vec<_> = listed.iter().map(|key| key["standing"].as_str().unwrap()).collect();
    assert_eq!(standing, ["retired", "retired", "in-use"]);
    strangers_believe(&world, &owner);
}

/// Every certificate verifies with the trust file alone, long after; without what that says of ended keys, theirs do not.
fn strangers_believe(world: &World, owner: &Program) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    owner.json(&["audit", "trust", "--output", &path("trust.json"), "--parts", &path("parts")]).ends(0);
    assert!(folder.path().join("parts/signer-3.pem").exists());
    let mut trust: Value = serde_json::from_slice(&std::fs::read(path("trust.json")).unwrap()).unwrap();
    for key in trust["certificateKeys"].as_array_mut().unwrap() {
        key.as_object_mut().unwrap().remove("ended");
    }
    std::fs::write(path("less.json"), trust.to_string()).unwrap();
    let program = stranger(folder.path());
    for number in 1..=5 {
        let bundle = format!("{number}.sigstore.json");
        owner.json(&["certificate", "export", &number.to_string(), "--output", &path(&bundle)]).ends(0);
        let verify = |trust: &str| program.json(&["certificate", "verify", &bundle, "--trust", trust]);
        verify("trust.json").ends(0);
        let less = verify("less.json").ends(i32::from(number < 5));
        if number < 5 {
            less.says(&["no witness shows that it was signed before"]);
        }
    }
    assert!(world.path(KEY).exists());
}

/// Somebody who has a key of ours, and a certificate of ours to write others after.
struct Thief {
    key: CertificateSigner,
    payload: Value,
}

impl Thief {
    fn envelope(&self, id: &str, said: DateTime<Utc>) -> Envelope {
        let mut payload = self.payload.clone();
        payload["predicate"]["certificateId"] = id.into();
        payload["subject"][0]["name"] = format!("evidence/{id}.ndjson").into();
        payload["predicate"]["issuedAt"] = wangchuan::control::time_text(said).into();
        let payload = payload.to_string().into_bytes();
        let kind = "application/vnd.in-toto+json";
        let signature = self.key.sign(&pae(kind, &payload)).unwrap();
        Envelope::make(kind, payload, signature, self.key.public().key_id())
    }
}

async fn envelope_of(installation: &Installation, number: usize) -> Envelope {
    let rows = installation.control.read().await.unwrap().certificates(None).await.unwrap();
    Envelope::parse(&rows[number - 1].envelope).unwrap()
}

/// What the check of the key says of a certificate.
pub fn of_key(trust: &Trust, envelope: &Envelope, receipt: &GivenReceipt, now: DateTime<Utc>) -> (bool, String) {
    let (envelope, receipt) = (envelope.as_bytes(), receipt.clone());
    let given = Given { envelope, receipt, stamps: Vec::new(), evidence: None, is_chained: false };
    let (verdict, id) = verify_with(trust, &given, now);
    assert!(id.is_some(), "{verdict:?}");
    let (_, good, said) = verdict.checks.into_iter().find(|(check, _, _)| check == "key").unwrap();
    (good, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_signs_or_logs_after_its_end_is_refused_in_words_that_say_which() {
    let world = filed(Making::default(), 2).await;
    let mut installation = world.open().await;
    let key = CertificateSigner::open(&world.path(KEY)).unwrap();
    let genuine = envelope_of(&installation, 1).await;
    let thief = Thief { key, payload: serde_json::from_slice(genuine.payload()).unwrap() };
    let before = world.clock.now();
    hour(&world);
    let change = rotate(&mut installation).await.unwrap();
    hour(&world);
    installation.close().await.unwrap();
    let mut installation = world.open().await;
    let now = world.clock.now();
    let retired = trust(&installation).await.unwrap();

    let dated = thief.envelope("019a0000-0000-7000-8000-000000000001", now);
    let (good, said) = of_key(&retired, &dated, &GivenReceipt::NotInThisForm, now);
    assert!(!good && said.contains("signed after its key was retired"), "{said}");

    let id = "019a0000-0000-7000-8000-000000000002";
    let backdated = thief.envelope(id, before);
    let (good, said) = of_key(&retired, &backdated, &GivenReceipt::NotInThisForm, now);
    assert!(!good && said.contains("no witness shows"), "{said}");
    let filed = installation.audit().unwrap().sink.file(id, backdated.as_bytes()).await;
    let FiledOutcome::Receipted(filed) = filed else { panic!("not filed") };
    let receipt = GivenReceipt::Entry(filed.bytes);
    let (good, said) = of_key(&retired, &backdated, &receipt, now);
    assert!(!good && said.contains("logged after its key was retired"), "{said}");

    // Now, from some time behind its end on, and from one before it on: no word makes the forgery good.
    for since in [now, now - TimeDelta::minutes(30), before] {
        revoke(&mut installation, &change.ended[..12], since).await.unwrap();
        let revoked = trust(&installation).await.unwrap();
        for (envelope, receipt, words) in [
            (&dated, &GivenReceipt::NotInThisForm, "signed after its key was revoked"),
            (&backdated, &receipt, "logged after its key was revoked"),
        ] {
            let (good, said) = of_key(&revoked, envelope, receipt, now);
            assert!(!good && said.contains(words), "{since}: {said}");
        }
    }
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_is_replaced_and_what_it_signed_since_counts_for_nothing() {
    let world = filed(Making::default(), 2).await;
    let mut installation = world.open().await;
    let lost = installation.signer.key_id().to_owned();
    hour(&world);
    let since = world.clock.now();
    hour(&world);
    let third = one_more(&world, &installation, 2).await;
    file_due(&installation, true).await.unwrap();
    all_good(&installation).await;
    assert!(revoke(&mut installation, &lost, since + TimeDelta::days(1)).await.is_err(), "a time to come");
    let change = revoke(&mut installation, &lost, since).await.unwrap();
    assert_eq!(change.ended, lost);
    assert_ne!(installation.signer.key_id(), lost);
    hour(&world);
    one_more(&world, &installation, 3).await;
    file_due(&installation, true).await.unwrap();
    let verdict = verify_all(&installation).await.unwrap();
    let wrong: Vec<_> = verdict.checks.iter().filter(|(_, good, _)| !good).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].2.starts_with("1 wrong, first no. 3, key: signed after its key was revoked"), "{wrong:?}");
    let verdict = verify_certificate(&installation, &third).await.unwrap();
    assert_eq!(verdict.result, "invalid");
    // A second time, from a later time on, changes nothing.
    assert!(revoke(&mut installation, &lost, world.clock.now()).await.is_err());
    installation.close().await.unwrap();
    let owner = Program::in_directory(world.folder.path());
    owner.json(&["audit", "key", "list"]).ends(0).says(&["revoked", "in-use"]);
    owner.json(&["certificate", "verify", "1"]).ends(0);
    owner.json(&["certificate", "verify", "3"]).ends(1).says(&["revoked"]);
}

/// What the check of the key says of a certificate of the installation, with all that it knows.
async fn key_check(installation: &Installation, id: &str) -> (bool, String) {
    let verdict = verify_certificate(installation, id).await.unwrap();
    let (_, good, said) = verdict.checks.into_iter().find(|(check, _, _)| check == "key").unwrap();
    (good, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_when_its_key_ended_stays_good_although_a_clock_that_was_ahead_dated_it_later() {
    let world = filed(Making::default(), 1).await;
    let mut installation = world.open().await;
    world.clock.advance(TimeDelta::days(2));
    installation.confirm_clock().await.unwrap();
    let ahead = one_more(&world, &installation, 2).await;
    file_due(&installation, true).await.unwrap();
    world.clock.advance(TimeDelta::days(-2));
    installation.confirm_clock().await.unwrap();
    hour(&world);
    rotate(&mut installation).await.unwrap();
    hour(&world);
    all_good(&installation).await;
    let (good, said) = key_check(&installation, &ahead).await;
    assert!(good && said.contains("stands in the chain") && said.contains("the later date"), "{said}");
    // A stranger knows the log alone.
    let envelope = envelope_of(&installation, 2).await;
    let outbox = installation.control.read().await.unwrap().outbox(None).await.unwrap();
    let receipt = outbox.into_iter().find(|row| row.certificate == ahead).unwrap().receipt.unwrap();
    let known = trust(&installation).await.unwrap();
    let (good, said) = of_key(&known, &envelope, &GivenReceipt::Entry(receipt), world.clock.now());
    assert!(good && said.contains("the log held it") && said.contains("the later date"), "{said}");
    let (good, said) = of_key(&known, &envelope, &GivenReceipt::NotInThisForm, world.clock.now());
    assert!(!good && said.contains("signed after its key was retired"), "{said}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_lost_key_and_the_control_database_gains_nothing_by_an_earlier_date() {
    let world = filed(Making::default(), 2).await;
    let mut installation = world.open().await;
    let lost = installation.signer.key_id().to_owned();
    let before = world.clock.now();
    hour(&world);
    let since = world.clock.now();
    hour(&world);
    let rows = installation.control.read().await.unwrap().certificates(None).await.unwrap();
    let genuine = envelope_of(&installation, 2).await;
    let mut payload: Value = serde_json::from_slice(genuine.payload()).unwrap();
    payload["predicate"]["sequence"] = 3.into();
    payload["predicate"]["previousCertificate"]["sha256"] = rows[1].digest.clone().into();
    let thief = Thief { key: CertificateSigner::open(&world.path(KEY)).unwrap(), payload };
    let id = "019a0000-0000-7000-8000-000000000004";
    let forged = thief.envelope(id, before);
    let row = wangchuan::control::CertificateRow {
        id: id.to_owned(),
        sequence: 3,
        digest: hex::encode(forged.digest()),
        envelope: forged.as_bytes().to_vec(),
        issued_at: before,
        ..rows[1].clone()
    };
    let mut tx = installation.control.begin().await.unwrap();
    tx.add_certificate(&row).await.unwrap();
    tx.commit().await.unwrap();
    revoke(&mut installation, &lost, since).await.unwrap();
    let (good, said) = key_check(&installation, id).await;
    assert!(!good && said.contains("the date that it bears itself shows nothing"), "{said}");
    for genuine in &rows {
        let (good, said) = key_check(&installation, &genuine.id).await;
        assert!(good, "no. {}: {said}", genuine.sequence);
    }
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_is_logged_before_and_behind_and_names_the_key_that_ends() {
    let world = filed(Making::default(), 1).await;
    let mut installation = world.open().await;
    let first = installation.signer.key_id().to_owned();
    hour(&world);
    let block = "CREATE TRIGGER blocked BEFORE INSERT ON log_leaf BEGIN SELECT RAISE(ABORT, 'the log is full'); END";
    world.run_sql_in("state/control.db", block).await;
    let refused = rotate(&mut installation).await.unwrap_err().to_string();
    assert!(refused.contains("operation log cannot be written"), "{refused}");
    assert_eq!(installation.control.read().await.unwrap().signing_keys_number().await.unwrap(), 0, "it was done");
    assert_eq!(CertificateSigner::open(&world.path(KEY)).unwrap().public().key_id(), first);
    world.run_sql_in("state/control.db", "DROP TRIGGER blocked").await;

    let second = rotate(&mut installation).await.unwrap().key_id;
    hour(&world);
    let since = world.clock.now();
    revoke(&mut installation, &first, since).await.unwrap();
    let wanted = Query { operation: Some("signing".to_owned()), ..Query::default() };
    let entries = query(&installation, &wanted).await.unwrap();
    let text = |entry: &Entry, at: &str| entry.record.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let reference = |entry: &Entry, name: &str| text(entry, &format!("/unmapped/references/{name}"));
    let told: Vec<_> = entries
        .iter()
        .map(|entry| {
            assert_eq!(text(entry, "/resources/0/uid").as_deref(), Some(&first[..16]));
            assert_eq!(reference(entry, "ended").as_deref(), Some(first.as_str()));
            assert_eq!(reference(entry, "in_use").as_deref(), Some(second.as_str()));
            let operation = text(entry, "/api/operation").unwrap();
            (operation, entry.record["status_id"] == 1, reference(entry, "next_record"), reference(entry, "record"))
        })
        .collect();
    let number = |number: &str| Some(number.to_owned());
    let entry = |operation: &str, next: Option<String>, used: Option<String>| {
        (operation.to_owned(), used.is_some(), next, used)
    };
    let expected = [
        entry("signing.rotate", number("1"), None),
        entry("signing.rotate", None, number("1")),
        entry("signing.revoke", number("2"), None),
        entry("signing.revoke", None, number("2")),
    ];
    assert_eq!(told, expected);
    assert_eq!(reference(&entries[3], "since"), Some(wangchuan::control::time_text(since)));

    // One that came past the program, signed with the key in use, is there and was announced to nobody.
    let mut history = installation.signer.history().clone();
    history.number += 1;
    let (payload, message) = history.to_sign().unwrap();
    let signature = installation.signer.sign(&message).await.unwrap();
    let record = wangchuan::audit::key_history::KeyHistory::signed(payload, signature, &second);
    let mut tx = installation.control.begin().await.unwrap();
    tx.add_signing_keys(history.number, &record, world.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    installation.close().await.unwrap();
    let installation = world.open_state().await;
    let verdict = verify_all(&installation).await.unwrap();
    let wrong: Vec<_> = verdict.checks.iter().filter(|(_, good, _)| !good).collect();
    assert!(wrong.len() == 1 && wrong[0].2.contains("nobody logged that it was to be"), "{wrong:?}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_s_own_trust_file_says_how_keys_ended_and_it_takes_nothing_that_is_dated_later() {
    let world = filed(Making::default(), 1).await;
    let mut installation = world.open().await;
    let key = CertificateSigner::open(&world.path(KEY)).unwrap();
    let genuine = envelope_of(&installation, 1).await;
    let thief = Thief { key, payload: serde_json::from_slice(genuine.payload()).unwrap() };
    hour(&world);
    rotate(&mut installation).await.unwrap();
    hour(&world);
    let now = world.clock.now();
    let id = "019a0000-0000-7000-8000-000000000003";
    let dated = thief.envelope(id, now);
    match installation.audit().unwrap().sink.file(id, dated.as_bytes()).await {
        FiledOutcome::Quarantine(reason) => assert!(reason.to_string().contains("status 422"), "{reason}"),
        other => panic!("it is filed: {other:?}"),
    }
    installation.close().await.unwrap();
    let installation = world.open_state().await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let (service, _) = wangchuan::installation::serve_embedded(&installation, address).await.unwrap();
    let file = reqwest::get(format!("{}/v1/trust", service.url())).await.unwrap().bytes().await.unwrap();
    service.stop().await.unwrap();
    let (theirs, ours) = (Trust::parse(&file).unwrap(), trust(&installation).await.unwrap());
    assert_eq!(theirs.ended, ours.ended);
    assert_eq!(theirs.ended.len(), 1);
    let ends = |trust: &Trust| trust.signers.iter().map(|(_, window)| window.end).collect::<Vec<_>>();
    assert_eq!(ends(&theirs), ends(&ours));
    let (good, said) = of_key(&theirs, &dated, &GivenReceipt::NotInThisForm, now);
    assert!(!good && said.contains("signed after its key was retired"), "{said}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_missed_a_new_key_signs_no_certificate() {
    let world = filed(Making::default(), 1).await;
    let installation = world.open().await;
    forget(&installation, &customers(&world)[1]).await;
    let mut tx = installation.control.begin().await.unwrap();
    tx.add_signing_keys(1, b"a record of another process", world.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    let refused = certify_due(&installation).await.unwrap_err().to_string();
    assert!(refused.contains("another signing key was put into use"), "{refused}");
    assert_eq!(installation.control.read().await.unwrap().certificates(None).await.unwrap().len(), 1);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_was_deleted_from_the_control_database_is_missed() {
    let world = filed(Making::default(), 1).await;
    let mut installation = world.open().await;
    hour(&world);
    let change = rotate(&mut installation).await.unwrap();
    hour(&world);
    revoke(&mut installation, &change.ended, world.clock.now()).await.unwrap();
    all_good(&installation).await;
    installation.close().await.unwrap();
    world.run_sql_in("state/control.db", "DELETE FROM signing_keys WHERE number = 2").await;
    let installation = world.open_state().await;
    let verdict = verify_all(&installation).await.unwrap();
    let wrong: Vec<_> = verdict.checks.iter().filter(|(_, good, _)| !good).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].0 == "signing-keys" && wrong[0].2.contains("record 2 was logged"), "{wrong:?}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_two_keys_leaves_one_of_them_in_use() {
    let world = filed(Making::default(), 1).await;
    let owner = || Program::in_directory(world.folder.path());
    let mut keys = 1;
    for point in SIGNING_POINTS {
        let killed = owner().with("WANGCHUAN_CRASH_AT", point).json(&["audit", "key", "rotate"]);
        assert!(killed.was_killed(), "{point}: {killed}");
        keys += usize::from(*point == "signing.recorded");
        let listed = owner().json(&["audit", "key", "list"]).ends(0).list("signing_keys");
        assert_eq!(listed.len(), keys, "{point}");
        owner().json(&["audit", "verify"]).ends(0);
        owner().json(&["audit", "key", "rotate"]).ends(0);
        keys += 1;
        let listed = owner().json(&["audit", "key", "list"]).ends(0).list("signing_keys");
        assert_eq!(listed.len(), keys, "{point}");
        let in_use = listed.last().unwrap()["key_id"].as_str().unwrap();
        assert_eq!(CertificateSigner::open(&world.path(KEY)).unwrap().public().key_id(), in_use, "{point}");
        owner().json(&["audit", "verify"]).ends(0);
    }
    let left = std::fs::read_dir(world.path("state")).unwrap();
    assert!(!left.flatten().any(|entry| entry.file_name().to_string_lossy().contains("next")), "a draft stays behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_wrote_into_the_control_database_is_refused() {
    let world = filed(Making::default(), 1).await;
    let mut installation = world.open().await;
    hour(&world);
    rotate(&mut installation).await.unwrap();
    let mut history = installation.signer.history().clone();
    let stranger = CertificateSigner::in_memory().unwrap();
    let theirs = wangchuan::audit::key_history::HeldKey::new(
        stranger.public(),
        wangchuan::keys::signing::SigningKind::File,
        "theirs",
        history.keys[0].valid_for.start,
    );
    history.keys.insert(0, wangchuan::audit::key_history::HeldKey { ended: history.keys[0].ended.clone(), ..theirs });
    history.keys[0].valid_for.end = history.keys[1].valid_for.end;
    let (payload, message) = history.to_sign().unwrap();
    let record = wangchuan::audit::key_history::KeyHistory::signed(
        payload,
        stranger.sign(&message).unwrap(),
        installation.signer.key_id(),
    );
    let mut tx = installation.control.begin().await.unwrap();
    tx.add_signing_keys(99, &record, world.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    installation.close().await.unwrap();
    let refused = world.try_open().await.err().unwrap().to_string();
    assert!(refused.contains("record of signing keys"), "{refused}");
    Program::in_directory(world.folder.path()).json(&["audit", "verify"]).says(&["record of signing keys"]);
}

/// What stock verifiers say of the first certificates of a world, by tool: what is genuine, and with one bit of its signature changed.
pub fn stock_verifiers_take(world: &World, numbers: &[usize]) {
    let owner = Program::in_directory(world.folder.path());
    for number in numbers {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        owner.json(&["audit", "trust", "--output", &path("trust.json"), "--parts", &path("parts")]).ends(0);
        owner.json(&["certificate", "export", &number.to_string(), "--output", &path("genuine.sigstore.json")]).ends(0);
        let text = std::fs::read_to_string(path("genuine.sigstore.json")).unwrap();
        let mut bundle: Value = serde_json::from_str(&text).unwrap();
        let signature = "/dsseEnvelope/signatures/0/sig";
        let mut bytes = STANDARD.decode(bundle.pointer(signature).unwrap().as_str().unwrap()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        *bundle.pointer_mut(signature).unwrap() = STANDARD.encode(bytes).into();
        std::fs::write(path("changed.sigstore.json"), bundle.to_string()).unwrap();
        let key_id = bundle.pointer("/verificationMaterial/publicKey/hint").unwrap().as_str().unwrap().to_owned();
        let trust: Value = serde_json::from_slice(&std::fs::read(path("trust.json")).unwrap()).unwrap();
        let keys = trust["certificateKeys"].as_array().unwrap();
        let pem = keys.iter().find(|key| key["keyId"] == key_id.as_str()).unwrap()["publicKey"].as_str().unwrap();
        std::fs::write(path("signer.pem"), pem).unwrap();
        for part in ["trusted_root.json", "log.vkey", "tlog-policy.txt"] {
            std::fs::copy(folder.path().join("parts").join(part), folder.path().join(part)).unwrap();
        }
        let said = super::bundles::all_verifiers(folder.path());
        assert!(said.iter().any(|(tool, _)| *tool == "openssl"));
        for (tool, said) in said {
            assert_eq!(said.get("genuine").map(String::as_str), Some("accepted"), "{tool}: {said:?}");
            if tool != "in_toto_attestation" {
                assert!(said["changed"].starts_with("rejected"), "{tool}: {said:?}");
            }
        }
    }
}
