//! Sizes and indexes of tables, from the catalogue.

use std::collections::BTreeMap;

use super::MysqlSession;
use super::catalogue::text;
use crate::stores::facts::group;
use crate::stores::session::{Session, fetch_integer};
use crate::stores::sql::{Argument, Output, Schema, Statement};
use crate::stores::{Result, TableFacts};

const ROWS: &str = "SELECT CAST(coalesce(TABLE_ROWS, 0) AS SIGNED) FROM information_schema.TABLES \
     WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";

const INDEXES: &str = "SELECT CAST(INDEX_NAME AS CHAR), CAST(coalesce(COLUMN_NAME, '') AS CHAR) FROM information_schema.STATISTICS \
     WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND INDEX_TYPE = 'BTREE' ORDER BY INDEX_NAME, SEQ_IN_INDEX";

pub(super) async fn read(
    session: &mut MysqlSession,
    schema: &Schema,
    tables: &[String],
) -> Result<BTreeMap<String, TableFacts>> {
    let mut facts = BTreeMap::new();
    for name in tables.iter().filter(|name| schema.catalogue.table(name).is_some()) {
        let asked = |sql: &str, outputs: Vec<Output>| Statement {
            sql: sql.to_owned(),
            arguments: vec![Argument::Text(name.clone())],
            outputs,
        };
        let rows = fetch_integer(session, asked(ROWS, vec![Output::Integer])).await?;
        let rows = rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
        let columns = session.fetch(asked(INDEXES, vec![Output::Text; 2])).await?;
        let indexes = group(columns.iter().map(|row| (text(row, 0), text(row, 1))));
        facts.insert(name.clone(), TableFacts { rows, indexes, place: schema.place(name) });
    }
    Ok(facts)
}
