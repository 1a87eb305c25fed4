//! The SQL builder: engine-neutral queries become one statement with bound values.
//!
//! This is the only file that vouches for SQL text (`trusted`). Names come from the catalogue and are quoted; values
//! are always bound, never written into the text. What the catalogue does not know is refused before anything is sent,
//! so a misspelt column can never read as "no row matches".
//!
//! A filter is compiled by one function (`sql/filter.rs`) for planning, counting, deleting and reading back. In a
//! DELETE the conditions on the table itself stand in its own WHERE, where an index can serve them; those on ancestors
//! go into a correlated EXISTS over outer joins. That form is the same on all three engines and needs neither a key nor
//! the deleted table inside its own subquery, which MySQL does not allow.

mod ddl;
mod filter;
mod schema;
mod value;

#[cfg(test)]
mod tests;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use thiserror::Error;

use super::{Column, ColumnKind, ColumnRef, Engine, Filter, Hop, RowQuery, Table};
use crate::value::{Row, Value};

pub(super) use ddl::{add_foreign_key, create_table, missing_parents, orphans, split_foreign_keys};
pub(super) use schema::{Place, Schema, column, literal, quote, quote_all};
pub(super) use value::{GEOMETRY, Purpose, text_or_bytes};

/// Most key values in one filter, or values in one INSERT; below the parameter limits of all engines (32,766 for
/// SQLite, 65,535 for the others).
pub const MAX_BOUND_VALUES: usize = 30_000;

/// Vouches for SQL text that this module or an adapter put together from literals and quoted names.
pub(super) fn trusted(sql: impl Into<String>) -> SqlStr {
    AssertSqlSafe(sql.into()).into_sql_str()
}

/// A bound value, in the form the driver sends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Argument {
    /// NULL of any type but bytes.
    Null,
    /// NULL for a column of bytes.
    NullBytes,
    /// A signed integer.
    Integer(i64),
    /// An unsigned integer beyond the signed range.
    Unsigned(u64),
    /// A double.
    Real(f64),
    /// Characters.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// One PostgreSQL array of texts.
    TextList(Vec<String>),
    /// One PostgreSQL array of byte strings.
    BytesList(Vec<Vec<u8>>),
}

/// How a result column is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// By the value's own storage class (SQLite).
    Native,
    /// As characters.
    Text,
    /// As bytes.
    Bytes,
    /// As a 64-bit integer (counts).
    Integer,
}

/// A statement ready to run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    /// The text, with the engine's placeholders.
    pub sql: String,
    /// The bound values, in order.
    pub arguments: Vec<Argument>,
    /// How to read each result column.
    pub outputs: Vec<Output>,
}

impl Statement {
    /// A statement without values and results.
    pub fn plain(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), arguments: Vec::new(), outputs: Vec::new() }
    }
}

/// A query that cannot be put to this database. Retrying does not help.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum SqlError {
    #[error("table {0} does not exist, or this login may not see it")]
    UnknownTable(String),
    #[error("table {table} has no column {column}")]
    UnknownColumn { table: String, column: String },
    #[error("column {table}.{column} has the type {type_name}, which this version cannot carry without loss")]
    Unsupported { table: String, column: String, type_name: String },
    #[error("column {table}.{column} of type {type_name} cannot hold a start event")]
    NotATime { table: String, column: String, type_name: String },
    #[error("a value does not fit column {table}.{column} of type {type_name}")]
    DoesNotFit { table: String, column: String, type_name: String },
    #[error("table {0}: a page of rows needs key columns")]
    NoKey(String),
    #[error("table {table}: expected {expected} values, found {found}")]
    WrongWidth { table: String, expected: usize, found: usize },
    #[error("the way from {table} to {parent} goes over columns that are not unique there, so rows would count twice")]
    NotUnique { table: String, parent: String },
    #[error("{found} values in one statement; at most {MAX_BOUND_VALUES} fit")]
    TooManyValues { found: usize },
    #[error("table {table} uses the storage engine {engine}, which has no transactions")]
    NoTransactions { table: String, engine: String },
    #[error("a condition names ancestor {hop}, but the path has {length} steps")]
    UnknownHop { hop: usize, length: usize },
}

type Result<T, E = SqlError> = std::result::Result<T, E>;

/// The tables that a statement can name: the queried one and its ancestors, each with the prefix of its columns.
struct Scope<'s> {
    tables: Vec<(&'s Table, String)>,
    /// With what names of ancestors begin.
    letter: char,
}

