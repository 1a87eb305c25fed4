//! Cells in which rows of several runs lie, cells that changed their policy's name, and what a shred waits for.

use chrono::TimeDelta;
use wangchuan::backup::object_store::{ListedObject, ObjectStore, PutOutcome, Result as StoreResult};
use wangchuan::control::{PinKind, RunRow};
use wangchuan::installation::Installation;
use wangchuan::keys::Key;
use wangchuan::keys::tree::{Slot, Subtree};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::backup::{Wanted, take_snapshot};
use wangchuan::tasks::shred::{ShredReport, shred_due};

use super::requests::{hold_subject, release};
use crate::support::world::{Making, World, forget, restore, retain, run_now, snapshot};

async fn readable(installation: &Installation, run: &RunRow) -> i64 {
    let mut tx = installation.control.read().await.unwrap();
    tx.rows_still_readable(&run.id, run.verified_snapshot.unwrap()).await.unwrap()
}

fn reason_of<'r>(report: &'r ShredReport, run: &RunRow) -> &'r str {
    report.waiting.iter().find(|(id, _)| *id == run.id).map_or("", |(_, reason)| reason)
}

#[tokio::test]
async fn held_rows_do_not_die_through_the_bucket_of_another_run() {
    let world = World::standard().await;
    let installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    snapshot(&installation).await;
    let request = forget(&installation, &leaver).await;
    hold_subject(&installation, &leaver, "h-1").await;
    let retention = retain(&installation).await;
    snapshot(&installation).await;
    let sealed = readable(&installation, &request).await;
    assert!(sealed > 0);
    let report = shred_due(&installation).await.unwrap();
    assert!(reason_of(&report, &request).contains("h-1"), "{report:?}");
    assert!(reason_of(&report, &retention).contains("h-1"), "{report:?}");
    assert_eq!(readable(&installation, &request).await, sealed);
    release(&installation, "h-1").await;
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.contains(&request.id) && report.waiting.is_empty(), "{report:?}");
    assert_eq!(readable(&installation, &request).await, 0);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn rows_in_grace_outlive_the_bucket_of_an_earlier_run() {
    let world = World::make(Making { grace: "72 hours", ..Making::default() }).await;
    let installation = world.open().await;
    let held = world.shop.picks.held.clone();
    snapshot(&installation).await;
    hold_subject(&installation, &held, "h-2").await;
    let retention = retain(&installation).await;
    release(&installation, "h-2").await;
    world.clock.advance(TimeDelta::hours(50));
    let request = forget(&installation, &held).await;
    snapshot(&installation).await;
    let sealed = readable(&installation, &request).await;
    assert!(sealed > 0);
    world.clock.advance(TimeDelta::hours(23));
    let report = shred_due(&installation).await.unwrap();
    assert!(report.generation.is_some() && reason_of(&report, &retention).is_empty(), "{report:?}");
    assert!(reason_of(&report, &request).contains("grace"), "{report:?}");
    assert_eq!(readable(&installation, &request).await, sealed, "a pin of one run holds what another has in grace");
    world.clock.advance(TimeDelta::hours(50));
    let report = shred_due(&installation).await.unwrap();
    assert!(report.shredded.contains(&request.id), "{report:?}");
    assert_eq!(readable(&installation, &request).await, 0);
    let pins = installation.control.read().await.unwrap().pins().await.unwrap();
    assert!(pins.iter().all(|pin| pin.run != retention.id || pin.kind == PinKind::Fresh), "{pins:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn kept_rows_that_were_sealed_under_another_policy_name_still_open() {
    let world = World::make(Making { bucket: "day", ..Making::default() }).await;
    let installation = world.open().await;
    let first = snapshot(&installation).await;
    installation.close().await.unwrap();
    world.edit_config("id = \"completed-orders\"", "id = \"orders-by-law\"");
    let installation = world.open().await;
    let keeper = world.shop.picks.keeper.clone();
    let run = forget(&installation, &keeper).await;
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id], "{report:?}");
    let restored = restore(&world, &installation, &first, "old.db").await.unwrap();
    assert!(restored.is_whole() && restored.frames_shredded > 0, "{restored:?}");
    let of = format!("SELECT count(*) FROM orders WHERE customer_id = '{keeper}'");
    assert_eq!(world.number("shop.db", &of).await, 3);
    assert_eq!(world.number("old.db", &of).await, 3);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_pin_dies_with_the_run_that_erases_its_last_row() {
    let world = World::make(Making { bucket: "year", ..Making::default() }).await;
    let installation = world.open().await;
    let held = world.shop.picks.held.clone();
    snapshot(&installation).await;
    hold_subject(&installation, &held, "h-3").await;
    retain(&installation).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let pinned = installation.control.read().await.unwrap().pins().await.unwrap().len();
    assert!(pinned > 0);
    release(&installation, "h-3").await;
    let run = retain(&installation).await;
    snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let run = run_now(&installation, &run.id).await;
    assert_eq!((run.state.as_str(), readable(&installation, &run).await), ("shredded", 0));
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.pins().await.unwrap(), Vec::new());
    let groups = tx.key_groups().await.unwrap();
    let destroyed = groups.iter().filter(|group| group.kind == "pins" && group.state == "destroyed");
    assert_eq!(destroyed.map(|group| group.count as usize).sum::<usize>(), pinned);
    drop(tx);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_fresh_cell_is_never_taken_for_the_cell_of_its_bucket() {
    let world = World::standard().await;
    let installation = world.open().await;
    let mut tx = installation.control.begin().await.unwrap();
    let fresh = tx.add_cell(None, 70, Some(71)).await.unwrap();
    assert_eq!(tx.find_cell(None, 70).await.unwrap(), None);
    let plain = tx.cell(None, 70).await.unwrap();
    assert_ne!(plain.id, fresh.id);
    assert_eq!((plain.fresh, plain.pin, fresh.fresh, fresh.pin), (None, None, Some(71), Some(71)));
    tx.set_cell_pin(plain.id, 72).await.unwrap();
    let pins = tx.preserving_pins().await.unwrap();
    assert_eq!(pins.into_iter().collect::<Vec<_>>(), [((None, 70), 72)]);
    // A number that a fresh pin and a bucket share is not a clash.
    assert_ne!(tx.cell(None, 71).await.unwrap().id, fresh.id);
    drop(tx);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn keys_of_what_is_no_longer_registered_wait_with_a_reason() {
    let world = World::standard().await;
    let installation = world.open().await;
    let leaver = world.shop.picks.leaver.clone();
    snapshot(&installation).await;
    let run = forget(&installation, &leaver).await;
    snapshot(&installation).await;
    let rename = "UPDATE bucket SET collection = 'postcards' WHERE collection = 'complaints' RETURNING 1";
    world.number("state/control.db", rename).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(reason_of(&report, &run).contains("shop.postcards"), "{report:?}");
    world
        .number(
            "state/control.db",
            "UPDATE bucket SET collection = 'complaints' WHERE collection = 'postcards' RETURNING 1",
        )
        .await;
    assert_eq!(shred_due(&installation).await.unwrap().shredded, vec![run.id]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_run_without_sealed_rows_names_no_generation() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let nobody = forget(&installation, "C-nobody").await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded.len(), 2, "{report:?}");
    assert_eq!(run_now(&installation, &nobody.id).await.generation, None);
    assert_eq!(run_now(&installation, &run.id).await.generation, report.generation);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_was_left_running_does_not_hold_up_the_shred() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    let second = snapshot(&installation).await;
    let mut tx = installation.control.begin().await.unwrap();
    let slot = installation.keyring.free_numbers(&mut tx, wangchuan::control::SlotTable::Chain, 1).await.unwrap()[0];
    let key = Key::make(&SystemRandom).unwrap();
    installation.keyring.insert(&mut tx, &[(Slot::new(Subtree::Chains, slot).unwrap(), key)]).await.unwrap();
    tx.add_chain(slot, "shop", installation.clock.now()).await.unwrap();
    let mut left = second.clone();
    (left.id, left.chain, left.sequence) = ("timed-out".to_owned(), slot, second.sequence + 1);
    tx.begin_snapshot(&mut left).await.unwrap();
    tx.commit().await.unwrap();
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id], "{report:?}");
    assert_eq!(installation.control.read().await.unwrap().running_snapshots().await.unwrap(), 0);
    assert_eq!(snapshot(&installation).await.sequence, second.sequence + 1);
    installation.close().await.unwrap();
}

