use super::*;
use crate::backup::directory::{CapturedSchema, CellRef, DirectoryBuilder, FrameEntry};
use crate::backup::frame::{FrameContent, FrameKey, seal_frame};
use crate::backup::manifest::{SignerError, SnapshotKind};
use crate::backup::memory::{Fault, FaultyStore, MemoryStore};
use crate::backup::pack::PackBuilder;
use crate::keys::Key;
use crate::keys::suite::Suite;
use crate::random::SystemRandom;
use crate::stores::{Definitions, Engine};
use crate::value::Value;
use chrono::DateTime;

const INSTALLATION: Id128 = Id128([1; 16]);
const STORE: Id128 = Id128([2; 16]);
const SCOPE: Scope<'static> =
    Scope { installation: INSTALLATION, store: STORE, expected_head: None, cancelled: &[], pruned: &[], sample: None };

#[expect(clippy::unnecessary_wraps, reason = "the signature that is asked for")]
fn sign(pae: &[u8]) -> Result<Vec<u8>, SignerError> {
    Ok(Sha256::of_parts(&[b"secret", pae]).0.to_vec())
}

fn trust(_: &str, pae: &[u8], signature: &[u8]) -> bool {
    Sha256::of_parts(&[b"secret", pae]).0 == *signature
}

fn key(id: &Id128) -> FrameKey {
    let mut commitment = [0; 32];
    commitment[..16].copy_from_slice(&id.0);
    FrameKey { encryption: Key::dangerous_from_bytes(&[5; 32]), commitment }
}

/// Stores one snapshot of two packs and returns its manifest's digest.
async fn snapshot(store: &dyn ObjectStore, sequence: u64, previous: Option<Sha256>) -> Sha256 {
    let snapshot = Id128([sequence as u8; 16]);
    let mut directory = DirectoryBuilder::new(INSTALLATION, snapshot, &key, &SystemRandom);
    let mut packs = Vec::new();
    for number in 0..2u32 {
        let mut builder = PackBuilder::new(Id128::make(&SystemRandom).unwrap());
        for row in 0..3 {
            let id = Id128::make(&SystemRandom).unwrap();
            let rows = vec![vec![Value::Integer(row)]];
            let content = FrameContent { collection: 1, chunk: number, columns: vec![0], rows };
            let frame = seal_frame(&content, Suite::Gm, id, &key(&id), &builder.next_context(INSTALLATION)).unwrap();
            let place = builder.append(&frame).unwrap();
            let cell = CellRef { subject: Some(7), bucket: 1, pin: None };
            let (ordinal, offset, length) = (place.ordinal, place.offset, place.length);
            let (collection, chunk, group, suite, rows, removed) = (1, number, 0, Suite::Gm, 1, false);
            let entry = FrameEntry {
                pack: number,
                ordinal,
                offset,
                length,
                cell,
                collection,
                chunk,
                group,
                suite,
                rows,
                removed,
            };
            assert!(directory.push(entry).unwrap().is_none());
        }
        let pack = builder.finish();
        packs.push(PackRef { sha256: pack.sha256, bytes: pack.bytes.len() as u64, frames: pack.frames });
        store.put_if_absent(&pack.name(), pack.bytes).await.unwrap();
    }
    let (tables, collections) = (Vec::new(), Vec::new());
    let schema = CapturedSchema {
        engine: Engine::Sqlite,
        server_version: "3".to_owned(),
        tables,
        collections,
        definitions: Definitions::default(),
    };
    let mut parts = Vec::new();
    for part in directory.finish(schema).unwrap() {
        parts.push(PartRef { sha256: part.sha256, bytes: part.bytes.len() as u64 });
        store.put_if_absent(&part.name(), part.bytes).await.unwrap();
    }
    let time = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let manifest = Manifest {
        format_version: 1,
        installation: INSTALLATION,
        store: STORE,
        snapshot,
        kind: SnapshotKind::Full,
        chain: sequence,
        sequence,
        previous,
        parent: None,
        ledger_position: 0,
        begun: time,
        committed: time,
        packs,
        directory: parts,
        frames: 6,
    };
    let signed = manifest.sign("k", &sign).unwrap();
    store.put_if_absent(&signed.name, signed.bytes).await.unwrap();
    signed.sha256
}

/// Three snapshots in a chain; returns the digests of their manifests.
async fn three(store: &dyn ObjectStore) -> Vec<Sha256> {
    let mut digests = Vec::new();
    for sequence in 1..=3 {
        let previous = digests.last().copied();
        digests.push(snapshot(store, sequence, previous).await);
    }
    digests
}

async fn verify(store: &dyn ObjectStore, scope: Scope<'_>) -> Verification {
    verify_store(store, scope, &trust).await.unwrap()
}

