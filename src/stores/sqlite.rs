//! The SQLite adapter.
//!
//! Values are read by their own storage class, because a column's declared type binds nobody in SQLite. Deleted content
//! is overwritten at once (`secure_delete` on every connection); what stays in the write-ahead log, in copies that other connections
//! left in unused parts of pages, and in full-text indexes goes with [`settle`](DataStore::settle). A file that does not exist is an error, never a new empty database, unless the store
//! was opened as the target of a restore.

mod catalogue;
mod definitions;
mod facts;
pub mod pages;
mod restore;
mod settle;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteOwnedBuf, SqliteRow};
use sqlx::{Connection, Executor, Row as _, TypeInfo, ValueRef};

use super::session::{self, Cursor, Lane, Open, OpenBatch, SchemaCache, Session, fetch_integer};
use super::sql::{Argument, Output, Schema, Statement, quote, trusted};
use super::{
    Batch, BatchMarker, Catalogue, DataStore, Definitions, Engine, FileKind, FileMap, Finding, FindingKind, Limits,
    PhysicalState, Restore, Result, Settling, Snapshot, StoreError, Table, TableFacts, TextEncoding,
};
use crate::value::{Row, Value};

/// Reads a page, or fails as any reading would.
const PROBE: &str = "SELECT count(*) FROM sqlite_master";
/// How long the checkpoint of [`DataStore::settle`] waits for readers.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(2);

/// A SQLite file.
pub struct SqliteStore {
    name: String,
    path: PathBuf,
    create: bool,
    limits: Limits,
    schema: SchemaCache,
    marker_ready: AtomicBool,
    readers: Arc<Lane<SqliteSession>>,
    writers: Arc<Lane<SqliteSession>>,
}

impl SqliteStore {
    /// A store at `path`. Nothing is opened yet. With `create`, a missing file is made (for restore targets).
    pub fn new(name: &str, path: PathBuf, create: bool, limits: Limits) -> Self {
        let (readers, writers) = (Lane::new(), Lane::new());
        let (schema, marker_ready) = (SchemaCache::new(), AtomicBool::new(false));
        Self { name: name.to_owned(), path, create, limits, schema, marker_ready, readers, writers }
    }

    fn unreachable(&self, detail: String) -> StoreError {
        StoreError::Unreachable { store: self.name.clone(), detail }
    }

    async fn connect(&self, read_only: bool) -> Result<SqliteSession> {
        if !self.create && !self.path.exists() {
            return Err(self.unreachable(format!("there is no file {}", self.path.display())));
        }
        if self.create && read_only && !self.path.exists() {
            // A read-only connection cannot make the file.
            let writable = self.connect_with(false).await.map_err(|error| error_of(&self.name, &error))?;
            self.writers.put(writable);
        }
        match self.connect_with(read_only).await {
            // A writer was killed in its commit: whoever comes next must put back what it began, and a reader may not.
            Err(error) if read_only && is_left_unfinished(&error) => {
                let finished = self.connect_with(false).await.map_err(|error| self.unfinished(&error))?;
                self.writers.put(finished);
                self.connect_with(true).await
            }
            other => other,
        }
        .map_err(|error| error_of(&self.name, &error))
    }

    fn unfinished(&self, error: &sqlx::Error) -> StoreError {
        let what = format!(
            "a program that wrote to {} was killed in between, and what it left can only be put right by one that may write there ({error}); \
             open it once with such a program",
            self.path.display()
        );
        StoreError::Refused { store: self.name.clone(), what }
    }

    async fn connect_with(&self, read_only: bool) -> sqlx::Result<SqliteSession> {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(self.create && !read_only)
            .read_only(read_only)
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .busy_timeout(self.limits.lock_wait);
        // Pages of before a statement stand in temporary files, which nobody overwrites. Readers may sort more than fits into memory.
        let options = if read_only { options } else { options.pragma("temp_store", "MEMORY") };
        let mut connection = SqliteConnection::connect_with(&options).await?;
        // A file that is not a database shows only when it is read.
        connection.execute(PROBE).await?;
        Ok(SqliteSession { store: self.name.clone(), connection })
    }

