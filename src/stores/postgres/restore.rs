//! Putting rows back into PostgreSQL, in one transaction.
//!
//! Definitions are transactional here: foreign keys of the tables concerned are dropped at the beginning and added
//! again at the end, over rows that have been looked at, so that the order of the tables and cycles do not matter. Rows
//! go in by COPY, in the text form they are carried in.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;

use super::{PgSession, catalogue, error_of};
use crate::stores::session::{Session, count_table, fetch_count, fetch_integer, fetch_missing, refused};
use crate::stores::sql::{self, Argument, Place, Schema, Statement, quote, trusted};
use crate::stores::{Column, Engine, ForeignKey, Restore, Result, StoreError, Table};
use crate::value::{Row, Value};

/// A foreign key to be put in force at the end.
struct Pending {
    table: String,
    key: ForeignKey,
    /// The statement that does it.
    add: String,
}

struct PgRestore {
    store: String,
    session: PgSession,
    schema: Schema,
    pending: Vec<Pending>,
    index_statements: Vec<String>,
    filled: BTreeSet<String>,
}

/// Begins; creates the missing tables, and sets foreign keys aside. In a scratch database the new tables are unlogged.
pub(super) async fn begin(
    store: String,
    mut session: PgSession,
    tables: &[Table],
    lock_wait: Duration,
    is_scratch: bool,
) -> Result<(Box<dyn Restore>, Vec<String>)> {
    session.script(&format!("BEGIN; SET LOCAL lock_timeout = {}", lock_wait.as_millis())).await?;
    let present = catalogue::load(&mut session).await?;
    let (mut notes, mut index_statements, mut pending) = (Vec::new(), Vec::new(), Vec::new());
    for table in tables {
        if present.catalogue.table(&table.name).is_some() {
            pending.extend(set_aside(&mut session, &present, &table.name).await?);
            continue;
        }
        let (kept, left_out) = sql::split_foreign_keys(table, tables, &present.catalogue);
        let mut target = present.clone();
        place_new(&mut target, &table.name);
        if let Some(Place { schema: Some(name), .. }) = target.places.get(&table.name) {
            session.script(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote(Engine::Postgres, name))).await?;
        }
        let (statement, remarks) = sql::create_table(&target, table, &[]);
        session.script(&if is_scratch { unlogged(&statement.sql) } else { statement.sql }).await?;
        notes.extend(left_out.into_iter().chain(remarks));
        index_statements.extend(table.index_statements.iter().cloned());
        pending.extend(kept.into_iter().map(|key| Pending { table: table.name.clone(), key, add: String::new() }));
    }
    let schema = catalogue::load(&mut session).await?;
    for Pending { table, key, add } in pending.iter_mut().filter(|pending| pending.add.is_empty()) {
        *add = sql::add_foreign_key(&schema, table, key).sql;
    }
    let filled = BTreeSet::new();
    Ok((Box::new(PgRestore { store, session, schema, pending, index_statements, filled }), notes))
}

/// The same table, out of the write-ahead log; and never analysed, for statistics hold values and are logged.
fn unlogged(create_table: &str) -> String {
    format!("{} WITH (autovacuum_enabled = off)", create_table.replacen("CREATE TABLE", "CREATE UNLOGGED TABLE", 1))
}

/// `schema.table` of a table that is not there yet lies in that schema.
fn place_new(schema: &mut Schema, name: &str) {
    if let Some((before, after)) = name.split_once('.') {
        let place = Place { schema: Some(before.to_owned()), table: after.to_owned() };
        schema.places.insert(name.to_owned(), place);
    }
}

/// Drops the table's foreign keys and remembers how to add them. Without the right to do so they stay in force, and the
/// rows must come in an order that satisfies them.
async fn set_aside(session: &mut PgSession, schema: &Schema, table: &str) -> Result<Vec<Pending>> {
    let place = schema.place(table);
    let constraints = Statement {
        sql: "SELECT quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint \
              WHERE contype = 'f' AND conparentid = 0 AND conrelid = CAST(CAST($1 AS text) AS regclass) ORDER BY conname"
            .to_owned(),
        arguments: vec![Argument::Text(place.clone())],
        outputs: Vec::new(),
    };
    let rows = session.fetch(constraints).await?;
    let keys = schema.catalogue.table(table).map(|table| table.foreign_keys.clone()).unwrap_or_default();
    let mut pending = Vec::new();
    // Both lists are ordered by the constraint's name.
    for (row, key) in rows.iter().zip(keys) {
        let (name, definition) = (catalogue::text(row, 0), catalogue::text(row, 1));
        session.script("SAVEPOINT set_aside").await?;
        match session.script(&format!("ALTER TABLE {place} DROP CONSTRAINT {name}")).await {
            Ok(()) => {
                let add = format!("ALTER TABLE {place} ADD CONSTRAINT {name} {definition}");
                pending.push(Pending { table: table.to_owned(), key, add });
            }
            Err(StoreError::Refused { .. }) => session.script("ROLLBACK TO SAVEPOINT set_aside").await?,
            Err(error) => return Err(error),
        }
    }
    Ok(pending)
}

