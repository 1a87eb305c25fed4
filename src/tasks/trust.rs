//! `trust`: what a stranger needs to verify certificates, and verifying with nothing but that.

use crate::audit::receipt::{self, LogOperator};
use crate::audit::trust::{Trust, Window};
use crate::certify::dsse::Envelope;
use crate::installation::{Installation, audit_log_keys};
use crate::log::checkpoint::CheckpointKey;

use super::Result;
use super::outbox::{CertificateVerdict, check_envelope};

/// Whom this installation's certificates ask to trust. The keys count from the first certificate on.
///
/// Without logs as long as the log's key cannot be read: the embedded service makes it when it is first started.
///
/// # Errors
/// When the control database cannot be read.
pub async fn trust(installation: &Installation) -> Result<Trust> {
    let mut tx = installation.control.read().await?;
    let first = tx.certificates(None).await?.first().map(|row| row.issued_at);
    drop(tx);
    let window = Window { start: first, end: None };
    let signers = installation.signer.trusted().iter().map(|key| (key.clone(), window)).collect();
    let logs = audit_log_keys(installation).unwrap_or_default();
    let logs = logs.into_iter().map(|key| (key, Window::default())).collect();
    let operator = if installation.is_audit_self_hosted() { LogOperator::SelfHosted } else { LogOperator::Independent };
    Ok(Trust { signers, logs, quorum: installation.config.audit.quorum.clone(), operator })
}

/// The receipt beside an envelope, as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenReceipt {
    /// A transparency-log entry.
    Entry(Vec<u8>),
    /// A proof text (C2SP tlog-proof).
    ProofText(String),
    /// None, although there should be one.
    Missing,
    /// None, as it has to be with a bare envelope.
    NotInThisForm,
}

/// Verifies a certificate with public keys alone; returns its id when its signature fits.
#[must_use]
pub fn verify_with(
    trust: &Trust,
    envelope: &[u8],
    receipt: &GivenReceipt,
    evidence: Option<&[u8]>,
) -> (CertificateVerdict, Option<String>) {
    let keys = trust.keys();
    let mut checks = check_envelope(envelope, evidence, &keys);
    let verified = crate::certify::verify(envelope, &keys).ok();
    if let Some(found) = &verified {
        let at = found.statement.predicate.issued_at.instant();
        let good = trust.is_good_at(&found.key_id, at);
        let said = if good { "signed while its key was good" } else { "signed when its key was not good" };
        checks.push(("key".to_owned(), good, said.to_owned()));
    }
    let bad = |what: &str| ("receipt".to_owned(), false, what.to_owned());
    match receipt {
        GivenReceipt::NotInThisForm => {}
        GivenReceipt::Missing => checks.push(bad("there is no receipt: it is not filed yet, or the bundle lost it")),
        given => {
            let tried = trust.logs.iter().map(|(log, _)| check_receipt(trust, envelope, given, log));
            // A receipt of any log that is trusted will do; otherwise the first one says why not.
            let mut tried: Vec<_> = tried.collect();
            let at = tried.iter().position(|(_, good, _)| *good).unwrap_or(0);
            checks.push(if tried.is_empty() { bad("no log is trusted") } else { tried.swap_remove(at) });
        }
    }
    (CertificateVerdict::of(checks), verified.map(|found| found.statement.predicate.certificate_id))
}

fn check_receipt(trust: &Trust, envelope: &[u8], given: &GivenReceipt, log: &CheckpointKey) -> (String, bool, String) {
    let bad = |what: String| ("receipt".to_owned(), false, what);
    let envelope = match Envelope::parse(envelope) {
        Ok(envelope) => envelope,
        Err(error) => return bad(error.to_string()),
    };
    let keys = trust.keys();
    let Some(signer) = keys.get(envelope.key_id()) else {
        return bad(crate::certify::VerifyError::UnknownKey.to_string());
    };
    let entry = match given {
        GivenReceipt::ProofText(text) => receipt::from_proof_text(text, &envelope, signer, log),
        GivenReceipt::Entry(entry) => Ok(entry.clone()),
        GivenReceipt::Missing | GivenReceipt::NotInThisForm => return bad("there is none".to_owned()),
    };
    match entry.and_then(|entry| receipt::verify(&entry, &envelope, signer, log)) {
        Ok(found) => {
            let found = found.witnessed_by(&trust.quorum);
            let grade = found.grade;
            let said = format!(
                "index {} of {} in the log {}, grade {grade:?}: {}",
                found.index,
                found.tree_size,
                found.origin,
                grade.describe(trust.operator)
            );
            ("receipt".to_owned(), true, said)
        }
        Err(error) => bad(crate::error::with_causes(&error)),
    }
}
