//! A policy against its statutes: what the configuration must say, or may not.

use std::sync::Arc;

use chrono::NaiveDate;
use thiserror::Error;

use super::rules::StatuteRule;
use super::{LegalBound, StartRule, Statute, first_of_year};
use crate::policy::calendar::{Bias, Period, add_period};
use crate::policy::registry::Policy;

/// A policy whose retention ends before a statute lets its records go. They stay until the statute's end all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "policy {policy} keeps records for {retention}, but statute {} ({}) wants them kept {}, and they are; lengthen the \
     retention, or take the statute off the policy if it does not apply",
    .statute.key, .statute.source(), .statute.bound
)]
pub struct RetentionTooShort {
    /// The policy's id.
    pub policy: String,
    /// Its retention.
    pub retention: Period,
    /// The statute.
    pub statute: Arc<Statute>,
}

/// A policy that keeps records longer than a confirmed maximum permits. A fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "policy {policy} keeps records for {retention}, but statute {} ({}) wants them kept {}",
    .statute.key, .statute.source(), .statute.bound
)]
pub struct RetentionTooLong {
    /// The policy's id.
    pub policy: String,
    /// Its retention.
    pub retention: Period,
    /// The statute.
    pub statute: Arc<Statute>,
}

/// Two statutes of a policy that cannot both be obeyed. The records stay, restricted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "policy {policy}: statute {} ({}) wants records kept {}, and statute {} ({}) {}; where both apply records stay, restricted \
     to storage, until the first one ends",
    .minimum.key, .minimum.source(), .minimum.bound, .maximum.key, .maximum.source(), .maximum.bound
)]
pub struct Contradiction {
    /// The policy's id.
    pub policy: String,
    /// The statute that keeps.
    pub minimum: Arc<Statute>,
    /// The statute that forbids to keep.
    pub maximum: Arc<Statute>,
}

/// The first statute whose minimum the policy's retention does not reach for every start event.
#[must_use]
pub fn retention_too_short(policy: &Policy, statutes: &[Arc<Statute>]) -> Option<RetentionTooShort> {
    let too_short = |statute: &&Arc<Statute>| match statute.bound {
        LegalBound::Minimum(minimum) => !is_always_at_least(policy.retention, minimum),
        LegalBound::Permanent => true,
        LegalBound::Maximum(_) | LegalBound::Necessary | LegalBound::Duty => false,
    };
    let statute = statutes.iter().find(too_short)?.clone();
    Some(RetentionTooShort { policy: policy.id.clone(), retention: policy.retention, statute })
}

/// The first confirmed maximum that the policy's retention exceeds for some start event. The same period is not longer.
#[must_use]
pub fn retention_too_long(policy: &Policy, statutes: &[Arc<Statute>]) -> Option<RetentionTooLong> {
    let too_long = |statute: &&Arc<Statute>| {
        statute.maximum().is_some_and(|maximum| !is_always_at_least(maximum, policy.retention))
    };
    let statute = statutes.iter().find(too_long)?.clone();
    Some(RetentionTooLong { policy: policy.id.clone(), retention: policy.retention, statute })
}

/// The first pair of a minimum and a confirmed maximum that contradict each other for some start event.
#[must_use]
pub fn contradiction(policy: &Policy, statutes: &[Arc<Statute>]) -> Option<Contradiction> {
    for maximum in statutes {
        let Some(longest) = maximum.maximum() else { continue };
        let breaks = |statute: &&Arc<Statute>| match statute.bound {
            LegalBound::Minimum(minimum) => {
                let later = statute.start == StartRule::AfterFiscalYear && maximum.start == StartRule::Event;
                !is_always_at_least(longest, minimum) || (later && !is_always_at_least(longest, a_year_on(minimum)))
            }
            LegalBound::Permanent => true,
            _ => false,
        };
        if let Some(minimum) = statutes.iter().find(breaks) {
            let (minimum, maximum) = (minimum.clone(), maximum.clone());
            return Some(Contradiction { policy: policy.id.clone(), minimum, maximum });
        }
    }
    None
}

/// What a period from the end of the fiscal year can come to, counted from the event.
fn a_year_on(period: Period) -> Period {
    Period { months: period.months.saturating_add(12), ..period }
}

/// Whether some record could go earlier by the new rule than by the old one.
#[must_use]
pub fn loosens(old: &StatuteRule, new: &StatuteRule) -> bool {
    let moved_up = old.counts_from == StartRule::AfterFiscalYear && new.counts_from == StartRule::Event;
    match (old.bound, new.bound) {
        (_, LegalBound::Permanent) => false,
        (LegalBound::Minimum(old), LegalBound::Minimum(new)) => {
            let enough = if moved_up { a_year_on(old) } else { old };
            !is_always_at_least(new, enough)
        }
        (LegalBound::Permanent | LegalBound::Minimum(_), _) => true,
        _ => false,
    }
}

/// Whether `period` ends no sooner than `minimum` from every day. Months and days are compared over the 400 years in which the
/// calendar repeats, because 1095 days are three years from some days and not from others.
fn is_always_at_least(period: Period, minimum: Period) -> bool {
    if period.months >= minimum.months && period.days >= minimum.days {
        return true;
    }
    let Ok(first) = first_of_year(2000) else { return false };
    let reaches = |day: NaiveDate| {
        let ends = |period| add_period(day, period, Bias::Minimum).ok();
        // A period beyond the supported years never ends.
        ends(period).is_none_or(|end| ends(minimum).is_some_and(|minimum| end >= minimum))
    };
    first.iter_days().take(146_097).all(reaches)
}