impl<'s> Scope<'s> {
    fn of(schema: &'s Schema, table: &str, path: &[Hop], own_prefix: String) -> Result<Self> {
        // A DELETE and an UPDATE know the table by its own name, which an ancestor must not have too.
        let own = table.to_ascii_lowercase();
        let is_like_ours = own.strip_prefix('t').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        let letter = if is_like_ours || own == "base" { 'p' } else { 't' };
        let mut tables = vec![(schema.table(table)?, own_prefix)];
        for (index, hop) in path.iter().enumerate() {
            let parent = schema.table(&hop.parent)?;
            let unique = std::iter::once(&parent.key).chain(&parent.unique);
            if !unique
                .into_iter()
                .any(|key| !key.is_empty() && key.iter().all(|part| hop.parent_columns.contains(part)))
            {
                return Err(SqlError::NotUnique { table: table.to_owned(), parent: hop.parent.clone() });
            }
            tables.push((parent, format!("{letter}{}.", index + 1)));
        }
        Ok(Self { tables, letter })
    }

    fn at(&self, hop: usize) -> Result<(&'s Table, &str)> {
        let found = self.tables.get(hop).map(|(table, prefix)| (*table, prefix.as_str()));
        found.ok_or(SqlError::UnknownHop { hop, length: self.tables.len() - 1 })
    }
}

/// A statement in the making.
struct Builder<'s> {
    schema: &'s Schema,
    sql: String,
    arguments: Vec<Argument>,
    outputs: Vec<Output>,
}

impl<'s> Builder<'s> {
    fn new(schema: &'s Schema) -> Self {
        Self { schema, sql: String::new(), arguments: Vec::new(), outputs: Vec::new() }
    }

    fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    fn quoted(&self, name: &str) -> String {
        quote(self.schema.engine, name)
    }

    fn finish(self) -> Result<Statement> {
        if self.arguments.len() > MAX_BOUND_VALUES + 100 {
            return Err(SqlError::TooManyValues { found: self.arguments.len() });
        }
        Ok(Statement { sql: self.sql, arguments: self.arguments, outputs: self.outputs })
    }

    /// `LEFT JOIN parent AS tN ON …` (or `pN`) for every step of the path.
    fn joins(&mut self, scope: &Scope<'_>, path: &[Hop]) -> Result<()> {
        for (index, hop) in path.iter().enumerate() {
            let (name, conditions) = self.step(scope, (index, hop))?;
            self.push(&format!(" LEFT JOIN {name} ON {conditions}"));
        }
        Ok(())
    }

    /// `parent AS tN` and what joins it to its child.
    fn step(&self, scope: &Scope<'_>, (index, hop): (usize, &Hop)) -> Result<(String, String)> {
        let (child, child_prefix) = scope.at(index)?;
        let (parent, prefix) = scope.at(index + 1)?;
        if hop.columns.len() != hop.parent_columns.len() || hop.columns.is_empty() {
            let (expected, found) = (hop.columns.len(), hop.parent_columns.len());
            return Err(SqlError::WrongWidth { table: parent.name.clone(), expected, found });
        }
        let mut conditions = Vec::new();
        for (from, to) in hop.columns.iter().zip(&hop.parent_columns) {
            column(child, from)?;
            column(parent, to)?;
            conditions.push(format!("{prefix}{} = {child_prefix}{}", self.quoted(to), self.quoted(from)));
        }
        let place = self.schema.place(&hop.parent);
        Ok((format!("{place} AS {}", prefix.trim_end_matches('.')), conditions.join(" AND ")))
    }

    /// `FROM table AS t0 LEFT JOIN … WHERE filter`, returning the scope.
    fn rows_of(&mut self, query: &RowQuery) -> Result<Scope<'s>> {
        let scope = Scope::of(self.schema, &query.table, &query.path, "t0.".to_owned())?;
        self.push(&format!(" FROM {} AS t0", self.schema.place(&query.table)));
        self.joins(&scope, &query.path)?;
        self.push(" WHERE ");
        self.filter(&scope, &query.filter)?;
        Ok(scope)
    }
}

/// One page in key order; with `lock`, the rows are locked for writing where the engine has row locks.
pub(super) fn select_page(schema: &Schema, query: &RowQuery, lock: bool) -> Result<Statement> {
    if query.key.is_empty() {
        return Err(SqlError::NoKey(query.table.clone()));
    }
    let (mut builder, scope) = columns_of(schema, query)?;
    if let Some(after) = &query.after {
        builder.push(" AND ");
        builder.key_after(&scope, &query.key, after)?;
    }
    let order = builder.key_expressions(&scope, &query.key)?;
    builder.push(&format!(" ORDER BY {} LIMIT {}", order.join(", "), query.limit));
    if lock {
        builder.push(match schema.engine {
            Engine::Sqlite => "",
            Engine::Postgres => " FOR UPDATE OF t0",
            Engine::Mysql => " FOR UPDATE",
        });
    }
    builder.finish()
}

