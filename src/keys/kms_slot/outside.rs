//! Applications' keys in AWS KMS: looked at, and deleted when their time is over. Class C, as the root slot is: the service deletes
//! a key only at a date, and until then whoever has the right calls that off.
//!
//! Only ids name a key here. An alias can be put on another key, and goes with its own: its absence would say nothing. A key that
//! the service does not know counts as gone only when account and region of its answers are those that the key had.
//!
//! The agent needs to describe a key, to list the aliases of the account, and to schedule a deletion. What an application stores
//! has no form that the service documents, and often wraps data keys only, so the configuration says what sealed values begin with.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::SecondsFormat;

use super::client::{KmsClient, Refusal};
use super::shelf::place_of;
use super::wire::{KeyMetadata, KeyState};
use super::{KmsSetup, Result, STALE_TRIES};
use crate::keys::outside::{KeyFacts, OutsideDone, OutsideKeys, OutsideStep};
use crate::keys::slot::{Shortcoming, SlotClaim, SlotKind};
use crate::policy::registry::SecretText;

/// The keys of one account and region.
pub struct KmsKeys {
    client: KmsClient,
    setup: KmsSetup,
    /// What sealed values begin with.
    sealed_prefix: Vec<u8>,
}

impl KmsKeys {
    /// The keys of an account and region. The service is not asked yet.
    ///
    /// # Errors
    /// When its address is of no use.
    pub fn new(setup: KmsSetup, sealed_prefix: Vec<u8>) -> Result<Self> {
        Ok(Self { client: KmsClient::new(&setup)?, setup, sealed_prefix })
    }

    async fn describe(&self, key: &SecretText) -> Result<Option<KeyMetadata>> {
        match self.client.describe(key.dangerous_text()).await? {
            Ok(found) => Ok(Some(found)),
            Err(Refusal::Absent) => Ok(None),
            Err(_) => Err(self.client.odd("it does not describe the key")),
        }
    }

    /// Whether the account and region that answer are those of the key.
    async fn check_place(&self, known: &KeyFacts) -> Result<()> {
        let place = known.place.as_deref().and_then(|place| place.split_once('/'));
        self.client.check_place([place], &self.client.aliases().await?)
    }
}

fn facts(found: &KeyMetadata) -> KeyFacts {
    let made = found.made_at().map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)).unwrap_or_default();
    let deleted_at = match found.state() {
        KeyState::PendingDeletion(at) => Some(at),
        _ => None,
    };
    KeyFacts {
        // The service rotates material behind one id and deletes all of it together: to the outside there is one version.
        latest_version: 1,
        lowest_version: 1,
        made: BTreeMap::from([(1, made)]),
        exportable: !found.never_exportable() && !found.is_imported(),
        plaintext_backup: false,
        imported: found.is_imported(),
        place: place_of(&found.arn).map(|(region, account)| format!("{region}/{account}")),
        deleted_at,
    }
}

#[async_trait]
impl OutsideKeys for KmsKeys {
    fn kind(&self) -> SlotKind {
        SlotKind::AwsKms
    }

    fn claim(&self) -> SlotClaim {
        super::doom::claim()
    }

    async fn look(&self, key: &SecretText, known: Option<&KeyFacts>) -> Result<Option<KeyFacts>> {
        let mut pause = self.setup.stale_pause;
        let was_doomed = known.is_some_and(|known| known.deleted_at.is_some());
        for _ in 1..STALE_TRIES {
            match self.describe(key).await? {
                // It may be an answer of before the order.
                Some(found) if was_doomed && facts(&found).deleted_at.is_none() => tokio::time::sleep(pause).await,
                Some(found) => return Ok(Some(facts(&found))),
                None => break,
            }
            pause *= 2;
        }
        let found = self.describe(key).await?;
        if let (None, Some(known)) = (&found, known) {
            self.check_place(known).await?;
        }
        Ok(found.as_ref().map(facts))
    }

    async fn destroy(&self, key: &SecretText) -> Result<OutsideDone> {
        if self.describe(key).await?.is_some_and(|found| found.is_multi_region()) {
            return Err(self.client.odd("the key is a multi-Region key, whose material lives in other regions too"));
        }
        let days = self.setup.deletion_window_days;
        let doomed = self.client.doom(key.dangerous_text(), days, self.setup.stale_pause).await?;
        let steps = doomed.is_ordered.then_some(OutsideStep::DeletionScheduled).into_iter().collect();
        Ok(OutsideDone { steps, deleted_at: doomed.at })
    }

    async fn spare(&self, _key: &SecretText) -> Result<()> {
        // Nothing is prepared: an order to delete a key is the end, and the agent must not be able to call one off.
        Ok(())
    }

    fn is_sealed(&self, value: &[u8]) -> bool {
        value.starts_with(&self.sealed_prefix)
    }

    async fn shortcomings(&self, _key: &SecretText) -> Result<Vec<Shortcoming>> {
        // The service tells nobody their rights; without this one an absence could never be shown.
        self.client.aliases().await.map(|_| Vec::new())
    }
}
