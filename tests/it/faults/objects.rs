//! One object at a time: every fault, once and for ever.

use std::time::Duration;

use wangchuan::backup::codec::Sha256;
use wangchuan::backup::object_store::{ObjectStore as _, PutOutcome, RepositoryError};
use wangchuan::backup::repository::{Patience, RepositoryCredentials, RepositorySettings, S3Repository};
use wangchuan::policy::registry::SecretText;

use super::{ACCESS_KEY, BUCKET, SECRET_KEY, served};
use crate::support::proxy::{Fault, Proxy};

const PASSING: [Fault; 9] = [
    Fault::RequestCutOff,
    Fault::AnswerLost,
    Fault::AnswerCutOff,
    Fault::AnswerShortened,
    Fault::AnswerChanged,
    Fault::AnswerStalls,
    Fault::Slow(Duration::from_millis(50)),
    Fault::Refused(503, "SlowDown"),
    Fault::Refused(500, "InternalError"),
];

pub async fn connect(proxy: &Proxy) -> S3Repository {
    connect_for(proxy, 3).await
}

/// With so many tries of each operation.
pub async fn connect_for(proxy: &Proxy, attempts: u32) -> S3Repository {
    let keys = RepositoryCredentials::Keys {
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SecretText::new(SECRET_KEY.to_owned()),
        session_token: None,
    };
    S3Repository::connect(&RepositorySettings {
        endpoint: Some(proxy.endpoint()),
        region: "us-east-1".to_owned(),
        bucket: BUCKET.to_owned(),
        prefix: String::new(),
        path_style: true,
        credentials: keys,
        ca_pem: None,
        patience: Patience {
            attempts,
            connect: Duration::from_secs(2),
            attempt: Duration::from_secs(2),
            operation: Duration::from_secs(20),
        },
        lock: None,
    })
    .await
    .unwrap()
}

/// An object that is named after its content, as all but probes and the installation's marker are.
pub fn object(seed: u8) -> (String, Vec<u8>) {
    let bytes: Vec<u8> = (0..300_000u32).map(|at| (at >> 4) as u8 ^ seed).collect();
    (format!("packs/{}", Sha256::of(&bytes)), bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_once_is_done_by_the_next_try() {
    let folder = tempfile::tempdir().unwrap();
    let (server, proxy) = served(folder.path()).await;
    let repository = connect(&proxy).await;
    for (seed, fault) in PASSING.into_iter().enumerate() {
        let (name, bytes) = object(seed as u8);
        let once = move |seen: &crate::support::proxy::Seen| (seen.number == 0).then_some(fault);
        proxy.fail(once);
        let put = repository.put_if_absent(&name, bytes.clone()).await;
        // Where the server did it and could not say so, the second try meets its own object.
        assert!(matches!(put, Ok(PutOutcome::Created | PutOutcome::AlreadyThere)), "{fault:?}: {put:?}");
        assert_eq!(proxy.faults().len(), 1, "{fault:?}");
        proxy.fail(once);
        assert!(repository.get(&name, 400_000).await.unwrap() == bytes, "{fault:?}");
        assert_eq!(proxy.faults().len(), 1, "{fault:?}");
        proxy.fail(once);
        assert_eq!(repository.head(&name).await, Ok(Some(300_000)), "{fault:?}");
        // A change inside a listing may be one that nothing gives away; any other fault does not show in it.
        if fault != Fault::AnswerChanged {
            proxy.fail(once);
            let listed = repository.list(&name).await.unwrap();
            assert_eq!(listed.iter().map(|object| object.bytes).collect::<Vec<_>>(), [300_000], "{fault:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_ever_is_an_error_that_says_whether_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, proxy) = served(folder.path()).await;
    let repository = connect(&proxy).await;
    let (name, bytes) = object(1);
    repository.put_if_absent(&name, bytes.clone()).await.unwrap();
    for (fault, retryable) in [
        (Fault::AnswerLost, true),
        (Fault::AnswerCutOff, true),
        (Fault::AnswerStalls, true),
        (Fault::Refused(503, "SlowDown"), true),
        (Fault::Refused(403, "AccessDenied"), false),
        (Fault::Refused(409, "OperationAborted"), true),
    ] {
        proxy.fail(move |_| Some(fault));
        let error = repository.get(&name, 400_000).await.unwrap_err();
        assert_eq!(error.is_retryable(), retryable, "{fault:?}: {error}");
        assert!(proxy.requests() <= 9, "{fault:?}: {} requests", proxy.requests());
        if fault != Fault::AnswerStalls {
            let (other, bytes) = object(2);
            let error = repository.put_if_absent(&other, bytes).await.err();
            // An answer to a put has no body that could be cut off.
            assert!(error.is_some() || fault == Fault::AnswerCutOff, "{fault:?}");
            assert!(error.is_none_or(|error| error.is_retryable() == retryable), "{fault:?}");
        }
    }
    // Damage that stays is told by the digest, and not taken for the network's.
    proxy.fail(|seen| seen.reads().then_some(Fault::AnswerChanged));
    let found = wangchuan::backup::object_store::get_verified(&repository, &name, &Sha256::of(&bytes), 400_000).await;
    assert!(matches!(found, Err(RepositoryError::Corrupt { .. })));
    assert_eq!(proxy.faults().len(), 3, "it is read as often as patience allows");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_the_precondition_is_found_out_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (server, proxy) = served(folder.path()).await;
    let repository = connect(&proxy).await;
    proxy.fail(|seen| seen.stores().then_some(Fault::PreconditionIgnored));
    let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let abilities = repository.prove_abilities(&repository, &wangchuan::random::SystemRandom, now).await.unwrap();
    let missing = wangchuan::backup::repository::abilities::Ability::Missing("the precondition was ignored".to_owned());
    assert_eq!(abilities.conditional_put, missing);
    // What is named after its content can only be overwritten by itself.
    let (name, bytes) = object(3);
    for _ in 0..2 {
        assert_eq!(repository.put_if_absent(&name, bytes.clone()).await, Ok(PutOutcome::Created));
        assert!(repository.get(&name, 400_000).await.unwrap() == bytes);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_puts_that_meet_are_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, proxy) = served(folder.path()).await;
    let repository = connect(&proxy).await;
    let (name, bytes) = object(4);
    proxy.fail(|seen| (seen.number < 2).then_some(Fault::Refused(409, "ConditionalRequestConflict")));
    assert_eq!(repository.put_if_absent(&name, bytes).await, Ok(PutOutcome::Created));
    assert_eq!(proxy.requests(), 3);
    server.stop().await;
}
