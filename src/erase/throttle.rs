//! Whether a store bears the next batch now: its load, and the lag of its replicas.
//!
//! Load only slows: a run that gave way to every busy hour would never end. A replica that is too far behind is waited for, and one
//! of which that cannot be told lets nothing more be destroyed. Lag is measured by a heartbeat of our own, written where rows are
//! erased and looked for on the replica: only what arrived through the very same way counts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{sleep, timeout};

use super::{EraseError, Replica, Site};
use crate::clock::Clock;
use crate::policy::registry::Budget;
use crate::stores::{Load, StoreError};

/// How old a look at a store may be.
const LOOK_AGE: Duration = Duration::from_millis(250);
/// Between two looks for a heartbeat.
const POLL: Duration = Duration::from_millis(20);
/// Longest wait for an answer of a replica.
const REPLICA_WAIT: Duration = Duration::from_secs(3);
/// A replica that only the server itself knows of is behind from here on.
const KNOWN_LAG: Duration = Duration::from_millis(500);
/// The longest pause behind a batch because of load.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What a batch counts for at least when a pause is made from its time.
const SHORTEST_WORK: Duration = Duration::from_millis(25);

/// Whether there is room for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Free,
    /// There is, behind a pause.
    Slow {
        /// How long.
        pause: Duration,
        /// Why, as one sentence.
        why: String,
    },
    /// A replica is too far behind.
    Full {
        /// Which, as one sentence.
        why: String,
    },
    /// It cannot be told whether a replica is too far behind.
    Unknown {
        /// Why not, as one sentence.
        why: String,
    },
}

/// How far a replica is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lag {
    /// The heartbeat arrived in time.
    Within,
    /// It did not; the newest that did is so much older.
    Behind(Duration),
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// The worst of what was seen decides. `log_rate` is in bytes a second, `work` how long the last transaction took.
#[must_use]
pub fn judge(load: &Load, log_rate: Option<u64>, lags: &[(String, u32, Lag)], budget: &Budget, work: Duration) -> Room {
    for (name, _, lag) in lags {
        if let Lag::Unknown(why) = lag {
            return Room::Unknown { why: format!("how far replica {name} is behind is not known: {why}") };
        }
    }
    for (name, most, lag) in lags {
        if let Lag::Behind(by) = lag {
            let why = format!("replica {name} is {} ms behind (at most {most})", by.as_millis());
            return Room::Full { why };
        }
    }
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (most_active, most_log) = (u64::from(budget.active_sessions), u64::from(budget.log_mb_per_second));
    let signals = [
        (load.active, most_active, "other sessions are at work"),
        (log_rate.map(megabytes), most_log, "MB of log are written in a second"),
        (load.unpurged, budget.unpurged, "deleted row versions are not cleared away yet"),
        (
            load.oldest_transaction.map(|age| age.as_secs()),
            u64::from(budget.oldest_transaction_s),
            "seconds is the age of the oldest transaction",
        ),
        (load.replay_lag.map(millis), millis(KNOWN_LAG), "ms is how far a replica is behind that the server knows of"),
    ];
    let mut worst: Option<(f64, String)> = None;
    for (value, most, what) in signals {
        let Some(value) = value.filter(|value| *value > most) else { continue };
        let times = value as f64 / most.max(1) as f64;
        if worst.as_ref().is_none_or(|(known, _)| *known < times) {
            worst = Some((times, format!("{value} {what} (at most {most})")));
        }
    }
    match worst {
        None => Room::Free,
        Some((times, why)) => {
            let pause = work.max(SHORTEST_WORK).mul_f64((2.0 * times).min(100.0)).min(LONGEST_PAUSE);
            Room::Slow { pause, why }
        }
    }
}

/// Bytes a second between two looks.
fn rate(before: Option<(DateTime<Utc>, &Load)>, now: DateTime<Utc>, load: &Load) -> Option<u64> {
    let (at, before) = before?;
    let millis = u64::try_from((now - at).num_milliseconds()).ok().filter(|millis| *millis > 0)?;
    let written = load.log_bytes?.checked_sub(before.log_bytes?)?;
    Some(written.saturating_mul(1000) / millis)
}

/// Looks at one store now and then.
#[derive(Debug, Default)]
pub struct Throttle {
    seen: Option<(DateTime<Utc>, Load, Room)>,
}

impl Throttle {
    /// Whether there is room for a batch in the store. `work` is how long the last transaction took; `again` looks even if it was
    /// looked just before.
    ///
    /// # Errors
    /// When the store itself cannot be reached.
    pub async fn room(
        &mut self,
        site: &Site,
        clock: &dyn Clock,
        work: Duration,
        again: bool,
    ) -> Result<Room, EraseError> {
        let now = clock.now();
        let age = |at: &DateTime<Utc>| (now - *at).to_std().unwrap_or_default();
        if let Some((at, _, room)) = self.seen.as_ref().filter(|(at, ..)| !again && age(at) < LOOK_AGE) {
            tracing::trace!(age = ?age(at), "the last look at the store still counts");
            return Ok(room.clone());
        }
        let load = match site.store.load().await {
            Ok(load) => load,
            // What this login may not see does not slow it.
            Err(StoreError::Refused { .. }) => Load::default(),
            Err(error) => return Err(error.into()),
        };
        let mut lags = Vec::new();
        for replica in &site.replicas {
            let lag = lag_of(site, replica, clock).await?;
            lags.push((replica.spec.name.clone(), replica.spec.max_lag_ms, lag));
        }
        let before = self.seen.as_ref().map(|(at, load, _)| (*at, load));
        let room = judge(&load, rate(before, now, &load), &lags, &site.model.spec.budget, work);
        self.seen = Some((now, load, room.clone()));
        Ok(room)
    }
}

