//! The SQLite catalogue, from pragmas and the stored CREATE statements.

use std::collections::BTreeSet;

use super::{SqliteSession, pragma};
use crate::stores::session::{MARKER_TABLE, Session, fetch_integer};
use crate::stores::sql::{Argument, Output, Statement};
use crate::stores::{Catalogue, Column, ColumnKind, ForeignKey, IS_VIEW, OnDelete, Result, Table, Trigger};
use crate::value::{Row, Value};

/// Foreign keys that can be checked late, by table and columns.
type Deferrable = BTreeSet<(String, Vec<String>)>;

/// Reads all ordinary tables of the main database.
pub(super) async fn load(session: &mut SqliteSession) -> Result<Catalogue> {
    let sql = "SELECT t.name, m.sql FROM pragma_table_list AS t JOIN sqlite_master AS m ON m.name = t.name AND m.type = 'table' \
               WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite^_%' ESCAPE '^' ORDER BY t.name";
    let (mut tables, mut deferrable) = (Vec::new(), BTreeSet::new());
    for row in session.fetch(Statement::plain(sql)).await? {
        let (name, definition) = (text(&row, 0), text(&row, 1));
        if name != MARKER_TABLE {
            tables.push(load_table(session, &name, &definition, &mut deferrable).await?);
        }
    }
    resolve_implicit_parents(&mut tables);
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let views = session.fetch(Statement::plain("SELECT name FROM sqlite_master WHERE type = 'view'")).await?;
    let refused = views.iter().map(|row| (text(row, 0), IS_VIEW.to_owned())).collect();
    Ok(Catalogue { tables, deferrable, refused })
}

/// Whether the marker table exists.
pub(super) async fn has_marker_table(session: &mut SqliteSession) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?".to_owned();
    let arguments = vec![Argument::Text(MARKER_TABLE.to_owned())];
    let statement = Statement { sql, arguments, outputs: vec![Output::Native] };
    Ok(fetch_integer(session, statement).await?.is_some())
}

async fn load_table(
    session: &mut SqliteSession,
    name: &str,
    definition: &str,
    deferrable: &mut Deferrable,
) -> Result<Table> {
    let (columns, mut key) = load_columns(session, name, definition).await?;
    let (unique, index_statements) = load_indexes(session, name).await?;
    if key.is_empty() {
        let never_null = |part: &String| columns.iter().any(|column| column.name == *part && !column.nullable);
        key = unique.iter().find(|list| list.iter().all(never_null)).cloned().unwrap_or_default();
    }
    Ok(Table {
        name: name.to_owned(),
        unique: unique.into_iter().filter(|list| *list != key).collect(),
        columns,
        key,
        foreign_keys: load_foreign_keys(session, name, deferrable).await?,
        triggers: load_triggers(session, name).await?,
        rows_may_be_hidden: false,
        index_statements,
    })
}

async fn load_columns(session: &mut SqliteSession, name: &str, definition: &str) -> Result<(Vec<Column>, Vec<String>)> {
    let numbering = definition.to_uppercase().contains("AUTOINCREMENT");
    let rows =
        session.fetch(pragma("pragma_table_xinfo", "name, type, \"notnull\", dflt_value, pk, hidden", name)).await?;
    let mut key: Vec<(i64, String)> = Vec::new();
    let mut columns = Vec::new();
    let key_parts = rows.iter().filter(|row| integer(row, 4) > 0).count();
    for row in &rows {
        // 1: hidden column of a virtual table; 2 and 3: generated.
        let (position, hidden) = (integer(row, 4), integer(row, 5));
        if hidden == 1 {
            continue;
        }
        let type_name = text(row, 1);
        if position > 0 {
            key.push((position, text(row, 0)));
        }
        let is_rowid = position > 0 && key_parts == 1 && type_name.eq_ignore_ascii_case("INTEGER");
        columns.push(Column {
            name: text(row, 0),
            kind: Some(kind_of(&type_name)),
            type_name,
            nullable: integer(row, 2) == 0 && !is_rowid,
            default: matches!(row.get(3), Some(Value::Text(_))).then(|| text(row, 3)),
            generated: hidden == 2 || hidden == 3,
            numbered: is_rowid && numbering,
        });
    }
    key.sort();
    Ok((columns, key.into_iter().map(|(_, name)| name).collect()))
}

