//! Batches that share an intent: what comes between them, and what is counted of large tables before.

use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection};
use wangchuan::control::{HoldRow, RunRow};
use wangchuan::erase::pace::FIRST_ROWS;
use wangchuan::installation::Installation;
use wangchuan::stores::Engine;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::erasure::{execute, plan_retention, resume_run, resume_runs};
use wangchuan::tasks::orders::{Wish, ask};
use wangchuan::tasks::request::place_hold;

use super::ground::{Place, counts, governed, hold_row};
use super::runs::interrupted;
use crate::scenario::database::{Database, wait_for};

const FIRST: i64 = FIRST_ROWS as i64;
const ROWS: i64 = 2_600;

async fn place() -> Place {
    let notes = format!(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT);
         WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {ROWS})
         INSERT INTO notes SELECT id, 'a', '2001-01-01' FROM n;"
    );
    let place = Place::make(&notes, &governed("notes", "subject = \"person\"")).await;
    place.edit_config("backup = \"none\"", "backup = \"none\"\nbudget = { lock_ms = 8000 }");
    place
}

/// A run whose first batch waits for a lock of another session.
async fn waiting(place: &Place, installation: &Installation) -> (RunRow, SqliteConnection) {
    let plan = plan_retention(installation).await.unwrap();
    let run = interrupted(installation, &plan, "approved").await;
    installation.sites()[0].store.begin_batch().await.unwrap().roll_back().await.unwrap();
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", place.path("shop.db").display())).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    (run, other)
}

