//! Signatures of Standard Webhooks: HMAC-SHA-256 over id, time and body. Pure.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use thiserror::Error;
use zeroize::Zeroizing;

/// How a secret begins.
const PREFIX: &str = "whsec_";
/// How long a secret's bytes may be.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that both sides have. Never printed; its bytes are wiped once the key is made.
pub struct WebhookSecret(hmac::Key);

/// A secret that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a webhook secret is `whsec_` and 24 to 64 bytes in base64")]
pub struct BadSecret;

impl WebhookSecret {
    /// Takes a secret over; surrounding white space (a file's last newline) is cut off.
    ///
    /// # Errors
    /// When it is not of the form that the specification gives.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(BadSecret)?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| BadSecret)?);
        if !LENGTHS.contains(&bytes.len()) {
            return Err(BadSecret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, message: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(hmac::sign(&self.0, message)))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// The headers of one post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookHeaders {
    /// `webhook-id`: the same for every try of one message.
    pub id: String,
    /// `webhook-timestamp`: seconds since 1970, of this try.
    pub timestamp: String,
    /// `webhook-signature`: one for each secret, with spaces between.
    pub signature: String,
}

/// Signs a message at a time with every secret, so that the other side may know any of them.
#[must_use]
pub fn sign(id: &str, at: DateTime<Utc>, body: &[u8], secrets: &[WebhookSecret]) -> WebhookHeaders {
    let timestamp = at.timestamp().to_string();
    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(&message)).collect();
    WebhookHeaders { id: id.to_owned(), timestamp, signature: signatures.join(" ") }
}
