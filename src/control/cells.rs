//! Subjects, buckets, cells, pins and the sealing history.

use std::collections::HashMap;

use sqlx::Row as _;

use super::{Result, Tx};

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
    /// The pin slot, once it is pinned.
    pub pin: Option<u32>,
}

/// Where the secret of a cell is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellSecretSource {
    /// In a pin slot.
    Pin(u32),
    /// In its subject's and bucket's keys.
    SubjectAndBucket,
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
    fn text(self) -> &'static str {
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
        self.subjects.is_empty() && self.buckets.is_empty() && self.chains.is_empty() && self.work.is_empty()
    }

    /// How many keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.subjects.len() + self.buckets.len() + self.chains.len() + self.work.len()
    }
}

impl Tx {
    /// The active subject slots of these lookup digests.
    pub async fn subject_slots(&mut self, lookups: &[[u8; 32]]) -> Result<HashMap<[u8; 32], u32>> {
        let mut found = HashMap::new();
        for lookup in lookups {
            let row = sqlx::query("SELECT slot FROM subject WHERE lookup = $1 AND state = 'active'")
                .bind(&lookup[..])
                .fetch_optional(&mut *self.inner)
                .await?;
            if let Some(row) = row {
                found.insert(*lookup, row.try_get::<i64, _>(0)? as u32);
            }
        }
        Ok(found)
    }

