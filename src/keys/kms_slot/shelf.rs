//! What a slot in AWS KMS keeps on this host. Nothing of it opens anything without the service.
//!
//! | file | meaning |
//! |---|---|
//! | `root-<generation>.intent` | a key is about to be made for this generation; a crash may have left one without a name |
//! | `root-<generation>.wrapped` | the generation's root, wrapped under the first of `keys` |
//! | `root-<generation>.gone` | the deletion of `keys` was ordered; they are kept, so that this can be read back at any time |
//!
//! Each is one JSON object (`format` 1) that also names the installation, so that nothing is mistaken for another's.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::keys::shelf_files::{COPY, FORMAT, Kind, ShelfFiles, damaged};
use crate::keys::slot::SlotError;
use crate::keys::{Generation, InstallationId};

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// No record comes near this size, in bytes.
const RECORD_LIMIT: usize = 16 * 1024;

/// A key of the service, as it was when the record was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShelvedKey {
    /// Its full name, with account and region.
    pub(super) arn: String,
    /// Whether the service said that its material never leaves it.
    pub(super) never_exportable: bool,
}

/// One file of the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u8,
    /// The installation, in hex.
    installation: String,
    /// The generation.
    pub(super) generation: Generation,
    /// The keys that it is about.
    pub(super) keys: Vec<ShelvedKey>,
    /// The root key, as the service wrapped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<String>,
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    pub(super) files: ShelfFiles,
    installation: String,
}

impl Shelf {
    pub(super) fn new(directory: &Path, installation: &InstallationId) -> Self {
        Self { files: ShelfFiles::new(directory, RECORD_LIMIT), installation: hex::encode(installation) }
    }

    /// Writes a record; durable when this returns.
    pub(super) fn put(
        &self,
        generation: Generation,
        kind: Kind,
        keys: Vec<ShelvedKey>,
        root: Option<String>,
    ) -> Result<()> {
        let record = Record { format: FORMAT, installation: self.installation.clone(), generation, keys, root };
        self.files.put(generation, kind, &record)
    }

    /// Reads a record; `None` when there is no such file.
    pub(super) fn get(&self, generation: Generation, kind: Kind) -> Result<Option<Record>> {
        let Some(bytes) = self.files.get(generation, kind)? else { return Ok(None) };
        let broken = |what| damaged(&self.files.path(generation, kind), what);
        self.decode(&bytes, generation, kind).map(Some).map_err(broken)
    }

    /// Reads a copy of a wrapped root that was stored elsewhere.
    pub(super) fn read_copy(&self, copy: &[u8], generation: Generation) -> Result<Record> {
        self.decode(copy, generation, Kind::Wrapped).map_err(|what| damaged(Path::new(COPY), what))
    }

    fn decode(&self, bytes: &[u8], generation: Generation, kind: Kind) -> Result<Record, &'static str> {
        let record: Record = self.files.decode(bytes)?;
        if record.generation != generation || record.installation != self.installation {
            return Err("it belongs to another generation or installation");
        }
        let is_of_kind = match kind {
            Kind::Intent => record.keys.is_empty() && record.root.is_none(),
            Kind::Wrapped => record.keys.len() == 1 && record.root.is_some(),
            Kind::Gone => record.root.is_none(),
        };
        if !is_of_kind || record.keys.iter().any(|key| place_of(&key.arn).is_none()) {
            return Err("not a record of this kind");
        }
        Ok(record)
    }
}

/// Region and account in the full name of anything in KMS: `arn:partition:kms:region:account:…`.
pub(super) fn place_of(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.split(':');
    let is_kms = parts.next() == Some("arn") && parts.next().is_some() && parts.next() == Some("kms");
    let (region, account, name) = (parts.next()?, parts.next()?, parts.next()?);
    (is_kms && !region.is_empty() && !account.is_empty() && !name.is_empty()).then_some((region, account))
}
