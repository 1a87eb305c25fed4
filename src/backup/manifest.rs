//! A manifest: the signed statement of what a snapshot consists of. Format version 1, of increments 2. Pure.
//!
//! It holds numbers and hashes only: no table, no row count of a table, no key, no customer. It can be checked without any
//! decryption key, and stays valid after everything it lists was shredded. The signature is a DSSE envelope
//! (github.com/secure-systems-lab/dsse, protocol.md, version 1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::codec::{Id128, Sha256};
use super::directory::MAX_PARTS;

/// The media type that is signed together with the content.
pub const PAYLOAD_TYPE: &str = "application/vnd.wangchuan.manifest+json";
/// The format version of a full snapshot's manifest.
pub const FORMAT_VERSION: u32 = 1;
/// That of an increment's: it has a member more, and alone it is no backup, which an older reader must not believe.
pub const INCREMENT_VERSION: u32 = 2;
/// The most bytes of a manifest object: room for some 80,000 packs.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;
/// Sequence numbers have ten digits in names.
pub const MAX_SEQUENCE: u64 = 9_999_999_999;

/// What a snapshot consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`], or [`INCREMENT_VERSION`] for an increment.
    pub format_version: u32,
    /// The installation whose repository it is.
    pub installation: Id128,
    /// The store's opaque id (its name stands nowhere in the repository).
    pub store: Id128,
    /// The snapshot's id.
    pub snapshot: Id128,
    /// Full or incremental.
    pub kind: SnapshotKind,
    /// The number of its chain.
    pub chain: u64,
    /// Counts the store's manifests without gaps, from 1.
    pub sequence: u64,
    /// The SHA-256 of the previous manifest's object; absent in the first.
    pub previous: Option<Sha256>,
    /// The SHA-256 of the manifest object of the snapshot that an increment continues, which is of the same chain; absent in a full
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Sha256>,
    /// How many ledger entries the snapshot has taken into account.
    pub ledger_position: u64,
    /// When the snapshot's view of the store was opened, UTC.
    pub begun: DateTime<Utc>,
    /// When everything but this manifest was stored, UTC.
    pub committed: DateTime<Utc>,
    /// The packs; frames refer to them by index.
    pub packs: Vec<PackRef>,
    /// The parts of the directory, in order.
    pub directory: Vec<PartRef>,
    /// Frames in all packs.
    pub frames: u64,
}

/// What a snapshot contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// Every living row of every registered collection.
    Full,
    /// The rows that were inserted, changed or moved to another cell since its parent, and the digests of those that were removed.
    Incremental,
}

impl SnapshotKind {
    /// The word for it in output and in the control database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        }
    }

    fn version(self) -> u32 {
        match self {
            Self::Full => FORMAT_VERSION,
            Self::Incremental => INCREMENT_VERSION,
        }
    }
}

/// A pack as the manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackRef {
    /// Digest of the object, and its name.
    pub sha256: Sha256,
    /// Its bytes.
    pub bytes: u64,
    /// Its frames.
    pub frames: u32,
}

/// A directory part as the manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRef {
    /// Digest of the object, and its name.
    pub sha256: Sha256,
    /// Its bytes.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// What a signer reports when it cannot sign.
pub type SignerError = Box<dyn std::error::Error + Send + Sync>;
/// Signs the pre-authentication encoding (PAE) of a manifest.
pub type Sign<'a> = &'a (dyn Fn(&[u8]) -> Result<Vec<u8>, SignerError> + Sync);
/// Says whether (key id, PAE, signature) is a valid signature of a key that is trusted for manifests.
pub type VerifySignature<'a> = &'a (dyn Fn(&str, &[u8], &[u8]) -> bool + Sync);

/// Why a manifest cannot be made or trusted. Only a failed signer may be worth another try.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The object is not a signed manifest.
    #[error("the manifest is corrupt: {0}")]
    Corrupt(&'static str),
    /// A newer version of the program wrote it.
    #[error("the manifest has unknown format version {0}; a newer version of the program may know it")]
    UnknownVersion(u64),
    /// The object has another digest than its name says.
    #[error("the manifest's bytes have another SHA-256 than its name says")]
    OtherDigest,
    /// No trusted key has signed these bytes.
    #[error("the manifest is not signed by a trusted key")]
    Untrusted,
    /// The signer failed.
    #[error("the manifest could not be signed")]
    Signer(#[source] SignerError),
}

/// A signed manifest, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    /// The object's name, which contains its digest.
    pub name: String,
    /// The digest of `bytes`; the next manifest's `previous`.
    pub sha256: Sha256,
    /// The whole object.
    pub bytes: Vec<u8>,
}

/// The name prefix of a store's manifests.
#[must_use]
pub fn manifest_prefix(store: &Id128) -> String {
    format!("manifests/{store}/")
}

/// A manifest object's name.
#[must_use]
pub fn manifest_name(store: &Id128, sequence: u64, sha256: &Sha256) -> String {
    format!("manifests/{store}/{sequence:010}-{sha256}")
}

/// Takes a manifest object's name apart: store, sequence, digest. `None` when it is not such a name.
#[must_use]
pub fn parse_manifest_name(name: &str) -> Option<(Id128, u64, Sha256)> {
    let (store, rest) = name.strip_prefix("manifests/")?.split_once('/')?;
    let (sequence, sha256) = rest.split_once('-')?;
    if sequence.len() != 10 || !sequence.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((Id128::parse(store)?, sequence.parse().ok()?, Sha256::parse(sha256)?))
}

