//! Removing objects: what only the retention of backups does, behind a port of its own. Nothing that writes backups can reach it.
//!
//! What is removed was shredded before, so removing frees room and proves nothing. An Object Lock is never lifted.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::directory::directory_name;
use super::manifest::Manifest;
use super::object_store::Result;
use super::pack::pack_name;

/// A stored version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    /// Its id; `None` where the bucket has no versions.
    pub id: Option<String>,
    /// Whether it only says that the object was deleted.
    pub is_marker: bool,
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The server says that it is gone.
    Gone,
    /// An Object Lock keeps it: until a date, or, with a legal hold, until somebody lifts that.
    Locked(Option<DateTime<Utc>>),
}

/// Removes objects of the repository. Permanent errors are those of [`super::object_store::ObjectStore`].
#[async_trait]
pub trait ObjectRemover: Send + Sync {
    /// All versions of an object that are stored, markers included; empty when there is none.
    async fn versions(&self, name: &str) -> Result<Vec<StoredVersion>>;

    /// Removes a version for good. One that is not there is gone.
    async fn remove(&self, name: &str, version: &StoredVersion) -> Result<Removal>;
}

/// The names of the packs and directory parts of a snapshot: all of its objects but the manifest itself.
pub fn objects_of(manifest: &Manifest) -> impl Iterator<Item = String> {
    let packs = manifest.packs.iter().map(|pack| pack_name(&pack.sha256));
    packs.chain(manifest.directory.iter().map(|part| directory_name(&part.sha256)))
}
