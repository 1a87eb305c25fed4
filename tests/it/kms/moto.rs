//! The protocol on moto, which somebody else wrote from AWS's own model of it: every call of the slot is understood, and its answers
//! are. Its semantics are not AWS's (it opens what is about to be deleted, and deletes nothing): those are tried on our own machine.

use std::time::Duration;

use wangchuan::keys::kms_slot::client::KmsClient;
use wangchuan::keys::kms_slot::{KmsSetup, KmsSlot};
use wangchuan::keys::slot::{DestroyStep, Presence, RootSlot as _, SlotError};
use wangchuan::policy::registry::SecretText;
use wangchuan::random::SystemRandom;

use crate::support::moto::Moto;

fn setup_of(moto: &Moto, folder: &std::path::Path) -> KmsSetup {
    KmsSetup {
        region: "eu-west-1".to_owned(),
        endpoint: Some(moto.endpoint()),
        keys: Some((SecretText::new("AKIDTEST".to_owned()), SecretText::new("secret".to_owned()))),
        folder: folder.to_owned(),
        deletion_window_days: 30,
        minimum_interval: Duration::ZERO,
        timeout: Some(Duration::from_mins(1)),
        stale_pause: Duration::from_millis(10),
    }
}

#[tokio::test]
async fn every_call_has_the_shape_of_the_protocol() {
    let Some(moto) = Moto::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let setup = setup_of(&moto, &folder.path().join("root"));
    let slot = KmsSlot::prepare(&setup, [5; 16]).unwrap();
    let first = slot.create(1, &SystemRandom).await.unwrap();
    let second = slot.create(2, &SystemRandom).await.unwrap();
    assert!(!first.is_same(&second) && first.is_same(&slot.open(1).await.unwrap()));
    let begun = wangchuan::clock::Clock::now(&wangchuan::clock::SystemClock);
    let done = slot.destroy(1).await.unwrap();
    assert!(done.steps.contains(&DestroyStep::ServiceScheduled), "{done:?}");
    let date = done.irrevocable_at.unwrap();
    let days = (date - begun).num_hours();
    assert!((29 * 24..=31 * 24).contains(&days), "{date}");
    match slot.verify_gone(1).await {
        Err(SlotError::NotYet { at, .. }) => assert!((at - date).num_seconds().abs() <= 1, "{at} {date}"),
        other => panic!("{other:?}"),
    }
    let present: Vec<_> =
        slot.list().await.unwrap().iter().map(|found| (found.generation, found.presence == Presence::Usable)).collect();
    assert_eq!(present, [(1, false), (2, true)]);
    assert!(second.is_same(&slot.open(2).await.unwrap()));
    // What only a crash asks for.
    let client = KmsClient::new(&setup).unwrap();
    let keys = client.keys(10).await.unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in &keys {
        let tags = client.tags(key).await.unwrap();
        assert!(tags.contains(&("wangchuan-installation".to_owned(), "05".repeat(16))), "{tags:?}");
        let known = client.describe(key).await.unwrap().unwrap();
        assert!(known.never_exportable() && known.arn.ends_with(key.as_str()), "{known:?}");
    }
    assert!(client.describe("00000000-0000-4000-8000-000000000000").await.unwrap().is_err());
}
