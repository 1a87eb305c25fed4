//! The physical stage of a MariaDB database: whether InnoDB has purged the deleted rows, and which logs hold them.
//!
//! Purge takes deleted rows out of the pages but does not overwrite them: bytes stay in unused parts of pages until something new is put
//! there, or the table is written anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;

use super::{MysqlSession, load};
use crate::stores::session::Session;
use crate::stores::sql::{Output, Schema, Statement};
use crate::stores::{
    FileKind, FileMap, PhysicalState, Residue, ResidueCode, Result, Settling, StoreError, TextEncoding,
};
use crate::value::Value;

const INNODB: &str = "SHOW ENGINE INNODB STATUS";

/// How long a rewrite waits for those who use the table, and how long it may take.
const REWRITING: &str = "SET SESSION lock_wait_timeout = 30, max_statement_time = 0";

pub(super) async fn settle(session: &mut MysqlSession, schema: &Schema, asked: &Settling<'_>) -> Result<PhysicalState> {
    let (next, purged) = transactions(session).await?;
    let mark = asked.mark.and_then(|mark| mark.parse().ok()).or(next);
    let mut state = PhysicalState { mark: mark.map(|mark: u64| mark.to_string()), ..PhysicalState::default() };
    // Nothing waits, or what waits is younger.
    let is_idle = load::read(session).await?.unpurged == Some(0);
    let is_purged = is_idle || mark.zip(purged).is_some_and(|(mark, purged)| purged >= mark);
    if !is_purged {
        // Without the right nobody ever sees that it is done.
        let is_seen = purged.is_some();
        state.residues.push(Residue::new(if is_seen { ResidueCode::PurgeBehind } else { ResidueCode::UnseenPurge }));
    }
    let mut is_done = asked.rewrite && is_purged && !asked.look_only;
    if asked.rewrite && !asked.look_only {
        if session.is_mariadb {
            session.script(REWRITING).await?;
        }
        for table in asked.tables.iter().filter(|table| schema.catalogue.table(table).is_some()) {
            is_done &= rewrite(session, &schema.place(table), table, &mut state.residues).await?;
        }
    }
    state.is_rewritten = asked.is_rewritten || is_done;
    if !state.is_rewritten {
        state.residues.push(Residue::new(ResidueCode::PageRemains));
    }
    state.residues.push(Residue::new(ResidueCode::TransactionLog));
    logs(session, &mut state.residues).await?;
    Ok(state.sorted())
}

/// The number of the next transaction, and up to which everything is purged; none without the right PROCESS.
async fn transactions(session: &mut MysqlSession) -> Result<(Option<u64>, Option<u64>)> {
    let statement = Statement { sql: INNODB.to_owned(), arguments: Vec::new(), outputs: vec![Output::Text; 3] };
    let rows = match session.fetch(statement).await {
        Ok(rows) => rows,
        Err(error @ (StoreError::Unreachable { .. } | StoreError::Login { .. })) => return Err(error),
        Err(_) => return Ok((None, None)),
    };
    let report = rows.first().map_or("", |row| text(row, 2));
    Ok((number_behind(report, "Trx id counter "), number_behind(report, "Purge done for trx's n:o < ")))
}

