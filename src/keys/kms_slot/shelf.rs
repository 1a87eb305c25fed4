//! What a slot in AWS KMS keeps on this host. Nothing of it opens anything without the service.
//!
//! | file | meaning |
//! |---|---|
//! | `root-<generation>.intent` | a key is about to be made for this generation; a crash may have left one without a name |
//! | `root-<generation>.wrapped` | the generation's root, wrapped under the first of `keys` |
//! | `root-<generation>.gone` | the deletion of `keys` was ordered; they are kept, so that this can be read back at any time |
//!
//! Each is one JSON object (`format` 1) that also names the installation, so that nothing is mistaken for another's.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::keys::slot::SlotError;
use crate::keys::slot_folder::{self, FILE_MODE, check_mode, io_fault, read_at_most, sync_directory, wipe};
use crate::keys::{Generation, InstallationId};

type Result<T, E = SlotError> = std::result::Result<T, E>;

const FORMAT: u8 = 1;
/// No record comes near this size, in bytes.
const RECORD_LIMIT: usize = 16 * 1024;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key is about to be made.
    Intent,
    /// The wrapped root.
    Wrapped,
    /// A root whose keys are deleted, or will be.
    Gone,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Wrapped => "wrapped",
            Self::Gone => "gone",
        }
    }
}

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
    directory: PathBuf,
    installation: String,
}

impl Shelf {
    pub(super) fn new(directory: &Path, installation: &InstallationId) -> Self {
        Self { directory: directory.to_owned(), installation: hex::encode(installation) }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn prepare(&self) -> Result<()> {
        slot_folder::prepare(&self.directory)?;
        self.check()
    }

    pub(super) fn check(&self) -> Result<()> {
        slot_folder::check(&self.directory)
    }

    pub(super) fn lock(&self) -> Result<File> {
        self.check()?;
        slot_folder::lock(&self.directory)
    }

    fn name(generation: Generation, kind: Kind) -> String {
        format!("root-{generation}.{}", kind.extension())
    }

    pub(super) fn path(&self, generation: Generation, kind: Kind) -> PathBuf {
        self.directory.join(Self::name(generation, kind))
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
        let path = self.path(generation, kind);
        let text = serde_json::to_vec(&record).map_err(|_| damaged(&path, "it cannot be written as JSON"))?;
        slot_folder::put(&self.directory, &Self::name(generation, kind), &format!("root-{generation}.new"), &text)
    }

    /// Reads a record; `None` when there is no such file.
    pub(super) fn get(&self, generation: Generation, kind: Kind) -> Result<Option<Record>> {
        let path = self.path(generation, kind);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(fault) => return Err(io_fault("look at", &path)(fault)),
        };
        if !metadata.is_file() {
            return Err(damaged(&path, "not a regular file"));
        }
        check_mode(&path, metadata.mode(), FILE_MODE)?;
        let bytes = read_at_most(&path, RECORD_LIMIT)?;
        self.decode(&bytes, generation, kind).map(Some).map_err(|what| damaged(&path, what))
    }

    fn decode(&self, bytes: &[u8], generation: Generation, kind: Kind) -> Result<Record, &'static str> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u8,
        }
        if bytes.len() > RECORD_LIMIT {
            return Err("longer than any record");
        }
        let found: Versioned = serde_json::from_slice(bytes).map_err(|_| "not a record of a wrapped root")?;
        if found.format > FORMAT {
            return Err("written by a newer version of the program");
        }
        let record: Record = serde_json::from_slice(bytes).map_err(|_| "not a record of a wrapped root")?;
        if record.format != FORMAT {
            return Err("unknown format");
        }
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

    /// The generations of which there is a file of this kind, ascending.
    pub(super) fn generations(&self, kind: Kind) -> Result<Vec<Generation>> {
        self.check()?;
        let end = format!(".{}", kind.extension());
        let mut found: Vec<Generation> = slot_folder::names(&self.directory)?
            .iter()
            .filter_map(|name| {
                let number = name.strip_prefix("root-")?.strip_suffix(&end)?.parse().ok()?;
                // Only the one way of writing a number names a generation.
                (number > 0 && *name == Self::name(number, kind)).then_some(number)
            })
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Overwrites and removes a file; whether it was there.
    pub(super) fn remove(&self, generation: Generation, kind: Kind) -> Result<bool> {
        let was_there = wipe(&self.path(generation, kind))?;
        // Also when nothing was there: an earlier call may have stopped before this.
        sync_directory(&self.directory)?;
        Ok(was_there)
    }

    /// Removes what a crash left behind of a file that never got its name.
    pub(super) fn remove_draft(&self, generation: Generation) -> Result<()> {
        wipe(&self.directory.join(format!("root-{generation}.new"))).map(|_| ())
    }
}

pub(super) fn damaged(path: &Path, what: &'static str) -> SlotError {
    SlotError::Damaged { path: path.to_owned(), what }
}

/// Region and account in the full name of anything in KMS: `arn:partition:kms:region:account:…`.
pub(super) fn place_of(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.split(':');
    let is_kms = parts.next() == Some("arn") && parts.next().is_some() && parts.next() == Some("kms");
    let (region, account, name) = (parts.next()?, parts.next()?, parts.next()?);
    (is_kms && !region.is_empty() && !account.is_empty() && !name.is_empty()).then_some((region, account))
}
