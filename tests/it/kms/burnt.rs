//! A lost host whose root was in KMS. The wrapped roots in the bucket name the keys that wrapped them, so the end of one that is
//! destroyed at a date can be read back whenever the host burnt.

use wangchuan::clock::Clock as _;
use wangchuan::installation::Installation;
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

/// A statement in the control database, behind the agent's back.
async fn sql(world: &World, text: &'static str) {
    use sqlx::Connection as _;
    let address = format!("sqlite://{}", world.path("state/control.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&address).await.unwrap();
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// How many wrapped roots lie in the bucket.
fn world_roots(world: &World) -> usize {
    std::fs::read_dir(world.path("bucket/wangchuan/state-roots")).unwrap().count()
}

/// Takes each wrapped root of that name away and puts it back: whether a look at the newest state missed it.
async fn missed_one_by_one(world: &World, installation: &Installation, start: &str) -> Vec<bool> {
    let mut missed = Vec::new();
    for entry in std::fs::read_dir(world.path("bucket/wangchuan/state-roots")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(start) {
            let away = world.path("away");
            std::fs::rename(&path, &away).unwrap();
            let check = installation.keyring.check_state(&installation.control).await.unwrap().unwrap();
            missed.push(!check.problems.is_empty());
            std::fs::rename(&away, &path).unwrap();
        }
    }
    missed
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

/// The root of a change that was given up had the same number as the next one: each is stored by itself.
#[tokio::test]
async fn the_root_that_is_made_again_after_a_change_was_given_up_lies_in_the_bucket_too() {
    let (kms, world) = world(30).await;
    let installation = world.open().await;
    snapshot(&installation).await;
    erase_one(&world, &installation).await;
    // Behind the new root's copy, when the record under it is announced.
    sql(
        &world,
        "CREATE TRIGGER fault BEFORE INSERT ON meta WHEN NEW.name = 'second_place.intent' \
         AND EXISTS (SELECT 1 FROM rekey WHERE ended_at IS NULL) BEGIN SELECT RAISE(ABORT, 'fault'); END",
    )
    .await;
    shred_due(&installation).await.unwrap_err();
    sql(&world, "DROP TRIGGER fault").await;
    assert_eq!(world_roots(&world), 2, "the trigger came too early");
    shred_due(&installation).await.unwrap();
    assert_eq!(roots(&installation).await, [2]);
    // The look at the newest state misses its own root, and no other of the same number.
    let missed = missed_one_by_one(&world, &installation, "0000000002-").await;
    assert!(matches!(missed[..], [true, false] | [false, true]), "{missed:?}");
    let slot = empty_slot(&kms, &world, installation.id());
    let living = living_copies(slot.as_ref(), &world, &installation).await;
    assert_eq!(living.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [2]);
    assert!(living[0].1.is_same(&installation.keyring.slot().open(2).await.unwrap()));
    installation.close().await.unwrap();
    burn(&world);
    assert_eq!(recover(&world).await.generation, 2);
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
