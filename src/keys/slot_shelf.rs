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

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::slot::{SlotError, TokenMarks};
use super::slot_folder::{self, FILE_MODE, check_mode, io_fault, read_at_most, sync_directory, wipe};
use super::{Generation, InstallationId};

type Result<T, E = SlotError> = std::result::Result<T, E>;

const FORMAT: u8 = 1;
/// No record comes near this size, in bytes.
const RECORD_LIMIT: usize = 4096;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A version is about to be made.
    Intent,
    /// The wrapped root.
    Wrapped,
    /// A destroyed root.
    Gone,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Intent, Self::Wrapped, Self::Gone];

    fn extension(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Wrapped => "wrapped",
            Self::Gone => "gone",
        }
    }
}

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
    directory: PathBuf,
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
            directory: directory.to_owned(),
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
    pub(super) fn put(&self, generation: Generation, kind: Kind, version: u64, root: Option<String>) -> Result<()> {
        self.write(kind, &Record { version, root, ..self.blank(generation) })
    }

    /// Writes down that the root under a token's key was destroyed, or is about to be; durable when this returns.
    pub(super) fn put_gone(&self, generation: Generation, token: Option<TokenMarks>) -> Result<()> {
        self.write(Kind::Gone, &Record { token, ..self.blank(generation) })
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

    fn write(&self, kind: Kind, record: &Record) -> Result<()> {
        let generation = record.generation;
        let text = self.encode(record)?;
        slot_folder::put(&self.directory, &Self::name(generation, kind), &format!("root-{generation}.new"), &text)
    }

    /// The bytes of a record's file.
    pub(super) fn encode(&self, record: &Record) -> Result<Vec<u8>> {
        let failed = |_| damaged(&self.directory, "a record cannot be written as JSON");
        serde_json::to_vec(record).map_err(failed)
    }

    /// Reads a copy of a wrapped root that was stored elsewhere.
    pub(super) fn read_copy(&self, copy: &[u8], generation: Generation) -> Result<Record> {
        let elsewhere = Path::new("a copy of the wrapped root");
        self.decode(copy, generation, Kind::Wrapped).map_err(|what| damaged(elsewhere, what))
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

    /// Whether nothing was ever wrapped or intended here.
    pub(super) fn is_new(&self) -> Result<bool> {
        for kind in Kind::ALL {
            if !self.generations(kind)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
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
