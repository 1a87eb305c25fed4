//! Tests of the log as a whole, against a naive tree and a real SQLite file.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::checkpoint::{CheckpointError, CheckpointKey, CheckpointSigner};
use super::key_file::{self, KeyFileError};
use super::operations::{OperationLog, OperationLogError, salted};
use super::proofs::ProofReader;
use super::record::{Activity, Actor, Change, Outcome, Record, Resource, check_content};
use super::sequencer::{CheckpointAnchor, FileAnchor, Placement, Sequencer, SequencerError};
use super::store::{LeafStore, LeafStoreError, NewLeaf};
use super::tree::*;
use super::verify::{VerifyLogError, verify_log};
use crate::control::log_store::{SqlLogStore, run_raw};
use crate::random::{Random, RandomUnavailable, SystemRandom};

/// The eight leaves of the reference tests of certificate-transparency.
const REFERENCE_LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const REFERENCE_ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hash(text: &str) -> Hash {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// RFC 6962 §2.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(b""),
        [one] => *one,
        many => {
            let k = 1 << (many.len() - 1).ilog2();
            node_hash(&naive_root(&many[..k]), &naive_root(&many[k..]))
        }
    }
}

fn reference() -> Vec<Hash> {
    REFERENCE_LEAVES.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect()
}

fn answer(leaves: &[Hash], ranges: &[Range]) -> Vec<Hash> {
    ranges.iter().map(|range| naive_root(&leaves[range.start as usize..range.end as usize])).collect()
}

fn inclusion(leaves: &[Hash], index: u64) -> Vec<Hash> {
    answer(leaves, &inclusion_ranges(index, leaves.len() as u64).unwrap())
}

fn consistency(leaves: &[Hash], old: u64) -> Vec<Hash> {
    answer(leaves, &consistency_ranges(old, leaves.len() as u64).unwrap())
}

