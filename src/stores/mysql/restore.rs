//! Putting rows back into MariaDB.
//!
//! Definitions commit at once here. So the missing tables, with indexes and foreign keys, are made before the
//! transaction begins, and dropped again when the restore is given up; the rows go in within one transaction. A process
//! killed in between leaves new tables that are empty. Numbering needs no care: the engine moves it behind every number
//! it is given.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{MysqlSession, catalogue};
use crate::stores::session::{Session, count_table, fetch_count, fetch_missing, insert_rows};
use crate::stores::sql::{self, Schema, quote};
use crate::stores::{Engine, ForeignKey, Restore, Result, Table};
use crate::value::Row;

struct MysqlRestore {
    store: String,
    session: MysqlSession,
    schema: Schema,
    created: Vec<String>,
    /// Tables whose foreign keys must be looked at.
    touched: BTreeSet<String>,
}

/// Begins; creates the missing tables.
pub(super) async fn begin(
    store: String,
    mut session: MysqlSession,
    tables: &[Table],
) -> Result<(Box<dyn Restore>, Vec<String>)> {
    session.script("SET SESSION foreign_key_checks = 0").await?;
    let present = catalogue::load(&mut session).await?;
    let mut created = Vec::new();
    let made = create_missing(&mut session, &present, tables, &mut created).await;
    let notes = match made {
        Ok(notes) => notes,
        Err(error) => {
            drop_tables(&mut session, &created).await?;
            return Err(error);
        }
    };
    let schema = catalogue::load(&mut session).await?;
    session.script("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION READ WRITE").await?;
    let touched = tables.iter().map(|table| table.name.clone()).collect();
    Ok((Box::new(MysqlRestore { store, session, schema, created, touched }), notes))
}

async fn create_missing(
    session: &mut MysqlSession,
    present: &Schema,
    tables: &[Table],
    created: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let missing: Vec<&Table> = tables.iter().filter(|table| present.catalogue.table(&table.name).is_none()).collect();
    for table in &missing {
        let (statement, remarks) = sql::create_table(present, table, &[]);
        session.script(&statement.sql).await?;
        created.push(table.name.clone());
        notes.extend(remarks);
        // Before the foreign keys, which would make indexes of their own otherwise.
        for index in &table.index_statements {
            session.script(index).await?;
        }
    }
    for table in missing {
        let (kept, left_out) = sql::split_foreign_keys(table, tables, &present.catalogue);
        notes.extend(left_out);
        for key in kept {
            session.script(&sql::add_foreign_key(present, &table.name, &key).sql).await?;
        }
    }
    Ok(notes)
}

async fn drop_tables(session: &mut MysqlSession, tables: &[String]) -> Result<()> {
    for table in tables {
        session.script(&format!("DROP TABLE {}", quote(Engine::Mysql, table))).await?;
    }
    Ok(())
}

#[async_trait]
impl Restore for MysqlRestore {
    async fn count(&mut self, table: &str) -> Result<u64> {
        count_table(&mut self.session, &self.schema, &self.store, table).await
    }

    async fn insert(&mut self, table: &str, columns: &[String], rows: &[Row]) -> Result<()> {
        self.touched.insert(table.to_owned());
        insert_rows(&mut self.session, &self.schema, &self.store, table, columns, rows).await
    }

    async fn missing_parents(&mut self, table: &str, key: &ForeignKey, limit: u32) -> Result<Vec<Row>> {
        fetch_missing(&mut self.session, &self.schema, &self.store, (table, key), limit).await
    }

    async fn finish(mut self: Box<Self>, accept_violations: bool) -> Result<Vec<String>> {
        let mut violations = Vec::new();
        for table in self.schema.catalogue.tables.iter().filter(|table| self.touched.contains(&table.name)) {
            for key in table.foreign_keys.iter().filter(|key| self.schema.catalogue.table(&key.parent).is_some()) {
                let statement = sql::orphans(&self.schema, &table.name, key);
                let count = fetch_count(&mut self.session, &self.store, statement).await?;
                if count > 0 {
                    let (name, parent) = (&table.name, &key.parent);
                    violations.push(format!("table {name}: {count} rows refer to rows of {parent} that do not exist"));
                }
            }
        }
        if violations.is_empty() || accept_violations {
            self.session.script("COMMIT").await?;
        } else {
            self.give_up().await?;
        }
        Ok(violations)
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        self.give_up().await
    }
}

impl MysqlRestore {
    async fn give_up(&mut self) -> Result<()> {
        self.session.script("ROLLBACK").await?;
        drop_tables(&mut self.session, &self.created).await
    }
}
