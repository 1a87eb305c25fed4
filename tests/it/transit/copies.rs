//! What the slot does not reach, shown and not only written down: a copy of the service's storage from before the trim, with
//! its unseal key, brings the destroyed root back. That is why the slot is of class B and certificates name a date.

use wangchuan::keys::slot::{Residual, RootSlot, SlotError};
use wangchuan::keys::transit_slot::TransitSlot;
use wangchuan::random::SystemRandom;

use crate::support::bao::Bao;
use crate::support::world::copy_folder;

const ID: [u8; 16] = [5; 16];

#[tokio::test]
async fn an_old_copy_of_the_service_and_its_unseal_key_bring_a_trimmed_root_back() {
    let Some(mut bao) = Bao::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = bao.token(&["wangchuan"], "1h").await;
    let setup = bao.setup(&folder.path().join("root"), &token);
    let slot = TransitSlot::prepare(&setup, ID).unwrap();
    let first = slot.create(1, &SystemRandom).await.unwrap();
    let second = slot.create(2, &SystemRandom).await.unwrap();
    // The thief's copies: the storage of the service, and the wrapped roots of the agent's host.
    bao.stop();
    bao.copy_storage(&folder.path().join("storage"));
    copy_folder(&folder.path().join("root"), &folder.path().join("old"));
    bao.run().await;
    bao.unseal().await;
    slot.destroy(1).await.unwrap();
    slot.verify_gone(1).await.unwrap();
    let old = TransitSlot::at(&bao.setup(&folder.path().join("old"), &token), ID).unwrap();
    let refused = old.open(1).await.err().unwrap();
    assert!(matches!(refused, SlotError::VersionGone { generation: 1, version: 2, lowest: 3, .. }), "{refused}");
    assert!(second.is_same(&old.open(2).await.unwrap()));

    bao.stop();
    bao.put_storage(&folder.path().join("storage"));
    bao.run().await;
    bao.unseal().await;
    assert!(first.is_same(&old.open(1).await.unwrap()), "the old copy opens it again");
    assert!(slot.claim().residuals.contains(&Residual::ServiceBackups));
    assert_eq!(slot.claim().residual_days, Some(7));
    // And the agent notices, as soon as it looks, that its destruction was undone.
    assert!(matches!(slot.verify_gone(1).await, Err(SlotError::StillThere { .. })));
}
