//! What decided: the part of policies and statutes that dates follow from, as a plan keeps it, and how two of these differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::check::loosens;
use super::{Catalogue, LegalBound, StartRule, Status, Statute, latest_due_start_by};
use crate::policy::calendar::{CalendarError, DueBound, Period};
use crate::policy::registry::Policy;

/// What of a statute dates follow from; words and sources are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatuteRule {
    /// Its key.
    pub key: String,
    /// What it demands.
    #[serde(flatten)]
    pub bound: LegalBound,
    /// From when it counts.
    pub counts_from: StartRule,
    /// How far it was confirmed, which decides whether a maximum binds.
    pub status: Status,
}

impl StatuteRule {
    /// Of an entry of the catalogue.
    #[must_use]
    pub fn of(statute: &Statute) -> Self {
        Self { key: statute.key.clone(), bound: statute.bound, counts_from: statute.start, status: statute.status }
    }
}

/// What of a policy, with its statutes, dates follow from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// The policy's id.
    pub policy: String,
    /// Its own retention.
    pub retention: Period,
    /// The statutes that bind its rows.
    pub statutes: Vec<StatuteRule>,
}

impl PolicyRule {
    /// Of a policy whose statutes are these.
    #[must_use]
    pub fn of(policy: &Policy, statutes: &[Arc<Statute>]) -> Self {
        let statutes = statutes.iter().map(|statute| StatuteRule::of(statute)).collect();
        Self { policy: policy.id.clone(), retention: policy.retention, statutes }
    }

    /// Of a policy under another catalogue; what that does not have does not bind.
    #[must_use]
    pub fn under(policy: &Policy, catalogue: &Catalogue) -> Self {
        let statutes: Vec<Arc<Statute>> =
            policy.statutes.iter().filter_map(|key| catalogue.find(key)).cloned().collect();
        Self::of(policy, &statutes)
    }

    /// The bound of the start events that may go at `cutoff` by this rule.
    ///
    /// # Errors
    /// [`CalendarError`] when `cutoff` lies outside the supported years.
    pub fn due_before(&self, cutoff: DateTime<Utc>, zone: Tz) -> Result<DueBound, CalendarError> {
        let demands = self.statutes.iter().map(|statute| (statute.bound, statute.counts_from));
        latest_due_start_by(cutoff, self.retention, demands, zone)
    }
}

/// How an entry, or the set of them, changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Records may go earlier than before, at least some.
    Looser,
    /// Records stay longer than before, at least some, and none goes earlier.
    Stricter,
    /// It changed in a way that moves no minimum: a maximum, or what was confirmed.
    Other,
}

/// A statute that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatuteChange {
    /// Its key.
    pub key: String,
    /// How.
    pub change: Change,
    /// What it said.
    pub from: Option<StatuteRule>,
    /// What it says.
    pub to: Option<StatuteRule>,
}

/// The differences between two sets of statutes, in the order of their keys.
#[must_use]
pub fn compare(from: &[StatuteRule], to: &[StatuteRule]) -> Vec<StatuteChange> {
    let by_key = |rules: &[StatuteRule]| -> BTreeMap<String, StatuteRule> {
        rules.iter().map(|rule| (rule.key.clone(), rule.clone())).collect()
    };
    let (from, to) = (by_key(from), by_key(to));
    let mut keys: Vec<&String> = from.keys().chain(to.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let changed = keys.into_iter().filter_map(|key| {
        let (old, new) = (from.get(key), to.get(key));
        let change = match (old, new) {
            (Some(old), Some(new)) if old == new => return None,
            (Some(old), Some(new)) if loosens(old, new) => Change::Looser,
            (Some(old), Some(new)) if loosens(new, old) => Change::Stricter,
            (Some(_), Some(_)) => Change::Other,
            (None, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
            (None, None) => return None,
        };
        Some(StatuteChange { key: key.clone(), change, from: old.cloned(), to: new.cloned() })
    });
    changed.collect()
}
