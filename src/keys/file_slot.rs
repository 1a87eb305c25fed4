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

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::slot::{
    DestroyEvidence, DestroyStep, Destroys, GoneCheck, GoneEvidence, Presence, PresentGeneration, RootSlot,
    SlotAbilities, SlotClaim, SlotError,
};
use super::slot_folder::{self, FILE_MODE, check_mode, io_fault, read_at_most, sync_directory, wipe};
use super::{Generation, InstallationId, Key};
use crate::random::Random;

type Result<T, E = SlotError> = std::result::Result<T, E>;

fn key_name(generation: Generation) -> String {
    format!("root-{generation}.key")
}

/// Where a new key is written before it gets its name.
fn draft_name(generation: Generation) -> String {
    format!("root-{generation}.new")
}

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
        slot_folder::prepare(directory)?;
        Self::at(directory, installation)
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
        slot_folder::check(&self.directory)
    }

    fn key_path(&self, generation: Generation) -> PathBuf {
        self.directory.join(key_name(generation))
    }

    fn draft_path(&self, generation: Generation) -> PathBuf {
        self.directory.join(draft_name(generation))
    }

    fn create_now(&self, generation: Generation, key: &Key) -> Result<Key> {
        self.check_directory()?;
        let _lock = slot_folder::lock(&self.directory)?;
        match self.open_now(generation) {
            Err(SlotError::Missing { .. }) => {}
            present => return present,
        }
        let bytes = format::encode(generation, &self.installation, key);
        slot_folder::put(&self.directory, &key_name(generation), &draft_name(generation), &bytes)?;
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
            if let Some(generation) = generation.filter(|generation| name == key_name(*generation)) {
                found.push(PresentGeneration { generation, presence: Presence::Usable });
            }
        }
        found.sort_unstable_by_key(|present| present.generation);
        Ok(found)
    }

    fn names(&self) -> Result<Vec<String>> {
        slot_folder::names(&self.directory)
    }

    fn destroy_now(&self, generation: Generation) -> Result<DestroyEvidence> {
        // Rights are not checked here: a key that others could read must be destroyed all the more.
        let _lock = slot_folder::lock(&self.directory)?;
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
        Ok(DestroyEvidence { generation, claim: self.claim(), was_present, steps, irrevocable_at: None })
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
        let checks = vec![GoneCheck::NameAbsent, GoneCheck::ContentAbsent];
        Ok(GoneEvidence { generation, checks, read_back: None, token: None })
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
        SlotClaim::of_a_file()
    }

    fn abilities(&self) -> SlotAbilities {
        SlotAbilities {
            destroys: Destroys::BestEffort,
            is_cancellable: false,
            proves_not_exported: false,
            has_rollback_counter: false,
            minimum_interval: Duration::ZERO,
            residual_days: None,
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
