//! What the three adapters share: a snapshot and a batch over a session that can run statements.
//!
//! An adapter opens the session and begins the transaction; from there on the port's calls are the same for every
//! engine, because [`super::sql`] writes the engine's dialect.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::sql::{self, Argument, Output, Schema, SqlError, Statement, quote};
use super::{
    Batch, BatchMarker, ColumnRef, Definitions, Engine, Filter, ForeignKey, Hop, Result, RowQuery, Snapshot, StoreError,
};
use crate::value::{Row, Value};

/// The marker table's name.
pub(super) const MARKER_TABLE: &str = "wangchuan_batch";

/// One connection, able to run what [`super::sql`] makes. Every error it returns is already free of values.
#[async_trait]
pub(super) trait Session: Send + Sized + 'static {
    /// Runs a query and returns all its rows.
    async fn fetch(&mut self, statement: Statement) -> Result<Vec<Row>>;
    /// Runs a statement and returns how many rows it touched.
    async fn execute(&mut self, statement: Statement) -> Result<u64>;
    /// Runs text without values: transaction control, settings, definitions.
    async fn script(&mut self, sql: &str) -> Result<()>;
    /// Whether a DELETE can return what it deleted.
    fn returns_deleted(&self) -> bool {
        false
    }
    /// How tables are defined.
    async fn definitions(&mut self, schema: &Schema, tables: &[&str]) -> Result<Definitions>;
}

/// Keeps idle connections for the next callers, so that a batch does not pay for a login. As many as were used beside each other.
pub(super) struct Lane<S>(Mutex<Vec<S>>);

impl<S> Lane<S> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Vec::new())))
    }

    pub fn take(&self) -> Option<S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub fn put(&self, session: S) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

/// The schema that statements are built from, as last read.
pub(super) struct SchemaCache(Mutex<Option<Arc<Schema>>>);

impl SchemaCache {
    pub fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub fn get(&self) -> Option<Arc<Schema>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn put(&self, schema: Schema) -> Arc<Schema> {
        let schema = Arc::new(schema);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&schema));
        schema
    }
}

/// The port's error for what is no answer of the server: no values can be in it.
pub(super) fn transport_error(store: &str, error: &sqlx::Error) -> StoreError {
    let store = store.to_owned();
    match error {
        sqlx::Error::Io(error) => StoreError::Unreachable { store, detail: error.kind().to_string() },
        sqlx::Error::Tls(_) => {
            StoreError::Unreachable { store, detail: "no secure connection could be made".to_owned() }
        }
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            StoreError::Unreachable { store, detail: "the connection is out of step".to_owned() }
        }
        sqlx::Error::Configuration(_) => {
            StoreError::Refused { store, what: "the connection settings cannot be used".to_owned() }
        }
        _ => StoreError::Failed { store, what: "the driver could not read the answer".to_owned() },
    }
}

/// Turns a query that cannot be put into the port's error.
pub(super) fn refused(store: &str) -> impl Fn(SqlError) -> StoreError + '_ {
    move |error| StoreError::Refused { store: store.to_owned(), what: error.to_string() }
}

/// The one integer of a counting query.
pub(super) async fn fetch_integer<S: Session>(session: &mut S, statement: Statement) -> Result<Option<i64>> {
    let rows = session.fetch(statement).await?;
    Ok(match rows.first().and_then(|row| row.first()) {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    })
}

/// A counting query that must answer.
pub(super) async fn fetch_count<S: Session>(session: &mut S, store: &str, statement: Statement) -> Result<u64> {
    let count = fetch_integer(session, statement).await?.and_then(|count| u64::try_from(count).ok());
    count.ok_or_else(|| StoreError::Failed { store: store.to_owned(), what: "a count returned no number".to_owned() })
}

/// Reads one page. On the first page it makes sure that paging by this key can miss no row: no key value is NULL, and
/// no two rows share a key.
async fn read_page<S: Session>(
    session: &mut S,
    schema: &Schema,
    store: &str,
    query: &RowQuery,
    lock: bool,
) -> Result<Vec<Row>> {
    let page = sql::select_page(schema, query, lock).map_err(refused(store))?;
    if query.after.is_none() {
        check_key(session, schema, store, query).await?;
    }
    session.fetch(page).await
}

