//! Policies that were edited: a first share goes, the rest when somebody had time to look.

use chrono::TimeDelta;
use wangchuan::plan::PlanBody;
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::undo::undo_run;

use super::ground::{Place, counts, forget, governed, retain};

/// Thirty people with three rows each; the rows of the first ten ended long ago, the others' three years ago.
async fn notes(more: &str) -> Place {
    let place = Place::make(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 89)
         INSERT INTO notes SELECT i, 'p' || (i % 30), CASE WHEN i % 30 < 10 THEN '2001-01-01' ELSE date('now', '-3 years') END FROM n;",
        &governed("notes", "subject = \"person\""),
    )
    .await;
    place.edit_config("retention = \"1 year\"", &format!("retention = \"10 years\"\n{more}"));
    place
}

fn reasons(body: &PlanBody) -> Vec<(String, u64)> {
    body.collections.iter().flat_map(|counts| counts.keep.clone()).collect()
}

#[tokio::test]
async fn an_edited_policy_takes_few_customers_first_and_the_rest_a_day_later() {
    let place = notes("grace = \"72 hours\"\ncanary = { rows = 7 }").await;
    place.edit_config("grace = \"0\"\n", "");
    let installation = place.open().await;
    // A policy that never did anything is new: the cap is for that.
    assert_eq!(counts(&retain(&installation).await), [30, 30, 0, 0, 0]);
    installation.close().await.unwrap();

    place.edit_config("10 years", "1 year");
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    assert_eq!(reasons(&plan.body), [("canary".to_owned(), 54)]);
    // Again the same ones, so that nobody gets more of them by asking often.
    let again = plan_retention(&installation).await.unwrap();
    let run = execute(&installation, &again.row).await.unwrap();
    assert_eq!(counts(&run), [60, 6, 0, 54, 0]);
    assert_eq!(
        place.ask("SELECT group_concat(n) FROM (SELECT count(*) n FROM notes GROUP BY person)").await,
        ["3"; 18].join(",")
    );

    // Somebody looks, and takes it back: the edit begins anew, with the same share.
    let waiting = plan_retention(&installation).await.unwrap();
    let until = (run.ended_at.unwrap() + TimeDelta::hours(20)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    assert_eq!(reasons(&waiting.body), [(format!("canary:{until}"), 54)]);
    undo_run(&installation, &run).await.unwrap();
    let plan = plan_retention(&installation).await.unwrap();
    assert_eq!((plan.body.to_do(), reasons(&plan.body)), (6, vec![("canary".to_owned(), 54)]));
    let run = execute(&installation, &plan.row).await.unwrap();
    assert_eq!(counts(&run), [60, 6, 0, 54, 0]);

    // A customer's request is not put off.
    let person = place.ask("SELECT min(person) FROM notes").await;
    assert_eq!(counts(&forget(&installation, &person).await), [3, 3, 0, 0, 0]);
    assert_eq!(plan_retention(&installation).await.unwrap().body.to_do(), 0);
    let earlier =
        (installation.clock.now() - TimeDelta::hours(21)).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    place.sql_in("state/control.db", &format!("UPDATE run SET ended_at = '{earlier}' WHERE id = '{}'", run.id)).await;
    assert_eq!(counts(&retain(&installation).await), [51, 51, 0, 0, 0]);
    assert_eq!(place.ask("SELECT count(*) FROM notes").await, "0");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_policy_that_wants_no_first_share_goes_at_once() {
    let place = notes("canary = { percent = 100 }").await;
    let installation = place.open().await;
    assert_eq!(counts(&retain(&installation).await), [30, 30, 0, 0, 0]);
    installation.close().await.unwrap();
    place.edit_config("10 years", "1 year");
    let installation = place.open().await;
    assert_eq!(counts(&retain(&installation).await), [60, 60, 0, 0, 0]);
    installation.close().await.unwrap();
}

/// Rows that stay anyway take no place in the first share: else it could be all of them, every night again.
#[tokio::test]
async fn what_stays_anyway_takes_no_part_in_the_first_share() {
    let place = Place::make(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, person TEXT, ended TEXT, body TEXT);
         CREATE TABLE marks (id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes (id));
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 299)
         INSERT INTO notes SELECT i, 'p' || i, CASE WHEN i < 290 THEN '2001-01-01' ELSE date('now', '-3 years') END, 'b' FROM n;
         INSERT INTO marks SELECT id, id FROM notes WHERE id < 290;",
        &governed("notes", "subject = \"person\""),
    )
    .await;
    place.edit_config("retention = \"1 year\"", "retention = \"10 years\"\ncanary = { rows = 4, percent = 0 }");
    let installation = place.open().await;
    assert_eq!(counts(&retain(&installation).await), [290, 0, 290, 0, 0]);
    installation.close().await.unwrap();
    place.edit_config("10 years", "1 year");
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    assert_eq!(plan.body.to_do(), 4, "{:?}", plan.body);
    assert_eq!(counts(&execute(&installation, &plan.row).await.unwrap()), [300, 4, 0, 296, 0]);
    assert_eq!(place.ask("SELECT count(*) FROM notes WHERE id >= 290").await, "6");
    installation.close().await.unwrap();
}

/// A run that took nothing, for it was stopped or could not, is no first share.
#[tokio::test]
async fn a_first_share_that_never_went_does_not_count() {
    let place = notes("canary = { rows = 7 }").await;
    let installation = place.open().await;
    retain(&installation).await;
    installation.close().await.unwrap();
    place.edit_config("10 years", "1 year");
    let installation = place.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    // None of the rows is what was planned any more when its turn comes.
    place.sql("UPDATE notes SET ended = date('now', '-4 years')").await;
    assert_eq!(counts(&execute(&installation, &plan.row).await.unwrap()), [60, 0, 0, 60, 0]);
    let again = plan_retention(&installation).await.unwrap();
    assert_eq!((again.body.to_do(), reasons(&again.body)), (6, vec![("canary".to_owned(), 54)]));
    installation.close().await.unwrap();
}
