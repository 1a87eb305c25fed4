//! What records of media wait for, from the control database alone.

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::loss::chains_of;
use super::{DESTROYED, MediaBody, SETTLED, SHREDDING, is_same};
use crate::control::{MediaRow, Tx};
use crate::tasks::Result;

/// What a record waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MediumWait {
    /// Its certificate.
    Certificate,
    /// Somebody who looks whether a destroyed medium holds nothing any more; until then its copies count as living.
    Look,
    /// Somebody who says that the keys of a lost medium's snapshots are to die, which open until then.
    Decision,
    /// The end of keys that are to die, and that something needs still, or until a date.
    Keys,
}

/// A record of a medium that waits for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitingMedium {
    /// Its id.
    pub id: String,
    /// Its number.
    pub number: i64,
    /// The medium, by its own numbers.
    pub name: String,
    /// For what.
    pub wait: MediumWait,
    /// How many chains of snapshots on it open; 0 of a destroyed one.
    pub open_chains: usize,
    /// When it was recorded.
    pub since: DateTime<Utc>,
    /// Until when roots can be called back that open what is on it, if that is all that is missing.
    pub until: Option<DateTime<Utc>>,
}

impl WaitingMedium {
    /// Whether it needs a person, or should have ended by itself: a decision at once, the rest behind `allowed`. A hold may keep keys as
    /// long as it is in force.
    #[must_use]
    pub fn is_overdue(&self, now: DateTime<Utc>, allowed: TimeDelta, is_held: bool) -> bool {
        match self.wait {
            MediumWait::Decision => true,
            MediumWait::Look => false,
            MediumWait::Certificate => now - self.since > allowed,
            MediumWait::Keys => !is_held && now - self.until.unwrap_or(self.since) > allowed,
        }
    }
}

/// The records that wait for something, oldest first.
///
/// # Errors
/// When the control database fails, or a record is damaged.
pub async fn waiting_media(tx: &mut Tx) -> Result<Vec<WaitingMedium>> {
    let rows = tx.media().await?;
    let mut waiting = Vec::new();
    for row in &rows {
        let body = MediaBody::of(row)?;
        let of = |wait, open_chains, until| WaitingMedium {
            id: row.id.clone(),
            number: row.number,
            name: body.medium.name(),
            wait,
            open_chains,
            since: row.recorded_at,
            until,
        };
        if row.event == DESTROYED {
            if row.certified.is_none() {
                waiting.push(of(MediumWait::Certificate, 0, None));
            } else if !body.was_looked_at() && !was_looked_at_later(&rows, row, &body)? {
                waiting.push(of(MediumWait::Look, 0, None));
            }
            continue;
        }
        let open: Vec<_> = chains_of(tx, row).await?.into_iter().filter(|chain| !chain.is_dead).collect();
        let until = open.iter().map(|chain| chain.until).collect::<Option<Vec<_>>>();
        let until = until.and_then(|dates| dates.into_iter().max());
        match (open.is_empty(), row.state.as_str()) {
            (false, SHREDDING) => waiting.push(of(MediumWait::Keys, open.len(), until)),
            (false, state) if state != SETTLED => waiting.push(of(MediumWait::Decision, open.len(), None)),
            (true, SHREDDING) => waiting.push(of(MediumWait::Certificate, 0, None)),
            _ => {}
        }
    }
    Ok(waiting)
}

fn was_looked_at_later(rows: &[MediaRow], row: &MediaRow, body: &MediaBody) -> Result<bool> {
    for later in rows.iter().filter(|later| later.event == DESTROYED && later.number > row.number) {
        let later = MediaBody::of(later)?;
        if later.was_looked_at() && is_same(&later.medium, &body.medium) {
            return Ok(true);
        }
    }
    Ok(false)
}
