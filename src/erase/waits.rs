//! What a request waits for whose rows stay: the release of holds, the day on which the statutes that keep them end, or other
//! rules.
//!
//! Kept as JSON beside the request. It names hold ids, one date, the rules and keyed digests of rows, nothing of the person.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::batch::RunKeys;
use super::chunk::{ChunkItem, open_items, place_of};
use super::survey::start_kind;
use super::{EraseError, Ground};
use crate::control::ChunkRow;
use crate::plan::digest::row_mac;
use crate::plan::model::Governed;
use crate::policy::calendar::Period;
use crate::policy::start::{StartEvent, read_start};
use crate::policy::statute::{Earliest, bounds};

/// What a request waits for. Any of it is enough to look again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Holds that cover rows of it, by id, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// The first day on which a statute that keeps rows of it ends, or at once when rows changed under the run's hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Digest of the policies, statutes and registry by which they stay: under others they may go, or for other reasons stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Keyed digests of the rows that stay, hex, sorted: when the request goes on by itself it takes no others. The same person may
    /// have come back meanwhile, and nobody asked for that to be erased. None in what was stored before they were noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<String>>,
}

/// What is left of a request whose run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// What it waits for.
    pub waits: Waits,
    /// Rows that are not its business: they came after it.
    pub later: i64,
}

impl Waits {
    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty() && self.until.is_none()
    }

    /// Whether something of it has come, with these holds and rules in force now.
    #[must_use]
    pub fn is_over(&self, active: &[String], policy: &str, now: DateTime<Utc>) -> bool {
        self.until.is_some_and(|until| until <= now)
            || self.holds.iter().any(|hold| !active.contains(hold))
            || self.policy.as_ref().is_some_and(|known| known != policy)
    }

    /// The stored form.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn text(&self) -> Result<String, EraseError> {
        serde_json::to_string(self)
            .map_err(|_| EraseError::Inconsistent("what a request waits for cannot be written as JSON".to_owned()))
    }

    /// Reads what [`Waits::text`] wrote. What cannot be read waits for nothing, so that the request is looked at.
    #[must_use]
    pub fn of(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn by(&mut self, until: DateTime<Utc>) {
        self.until = Some(self.until.map_or(until, |known| known.min(until)));
    }
}

/// What the request of a run waits for, from the run's lists and what became of them. Rows that stay because a row of
/// somebody else needs them wait for nothing. `erased` are the digests of those that the run took.
///
/// # Errors
/// When a list does not open, or its store cannot be reached.
pub fn waits_of(
    ground: &Ground<'_>,
    plan: &str,
    (chunks, erased): (&[ChunkRow], &BTreeSet<[u8; 16]>),
    keys: &RunKeys,
    cutoff: DateTime<Utc>,
) -> Result<Rest, EraseError> {
    let (mut waits, mut rows, mut later) = (Waits::default(), Vec::new(), 0);
    for chunk in chunks {
        // They were to go, but changed or were put on hold meanwhile: the next plan will say what they wait for.
        if chunk.verdict != "keep" && chunk.counts.kept > 0 {
            waits.by(ground.clock.now());
        }
        let (site, collection) = place_of(ground, chunk)?;
        for item in open_items(&keys.plan, plan, chunk.number, &chunk.sealed)? {
            let is_kept = chunk.verdict == "keep";
            if is_kept && item.reason.as_deref() == Some("later") {
                later += 1;
                continue;
            }
            let mac = row_mac(&keys.suppression, &chunk.store, &chunk.collection, &item.row.key);
            if !erased.contains(&mac) {
                rows.push(hex::encode(mac));
            }
            if !is_kept {
                continue;
            }
            let reason = item.reason.as_deref().unwrap_or_default();
            if let Some(hold) = reason.strip_prefix("hold:") {
                waits.holds.push(hold.to_owned());
            } else if (reason.starts_with("statute:") || reason.starts_with("restricted:"))
                && let Some(governed) = &collection.governed
                && let Some(until) = end_of_statutes(governed, &item, site.model.spec.timezone, cutoff)?
            {
                waits.by(until);
            }
        }
    }
    waits.holds.sort_unstable();
    waits.holds.dedup();
    rows.sort_unstable();
    waits.rows = Some(rows);
    waits.policy = Some(ground.policy_digest.to_owned());
    Ok(Rest { waits, later })
}

/// When the last statute that binds a row ends; none when one never does, or the row's start event cannot be read.
fn end_of_statutes(
    governed: &Governed,
    item: &ChunkItem,
    zone: chrono_tz::Tz,
    cutoff: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, EraseError> {
    let start = item.row.start.as_ref().map(|value| read_start(value, start_kind(governed.start.kind), zone, cutoff));
    let Some(StartEvent::At(at)) = start else { return Ok(None) };
    Ok(match bounds(at, Period { months: 0, days: 0 }, &governed.statutes, zone)?.earliest {
        Earliest::At(end) => Some(end),
        Earliest::Never => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn any_of_what_is_waited_for_is_enough() {
        let holds = vec!["a".to_owned(), "b".to_owned()];
        let (policy, rows) = (Some("p".to_owned()), Some(vec!["00".to_owned()]));
        let waits = Waits { holds, until: Some(at(100)), policy, rows };
        let both = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert!(!waits.is_over(&both, "p", at(99)));
        assert!(waits.is_over(&both, "p", at(100)));
        assert!(waits.is_over(&both[1..], "p", at(0)));
        assert!(waits.is_over(&both, "q", at(0)));
        assert!(!Waits::default().is_over(&[], "p", at(1_000)), "what waits for nothing never comes back");
        assert_eq!(Waits::of(Some(&waits.text().unwrap())), waits);
        assert!(Waits::of(Some("{")).is_empty() && Waits::of(None).is_empty());
    }
}
