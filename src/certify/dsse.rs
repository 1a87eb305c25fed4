//! DSSE v1.0.2 envelopes with exactly one signature. Pure.
//!
//! Two signatures in one envelope make stock Sigstore verifiers refuse it; a co-signer signs a second envelope. The
//! envelope's own JSON is not signed, so nothing but payload type, payload and signature is ever believed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::log::tree::{Hash, sha256};

/// The payload type of in-toto statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What is wrong with an envelope.
#[derive(Debug, Error)]
pub enum EnvelopeError {
    /// It is not the JSON object of an envelope.
    #[error("not a DSSE envelope")]
    Json(#[source] serde_json::Error),
    /// There is not exactly one signature.
    #[error("an envelope has exactly one signature, this one has {0}")]
    Signatures(usize),
    /// Payload or signature are not base64 with padding.
    #[error("the envelope's {0} is not base64")]
    Base64(&'static str),
}

/// The DSSE pre-authentication encoding: what is signed.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// A parsed envelope together with the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    bytes: Vec<u8>,
    payload_type: String,
    payload: Vec<u8>,
    signature: Vec<u8>,
    key_id: String,
}

impl Envelope {
    /// A new envelope around what was signed.
    #[must_use]
    pub fn make(payload_type: &str, payload: Vec<u8>, signature: Vec<u8>, key_id: &str) -> Self {
        let wire = serde_json::json!({
            "payloadType": payload_type,
            "payload": STANDARD.encode(&payload),
            "signatures": [{"keyid": key_id, "sig": STANDARD.encode(&signature)}],
        });
        let bytes = wire.to_string().into_bytes();
        Self { bytes, payload_type: payload_type.to_owned(), payload, signature, key_id: key_id.to_owned() }
    }

    /// Reads an envelope. Nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(EnvelopeError::Json)?;
        let [signature] = &wire.signatures[..] else { return Err(EnvelopeError::Signatures(wire.signatures.len())) };
        let payload = STANDARD.decode(&wire.payload).map_err(|_| EnvelopeError::Base64("payload"))?;
        let decoded = STANDARD.decode(&signature.sig).map_err(|_| EnvelopeError::Base64("signature"))?;
        let key_id = signature.keyid.clone();
        Ok(Self { bytes: bytes.to_vec(), payload_type: wire.payload_type, payload, signature: decoded, key_id })
    }

    /// The envelope's bytes, to be stored and sent exactly so.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What kind of payload it says it holds.
    #[must_use]
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signature (ECDSA in ASN.1 DER).
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The id of the key that is said to have signed; only a hint for choosing among trusted keys.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The bytes under the signature.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// SHA-256 of the bytes under the signature.
    #[must_use]
    pub fn digest(&self) -> Hash {
        sha256(&self.signed_bytes())
    }
}
