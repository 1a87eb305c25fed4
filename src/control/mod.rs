//! The control database: what the agent must remember to lose nothing, repeat nothing and miscount nothing.
//!
//! All its SQL is in this folder. Callers open a transaction ([`Control::begin`]) and call typed functions on [`Tx`];
//! what belongs together is committed together. Subject ids, row keys and plan lists enter only sealed (see
//! [`crate::keys::sealed`]); row and subject digests are keyed by leaves of the key tree.
//!
//! An old copy of this database must never be restored: its keys are gone by design. On PostgreSQL that holds for old row versions,
//! write-ahead log and replicas as well: they keep sealed nodes of the key tree, whose root is gone.

mod approvals;
mod batches;
mod built;
mod burial;
mod catalogue;
mod cells;
mod change_index;
mod ddl;
mod doomed;
mod engine;
mod erased;
mod found_again;
mod image;
mod jobs;
mod key_list;
mod lease;
mod ledger;
pub mod log_store;
mod media;
mod outside_keys;
mod people;
mod pins;
mod plans;
mod pre_images;
mod private;
mod proof;
mod pruned;
mod read_back;
mod signing_keys;
mod snapshots;
mod stored_packs;
mod time_stamps;
mod tree;

pub use approvals::ApprovalRow;
pub use batches::{OrderRow, PaceRow};
pub use cells::{BucketName, CellRow, DyingKeys, PinKind, PinRow};
pub use change_index::{ChangeBase, IndexEntry, IndexedRow, RowInCell};
pub use doomed::DoomedRoot;
pub use engine::StateLocation;
pub use erased::{ErasureRow, Left};
pub use found_again::FoundAgain;
pub use image::{CLOCK, ImageLoad, ImagePiece, ImageRows, OWN, TakePieces};
pub use jobs::JobRun;
pub use key_list::KeyGroup;
pub use lease::{Lease, LeaseHolder, shared_holder};
pub use ledger::{DoneBlock, LedgerEntry, LedgerKind};
pub use media::MediaRow;
pub use outside_keys::OutsideKeyRow;
pub use people::{HoldRow, RequestRow};
pub use plans::{ChunkCounts, ChunkRow, PlanRow, RunRow};
pub use proof::{CertificateRow, DrillRow, OutboxRow, Unfiled};
pub use pruned::PrunedChain;
pub use snapshots::SnapshotRow;
pub use stored_packs::{EnteredRow, StoredPack};
pub use time_stamps::{TimeStampRow, Unstamped};
pub use tree::{ABANDONED, NodeRow, SlotTable};

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};
use thiserror::Error;

use engine::{Database, Engine, Fault};

/// What can go wrong with the control database.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The file is missing; `init` or `quickstart` makes it.
    #[error(
        "the control database {path} does not exist; `wangchuan recover` brings a lost one back from the bucket, \
         `wangchuan init` makes a new installation"
    )]
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
    /// Others than the owner can read one of its files, and that could not be changed.
    #[error(
        "{path} can be read by others (mode {mode:03o}): {why}; run as its owner: chmod 600 {path}, or move the state to a \
         file system that keeps modes"
    )]
    ReadableByOthers {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
        /// Why it stays so.
        why: String,
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
    /// The server cannot be reached, or refused the connection. Worth retrying.
    #[error("the control database cannot be reached: {what}")]
    Unreachable {
        /// What the server or the network said, without any password.
        what: String,
    },
    /// The server is a standby: it only reads.
    #[error("the control database is a standby that only reads; name the primary in `state`, or promote this one")]
    Standby,
    /// The server does not flush to disk, so what was committed may be lost.
    #[error(
        "the server of the control database runs with fsync or full_page_writes off: a power failure could bring destroyed keys \
         back; switch both on"
    )]
    NotDurable,
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
        matches!(self, Self::Busy | Self::DiskFull | Self::Disk { .. } | Self::Unreachable { .. })
    }

    /// Whether room on the disk is what is wanted.
    #[must_use]
    pub fn wants_room(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Disk { .. })
    }
}

impl From<sqlx::Error> for ControlError {
    fn from(error: sqlx::Error) -> Self {
        match engine::fault_of(&error) {
            Fault::DiskFull => Self::DiskFull,
            Fault::Disk(what) => Self::Disk { what },
            Fault::Busy => Self::Busy,
            Fault::Unreachable(what) => Self::Unreachable { what },
            Fault::Standby => Self::Standby,
            Fault::Other => Self::Database(error),
        }
    }
}

/// What functions of this module return.
pub type Result<T, E = ControlError> = std::result::Result<T, E>;

/// Rows that one statement takes at most: each costs up to five of SQLite's 32,766 parameters (PostgreSQL: 65,535), and a way to
/// its thread, or over the network, is saved.
const ROWS_PER_STATEMENT: usize = 1000;

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = include_str!("schema.sql");
/// How long a statement waits for another writer of an SQLite file; the server's side has the same in [`engine`].
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The control database.
#[derive(Debug, Clone)]
pub struct Control {
    database: Database,
}

/// A transaction on the control database. Dropped without [`Tx::commit`], it never happened.
pub struct Tx {
    inner: Transaction<'static, Any>,
    engine: Engine,
}

impl Control {
    /// [`Self::create_at`] an SQLite file.
    pub async fn create(path: &Path, installation: [u8; 16]) -> Result<Self> {
        Self::create_at(&StateLocation::Sqlite(path.to_owned()), installation).await
    }

