//! What a certificate says about the end of an application's key.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::certify::codes::{OutsideBinding, SlotClass};

object! {
    /// An application's key in a key service, and its end.
    OutsideKeyEnd {
        /// Version of these members: 1.
        version: u64,
        /// The random id of its registration.
        key_id: String,
        /// The entry of the configuration.
        name: String,
        /// Keyed pseudonym of where it was and what it was called, `hmac-sha256:<key id>:<hex>`.
        key_ref: String,
        /// What ended it.
        bound_to: OutsideBinding,
        /// The policy's id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
        /// The period of the policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        period: Option<String>,
        /// The fields that it sealed, as templates ([`crate::certify::check::location`]) with the field behind them.
        fields: Vec<String>,
        /// Since when those were stored sealed, as declared.
        encrypted_since: NaiveDate,
        /// Whether they ever were stored in clear: as declared, or as seen.
        ever_in_clear: bool,
        /// Until when, as declared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        in_clear_until: Option<NaiveDate>,
        /// The kind of service.
        kind: String,
        /// What its end is worth.
        class: SlotClass,
        /// How it was read back that it is gone: codes of the program's documentation.
        checks: Vec<String>,
        /// What the service said of it right before its end; absent when it was gone before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read_back: Option<OutsideReadBack>,
        /// For how many days copies of the service are kept, as the operator declares.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot_retention_days: Option<u64>,
        /// Until when such a copy, with its unseal keys, could bring the key back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reopenable_until: Option<NaiveDate>,
        /// From when on its deletion could not be called off any more, where the service deletes at a date only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        irrevocable_at: Option<Timestamp>,
    }
}

object! {
    /// What a key service said of an application's key right before its end.
    OutsideReadBack {
        /// Its newest version.
        latest_version: u64,
        /// Whether it could be exported; if not, it never could.
        exportable: bool,
        /// Whether it could be backed up in clear; if not, it never could.
        allow_plaintext_backup: bool,
        /// Whether it was brought in from outside of the service.
        imported: bool,
    }
}
