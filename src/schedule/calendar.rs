//! The calendar to come: which job runs when. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::declaration::Job;

/// A run to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcoming {
    /// The job.
    pub job: String,
    /// When, in the job's own zone.
    pub at: DateTime<Tz>,
}

/// A stretch of the calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The runs, earliest first.
    pub runs: Vec<Upcoming>,
    /// Whether there were more than the limit.
    pub is_cut_short: bool,
}

impl Preview {
    /// The jobs that run more often than four times a day, in a stretch of so many days: listing each of their runs would bury
    /// all others.
    #[must_use]
    pub fn often(&self, days: i64) -> Vec<&str> {
        let most = usize::try_from(days).unwrap_or_default().saturating_mul(4);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.runs.iter().for_each(|run| *counts.entry(&run.job).or_default() += 1);
        counts.into_iter().filter(|(_, count)| *count > most).map(|(job, _)| job).collect()
    }
}

/// The runs from `from` (inclusive) to `until` (exclusive), at most `limit` of them.
#[must_use]
pub fn preview(jobs: &[Job], from: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Preview {
    let nanosecond = chrono::TimeDelta::nanoseconds(1);
    let mut runs = Vec::new();
    for job in jobs {
        // No job can contribute more than the limit, whatever the others do; one more shows that there was more.
        let times = job.cron.between(from - nanosecond, until - nanosecond).take(limit.saturating_add(1));
        runs.extend(times.map(|at| Upcoming { job: job.name.clone(), at: at.with_timezone(&job.cron.zone()) }));
    }
    runs.sort_by(|a, b| (a.at.to_utc(), &a.job).cmp(&(b.at.to_utc(), &b.job)));
    let is_cut_short = runs.len() > limit;
    runs.truncate(limit);
    Preview { runs, is_cut_short }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::schedule::load_folder;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn shipped() -> Vec<Job> {
        load_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs"), chrono_tz::Asia::Shanghai).unwrap()
    }

    #[test]
    fn shipped_week_has_seven_nightly_backups_and_one_full() {
        let week = preview(&shipped(), at("2026-03-02T00:00:00+08:00"), at("2026-03-09T00:00:00+08:00"), 100_000);
        assert!(!week.is_cut_short);
        let times = |job: &str| -> Vec<String> {
            week.runs.iter().filter(|run| run.job == job).map(|run| run.at.to_rfc3339()).collect()
        };
        let nightly = times("backup-nightly");
        assert_eq!(nightly.len(), 7);
        assert!(nightly.iter().all(|time| time.ends_with("T23:00:00+08:00")), "{nightly:?}");
        assert_eq!(times("backup-full"), ["2026-03-08T03:00:00+08:00"]);
        assert_eq!(times("retention").len(), 7);
        assert_eq!(times("shred").len(), 7 * 24);
        assert_eq!(times("outbox").len(), 7 * 24 * 60);
        assert!(week.runs.is_sorted_by_key(|run| run.at.to_utc()));
        assert_eq!(week.often(7), ["outbox", "requests", "shred"]);
    }

    #[test]
    fn shipped_year_has_four_drills_and_twelve_verifications() {
        let rare: Vec<Job> = shipped().into_iter().filter(|job| job.name == "drill" || job.name == "verify").collect();
        let year = preview(&rare, at("2026-01-01T00:00:00+08:00"), at("2027-01-01T00:00:00+08:00"), 100);
        let count = |job: &str| year.runs.iter().filter(|run| run.job == job).count();
        assert_eq!((count("drill"), count("verify")), (4, 12));
    }

    #[test]
    fn limit_is_told_and_bounds_are_half_open() {
        let jobs: Vec<Job> = shipped().into_iter().filter(|job| job.name == "outbox").collect();
        let (from, until) = (at("2026-03-02T00:00:00+08:00"), at("2026-03-02T00:03:00+08:00"));
        assert_eq!(preview(&jobs, from, until, 3).runs.len(), 3);
        assert!(!preview(&jobs, from, until, 3).is_cut_short);
        assert!(preview(&jobs, from, until, 2).is_cut_short);
    }
}
