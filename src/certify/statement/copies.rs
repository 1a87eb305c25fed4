//! What a certificate says of copies: backups, snapshots, declared copies and replicas.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackupState, CopyState, Timestamp};

object! {
    /// The backups of a target.
    Backups {
        /// What holds for them.
        state: BackupState,
        /// When the last readable one is gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_by: Option<NaiveDate>,
    }
}

object! {
    /// A snapshot in which erased rows were sealed.
    BackupCopy {
        /// The store.
        store: String,
        /// Its id.
        snapshot: String,
        /// `full` or `incremental`.
        kind: String,
        /// What holds for the erased rows in it.
        state: BackupState,
        /// When they do not open any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_by: Option<NaiveDate>,
    }
}

object! {
    /// A declared further copy, or a declared replica.
    DeclaredCopy {
        /// Its registered name.
        copy_ref: String,
        /// What holds for it.
        state: CopyState,
        /// The date by which it dies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dies_by: Option<NaiveDate>,
        /// When its medium was destroyed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destroyed_at: Option<Timestamp>,
        /// The record of that, which has a certificate of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        media_record: Option<String>,
    }
}
