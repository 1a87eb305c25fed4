//! Lengths of time as people write them: [`Period`] in calendar units, [`Grace`] in exact ones.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A calendar period: so many months and so many days, as in `3 years`, `P3Y`, `180 days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Period {
    /// Whole months (a year is twelve).
    pub months: u32,
    /// Days on top.
    pub days: u32,
}

/// Time between deletion in the live store and the shred, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Grace {
    /// Seconds; 0 means none.
    pub seconds: u64,
}

/// A text that is not a period.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeriodError {
    /// Not a number and a calendar unit, or several in falling order.
    #[error(
        "{0:?} is not a period; write for example \"3 years\", \"36 months\", \"1 year 6 months\", \"180 days\", \
         \"P3Y\", \"P1Y6M\" or \"3年\" (units: years, months, weeks, days; larger ones first)"
    )]
    Malformed(String),
    /// More than the calendar has.
    #[error("the period {0:?} is longer than 9999 years")]
    TooLong(String),
}

/// A text that is not a grace period.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GraceError {
    /// Not `0`, nor a number and an exact unit, or several in falling order.
    #[error(
        "{0:?} is not a grace period; write for example \"72 hours\", \"3 days\", \"0\", \"90 minutes\", \"PT72H\" or \
         \"72小时\" (units: weeks, days, hours, minutes, seconds; larger ones first)"
    )]
    Malformed(String),
    /// Longer than anybody can mean: until its end the records can still be read.
    #[error("the grace period {0:?} is longer than the 3650 days allowed")]
    TooLong(String),
}

impl Period {
    /// So many years.
    #[must_use]
    pub const fn of_years(years: u32) -> Self {
        Self { months: years * 12, days: 0 }
    }

    /// So many months.
    #[must_use]
    pub const fn of_months(months: u32) -> Self {
        Self { months, days: 0 }
    }

    /// So many days.
    #[must_use]
    pub const fn of_days(days: u32) -> Self {
        Self { months: 0, days }
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let malformed = || PeriodError::Malformed(text.to_owned());
        let parts = parts(text, &CALENDAR_UNITS).ok_or_else(malformed)?;
        let (mut months, mut days) = (0_u64, 0_u64);
        for (number, unit) in parts {
            match unit {
                Unit::Year => months = months.saturating_add(number.saturating_mul(12)),
                Unit::Month => months = months.saturating_add(number),
                Unit::Week => days = days.saturating_add(number.saturating_mul(7)),
                Unit::Day => days = days.saturating_add(number),
                Unit::Hour | Unit::Minute | Unit::Second => return Err(malformed()),
            }
        }
        if months > 9999 * 12 || days > 9999 * 366 {
            return Err(PeriodError::TooLong(text.to_owned()));
        }
        Ok(Self { months: months as u32, days: days as u32 })
    }
}

impl fmt::Display for Period {
    /// The shortest exact wording, which also reads back: `3 years`, `1 year 6 months`, `180 days`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.months / 12, "year"), (self.months % 12, "month"), (self.days, "day")];
        if self.months == 0 && self.days == 0 {
            return f.write_str("0 days");
        }
        let words: Vec<String> = parts.iter().filter(|(number, _)| *number > 0).map(counted).collect();
        f.write_str(&words.join(" "))
    }
}

fn counted((number, unit): &(u32, &str)) -> String {
    if *number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") }
}

const LONGEST_GRACE_SECONDS: u64 = 3650 * 24 * 3600;

impl FromStr for Grace {
    type Err = GraceError;

    fn from_str(text: &str) -> Result<Self, GraceError> {
        if text.trim() == "0" {
            return Ok(Self { seconds: 0 });
        }
        let parts = parts(text, &EXACT_UNITS).ok_or_else(|| GraceError::Malformed(text.to_owned()))?;
        let mut seconds = 0_u64;
        for (number, unit) in parts {
            let each = match unit {
                Unit::Week => 7 * 24 * 3600,
                Unit::Day => 24 * 3600,
                Unit::Hour => 3600,
                Unit::Minute => 60,
                Unit::Second => 1,
                Unit::Year | Unit::Month => return Err(GraceError::Malformed(text.to_owned())),
            };
            seconds = seconds.saturating_add(number.saturating_mul(each));
        }
        if seconds > LONGEST_GRACE_SECONDS {
            return Err(GraceError::TooLong(text.to_owned()));
        }
        Ok(Self { seconds })
    }
}

