//! The control database: what the agent must remember to lose nothing, repeat nothing and miscount nothing.
//!
//! All its SQL is in this folder. Callers open a transaction ([`Control::begin`]) and call typed functions on [`Tx`];
//! what belongs together is committed together. Subject ids, row keys and plan lists enter only sealed (see
//! [`crate::keys::sealed`]); row and subject digests are keyed by leaves of the key tree.
//!
//! An old copy of this database must never be restored: its keys are gone by design.

mod cells;
mod doomed;
mod image;
mod jobs;
mod key_list;
mod lease;
pub mod log_store;
mod people;
mod pins;
mod plans;
mod pre_images;
mod proof;
mod snapshots;
mod tree;

pub use cells::{BucketName, CellRow, DyingKeys, PinKind, PinRow};
pub use doomed::DoomedRoot;
pub use image::{CLOCK, ImageLoad, ImagePiece, ImageRows, OWN};
pub use jobs::JobRun;
pub use key_list::KeyGroup;
pub use lease::Lease;
pub use people::{HoldRow, RequestRow};
pub use plans::{ChunkCounts, ChunkRow, LedgerEntry, LedgerKind, PlanRow, RunRow};
pub use proof::{CertificateRow, DrillRow, OutboxRow};
pub use snapshots::SnapshotRow;
pub use tree::{ABANDONED, NodeRow, SlotTable};

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, Sqlite, SqlitePool, Transaction};
use thiserror::Error;

/// What can go wrong with the control database.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The file is missing; `init` or `quickstart` makes it.
    #[error("the control database {path} does not exist; `wangchuan init` makes a new installation")]
    Missing {
        /// Its path.
        path: String,
    },
    /// The file is there, but its tables are not: its making was interrupted.
    #[error("the control database {path} is empty: its making was interrupted; `wangchuan init` completes it")]
    Incomplete {
        /// Its path.
        path: String,
    },
    /// It was made by a newer program.
    #[error("the control database has schema version {found}, this program knows {known}; use the newer program")]
    TooNew {
        /// The version found.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The disk is full. Nothing was changed; make room and run again.
    #[error("the disk that holds the control database is full; nothing was changed: make room and run again")]
    DiskFull,
    /// The disk refuses to be read or written, for example because of a quota or a limit. Nothing was changed.
    #[error("the control database cannot be read or written ({what}): is the disk full, over a quota, or failing?")]
    Disk {
        /// What the engine said.
        what: String,
    },
    /// Another process holds the write lock for too long. Worth retrying.
    #[error("the control database is busy: another command is writing")]
    Busy,
    /// The lease under which this was to be written has gone to another process. Nothing was written.
    #[error("the lease `{name}` is lost: another process has taken over the work, so nothing was written; start again")]
    LeaseLost {
        /// The lease.
        name: String,
    },
    /// What stands there contradicts itself; a human must look.
    #[error("the control database is inconsistent: {0}")]
    Inconsistent(String),
    /// Any other database error.
    #[error("the control database failed")]
    Database(#[source] sqlx::Error),
}

impl ControlError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy | Self::DiskFull | Self::Disk { .. })
    }

    /// Whether room on the disk is what is wanted.
    #[must_use]
    pub fn wants_room(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Disk { .. })
    }
}

impl From<sqlx::Error> for ControlError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
        let code: u32 = code.parse().unwrap_or(0);
        // Extended codes end in the eight bits of their primary code: https://www.sqlite.org/rescode.html
        match (code & 0xff, code) {
            // SQLITE_FULL; and SQLITE_IOERR_SHMSIZE, which is how a full disk shows when the journal's index must grow.
            (13, _) | (_, 4874) => Self::DiskFull,
            (5 | 6, _) => Self::Busy,
            (10, _) => {
                let what = error.as_database_error().map_or_else(String::new, |error| error.message().to_owned());
                Self::Disk { what: format!("{what}, {code}") }
            }
            _ => Self::Database(error),
        }
    }
}

/// What functions of this module return.
pub type Result<T, E = ControlError> = std::result::Result<T, E>;

/// Rows that one statement takes at most: each costs up to five of SQLite's 32,766 parameters, and a way to its thread is saved.
const ROWS_PER_STATEMENT: usize = 1000;

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = include_str!("schema.sql");

/// The control database.
#[derive(Debug, Clone)]
pub struct Control {
    pool: SqlitePool,
}

/// A transaction on the control database. Dropped without [`Tx::commit`], it never happened.
pub struct Tx {
    inner: Transaction<'static, Sqlite>,
}