/// Waits until the intents of so many batches are there.
async fn intended(beside: &Installation, most: usize) {
    for _ in 0..500 {
        if beside.control.read().await.unwrap().destroying().await.unwrap().len() == most {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", beside.control.read().await.unwrap().destroying().await.unwrap());
}

/// How many entries of the ledger have this state.
async fn entries(place: &Place, state: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM ledger WHERE state = '{state}'");
    place.ask_in("state/control.db", &sql).await.parse().unwrap()
}

#[tokio::test]
async fn a_pause_lets_the_batch_end_that_was_begun_and_takes_the_other_intents_back() {
    let place = place().await;
    let installation = place.open().await;
    let beside = place.open_beside().await;
    let (run, mut other) = waiting(&place, &installation).await;
    let pausing = async {
        // Two groups of four pieces of 200 rows each: none is larger before one was measured.
        intended(&beside, 8).await;
        ask(&beside, &run, Wish::Pause).await.unwrap();
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    };
    let (paused, ()) = tokio::join!(resume_run(&installation, run.clone()), pausing);
    assert!(matches!(paused, Err(TaskError::Paused { .. })));
    assert_eq!(place.ask("SELECT count(*) FROM notes").await, (ROWS - FIRST).to_string());
    assert!(!beside.control.read().await.unwrap().is_destroying().await.unwrap());
    assert_eq!((entries(&place, "done").await, entries(&place, "intended").await), (FIRST, 0));
    ask(&beside, &run, Wish::Go).await.unwrap();
    let run = resume_run(&installation, run).await.unwrap();
    assert_eq!(counts(&run), [ROWS, ROWS, 0, 0, 0]);
    assert_eq!((entries(&place, "done").await, entries(&place, "void").await), (ROWS, 0));
    beside.close().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_hold_keeps_the_rows_of_every_batch_whose_turn_has_not_come() {
    let place = place().await;
    let installation = place.open().await;
    let beside = place.open_beside().await;
    let (run, mut other) = waiting(&place, &installation).await;
    let holding = async {
        intended(&beside, 8).await;
        let (store, collection) = (Some("shop".to_owned()), Some("notes".to_owned()));
        let row = hold_row("h1", beside.clock.now());
        let row = HoldRow { scope: "collection".to_owned(), store, collection, ..row };
        // The barrier waits for every batch whose intent was there before it, and the first of them waits for the lock.
        let letting_go = async {
            while place.ask_in("state/control.db", "SELECT count(*) FROM hold").await == "0" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        };
        let (placed, ()) = tokio::join!(place_hold(&beside, &row, None), letting_go);
        placed.unwrap();
        place.ask("SELECT count(*) FROM notes").await
    };
    let (done, left) = tokio::join!(resume_run(&installation, run), holding);
    // The first one may have read the holds before.
    let left: i64 = left.parse().unwrap();
    assert!([ROWS, ROWS - FIRST].contains(&left), "{left} rows are left");
    assert_eq!(counts(&done.unwrap()), [ROWS, ROWS - left, 0, left, 0]);
    beside.close().await.unwrap();
    installation.close().await.unwrap();
}

#[tokio::test]
async fn intents_that_a_killed_start_left_are_carried_out_or_settled_by_the_next() {
    let place = place().await;
    let installation = place.open().await;
    let (run, mut other) = waiting(&place, &installation).await;
    {
        // Dropped where a kill would end it: with intents of two groups and nothing of them begun.
        let beside = place.open_beside().await;
        let killed = resume_run(&installation, run.clone());
        tokio::select! {
            _ = killed => panic!("it was to wait"),
            () = intended(&beside, 8) => {}
        }
        beside.close().await.unwrap();
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    installation.close().await.unwrap();
    let installation = place.open().await;
    let resumed = resume_runs(&installation).await.unwrap();
    assert!(resumed.failed.is_empty(), "{:?}", resumed.failed);
    assert_eq!(counts(&resumed.done[0]), [ROWS, ROWS, 0, 0, 0]);
    assert_eq!((entries(&place, "done").await, entries(&place, "intended").await), (ROWS, 0));
    installation.close().await.unwrap();
}

/// Orders that are due, one that is not, and some whose end is missing or to come; each with a line.
fn orders(due: u32) -> String {
    format!(
        "CREATE TABLE orders (id int PRIMARY KEY, person varchar(9), ended timestamp NULL);
         CREATE TABLE order_lines (id int PRIMARY KEY, note int NOT NULL REFERENCES orders (id));
         CREATE INDEX orders_ended ON orders (ended); CREATE INDEX orders_person ON orders (person); CREATE INDEX lines_note ON order_lines (note);
         INSERT INTO orders WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {due}) SELECT id, 'a', '2001-01-01' FROM n;
         INSERT INTO orders VALUES (901, 'a', NULL), (902, 'a', '2037-01-01'), (903, 'a', NULL);
         INSERT INTO orders WITH RECURSIVE n (id) AS (SELECT 1001 UNION ALL SELECT id + 1 FROM n WHERE id < 1200) SELECT id, 'b', now() FROM n;
         INSERT INTO order_lines SELECT id, id FROM orders"
    )
}

#[test]
fn rows_of_a_large_table_are_counted_only_until_the_share_is_known() {
    for engine in [Engine::Postgres, Engine::Mysql] {
        let folder = tempfile::tempdir().unwrap();
        let Some(database) = Database::create(engine, folder.path()) else { continue };
        database.run(&orders(10));
        if engine == Engine::Mysql {
            // It reads REFERENCES behind a column and forgets it.
            database.run("ALTER TABLE order_lines ADD FOREIGN KEY (note) REFERENCES orders (id)");
        }
        let lines = "[[store.collection]]\ntable = \"order_lines\"\nvia = [\"note -> orders\"]\n\n";
        let place = wait_for(Place::make_for(&database.url(), &(governed("orders", "subject = \"person\"") + lines)));
        // 213 rows each: how many of them are counted, for which scan_rows and percent.
        for (scan_rows, percent, total, at_least, is_over) in [
            (20, 50, 21, true, false),
            (20, 5, 201, true, false),
            (20, 4, 213, false, true),
            (500, 5, 213, false, false),
        ] {
            place.edit_config(
                "backup = \"none\"",
                &format!("backup = \"none\"\nbudget = {{ scan_rows = {scan_rows} }}"),
            );
            place.edit_config("percent = 100", &format!("percent = {percent}"));
            wait_for(async {
                let installation = place.open().await;
                let plan = plan_retention(&installation).await.unwrap();
                for counts in &plan.body.collections {
                    assert_eq!((counts.total, counts.at_least), (total, at_least), "{engine:?} {counts:?}");
                    assert_eq!((counts.due, counts.unknown_start), (10, 3), "{engine:?} {counts:?}");
                }
                assert_eq!(plan.body.collections.len(), 2, "{:?}", plan.body);
                let over = wangchuan::erase::caps::over_caps(&installation.ground().unwrap(), &plan.body);
                assert_eq!(over.is_empty(), !is_over, "{over:?}");
                if scan_rows == 500 {
                    let run = execute(&installation, &plan.row).await.unwrap();
                    assert_eq!(counts(&run), [20, 20, 0, 0, 0]);
                }
                installation.close().await.unwrap();
            });
            place.edit_config(&format!("\nbudget = {{ scan_rows = {scan_rows} }}"), "");
            place.edit_config(&format!("percent = {percent}"), "percent = 100");
        }
    }
}
