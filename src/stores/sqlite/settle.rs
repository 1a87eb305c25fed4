//! The physical stage of a SQLite file: full-text indexes, unused parts of pages, the log beside the file.

use super::SqliteSession;
use super::pages::read_remains;
use crate::stores::session::{MARKER_TABLE, Session, fetch_integer};
use crate::stores::sql::{Statement, literal, quote};
use crate::stores::{Engine, PhysicalState, Residue, ResidueCode, Result, Settling, StoreError};
use crate::value::Value;

const VIRTUAL_TABLES: &str =
    "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%' ORDER BY name";

const ROOTS: &str = "SELECT rootpage FROM sqlite_master WHERE rootpage > 0";

/// Tables whose rows have no number of their own: a VACUUM may number them anew, and somebody may rely on the numbers.
const UNNUMBERED: &str = "SELECT count(*) FROM pragma_table_list AS t WHERE t.schema = 'main' AND t.type = 'table' AND t.wr = 0 \
     AND substr(t.name, 1, 7) <> 'sqlite_' AND t.name <> ";

/// Cleans up and tells what is left.
pub(super) async fn settle(session: &mut SqliteSession, asked: &Settling<'_>) -> Result<PhysicalState> {
    let mut residues = Vec::new();
    tidy_search_indexes(session, &mut residues).await?;
    let is_small = size(session).await? <= asked.vacuum_bytes;
    let mut has_remains = !is_small || has_remains(session).await?;
    let may_rewrite = asked.rewrite || (is_small && has_remains && !has_unnumbered(session).await?);
    if may_rewrite && has_remains {
        match session.script("VACUUM").await {
            // A new file has no unused parts; whether that is so is looked at where it can be.
            Ok(()) => has_remains = is_small && self::has_remains(session).await?,
            Err(StoreError::Busy { .. }) => residues.push(Residue::new(ResidueCode::OpenReader)),
            // A full disk or a missing right: the file is as it was.
            Err(StoreError::Failed { .. } | StoreError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if has_remains {
        residues.push(Residue::new(ResidueCode::PageRemains));
    }
    let rows = session.fetch(Statement::plain("PRAGMA wal_checkpoint(TRUNCATE)")).await?;
    if matches!(rows.first().and_then(|row| row.first()), Some(Value::Integer(busy)) if *busy != 0) {
        residues.push(Residue::new(ResidueCode::OpenReader));
    }
    Ok(PhysicalState { residues, mark: None, is_rewritten: false }.sorted())
}

/// Merges the parts of full-text indexes, which is what removes words of deleted rows from them.
async fn tidy_search_indexes(session: &mut SqliteSession, residues: &mut Vec<Residue>) -> Result<()> {
    for row in session.fetch(Statement::plain(VIRTUAL_TABLES)).await? {
        let [Value::Text(name), Value::Text(definition)] = row.as_slice() else { continue };
        if !is_search_index(definition) {
            continue;
        }
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

/// Whether a definition makes a full-text index: the module's name stands behind USING.
fn is_search_index(definition: &str) -> bool {
    let words = definition.to_ascii_lowercase();
    let module = words.split_once(" using ").map_or("", |(_, rest)| rest.trim_start());
    ["fts3", "fts4", "fts5"].iter().any(|known| {
        module.strip_prefix(known).is_some_and(|rest| rest.trim_start().starts_with('(') || rest.trim().is_empty())
    })
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
    let sql = format!(
        "{UNNUMBERED}{} AND NOT (SELECT count(*) = 1 AND max(upper(type) = 'INTEGER') FROM pragma_table_info(t.name) WHERE pk > 0)",
        literal(MARKER_TABLE)
    );
    Ok(fetch_integer(session, Statement::plain(sql)).await? != Some(0))
}
