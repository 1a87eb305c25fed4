//! The leaves of logs in a relational database: all SQL of the proof part.
//!
//! Several logs share the tables, told apart by the column `log`. The statements are portable (numbered parameters,
//! no upserts beyond `ON CONFLICT DO NOTHING`); the tables are made as `ddl.rs` has it. The operation log lies in the control
//! database, on whichever engine that is; the log of the embedded audit service in an SQLite file of its own.

use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

use super::built::Built;
use super::engine::{self, Database, Engine, Fault};
use super::{ControlError, ddl};
use crate::log::store::{LeafStore, LeafStoreError, NewLeaf, Result, StoredLeaf};
use crate::log::tree::{Hash, Node};

/// The tables, each statement repeatable. The triggers make stored leaves and heads unchangeable for whoever cannot
/// drop them; only content and salt can be set to NULL.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS log_leaf (
    log TEXT NOT NULL, idx BIGINT NOT NULL, id TEXT NOT NULL, hash BLOB NOT NULL, entry BLOB NOT NULL,
    salt BLOB, content BLOB, time_ms BIGINT NOT NULL,
    PRIMARY KEY (log, idx), UNIQUE (log, id), UNIQUE (log, hash)
);
CREATE TABLE IF NOT EXISTS log_node (
    log TEXT NOT NULL, level BIGINT NOT NULL, position BIGINT NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (log, level, position)
);
CREATE TABLE IF NOT EXISTS log_checkpoint (
    log TEXT NOT NULL, size BIGINT NOT NULL, note TEXT NOT NULL,
    PRIMARY KEY (log, size)
);
CREATE TRIGGER IF NOT EXISTS log_leaf_stays BEFORE DELETE ON log_leaf
    BEGIN SELECT RAISE(ABORT, 'a log entry is never deleted'); END;
CREATE TRIGGER IF NOT EXISTS log_leaf_fixed BEFORE UPDATE OF log, idx, id, hash, entry, time_ms ON log_leaf
    BEGIN SELECT RAISE(ABORT, 'a log entry is never changed'); END;
CREATE TRIGGER IF NOT EXISTS log_leaf_content BEFORE UPDATE OF salt, content ON log_leaf
    WHEN NEW.salt IS NOT NULL OR NEW.content IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'the content of a log entry can only be dropped'); END;
CREATE TRIGGER IF NOT EXISTS log_node_stays BEFORE DELETE ON log_node
    BEGIN SELECT RAISE(ABORT, 'a log node is never deleted'); END;
CREATE TRIGGER IF NOT EXISTS log_node_fixed BEFORE UPDATE ON log_node
    BEGIN SELECT RAISE(ABORT, 'a log node is never changed'); END;
CREATE TRIGGER IF NOT EXISTS log_checkpoint_stays BEFORE DELETE ON log_checkpoint
    BEGIN SELECT RAISE(ABORT, 'a checkpoint is never deleted'); END;
CREATE TRIGGER IF NOT EXISTS log_checkpoint_fixed BEFORE UPDATE ON log_checkpoint
    BEGIN SELECT RAISE(ABORT, 'a checkpoint is never changed'); END;
";

/// How long a statement waits for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Ids looked up per statement; below every engine's parameter limit.
const IDS_PER_QUERY: usize = 500;

/// One log in a database.
#[derive(Debug, Clone)]
pub struct SqlLogStore {
    database: Database,
    log: String,
}

