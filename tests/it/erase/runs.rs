//! Runs that meet what they should not: changed plans, changed rules, crashes, rows that come back.

use super::ground::{Place, counts, forget, governed, refusal, retain};
use wangchuan::agent::run_task;
use wangchuan::certify::codes::RefusalReason;
use wangchuan::control::{BucketName, LedgerKind, RunRow};
use wangchuan::erase::planner::StoredPlan;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::schedule::Task;
use wangchuan::stores::{BatchMarker, Filter};
use wangchuan::tasks::erasure::{RunBody, execute, plan_retention, resume_runs};
use wangchuan::tasks::request::{cancel, plan_request, receive};
use wangchuan::value::{RowKey, Value};

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT);
    INSERT INTO notes VALUES (1, 'a', '2001-01-01'), (2, 'b', '2001-01-01'), (3, 'c', '2001-01-01'), (4, 'd', NULL);";

fn notes() -> String {
    governed("notes", "subject = \"person\"")
}

/// A run as a crash right after its first transaction leaves it.
pub async fn interrupted(installation: &Installation, plan: &StoredPlan, state: &str) -> RunRow {
    let mut run = RunRow {
        id: format!("run-of-{}", plan.row.id),
        kind: plan.row.kind.clone(),
        plan: Some(plan.row.id.clone()),
        request: plan.row.request,
        state: state.to_owned(),
        begun_at: installation.clock.now(),
        ended_at: None,
        verified_at: None,
        verified_snapshot: None,
        grace_until: None,
        generation: None,
        shredded_at: None,
        body: String::new(),
    };
    RunBody { due: plan.body.due() as i64, ..RunBody::default() }.put(&mut run).unwrap();
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.set_plan_state(&plan.row.id, "executed").await.unwrap());
    tx.add_run(&run).await.unwrap();
    if let Some(number) = run.request {
        assert!(tx.step_request(number, "received", "running", Some(&run.id), None).await.unwrap());
    }
    tx.commit().await.unwrap();
    run
}

