//! When a service that fails is left alone, and when it is tried again. Pure.
//!
//! Closed: everything is filed. After [`OPENS_AFTER`] rounds in succession that the service failed, or as soon as it asks for time or
//! needs a person, the circuit is open: nothing is sent until its time is over. Then it is half open: one certificate is tried, and
//! what becomes of it decides for the others.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Rounds in succession that a service fails before it is left alone.
pub const OPENS_AFTER: u32 = 3;
/// The longest time that a service is left alone; a later one comes from a clock that was ahead.
const LONGEST: TimeDelta = TimeDelta::hours(1);

/// What is known of a service's failures; nothing of one that works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    /// Rounds in succession that it failed.
    pub failures: u32,
    /// When the first of them was.
    pub since: Option<DateTime<Utc>>,
    /// Before this it is not asked.
    pub until: Option<DateTime<Utc>>,
    /// How it failed last.
    pub reason: Option<String>,
    /// Whether only a person mends that.
    #[serde(default)]
    pub alarm: bool,
}

/// Whether something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Everything.
    Closed,
    /// One, to see whether the service works again.
    HalfOpen,
    /// Nothing, until then.
    Open {
        /// When it is tried again.
        until: DateTime<Utc>,
    },
}

impl Circuit {
    /// Where it stands at a time.
    #[must_use]
    pub fn position(&self, now: DateTime<Utc>) -> Position {
        match self.until {
            Some(until) if until > now && until - now <= LONGEST => Position::Open { until },
            Some(_) => Position::HalfOpen,
            None => Position::Closed,
        }
    }

    /// The service failed: `asked` is the time that it asked for, or that a person needs; `own` the time that we would wait.
    pub fn failed(&mut self, now: DateTime<Utc>, asked: Option<Duration>, own: Duration, reason: &str, alarm: bool) {
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
        let waits = asked.or((self.failures >= OPENS_AFTER).then_some(own));
        self.until = waits.map(|waits| now + TimeDelta::from_std(waits).unwrap_or(LONGEST).min(LONGEST));
        self.reason = Some(reason.to_owned());
        self.alarm = alarm;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_772_800_000 + seconds, 0).unwrap()
    }

    #[test]
    fn it_opens_after_some_failures_and_lets_one_through_when_its_time_is_over() {
        let mut circuit = Circuit::default();
        let own = Duration::from_mins(1);
        for round in 1..OPENS_AFTER {
            circuit.failed(at(i64::from(round)), None, own, "away", false);
            assert_eq!(circuit.position(at(i64::from(round))), Position::Closed, "{round}");
        }
        circuit.failed(at(100), None, own, "away", false);
        assert_eq!(circuit.position(at(100)), Position::Open { until: at(160) });
        assert_eq!(circuit.position(at(159)), Position::Open { until: at(160) });
        assert_eq!(circuit.position(at(160)), Position::HalfOpen);
        assert_eq!((circuit.failures, circuit.since), (OPENS_AFTER, Some(at(1))));
        // The probe failed: open again.
        circuit.failed(at(200), None, own, "away", false);
        assert_eq!(circuit.position(at(200)), Position::Open { until: at(260) });
    }

    #[test]
    fn what_the_service_asks_for_counts_at_once_and_no_longer_than_an_hour() {
        let mut circuit = Circuit::default();
        circuit.failed(at(0), Some(Duration::from_secs(30)), Duration::ZERO, "busy", false);
        assert_eq!(circuit.position(at(29)), Position::Open { until: at(30) });
        assert_eq!(circuit.position(at(30)), Position::HalfOpen);
        circuit.failed(at(40), Some(Duration::from_hours(30)), Duration::ZERO, "busy", true);
        assert_eq!(circuit.position(at(40)), Position::Open { until: at(40 + 3600) });
        assert!(circuit.alarm);
        // A clock that was a day ahead when it failed.
        assert_eq!(circuit.position(at(-86_400)), Position::HalfOpen);
    }
}
