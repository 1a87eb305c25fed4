//! Putting rows back into MariaDB.
//!
//! Definitions commit at once here. So the missing tables, with indexes and foreign keys, are made before the
//! transaction begins, and dropped again when the restore is given up; the rows go in within one transaction. A process
//! killed in between leaves new tables that are empty. Numbering needs no care: the engine moves it behind every number
//! it is given.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{MysqlSession, SESSION, catalogue};
use crate::stores::session::{Session, count_table, fetch_count, fetch_missing, insert_rows};
use crate::stores::sql::{self, Output, Schema, Statement, literal, quote};
use crate::stores::{
    Definitions, Engine, ForeignKey, Position, ReferenceDefinition, Restore, Result, StoreError, Table, TableDefinition,
};
use crate::value::Row;

/// SHOW CREATE writes backslashes as escapes, whatever the mode of the session.
const AS_SHOWN: &str =
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'";

struct MysqlRestore {
    store: String,
    session: MysqlSession,
    schema: Schema,
    created: Created,
    positions: Vec<Position>,
    /// Tables whose foreign keys must be looked at.
    touched: BTreeSet<String>,
}

/// What a restore made, to be removed when it is given up.
#[derive(Default)]
struct Created {
    tables: Vec<String>,
    /// Sequences, as SQL names.
    sequences: Vec<String>,
    /// Tables that were made as they were defined.
    defined: BTreeSet<String>,
}

/// Begins; creates the missing tables.
pub(super) async fn begin(
    store: String,
    mut session: MysqlSession,
    (tables, definitions): (&[Table], &Definitions),
) -> Result<(Box<dyn Restore>, Vec<String>)> {
    session.script("SET SESSION foreign_key_checks = 0").await?;
    let present = catalogue::load(&mut session).await?;
    let mut created = Created::default();
    let made = create_missing(&mut session, &present, (tables, definitions), &mut created).await;
    let notes = match made {
        Ok(notes) => notes,
        Err(error) => {
            drop_created(&mut session, &created).await?;
            return Err(error);
        }
    };
    let schema = catalogue::load(&mut session).await?;
    if !tables.is_empty() && created.defined.len() == tables.len() && session.is_mariadb {
        // Rows that do not meet a check are counted in the end; only where every table is new, so that no other check is slack.
        session.script("SET SESSION check_constraint_checks = 0").await?;
    }
    session.script("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION READ WRITE").await?;
    let touched = tables.iter().map(|table| table.name.clone()).collect();
    let positions = definitions.positions.clone();
    Ok((Box::new(MysqlRestore { store, session, schema, created, positions, touched }), notes))
}

async fn create_missing(
    session: &mut MysqlSession,
    present: &Schema,
    (tables, definitions): (&[Table], &Definitions),
    created: &mut Created,
) -> Result<Vec<String>> {
    let missing: Vec<&Table> = tables.iter().filter(|table| present.catalogue.table(&table.name).is_none()).collect();
    let defined: Vec<&TableDefinition> = missing.iter().filter_map(|table| definitions.table(&table.name)).collect();
    session.script(AS_SHOWN).await?;
    let mut notes = make_sequences(session, definitions, &defined, created).await?;
    for table in &missing {
        notes.extend(create(session, present, (table, definitions.table(&table.name)), created).await?);
    }
    for table in missing {
        let (kept, left_out) = sql::split_foreign_keys(table, tables, &present.catalogue);
        notes.extend(left_out);
        let known = definitions.table(&table.name).map(|table| table.references.as_slice()).unwrap_or_default();
        for key in kept {
            let of_key = |known: &&ReferenceDefinition| known.is_of(&key);
            let statement = known.iter().find(of_key).map(|known| known.statement.clone());
            session.script(&statement.unwrap_or_else(|| sql::add_foreign_key(present, &table.name, &key).sql)).await?;
        }
    }
    session.script(SESSION).await?;
    session.script("SET SESSION foreign_key_checks = 0").await?;
    Ok(notes)
}

