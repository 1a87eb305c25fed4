//! Whether this login may do what a batch does, and the exact GRANT if not.
//!
//! Rights come by table, database, wildcard, globally and through roles. So each statement is tried for real, on no
//! row, inside a transaction that is rolled back: the server decides, not a re-reading of its grant tables.

use super::MysqlSession;
use super::catalogue::{has_marker_table, text};
use crate::stores::session::{MARKER_TABLE, Session};
use crate::stores::sql::{Argument, Schema, Statement, quote, quote_all};
use crate::stores::{Engine, Finding, FindingKind, Result, StoreError, Table};

/// Who this login is and where, quoted for a GRANT.
struct Grantee {
    user: String,
    /// The same as information_schema writes it: `'user'@'host'`.
    listed: String,
    database: String,
}

/// Tables that cannot roll back, or that keep what is deleted from them.
pub(super) async fn storage(session: &mut MysqlSession, schema: &Schema, tables: &[String]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let read_only = session.fetch(Statement::plain("SELECT CAST(@@global.read_only AS CHAR)")).await?;
    if read_only.first().is_some_and(|row| !["0", "OFF"].contains(&text(row, 0).as_str())) {
        let what = "the server is read-only, as replicas are".to_owned();
        let remedy = "give the primary's address as `url`".to_owned();
        findings.push(Finding { kind: FindingKind::Storage, table: None, what, remedy });
    }
    let mut add = |table: &String, what: String, remedy: String| {
        findings.push(Finding { kind: FindingKind::Storage, table: Some(table.clone()), what, remedy });
    };
    for name in tables {
        if let Some(engine) = schema.no_transactions.get(name) {
            let remedy = format!("ALTER TABLE {} ENGINE=InnoDB;", quote(Engine::Mysql, name));
            add(name, format!("table {name} uses the storage engine {engine}, which has no transactions"), remedy);
        }
    }
    let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'SYSTEM VERSIONED'";
    for row in session.fetch(Statement::plain(sql)).await? {
        if let Some(name) = tables.iter().find(|name| **name == text(&row, 0)) {
            let what = format!(
                "table {name} is system-versioned: a DELETE moves its rows to the history, where they stay readable"
            );
            let place = quote(Engine::Mysql, name);
            let remedy = format!("ALTER TABLE {place} DROP SYSTEM VERSIONING; or keep the history elsewhere");
            add(name, what, remedy);
        }
    }
    Ok(findings)
}

/// Missing rights for writing, and the marker table.
pub(super) async fn rights(session: &mut MysqlSession, schema: &Schema, tables: &[String]) -> Result<Vec<Finding>> {
    let grantee = grantee(session).await?;
    let mut findings = Vec::new();
    for table in tables.iter().filter_map(|name| schema.catalogue.table(name)) {
        let mut missing = Vec::new();
        for (right, statement) in attempts(table) {
            if !allowed(session, &statement).await? {
                missing.push(right);
            }
        }
        // Without it the server shows no triggers, and one that copies rows would go unnoticed.
        if !may_see_triggers(session, &grantee, &table.name).await? {
            missing.push("TRIGGER");
        }
        findings.extend(finding(&grantee, &table.name, &missing));
    }
    findings.extend(marker_rights(session, &grantee).await?);
    Ok(findings)
}

/// Missing rights of the reading login.
pub(super) async fn reading(session: &mut MysqlSession, schema: &Schema, tables: &[String]) -> Result<Vec<Finding>> {
    let grantee = grantee(session).await?;
    let mut findings = Vec::new();
    for table in tables.iter().filter_map(|name| schema.catalogue.table(name)) {
        let place = quote(Engine::Mysql, &table.name);
        if !allowed(session, &format!("SELECT 1 FROM {place} LIMIT 0")).await? {
            findings.extend(finding(&grantee, &table.name, &["SELECT"]));
        }
    }
    Ok(findings)
}

async fn grantee(session: &mut MysqlSession) -> Result<Grantee> {
    let rows = session.fetch(Statement::plain("SELECT CURRENT_USER(), DATABASE()")).await?;
    let row = rows.into_iter().next().unwrap_or_default();
    let account = text(&row, 0);
    let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
    let listed = format!("'{user}'@'{host}'");
    let user = format!("{}@{}", quote(Engine::Mysql, user), quote(Engine::Mysql, host));
    Ok(Grantee { user, listed, database: quote(Engine::Mysql, &text(&row, 1)) })
}

/// This login, quoted for a GRANT.
pub(super) async fn account(session: &mut MysqlSession) -> Result<String> {
    Ok(grantee(session).await?.user)
}

