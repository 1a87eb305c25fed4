//! Words for PKCS#11 tokens: what the operator says of one, what can go wrong with it, and what it says of a destroyed key.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::keys::Generation;

/// What stands behind a PKCS#11 module, as the operator declares it: no interface of the standard tells whether a device has
/// backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// A software token, or anything not known better: any copy of its storage reopens what was destroyed. Class D.
    #[default]
    Software,
    /// A device whose keys are backed up or cloned to others (class B), for a declared number of days.
    HardwareWithBackup,
    /// A device without any backup or clone of its keys. Class A.
    HardwareWithoutBackup,
}

impl Device {
    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::HardwareWithBackup => "hardware-with-backup",
            Self::HardwareWithoutBackup => "hardware-without-backup",
        }
    }
}

/// Marks that a token keeps of a key and that nobody can set: PKCS#11 attributes of a secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMarks {
    /// `CKA_NEVER_EXTRACTABLE`: it never was extractable.
    pub never_extractable: bool,
    /// `CKA_ALWAYS_SENSITIVE`: its value never could be read.
    pub always_sensitive: bool,
    /// `CKA_LOCAL`: it was made in the token.
    pub local: bool,
}

impl TokenMarks {
    /// Whether the key never left the token, by the token's word.
    #[must_use]
    pub fn never_left(self) -> bool {
        self.never_extractable && self.always_sensitive && self.local
    }

    /// What holds for both of two keys.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self {
            never_extractable: self.never_extractable && other.never_extractable,
            always_sensitive: self.always_sensitive && other.always_sensitive,
            local: self.local && other.local,
        }
    }
}

/// What a token said when a destruction was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReadBack {
    /// The marks of the key, read before its destruction.
    pub marks: TokenMarks,
    /// Keys with the generation's id or label that a session opened afterwards found.
    pub objects_left: u64,
}

/// Why a PIN cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinTrouble {
    /// The token refused it just now.
    Refused,
    /// The token refused it before; it is not tried a second time.
    HeldBack,
    /// One more wrong PIN would lock the token.
    FinalTry,
    /// The token is locked.
    Locked,
    /// The token has no user PIN yet.
    NotSet,
    /// The token wants another PIN before it does anything.
    ToBeChanged,
}

impl PinTrouble {
    fn text(self) -> &'static str {
        match self {
            Self::Refused => "it refused the PIN",
            Self::HeldBack => {
                "it refused this PIN before, and a PIN is not tried a second time: wrong tries lock a token"
            }
            Self::FinalTry => "one more wrong PIN would lock it, so none is tried",
            Self::Locked => "its user PIN is locked",
            Self::NotSet => "it has no user PIN yet",
            Self::ToBeChanged => "its user PIN must be changed first",
        }
    }
}

/// What can go wrong with a token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The module is missing, or no PKCS#11 module.
    #[error("the PKCS#11 module {} cannot be used: {what}", path.display())]
    Module {
        /// The module.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The token is not there.
    #[error("the token {place} is not present")]
    NotPresent {
        /// The token.
        place: String,
    },
    /// The PIN cannot be used. No PIN is in here.
    #[error("the token {place} is not opened: {}", why.text())]
    Pin {
        /// The token.
        place: String,
        /// Why.
        why: PinTrouble,
    },
    /// The key of a generation is not in the token any more, although nobody here destroyed it.
    #[error("the key of generation {generation} was deleted from the token {place} by somebody else")]
    KeyGone {
        /// The generation.
        generation: Generation,
        /// The token.
        place: String,
    },
    /// The session or the connection to the token broke.
    #[error("the connection to the token {place} was lost: {what}")]
    Lost {
        /// The token.
        place: String,
        /// What was seen.
        what: String,
    },
    /// The token or one of its keys is not one that a root may rest on.
    #[error("the token {place} is not fit to hold root keys: {what}")]
    Unfit {
        /// The token.
        place: String,
        /// Why.
        what: &'static str,
    },
    /// The token refuses to do what is asked.
    #[error("the token {place} refused: {what}")]
    Refused {
        /// The token.
        place: String,
        /// Which function it refused, and its answer.
        what: String,
    },
}

impl TokenError {
    /// Whether the same call may succeed later without anybody changing anything but to bring the device back.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotPresent { .. } | Self::Lost { .. } => true,
            Self::Module { .. }
            | Self::Pin { .. }
            | Self::KeyGone { .. }
            | Self::Unfit { .. }
            | Self::Refused { .. } => false,
        }
    }
}
