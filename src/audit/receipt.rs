//! Receipts: Rekor v2 `TransparencyLogEntry` JSON, made and verified offline. Pure.
//!
//! The leaf is the canonical `hashedrekord` 0.0.2 body (RFC 8785): SHA-256 of the signed bytes, signature, public key.
//! It holds nothing of the certificate's content. Verification rebuilds the body from the envelope and a trusted key
//! and compares bytes, so nothing in a receipt is believed but the checkpoint's signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::acknowledgement;
use super::wire::{Base64, Entry, InclusionProof, Int64, KindVersion, LogId, Note};
use crate::certify::dsse::Envelope;
use crate::certify::signer::{PublicKey, TrustedKeys};
use crate::log::checkpoint::{Checkpoint, CheckpointError, CheckpointKey, SignedCheckpoint};
use crate::log::cosignature::Quorum;
use crate::log::store::StoredLeaf;
use crate::log::tree::{Hash, leaf_hash, verify_inclusion};

/// The media type of the file that stock Sigstore verifiers read.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The member of such a file in which an acknowledgement stands.
pub const ACKNOWLEDGEMENT: &str = "acknowledgement";
/// The first line of a proof text (C2SP tlog-proof, which has no released version yet).
const PROOF_TEXT_HEADER: &str = "c2sp.org/tlog-proof@v1";
const KIND: &str = "hashedrekord";
const KIND_VERSION: &str = "0.0.2";
/// A proof in a tree of 2^64 leaves has 64 hashes.
const MAX_PROOF_HASHES: usize = 64;

/// How much a receipt proves, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Grade {
    /// Inclusion in a log whose head enough witnesses have signed.
    A,
    /// Inclusion in a log.
    B,
    /// A signed acknowledgement.
    C,
    /// Nothing but a status code.
    D,
}

/// Who runs the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogOperator {
    /// The audited party itself.
    SelfHosted,
    /// Another party.
    Independent,
}

impl Grade {
    /// What the grade is called, so that it says no more than it proves.
    #[must_use]
    pub fn describe(self, operator: LogOperator) -> &'static str {
        match (self, operator) {
            (Self::A, LogOperator::SelfHosted) => "self-hosted, witnessed",
            (Self::A, LogOperator::Independent) => "independent log, witnessed",
            (Self::B, LogOperator::SelfHosted) => "self-hosted, unwitnessed",
            (Self::B, LogOperator::Independent) => "independent log, unwitnessed",
            (Self::C, _) => "signed acknowledgement, no log",
            (Self::D, _) => "bare reply, no proof",
        }
    }
}

/// What a verified receipt proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedReceipt {
    /// The log.
    pub origin: String,
    /// The certificate's place in it, from 0.
    pub index: u64,
    /// The size of the tree it was shown in.
    pub tree_size: u64,
    /// That tree's root.
    pub root: Hash,
    /// How much that proves: B, unless [`VerifiedReceipt::witnessed_by`] found enough witnesses.
    pub grade: Grade,
    /// The signed head, with whatever signatures of witnesses it carries.
    pub note: String,
}

impl VerifiedReceipt {
    /// The signed head that it was shown under.
    #[must_use]
    pub fn head(&self) -> Checkpoint {
        Checkpoint { origin: self.origin.clone(), size: self.tree_size, root: self.root }
    }

    /// The same, with the grade that the log's witnesses make of it.
    #[must_use]
    pub fn witnessed_by(self, quorum: &Quorum) -> Self {
        let grade = if quorum.is_met(&self.note) { Grade::A } else { Grade::B };
        Self { grade, ..self }
    }
}

