//! The files of an SQLite control database are for their owner only: they hold sealed keys, and who asked to be forgotten.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{ControlError, Result};

const OWNER_ONLY: u32 = 0o600;

/// Makes the file, empty, if it is missing: the engine would make it as the umask has it, and its journal after it.
pub(super) fn make(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
        Err(error) if error.kind() == ErrorKind::StorageFull => Err(ControlError::DiskFull),
        // There already; anything else is said by the engine, which opens it next.
        _ => Ok(()),
    }
}

/// Takes everybody's rights but the owner's from the file and from what the engine keeps beside it.
///
/// # Errors
/// When others can read one of them all the same.
pub(super) fn restrict(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        restrict_one(&PathBuf::from(name), &|path| std::fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY)))?;
    }
    Ok(())
}

fn restrict_one(path: &Path, set: &dyn Fn(&Path) -> io::Result<()>) -> Result<()> {
    let mode = || std::fs::metadata(path).map(|found| found.permissions().mode() & 0o777);
    // One that is not there, or vanished meanwhile, can be read by nobody.
    let Ok(before) = mode() else { return Ok(()) };
    let is_readable_by_others = |mode: u32| mode & 0o077 != 0;
    if !is_readable_by_others(before) {
        return Ok(());
    }
    let failed = set(path).err();
    match mode() {
        Ok(now) if is_readable_by_others(now) => {
            let why = failed.map_or_else(|| "the file system keeps no modes".to_owned(), |error| error.to_string());
            Err(ControlError::ReadableByOthers { path: path.display().to_string(), mode: now, why })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_control_database_and_its_journal_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let beside = ["control.db", "control.db-wal", "control.db-shm"].map(|name| folder.path().join(name));
        let control = Control::create(&path, [7; 16]).await.unwrap();
        for file in &beside {
            assert_eq!(mode_of(file), 0o600, "{}", file.display());
        }
        // Opened up by somebody while it is in use, and put right by the next who opens it.
        for file in &beside {
            std::fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        let other = Control::open(&path).await.unwrap();
        for file in &beside {
            assert_eq!(mode_of(file), 0o600, "{}", file.display());
        }
        other.close().await;
        control.close().await;
    }

    #[test]
    fn a_file_that_stays_readable_is_refused_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        std::fs::write(&path, b"").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        for (fault, why) in [(Some(ErrorKind::PermissionDenied), "permission denied"), (None, "keeps no modes")] {
            match restrict_one(&path, &|_| fault.map_or(Ok(()), |kind| Err(io::Error::from(kind)))) {
                Err(error @ ControlError::ReadableByOthers { mode: 0o644, .. }) => {
                    let text = error.to_string();
                    assert!(text.contains("control.db") && text.contains("chmod 600") && text.contains(why), "{text}");
                    assert!(!error.is_retryable());
                }
                other => panic!("{other:?}"),
            }
        }
        restrict(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        restrict(Path::new("/nowhere/control.db")).unwrap();
    }
}
