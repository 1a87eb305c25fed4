//! Which snapshots a drill takes when none is named: the newest, the oldest that is kept, and one between them by chance.

use serde::{Deserialize, Serialize};

use crate::control::SnapshotRow;

/// Why a snapshot is drilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Picked {
    /// It is the newest of its store.
    Latest,
    /// By chance, of those between the newest and the oldest.
    Random,
    /// It is the oldest that is kept.
    Oldest,
    /// Somebody named it.
    Named,
}

impl Picked {
    /// Its code, as records have it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Random => "random",
            Self::Oldest => "oldest",
            Self::Named => "named",
        }
    }
}

/// How chance chose: `seed` modulo `among` is the place, counted from the oldest candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// 64 random bits, hex.
    pub seed: String,
    /// Of how many snapshots.
    pub among: u64,
}

/// A snapshot to drill with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// The snapshot.
    pub snapshot: SnapshotRow,
    /// Why.
    pub picked: Picked,
    /// How chance chose it, if it did.
    pub drawn: Option<Drawn>,
}

/// Picks of the kept snapshots of one store, oldest first: the newest, then one of those between by the seed, then the oldest; fewer
/// where there are fewer.
#[must_use]
pub fn picks(rows: &[SnapshotRow], seed: u64) -> Vec<Pick> {
    let mut picks = Vec::new();
    let pick = |snapshot: &SnapshotRow, picked, drawn| Pick { snapshot: snapshot.clone(), picked, drawn };
    let [older @ .., newest] = rows else { return picks };
    picks.push(pick(newest, Picked::Latest, None));
    let [oldest, between @ ..] = older else { return picks };
    let among = between.len() as u64;
    if let Some(drawn) = seed.checked_rem(among).and_then(|place| between.get(usize::try_from(place).ok()?)) {
        picks.push(pick(drawn, Picked::Random, Some(Drawn { seed: format!("{seed:016x}"), among })));
    }
    picks.push(pick(oldest, Picked::Oldest, None));
    picks
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn rows(count: i64) -> Vec<SnapshotRow> {
        (1..=count).map(row).collect()
    }

    fn row(number: i64) -> SnapshotRow {
        SnapshotRow {
            number,
            id: format!("s{number}"),
            store: "shop".to_owned(),
            chain: 1,
            kind: "full".to_owned(),
            ledger_position: 0,
            sequence: number,
            state: "committed".to_owned(),
            manifest: None,
            manifest_sha256: None,
            rows: 1,
            frames: 1,
            bytes: 1,
            begun_at: DateTime::UNIX_EPOCH,
            committed_at: None,
            begins_with: "s1".to_owned(),
            parent: None,
            living: 1,
            why_full: None,
        }
    }

    fn picked(count: i64, seed: u64) -> Vec<(Picked, i64)> {
        picks(&rows(count), seed).into_iter().map(|pick| (pick.picked, pick.snapshot.number)).collect()
    }

    #[test]
    fn newest_oldest_and_one_between() {
        assert_eq!(picked(0, 7), []);
        assert_eq!(picked(1, 7), [(Picked::Latest, 1)]);
        assert_eq!(picked(2, 7), [(Picked::Latest, 2), (Picked::Oldest, 1)]);
        assert_eq!(picked(5, 7), [(Picked::Latest, 5), (Picked::Random, 3), (Picked::Oldest, 1)]);
        let reached: std::collections::BTreeSet<i64> = (0..100).map(|seed| picked(12, seed)[1].1).collect();
        assert_eq!(reached, (2..=11).collect(), "every snapshot between can be drawn");
    }

    #[test]
    fn the_draw_is_recorded_and_can_be_done_again() {
        let drawn = picks(&rows(9), 0x1234_5678_9abc_def1)[1].clone();
        let record = drawn.drawn.unwrap();
        assert_eq!((record.seed.as_str(), record.among), ("123456789abcdef1", 7));
        let place = u64::from_str_radix(&record.seed, 16).unwrap() % record.among;
        assert_eq!(drawn.snapshot.number, 2 + i64::try_from(place).unwrap());
    }
}
