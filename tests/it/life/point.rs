//! What a snapshot must give back: the model of one restorable point.
//!
//! A version that an erasure took since never comes back. Until a key dies, everything else comes back exactly. Afterwards what shared
//! a cell with an erased row may be missing, and is counted; the rows of whoever no erasure touched, as long as they stayed what
//! they were, come back exactly all the same. A stub stands where a row that came back refers to one that did not, and tells nothing.

use std::collections::{BTreeMap, BTreeSet};

use wangchuan::control::SnapshotRow;
use wangchuan::tasks::restore::{RestoreReport, RestoredCollection};

use super::shop::{Name, Rows, identity, owner, parent, telling};

/// A snapshot with what the shop was.
pub struct Point {
    pub row: SnapshotRow,
    pub rows: Rows,
    /// What erasures took since.
    pub erased: BTreeSet<Name>,
    /// Rows that are still what they were, wherever that is decided.
    pub steady: BTreeSet<Name>,
    /// Whether keys died since.
    pub after_shred: bool,
}

/// What every point is judged by.
#[derive(Default)]
pub struct Known {
    /// Customers of whom an erasure ever took a row.
    pub touched: BTreeSet<String>,
    /// Customers who are erased entirely, with destroyed keys, and did not return.
    pub gone: BTreeSet<String>,
    /// Everything telling that ever stood under a key.
    pub told: BTreeMap<Name, BTreeSet<String>>,
}

impl Point {
    pub fn new(row: SnapshotRow, rows: Rows) -> Self {
        let steady = rows.keys().cloned().collect();
        Self { row, rows, erased: BTreeSet::new(), steady, after_shred: false }
    }

    /// Notes what became of its rows.
    pub fn observe(&mut self, now: &Rows) {
        let Self { rows, steady, .. } = self;
        steady.retain(|name| identity(rows, name) == trimmed(now, rows, name));
    }

    /// Compares what was restored with the model. Returns how many rows came back, and how many stubs.
    pub fn check(&self, known: &Known, report: &RestoreReport, found: &Rows, what: &str) -> (usize, usize) {
        assert!(report.is_whole(), "{what}: {report:?}");
        let sum = |of: fn(&RestoredCollection) -> u64| report.collections.iter().map(of).sum::<u64>();
        let mut expected = self.rows.clone();
        expected.retain(|name, _| !self.erased.contains(name));
        let (back, others): (BTreeSet<&Name>, BTreeSet<&Name>) =
            found.keys().partition(|name| expected.get(*name) == found.get(*name));
        let missing: Vec<&Name> = expected.keys().filter(|name| !back.contains(name)).collect();
        if self.after_shred {
            assert!(missing.len() as u64 <= sum(|counts| counts.shredded), "{what}: {missing:?} {report:?}");
        } else {
            assert!(missing.is_empty(), "{what}: {missing:?} are missing, {report:?}");
        }
        for name in missing {
            let of = owner(&self.rows, name).unwrap_or_default();
            let must_be_there = self.steady.contains(name) && !known.touched.contains(&of);
            assert!(!must_be_there, "{what}: {name:?} of somebody whom no erasure touched is missing, {report:?}");
        }
        for name in &others {
            let row = &found[*name];
            let is_needed = found.iter().any(|(child, row)| parent(child, row).as_ref() == Some(*name));
            assert!(is_needed, "{what}: {name:?} came back as {row:?}, and nothing refers to it");
            let told =
                known.told.get(*name).into_iter().flatten().find(|value| row.iter().skip(1).any(|own| own == *value));
            assert_eq!(told, None, "{what}: the stub of {name:?} tells something");
        }
        assert_eq!(others.len() as u64, sum(|counts| counts.stubs), "{what}: {others:?} {report:?}");
        assert_eq!(back.len() as u64, sum(|counts| counts.restored), "{what}: {report:?}");
        let opened = back.iter().find(|name| owner(found, name).is_some_and(|of| known.gone.contains(&of)));
        assert_eq!(opened, None, "{what}: a row of an erased customer opened");
        (back.len(), others.len())
    }

    /// Notes what an erasure took: every row that is not what it was.
    pub fn erase(&mut self, changed: &[Name]) {
        self.erased.extend(changed.iter().cloned());
    }
}

/// A row's identity today, without columns that came later.
fn trimmed(now: &Rows, before: &Rows, name: &Name) -> Option<Vec<String>> {
    let (own, was) = (now.get(name)?, before.get(name)?);
    let mut today = identity(now, name)?;
    if own.len() > was.len() {
        today.drain(was.len()..own.len());
    }
    Some(today)
}

/// Adds what rows tell.
pub fn remember(told: &mut BTreeMap<Name, BTreeSet<String>>, rows: &Rows) {
    for (name, row) in rows {
        told.entry(name.clone()).or_default().extend(telling(row));
    }
}