    /// Registers a new subject slot.
    pub async fn add_subject(&mut self, slot: u32, lookup: &[u8; 32]) -> Result<()> {
        sqlx::query("INSERT INTO subject (slot, lookup, state) VALUES ($1, $2, 'active')")
            .bind(i64::from(slot))
            .bind(&lookup[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The tombstone: forgets which slot a subject has and marks the slot for destruction. Returns the slot, if any.
    pub async fn tombstone_subject(&mut self, lookup: &[u8; 32], run: &str) -> Result<Option<u32>> {
        let row = sqlx::query("SELECT slot FROM subject WHERE lookup = $1")
            .bind(&lookup[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let slot: i64 = row.try_get(0)?;
        sqlx::query("UPDATE subject SET lookup = NULL, state = 'dying', run = $2 WHERE slot = $1")
            .bind(slot)
            .bind(run)
            .execute(&mut *self.inner)
            .await?;
        Ok(Some(slot as u32))
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

    /// All active buckets of a policy, with their slots.
    pub async fn active_buckets(&mut self, store: &str, policy: &str) -> Result<Vec<(u32, BucketName)>> {
        let rows = sqlx::query(
            "SELECT slot, collection, period FROM bucket WHERE store = $1 AND policy = $2 AND state = 'active'",
        )
        .bind(store)
        .bind(policy)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter()
            .map(|row| {
                let name = BucketName {
                    store: store.to_owned(),
                    collection: row.try_get(1)?,
                    policy: policy.to_owned(),
                    period: row.try_get(2)?,
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
        sqlx::query("UPDATE bucket SET state = 'dying', run = $2 WHERE slot = $1 AND state = 'active'")
            .bind(i64::from(slot))
            .bind(run)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The cell of a subject and a bucket (made when missing).
    pub async fn cell(&mut self, subject: Option<u32>, bucket: u32) -> Result<CellRow> {
        let subject_number = subject.map(i64::from);
        let row = sqlx::query(
            "SELECT id, pin FROM cell WHERE COALESCE(subject, -1) = COALESCE($1, -1) AND bucket = $2 ORDER BY id LIMIT 1",
        )
        .bind(subject_number)
        .bind(i64::from(bucket))
        .fetch_optional(&mut *self.inner)
        .await?;
        if let Some(row) = row {
            let pin = row.try_get::<Option<i64>, _>(1)?.map(|pin| pin as u32);
            return Ok(CellRow { id: row.try_get(0)?, subject, bucket, pin });
        }
        self.add_cell(subject, bucket, None).await
    }

    /// Makes a cell.
    pub async fn add_cell(&mut self, subject: Option<u32>, bucket: u32, pin: Option<u32>) -> Result<CellRow> {
        let row =
            sqlx::query("INSERT INTO cell (subject, bucket, pin, state) VALUES ($1, $2, $3, 'live') RETURNING id")
                .bind(subject.map(i64::from))
                .bind(i64::from(bucket))
                .bind(pin.map(i64::from))
                .fetch_one(&mut *self.inner)
                .await?;
        Ok(CellRow { id: row.try_get(0)?, subject, bucket, pin })
    }

    /// A cell by its id.
    pub async fn cell_by_id(&mut self, id: i64) -> Result<Option<CellRow>> {
        let row = sqlx::query("SELECT id, subject, bucket, pin FROM cell WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *self.inner)
            .await?;
        row.as_ref().map(cell_row).transpose()
    }

    /// All cells that are not dead, for a reader of backups.
    pub async fn living_cells(&mut self) -> Result<Vec<CellRow>> {
        let rows = sqlx::query("SELECT id, subject, bucket, pin FROM cell WHERE state = 'live'")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.iter().map(cell_row).collect()
    }

    /// The living cells under a subject slot or a bucket slot.
    pub async fn cells_under(&mut self, subject: Option<u32>, bucket: Option<u32>) -> Result<Vec<CellRow>> {
        let rows = sqlx::query(
            "SELECT id, subject, bucket, pin FROM cell WHERE state = 'live' AND (subject = $1 OR bucket = $2)",
        )
        .bind(subject.map(i64::from))
        .bind(bucket.map(i64::from))
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(cell_row).collect()
    }

    /// Registers a pin on a cell.
    pub async fn add_pin(&mut self, pin: &PinRow, lookup: &[u8], bucket: &BucketName) -> Result<()> {
        sqlx::query(
            "INSERT INTO pin (slot, cell, lookup, bucket_name, kind, reason, state, run, rows) \
             VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8)",
        )
        .bind(i64::from(pin.slot))
        .bind(pin.cell)
        .bind(lookup)
        .bind(bucket.text())
        .bind(pin.kind.text())
        .bind(&pin.reason)
        .bind(&pin.run)
        .bind(pin.rows as i64)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Which pinned cell new versions of these rows belong to: (subject lookup, bucket) to cell.
    pub async fn pinned_cells(&mut self) -> Result<HashMap<(Vec<u8>, String), i64>> {
        let rows = sqlx::query("SELECT lookup, bucket_name, cell FROM pin WHERE state = 'active' ORDER BY slot")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
    }

    /// Active pins.
    pub async fn pins(&mut self) -> Result<Vec<PinRow>> {
        let rows = sqlx::query("SELECT slot, cell, kind, reason, rows, run FROM pin WHERE state = 'active'")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                let kind: String = row.try_get(2)?;
                Ok(PinRow {
                    slot: row.try_get::<i64, _>(0)? as u32,
                    cell: row.try_get(1)?,
                    kind: if kind == "fresh" { PinKind::Fresh } else { PinKind::Preserving },
                    reason: row.try_get(3)?,
                    rows: row.try_get::<i64, _>(4)? as u64,
                    run: row.try_get(5)?,
                })
            })
            .collect()
    }

    /// Records, in the generation change itself, that a preserving pin now holds its cell's secret.
    pub async fn set_cell_pin(&mut self, cell: i64, pin: u32) -> Result<()> {
        sqlx::query("UPDATE cell SET pin = $2 WHERE id = $1")
            .bind(cell)
            .bind(i64::from(pin))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Adds rows to the sealing history.
    pub async fn note_sealed_rows(&mut self, snapshot: i64, rows: &[([u8; 16], i64)]) -> Result<()> {
        for (mac, cell) in rows {
            sqlx::query(
                "INSERT INTO sealed_row (row_mac, cell, first_snapshot, last_snapshot) VALUES ($1, $2, $3, $3) \
                 ON CONFLICT (row_mac, cell) DO UPDATE SET last_snapshot = excluded.last_snapshot",
            )
            .bind(&mac[..])
            .bind(cell)
            .bind(snapshot)
            .execute(&mut *self.inner)
            .await?;
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

    /// Whether any row that was ever sealed in a cell was erased or stripped since: such a cell must not be preserved.
    pub async fn cell_lost_rows(&mut self, cell: i64) -> Result<bool> {
        let row = sqlx::query(
            "SELECT 1 FROM sealed_row s JOIN ledger l ON l.row_mac = s.row_mac WHERE s.cell = $1 AND l.state = 'done' LIMIT 1",
        )
        .bind(cell)
        .fetch_optional(&mut *self.inner)
        .await?;
        Ok(row.is_some())
    }

    /// Keys marked for destruction, of runs in this list (work leaves of any run).
    pub async fn dying_keys(&mut self, runs: &[String]) -> Result<DyingKeys> {
        let mut dying = DyingKeys::default();
        for run in runs {
            for (table, list) in [
                ("SELECT slot FROM subject WHERE state = 'dying' AND run = $1", &mut dying.subjects),
                ("SELECT slot FROM bucket WHERE state = 'dying' AND run = $1", &mut dying.buckets),
            ] {
                let rows = sqlx::query(table).bind(run).fetch_all(&mut *self.inner).await?;
                for row in rows {
                    list.push(row.try_get::<i64, _>(0)? as u32);
                }
            }
        }
        let rows = sqlx::query("SELECT slot FROM chain WHERE state = 'dying'").fetch_all(&mut *self.inner).await?;
        for row in rows {
            dying.chains.push(row.try_get::<i64, _>(0)? as u32);
        }
        let rows = sqlx::query("SELECT slot FROM work WHERE state = 'dying'").fetch_all(&mut *self.inner).await?;
        for row in rows {
            dying.work.push(row.try_get::<i64, _>(0)? as u32);
        }
        Ok(dying)
    }

    /// Marks keys destroyed and their unpinned cells dead, and forgets the sealing history of dead cells.
    pub async fn bury(&mut self, dying: &DyingKeys) -> Result<()> {
        for (slots, update) in [
            (&dying.subjects, "UPDATE subject SET state = 'destroyed', lookup = NULL WHERE slot = $1"),
            (&dying.buckets, "UPDATE bucket SET state = 'destroyed' WHERE slot = $1"),
            (&dying.chains, "UPDATE chain SET state = 'destroyed' WHERE slot = $1"),
            (&dying.work, "UPDATE work SET state = 'destroyed' WHERE slot = $1"),
            (&dying.subjects, "UPDATE cell SET state = 'dead' WHERE subject = $1 AND pin IS NULL"),
            (&dying.buckets, "UPDATE cell SET state = 'dead' WHERE bucket = $1 AND pin IS NULL"),
        ] {
            for slot in slots {
                sqlx::query(update).bind(i64::from(*slot)).execute(&mut *self.inner).await?;
            }
        }
        sqlx::query("DELETE FROM sealed_row WHERE cell IN (SELECT id FROM cell WHERE state = 'dead')")
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// How many slots are in each state, per table.
    pub async fn key_counts(&mut self) -> Result<Vec<(String, String, i64)>> {
        let rows = sqlx::query(
            "SELECT 'subjects', state, COUNT(*) FROM subject GROUP BY state UNION ALL \
             SELECT 'buckets', state, COUNT(*) FROM bucket GROUP BY state UNION ALL \
             SELECT 'chains', state, COUNT(*) FROM chain GROUP BY state UNION ALL \
             SELECT 'pins', state, COUNT(*) FROM pin GROUP BY state UNION ALL \
             SELECT 'work', state, COUNT(*) FROM work GROUP BY state ORDER BY 1, 2",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
    }
}

fn cell_row(row: &sqlx::sqlite::SqliteRow) -> Result<CellRow> {
    Ok(CellRow {
        id: row.try_get(0)?,
        subject: row.try_get::<Option<i64>, _>(1)?.map(|slot| slot as u32),
        bucket: row.try_get::<i64, _>(2)? as u32,
        pin: row.try_get::<Option<i64>, _>(3)?.map(|slot| slot as u32),
    })
}