    async fn reader(&self) -> Result<SqliteSession> {
        if let Some(mut session) = self.readers.take().filter(|_| self.path.exists()) {
            match session.connection.execute(PROBE).await {
                Err(error) if is_left_unfinished(&error) => {}
                _ => return Ok(session),
            }
        }
        self.connect(true).await
    }

    async fn writer(&self) -> Result<SqliteSession> {
        match self.writers.take() {
            Some(session) if self.path.exists() => Ok(session),
            _ => self.connect(false).await,
        }
    }

    /// Reads the schema and keeps it for the statements to come.
    async fn load_schema(&self, session: &mut SqliteSession) -> Result<Arc<Schema>> {
        let catalogue = catalogue::load(session).await?;
        Ok(self.schema.put(Schema::new(Engine::Sqlite, catalogue)))
    }

    fn open(
        &self,
        session: SqliteSession,
        schema: Arc<Schema>,
        lane: &Arc<Lane<SqliteSession>>,
    ) -> Open<SqliteSession> {
        Open { session, schema, store: self.name.clone(), lane: Arc::clone(lane), cursor: Cursor::default() }
    }
}

#[async_trait]
impl DataStore for SqliteStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn engine(&self) -> Engine {
        Engine::Sqlite
    }

    async fn server_time(&self) -> Result<DateTime<Utc>> {
        let mut session = self.reader().await?;
        let sql = "SELECT CAST(strftime('%s', 'now') AS INTEGER)";
        let seconds = fetch_integer(&mut session, Statement::plain(sql)).await?;
        self.readers.put(session);
        let time = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        time.ok_or_else(|| StoreError::Failed { store: self.name.clone(), what: "the clock gave no time".to_owned() })
    }

    async fn catalogue(&self) -> Result<Catalogue> {
        let mut session = self.reader().await?;
        let schema = self.load_schema(&mut session).await?;
        self.readers.put(session);
        Ok(schema.catalogue.clone())
    }

    async fn check(&self, tables: &[String]) -> Result<Vec<Finding>> {
        let catalogue = self.catalogue().await?;
        let mut findings = super::findings::check_tables(&catalogue, tables);
        match self.writer().await {
            Ok(mut session) => match session.script("BEGIN IMMEDIATE").await {
                Ok(()) => {
                    session.script("ROLLBACK").await?;
                    self.writers.put(session);
                }
                Err(error) if error.is_retryable() => return Err(error),
                Err(_) => findings.push(self.not_writable()),
            },
            Err(error) if self.path.exists() && !error.is_retryable() => findings.push(self.not_writable()),
            Err(error) => return Err(error),
        }
        Ok(findings)
    }

    async fn open_snapshot(&self) -> Result<Box<dyn Snapshot>> {
        let mut session = self.reader().await?;
        session.script("BEGIN").await?;
        // The view starts with the first read, not with BEGIN.
        let schema = self.load_schema(&mut session).await?;
        Ok(Box::new(self.open(session, schema, &self.readers)))
    }

    async fn begin_batch(&self) -> Result<Box<dyn Batch>> {
        let mut session = self.writer().await?;
        let schema = match self.schema.get() {
            Some(schema) => schema,
            None => self.load_schema(&mut session).await?,
        };
        if !self.marker_ready.load(Ordering::Relaxed) {
            session.script(&session::create_marker_table(Engine::Sqlite)).await?;
            self.marker_ready.store(true, Ordering::Relaxed);
        }
        session.script("BEGIN IMMEDIATE").await?;
        Ok(Box::new(OpenBatch(self.open(session, schema, &self.writers))))
    }

    async fn batch_outcome(&self, run: &str, chunk: i64) -> Result<Option<BatchMarker>> {
        let mut session = self.writer().await?;
        if !catalogue::has_marker_table(&mut session).await? {
            return Ok(None);
        }
        let marker = session::fetch_marker(&mut session, Engine::Sqlite, run, chunk).await?;
        self.writers.put(session);
        Ok(marker)
    }

    async fn table_facts(&self, tables: &[String], up_to: u64) -> Result<BTreeMap<String, TableFacts>> {
        let mut session = self.reader().await?;
        let schema = self.load_schema(&mut session).await?;
        let facts = facts::read(&mut session, &schema, tables, up_to).await?;
        self.readers.put(session);
        Ok(facts)
    }

    async fn forget_markers(&self, run: &str) -> Result<()> {
        let mut session = self.writer().await?;
        if catalogue::has_marker_table(&mut session).await? {
            session.execute(session::delete_markers(Engine::Sqlite, run)).await?;
        }
        self.writers.put(session);
        Ok(())
    }

    async fn settle(&self, asked: &Settling<'_>) -> Result<PhysicalState> {
        // An idle reader of our own must not stand in the way of the checkpoint.
        drop(self.readers.take());
        let mut session = self.writer().await?;
        session.script(&format!("PRAGMA busy_timeout = {}", CHECKPOINT_WAIT.as_millis())).await?;
        let state = settle::settle(&mut session, asked).await;
        session.script(&format!("PRAGMA busy_timeout = {}", self.limits.lock_wait.as_millis())).await?;
        self.writers.put(session);
        state
    }

    async fn file_map(&self, _tables: &[String], _data: Option<&Path>) -> Result<FileMap> {
        let beside = |end: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(end);
            (FileKind::Journal, PathBuf::from(name))
        };
        let mut session = self.reader().await?;
        let rows = session.fetch(Statement::plain("PRAGMA encoding")).await?;
        self.readers.put(session);
        let own = match rows.first().and_then(|row| row.first()) {
            Some(Value::Text(name)) if name.eq_ignore_ascii_case("UTF-16le") => TextEncoding::Utf16Le,
            Some(Value::Text(name)) if name.eq_ignore_ascii_case("UTF-16be") => TextEncoding::Utf16Be,
            _ => TextEncoding::Utf8,
        };
        let mut map = FileMap { parts: [beside("-wal"), beside("-journal")].into(), ..FileMap::default() };
        map.need(FileKind::Tables, vec![self.path.clone()]);
        // Full-text indexes hold words in UTF-8 whatever the file does.
        map.encodings.extend([own, TextEncoding::Utf8]);
        Ok(map)
    }

    async fn begin_restore_as(
        &self,
        tables: &[Table],
        definitions: &Definitions,
    ) -> Result<(Box<dyn Restore>, Vec<String>)> {
        let session = self.connect(false).await?;
        restore::begin(self.name.clone(), session, (tables, definitions)).await
    }
}

