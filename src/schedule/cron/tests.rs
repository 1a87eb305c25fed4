//! Schedules around changes of the clock, against a brute-force reading of the rules.

use super::*;
use chrono::{Datelike, Timelike};
use proptest::prelude::*;

fn cron(text: &str, zone: &str) -> Cron {
    Cron::parse(text, zone.parse().unwrap()).unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn times(cron: &Cron, after: &str, until: &str) -> Vec<String> {
    cron.between(at(after), at(until)).map(|at| at.with_timezone(&cron.zone()).to_rfc3339()).collect()
}

#[test]
fn shipped_backup_times_in_shanghai() {
    let full = cron("0 3 * * 0", "Asia/Shanghai");
    assert_eq!(times(&full, "2026-03-02T00:00:00+08:00", "2026-03-09T00:00:00+08:00"), ["2026-03-08T03:00:00+08:00"]);
    let nightly = cron("0 23 * * *", "Asia/Shanghai");
    assert_eq!(times(&nightly, "2026-03-02T00:00:00+08:00", "2026-03-09T00:00:00+08:00").len(), 7);
}

#[test]
fn a_skipped_time_fires_when_the_clock_has_jumped() {
    let cron = cron("30 2 * * *", "Europe/Zurich");
    assert_eq!(
        times(&cron, "2026-03-28T12:00:00+01:00", "2026-03-30T12:00:00+02:00"),
        ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    );
    assert_eq!(cron.previous(at("2026-03-29T05:00:00+02:00")), Some(at("2026-03-29T03:00:00+02:00")));
}

#[test]
fn several_skipped_times_fire_once() {
    let cron = cron("0,30 2,3 * * *", "Europe/Zurich");
    assert_eq!(
        times(&cron, "2026-03-29T00:00:00+01:00", "2026-03-29T12:00:00+02:00"),
        ["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"]
    );
}

#[test]
fn a_doubled_time_fires_once() {
    for text in ["30 2 * * *", "0,30 2 * * *"] {
        let cron = cron(text, "Europe/Zurich");
        let all = times(&cron, "2026-10-25T00:00:00+02:00", "2026-10-25T12:00:00+01:00");
        assert!(all.iter().all(|time| time.ends_with("+02:00")), "{text}: {all:?}");
        assert_eq!(all.last().unwrap(), "2026-10-25T02:30:00+02:00");
    }
}

#[test]
fn a_rhythm_goes_on_through_the_doubled_hour() {
    let cron = cron("*/30 2 * * *", "Europe/Zurich");
    let expected = [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
    ];
    assert_eq!(times(&cron, "2026-10-25T00:00:00+02:00", "2026-10-25T12:00:00+01:00"), expected);
    // Asked from inside the second pass, the answer never lies in the past.
    assert_eq!(cron.next(at("2026-10-25T02:10:00+01:00")), Some(at("2026-10-25T02:30:00+01:00")));
    assert_eq!(cron.previous(at("2026-10-25T02:10:00+01:00")), Some(at("2026-10-25T02:00:00+01:00")));
}

#[test]
fn restricted_day_fields_are_alternatives() {
    let cron = cron("0 0 13 * FRI", "UTC");
    assert_eq!(
        times(&cron, "2026-08-10T00:00:00Z", "2026-08-22T00:00:00Z"),
        ["2026-08-13T00:00:00+00:00", "2026-08-14T00:00:00+00:00", "2026-08-21T00:00:00+00:00"]
    );
}

#[test]
fn notations() {
    let reference = cron("0 0 * * 0", "UTC");
    for text in ["0 0 * * 7", "0 0 * * SUN", "0 0 * * sun", "@weekly", "0 0 0 * * 0"] {
        let other = cron(text, "UTC");
        let from = at("2026-01-01T00:00:00Z");
        assert!(
            other.between(from, from + Duration::days(60)).eq(reference.between(from, from + Duration::days(60))),
            "{text}"
        );
    }
    assert_eq!(times(&cron("15 30 6 1 JAN-MAR *", "UTC"), "2026-01-01T12:00:00Z", "2026-03-01T12:00:00Z").len(), 2);
}

#[test]
fn what_is_no_schedule() {
    let error = |text: &str| Cron::parse(text, Tz::UTC).unwrap_err();
    assert_eq!(error("0 0 30 2 *"), CronError::Never);
    assert_eq!(error("0 0 * *"), CronError::Fields(4));
    assert_eq!(error("0 0 0 * * * 2027"), CronError::Fields(7));
    assert_eq!(error("@reboot"), CronError::Shorthand);
    assert_eq!(error(""), CronError::Fields(0));
    for text in ["61 * * * *", "* 24 * * *", "* * 0 * *", "x * * * *", "0 0 13 * +FRI", "*/0 * * * *"] {
        assert!(matches!(error(text), CronError::Field(_)), "{text}");
    }
}

/// The rules of the module's head, minute by minute and without any search.
fn brute(
    minute: u32,
    hour: u32,
    is_rhythm: bool,
    zone: Tz,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Vec<DateTime<Utc>> {
    let matches =
        |wall: NaiveDateTime| wall.hour() == hour && (is_rhythm || wall.minute() == minute) && wall.second() == 0;
    let mut fired = Vec::new();
    let mut at = from;
    let mut seen = std::collections::BTreeSet::new();
    while at < to {
        at += Duration::minutes(1);
        let wall = at.with_timezone(&zone).naive_local();
        let before = (at - Duration::minutes(1)).with_timezone(&zone).naive_local();
        let mut skipped = before + Duration::minutes(1);
        let mut is_due = matches(wall);
        while skipped < wall {
            is_due |= matches(skipped);
            skipped += Duration::minutes(1);
        }
        let is_new = seen.insert((wall.ordinal(), wall.hour(), wall.minute()));
        if is_due && (is_rhythm || is_new) {
            fired.push(at);
        }
    }
    fired
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(8), ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_brute_force(
        minute in 0u32..60,
        hour in 0u32..5,
        is_rhythm: bool,
        zone in prop::sample::select(vec!["Europe/Zurich", "America/St_Johns", "Australia/Lord_Howe", "Asia/Shanghai", "America/Sao_Paulo"]),
        day in prop::sample::select(vec!["2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31", "2018-11-03", "2018-02-17"]),
    ) {
        let zone: Tz = zone.parse().unwrap();
        let from = at(&format!("{day}T00:00:00Z"));
        let to = from + Duration::days(3);
        let text = if is_rhythm { format!("* {hour} * * *") } else { format!("{minute} {hour} * * *") };
        let cron = Cron::parse(&text, zone).unwrap();
        let forward: Vec<_> = cron.between(from, to).collect();
        prop_assert_eq!(&forward, &brute(minute, hour, is_rhythm, zone, from, to));
        let backward: Vec<_> = std::iter::successors(cron.previous(to + Duration::seconds(1)), |at| cron.previous(*at))
            .take_while(|at| *at > from).collect();
        prop_assert!(backward.iter().rev().eq(forward.iter()));
    }

    #[test]
    fn next_is_always_later(seconds in 0i64..4_000_000_000, nanos in 0u32..1_000_000_000) {
        let cron = Cron::parse("*/10 * * * *", chrono_tz::Europe::Zurich).unwrap();
        let now = DateTime::from_timestamp(seconds, nanos).unwrap();
        let next = cron.next(now).unwrap();
        prop_assert!(next > now && next - now <= Duration::minutes(10));
        let previous = cron.previous(now).unwrap();
        prop_assert!(previous < now && now - previous <= Duration::minutes(10));
    }
}
