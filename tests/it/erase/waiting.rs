//! Requests whose rows a hold or a statute keeps: they wait, and are carried out by themselves when it ends.

use super::ground::{Place, counts, forget, governed, hold_row, refusal, retain};
use chrono::{DateTime, Utc};
use wangchuan::agent::run_task;
use wangchuan::certify::codes::{ErasureResult, RefusalReason};
use wangchuan::certify::verify;
use wangchuan::control::{HoldRow, RequestRow, RunRow};
use wangchuan::erase::waits::Waits;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::schedule::Task;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::request::{cancel, place_hold, plan_request, receive};
use wangchuan::tasks::undo::{undo_request, undo_run};

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT);
    INSERT INTO notes VALUES (1, 'a', '2001-01-01'), (2, 'a', '2001-01-01'), (3, 'b', '2001-01-01');";

/// What requests wait for is over.
const PAST: &str = "UPDATE request SET waits = json_set(waits, '$.until', '2020-01-01T00:00:00Z')";

async fn hold(installation: &Installation, id: &str, subject: Option<&str>) {
    let mut row = hold_row(id, installation.clock.now());
    if subject.is_none() {
        let (store, collection) = (Some("shop".to_owned()), Some("notes".to_owned()));
        row = HoldRow { scope: "collection".to_owned(), store, collection, ..row };
    }
    place_hold(installation, &row, subject.map(Subject::new).as_ref()).await.unwrap();
}

async fn release(installation: &Installation, id: &str) {
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold(id, "tester", installation.clock.now()).await.unwrap());
    tx.commit().await.unwrap();
}

async fn request(installation: &Installation, number: i64) -> RequestRow {
    installation.control.read().await.unwrap().request(number).await.unwrap().unwrap()
}

