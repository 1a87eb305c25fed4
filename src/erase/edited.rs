//! Collections whose policy was edited since something was last erased there, as a plan of retention takes them into account.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::planner::subject_lookup;
use super::{EraseError, Ground, Site};
use crate::control::Tx;
use crate::keys::{Key, cell::pseudonym};
use crate::plan::canary::{Past, Standing, definition, hold_back, standing};
use crate::plan::decide::Candidate;
use crate::plan::model::{Collection, Governed};
use crate::plan::{Decision, PlanBody, Verdict};
use crate::policy::registry::Canary;
use crate::value::encode_values;

/// What today's policies say, and under what earlier runs did something.
pub(super) struct Editions {
    definitions: BTreeMap<String, String>,
    past: Vec<Past>,
}

impl Editions {
    /// Reads the runs of retention that count, newest first, as far back as it takes to know where each collection stands.
    pub(super) async fn read(tx: &mut Tx, ground: &Ground<'_>) -> Result<Self, EraseError> {
        let unreadable = |_| EraseError::Inconsistent("a policy or plan is not the JSON that it should be".to_owned());
        let mut definitions = BTreeMap::new();
        let mut open: BTreeMap<(String, String), (String, TimeDelta)> = BTreeMap::new();
        for (site, collection, governed) in governed(ground.sites) {
            let definition = definition(governed).map_err(unreadable)?;
            let wait = TimeDelta::hours(i64::from(governed.policy.canary.hours));
            open.insert(place(site, collection), (definition.clone(), wait));
            definitions.insert(governed.policy.id.clone(), definition);
        }
        let (now, mut past) = (ground.clock.now(), Vec::new());
        for (plan, ended_at) in tx.retained().await? {
            if open.is_empty() {
                break;
            }
            let Some(row) = tx.plan(&plan).await? else { continue };
            let body: PlanBody = serde_json::from_str(&row.body).map_err(unreadable)?;
            let wanted = body.collections.iter().filter(|counts| counts.to_do() > 0);
            let wanted: Vec<_> =
                wanted.map(|counts| (counts, (counts.store.clone(), counts.collection.clone()))).collect();
            if !wanted.iter().any(|(_, place)| open.contains_key(place)) {
                continue;
            }
            let worked = tx.worked_on(&plan).await?;
            let mut run = Past { ended_at, definitions: BTreeMap::new() };
            for (counts, place) in wanted.into_iter().filter(|(_, place)| worked.contains(place)) {
                let own = body.definitions.iter().find(|(policy, _)| Some(policy) == counts.policy.as_ref());
                let Some((_, own)) = own else { continue };
                let is_known = |(today, wait): &(String, TimeDelta)| own != today || ended_at + *wait <= now;
                if open.get(&place).is_some_and(is_known) {
                    open.remove(&place);
                }
                run.definitions.insert(place, own.clone());
            }
            past.push(run);
        }
        Ok(Self { definitions, past })
    }

    /// The definitions, for the plan.
    pub(super) fn definitions(&self) -> Vec<(String, String)> {
        self.definitions.clone().into_iter().collect()
    }

    /// Where each collection of a site stands that has a policy of its own; those that follow it count with it.
    fn standings(&self, site: &Site, now: DateTime<Utc>) -> BTreeMap<usize, (Standing, Canary)> {
        let mut standings: BTreeMap<usize, (Standing, Canary)> = BTreeMap::new();
        for collection in &site.model.collections {
            let Some(governed) = &collection.governed else { continue };
            // Groups of rows that are alike must be seen whole.
            let is_grouped = collection.anonymise.as_ref().is_some_and(|changes| !changes.quasi.is_empty());
            let definition = self.definitions.get(&governed.policy.id).filter(|_| !is_grouped);
            let Some(definition) = definition else { continue };
            let canary = governed.policy.canary;
            let own = standing((canary, definition), &place(site, collection), &self.past, now);
            let anchor = governed.follows.as_deref().unwrap_or(&collection.table.name);
            let Some((anchor, _)) = site.model.collection(anchor) else { continue };
            let known = standings.entry(anchor).or_insert((own, canary));
            known.0 = known.0.max(own);
        }
        standings
    }

    /// Lets rows of a site stay whose policy was edited, but for a first share of those that would go; whether any stays for that.
    pub(super) fn hold_back(
        &self,
        site: &Site,
        (candidates, decisions): (&mut [Candidate], &[Decision]),
        lookup: &Key,
        now: DateTime<Utc>,
    ) -> bool {
        // Another choice each day: what cannot go must not stand in the way for ever.
        let day = now.date_naive().to_string();
        let rank = |candidate: &Candidate| match &candidate.row.subject {
            Some(subject) => pseudonym(lookup, "first-share", &[day.as_bytes(), &subject_lookup(lookup, subject)]),
            None => pseudonym(lookup, "first-share", &[day.as_bytes(), &encode_values(&candidate.row.key.0)]),
        };
        // Collections of one policy that stand alike have one first share, so that customers go whole.
        let mut alike: BTreeMap<(&str, Standing), (Canary, BTreeSet<usize>)> = BTreeMap::new();
        for (index, (standing, canary)) in self.standings(site, now) {
            let governed = site.model.collections.get(index).and_then(|collection| collection.governed.as_ref());
            let Some(governed) = governed.filter(|_| standing != Standing::Established) else { continue };
            let group = alike.entry((governed.policy.id.as_str(), standing));
            group.or_insert((canary, BTreeSet::new())).1.insert(index);
        }
        if alike.is_empty() {
            return false;
        }
        let goes = |decision: &&Decision| !matches!(decision.verdict, Verdict::Keep(_) | Verdict::Settled);
        let going: HashSet<(usize, Vec<u8>)> = decisions
            .iter()
            .filter(goes)
            .map(|decision| (decision.collection, encode_values(&decision.row.key.0)))
            .collect();
        let mut is_any_held = false;
        for ((_, standing), (canary, own)) in alike {
            let is_own = |candidate: &Candidate| {
                own.contains(&candidate.collection)
                    && going.contains(&(candidate.collection, encode_values(&candidate.row.key.0)))
            };
            is_any_held |= hold_back(candidates, (canary, standing), is_own, rank);
        }
        is_any_held
    }

    /// Whether anything of a site may have to stay.
    pub(super) fn concern(&self, site: &Site, now: DateTime<Utc>) -> bool {
        self.standings(site, now).values().any(|(standing, _)| *standing != Standing::Established)
    }
}

fn place(site: &Site, collection: &Collection) -> (String, String) {
    (site.model.spec.name.clone(), collection.table.name.clone())
}

fn governed(sites: &[Site]) -> impl Iterator<Item = (&Site, &Collection, &Governed)> {
    let collections = sites.iter().flat_map(|site| site.model.collections.iter().map(move |found| (site, found)));
    collections.filter_map(|(site, found)| Some((site, found, found.governed.as_ref()?)))
}
