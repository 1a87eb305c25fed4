//! What a certificate says: an in-toto Statement v1 around our erasure predicate. Types only, pure.
//!
//! Every code is an enum and every string an id ([`super::check`] has the rules): there is no free text anywhere.
//! Readers ignore members they do not know (in-toto's monotonic rule: ignoring one must never turn a "no" into a
//! "yes"); the writer writes exactly these.

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use super::codes::{
    Action, AnonymizationTechnique, BackupState, CopyState, ErasureResult, Limitation, OutsideBinding, RecipientStatus,
    RefusalReason, RetainedReason, Sanitization, SlotClass, SupersedesReason, System, TriggerKind, VerificationMethod,
};

/// The statement type (in-toto attestation framework v1).
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The predicate type. A name, not an address: `.invalid` (RFC 2606) can never be registered by anyone, so nobody can
/// publish another meaning for it before the format has a home of its own.
pub const PREDICATE_TYPE: &str = "https://wangchuan.invalid/attestation/erasure/v1";

/// An instant, written in RFC 3339 UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

impl From<DateTime<Utc>> for Timestamp {
    /// Cuts to milliseconds, so that what is written equals what is held.
    fn from(time: DateTime<Utc>) -> Self {
        Self(DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time))
    }
}

impl Timestamp {
    /// The instant.
    #[must_use]
    pub fn instant(self) -> DateTime<Utc> {
        self.0
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(|_| de::Error::custom("a time is not RFC 3339"))?;
        Ok(Self::from(time.with_timezone(&Utc)))
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)+ }
    };
}

mod anonymized;
mod copies;
mod medium;
mod outside;
mod refusal;
mod roll_up;

pub use anonymized::{Anonymization, AnonymizedField};
pub use copies::{BackupCopy, Backups, DeclaredCopy};
pub use medium::{LostMedium, MediumEnd};
pub use outside::{OutsideKeyEnd, OutsideReadBack};
pub use refusal::Refusal;
pub use roll_up::{
    CertificateTotals, EarlierRollUp, LogHead, ROLL_UP_TYPE, ReceiptTotals, RollUp, RollUpStatement, RunTotals,
};

object! {
    /// A SHA-256 value.
    Digest {
        /// In hex.
        sha256: String,
    }
}

object! {
    /// What the statement is about: the evidence file.
    Subject {
        /// `evidence/<certificate id>.ndjson`.
        name: String,
        /// Digest of the file.
        digest: Digest,
    }
}

object! {
    /// Who certifies.
    Issuer {
        /// The controller's public identifier (LEI, unified social credit code).
        controller: String,
        /// The agent.
        agent_id: String,
        /// Its version.
        agent_version: String,
        /// `prod`, `test`, …
        environment: String,
    }
}

object! {
    /// How good the clock was.
    ClockQuality {
        /// Where the time came from.
        source: String,
        /// Bound of the error in milliseconds.
        max_error_ms: u64,
    }
}

object! {
    /// Why and by when.
    Trigger {
        /// Why.
        kind: TriggerKind,
        /// Opaque id of the request, if one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request_ref: Option<String>,
        /// When it was received.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        received_at: Option<Timestamp>,
        /// When it is legally due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due_at: Option<Timestamp>,
    }
}

object! {
    /// The policy that was applied.
    PolicyRef {
        /// Its id; of several, all ids with `+` between them.
        id: String,
        /// Version of the catalogue of statutes that it was read with; behind a `+` that of an own one.
        version: String,
        /// Digest of the policies, statutes and registered stores that decided.
        digest: Digest,
        /// Its retention as an ISO 8601 duration; absent of several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention_period: Option<String>,
        /// The start event. The program writes none: it has one for each collection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention_anchor: Option<String>,
    }
}

object! {
    /// A legal provision.
    LegalBasis {
        /// `CN-PIPL`, `EU-GDPR`, …
        regime: String,
        /// `47(1)(1)`.
        provision: String,
    }
}

object! {
    /// An approval. Names stand in the operation log.
    Approval {
        /// The role.
        role: String,
        /// Pseudonym of the person.
        actor_ref: String,
        /// When.
        approved_at: Timestamp,
    }
}

object! {
    /// What was meant to be reached, and was.
    Scope {
        /// Targets in the plan.
        targets_declared: u64,
        /// Targets reached.
        targets_reached: u64,
        /// People whose rows were to go; of rows that lead to nobody it counts none.
        subjects_count: u64,
        /// Keyed pseudonyms, `hmac-sha256:<key id>:<hex>`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        subject_refs: Vec<String>,
        /// Kinds of the fields that are declared of the tables that rows were taken from (`name`, `id_card`, …).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        data_categories: Vec<String>,
    }
}

