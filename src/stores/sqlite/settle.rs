//! The physical stage of a SQLite file: full-text indexes, unused parts of pages, the log beside the file.

use std::path::Path;

use super::SqliteSession;
use super::pages::read_remains;
use crate::stores::session::{MARKER_TABLE, Session, fetch_integer};
use crate::stores::sql::{Statement, literal, quote};
use crate::stores::{Engine, PhysicalState, Residue, ResidueCode, Result, Settling, StoreError};
use crate::value::Value;

/// Full-text indexes, by the tables that FTS3 and FTS4, or FTS5, always keep behind one. How the module is spelt in the definition, between
/// whatever white space and comments, makes no difference.
const SEARCH_INDEXES: &str = "SELECT v.name FROM pragma_table_list AS v WHERE v.schema = 'main' AND v.type = 'virtual' AND ( \
     2 = (SELECT count(*) FROM sqlite_master AS s WHERE s.type = 'table' AND lower(s.name) IN (lower(v.name) || '_segments', lower(v.name) || '_segdir')) \
     OR 3 = (SELECT count(*) FROM sqlite_master AS s WHERE s.type = 'table' \
       AND lower(s.name) IN (lower(v.name) || '_data', lower(v.name) || '_idx', lower(v.name) || '_config'))) ORDER BY v.name";

const ROOTS: &str = "SELECT rootpage FROM sqlite_master WHERE rootpage > 0";

/// Tables whose rows have no number of their own: a VACUUM may number them anew, and somebody may rely on the numbers. An
/// `INTEGER PRIMARY KEY DESC` is none, and has an index of its own.
const UNNUMBERED: &str = "SELECT count(*) FROM pragma_table_list AS t WHERE t.schema = 'main' AND t.type = 'table' AND t.wr = 0 \
     AND substr(t.name, 1, 7) <> 'sqlite_' AND (NOT (SELECT count(*) = 1 AND max(upper(type) = 'INTEGER') FROM pragma_table_info(t.name) WHERE pk > 0) \
       OR EXISTS (SELECT 1 FROM pragma_index_list(t.name) WHERE origin = 'pk')) AND t.name <> ";

const PLACE: &str = "SELECT file FROM pragma_database_list WHERE name = 'main'";

/// Cleans up and tells what is left.
pub(super) async fn settle(session: &mut SqliteSession, asked: &Settling<'_>) -> Result<PhysicalState> {
    let mut residues = Vec::new();
    // Behind a reader the log would grow by the whole file and could not be cut.
    let is_read = !checkpoint(session).await?;
    tidy_search_indexes(session, &mut residues).await?;
    let bytes = size(session).await?;
    let is_small = bytes <= asked.vacuum_bytes;
    let mut has_remains = !is_small || has_remains(session).await?;
    let may_rewrite = asked.rewrite || (is_small && has_remains && !has_unnumbered(session).await?);
    if may_rewrite && has_remains && !is_read && rewrite(session, (bytes, is_small), &mut residues).await? {
        // A new file has no unused parts; whether that is so is looked at where it can be.
        has_remains = is_small && self::has_remains(session).await?;
    }
    if has_remains {
        residues.push(Residue::new(ResidueCode::PageRemains));
    }
    if !checkpoint(session).await? {
        residues.push(Residue::new(ResidueCode::OpenReader));
    }
    Ok(PhysicalState { residues, mark: None, is_rewritten: false }.sorted())
}

/// Whether everything in the log stands in the file, and the log is cut.
async fn checkpoint(session: &mut SqliteSession) -> Result<bool> {
    let rows = session.fetch(Statement::plain("PRAGMA wal_checkpoint(TRUNCATE)")).await?;
    Ok(!matches!(rows.first().and_then(|row| row.first()), Some(Value::Integer(busy)) if *busy != 0))
}