impl Control {
    /// Makes the control database at `path` for a new installation, or completes one whose making was interrupted. One that
    /// is complete stays as it is, with its own installation id.
    pub async fn create(path: &Path, installation: [u8; 16]) -> Result<Self> {
        let control = Self::connect(path, true).await?;
        let mut tx = control.begin().await?;
        if !tx.has_schema().await? {
            sqlx::raw_sql(SCHEMA).execute(&mut *tx.inner).await?;
            tx.set_meta("schema_version", &SCHEMA_VERSION.to_string()).await?;
            tx.set_meta("installation", &hex::encode(installation)).await?;
        }
        tx.commit().await?;
        Ok(control)
    }

    /// Opens an existing control database.
    pub async fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(ControlError::Missing { path: path.display().to_string() });
        }
        let control = Self::connect(path, false).await?;
        let mut tx = control.begin().await?;
        if !tx.has_schema().await? {
            return Err(ControlError::Incomplete { path: path.display().to_string() });
        }
        let found = tx.meta("schema_version").await?.and_then(|text| text.parse().ok()).unwrap_or(0);
        if found > SCHEMA_VERSION {
            return Err(ControlError::TooNew { found, known: SCHEMA_VERSION });
        }
        tx.commit().await?;
        Ok(control)
    }

    async fn connect(path: &Path, create: bool) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .pragma("secure_delete", "ON");
        let pool = pool_options().connect_with(options).await?;
        restrict_to_owner(path);
        Ok(Self { pool })
    }

    /// Begins a transaction that may write; it waits for other writers.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(Tx { inner: self.pool.begin_with("BEGIN IMMEDIATE").await? })
    }

    /// Begins a transaction that only reads, beside any writer.
    pub async fn read(&self) -> Result<Tx> {
        Ok(Tx { inner: self.pool.begin().await? })
    }

    /// The log store that shares this database (the operation log).
    pub async fn log_store(&self, log: &str) -> Result<log_store::SqliteLogStore> {
        log_store::SqliteLogStore::from_pool(self.pool.clone(), log)
            .await
            .map_err(|error| ControlError::Inconsistent(error.to_string()))
    }

    /// Closes all connections and folds the journal into the file.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

/// Pools of few connections. One that the driver still takes to be inside a transaction is not used again: on a full disk
/// SQLite ends a transaction by itself, the driver's own roll-back then finds none, and it would refuse every later begin.
fn pool_options() -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(4).before_acquire(|connection, _| {
        // The driver has pinged the connection before, so a roll-back that was still waiting is over.
        let is_clean = !connection.is_in_transaction();
        Box::pin(async move { Ok(is_clean) })
    })
}

/// State files are for their owner only; a file system without modes is the operator's business.
fn restrict_to_owner(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
}

impl Tx {
    /// Makes everything done in this transaction durable.
    pub async fn commit(self) -> Result<()> {
        Ok(self.inner.commit().await?)
    }

    async fn has_schema(&mut self) -> Result<bool> {
        let found =
            sqlx::query("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetch_optional(&mut *self.inner).await?;
        Ok(found.is_some())
    }

    /// A remembered setting.
    pub async fn meta(&mut self, name: &str) -> Result<Option<String>> {
        let row =
            sqlx::query("SELECT value FROM meta WHERE name = $1").bind(name).fetch_optional(&mut *self.inner).await?;
        row.map(|row| row.try_get(0)).transpose().map_err(Into::into)
    }

    /// The settings whose names begin so, in the order of their names.
    pub async fn metas(&mut self, prefix: &str) -> Result<Vec<(String, String)>> {
        let sql = "SELECT name, value FROM meta WHERE substr(name, 1, $2) = $1 ORDER BY name";
        let query = sqlx::query(sql).bind(prefix).bind(prefix.chars().count() as i64);
        let rows = query.fetch_all(&mut *self.inner).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Remembers a setting.
    pub async fn set_meta(&mut self, name: &str, value: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Forgets a setting.
    pub async fn clear_meta(&mut self, name: &str) -> Result<()> {
        sqlx::query("DELETE FROM meta WHERE name = $1").bind(name).execute(&mut *self.inner).await?;
        Ok(())
    }

    /// The installation's random id.
    pub async fn installation(&mut self) -> Result<[u8; 16]> {
        let text = self.meta("installation").await?.unwrap_or_default();
        let mut id = [0; 16];
        hex::decode_to_slice(&text, &mut id)
            .map_err(|_| ControlError::Inconsistent("no installation id".to_owned()))?;
        Ok(id)
    }
}

/// The one text form of instants in the database: RFC 3339, UTC, milliseconds; it sorts as time does.
#[must_use]
pub fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads what [`time_text`] wrote.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.with_timezone(&Utc))
        .map_err(|_| ControlError::Inconsistent(format!("`{text}` is not a time")))
}

fn optional_time(text: Option<String>) -> Result<Option<DateTime<Utc>>> {
    text.map(|text| parse_time(&text)).transpose()
}

#[cfg(test)]
mod tests;
