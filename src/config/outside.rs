//! `[[outside_key]]`: keys in a key service that applications seal single fields with, and that the agent destroys.

use std::path::PathBuf;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::policies::Registry;
use super::secret::SecretValue;
use super::section::Reading;
use crate::keys::transit_slot::{TransitAuth, TransitSetup};
use crate::policy::calendar::BucketPeriod;
use crate::policy::registry::SecretText;

/// Ten years: whoever keeps copies of the service longer cannot say that a key in it is gone. In days.
const LONGEST_RETENTION_DAYS: u32 = 3650;

/// `[[outside_key]]`, checked: one key that a policy ends, or a family of keys of which each belongs to one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideKey {
    /// Its name in the configuration, in output and in certificates; identifies nobody.
    pub name: String,
    /// How its place in the service is reached; `key` and `folder` are empty, the certificate authorities are not read yet.
    pub access: TransitSetup,
    /// A file of certificate authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Whose time decides.
    pub bound: BoundTo,
    /// The fields that it seals; never empty.
    pub fields: Vec<SealedField>,
    /// Since when those fields have been stored sealed under it.
    pub encrypted_since: NaiveDate,
    /// Whether they were ever stored in clear.
    pub ever_in_clear: bool,
    /// Until when, where that is known.
    pub in_clear_until: Option<NaiveDate>,
}

/// Whose time decides about an outside key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundTo {
    /// A policy.
    Policy {
        /// The key's own name in the service.
        key: SecretText,
        /// The policy's id.
        policy: String,
        /// The period of start events whose rows it seals; otherwise those of all rows.
        period: Option<BucketPeriod>,
        /// Whether the application seals nothing new with it.
        retired: bool,
    },
    /// Subjects: each key of the family is registered for one of them by `key register`.
    Subjects,
}

/// A field of a registered collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedField {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// The column.
    pub field: String,
}

impl OutsideKey {
    /// The collections, as (store, collection), in which it seals fields; each once.
    #[must_use]
    pub fn collections(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<_> = self.fields.iter().map(|field| (&*field.store, &*field.collection)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether a name can be one of a key in the service: a slash or a dot of its own would lead elsewhere.
    #[must_use]
    pub fn is_key_name(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && name.chars().all(plain)
    }
}

/// Kinds of key services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum ServiceKind {
    /// OpenBao or Vault transit.
    Transit,
}

/// Keys of an application that the agent answers for: one that a policy ends, or with `subjects = true` a family of them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutsideKey {
    /// Its name, unique: letters, digits, `-`, `_`; at most 64. Stands in certificates, so it must not identify anybody.
    name: String,
    /// The kind of key service; this version knows `transit`.
    kind: ServiceKind,
    /// Address of the server.
    address: String,
    /// Where the engine is mounted; `transit` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mount: Option<String>,
    /// Namespace, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// File of certificate authorities, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// Token; a secret reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    token: Option<SecretValue>,
    /// Role of an AppRole login; a secret reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    role_id: Option<SecretValue>,
    /// Secret of the role; a secret reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    secret_id: Option<SecretValue>,
    /// Where AppRole is mounted; `approle` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role_mount: Option<String>,
    /// For how many days copies of the service's storage are kept; certificates name the date until which such a copy, with its
    /// unseal keys, could bring a destroyed key back.
    snapshot_retention_days: u32,
    /// With `policy`: the key's name in the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The policy that governs the rows it seals fields of. It dies once none of them is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    /// The one period of start events whose rows it seals (`2023`, `2023Q2`, `2023-05`): it dies once the whole period is due and
    /// none of its rows is left. An application that moves a row's start event must seal its fields again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    period: Option<String>,
    /// With `policy` and without `period`: whether the application seals nothing new with it. Until then it never dies.
    #[serde(default)]
    retired: bool,
    /// Whether these are keys of single subjects, of which `key register` names each.
    #[serde(default)]
    subjects: bool,
    /// The fields that it seals: `COLLECTION.FIELD` or `STORE.COLLECTION.FIELD`.
    fields: Vec<String>,
    /// Since when they have been stored sealed, `YYYY-MM-DD`.
    encrypted_since: NaiveDate,
    /// Whether they were ever stored in clear. Then certificates do not claim that the end of the key erased them.
    ever_in_clear: bool,
    /// Until when they were, `YYYY-MM-DD`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_clear_until: Option<NaiveDate>,
}

impl RawOutsideKey {
    pub(super) fn literals(&self, place: &Place) -> Vec<Place> {
        let secrets = [("token", &self.token), ("role_id", &self.role_id), ("secret_id", &self.secret_id)];
        let literal = secrets.iter().filter(|(_, value)| value.as_ref().is_some_and(SecretValue::is_literal));
        literal.map(|(key, _)| place.key(key)).collect()
    }

