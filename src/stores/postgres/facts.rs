//! Sizes and indexes of tables, from the catalogue. A table that was never analysed is judged by its bytes.

use std::collections::BTreeMap;

use super::PgSession;
use super::catalogue::text;
use crate::stores::facts::group;
use crate::stores::session::{Session, fetch_integer};
use crate::stores::sql::{Argument, Schema, Statement};
use crate::stores::{Result, TableFacts};

/// A partitioned table has as many rows as its parts.
const ROWS: &str = "SELECT CAST(coalesce(sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE pg_relation_size(c.oid) / 60 END), 0) \
     AS bigint) FROM pg_class c WHERE c.relkind <> 'p' AND (c.oid = to_regclass($1) OR \
     c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass($1)) WHERE isleaf))";

const INDEXES: &str = "SELECT CAST(i.indexrelid AS text), coalesce(CAST(a.attname AS text), '') FROM pg_index i \
     CROSS JOIN LATERAL unnest(CAST(i.indkey AS int2[])) WITH ORDINALITY AS k (attnum, place) \
     LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0 \
     WHERE i.indrelid = to_regclass($1) AND i.indpred IS NULL AND i.indisvalid AND k.place <= i.indnkeyatts \
     ORDER BY i.indexrelid, k.place";

pub(super) async fn read(
    session: &mut PgSession,
    schema: &Schema,
    tables: &[String],
) -> Result<BTreeMap<String, TableFacts>> {
    let mut facts = BTreeMap::new();
    for name in tables.iter().filter(|name| schema.catalogue.table(name).is_some()) {
        let place = schema.place(name);
        let asked = |sql: &str| Statement {
            sql: sql.to_owned(),
            arguments: vec![Argument::Text(place.clone())],
            outputs: Vec::new(),
        };
        let rows = fetch_integer(session, asked(ROWS)).await?.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
        let columns = session.fetch(asked(INDEXES)).await?;
        let indexes = group(columns.iter().map(|row| (text(row, 0), text(row, 1))));
        facts.insert(name.clone(), TableFacts { rows, indexes, place });
    }
    Ok(facts)
}
