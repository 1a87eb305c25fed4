//! The process is killed, the token goes away or its key is deleted, at every step of a generation change: nothing is lost, and the
//! next start finishes the work.

use wangchuan::keyring::KeyringError;
use wangchuan::keys::pkcs11_slot::Pkcs11Slot;
use wangchuan::keys::slot::{RootSlot as _, SlotError, TokenError};
use wangchuan::tasks::TaskError;
use wangchuan::tasks::shred::shred_due;

use crate::support::softhsm::SoftHsm;
use crate::support::world::{Making, World, snapshot};
use crate::transit::trouble::{erase_one, is_child, killed_at_every_step, settled};

/// `CKR_TOKEN_NOT_PRESENT`.
const NOT_PRESENT: u64 = 0xe0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_step_is_finished_by_the_next_start() {
    if is_child().await {
        return;
    }
    let Some(hsm) = SoftHsm::token() else { return };
    let test = "pkcs11::trouble::a_kill_at_every_step_is_finished_by_the_next_start";
    killed_at_every_step(test, &hsm.root_section("root")).await;
}

#[tokio::test]
async fn a_token_that_goes_away_at_any_step_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some((hsm, behind)) = SoftHsm::token().map(|hsm| hsm.behind(folder.path())) else { return };
    let root = hsm.root_section("root");
    let world = World::make(Making { customers: 60, bucket: "month", root, ..Making::default() }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let mut refusals = 0;
    // Every third call, so that each step is met and the test ends in time; at every call: the slot by itself.
    for from in (1..).step_by(3) {
        erase_one(&world, &installation).await;
        behind.does(&format!("fail_from {from} {NOT_PRESENT}"));
        let done = shred_due(&installation).await;
        behind.does("");
        let what = format!("from call {from} on");
        match done {
            Ok(report) => {
                assert!(report.generation.is_some(), "{what}");
                break;
            }
            Err(error @ TaskError::Keyring(KeyringError::Slot(SlotError::Token(TokenError::NotPresent { .. })))) => {
                assert!(error.is_retryable(), "{what}");
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
        refusals += 1;
        shred_due(&installation).await.unwrap();
        settled(&world, &installation, &what).await;
    }
    assert!(refusals >= 5, "a generation change makes more calls than that: {refusals}");
    settled(&world, &installation, "at the end").await;
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_key_that_somebody_deleted_stops_everything_and_throws_nothing_away() {
    let Some(hsm) = SoftHsm::token() else { return };
    let root = hsm.root_section("root");
    let world = World::make(Making { customers: 10, root, ..Making::default() }).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let id = installation.id();
    installation.close().await.unwrap();
    let hands = Pkcs11Slot::prepare(&hsm.setup(&world.path("hands")), id).unwrap();
    hands.destroy(1).await.unwrap();
    let files = |world: &World| std::fs::read_dir(world.path("root")).unwrap().count();
    let kept = files(&world);
    for _ in 0..2 {
        match world.try_open().await.err() {
            Some(error @ TaskError::Keyring(KeyringError::Slot(SlotError::Token(TokenError::KeyGone { .. })))) => {
                assert!(!error.is_retryable());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(files(&world), kept, "nothing is thrown away");
        world.clock.advance(chrono::TimeDelta::minutes(11));
    }
}