object! {
    /// A key, or one generation of the root, and its end.
    KeyEvidence {
        /// SHA-256 of its id, in hex.
        key_id_sha256: String,
        /// Where it was.
        kms: String,
        /// Its algorithm.
        algorithm: String,
        /// When it was destroyed; absent while that is to come.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destroyed_at: Option<Timestamp>,
        /// Copies known to exist.
        copies_known: u64,
        /// Whether it is in escrow.
        escrow: bool,
    }
}

object! {
    /// How absence was checked.
    Verification {
        /// How.
        method: VerificationMethod,
        /// Share that was looked at, 0–100; the only number with a fraction.
        sample_percent: f64,
        /// When.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checked_at: Option<Timestamp>,
        /// What was still found.
        residual_found: u64,
        /// Whether another session than the deleting one looked.
        independent: bool,
        /// Digest of the evidence of the check, in hex.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence_sha256: Option<String>,
    }
}

object! {
    /// A storage medium (NIST SP 800-88 Rev. 2 §4.6); only for hardware.
    Media {
        /// Maker.
        make: String,
        /// Model.
        model: String,
        /// Serial number.
        serial: String,
        /// Asset tag.
        asset_tag: String,
        /// Kind of medium.
        #[serde(rename = "type")]
        kind: String,
    }
}

object! {
    /// One place where data was, and what became of it there.
    Target {
        /// Its id in this certificate.
        target_id: String,
        /// What kind of system.
        system: System,
        /// Where: a template ([`super::check::location`]), never a key value.
        location: String,
        /// Category of data; the program writes `registered`, and the kinds of fields into the scope.
        data_category: String,
        /// What was done.
        action: Action,
        /// What that amounts to.
        sanitization: Sanitization,
        /// How exactly, `sql-delete`, `key-tree-generation`, …
        technique: String,
        /// Name and version of the tool.
        tool: String,
        /// Rows that were due.
        records_selected: u64,
        /// Rows absent from the live store.
        records_erased: u64,
        /// Rows made anonymous.
        records_anonymized: u64,
        /// Rows kept.
        records_retained: u64,
        /// Rows that failed.
        records_failed: u64,
        /// Objects removed.
        objects_erased: u64,
        /// Bytes freed.
        bytes_erased: u64,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// Keys of the backups.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<KeyEvidence>,
        /// What anonymisation did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        anonymization: Option<Anonymization>,
        /// How absence was checked.
        verification: Verification,
        /// What holds for the backups.
        backups: Backups,
        /// Declared further copies.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        copies: Vec<DeclaredCopy>,
        /// The medium.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        media: Option<Media>,
    }
}

object! {
    /// Rows that were kept, for one reason.
    Retained {
        /// The target.
        target_id: String,
        /// How many.
        records: u64,
        /// Why.
        reason_code: RetainedReason,
        /// The law.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        regime: Option<String>,
        /// Its provision.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provision: Option<String>,
        /// Until when, if known. The program writes none: rows that one reason keeps end on days of their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<NaiveDate>,
        /// Whether all processing but storage has stopped. The program writes `false`: that a maximum has ended, so that it ought to stop, stands
        /// in the plan; that it did nobody shows.
        restricted: bool,
    }
}

object! {
    /// A recipient of the data.
    Recipient {
        /// Their pseudonym.
        recipient_ref: String,
        /// When they were told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notified_at: Option<Timestamp>,
        /// What became of it.
        status: RecipientStatus,
    }
}

object! {
    /// An earlier certificate that this one replaces.
    Supersedes {
        /// Its id.
        certificate_id: String,
        /// Why.
        reason: SupersedesReason,
    }
}

object! {
    /// The root slot that keys were destroyed in.
    RootSlot {
        /// Its class.
        class: SlotClass,
        /// `file`, `transit`, `pkcs11`, `aws-kms`.
        kind: String,
        /// For how many days copies of the key service are kept, as the operator declares.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot_retention_days: Option<u64>,
        /// Until when such a copy, with its unseal keys, could bring the destroyed key back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reopenable_until: Option<NaiveDate>,
        /// When the destruction is, or was, irrevocable, in a slot that destroys only at a date; before it, the key cannot be used, but
        /// whoever has the right can call its destruction off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        irrevocable_at: Option<Timestamp>,
        /// How it was read back that the key is gone: codes of the program's documentation.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        checks: Vec<String>,
        /// What the key service said then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read_back: Option<SlotReadBack>,
        /// What the PKCS#11 token said of the key before and after.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<SlotToken>,
    }
}

impl RootSlot {
    /// A slot of which nothing more is known.
    #[must_use]
    pub fn new(class: SlotClass, kind: &str) -> Self {
        let kind = kind.to_owned();
        let checks = Vec::new();
        let (snapshot_retention_days, reopenable_until, irrevocable_at, read_back, token) =
            (None, None, None, None, None);
        Self { class, kind, snapshot_retention_days, reopenable_until, irrevocable_at, checks, read_back, token }
    }
}

