//! Definitions as MariaDB prints them: SHOW CREATE, with the foreign keys taken out, which come last.

use super::MysqlSession;
use super::catalogue::text;
use crate::stores::definitions::{
    CreateTable, Definitions, ObjectDefinition, ObjectKind, Position, ReferenceDefinition, TableDefinition,
};
use crate::stores::session::Session;
use crate::stores::sql::{Schema, Statement, quote};
use crate::stores::{Engine, ForeignKey, Result, StoreError};

const SEQUENCES: &str = "SELECT TABLE_NAME, DATABASE() FROM information_schema.TABLES \
     WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'SEQUENCE' ORDER BY TABLE_NAME";

/// Reads the definitions of tables.
pub(super) async fn load(session: &mut MysqlSession, schema: &Schema, tables: &[&str]) -> Result<Definitions> {
    let mut definitions = Definitions::default();
    let quoted = |name: &str| quote(Engine::Mysql, name);
    session.script("SET SESSION sql_quote_show_create = 1").await?;
    let sequences = session.fetch(Statement::plain(SEQUENCES)).await?;
    let mut wanted: Vec<(String, String)> = Vec::new();
    for name in tables {
        let place = quoted(name);
        let Some(mut statement) = shown(session, &format!("SHOW CREATE TABLE {place}"), 1).await? else { continue };
        for row in &sequences {
            // Printed with its database, it would be that database's sequence for ever.
            let own = quoted(&text(row, 0));
            let far = format!("{}.{own}", quoted(&text(row, 1)));
            if statement.contains(&far) {
                statement = statement.replace(&far, &own);
                if wanted.iter().all(|(sequence, _)| *sequence != own) {
                    wanted.push((own, (*name).to_owned()));
                }
            }
        }
        let keys = schema.catalogue.table(name).map(|table| table.foreign_keys.clone()).unwrap_or_default();
        let (statement, constraints) = take_foreign_keys(&statement);
        definitions.tables.push(TableDefinition {
            table: (*name).to_owned(),
            create: vec![CreateTable { statement, holds_rows: true }],
            parts: Vec::new(),
            references: keys.into_iter().filter_map(|key| reference(&place, key, &constraints)).collect(),
        });
    }
    for (sequence, table) in wanted {
        let made = shown(session, &format!("SHOW CREATE SEQUENCE {sequence}"), 1).await?;
        let (kind, name) = (ObjectKind::Sequence, sequence.clone());
        definitions.objects.extend(made.map(|statement| ObjectDefinition { kind, name, statement }));
        let next = format!("SELECT CAST(next_not_cached_value AS CHAR) FROM {sequence}");
        let next = shown(session, &next, 0).await?.and_then(|next| next.parse().ok());
        definitions.positions.extend(next.map(|last| Position { sequence, table, last, is_used: false }));
    }
    Ok(definitions)
}

