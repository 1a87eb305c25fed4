//! Definitions as PostgreSQL prints them: tables with their partitions, constraints, indexes, and the types, sequences,
//! functions and extensions that they need.
//!
//! While they are read the search path is the first schema alone, so that a name without a schema means that one and no
//! other. Nothing is captured of triggers, rules, policies, rights, comments and storage settings.

use std::collections::{BTreeMap, BTreeSet};

use super::PgSession;
use super::catalogue::{integer, name_list, text, truth};
use crate::stores::Result;
use crate::stores::definitions::{
    CreateTable, Definitions, ObjectDefinition, ObjectKind, PartDefinition, PartKind, Position, ReferenceDefinition,
    TableDefinition,
};
use crate::stores::session::Session;
use crate::stores::sql::{Argument, Schema, Statement};
use crate::value::{Row, Value};

/// Tables with their partitions, parents first. A table is known by its place in the list that is asked for.
const RELATIONS: &str = "SELECT CAST(r.number AS bigint), CAST(c.oid AS bigint), CAST(c.oid::regclass AS text), \
     pg_get_partkeydef(c.oid), CAST(p.parentrelid AS text), pg_get_expr(c.relpartbound, c.oid), c.relpersistence = 'u', \
     quote_ident(n.nspname), n.nspname = current_schema() \
     FROM unnest(CAST($1 AS text[])) WITH ORDINALITY AS r(place, number) \
     CROSS JOIN LATERAL (SELECT relid, parentrelid, level FROM pg_partition_tree(CAST(r.place AS regclass)) \
       UNION SELECT CAST(r.place AS regclass), NULL, 0) AS p \
     JOIN pg_class c ON c.oid = p.relid AND c.relkind IN ('r', 'p') JOIN pg_namespace n ON n.oid = c.relnamespace \
     ORDER BY r.number, p.level, c.oid";

const COLUMNS: &str = "SELECT CAST(a.attrelid AS bigint), concat(quote_ident(a.attname), ' ', format_type(a.atttypid, a.atttypmod), \
     CASE WHEN a.attcollation <> t.typcollation THEN concat(' COLLATE ', quote_ident(cn.nspname), '.', quote_ident(co.collname)) END, \
     CASE WHEN a.attgenerated = 's' THEN concat(' GENERATED ALWAYS AS (', pg_get_expr(d.adbin, d.adrelid), ') STORED') \
       WHEN a.attgenerated <> '' THEN concat(' GENERATED ALWAYS AS (', pg_get_expr(d.adbin, d.adrelid), ') VIRTUAL') \
       WHEN a.attidentity <> '' THEN concat(' GENERATED ', CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, \
         ' AS IDENTITY', (SELECT concat(' (SEQUENCE NAME ', CAST(s.seqrelid::regclass AS text), ' INCREMENT BY ', s.seqincrement, \
           ' MINVALUE ', s.seqmin, ' MAXVALUE ', s.seqmax, ' START WITH ', s.seqstart, ' CACHE ', s.seqcache, \
           CASE WHEN s.seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END, ')') FROM pg_sequence s JOIN pg_depend i \
           ON i.classid = 'pg_class'::regclass AND i.objid = s.seqrelid AND i.refclassid = 'pg_class'::regclass \
           AND i.refobjid = a.attrelid AND i.refobjsubid = a.attnum AND i.deptype = 'i')) \
       WHEN d.adbin IS NOT NULL THEN concat(' DEFAULT ', pg_get_expr(d.adbin, d.adrelid)) END, \
     CASE WHEN a.attnotnull THEN ' NOT NULL' END) \
     FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace \
     WHERE a.attrelid = ANY(CAST(CAST($1 AS text[]) AS oid[])) AND a.attnum > 0 AND NOT a.attisdropped \
     ORDER BY a.attrelid, a.attnum";

