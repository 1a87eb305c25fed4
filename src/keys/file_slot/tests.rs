//! Tests of the file slot, on real files.

use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::keys::slot::{ClaimSentence, Residual, SlotClass};
use crate::keys::testing::{DryRandom, SeededRandom, Vector, key_of};
use crate::keys::tree::{KeyTree, Slot, Subtree};

const INSTALLATION: InstallationId = [7; 16];

struct Place {
    folder: tempfile::TempDir,
    slot: FileSlot,
    random: SeededRandom,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let slot = FileSlot::prepare(&folder.path().join("root"), INSTALLATION).unwrap();
        Self { folder, slot, random: SeededRandom::new(1) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    async fn generations(&self) -> Vec<Generation> {
        self.slot.list().await.unwrap().iter().map(|present| present.generation).collect()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn a_root_is_durable_private_and_made_once() {
    let place = Place::new();
    let made = place.slot.create(1, &place.random).await.unwrap();
    let again = place.slot.create(1, &place.random).await.unwrap();
    assert!(made.is_same(&again), "the same call after a crash gives the same root");
    assert!(made.is_same(&place.slot.open(1).await.unwrap()));
    assert!(!made.is_same(&place.slot.create(2, &place.random).await.unwrap()));
    assert_eq!(place.generations().await, [1, 2]);
    assert_eq!(mode_of(&place.path("root-1.key")), 0o600);
    assert_eq!(mode_of(&place.path("")), 0o700);
    assert!(!place.path("root-1.new").exists());
    let reopened = FileSlot::at(&place.path(""), INSTALLATION).unwrap();
    assert!(made.is_same(&reopened.open(1).await.unwrap()));
}

#[tokio::test]
async fn destruction_is_read_back_and_can_be_repeated() {
    let place = Place::new();
    place.slot.create(1, &place.random).await.unwrap();
    place.slot.create(2, &place.random).await.unwrap();
    let early = place.slot.verify_gone(1).await.unwrap_err();
    assert!(matches!(early, SlotError::StillThere { generation: 1, .. }));
    let evidence = place.slot.destroy(1).await.unwrap();
    assert!(evidence.was_present && evidence.irrevocable_at.is_none());
    assert_eq!(evidence.claim.class, SlotClass::D);
    assert_eq!(evidence.steps.len(), 4);
    assert_eq!(place.slot.verify_gone(1).await.unwrap().checks, [GoneCheck::NameAbsent, GoneCheck::ContentAbsent]);
    let missing = place.slot.open(1).await.map(|_| ()).unwrap_err();
    assert!(matches!(missing, SlotError::Missing { generation: 1, .. }) && !missing.is_retryable());
    let again = place.slot.destroy(1).await.unwrap();
    assert!(!again.was_present);
    assert_eq!(again.steps, [DestroyStep::DirectoryFlushed]);
    assert_eq!(place.generations().await, [2]);
}

#[tokio::test]
async fn destruction_overwrites_the_bytes_that_another_name_still_shows() {
    let place = Place::new();
    place.slot.create(1, &place.random).await.unwrap();
    let other_name = place.folder.path().join("other");
    fs::hard_link(place.path("root-1.key"), &other_name).unwrap();
    place.slot.destroy(1).await.unwrap();
    assert_eq!(fs::read(other_name).unwrap(), vec![0; format::FILE_BYTES]);
}

/// The limit of class D, shown rather than hidden: whoever copied the directory before the shred opens what was shredded.
#[tokio::test]
async fn a_copy_made_before_the_destruction_opens_the_old_generation_again() {
    let place = Place::new();
    let random = &place.random;
    let root = place.slot.create(1, random).await.unwrap();
    let victim = Slot::new(Subtree::Subjects, 5_000).unwrap();
    let first = KeyTree::create(INSTALLATION, &root, random).unwrap();
    let mut tree = KeyTree::open(INSTALLATION, 1, &root, &first.crown, first.node_set()).unwrap();
    let writes = tree.insert(&[(victim, key_of(9))], random).unwrap();
    tree.supply(writes.iter().map(|write| (write.id, write.sealed.clone())));
    let mut old_nodes = first.node_set();
    old_nodes.extend(writes.into_iter().map(|write| (write.id, write.sealed)));

    let copy = place.folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    set_mode(&copy, 0o700);
    fs::copy(place.path("root-1.key"), copy.join("root-1.key")).unwrap();

    let new_root = place.slot.create(2, random).await.unwrap();
    tree.rekey(&[victim], &[], &new_root, random).unwrap();
    place.slot.destroy(1).await.unwrap();
    place.slot.verify_gone(1).await.unwrap();

    let thief = FileSlot::at(&copy, INSTALLATION).unwrap().open(1).await.unwrap();
    let old_tree = KeyTree::open(INSTALLATION, 1, &thief, &first.crown, old_nodes).unwrap();
    assert!(old_tree.key(victim).unwrap().unwrap().is_same(&key_of(9)));
    let claim = place.slot.claim();
    assert_eq!(claim.sentence, ClaimSentence::LogicalRemovalOnly);
    assert!(claim.residuals.contains(&Residual::HostCopies));
}

#[tokio::test]
async fn what_others_can_read_is_refused_with_advice_and_still_destroyed() {
    let place = Place::new();
    place.slot.create(1, &place.random).await.unwrap();
    set_mode(&place.path("root-1.key"), 0o640);
    let refused = place.slot.open(1).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, SlotError::ReadableByOthers { mode: 0o640, .. }) && !refused.is_retryable());
    let file = place.path("root-1.key");
    let advice = format!("{0} can be read by others (mode 640); run: chmod 600 {0}", file.display());
    assert_eq!(refused.to_string(), advice);
    set_mode(&place.path(""), 0o755);
    assert!(matches!(
        FileSlot::at(&place.path(""), INSTALLATION),
        Err(SlotError::ReadableByOthers { wanted: 0o700, .. })
    ));
    assert!(matches!(place.slot.list().await, Err(SlotError::ReadableByOthers { .. })));
    assert!(place.slot.destroy(1).await.unwrap().was_present);
    place.slot.verify_gone(1).await.unwrap();
}

#[tokio::test]
async fn damage_is_told_from_absence() {
    let place = Place::new();
    place.slot.create(1, &place.random).await.unwrap();
    let file = place.path("root-1.key");
    let whole = fs::read(&file).unwrap();
    let damaged = |fault: SlotError| matches!(fault, SlotError::Damaged { .. }) && !fault.is_retryable();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&file, &changed).unwrap();
        assert!(damaged(place.slot.open(1).await.map(|_| ()).unwrap_err()), "byte {at}");
    }
    for length in [0, 50, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(damaged(place.slot.open(1).await.map(|_| ()).unwrap_err()), "{length} bytes");
    }
    assert!(place.slot.create(1, &place.random).await.is_err(), "a damaged root is never replaced silently");
    assert_eq!(place.generations().await, [1], "and never hidden");
    fs::write(&file, &whole).unwrap();
    fs::rename(&file, place.path("root-2.key")).unwrap();
    assert!(damaged(place.slot.open(2).await.map(|_| ()).unwrap_err()), "another generation's root");
    let elsewhere = FileSlot::at(&place.path(""), [8; 16]).unwrap();
    assert!(damaged(elsewhere.open(2).await.map(|_| ()).unwrap_err()), "another installation's root");
    assert!(place.slot.destroy(2).await.unwrap().was_present, "damaged roots can be destroyed");
}

