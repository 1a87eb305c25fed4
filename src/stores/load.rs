//! How busy a store is, and how far its replicas are behind: what the eraser slows down for.

use std::time::Duration;

use super::session::{MARKER_TABLE, Session, fetch_integer};
use super::sql::{Argument, Output, Statement, quote};
use super::{Engine, Result};

/// What a server says of its work. What this login may not see, or the engine does not have, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Other sessions that are at work now.
    pub active: Option<u64>,
    /// Bytes of log written so far (PostgreSQL: write-ahead log, MariaDB: InnoDB's redo log).
    pub log_bytes: Option<u64>,
    /// Row versions that are deleted and not cleared away yet (PostgreSQL: dead tuples, MariaDB: InnoDB's history list).
    pub unpurged: Option<u64>,
    /// How long the oldest transaction of another session is open.
    pub oldest_transaction: Option<Duration>,
    /// How far a replica is behind that the server itself knows of.
    pub replay_lag: Option<Duration>,
}

/// The run under which heartbeats stand in the marker table; no run has such an id.
const HEARTBEAT: &str = "heartbeat";

/// Writes a heartbeat and returns it: the server's time, and always later than the one before, whatever the clock did since.
pub(super) async fn write_beat<S: Session>(session: &mut S, engine: Engine, micros: i64) -> Result<i64> {
    let micros = read_beat(session, engine).await?.map_or(micros, |before| micros.max(before.saturating_add(1)));
    let table = quote(engine, MARKER_TABLE);
    let place = |n: usize| if engine == Engine::Postgres { format!("${n}") } else { "?".to_owned() };
    let arguments = || vec![Argument::Text(HEARTBEAT.to_owned()), Argument::Integer(micros)];
    let insert = format!(
        "INSERT INTO {table} (run, chunk, token, erased, changed) VALUES ({}, {}, 0, 0, 0)",
        place(1),
        place(2)
    );
    let delete = format!("DELETE FROM {table} WHERE run = {} AND chunk < {}", place(1), place(2));
    session.execute(Statement { sql: insert, arguments: arguments(), outputs: Vec::new() }).await?;
    session.execute(Statement { sql: delete, arguments: arguments(), outputs: Vec::new() }).await?;
    Ok(micros)
}

/// The newest heartbeat that arrived here.
pub(super) async fn read_beat<S: Session>(session: &mut S, engine: Engine) -> Result<Option<i64>> {
    let place = if engine == Engine::Postgres { "$1" } else { "?" };
    let sql = format!("SELECT max(chunk) FROM {} WHERE run = {place}", quote(engine, MARKER_TABLE));
    let arguments = vec![Argument::Text(HEARTBEAT.to_owned())];
    fetch_integer(session, Statement { sql, arguments, outputs: vec![Output::Integer] }).await
}
