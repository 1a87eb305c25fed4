//! Which chains of snapshots are kept, and why. A chain is a full snapshot and what depends on it: it stays or goes as a whole.
//!
//! Invariants:
//! * No rule at all keeps all. The newest chain of a store stays whatever the rules say.
//! * A chain stays when any rule names any snapshot in it, or anything needs it. More rules, larger rules and more needs never make a
//!   chain go, and what a decision left is left by the same decision again.
//! * Periods count from the snapshots that there are, not from now: a store that was not backed up for a year loses nothing by that.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which snapshots are kept: those that any rule names. No rule at all keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The newest so many of each store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<NonZeroU32>,
    /// Those of the last so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<NonZeroU32>,
    /// The newest of each of the last so many days that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<NonZeroU32>,
    /// The newest of each of the last so many weeks (from Monday) that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<NonZeroU32>,
    /// The newest of each of the last so many months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<NonZeroU32>,
    /// The newest of each of the last so many years that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<NonZeroU32>,
}

impl Keep {
    /// Whether there is no rule, so that all is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a chain stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stays {
    /// There is no rule.
    NoRule,
    /// It is the newest of its store: a barrier for shreds, and what a restore would take.
    Newest,
    /// It is the newest of its store that a restore drill has proven.
    NewestProven,
    /// The rule `last`.
    Last,
    /// The rule `days`.
    Days,
    /// The rule `daily`.
    Daily,
    /// The rule `weekly`.
    Weekly,
    /// The rule `monthly`.
    Monthly,
    /// The rule `yearly`.
    Yearly,
    /// A legal hold covers its store.
    Hold,
    /// It holds the last sealed version of rows that a pin keeps.
    Pin,
    /// Rows that it holds can still be put back within their grace.
    Grace,
    /// A run that erases is not finished.
    OpenRun,
    /// A restore or a drill is reading it.
    InUse,
}

/// A chain as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainFacts {
    /// When each of its snapshots was begun; at least one.
    pub begun: Vec<DateTime<Utc>>,
    /// What needs it, rules apart.
    pub needs: BTreeSet<Stays>,
}

/// What tells the periods of a rule apart.
type PeriodOf = fn(NaiveDate) -> (i32, u32);

/// Why each chain of one store stays; a chain without a reason goes.
#[must_use]
pub fn judge(chains: &[ChainFacts], keep: &Keep, zone: Tz, now: DateTime<Utc>) -> Vec<BTreeSet<Stays>> {
    let mut reasons: Vec<BTreeSet<Stays>> = chains.iter().map(|chain| chain.needs.clone()).collect();
    // Newest first; of two that were begun at one instant the later chain counts as newer.
    let mut snapshots: Vec<(DateTime<Utc>, usize)> = Vec::new();
    for (at, chain) in chains.iter().enumerate() {
        snapshots.extend(chain.begun.iter().map(|begun| (*begun, at)));
    }
    snapshots.sort_unstable_by(|a, b| b.cmp(a));
    if let Some((_, newest)) = snapshots.first() {
        reasons[*newest].insert(Stays::Newest);
    }
    if keep.is_empty() {
        for of in &mut reasons {
            of.insert(Stays::NoRule);
        }
        return reasons;
    }
    let number = |rule: Option<NonZeroU32>| rule.map_or(0, |number| number.get() as usize);
    for (_, chain) in snapshots.iter().take(number(keep.last)) {
        reasons[*chain].insert(Stays::Last);
    }
    if let Some(days) = keep.days {
        // A period before the beginning of time keeps all.
        let since = now.checked_sub_signed(TimeDelta::days(i64::from(days.get())));
        for (_, chain) in snapshots.iter().filter(|(begun, _)| since.is_none_or(|since| *begun >= since)) {
            reasons[*chain].insert(Stays::Days);
        }
    }
    let day = |at: &DateTime<Utc>| at.with_timezone(&zone).date_naive();
    let periods: [(Stays, Option<NonZeroU32>, PeriodOf); 4] = [
        (Stays::Daily, keep.daily, |day| (day.year(), day.ordinal())),
        (Stays::Weekly, keep.weekly, |day| (day.iso_week().year(), day.iso_week().week())),
        (Stays::Monthly, keep.monthly, |day| (day.year(), day.month())),
        (Stays::Yearly, keep.yearly, |day| (day.year(), 0)),
    ];
    for (reason, rule, period_of) in periods {
        let mut seen = BTreeSet::new();
        for (begun, chain) in &snapshots {
            if seen.len() == number(rule) {
                break;
            }
            if seen.insert(period_of(day(begun))) {
                reasons[*chain].insert(reason);
            }
        }
    }
    reasons
}

#[cfg(test)]
mod tests;
