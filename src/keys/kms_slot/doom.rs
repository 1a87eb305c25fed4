//! What the root slot and the keys of applications have in common: the order to delete a key, and whose word its absence is.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::client::KmsClient;
use super::shelf::place_of;
use super::wire::{Alias, KeyMetadata, KeyState};
use super::{Result, STALE_TRIES};
use crate::keys::slot::{ClaimSentence, Residual, SlotClaim, SlotClass, SlotKind};

/// What may be said of a key that KMS deletes at a date.
pub(super) fn claim() -> SlotClaim {
    SlotClaim {
        kind: SlotKind::AwsKms,
        class: SlotClass::C,
        sentence: ClaimSentence::IrrevocableFromDate,
        residuals: vec![Residual::ProviderWord, Residual::MemoryCapture],
        // The provider's word: it keeps nothing of a key that it has deleted.
        residual_days: Some(0),
    }
}

/// What became of a key that is to go.
pub(super) struct Doomed {
    /// What the service said of it; none when it does not know it.
    pub(super) key: Option<KeyMetadata>,
    /// When it is deleted.
    pub(super) at: Option<DateTime<Utc>>,
    /// Whether this call ordered it.
    pub(super) is_ordered: bool,
}

impl KmsClient {
    /// Orders the deletion of one key after so many days. A key that is to be deleted already, or is gone, is left as it is. `pause`
    /// is that before a stale answer is asked for again; it doubles with each.
    pub(super) async fn doom(&self, key: &str, days: u8, mut pause: Duration) -> Result<Doomed> {
        let mut last = None;
        for _ in 0..STALE_TRIES {
            let Ok(found) = self.describe(key).await? else {
                // Gone, or made a moment ago by a call that stopped: an answer may be older than the key.
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            };
            if let KeyState::PendingDeletion(at) = found.state() {
                return Ok(Doomed { key: Some(found), at: Some(at), is_ordered: false });
            }
            match self.schedule_deletion(key, days).await? {
                Ok(ordered) => return Ok(Doomed { key: Some(found), at: Some(ordered.at), is_ordered: true }),
                // The description was older than an order of before.
                Err(_) => last = Some(found),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        match last {
            Some(_) => Err(self.odd("it says that a key works, and will not have it deleted")),
            None => Ok(Doomed { key: None, at: None, is_ordered: false }),
        }
    }

    /// Whether the service that answers is the one that held keys in these places: another account or region does not know them
    /// either.
    pub(super) fn check_place<'p>(
        &self,
        places: impl IntoIterator<Item = Option<(&'p str, &'p str)>>,
        aliases: &[Alias],
    ) -> Result<()> {
        let mut places = places.into_iter().peekable();
        if places.peek().is_none() {
            return Ok(());
        }
        let answering = aliases.iter().find_map(|alias| place_of(&alias.alias_arn));
        let answering = answering
            .ok_or_else(|| self.odd("it names no alias at all, so nothing shows that the right account answers"))?;
        if places.all(|place| place == Some(answering)) {
            return Ok(());
        }
        Err(self.odd("another account or region answers than the one that holds the keys"))
    }
}
