//! Object Lock in S3. Every pack, directory part and manifest is stored with a lock where the configuration asks for one, and the lock
//! is read back: servers accept its headers that have none.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::DateTime as SdkTime;
use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use chrono::{DateTime, TimeDelta, Utc};

use super::{RepositoryError, Result, S3Repository, classify};
use crate::backup::lock::ObjectLocker;
use crate::clock::Clock;

/// The objects of snapshots. The agent's own state is not locked: it is replaced all the time, and an old one is no backup.
const LOCKED: [&str; 3] = ["packs/", "directories/", "manifests/"];

/// The lock that objects are stored with.
#[derive(Clone)]
pub struct StoredLock {
    /// Whether nobody can lift it, not even who may bypass governance.
    pub compliance: bool,
    /// For how long, from the upload.
    pub lasts: TimeDelta,
    /// The clock that the upload is dated by.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for StoredLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredLock(compliance: {}, lasts: {})", self.compliance, self.lasts)
    }
}

impl StoredLock {
    /// Whole seconds: servers keep no more.
    fn until(&self) -> DateTime<Utc> {
        let until = self.clock.now() + self.lasts;
        DateTime::from_timestamp(until.timestamp(), 0).unwrap_or(until)
    }
}

impl S3Repository {
    /// The lock for an object of this name, with its end, where one is asked for.
    pub(super) fn lock_for(&self, name: &str) -> Option<(&StoredLock, DateTime<Utc>)> {
        let lock = self.lock.as_ref().filter(|_| LOCKED.iter().any(|prefix| name.starts_with(prefix)))?;
        Some((lock, lock.until()))
    }

    async fn retention(&self, name: &str, version: Option<&str>) -> Result<Option<DateTime<Utc>>> {
        let get = self.client.get_object_retention().bucket(&self.bucket).key(self.key(name));
        let answer = get.set_version_id(version.map(str::to_owned)).send().await;
        match answer.map_err(|error| classify("get retention", name, &self.bucket, &error)) {
            Ok(answer) => {
                let until = answer.retention.and_then(|retention| retention.retain_until_date);
                Ok(until.and_then(|until| DateTime::from_timestamp(until.secs(), 0)))
            }
            Err(RepositoryError::Failed { code, .. }) if NO_RETENTION.contains(&code.as_str()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads back the lock of a version that was stored with one.
    pub(super) async fn check_lock(&self, name: &str, version: Option<&str>, until: DateTime<Utc>) -> Result<()> {
        match self.retention(name, version).await? {
            Some(found) if found >= until => Ok(()),
            _ => Err(RepositoryError::NotLocked { name: name.to_owned() }),
        }
    }
}

/// Error codes of an object without a lock, or a bucket without any.
const NO_RETENTION: [&str; 4] =
    ["NoSuchObjectLockConfiguration", "InvalidRequest", "NotImplemented", "ObjectLockConfigurationNotFoundError"];

/// A put with its lock.
pub(super) fn with_lock(
    put: PutObjectFluentBuilder,
    lock: &StoredLock,
    until: DateTime<Utc>,
) -> PutObjectFluentBuilder {
    let mode = if lock.compliance { ObjectLockMode::Compliance } else { ObjectLockMode::Governance };
    put.object_lock_mode(mode).object_lock_retain_until_date(SdkTime::from_secs(until.timestamp()))
}

#[async_trait]
impl ObjectLocker for S3Repository {
    async fn locked_until(&self, name: &str) -> Result<Option<DateTime<Utc>>> {
        self.retention(name, None).await
    }

    async fn lock_until(&self, name: &str, until: DateTime<Utc>) -> Result<()> {
        if self.retention(name, None).await?.is_some_and(|found| found >= until) {
            return Ok(());
        }
        let compliance = self.lock.as_ref().is_some_and(|lock| lock.compliance);
        let mode = if compliance { ObjectLockRetentionMode::Compliance } else { ObjectLockRetentionMode::Governance };
        // Up to the next whole second, so that what is read back is not less than what was asked.
        let seconds = until.timestamp() + i64::from(until.timestamp_subsec_nanos() > 0);
        let retention =
            ObjectLockRetention::builder().mode(mode).retain_until_date(SdkTime::from_secs(seconds)).build();
        let put = self.client.put_object_retention().bucket(&self.bucket).key(self.key(name)).retention(retention);
        put.send().await.map_err(|error| classify("put retention", name, &self.bucket, &error))?;
        self.check_lock(name, None, until).await
    }
}
