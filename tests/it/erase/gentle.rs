//! Batches that follow what they cost, runs that are paused, stopped and tuned while they go, and locks that others hold.

use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection};
use wangchuan::agent::run_task;
use wangchuan::control::{PaceRow, RunRow};
use wangchuan::erase::pace::FIRST_ROWS;
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::schedule::Task;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::certify::certify_or_wait;
use wangchuan::tasks::erasure::{RunBody, execute, plan_retention, resume_run, resume_runs};
use wangchuan::tasks::orders::{Tuning, Wish, ask, tune};
use wangchuan::tasks::request::{plan_request, receive};

use super::ground::{Place, counts, governed, refusal, retain};
use super::runs::interrupted;

/// A table with so many rows that are due, of one person.
fn notes(rows: i64) -> String {
    format!(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT);
         WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {rows})
         INSERT INTO notes SELECT id, 'a', '2001-01-01' FROM n;"
    )
}

async fn place(rows: i64, budget: &str) -> Place {
    let place = Place::make(&notes(rows), &governed("notes", "subject = \"person\"")).await;
    place.edit_config("backup = \"none\"", &format!("backup = \"none\"\nbudget = {{ {budget} }}"));
    place
}

async fn pace_of(installation: &Installation, run: &str) -> PaceRow {
    installation.control.read().await.unwrap().pace(run).await.unwrap().unwrap()
}

async fn only_run(installation: &Installation) -> RunRow {
    installation.control.read().await.unwrap().runs(None).await.unwrap().pop().unwrap()
}

const LEFT: &str = "SELECT count(*) FROM notes";

