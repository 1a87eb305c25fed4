//! `[root]`: the slot that holds the root key, and `[root.previous]`: the one it is moved away from.

pub(super) mod signing;
mod token;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::root_kms::RawKms;
use super::secret::SecretValue;
use super::section::Reading;
use crate::keys::kms_slot::KmsSetup;
use crate::keys::pkcs11_slot::Pkcs11Setup;
use crate::keys::slot::Device;
use crate::keys::transit_slot::{TransitAuth, TransitSetup};
use crate::policy::registry::SecretText;

/// Where the engine and the login are mounted, unless something else is said.
const MOUNT: &str = "transit";
const ROLE_MOUNT: &str = "approle";
/// Ten years: whoever keeps snapshots longer has a slot of class D. In days.
const LONGEST_RETENTION_DAYS: u32 = 3650;

/// `[root]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Where new roots are made.
    pub slot: SlotSettings,
    /// Where the root may still lie, while it is being moved.
    pub previous: Option<SlotSettings>,
}

/// One root slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotSettings {
    /// A sealed local file (class D): a lost host is a lost set of backups, and the operator has said so.
    File {
        /// The file.
        path: PathBuf,
    },
    /// OpenBao or Vault transit (class B).
    Transit {
        /// How to reach the key; the certificate authorities are not read yet.
        setup: Box<TransitSetup>,
        /// A file of certificate authorities, PEM.
        ca: Option<PathBuf>,
    },
    /// AWS KMS (class C).
    AwsKms {
        /// How to reach it.
        setup: Box<KmsSetup>,
    },
    /// A PKCS#11 token (class A, B or D, as the operator declares).
    Pkcs11 {
        /// How to open the token.
        setup: Box<Pkcs11Setup>,
    },
}

impl SlotSettings {
    /// The kind, as `kind` names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Transit { .. } => "transit",
            Self::AwsKms { .. } => "aws-kms",
            Self::Pkcs11 { .. } => "pkcs11",
        }
    }

    /// Its folder on this host.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match self {
            Self::File { path } => path,
            Self::Transit { setup, .. } => &setup.folder,
            Self::AwsKms { setup } => &setup.folder,
            Self::Pkcs11 { setup } => &setup.folder,
        }
    }

    /// The same slot with another folder; `None` where the folder holds the root itself, so that no other one is the same slot.
    #[must_use]
    pub fn with_folder(&self, folder: &Path) -> Option<Self> {
        match self {
            Self::File { .. } => None,
            Self::Pkcs11 { setup } => {
                let setup = Pkcs11Setup { folder: folder.to_owned(), ..setup.as_ref().clone() };
                Some(Self::Pkcs11 { setup: Box::new(setup) })
            }
            Self::AwsKms { setup } => {
                let setup = KmsSetup { folder: folder.to_owned(), ..setup.as_ref().clone() };
                Some(Self::AwsKms { setup: Box::new(setup) })
            }
            Self::Transit { setup, ca } => {
                let setup = TransitSetup { folder: folder.to_owned(), ..setup.as_ref().clone() };
                Some(Self::Transit { setup: Box::new(setup), ca: ca.clone() })
            }
        }
    }
}

/// Kinds of root slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RootKind {
    /// A sealed local file.
    File,
    /// OpenBao or Vault transit.
    Transit,
    /// A PKCS#11 token.
    Pkcs11,
    /// AWS KMS.
    AwsKms,
}

impl RootKind {
    /// The name in the configuration.
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Transit => "transit",
            Self::Pkcs11 => "pkcs11",
            Self::AwsKms => "aws-kms",
        }
    }
}

