//! Calendar arithmetic of retention: when a period ends, and which start events are therefore due.
//!
//! **The rule.** Periods are counted in whole local days. The day of the start event is day zero; a period has ended at the
//! first moment of the corresponding day: an order completed at any time of 2023-05-10 with `3 years` is kept all through
//! 2026-05-09 and due from the beginning of 2026-05-10, local time of the store's zone. Whoever must count the last day as
//! well writes `3 years 1 day`.
//!
//! Wherever the calendar leaves a choice, a minimum takes the later moment and a maximum the earlier one ([`Bias`]): a record
//! kept a day too long can still be erased, a record erased a day too early cannot be brought back.
//!
//! Invariants:
//! * The zone is an argument of every function; nothing here knows a default zone.
//! * [`end_of_period`] never decreases when the start grows, whatever the zone does. [`latest_due_start`] is its exact inverse.
//! * What cannot be computed is an error and therefore not due; it is never "expired".

mod bucket;
mod period;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use thiserror::Error;

pub use bucket::{BucketPeriod, BucketSpan, BucketWidth, MalformedBucket, bucket_due, bucket_end, bucket_of};
pub use period::{Grace, GraceError, Period, PeriodError};

/// Which way a doubtful date is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bias {
    /// For what must be kept at least so long: later.
    Minimum,
    /// For what may be kept at most so long: earlier.
    Maximum,
}

/// A date that cannot be computed. Trying again does not help; the record counts as not due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CalendarError {
    /// The start, the cutoff or the end of the period lies outside the supported years.
    #[error("a date lies outside the years 1 to 9999, which is all that retention is computed for")]
    OutOfRange,
}

/// The bound of the start events that are due: exactly those strictly before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueBound {
    /// As an instant, for start events with a zone.
    pub instant: DateTime<Utc>,
    /// As local time, for start events without one (read as [`resolve_local`] reads them for a minimum).
    pub local: NaiveDateTime,
}

impl DueBound {
    /// The bound before which no supported start event lies: nothing is due.
    #[must_use]
    pub fn nothing() -> Self {
        let local = NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or(NaiveDate::MIN).and_time(NaiveTime::MIN);
        Self { instant: local.and_utc(), local }
    }

    /// The stricter of two bounds: what is due by both.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        Self { instant: self.instant.min(other.instant), local: self.local.min(other.local) }
    }
}

/// The first moment at which `period`, counted from `start` in `zone`, is over.
///
/// A day that does not exist in the target month (29 February, 31 April) becomes the first of the next month for a minimum
/// and the last of the month for a maximum. A midnight that the clocks skip becomes the moment after the gap; one that they
/// repeat becomes the second for a minimum, the first for a maximum. A period of nothing ends at `start` itself.
///
/// # Errors
/// [`CalendarError::OutOfRange`] when `start` or the end lies outside the supported years.
pub fn end_of_period(
    start: DateTime<Utc>,
    period: Period,
    zone: Tz,
    bias: Bias,
) -> Result<DateTime<Utc>, CalendarError> {
    let day = local_day(start, zone, bias)?;
    let end = resolve_local(add_period(day, period, bias)?.and_time(NaiveTime::MIN), zone, bias)?;
    Ok(end.max(start))
}

/// The bound of the start events whose minimum `period` is over at `cutoff`.
///
/// For every supported start: `end_of_period(start, period, zone, Minimum) <= cutoff` if and only if it is before the bound.
///
/// # Errors
/// [`CalendarError::OutOfRange`] when `cutoff` lies outside the supported years.
pub fn latest_due_start(cutoff: DateTime<Utc>, period: Period, zone: Tz) -> Result<DueBound, CalendarError> {
    match latest_day(latest_begun_day(cutoff, zone)?, period) {
        Some(day) => bound_after(day, cutoff, zone),
        None => Ok(DueBound::nothing()),
    }
}

/// The bound of the starts up to and including the local day `day`, none of them after `cutoff`.
pub(super) fn bound_after(day: NaiveDate, cutoff: DateTime<Utc>, zone: Tz) -> Result<DueBound, CalendarError> {
    let next = in_range(day.checked_add_days(Days::new(1)))?;
    let after_cutoff = cutoff.checked_add_signed(TimeDelta::nanoseconds(1)).ok_or(CalendarError::OutOfRange)?;
    let instant = first_moment(next, zone)?.min(after_cutoff);
    Ok(DueBound { instant, local: first_local_not_before(instant, zone)? })
}

/// The last day that has surely begun at `cutoff`: its last first moment is not after it.
pub(super) fn latest_begun_day(cutoff: DateTime<Utc>, zone: Tz) -> Result<NaiveDate, CalendarError> {
    let mut day = local_day(cutoff, zone, Bias::Minimum)?;
    while resolve_local(day.and_time(NaiveTime::MIN), zone, Bias::Minimum)? > cutoff {
        day = in_range(day.pred_opt())?;
    }
    Ok(day)
}

