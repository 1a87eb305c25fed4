//! A key opens nothing from the order on, and counts as destroyed only when the service does not know it any more.

use chrono::{DateTime, Utc};
use wangchuan::certify::codes::{ErasureResult, Limitation, SlotClass};
use wangchuan::control::HoldRow;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::outbox::{file_due, verify_certificate};
use wangchuan::tasks::outside::{GoneKeys, OutsideWait, check_gone, unregister};
use wangchuan::tasks::request::place_hold;
use wangchuan::tasks::status::{Status, status};

use super::practice::Practice;
use crate::erase::ground::hold_row;
use crate::support::kms::days;
use crate::support::world::{body, forget, refusal, retain};
use crate::transit::outside::clinic::{certificates, gone, id_of, pass, state, stored, write_config};

async fn shown(installation: &Installation) -> Status {
    status(&installation.control, &installation.config, installation.clock.as_ref()).await.unwrap()
}

fn codes(status: &Status) -> Vec<&str> {
    let ours = status.overdue.iter().filter(|item| item.code.starts_with("outside-key"));
    ours.map(|item| item.code).collect()
}

/// Waits for this date, and why.
async fn waits(installation: &Installation, id: &str) -> (String, Option<OutsideWait>, Option<DateTime<Utc>>) {
    let (row, body) = stored(installation, id).await;
    (row.state, body.wait.as_ref().map(|wait| wait.code), body.irrevocable_at())
}

fn doomed(at: DateTime<Utc>) -> (String, Option<OutsideWait>, Option<DateTime<Utc>>) {
    ("doomed".to_owned(), Some(OutsideWait::Irrevocable), Some(at))
}

/// The same, and somebody should call that off.
fn needed(at: DateTime<Utc>) -> (String, Option<OutsideWait>, Option<DateTime<Utc>>) {
    ("doomed".to_owned(), Some(OutsideWait::Needed), Some(at))
}