/// What the server shows; none where it does not show it to this login, which may read rows all the same.
async fn shown(session: &mut MysqlSession, query: &str, at: usize) -> Result<Option<String>> {
    match session.fetch(Statement::plain(query)).await {
        Ok(rows) => Ok(rows.first().map(|row| text(row, at))),
        Err(StoreError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The statement that adds a foreign key, found by its columns and parent in what SHOW CREATE TABLE printed.
fn reference(place: &str, key: ForeignKey, constraints: &[String]) -> Option<ReferenceDefinition> {
    let list = |names: &[String]| names.iter().map(|name| quote(Engine::Mysql, name)).collect::<Vec<_>>().join(", ");
    let parent = key.parent.split('.').map(|part| quote(Engine::Mysql, part)).collect::<Vec<_>>().join(".");
    let shape = format!(" FOREIGN KEY ({}) REFERENCES {parent} ({})", list(&key.columns), list(&key.parent_columns));
    let found = constraints.iter().find(|constraint| constraint.contains(&shape))?;
    let statement = format!("ALTER TABLE {place} ADD {found}");
    let ForeignKey { columns, parent, parent_columns, .. } = key;
    Some(ReferenceDefinition { columns, parent, parent_columns, statement })
}

/// Takes the foreign keys out of CREATE TABLE. Returns the statement without them, and them.
fn take_foreign_keys(statement: &str) -> (String, Vec<String>) {
    let Some((begin, end)) = body(statement) else { return (statement.to_owned(), Vec::new()) };
    let (mut kept, mut keys) = (Vec::new(), Vec::new());
    for part in split(&statement[begin..end]) {
        let trimmed = part.trim();
        let is_key = trimmed.starts_with("CONSTRAINT `")
            && after_name(&trimmed["CONSTRAINT ".len()..]).is_some_and(|rest| rest.starts_with(" FOREIGN KEY ("));
        if is_key { keys.push(trimmed.to_owned()) } else { kept.push(part) }
    }
    (format!("{}{}\n{}", &statement[..begin], kept.join(",").trim_end(), &statement[end..]), keys)
}

/// What stands behind a name in backticks.
fn after_name(text: &str) -> Option<&str> {
    let mut at = 1;
    loop {
        at += text.get(at..)?.find('`')? + 1;
        if text.as_bytes().get(at) != Some(&b'`') {
            return text.get(at..);
        }
        at += 1;
    }
}

/// Where the list in the outermost parentheses begins and ends.
fn body(statement: &str) -> Option<(usize, usize)> {
    let (mut depth, mut begin) = (0, None);
    for (at, byte) in plain(statement) {
        match byte {
            b'(' => {
                depth += 1;
                begin = begin.or(Some(at + 1));
            }
            b')' => {
                depth -= 1;
                if depth == 0 {
                    return begin.map(|begin| (begin, at));
                }
            }
            _ => {}
        }
    }
    None
}

/// The parts of a list between commas that stand in no parentheses.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, byte) in plain(list) {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts
}

/// The bytes outside of quotes, with their places. Inside quotes a quote is doubled, or behind a backslash.
fn plain(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let mut quote = None;
    let mut is_escaped = false;
    text.bytes().enumerate().filter(move |(_, byte)| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match quote {
            None if matches!(byte, b'\'' | b'"' | b'`') => quote = Some(*byte),
            None => return true,
            // A doubled quote ends and begins again.
            Some(open) if open == *byte => quote = None,
            Some(b'\'' | b'"') if *byte == b'\\' => is_escaped = true,
            Some(_) => {}
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_are_taken_out_and_nothing_else_is_touched() {
        let statement = "CREATE TABLE `t (x` (\n  `a``,` int(11) DEFAULT 3 COMMENT 'a, ''b'' \\' (',\n  `e` enum('x,(','y') DEFAULT NULL,\n  \
             KEY `k` (`e`,`a``,`),\n  CONSTRAINT `f``1` FOREIGN KEY (`e`, `a``,`) REFERENCES `p` (`x`, `y`) ON DELETE CASCADE,\n  \
             CONSTRAINT `c` CHECK (`e` <> 'CONSTRAINT `f` FOREIGN KEY (')\n) ENGINE=InnoDB COMMENT='), CONSTRAINT `x`'";
        let (rest, keys) = take_foreign_keys(statement);
        assert_eq!(keys, ["CONSTRAINT `f``1` FOREIGN KEY (`e`, `a``,`) REFERENCES `p` (`x`, `y`) ON DELETE CASCADE"]);
        let key_line = format!("  {},\n", keys[0]);
        assert_eq!(rest, statement.replace(&key_line, ""));
        let key = ForeignKey {
            columns: vec!["e".to_owned(), "a`,".to_owned()],
            parent: "p".to_owned(),
            parent_columns: vec!["x".to_owned(), "y".to_owned()],
            on_delete: crate::stores::OnDelete::Cascade,
        };
        let found = reference("`t (x`", key.clone(), &keys).unwrap();
        assert_eq!(found.statement, format!("ALTER TABLE `t (x` ADD {}", keys[0]));
        assert!(reference("`t`", ForeignKey { parent: "q".to_owned(), ..key }, &keys).is_none());
    }

    #[test]
    fn a_foreign_key_at_the_end_leaves_no_comma() {
        let statement = "CREATE TABLE `t` (\n  `a` int,\n  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p` (`x`)\n) ENGINE=InnoDB\n PARTITION BY HASH (`a`)";
        let (rest, keys) = take_foreign_keys(statement);
        assert_eq!(rest, "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB\n PARTITION BY HASH (`a`)");
        assert_eq!(keys.len(), 1);
    }
}
