//! Snapshots that are interrupted anywhere, again and again: what the next try makes of them restores as the shop, takes over the packs
//! that hold what is still so, and leaves nothing behind.
//!
//! A try ends wherever its future stands when it was polled so many times: between two statements, two requests, or in one. Packs are
//! small here, so that there are many; that is set for a process of its own.

use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use chrono::TimeDelta;
use wangchuan::agent::verify_backups;
use wangchuan::backup::manifest::{MAX_MANIFEST_BYTES, Manifest};
use wangchuan::backup::object_store::{ListedObject, ObjectStore, PutOutcome, Result as StoreResult};
use wangchuan::control::SnapshotRow;
use wangchuan::installation::Installation;
use wangchuan::tasks::backup::{Wanted, take_snapshot};
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::shred::shred_due;

use crate::support::announce::{LONG, switched_on};
use crate::support::control_database::server;
use crate::support::dice::Dice;
use crate::support::world::{Making, World, forget, pass_time, restore};

/// Set in the process with small packs.
const INSIDE: &str = "WANGCHUAN_INTERRUPTED";
const PACK_BYTES: u64 = 3_000;
/// Snapshots without `--long`, and with it.
const SEEDS: [u64; 2] = [40, 200];

/// A bucket that counts the bytes of packs that are sent to it.
struct Counting {
    inner: Arc<dyn ObjectStore>,
    sent: AtomicU64,
    largest: AtomicU64,
}

impl Counting {
    fn of(installation: &Installation) -> Self {
        let inner = installation.backup().unwrap().repository.clone();
        Self { inner, sent: AtomicU64::new(0), largest: AtomicU64::new(0) }
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> StoreResult<PutOutcome> {
        if name.starts_with("packs/") {
            self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.largest.fetch_max(bytes.len() as u64, Ordering::Relaxed);
        }
        self.inner.put_if_absent(name, bytes).await
    }

    async fn get(&self, name: &str, limit: usize) -> StoreResult<Vec<u8>> {
        self.inner.get(name, limit).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u32) -> StoreResult<Vec<u8>> {
        self.inner.get_range(name, offset, length).await
    }

    async fn list(&self, prefix: &str) -> StoreResult<Vec<ListedObject>> {
        self.inner.list(prefix).await
    }

    async fn head(&self, name: &str) -> StoreResult<Option<u64>> {
        self.inner.head(name).await
    }
}

/// A future that is given up after so many polls; counts them.
pub struct Cut<F> {
    inner: Pin<Box<F>>,
    left: usize,
    pub polls: usize,
}

impl<F: Future> Cut<F> {
    pub fn new(future: F, left: usize) -> Self {
        Self { inner: Box::pin(future), left, polls: 0 }
    }

    /// Goes on for so many polls more.
    pub async fn go_on(&mut self, polls: usize) -> Option<F::Output> {
        self.left = self.polls.saturating_add(polls);
        self.await
    }
}

impl<F: Future> Future for Cut<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == self.left {
            return Poll::Ready(None);
        }
        self.polls += 1;
        self.inner.as_mut().poll(context).map(Some)
    }
}

/// Takes a snapshot, given up after so many polls. Returns it, and how many polls there were.
async fn try_for(
    installation: &Installation,
    bucket: &Counting,
    wanted: Wanted,
    polls: usize,
) -> (Option<SnapshotRow>, usize) {
    let ground = installation.ground().unwrap();
    let taking = take_snapshot(&ground, bucket, &installation.signer, "shop", wanted);
    let mut cut = Cut::new(taking, polls);
    let done = (&mut cut).await;
    let polls = cut.polls;
    drop(cut);
    (done.map(Result::unwrap), polls)
}

/// The bytes of the packs of a snapshot, and how many there are.
async fn packs_of(installation: &Installation, row: &SnapshotRow) -> (u64, usize) {
    let (bucket, name) = (&installation.backup().unwrap().repository, row.manifest.as_ref().unwrap());
    let bytes = bucket.get(name, MAX_MANIFEST_BYTES).await.unwrap();
    let manifest = Manifest::open(name, &bytes, &|_, _, _| true).unwrap();
    (manifest.packs.iter().map(|pack| pack.bytes).sum(), manifest.packs.len())
}

/// What the shop does before a snapshot, so that an increment has something to do as well.
async fn much_changes(world: &World, seed: u64) {
    let sql = format!(
        "UPDATE orders SET shipping_address = 'street {seed}' || shipping_address WHERE order_id % 2 = {}; \
         UPDATE complaints SET body = 'told {seed}'; DELETE FROM order_lines WHERE line_id % 97 = {}",
        seed % 2,
        seed % 97
    );
    world.run_sql(&sql).await;
}

