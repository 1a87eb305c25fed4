//! The PostgreSQL catalogue.
//!
//! Tables of the search path's first schema go by their own name, all others by `schema.table`. Partitions belong to
//! their partitioned table; tables of extensions are left out.

use std::collections::BTreeMap;

use super::PgSession;
use crate::stores::session::{MARKER_TABLE, Session, fetch_integer};
use crate::stores::sql::{Place, Schema, Statement};
use crate::stores::{Catalogue, Column, ColumnKind, Engine, ForeignKey, IS_VIEW, OnDelete, Result, Table, Trigger};
use crate::value::{Row, Value};

const TABLES: &str = "SELECT CAST(c.oid AS bigint), CAST(n.nspname AS text), CAST(c.relname AS text), row_security_active(c.oid), \
     coalesce(n.nspname = current_schema(), false) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' \
     AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' \
     AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = CAST('pg_class' AS regclass) AND d.objid = c.oid AND d.deptype = 'e')";

/// Columns with the type behind any domains. A cast needs the type without length: -1 instead of the column's own.
const COLUMNS: &str = "WITH RECURSIVE used AS (SELECT DISTINCT atttypid AS leaf FROM pg_attribute a \
       JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') WHERE a.attnum > 0 AND NOT a.attisdropped), \
     base AS (SELECT u.leaf, t.oid, t.typtype, t.typbasetype, t.typname, t.typcategory FROM used u JOIN pg_type t ON t.oid = u.leaf \
       UNION ALL SELECT b.leaf, t.oid, t.typtype, t.typbasetype, t.typname, t.typcategory FROM base b \
       JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd') \
     SELECT CAST(a.attrelid AS bigint), CAST(a.attname AS text), format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1), \
     a.attnotnull OR coalesce(t.typnotnull, false), pg_get_expr(d.adbin, d.adrelid), a.attgenerated <> '', a.attidentity <> '', \
     CAST(b.typname AS text), CAST(b.typtype AS text), \
     CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END \
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') \
     JOIN pg_type t ON t.oid = a.atttypid JOIN base b ON b.leaf = a.atttypid AND b.typtype <> 'd' \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace \
     WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

/// Indexes; the names of their columns as a JSON array, NULL for expressions.
const INDEXES: &str = "SELECT CAST(i.indrelid AS bigint), i.indisprimary, \
     i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL, \
     (SELECT CAST(json_agg(a.attname ORDER BY k.place) AS text) FROM unnest(i.indkey) WITH ORDINALITY AS k(number, place) \
       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE k.place <= i.indnkeyatts), \
     pg_get_indexdef(i.indexrelid), i.indisexclusion \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid ORDER BY c.relname";

const FOREIGN_KEYS: &str = "SELECT CAST(c.conrelid AS bigint), CAST(c.confrelid AS bigint), \
     (SELECT CAST(json_agg(a.attname ORDER BY k.place) AS text) FROM unnest(c.conkey) WITH ORDINALITY AS k(number, place) \
       JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number), \
     (SELECT CAST(json_agg(a.attname ORDER BY k.place) AS text) FROM unnest(c.confkey) WITH ORDINALITY AS k(number, place) \
       JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.number), \
     CAST(c.confdeltype AS text), c.condeferrable AND c.confdeltype <> 'r' FROM pg_constraint c WHERE c.contype = 'f' AND c.conparentid = 0 ORDER BY c.conname";

/// Every partition with the table whose rows it holds in the end.
const PARTITIONS: &str = "SELECT CAST(c.oid AS bigint), CAST(CAST(pg_partition_root(c.oid) AS oid) AS bigint) \
     FROM pg_class c WHERE c.relispartition AND c.relkind IN ('r', 'p')";

/// Views of all kinds, foreign tables, and tables that take part in an inheritance that is no partitioning.
const REFUSED: &str = "SELECT CAST(n.nspname AS text), CAST(c.relname AS text), coalesce(n.nspname = current_schema(), false), \
     CAST(c.relkind AS text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' AND (c.relkind IN ('v', 'm', 'f') \
     OR c.relkind = 'r' AND NOT c.relispartition AND EXISTS (SELECT 1 FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)))";

