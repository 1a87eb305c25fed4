//! Where the keys of an `[[outside_key]]` are, and how they are reached.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Place;
use super::super::root_kms::RawKms;
use super::super::section::Reading;
use super::{OutsideKey, RawOutsideKey};
use crate::keys::kms_slot::KmsSetup;
use crate::keys::transit_slot::{TransitAuth, TransitSetup};

/// Ten years: whoever keeps copies of the service longer cannot say that a key in it is gone. In days.
const LONGEST_RETENTION_DAYS: u32 = 3650;

/// How a key service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideAccess {
    /// A mount of OpenBao or Vault (class B).
    Transit {
        /// How it is reached; `key` and `folder` are empty, the certificate authorities are not read yet.
        setup: Box<TransitSetup>,
        /// A file of certificate authorities, PEM.
        ca: Option<PathBuf>,
    },
    /// AWS KMS in one region (class C).
    AwsKms {
        /// How it is reached; `folder` is empty.
        setup: Box<KmsSetup>,
        /// What sealed values begin with; never empty.
        sealed_prefix: Vec<u8>,
    },
}

impl OutsideAccess {
    /// Where the service is, and where in it the keys are.
    #[must_use]
    pub fn place(&self) -> [&str; 2] {
        match self {
            Self::Transit { setup, .. } => [&setup.address, &setup.mount],
            Self::AwsKms { setup, .. } => [setup.endpoint.as_deref().unwrap_or_default(), &setup.region],
        }
    }

    /// The file that ships the rights which the agent needs there, and no more.
    #[must_use]
    pub fn policy_file(&self) -> &'static str {
        match self {
            Self::Transit { .. } => "config/openbao-outside-policy.hcl",
            Self::AwsKms { .. } => "config/aws-kms-outside-policy.json",
        }
    }
}

/// Kinds of key services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ServiceKind {
    /// OpenBao or Vault transit.
    Transit,
    /// AWS KMS.
    AwsKms,
}

impl ServiceKind {
    fn name(self) -> &'static str {
        match self {
            Self::Transit => "transit",
            Self::AwsKms => "aws-kms",
        }
    }
}

/// Keys that one kind of service has and the other has not.
const KEYS_OF_KINDS: [(&str, ServiceKind); 15] = [
    ("address", ServiceKind::Transit),
    ("mount", ServiceKind::Transit),
    ("namespace", ServiceKind::Transit),
    ("ca", ServiceKind::Transit),
    ("token", ServiceKind::Transit),
    ("role_id", ServiceKind::Transit),
    ("secret_id", ServiceKind::Transit),
    ("role_mount", ServiceKind::Transit),
    ("snapshot_retention_days", ServiceKind::Transit),
    ("region", ServiceKind::AwsKms),
    ("endpoint", ServiceKind::AwsKms),
    ("access_key_id", ServiceKind::AwsKms),
    ("secret_access_key", ServiceKind::AwsKms),
    ("deletion_window_days", ServiceKind::AwsKms),
    ("sealed_prefix", ServiceKind::AwsKms),
];

impl RawOutsideKey {
    pub(super) fn check_access(&self, place: &Place, reading: &mut Reading<'_>) -> Option<OutsideAccess> {
        let document = reading.document();
        for (key, kind) in KEYS_OF_KINDS {
            let at = place.key(key);
            if kind != self.kind && document.has_key(&at) {
                let what = format!("this key is for `kind = \"{}\"`", kind.name());
                reading.fault(&at, what, "remove it, or correct `kind`");
            }
        }
        match self.kind {
            ServiceKind::Transit => self.check_transit(place, reading),
            ServiceKind::AwsKms => self.check_kms(place, reading),
        }
    }

