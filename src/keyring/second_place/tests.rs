use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::backup::memory::{Fault, FaultyStore, MemoryStore};
use crate::backup::state_record::RECORDS;
use crate::clock::FixedClock;
use crate::control::testing;
use crate::keyring::Purpose;
use crate::keys::file_slot::FileSlot;
use crate::random::SystemRandom;

const ID: InstallationId = [9; 16];

/// A place whose next put of a record fails as told.
struct Stage {
    folder: tempfile::TempDir,
    store: Arc<FaultyStore<MemoryStore>>,
    fault: Arc<AtomicU64>,
}

const LOST: u64 = 1;
const ANSWER_LOST: u64 = 2;

fn clock() -> FixedClock {
    FixedClock(chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000))
}

impl Stage {
    fn new() -> Self {
        let fault = Arc::new(AtomicU64::new(0));
        let asked = fault.clone();
        let plan = move |_| match asked.swap(0, Ordering::SeqCst) {
            LOST => Some(Fault::Lost),
            ANSWER_LOST => Some(Fault::AnswerLost),
            _ => None,
        };
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), plan));
        Self { folder: tempfile::tempdir().unwrap(), store, fault }
    }

    async fn site(&self, name: &str) -> Site {
        let control = testing::create(&self.folder.path().join(name), ID).await;
        self.site_of(control).await
    }

    async fn site_of(&self, control: Control) -> Site {
        let slot = Arc::new(FileSlot::prepare(&self.folder.path().join("root"), ID).unwrap());
        let mut keyring = Keyring::new(ID, slot, Arc::new(SystemRandom));
        keyring.create_tree(&control, clock().0).await.unwrap();
        keyring.set_second_place(Second::Open(Box::new(SecondPlace::new(self.store.clone(), Vec::new()))));
        Site { control, keyring }
    }

    async fn records(&self) -> Vec<RecordName> {
        let listed = self.store.inner().list(RECORDS).await.unwrap();
        listed.iter().map(|object| RecordName::parse(&object.name).unwrap()).collect()
    }
}

struct Site {
    control: Control,
    keyring: Keyring,
}

impl Site {
    async fn seal(&self) -> Result<Sealing, KeyringError> {
        self.keyring.seal_state(&self.control, &clock()).await
    }

    async fn compare(&self) -> Result<Comparison, KeyringError> {
        self.keyring.compare_state(&self.control).await
    }

