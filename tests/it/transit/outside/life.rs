//! What ends a key, and what keeps it.

use chrono::TimeDelta;
use wangchuan::certify::codes::{ErasureResult, Limitation, SlotClass, TriggerKind};
use wangchuan::clock::Clock as _;
use wangchuan::control::HoldRow;
use wangchuan::erase::waits::Waits;
use wangchuan::plan::Subject;
use wangchuan::policy::registry::SecretText;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::outside::{OutsideWait, register, unregister};
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::shred::shred_due;
use wangchuan::tasks::undo::undo_run;

use super::clinic::{Clinic, FINDINGS, certificates, id_of, key_of, pass, state, stored};
use crate::support::world::{body, forget, refusal, retain};

fn hold(clinic: &Clinic, id: &str, scope: &str) -> HoldRow {
    let with = |wanted: &[&str], value: &str| wanted.contains(&scope).then(|| value.to_owned());
    HoldRow {
        id: id.to_owned(),
        scope: scope.to_owned(),
        store: with(&["store", "collection"], "clinic"),
        collection: with(&["collection"], "visits"),
        subject: None,
        reason: "case".to_owned(),
        placed_at: wangchuan::clock::Clock::now(clinic.clock.as_ref()),
        placed_by: "clerk".to_owned(),
        released_at: None,
    }
}

async fn release(clinic: &Clinic, installation: &wangchuan::installation::Installation, id: &str) {
    let now = wangchuan::clock::Clock::now(clinic.clock.as_ref());
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold(id, "clerk", now).await.unwrap());
    tx.commit().await.unwrap();
}