impl SqlLogStore {
    /// Opens (or creates, with mode 0600) a database file of its own for the log.
    pub async fn open(path: &Path, log: &str) -> Result<Self> {
        let failed = |what: String| LeafStoreError::Failed { log: log.to_owned(), what };
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(format!("the database file cannot be opened: {}", error.kind())))?;
        let database = engine::open_sqlite(path, false, BUSY_TIMEOUT).await.map_err(|error| translate(log, &error))?;
        Self::within(database, log).await
    }

    /// A log inside a database that is open already (the control database). Creates the tables when they are missing.
    pub(super) async fn within(database: Database, log: &str) -> Result<Self> {
        let opened = Self { database, log: log.to_owned() };
        match opened.database.engine {
            Engine::Sqlite => {
                let made = sqlx::raw_sql(SCHEMA).execute(&opened.database.pool).await;
                made.map_err(|error| opened.error(&error))?;
            }
            Engine::Postgres => opened.make_tables().await.map_err(|error| opened.refused(&error))?,
        }
        Ok(opened)
    }

    /// On a server even `IF NOT EXISTS` takes locks, so it is looked first, and again under the lock of writers.
    async fn make_tables(&self) -> Result<(), ControlError> {
        let engine = self.database.engine;
        let mut looking = self.database.begin_read().await?;
        if engine::has_table(&mut looking, engine, "log_leaf").await? {
            return Ok(());
        }
        drop(looking);
        let mut transaction = self.database.begin_write().await?;
        if !engine::has_table(&mut transaction, engine, "log_leaf").await? {
            let statements = ddl::statements(SCHEMA);
            let made: Vec<String> = statements.iter().filter_map(|text| ddl::to_postgres(text)).flatten().collect();
            for statement in made {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.database.pool.close().await;
    }

    fn error(&self, error: &sqlx::Error) -> LeafStoreError {
        translate(&self.log, error)
    }

    /// What the control database refused, lost leases among it.
    fn refused(&self, error: &ControlError) -> LeafStoreError {
        match error {
            ControlError::Database(error) => translate(&self.log, error),
            error if error.is_retryable() => {
                LeafStoreError::Unavailable { log: self.log.clone(), what: error.to_string() }
            }
            error => LeafStoreError::Failed { log: self.log.clone(), what: error.to_string() },
        }
    }

    fn damaged(&self, what: &str) -> LeafStoreError {
        LeafStoreError::Damaged { log: self.log.clone(), what: what.to_owned() }
    }

    async fn insert(
        &self,
        transaction: &mut Transaction<'_, Any>,
        first: u64,
        leaves: &[NewLeaf],
        nodes: &[(Node, Hash)],
    ) -> Result<(), sqlx::Error> {
        for (offset, leaf) in (0u64..).zip(leaves) {
            sqlx::query(
                "INSERT INTO log_leaf (log, idx, id, hash, entry, salt, content, time_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(&self.log)
            .bind((first + offset) as i64)
            .bind(&leaf.id)
            .bind(leaf.hash().to_vec())
            .bind(&leaf.entry)
            .bind(&leaf.salt)
            .bind(&leaf.content)
            .bind(leaf.time_ms)
            .execute(&mut **transaction)
            .await?;
        }
        for (node, hash) in nodes {
            sqlx::query("INSERT INTO log_node (log, level, position, hash) VALUES ($1, $2, $3, $4)")
                .bind(&self.log)
                .bind(i64::from(node.level))
                .bind(node.position as i64)
                .bind(hash.to_vec())
                .execute(&mut **transaction)
                .await?;
        }
        Ok(())
    }

    fn leaf(&self, row: &AnyRow) -> Result<StoredLeaf> {
        let read = || -> Result<StoredLeaf, sqlx::Error> {
            let hash: Vec<u8> = row.try_get("hash")?;
            let hash = hash.try_into().map_err(|_| sqlx::Error::ColumnNotFound("hash".to_owned()))?;
            Ok(StoredLeaf {
                index: row.try_get::<i64, _>("idx")? as u64,
                id: row.try_get("id")?,
                hash,
                entry: bytes_at(row, "entry")?.unwrap_or_default(),
                salt: bytes_at(row, "salt")?,
                content: bytes_at(row, "content")?,
                time_ms: row.try_get("time_ms")?,
            })
        };
        read().map_err(|_| self.damaged("a leaf row has columns of a wrong type or length"))
    }
}

/// The bytes of a column. An SQLite file that was tampered with may hold text there, which is to be read and found wrong.
fn bytes_at(row: &AnyRow, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
    row.try_get(column).or_else(|error| {
        let text: Result<Option<String>, sqlx::Error> = row.try_get(column);
        text.map(|text| text.map(String::into_bytes)).map_err(|_| error)
    })
}

fn translate(log: &str, error: &sqlx::Error) -> LeafStoreError {
    let log = log.to_owned();
    let unavailable = |what: &str| LeafStoreError::Unavailable { log: log.clone(), what: what.to_owned() };
    match error {
        sqlx::Error::Database(database) if database.is_unique_violation() => LeafStoreError::Duplicate { log },
        // SQLITE_BUSY 5, SQLITE_LOCKED 6, SQLITE_FULL 13, SQLITE_IOERR 10: their extended codes end in these 8 bits.
        sqlx::Error::PoolTimedOut => unavailable("no connection became free"),
        sqlx::Error::PoolClosed => unavailable("the pool is closed"),
        _ => match engine::fault_of(error) {
            Fault::Busy => unavailable("it is locked by another writer"),
            Fault::DiskFull => unavailable("the disk is full"),
            Fault::Disk(_) => unavailable("input/output error: is the disk full, over a quota, or failing?"),
            Fault::Unreachable(what) => unavailable(&what),
            Fault::Standby => unavailable(&ControlError::Standby.to_string()),
            Fault::Other => LeafStoreError::Failed { log: log.clone(), what: unexpected(error) },
        },
    }
}

/// What the engine says of an error; never a value that was bound.
fn unexpected(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        // What our own triggers raise, and SQLite's texts, which name tables and constraints.
        Some(database) if database.code().is_none_or(|code| code.len() != 5 || code == "P0001") => {
            database.message().to_owned()
        }
        Some(database) => format!("the server reported SQLSTATE {}", database.code().unwrap_or_default()),
        None => "unexpected answer of the database driver".to_owned(),
    }
}

fn find_query(engine: Engine, log: &str, ids: &[String]) -> Result<Built, sqlx::Error> {
    let mut query =
        Built::new(engine, "SELECT idx, id, hash, entry, salt, content, time_ms FROM log_leaf WHERE log = ");
    query.bind(log)?.push(" AND id IN (");
    query.list(ids, |query, id| query.bind(id.as_str()).map(|_| ()))?.push(")");
    Ok(query)
}

/// The number as SQL has it; no log comes near the limit.
fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl LeafStore for SqlLogStore {
    fn name(&self) -> &str {
        &self.log
    }

    async fn size(&self) -> Result<u64> {
        let row = sqlx::query("SELECT COALESCE(MAX(idx) + 1, 0) AS size FROM log_leaf WHERE log = $1")
            .bind(&self.log)
            .fetch_one(&self.database.pool)
            .await;
        let size: i64 = row.and_then(|row| row.try_get("size")).map_err(|error| self.error(&error))?;
        Ok(size as u64)
    }

    async fn append(&self, expected: u64, leaves: &[NewLeaf], nodes: &[(Node, Hash)]) -> Result<()> {
        let error = |error: sqlx::Error| self.error(&error);
        // The write lock is taken before the size is read, so that no other writer can come in between.
        let mut transaction = self.database.begin_write().await.map_err(|error| self.refused(&error))?;
        let row = sqlx::query("SELECT COALESCE(MAX(idx) + 1, 0) AS size FROM log_leaf WHERE log = $1")
            .bind(&self.log)
            .fetch_one(&mut *transaction)
            .await;
        let size: i64 = row.and_then(|row| row.try_get("size")).map_err(error)?;
        if size as u64 != expected {
            return Err(LeafStoreError::SizeChanged { log: self.log.clone(), expected, actual: size as u64 });
        }
        self.insert(&mut transaction, expected, leaves, nodes).await.map_err(error)?;
        transaction.commit().await.map_err(error)
    }

    async fn hashes(&self, level: u8, start: u64, count: u64) -> Result<Vec<Hash>> {
        let statement = if level == 0 {
            "SELECT idx AS place, hash FROM log_leaf WHERE log = $1 AND $4 = 0 AND idx >= $2 AND idx < $3 ORDER BY idx"
        } else {
            "SELECT position AS place, hash FROM log_node \
             WHERE log = $1 AND level = $4 AND position >= $2 AND position < $3 ORDER BY position"
        };
        let rows = sqlx::query(statement)
            .bind(&self.log)
            .bind(bound(start))
            .bind(bound(start.saturating_add(count)))
            .bind(i64::from(level))
            .fetch_all(&self.database.pool)
            .await
            .map_err(|error| self.error(&error))?;
        let mut hashes = Vec::with_capacity(rows.len());
        for (place, row) in (bound(start)..).zip(&rows) {
            let hash: Vec<u8> = row.try_get("hash").map_err(|error| self.error(&error))?;
            let found: i64 = row.try_get("place").map_err(|error| self.error(&error))?;
            if found != place {
                return Err(self.damaged("a hash is missing in the middle"));
            }
            hashes.push(hash.try_into().map_err(|_| self.damaged("a hash is not 32 bytes long"))?);
        }
        Ok(hashes)
    }

    async fn leaves(&self, range: Range<u64>) -> Result<Vec<StoredLeaf>> {
        let rows = sqlx::query(
            "SELECT idx, id, hash, entry, salt, content, time_ms FROM log_leaf \
             WHERE log = $1 AND idx >= $2 AND idx < $3 ORDER BY idx",
        )
        .bind(&self.log)
        .bind(bound(range.start))
        .bind(bound(range.end))
        .fetch_all(&self.database.pool)
        .await
        .map_err(|error| self.error(&error))?;
        rows.iter().map(|row| self.leaf(row)).collect()
    }

    async fn find(&self, ids: &[String]) -> Result<Vec<StoredLeaf>> {
        let mut found = Vec::new();
        for some in ids.chunks(IDS_PER_QUERY) {
            let query = find_query(self.database.engine, &self.log, some).map_err(|error| self.error(&error))?;
            let rows = query.done().fetch_all(&self.database.pool).await.map_err(|error| self.error(&error))?;
            for row in &rows {
                found.push(self.leaf(row)?);
            }
        }
        Ok(found)
    }

    async fn last_checkpoint(&self) -> Result<Option<String>> {
        let row = sqlx::query("SELECT note FROM log_checkpoint WHERE log = $1 ORDER BY size DESC LIMIT 1")
            .bind(&self.log)
            .fetch_optional(&self.database.pool)
            .await
            .map_err(|error| self.error(&error))?;
        row.map(|row| row.try_get("note")).transpose().map_err(|error| self.error(&error))
    }

    async fn checkpoints(&self, from: u64, limit: u32) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT note FROM log_checkpoint WHERE log = $1 AND size >= $2 ORDER BY size LIMIT $3")
            .bind(&self.log)
            .bind(bound(from))
            .bind(i64::from(limit))
            .fetch_all(&self.database.pool)
            .await
            .map_err(|error| self.error(&error))?;
        rows.iter().map(|row| row.try_get("note").map_err(|error| self.error(&error))).collect()
    }

    async fn put_checkpoint(&self, size: u64, note: &str) -> Result<()> {
        let mut transaction = self.database.begin_write().await.map_err(|error| self.refused(&error))?;
        sqlx::query("INSERT INTO log_checkpoint (log, size, note) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(&self.log)
            .bind(bound(size))
            .bind(note)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.error(&error))?;
        transaction.commit().await.map_err(|error| self.error(&error))
    }

    async fn drop_content(&self, range: Range<u64>, before_ms: i64) -> Result<u64> {
        let mut transaction = self.database.begin_write().await.map_err(|error| self.refused(&error))?;
        let done = sqlx::query(
            "UPDATE log_leaf SET salt = NULL, content = NULL
             WHERE log = $1 AND idx >= $2 AND idx < $3 AND time_ms < $4 AND content IS NOT NULL",
        )
        .bind(&self.log)
        .bind(bound(range.start))
        .bind(bound(range.end))
        .bind(before_ms)
        .execute(&mut *transaction)
        .await
        .map_err(|error| self.error(&error))?;
        transaction.commit().await.map_err(|error| self.error(&error))?;
        Ok(done.rows_affected())
    }
}

/// Runs statements on a database file behind every store's back, for tests that tamper.
#[cfg(test)]
pub(crate) async fn run_raw(path: &Path, statements: &str) -> Result<(), sqlx::Error> {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await?;
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&pool).await;
    pool.close().await;
    done.map(|_| ())
}
