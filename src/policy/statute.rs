//! Statutes: how long the law wants records kept, and how long at most, combined with a policy's own retention.
//!
//! The rule (ISO/IEC 27555 with PIPL 47): a record may go from the latest of all minima, the policy's retention among them;
//! it must be gone by the earliest of all maxima; where these contradict each other it is restricted, not erased. Minima bind
//! whatever the status of their entry; only confirmed maxima do. So an error in the catalogue keeps data, never destroys it.
//!
//! The catalogue is data: `config/statutes.toml`, and an installation's own entries over it ([`Catalogue`]). None of it is legal
//! advice, and each entry says how far it was confirmed. [`check`] compares a policy with its statutes, [`rules`] writes down
//! what decided, [`clock`] holds the legal clocks.

mod catalogue;
pub mod check;
pub mod clock;
pub mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::calendar::{
    Bias, BucketPeriod, CalendarError, DueBound, Period, add_period, bound_after, bucket_end, end_of_period,
    latest_begun_day, latest_day, latest_due_start, local_day, resolve_local,
};

pub use catalogue::{
    BUILT_IN, Catalogue, CatalogueError, CatalogueFile, CatalogueVersion, Profile, RecordKind, UnknownStatute,
};

/// A text in both languages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bilingual {
    /// English.
    pub en: String,
    /// Chinese.
    pub zh: String,
}

/// A law, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Citation {
    /// The law's name in English.
    pub en: String,
    /// The law's name in Chinese.
    pub zh: String,
    /// The article, as it is numbered: `31`, `21(3)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub article: Option<String>,
}

/// Laws and articles in both languages, as they are cited: `E-commerce Law 31`.
#[must_use]
pub fn cited(citations: &[Citation]) -> Bilingual {
    let joined = |name: fn(&Citation) -> &str, between: &str| {
        let each = citations.iter().map(|citation| match &citation.article {
            Some(article) => format!("{} {article}", name(citation)),
            None => name(citation).to_owned(),
        });
        each.collect::<Vec<_>>().join(between)
    };
    Bilingual { en: joined(|citation| &citation.en, "; "), zh: joined(|citation| &citation.zh, "；") }
}

/// An entry of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statute {
    /// Its key, as policies name it: `cn.ecl.31`.
    pub key: String,
    /// ISO 3166 code of where it applies: `CN`, `EU`, `US-CA`.
    pub jurisdiction: String,
    /// What records it applies to.
    pub applies_to: Bilingual,
    /// What it demands.
    pub bound: LegalBound,
    /// From when it counts, relative to the record's start event.
    pub start: StartRule,
    /// The start event the law means; the policy's start column must hold it.
    pub start_event: Bilingual,
    /// Law and article.
    pub cites: Vec<Citation>,
    /// How far the entry was confirmed.
    pub status: Status,
    /// What else is worth knowing.
    pub note: Option<Bilingual>,
}

impl Statute {
    /// Law and article in English, for errors and certificates.
    #[must_use]
    pub fn source(&self) -> String {
        cited(&self.cites).en
    }

    /// Whether its maximum obliges to erase: only a confirmed one does.
    #[must_use]
    pub fn maximum(&self) -> Option<Period> {
        match self.bound {
            LegalBound::Maximum(period) if self.status == Status::Confirmed => Some(period),
            _ => None,
        }
    }
}

/// What a statute demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "bound", content = "period")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartRule {
    /// From the start event itself.
    #[default]
    Event,
    /// From the first day after the fiscal year of the start event. In China that is the calendar year (Accounting Law 11).
    AfterFiscalYear,
}

/// How far an entry was confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
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

/// When a record may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Earliest {
    /// From this instant on.
    At(DateTime<Utc>),
    /// Not ever.
    Never,
}

/// Whose minimum decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecidedBy {
    /// The policy's own retention.
    Policy,
    /// A statute.
    Statute(Arc<Statute>),
}

/// The span in which a record may and must go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// From when it may go.
    pub earliest: Earliest,
    /// Whose minimum that is. The policy's, when a statute ends on the same day.
    pub decided_by: DecidedBy,
    /// By when it must be gone, and by which statute.
    pub latest: Option<(DateTime<Utc>, Arc<Statute>)>,
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
        self.latest.as_ref().is_some_and(|(latest, _)| self.earliest > Earliest::At(*latest))
    }

    /// What follows at `now`.
    #[must_use]
    pub fn verdict(&self, now: DateTime<Utc>) -> Verdict {
        if self.earliest > Earliest::At(now) {
            return if self.conflict() { Verdict::Restrict } else { Verdict::Keep };
        }
        match &self.latest {
            Some((latest, _)) if now > *latest => Verdict::MustErase,
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
    statutes: &[Arc<Statute>],
    zone: Tz,
) -> Result<Bounds, CalendarError> {
    let own = Earliest::At(end_of_period(start, retention, zone, Bias::Minimum)?);
    let mut bounds = Bounds { earliest: own, decided_by: DecidedBy::Policy, latest: None };
    for statute in statutes {
        match limit(start, statute, zone)? {
            Some(Limit::Minimum(minimum)) if minimum > bounds.earliest => {
                bounds.earliest = minimum;
                bounds.decided_by = DecidedBy::Statute(statute.clone());
            }
            Some(Limit::Maximum(maximum))
                if statute.maximum().is_some()
                    && bounds.latest.as_ref().is_none_or(|(latest, _)| maximum < *latest) =>
            {
                bounds.latest = Some((maximum, statute.clone()));
            }
            _ => {}
        }
    }
    Ok(bounds)
}

/// The date that a statute sets for a record, whether or not it binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Not to go before this.
    Minimum(Earliest),
    /// To be gone by this; it binds only if the entry is confirmed.
    Maximum(DateTime<Utc>),
}

/// The date that a statute sets for a record with this start event; none when it has no period.
///
/// # Errors
/// [`CalendarError`] when the date cannot be computed.
pub fn limit(start: DateTime<Utc>, statute: &Statute, zone: Tz) -> Result<Option<Limit>, CalendarError> {
    Ok(match statute.bound {
        LegalBound::Minimum(period) => {
            Some(Limit::Minimum(Earliest::At(end(start, period, statute.start, zone, Bias::Minimum)?)))
        }
        LegalBound::Permanent => Some(Limit::Minimum(Earliest::Never)),
        LegalBound::Maximum(period) => Some(Limit::Maximum(end(start, period, statute.start, zone, Bias::Maximum)?)),
        LegalBound::Necessary | LegalBound::Duty => None,
    })
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

/// The bound of the start events that may go at `cutoff`, by the policy's retention and by what every statute demands.
///
/// For every supported start: `bounds(start, …)?.earliest <= Earliest::At(cutoff)` if and only if it is before the bound.
fn latest_due_start_by(
    cutoff: DateTime<Utc>,
    retention: Period,
    demands: impl Iterator<Item = (LegalBound, StartRule)>,
    zone: Tz,
) -> Result<DueBound, CalendarError> {
    let mut bound = latest_due_start(cutoff, retention, zone)?;
    for demand in demands {
        let own = match demand {
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
    statutes: &[Arc<Statute>],
    zone: Tz,
) -> Result<Earliest, CalendarError> {
    let Some(end) = bucket_end(bucket, zone)? else { return Ok(Earliest::Never) };
    let last = end - chrono::TimeDelta::nanoseconds(1);
    Ok(bounds(last, retention, statutes, zone)?.earliest.max(Earliest::At(end)))
}
