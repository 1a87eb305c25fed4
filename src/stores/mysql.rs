//! The MariaDB adapter. MySQL speaks the same protocol and is meant to work, but nothing here has been run against it.
//!
//! Values other than bytes cross as the server's text, cast in the SELECT; numbers are bound as numbers, because the
//! server would compare them with text as doubles. Definitions commit at once in this engine, so a restore creates its
//! tables before its transaction begins, and removes them again when it is given up.
//!
//! A batch runs at READ COMMITTED: it locks the rows it touches and no gaps, and counts what is there now. A server
//! with `binlog_format = STATEMENT` refuses that level; MIXED (the default) and ROW allow it.

mod catalogue;
mod check;
mod definitions;
mod errors;
mod facts;
mod load;
mod restore;
mod scratch;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::{Connection, Row as _, ValueRef};

use self::errors::error_of;
pub(super) use self::scratch::MysqlServer;
use super::load::{read_beat, write_beat};
use super::session::{self, Cursor, Lane, Open, OpenBatch, SchemaCache, Session, fetch_integer};
use super::sql::{Argument, Output, Schema, Statement, trusted};
use super::{
    Batch, BatchMarker, Catalogue, DataStore, Definitions, Engine, FileMap, Finding, Limits, Load, PhysicalState,
    Restore, Result, Settling, Snapshot, StoreError, Table, TableFacts,
};
use crate::policy::registry::SecretText;
use crate::value::{Row, Value};

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// Strict, so that nothing is cut to fit; but without `NO_ZERO_DATE` and with `ALLOW_INVALID_DATES`, so that a zero date and a 30 February go back as they came, and
/// with `NO_AUTO_VALUE_ON_ZERO`, so that a 0 in a numbered column stays 0.
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,\
     NO_BACKSLASH_ESCAPES', time_zone = '+00:00', autocommit = 1, foreign_key_checks = 1, unique_checks = 1, \
     sql_auto_is_null = 0";

/// The server's time.
const MICROS: &str = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)";

/// A MariaDB database.
pub struct MysqlStore {
    name: String,
    url: SecretText,
    read_url: Option<SecretText>,
    limits: Limits,
    /// The scratch database meant instead of the one that the URL names.
    scratch: Option<String>,
    schema: SchemaCache,
    marker_ready: AtomicBool,
    readers: Arc<Lane<MysqlSession>>,
    writers: Arc<Lane<MysqlSession>>,
}

impl MysqlStore {
    /// A store at `url`; reads go to `read_url` if there is one. Nothing is connected yet.
    pub fn new(name: &str, url: SecretText, read_url: Option<SecretText>, limits: Limits) -> Self {
        let (readers, writers) = (Lane::new(), Lane::new());
        let (schema, marker_ready) = (SchemaCache::new(), AtomicBool::new(false));
        Self { name: name.to_owned(), url, read_url, limits, scratch: None, schema, marker_ready, readers, writers }
    }

    /// The same server's scratch database `name`: what is restored there is kept out of the binary log.
    fn within_scratch(mut self, name: &str) -> Self {
        self.scratch = Some(name.to_owned());
        self
    }

    async fn connect(&self, url: &SecretText) -> Result<MysqlSession> {
        let options = options_of(&self.name, url)?;
        if let Some(database) = &self.scratch {
            let mut session = connect_to(&self.name, options.database(database)).await?;
            scratch::keep_out_of_log(&mut session).await?;
            return Ok(session);
        }
        if options.get_database().is_none_or(str::is_empty) {
            let what = "the database URL names no database".to_owned();
            return Err(StoreError::Refused { store: self.name.clone(), what });
        }
        connect_to(&self.name, options).await
    }

