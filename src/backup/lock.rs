//! Object Lock: until when the server keeps objects from being removed. A port of its own, for only few servers have it.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::object_store::Result;

/// Locks objects of the repository. A lock is never shortened.
#[async_trait]
pub trait ObjectLocker: Send + Sync {
    /// Until when an object is locked; `None` when it is not.
    async fn locked_until(&self, name: &str) -> Result<Option<DateTime<Utc>>>;

    /// Makes sure that an object is locked until a time at least, and reads that back.
    ///
    /// # Errors
    /// [`super::object_store::RepositoryError::NotLocked`] when the server took the lock and has none.
    async fn lock_until(&self, name: &str, until: DateTime<Utc>) -> Result<()>;
}