impl SqliteStore {
    fn not_writable(&self) -> Finding {
        Finding {
            kind: FindingKind::NoRight,
            table: None,
            what: format!("the file {} cannot be written", self.path.display()),
            remedy: "give the agent's user write permission on the file and its folder".to_owned(),
        }
    }
}

/// One SQLite connection.
pub(super) struct SqliteSession {
    store: String,
    connection: SqliteConnection,
}

#[async_trait]
impl Session for SqliteSession {
    async fn fetch(&mut self, statement: Statement) -> Result<Vec<Row>> {
        let rows = bind(statement.sql, statement.arguments).fetch_all(&mut self.connection).await;
        let rows = rows.map_err(|error| error_of(&self.store, &error))?;
        rows.iter().map(|row| self.decode(row)).collect()
    }

    async fn execute(&mut self, statement: Statement) -> Result<u64> {
        let done = bind(statement.sql, statement.arguments).execute(&mut self.connection).await;
        Ok(done.map_err(|error| error_of(&self.store, &error))?.rows_affected())
    }

    async fn script(&mut self, sql: &str) -> Result<()> {
        let done = sqlx::raw_sql(trusted(sql)).execute(&mut self.connection).await;
        done.map(|_| ()).map_err(|error| error_of(&self.store, &error))
    }

    async fn definitions(&mut self, schema: &Schema, tables: &[&str]) -> Result<Definitions> {
        definitions::load(self, schema, tables).await
    }
}

