//! Filing with services that are away, slow, busy, or lie: each is named, nothing is lost, and a backlog goes out at once.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use chrono::TimeDelta;
use wangchuan::audit::circuit::{OPENS_AFTER, Position};
use wangchuan::audit::client::conformance::trial::Trial;
use wangchuan::audit::service::ServiceHandle;
use wangchuan::certify::signer::CertificateSigner;
use wangchuan::clock::Clock;
use wangchuan::control::CertificateRow;
use wangchuan::installation::Installation;
use wangchuan::tasks::audit::audit_status;
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::status::status;

use super::filing::{Others, company};
use crate::support::ports::free_port;
use crate::support::world::World;

/// How the line to the service behaves.
#[derive(Clone, Default)]
pub(super) struct Mood {
    /// What is answered instead of asking the service: status, `Retry-After`, body.
    instead: Option<(u16, &'static str, &'static str)>,
    /// How long each answer takes.
    pause: Duration,
}

/// A line to a service, with what went over it.
#[derive(Default)]
pub(super) struct Line {
    mood: Mutex<Mood>,
    filings: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Line {
    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(super) fn answers(&self, status: u16, retry_after: &'static str, body: &'static str) {
        self.set(Mood { instead: Some((status, retry_after, body)), ..Mood::default() });
    }

    /// Filings since the last call.
    pub(super) fn filings(&self) -> usize {
        self.filings.swap(0, Ordering::SeqCst)
    }

    async fn pass(
        &self,
        to: &str,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mood = self.mood.lock().unwrap().clone();
        if method == Method::PUT {
            self.filings.fetch_add(1, Ordering::SeqCst);
        }
        if let Some((status, retry_after, body)) = mood.instead {
            let mut headers = HeaderMap::new();
            if !retry_after.is_empty() {
                headers.insert("retry-after", retry_after.parse().unwrap());
            }
            return (StatusCode::from_u16(status).unwrap(), headers, body.into());
        }
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(mood.pause).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = http.request(method, format!("{to}{uri}")).headers(headers).body(body).send().await.unwrap();
        let (status, headers) = (reply.status(), reply.headers().clone());
        let body = reply.bytes().await.unwrap().to_vec();
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        (status, headers, body)
    }

    /// Listens at a port before the service at another.
    async fn listen(port: u16, service: u16) -> Arc<Self> {
        let line = Arc::new(Self::default());
        let passed = Arc::clone(&line);
        let app = Router::new().fallback(async move |method: Method, uri: Uri, mut headers: HeaderMap, body: Bytes| {
            headers.remove("host");
            passed.pass(&format!("http://127.0.0.1:{service}"), method, &uri, headers, body).await
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        line
    }
}

/// Certificates that wait to be filed, made without an erasure: here only their number counts.
async fn backlog(world: &World, installation: &Installation, certificates: usize) {
    let now = world.clock.now();
    let random = wangchuan::random::SystemRandom;
    let signer = CertificateSigner::open(&world.path("state/signing-key.pem")).unwrap();
    let mut tx = installation.control.begin().await.unwrap();
    let (from, _) = tx.next_certificate().await.unwrap();
    for sequence in (from..).take(certificates) {
        let sample = Trial::make(&signer, now, &random).unwrap().first;
        tx.add_certificate(&CertificateRow {
            id: sample.id,
            sequence,
            run: "backlog".to_owned(),
            result: "nothing-found".to_owned(),
            digest: hex::encode(sample.envelope.digest()),
            envelope: sample.envelope.as_bytes().to_vec(),
            evidence: Vec::new(),
            issued_at: now,
            supersedes: None,
        })
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

/// A company whose service stands behind a line; the service's log lies in a file of the world.
pub(super) async fn behind_a_line() -> (World, Installation, Others, ServiceHandle, Arc<Line>) {
    let (world, installation, mut others) = company().await;
    let front = std::mem::replace(&mut others.port, free_port());
    let line = Line::listen(front, others.port).await;
    let service = others.serve(&world.path("elsewhere.db")).await;
    (world, installation, others, service, line)
}

/// How often `status` says that a person must look at the filing.
async fn alarms(world: &World, installation: &Installation) -> usize {
    let found = status(&installation.control, &installation.config, world.clock.as_ref()).await.unwrap();
    found.overdue.iter().filter(|overdue| overdue.code == "filing-alarm").count()
}

async fn entries(database: &Path) -> u64 {
    use wangchuan::log::store::LeafStore as _;
    let store = wangchuan::control::log_store::SqlLogStore::open(database, "certificates").await.unwrap();
    let size = store.size().await.unwrap();
    store.close().await;
    size
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_thousands_goes_out_at_once_when_the_service_is_back() {
    const CERTIFICATES: usize = 3000;
    let (world, installation, others) = company().await;
    backlog(&world, &installation, CERTIFICATES).await;
    for _ in 0..=OPENS_AFTER {
        let report = file_due(&installation, false).await.unwrap();
        assert_eq!((report.receipted.len(), report.waiting.len()), (0, CERTIFICATES));
    }
    assert!(matches!(audit_status(&installation).await.unwrap().position, Position::Open { .. }));
    let service = others.serve(&world.path("elsewhere.db")).await;
    world.clock.advance(TimeDelta::minutes(16));
    let begun = Instant::now();
    let report = file_due(&installation, false).await.unwrap();
    println!("{CERTIFICATES} filed in {:?}", begun.elapsed());
    assert_eq!((report.receipted.len(), report.waiting.len(), &report.doubt), (CERTIFICATES, 0, &None));
    let known = audit_status(&installation).await.unwrap();
    assert_eq!((known.receipted, known.pending, known.position), (CERTIFICATES as u64, 0, Position::Closed));
    assert_eq!(entries(&world.path("elsewhere.db")).await, CERTIFICATES as u64, "each stands there once");
    let again = file_due(&installation, false).await.unwrap();
    assert_eq!(again.receipted.len(), 0);
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_for_long_is_left_alone_between_tries() {
    let (world, installation, _others, service, line) = behind_a_line().await;
    line.answers(503, "", "");
    backlog(&world, &installation, 20).await;
    let mut tries = Vec::new();
    // A day, every five minutes.
    for _ in 0..288 {
        let report = file_due(&installation, false).await.unwrap();
        assert_eq!(report.waiting.len(), 20);
        tries.push(line.filings());
        world.clock.advance(TimeDelta::minutes(5));
    }
    assert!(tries.iter().all(|count| *count <= 1), "one at most, whatever waits: {tries:?}");
    let sum: usize = tries.iter().sum();
    assert!((40..280).contains(&sum), "{sum} tries");
    let known = audit_status(&installation).await.unwrap();
    assert_eq!((known.circuit.failures as usize, known.circuit.alarm), (sum, false));
    assert!(known.circuit.reason.unwrap().contains("503"));
    line.set(Mood::default());
    world.clock.advance(TimeDelta::minutes(16));
    assert_eq!(file_due(&installation, false).await.unwrap().receipted.len(), 20);
    assert_eq!(audit_status(&installation).await.unwrap().circuit.failures, 0);
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_asks_for_time_gets_it() {
    let (world, installation, _others, service, line) = behind_a_line().await;
    backlog(&world, &installation, 10).await;
    let date = (world.clock.now() + TimeDelta::minutes(10)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (asked, seconds) in [("90", 90), (&*date.leak(), 600 - 91), ("86400", 3600)] {
        line.answers(429, asked, "");
        assert_eq!(file_due(&installation, false).await.unwrap().waiting.len(), 10);
        assert_eq!(line.filings(), 1, "{asked}: one heard of it for all");
        world.clock.advance(TimeDelta::seconds(seconds - 1));
        let early = file_due(&installation, false).await.unwrap();
        assert_eq!((early.waiting.len(), line.filings()), (10, 0), "{asked}: not before");
        assert!(early.waiting[0].1.contains("429"), "{early:?}");
        world.clock.advance(TimeDelta::seconds(2));
    }
    // A person who asks need not wait.
    line.answers(429, "90", "");
    file_due(&installation, false).await.unwrap();
    file_due(&installation, true).await.unwrap();
    assert_eq!(line.filings(), 2);
    line.set(Mood::default());
    world.clock.advance(TimeDelta::seconds(91));
    assert_eq!(file_due(&installation, false).await.unwrap().receipted.len(), 10);
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_raise_an_alarm_and_spoil_no_certificate() {
    let (world, installation, _others, service, line) = behind_a_line().await;
    backlog(&world, &installation, 5).await;
    line.answers(401, "", "");
    let report = file_due(&installation, false).await.unwrap();
    assert_eq!((report.waiting.len(), report.quarantined.len(), line.filings()), (5, 0, 1));
    assert!(report.alarm.unwrap().contains("401"));
    let told = alarms(&world, &installation).await;
    assert_eq!(told, 1, "said once for all");
    world.clock.advance(TimeDelta::minutes(14));
    assert!(file_due(&installation, false).await.unwrap().alarm.is_some(), "it is said until it is mended");
    assert_eq!(line.filings(), 0);
    // Another service has nothing to do with it.
    let other = "url = \"http://127.0.0.1:9\"";
    let config = std::fs::read_to_string(world.path("wangchuan.toml")).unwrap();
    let here = config.lines().find(|line| line.starts_with("url = \"http://127.0.0.1")).unwrap();
    world.edit_config(here, other);
    let found = status(&installation.control, &world.config(), world.clock.as_ref()).await.unwrap();
    assert!(found.overdue.iter().all(|overdue| overdue.code != "filing-alarm"));
    line.set(Mood::default());
    world.clock.advance(TimeDelta::minutes(2));
    let mended = file_due(&installation, false).await.unwrap();
    assert_eq!((mended.receipted.len(), mended.alarm), (5, None));
    assert_eq!(alarms(&world, &installation).await, 0);
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_with_a_wrong_receipt_counts_for_nothing() {
    let (world, installation, _others, service, line) = behind_a_line().await;
    backlog(&world, &installation, 3).await;
    for (code, body) in [(201, "{}"), (200, "thanks"), (204, "")] {
        line.answers(code, "", body);
        let report = file_due(&installation, false).await.unwrap();
        assert_eq!((report.receipted.len(), report.waiting.len(), line.filings()), (0, 3, 3), "{code}");
        assert!(report.alarm.unwrap().contains("receipt does not verify"));
        let known = audit_status(&installation).await.unwrap();
        assert_eq!((known.pending, known.position), (3, Position::Closed));
        assert_eq!(alarms(&world, &installation).await, 3);
        world.clock.advance(TimeDelta::minutes(15));
    }
    line.set(Mood::default());
    assert_eq!(file_due(&installation, false).await.unwrap().receipted.len(), 3);
    assert_eq!(alarms(&world, &installation).await, 0);
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_service_gets_some_at_a_time() {
    let (world, installation, _others, service, line) = behind_a_line().await;
    backlog(&world, &installation, 40).await;
    line.set(Mood { pause: Duration::from_millis(50), ..Mood::default() });
    assert_eq!(file_due(&installation, false).await.unwrap().receipted.len(), 40);
    let most = line.most_at_once.load(Ordering::SeqCst);
    assert!((4..=8).contains(&most), "{most} at a time");
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}