/// The sequences from which these tables take defaults; one that is there already stays as it is.
async fn make_sequences(
    session: &mut MysqlSession,
    definitions: &Definitions,
    tables: &[&TableDefinition],
    created: &mut Created,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for object in definitions.objects_for(tables) {
        let known = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND {} = {}",
            "concat('`', replace(TABLE_NAME, '`', '``'), '`')",
            literal(&object.name)
        );
        if !session.fetch(Statement::plain(known)).await?.is_empty() {
            continue;
        }
        match session.script(&object.statement).await {
            Ok(()) => created.sequences.push(object.name.clone()),
            Err(StoreError::Refused { what, .. } | StoreError::Failed { what, .. }) => {
                notes.push(format!("{} {} was not made: {what}", object.kind.name(), object.name));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(notes)
}

/// Creates a table with its indexes: as defined, or where that is not possible of its columns.
async fn create(
    session: &mut MysqlSession,
    present: &Schema,
    (table, definition): (&Table, Option<&TableDefinition>),
    created: &mut Created,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for create in definition.iter().flat_map(|definition| &definition.create) {
        match session.script(&create.statement).await {
            Ok(()) => {
                created.tables.push(table.name.clone());
                created.defined.insert(table.name.clone());
                return Ok(notes);
            }
            Err(StoreError::Refused { what, .. } | StoreError::Failed { what, .. }) => notes.push(format!(
                "table {}: it could not be made as it was defined ({what}); it was made of its columns, without checks",
                table.name
            )),
            Err(error) => return Err(error),
        }
    }
    let (statement, remarks) = sql::create_table(present, table, &[]);
    session.script(&statement.sql).await?;
    created.tables.push(table.name.clone());
    notes.extend(remarks);
    // Before the foreign keys, which would make indexes of their own otherwise.
    for index in &table.index_statements {
        session.script(index).await?;
    }
    Ok(notes)
}

async fn drop_created(session: &mut MysqlSession, created: &Created) -> Result<()> {
    for table in &created.tables {
        session.script(&format!("DROP TABLE {}", quote(Engine::Mysql, table))).await?;
    }
    for sequence in &created.sequences {
        session.script(&format!("DROP SEQUENCE {sequence}")).await?;
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

    async fn complete(&mut self) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for table in &self.created.defined.clone() {
            notes.extend(self.unmet_checks(table).await?);
        }
        Ok(notes)
    }

    async fn check(&mut self, _: bool) -> Result<Vec<String>> {
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
        Ok(violations)
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.session.script("COMMIT").await?;
        self.set_positions().await
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        self.give_up().await
    }
}

impl MysqlRestore {
    async fn give_up(&mut self) -> Result<()> {
        self.session.script("ROLLBACK").await?;
        drop_created(&mut self.session, &self.created).await
    }

    /// Sequences never go back: one that is further than the position stays there.
    async fn set_positions(&mut self) -> Result<()> {
        for Position { sequence, last, .. } in &self.positions {
            if self.created.sequences.contains(sequence) {
                self.session.script(&format!("SELECT SETVAL({sequence}, {last}, 0)")).await?;
            }
        }
        Ok(())
    }

    /// Checks of a new table that rows do not meet: those rows stay, and the check is in force for others.
    async fn unmet_checks(&mut self, table: &str) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
             WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = {} ORDER BY CONSTRAINT_NAME",
            literal(table)
        );
        let mut notes = Vec::new();
        let checks = self.session.fetch(Statement::plain(sql)).await?;
        // Clauses are shown with backslashes as escapes, as tables are.
        self.session.script(AS_SHOWN).await?;
        for row in checks {
            let (name, clause) = (catalogue::text(&row, 0), catalogue::text(&row, 1));
            let sql = format!("SELECT count(*) FROM {} WHERE NOT ({clause})", quote(Engine::Mysql, table));
            let statement = Statement { sql, arguments: Vec::new(), outputs: vec![Output::Integer] };
            match fetch_count(&mut self.session, &self.store, statement).await {
                Ok(0) => {}
                Ok(rows) => notes.push(format!(
                    "table {table}: the check {name} is in force for new rows only: {rows} rows do not meet it"
                )),
                Err(error @ (StoreError::Unreachable { .. } | StoreError::Busy { .. })) => return Err(error),
                Err(_) => notes.push(format!(
                    "table {table}: the check {name} is in force for new rows; which of the others meet it could not be counted"
                )),
            }
        }
        self.session.script(SESSION).await?;
        self.session.script("SET SESSION foreign_key_checks = 0").await?;
        Ok(notes)
    }
}