fn objects(report: &Verification) -> Vec<&str> {
    report.problems.iter().map(|problem| problem.object.as_str()).collect()
}

#[tokio::test]
async fn good_backups_verify_without_keys() {
    let store = MemoryStore::default();
    let digests = three(&store).await;
    let head = ChainHead { sequence: 3, sha256: digests[2] };
    let report = verify(&store, Scope { expected_head: Some(head), ..SCOPE }).await;
    assert!(report.is_valid(), "{:?}", report.problems);
    assert_eq!((report.manifests, report.packs, report.directory_parts, report.frames), (3, 6, 3, 18));
    assert_eq!((report.oldest_sequence, report.head), (Some(1), Some(head)));
    let all = store.list("").await.unwrap();
    assert_eq!(report.objects_read, all.len() as u64);
    assert_eq!(report.bytes_read, all.iter().map(|object| object.bytes).sum::<u64>());
}

#[tokio::test]
async fn a_flipped_byte_in_any_object_is_found_and_the_object_named() {
    let clean = MemoryStore::default();
    three(&clean).await;
    for object in clean.list("").await.unwrap() {
        for at in [0, object.bytes as usize / 2, object.bytes as usize - 1] {
            let original = clean.get(&object.name, usize::MAX).await.unwrap();
            clean.tamper(&object.name, |mut bytes| {
                bytes[at] ^= 1;
                Some(bytes)
            });
            let report = verify(&clean, SCOPE).await;
            assert_eq!(objects(&report), [object.name.as_str()], "byte {at}");
            assert!(!report.problems[0].retryable && !report.problems[0].unread);
            clean.tamper(&object.name, |_| Some(original));
        }
    }
    assert!(verify(&clean, SCOPE).await.is_valid());
}

#[tokio::test]
async fn a_missing_object_is_named() {
    let store = MemoryStore::default();
    let digests = three(&store).await;
    for object in store.list("").await.unwrap() {
        let original = store.get(&object.name, usize::MAX).await.unwrap();
        store.tamper(&object.name, |_| None);
        let head = ChainHead { sequence: 3, sha256: digests[2] };
        let report = verify(&store, Scope { expected_head: Some(head), ..SCOPE }).await;
        match parse_manifest_name(&object.name) {
            // Older manifests may have been pruned: a missing first one is no problem, but it shows in the report.
            Some((_, 1, _)) => assert_eq!((report.problems.len(), report.oldest_sequence), (0, Some(2))),
            Some((_, sequence, _)) => {
                let stem = format!("{}{sequence:010}", manifest_prefix(&STORE));
                assert_eq!(report.problems.len(), 1);
                assert!(report.problems[0].object.starts_with(&stem), "{:?}", report.problems);
            }
            None => assert_eq!(objects(&report), [object.name.as_str()]),
        }
        store.put_if_absent(&object.name, original).await.unwrap();
    }
}

#[tokio::test]
async fn a_cut_off_newest_history_shows_against_the_known_head_only() {
    let store = MemoryStore::default();
    let digests = three(&store).await;
    let newest = store.list(&manifest_prefix(&STORE)).await.unwrap().pop().unwrap().name;
    store.tamper(&newest, |_| None);
    assert!(verify(&store, SCOPE).await.is_valid());
    let head = |sequence: u64| Some(ChainHead { sequence, sha256: digests[sequence as usize - 1] });
    let report = verify(&store, Scope { expected_head: head(3), ..SCOPE }).await;
    assert_eq!(objects(&report), [newest.as_str()]);
    // And the other way round: manifests that nobody outside the bucket knows of.
    let report = verify(&store, Scope { expected_head: head(1), ..SCOPE }).await;
    assert_eq!(report.problems.len(), 1);
}

#[tokio::test]
async fn forks_and_broken_links_are_found() {
    let store = MemoryStore::default();
    let digests = three(&store).await;
    snapshot(&store, 4, Some(digests[0])).await;
    let report = verify(&store, SCOPE).await;
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].what.contains("hash chain"));
    let store = MemoryStore::default();
    let digests = three(&store).await;
    snapshot(&store, 3, Some(digests[1])).await;
    let report = verify(&store, SCOPE).await;
    assert!(report.problems.iter().any(|problem| problem.what.contains("same sequence number")));
}

#[tokio::test]
async fn another_installation_or_an_untrusted_signature_is_refused() {
    let store = MemoryStore::default();
    three(&store).await;
    let report = verify(&store, Scope { installation: Id128([9; 16]), ..SCOPE }).await;
    assert_eq!((report.problems.len(), report.manifests), (3, 0));
    let report = verify_store(&store, SCOPE, &|_, _, _| false).await.unwrap();
    assert_eq!((report.problems.len(), report.packs), (3, 0));
}

