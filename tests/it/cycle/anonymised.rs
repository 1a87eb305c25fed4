//! An anonymised row lives on in backups, and the row that it was does not.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use wangchuan::control::SnapshotRow;
use wangchuan::installation::Installation;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::drill::run_drill;
use wangchuan::tasks::erasure::plan_retention;
use wangchuan::tasks::shred::shred_due;

use crate::support::world::{Making, World, body, forget, pass_time, restore, retain, snapshot};

const SURVEYS: &str = r#"[[store.collection]]
table = "surveys"
subject = "customer"
fields.answer = { kind = "free_text" }

[[policy]]
id = "old-surveys"
collections = ["surveys"]
retention = "1 year"
start = "closed_at"
action = "anonymise"
basis = "consent"
grace = "0"
bucket = "quarter"
max = { rows = 1000, percent = 100 }
anonymise.answer = "null"
"#;

/// The shop with surveys: two in a quarter that is over, one in a quarter that is not wholly due yet, and one of nobody's.
async fn with_surveys() -> (World, Installation) {
    let world = World::make(Making { customers: 40, ..Making::default() }).await;
    world
        .run_sql(
            "CREATE TABLE surveys (id INTEGER PRIMARY KEY, customer TEXT, answer TEXT, score INTEGER, closed_at TEXT);
             INSERT INTO surveys VALUES (1, 'who-1', 'mine is one', 1, '2020-02-01'), (2, 'who-2', 'mine is two', 2, '2020-03-01'),
               (3, 'who-1', 'mine is three', 3, '2025-02-01'), (4, NULL, 'of nobody', 4, '2020-02-02');",
        )
        .await;
    world.edit_config(
        "[[policy]]\nid = \"completed-orders\"",
        &format!("{SURVEYS}\n[[policy]]\nid = \"completed-orders\""),
    );
    let installation = world.open().await;
    (world, installation)
}

/// The answers that a restore of a snapshot brings, and how many surveys.
async fn answers(world: &World, installation: &Installation, row: &SnapshotRow, file: &str) -> (BTreeSet<String>, i64) {
    restore(world, installation, row, file).await.unwrap();
    let mut told = BTreeSet::new();
    for word in ["one", "two", "three", "nobody"] {
        let sql = format!("SELECT count(*) FROM surveys WHERE answer LIKE '%{word}%'");
        if world.number(file, &sql).await > 0 {
            told.insert(word.to_owned());
        }
    }
    (told, world.number(file, "SELECT count(*) FROM surveys").await)
}

#[tokio::test]
async fn the_old_version_dies_and_the_new_one_is_restored() {
    let (world, installation) = with_surveys().await;
    let first = snapshot(&installation).await;
    let run = retain(&installation).await;
    assert_eq!(body(&run).anonymised, 4);
    let barrier = snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    // Rows of other tables lie in quarters that are not over yet; those of the first quarter are gone.
    assert!(report.generation.is_some() && report.waiting.is_empty(), "{report:?}");
    let (told, rows) = answers(&world, &installation, &barrier, "barrier.db").await;
    assert_eq!((told.len(), rows), (0, 4));
    for (row, passed) in [(first, "passed"), (barrier, "passed")] {
        assert_eq!(run_drill(&installation, row).await.unwrap().result, passed);
    }
    // Months later the last quarter is due as well; what was anonymised is not, and stays readable through every shred.
    let issued = certify_due(&installation).await.unwrap();
    let row = installation.control.read().await.unwrap().certificate(&issued[0]).await.unwrap().unwrap();
    let envelope = wangchuan::certify::dsse::Envelope::parse(&row.envelope).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(envelope.payload()).unwrap();
    let targets = statement["predicate"]["targets"].as_array().unwrap();
    let target =
        targets.iter().find(|target| target["location"] == "shop/surveys").unwrap_or_else(|| panic!("{targets:?}"));
    assert_eq!((&target["recordsAnonymized"], &target["action"]), (&4.into(), &"anonymize".into()), "{target}");
    assert_eq!(target["anonymization"]["changed"][0]["field"], "customer");
    pass_time(&world, &installation, TimeDelta::days(40)).await;
    let plan = plan_retention(&installation).await.unwrap();
    let surveys = plan.body.collections.iter().find(|counts| counts.collection == "surveys").unwrap();
    assert_eq!((surveys.due, surveys.anonymise), (0, 0));
    let again = retain(&installation).await;
    assert_eq!(body(&again).anonymised, 0);
    let last = snapshot(&installation).await;
    shred_due(&installation).await.unwrap();
    let (told, rows) = answers(&world, &installation, &last, "last.db").await;
    assert_eq!((told.len(), rows), (0, 4));
    let later = snapshot(&installation).await;
    assert_eq!(run_drill(&installation, later).await.unwrap().result, "passed");
    installation.close().await.unwrap();
}

#[tokio::test]
async fn a_request_leaves_the_rows_of_nobody_and_shreds_the_customer() {
    let (world, installation) = with_surveys().await;
    let first = snapshot(&installation).await;
    let run = forget(&installation, "who-1").await;
    assert_eq!(body(&run).anonymised, 2);
    let barrier = snapshot(&installation).await;
    let report = shred_due(&installation).await.unwrap();
    assert_eq!(report.shredded, vec![run.id.clone()], "{report:?}");
    let (told, rows) = answers(&world, &installation, &barrier, "barrier.db").await;
    assert_eq!((told, rows), (["two", "nobody"].map(str::to_owned).into(), 4));
    let (told, _) = answers(&world, &installation, &first, "first.db").await;
    assert_eq!(told, ["two", "nobody"].map(str::to_owned).into());
    for row in [first, barrier] {
        assert_eq!(run_drill(&installation, row).await.unwrap().result, "passed");
    }
    installation.close().await.unwrap();
}
