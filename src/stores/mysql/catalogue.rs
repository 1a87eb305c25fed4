//! The MariaDB catalogue, from information_schema. Only the connection's own database is looked at.

use std::collections::BTreeMap;

use super::MysqlSession;
use crate::stores::session::{MARKER_TABLE, Session};
use crate::stores::sql::{GEOMETRY, Schema, Statement, quote};
use crate::stores::{Catalogue, Column, ColumnKind, Engine, ForeignKey, IS_VIEW, OnDelete, Result, Table, Trigger};
use crate::value::{Row, Value};

const TABLES: &str = "SELECT TABLE_NAME, coalesce(ENGINE, '') FROM information_schema.TABLES \
     WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')";

const VIEWS: &str =
    "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'VIEW'";

const FOREIGN_REFERRERS: &str = "SELECT r.REFERENCED_TABLE_NAME, r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.DELETE_RULE \
     FROM information_schema.REFERENTIAL_CONSTRAINTS r \
     WHERE r.UNIQUE_CONSTRAINT_SCHEMA = DATABASE() AND r.CONSTRAINT_SCHEMA <> DATABASE() \
     AND r.DELETE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT')";

const COLUMNS: &str = "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, \
     GENERATION_EXPRESSION, CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.COLUMNS \
     WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, ORDINAL_POSITION";

const INDEXES: &str = "SELECT TABLE_NAME, INDEX_NAME, CAST(NON_UNIQUE AS CHAR), COLUMN_NAME, CAST(SUB_PART AS CHAR), INDEX_TYPE \
     FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX";

const FOREIGN_KEYS: &str = "SELECT k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, \
     r.DELETE_RULE, CASE WHEN k.REFERENCED_TABLE_SCHEMA <> k.TABLE_SCHEMA THEN k.REFERENCED_TABLE_SCHEMA END \
     FROM information_schema.KEY_COLUMN_USAGE k LEFT JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
     ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.TABLE_NAME = k.TABLE_NAME AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME \
     WHERE k.TABLE_SCHEMA = DATABASE() AND k.REFERENCED_TABLE_NAME IS NOT NULL \
     ORDER BY k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION";

const TRIGGERS: &str = "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME, EVENT_MANIPULATION FROM information_schema.TRIGGERS \
     WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND EVENT_MANIPULATION IN ('DELETE', 'UPDATE') ORDER BY TRIGGER_NAME";

/// Whether the marker table exists.
pub(super) async fn has_marker_table(session: &mut MysqlSession) -> Result<bool> {
    let sql = format!(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{MARKER_TABLE}'"
    );
    Ok(!session.fetch(Statement::plain(sql)).await?.is_empty())
}

/// Reads the whole catalogue.
pub(super) async fn load(session: &mut MysqlSession) -> Result<Schema> {
    let mut schema = Schema::new(Engine::Mysql, Catalogue::default());
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for row in session.fetch(Statement::plain(TABLES)).await? {
        let (name, engine) = (text(&row, 0), text(&row, 1));
        if name == MARKER_TABLE {
            continue;
        }
        if !["innodb", "rocksdb"].contains(&engine.to_lowercase().as_str()) {
            schema.no_transactions.insert(name.clone(), engine);
        }
        tables.insert(name.clone(), empty_table(name));
    }
    for row in session.fetch(Statement::plain(COLUMNS)).await? {
        if let Some(table) = tables.get_mut(&text(&row, 0)) {
            table.columns.push(column_of(&row));
        }
    }
    let indexes = session.fetch(Statement::plain(INDEXES)).await?;
    for part in indexes.chunk_by(|a, b| (text(a, 0), text(a, 1)) == (text(b, 0), text(b, 1))) {
        if let Some(table) = part.first().and_then(|row| tables.get_mut(&text(row, 0))) {
            add_index(table, part);
        }
    }
    let keys = session.fetch(Statement::plain(FOREIGN_KEYS)).await?;
    for part in keys.chunk_by(|a, b| (text(a, 0), text(a, 1)) == (text(b, 0), text(b, 1))) {
        if let Some(table) = part.first().and_then(|row| tables.get_mut(&text(row, 0))) {
            let mut key = foreign_key(part);
            // A login that may only read sees the key but not its rule; the table's definition tells it.
            if part.first().is_some_and(|row| text(row, 5).is_empty()) {
                let constraint = part.first().map(|row| text(row, 1)).unwrap_or_default();
                key.on_delete = rule_from_definition(session, &table.name, &constraint).await?;
            }
            table.foreign_keys.push(key);
        }
    }
    for row in session.fetch(Statement::plain(TRIGGERS)).await? {
        if let Some(table) = tables.get_mut(&text(&row, 0)) {
            table.triggers.push(Trigger { name: text(&row, 1), on_delete: text(&row, 2) == "DELETE" });
        }
    }
    // The map's order is that of the names.
    schema.catalogue.tables = tables.into_values().map(choose_key).collect();
    schema.catalogue.refused = refused(session).await?;
    Ok(schema)
}

