//! A webhook whose audit service signs for what it took: grade C, verified before it counts and by a stranger later; whatever is not
//! a good acknowledgement is filed again.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use chrono::TimeDelta;
use serde_json::{Value, json};
use wangchuan::audit::acknowledgement::PAYLOAD_TYPE;
use wangchuan::audit::receipt::Grade;
use wangchuan::certify::dsse::{Envelope, pae};
use wangchuan::certify::signer::CertificateSigner;
use wangchuan::clock::Clock;
use wangchuan::control::OutboxRow;
use wangchuan::installation::Installation;
use wangchuan::tasks::audit::{audit_status, file_again, verify_all};
use wangchuan::tasks::evidence_pack::{make_pack, verify_pack};
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::signing_keys::rotate;
use wangchuan::tasks::trust::{GivenReceipt, trust};

use super::filing::{Others, company, erase};
use super::signing_keys::of_key;
use super::tools::stranger;
use crate::support::ports::free_port;
use crate::support::program::Program;
use crate::support::world::World;

const KEYS: &str = "audit-service.pem";
const SIGNED: &str = "acknowledged_by = \"audit-service.pem\"\n";

/// What the service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    OtherKey,
    Replayed,
    OtherDigest,
    ChangedPayload,
    Bare,
}

/// A company's own audit service.
struct Service {
    keys: [CertificateSigner; 2],
    signs_with: usize,
    answer: Answer,
    clock: Arc<dyn Clock>,
    /// Every good answer, in order.
    signed: Vec<Vec<u8>>,
    posts: usize,
}

impl Service {
    fn take(&mut self, body: &[u8]) -> Vec<u8> {
        self.posts += 1;
        let envelope = Envelope::parse(body).unwrap();
        let statement: Value = serde_json::from_slice(envelope.payload()).unwrap();
        let mut payload = json!({
            "certificateId": statement["predicate"]["certificateId"], "sha256": hex::encode(envelope.digest()),
            "receivedAt": self.clock.now(), "shelf": {"number": 7},
        });
        if self.answer == Answer::OtherDigest {
            payload["sha256"] = "00".repeat(32).into();
        }
        let stranger = CertificateSigner::in_memory().unwrap();
        let key = if self.answer == Answer::OtherKey { &stranger } else { &self.keys[self.signs_with] };
        let payload = payload.to_string().into_bytes();
        let signature = key.sign(&pae(PAYLOAD_TYPE, &payload)).unwrap();
        let make = |payload: Vec<u8>| Envelope::make(PAYLOAD_TYPE, payload, signature, key.public().key_id());
        match self.answer {
            Answer::Bare => b"OK".to_vec(),
            Answer::Replayed => self.signed[0].clone(),
            Answer::ChangedPayload => make([b" ", &payload[..]].concat()).as_bytes().to_vec(),
            Answer::OtherKey | Answer::OtherDigest => make(payload).as_bytes().to_vec(),
            Answer::Good => {
                self.signed.push(make(payload).as_bytes().to_vec());
                self.signed[self.signed.len() - 1].clone()
            }
        }
    }

    fn pem(&self, which: &[usize]) -> String {
        which.iter().map(|at| self.keys[*at].public().to_pem()).collect()
    }
}

/// A company whose certificates go to a webhook that signs with the first of its keys.
async fn signing_company() -> (World, Others, Arc<Mutex<Service>>, String) {
    let (world, installation, others) = company().await;
    installation.close().await.unwrap();
    let service = Service {
        keys: [CertificateSigner::in_memory().unwrap(), CertificateSigner::in_memory().unwrap()],
        signs_with: 0,
        answer: Answer::Good,
        clock: world.clock.clone(),
        signed: Vec::new(),
        posts: 0,
    };
    std::fs::write(world.path(KEYS), service.pem(&[0])).unwrap();
    let service = Arc::new(Mutex::new(service));
    let taker = Arc::clone(&service);
    let taken = post(async move |body: Bytes| (StatusCode::OK, taker.lock().unwrap().take(&body)));
    let port = free_port();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let app = Router::new().route("/erasures", taken);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let webhook = format!(
        "url = \"http://127.0.0.1:{port}/erasures\"\nadapter = \"webhook\"\n\
         webhook_secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n{SIGNED}"
    );
    world.edit_config(&native(&others), &webhook);
    (world, others, service, webhook)
}

