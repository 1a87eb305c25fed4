//! Signed tree heads: C2SP tlog-checkpoint v1.0.0 in a C2SP signed-note v1.0.0, Ed25519 (signature type 0x01). Pure.
//!
//! A note is the text, a blank line, and signature lines `— NAME BASE64(key hash ‖ signature)`. Lines of unknown keys
//! (witnesses) are kept and ignored. The key hash binds the name, so a log's origin never changes.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::tree::Hash;
use super::verifier_key;
use crate::random::{Random, RandomUnavailable};

/// The signature type of Ed25519 in signed notes.
const ED25519_TYPE: u8 = 1;
/// A note beyond this size is refused unread (C2SP allows a limit; ours are some 200 bytes).
const MAX_NOTE_BYTES: usize = 64 * 1024;
/// How a signature line begins: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// What is wrong with a note, a key string or a key. None of these is cured by trying again.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// The origin cannot stand in a note.
    #[error("a log's origin must not be empty, contain spaces or '+', or be longer than 200 bytes")]
    BadOrigin,
    /// The verification key string is not one, or not Ed25519.
    #[error("malformed verifier key: expected NAME+HASH+BASE64 of an Ed25519 key")]
    BadVerifierKey,
    /// The private key is not an Ed25519 key.
    #[error("the checkpoint key is not an Ed25519 key in PKCS#8")]
    BadPrivateKey,
    /// The note is not a checkpoint.
    #[error("malformed checkpoint: {0}")]
    Malformed(&'static str),
    /// The note is of another log.
    #[error("the checkpoint is of another log than the trusted key")]
    OtherOrigin,
    /// No signature by the trusted key.
    #[error("the checkpoint is not signed by the trusted key")]
    NotSigned,
    /// A signature line by the trusted key does not verify.
    #[error("the checkpoint's signature is wrong")]
    WrongSignature,
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's unique name, a URL without scheme by convention.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root of the tree of those leaves.
    pub root: Hash,
}

/// A checkpoint with the exact note it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The note, byte for byte.
    pub note: String,
}

/// The public half of a checkpoint key, with the origin it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointKey {
    origin: String,
    public: [u8; 32],
}

impl CheckpointKey {
    /// A key from its parts.
    pub fn new(origin: &str, public: [u8; 32]) -> Result<Self, CheckpointError> {
        if !is_key_name(origin) {
            return Err(CheckpointError::BadOrigin);
        }
        Ok(Self { origin: origin.to_owned(), public })
    }

    /// Parses a C2SP verifier key, `NAME+HASH+BASE64`, and checks its hash.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let (name, public) = verifier_key::parse(text, ED25519_TYPE).ok_or(CheckpointError::BadVerifierKey)?;
        Self::new(name, public).map_err(|_| CheckpointError::BadVerifierKey)
    }

    /// The C2SP verifier key string.
    #[must_use]
    pub fn verifier_key(&self) -> String {
        verifier_key::to_text(&self.origin, ED25519_TYPE, &self.public)
    }

    /// The log's origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The raw Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    /// The full key hash, SHA-256(name ‖ "\n" ‖ 0x01 ‖ key): the log id of receipts. Signature lines carry 4 bytes of
    /// it.
    #[must_use]
    pub fn log_id(&self) -> Hash {
        verifier_key::key_hash(&self.origin, ED25519_TYPE, &self.public)
    }

    fn short_hash(&self) -> [u8; 4] {
        verifier_key::short_hash(&self.origin, ED25519_TYPE, &self.public)
    }

    /// Checks a note's signature by this key and reads the checkpoint.
    pub fn open(&self, note: &str) -> Result<SignedCheckpoint, CheckpointError> {
        let (text, signatures) = split_note(note)?;
        let checkpoint = parse_body(text)?;
        if checkpoint.origin != self.origin {
            return Err(CheckpointError::OtherOrigin);
        }
        let mut signed = false;
        for line in signatures.lines() {
            let (name, bytes) = parse_signature(line)?;
            if name != self.origin || bytes[..4] != self.short_hash() {
                continue;
            }
            UnparsedPublicKey::new(&ED25519, &self.public)
                .verify(text.as_bytes(), &bytes[4..])
                .map_err(|_| CheckpointError::WrongSignature)?;
            signed = true;
        }
        if !signed {
            return Err(CheckpointError::NotSigned);
        }
        Ok(SignedCheckpoint { checkpoint, note: note.to_owned() })
    }
}

