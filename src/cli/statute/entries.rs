//! The entries of the catalogue, as JSON.

use schemars::JsonSchema;
use serde::Serialize;

use crate::policy::mask;
use crate::policy::statute::clock::LegalClock;
use crate::policy::statute::{LegalBound, Profile, StartRule, Statute, cited};

/// What a statute demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Demand {
    /// Keep at least so long.
    Minimum,
    /// Keep for ever.
    Permanent,
    /// Keep at most so long.
    Maximum,
    /// Keep no longer than necessary.
    Necessary,
    /// A duty without a period.
    Duty,
}

/// An entry of the catalogue.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Entry {
    /// Its key, as policies name it.
    statute: String,
    /// ISO 3166 code of where it applies.
    jurisdiction: String,
    /// What it demands.
    demand: Demand,
    /// How long, in words; null without a period.
    period: Option<String>,
    /// What records it applies to.
    applies_to: String,
    /// The start event that the law means; the policy's start column must hold it.
    start_event: String,
    /// Whether it counts from the end of the start event's fiscal year.
    after_fiscal_year: bool,
    /// Law and article.
    source: String,
    /// How far the entry was confirmed: `confirmed`, `partly` or `unconfirmed`.
    status: String,
    /// Whether records go or stay because of it: a minimum always does, a maximum only when it is confirmed.
    binds: bool,
    /// What else is worth knowing.
    note: Option<String>,
}

impl Entry {
    pub(super) fn of(statute: &Statute) -> Self {
        let (demand, period) = match statute.bound {
            LegalBound::Minimum(period) => (Demand::Minimum, Some(period.to_string())),
            LegalBound::Permanent => (Demand::Permanent, None),
            LegalBound::Maximum(period) => (Demand::Maximum, Some(period.to_string())),
            LegalBound::Necessary => (Demand::Necessary, None),
            LegalBound::Duty => (Demand::Duty, None),
        };
        let is_minimum = matches!(demand, Demand::Minimum | Demand::Permanent);
        Self {
            statute: statute.key.clone(),
            jurisdiction: statute.jurisdiction.clone(),
            demand,
            period,
            applies_to: statute.applies_to.en.clone(),
            start_event: statute.start_event.en.clone(),
            after_fiscal_year: statute.start == StartRule::AfterFiscalYear,
            source: statute.source(),
            status: statute.status.to_string(),
            binds: is_minimum || statute.maximum().is_some(),
            note: statute.note.as_ref().map(|note| note.en.clone()),
        }
    }
}

/// A legal clock.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ClockEntry {
    /// Its key.
    clock: String,
    /// ISO 3166 code of where it applies.
    jurisdiction: String,
    /// What sets it off.
    applies_to: String,
    /// From when it counts.
    start_event: String,
    /// Law and article.
    source: String,
    /// How far the entry was confirmed.
    status: String,
    /// What is due by when.
    steps: Vec<StepEntry>,
}

/// A step of a clock.
#[derive(Debug, Serialize, JsonSchema)]
struct StepEntry {
    /// Within what time; null when the law names no number.
    within: Option<String>,
    /// How far this step was confirmed.
    status: String,
    /// What is due.
    what: String,
}

impl ClockEntry {
    pub(super) fn of(clock: &LegalClock) -> Self {
        let steps = clock.steps.iter().map(|step| StepEntry {
            within: step.within.map(|within| within.to_string()),
            status: step.status.to_string(),
            what: step.what.en.clone(),
        });
        Self {
            clock: clock.key.clone(),
            jurisdiction: clock.jurisdiction.clone(),
            applies_to: clock.applies_to.en.clone(),
            start_event: clock.start_event.en.clone(),
            source: cited(&clock.cites).en,
            status: clock.status.to_string(),
            steps: steps.collect(),
        }
    }
}

/// An industry profile.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ProfileEntry {
    /// Its name, as the configuration names it.
    profile: String,
    /// What it is for.
    title: String,
    /// How much is shown of values.
    masks: mask::Profile,
    /// What binds its kinds of records.
    records: Vec<RecordsEntry>,
}

/// A kind of record.
#[derive(Debug, Serialize, JsonSchema)]
struct RecordsEntry {
    /// Its name, as a policy names it.
    records: String,
    /// What it is.
    title: String,
    /// The statutes that bind it.
    statutes: Vec<String>,
}

impl ProfileEntry {
    pub(super) fn of(profile: &Profile) -> Self {
        let records = profile.records.iter().map(|kind| RecordsEntry {
            records: kind.name.clone(),
            title: kind.title.en.clone(),
            statutes: kind.statutes.clone(),
        });
        Self {
            profile: profile.name.clone(),
            title: profile.title.en.clone(),
            masks: profile.masks,
            records: records.collect(),
        }
    }
}
