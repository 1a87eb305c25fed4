//! What is recorded of an outside key, and how its sealed part is made and opened.

use chrono::{DateTime, NaiveDate, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{BoundTo, OutsideKey};
use crate::control::OutsideKeyRow;
use crate::erase::EraseError;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::keys::cell::pseudonym;
use crate::keys::outside::{KeyFacts, OutsideEvidence, OutsideStep};
use crate::keys::sealed::{open_column, seal_column};
use crate::plan::Subject;
use crate::policy::registry::SecretText;
use crate::random::Random;

use super::super::{Result, TaskError};

/// Why an outside key is not destroyed, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutsideWait {
    /// Living rows rely on it.
    RowsRely,
    /// Its period is not due yet.
    PeriodNotDue,
    /// The configuration does not say that the application has retired it.
    NotRetired,
    /// No row of its subject was seen, and no request of theirs was carried out since it was registered.
    NeverUsed,
    /// What was erased can still be put back.
    Grace,
    /// A hold.
    Hold,
    /// A run that is not finished.
    OtherRun,
    /// Its entry is not in the configuration any more.
    Unconfigured,
    /// A collection, a field or a policy of its entry is not as registered.
    Unregistered,
    /// A store that holds its fields cannot be read.
    StoreUnreachable,
    /// The key service cannot be asked, or refuses.
    ServiceRefuses,
    /// The key service never had such a key.
    NoSuchKey,
    /// Another key has its name now.
    Replaced,
    /// What names it is lost or damaged.
    NameLost,
    /// It opens nothing any more, and its service deletes it at a date; until then somebody could call that off.
    Irrevocable,
    /// It is deleted at a date, and living rows rely on it, or a hold covers it; until then somebody could call that off.
    Needed,
}

impl OutsideWait {
    /// Whether the key is simply in use.
    #[must_use]
    pub fn is_in_use(self) -> bool {
        matches!(self, Self::RowsRely | Self::PeriodNotDue | Self::NotRetired | Self::NeverUsed)
    }

    /// Whether it goes on only when somebody does something.
    #[must_use]
    pub fn needs_somebody(self) -> bool {
        matches!(
            self,
            Self::Unconfigured
                | Self::Unregistered
                | Self::StoreUnreachable
                | Self::ServiceRefuses
                | Self::NoSuchKey
                | Self::Replaced
                | Self::NameLost
                | Self::Needed
        )
    }
}

/// Why an outside key waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// The code.
    pub code: OutsideWait,
    /// The same as a sentence, without personal data.
    pub what: String,
    /// Until when at least, where that is known (RFC 3339).
    pub until: Option<String>,
}

impl Waiting {
    pub(super) fn new(code: OutsideWait, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), until: None }
    }

    pub(super) fn until(self, until: DateTime<Utc>) -> Self {
        Self { until: Some(crate::control::time_text(until)), ..self }
    }
}

/// What the configuration said of a key when it was destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// The fields, as (store, collection, field).
    pub fields: Vec<(String, String, String)>,
    /// The policy, for a key that a policy ended.
    pub policy: Option<String>,
    /// Its period.
    pub period: Option<String>,
    /// Since when the fields were stored sealed.
    pub encrypted_since: NaiveDate,
    /// Whether they ever were in clear.
    pub ever_in_clear: bool,
    /// Until when, where that is known.
    pub in_clear_until: Option<NaiveDate>,
}

impl Declared {
    pub(super) fn of(spec: &OutsideKey) -> Self {
        let field =
            |field: &crate::config::SealedField| (field.store.clone(), field.collection.clone(), field.field.clone());
        let (policy, period) = match &spec.bound {
            BoundTo::Policy { policy, period, .. } => (Some(policy.clone()), period.map(|period| period.to_string())),
            BoundTo::Subjects => (None, None),
        };
        Self {
            fields: spec.fields.iter().map(field).collect(),
            policy,
            period,
            encrypted_since: spec.encrypted_since,
            ever_in_clear: spec.ever_in_clear,
            in_clear_until: spec.in_clear_until,
        }
    }
}

