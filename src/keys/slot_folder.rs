//! Files of root slots: directories that only their owner reads, files that appear whole, and are overwritten before they go.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::slot::SlotError;

type Result<T, E = SlotError> = std::result::Result<T, E>;

/// The mode of files.
pub(super) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const OTHERS: u32 = 0o077;
const LOCK_NAME: &str = "slot.lock";

/// Makes the directory, with mode 0700, if it is missing. Its parent must exist.
pub(super) fn prepare(directory: &Path) -> Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync_directory(parent),
            None => Ok(()),
        },
        Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(SlotError::Io { what: "make the directory", path: directory.to_owned(), source }),
    }
}

/// Refuses what is not a directory, or one that others may read.
pub(super) fn check(directory: &Path) -> Result<()> {
    let metadata = fs::metadata(directory).map_err(io_fault("look at", directory))?;
    if !metadata.is_dir() {
        return Err(SlotError::Damaged { path: directory.to_owned(), what: "not a directory" });
    }
    check_mode(directory, metadata.mode(), DIRECTORY_MODE)
}

/// One writer at a time, also among processes. Released when the file is dropped.
pub(super) fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK_NAME);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    let file = options.open(&path).map_err(io_fault("open", &path))?;
    file.lock().map_err(io_fault("lock", &path))?;
    Ok(file)
}

/// The names in the directory.
pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
    let fault = io_fault("list", directory);
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(fault)?;
    Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Writes a file under its name only when it is whole and durable; what has the name is replaced.
pub(super) fn put(directory: &Path, name: &str, draft: &str, bytes: &[u8]) -> Result<()> {
    let draft = directory.join(draft);
    // What a crash left here was never used: its name would have been the final one.
    wipe(&draft)?;
    if let Err(fault) = write_new(&draft, bytes) {
        // The first fault is the one to report; a draft that cannot be wiped now is wiped by the next call.
        let _ = wipe(&draft);
        return Err(fault);
    }
    let path = directory.join(name);
    fs::rename(&draft, &path).map_err(io_fault("name", &path))?;
    sync_directory(directory)
}

pub(super) fn io_fault<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> SlotError + 'p {
    move |source| SlotError::Io { what, path: path.to_owned(), source }
}

pub(super) fn check_mode(path: &Path, mode: u32, wanted: u32) -> Result<()> {
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(SlotError::ReadableByOthers { path: path.to_owned(), mode: mode & 0o777, wanted })
}

/// Writes a file that must not exist yet and flushes it.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    let mut file = options.open(path).map_err(io_fault("make", path))?;
    file.write_all(bytes).map_err(io_fault("write", path))?;
    file.sync_all().map_err(io_fault("flush", path))
}

/// Reads a file, and one byte more than `limit` if it is longer, so that the decoder notices.
pub(super) fn read_at_most(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).map_err(io_fault("open", path))?;
    // All the room at once: growing would leave a copy of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 64));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(io_fault("read", path))?;
    Ok(bytes)
}

/// Overwrites, flushes and removes a file; `false` when there is none.
pub(super) fn wipe(path: &Path) -> Result<bool> {
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

pub(super) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_fault("flush", path))
}
