//! Ids that the stores write in another way than people do, and periods that end without a row.

use super::ground::{Place, counts, forget, governed, hold_row};
use wangchuan::installation::Installation;
use wangchuan::plan::Subject;
use wangchuan::tasks::erasure::plan_retention;
use wangchuan::tasks::request::{Known, canonical_subjects, place_hold};

const SHOP: &str = "CREATE TABLE people (id INTEGER PRIMARY KEY, ended TEXT);
    CREATE TABLE posts (id INTEGER PRIMARY KEY, nick TEXT COLLATE NOCASE, ended TEXT);
    INSERT INTO people VALUES (7, '2001-01-01'), (8, '2001-01-01');
    INSERT INTO posts VALUES (1, 'Ann', '2001-01-01'), (2, 'ANN', '2001-01-01'), (3, 'bob', '2001-01-01');";

async fn shop() -> Place {
    Place::make(SHOP, &(governed("people", "subject = \"id\"") + &governed("posts", "subject = \"nick\""))).await
}

async fn hold(installation: &Installation, id: &str, subject: &str) -> bool {
    let row = hold_row(id, installation.clock.now());
    place_hold(installation, &row, Some(&Subject::new(subject))).await.unwrap() == Known::Yes
}

async fn kept(installation: &Installation) -> u64 {
    let plan = plan_retention(installation).await.unwrap();
    assert_eq!(plan.body.due(), 5);
    plan.body.collections.iter().flat_map(|counts| &counts.keep).map(|(_, rows)| rows).sum()
}

#[tokio::test]
async fn a_hold_covers_the_rows_however_its_id_was_typed() {
    let place = shop().await;
    let installation = place.open().await;
    let forms = |text: &'static str| {
        let installation = &installation;
        async move {
            let forms = canonical_subjects(installation.sites(), text).await.unwrap();
            forms.iter().map(|form| form.dangerous_text().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(forms(" 007 ").await, ["7"]);
    assert_eq!(forms("ann").await, ["ANN", "Ann"]);
    assert_eq!(forms("nobody").await, [""; 0]);
    assert!(hold(&installation, "case-1", "007").await);
    assert_eq!(kept(&installation).await, 1);
    assert!(hold(&installation, "case-2", "ann").await);
    assert_eq!(kept(&installation).await, 3);
    // An id that no row carries yet is held in the form that a row would carry.
    assert!(!hold(&installation, "case-3", "0009").await);
    place.sql("INSERT INTO people VALUES (9, '2001-01-01'); DELETE FROM people WHERE id = 8").await;
    assert_eq!(kept(&installation).await, 4);
    let mut tx = installation.control.begin().await.unwrap();
    assert!(tx.release_hold("case-2", "tester", installation.clock.now()).await.unwrap());
    assert!(!tx.release_hold("case", "tester", installation.clock.now()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(kept(&installation).await, 2);
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_request_finds_the_rows_however_its_id_was_typed() {
    let place = shop().await;
    let installation = place.open().await;
    assert_eq!(counts(&forget(&installation, "007").await), [1, 1, 0, 0, 0]);
    assert_eq!(counts(&forget(&installation, "BOB").await), [1, 1, 0, 0, 0]);
    assert_eq!(place.ask("SELECT group_concat(nick) FROM posts").await, "Ann,ANN");
    installation.close().await.unwrap();
}