    /// A session that still answers: the idle one, or a new one.
    async fn session(&self, lane: &Lane<MysqlSession>, url: &SecretText) -> Result<MysqlSession> {
        if let Some(mut session) = lane.take() {
            match session.script("DO 1").await {
                Ok(()) => return Ok(session),
                Err(StoreError::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.connect(url).await
    }

    async fn reader(&self) -> Result<MysqlSession> {
        self.session(&self.readers, self.read_url.as_ref().unwrap_or(&self.url)).await
    }

    async fn writer(&self) -> Result<MysqlSession> {
        self.session(&self.writers, &self.url).await
    }

    async fn load_schema(&self, session: &mut MysqlSession) -> Result<Arc<Schema>> {
        Ok(self.schema.put(catalogue::load(session).await?))
    }

    fn open(&self, session: MysqlSession, schema: Arc<Schema>, lane: &Arc<Lane<MysqlSession>>) -> Open<MysqlSession> {
        Open { session, schema, store: self.name.clone(), lane: Arc::clone(lane), cursor: Cursor::default() }
    }

    /// Makes the marker table if it is missing.
    async fn prepare_marker(&self, session: &mut MysqlSession) -> Result<()> {
        if !self.marker_ready.load(Ordering::Relaxed) {
            if !catalogue::has_marker_table(session).await? {
                session.script(&session::create_marker_table(Engine::Mysql)).await?;
            }
            self.marker_ready.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The settings of a batch. InnoDB counts its wait in whole seconds.
    fn batch_settings(&self, session: &MysqlSession) -> String {
        let (lock, statement) = (self.limits.lock_wait.as_secs().max(1), self.limits.statement);
        let (seconds, millis) = (statement.as_secs().max(1), statement.as_millis().max(1));
        let limits = if session.is_mariadb {
            format!("max_statement_time = {seconds}, idle_transaction_timeout = {seconds}")
        } else {
            format!("max_execution_time = {millis}")
        };
        format!("SET SESSION innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}, {limits}")
    }
}

#[async_trait]
impl DataStore for MysqlStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn engine(&self) -> Engine {
        Engine::Mysql
    }

    async fn server_time(&self) -> Result<DateTime<Utc>> {
        let mut session = self.writer().await?;
        let statement = Statement { sql: MICROS.to_owned(), arguments: Vec::new(), outputs: vec![Output::Integer] };
        let micros = fetch_integer(&mut session, statement).await?;
        self.writers.put(session);
        let time = micros.and_then(DateTime::from_timestamp_micros);
        time.ok_or_else(|| StoreError::Failed { store: self.name.clone(), what: "the clock gave no time".to_owned() })
    }

    async fn catalogue(&self) -> Result<Catalogue> {
        // The writing login: the server shows triggers only to those who could make them.
        let mut session = self.writer().await?;
        let schema = self.load_schema(&mut session).await?;
        self.writers.put(session);
        Ok(schema.catalogue.clone())
    }

    async fn check(&self, tables: &[String]) -> Result<Vec<Finding>> {
        let mut session = self.writer().await?;
        let schema = self.load_schema(&mut session).await?;
        let mut findings = super::findings::check_tables(&schema.catalogue, tables);
        findings.extend(check::storage(&mut session, &schema, tables).await?);
        findings.extend(check::rights(&mut session, &schema, tables).await?);
        self.writers.put(session);
        if self.read_url.is_some() {
            let mut session = self.reader().await?;
            findings.extend(check::reading(&mut session, &schema, tables).await?);
            self.readers.put(session);
        }
        Ok(findings)
    }

    async fn open_snapshot(&self) -> Result<Box<dyn Snapshot>> {
        let mut session = self.reader().await?;
        let schema = self.load_schema(&mut session).await?;
        let begin =
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
        session.script(begin).await?;
        Ok(Box::new(self.open(session, schema, &self.readers)))
    }

    async fn begin_batch(&self) -> Result<Box<dyn Batch>> {
        let mut session = self.writer().await?;
        self.prepare_marker(&mut session).await?;
        let schema = match self.schema.get() {
            Some(schema) => schema,
            None => self.load_schema(&mut session).await?,
        };
        let begin = format!(
            "{}; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION READ WRITE",
            self.batch_settings(&session)
        );
        session.script(&begin).await?;
        Ok(Box::new(OpenBatch(self.open(session, schema, &self.writers))))
    }

    async fn batch_outcome(&self, run: &str, chunk: i64) -> Result<Option<BatchMarker>> {
        let mut session = self.writer().await?;
        let marker = if catalogue::has_marker_table(&mut session).await? {
            session::fetch_marker(&mut session, Engine::Mysql, run, chunk).await?
        } else {
            None
        };
        self.writers.put(session);
        Ok(marker)
    }

    async fn table_facts(&self, tables: &[String], _up_to: u64) -> Result<BTreeMap<String, TableFacts>> {
        let mut session = self.writer().await?;
        let schema = self.load_schema(&mut session).await?;
        let facts = facts::read(&mut session, &schema, tables).await?;
        self.writers.put(session);
        Ok(facts)
    }

    async fn load(&self) -> Result<Load> {
        let mut session = self.writer().await?;
        let load = load::read(&mut session).await?;
        self.writers.put(session);
        Ok(load)
    }

    async fn beat(&self) -> Result<Option<i64>> {
        let mut session = self.writer().await?;
        self.prepare_marker(&mut session).await?;
        let statement = Statement { sql: MICROS.to_owned(), arguments: Vec::new(), outputs: vec![Output::Integer] };
        let micros = fetch_integer(&mut session, statement).await?;
        let failed = || StoreError::Failed { store: self.name.clone(), what: "the clock gave no time".to_owned() };
        let micros = micros.ok_or_else(failed)?;
        let beat = write_beat(&mut session, Engine::Mysql, micros).await?;
        self.writers.put(session);
        Ok(Some(beat))
    }

    async fn last_beat(&self) -> Result<Option<i64>> {
        let mut session = self.reader().await?;
        let beat = read_beat(&mut session, Engine::Mysql).await?;
        self.readers.put(session);
        Ok(beat)
    }

    async fn forget_markers(&self, run: &str) -> Result<()> {
        let mut session = self.writer().await?;
        if catalogue::has_marker_table(&mut session).await? {
            session.execute(session::delete_markers(Engine::Mysql, run)).await?;
        }
        self.writers.put(session);
        Ok(())
    }

    async fn settle(&self, asked: &Settling<'_>) -> Result<PhysicalState> {
        let mut session = self.connect(&self.url).await?;
        let schema = self.load_schema(&mut session).await?;
        settle::settle(&mut session, &schema, asked).await
    }

    async fn file_map(&self, tables: &[String], data: Option<&Path>) -> Result<FileMap> {
        let mut session = self.writer().await?;
        let schema = self.load_schema(&mut session).await?;
        let map = settle::file_map(&mut session, (&schema, tables), data).await?;
        self.writers.put(session);
        Ok(map)
    }

    async fn begin_restore_as(
        &self,
        tables: &[Table],
        definitions: &Definitions,
    ) -> Result<(Box<dyn Restore>, Vec<String>)> {
        let session = self.connect(&self.url).await?;
        restore::begin(self.name.clone(), session, (tables, definitions)).await
    }
}

/// How to connect to what a URL names.
fn options_of(store: &str, url: &SecretText) -> Result<MySqlConnectOptions> {
    // The driver knows one scheme only.
    let text = url.dangerous_text();
    let renamed = text.strip_prefix("mariadb:").map(|rest| SecretText::new(format!("mysql:{rest}")));
    let text = renamed.as_ref().map_or(text, SecretText::dangerous_text);
    let what = || "the database URL cannot be read".to_owned();
    let options = MySqlConnectOptions::from_str(text)
        .map_err(|_| StoreError::Refused { store: store.to_owned(), what: what() })?;
    Ok(options.charset("utf8mb4"))
}

async fn connect_to(store: &str, options: MySqlConnectOptions) -> Result<MysqlSession> {
    let connecting = tokio::time::timeout(CONNECT_WAIT, MySqlConnection::connect_with(&options)).await;
    let connected = connecting.map_err(|_| {
        let detail = format!("no answer within {} seconds", CONNECT_WAIT.as_secs());
        StoreError::Unreachable { store: store.to_owned(), detail }
    })?;
    let connection = connected.map_err(|error| error_of(store, &error))?;
    let mut session = MysqlSession { store: store.to_owned(), connection, is_mariadb: true };
    session.script(SESSION).await?;
    let version = session.fetch(Statement::plain("SELECT version()")).await?;
    let is_mariadb =
        matches!(version.first().and_then(|row| row.first()), Some(Value::Text(text)) if text.contains("MariaDB"));
    session.is_mariadb = is_mariadb;
    Ok(session)
}

/// One MariaDB connection.
pub(super) struct MysqlSession {
    store: String,
    connection: MySqlConnection,
    is_mariadb: bool,
}

#[async_trait]
impl Session for MysqlSession {
    async fn fetch(&mut self, statement: Statement) -> Result<Vec<Row>> {
        let outputs = statement.outputs.clone();
        // One by one: the driver's form of a row takes several times the memory of ours.
        let (store, mut rows) = (&self.store, bind(statement).fetch(&mut self.connection));
        let mut read = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(|error| error_of(store, &error))? {
            read.push(decode(store, &row, &outputs)?);
        }
        Ok(read)
    }

    async fn execute(&mut self, statement: Statement) -> Result<u64> {
        let done = bind(statement).execute(&mut self.connection).await;
        // The driver asks the server to count matched rows, not only changed ones.
        Ok(done.map_err(|error| error_of(&self.store, &error))?.rows_affected())
    }

    async fn script(&mut self, sql: &str) -> Result<()> {
        let done = sqlx::raw_sql(trusted(sql)).execute(&mut self.connection).await;
        done.map(|_| ()).map_err(|error| error_of(&self.store, &error))
    }

    fn returns_deleted(&self) -> bool {
        self.is_mariadb
    }

    async fn definitions(&mut self, schema: &Schema, tables: &[&str]) -> Result<Definitions> {
        definitions::load(self, schema, tables).await
    }
}

fn bind<'q>(statement: Statement) -> sqlx::query::Query<'q, sqlx::MySql, MySqlArguments> {
    let mut query = sqlx::query(trusted(statement.sql));
    for argument in statement.arguments {
        query = match argument {
            Argument::Null => query.bind(None::<String>),
            Argument::Integer(number) => query.bind(number),
            Argument::Unsigned(number) => query.bind(number),
            Argument::Real(number) => query.bind(number),
            Argument::Text(text) => query.bind(text),
            Argument::Bytes(bytes) => query.bind(bytes),
            // The builder makes lists for PostgreSQL only.
            Argument::NullBytes | Argument::TextList(_) | Argument::BytesList(_) => query.bind(None::<Vec<u8>>),
        };
    }
    query
}

/// Reads each column as the statement says; what it does not say is text.
fn decode(store: &str, row: &MySqlRow, outputs: &[Output]) -> Result<Row> {
    let failed = |error: sqlx::Error| error_of(store, &error);
    let mut values = Row::with_capacity(row.len());
    for index in 0..row.len() {
        if row.try_get_raw(index).map_err(failed)?.is_null() {
            values.push(Value::Null);
            continue;
        }
        values.push(match outputs.get(index) {
            Some(Output::Bytes) => Value::Blob(row.try_get_unchecked(index).map_err(failed)?),
            Some(Output::Integer) => Value::Integer(row.try_get_unchecked(index).map_err(failed)?),
            _ => {
                let bytes: Vec<u8> = row.try_get_unchecked(index).map_err(failed)?;
                let what = format!("column {} of a result holds text that is not UTF-8", index + 1);
                let not_text = |_| StoreError::Failed { store: store.to_owned(), what };
                Value::Text(String::from_utf8(bytes).map_err(not_text)?)
            }
        });
    }
    Ok(values)
}