/// The public part of an outside key, kept as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "four facts, each by itself")]
pub struct OutsideBody {
    /// What the service said of it when it was seen first; while it is being destroyed, what it said right before.
    pub facts: Option<KeyFacts>,
    /// Whether a row that relies on it was ever seen.
    pub rows_seen: bool,
    /// Whether a value in clear was ever seen in one of its fields, whatever the configuration declares.
    pub clear_seen: bool,
    /// Why it is not destroyed, as of the last look.
    pub wait: Option<Waiting>,
    /// When it was last looked at.
    pub looked_at: Option<DateTime<Utc>>,
    /// Whether the service had it no more when its destruction was to begin: somebody else destroyed it.
    pub gone_before: bool,
    /// When its destruction began.
    pub begun_at: Option<DateTime<Utc>>,
    /// What was done for a deletion at a date, which `facts` has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<OutsideStep>,
    /// How often somebody called such a deletion off, or moved its date.
    #[serde(default)]
    pub called_off: u32,
    /// What the configuration said, once it is destroyed.
    pub declared: Option<Declared>,
    /// How it ended.
    pub evidence: Option<OutsideEvidence>,
    /// The subject's pseudonym for certificates, hex.
    pub subject_ref: Option<String>,
    /// The key's own pseudonym for certificates, hex.
    pub key_ref: Option<String>,
    /// The request that ended it.
    pub request: Option<i64>,
    /// Whether its end is certified.
    pub certified: bool,
}

impl OutsideBody {
    /// Reads it.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn of(row: &OutsideKeyRow) -> Result<Self> {
        serde_json::from_str(&row.body)
            .map_err(|_| TaskError::Inconsistent(format!("the record of outside key {} is damaged", row.id)))
    }

    /// From when on nobody can call its deletion off any more, for a key in state `doomed`.
    #[must_use]
    pub fn irrevocable_at(&self) -> Option<DateTime<Utc>> {
        self.facts.as_ref().and_then(|facts| facts.deleted_at)
    }

    pub(super) fn text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|_| TaskError::Inconsistent("the record of an outside key cannot be written".to_owned()))
    }

    /// Stores it in a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, row: &mut OutsideKeyRow) -> Result<()> {
        row.body = self.text()?;
        Ok(())
    }
}

/// Whose a key is, and its own name. Not printable.
#[derive(Serialize, Deserialize)]
struct Sealed {
    subject: String,
    key: String,
}

/// A key with what names it.
pub(super) struct Named {
    /// Its own name in the service.
    pub key: SecretText,
    /// Whose it is; none for a policy's.
    pub subject: Option<Subject>,
}

/// Seals whose a key is, and its name.
pub(super) fn seal(leaf: &Key, id: &str, subject: &Subject, key: &SecretText, random: &dyn Random) -> Result<Vec<u8>> {
    let sealed = Sealed { subject: subject.dangerous_text().to_owned(), key: key.dangerous_text().to_owned() };
    let plain = zeroize::Zeroizing::new(
        serde_json::to_vec(&sealed)
            .map_err(|_| TaskError::Inconsistent("the name of an outside key cannot be written".to_owned()))?,
    );
    Ok(seal_column(leaf, &[b"outside-key", id.as_bytes()], &plain, random).map_err(EraseError::from)?)
}

/// Opens what names a key: from its seal, or from the configuration.
pub(super) async fn open(installation: &Installation, row: &OutsideKeyRow, spec: &OutsideKey) -> Result<Named> {
    if let BoundTo::Policy { key, .. } = &spec.bound {
        return Ok(Named { key: key.clone(), subject: None });
    }
    let damaged = || TaskError::Inconsistent(format!("what names outside key {} is lost or damaged", row.id));
    let mut tx = installation.control.begin().await?;
    let leaf = installation.keyring.find_work_key(&mut tx, Purpose::OutsideKey, &row.id).await?;
    drop(tx);
    let leaf = leaf.ok_or_else(damaged)?;
    let plain = open_column(&leaf, &[b"outside-key", row.id.as_bytes()], &row.sealed).map_err(EraseError::from)?;
    let sealed: Sealed = serde_json::from_slice(&plain).map_err(|_| damaged())?;
    Ok(Named { key: SecretText::new(sealed.key), subject: Some(Subject::new(sealed.subject)) })
}

/// Keyed digest of a key's entry and its own name. Not of the address: a service may move.
pub(super) fn place_mac(lookup: &Key, spec: &OutsideKey, key: &SecretText) -> [u8; 32] {
    pseudonym(lookup, "outside-key", &[spec.name.as_bytes(), key.dangerous_text().as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was declared decides what a certificate claims: it must come back as it was stored, known date or not.
    #[test]
    fn what_was_declared_is_read_as_it_was_written() {
        for (ever_in_clear, in_clear_until) in
            [(false, None), (true, None), (true, NaiveDate::from_ymd_opt(2022, 12, 31))]
        {
            let declared = Declared {
                fields: vec![("clinic".to_owned(), "patients".to_owned(), "note".to_owned())],
                policy: None,
                period: None,
                encrypted_since: NaiveDate::default(),
                ever_in_clear,
                in_clear_until,
            };
            let body = OutsideBody { declared: Some(declared), rows_seen: true, ..OutsideBody::default() };
            let read: OutsideBody = serde_json::from_str(&body.text().unwrap()).unwrap();
            assert_eq!(read, body);
        }
    }
}