/// What the shop does between two tries.
async fn something_changes(world: &World, dice: &mut Dice, seed: u64) {
    let sql = match dice.below(5) {
        0 => "DELETE FROM complaints WHERE complaint_id = (SELECT max(complaint_id) FROM complaints)".to_owned(),
        1 => format!("UPDATE customers SET address = 'house {seed}' WHERE customer_id = (SELECT min(customer_id) FROM customers)"),
        2 => "UPDATE orders SET customer_id = (SELECT max(customer_id) FROM customers) WHERE order_id = (SELECT min(order_id) FROM orders)"
            .to_owned(),
        3 => format!(
            "INSERT INTO complaints SELECT {}, customer_id, opened_at, closed_at, body FROM complaints LIMIT 1",
            700_000 + dice.next() % 1_000_000_000
        ),
        _ => format!("UPDATE order_lines SET quantity = quantity + 1 WHERE line_id % 50 = {}", seed % 50),
    };
    world.run_sql(&sql).await;
}

/// Everything that must hold of a snapshot whose tries were interrupted.
async fn check(world: &World, installation: &Installation, row: &SnapshotRow, seed: u64) {
    let expected = world.dump_all("shop.db").await;
    let rows: usize = expected.iter().map(|(_, rows)| rows.len()).sum();
    assert_eq!(row.living as usize, rows, "seed {seed}: {row:?}");
    assert!(row.kind == "incremental" || row.rows == row.living, "seed {seed}: {row:?}");
    let report = restore(world, installation, row, "restored.db").await.unwrap();
    std::fs::remove_file(world.path("restored.db")).unwrap();
    let restored: u64 = report.collections.iter().map(|counts| counts.restored).sum();
    assert!(report.is_whole() && restored as usize == rows, "seed {seed}: {report:?}");
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.count_indexed("shop").await.unwrap() as usize, rows, "seed {seed}");
    assert!(tx.interrupted_try("shop").await.unwrap().is_none(), "seed {seed}: something is left of a try");
    assert!(tx.stored_packs(row.number).await.unwrap().is_empty(), "seed {seed}");
    assert_eq!(tx.running_snapshots().await.unwrap(), 0, "seed {seed}");
}

async fn compare_dump(world: &World, installation: &Installation, row: &SnapshotRow) {
    restore(world, installation, row, "compared.db").await.unwrap();
    assert_eq!(world.dump_all("compared.db").await, world.dump_all("shop.db").await, "{row:?}");
    std::fs::remove_file(world.path("compared.db")).unwrap();
}

/// What the tries of all seeds came to.
#[derive(Default)]
struct Sum {
    cuts: u64,
    spared: u64,
    unchanged: u64,
    late: u64,
}

/// One snapshot with up to four interruptions.
async fn one_seed(world: &World, installation: &Installation, seed: u64, usual: [usize; 2], sum: &mut Sum) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let is_full = dice.chance(60);
    let wanted = if is_full { Wanted::Full } else { Wanted::increment(&installation.config) };
    let (is_calm, tries) = (dice.chance(60), 2 + dice.below(3));
    much_changes(world, seed).await;
    let committed = || async { installation.control.read().await.unwrap().snapshots(None).await.unwrap().len() };
    let (before, bucket) = (committed().await, Counting::of(installation));
    let mut cuts = 0;
    for _ in 0..tries {
        let (row, _) = try_for(installation, &bucket, wanted, dice.below(usual[usize::from(is_full)] * 4 / 5)).await;
        if row.is_some() {
            break;
        }
        cuts += 1;
        if !is_calm {
            something_changes(world, &mut dice, seed).await;
        }
    }
    let (row, _) = try_for(installation, &bucket, wanted, usize::MAX).await;
    let row = row.unwrap();
    check(world, installation, &row, seed).await;
    compare_dump(world, installation, &row).await;
    sum.cuts += cuts;
    // A try may have come to its end, or so far that its manifest was stored: then this was a snapshot after it.
    if committed().await != before + 1 {
        sum.late += 1;
        return;
    }
    let (bytes, _) = packs_of(installation, &row).await;
    let (sent, largest) = (bucket.sent.load(Ordering::Relaxed), bucket.largest.load(Ordering::Relaxed));
    if is_calm && cuts > 0 {
        sum.unchanged += 1;
        sum.spared += (bytes * (cuts + 1)).saturating_sub(sent);
        let most = bytes + cuts * largest;
        assert!(
            sent <= most,
            "seed {seed}: {sent} bytes were sent for {bytes}, with {cuts} interruptions and packs of {largest}"
        );
    }
}

