//! Snapshots and chains.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, optional_time, parse_time, time_text};

/// A snapshot as stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotRow {
    /// Its number, rising over the whole installation.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// The store.
    pub store: String,
    /// The chain's slot.
    pub chain: u32,
    /// `full` or `incremental`.
    pub kind: String,
    /// The ledger position when it was begun.
    pub ledger_position: i64,
    /// Its place in the store's chain of manifests.
    pub sequence: i64,
    /// `running`, `committed`, `cancelled`, or `pruned` once the key of its chain is destroyed.
    pub state: String,
    /// The manifest's object name.
    pub manifest: Option<String>,
    /// The manifest's SHA-256, hex.
    pub manifest_sha256: Option<String>,
    /// Row versions sealed.
    pub rows: i64,
    /// Frames sealed.
    pub frames: i64,
    /// Bytes stored.
    pub bytes: i64,
    /// When its view of the store was opened.
    pub begun_at: DateTime<Utc>,
    /// When its manifest was stored.
    pub committed_at: Option<DateTime<Utc>>,
    /// The id of the full snapshot with which its chain begins: its own for a full one.
    pub begins_with: String,
    /// The id of the snapshot that an increment continues.
    pub parent: Option<String>,
    /// Rows that the store held: what is restored of it.
    pub living: i64,
    /// Why it is a full one although an increment was asked for, as a code.
    pub why_full: Option<String>,
}

const COLUMNS: &str = "SELECT number, id, store, chain, kind, ledger_position, sequence, state, manifest, manifest_sha256, \
     rows, frames, bytes, begun_at, committed_at, begins_with, parent, living, why_full FROM snapshot";

