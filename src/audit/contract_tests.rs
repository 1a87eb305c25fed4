//! The contract of filing: as it is described for others, and as it is tried on their services.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::AuditSink;
use super::client::conformance::trial::Trial;
use super::client::conformance::{Conformance, Finding};
use super::receipt::LogOperator;
use super::service::{ServiceSetup, start};
use super::tests::{ID, Raw, TOKEN, canned, certificate_signer, client, clock, id, index_of, log_signer, serve};
use super::witness::Witnesses;
use crate::certify::issue;
use crate::certify::tests::{sample_with_id, trusted};
use crate::clock::Clock;
use crate::control::log_store::SqlLogStore;
use crate::log::sequencer::Sequencer;
use crate::random::SystemRandom;

#[tokio::test]
async fn the_published_description_names_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let service = serve(folder.path()).await;
    let raw = Raw::new(&service);
    let described = raw.get("/openapi.json").await.1;
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() >= 9);
    for (path, operations) in paths {
        let asked = path.replace("{id}", ID).replace("{tile}", "0/000");
        let (status, body) = raw.get(&asked).await;
        assert_ne!(body["detail"], "there is nothing at this path", "{path} is described and not served");
        assert!(operations["get"]["responses"].get(status.to_string()).is_some(), "{path}: {status} is not described");
    }
    let described: std::collections::BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let routes = include_str!("service/routes.rs").lines().filter_map(|line| line.trim().strip_prefix(".route(\""));
    for route in routes.filter_map(|rest| rest.split('"').next()) {
        assert!(described.contains(route.replace("{*tile}", "{tile}").as_str()), "{route} is served and not described");
    }
    service.stop().await.unwrap();
}

fn broken(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|finding| !finding.good).map(|finding| finding.rule).collect()
}

#[tokio::test]
async fn the_contract_tells_good_services_from_bad_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let envelope = issue(&sample_with_id(&id(0)), &certificate_signer(path)).unwrap();
    let (id, bytes) = (id(0), envelope.as_bytes());
    let tried = async |url: &str| {
        let sink = client(path, url);
        Conformance::new(&sink).run(&id, bytes).await
    };
    // A service that accepts everything and proves nothing.
    let (careless, _) = canned(200, vec![], "{}").await;
    assert_eq!(broken(&tried(&careless).await), ["file"]);

    let service = serve(path).await;
    index_of(&client(path, &service.url()).file(&id, bytes).await);
    let findings = tried(&service.url()).await;
    assert_eq!(broken(&findings), Vec::<&str>::new(), "{findings:#?}");
    assert!(findings.iter().filter(|finding| finding.required).count() >= 10, "{findings:#?}");
    let size = service_size(&Raw::new(&service)).await;
    assert_eq!(size, 1, "trying files nothing");
    service.stop().await.unwrap();

    // The same without a token: whoever reaches it files.
    let store = Arc::new(SqlLogStore::open(&path.join("audit.db"), "certificates").await.unwrap());
    let open = start(ServiceSetup {
        bind: "127.0.0.1:0".parse().unwrap(),
        sequencer: Sequencer::open(store, log_signer(path), None).await.unwrap(),
        signers: trusted(&certificate_signer(path)).into(),
        token: None,
        operator: LogOperator::Independent,
        witnesses: Witnesses::default(),
        clock: clock(),
    });
    let open = open.await.unwrap();
    assert_eq!(broken(&tried(&open.url()).await), ["no-credentials", "wrong-credentials"]);
    open.stop().await.unwrap();
}

