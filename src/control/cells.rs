//! Subjects, buckets, cells, pins and the sealing history.

use std::collections::HashMap;

use sqlx::Row as _;

use super::built::Built;
use super::{ControlError, ROWS_PER_STATEMENT, Result, Tx};

/// The identity of a bucket, independent of the slot (instance) that holds its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// The policy's id, or `-`.
    pub policy: String,
    /// The period of the start event (`2023Q2`), or `open`.
    pub period: String,
}

impl BucketName {
    /// One text for the pin table; none of the parts may hold a unit separator.
    #[must_use]
    pub fn text(&self) -> String {
        [self.store.as_str(), &self.collection, &self.policy, &self.period].join("\u{1f}")
    }

    /// Reads what [`Self::text`] wrote.
    pub(super) fn of_text(text: &str) -> Result<Self> {
        let mut parts = text.split('\u{1f}').map(str::to_owned);
        let mut next = || parts.next().ok_or_else(|| ControlError::Inconsistent("a pin names no bucket".to_owned()));
        Ok(Self { store: next()?, collection: next()?, policy: next()?, period: next()? })
    }
}

/// A cell as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellRow {
    /// Its id in the control database.
    pub id: i64,
    /// The subject slot, when its rows have a subject.
    pub subject: Option<u32>,
    /// The bucket slot.
    pub bucket: u32,
    /// The slot of the fresh pin for which it was made; `None` for the cell of its subject and bucket.
    pub fresh: Option<u32>,
    /// The pin slot that holds its secret, once one does.
    pub pin: Option<u32>,
}

/// How a pin keeps rows alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinKind {
    /// It copies the cell's secret: old frames stay readable.
    Preserving,
    /// It is a new key for the new version of rows; the old cell dies.
    Fresh,
}

impl PinKind {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Preserving => "preserving",
            Self::Fresh => "fresh",
        }
    }
}

/// A pin as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRow {
    /// Its slot.
    pub slot: u32,
    /// The cell it holds.
    pub cell: i64,
    /// The digest of the subject whose rows it holds; empty without one.
    pub lookup: Vec<u8>,
    /// The bucket of those rows.
    pub bucket: BucketName,
    /// How.
    pub kind: PinKind,
    /// Why (a statute, a hold, a kept child, a failure).
    pub reason: String,
    /// The living rows it must cover, as counted by the run.
    pub rows: u64,
    /// The run that made it.
    pub run: String,
}

/// Keys whose time has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DyingKeys {
    /// Pin slots.
    pub pins: Vec<u32>,
    /// Subject slots.
    pub subjects: Vec<u32>,
    /// Bucket slots.
    pub buckets: Vec<u32>,
    /// Chain slots.
    pub chains: Vec<u32>,
    /// Work slots.
    pub work: Vec<u32>,
}

impl DyingKeys {
    /// Whether there is nothing to destroy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_cells() && self.chains.is_empty() && self.work.is_empty()
    }

    /// Whether a key of any cell is among them.
    #[must_use]
    pub fn has_cells(&self) -> bool {
        !(self.subjects.is_empty() && self.buckets.is_empty() && self.pins.is_empty())
    }

    /// Whether a cell loses a factor of its own: a pinned one only its pin, another its subject's or bucket's key.
    #[must_use]
    pub fn takes(&self, subject: Option<u32>, bucket: u32, pin: Option<u32>) -> bool {
        match pin {
            Some(pin) => self.pins.contains(&pin),
            None => subject.is_some_and(|slot| self.subjects.contains(&slot)) || self.buckets.contains(&bucket),
        }
    }

    /// These and others.
    #[must_use]
    pub fn joined(&self, others: &Self) -> Self {
        let join = |one: &[u32], other: &[u32]| [one, other].concat();
        Self {
            pins: join(&self.pins, &others.pins),
            subjects: join(&self.subjects, &others.subjects),
            buckets: join(&self.buckets, &others.buckets),
            chains: join(&self.chains, &others.chains),
            work: join(&self.work, &others.work),
        }
    }

    /// How many keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.subjects.len() + self.buckets.len() + self.pins.len() + self.chains.len() + self.work.len()
    }
}

/// The slots of a lookup digest, which a destroyed one has no more. In two parts, as its two indexes are.
const SLOTS_OF_LOOKUP: &str = "SELECT slot FROM subject WHERE lookup = $1 AND state = 'active' \
     UNION ALL SELECT slot FROM subject WHERE lookup = $1 AND state <> 'active'";

