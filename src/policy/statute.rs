//! Statutes: how long the law wants records kept, and how long at most, combined with a policy's own retention.
//!
//! The rule (ISO/IEC 27555 with PIPL 47): a record may go from the latest of all minima, the policy's retention among them;
//! it must be gone by the earliest of all maxima; where these contradict each other it is restricted, not erased. Minima bind
//! whatever the status of their entry; only confirmed maxima do. So an error in the catalogue keeps data, never destroys it.
//!
//! The catalogue is data (`catalogue`); none of it is legal advice, and each entry says how far it was confirmed.

mod catalogue;
#[cfg(test)]
mod tests;

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;
use thiserror::Error;

use super::calendar::{
    Bias, BucketPeriod, CalendarError, DueBound, Period, add_period, bound_after, bucket_end, end_of_period,
    latest_begun_day, latest_day, latest_due_start, local_day, resolve_local,
};
use super::registry::Policy;

pub use catalogue::CATALOGUE;

/// An entry of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct Statute {
    /// Its key, as policies name it: `cn.ecl.31`.
    pub key: &'static str,
    /// ISO 3166 code of where it applies: `CN`, `EU`, `US-CA`.
    pub jurisdiction: &'static str,
    /// What records it applies to.
    pub applies_to: &'static str,
    /// What it demands.
    pub bound: LegalBound,
    /// From when it counts, relative to the record's start event.
    pub start: StartRule,
    /// The start event the law means; the policy's start column must hold it.
    pub start_event: &'static str,
    /// Law and article.
    pub source: &'static str,
    /// How far the entry was confirmed.
    pub status: Status,
}

/// What a statute demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegalBound {
    /// Keep at least so long.
    Minimum(Period),
    /// Keep for ever.
    Permanent,
    /// Keep at most so long.
    Maximum(Period),
    /// Keep no longer than necessary; no number of days follows from it.
    Necessary,
    /// A duty without a period.
    Duty,
}

/// From when a statute counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartRule {
    /// From the start event itself.
    Event,
    /// From the first day after the fiscal year of the start event. In China that is the calendar year (Accounting Law 11).
    AfterFiscalYear,
}

/// How far an entry was confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The wording or the number was seen in a secondary source.
    Confirmed,
    /// Part of it was.
    Partly,
    /// None of it was.
    Unconfirmed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmed => "confirmed",
            Self::Partly => "partly",
            Self::Unconfirmed => "unconfirmed",
        })
    }
}

impl fmt::Display for LegalBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minimum(period) => write!(f, "at least {period}"),
            Self::Permanent => f.write_str("permanently"),
            Self::Maximum(period) => write!(f, "at most {period}"),
            Self::Necessary => f.write_str("no longer than necessary"),
            Self::Duty => f.write_str("no period"),
        }
    }
}

/// A key that the catalogue does not have. Retrying does not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no statute {0:?} in the catalogue; `statute list` shows all keys")]
pub struct UnknownStatute(pub String);

/// The entry with this key.
#[must_use]
pub fn find(key: &str) -> Option<&'static Statute> {
    CATALOGUE.iter().find(|statute| statute.key == key)
}

/// The entries with these keys, in the same order.
///
/// # Errors
/// [`UnknownStatute`] for the first key without an entry.
pub fn find_all(keys: &[String]) -> Result<Vec<&'static Statute>, UnknownStatute> {
    keys.iter().map(|key| find(key).ok_or_else(|| UnknownStatute(key.clone()))).collect()
}

/// When a record may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Earliest {
    /// From this instant on.
    At(DateTime<Utc>),
    /// Not ever.
    Never,
}

/// Whose minimum decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedBy {
    /// The policy's own retention.
    Policy,
    /// The statute with this key.
    Statute(&'static str),
}

/// The span in which a record may and must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// From when it may go.
    pub earliest: Earliest,
    /// Whose minimum that is. The policy's, when a statute ends on the same day.
    pub decided_by: DecidedBy,
    /// By when it must be gone, and by which statute.
    pub latest: Option<(DateTime<Utc>, &'static str)>,
}

/// What follows from the bounds at a given moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its time is not up.
    Keep,
    /// It may be erased.
    MayErase,
    /// It must be erased; the latest date has passed.
    MustErase,
    /// Minimum and maximum contradict each other: keep it, for storage and security only, until the earliest date.
    Restrict,
}

impl Bounds {
    /// Whether the minima and the maxima contradict each other.
    #[must_use]
    pub fn conflict(&self) -> bool {
        self.latest.is_some_and(|(latest, _)| self.earliest > Earliest::At(latest))
    }

    /// What follows at `now`.
    #[must_use]
    pub fn verdict(&self, now: DateTime<Utc>) -> Verdict {
        if self.earliest > Earliest::At(now) {
            return if self.conflict() { Verdict::Restrict } else { Verdict::Keep };
        }
        match self.latest {
            Some((latest, _)) if now > latest => Verdict::MustErase,
            _ => Verdict::MayErase,
        }
    }
}

