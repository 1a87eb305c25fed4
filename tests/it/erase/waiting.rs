//! Requests whose rows a hold or a statute keeps: they wait, and are carried out by themselves when it ends.

use super::ground::{Place, counts, forget, governed, hold_row, refusal, retain};
use chrono::{DateTime, Utc};
use wangchuan::agent::run_task;
use wangchuan::control::{HoldRow, RequestRow};
use wangchuan::erase::waits::Waits;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::schedule::Task;
use wangchuan::tasks::request::{cancel, place_hold, plan_request, receive};

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT);
    INSERT INTO notes VALUES (1, 'a', '2001-01-01'), (2, 'a', '2001-01-01'), (3, 'b', '2001-01-01');";

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
    assert_eq!(Waits::of(waiting.waits.as_deref()), Waits { holds: vec!["case-1".to_owned()], until: None });
    // Nobody can lose it: the same person again is the same request, and asked for by number it says what it waits for.
    assert!(receive(&installation, &Subject::new("a")).await.unwrap().existing);
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
    place.sql_in("state/control.db", "UPDATE request SET waits = '{\"until\":\"2020-01-01T00:00:00Z\"}'").await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "1 carried out");
    assert_eq!(request(&installation, number).await.state, "done");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "3");
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
    cancel(&installation, number).await.unwrap();
    let closed = request(&installation, number).await;
    assert_eq!((closed.state.as_str(), closed.closed_at.is_some()), ("partly-kept", true));
    release(&installation, "case-1").await;
    assert_eq!(run_task(&mut installation, &Task::Requests).await.summary, "0 carried out");
    assert_eq!(counts(&retain(&installation).await), [1, 1, 0, 0, 0]);
    installation.close().await.unwrap();
}
