//! Work on many records outside of working hours raises an alert; the same by day raises none.

use chrono::TimeDelta;
use serde_json::Value;
use wangchuan::installation::Installation;
use wangchuan::tasks::oplog::export;
use wangchuan::tasks::status::status;

use crate::scenario::small;
use crate::support::world::{World, body, retain, snapshot};

/// The world begins on a Sunday at ten in its zone; these are a Monday at ten, the same at half past nine in the evening.
const MONDAY_AT_TEN: TimeDelta = TimeDelta::hours(24);
const MONDAY_EVENING: TimeDelta = TimeDelta::minutes(35 * 60 + 30);

async fn world(alerts: &str, after: TimeDelta) -> (World, Installation) {
    let world = World::standard().await;
    world.edit_config("[audit]\n", &format!("[alerts]\n{alerts}\n\n[audit]\n"));
    world.clock.advance(after);
    let installation = world.open().await;
    (world, installation)
}

/// What `status` says of alerts, and the entries of the log about them: what was done, how many rows.
async fn raised(installation: &Installation) -> (Vec<String>, Vec<(String, String)>) {
    let shown = status(&installation.control, &installation.config, installation.clock.as_ref()).await.unwrap();
    let named = shown.overdue.into_iter().filter(|late| late.code == "off-hours-bulk").map(|late| late.what).collect();
    let entries = export(installation).await.unwrap();
    let alerts = entries.iter().filter(|entry| entry.record["api"]["operation"] == "alert.off-hours");
    let of = |record: &Value, name: &str| record["unmapped"]["references"][name].as_str().unwrap().to_owned();
    let alerts = alerts.filter(|entry| of(&entry.record, "operation") != "log.export");
    (named, alerts.map(|entry| (of(&entry.record, "operation"), of(&entry.record, "rows"))).collect())
}

#[tokio::test]
async fn an_erasure_of_many_records_is_told_at_night_and_on_holidays_and_not_by_day() {
    let holiday = "bulk_rows = 2\nholidays = [\"2026-03-16\"]";
    for (alerts, after, scheduled, is_told) in [
        ("bulk_rows = 2", MONDAY_EVENING, false, true),
        ("bulk_rows = 2", MONDAY_AT_TEN, false, false),
        (holiday, MONDAY_AT_TEN, false, true),
        ("bulk_rows = 2", MONDAY_EVENING, true, false),
        ("bulk_rows = 2\nscheduled = true", MONDAY_EVENING, true, true),
        ("bulk_rows = 100000", MONDAY_EVENING, false, false),
    ] {
        let (_world, mut installation) = world(alerts, after).await;
        installation.is_scheduled = scheduled;
        snapshot(&installation).await;
        let run = retain(&installation).await;
        let erased = body(&run).erased;
        assert!(erased >= 2);
        let (named, entries) = raised(&installation).await;
        assert_eq!(named.len(), usize::from(is_told), "{alerts} {after} {scheduled}: {named:?}");
        let expected = if is_told { vec![("run.end".to_owned(), erased.to_string())] } else { Vec::new() };
        assert_eq!(entries, expected, "{alerts} {after} {scheduled}");
        assert!(
            named.iter().all(|what| what.contains(&run.id) && what.contains(&format!("{erased} records"))),
            "{named:?}"
        );
        installation.close().await.unwrap();
    }
}

#[tokio::test]
async fn five_hundred_are_many_and_an_alert_is_shown_for_a_week() {
    let (world, installation) = world("", MONDAY_EVENING).await;
    installation.note_bulk("restore.end", "few", 499).await;
    assert_eq!(raised(&installation).await, (Vec::new(), Vec::new()));
    installation.note_bulk("restore.end", "many", 500).await;
    // Said again behind a crash it is the same alert.
    installation.note_bulk("restore.end", "many", 500).await;
    let (named, entries) = raised(&installation).await;
    assert_eq!((named.len(), entries.len()), (1, 2), "{named:?}");
    // A note that cannot be read goes with the next, and holds up nothing.
    let mut tx = installation.control.begin().await.unwrap();
    tx.set_meta("alert:restore.end:damaged", "{").await.unwrap();
    tx.commit().await.unwrap();
    installation.note_bulk("restore.end", "many", 500).await;
    assert_eq!(raised(&installation).await.0.len(), 1);
    world.clock.advance(TimeDelta::days(7) - TimeDelta::seconds(1));
    assert_eq!(raised(&installation).await.0.len(), 1);
    world.clock.advance(TimeDelta::seconds(1));
    assert_eq!(raised(&installation).await.0.len(), 0);
    installation.close().await.unwrap();
}

#[test]
fn a_restore_and_an_export_are_told_by_the_program() {
    let (place, _) = small::installed();
    place.good(&["backup", "run"]);
    let before = place.program().json(&["status"]);
    assert!(!before.out.contains("off-hours-bulk"), "{before}");
    place.reconfigure("[audit]\n", "[alerts]\nbulk_rows = 3\nweekdays = []\n\n[audit]\n");
    let target = format!("sqlite://{}", place.file("back.db").display());
    place.good(&["restore", "--to", &target]);
    place.good(&["log", "export", "--output", "log.ndjson"]);
    let shown = place.program().json(&["status"]).ends(5);
    let late = shown.list("overdue");
    let told: Vec<&Value> = late.iter().filter(|late| late["code"] == "off-hours-bulk").collect();
    assert_eq!(told.len(), 2, "{shown}");
    assert!(told.iter().any(|late| late["what"].as_str().unwrap().contains("restore.end")), "{shown}");
    place.good(&["log", "query", "--operation", "alert.off-hours"]).says(&["OFF_HOURS_BULK"]);
}
