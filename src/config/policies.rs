//! `[[policy]]`, and what must fit between policies, stores and the rest of the file.

use std::collections::BTreeMap;

use super::backup::{Backup, Endpoint};
use super::section::Reading;
use super::{Place, law};
use crate::policy::anonymise::{Coarseness, Method, SMALLEST_GROUP};
use crate::policy::calendar::Period;
use crate::policy::registry::{Action, BackupMode, CollectionSpec, Policy, StoreSpec};
use crate::policy::statute::Catalogue;

/// The registered stores and policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// The stores, in the order of the file.
    pub stores: Vec<StoreSpec>,
    /// The policies, in the order of the file.
    pub policies: Vec<Policy>,
}

/// Why a collection's name means no single collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCollection {
    /// No store has it.
    #[error("no store has this collection")]
    Nowhere,
    /// Several stores have it.
    #[error("several stores have this collection")]
    Ambiguous,
}

impl Registry {
    /// The store with this name.
    pub fn store(&self, name: &str) -> Option<&StoreSpec> {
        self.stores.iter().find(|store| store.name == name)
    }

    /// What `table` or `store.table` means. A table's own name may contain a dot (`schema.table`), so the whole name is
    /// tried first.
    ///
    /// # Errors
    /// When it is none, or not one.
    pub fn collection(&self, name: &str) -> Result<(&StoreSpec, &CollectionSpec), UnknownCollection> {
        let with_table = |table: &str, store: &'_ StoreSpec| store.collections.iter().position(|c| c.table == table);
        let mut found = self.stores.iter().filter_map(|store| Some((store, with_table(name, store)?)));
        if let Some((store, at)) = found.next() {
            return if found.next().is_some() {
                Err(UnknownCollection::Ambiguous)
            } else {
                Ok((store, &store.collections[at]))
            };
        }
        let (store, table) = name.split_once('.').ok_or(UnknownCollection::Nowhere)?;
        let store = self.store(store).ok_or(UnknownCollection::Nowhere)?;
        let at = with_table(table, store).ok_or(UnknownCollection::Nowhere)?;
        Ok((store, &store.collections[at]))
    }
}

/// Checks everything that concerns more than one section.
pub(super) fn check(registry: &Registry, backup: Option<&Backup>, catalogue: &Catalogue, reading: &mut Reading<'_>) {
    check_store_names(registry, reading);
    check_backups(registry, backup, reading);
    law::check_fields(registry, reading);
    let mut governed: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for (number, policy) in registry.policies.iter().enumerate() {
        let place = Place::of("policy").index(number);
        reading.name(&place.key("id"), &policy.id);
        if ids.insert(&policy.id, number).is_some() {
            let what = format!("two policies are called `{}`", policy.id);
            reading.fault(&place.key("id"), what, "give each its own id");
        }
        law::check_policy(&place, policy, catalogue, reading);
        check_policy(&place, policy, reading);
        check_anonymise(&place, policy, registry, reading);
        if policy.retention == (Period { months: 0, days: 0 }) {
            reading.warn(format!(
                "policy {}: its retention is 0, so a row is due as soon as its start event is there; give a period if that is \
                 not meant",
                policy.id
            ));
        }
        check_collections(&place, policy, registry, &mut governed, reading);
    }
}

fn check_store_names(registry: &Registry, reading: &mut Reading<'_>) {
    for (number, store) in registry.stores.iter().enumerate() {
        if registry.stores[..number].iter().any(|earlier| earlier.name == store.name) {
            let what = format!("two stores are called `{}`", store.name);
            reading.fault(&Place::of("store").index(number).key("name"), what, "give each its own name");
        }
        if store.collections.is_empty() {
            reading
                .warn(format!("store {}: no collection is registered, so nothing of it is kept or erased", store.name));
        }
    }
}

fn check_backups(registry: &Registry, backup: Option<&Backup>, reading: &mut Reading<'_>) {
    for (number, store) in registry.stores.iter().enumerate() {
        let place = Place::of("store").index(number);
        match (store.backup, backup) {
            (BackupMode::Bucket, None) => {
                let what = format!("store `{}` is to be backed up, but there is no [backup]", store.name);
                let advice = "add [backup], or write `backup = \"none\"` if somebody else backs it up";
                reading.fault(&place.key("name"), what, advice);
            }
            (BackupMode::Bucket, Some(backup)) if store.site.is_some() && store.site == backup.site => {
                let site = store.site.as_deref().unwrap_or_default();
                reading.warn(format!("store {}: its backups stand at the same site, {site}: not off site", store.name));
            }
            (BackupMode::None, _) if store.copies.is_empty() => {
                reading.warn(format!(
                    "store {}: `backup = \"none\"` and no declared copy: whoever backs it up keeps records that no \
                     certificate mentions",
                    store.name
                ));
            }
            _ => {}
        }
    }
    match backup {
        Some(Backup { endpoint: Endpoint::Embedded { .. }, .. }) => {
            reading.warn("the embedded backup server stands on the agent's own host: not off site");
        }
        Some(Backup { site: None, .. }) => {
            reading.warn("[backup] has no `site`, so nobody can check that backups stand elsewhere than their stores");
        }
        _ => {}
    }
}

