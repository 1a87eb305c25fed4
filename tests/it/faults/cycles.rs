//! Whole cycles through a proxy that fails now and then, and one that stops answering at each step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wangchuan::agent::verify_backups;
use wangchuan::backup::embedded::EmbeddedServer;
use wangchuan::installation::{Installation, recover_site};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::shred::shred_due;

use super::world_behind_proxy;
use crate::support::proxy::{Fault, Proxy, Seen};
use crate::support::world::{World, forget, restore, run_now, snapshot, try_snapshot};

const TURNS: [Fault; 8] = [
    Fault::AnswerLost,
    Fault::Refused(503, "SlowDown"),
    Fault::AnswerChanged,
    Fault::RequestCutOff,
    Fault::AnswerCutOff,
    Fault::Slow(Duration::from_millis(20)),
    Fault::AnswerShortened,
    Fault::PreconditionIgnored,
];

/// Every fifth request fails, each time otherwise. What a listing says is not changed: nothing would give that away.
fn now_and_then(seen: &Seen) -> Option<Fault> {
    let turn = TURNS[(seen.number / 5) as usize % TURNS.len()];
    let is_listing = seen.target.contains("list-type=");
    (seen.number % 5 == 4 && !(is_listing && turn == Fault::AnswerChanged)).then_some(turn)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_over_a_bad_line_comes_to_the_same() {
    let (world, server, proxy) = world_behind_proxy(60).await;
    proxy.fail(now_and_then);
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    let second = snapshot(&installation).await;
    assert!(shred_due(&installation).await.unwrap().generation.is_some());
    assert_eq!(run_now(&installation, &run.id).await.state, "shredded");
    let report = restore(&world, &installation, &second, "restored.db").await.unwrap();
    assert!(report.is_whole() && report.frames_shredded == 0, "{report:?}");
    assert_eq!(world.dump_all("restored.db").await, world.dump_all("shop.db").await);
    let drill = run_drill(&installation, first).await.unwrap();
    assert_eq!(drill.result, "passed", "{drill:?}");
    assert!(drill.frames[1] > 0, "the first snapshot has shredded frames");
    let found = verify_backups(&installation, "shop").await.unwrap();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    installation.close().await.unwrap();

    // The host burns, and the line stays as it is.
    std::fs::remove_dir_all(world.path("state")).unwrap();
    std::fs::remove_dir_all(world.path("audit")).unwrap();
    let recovered = recover_site(world.config(), world.clock.clone(), Arc::new(SystemRandom)).await.unwrap();
    assert_eq!((recovered.generation, recovered.snapshots), (2, 2));
    assert!(proxy.faults().len() > 10, "only {} faults in {} requests", proxy.faults().len(), proxy.requests());
    server.stop().await;
}

/// Whether snapshots and shreds that fail at a request leave everything as it was, and the next ones finish.
async fn try_again(world: &World, proxy: &Proxy, at: u64, fault: Fault) -> bool {
    let installation = world.open().await;
    proxy.fail(move |seen| (seen.number >= at).then_some(fault));
    let failed = try_snapshot(&installation).await;
    let was_hit = !proxy.faults().is_empty();
    proxy.fail(|_| None);
    match failed {
        Ok(_) => assert!(!was_hit, "{at}: it ended well without an answer"),
        Err(TaskError::Repository(_) | TaskError::Keyring(_)) => assert!(was_hit),
        Err(other) => panic!("{at}: another error: {other}"),
    }
    let next = snapshot(&installation).await;
    assert_eq!(installation.control.read().await.unwrap().running_snapshots().await.unwrap(), 0, "{at}");
    let found = verify_backups(&installation, "shop").await.unwrap();
    assert!(found.problems.is_empty(), "{at}: {:?}", found.problems);
    let file = format!("restored-{at}.db");
    let report = restore(world, &installation, &next, &file).await.unwrap();
    assert!(report.is_whole(), "{at}: {report:?}");
    assert_eq!(world.dump_all(&file).await, world.dump_all("shop.db").await, "{at}");
    installation.close().await.unwrap();
    was_hit
}

async fn end(world: World, server: EmbeddedServer) {
    drop(world);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_refused_at_any_step_is_taken_by_the_next_try() {
    let (world, server, proxy) = world_behind_proxy(20).await;
    let mut at = 0;
    while try_again(&world, &proxy, at, Fault::Refused(403, "AccessDenied")).await {
        at += 1;
    }
    assert!(at > 5, "a snapshot takes {at} requests");
    end(world, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shred_that_is_refused_at_any_step_is_done_by_the_next_try() {
    let (world, server, proxy) = world_behind_proxy(20).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    snapshot(&installation).await;
    let mut at = 0;
    loop {
        proxy.fail(move |seen| (seen.number >= at).then_some(Fault::Refused(403, "AccessDenied")));
        let tried = shred_due(&installation).await;
        let was_hit = !proxy.faults().is_empty();
        if !was_hit {
            assert!(tried.unwrap().generation.is_some());
            break;
        }
        // A barrier snapshot that cannot be read is a reason to wait; anything else is an error. No key died either way.
        assert!(tried.is_err() || tried.as_ref().is_ok_and(|report| !report.unread.is_empty()), "{at}: {tried:?}");
        assert_eq!(run_now(&installation, &run.id).await.state, "shred-pending", "{at}");
        at += 1;
    }
    assert!(at > 3, "a shred takes {at} requests");
    assert_eq!(run_now(&installation, &run.id).await.state, "shredded");
    installation.close().await.unwrap();
    end(world, server).await;
}

/// The file slot's roots, by generation.
async fn roots(installation: &Installation) -> Vec<i64> {
    installation.keyring.slot().list().await.unwrap().iter().map(|root| root.generation).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shred_whose_sealed_state_is_lost_or_spoilt_destroys_no_root() {
    for fault in [Fault::Forgotten, Fault::Rotten] {
        let (world, server, proxy) = world_behind_proxy(20).await;
        let installation = world.open().await;
        let first = snapshot(&installation).await;
        let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
        snapshot(&installation).await;
        let mut tries = 0;
        loop {
            // The first object that a try stores, then the second one, and so on.
            let stored = AtomicUsize::new(0);
            proxy.fail(move |seen| (seen.stores() && stored.fetch_add(1, Ordering::SeqCst) == tries).then_some(fault));
            let tried = shred_due(&installation).await;
            let Some((_, seen)) = proxy.faults().pop() else { break };
            assert!(tried.is_err(), "{fault:?} {}: {tried:?}", seen.target);
            assert_eq!(roots(&installation).await, [1], "{fault:?} {}", seen.target);
            assert_eq!(run_now(&installation, &run.id).await.state, "shred-pending");
            tries += 1;
        }
        assert!(tries > 0, "nothing was stored");
        assert_eq!(roots(&installation).await, [2]);
        assert_eq!(run_now(&installation, &run.id).await.state, "shredded");
        let report = restore(&world, &installation, &first, "restored.db").await.unwrap();
        assert!(report.is_whole(), "{fault:?}: {report:?}");
        installation.close().await.unwrap();
        end(world, server).await;
    }
}
