//! What a slot whose service or token only wraps keys keeps on this host: for each generation which version of the service's key
//! wraps its root, and the wrapped root. Nothing of it opens anything without the service.
//!
//! | file | meaning |
//! |---|---|
//! | `root-<generation>.intent` | a version is about to be made for this generation; none below `version` may be used |
//! | `root-<generation>.wrapped` | the generation's root, wrapped under `version` |
//! | `root-<generation>.gone` | its root was destroyed; what must be known to read that back at any time is kept |
//!
//! Each is one JSON object (`format` 1) that also names installation, mount and key, so that nothing is mistaken for another's.
//! In a PKCS#11 token `mount` is the token's label and `key` is `pkcs11`; every generation has a key of its own there, so `version`
//! is always 1, and `token` of a destroyed root has the marks that its key bore.

use std::path::Path;

use serde::{Deserialize, Serialize};

pub(super) use super::shelf_files::{COPY, Kind, damaged};
use super::shelf_files::{FORMAT, ShelfFiles};
use super::slot::{SlotError, TokenMarks};
use super::{Generation, InstallationId};

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// No record comes near this size, in bytes.
const RECORD_LIMIT: usize = 4096;

/// One file of the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u8,
    /// The installation, in hex.
    installation: String,
    /// The mount of the transit engine.
    mount: String,
    /// The name of the key there.
    key: String,
    /// The generation.
    pub(super) generation: Generation,
    /// The version of the key.
    pub(super) version: u64,
    /// The root key, as the service wrapped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<String>,
    /// The marks that the destroyed root's key bore in its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<TokenMarks>,
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    pub(super) files: ShelfFiles,
    installation: String,
    mount: String,
    key: String,
    /// What is said of a record that was made elsewhere.
    elsewhere: &'static str,
}

impl Shelf {
    /// The shelf of a service's key.
    pub(super) fn new(directory: &Path, installation: &InstallationId, mount: &str, key: &str) -> Self {
        Self {
            files: ShelfFiles::new(directory, RECORD_LIMIT),
            installation: hex::encode(installation),
            mount: mount.to_owned(),
            key: key.to_owned(),
            elsewhere: "it was made with another mount or key than `mount` and `key` in the configuration say",
        }
    }

    /// The shelf of the keys in a PKCS#11 token.
    pub(super) fn of_token(directory: &Path, installation: &InstallationId, label: &str) -> Self {
        let elsewhere = "it was made with another token than `token_label` in the configuration says";
        Self { elsewhere, ..Self::new(directory, installation, label, "pkcs11") }
    }

    /// Writes a record; durable when this returns.
    pub(super) fn put(&self, generation: Generation, kind: Kind, version: u64, root: Option<String>) -> Result<()> {
        self.files.put(generation, kind, &Record { version, root, ..self.blank(generation) })
    }

    /// Writes down that the root under a token's key was destroyed, or is about to be; durable when this returns.
    pub(super) fn put_gone(&self, generation: Generation, token: Option<TokenMarks>) -> Result<()> {
        self.files.put(generation, Kind::Gone, &Record { token, ..self.blank(generation) })
    }

    fn blank(&self, generation: Generation) -> Record {
        Record {
            format: FORMAT,
            installation: self.installation.clone(),
            mount: self.mount.clone(),
            key: self.key.clone(),
            generation,
            version: 1,
            root: None,
            token: None,
        }
    }

    /// Reads a copy of a wrapped root that was stored elsewhere.
    pub(super) fn read_copy(&self, copy: &[u8], generation: Generation) -> Result<Record> {
        self.decode(copy, generation, Kind::Wrapped).map_err(|what| damaged(Path::new(COPY), what))
    }

    /// Reads a record; `None` when there is no such file.
    pub(super) fn get(&self, generation: Generation, kind: Kind) -> Result<Option<Record>> {
        let Some(bytes) = self.files.get(generation, kind)? else { return Ok(None) };
        let broken = |what| damaged(&self.files.path(generation, kind), what);
        self.decode(&bytes, generation, kind).map(Some).map_err(broken)
    }

    fn decode(&self, bytes: &[u8], generation: Generation, kind: Kind) -> Result<Record, &'static str> {
        let record: Record = self.files.decode(bytes)?;
        if record.generation != generation || record.installation != self.installation {
            return Err("it belongs to another generation or installation");
        }
        if record.mount != self.mount || record.key != self.key {
            return Err(self.elsewhere);
        }
        let has_own =
            record.root.is_some() == (kind == Kind::Wrapped) && (record.token.is_none() || kind == Kind::Gone);
        if record.version == 0 || !has_own {
            return Err("not a record of this kind");
        }
        Ok(record)
    }

    /// Whether nothing was ever wrapped or intended here.
    pub(super) fn is_new(&self) -> Result<bool> {
        for kind in Kind::ALL {
            if !self.files.generations(kind)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