/// Why a receipt proves nothing. Trying again does not help.
#[derive(Debug, Error)]
pub enum ReceiptError {
    /// It is not a transparency-log entry.
    #[error("the receipt is not a transparency-log entry")]
    Json(#[source] serde_json::Error),
    /// It is an entry of another kind.
    #[error("the receipt is of another kind than hashedrekord 0.0.2")]
    OtherKind,
    /// It is of another log.
    #[error("the receipt is of another log than the trusted key")]
    OtherLog,
    /// It is about something else than this envelope.
    #[error("the receipt is not about this certificate")]
    OtherCertificate,
    /// The checkpoint is not good.
    #[error("the receipt's checkpoint is not good")]
    Checkpoint(#[from] CheckpointError),
    /// Its parts contradict each other.
    #[error("the receipt contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// The proof does not lead to the root.
    #[error("the receipt's inclusion proof does not lead to the signed root")]
    WrongProof,
}

/// The leaf for an envelope: the canonical `hashedrekord` body. Members stand in the order RFC 8785 demands, and no
/// value needs escaping.
#[must_use]
pub fn leaf_body(envelope: &Envelope, key: &PublicKey) -> Vec<u8> {
    let (digest, signature) = (STANDARD.encode(envelope.digest()), STANDARD.encode(envelope.signature()));
    let public = STANDARD.encode(key.spki());
    format!(
        concat!(
            r#"{{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{{"hashedRekordV002":{{"#,
            r#""data":{{"algorithm":"SHA2_256","digest":"{digest}"}},"#,
            r#""signature":{{"content":"{signature}","verifier":{{"keyDetails":"PKIX_ECDSA_P256_SHA_256","#,
            r#""publicKey":{{"rawBytes":"{public}"}}}}}}}}}}}}"#
        ),
        digest = digest,
        signature = signature,
        public = public
    )
    .into_bytes()
}

/// The digest of the signed bytes that a leaf body names; `None` when it is not one.
pub(super) fn body_digest(body: &[u8]) -> Option<Vec<u8>> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    STANDARD.decode(value.pointer("/spec/hashedRekordV002/data/digest")?.as_str()?).ok()
}

/// What is wrong with a filed certificate, if its envelope is still there: for [`crate::log::verify::verify_log`].
#[must_use]
pub fn check_content(leaf: &StoredLeaf, trusted: &TrustedKeys) -> Option<&'static str> {
    let content = leaf.content.as_deref()?;
    let (Ok(verified), Ok(envelope)) = (crate::certify::verify(content, trusted), Envelope::parse(content)) else {
        return Some("it holds no certificate by a trusted key");
    };
    let key = trusted.get(&verified.key_id)?;
    let fits = leaf_body(&envelope, key) == leaf.entry && verified.id() == leaf.id;
    (!fits).then_some("its certificate is not the one that was filed")
}

/// Makes the receipt of the leaf at `index` from its inclusion proof in the checkpoint's tree.
pub fn build(
    body: &[u8],
    index: u64,
    proof: &[Hash],
    checkpoint: &SignedCheckpoint,
    key: &CheckpointKey,
) -> Result<Vec<u8>, serde_json::Error> {
    let entry = Entry {
        log_index: Int64(index),
        log_id: LogId { key_id: Base64(key.log_id().to_vec()) },
        kind_version: KindVersion { kind: KIND.to_owned(), version: KIND_VERSION.to_owned() },
        integrated_time: Int64(0),
        inclusion_proof: InclusionProof {
            log_index: Int64(index),
            root_hash: Base64(checkpoint.checkpoint.root.to_vec()),
            tree_size: Int64(checkpoint.checkpoint.size),
            hashes: proof.iter().map(|hash| Base64(hash.to_vec())).collect(),
            checkpoint: Note { envelope: checkpoint.note.clone() },
        },
        canonicalized_body: Base64(body.to_vec()),
    };
    serde_json::to_vec(&entry)
}

/// Verifies that the log of `log` contains the certificate. The envelope's own signature is checked too, against
/// `signer`.
pub fn verify(
    receipt: &[u8],
    envelope: &Envelope,
    signer: &PublicKey,
    log: &CheckpointKey,
) -> Result<VerifiedReceipt, ReceiptError> {
    let entry: Entry = serde_json::from_slice(receipt).map_err(ReceiptError::Json)?;
    if entry.kind_version.kind != KIND || entry.kind_version.version != KIND_VERSION {
        return Err(ReceiptError::OtherKind);
    }
    if entry.log_id.key_id.0 != log.log_id() {
        return Err(ReceiptError::OtherLog);
    }
    let genuine = signer.verifies(&envelope.signed_bytes(), envelope.signature());
    if !genuine || entry.canonicalized_body.0 != leaf_body(envelope, signer) {
        return Err(ReceiptError::OtherCertificate);
    }
    let proof = &entry.inclusion_proof;
    let checkpoint = log.open(&proof.checkpoint.envelope)?.checkpoint;
    if proof.tree_size.0 != checkpoint.size || proof.root_hash.0 != checkpoint.root {
        return Err(ReceiptError::Inconsistent("size or root are not those of the checkpoint"));
    }
    if proof.log_index != entry.log_index {
        return Err(ReceiptError::Inconsistent("two different indexes"));
    }
    if proof.hashes.len() > MAX_PROOF_HASHES {
        return Err(ReceiptError::WrongProof);
    }
    let hashes: Option<Vec<Hash>> = proof.hashes.iter().map(|hash| hash.0.as_slice().try_into().ok()).collect();
    let hashes = hashes.ok_or(ReceiptError::WrongProof)?;
    let (index, leaf) = (entry.log_index.0, leaf_hash(&entry.canonicalized_body.0));
    if !verify_inclusion(index, checkpoint.size, &leaf, &hashes, &checkpoint.root) {
        return Err(ReceiptError::WrongProof);
    }
    let Checkpoint { origin, size, root } = checkpoint;
    let note = entry.inclusion_proof.checkpoint.envelope;
    Ok(VerifiedReceipt { origin, index, tree_size: size, root, grade: Grade::B, note })
}

