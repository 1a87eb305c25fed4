//! Definitions as SQLite keeps them: the statements themselves.

use super::{SqliteSession, catalogue};
use crate::stores::Result;
use crate::stores::definitions::{
    CreateTable, Definitions, PartDefinition, PartKind, Position, ReferenceDefinition, TableDefinition,
};
use crate::stores::session::{Session, fetch_integer};
use crate::stores::sql::{Argument, Output, Schema, Statement};

/// Reads the definitions of tables, in the view that the session has.
pub(super) async fn load(session: &mut SqliteSession, schema: &Schema, tables: &[&str]) -> Result<Definitions> {
    let mut definitions = Definitions::default();
    let is_numbering = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?";
    let is_numbering = fetch_integer(session, asking(is_numbering, "sqlite_sequence")).await?.is_some();
    for name in tables {
        let made = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?";
        let create = session.fetch(asking(made, name)).await?;
        let create = create.iter().map(|row| CreateTable { statement: catalogue::text(row, 0), holds_rows: true });
        let indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL \
                       ORDER BY name";
        let parts = session.fetch(asking(indexes, name)).await?;
        let part = |row: &crate::value::Row| {
            let (name, statement) = (catalogue::text(row, 0), catalogue::text(row, 1));
            let is_unique = statement.get(..13).is_some_and(|begin| begin.eq_ignore_ascii_case("CREATE UNIQUE"));
            let kind = if is_unique { PartKind::Unique } else { PartKind::Index };
            PartDefinition { kind, name, statement, condition: None }
        };
        // Foreign keys are part of the statement here.
        let keys = schema.catalogue.table(name).map(|table| table.foreign_keys.clone()).unwrap_or_default();
        let reference = |key: crate::stores::ForeignKey| ReferenceDefinition {
            columns: key.columns,
            parent: key.parent,
            parent_columns: key.parent_columns,
            statement: String::new(),
        };
        definitions.tables.push(TableDefinition {
            table: (*name).to_owned(),
            create: create.collect(),
            parts: parts.iter().map(part).collect(),
            references: keys.into_iter().map(reference).collect(),
        });
        if is_numbering {
            let last = asking("SELECT seq FROM sqlite_sequence WHERE name = ?", name);
            let (sequence, table) = ((*name).to_owned(), (*name).to_owned());
            let position = |last| Position { sequence, table, last, is_used: true };
            definitions.positions.extend(fetch_integer(session, last).await?.map(position));
        }
    }
    Ok(definitions)
}

fn asking(sql: &str, name: &str) -> Statement {
    let arguments = vec![Argument::Text(name.to_owned())];
    Statement { sql: sql.to_owned(), arguments, outputs: vec![Output::Native; 2] }
}
