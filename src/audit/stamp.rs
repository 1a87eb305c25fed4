//! Time stamps (RFC 3161): that an authority which others trust saw a certificate's signature, and when. Pure but for the port.
//!
//! What is stamped is SHA-256 of the signature's bytes, as Sigstore bundles want it. A reply is kept as it came (a `TimeStampResp`),
//! and only after [`verify`] found all of it good: granted, about this signature, by one signer whose certificate is for nothing but
//! time stamping and leads to a configured root, as things were at the time that it names. A time stamp shows that the signature
//! existed by then; it says nothing of what was signed. Whether a certificate was revoked is not asked.

pub mod asn1;
mod signature;
#[cfg(test)]
mod tests;

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use der::Encode as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;
use webpki::anchor_from_trusted_cert;

use self::asn1::{Imprint, Reply, Request, Token};
use crate::log::tree::sha256;

/// No reply comes near this size.
pub const MAX_REPLY_BYTES: usize = 64 * 1024;
/// How far the clocks of the authority and of this host may be apart.
pub const CLOCKS_APART: TimeDelta = TimeDelta::minutes(10);

/// Why a reply of an authority is no time stamp for a signature. Trying again helps only where the authority mends itself.
#[derive(Debug, Error)]
pub enum StampError {
    /// It is not what RFC 3161 describes.
    #[error("the time stamp is malformed: {0}")]
    Malformed(&'static str),
    /// The authority did not grant it.
    #[error("the time-stamping authority refused (status {status}): {why}")]
    NotGranted {
        /// Its status code.
        status: u8,
        /// What the failure bit means.
        why: &'static str,
    },
    /// It is about something else.
    #[error("the time stamp is about another signature")]
    OtherImprint,
    /// It answers another request.
    #[error("the time stamp answers another request: its nonce is not ours")]
    OtherNonce,
    /// The certificate that signed it did not come with it, and is not among the trusted ones.
    #[error("the certificate that signed the time stamp is missing")]
    NoSigner,
    /// The signed attributes do not fit what they are about.
    #[error("the time stamp's signed attributes do not fit: {0}")]
    Attributes(&'static str),
    /// It is signed in a way that is not known.
    #[error("the time stamp is signed with an algorithm that is not supported ({0})")]
    Algorithm(String),
    /// The signature is wrong.
    #[error("the time stamp's signature is wrong")]
    WrongSignature,
    /// The certificate is not one for time stamping alone.
    #[error("the time stamp's signer is not a certificate for time stamping alone")]
    Purpose,
    /// The certificate does not lead to a trusted root, or was not valid then.
    #[error("the time stamp's signer does not lead to a trusted root, or was not valid then: {0}")]
    Chain(webpki::Error),
    /// The time cannot be right.
    #[error("the time stamp says {said}, which cannot be: {why}")]
    Time {
        /// What it says.
        said: DateTime<Utc>,
        /// Why not.
        why: &'static str,
    },
    /// A file of certificates is not usable.
    #[error("no usable certificate of a time-stamping authority: {0}")]
    Roots(&'static str),
}

/// Why an authority gave no answer. All of these may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AskError {
    /// Network, TLS, time-out.
    #[error("the time-stamping authority does not answer")]
    Unreachable,
    /// Overloaded, or down behind a proxy.
    #[error("the time-stamping authority is not ready (status {0})")]
    NotReady(u16),
    /// Address or rights are wrong.
    #[error("the time-stamping authority is configured wrongly (status {0}); check the address")]
    Misconfigured(u16),
    /// The reply is longer than any time stamp.
    #[error("the time-stamping authority's answer is too long to be a time stamp")]
    TooLong,
}

impl AskError {
    /// Whether only a person mends it.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        matches!(self, Self::Misconfigured(_) | Self::TooLong)
    }
}

/// A time-stamping authority.
#[async_trait]
pub trait StampAuthority: Send + Sync {
    /// Sends a request (DER) and returns the reply as it came. Nothing of it is believed yet.
    async fn ask(&self, request: &[u8]) -> Result<Vec<u8>, AskError>;
}

/// Whose time stamps are believed: certificates that are trusted as they are.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StampTrust {
    roots: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for StampTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StampTrust({} certificates)", self.roots.len())
    }
}

