//! The certificate key: ECDSA P-256 with SHA-256, in an owner-only PKCS#8 file; where it lies in a key service or a token instead,
//! only its public half is known here ([`crate::keys::signing`]).
//!
//! P-256 because hardware modules, Rekor and every stock verifier do it. The key draws its nonces from the crypto
//! library's own generator, as it does itself when it is made; so signing twice gives two signatures, and only the
//! first envelope is ever kept.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use aws_lc_rs::signature::{ParsedPublicKey, UnparsedPublicKey};
use thiserror::Error;

use super::dsse::{Envelope, EnvelopeError};
use crate::log::key_file::{self, KeyFileError, decode_pem, encode_pem};
use crate::log::tree::sha256;

/// The DER header of a SubjectPublicKeyInfo with an uncompressed P-256 point (RFC 5480 §2).
const SPKI_HEADER: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Bytes of an uncompressed point.
const POINT_BYTES: usize = 65;

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum SignerError {
    /// The key file.
    #[error("the certificate key cannot be used")]
    File(#[from] KeyFileError),
    /// The bytes are not a P-256 key.
    #[error("the certificate key is not an ECDSA P-256 key in PKCS#8")]
    NotP256,
    /// The text is not a P-256 public key.
    #[error("not a P-256 public key in PEM")]
    NotPublicKey,
    /// The crypto library refused; worth retrying.
    #[error("the crypto library did not sign")]
    Refused,
}

/// Why a signed file counts for nothing. Trying again does not help.
#[derive(Debug, Error)]
pub enum SignedError {
    /// The envelope itself is malformed.
    #[error("the envelope is malformed")]
    Envelope(#[from] EnvelopeError),
    /// It holds something of another type.
    #[error("it is something else")]
    OtherKind,
    /// None of the trusted keys made the signature.
    #[error("it is signed by a key that is not trusted")]
    UnknownKey,
    /// The signature does not fit.
    #[error("it was changed: its signature does not fit")]
    WrongSignature,
}

/// Opens a signed file: the very bytes whose signature was checked.
///
/// # Errors
/// Why it counts for nothing.
pub fn open_signed(file: &[u8], payload_type: &str, trusted: &TrustedKeys) -> Result<Envelope, SignedError> {
    let envelope = Envelope::parse(file)?;
    if envelope.payload_type() != payload_type {
        return Err(SignedError::OtherKind);
    }
    let key = trusted.get(envelope.key_id()).ok_or(SignedError::UnknownKey)?;
    if key.verifies(&envelope.signed_bytes(), envelope.signature()) {
        Ok(envelope)
    } else {
        Err(SignedError::WrongSignature)
    }
}

/// A P-256 public key, named by the SHA-256 of its SubjectPublicKeyInfo in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    key_id: String,
}

impl PublicKey {
    /// A key from its SubjectPublicKeyInfo.
    pub fn from_spki(spki: &[u8]) -> Result<Self, SignerError> {
        let point = spki.strip_prefix(&SPKI_HEADER).filter(|point| point.len() == POINT_BYTES);
        let point = point.ok_or(SignerError::NotPublicKey)?;
        // Parsing proves that the point lies on the curve.
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).map_err(|_| SignerError::NotPublicKey)?;
        Ok(Self { spki: spki.to_vec(), key_id: hex::encode(sha256(spki)) })
    }

    /// A key from its uncompressed point.
    pub fn from_point(point: &[u8]) -> Result<Self, SignerError> {
        Self::from_spki(&[&SPKI_HEADER, point].concat())
    }

    /// A key from PEM (`PUBLIC KEY`).
    pub fn from_pem(text: &str) -> Result<Self, SignerError> {
        Self::from_spki(&decode_pem("PUBLIC KEY", text).ok_or(SignerError::NotPublicKey)?)
    }

    /// The key as PEM, for `openssl` and people.
    #[must_use]
    pub fn to_pem(&self) -> String {
        encode_pem("PUBLIC KEY", &self.spki)
    }

    /// The key's SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo, in hex.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Whether `signature` (ASN.1 DER) is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = &self.spki[SPKI_HEADER.len()..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
    }
}

/// Keys whose certificates are believed. Retired ones stay as long as any certificate of theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys(BTreeMap<String, PublicKey>);

impl TrustedKeys {
    /// The key with this id.
    #[must_use]
    pub fn get(&self, key_id: &str) -> Option<&PublicKey> {
        self.0.get(key_id)
    }

    /// Whether nobody is believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All keys, by id.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.values()
    }
}

impl FromIterator<PublicKey> for TrustedKeys {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.key_id.clone(), key)).collect())
    }
}

/// Signs certificates.
pub struct CertificateSigner {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl CertificateSigner {
    /// Makes a new key and keeps it in a new file with mode 0600.
    pub fn create(path: &Path) -> Result<Self, SignerError> {
        let made = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).and_then(|pair| pair.to_pkcs8v1());
        let document = made.map_err(|_| SignerError::File(KeyFileError::NotMade))?;
        key_file::create(path, document.as_ref())?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Makes a new key that is kept nowhere, and is gone with this value.
    pub fn in_memory() -> Result<Self, SignerError> {
        let made = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).and_then(|pair| pair.to_pkcs8v1());
        Self::from_pkcs8(made.map_err(|_| SignerError::File(KeyFileError::NotMade))?.as_ref())
    }

    /// Opens a key file. Refused when others can read it.
    pub fn open(path: &Path) -> Result<Self, SignerError> {
        Self::from_pkcs8(&key_file::read(path)?)
    }

    /// A signer from PKCS#8 bytes.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SignerError> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).map_err(|_| SignerError::NotP256)?;
        let spki = [&SPKI_HEADER, pair.public_key().as_ref()].concat();
        let public = PublicKey::from_spki(&spki).map_err(|_| SignerError::NotP256)?;
        Ok(Self { pair, public })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message; the signature is ASN.1 DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| SignerError::Refused)?;
        Ok(signature.as_ref().to_vec())
    }
}
