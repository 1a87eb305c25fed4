//! Making tables as they were defined: what they refer to, the tables, then keys, indexes and checks over the rows.
//!
//! Every statement has a savepoint of its own, so that one that this server refuses does not take the others with it.

use std::collections::BTreeSet;

use super::super::PgSession;
use super::super::catalogue::{integer, truth};
use crate::stores::session::Session;
use crate::stores::sql::{Argument, Schema, Statement, literal};
use crate::stores::{
    ObjectDefinition, ObjectKind, PartDefinition, PartKind, Position, Result, StoreError, TableDefinition,
};

/// A part of a new table that waits for the rows.
pub(super) struct Part {
    pub table: String,
    pub definition: PartDefinition,
}

/// Runs statements that may be refused: all of them, or none and why.
pub(super) async fn attempt(session: &mut PgSession, statements: &[&str]) -> Result<Result<(), StoreError>> {
    session.script("SAVEPOINT attempt").await?;
    for statement in statements {
        match session.script(statement).await {
            Ok(()) => {}
            Err(error @ (StoreError::Unreachable { .. } | StoreError::Busy { .. })) => return Err(error),
            Err(error) => {
                session.script("ROLLBACK TO SAVEPOINT attempt").await?;
                return Ok(Err(error));
            }
        }
    }
    session.script("RELEASE SAVEPOINT attempt").await?;
    Ok(Ok(()))
}

/// What an error says, without the store's name.
fn what_of(error: &StoreError) -> String {
    match error {
        StoreError::Refused { what, .. } | StoreError::Constraint { what, .. } | StoreError::Failed { what, .. } => {
            what.clone()
        }
        other => other.to_string(),
    }
}

async fn is_there(session: &mut PgSession, object: &ObjectDefinition) -> Result<bool> {
    let function = match object.kind {
        // Their statements say IF NOT EXISTS.
        ObjectKind::Schema | ObjectKind::Extension => return Ok(false),
        ObjectKind::Type => "to_regtype",
        ObjectKind::Sequence => "to_regclass",
        ObjectKind::Function => "to_regprocedure",
    };
    let sql = format!("SELECT {function}($1) IS NOT NULL");
    let statement = Statement { sql, arguments: vec![Argument::Text(object.name.clone())], outputs: Vec::new() };
    Ok(session.fetch(statement).await?.first().is_some_and(|row| truth(row, 0)))
}

/// Makes what is not there yet, again and again as long as that helps: one may need another that comes later. Returns the names
/// of what was made, and sentences about what was not.
pub(super) async fn make_objects(
    session: &mut PgSession,
    objects: Vec<&ObjectDefinition>,
) -> Result<(BTreeSet<String>, Vec<String>)> {
    let (mut made, mut waiting) = (BTreeSet::new(), objects);
    loop {
        let (mut left, mut notes) = (Vec::new(), Vec::new());
        let before = waiting.len();
        for object in waiting {
            if is_there(session, object).await? {
                continue;
            }
            match attempt(session, &[&object.statement]).await? {
                Ok(()) => {
                    made.insert(object.name.clone());
                }
                Err(error) => {
                    notes.push(format!("{} {} was not made: {}", object.kind.name(), object.name, what_of(&error)));
                    left.push(object);
                }
            }
        }
        if left.is_empty() || left.len() == before {
            return Ok((made, notes));
        }
        waiting = left;
    }
}

/// Makes a table with its partitions; or says why that is not possible here.
pub(super) async fn make_table(
    session: &mut PgSession,
    definition: &TableDefinition,
    is_scratch: bool,
) -> Result<Result<(), String>> {
    let statements: Vec<String> = definition
        .create
        .iter()
        .map(
            |create| {
                if is_scratch && create.holds_rows { unlogged(&create.statement) } else { create.statement.clone() }
            },
        )
        .collect();
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    Ok(attempt(session, &statements).await?.map_err(|error| what_of(&error)))
}