fn finding(grantee: &Grantee, table: &str, missing: &[&str]) -> Option<Finding> {
    if missing.is_empty() {
        return None;
    }
    let rights = missing.join(", ");
    let remedy = format!("GRANT {rights} ON {}.{} TO {};", grantee.database, quote(Engine::Mysql, table), grantee.user);
    let what = format!("this login lacks {rights} on {table}");
    Some(Finding { kind: FindingKind::NoRight, table: Some(table.to_owned()), what, remedy })
}

/// A statement for each right that touches no row.
fn attempts(table: &Table) -> Vec<(&'static str, String)> {
    let place = quote(Engine::Mysql, &table.name);
    let stored: Vec<String> =
        table.columns.iter().filter(|column| !column.generated).map(|column| column.name.clone()).collect();
    let mut attempts = vec![
        ("SELECT", format!("SELECT 1 FROM {place} LIMIT 0")),
        ("DELETE", format!("DELETE FROM {place} WHERE 1 = 0")),
    ];
    if let Some(first) = stored.first() {
        let (column, list) = (quote(Engine::Mysql, first), quote_all(Engine::Mysql, &stored));
        attempts.push(("INSERT", format!("INSERT INTO {place} ({list}) SELECT {} WHERE 1 = 0", nulls(stored.len()))));
        attempts.push(("UPDATE", format!("UPDATE {place} SET {column} = NULL WHERE 1 = 0")));
    }
    attempts
}

fn nulls(count: usize) -> String {
    vec!["NULL"; count].join(", ")
}

/// Runs a statement and takes it back; `false` when the server says that a right is missing.
async fn allowed(session: &mut MysqlSession, statement: &str) -> Result<bool> {
    session.script("START TRANSACTION").await?;
    let tried = session.script(statement).await;
    session.script("ROLLBACK").await?;
    match tried {
        Err(StoreError::Refused { .. }) => Ok(false),
        // With these errors, too, the statement got past the check of rights.
        Ok(()) | Err(StoreError::Constraint { .. } | StoreError::Failed { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

async fn may_see_triggers(session: &mut MysqlSession, grantee: &Grantee, table: &str) -> Result<bool> {
    let roles = if session.is_mariadb {
        " OR GRANTEE IN (SELECT concat('''', ROLE_NAME, '''@''''') FROM information_schema.ENABLED_ROLES WHERE ROLE_NAME IS NOT NULL)"
    } else {
        ""
    };
    let mine = format!("PRIVILEGE_TYPE = 'TRIGGER' AND (GRANTEE IN (?, 'PUBLIC'){roles})");
    let sql = format!(
        "SELECT 'yes' FROM information_schema.USER_PRIVILEGES WHERE {mine} UNION ALL \
         SELECT 'yes' FROM information_schema.SCHEMA_PRIVILEGES WHERE {mine} AND DATABASE() LIKE TABLE_SCHEMA UNION ALL \
         SELECT 'yes' FROM information_schema.TABLE_PRIVILEGES WHERE {mine} AND TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?"
    );
    let mut arguments = vec![Argument::Text(grantee.listed.clone()); 3];
    arguments.push(Argument::Text(table.to_owned()));
    Ok(!session.fetch(Statement { sql, arguments, outputs: Vec::new() }).await?.is_empty())
}

async fn marker_rights(session: &mut MysqlSession, grantee: &Grantee) -> Result<Option<Finding>> {
    let place = quote(Engine::Mysql, MARKER_TABLE);
    let mut missing = Vec::new();
    if has_marker_table(session).await? {
        let columns = "run, chunk, token, erased, changed";
        let attempts = [
            ("SELECT", format!("SELECT 1 FROM {place} LIMIT 0")),
            ("INSERT", format!("INSERT INTO {place} ({columns}) SELECT {} WHERE 1 = 0", nulls(5))),
            ("DELETE", format!("DELETE FROM {place} WHERE 1 = 0")),
        ];
        for (right, statement) in attempts {
            if !allowed(session, &statement).await? {
                missing.push(right);
            }
        }
    } else if !may_create_marker(session).await? {
        missing = vec!["CREATE", "SELECT", "INSERT", "DELETE"];
    }
    Ok(finding(grantee, MARKER_TABLE, &missing).map(|found| Finding { table: None, ..found }))
}

/// A definition cannot be tried and taken back. What would be refused for a missing right is refused before anything
/// else is looked at, so a definition that cannot succeed (it copies a table that does not exist) tells the two apart.
async fn may_create_marker(session: &mut MysqlSession) -> Result<bool> {
    let place = quote(Engine::Mysql, MARKER_TABLE);
    let sql = format!("CREATE TABLE {place} LIKE information_schema.wangchuan_no_such_table");
    match session.script(&sql).await {
        Err(StoreError::Refused { what, .. }) => Ok(!what.contains("denied")),
        Ok(()) | Err(StoreError::Failed { .. } | StoreError::Constraint { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}
