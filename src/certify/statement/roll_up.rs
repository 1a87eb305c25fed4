//! What a roll-up says: since the one before it, so many runs ended, so many certificates were issued and so many receipts came. A
//! certificate that was never issued or filed leaves a gap there that a stranger sees.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Digest, Issuer, STATEMENT_TYPE, Subject, Timestamp, evidence_name};
use crate::certify::codes::ErasureResult;

/// The predicate type; a name, not an address, like that of the erasure.
pub const ROLL_UP_TYPE: &str = "https://wangchuan.invalid/attestation/roll-up/v1";

object! {
    /// The runs of a period.
    RunTotals {
        /// Runs that ended, and ends of outside keys, of which a certificate is owed or was issued.
        ended: u64,
        /// Those with a certificate.
        certified: u64,
        /// Those without one.
        without_certificate: u64,
    }
}

object! {
    /// The certificates of a period.
    CertificateTotals {
        /// How many.
        issued: u64,
        /// The number of the first; absent when there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_sequence: Option<u64>,
        /// The number of the last, which is right before that of the roll-up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_sequence: Option<u64>,
    }
}

object! {
    /// Receipts of the certificates of a period, as they stood when the roll-up was signed.
    ReceiptTotals {
        /// With proof of inclusion and a quorum of witnesses.
        grade_a: u64,
        /// With proof of inclusion.
        grade_b: u64,
        /// With a signed acknowledgement.
        grade_c: u64,
        /// Taken, without any proof.
        grade_d: u64,
        /// Not filed yet.
        waiting: u64,
        /// Refused by the audit service.
        refused: u64,
        /// Certificates of earlier periods that are still not filed.
        waiting_before: u64,
    }
}

object! {
    /// A signed head of the operation log: what was written there by then cannot be taken back unnoticed.
    LogHead {
        /// Entries.
        size: u64,
        /// The root of the tree over them, hex.
        root_hash: String,
    }
}

object! {
    /// The roll-up before.
    EarlierRollUp {
        /// Its id.
        certificate_id: String,
        /// Its number.
        sequence: u64,
    }
}

object! {
    /// What a roll-up says.
    RollUp {
        /// UUID (version 7).
        certificate_id: String,
        /// Its number in the sequence of all certificates.
        sequence: u64,
        /// Digest (SHA-256 over the PAE) of the certificate before; absent only in the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_certificate: Option<Digest>,
        /// Who certifies.
        issuer: Issuer,
        /// Since when: the end of the roll-up before.
        from: Timestamp,
        /// Until when.
        until: Timestamp,
        /// When this was signed.
        issued_at: Timestamp,
        /// `complete` when every run has its certificate and every certificate its receipt, otherwise `partial`.
        result: ErasureResult,
        /// The runs.
        run_totals: RunTotals,
        /// The certificates, the roll-up before among them.
        certificate_totals: CertificateTotals,
        /// Their receipts.
        receipt_totals: ReceiptTotals,
        /// The operation log then.
        operation_log: LogHead,
        /// The roll-up before; absent in the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_roll_up: Option<EarlierRollUp>,
    }
}

/// The statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollUpStatement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The list of what was counted.
    pub subject: Vec<Subject>,
    /// Always [`ROLL_UP_TYPE`].
    pub predicate_type: String,
    /// What it says.
    pub predicate: RollUp,
}

impl RollUpStatement {
    /// A statement about a list with this digest.
    #[must_use]
    pub fn new(list_sha256: &str, predicate: RollUp) -> Self {
        let name = evidence_name(&predicate.certificate_id);
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject { name, digest: Digest { sha256: list_sha256.to_owned() } }],
            predicate_type: ROLL_UP_TYPE.to_owned(),
            predicate,
        }
    }
}
