//! The PostgreSQL adapter.
//!
//! Every value crosses as the server's exact text form, except bytea, which crosses as bytes: columns are cast to text
//! in the SELECT, and parameters are cast to the column's type on the way in, so that an index on the column stays
//! usable. The session settings below make those text forms independent of the server's configuration.
//!
//! `row_security = off` turns rows hidden by a policy into an error: a session that may not see every row must not
//! report that nothing is left.

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
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::{Column as _, Connection, Row as _, TypeInfo, ValueRef};

use self::errors::error_of;
pub(super) use self::scratch::PostgresServer;
use super::load::{read_beat, write_beat};
use super::session::{self, Cursor, Lane, Open, OpenBatch, SchemaCache, Session, fetch_integer};
use super::sql::{Argument, Schema, Statement, trusted};
use super::{
    Batch, BatchMarker, Catalogue, DataStore, Definitions, Engine, FileMap, Finding, Limits, Load, PhysicalState,
    Restore, Result, Settling, Snapshot, StoreError, Table, TableFacts,
};
use crate::policy::registry::SecretText;
use crate::value::{Row, Value};

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// What fixes the text form of every type for the session.
const SESSION: &str = "SET extra_float_digits = 1; SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; \
     SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET xmlbinary = 'base64'; \
     SET xmloption = 'content'; SET standard_conforming_strings = on; SET row_security = off; \
     SET client_min_messages = warning";

/// The server's time.
const MICROS: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)";

/// A PostgreSQL database.
pub struct PostgresStore {
    name: String,
    url: SecretText,
    read_url: Option<SecretText>,
    limits: Limits,
    /// The scratch database meant instead of the one that the URL names.
    scratch: Option<String>,
    schema: SchemaCache,
    marker_ready: AtomicBool,
    readers: Arc<Lane<PgSession>>,
    writers: Arc<Lane<PgSession>>,
}

impl PostgresStore {
    /// A store at `url`; reads go to `read_url` if there is one. Nothing is connected yet.
    pub fn new(name: &str, url: SecretText, read_url: Option<SecretText>, limits: Limits) -> Self {
        let (readers, writers) = (Lane::new(), Lane::new());
        let (schema, marker_ready) = (SchemaCache::new(), AtomicBool::new(false));
        Self { name: name.to_owned(), url, read_url, limits, scratch: None, schema, marker_ready, readers, writers }
    }

    /// The same server's scratch database `name`: what is restored there is kept out of the write-ahead log.
    fn within_scratch(mut self, name: &str) -> Self {
        self.scratch = Some(name.to_owned());
        self
    }

    async fn connect(&self, url: &SecretText) -> Result<PgSession> {
        let store = || self.name.clone();
        let options = PgConnectOptions::from_str(url.dangerous_text())
            .map_err(|_| StoreError::Refused { store: store(), what: "the database URL cannot be read".to_owned() })?
            .application_name("wangchuan");
        let options = match &self.scratch {
            Some(database) => options.database(database),
            None => options,
        };
        let connecting = tokio::time::timeout(CONNECT_WAIT, PgConnection::connect_with(&options)).await;
        let connected = connecting.map_err(|_| {
            let detail = format!("no answer within {} seconds", CONNECT_WAIT.as_secs());
            StoreError::Unreachable { store: store(), detail }
        })?;
        let connection = connected.map_err(|error| error_of(&self.name, &error))?;
        let mut session = PgSession { store: store(), connection };
        session.script(SESSION).await?;
        Ok(session)
    }

