//! Packs that a snapshot has stored while it is not committed, with what its directory is to say of them. Another try of the same
//! snapshot takes over those whose rows are what they were.
//!
//! An entry stands here only behind its pack in the bucket. Numbers and digests of ciphertext, nothing of a row. Left out of the image:
//! whoever recovered a site begins anew.

use std::collections::HashMap;

use sqlx::Row as _;

use super::change_index::{Entry, Of, RowInCell};
use super::{Result, SnapshotRow, Tx};

/// A stored pack, without what its directory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPack {
    /// Its place among the packs of the snapshot, from 0.
    pub number: i64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Its bytes.
    pub bytes: i64,
    /// Its frames.
    pub frames: i64,
    /// The number of the first chunk of rows in it.
    pub first_chunk: i64,
    /// The number of the last one.
    pub last_chunk: i64,
}

/// A row that a snapshot which is not committed has entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnteredRow {
    /// Its cell.
    pub cell: i64,
    /// The digest of its content.
    pub content: [u8; 16],
    /// The chunk in which it was to be sealed.
    pub chunk: i64,
}

/// Tables in which a try leaves something, and the snapshots of store `$1` that were cancelled, but for number `$2`.
const LEFT_IN: [&str; 3] = ["change_index", "change_base", "snapshot_pack"];
const TRIES: &str =
    "snapshot IN (SELECT number FROM snapshot WHERE store = $1 AND state = 'cancelled' AND number <> $2)";

impl Tx {
    /// Notes a pack that is stored, and what the directory is to say of its frames.
    pub async fn note_stored_pack(&mut self, snapshot: i64, pack: &StoredPack, entries: &[u8]) -> Result<()> {
        sqlx::query(
            "INSERT INTO snapshot_pack (snapshot, number, sha256, bytes, frames, first_chunk, last_chunk, entries) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(snapshot)
        .bind(pack.number)
        .bind(&pack.sha256)
        .bind(pack.bytes)
        .bind(pack.frames)
        .bind(pack.first_chunk)
        .bind(pack.last_chunk)
        .bind(entries)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// The packs that a snapshot has stored, in their order.
    pub async fn stored_packs(&mut self, snapshot: i64) -> Result<Vec<StoredPack>> {
        let sql = "SELECT number, sha256, bytes, frames, first_chunk, last_chunk FROM snapshot_pack \
                   WHERE snapshot = $1 ORDER BY number";
        let rows = sqlx::query(sql).bind(snapshot).fetch_all(&mut *self.inner).await?;
        let pack = |row: &sqlx::any::AnyRow| {
            Ok(StoredPack {
                number: row.try_get(0)?,
                sha256: row.try_get(1)?,
                bytes: row.try_get(2)?,
                frames: row.try_get(3)?,
                first_chunk: row.try_get(4)?,
                last_chunk: row.try_get(5)?,
            })
        };
        rows.iter().map(pack).collect()
    }

    /// What the directory is to say of a stored pack; empty when it is not noted.
    pub async fn entries_of_pack(&mut self, snapshot: i64, number: i64) -> Result<Vec<u8>> {
        let query = sqlx::query("SELECT entries FROM snapshot_pack WHERE snapshot = $1 AND number = $2");
        let row = query.bind(snapshot).bind(number).fetch_optional(&mut *self.inner).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
    }

    /// The last try of a store that did not come to its end, behind its newest snapshot, if it left stored packs.
    pub async fn interrupted_try(&mut self, store: &str) -> Result<Option<SnapshotRow>> {
        let newest = self.snapshots(Some(store)).await?.last().map_or(0, |row| row.number);
        let mut tries = self.snapshots_in("cancelled", Some(store)).await?;
        while let Some(row) = tries.pop().filter(|row| row.number > newest) {
            if !self.stored_packs(row.number).await?.is_empty() {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Takes the chain of a try back from the keys that die next; false when it is not among them any more. A change of generation that
    /// has left its key out already looks for this, and is given up.
    pub async fn keep_chain(&mut self, slot: u32) -> Result<bool> {
        let kept = sqlx::query("UPDATE chain SET state = 'active' WHERE slot = $1 AND state = 'dying'")
            .bind(i64::from(slot))
            .execute(&mut *self.inner)
            .await?;
        Ok(kept.rows_affected() == 1)
    }

    /// What a snapshot that is not committed has entered of these rows and sealed, or was about to.
    pub async fn entered_rows(&mut self, snapshot: i64, rows: &[RowInCell]) -> Result<HashMap<[u8; 16], EnteredRow>> {
        let found = self.entries_of_rows(Of::Snapshot(snapshot), rows).await?;
        let row = |entry: Entry| EnteredRow { cell: entry.cell, content: entry.content, chunk: entry.chunk };
        Ok(found.into_iter().map(|(mac, entry)| (mac, row(entry))).collect())
    }

    /// Lets these packs of an earlier try, and the rows in them, be those of a running snapshot; they are numbered anew.
    pub async fn take_over_packs(&mut self, from: i64, to: i64, packs: &[StoredPack]) -> Result<()> {
        for (number, pack) in packs.iter().enumerate() {
            let sql = "UPDATE snapshot_pack SET snapshot = $3, number = $4 WHERE snapshot = $1 AND number = $2";
            let query = sqlx::query(sql).bind(from).bind(pack.number).bind(to).bind(number as i64);
            query.execute(&mut *self.inner).await?;
        }
        sqlx::query(
            "UPDATE change_index SET snapshot = $2 WHERE snapshot = $1 AND content IS NOT NULL AND EXISTS (SELECT 1 FROM snapshot_pack p \
             WHERE p.snapshot = $2 AND change_index.chunk BETWEEN p.first_chunk AND p.last_chunk)",
        )
        .bind(from)
        .bind(to)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Forgets what the cancelled tries of a store left, but for one of them.
    pub async fn forget_tries(&mut self, store: &str, except: Option<i64>) -> Result<()> {
        for table in LEFT_IN {
            let text = format!("DELETE FROM {table} WHERE {TRIES}");
            let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(store).bind(except.unwrap_or(0));
            query.execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    /// What an interrupted try was taken with.
    pub async fn base_of_try(&mut self, snapshot: i64) -> Result<Option<super::ChangeBase>> {
        let sql = "SELECT schema_digest, layout_digest FROM change_base WHERE snapshot = $1";
        let row = sqlx::query(sql).bind(snapshot).fetch_optional(&mut *self.inner).await?;
        row.map(|row| Ok(super::ChangeBase { snapshot, schema: row.try_get(0)?, layout: row.try_get(1)? })).transpose()
    }
}
