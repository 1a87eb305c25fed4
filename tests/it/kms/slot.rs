//! The slot by itself: every call twice, in every order that a generation change makes, with a service that answers late.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::json;
use wangchuan::clock::Clock as _;
use wangchuan::keys::kms_slot::KmsSlot;
use wangchuan::keys::slot::{
    DestroyStep, Destroys, GoneCheck, KeyTrouble, Presence, RootEvidence, RootSlot, SlotClass, SlotError,
};
use wangchuan::random::SystemRandom;

use crate::support::kms::machine::Refused;
use crate::support::kms::{Kms, days};
use crate::support::world::{ManualClock, manual_clock};

const ID: [u8; 16] = [5; 16];

struct Place {
    kms: Kms,
    clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
    slot: KmsSlot,
}

impl Place {
    fn new() -> Self {
        let clock = manual_clock();
        let kms = Kms::start(clock.clone());
        let folder = tempfile::tempdir().unwrap();
        let slot = KmsSlot::prepare(&kms.setup(&folder.path().join("root")), ID).unwrap();
        Self { kms, clock, folder, slot }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn another(&self, name: &str, id: [u8; 16]) -> KmsSlot {
        KmsSlot::prepare(&self.kms.setup(&self.folder.path().join(name)), id).unwrap()
    }

    async fn present(&self) -> Vec<(i64, bool)> {
        let found = self.slot.list().await.unwrap();
        found.iter().map(|present| (present.generation, present.presence == Presence::Usable)).collect()
    }

    /// The date of a destruction that is to come.
    async fn waits_until(&self, generation: i64) -> DateTime<Utc> {
        match self.slot.verify_gone(generation).await {
            Err(SlotError::NotYet { at, .. }) => at,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_root_is_made_once_doomed_at_a_date_and_gone_only_behind_it() {
    let place = Place::new();
    let slot = &place.slot;
    assert!(matches!(slot.abilities().destroys, Destroys::Delayed { at_least_days: 7, .. }));
    assert!(slot.abilities().is_cancellable && slot.class() == SlotClass::C);
    let first = slot.create(1, &SystemRandom).await.unwrap();
    assert!(first.is_same(&slot.create(1, &SystemRandom).await.unwrap()), "the same call gives the same root");
    let second = slot.create(2, &SystemRandom).await.unwrap();
    assert_eq!(place.kms.machine().made(), 2);
    assert_eq!(place.present().await, [(1, true), (2, true)]);
    assert!(matches!(slot.verify_gone(1).await, Err(SlotError::StillThere { .. })));

    let done = slot.destroy(1).await.unwrap();
    let date = place.clock.now() + days(7);
    assert_eq!(done.irrevocable_at, Some(date));
    assert!(done.was_present && done.steps.contains(&DestroyStep::ServiceScheduled), "{done:?}");
    assert_eq!((place.waits_until(1).await, place.present().await), (date, vec![(1, false), (2, true)]));
    assert!(matches!(slot.open(1).await, Err(SlotError::Missing { .. })));
    // Again: the same date, and no new order.
    place.clock.advance(days(1));
    let again = slot.destroy(1).await.unwrap();
    assert!(!again.was_present && !again.steps.contains(&DestroyStep::ServiceScheduled), "{again:?}");
    assert_eq!(again.irrevocable_at, Some(date));

    // The service may be a day late; its word counts, not the calendar.
    place.kms.machine().lateness = days(1);
    place.clock.advance(days(6));
    assert_eq!(place.waits_until(1).await, date);
    place.clock.advance(days(1));
    let gone = slot.verify_gone(1).await.unwrap();
    assert!(gone.checks.contains(&GoneCheck::ServiceReadBack) && gone.checks.contains(&GoneCheck::NeverExportable));
    let evidence = RootEvidence::new(done, gone);
    assert_eq!((evidence.claim.class, evidence.destroyed.irrevocable_at), (SlotClass::C, Some(date)));
    assert_eq!(place.present().await, [(2, true)]);
    assert!(second.is_same(&slot.open(2).await.unwrap()));
    let nothing = slot.destroy(9).await.unwrap();
    assert!(!nothing.was_present && nothing.irrevocable_at.is_none());
    assert!(
        !slot.verify_gone(9).await.unwrap().checks.contains(&GoneCheck::ServiceReadBack),
        "nothing known, nothing said"
    );
}

#[tokio::test]
async fn a_destruction_that_was_called_off_is_noticed_and_ordered_again() {
    let place = Place::new();
    let slot = &place.slot;
    slot.create(1, &SystemRandom).await.unwrap();
    slot.create(2, &SystemRandom).await.unwrap();
    slot.destroy(1).await.unwrap();
    for enable in [false, true] {
        place.clock.advance(days(2));
        place.kms.machine().administer("CancelKeyDeletion", 0);
        if enable {
            place.kms.machine().administer("EnableKey", 0);
        }
        assert!(matches!(slot.verify_gone(1).await, Err(SlotError::StillThere { .. })));
        assert_eq!(place.present().await, [(1, true), (2, true)], "switched off is not gone");
        let done = slot.destroy(1).await.unwrap();
        assert!(done.steps.contains(&DestroyStep::ServiceScheduled));
        assert_eq!(place.waits_until(1).await, place.clock.now() + days(7));
    }
    place.clock.advance(days(7));
    slot.verify_gone(1).await.unwrap();
}

#[tokio::test]
async fn a_service_that_answers_late_changes_nothing() {
    let place = Place::new();
    let slot = &place.slot;
    place.kms.machine().stale = 3;
    let first = slot.create(1, &SystemRandom).await.unwrap();
    assert!(first.is_same(&slot.open(1).await.unwrap()));
    slot.create(2, &SystemRandom).await.unwrap();
    let done = slot.destroy(1).await.unwrap();
    assert!(done.steps.contains(&DestroyStep::ServiceScheduled));
    // The order of before is not seen yet, and a second one is refused: nobody called anything off.
    let again = slot.destroy(1).await.unwrap();
    assert!(!again.steps.contains(&DestroyStep::ServiceScheduled), "{again:?}");
    assert_eq!(again.irrevocable_at, done.irrevocable_at);
}

#[tokio::test]
async fn a_crash_between_the_key_and_its_name_makes_no_second_key() {
    let place = Place::new();
    place.slot.create(1, &SystemRandom).await.unwrap();
    // As it is when the process dies right behind CreateKey, and then right behind CreateAlias.
    for unnamed in [true, false] {
        let generation = if unnamed { 2 } else { 3 };
        place.kms.machine().denied = vec!["Encrypt"];
        let refused = place.slot.create(generation, &SystemRandom).await.err().unwrap();
        assert!(matches!(&refused, SlotError::ActionDenied { action: "kms:Encrypt", .. }), "{refused}");
        place.kms.machine().denied.clear();
        let made = place.kms.machine().made();
        if unnamed {
            place.kms.machine().unname(made - 1);
        }
        assert!(place.path(&format!("root-{generation}.intent")).exists());
        let root = place.slot.create(generation, &SystemRandom).await.unwrap();
        assert_eq!(place.kms.machine().made(), made, "the key of the first call is used");
        assert!(root.is_same(&place.slot.open(generation).await.unwrap()));
        assert!(!place.path(&format!("root-{generation}.intent")).exists());
    }
    assert_eq!(place.kms.machine().made(), 3);
}

#[tokio::test]
async fn an_unused_root_is_given_up_and_made_anew_under_another_key() {
    let place = Place::new();
    let slot = &place.slot;
    let first = slot.create(1, &SystemRandom).await.unwrap();
    let unused = slot.create(2, &SystemRandom).await.unwrap();
    slot.destroy(2).await.unwrap();
    let again = slot.create(2, &SystemRandom).await.unwrap();
    assert!(!again.is_same(&unused) && again.is_same(&slot.open(2).await.unwrap()));
    assert_eq!(place.kms.machine().made(), 3);
    assert_eq!(place.present().await, [(1, true), (2, true)]);
    // Both keys of generation 2 go, and it is gone only when both are.
    place.clock.advance(days(3));
    let done = slot.destroy(2).await.unwrap();
    assert_eq!(done.irrevocable_at, Some(place.clock.now() + days(7)));
    place.clock.advance(days(4));
    assert_eq!((place.kms.state(1), place.kms.state(2)), ("PendingDeletion".to_owned(), "PendingDeletion".to_owned()));
    assert!(place.waits_until(2).await > place.clock.now());
    assert!(first.is_same(&slot.open(1).await.unwrap()));
}

#[tokio::test]
async fn another_account_region_or_installation_is_never_evidence() {
    let place = Place::new();
    let slot = &place.slot;
    slot.create(1, &SystemRandom).await.unwrap();
    slot.create(2, &SystemRandom).await.unwrap();
    slot.destroy(1).await.unwrap();
    "444455556666".clone_into(&mut place.kms.machine().account);
    for refused in [slot.verify_gone(1).await.err(), slot.destroy(2).await.err(), slot.open(2).await.err()] {
        assert!(
            matches!(&refused, Some(SlotError::Unavailable { what, .. }) if what.contains("another account")),
            "{refused:?}"
        );
    }
    "111122223333".clone_into(&mut place.kms.machine().account);
    assert!(place.waits_until(1).await > place.clock.now());
    assert!(slot.open(2).await.is_ok(), "nothing was destroyed or lost");
    // Another installation in the same account sees none of them, and its context opens none.
    let other = place.another("other", [6; 16]);
    assert!(other.list().await.unwrap().is_empty());
    let text = std::fs::read_to_string(place.path("root-2.wrapped")).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["installation"] = json!(hex::encode([6; 16]));
    let stolen = place.folder.path().join("other/root-2.wrapped");
    std::fs::write(&stolen, record.to_string()).unwrap();
    std::fs::set_permissions(&stolen, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let refused = other.open(2).await.err().unwrap();
    assert!(matches!(refused, SlotError::Damaged { .. }), "{refused}");
}

#[tokio::test]
async fn a_lost_folder_still_finds_what_is_to_be_destroyed() {
    let place = Place::new();
    place.slot.create(1, &SystemRandom).await.unwrap();
    let empty = place.another("empty", ID);
    assert_eq!(empty.list().await.unwrap().len(), 1);
    assert!(matches!(empty.open(1).await, Err(SlotError::Missing { .. })));
    let done = empty.destroy(1).await.unwrap();
    assert!(done.irrevocable_at.is_some() && place.kms.state(0) == "PendingDeletion");
    place.clock.advance(days(8));
    assert!(empty.verify_gone(1).await.unwrap().checks.contains(&GoneCheck::ServiceReadBack));
}

#[tokio::test]
async fn every_fault_says_what_is_wrong_and_whether_to_try_again() {
    let place = Place::new();
    let slot = &place.slot;
    slot.create(1, &SystemRandom).await.unwrap();
    slot.create(2, &SystemRandom).await.unwrap();
    for (action, name) in [
        ("ListAliases", "kms:ListAliases"),
        ("DescribeKey", "kms:DescribeKey"),
        ("ScheduleKeyDeletion", "kms:ScheduleKeyDeletion"),
    ] {
        place.kms.machine().denied = vec![action];
        let refused = slot.destroy(1).await.err().unwrap();
        assert!(matches!(&refused, SlotError::ActionDenied { action, .. } if *action == name), "{refused}");
        assert!(!refused.is_retryable() && refused.to_string().contains(name), "{refused}");
    }
    place.kms.machine().denied.clear();
    for (name, is_retryable, said) in [
        ("ExpiredTokenException", false, "run out"),
        ("UnrecognizedClientException", false, "not known"),
        ("InvalidSignatureException", false, "clock"),
        ("LimitExceededException", true, "quota"),
    ] {
        place.kms.machine().troubles = vec![Refused(name)];
        let refused = slot.open(2).await.err().unwrap();
        assert_eq!(refused.is_retryable(), is_retryable, "{refused}");
        assert!(refused.to_string().contains(said), "{refused}");
    }
    // Having too much to do is waited for.
    place.kms.machine().troubles = vec![Refused("ThrottlingException"), Refused("KMSInternalException")];
    assert!(slot.open(2).await.is_ok());
    for (action, wanted) in [("DisableKey", "is switched off"), ("ScheduleKeyDeletion", "is to be deleted at")] {
        place.kms.machine().administer(action, 1);
        let refused = slot.open(2).await.err().unwrap();
        assert!(matches!(refused, SlotError::KeyUnusable { generation: 2, .. }), "{refused}");
        assert!(refused.to_string().contains(wanted), "{refused}");
    }
    place.clock.advance(days(31));
    let refused = slot.open(2).await.err().unwrap();
    assert!(matches!(refused, SlotError::KeyUnusable { state: KeyTrouble::Deleted, .. }), "{refused}");
}