async fn inside(making: Making) {
    let on_server = making.server.is_some();
    let world = World::make(Making { customers: 24, bucket: "year", ..making }).await;
    // Chains as long as they get.
    world.edit_config("bucket = \"wangchuan\"\n", "bucket = \"wangchuan\"\nchain = { snapshots = 200, days = 300 }\n");
    let installation = world.open().await;
    let bucket = Counting::of(&installation);
    let (first, full) = try_for(&installation, &bucket, Wanted::Full, usize::MAX).await;
    assert!(packs_of(&installation, &first.unwrap()).await.1 > 6, "too few packs to be interrupted between them");
    much_changes(&world, 1).await;
    let (second, increment) =
        try_for(&installation, &bucket, Wanted::increment(&installation.config), usize::MAX).await;
    assert!(packs_of(&installation, &second.unwrap()).await.1 > 3);
    let mut sum = Sum::default();
    let seeds = SEEDS[usize::from(switched_on(LONG).is_some())] / if on_server { 4 } else { 1 };
    for seed in 1..=seeds {
        one_seed(&world, &installation, seed, [increment, full], &mut sum).await;
    }
    let found = verify_backups(&installation, "shop").await.unwrap();
    assert!(found.is_valid(), "{:?}", found.problems);
    let newest = installation.control.read().await.unwrap().snapshots(None).await.unwrap().pop().unwrap();
    assert_eq!(run_drill(&installation, newest).await.unwrap().result, "passed");
    let Sum { cuts, spared, unchanged, late } = sum;
    crate::model::tell(&format!(
        "{seeds} snapshots with {cuts} interruptions ({full} and {increment} polls without): {unchanged} of an unchanged shop spared {spared} \
         bytes; {late} came after a try that had ended"
    ));
    assert!(cuts >= seeds && unchanged > seeds / 5 && spared > 0);
    what_is_not_gone_on_with(&world, installation).await;
}

/// A try that is too old, and one whose chain died: nothing is taken over.
async fn what_is_not_gone_on_with(world: &World, installation: Installation) {
    let full_again = async |what: &str| {
        let bucket = Counting::of(&installation);
        let (row, _) = try_for(&installation, &bucket, Wanted::Full, usize::MAX).await;
        let row = row.unwrap();
        check(world, &installation, &row, 0).await;
        assert_eq!(packs_of(&installation, &row).await.0, bucket.sent.load(Ordering::Relaxed), "{what}");
    };
    // Longer and longer tries, until one has left two packs; one that came to its end begins this anew.
    let interrupted = async || {
        let mut polls = 100;
        loop {
            let bucket = Counting::of(&installation);
            let (done, _) = try_for(&installation, &bucket, Wanted::Full, polls).await;
            polls = if done.is_some() { 100 } else { polls + 40 };
            let mut tx = installation.control.begin().await.unwrap();
            tx.cancel_running_snapshots().await.unwrap();
            let left = tx.interrupted_try("shop").await.unwrap();
            let packs = match &left {
                Some(row) => tx.stored_packs(row.number).await.unwrap().len(),
                None => 0,
            };
            tx.commit().await.unwrap();
            if let Some(row) = left.filter(|_| packs > 1) {
                return row;
            }
        }
    };
    interrupted().await;
    pass_time(world, &installation, TimeDelta::hours(25)).await;
    full_again("a try of yesterday").await;

    let left = interrupted().await;
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    // The barrier of the erasure is an increment on the chain before; the chain of the try dies with the customer.
    let (row, _) =
        try_for(&installation, &Counting::of(&installation), Wanted::increment(&installation.config), usize::MAX).await;
    assert_eq!(row.unwrap().kind, "incremental");
    shred_due(&installation).await.unwrap();
    let state = installation.control.read().await.unwrap().chain_state(left.chain).await.unwrap();
    assert_eq!(state.as_deref(), Some("destroyed"));
    full_again("a try whose chain died").await;
    installation.close().await.unwrap();
}

/// Runs `inside` in a process of its own in which packs are small, with the control database in a file or on a server.
pub async fn in_small_packs(test: &str, server: Option<&str>, inside: impl AsyncFnOnce(Making)) {
    if let Ok(server) = std::env::var(INSIDE) {
        let server = Some(server).filter(|server| !server.is_empty());
        return inside(Making { server, ..Making::default() }).await;
    }
    let done = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--test-threads=1"])
        .env(INSIDE, server.unwrap_or_default())
        .env("WANGCHUAN_PACK_BYTES", PACK_BYTES.to_string())
        .output()
        .unwrap();
    let (out, told) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("1 passed"), "{out}\n{told}");
    told.lines().filter(|line| line.contains("interruptions")).for_each(crate::model::tell);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_wherever_it_was_interrupted() {
    in_small_packs("cycle::interrupted::a_snapshot_goes_on_wherever_it_was_interrupted", None, inside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_with_a_control_database_on_postgresql() {
    let test = "cycle::interrupted::a_snapshot_goes_on_with_a_control_database_on_postgresql";
    let Some(server) = server("interrupted snapshots") else { return };
    in_small_packs(test, Some(&server), inside).await;
}
