//! The two engines that can hold the control database, behind sqlx's `Any` driver: how they are opened, and what keeps writers apart.
//!
//! One set of statements serves both: numbered parameters, and only TEXT, BIGINT and BLOB (bytea) columns. What SQLite gives by
//! having one writer, PostgreSQL gives by a transaction-scoped advisory lock that every writing transaction takes first: a lease
//! that was checked in a transaction holds until its commit, and numbers taken as "the highest plus one" have no gaps. It costs one
//! more round trip for each writing transaction, and writers wait for each other as they do on SQLite; readers never wait.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::postgres::PgDatabaseError;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Row as _, Transaction};

use super::{ControlError, Result};
use crate::policy::registry::SecretText;

/// Where a control database lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateLocation {
    /// An SQLite file, which may not exist yet.
    Sqlite(PathBuf),
    /// A PostgreSQL database, by its address: the tables lie in the first schema of its search path.
    Postgres(SecretText),
}

impl StateLocation {
    /// What may be said of it: the file, or server and database without user and password.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(url) => {
                let rest = url.dangerous_text().split_once("://").map_or("", |(_, rest)| rest);
                let before_query = rest.split('?').next().unwrap_or_default();
                match (before_query.rsplit_once('@'), rest.contains('@')) {
                    (Some((_, place)), _) => format!("postgres://{place}"),
                    (None, false) => format!("postgres://{before_query}"),
                    // Where the password ends cannot be told: rather hide too much.
                    (None, true) => "postgres://…".to_owned(),
                }
            }
        }
    }
}

/// The engine behind a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Sqlite,
    Postgres,
}

/// The parameter of the address by which an operator accepts a server that does not flush to disk (tests).
const FSYNC_ACCEPTED: &str = "fsync=off";
/// Connections that one process uses at most.
const CONNECTIONS: u32 = 4;
/// How long a connection to a file may take: longer than other writers keep one waiting.
const SQLITE_WAIT: Duration = Duration::from_secs(12);
/// How long a connection to a server may take.
const CONNECT_WAIT: Duration = Duration::from_secs(15);

/// Settings of each SQLite connection. `secure_delete` is one of the connection, not of the file.
const SQLITE_SESSION: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON";

/// What work may change of a connection, as it must be for the next: whoever changed it may have been dropped before it was changed
/// back. The size of the cache is SQLite's own.
const SQLITE_RETURN: &str = "PRAGMA secure_delete = ON; PRAGMA cache_size = -2000";

/// Settings of each PostgreSQL connection. Waits are as long as SQLite's; a transaction that is left open, by a process that was
/// stopped, ends long before its lease would. A commit is on disk when it returns, whatever the server's default is.
const POSTGRES_SESSION: &str = "SET application_name = 'wangchuan'; SET client_min_messages = warning; \
     SET lock_timeout = '10s'; SET statement_timeout = '300s'; SET idle_in_transaction_session_timeout = '120s'; \
     SET standard_conforming_strings = on; SET row_security = off; SET TimeZone = 'UTC'; \
     SELECT set_config('synchronous_commit', 'on', false) \
     WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// The lock of writers: one for each schema of a database.
pub(super) const WRITER_LOCK: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('wangchuan control ' || current_schema(), 0))";

/// Pools of few connections. One that the driver still takes to be inside a transaction is not used again: on a full disk
/// SQLite ends a transaction by itself, the driver's own roll-back then finds none, and it would refuse every later begin.
fn pool_options() -> AnyPoolOptions {
    install_default_drivers();
    AnyPoolOptions::new().max_connections(CONNECTIONS).before_acquire(|connection, _| {
        // The driver has pinged the connection before, so a roll-back that was still waiting is over.
        let is_clean = !connection.is_in_transaction();
        Box::pin(async move { Ok(is_clean) })
    })
}

async fn set_up(connection: &mut AnyConnection, session: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(session.to_owned())).execute(connection).await.map(|_| ())
}

/// Opens an SQLite file, with WAL, full synchronisation and overwriting of what is deleted. `busy` is how long a statement waits
/// for another writer.
pub(super) async fn open_sqlite(path: &Path, create: bool, busy: Duration) -> Result<Database, sqlx::Error> {
    let session = format!("PRAGMA busy_timeout = {}; {SQLITE_SESSION}", busy.as_millis());
    let trouble = Trouble::default();
    let noted = trouble.clone();
    let options = pool_options().acquire_timeout(SQLITE_WAIT).after_connect(move |connection, _| {
        let (session, noted) = (session.clone(), noted.clone());
        Box::pin(async move { noted.note(set_up(connection, &session).await) })
    });
    // Behind a roll-back that was still waiting. A connection that refuses is not used again.
    let options = options
        .after_release(|connection, _| Box::pin(async move { set_up(connection, SQLITE_RETURN).await.map(|()| true) }));
    let pool = options.connect(&sqlite_url(path, create)).await.map_err(|error| trouble.explain(error))?;
    Ok(Database { trouble, ..Database::new(pool, Engine::Sqlite) })
}