/// Triggers, and rules, which may turn a DELETE into something else. Bits of tgtype: 8 DELETE, 16 UPDATE.
const TRIGGERS: &str = "SELECT CAST(t.tgrelid AS bigint), CAST(t.tgname AS text), (t.tgtype & 8) <> 0, (t.tgtype & 16) <> 0 \
     FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' \
     UNION ALL SELECT CAST(r.ev_class AS bigint), CAST(r.rulename AS text), r.ev_type = '4', r.ev_type = '2' \
     FROM pg_rewrite r WHERE r.ev_type IN ('2', '4') AND r.ev_enabled <> 'D' ORDER BY 2";

/// Whether the marker table exists in the first schema of the search path.
pub(super) async fn has_marker_table(session: &mut PgSession) -> Result<bool> {
    let sql = format!(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = current_schema() AND c.relname = '{MARKER_TABLE}'"
    );
    Ok(fetch_integer(session, Statement::plain(sql)).await?.is_some())
}

/// Reads the whole catalogue.
pub(super) async fn load(session: &mut PgSession) -> Result<Schema> {
    let mut names = BTreeMap::new();
    let mut tables: BTreeMap<i64, Table> = BTreeMap::new();
    let mut schema = Schema::new(Engine::Postgres, Catalogue::default());
    for row in session.fetch(Statement::plain(TABLES)).await? {
        let place = Place { schema: Some(text(&row, 1)), table: text(&row, 2) };
        let first = truth(&row, 4);
        if first && place.table == MARKER_TABLE {
            continue;
        }
        let name = if first { place.table.clone() } else { format!("{}.{}", text(&row, 1), place.table) };
        names.insert(integer(&row, 0), name.clone());
        tables.insert(integer(&row, 0), empty_table(name.clone(), truth(&row, 3)));
        schema.places.insert(name, place);
    }
    for row in session.fetch(Statement::plain(COLUMNS)).await? {
        if let Some(table) = tables.get_mut(&integer(&row, 0)) {
            schema.casts.insert((table.name.clone(), text(&row, 1)), text(&row, 3));
            table.columns.push(column_of(&row));
        }
    }
    for row in session.fetch(Statement::plain(INDEXES)).await? {
        if let Some(table) = tables.get_mut(&integer(&row, 0)) {
            add_index(table, &row);
        }
    }
    // What a partition has of its own counts for the whole table.
    let partitions = session.fetch(Statement::plain(PARTITIONS)).await?;
    let partitions: BTreeMap<i64, i64> = partitions.iter().map(|row| (integer(row, 0), integer(row, 1))).collect();
    let whole = |oid: i64| partitions.get(&oid).copied().unwrap_or(oid);
    for row in session.fetch(Statement::plain(FOREIGN_KEYS)).await? {
        let Some(parent) = names.get(&whole(integer(&row, 1))).cloned() else { continue };
        if let Some(table) = tables.get_mut(&whole(integer(&row, 0))) {
            let on_delete = match text(&row, 4).as_str() {
                "c" => OnDelete::Cascade,
                "n" | "d" => OnDelete::Unset,
                _ => OnDelete::Refuse,
            };
            let (columns, parent_columns) = (name_list(&row, 2), name_list(&row, 3));
            if truth(&row, 5) {
                schema.catalogue.deferrable.insert((table.name.clone(), columns.clone()));
            }
            table.foreign_keys.push(ForeignKey { columns, parent, parent_columns, on_delete });
        }
    }
    for row in session.fetch(Statement::plain(TRIGGERS)).await? {
        if let Some(table) = tables.get_mut(&whole(integer(&row, 0))) {
            for on_delete in [true, false] {
                let trigger = Trigger { name: text(&row, 1), on_delete };
                if truth(&row, if on_delete { 2 } else { 3 }) && !table.triggers.contains(&trigger) {
                    table.triggers.push(trigger);
                }
            }
        }
    }
    let mut tables: Vec<Table> = tables.into_values().map(choose_key).collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    schema.catalogue.tables = tables;
    schema.catalogue.refused = refused(session).await?;
    Ok(schema)
}