async fn run_now(installation: &Installation, id: &str) -> RunRow {
    installation.control.read().await.unwrap().run(id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_row_that_comes_back_fails_alone_and_a_reused_key_does_not_count() {
    let place = Place::make(NOTES, &notes()).await;
    let installation = place.open().await;
    let store = installation.sites()[0].store.clone();
    store.begin_batch().await.unwrap().roll_back().await.unwrap();
    place
        .sql(
            "CREATE TRIGGER back AFTER INSERT ON wangchuan_batch BEGIN
               INSERT INTO notes VALUES (1, 'a', '2001-01-01'), (2, 'somebody else', '2026-01-01'); END",
        )
        .await;
    let run = retain(&installation).await;
    assert_eq!(run.state, "shred-pending");
    assert_eq!(counts(&run), [3, 2, 0, 0, 1]);
    let body = RunBody::of(&run).unwrap();
    assert_eq!(body.residual, 1);
    assert!(body.notes.iter().any(|note| note.contains("there again")), "{body:?}");
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.ledger_of_run(&run.id).await.unwrap().len(), 2);
    let chunks = tx.chunks(run.plan.as_deref().unwrap()).await.unwrap();
    assert_eq!((chunks[0].counts.erased, chunks[0].counts.failed), (2, 1));
    drop(tx);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_plan_is_carried_out_only_as_it_was_shown() {
    let place = Place::make(NOTES, &notes()).await;
    let installation = place.open().await;
    let first = plan_retention(&installation).await.unwrap();
    let plan = plan_retention(&installation).await.unwrap();
    assert!(refusal(execute(&installation, &first.row).await).contains("void"));
    let dying = "SELECT state FROM work WHERE reference = (SELECT id FROM plan WHERE state = 'void')";
    assert_eq!(place.ask_in("state/control.db", dying).await, "dying");

    let mut changed = plan.row.clone();
    changed.body = changed.body.replace("\"due\":3", "\"due\":2");
    assert_ne!(changed.body, plan.row.body);
    assert!(refusal(execute(&installation, &changed).await).contains("hash"));
    let (strip, erase) =
        ("UPDATE plan_chunk SET verdict = 'strip'", "UPDATE plan_chunk SET verdict = 'erase', rows = 3");
    place.sql_in("state/control.db", strip).await;
    assert!(refusal(execute(&installation, &plan.row).await).contains("hash"));
    place.sql_in("state/control.db", "UPDATE plan_chunk SET verdict = 'erase', rows = 2").await;
    assert!(refusal(execute(&installation, &plan.row).await).contains("hash"));
    assert_eq!(place.ask("SELECT count(*) FROM notes").await, "4");
    place.sql_in("state/control.db", erase).await;
    assert_eq!(counts(&execute(&installation, &plan.row).await.unwrap()), [3, 3, 0, 0, 0]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn an_interrupted_run_does_not_go_on_under_another_policy_or_schema() {
    for change in ["policy", "schema"] {
        let place = Place::make(NOTES, &notes()).await;
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        let run = interrupted(&installation, &plan, "approved").await;
        installation.close().await.unwrap();
        if change == "policy" {
            place.edit_config("1 year", "2 years");
        } else {
            place.sql("ALTER TABLE notes ADD COLUMN more TEXT").await;
        }
        let installation = place.open().await;
        let resumed = resume_runs(&installation).await.unwrap();
        assert!(resumed.failed.is_empty(), "{resumed:?}");
        let run = run_now(&installation, &run.id).await;
        assert_eq!(counts(&run), [3, 0, 0, 3, 0]);
        let notes = RunBody::of(&run).unwrap().notes;
        assert!(notes.iter().any(|note| note.starts_with(&format!("{change} changed"))), "{notes:?}");
        assert_eq!(place.ask("SELECT count(*) FROM notes").await, "4");
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_not_verified_but_waits() {
    for state in ["approved", "deleted", "verified"] {
        let place = Place::make(NOTES, &notes()).await;
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        let run = interrupted(&installation, &plan, state).await;
        installation.close().await.unwrap();
        std::fs::rename(place.path("shop.db"), place.path("away.db")).unwrap();
        let installation = place.open().await;
        let resumed = resume_runs(&installation).await.unwrap();
        let (_, error) = &resumed.failed[0];
        assert!(error.is_retryable() && error.to_string().contains("shop"), "{error}");
        assert_eq!(run_now(&installation, &run.id).await.state, state);
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_withdrawn_request_is_not_carried_out_and_a_hopeless_run_holds_up_nobody() {
    let place = Place::make(NOTES, &notes()).await;
    let installation = place.open().await;
    let number = receive(&installation, &Subject::new("d")).await.unwrap().request.number;
    let plan = plan_request(&installation, number).await.unwrap();
    cancel(&installation, number, RefusalReason::Withdrawn).await.unwrap();
    assert!(refusal(execute(&installation, &plan.row).await).contains("void"));
    assert!(installation.control.read().await.unwrap().runs(None).await.unwrap().is_empty());

    let number = receive(&installation, &Subject::new("d")).await.unwrap().request.number;
    let plan = plan_request(&installation, number).await.unwrap();
    let hopeless = interrupted(&installation, &plan, "approved").await;
    let mut tx = installation.control.begin().await.unwrap();
    tx.retire_work("request", &number.to_string()).await.unwrap();
    tx.commit().await.unwrap();
    let plan = plan_retention(&installation).await.unwrap();
    let good = interrupted(&installation, &plan, "approved").await;
    let resumed = resume_runs(&installation).await.unwrap();
    assert_eq!(resumed.done.iter().map(|run| &run.id).collect::<Vec<_>>(), [&good.id]);
    assert_eq!(resumed.failed.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&hopeless.id]);
    let hopeless = run_now(&installation, &hopeless.id).await;
    assert_eq!((hopeless.state.as_str(), counts(&hopeless)), ("failed", [1, 0, 0, 0, 1]));
    assert_eq!(counts(&run_now(&installation, &good.id).await), [3, 3, 0, 0, 0]);
    let resumed = resume_runs(&installation).await.unwrap();
    assert!(resumed.done.is_empty() && resumed.failed.is_empty(), "{resumed:?}");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_request_whose_plan_is_lost_is_carried_out_anew() {
    let place = Place::make(NOTES, &notes()).await;
    let installation = place.open().await;
    let number = receive(&installation, &Subject::new("d")).await.unwrap().request.number;
    let plan = plan_request(&installation, number).await.unwrap();
    interrupted(&installation, &plan, "approved").await;
    let mut tx = installation.control.begin().await.unwrap();
    tx.retire_work("plan", &plan.row.id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(resume_runs(&installation).await.unwrap().failed.len(), 1);
    let state = async || installation.control.read().await.unwrap().request(number).await.unwrap().unwrap().state;
    assert_eq!(state().await, "received");
    let again = plan_request(&installation, number).await.unwrap();
    execute(&installation, &again.row).await.unwrap();
    assert_eq!(state().await, "done");
    installation.close().await.unwrap();
}

const PEOPLE: &str = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, code TEXT NOT NULL UNIQUE, ended TEXT);
    CREATE TABLE cards (person INTEGER REFERENCES people (id));
    INSERT INTO people VALUES (1, 'a', 'x', '2001-01-01'), (2, 'b', 'y', '2001-01-01');
    INSERT INTO cards VALUES (1), (2);";

#[tokio::test]
async fn a_strip_whose_outcome_a_crash_hid_is_read_from_the_rows() {
    for stripped in [true, false] {
        let place = Place::make(PEOPLE, &governed("people", "subject = \"id\"")).await;
        let installation = place.open().await;
        let number = receive(&installation, &Subject::new("1")).await.unwrap().request.number;
        let plan = plan_request(&installation, number).await.unwrap();
        let run = interrupted(&installation, &plan, "approved").await;
        let mut tx = installation.control.begin().await.unwrap();
        let chunk = tx.chunks(&plan.row.id).await.unwrap().remove(0);
        assert_eq!(chunk.verdict, "strip");
        // The entry's digest is that of the row; the run itself writes it in the same way.
        let suppression = installation.keyring.work_key(&mut tx, wangchuan::keyring::Purpose::Suppression, "").await;
        let key = RowKey(vec![Value::Integer(1)]);
        let mac = wangchuan::plan::digest::row_mac(&suppression.unwrap(), "shop", "people", &key);
        tx.begin_chunk(&run, &chunk, LedgerKind::Stripped, &[mac], run.begun_at).await.unwrap();
        tx.commit().await.unwrap();
        let mut batch = installation.sites()[0].store.begin_batch().await.unwrap();
        let set = [("name".to_owned(), Value::Null), ("code".to_owned(), Value::Text("0123456789abcdef".to_owned()))];
        if stripped {
            batch.update("people", &set, &Filter::In(vec!["id".to_owned()], vec![key])).await.unwrap();
        }
        let changed = i64::from(stripped);
        let marker = BatchMarker { run: run.id.clone(), chunk: chunk.number, token: 1, erased: 0, changed };
        batch.commit(&marker).await.unwrap();
        let resumed = resume_runs(&installation).await.unwrap();
        assert!(resumed.failed.is_empty(), "{resumed:?}");
        let run = run_now(&installation, &run.id).await;
        assert_eq!(counts(&run), if stripped { [1, 0, 1, 0, 0] } else { [1, 0, 0, 1, 0] });
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_strip_leaves_nothing_in_columns_that_must_not_be_null() {
    let declared = "subject = \"id\"\ntriggers = [\"deaf\"]";
    let place = Place::make(PEOPLE, &governed("people", declared)).await;
    let installation = place.open().await;
    assert_eq!(counts(&forget(&installation, "1").await), [1, 0, 1, 0, 0]);
    let text = place.ask("SELECT coalesce(name, '-') || code FROM people WHERE id = 1").await;
    assert!(text.len() == 17 && text.starts_with('-'), "{text}");
    assert_eq!(place.ask("SELECT name || code FROM people WHERE id = 2").await, "by");
    // A trigger that was declared harmless and swallows the change is found out inside the transaction.
    place.sql("CREATE TRIGGER deaf BEFORE UPDATE ON people BEGIN SELECT RAISE(IGNORE); END").await;
    let mut installation = installation;
    installation.refresh().await.unwrap();
    assert_eq!(counts(&forget(&installation, "2").await), [1, 0, 0, 0, 1]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_run_is_made_up_for_after_a_crash() {
    let place = Place::make(NOTES, &notes()).await;
    let installation = place.open().await;
    let mut run = retain(&installation).await;
    let mut body = RunBody::of(&run).unwrap();
    assert!(body.closed);
    body.closed = false;
    body.put(&mut run).unwrap();
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.step_run(&run, "shred-pending").await.unwrap());
    tx.commit().await.unwrap();
    let store = &installation.sites()[0].store;
    let marker = BatchMarker { run: run.id.clone(), chunk: 0, token: 1, erased: 3, changed: 0 };
    store.begin_batch().await.unwrap().commit(&marker).await.unwrap();
    let resumed = resume_runs(&installation).await.unwrap();
    assert!(resumed.done.is_empty() && resumed.failed.is_empty(), "{resumed:?}");
    assert!(RunBody::of(&run_now(&installation, &run.id).await).unwrap().closed);
    assert_eq!(store.batch_outcome(&run.id, 0).await.unwrap(), None);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_period_that_is_over_is_marked_even_when_no_row_is_due() {
    let place = Place::make("CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT)", &notes()).await;
    let mut installation = place.open().await;
    let retention = Task::Retention { policies: Vec::new() };
    assert_eq!(run_task(&mut installation, &retention).await.summary, "nothing is due");
    let bucket = |period: &str| BucketName {
        store: "shop".to_owned(),
        collection: "notes".to_owned(),
        policy: "notes-rule".to_owned(),
        period: period.to_owned(),
    };
    let mut tx = installation.control.begin().await.unwrap();
    tx.add_bucket(1, &bucket("2020Q1")).await.unwrap();
    tx.add_bucket(2, &bucket("2999Q1")).await.unwrap();
    tx.commit().await.unwrap();
    run_task(&mut installation, &retention).await;
    let state = |slot| format!("SELECT state FROM bucket WHERE slot = {slot}");
    assert_eq!(place.ask_in("state/control.db", &state(1)).await, "dying");
    assert_eq!(place.ask_in("state/control.db", &state(2)).await, "active");
    assert_eq!(place.ask_in("state/control.db", "SELECT count(*) FROM run").await, "1");
    assert_eq!(run_task(&mut installation, &retention).await.summary, "nothing is due");
    assert_eq!(place.ask_in("state/control.db", "SELECT count(*) FROM run").await, "1");
    installation.close().await.unwrap();
}
