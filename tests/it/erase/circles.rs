//! Rows that refer to each other in a circle.

use super::ground::{Place, counts, forget, governed, retain};
use super::runs::interrupted;
use crate::scenario::database::{Database, wait_for};
use wangchuan::control::LedgerKind;
use wangchuan::stores::{BatchMarker, ColumnRef, Engine, Filter};
use wangchuan::tasks::erasure::{execute, plan_retention, resume_runs};
use wangchuan::tasks::undo::undo_run;
use wangchuan::value::Value;

/// A department has a head, who is in a department; nobody's key may be NULL but the head's.
const COMPANY: &str = "CREATE TABLE departments (id INTEGER PRIMARY KEY, head INTEGER REFERENCES people (id) ON DELETE RESTRICT,
      person TEXT, note TEXT, ended TEXT);
    CREATE TABLE people (id INTEGER PRIMARY KEY, department INTEGER NOT NULL REFERENCES departments (id) ON DELETE RESTRICT,
      person TEXT, ended TEXT);
    INSERT INTO departments VALUES (1, NULL, 'a', 'x', '2001-01-01'), (2, NULL, 'b', 'y', '2001-01-01');
    INSERT INTO people VALUES (1, 1, 'a', '2001-01-01'), (2, 1, 'a', '2001-01-01'), (3, 2, 'b', '2001-01-01'), (4, 2, 'c', NULL);
    UPDATE departments SET head = 2 WHERE id = 1; UPDATE departments SET head = 3 WHERE id = 2;";

fn company() -> String {
    governed("departments", "subject = \"person\"") + &governed("people", "subject = \"person\"")
}