/// Why the last connection to a file could not be set up. The pool tries again until its time is over, and then says only that.
#[derive(Debug, Clone, Default)]
struct Trouble(Arc<Mutex<Option<Fault>>>);

impl Trouble {
    fn note(&self, outcome: Result<(), sqlx::Error>) -> Result<(), sqlx::Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outcome.as_ref().err().map(fault_of);
        outcome
    }

    fn explain(&self, error: sqlx::Error) -> sqlx::Error {
        if !matches!(error, sqlx::Error::PoolTimedOut) {
            return error;
        }
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Fault::DiskFull) => sqlx::Error::Io(io::ErrorKind::StorageFull.into()),
            Some(Fault::Disk(what)) => sqlx::Error::Io(io::Error::other(what.clone())),
            _ => error,
        }
    }
}

/// The address of a file; every byte that an address might take for something else is encoded.
fn sqlite_url(path: &Path, create: bool) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    // An address forgets `.` and `..`, which a path through a symbolic link must not.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let absolute = match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    };
    let mut url = "sqlite://".to_owned();
    for byte in absolute.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            url.push(char::from(*byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url.push_str(if create { "?mode=rwc" } else { "?mode=rw" });
    url
}

/// Connects to a PostgreSQL database.
///
/// # Errors
/// [`ControlError::NotDurable`] for a server that does not flush to disk, unless the address accepts it;
/// [`ControlError::Standby`] for one that cannot be written.
pub(super) async fn open_postgres(url: &SecretText) -> Result<AnyPool> {
    let (address, accepts_loss) = without_own_parameter(url);
    let options = pool_options()
        .acquire_timeout(CONNECT_WAIT)
        .after_connect(|connection, _| Box::pin(async move { set_up(connection, POSTGRES_SESSION).await }));
    let pool = options.connect(address.dangerous_text()).await?;
    let sql =
        "SELECT pg_is_in_recovery(), current_setting('fsync') = 'off' OR current_setting('full_page_writes') = 'off'";
    let row = sqlx::query(sql).fetch_one(&pool).await?;
    if row.try_get(0)? {
        return Err(ControlError::Standby);
    }
    if row.try_get(1)? && !accepts_loss {
        return Err(ControlError::NotDurable);
    }
    Ok(pool)
}

/// The address without the parameter that the driver does not know, and whether it was there.
fn without_own_parameter(url: &SecretText) -> (SecretText, bool) {
    let text = url.dangerous_text();
    let Some((base, query)) = text.split_once('?') else { return (url.clone(), false) };
    let rest: Vec<&str> = query.split('&').filter(|pair| *pair != FSYNC_ACCEPTED).collect();
    let found = rest.len() < query.split('&').count();
    let text = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    (SecretText::new(text), found)
}

/// An open database.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) pool: AnyPool,
    pub(super) engine: Engine,
    fence: Arc<Mutex<Option<(String, i64)>>>,
    trouble: Trouble,
}

impl Database {
    pub(super) fn new(pool: AnyPool, engine: Engine) -> Self {
        Self { pool, engine, fence: Arc::default(), trouble: Trouble::default() }
    }

    /// From now on nothing is written unless the lease is held under this token; by none of this database's clones. On one host a
    /// file lock does that.
    pub(super) fn set_fence(&self, fence: Option<(String, i64)>) {
        *self.fence.lock().unwrap_or_else(PoisonError::into_inner) = fence;
    }

    /// Begins a transaction that may write. It waits for other writers.
    ///
    /// # Errors
    /// [`ControlError::LeaseLost`] behind a fence whose lease is lost.
    pub(super) async fn begin_write(&self) -> Result<Transaction<'static, Any>> {
        if self.engine == Engine::Sqlite {
            return Ok(self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.trouble.explain(error))?);
        }
        // Each statement behind the lock sees what was committed before it: hence not a higher isolation.
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
        sqlx::query(WRITER_LOCK).execute(&mut *transaction).await?;
        let fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((lease, token)) = fence {
            super::lease::require(&mut transaction, &lease, token).await?;
        }
        Ok(transaction)
    }

    /// Begins a transaction that only reads, all of it of one moment.
    pub(super) async fn begin_read(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match self.engine {
            Engine::Sqlite => self.pool.begin().await.map_err(|error| self.trouble.explain(error)),
            Engine::Postgres => self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await,
        }
    }
}

/// Whether a table is there.
pub(super) async fn has_table(
    transaction: &mut Transaction<'static, Any>,
    engine: Engine,
    name: &str,
) -> Result<bool, sqlx::Error> {
    let sql = match engine {
        Engine::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
        Engine::Postgres => {
            "SELECT COUNT(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relname = $1::text"
        }
    };
    let row = sqlx::query(sql).bind(name).fetch_one(&mut **transaction).await?;
    Ok(row.try_get::<i64, _>(0)? > 0)
}

