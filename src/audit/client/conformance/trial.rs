//! Certificates for trying a service that holds nothing yet: they say that nothing was looked for and nothing was found.

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;

use crate::certify::dsse::Envelope;
use crate::certify::signer::{CertificateSigner, SignerError};
use crate::certify::statement::{
    ClockQuality, Digest, ErasureResult, Issuer, Predicate, Privacy, PrivacyScan, Scope, Statement, Timestamp, Trigger,
    TriggerKind,
};
use crate::certify::{IssueError, issue};
use crate::log::tree::sha256;
use crate::random::{Random, RandomUnavailable, uuid7};

/// Who the issuer of a trial is, in every field: nobody could take it for a company.
const NOBODY: &str = "conformance-trial";

/// A trial cannot be begun.
#[derive(Debug, Error)]
pub enum TrialError {
    /// No randomness for ids. Worth retrying.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// A certificate of the trial could not be signed. Trying again does not help.
    #[error("a certificate for the trial could not be signed")]
    Issue(#[from] IssueError),
    /// No key could be made. Worth retrying.
    #[error("no key could be made for the trial")]
    Signer(#[from] SignerError),
}

/// A certificate and its id.
pub struct Sample {
    /// Its id.
    pub id: String,
    /// As it is filed.
    pub envelope: Envelope,
}

/// What a trial sends.
pub struct Trial {
    /// Filed first.
    pub first: Sample,
    /// Filed second, so that the log has to show that it grew.
    pub second: Sample,
    /// Another certificate under the first one's id.
    pub rival: Envelope,
    /// One by a key that the service does not know.
    pub stranger: Sample,
}

impl Trial {
    /// Makes the certificates; `signer` is a key for trials, whose public half the service was told.
    ///
    /// # Errors
    /// When randomness or the key fail.
    pub fn make(signer: &CertificateSigner, now: DateTime<Utc>, random: &dyn Random) -> Result<Self, TrialError> {
        let (first, second, foreign) = (uuid7(now, random)?, uuid7(now, random)?, uuid7(now, random)?);
        let envelope = issue(&statement(&first, now, None), signer)?;
        let after = Digest { sha256: hex::encode(envelope.digest()) };
        let rival = issue(&statement(&first, now - TimeDelta::seconds(1), None), signer)?;
        Ok(Self {
            second: Sample { envelope: issue(&statement(&second, now, Some(after)), signer)?, id: second },
            stranger: Sample {
                envelope: issue(&statement(&foreign, now, None), &CertificateSigner::in_memory()?)?,
                id: foreign,
            },
            first: Sample { id: first, envelope },
            rival,
        })
    }
}

fn statement(id: &str, at: DateTime<Utc>, previous: Option<Digest>) -> Statement {
    let at = Timestamp::from(at);
    let predicate = Predicate {
        certificate_id: id.to_owned(),
        sequence: if previous.is_some() { 2 } else { 1 },
        previous_certificate: previous,
        issuer: Issuer {
            controller: NOBODY.to_owned(),
            agent_id: NOBODY.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: NOBODY.to_owned(),
        },
        started_at: at,
        finished_at: at,
        issued_at: at,
        absence_checked_at: None,
        absence_valid_until: None,
        clock: ClockQuality { source: "host".to_owned(), max_error_ms: 300_000 },
        result: ErasureResult::NothingFound,
        trigger: Trigger { kind: TriggerKind::Manual, request_ref: None, received_at: None, due_at: None },
        policy: None,
        legal_basis: Vec::new(),
        approvals: Vec::new(),
        scope: Scope {
            targets_declared: 0,
            targets_reached: 0,
            subjects_count: 0,
            subject_refs: Vec::new(),
            data_categories: Vec::new(),
        },
        targets: Vec::new(),
        retained: Vec::new(),
        recipients: Vec::new(),
        root_slot: None,
        outside_key: None,
        medium: None,
        backup_copies: Vec::new(),
        lost_medium: None,
        refusal: None,
        residual_date: None,
        final_since: None,
        limitations: Vec::new(),
        supersedes: None,
        privacy: Privacy {
            ref_key_id: NOBODY.to_owned(),
            ref_key_destroy_at: None,
            scan: PrivacyScan { rules: "v1".to_owned(), hits: 0 },
        },
    };
    Statement::new(&hex::encode(sha256(b"")), predicate)
}
