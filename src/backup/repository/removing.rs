//! Removing objects from S3, version by version.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::abilities::NOT_THERE;
use super::{RepositoryError, Result, S3Repository, classify, reading};
use crate::backup::object_store::ObjectStore as _;
use crate::backup::removal::{ObjectRemover, Removal, StoredVersion};

#[async_trait]
impl ObjectRemover for S3Repository {
    async fn versions(&self, name: &str) -> Result<Vec<StoredVersion>> {
        let key = self.key(name);
        let mut found = Vec::new();
        let (mut from, mut version_from) = (None, None);
        let mut tried = 1;
        loop {
            let list = self.client.list_object_versions().bucket(&self.bucket).prefix(&key);
            let sent = list.set_key_marker(from.clone()).set_version_id_marker(version_from.clone()).send();
            let page = match sent.await.map_err(|error| classify("list versions", name, &self.bucket, &error)) {
                // Without versions there is the object, or nothing.
                Err(RepositoryError::Failed { code, .. }) if NOT_THERE.contains(&code.as_str()) => {
                    let is_there = self.head(name).await?.is_some();
                    let only = StoredVersion { id: None, is_marker: false };
                    return Ok(is_there.then_some(only).into_iter().collect());
                }
                other => other?,
            };
            // A listing that broke off would make objects look gone.
            let Some(is_truncated) = page.is_truncated else {
                if tried >= self.patience.attempts {
                    let detail = "the listing broke off".to_owned();
                    return Err(RepositoryError::Unreachable { operation: "list versions", detail });
                }
                reading::pause(tried).await;
                tried += 1;
                continue;
            };
            let versions = page.versions().iter().map(|version| (version.key(), version.version_id(), false));
            let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id(), true));
            for (of, id, is_marker) in versions.chain(markers) {
                if of == Some(key.as_str()) {
                    found.push(StoredVersion { id: id.map(str::to_owned), is_marker });
                }
            }
            if !is_truncated {
                return Ok(found);
            }
            (from, version_from) = (page.next_key_marker, page.next_version_id_marker);
        }
    }

    async fn remove(&self, name: &str, version: &StoredVersion) -> Result<Removal> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(self.key(name));
        let sent = delete.set_version_id(version.id.clone()).send().await;
        match sent.map_err(|error| classify("delete", name, &self.bucket, &error)) {
            Ok(_) | Err(RepositoryError::NotFound { .. }) => Ok(Removal::Gone),
            Err(denied @ RepositoryError::Denied { .. }) => match self.lock_of(name, version).await? {
                Some(locked) => Ok(locked),
                None => Err(denied),
            },
            Err(error) => Err(error),
        }
    }
}

impl S3Repository {
    /// What keeps a version from being removed, as far as the server says; `None` when it names no lock.
    async fn lock_of(&self, name: &str, version: &StoredVersion) -> Result<Option<Removal>> {
        let Some(id) = &version.id else { return Ok(None) };
        let get = self.client.get_object_retention().bucket(&self.bucket).key(self.key(name));
        let answer =
            get.version_id(id).send().await.map_err(|error| classify("get retention", name, &self.bucket, &error));
        match answer {
            Ok(answer) => {
                let until = answer.retention.and_then(|retention| retention.retain_until_date);
                let until: Option<DateTime<Utc>> = until.and_then(|until| DateTime::from_timestamp(until.secs(), 0));
                if until.is_some() {
                    return Ok(Some(Removal::Locked(until)));
                }
            }
            Err(error) if error.is_retryable() => return Err(error),
            Err(_) => {}
        }
        let get = self.client.get_object_legal_hold().bucket(&self.bucket).key(self.key(name));
        let answer =
            get.version_id(id).send().await.map_err(|error| classify("get legal hold", name, &self.bucket, &error));
        match answer {
            Ok(answer) => {
                let status = answer.legal_hold.and_then(|hold| hold.status);
                let is_on = status == Some(aws_sdk_s3::types::ObjectLockLegalHoldStatus::On);
                Ok(is_on.then_some(Removal::Locked(None)))
            }
            Err(error) if error.is_retryable() => Err(error),
            Err(_) => Ok(None),
        }
    }
}