#[tokio::test]
async fn a_large_list_goes_in_batches_and_its_plan_stays_what_it_was() {
    let place = place(2_600, "").await;
    let installation = place.open().await;
    let run = retain(&installation).await;
    assert_eq!(counts(&run), [2_600, 2_600, 0, 0, 0]);
    assert_eq!(place.ask(LEFT).await, "0");
    let pace = pace_of(&installation, &run.id).await;
    assert!(pace.batches > 3 && pace.rows == 2_600 && pace.longest_ms >= 0, "{pace:?}");
    let plan = run.plan.clone().unwrap();
    let chunks = installation.control.read().await.unwrap().chunks(&plan).await.unwrap();
    assert_eq!(chunks.len() as i64, pace.batches);
    assert_eq!(chunks[0].rows, FIRST_ROWS as i64);
    let mut next = 0;
    for chunk in &chunks {
        assert_eq!(chunk.number, next, "a piece stands where its first row stood");
        next += chunk.rows;
    }
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_run_is_paused_between_batches_survives_a_restart_and_is_tuned_and_resumed() {
    let place = place(400, "rows_per_second = 50").await;
    let installation = place.open().await;
    let beside = place.open_beside().await;
    let plan = plan_retention(&installation).await.unwrap();
    let erasing = execute(&installation, &plan.row);
    let pausing = async {
        while place.ask(LEFT).await == "400" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let run = only_run(&beside).await;
        ask(&beside, &run, Wish::Pause).await.unwrap();
        run.id
    };
    let (erased, id) = tokio::join!(erasing, pausing);
    assert!(matches!(erased, Err(TaskError::Paused { run }) if run == id));
    let left: i64 = place.ask(LEFT).await.parse().unwrap();
    assert!((250..400).contains(&left), "{left} of 400 rows, 50 a second, are left");
    beside.close().await.unwrap();
    installation.close().await.unwrap();

    let installation = place.open().await;
    let resumed = resume_runs(&installation).await.unwrap();
    assert!(resumed.done.is_empty() && resumed.failed.is_empty());
    let run = only_run(&installation).await;
    assert!(matches!(resume_run(&installation, run.clone()).await, Err(TaskError::Paused { .. })));
    assert_eq!(place.ask(LEFT).await, left.to_string());
    // Nothing is planned beside it: its rows would be in two runs.
    let mut installation = installation;
    let done = run_task(&mut installation, &Task::Retention { policies: Vec::new() }).await;
    assert!(done.state == "partial" && done.summary.contains("is paused"), "{done:?}");

    let beside_it = plan_retention(&installation).await.unwrap();
    assert!(refusal(execute(&installation, &beside_it.row).await).contains(&run.id), "nor carried out");

    let tuning = Tuning { rows_per_second: Some(100_000), ..Tuning::default() };
    assert_eq!(tune(&installation, &run, tuning).await.unwrap().wish, "pause", "another pace is no wish to go on");
    ask(&installation, &run, Wish::Go).await.unwrap();
    let begun = std::time::Instant::now();
    let run = resume_run(&installation, run).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "50 rows a second still count");
    assert_eq!(counts(&run), [400, 400, 0, 0, 0]);
    assert!(refusal(ask(&installation, &run, Wish::Pause).await).contains("its batches are done"));
    let entries = wangchuan::tasks::oplog::export(&installation).await.unwrap();
    let log: String = entries.into_iter().filter_map(|entry| entry.text).collect();
    for operation in ["run.pause", "run.tune", "run.resume"] {
        assert!(log.contains(operation), "the operation log lacks {operation}");
    }
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_stopped_run_keeps_the_rest_and_the_next_plan_has_it() {
    let place = place(300, "rows_per_second = 50").await;
    let installation = place.open().await;
    let beside = place.open_beside().await;
    let plan = plan_retention(&installation).await.unwrap();
    let stopping = async {
        while place.ask(LEFT).await == "300" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let run = only_run(&beside).await;
        ask(&beside, &run, Wish::Stop).await.unwrap();
        assert!(refusal(ask(&beside, &run, Wish::Go).await).contains("told to stop"));
    };
    let (run, ()) = tokio::join!(execute(&installation, &plan.row), stopping);
    let run = run.unwrap();
    let left: i64 = place.ask(LEFT).await.parse().unwrap();
    assert!(left > 0 && left < 300);
    assert_eq!(counts(&run), [300, 300 - left, 0, left, 0]);
    let body = RunBody::of(&run).unwrap();
    assert_eq!(body.stopped, left);
    assert!(body.notes.iter().any(|note| note.contains("stopped")), "{body:?}");
    let (certificates, _) = certify_or_wait(&installation).await.unwrap();
    assert_eq!(certificates.len(), 1);
    let certificate = place.ask_in("state/control.db", "SELECT result FROM certificate").await;
    assert_eq!(certificate, "partial");
    let next = plan_retention(&installation).await.unwrap();
    assert_eq!(next.body.due() as i64, left);
    beside.close().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test]
async fn what_a_killed_start_had_stopped_counts_as_stopped_for_the_next() {
    let place = place(300, "rows_per_second = 50").await;
    let installation = place.open().await;
    let beside = place.open_beside().await;
    let plan = plan_retention(&installation).await.unwrap();
    let pausing = async {
        while place.ask(LEFT).await == "300" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let run = only_run(&beside).await;
        ask(&beside, &run, Wish::Pause).await.unwrap();
    };
    let (paused, ()) = tokio::join!(execute(&installation, &plan.row), pausing);
    assert!(matches!(paused, Err(TaskError::Paused { .. })));
    let left: i64 = place.ask(LEFT).await.parse().unwrap();
    // As a start leaves it that was told to stop, kept the rest, and was killed before the run went on to its next state.
    let killed = "UPDATE plan_chunk SET state = 'done', kept = rows, \
        note = 'the run was stopped before these rows; the next plan has them again' WHERE state = 'planned';
        UPDATE run_order SET wish = 'stop'";
    place.sql_in("state/control.db", killed).await;
    let run = resume_run(&installation, only_run(&installation).await).await.unwrap();
    assert_eq!(counts(&run), [300, 300 - left, 0, left, 0]);
    assert_eq!(RunBody::of(&run).unwrap().stopped, left);
    certify_or_wait(&installation).await.unwrap();
    assert_eq!(place.ask_in("state/control.db", "SELECT result FROM certificate").await, "partial");
    beside.close().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_stopped_request_waits_to_be_carried_out_again() {
    let place = place(3, "").await;
    let installation = place.open().await;
    let number = receive(&installation, &Subject::new("a")).await.unwrap().request.number;
    let plan = plan_request(&installation, number).await.unwrap();
    let run = interrupted(&installation, &plan, "approved").await;
    ask(&installation, &run, Wish::Stop).await.unwrap();
    let run = resume_run(&installation, run).await.unwrap();
    assert_eq!(counts(&run), [3, 0, 0, 3, 0]);
    let request = installation.control.read().await.unwrap().request(number).await.unwrap().unwrap();
    assert_eq!((request.state.as_str(), request.closed_at), ("received", None));
    let plan = plan_request(&installation, number).await.unwrap();
    assert_eq!(counts(&execute(&installation, &plan.row).await.unwrap()), [3, 3, 0, 0, 0]);
    installation.close().await.unwrap();
}

/// Another session that writes into the store.
async fn locked(place: &Place, installation: &Installation) -> SqliteConnection {
    // The marker table is there before somebody locks the file.
    installation.sites()[0].store.begin_batch().await.unwrap().roll_back().await.unwrap();
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", place.path("shop.db").display())).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    other
}

#[tokio::test]
async fn a_lock_that_another_session_holds_makes_batches_smaller_and_holds_nobody_up() {
    let place = place(200, "lock_ms = 100").await;
    let installation = place.open().await;
    let beside = place.open_beside().await;
    let plan = plan_retention(&installation).await.unwrap();
    let run = interrupted(&installation, &plan, "approved").await;
    let mut other = locked(&place, &installation).await;
    let letting_go = async {
        let waits = async || {
            let pace = beside.control.read().await.unwrap().pace(&run.id).await.unwrap();
            pace.and_then(|pace| pace.waits_for)
        };
        while waits().await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(waits().await.as_deref(), Some("a lock that another session holds"));
        // Whoever places a hold meanwhile waits for a batch that runs, not for one that gave way.
        beside.wait_for_destruction().await.unwrap();
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    };
    let (done, ()) = tokio::join!(resume_run(&installation, run.clone()), letting_go);
    let run = done.unwrap();
    assert_eq!(counts(&run), [200, 200, 0, 0, 0]);
    let plan = run.plan.clone().unwrap();
    let chunks = installation.control.read().await.unwrap().chunks(&plan).await.unwrap();
    assert!(chunks.len() > 1 && chunks[0].rows < FIRST_ROWS as i64, "the batch came back as it was");
    let pace = pace_of(&installation, &run.id).await;
    assert!(pace.paused_ms >= 100 && pace.waits_for.is_none(), "{pace:?}");
    let ledger = installation.control.read().await.unwrap().ledger_of_run(&run.id).await.unwrap();
    assert_eq!(ledger.len(), 200, "every row stands in the ledger once");
    beside.close().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_lock_that_stays_ends_the_work_and_the_run_goes_on_later() {
    let place = place(50, "lock_ms = 50").await;
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    let run = interrupted(&installation, &plan, "approved").await;
    let mut other = locked(&place, &installation).await;
    let error = resume_run(&installation, run).await.unwrap_err();
    assert!(error.is_retryable() && error.is_of_store(), "{error}");
    assert!(!installation.control.read().await.unwrap().is_destroying().await.unwrap());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    let resumed = resume_runs(&installation).await.unwrap();
    assert!(resumed.failed.is_empty(), "{:?}", resumed.failed);
    assert_eq!(counts(&resumed.done[0]), [50, 50, 0, 0, 0]);
    installation.close().await.unwrap();
}

/// What a refusal to plan says, and the statement in it.
async fn refused_plan(installation: &Installation) -> (String, String) {
    let said = refusal(plan_retention(installation).await);
    let from = said.find("CREATE INDEX").unwrap_or_else(|| panic!("no statement: {said}"));
    let sql = said[from..].split("; or ").next().unwrap().to_owned();
    (said, sql)
}

#[tokio::test]
async fn a_large_table_is_not_read_for_want_of_an_index_and_the_statement_makes_it() {
    let lines = "CREATE TABLE lines (note INTEGER REFERENCES notes (id), line INTEGER, PRIMARY KEY (line, note));
        INSERT INTO lines SELECT id, 1 FROM notes WHERE id > 5;";
    let people = governed("notes", "subject = \"person\"");
    for (rows, is_large) in [(20, false), (40, true)] {
        let place = Place::make(&format!("{}{lines}", notes(rows)), &people).await;
        place.edit_config("backup = \"none\"", "backup = \"none\"\nbudget = { scan_rows = 20 }");
        let installation = place.open().await;
        if !is_large {
            plan_retention(&installation).await.unwrap();
            installation.close().await.unwrap();
            continue;
        }
        let (said, by_start) = refused_plan(&installation).await;
        assert!(said.contains("no index that begins with ended") && said.contains("allow_scan"), "{said}");
        assert_eq!(by_start, "CREATE INDEX \"notes_ended\" ON \"notes\" (\"ended\")");
        place.sql(&by_start).await;
        // The child's foreign key would be followed for every row that goes.
        let (said, by_parent) = refused_plan(&installation).await;
        assert!(said.contains("every row that is deleted above it"), "{said}");
        assert_eq!(by_parent, "CREATE INDEX \"lines_note\" ON \"lines\" (\"note\")");
        installation.close().await.unwrap();

        place.edit_config("subject = \"person\"", "subject = \"person\"\nallow_scan = true");
        let installation = place.open().await;
        plan_retention(&installation).await.unwrap();
        installation.close().await.unwrap();

        place.edit_config("allow_scan = true", "allow_scan = false");
        place.sql(&by_parent).await;
        let installation = place.open().await;
        assert_eq!(counts(&retain(&installation).await)[0], rows);
        // By its subject nothing finds it.
        receive(&installation, &Subject::new("a")).await.unwrap();
        place.sql("INSERT INTO notes SELECT note + 1000, 'a', '2001-01-01' FROM lines").await;
        let said = refusal(plan_request(&installation, 1).await);
        assert!(said.contains("no index that begins with person"), "{said}");
        installation.close().await.unwrap();
    }
}