/// What a driver's error means, in words that both engines share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// No room.
    DiskFull,
    /// The disk does not obey, with what the engine said.
    Disk(String),
    /// Another writer takes too long.
    Busy,
    /// The server cannot be reached, or does not let us in.
    Unreachable(String),
    /// The server only reads.
    Standby,
    /// Anything else.
    Other,
}

/// Classifies a driver's error. Values that were bound never enter.
pub(super) fn fault_of(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            if database.try_downcast_ref::<PgDatabaseError>().is_some() {
                fault_of_sqlstate(&code, database.message())
            } else {
                fault_of_sqlite(code.parse().unwrap_or(0), database.message())
            }
        }
        sqlx::Error::Io(error) => match error.kind() {
            io::ErrorKind::StorageFull => Fault::DiskFull,
            io::ErrorKind::Other => Fault::Disk(error.to_string()),
            kind => Fault::Unreachable(kind.to_string()),
        },
        sqlx::Error::Tls(_) => Fault::Unreachable("no encrypted connection could be made".to_owned()),
        sqlx::Error::Protocol(_) => Fault::Unreachable("the connection broke".to_owned()),
        sqlx::Error::PoolTimedOut => Fault::Unreachable("no connection became free in time".to_owned()),
        _ => Fault::Other,
    }
}

/// Extended codes end in the eight bits of their primary code: <https://www.sqlite.org/rescode.html>
fn fault_of_sqlite(code: u32, message: &str) -> Fault {
    match (code & 0xff, code) {
        // SQLITE_FULL; and SQLITE_IOERR_SHMSIZE, which is how a full disk shows when the journal's index must grow.
        (13, _) | (_, 4874) => Fault::DiskFull,
        (5 | 6, _) => Fault::Busy,
        (10, _) => Fault::Disk(format!("{message}, {code}")),
        _ => Fault::Other,
    }
}

/// SQLSTATE: PostgreSQL documentation, appendix A.
fn fault_of_sqlstate(code: &str, message: &str) -> Fault {
    match (code.get(..2).unwrap_or_default(), code) {
        (_, "53100") => Fault::DiskFull,
        (_, "58030") => Fault::Disk(message.to_owned()),
        (_, "25006") => Fault::Standby,
        (_, "55P03" | "57014") | ("40", _) => Fault::Busy,
        ("08" | "28" | "3D" | "53", _) | (_, "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04") => {
            Fault::Unreachable(message.to_owned())
        }
        _ => Fault::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_any_file_and_shows_no_password() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a b?c#d%e 忘");
        std::fs::create_dir(&odd).unwrap();
        let url = sqlite_url(&odd.join("x.db"), true);
        assert!(url.ends_with("/a%20b%3Fc%23d%25e%20%E5%BF%98/x.db?mode=rwc"), "{url}");
        let postgres =
            StateLocation::Postgres(SecretText::new("postgres://me:p%40ss@db:5432/w?sslmode=require".into()));
        assert_eq!(postgres.shown(), "postgres://db:5432/w");
        assert!(!format!("{postgres:?}").contains("p%40ss"));
        for (text, shown) in [
            ("postgres://db/w?password=a@b", "postgres://…"),
            ("postgres://me:p?w@db/w", "postgres://…"),
            ("postgresql://me:p@q@db/w?x=y@z", "postgres://db/w"),
            ("postgres:///w?host=/run", "postgres:///w"),
        ] {
            assert_eq!(StateLocation::Postgres(SecretText::new(text.to_owned())).shown(), shown);
        }
    }

    #[test]
    fn the_own_parameter_never_reaches_the_driver() {
        let found = |text: &str| {
            let (url, accepted) = without_own_parameter(&SecretText::new(text.to_owned()));
            (url.dangerous_text().to_owned(), accepted)
        };
        assert_eq!(found("postgres://h/d?fsync=off"), ("postgres://h/d".to_owned(), true));
        assert_eq!(found("postgres://h/d?a=b&fsync=off&c=d"), ("postgres://h/d?a=b&c=d".to_owned(), true));
        assert_eq!(found("postgres://h/d?a=b"), ("postgres://h/d?a=b".to_owned(), false));
        assert_eq!(found("postgres://h/d"), ("postgres://h/d".to_owned(), false));
    }

    #[test]
    fn codes_of_one_engine_are_not_taken_for_those_of_the_other() {
        assert_eq!(fault_of_sqlite(13, ""), Fault::DiskFull);
        assert_eq!(fault_of_sqlite(4874, ""), Fault::DiskFull);
        assert_eq!(fault_of_sqlite(517, ""), Fault::Busy);
        assert_eq!(fault_of_sqlstate("53100", ""), Fault::DiskFull);
        assert_eq!(fault_of_sqlstate("55P03", ""), Fault::Busy);
        assert_eq!(fault_of_sqlstate("25006", ""), Fault::Standby);
        assert_eq!(fault_of_sqlstate("28P01", "no"), Fault::Unreachable("no".to_owned()));
        assert_eq!(fault_of_sqlstate("23505", "x"), Fault::Other);
    }
}
