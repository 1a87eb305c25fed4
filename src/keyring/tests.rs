#[cfg(test)]
mod concerned;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Mutex as Guarded;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use chrono::TimeDelta;

use super::check::{Expected, compare_change};
use super::*;
use crate::clock::Clock;
use crate::control::{DyingKeys, HoldRow, testing};
use crate::keys::file_slot::FileSlot;
use crate::keys::slot::{DestroyEvidence, GoneEvidence, PresentGeneration, SlotAbilities, SlotClaim};
use crate::random::SystemRandom;

const ID: InstallationId = [9; 16];

fn key_of(byte: u8) -> Key {
    Key::dangerous_from_bytes(&[byte; 32])
}

type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A file slot in which something happens right after a root was made, or that fails to destroy once.
struct Stage {
    inner: FileSlot,
    before_create: Guarded<Option<Meanwhile>>,
    after_create: Guarded<Option<Meanwhile>>,
    refuse_destroy: Guarded<bool>,
}

async fn happens(meanwhile: &Guarded<Option<Meanwhile>>) {
    let due = meanwhile.lock().unwrap().take();
    if let Some(due) = due {
        due.await;
    }
}

#[async_trait]
impl RootSlot for Stage {
    fn claim(&self) -> SlotClaim {
        self.inner.claim()
    }
    fn abilities(&self) -> SlotAbilities {
        self.inner.abilities()
    }
    async fn create(&self, generation: i64, random: &dyn Random) -> Result<Key, SlotError> {
        happens(&self.before_create).await;
        let key = self.inner.create(generation, random).await?;
        happens(&self.after_create).await;
        Ok(key)
    }
    async fn open(&self, generation: i64) -> Result<Key, SlotError> {
        self.inner.open(generation).await
    }
    async fn list(&self) -> Result<Vec<PresentGeneration>, SlotError> {
        self.inner.list().await
    }
    async fn destroy(&self, generation: i64) -> Result<DestroyEvidence, SlotError> {
        if std::mem::take(&mut *self.refuse_destroy.lock().unwrap()) {
            return Err(SlotError::Unavailable { place: "test".to_owned(), what: "not now".to_owned() });
        }
        self.inner.destroy(generation).await
    }
    async fn verify_gone(&self, generation: i64) -> Result<GoneEvidence, SlotError> {
        self.inner.verify_gone(generation).await
    }
}

/// A clock that goes on by a second whenever it is asked.
#[derive(Default)]
struct Ticking(AtomicI64);

fn second(number: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(number)
}