#[tokio::test]
async fn a_circle_goes_in_one_transaction_and_one_that_somebody_is_left_in_stays() {
    let place = Place::make(COMPANY, &company()).await;
    let installation = place.open().await;
    let run = retain(&installation).await;
    // Department 2 is needed by person 4, and needs its head, of whom nothing can be stripped.
    assert_eq!(counts(&run), [5, 3, 1, 1, 0]);
    assert_eq!(place.ask("SELECT group_concat(id || '-' || head || coalesce(note, '')) FROM departments").await, "2-3");
    assert_eq!(place.ask("SELECT group_concat(id) FROM people").await, "3,4");
    let chunks = installation.control.read().await.unwrap().chunks(run.plan.as_deref().unwrap()).await.unwrap();
    let knots: Vec<Option<i64>> =
        chunks.iter().filter(|chunk| chunk.verdict == "erase").map(|chunk| chunk.knot).collect();
    assert_eq!(knots, [Some(chunks.iter().position(|chunk| chunk.knot.is_some()).unwrap() as i64); 2]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_reference_that_nothing_can_untie_is_refused_with_the_reason() {
    let firm = COMPANY.replace("head INTEGER REFERENCES", "head INTEGER NOT NULL DEFAULT 0 REFERENCES");
    let tables = firm.split("INSERT").next().unwrap().to_owned();
    let place = Place::make(&tables, &company()).await;
    let installation = place.open().await;
    let why = &installation.skipped()[0].1;
    assert!(why.contains("departments(head), people(department) form a circle"), "{why}");
    installation.close().await.unwrap();
    // The same keys can be checked late when they do not RESTRICT.
    let place = Place::make(&tables.replace("ON DELETE RESTRICT", ""), &company()).await;
    place
        .sql(
            "PRAGMA foreign_keys = OFF; INSERT INTO departments VALUES (1, 1, 'a', 'x', '2001-01-01');
             INSERT INTO people VALUES (1, 1, 'a', '2001-01-01')",
        )
        .await;
    let installation = place.open().await;
    assert_eq!(counts(&retain(&installation).await), [2, 2, 0, 0, 0]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_child_that_came_after_the_plan_keeps_the_whole_circle_above_it() {
    let place = Place::make(COMPANY, &company()).await;
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    place.sql("INSERT INTO people VALUES (9, 1, 'z', NULL)").await;
    let run = execute(&installation, &plan.row).await.unwrap();
    // Department 1 and its head stay; person 1 goes.
    assert_eq!(counts(&run), [5, 1, 1, 3, 0]);
    assert_eq!(
        place.ask("SELECT group_concat(id || '-' || head || coalesce(note, '')) FROM departments").await,
        "1-2x,2-3"
    );
    assert_eq!(place.ask("SELECT group_concat(id) FROM people").await, "2,3,4,9");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_circle_whose_outcome_a_crash_hid_is_settled_by_its_markers_or_done_again() {
    for is_committed in [true, false] {
        let place = Place::make(COMPANY, &company()).await;
        let installation = place.open().await;
        let plan = plan_retention(&installation).await.unwrap();
        let run = interrupted(&installation, &plan, "approved").await;
        let mut tx = installation.control.begin().await.unwrap();
        let chunks = tx.chunks(&plan.row.id).await.unwrap();
        let tied: Vec<_> = chunks.iter().filter(|chunk| chunk.knot.is_some()).collect();
        for chunk in &tied {
            tx.begin_chunk(&run, chunk, LedgerKind::Erased, &[], run.begun_at).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut batch = installation.sites()[0].store.begin_batch().await.unwrap();
        if is_committed {
            let id = |number| Filter::Equals(ColumnRef::own("id"), Value::Integer(number));
            batch.update("departments", &[("head".to_owned(), Value::Null)], &id(1)).await.unwrap();
            batch.delete("people", &[], &Filter::Or(vec![id(1), id(2)])).await.unwrap();
            batch.delete("departments", &[], &id(1)).await.unwrap();
            let marker = |chunk: i64, erased| BatchMarker { run: run.id.clone(), chunk, token: 1, erased, changed: 0 };
            batch.mark(&marker(tied[0].number, tied[0].rows)).await.unwrap();
            batch.commit(&marker(tied[1].number, tied[1].rows)).await.unwrap();
        } else {
            batch.roll_back().await.unwrap();
        }
        let resumed = resume_runs(&installation).await.unwrap();
        assert!(resumed.failed.is_empty(), "{resumed:?}");
        assert_eq!(counts(&resumed.done[0]), [5, 3, 1, 1, 0]);
        assert_eq!(place.ask("SELECT group_concat(id) FROM people").await, "3,4");
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_undone_thread_comes_back_whole() {
    let thread =
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, next INTEGER REFERENCES notes (id), person TEXT, ended TEXT);
        INSERT INTO notes VALUES (1, NULL, 'a', '2001-01-01'), (2, 1, 'a', '2001-01-01'), (3, 2, 'a', '2001-01-01');
        UPDATE notes SET next = 3 WHERE id = 1;";
    let place = Place::make(thread, &governed("notes", "subject = \"person\"")).await;
    place.edit_config("grace = \"0\"", "grace = \"1 hour\"");
    let installation = place.open().await;
    let run = forget(&installation, "a").await;
    assert_eq!(counts(&run), [3, 3, 0, 0, 0]);
    let report = undo_run(&installation, &run).await.unwrap();
    assert_eq!((report.restored, report.refused), (3, 0), "{report:?}");
    assert_eq!(place.ask("SELECT group_concat(id || '-' || next) FROM notes").await, "1-3,2-1,3-2");
    installation.close().await.unwrap();
}

/// A circle over two tables, undone: with references that may be NULL, or that the database checks late.
fn an_undone_circle(engine: Engine, late: &str) {
    let folder = tempfile::tempdir().unwrap();
    let Some(database) = Database::create(engine, folder.path()) else { return };
    let (text, time) = if engine == Engine::Sqlite { ("text", "text") } else { ("varchar(20)", "timestamp NULL") };
    let null = if late.is_empty() { "NULL" } else { "NOT NULL" };
    let head = format!("REFERENCES people (id) {late}");
    // SQLite knows no ADD FOREIGN KEY, and does not need it.
    let (within, after) = match engine {
        Engine::Sqlite => (head, String::new()),
        _ => (String::new(), format!("ALTER TABLE departments ADD FOREIGN KEY (head) {head};")),
    };
    database.run(&format!(
        "CREATE TABLE departments (id int PRIMARY KEY, head int {null} {within}, person {text}, ended {time});
         CREATE TABLE people (id int PRIMARY KEY, department int NOT NULL, person {text}, ended {time},
           FOREIGN KEY (department) REFERENCES departments (id));
         {}INSERT INTO departments VALUES (1, 2, 'a', '2001-01-01');
         INSERT INTO people VALUES (1, 1, 'a', '2001-01-01'), (2, 1, 'a', '2001-01-01'); {after}",
        if engine == Engine::Sqlite { "PRAGMA foreign_keys = OFF; " } else { "" }
    ));
    let place = wait_for(Place::make_for(&database.url(), &company()));
    place.edit_config("grace = \"0\"", "grace = \"1 hour\"");
    wait_for(async {
        let installation = place.open().await;
        assert!(installation.skipped().is_empty(), "{:?}", installation.skipped());
        let run = forget(&installation, "a").await;
        assert_eq!(counts(&run), [3, 3, 0, 0, 0]);
        let report = undo_run(&installation, &run).await.unwrap();
        assert_eq!((report.restored, report.superseded, report.refused), (3, 0, 0), "{engine:?} {late}: {report:?}");
        installation.close().await.unwrap();
    });
    assert_eq!(
        database.number("SELECT count(*) FROM departments d JOIN people p ON p.id = d.head AND p.department = d.id"),
        1
    );
    assert_eq!(database.number("SELECT count(*) FROM people"), 2);
}

#[test]
fn an_undone_circle_over_two_tables_comes_back_whole() {
    for engine in [Engine::Sqlite, Engine::Postgres, Engine::Mysql] {
        an_undone_circle(engine, "");
    }
    an_undone_circle(Engine::Sqlite, "DEFERRABLE");
    an_undone_circle(Engine::Postgres, "DEFERRABLE");
}

#[test]
fn what_postgresql_never_checks_late_is_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let Some(database) = Database::create(Engine::Postgres, folder.path()) else { return };
    database.run(
        "CREATE TABLE departments (id int PRIMARY KEY, head int, person text, ended timestamp);
         CREATE TABLE people (id int PRIMARY KEY, person text, ended timestamp,
           department int NOT NULL REFERENCES departments (id) ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO departments VALUES (1, NULL, 'a', '2001-01-01'); INSERT INTO people VALUES (1, 'a', '2001-01-01', 1);
         UPDATE departments SET head = 1;
         ALTER TABLE departments ADD FOREIGN KEY (head) REFERENCES people (id) ON DELETE RESTRICT DEFERRABLE;",
    );
    let place = wait_for(Place::make_for(&database.url(), &company()));
    wait_for(async {
        let installation = place.open().await;
        assert!(installation.skipped().is_empty(), "{:?}", installation.skipped());
        assert_eq!(counts(&retain(&installation).await), [2, 2, 0, 0, 0]);
        installation.close().await.unwrap();
    });
    assert_eq!(database.number("SELECT (SELECT count(*) FROM departments) + (SELECT count(*) FROM people)"), 0);
}

#[tokio::test]
async fn a_thread_goes_only_while_the_row_that_it_follows_is_what_was_planned() {
    // Whatever changes the person between the look and the deletion: here it is the deletion of the first note.
    let thread = "CREATE TABLE people (id INTEGER PRIMARY KEY, ended TEXT);
        CREATE TABLE notes (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES people (id), next INTEGER REFERENCES notes (id));
        INSERT INTO people VALUES (1, '2001-01-01');
        INSERT INTO notes VALUES (1, 1, NULL), (2, 1, 1);
        CREATE TRIGGER moved AFTER DELETE ON notes BEGIN UPDATE people SET ended = NULL WHERE id = OLD.owner; END;";
    let notes = "[[store.collection]]\ntable = \"notes\"\nvia = [\"owner -> people\"]\ntriggers = [\"moved\"]\n\n";
    let place = Place::make(thread, &(governed("people", "subject = \"id\"") + notes)).await;
    let installation = place.open().await;
    assert_eq!(counts(&retain(&installation).await), [3, 0, 0, 1, 2]);
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "1,2");
    place.sql("DROP TRIGGER moved; UPDATE people SET ended = '2001-01-01'").await;
    installation.close().await.unwrap();
    let installation = place.open().await;
    assert_eq!(counts(&retain(&installation).await), [3, 3, 0, 0, 0]);
    installation.close().await.unwrap();
}