/// Keys that not every kind of slot has, and the kinds that have them.
const KEYS_OF_KINDS: &[(&str, &[RootKind])] = &[
    ("accept_host_loss", &[RootKind::File]),
    ("address", &[RootKind::Transit]),
    ("mount", &[RootKind::Transit]),
    ("key", &[RootKind::Transit]),
    ("namespace", &[RootKind::Transit]),
    ("ca", &[RootKind::Transit]),
    ("token", &[RootKind::Transit]),
    ("role_id", &[RootKind::Transit]),
    ("secret_id", &[RootKind::Transit]),
    ("role_mount", &[RootKind::Transit]),
    ("snapshot_retention_days", &[RootKind::Transit, RootKind::Pkcs11]),
    ("module", &[RootKind::Pkcs11]),
    ("token_label", &[RootKind::Pkcs11]),
    ("pin", &[RootKind::Pkcs11]),
    ("device", &[RootKind::Pkcs11]),
    ("region", &[RootKind::AwsKms]),
    ("endpoint", &[RootKind::AwsKms]),
    ("access_key_id", &[RootKind::AwsKms]),
    ("secret_access_key", &[RootKind::AwsKms]),
    ("deletion_window_days", &[RootKind::AwsKms]),
    ("minimum_interval_hours", &[RootKind::AwsKms]),
];

/// Where the root key lies.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoot {
    /// Kind of slot; this version knows `file`, `transit`, `pkcs11` and `aws-kms`.
    kind: RootKind,
    /// The folder of the slot on this host: the root itself for `file`, wrapped roots for `transit`, `pkcs11` and `aws-kms`.
    #[serde(default)]
    path: Option<PathBuf>,
    /// Must be true for a file slot: whoever loses this host loses every backup with it, because a copy of the file
    /// would bring destroyed keys back.
    #[serde(default)]
    accept_host_loss: bool,
    /// `transit`: address of the server; otherwise `BAO_ADDR` or `VAULT_ADDR` of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// `transit`: where the engine is mounted; `transit` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mount: Option<String>,
    /// `transit`: name of the key, which no other installation may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// `transit`: namespace; otherwise `BAO_NAMESPACE` or `VAULT_NAMESPACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// `transit`: file of certificate authorities, PEM; otherwise `BAO_CACERT` or `VAULT_CACERT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// `transit`: token; a secret reference. Without it and `role_id`, `BAO_TOKEN` or `VAULT_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    token: Option<SecretValue>,
    /// `transit`: role of an AppRole login; a secret reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    role_id: Option<SecretValue>,
    /// `transit`: secret of the role; a secret reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    secret_id: Option<SecretValue>,
    /// `transit`: where AppRole is mounted; `approle` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role_mount: Option<String>,
    /// `transit`: for how many days copies of the service's storage (snapshots, disk images) are kept. Certificates name
    /// the date until which such a copy, with its unseal keys, could bring a destroyed key back. `pkcs11` with
    /// `device = "hardware-with-backup"`: the same of the device's backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot_retention_days: Option<u32>,
    /// `aws-kms`: the region of the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// `aws-kms`: address of the service, if not the region's own: an interface endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// `aws-kms`: access key; a secret reference. Without it and `secret_access_key`, the AWS default chain decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    access_key_id: Option<SecretValue>,
    /// `aws-kms`: its secret; a secret reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    secret_access_key: Option<SecretValue>,
    /// `aws-kms`: for how many days the deletion of an old key can be called off, 7 to 30; rows are shredded only afterwards. 7 by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion_window_days: Option<u8>,
    /// `aws-kms`: the least time between two generations, in hours: each has a key of its own, which costs money. 24 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minimum_interval_hours: Option<u32>,
    /// `pkcs11`: the module, a library of the token's maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module: Option<PathBuf>,
    /// `pkcs11`: the label of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_label: Option<String>,
    /// `pkcs11`: the user PIN; a secret reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pin: Option<SecretValue>,
    /// `pkcs11`: what stands behind the module, as you answer for it; `software` (class D) by default. Certificates rest on
    /// this word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
    /// The slot from which the root is being moved to this one; to be removed after `wangchuan key move`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Box<RawRoot>>,
}

impl RawRoot {
    pub(super) fn literals(&self) -> Vec<Place> {
        self.literals_at(&Place::of("root"))
    }

