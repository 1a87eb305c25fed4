//! The files that a store names, as they are found on this host, and what was read of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::search::Needles;
use super::{KindSearch, Unsearched};
use crate::stores::{FileKind, FileMap};

/// The deepest folder that is gone into.
const DEEPEST: u32 = 8;

/// Reads all files of one kind.
pub(super) fn search(kind: FileKind, map: &FileMap, needles: &Needles, left: &mut u64) -> (KindSearch, Vec<bool>) {
    let mut result = KindSearch { kind, files_read: 0, bytes_read: 0, values_found: 0, gaps: Vec::new() };
    let mut found = vec![false; needles.count()];
    let mut files = Vec::new();
    for (_, path) in map.parts.iter().filter(|(known, _)| *known == kind) {
        if !expand(path, &mut files) {
            result.gaps.push(Unsearched::Unreadable);
        }
    }
    files.sort();
    files.dedup();
    let mut read_files = BTreeSet::new();
    for path in files {
        let read = File::open(&path).and_then(|file| needles.look(file, *left, &mut found));
        match read {
            Ok((bytes, is_whole)) => {
                result.files_read += 1;
                result.bytes_read += bytes;
                *left = left.saturating_sub(bytes);
                read_files.insert(path);
                if !is_whole {
                    result.gaps.push(Unsearched::Limit);
                    break;
                }
            }
            // A log that is recycled meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => result.gaps.push(Unsearched::Unreadable),
        }
    }
    if result.gaps.is_empty() && is_missing(kind, map, &read_files) {
        result.gaps.push(Unsearched::Missing);
    }
    result.gaps.sort_unstable();
    result.gaps.dedup();
    result.values_found = found.iter().filter(|found| **found).count() as u64;
    (result, found)
}

/// Whether nothing was read of something that must have a file.
fn is_missing(kind: FileKind, map: &FileMap, read: &BTreeSet<PathBuf>) -> bool {
    map.needed.iter().filter(|(known, _)| *known == kind).any(|(_, paths)| {
        let mut files = Vec::new();
        for path in paths {
            expand(path, &mut files);
        }
        !files.iter().any(|file| read.contains(file))
    })
}

/// The files behind a path: itself, all in it, or with `*` at its end all whose names begin so. Whether they could be listed.
fn expand(path: &Path, files: &mut Vec<PathBuf>) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(prefix) = name.strip_suffix('*') else { return list(path, files, 0) };
    let Some(folder) = path.parent() else { return false };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
    };
    let mut is_whole = true;
    for entry in entries {
        let Ok(entry) = entry else { return false };
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            is_whole &= list(&entry.path(), files, 0);
        }
    }
    is_whole
}

fn list(path: &Path, files: &mut Vec<PathBuf>, depth: u32) -> bool {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
    };
    if !meta.is_dir() {
        if meta.is_file() {
            files.push(path.to_path_buf());
        }
        return true;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    depth < DEEPEST
        && entries
            .map(|entry| entry.is_ok_and(|entry| list(&entry.path(), files, depth + 1)))
            .fold(true, |all, one| all & one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(map: &FileMap) -> Vec<Unsearched> {
        let needles = Needles::new([b"canary".to_vec()]);
        search(FileKind::Tables, map, &needles, &mut 1024).0.gaps
    }

    #[test]
    fn what_must_have_a_file_and_has_none_is_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("one.ibd"), b"nothing").unwrap();
        let mut map = FileMap::default();
        let (one, other) = (folder.path().join("one.ibd"), folder.path().join("one#*"));
        map.parts.extend([(FileKind::Tables, one.clone()), (FileKind::Tables, other.clone())]);
        map.needed.insert((FileKind::Tables, vec![one, other.clone()]));
        map.needed.insert((FileKind::StatementLog, vec![other.clone()]));
        assert_eq!(gaps(&map), []);
        let mut missing = map.clone();
        missing.needed.insert((FileKind::Tables, vec![other]));
        assert_eq!(gaps(&missing), [Unsearched::Missing]);
        let mut unknown = map.clone();
        unknown.needed.insert((FileKind::Tables, Vec::new()));
        assert_eq!(gaps(&unknown), [Unsearched::Missing], "it lies where nobody says");
    }
}