fn number_behind(report: &str, words: &str) -> Option<u64> {
    let (_, rest) = report.split_once(words)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

async fn rewrite(session: &mut MysqlSession, place: &str, table: &str, residues: &mut Vec<Residue>) -> Result<bool> {
    match session.script(&format!("ALTER TABLE {place} FORCE")).await {
        Ok(()) => Ok(true),
        Err(error @ (StoreError::Unreachable { .. } | StoreError::Login { .. })) => Err(error),
        Err(StoreError::Refused { .. }) => {
            residues.push(Residue::of(ResidueCode::NoRight, table));
            Ok(false)
        }
        Err(error) => {
            tracing::warn!(table, error = %error, "a table was not written anew");
            residues.push(Residue::of(ResidueCode::Unfinished, table));
            Ok(false)
        }
    }
}

/// Logs that hold statements or rows, with the day on which the binary log's present files expire.
async fn logs(session: &mut MysqlSession, residues: &mut Vec<Residue>) -> Result<()> {
    let seconds = "(SELECT max(CASE lower(VARIABLE_NAME) WHEN 'expire_logs_days' THEN CAST(VARIABLE_VALUE AS DECIMAL(20, 6)) * 86400 \
         ELSE CAST(VARIABLE_VALUE AS DECIMAL(20, 6)) END) FROM information_schema.GLOBAL_VARIABLES \
         WHERE lower(VARIABLE_NAME) IN ('expire_logs_days', 'binlog_expire_logs_seconds'))";
    let (variables, seconds) = if session.is_mariadb {
        ("information_schema.GLOBAL_VARIABLES", seconds.to_owned())
    } else {
        ("performance_schema.global_variables", "@@global.binlog_expire_logs_seconds".to_owned())
    };
    let sql = format!(
        "SELECT CAST(lower(VARIABLE_NAME) AS CHAR), CAST(upper(VARIABLE_VALUE) AS CHAR), \
         coalesce(CAST(CASE WHEN {seconds} > 0 THEN DATE(UTC_TIMESTAMP() + INTERVAL {seconds} SECOND + INTERVAL 1 DAY) END AS CHAR), '') \
         FROM {variables} WHERE lower(VARIABLE_NAME) IN ('log_bin', 'general_log', 'slow_query_log')"
    );
    let rows = session.fetch(Statement { sql, arguments: Vec::new(), outputs: vec![Output::Text; 3] }).await?;
    for row in rows.iter().filter(|row| matches!(text(row, 1), "ON" | "1")) {
        residues.push(match text(row, 0) {
            "log_bin" => {
                let until = text(row, 2).parse::<NaiveDate>().ok();
                Residue { until, ..Residue::new(ResidueCode::BinaryLog) }
            }
            _ => Residue::new(ResidueCode::StatementLog),
        });
    }
    Ok(())
}

/// Where the server keeps its files, and whether the two logs of statements are on.
const PLACES: &str = "SELECT CAST(@@datadir AS CHAR), CAST(DATABASE() AS CHAR), CAST(coalesce(@@log_bin_basename, '') AS CHAR), \
     CAST(@@general_log_file AS CHAR), CAST(@@slow_query_log_file AS CHAR), CAST(@@general_log AS CHAR), CAST(@@slow_query_log AS CHAR), \
     CAST(coalesce(@@innodb_log_group_home_dir, '') AS CHAR), CAST(coalesce(@@innodb_undo_directory, '') AS CHAR), \
     CAST(coalesce(@@innodb_data_home_dir, '') AS CHAR)";

/// The data folder as the server has it, and as it is here.
struct Root<'a> {
    server: &'a str,
    here: PathBuf,
}

impl Root<'_> {
    /// A path of the server, as it is here: one within its data folder lies within the folder that was declared for it.
    fn at(&self, path: &str) -> PathBuf {
        match Path::new(path).strip_prefix(self.server) {
            Ok(within) => self.here.join(within),
            Err(_) => self.here.join(path.strip_prefix("./").unwrap_or(path)),
        }
    }
}

/// The files of the tables, of undo, redo and binary log, and of the logs of statements.
pub(super) async fn file_map(
    session: &mut MysqlSession,
    (schema, tables): (&Schema, &[String]),
    data: Option<&Path>,
) -> Result<FileMap> {
    let mut map = FileMap::default();
    let statement = Statement { sql: PLACES.to_owned(), arguments: Vec::new(), outputs: vec![Output::Text; 10] };
    let rows = session.fetch(statement).await?;
    let Some(row) = rows.first() else { return Ok(map) };
    let server = text(row, 0);
    let root = Root { server, here: data.map_or_else(|| PathBuf::from(server), Path::to_path_buf) };
    let folder = file_name(text(row, 1));
    map.encodings = encodings(session, tables).await?;
    for table in tables {
        let all = |folder: &Path| [".ibd", "#*"].map(|end| folder.join(format!("{}{end}", file_name(table)))).to_vec();
        // Partitions have files of their own, and full-text indexes too.
        let mut paths = all(&root.here.join(&folder));
        if schema.catalogue.table(table).is_some() {
            for elsewhere in folders_of(session, &schema.place(table)).await? {
                let own = all(&root.at(&elsewhere).join(&folder));
                paths.extend(own.clone());
                map.need(FileKind::Tables, own);
            }
        }
        map.need(FileKind::Tables, paths);
    }
    map.parts.insert((FileKind::Tables, root.here.join(&folder).join("FTS_*")));
    let (redo, undo, system) = (root.at(text(row, 7)), root.at(text(row, 8)), root.at(text(row, 9)));
    // Names that may have a number behind them stand for all of these files.
    map.need(FileKind::TransactionLog, vec![redo.join("ib_logfile*"), redo.join("#innodb_redo")]);
    map.need(FileKind::Undo, vec![system.join("ibdata*")]);
    for (kind, path) in [
        (FileKind::Undo, undo.join("undo*")),
        (FileKind::Undo, root.here.join("ib_buffer_pool*")),
        (FileKind::Temporary, system.join("ibtmp*")),
    ] {
        map.parts.insert((kind, path));
    }
    if !text(row, 2).is_empty() {
        map.need(FileKind::BinaryLog, vec![root.at(&format!("{}.*", text(row, 2)))]);
    }
    for (file, is_on) in [(3, 5), (4, 6)] {
        let path = root.at(text(row, file));
        if text(row, is_on) == "1" {
            map.need(FileKind::StatementLog, vec![path]);
        } else {
            map.parts.insert((FileKind::StatementLog, path));
        }
    }
    Ok(map)
}