#[test]
fn known_roots() {
    assert_eq!(
        hex::encode(Frontier::default().root()),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    let mut frontier = Frontier::default();
    for (leaf, root) in reference().into_iter().zip(REFERENCE_ROOTS) {
        frontier.append(leaf, |_, _| ());
        assert_eq!(hex::encode(frontier.root()), root);
    }
}

#[test]
fn known_proofs() {
    let leaves = reference();
    let known = |proof: &[&str]| proof.iter().map(|text| hash(text)).collect::<Vec<_>>();
    let a = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
    let b = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
    let first = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    assert_eq!(inclusion(&leaves, 0), known(&[first, a, b]));
    let sixth = [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        REFERENCE_ROOTS[3],
    ];
    assert_eq!(inclusion(&leaves, 5), known(&sixth));
    assert_eq!(inclusion(&leaves[..3], 2), known(&[REFERENCE_ROOTS[1]]));
    assert_eq!(inclusion(&leaves[..5], 1), known(&[REFERENCE_ROOTS[0], a, sixth[0]]));
    assert_eq!(consistency(&leaves, 1), known(&[first, a, b]));
    let six_to_eight =
        ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a", sixth[1], REFERENCE_ROOTS[3]];
    assert_eq!(consistency(&leaves, 6), known(&six_to_eight));
    assert_eq!(consistency(&leaves[..5], 2), known(&[a, sixth[0]]));
    assert_eq!(inclusion_ranges(8, 8), None);
    assert_eq!(consistency_ranges(9, 8), None);
}

fn leaf_set(count: usize) -> Vec<Hash> {
    (0..count as u64).map(|number| leaf_hash(&number.to_be_bytes())).collect()
}

/// Every proof of every tree of up to 40 leaves is accepted, and every proof is refused for any other place or size.
#[test]
fn all_small_trees() {
    let all = leaf_set(40);
    let mut frontier = Frontier::default();
    let mut roots = vec![frontier.root()];
    for leaf in &all {
        frontier.append(*leaf, |_, _| ());
        roots.push(frontier.root());
    }
    for size in 0..=40u64 {
        let leaves = &all[..size as usize];
        assert_eq!(naive_root(leaves), roots[size as usize]);
        for index in 0..size {
            let proof = inclusion(leaves, index);
            for other in 0..size + 2 {
                let good = verify_inclusion(other, size, &all[index as usize], &proof, &roots[size as usize]);
                assert_eq!(good, other == index);
            }
        }
        for old in 0..=size {
            let proof = consistency(leaves, old);
            for other in 0..=size {
                let good = verify_consistency(other, size, &roots[old as usize], &roots[size as usize], &proof);
                assert_eq!(good, other == old, "{other} as {old} of {size}");
            }
        }
    }
}

proptest! {
    #[test]
    fn proofs_hold_and_tampering_shows(
        size in 1usize..700, at in any::<prop::sample::Index>(),
        byte in 0usize..32, bit in 0u8..8, which in any::<prop::sample::Index>()
    ) {
        let leaves = leaf_set(size);
        let root = naive_root(&leaves);
        let index = at.index(size) as u64;
        let mut proof = inclusion(&leaves, index);
        prop_assert!(verify_inclusion(index, size as u64, &leaves[index as usize], &proof, &root));
        let mut longer = proof.clone();
        longer.push(root);
        prop_assert!(!verify_inclusion(index, size as u64, &leaves[index as usize], &longer, &root));
        if !proof.is_empty() {
            let shorter = &proof[..proof.len() - 1];
            prop_assert!(!verify_inclusion(index, size as u64, &leaves[index as usize], shorter, &root));
            let which = which.index(proof.len());
            proof[which][byte] ^= 1 << bit;
            prop_assert!(!verify_inclusion(index, size as u64, &leaves[index as usize], &proof, &root));
        }
        let old = index + 1;
        let old_root = naive_root(&leaves[..old as usize]);
        let mut proof = consistency(&leaves, old);
        prop_assert!(verify_consistency(old, size as u64, &old_root, &root, &proof));
        if !proof.is_empty() {
            let which = which.index(proof.len());
            proof[which][byte] ^= 1 << bit;
            prop_assert!(!verify_consistency(old, size as u64, &old_root, &root, &proof));
        }
    }

    #[test]
    fn opening_a_note_never_panics(text in "(a\n|[0-9]{1,3}\n|\n|\u{2014} a [A-Za-z0-9+/]{0,12}={0,2}\n|.){0,12}") {
        let key = CheckpointKey::new("a", [7; 32]).unwrap();
        prop_assert!(key.open(&text).is_err());
        let _ = CheckpointKey::parse(&text);
    }
}

fn signer(origin: &str) -> CheckpointSigner {
    let pkcs8 = CheckpointSigner::make_pkcs8(&Counting).unwrap();
    CheckpointSigner::from_pkcs8(origin, &pkcs8).unwrap()
}

/// Fixed "randomness", for golden values.
struct Counting;

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
        for (number, byte) in (1u8..).zip(out) {
            *byte = number;
        }
        Ok(())
    }
}

#[test]
fn checkpoint_matches_its_golden_vector() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/proof");
    let signer = signer("wangchuan.example/audit");
    let signed = signer.sign(8, hash(REFERENCE_ROOTS[7]));
    assert_eq!(signed.note, std::fs::read_to_string(folder.join("checkpoint.txt")).unwrap());
    let vkey = std::fs::read_to_string(folder.join("checkpoint.vkey")).unwrap();
    assert_eq!(signer.key().verifier_key(), vkey.trim_end());
    let key = CheckpointKey::parse(&vkey).unwrap();
    assert_eq!(key.open(&signed.note).unwrap(), signed);
}

