//! The bucket on Ceph RGW: versions, Object Lock and bucket policies as a real server has them. One test, for its server takes some
//! 20 seconds to start.

mod policies;
mod retention;

use chrono::{DateTime, Utc};
use wangchuan::backup::codec::Sha256;
use wangchuan::backup::lock::ObjectLocker as _;
use wangchuan::backup::object_store::{ObjectStore as _, PutOutcome, RepositoryError, get_verified};
use wangchuan::backup::removal::{ObjectRemover as _, Removal};
use wangchuan::backup::repository::S3Repository;
use wangchuan::backup::repository::abilities::{Abilities, Ability};
use wangchuan::random::SystemRandom;

use crate::support::rgw::{OWNER, Rgw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_with_versions_and_object_lock() {
    let Some(rgw) = Rgw::start().await else { return };
    rgw.make_bucket("plain", false).await;
    rgw.make_bucket("locked", true).await;
    objects_go_there_and_back(&rgw).await;
    abilities_are_told(&rgw).await;
    a_lock_is_kept_and_ends(&rgw).await;
    policies::the_shipped_policies_are_enough_and_no_more(&rgw).await;
    retention::chains_go_and_locks_are_respected(&rgw).await;
}

fn now() -> DateTime<Utc> {
    wangchuan::clock::Clock::now(&wangchuan::clock::SystemClock)
}

fn object(seed: u8, bytes: usize) -> (String, Vec<u8>) {
    let bytes: Vec<u8> = (0..bytes).map(|at| (at >> 3) as u8 ^ seed).collect();
    (format!("packs/{}", Sha256::of(&bytes)), bytes)
}

/// What every object store must do, by the words of the port.
async fn objects_go_there_and_back(rgw: &Rgw) {
    for bucket in ["plain", "locked"] {
        let repository = S3Repository::connect(&rgw.settings(bucket, OWNER)).await.unwrap();
        repository.check_bucket().await.unwrap();
        let (name, bytes) = object(1, 17_000_000);
        assert_eq!(repository.head(&name).await, Ok(None));
        assert_eq!(repository.put_if_absent(&name, bytes.clone()).await, Ok(PutOutcome::Created), "{bucket}");
        assert!(repository.put_if_absent(&name, bytes.clone()).await.is_ok(), "{bucket}");
        assert!(get_verified(&repository, &name, &Sha256::of(&bytes), bytes.len()).await.unwrap() == bytes);
        assert_eq!(repository.get_range(&name, 16_000_000, 9).await.unwrap(), bytes[16_000_000..16_000_009]);
        let beyond = repository.get_range(&name, 17_000_000, 1).await;
        assert!(matches!(beyond, Err(RepositoryError::Corrupt { .. })), "{bucket}: {beyond:?}");
        assert_eq!(repository.head(&name).await, Ok(Some(17_000_000)));
        let listed = repository.list("packs/").await.unwrap();
        assert_eq!(listed.iter().map(|found| (&found.name, found.bytes)).collect::<Vec<_>>(), [(&name, 17_000_000)]);
        let missing = repository.get("packs/none", 10).await;
        assert_eq!(missing, Err(RepositoryError::NotFound { name: "packs/none".to_owned() }));
    }
    let absent = S3Repository::connect(&rgw.settings("absent", OWNER)).await.unwrap();
    let missing = RepositoryError::BucketMissing { bucket: "absent".to_owned() };
    assert_eq!(absent.check_bucket().await.unwrap_err(), missing);
}

async fn abilities_of(rgw: &Rgw, bucket: &str) -> Abilities {
    let repository = S3Repository::connect(&rgw.settings(bucket, OWNER)).await.unwrap();
    repository.prove_abilities(&repository, &SystemRandom, now()).await.unwrap()
}

/// The table in config/README.md says the same.
async fn abilities_are_told(rgw: &Rgw) {
    let plain = abilities_of(rgw, "plain").await;
    assert_eq!(plain.conditional_put, Ability::Proved);
    assert!(matches!(plain.checksum_enforced, Ability::Missing(_)), "{plain:?}");
    assert!(matches!(plain.versions, Ability::Missing(_)), "{plain:?}");
    assert!(matches!(plain.object_lock, Ability::Missing(_)), "{plain:?}");
    let locked = abilities_of(rgw, "locked").await;
    // With versions on, this RGW ignores the precondition.
    assert!(matches!(locked.conditional_put, Ability::Missing(_)), "{locked:?}");
    assert_eq!((locked.versions, locked.object_lock), (Ability::Proved, Ability::Proved));
}

async fn a_lock_is_kept_and_ends(rgw: &Rgw) {
    let repository = S3Repository::connect(&rgw.settings("locked", OWNER)).await.unwrap();
    let (name, bytes) = object(2, 1000);
    repository.put_if_absent(&name, bytes.clone()).await.unwrap();
    let versions = repository.versions(&name).await.unwrap();
    assert_eq!((versions.len(), versions[0].is_marker), (1, false));
    assert_eq!(repository.locked_until(&name).await, Ok(None));
    let until = now() + chrono::TimeDelta::seconds(4);
    repository.lock_until(&name, until).await.unwrap();
    let found = repository.locked_until(&name).await.unwrap().unwrap();
    assert!(found >= until && found <= until + chrono::TimeDelta::seconds(1), "{found}");
    // Never shortened: an earlier end changes nothing.
    repository.lock_until(&name, until - chrono::TimeDelta::seconds(2)).await.unwrap();
    assert_eq!(repository.locked_until(&name).await.unwrap(), Some(found));
    assert_eq!(repository.remove(&name, &versions[0]).await, Ok(Removal::Locked(Some(found))));
    assert!(repository.get(&name, 1000).await.unwrap() == bytes);
    let unlocked = "packs/none-such";
    assert!(repository.versions(unlocked).await.unwrap().is_empty());
    while now() <= found {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(repository.remove(&name, &versions[0]).await, Ok(Removal::Gone));
    assert!(repository.versions(&name).await.unwrap().is_empty());
}