#[tokio::test]
async fn leftovers_of_a_crash_are_replaced_and_destroyed() {
    let place = Place::new();
    let draft = place.path("root-3.new");
    fs::write(&draft, b"half a file").unwrap();
    assert!(place.generations().await.is_empty(), "a draft is not a generation");
    assert!(matches!(place.slot.verify_gone(3).await, Err(SlotError::StillThere { .. })));
    place.slot.create(3, &place.random).await.unwrap();
    assert!(!draft.exists());
    fs::write(&draft, b"half a file").unwrap();
    place.slot.destroy(3).await.unwrap();
    assert!(!draft.exists());
    place.slot.verify_gone(3).await.unwrap();
}

#[tokio::test]
async fn a_copy_under_another_name_is_found() {
    let place = Place::new();
    place.slot.create(1, &place.random).await.unwrap();
    fs::copy(place.path("root-1.key"), place.path("root-1.key.bak")).unwrap();
    place.slot.destroy(1).await.unwrap();
    let found = place.slot.verify_gone(1).await.unwrap_err();
    assert!(matches!(found, SlotError::StillThere { generation: 1, what } if what.contains("another name")));
}

#[tokio::test]
async fn names_that_are_not_generations_are_not_listed() {
    let place = Place::new();
    for name in ["root-0.key", "root--1.key", "root-01.key", "root-+1.key", "root-x.key", "root-1.key~", "1.key"] {
        fs::write(place.path(name), b"").unwrap();
    }
    assert!(place.generations().await.is_empty());
}