impl SqliteSession {
    /// The whole file as a reader sees it now.
    async fn image(&mut self) -> Result<SqliteOwnedBuf> {
        self.connection.serialize(None).await.map_err(|error| error_of(&self.store, &error))
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind<'q>(sql: String, arguments: Vec<Argument>) -> Query<'q> {
    let mut query = sqlx::query(trusted(sql));
    for argument in arguments {
        query = match argument {
            Argument::Integer(number) => query.bind(number),
            Argument::Real(number) => query.bind(number),
            Argument::Text(text) => query.bind(text),
            Argument::Bytes(bytes) => query.bind(bytes),
            // The builder makes the other forms for the other engines only.
            Argument::Null | Argument::NullBytes => query.bind(None::<String>),
            Argument::Unsigned(number) => query.bind(i64::try_from(number).ok()),
            Argument::TextList(_) | Argument::BytesList(_) => query.bind(None::<Vec<u8>>),
        };
    }
    query
}

impl SqliteSession {
    fn decode(&self, row: &SqliteRow) -> Result<Row> {
        (0..row.len()).map(|index| self.decode_value(row, index)).collect()
    }

    fn decode_value(&self, row: &SqliteRow, index: usize) -> Result<Value> {
        let failed = |_| StoreError::Failed {
            store: self.store.clone(),
            what: format!("column {} of a result holds text that is not UTF-8", index + 1),
        };
        let raw = row.try_get_raw(index).map_err(|error| error_of(&self.store, &error))?;
        // A NULL shows the declared type, and would decode as 0 or an empty text.
        if raw.is_null() {
            return Ok(Value::Null);
        }
        let class = raw.type_info().name().to_owned();
        match class.as_str() {
            "INTEGER" => row.try_get_unchecked(index).map(Value::Integer).map_err(failed),
            "REAL" => row.try_get_unchecked(index).map(Value::Real).map_err(failed),
            "TEXT" => row.try_get_unchecked(index).map(Value::Text).map_err(failed),
            _ => row.try_get_unchecked(index).map(Value::Blob).map_err(failed),
        }
    }
}

/// The port's error for a driver error, without values. SQLite's messages name tables and columns, but what a trigger
/// raises is free text.
/// Whether a reader met what a killed writer left: a journal that is to be rolled back, or a log that is to be recovered
/// (`SQLITE_READONLY_RECOVERY`, `_CANTLOCK`, `_ROLLBACK`, `_CANTINIT`).
fn is_left_unfinished(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    database.code().is_some_and(|code| matches!(code.as_ref(), "264" | "520" | "776" | "1288"))
}

fn error_of(store: &str, error: &sqlx::Error) -> StoreError {
    let sqlx::Error::Database(database) = error else { return session::transport_error(store, error) };
    let store = store.to_owned();
    let code: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(1);
    let message = database.message().to_owned();
    // Primary result codes: https://www.sqlite.org/rescode.html
    match (code & 0xff, code) {
        (5 | 6, _) => StoreError::Busy { store, what: format!("another connection holds a lock ({message})") },
        (14, _) => StoreError::Unreachable { store, detail: message },
        (10 | 13, _) => StoreError::Failed { store, what: message },
        (8 | 3 | 23 | 26, _) => StoreError::Refused { store, what: message },
        (19, 1811) => StoreError::Constraint { store, what: "a trigger refused the statement".to_owned() },
        (19, _) => StoreError::Constraint { store, what: message },
        (11, _) => StoreError::Failed { store, what: "the database file is damaged".to_owned() },
        (1, 1) if message.starts_with("no such") => StoreError::Refused { store, what: message },
        _ => StoreError::Failed { store, what: format!("SQLite reported error {code}") },
    }
}

/// Text for a name inside a table-valued pragma function.
fn pragma(function: &str, columns: &str, argument: &str) -> Statement {
    Statement {
        sql: format!("SELECT {columns} FROM {}(?)", quote(Engine::Sqlite, function)),
        arguments: vec![Argument::Text(argument.to_owned())],
        outputs: vec![Output::Native],
    }
}
