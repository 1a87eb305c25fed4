//! The root-slot port: where root keys live, one per generation, outside the control database.
//!
//! Whoever destroys a generation's root key destroys everything that only that generation could open. What such a destruction is
//! worth differs from slot to slot; a slot says so itself by its [`SlotClass`] and [`SlotClaim`], in codes from closed lists.
//!
//! A slot whose service only wraps keys (transit, PKCS#11, KMS) draws the root key itself and keeps the wrapped form as its own
//! state; to its caller it looks like one that stores keys.

mod error;
mod token;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use error::{KeyTrouble, SlotError};
pub use token::{Device, PinTrouble, TokenError, TokenMarks, TokenReadBack};

use super::wrapped_root::WrappingSlot;
use super::{Generation, Key};
use crate::random::Random;

/// Kinds of root slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// A sealed file on this host.
    #[default]
    File,
    /// OpenBao's or Vault's transit engine.
    Transit,
    /// AWS KMS.
    AwsKms,
    /// A PKCS#11 token.
    Pkcs11,
}

impl SlotKind {
    /// The name in configurations and certificates.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Transit => "transit",
            Self::AwsKms => "aws-kms",
            Self::Pkcs11 => "pkcs11",
        }
    }
}

/// What the destruction of a root key in this slot is worth, best first. Stands in certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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
    /// In copies or backups of a token, with its PIN.
    TokenCopies,
    /// In a device whose maker alone can say that no key leaves it.
    MakerWord,
}

/// What may be claimed for this slot, and what must be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotClaim {
    /// The kind of slot.
    #[serde(default)]
    pub kind: SlotKind,
    /// The class.
    pub class: SlotClass,
    /// The sentence.
    pub sentence: ClaimSentence,
    /// What remains; never empty.
    pub residuals: Vec<Residual>,
    /// For how many days after a destruction older copies of the service, with what unseals them, could bring the key back, as
    /// the operator declared it; none where no date can be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual_days: Option<u32>,
}

impl SlotClaim {
    /// What a file on this host is worth.
    #[must_use]
    pub fn of_a_file() -> Self {
        Self {
            kind: SlotKind::File,
            class: SlotClass::D,
            sentence: ClaimSentence::LogicalRemovalOnly,
            residuals: vec![Residual::HostCopies, Residual::MemoryCapture],
            residual_days: None,
        }
    }
}

/// How a slot destroys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destroys {
    /// At once, when the call returns.
    Immediately,
    /// When the call returns, as far as the medium allows: nothing shows that the old bytes are gone.
    BestEffort,
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
    /// See [`SlotClaim::residual_days`].
    pub residual_days: Option<u32>,
}

/// The state of a generation's root key in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It opens, or would after somebody repaired or switched on what it rests on.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestroyEvidence {
    /// The generation.
    pub generation: Generation,
    /// What this destruction is worth. Evidence from before there was more than one kind of slot is without it.
    #[serde(default = "SlotClaim::of_a_file")]
    pub claim: SlotClaim,
    /// Whether anything was there; `false` when an earlier call had finished.
    pub was_present: bool,
    /// What was done, in order.
    pub steps: Vec<DestroyStep>,
    /// When it becomes irrevocable, if not with this call.
    pub irrevocable_at: Option<DateTime<Utc>>,
}

/// How it was read back that a root key is gone, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoneCheck {
    /// The name is not in the directory.
    NameAbsent,
    /// No file of the directory contains this generation's root.
    ContentAbsent,
    /// The service says that it no longer has this version; a session of a token opened afterwards finds no such key.
    ServiceReadBack,
    /// The service says that its key could never be exported nor backed up in clear, for the whole life of the key. Of a token: its
    /// key was made in it, and bore the marks never extractable and always sensitive until the end.
    NeverExportable,
}

impl GoneCheck {
    /// Its code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NameAbsent => "name-absent",
            Self::ContentAbsent => "content-absent",
            Self::ServiceReadBack => "service-read-back",
            Self::NeverExportable => "never-exportable",
        }
    }
}

/// What a key service told about its key when a destruction was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    /// The version of its key that wrapped the root.
    pub key_version: u64,
    /// The lowest version that it still has.
    pub min_available_version: u64,
    /// Whether the key can be exported.
    pub exportable: bool,
    /// Whether it can be backed up in clear.
    pub allow_plaintext_backup: bool,
    /// Whether it can be deleted.
    pub deletion_allowed: bool,
}

/// What was read back after a destruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneEvidence {
    /// The generation.
    pub generation: Generation,
    /// The checks that passed; never empty.
    pub checks: Vec<GoneCheck>,
    /// What the key service said, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<ReadBack>,
    /// What the token said, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenReadBack>,
}

/// What was written down about the end of one generation's root key, for certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootEvidence {
    /// What was done.
    pub destroyed: DestroyEvidence,
    /// What was read back.
    pub gone: GoneEvidence,
    /// What may be claimed for it.
    pub claim: SlotClaim,
}

impl RootEvidence {
    /// Puts both halves together. What the read-back did not show is not claimed: without the service's word that the version
    /// is gone and never was exportable, nothing more than a logical removal is.
    #[must_use]
    pub fn new(destroyed: DestroyEvidence, gone: GoneEvidence) -> Self {
        let mut claim = destroyed.claim.clone();
        let shown = |check| gone.checks.contains(&check);
        if claim.class < SlotClass::D && !(shown(GoneCheck::ServiceReadBack) && shown(GoneCheck::NeverExportable)) {
            claim.class = SlotClass::D;
            claim.sentence = ClaimSentence::LogicalRemovalOnly;
        }
        Self { destroyed, gone, claim }
    }
}

/// What is wrong, or doubtful, with how a slot is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Shortcoming {
    /// The agent lacks a right that it needs.
    MissingRight {
        /// The path.
        path: String,
        /// The capability.
        capability: &'static str,
    },
    /// The agent has a right that nothing needs and that weakens what it can claim.
    ExcessRight {
        /// The path.
        path: String,
        /// The capability.
        capability: String,
    },
    /// The version that wraps a root is switched off, so nothing opens until somebody switches it on again.
    VersionOff {
        /// The version.
        version: u64,
    },
    /// A switch of the key is on that must be off.
    SwitchOn {
        /// Its name in the service.
        switch: &'static str,
    },
    /// The token has a key for a root whose wrapped form is not on this host.
    WrappedRootMissing {
        /// The generation.
        generation: Generation,
    },
    /// The token has several keys for one generation.
    SeveralKeys {
        /// The generation.
        generation: Generation,
    },
    /// The token's key is not marked as one that was made in it and can never leave it.
    WeakMarks {
        /// The generation.
        generation: Generation,
    },
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

    /// The slot as one that keeps wrapped roots only, copies of which may lie elsewhere; `None` where the root itself lies in it.
    fn wrapping(&self) -> Option<&dyn WrappingSlot> {
        None
    }

    /// The generations that still lie in a slot from which the root is being moved to this one, ascending.
    async fn left_behind(&self) -> Result<Vec<Generation>, SlotError> {
        Ok(Vec::new())
    }

    /// Forgets that a token refused its PIN, so that it is tried once more. Nothing to do for slots without one.
    async fn allow_another_try(&self) -> Result<(), SlotError> {
        Ok(())
    }

    /// What is wrong or doubtful with how the slot is set up; for `doctor`.
    async fn shortcomings(&self) -> Result<Vec<Shortcoming>, SlotError> {
        Ok(Vec::new())
    }
}
