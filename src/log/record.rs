//! A record of the operation log: who, when, from where, what, on which object, with what outcome. Pure.
//!
//! Names and numbers are those of OCSF 1.8 (classes Datastore Activity 6005, Entity Management 3004, API Activity 6003,
//! Authentication 3002); what OCSF has no name for stands under `unmapped`, as it prescribes. Customers appear by
//! pseudonym, values before and after only as keyed digests or sealed masks, so a record alone identifies no customer.
//! Operators' ids and addresses are personal data too: the tree holds SHA-256(salt ‖ record), and both can be dropped.

mod names;
mod written;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::store::{NewLeaf, StoredLeaf};
use super::tree::{Hash, sha256};

pub use names::OPERATIONS;
pub use written::{Letter, OperationRecord};

/// Bytes of the salt of a record.
pub const SALT_BYTES: usize = 32;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Customer data was read or looked up.
    Read,
    /// Customer data was changed (anonymised, put back, written anew).
    Update,
    /// Customer data was written to another place.
    Write,
    /// Customer data was deleted.
    Delete,
    /// Customer data was exported.
    Export,
    /// Something the agent manages was created: a plan, a request, a hold, a snapshot.
    EntityCreate,
    /// Something the agent manages was read.
    EntityRead,
    /// Something the agent manages was changed: an approval, a release, a configuration.
    EntityUpdate,
    /// Something the agent manages was deleted: a key, a snapshot, the contents of old entries.
    EntityDelete,
    /// Somebody wanted to be let in.
    Logon,
    /// Any other call.
    Call,
    /// An operation without a place in [`OPERATIONS`]. Its letter is `M`: whoever looks for what was done must not pass it over as a look.
    Unknown,
}

impl Activity {
    /// What kind of thing a named operation is, when it was done: as [`OPERATIONS`] says, and [`Self::Unknown`] where that says nothing.
    #[must_use]
    pub fn of_operation(operation: &str) -> Self {
        let place = OPERATIONS.iter().find(|(name, _)| *name == operation);
        place.map_or(Self::Unknown, |(_, activity)| *activity)
    }

    /// Its name in OCSF.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read | Self::EntityRead => "Read",
            Self::Update | Self::EntityUpdate => "Update",
            Self::Write => "Write",
            Self::Delete | Self::EntityDelete => "Delete",
            Self::Export => "Export",
            Self::EntityCreate => "Create",
            Self::Logon => "Logon",
            Self::Call => "Other",
            Self::Unknown => "Unknown",
        }
    }

    /// Read, write, modify or delete, as procedures for records want it: `R`, `W`, `M`, `D`.
    #[must_use]
    pub fn letter(self) -> Letter {
        match self {
            Self::Read | Self::EntityRead | Self::Export | Self::Logon | Self::Call => Letter::R,
            Self::Write | Self::EntityCreate => Letter::W,
            Self::Update | Self::EntityUpdate | Self::Unknown => Letter::M,
            Self::Delete | Self::EntityDelete => Letter::D,
        }
    }

    /// OCSF `category_uid`, `class_uid` and `activity_id`.
    #[must_use]
    pub fn ocsf(self) -> (u32, u32, u32) {
        match self {
            Self::Read => (6, 6005, 1),
            Self::Update => (6, 6005, 2),
            Self::Write => (6, 6005, 5),
            Self::Delete => (6, 6005, 7),
            // Datastore Activity has no export; 99 is OCSF's "other", the operation names it.
            Self::Export => (6, 6005, 99),
            Self::EntityCreate => (3, 3004, 1),
            Self::EntityRead => (3, 3004, 2),
            Self::EntityUpdate => (3, 3004, 3),
            Self::EntityDelete => (3, 3004, 4),
            Self::Logon => (3, 3002, 1),
            Self::Call => (6, 6003, 99),
            Self::Unknown => (6, 6003, 0),
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was refused, or went wrong.
    Failure,
    /// It is about to be done; a record with the outcome follows.
    Intent,
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The login that ran the command or the agent; `unknown` for somebody over the network who showed nothing that is believed.
    pub uid: String,
}

/// On what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Resource {
    /// `store`, `collection`, `subject`, `plan`, `key`, `snapshot`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its id; a pseudonym for a subject.
    pub uid: String,
}