impl Tx {
    /// The fencing token under which a lease is held now; `None` when nobody holds it.
    pub async fn held_token(&mut self, lease: &str) -> Result<Option<i64>> {
        let row = sqlx::query("SELECT token FROM lease WHERE name = $1 AND holder <> ''")
            .bind(lease)
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// Registers a new chain.
    pub async fn add_chain(&mut self, slot: u32, store: &str, now: DateTime<Utc>) -> Result<()> {
        sqlx::query("INSERT INTO chain (slot, store, state, created_at) VALUES ($1, $2, 'active', $3)")
            .bind(i64::from(slot))
            .bind(store)
            .bind(time_text(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Begins a snapshot as its row says, but for the number and the ledger position, which is the ledger's head of this moment:
    /// both are filled in.
    pub async fn begin_snapshot(&mut self, row: &mut SnapshotRow) -> Result<()> {
        row.ledger_position = self.ledger_head().await?;
        let stored = sqlx::query(
            "INSERT INTO snapshot (id, store, chain, kind, ledger_position, sequence, state, rows, frames, bytes, begun_at, \
             begins_with, parent, living, why_full) \
             VALUES ($1, $2, $3, $4, $5, $6, 'running', 0, 0, 0, $7, $8, $9, 0, $10) RETURNING number",
        )
        .bind(&row.id)
        .bind(&row.store)
        .bind(i64::from(row.chain))
        .bind(&row.kind)
        .bind(row.ledger_position)
        .bind(row.sequence)
        .bind(time_text(row.begun_at))
        .bind(&row.begins_with)
        .bind(&row.parent)
        .bind(&row.why_full)
        .fetch_one(&mut *self.inner)
        .await?;
        row.number = stored.try_get(0)?;
        Ok(())
    }

    /// The committed snapshots of the chain of a snapshot, oldest first, up to itself: the full one and its increments.
    pub async fn chain_of(&mut self, snapshot: &SnapshotRow) -> Result<Vec<SnapshotRow>> {
        let all = self.snapshots(Some(&snapshot.store)).await?;
        let earlier = all.into_iter().filter(|row| row.chain == snapshot.chain && row.number < snapshot.number);
        Ok(earlier.chain(std::iter::once(snapshot.clone())).collect())
    }

    /// Notes, before a manifest is stored, what the snapshot will be once it is. False when it is not running any more.
    pub async fn intend_manifest(&mut self, snapshot: &SnapshotRow) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE snapshot SET manifest = $2, manifest_sha256 = $3, rows = $4, frames = $5, bytes = $6, living = $7 \
             WHERE number = $1 AND state = 'running'",
        )
        .bind(snapshot.number)
        .bind(&snapshot.manifest)
        .bind(&snapshot.manifest_sha256)
        .bind(snapshot.rows)
        .bind(snapshot.frames)
        .bind(snapshot.bytes)
        .bind(snapshot.living)
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Commits a snapshot whose manifest is stored. False when it is not running any more, because it was cancelled, or when
    /// its place in the store's chain is taken: numbers of committed manifests are unique.
    pub async fn commit_snapshot(&mut self, number: i64, now: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE snapshot SET state = 'committed', committed_at = $2 WHERE number = $1 AND state = 'running' \
             AND NOT EXISTS (SELECT 1 FROM snapshot o WHERE o.store = snapshot.store AND o.sequence = snapshot.sequence \
             AND o.state = 'committed')",
        )
        .bind(number)
        .bind(time_text(now))
        .execute(&mut *self.inner)
        .await?;
        let is_done = done.rows_affected() == 1;
        if is_done {
            self.settle_changes(number).await?;
        }
        Ok(is_done)
    }

    /// Cancels a running snapshot. The chain of a full one dies with the next re-key, unless another try takes over what it stored before;
    /// that of an increment goes on without it.
    pub async fn cancel_snapshot(&mut self, number: i64) -> Result<()> {
        sqlx::query(
            "UPDATE chain SET state = 'dying' WHERE slot IN (SELECT chain FROM snapshot WHERE number = $1 AND state = 'running' AND kind = 'full')",
        )
        .bind(number)
        .execute(&mut *self.inner)
        .await?;
        let cancelled = sqlx::query("UPDATE snapshot SET state = 'cancelled' WHERE number = $1 AND state = 'running'")
            .bind(number)
            .execute(&mut *self.inner)
            .await?;
        if cancelled.rows_affected() > 0 {
            self.forget_changes(number).await?;
        }
        Ok(())
    }

    /// Cancels snapshots that a dead process left running before their manifest was about to be stored. The others are
    /// settled by who has the bucket.
    pub async fn cancel_running_snapshots(&mut self) -> Result<()> {
        for snapshot in self.snapshots_in("running", None).await? {
            if snapshot.manifest.is_none() {
                self.cancel_snapshot(snapshot.number).await?;
            }
        }
        Ok(())
    }

    /// Snapshots that are being taken, or whose end a crash left open.
    pub async fn running_snapshot_rows(&mut self) -> Result<Vec<SnapshotRow>> {
        self.snapshots_in("running", None).await
    }

    pub(super) async fn snapshots_in(&mut self, state: &str, store: Option<&str>) -> Result<Vec<SnapshotRow>> {
        let text = format!("{COLUMNS} WHERE state = $1 AND ($2 IS NULL OR store = $2) ORDER BY number");
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(state).bind(store);
        query.fetch_all(&mut *self.inner).await?.iter().map(snapshot_row).collect()
    }

    /// Committed snapshots, oldest first; of one store when given.
    pub async fn snapshots(&mut self, store: Option<&str>) -> Result<Vec<SnapshotRow>> {
        self.snapshots_in("committed", store).await
    }

    /// Digests, hex, of manifests that snapshots of a store announced which were cancelled then.
    pub async fn cancelled_manifests(&mut self, store: &str) -> Result<Vec<String>> {
        let sql = "SELECT manifest_sha256 FROM snapshot \
                   WHERE store = $1 AND state = 'cancelled' AND manifest_sha256 IS NOT NULL ORDER BY number";
        let rows = sqlx::query(sql).bind(store).fetch_all(&mut *self.inner).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The names of all manifests that were ever about to be stored.
    pub async fn manifest_names(&mut self) -> Result<HashSet<String>> {
        let rows =
            sqlx::query("SELECT manifest FROM snapshot WHERE manifest IS NOT NULL").fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// When the first try of each chain of a store began, of whatever became of it: packs of the chain lie in the bucket since then.
    pub async fn chain_starts(&mut self, store: &str) -> Result<HashMap<u32, DateTime<Utc>>> {
        let sql = "SELECT chain, MIN(begun_at) FROM snapshot WHERE store = $1 GROUP BY chain";
        let rows = sqlx::query(sql).bind(store).fetch_all(&mut *self.inner).await?;
        rows.iter()
            .map(|row| Ok((row.try_get::<i64, _>(0)? as u32, parse_time(&row.try_get::<String, _>(1)?)?)))
            .collect()
    }

    /// How many snapshots are running.
    pub async fn running_snapshots(&mut self) -> Result<i64> {
        let row =
            sqlx::query("SELECT COUNT(*) FROM snapshot WHERE state = 'running'").fetch_one(&mut *self.inner).await?;
        Ok(row.try_get(0)?)
    }

    /// The newest snapshot number given out.
    pub async fn snapshot_head(&mut self) -> Result<i64> {
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) FROM snapshot").fetch_one(&mut *self.inner).await?;
        Ok(row.try_get(0)?)
    }

    /// The state of a chain's key.
    pub async fn chain_state(&mut self, slot: u32) -> Result<Option<String>> {
        let row = sqlx::query("SELECT state FROM chain WHERE slot = $1")
            .bind(i64::from(slot))
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }
}

fn snapshot_row(row: &sqlx::any::AnyRow) -> Result<SnapshotRow> {
    Ok(SnapshotRow {
        number: row.try_get(0)?,
        id: row.try_get(1)?,
        store: row.try_get(2)?,
        chain: row.try_get::<i64, _>(3)? as u32,
        kind: row.try_get(4)?,
        ledger_position: row.try_get(5)?,
        sequence: row.try_get(6)?,
        state: row.try_get(7)?,
        manifest: row.try_get(8)?,
        manifest_sha256: row.try_get(9)?,
        rows: row.try_get(10)?,
        frames: row.try_get(11)?,
        bytes: row.try_get(12)?,
        begun_at: parse_time(&row.try_get::<String, _>(13)?)?,
        committed_at: optional_time(row.try_get(14)?)?,
        begins_with: row.try_get(15)?,
        parent: row.try_get(16)?,
        living: row.try_get(17)?,
        why_full: row.try_get(18)?,
    })
}