/// Makes sure that no key value of a query's rows is NULL, and that no two rows share a key.
async fn check_key<S: Session>(session: &mut S, schema: &Schema, store: &str, query: &RowQuery) -> Result<()> {
    let refuse = |what: String| StoreError::Refused { store: store.to_owned(), what };
    if let Some(statement) = sql::select_null_key(schema, query).map_err(refused(store))?
        && fetch_integer(session, statement).await?.is_some()
    {
        let what = format!("table {} has rows whose key ({}) is NULL", query.table, query.key.join(", "));
        return Err(refuse(format!("{what}; they cannot be told apart")));
    }
    if let Some(statement) = sql::select_duplicate_key(schema, query).map_err(refused(store))?
        && fetch_integer(session, statement).await?.is_some()
    {
        let what = format!("table {} has several rows with the same key ({})", query.table, query.key.join(", "));
        return Err(refuse(format!("{what}; choose a key that is unique")));
    }
    Ok(())
}

async fn count_rows<S: Session>(session: &mut S, schema: &Schema, store: &str, query: &RowQuery) -> Result<u64> {
    let statement = sql::select_count(schema, query).map_err(refused(store))?;
    fetch_count(session, store, statement).await
}

/// Inserts rows in as few statements as the parameter limits allow.
pub(super) async fn insert_rows<S: Session>(
    session: &mut S,
    schema: &Schema,
    store: &str,
    table: &str,
    columns: &[String],
    rows: &[Row],
) -> Result<()> {
    let at_once = (sql::MAX_BOUND_VALUES / columns.len().max(1)).clamp(1, 500);
    for chunk in rows.chunks(at_once) {
        let statement = sql::insert(schema, table, columns, chunk).map_err(refused(store))?;
        session.execute(statement).await?;
    }
    Ok(())
}

/// How many rows a table holds.
pub(super) async fn count_table<S: Session>(session: &mut S, schema: &Schema, store: &str, table: &str) -> Result<u64> {
    schema.table(table).map_err(refused(store))?;
    let sql = format!("SELECT count(*) FROM {}", schema.place(table));
    let statement = Statement { sql, arguments: Vec::new(), outputs: vec![Output::Integer] };
    fetch_count(session, store, statement).await
}

/// Values of a foreign key that no parent row has.
pub(super) async fn fetch_missing<S: Session>(
    session: &mut S,
    schema: &Schema,
    store: &str,
    (table, key): (&str, &ForeignKey),
    limit: u32,
) -> Result<Vec<Row>> {
    session.fetch(sql::missing_parents(schema, table, key, limit).map_err(refused(store))?).await
}

/// CREATE TABLE of the marker table.
pub(super) fn create_marker_table(engine: Engine) -> String {
    let (text, end) = match engine {
        Engine::Sqlite | Engine::Postgres => ("text", ""),
        Engine::Mysql => ("varchar(64) CHARACTER SET ascii COLLATE ascii_bin", " ENGINE=InnoDB"),
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {} (run {text} NOT NULL, chunk bigint NOT NULL, token bigint NOT NULL, \
         erased bigint NOT NULL, changed bigint NOT NULL, PRIMARY KEY (run, chunk)){end}",
        quote(engine, MARKER_TABLE)
    )
}

/// Placeholders for `count` values.
fn places(engine: Engine, count: usize) -> Vec<String> {
    (1..=count).map(|n| if engine == Engine::Postgres { format!("${n}") } else { "?".to_owned() }).collect()
}

/// The primary key makes a second commit of the same chunk impossible, whoever tries it.
fn insert_marker(engine: Engine, marker: &BatchMarker) -> Statement {
    let numbers = [marker.chunk, marker.token, marker.erased, marker.changed].map(Argument::Integer);
    let table = quote(engine, MARKER_TABLE);
    let values = places(engine, 5).join(", ");
    Statement {
        sql: format!("INSERT INTO {table} (run, chunk, token, erased, changed) VALUES ({values})"),
        arguments: std::iter::once(Argument::Text(marker.run.clone())).chain(numbers).collect(),
        outputs: Vec::new(),
    }
}

