//! Caps: the largest harm that one run may do. A plan beyond one is made and shown like any other; no run is made of it.

use super::{EraseError, Ground};
use crate::plan::PlanBody;

/// A collection of which a plan takes more than its policy allows in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverCap {
    /// The policy.
    pub policy: String,
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// Rows that would be erased or stripped.
    pub rows: u64,
    /// All its rows.
    pub total: u64,
    /// Rows that the policy allows.
    pub max_rows: u64,
    /// The share that it allows, in percent of all rows.
    pub max_percent: u8,
}

impl OverCap {
    /// What is wrong, as one sentence.
    #[must_use]
    pub fn what(&self) -> String {
        format!(
            "policy {} would erase {} of {} rows of {}.{}, beyond its cap of {} rows or {} %",
            self.policy, self.rows, self.total, self.store, self.collection, self.max_rows, self.max_percent
        )
    }
}

/// What to do about a plan beyond a cap.
pub const CAP_ADVICE: &str = "look at `wangchuan plan`; if it is right (a first backlog, say), raise `max` in the policy \
     for this run, plan again, and lower it afterwards";

/// The collections of which a plan takes more than allowed, by today's policies.
#[must_use]
pub fn over_caps(ground: &Ground<'_>, body: &PlanBody) -> Vec<OverCap> {
    let mut over = Vec::new();
    for counts in &body.collections {
        let site = ground.site(&counts.store);
        let collection = site.and_then(|site| site.model.collection(&counts.collection));
        let Some(governed) = collection.and_then(|(_, collection)| collection.governed.as_ref()) else { continue };
        let cap = governed.policy.max;
        let rows = counts.erase + counts.strip;
        if rows > cap.rows || rows * 100 > u64::from(cap.percent) * counts.total {
            over.push(OverCap {
                policy: governed.policy.id.clone(),
                store: counts.store.clone(),
                collection: counts.collection.clone(),
                rows,
                total: counts.total,
                max_rows: cap.rows,
                max_percent: cap.percent,
            });
        }
    }
    over
}

/// Refuses a plan beyond a cap as a whole: a run does what was planned, all of it or nothing.
///
/// # Errors
/// [`EraseError::Refused`].
pub fn check_caps(ground: &Ground<'_>, body: &PlanBody) -> Result<(), EraseError> {
    let over = over_caps(ground, body);
    if over.is_empty() {
        return Ok(());
    }
    let what: Vec<String> = over.iter().map(OverCap::what).collect();
    Err(EraseError::Refused { what: what.join("; "), advice: CAP_ADVICE.to_owned() })
}
