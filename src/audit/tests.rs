//! Tests of receipts, of the service over real HTTP with kill and restart, and of the client against good and bad
//! services.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{Access, AuditClient, ClientError, ClientSetup, Patience};
use super::receipt::{self, Grade, LogOperator, ReceiptError};
use super::service::{ServiceError, ServiceHandle, ServiceSetup, start};
use super::trust::Trust;
use super::witness::Witnesses;
use super::{AuditSink, BearerToken, FiledOutcome, QuarantineReason, RetryReason, backoff};
use crate::certify::dsse::Envelope;
use crate::certify::issue;
use crate::certify::signer::{CertificateSigner, PublicKey};
use crate::certify::tests::{sample, sample_with_id, signer, trusted, vector};
use crate::clock::FixedClock;
use crate::control::log_store::SqlLogStore;
use crate::log::checkpoint::{CheckpointKey, CheckpointSigner};
use crate::log::key_file::{create_checkpoint_key, open_checkpoint_key};
use crate::log::sequencer::{FileAnchor, Sequencer};
use crate::log::store::StoredLeaf;
use crate::log::tree::{Frontier, leaf_hash, verify_consistency, verify_inclusion};
use crate::random::{Random, RandomUnavailable, SystemRandom};

const ORIGIN: &str = "wangchuan.example/audit";
pub(super) const TOKEN: &str = "a-token-of-some-length";
pub(super) const ID: &str = "0190a1b2-c3d4-7abc-8def-0123456789ab";

pub(super) fn id(number: usize) -> String {
    format!("0190a1b2-c3d4-7abc-8def-{number:012x}")
}

pub(super) fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock(DateTime::<Utc>::from_timestamp(1_772_800_000, 0).unwrap()))
}

pub(super) fn log_signer(folder: &Path) -> CheckpointSigner {
    let path = folder.join("checkpoint.pem");
    if path.exists() {
        return open_checkpoint_key(&path, ORIGIN).unwrap();
    }
    create_checkpoint_key(&path, ORIGIN, &SystemRandom).unwrap()
}

pub(super) fn certificate_signer(folder: &Path) -> CertificateSigner {
    let path = folder.join("certificate.pem");
    if path.exists() { CertificateSigner::open(&path) } else { CertificateSigner::create(&path) }.unwrap()
}

pub(super) async fn serve(folder: &Path) -> ServiceHandle {
    let store = Arc::new(SqlLogStore::open(&folder.join("audit.db"), "certificates").await.unwrap());
    let anchor = Box::new(FileAnchor(folder.join("anchor")));
    let sequencer = Sequencer::open(store, log_signer(folder), Some(anchor)).await.unwrap();
    let setup = ServiceSetup {
        bind: "127.0.0.1:0".parse().unwrap(),
        sequencer,
        signers: trusted(&certificate_signer(folder)).into(),
        token: Some(BearerToken::new(TOKEN).unwrap()),
        operator: LogOperator::SelfHosted,
        witnesses: Witnesses::default(),
        clock: clock(),
    };
    start(setup).await.unwrap()
}

pub(super) fn access(url: &str) -> Access {
    Access { url: url.to_owned(), ca_pem: None, identity: None, patience: Patience::default() }
}

pub(super) fn client(folder: &Path, url: &str) -> AuditClient {
    client_with(folder, url, Some(TOKEN)).unwrap()
}

fn client_with(folder: &Path, url: &str, token: Option<&str>) -> Result<AuditClient, ClientError> {
    AuditClient::new(ClientSetup {
        access: access(url),
        log: log_signer(folder).key().clone(),
        signers: trusted(&certificate_signer(folder)),
        token: token.map(|token| BearerToken::new(token).unwrap()),
        clock: clock(),
    })
}

pub(super) fn index_of(outcome: &FiledOutcome) -> u64 {
    match outcome {
        FiledOutcome::Receipted(filed) => filed.verified.index,
        other => panic!("not receipted: {other:?}"),
    }
}

