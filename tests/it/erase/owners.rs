//! Columns that hold ids of customers and of others: what belongs to whom is said by a column beside.

use wangchuan::plan::Subject;
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::request::{place_hold, plan_request, receive};

use super::ground::{Place, counts, forget, governed, hold_row, refusal, retain};

const TABLES: &str =
    "CREATE TABLE comments (id INTEGER PRIMARY KEY, author_type TEXT, author_id INTEGER, kind INTEGER, ended TEXT);
    CREATE TABLE replies (id INTEGER PRIMARY KEY, comment_id INTEGER NOT NULL REFERENCES comments (id), body TEXT);
    INSERT INTO comments VALUES (1, 'customer', 5, 1, '2001-01-01'), (2, 'staff', 5, 2, '2001-01-01'),
        (3, 'customer', 6, 1, '2001-01-01'), (4, 'buyer', 5, 1, date('now')), (5, NULL, 5, NULL, date('now'));
    INSERT INTO replies VALUES (10, 1, 'a'), (20, 2, 'b'), (30, 3, 'c'), (40, 4, 'd');";

async fn comments(when: &str) -> Place {
    let owned = governed("comments", &format!("subject = \"author_id\"\nsubject_when = {when}"));
    let replies = "[[store.collection]]\ntable = \"replies\"\nvia = [\"comment_id -> comments\"]\n\n";
    Place::make(TABLES, &(owned + replies)).await
}

async fn left(place: &Place) -> [String; 2] {
    let ids = |table: &str| format!("SELECT group_concat(id) FROM (SELECT id FROM {table} ORDER BY id)");
    [place.ask(&ids("comments")).await, place.ask(&ids("replies")).await]
}

#[tokio::test]
async fn a_request_takes_the_customer_s_rows_and_not_those_of_others_with_the_same_number() {
    let place = comments("{ author_type = [\"customer\", \"buyer\"], kind = \"1\" }").await;
    let installation = place.open().await;
    assert_eq!(counts(&forget(&installation, "5").await), [4, 4, 0, 0, 0]);
    assert_eq!(left(&place).await, ["2,3,5", "20,30"]);
    // A row that became somebody else's after the plan is not what was planned.
    let number = receive(&installation, &Subject::new("6")).await.unwrap().request.number;
    let plan = plan_request(&installation, number).await.unwrap();
    place.sql("UPDATE comments SET author_type = 'staff' WHERE id = 3").await;
    let run = execute(&installation, &plan.row).await.unwrap();
    assert_eq!(counts(&run), [2, 0, 0, 2, 0]);
    assert_eq!(left(&place).await, ["2,3,5", "20,30"]);
    // Retention takes rows whoever they belong to.
    assert_eq!(counts(&retain(&installation).await), [4, 4, 0, 0, 0]);
    assert_eq!(left(&place).await, ["5", ""]);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_hold_on_a_customer_keeps_what_belongs_to_nobody_known() {
    let place = comments("{ author_type = \"customer\" }").await;
    let installation = place.open().await;
    let hold = hold_row("case", installation.clock.now());
    place_hold(&installation, &hold, Some(&Subject::new("6"))).await.unwrap();
    let plan = plan_retention(&installation).await.unwrap();
    assert_eq!(counts(&execute(&installation, &plan.row).await.unwrap()), [6, 2, 0, 4, 0]);
    assert_eq!(left(&place).await, ["2,3,4,5", "20,30,40"]);
    installation.close().await.unwrap();
}

/// What the database takes for the same and the declaration does not name stops a request; it is not passed over.
#[tokio::test]
async fn another_spelling_that_the_database_finds_stops_the_request() {
    let place = comments("{ author_type = \"customer\" }").await;
    place
        .sql(
            "PRAGMA foreign_keys = OFF; DROP TABLE comments;
             CREATE TABLE comments (id INTEGER PRIMARY KEY, author_type TEXT COLLATE NOCASE, author_id INTEGER, kind INTEGER, ended TEXT);
             INSERT INTO comments VALUES (1, 'Customer', 5, 1, '2001-01-01'), (2, 'staff', 5, 1, '2001-01-01'),
                 (3, 'customer', 6, 1, '2001-01-01'), (4, 'x', 5, 1, '2001-01-01');",
        )
        .await;
    let installation = place.open().await;
    let number = receive(&installation, &Subject::new("5")).await.unwrap().request.number;
    let refused = refusal(plan_request(&installation, number).await);
    assert!(refused.contains("author_type is written in another way"), "{refused}");
    installation.close().await.unwrap();
    place.edit_config("\"customer\" }", "[\"customer\", \"Customer\"] }");
    let installation = place.open().await;
    assert_eq!(counts(&forget(&installation, "5").await), [2, 2, 0, 0, 0]);
    assert_eq!(left(&place).await, ["2,3,4", "20,30,40"]);
    installation.close().await.unwrap();
}
