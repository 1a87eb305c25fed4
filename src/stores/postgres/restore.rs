//! Putting rows back into PostgreSQL, in one transaction.
//!
//! Definitions are transactional here: foreign keys of the tables concerned are dropped at the beginning and added
//! again at the end, over rows that have been looked at, so that the order of the tables and cycles do not matter. Rows
//! go in by COPY, in the text form they are carried in.

mod made;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;

use super::{PgSession, catalogue, error_of};
use crate::stores::session::{Session, count_table, fetch_count, fetch_integer, fetch_missing, refused};
use crate::stores::sql::{self, Argument, Place, Schema, Statement, quote, trusted};
use crate::stores::{
    Column, Definitions, Engine, ForeignKey, PartDefinition, PartKind, Position, Restore, Result, StoreError, Table,
    TableDefinition,
};
use crate::value::{Row, Value};
use made::{Part, make_objects, make_parts, make_table, place_new, set_positions, unlogged};

/// How a restore is done.
pub(super) struct Settings {
    /// Longest wait for a lock.
    pub lock_wait: Duration,
    /// Whether new tables stay out of the write-ahead log.
    pub is_scratch: bool,
}

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
    /// Keys, indexes and checks of new tables, until they are made.
    parts: Vec<Part>,
    /// Where sequences stood, and whether they are new.
    positions: Vec<(Position, bool)>,
    violations: Vec<String>,
    filled: BTreeSet<String>,
}

/// Begins; creates the missing tables, and sets foreign keys aside. In a scratch database the new tables are unlogged.
pub(super) async fn begin(
    store: String,
    mut session: PgSession,
    (tables, definitions): (&[Table], &Definitions),
    settings: Settings,
) -> Result<(Box<dyn Restore>, Vec<String>)> {
    let lock_wait = settings.lock_wait.as_millis();
    session
        .script(&format!("BEGIN; SET LOCAL lock_timeout = {lock_wait}; SET LOCAL check_function_bodies = off"))
        .await?;
    let present = catalogue::load(&mut session).await?;
    let missing = tables.iter().filter(|table| present.catalogue.table(&table.name).is_none());
    let defined: Vec<&TableDefinition> = missing.filter_map(|table| definitions.table(&table.name)).collect();
    let (mut made, mut notes) = make_objects(&mut session, definitions.objects_for(&defined)).await?;
    let (mut parts, mut pending) = (Vec::new(), Vec::new());
    for table in tables {
        if present.catalogue.table(&table.name).is_some() {
            pending.extend(set_aside(&mut session, &present, &table.name).await?);
            continue;
        }
        let definition = definitions.table(&table.name);
        let (is_defined, remarks) = create(&mut session, &present, (table, definition), settings.is_scratch).await?;
        notes.extend(remarks);
        let definition = definition.filter(|_| is_defined);
        if is_defined {
            made.insert(table.name.clone());
        }
        parts.extend(parts_of(table, definition));
        let (kept, left_out) = sql::split_foreign_keys(table, tables, &present.catalogue);
        notes.extend(left_out);
        pending.extend(kept.into_iter().map(|key| {
            let known = definition.and_then(|known| known.references.iter().find(|known| known.is_of(&key)));
            let add = known.map(|known| known.statement.clone()).unwrap_or_default();
            Pending { table: table.name.clone(), key, add }
        }));
    }
    let schema = catalogue::load(&mut session).await?;
    for Pending { table, key, add } in pending.iter_mut().filter(|pending| pending.add.is_empty()) {
        *add = sql::add_foreign_key(&schema, table, key).sql;
    }
    let positions = positions_of(definitions, tables, &made);
    let (violations, filled) = (Vec::new(), BTreeSet::new());
    let restore = PgRestore { store, session, schema, pending, parts, positions, violations, filled };
    Ok((Box::new(restore), notes))
}

/// Where the sequences of these tables stood. That of an identity column is new when its table is, another one when it was made.
fn positions_of(definitions: &Definitions, tables: &[Table], made: &BTreeSet<String>) -> Vec<(Position, bool)> {
    let wanted = |position: &&Position| tables.iter().any(|table| table.name == position.table);
    let is_new = |position: &Position| {
        let stands_alone = definitions.objects.iter().any(|object| object.name == position.sequence);
        made.contains(if stands_alone { &position.sequence } else { &position.table })
    };
    definitions.positions.iter().filter(wanted).map(|position| (position.clone(), is_new(position))).collect()
}