impl Clock for Ticking {
    fn now(&self) -> DateTime<Utc> {
        second(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

struct World {
    folder: tempfile::TempDir,
    control: Control,
    stage: Arc<Stage>,
    keyring: Keyring,
    clock: Ticking,
    token: i64,
}

fn fence(token: i64) -> Fence<'static> {
    Fence { lease: "work", token, lasts: TimeDelta::seconds(600) }
}

async fn lease(control: &Control, holder: &str, now: DateTime<Utc>) -> i64 {
    let mut tx = control.begin().await.unwrap();
    let taken = tx.take_lease("work", holder, now, now + TimeDelta::seconds(600)).await.unwrap();
    tx.commit().await.unwrap();
    let crate::control::Lease::Taken { token } = taken else { panic!("the lease is held") };
    token
}

impl World {
    /// A tree with a surviving leaf and the plans `a`, `b` and `c`.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = testing::create(&folder.path().join("state.db"), ID).await;
        let stage = Arc::new(Stage {
            inner: FileSlot::prepare(&folder.path().join("root"), ID).unwrap(),
            before_create: Guarded::default(),
            after_create: Guarded::default(),
            refuse_destroy: Guarded::default(),
        });
        let keyring = Keyring::new(ID, stage.clone(), Arc::new(SystemRandom));
        keyring.create_tree(&control, second(0)).await.unwrap();
        let mut tx = control.begin().await.unwrap();
        keyring.work_key(&mut tx, Purpose::Suppression, "").await.unwrap();
        for plan in ["a", "b", "c"] {
            keyring.work_key(&mut tx, Purpose::Plan, plan).await.unwrap();
        }
        tx.commit().await.unwrap();
        let token = lease(&control, "a", second(0)).await;
        Self { folder, control, stage, keyring, clock: Ticking::default(), token }
    }

    async fn shred(&self, plan: &str) -> Result<Shredded> {
        shred_plan(&self.keyring, &self.control, self.token, plan, &self.clock).await
    }

    async fn recover(&self) -> Result<Option<Shredded>> {
        recover(&self.keyring, &self.control, &fence(self.token), &self.clock).await
    }

    /// The generation in force, whose tree must open completely, and the plans whose keys still open.
    async fn state(&self) -> (i64, Vec<&'static str>) {
        let mut tx = self.control.begin().await.unwrap();
        let tree = self.keyring.open_tree(&mut tx).await.unwrap();
        let survey = tree.survey();
        assert!(survey.missing.is_empty() && survey.corrupt.is_empty());
        assert!(self.keyring.find_work_key(&mut tx, Purpose::Suppression, "").await.unwrap().is_some());
        let mut open = Vec::new();
        for plan in ["a", "b", "c"] {
            if matches!(self.keyring.find_work_key(&mut tx, Purpose::Plan, plan).await, Ok(Some(_))) {
                open.push(plan);
            }
        }
        (tree.generation(), open)
    }

    async fn roots(&self) -> Vec<i64> {
        self.stage.list().await.unwrap().iter().map(|root| root.generation).collect()
    }

    fn second_process(&self) -> (PathBuf, Control) {
        (self.folder.path().join("root"), self.control.clone())
    }
}

async fn shred_plan(
    keyring: &Keyring,
    control: &Control,
    token: i64,
    plan: &str,
    clock: &dyn Clock,
) -> Result<Shredded> {
    let mut tx = control.begin().await.unwrap();
    let slot = tx.work_slot("plan", plan).await.unwrap().unwrap();
    drop(tx);
    let dying = DyingKeys { work: vec![slot], ..DyingKeys::default() };
    let order = ShredOrder { fence: fence(token), dying: &dying, preserved: &[], holds: &[] };
    shred(keyring, control, &order, clock).await
}

/// Another process takes the lease after it ran out, recovers, and shreds `plan` if one is given.
fn takeover(world: &World, plan: Option<&'static str>) -> Meanwhile {
    let (root, control) = world.second_process();
    Box::pin(async move {
        let slot = Arc::new(FileSlot::at(&root, ID).unwrap());
        let keyring = Keyring::new(ID, slot, Arc::new(SystemRandom));
        let clock = Ticking(AtomicI64::new(1000));
        let token = lease(&control, "b", second(1000)).await;
        recover(&keyring, &control, &fence(token), &clock).await.unwrap();
        if let Some(plan) = plan {
            shred_plan(&keyring, &control, token, plan, &clock).await.unwrap();
        }
    })
}

fn is_lease_lost<T>(result: &Result<T>) -> bool {
    matches!(result, Err(KeyringError::Control(ControlError::LeaseLost { .. })))
}

#[tokio::test]
async fn a_shred_ends_after_the_root_is_gone_and_forgets_the_old_crown() {
    let world = World::new().await;
    let done = world.shred("a").await.unwrap();
    assert_eq!((world.state().await, world.roots().await), ((2, vec!["b", "c"]), vec![2]));
    let mut tx = world.control.begin().await.unwrap();
    let (ended, evidence) = tx.rekey_evidence(2).await.unwrap().unwrap();
    assert_eq!(ended, crate::control::time_text(done.at));
    let found: serde_json::Value = serde_json::from_str(&evidence).unwrap();
    let gone: DateTime<Utc> = done.at;
    assert!(gone > second(0) && found[0]["gone"].is_object());
    assert_eq!(tx.crown_of(1).await.unwrap(), None);
}

#[tokio::test]
async fn a_change_whose_lease_was_taken_commits_nothing() {
    for after in [false, true] {
        let world = World::new().await;
        let place = if after { &world.stage.after_create } else { &world.stage.before_create };
        *place.lock().unwrap() = Some(takeover(&world, None));
        assert!(is_lease_lost(&world.shred("a").await));
        assert_eq!((world.state().await, world.roots().await), ((1, vec!["a", "b", "c"]), vec![1]));
        // The other process goes on as if nothing had been.
        takeover(&world, Some("b")).await;
        assert_eq!((world.state().await, world.roots().await), ((2, vec!["a", "c"]), vec![2]));
    }
}

#[tokio::test]
async fn two_changes_to_the_same_generation_leave_the_tree_of_the_one_with_the_lease() {
    for after in [false, true] {
        let world = World::new().await;
        let place = if after { &world.stage.after_create } else { &world.stage.before_create };
        *place.lock().unwrap() = Some(takeover(&world, Some("b")));
        assert!(is_lease_lost(&world.shred("a").await));
        let (generation, open) = world.state().await;
        assert_eq!((generation, open), (2, vec!["a", "c"]));
        assert!(world.roots().await.contains(&2));
    }
}

#[tokio::test]
async fn a_root_that_was_made_anew_meanwhile_stops_the_change() {
    let world = World::new().await;
    let path = world.folder.path().join("root");
    *world.stage.after_create.lock().unwrap() = Some(Box::pin(async move {
        let slot = FileSlot::at(&path, ID).unwrap();
        slot.destroy(2).await.unwrap();
        slot.create(2, &SystemRandom).await.unwrap();
    }));
    assert!(matches!(world.shred("a").await, Err(KeyringError::Overtaken(_))));
    assert_eq!((world.state().await, world.roots().await), ((1, vec!["a", "b", "c"]), vec![1]));
}

#[tokio::test]
async fn a_hold_that_comes_after_the_intent_keeps_every_key() {
    let world = World::new().await;
    let control = world.control.clone();
    *world.stage.after_create.lock().unwrap() = Some(Box::pin(async move {
        let mut tx = control.begin().await.unwrap();
        let hold = HoldRow {
            id: "case-1".to_owned(),
            scope: "store".to_owned(),
            store: Some("shop".to_owned()),
            collection: None,
            subject: None,
            reason: "test".to_owned(),
            placed_at: second(5),
            placed_by: "test".to_owned(),
            released_at: None,
        };
        tx.add_hold(&hold).await.unwrap();
        tx.commit().await.unwrap();
    }));
    assert!(matches!(world.shred("a").await, Err(KeyringError::Held(_))));
    assert_eq!((world.state().await, world.roots().await), ((1, vec!["a", "b", "c"]), vec![1]));
    assert_eq!(world.control.read().await.unwrap().open_rekey().await.unwrap(), None);
    assert!(matches!(world.shred("a").await, Err(KeyringError::Held(_))));
}

#[tokio::test]
async fn an_unfinished_change_blocks_the_next_until_it_is_settled() {
    let world = World::new().await;
    *world.stage.refuse_destroy.lock().unwrap() = true;
    assert!(matches!(world.shred("a").await, Err(KeyringError::Slot(_))));
    assert_eq!(world.roots().await, vec![1, 2]);
    assert!(matches!(world.shred("b").await, Err(KeyringError::Unsettled(2))));
    assert_eq!(world.recover().await.unwrap().unwrap().generation, 2);
    assert_eq!((world.state().await, world.roots().await), ((2, vec!["b", "c"]), vec![2]));
    assert!(world.recover().await.unwrap().is_none());
    world.shred("b").await.unwrap();
    assert_eq!(world.state().await, (3, vec!["c"]));
}

#[tokio::test]
async fn recovery_needs_the_lease_and_keeps_the_old_root_when_survivors_are_damaged() {
    let world = World::new().await;
    *world.stage.refuse_destroy.lock().unwrap() = true;
    assert!(world.shred("a").await.is_err());
    let lost = recover(&world.keyring, &world.control, &fence(world.token + 1), &world.clock).await;
    assert!(is_lease_lost(&lost));
    let mut tx = world.control.begin().await.unwrap();
    let nodes = tx.tree_nodes().await.unwrap();
    let survivor = nodes
        .iter()
        .filter(|((subtree, level, _, version), _)| (*subtree, *version) == (Subtree::Work.number(), 2) && *level > 0);
    let ids: Vec<_> = survivor.map(|(id, _)| *id).collect();
    assert!(!ids.is_empty());
    tx.drop_tree_nodes(&ids).await.unwrap();
    tx.commit().await.unwrap();
    assert!(world.recover().await.is_err());
    assert_eq!(world.roots().await, vec![1, 2]);
    // Put back, it goes on.
    let mut tx = world.control.begin().await.unwrap();
    tx.put_tree_nodes(&nodes).await.unwrap();
    tx.commit().await.unwrap();
    world.recover().await.unwrap().unwrap();
    assert_eq!(world.roots().await, vec![2]);
}

#[tokio::test]
async fn a_first_root_is_never_made_again_and_a_stray_one_gets_its_own_evidence() {
    let world = World::new().await;
    let root = world.folder.path().join("root");
    let files = |folder: &PathBuf| -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let saved = world.folder.path().join("copy");
    std::fs::create_dir(&saved).unwrap();
    for file in files(&root) {
        std::fs::copy(&file, saved.join(file.file_name().unwrap())).unwrap();
    }
    world.shred("a").await.unwrap();
    world.keyring.create_tree(&world.control, second(9)).await.unwrap();
    assert_eq!(world.roots().await, vec![2]);
    let before = world.control.read().await.unwrap().rekey_evidence(2).await.unwrap();
    for file in files(&saved) {
        std::fs::copy(&file, root.join(file.file_name().unwrap())).unwrap();
    }
    assert_eq!(world.roots().await, vec![1, 2]);
    assert!(world.recover().await.unwrap().is_none());
    assert_eq!(world.roots().await, vec![2]);
    let mut tx = world.control.read().await.unwrap();
    assert_eq!(tx.rekey_evidence(2).await.unwrap(), before);
    drop(tx);
    assert_eq!(testing::count(&world.control, "stray_root WHERE generation = 1").await, 1);
}

#[test]
fn a_pin_with_another_secret_than_its_cell_fails_the_check() {
    let random = SystemRandom;
    let (root, next) = (key_of(1), key_of(2));
    let bucket = Slot::new(Subtree::Buckets, 7).unwrap();
    let pin = Slot::new(Subtree::Pins, 8).unwrap();
    let first = KeyTree::create(ID, &root, &random).unwrap();
    let mut old = KeyTree::open(ID, 1, &root, &first.crown, first.node_set()).unwrap();
    let writes = old.insert(&[(bucket, key_of(3))], &random).unwrap();
    old.supply(writes.into_iter().map(|write| (write.id, write.sealed)));
    let cell = CellRow { id: 1, subject: None, bucket: 7, pin: None, fresh: None };
    let secret = cell_secret_in(&old, &cell).unwrap().unwrap().to_pin();
    let expected = Expected { victims: vec![bucket], survivors: Vec::new(), pins: vec![(8, cell)] };
    for (stored, good) in [(secret, true), (key_of(4), false)] {
        let change = old.rekey(&[bucket], &[(pin, stored)], &next, &random).unwrap();
        let new = KeyTree::open(ID, 2, &next, &change.crown, change.node_set()).unwrap();
        // Subtrees that did not change keep their nodes of the generation before.
        let mut new = new;
        new.supply(first.node_set());
        assert_eq!(compare_change(&old, &new, &expected).is_ok(), good);
    }
}