/// The query's columns of the rows that match.
fn columns_of<'s>(schema: &'s Schema, query: &RowQuery) -> Result<(Builder<'s>, Scope<'s>)> {
    let mut builder = Builder::new(schema);
    let scope = Scope::of(schema, &query.table, &query.path, "t0.".to_owned())?;
    builder.push("SELECT ");
    for (index, wanted) in query.columns.iter().enumerate() {
        let (table, prefix) = scope.at(wanted.hop)?;
        let (expression, output) = value::output(schema.engine, table, column(table, &wanted.column)?, prefix)?;
        builder.push(if index == 0 { "" } else { ", " });
        builder.push(&expression);
        builder.outputs.push(output);
    }
    if query.columns.is_empty() {
        builder.push("1");
    }
    let scope = builder.rows_of(query)?;
    Ok((builder, scope))
}

/// All rows that match, those with the same value of a column one behind the other, and in key order among them (PostgreSQL). Bytes
/// decide, which every type has and which sorts fastest.
pub(super) fn select_grouped(schema: &Schema, query: &RowQuery, group: &ColumnRef) -> Result<Statement> {
    let (mut builder, scope) = columns_of(schema, query)?;
    let (table, prefix) = scope.at(group.hop)?;
    let (expression, output) = value::output(schema.engine, table, column(table, &group.column)?, prefix)?;
    let collation = if output == Output::Text { " COLLATE \"C\"" } else { "" };
    let order = builder.key_expressions(&scope, &query.key)?;
    builder.push(&format!(" ORDER BY {expression}{collation}, {}", order.join(", ")));
    builder.finish()
}

/// How many rows match.
pub(super) fn select_count(schema: &Schema, query: &RowQuery) -> Result<Statement> {
    let mut builder = Builder::new(schema);
    builder.push("SELECT count(*)");
    builder.outputs.push(Output::Integer);
    builder.rows_of(query)?;
    builder.finish()
}

/// How many rows match, if these are fewer than `most`.
pub(super) fn select_count_up_to(schema: &Schema, query: &RowQuery, most: u64) -> Result<Statement> {
    let mut builder = Builder::new(schema);
    builder.push("SELECT count(*) FROM (SELECT 1");
    builder.outputs.push(Output::Integer);
    builder.rows_of(query)?;
    builder.push(&format!(" LIMIT {}) AS counted", most.min(i64::MAX.unsigned_abs())));
    builder.finish()
}

/// One row if a key column of a matching row is NULL; nothing to ask when the catalogue excludes it.
pub(super) fn select_null_key(schema: &Schema, query: &RowQuery) -> Result<Option<Statement>> {
    let table = schema.table(&query.table)?;
    let mut nullable = Vec::new();
    for name in &query.key {
        if column(table, name)?.nullable {
            nullable.push(format!("t0.{} IS NULL", quote(schema.engine, name)));
        }
    }
    if nullable.is_empty() {
        return Ok(None);
    }
    let mut builder = Builder::new(schema);
    builder.push("SELECT 1");
    builder.outputs.push(Output::Integer);
    builder.rows_of(query)?;
    builder.push(&format!(" AND ({}) LIMIT 1", nullable.join(" OR ")));
    builder.finish().map(Some)
}

/// One row if two rows of the table share the query's key; nothing to ask when a constraint excludes it.
pub(super) fn select_duplicate_key(schema: &Schema, query: &RowQuery) -> Result<Option<Statement>> {
    let table = schema.table(&query.table)?;
    let mut unique = std::iter::once(&table.key).chain(&table.unique);
    if unique.any(|key| !key.is_empty() && key.iter().all(|part| query.key.contains(part))) {
        return Ok(None);
    }
    for name in &query.key {
        column(table, name)?;
    }
    let key = quote_all(schema.engine, &query.key);
    let place = schema.place(&query.table);
    let sql = format!("SELECT 1 FROM {place} GROUP BY {key} HAVING count(*) > 1 LIMIT 1");
    Ok(Some(Statement { sql, arguments: Vec::new(), outputs: vec![Output::Integer] }))
}

