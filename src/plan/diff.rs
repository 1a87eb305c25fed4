//! What changed between two plans of the same kind, in counts, and what can have changed it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::PlanBody;

/// What changed between two plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanDiff {
    /// The cutoff of the earlier plan.
    pub since: DateTime<Utc>,
    /// Counts that differ.
    pub changes: Vec<CountChange>,
    /// What can have changed them, besides time and what others did to the rows.
    pub why: Vec<Cause>,
}

/// A count of a collection that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct CountChange {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// `rows` (all there are), `erase`, `anonymise`, `strip`, `unknown-start`, or the reason for which rows are kept.
    pub what: String,
    /// How many there were.
    pub before: u64,
    /// How many there are.
    pub now: u64,
}

/// Something other than time that decides what is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Cause {
    /// What it is.
    pub kind: CauseKind,
    /// The policy, hold or store; null for what has no name.
    pub name: Option<String>,
}

/// What can change what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// The retention or the statutes of this policy changed, or it is new or gone.
    Policy,
    /// Another catalogue of statutes counts.
    Catalogue,
    /// Something else of the policies or the registry changed.
    Registry,
    /// The schema of this store changed.
    Schema,
    /// This hold was placed.
    HoldPlaced,
    /// This hold was released.
    HoldReleased,
    /// This store can be read again, or is new.
    StoreBack,
    /// This store could not be read.
    StoreAway,
}

impl CauseKind {
    fn of(self, name: impl Into<String>) -> Cause {
        Cause { kind: self, name: Some(name.into()) }
    }
}

type Place = (String, String);

/// The counts of a plan, by collection and name.
fn counts_of(body: &PlanBody) -> BTreeMap<(Place, String), u64> {
    let mut counts = BTreeMap::new();
    for found in &body.collections {
        let place = (found.store.clone(), found.collection.clone());
        let own = [
            ("rows", found.total),
            ("erase", found.erase),
            ("anonymise", found.anonymise),
            ("strip", found.strip),
            ("unknown-start", found.unknown_start),
        ];
        let named = own.map(|(name, rows)| (name.to_owned(), rows)).into_iter().chain(found.keep.iter().cloned());
        counts.extend(named.map(|(name, rows)| ((place.clone(), name), rows)));
    }
    counts
}

/// What changed from `before` to `now`.
#[must_use]
pub fn diff(before: &PlanBody, now: &PlanBody) -> PlanDiff {
    let (old, new) = (counts_of(before), counts_of(now));
    // Of rows that were not all counted nobody knows whether they are more now.
    let all = || before.collections.iter().chain(&now.collections);
    let is_open = |store: &str, collection: &str| {
        all().any(|found| found.at_least && found.store == store && found.collection == collection)
    };
    let mut names: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    names.retain(|((store, collection), name)| name != "rows" || !is_open(store, collection));
    let mut changes = Vec::new();
    for name in names {
        let of = |counts: &BTreeMap<_, u64>| counts.get(&name).copied().unwrap_or(0);
        let (before, now) = (of(&old), of(&new));
        if before != now {
            let ((store, collection), what) = name;
            changes.push(CountChange { store, collection, what, before, now });
        }
    }
    PlanDiff { since: before.cutoff, changes, why: causes(before, now) }
}

fn causes(before: &PlanBody, now: &PlanBody) -> Vec<Cause> {
    let mut why = BTreeSet::new();
    let rules: BTreeSet<&String> = before.rules.iter().chain(&now.rules).map(|rule| &rule.policy).collect();
    let rule_in = |body: &PlanBody, id: &str| body.rules.iter().find(|rule| rule.policy == id).cloned();
    why.extend(
        rules.into_iter().filter(|id| rule_in(before, id) != rule_in(now, id)).map(|id| CauseKind::Policy.of(id)),
    );
    if before.catalogue != now.catalogue {
        why.insert(Cause { kind: CauseKind::Catalogue, name: None });
    }
    if before.policy_digest != now.policy_digest && why.is_empty() {
        why.insert(Cause { kind: CauseKind::Registry, name: None });
    }
    let only_in = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|id| !other.contains(id)).cloned().collect()
    };
    why.extend(only_in(&now.holds, &before.holds).into_iter().map(|id| CauseKind::HoldPlaced.of(id)));
    why.extend(only_in(&before.holds, &now.holds).into_iter().map(|id| CauseKind::HoldReleased.of(id)));
    let schema_in = |body: &PlanBody, store: &str| {
        body.schema_digest.iter().find(|(name, _)| name == store).map(|(_, digest)| digest.clone())
    };
    for (store, _) in before.schema_digest.iter().chain(&now.schema_digest) {
        match (schema_in(before, store), schema_in(now, store)) {
            (Some(old), Some(new)) if old != new => why.insert(CauseKind::Schema.of(store)),
            (None, Some(_)) => why.insert(CauseKind::StoreBack.of(store)),
            (Some(_), None) => why.insert(CauseKind::StoreAway.of(store)),
            _ => false,
        };
    }
    why.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{CollectionCounts, PlanKind};

    fn plan(erase: u64, keep: &[(&str, u64)], holds: &[&str], schema: &[(&str, &str)]) -> PlanBody {
        let counts = CollectionCounts {
            store: "shop".to_owned(),
            collection: "orders".to_owned(),
            total: 10,
            due: erase,
            erase,
            keep: keep.iter().map(|(reason, rows)| ((*reason).to_owned(), *rows)).collect(),
            ..CollectionCounts::default()
        };
        PlanBody {
            kind: PlanKind::Retention,
            cutoff: DateTime::UNIX_EPOCH,
            policy_digest: "d".to_owned(),
            catalogue: None,
            rules: Vec::new(),
            definitions: Vec::new(),
            schema_digest: schema.iter().map(|(store, digest)| ((*store).to_owned(), (*digest).to_owned())).collect(),
            holds: holds.iter().map(|hold| (*hold).to_owned()).collect(),
            salt: String::new(),
            rows_digest: String::new(),
            collections: vec![counts],
            subjects: 0,
            skipped: Vec::new(),
            unregistered: Vec::new(),
        }
    }

    #[test]
    fn what_came_and_went_is_told_with_what_can_have_caused_it() {
        let before = plan(3, &[("hold:a", 2)], &["a"], &[("shop", "1"), ("crm", "1")]);
        let now = plan(5, &[("hold:b", 1)], &["b"], &[("shop", "2"), ("mail", "1")]);
        let found = diff(&before, &now);
        let told: Vec<(&str, u64, u64)> =
            found.changes.iter().map(|change| (change.what.as_str(), change.before, change.now)).collect();
        assert_eq!(told, [("erase", 3, 5), ("hold:a", 2, 0), ("hold:b", 0, 1)]);
        let why = [
            CauseKind::Schema.of("shop"),
            CauseKind::HoldPlaced.of("b"),
            CauseKind::HoldReleased.of("a"),
            CauseKind::StoreBack.of("mail"),
            CauseKind::StoreAway.of("crm"),
        ];
        assert_eq!(found.why, why);
        let same = diff(&before, &before);
        assert!(same.changes.is_empty() && same.why.is_empty());
        let edited = PlanBody { policy_digest: "e".to_owned(), ..before.clone() };
        assert_eq!(diff(&before, &edited).why, [Cause { kind: CauseKind::Registry, name: None }]);
    }
}
