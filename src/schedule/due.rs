//! What is due now, what was missed, and whether the clock can be believed. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::declaration::{Job, Missed};

/// How far the wall clock may drift from elapsed time between two looks before it is doubted.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(120);

/// An absence longer than this cannot be told from a clock set forward, as nothing measured it.
const LONGEST_CREDIBLE_ABSENCE: TimeDelta = TimeDelta::days(31);

/// Missed times are counted up to here.
const COUNT_LIMIT: usize = 10_000;

/// A reading of the clock that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What the clock said.
    pub wall: DateTime<Utc>,
    /// How much time has really gone by since, by a monotonic clock; none after a restart.
    pub elapsed: Option<std::time::Duration>,
}

/// Whether the clock can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// Nothing speaks against it.
    Trusted,
    /// It shows an earlier time than was recorded before.
    SetBack {
        /// By at least this much.
        by: TimeDelta,
    },
    /// It ran ahead of the time that has gone by, or further than anybody can vouch for.
    SetForward {
        /// By about this much.
        by: TimeDelta,
    },
}

/// A run to start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The job.
    pub job: String,
    /// The time it was scheduled for; with the job's name the key under which the run is recorded.
    pub scheduled_for: DateTime<Utc>,
    /// Earlier scheduled times that this run stands for (at most 10,000 are counted).
    pub missed: usize,
    /// Whether it comes later than the job's grace: a catch-up.
    pub is_late: bool,
}

/// A scheduled time that passes without a run, by the job's `missed = "skip"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The job.
    pub job: String,
    /// The latest of the times.
    pub scheduled_for: DateTime<Utc>,
    /// How many times (at most 10,000 are counted).
    pub count: usize,
}

/// What a look at the clock leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agenda {
    /// Whether the clock can be believed.
    pub clock: ClockState,
    /// Runs to start, earliest first.
    pub due: Vec<Due>,
    /// Runs that would be due but destroy something, withheld while the clock is doubtful.
    pub withheld: Vec<Due>,
    /// Times to record as missed.
    pub lost: Vec<Lost>,
    /// When the next run is due; nothing needs to be looked at before.
    pub next_wake: Option<DateTime<Utc>>,
}

/// Compares the clock with an earlier reading.
#[must_use]
pub fn judge_clock(earlier: Option<Look>, now: DateTime<Utc>) -> ClockState {
    let Some(earlier) = earlier else { return ClockState::Trusted };
    let shown = now - earlier.wall;
    let elapsed = earlier.elapsed.and_then(|elapsed| TimeDelta::from_std(elapsed).ok());
    let at_least = elapsed.unwrap_or(TimeDelta::zero());
    if shown < at_least - CLOCK_TOLERANCE {
        return ClockState::SetBack { by: at_least - shown };
    }
    match elapsed {
        Some(elapsed) if shown > elapsed + CLOCK_TOLERANCE => ClockState::SetForward { by: shown - elapsed },
        None if shown > LONGEST_CREDIBLE_ABSENCE => ClockState::SetForward { by: shown },
        _ => ClockState::Trusted,
    }
}

