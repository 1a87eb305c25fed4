//! What the last execution of a task came to, kept for as long as it is not well: `status` lists it.
//!
//! Nothing is written while tasks go well, so that an idle agent changes nothing.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::control::{Tx, time_text};
use crate::installation::Installation;

use super::{Result, TaskError};

/// The beginning of the `meta` entries.
const TROUBLE: &str = "trouble:";
/// When a retention last found every store, and nothing to do that failed.
const RETENTION_WELL: &str = "retention_well";

/// A task whose last execution was not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// `partial`, `refused` or `failed`.
    pub state: String,
    /// One line, without personal data.
    pub summary: String,
    /// Since when it has not been well.
    pub since: DateTime<Utc>,
}

/// Notes how a task ended. A refusal while all destruction is held is none of the task's: what was known stays.
///
/// # Errors
/// When the control database fails.
pub async fn note_outcome(installation: &Installation, task: &str, state: &str, summary: &str) -> Result<()> {
    let name = format!("{TROUBLE}{task}");
    let mut tx = installation.control.read().await?;
    let known = tx.meta(&name).await?;
    let is_held = tx.meta("agent_hold").await?.is_some();
    drop(tx);
    if state == "stopped" || (state == "refused" && is_held) || (state == "done" && known.is_none()) {
        return Ok(());
    }
    let mut tx = installation.control.begin().await?;
    if state == "done" {
        tx.clear_meta(&name).await?;
        return Ok(tx.commit().await?);
    }
    let earlier = known.as_deref().map(parse).transpose()?;
    let since = earlier.map_or_else(|| installation.clock.now(), |trouble| trouble.since);
    let trouble = Trouble { state: state.to_owned(), summary: summary.to_owned(), since };
    let text = serde_json::to_string(&trouble)
        .map_err(|_| TaskError::Inconsistent("a task's outcome cannot be written".to_owned()))?;
    if known.as_deref() != Some(text.as_str()) {
        tx.set_meta(&name, &text).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The tasks whose last execution was not well, by name.
///
/// # Errors
/// When the control database fails, or an entry is damaged.
pub(super) async fn troubles(tx: &mut Tx) -> Result<Vec<(String, Trouble)>> {
    let entries = tx.metas(TROUBLE).await?;
    entries.into_iter().map(|(name, text)| Ok((name[TROUBLE.len()..].to_owned(), parse(&text)?))).collect()
}

fn parse(text: &str) -> Result<Trouble> {
    serde_json::from_str(text).map_err(|_| TaskError::Inconsistent("the outcome of a task is damaged".to_owned()))
}

/// Notes that retention reached every store and found nothing left to erase, so that older failures are made good.
///
/// # Errors
/// When the control database fails.
pub async fn note_retention_well(installation: &Installation) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    tx.set_meta(RETENTION_WELL, &time_text(installation.clock.now())).await?;
    Ok(tx.commit().await?)
}

/// When [`note_retention_well`] last did.
pub(super) async fn retention_well(tx: &mut Tx) -> Result<Option<DateTime<Utc>>> {
    Ok(tx.meta(RETENTION_WELL).await?.map(|at| crate::control::parse_time(&at)).transpose()?)
}
