//! What a certificate says of copies: declared ones, replicas, snapshots. Pure.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};

use super::Facts;
use crate::certify::check::{MAX_BACKUP_COPIES, as_id, location};
use crate::certify::codes::{BackupState, CopyState};
use crate::certify::evidence::OTHERS;
use crate::certify::statement::{BackupCopy, Backups, DeclaredCopy, Target, Timestamp};
use crate::policy::calendar::Period;
use crate::policy::registry::StoreSpec;
use crate::tasks::erasure::StoreFiles;
use crate::tasks::media::GoneCopy;

impl Facts {
    /// The records of media with which copies of its stores ended, as its certificate names them.
    pub(in crate::tasks::certify) fn media(&self) -> Vec<String> {
        let stores: BTreeSet<&str> = self.plan.collections.iter().map(|counts| counts.store.as_str()).collect();
        let specs = stores.into_iter().filter_map(|store| self.spec(store));
        let copies = specs.flat_map(|spec| copies(spec, self.copied_until(&spec.name), &self.gone));
        let records: BTreeSet<String> = copies.filter_map(|copy| copy.media_record).collect();
        records.into_iter().collect()
    }
}

/// The replicas of a store: whether each showed what the store did behind the deletion. One that was declared as a copy as well is that.
pub(in crate::tasks::certify) fn replicas(spec: &StoreSpec, files: &[StoreFiles]) -> Vec<DeclaredCopy> {
    let own = files.iter().find(|files| files.store == spec.name);
    let has_shown = |name: &str| own.is_some_and(|files| files.replicas_shown.iter().any(|shown| shown == name));
    let is_copy = |name: &str| spec.copies.iter().any(|copy| copy.name == name);
    let replicas = spec.replicas.iter().filter(|replica| !is_copy(&replica.name));
    replicas
        .map(|replica| DeclaredCopy {
            copy_ref: as_id(&replica.name),
            state: if has_shown(&replica.name) { CopyState::Absent } else { CopyState::Unread },
            dies_by: None,
            destroyed_at: None,
            media_record: None,
        })
        .collect()
}

/// Declared copies: one that ended with its medium behind `from` is gone, one whose period is known dies by a date, any other has none;
/// nor has one that was lost before its date.
pub(in crate::tasks::certify) fn copies(spec: &StoreSpec, from: DateTime<Utc>, gone: &[GoneCopy]) -> Vec<DeclaredCopy> {
    let ended = |name: &str| {
        let own = gone.iter().filter(|copy| copy.name.store == spec.name && copy.name.copy == name);
        own.filter(|copy| !copy.is_lost && copy.at >= from).min_by_key(|copy| copy.at)
    };
    let lost_by = |name: &str, day: NaiveDate| {
        let mut own = gone.iter().filter(|copy| copy.name.store == spec.name && copy.name.copy == name);
        own.any(|copy| copy.is_lost && copy.at.date_naive() <= day)
    };
    spec.copies
        .iter()
        .map(|copy| {
            let copy_ref = as_id(&copy.name);
            if let Some(end) = ended(&copy.name) {
                let (destroyed_at, media_record) = (Some(Timestamp::from(end.at)), Some(end.record.clone()));
                let state = CopyState::Destroyed;
                return DeclaredCopy { copy_ref, state, dies_by: None, destroyed_at, media_record };
            }
            let dies_by = copy_end(from, &copy.dies).filter(|day| !lost_by(&copy.name, *day));
            let state = if dies_by.is_some() { CopyState::Expires } else { CopyState::Unread };
            DeclaredCopy { copy_ref, state, dies_by, destroyed_at: None, media_record: None }
        })
        .collect()
}

/// The day by which a declared copy is gone; none for `never`.
fn copy_end(from: DateTime<Utc>, dies: &str) -> Option<NaiveDate> {
    use crate::policy::calendar::{Bias, end_of_period};
    let period = Period::try_from(dies.to_owned()).ok()?;
    end_of_period(from, period, chrono_tz::Tz::UTC, Bias::Minimum).ok().map(|end| end.date_naive())
}

/// Declared copies, and where rows went, replicas.
pub(super) fn all_copies(facts: &Facts, spec: &StoreSpec, touched: bool) -> Vec<DeclaredCopy> {
    let mut all = copies(spec, facts.copied_until(&spec.name), &facts.gone);
    if touched && !facts.is_undone() {
        all.extend(replicas(spec, &facts.body.physical));
    }
    all
}

/// The newest snapshots in which the rows were sealed, with the weakest that is claimed of the backups of their store. A pruned one opens
/// no more for anybody.
pub(super) fn backup_copies(facts: &Facts, targets: &[Target]) -> Vec<BackupCopy> {
    let of_store = |store: &str| {
        let begin = location(store, "");
        // Targets that found no place of their own are one together.
        let is_own = |target: &&Target| target.location.starts_with(&begin) || target.location == OTHERS;
        targets
            .iter()
            .filter(is_own)
            .map(|target| &target.backups)
            .filter(|backups| backups.state != BackupState::None)
            .max_by_key(|backups| weakness(backups))
    };
    let snapshots = facts.snapshots.iter().rev().filter_map(|snapshot| {
        let backups = of_store(&snapshot.store)?;
        Some(BackupCopy {
            store: as_id(&snapshot.store),
            snapshot: as_id(&snapshot.id),
            kind: as_id(&snapshot.kind),
            state: backups.state,
            expires_by: backups.expires_by,
        })
    });
    let mut newest: Vec<BackupCopy> = snapshots.take(MAX_BACKUP_COPIES).collect();
    newest.reverse();
    newest
}

/// How little is claimed of backups; more is weaker.
pub(super) fn weakness(backups: &Backups) -> u8 {
    match backups.state {
        BackupState::None => 0,
        BackupState::Erased => 1,
        BackupState::ReplayedOnRestore => 2,
        BackupState::Expires => 3,
        BackupState::Chain => 4,
    }
}
