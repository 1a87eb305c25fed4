//! Start events: reading the moment from which a record's retention counts, or saying why it cannot be read.
//!
//! Only [`StartEvent::At`] can ever make a record due. Everything doubtful is kept and reported: NULL, text in another form,
//! `infinity`, a moment in the future, and numbers that are unlikely to be what they would have to be.
//!
//! Read are ISO 8601 dates and times with `T` or a space, with or without seconds and fractions, with `Z`, `UTC` or an
//! offset, which covers the text forms of SQLite, PostgreSQL (`2024-01-01 00:00:00+00`) and MariaDB; and Unix seconds as
//! integers. A local time without an offset is read in the store's zone: a time that the clocks skipped is the moment after the
//! gap, a repeated one is the second, because the later start keeps the record longer.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::calendar::{Bias, resolve_local};
use crate::value::Value;

/// What the column with the start event holds, as far as reading it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartKind {
    /// Whole numbers: Unix seconds, as a number or as its digits.
    Integer,
    /// Characters, or a type of the engine's own: dates and times in ISO form.
    Text,
    /// A date, or a date and time, of the store's zone.
    Local,
    /// An instant. Text without an offset is UTC, because that is the zone of the agent's sessions.
    Instant,
    /// Anything that cannot hold a start event (truth values, bytes, fractions).
    Unsuitable,
}

/// A record's start event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartEvent {
    /// It happened then.
    At(DateTime<Utc>),
    /// There is none: NULL or blank.
    Missing,
    /// There is something that cannot be read as a moment, or that is hardly meant as one.
    Unreadable,
    /// It lies after the present, so it has not happened.
    Future(DateTime<Utc>),
}

/// The years in which a start event is believed. Before them stand the zero dates of many programs.
const YEARS: std::ops::RangeInclusive<i32> = 1900..=9999;

/// 1980-01-01: smaller numbers in a column of Unix seconds are more likely zero for "unset", counted days, or dates written
/// as 20230510, and would all look as if they were long due.
const FIRST_UNIX_SECOND: i64 = 315_532_800;

/// Reads a start event. `zone` is the store's, `now` decides what is in the future.
#[must_use]
pub fn read_start(value: &Value, kind: StartKind, zone: Tz, now: DateTime<Utc>) -> StartEvent {
    let instant = match (value, kind) {
        (Value::Null, _) => return StartEvent::Missing,
        (Value::Text(text), _) if text.trim().is_empty() => return StartEvent::Missing,
        (_, StartKind::Unsuitable) | (Value::Real(_) | Value::Blob(_), _) => None,
        (Value::Integer(seconds), _) => from_unix(*seconds),
        (Value::Text(text), StartKind::Integer) => text.trim().parse().ok().and_then(from_unix),
        (Value::Text(text), StartKind::Instant) => from_text(text.trim(), Tz::UTC),
        (Value::Text(text), StartKind::Text | StartKind::Local) => from_text(text.trim(), zone),
    };
    match instant.filter(|instant| YEARS.contains(&instant.year())) {
        None => StartEvent::Unreadable,
        Some(instant) if instant > now => StartEvent::Future(instant),
        Some(instant) => StartEvent::At(instant),
    }
}

fn from_unix(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0).filter(|_| seconds >= FIRST_UNIX_SECOND)
}

fn from_text(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    let (date, rest) = split_date(text)?;
    if rest.is_empty() {
        return resolve_local(date.and_time(NaiveTime::MIN), zone, Bias::Minimum).ok();
    }
    let (time, rest) = split_time(rest.strip_prefix(['T', 't', ' '])?)?;
    let local = date.and_time(time);
    match rest {
        "" => resolve_local(local, zone, Bias::Minimum).ok(),
        offset => with_offset(local, read_offset(offset)?),
    }
}

fn with_offset(local: NaiveDateTime, offset: FixedOffset) -> Option<DateTime<Utc>> {
    local.checked_sub_signed(TimeDelta::seconds(i64::from(offset.local_minus_utc()))).map(|utc| utc.and_utc())
}

/// `YYYY-MM-DD` at the beginning, and what follows it.
fn split_date(text: &str) -> Option<(NaiveDate, &str)> {
    let (year, rest) = split_digits(text, 4)?;
    let (month, rest) = split_digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = split_digits(rest.strip_prefix('-')?, 2)?;
    Some((NaiveDate::from_ymd_opt(year as i32, month, day)?, rest))
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction` at the beginning, and what follows it. Digits of the fraction beyond the ninth
/// are dropped.
fn split_time(text: &str) -> Option<(NaiveTime, &str)> {
    let (hour, rest) = split_digits(text, 2)?;
    let (minute, rest) = split_digits(rest.strip_prefix(':')?, 2)?;
    let Some(rest) = rest.strip_prefix(':') else {
        return Some((NaiveTime::from_hms_opt(hour, minute, 0)?, rest));
    };
    let (second, rest) = split_digits(rest, 2)?;
    let Some(fraction) = rest.strip_prefix('.') else {
        return Some((NaiveTime::from_hms_opt(hour, minute, second)?, rest));
    };
    let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = fraction.split_at(length);
    let nanoseconds = format!("{:0<9}", digits.get(..9).unwrap_or(digits)).parse().ok().filter(|_| length > 0)?;
    Some((NaiveTime::from_hms_nano_opt(hour, minute, second, nanoseconds)?, rest))
}

/// `Z`, `UTC`, `+HH`, `+HHMM`, `+HH:MM` or `+HH:MM:SS`, to the end of the text; a space may stand before it.
fn read_offset(text: &str) -> Option<FixedOffset> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    if matches!(text, "Z" | "z" | "UTC") {
        return FixedOffset::east_opt(0);
    }
    let east = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, rest) = split_digits(&text[1..], 2)?;
    let (minutes, rest) = match rest {
        "" => (0, ""),
        rest => split_digits(rest.strip_prefix(':').unwrap_or(rest), 2)?,
    };
    let (seconds, rest) = match rest {
        "" => (0, ""),
        rest => split_digits(rest.strip_prefix(':')?, 2)?,
    };
    let plausible = rest.is_empty() && hours <= 18 && minutes < 60 && seconds < 60;
    FixedOffset::east_opt(east * (hours * 3600 + minutes * 60 + seconds) as i32).filter(|_| plausible)
}

/// Exactly `count` ASCII digits at the beginning as a number, and what follows them.
fn split_digits(text: &str, count: usize) -> Option<(u32, &str)> {
    let digits = text.get(..count).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((digits.parse().ok()?, &text[count..]))
}

#[cfg(test)]
mod tests;
