//! Filing certificates with an audit service, and a small audit service of our own.
//!
//! The port is [`AuditSink`]; [`client`] is its adapter over HTTP, [`service`] the embedded service (on the append-only
//! log of [`crate::log`]), [`receipt`] what the one gives the other: a Rekor v2 transparency-log entry that anyone can
//! verify offline. Retrying, ordering and remembering are the outbox's work, in the control database.
//!
//! Invariants: a receipt counts only after it was verified against a key that was configured, not one that came with
//! it; an envelope's bytes travel as they are stored; bodies and tokens are never logged.

pub mod acknowledgement;
#[cfg(test)]
mod acknowledgement_tests;
pub mod circuit;
pub mod client;
#[cfg(test)]
mod contract_tests;
pub mod key_history;
#[cfg(test)]
mod kill_tests;
pub mod receipt;
pub mod service;
pub mod stamp;
#[cfg(test)]
mod tests;
pub mod trace_context;
pub mod trust;
pub mod webhook;
#[cfg(test)]
mod webhook_tests;
mod wire;
pub mod witness;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use self::acknowledgement::AcknowledgementError;
use self::receipt::VerifiedReceipt;
use crate::log::checkpoint::Checkpoint;
use crate::random::{Random, RandomUnavailable};

/// Where certificates are filed.
#[async_trait]
pub trait AuditSink: Send + Sync {
    /// Files one certificate: `id` is its UUID, `envelope` its stored bytes. Filing again is harmless.
    async fn file(&self, id: &str, envelope: &[u8]) -> FiledOutcome;

    /// Asks, without filing anything, whether a certificate is filed. With its `envelope` the service must prove it by a receipt;
    /// without one, its word that there is a receipt is enough.
    async fn look(&self, id: &str, envelope: Option<&[u8]>) -> Looked;

    /// Asks for the proof that the log grew from the head of an earlier receipt to that of a later one.
    async fn grew(&self, earlier: &Checkpoint, later: &Checkpoint) -> Grown;
}

/// Whether a later head of a log extends an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grown {
    /// It does.
    Proved,
    /// It does not: the log was rolled back, or shows different people different histories. The two heads prove it.
    Refuted,
    /// The service gave no proof that could be judged.
    Unanswered,
}

/// What two heads of one log say without any proof; `None` when a proof is needed.
#[must_use]
pub fn judge_heads(earlier: &Checkpoint, later: &Checkpoint) -> Option<Grown> {
    match (earlier.size.cmp(&later.size), earlier.root == later.root) {
        (std::cmp::Ordering::Equal, true) => Some(Grown::Proved),
        // What is filed later stands under a head that is no smaller.
        (std::cmp::Ordering::Equal, false) | (std::cmp::Ordering::Greater, _) => Some(Grown::Refuted),
        (std::cmp::Ordering::Less, _) => None,
    }
}

/// What a service says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// It is filed.
    Filed,
    /// It is not.
    NotFiled,
    /// No answer that could be relied on.
    Unanswered,
}

/// What became of one filing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FiledOutcome {
    /// It is filed, and the receipt verified.
    Receipted(FiledReceipt),
    /// The service took it and signed for it, without a log. The acknowledgement verified; its bytes, to be kept as they are.
    Signed(Vec<u8>),
    /// The service took it and gave no receipt, as a webhook does of which none is wanted: it says so, and nothing proves it.
    Acknowledged,
    /// The service refused this certificate. Keep it, tell someone; trying again does not help.
    Quarantine(QuarantineReason),
    /// Not filed, or not known to be: try again.
    Retry {
        /// Not before this delay; none: by the caller's own back-off ([`backoff`]).
        after: Option<Duration>,
        /// Whether someone must be told at once, because only they can mend it.
        alarm: bool,
        /// Why.
        reason: RetryReason,
    },
}

/// A receipt that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiledReceipt {
    /// Its bytes, to be kept as they are.
    pub bytes: Vec<u8>,
    /// What it proves.
    pub verified: VerifiedReceipt,
}

/// Why a certificate cannot be filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QuarantineReason {
    /// The service has another certificate under this id.
    #[error("the audit service holds another certificate under this id")]
    Conflict,
    /// The service says that the certificate is malformed, badly signed, too large, or by a key it does not know.
    #[error("the audit service refused the certificate with status {0}")]
    Refused(u16),
    /// Our own check refused it before it was sent.
    #[error("the stored envelope is not a certificate with this id by one of our keys")]
    NotOurs,
}

/// Why a filing is to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RetryReason {
    /// No answer: network, TLS, time-out.
    #[error("the audit service does not answer")]
    Unreachable,
    /// The service is overloaded, or down behind a proxy.
    #[error("the audit service is not ready (status {0})")]
    NotReady(u16),
    /// Accepted, the receipt is to come.
    #[error("the audit service has not made the receipt yet")]
    Pending,
    /// Address, password, path or method are wrong, or the service redirects.
    #[error("the audit service is configured wrongly (status {0}); check address and credentials")]
    Misconfigured(u16),
    /// The service took it, but its receipt does not verify.
    #[error("the audit service's receipt does not verify against the configured log key")]
    BadReceipt,
    /// The webhook took it, but its answer is no acknowledgement of it.
    #[error("the webhook's answer does not acknowledge the certificate: {0}")]
    BadAcknowledgement(AcknowledgementError),
}

impl RetryReason {
    /// Whether it says something of the service and not of one certificate.
    #[must_use]
    pub fn is_of_service(self) -> bool {
        matches!(self, Self::Unreachable | Self::NotReady(_) | Self::Misconfigured(_))
    }
}

/// A bearer token. Never printed; wiped on drop.
pub struct BearerToken(zeroize::Zeroizing<String>);

/// A token that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a bearer token has 16 to 4096 visible ASCII characters and no spaces")]
pub struct BadToken;

impl BearerToken {
    /// Takes a token over; surrounding white space (a file's last newline) is cut off.
    pub fn new(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let good = (16..=4096).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if good { Ok(Self(zeroize::Zeroizing::new(text.to_owned()))) } else { Err(BadToken) }
    }

    fn header(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(format!("Bearer {}", self.0.as_str()))
    }

    /// Whether an Authorization header carries this token; takes the same time whatever differs.
    fn matches(&self, header: &[u8]) -> bool {
        use crate::log::tree::sha256;
        let (ours, theirs) = (sha256(self.header().as_bytes()), sha256(header));
        aws_lc_rs::constant_time::verify_slices_are_equal(&ours, &theirs).is_ok()
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

/// The delay before try number `attempt` (from 1): exponential from 1 s, doubled each time, at most 15 minutes, with
/// full jitter, so that many agents do not come back together.
pub fn backoff(attempt: u32, random: &dyn Random) -> Result<Duration, RandomUnavailable> {
    let limit_ms = 1000u64.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(15 * 60 * 1000);
    let mut bytes = [0; 8];
    random.fill(&mut bytes)?;
    Ok(Duration::from_millis(u64::from_be_bytes(bytes) % (limit_ms + 1)))
}
