//! Private keys of the proof part on disk: PKCS#8 in PEM, readable by its owner only.
//!
//! Signing keys are not part of the key tree: they protect no customer data, and losing one loses no proof.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

use super::checkpoint::{CheckpointError, CheckpointSigner};
use crate::random::Random;

/// The PEM label of an unencrypted PKCS#8 key (RFC 7468 §10).
const PRIVATE_KEY: &str = "PRIVATE KEY";
/// No PKCS#8 file of ours comes near this many bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// Why a key file cannot be used. Trying again does not help before someone has acted.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file exists although it was to be created.
    #[error("the key file {0} exists already; it is never overwritten")]
    Exists(PathBuf),
    /// Others may read or write the file.
    #[error("the key file {path} has mode {mode:04o}: others could read or change it; set it to 0600")]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what was expected.
    #[error("the key file {path} is not usable: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file system refused.
    #[error("the key file {path} cannot be read or written")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The key in the file, or the log's origin, cannot be used for checkpoints.
    #[error("the key cannot sign checkpoints")]
    Checkpoint(#[source] CheckpointError),
    /// The crypto library could not make a key.
    #[error("no new key could be made")]
    NotMade,
}

/// Creates the file with mode 0600 and makes it durable. An existing file is an error. The file gets its name when it is
/// complete: a full disk or a crash leaves none, rather than one without a key that nothing may overwrite.
pub fn create(path: &Path, pkcs8: &[u8]) -> Result<(), KeyFileError> {
    let text = Zeroizing::new(encode_pem(PRIVATE_KEY, pkcs8));
    let draft = beside(path);
    let made = write_draft(&draft, text.as_bytes()).and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(KeyFileError::Exists(path.to_owned())),
        other => other
            .and_then(|()| File::open(folder_of(path))?.sync_all())
            .map_err(|source| KeyFileError::Io { path: path.to_owned(), source }),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_draft(path: &Path, content: &[u8]) -> io::Result<()> {
    // One that is left over may have another mode, or another owner who holds it open.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Reads the PKCS#8 bytes of a file that only its owner can read.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let io_error = |source| KeyFileError::Io { path: path.to_owned(), source };
    let malformed = |what| KeyFileError::Malformed { path: path.to_owned(), what };
    let file = File::open(path).map_err(io_error)?;
    // Asked of the open file, so that it cannot be swapped in between.
    let metadata = file.metadata().map_err(io_error)?;
    if !metadata.is_file() || metadata.size() > MAX_FILE_BYTES {
        return Err(malformed("not a small regular file"));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::OpenToOthers { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io_error)?;
    let bytes = decode_pem(PRIVATE_KEY, &text).ok_or_else(|| malformed("no PEM block of a PKCS#8 private key"))?;
    Ok(Zeroizing::new(bytes))
}

/// Makes a checkpoint key for the log with this origin, in a new file.
pub fn create_checkpoint_key(path: &Path, origin: &str, random: &dyn Random) -> Result<CheckpointSigner, KeyFileError> {
    let pkcs8 = CheckpointSigner::make_pkcs8(random).map_err(|_| KeyFileError::NotMade)?;
    let signer = CheckpointSigner::from_pkcs8(origin, &pkcs8).map_err(KeyFileError::Checkpoint)?;
    create(path, &pkcs8)?;
    Ok(signer)
}

/// Opens the checkpoint key of the log with this origin.
pub fn open_checkpoint_key(path: &Path, origin: &str) -> Result<CheckpointSigner, KeyFileError> {
    CheckpointSigner::from_pkcs8(origin, &read(path)?).map_err(KeyFileError::Checkpoint)
}

/// Replaces a file's content in one step and makes it durable (write beside it, flush, rename, flush the folder). Each process
/// has a draft of its own.
pub fn replace_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    write_draft(&draft, content)?;
    fs::rename(&draft, path)?;
    File::open(folder_of(path))?.sync_all()
}

/// A PEM block with 64-character lines (RFC 7468).
#[must_use]
pub fn encode_pem(label: &str, der: &[u8]) -> String {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out + "-----END " + label + "-----\n"
}

/// The bytes of the first PEM block with this label.
#[must_use]
pub fn decode_pem(label: &str, text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: Zeroizing<String> = Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    STANDARD.decode(body.as_bytes()).ok()
}
