//! Every operation of the bucket with every fault, once and for ever: what comes of it is right, or an error that says whether to try
//! again. And that tries are counted, and do not come all at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wangchuan::backup::codec::Sha256;
use wangchuan::backup::object_store::{ObjectStore as _, PutOutcome, RepositoryError, get_verified};
use wangchuan::backup::repository::S3Repository;

use super::objects::{connect, connect_for, object};
use super::{BUCKET, served};
use crate::support::proxy::{Fault, Proxy, Seen};

const FAULTS: [Fault; 15] = [
    Fault::RequestCutOff,
    Fault::AnswerLost,
    Fault::AnswerCutOff,
    Fault::AnswerShortened,
    Fault::AnswerChanged,
    Fault::AnswerStalls,
    Fault::Slow(Duration::from_millis(30)),
    Fault::Refused(503, "SlowDown"),
    Fault::Refused(500, "InternalError"),
    Fault::Refused(429, "TooManyRequests"),
    Fault::Refused(409, "OperationAborted"),
    Fault::Refused(403, "AccessDenied"),
    Fault::ErrorInside200,
    Fault::Doubled,
    Fault::PreconditionIgnored,
];

const OPERATIONS: [&str; 6] = ["put", "put again", "get", "get range", "list", "head"];

/// What nobody can see: one bit of a listing, of a length, or of a range, of which no digest is known here. The frame in a range is
/// authenticated where it is opened.
fn is_unseen(operation: &str, fault: Fault) -> bool {
    fault == Fault::AnswerChanged && ["get range", "list"].contains(&operation)
}

/// Does an operation; whether what it gave is right, or how it failed.
async fn does(repository: &S3Repository, operation: &str, seed: u8) -> Result<bool, RepositoryError> {
    let (name, bytes) = object(seed);
    Ok(match operation {
        "put" | "put again" => {
            let outcome = repository.put_if_absent(&name, bytes).await?;
            matches!(outcome, PutOutcome::Created | PutOutcome::AlreadyThere)
        }
        "get" => get_verified(repository, &name, &Sha256::of(&bytes), 400_000).await? == bytes,
        "get range" => repository.get_range(&name, 1000, 2000).await? == bytes[1000..3000],
        "list" => repository.list(&name).await?.iter().map(|object| object.bytes).eq([bytes.len() as u64]),
        _ => repository.head(&name).await? == Some(bytes.len() as u64),
    })
}

fn told(outcome: &Result<bool, RepositoryError>, requests: u64) -> String {
    match outcome {
        Ok(_) => format!("done, {requests}"),
        Err(error) if error.is_retryable() => format!("later, {requests}"),
        Err(RepositoryError::Corrupt { .. }) => format!("corrupt, {requests}"),
        Err(_) => format!("refused, {requests}"),
    }
}

/// What came of one operation with one fault, in a few words; an error when that is wrong.
async fn judged(
    (proxy, repository): (&Proxy, &S3Repository),
    (operation, fault, for_ever): (&str, Fault, bool),
    seed: u8,
) -> Result<String, String> {
    let (name, bytes) = object(seed);
    proxy.fail(|_| None);
    if operation != "put" {
        repository.put_if_absent(&name, bytes.clone()).await.unwrap();
    }
    proxy.fail(move |seen: &Seen| (for_ever || seen.number == 0).then_some(fault));
    let outcome = does(repository, operation, seed).await;
    let requests = proxy.requests();
    proxy.fail(|_| None);
    let is_right = match &outcome {
        Ok(right) => *right || is_unseen(operation, fault),
        // Once is nothing that stops anything, but for a refusal, and what the SDK does not try again by itself.
        Err(error) if !for_ever => match fault {
            Fault::Refused(403, _) => !error.is_retryable(),
            Fault::Refused(409 | 429, _) => error.is_retryable(),
            _ => false,
        },
        // What is read back is never what was written: somebody has to look.
        Err(RepositoryError::Corrupt { .. } | RepositoryError::Exists { .. }) => fault != Fault::AnswerLost,
        Err(error) => error.is_retryable() != matches!(fault, Fault::Refused(403, _)),
    };
    // Whatever was said, what is in the bucket is whole or not there, and a put that ended well is.
    let there = repository.get(&name, 400_000).await;
    let is_kept = match (&there, operation, &outcome) {
        (Ok(there), ..) => *there == bytes,
        (Err(RepositoryError::NotFound { .. }), "put", Err(_)) => true,
        _ => false,
    };
    if is_right && is_kept && requests <= 9 {
        return Ok(told(&outcome, requests));
    }
    Err(format!("{outcome:?} with {requests} requests; then {:?}", there.map(|there| there.len())))
}

/// Faults that last for ever are waited for, with each try.
const LASTING: [Fault; 8] = [
    Fault::AnswerLost,
    Fault::AnswerCutOff,
    Fault::AnswerChanged,
    Fault::Refused(503, "SlowDown"),
    Fault::Refused(403, "AccessDenied"),
    Fault::ErrorInside200,
    Fault::Doubled,
    Fault::PreconditionIgnored,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_with_every_fault_is_right_or_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = served(folder.path()).await;
    let rows = OPERATIONS.iter().enumerate().map(|(number, &operation)| {
        let (address, objects) = (server.address(), folder.path().join(BUCKET));
        async move {
            let proxy = Proxy::start(address, objects, BUCKET).await;
            let repository = connect_for(&proxy, 2).await;
            let lasting = LASTING.iter().map(|fault| (*fault, true));
            let all = FAULTS.iter().map(|fault| (*fault, false)).chain(lasting);
            let (mut told, mut wrong) = (Vec::new(), Vec::new());
            for (at, (fault, for_ever)) in all.enumerate() {
                let seed = (number * 40 + at) as u8;
                let way = if for_ever { "for ever" } else { "once" };
                match judged((&proxy, &repository), (operation, fault, for_ever), seed).await {
                    Ok(what) => told.push(format!("faults: {operation} | {fault:?} | {way} | {what}")),
                    Err(what) => wrong.push(format!("{operation}, {fault:?}, {way}: {what}")),
                }
            }
            (told, wrong)
        }
    });
    let rows = futures_util::future::join_all(rows).await;
    for line in rows.iter().flat_map(|(told, _)| told) {
        eprintln!("{line}");
    }
    let wrong: Vec<&String> = rows.iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_are_counted_and_come_at_times_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (server, proxy) = served(folder.path()).await;
    let repository = connect(&proxy).await;
    let names: Vec<String> = (0..12).map(|seed| object(seed).0).collect();
    for seed in 0..12 {
        let (name, bytes) = object(seed);
        repository.put_if_absent(&name, bytes).await.unwrap();
    }
    let times: Arc<Mutex<BTreeMap<String, Vec<Instant>>>> = Arc::default();
    let seen_at = Arc::clone(&times);
    proxy.fail(move |seen: &Seen| {
        seen_at.lock().unwrap().entry(seen.target.clone()).or_default().push(Instant::now());
        Some(Fault::AnswerCutOff)
    });
    let reads = names.iter().map(|name| repository.get(name, 400_000));
    for outcome in futures_util::future::join_all(reads).await {
        assert!(outcome.is_err_and(|error| error.is_retryable()));
    }
    server.stop().await;
    let times = times.lock().unwrap();
    let gaps: Vec<Duration> = times.values().map(|at| at[1] - at[0]).collect();
    assert_eq!(times.values().map(Vec::len).collect::<Vec<_>>(), [3; 12], "three tries each, and no more");
    eprintln!("faults: pauses before the second try: {gaps:?}");
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*most > *least + Duration::from_millis(20), "all come back together: {gaps:?}");
}