#[test]
fn altered_checkpoints_are_refused() {
    let signer = signer("example.com/log");
    let key = signer.key();
    let note = signer.sign(70_000, sha256(b"root")).note;
    let refused = |note: &str| key.open(note).unwrap_err();
    assert_eq!(refused(&note.replace("70000", "70001")), CheckpointError::WrongSignature);
    assert_eq!(refused(&note.replace("example.com/log\n", "example.com/gol\n")), CheckpointError::OtherOrigin);
    assert!(matches!(refused(&note.replace("70000", "070000")), CheckpointError::Malformed(_)));
    assert!(matches!(refused(note.trim_end()), CheckpointError::Malformed(_)));
    assert!(matches!(refused(&note.replace("\n\n", "\n")), CheckpointError::Malformed(_)));
    let other = CheckpointSigner::from_pkcs8("example.com/log", &CheckpointSigner::make_pkcs8(&SystemRandom).unwrap());
    let foreign = other.unwrap().sign(70_000, sha256(b"root")).note;
    assert_eq!(refused(&foreign), CheckpointError::NotSigned);
    // A witness's line is allowed, and does not replace ours.
    let witness = foreign.lines().last().unwrap();
    let cosigned = format!("{note}{witness}\n");
    assert_eq!(key.open(&cosigned).unwrap().checkpoint.size, 70_000);
    for origin in ["", "with space", "with+plus"] {
        assert_eq!(CheckpointKey::new(origin, [0; 32]).unwrap_err(), CheckpointError::BadOrigin);
    }
    let vkey = key.verifier_key();
    assert_eq!(CheckpointKey::parse(&vkey).unwrap(), *key);
    assert_eq!(CheckpointKey::parse(&vkey.replace("log", "gol")).unwrap_err(), CheckpointError::BadVerifierKey);
}

#[test]
fn malformed_notes_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/proof");
    let key = CheckpointKey::parse(&std::fs::read_to_string(folder.join("checkpoint.vkey")).unwrap()).unwrap();
    let good = std::fs::read_to_string(folder.join("checkpoint.txt")).unwrap();
    let cases = std::fs::read_to_string(folder.join("malformed-checkpoints.json")).unwrap();
    let cases: Vec<(String, String)> = serde_json::from_str(&cases).unwrap();
    assert!(key.open(&good).is_ok() && cases.len() > 10);
    for (name, note) in cases {
        assert_ne!(note, good);
        assert!(key.open(&note).is_err(), "{name}");
    }
}

#[test]
fn key_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let pkcs8 = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
    key_file::create(&path, &pkcs8).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(*key_file::read(&path).unwrap(), *pkcs8);
    assert!(matches!(key_file::create(&path, &pkcs8), Err(KeyFileError::Exists(_))));
    for mode in [0o640, 0o604, 0o660, 0o644] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(key_file::read(&path), Err(KeyFileError::OpenToOthers { mode: found, .. }) if found == mode));
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "not a key").unwrap();
    assert!(matches!(key_file::read(&path), Err(KeyFileError::Malformed { .. })));
    assert!(matches!(key_file::read(folder.path()), Err(KeyFileError::Malformed { .. })));
}

fn new_leaf(number: u64) -> NewLeaf {
    NewLeaf {
        id: format!("id-{number}"),
        entry: number.to_be_bytes().to_vec(),
        salt: None,
        content: b"content".to_vec(),
        time_ms: number as i64,
    }
}

async fn open(path: &Path) -> Arc<SqlLogStore> {
    Arc::new(SqlLogStore::open(path, "test").await.unwrap())
}

async fn sequencer(store: &Arc<SqlLogStore>, anchor: Option<&Path>) -> Result<Sequencer, SequencerError> {
    let anchor = anchor.map(|path| Box::new(FileAnchor(path.to_owned())) as Box<dyn CheckpointAnchor>);
    Sequencer::open(store.clone(), signer("example.com/log"), anchor).await
}

