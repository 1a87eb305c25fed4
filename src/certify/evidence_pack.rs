//! The manifest of an evidence pack: an in-toto statement whose subjects are the files of a folder, signed like a certificate. Pure.
//!
//! It says of which period the folder is, and where in the gap-free sequences (certificates, drills, entries of the operation log) that
//! period begins and ends; so what is missing shows even to somebody who has the folder alone.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::dsse::{Envelope, PAYLOAD_TYPE, pae};
use super::signer::{SignedError, TrustedKeys, open_signed};
use super::statement::{Issuer, STATEMENT_TYPE, Subject, Timestamp};

/// The predicate type; a name, not an address, like that of the erasure.
pub const EVIDENCE_PACK_TYPE: &str = "https://wangchuan.invalid/attestation/evidence-pack/v1";

/// Why a manifest cannot be believed. Trying again does not help.
#[derive(Debug, Error)]
pub enum EvidencePackError {
    /// It is not what a trusted key signed.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It holds something else.
    #[error("it is no manifest of an evidence pack")]
    OtherKind,
    /// The signed payload cannot be read.
    #[error("the signed manifest is not of this version")]
    Statement(#[source] serde_json::Error),
    /// A file's name leads elsewhere, or stands there twice.
    #[error("it names a file that cannot be in a pack")]
    Name,
}

/// Numbers of a sequence without gaps, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// The part of the operation log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogPart {
    /// The log's verifier key (C2SP vkey).
    pub verifier_key: String,
    /// The index of the first entry.
    pub first: u64,
    /// How many entries.
    pub entries: u64,
}

/// What the manifest says beside the files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidencePack {
    /// Its id (UUID version 7).
    pub pack_id: String,
    /// Who made it.
    pub issuer: Issuer,
    /// The first day.
    pub from: NaiveDate,
    /// The last day.
    pub to: NaiveDate,
    /// The zone of these days.
    pub timezone: String,
    /// The first day's beginning.
    pub since: Timestamp,
    /// The last day's end, itself not in the period.
    pub until: Timestamp,
    /// When it was made.
    pub made_at: Timestamp,
    /// The certificates of the period, and the one before and behind it; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Numbers>,
    /// The drills of the period; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drills: Option<Numbers>,
    /// The entries of the operation log of the period, and the one before and behind it.
    pub operation_log: LogPart,
    /// Digest of the policies, statutes and registered stores in force when it was made, as certificates name it.
    pub policy_digest: String,
}

/// The statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidencePackStatement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The files: their names in the folder, and their digests.
    pub subject: Vec<Subject>,
    /// Always [`EVIDENCE_PACK_TYPE`].
    pub predicate_type: String,
    /// What it says.
    pub predicate: EvidencePack,
}

impl EvidencePackStatement {
    /// A statement about these files.
    #[must_use]
    pub fn new(subject: Vec<Subject>, predicate: EvidencePack) -> Self {
        let (statement_type, predicate_type) = (STATEMENT_TYPE.to_owned(), EVIDENCE_PACK_TYPE.to_owned());
        Self { statement_type, subject, predicate_type, predicate }
    }

    /// The payload, and the bytes to sign.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_sign(&self) -> Result<(Vec<u8>, Vec<u8>), serde_json::Error> {
        let payload = serde_json::to_vec(self)?;
        let message = pae(PAYLOAD_TYPE, &payload);
        Ok((payload, message))
    }
}

/// The manifest as a file.
#[must_use]
pub fn signed_manifest(payload: Vec<u8>, signature: Vec<u8>, key_id: &str) -> Vec<u8> {
    Envelope::make(PAYLOAD_TYPE, payload, signature, key_id).as_bytes().to_vec()
}

/// What kind of statement it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    predicate_type: String,
}

/// Reads a manifest from the very bytes whose signature was checked; with it the id of the key.
///
/// # Errors
/// Why it counts for nothing.
pub fn read_manifest(
    envelope: &[u8],
    trusted: &TrustedKeys,
) -> Result<(EvidencePackStatement, String), EvidencePackError> {
    let envelope = open_signed(envelope, PAYLOAD_TYPE, trusted)?;
    let kind: Kind = serde_json::from_slice(envelope.payload()).map_err(EvidencePackError::Statement)?;
    if kind.predicate_type != EVIDENCE_PACK_TYPE {
        return Err(EvidencePackError::OtherKind);
    }
    let statement: EvidencePackStatement =
        serde_json::from_slice(envelope.payload()).map_err(EvidencePackError::Statement)?;
    let mut names: Vec<&str> = statement.subject.iter().map(|subject| subject.name.as_str()).collect();
    names.sort_unstable();
    if !names.iter().all(|name| is_file_name(name)) || names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(EvidencePackError::Name);
    }
    Ok((statement, envelope.key_id().to_owned()))
}

/// Whether it is a file in the folder or in one below it.
fn is_file_name(name: &str) -> bool {
    let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain);
    name.len() <= 200 && name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_folder_can_be_named() {
        for good in ["trust.json", "certificates/000001.sigstore.json"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../trust.json", "a//b", "a/", ".hidden", "a b", "姓名", "a\\b"] {
            assert!(!is_file_name(bad), "{bad}");
        }
    }
}
