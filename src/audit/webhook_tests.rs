//! Webhooks: the signature of the specification, and what is sent and understood.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;

use super::client::webhook::{WebhookClient, WebhookSetup};
use super::client::{Access, AuditClient, ClientSetup, Patience};
use super::tests::{ID, access, canned, certificate_signer, clock, id, log_signer};
use super::webhook::{BadSecret, WebhookSecret, sign};
use super::{AuditSink, BearerToken, FiledOutcome, Looked, QuarantineReason, RetryReason};
use crate::certify::issue;
use crate::certify::signer::TrustedKeys;
use crate::certify::tests::{sample, trusted};

/// The example that libraries of Standard Webhooks test themselves with.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn secret(text: &str) -> WebhookSecret {
    WebhookSecret::parse(text).unwrap()
}

#[test]
fn signatures_are_those_of_the_specification() {
    let at = DateTime::from_timestamp(1_614_265_330, 999_000_000).unwrap();
    let body = br#"{"test": 2432232314}"#;
    let signed = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body, &[secret(SECRET)]);
    assert_eq!(signed.timestamp, "1614265330");
    assert_eq!(signed.signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let both = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body, &[secret(OTHER_SECRET), secret(SECRET)]);
    let parts: Vec<&str> = both.signature.split(' ').collect();
    assert_eq!((parts.len(), parts[1]), (2, signed.signature.as_str()));
    assert_ne!(parts[0], parts[1]);
    for (id, at, body) in [("x", at, &body[..]), ("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b"{}")] {
        assert_ne!(sign(id, at, body, &[secret(SECRET)]).signature, signed.signature);
    }
}

#[test]
fn secrets_are_checked_and_never_shown() {
    let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
    for good in [of(24), of(64), format!("{SECRET}\n")] {
        assert!(WebhookSecret::parse(&good).is_ok(), "{good}");
    }
    for bad in [of(23), of(65), SECRET.replace("whsec_", ""), "whsec_*".to_owned(), String::new()] {
        assert_eq!(WebhookSecret::parse(&bad).unwrap_err(), BadSecret, "{bad}");
    }
    assert_eq!(format!("{:?}", secret(SECRET)), "WebhookSecret(…)");
}

fn webhook(folder: &std::path::Path, url: &str) -> WebhookClient {
    WebhookClient::new(WebhookSetup {
        access: access(url),
        secrets: vec![secret(SECRET), secret(OTHER_SECRET)],
        signers: trusted(&certificate_signer(folder)),
        token: Some(BearerToken::new("a-token-of-some-length").unwrap()),
        acknowledgers: TrustedKeys::default(),
        clock: clock(),
    })
    .unwrap()
}

#[tokio::test]
async fn a_webhook_gets_the_signed_bytes_and_gives_no_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let envelope = issue(&sample(), &certificate_signer(folder.path())).unwrap();
    let seen = Arc::new(Mutex::new(Vec::<(HeaderMap, Vec<u8>)>::new()));
    let keep = seen.clone();
    let hook = post(async move |headers: HeaderMap, body: Bytes| {
        keep.lock().unwrap().push((headers, body.to_vec()));
        StatusCode::NO_CONTENT
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/erasures", listener.local_addr().unwrap());
    let app = Router::new().route("/hooks/erasures", hook);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let sink = webhook(folder.path(), &url);
    assert_eq!(sink.file(ID, envelope.as_bytes()).await, FiledOutcome::Acknowledged);
    let (headers, body) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(body, envelope.as_bytes(), "the stored bytes, to the last");
    let expected = sign(ID, crate::clock::Clock::now(clock().as_ref()), &body, &[secret(SECRET), secret(OTHER_SECRET)]);
    assert_eq!(headers["webhook-id"], expected.id);
    let trace = headers["traceparent"].to_str().unwrap();
    assert!(trace.starts_with("00-") && trace.len() == 55, "{trace}");
    assert_eq!(headers["webhook-timestamp"], expected.timestamp);
    assert_eq!(headers["webhook-signature"], expected.signature);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["authorization"], "Bearer a-token-of-some-length");
    // It answers nothing, and what is not ours is not sent.
    assert_eq!(sink.look(ID, None).await, Looked::Unanswered);
    let not_ours = FiledOutcome::Quarantine(QuarantineReason::NotOurs);
    assert_eq!(sink.file(&id(7), envelope.as_bytes()).await, not_ours);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_webhook_that_refuses_is_judged_like_a_service() {
    let folder = tempfile::tempdir().unwrap();
    let envelope = issue(&sample(), &certificate_signer(folder.path())).unwrap();
    let slow = Some(Duration::from_mins(15));
    let cases = [
        (202, FiledOutcome::Acknowledged),
        (409, FiledOutcome::Quarantine(QuarantineReason::Conflict)),
        (422, FiledOutcome::Quarantine(QuarantineReason::Refused(422))),
        (410, FiledOutcome::Retry { after: slow, alarm: true, reason: RetryReason::Misconfigured(410) }),
        (302, FiledOutcome::Retry { after: slow, alarm: true, reason: RetryReason::Misconfigured(302) }),
        (
            429,
            FiledOutcome::Retry {
                after: Some(Duration::from_secs(7)),
                alarm: false,
                reason: RetryReason::NotReady(429),
            },
        ),
    ];
    for (status, expected) in cases {
        let (url, count) = canned(status, vec![("retry-after", "7")], "").await;
        assert_eq!(webhook(folder.path(), &url).file(ID, envelope.as_bytes()).await, expected, "{status}");
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_service_that_never_answers_is_not_waited_for_longer_than_said() {
    let folder = tempfile::tempdir().unwrap();
    let envelope = issue(&sample(), &certificate_signer(folder.path())).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let patience = Patience { connect: Duration::from_millis(200), total: Duration::from_millis(300) };
    let client = AuditClient::new(ClientSetup {
        access: Access { patience, ..access(&url) },
        log: log_signer(folder.path()).key().clone(),
        signers: trusted(&certificate_signer(folder.path())),
        token: None,
        clock: clock(),
    });
    let begun = std::time::Instant::now();
    let outcome = client.unwrap().file(ID, envelope.as_bytes()).await;
    assert_eq!(outcome, FiledOutcome::Retry { after: None, alarm: false, reason: RetryReason::Unreachable });
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(listener);
}