impl StampTrust {
    /// All certificates of a PEM text; each of them counts as a root.
    pub fn from_pem(pem: &[u8]) -> Result<Self, StampError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let roots = read.map_err(|_| StampError::Roots("not PEM"))?;
        if roots.is_empty() {
            return Err(StampError::Roots("no `CERTIFICATE` in it"));
        }
        Self::of(roots)
    }

    fn of(mut roots: Vec<CertificateDer<'static>>) -> Result<Self, StampError> {
        for root in &roots {
            anchor_from_trusted_cert(root).map_err(|_| StampError::Roots("not an X.509 certificate"))?;
        }
        let mut seen = std::collections::BTreeSet::new();
        roots.retain(|root| seen.insert(root.to_vec()));
        Ok(Self { roots })
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The certificates in DER.
    pub fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.roots.iter().map(AsRef::as_ref)
    }

    fn anchors(&self) -> Result<Vec<TrustAnchor<'_>>, StampError> {
        let anchor = |root| anchor_from_trusted_cert(root).map_err(StampError::Chain);
        self.roots.iter().map(anchor).collect()
    }
}

/// A time stamp that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeStamp {
    /// The time that the authority says.
    pub at: DateTime<Utc>,
    /// The subject of the certificate that signed.
    pub authority: String,
    /// That certificate, those between, and the trusted one, in DER.
    pub chain: Vec<Vec<u8>>,
    /// From when until when the signer's certificate is valid.
    pub signer_valid: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
}

impl TimeStamp {
    /// Whether the time can be right for something that was signed at `signed`, looked at `now`: not before the one, not behind the
    /// other, but for clocks that are some minutes apart.
    pub fn check_time(&self, signed: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), StampError> {
        match impossible_time(self.at, signed, now) {
            Some(why) => Err(StampError::Time { said: self.at, why }),
            None => Ok(()),
        }
    }

    /// The same for one that was asked for just now: an authority whose clock is far from this host's is not believed.
    pub fn check_fresh(&self, now: DateTime<Utc>) -> Result<(), StampError> {
        if (self.at - now).abs() > CLOCKS_APART {
            let why = "that is far from this host's clock";
            return Err(StampError::Time { said: self.at, why });
        }
        Ok(())
    }
}

/// Why a certificate that was signed at `signed` cannot have been seen at `at`, looked at `now`; clocks are some minutes apart.
pub(super) fn impossible_time(at: DateTime<Utc>, signed: DateTime<Utc>, now: DateTime<Utc>) -> Option<&'static str> {
    if at < signed - CLOCKS_APART {
        return Some("the certificate says that it was signed later");
    }
    (at > now + CLOCKS_APART).then_some("that is in the future of this host's clock")
}

/// A request for a time stamp over these bytes: their SHA-256, a nonce, and the wish for the authority's certificate.
pub fn request(message: &[u8], nonce: u64) -> Result<Vec<u8>, StampError> {
    let request = Request { version: 1, message_imprint: Imprint::of(sha256(message))?, nonce, cert_req: true };
    request.to_der().map_err(|_| StampError::Malformed("the request cannot be encoded"))
}

/// Checks a reply whole: against the bytes that it is to be about, the trusted certificates and, right after asking, the nonce.
pub fn verify(reply: &[u8], message: &[u8], trust: &StampTrust, nonce: Option<u64>) -> Result<TimeStamp, StampError> {
    let token = Token::of(&Reply::read_granted(reply)?)?;
    if !token.info.message_imprint.is(sha256(message)) {
        return Err(StampError::OtherImprint);
    }
    if nonce.is_some_and(|nonce| !token.info.answers(nonce)) {
        return Err(StampError::OtherNonce);
    }
    let at = token.info.time()?;
    let signer = signature::check(&token, trust)?;
    let (authority, chain) = signer.check_chain(&token, &trust.anchors()?, trust, at)?;
    Ok(TimeStamp { at, authority, chain, signer_valid: signer.valid() })
}