async fn run_of(installation: &Installation, number: i64) -> RunRow {
    let id = request(installation, number).await.run.unwrap();
    installation.control.read().await.unwrap().run(&id).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_a_hold_kept_goes_by_itself_when_the_last_hold_is_released() {
    let place = Place::make(NOTES, &governed("notes", "subject = \"person\"")).await;
    let mut installation = place.open().await;
    hold(&installation, "case-1", Some("a")).await;
    let run = forget(&installation, "a").await;
    assert_eq!(counts(&run), [2, 0, 0, 2, 0]);
    let number = run.request.unwrap();
    let waiting = request(&installation, number).await;
    assert_eq!(waiting.state, "waiting");
    let waits = Waits::of(waiting.waits.as_deref());
    assert_eq!((waits.holds, waits.until), (vec!["case-1".to_owned()], None));
    assert_eq!(waits.rows.map(|rows| rows.len()), Some(2));
    // Nobody can lose it: asked for by number it says what it waits for.
    assert!(refusal(plan_request(&installation, number).await).contains("the release of hold case-1"));
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "0 carried out");

    hold(&installation, "case-2", None).await;
    release(&installation, "case-1").await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    let waiting = request(&installation, number).await;
    assert_eq!(Waits::of(waiting.waits.as_deref()).holds, ["case-2"], "the second hold keeps them now");
    assert_eq!(place.ask("SELECT count(*) FROM notes").await, "3");

    release(&installation, "case-2").await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(request(&installation, number).await.state, "done");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "3");
    let key = format!("SELECT state FROM work WHERE purpose = 'request' AND reference = '{number}'");
    assert_eq!(place.ask_in("state/control.db", &key).await, "dying", "whom it was about is forgotten");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_a_statute_kept_goes_when_its_period_is_over() {
    let place = Place::make(NOTES, &governed("notes", "subject = \"person\"")).await;
    place.edit_config("basis = \"contract\"", "basis = \"contract\"\nstatutes = [\"cn.ecl.31\"]");
    let mut installation = place.open().await;
    let year: i32 = installation.clock.now().format("%Y").to_string().parse().unwrap();
    place.sql(&format!("UPDATE notes SET ended = '{}-06-01 12:00:00' WHERE id = 2", year - 1)).await;
    let run = forget(&installation, "a").await;
    assert_eq!(counts(&run), [2, 1, 0, 1, 0]);
    let number = run.request.unwrap();
    let waits = Waits::of(request(&installation, number).await.waits.as_deref());
    // Three years by the E-commerce Law, Article 31; whole days of the store's zone.
    let expected: DateTime<Utc> = format!("{}-06-01T16:00:00Z", year + 2).parse().unwrap();
    assert!(waits.until.is_some_and(|until| (until - expected).num_hours().abs() <= 24), "{waits:?}");
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "0 carried out");
    // The years pass: the row grows old, and the day comes.
    place.sql("UPDATE notes SET ended = '2002-01-01' WHERE id = 2").await;
    place.sql_in("state/control.db", PAST).await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(request(&installation, number).await.state, "done");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "3");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_request_of_which_statutes_keep_every_row_is_refused_with_the_day_on_which_the_first_ends() {
    let place = Place::make(NOTES, &governed("notes", "subject = \"person\"")).await;
    place.edit_config("basis = \"contract\"", "basis = \"contract\"\nstatutes = [\"cn.ecl.31\"]");
    let installation = place.open().await;
    let year: i32 = installation.clock.now().format("%Y").to_string().parse().unwrap();
    place.sql(&format!("UPDATE notes SET ended = '{}-06-01 12:00:00' WHERE person = 'a'", year - 1)).await;
    let run = forget(&installation, "a").await;
    assert_eq!(counts(&run), [2, 0, 0, 2, 0]);
    let ids = certify_due(&installation).await.unwrap();
    let row = installation.control.read().await.unwrap().certificate(&ids[0]).await.unwrap().unwrap();
    let said = verify(&row.envelope, installation.signer.trusted()).unwrap().into_erasure().unwrap().predicate;
    assert_eq!((row.result.as_str(), said.result), ("refused", ErasureResult::Refused));
    let refusal = said.refusal.unwrap();
    assert_eq!((refusal.reasons, refusal.waits), (vec![RefusalReason::Statute], true));
    let until = Waits::of(request(&installation, run.request.unwrap()).await.waits.as_deref()).until.unwrap();
    assert_eq!(refusal.looked_at_again, Some(until.date_naive()));
    assert!(said.retained.iter().all(|kept| kept.provision.as_deref() == Some("cn.ecl.31")), "{:?}", said.retained);
    assert!(certify_due(&installation).await.unwrap().is_empty(), "it is said once");

    // Of a run that takes something it is not said, nor of the one behind it that finds the rest kept.
    let number = forget(&installation, "b").await.request.unwrap();
    assert_eq!(request(&installation, number).await.state, "done");
    let ids = certify_due(&installation).await.unwrap();
    let row = installation.control.read().await.unwrap().certificate(&ids[0]).await.unwrap().unwrap();
    assert_eq!(row.result, "partial");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn rows_that_changed_under_the_run_are_looked_at_again_and_a_waiting_request_can_be_withdrawn() {
    let place = Place::make(NOTES, &governed("notes", "subject = \"person\"")).await;
    let mut installation = place.open().await;
    let number = receive(&installation, &Subject::new("a")).await.unwrap().request.number;
    let plan = plan_request(&installation, number).await.unwrap();
    place.sql("UPDATE notes SET ended = '2002-02-02' WHERE id = 1").await;
    let run = wangchuan::tasks::erasure::execute(&installation, &plan.row).await.unwrap();
    assert_eq!(counts(&run), [2, 1, 0, 1, 0]);
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(request(&installation, number).await.state, "done");

    hold(&installation, "case-1", Some("b")).await;
    let number = forget(&installation, "b").await.request.unwrap();
    cancel(&installation, number, RefusalReason::Withdrawn).await.unwrap();
    let closed = request(&installation, number).await;
    assert_eq!((closed.state.as_str(), closed.closed_at.is_some()), ("partly-kept", true));
    release(&installation, "case-1").await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "0 carried out");
    assert_eq!(counts(&retain(&installation).await), [1, 1, 0, 0, 0]);
    installation.close().await.unwrap();
}

/// A statute keeps note 2 of `a`, the request waits, and then `a` comes back with note 4.
async fn returned(grace: &str) -> (Place, Installation, i64) {
    let place = Place::make(NOTES, &governed("notes", "subject = \"person\"")).await;
    place.edit_config("grace = \"0\"", &format!("grace = \"{grace}\""));
    place.edit_config("basis = \"contract\"", "basis = \"contract\"\nstatutes = [\"cn.ecl.31\"]");
    let installation = place.open().await;
    let year: i32 = installation.clock.now().format("%Y").to_string().parse().unwrap();
    place.sql(&format!("UPDATE notes SET ended = '{}-06-01 12:00:00' WHERE id = 2", year - 1)).await;
    let run = forget(&installation, "a").await;
    assert_eq!(counts(&run), [2, 1, 0, 1, 0]);
    place.sql("INSERT INTO notes VALUES (4, 'a', '2003-01-01')").await;
    (place, installation, run.request.unwrap())
}