#[tokio::test]
async fn stored_tree_equals_the_naive_one_across_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("log.db")).await;
    let log = sequencer(&store, None).await.unwrap();
    assert_eq!(log.checkpoint().await.checkpoint.root, empty_root());
    let total = 1500;
    let mut size = 0;
    for batch in [1, 254, 1, 1, 255, 513, 475] {
        let leaves: Vec<NewLeaf> = (size..size + batch).map(new_leaf).collect();
        let appended = log.append(&leaves).await.unwrap();
        assert_eq!(appended.placements[0], Placement::Appended(size));
        size += batch;
        assert_eq!(appended.checkpoint.checkpoint.size, size);
    }
    assert_eq!(size, total);
    let all: Vec<Hash> = (0..total).map(|number| new_leaf(number).hash()).collect();
    assert_eq!(log.checkpoint().await.checkpoint.root, naive_root(&all));
    let mut reader = ProofReader::new(&*store);
    for (index, size) in [(0, 1), (0, 1500), (255, 256), (256, 1400), (1499, 1500), (700, 1025), (511, 513)] {
        let proof = reader.inclusion(index, size).await.unwrap().unwrap();
        assert_eq!(proof, inclusion(&all[..size as usize], index));
    }
    for (old, new) in [(1, 1500), (256, 1500), (257, 513), (512, 1024), (1000, 1500), (1499, 1500)] {
        let proof = reader.consistency(old, new).await.unwrap().unwrap();
        assert_eq!(proof, consistency(&all[..new as usize], old));
    }
    assert_eq!(reader.inclusion(5, 5).await.unwrap(), None);
    assert!(matches!(reader.inclusion(0, 1501).await, Err(LeafStoreError::Damaged { .. })));
    let report = verify_log(&*store, log.key(), None, &|_| None).await.unwrap();
    assert_eq!((report.leaves, report.checkpoints, report.unsigned), (1500, 8, 0));
}

#[tokio::test]
async fn appending_again_gives_the_same_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("log.db")).await;
    let log = sequencer(&store, None).await.unwrap();
    let first = log.append(&[new_leaf(7), new_leaf(8), new_leaf(7)]).await.unwrap();
    assert_eq!(first.placements, [Placement::Appended(0), Placement::Appended(1), Placement::AlreadyThere(0)]);
    let other = NewLeaf { entry: b"other".to_vec(), ..new_leaf(8) };
    let again = log.append(&[new_leaf(8), other, new_leaf(9)]).await.unwrap();
    assert_eq!(again.placements, [Placement::AlreadyThere(1), Placement::Conflict(1), Placement::Appended(2)]);
    // The store itself refuses doubles and a wrong expected size.
    let double = store.append(3, &[new_leaf(9)], &[]).await;
    assert!(matches!(double, Err(LeafStoreError::Duplicate { .. })));
    let same_hash = NewLeaf { id: "new".to_owned(), ..new_leaf(9) };
    assert!(matches!(store.append(3, &[same_hash], &[]).await, Err(LeafStoreError::Duplicate { .. })));
    let late = store.append(2, &[new_leaf(10)], &[]).await;
    assert!(matches!(late, Err(LeafStoreError::SizeChanged { expected: 2, actual: 3, .. })));
    assert_eq!(store.size().await.unwrap(), 3);
}

#[tokio::test]
async fn two_writers_keep_one_consistent_tree() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let (one, two) = (open(&path).await, open(&path).await);
    let first = sequencer(&one, None).await.unwrap();
    let second = sequencer(&two, None).await.unwrap();
    for round in 0..20 {
        let (a, b) = tokio::join!(async { first.append(&[new_leaf(2 * round)]).await.unwrap() }, async {
            second.append(&[new_leaf(2 * round + 1)]).await.unwrap()
        });
        assert_ne!(a.placements, b.placements);
    }
    let report = verify_log(&*one, first.key(), None, &|_| None).await.unwrap();
    assert_eq!((report.leaves, report.unsigned), (40, 0));
}