#[tokio::test]
async fn every_try_of_a_filing_is_a_span_of_the_trace_of_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let envelope = issue(&sample_with_id(&id(0)), &certificate_signer(folder.path())).unwrap();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = seen.clone();
    // Takes everything, and has the receipt later.
    let app = Router::new().fallback(async move |method: Method, headers: HeaderMap| {
        keep.lock().unwrap().push((method, headers["traceparent"].to_str().unwrap().to_owned()));
        StatusCode::ACCEPTED
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let sink = client(folder.path(), &url);
    for _ in 0..2 {
        sink.file(&id(0), envelope.as_bytes()).await;
    }
    let seen = seen.lock().unwrap().clone();
    let methods: Vec<&str> = seen.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(methods, ["PUT", "GET", "PUT", "GET"]);
    let spans: std::collections::BTreeSet<&str> = seen
        .iter()
        .map(|(_, header)| {
            let parts: Vec<&str> = header.split('-').collect();
            assert_eq!((parts.len(), parts[0], parts[3]), (4, "00", "00"), "{header}");
            assert_eq!(parts[1], id(0).replace('-', ""), "{header}");
            assert!(parts[2].len() == 16 && hex::decode(parts[2]).is_ok() && parts[2] != "0".repeat(16), "{header}");
            parts[2]
        })
        .collect();
    assert_eq!(spans.len(), 4, "{seen:?}");
}

async fn service_size(raw: &Raw) -> u64 {
    raw.get("/healthz").await.1["size"].as_u64().unwrap()
}

/// A line to a good service that spoils one thing.
struct Spoiled {
    http: reqwest::Client,
    service: String,
    /// Another service with the same log key and another history.
    double: String,
    second: String,
    fault: &'static str,
}

struct Passed {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Passed {
    fn new(status: u16, body: &str) -> Self {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
        Self { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() }
    }
}

impl Spoiled {
    async fn pass(&self, method: &Method, uri: &Uri, mut headers: HeaderMap, body: Vec<u8>) -> Passed {
        let (path, fault) = (uri.path(), self.fault);
        if fault == "takes any size" && body.len() > 500_000 {
            return Passed::new(200, "{}");
        }
        if fault == "gives no proofs" && path.ends_with("/consistency") {
            return Passed::new(404, "{}");
        }
        match fault {
            "ignores digests" => drop(headers.remove("content-digest")),
            "takes any type" => drop(headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"))),
            "lets anybody in" => drop(headers.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap())),
            _ => {}
        }
        let is_double = fault == "shows two faces" && (path.ends_with(&self.second) || path.ends_with("/consistency"));
        let to = if is_double { &self.double } else { &self.service };
        headers.remove("host");
        let reply = self.http.request(method.clone(), format!("{to}{uri}")).headers(headers).body(body).send().await;
        let reply = reply.unwrap();
        let (status, headers) = (reply.status(), reply.headers().clone());
        let passed = Passed { status, headers, body: reply.bytes().await.unwrap().to_vec() };
        self.spoil(method, path, passed)
    }

    fn spoil(&self, method: &Method, path: &str, mut passed: Passed) -> Passed {
        let is_receipt = path.ends_with("/receipt");
        match (self.fault, passed.status.as_u16()) {
            ("refuses the same again", 200) if method == Method::PUT => Passed::new(409, "{}"),
            ("overwrites", 409) => Passed::new(200, "{}"),
            ("forgets receipts", 200) if is_receipt => Passed::new(404, "{}"),
            ("makes receipts up", 404) if is_receipt => Passed::new(200, "{}"),
            ("believes anybody", 422) => Passed::new(201, "{}"),
            ("redirects strangers", 401) => Passed::new(302, ""),
            ("writes certificates anew", 200)
                if method == Method::GET && !is_receipt && path.contains("certificates") =>
            {
                passed.body.push(b'\n');
                passed
            }
            ("gives receipts later", 201) => Passed::new(202, ""),
            ("gives receipts later in vain", 201) if path.ends_with(&self.second) => {
                passed.body = b"{}".to_vec();
                passed
            }
            ("speaks HTML", 400..=499) => {
                passed.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
                passed
            }
            _ => passed,
        }
    }

    async fn listen(self) -> String {
        let spoiled = Arc::new(self);
        let app = Router::new().fallback(async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let Passed { status, headers, body } = spoiled.pass(&method, &uri, headers, body.to_vec()).await;
            (status, headers, body)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = app.layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }
}

/// What each fault breaks, and nothing else.
const FAULTS: [(&str, &[&str]); 16] = [
    ("none", &[]),
    ("gives receipts later", &[]),
    ("refuses the same again", &["repeat"]),
    ("overwrites", &["conflict"]),
    ("believes anybody", &["unknown-key", "other-id", "altered"]),
    ("gives receipts later in vain", &["second"]),
    ("shows two faces", &["consistency"]),
    ("gives no proofs", &["consistency"]),
    ("forgets receipts", &["receipt"]),
    ("makes receipts up", &["unknown", "refused"]),
    ("writes certificates anew", &["bytes"]),
    ("takes any type", &["media-type"]),
    ("takes any size", &["size"]),
    ("ignores digests", &["digest"]),
    ("lets anybody in", &["no-credentials", "wrong-credentials"]),
    ("redirects strangers", &["no-credentials", "wrong-credentials", "redirect"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_names_each_fault_of_a_wrong_service() {
    let (folder, double) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path();
    let signer = certificate_signer(path);
    let key = log_signer(path);
    for name in ["certificate.pem", "checkpoint.pem"] {
        std::fs::copy(path.join(name), double.path().join(name)).unwrap();
    }
    let (service, other) = (serve(path).await, serve(double.path()).await);
    assert_eq!(log_signer(double.path()).key(), key.key());
    let spoil = async |fault: &'static str, trial: &Trial| {
        // The double is always larger than what it is compared with.
        for _ in 0..3 {
            let id = crate::random::uuid7(clock().now(), &SystemRandom).unwrap();
            let envelope = issue(&sample_with_id(&id), &signer).unwrap();
            index_of(&client(double.path(), &other.url()).file(&id, envelope.as_bytes()).await);
        }
        let spoiled = Spoiled {
            http: reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
            service: service.url(),
            double: other.url(),
            second: trial.second.id.clone(),
            fault,
        };
        let url = spoiled.listen().await;
        Conformance::new(&client(path, &url)).run_trial(trial).await
    };
    for (fault, expected) in FAULTS {
        let trial = Trial::make(&signer, clock().now(), &SystemRandom).unwrap();
        let findings = spoil(fault, &trial).await;
        assert_eq!(broken(&findings), expected, "{fault}: {findings:#?}");
    }
    let trial = Trial::make(&signer, clock().now(), &SystemRandom).unwrap();
    let html = spoil("speaks HTML", &trial).await;
    let problem: Vec<_> = html.iter().filter(|finding| !finding.good).collect();
    assert_eq!((problem.len(), problem[0].rule, problem[0].required), (1, "problem", false), "{html:#?}");
    assert!(html.iter().filter(|finding| finding.required).count() >= 18, "{html:#?}");
    service.stop().await.unwrap();
    other.stop().await.unwrap();
}
