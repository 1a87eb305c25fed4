//! Acknowledgements: what a company's own audit service behind a webhook signs for a certificate that it took. Pure.
//!
//! One is a DSSE envelope with exactly one signature (ECDSA P-256 with SHA-256 in ASN.1 DER, as certificates have it). `keyid` is the
//! SHA-256 of the key's `SubjectPublicKeyInfo`, hex. The payload type is [`PAYLOAD_TYPE`], the payload a JSON object with at least
//!
//! ```json
//! {"certificateId": "0190…", "sha256": "9f86…", "receivedAt": "2026-03-01T08:00:00Z"}
//! ```
//!
//! `sha256` is the certificate's digest as everywhere: SHA-256 of the bytes under its signature (the pre-authentication encoding), hex,
//! lower case. Other members may stand there and say nothing. It shows that the holder of the key had the certificate, and no more: when
//! that was is its word, and there is no log that others could compare.

use chrono::{DateTime, Utc};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use thiserror::Error;

use super::stamp::impossible_time;
use crate::certify::VerifiedCertificate;
use crate::certify::dsse::Envelope;
use crate::certify::signer::{PublicKey, SignedError, TrustedKeys, open_signed};

/// The payload type of acknowledgements.
pub const PAYLOAD_TYPE: &str = "application/vnd.wangchuan.acknowledgement+json";

/// Why an answer acknowledges nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AcknowledgementError {
    /// It is not an envelope with one signature.
    #[error("it is not a DSSE envelope with one signature")]
    Envelope,
    /// It is an envelope around something else.
    #[error("its payload is not of type {PAYLOAD_TYPE}")]
    OtherKind,
    /// None of the trusted keys signed it.
    #[error("it is signed by a key that is not trusted")]
    UnknownKey,
    /// The signature does not fit.
    #[error("its signature does not fit")]
    WrongSignature,
    /// The payload lacks what it must have.
    #[error("its payload has no certificateId, sha256 or receivedAt in their forms")]
    Payload,
    /// It is about another certificate.
    #[error("it is about another certificate")]
    OtherCertificate,
    /// It is about another content of this certificate.
    #[error("its sha256 is not the certificate's digest")]
    OtherDigest,
    /// The time cannot be right.
    #[error("its receivedAt cannot be: {0}")]
    Time(&'static str),
}

/// Why keys of an audit service cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AcknowledgerError {
    /// It is no PEM, or there is none in it.
    #[error("there is no public key in PEM (`PUBLIC KEY`) in it")]
    None,
    /// One of them is of another kind.
    #[error("a key in it is not a P-256 public key")]
    NotP256,
}

/// An acknowledgement that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The id of the key that signed it.
    pub key_id: String,
    /// When the certificate was received, as the signer says.
    pub received_at: DateTime<Utc>,
}

/// The payload. What later versions add is read over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    certificate_id: String,
    sha256: String,
    received_at: DateTime<Utc>,
}

/// Verifies that a holder of one of the keys acknowledges this certificate, at a time.
pub fn verify(
    answer: &[u8],
    certificate: &VerifiedCertificate,
    trusted: &TrustedKeys,
    now: DateTime<Utc>,
) -> Result<Acknowledgement, AcknowledgementError> {
    let opened = open_signed(answer, PAYLOAD_TYPE, trusted).map_err(|error| match error {
        SignedError::Envelope(_) => AcknowledgementError::Envelope,
        SignedError::OtherKind => AcknowledgementError::OtherKind,
        SignedError::UnknownKey => AcknowledgementError::UnknownKey,
        SignedError::WrongSignature => AcknowledgementError::WrongSignature,
    })?;
    let payload: Payload = serde_json::from_slice(opened.payload()).map_err(|_| AcknowledgementError::Payload)?;
    if payload.certificate_id != certificate.id() {
        return Err(AcknowledgementError::OtherCertificate);
    }
    if payload.sha256 != hex::encode(certificate.digest) {
        return Err(AcknowledgementError::OtherDigest);
    }
    match impossible_time(payload.received_at, certificate.issued_at(), now) {
        Some(why) => Err(AcknowledgementError::Time(why)),
        None => Ok(Acknowledgement { key_id: opened.key_id().to_owned(), received_at: payload.received_at }),
    }
}

/// Whether a kept receipt is an acknowledgement, and not an entry of a log. Nothing is verified.
#[must_use]
pub fn is_one(receipt: &[u8]) -> bool {
    Envelope::parse(receipt).is_ok_and(|envelope| envelope.payload_type() == PAYLOAD_TYPE)
}

/// Whether one of these keys signed a kept receipt, as an acknowledgement of whatever certificate.
#[must_use]
pub fn is_by(receipt: &[u8], trusted: &TrustedKeys) -> bool {
    open_signed(receipt, PAYLOAD_TYPE, trusted).is_ok()
}

/// All public keys of a PEM text.
///
/// # Errors
/// When there is none, or one that is not on P-256.
pub fn read_keys(pem: &[u8]) -> Result<TrustedKeys, AcknowledgerError> {
    let read: Result<Vec<_>, _> = SubjectPublicKeyInfoDer::pem_slice_iter(pem).collect();
    let read = read.ok().filter(|keys| !keys.is_empty()).ok_or(AcknowledgerError::None)?;
    let key = |spki: &SubjectPublicKeyInfoDer<'_>| PublicKey::from_spki(spki).map_err(|_| AcknowledgerError::NotP256);
    read.iter().map(key).collect()
}
