//! What keeps a shredded run from being final: from stored facts and from what its certificates said. Pure.

use std::collections::BTreeSet;

use super::is_unproven;
use super::predicate::Facts;
use super::predicate::copies::{copies, replicas};
use crate::certify::check::{as_id, location};
use crate::certify::codes::{CopyState, SlotClass};
use crate::certify::statement::Predicate;
use crate::tasks::finality::{CopyDates, DATABASE_LOG, Residual, ResidualCode};

/// Everything that is left of a shredded run, holds apart.
pub(super) fn residuals(facts: &Facts, earlier: &[Predicate]) -> Vec<Residual> {
    let mut found = slot_residuals(facts);
    found.extend(store_residuals(facts));
    found.extend(copy_dates(facts, earlier).residuals());
    // A date that an earlier certificate promised for copies of the key service stands, whatever is declared now.
    let promised = earlier.iter().filter_map(|predicate| predicate.root_slot.as_ref()?.reopenable_until).max();
    match found.iter_mut().find(|residual| residual.code == ResidualCode::ServiceCopies && residual.until.is_some()) {
        Some(service) => service.until = service.until.max(promised),
        None => found.extend(promised.map(|until| Residual::until(ResidualCode::ServiceCopies, None, until))),
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn slot_residuals(facts: &Facts) -> Vec<Residual> {
    let mut found = Vec::new();
    if is_unproven(&facts.run, facts.key_evidence.as_ref()) {
        found.push(Residual::undated(ResidualCode::Unproven, None));
    }
    if facts.body.forgotten.is_none() {
        found.push(Residual::undated(ResidualCode::OwnLists, None));
    }
    if let Some(at) = facts.lists_irrevocable_at {
        // Behind its date only the service's word that the root is gone ends it.
        let date = at.date_naive();
        found.push(if date < facts.now.date_naive() {
            Residual::undated(ResidualCode::OwnLists, None)
        } else {
            Residual::until(ResidualCode::OwnLists, None, date)
        });
    }
    if let Some(at) = facts.root_slot.irrevocable_at {
        // Until then the provider could have been told to keep the key.
        found.push(Residual::until(ResidualCode::ServiceCopies, None, at.instant().date_naive()));
    }
    match (facts.root_slot.class, facts.root_slot.reopenable_until) {
        (SlotClass::D, _) => found.push(Residual::undated(ResidualCode::HostCopies, None)),
        (_, Some(until)) => found.push(Residual::until(ResidualCode::ServiceCopies, None, until)),
        (SlotClass::B, None) => found.push(Residual::undated(ResidualCode::ServiceCopies, None)),
        (SlotClass::A | SlotClass::C, None) => {}
    }
    found
}

/// Stores that are not known any more, and those whose own files may still hold what was deleted.
fn store_residuals(facts: &Facts) -> Vec<Residual> {
    let touched: BTreeSet<&str> =
        facts.chunks.iter().filter(|chunk| chunk.counts.gone() > 0).map(|chunk| chunk.store.as_str()).collect();
    let planned: BTreeSet<&str> = facts.plan.collections.iter().map(|counts| counts.store.as_str()).collect();
    let mut found: Vec<Residual> = planned
        .into_iter()
        .filter(|store| facts.spec(store).is_none())
        .map(|store| Residual::undated(ResidualCode::Unregistered, Some(store)))
        .collect();
    for store in touched.into_iter().filter(|store| !facts.body.is_settled(store)) {
        let own = facts.body.physical.iter().find(|files| files.store == store);
        let residues = own.map_or(&[][..], |files| &files.residues);
        // What keeps rows in the files now, or nobody sees, may keep them beyond any date of logs and free pages.
        if own.is_none() || residues.iter().any(|residue| residue.code.keeps_rows()) {
            found.push(Residual::undated(ResidualCode::StoreFiles, Some(store)));
        }
        let is_dated = facts.spec(store).is_some_and(|spec| spec.copies.iter().any(|copy| copy.kind == DATABASE_LOG));
        if !is_dated {
            found.push(Residual::undated(ResidualCode::DatabaseLog, Some(store)));
        }
        // A day that the server tells of a log may be later than the one that was declared.
        let told =
            residues.iter().filter(|residue| is_dated && residue.code.is_log()).filter_map(|residue| residue.until);
        found.extend(told.map(|until| Residual::until(ResidualCode::DatabaseLog, Some(store), until)));
    }
    found
}

/// Copies of the stores of the plan: as they are declared, and as they were when earlier certificates were issued.
fn copy_dates(facts: &Facts, earlier: &[Predicate]) -> CopyDates {
    let mut dates = CopyDates::default();
    let stores: BTreeSet<&str> = facts.plan.collections.iter().map(|counts| counts.store.as_str()).collect();
    for spec in stores.into_iter().filter_map(|store| facts.spec(store)) {
        for copy in copies(spec, facts.copied_until(&spec.name), &facts.gone) {
            dates.declared(store_of(&location(&spec.name, "-")), &copy.copy_ref, copy.dies_by);
        }
    }
    for target in earlier.iter().flat_map(|predicate| &predicate.targets) {
        // What showed the deletion then shows it since.
        for copy in target.copies.iter().filter(|copy| copy.state != CopyState::Absent) {
            dates.certified(store_of(&target.location), &copy.copy_ref, copy.dies_by);
        }
    }
    // A replica that shows the deletion by now: an earlier certificate could not tell.
    for spec in &facts.stores {
        let shown = replicas(spec, &facts.body.physical).into_iter().filter(|copy| copy.state == CopyState::Absent);
        for copy in shown {
            dates.destroyed(store_of(&location(&spec.name, "-")), &copy.copy_ref);
        }
    }
    for gone in facts.gone.iter().filter(|gone| !gone.is_lost && gone.at >= facts.copied_until(&gone.name.store)) {
        dates.destroyed(store_of(&location(&gone.name.store, "-")), &as_id(&gone.name.copy));
    }
    dates
}

/// The store stands before the slash of a location. A location without one is of several stores, or of one with a long name.
fn store_of(location: &str) -> Option<&str> {
    location.split_once('/').map(|(store, _)| store)
}
