//! The first share behind an edit: of a policy that was edited, few rows go at first, and the rest only when somebody had time to
//! see what the edit did.
//!
//! What governs a collection counts as edited when the newest run that did something there did so under another definition,
//! whatever the policy is called. A run that is undone never counts, so an edit whose first share was taken back begins again. Where
//! no run did anything in a collection yet, its policy is new there, not edited: its first backlog is what the cap is for.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, TimeDelta, Utc};

use super::Reason;
use super::decide::{Candidate, End};
use super::model::Governed;
use crate::policy::calendar::{BucketWidth, Grace};
use crate::policy::registry::{Approval, Canary, Cap, Policy};
use crate::policy::statute::rules::StatuteRule;

/// What decides which rows a policy takes and what becomes of them, as SHA-256 in hex: the policy without what only says how it is carried out (grace,
/// buckets, cap, approval, this share), without its name and the list of its collections, and what its statutes demand.
///
/// # Errors
/// Never in practice: when the policy cannot be written as JSON.
pub fn definition(governed: &Governed) -> serde_json::Result<String> {
    let policy = Policy {
        id: String::new(),
        collections: Vec::new(),
        grace: Grace::default(),
        max: Cap::default(),
        approval: Approval::default(),
        canary: Canary::default(),
        bucket: BucketWidth::default(),
        basis: String::new(),
        statutes: Vec::new(),
        profile: None,
        records: None,
        ..governed.policy.clone()
    };
    let mut statutes: Vec<StatuteRule> = governed.statutes.iter().map(|statute| StatuteRule::of(statute)).collect();
    statutes.sort_by(|one, other| one.key.cmp(&other.key));
    let text = serde_json::to_vec(&(policy, statutes))?;
    Ok(hex::encode(digest(&SHA256, &text)))
}

/// A collection: store and table.
pub type Site = (String, String);

/// A run of retention that ended and was not undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// The definitions under which it did something, by collection.
    pub definitions: BTreeMap<Site, String>,
}

/// How far the rows of a collection may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// All of them: what governs it is new there, or what the newest edit did could be seen for long enough.
    Established,
    /// A first share of them.
    Edited,
    /// None before this time: the first share went.
    Tried {
        /// When the rest may go.
        until: DateTime<Utc>,
    },
}

/// Where a collection, governed like this, stands at `now`, by the runs before, newest first.
#[must_use]
pub fn standing((canary, definition): (Canary, &str), place: &Site, past: &[Past], now: DateTime<Utc>) -> Standing {
    if canary.percent >= 100 {
        return Standing::Established;
    }
    let mut own = past.iter().filter_map(|run| Some((run.ended_at, run.definitions.get(place)?)));
    let mut first = None;
    loop {
        match (own.next(), first) {
            (Some((ended_at, same)), _) if same == definition => first = Some(ended_at),
            (Some(_), None) => return Standing::Edited,
            (None, _) => return Standing::Established,
            (Some(_), Some(first)) => {
                let until = first + TimeDelta::hours(i64::from(canary.hours));
                return if now < until { Standing::Tried { until } } else { Standing::Established };
            }
        }
    }
}

/// Lets stay what may not go yet of rows in one store whose policy and standing are these, which `is_own` tells of those that would go; `rank` gives rows of one
/// customer one number, by which customers come in an order that nobody chose. Rows that follow others stay or go with those. Says whether any stays.
pub fn hold_back(
    candidates: &mut [Candidate],
    (canary, standing): (Canary, Standing),
    is_own: impl Fn(&Candidate) -> bool,
    rank: impl Fn(&Candidate) -> [u8; 32],
) -> bool {
    let until = match standing {
        Standing::Established => return false,
        Standing::Edited => None,
        Standing::Tried { until } => Some(until),
    };
    let mut customers: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
    let mut due = 0;
    for (at, candidate) in candidates.iter().enumerate() {
        if is_own(candidate) && candidate.keep.is_none() && candidate.end != End::Settled {
            customers.entry(rank(candidate)).or_default().push(at);
            due += 1_u64;
        }
    }
    let share = match standing {
        Standing::Tried { .. } => 0,
        _ => canary.rows.max(due.saturating_mul(u64::from(canary.percent)) / 100).max(1),
    };
    let (mut going, mut is_any_held) = (0, false);
    for rows in customers.into_values() {
        let own = rows.len() as u64;
        // One customer goes at least, even with more rows than the share has.
        if share > 0 && (going == 0 || going + own <= share) {
            going += own;
            continue;
        }
        for at in rows {
            candidates[at].keep = Some(Reason::Canary { until });
            is_any_held = true;
        }
    }
    is_any_held
}

#[cfg(test)]
mod tests;
