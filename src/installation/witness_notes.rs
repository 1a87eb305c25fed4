//! What came of asking the witnesses of the embedded audit service's log, kept in the control database for `status` and `audit verify`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::audit::witness::{WitnessFailed, WitnessNotes, Witnessing};
use crate::clock::Clock;
use crate::control::{Control, ControlError, Tx};

/// How the names of the notes begin.
const NOTE: &str = "witness:";
/// A note that would only say the same with a later time is written so rarely.
const SAME_AGAIN: TimeDelta = TimeDelta::minutes(10);

/// How long a note may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a witness.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WitnessNote {
    /// When it signed a head last, by its own clock.
    pub signed_at: Option<DateTime<Utc>>,
    /// Since when it has not signed although it was asked; none when it signed last time.
    pub failed_since: Option<DateTime<Utc>>,
    /// Why not, in words.
    pub why: Option<String>,
    /// Whether it saw another history of the log. Stays until the witness signs again.
    pub other_history: bool,
}

impl WitnessNote {
    fn after(&self, found: Witnessing, now: DateTime<Utc>) -> Self {
        match found {
            Witnessing::Signed(at) => Self { signed_at: Some(at), ..Self::default() },
            Witnessing::Failed(failed) => Self {
                signed_at: self.signed_at,
                failed_since: self.failed_since.or(Some(now)),
                why: Some(failed.to_string()),
                other_history: self.other_history || failed == WitnessFailed::OtherHistory,
            },
        }
    }

    /// Whether writing it can wait, because it says nothing new.
    fn says_the_same(&self, before: &Self) -> bool {
        let is_soon = match (self.signed_at, before.signed_at) {
            (Some(now), Some(then)) => now - then < SAME_AGAIN,
            (now, then) => now == then,
        };
        is_soon && Self { signed_at: before.signed_at, ..self.clone() } == *before
    }
}

/// What is noted of witnesses, by the names of their keys.
///
/// # Errors
/// When the control database fails. A note that cannot be read counts as none.
pub async fn witness_notes(tx: &mut Tx) -> Result<HashMap<String, WitnessNote>, ControlError> {
    let notes = tx.metas(NOTE).await?.into_iter();
    Ok(notes
        .filter_map(|(name, text)| Some((name.strip_prefix(NOTE)?.to_owned(), serde_json::from_str(&text).ok()?)))
        .collect())
}

/// The notes in the control database.
pub(super) struct KeptWitnesses {
    control: Control,
    clock: Arc<dyn Clock>,
    /// What was written last, by this process.
    written: Mutex<HashMap<String, WitnessNote>>,
}

impl KeptWitnesses {
    pub(super) fn new(control: Control, clock: Arc<dyn Clock>) -> Self {
        Self { control, clock, written: Mutex::new(HashMap::new()) }
    }

    async fn write(&self, witness: &str, found: Witnessing) -> Result<(), ControlError> {
        let mut written = self.written.lock().await;
        let known = match written.get(witness) {
            Some(note) => note.clone(),
            None => witness_notes(&mut self.control.read().await?).await?.remove(witness).unwrap_or_default(),
        };
        let note = known.after(found, self.clock.now());
        if !note.says_the_same(&known) {
            let text = serde_json::to_string(&note).unwrap_or_default();
            let mut tx = self.control.begin().await?;
            tx.set_meta(&format!("{NOTE}{witness}"), &text).await?;
            tx.commit().await?;
            written.insert(witness.to_owned(), note);
        }
        Ok(())
    }
}

#[async_trait]
impl WitnessNotes for KeptWitnesses {
    async fn note(&self, witness: &str, found: Witnessing) {
        // A filing waits for this.
        match tokio::time::timeout(PATIENCE, self.write(witness, found)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %crate::error::with_causes(&error), witness, "what a witness said could not be noted");
            }
            Err(_) => tracing::warn!(witness, "what a witness said could not be noted in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_history_is_not_forgotten_until_the_witness_signs_again() {
        let at = |minutes: i64| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::minutes(minutes);
        let signed = WitnessNote::default().after(Witnessing::Signed(at(0)), at(0));
        assert!(signed.after(Witnessing::Signed(at(9)), at(9)).says_the_same(&signed));
        assert!(!signed.after(Witnessing::Signed(at(10)), at(10)).says_the_same(&signed));
        let forked = signed.after(Witnessing::Failed(WitnessFailed::OtherHistory), at(20));
        assert!(!forked.says_the_same(&signed) && forked.other_history);
        let away = forked.after(Witnessing::Failed(WitnessFailed::Unreachable), at(30));
        assert!(away.other_history && !away.says_the_same(&forked));
        assert_eq!((away.signed_at, away.failed_since), (Some(at(0)), Some(at(20))));
        assert_eq!(away.after(Witnessing::Signed(at(40)), at(40)).failed_since, None);
    }
}