/// The bounds of a record with this start event, kept for `retention` by its policy and bound by `statutes`.
///
/// # Errors
/// [`CalendarError`] when a date cannot be computed; the record is then not due.
pub fn bounds(
    start: DateTime<Utc>,
    retention: Period,
    statutes: &[&'static Statute],
    zone: Tz,
) -> Result<Bounds, CalendarError> {
    let own = Earliest::At(end_of_period(start, retention, zone, Bias::Minimum)?);
    let mut bounds = Bounds { earliest: own, decided_by: DecidedBy::Policy, latest: None };
    for statute in statutes {
        let minimum = match statute.bound {
            LegalBound::Minimum(period) => Earliest::At(end(start, period, statute.start, zone, Bias::Minimum)?),
            LegalBound::Permanent => Earliest::Never,
            LegalBound::Maximum(period) if statute.status == Status::Confirmed => {
                let maximum = end(start, period, statute.start, zone, Bias::Maximum)?;
                if bounds.latest.is_none_or(|(latest, _)| maximum < latest) {
                    bounds.latest = Some((maximum, statute.key));
                }
                continue;
            }
            LegalBound::Maximum(_) | LegalBound::Necessary | LegalBound::Duty => continue,
        };
        if minimum > bounds.earliest {
            bounds.earliest = minimum;
            bounds.decided_by = DecidedBy::Statute(statute.key);
        }
    }
    Ok(bounds)
}

fn end(
    start: DateTime<Utc>,
    period: Period,
    rule: StartRule,
    zone: Tz,
    bias: Bias,
) -> Result<DateTime<Utc>, CalendarError> {
    match rule {
        StartRule::Event => end_of_period(start, period, zone, bias),
        StartRule::AfterFiscalYear => {
            let first = first_of_year(local_day(start, zone, bias)?.year() + 1)?;
            resolve_local(add_period(first, period, bias)?.and_time(NaiveTime::MIN), zone, bias)
        }
    }
}

fn first_of_year(year: i32) -> Result<NaiveDate, CalendarError> {
    NaiveDate::from_ymd_opt(year, 1, 1).ok_or(CalendarError::OutOfRange)
}

/// The bound of the start events that may go at `cutoff`, by the policy's retention and by every statute.
///
/// For every supported start: `bounds(start, …)?.earliest <= Earliest::At(cutoff)` if and only if it is before the bound.
///
/// # Errors
/// [`CalendarError`] when `cutoff` lies outside the supported years.
pub fn latest_due_start_with(
    cutoff: DateTime<Utc>,
    retention: Period,
    statutes: &[&'static Statute],
    zone: Tz,
) -> Result<DueBound, CalendarError> {
    let mut bound = latest_due_start(cutoff, retention, zone)?;
    for statute in statutes {
        let own = match (statute.bound, statute.start) {
            (LegalBound::Minimum(period), StartRule::Event) => latest_due_start(cutoff, period, zone)?,
            (LegalBound::Minimum(period), StartRule::AfterFiscalYear) => {
                match latest_day(latest_begun_day(cutoff, zone)?, period) {
                    // Due are the fiscal years that ended before this day.
                    Some(day) if day.year() > 1 => bound_after(last_of_year(day.year() - 1)?, cutoff, zone)?,
                    _ => DueBound::nothing(),
                }
            }
            (LegalBound::Permanent, _) => DueBound::nothing(),
            (LegalBound::Maximum(_) | LegalBound::Necessary | LegalBound::Duty, _) => continue,
        };
        bound = bound.earlier(own);
    }
    Ok(bound)
}

fn last_of_year(year: i32) -> Result<NaiveDate, CalendarError> {
    NaiveDate::from_ymd_opt(year, 12, 31).ok_or(CalendarError::OutOfRange)
}

/// When every record of a bucket may go, by the policy's retention and by every statute; never for the open bucket.
///
/// # Errors
/// [`CalendarError`] when that lies outside the supported years; the bucket is then not due.
pub fn bucket_due_with(
    bucket: BucketPeriod,
    retention: Period,
    statutes: &[&'static Statute],
    zone: Tz,
) -> Result<Earliest, CalendarError> {
    let Some(end) = bucket_end(bucket, zone)? else { return Ok(Earliest::Never) };
    let last = end - chrono::TimeDelta::nanoseconds(1);
    Ok(bounds(last, retention, statutes, zone)?.earliest.max(Earliest::At(end)))
}

/// A policy that would let records go before a statute that it names does. A fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "policy {policy} keeps records for {retention}, but statute {} ({}) wants them kept {}; lengthen the retention, or take \
     the statute off the policy if it does not apply",
    .statute.key, .statute.source, .statute.bound
)]
pub struct RetentionTooShort {
    /// The policy's id.
    pub policy: String,
    /// Its retention.
    pub retention: Period,
    /// The statute.
    pub statute: &'static Statute,
}

/// The first statute named by the policy whose minimum its retention does not reach for every start event. Unknown keys are
/// passed over; [`find_all`] reports them.
#[must_use]
pub fn retention_shorter_than_statute(policy: &Policy) -> Option<RetentionTooShort> {
    let too_short = |statute: &&'static Statute| match statute.bound {
        LegalBound::Minimum(minimum) => !is_always_at_least(policy.retention, minimum),
        LegalBound::Permanent => true,
        LegalBound::Maximum(_) | LegalBound::Necessary | LegalBound::Duty => false,
    };
    let statute = policy.statutes.iter().filter_map(|key| find(key)).find(too_short)?;
    Some(RetentionTooShort { policy: policy.id.clone(), retention: policy.retention, statute })
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

/// An industry with a usual set of statutes, for `init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Industry {
    /// Financial institutions.
    Finance,
    /// Platforms and shops.
    Ecommerce,
    /// Hospitals and practices.
    Medical,
    /// Consultancies: nothing but their own policies.
    Consulting,
}

impl Industry {
    /// The keys of the statutes that usually bind its customer records.
    #[must_use]
    pub fn statutes(self) -> &'static [&'static str] {
        match self {
            Self::Finance => &["cn.aml.kyc", "cn.aml.tx"],
            Self::Ecommerce => &["cn.ecl.31"],
            Self::Medical => &["cn.med.out", "cn.med.in"],
            Self::Consulting => &[],
        }
    }
}
