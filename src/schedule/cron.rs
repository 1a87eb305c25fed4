//! Schedules: crontab(5) with real time zones. Pure.
//!
//! croner answers which wall-clock times match a pattern; it is only asked in UTC, where no wall-clock time is missing or
//! doubled. What these times mean in a zone is decided here, because croner's own answers around a change of the clock go
//! back in time or skip the doubled hour. The rules are those of the common cron daemons:
//! * a time inside the hour that spring skips fires when the clock has jumped, once however many times fall inside;
//! * a time inside the hour that autumn doubles fires the first time, but a schedule with `*` in the second, minute or hour
//!   field means a rhythm, and fires in both.

use std::fmt;

use chrono::offset::LocalResult;
use chrono::{DateTime, Duration, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use thiserror::Error;

/// The longest jump of a clock that is looked for, in hours; Samoa once skipped a day.
const LONGEST_JUMP_HOURS: i64 = 48;

/// A schedule that is none. Retrying does not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CronError {
    /// Neither five nor six fields.
    #[error("a schedule has 5 fields (minute hour day month weekday), or 6 with seconds first; this has {0}")]
    Fields(usize),
    /// An `@` word that is not known.
    #[error("unknown shorthand; known are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly")]
    Shorthand,
    /// A field that cannot be read.
    #[error("not a schedule: {0}")]
    Field(String),
    /// No such day ever comes.
    #[error("no time ever matches this schedule")]
    Never,
}

/// A schedule in a time zone.
#[derive(Clone)]
pub struct Cron {
    pattern: croner::Cron,
    text: String,
    zone: Tz,
    /// Whether it means a rhythm rather than certain times of day.
    is_rhythm: bool,
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({} in {})", self.text, self.zone)
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone == other.zone
    }
}

impl Eq for Cron {}

impl Cron {
    /// Reads a schedule. Restricted days of the month and of the week are alternatives, as in crontab(5).
    ///
    /// # Errors
    /// When it cannot be read, or never comes.
    pub fn parse(text: &str, zone: Tz) -> Result<Self, CronError> {
        let expanded = expand(text.trim())?;
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        if !(5..=6).contains(&fields.len()) {
            return Err(CronError::Fields(fields.len()));
        }
        // croner's own sign for "both days must match", which crontab(5) does not have.
        if expanded.contains('+') {
            return Err(CronError::Field("`+` means nothing here".to_owned()));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).dom_and_dow(false).build();
        let pattern = parser.parse(&expanded).map_err(|error| CronError::Field(lower_first(&error.to_string())))?;
        let is_rhythm = fields[..fields.len() - 3].iter().any(|field| field.contains('*'));
        let cron = Self { pattern, text: text.trim().to_owned(), zone, is_rhythm };
        // A fixed instant, so that loading a file gives the same answer at any time.
        let probe = DateTime::<Utc>::UNIX_EPOCH.naive_utc() + Duration::days(20_000);
        cron.wall_from(probe, true).map(|_| cron).ok_or(CronError::Never)
    }