/// Deletes the rows that match.
pub(super) fn delete(schema: &Schema, table: &str, path: &[Hop], filter: &Filter) -> Result<Statement> {
    schema.writable(table)?;
    let place = schema.place(table);
    let scope = Scope::of(schema, table, path, format!("{place}."))?;
    let mut builder = Builder::new(schema);
    builder.push(&format!("DELETE FROM {place} WHERE "));
    builder.split_filter(&scope, path, filter)?;
    builder.finish()
}

/// Deletes the rows that match and returns columns of each; nothing where the engine cannot, or columns of ancestors are asked for: a
/// DELETE that waited for a row looks at that row again, and not at its ancestors.
pub(super) fn take(schema: &Schema, query: &RowQuery) -> Result<Option<Statement>> {
    if schema.engine == Engine::Sqlite || query.columns.iter().any(|column| column.hop > 0) {
        return Ok(None);
    }
    schema.writable(&query.table)?;
    let place = schema.place(&query.table);
    let mut builder = Builder::new(schema);
    let scope = Scope::of(schema, &query.table, &query.path, format!("{place}."))?;
    builder.push(&format!("DELETE FROM {place} WHERE "));
    builder.split_filter(&scope, &query.path, &query.filter)?;
    for (index, wanted) in query.columns.iter().enumerate() {
        // MariaDB knows the table there by its bare name only.
        let (table, prefix) = scope.at(wanted.hop)?;
        let prefix = if schema.engine == Engine::Mysql { "" } else { prefix };
        let (expression, output) = value::output(schema.engine, table, column(table, &wanted.column)?, prefix)?;
        builder.push(if index == 0 { " RETURNING " } else { ", " });
        builder.push(&expression);
        builder.outputs.push(output);
    }
    builder.finish().map(Some)
}

/// Sets columns of the rows that match.
pub(super) fn update(schema: &Schema, table: &str, set: &[(String, Value)], filter: &Filter) -> Result<Statement> {
    schema.writable(table)?;
    let place = schema.place(table);
    let scope = Scope::of(schema, table, &[], format!("{place}."))?;
    let (facts, _) = scope.at(0)?;
    let mut builder = Builder::new(schema);
    builder.push(&format!("UPDATE {place} SET "));
    for (index, (name, value)) in set.iter().enumerate() {
        let target = format!("{}{} = ", if index == 0 { "" } else { ", " }, builder.quoted(name));
        builder.push(&target);
        builder.bind(facts, column(facts, name)?, value, Purpose::Store)?;
    }
    if set.is_empty() {
        return Err(SqlError::WrongWidth { table: table.to_owned(), expected: 1, found: 0 });
    }
    builder.push(" WHERE ");
    builder.filter(&scope, filter)?;
    builder.finish()
}

/// The columns that an INSERT writes: all that the engine does not compute itself.
pub(super) fn stored_columns<'c>(table: &Table, columns: &'c [String]) -> Result<Vec<(usize, &'c String)>> {
    let mut stored = Vec::new();
    for (index, name) in columns.iter().enumerate() {
        if !column(table, name)?.generated {
            stored.push((index, name));
        }
    }
    Ok(stored)
}

/// Inserts rows in one statement.
pub(super) fn insert(schema: &Schema, table: &str, columns: &[String], rows: &[Row]) -> Result<Statement> {
    schema.writable(table)?;
    let facts = schema.table(table)?;
    let stored = stored_columns(facts, columns)?;
    let names: Vec<String> = stored.iter().map(|(_, name)| quote(schema.engine, name)).collect();
    let mut builder = Builder::new(schema);
    let overriding = if schema.engine == Engine::Postgres { " OVERRIDING SYSTEM VALUE" } else { "" };
    builder.push(&format!("INSERT INTO {} ({}){overriding} VALUES ", schema.place(table), names.join(", ")));
    for (number, row) in rows.iter().enumerate() {
        if row.len() != columns.len() {
            let (expected, found) = (columns.len(), row.len());
            return Err(SqlError::WrongWidth { table: table.to_owned(), expected, found });
        }
        builder.push(if number == 0 { "(" } else { ", (" });
        for (position, (index, name)) in stored.iter().enumerate() {
            builder.push(if position == 0 { "" } else { ", " });
            builder.bind(facts, column(facts, name)?, &row[*index], Purpose::Store)?;
        }
        builder.push(")");
    }
    builder.finish()
}

/// Whether values of this kind are compared and carried as bytes.
fn is_bytes(column: &Column) -> bool {
    column.kind == Some(ColumnKind::Bytes)
}