/// Reads a marker.
pub(super) async fn fetch_marker<S: Session>(
    session: &mut S,
    engine: Engine,
    run: &str,
    chunk: i64,
) -> Result<Option<BatchMarker>> {
    let places = places(engine, 2);
    let statement = Statement {
        sql: format!(
            "SELECT token, erased, changed FROM {} WHERE run = {} AND chunk = {}",
            quote(engine, MARKER_TABLE),
            places[0],
            places[1]
        ),
        arguments: vec![Argument::Text(run.to_owned()), Argument::Integer(chunk)],
        outputs: vec![Output::Integer; 3],
    };
    let rows = session.fetch(statement).await?;
    Ok(match rows.first().map(Vec::as_slice) {
        Some([Value::Integer(token), Value::Integer(erased), Value::Integer(changed)]) => {
            let (token, erased, changed) = (*token, *erased, *changed);
            Some(BatchMarker { run: run.to_owned(), chunk, token, erased, changed })
        }
        _ => None,
    })
}

/// Deletes a run's markers.
pub(super) fn delete_markers(engine: Engine, run: &str) -> Statement {
    let (table, place) = (quote(engine, MARKER_TABLE), &places(engine, 1)[0]);
    let sql = format!("DELETE FROM {table} WHERE run = {place}");
    Statement { sql, arguments: vec![Argument::Text(run.to_owned())], outputs: Vec::new() }
}

/// A session inside an open transaction, with what is needed to build statements.
pub(super) struct Open<S> {
    pub session: S,
    pub schema: Arc<Schema>,
    pub store: String,
    pub lane: Arc<Lane<S>>,
    pub cursor: Cursor,
}

/// The server's cursor that a view reads groups with, PostgreSQL's alone, while it is open. Each has another number, on whatever
/// connection: a connection keeps, by its text, what a statement answers.
#[derive(Default)]
pub(super) struct Cursor(Option<u64>);

static CURSORS: AtomicU64 = AtomicU64::new(1);

fn cursor_name(number: u64) -> String {
    format!("wangchuan_rows_{number}")
}

impl<S: Session> Open<S> {
    async fn close_cursor(&mut self) -> Result<()> {
        match self.cursor.0.take() {
            Some(number) => self.session.script(&format!("CLOSE {}", cursor_name(number))).await,
            None => Ok(()),
        }
    }

    /// Opens a cursor over all rows of a query. The server sorts once, and does not look for a plan that gives the first rows early.
    async fn open_cursor(&mut self, query: &RowQuery, group: &ColumnRef) -> Result<u64> {
        self.close_cursor().await?;
        check_key(&mut self.session, &self.schema, &self.store, query).await?;
        let rows = sql::select_grouped(&self.schema, query, group).map_err(refused(&self.store))?;
        let number = CURSORS.fetch_add(1, Ordering::Relaxed);
        let declare = format!("DECLARE {} NO SCROLL CURSOR FOR {}", cursor_name(number), rows.sql);
        self.session
            .script(&format!("SET LOCAL statement_timeout = 0; SET LOCAL cursor_tuple_fraction = 1; {declare}"))
            .await?;
        self.cursor.0 = Some(number);
        Ok(number)
    }
}

#[async_trait]
impl<S: Session> Snapshot for Open<S> {
    async fn read_grouped(&mut self, query: &RowQuery, group: Option<&ColumnRef>) -> Result<Vec<Row>> {
        let (true, Filter::All, Some(group)) = (self.is_grouping(), &query.filter, group) else {
            return self.read(query).await;
        };
        let number = match (&query.after, self.cursor.0) {
            (None, _) => self.open_cursor(query, group).await?,
            (Some(_), Some(number)) => number,
            // Behind the last page.
            (Some(_), None) => return Ok(Vec::new()),
        };
        let sql = format!("FETCH FORWARD {} FROM {}", query.limit, cursor_name(number));
        let rows = self.session.fetch(Statement { sql, arguments: Vec::new(), outputs: Vec::new() }).await?;
        if rows.len() < query.limit as usize {
            self.close_cursor().await?;
        }
        Ok(rows)
    }