    /// The schedule as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its zone.
    #[must_use]
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first time after `after`; none only beyond the end of the calendar.
    #[must_use]
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = self.local(after);
        let mut wall = local;
        let mut is_first = false;
        if let Some(fold) = self.fold(local) {
            let inside = self.instants_in(fold).into_iter().filter(|at| *at > after).min();
            if inside.is_some() {
                return inside;
            }
            (wall, is_first) = (fold.1, true);
        }
        loop {
            wall = self.wall_from(wall, is_first)?;
            is_first = false;
            let (first, second) = self.instants(wall)?;
            if first > after {
                return Some(first);
            }
            if let Some(second) = second.filter(|second| *second > after) {
                return Some(second);
            }
        }
    }

    /// The last time before `before`.
    #[must_use]
    pub fn previous(&self, before: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut wall = self.local(before);
        if let Some(fold) = self.fold(wall) {
            let inside = self.instants_in(fold).into_iter().filter(|at| *at < before).max();
            if inside.is_some() {
                return inside;
            }
            wall = fold.0;
        }
        loop {
            wall = self.wall_before(wall)?;
            let (first, second) = self.instants(wall)?;
            if let Some(second) = second.filter(|second| *second < before) {
                return Some(second);
            }
            if first < before {
                return Some(first);
            }
        }
    }

    /// All times after `after` up to and including `until`, in order.
    pub fn between(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::successors(self.next(after), |at| self.next(*at)).take_while(move |at| *at <= until)
    }

    fn local(&self, at: DateTime<Utc>) -> NaiveDateTime {
        at.with_timezone(&self.zone).naive_local()
    }

    /// The first matching wall-clock time from `wall` on, or strictly after it.
    fn wall_from(&self, wall: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
        // Fractions of a second would make croner's answers carry them too.
        let whole = TimeDelta::nanoseconds(i64::from(wall.and_utc().timestamp_subsec_nanos()));
        let inclusive = inclusive && whole.is_zero();
        let found = self.pattern.find_next_occurrence(&(wall - whole).and_utc(), inclusive);
        found.ok().map(|found| found.naive_utc())
    }

    fn wall_before(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        let whole = TimeDelta::nanoseconds(i64::from(wall.and_utc().timestamp_subsec_nanos()));
        let found = self.pattern.find_previous_occurrence(&(wall - whole).and_utc(), !whole.is_zero());
        found.ok().map(|found| found.naive_utc())
    }

    /// When a matching wall-clock time fires: once, or twice for a rhythm in a doubled hour.
    fn instants(&self, wall: NaiveDateTime) -> Option<(DateTime<Utc>, Option<DateTime<Utc>>)> {
        match self.zone.from_local_datetime(&wall) {
            LocalResult::Single(at) => Some((at.to_utc(), None)),
            LocalResult::Ambiguous(first, second) => Some((first.to_utc(), self.is_rhythm.then(|| second.to_utc()))),
            LocalResult::None => {
                let hours = 1..=LONGEST_JUMP_HOURS;
                let valid = |wall| self.zone.from_local_datetime(&wall).earliest();
                let before = hours.clone().find_map(|hours| valid(wall - Duration::hours(hours)))?;
                let after = hours.clone().find_map(|hours| valid(wall + Duration::hours(hours)))?;
                Some((self.change_between(before.to_utc(), after.to_utc()), None))
            }
        }
    }

    /// The doubled stretch of wall-clock time around `wall`: its start, and its end (exclusive).
    fn fold(&self, wall: NaiveDateTime) -> Option<(NaiveDateTime, NaiveDateTime)> {
        let LocalResult::Ambiguous(first, second) = self.zone.from_local_datetime(&wall) else { return None };
        let change = self.change_between(first.to_utc(), second.to_utc());
        let start = change.naive_utc() + second.offset().fix();
        let end = change.naive_utc() + first.offset().fix();
        Some((start, end))
    }

    fn instants_in(&self, fold: (NaiveDateTime, NaiveDateTime)) -> Vec<DateTime<Utc>> {
        let first = self.wall_from(fold.0, true);
        let walls = std::iter::successors(first, |wall| self.wall_from(*wall, false)).take_while(|wall| *wall < fold.1);
        walls
            .filter_map(|wall| self.instants(wall))
            .flat_map(|(first, second)| [Some(first), second])
            .flatten()
            .collect()
    }

    /// The second at which the zone's offset changes between two instants with different offsets.
    fn change_between(&self, before: DateTime<Utc>, after: DateTime<Utc>) -> DateTime<Utc> {
        let offset = |at: DateTime<Utc>| at.with_timezone(&self.zone).offset().fix();
        let old = offset(before);
        let (mut low, mut high) = (before.timestamp(), after.timestamp());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match DateTime::from_timestamp(middle, 0) {
                Some(at) if offset(at) == old => low = middle,
                _ => high = middle,
            }
        }
        DateTime::from_timestamp(high, 0).unwrap_or(after)
    }
}

fn expand(text: &str) -> Result<String, CronError> {
    let Some(word) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    let expanded = match word.to_ascii_lowercase().as_str() {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => return Err(CronError::Shorthand),
    };
    Ok(expanded.to_owned())
}

fn lower_first(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            times(&full, "2026-03-02T00:00:00+08:00", "2026-03-09T00:00:00+08:00"),
            ["2026-03-08T03:00:00+08:00"]
        );
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
}