    /// Makes the control database for a new installation, or completes one whose making was interrupted. One that is complete
    /// stays as it is, with its own installation id. A PostgreSQL database must be there already; its tables are made.
    pub async fn create_at(place: &StateLocation, installation: [u8; 16]) -> Result<Self> {
        let control = Self::connect(place, true).await?;
        let mut tx = control.begin().await?;
        if !tx.has_schema().await? {
            tx.make(&ddl::statements(SCHEMA)).await?;
            tx.set_meta("schema_version", &SCHEMA_VERSION.to_string()).await?;
            tx.set_meta("installation", &hex::encode(installation)).await?;
        }
        tx.commit().await?;
        Ok(control)
    }

    /// [`Self::open_at`] an SQLite file.
    pub async fn open(path: &Path) -> Result<Self> {
        Self::open_at(&StateLocation::Sqlite(path.to_owned())).await
    }

    /// Opens an existing control database.
    pub async fn open_at(place: &StateLocation) -> Result<Self> {
        let path = place.shown();
        if matches!(place, StateLocation::Sqlite(file) if !file.exists()) {
            return Err(ControlError::Missing { path });
        }
        let control = Self::connect(place, false).await?;
        let mut tx = control.read().await?;
        if !tx.has_schema().await? {
            // An empty file was begun by `init`; an empty schema of a server may never have been meant.
            return Err(match place {
                StateLocation::Sqlite(_) => ControlError::Incomplete { path },
                StateLocation::Postgres(_) => ControlError::Missing { path },
            });
        }
        let found = tx.meta("schema_version").await?.and_then(|text| text.parse().ok()).unwrap_or(0);
        if found > SCHEMA_VERSION {
            return Err(ControlError::TooNew { found, known: SCHEMA_VERSION });
        }
        tx.commit().await?;
        Ok(control)
    }

    /// Whether a complete control database is there and answers.
    pub async fn is_there(place: &StateLocation) -> bool {
        match Self::open_at(place).await {
            Ok(control) => {
                control.close().await;
                true
            }
            Err(_) => false,
        }
    }

    async fn connect(place: &StateLocation, create: bool) -> Result<Self> {
        match place {
            StateLocation::Sqlite(path) => {
                if create {
                    private::make(path)?;
                }
                // The engine gives new files beside it the database's own mode; those that are there are looked at again.
                private::restrict(path)?;
                let database = engine::open_sqlite(path, create, BUSY_TIMEOUT).await?;
                private::restrict(path)?;
                Ok(Self { database })
            }
            StateLocation::Postgres(url) => {
                Ok(Self { database: Database::new(engine::open_postgres(url).await?, Engine::Postgres) })
            }
        }
    }

    /// Whether several hosts can work with this control database. On one host a file lock stands beside the lease.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.database.engine == Engine::Postgres
    }

    /// Where several hosts work with this database: from now on nothing is written by this process, its log included, unless the
    /// lease is held under `token`. `None` takes the fence away.
    pub fn set_fence(&self, fence: Option<(&str, i64)>) {
        if self.is_shared() {
            self.database.set_fence(fence.map(|(lease, token)| (lease.to_owned(), token)));
        }
    }

    /// Begins a transaction that may write; it waits for other writers. Behind a fence, refused when the lease is lost.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(Tx { inner: self.database.begin_write().await?, engine: self.database.engine })
    }

    /// Begins a transaction that only reads, beside any writer.
    pub async fn read(&self) -> Result<Tx> {
        Ok(Tx { inner: self.database.begin_read().await?, engine: self.database.engine })
    }

    /// The log store that shares this database (the operation log).
    pub async fn log_store(&self, log: &str) -> Result<log_store::SqlLogStore> {
        log_store::SqlLogStore::within(self.database.clone(), log)
            .await
            .map_err(|error| ControlError::Inconsistent(error.to_string()))
    }

    /// Closes all connections and folds the journal into the file.
    pub async fn close(self) {
        self.database.pool.close().await;
    }
}

impl Tx {
    /// Makes everything done in this transaction durable.
    pub async fn commit(self) -> Result<()> {
        Ok(self.inner.commit().await?)
    }

    async fn has_schema(&mut self) -> Result<bool> {
        Ok(engine::has_table(&mut self.inner, self.engine, "meta").await?)
    }

    /// Makes tables, indexes and triggers from their portable statements.
    async fn make(&mut self, statements: &[String]) -> Result<()> {
        for statement in statements {
            let made = match self.engine {
                Engine::Sqlite => vec![statement.clone()],
                Engine::Postgres => ddl::to_postgres(statement).ok_or_else(|| {
                    ControlError::Inconsistent("a statement of the schema means nothing to PostgreSQL".to_owned())
                })?,
            };
            for text in made {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *self.inner).await?;
            }
        }
        Ok(())
    }

    /// A remembered setting.
    pub async fn meta(&mut self, name: &str) -> Result<Option<String>> {
        let row =
            sqlx::query("SELECT value FROM meta WHERE name = $1").bind(name).fetch_optional(&mut *self.inner).await?;
        row.map(|row| row.try_get(0)).transpose().map_err(Into::into)
    }

    /// The settings whose names begin so, in the order of their names.
    pub async fn metas(&mut self, prefix: &str) -> Result<Vec<(String, String)>> {
        let sql = "SELECT name, value FROM meta WHERE substr(name, 1, CAST($2 AS INTEGER)) = $1 ORDER BY name";
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
mod engine_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
