//! `[backup]`: the bucket that snapshots go to.

use std::num::NonZeroU32;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::secret::SecretValue;
use super::section::Reading;
use crate::policy::keep::Keep;
use crate::policy::registry::SecretText;

/// `[backup]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The server.
    pub endpoint: Endpoint,
    /// Its region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What every object name begins with; empty or ending in `/`.
    pub prefix: String,
    /// The place the bucket stands at.
    pub site: Option<String>,
    /// A file of additional certificate authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Explicit keys; without them the AWS default chain decides.
    pub credentials: Option<Credentials>,
    /// Which snapshots are kept.
    pub keep: Keep,
    /// What becomes of objects that are not needed any more.
    pub prune: PruneMode,
    /// Keys with the right to delete, for nothing but that; without them the others are used.
    pub prune_credentials: Option<Credentials>,
    /// Object Lock to be asked for.
    pub lock: Option<Lock>,
}

/// An S3 server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The server inside the agent, with its folder: on the same host, so not off site.
    Embedded {
        /// The folder of its objects.
        data: PathBuf,
    },
    /// A server elsewhere: `https://…`, or `http://` on the loopback.
    Url(String),
}

/// An access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The key's id.
    pub access_key_id: SecretText,
    /// The key.
    pub secret_access_key: SecretText,
}

/// What becomes of the objects of a chain whose key is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PruneMode {
    /// They are named (`backup unneeded`), for somebody else to remove.
    #[default]
    Name,
    /// The agent deletes them, every version, once their Object Lock has ended. Needs the right to delete.
    Delete,
}

/// Object Lock asked for on every object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Who can lift it.
    pub mode: LockMode,
    /// For how long, in days from the upload.
    pub days: NonZeroU32,
}

/// Modes of S3 Object Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LockMode {
    /// Privileged users can.
    Governance,
    /// Nobody can.
    Compliance,
}

/// Where snapshots go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBackup {
    /// `embedded`, or the address of an S3 server.
    endpoint: String,
    /// Region.
    #[serde(default = "default_region")]
    region: String,
    /// Bucket.
    #[serde(default = "default_bucket")]
    bucket: String,
    /// What object names begin with.
    #[serde(default)]
    prefix: String,
    /// Place of the bucket.
    #[serde(default)]
    pub(super) site: Option<String>,
    /// File of additional certificate authorities, PEM.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// Id of the access key; a secret reference.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    access_key_id: Option<SecretValue>,
    /// Access key; a secret reference.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    secret_access_key: Option<SecretValue>,
    /// Folder of the embedded server.
    #[serde(default)]
    data: Option<PathBuf>,
    /// Which snapshots are kept; empty keeps all.
    #[serde(default)]
    keep: Keep,
    /// What becomes of the objects of snapshots that are not kept, once their key is destroyed.
    #[serde(default)]
    prune: PruneMode,
    /// Id of an access key that may delete, for `prune = "delete"`; a secret reference.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    prune_access_key_id: Option<SecretValue>,
    /// That access key; a secret reference.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    prune_secret_access_key: Option<SecretValue>,
    /// Object Lock.
    #[serde(default)]
    lock: Option<Lock>,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_bucket() -> String {
    "wangchuan".to_owned()
}

impl RawBackup {
    /// The id of a key is no secret; only the key itself counts.
    pub(super) fn literals(&self) -> Vec<Place> {
        let keys = [
            ("secret_access_key", &self.secret_access_key),
            ("prune_secret_access_key", &self.prune_secret_access_key),
        ];
        let is_literal = |value: &Option<SecretValue>| value.as_ref().is_some_and(SecretValue::is_literal);
        keys.iter().filter(|(_, value)| is_literal(value)).map(|(key, _)| Place::of("backup").key(key)).collect()
    }

    pub(super) fn check(&self, reading: &mut Reading<'_>) -> Option<Backup> {
        let place = Place::of("backup");
        let endpoint = self.endpoint(reading);
        let pair =
            KeyPair { id: ("access_key_id", &self.access_key_id), key: ("secret_access_key", &self.secret_access_key) };
        let credentials = pair.read(reading);
        let pair = KeyPair {
            id: ("prune_access_key_id", &self.prune_access_key_id),
            key: ("prune_secret_access_key", &self.prune_secret_access_key),
        };
        let prune_credentials = pair.read(reading);
        if pair.is_given() && self.prune == PruneMode::Name {
            let what = "keys that may delete, and nothing is deleted";
            reading.fault(&place.key("prune_access_key_id"), what, "remove them, or write `prune = \"delete\"`");
        }
        let is_bucket_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        if !(3..=63).contains(&self.bucket.len()) || !self.bucket.chars().all(is_bucket_char) {
            let what = "a bucket's name has 3 to 63 lower-case letters, digits, `.` and `-`";
            reading.fault(&place.key("bucket"), what, "correct the name");
        }
        let mut prefix = self.prefix.trim_matches('/').to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let (credentials, prune_credentials) = (credentials.ok()?, prune_credentials.ok()?);
        let region = self.region.clone();
        let (bucket, site, ca) = (self.bucket.clone(), self.site.clone(), self.ca.as_ref().map(|ca| reading.path(ca)));
        let (endpoint, keep, prune, lock) = (endpoint?, self.keep, self.prune, self.lock);
        Some(Backup { endpoint, region, bucket, prefix, site, ca, credentials, keep, prune, prune_credentials, lock })
    }

    fn endpoint(&self, reading: &mut Reading<'_>) -> Option<Endpoint> {
        let place = Place::of("backup");
        if self.endpoint == "embedded" {
            if self.lock.is_some() {
                let what = "the embedded server has no Object Lock";
                reading.fault(&place.key("lock"), what, "remove `lock`, or name a server that has it");
            }
            let data = self.data.clone().unwrap_or_else(|| PathBuf::from("backup"));
            return Some(Endpoint::Embedded { data: reading.path(&data) });
        }
        if self.data.is_some() {
            let what = "`data` is the folder of the embedded server, and `endpoint` names another one";
            reading.fault(&place.key("data"), what, "remove `data`, or write `endpoint = \"embedded\"`");
        }
        reading.endpoint(&place.key("endpoint"), &self.endpoint).map(Endpoint::Url)
    }
}

/// An access key as the file gives it: both parts, or neither.
struct KeyPair<'r> {
    id: (&'static str, &'r Option<SecretValue>),
    key: (&'static str, &'r Option<SecretValue>),
}

impl KeyPair<'_> {
    fn is_given(&self) -> bool {
        self.id.1.is_some() || self.key.1.is_some()
    }

    /// None when no keys are given; an error once a fault was reported.
    fn read(&self, reading: &mut Reading<'_>) -> Result<Option<Credentials>, ()> {
        let place = Place::of("backup");
        match (self.id.1, self.key.1) {
            (None, None) => Ok(None),
            (Some(id), Some(key)) => {
                let access_key_id = reading.secret(&place.key(self.id.0), id);
                let secret_access_key = reading.secret(&place.key(self.key.0), key);
                let pair = access_key_id.zip(secret_access_key).ok_or(())?;
                Ok(Some(Credentials { access_key_id: pair.0, secret_access_key: pair.1 }))
            }
            (id, _) => {
                let (there, missing) = if id.is_some() { (self.id.0, self.key.0) } else { (self.key.0, self.id.0) };
                let what = format!("`{there}` without `{missing}`");
                reading.fault(&place.key(there), what, "give both, or neither for the AWS default chain");
                Err(())
            }
        }
    }
}
