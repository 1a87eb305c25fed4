//! The root-slot port: where root keys live, one per generation, outside the control database.
//!
//! Whoever destroys a generation's root key destroys everything that only that generation could open. What such a destruction is
//! worth differs from slot to slot; a slot says so itself by its [`SlotClass`] and [`SlotClaim`], in codes from closed lists.
//!
//! A slot whose service only wraps keys (transit, PKCS#11, KMS) draws the root key itself and keeps the wrapped form as its own
//! state; to its caller it looks like one that stores keys.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use thiserror::Error;

use super::{Generation, Key};
use crate::random::{Random, RandomUnavailable};

/// What the destruction of a root key in this slot is worth, best first. Stands in certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum SlotClass {
    /// Hardware without a backup path: the key is destroyed, no copy is known.
    A,
    /// A key service or hardware with backups: destroyed in the live service, older copies of it could reopen until a date.
    B,
    /// A cloud service with delayed destruction: irrevocable only from a date on.
    C,
    /// A file or software token: removed logically; any copy of the host reopens it.
    D,
}

/// The sentence that a certificate may say about a destruction, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimSentence {
    /// "The key was destroyed; no copy of it is known." Class A.
    DestroyedNoCopyKnown,
    /// "The key was destroyed in the live key service." Class B.
    DestroyedInLiveService,
    /// "The key cannot be used any more and will be irrevocably gone at the named date." Class C.
    IrrevocableFromDate,
    /// "Logical removal only." Class D.
    LogicalRemovalOnly,
}

/// Where a destroyed root key may still lie, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Residual {
    /// In any copy of the host: images, file-system snapshots, backups, unmapped blocks of its drives.
    HostCopies,
    /// In backups of the key service, together with what unseals it.
    ServiceBackups,
    /// In the service's own log or free pages until it compacts them.
    ServiceLog,
    /// At the provider, whose word is all there is.
    ProviderWord,
    /// In a memory image taken while the key was in use.
    MemoryCapture,
}

/// What may be claimed for this slot, and what must be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotClaim {
    /// The class.
    pub class: SlotClass,
    /// The sentence.
    pub sentence: ClaimSentence,
    /// What remains; never empty.
    pub residuals: Vec<Residual>,
}

/// How a slot destroys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destroys {
    /// At once, when the call returns.
    Immediately,
    /// After a waiting time, in days.
    Delayed {
        /// The shortest.
        at_least_days: u16,
        /// The longest.
        at_most_days: u16,
    },
}

/// What a slot can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotAbilities {
    /// How it destroys.
    pub destroys: Destroys,
    /// Whether a destruction that was begun can be called off by someone.
    pub is_cancellable: bool,
    /// Whether it can show that a key never left it.
    pub proves_not_exported: bool,
    /// Whether it holds a counter that shows an older state being put back.
    pub has_rollback_counter: bool,
    /// The least time between two generations.
    pub minimum_interval: Duration,
}

/// The state of a generation's root key in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It opens.
    Usable,
    /// Its destruction was begun and becomes irrevocable at this time.
    Doomed(DateTime<Utc>),
}

/// A generation that a slot still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentGeneration {
    /// The generation.
    pub generation: Generation,
    /// Its state.
    pub presence: Presence,
}

/// A step of a destruction, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DestroyStep {
    /// The bytes were overwritten in place.
    Overwritten,
    /// The overwriting was flushed to the device.
    Flushed,
    /// The name was removed.
    Unlinked,
    /// The directory was flushed to the device.
    DirectoryFlushed,
    /// The service was told to destroy this version of its key.
    ServiceDestroyed,
    /// The service was told to destroy it at a later date.
    ServiceScheduled,
}

/// What was done to destroy a root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DestroyEvidence {
    /// The generation.
    pub generation: Generation,
    /// The slot's class.
    pub class: SlotClass,
    /// Whether anything was there; `false` when an earlier call had finished.
    pub was_present: bool,
    /// What was done, in order.
    pub steps: Vec<DestroyStep>,
    /// When it becomes irrevocable, if not with this call.
    pub irrevocable_at: Option<DateTime<Utc>>,
}

/// How it was read back that a root key is gone, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoneCheck {
    /// The name is not in the directory.
    NameAbsent,
    /// No file of the directory contains this generation's root.
    ContentAbsent,
    /// The service says that it no longer has this version.
    ServiceReadBack,
    /// The service refuses the wrapped root that was kept for this test.
    KeptRootRefused,
}

/// What was read back after a destruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GoneEvidence {
    /// The generation.
    pub generation: Generation,
    /// The checks that passed; never empty.
    pub checks: Vec<GoneCheck>,
}

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
    /// The key service cannot be reached or refused for now.
    #[error("the key service {place} is not available: {what}")]
    Unavailable {
        /// The slot.
        place: String,
        /// What was seen.
        what: String,
    },
    /// No randomness.
    #[error("no randomness for a root key")]
    Random(#[from] RandomUnavailable),
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
            Self::NotYet { .. } | Self::Unavailable { .. } | Self::Random(_) => true,
            Self::Missing { .. } | Self::ReadableByOthers { .. } | Self::Damaged { .. } | Self::StillThere { .. } => {
                false
            }
        }
    }
}

/// A place for root keys. Every call is idempotent: after a crash the same call is made again.
#[async_trait]
pub trait RootSlot: Send + Sync {
    /// What a destruction here is worth.
    fn class(&self) -> SlotClass {
        self.claim().class
    }

    /// What may be claimed after a destruction here, and what must be added.
    fn claim(&self) -> SlotClaim;

    /// What this slot can do.
    fn abilities(&self) -> SlotAbilities;

    /// Makes the root key of a generation. It is durable before this returns. A generation that is there already is opened instead.
    async fn create(&self, generation: Generation, random: &dyn Random) -> Result<Key, SlotError>;

    /// The root key of a generation.
    async fn open(&self, generation: Generation) -> Result<Key, SlotError>;

    /// The generations that are there in any form, ascending; damaged ones too. An unreachable slot is an error, never an empty list.
    async fn list(&self) -> Result<Vec<PresentGeneration>, SlotError>;

    /// Destroys the root key of a generation, damaged or not; nothing there is not an error.
    async fn destroy(&self, generation: Generation) -> Result<DestroyEvidence, SlotError>;

    /// Reads back, without relying on what [`RootSlot::destroy`] said, that a generation is gone.
    ///
    /// # Errors
    /// [`SlotError::StillThere`], or [`SlotError::NotYet`] before a delayed destruction is irrevocable.
    async fn verify_gone(&self, generation: Generation) -> Result<GoneEvidence, SlotError>;
}
