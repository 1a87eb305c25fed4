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