/// What the declared type suggests. It binds nobody: every value is carried by its own class.
fn kind_of(type_name: &str) -> ColumnKind {
    let upper = type_name.to_uppercase();
    let has = |part: &str| upper.contains(part);
    match upper.as_str() {
        "DATE" => ColumnKind::Date,
        "DATETIME" | "TIMESTAMP" => ColumnKind::LocalTime,
        "BOOLEAN" | "BOOL" => ColumnKind::Boolean,
        _ if has("INT") => ColumnKind::Integer,
        _ if has("CHAR") || has("CLOB") || has("TEXT") => ColumnKind::Text,
        _ if has("BLOB") => ColumnKind::Bytes,
        _ if has("REAL") || has("FLOA") || has("DOUB") => ColumnKind::Real,
        _ if has("NUMERIC") || has("DECIMAL") => ColumnKind::Decimal,
        _ => ColumnKind::Other,
    }
}

/// Unique column lists, and the statements of the other indexes.
async fn load_indexes(session: &mut SqliteSession, name: &str) -> Result<(Vec<Vec<String>>, Vec<String>)> {
    let (mut unique, mut statements) = (Vec::new(), Vec::new());
    for row in session.fetch(pragma("pragma_index_list", "name, \"unique\", origin, partial", name)).await? {
        let (index, origin) = (text(&row, 0), text(&row, 2));
        if origin == "pk" {
            continue;
        }
        let parts = session.fetch(pragma("pragma_index_info", "name", &index)).await?;
        let columns: Vec<String> = parts.iter().map(|part| text(part, 0)).collect();
        // A part without a name is an expression.
        let whole = integer(&row, 3) == 0 && parts.iter().all(|part| matches!(part.first(), Some(Value::Text(_))));
        if integer(&row, 1) == 1 && whole {
            unique.push(columns);
            continue;
        }
        let sql = "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ? AND sql IS NOT NULL".to_owned();
        let arguments = vec![Argument::Text(index)];
        let found = session.fetch(Statement { sql, arguments, outputs: vec![Output::Native] }).await?;
        statements.extend(found.iter().map(|row| text(row, 0)));
    }
    unique.sort();
    statements.sort();
    Ok((unique, statements))
}

async fn load_foreign_keys(
    session: &mut SqliteSession,
    name: &str,
    deferrable: &mut Deferrable,
) -> Result<Vec<ForeignKey>> {
    let columns = "id, \"table\", \"from\", \"to\", on_delete";
    let mut rows = session.fetch(pragma("pragma_foreign_key_list", &format!("{columns}, seq"), name)).await?;
    rows.sort_by_key(|row| (integer(row, 0), integer(row, 5)));
    let mut keys: Vec<(i64, ForeignKey)> = Vec::new();
    let mut restricting = BTreeSet::new();
    for row in &rows {
        let id = integer(row, 0);
        // Only RESTRICT acts at once whatever a transaction asks for.
        if text(row, 4) == "RESTRICT" {
            restricting.insert(id);
        }
        if keys.last().is_none_or(|(last, _)| *last != id) {
            let on_delete = match text(row, 4).as_str() {
                "CASCADE" => OnDelete::Cascade,
                "SET NULL" | "SET DEFAULT" => OnDelete::Unset,
                _ => OnDelete::Refuse,
            };
            let (columns, parent_columns) = (Vec::new(), Vec::new());
            keys.push((id, ForeignKey { columns, parent: text(row, 1), parent_columns, on_delete }));
        }
        if let Some((_, key)) = keys.last_mut() {
            key.columns.push(text(row, 2));
            if matches!(row.get(3), Some(Value::Text(_))) {
                key.parent_columns.push(text(row, 3));
            }
        }
    }
    let put_off = keys.iter().filter(|(id, _)| !restricting.contains(id));
    deferrable.extend(put_off.map(|(_, key)| (name.to_owned(), key.columns.clone())));
    // SQLite numbers them from the last to the first.
    Ok(keys.into_iter().rev().map(|(_, key)| key).collect())
}

