//! What the end of a key is worth: fields that were once in clear, keys that may lie elsewhere, keys that others destroyed, and
//! an old copy of the service.

use reqwest::Method;
use serde_json::{Value, json};
use wangchuan::certify::codes::{ErasureResult, Limitation, SlotClass};
use wangchuan::certify::statement::Predicate;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::policy::registry::SecretText;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outside::{OutsideWait, register};

use super::clinic::{Clinic, certificates, gone, key_of, pass, state, stored};
use crate::support::world::{body, forget};

async fn certificate_of(installation: &Installation, id: &str) -> Predicate {
    certify_due(installation).await.unwrap();
    let mut found = certificates(installation, id).await;
    assert_eq!(found.len(), 1);
    found.pop().unwrap().0
}

fn told(predicate: &Predicate, code: Limitation) -> bool {
    predicate.limitations.contains(&code)
}

#[tokio::test]
async fn a_field_that_was_once_in_clear_is_not_said_to_be_erased_by_its_key() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    clinic.edit_config(
        "subjects = true\nfields = [\"patients.note\"]\nencrypted_since = \"2020-01-01\"\never_in_clear = false",
        "subjects = true\nfields = [\"patients.note\"]\nencrypted_since = \"2020-01-01\"\never_in_clear = true",
    );
    clinic.edit_config(
        "backup = \"none\"",
        "backup = \"none\"\n[[store.copy]]\nname = \"dump\"\nkind = \"dump\"\ndies = \"90 days\"",
    );
    let installation = clinic.open().await;
    let key = clinic.register(&installation, "p1").await;
    // The eraser deletes the row before the key may die: the key is never the only method.
    assert!(pass(&installation).await.destroyed.is_empty());
    assert!(body(&forget(&installation, "p1").await).erased > 0);
    assert_eq!(pass(&installation).await.destroyed.len(), 1);
    let predicate = certificate_of(&installation, &key).await;
    assert_eq!(predicate.result, ErasureResult::Partial);
    assert!(told(&predicate, Limitation::FieldOnceInClear) && told(&predicate, Limitation::CopyDeclared));
    let end = predicate.outside_key.unwrap();
    assert!(end.ever_in_clear && end.class == SlotClass::B);
    assert!(end.in_clear_until.is_none(), "nobody said until when");
    let copy = &predicate.targets[0].copies[0];
    assert!(predicate.residual_date.unwrap() >= copy.dies_by.unwrap());
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_value_in_clear_is_seen_whatever_is_declared() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    clinic.sql("UPDATE patients SET note = 'allergic to penicillin' WHERE id = 'p1'").await;
    let installation = clinic.open().await;
    let key = SecretText::new(key_of("p1"));
    let done = register(&installation, "notes", &Subject::new("p1"), &key).await.unwrap();
    assert!(done.clear_seen);
    let other = clinic.register(&installation, "p2").await;
    pass(&installation).await;
    clinic.sql("UPDATE patients SET note = 'in clear for a while' WHERE id = 'p2'").await;
    pass(&installation).await;
    assert!(stored(&installation, &other).await.1.clear_seen, "a later look sees it too");
    for patient in ["p1", "p2"] {
        forget(&installation, patient).await;
    }
    assert_eq!(pass(&installation).await.destroyed.len(), 3);
    for id in [&done.id, &other] {
        let predicate = certificate_of(&installation, id).await;
        assert_eq!(predicate.result, ErasureResult::Partial);
        assert!(told(&predicate, Limitation::FieldOnceInClear));
    }
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_key_that_can_be_exported_is_of_the_lowest_class() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    let installation = clinic.open().await;
    let key = clinic.register(&installation, "p1").await;
    // Switched on after it was registered: what counts is what the service says right before the end.
    let on = json!({"exportable": true});
    clinic.bao.good(Method::POST, &format!("fields/keys/{}/config", key_of("p1")), on).await;
    forget(&installation, "p1").await;
    assert!(pass(&installation).await.destroyed.contains(&key));
    let predicate = certificate_of(&installation, &key).await;
    let end = predicate.outside_key.clone().unwrap();
    assert_eq!((end.class, end.checks.len()), (SlotClass::D, 1));
    assert!(end.read_back.unwrap().exportable && end.reopenable_until.is_none());
    assert!(told(&predicate, Limitation::OutsideKeyClassD) && !told(&predicate, Limitation::OutsideKeyClassB));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_somebody_else_destroyed_is_told_and_what_took_its_place_is_spared() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    let installation = clinic.open().await;
    let [gone, replaced] = [clinic.register(&installation, "p1").await, clinic.register(&installation, "p2").await];
    for patient in ["p1", "p2"] {
        let path = format!("fields/keys/{}", key_of(patient));
        clinic.bao.good(Method::POST, &format!("{path}/config"), json!({"deletion_allowed": true})).await;
        clinic.bao.good(Method::DELETE, &path, Value::Null).await;
    }
    // Seconds are the finest that the service tells of a key's making.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    clinic.make_key(&key_of("p2")).await;
    let kept = clinic.seal(&key_of("p2"), "of another patient").await;
    for patient in ["p1", "p2"] {
        forget(&installation, patient).await;
    }
    let report = pass(&installation).await;
    assert!(report.destroyed.contains(&gone) && !report.destroyed.contains(&replaced), "{report:?}");
    assert_eq!(state(&installation, &replaced).await, ("ended".to_owned(), Some(OutsideWait::Replaced)));
    assert!(clinic.opens(&key_of("p2"), &kept).await);
    let predicate = certificate_of(&installation, &gone).await;
    assert_eq!(predicate.result, ErasureResult::Partial);
    assert!(told(&predicate, Limitation::OutsideKeyGoneBefore) && told(&predicate, Limitation::OutsideKeyClassD));
    assert!(predicate.outside_key.unwrap().read_back.is_none());
    installation.close().await.unwrap();
}

/// Why the class is B and certificates name a date: shown, not only written down.
#[tokio::test]
async fn an_old_copy_of_the_service_and_its_unseal_key_bring_the_key_back() {
    let Some(mut clinic) = Clinic::open_its_doors("0").await else { return };
    let note = clinic.admit("p3").await;
    let installation = clinic.open().await;
    let key = clinic.register(&installation, "p3").await;
    let copy = clinic.path("storage");
    clinic.bao.stop();
    clinic.bao.copy_storage(&copy);
    clinic.bao.run().await;
    clinic.bao.unseal().await;
    forget(&installation, "p3").await;
    clinic.sql("DELETE FROM visits").await;
    assert_eq!(pass(&installation).await.destroyed.len(), 2);
    assert_eq!(gone(&installation).await, (1, Vec::new()));
    assert!(!clinic.opens(&key_of("p3"), &note).await);
    let predicate = certificate_of(&installation, &key).await;
    assert!(told(&predicate, Limitation::OutsideKeyClassB) && predicate.residual_date.is_some());

    clinic.bao.stop();
    clinic.bao.put_storage(&copy);
    clinic.bao.run().await;
    clinic.bao.unseal().await;
    assert!(clinic.opens(&key_of("p3"), &note).await, "the old copy opens it again");
    // Of a policy's key, whose name stands in the configuration, the agent notices it.
    let (there, problems) = gone(&installation).await;
    assert!(there == 0 && problems[0].contains("is there again"), "{problems:?}");
    installation.close().await.unwrap();
}