#[tokio::test]
async fn what_cannot_be_read_is_a_problem_and_the_rest_is_still_verified() {
    let store = MemoryStore::default();
    three(&store).await;
    let calls = FaultyStore::new(store, |_| None);
    assert!(verify(&calls, SCOPE).await.is_valid());
    assert_eq!(calls.calls(), 1 + 12);
    for (fault, retryable) in [(Fault::Lost, true), (Fault::Denied, false)] {
        for number in 1..13 {
            let store = MemoryStore::default();
            three(&store).await;
            let faulty = FaultyStore::new(store, move |call| (call == number).then_some(fault));
            let report = verify(&faulty, SCOPE).await;
            assert_eq!(report.problems.len(), 1, "call {number}: {:?}", report.problems);
            assert_eq!((report.problems[0].retryable, report.problems[0].unread), (retryable, true));
        }
    }
    let store = MemoryStore::default();
    let unlisted = FaultyStore::new(store, |call| (call == 0).then_some(Fault::Lost));
    assert!(verify_store(&unlisted, SCOPE, &trust).await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_manifest_that_came_late_is_named_and_counts_for_nothing() {
    let store = MemoryStore::default();
    let first = snapshot(&store, 1, None).await;
    let late = snapshot(&store, 2, Some(first)).await;
    let second = snapshot(&store, 2, Some(first)).await;
    let third = snapshot(&store, 3, Some(second)).await;
    let head = Some(ChainHead { sequence: 3, sha256: third });
    // Nobody can tell which of the two counts …
    let report = verify(&store, Scope { expected_head: head, ..SCOPE }).await;
    assert!(!report.is_valid(), "{report:?}");
    // … but who knows that one was given up; also when it is the newest.
    let report = verify(&store, Scope { expected_head: head, cancelled: &[late], ..SCOPE }).await;
    assert!(report.is_valid(), "{report:?}");
    assert_eq!(report.uncommitted.len(), 1);
    assert!(report.uncommitted[0].contains(&late.to_string()), "{report:?}");
    assert_eq!((report.manifests, report.head), (3, head));
    let newest = snapshot(&store, 4, Some(third)).await;
    let report = verify(&store, Scope { expected_head: head, cancelled: &[late, newest], ..SCOPE }).await;
    assert!(report.is_valid() && report.uncommitted.len() == 2 && report.head == head, "{report:?}");
}

fn sampled(read_back: &ReadBack) -> Scope<'_> {
    Scope { sample: Some(Sample { percent: 20, read_back }), ..SCOPE }
}

#[tokio::test]
async fn a_sample_reads_a_part_and_looks_for_all_by_name_and_length() {
    let store = MemoryStore::default();
    three(&store).await;
    let none = ReadBack::new();
    let report = verify(&store, sampled(&none)).await;
    assert!(report.is_valid() && report.manifests == 3, "{report:?}");
    assert_eq!(report.listed.len(), 9);
    assert!((1..9).contains(&report.good.len()), "{report:?}");
    let unread: Vec<String> =
        report.listed.iter().map(|(name, _)| name.clone()).filter(|name| !report.good.contains(name)).collect();
    for name in &unread {
        let original = store.get(name, usize::MAX).await.unwrap();
        for change in [None, Some([original.clone(), vec![0]].concat()), Some(original[1..].to_vec())] {
            store.tamper(name, |_| change);
            assert_eq!(objects(&verify(&store, sampled(&none)).await), [name.as_str()]);
            store.tamper(name, |_| None);
            store.put_if_absent(name, original.clone()).await.unwrap();
        }
    }
    // What the listing misses takes nobody's turn.
    let first = report.good.first().unwrap();
    let original = store.get(first, usize::MAX).await.unwrap();
    store.tamper(first, |_| None);
    assert!(!verify(&store, sampled(&none)).await.good.is_empty());
    store.put_if_absent(first, original).await.unwrap();
    // A changed byte is found by the run whose turn the object is, within as many as are promised.
    let name = unread.last().unwrap();
    store.tamper(name, |mut bytes| {
        bytes[40] ^= 1;
        Some(bytes)
    });
    let mut read_back = ReadBack::new();
    let mut found = None;
    for run in 1..=Sample::runs(20) {
        let report = verify(&store, sampled(&read_back)).await;
        if objects(&report) == [name.as_str()] {
            found = Some(run);
            break;
        }
        let (now, good) = (DateTime::from_timestamp(i64::from(run), 0).unwrap(), report.good.clone());
        read_back.extend(good.into_iter().map(|name| (name, now)));
    }
    assert!(found.is_some(), "{name} was never read");
}
