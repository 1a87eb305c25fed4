//! Policies that were edited since they last erased something, as a plan of retention takes them into account.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::planner::subject_lookup;
use super::{EraseError, Ground, Site};
use crate::control::Tx;
use crate::keys::{Key, cell::pseudonym};
use crate::plan::PlanBody;
use crate::plan::canary::{Past, Standing, definition, hold_back, standing};
use crate::plan::decide::Candidate;
use crate::plan::model::Governed;
use crate::policy::registry::Canary;
use crate::value::encode_values;

/// What today's policies say, and under what earlier runs did something.
pub(super) struct Editions {
    definitions: BTreeMap<String, String>,
    past: Vec<Past>,
}

impl Editions {
    /// Reads the runs of retention that count.
    pub(super) async fn read(tx: &mut Tx, ground: &Ground<'_>) -> Result<Self, EraseError> {
        let unreadable = |_| EraseError::Inconsistent("a policy or plan is not the JSON that it should be".to_owned());
        let mut definitions = BTreeMap::new();
        for governed in own_policies(ground.sites) {
            if !definitions.contains_key(&governed.policy.id) {
                definitions.insert(governed.policy.id.clone(), definition(governed).map_err(unreadable)?);
            }
        }
        let mut past = Vec::new();
        for (body, ended_at) in tx.retained().await? {
            past.push(Past::of(&serde_json::from_str::<PlanBody>(&body).map_err(unreadable)?, ended_at));
        }
        Ok(Self { definitions, past })
    }

    /// The definitions, for the plan.
    pub(super) fn definitions(&self) -> Vec<(String, String)> {
        self.definitions.clone().into_iter().collect()
    }

    /// Lets rows of a site stay whose policy was edited, but for the first share.
    pub(super) fn hold_back(&self, site: &Site, candidates: &mut [Candidate], lookup: &Key, now: DateTime<Utc>) {
        let rank = |candidate: &Candidate| match &candidate.row.subject {
            Some(subject) => subject_lookup(lookup, subject),
            None => pseudonym(lookup, "row", &[&encode_values(&candidate.row.key.0)]),
        };
        // Collections of one policy that stand alike share one first share, so that customers go whole.
        let mut alike: BTreeMap<(&str, Standing), (Canary, Vec<usize>)> = BTreeMap::new();
        for (index, collection) in site.model.collections.iter().enumerate() {
            let Some(governed) = collection.governed.as_ref().filter(|governed| governed.follows.is_none()) else {
                continue;
            };
            let (id, canary) = (governed.policy.id.as_str(), governed.policy.canary);
            let Some(definition) = self.definitions.get(id) else { continue };
            let place = (site.model.spec.name.clone(), collection.table.name.clone());
            let standing = standing((canary, definition), &place, &self.past, now);
            alike.entry((id, standing)).or_insert((canary, Vec::new())).1.push(index);
        }
        for ((_, standing), (canary, own)) in alike {
            hold_back(candidates, (canary, standing), |collection| own.contains(&collection), rank);
        }
    }
}

fn own_policies(sites: &[Site]) -> impl Iterator<Item = &Governed> {
    sites.iter().flat_map(|site| &site.model.collections).filter_map(|found| found.governed.as_ref())
}
