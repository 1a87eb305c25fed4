//! Caps: the largest harm that one run may do. A plan beyond one is made and shown like any other; a run is made of it, or of
//! any part of it, only when two operators agree.

use super::Ground;
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
    /// Rows that would be erased, anonymised or stripped.
    pub rows: u64,
    /// All its rows.
    pub total: u64,
    /// Whether there are more than these.
    pub at_least: bool,
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
            "policy {} would erase {} of {}{} rows of {}.{}, beyond its cap of {} rows or {} %",
            self.policy,
            self.rows,
            if self.at_least { "at least " } else { "" },
            self.total,
            self.store,
            self.collection,
            self.max_rows,
            self.max_percent
        )
    }
}

/// The collections of which a plan takes more than allowed, by today's policies.
#[must_use]
pub fn over_caps(ground: &Ground<'_>, body: &PlanBody) -> Vec<OverCap> {
    let mut over = Vec::new();
    for counts in &body.collections {
        let site = ground.site(&counts.store);
        let collection = site.and_then(|site| site.model.collection(&counts.collection));
        let Some(governed) = collection.and_then(|(_, collection)| collection.governed.as_ref()) else { continue };
        let cap = governed.policy.max;
        let rows = counts.to_do();
        if rows > cap.rows || rows * 100 > u64::from(cap.percent) * counts.total {
            over.push(OverCap {
                policy: governed.policy.id.clone(),
                store: counts.store.clone(),
                collection: counts.collection.clone(),
                rows,
                total: counts.total,
                at_least: counts.at_least,
                max_rows: cap.rows,
                max_percent: cap.percent,
            });
        }
    }
    over
}
