//! The files of a shelf: what a slot whose service only wraps keys keeps on this host, one file for each generation and kind of
//! record. What stands in a record is its slot's own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Generation;
use super::slot::SlotError;
use super::slot_folder::{self, FILE_MODE, check_mode, io_fault, read_at_most, sync_directory, wipe};

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// The format of records; it stands in each as `format`.
pub(super) const FORMAT: u8 = 1;

/// What stands for the path of a copy that was stored elsewhere.
pub(super) const COPY: &str = "a copy of the wrapped root";

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key, or a version of one, is about to be made.
    Intent,
    /// The wrapped root.
    Wrapped,
    /// A root that was destroyed, or whose destruction was ordered.
    Gone,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Intent, Self::Wrapped, Self::Gone];

    fn extension(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Wrapped => "wrapped",
            Self::Gone => "gone",
        }
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct ShelfFiles {
    directory: PathBuf,
    /// No record comes near this size, in bytes.
    limit: usize,
}

impl ShelfFiles {
    pub(super) fn new(directory: &Path, limit: usize) -> Self {
        Self { directory: directory.to_owned(), limit }
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
    pub(super) fn put(&self, generation: Generation, kind: Kind, record: &impl Serialize) -> Result<()> {
        let text = self.encode(record)?;
        slot_folder::put(&self.directory, &Self::name(generation, kind), &format!("root-{generation}.new"), &text)
    }

    /// The bytes of a record's file.
    pub(super) fn encode(&self, record: &impl Serialize) -> Result<Vec<u8>> {
        let failed = |_| damaged(&self.directory, "a record cannot be written as JSON");
        serde_json::to_vec(record).map_err(failed)
    }

    /// Reads a file's bytes; `None` when there is no such file.
    pub(super) fn get(&self, generation: Generation, kind: Kind) -> Result<Option<Zeroizing<Vec<u8>>>> {
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
        read_at_most(&path, self.limit).map(Some)
    }

    /// Reads a record of this format.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn decode<R: DeserializeOwned>(&self, bytes: &[u8]) -> Result<R, &'static str> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u8,
        }
        if bytes.len() > self.limit {
            return Err("longer than any record");
        }
        let found: Versioned = serde_json::from_slice(bytes).map_err(|_| "not a record of a wrapped root")?;
        if found.format > FORMAT {
            return Err("written by a newer version of the program");
        }
        let record = serde_json::from_slice(bytes).map_err(|_| "not a record of a wrapped root")?;
        if found.format == FORMAT { Ok(record) } else { Err("unknown format") }
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