/// One line of COPY's text format. `None` for a value that the column cannot hold.
fn copy_line(columns: &[&Column], row: &[&Value]) -> Option<String> {
    let mut line = String::new();
    for (index, (column, value)) in columns.iter().zip(row).enumerate() {
        if index > 0 {
            line.push('\t');
        }
        match sql::text_or_bytes(column, value)? {
            Argument::Text(text) => text.chars().for_each(|letter| match letter {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                other => line.push(other),
            }),
            Argument::Bytes(bytes) => {
                line.push_str("\\\\x");
                line.push_str(&hex::encode(bytes));
            }
            _ => line.push_str("\\N"),
        }
    }
    line.push('\n');
    Some(line)
}

impl PgRestore {
    fn refuse(&self, what: String) -> StoreError {
        StoreError::Refused { store: self.store.clone(), what }
    }

    fn encode(&self, table: &str, columns: &[String], rows: &[Row]) -> Result<(String, String)> {
        let facts = self.schema.table(table).map_err(refused(&self.store))?;
        let stored = sql::stored_columns(facts, columns).map_err(refused(&self.store))?;
        let mut kinds = Vec::new();
        for (_, name) in &stored {
            kinds.push(sql::column(facts, name).map_err(refused(&self.store))?);
        }
        let mut data = String::new();
        for row in rows {
            if row.len() != columns.len() {
                return Err(self.refuse(format!(
                    "table {table}: expected {} values, found {}",
                    columns.len(),
                    row.len()
                )));
            }
            let values: Vec<&Value> = stored.iter().map(|(index, _)| &row[*index]).collect();
            let line = copy_line(&kinds, &values);
            data.push_str(&line.ok_or_else(|| self.refuse(format!("table {table}: a value does not fit its column")))?);
        }
        let names: Vec<String> = stored.iter().map(|(_, name)| quote(Engine::Postgres, name)).collect();
        Ok((format!("COPY {} ({}) FROM STDIN", self.schema.place(table), names.join(", ")), data))
    }

    /// Sets the numbering of a column behind the highest number it holds.
    async fn renumber(&mut self, table: &str, column: &Column) -> Result<()> {
        let place = self.schema.place(table);
        let quoted = quote(Engine::Postgres, &column.name);
        // A sequence that the column does not own is named in its default only.
        let named = column
            .default
            .as_deref()
            .and_then(|text| text.strip_prefix("nextval('")?.split_once("'::"))
            .map(|(name, _)| name);
        let named = named.map_or_else(|| "NULL".to_owned(), |name| sql::literal(&name.replace("''", "'")));
        let sql = format!(
            "SELECT setval(s.sequence, s.highest) FROM (SELECT CAST(coalesce(pg_get_serial_sequence({}, {}), {named}) AS regclass) \
             AS sequence, (SELECT max({quoted}) FROM {place}) AS highest) AS s WHERE s.sequence IS NOT NULL \
             AND s.highest > coalesce(pg_sequence_last_value(s.sequence), 0)",
            sql::literal(&place),
            sql::literal(&column.name)
        );
        fetch_integer(&mut self.session, Statement::plain(sql)).await.map(|_| ())
    }
}

#[async_trait]
impl Restore for PgRestore {
    async fn count(&mut self, table: &str) -> Result<u64> {
        count_table(&mut self.session, &self.schema, &self.store, table).await
    }

    async fn insert(&mut self, table: &str, columns: &[String], rows: &[Row]) -> Result<()> {
        let (statement, data) = self.encode(table, columns, rows)?;
        self.filled.insert(table.to_owned());
        let failed = |error: sqlx::Error| error_of(&self.store, &error);
        let mut copy = self.session.connection.copy_in_raw(trusted(statement).as_str()).await.map_err(failed)?;
        if let Err(error) = copy.send(data.into_bytes()).await {
            return Err(failed(error));
        }
        copy.finish().await.map(|_| ()).map_err(failed)
    }

    async fn missing_parents(&mut self, table: &str, key: &ForeignKey, limit: u32) -> Result<Vec<Row>> {
        fetch_missing(&mut self.session, &self.schema, &self.store, (table, key), limit).await
    }

    async fn finish(mut self: Box<Self>, accept_violations: bool) -> Result<Vec<String>> {
        let mut violations = Vec::new();
        let mut not_valid = BTreeSet::new();
        for (index, pending) in self.pending.iter().enumerate() {
            let statement = sql::orphans(&self.schema, &pending.table, &pending.key);
            let count = fetch_count(&mut self.session, &self.store, statement).await?;
            if count > 0 {
                not_valid.insert(index);
                let (table, parent) = (&pending.table, &pending.key.parent);
                violations.push(format!("table {table}: {count} rows refer to rows of {parent} that do not exist"));
            }
        }
        if !violations.is_empty() && !accept_violations {
            self.session.script("ROLLBACK").await?;
            return Ok(violations);
        }
        for (index, pending) in self.pending.iter().enumerate() {
            let tail =
                if not_valid.contains(&index) && !pending.add.ends_with("NOT VALID") { " NOT VALID" } else { "" };
            self.session.script(&format!("{}{tail}", pending.add)).await?;
        }
        for statement in std::mem::take(&mut self.index_statements) {
            self.session.script(&statement).await?;
        }
        for name in self.filled.clone() {
            let columns = self.schema.table(&name).map_err(refused(&self.store))?.columns.clone();
            for column in columns.iter().filter(|column| column.numbered) {
                self.renumber(&name, column).await?;
            }
        }
        self.session.script("COMMIT").await?;
        Ok(violations)
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        self.session.script("ROLLBACK").await
    }
}