/// No file of the agent's state holds one of these texts in clear.
fn nowhere(clinic: &Clinic, texts: &[&str]) {
    for entry in std::fs::read_dir(clinic.path("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for text in texts {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{} holds {text}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn a_patients_key_dies_after_their_request_and_its_grace_and_no_other_does() {
    let Some(clinic) = Clinic::open_its_doors("72 hours").await else { return };
    let notes = [clinic.admit("li-lei").await, clinic.admit("han-mei").await];
    let installation = clinic.open().await;
    let [one, two] = [clinic.register(&installation, "li-lei").await, clinic.register(&installation, "han-mei").await];
    assert!(pass(&installation).await.destroyed.is_empty());
    assert_eq!(state(&installation, &one).await, ("active".to_owned(), Some(OutsideWait::RowsRely)));
    nowhere(&clinic, &["note-of-li-lei", "li-lei", "han-mei"]);

    assert!(body(&forget(&installation, "li-lei").await).erased > 0);
    let report = pass(&installation).await;
    assert!(report.destroyed.is_empty() && report.waiting.iter().any(|(id, _, _)| *id == one), "{report:?}");
    assert_eq!(state(&installation, &one).await, ("ended".to_owned(), Some(OutsideWait::Grace)));
    assert!(clinic.opens(&key_of("li-lei"), &notes[0]).await, "in grace it still opens");
    clinic.wait(&installation, TimeDelta::hours(71)).await;
    assert!(pass(&installation).await.destroyed.is_empty());

    clinic.wait(&installation, TimeDelta::hours(2)).await;
    assert_eq!(pass(&installation).await.destroyed, std::slice::from_ref(&one));
    assert!(clinic.fate(&key_of("li-lei")).await.is_null());
    assert!(!clinic.opens(&key_of("li-lei"), &notes[0]).await, "a kept copy opens");
    assert!(clinic.opens(&key_of("han-mei"), &notes[1]).await, "somebody else's does not");
    assert_eq!(state(&installation, &two).await, ("active".to_owned(), Some(OutsideWait::RowsRely)));
    assert!(pass(&installation).await.destroyed.is_empty(), "it is not destroyed twice");

    certify_due(&installation).await.unwrap();
    let [(predicate, text)] = &certificates(&installation, &one).await[..] else { panic!("one certificate") };
    assert!(!text.contains("li-lei") && !text.contains("note-of"), "{text}");
    assert_eq!(predicate.result, ErasureResult::Complete);
    assert_eq!(predicate.trigger.kind, TriggerKind::SubjectRequest);
    assert_eq!((predicate.scope.subjects_count, predicate.scope.subject_refs.len()), (1, 1));
    let key = predicate.outside_key.as_ref().unwrap();
    assert_eq!((key.class, key.kind.as_str(), key.fields.len()), (SlotClass::B, "transit", 1));
    assert_eq!(key.checks, ["key-absent", "never-exportable"]);
    assert!(key.reopenable_until.unwrap() > predicate.issued_at.instant().date_naive() + chrono::Days::new(6));
    assert!(predicate.residual_date >= key.reopenable_until);
    let (row, erased) = (&predicate.targets[0], predicate.targets.iter().map(|t| t.records_erased).sum::<u64>());
    assert_eq!((row.records_selected, row.objects_erased, erased), (0, 1, 0), "no row is counted");
    for code in [Limitation::OutsideKeyClassB, Limitation::OutsideKeyDeclared] {
        assert!(predicate.limitations.contains(&code), "{code:?}");
    }
    assert!(!predicate.limitations.contains(&Limitation::FieldOnceInClear));
    file_due(&installation, true).await.unwrap();
    let verdict = verify_certificate(&installation, &predicate.certificate_id).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");
    assert!(!certify_due(&installation).await.unwrap().contains(&predicate.certificate_id));

    // What named the key dies with the next change of keys.
    shred_due(&installation).await.unwrap();
    let (row, _) = stored(&installation, &one).await;
    assert!(row.lookup.is_none() && row.destroyed_at.is_some());
    let leaves = installation.control.read().await.unwrap().key_groups().await.unwrap();
    let own: Vec<_> = leaves.iter().filter(|group| group.of.as_deref() == Some("outside-key")).collect();
    assert!(own.iter().any(|group| group.state == "destroyed" && group.count == 1), "{own:?}");
    nowhere(&clinic, &["note-of-li-lei", "han-mei"]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_period_key_dies_with_its_last_row_and_holds_keep_it() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    let finding = clinic.seal(FINDINGS, "a copy that somebody kept").await;
    clinic.sql("INSERT INTO visits (patient, finding, ended_at) VALUES ('p1', NULL, '2024-03-31')").await;
    let installation = clinic.open().await;
    pass(&installation).await;
    let key = id_of(&installation, "findings").await;
    assert_eq!(state(&installation, &key).await, ("active".to_owned(), Some(OutsideWait::RowsRely)));

    // A held row stays, and keeps the key of its field.
    place_hold(&installation, &hold(&clinic, "case-1", "subject"), Some(&Subject::new("p2"))).await.unwrap();
    assert_eq!(body(&retain(&installation).await).kept, 1);
    assert!(pass(&installation).await.destroyed.is_empty());
    assert_eq!(state(&installation, &key).await.1, Some(OutsideWait::RowsRely));
    release(&clinic, &installation, "case-1").await;

    // Without rows a hold on the collection, the store or everything keeps it too.
    for (number, scope) in ["collection", "store", "everything"].into_iter().enumerate() {
        let id = format!("scope-{number}");
        if number == 0 {
            assert_eq!(body(&retain(&installation).await).erased, 1);
        }
        place_hold(&installation, &hold(&clinic, &id, scope), None).await.unwrap();
        assert!(pass(&installation).await.destroyed.is_empty(), "{scope}");
        assert_eq!(state(&installation, &key).await, ("ended".to_owned(), Some(OutsideWait::Hold)), "{scope}");
        release(&clinic, &installation, &id).await;
    }
    assert!(clinic.opens(FINDINGS, &finding).await);
    let mut tx = installation.control.begin().await.unwrap();
    tx.set_meta("agent_hold", "2026-03-15").await.unwrap();
    tx.commit().await.unwrap();
    assert!(refusal(wangchuan::tasks::outside::destroy_outside_keys(&installation).await).contains("held since"));
    let mut tx = installation.control.begin().await.unwrap();
    tx.clear_meta("agent_hold").await.unwrap();
    tx.commit().await.unwrap();

    assert_eq!(pass(&installation).await.destroyed, std::slice::from_ref(&key));
    assert!(!clinic.opens(FINDINGS, &finding).await);
    certify_due(&installation).await.unwrap();
    let [(predicate, _)] = &certificates(&installation, &key).await[..] else { panic!("one certificate") };
    let told = predicate.outside_key.as_ref().unwrap();
    assert_eq!((told.policy.as_deref(), told.period.as_deref()), (Some("visited"), Some("2024Q1")));
    assert_eq!((predicate.result, predicate.trigger.kind), (ErasureResult::Complete, TriggerKind::RetentionExpiry));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn rows_of_another_period_do_not_keep_a_key_and_unreadable_starts_do() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    clinic
        .sql(
            "DELETE FROM visits;
             INSERT INTO visits (patient, finding, ended_at) VALUES ('p1', 'vault:v1:AAAA', '2025-05-05');
             INSERT INTO visits (patient, finding, ended_at) VALUES ('p1', 'vault:v1:AAAA', '2023-12-31');
             INSERT INTO visits (patient, finding, ended_at) VALUES ('p2', 'vault:v1:AAAA', 'some day in spring');",
        )
        .await;
    let installation = clinic.open().await;
    pass(&installation).await;
    let key = id_of(&installation, "findings").await;
    assert_eq!(state(&installation, &key).await.1, Some(OutsideWait::RowsRely), "a start event that nobody can read");
    clinic.sql("DELETE FROM visits WHERE ended_at = 'some day in spring'").await;
    // Its period is named anew: one that is not due.
    clinic.edit_config("period = \"2024Q1\"", "period = \"2025Q2\"");
    installation.close().await.unwrap();
    let installation = clinic.open().await;
    assert!(pass(&installation).await.destroyed.is_empty());
    let (row, wait) = stored(&installation, &key).await;
    assert_eq!(wait.wait.unwrap().code, OutsideWait::PeriodNotDue);
    assert_eq!(row.due_at.unwrap().to_rfc3339(), "2026-06-30T00:00:00+00:00");
    clinic.edit_config("period = \"2025Q2\"", "period = \"2024Q1\"");
    installation.close().await.unwrap();
    let installation = clinic.open().await;
    assert_eq!(pass(&installation).await.destroyed, [key]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_policys_key_without_a_period_dies_only_when_it_is_retired_and_no_row_is_left() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    clinic.edit_config("period = \"2024Q1\"\n", "");
    let installation = clinic.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    pass(&installation).await;
    let key = id_of(&installation, "findings").await;
    assert_eq!(state(&installation, &key).await.1, Some(OutsideWait::NotRetired));
    clinic.edit_config("policy = \"visited\"", "policy = \"visited\"\nretired = true");
    clinic.sql("INSERT INTO visits (patient, finding, ended_at) VALUES ('p1', 'vault:v1:AAAA', NULL)").await;
    installation.close().await.unwrap();
    let installation = clinic.open().await;
    assert!(pass(&installation).await.destroyed.is_empty());
    assert_eq!(state(&installation, &key).await.1, Some(OutsideWait::RowsRely));
    clinic.sql("UPDATE visits SET finding = NULL").await;
    assert_eq!(pass(&installation).await.destroyed, [key]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn an_undone_erasure_finds_the_key_of_its_fields() {
    let Some(clinic) = Clinic::open_its_doors("72 hours").await else { return };
    let note = clinic.admit("p3").await;
    let installation = clinic.open().await;
    let key = clinic.register(&installation, "p3").await;
    let run = forget(&installation, "p3").await;
    pass(&installation).await;
    assert_eq!(state(&installation, &key).await.0, "ended");
    undo_run(&installation, &run).await.unwrap();
    clinic.wait(&installation, TimeDelta::days(5)).await;
    assert!(pass(&installation).await.destroyed.is_empty());
    assert_eq!(state(&installation, &key).await, ("active".to_owned(), Some(OutsideWait::RowsRely)));
    assert!(stored(&installation, &key).await.0.ended_at.is_none());
    assert!(clinic.opens(&key_of("p3"), &note).await);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn the_last_row_of_a_patient_ends_their_key_and_a_key_never_used_waits() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    clinic.make_key("note-of-nobody").await;
    let installation = clinic.open().await;
    let seen = clinic.register(&installation, "p1").await;
    let unseen = clinic.register(&installation, "nobody").await;
    pass(&installation).await;
    assert_eq!(state(&installation, &unseen).await, ("active".to_owned(), Some(OutsideWait::NeverUsed)));
    // Retention takes the last row with the field.
    clinic.sql("UPDATE patients SET left_at = '2020-01-01' WHERE id = 'p1'").await;
    assert!(body(&retain(&installation).await).erased > 0);
    assert_eq!(pass(&installation).await.destroyed.iter().filter(|id| **id == seen).count(), 1);
    assert_eq!(state(&installation, &unseen).await.0, "active");
    // A request of theirs ends it all the same, though no store knows them.
    clinic.clock.advance(TimeDelta::seconds(1));
    forget(&installation, "nobody").await;
    // Not while the request is to be tried again: a store that was away may know them.
    let mut tx = installation.control.begin().await.unwrap();
    let asked = tx.requests(None).await.unwrap().pop().unwrap();
    let away = Waits { again: Some(clinic.clock.now() + TimeDelta::days(1)), ..Waits::default() };
    tx.set_request_waits(asked.number, &away.text().unwrap()).await.unwrap();
    assert!(tx.step_request(asked.number, &asked.state, "waiting", None, asked.closed_at).await.unwrap());
    tx.commit().await.unwrap();
    assert!(pass(&installation).await.destroyed.is_empty());
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.step_request(asked.number, "waiting", &asked.state, None, asked.closed_at).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(pass(&installation).await.destroyed, [unseen]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_key_is_registered_once_and_unregistered_keys_live_on() {
    let Some(clinic) = Clinic::open_its_doors("0").await else { return };
    let installation = clinic.open().await;
    let id = clinic.register(&installation, "p1").await;
    let key = SecretText::new(key_of("p1"));
    let again = register(&installation, "notes", &Subject::new("p1"), &key).await.unwrap();
    assert!(again.existing && again.id == id);
    let taken = refusal(register(&installation, "notes", &Subject::new("p2"), &key).await);
    assert!(taken.contains(&id) && !taken.contains("p1"), "{taken}");
    let absent = SecretText::new("note-of-no-one-at-all".to_owned());
    let refused = refusal(register(&installation, "notes", &Subject::new("p2"), &absent).await);
    assert!(refused.contains("no such key") && !refused.contains("no-one"), "{refused}");
    for (entry, key) in [("findings", "x"), ("nothing", "x"), ("notes", "../x"), ("notes", "")] {
        let wrong = register(&installation, entry, &Subject::new("p2"), &SecretText::new(key.to_owned())).await;
        assert!(wrong.is_err(), "{entry} {key}");
    }
    unregister(&installation, &id).await.unwrap();
    forget(&installation, "p1").await;
    assert!(!pass(&installation).await.destroyed.contains(&id));
    assert!(!clinic.fate(&key_of("p1")).await.is_null(), "it lives on");
    assert!(unregister(&installation, &id).await.is_err());
    let bound = id_of(&installation, "findings").await;
    assert!(refusal(unregister(&installation, &bound).await).contains("bound to a policy"));
    // It can be registered anew.
    assert_ne!(register(&installation, "notes", &Subject::new("p1"), &key).await.unwrap().id, id);
    installation.close().await.unwrap();
}
