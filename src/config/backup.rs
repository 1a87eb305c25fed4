//! `[backup]`: the bucket that snapshots go to.

use std::num::NonZeroU32;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::secret::SecretValue;
use super::section::Reading;
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
    /// How far increments go on from a full snapshot.
    pub chain: ChainBounds,
    /// Which snapshots are kept.
    pub keep: Keep,
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

/// Beyond these bounds the next snapshot is a full one, whatever was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChainBounds {
    /// The most snapshots of a chain, the full one included.
    pub snapshots: NonZeroU32,
    /// The age of the full one at which the chain ends, in days.
    pub days: NonZeroU32,
}

impl Default for ChainBounds {
    fn default() -> Self {
        let days = NonZeroU32::MIN.saturating_add(34);
        Self { snapshots: NonZeroU32::MIN.saturating_add(59), days }
    }
}

/// Which snapshots are kept: those that any rule names. No rule at all keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The newest so many of each store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<NonZeroU32>,
    /// Those of the last so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<NonZeroU32>,
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
    /// How many snapshots a chain has at most, and how old it gets.
    #[serde(default)]
    chain: ChainBounds,
    /// Which snapshots are kept; empty keeps all.
    #[serde(default)]
    keep: Keep,
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
        let is_literal = self.secret_access_key.as_ref().is_some_and(SecretValue::is_literal);
        if is_literal { vec![Place::of("backup").key("secret_access_key")] } else { Vec::new() }
    }

    pub(super) fn check(&self, reading: &mut Reading<'_>) -> Option<Backup> {
        let place = Place::of("backup");
        let endpoint = self.endpoint(reading);
        let credentials = self.credentials(reading);
        let is_incomplete = credentials.is_none() && (self.access_key_id.is_some() || self.secret_access_key.is_some());
        let is_bucket_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        if !(3..=63).contains(&self.bucket.len()) || !self.bucket.chars().all(is_bucket_char) {
            let what = "a bucket's name has 3 to 63 lower-case letters, digits, `.` and `-`";
            reading.fault(&place.key("bucket"), what, "correct the name");
        }
        let mut prefix = self.prefix.trim_matches('/').to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        if is_incomplete {
            return None;
        }
        let region = self.region.clone();
        let (bucket, site, ca) = (self.bucket.clone(), self.site.clone(), self.ca.as_ref().map(|ca| reading.path(ca)));
        let (chain, keep, lock) = (self.chain, self.keep, self.lock);
        Some(Backup { endpoint: endpoint?, region, bucket, prefix, site, ca, credentials, chain, keep, lock })
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

    /// None when no keys are given, and after a fault.
    fn credentials(&self, reading: &mut Reading<'_>) -> Option<Credentials> {
        let place = Place::of("backup");
        match (&self.access_key_id, &self.secret_access_key) {
            (None, None) => None,
            (Some(id), Some(key)) => {
                let access_key_id = reading.secret(&place.key("access_key_id"), id);
                let secret_access_key = reading.secret(&place.key("secret_access_key"), key);
                Some(Credentials { access_key_id: access_key_id?, secret_access_key: secret_access_key? })
            }
            (id, _) => {
                let (there, missing) = match id {
                    Some(_) => ("access_key_id", "secret_access_key"),
                    None => ("secret_access_key", "access_key_id"),
                };
                let what = format!("`{there}` without `{missing}`");
                reading.fault(&place.key(there), what, "give both, or neither for the AWS default chain");
                None
            }
        }
    }
}
