//! The object-store port: the few things a repository needs of S3. Never overwrites, never deletes (`removal` is a port of its own).
//!
//! Permanent errors: everything for which [`RepositoryError::is_retryable`] is false.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::codec::{Id128, Sha256};

/// Why an object could not be stored or fetched. Names of objects are hashes and opaque ids, never customer data.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum RepositoryError {
    /// No connection, no answer in time, or an answer that broke off. Worth retrying.
    #[error("the object store cannot be reached ({operation}): {detail}")]
    Unreachable {
        /// What was tried.
        operation: &'static str,
        /// The kind of failure.
        detail: String,
    },
    /// The server asks for patience or failed by itself. Worth retrying.
    #[error("the object store is unavailable ({operation}): {code}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// The server's error code.
        code: String,
    },
    /// The server refuses these credentials or this right.
    #[error("the object store refuses access ({operation}): {code}")]
    Denied {
        /// What was tried.
        operation: &'static str,
        /// The server's error code.
        code: String,
    },
    /// The credentials have expired, or none could be found. Worth retrying once they are renewed.
    #[error("the credentials for the object store are missing or expired ({operation}): {code}")]
    Credentials {
        /// What was tried.
        operation: &'static str,
        /// The server's error code, or what the credential chain said.
        code: String,
    },
    /// The bucket does not exist.
    #[error("the bucket {bucket} does not exist")]
    BucketMissing {
        /// Its name.
        bucket: String,
    },
    /// Another object with this name exists already.
    #[error("an object with other content exists already: {name}")]
    Exists {
        /// The object.
        name: String,
    },
    /// There is no such object.
    #[error("the object does not exist: {name}")]
    NotFound {
        /// The object.
        name: String,
    },
    /// The object is not what it should be.
    #[error("the object {name} is corrupt: {what}")]
    Corrupt {
        /// The object.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The object was to be locked, and is not, or not for as long as was asked.
    #[error("the server took an object lock for {name} and has none, so the copy is not protected as configured")]
    NotLocked {
        /// The object.
        name: String,
    },
    /// The prefix belongs to another installation.
    #[error("this place in the bucket belongs to another installation ({found}); choose another prefix")]
    OtherInstallation {
        /// The installation whose marker was found.
        found: Id128,
    },
    /// The settings cannot be used.
    #[error("the settings of the object store cannot be used: {0}")]
    Settings(String),
    /// The server reported something else.
    #[error("the object store failed ({operation}): {code}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// The server's error code.
        code: String,
    },
}

impl RepositoryError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Credentials { .. })
    }
}

/// What an object store returns.
pub type Result<T, E = RepositoryError> = std::result::Result<T, E>;

/// What became of a conditional put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is new.
    Created,
    /// It was there already, with the same content (an earlier try that got no answer, for example).
    AlreadyThere,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its name, without the repository's prefix.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

/// Objects under one prefix of one bucket. Names are relative to that prefix.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Stores an object unless one of that name exists. Same content is success, other content
    /// [`RepositoryError::Exists`]. When it returns, the object is durable as far as the server promises.
    async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<PutOutcome>;

    /// Fetches a whole object of at most `limit` bytes; a longer one is [`RepositoryError::Corrupt`].
    async fn get(&self, name: &str, limit: usize) -> Result<Vec<u8>>;

    /// Fetches exactly `length` (at least 1) bytes from `offset`; fewer is [`RepositoryError::Corrupt`].
    async fn get_range(&self, name: &str, offset: u64, length: u32) -> Result<Vec<u8>>;

    /// All objects whose names begin with `prefix`, sorted by name.
    async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>>;

    /// An object's bytes, or `None` when it does not exist.
    async fn head(&self, name: &str) -> Result<Option<u64>>;
}

/// Fetches an object and checks its digest.
///
/// # Errors
/// As [`ObjectStore::get`]; another digest is [`RepositoryError::Corrupt`].
pub async fn get_verified(store: &dyn ObjectStore, name: &str, sha256: &Sha256, limit: usize) -> Result<Vec<u8>> {
    let bytes = store.get(name, limit).await?;
    if Sha256::of(&bytes) != *sha256 {
        return Err(corrupt(name, "another SHA-256 than expected"));
    }
    Ok(bytes)
}

pub(crate) fn corrupt(name: &str, what: &str) -> RepositoryError {
    RepositoryError::Corrupt { name: name.to_owned(), what: what.to_owned() }
}

/// The name of the object that says whose prefix it is.
pub const INSTALLATION_MARKER: &str = "installation.json";
const MAX_MARKER_BYTES: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    format_version: u32,
    installation: Id128,
}

/// The installation that a prefix belongs to, if any.
///
/// # Errors
/// When the store fails or the marker is unreadable.
pub async fn read_installation(store: &dyn ObjectStore) -> Result<Option<Id128>> {
    let mut read = None;
    // Its name tells no digest, so what was damaged on the way shows only here: it is read once more.
    for _ in 0..2 {
        let bytes = match store.get(INSTALLATION_MARKER, MAX_MARKER_BYTES).await {
            Err(RepositoryError::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        read = read.or(serde_json::from_slice::<Marker>(&bytes).ok());
        if read.is_some() {
            break;
        }
    }
    let marker = read.ok_or_else(|| corrupt(INSTALLATION_MARKER, "not an installation marker"))?;
    if marker.format_version != 1 {
        return Err(corrupt(INSTALLATION_MARKER, "of a newer version of the program"));
    }
    Ok(Some(marker.installation))
}

/// Takes the prefix for `installation`, or confirms that it has it.
///
/// # Errors
/// [`RepositoryError::OtherInstallation`] when somebody else has it.
pub async fn claim_installation(store: &dyn ObjectStore, installation: Id128) -> Result<PutOutcome> {
    let mut outcome = PutOutcome::AlreadyThere;
    if read_installation(store).await?.is_none() {
        let marker = serde_json::to_vec(&Marker { format_version: 1, installation })
            .map_err(|_| corrupt(INSTALLATION_MARKER, "not writable as JSON"))?;
        match store.put_if_absent(INSTALLATION_MARKER, marker).await {
            // Somebody was faster: the read below tells who.
            Err(RepositoryError::Exists { .. }) => {}
            other => outcome = other?,
        }
    }
    // Read back even after a successful put: some servers ignore the precondition, and the last writer has won.
    match read_installation(store).await? {
        Some(found) if found == installation => Ok(outcome),
        Some(found) => Err(RepositoryError::OtherInstallation { found }),
        None => Err(RepositoryError::NotFound { name: INSTALLATION_MARKER.to_owned() }),
    }
}
