//! What every root slot must do, tried on each kind that is here.

use std::path::Path;
use std::sync::Arc;

use wangchuan::keys::file_slot::FileSlot;
use wangchuan::keys::pkcs11_slot::Pkcs11Slot;
use wangchuan::keys::slot::{RootEvidence, RootSlot, SlotError};
use wangchuan::keys::transit_slot::TransitSlot;
use wangchuan::random::SystemRandom;

use crate::support::bao::Bao;
use crate::support::softhsm::SoftHsm;

const ID: [u8; 16] = [9; 16];

async fn generations(slot: &dyn RootSlot) -> Vec<i64> {
    slot.list().await.unwrap().iter().map(|present| present.generation).collect()
}

/// `again` opens what `slot` left behind, as another process does.
async fn holds(slot: Arc<dyn RootSlot>, again: &dyn Fn() -> Arc<dyn RootSlot>) {
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

fn root(folder: &tempfile::TempDir) -> std::path::PathBuf {
    Path::join(folder.path(), "root")
}

#[tokio::test]
async fn a_file() {
    let folder = tempfile::tempdir().unwrap();
    let slot = FileSlot::prepare(&root(&folder), ID).unwrap();
    holds(Arc::new(slot), &|| Arc::new(FileSlot::at(&root(&folder), ID).unwrap())).await;
}

#[tokio::test]
async fn a_key_of_openbao() {
    let Some(bao) = Bao::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let setup = bao.setup(&root(&folder), &bao.token(&["wangchuan"], "1h").await);
    let slot = TransitSlot::prepare(&setup, ID).unwrap();
    holds(Arc::new(slot), &|| Arc::new(TransitSlot::at(&setup, ID).unwrap())).await;
}

#[tokio::test]
async fn keys_of_a_token() {
    let Some(hsm) = SoftHsm::token() else { return };
    let folder = tempfile::tempdir().unwrap();
    let setup = hsm.setup(&root(&folder));
    let slot = Pkcs11Slot::prepare(&setup, ID).unwrap();
    holds(Arc::new(slot), &|| Arc::new(Pkcs11Slot::at(&setup, ID).unwrap())).await;
}
