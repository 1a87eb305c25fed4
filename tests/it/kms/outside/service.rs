//! The adapter by itself, the shipped rights, and answers that show nothing.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::{Value, json};
use wangchuan::certify::codes::{ErasureResult, Limitation, SlotClass};
use wangchuan::clock::Clock as _;
use wangchuan::keys::kms_slot::KmsKeys;
use wangchuan::keys::outside::{OutsideDone, OutsideKeys as _, OutsideStep};
use wangchuan::keys::slot::SlotError;
use wangchuan::policy::registry::SecretText;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outside::OutsideWait;

use super::practice::Practice;
use crate::kms::moving::actions;
use crate::support::kms::{Kms, days};
use crate::support::world::{ManualClock, body, forget, manual_clock, manual_clock_at, retain};
use crate::transit::outside::clinic::{certificates, id_of, pass, state, stored};

fn keys(kms: &Kms) -> KmsKeys {
    KmsKeys::new(kms.setup(std::path::Path::new("")), b"AQICAH".to_vec()).unwrap()
}

fn service() -> (Kms, std::sync::Arc<ManualClock>, KmsKeys, SecretText) {
    let clock = manual_clock();
    let kms = Kms::start(clock.clone());
    kms.machine().make_for_application();
    let (keys, key) = (keys(&kms), SecretText::new(kms.machine().id_of(0)));
    (kms, clock, keys, key)
}

#[tokio::test]
async fn a_key_is_looked_at_ordered_once_and_gone_behind_its_date() {
    let (kms, clock, keys, key) = service();
    let known = keys.look(&key, None).await.unwrap().unwrap();
    assert_eq!((known.may_have_left(), known.deleted_at, known.made.len()), (false, None, 1));
    assert_eq!(known.place.as_deref(), Some("eu-west-9/111122223333"));
    let date = clock.now() + days(7);
    let done = keys.destroy(&key).await.unwrap();
    assert_eq!(done, OutsideDone { steps: vec![OutsideStep::DeletionScheduled], deleted_at: Some(date) });
    assert_eq!(keys.destroy(&key).await.unwrap(), OutsideDone { steps: vec![], deleted_at: Some(date) });
    let now = keys.look(&key, Some(&known)).await.unwrap().unwrap();
    assert_eq!(now.deleted_at, Some(date));
    assert!(known.is_continued_by(&now) && now.clone().remembered() == known);
    clock.advance(days(7));
    assert_eq!(keys.look(&key, Some(&known)).await.unwrap(), None);
    assert_eq!(keys.destroy(&key).await.unwrap(), OutsideDone::default(), "nothing there is not an error");
    assert_eq!(kms.state(0), "Deleted");
}

#[tokio::test]
async fn answers_of_before_are_not_taken_for_a_deletion_that_was_called_off() {
    let (kms, _, keys, key) = service();
    kms.machine().stale = 4;
    let known = keys.look(&key, None).await.unwrap().unwrap();
    let date = keys.destroy(&key).await.unwrap().deleted_at;
    let ordered = wangchuan::keys::outside::KeyFacts { deleted_at: date, ..known.clone() };
    assert_eq!(keys.look(&key, Some(&ordered)).await.unwrap().unwrap().deleted_at, date);
    kms.machine().stale = 0;
    kms.machine().administer("CancelKeyDeletion", 0);
    assert_eq!(keys.look(&key, Some(&ordered)).await.unwrap().unwrap().deleted_at, None);
}

#[tokio::test]
async fn only_the_right_account_and_region_can_say_that_a_key_is_gone() {
    let (kms, clock, keys, key) = service();
    let known = keys.look(&key, None).await.unwrap().unwrap();
    let elsewhere = "999900001111".to_owned();
    let here = std::mem::replace(&mut kms.machine().account, elsewhere);
    let refused = keys.look(&key, Some(&known)).await.unwrap_err();
    assert!(refused.to_string().contains("another account or region answers"), "{refused}");
    kms.machine().account = here;
    keys.destroy(&key).await.unwrap();
    clock.advance(days(7));
    kms.machine().denied = vec!["ListAliases"];
    let refused = keys.look(&key, Some(&known)).await.unwrap_err();
    assert!(matches!(refused, SlotError::ActionDenied { action: "kms:ListAliases", .. }), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("00000000-0000"), "{refused}");
    kms.machine().denied.clear();
    assert_eq!(keys.look(&key, Some(&known)).await.unwrap(), None);
    let lost = wangchuan::keys::outside::KeyFacts { place: None, ..known };
    assert!(keys.look(&key, Some(&lost)).await.is_err(), "of a key whose place is not known nothing is said");
}