#[tokio::test]
async fn a_crash_between_append_and_signature_is_made_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let store = open(&path).await;
    let log = sequencer(&store, None).await.unwrap();
    log.append(&[new_leaf(0)]).await.unwrap();
    // What a killed append leaves behind: leaves without a head.
    store.append(1, &[new_leaf(1)], &[]).await.unwrap();
    let report = verify_log(&*store, log.key(), None, &|_| None).await.unwrap();
    assert_eq!(report.unsigned, 1);
    // The living sequencer notices …
    let again = log.append(&[new_leaf(1)]).await.unwrap();
    assert_eq!((again.placements[0], again.checkpoint.checkpoint.size), (Placement::AlreadyThere(1), 2));
    // … and so does a restarted one.
    store.append(2, &[new_leaf(2)], &[]).await.unwrap();
    let restarted = sequencer(&open(&path).await, None).await.unwrap();
    assert_eq!(restarted.checkpoint().await.checkpoint.size, 3);
    assert_eq!(restarted.append(&[new_leaf(2)]).await.unwrap().placements, [Placement::AlreadyThere(2)]);
}

#[tokio::test]
async fn a_restored_older_database_is_never_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, anchor) = (folder.path().join("log.db"), folder.path().join("anchor"));
    let store = open(&path).await;
    sequencer(&store, Some(&anchor)).await.unwrap().append(&[new_leaf(0)]).await.unwrap();
    store.close().await;
    let copy = folder.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    let store = open(&path).await;
    sequencer(&store, Some(&anchor)).await.unwrap().append(&[new_leaf(1)]).await.unwrap();
    let restored = open(&copy).await;
    let error = sequencer(&restored, Some(&anchor)).await.err().unwrap();
    assert!(matches!(error, SequencerError::RolledBack { signed: 2, .. }));
    // The same size with another leaf is no better.
    restored.append(1, &[new_leaf(99)], &[]).await.unwrap();
    let error = sequencer(&restored, Some(&anchor)).await.err().unwrap();
    assert!(matches!(error, SequencerError::RolledBack { signed: 2, .. }));
    // A missing anchor file is only an unknown; the true database still opens.
    assert!(sequencer(&store, Some(&anchor)).await.is_ok());
}

fn record(number: u32) -> Record {
    Record {
        id: format!("0190a000-0000-7000-8000-{number:012}"),
        time: DateTime::<Utc>::from_timestamp(1_772_000_000 + i64::from(number), 0).unwrap(),
        actor: Actor { uid: "u7".into() },
        ip: Some("10.8.0.5".into()),
        host: "agent-1".into(),
        activity: Activity::Delete,
        operation: "erase.batch".into(),
        resources: vec![Resource { kind: "subject".into(), uid: "hmac-sha256:k7:00ff".into() }],
        customer: None,
        outcome: Outcome::Success,
        detail: None,
        changes: vec![Change {
            field: "shop.orders".into(),
            operation: "D".into(),
            rows: 2,
            before: Some("ab".into()),
            ..Change::default()
        }],
        references: vec![("run".into(), "r1".into())],
    }
}

async fn filled(path: &Path, records: u32) -> (Arc<SqlLogStore>, OperationLog) {
    let store = open(path).await;
    let log = OperationLog::new(sequencer(&store, None).await.unwrap(), Arc::new(SystemRandom));
    for page in (0..records).collect::<Vec<_>>().chunks(100) {
        log.append(&page.iter().map(|number| record(*number)).collect::<Vec<_>>()).await.unwrap();
    }
    (store, log)
}

/// Opens the file behind the store's back, without its triggers.
async fn tamper(path: &Path, statement: &str) {
    let triggers = "DROP TRIGGER log_leaf_stays; DROP TRIGGER log_leaf_fixed; DROP TRIGGER log_leaf_content;
        DROP TRIGGER log_checkpoint_stays;";
    run_raw(path, triggers).await.unwrap();
    run_raw(path, statement).await.unwrap();
}

