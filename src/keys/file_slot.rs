//! The root slot in a local directory: class D, because nothing here reaches a copy of the host.
//!
//! One file per generation, `root-<generation>.key`, readable by its owner only:
//!
//! ```text
//! "wangroot" (8) | format (1) | generation (8) | installation (16) | root key (32) | SHA-256 of all before (32)
//! ```
//! A file appears under its name only when it is whole and durable. Destruction overwrites it in place, flushes, removes the name
//! and flushes the directory. On drives that remap blocks and on file systems that copy on write the old bytes may survive that, and
//! in snapshots of the host they do; the slot's claim says so.

mod format;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::slot::{
    ClaimSentence, DestroyEvidence, DestroyStep, Destroys, GoneCheck, GoneEvidence, Presence, PresentGeneration,
    Residual, RootSlot, SlotAbilities, SlotClaim, SlotClass, SlotError,
};
use super::{Generation, InstallationId, Key};
use crate::random::Random;

type Result<T, E = SlotError> = std::result::Result<T, E>;

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const OTHERS: u32 = 0o077;
const LOCK_NAME: &str = "slot.lock";

/// A directory with root keys of one installation.
#[derive(Debug, Clone)]
pub struct FileSlot {
    directory: PathBuf,
    installation: InstallationId,
}

impl FileSlot {
    /// The slot in `directory`, which is made, with mode 0700, if it is missing. Its parent must exist.
    ///
    /// # Errors
    /// [`SlotError::ReadableByOthers`], [`SlotError::Damaged`] when it is not a directory, [`SlotError::Io`].
    pub fn prepare(directory: &Path, installation: InstallationId) -> Result<Self> {
        let slot = Self { directory: directory.to_owned(), installation };
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            Ok(()) => {
                if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    sync_directory(parent)?;
                }
            }
            Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(SlotError::Io { what: "make the directory", path: directory.to_owned(), source });
            }
        }
        slot.check_directory()?;
        Ok(slot)
    }

    /// The slot in an existing directory; nothing is written.
    ///
    /// # Errors
    /// As [`FileSlot::prepare`].
    pub fn at(directory: &Path, installation: InstallationId) -> Result<Self> {
        let slot = Self { directory: directory.to_owned(), installation };
        slot.check_directory()?;
        Ok(slot)
    }

    fn check_directory(&self) -> Result<()> {
        let path = &self.directory;
        let metadata = fs::metadata(path).map_err(io_fault("look at", path))?;
        if !metadata.is_dir() {
            return Err(SlotError::Damaged { path: path.clone(), what: "not a directory" });
        }
        check_mode(path, metadata.mode(), DIRECTORY_MODE)
    }

    fn key_path(&self, generation: Generation) -> PathBuf {
        self.directory.join(format!("root-{generation}.key"))
    }

    /// Where a new key is written before it gets its name.
    fn draft_path(&self, generation: Generation) -> PathBuf {
        self.directory.join(format!("root-{generation}.new"))
    }

    /// One writer at a time, also among processes. Released when the file is dropped.
    fn lock(&self) -> Result<File> {
        let path = self.directory.join(LOCK_NAME);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(&path).map_err(io_fault("open", &path))?;
        file.lock().map_err(io_fault("lock", &path))?;
        Ok(file)
    }

    fn create_now(&self, generation: Generation, key: &Key) -> Result<Key> {
        self.check_directory()?;
        let _lock = self.lock()?;
        match self.open_now(generation) {
            Err(SlotError::Missing { .. }) => {}
            present => return present,
        }
        let draft = self.draft_path(generation);
        // What a crash left here was never used: its name would have been the final one.
        wipe(&draft)?;
        if let Err(fault) = write_new(&draft, &format::encode(generation, &self.installation, key)) {
            // The first fault is the one to report; a draft that cannot be wiped now is wiped by the next call.
            let _ = wipe(&draft);
            return Err(fault);
        }
        let path = self.key_path(generation);
        fs::rename(&draft, &path).map_err(io_fault("name", &path))?;
        sync_directory(&self.directory)?;
        self.open_now(generation)
    }

    fn open_now(&self, generation: Generation) -> Result<Key> {
        self.check_directory()?;
        let path = self.key_path(generation);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
                return Err(SlotError::Missing { generation, place: self.directory.display().to_string() });
            }
            Err(source) => return Err(SlotError::Io { what: "look at", path, source }),
        };
        if !metadata.is_file() {
            return Err(SlotError::Damaged { path, what: "not a regular file" });
        }
        check_mode(&path, metadata.mode(), FILE_MODE)?;
        let bytes = read_at_most(&path, format::FILE_BYTES)?;
        format::decode(&bytes, generation, &self.installation).map_err(|what| SlotError::Damaged { path, what })
    }

    fn list_now(&self) -> Result<Vec<PresentGeneration>> {
        self.check_directory()?;
        let mut found = Vec::new();
        for name in self.names()? {
            let number = name.strip_prefix("root-").and_then(|rest| rest.strip_suffix(".key"));
            let generation = number.and_then(|number| number.parse::<Generation>().ok()).filter(|n| *n > 0);
            // Only the one way of writing a number names a generation.
            if let Some(generation) = generation.filter(|generation| name == format!("root-{generation}.key")) {
                found.push(PresentGeneration { generation, presence: Presence::Usable });
            }
        }
        found.sort_unstable_by_key(|present| present.generation);
        Ok(found)
    }

    fn names(&self) -> Result<Vec<String>> {
        let fault = io_fault("list", &self.directory);
        let entries = fs::read_dir(&self.directory).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(fault)?;
        Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    fn destroy_now(&self, generation: Generation) -> Result<DestroyEvidence> {
        // Rights are not checked here: a key that others could read must be destroyed all the more.
        let _lock = self.lock()?;
        let mut was_present = false;
        for path in [self.key_path(generation), self.draft_path(generation)] {
            was_present |= wipe(&path)?;
        }
        // Also when nothing was there: an earlier call may have stopped before this.
        sync_directory(&self.directory)?;
        let steps = if was_present {
            vec![DestroyStep::Overwritten, DestroyStep::Flushed, DestroyStep::Unlinked, DestroyStep::DirectoryFlushed]
        } else {
            vec![DestroyStep::DirectoryFlushed]
        };
        Ok(DestroyEvidence { generation, class: SlotClass::D, was_present, steps, irrevocable_at: None })
    }

    fn verify_gone_now(&self, generation: Generation) -> Result<GoneEvidence> {
        let mark = format::mark(generation, &self.installation);
        for name in self.names()? {
            let path = self.directory.join(&name);
            if path == self.key_path(generation) || path == self.draft_path(generation) {
                return Err(SlotError::StillThere { generation, what: "its file is in the directory" });
            }
            let metadata = fs::symlink_metadata(&path).map_err(io_fault("look at", &path))?;
            if !metadata.is_file() {
                continue;
            }
            let bytes = read_at_most(&path, format::FILE_BYTES)?;
            if bytes.starts_with(&mark) {
                return Err(SlotError::StillThere {
                    generation,
                    what: "a copy lies in the directory under another name",
                });
            }
        }
        Ok(GoneEvidence { generation, checks: vec![GoneCheck::NameAbsent, GoneCheck::ContentAbsent] })
    }

    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let slot = self.clone();
        let path = self.directory.clone();
        tokio::task::spawn_blocking(move || work(&slot)).await.map_err(|fault| SlotError::Io {
            what: "work in",
            path,
            source: io::Error::other(fault),
        })?
    }
}

