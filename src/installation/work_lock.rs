//! The file lock that a working process holds beside the lease.
//!
//! A lease can run out under a live process, and pids mean nothing across pid namespaces. The kernel drops this lock with
//! the process and never before, so whoever has it knows that nobody else works on this installation from this host.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cannot;
use crate::error::Result;

/// Tries to get the lock: another command may be looking whether it is held, for a moment.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct WorkLock {
    _file: File,
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.join("wangchuan.lock")
}

fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| cannot("open", path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(cannot("lock", path, &error)),
    }
}

impl WorkLock {
    /// Takes the lock; `None` while another process, or another opened installation of this one, holds it.
    pub(super) async fn take(folder: &Path) -> Result<Option<Self>> {
        let path = lock_path(folder);
        for _ in 0..TRIES {
            if let Some(file) = try_lock(&path)? {
                return Ok(Some(Self { _file: file }));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(None)
    }

    /// Whether somebody holds it.
    pub(super) fn is_held(folder: &Path) -> Result<bool> {
        Ok(try_lock(&lock_path(folder))?.is_none())
    }
}
