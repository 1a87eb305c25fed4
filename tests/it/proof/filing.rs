//! Filing with services that are away, and with a log that shows two histories.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeDelta;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wangchuan::audit::Grown;
use wangchuan::audit::receipt::{self, LogOperator};
use wangchuan::audit::service::{ServiceHandle, ServiceSetup, start};
use wangchuan::audit::witness::Witnesses;
use wangchuan::certify::signer::TrustedKeys;
use wangchuan::clock::Clock;
use wangchuan::config::AuditService;
use wangchuan::control::log_store::SqlLogStore;
use wangchuan::installation::{Installation, audit_log_keys};
use wangchuan::log::checkpoint::{Checkpoint, CheckpointSigner};
use wangchuan::log::sequencer::Sequencer;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::audit::{audit_status, file_again, verify_all};
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outbox::file_due;
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::trust::trust;

use super::tools::customers;
use crate::support::ports::free_port;
use crate::support::world::{Making, World, forget, snapshot};

const ORIGIN: &str = "audit.example/log";

/// An audit service of others: its key, its place, and whose certificates it takes.
pub(super) struct Others {
    pkcs8: Vec<u8>,
    pub(super) port: u16,
    pub(super) trusted: TrustedKeys,
    clock: Arc<dyn Clock>,
}

impl Others {
    /// It serves the log of a database file. Nothing outside of that remembers what was signed, so it notices no roll-back.
    pub(super) async fn serve(&self, database: &Path) -> ServiceHandle {
        let store = SqlLogStore::open(database, "certificates").await.unwrap();
        let signer = CheckpointSigner::from_pkcs8(ORIGIN, &self.pkcs8).unwrap();
        start(ServiceSetup {
            bind: SocketAddr::from(([127, 0, 0, 1], self.port)),
            sequencer: Sequencer::open(Arc::new(store), signer, None).await.unwrap(),
            signers: self.trusted.clone().into(),
            token: None,
            operator: LogOperator::Independent,
            witnesses: Witnesses::default(),
            clock: self.clock.clone(),
        })
        .await
        .unwrap()
    }
}

/// A line to a service that answers every question for a consistency proof with 500 while it is told to.
async fn front_of(port: u16, service: u16, is_silent: Arc<AtomicBool>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    while let Ok((mut client, _)) = listener.accept().await {
        let is_silent = Arc::clone(&is_silent);
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", service)).await else { return };
            let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            loop {
                tokio::select! {
                    Ok(count) = client.read(&mut asked) => {
                        if asked[..count].starts_with(b"GET /v1/proof/consistency") && is_silent.load(Ordering::SeqCst) {
                            let refused = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                            let _ = client.write_all(refused).await;
                            return;
                        }
                        if count == 0 || server.write_all(&asked[..count]).await.is_err() {
                            return;
                        }
                    }
                    Ok(count) = server.read(&mut answered) => {
                        if count == 0 || client.write_all(&answered[..count]).await.is_err() {
                            return;
                        }
                    }
                    else => return,
                }
            }
        });
    }
}

/// Copies a log that nobody serves, with what is not in its main file yet.
fn copy_log(from: &Path, to: &Path) {
    let beside = |path: &Path| format!("{}-wal", path.display());
    std::fs::copy(from, to).unwrap();
    if Path::new(&beside(from)).exists() {
        std::fs::copy(beside(from), beside(to)).unwrap();
    }
}

/// The heads under which receipts were given, by size.
async fn heads(installation: &Installation) -> Vec<Checkpoint> {
    let log = installation.audit().unwrap().log.as_ref().unwrap();
    let rows = installation.control.read().await.unwrap().outbox(Some("receipted")).await.unwrap();
    let mut heads: Vec<_> =
        rows.iter().map(|row| receipt::head(row.receipt.as_deref().unwrap(), log).unwrap()).collect();
    heads.sort_by_key(|head| head.size);
    heads
}

pub(super) async fn company() -> (World, Installation, Others) {
    let port = free_port();
    let world = World::make(Making { audit: format!("url = \"http://127.0.0.1:{port}\""), ..Making::default() }).await;
    let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap().to_vec();
    let signer = CheckpointSigner::from_pkcs8(ORIGIN, &pkcs8).unwrap();
    std::fs::write(world.path("state/audit-log.vkey"), signer.key().verifier_key()).unwrap();
    let installation = world.open().await;
    snapshot(&installation).await;
    let trusted = installation.signer.trusted().clone();
    let others = Others { pkcs8, port, trusted, clock: world.clock.clone() };
    (world, installation, others)
}

