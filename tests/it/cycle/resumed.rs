//! What another try of an interrupted snapshot must not do: lose the chain that it goes on with to a change of generation which is open
//! meanwhile, wait for packs that the bucket does not give, or take over a row that was erased since.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use wangchuan::backup::codec::Sha256;
use wangchuan::backup::manifest::{MAX_MANIFEST_BYTES, Manifest};
use wangchuan::backup::object_store::{ListedObject, ObjectStore, PutOutcome, RepositoryError, Result as StoreResult};
use wangchuan::backup::pack::pack_name;
use wangchuan::control::{SnapshotRow, StoredPack};
use wangchuan::installation::Installation;
use wangchuan::keys::rekey::RekeyStep;
use wangchuan::tasks::backup::{Wanted, take_snapshot};
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::{Result, TaskError};

use super::interrupted::{Cut, in_small_packs};
use crate::support::control_database::server;
use crate::support::world::{Making, World, body, forget, increment, restore, retain, snapshot, try_snapshot};

/// What is wrong with an object of this name, if anything.
type Fault = Box<dyn Fn(&str) -> Option<RepositoryError> + Send + Sync>;

/// A bucket that does not answer for objects of some names.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
}

impl Faulty {
    pub fn of(
        installation: &Installation,
        fault: impl Fn(&str) -> Option<RepositoryError> + Send + Sync + 'static,
    ) -> Self {
        Self { inner: installation.backup().unwrap().repository.clone(), fault: Box::new(fault) }
    }