const DYING_SUBJECTS: &str = "SELECT slot FROM subject WHERE state = 'dying' AND run = $1";

impl Tx {
    /// The active subject slots of these lookup digests.
    pub async fn subject_slots(&mut self, lookups: &[[u8; 32]]) -> Result<HashMap<[u8; 32], u32>> {
        let damaged = |_| ControlError::Inconsistent("a lookup digest has a wrong length".to_owned());
        let mut found = HashMap::new();
        for part in lookups.chunks(ROWS_PER_STATEMENT) {
            let mut query =
                Built::new(self.engine, "SELECT lookup, slot FROM subject WHERE state = 'active' AND lookup IN (");
            query.list(part, |query, lookup| query.bind(&lookup[..]).map(|_| ()))?.push(")");
            let query = query.done_kept(part.len() == ROWS_PER_STATEMENT);
            for row in query.fetch_all(&mut *self.inner).await? {
                let lookup = row.try_get::<Vec<u8>, _>(0)?.try_into().map_err(damaged)?;
                found.insert(lookup, row.try_get::<i64, _>(1)? as u32);
            }
        }
        Ok(found)
    }

    /// Registers new subject slots with their lookup digests.
    pub async fn add_subjects(&mut self, subjects: &[(u32, [u8; 32])]) -> Result<()> {
        for part in subjects.chunks(ROWS_PER_STATEMENT) {
            let mut query = Built::new(self.engine, "INSERT INTO subject (slot, lookup, state) VALUES ");
            query.list(part, |query, (slot, lookup)| {
                query.push("(").bind(i64::from(*slot))?.push(", ").bind(&lookup[..])?.push(", 'active')");
                Ok(())
            })?;
            query.done_kept(part.len() == ROWS_PER_STATEMENT).execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    /// The tombstone: marks a subject's slots for destruction; later snapshots know the subject as a stranger. Returns the
    /// slots: the active one, and any that an undo retained.
    pub async fn tombstone_subject(&mut self, lookup: &[u8; 32], run: &str) -> Result<Vec<u32>> {
        let text = format!(
            "UPDATE subject SET state = 'dying', run = $2 WHERE slot IN ({SLOTS_OF_LOOKUP}) AND state IN ('active', 'retained') \
             RETURNING slot"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(&lookup[..]).bind(run);
        let rows = query.fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }

    /// All slots of a subject whose keys still exist: the active one and those that are to die.
    pub async fn known_subject_slots(&mut self, lookup: &[u8; 32]) -> Result<Vec<u32>> {
        let rows = sqlx::query(SLOTS_OF_LOOKUP).bind(&lookup[..]).fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }

    /// The active slot of a bucket.
    pub async fn bucket_slot(&mut self, name: &BucketName) -> Result<Option<u32>> {
        let row = sqlx::query(
            "SELECT slot FROM bucket WHERE store = $1 AND collection = $2 AND policy = $3 AND period = $4 AND state = 'active'",
        )
        .bind(&name.store)
        .bind(&name.collection)
        .bind(&name.policy)
        .bind(&name.period)
        .fetch_optional(&mut *self.inner)
        .await?;
        row.map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).transpose()
    }

    /// Registers a new bucket slot.
    pub async fn add_bucket(&mut self, slot: u32, name: &BucketName) -> Result<()> {
        sqlx::query(
            "INSERT INTO bucket (slot, store, collection, policy, period, state) VALUES ($1, $2, $3, $4, $5, 'active')",
        )
        .bind(i64::from(slot))
        .bind(&name.store)
        .bind(&name.collection)
        .bind(&name.policy)
        .bind(&name.period)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// All buckets whose keys are not to die yet, with their slots: active ones, and those that an undo retained.
    pub async fn living_buckets(&mut self) -> Result<Vec<(u32, BucketName)>> {
        let rows = sqlx::query(
            "SELECT slot, store, collection, policy, period FROM bucket WHERE state IN ('active', 'retained') ORDER BY slot",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter()
            .map(|row| {
                let name = BucketName {
                    store: row.try_get(1)?,
                    collection: row.try_get(2)?,
                    policy: row.try_get(3)?,
                    period: row.try_get(4)?,
                };
                Ok((row.try_get::<i64, _>(0)? as u32, name))
            })
            .collect()
    }

    /// What a bucket slot stands for.
    pub async fn bucket_name(&mut self, slot: u32) -> Result<Option<(BucketName, String)>> {
        let row = sqlx::query("SELECT store, collection, policy, period, state FROM bucket WHERE slot = $1")
            .bind(i64::from(slot))
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| {
            let name = BucketName {
                store: row.try_get(0)?,
                collection: row.try_get(1)?,
                policy: row.try_get(2)?,
                period: row.try_get(3)?,
            };
            Ok((name, row.try_get(4)?))
        })
        .transpose()
    }

    /// Marks a bucket for destruction: its living rows go to a new instance from the next snapshot on.
    pub async fn mark_bucket_dying(&mut self, slot: u32, run: &str) -> Result<()> {
        sqlx::query("UPDATE bucket SET state = 'dying', run = $2 WHERE slot = $1 AND state IN ('active', 'retained')")
            .bind(i64::from(slot))
            .bind(run)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The living cell of a subject and a bucket; never one that was made for a fresh pin.
    pub async fn find_cell(&mut self, subject: Option<u32>, bucket: u32) -> Result<Option<CellRow>> {
        let row = sqlx::query(
            "SELECT id, subject, bucket, pin, fresh FROM cell WHERE COALESCE(subject, -1) = COALESCE($1, -1) AND bucket = $2 \
             AND fresh IS NULL AND state = 'live'",
        )
        .bind(subject.map(i64::from))
        .bind(i64::from(bucket))
        .fetch_optional(&mut *self.inner)
        .await?;
        row.as_ref().map(cell_row).transpose()
    }

    /// The same, made when missing.
    pub async fn cell(&mut self, subject: Option<u32>, bucket: u32) -> Result<CellRow> {
        match self.find_cell(subject, bucket).await? {
            Some(cell) => Ok(cell),
            None => self.add_cell(subject, bucket, None).await,
        }
    }

    /// The living cells of these subjects and buckets, made where they are missing.
    pub async fn cells(&mut self, wanted: &[(Option<u32>, u32)]) -> Result<HashMap<(Option<u32>, u32), CellRow>> {
        let mut found = HashMap::new();
        let mut subjects: Vec<u32> = wanted.iter().filter_map(|(subject, _)| *subject).collect();
        subjects.sort_unstable();
        subjects.dedup();
        for part in subjects.chunks(ROWS_PER_STATEMENT) {
            let text = "SELECT id, subject, bucket, pin, fresh FROM cell WHERE fresh IS NULL AND state = 'live' AND subject IN (";
            let mut query = Built::new(self.engine, text);
            query.list(part, |query, subject| query.bind(i64::from(*subject)).map(|_| ()))?.push(")");
            for row in query.done_kept(part.len() == ROWS_PER_STATEMENT).fetch_all(&mut *self.inner).await? {
                let cell = cell_row(&row)?;
                found.insert((cell.subject, cell.bucket), cell);
            }
        }
        let mut missing = Vec::new();
        for (subject, bucket) in wanted.iter().filter(|name| !found.contains_key(*name)) {
            missing.extend(subject.map(|subject| (subject, *bucket)));
        }
        for part in missing.chunks(ROWS_PER_STATEMENT) {
            let mut query = Built::new(self.engine, "INSERT INTO cell (subject, bucket, state) VALUES ");
            query.list(part, |query, (subject, bucket)| {
                query.push("(").bind(i64::from(*subject))?.push(", ").bind(i64::from(*bucket))?.push(", 'live')");
                Ok(())
            })?;
            query.push(" RETURNING id, subject, bucket, pin, fresh");
            for row in query.done_kept(part.len() == ROWS_PER_STATEMENT).fetch_all(&mut *self.inner).await? {
                let cell = cell_row(&row)?;
                found.insert((cell.subject, cell.bucket), cell);
            }
        }
        for (subject, bucket) in wanted.iter().filter(|(subject, _)| subject.is_none()) {
            found.insert((*subject, *bucket), self.cell(*subject, *bucket).await?);
        }
        Ok(found)
    }

    /// Makes a cell: the one of a subject and a bucket, or one for a fresh pin.
    pub async fn add_cell(&mut self, subject: Option<u32>, bucket: u32, fresh: Option<u32>) -> Result<CellRow> {
        let row = sqlx::query(
            "INSERT INTO cell (subject, bucket, fresh, pin, state) VALUES ($1, $2, $3, $3, 'live') RETURNING id",
        )
        .bind(subject.map(i64::from))
        .bind(i64::from(bucket))
        .bind(fresh.map(i64::from))
        .fetch_one(&mut *self.inner)
        .await?;
        Ok(CellRow { id: row.try_get(0)?, subject, bucket, fresh, pin: fresh })
    }

    /// A cell by its id.
    pub async fn cell_by_id(&mut self, id: i64) -> Result<Option<CellRow>> {
        let row = sqlx::query("SELECT id, subject, bucket, pin, fresh FROM cell WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *self.inner)
            .await?;
        row.as_ref().map(cell_row).transpose()
    }

    /// A cell by its id, unless it is dead.
    pub async fn living_cell(&mut self, id: i64) -> Result<Option<CellRow>> {
        let row = sqlx::query("SELECT id, subject, bucket, pin, fresh FROM cell WHERE id = $1 AND state = 'live'")
            .bind(id)
            .fetch_optional(&mut *self.inner)
            .await?;
        row.as_ref().map(cell_row).transpose()
    }

    /// The living cells of a subject slot that no pin holds yet, oldest first.
    pub async fn cells_of_subject(&mut self, subject: u32) -> Result<Vec<CellRow>> {
        let rows = sqlx::query(
            "SELECT id, subject, bucket, pin, fresh FROM cell WHERE state = 'live' AND pin IS NULL AND subject = $1 ORDER BY id",
        )
        .bind(i64::from(subject))
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(cell_row).collect()
    }

    /// Adds rows to the sealing history.
    pub async fn note_sealed_rows(&mut self, snapshot: i64, rows: &[([u8; 16], i64)]) -> Result<()> {
        // In the order of the index of digests, so that neighbours find its pages in memory: cells of one time are neighbours in any order.
        // And none twice, which PostgreSQL refuses.
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows.dedup();
        for part in rows.chunks(ROWS_PER_STATEMENT) {
            let mut query = Built::insert(self.engine);
            query.push("sealed_row (row_mac, cell, first_snapshot, last_snapshot) VALUES ");
            query.list(part, |query, (mac, cell)| {
                query.push("(").bind(&mac[..])?.push(", ").bind(*cell)?.push(", ");
                query.number(snapshot).push(", ").number(snapshot).push(")");
                Ok(())
            })?;
            query.push(" ON CONFLICT (cell, row_mac) DO UPDATE SET last_snapshot = excluded.last_snapshot");
            query.done_kept(part.len() == ROWS_PER_STATEMENT).execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    /// The cells in which a row was ever sealed and which are not dead.
    pub async fn cells_of_row(&mut self, mac: &[u8; 16]) -> Result<Vec<i64>> {
        let rows = sqlx::query(
            "SELECT s.cell FROM sealed_row s JOIN cell c ON c.id = s.cell WHERE s.row_mac = $1 AND c.state = 'live'",
        )
        .bind(&mac[..])
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Whether any row version that was ever sealed in a cell was erased or stripped since: such a cell must not be
    /// preserved. Erasures before the first sealing were of earlier versions (a returning customer), and do not count.
    pub async fn cell_lost_rows(&mut self, cell: i64) -> Result<bool> {
        let row = sqlx::query(
            "SELECT 1 FROM sealed_row s JOIN snapshot n ON n.number = s.first_snapshot \
             JOIN ledger l ON l.row_mac = s.row_mac AND l.position > n.ledger_position \
             WHERE s.cell = $1 AND l.state = 'done' LIMIT 1",
        )
        .bind(cell)
        .fetch_optional(&mut *self.inner)
        .await?;
        Ok(row.is_some())
    }

    /// Keys of cells marked for destruction by runs in this list.
    pub async fn dying_cell_keys(&mut self, runs: &[String]) -> Result<DyingKeys> {
        let mut dying = DyingKeys::default();
        for run in runs {
            for (query, list) in [
                (DYING_SUBJECTS, &mut dying.subjects),
                ("SELECT slot FROM bucket WHERE state = 'dying' AND run = $1", &mut dying.buckets),
                ("SELECT slot FROM pin WHERE state = 'dying' AND dies_with = $1", &mut dying.pins),
            ] {
                for row in sqlx::query(query).bind(run).fetch_all(&mut *self.inner).await? {
                    list.push(row.try_get::<i64, _>(0)? as u32);
                }
            }
        }
        Ok(dying)
    }

    /// Keys marked for destruction: those of cells by runs in this list, chains and work leaves of any.
    pub async fn dying_keys(&mut self, runs: &[String]) -> Result<DyingKeys> {
        let mut dying = self.dying_cell_keys(runs).await?;
        for (query, list) in [
            ("SELECT slot FROM chain WHERE state = 'dying'", &mut dying.chains),
            ("SELECT slot FROM work WHERE state = 'dying'", &mut dying.work),
        ] {
            for row in sqlx::query(query).fetch_all(&mut *self.inner).await? {
                list.push(row.try_get::<i64, _>(0)? as u32);
            }
        }
        Ok(dying)
    }
}

pub(super) fn cell_row(row: &sqlx::any::AnyRow) -> Result<CellRow> {
    Ok(CellRow {
        id: row.try_get(0)?,
        subject: row.try_get::<Option<i64>, _>(1)?.map(|slot| slot as u32),
        bucket: row.try_get::<i64, _>(2)? as u32,
        pin: row.try_get::<Option<i64>, _>(3)?.map(|slot| slot as u32),
        fresh: row.try_get::<Option<i64>, _>(4)?.map(|slot| slot as u32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;

    #[tokio::test]
    async fn a_cell_is_its_owners_not_that_of_a_row_which_moved_on() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::create(&folder.path().join("a.db"), [7; 16]).await.unwrap();
        let (one, other) = ([1; 32], [2; 32]);
        // Slot 1 is the one's, slot 2 a dead one. Each has a cell that is pinned for the other, who owns a row of it by now.
        let sql = format!(
            "INSERT INTO subject VALUES (1, x'{0}', 'active', NULL, NULL), (2, NULL, 'destroyed', 'r', 1); \
             INSERT INTO cell VALUES (10, 1, 5, NULL, NULL, 'live'), (20, 2, 5, NULL, NULL, 'live'), (30, NULL, 5, 300, 300, 'live'); \
             INSERT INTO pin VALUES (1, 100, 10, x'{1}', 'b', 'preserving', '', 'active', 'r', 1, NULL, NULL), \
             (2, 200, 20, x'{1}', 'b', 'preserving', '', 'active', 'r', 1, NULL, NULL), \
             (3, 300, 30, x'{1}', 'b', 'fresh', '', 'active', 'r', 1, NULL, NULL)",
            hex::encode(one),
            hex::encode(other)
        );
        crate::control::testing::run(&control, &sql).await;
        let mut tx = control.read().await.unwrap();
        assert_eq!(tx.pinned_cells_of(&other).await.unwrap(), [((2, 5), false)], "slot 1 is known to be another's");
        assert_eq!(tx.fresh_pins_of(&other).await.unwrap(), [300]);
        assert!(tx.pinned_cells_of(&one).await.unwrap().is_empty() && tx.fresh_pins_of(&one).await.unwrap().is_empty());
        drop(tx);
        // Both have rows in the dead one's cell.
        let second = format!(
            "INSERT INTO pin VALUES (4, 400, 20, x'{}', 'b', 'preserving', '', 'active', 'r', 1, NULL, NULL)",
            hex::encode(one)
        );
        crate::control::testing::run(&control, &second).await;
        let mut tx = control.read().await.unwrap();
        for lookup in [one, other] {
            assert_eq!(tx.pinned_cells_of(&lookup).await.unwrap(), [((2, 5), true)], "it is told that it is shared");
        }
    }

    #[tokio::test]
    async fn nothing_asked_of_subjects_looks_at_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::create(&folder.path().join("a.db"), [7; 16]).await.unwrap();
        let tombstone = format!("UPDATE subject SET state = 'dying', run = $2 WHERE slot IN ({SLOTS_OF_LOOKUP})");
        for text in [SLOTS_OF_LOOKUP, DYING_SUBJECTS, &tombstone] {
            let query = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"))).bind(&[1_u8; 32][..]);
            let rows = query.bind("run").fetch_all(&control.database.pool).await.unwrap();
            let steps: Vec<String> = rows.iter().map(|row| row.try_get(3).unwrap()).collect();
            assert!(steps.iter().any(|step| step.starts_with("SEARCH subject")), "{steps:?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN subject")), "{text}: {steps:?}");
        }
    }
}