/// The proof of a receipt as a C2SP tlog-proof, a text that people and tile-log tools read. It says where the leaf stands and
/// nothing of what it is: a verifier makes that from the envelope and the key.
pub fn to_proof_text(receipt: &[u8]) -> Result<String, ReceiptError> {
    let entry: Entry = serde_json::from_slice(receipt).map_err(ReceiptError::Json)?;
    let mut text = format!("{PROOF_TEXT_HEADER}\nindex {}\n", entry.log_index.0);
    for hash in &entry.inclusion_proof.hashes {
        text.push_str(&STANDARD.encode(&hash.0));
        text.push('\n');
    }
    text.push('\n');
    Ok(text + &entry.inclusion_proof.checkpoint.envelope)
}

/// Makes a receipt again from a tlog-proof and what it is about. Nothing is verified here; [`verify`] does that.
pub fn from_proof_text(
    text: &str,
    envelope: &Envelope,
    signer: &PublicKey,
    log: &CheckpointKey,
) -> Result<Vec<u8>, ReceiptError> {
    let bad = ReceiptError::Inconsistent("not a proof text");
    let parse = || {
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.lines();
        let known = lines.next() == Some(PROOF_TEXT_HEADER);
        let index = lines.next().filter(|_| known)?.strip_prefix("index ")?;
        let index: u64 = index.parse().ok().filter(|number: &u64| number.to_string() == index)?;
        let hashes: Option<Vec<Hash>> =
            lines.map(|line| STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok())).collect();
        Some((index, hashes.filter(|hashes| hashes.len() <= MAX_PROOF_HASHES)?, note))
    };
    let (index, hashes, note) = parse().ok_or(bad)?;
    let checkpoint = log.open(note)?;
    build(&leaf_body(envelope, signer), index, &hashes, &checkpoint, log).map_err(ReceiptError::Json)
}

/// The signed head of a receipt that was verified before, for comparing it with others.
pub fn head(receipt: &[u8], log: &CheckpointKey) -> Result<Checkpoint, ReceiptError> {
    let entry: Entry = serde_json::from_slice(receipt).map_err(ReceiptError::Json)?;
    Ok(log.open(&entry.inclusion_proof.checkpoint.envelope)?.checkpoint)
}

/// The place in its log that a receipt which was verified before is about.
pub fn place(receipt: &[u8], log: &CheckpointKey) -> Result<u64, ReceiptError> {
    let entry: Entry = serde_json::from_slice(receipt).map_err(ReceiptError::Json)?;
    log.open(&entry.inclusion_proof.checkpoint.envelope)?;
    Ok(entry.log_index.0)
}

/// Envelope, receipt and time stamp, if there is one, in one file, a Sigstore bundle v0.3 with a public-key hint, for stock verifiers.
/// An acknowledgement is no entry of a log: it stands in a member of its own, which stock verifiers do not know.
pub fn bundle(envelope: &Envelope, receipt: &[u8], stamp: Option<&[u8]>) -> Result<Vec<u8>, ReceiptError> {
    let receipt_value: serde_json::Value = serde_json::from_slice(receipt).map_err(ReceiptError::Json)?;
    let is_acknowledgement = acknowledgement::is_one(receipt);
    let entries = if is_acknowledgement { Vec::new() } else { vec![receipt_value.clone()] };
    let mut material = serde_json::json!({"publicKey": {"hint": envelope.key_id()}, "tlogEntries": entries});
    if let Some(stamp) = stamp {
        let stamps = serde_json::json!([{"signedTimestamp": STANDARD.encode(stamp)}]);
        material["timestampVerificationData"] = serde_json::json!({"rfc3161Timestamps": stamps});
    }
    let mut bundle = serde_json::json!({
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": STANDARD.encode(envelope.payload()),
            "payloadType": envelope.payload_type(),
            "signatures": [{"keyid": envelope.key_id(), "sig": STANDARD.encode(envelope.signature())}],
        },
    });
    if is_acknowledgement {
        bundle[ACKNOWLEDGEMENT] = receipt_value;
    }
    Ok(bundle.to_string().into_bytes())
}
