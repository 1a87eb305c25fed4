//! Keys that sign certificates, in the transit engine of OpenBao or Vault: the versions of one key of type `ecdsa-p256`.
//!
//! A version is named `KEY/VERSION`, and every signature asks for its version: whoever rotates the key in the service changes nothing
//! here. The service gets the SHA-256 of what is signed, never the text. Whether the key can leave the service is read before a
//! version is taken, from the same switches as for root keys.

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};

use super::client::TransitClient;
use super::wire::KeyState;
use super::{Rights, TransitSetup, TransitSlot};
use crate::keys::signing::{PlacedKey, PublicHalf, SigningError, SigningKind, SigningPlace};
use crate::keys::slot::{Shortcoming, SlotError};

type Result<T, E = SigningError> = std::result::Result<T, E>;

/// One signing key of a transit engine.
pub struct TransitSigning {
    client: TransitClient,
    key: String,
}

impl TransitSigning {
    /// The key that the setup names; its folder is not used. The service is not asked yet.
    ///
    /// # Errors
    /// When its address or its certificate authorities are of no use.
    pub fn new(setup: &TransitSetup) -> Result<Self> {
        Ok(Self { client: TransitClient::new(setup)?, key: setup.key.clone() })
    }

    fn named(&self, version: u64) -> String {
        format!("{}/{version}", self.key)
    }

    /// The version of a name.
    fn version(&self, name: &str) -> Result<u64> {
        let version = name.strip_prefix(&self.key).and_then(|rest| rest.strip_prefix('/')?.parse().ok());
        version.ok_or_else(|| SigningError::Elsewhere { kind: SigningKind::Transit, name: name.to_owned() })
    }

    fn gone(&self, name: &str) -> SigningError {
        SigningError::KeyGone { name: name.to_owned(), place: self.place() }
    }

    fn unfit(&self, what: &'static str) -> SigningError {
        SigningError::Unfit { place: self.place(), what }
    }

    fn public_of(&self, state: &KeyState, version: u64) -> Result<PublicHalf> {
        let name = self.named(version);
        let pem = Some(version).filter(|version| *version >= state.lowest() && !state.soft_deleted);
        pem.and_then(|version| state.public_key(version)).map(PublicHalf::Pem).ok_or_else(|| self.gone(&name))
    }

    /// Why the service does not sign.
    async fn explain(&self, name: &str, version: u64) -> SigningError {
        match self.client.key_state().await {
            Err(error) => error.into(),
            Ok(None) => self.gone(name),
            Ok(Some(state)) if version < state.lowest() || state.soft_deleted => self.gone(name),
            Ok(Some(state)) if version < state.min_encryption_version => SigningError::SwitchedOff {
                name: name.to_owned(),
                place: self.place(),
                lowest: state.min_encryption_version,
            },
            Ok(Some(state)) if version > state.latest_version => self.gone(name),
            Ok(Some(state)) => self.unfit(state.unfit_for_signing().unwrap_or("it refuses to sign with it")),
        }
    }
}

#[async_trait]
impl SigningPlace for TransitSigning {
    fn kind(&self) -> SigningKind {
        SigningKind::Transit
    }

    fn place(&self) -> String {
        self.client.place().to_owned()
    }

    async fn make(&self, taken: &[String]) -> Result<PlacedKey> {
        let state = self.client.key_state().await?.ok_or_else(|| self.unfit("there is no such key"))?;
        if let Some(why) = state.unfit_for_signing() {
            return Err(self.unfit(why));
        }
        let version = if taken.contains(&self.named(state.latest_version)) {
            self.client.rotate().await?
        } else {
            state.latest_version
        };
        let state = self.client.key_state().await?.ok_or_else(|| self.gone(&self.named(version)))?;
        Ok(PlacedKey { name: self.named(version), public: self.public_of(&state, version)? })
    }

    async fn public(&self, name: &str) -> Result<PublicHalf> {
        let version = self.version(name)?;
        let state = self.client.key_state().await?.ok_or_else(|| self.gone(name))?;
        self.public_of(&state, version)
    }

    async fn sign(&self, name: &str, message: &[u8]) -> Result<Vec<u8>> {
        let version = self.version(name)?;
        match self.client.sign(digest(&SHA256, message).as_ref(), version).await {
            Ok(Some(signature)) => Ok(signature),
            Ok(None) => Err(self.explain(name, version).await),
            // A version that is switched off may be answered as if the service were out of order.
            Err(error @ SlotError::Unavailable { .. }) => match self.explain(name, version).await {
                found @ (SigningError::KeyGone { .. } | SigningError::SwitchedOff { .. }) => Err(found),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn shortcomings(&self) -> Result<Vec<Shortcoming>> {
        let state = self.client.key_state().await?.ok_or_else(|| self.unfit("there is no such key"))?;
        let switches = [
            ("exportable", state.exportable),
            ("allow_plaintext_backup", state.allow_plaintext_backup),
            ("deletion_allowed", state.deletion_allowed),
        ];
        let on = switches.into_iter().filter(|(_, is_on)| *is_on);
        let mut found: Vec<Shortcoming> = on.map(|(switch, _)| Shortcoming::SwitchOn { switch }).collect();
        let key = self.client.key_path("");
        let (mount, name) = key.split_once("/keys/").unwrap_or_default();
        let rights = Rights {
            needed: vec![
                (key.clone(), "read"),
                (format!("{key}/rotate"), "update"),
                (format!("{mount}/sign/{name}"), "update"),
            ],
            unwanted: vec![
                (key.clone(), vec!["delete", "create", "update"]),
                (format!("{key}/config"), vec!["create", "update"]),
                (format!("{mount}/export/signing-key/{name}"), vec!["read"]),
                (format!("{mount}/backup/{name}"), vec!["read"]),
                (format!("{mount}/restore/{name}"), vec!["create", "update"]),
            ],
        };
        found.extend(TransitSlot::rights_of(&self.client, &rights).await?);
        Ok(found)
    }
}