    /// `registry` is absent when a store is wrong; the rest is checked all the same.
    pub(super) fn check(
        &self,
        place: &Place,
        registry: Option<&Registry>,
        reading: &mut Reading<'_>,
    ) -> Option<OutsideKey> {
        let named = reading.name(&place.key("name"), &self.name);
        let access = self.check_access(place, reading);
        let bound = self.check_bound(place, registry, reading);
        let fields = registry.and_then(|registry| self.check_fields(place, registry, reading));
        if self.in_clear_until.is_some() && !self.ever_in_clear {
            let what = "these fields are said to have been in clear until a date, and never to have been";
            reading.fault(&place.key("in_clear_until"), what, "write `ever_in_clear = true`, or remove this key");
        }
        named?;
        Some(OutsideKey {
            name: self.name.clone(),
            access: access?,
            ca: self.ca.as_ref().map(|ca| reading.path(ca)),
            bound: bound?,
            fields: fields?,
            encrypted_since: self.encrypted_since,
            ever_in_clear: self.ever_in_clear,
            in_clear_until: self.in_clear_until,
        })
    }

    fn check_access(&self, place: &Place, reading: &mut Reading<'_>) -> Option<TransitSetup> {
        let ServiceKind::Transit = self.kind;
        let address = reading.endpoint(&place.key("address"), &self.address);
        let mount = self.mount.clone().unwrap_or_else(|| "transit".to_owned());
        let role_mount = self.role_mount.clone().unwrap_or_else(|| "approle".to_owned());
        for (key, value) in [("mount", &mount), ("role_mount", &role_mount)] {
            if !value.split('/').all(OutsideKey::is_key_name) {
                let what = "letters a-z, digits, `-`, `_` and `.` only, with `/` between parts";
                reading.fault(&place.key(key), what, "correct the name");
            }
        }
        if self.snapshot_retention_days > LONGEST_RETENTION_DAYS {
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
        Some(TransitSetup {
            address: address?,
            mount,
            key: String::new(),
            namespace: self.namespace.clone(),
            ca_pem: None,
            auth,
            folder: PathBuf::new(),
            snapshot_retention_days: self.snapshot_retention_days,
            timeout: None,
        })
    }

    fn check_bound(&self, place: &Place, registry: Option<&Registry>, reading: &mut Reading<'_>) -> Option<BoundTo> {
        let (policy, key) = match (self.subjects, &self.policy, &self.key) {
            (true, None, None) if self.period.is_none() && !self.retired => return Some(BoundTo::Subjects),
            (false, Some(policy), Some(key)) => (policy, key),
            _ => {
                let what = "it must be bound either to a policy or to subjects";
                let advice =
                    "write `policy` and `key` (and `period` or `retired`), or `subjects = true` and none of them";
                reading.fault(place, what, advice);
                return None;
            }
        };
        if !OutsideKey::is_key_name(key) {
            let what = "a key's name has letters a-z, digits, `-`, `_` and `.` only";
            reading.fault(&place.key("key"), what, "correct the name");
            return None;
        }
        if let Some(registry) = registry.filter(|registry| !registry.policies.iter().any(|known| known.id == *policy)) {
            let known: Vec<&str> = registry.policies.iter().map(|policy| policy.id.as_str()).collect();
            let advice = super::diagnostic::suggest(policy, &known);
            reading.fault(&place.key("policy"), format!("there is no policy `{policy}`"), advice);
        }
        let period = match self.period.as_deref().map(str::parse::<BucketPeriod>) {
            None => None,
            Some(Ok(period @ BucketPeriod::Span(_))) => Some(period),
            Some(_) => {
                let what = "not a period: 2023, 2023Q2, 2023-05 or 2023-05-10";
                reading.fault(&place.key("period"), what, "write one of these forms");
                return None;
            }
        };
        let key = SecretText::new(key.clone());
        Some(BoundTo::Policy { key, policy: policy.clone(), period, retired: self.retired })
    }

    fn check_fields(&self, place: &Place, registry: &Registry, reading: &mut Reading<'_>) -> Option<Vec<SealedField>> {
        let mut fields = Vec::new();
        for (number, text) in self.fields.iter().enumerate() {
            let found = text.rsplit_once('.').and_then(|(collection, field)| {
                let (store, collection) = registry.collection(collection).ok()?;
                let (store, collection) = (store.name.clone(), collection.table.clone());
                Some(SealedField { store, collection, field: field.to_owned() })
            });
            match found {
                Some(field) if !field.field.is_empty() && !fields.contains(&field) => fields.push(field),
                _ => {
                    let what = format!("`{text}` is no field of one registered collection, or is named twice");
                    let advice = "write `COLLECTION.FIELD`, or `STORE.COLLECTION.FIELD` where several stores have it";
                    reading.fault(&place.key("fields").index(number), what, advice);
                }
            }
        }
        if self.fields.is_empty() {
            reading.fault(&place.key("fields"), "it seals no field", "name at least one");
        }
        (fields.len() == self.fields.len() && !fields.is_empty()).then_some(fields)
    }
}

/// Checks all of them; faults are with the reading.
pub(super) fn check_all(
    keys: &[RawOutsideKey],
    registry: Option<&Registry>,
    reading: &mut Reading<'_>,
) -> Vec<OutsideKey> {
    let mut all = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let place = Place::of("outside_key").index(number);
        if keys[..number].iter().any(|earlier| earlier.name == key.name) {
            let what = format!("two outside keys are called `{}`", key.name);
            reading.fault(&place.key("name"), what, "give each its own name");
        }
        all.extend(key.check(&place, registry, reading));
    }
    all
}
