//! Sizes and indexes of tables. SQLite keeps no number of rows, so they are counted as far as is asked for.

use std::collections::BTreeMap;

use super::SqliteSession;
use crate::stores::facts::group;
use crate::stores::session::{Session, fetch_integer};
use crate::stores::sql::{Argument, Output, Schema, Statement};
use crate::stores::{Result, TableFacts};
use crate::value::Value;

const INDEXES: &str = "SELECT l.name, coalesce(i.name, '') FROM pragma_index_list(?) AS l, pragma_index_info(l.name) AS i \
     WHERE l.partial = 0 ORDER BY l.seq, i.seqno";

/// A single integer column as the key is the table itself, of which no index is listed.
const KEY: &str = "SELECT 'key', name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk";

pub(super) async fn read(
    session: &mut SqliteSession,
    schema: &Schema,
    tables: &[String],
    up_to: u64,
) -> Result<BTreeMap<String, TableFacts>> {
    let mut facts = BTreeMap::new();
    let most = i64::try_from(up_to.saturating_add(1)).unwrap_or(i64::MAX);
    for name in tables.iter().filter(|name| schema.catalogue.table(name).is_some()) {
        let place = schema.place(name);
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {place} LIMIT {most})");
        let rows =
            fetch_integer(session, Statement { sql, arguments: Vec::new(), outputs: vec![Output::Integer] }).await?;
        let mut indexes = Vec::new();
        for sql in [KEY, INDEXES] {
            let statement = Statement {
                sql: sql.to_owned(),
                arguments: vec![Argument::Text(name.clone())],
                outputs: vec![Output::Native; 2],
            };
            let columns = session.fetch(statement).await?;
            indexes.extend(group(columns.into_iter().filter_map(|row| match row.as_slice() {
                [Value::Text(index), Value::Text(column)] => Some((index.clone(), column.clone())),
                _ => None,
            })));
        }
        let rows = rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
        facts.insert(name.clone(), TableFacts { rows, indexes, place });
    }
    Ok(facts)
}
