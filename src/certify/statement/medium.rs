//! What a certificate says about the end of a storage medium.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Predicate, Timestamp};
use crate::policy::media::{Checked, MediumKind, Technique};

object! {
    /// A storage medium with copies of data, and its end. What it is stands in the target.
    MediumEnd {
        /// Version of these members: 1.
        version: u64,
        /// The random id of its record.
        record_id: String,
        /// What it was.
        kind: MediumKind,
        /// How it was sanitised.
        technique: Technique,
        /// The standard by which, as its operator names it.
        standard: String,
        /// Whether all that was ever written to it was encrypted, as declared.
        always_encrypted: bool,
        /// When.
        sanitized_at: Timestamp,
        /// Stores of which data lay on it, as declared.
        of_stores: Vec<String>,
        /// Declared copies that ended with it, as store and copy.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        copies: Vec<String>,
        /// Pseudonym of who did it.
        performed_by: String,
        /// Pseudonyms of who saw it.
        witnesses: Vec<String>,
        /// How it was looked whether that succeeded.
        checked: Checked,
        /// Digest of a file that shows it (a photograph, a protocol), which the company keeps; in hex.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence_sha256: Option<String>,
    }
}

impl Predicate {
    /// Whether it is about the end of objects, a key, a medium or what lay on one, and so of no row.
    #[must_use]
    pub fn is_of_object(&self) -> bool {
        self.outside_key.is_some() || self.medium.is_some() || self.lost_medium.is_some()
    }
}

object! {
    /// A lost medium with copies of backups, and the end of the keys that opened them. What it was stands in the target.
    LostMedium {
        /// Version of these members: 1.
        version: u64,
        /// The random id of its record.
        record_id: String,
        /// What it was.
        kind: MediumKind,
        /// When it was lost.
        lost_at: Timestamp,
        /// Stores of which backups lay on it, as declared.
        of_stores: Vec<String>,
        /// Declared copies that lay on it, as store and copy: no key of the program closes them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        copies: Vec<String>,
        /// Pseudonym of who reported it.
        reported_by: String,
        /// Chains of snapshots that could lie on it.
        chains: u64,
        /// Of them those whose keys are destroyed.
        chains_destroyed: u64,
    }
}
