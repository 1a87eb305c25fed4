//! A lost host whose root was in KMS. The wrapped roots in the bucket name the keys that wrapped them, so the end of one that is
//! destroyed at a date can be read back whenever the host burnt.

use wangchuan::clock::Clock as _;
use wangchuan::keys::kms_slot::KmsSlot;
use wangchuan::keys::slot::RootSlot;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::shred::shred_due;

use super::trouble::{erase_one, let_dates_pass, world};
use crate::cycle::burnt_service::{burn, comes_back, living_copies, old_copies_open_nothing, recover, roots};
use crate::support::kms::{Kms, days};
use crate::support::world::{World, body, pass_time, run_now, snapshot};

/// A slot with a folder that has nothing.
fn empty_slot(kms: &Kms, world: &World, id: [u8; 16]) -> Box<dyn RootSlot> {
    let folder = world.path("empty");
    let _ = std::fs::remove_dir_all(&folder);
    Box::new(KmsSlot::prepare(&kms.setup(&folder), id).unwrap())
}

#[tokio::test]
async fn bucket_service_and_configuration_bring_a_lost_host_back() {
    let (_kms, world) = world(30).await;
    comes_back(&world).await;
}

#[tokio::test]
async fn every_object_that_ever_was_in_the_bucket_and_the_live_service_open_nothing_destroyed() {
    let (kms, world) = world(40).await;
    old_copies_open_nothing(&world, async |id| empty_slot(&kms, &world, id)).await;
}

#[tokio::test]
async fn a_host_that_burns_before_the_date_waits_for_it_and_notices_who_calls_it_off() {
    let (kms, world) = world(40).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = erase_one(&world, &installation).await;
    shred_due(&installation).await.unwrap();
    // A certificate takes the state to the second place first, with the date of the old root.
    certify_due(&installation).await.unwrap();
    let date = world.clock.now() + days(7);
    pass_time(&world, &installation, days(3)).await;
    installation.close().await.unwrap();
    burn(&world);
    // While nobody looks, somebody calls it off: the copy of the old root would open again.
    kms.machine().administer("CancelKeyDeletion", 0);
    kms.machine().administer("EnableKey", 0);
    assert_eq!(recover(&world).await.generation, 2);
    let installation = world.open().await;
    shred_due(&installation).await.unwrap();
    assert_eq!((roots(&installation).await, kms.state(0)), (vec![2], "PendingDeletion".to_owned()));
    let waits = run_now(&installation, &run).await;
    let later = body(&waits).irrevocable_at;
    assert_eq!((waits.state.as_str(), later), ("shred-pending", Some(world.clock.now() + days(7))));
    assert!(later > Some(date));
    let slot = empty_slot(&kms, &world, installation.id());
    let living = living_copies(slot.as_ref(), &world, &installation).await;
    assert_eq!(living.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [2]);

    installation.close().await.unwrap();
    burn(&world);
    recover(&world).await;
    let installation = world.open().await;
    let_dates_pass(&world, &installation).await;
    let done = run_now(&installation, &run).await;
    assert!(matches!(done.state.as_str(), "shredded" | "final"), "{}", done.state);
    let gone = installation.control.read().await.unwrap().doomed_roots().await.unwrap();
    assert!(gone.iter().all(|root| root.gone_at.is_some() && root.called_off == 1), "{gone:?}");
    installation.close().await.unwrap();
}