    /// Adds a key, so that there is something new.
    async fn change(&self, what: &str) {
        let mut tx = self.control.begin().await.unwrap();
        self.keyring.work_key(&mut tx, Purpose::Plan, what).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn records_are_chained_and_only_changes_make_new_ones() {
    let stage = Stage::new();
    let site = stage.site("a.db").await;
    assert_eq!(site.compare().await.unwrap(), Comparison::Empty);
    for number in 1..=3 {
        site.change(&number.to_string()).await;
        let Sealing::Stored { name, .. } = site.seal().await.unwrap() else { panic!("nothing was stored") };
        assert_eq!((name.number, name.generation), (number, 1));
        assert_eq!(site.seal().await.unwrap(), Sealing::Unchanged(name));
        assert_eq!(site.compare().await.unwrap(), Comparison::Same(name));
    }
    let names = stage.records().await;
    let root = site.keyring.slot().open(1).await.unwrap();
    let mut previous = None;
    for name in &names {
        let record = fetch_record(stage.store.as_ref(), name, ID, &root).await.unwrap();
        assert_eq!(record.previous, previous);
        previous = Some(name.sha256);
        let (crown, nodes) = fetch_tree(stage.store.as_ref(), &record, ID).await.unwrap();
        KeyTree::open(ID, 1, &root, &crown, nodes).unwrap();
    }
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_is_adopted_and_one_that_never_came_is_given_up() {
    let stage = Stage::new();
    let site = stage.site("a.db").await;
    site.seal().await.unwrap();
    let outcome = async |fault| {
        // So that the next call on the store is the put of a record.
        site.seal().await.unwrap();
        site.change(&format!("{fault} {:?}", stage.records().await.len())).await;
        stage.fault.store(fault, Ordering::SeqCst);
        assert!(site.seal().await.unwrap_err().is_retryable());
        memory(&site.control).await.unwrap()
    };
    let adopted = outcome(ANSWER_LOST).await.intent.unwrap();
    assert_eq!(site.compare().await.unwrap(), Comparison::RolledForward(adopted));
    assert_eq!(memory(&site.control).await.unwrap().intent, None);

    let lost = outcome(LOST).await.intent.unwrap();
    assert!(matches!(site.compare().await.unwrap(), Comparison::Same(head) if head == adopted));
    let Sealing::Stored { name, .. } = site.seal().await.unwrap() else { panic!("nothing was stored") };
    assert_eq!((lost.number, name.number), (3, 3));
    // It arrives late after all: it was given up, so it means nothing.
    stage.store.inner().put_if_absent(&lost.text(), b"late".to_vec()).await.unwrap();
    assert_eq!(site.compare().await.unwrap(), Comparison::Same(name));
    site.change("more").await;
    site.seal().await.unwrap();

    // Without a start in between, too.
    outcome(ANSWER_LOST).await;
    let Sealing::Unchanged(name) = site.seal().await.unwrap() else { panic!("stored twice") };
    assert_eq!(name.number, 5);
}

#[tokio::test]
async fn an_old_copy_and_a_second_host_are_noticed() {
    let stage = Stage::new();
    let site = stage.site("a.db").await;
    site.seal().await.unwrap();
    let old = stage.site_of(testing::restored(&site.control, &stage.folder.path().join("old.db")).await).await;
    assert!(matches!(old.compare().await.unwrap(), Comparison::Same(_)));
    let is_old = |error: KeyringError| matches!(error, KeyringError::SecondPlace(error) if error.is_old_copy());

    site.change("one").await;
    site.seal().await.unwrap();
    assert!(is_old(old.compare().await.unwrap_err()));
    // It does not get away with going on without looking either.
    old.change("other").await;
    assert!(is_old(old.seal().await.unwrap_err()));
    // The right one notices the other's record.
    assert!(is_old(site.compare().await.unwrap_err()));

    // A database that knows of no record at all.
    let fresh = stage.site("fresh.db").await;
    assert!(is_old(fresh.compare().await.unwrap_err()));
}

#[tokio::test]
async fn a_lost_record_is_replaced_and_an_unreachable_place_is_not_behind() {
    let stage = Stage::new();
    let site = stage.site("a.db").await;
    site.seal().await.unwrap();
    let head = stage.records().await[0];
    stage.fault.store(LOST, Ordering::SeqCst);
    assert!(site.compare().await.unwrap_err().is_retryable());
    stage.store.inner().tamper(&head.text(), |_| None);
    assert_eq!(site.compare().await.unwrap(), Comparison::Behind(head));
    let again = stage.site_of(site.control.clone()).await;
    assert!(matches!(again.seal().await.unwrap(), Sealing::Stored { name, .. } if name.number == 2));
    let closed = Keyring::new(ID, site.keyring.slot().clone(), Arc::new(SystemRandom));
    assert_eq!(closed.seal_state(&site.control, &clock()).await.unwrap(), Sealing::NotConfigured);
}

#[tokio::test]
async fn what_no_newer_record_needs_is_named_and_damage_to_the_newest_is_found() {
    let stage = Stage::new();
    let site = stage.site("a.db").await;
    let check = async || site.keyring.check_state(&site.control).await.unwrap().unwrap();
    assert_eq!(check().await, StateCheck::default());
    // Enough keys that pieces of the image are parts of their own.
    let fill = async |from: u32| {
        let mut tx = site.control.begin().await.unwrap();
        for number in from..from + 40 {
            tx.set_meta(&format!("filler-{number}"), &hex::encode([number as u8; 2000])).await.unwrap();
        }
        tx.commit().await.unwrap();
        site.seal().await.unwrap();
    };
    fill(0).await;
    let first = check().await;
    assert_eq!((first.record, &first.unneeded[..], &first.problems[..]), (Some(1), &[][..], &[][..]));
    assert!(first.objects_read > 1, "{first:?}");
    fill(20).await;
    let second = check().await;
    assert_eq!(second.record, Some(2));
    let named: HashSet<String> = second.unneeded.iter().map(|object| object.name.clone()).collect();
    let records = stage.records().await;
    assert!(named.contains(&records[0].text()) && !named.contains(&records[1].text()), "{named:?}");
    assert!(second.unneeded_bytes() > 0 && named.iter().any(|name| name.starts_with("state-parts/")), "{named:?}");
    // Without all of that, the newest state is whole: it opens, and so does the next one.
    for name in &named {
        stage.store.inner().tamper(name, |_| None);
    }
    let cleared = check().await;
    assert_eq!((cleared.problems.len(), cleared.unneeded.len(), cleared.objects_read), (0, 0, second.objects_read));
    let root = site.keyring.slot().open(1).await.unwrap();
    let record = fetch_record(stage.store.as_ref(), &records[1], ID, &root).await.unwrap();
    let mut pieces = PieceReader::new(stage.store.as_ref(), &record, ID);
    while pieces.next().await.unwrap().is_some() {}
    fill(60).await;
    assert_eq!(check().await.record, Some(3));
    // A needed part that is gone, or changed, is a problem, and so is a record.
    let parts = stage.store.inner().list("state-parts/").await.unwrap();
    let unneeded: Vec<String> = check().await.unneeded.into_iter().map(|object| object.name).collect();
    let needed = parts.iter().find(|part| !unneeded.contains(&part.name)).unwrap().name.clone();
    stage.store.inner().tamper(&needed, |mut bytes| {
        *bytes.last_mut().unwrap() ^= 1;
        Some(bytes)
    });
    assert_eq!(check().await.problems.iter().map(|(object, _)| object.clone()).collect::<Vec<_>>(), [needed]);
    let head = stage.records().await.pop().unwrap();
    stage.store.inner().tamper(&head.text(), |_| None);
    assert_eq!(check().await.problems[0].0, head.text());
}
