//! Whether this login may do what a batch does, and the exact GRANT if not.

use super::PgSession;
use super::catalogue::{has_marker_table, text, truth};
use crate::stores::session::{MARKER_TABLE, Session};
use crate::stores::sql::{Argument, Schema, Statement, quote};
use crate::stores::{Engine, Finding, FindingKind, Result};

/// What a batch needs on a table: read and delete; update for stripped rows, insert for undo.
const NEEDED: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// Missing rights for writing, a server that is read-only, and the marker table.
pub(super) async fn rights(session: &mut PgSession, schema: &Schema, tables: &[String]) -> Result<Vec<Finding>> {
    let about = session.fetch(Statement::plain(
        "SELECT CAST(current_user AS text), CAST(current_schema() AS text), pg_is_in_recovery()",
    ));
    let about = about.await?.into_iter().next().unwrap_or_default();
    let (user, first_schema) = (quote(Engine::Postgres, &text(&about, 0)), text(&about, 1));
    let mut findings = Vec::new();
    if truth(&about, 2) {
        findings.push(finding(
            FindingKind::Storage,
            None,
            "the server is a read-only replica",
            "give the primary's address as `url`",
        ));
    }
    findings.extend(missing_rights(session, schema, tables, &NEEDED, &user).await?);
    findings.extend(marker_rights(session, &user, &first_schema).await?);
    Ok(findings)
}

/// Missing rights of the reading login.
pub(super) async fn reading(session: &mut PgSession, schema: &Schema, tables: &[String]) -> Result<Vec<Finding>> {
    let user = session.fetch(Statement::plain("SELECT CAST(current_user AS text)")).await?;
    let user = quote(Engine::Postgres, &user.first().map(|row| text(row, 0)).unwrap_or_default());
    missing_rights(session, schema, tables, &["SELECT"], &user).await
}

fn finding(kind: FindingKind, table: Option<&str>, what: &str, remedy: &str) -> Finding {
    Finding { kind, table: table.map(str::to_owned), what: what.to_owned(), remedy: remedy.to_owned() }
}

async fn missing_rights(
    session: &mut PgSession,
    schema: &Schema,
    tables: &[String],
    needed: &[&str],
    user: &str,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in tables.iter().filter(|name| schema.catalogue.table(name).is_some()) {
        let place = schema.place(name);
        let schema_name = schema.places.get(name).and_then(|place| place.schema.clone()).unwrap_or_default();
        if !holds(session, "has_schema_privilege", &schema_name, "USAGE").await? {
            let remedy = format!("GRANT USAGE ON SCHEMA {} TO {user};", quote(Engine::Postgres, &schema_name));
            let what = format!("this login may not use the schema of {name}");
            findings.push(finding(FindingKind::NoRight, Some(name), &what, &remedy));
            continue;
        }
        let mut missing = Vec::new();
        for right in needed {
            if !holds(session, "has_table_privilege", &place, right).await? {
                missing.push(*right);
            }
        }
        if !missing.is_empty() {
            let rights = missing.join(", ");
            let remedy = format!("GRANT {rights} ON {place} TO {user};");
            let what = format!("this login lacks {rights} on {name}");
            findings.push(finding(FindingKind::NoRight, Some(name), &what, &remedy));
        }
    }
    Ok(findings)
}

async fn marker_rights(session: &mut PgSession, user: &str, first_schema: &str) -> Result<Option<Finding>> {
    let lacks = |what: &str, remedy: String| Ok(Some(finding(FindingKind::NoRight, None, what, &remedy)));
    if first_schema.is_empty() {
        let remedy = format!("ALTER ROLE {user} SET search_path = public;");
        return lacks("the search path names no schema, so the marker table has no place", remedy);
    }
    let schema = quote(Engine::Postgres, first_schema);
    if !has_marker_table(session).await? {
        if holds(session, "has_schema_privilege", first_schema, "CREATE").await? {
            return Ok(None);
        }
        let what = format!("this login may not create the marker table {MARKER_TABLE}");
        return lacks(&what, format!("GRANT CREATE ON SCHEMA {schema} TO {user};"));
    }
    let place = format!("{schema}.{}", quote(Engine::Postgres, MARKER_TABLE));
    for right in ["SELECT", "INSERT", "DELETE"] {
        if !holds(session, "has_table_privilege", &place, right).await? {
            let remedy = format!("GRANT SELECT, INSERT, DELETE ON {place} TO {user};");
            return lacks(&format!("this login lacks {right} on the marker table"), remedy);
        }
    }
    Ok(None)
}

async fn holds(session: &mut PgSession, function: &str, object: &str, right: &str) -> Result<bool> {
    let arguments = vec![Argument::Text(object.to_owned()), Argument::Text(right.to_owned())];
    let statement = Statement { sql: format!("SELECT {function}($1, $2)"), arguments, outputs: Vec::new() };
    Ok(session.fetch(statement).await?.first().is_some_and(|row| truth(row, 0)))
}