#[tokio::test]
async fn what_came_after_a_request_stays_when_it_goes_on_by_itself() {
    let (place, mut installation, number) = returned("0").await;
    place.sql("UPDATE notes SET ended = '2002-01-01' WHERE id = 2").await;
    place.sql_in("state/control.db", PAST).await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "3,4");
    // Nothing of the request is left, and the note that stays is none of its business.
    assert_eq!(request(&installation, number).await.state, "done");
    assert_eq!(counts(&run_of(&installation, number).await), [2, 1, 0, 1, 0]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn who_asks_again_while_a_request_waits_is_answered_anew_and_about_everything() {
    let (place, mut installation, number) = returned("0").await;
    let long_ago = "UPDATE request SET received_at = '2020-01-01T00:00:00Z', due_at = '2020-01-31T00:00:00Z'";
    place.sql_in("state/control.db", long_ago).await;
    let before = installation.clock.now();
    let again = receive(&installation, &Subject::new("a")).await.unwrap();
    assert!(again.existing && again.renewed);
    let renewed = request(&installation, number).await;
    assert_eq!((again.request.number, &again.request), (number, &renewed));
    assert_eq!((renewed.state.as_str(), renewed.waits.as_deref(), renewed.closed_at), ("received", None, None));
    assert!(renewed.received_at >= before - chrono::TimeDelta::seconds(1), "{renewed:?}");
    assert_eq!(renewed.due_at - renewed.received_at, chrono::TimeDelta::days(30));
    let third = receive(&installation, &Subject::new("a")).await.unwrap();
    assert!(third.existing && !third.renewed, "it is open, and was not begun");
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "2,3");
    assert_eq!(request(&installation, number).await.state, "waiting", "the statute still keeps note 2");

    // One that goes on after it waited, and was not carried out yet, is renewed too.
    place
        .sql("INSERT INTO notes VALUES (5, 'a', '2003-01-01'); UPDATE notes SET ended = '2002-01-01' WHERE id = 2")
        .await;
    place.sql_in("state/control.db", PAST).await;
    let limited = plan_request(&installation, number).await.unwrap();
    assert!(receive(&installation, &Subject::new("a")).await.unwrap().renewed);
    let gone = refusal(wangchuan::tasks::erasure::execute(&installation, &limited.row).await);
    assert!(gone.contains("void"), "{gone}");
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "3");
    assert_eq!(request(&installation, number).await.state, "done");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_waits_is_looked_at_once_under_other_rules() {
    let (place, mut installation, number) = returned("0").await;
    installation.close().await.unwrap();
    place.edit_config("1 year", "2 years");
    installation = place.open().await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(request(&installation, number).await.state, "waiting", "the statute is the same");
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "0 carried out");
    installation.close().await.unwrap();

    place.edit_config("\nstatutes = [\"cn.ecl.31\"]", "");
    installation = place.open().await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(request(&installation, number).await.state, "done");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "3,4");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_open_again_is_withdrawn_whole_and_can_be_made_anew() {
    for grace in ["1 hour", "0"] {
        let (place, mut installation, number) = returned(grace).await;
        place.sql_in("state/control.db", PAST).await;
        let plan = plan_request(&installation, number).await.unwrap();
        assert_eq!(request(&installation, number).await.state, "received");
        if grace == "0" {
            cancel(&installation, number, RefusalReason::Withdrawn).await.unwrap();
        } else {
            undo_run(&installation, &run_of(&installation, number).await).await.unwrap();
        }
        let (left, state) = if grace == "0" { ("2,3,4", "partly-kept") } else { ("1,2,3,4", "cancelled") };
        assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, left);
        let closed = request(&installation, number).await;
        assert_eq!((closed.state.as_str(), closed.closed_at.is_some()), (state, true));
        assert!(refusal(wangchuan::tasks::erasure::execute(&installation, &plan.row).await).contains("void"));
        assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "0 carried out");
        let anew = receive(&installation, &Subject::new("a")).await.unwrap();
        assert!(!anew.existing && anew.request.number != number);
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_earlier_run_is_not_undone_under_a_later_one_and_takes_no_new_asking_with_it() {
    let (place, mut installation, number) = returned("1 hour").await;
    let first = run_of(&installation, number).await;
    place.sql_in("state/control.db", "UPDATE request SET state = 'running'").await;
    assert!(refusal(undo_run(&installation, &first).await).contains("is being carried out again"));
    place.sql_in("state/control.db", "UPDATE request SET state = 'waiting'").await;

    assert!(receive(&installation, &Subject::new("a")).await.unwrap().renewed);
    assert_eq!(undo_run(&installation, &first).await.unwrap().restored, 1);
    assert_eq!(request(&installation, number).await.state, "received");
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "2,3");
    // Withdrawn by its number, it is withdrawn although it was asked for again.
    assert!(receive(&installation, &Subject::new("a")).await.unwrap().renewed);
    assert_eq!(undo_request(&installation, number).await.unwrap().restored, 2);
    assert_eq!(request(&installation, number).await.state, "cancelled");
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "0 carried out");
    installation.close().await.unwrap();
}
