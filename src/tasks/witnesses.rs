//! Whether the witnesses of the embedded audit service's log sign its heads, and see the same history of it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Audit;
use crate::control::Tx;
use crate::installation::{WitnessNote, witness_notes};

use super::Result;

/// A witness that was asked in vain for so long needs somebody; heads are signed again every hour.
const FAILING: TimeDelta = TimeDelta::hours(3);
/// A signature older than this says nothing of the log as it is: nobody asked.
const STALE: TimeDelta = TimeDelta::hours(26);

/// What is wrong with a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessTrouble {
    /// `witness-other-history` or `witness-overdue`.
    pub code: &'static str,
    /// One sentence.
    pub what: String,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
}

/// What is known of the configured witnesses: their names, with what is wrong, or when they signed last.
///
/// # Errors
/// When the control database cannot be read.
pub async fn look_at_witnesses(
    tx: &mut Tx,
    audit: &Audit,
    now: DateTime<Utc>,
) -> Result<Vec<std::result::Result<Option<DateTime<Utc>>, WitnessTrouble>>> {
    if audit.witness_urls.is_empty() {
        return Ok(Vec::new());
    }
    let mut notes = witness_notes(tx).await?;
    let found = audit.quorum.witnesses().iter().map(|key| {
        let note = notes.remove(key.name()).unwrap_or_default();
        trouble(key.name(), &note, now).map_or(Ok(note.signed_at), Err)
    });
    Ok(found.collect())
}

fn trouble(name: &str, note: &WitnessNote, now: DateTime<Utc>) -> Option<WitnessTrouble> {
    let why = note.why.as_deref().unwrap_or("it was not asked");
    if note.other_history {
        let what = format!(
            "witness {name} has seen another history of the audit log: it was rolled back, or shows others something else"
        );
        return Some(WitnessTrouble { code: "witness-other-history", what, since: note.failed_since });
    }
    let since = match (note.failed_since, note.signed_at) {
        (Some(failed), _) if now - failed > FAILING => note.signed_at.or(Some(failed)),
        (None, Some(signed)) if now - signed > STALE => Some(signed),
        _ => return None,
    };
    let what = format!("witness {name} has not signed the audit log's head for long: {why}");
    Some(WitnessTrouble { code: "witness-overdue", what, since })
}

/// The line of `audit verify`: bad when a witness saw another history, or none has said for long that the head is still this one.
///
/// # Errors
/// When the control database cannot be read.
pub async fn witness_check(tx: &mut Tx, audit: &Audit, now: DateTime<Utc>) -> Result<Option<(String, bool, String)>> {
    let found = look_at_witnesses(tx, audit, now).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let line = |good: bool, said: String| Some(("witnesses".to_owned(), good, said));
    if let Some(trouble) = found.iter().find_map(|one| one.as_ref().err()) {
        return Ok(line(false, trouble.what.clone()));
    }
    let signed: Vec<DateTime<Utc>> = found.iter().flatten().copied().flatten().collect();
    let last = signed.iter().min().map_or_else(String::new, |at| format!(", the oldest signature of {at}"));
    Ok(line(true, format!("{} of {} have signed the log's head{last}", signed.len(), found.len())))
}
