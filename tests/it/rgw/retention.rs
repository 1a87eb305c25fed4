//! Whole installations on this server: snapshots under Object Lock, and what a prune does to them.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use wangchuan::agent::verify_backups;
use wangchuan::backup::lock::ObjectLocker as _;
use wangchuan::backup::object_store::ObjectStore as _;
use wangchuan::backup::removal::ObjectRemover as _;
use wangchuan::backup::repository::S3Repository;
use wangchuan::clock::SystemClock;
use wangchuan::installation::{Installation, Needs, lock_horizons};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::backup::Wanted;
use wangchuan::tasks::locks::take_and_lock;
use wangchuan::tasks::prune::{PruneReport, plan_prune, prune};

use super::now;
use crate::cycle::resumed::{Faulty, denied, take_through};
use crate::support::rgw::{OWNER, Rgw};
use crate::support::world::{Making, World, restore, snapshot};

/// A world in a bucket of this server, with more lines under `[backup]`. Locks run by the server's clock, so this is the real one.
async fn world(rgw: &Rgw, bucket: &str, more: &str) -> World {
    let world = World::make(Making { customers: 20, ..Making::default() }).await;
    let remote = format!(
        "endpoint = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\nkeep = {{ last = 1 }}\n{more}",
        rgw.endpoint(),
        OWNER.id,
        OWNER.secret
    );
    world.edit_config("endpoint = \"embedded\"\ndata = \"bucket\"", &remote);
    world.edit_config("bucket = \"wangchuan\"", &format!("bucket = \"{bucket}\""));
    world
}

async fn open(world: &World) -> Installation {
    let installation =
        Installation::open(world.config(), Needs::ALL, Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap();
    // The world began at another time.
    installation.confirm_clock().await.unwrap();
    installation
}

async fn carry_out(installation: &Installation) -> PruneReport {
    let plan = plan_prune(installation, &[]).await.unwrap();
    prune(installation, &[], &plan).await.unwrap()
}

pub async fn chains_go_and_locks_are_respected(rgw: &Rgw) {
    under_a_lock(rgw).await;
    taken_over_under_a_lock(rgw).await;
    with_versions_alone(rgw).await;
}

/// A pack that an earlier try stored is locked from then; the snapshot that takes it over needs it for longer.
async fn taken_over_under_a_lock(rgw: &Rgw) {
    rgw.make_bucket("continued", true).await;
    let world = world(rgw, "continued", "lock = { mode = \"governance\", days = 1 }").await;
    let installation = open(&world).await;
    let bucket = Faulty::of(&installation, |name| name.starts_with("directories/").then(denied));
    take_through(&installation, &bucket).await.unwrap_err();
    let repository = S3Repository::connect(&rgw.settings("continued", OWNER)).await.unwrap();
    let packs = repository.list("packs/").await.unwrap();
    let [pack] = &packs[..] else { panic!("{packs:?}") };
    let before = repository.locked_until(&pack.name).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (row, problem) = take_and_lock(&installation, "shop", Wanted::Full).await.unwrap();
    assert!(problem.is_none(), "{problem:?}");
    assert_eq!(repository.list("packs/").await.unwrap().len(), 1, "the pack was taken over");
    let own = repository.locked_until(row.manifest.as_deref().unwrap()).await.unwrap().unwrap();
    let after = repository.locked_until(&pack.name).await.unwrap().unwrap();
    assert!(before < own && after >= own, "locked until {before}, then {after}; the manifest until {own}");
    installation.close().await.unwrap();
}

async fn under_a_lock(rgw: &Rgw) {
    rgw.make_bucket("held", true).await;
    let world = world(rgw, "held", "prune = \"delete\"\nlock = { mode = \"governance\", days = 1 }").await;
    let installation = open(&world).await;
    let first = snapshot(&installation).await;
    let repository = S3Repository::connect(&rgw.settings("held", OWNER)).await.unwrap();
    let of_first = [repository.list("packs/").await.unwrap(), repository.list("directories/").await.unwrap()].concat();
    assert!(of_first.len() > 1);
    for object in &of_first {
        let until = repository.locked_until(&object.name).await.unwrap().unwrap();
        assert!(until > now() + TimeDelta::hours(23), "{}: {until}", object.name);
    }
    assert!(repository.locked_until(first.manifest.as_deref().unwrap()).await.unwrap().is_some());
    // The agent's own state is replaced all the time, and not locked.
    let state = repository.list("state/").await.unwrap();
    assert_eq!(repository.locked_until(&state[0].name).await, Ok(None));
    let second = snapshot(&installation).await;
    let [horizon] = &lock_horizons(&installation, &repository).await.unwrap()[..] else { panic!("one store") };
    assert!(horizon.until.is_some_and(|until| until > now() + TimeDelta::hours(23)), "{horizon:?}");
    assert!(horizon.is_near(now()), "a lock of a day is short");

    let plan = plan_prune(&installation, &[]).await.unwrap();
    let going: Vec<_> = plan.going().collect();
    assert!(going.len() == 1 && going[0].locked_until.is_some(), "{going:?}");
    let report = prune(&installation, &[], &plan).await.unwrap();
    // The key is gone although every object is still there, and the report says until when.
    assert!(report.is_well(), "{report:?}");
    assert_eq!((report.destroyed.len(), report.objects_removed, report.left.len()), (1, 0, 1));
    assert!(report.left[0].0.locked_until.is_some() && report.left[0].1.contains("locked until"), "{report:?}");
    for object in &of_first {
        assert_eq!(repository.versions(&object.name).await.unwrap().len(), 1, "{}", object.name);
    }
    let error = restore(&world, &installation, &first, "first.db").await.unwrap_err().to_string();
    assert!(error.contains("destroyed"), "{error}");
    let found = verify_backups(&installation, "shop").await.unwrap();
    assert!(found.problems.is_empty() && found.pruned == 1, "{found:?}");
    let report = restore(&world, &installation, &second, "second.db").await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(world.dump_all("second.db").await, world.dump_all("shop.db").await);
    // Again, and nothing more comes of it before the date.
    let again = carry_out(&installation).await;
    assert_eq!((again.destroyed.len(), again.objects_removed, again.left.len()), (0, 0, 1));
    installation.close().await.unwrap();
}

async fn with_versions_alone(rgw: &Rgw) {
    rgw.make_bucket("versions", true).await;
    let world = world(rgw, "versions", "prune = \"delete\"").await;
    let installation = open(&world).await;
    snapshot(&installation).await;
    let repository = S3Repository::connect(&rgw.settings("versions", OWNER)).await.unwrap();
    let of_first = [repository.list("packs/").await.unwrap(), repository.list("directories/").await.unwrap()].concat();
    // Somebody removed a pack the usual way: what was there lies under a marker, and goes with the rest.
    let owner = rgw.owner();
    owner.delete_object().bucket("versions").key(&of_first[0].name).send().await.unwrap();
    assert_eq!(repository.versions(&of_first[0].name).await.unwrap().len(), 2);
    let second = snapshot(&installation).await;
    let report = carry_out(&installation).await;
    assert!(report.is_well() && report.left.is_empty(), "{report:?}");
    assert_eq!((report.destroyed.len(), report.objects_removed as usize), (1, of_first.len()));
    for object in &of_first {
        assert!(repository.versions(&object.name).await.unwrap().is_empty(), "{}", object.name);
    }
    let report = restore(&world, &installation, &second, "second.db").await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    installation.close().await.unwrap();
}
