//! Buckets: periods of start events whose records share a key, and die together when the whole period is due.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Bias, CalendarError, Period, end_of_period, first_moment, in_range, local_day};

/// Width of a bucket of start events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BucketWidth {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
    /// A calendar quarter.
    #[default]
    Quarter,
    /// A calendar year.
    Year,
}

/// Which bucket a record lies in: a span of local days of its start event, or `open` while there is no usable start event.
/// Written `open`, `2023`, `2023Q2`, `2023-05` or `2023-05-10`; no two buckets share a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum BucketPeriod {
    /// No start event yet, or none that could be read. Never due as a whole.
    Open,
    /// A span of days.
    Span(BucketSpan),
}

/// One day, month, quarter or year of a store's local calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketSpan {
    first: NaiveDate,
    months: u32,
}

/// A text that names no bucket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a bucket; buckets are written open, 2023, 2023Q2, 2023-05 or 2023-05-10")]
pub struct MalformedBucket(pub String);

impl BucketSpan {
    /// The span of this width that contains `day`.
    #[must_use]
    pub fn containing(day: NaiveDate, width: BucketWidth) -> Self {
        let months = match width {
            BucketWidth::Day => return Self { first: day, months: 0 },
            BucketWidth::Month => 1,
            BucketWidth::Quarter => 3,
            BucketWidth::Year => 12,
        };
        let month = day.month0() / months * months + 1;
        // The first of a month of the same year always exists; `day` itself only satisfies the type.
        let first = NaiveDate::from_ymd_opt(day.year(), month, 1).unwrap_or(day);
        Self { first, months }
    }

    /// Its width.
    #[must_use]
    pub fn width(self) -> BucketWidth {
        match self.months {
            0 => BucketWidth::Day,
            1 => BucketWidth::Month,
            3 => BucketWidth::Quarter,
            _ => BucketWidth::Year,
        }
    }

    /// The first local day behind it.
    fn next_day(self) -> Result<NaiveDate, CalendarError> {
        in_range(match self.months {
            0 => self.first.succ_opt(),
            months => self.first.checked_add_months(Months::new(months)),
        })
    }
}

/// The bucket of a start event.
///
/// # Errors
/// [`CalendarError::OutOfRange`] when the start lies outside the supported years.
pub fn bucket_of(start: DateTime<Utc>, width: BucketWidth, zone: Tz) -> Result<BucketPeriod, CalendarError> {
    Ok(BucketPeriod::Span(BucketSpan::containing(local_day(start, zone, Bias::Minimum)?, width)))
}

/// The first instant that no longer belongs to the bucket; `None` for the open one, which has no end.
///
/// # Errors
/// [`CalendarError::OutOfRange`] when the end lies outside the supported years.
pub fn bucket_end(bucket: BucketPeriod, zone: Tz) -> Result<Option<DateTime<Utc>>, CalendarError> {
    match bucket {
        BucketPeriod::Open => Ok(None),
        BucketPeriod::Span(span) => first_moment(span.next_day()?, zone).map(Some),
    }
}

/// When every start event of the bucket is due under `retention`, and the bucket is over; `None` for the open one.
///
/// # Errors
/// [`CalendarError::OutOfRange`] when that lies outside the supported years.
pub fn bucket_due(bucket: BucketPeriod, retention: Period, zone: Tz) -> Result<Option<DateTime<Utc>>, CalendarError> {
    let Some(end) = bucket_end(bucket, zone)? else { return Ok(None) };
    // The end of a period never decreases with its start, so the bucket's last instant decides.
    let last = end - TimeDelta::nanoseconds(1);
    end_of_period(last, retention, zone, Bias::Minimum).map(|due| Some(due.max(end)))
}

impl fmt::Display for BucketPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Span(span) = self else { return f.write_str("open") };
        let day = span.first;
        match span.width() {
            BucketWidth::Day => write!(f, "{:04}-{:02}-{:02}", day.year(), day.month(), day.day()),
            BucketWidth::Month => write!(f, "{:04}-{:02}", day.year(), day.month()),
            BucketWidth::Quarter => write!(f, "{:04}Q{}", day.year(), day.month0() / 3 + 1),
            BucketWidth::Year => write!(f, "{:04}", day.year()),
        }
    }
}

impl FromStr for BucketPeriod {
    type Err = MalformedBucket;

    fn from_str(text: &str) -> Result<Self, MalformedBucket> {
        if text == "open" {
            return Ok(Self::Open);
        }
        let read = || {
            let number = |from: usize, to: usize| -> Option<u32> {
                let digits = text.get(from..to)?;
                digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
            };
            let year = number(0, 4)? as i32;
            let (month, day, width) = match text.len() {
                4 => (1, 1, BucketWidth::Year),
                6 => (number(5, 6)?.checked_sub(1)? * 3 + 1, 1, BucketWidth::Quarter),
                7 => (number(5, 7)?, 1, BucketWidth::Month),
                10 => (number(5, 7)?, number(8, 10)?, BucketWidth::Day),
                _ => return None,
            };
            let day = in_range(NaiveDate::from_ymd_opt(year, month, day)).ok()?;
            Some(Self::Span(BucketSpan::containing(day, width)))
        };
        // Comparing with the canonical text checks the separators as well.
        read().filter(|bucket| bucket.to_string() == text).ok_or_else(|| MalformedBucket(text.to_owned()))
    }
}

impl TryFrom<String> for BucketPeriod {
    type Error = MalformedBucket;

    fn try_from(text: String) -> Result<Self, MalformedBucket> {
        text.parse()
    }
}

impl From<BucketPeriod> for String {
    fn from(bucket: BucketPeriod) -> Self {
        bucket.to_string()
    }
}