/// Writes the file anew. Whether that was done; whatever else happens, the file is as it was.
async fn rewrite(
    session: &mut SqliteSession,
    (bytes, is_small): (u64, bool),
    residues: &mut Vec<Residue>,
) -> Result<bool> {
    let rows = session.fetch(Statement::plain(PLACE)).await?;
    let place = match rows.first().and_then(|row| row.first()) {
        Some(Value::Text(place)) => Path::new(place).parent(),
        _ => None,
    };
    // Nobody tells for some file systems: then it is tried.
    let free = place.and_then(|folder| rustix::fs::statvfs(folder).ok());
    let free = free.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if free.is_some_and(|free| free < room_for(bytes, is_small)) {
        residues.push(Residue::new(ResidueCode::NoRoom));
        return Ok(false);
    }
    // SQLite builds the new file in a temporary one first. In memory it leaves nothing of the rows on another disk.
    if !is_small {
        session.script("PRAGMA temp_store = FILE").await?;
    }
    let done = session.script("VACUUM").await;
    session.script("PRAGMA temp_store = MEMORY").await?;
    match done {
        Ok(()) => return Ok(true),
        Err(StoreError::Busy { .. }) => residues.push(Residue::new(ResidueCode::OpenReader)),
        // SQLITE_FULL, in SQLite's words.
        Err(StoreError::Failed { what, .. }) if what.contains("disk is full") => {
            residues.push(Residue::new(ResidueCode::NoRoom));
        }
        // A missing right.
        Err(StoreError::Failed { .. } | StoreError::Refused { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(false)
}

/// The free bytes that a rewrite wants: for the journal or the log beside the file, for the temporary file too where that is not in memory,
/// and a reserve for others who write meanwhile.
fn room_for(bytes: u64, is_small: bool) -> u64 {
    let copies = if is_small { 1 } else { 2 };
    bytes.saturating_mul(copies).saturating_add(bytes / 8).saturating_add(1 << 20)
}

/// Merges the parts of full-text indexes, which is what removes words of deleted rows from them.
async fn tidy_search_indexes(session: &mut SqliteSession, residues: &mut Vec<Residue>) -> Result<()> {
    for row in session.fetch(Statement::plain(SEARCH_INDEXES)).await? {
        let Some(Value::Text(name)) = row.first() else { continue };
        let table = quote(Engine::Sqlite, name);
        match session.script(&format!("INSERT INTO {table}({table}) VALUES ('optimize')")).await {
            Ok(()) => {}
            Err(StoreError::Busy { .. }) => residues.push(Residue::new(ResidueCode::OpenReader)),
            // Somebody's own tokeniser, for example, is not there.
            Err(StoreError::Unreachable { store, detail }) => return Err(StoreError::Unreachable { store, detail }),
            Err(_) => residues.push(Residue::of(ResidueCode::SearchIndex, name)),
        }
    }
    Ok(())
}

async fn size(session: &mut SqliteSession) -> Result<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    let bytes = fetch_integer(session, Statement::plain(sql)).await?;
    Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX))
}

/// Whether unused parts of the file hold something, or nobody can tell.
async fn has_remains(session: &mut SqliteSession) -> Result<bool> {
    // One view for the roots and the pages.
    session.script("BEGIN").await?;
    let looked = async {
        let rows = session.fetch(Statement::plain(ROOTS)).await?;
        let number = |row: &crate::value::Row| match row.first() {
            Some(Value::Integer(root)) => u32::try_from(*root).ok(),
            _ => None,
        };
        let roots: Vec<u32> = rows.iter().filter_map(number).collect();
        let image = session.image().await?;
        Ok(read_remains(&image, &roots).unwrap_or(true))
    }
    .await;
    session.script("ROLLBACK").await?;
    looked
}

async fn has_unnumbered(session: &mut SqliteSession) -> Result<bool> {
    let sql = format!("{UNNUMBERED}{}", literal(MARKER_TABLE));
    Ok(fetch_integer(session, Statement::plain(sql)).await? != Some(0))
}

#[cfg(test)]
mod tests {
    use super::room_for;

    #[test]
    fn a_rewrite_wants_room_for_its_copies() {
        assert_eq!(room_for(8 << 20, true), 10 << 20);
        assert_eq!(room_for(8 << 20, false), 18 << 20);
        assert_eq!(room_for(u64::MAX, false), u64::MAX);
    }
}