/// Whether a text can name a key in a note, as origins and names of witnesses do.
pub(super) fn is_key_name(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    !text.is_empty() && text.len() <= 200 && !text.contains(bad)
}

/// Splits a note into its text (with the final newline) and its signature lines.
pub(super) fn split_note(note: &str) -> Result<(&str, &str), CheckpointError> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(CheckpointError::Malformed("longer than 64 KiB"));
    }
    if note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(CheckpointError::Malformed("control characters"));
    }
    let at = note.rfind("\n\n").ok_or(CheckpointError::Malformed("no blank line before the signatures"))?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(CheckpointError::Malformed("no signature line, or no newline at the end"));
    }
    Ok((text, signatures))
}

pub(super) fn parse_signature(line: &str) -> Result<(&str, Vec<u8>), CheckpointError> {
    let malformed = CheckpointError::Malformed("a signature line is not one");
    let parse = || {
        let (name, encoded) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
        let bytes = STANDARD.decode(encoded).ok()?;
        (!name.is_empty() && bytes.len() > 4).then_some((name, bytes))
    };
    parse().ok_or(malformed)
}

fn parse_body(text: &str) -> Result<Checkpoint, CheckpointError> {
    let mut lines = text.lines();
    let mut next = |what| lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::Malformed(what));
    let origin = next("no origin")?.to_owned();
    let size_text = next("no size")?;
    let root_text = next("no root")?;
    let size: u64 = size_text.parse().map_err(|_| CheckpointError::Malformed("the size is not a number"))?;
    if size.to_string() != size_text {
        return Err(CheckpointError::Malformed("the size has leading zeros or a sign"));
    }
    let root = STANDARD.decode(root_text).ok().and_then(|root| root.try_into().ok());
    let root = root.ok_or(CheckpointError::Malformed("the root is not 32 bytes of base64"))?;
    if lines.any(str::is_empty) {
        return Err(CheckpointError::Malformed("an empty extension line"));
    }
    Ok(Checkpoint { origin, size, root })
}

/// How many leaves a note speaks of; its signature is not looked at.
pub(super) fn unverified_size(note: &str) -> Result<u64, CheckpointError> {
    let (text, _) = split_note(note)?;
    Ok(parse_body(text)?.size)
}

/// Signs the checkpoints of one log.
pub struct CheckpointSigner {
    pair: Ed25519KeyPair,
    key: CheckpointKey,
}

impl CheckpointSigner {
    /// Draws a new key; returns the signer and the PKCS#8 bytes to keep in a file.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn make_pkcs8(random: &dyn Random) -> Result<zeroize::Zeroizing<Vec<u8>>, RandomUnavailable> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        random.fill(&mut seed[..])?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| RandomUnavailable)?;
        let document = pair.to_pkcs8v1().map_err(|_| RandomUnavailable)?;
        Ok(zeroize::Zeroizing::new(document.as_ref().to_vec()))
    }

    /// A signer from PKCS#8 bytes, for the log with this origin.
    pub fn from_pkcs8(origin: &str, pkcs8: &[u8]) -> Result<Self, CheckpointError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| CheckpointError::BadPrivateKey)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| CheckpointError::BadPrivateKey)?;
        let key = CheckpointKey::new(origin, public)?;
        Ok(Self { pair, key })
    }

    /// The public half.
    #[must_use]
    pub fn key(&self) -> &CheckpointKey {
        &self.key
    }

    /// Signs the head of a tree.
    #[must_use]
    pub fn sign(&self, size: u64, root: Hash) -> SignedCheckpoint {
        let origin = &self.key.origin;
        let text = format!("{origin}\n{size}\n{}\n", STANDARD.encode(root));
        let mut signature = self.key.short_hash().to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        let note = format!("{text}\n{SIGNATURE_PREFIX}{origin} {}\n", STANDARD.encode(signature));
        SignedCheckpoint { checkpoint: Checkpoint { origin: origin.clone(), size, root }, note }
    }
}