    /// A session on which `begin` has been run: the idle one if it still answers, else a new one.
    async fn begin(&self, lane: &Lane<PgSession>, url: &SecretText, begin: &str) -> Result<PgSession> {
        if let Some(mut session) = lane.take() {
            match session.script(begin).await {
                Ok(()) => return Ok(session),
                Err(StoreError::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut session = self.connect(url).await?;
        session.script(begin).await?;
        Ok(session)
    }

    async fn reader(&self) -> Result<PgSession> {
        self.begin(&self.readers, self.read_url.as_ref().unwrap_or(&self.url), "SELECT 1").await
    }

    async fn writer(&self) -> Result<PgSession> {
        self.begin(&self.writers, &self.url, "SELECT 1").await
    }

    async fn load_schema(&self, session: &mut PgSession) -> Result<Arc<Schema>> {
        Ok(self.schema.put(catalogue::load(session).await?))
    }

    fn open(&self, session: PgSession, schema: Arc<Schema>, lane: &Arc<Lane<PgSession>>) -> Open<PgSession> {
        Open { session, schema, store: self.name.clone(), lane: Arc::clone(lane), cursor: Cursor::default() }
    }

    /// Makes the marker table if it is missing. The right to create is needed only then.
    async fn prepare_marker(&self) -> Result<()> {
        if self.marker_ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut session = self.writer().await?;
        if !catalogue::has_marker_table(&mut session).await? {
            let made = session.script(&session::create_marker_table(Engine::Postgres)).await;
            // Another agent may have made it in the same moment.
            if made.is_err() && !catalogue::has_marker_table(&mut session).await? {
                made?;
            }
        }
        self.writers.put(session);
        self.marker_ready.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl DataStore for PostgresStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    async fn server_time(&self) -> Result<DateTime<Utc>> {
        let mut session = self.writer().await?;
        let micros = fetch_integer(&mut session, Statement::plain(MICROS)).await?;
        self.writers.put(session);
        let time = micros.and_then(DateTime::from_timestamp_micros);
        time.ok_or_else(|| StoreError::Failed { store: self.name.clone(), what: "the clock gave no time".to_owned() })
    }

    async fn catalogue(&self) -> Result<Catalogue> {
        let mut session = self.reader().await?;
        let schema = self.load_schema(&mut session).await?;
        self.readers.put(session);
        Ok(schema.catalogue.clone())
    }

    async fn check(&self, tables: &[String]) -> Result<Vec<Finding>> {
        let mut session = self.writer().await?;
        let schema = self.load_schema(&mut session).await?;
        let mut findings = super::findings::check_tables(&schema.catalogue, tables);
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
        let url = self.read_url.as_ref().unwrap_or(&self.url);
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut session = self.begin(&self.readers, url, begin).await?;
        // The view is fixed by the first query, which this is.
        let schema = self.load_schema(&mut session).await?;
        Ok(Box::new(self.open(session, schema, &self.readers)))
    }

    async fn begin_batch(&self) -> Result<Box<dyn Batch>> {
        self.prepare_marker().await?;
        let (lock, statement) = (self.limits.lock_wait.as_millis(), self.limits.statement.as_millis());
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {lock}; \
             SET LOCAL statement_timeout = {statement}; SET LOCAL idle_in_transaction_session_timeout = {statement}"
        );
        let mut session = self.begin(&self.writers, &self.url, &begin).await?;
        let schema = match self.schema.get() {
            Some(schema) => schema,
            None => self.load_schema(&mut session).await?,
        };
        Ok(Box::new(OpenBatch(self.open(session, schema, &self.writers))))
    }

    async fn batch_outcome(&self, run: &str, chunk: i64) -> Result<Option<BatchMarker>> {
        let mut session = self.writer().await?;
        let marker = if catalogue::has_marker_table(&mut session).await? {
            session::fetch_marker(&mut session, Engine::Postgres, run, chunk).await?
        } else {
            None
        };
        self.writers.put(session);
        Ok(marker)
    }

    async fn table_facts(&self, tables: &[String], _up_to: u64) -> Result<BTreeMap<String, TableFacts>> {
        let mut session = self.reader().await?;
        let schema = self.load_schema(&mut session).await?;
        let facts = facts::read(&mut session, &schema, tables).await?;
        self.readers.put(session);
        Ok(facts)
    }

    async fn load(&self) -> Result<Load> {
        let mut session = self.writer().await?;
        let load = load::read(&mut session).await?;
        self.writers.put(session);
        Ok(load)
    }

    async fn beat(&self) -> Result<Option<i64>> {
        self.prepare_marker().await?;
        let mut session = self.writer().await?;
        let micros = fetch_integer(&mut session, Statement::plain(MICROS)).await?;
        let failed = || StoreError::Failed { store: self.name.clone(), what: "the clock gave no time".to_owned() };
        let micros = micros.ok_or_else(failed)?;
        let beat = write_beat(&mut session, Engine::Postgres, micros).await?;
        self.writers.put(session);
        Ok(Some(beat))
    }

    async fn last_beat(&self) -> Result<Option<i64>> {
        let mut session = self.reader().await?;
        let beat = read_beat(&mut session, Engine::Postgres).await?;
        self.readers.put(session);
        Ok(beat)
    }

    async fn forget_markers(&self, run: &str) -> Result<()> {
        let mut session = self.writer().await?;
        if catalogue::has_marker_table(&mut session).await? {
            session.execute(session::delete_markers(Engine::Postgres, run)).await?;
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
        let settings = restore::Settings { lock_wait: self.limits.lock_wait, is_scratch: self.scratch.is_some() };
        restore::begin(self.name.clone(), session, (tables, definitions), settings).await
    }
}

/// One PostgreSQL connection.
pub(super) struct PgSession {
    store: String,
    connection: PgConnection,
}

#[async_trait]
impl Session for PgSession {
    async fn fetch(&mut self, statement: Statement) -> Result<Vec<Row>> {
        // One by one: the driver's form of a row takes several times the memory of ours.
        let (store, mut rows) = (&self.store, bind(statement).fetch(&mut self.connection));
        let mut read = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(|error| error_of(store, &error))? {
            read.push(decode(store, &row)?);
        }
        Ok(read)
    }

    async fn execute(&mut self, statement: Statement) -> Result<u64> {
        let done = bind(statement).execute(&mut self.connection).await;
        Ok(done.map_err(|error| error_of(&self.store, &error))?.rows_affected())
    }

    async fn script(&mut self, sql: &str) -> Result<()> {
        let done = sqlx::raw_sql(trusted(sql)).execute(&mut self.connection).await;
        done.map(|_| ()).map_err(|error| error_of(&self.store, &error))
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    async fn definitions(&mut self, schema: &Schema, tables: &[&str]) -> Result<Definitions> {
        definitions::load(self, schema, tables).await
    }
}

fn bind<'q>(statement: Statement) -> sqlx::query::Query<'q, sqlx::Postgres, PgArguments> {
    let mut query = sqlx::query(trusted(statement.sql));
    for argument in statement.arguments {
        query = match argument {
            Argument::Null => query.bind(None::<String>),
            Argument::NullBytes => query.bind(None::<Vec<u8>>),
            Argument::Integer(number) => query.bind(number),
            Argument::Unsigned(number) => query.bind(number.to_string()),
            Argument::Real(number) => query.bind(number),
            Argument::Text(text) => query.bind(text),
            Argument::Bytes(bytes) => query.bind(bytes),
            Argument::TextList(texts) => query.bind(texts),
            Argument::BytesList(blobs) => query.bind(blobs),
        };
    }
    query
}

fn decode(store: &str, row: &PgRow) -> Result<Row> {
    let failed = |error: &sqlx::Error| error_of(store, error);
    let mut values = Row::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        if row.try_get_raw(index).map_err(|error| failed(&error))?.is_null() {
            values.push(Value::Null);
            continue;
        }
        let value = match column.type_info().name() {
            "BYTEA" => row.try_get_unchecked(index).map(Value::Blob),
            "INT8" => row.try_get_unchecked(index).map(Value::Integer),
            "INT4" => row.try_get_unchecked::<i32, _>(index).map(|number| Value::Integer(i64::from(number))),
            "BOOL" => row.try_get_unchecked::<bool, _>(index).map(|truth| Value::Integer(i64::from(truth))),
            // The builder casts everything else to text.
            _ => row.try_get_unchecked(index).map(Value::Text),
        };
        values.push(value.map_err(|error| failed(&error))?);
    }
    Ok(values)
}