impl fmt::Display for Grace {
    /// The largest single unit that is exact, up to hours: `72 hours`, `90 minutes`, `45 seconds`, `0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.seconds {
            0 => return f.write_str("0"),
            hours if hours % 3600 == 0 => (hours / 3600, "hour"),
            minutes if minutes % 60 == 0 => (minutes / 60, "minute"),
            seconds => (seconds, "second"),
        };
        write!(f, "{number} {unit}{}", if number == 1 { "" } else { "s" })
    }
}

impl Default for Grace {
    fn default() -> Self {
        Self { seconds: 72 * 3600 }
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl TryFrom<String> for Grace {
    type Error = GraceError;

    fn try_from(text: String) -> Result<Self, GraceError> {
        text.parse()
    }
}

impl From<Grace> for String {
    fn from(grace: Grace) -> Self {
        grace.to_string()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

/// The words of a unit: everyday ones, and the ISO 8601 letter with whether it stands behind the `T`.
struct Words {
    unit: Unit,
    everyday: &'static [&'static str],
    letter: &'static str,
    behind_t: bool,
}

const fn words(unit: Unit, everyday: &'static [&'static str], letter: &'static str, behind_t: bool) -> Words {
    Words { unit, everyday, letter, behind_t }
}

const YEAR: Words = words(Unit::Year, &["year", "years", "年"], "y", false);
const MONTH: Words = words(Unit::Month, &["month", "months", "个月", "個月", "月"], "m", false);
const WEEK: Words = words(Unit::Week, &["week", "weeks", "周", "週"], "w", false);
const DAY: Words = words(Unit::Day, &["day", "days", "天", "日"], "d", false);
const HOUR: Words = words(Unit::Hour, &["hour", "hours", "小时", "小時"], "h", true);
const MINUTE: Words = words(Unit::Minute, &["minute", "minutes", "分钟", "分鐘"], "m", true);
const SECOND: Words = words(Unit::Second, &["second", "seconds", "秒"], "s", true);

const CALENDAR_UNITS: [Words; 4] = [YEAR, MONTH, WEEK, DAY];
const EXACT_UNITS: [Words; 5] = [WEEK, DAY, HOUR, MINUTE, SECOND];

/// The numbers and units of a text, or `None` when it is not a list of such pairs with falling units.
fn parts(text: &str, units: &[Words]) -> Option<Vec<(u64, Unit)>> {
    let text = text.trim().to_lowercase();
    let iso = text.strip_prefix('p');
    let mut rest = iso.unwrap_or(&text);
    let mut behind_t = false;
    let mut parts: Vec<(u64, Unit)> = Vec::new();
    while !rest.is_empty() {
        if iso.is_some()
            && !behind_t
            && let Some(after) = rest.strip_prefix('t')
        {
            behind_t = true;
            // A `T` promises at least one more part.
            after.chars().next()?;
            rest = after;
            continue;
        }
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let after = if iso.is_some() { after } else { after.trim_start() };
        let (word, after) =
            split_where(after, |c| c.is_ascii_digit() || c.is_whitespace() || (iso.is_some() && c == 't'));
        let found = units.iter().find(|unit| match iso {
            Some(_) => unit.letter == word && unit.behind_t == behind_t,
            None => unit.everyday.contains(&word),
        })?;
        if parts.last().is_some_and(|(_, previous)| *previous >= found.unit) {
            return None;
        }
        parts.push((number.parse().ok()?, found.unit));
        rest = if iso.is_some() { after } else { after.trim_start() };
    }
    if parts.is_empty() { None } else { Some(parts) }
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}
