//! What the endpoint can really do, proved by trying: servers accept headers that they then ignore.
//!
//! The probes leave a few small objects under `probes/`, because nothing here may rely on the right to delete.

use aws_sdk_s3::primitives::{ByteStream, DateTime as SdkTime};
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled, ObjectLockMode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{S3Repository, classify};
use crate::backup::codec::{Id128, Sha256};
use crate::backup::object_store::{ObjectStore, PutOutcome, RepositoryError, Result};
use crate::random::Random;

/// Whether an ability is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// Shown by trying.
    Proved,
    /// Not there, and how that was seen.
    Missing(String),
    /// Not to be found out with these credentials, and why.
    Unknown(String),
}

/// The endpoint's abilities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// A put with `If-None-Match: *` on an existing object is refused and leaves it as it was.
    pub conditional_put: Ability,
    /// A put whose body does not have the stated SHA-256 is refused and leaves nothing.
    pub checksum_enforced: Ability,
    /// The bucket keeps older versions of an object.
    pub versions: Ability,
    /// A locked version cannot be deleted before its time.
    pub object_lock: Ability,
}

impl S3Repository {
    /// Proves the endpoint's abilities. `now` bounds the lock of one probe object (two minutes). `remover` is this repository with the
    /// keys that may delete, if others may.
    ///
    /// # Errors
    /// When the endpoint cannot be reached or plain puts fail: then nothing is known.
    pub async fn prove_abilities(&self, remover: &Self, random: &dyn Random, now: DateTime<Utc>) -> Result<Abilities> {
        let draw = || {
            Id128::make(random).map_err(|_| RepositoryError::Failed {
                operation: "probe",
                code: "no random name for the probe".to_owned(),
            })
        };
        Ok(Abilities {
            conditional_put: self.prove_conditional_put(&format!("probes/{}", draw()?)).await?,
            checksum_enforced: self.prove_checksum(&format!("probes/{}", draw()?)).await?,
            versions: self.prove_versions(&format!("probes/{}", draw()?)).await?,
            object_lock: self.prove_object_lock(remover, &format!("probes/{}", draw()?), now).await?,
        })
    }

    async fn prove_conditional_put(&self, name: &str) -> Result<Ability> {
        const FIRST: &[u8] = b"first";
        match self.put_if_absent(name, FIRST.to_vec()).await? {
            PutOutcome::Created => {}
            PutOutcome::AlreadyThere => return Ok(Ability::Unknown("the probe's name was taken".to_owned())),
        }
        let second = self.put_if_absent(name, b"other".to_vec()).await;
        let unchanged = self.get(name, 64).await? == FIRST;
        Ok(match second {
            Err(RepositoryError::Exists { .. }) if unchanged => Ability::Proved,
            Err(error) if unchanged => Ability::Unknown(error.to_string()),
            Err(_) => Ability::Missing("the put was refused, but the object changed".to_owned()),
            Ok(_) => Ability::Missing("the precondition was ignored".to_owned()),
        })
    }

    async fn prove_checksum(&self, name: &str) -> Result<Ability> {
        let refused = self.put_once(name, Bytes::from_static(b"body"), &Sha256::of(b"another body")).await;
        let stored = self.head(name).await?.is_some();
        Ok(match refused {
            Ok(()) => Ability::Missing("a body with another SHA-256 than stated was accepted".to_owned()),
            Err(_) if stored => Ability::Missing("the body was refused, but stored nevertheless".to_owned()),
            Err(error) if error.is_retryable() => return Err(error),
            Err(RepositoryError::Denied { code, .. }) => Ability::Unknown(code),
            Err(_) => Ability::Proved,
        })
    }

    async fn prove_versions(&self, name: &str) -> Result<Ability> {
        let answer = self.client.get_bucket_versioning().bucket(&self.bucket).send().await;
        match answer.map_err(|error| classify("get versioning", name, &self.bucket, &error)) {
            Ok(answer) if answer.status == Some(BucketVersioningStatus::Enabled) => {}
            Ok(_) => return Ok(Ability::Missing("versioning is not enabled on the bucket".to_owned())),
            Err(error) => return unable(error),
        }
        for body in [b"first", b"later"] {
            self.overwrite_probe(name, body).await?;
        }
        let answer = self.client.list_object_versions().bucket(&self.bucket).prefix(self.key(name)).send().await;
        match answer.map_err(|error| classify("list versions", name, &self.bucket, &error)) {
            Ok(answer) if answer.versions().len() == 2 => Ok(Ability::Proved),
            Ok(_) => Ok(Ability::Missing("an overwritten object left no version".to_owned())),
            Err(error) => unable(error),
        }
    }

