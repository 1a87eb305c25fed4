//! What a shred leaves in the memory of the process that did it: nothing, in every page that can be written to.

use std::process::Command;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::control::{DyingKeys, Lease};
use crate::keys::cell::derive_frame_key;
use crate::keys::file_slot::FileSlot;
use crate::keys::suite::{self, Suite};
use crate::random::SystemRandom;

#[path = "../../tests/it/support/memory_scan.rs"]
mod memory_scan;

use memory_scan::Wanted;

const CHILD: &str = "WANGCHUAN_TEST_SCANS_ITS_MEMORY";
const ID: InstallationId = [5; 16];
/// Everything that touches keys: insertion, look-up, frames of both suites, the shred.
async fn shred_and_look() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::create(&folder.path().join("state.db"), ID).await.unwrap();
    let slot = Arc::new(FileSlot::prepare(&folder.path().join("root"), ID).unwrap());
    let keyring = Keyring::new(ID, slot.clone(), Arc::new(SystemRandom));
    let now = SystemClock.now();
    keyring.create_tree(&control, now).await.unwrap();

    let mut wanted = Wanted::default();
    wanted.add("old root", slot.open(1).await.unwrap().dangerous_bytes());
    let keys: Vec<(Slot, Key)> = (1..=300)
        .map(|number| (Slot::new(Subtree::Subjects, number).unwrap(), Key::make(&SystemRandom).unwrap()))
        .collect();
    for (_, key) in keys.iter().take(200) {
        wanted.add("subject key", key.dangerous_bytes());
    }
    let mut tx = control.begin().await.unwrap();
    keyring.insert(&mut tx, &keys).await.unwrap();
    drop(keys);
    for number in 1..=300_u32 {
        let mut lookup = [0; 32];
        lookup[..4].copy_from_slice(&number.to_be_bytes());
        tx.add_subjects(&[(number, lookup)]).await.unwrap();
    }
    let bucket = Key::make(&SystemRandom).unwrap();
    for number in 1..=20 {
        let subject = keyring.key(&mut tx, Subtree::Subjects, number).await.unwrap().unwrap();
        let cell = derive_cell_secret(Some(Factor { number, key: &subject }), Factor { number: 1, key: &bucket });
        wanted.add("cell secret", cell.to_pin().dangerous_bytes());
        for suite in [Suite::Intl, Suite::Gm] {
            let frame = derive_frame_key(suite, &cell, &bucket, &[number as u8; 16]);
            wanted.add("frame key", frame.encryption.dangerous_bytes());
            let mut text = b"a row of a customer who will be forgotten".to_vec();
            suite::seal(suite, &frame.encryption, [1; 12], b"context", &mut text).unwrap();
            suite::open(suite, &frame.encryption, [1; 12], b"context", &mut text).unwrap();
        }
    }
    let Lease::Taken { token } = tx.take_lease("work", "test", now, now + chrono::TimeDelta::hours(1)).await.unwrap()
    else {
        panic!("the lease is held")
    };
    tx.commit().await.unwrap();

    let before = wanted.found();
    assert!(before.contains(&"subject key"), "the scan sees keys that are in use: {before:?}");
    let dying = DyingKeys { subjects: (1..=200).collect(), ..DyingKeys::default() };
    let fence = Fence { lease: "work", token, lasts: chrono::TimeDelta::hours(1) };
    let order = ShredOrder { fence, dying: &dying, preserved: &[], holds: &[] };
    shred(&keyring, &control, &order, &SystemClock).await.unwrap();

    let planted = Key::make(&SystemRandom).unwrap();
    wanted.add("planted", planted.dangerous_bytes());
    let mut found = wanted.found();
    found.sort_unstable();
    assert_eq!(found, ["planted"]);
    drop(planted);
    assert_eq!(wanted.found(), [""; 0]);
}

/// In a process of its own, so that no other test's keys come and go meanwhile.
#[test]
fn a_shred_leaves_no_destroyed_key_in_memory() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(shred_and_look());
    }
    let name = "keyring::residue_tests::a_shred_leaves_no_destroyed_key_in_memory";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
