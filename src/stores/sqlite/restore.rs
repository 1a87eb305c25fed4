//! Putting rows back into a SQLite file, in one transaction, with foreign keys and checks looked at in the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::{SqliteSession, catalogue};
use crate::stores::session::{Session, count_table, fetch_integer, fetch_missing, insert_rows};
use crate::stores::sql::{self, Argument, Output, Schema, Statement};
use crate::stores::{Definitions, Engine, ForeignKey, Position, Restore, Result, StoreError, Table, TableDefinition};
use crate::value::{Row, Value};

struct SqliteRestore {
    store: String,
    session: SqliteSession,
    schema: Arc<Schema>,
    index_statements: Vec<String>,
    positions: Vec<Position>,
    /// Tables that were made as they were defined.
    made: BTreeSet<String>,
    violations: Vec<String>,
}

/// Begins; creates the missing tables.
pub(super) async fn begin(
    store: String,
    mut session: SqliteSession,
    (tables, definitions): (&[Table], &Definitions),
) -> Result<(Box<dyn Restore>, Vec<String>)> {
    // Only outside of a transaction; the check at the end looks at every row instead.
    session.script("PRAGMA foreign_keys = OFF").await?;
    session.script("BEGIN IMMEDIATE").await?;
    let present = catalogue::load(&mut session).await?;
    let schema = Schema::new(Engine::Sqlite, present.clone());
    let (mut notes, mut index_statements, mut made) = (Vec::new(), Vec::new(), BTreeSet::new());
    let missing = tables.iter().filter(|table| present.table(&table.name).is_none()).count();
    if missing == tables.len() && !definitions.is_empty() {
        // Rows that do not meet a check are counted in the end; only where every table is new, so that no other check is slack.
        session.script("PRAGMA ignore_check_constraints = ON").await?;
    }
    for table in tables.iter().filter(|table| present.table(&table.name).is_none()) {
        let (kept, left_out): (Vec<ForeignKey>, Vec<String>) = sql::split_foreign_keys(table, tables, &present);
        let definition = definitions.table(&table.name);
        let (is_defined, remarks) = create(&mut session, &schema, (table, definition), (&kept, &left_out)).await?;
        notes.extend(left_out.into_iter().chain(remarks));
        match definition.filter(|_| is_defined) {
            Some(definition) => {
                made.insert(table.name.clone());
                index_statements.extend(definition.parts.iter().map(|part| part.statement.clone()));
            }
            None => index_statements.extend(table.index_statements.iter().cloned()),
        }
    }
    let schema = Arc::new(Schema::new(Engine::Sqlite, catalogue::load(&mut session).await?));
    let wanted = |position: &&Position| tables.iter().any(|table| table.name == position.table);
    let positions = definitions.positions.iter().filter(wanted).cloned().collect();
    let violations = Vec::new();
    Ok((Box::new(SqliteRestore { store, session, schema, index_statements, positions, made, violations }), notes))
}

/// Creates a table: as defined, unless a foreign key of it must be left out, or where that is not possible, of its columns.
async fn create(
    session: &mut SqliteSession,
    schema: &Schema,
    (table, definition): (&Table, Option<&TableDefinition>),
    (kept, left_out): (&[ForeignKey], &[String]),
) -> Result<(bool, Vec<String>)> {
    let mut notes = Vec::new();
    if let Some(definition) = definition {
        let why = if left_out.is_empty() {
            let mut why = None;
            for create in &definition.create {
                match run_one(session, &create.statement).await {
                    Ok(()) => {}
                    Err(StoreError::Refused { what, .. } | StoreError::Failed { what, .. }) => why = Some(what),
                    Err(error) => return Err(error),
                }
            }
            why
        } else {
            Some("a table that it refers to is not there".to_owned())
        };
        match why {
            None => return Ok((true, notes)),
            Some(why) => notes.push(format!(
                "table {}: it could not be made as it was defined ({why}); it was made of its columns, without checks",
                table.name
            )),
        }
    }
    let (statement, remarks) = sql::create_table(schema, table, kept);
    session.script(&statement.sql).await?;
    notes.extend(remarks);
    Ok((false, notes))
}

/// Runs a statement of a snapshot's schema. Whoever may write to a store's file may write into its schema as well, where SQLite itself
/// never looks behind the first statement; here a second one would be carried out with the rights of the restore.
async fn run_one(session: &mut SqliteSession, statement: &str) -> Result<()> {
    if !is_one_definition(statement) {
        return Err(StoreError::Refused {
            store: session.store.clone(),
            what: "a definition in the snapshot is more than one CREATE TABLE or CREATE INDEX".to_owned(),
        });
    }
    session.script(statement).await
}

