//! Filing by webhook: taken without a receipt, said as such everywhere, and verified by an implementation of others.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use serde_json::{Value, json};
use wangchuan::audit::receipt::Grade;
use wangchuan::audit::trust::Trust;
use wangchuan::audit::webhook::{WebhookSecret, sign};
use wangchuan::certify::dsse::Envelope;
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::tasks::audit::{audit_status, file_again, verify_all};
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::signing_keys::{revoke, rotate};
use wangchuan::tasks::trust::{GivenReceipt, trust};

use super::filing::{company, erase};
use super::signing_keys::of_key;
use super::tools::{python, run, script, verdicts};
use crate::support::ports::free_port;
use crate::support::world::World;

const SECRETS: [&str; 2] = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];

type Posts = Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>;

/// Takes posts at `/erasures/`.
async fn hook(port: u16) -> Posts {
    let posts = Posts::default();
    let kept = Arc::clone(&posts);
    let taken = post(async move |headers: HeaderMap, body: Bytes| {
        kept.lock().unwrap().push((headers, body.to_vec()));
        StatusCode::ACCEPTED
    });
    let app = Router::new().route("/erasures/", taken);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    posts
}

/// A webhook in the place of the service that is configured.
fn with_webhook(world: &World, native: &str, port: u16) -> String {
    let secrets = world.path("webhook-secret");
    std::fs::write(&secrets, SECRETS[0]).unwrap();
    std::fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let webhook = format!(
        "url = \"http://127.0.0.1:{port}/erasures/\"\nadapter = \"webhook\"\nwebhook_secrets = [\"file:webhook-secret\", \"{}\"]",
        SECRETS[1]
    );
    world.edit_config(native, &webhook);
    webhook
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_took_before_its_key_ended_stays_good_and_what_it_took_later_does_not() {
    let (world, installation, others) = company().await;
    installation.close().await.unwrap();
    let port = free_port();
    let _posts = hook(port).await;
    with_webhook(&world, &format!("url = \"http://127.0.0.1:{}\"", others.port), port);
    let mut installation = world.open().await;
    let mut taken = Vec::new();
    let mut between = world.clock.now();
    for customer in [0, 1] {
        erase(&world, &installation, customer, 1).await;
        let report = file_due(&installation, true).await.unwrap();
        assert_eq!(report.acknowledged.len(), 1, "{report:?}");
        taken.extend(report.acknowledged);
        world.clock.advance(TimeDelta::hours(1));
        if customer == 0 {
            between = world.clock.now();
            world.clock.advance(TimeDelta::hours(1));
        }
    }
    let ended = rotate(&mut installation).await.unwrap();
    assert_eq!(ended.unfiled, 0, "nothing is to be filed: {ended:?}");
    world.clock.advance(TimeDelta::hours(1));
    let mut envelopes = Vec::new();
    for id in &taken {
        let row = installation.control.read().await.unwrap().certificate(id).await.unwrap().unwrap();
        envelopes.push(Envelope::parse(&row.envelope).unwrap());
    }
    let now = world.clock.now();
    let good = |trust: &Trust| {
        envelopes.iter().map(|envelope| of_key(trust, envelope, &GivenReceipt::Acknowledged, now)).collect::<Vec<_>>()
    };
    let words = "it was there, without a receipt of a log, when the key ended";
    let retired = good(&trust(&installation).await.unwrap());
    assert!(retired.iter().all(|(good, said)| *good && said.contains(words)), "{retired:?}");
    // Lost behind its end, and then from a time on at which the webhook had taken the first of them.
    revoke(&mut installation, &ended.ended, now).await.unwrap();
    let later = good(&trust(&installation).await.unwrap());
    assert!(later.iter().all(|(good, _)| *good), "{later:?}");
    revoke(&mut installation, &ended.ended, between).await.unwrap();
    let sooner = good(&trust(&installation).await.unwrap());
    assert!(sooner[0].0 && sooner[0].1.contains(words), "{sooner:?}");
    assert!(!sooner[1].0 && sooner[1].1.contains("signed after its key was revoked"), "{sooner:?}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_took_has_no_receipt_until_it_is_filed_with_a_service() {
    let (world, installation, others) = company().await;
    installation.close().await.unwrap();
    let native = format!("url = \"http://127.0.0.1:{}\"", others.port);
    let port = free_port();
    let posts = hook(port).await;
    let webhook = with_webhook(&world, &native, port);
    let installation = world.open().await;
    erase(&world, &installation, 0, 2).await;
    let report = file_due(&installation, false).await.unwrap();
    assert_eq!((report.receipted.len(), report.acknowledged.len(), report.waiting.len()), (0, 2, 0), "{report:?}");
    {
        let posts = posts.lock().unwrap();
        assert_eq!(posts.len(), 2);
        for (headers, body) in posts.iter() {
            let id = headers["webhook-id"].to_str().unwrap();
            assert!(report.acknowledged.iter().any(|known| known == id));
            let expected = sign(id, world.clock.now(), body, &SECRETS.map(|text| WebhookSecret::parse(text).unwrap()));
            assert_eq!(headers["webhook-signature"], expected.signature);
        }
    }
    // Every place says what that is worth.
    let known = audit_status(&installation).await.unwrap();
    assert_eq!((known.receipted, known.acknowledged, known.grades[0].0), (0, 2, Grade::D));
    let mut tx = installation.control.read().await.unwrap();
    let certificate = tx.certificate(&report.acknowledged[0]).await.unwrap().unwrap();
    drop(tx);
    let envelope: Value = serde_json::from_slice(&certificate.envelope).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    let limitations = statement["predicate"]["limitations"].as_array().unwrap();
    assert!(limitations.contains(&"FILED_WITHOUT_RECEIPT".into()), "{limitations:?}");
    let verdict = verify_certificate(&installation, &certificate.id).await.unwrap();
    let receipt = verdict.checks.iter().find(|(check, ..)| check == "receipt").unwrap();
    assert!(verdict.result == "valid" && receipt.2.contains("proves nothing"), "{verdict:?}");
    let verdict = verify_all(&installation).await.unwrap();
    assert!(verdict.checks.iter().any(|(.., said)| said.contains("2 taken without a receipt")), "{verdict:?}");
    assert!(file_again(&installation).await.unwrap_err().to_string().contains("no receipts"));
    assert_eq!(file_due(&installation, true).await.unwrap().acknowledged.len(), 0, "nothing is sent twice");
    installation.close().await.unwrap();

    // The grade rises once there is a service.
    world.edit_config(&webhook, &native);
    let service = others.serve(&world.path("elsewhere.db")).await;
    let installation = world.open().await;
    let refiled = file_again(&installation).await.unwrap();
    assert_eq!((refiled.better.len(), refiled.doubt), (2, None));
    let known = audit_status(&installation).await.unwrap();
    assert_eq!((known.receipted, known.acknowledged, known.grades[0].0), (2, 0, Grade::B));
    assert_eq!(verify_all(&installation).await.unwrap().result, "valid");
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}

#[test]
fn an_implementation_of_others_takes_our_signatures_and_no_forged_ones() {
    let Some(python) = python("python") else { return };
    let folder = tempfile::tempdir().unwrap();
    let body = "{\"payloadType\":\"application/vnd.in-toto+json\",\"payload\":\"\"}";
    let now = SystemClock.now();
    let secrets = || SECRETS.map(|text| WebhookSecret::parse(text).unwrap());
    let id = "0190a1b2-c3d4-7abc-8def-0123456789ab";
    let mut posts = serde_json::Map::new();
    let mut post = |name: &str, at, secret: &str, sent: &str| {
        let signed = sign(id, at, body.as_bytes(), &secrets());
        let headers = json!({
            "webhook-id": signed.id, "webhook-timestamp": signed.timestamp, "webhook-signature": signed.signature,
        });
        posts.insert(name.to_owned(), json!({"secret": secret, "headers": headers, "body": sent}));
    };
    post("first-secret", now, SECRETS[0], body);
    post("second-secret", now, SECRETS[1], body);
    post("other-secret", now, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", body);
    post("other-body", now, SECRETS[0], &body.replace("\"\"", "\"AA==\""));
    post("old", now - chrono::TimeDelta::minutes(6), SECRETS[0], body);
    let file = folder.path().join("posts.json");
    std::fs::write(&file, Value::from(posts).to_string()).unwrap();
    let said = verdicts(&run(&python, &[&script("webhook.py"), &file]));
    let taken: Vec<&str> =
        said.iter().filter(|(_, verdict)| *verdict == "accepted").map(|(name, _)| name.as_str()).collect();
    assert_eq!((taken, said.len()), (vec!["first-secret", "second-secret"], 5), "{said:?}");
}
