//! What every root slot must do, tried on each kind that is here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use wangchuan::keys::file_slot::FileSlot;
use wangchuan::keys::kms_slot::{KmsSetup, KmsSlot};
use wangchuan::keys::pkcs11_slot::{Pkcs11Setup, Pkcs11Slot};
use wangchuan::keys::slot::{
    DestroyEvidence, Destroys, Device, Presence, RootEvidence, RootSlot, SlotAbilities, SlotError,
};
use wangchuan::keys::transit_slot::TransitSlot;
use wangchuan::random::SystemRandom;

use crate::support::bao::Bao;
use crate::support::kms::Kms;
use crate::support::softhsm::SoftHsm;
use crate::support::world::manual_clock;

const ID: [u8; 16] = [9; 16];

async fn generations(slot: &dyn RootSlot) -> Vec<i64> {
    slot.list().await.unwrap().iter().map(|present| present.generation).collect()
}

/// What a kind of slot says that it can do, when it waits for nothing.
fn at_once(destroys: Destroys, proves_not_exported: bool, residual_days: Option<u32>) -> SlotAbilities {
    SlotAbilities {
        destroys,
        is_cancellable: false,
        proves_not_exported,
        has_rollback_counter: false,
        minimum_interval: Duration::ZERO,
        residual_days,
    }
}

/// Lets the date of a destruction come, where the slot has one. Until then it is not gone, and nobody says so.
async fn until_it_is_gone(slot: &dyn RootSlot, done: &DestroyEvidence, later: &dyn Fn(TimeDelta)) {
    let Destroys::Delayed { at_least_days, at_most_days } = slot.abilities().destroys else {
        assert_eq!(done.irrevocable_at, None);
        return;
    };
    let date = done.irrevocable_at.expect("a date of which nobody knows");
    assert!(slot.abilities().is_cancellable);
    for days in [1, i64::from(at_least_days) - 2] {
        later(TimeDelta::days(days));
        let found = slot.verify_gone(done.generation).await;
        assert!(matches!(found, Err(SlotError::NotYet { at, .. }) if at == date), "{found:?}");
        let present = slot.list().await.unwrap();
        assert!(
            present.iter().any(|root| (root.generation, root.presence) == (done.generation, Presence::Doomed(date)))
        );
    }
    later(TimeDelta::days(i64::from(at_most_days - at_least_days) + 1));
}

/// `again` opens what `slot` left behind, as another process does; `later` lets time pass for the service.
async fn holds(
    slot: Arc<dyn RootSlot>,
    again: &dyn Fn() -> Arc<dyn RootSlot>,
    (abilities, later): (SlotAbilities, &dyn Fn(TimeDelta)),
) {
    assert_eq!(slot.abilities(), abilities);
    assert!(generations(slot.as_ref()).await.is_empty());
    assert!(matches!(slot.open(1).await, Err(SlotError::Missing { generation: 1, .. })));
    let first = slot.create(1, &SystemRandom).await.unwrap();
    assert!(first.is_same(&slot.create(1, &SystemRandom).await.unwrap()), "made once");
    let second = slot.create(2, &SystemRandom).await.unwrap();
    assert!(!first.is_same(&second));
    for slot in [slot.clone(), again()] {
        assert!(first.is_same(&slot.open(1).await.unwrap()) && second.is_same(&slot.open(2).await.unwrap()));
        assert_eq!(generations(slot.as_ref()).await, [1, 2]);
        assert!(matches!(slot.verify_gone(1).await, Err(SlotError::StillThere { generation: 1, .. })));
        assert!(slot.shortcomings().await.unwrap().is_empty());
        slot.allow_another_try().await.unwrap();
    }

    let done = slot.destroy(1).await.unwrap();
    assert!(done.was_present && done.generation == 1);
    assert!(matches!(slot.open(1).await, Err(SlotError::Missing { generation: 1, .. })), "it opens no more at once");
    until_it_is_gone(slot.as_ref(), &done, later).await;
    let gone = slot.verify_gone(1).await.unwrap();
    let evidence = RootEvidence::new(done, gone);
    assert_eq!((evidence.claim.class, evidence.claim.kind), (slot.class(), slot.claim().kind));
    let kept: RootEvidence = serde_json::from_value(serde_json::to_value(&evidence).unwrap()).unwrap();
    assert_eq!(kept, evidence, "it is read as it was written");
    for slot in [slot.clone(), again()] {
        assert!(matches!(slot.open(1).await, Err(SlotError::Missing { generation: 1, .. })));
        assert!(!slot.destroy(1).await.unwrap().was_present, "nothing there is not an error");
        slot.verify_gone(1).await.unwrap();
        assert_eq!(generations(slot.as_ref()).await, [2]);
        assert!(second.is_same(&slot.open(2).await.unwrap()), "the other root is untouched");
    }
    assert!(!slot.destroy(77).await.unwrap().was_present, "one that never was");
    slot.verify_gone(77).await.unwrap();

    // One that was given up before it came into force is made anew.
    let unused = slot.create(3, &SystemRandom).await.unwrap();
    assert!(slot.destroy(3).await.unwrap().was_present);
    assert!(!unused.is_same(&slot.create(3, &SystemRandom).await.unwrap()));
    assert_eq!(generations(again().as_ref()).await, [2, 3]);
    assert!(slot.claim().residuals.len() > 1 && slot.abilities().residual_days == slot.claim().residual_days);
}

