//! Deletion certificates: what was shown, signed, and nothing more.
//!
//! A certificate is an in-toto Statement v1 with our predicate ([`statement`]) in a DSSE envelope ([`dsse`]) with
//! exactly one ECDSA P-256 signature ([`signer`]). [`issue`] refuses to sign what contradicts itself, claims more than
//! it shows, or looks as if it held personal data ([`check`], [`lint`]).
//!
//! Invariants:
//! * The bytes of an envelope are made once and never again: whoever stores, sends or verifies one uses those bytes.
//! * Verification trusts keys handed to it, never one that a certificate names.

pub mod check;
pub mod codes;
pub mod dsse;
pub mod evidence;
pub mod evidence_pack;
#[cfg(test)]
mod evidence_tests;
pub mod lint;
#[cfg(test)]
mod lint_tests;
pub mod report;
pub mod roll_up;
pub mod signer;
pub mod statement;
#[cfg(test)]
pub(crate) mod tests;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use thiserror::Error;

use self::check::CheckError;
use self::dsse::{Envelope, EnvelopeError, PAYLOAD_TYPE};
use self::signer::{CertificateSigner, SignerError, TrustedKeys};
use self::statement::{ROLL_UP_TYPE, RollUpStatement, Statement};
use crate::log::tree::Hash;

/// Why a statement was not signed. Only [`IssueError::Signer`] may go away by itself.
#[derive(Debug, Error)]
pub enum IssueError {
    /// It contradicts itself or says what it must not.
    #[error("the certificate must not be signed as it is")]
    Check(#[from] CheckError),
    /// It cannot be written as JSON.
    #[error("the certificate cannot be encoded")]
    Encode(#[source] serde_json::Error),
    /// The key did not sign.
    #[error("the certificate could not be signed")]
    Signer(#[from] SignerError),
}

/// Why an envelope is not a certificate that can be trusted. Trying again does not help.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The envelope itself is malformed.
    #[error("the envelope is malformed")]
    Envelope(#[from] EnvelopeError),
    /// It holds something else than an in-toto statement.
    #[error("the envelope's payload type is not that of a statement")]
    PayloadType,
    /// None of the trusted keys made the signature.
    #[error("the certificate is signed by a key that is not trusted")]
    UnknownKey,
    /// The signature does not fit the payload.
    #[error("the certificate's signature is wrong")]
    WrongSignature,
    /// The signed payload is not one of our statements.
    #[error("the signed payload is not an erasure statement of this version")]
    Statement(#[source] serde_json::Error),
    /// The signed statement breaks the rules every certificate keeps.
    #[error("the signed statement breaks the rules of a certificate")]
    Check(#[from] CheckError),
}

/// What was signed.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// What became of records, of an outside key, or of a storage medium.
    Erasure(Box<Statement>),
    /// What was certified and filed in a period.
    RollUp(Box<RollUpStatement>),
}

/// A certificate whose signature was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedCertificate {
    /// What it says.
    pub said: Said,
    /// SHA-256 of the signed bytes (the DSSE pre-authentication encoding): the certificate's digest everywhere.
    pub digest: Hash,
    /// Id of the key that signed it.
    pub key_id: String,
}

impl VerifiedCertificate {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match &self.said {
            Said::Erasure(statement) => &statement.predicate.certificate_id,
            Said::RollUp(statement) => &statement.predicate.certificate_id,
        }
    }

    /// Its number in the sequence.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        match &self.said {
            Said::Erasure(statement) => statement.predicate.sequence,
            Said::RollUp(statement) => statement.predicate.sequence,
        }
    }

    /// The digest of the certificate before it, hex.
    #[must_use]
    pub fn previous(&self) -> Option<&str> {
        let previous = match &self.said {
            Said::Erasure(statement) => &statement.predicate.previous_certificate,
            Said::RollUp(statement) => &statement.predicate.previous_certificate,
        };
        previous.as_ref().map(|digest| digest.sha256.as_str())
    }

