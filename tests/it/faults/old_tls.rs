//! A server that speaks no TLS newer than 1.1, against every client that leaves this host: each ends the handshake and says nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use wangchuan::audit::client::{Access, AuditClient, ClientSetup, Patience as Waiting};
use wangchuan::audit::{AuditSink as _, Looked};
use wangchuan::backup::object_store::RepositoryError;
use wangchuan::backup::repository::{Patience, RepositoryCredentials, RepositorySettings, S3Repository};
use wangchuan::certify::signer::TrustedKeys;
use wangchuan::clock::SystemClock;
use wangchuan::keys::kms_slot::{KmsSetup, KmsSlot};
use wangchuan::keys::slot::{RootSlot, SlotError};
use wangchuan::keys::transit_slot::{TransitAuth, TransitSetup, TransitSlot};
use wangchuan::log::checkpoint::CheckpointKey;
use wangchuan::policy::registry::SecretText;
use wangchuan::random::SystemRandom;
use wangchuan::stores::{Limits, StoreAddress, StoreError, open};

const TLS_1_0: u8 = 1;
const TLS_1_1: u8 = 2;
const TLS_1_2: u8 = 3;

/// A fatal alert `protocol_version` (RFC 5246 §7.2.2), without the version in its record's head.
const REFUSED: [u8; 4] = [0, 2, 2, 70];

/// A handshake record in which a server chooses this version and a suite of it.
fn server_hello(minor: u8) -> Vec<u8> {
    let suite = if minor == TLS_1_2 { [0xc0, 0x2f] } else { [0xc0, 0x14] };
    let body = [&[3, minor][..], &[7; 32], &[0], &suite, &[0]].concat();
    let message = [&[2, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, minor, 0, message.len() as u8][..], &message].concat()
}

/// Answers one connection's first message in this version, and says what came after it.
async fn answer(mut peer: TcpStream, minor: u8, is_postgres: bool) -> Vec<u8> {
    if is_postgres {
        let mut request = [0; 8];
        peer.read_exact(&mut request).await.unwrap();
        peer.write_all(b"S").await.unwrap();
    }
    let mut head = [0; 5];
    peer.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 22, "it begins with a handshake");
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    peer.read_exact(&mut hello).await.unwrap();
    peer.write_all(&server_hello(minor)).await.unwrap();
    let mut after = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(400), peer.read_to_end(&mut after)).await;
    after
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Bucket,
    Audit,
    Transit,
    Kms,
    Postgres,
}

/// Has a client call this port; it must not come through.
async fn call(caller: Caller, port: u16, folder: PathBuf) {
    let address = format!("https://127.0.0.1:{port}");
    match caller {
        Caller::Bucket => call_bucket(address).await,
        Caller::Audit => call_audit(address).await,
        Caller::Transit => {
            let setup = TransitSetup {
                address,
                mount: "transit".to_owned(),
                key: "wangchuan".to_owned(),
                namespace: None,
                ca_pem: None,
                auth: TransitAuth::Token(secret()),
                folder,
                snapshot_retention_days: 7,
                timeout: Some(BRIEF),
            };
            makes_nothing(&TransitSlot::prepare(&setup, [9; 16]).unwrap()).await;
        }
        Caller::Kms => {
            let setup = KmsSetup {
                region: "eu-central-1".to_owned(),
                endpoint: Some(address),
                keys: Some((secret(), secret())),
                folder,
                deletion_window_days: 7,
                minimum_interval: Duration::ZERO,
                timeout: Some(BRIEF),
                stale_pause: Duration::from_millis(1),
            };
            makes_nothing(&KmsSlot::prepare(&setup, [9; 16]).unwrap()).await;
        }
        Caller::Postgres => call_postgres(port, folder).await,
    }
}

const BRIEF: Duration = Duration::from_secs(5);

fn secret() -> SecretText {
    SecretText::new("secret".to_owned())
}

async fn makes_nothing(slot: &dyn RootSlot) {
    let made = slot.create(1, &SystemRandom).await.err();
    assert!(matches!(made, Some(SlotError::Unavailable { .. })), "{made:?}");
}

async fn call_bucket(address: String) {
    let credentials =
        RepositoryCredentials::Keys { access_key: "AKIDTEST".to_owned(), secret_key: secret(), session_token: None };
    let settings = RepositorySettings {
        endpoint: Some(address),
        region: "us-east-1".to_owned(),
        bucket: "backups".to_owned(),
        prefix: String::new(),
        path_style: true,
        credentials,
        ca_pem: None,
        patience: Patience { attempts: 1, connect: BRIEF, attempt: BRIEF, operation: BRIEF },
        lock: None,
    };
    let found = S3Repository::connect(&settings).await.unwrap().check_bucket().await;
    assert!(matches!(found, Err(RepositoryError::Unreachable { .. })), "{found:?}");
}

async fn call_audit(address: String) {
    let client = AuditClient::new(ClientSetup {
        access: Access {
            url: address,
            ca_pem: None,
            identity: None,
            patience: Waiting { connect: BRIEF, total: BRIEF },
        },
        log: CheckpointKey::new("audit.example.com", [7; 32]).unwrap(),
        signers: TrustedKeys::from_iter([]),
        token: None,
        clock: Arc::new(SystemClock),
    });
    assert_eq!(client.unwrap().look("01900000-0000-7000-8000-000000000001", None).await, Looked::Unanswered);
}

async fn call_postgres(port: u16, folder: PathBuf) {
    let store = open(&StoreAddress {
        name: "shop".to_owned(),
        url: SecretText::new(format!("postgres://u@127.0.0.1:{port}/d?sslmode=require")),
        read_url: None,
        base: folder,
        create: false,
        limits: Limits::default(),
    });
    let found = store.unwrap().server_time().await;
    assert!(matches!(found, Err(StoreError::Unreachable { .. })), "{:?}", found.err());
}

/// What a server of this version hears of each connection that a client makes, after its first message.
async fn heard(caller: Caller, minor: u8) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (begun, (send, mut heard)) = (Arc::new(AtomicUsize::new(0)), unbounded_channel());
    let count = begun.clone();
    let server = tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            send.send(answer(peer, minor, caller == Caller::Postgres).await).unwrap();
        }
    });
    call(caller, port, folder.path().join("root")).await;
    let mut all = Vec::new();
    while all.len() < begun.load(Ordering::SeqCst) {
        all.push(heard.recv().await.unwrap());
    }
    server.abort();
    all
}

#[tokio::test]
async fn a_server_without_tls_1_2_hears_a_refusal_and_nothing_else() {
    for caller in [Caller::Bucket, Caller::Audit, Caller::Transit, Caller::Kms, Caller::Postgres] {
        for minor in [TLS_1_0, TLS_1_1] {
            let heard = heard(caller, minor).await;
            assert!(!heard.is_empty(), "{caller:?} never called");
            for after in heard {
                assert_eq!(after.len(), 7, "{caller:?}, TLS 1.{}: {after:?}", minor - 1);
                assert_eq!((after[0], &after[3..]), (21, &REFUSED[..]), "{caller:?}, TLS 1.{}", minor - 1);
            }
        }
        // The same words in TLS 1.2 are taken: what was refused above is the version.
        let heard = heard(caller, TLS_1_2).await;
        assert!(!heard.is_empty() && heard.iter().all(|after| !after.ends_with(&REFUSED)), "{caller:?}: {heard:?}");
    }
}
