//! `[alerts]`: what counts without it, and what is no calendar.

use chrono::Weekday;

use super::*;

fn with(lines: &str) -> Result<Configuration, String> {
    read(&format!("{HEAD}{SHOP}\n[alerts]\n{lines}\n"))
}

#[test]
fn without_a_section_people_work_in_the_agents_zone_from_monday_to_friday() {
    let plain = read(&format!("{HEAD}{SHOP}")).unwrap();
    let alerts = &plain.alerts;
    assert_eq!((alerts.bulk_rows, alerts.shown_days, alerts.scheduled), (500, 7, false));
    assert_eq!((alerts.hours.from, alerts.hours.until), (480, 1200));
    assert_eq!(alerts.hours.zone, plain.agent.timezone);
    assert_eq!(alerts.hours.weekdays, [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri]);
    assert!(alerts.hours.holidays.is_empty() && alerts.hours.workdays.is_empty());
    assert_eq!(&with("").unwrap().alerts, alerts);
    assert!(!plain.show().contains("[alerts]"));
}

#[test]
fn what_is_no_calendar_is_named() {
    let good = "hours = \"22:00-24:00\"\nweekdays = [\"Sat\", \"sun\"]\nholidays = [\"2026-10-01\"]\ntimezone = \"Europe/Zurich\"";
    let read = with(good).unwrap();
    assert_eq!((read.alerts.hours.from, read.alerts.hours.until), (1320, 1440));
    assert_eq!(read.alerts.hours.weekdays, [Weekday::Sat, Weekday::Sun]);
    assert!(read.show().contains("22:00-24:00"));
    for (lines, said) in [
        ("hours = \"20:00-08:00\"", "no hours of a day"),
        ("hours = \"8-20\"", "no hours of a day"),
        ("bulk_rows = 0", "no records at all"),
        ("weekdays = [\"mon\", \"someday\"]", "`someday` is no day of the week"),
        ("holidays = [\"2026-02-30\"]", "holidays"),
        ("timezone = \"Asia/Peking\"", "unknown time zone"),
        ("hollidays = []", "hollidays"),
    ] {
        let error = with(lines).unwrap_err();
        assert!(error.contains(said), "{said}\nnot in\n{error}");
    }
}