/// Constraints but foreign keys and NOT NULL; not those that a partition has from its table.
const CONSTRAINTS: &str = "SELECT CAST(c.conrelid AS bigint), CAST(c.contype AS text), quote_ident(c.conname), \
     concat('ALTER TABLE ', CAST(c.conrelid::regclass AS text), ' ADD CONSTRAINT ', quote_ident(c.conname), ' ', pg_get_constraintdef(c.oid)), \
     CASE WHEN c.contype = 'c' THEN pg_get_expr(c.conbin, c.conrelid) END FROM pg_constraint c \
     WHERE c.conrelid = ANY(CAST(CAST($1 AS text[]) AS oid[])) AND c.contype IN ('p', 'u', 'x', 'c') AND c.conparentid = 0 \
     AND c.coninhcount = 0 ORDER BY strpos('puxc', CAST(c.contype AS text)), c.conname";

/// Indexes that no constraint made. That of a partitioned table is meant for all partitions.
const INDEXES: &str = "SELECT CAST(i.indrelid AS bigint), i.indisunique, quote_ident(c.relname), \
     CASE WHEN c.relkind = 'I' THEN replace(pg_get_indexdef(i.indexrelid, 0, true), concat(quote_ident(c.relname), ' ON ONLY '), \
       concat(quote_ident(c.relname), ' ON ')) ELSE pg_get_indexdef(i.indexrelid, 0, true) END \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = ANY(CAST(CAST($1 AS text[]) AS oid[])) AND i.indisvalid \
     AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) \
     AND NOT EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = i.indexrelid) ORDER BY c.relname";

const REFERENCES: &str = "SELECT CAST(c.conrelid AS bigint), CAST(n.nspname AS text), CAST(p.relname AS text), \
     coalesce(n.nspname = current_schema(), false), \
     (SELECT CAST(json_agg(a.attname ORDER BY k.place) AS text) FROM unnest(c.conkey) WITH ORDINALITY AS k(number, place) \
       JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number), \
     (SELECT CAST(json_agg(a.attname ORDER BY k.place) AS text) FROM unnest(c.confkey) WITH ORDINALITY AS k(number, place) \
       JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.number), \
     concat('ALTER TABLE ', CAST(c.conrelid::regclass AS text), ' ADD CONSTRAINT ', quote_ident(c.conname), ' ', pg_get_constraintdef(c.oid)) \
     FROM pg_constraint c JOIN pg_class p ON p.oid = coalesce(pg_partition_root(c.confrelid), c.confrelid) \
     JOIN pg_namespace n ON n.oid = p.relnamespace \
     WHERE c.conrelid = ANY(CAST(CAST($1 AS text[]) AS oid[])) AND c.contype = 'f' AND c.conparentid = 0 ORDER BY c.conname";

/// Types of columns and what those are made of, by their number in the catalogue; only what was made here.
const TYPES_USED: &str = "WITH RECURSIVE used(oid) AS (SELECT a.atttypid FROM pg_attribute a \
       WHERE a.attrelid = ANY(CAST(CAST($1 AS text[]) AS oid[])) AND a.attnum > 0 AND NOT a.attisdropped \
     UNION SELECT x.oid FROM used u JOIN pg_type t ON t.oid = u.oid LEFT JOIN pg_range r ON r.rngtypid = t.oid \
       LEFT JOIN pg_range m ON m.rngmultitypid = t.oid \
       LEFT JOIN pg_attribute a ON t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
       CROSS JOIN LATERAL (VALUES (t.typelem), (t.typbasetype), (r.rngsubtype), (m.rngtypid), (a.atttypid)) AS x(oid) \
       WHERE coalesce(x.oid, 0) <> 0) SELECT CAST(oid AS text) FROM used WHERE oid >= 16384 ORDER BY oid";