/// How the columns of the tables are written. Logs of statements are in UTF-8, as this program speaks.
async fn encodings(session: &mut MysqlSession, tables: &[String]) -> Result<BTreeSet<TextEncoding>> {
    let sql = "SELECT DISTINCT CAST(TABLE_NAME AS CHAR), CAST(CHARACTER_SET_NAME AS CHAR) FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = DATABASE() AND CHARACTER_SET_NAME IS NOT NULL";
    let rows =
        session.fetch(Statement { sql: sql.to_owned(), arguments: Vec::new(), outputs: vec![Output::Text; 2] }).await?;
    let own = rows.iter().filter(|row| tables.iter().any(|table| table.eq_ignore_ascii_case(text(row, 0))));
    Ok(own.map(|row| encoding_of(text(row, 1))).chain([TextEncoding::Utf8]).collect())
}

fn encoding_of(character_set: &str) -> TextEncoding {
    match character_set {
        "utf8" | "utf8mb3" | "utf8mb4" | "ascii" => TextEncoding::Utf8,
        "ucs2" | "utf16" => TextEncoding::Utf16Be,
        "utf16le" => TextEncoding::Utf16Le,
        "utf32" => TextEncoding::Utf32Be,
        _ => TextEncoding::OtherAscii,
    }
}

/// Folders elsewhere that a table or a partition of it was put into.
async fn folders_of(session: &mut MysqlSession, place: &str) -> Result<Vec<String>> {
    let sql = format!("SHOW CREATE TABLE {place}");
    let rows = session.fetch(Statement { sql, arguments: Vec::new(), outputs: vec![Output::Text; 2] }).await?;
    Ok(rows.first().map_or_else(Vec::new, |row| folders_in(text(row, 1))))
}

/// The folders that a definition names.
fn folders_in(definition: &str) -> Vec<String> {
    let behind = definition.split("DATA DIRECTORY").skip(1);
    let quoted = behind.filter_map(|rest| rest.trim_start_matches([' ', '=']).strip_prefix('\''));
    quoted.filter_map(|rest| rest.split_once('\'')).map(|(folder, _)| folder.to_owned()).collect()
}

/// A name as files have it: other characters than letters of ASCII, digits and `_` as `@` and four digits.
fn file_name(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, letter| {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            out.push(letter);
        } else {
            out = format!("{out}@{:04x}", u32::from(letter));
        }
        out
    })
}

fn text(row: &[Value], at: usize) -> &str {
    match row.get(at) {
        Some(Value::Text(text)) => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_lie_elsewhere_are_looked_for_there() {
        let parted = "CREATE TABLE `t` (\n `id` int\n) ENGINE=InnoDB DATA DIRECTORY='/mnt/a/'\n PARTITION BY HASH (`id`)\n\
            (PARTITION `p0` DATA DIRECTORY = '/mnt/b' ENGINE = InnoDB)";
        assert_eq!(folders_in(parted), ["/mnt/a/", "/mnt/b"]);
        assert_eq!(folders_in("CREATE TABLE `t` (`id` int) ENGINE=InnoDB"), Vec::<String>::new());
    }

    #[test]
    fn paths_of_the_server_are_taken_to_the_declared_folder() {
        let root = Root { server: "/var/lib/mysql/", here: PathBuf::from("/mnt/data") };
        for (path, here) in [
            ("./", "/mnt/data/"),
            ("", "/mnt/data/"),
            ("host.log", "/mnt/data/host.log"),
            ("/var/lib/mysql/binlog", "/mnt/data/binlog"),
            ("/srv/redo", "/srv/redo"),
        ] {
            assert_eq!(root.at(path), PathBuf::from(here), "{path}");
        }
    }
}