#[tokio::test]
async fn tampering_with_a_thousand_records_is_found_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let rehash = {
        let entry = sha256(b"forged");
        let (entry, hash) = (hex::encode(entry), hex::encode(leaf_hash(&entry)));
        format!("UPDATE log_leaf SET salt = NULL, content = NULL, entry = x'{entry}', hash = x'{hash}' WHERE idx = 250")
    };
    let swap = "UPDATE log_leaf SET idx = -1 WHERE idx = 10; UPDATE log_leaf SET idx = 10 WHERE idx = 11;
        UPDATE log_leaf SET idx = 11 WHERE idx = -1";
    let cases: [(&str, &str); 7] = [
        ("UPDATE log_leaf SET salt = NULL WHERE idx = 41", "entry 41 was"),
        ("DELETE FROM log_leaf WHERE idx = 500", "entry 500 was"),
        ("UPDATE log_leaf SET content = replace(content, 'u7', 'u8') WHERE idx = 42", "entry 42 was"),
        ("UPDATE log_leaf SET entry = x'00' WHERE idx = 43", "entry 43 was"),
        (swap, "entries 0 to 99 differs"),
        (&rehash, "entries 200 to 299 differs"),
        ("DELETE FROM log_leaf WHERE idx >= 990", "has 990 entries, 1000 were signed"),
    ];
    let (store, log) = filled(&folder.path().join("log.db"), 1000).await;
    let report = verify_log(&*store, log.sequencer().key(), None, &check_content).await.unwrap();
    assert_eq!((report.leaves, report.dropped), (1000, 0));
    let head = log.sequencer().checkpoint().await;
    store.close().await;
    for (number, (statement, expected)) in cases.iter().enumerate() {
        let copy = folder.path().join(format!("{number}.db"));
        std::fs::copy(folder.path().join("log.db"), &copy).unwrap();
        tamper(&copy, statement).await;
        let error = verify_log(&*open(&copy).await, log.sequencer().key(), None, &check_content).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{statement}: {error}");
    }
    // Leaves and their checkpoints cut off together: only a head from elsewhere shows it.
    let copy = folder.path().join("cut.db");
    std::fs::copy(folder.path().join("log.db"), &copy).unwrap();
    tamper(&copy, "DELETE FROM log_leaf WHERE idx >= 900; DELETE FROM log_checkpoint WHERE size > 900").await;
    let cut = open(&copy).await;
    assert!(verify_log(&*cut, log.sequencer().key(), None, &check_content).await.is_ok());
    let error = verify_log(&*cut, log.sequencer().key(), Some(&head.note), &check_content).await.unwrap_err();
    assert!(matches!(error, VerifyLogError::Truncated { leaves: 900, signed: 1000 }));
}

#[tokio::test]
async fn stored_entries_cannot_be_changed_and_content_can_expire() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let (store, log) = filled(&path, 20).await;
    for statement in [
        "DELETE FROM log_leaf WHERE idx = 1",
        "UPDATE log_leaf SET entry = x'00' WHERE idx = 1",
        "UPDATE log_leaf SET content = x'00' WHERE idx = 1",
        "DELETE FROM log_checkpoint",
        "UPDATE log_checkpoint SET note = ''",
    ] {
        assert!(run_raw(&path, statement).await.is_err(), "{statement}");
    }
    let before = 1_772_000_005_000;
    assert_eq!(store.drop_content(0..20, before).await.unwrap(), 5);
    assert_eq!(store.drop_content(0..3, i64::MAX).await.unwrap(), 0);
    let leaves = store.leaves(4..6).await.unwrap();
    assert!(leaves[0].content.is_none() && leaves[0].salt.is_none() && leaves[1].content.is_some());
    let report = verify_log(&*store, log.sequencer().key(), None, &check_content).await.unwrap();
    assert_eq!((report.leaves, report.dropped), (20, 5));
    let taken = log.append(&[record(3)]).await;
    assert!(matches!(taken, Err(OperationLogError::IdTaken)), "a used id with a new salt is refused");
}

