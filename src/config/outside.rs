//! `[[outside_key]]`: keys in a key service that applications seal single fields with, and that the agent destroys.

mod access;

use std::path::PathBuf;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::policies::Registry;
use super::secret::SecretValue;
use super::section::Reading;
use crate::policy::calendar::BucketPeriod;
use crate::policy::registry::SecretText;

pub use access::OutsideAccess;
use access::ServiceKind;

/// `[[outside_key]]`, checked: one key that a policy ends, or a family of keys of which each belongs to one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideKey {
    /// Its name in the configuration, in output and in certificates; identifies nobody.
    pub name: String,
    /// How its place in the service is reached.
    pub access: OutsideAccess,
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

/// Keys of an application that the agent answers for: one that a policy ends, or with `subjects = true` a family of them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutsideKey {
    /// Its name, unique: letters, digits, `-`, `_`; at most 64. Stands in certificates, so it must not identify anybody.
    name: String,
    /// The kind of key service: `transit` (OpenBao, Vault) or `aws-kms`.
    kind: ServiceKind,
    /// `transit`: address of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// `transit`: where the engine is mounted; `transit` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mount: Option<String>,
    /// `transit`: namespace, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// `transit`: file of certificate authorities, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// `transit`: token; a secret reference.
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
    /// `transit`: for how many days copies of the service's storage are kept; certificates name the date until which such a copy,
    /// with its unseal keys, could bring a destroyed key back.
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
    /// `aws-kms`: for how many days the deletion of a key can be called off, 7 to 30; certificates come only afterwards. 7 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion_window_days: Option<u8>,
    /// `aws-kms`: what every sealed value of the fields begins with, as text or as `hex:…`; any other counts as stored in clear. The
    /// service documents no form of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_prefix: Option<String>,
    /// With `policy`: the key's name in the service; in AWS KMS its id, for an alias can be put on another key.
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
        let secrets = [
            ("token", &self.token),
            ("role_id", &self.role_id),
            ("secret_id", &self.secret_id),
            ("access_key_id", &self.access_key_id),
            ("secret_access_key", &self.secret_access_key),
        ];
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
            bound: bound?,
            fields: fields?,
            encrypted_since: self.encrypted_since,
            ever_in_clear: self.ever_in_clear,
            in_clear_until: self.in_clear_until,
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