/// Creates a table: as defined, or where that is not possible of its columns. Returns whether it is as defined.
async fn create(
    session: &mut PgSession,
    present: &Schema,
    (table, definition): (&Table, Option<&TableDefinition>),
    is_scratch: bool,
) -> Result<(bool, Vec<String>)> {
    let mut notes = Vec::new();
    if let Some(definition) = definition {
        match make_table(session, definition, is_scratch).await? {
            Ok(()) => return Ok((true, notes)),
            Err(why) => notes.push(format!(
                "table {}: it could not be made as it was defined ({why}); it was made of its columns, without checks",
                table.name
            )),
        }
    }
    let mut target = present.clone();
    place_new(&mut target, &table.name);
    if let Some(Place { schema: Some(name), .. }) = target.places.get(&table.name) {
        session.script(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote(Engine::Postgres, name))).await?;
    }
    let (statement, remarks) = sql::create_table(&target, table, &[]);
    session.script(&if is_scratch { unlogged(&statement.sql) } else { statement.sql }).await?;
    notes.extend(remarks);
    Ok((false, notes))
}

/// What a new table gets when its rows are there.
fn parts_of(table: &Table, definition: Option<&TableDefinition>) -> Vec<Part> {
    let part = |definition: PartDefinition| Part { table: table.name.clone(), definition };
    if let Some(definition) = definition {
        return definition.parts.iter().cloned().map(part).collect();
    }
    let index = |statement: &String| {
        let is_unique = statement.starts_with("CREATE UNIQUE ");
        let kind = if is_unique { PartKind::Unique } else { PartKind::Index };
        let name = "an index".to_owned();
        part(PartDefinition { kind, name, statement: statement.clone(), condition: None })
    };
    table.index_statements.iter().map(index).collect()
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

/// Appends one line of COPY's text format. `None` for a value that the column cannot hold.
fn copy_line(columns: &[&Column], row: &[&Value], line: &mut String) -> Option<()> {
    for (index, (column, value)) in columns.iter().zip(row).enumerate() {
        if index > 0 {
            line.push('\t');
        }
        match sql::text_or_bytes(column, value)? {
            Argument::Text(text) => escape(&text, line),
            Argument::Bytes(bytes) => {
                line.push_str("\\\\x");
                line.push_str(&hex::encode(bytes));
            }
            _ => line.push_str("\\N"),
        }
    }
    line.push('\n');
    Some(())
}

/// Appends a text as COPY's text format has it. What needs an escape is one byte in UTF-8, so the text between is taken whole.
fn escape(text: &str, line: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\t', '\n', '\r']) {
        line.push_str(&rest[..at]);
        line.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'\t' => "\\t",
            b'\n' => "\\n",
            _ => "\\r",
        });
        rest = &rest[at + 1..];
    }
    line.push_str(rest);
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
            let written = copy_line(&kinds, &values, &mut data);
            written.ok_or_else(|| self.refuse(format!("table {table}: a value does not fit its column")))?;
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
             AND (SELECT seqincrement FROM pg_sequence WHERE seqrelid = s.sequence) > 0 \
             AND s.highest > coalesce(pg_sequence_last_value(s.sequence), 0)",
            sql::literal(&place),
            sql::literal(&column.name)
        );
        fetch_integer(&mut self.session, Statement::plain(sql)).await.map(|_| ())
    }

    /// Sets all numbering: behind the rows, and that of new tables to where it stood.
    async fn number(&mut self) -> Result<()> {
        for name in self.filled.clone() {
            let columns = self.schema.table(&name).map_err(refused(&self.store))?.columns.clone();
            for column in columns.iter().filter(|column| column.numbered) {
                self.renumber(&name, column).await?;
            }
        }
        for note in set_positions(&mut self.session, &self.positions).await? {
            tracing::warn!(store = %self.store, "{note}");
        }
        Ok(())
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

    async fn complete(&mut self) -> Result<Vec<String>> {
        let parts = std::mem::take(&mut self.parts);
        let (violations, notes) = make_parts(&mut self.session, &parts).await?;
        self.violations.extend(violations);
        Ok(notes)
    }

    async fn check(&mut self, accept_violations: bool) -> Result<Vec<String>> {
        self.complete().await?;
        let mut violations = std::mem::take(&mut self.violations);
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
            return Ok(violations);
        }
        for (index, pending) in self.pending.iter().enumerate() {
            let tail =
                if not_valid.contains(&index) && !pending.add.ends_with("NOT VALID") { " NOT VALID" } else { "" };
            self.session.script(&format!("{}{tail}", pending.add)).await?;
        }
        self.number().await?;
        Ok(violations)
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.session.script("COMMIT").await
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        self.session.script("ROLLBACK").await
    }
}