object! {
    /// What a PKCS#11 token said of the key that wrapped the root: its marks just before it was destroyed, and what a session
    /// opened afterwards found.
    SlotToken {
        /// Whether it never could be taken out (`CKA_NEVER_EXTRACTABLE`).
        never_extractable: bool,
        /// Whether its value never could be read (`CKA_ALWAYS_SENSITIVE`).
        always_sensitive: bool,
        /// Whether it was made in the token (`CKA_LOCAL`).
        local: bool,
        /// Keys with its id or label that were still there.
        objects_left: u64,
    }
}

object! {
    /// What a key service said of its key after a destruction.
    SlotReadBack {
        /// The version that wrapped the destroyed root.
        key_version: u64,
        /// The lowest version that it still has.
        min_available_version: u64,
        /// Whether the key can be exported; if not, it never could.
        exportable: bool,
        /// Whether it can be backed up in clear; if not, it never could.
        allow_plaintext_backup: bool,
        /// Whether it can be deleted.
        deletion_allowed: bool,
    }
}

object! {
    /// The scan for personal data before signing.
    PrivacyScan {
        /// Version of the rules.
        rules: String,
        /// Hits; always 0, or there is no certificate.
        hits: u64,
    }
}

object! {
    /// How the pseudonyms in here end.
    Privacy {
        /// The key they are made with.
        ref_key_id: String,
        /// When it dies, and the pseudonyms with it; absent while no end of it is fixed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ref_key_destroy_at: Option<NaiveDate>,
        /// The scan.
        scan: PrivacyScan,
    }
}

object! {
    /// What happened.
    Predicate {
        /// UUID (version 7).
        certificate_id: String,
        /// Gap-free per issuer and environment, from 1.
        sequence: u64,
        /// Digest (SHA-256 over the PAE) of the certificate before; absent only in the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_certificate: Option<Digest>,
        /// Who certifies.
        issuer: Issuer,
        /// When the erasure began.
        started_at: Timestamp,
        /// When it ended.
        finished_at: Timestamp,
        /// When this was signed.
        issued_at: Timestamp,
        /// When absence was checked last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        absence_checked_at: Option<Timestamp>,
        /// How long that check is meant to stand. The program writes none: it looks again by a job, and promises nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        absence_valid_until: Option<Timestamp>,
        /// How good the clock was.
        clock: ClockQuality,
        /// How it ended.
        result: ErasureResult,
        /// Why.
        trigger: Trigger,
        /// By which policies rows fell due; absent when somebody asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyRef>,
        /// Under which law.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        legal_basis: Vec<LegalBasis>,
        /// Who approved.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approvals: Vec<Approval>,
        /// What was meant.
        scope: Scope,
        /// What became of each place.
        targets: Vec<Target>,
        /// What was kept.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        retained: Vec<Retained>,
        /// Who was told. The program writes none: it does not know to whom data was given.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        recipients: Vec<Recipient>,
        /// The root slot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root_slot: Option<RootSlot>,
        /// The outside key whose end this certifies; then the only target is its service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outside_key: Option<OutsideKeyEnd>,
        /// The storage medium whose end this certifies; then it is the only target.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        medium: Option<MediumEnd>,
        /// The snapshots in which the rows were sealed, the newest 200, oldest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        backup_copies: Vec<BackupCopy>,
        /// The lost medium of which this certifies what opens no more; then it is the only target.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost_medium: Option<LostMedium>,
        /// Why nothing was erased; with the result `refused`, and only then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refusal: Option<Refusal>,
        /// The date by which nothing of it can be read any more anywhere; absent when that holds now, and when no such date
        /// is known (then `COPY_UNREAD` or `BACKUP_NOT_COVERED` says so).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        residual_date: Option<NaiveDate>,
        /// Since when the date of every copy that is known is past; absent while one is to come, or has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        final_since: Option<Timestamp>,
        /// What is not claimed.
        limitations: Vec<Limitation>,
        /// What this replaces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        supersedes: Option<Supersedes>,
        /// How its pseudonyms end.
        privacy: Privacy,
    }
}

/// The statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The evidence file.
    pub subject: Vec<Subject>,
    /// Always [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// What happened.
    pub predicate: Predicate,
}

impl Statement {
    /// A statement about an evidence file with this digest.
    #[must_use]
    pub fn new(evidence_sha256: &str, predicate: Predicate) -> Self {
        let name = evidence_name(&predicate.certificate_id);
        let digest = Digest { sha256: evidence_sha256.to_owned() };
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject { name, digest }],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate,
        }
    }
}

/// The name of the evidence file of a certificate.
#[must_use]
pub fn evidence_name(certificate_id: &str) -> String {
    format!("evidence/{certificate_id}.ndjson")
}