#[tokio::test]
async fn a_link_is_neither_read_nor_overwritten() {
    let place = Place::new();
    let victim = place.folder.path().join("someone else's file");
    fs::write(&victim, b"precious").unwrap();
    symlink(&victim, place.path("root-1.key")).unwrap();
    assert!(matches!(place.slot.open(1).await, Err(SlotError::Damaged { .. })));
    assert!(matches!(place.slot.destroy(1).await, Err(SlotError::Damaged { .. })));
    assert_eq!(fs::read(victim).unwrap(), b"precious");
}

#[tokio::test]
async fn faults_say_whether_to_try_again() {
    let place = Place::new();
    assert!(place.slot.create(1, &DryRandom).await.map(|_| ()).unwrap_err().is_retryable());
    assert!(place.generations().await.is_empty());
    let io = |kind: io::ErrorKind| SlotError::Io { what: "write", path: PathBuf::new(), source: kind.into() };
    assert!(io(io::ErrorKind::StorageFull).is_retryable());
    assert!(io(io::ErrorKind::Interrupted).is_retryable());
    assert!(!io(io::ErrorKind::PermissionDenied).is_retryable());
    assert!(!io(io::ErrorKind::ReadOnlyFilesystem).is_retryable());
    let gone = FileSlot::at(&place.folder.path().join("nowhere"), INSTALLATION).unwrap_err();
    assert!(matches!(gone, SlotError::Io { .. }) && !gone.is_retryable());
    let file = place.folder.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(FileSlot::prepare(&file, INSTALLATION), Err(SlotError::Damaged { .. })));
}

#[tokio::test]
async fn many_creators_agree_on_one_root() {
    let place = Place::new();
    let tasks: Vec<_> = (0..8)
        .map(|seed| {
            let slot = place.slot.clone();
            tokio::spawn(async move { slot.create(1, &SeededRandom::new(seed)).await.unwrap() })
        })
        .collect();
    let kept = {
        let mut keys = Vec::new();
        for task in tasks {
            keys.push(task.await.unwrap());
        }
        keys
    };
    let stored = place.slot.open(1).await.unwrap();
    assert!(kept.iter().all(|key| key.is_same(&stored)));
}

#[test]
fn files_match_the_golden_vectors() {
    for vector in Vector::all(include_str!("../../../tests/vectors/keys/root_file.json")) {
        let (generation, installation) = (vector.number("generation"), vector.array("installation"));
        let bytes = format::encode(generation, &installation, &vector.key("key"));
        assert_eq!(*bytes, vector.bytes("file"));
        assert!(format::decode(&bytes, generation, &installation).is_ok_and(|key| key.is_same(&vector.key("key"))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..120), kept in 0_usize..97) {
        prop_assert!(format::decode(&tail, 1, &INSTALLATION).is_err());
        let mut bytes = format::encode(1, &INSTALLATION, &key_of(1)).to_vec();
        bytes.truncate(kept);
        bytes.extend_from_slice(&tail);
        let whole = bytes == *format::encode(1, &INSTALLATION, &key_of(1));
        prop_assert_eq!(format::decode(&bytes, 1, &INSTALLATION).is_ok(), whole);
    }
}
