//! Alerts of work on many records outside of working hours: an entry of the operation log, and a note that `status` reads.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Installation, Operation};
use crate::control::Tx;
use crate::error::{Result, TaskError};

/// The beginning of the `meta` entries.
const ALERT: &str = "alert:";

/// Somebody worked on many records when nobody was expected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkAlert {
    /// What was done, as the operation log calls it.
    pub operation: String,
    /// To what.
    pub object: String,
    /// By whom.
    pub operator: String,
    /// How many records.
    pub rows: u64,
    /// When.
    pub at: DateTime<Utc>,
}

impl Installation {
    /// Notes that an operation on so many records of customers succeeded. One on many outside of working hours raises an alert; not what the
    /// agent does by its calendar, unless that is configured. What was done is done: an alert that cannot be noted is told, and no error.
    pub async fn note_bulk(&self, operation: &str, object: &str, rows: u64) {
        if let Err(error) = self.raise(operation, object, rows).await {
            let error = crate::error::with_causes(&error);
            tracing::error!(
                error,
                operation,
                object,
                rows,
                "an alert of work outside of working hours could not be noted"
            );
        }
    }

    async fn raise(&self, operation: &str, object: &str, rows: u64) -> Result<()> {
        let (alerts, at) = (&self.config.alerts, self.clock.now());
        if rows < alerts.bulk_rows || (self.is_scheduled && !alerts.scheduled) || !alerts.hours.is_off(at) {
            return Ok(());
        }
        let references = vec![("operation".to_owned(), operation.to_owned()), ("rows".to_owned(), rows.to_string())];
        let detail = Some("OFF_HOURS_BULK".to_owned());
        let raised = Operation {
            name: "alert.off-hours",
            object,
            outcome: "success",
            detail,
            references,
            ..Operation::default()
        };
        self.append(raised).await?;
        let (operation, object) = (operation.to_owned(), object.to_owned());
        let alert = BulkAlert { operator: self.operator.clone(), operation, object, rows, at };
        let text = serde_json::to_string(&alert)
            .map_err(|_| TaskError::Inconsistent("an alert cannot be written".to_owned()))?;
        let mut tx = self.control.begin().await?;
        for (name, old) in tx.metas(ALERT).await? {
            if !parse(&old).is_ok_and(|old| old.is_shown(alerts.shown_days, at)) {
                tx.clear_meta(&name).await?;
            }
        }
        tx.set_meta(&format!("{ALERT}{}:{}", alert.operation, alert.object), &text).await?;
        Ok(tx.commit().await?)
    }
}

impl BulkAlert {
    fn is_shown(&self, days: u16, now: DateTime<Utc>) -> bool {
        now - self.at < TimeDelta::days(i64::from(days))
    }

    /// Those of the last days, oldest first.
    ///
    /// # Errors
    /// When the control database fails, or a note is damaged.
    pub async fn of_last(tx: &mut Tx, days: u16, now: DateTime<Utc>) -> Result<Vec<Self>> {
        let notes = tx.metas(ALERT).await?;
        let mut alerts = notes.iter().map(|(_, text)| parse(text)).collect::<Result<Vec<_>>>()?;
        alerts.retain(|alert| alert.is_shown(days, now));
        alerts.sort_by_key(|alert| alert.at);
        Ok(alerts)
    }
}

fn parse(text: &str) -> Result<BulkAlert> {
    serde_json::from_str(text).map_err(|_| TaskError::Inconsistent("the note of an alert is damaged".to_owned()))
}
