//! The contract of filing: as it is described for others, and as it is tried on their services.

use std::sync::Arc;

use super::AuditSink;
use super::client::conformance::{Conformance, Finding};
use super::receipt::LogOperator;
use super::service::{ServiceSetup, start};
use super::tests::{ID, Raw, canned, certificate_signer, client, clock, id, index_of, log_signer, serve};
use super::witness::Witnesses;
use crate::certify::issue;
use crate::certify::tests::{sample_with_id, trusted};
use crate::control::log_store::SqlLogStore;
use crate::log::sequencer::Sequencer;

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
        trusted: trusted(&certificate_signer(path)),
        token: None,
        operator: LogOperator::Independent,
        witnesses: Witnesses::default(),
        clock: clock(),
    });
    let open = open.await.unwrap();
    assert_eq!(broken(&tried(&open.url()).await), ["no-credentials", "wrong-credentials"]);
    open.stop().await.unwrap();
}

async fn service_size(raw: &Raw) -> u64 {
    raw.get("/healthz").await.1["size"].as_u64().unwrap()
}