/// Whether a text is one definition of a table or an index. Neither has a semicolon outside of quotes and comments.
fn is_one_definition(statement: &str) -> bool {
    let begin = statement.split_whitespace().take(3).map(str::to_ascii_uppercase).collect::<Vec<_>>();
    let begin: Vec<&str> = begin.iter().map(String::as_str).collect();
    let is_definition = matches!(
        begin[..],
        ["CREATE", "TABLE" | "INDEX", ..] | ["CREATE", "UNIQUE", "INDEX"] | ["CREATE", "VIRTUAL", "TABLE"]
    );
    let mut rest = statement.trim_end().trim_end_matches(';');
    loop {
        let Some(at) = rest.find(['\'', '"', '`', '[', ';', '-', '/']) else { return is_definition };
        let (sign, behind) = (&rest[at..=at], &rest[at + 1..]);
        let end = match sign {
            ";" => return false,
            "-" if behind.starts_with('-') => match behind.find('\n') {
                None => return is_definition,
                end => end,
            },
            "/" if behind.starts_with('*') => behind[1..].find("*/").map(|end| end + 2),
            "-" | "/" => {
                rest = behind;
                continue;
            }
            "[" => behind.find(']'),
            // A doubled quote ends one text and begins the next.
            quote => behind.find(quote),
        };
        // What is not closed is no definition that SQLite ever made.
        let Some(end) = end else { return false };
        rest = &behind[end + 1..];
    }
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

    async fn complete(&mut self) -> Result<Vec<String>> {
        for statement in std::mem::take(&mut self.index_statements) {
            match run_one(&mut self.session, &statement).await {
                Err(StoreError::Constraint { what, .. }) => self.violations.push(what),
                done => done?,
            }
        }
        self.number().await?;
        // It would keep the look at the rows from seeing checks as well.
        self.session.script("PRAGMA ignore_check_constraints = OFF").await?;
        let mut notes = Vec::new();
        for table in &self.made {
            // A line for each row, a hundred at most.
            let sql = "SELECT CAST(count(*) AS INTEGER) FROM pragma_quick_check(?) WHERE quick_check LIKE 'CHECK constraint failed in %'";
            let arguments = vec![Argument::Text(table.clone())];
            let statement = Statement { sql: sql.to_owned(), arguments, outputs: vec![Output::Native] };
            let rows = fetch_integer(&mut self.session, statement).await?.unwrap_or(0);
            if rows > 0 {
                notes.push(format!(
                    "table {table}: a check is in force for new rows only: {rows} rows or more do not meet it"
                ));
            }
        }
        Ok(notes)
    }

    async fn check(&mut self, _: bool) -> Result<Vec<String>> {
        self.complete().await?;
        let sql = "SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 1, 2";
        let mut violations = std::mem::take(&mut self.violations);
        for row in self.session.fetch(Statement::plain(sql)).await? {
            if let [Value::Text(table), Value::Text(parent), Value::Integer(count)] = row.as_slice() {
                violations.push(format!("table {table}: {count} rows refer to rows of {parent} that do not exist"));
            }
        }
        Ok(violations)
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.session.script("COMMIT").await
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        self.session.script("ROLLBACK").await
    }
}

impl SqliteRestore {
    /// Sets the numbering of tables (AUTOINCREMENT) to where it stood, never back.
    async fn number(&mut self) -> Result<()> {
        for Position { sequence, last, .. } in std::mem::take(&mut self.positions) {
            let numbered = self.schema.catalogue.table(&sequence).is_some_and(|t| t.columns.iter().any(|c| c.numbered));
            if !numbered {
                continue;
            }
            for sql in [
                "INSERT INTO sqlite_sequence (name, seq) SELECT ?1, 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1 OR ?2 < 0)",
                "UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1 AND seq < ?2",
            ] {
                let arguments = vec![Argument::Text(sequence.clone()), Argument::Integer(last)];
                self.session.execute(Statement { sql: sql.to_owned(), arguments, outputs: Vec::new() }).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_one_definition;

    #[test]
    fn only_one_definition_is_carried_out() {
        for good in [
            "CREATE TABLE a (b TEXT DEFAULT 'x;y' CHECK (b <> 'it''s;'))",
            "create table \"a;b\" ([c;d] TEXT, `e;f` TEXT) -- a; comment\n",
            "CREATE TABLE a /* one; two */ (b INTEGER CHECK (b - 1 > 2 / 3));",
            "CREATE UNIQUE INDEX i ON a (b) WHERE b <> ';'",
        ] {
            assert!(is_one_definition(good), "{good}");
        }
        for bad in [
            "CREATE TABLE a (b); ATTACH 'c.db' AS c",
            "CREATE TABLE a (b DEFAULT ''); COMMIT",
            "CREATE TABLE a (b) /* */; DELETE FROM a",
            "CREATE TABLE a (b) -- x\n; DELETE FROM a",
            "CREATE TABLE a (b DEFAULT 'open",
            "ATTACH 'c.db' AS c",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; END",
        ] {
            assert!(!is_one_definition(bad), "{bad}");
        }
    }
}