/// The statements that make types. Arrays and multiranges come with theirs, those of extensions with them.
const TYPES: &str = "SELECT CAST(t.oid AS bigint), CAST(format_type(t.oid, NULL) AS text), quote_ident(n.nspname), n.nspname = current_schema(), \
     CASE t.typtype WHEN 'e' THEN concat('CREATE TYPE ', format_type(t.oid, NULL), ' AS ENUM (', \
         (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid), ')') \
       WHEN 'c' THEN concat('CREATE TYPE ', format_type(t.oid, NULL), ' AS (', (SELECT string_agg(concat(quote_ident(a.attname), ' ', \
         format_type(a.atttypid, a.atttypmod), CASE WHEN a.attcollation <> y.typcollation THEN concat(' COLLATE ', quote_ident(cn.nspname), '.', \
         quote_ident(co.collname)) END), ', ' ORDER BY a.attnum) FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid \
         LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace \
         WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped), ')') \
       WHEN 'd' THEN concat('CREATE DOMAIN ', format_type(t.oid, NULL), ' AS ', format_type(t.typbasetype, t.typtypmod), \
         (SELECT concat(' COLLATE ', quote_ident(cn.nspname), '.', quote_ident(co.collname)) FROM pg_collation co \
           JOIN pg_namespace cn ON cn.oid = co.collnamespace JOIN pg_type y ON y.oid = t.typbasetype \
           WHERE co.oid = t.typcollation AND t.typcollation <> y.typcollation), \
         CASE WHEN t.typdefault IS NOT NULL THEN concat(' DEFAULT ', coalesce(pg_get_expr(t.typdefaultbin, 0), quote_literal(t.typdefault))) END, \
         CASE WHEN t.typnotnull THEN ' NOT NULL' END, (SELECT string_agg(concat(' CONSTRAINT ', quote_ident(k.conname), ' ', \
         pg_get_constraintdef(k.oid)), '' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c')) \
       WHEN 'r' THEN (SELECT concat('CREATE TYPE ', format_type(t.oid, NULL), ' AS RANGE (SUBTYPE = ', format_type(r.rngsubtype, NULL), \
         ', SUBTYPE_OPCLASS = ', quote_ident(ocn.nspname), '.', quote_ident(oc.opcname), \
         (SELECT concat(', COLLATION = ', quote_ident(cn.nspname), '.', quote_ident(co.collname)) FROM pg_collation co \
           JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = r.rngcollation), \
         CASE WHEN r.rngsubdiff <> 0 THEN concat(', SUBTYPE_DIFF = ', CAST(r.rngsubdiff AS text)) END, \
         ', MULTIRANGE_TYPE_NAME = ', format_type(r.rngmultitypid, NULL), ')') FROM pg_range r JOIN pg_opclass oc ON oc.oid = r.rngsubopc \
         JOIN pg_namespace ocn ON ocn.oid = oc.opcnamespace WHERE r.rngtypid = t.oid) END \
     FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid \
     WHERE t.oid = ANY(CAST(CAST($1 AS text[]) AS oid[])) AND t.typtype IN ('e', 'c', 'd', 'r') AND coalesce(c.relkind, 'c') = 'c' \
     AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e') ORDER BY t.oid";

/// What depends on what, as far as it concerns tables ($1) and types ($2).
const NEEDED: &str = "WITH ours AS (SELECT CAST(CAST($1 AS text[]) AS oid[]) AS tables, CAST(CAST($2 AS text[]) AS oid[]) AS types), \
     needed AS (SELECT d.refclassid, d.refobjid FROM pg_depend d, ours WHERE d.deptype = 'n' AND ( \
       d.classid = 'pg_class'::regclass AND (d.objid = ANY(tables) OR d.objid IN (SELECT indexrelid FROM pg_index, ours WHERE indrelid = ANY(tables))) \
       OR d.classid = 'pg_attrdef'::regclass AND d.objid IN (SELECT oid FROM pg_attrdef, ours WHERE adrelid = ANY(tables)) \
       OR d.classid = 'pg_constraint'::regclass AND d.objid IN (SELECT oid FROM pg_constraint, ours \
         WHERE conrelid = ANY(tables) OR contypid = ANY(types)) \
       OR d.classid = 'pg_type'::regclass AND d.objid = ANY(types)) \
     UNION SELECT 'pg_type'::regclass, unnest(types) FROM ours) ";

const FUNCTIONS: &str = "SELECT CAST(p.oid AS bigint), CAST(p.oid::regprocedure AS text), quote_ident(n.nspname), n.nspname = current_schema(), \
     pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
     WHERE p.prokind = 'f' AND p.oid >= 16384 AND p.oid IN (SELECT refobjid FROM needed WHERE refclassid = 'pg_proc'::regclass) \
     AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') ORDER BY p.oid";