/// Erases this many customers, from the `from`th on, and certifies it.
pub(super) async fn erase(world: &World, installation: &Installation, from: usize, count: usize) {
    for id in customers(world).iter().skip(from).take(count) {
        forget(installation, id).await;
    }
    snapshot(installation).await;
    world.clock.advance(TimeDelta::hours(2));
    installation.confirm_clock().await.unwrap();
    shred_due(installation).await.unwrap();
    assert_eq!(certify_due(installation).await.unwrap().len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_for_days_is_tried_once_a_round_and_loses_nothing() {
    let (world, installation, others) = company().await;
    erase(&world, &installation, 0, 3).await;
    let attempts = async || {
        let mut tx = installation.control.read().await.unwrap();
        tx.outbox(None).await.unwrap().iter().map(|row| row.attempts).sum::<i64>()
    };
    for round in 1..=3 {
        let report = file_due(&installation, false).await.unwrap();
        assert_eq!((report.receipted.len(), report.waiting.len()), (0, 3), "{report:?}");
        assert_eq!(attempts().await, round, "one try a round for all of them");
        world.clock.advance(TimeDelta::days(1));
    }
    let service = others.serve(&world.path("elsewhere.db")).await;
    let report = file_due(&installation, false).await.unwrap();
    assert_eq!((report.receipted.len(), report.doubt), (3, None));
    service.stop().await.unwrap();
    installation.close().await.unwrap();
}

/// A log elsewhere with three certificates, still served, and a copy of it from when there were two.
async fn copied_and_grown(world: &World, installation: &Installation, others: &Others) -> (ServiceHandle, PathBuf) {
    erase(world, installation, 0, 2).await;
    let (whole, copy) = (world.path("elsewhere.db"), world.path("copy.db"));
    let service = others.serve(&whole).await;
    assert_eq!(file_due(installation, true).await.unwrap().receipted.len(), 2);
    service.stop().await.unwrap();
    copy_log(&whole, &copy);
    erase(world, installation, 2, 1).await;
    let service = others.serve(&whole).await;
    let grown = file_due(installation, true).await.unwrap();
    assert_eq!((grown.receipted.len(), grown.doubt), (1, None), "a log that grows raises no doubt");
    (service, copy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rolled_back_or_forked_is_noticed_by_who_files() {
    let (world, installation, others) = company().await;
    let (service, copy) = copied_and_grown(&world, &installation, &others).await;
    assert_eq!(verify_all(&installation).await.unwrap().result, "valid");
    service.stop().await.unwrap();

    // The old copy comes back, and takes another certificate where the third one stood.
    erase(&world, &installation, 3, 1).await;
    let service = others.serve(&copy).await;
    let forked = file_due(&installation, true).await.unwrap();
    assert_eq!(forked.receipted.len(), 1, "{forked:?}");
    assert!(forked.doubt.unwrap().contains("rolled back"), "three entries twice, with different roots");
    service.stop().await.unwrap();
    let verdict = verify_all(&installation).await.unwrap();
    let heads = verdict.checks.iter().find(|(check, ..)| check == "heads").unwrap();
    assert_eq!((verdict.result, heads.1), ("invalid", false), "{verdict:?}");

    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_noticed_although_the_service_did_not_answer_at_first() {
    let (world, installation, mut others) = company().await;
    let front = std::mem::replace(&mut others.port, free_port());
    let is_silent = Arc::new(AtomicBool::new(false));
    let line = tokio::spawn(front_of(front, others.port, Arc::clone(&is_silent)));
    let (service, copy) = copied_and_grown(&world, &installation, &others).await;
    let seen = heads(&installation).await;
    let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
    assert!(first.size < last.size);
    assert_eq!(installation.audit().unwrap().sink.grew(first, last).await, Grown::Proved);
    service.stop().await.unwrap();

    // The old copy comes back and takes two more, so that it is larger than what was seen; nobody answers for it yet.
    erase(&world, &installation, 3, 2).await;
    let service = others.serve(&copy).await;
    is_silent.store(true, Ordering::SeqCst);
    let unanswered = file_due(&installation, true).await.unwrap();
    assert_eq!((unanswered.receipted.len(), unanswered.doubt), (2, None));
    is_silent.store(false, Ordering::SeqCst);
    let asked_again = file_due(&installation, true).await.unwrap();
    assert!(asked_again.doubt.is_some_and(|doubt| doubt.contains("rolled back")), "the fork was forgotten");
    let refiled = file_again(&installation).await.unwrap();
    assert!(refiled.doubt.is_some_and(|doubt| doubt.contains("rolled back")), "filing again forgot the fork");
    service.stop().await.unwrap();
    line.abort();
    installation.close().await.unwrap();
}

/// A world in which so many certificates are filed.
async fn with_filed(certificates: usize) -> World {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    erase(&world, &installation, 0, certificates).await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), certificates);
    installation.close().await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_log_is_begun_anew_and_old_receipts_stay_good_or_are_replaced() {
    let world = with_filed(2).await;
    let data = match &world.config().audit.service {
        AuditService::Embedded { data } => data.clone(),
        AuditService::Url(_) | AuditService::Webhook { .. } => unreachable!("the standard world has a log of its own"),
    };
    let start_anew = |name: &str| std::fs::rename(&data, world.path(name)).unwrap();

    start_anew("first-log");
    let installation = world.open().await;
    // Heads of both logs, of the same sizes under one origin.
    erase(&world, &installation, 2, 2).await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), 2);
    let refiled = file_again(&installation).await.unwrap();
    assert_eq!((refiled.same, refiled.doubt), (4, None), "receipts of the first log are as good");
    let verdict = verify_all(&installation).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");
    assert_eq!(audit_log_keys(&installation).unwrap().len(), 2);
    installation.close().await.unwrap();

    // Nobody knows the keys of both logs any more: any receipt that verifies is better than theirs.
    start_anew("second-log");
    std::fs::remove_file(world.path("state/audit-log-former.vkeys")).unwrap();
    let installation = world.open().await;
    let refiled = file_again(&installation).await.unwrap();
    assert_eq!(refiled.better.len(), 4, "{refiled:?}");
    let verdict = verify_all(&installation).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_were_removed_or_never_filed_are_missed() {
    let world = with_filed(3).await;
    let wrong = async || {
        let installation = world.open_state().await;
        let verdict = verify_all(&installation).await.unwrap();
        installation.close().await.unwrap();
        let wrong = verdict.checks.into_iter().filter(|(_, good, _)| !good);
        wrong.map(|(check, _, said)| format!("{check}: {said}")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(wrong().await, "");
    let newest = "(SELECT id FROM certificate ORDER BY sequence DESC LIMIT 1)";
    let outbox = async |set: &str| {
        world
            .number("state/control.db", &format!("UPDATE outbox SET {set} WHERE certificate = {newest} RETURNING 1"))
            .await
    };
    outbox("state = 'quarantined'").await;
    let said = wrong().await;
    assert!(said.contains("the audit service refuses it"), "{said}");
    outbox("state = 'receipted', receipt = NULL").await;
    let said = wrong().await;
    assert!(said.contains("its receipt is missing"), "{said}");
    world.number("state/control.db", &format!("DELETE FROM outbox WHERE certificate = {newest} RETURNING 1")).await;
    let said = wrong().await;
    assert!(said.contains("it is not waiting to be filed, and was not filed"), "{said}");
    world.number("state/control.db", &format!("DELETE FROM certificate WHERE id = {newest} RETURNING 1")).await;
    let said = wrong().await;
    assert!(said.contains("1 certificates stand in the log and are not known here"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_counts_from_the_earliest_certificate_on_whatever_its_number() {
    let (world, installation, _others) = company().await;
    erase(&world, &installation, 0, 2).await;
    let starts = async || {
        let signers = trust(&installation).await.unwrap().signers;
        signers.into_iter().map(|(_, window)| window.start.unwrap().to_rfc3339()).collect::<Vec<_>>()
    };
    let first = starts().await;
    // The clock of number 1 was ahead, and was set back since.
    world
        .run_sql_in(
            "state/control.db",
            "UPDATE certificate SET issued_at = '2025-01-01T00:00:00.000Z' WHERE sequence = 2",
        )
        .await;
    assert_eq!(starts().await, ["2025-01-01T00:00:00+00:00"]);
    assert_ne!(starts().await, first);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_log_elsewhere_that_was_never_our_own_is_called_independent() {
    let (world, installation, others) = company().await;
    erase(&world, &installation, 0, 2).await;
    let service = others.serve(&world.path("elsewhere.db")).await;
    assert_eq!(file_due(&installation, true).await.unwrap().receipted.len(), 2);
    service.stop().await.unwrap();
    // The service says that it is independent, and stands on this host.
    let operators = async |installation: &Installation| {
        let status = audit_status(installation).await.unwrap();
        let known = trust(installation).await.unwrap();
        let of_logs: Vec<_> = known.logs.iter().map(|log| log.operator).collect();
        (status.grades[0].1, of_logs, installation.audit_limitation().is_some())
    };
    let own = (LogOperator::SelfHosted, vec![LogOperator::SelfHosted], true);
    assert_eq!(operators(&installation).await, own);
    installation.close().await.unwrap();

    let url =
        |text: &str| text.lines().find(|line| line.starts_with("url = \"http://127.0.0.1")).map(ToOwned::to_owned);
    let here = url(&std::fs::read_to_string(world.path("wangchuan.toml")).unwrap()).unwrap();
    world.edit_config(&here, "url = \"https://audit.example.com\"");
    let installation = world.open_state().await;
    let elsewhere = (LogOperator::Independent, vec![LogOperator::Independent], false);
    assert_eq!(operators(&installation).await, elsewhere);
    // The same address before a log that was embedded here once.
    std::fs::copy(world.path("state/audit-log.vkey"), world.path("state/audit-log-former.vkeys")).unwrap();
    assert_eq!(operators(&installation).await, own);
    installation.close().await.unwrap();
}