/// Time makes no difference to what is destroyed at once.
fn no_matter(_: TimeDelta) {}

fn root(folder: &tempfile::TempDir) -> std::path::PathBuf {
    Path::join(folder.path(), "root")
}

#[tokio::test]
async fn a_file() {
    let folder = tempfile::tempdir().unwrap();
    let slot = FileSlot::prepare(&root(&folder), ID).unwrap();
    let abilities = at_once(Destroys::BestEffort, false, None);
    holds(Arc::new(slot), &|| Arc::new(FileSlot::at(&root(&folder), ID).unwrap()), (abilities, &no_matter)).await;
}

#[tokio::test]
async fn a_key_of_openbao() {
    let Some(bao) = Bao::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let setup = bao.setup(&root(&folder), &bao.token(&["wangchuan"], "1h").await);
    let slot = TransitSlot::prepare(&setup, ID).unwrap();
    let abilities = at_once(Destroys::Immediately, true, Some(7));
    holds(Arc::new(slot), &|| Arc::new(TransitSlot::at(&setup, ID).unwrap()), (abilities, &no_matter)).await;
}

#[tokio::test]
async fn keys_of_a_token() {
    let Some(hsm) = SoftHsm::token() else { return };
    let folder = tempfile::tempdir().unwrap();
    let setup = hsm.setup(&root(&folder));
    let slot = Pkcs11Slot::prepare(&setup, ID).unwrap();
    let abilities = at_once(Destroys::BestEffort, true, setup.snapshot_retention_days);
    assert_eq!(setup.device, Device::Software);
    holds(Arc::new(slot), &|| Arc::new(Pkcs11Slot::at(&setup, ID).unwrap()), (abilities, &no_matter)).await;
    // The same keys in a device that its operator declares to be one.
    for device in [Device::HardwareWithBackup, Device::HardwareWithoutBackup] {
        let declared = Pkcs11Slot::at(&Pkcs11Setup { device, ..setup.clone() }, ID).unwrap();
        assert_eq!(declared.abilities().destroys, Destroys::Immediately);
    }
}

#[tokio::test]
async fn a_key_of_a_kms_for_each_generation() {
    let clock = manual_clock();
    let kms = Kms::start(clock.clone());
    let folder = tempfile::tempdir().unwrap();
    let setup = KmsSetup { minimum_interval: Duration::from_mins(1), ..kms.setup(&root(&folder)) };
    let slot = KmsSlot::prepare(&setup, ID).unwrap();
    let abilities = SlotAbilities {
        destroys: Destroys::Delayed { at_least_days: 7, at_most_days: 8 },
        is_cancellable: true,
        proves_not_exported: true,
        has_rollback_counter: false,
        minimum_interval: Duration::from_mins(1),
        residual_days: Some(0),
    };
    let later = |time| clock.advance(time);
    holds(Arc::new(slot), &|| Arc::new(KmsSlot::at(&setup, ID).unwrap()), (abilities, &later)).await;
}