    /// The only overwrite in the program: of a probe, to see whether its first version stays.
    async fn overwrite_probe(&self, name: &str, body: &[u8]) -> Result<()> {
        let put = self.client.put_object().bucket(&self.bucket).key(self.key(name));
        let put = put.checksum_sha256(STANDARD.encode(Sha256::of(body).0));
        let sent = put.body(ByteStream::from(body.to_vec())).send().await;
        sent.map_err(|error| classify("put", name, &self.bucket, &error))?;
        Ok(())
    }

    async fn prove_object_lock(&self, remover: &Self, name: &str, now: DateTime<Utc>) -> Result<Ability> {
        let answer = self.client.get_object_lock_configuration().bucket(&self.bucket).send().await;
        match answer.map_err(|error| classify("get object lock", name, &self.bucket, &error)) {
            Ok(answer)
                if answer.object_lock_configuration().and_then(|lock| lock.object_lock_enabled())
                    == Some(&ObjectLockEnabled::Enabled) => {}
            Ok(_) => return Ok(Ability::Missing("object lock is not enabled on the bucket".to_owned())),
            Err(error) => return unable(error),
        }
        let until = SdkTime::from_secs((now + TimeDelta::minutes(2)).timestamp());
        let put = self.client.put_object().bucket(&self.bucket).key(self.key(name));
        let put = put.object_lock_mode(ObjectLockMode::Governance).object_lock_retain_until_date(until);
        let put = put.checksum_sha256(STANDARD.encode(Sha256::of(b"locked").0));
        let sent = put.body(ByteStream::from_static(b"locked")).send().await;
        let version = match sent.map_err(|error| classify("put locked", name, &self.bucket, &error)) {
            Ok(answer) => answer.version_id,
            Err(error) => return unable(error),
        };
        let Some(version) = version else {
            return Ok(Ability::Missing("the lock was accepted, but the object has no version".to_owned()));
        };
        let read = self.client.get_object_retention().bucket(&self.bucket).key(self.key(name));
        match read
            .version_id(&version)
            .send()
            .await
            .map_err(|error| classify("get retention", name, &self.bucket, &error))
        {
            Ok(answer) if answer.retention().and_then(|lock| lock.retain_until_date()) == Some(&until) => {}
            Ok(_) => return Ok(Ability::Missing("the lock was accepted, but is not what was asked".to_owned())),
            Err(error) => return unable(error),
        }
        match remover.delete_version(name, &version).await {
            Ok(()) => Ok(Ability::Missing("a locked version could be deleted".to_owned())),
            Err(error) if error.is_retryable() => Err(error),
            Err(RepositoryError::Denied { .. }) => self.tell_lock_from_refusal(remover, name).await,
            Err(error) => Ok(Ability::Unknown(error.to_string())),
        }
    }

    /// A locked version was not deleted. That is the lock's doing only if the same keys can delete one without a lock.
    async fn tell_lock_from_refusal(&self, remover: &Self, locked: &str) -> Result<Ability> {
        let name = format!("{locked}-unlocked");
        let put = self.client.put_object().bucket(&self.bucket).key(self.key(&name));
        let put = put.checksum_sha256(STANDARD.encode(Sha256::of(b"unlocked").0));
        let sent = put.body(ByteStream::from_static(b"unlocked")).send().await;
        let stored = sent.map_err(|error| classify("put", &name, &self.bucket, &error))?;
        let Some(version) = stored.version_id else { return Ok(Ability::Unknown("a version without id".to_owned())) };
        match remover.delete_version(&name, &version).await {
            Ok(()) => Ok(Ability::Proved),
            Err(error) if error.is_retryable() => Err(error),
            Err(_) => Ok(Ability::Unknown(
                "the lock reads back as asked, but these keys may delete nothing, so whether it holds was not shown"
                    .to_owned(),
            )),
        }
    }

    async fn delete_version(&self, name: &str, version: &str) -> Result<()> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(self.key(name)).version_id(version);
        delete.send().await.map_err(|error| classify("delete version", name, &self.bucket, &error))?;
        Ok(())
    }
}

/// Error codes that deny an ability, as against those that leave it open.
pub(super) const NOT_THERE: [&str; 5] = [
    "NotImplemented",
    "MethodNotAllowed",
    "InvalidRequest",
    "InvalidBucketState",
    "ObjectLockConfigurationNotFoundError",
];

/// What an answer other than yes or no means for an ability.
fn unable(error: RepositoryError) -> Result<Ability> {
    match error {
        error if error.is_retryable() => Err(error),
        RepositoryError::Failed { code, .. } if NOT_THERE.contains(&code.as_str()) => Ok(Ability::Missing(code)),
        RepositoryError::Denied { code, .. } | RepositoryError::Failed { code, .. } => Ok(Ability::Unknown(code)),
        other => Ok(Ability::Unknown(other.to_string())),
    }
}
