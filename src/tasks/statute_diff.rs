//! `statute diff`: what another set of rules comes to. Counts, in each store, how many rows are due by the old rules and by the new
//! ones. Writes nothing.
//!
//! The counts follow from start events alone: holds, and rows that stay because another refers to them, are not looked at.

use crate::erase::EraseError;
use crate::erase::survey::Shape;
use crate::installation::Installation;
use crate::plan::PlanBody;
use crate::plan::model::Collection;
use crate::policy::calendar::Period;
use crate::policy::statute::CatalogueVersion;
use crate::policy::statute::rules::{PolicyRule, StatuteChange, compare};
use crate::stores::{Filter, Snapshot, Threshold};

use super::{Result, TaskError};

/// The rules of the newest plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastPlan {
    /// Its hash.
    pub hash: String,
    /// The catalogue that counted then.
    pub catalogue: Option<CatalogueVersion>,
    /// The rules that decided.
    pub rules: Vec<PolicyRule>,
}

/// A policy whose rules differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDiff {
    /// Its id.
    pub policy: String,
    /// Its retention by the old rules; none for a policy that they do not have.
    pub from: Option<Period>,
    /// Its retention by the new rules; none for a policy that is gone.
    pub to: Option<Period>,
    /// The statutes that bind it differently.
    pub statutes: Vec<StatuteChange>,
    /// What that comes to.
    pub collections: Vec<CollectionDiff>,
}

/// Rows that are due by the old rules and by the new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionDiff {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// Rows due by the old rules.
    pub due_before: u64,
    /// Rows due by the new rules.
    pub due_after: u64,
}

impl CollectionDiff {
    /// Rows that were due and stay now.
    #[must_use]
    pub fn back_to_kept(&self) -> u64 {
        self.due_before.saturating_sub(self.due_after)
    }

    /// Rows that stayed and are due now.
    #[must_use]
    pub fn newly_due(&self) -> u64 {
        self.due_after.saturating_sub(self.due_before)
    }
}

/// What a set of rules comes to instead of another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RulesDiff {
    /// The policies that differ.
    pub policies: Vec<PolicyDiff>,
    /// Stores that could not be counted, with the reason.
    pub skipped: Vec<(String, String)>,
}

/// The rules of the newest retention plan made by now, if there is one that wrote them down.
///
/// # Errors
/// When the control database fails or the plan is damaged.
pub async fn last_plan(installation: &Installation) -> Result<Option<LastPlan>> {
    let newest = installation.control.read().await?.newest_plan("retention", installation.clock.now()).await?;
    let Some(row) = newest else { return Ok(None) };
    let body: PlanBody =
        serde_json::from_str(&row.body).map_err(|_| TaskError::Inconsistent(format!("plan {} is damaged", row.id)))?;
    let known = body.catalogue.is_some();
    Ok(known.then_some(LastPlan { hash: row.hash, catalogue: body.catalogue, rules: body.rules }))
}

/// Compares two sets of rules, and counts what the difference comes to in every store that can be reached.
///
/// # Errors
/// When a date cannot be computed.
pub async fn compare_rules(installation: &Installation, from: &[PolicyRule], to: &[PolicyRule]) -> Result<RulesDiff> {
    let ground = installation.ground()?;
    let mut diff = RulesDiff { policies: Vec::new(), skipped: ground.skipped.to_vec() };
    let new = |policy: &str| to.iter().find(|rule| rule.policy == policy);
    let old = |policy: &str| from.iter().find(|rule| rule.policy == policy);
    let gone = from.iter().filter(|rule| new(&rule.policy).is_none());
    for rule in to.iter().chain(gone) {
        let (from, to) = (old(&rule.policy), new(&rule.policy));
        if from != to {
            diff.policies.push(without_counts(&rule.policy, from, to));
        }
    }
    for site in ground.sites {
        match count(installation, site, &diff.policies, (&old, &new)).await {
            Ok(counted) => {
                for (policy, counts) in counted {
                    if let Some(found) = diff.policies.iter_mut().find(|found| found.policy == policy) {
                        found.collections.push(counts);
                    }
                }
            }
            Err(EraseError::Store(error)) => diff.skipped.push((site.model.spec.name.clone(), error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(diff)
}

fn without_counts(policy: &str, from: Option<&PolicyRule>, to: Option<&PolicyRule>) -> PolicyDiff {
    let statutes = |rule: Option<&PolicyRule>| rule.map_or_else(Vec::new, |rule| rule.statutes.clone());
    PolicyDiff {
        policy: policy.to_owned(),
        from: from.map(|rule| rule.retention),
        to: to.map(|rule| rule.retention),
        statutes: compare(&statutes(from), &statutes(to)),
        collections: Vec::new(),
    }
}

type Rules<'a> = &'a (dyn Fn(&str) -> Option<&'a PolicyRule> + Sync);

async fn count<'a>(
    installation: &Installation,
    site: &crate::erase::Site,
    differing: &[PolicyDiff],
    (old, new): (Rules<'a>, Rules<'a>),
) -> std::result::Result<Vec<(String, CollectionDiff)>, EraseError> {
    let mut counted = Vec::new();
    let mut view = site.store.open_snapshot().await?;
    let (cutoff, zone) = (installation.clock.now(), site.model.spec.timezone);
    for collection in &site.model.collections {
        let Some(governed) = &collection.governed else { continue };
        let id = &governed.policy.id;
        if !differing.iter().any(|policy| policy.policy == *id) {
            continue;
        }
        let mut due = [0, 0];
        for (rule, due) in [old(id), new(id)].into_iter().zip(&mut due) {
            if let Some(rule) = rule {
                let bound = rule.due_before(cutoff, zone)?;
                let threshold = Threshold { instant: bound.instant, local: bound.local };
                *due = rows_before(view.as_mut(), collection, threshold).await?;
            }
        }
        counted.push((
            id.clone(),
            CollectionDiff {
                store: site.model.spec.name.clone(),
                collection: collection.table.name.clone(),
                due_before: due[0],
                due_after: due[1],
            },
        ));
    }
    view.close().await?;
    Ok(counted)
}

async fn rows_before(
    view: &mut dyn Snapshot,
    collection: &Collection,
    threshold: Threshold,
) -> std::result::Result<u64, EraseError> {
    let Some(governed) = &collection.governed else { return Ok(0) };
    let filter = Filter::Before(governed.start.column.clone(), threshold);
    Ok(view.count(&Shape::of(collection).query(collection, filter)).await?)
}