/// A log of `count` other leaves with the envelope's leaf in the middle; returns a good receipt.
fn make_receipt(envelope: &Envelope, key: &PublicKey, log: &CheckpointSigner) -> Vec<u8> {
    let body = receipt::leaf_body(envelope, key);
    let mut leaves: Vec<_> = (0u8..6).map(|number| leaf_hash(&[number])).collect();
    leaves.insert(3, leaf_hash(&body));
    let root_of = |range: crate::log::tree::Range| {
        let mut frontier = Frontier::default();
        leaves[range.start as usize..range.end as usize].iter().for_each(|leaf| frontier.append(*leaf, |_, _| ()));
        frontier.root()
    };
    let proof: Vec<_> = crate::log::tree::inclusion_ranges(3, 7).unwrap().into_iter().map(root_of).collect();
    let checkpoint = log.sign(7, root_of(crate::log::tree::Range { start: 0, end: 7 }));
    receipt::build(&body, 3, &proof, &checkpoint, log.key()).unwrap()
}

/// Fixed "randomness", for a log key that stays the same.
struct Counting;

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
        (1u8..).zip(out).for_each(|(number, byte)| *byte = number);
        Ok(())
    }
}

fn golden_log() -> CheckpointSigner {
    CheckpointSigner::from_pkcs8(ORIGIN, &CheckpointSigner::make_pkcs8(&Counting).unwrap()).unwrap()
}

