//! A certificate as a file holds it, taken apart. Nothing is verified here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::GivenReceipt;
use crate::audit::receipt::{ACKNOWLEDGEMENT, BUNDLE_MEDIA_TYPE};

/// Nobody stamps a certificate more often.
const MOST_STAMPS: usize = 16;

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub struct CertificateParts {
    /// The DSSE envelope.
    pub envelope: Vec<u8>,
    /// The receipt beside it.
    pub receipt: GivenReceipt,
    /// The time stamps beside it.
    pub stamps: Vec<Vec<u8>>,
}

/// Takes a bundle or an envelope apart.
///
/// # Errors
/// Why it is neither, as part of a sentence.
pub fn read_parts(bytes: &[u8]) -> Result<CertificateParts, &'static str> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| "not JSON")?;
    if value.get("payloadType").is_some() {
        let (envelope, receipt) = (bytes.to_vec(), GivenReceipt::NotInThisForm);
        return Ok(CertificateParts { envelope, receipt, stamps: Vec::new() });
    }
    if value.get("mediaType").and_then(Value::as_str) != Some(BUNDLE_MEDIA_TYPE) {
        return Err("neither a Sigstore bundle v0.3 nor a DSSE envelope");
    }
    let envelope = value.get("dsseEnvelope").ok_or("a bundle without an envelope")?;
    let entry = value.pointer("/verificationMaterial/tlogEntries/0");
    let receipt = match (entry, value.get(ACKNOWLEDGEMENT)) {
        (Some(entry), _) => GivenReceipt::Entry(entry.to_string().into_bytes()),
        (None, Some(signed)) => GivenReceipt::Signed(signed.to_string().into_bytes()),
        (None, None) => GivenReceipt::Missing,
    };
    let stamps = value.pointer("/verificationMaterial/timestampVerificationData/rfc3161Timestamps");
    let stamps = stamps.and_then(Value::as_array).into_iter().flatten();
    let decode = |stamp: &Value| STANDARD.decode(stamp.get("signedTimestamp")?.as_str()?).ok();
    let stamps: Option<Vec<Vec<u8>>> = stamps.take(MOST_STAMPS).map(decode).collect();
    let stamps = stamps.ok_or("a time stamp in it is not base64")?;
    Ok(CertificateParts { envelope: envelope.to_string().into_bytes(), receipt, stamps })
}
