//! Private databases for drills: made on a server that is named for this, used by one drill, and removed with all that is
//! in it.
//!
//! A drill holds customers in clear, so nothing of it may outlast it. PostgreSQL gets unlogged tables, whose rows reach
//! neither the write-ahead log nor archives and replicas; MariaDB's sessions write no binary log, and a server that would
//! not allow that is refused.

use std::sync::Arc;

use async_trait::async_trait;

use super::mysql::MysqlServer;
use super::postgres::PostgresServer;
use super::{DataStore, Finding, Result, StoreError};
use crate::policy::registry::SecretText;

/// What the name of every scratch database begins with. Rights can be given on this pattern alone.
pub const SCRATCH_PREFIX: &str = "wangchuan_drill_";

/// A server on which scratch databases can be made. Touches no database but those.
#[async_trait]
pub trait ScratchServer: Send + Sync {
    /// What stands in the way of making, filling and removing the database `name`, with the exact GRANT; empty when nothing
    /// does. Leaves nothing behind.
    async fn obstacles(&self, name: &str) -> Result<Vec<Finding>>;

    /// The databases there whose names begin with `prefix`.
    async fn databases(&self, prefix: &str) -> Result<Vec<String>>;

    /// Makes the empty database `name` and opens it. An existing one is never taken.
    async fn make(&self, name: &str) -> Result<Arc<dyn DataStore>>;

    /// Removes the database `name` with everything in it, whoever is connected to it.
    async fn remove(&self, name: &str) -> Result<()>;
}

/// The server at an address, for drills of the store `store`. Connects to nothing yet.
///
/// # Errors
/// [`StoreError::Refused`] when the URL is of no server; its text is not repeated, for it may hold a password.
pub fn open_scratch(store: &str, url: &SecretText) -> Result<Arc<dyn ScratchServer>> {
    match url.dangerous_text().split_once(':').map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => Ok(Arc::new(PostgresServer::new(store, url.clone()))),
        Some("mysql" | "mariadb") => Ok(Arc::new(MysqlServer::new(store, url.clone()))),
        _ => Err(StoreError::Refused {
            store: store.to_owned(),
            what: "the scratch URL must begin with postgres:// or mysql://".to_owned(),
        }),
    }
}

/// Refuses names that are not those of scratch databases, so that no slip of a caller can remove another one.
pub(super) fn only_scratch(store: &str, name: &str) -> Result<()> {
    let rest = name.strip_prefix(SCRATCH_PREFIX).unwrap_or_default();
    let is_plain = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain && name.len() <= 63 {
        return Ok(());
    }
    Err(StoreError::Refused { store: store.to_owned(), what: "that is not the name of a scratch database".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_scratch_database_is_ever_made_or_removed() {
        assert!(only_scratch("shop", "wangchuan_drill_0a1b_2c").is_ok());
        for name in ["shop", "wangchuan_drill_", "wangchuan_drill_a;b", "wangchuan_drill_\"", "x_wangchuan_drill_1"] {
            assert!(only_scratch("shop", name).is_err(), "{name}");
        }
        assert!(only_scratch("shop", &format!("wangchuan_drill_{}", "a".repeat(48))).is_err());
    }

    #[test]
    fn only_servers_hold_scratch_databases() {
        for url in ["postgres://h/postgres", "postgresql://h/postgres", "mysql://h/", "mariadb://h/"] {
            assert!(open_scratch("shop", &SecretText::new(url.to_owned())).is_ok(), "{url}");
        }
        for url in ["sqlite://a.db", "nothing"] {
            assert!(open_scratch("shop", &SecretText::new(url.to_owned())).is_err(), "{url}");
        }
    }
}