    fn literals_at(&self, place: &Place) -> Vec<Place> {
        let secrets = [
            ("token", &self.token),
            ("role_id", &self.role_id),
            ("secret_id", &self.secret_id),
            ("access_key_id", &self.access_key_id),
            ("secret_access_key", &self.secret_access_key),
            ("pin", &self.pin),
        ];
        let literal = secrets.iter().filter(|(_, value)| value.as_ref().is_some_and(SecretValue::is_literal));
        let mut places: Vec<Place> = literal.map(|(key, _)| place.key(key)).collect();
        places.extend(self.previous.iter().flat_map(|previous| previous.literals_at(&place.key("previous"))));
        places
    }

    pub(super) fn check(&self, reading: &mut Reading<'_>) -> Option<Root> {
        let place = Place::of("root");
        let slot = self.check_slot(&place, reading);
        let Some(previous) = &self.previous else { return Some(Root { slot: slot?, previous: None }) };
        let before = place.key("previous");
        if previous.previous.is_some() {
            let what = "a root is moved from one slot to one other";
            reading.fault(&before.key("previous"), what, "finish one move, then begin the next");
        }
        let previous = previous.check_slot(&before, reading);
        let (slot, previous) = (slot?, previous?);
        if slot.folder() == previous.folder() {
            let what = "both slots have the same `path`";
            reading.fault(&before.key("path"), what, "give the new slot a folder of its own");
        }
        Some(Root { slot, previous: Some(previous) })
    }

    fn check_slot(&self, place: &Place, reading: &mut Reading<'_>) -> Option<SlotSettings> {
        self.refuse_foreign_keys(place, reading);
        if self.kind == RootKind::File {
            self.check_host_loss(place, reading);
        }
        let path = self.path.as_ref().map(|path| reading.path(path));
        if path.is_none() {
            reading.fault(place, "the key `path` is missing", "add `path = \"root.slot\"` here");
        }
        match self.kind {
            RootKind::File => Some(SlotSettings::File { path: path? }),
            RootKind::Transit => self.check_transit(place, path, reading),
            RootKind::AwsKms => {
                let setup = self.kms().check(place, path, reading)?;
                Some(SlotSettings::AwsKms { setup: Box::new(setup) })
            }
            RootKind::Pkcs11 => self.check_pkcs11(place, path, reading),
        }
    }