/// The last day from which a minimum `period` ends on `end` or before; `None` when that day is before the year 1.
pub(super) fn latest_day(end: NaiveDate, period: Period) -> Option<NaiveDate> {
    // Chrono cuts a day that the month lacks to the month's last; adding back rounds up, so the cut day is the answer.
    let day = end.checked_sub_days(Days::new(u64::from(period.days)))?;
    in_range(day.checked_sub_months(Months::new(period.months))).ok()
}

/// The local day of `start`. Where clocks go back across midnight a day is left and entered again: a minimum counts the later
/// day from its first appearance, a maximum the earlier one to its last, so that the day never decreases as time goes on.
pub(super) fn local_day(start: DateTime<Utc>, zone: Tz, bias: Bias) -> Result<NaiveDate, CalendarError> {
    if !(1..=9999).contains(&start.year()) {
        return Err(CalendarError::OutOfRange);
    }
    let day = in_range(Some(start.with_timezone(&zone).date_naive()))?;
    let other = match bias {
        Bias::Minimum => day.succ_opt().filter(|next| first_moment(*next, zone).is_ok_and(|begun| begun <= start)),
        Bias::Maximum => {
            let begin = resolve_local(day.and_time(NaiveTime::MIN), zone, Bias::Minimum)?;
            day.pred_opt().filter(|_| begin > start)
        }
    };
    in_range(other.or(Some(day)))
}

/// The first moment of a local day, at its first appearance.
pub(super) fn first_moment(day: NaiveDate, zone: Tz) -> Result<DateTime<Utc>, CalendarError> {
    resolve_local(day.and_time(NaiveTime::MIN), zone, Bias::Maximum)
}

/// The instant of a local time. A time that the clocks skip is the moment after the gap, whatever the bias; a time that they
/// repeat is the second one for a minimum (a later start keeps longer) and the first one for a maximum.
///
/// # Errors
/// [`CalendarError::OutOfRange`] when the time lies outside the supported years.
pub fn resolve_local(local: NaiveDateTime, zone: Tz, bias: Bias) -> Result<DateTime<Utc>, CalendarError> {
    in_range(Some(local.date()))?;
    let resolved = match zone.from_local_datetime(&local) {
        chrono::LocalResult::Single(only) => Some(only),
        chrono::LocalResult::Ambiguous(first, second) => Some(match bias {
            Bias::Minimum => first.max(second),
            Bias::Maximum => first.min(second),
        }),
        chrono::LocalResult::None => GapInfo::new(&local, &zone).and_then(|gap| gap.end),
    };
    resolved.map(|instant| instant.with_timezone(&Utc)).ok_or(CalendarError::OutOfRange)
}

/// The smallest local time that [`resolve_local`] reads, for a minimum, as `instant` or later. Found by bisection, because it
/// need not be the local time of `instant`: around a fold it lies before the repeated hour, around a gap before the gap.
fn first_local_not_before(instant: DateTime<Utc>, zone: Tz) -> Result<NaiveDateTime, CalendarError> {
    let around = instant.with_timezone(&zone).naive_local();
    let is_late_enough = |nanoseconds: i64| {
        let local = around + TimeDelta::nanoseconds(nanoseconds);
        resolve_local(local, zone, Bias::Minimum).map(|resolved| resolved >= instant)
    };
    // No zone has ever moved its clocks by more than a day.
    let two_days = TimeDelta::days(2).num_nanoseconds().unwrap_or(i64::MAX);
    let (mut early, mut late) = (-two_days, two_days);
    while late - early > 1 {
        let middle = early + (late - early) / 2;
        if is_late_enough(middle)? {
            late = middle;
        } else {
            early = middle;
        }
    }
    Ok(around + TimeDelta::nanoseconds(late))
}

/// `day` plus `period`: first the months, then the days.
pub(super) fn add_period(day: NaiveDate, period: Period, bias: Bias) -> Result<NaiveDate, CalendarError> {
    let months = i64::from(day.year()) * 12 + i64::from(day.month0()) + i64::from(period.months);
    let year = i32::try_from(months.div_euclid(12)).map_err(|_| CalendarError::OutOfRange)?;
    let first = in_range(NaiveDate::from_ymd_opt(year, months.rem_euclid(12) as u32 + 1, 1))?;
    let moved = first.with_day(day.day()).or_else(|| {
        let next_month = first.checked_add_months(Months::new(1))?;
        match bias {
            Bias::Minimum => Some(next_month),
            Bias::Maximum => next_month.pred_opt(),
        }
    });
    in_range(moved.and_then(|date| date.checked_add_days(Days::new(u64::from(period.days)))))
}

fn in_range(day: Option<NaiveDate>) -> Result<NaiveDate, CalendarError> {
    day.filter(|day| (1..=9999).contains(&day.year())).ok_or(CalendarError::OutOfRange)
}