#[async_trait]
impl RootSlot for FileSlot {
    fn claim(&self) -> SlotClaim {
        SlotClaim {
            class: SlotClass::D,
            sentence: ClaimSentence::LogicalRemovalOnly,
            residuals: vec![Residual::HostCopies, Residual::MemoryCapture],
        }
    }

    fn abilities(&self) -> SlotAbilities {
        SlotAbilities {
            destroys: Destroys::Immediately,
            is_cancellable: false,
            proves_not_exported: false,
            has_rollback_counter: false,
            minimum_interval: Duration::ZERO,
        }
    }

    async fn create(&self, generation: Generation, random: &dyn Random) -> Result<Key> {
        let key = Key::make(random)?;
        self.blocking(move |slot| slot.create_now(generation, &key)).await
    }

    async fn open(&self, generation: Generation) -> Result<Key> {
        self.blocking(move |slot| slot.open_now(generation)).await
    }

    async fn list(&self) -> Result<Vec<PresentGeneration>> {
        self.blocking(Self::list_now).await
    }

    async fn destroy(&self, generation: Generation) -> Result<DestroyEvidence> {
        self.blocking(move |slot| slot.destroy_now(generation)).await
    }

    async fn verify_gone(&self, generation: Generation) -> Result<GoneEvidence> {
        self.blocking(move |slot| slot.verify_gone_now(generation)).await
    }
}

fn io_fault<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> SlotError + 'p {
    move |source| SlotError::Io { what, path: path.to_owned(), source }
}

fn check_mode(path: &Path, mode: u32, wanted: u32) -> Result<()> {
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(SlotError::ReadableByOthers { path: path.to_owned(), mode: mode & 0o777, wanted })
}

/// Writes a file that must not exist yet and flushes it.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    let mut file = options.open(path).map_err(io_fault("make", path))?;
    file.write_all(bytes).map_err(io_fault("write", path))?;
    file.sync_all().map_err(io_fault("flush", path))
}

/// Reads a file, and one byte more than `limit` if it is longer, so that the decoder notices.
fn read_at_most(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).map_err(io_fault("open", path))?;
    // All the room at once: growing would leave a copy of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 64));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(io_fault("read", path))?;
    Ok(bytes)
}

/// Overwrites, flushes and removes a file; `false` when there is none.
fn wipe(path: &Path) -> Result<bool> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(fault) => return Err(io_fault("look at", path)(fault)),
    };
    if !metadata.is_file() {
        // Behind a link lies another file, which is not this slot's to overwrite.
        return Err(SlotError::Damaged { path: path.to_owned(), what: "not a regular file" });
    }
    let mut file = OpenOptions::new().write(true).open(path).map_err(io_fault("open", path))?;
    let mut left = metadata.len();
    while left > 0 {
        let length = left.min(4096);
        file.write_all(&[0; 4096][..length as usize]).map_err(io_fault("overwrite", path))?;
        left -= length;
    }
    file.sync_all().map_err(io_fault("flush", path))?;
    fs::remove_file(path).map_err(io_fault("remove", path))?;
    Ok(true)
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_fault("flush", path))
}
