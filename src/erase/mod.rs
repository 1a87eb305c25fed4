//! The eraser: surveys, stores plans, carries them out batch by batch, and reads absence back.
//!
//! Invariants: an intent is durable before a batch begins and its outcome after it ended (several batches may share the transactions in which
//! these are stored); what is deleted is in the plan
//! *and* matches the same predicate again inside the transaction; holds are read again inside it; a batch whose outcome
//! is unknown after a crash is settled by the marker that it wrote in its own transaction.

pub mod anonymise;
pub mod batch;
pub mod caps;
pub mod chunk;
pub mod crowds;
mod edited;
pub mod fate;
pub mod group;
pub mod knot;
pub mod neutral;
pub mod pace;
pub mod planner;
pub mod pre_image;
pub mod put_back;
pub mod read_back;
pub mod referrers;
mod stripped;
mod surrogate;
pub mod survey;
mod take;
pub mod throttle;
pub mod waits;

use std::sync::Arc;

use thiserror::Error;

use crate::clock::Clock;
use crate::control::{Control, ControlError};
use crate::keyring::{Keyring, KeyringError};
use crate::keys::sealed::ColumnError;
use crate::plan::model::Model;
use crate::policy::calendar::CalendarError;
use crate::policy::registry::ReplicaSpec;
use crate::policy::statute::CatalogueVersion;
use crate::random::{Random, RandomUnavailable};
use crate::stores::{DataStore, StoreError};
use crate::value::MalformedValues;

/// A registered store with its model, ready to be worked on.
#[derive(Clone)]
pub struct Site {
    /// Registry and catalogue joined.
    pub model: Arc<Model>,
    /// The adapter.
    pub store: Arc<dyn DataStore>,
    /// Its replicas that must not fall behind.
    pub replicas: Vec<Replica>,
}

/// A replica of a store.
#[derive(Clone)]
pub struct Replica {
    /// Its declaration.
    pub spec: ReplicaSpec,
    /// The adapter that reads from it.
    pub store: Arc<dyn DataStore>,
}

/// What every step of the eraser works with.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The control database.
    pub control: &'a Control,
    /// The key tree.
    pub keyring: &'a Keyring,
    /// The clock.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub random: &'a dyn Random,
    /// The stores that can be reached.
    pub sites: &'a [Site],
    /// The stores that cannot, with the reason.
    pub skipped: &'a [(String, String)],
    /// SHA-256 of policies, statutes and registry, hex.
    pub policy_digest: &'a str,
    /// The catalogue of statutes that counts.
    pub catalogue: CatalogueVersion,
}

impl Ground<'_> {
    /// The site of a store.
    #[must_use]
    pub fn site(&self, store: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.model.spec.name == store)
    }
}

/// What can stop a plan or a run.
#[derive(Debug, Error)]
pub enum EraseError {
    /// The store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control database failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A key is missing or damaged.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// A sealed list does not open.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// A stored list is damaged.
    #[error("a stored list is damaged")]
    Damaged(#[from] MalformedValues),
    /// A date lies outside what can be computed.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// The registry does not fit the database.
    #[error("the registry does not fit the database: {}", .0.join("; "))]
    Registry(Vec<String>),
    /// Something the engine's schema needs that this version cannot do.
    #[error("{what}")]
    Unsupported {
        /// What.
        what: String,
    },
    /// The plan may not run any more, or not at all: a cap, a changed policy or schema, a doubtful clock.
    #[error("{what}")]
    Refused {
        /// Why.
        what: String,
        /// What to do.
        advice: String,
    },
    /// Something that a begun run needs cannot be reached; the run goes on when it can.
    #[error("{what}")]
    NotNow {
        /// What.
        what: String,
        /// What to do.
        advice: String,
    },
    /// What is stored contradicts itself.
    #[error("{0}")]
    Inconsistent(String),
}

impl EraseError {
    /// Whether the same call may succeed later with nothing else done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Control(error) => error.is_retryable(),
            Self::Keyring(error) => error.is_retryable(),
            Self::Random(_) | Self::NotNow { .. } => true,
            _ => false,
        }
    }
}
