//! Legal clocks: by when a notice, an answer or an audit is due. Listed as facts; nothing here counts them down.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Bilingual, Citation, Status};

/// A clock of the law, with its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LegalClock {
    /// Its key.
    pub key: String,
    /// ISO 3166 code of where it applies.
    pub jurisdiction: String,
    /// What sets it off.
    pub applies_to: Bilingual,
    /// From when it counts.
    pub start_event: Bilingual,
    /// Laws and articles.
    pub cites: Vec<Citation>,
    /// How far the entry was confirmed.
    pub status: Status,
    /// What is due by when.
    pub steps: Vec<Step>,
}

/// A step of a clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Within what time; none when the law names no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
    /// How far this step was confirmed.
    pub status: Status,
    /// What is due.
    pub what: Bilingual,
}

/// A time within which something is due: `at once`, `72 hours`, `30 days`, `15 working days`, `1 month`, `2 years`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Within {
    /// Without delay.
    AtOnce,
    /// So many hours.
    Hours(u32),
    /// So many calendar days.
    Days(u32),
    /// So many days on which people work.
    WorkingDays(u32),
    /// So many calendar months.
    Months(u32),
    /// So many years.
    Years(u32),
}

/// A text that is no such time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no time of a clock; write `at once` or a number with hours, days, working days, months or years")]
pub struct MalformedWithin(String);

/// A unit: what it makes of a number, and its words: singular, plural, Chinese.
type Unit = (fn(u32) -> Within, &'static str, &'static str, &'static str);

const UNITS: [Unit; 5] = [
    (Within::Hours, "hour", "hours", "小时"),
    (Within::WorkingDays, "working day", "working days", "个工作日"),
    (Within::Days, "day", "days", "天"),
    (Within::Months, "month", "months", "个月"),
    (Within::Years, "year", "years", "年"),
];

impl Within {
    fn number(self) -> u32 {
        match self {
            Self::AtOnce => 0,
            Self::Hours(number)
            | Self::Days(number)
            | Self::WorkingDays(number)
            | Self::Months(number)
            | Self::Years(number) => number,
        }
    }

    /// The same in Chinese.
    #[must_use]
    pub fn zh(self) -> String {
        let number = self.number();
        let unit = UNITS.iter().find(|(make, ..)| make(number) == self);
        unit.map_or_else(|| "立即".to_owned(), |(.., unit)| format!("{number} {unit}"))
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number();
        match UNITS.iter().find(|(make, ..)| make(number) == *self) {
            Some((_, one, many, _)) => write!(f, "{number} {}", if number == 1 { one } else { many }),
            None => f.write_str("at once"),
        }
    }
}

impl FromStr for Within {
    type Err = MalformedWithin;

    fn from_str(text: &str) -> Result<Self, MalformedWithin> {
        if text == "at once" {
            return Ok(Self::AtOnce);
        }
        let parts = text.split_once(' ').and_then(|(number, unit)| Some((number.parse::<u32>().ok()?, unit)));
        let found = parts.filter(|(number, _)| *number > 0).and_then(|(number, word)| {
            let unit = UNITS.iter().find(|(_, one, many, _)| word == *one || word == *many)?;
            Some((unit.0)(number))
        });
        found.ok_or_else(|| MalformedWithin(text.to_owned()))
    }
}

impl TryFrom<String> for Within {
    type Error = MalformedWithin;

    fn try_from(text: String) -> Result<Self, MalformedWithin> {
        text.parse()
    }
}

impl From<Within> for String {
    fn from(within: Within) -> Self {
        within.to_string()
    }
}
