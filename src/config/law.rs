//! What the law has to do with the configuration: the installation's own catalogue, industry profiles, and whether a policy can be
//! obeyed together with the statutes that it names.
//!
//! A retention shorter than a statute's minimum is a warning, not a fault: the rows stay as long as the statute wants, and a
//! catalogue that lengthens a minimum must not stop an installation's backups. A retention longer than a confirmed maximum orders
//! what the law forbids, and is a fault.

use std::fs;
use std::path::Path;

use super::agent::Agent;
use super::diagnostic::{Fault, suggest};
use super::document::Document;
use super::section::Reading;
use super::{FILE_LIMIT, Place, Registry};
use crate::policy::classification::{FieldFinding, LEGAL_BASES, is_legal_basis, lint_fields};
use crate::policy::registry::Policy;
use crate::policy::statute::check::{contradiction, retention_too_long, retention_too_short};
use crate::policy::statute::{Catalogue, CatalogueError, CatalogueFile, LegalBound, Status};

/// The built-in catalogue with the entries of a file over it.
///
/// # Errors
/// What is wrong with the file, with its lines where they are known.
pub fn read_catalogue(path: &Path) -> Result<Catalogue, Vec<Fault>> {
    let of_file = |what: String| {
        vec![Fault::of_file(path, what).advice("correct the catalogue; `statutes` under [agent] names it")]
    };
    let size = fs::metadata(path).map_err(|error| of_file(format!("the catalogue cannot be read: {error}")))?.len();
    if size > FILE_LIMIT {
        return Err(of_file(format!("a catalogue has at most {FILE_LIMIT} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| of_file(format!("the catalogue cannot be read: {error}")))?;
    let file: CatalogueFile = Document::parse(path, &text)?.read()?;
    built_in().and_then(|catalogue| catalogue.with(file)).map_err(|error| of_file(error.to_string()))
}

fn built_in() -> Result<Catalogue, CatalogueError> {
    Catalogue::built_in()
}

/// The catalogue that counts, once the agent's own entries and profile are known to be good.
pub(super) fn check(agent: &Agent, reading: &mut Reading<'_>) -> Option<Catalogue> {
    let read = match &agent.statutes {
        Some(path) => read_catalogue(path),
        None => built_in().map_err(|error| vec![Fault::of_file(reading.document().file(), error.to_string())]),
    };
    let catalogue = read.map_err(|faults| reading.faults.extend(faults)).ok()?;
    if let Some(name) = &agent.profile {
        check_profile(&Place::of("agent").key("profile"), name, &catalogue, reading);
    }
    Some(catalogue)
}

fn check_profile(place: &Place, name: &str, catalogue: &Catalogue, reading: &mut Reading<'_>) {
    if catalogue.profile(name).is_none() {
        let known: Vec<&str> = catalogue.profiles.iter().map(|profile| profile.name.as_str()).collect();
        reading.fault(place, format!("the catalogue has no profile `{name}`"), suggest(name, &known));
    }
}

/// Adds to each policy the statutes that its profile names for its kind of records.
pub(super) fn apply_profiles(agent: &Agent, catalogue: &Catalogue, policies: &mut [Policy], reading: &mut Reading<'_>) {
    for (number, policy) in policies.iter_mut().enumerate() {
        let place = Place::of("policy").index(number);
        if let Some(name) = &policy.profile {
            check_profile(&place.key("profile"), name, catalogue, reading);
        }
        let Some(name) = policy.profile.as_ref().or(agent.profile.as_ref()) else {
            if policy.records.is_some() {
                let advice = "name a `profile` in the policy or under [agent], or take `records` out";
                reading.fault(&place.key("records"), "`records` needs an industry profile", advice);
            }
            continue;
        };
        let Some(profile) = catalogue.profile(name) else { continue };
        let Some(records) = &policy.records else {
            if policy.statutes.is_empty() {
                reading.warn(format!(
                    "policy {}: profile {name} counts, but the policy names neither `records` nor `statutes`, so no statute \
                     binds its rows",
                    policy.id
                ));
            }
            continue;
        };
        let Some(kind) = profile.kind(records) else {
            let known: Vec<&str> = profile.records.iter().map(|kind| kind.name.as_str()).collect();
            let what = format!("profile {name} has no kind of records `{records}`");
            reading.fault(&place.key("records"), what, suggest(records, &known));
            continue;
        };
        for key in &kind.statutes {
            if !policy.statutes.contains(key) {
                policy.statutes.push(key.clone());
            }
        }
    }
}

/// What the declared fields are kept for, and on what legal basis: findings that nobody but the company can answer.
pub(super) fn check_fields(registry: &Registry, reading: &mut Reading<'_>) {
    for store in &registry.stores {
        for finding in lint_fields(store, &registry.policies) {
            let FieldFinding { store, collection, field, what, remedy, .. } = finding;
            reading.warn(format!("store {store}, {collection}.{field}: {what}; {remedy}"));
        }
    }
}

/// A policy against the statutes that bind it, and its legal basis.
pub(super) fn check_policy(place: &Place, policy: &Policy, catalogue: &Catalogue, reading: &mut Reading<'_>) {
    if !policy.basis.trim().is_empty() && !is_legal_basis(&policy.basis) {
        let what = format!("`{}` is no legal basis", policy.basis);
        reading.fault(&place.key("basis"), what, suggest(&policy.basis, &LEGAL_BASES));
    }
    let mut statutes = Vec::new();
    for (number, key) in policy.statutes.iter().enumerate() {
        if let Some(statute) = catalogue.find(key) {
            statutes.push(statute.clone());
        } else {
            let what = format!("the catalogue has no statute `{key}`");
            reading.fault(&place.key("statutes").index(number), what, "see `wangchuan statute list`");
        }
    }
    if let Some(conflict) = retention_too_long(policy, &statutes) {
        reading.fault(&place.key("retention"), conflict.to_string(), "shorten `retention`, or correct `statutes`");
    }
    if let Some(conflict) = retention_too_short(policy, &statutes) {
        reading.warn(conflict.to_string());
    }
    if let Some(conflict) = contradiction(policy, &statutes) {
        reading.warn(conflict.to_string());
    }
    for statute in statutes {
        if matches!(statute.bound, LegalBound::Maximum(_)) && statute.status != Status::Confirmed {
            reading.warn(format!(
                "policy {}: statute {} is {}, so its maximum obliges nobody to erase",
                policy.id, statute.key, statute.status
            ));
        }
    }
}