/// Lets another process take the work lease over while the first object is stored.
struct Usurped<'a> {
    inner: &'a dyn ObjectStore,
    world: &'a World,
}

#[async_trait::async_trait]
impl ObjectStore for Usurped<'_> {
    async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> StoreResult<PutOutcome> {
        self.world.number("state/control.db", "UPDATE lease SET token = token + 1, holder = 'b' RETURNING 1").await;
        self.inner.put_if_absent(name, bytes).await
    }

    async fn get(&self, name: &str, limit: usize) -> StoreResult<Vec<u8>> {
        self.inner.get(name, limit).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u32) -> StoreResult<Vec<u8>> {
        self.inner.get_range(name, offset, length).await
    }

    async fn list(&self, prefix: &str) -> StoreResult<Vec<ListedObject>> {
        self.inner.list(prefix).await
    }

    async fn head(&self, name: &str) -> StoreResult<Option<u64>> {
        self.inner.head(name).await
    }
}

#[tokio::test]
async fn a_snapshot_whose_lease_was_lost_is_not_committed() {
    let world = World::standard().await;
    let installation = world.open().await;
    let repository = installation.backup().unwrap().repository.clone();
    let usurped = Usurped { inner: repository.as_ref(), world: &world };
    let taken =
        take_snapshot(&installation.ground().unwrap(), &usurped, &installation.signer, "shop", Wanted::Full).await;
    assert!(taken.unwrap_err().to_string().contains("lease"));
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!((tx.snapshots(None).await.unwrap().len(), tx.running_snapshots().await.unwrap()), (0, 0));
}

#[tokio::test]
async fn an_unreadable_barrier_is_a_reason_to_wait() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let run = forget(&installation, &world.shop.picks.leaver.clone()).await;
    let newest = snapshot(&installation).await;
    let manifest = newest.manifest.unwrap();
    let rename = |from: &str, to: &str| {
        format!(
            "UPDATE snapshot SET manifest = replace(manifest, '{from}', '{to}') WHERE number = {} RETURNING 1",
            newest.number
        )
    };
    let tail = manifest[manifest.len() - 6..].to_owned();
    world.number("state/control.db", &rename(&tail, "absent")).await;
    let report = shred_due(&installation).await.unwrap();
    assert!(reason_of(&report, &run).contains("cannot be read"), "{report:?}");
    assert_eq!(report.shredded, Vec::<String>::new());
    assert!(readable(&installation, &run).await > 0);
    world.number("state/control.db", &rename("absent", &tail)).await;
    assert_eq!(shred_due(&installation).await.unwrap().shredded, vec![run.id]);
    installation.close().await.unwrap();
}