    fn check_transit(&self, place: &Place, reading: &mut Reading<'_>) -> Option<OutsideAccess> {
        let address = match &self.address {
            Some(address) => reading.endpoint(&place.key("address"), address),
            None => missing(place, "address", "add `address = \"https://…\"` here: where the service is", reading),
        };
        let mount = self.mount.clone().unwrap_or_else(|| "transit".to_owned());
        let role_mount = self.role_mount.clone().unwrap_or_else(|| "approle".to_owned());
        for (key, value) in [("mount", &mount), ("role_mount", &role_mount)] {
            if !value.split('/').all(OutsideKey::is_key_name) {
                let what = "letters a-z, digits, `-`, `_` and `.` only, with `/` between parts";
                reading.fault(&place.key(key), what, "correct the name");
            }
        }
        let days = self.snapshot_retention_days.or_else(|| {
            let advice = "add `snapshot_retention_days = 7` here: for how long copies of the service are kept";
            missing(place, "snapshot_retention_days", advice, reading)
        });
        if days.is_some_and(|days| days > LONGEST_RETENTION_DAYS) {
            let what = format!("at most {LONGEST_RETENTION_DAYS} days");
            reading.fault(&place.key("snapshot_retention_days"), what, "keep snapshots of the key service for days");
        }
        let auth = match (&self.token, &self.role_id, &self.secret_id) {
            (Some(token), None, None) => TransitAuth::Token(reading.secret(&place.key("token"), token)?),
            (None, Some(role_id), Some(secret_id)) => TransitAuth::AppRole {
                mount: role_mount,
                role_id: reading.secret(&place.key("role_id"), role_id)?,
                secret_id: reading.secret(&place.key("secret_id"), secret_id)?,
            },
            _ => {
                let what = "nothing, or more than one thing, says how the agent logs in to the key service";
                reading.fault(place, what, "write either `token`, or both `role_id` and `secret_id`");
                return None;
            }
        };
        let setup = TransitSetup {
            address: address?,
            mount,
            key: String::new(),
            namespace: self.namespace.clone(),
            ca_pem: None,
            auth,
            folder: PathBuf::new(),
            snapshot_retention_days: days?,
            timeout: None,
        };
        Some(OutsideAccess::Transit { setup: Box::new(setup), ca: self.ca.as_ref().map(|ca| reading.path(ca)) })
    }

    fn check_kms(&self, place: &Place, reading: &mut Reading<'_>) -> Option<OutsideAccess> {
        let raw = RawKms {
            region: self.region.as_deref(),
            endpoint: self.endpoint.as_deref(),
            access_key_id: self.access_key_id.as_ref(),
            secret_access_key: self.secret_access_key.as_ref(),
            deletion_window_days: self.deletion_window_days,
            minimum_interval_hours: None,
        };
        let setup = raw.check(place, Some(PathBuf::new()), reading);
        let sealed_prefix = self.check_prefix(place, reading);
        Some(OutsideAccess::AwsKms { setup: Box::new(setup?), sealed_prefix: sealed_prefix? })
    }

    fn check_prefix(&self, place: &Place, reading: &mut Reading<'_>) -> Option<Vec<u8>> {
        let Some(text) = &self.sealed_prefix else {
            let advice =
                "add `sealed_prefix = \"…\"` here: what every value that the application has sealed begins with";
            return missing(place, "sealed_prefix", advice, reading);
        };
        let bytes = match text.strip_prefix("hex:") {
            Some(digits) => hex::decode(digits).ok(),
            None => Some(text.as_bytes().to_vec()),
        };
        let bytes = bytes.filter(|bytes| !bytes.is_empty());
        if bytes.is_none() {
            let what = "nothing is told apart by it";
            reading.fault(&place.key("sealed_prefix"), what, "write some letters, or `hex:` and pairs of hex digits");
        }
        bytes
    }
}

fn missing<T>(place: &Place, key: &str, advice: &str, reading: &mut Reading<'_>) -> Option<T> {
    reading.fault(place, format!("the key `{key}` is missing"), advice.to_owned());
    None
}
