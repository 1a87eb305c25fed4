//! The catalogue as the builder needs it, and how names are written.

use std::collections::BTreeMap;

use super::{Result, SqlError};
use crate::stores::{Catalogue, Column, Engine, Table};

/// Where a table lies: its schema, if the engine has such, and its plain name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stores) struct Place {
    /// The schema; `None` where the connection's database is meant.
    pub schema: Option<String>,
    /// The table's own name.
    pub table: String,
}

/// The catalogue together with what only the SQL needs.
#[derive(Debug, Clone)]
pub(in crate::stores) struct Schema {
    /// The engine, which is also the dialect.
    pub engine: Engine,
    /// The tables.
    pub catalogue: Catalogue,
    /// Where each table lies; a table that is missing here lies under its own name.
    pub places: BTreeMap<String, Place>,
    /// Types as a CAST must name them without length or precision, by table and column (PostgreSQL only: a cast to
    /// `varchar(3)` would cut the value silently).
    pub casts: BTreeMap<(String, String), String>,
    /// Tables whose storage cannot roll back, with its name (MariaDB only); nothing is ever written to them.
    pub no_transactions: BTreeMap<String, String>,
}

impl Schema {
    /// A schema without separate places and casts.
    pub fn new(engine: Engine, catalogue: Catalogue) -> Self {
        Self { engine, catalogue, places: BTreeMap::new(), casts: BTreeMap::new(), no_transactions: BTreeMap::new() }
    }

    /// The table, or the reason why it cannot be used.
    pub fn table(&self, name: &str) -> Result<&Table> {
        self.catalogue.table(name).ok_or_else(|| SqlError::UnknownTable(name.to_owned()))
    }

    /// Refuses a table that cannot be part of a transaction.
    pub(super) fn writable(&self, name: &str) -> Result<()> {
        self.no_transactions
            .get(name)
            .map_or(Ok(()), |engine| Err(SqlError::NoTransactions { table: name.to_owned(), engine: engine.clone() }))
    }

    /// The table's name as SQL.
    pub fn place(&self, name: &str) -> String {
        let Some(place) = self.places.get(name) else { return quote(self.engine, name) };
        let table = quote(self.engine, &place.table);
        place.schema.as_ref().map_or_else(|| table.clone(), |schema| format!("{}.{table}", quote(self.engine, schema)))
    }
}

/// A column of a table, or the reason why it cannot be used.
pub(in crate::stores) fn column<'t>(table: &'t Table, name: &str) -> Result<&'t Column> {
    let unknown = || SqlError::UnknownColumn { table: table.name.clone(), column: name.to_owned() };
    table.columns.iter().find(|column| column.name == name).ok_or_else(unknown)
}

/// Quotes an identifier.
pub(in crate::stores) fn quote(engine: Engine, name: &str) -> String {
    match engine {
        Engine::Sqlite | Engine::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
        Engine::Mysql => format!("`{}`", name.replace('`', "``")),
    }
}

/// Quotes identifiers and joins them with commas.
pub(in crate::stores) fn quote_all(engine: Engine, names: &[String]) -> String {
    names.iter().map(|name| quote(engine, name)).collect::<Vec<_>>().join(", ")
}

/// Writes a text literal, for the few statements that take no bound values (server settings).
pub(in crate::stores) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
