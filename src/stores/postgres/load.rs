//! What PostgreSQL says of its work. Other logins' sessions and replicas show only with the right `pg_read_all_stats`.

use std::time::Duration;

use super::PgSession;
use crate::stores::session::Session;
use crate::stores::sql::Statement;
use crate::stores::{Load, Result};
use crate::value::Value;

const LOAD: &str = "SELECT \
     (SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' \
       AND datname = current_database() AND pid <> pg_backend_pid()), \
     CASE WHEN pg_is_in_recovery() THEN NULL ELSE CAST(pg_current_wal_lsn() - CAST('0/0' AS pg_lsn) AS bigint) END, \
     (SELECT CAST(coalesce(sum(n_dead_tup), 0) AS bigint) FROM pg_stat_user_tables), \
     (SELECT CAST(extract(epoch FROM max(clock_timestamp() - xact_start)) * 1000 AS bigint) FROM pg_stat_activity \
       WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()), \
     (SELECT CAST(extract(epoch FROM max(replay_lag)) * 1000 AS bigint) FROM pg_stat_replication)";

pub(super) async fn read(session: &mut PgSession) -> Result<Load> {
    let row = session.fetch(Statement::plain(LOAD)).await?.into_iter().next().unwrap_or_default();
    let number = |at: usize| match row.get(at) {
        Some(Value::Integer(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    Ok(Load {
        active: number(0),
        log_bytes: number(1),
        unpurged: number(2),
        oldest_transaction: number(3).map(Duration::from_millis),
        replay_lag: number(4).map(Duration::from_millis),
    })
}