fn native(others: &Others) -> String {
    format!("url = \"http://127.0.0.1:{}\"", others.port)
}

/// The outbox, in the order of the certificates.
async fn rows(installation: &Installation) -> Vec<OutboxRow> {
    let mut tx = installation.control.read().await.unwrap();
    let mut outbox = tx.outbox(None).await.unwrap();
    let order = tx.certificates(None).await.unwrap();
    outbox.sort_by_key(|row| order.iter().position(|known| known.id == row.certificate));
    outbox
}

async fn grades(installation: &Installation) -> Vec<(Grade, u64)> {
    let status = audit_status(installation).await.unwrap();
    status.grades.into_iter().map(|(grade, _, count)| (grade, count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_answer_is_a_receipt_that_a_stranger_verifies_elsewhere() {
    let (world, _, service, _) = signing_company().await;
    let installation = world.open().await;
    erase(&world, &installation, 0, 2).await;
    let report = file_due(&installation, false).await.unwrap();
    assert_eq!((report.receipted.len(), report.acknowledged.len(), report.waiting.len()), (2, 0, 0), "{report:?}");
    let mut kept: Vec<_> = rows(&installation).await.into_iter().filter_map(|row| row.receipt).collect();
    let mut answered = service.lock().unwrap().signed.clone();
    kept.sort();
    answered.sort();
    assert_eq!(kept, answered, "as they came, to the last byte");
    assert_eq!(grades(&installation).await, [(Grade::C, 2)]);
    let id = rows(&installation).await[0].certificate.clone();
    let verdict = verify_certificate(&installation, &id).await.unwrap();
    let (_, good, said) = verdict.checks.iter().find(|(check, ..)| check == "receipt").unwrap();
    assert!(*good && said.contains("grade C: signed acknowledgement, no log"), "{verdict:?}");
    assert_eq!(verify_all(&installation).await.unwrap().result, "valid");
    assert!(file_due(&installation, true).await.unwrap().receipted.is_empty(), "nothing is sent twice");
    let again = file_again(&installation).await.unwrap();
    assert_eq!((again.same, again.better.len(), again.failed.len()), (2, 0, 0));
    let (now, known) = (installation.clock.now(), trust(&installation).await.unwrap());
    let pack = make_pack(&installation, now.date_naive(), now.date_naive()).await.unwrap();
    let judged = verify_pack(&pack.files, None, &known, now);
    let certificates = judged.checks.iter().find(|check| check.name == "certificates").unwrap();
    assert!(certificates.faults.is_empty() && judged.without_receipt.is_empty(), "{judged:?}");
    installation.close().await.unwrap();

    let owner = Program::in_directory(world.folder.path());
    owner.json(&["certificate", "export", "1", "--output", "1.sigstore.json"]).ends(0);
    owner.json(&["certificate", "export", "2", "--output", "2.sigstore.json"]).ends(0);
    owner.json(&["audit", "trust", "--output", "trust.json", "--parts", "parts"]).ends(0);
    let key = service.lock().unwrap().pem(&[0]);
    assert_eq!(std::fs::read_to_string(world.path("parts/acknowledgement.pem")).unwrap(), key);
    let no_log = owner.json(&["certificate", "export", "1", "--format", "proof", "--output", "1.tlog-proof"]);
    no_log.ends(1).says(&["stands in no log"]);
    owner.json(&["certificate", "export", "1", "--format", "html", "--output", "1.html", "--lang", "en"]).ends(0);
    let page = std::fs::read_to_string(world.path("1.html")).unwrap();
    assert!(page.contains("grade C: signed acknowledgement, no log") && !page.contains("not filed yet"), "{page}");
    owner.json(&["certificate", "show", "1"]).ends(0).says(&["FILED_WITHOUT_LOG", "C: signed acknowledgement, no log"]);
    owner.json(&["doctor"]).says(&["it signs for what it took with"]);
    elsewhere(&world);
}

/// With two files and nothing else: the acknowledgement counts for its certificate, under its key.
fn elsewhere(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| serde_json::from_slice::<Value>(&std::fs::read(world.path(name)).unwrap()).unwrap();
    let write = |name: &str, value: &Value| std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    let (one, two, known) = (read("1.sigstore.json"), read("2.sigstore.json"), read("trust.json"));
    write("1.sigstore.json", &one);
    write("trust.json", &known);
    let program = stranger(folder.path());
    let verify = |file: &str, trust: &str| program.json(&["certificate", "verify", file, "--trust", trust]);
    verify("1.sigstore.json", "trust.json").ends(0).says(&["grade C: signed acknowledgement, no log"]);
    let mut other = one.clone();
    other["acknowledgement"] = two["acknowledgement"].clone();
    write("other.sigstore.json", &other);
    verify("other.sigstore.json", "trust.json").ends(1).says(&["it is about another certificate"]);
    let mut without = one;
    without.as_object_mut().unwrap().remove("acknowledgement");
    write("without.sigstore.json", &without);
    verify("without.sigstore.json", "trust.json").ends(1).says(&["there is no receipt"]);
    let mut strange = known.clone();
    let key = CertificateSigner::in_memory().unwrap();
    strange["acknowledgementKeys"] = json!([{"keyId": key.public().key_id(), "publicKey": key.public().to_pem()}]);
    write("strange.json", &strange);
    verify("1.sigstore.json", "strange.json").ends(1).says(&["it is signed by a key that is not trusted"]);
    strange["acknowledgementKeys"][0]["keyId"] = known["acknowledgementKeys"][0]["keyId"].clone();
    write("renamed.json", &strange);
    verify("1.sigstore.json", "renamed.json").ends(2).says(&["the acknowledgement key in it is not usable"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_good_acknowledgement_is_filed_again() {
    let (world, _, service, _) = signing_company().await;
    let installation = world.open().await;
    erase(&world, &installation, 0, 1).await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), 1);
    erase(&world, &installation, 1, 1).await;
    let cases = [
        (Answer::OtherKey, "signed by a key that is not trusted"),
        (Answer::Replayed, "about another certificate"),
        (Answer::OtherDigest, "not the certificate's digest"),
        (Answer::ChangedPayload, "signature does not fit"),
        (Answer::Bare, "not a DSSE envelope"),
    ];
    for (answer, said) in cases {
        service.lock().unwrap().answer = answer;
        let before = service.lock().unwrap().posts;
        let report = file_due(&installation, false).await.unwrap();
        let reasons = (report.waiting.first().map(|(_, why)| why.as_str()), report.alarm.as_deref());
        assert!(reasons.0.is_some_and(|why| why.contains(said)), "{answer:?}: {report:?}");
        assert!(reasons.1.is_some_and(|why| why.contains(said)), "{answer:?}: {report:?}");
        let row = rows(&installation).await.remove(1);
        assert_eq!((row.state.as_str(), row.receipt, row.grade), ("pending", None, None), "{answer:?}");
        assert_eq!(service.lock().unwrap().posts, before + 1, "{answer:?}");
        // Not at once, and not never.
        assert_eq!(file_due(&installation, false).await.unwrap().waiting.len(), 1);
        assert_eq!(service.lock().unwrap().posts, before + 1, "{answer:?}");
        world.clock.advance(TimeDelta::minutes(15));
    }
    service.lock().unwrap().answer = Answer::Good;
    assert_eq!(file_due(&installation, false).await.unwrap().receipted.len(), 1);
    assert_eq!(grades(&installation).await, [(Grade::C, 2)]);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_changes_its_key_and_we_change_ours() {
    let (world, _, service, _) = signing_company().await;
    let mut installation = world.open().await;
    erase(&world, &installation, 0, 1).await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), 1);
    // The service was quicker than the configuration: nothing is lost.
    service.lock().unwrap().signs_with = 1;
    erase(&world, &installation, 1, 1).await;
    assert_eq!(file_due(&installation, true).await.unwrap().waiting.len(), 1);
    let reopened = async |installation: Installation, keys: &[usize]| {
        installation.close().await.unwrap();
        std::fs::write(world.path(KEYS), service.lock().unwrap().pem(keys)).unwrap();
        world.open().await
    };
    installation = reopened(installation, &[1, 0]).await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), 1);
    assert_eq!(verify_all(&installation).await.unwrap().result, "valid");
    assert_eq!(trust(&installation).await.unwrap().acknowledgers.iter().count(), 2);
    // Without the former key its acknowledgements count for nothing, until there are others.
    installation = reopened(installation, &[1]).await;
    let verdict = verify_all(&installation).await.unwrap();
    assert!(verdict.result == "invalid" && format!("{verdict:?}").contains("not trusted"), "{verdict:?}");
    let again = file_again(&installation).await.unwrap();
    assert_eq!((again.better.len(), again.same), (1, 1));
    assert_eq!(verify_all(&installation).await.unwrap().result, "valid");
    // The key that signed the certificates ends, and they were there.
    world.clock.advance(TimeDelta::hours(1));
    assert_eq!(rotate(&mut installation).await.unwrap().unfiled, 0);
    world.clock.advance(TimeDelta::hours(1));
    let known = trust(&installation).await.unwrap();
    for row in rows(&installation).await {
        let mut tx = installation.control.read().await.unwrap();
        let envelope = tx.certificate(&row.certificate).await.unwrap().unwrap().envelope;
        drop(tx);
        let receipt = GivenReceipt::kept(&row.receipt.unwrap());
        let (good, said) = of_key(&known, &Envelope::parse(&envelope).unwrap(), &receipt, world.clock.now());
        assert!(good && said.contains("without a receipt of a log"), "{said}");
    }
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grade_rises_by_filing_again_and_never_falls() {
    let (world, others, service, signing) = signing_company().await;
    let unsigned = signing.replace(SIGNED, "");
    world.edit_config(&signing, &unsigned);
    let installation = world.open().await;
    erase(&world, &installation, 0, 1).await;
    assert_eq!(file_due(&installation, true).await.unwrap().acknowledged.len(), 1);
    assert_eq!(grades(&installation).await, [(Grade::D, 1)], "nobody looked at what was answered");
    installation.close().await.unwrap();

    world.edit_config(&unsigned, &signing);
    let installation = world.open().await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), 0);
    assert_eq!(grades(&installation).await, [(Grade::D, 1)]);
    service.lock().unwrap().answer = Answer::Bare;
    assert_eq!(file_again(&installation).await.unwrap().failed.len(), 1);
    assert_eq!(grades(&installation).await, [(Grade::D, 1)]);
    service.lock().unwrap().answer = Answer::Good;
    assert_eq!(file_again(&installation).await.unwrap().better.len(), 1);
    assert_eq!(grades(&installation).await, [(Grade::C, 1)]);
    installation.close().await.unwrap();

    world.edit_config(&signing, &native(&others));
    let log = others.serve(&world.path("elsewhere.db")).await;
    let installation = world.open().await;
    assert_eq!(file_again(&installation).await.unwrap().better.len(), 1);
    assert_eq!(grades(&installation).await, [(Grade::B, 1)]);
    installation.close().await.unwrap();
    log.stop().await.unwrap();

    world.edit_config(&native(&others), &signing);
    let installation = world.open().await;
    let before = service.lock().unwrap().posts;
    let again = file_again(&installation).await.unwrap();
    assert_eq!((again.better.len(), service.lock().unwrap().posts), (0, before), "what stands in a log is not sent");
    assert_eq!(grades(&installation).await, [(Grade::B, 1)]);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_used_are_named_before_anything_is_filed() {
    let (world, ..) = signing_company().await;
    let said = async || world.try_open().await.err().unwrap().to_string();
    // RFC 8410 §10.1.
    let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    for (content, words) in [("nothing", "there is no public key in PEM"), (ed25519, "not a P-256 public key")] {
        std::fs::write(world.path(KEYS), content).unwrap();
        let said = said().await;
        assert!(said.contains(words) && said.contains(KEYS), "{said}");
    }
    std::fs::remove_file(world.path(KEYS)).unwrap();
    let said = said().await;
    assert!(said.contains("cannot read the keys of `acknowledged_by`") && said.contains(KEYS), "{said}");
}