/// What is due at `now`. With each job comes the last scheduled time recorded for it, or the time since when it has been
/// declared. Of several missed times only the latest is run.
#[must_use]
pub fn agenda<'j>(
    jobs: impl IntoIterator<Item = (&'j Job, DateTime<Utc>)>,
    clock: ClockState,
    now: DateTime<Utc>,
) -> Agenda {
    let mut agenda = Agenda { clock, due: Vec::new(), withheld: Vec::new(), lost: Vec::new(), next_wake: None };
    for (job, since) in jobs {
        // After the clock was set back, what is recorded lies ahead. Jobs that destroy nothing go on from now.
        let since = since.min(now);
        agenda.next_wake = [agenda.next_wake, job.cron.next(now)].into_iter().flatten().min();
        let latest = job.cron.previous(now + TimeDelta::nanoseconds(1)).filter(|latest| *latest > since);
        let Some(latest) = latest else { continue };
        let count = job.cron.between(since, latest).take(COUNT_LIMIT).count();
        let is_late = now - latest > TimeDelta::from_std(job.missed_grace).unwrap_or(TimeDelta::MAX);
        if is_late && job.missed == Missed::Skip {
            agenda.lost.push(Lost { job: job.name.clone(), scheduled_for: latest, count });
            continue;
        }
        let due = Due { job: job.name.clone(), scheduled_for: latest, missed: count.saturating_sub(1), is_late };
        if clock != ClockState::Trusted && job.task.is_destructive() {
            agenda.withheld.push(due);
        } else {
            agenda.due.push(due);
        }
    }
    agenda.due.sort_by(|a, b| (a.scheduled_for, &a.job).cmp(&(b.scheduled_for, &b.job)));
    agenda
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::schedule::parse_job;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn job(name: &str, text: &str) -> Job {
        parse_job(std::path::Path::new(&format!("{name}.toml")), text, chrono_tz::Asia::Shanghai).unwrap()
    }

    fn backup() -> Job {
        job("backup", "task = \"backup\"\nschedule = \"0 23 * * *\"\n")
    }

    #[test]
    fn nothing_is_due_before_its_time_and_once_at_it() {
        let job = backup();
        let since = at("2026-03-01T23:00:00+08:00");
        let early = agenda([(&job, since)], ClockState::Trusted, at("2026-03-02T22:59:59+08:00"));
        assert_eq!((early.due, early.next_wake), (vec![], Some(at("2026-03-02T23:00:00+08:00"))));
        let now = at("2026-03-02T23:00:00+08:00");
        let due = agenda([(&job, since)], ClockState::Trusted, now).due;
        assert_eq!(due, [Due { job: "backup".into(), scheduled_for: now, missed: 0, is_late: false }]);
        assert_eq!(agenda([(&job, now)], ClockState::Trusted, now).due, []);
    }

    #[test]
    fn only_the_latest_missed_time_is_caught_up() {
        let job = backup();
        let due =
            agenda([(&job, at("2026-03-01T23:00:00+08:00"))], ClockState::Trusted, at("2026-03-05T09:00:00+08:00")).due;
        let scheduled_for = at("2026-03-04T23:00:00+08:00");
        assert_eq!(due, [Due { job: "backup".into(), scheduled_for, missed: 2, is_late: true }]);
    }

    #[test]
    fn skipped_times_are_counted_and_a_slightly_late_one_still_runs() {
        let job = job(
            "outbox",
            "task = \"outbox\"\nschedule = \"0 * * * *\"\nmissed = \"skip\"\nmissed_grace = \"5 minutes\"\n",
        );
        let since = at("2026-03-01T10:00:00+08:00");
        let late = agenda([(&job, since)], ClockState::Trusted, at("2026-03-01T12:05:01+08:00"));
        let scheduled_for = at("2026-03-01T12:00:00+08:00");
        assert_eq!((late.due, late.lost), (vec![], vec![Lost { job: "outbox".into(), scheduled_for, count: 2 }]));
        let on_time = agenda([(&job, since)], ClockState::Trusted, at("2026-03-01T12:05:00+08:00"));
        assert_eq!((on_time.due.len(), on_time.due[0].missed, on_time.lost.len()), (1, 1, 0));
    }

    #[test]
    fn a_doubtful_clock_withholds_what_destroys_and_nothing_else() {
        let retention = job("retention", "task = \"retention\"\nschedule = \"0 23 * * *\"\n");
        let backup = backup();
        let since = at("2026-03-01T23:00:00+08:00");
        let now = at("2026-03-02T23:00:30+08:00");
        let clock = ClockState::SetForward { by: TimeDelta::days(1) };
        let agenda = agenda([(&retention, since), (&backup, since)], clock, now);
        assert_eq!(agenda.due.iter().map(|due| due.job.as_str()).collect::<Vec<_>>(), ["backup"]);
        assert_eq!(agenda.withheld.iter().map(|due| due.job.as_str()).collect::<Vec<_>>(), ["retention"]);
    }

    #[test]
    fn backups_go_on_after_the_clock_was_set_back() {
        let job = backup();
        let recorded = at("2027-01-01T23:00:00+08:00");
        let now = at("2026-03-02T22:00:00+08:00");
        let clock = ClockState::SetBack { by: TimeDelta::days(300) };
        assert_eq!(agenda([(&job, recorded)], clock, now).next_wake, Some(at("2026-03-02T23:00:00+08:00")));
    }

    #[test]
    fn clock_is_judged_both_ways() {
        let wall = at("2026-03-02T12:00:00Z");
        let hour = Some(Duration::from_hours(1));
        let judge = |elapsed, now: &str| judge_clock(Some(Look { wall, elapsed }), at(now));
        assert_eq!(judge_clock(None, wall), ClockState::Trusted);
        assert_eq!(judge(hour, "2026-03-02T13:01:00Z"), ClockState::Trusted);
        assert_eq!(judge(hour, "2026-03-02T14:00:00Z"), ClockState::SetForward { by: TimeDelta::hours(1) });
        assert_eq!(judge(hour, "2026-03-02T12:30:00Z"), ClockState::SetBack { by: TimeDelta::minutes(30) });
        assert_eq!(judge(None, "2026-03-02T11:00:00Z"), ClockState::SetBack { by: TimeDelta::hours(1) });
        assert_eq!(judge(None, "2026-03-30T12:00:00Z"), ClockState::Trusted);
        assert!(matches!(judge(None, "2027-03-02T12:00:00Z"), ClockState::SetForward { .. }));
    }
}
