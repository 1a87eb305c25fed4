//! The physical stage of a PostgreSQL database: VACUUM of the touched tables, and who keeps their old row versions alive.
//!
//! VACUUM frees the space of deleted versions, in tables, their TOAST tables and indexes, but does not overwrite it: bytes stay in
//! unused parts of pages until something new is put there, or the table is written anew.

use std::path::{Path, PathBuf};

use super::PgSession;
use crate::stores::session::{Session, fetch_integer};
use crate::stores::sql::{Output, Schema, Statement, literal};
use crate::stores::{
    FileKind, FileMap, PhysicalState, Residue, ResidueCode, Result, Settling, StoreError, TextEncoding,
};
use crate::value::Value;

/// Gently: short pieces of work with pauses, as autovacuum does. No statement of it is worth waiting for longer.
const GENTLY: &str =
    "SET vacuum_cost_delay = 2; SET vacuum_cost_limit = 2000; SET statement_timeout = '30min'; SET lock_timeout = '5s'";
const AS_BEFORE: &str = "RESET vacuum_cost_delay; RESET vacuum_cost_limit; RESET statement_timeout; RESET lock_timeout";

/// Every transaction that is committed now has a smaller number.
const MARK: &str = "SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)";

const SEES_SESSIONS: &str = "SELECT CAST(CAST(pg_has_role('pg_read_all_stats', 'USAGE') AS integer) AS bigint)";

/// What keeps versions alive that were deleted before a mark, by the numbers of transactions; the `%` is the mark.
const KEEPERS: &str = "WITH clock AS (SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS next) \
     SELECT 'session', CAST(pid AS text) FROM pg_stat_activity, clock WHERE pid <> pg_backend_pid() \
       AND (datname = current_database() OR datname IS NULL) \
       AND next - greatest(coalesce(age(backend_xmin), 0), coalesce(age(backend_xid), 0)) < % \
       AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) \
     UNION ALL SELECT 'slot', CAST(slot_name AS text) FROM pg_replication_slots, clock \
       WHERE xmin IS NOT NULL AND next - age(xmin) < % \
     UNION ALL SELECT 'prepared', gid FROM pg_prepared_xacts, clock \
       WHERE database = current_database() AND next - age(transaction) < % ORDER BY 1, 2";

const SETTINGS: &str = "SELECT 'archive', '' FROM pg_settings WHERE name = 'archive_mode' AND setting <> 'off' \
     UNION ALL SELECT 'statements', '' FROM pg_settings WHERE (name = 'log_statement' AND setting IN ('mod', 'all')) \
       OR (name = 'log_min_duration_statement' AND setting <> '-1')";

pub(super) async fn settle(session: &mut PgSession, schema: &Schema, asked: &Settling<'_>) -> Result<PhysicalState> {
    let mark = match asked.mark.and_then(|mark| mark.parse().ok()) {
        Some(mark) => mark,
        None => fetch_integer(session, Statement::plain(MARK)).await?.unwrap_or(i64::MAX),
    };
    let mut state = PhysicalState { mark: Some(mark.to_string()), ..PhysicalState::default() };
    // Before the VACUUM: what is not kept now is not kept when it begins.
    keepers(session, mark, &mut state.residues).await?;
    let is_kept = !state.residues.is_empty();
    let is_unseen = state.residues.iter().any(|residue| residue.code == ResidueCode::UnseenSessions);
    if asked.rewrite && is_unseen {
        return Err(StoreError::Refused {
            store: session.store.clone(),
            what:
                "the tables are not written anew: this login does not see whether other sessions still keep old rows; \
                GRANT pg_read_all_stats to it"
                    .to_owned(),
        });
    }
    let known = asked.tables.iter().filter(|table| !asked.look_only && schema.catalogue.table(table).is_some());
    session.script(GENTLY).await?;
    let mut is_done = true;
    for table in known {
        is_done &= clean(session, &schema.place(table), (table, asked.rewrite), &mut state.residues).await?;
    }
    session.script(AS_BEFORE).await?;
    state.is_rewritten = asked.is_rewritten || (asked.rewrite && is_done && !is_kept);
    if !state.is_rewritten {
        state.residues.push(Residue::new(ResidueCode::PageRemains));
    }
    state.residues.push(Residue::new(ResidueCode::TransactionLog));
    for row in session.fetch(texts(SETTINGS)).await? {
        let code = if is_text(&row, 0, "archive") { ResidueCode::LogArchive } else { ResidueCode::StatementLog };
        state.residues.push(Residue::new(code));
    }
    Ok(state.sorted())
}

async fn keepers(session: &mut PgSession, mark: i64, residues: &mut Vec<Residue>) -> Result<()> {
    if fetch_integer(session, Statement::plain(SEES_SESSIONS)).await? != Some(1) {
        residues.push(Residue::new(ResidueCode::UnseenSessions));
    }
    for row in session.fetch(texts(&KEEPERS.replace('%', &mark.to_string()))).await? {
        let code = match row.first() {
            Some(Value::Text(kind)) if kind == "slot" => ResidueCode::ReplicationSlot,
            Some(Value::Text(kind)) if kind == "prepared" => ResidueCode::PreparedTransaction,
            _ => ResidueCode::OldTransaction,
        };
        let Some(Value::Text(of)) = row.get(1) else { continue };
        residues.push(Residue::of(code, of));
    }
    Ok(())
}