/// Views, and tables to which another database refers in a way that changes rows there, which nobody here could count.
async fn refused(session: &mut MysqlSession) -> Result<BTreeMap<String, String>> {
    let views = session.fetch(Statement::plain(VIEWS)).await?;
    let mut refused: BTreeMap<String, String> = views.iter().map(|row| (text(row, 0), IS_VIEW.to_owned())).collect();
    for row in session.fetch(Statement::plain(FOREIGN_REFERRERS)).await? {
        let why = format!(
            "is referred to by {}.{} in another database, with {} on delete, so erasing its rows would change rows there \
             uncounted; change that foreign key to RESTRICT",
            text(&row, 1),
            text(&row, 2),
            text(&row, 3)
        );
        refused.insert(text(&row, 0), why);
    }
    Ok(refused)
}

fn empty_table(name: String) -> Table {
    Table {
        name,
        columns: Vec::new(),
        key: Vec::new(),
        unique: Vec::new(),
        foreign_keys: Vec::new(),
        triggers: Vec::new(),
        rows_may_be_hidden: false,
        index_statements: Vec::new(),
    }
}

fn column_of(row: &Row) -> Column {
    let (extra, expression) = (text(row, 6), text(row, 7));
    let lower = extra.to_lowercase();
    let generated = !expression.is_empty() || lower.contains("generated") && !lower.contains("default_generated");
    let mut type_name = text(row, 2);
    if !text(row, 8).is_empty() {
        type_name = format!("{type_name} CHARACTER SET {} COLLATE {}", text(row, 8), text(row, 9));
    }
    // "NULL" is what MariaDB prints for a nullable column without a default.
    let default = match row.get(5) {
        _ if generated => Some(expression),
        Some(Value::Text(text)) if text != "NULL" => Some(text.clone()),
        _ => None,
    };
    // A default may come with what happens on update; both belong behind the word DEFAULT.
    let on_update = lower.find("on update").map(|at| extra[at..].to_owned());
    let default = match (default, on_update) {
        (Some(default), Some(update)) => Some(format!("{default} {update}")),
        (None, Some(update)) => Some(format!("NULL {update}")),
        (default, None) => default,
    };
    Column {
        name: text(row, 1),
        kind: kind_of(&text(row, 3)),
        type_name,
        nullable: text(row, 4) == "YES",
        default: default.filter(|text| !text.is_empty()),
        generated,
        numbered: lower.contains("auto_increment"),
    }
}

/// What a type holds; `None` for what is not carried: types that this version does not know.
fn kind_of(data_type: &str) -> Option<ColumnKind> {
    Some(match data_type.to_lowercase().as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => ColumnKind::Integer,
        "decimal" => ColumnKind::Decimal,
        "float" | "double" => ColumnKind::Real,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => ColumnKind::Text,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnKind::Bytes,
        "date" => ColumnKind::Date,
        "datetime" => ColumnKind::LocalTime,
        "timestamp" => ColumnKind::Instant,
        "bit" | "time" | "year" | "enum" | "set" | "json" | "uuid" | "inet4" | "inet6" => ColumnKind::Other,
        name if GEOMETRY.contains(&name) => ColumnKind::Other,
        _ => return None,
    })
}