const EXTENSIONS: &str = "SELECT DISTINCT quote_ident(e.extname), quote_ident(n.nspname), n.nspname = current_schema() FROM pg_extension e \
     JOIN pg_namespace n ON n.oid = e.extnamespace JOIN pg_depend m ON m.refclassid = 'pg_extension'::regclass AND m.refobjid = e.oid \
     AND m.deptype = 'e' JOIN needed ON m.classid = needed.refclassid AND m.objid = needed.refobjid ORDER BY 1";

/// Sequences that tables own or take their defaults from.
const SEQUENCES: &str = "SELECT CAST(s.seqrelid AS bigint), CAST(s.seqrelid::regclass AS text), quote_ident(n.nspname), n.nspname = current_schema(), \
     concat('CREATE SEQUENCE ', CAST(s.seqrelid::regclass AS text), ' AS ', format_type(s.seqtypid, NULL), ' INCREMENT BY ', s.seqincrement, \
       ' MINVALUE ', s.seqmin, ' MAXVALUE ', s.seqmax, ' START WITH ', s.seqstart, ' CACHE ', s.seqcache, \
       CASE WHEN s.seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END), \
     CAST(u.relation AS bigint), u.kind = 'i', has_sequence_privilege(s.seqrelid, 'SELECT'), \
     (SELECT concat('ALTER SEQUENCE ', CAST(s.seqrelid::regclass AS text), ' OWNED BY ', CAST(o.refobjid::regclass AS text), '.', quote_ident(a.attname)) \
       FROM pg_depend o JOIN pg_attribute a ON a.attrelid = o.refobjid AND a.attnum = o.refobjsubid WHERE o.classid = 'pg_class'::regclass \
       AND o.objid = s.seqrelid AND o.refclassid = 'pg_class'::regclass AND o.deptype = 'a' AND o.refobjid = u.relation) \
     FROM (SELECT d.objid AS sequence, min(d.refobjid) AS relation, CAST(min(d.deptype) AS text) AS kind FROM pg_depend d \
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
         AND d.refobjid = ANY(CAST(CAST($1 AS text[]) AS oid[])) AND d.refobjsubid > 0 GROUP BY d.objid \
       UNION ALL SELECT d.refobjid, min(f.adrelid), 'n' FROM pg_depend d JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass \
         AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass AND f.adrelid = ANY(CAST(CAST($1 AS text[]) AS oid[])) \
         WHERE NOT EXISTS (SELECT 1 FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = d.refobjid \
           AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i') AND o.refobjid = ANY(CAST(CAST($1 AS text[]) AS oid[]))) \
         GROUP BY d.refobjid) AS u \
     JOIN pg_sequence s ON s.seqrelid = u.sequence JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY s.seqrelid";

/// Reads the definitions of tables, in the view that the session has.
pub(super) async fn load(session: &mut PgSession, schema: &Schema, tables: &[&str]) -> Result<Definitions> {
    let before = session.fetch(Statement::plain("SELECT current_setting('search_path')")).await?;
    let narrow = "SELECT set_config('search_path', coalesce(quote_ident(current_schema()), ''), false)";
    session.fetch(Statement::plain(narrow)).await?;
    let loaded = load_narrowed(session, schema, tables).await?;
    let before = before.first().map(|row| text(row, 0)).unwrap_or_default();
    session.fetch(with_texts("SELECT set_config('search_path', ($1)[1], false)", &[vec![before]])).await?;
    Ok(loaded)
}

/// A statement with lists of texts.
fn with_texts(sql: &str, lists: &[Vec<String>]) -> Statement {
    let arguments = lists.iter().map(|list| Argument::TextList(list.clone())).collect();
    Statement { sql: sql.to_owned(), arguments, outputs: Vec::new() }
}

async fn load_narrowed(session: &mut PgSession, schema: &Schema, tables: &[&str]) -> Result<Definitions> {
    let places = tables.iter().map(|table| schema.place(table)).collect();
    let relations = session.fetch(with_texts(RELATIONS, &[places])).await?;
    let oids: Vec<String> = relations.iter().map(|row| integer(row, 1).to_string()).collect();
    let home: BTreeMap<i64, usize> = relations.iter().map(|row| (integer(row, 1), index_of(row))).collect();
    let mut definitions = Definitions::default();
    let mut schemas = BTreeSet::new();
    let columns = session.fetch(with_texts(COLUMNS, std::slice::from_ref(&oids))).await?;
    for table in tables {
        let (table, create, parts, references) = ((*table).to_owned(), Vec::new(), Vec::new(), Vec::new());
        definitions.tables.push(TableDefinition { table, create, parts, references });
    }
    for row in &relations {
        note_schema(&mut schemas, row, 7);
        if let Some(table) = definitions.tables.get_mut(index_of(row)) {
            table.create.push(create_table(row, &relations, &columns));
        }
    }
    add_parts(session, &oids, &home, &mut definitions).await?;
    let owned = add_objects(session, &oids, &home, &mut definitions, &mut schemas).await?;
    for (at, part) in owned {
        if let Some(table) = definitions.tables.get_mut(at) {
            table.parts.push(part);
        }
    }
    let schemas = schemas.into_iter().map(|name| ObjectDefinition {
        kind: ObjectKind::Schema,
        statement: format!("CREATE SCHEMA IF NOT EXISTS {name}"),
        name,
    });
    definitions.objects.splice(0..0, schemas);
    Ok(definitions)
}

/// Where the table of a relation stands in the list.
fn index_of(row: &Row) -> usize {
    usize::try_from(integer(row, 0) - 1).unwrap_or_default()
}

/// Remembers a schema that must be there; `at` is its name, behind it whether it is the first one anyway.
fn note_schema(schemas: &mut BTreeSet<String>, row: &Row, at: usize) {
    if !truth(row, at + 1) && text(row, at) != "pg_catalog" {
        schemas.insert(text(row, at));
    }
}

/// CREATE TABLE of a table or partition.
fn create_table(row: &Row, relations: &[Row], columns: &[Row]) -> CreateTable {
    let (oid, name, partition_key, bound) = (integer(row, 1), text(row, 2), text(row, 3), text(row, 5));
    let unlogged = if truth(row, 6) { "UNLOGGED " } else { "" };
    let mut statement = if bound.is_empty() {
        let own = columns.iter().filter(|column| integer(column, 0) == oid).map(|column| text(column, 1));
        format!("CREATE {unlogged}TABLE {name} ({})", own.collect::<Vec<_>>().join(", "))
    } else {
        let parent = relations.iter().find(|relation| text(relation, 2) == text(row, 4));
        let parent = parent.map_or_else(|| text(row, 4), |relation| text(relation, 2));
        format!("CREATE {unlogged}TABLE {name} PARTITION OF {parent} {bound}")
    };
    if !partition_key.is_empty() {
        statement = format!("{statement} PARTITION BY {partition_key}");
    }
    CreateTable { statement, holds_rows: partition_key.is_empty() }
}

async fn add_parts(
    session: &mut PgSession,
    oids: &[String],
    home: &BTreeMap<i64, usize>,
    definitions: &mut Definitions,
) -> Result<()> {
    let of_tables = |sql| with_texts(sql, &[oids.to_vec()]);
    let constraints = session.fetch(of_tables(CONSTRAINTS)).await?;
    let indexes = session.fetch(of_tables(INDEXES)).await?;
    let references = session.fetch(of_tables(REFERENCES)).await?;
    let (checks, keys): (Vec<&Row>, Vec<&Row>) = constraints.iter().partition(|row| text(row, 1) == "c");
    let constraint = |row: &&Row, kind| {
        let condition = matches!(row.get(4), Some(Value::Text(_))).then(|| text(row, 4));
        (integer(row, 0), PartDefinition { kind, name: text(row, 2), statement: text(row, 3), condition })
    };
    let keys = keys.iter().map(|row| constraint(row, PartKind::Unique));
    let checks = checks.iter().map(|row| constraint(row, PartKind::Check));
    let indexes = indexes.iter().map(|row| {
        let kind = if truth(row, 1) { PartKind::Unique } else { PartKind::Index };
        (integer(row, 0), PartDefinition { kind, name: text(row, 2), statement: text(row, 3), condition: None })
    });
    for (oid, part) in keys.chain(indexes).chain(checks) {
        if let Some(table) = home.get(&oid).and_then(|at| definitions.tables.get_mut(*at)) {
            table.parts.push(part);
        }
    }
    for row in &references {
        if let Some(table) = home.get(&integer(row, 0)).and_then(|at| definitions.tables.get_mut(*at)) {
            let parent = if truth(row, 3) { text(row, 2) } else { format!("{}.{}", text(row, 1), text(row, 2)) };
            let (columns, parent_columns) = (name_list(row, 4), name_list(row, 5));
            table.references.push(ReferenceDefinition { columns, parent, parent_columns, statement: text(row, 6) });
        }
    }
    Ok(())
}

/// What the tables need, and where sequences stand; returns whose sequences they are, by table.
async fn add_objects(
    session: &mut PgSession,
    oids: &[String],
    home: &BTreeMap<i64, usize>,
    definitions: &mut Definitions,
    schemas: &mut BTreeSet<String>,
) -> Result<Vec<(usize, PartDefinition)>> {
    let types = session.fetch(with_texts(TYPES_USED, &[oids.to_vec()])).await?;
    let types: Vec<String> = types.iter().map(|row| text(row, 0)).collect();
    let needed = |rest: &str| with_texts(&format!("{NEEDED}{rest}"), &[oids.to_vec(), types.clone()]);
    for row in session.fetch(needed(EXTENSIONS)).await? {
        note_schema(schemas, &row, 1);
        let name = text(&row, 0);
        let place = if truth(&row, 2) { String::new() } else { format!(" WITH SCHEMA {}", text(&row, 1)) };
        let statement = format!("CREATE EXTENSION IF NOT EXISTS {name}{place}");
        definitions.objects.push(ObjectDefinition { kind: ObjectKind::Extension, name, statement });
    }
    let mut made = Vec::new();
    for (kind, rows) in [
        (ObjectKind::Type, session.fetch(with_texts(TYPES, std::slice::from_ref(&types))).await?),
        (ObjectKind::Function, session.fetch(needed(FUNCTIONS)).await?),
    ] {
        for row in rows {
            note_schema(schemas, &row, 2);
            let mut statement = text(&row, 4);
            if truth(&row, 3) {
                // A function is printed with its schema always.
                statement = statement.replacen(&format!("FUNCTION {}.", text(&row, 2)), "FUNCTION ", 1);
            }
            made.push((integer(&row, 0), ObjectDefinition { kind, name: text(&row, 1), statement }));
        }
    }
    let mut owned = Vec::new();
    for row in session.fetch(with_texts(SEQUENCES, &[oids.to_vec()])).await? {
        let (name, at) = (text(&row, 1), home.get(&integer(&row, 5)).copied().unwrap_or_default());
        if !truth(&row, 6) {
            note_schema(schemas, &row, 2);
            let (kind, statement) = (ObjectKind::Sequence, text(&row, 4));
            made.push((integer(&row, 0), ObjectDefinition { kind, name: name.clone(), statement }));
            if matches!(row.get(8), Some(Value::Text(_))) {
                let (kind, statement) = (PartKind::Other, text(&row, 8));
                owned.push((at, PartDefinition { kind, name: name.clone(), statement, condition: None }));
            }
        }
        if truth(&row, 7) {
            let found = session.fetch(Statement::plain(format!("SELECT last_value, is_called FROM {name}"))).await?;
            let table = definitions.tables.get(at).map(|table| table.table.clone()).unwrap_or_default();
            definitions.positions.extend(found.first().map(|found| Position {
                sequence: name,
                table,
                last: integer(found, 0),
                is_used: truth(found, 1),
            }));
        }
    }
    made.sort_by_key(|(oid, _)| *oid);
    definitions.objects.extend(made.into_iter().map(|(_, object)| object));
    Ok(owned)
}
