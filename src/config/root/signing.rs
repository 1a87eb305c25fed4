//! `[signing]`: where the key lies that signs certificates. A key service and a token are described in the words of `[root]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Place;
use super::super::secret::SecretValue;
use super::super::section::Reading;
use super::{RawRoot, RootKind, SlotSettings};
use crate::keys::pkcs11_slot::Pkcs11Setup;
use crate::keys::signing::SigningKind;
use crate::keys::transit_slot::TransitSetup;

/// `[signing]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SigningSettings {
    /// A file in the agent's folder.
    #[default]
    File,
    /// A key of OpenBao or Vault transit.
    Transit {
        /// How to reach it; its folder is empty, the certificate authorities are not read yet.
        setup: Box<TransitSetup>,
        /// A file of certificate authorities, PEM.
        ca: Option<PathBuf>,
    },
    /// A pair of a PKCS#11 token.
    Pkcs11 {
        /// How to open it; its folder is empty.
        setup: Box<Pkcs11Setup>,
        /// The label of a pair that the operator made.
        key_label: Option<String>,
    },
}

impl SigningSettings {
    /// The kind of place.
    #[must_use]
    pub fn kind(&self) -> SigningKind {
        match self {
            Self::File => SigningKind::File,
            Self::Transit { .. } => SigningKind::Transit,
            Self::Pkcs11 { .. } => SigningKind::Pkcs11,
        }
    }
}

/// Keys that only one kind of place has.
const KEYS_OF_KINDS: [(&str, SigningKind); 12] = [
    ("address", SigningKind::Transit),
    ("mount", SigningKind::Transit),
    ("key", SigningKind::Transit),
    ("namespace", SigningKind::Transit),
    ("ca", SigningKind::Transit),
    ("token", SigningKind::Transit),
    ("role_id", SigningKind::Transit),
    ("secret_id", SigningKind::Transit),
    ("module", SigningKind::Pkcs11),
    ("token_label", SigningKind::Pkcs11),
    ("pin", SigningKind::Pkcs11),
    ("key_label", SigningKind::Pkcs11),
];

/// Where the key lies that signs certificates, manifests and drill records.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawSigning {
    /// Kind of place: `file` (in the agent's folder), `transit` or `pkcs11`.
    #[serde(default)]
    kind: SigningKind,
    /// `transit`: address of the server; otherwise `BAO_ADDR` or `VAULT_ADDR` of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// `transit`: where the engine is mounted; `transit` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mount: Option<String>,
    /// `transit`: name of the key, of type `ecdsa-p256`.
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
    /// `pkcs11`: the label of a key pair on P-256 that you made in the token; without it the agent makes one for each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_label: Option<String>,
}

impl RawSigning {
    pub(in super::super) fn is_default(&self) -> bool {
        self.kind == SigningKind::File
    }

    pub(in super::super) fn literals(&self) -> Vec<Place> {
        let place = Place::of("signing");
        let secrets =
            [("token", &self.token), ("role_id", &self.role_id), ("secret_id", &self.secret_id), ("pin", &self.pin)];
        let literal = secrets.iter().filter(|(_, value)| value.as_ref().is_some_and(SecretValue::is_literal));
        literal.map(|(key, _)| place.key(key)).collect()
    }

    pub(in super::super) fn check(&self, reading: &mut Reading<'_>) -> Option<SigningSettings> {
        let place = Place::of("signing");
        let document = reading.document();
        let foreign = KEYS_OF_KINDS.iter().chain([&("role_mount", SigningKind::Transit)]);
        for (key, kind) in foreign {
            let at = place.key(key);
            if *kind != self.kind && document.has_key(&at) {
                let what = format!("this key is for `kind = \"{}\"`", kind.name());
                reading.fault(&at, what, "remove it, or correct `kind`");
            }
        }
        match self.kind {
            SigningKind::File => Some(SigningSettings::File),
            SigningKind::Transit => match self.as_root().check_transit(&place, Some(PathBuf::new()), reading)? {
                SlotSettings::Transit { setup, ca } => Some(SigningSettings::Transit { setup, ca }),
                _ => None,
            },
            SigningKind::Pkcs11 => match self.as_root().check_pkcs11(&place, Some(PathBuf::new()), reading)? {
                SlotSettings::Pkcs11 { setup } => {
                    Some(SigningSettings::Pkcs11 { setup, key_label: self.key_label.clone() })
                }
                _ => None,
            },
        }
    }

    /// The same place as a root slot would describe it, without what only root keys need.
    fn as_root(&self) -> RawRoot {
        RawRoot {
            kind: if self.kind == SigningKind::Pkcs11 { RootKind::Pkcs11 } else { RootKind::Transit },
            path: None,
            accept_host_loss: false,
            address: self.address.clone(),
            mount: self.mount.clone(),
            key: self.key.clone(),
            namespace: self.namespace.clone(),
            ca: self.ca.clone(),
            token: self.token.clone(),
            role_id: self.role_id.clone(),
            secret_id: self.secret_id.clone(),
            role_mount: self.role_mount.clone(),
            // Copies of the service bring no signature back that counts: a key's end stands in the record.
            snapshot_retention_days: (self.kind == SigningKind::Transit).then_some(0),
            region: None,
            endpoint: None,
            access_key_id: None,
            secret_access_key: None,
            deletion_window_days: None,
            minimum_interval_hours: None,
            module: self.module.clone(),
            token_label: self.token_label.clone(),
            pin: self.pin.clone(),
            device: None,
            previous: None,
        }
    }
}