/// DSSE's pre-authentication encoding: what is signed.
#[must_use]
pub fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Manifest {
    fn check(&self) -> Result<(), ManifestError> {
        if !(FORMAT_VERSION..=INCREMENT_VERSION).contains(&self.format_version) {
            return Err(ManifestError::UnknownVersion(u64::from(self.format_version)));
        }
        if self.format_version != self.kind.version() {
            return Err(ManifestError::Corrupt("its kind is not one of its format version"));
        }
        if (self.kind == SnapshotKind::Incremental) != self.parent.is_some() {
            return Err(ManifestError::Corrupt("an increment names its parent, a full snapshot has none"));
        }
        if self.kind == SnapshotKind::Incremental && self.previous.is_none() {
            return Err(ManifestError::Corrupt("the first manifest cannot be an increment"));
        }
        if !(1..=MAX_SEQUENCE).contains(&self.sequence) {
            return Err(ManifestError::Corrupt("the sequence number is out of range"));
        }
        if (self.sequence == 1) != self.previous.is_none() {
            return Err(ManifestError::Corrupt("only the first manifest has no predecessor"));
        }
        if self.frames != self.packs.iter().map(|pack| u64::from(pack.frames)).sum::<u64>() {
            return Err(ManifestError::Corrupt("the number of frames is not that of its packs"));
        }
        if self.directory.is_empty() || self.directory.len() > MAX_PARTS as usize {
            return Err(ManifestError::Corrupt("impossible number of directory parts"));
        }
        if self.committed < self.begun {
            return Err(ManifestError::Corrupt("committed before it was begun"));
        }
        Ok(())
    }

    /// Bytes of all objects that the manifest lists.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let packs = self.packs.iter().map(|pack| pack.bytes);
        packs.chain(self.directory.iter().map(|part| part.bytes)).fold(0, u64::saturating_add)
    }

    /// Signs the manifest with the key that `key_id` names.
    ///
    /// # Errors
    /// When its members contradict each other, it is too large, or the signer fails.
    pub fn sign(&self, key_id: &str, sign: Sign<'_>) -> Result<SignedManifest, ManifestError> {
        let draft = self.draft()?;
        let signature = sign(&draft.message()).map_err(ManifestError::Signer)?;
        draft.signed(key_id, &signature)
    }

    /// The manifest in the bytes that are to be signed, wherever the key is.
    ///
    /// # Errors
    /// When its members contradict each other.
    pub fn draft(&self) -> Result<ManifestDraft, ManifestError> {
        self.check()?;
        let payload = serde_json::to_vec(self).map_err(|_| ManifestError::Corrupt("not writable as JSON"))?;
        Ok(ManifestDraft { store: self.store, sequence: self.sequence, payload })
    }
}

/// A manifest that is to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestDraft {
    store: Id128,
    sequence: u64,
    payload: Vec<u8>,
}

impl ManifestDraft {
    /// The bytes to sign.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        pre_authentication_encoding(&self.payload)
    }

    /// The manifest with a signature over [`ManifestDraft::message`].
    ///
    /// # Errors
    /// When it is too large.
    pub fn signed(&self, key_id: &str, signature: &[u8]) -> Result<SignedManifest, ManifestError> {
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(&self.payload),
            signatures: vec![Signature { keyid: key_id.to_owned(), sig: STANDARD.encode(signature) }],
        };
        let bytes = serde_json::to_vec(&envelope).map_err(|_| ManifestError::Corrupt("not writable as JSON"))?;
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::Corrupt("more packs than one manifest can list"));
        }
        let sha256 = Sha256::of(&bytes);
        Ok(SignedManifest { name: manifest_name(&self.store, self.sequence, &sha256), sha256, bytes })
    }
}

impl Manifest {
    /// Reads the manifest object `name`: digest, signature, then content, and that content and name agree.
    ///
    /// # Errors
    /// What is wrong with it. Never panics.
    pub fn open(name: &str, bytes: &[u8], verify: VerifySignature<'_>) -> Result<Self, ManifestError> {
        let Some((store, sequence, sha256)) = parse_manifest_name(name) else {
            return Err(ManifestError::Corrupt("its name is not that of a manifest"));
        };
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::Corrupt("longer than the format allows"));
        }
        if Sha256::of(bytes) != sha256 {
            return Err(ManifestError::OtherDigest);
        }
        let envelope: Envelope =
            serde_json::from_slice(bytes).map_err(|_| ManifestError::Corrupt("not a DSSE envelope"))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(ManifestError::Corrupt("not the payload type of a manifest"));
        }
        let payload = decode_base64(&envelope.payload)?;
        let pae = pre_authentication_encoding(&payload);
        let mut trusted = false;
        for signature in &envelope.signatures {
            trusted |= verify(&signature.keyid, &pae, &decode_base64(&signature.sig)?);
        }
        if !trusted {
            return Err(ManifestError::Untrusted);
        }
        let manifest = Self::parse(&payload)?;
        if manifest.store != store || manifest.sequence != sequence {
            return Err(ManifestError::Corrupt("its name says another store or sequence number"));
        }
        Ok(manifest)
    }

    fn parse(payload: &[u8]) -> Result<Self, ManifestError> {
        /// Read first, so that a newer format is told from a damaged one.
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let not_a_manifest = |_| ManifestError::Corrupt("not the content of a manifest");
        let version: Version = serde_json::from_slice(payload).map_err(not_a_manifest)?;
        if !(u64::from(FORMAT_VERSION)..=u64::from(INCREMENT_VERSION)).contains(&version.format_version) {
            return Err(ManifestError::UnknownVersion(version.format_version));
        }
        let manifest: Self = serde_json::from_slice(payload).map_err(not_a_manifest)?;
        manifest.check()?;
        Ok(manifest)
    }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, ManifestError> {
    STANDARD.decode(text).map_err(|_| ManifestError::Corrupt("not base64"))
}

#[cfg(test)]
mod tests;