/// A table and whatever inherits from it, for a DELETE reaches all of that and a VACUUM does not; `%` is the table. What is parted itself
/// has no file. With whether this login may clean it up: without the right, VACUUM only warns.
const TREE: &str = "WITH RECURSIVE tree AS (SELECT CAST(CAST(% AS regclass) AS oid) AS oid \
       UNION SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = tree.oid) \
     SELECT quote_ident(nspname) || '.' || quote_ident(relname), CASE WHEN relkind <> 'f' AND (pg_has_role(relowner, 'USAGE') \
       OR pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE')) THEN 'may' ELSE '' END \
     FROM tree JOIN pg_class AS c ON c.oid = tree.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE relkind <> 'p' ORDER BY 1";

/// Whether the table was cleaned up, with all that inherits from it; what stood in the way otherwise.
async fn clean(
    session: &mut PgSession,
    place: &str,
    (table, rewrite): (&str, bool),
    residues: &mut Vec<Residue>,
) -> Result<bool> {
    let mut is_done = true;
    for row in session.fetch(texts(&TREE.replace('%', &literal(place)))).await? {
        if !is_text(&row, 1, "may") {
            residues.push(Residue::of(ResidueCode::NoRight, table));
            is_done = false;
            continue;
        }
        let how = if rewrite { "FULL" } else { "INDEX_CLEANUP ON" };
        match session.script(&format!("VACUUM ({how}) {}", text(&row, 0))).await {
            Ok(()) => {}
            Err(error @ (StoreError::Unreachable { .. } | StoreError::Login { .. })) => return Err(error),
            Err(error) => {
                tracing::warn!(table, error = %error, "the clean-up of a table was not finished");
                residues.push(Residue::of(ResidueCode::Unfinished, table));
                is_done = false;
            }
        }
    }
    Ok(is_done)
}

/// The files of the tables with their indexes and TOAST, the logs, and what is under way.
pub(super) async fn file_map(
    session: &mut PgSession,
    (schema, tables): (&Schema, &[String]),
    data: Option<&Path>,
) -> Result<FileMap> {
    let root = match data {
        Some(data) => data.to_path_buf(),
        None => match session.fetch(texts("SELECT 'data', current_setting('data_directory')")).await?.first() {
            Some(row) => PathBuf::from(text(row, 1)),
            None => return Ok(FileMap::default()),
        },
    };
    let mut map = FileMap::default();
    let encoding = session.fetch(texts("SELECT 'encoding', current_setting('server_encoding')")).await?;
    map.encodings.insert(match encoding.first().map(|row| text(row, 1)) {
        // The latter takes bytes as they come, and they come in UTF-8.
        Some("UTF8" | "SQL_ASCII") => TextEncoding::Utf8,
        _ => TextEncoding::OtherAscii,
    });
    for table in tables {
        if schema.catalogue.table(table).is_some() {
            table_files(session, &schema.place(table), (&root, &mut map)).await?;
        } else {
            map.need(FileKind::Tables, Vec::new());
        }
    }
    map.need(FileKind::TransactionLog, vec![root.join("pg_wal")]);
    let temporary = ["base/pgsql_tmp", "pg_replslot"];
    map.parts.extend(temporary.map(|folder| (FileKind::Temporary, root.join(folder))));
    // One that is absolute stands for itself. Not everybody may read the setting: then it is where it is by default, and must be there.
    let folder = session.fetch(texts("SELECT 'log', setting FROM pg_settings WHERE name = 'log_directory'")).await?;
    let folder = root.join(folder.first().map(|row| text(row, 1)).filter(|folder| !folder.is_empty()).unwrap_or("log"));
    let settings = session.fetch(texts(SETTINGS)).await?;
    if settings.iter().any(|row| is_text(row, 0, "statements")) {
        map.need(FileKind::StatementLog, vec![folder]);
    } else {
        map.parts.insert((FileKind::StatementLog, folder));
    }
    Ok(map)
}

/// The files of a table and of whatever inherits from it, which partitions do: their TOAST tables and their indexes too. What is parted
/// itself has no file, and a foreign table has none that is known.
async fn table_files(session: &mut PgSession, place: &str, (root, map): (&Path, &mut FileMap)) -> Result<()> {
    let sql = format!(
        "WITH RECURSIVE tree AS (SELECT CAST(CAST({} AS regclass) AS oid) AS oid \
           UNION SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = tree.oid), \
         main AS (SELECT oid, reltoastrelid FROM pg_class WHERE oid IN (SELECT oid FROM tree) AND relkind <> 'p'), \
         heaps AS (SELECT oid FROM main UNION SELECT reltoastrelid FROM main WHERE reltoastrelid <> 0), \
         parts AS (SELECT oid FROM heaps UNION SELECT indexrelid FROM pg_index WHERE indrelid IN (SELECT oid FROM heaps)) \
         SELECT 'file', coalesce(pg_relation_filepath(oid), '') FROM parts",
        literal(place)
    );
    for row in session.fetch(texts(&sql)).await? {
        let path = text(&row, 1);
        if path.is_empty() {
            map.need(FileKind::Tables, Vec::new());
            continue;
        }
        map.need(FileKind::Tables, vec![root.join(path)]);
        // Large ones go on in numbered files; maps of them lie beside.
        map.parts.extend([".*", "_*"].map(|end| (FileKind::Tables, root.join(format!("{path}{end}")))));
    }
    Ok(())
}

fn texts(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), arguments: Vec::new(), outputs: vec![Output::Text; 2] }
}

fn text(row: &[Value], at: usize) -> &str {
    match row.get(at) {
        Some(Value::Text(text)) => text,
        _ => "",
    }
}

fn is_text(row: &[Value], at: usize, wanted: &str) -> bool {
    text(row, at) == wanted
}