#[tokio::test]
async fn a_record_that_a_failed_try_has_stored_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, log) = filled(&folder.path().join("log.db"), 2).await;
    let leaf = salted(&record(2), &SystemRandom).unwrap();
    // What a try leaves that fails behind the store: the leaf, and no head.
    store.append(2, std::slice::from_ref(&leaf), &[]).await.unwrap();
    assert_eq!(log.append_salted(std::slice::from_ref(&leaf)).await.unwrap(), [2]);
    assert_eq!(log.append(&[record(3)]).await.unwrap(), [3]);
}

#[test]
fn records_speak_ocsf() {
    let json: serde_json::Value = serde_json::from_str(&record(1).to_json().unwrap()).unwrap();
    assert_eq!(json["class_uid"], 6005);
    assert_eq!(json["type_uid"], 600_507);
    assert_eq!(json["time"], 1_772_000_001_000_i64);
    assert_eq!(json["actor"]["user"]["uid"], "u7");
    assert_eq!(json["src_endpoint"]["ip"], "10.8.0.5");
    assert_eq!(json["resources"][0]["type"], "subject");
    assert_eq!(json["unmapped"]["changes"][0]["before"], "ab");
    assert_eq!(json["status_id"], 1);
    let by_agent = Record { ip: None, outcome: Outcome::Intent, ..record(2) };
    let json: serde_json::Value = serde_json::from_str(&by_agent.to_json().unwrap()).unwrap();
    assert_eq!(
        (&json["src_endpoint"]["hostname"], &json["device"]["hostname"]),
        (&"agent-1".into(), &"agent-1".into())
    );
    assert_eq!(json["status"], "intent");
}

/// A full disk or a crash may come while a key is written: whatever was left of that does not stand in the way.
#[test]
fn a_key_file_has_its_name_only_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    // A draft that cannot be written: a folder has its name.
    let draft = folder.path().join("key.pem.new");
    std::fs::create_dir(&draft).unwrap();
    let failed = super::key_file::create(&path, b"pkcs8").unwrap_err();
    assert!(matches!(failed, super::key_file::KeyFileError::Io { .. }), "{failed}");
    assert!(!path.exists());
    std::fs::remove_dir(&draft).unwrap();
    std::fs::write(&draft, b"half a").unwrap();
    super::key_file::create(&path, b"pkcs8").unwrap();
    assert_eq!(super::key_file::read(&path).unwrap().as_slice(), b"pkcs8");
    assert!(!draft.exists());
    let again = super::key_file::create(&path, b"other").unwrap_err();
    assert!(matches!(again, super::key_file::KeyFileError::Exists(_)), "{again}");
    assert_eq!(super::key_file::read(&path).unwrap().as_slice(), b"pkcs8");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_head_never_goes_back_and_is_never_torn() {
    let folder = tempfile::tempdir().unwrap();
    let signer = signer("example.com/log");
    let note = |size: u64| signer.sign(size, [size as u8; 32]).note;
    let anchor = FileAnchor(folder.path().join("head.txt"));
    for size in [7, 6, 7] {
        anchor.keep(&note(size)).await.unwrap();
        assert_eq!(anchor.last().await.unwrap(), Some(note(7)), "after {size}");
    }
    let keeps = (1..=64).map(|size| {
        let (anchor, note) = (anchor.clone(), note(size));
        tokio::spawn(async move { anchor.keep(&note).await })
    });
    for kept in keeps.collect::<Vec<_>>() {
        kept.await.unwrap().unwrap();
    }
    assert_eq!(anchor.last().await.unwrap(), Some(note(64)));
    std::fs::write(&anchor.0, "torn").unwrap();
    assert!(anchor.keep(&note(65)).await.is_err(), "what cannot be read is evidence, and not written over");
}