/// One index, a row for each of its parts.
fn add_index(table: &mut Table, parts: &[Row]) {
    let Some(first) = parts.first() else { return };
    let (name, kind) = (text(first, 1), text(first, 5));
    let columns: Vec<String> = parts.iter().map(|part| text(part, 3)).collect();
    // An expression has no column, a prefix is not the column.
    let whole = parts.iter().all(|part| matches!(part.get(4), Some(Value::Null)) && !text(part, 3).is_empty());
    let unique = text(first, 2) == "0";
    if name == "PRIMARY" && whole {
        table.key = columns;
    } else if unique && whole {
        table.unique.push(columns);
    } else if columns.iter().all(|column| !column.is_empty()) {
        let word = match kind.as_str() {
            _ if unique => "UNIQUE ",
            "FULLTEXT" => "FULLTEXT ",
            "SPATIAL" => "SPATIAL ",
            _ => "",
        };
        let part = |row: &Row| {
            let length = if word == "SPATIAL " { String::new() } else { text(row, 4) };
            let length = if length.is_empty() { length } else { format!("({length})") };
            format!("{}{length}", quote(Engine::Mysql, &text(row, 3)))
        };
        let list = parts.iter().map(part).collect::<Vec<_>>().join(", ");
        let (name, place) = (quote(Engine::Mysql, &name), quote(Engine::Mysql, &table.name));
        table.index_statements.push(format!("CREATE {word}INDEX {name} ON {place} ({list})"));
    }
}

/// The rule of a foreign key, from SHOW CREATE TABLE, which writes each constraint on a line of its own.
async fn rule_from_definition(session: &mut MysqlSession, table: &str, constraint: &str) -> Result<OnDelete> {
    let sql = format!("SHOW CREATE TABLE {}", quote(Engine::Mysql, table));
    let rows = session.fetch(Statement::plain(sql)).await?;
    let definition = rows.first().map(|row| text(row, 1)).unwrap_or_default();
    let begin = format!("CONSTRAINT {} FOREIGN KEY ", quote(Engine::Mysql, constraint));
    let Some(line) = definition.lines().map(str::trim_start).find(|line| line.starts_with(&begin)) else {
        // What cannot be told is taken for the rule that does the most.
        return Ok(OnDelete::Cascade);
    };
    // Names are quoted, so only the rule itself stands behind the last of them.
    let rule = line.rsplit_once('`').map_or("", |(_, rule)| rule);
    Ok(match rule {
        _ if rule.contains("ON DELETE CASCADE") => OnDelete::Cascade,
        _ if rule.contains("ON DELETE SET") => OnDelete::Unset,
        _ => OnDelete::Refuse,
    })
}

/// One foreign key, a row for each of its columns.
fn foreign_key(parts: &[Row]) -> ForeignKey {
    let first = parts.first().cloned().unwrap_or_default();
    let (schema, table) = (text(&first, 6), text(&first, 3));
    ForeignKey {
        columns: parts.iter().map(|part| text(part, 2)).collect(),
        parent: if schema.is_empty() { table } else { format!("{schema}.{table}") },
        parent_columns: parts.iter().map(|part| text(part, 4)).collect(),
        on_delete: match text(&first, 5).as_str() {
            "CASCADE" => OnDelete::Cascade,
            "SET NULL" | "SET DEFAULT" => OnDelete::Unset,
            _ => OnDelete::Refuse,
        },
    }
}

/// Without a primary key, a unique key without nullable columns serves.
fn choose_key(mut table: Table) -> Table {
    table.unique.sort();
    if table.key.is_empty() {
        let never_null = |part: &String| table.columns.iter().any(|column| column.name == *part && !column.nullable);
        let chosen = table.unique.iter().position(|list| list.iter().all(never_null));
        if let Some(index) = chosen {
            table.key = table.unique.remove(index);
        }
    }
    table
}

/// A text of a catalogue row; empty when it is NULL.
pub(super) fn text(row: &Row, index: usize) -> String {
    match row.get(index) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    }
}