/// The same table, out of the write-ahead log; and never analysed, for statistics hold values and are logged.
pub(super) fn unlogged(create_table: &str) -> String {
    format!("{} WITH (autovacuum_enabled = off)", create_table.replacen("CREATE TABLE", "CREATE UNLOGGED TABLE", 1))
}

/// Makes keys, indexes and checks over the rows that are there. Returns violations, and sentences about what is not in force or
/// for new rows only.
pub(super) async fn make_parts(session: &mut PgSession, parts: &[Part]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut violations, mut notes) = (Vec::new(), Vec::new());
    for Part { table, definition } in parts {
        let PartDefinition { kind, name, statement, condition } = definition;
        let Err(error) = attempt(session, &[statement]).await? else { continue };
        match (&error, kind, condition) {
            (StoreError::Constraint { .. }, PartKind::Check, Some(condition)) => {
                let rows = count_against(session, statement, condition).await?;
                let rows = rows.map_or_else(|| "an unknown number of".to_owned(), |rows| rows.to_string());
                let for_new_rows = format!("{statement} NOT VALID");
                match attempt(session, &[&for_new_rows]).await? {
                    Ok(()) => notes.push(format!(
                        "table {table}: the check {name} is in force for new rows only: {rows} rows do not meet it"
                    )),
                    Err(error) => notes.push(left_out(table, name, &error)),
                }
            }
            (StoreError::Constraint { .. }, PartKind::Unique, _) => {
                violations.push(format!("table {table}: rows violate {name}: {}", what_of(&error)));
            }
            _ => notes.push(left_out(table, name, &error)),
        }
    }
    Ok((violations, notes))
}

fn left_out(table: &str, name: &str, error: &StoreError) -> String {
    format!("table {table}: {name} was not made: {}", what_of(error))
}

/// How many rows do not meet a check; none when it cannot be told, for a function that the check calls may refuse to answer. The
/// statement that adds it names the table.
async fn count_against(session: &mut PgSession, statement: &str, condition: &str) -> Result<Option<i64>> {
    let place = statement.strip_prefix("ALTER TABLE ").and_then(|rest| rest.split_once(" ADD CONSTRAINT "));
    let Some((place, _)) = place else { return Ok(None) };
    let sql = format!("SELECT count(*) FROM {place} WHERE NOT ({condition})");
    session.script("SAVEPOINT count").await?;
    match session.fetch(Statement::plain(sql)).await {
        Ok(rows) => {
            session.script("RELEASE SAVEPOINT count").await?;
            Ok(rows.first().map(|row| integer(row, 0)))
        }
        Err(error @ (StoreError::Unreachable { .. } | StoreError::Busy { .. })) => Err(error),
        Err(_) => {
            session.script("ROLLBACK TO SAVEPOINT count").await?;
            Ok(None)
        }
    }
}

/// Sets sequences to where they stood: those that are new exactly, others only forward, and where this login may. Returns sentences
/// about those that stay where they are.
pub(super) async fn set_positions(session: &mut PgSession, positions: &[(Position, bool)]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (Position { sequence, last, is_used, .. }, is_new) in positions {
        let name = literal(sequence);
        let set = format!("SELECT setval(to_regclass({name}), {last}, {is_used})");
        if *is_new {
            session.script(&set).await?;
            continue;
        }
        let forward = format!(
            "{set} FROM pg_sequence s WHERE s.seqrelid = to_regclass({name}) AND s.seqincrement > 0 AND {is_used} \
             AND {last} BETWEEN s.seqmin AND s.seqmax AND {last} > coalesce(pg_sequence_last_value(s.seqrelid), s.seqmin - 1)"
        );
        if let Err(error) = attempt(session, &[&forward]).await? {
            notes.push(format!("sequence {sequence} was not set forward: {}", what_of(&error)));
        }
    }
    Ok(notes)
}

/// `schema.table` of a table that is not there yet lies in that schema.
pub(super) fn place_new(schema: &mut Schema, name: &str) {
    if let Some((before, after)) = name.split_once('.') {
        let place = crate::stores::sql::Place { schema: Some(before.to_owned()), table: after.to_owned() };
        schema.places.insert(name.to_owned(), place);
    }
}
