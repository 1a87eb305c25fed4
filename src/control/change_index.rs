//! The change index: for each living row of a store's newest snapshot, the cell it lies in and a keyed digest of its content. The
//! next increment compares with it.
//!
//! A digest is made under a subkey of the cell's secret and of the chain's key, so an entry, and any old copy of it, is noise once
//! either is gone; the shred deletes it all the same. Entries are found by cell and row: rows are read in the order of their owners, and so of
//! their cells, and neighbours lie on one page. A row that lay in another cell before is found there through the sealing history. A snapshot enters what it seals beside what was there; its commit, in the same transaction, lets
//! that count. The index is left out of the image: whoever recovered a site begins with a full snapshot.

use std::collections::HashMap;

use sqlx::Row as _;

use super::built::Built;
use super::{ControlError, ROWS_PER_STATEMENT, Result, Tx};

/// Entries read at once when all are looked through.
const PAGE: i64 = 10_000;

/// A row as an earlier snapshot of the chain sealed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedRow {
    /// The entry's id: rising, never used again.
    pub id: i64,
    /// The cell.
    pub cell: i64,
    /// The digest of its content.
    pub content: [u8; 16],
}

/// An entry to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The row's digest.
    pub row_mac: [u8; 16],
    /// The cell.
    pub cell: i64,
    /// The digest of its content, and the chunk in which it is sealed now; `None` when the row lies in this cell no more.
    pub sealed: Option<([u8; 16], i64)>,
}

/// A row in the cell to which it belongs: (row digest, cell).
pub type RowInCell = ([u8; 16], i64);

/// Which entries are looked for.
#[derive(Clone, Copy)]
pub(super) enum Of<'s> {
    /// Those that count: of a store's committed snapshots.
    Store(&'s str),
    /// Those that a snapshot which is not committed has sealed, or was about to.
    Snapshot(i64),
}

/// An entry that was found.
pub(super) struct Entry {
    pub id: i64,
    pub cell: i64,
    pub content: [u8; 16],
    pub chunk: i64,
}

/// What a snapshot was taken with: whether another one can continue it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeBase {
    /// The snapshot.
    pub snapshot: i64,
    /// Digest of the captured tables, hex.
    pub schema: String,
    /// Digest of everything else that decides where rows are sealed, hex.
    pub layout: String,
}

/// Where entries of rows are looked for.
#[derive(Clone, Copy)]
enum Where {
    /// In the cells that are given.
    InCell,
    /// In all in which they were ever sealed.
    EverSealed,
}

/// Those of other snapshots of the store of snapshot `$1`.
const OTHERS: &str = "snapshot <> $1 AND snapshot IN (SELECT o.number FROM snapshot o JOIN snapshot n ON n.store = o.store \
     WHERE n.number = $1)";
/// Entries that count: those of a store's committed snapshots.
const OF_STORE: &str = "snapshot IN (SELECT number FROM snapshot WHERE store = $1 AND state = 'committed')";