    fn ask(&self, name: &str) -> StoreResult<()> {
        (self.fault)(name).map_or(Ok(()), Err)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> StoreResult<PutOutcome> {
        self.ask(name)?;
        self.inner.put_if_absent(name, bytes).await
    }

    async fn get(&self, name: &str, limit: usize) -> StoreResult<Vec<u8>> {
        self.ask(name)?;
        self.inner.get(name, limit).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u32) -> StoreResult<Vec<u8>> {
        self.ask(name)?;
        self.inner.get_range(name, offset, length).await
    }

    async fn list(&self, prefix: &str) -> StoreResult<Vec<ListedObject>> {
        self.inner.list(prefix).await
    }

    async fn head(&self, name: &str) -> StoreResult<Option<u64>> {
        self.ask(name)?;
        self.inner.head(name).await
    }
}

pub fn denied() -> RepositoryError {
    RepositoryError::Denied { operation: "test", code: "AccessDenied".to_owned() }
}

fn unreachable() -> RepositoryError {
    RepositoryError::Unreachable { operation: "test", detail: "no answer".to_owned() }
}

pub async fn take_through(installation: &Installation, bucket: &Faulty) -> Result<SnapshotRow> {
    take_snapshot(&installation.ground().unwrap(), bucket, &installation.signer, "shop", Wanted::Full).await
}

/// A full snapshot that stored all of its packs, and failed then.
async fn left_behind(installation: &Installation) -> (SnapshotRow, Vec<StoredPack>) {
    let bucket = Faulty::of(installation, |name| name.starts_with("directories/").then(denied));
    take_through(installation, &bucket).await.unwrap_err();
    still_left(installation).await
}

async fn still_left(installation: &Installation) -> (SnapshotRow, Vec<StoredPack>) {
    let mut tx = installation.control.read().await.unwrap();
    let row = tx.interrupted_try("shop").await.unwrap().unwrap();
    let packs = tx.stored_packs(row.number).await.unwrap();
    assert!(packs.len() > 6, "{packs:?}");
    (row, packs)
}

/// The packs of a committed snapshot, by digest.
async fn packs_of(installation: &Installation, row: &SnapshotRow) -> HashSet<String> {
    let (bucket, name) = (&installation.backup().unwrap().repository, row.manifest.as_ref().unwrap());
    let bytes = bucket.get(name, MAX_MANIFEST_BYTES).await.unwrap();
    let manifest = Manifest::open(name, &bytes, &|_, _, _| true).unwrap();
    manifest.packs.iter().map(|pack| pack.sha256.to_string()).collect()
}

/// The stored packs that a snapshot did not take over.
async fn not_taken(installation: &Installation, row: &SnapshotRow, packs: &[StoredPack]) -> Vec<String> {
    let taken = packs_of(installation, row).await;
    packs.iter().map(|pack| pack.sha256.clone()).filter(|pack| !taken.contains(pack)).collect()
}

async fn opens(world: &World, installation: &Installation, row: &SnapshotRow, what: &str) {
    let report = restore(world, installation, row, "restored.db").await;
    let report = report.unwrap_or_else(|error| panic!("{what}: {}", error.with_causes()));
    assert!(report.is_whole(), "{what}: {report:?}");
    assert_eq!(world.dump_all("restored.db").await, world.dump_all("shop.db").await, "{what}");
    std::fs::remove_file(world.path("restored.db")).unwrap();
}

async fn open_step(installation: &Installation) -> Option<String> {
    installation.control.read().await.unwrap().open_rekey().await.unwrap().map(|(_, step)| step)
}

/// A world with a customer whose keys are to die, and with an interrupted full snapshot.
async fn with_a_try(making: Making) -> World {
    let world = World::make(Making { customers: 16, bucket: "year", ..making }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    forget(&installation, &world.shop.picks.leaver.clone()).await;
    increment(&installation).await;
    left_behind(&installation).await;
    installation.close().await.unwrap();
    world
}

/// What must hold of a snapshot that was taken while a change of generation was open, before and after that is settled.
async fn outlives_the_change(world: &World, installation: &Installation, row: &SnapshotRow, what: &str) {
    installation.settle_keys().await.unwrap();
    assert_eq!(open_step(installation).await, None, "{what}");
    opens(world, installation, row, what).await;
    shred_due(installation).await.unwrap();
    opens(world, installation, row, what).await;
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.chain_state(row.chain).await.unwrap().as_deref(), Some("active"), "{what}");
    let pending = tx.runs(Some("shred-pending")).await.unwrap();
    assert!(pending.iter().all(|run| run.generation.is_some()), "{what}: the customer's keys are still there");
}

/// A snapshot, tried again while a server still ends the session of what was given up.
async fn taken_at_last(installation: &Installation) -> SnapshotRow {
    for _ in 0..300 {
        match try_snapshot(installation).await {
            Ok(row) => return row,
            Err(error) if error.is_retryable() => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("no snapshot within a minute");
}

/// Goes on with a change of generation until it is staged and waits for the second place.
async fn until_staged<F: Future>(world: &World, installation: &Installation, shredding: &mut Cut<F>) {
    let is_staged = async || open_step(installation).await.as_deref() == Some(RekeyStep::CopyToSecondPlace.code());
    while !is_staged().await || world.control_is_written().await {
        assert!(shredding.go_on(1).await.is_none(), "the change was over before it was staged");
    }
}

/// A change of generation that is given up anywhere, and a snapshot that goes on before it is settled.
async fn behind_every_step(making: Making) {
    let cuts = if making.server.is_some() { 10 } else { 20 };
    let template = with_a_try(making).await;
    let whole = template.copied();
    let installation = whole.open().await;
    let mut all = Cut::new(shred_due(&installation), usize::MAX);
    (&mut all).await.unwrap().unwrap();
    let polls = all.polls;
    drop(all);
    installation.close().await.unwrap();
    let mut steps: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    let went_on = |steps: &BTreeMap<String, [usize; 2]>, step: RekeyStep| {
        steps.get(step.code()).is_some_and(|[_, went_on]| *went_on > 0)
    };
    let came_behind = |steps: &BTreeMap<String, [usize; 2]>| steps.values().any(|[anew, _]| *anew > 0);
    // How many polls a step takes depends on what else the host does: where the cuts missed one, those between them are made too.
    let stride = (polls / cuts).max(1);
    let between = (0..4).flat_map(|part| (1 + part * stride / 4..polls).step_by(stride));
    for (number, at) in between.enumerate() {
        if number >= cuts && went_on(&steps, RekeyStep::CopyToSecondPlace) && came_behind(&steps) {
            break;
        }
        let world = template.copied();
        let installation = world.open().await;
        let (left, _) = still_left(&installation).await;
        drop(Cut::new(shred_due(&installation), at).go_on(at).await);
        let step = open_step(&installation).await.unwrap_or_else(|| "none".to_owned());
        let row = taken_at_last(&installation).await;
        let goes_on = usize::from(row.chain == left.chain);
        steps.entry(step.clone()).or_default()[goes_on] += 1;
        outlives_the_change(&world, &installation, &row, &format!("poll {at} of {polls}, {step}")).await;
        installation.close().await.unwrap();
    }
    if !went_on(&steps, RekeyStep::CopyToSecondPlace) {
        // On a host where every change takes another number of polls, all of them may miss it.
        let world = template.copied();
        let installation = world.open().await;
        let (left, _) = still_left(&installation).await;
        let mut shredding = Cut::new(shred_due(&installation), 0);
        until_staged(&world, &installation, &mut shredding).await;
        drop(shredding);
        let row = taken_at_last(&installation).await;
        steps.entry(RekeyStep::CopyToSecondPlace.code().to_owned()).or_default()
            [usize::from(row.chain == left.chain)] += 1;
        outlives_the_change(&world, &installation, &row, "staged").await;
        installation.close().await.unwrap();
    }
    assert!(went_on(&steps, RekeyStep::CopyToSecondPlace), "{polls}: {steps:?}");
    assert!(came_behind(&steps), "none came behind the change: {steps:?}");
}

/// The same without an end: the change of generation goes on as well, once the snapshot is taken.
async fn beside_a_change(making: Making) {
    let world = with_a_try(making).await;
    let installation = world.open().await;
    let (left, _) = still_left(&installation).await;
    let mut shredding = Cut::new(shred_due(&installation), 0);
    until_staged(&world, &installation, &mut shredding).await;
    let mut taking = Cut::new(try_snapshot(&installation), 0);
    while installation.control.read().await.unwrap().running_snapshots().await.unwrap() == 0 {
        assert!(taking.go_on(1).await.is_none(), "the snapshot was over before it was begun");
    }
    let ended = shredding.go_on(usize::MAX).await.unwrap();
    let row = taking.go_on(usize::MAX).await.unwrap().unwrap();
    assert_eq!(row.chain, left.chain);
    assert!(matches!(&ended, Err(error) if error.is_retryable()), "{ended:?}");
    drop(taking);
    drop(shredding);
    outlives_the_change(&world, &installation, &row, "beside").await;
    installation.close().await.unwrap();
}

/// What cannot be taken over is sealed anew by the very next try.
async fn without_some_packs(making: Making) {
    let on_server = making.server.is_some();
    let world = World::make(Making { customers: 16, bucket: "year", ..making }).await;
    let installation = world.open().await;

    // The bucket is away: the try stays.
    let (left, packs) = left_behind(&installation).await;
    let away = Faulty::of(&installation, |name| name.starts_with("packs/").then(unreachable));
    let error = take_through(&installation, &away).await.unwrap_err();
    assert!(matches!(error, TaskError::Repository(RepositoryError::Unreachable { .. })), "{error}");
    assert_eq!(still_left(&installation).await, (left, packs.clone()));
    let row = try_snapshot(&installation).await.unwrap();
    assert_eq!(not_taken(&installation, &row, &packs).await, Vec::<String>::new());
    opens(&world, &installation, &row, "all packs").await;

    // One pack is: it is not waited for.
    for fault in [denied, unreachable] {
        let (_, packs) = left_behind(&installation).await;
        let lost = packs[2].sha256.clone();
        let name = pack_name(&Sha256::parse(&lost).unwrap());
        let bucket = Faulty::of(&installation, move |asked| (asked == name).then(fault));
        let row = take_through(&installation, &bucket).await.unwrap();
        assert_eq!(not_taken(&installation, &row, &packs).await, [lost]);
        opens(&world, &installation, &row, "one pack denied").await;
    }

    // What was noted of it is damaged.
    let damages =
        ["sha256 = 'x'", "bytes = bytes + 1", if on_server { "entries = '\\x07'" } else { "entries = X'07'" }];
    for damage in damages {
        let (_, packs) = left_behind(&installation).await;
        world.run_sql_in_control(&format!("UPDATE snapshot_pack SET {damage} WHERE number = 1")).await;
        let row = try_snapshot(&installation).await.unwrap();
        assert_eq!(not_taken(&installation, &row, &packs).await, [packs[1].sha256.clone()], "{damage}");
        opens(&world, &installation, &row, damage).await;
    }
    installation.close().await.unwrap();
}

/// Complaints whose time is up, in a period that is not over: they are erased, and the cells in which they lay go on.
const DUE: &str = "SELECT count(*) FROM complaints WHERE closed_at < '2023-03-01'";

/// A row that was erased and is there again as it was: the version that was sealed before is another one.
async fn a_row_that_came_back(making: Making) {
    let world = World::make(Making { customers: 16, bucket: "year", ..making }).await;
    for policy in ["completed-orders", "closed-accounts", "left-newsletter"] {
        let years = if policy == "left-newsletter" { "1 year" } else { "3 years" };
        let text = std::fs::read_to_string(world.path("wangchuan.toml")).unwrap();
        let (before, rest) = text.split_once(&format!("id = \"{policy}\"")).unwrap();
        let rest = rest.replacen(&format!("retention = \"{years}\""), "retention = \"30 years\"", 1);
        std::fs::write(world.path("wangchuan.toml"), format!("{before}id = \"{policy}\"{rest}")).unwrap();
    }
    world
        .run_sql(
            "DELETE FROM complaints WHERE closed_at < '2023-12-01'; \
             INSERT INTO complaints SELECT 900001, customer_id, '2023-02-01 08:00:00', '2023-02-03 08:00:00', 'came back' \
             FROM customers ORDER BY 2 LIMIT 1; \
             INSERT INTO complaints SELECT 900002, customer_id, '2023-09-01 08:00:00', '2023-09-03 08:00:00', 'stays' \
             FROM customers ORDER BY 2 LIMIT 1",
        )
        .await;
    assert_eq!(world.number("shop.db", DUE).await, 1);
    let installation = world.open().await;
    snapshot(&installation).await;
    let shop = world.dump_all("shop.db").await;
    let (_, packs) = left_behind(&installation).await;
    let run = retain(&installation).await;
    assert_eq!((body(&run).erased, world.number("shop.db", DUE).await), (1, 0));
    world
        .run_sql(
            "INSERT INTO complaints SELECT 900001, customer_id, '2023-02-01 08:00:00', '2023-02-03 08:00:00', 'came back' \
             FROM customers ORDER BY 2 LIMIT 1",
        )
        .await;
    assert_eq!(world.dump_all("shop.db").await, shop, "the shop is what it was");
    let row = try_snapshot(&installation).await.unwrap();
    let anew = not_taken(&installation, &row, &packs).await;
    assert!(anew.len() == 1, "of {} packs these were sealed anew: {anew:?}", packs.len());
    opens(&world, &installation, &row, "a row came back").await;
    installation.close().await.unwrap();
}

macro_rules! in_both {
    ($($name:ident, $on_server:ident: $what:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            in_small_packs(concat!("cycle::resumed::", stringify!($name)), None, $what).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $on_server() {
            let Some(server) = server(stringify!($what)) else { return };
            in_small_packs(concat!("cycle::resumed::", stringify!($on_server)), Some(&server), $what).await;
        }
    )*};
}

in_both! {
    a_chain_in_use_outlives_a_change_that_was_given_up, a_chain_on_postgresql_outlives_a_change_that_was_given_up: behind_every_step;
    a_chain_in_use_outlives_a_change_beside_it, a_chain_on_postgresql_outlives_a_change_beside_it: beside_a_change;
    packs_that_cannot_be_taken_over_are_sealed_anew, packs_on_postgresql_that_cannot_be_taken_over_are_sealed_anew: without_some_packs;
    a_row_erased_since_is_not_taken_over, a_row_erased_since_on_postgresql_is_not_taken_over: a_row_that_came_back;
}
