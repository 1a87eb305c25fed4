//! Calendar arithmetic of retention: periods, buckets and grace.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

impl TryFrom<String> for Period {
    type Error = String;
    fn try_from(_: String) -> Result<Self, String> {
        Err(String::new())
    }
}
impl From<Period> for String {
    fn from(_: Period) -> Self {
        String::new()
    }
}
impl TryFrom<String> for Grace {
    type Error = String;
    fn try_from(_: String) -> Result<Self, String> {
        Err(String::new())
    }
}
impl From<Grace> for String {
    fn from(_: Grace) -> Self {
        String::new()
    }
}
impl Default for Grace {
    fn default() -> Self {
        Self { seconds: 72 * 3600 }
    }
}
#[expect(dead_code, reason = "placeholder")]
fn placeholder(_: DateTime<Utc>, _: NaiveDate, _: NaiveDateTime, _: Tz) {}
