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
mod tests;
