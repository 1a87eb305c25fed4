//! Working hours: whether somebody is expected to be at work at an instant. Pure.

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc, Weekday};
use chrono_tz::Tz;

/// When people work, by the calendar and clock of one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingHours {
    /// The zone.
    pub zone: Tz,
    /// The first minute of a working day, from midnight by the clock on the wall.
    pub from: u16,
    /// The first minute behind it; 1440 is midnight.
    pub until: u16,
    /// The days of the week.
    pub weekdays: Vec<Weekday>,
    /// Days without work all the same.
    pub holidays: Vec<NaiveDate>,
    /// Days with work although they fall on no such weekday. A day that is a holiday as well is one.
    pub workdays: Vec<NaiveDate>,
}

impl WorkingHours {
    /// Whether an instant lies outside of them. An hour that the clock shows twice counts as it is shown, both times.
    #[must_use]
    pub fn is_off(&self, at: DateTime<Utc>) -> bool {
        let local = at.with_timezone(&self.zone);
        let day = local.date_naive();
        let is_workday = self.weekdays.contains(&day.weekday()) || self.workdays.contains(&day);
        if self.holidays.contains(&day) || !is_workday {
            return true;
        }
        let minute = local.hour() * 60 + local.minute();
        !(u32::from(self.from)..u32::from(self.until)).contains(&minute)
    }
}

/// `08:00` as minutes from midnight; `24:00` is the end of a day.
#[must_use]
pub fn minutes_of(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let is_number = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= 24 * 60).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn hours(zone: Tz, from: &str, until: &str) -> WorkingHours {
        use Weekday::{Fri, Mon, Thu, Tue, Wed};
        WorkingHours {
            zone,
            from: minutes_of(from).unwrap(),
            until: minutes_of(until).unwrap(),
            weekdays: vec![Mon, Tue, Wed, Thu, Fri],
            holidays: vec![day("2026-10-01"), day("2026-10-10")],
            workdays: vec![day("2026-09-20"), day("2026-10-10")],
        }
    }

    #[test]
    fn the_first_minute_belongs_to_the_day_and_the_last_does_not() {
        let shanghai = hours(Tz::Asia__Shanghai, "08:00", "20:00");
        // A Wednesday there; eight hours ahead of UTC.
        for (time, is_off) in [
            ("2026-09-23T02:00:00Z", false),
            ("2026-09-23T13:30:00Z", true),
            ("2026-09-22T23:59:59.999Z", true),
            ("2026-09-23T00:00:00Z", false),
            ("2026-09-23T11:59:59.999Z", false),
            ("2026-09-23T12:00:00Z", true),
            // Friday, Saturday, Sunday, and Monday morning there while it is Sunday in UTC.
            ("2026-09-25T11:59:59Z", false),
            ("2026-09-26T02:00:00Z", true),
            ("2026-09-27T02:00:00Z", true),
            ("2026-09-28T00:00:00Z", false),
            // A holiday on a Thursday; a Sunday on which people work; a Saturday that is called both.
            ("2026-10-01T02:00:00Z", true),
            ("2026-09-20T02:00:00Z", false),
            ("2026-10-10T02:00:00Z", true),
        ] {
            assert_eq!(shanghai.is_off(at(time)), is_off, "{time}");
        }
        let all_day = hours(Tz::UTC, "00:00", "24:00");
        assert!(!all_day.is_off(at("2026-09-23T00:00:00Z")) && !all_day.is_off(at("2026-09-23T23:59:59.999Z")));
    }

    #[test]
    fn an_hour_that_comes_twice_or_never_is_what_the_clock_shows() {
        let mut zurich = hours(Tz::Europe__Zurich, "02:30", "20:00");
        zurich.workdays.extend([day("2026-03-29"), day("2026-10-25")]);
        for (time, is_off) in [
            // 01:59:59 and, a second later, 03:00: the half hour from 02:30 on is not there.
            ("2026-03-29T00:59:59Z", true),
            ("2026-03-29T01:00:00Z", false),
            // 02:29 and 02:30 before the fold, the same an hour later.
            ("2026-10-25T00:29:59Z", true),
            ("2026-10-25T00:30:00Z", false),
            ("2026-10-25T00:59:59Z", false),
            ("2026-10-25T01:00:00Z", true),
            ("2026-10-25T01:29:59Z", true),
            ("2026-10-25T01:30:00Z", false),
            // The evening of that day counts from the other offset.
            ("2026-10-25T18:59:59Z", false),
            ("2026-10-25T19:00:00Z", true),
        ] {
            assert_eq!(zurich.is_off(at(time)), is_off, "{time}");
        }
    }

    #[test]
    fn minutes_are_read_as_the_clock_has_them() {
        for (text, minutes) in [("00:00", 0), ("08:05", 485), ("23:59", 1439), ("24:00", 1440)] {
            assert_eq!(minutes_of(text), Some(minutes), "{text}");
        }
        for wrong in ["", "8:00", "08", "08:60", "24:01", "25:00", "-1:00", "+8:00", "08:000", "08:0x", "0８:00"] {
            assert_eq!(minutes_of(wrong), None, "{wrong}");
        }
    }
}