    /// When it says that it was signed.
    #[must_use]
    pub fn issued_at(&self) -> DateTime<Utc> {
        match &self.said {
            Said::Erasure(statement) => statement.predicate.issued_at.instant(),
            Said::RollUp(statement) => statement.predicate.issued_at.instant(),
        }
    }

    /// The statement of an erasure; none for a roll-up.
    #[must_use]
    pub fn into_erasure(self) -> Option<Statement> {
        match self.said {
            Said::Erasure(statement) => Some(*statement),
            Said::RollUp(_) => None,
        }
    }
}

/// A statement that may be signed: checked, and in the very bytes that are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    payload: Vec<u8>,
}

impl Draft {
    /// Checks a statement.
    ///
    /// # Errors
    /// When it contradicts itself or says what it must not.
    pub fn of(statement: &Statement) -> Result<Self, IssueError> {
        check::check(statement)?;
        Self::of_payload(serde_json::to_vec(statement).map_err(IssueError::Encode)?)
    }

    /// The same for a roll-up.
    ///
    /// # Errors
    /// As [`Draft::of`].
    pub fn of_roll_up(statement: &RollUpStatement) -> Result<Self, IssueError> {
        check::check_roll_up(statement)?;
        Self::of_payload(serde_json::to_vec(statement).map_err(IssueError::Encode)?)
    }

    fn of_payload(payload: Vec<u8>) -> Result<Self, IssueError> {
        check::check_size(payload.len())?;
        lint::check_payload(&payload)?;
        Ok(Self { payload })
    }

    /// The bytes to sign.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        dsse::pae(PAYLOAD_TYPE, &self.payload)
    }

    /// The envelope with a signature (ASN.1 DER) over [`Draft::message`]: the bytes to store, send and verify.
    #[must_use]
    pub fn signed(self, signature: Vec<u8>, key_id: &str) -> Envelope {
        Envelope::make(PAYLOAD_TYPE, self.payload, signature, key_id)
    }
}

/// Checks the statement and signs it with a key of this process.
pub fn issue(statement: &Statement, signer: &CertificateSigner) -> Result<Envelope, IssueError> {
    let draft = Draft::of(statement)?;
    let signature = signer.sign(&draft.message())?;
    Ok(draft.signed(signature, signer.public().key_id()))
}

/// Checks an envelope against trusted keys and reads the statement from the very bytes that were verified.
pub fn verify(envelope: &[u8], trusted: &TrustedKeys) -> Result<VerifiedCertificate, VerifyError> {
    let envelope = Envelope::parse(envelope)?;
    if envelope.payload_type() != PAYLOAD_TYPE {
        return Err(VerifyError::PayloadType);
    }
    let key = trusted.get(envelope.key_id()).ok_or(VerifyError::UnknownKey)?;
    if !key.verifies(&envelope.signed_bytes(), envelope.signature()) {
        return Err(VerifyError::WrongSignature);
    }
    check::check_size(envelope.payload().len())?;
    let said = read(envelope.payload())?;
    Ok(VerifiedCertificate { said, digest: envelope.digest(), key_id: envelope.key_id().to_owned() })
}

/// What kind of statement it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    predicate_type: String,
}

fn read(payload: &[u8]) -> Result<Said, VerifyError> {
    let kind: Kind = serde_json::from_slice(payload).map_err(VerifyError::Statement)?;
    if kind.predicate_type == ROLL_UP_TYPE {
        let statement: RollUpStatement = serde_json::from_slice(payload).map_err(VerifyError::Statement)?;
        check::check_roll_up(&statement)?;
        return Ok(Said::RollUp(Box::new(statement)));
    }
    let statement: Statement = serde_json::from_slice(payload).map_err(VerifyError::Statement)?;
    check::check(&statement)?;
    Ok(Said::Erasure(Box::new(statement)))
}