/// A statement in the control database, behind the agent's back.
async fn state_sql(practice: &Practice, text: &'static str) {
    use sqlx::Connection as _;
    let address = format!("sqlite://{}", practice.folder.path().join("state/control.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&address).await.unwrap();
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn logged(practice: &Practice, operation: &str) -> i64 {
    use sqlx::Connection as _;
    let address = format!("sqlite://{}", practice.folder.path().join("state/control.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&address).await.unwrap();
    let text = "SELECT count(*) FROM log_leaf WHERE instr(content, $1) > 0";
    let found = sqlx::query_scalar(text).bind(operation).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    found
}

#[tokio::test]
async fn a_key_is_destroyed_only_when_the_service_does_not_know_it_any_more() {
    let practice = Practice::open_its_doors("0").await;
    let kept = practice.seal(1, "a copy that somebody kept");
    let installation = practice.open().await;
    let id = practice.register(&installation, "p1", 1).await;
    pass(&installation).await;
    assert_eq!(state(&installation, &id).await, ("active".to_owned(), Some(OutsideWait::RowsRely)));
    assert!(body(&forget(&installation, "p1").await).erased > 0);
    assert!(practice.opens(1, &kept), "until then it opens");

    let date = practice.now() + days(7);
    let report = pass(&installation).await;
    assert!(report.destroyed.is_empty() && report.waiting.iter().any(|(waiting, _, _)| *waiting == id), "{report:?}");
    assert_eq!(waits(&installation, &id).await, doomed(date));
    assert_eq!((practice.kms.state(1), practice.orders()), ("PendingDeletion".to_owned(), 1));
    assert!(!practice.opens(1, &kept));
    assert!(certify_due(&installation).await.unwrap().iter().all(|found| *found != id));
    assert!(certificates(&installation, &id).await.is_empty(), "nothing is certified before its date");
    let status = shown(&installation).await;
    assert_eq!((codes(&status).len(), status.doomed_outside_keys.len()), (0, 1), "{status:?}");
    assert_eq!(status.doomed_outside_keys[0].irrevocable_at, date);
    assert!(refusal(unregister(&installation, &id).await).contains("doomed"));
    assert_eq!(gone(&installation).await, (0, vec![]));

    practice.wait(&installation, days(3)).await;
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, doomed(date), "looked at, and ordered once");
    // The service is a day late: its word counts, not the date.
    practice.kms.machine().lateness = days(1);
    practice.wait(&installation, days(4)).await;
    assert!(pass(&installation).await.destroyed.is_empty());
    assert!(codes(&shown(&installation).await).is_empty());
    practice.wait(&installation, days(1)).await;
    assert_eq!(pass(&installation).await.destroyed, std::slice::from_ref(&id));
    assert!(pass(&installation).await.destroyed.is_empty(), "exactly once");
    assert_eq!(practice.orders(), 1);

    certify_due(&installation).await.unwrap();
    let [(predicate, text)] = &certificates(&installation, &id).await[..] else { panic!("one certificate") };
    assert!(!text.contains(&practice.kms.machine().id_of(1)), "{text}");
    assert_eq!(predicate.result, ErasureResult::Complete);
    let key = predicate.outside_key.as_ref().unwrap();
    assert_eq!((key.class, key.kind.as_str(), key.reopenable_until), (SlotClass::C, "aws-kms", None));
    assert_eq!(key.checks, ["key-absent", "never-exportable"]);
    assert_eq!(key.irrevocable_at.unwrap().instant(), date);
    assert_eq!(predicate.targets[0].keys[0].destroyed_at.unwrap().instant(), practice.now());
    for code in [Limitation::OutsideKeyClassC, Limitation::OutsideKeyDeclared] {
        assert!(predicate.limitations.contains(&code), "{code:?}");
    }
    assert!(!predicate.limitations.contains(&Limitation::FieldOnceInClear));
    file_due(&installation, true).await.unwrap();
    let verdict = verify_certificate(&installation, &predicate.certificate_id).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");
    // Nobody else's key was touched.
    assert_eq!([0, 2].map(|number| practice.kms.state(number)), ["Enabled", "Enabled"]);
    assert!(shown(&installation).await.doomed_outside_keys.is_empty());
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_deletion_that_is_called_off_is_told_and_ordered_again() {
    let practice = Practice::open_its_doors("0").await;
    let kept = practice.seal(0, "a copy that somebody kept");
    let installation = practice.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    pass(&installation).await;
    let id = id_of(&installation, "findings").await;
    assert_eq!(waits(&installation, &id).await, doomed(practice.now() + days(7)));

    practice.wait(&installation, days(6)).await;
    practice.kms.machine().administer("CancelKeyDeletion", 0);
    practice.kms.machine().administer("EnableKey", 0);
    assert!(practice.opens(0, &kept), "that is why nothing counts before the date");
    let (there, problems) = gone(&installation).await;
    assert!(there == 0 && problems.len() == 1 && problems[0].contains("called off"), "{problems:?}");
    assert_eq!(waits(&installation, &id).await.0, "doomed", "looking changes nothing");
    let date = practice.now() + days(7);
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, doomed(date));
    assert!(!practice.opens(0, &kept));
    assert_eq!((stored(&installation, &id).await.1.called_off, practice.orders()), (1, 2));
    assert_eq!(logged(&practice, "key.destruction-called-off").await, 1);
    let status = shown(&installation).await;
    assert_eq!((codes(&status), status.doomed_outside_keys[0].called_off), (vec!["outside-key-called-off"], 1));
    pass(&installation).await;
    assert_eq!(stored(&installation, &id).await.1.called_off, 1, "told once");

    // Somebody who calls it off and orders it again with a longer time moves the date.
    practice.kms.machine().administer("CancelKeyDeletion", 0);
    practice.kms.machine().administer("ScheduleKeyDeletion", 0);
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, doomed(practice.now() + days(30)));
    assert_eq!(stored(&installation, &id).await.1.called_off, 2);
    for _ in 0..5 {
        practice.wait(&installation, days(6)).await;
        assert_eq!(waits(&installation, &id).await.0, "doomed");
        pass(&installation).await;
    }
    assert_eq!(state(&installation, &id).await, ("destroyed".to_owned(), None));
    assert_eq!(gone(&installation).await, (1, vec![]));
    assert!(codes(&shown(&installation).await).is_empty());
    certify_due(&installation).await.unwrap();
    assert_eq!(certificates(&installation, &id).await.len(), 1);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_keeps_a_key_keeps_one_whose_deletion_was_called_off() {
    let practice = Practice::open_its_doors("0").await;
    let finding = practice.seal(0, "written later");
    let installation = practice.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    pass(&installation).await;
    let id = id_of(&installation, "findings").await;
    let date = practice.now() + days(7);
    // A hold that comes too late is named, and changes nothing by itself.
    let hold = HoldRow {
        scope: "collection".to_owned(),
        store: Some("clinic".to_owned()),
        collection: Some("visits".to_owned()),
        ..hold_row("case-1", practice.now())
    };
    place_hold(&installation, &hold, None::<&Subject>).await.unwrap();
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, needed(date));
    let (_, body) = stored(&installation, &id).await;
    assert!(body.wait.as_ref().unwrap().what.contains("case-1"), "{body:?}");
    assert_eq!(codes(&shown(&installation).await), ["outside-key-needed"]);

    // Called off because of it: the agent does not order it again while the hold stands.
    practice.kms.machine().administer("CancelKeyDeletion", 0);
    practice.kms.machine().administer("EnableKey", 0);
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, ("ended".to_owned(), Some(OutsideWait::Hold), None));
    assert_eq!((practice.orders(), logged(&practice, "key.destruction-called-off").await), (1, 1));
    assert!(codes(&shown(&installation).await).is_empty(), "that is as it should be");
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold("case-1", "clerk", practice.now()).await.unwrap());
    tx.commit().await.unwrap();

    // And a row that relies on it keeps it, whatever was ordered before.
    practice
        .sql(&format!("INSERT INTO visits (patient, finding, ended_at) VALUES ('p1', '{finding}', '2024-02-05')"))
        .await;
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, ("active".to_owned(), Some(OutsideWait::RowsRely), None));
    assert_eq!((practice.orders(), practice.kms.state(0)), (1, "Enabled".to_owned()));
    practice.sql("DELETE FROM visits").await;
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, doomed(practice.now() + days(7)));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn rows_that_rely_on_a_key_that_is_to_be_deleted_are_told() {
    let practice = Practice::open_its_doors("0").await;
    let finding = practice.seal(0, "restored from somewhere");
    let installation = practice.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    pass(&installation).await;
    let id = id_of(&installation, "findings").await;
    let date = practice.now() + days(7);
    assert_eq!(waits(&installation, &id).await, doomed(date));
    practice
        .sql(&format!("INSERT INTO visits (patient, finding, ended_at) VALUES ('p1', '{finding}', '2024-02-05')"))
        .await;
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, needed(date));
    let what = stored(&installation, &id).await.1.wait.unwrap().what;
    assert!(what.starts_with("living rows hold fields that it seals; until its date somebody"), "{what}");
    let status = shown(&installation).await;
    assert_eq!(codes(&status), ["outside-key-needed"]);
    practice.sql("DELETE FROM visits").await;
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, doomed(date));
    assert!(codes(&shown(&installation).await).is_empty());
    installation.close().await.unwrap();
}

