//! The leaves of logs in a relational database: all SQL of the proof part.
//!
//! Several logs share the tables, told apart by the column `log`. The statements are portable (numbered parameters,
//! no upserts beyond `ON CONFLICT DO NOTHING`); only the DDL is SQLite's.

use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteRow, SqliteSynchronous};
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};

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

/// One log in a SQLite database.
#[derive(Debug, Clone)]
pub struct SqliteLogStore {
    pool: SqlitePool,
    log: String,
}

impl SqliteLogStore {
    /// Opens (or creates, with mode 0600) a database file of its own for the log.
    pub async fn open(path: &Path, log: &str) -> Result<Self> {
        let failed = |what: String| LeafStoreError::Failed { log: log.to_owned(), what };
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(format!("the database file cannot be opened: {}", error.kind())))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            // Per connection, so it must be an option and not a statement.
            .pragma("secure_delete", "ON");
        let pool = super::pool_options().connect_with(options).await;
        Self::from_pool(pool.map_err(|error| translate(log, &error))?, log).await
    }

    /// A log inside a database that is open already (the control database). Its pool must use WAL, `synchronous=FULL`
    /// and `secure_delete`. Creates the tables when they are missing.
    pub async fn from_pool(pool: SqlitePool, log: &str) -> Result<Self> {
        sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(|error| translate(log, &error))?;
        Ok(Self { pool, log: log.to_owned() })
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    fn error(&self, error: &sqlx::Error) -> LeafStoreError {
        translate(&self.log, error)
    }

    fn damaged(&self, what: &str) -> LeafStoreError {
        LeafStoreError::Damaged { log: self.log.clone(), what: what.to_owned() }
    }

    async fn insert(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
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

    fn leaf(&self, row: &SqliteRow) -> Result<StoredLeaf> {
        let read = || -> Result<StoredLeaf, sqlx::Error> {
            let hash: Vec<u8> = row.try_get("hash")?;
            let hash = hash.try_into().map_err(|_| sqlx::Error::ColumnNotFound("hash".to_owned()))?;
            Ok(StoredLeaf {
                index: row.try_get::<i64, _>("idx")? as u64,
                id: row.try_get("id")?,
                hash,
                entry: row.try_get("entry")?,
                salt: row.try_get("salt")?,
                content: row.try_get("content")?,
                time_ms: row.try_get("time_ms")?,
            })
        };
        read().map_err(|_| self.damaged("a leaf row has columns of a wrong type or length"))
    }
}

fn translate(log: &str, error: &sqlx::Error) -> LeafStoreError {
    let log = log.to_owned();
    let unavailable = |what: &str| LeafStoreError::Unavailable { log: log.clone(), what: what.to_owned() };
    match error {
        sqlx::Error::Database(database) if database.is_unique_violation() => LeafStoreError::Duplicate { log },
        // SQLITE_BUSY 5, SQLITE_LOCKED 6, SQLITE_FULL 13, SQLITE_IOERR 10: their extended codes end in these 8 bits.
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
            match (code & 0xff, code) {
                (5 | 6, _) => unavailable("it is locked by another writer"),
                // SQLITE_IOERR_SHMSIZE is how a full disk shows when the journal's index must grow.
                (13, _) | (_, 4874) => unavailable("the disk is full"),
                (10, _) => unavailable("input/output error: is the disk full, over a quota, or failing?"),
                // The driver's text names tables and constraints, never bound values.
                _ => LeafStoreError::Failed { log: log.clone(), what: database.message().to_owned() },
            }
        }
        sqlx::Error::PoolTimedOut => unavailable("no connection became free"),
        sqlx::Error::PoolClosed => unavailable("the pool is closed"),
        sqlx::Error::Io(error) => unavailable(&error.kind().to_string()),
        _ => LeafStoreError::Failed { log, what: "unexpected answer of the database driver".to_owned() },
    }
}

/// The number as SQL has it; no log comes near the limit.
fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl LeafStore for SqliteLogStore {
    fn name(&self) -> &str {
        &self.log
    }

    async fn size(&self) -> Result<u64> {
        let row = sqlx::query("SELECT COALESCE(MAX(idx) + 1, 0) AS size FROM log_leaf WHERE log = $1")
            .bind(&self.log)
            .fetch_one(&self.pool)
            .await;
        let size: i64 = row.and_then(|row| row.try_get("size")).map_err(|error| self.error(&error))?;
        Ok(size as u64)
    }

    async fn append(&self, expected: u64, leaves: &[NewLeaf], nodes: &[(Node, Hash)]) -> Result<()> {
        let error = |error: sqlx::Error| self.error(&error);
        // IMMEDIATE takes the write lock before the size is read, so that no other writer can come in between.
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(error)?;
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
            .fetch_all(&self.pool)
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
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.error(&error))?;
        rows.iter().map(|row| self.leaf(row)).collect()
    }

    async fn find(&self, ids: &[String]) -> Result<Vec<StoredLeaf>> {
        let mut found = Vec::new();
        for some in ids.chunks(IDS_PER_QUERY) {
            let mut query: QueryBuilder<Sqlite> =
                QueryBuilder::new("SELECT idx, id, hash, entry, salt, content, time_ms FROM log_leaf WHERE log = ");
            query.push_bind(&self.log).push(" AND id IN (");
            let mut list = query.separated(", ");
            for id in some {
                list.push_bind(id);
            }
            query.push(")");
            let rows = query.build().fetch_all(&self.pool).await.map_err(|error| self.error(&error))?;
            for row in &rows {
                found.push(self.leaf(row)?);
            }
        }
        Ok(found)
    }

    async fn last_checkpoint(&self) -> Result<Option<String>> {
        let row = sqlx::query("SELECT note FROM log_checkpoint WHERE log = $1 ORDER BY size DESC LIMIT 1")
            .bind(&self.log)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.error(&error))?;
        row.map(|row| row.try_get("note")).transpose().map_err(|error| self.error(&error))
    }

    async fn checkpoints(&self, from: u64, limit: u32) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT note FROM log_checkpoint WHERE log = $1 AND size >= $2 ORDER BY size LIMIT $3")
            .bind(&self.log)
            .bind(bound(from))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.error(&error))?;
        rows.iter().map(|row| row.try_get("note").map_err(|error| self.error(&error))).collect()
    }

    async fn put_checkpoint(&self, size: u64, note: &str) -> Result<()> {
        sqlx::query("INSERT INTO log_checkpoint (log, size, note) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(&self.log)
            .bind(bound(size))
            .bind(note)
            .execute(&self.pool)
            .await
            .map_err(|error| self.error(&error))?;
        Ok(())
    }

    async fn drop_content(&self, range: Range<u64>, before_ms: i64) -> Result<u64> {
        let done = sqlx::query(
            "UPDATE log_leaf SET salt = NULL, content = NULL
             WHERE log = $1 AND idx >= $2 AND idx < $3 AND time_ms < $4 AND content IS NOT NULL",
        )
        .bind(&self.log)
        .bind(bound(range.start))
        .bind(bound(range.end))
        .bind(before_ms)
        .execute(&self.pool)
        .await
        .map_err(|error| self.error(&error))?;
        Ok(done.rows_affected())
    }
}

/// Runs statements on a database file behind every store's back, for tests that tamper.
#[cfg(test)]
pub(crate) async fn run_raw(path: &Path, statements: &str) -> Result<(), sqlx::Error> {
    let pool = SqlitePool::connect(&format!("sqlite://{}", path.display())).await?;
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&pool).await;
    pool.close().await;
    done.map(|_| ())
}