    fn is_grouping(&self) -> bool {
        self.schema.engine == Engine::Postgres
    }

    async fn read(&mut self, query: &RowQuery) -> Result<Vec<Row>> {
        read_page(&mut self.session, &self.schema, &self.store, query, false).await
    }

    async fn count(&mut self, query: &RowQuery) -> Result<u64> {
        count_rows(&mut self.session, &self.schema, &self.store, query).await
    }

    async fn count_up_to(&mut self, query: &RowQuery, most: u64) -> Result<u64> {
        let statement = sql::select_count_up_to(&self.schema, query, most).map_err(refused(&self.store))?;
        fetch_count(&mut self.session, &self.store, statement).await
    }

    async fn definitions(&mut self, tables: &[String]) -> Result<Definitions> {
        for table in tables {
            self.schema.table(table).map_err(refused(&self.store))?;
        }
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        self.session.definitions(&self.schema, &names).await
    }

    async fn close(self: Box<Self>) -> Result<()> {
        roll_back(*self).await
    }
}

async fn roll_back<S: Session>(mut open: Open<S>) -> Result<()> {
    open.session.script("ROLLBACK").await?;
    open.lane.put(open.session);
    Ok(())
}

/// A write transaction; a type of its own so that a snapshot cannot be taken for one.
pub(super) struct OpenBatch<S>(pub Open<S>);

#[async_trait]
impl<S: Session> Batch for OpenBatch<S> {
    async fn read_for_update(&mut self, query: &RowQuery) -> Result<Vec<Row>> {
        read_page(&mut self.0.session, &self.0.schema, &self.0.store, query, true).await
    }

    async fn count(&mut self, query: &RowQuery) -> Result<u64> {
        count_rows(&mut self.0.session, &self.0.schema, &self.0.store, query).await
    }

    async fn read(&mut self, query: &RowQuery) -> Result<Vec<Row>> {
        read_page(&mut self.0.session, &self.0.schema, &self.0.store, query, false).await
    }

    async fn take(&mut self, query: &RowQuery) -> Result<Option<Vec<Row>>> {
        if !self.0.session.returns_deleted() {
            return Ok(None);
        }
        match sql::take(&self.0.schema, query).map_err(refused(&self.0.store))? {
            Some(statement) => self.0.session.fetch(statement).await.map(Some),
            None => Ok(None),
        }
    }

    async fn delete(&mut self, table: &str, path: &[Hop], filter: &Filter) -> Result<u64> {
        let statement = sql::delete(&self.0.schema, table, path, filter).map_err(refused(&self.0.store))?;
        self.0.session.execute(statement).await
    }

    async fn update(&mut self, table: &str, set: &[(String, Value)], filter: &Filter) -> Result<u64> {
        let statement = sql::update(&self.0.schema, table, set, filter).map_err(refused(&self.0.store))?;
        self.0.session.execute(statement).await
    }

    async fn insert(&mut self, table: &str, columns: &[String], row: &Row) -> Result<()> {
        let rows = std::slice::from_ref(row);
        insert_rows(&mut self.0.session, &self.0.schema, &self.0.store, table, columns, rows).await
    }

    async fn put_off_checks(&mut self) -> Result<()> {
        match self.0.schema.engine {
            Engine::Sqlite => self.0.session.script("PRAGMA defer_foreign_keys = ON").await,
            Engine::Postgres => self.0.session.script("SET CONSTRAINTS ALL DEFERRED").await,
            Engine::Mysql => Ok(()),
        }
    }

    async fn mark(&mut self, marker: &BatchMarker) -> Result<()> {
        let engine = self.0.schema.engine;
        self.0.session.execute(insert_marker(engine, marker)).await.map(|_| ())
    }

    async fn commit(self: Box<Self>, marker: &BatchMarker) -> Result<()> {
        let mut open = self.0;
        open.session.execute(insert_marker(open.schema.engine, marker)).await?;
        open.session.script("COMMIT").await?;
        open.lane.put(open.session);
        Ok(())
    }

    async fn roll_back(self: Box<Self>) -> Result<()> {
        roll_back(self.0).await
    }
}