#[test]
fn tampered_receipts_are_refused() {
    let signer = signer();
    let log = golden_log();
    let envelope = issue(&sample(), &signer).unwrap();
    let good = make_receipt(&envelope, signer.public(), &log);
    let check =
        |receipt: &Value| receipt::verify(receipt.to_string().as_bytes(), &envelope, signer.public(), log.key());
    let good: Value = serde_json::from_slice(&good).unwrap();
    let verified = check(&good).unwrap();
    assert_eq!((verified.index, verified.tree_size, verified.grade), (3, 7, Grade::B));
    assert_eq!(verified.grade.describe(LogOperator::SelfHosted), "self-hosted, unwitnessed");
    let altered = |pointer: &str, value: Value| {
        let mut receipt = good.clone();
        *receipt.pointer_mut(pointer).unwrap() = value;
        check(&receipt).unwrap_err()
    };
    assert!(matches!(altered("/logIndex", "4".into()), ReceiptError::Inconsistent(_)));
    let mut moved = good.clone();
    moved["logIndex"] = "4".into();
    moved["inclusionProof"]["logIndex"] = "4".into();
    assert!(matches!(check(&moved).unwrap_err(), ReceiptError::WrongProof));
    assert!(matches!(altered("/inclusionProof/treeSize", "8".into()), ReceiptError::Inconsistent(_)));
    let other_hash: Value = STANDARD.encode([9; 32]).into();
    assert!(matches!(altered("/inclusionProof/rootHash", other_hash.clone()), ReceiptError::Inconsistent(_)));
    assert!(matches!(altered("/inclusionProof/hashes/1", other_hash.clone()), ReceiptError::WrongProof));
    assert!(matches!(altered("/inclusionProof/hashes", serde_json::json!([])), ReceiptError::WrongProof));
    assert!(matches!(altered("/inclusionProof/hashes/0", "AAAA".into()), ReceiptError::WrongProof));
    assert!(matches!(altered("/logId/keyId", other_hash), ReceiptError::OtherLog));
    assert!(matches!(altered("/kindVersion/version", "0.0.1".into()), ReceiptError::OtherKind));
    assert!(matches!(altered("/canonicalizedBody", "AAAA".into()), ReceiptError::OtherCertificate));
    let note = good["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap();
    let forged = note.replacen("\n7\n", "\n8\n", 1);
    assert!(matches!(altered("/inclusionProof/checkpoint/envelope", forged.into()), ReceiptError::Checkpoint(_)));
    // A checkpoint of the same log key over another tree, good by itself.
    let other = log.sign(7, [9; 32]).note;
    let error = altered("/inclusionProof/checkpoint/envelope", other.into());
    assert!(matches!(error, ReceiptError::Inconsistent(_)));
    // Another certificate, another signature over the same one, another log key.
    let second = issue(&sample_with_id(&id(1)), &signer).unwrap();
    let bytes = good.to_string().into_bytes();
    for envelope in [&second, &issue(&sample(), &signer).unwrap()] {
        let error = receipt::verify(&bytes, envelope, signer.public(), log.key()).unwrap_err();
        assert!(matches!(error, ReceiptError::OtherCertificate));
    }
    let folder = tempfile::tempdir().unwrap();
    let error = receipt::verify(&bytes, &envelope, signer.public(), log_signer(folder.path()).key()).unwrap_err();
    assert!(matches!(error, ReceiptError::OtherLog));
}

#[test]
fn a_leaf_is_canonical_json_without_content() {
    let signer = signer();
    let envelope = issue(&sample(), &signer).unwrap();
    let body = receipt::leaf_body(&envelope, signer.public());
    // serde_json sorts object members, as RFC 8785 does for ASCII names.
    let value: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(value.to_string().into_bytes(), body);
    assert!((485..=493).contains(&body.len()), "{}", body.len());
    let text = String::from_utf8(body).unwrap();
    assert!(!text.contains(ID) && !text.contains("crm"));
}

#[test]
fn a_changed_stored_certificate_is_noticed() {
    let signer = signer();
    let keys = trusted(&signer);
    let envelope = issue(&sample(), &signer).unwrap();
    let entry = receipt::leaf_body(&envelope, signer.public());
    let content = Some(envelope.as_bytes().to_vec());
    let leaf = StoredLeaf { index: 0, id: ID.into(), hash: leaf_hash(&entry), entry, salt: None, content, time_ms: 0 };
    assert_eq!(receipt::check_content(&leaf, &keys), None);
    assert_eq!(receipt::check_content(&StoredLeaf { content: None, ..leaf.clone() }, &keys), None);
    let resigned = issue(&sample(), &signer).unwrap().as_bytes().to_vec();
    let other = issue(&sample_with_id(&id(1)), &signer).unwrap().as_bytes().to_vec();
    let foreign = issue(&sample(), &self::signer()).unwrap().as_bytes().to_vec();
    for content in [resigned, other, foreign, b"{}".to_vec()] {
        let changed = StoredLeaf { content: Some(content), ..leaf.clone() };
        assert!(receipt::check_content(&changed, &keys).is_some());
    }
    assert!(receipt::check_content(&StoredLeaf { id: id(1), ..leaf }, &keys).is_some());
}

#[test]
fn golden_receipt() {
    let envelope = Envelope::parse(&std::fs::read(vector("certificate.json")).unwrap()).unwrap();
    let key = PublicKey::from_pem(&std::fs::read_to_string(vector("certificate-key.pem")).unwrap()).unwrap();
    let log = CheckpointKey::parse(&std::fs::read_to_string(vector("checkpoint.vkey")).unwrap()).unwrap();
    let stored = std::fs::read(vector("receipt.json")).unwrap();
    assert_eq!(receipt::verify(&stored, &envelope, &key, &log).unwrap().index, 3);
    assert_eq!(make_receipt(&envelope, &key, &golden_log()), stored);
    let bundle = receipt::bundle(&envelope, &stored, None).unwrap();
    assert_eq!(bundle, std::fs::read(vector("bundle.json")).unwrap());
}

#[test]
fn write_golden_vectors() {
    // Only for a new version of the format, and then on purpose.
    if std::env::var_os("WANGCHUAN_UPDATE_VECTORS").is_none() {
        return;
    }
    let signer = signer();
    let envelope = issue(&sample(), &signer).unwrap();
    let receipt = make_receipt(&envelope, signer.public(), &golden_log());
    std::fs::write(vector("certificate.json"), envelope.as_bytes()).unwrap();
    std::fs::write(vector("certificate-key.pem"), signer.public().to_pem()).unwrap();
    std::fs::write(vector("receipt.json"), &receipt).unwrap();
    std::fs::write(vector("bundle.json"), receipt::bundle(&envelope, &receipt, None).unwrap()).unwrap();
}

#[tokio::test]
async fn filing_is_idempotent_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let signer = certificate_signer(path);
    let service = serve(path).await;
    let first = client(path, &service.url());
    let envelopes: Vec<Envelope> = (0..5).map(|n| issue(&sample_with_id(&id(n)), &signer).unwrap()).collect();
    for (number, envelope) in envelopes.iter().enumerate() {
        let outcome = first.file(&id(number), envelope.as_bytes()).await;
        assert_eq!(index_of(&outcome), number as u64);
    }
    // As after a lost reply: the same place.
    assert_eq!(index_of(&first.file(&id(2), envelopes[2].as_bytes()).await), 2);
    service.stop().await.unwrap();
    let down = first.file(&id(2), envelopes[2].as_bytes()).await;
    assert_eq!(down, FiledOutcome::Retry { after: None, alarm: false, reason: RetryReason::Unreachable });
    let service = serve(path).await;
    let second = client(path, &service.url());
    for (number, envelope) in envelopes.iter().enumerate().rev() {
        assert_eq!(index_of(&second.file(&id(number), envelope.as_bytes()).await), number as u64);
    }
    let other = issue(&sample_with_id(&id(5)), &signer).unwrap();
    assert_eq!(index_of(&second.file(&id(5), other.as_bytes()).await), 5);
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_filings_get_distinct_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let signer = certificate_signer(path);
    let service = serve(path).await;
    let sink = Arc::new(client(path, &service.url()));
    let mut tasks = Vec::new();
    // Every certificate is filed twice at the same time.
    for number in 0..60 {
        let envelope = issue(&sample_with_id(&id(number / 2)), &signer).unwrap();
        let sink = sink.clone();
        tasks.push(tokio::spawn(async move { sink.file(&id(number / 2), envelope.as_bytes()).await }));
    }
    let mut places = std::collections::BTreeSet::new();
    for task in tasks {
        // Of the two different signatures over one certificate the first stays; the other's receipt does not fit.
        match task.await.unwrap() {
            FiledOutcome::Receipted(filed) => assert!(places.insert(filed.verified.index)),
            FiledOutcome::Retry { reason: RetryReason::BadReceipt, alarm: true, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(places.into_iter().collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
    service.stop().await.unwrap();
}

pub(super) struct Raw {
    http: reqwest::Client,
    url: String,
}

impl Raw {
    pub(super) fn new(service: &ServiceHandle) -> Self {
        Self { http: reqwest::Client::builder().no_proxy().build().unwrap(), url: service.url() }
    }

    async fn put(&self, id: &str, body: &[u8], change: impl FnOnce(&mut HeaderMap)) -> (u16, Value) {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        change(&mut headers);
        let request = self.http.put(format!("{}/v1/certificates/{id}", self.url)).headers(headers);
        Self::read(request.body(body.to_vec()).send().await.unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(TOKEN);
        Self::read(request.send().await.unwrap()).await
    }

    async fn read(reply: reqwest::Response) -> (u16, Value) {
        let status = reply.status().as_u16();
        let media_type = reply.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(media_type == "application/problem+json", status >= 400, "{status} {media_type}");
        let text = reply.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

#[tokio::test]
async fn the_service_answers_as_the_contract_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let signer = certificate_signer(path);
    let service = serve(path).await;
    let raw = Raw::new(&service);
    let envelope = issue(&sample(), &signer).unwrap();
    let body = envelope.as_bytes();
    let nothing = |_: &mut HeaderMap| ();
    let status = async |id: &str, body: &[u8]| raw.put(id, body, nothing).await.0;

    assert_eq!(raw.get(&format!("/v1/certificates/{ID}/receipt")).await.0, 404);
    assert_eq!(raw.put(ID, body, |h| drop(h.remove("authorization"))).await.0, 401);
    assert_eq!(raw.put(ID, body, |h| drop(h.insert("authorization", "Bearer wrong".parse().unwrap()))).await.0, 401);
    assert_eq!(raw.put(ID, body, |h| drop(h.insert("content-type", "text/plain".parse().unwrap()))).await.0, 415);
    let wrong_digest = format!("sha-256=:{}:", STANDARD.encode([0; 32]));
    assert_eq!(raw.put(ID, body, |h| drop(h.insert("content-digest", wrong_digest.parse().unwrap()))).await.0, 400);
    assert_eq!(status(ID, b"{}").await, 400);
    assert_eq!(status("C1", body).await, 400);
    assert_eq!(status(ID, &vec![b' '; 500_000]).await, 413);
    assert_eq!(status(&id(1), body).await, 422);
    let stranger = issue(&sample(), &self::signer()).unwrap();
    assert_eq!(status(ID, stranger.as_bytes()).await, 422);
    let mut forged: Value = serde_json::from_slice(body).unwrap();
    forged["signatures"][0]["sig"] = "AAAA".into();
    assert_eq!(status(ID, forged.to_string().as_bytes()).await, 422);
    assert_eq!(raw.get("/healthz").await.1["size"], 0, "nothing refused was stored");

    let (created, receipt) = raw.put(ID, body, nothing).await;
    assert_eq!((created, &receipt["logIndex"]), (201, &"0".into()));
    assert_eq!(raw.put(ID, body, nothing).await.0, 200);
    // A fresh signature over the same statement: the same certificate. Another statement: a conflict.
    let again = issue(&sample(), &signer).unwrap();
    let (same, receipt) = raw.put(ID, again.as_bytes(), nothing).await;
    assert_eq!((same, &receipt["logIndex"]), (200, &"0".into()));
    let mut other = sample();
    other.predicate.sequence = 3;
    let other = issue(&other, &signer).unwrap();
    let (conflict, problem) = raw.put(ID, other.as_bytes(), nothing).await;
    assert_eq!((conflict, &problem["status"]), (409, &409.into()));
    let outcome = client(path, &service.url()).file(ID, other.as_bytes()).await;
    assert_eq!(outcome, FiledOutcome::Quarantine(QuarantineReason::Conflict));

    // What is served back is byte for byte what was filed first.
    let url = format!("{}/v1/certificates/{ID}", service.url());
    let stored = raw.http.get(&url).bearer_auth(TOKEN).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(stored, body);
    assert_eq!(raw.http.get(&url).send().await.unwrap().status(), 401);
    let bundle = raw.http.get(&url).bearer_auth(TOKEN).header("accept", receipt::BUNDLE_MEDIA_TYPE);
    let bundle: Value = serde_json::from_str(&bundle.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(bundle["mediaType"], receipt::BUNDLE_MEDIA_TYPE);
    assert_eq!(raw.get("/nowhere").await.0, 404);
    let delete = raw.http.delete(&url).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(delete.status(), 405, "nothing can be deleted");
    service.stop().await.unwrap();
}

#[tokio::test]
async fn an_auditor_can_check_the_log_with_public_answers_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let signer = certificate_signer(path);
    let service = serve(path).await;
    let raw = Raw::new(&service);
    let sink = client(path, &service.url());
    for number in 0..9 {
        let envelope = issue(&sample_with_id(&id(number)), &signer).unwrap();
        index_of(&sink.file(&id(number), envelope.as_bytes()).await);
    }
    let trust = raw.get("/v1/trust").await.1;
    let trust = Trust::parse(trust.to_string().as_bytes()).unwrap();
    assert_eq!((trust.operator(), trust.signers[0].0.key_id()), (LogOperator::SelfHosted, signer.public().key_id()));
    let key = trust.logs[0].key.clone();
    assert_eq!(&key, log_signer(path).key());
    let head = key.open(raw.get("/checkpoint").await.1.as_str().unwrap()).unwrap().checkpoint;
    assert_eq!(head.size, 9);
    let decode = |value: &Value| -> [u8; 32] { STANDARD.decode(value.as_str().unwrap()).unwrap().try_into().unwrap() };
    let hashes = |value: &Value| value["hashes"].as_array().unwrap().iter().map(&decode).collect::<Vec<_>>();
    let proof = raw.get("/v1/proof/inclusion?index=4").await.1;
    assert!(verify_inclusion(4, 9, &decode(&proof["leafHash"]), &hashes(&proof), &head.root));
    let proof = raw.get("/v1/proof/consistency?from=5&to=9").await.1;
    assert!(verify_consistency(5, 9, &decode(&proof["fromRoot"]), &head.root, &hashes(&proof)));
    for bad in
        ["inclusion", "inclusion?index=9", "inclusion?index=1&size=10", "consistency?from=5&to=4", "consistency?from=x"]
    {
        assert_eq!(raw.get(&format!("/v1/proof/{bad}")).await.0, 400, "{bad}");
    }
    let public = raw.http.get(format!("{}/checkpoint", service.url())).send().await.unwrap();
    assert_eq!(public.status(), 200);
    service.stop().await.unwrap();
}

/// Sends a head and half of its body, and the rest only when a server that answers too soon would have hung up.
async fn answer_to_half(address: std::net::SocketAddr, head: &str, length: usize) -> String {
    let mut line = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("PUT /v1/certificates/{ID} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{head}\r\n");
    line.write_all(head.as_bytes()).await.unwrap();
    let half = vec![b' '; length / 2];
    line.write_all(&half).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for part in half.chunks(64 * 1024) {
        line.write_all(part).await.unwrap();
    }
    let mut answer = [0; 12];
    line.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

#[tokio::test]
async fn who_is_refused_while_still_sending_hears_why() {
    let folder = tempfile::tempdir().unwrap();
    let service = serve(folder.path()).await;
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    let json = format!("{token}content-type: application/json\r\n");
    for (head, status) in [(json.as_str(), "413"), (&token, "415"), ("", "401")] {
        let answer = answer_to_half(service.address(), head, 1024 * 1024).await;
        assert_eq!(answer, format!("HTTP/1.1 {status}"));
    }
    service.stop().await.unwrap();
}

/// Answers every request with a fixed status, headers and body, and counts them.
pub(super) async fn canned(
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
) -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let app = Router::new().fallback(async move || {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, value.parse().unwrap());
        }
        (StatusCode::from_u16(status).unwrap(), map, body).into_response()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), count)
}

#[tokio::test]
async fn every_status_is_treated_as_the_contract_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let envelope = issue(&sample(), &certificate_signer(path)).unwrap();
    let slow = Some(Duration::from_mins(15));
    let misconfigured =
        |code| FiledOutcome::Retry { after: slow, alarm: true, reason: RetryReason::Misconfigured(code) };
    let not_ready = |code| FiledOutcome::Retry { after: None, alarm: false, reason: RetryReason::NotReady(code) };
    let refused = |code| FiledOutcome::Quarantine(QuarantineReason::Refused(code));
    let bad_receipt = FiledOutcome::Retry { after: slow, alarm: true, reason: RetryReason::BadReceipt };
    let mut cases = vec![(200, bad_receipt.clone()), (201, bad_receipt.clone()), (204, bad_receipt)];
    cases.push((409, FiledOutcome::Quarantine(QuarantineReason::Conflict)));
    cases.extend([400, 413, 415, 422].map(|code| (code, refused(code))));
    cases.extend([401, 403, 404, 405, 407, 410, 301, 302, 307, 308].map(|code| (code, misconfigured(code))));
    cases.extend([408, 425, 429, 500, 502, 503, 504].map(|code| (code, not_ready(code))));
    for (status, expected) in cases {
        let location = vec![("location", "http://127.0.0.1:1/elsewhere")];
        let (url, count) = canned(status, location, "{}").await;
        assert_eq!(client(path, &url).file(ID, envelope.as_bytes()).await, expected, "{status}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{status}: no redirect followed, no hidden retry");
    }
    for (header, seconds) in [("7", 7), ("86400", 3600), ("Fri, 06 Mar 2026 12:27:40 GMT", 60)] {
        let (url, _) = canned(503, vec![("retry-after", header)], "").await;
        let expected = FiledOutcome::Retry {
            after: Some(Duration::from_secs(seconds)),
            alarm: false,
            reason: RetryReason::NotReady(503),
        };
        assert_eq!(client(path, &url).file(ID, envelope.as_bytes()).await, expected);
    }
    let (url, count) = canned(202, vec![("retry-after", "3")], "").await;
    let pending =
        FiledOutcome::Retry { after: Some(Duration::from_secs(3)), alarm: false, reason: RetryReason::Pending };
    assert_eq!(client(path, &url).file(ID, envelope.as_bytes()).await, pending);
    assert_eq!(count.load(Ordering::SeqCst), 2, "the receipt was asked for");
    let huge: &'static str = Box::leak(" ".repeat(300_000).into_boxed_str());
    let (url, _) = canned(200, vec![], huge).await;
    let outcome = client(path, &url).file(ID, envelope.as_bytes()).await;
    assert!(matches!(outcome, FiledOutcome::Retry { reason: RetryReason::BadReceipt, .. }));
}

#[tokio::test]
async fn nothing_leaves_that_is_not_ours_or_not_protected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (url, count) = canned(200, vec![], "{}").await;
    let sink = client(path, &url);
    let not_ours = FiledOutcome::Quarantine(QuarantineReason::NotOurs);
    let stranger = issue(&sample(), &signer()).unwrap();
    assert_eq!(sink.file(ID, stranger.as_bytes()).await, not_ours);
    let envelope = issue(&sample(), &certificate_signer(path)).unwrap();
    assert_eq!(sink.file(&id(7), envelope.as_bytes()).await, not_ours);
    assert_eq!(sink.file(ID, b"rubbish").await, not_ours);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    for good in ["https://audit.example.com/base/", "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost:1"] {
        assert!(client_with(path, good, None).is_ok(), "{good}");
    }
    assert!(matches!(client_with(path, "http://audit.example.com", None), Err(ClientError::NotHttps)));
    assert!(matches!(client_with(path, "http://127.0.0.1.example.com", None), Err(ClientError::NotHttps)));
    for bad in ["ftp://127.0.0.1", "https://u:p@example.com", "https://example.com?x", "nonsense", "data:x"] {
        assert!(matches!(client_with(path, bad, None), Err(ClientError::Url)), "{bad}");
    }
    let service = serve(path).await;
    let stranger = client_with(path, &service.url(), Some("another-token-of-length")).unwrap();
    let outcome = stranger.file(ID, envelope.as_bytes()).await;
    assert!(matches!(outcome, FiledOutcome::Retry { alarm: true, reason: RetryReason::Misconfigured(401), .. }));
    // A service with another log key: its receipts count for nothing.
    let elsewhere = tempfile::tempdir().unwrap();
    let setup = ClientSetup {
        access: access(&service.url()),
        log: log_signer(elsewhere.path()).key().clone(),
        signers: trusted(&certificate_signer(path)),
        token: Some(BearerToken::new(TOKEN).unwrap()),
        clock: clock(),
    };
    let outcome = AuditClient::new(setup).unwrap().file(ID, envelope.as_bytes()).await;
    assert!(matches!(outcome, FiledOutcome::Retry { alarm: true, reason: RetryReason::BadReceipt, .. }));
    service.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_for_others_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = Arc::new(SqlLogStore::open(&path.join("audit.db"), "certificates").await.unwrap());
    let setup = ServiceSetup {
        bind: "0.0.0.0:0".parse().unwrap(),
        sequencer: Sequencer::open(store, log_signer(path), None).await.unwrap(),
        signers: trusted(&certificate_signer(path)).into(),
        token: None,
        operator: LogOperator::SelfHosted,
        witnesses: Witnesses::default(),
        clock: clock(),
    };
    assert!(matches!(start(setup).await, Err(ServiceError::NoToken(_))));
}

#[test]
fn tokens_are_checked_and_never_shown() {
    for bad in ["short", "with a space inside it", "tab\tinside-of-the-token", "密码密码密码密码密码密码"] {
        assert!(BearerToken::new(bad).is_err(), "{bad}");
    }
    let token = BearerToken::new("0123456789abcdef\n").unwrap();
    assert!(token.matches(b"Bearer 0123456789abcdef"));
    assert!(!token.matches(b"Bearer 0123456789abcdeg") && !token.matches(b"") && !token.matches(b"0123456789abcdef"));
    assert_eq!(format!("{token:?}"), "BearerToken(…)");
}

#[test]
fn back_off_grows_to_a_quarter_of_an_hour() {
    struct Highest;
    impl Random for Highest {
        fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
            out.fill(0);
            Ok(())
        }
    }
    assert_eq!(backoff(50, &Highest).unwrap(), Duration::ZERO);
    for (attempt, limit) in [(0, 1), (1, 1), (2, 2), (5, 16), (10, 512), (11, 900), (4_000_000_000, 900)] {
        let longest = (0..200).map(|_| backoff(attempt, &SystemRandom).unwrap()).max().unwrap();
        let limit = Duration::from_secs(limit);
        assert!(longest <= limit && longest * 2 > limit, "{attempt}: {longest:?}");
    }
}
