//! The slot by itself: every call twice, in every order that a generation change makes.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::json;
use wangchuan::keys::slot::{DestroyStep, GoneCheck, RootEvidence, RootSlot, SlotClass, SlotError};
use wangchuan::keys::transit_slot::TransitSlot;
use wangchuan::random::SystemRandom;

use crate::support::bao::Bao;

const ID: [u8; 16] = [5; 16];

struct Place {
    bao: Bao,
    folder: tempfile::TempDir,
    slot: TransitSlot,
}

impl Place {
    async fn new() -> Option<Self> {
        let bao = Bao::start().await?;
        let folder = tempfile::tempdir().unwrap();
        let token = bao.token(&["wangchuan"], "1h").await;
        let slot = TransitSlot::prepare(&bao.setup(&folder.path().join("root"), &token), ID).unwrap();
        Some(Self { bao, folder, slot })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    async fn generations(&self) -> Vec<i64> {
        self.slot.list().await.unwrap().iter().map(|present| present.generation).collect()
    }

    async fn number(&self, name: &str) -> u64 {
        self.bao.key("wangchuan").await[name].as_u64().unwrap()
    }
}

fn make_private(path: &Path) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn generations_are_made_once_and_destroyed_with_evidence() {
    let Some(place) = Place::new().await else { return };
    let slot = &place.slot;
    let first = slot.create(1, &SystemRandom).await.unwrap();
    assert!(first.is_same(&slot.create(1, &SystemRandom).await.unwrap()), "the same call gives the same root");
    assert_eq!(place.number("latest_version").await, 2, "and makes no version twice");
    let second = slot.create(2, &SystemRandom).await.unwrap();
    assert!(second.is_same(&slot.open(2).await.unwrap()) && !second.is_same(&first));
    assert_eq!(place.generations().await, [1, 2]);
    assert!(matches!(slot.verify_gone(1).await, Err(SlotError::StillThere { generation: 1, .. })));

    let done = slot.destroy(1).await.unwrap();
    assert!(done.was_present && done.steps.contains(&DestroyStep::ServiceDestroyed), "{done:?}");
    let gone = slot.verify_gone(1).await.unwrap();
    let read_back = gone.read_back.unwrap();
    assert_eq!((read_back.key_version, read_back.min_available_version), (2, 3));
    assert!(!read_back.exportable && !read_back.allow_plaintext_backup && !read_back.deletion_allowed);
    let evidence = RootEvidence::new(done, gone);
    assert_eq!((evidence.claim.class, evidence.claim.residual_days), (SlotClass::B, Some(7)));
    assert_eq!(place.number("min_available_version").await, 3);
    assert!(matches!(slot.open(1).await, Err(SlotError::Missing { .. })));
    assert_eq!(place.generations().await, [2]);
    assert!(!slot.destroy(1).await.unwrap().was_present, "again: nothing there is not an error");
    assert!(slot.verify_gone(1).await.unwrap().checks.contains(&GoneCheck::ServiceReadBack));
    assert!(second.is_same(&slot.open(2).await.unwrap()), "and the other root is untouched");
    let text = std::fs::read_to_string(place.path("root-2.wrapped")).unwrap();
    assert!(text.contains("\"version\":3") && text.contains("vault:v3:"), "{text}");
}

#[tokio::test]
async fn a_root_that_was_never_used_goes_without_touching_the_one_in_force() {
    let Some(place) = Place::new().await else { return };
    let slot = &place.slot;
    let first = slot.create(1, &SystemRandom).await.unwrap();
    let unused = slot.create(2, &SystemRandom).await.unwrap();
    let done = slot.destroy(2).await.unwrap();
    assert!(done.was_present && !done.steps.contains(&DestroyStep::ServiceDestroyed), "{done:?}");
    assert_eq!(place.number("min_available_version").await, 0);
    let claimed = slot.verify_gone(2).await;
    assert!(matches!(claimed, Err(SlotError::StillThere { .. })), "its version is still there: {claimed:?}");
    assert!(first.is_same(&slot.open(1).await.unwrap()));
    let again = slot.create(2, &SystemRandom).await.unwrap();
    assert!(!again.is_same(&unused) && place.number("latest_version").await == 4);
    slot.destroy(1).await.unwrap();
    assert_eq!(slot.verify_gone(1).await.unwrap().read_back.unwrap().min_available_version, 4);
    assert!(again.is_same(&slot.open(2).await.unwrap()));
    // The last one: a version that nothing rests on takes its place.
    slot.destroy(2).await.unwrap();
    slot.verify_gone(2).await.unwrap();
    assert_eq!((place.generations().await, place.number("min_available_version").await), (vec![], 5));
}

#[tokio::test]
async fn a_crash_between_the_version_and_the_wrapped_root_makes_no_second_version() {
    let Some(place) = Place::new().await else { return };
    place.slot.create(1, &SystemRandom).await.unwrap();
    // As it is after the intent and the rotation of generation 2.
    let text = std::fs::read_to_string(place.path("root-1.wrapped")).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["generation"] = json!(2);
    record["version"] = json!(3);
    record.as_object_mut().unwrap().remove("root");
    std::fs::write(place.path("root-2.intent"), record.to_string()).unwrap();
    make_private(&place.path("root-2.intent"));
    place.bao.good(Method::POST, "transit/keys/wangchuan/rotate", json!({})).await;
    let root = place.slot.create(2, &SystemRandom).await.unwrap();
    assert_eq!(place.number("latest_version").await, 3);
    assert!(!place.path("root-2.intent").exists());
    assert!(root.is_same(&place.slot.open(2).await.unwrap()));
}

#[tokio::test]
async fn records_that_were_tampered_with_open_nothing_and_destroy_nothing() {
    let Some(place) = Place::new().await else { return };
    let slot = &place.slot;
    slot.create(1, &SystemRandom).await.unwrap();
    let second = slot.create(2, &SystemRandom).await.unwrap();
    let good = std::fs::read_to_string(place.path("root-2.wrapped")).unwrap();
    let older = std::fs::read_to_string(place.path("root-1.wrapped")).unwrap();
    let swapped = older.replace("\"generation\":1", "\"generation\":2");
    for bad in
        [&good.replace("vault:v3:", "vault:v3:AA"), &swapped, "{}", "\u{0}", &good.replace("wangchuan", "another")]
    {
        std::fs::write(place.path("root-2.wrapped"), bad).unwrap();
        let opened = slot.open(2).await.err();
        assert!(matches!(opened, Some(SlotError::Damaged { .. })), "{bad}: {opened:?}");
        if !bad.contains("vault") || bad.contains("another") {
            assert!(matches!(slot.destroy(1).await, Err(SlotError::Damaged { .. })), "unknown what to keep: {bad}");
        }
    }
    assert_eq!(place.number("min_available_version").await, 0);
    std::fs::write(place.path("root-2.wrapped"), good).unwrap();
    assert!(second.is_same(&slot.open(2).await.unwrap()));
    // A damaged record of the root that is to go does not keep it.
    std::fs::write(place.path("root-1.wrapped"), "rubbish").unwrap();
    assert_eq!(place.generations().await, [1, 2]);
    slot.destroy(1).await.unwrap();
    slot.verify_gone(1).await.unwrap();
    assert_eq!(place.number("min_available_version").await, 3);
    // An old record that somebody put back hinders no later destruction.
    std::fs::write(place.path("root-1.wrapped"), older).unwrap();
    make_private(&place.path("root-1.wrapped"));
    assert_eq!(place.generations().await, [2]);
    slot.create(3, &SystemRandom).await.unwrap();
    slot.destroy(2).await.unwrap();
    slot.verify_gone(2).await.unwrap();
    assert_eq!(place.generations().await, [3]);
}

#[tokio::test]
async fn a_key_that_may_leave_the_service_or_belongs_to_others_is_refused() {
    let Some(place) = Place::new().await else { return };
    let another = tempfile::tempdir().unwrap();
    let token = place.bao.token(&["wangchuan"], "1h").await;
    place.slot.create(1, &SystemRandom).await.unwrap();
    let other = TransitSlot::prepare(&place.bao.setup(&another.path().join("root"), &token), [6; 16]).unwrap();
    let refused = other.create(1, &SystemRandom).await.err().unwrap();
    assert!(matches!(&refused, SlotError::Unfit { what, .. } if what.contains("used before")), "{refused}");

    place.bao.good(Method::POST, "transit/keys/wangchuan/config", json!({"exportable": true})).await;
    let refused = place.slot.create(2, &SystemRandom).await.err().unwrap();
    assert!(matches!(&refused, SlotError::Unfit { what, .. } if what.contains("exported")), "{refused}");
    // What is there can still be destroyed, but no more is claimed for it than was shown.
    let done = place.slot.destroy(1).await.unwrap();
    let gone = place.slot.verify_gone(1).await.unwrap();
    assert!(gone.read_back.unwrap().exportable);
    assert_eq!(RootEvidence::new(done, gone).claim.class, SlotClass::D);
    place.bao.good(Method::POST, "transit/keys/wangchuan/config", json!({"exportable": false})).await;
    assert_eq!(place.bao.key("wangchuan").await["exportable"], true, "the switch only goes one way");

    place.bao.good(Method::POST, "transit/keys/wangchuan/config", json!({"deletion_allowed": true})).await;
    place.bao.good(Method::DELETE, "transit/keys/wangchuan", serde_json::Value::Null).await;
    assert!(matches!(place.slot.list().await, Err(SlotError::Unfit { .. })));
}