#[tokio::test]
async fn keys_whose_material_may_be_elsewhere_are_told() {
    let (kms, _, keys, key) = service();
    for (field, value) in [("Origin", json!("EXTERNAL")), ("CustomKeyStoreId", json!("cks-1"))] {
        kms.machine().disguise(0, field, value);
        assert!(keys.look(&key, None).await.unwrap().unwrap().may_have_left(), "{field}");
    }
    kms.machine().disguise(0, "MultiRegion", json!(true));
    assert!(keys.destroy(&key).await.unwrap_err().to_string().contains("multi-Region"));
    assert_eq!(kms.state(0), "Enabled");
}

#[tokio::test]
async fn an_imported_key_is_no_more_than_removed() {
    let practice = Practice::open_its_doors("0").await;
    practice.kms.machine().disguise(0, "Origin", json!("EXTERNAL"));
    let installation = practice.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    pass(&installation).await;
    practice.wait(&installation, days(7)).await;
    let destroyed = pass(&installation).await.destroyed;
    assert_eq!(destroyed.len(), 1);
    certify_due(&installation).await.unwrap();
    let (predicate, _) = &certificates(&installation, &destroyed[0]).await[0];
    assert_eq!(predicate.outside_key.as_ref().unwrap().class, SlotClass::D);
    assert!(predicate.limitations.contains(&Limitation::OutsideKeyClassD));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_value_that_does_not_look_sealed_counts_as_once_in_clear() {
    let practice = Practice::open_its_doors("0").await;
    practice.sql("UPDATE visits SET finding = 'plain words' WHERE patient = 'p1'").await;
    let installation = practice.open().await;
    pass(&installation).await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    pass(&installation).await;
    practice.wait(&installation, days(7)).await;
    let destroyed = pass(&installation).await.destroyed;
    certify_due(&installation).await.unwrap();
    let (predicate, _) = &certificates(&installation, &destroyed[0]).await[0];
    assert_eq!(predicate.result, ErasureResult::Partial);
    assert!(predicate.limitations.contains(&Limitation::FieldOnceInClear));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_gone_before_its_date_or_elsewhere_is_not_destroyed() {
    let practice = Practice::open_its_doors("0").await;
    let installation = practice.open().await;
    retain(&installation).await;
    pass(&installation).await;
    let id = id_of(&installation, "findings").await;
    let date = stored(&installation, &id).await.1.irrevocable_at();
    // A service whose clock is ahead.
    practice.kms.follow(manual_clock_at(practice.now() + days(9)));
    assert!(pass(&installation).await.destroyed.is_empty());
    assert_eq!(state(&installation, &id).await, ("doomed".to_owned(), Some(OutsideWait::ServiceRefuses)));
    assert_eq!(stored(&installation, &id).await.1.irrevocable_at(), date);
    practice.kms.follow(practice.clock.clone());
    practice.kms.machine().account = "999900001111".to_owned();
    practice.wait(&installation, days(7)).await;
    assert!(pass(&installation).await.destroyed.is_empty(), "another account knows nothing");
    assert_eq!(state(&installation, &id).await.1, Some(OutsideWait::ServiceRefuses));
    practice.wait(&installation, TimeDelta::hours(27)).await;
    let status = wangchuan::tasks::status::status(&installation.control, &installation.config, practice.clock.as_ref());
    let overdue = status.await.unwrap().overdue;
    assert!(overdue.iter().any(|item| item.code == "outside-key-overdue"), "{overdue:?}");
    practice.kms.machine().account = "111122223333".to_owned();
    assert_eq!(pass(&installation).await.destroyed, [id]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn the_shipped_rights_are_what_the_agent_asks_for_and_open_nothing() {
    let text = include_str!("../../../../config/aws-kms-outside-policy.json");
    let policy: Value = serde_json::from_str(text).unwrap();
    let (allowed, denied) = (actions(&policy, "Allow"), actions(&policy, "Deny"));
    for never in [
        "kms:Decrypt",
        "kms:Encrypt",
        "kms:GenerateDataKey*",
        "kms:ReEncrypt*",
        "kms:CancelKeyDeletion",
        "kms:TagResource",
        "kms:CreateGrant",
        "kms:PutKeyPolicy",
    ] {
        assert!(denied.contains(never) && !allowed.contains(never), "{never}");
    }
    let practice = Practice::open_its_doors("0").await;
    practice.kms.machine().calls.clear();
    let installation = practice.open().await;
    practice.register(&installation, "p1", 1).await;
    forget(&installation, "p1").await;
    retain(&installation).await;
    pass(&installation).await;
    practice.wait(&installation, days(7)).await;
    assert_eq!(pass(&installation).await.destroyed.len(), 2);
    installation.close().await.unwrap();
    let asked: BTreeSet<String> = practice.kms.machine().calls.keys().map(|action| format!("kms:{action}")).collect();
    assert_eq!(asked, allowed);
}
