//! What MariaDB says of its work. Every login may read these figures.

use super::MysqlSession;
use crate::stores::session::Session;
use crate::stores::sql::{Output, Statement};
use crate::stores::{Load, Result};
use crate::value::{Row, Value};

pub(super) async fn read(session: &mut MysqlSession) -> Result<Load> {
    let place =
        if session.is_mariadb { "information_schema.GLOBAL_STATUS" } else { "performance_schema.global_status" };
    let sql = format!(
        "SELECT CAST(upper(VARIABLE_NAME) AS CHAR), CAST(VARIABLE_VALUE AS CHAR) FROM {place} WHERE VARIABLE_NAME IN \
         ('THREADS_RUNNING', 'INNODB_OS_LOG_WRITTEN', 'INNODB_HISTORY_LIST_LENGTH')"
    );
    let rows = session.fetch(Statement { sql, arguments: Vec::new(), outputs: vec![Output::Text; 2] }).await?;
    Ok(Load {
        // This session itself is one of them.
        active: figure(&rows, "THREADS_RUNNING").map(|running| running.saturating_sub(1)),
        log_bytes: figure(&rows, "INNODB_OS_LOG_WRITTEN"),
        unpurged: figure(&rows, "INNODB_HISTORY_LIST_LENGTH"),
        oldest_transaction: None,
        replay_lag: None,
    })
}

fn figure(rows: &[Row], name: &str) -> Option<u64> {
    rows.iter().find_map(|row| match row.as_slice() {
        [Value::Text(known), Value::Text(value)] if known == name => value.parse().ok(),
        _ => None,
    })
}