/// The replicas of a store that do not show yet what was done in it until now, by name: behind, or not to be asked.
pub async fn behind(site: &Site, clock: &dyn Clock) -> Vec<String> {
    let mut behind = Vec::new();
    for replica in &site.replicas {
        let name = &replica.spec.name;
        match lag_of(site, replica, clock).await {
            Ok(Lag::Within) => continue,
            Ok(Lag::Behind(by)) => tracing::warn!(replica = name, behind_ms = by.as_millis(), "a replica is behind"),
            Ok(Lag::Unknown(why)) => tracing::warn!(replica = name, why, "how far a replica is behind is not known"),
            Err(error) => tracing::warn!(replica = name, error = %error, "how far a replica is behind is not known"),
        }
        behind.push(name.clone());
    }
    behind
}

/// Writes a heartbeat and waits for it on the replica, no longer than that may be behind.
async fn lag_of(site: &Site, replica: &Replica, clock: &dyn Clock) -> Result<Lag, EraseError> {
    let Some(beat) = site.store.beat().await? else {
        return Ok(Lag::Unknown("this engine writes no heartbeat".to_owned()));
    };
    let most = Duration::from_millis(u64::from(replica.spec.max_lag_ms));
    let begun = clock.now();
    loop {
        let seen = match timeout(REPLICA_WAIT, replica.store.last_beat()).await {
            Ok(Ok(Some(seen))) if seen >= beat => return Ok(Lag::Within),
            Ok(Ok(seen)) => seen.ok_or_else(|| "no heartbeat has arrived there".to_owned()),
            // The marker table itself may still be on its way.
            Ok(Err(error @ StoreError::Refused { .. })) => Err(error.to_string()),
            Ok(Err(error)) => return Ok(Lag::Unknown(error.to_string())),
            Err(_) => return Ok(Lag::Unknown(format!("no answer within {} seconds", REPLICA_WAIT.as_secs()))),
        };
        if (clock.now() - begun).to_std().unwrap_or_default() >= most {
            return Ok(match seen {
                Ok(seen) => Lag::Behind(Duration::from_micros(beat.saturating_sub(seen).unsigned_abs())),
                Err(why) => Lag::Unknown(why),
            });
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Duration = Duration::from_millis(50);

    fn judged(load: Load, lags: &[Lag]) -> Room {
        let lags: Vec<(String, u32, Lag)> = lags.iter().map(|lag| ("r1".to_owned(), 500, lag.clone())).collect();
        judge(&load, None, &lags, &Budget::default(), WORK)
    }

    #[test]
    fn unknown_lag_is_worse_than_lag_and_lag_worse_than_load() {
        let busy = Load { active: Some(1000), ..Load::default() };
        assert!(matches!(judged(busy, &[Lag::Within]), Room::Slow { .. }));
        let behind = Lag::Behind(Duration::from_millis(1500));
        let Room::Full { why } = judged(busy, &[Lag::Within, behind.clone()]) else { panic!("there is room") };
        assert_eq!(why, "replica r1 is 1500 ms behind (at most 500)");
        let unknown = Lag::Unknown("nobody answers".to_owned());
        let Room::Unknown { why } = judged(busy, &[behind, unknown]) else { panic!("it is known") };
        assert!(why.contains("replica r1") && why.contains("nobody answers"), "{why}");
        assert_eq!(judged(Load::default(), &[Lag::Within]), Room::Free);
    }

    #[test]
    fn each_signal_slows_the_more_the_further_it_is_beyond_its_budget() {
        let budget = Budget::default();
        let hour = Duration::from_secs(u64::from(budget.oldest_transaction_s));
        let loads = |times: u64| {
            [
                Load { active: Some(u64::from(budget.active_sessions) * times), ..Load::default() },
                Load { unpurged: Some(budget.unpurged * times), ..Load::default() },
                Load { oldest_transaction: Some(hour * times as u32), ..Load::default() },
                Load { replay_lag: Some(KNOWN_LAG * times as u32), ..Load::default() },
            ]
        };
        for load in loads(1) {
            assert_eq!(judged(load, &[]), Room::Free, "{load:?}");
        }
        for (twice, often) in loads(2).into_iter().zip(loads(4)) {
            let (Room::Slow { pause, .. }, Room::Slow { pause: longer, .. }) = (judged(twice, &[]), judged(often, &[]))
            else {
                panic!("{twice:?} does not slow it");
            };
            assert_eq!((pause, longer), (WORK * 4, WORK * 8));
        }
        let far = judged(Load { active: Some(1_000_000), ..Load::default() }, &[]);
        assert!(matches!(far, Room::Slow { pause, .. } if pause == LONGEST_PAUSE), "it goes on all the same");
    }

    #[test]
    fn log_counts_by_the_second() {
        let at = |bytes| Load { log_bytes: Some(bytes), ..Load::default() };
        let begun = DateTime::from_timestamp(0, 0).unwrap();
        let later = begun + chrono::TimeDelta::milliseconds(500);
        assert_eq!(rate(Some((begun, &at(1_000_000))), later, &at(51_000_000)), Some(100_000_000));
        assert_eq!(rate(Some((begun, &at(2))), later, &at(1)), None, "the server began anew");
        assert_eq!(rate(Some((later, &at(1))), later, &at(2)), None);
        assert_eq!(rate(None, later, &at(2)), None);
        let budget = Budget::default();
        let most = u64::from(budget.log_mb_per_second) * 1_000_000;
        assert_eq!(judge(&Load::default(), Some(most), &[], &budget, WORK), Room::Free);
        assert!(matches!(judge(&Load::default(), Some(most * 2), &[], &budget, WORK), Room::Slow { .. }));
    }
}
