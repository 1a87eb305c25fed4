//! A part of the objects for one verification: those that were not read back for longest, until enough bytes came together. Runs of the
//! same percentage read everything in turn.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::{Listed, Verification};
use crate::backup::object_store::{ObjectStore, RepositoryError};

/// When objects were last read back and good, by name.
pub type ReadBack = HashMap<String, DateTime<Utc>>;

/// How much to read.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'s> {
    /// Of the bytes, 1 to 100.
    pub percent: u8,
    /// What was read before.
    pub read_back: &'s ReadBack,
}

impl Sample<'_> {
    /// In how many runs everything is read, if nothing is added meanwhile.
    #[must_use]
    pub fn runs(percent: u8) -> u32 {
        100_u32.div_ceil(u32::from(percent.clamp(1, 100)))
    }

    /// Those never read come first, then those read longest ago; of equals, by name. As many as it takes to reach the share of bytes.
    pub(super) fn choose(&self, mut objects: Vec<(String, Listed)>) -> Vec<(String, Listed)> {
        let total: u128 = objects.iter().map(|(_, object)| u128::from(object.bytes())).sum();
        let wanted = (total * u128::from(self.percent.clamp(1, 100))).div_ceil(100);
        objects.sort_by(|(one, _), (other, _)| (self.read_back.get(one), one).cmp(&(self.read_back.get(other), other)));
        let mut bytes = 0;
        let enough = objects.iter().position(|(_, object)| {
            bytes += u128::from(object.bytes());
            bytes >= wanted
        });
        objects.truncate(enough.map_or(objects.len(), |last| last + 1));
        objects
    }
}

/// Looks for all objects by the listing alone: that they are there, with the length that their manifest says.
pub(super) async fn look_for(
    repository: &dyn ObjectStore,
    report: &mut Verification,
    objects: &[(String, Listed)],
) -> Result<(), RepositoryError> {
    let mut there = BTreeMap::new();
    for prefix in ["packs/", "directories/"] {
        there.extend(repository.list(prefix).await?.into_iter().map(|listed| (listed.name, listed.bytes)));
    }
    for (name, object) in objects {
        match there.get(name) {
            None => report.problem(name, "it is missing"),
            Some(bytes) if *bytes != object.bytes() => {
                report.problem(name, "it has another length than its manifest says");
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::codec::Sha256;
    use crate::backup::manifest::PackRef;

    fn objects(sizes: &[u64]) -> Vec<(String, Listed)> {
        let object = |(number, bytes): (usize, &u64)| {
            let pack = PackRef { sha256: Sha256([number as u8; 32]), bytes: *bytes, frames: 1 };
            (format!("packs/{number:02}"), Listed::Pack(pack))
        };
        sizes.iter().enumerate().map(object).collect()
    }

    /// Runs until everything was read; how many it took.
    fn runs_until_all(sizes: &[u64], percent: u8) -> u32 {
        let mut read_back = ReadBack::new();
        for run in 1..=200 {
            let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(i64::from(run));
            for (name, _) in (Sample { percent, read_back: &read_back }).choose(objects(sizes)) {
                read_back.insert(name, now);
            }
            if read_back.len() == sizes.len() {
                return run;
            }
        }
        0
    }

    #[test]
    fn everything_is_read_in_as_many_runs_as_are_promised() {
        let mut sizes: Vec<u64> = (0..97).map(|n| (n * 7919) % 1000 + 1).collect();
        sizes.push(40_000);
        for percent in 1..=100 {
            let (taken, promised) = (runs_until_all(&sizes, percent), Sample::runs(percent));
            assert!(taken >= 1 && taken <= promised, "{percent} %: {taken} runs, {promised} promised");
        }
        assert_eq!(Sample::runs(100), 1);
        assert_eq!(Sample::runs(30), 4);
    }

    #[test]
    fn what_was_never_read_comes_first_and_then_the_oldest_reading() {
        let at = |day| DateTime::UNIX_EPOCH + chrono::TimeDelta::days(day);
        let read_back = ReadBack::from([("packs/00".to_owned(), at(3)), ("packs/02".to_owned(), at(1))]);
        let chosen = |percent| {
            let chosen = Sample { percent, read_back: &read_back }.choose(objects(&[10, 10, 10, 10]));
            chosen.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(chosen(25), ["packs/01"]);
        assert_eq!(chosen(26), ["packs/01", "packs/03"]);
        assert_eq!(chosen(75), ["packs/01", "packs/03", "packs/02"]);
        assert_eq!(chosen(100).len(), 4);
        assert!(Sample { percent: 1, read_back: &read_back }.choose(Vec::new()).is_empty());
    }
}
