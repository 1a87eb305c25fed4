//! What can go wrong with a root slot, and whether trying again helps.

use std::io;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::TokenError;
use crate::keys::Generation;
use crate::random::RandomUnavailable;

/// What can go wrong with a slot.
#[derive(Debug, Error)]
pub enum SlotError {
    /// The generation's root key is not there.
    #[error("the root slot {place} holds no key for generation {generation}")]
    Missing {
        /// The generation.
        generation: Generation,
        /// The slot.
        place: String,
    },
    /// Others than the owner may read it.
    #[error("{} can be read by others (mode {mode:03o}); run: chmod {wanted:03o} {}", path.display(), path.display())]
    ReadableByOthers {
        /// What is readable.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// What is there is not a root key of this generation and installation.
    #[error("the root key at {} is unusable: {what}", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A generation that was to be gone is still there.
    #[error("the root key of generation {generation} is still there: {what}")]
    StillThere {
        /// The generation.
        generation: Generation,
        /// How that shows.
        what: &'static str,
    },
    /// A destruction was begun but is not irrevocable yet.
    #[error("the root key of generation {generation} is not irrevocably gone before {at}")]
    NotYet {
        /// The generation.
        generation: Generation,
        /// When it will be.
        at: DateTime<Utc>,
    },
    /// The host's file system failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The key service is sealed.
    #[error("the key service {place} is sealed")]
    Sealed {
        /// The slot.
        place: String,
    },
    /// The key service refuses the agent a path.
    #[error("the key service {place} does not let the agent {capability} {path}")]
    Denied {
        /// The slot.
        place: String,
        /// The path in the service.
        path: String,
        /// The capability of the policy that is missing.
        capability: &'static str,
    },
    /// The key service does not know the agent (any more).
    #[error("the key service {place} does not accept the agent: {what}")]
    NotAuthenticated {
        /// The slot.
        place: String,
        /// What was refused.
        what: &'static str,
    },
    /// Somebody else destroyed the version that wraps a root key.
    #[error(
        "version {version} of the key at {place}, under which the root key of generation {generation} is wrapped, was destroyed \
         by somebody else: the lowest version there is {lowest}"
    )]
    VersionGone {
        /// The generation.
        generation: Generation,
        /// The slot.
        place: String,
        /// The version.
        version: u64,
        /// The lowest that is left.
        lowest: u64,
    },
    /// Somebody switched off the version that wraps a root key. It can be switched on again.
    #[error(
        "version {version} of the key at {place}, under which the root key of generation {generation} is wrapped, is switched \
         off: min_decryption_version is {lowest}"
    )]
    VersionDisabled {
        /// The generation.
        generation: Generation,
        /// The slot.
        place: String,
        /// The version.
        version: u64,
        /// The lowest that may be used.
        lowest: u64,
    },
    /// The key service does not allow the agent an action.
    #[error("the key service {place} does not allow the agent {action}")]
    ActionDenied {
        /// The slot.
        place: String,
        /// The action, as the service's policies name it.
        action: &'static str,
    },
    /// The service's key that wraps a root key cannot be used: switched off, about to be deleted, or deleted by somebody else.
    #[error("the key {key} at {place}, under which the root key of generation {generation} is wrapped, {}", use_of(*state))]
    KeyUnusable {
        /// The generation.
        generation: Generation,
        /// The slot.
        place: String,
        /// The key's id in the service.
        key: String,
        /// Why.
        state: KeyTrouble,
    },
    /// The key in the service is not one that a root may rest on.
    #[error("the key at {place} is not fit to hold root keys: {what}")]
    Unfit {
        /// The slot.
        place: String,
        /// Why.
        what: &'static str,
    },
    /// The slot cannot be set up.
    #[error("the root slot {place} cannot be used: {what}")]
    Setup {
        /// The slot.
        place: String,
        /// Why.
        what: &'static str,
    },
    /// The key service cannot be reached or refused for now.
    #[error("the key service {place} is not available: {what}")]
    Unavailable {
        /// The slot.
        place: String,
        /// What was seen.
        what: String,
    },
    /// Something with a PKCS#11 token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No randomness.
    #[error("no randomness for a root key")]
    Random(#[from] RandomUnavailable),
}

/// Why a key of a service cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTrouble {
    /// It is switched off, and can be switched on again.
    Disabled,
    /// It is to be deleted at this time; until then that can be called off.
    Doomed(DateTime<Utc>),
    /// It is deleted.
    Deleted,
    /// It is in another state in which it opens nothing.
    Other,
}

fn use_of(state: KeyTrouble) -> String {
    match state {
        KeyTrouble::Disabled => "is switched off".to_owned(),
        KeyTrouble::Doomed(at) => format!("is to be deleted at {at} and opens nothing any more"),
        KeyTrouble::Deleted => "was deleted by somebody else".to_owned(),
        KeyTrouble::Other => "is in a state in which it opens nothing".to_owned(),
    }
}

impl SlotError {
    /// Whether the same call may succeed later without anybody repairing the slot. A full disk counts: space comes back.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use io::ErrorKind as Kind;
        match self {
            Self::Io { source, .. } => !matches!(
                source.kind(),
                Kind::PermissionDenied
                    | Kind::NotFound
                    | Kind::ReadOnlyFilesystem
                    | Kind::NotADirectory
                    | Kind::Unsupported
            ),
            Self::Token(error) => error.is_retryable(),
            Self::NotYet { .. } | Self::Unavailable { .. } | Self::Sealed { .. } | Self::Random(_) => true,
            Self::Missing { .. }
            | Self::ReadableByOthers { .. }
            | Self::Damaged { .. }
            | Self::StillThere { .. }
            | Self::Denied { .. }
            | Self::NotAuthenticated { .. }
            | Self::VersionGone { .. }
            | Self::VersionDisabled { .. }
            | Self::ActionDenied { .. }
            | Self::KeyUnusable { .. }
            | Self::Unfit { .. }
            | Self::Setup { .. } => false,
        }
    }
}