/// As long as a shred could still be held back for them, the key of what they wrote is, too.
#[tokio::test]
async fn a_hold_on_a_customer_keeps_a_policys_key_while_erased_rows_wait_for_a_shred() {
    let practice = Practice::open_its_doors("0").await;
    let installation = practice.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    let now = practice.now();
    place_hold(&installation, &hold_row("case-1", now), Some(&Subject::new("p2"))).await.unwrap();
    state_sql(&practice, "UPDATE run SET state = 'shred-pending'").await;
    pass(&installation).await;
    let id = id_of(&installation, "findings").await;
    assert_eq!(waits(&installation, &id).await, ("ended".to_owned(), Some(OutsideWait::Hold), None));
    // Of another collection it is nothing to this key.
    state_sql(&practice, "UPDATE ledger SET collection = 'patients'").await;
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, doomed(now + days(7)));
    installation.close().await.unwrap();
}

/// With a retention every night some run always waits for its shred.
#[tokio::test]
async fn a_hold_on_a_customer_lets_a_policys_key_go_while_only_newer_runs_wait_for_a_shred() {
    let practice = Practice::open_its_doors("0").await;
    let later = practice.seal(1, "of another period, with another key");
    let installation = practice.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    place_hold(&installation, &hold_row("case-1", practice.now()), Some(&Subject::new("p2"))).await.unwrap();
    state_sql(&practice, "UPDATE run SET state = 'shred-pending'").await;
    pass(&installation).await;
    let id = id_of(&installation, "findings").await;
    assert_eq!(waits(&installation, &id).await, ("ended".to_owned(), Some(OutsideWait::Hold), None));

    practice.wait(&installation, days(2)).await;
    let visit = format!("INSERT INTO visits (patient, finding, ended_at) VALUES ('p1', '{later}', '2024-05-05')");
    practice.sql(&visit).await;
    assert_eq!(body(&retain(&installation).await).erased, 1);
    state_sql(&practice, "UPDATE run SET state = 'shred-pending'").await;
    pass(&installation).await;
    assert_eq!(
        waits(&installation, &id).await,
        ("ended".to_owned(), Some(OutsideWait::Hold), None),
        "its own still wait"
    );
    assert!(codes(&shown(&installation).await).is_empty());

    let oldest = "UPDATE run SET state = 'shredded' WHERE begun_at = (SELECT min(begun_at) FROM run)";
    state_sql(&practice, oldest).await;
    practice.kms.machine().denied.push("ScheduleKeyDeletion");
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await.1, Some(OutsideWait::ServiceRefuses));
    assert_eq!(codes(&shown(&installation).await), ["outside-key-overdue"], "the hold is no reason any more");
    practice.kms.machine().denied.clear();
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, doomed(practice.now() + days(7)));
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_deletion_that_was_called_off_once_is_counted_once() {
    let practice = Practice::open_its_doors("0").await;
    let installation = practice.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    pass(&installation).await;
    let id = id_of(&installation, "findings").await;
    practice.kms.machine().administer("CancelKeyDeletion", 0);
    practice.kms.machine().administer("EnableKey", 0);
    // As a process leaves it that was stopped right after it had noted that.
    let (mut row, mut body) = stored(&installation, &id).await;
    (body.called_off, body.facts.as_mut().unwrap().deleted_at) = (1, None);
    body.put(&mut row).unwrap();
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.step_outside_key(&row, "doomed").await.unwrap());
    tx.commit().await.unwrap();
    pass(&installation).await;
    assert_eq!(waits(&installation, &id).await, doomed(practice.now() + days(7)));
    assert_eq!((stored(&installation, &id).await.1.called_off, practice.orders()), (1, 2));
    assert_eq!(logged(&practice, "key.destruction-called-off").await, 0);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_key_is_asked_about_by_what_its_record_says_and_one_that_cannot_be_keeps_back_no_other() {
    let practice = Practice::open_its_doors("0").await;
    let installation = practice.open().await;
    assert_eq!(body(&retain(&installation).await).erased, 2);
    pass(&installation).await;
    practice.wait(&installation, days(7)).await;
    pass(&installation).await;
    let id = id_of(&installation, "findings").await;
    assert_eq!(state(&installation, &id).await.0, "destroyed");
    assert_eq!(gone(&installation).await, (1, vec![]));
    practice.kms.machine().denied.push("DescribeKey");
    let (there, problems) = gone(&installation).await;
    assert!(there == 0 && problems.len() == 1 && problems[0].contains("was not looked at: "), "{problems:?}");
    practice.kms.machine().denied.clear();
    installation.close().await.unwrap();

    // The entry is renewed: its key is another one, which lives.
    let (old, new) = {
        let machine = practice.kms.machine();
        (machine.id_of(0), machine.id_of(1))
    };
    let path = practice.folder.path().join("wangchuan.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&old));
    write_config(practice.folder.path(), &text.replace(&old, &new));
    let installation = practice.open().await;
    let (there, problems) = gone(&installation).await;
    assert!(there == 0 && problems.len() == 1, "{problems:?}");
    assert!(problems[0].contains("is not configured as it was; it was not looked at"), "{problems:?}");
    // From the next pass on the new key is known, and nobody can ask for the old one any more.
    pass(&installation).await;
    let found = check_gone(&installation).await.unwrap();
    assert_eq!(found, GoneKeys { gone: 0, replaced: 1, problems: Vec::new() });
    installation.close().await.unwrap();
}
