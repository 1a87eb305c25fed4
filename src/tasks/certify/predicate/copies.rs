//! What a certificate says of declared further copies. Pure.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};

use super::Facts;
use crate::certify::check::as_id;
use crate::certify::codes::CopyState;
use crate::certify::statement::{DeclaredCopy, Timestamp};
use crate::policy::calendar::Period;
use crate::policy::registry::StoreSpec;
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