fn check_policy(place: &Place, policy: &Policy, reading: &mut Reading<'_>) {
    if policy.max.percent > 100 || policy.max.percent == 0 || policy.max.rows == 0 {
        let what = "a cap has at least 1 row and 1 to 100 percent";
        reading.fault(&place.key("max"), what, "correct `rows` and `percent`");
    }
    if policy.canary.percent > 100 || (policy.canary.percent == 0 && policy.canary.rows == 0) {
        let what = "the first share behind an edit is at least 1 row or 1 percent, and at most 100 percent";
        reading.fault(&place.key("canary"), what, "correct `rows` and `percent`");
    }
    for (key, value) in [("start", &policy.start), ("basis", &policy.basis)] {
        if value.trim().is_empty() {
            reading.fault(&place.key(key), format!("`{key}` is empty"), "write it");
        }
    }
}

/// What can be said of an anonymising policy without its tables.
fn check_anonymise(place: &Place, policy: &Policy, registry: &Registry, reading: &mut Reading<'_>) {
    if policy.action != Action::Anonymise {
        if !policy.anonymise.is_empty() || !policy.quasi.is_empty() {
            let what = "`anonymise` and `quasi` mean nothing while the rows are deleted";
            reading.fault(&place.key("action"), what, "write `action = \"anonymise\"`, or take them out");
        }
        return;
    }
    if policy.k < SMALLEST_GROUP {
        let what = format!("groups of {} do not hide anybody; at least {SMALLEST_GROUP} rows must be alike", policy.k);
        reading.fault(&place.key("k"), what, format!("write {SMALLEST_GROUP} or more"));
    }
    for (field, method) in &policy.anonymise {
        if matches!(method, Method::Generalise(Coarseness::Step(0 | 1))) {
            let what = format!("a number rounded down to a multiple of 1 is no coarser: `{field}`");
            reading.fault(&place.key("anonymise").key(field), what, "write 2 or more");
        }
    }
    for name in &policy.collections {
        let Ok((store, collection)) = registry.collection(name) else { continue };
        let has_rule =
            |field: &String| policy.anonymise.contains_key(field) || collection.subject.as_ref() == Some(field);
        let personal = collection.fields.iter().filter(|(field, spec)| spec.kind.is_personal() && !has_rule(field));
        let missing: Vec<&str> = personal.map(|(field, _)| field.as_str()).collect();
        if !missing.is_empty() && collection.via.is_empty() {
            let what = format!(
                "`anonymise` says nothing of fields of `{}.{}` that are about a person: {}",
                store.name,
                collection.table,
                missing.join(", ")
            );
            let advice = "give each a rule: \"null\", \"mask\", \"surrogate\", { fixed = \"…\" } or { generalise = … }";
            reading.fault(&place.key("anonymise"), what, advice);
        }
    }
}

fn check_collections<'r>(
    place: &Place,
    policy: &'r Policy,
    registry: &'r Registry,
    governed: &mut BTreeMap<(&'r str, &'r str), &'r str>,
    reading: &mut Reading<'_>,
) {
    if policy.collections.is_empty() {
        reading.fault(&place.key("collections"), "the policy governs no collection", "name at least one");
    }
    for (number, name) in policy.collections.iter().enumerate() {
        let place = place.key("collections").index(number);
        match registry.collection(name) {
            Ok((store, collection)) => {
                let earlier = governed.insert((&store.name, &collection.table), &policy.id);
                if let Some(earlier) = earlier {
                    let what = format!(
                        "`{}.{}` is governed by `{earlier}` already; one policy decides about a row",
                        store.name, collection.table
                    );
                    reading.fault(&place, what, "take it out of one of the two");
                }
            }
            Err(UnknownCollection::Ambiguous) => {
                let what = format!("several stores have a collection `{name}`");
                reading.fault(&place, what, format!("write `STORE.{name}`"));
            }
            Err(UnknownCollection::Nowhere) => {
                let known: Vec<&str> = registry
                    .stores
                    .iter()
                    .flat_map(|store| store.collections.iter().map(|collection| collection.table.as_str()))
                    .collect();
                let advice = super::diagnostic::suggest(name, &known);
                reading.fault(&place, format!("no store has a collection `{name}`"), advice);
            }
        }
    }
}
