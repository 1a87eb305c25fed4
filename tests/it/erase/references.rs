//! Rows that others refer to, in every way a foreign key can.

use super::ground::{Place, counts, governed, retain};
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::undo::undo_run;

const NOTES: &str =
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, reply_to INTEGER REFERENCES notes (id) ON DELETE CASCADE,
    person TEXT, ended TEXT);
    INSERT INTO notes VALUES (1, NULL, 'a', '2001-01-01'), (2, 1, 'b', '2001-01-01'), (3, 2, 'c', '2001-01-01'),
      (4, NULL, 'd', '2001-01-01'), (5, 4, 'e', NULL), (6, NULL, 'f', '2001-01-01');";

fn notes() -> String {
    governed("notes", "subject = \"person\"")
}

#[tokio::test]
async fn a_thread_goes_together_but_a_living_reply_keeps_what_it_answers() {
    let place = Place::make(NOTES, &notes()).await;
    let installation = place.open().await;
    let run = retain(&installation).await;
    assert_eq!(counts(&run), [5, 4, 0, 1, 0]);
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "4,5");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_reply_that_came_after_the_plan_is_not_taken_along() {
    let place = Place::make(NOTES, &notes()).await;
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    place.sql("INSERT INTO notes VALUES (7, 3, 'g', NULL)").await;
    let run = execute(&installation, &plan.row).await.unwrap();
    assert_eq!(counts(&run), [5, 1, 0, 4, 0]);
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "1,2,3,4,5,7");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn an_undo_puts_back_what_is_answered_before_its_answers_and_names_what_the_store_refuses() {
    let place = Place::make(NOTES, &notes()).await;
    place.edit_config("grace = \"0\"", "grace = \"1 hour\"");
    let installation = place.open().await;
    let run = retain(&installation).await;
    assert_eq!(counts(&run), [5, 4, 0, 1, 0]);
    // Somebody refuses one of the rows, and another was put back by hand as it was.
    place.sql("CREATE TRIGGER no BEFORE INSERT ON notes WHEN NEW.id = 2 BEGIN SELECT RAISE(ABORT, 'no'); END").await;
    place.sql("INSERT INTO notes VALUES (6, NULL, 'f', '2001-01-01')").await;
    let report = undo_run(&installation, &run).await.unwrap();
    // The third cannot stand without the second.
    assert_eq!((report.restored, report.superseded, report.refused), (2, 0, 2), "{report:?}");
    assert!(report.notes.iter().any(|note| note.contains("shop.notes")), "{report:?}");
    assert_eq!(place.ask("SELECT group_concat(id) FROM notes").await, "1,4,5,6");
    place.sql("DROP TRIGGER no").await;
    let undone = installation.control.read().await.unwrap().run(&run.id).await.unwrap().unwrap();
    assert_eq!(counts(&undone), [5, 2, 0, 3, 0]);
    let report = undo_run(&installation, &undone).await.unwrap();
    assert_eq!((report.restored, report.superseded, report.refused), (4, 0, 0), "{report:?}");
    assert_eq!(place.ask("SELECT group_concat(id || coalesce(reply_to, '-')) FROM notes").await, "1-,21,32,4-,54,6-");
    assert_eq!(place.ask("SELECT count(*) FROM wangchuan_batch").await, "0");
    installation.close().await.unwrap();
}

const MEMBERS: &str = "CREATE TABLE members (id INTEGER PRIMARY KEY, card TEXT UNIQUE COLLATE NOCASE, ended TEXT);
    CREATE TABLE visits (id INTEGER PRIMARY KEY, card TEXT REFERENCES members (card) ON DELETE CASCADE, ended TEXT);
    CREATE TABLE loans (id INTEGER PRIMARY KEY, member BLOB REFERENCES members (id) ON DELETE CASCADE);
    INSERT INTO members VALUES (1, 'A1', '2001-01-01'), (2, 'A2', '2001-01-01'), (3, 'A3', '2001-01-01');
    INSERT INTO visits VALUES (1, 'a2', NULL);
    INSERT INTO loans VALUES (1, '3');";

fn members() -> String {
    governed("members", "subject = \"id\"") + &governed("visits", "")
}

#[tokio::test]
async fn references_by_other_columns_collations_and_affinities_hold_their_parent() {
    let place = Place::make(MEMBERS, &members()).await;
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    let counted = plan.body.collections.iter().find(|found| found.collection == "members").unwrap();
    assert_eq!((counted.due, counted.erase), (3, 1), "{counted:?}");
    // The same, for children that appear after the plan.
    place.sql("INSERT INTO loans VALUES (2, '1')").await;
    let run = execute(&installation, &plan.row).await.unwrap();
    assert_eq!(counts(&run), [3, 0, 0, 3, 0]);
    assert_eq!(place.ask("SELECT group_concat(id) FROM members").await, "1,2,3");
    assert_eq!(place.ask("SELECT count(*) FROM loans").await, "2");
    installation.close().await.unwrap();
}