impl Tx {
    /// Begins the entries of a snapshot.
    pub async fn begin_change_base(&mut self, store: &str, base: &ChangeBase) -> Result<()> {
        sqlx::query(
            "INSERT INTO change_base (snapshot, store, schema_digest, layout_digest, state) VALUES ($1, $2, $3, $4, 'growing')",
        )
        .bind(base.snapshot)
        .bind(store)
        .bind(&base.schema)
        .bind(&base.layout)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// What the index of a store belongs to; `None` when there is none.
    pub async fn change_base(&mut self, store: &str) -> Result<Option<ChangeBase>> {
        let row = sqlx::query(
            "SELECT snapshot, schema_digest, layout_digest FROM change_base WHERE store = $1 AND state = 'whole' \
             ORDER BY snapshot DESC LIMIT 1",
        )
        .bind(store)
        .fetch_optional(&mut *self.inner)
        .await?;
        row.map(|row| Ok(ChangeBase { snapshot: row.try_get(0)?, schema: row.try_get(1)?, layout: row.try_get(2)? }))
            .transpose()
    }

    /// What is known of these rows, each in the cell to which it belongs now, or in another one.
    pub async fn indexed_rows(&mut self, store: &str, rows: &[RowInCell]) -> Result<HashMap<[u8; 16], IndexedRow>> {
        let found = self.entries_of_rows(Of::Store(store), rows).await?;
        let row = |entry: Entry| IndexedRow { id: entry.id, cell: entry.cell, content: entry.content };
        Ok(found.into_iter().map(|(mac, entry)| (mac, row(entry))).collect())
    }

    /// Entries of rows: in their cells, and of those that are not there, in the cells in which they were ever sealed.
    pub(super) async fn entries_of_rows(&mut self, of: Of<'_>, rows: &[RowInCell]) -> Result<HashMap<[u8; 16], Entry>> {
        let mut found = HashMap::with_capacity(rows.len());
        for part in rows.chunks(ROWS_PER_STATEMENT) {
            self.find_entries(of, part, Where::InCell, &mut found).await?;
        }
        let elsewhere: Vec<RowInCell> = rows.iter().filter(|(mac, _)| !found.contains_key(mac)).copied().collect();
        for part in elsewhere.chunks(ROWS_PER_STATEMENT) {
            self.find_entries(of, part, Where::EverSealed, &mut found).await?;
        }
        Ok(found)
    }

    async fn find_entries(
        &mut self,
        of: Of<'_>,
        rows: &[RowInCell],
        place: Where,
        found: &mut HashMap<[u8; 16], Entry>,
    ) -> Result<()> {
        let text = "SELECT i.row_mac, i.id, i.cell, i.content, i.chunk FROM (VALUES ";
        let mut query = Built::new(self.engine, text);
        query.list(rows, |query, (mac, cell)| {
            query.push("(").bind(&mac[..])?;
            match place {
                Where::InCell => query.push(", ").bind(*cell)?.push(")"),
                Where::EverSealed => query.push(")"),
            };
            Ok(())
        })?;
        query.push(match place {
            // SQLite looks in the order of a cross join, whatever it takes tables to be like.
            Where::InCell => ") AS w CROSS JOIN change_index i WHERE i.cell = w.column2 AND i.row_mac = w.column1",
            Where::EverSealed => {
                ") AS w CROSS JOIN sealed_row s CROSS JOIN change_index i \
                 WHERE s.row_mac = w.column1 AND i.cell = s.cell AND i.row_mac = s.row_mac"
            }
        });
        match of {
            Of::Store(store) => {
                let text = " AND i.snapshot IN (SELECT number FROM snapshot WHERE state = 'committed' AND store = ";
                query.push(text).bind(store)?.push(")")
            }
            Of::Snapshot(number) => {
                query.push(" AND i.content IS NOT NULL AND i.chunk IS NOT NULL AND i.snapshot = ").bind(number)?
            }
        };
        let query = query.done_kept(rows.len() == ROWS_PER_STATEMENT);
        for row in query.fetch_all(&mut *self.inner).await? {
            let content = digest(row.try_get::<Option<Vec<u8>>, _>(3)?.unwrap_or_default())?;
            let chunk = row.try_get::<Option<i64>, _>(4)?.unwrap_or_default();
            let entry = Entry { id: row.try_get(1)?, cell: row.try_get(2)?, content, chunk };
            found.insert(digest(row.try_get(0)?)?, entry);
        }
        Ok(())
    }

    /// How many rows of a store are known.
    pub async fn count_indexed(&mut self, store: &str) -> Result<u64> {
        let text = format!("SELECT COUNT(*) FROM change_index WHERE {OF_STORE}");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(store).fetch_one(&mut *self.inner).await?;
        Ok(row.try_get::<i64, _>(0)? as u64)
    }

    /// The next entries of a store behind an id, as (id, row digest, cell), in the order of their ids; none at the end.
    pub async fn indexed_after(&mut self, store: &str, after: i64) -> Result<Vec<(i64, [u8; 16], i64)>> {
        let text =
            format!("SELECT id, row_mac, cell FROM change_index WHERE {OF_STORE} AND id > $2 ORDER BY id LIMIT {PAGE}");
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(store).bind(after);
        let rows = query.fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, digest(row.try_get(1)?)?, row.try_get(2)?))).collect()
    }

    /// Enters what a running snapshot seals. It counts from the snapshot's commit on.
    pub async fn enter_changes(&mut self, snapshot: i64, entries: &[IndexEntry]) -> Result<()> {
        // In the order of the index, so that neighbours find its pages in memory.
        let mut entries = entries.to_vec();
        entries.sort_unstable_by_key(|entry| (entry.cell, entry.row_mac));
        for part in entries.chunks(ROWS_PER_STATEMENT) {
            let mut query = Built::insert(self.engine);
            query.push("change_index (row_mac, snapshot, cell, content, chunk) VALUES ");
            query.list(part, |query, entry| {
                let (content, chunk) = entry.sealed.map(|(content, chunk)| (content.to_vec(), chunk)).unzip();
                query.push("(").bind(&entry.row_mac[..])?.push(", ").number(snapshot).push(", ").bind(entry.cell)?;
                query.push(", ").bind(content)?.push(", ").bind(chunk)?.push(")");
                Ok(())
            })?;
            query.done_kept(part.len() == ROWS_PER_STATEMENT).execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    /// Lets the entries of a snapshot count that has just been committed: they replace what a full one found, and the entries of
    /// their rows in the same cells when it is an increment. Does nothing in a database that did not see the snapshot being taken.
    pub(super) async fn settle_changes(&mut self, snapshot: i64) -> Result<()> {
        let grown = sqlx::query("UPDATE change_base SET state = 'whole' WHERE snapshot = $1")
            .bind(snapshot)
            .execute(&mut *self.inner);
        if grown.await?.rows_affected() == 0 {
            return Ok(());
        }
        let is_full = "EXISTS (SELECT 1 FROM snapshot WHERE number = $1 AND kind = 'full')";
        let replaced = format!(
            "DELETE FROM change_index WHERE {OTHERS} AND ({is_full} OR (cell, row_mac) IN (SELECT cell, row_mac FROM change_index WHERE snapshot = $1))"
        );
        let others = format!("DELETE FROM change_base WHERE {OTHERS}");
        // Nobody takes over what this snapshot, or a try before it, has stored.
        let stored = "DELETE FROM snapshot_pack WHERE snapshot IN (SELECT o.number FROM snapshot o JOIN snapshot n ON n.store = o.store \
                      WHERE n.number = $1)";
        let tries = format!(
            "DELETE FROM change_index WHERE {OTHERS} AND snapshot IN (SELECT number FROM snapshot WHERE state = 'cancelled')"
        );
        let removed = "DELETE FROM change_index WHERE snapshot = $1 AND content IS NULL";
        for text in [&tries, &replaced, removed, &others, stored] {
            sqlx::query(sqlx::AssertSqlSafe(text.to_owned())).bind(snapshot).execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    /// Forgets the entries of a snapshot that was cancelled, unless another try may take over packs of it.
    pub(super) async fn forget_changes(&mut self, snapshot: i64) -> Result<()> {
        if !self.stored_packs(snapshot).await?.is_empty() {
            return Ok(());
        }
        for text in ["DELETE FROM change_index WHERE snapshot = $1", "DELETE FROM change_base WHERE snapshot = $1"] {
            sqlx::query(text).bind(snapshot).execute(&mut *self.inner).await?;
        }
        Ok(())
    }
}

pub(super) fn digest(bytes: Vec<u8>) -> Result<[u8; 16]> {
    let damaged = |_| ControlError::Inconsistent("a digest of the change index has a wrong length".to_owned());
    bytes.try_into().map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;

    /// Enters one snapshot of the store `s` and commits it; a full one replaces what was there.
    async fn snapshot(control: &crate::control::Control, number: i64, kind: &str, entries: &[IndexEntry]) {
        let sql = format!(
            "INSERT INTO snapshot (number, id, store, chain, kind, ledger_position, sequence, state, rows, frames, bytes, begun_at, begins_with, \
             living) VALUES ({number}, 'i{number}', 's', 1, '{kind}', 0, {number}, 'committed', 0, 0, 0, 'now', 'i1', 0)"
        );
        testing::run(control, &sql).await;
        let mut tx = control.begin().await.unwrap();
        let base = ChangeBase { snapshot: number, schema: String::new(), layout: String::new() };
        tx.begin_change_base("s", &base).await.unwrap();
        let sealed = entries.iter().filter(|entry| entry.sealed.is_some());
        let history: Vec<_> = sealed.map(|entry| (entry.row_mac, entry.cell)).collect();
        tx.note_sealed_rows(number, &history).await.unwrap();
        tx.enter_changes(number, entries).await.unwrap();
        tx.settle_changes(number).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_row_is_found_in_its_cell_or_in_the_one_where_it_lay_before() {
        let folder = tempfile::tempdir().unwrap();
        let control = testing::create(&folder.path().join("a.db"), [7; 16]).await;
        let sealed = |row: u8, cell: i64| IndexEntry { row_mac: [row; 16], cell, sealed: Some(([row; 16], 0)) };
        snapshot(&control, 1, "full", &[sealed(1, 10), sealed(2, 10), sealed(3, 20)]).await;
        let mut tx = control.read().await.unwrap();
        let wanted = [([1; 16], 10), ([2; 16], 20), ([3; 16], 20), ([4; 16], 20)];
        let found = tx.indexed_rows("s", &wanted).await.unwrap();
        let cells: std::collections::BTreeMap<u8, i64> = found.iter().map(|(mac, row)| (mac[0], row.cell)).collect();
        assert_eq!(cells, [(1, 10), (2, 10), (3, 20)].into());
        assert!(tx.indexed_rows("other", &wanted).await.unwrap().is_empty());
        drop(tx);
        // The second row moves, the third one is gone, the first one stays unmentioned.
        let gone = |row: u8, cell: i64| IndexEntry { row_mac: [row; 16], cell, sealed: None };
        snapshot(&control, 2, "incremental", &[sealed(2, 20), gone(2, 10), gone(3, 20)]).await;
        let mut tx = control.read().await.unwrap();
        let found = tx.indexed_rows("s", &[([1; 16], 20), ([2; 16], 10), ([3; 16], 20)]).await.unwrap();
        let cells: std::collections::BTreeMap<u8, i64> = found.iter().map(|(mac, row)| (mac[0], row.cell)).collect();
        assert_eq!(cells, [(1, 10), (2, 20)].into());
        assert_eq!(tx.count_indexed("s").await.unwrap(), 2);
    }
}
