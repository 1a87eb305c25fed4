//! A KMS of our own: the states, errors and delays that AWS documents for its service, over the service's JSON protocol, on a clock
//! that the test sets. It stands in for what cannot be had in a test: a service that refuses what is about to be deleted, deletes it
//! when its time is up, and answers a little late.

pub mod machine;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use chrono::TimeDelta;
use serde_json::{Value, json};
use wangchuan::clock::Clock;
use wangchuan::keys::kms_slot::KmsSetup;
use wangchuan::policy::registry::SecretText;

use machine::{KmsMachine, Refused};

/// The region of every test.
pub const REGION: &str = "eu-west-9";
/// The access key of the agent.
pub const ACCESS_KEY: &str = "AKIDTEST";

/// The service; it runs until the test process ends.
#[derive(Clone)]
pub struct Kms {
    machine: Arc<Mutex<KmsMachine>>,
    address: SocketAddr,
}

impl Kms {
    /// A new service without keys, on a thread of its own: a test may block while its children use it.
    pub fn start(clock: Arc<dyn Clock>) -> Self {
        let machine = Arc::new(Mutex::new(KmsMachine::new(clock, REGION)));
        let (tell, told) = std::sync::mpsc::channel();
        let served = machine.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, Router::new().route("/", post(answer)).with_state(served)).await.unwrap();
            });
        });
        Self { machine, address: told.recv().unwrap() }
    }

    /// Puts the service on a clock.
    pub fn follow(&self, clock: Arc<dyn Clock>) {
        self.machine().clock = clock;
    }

    /// The machine, to be looked at or meddled with as an administrator of the account could.
    pub fn machine(&self) -> MutexGuard<'_, KmsMachine> {
        self.machine.lock().unwrap()
    }

    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How the slot reaches it.
    pub fn setup(&self, folder: &Path) -> KmsSetup {
        KmsSetup {
            region: REGION.to_owned(),
            endpoint: Some(self.address()),
            keys: Some((SecretText::new(ACCESS_KEY.to_owned()), SecretText::new("secret".to_owned()))),
            folder: folder.to_owned(),
            deletion_window_days: 7,
            minimum_interval: Duration::ZERO,
            timeout: Some(Duration::from_secs(10)),
            stale_pause: Duration::from_millis(1),
        }
    }

    /// A state that a key is in, by the number of keys made before it.
    pub fn state(&self, number: usize) -> String {
        self.machine().state_of(number)
    }
}

/// The lines of `[root]` for a slot at this address.
pub fn root_section(address: &str, path: &str) -> String {
    format!(
        "kind = \"aws-kms\"\npath = \"{path}\"\nregion = \"{REGION}\"\nendpoint = \"{address}\"\naccess_key_id = \"{ACCESS_KEY}\"\n\
         secret_access_key = \"secret\"\nminimum_interval_hours = 0"
    )
}

/// Calls the deletion of a key off, from whatever process.
pub async fn call_off(address: &str, key: &str) {
    let signed =
        format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/1/{REGION}/kms/aws4_request, SignedHeaders=x-amz-target");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request =
        client.post(address).header("x-amz-target", "TrentService.CancelKeyDeletion").header("authorization", signed);
    let request = request.header("content-type", "application/x-amz-json-1.1");
    let reply = request.body(json!({"KeyId": key}).to_string()).send().await.unwrap();
    assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
}

/// So many days.
pub fn days(number: i64) -> TimeDelta {
    TimeDelta::days(number)
}

async fn answer(
    State(machine): State<Arc<Mutex<KmsMachine>>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> impl IntoResponse {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let target = text("x-amz-target");
    let action = target.strip_prefix("TrentService.").unwrap_or_default();
    let signed = text("authorization");
    let is_ours = signed.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/"))
        && signed.contains(&format!("/{REGION}/kms/aws4_request"))
        && signed.contains("x-amz-target")
        && text("content-type") == "application/x-amz-json-1.1";
    let mut machine = machine.lock().unwrap();
    let outcome = match serde_json::from_slice::<Value>(&body) {
        _ if !is_ours => Err(Refused("UnrecognizedClientException")),
        Ok(asked) => machine.call(action, &asked),
        Err(_) => Err(Refused("SerializationException")),
    };
    match outcome {
        Ok(value) => (StatusCode::OK, Json(value)),
        Err(Refused(name)) => {
            let status = if name == "KMSInternalException" { 500 } else { 400 };
            let text = json!({"__type": name, "message": "as the state machine says"});
            (StatusCode::from_u16(status).unwrap(), Json(text))
        }
    }
}