/// What changed in a table. Whose rows, and what stood in them, is only told by keyed digests and sealed masks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Change {
    /// Store and table.
    pub field: String,
    /// `M` for what was modified, `D` for what was deleted.
    pub operation: String,
    /// How many rows.
    pub rows: u64,
    /// Which: the first and the last of them in the order in which they went. Null when the rows are not told apart.
    pub records: Option<Records>,
    /// Digest of what was there before, hex: of the keyed digests of the rows' contents, one behind the other in the order of the
    /// ledger. They die with their keys.
    pub before: Option<String>,
    /// What became of each field of rows that were modified (`null`, `mask`, `generalise`, `surrogate`, `fixed`, `emptied`); empty for
    /// deleted rows.
    pub after: BTreeMap<String, String>,
    /// Digest of what was there after, hex: made as `before` is, of whole rows as the change left them. Absent for deleted rows, and where
    /// it is not known of every row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_digest: Option<String>,
    /// Ids of the first and the last row, and of the first rows what stood in declared fields before and after, as strict masks:
    /// sealed (base64) under a key that dies with what was erased, so `log query` shows it within grace. Null when the policy has no grace.
    pub sealed: Option<String>,
}

/// Which records of a table: keyed digests of their keys, as in the ledger (hex).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Records {
    /// The first.
    pub first: String,
    /// The last.
    pub last: String,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// A random id (UUID).
    pub id: String,
    /// When.
    pub time: DateTime<Utc>,
    /// Who.
    pub actor: Actor,
    /// From which address; none for what was typed or scheduled on the host itself, whose name stands for it then.
    pub ip: Option<String>,
    /// On which host.
    pub host: String,
    /// What kind of thing.
    pub activity: Activity,
    /// What exactly: the command or step, `erase.batch`.
    pub operation: String,
    /// On which objects.
    pub resources: Vec<Resource>,
    /// The customer it was about, by the log's pseudonym; none when it was about nobody or about many.
    pub customer: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// A code of the outcome, or the reason given.
    pub detail: Option<String>,
    /// What changed.
    pub changes: Vec<Change>,
    /// Further identifiers: run, request, approver, ticket, trace.
    pub references: Vec<(String, String)>,
}

impl Record {
    /// The record as one line of JSON, without a newline.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which none of its members is known to cause.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&OperationRecord::of(self))
    }

    /// The record as a leaf.
    ///
    /// # Errors
    /// As [`Self::to_json`].
    pub fn to_leaf(&self, salt: [u8; SALT_BYTES]) -> Result<NewLeaf, serde_json::Error> {
        let content = self.to_json()?.into_bytes();
        Ok(NewLeaf {
            id: self.id.clone(),
            entry: commitment(&salt, &content).to_vec(),
            salt: Some(salt.to_vec()),
            content,
            time_ms: self.time.timestamp_millis(),
        })
    }
}

/// What the tree holds of a record: SHA-256(salt ‖ record).
#[must_use]
pub fn commitment(salt: &[u8], record: &[u8]) -> Hash {
    let mut bytes = salt.to_vec();
    bytes.extend_from_slice(record);
    sha256(&bytes)
}

/// What is wrong with a stored record, if it is still there: for [`super::verify::verify_log`].
#[must_use]
pub fn check_content(leaf: &StoredLeaf) -> Option<&'static str> {
    match (&leaf.salt, &leaf.content) {
        (Some(salt), Some(content)) => {
            (commitment(salt, content)[..] != leaf.entry).then_some("its content does not fit its commitment")
        }
        (None, None) => None,
        (None, Some(_)) => Some("its salt is missing"),
        (Some(_), None) => Some("its content is missing although its salt is there"),
    }
}