    fn kms(&self) -> RawKms<'_> {
        RawKms {
            region: self.region.as_deref(),
            endpoint: self.endpoint.as_deref(),
            access_key_id: self.access_key_id.as_ref(),
            secret_access_key: self.secret_access_key.as_ref(),
            deletion_window_days: self.deletion_window_days,
            minimum_interval_hours: self.minimum_interval_hours,
        }
    }

    fn check_host_loss(&self, place: &Place, reading: &mut Reading<'_>) {
        if self.accept_host_loss {
            return;
        }
        let key = place.key("accept_host_loss");
        let at = if reading.document().has_key(&key) { key } else { place.clone() };
        let what = "a root key in a local file has no useful copy: if this host is lost, every backup is lost with it";
        reading.fault(&at, what, "write `accept_host_loss = true` if you accept that");
    }

    /// Keys that mean nothing for this kind of slot: whoever wrote them believes in something that is not so.
    fn refuse_foreign_keys(&self, place: &Place, reading: &mut Reading<'_>) {
        let document = reading.document();
        for (key, kinds) in KEYS_OF_KINDS {
            let at = place.key(key);
            if !kinds.contains(&self.kind) && document.has_key(&at) {
                let names: Vec<String> = kinds.iter().map(|kind| format!("`kind = \"{}\"`", kind.name())).collect();
                let what = format!("this key is for {}", names.join(" and "));
                reading.fault(&at, what, "remove it, or correct `kind`");
            }
        }
    }

    fn check_transit(&self, place: &Place, path: Option<PathBuf>, reading: &mut Reading<'_>) -> Option<SlotSettings> {
        let from = |reading: &Reading<'_>, name: &str| {
            reading.variable(&format!("BAO_{name}")).or_else(|| reading.variable(&format!("VAULT_{name}")))
        };
        let address = match self.address.clone().or_else(|| from(reading, "ADDR")) {
            Some(address) if address.starts_with("https://") || address.starts_with("http://") => {
                reading.endpoint(&place.key("address"), &address)
            }
            Some(_) => {
                reading.fault(&place.key("address"), "not an address with https://", "write `https://HOST:8200`");
                None
            }
            None => {
                let advice = "add `address = \"https://HOST:8200\"` here, or set `BAO_ADDR` for the process";
                reading.fault(place, "the key `address` is missing", advice);
                None
            }
        };
        let mount = Self::segment(place, "mount", self.mount.as_deref().or(Some(MOUNT)), reading);
        let key = Self::segment(place, "key", self.key.as_deref(), reading);
        let auth = self.check_auth(place, from(reading, "TOKEN"), reading);
        let days = self.check_days(place, reading);
        let setup = TransitSetup {
            address: address?,
            mount: mount?,
            key: key?,
            namespace: self.namespace.clone().or_else(|| from(reading, "NAMESPACE")),
            ca_pem: None,
            auth: auth?,
            folder: path?,
            snapshot_retention_days: days?,
            timeout: None,
        };
        let ca = self.ca.clone().or_else(|| from(reading, "CACERT").map(PathBuf::from));
        Some(SlotSettings::Transit { setup: Box::new(setup), ca: ca.map(|ca| reading.path(&ca)) })
    }

    /// A name that stands in paths of the service, where a slash or a dot would lead elsewhere.
    fn segment(place: &Place, key: &str, value: Option<&str>, reading: &mut Reading<'_>) -> Option<String> {
        let Some(value) = value else {
            let advice = format!("add `{key} = \"wangchuan\"` here: a key that no other installation uses");
            reading.fault(place, format!("the key `{key}` is missing"), advice);
            return None;
        };
        let is_plain = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part != "." && part != ".." && part.chars().all(plain)
        };
        let parts = value.split('/').collect::<Vec<_>>();
        if parts.iter().all(|part| is_plain(part)) && (key != "key" || parts.len() == 1) {
            return Some(value.to_owned());
        }
        let what = "letters a-z, digits, `-`, `_` and `.` only (a mount may have `/` between them)";
        reading.fault(&place.key(key), what, "correct the name");
        None
    }

    fn check_auth(&self, place: &Place, ambient: Option<String>, reading: &mut Reading<'_>) -> Option<TransitAuth> {
        match (&self.token, &self.role_id, &self.secret_id) {
            (Some(token), None, None) => Some(TransitAuth::Token(reading.secret(&place.key("token"), token)?)),
            (None, Some(role_id), Some(secret_id)) => {
                let mount =
                    Self::segment(place, "role_mount", self.role_mount.as_deref().or(Some(ROLE_MOUNT)), reading);
                let role_id = reading.secret(&place.key("role_id"), role_id);
                let secret_id = reading.secret(&place.key("secret_id"), secret_id);
                Some(TransitAuth::AppRole { mount: mount?, role_id: role_id?, secret_id: secret_id? })
            }
            (None, None, None) => {
                if ambient.is_none() {
                    let advice = "add `role_id` and `secret_id`, or `token`, here; or set `BAO_TOKEN` for the process";
                    reading.fault(place, "nothing says how the agent logs in to the key service", advice);
                }
                ambient.map(|token| TransitAuth::Token(SecretText::new(token)))
            }
            _ => {
                let advice = "write either `token`, or both `role_id` and `secret_id`";
                reading.fault(place, "the login to the key service is given twice, or by half", advice);
                None
            }
        }
    }

    fn check_days(&self, place: &Place, reading: &mut Reading<'_>) -> Option<u32> {
        match self.snapshot_retention_days {
            Some(days) if days <= LONGEST_RETENTION_DAYS => Some(days),
            Some(_) => {
                let what = format!("at most {LONGEST_RETENTION_DAYS} days");
                reading.fault(
                    &place.key("snapshot_retention_days"),
                    what,
                    "keep snapshots of the key service, or backups of the token, for days",
                );
                None
            }
            None => {
                let what = "the key `snapshot_retention_days` is missing";
                let advice = "say for how many days snapshots and disk images of the key service, or backups of the token, are kept; 0 if none";
                reading.fault(place, what, advice);
                None
            }
        }
    }
}