/// `REFERENCES parent` without columns means the parent's primary key; and the parent's name may be written in other
/// case.
fn resolve_implicit_parents(tables: &mut [Table]) {
    let keys: Vec<(String, Vec<String>)> = tables.iter().map(|table| (table.name.clone(), table.key.clone())).collect();
    for key in tables.iter_mut().flat_map(|table| &mut table.foreign_keys) {
        let found = keys.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key.parent));
        if let Some((name, parent_key)) = found {
            key.parent.clone_from(name);
            if key.parent_columns.is_empty() {
                key.parent_columns.clone_from(parent_key);
            }
        }
    }
}

async fn load_triggers(session: &mut SqliteSession, name: &str) -> Result<Vec<Trigger>> {
    let sql =
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY name"
            .to_owned();
    let arguments = vec![Argument::Text(name.to_owned())];
    let rows = session.fetch(Statement { sql, arguments, outputs: vec![Output::Native; 2] }).await?;
    let read = |row: &Row| {
        let name = text(row, 0);
        match trigger_event(&text(row, 1)) {
            Event::Insert => None,
            Event::Update => Some(Trigger { name, on_delete: false }),
            Event::Delete | Event::Unknown => Some(Trigger { name, on_delete: true }),
        }
    };
    Ok(rows.iter().filter_map(read).collect())
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Insert,
    Update,
    Delete,
    Unknown,
}

/// The event a trigger fires on, from its CREATE statement: the first of the three words behind the trigger's name.
fn trigger_event(sql: &str) -> Event {
    let mut words = words(sql).into_iter().skip_while(|word| !word.eq_ignore_ascii_case("TRIGGER")).skip(1);
    let mut word = words.next();
    if word.as_deref().is_some_and(|word| word.eq_ignore_ascii_case("IF")) {
        word = words.nth(2);
    }
    if word.is_none() {
        return Event::Unknown;
    }
    for word in words {
        match word.to_uppercase().as_str() {
            "INSERT" => return Event::Insert,
            "UPDATE" => return Event::Update,
            "DELETE" => return Event::Delete,
            "ON" | "BEGIN" => return Event::Unknown,
            _ => {}
        }
    }
    Event::Unknown
}

/// Words of SQL; a quoted name is one word with its quotes, comments are skipped, `a.b` is one word.
fn words(sql: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = sql.chars().peekable();
    while let Some(letter) = rest.next() {
        let closing = match letter {
            '"' | '`' | '\'' => Some(letter),
            '[' => Some(']'),
            _ => None,
        };
        let current = words.len() - 1;
        if let Some(closing) = closing {
            words[current].push(letter);
            for inside in rest.by_ref() {
                words[current].push(inside);
                if inside == closing {
                    break;
                }
            }
        } else if letter == '-' && rest.peek() == Some(&'-') {
            rest.by_ref().find(|inside| *inside == '\n');
            words.push(String::new());
        } else if letter == '/' && rest.peek() == Some(&'*') {
            let mut last = ' ';
            rest.by_ref().skip(1).find(|inside| std::mem::replace(&mut last, *inside) == '*' && *inside == '/');
            words.push(String::new());
        } else if letter.is_alphanumeric() || letter == '_' || letter == '.' || letter == '$' {
            words[current].push(letter);
        } else {
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A text of a catalogue row; empty when it is something else.
pub(super) fn text(row: &Row, index: usize) -> String {
    match row.get(index) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

fn integer(row: &Row, index: usize) -> i64 {
    match row.get(index) {
        Some(Value::Integer(number)) => *number,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_of_a_trigger_is_read_from_its_statement() {
        let cases = [
            ("CREATE TRIGGER t AFTER DELETE ON a BEGIN SELECT 1; END", Event::Delete),
            (
                "create temp trigger if not exists main.t before update of x, y on a begin delete from b; end",
                Event::Update,
            ),
            ("CREATE TRIGGER \"my delete\" AFTER INSERT ON a BEGIN DELETE FROM b; END", Event::Insert),
            ("CREATE /* update */ TRIGGER [a b] -- insert\n INSTEAD OF DELETE ON v BEGIN SELECT 1; END", Event::Delete),
            ("CREATE TRIGGER \"DELETE\" UPDATE ON a BEGIN SELECT 1; END", Event::Update),
            ("CREATE TRIGGER t ON a BEGIN DELETE FROM b; END", Event::Unknown),
            ("nonsense", Event::Unknown),
        ];
        for (sql, event) in cases {
            assert_eq!(trigger_event(sql), event, "{sql}");
        }
    }
}
