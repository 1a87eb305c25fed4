//! Putting rows back into a SQLite file, in one transaction, with foreign keys checked at the end.

use std::sync::Arc;

use async_trait::async_trait;

use super::{SqliteSession, catalogue};
use crate::stores::session::{Session, count_table, fetch_missing, insert_rows};
use crate::stores::sql::{self, Schema, Statement};
use crate::stores::{Engine, ForeignKey, Restore, Result, Table};
use crate::value::{Row, Value};

struct SqliteRestore {
    store: String,
    session: SqliteSession,
    schema: Arc<Schema>,
    index_statements: Vec<String>,
}

/// Begins; creates the missing tables.
pub(super) async fn begin(
    store: String,
    mut session: SqliteSession,
    tables: &[Table],
) -> Result<(Box<dyn Restore>, Vec<String>)> {
    // Only outside of a transaction; the check at the end looks at every row instead.
    session.script("PRAGMA foreign_keys = OFF").await?;
    session.script("BEGIN IMMEDIATE").await?;
    let present = catalogue::load(&mut session).await?;
    let schema = Schema::new(Engine::Sqlite, present.clone());
    let (mut notes, mut index_statements) = (Vec::new(), Vec::new());
    for table in tables.iter().filter(|table| present.table(&table.name).is_none()) {
        let (kept, left_out): (Vec<ForeignKey>, Vec<String>) = sql::split_foreign_keys(table, tables, &present);
        let (statement, remarks) = sql::create_table(&schema, table, &kept);
        session.script(&statement.sql).await?;
        notes.extend(left_out.into_iter().chain(remarks));
        index_statements.extend(table.index_statements.iter().cloned());
    }
    let schema = Arc::new(Schema::new(Engine::Sqlite, catalogue::load(&mut session).await?));
    Ok((Box::new(SqliteRestore { store, session, schema, index_statements }), notes))
}

#[async_trait]
impl Restore for SqliteRestore {
    async fn count(&mut self, table: &str) -> Result<u64> {
        count_table(&mut self.session, &self.schema, &self.store, table).await
    }

    async fn insert(&mut self, table: &str, columns: &[String], rows: &[Row]) -> Result<()> {
        insert_rows(&mut self.session, &self.schema, &self.store, table, columns, rows).await
    }

    async fn missing_parents(&mut self, table: &str, key: &ForeignKey, limit: u32) -> Result<Vec<Row>> {
        fetch_missing(&mut self.session, &self.schema, &self.store, (table, key), limit).await
    }

    async fn finish(mut self: Box<Self>, accept_violations: bool) -> Result<Vec<String>> {
        for statement in std::mem::take(&mut self.index_statements) {
            self.session.script(&statement).await?;
        }
        let sql = "SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 1, 2";
        let mut violations = Vec::new();
        for row in self.session.fetch(Statement::plain(sql)).await? {
            if let [Value::Text(table), Value::Text(parent), Value::Integer(count)] = row.as_slice() {
                violations.push(format!("table {table}: {count} rows refer to rows of {parent} that do not exist"));
            }
        }
        let commit = violations.is_empty() || accept_violations;
        self.session.script(if commit { "COMMIT" } else { "ROLLBACK" }).await?;
        Ok(violations)
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        self.session.script("ROLLBACK").await
    }
}
