//! The port to places outside of this process that sign for the agent: a key service, a PKCS#11 token.
//!
//! These keys sign certificates, manifests and drill records (ECDSA P-256 with SHA-256). They protect no customer data and are no
//! part of the key tree: losing one loses no proof, and a new one takes its place. The private half never enters this process.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::slot::{Shortcoming, SlotError, TokenError};

type Result<T, E = SigningError> = std::result::Result<T, E>;

/// Where a signing key lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SigningKind {
    /// A file on this host that only its owner reads.
    #[default]
    File,
    /// OpenBao or Vault transit.
    Transit,
    /// A PKCS#11 token.
    Pkcs11,
}

impl SigningKind {
    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Transit => "transit",
            Self::Pkcs11 => "pkcs11",
        }
    }
}

/// The public half of a key, in the form that its place gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicHalf {
    /// PEM (`PUBLIC KEY`).
    Pem(String),
    /// An uncompressed point.
    Point(Vec<u8>),
}

/// A key that a place holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedKey {
    /// Its name there.
    pub name: String,
    /// Its public half.
    pub public: PublicHalf,
}

/// Why a signing key cannot be used. Nothing is lost by any of these: what is to be signed waits.
#[derive(Debug, Error)]
pub enum SigningError {
    /// The place cannot be reached, or refuses the agent.
    #[error(transparent)]
    Slot(SlotError),
    /// The key is not there any more, although nobody here removed it.
    #[error("the signing key {name} is not at {place} any more: somebody else deleted it")]
    KeyGone {
        /// The key.
        name: String,
        /// Where.
        place: String,
    },
    /// Somebody switched the key off. It can be switched on again.
    #[error("the signing key {name} at {place} is switched off: min_encryption_version is {lowest}")]
    SwitchedOff {
        /// The key.
        name: String,
        /// Where.
        place: String,
        /// The lowest version that may sign.
        lowest: u64,
    },
    /// What is there is no key for certificates.
    #[error("the signing key at {place} is not fit for certificates: {what}")]
    Unfit {
        /// Where.
        place: String,
        /// Why.
        what: &'static str,
    },
    /// A signature that the key in use did not make: another key has its name.
    #[error("the signature made at {place} is not by the key in use: another key has its name there")]
    OtherKey {
        /// Where.
        place: String,
    },
    /// The key in use lies where the configuration does not lead.
    #[error("the signing key in use lies in {}, under the name {name}, and [signing] does not lead there", kind.name())]
    Elsewhere {
        /// Where.
        kind: SigningKind,
        /// Its name there.
        name: String,
    },
    /// The key in a file.
    #[error("{0}")]
    File(String),
    /// The record of signing keys.
    #[error("the record of signing keys cannot be used: {0}")]
    Record(String),
    /// Another process put another key into use.
    #[error("another signing key was put into use since this process began; what it signs would not count")]
    Replaced,
    /// The clock stands before the time from which the key counts.
    #[error("the clock stands before {0}, from which the signing key counts: nobody would believe what it signs now")]
    TooEarly(chrono::DateTime<chrono::Utc>),
}

impl SigningError {
    /// Whether the same call may succeed later without anybody repairing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Slot(error) => error.is_retryable(),
            Self::TooEarly(_) => true,
            Self::KeyGone { .. }
            | Self::SwitchedOff { .. }
            | Self::Unfit { .. }
            | Self::OtherKey { .. }
            | Self::Elsewhere { .. }
            | Self::File(_)
            | Self::Record(_)
            | Self::Replaced => false,
        }
    }
}

impl From<SlotError> for SigningError {
    /// What a place says of root keys is said of signing keys here.
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Unfit { place, what }
            | SlotError::Setup { place, what }
            | SlotError::Token(TokenError::Unfit { place, what }) => Self::Unfit { place, what },
            other => Self::Slot(other),
        }
    }
}

/// A place that holds signing keys.
#[async_trait]
pub trait SigningPlace: Send + Sync {
    /// Its kind.
    fn kind(&self) -> SigningKind;

    /// Where it is, in words for errors.
    fn place(&self) -> String;

    /// A key that is none of those `taken`: one that an interrupted call made, or a new one.
    ///
    /// # Errors
    /// When there is none and none can be made.
    async fn make(&self, taken: &[String]) -> Result<PlacedKey>;

    /// The public half of a key as the place has it now.
    ///
    /// # Errors
    /// [`SigningError::KeyGone`] when it is not there.
    async fn public(&self, name: &str) -> Result<PublicHalf>;

    /// Signs a message with a key: ECDSA over its SHA-256, in ASN.1 DER.
    ///
    /// # Errors
    /// When the place cannot be reached, refuses, or does not have the key.
    async fn sign(&self, name: &str, message: &[u8]) -> Result<Vec<u8>>;

    /// What is wrong with how the place is set up.
    ///
    /// # Errors
    /// When it cannot be reached.
    async fn shortcomings(&self) -> Result<Vec<Shortcoming>>;

    /// Lets a PIN be tried again that was refused.
    ///
    /// # Errors
    /// When the note of it cannot be removed.
    async fn allow_another_try(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        let place = || "p".to_owned();
        let waits = SigningError::from(SlotError::Unavailable { place: place(), what: "down".to_owned() });
        assert!(waits.is_retryable());
        let unfit = SigningError::from(SlotError::Token(TokenError::Unfit { place: place(), what: "no ECDSA" }));
        assert!(matches!(&unfit, SigningError::Unfit { what: "no ECDSA", .. }) && !unfit.is_retryable());
        assert!(!unfit.to_string().contains("root"), "{unfit}");
        assert!(!SigningError::KeyGone { name: "k/1".to_owned(), place: place() }.is_retryable());
    }
}
