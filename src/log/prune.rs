//! When content of the operation log may go: three whole years after it was written, never earlier. Pure.

use std::ops::Range;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// Years that records are kept at least.
pub const KEPT_YEARS: i32 = 3;

/// The first day on which a record of this day may go. The 29 February of a year that is none later counts as 1 March.
#[must_use]
pub fn may_go_from(written: NaiveDate) -> NaiveDate {
    let year = written.year() + KEPT_YEARS;
    let same_day = NaiveDate::from_ymd_opt(year, written.month(), written.day());
    same_day.or_else(|| NaiveDate::from_ymd_opt(year, 3, 1)).unwrap_or(NaiveDate::MAX)
}

/// The instant before which records may go on a day: the beginning of the first day that must still be kept.
#[must_use]
pub fn cutoff(today: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let mut first_kept =
        today.checked_sub_months(chrono::Months::new(KEPT_YEARS as u32 * 12)).unwrap_or(NaiveDate::MIN);
    // From below: leap days make the way back shorter than the way there.
    while may_go_from(first_kept) <= today {
        first_kept = first_kept.succ_opt().unwrap_or(NaiveDate::MAX);
    }
    while first_kept.pred_opt().is_some_and(|day| may_go_from(day) > today) {
        first_kept = first_kept.pred_opt().unwrap_or(NaiveDate::MIN);
    }
    first_instant(first_kept, zone)
}

/// When a day begins. Where clocks are set forward at midnight that is later than 0:00; where a whole day was left out, it is the
/// beginning of the next.
fn first_instant(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let midnight = day.and_time(chrono::NaiveTime::MIN);
    let mut quarters = (0..=MOST_LEFT_OUT).map(|quarter| midnight + TimeDelta::minutes(15 * quarter));
    // No zone leaves out more; if one did, too early keeps too much.
    let first = quarters.find_map(|local| zone.from_local_datetime(&local).earliest());
    first.map_or_else(|| midnight.and_utc() - TimeDelta::hours(14), |local| local.to_utc())
}

/// Quarters of an hour that a zone's clocks leave out at once, at most.
const MOST_LEFT_OUT: i64 = 26 * 4;

/// The longest ranges of indexes below `size` that contain none of `held` (ascending).
#[must_use]
pub fn between(held: &[u64], size: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for &index in held.iter().filter(|index| **index < size) {
        if start < index {
            ranges.push(start..index);
        }
        start = index + 1;
    }
    if start < size {
        ranges.push(start..size);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn a_record_goes_three_whole_years_later() {
        for (written, goes) in
            [("2023-03-06", "2026-03-06"), ("2024-02-29", "2027-03-01"), ("2020-02-29", "2023-03-01")]
        {
            assert_eq!(may_go_from(day(written)), day(goes));
        }
        let zone: Tz = "Asia/Shanghai".parse().unwrap();
        // Written on 6 March 2023 in Shanghai: still kept on the 5th, gone on the 6th three years later.
        let written = "2023-03-05T17:00:00Z".parse::<DateTime<Utc>>().unwrap();
        assert!(cutoff(day("2026-03-05"), zone) <= written);
        assert!(cutoff(day("2026-03-06"), zone) > written);
        let leap = "2024-02-29T04:00:00Z".parse::<DateTime<Utc>>().unwrap();
        assert!(cutoff(day("2027-02-28"), zone) <= leap);
        assert!(cutoff(day("2027-03-01"), zone) > leap);
    }

    #[test]
    fn a_day_without_a_midnight_is_kept_from_its_first_instant() {
        let begins = |today: &str, zone: &str| cutoff(day(today), zone.parse().unwrap()).to_rfc3339();
        // The clocks went from 0:00 to 1:00 on 28 March 2021 in Beirut, on 28 April 2023 in Cairo; Samoa left a whole day out.
        assert_eq!(begins("2024-03-27", "Asia/Beirut"), "2021-03-27T22:00:00+00:00");
        assert_eq!(begins("2026-04-27", "Africa/Cairo"), "2023-04-27T22:00:00+00:00");
        assert_eq!(begins("2014-12-29", "Pacific/Apia"), "2011-12-30T10:00:00+00:00");
    }

    #[test]
    fn what_is_held_is_left_out() {
        let alone = |held: &[u64], size| between(held, size).into_iter().map(|range| (range.start, range.end)).next();
        assert_eq!(alone(&[], 5), Some((0, 5)));
        assert_eq!(between(&[0, 2, 3], 5), [1..2, 4..5]);
        assert_eq!(alone(&[4, 9], 5), Some((0, 4)));
        assert_eq!(between(&[0], 1), Vec::<Range<u64>>::new());
    }

    proptest::proptest! {
        #[test]
        fn the_cutoff_is_the_first_day_that_must_stay(offset in 0i64..40_000) {
            let today = day("2000-01-01") + chrono::TimeDelta::days(offset);
            let kept = cutoff(today, Tz::UTC).date_naive();
            proptest::prop_assert!(may_go_from(kept) > today);
            proptest::prop_assert!(may_go_from(kept.pred_opt().unwrap()) <= today);
        }
    }
}