/// What looks like a table but cannot be a collection.
async fn refused(session: &mut PgSession) -> Result<BTreeMap<String, String>> {
    let mut refused = BTreeMap::new();
    for row in session.fetch(Statement::plain(REFUSED)).await? {
        let (first, table) = (truth(&row, 2), text(&row, 1));
        let name = if first { table } else { format!("{}.{table}", text(&row, 0)) };
        let why = match text(&row, 3).as_str() {
            "f" => "is a foreign table, whose rows lie in another database; register it there",
            "r" => {
                "inherits from another table or is inherited from, so its rows show in several tables and its keys do not \
                 hold for all of them; partition it, or take the inheritance apart"
            }
            _ => IS_VIEW,
        };
        refused.insert(name, why.to_owned());
    }
    Ok(refused)
}

fn empty_table(name: String, rows_may_be_hidden: bool) -> Table {
    Table {
        name,
        columns: Vec::new(),
        key: Vec::new(),
        unique: Vec::new(),
        foreign_keys: Vec::new(),
        triggers: Vec::new(),
        rows_may_be_hidden,
        index_statements: Vec::new(),
    }
}

fn column_of(row: &Row) -> Column {
    let default = matches!(row.get(5), Some(Value::Text(_))).then(|| text(row, 5));
    let (generated, identity) = (truth(row, 6), truth(row, 7));
    let collation = text(row, 10);
    let type_name = text(row, 2);
    Column {
        name: text(row, 1),
        type_name: if collation.is_empty() { type_name } else { format!("{type_name} COLLATE {collation}") },
        kind: kind_of(&text(row, 8), &text(row, 9)),
        nullable: !truth(row, 4),
        numbered: identity || (!generated && default.as_deref().is_some_and(|text| text.starts_with("nextval("))),
        default,
        generated,
    }
}

/// What a type holds; `None` for what its text form cannot carry to another moment or another server.
fn kind_of(base: &str, type_kind: &str) -> Option<ColumnKind> {
    let element = base.strip_prefix('_').unwrap_or(base);
    let refused = ["xid", "xid8", "cid", "tid", "aclitem", "pg_node_tree", "pg_snapshot", "txid_snapshot", "refcursor"];
    // An object's number is not the same object elsewhere, and its name may be gone tomorrow.
    if type_kind == "p" || element.starts_with("reg") || element.starts_with("pg_brin") || refused.contains(&element) {
        return None;
    }
    Some(match base {
        "int2" | "int4" | "int8" | "oid" => ColumnKind::Integer,
        "float4" | "float8" => ColumnKind::Real,
        "numeric" => ColumnKind::Decimal,
        "bool" => ColumnKind::Boolean,
        "text" | "varchar" | "bpchar" | "name" | "char" | "citext" => ColumnKind::Text,
        "bytea" => ColumnKind::Bytes,
        "date" => ColumnKind::Date,
        "timestamp" => ColumnKind::LocalTime,
        "timestamptz" => ColumnKind::Instant,
        _ => ColumnKind::Other,
    })
}

fn add_index(table: &mut Table, row: &Row) {
    let columns = name_list(row, 3);
    if truth(row, 1) {
        table.key = columns;
    } else if truth(row, 2) {
        table.unique.push(columns);
    } else if !truth(row, 5) {
        table.index_statements.push(text(row, 4));
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

/// A JSON array of names.
pub(super) fn name_list(row: &Row, index: usize) -> Vec<String> {
    serde_json::from_str(&text(row, index)).unwrap_or_default()
}

/// A text of a catalogue row; empty when it is NULL.
pub(super) fn text(row: &Row, index: usize) -> String {
    match row.get(index) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

pub(super) fn integer(row: &Row, index: usize) -> i64 {
    match row.get(index) {
        Some(Value::Integer(number)) => *number,
        _ => 0,
    }
}

/// A truth value of a catalogue row; the session decodes them as 0 and 1.
pub(super) fn truth(row: &Row, index: usize) -> bool {
    integer(row, index) != 0
}
