//! `[alerts]`: when people work, and how many records somebody may bring back, hand out or erase at once outside of that without notice.

use chrono::{NaiveDate, Weekday};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::section::Reading;
use crate::policy::hours::{WorkingHours, minutes_of};

/// `[alerts]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alerts {
    /// From so many records on an operation is one of many.
    pub bulk_rows: u64,
    /// When people work.
    pub hours: WorkingHours,
    /// Whether the agent's own work by its calendar counts as well.
    pub scheduled: bool,
    /// For how many days `status` names an alert.
    pub shown_days: u16,
}

/// Alerts of work on many records outside of working hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAlerts {
    /// From so many records on.
    bulk_rows: u64,
    /// Working hours of a day, `HH:MM-HH:MM` by the clock on the wall.
    hours: String,
    /// Working days of the week: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`.
    weekdays: Vec<String>,
    /// Days without work, `YYYY-MM-DD`.
    holidays: Vec<NaiveDate>,
    /// Days with work although they are no such weekday, `YYYY-MM-DD`.
    workdays: Vec<NaiveDate>,
    /// IANA zone of these hours; by default the agent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    /// Whether the agent's own work by its calendar counts as well.
    scheduled: bool,
    /// For how many days `status` names an alert.
    shown_days: u16,
}

impl Default for RawAlerts {
    fn default() -> Self {
        Self {
            bulk_rows: 500,
            hours: "08:00-20:00".to_owned(),
            weekdays: ["mon", "tue", "wed", "thu", "fri"].map(str::to_owned).to_vec(),
            holidays: Vec::new(),
            workdays: Vec::new(),
            timezone: None,
            scheduled: false,
            shown_days: 7,
        }
    }
}

impl RawAlerts {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// `zone` is the agent's.
    pub(super) fn check(&self, zone: Option<chrono_tz::Tz>, reading: &mut Reading<'_>) -> Option<Alerts> {
        let place = Place::of("alerts");
        let zone = match &self.timezone {
            Some(name) => reading.zone(&place.key("timezone"), name),
            None => zone,
        };
        let hours = self.hours.split_once('-').and_then(|(from, until)| Some((minutes_of(from)?, minutes_of(until)?)));
        let hours = hours.filter(|(from, until)| from < until);
        if hours.is_none() {
            let advice = "write `HH:MM-HH:MM`, the first before the second; `00:00-24:00` is the whole day";
            reading.fault(&place.key("hours"), "these are no hours of a day", advice);
        }
        if self.bulk_rows == 0 {
            let advice = "write 1 for every record, or a number that nothing reaches for no alert";
            reading.fault(&place.key("bulk_rows"), "no records at all are not many", advice);
        }
        let mut weekdays = Vec::new();
        for (number, name) in self.weekdays.iter().enumerate() {
            if let Ok(day) = name.parse::<Weekday>() {
                weekdays.push(day);
            } else {
                let known = "write `mon`, `tue`, `wed`, `thu`, `fri`, `sat` or `sun`";
                let place = place.key("weekdays").index(number);
                reading.fault(&place, format!("`{name}` is no day of the week"), known);
            }
        }
        let (holidays, workdays) = (self.holidays.clone(), self.workdays.clone());
        let (zone, (from, until)) = zone.zip(hours)?;
        let hours = WorkingHours { zone, from, until, weekdays, holidays, workdays };
        let (bulk_rows, scheduled, shown_days) = (self.bulk_rows, self.scheduled, self.shown_days);
        Some(Alerts { bulk_rows, hours, scheduled, shown_days })
    }
}
