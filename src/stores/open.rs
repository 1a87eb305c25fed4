//! From an address to an adapter.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::mysql::MysqlStore;
use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::{DataStore, Result, StoreError};
use crate::policy::registry::SecretText;

/// How long a batch may wait or run on the server. Both are enforced by the database itself, so that a batch of an
/// agent that is gone ends before its lease does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for a lock.
    pub lock_wait: Duration,
    /// Longest run of one statement of a batch, and longest idle time inside its transaction.
    pub statement: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lock_wait: Duration::from_secs(5), statement: Duration::from_mins(1) }
    }
}

/// Where a store is.
#[derive(Debug, Clone)]
pub struct StoreAddress {
    /// Its registered name.
    pub name: String,
    /// `sqlite://path`, `postgres://…` or `mysql://…` (`mariadb://…`).
    pub url: SecretText,
    /// Where to read from, if not from `url`; a read replica for example. Not for SQLite.
    pub read_url: Option<SecretText>,
    /// What relative SQLite paths are relative to.
    pub base: PathBuf,
    /// Whether a missing SQLite file is made; only for the target of a restore.
    pub create: bool,
    /// Limits of batches.
    pub limits: Limits,
}

/// The adapter for an address. Connects to nothing yet.
///
/// # Errors
/// [`StoreError::Refused`] when the URL is of no known kind; its text is not repeated, for it may hold a password.
pub fn open(address: &StoreAddress) -> Result<Arc<dyn DataStore>> {
    let url = address.url.dangerous_text();
    let refused = |what: &str| StoreError::Refused { store: address.name.clone(), what: what.to_owned() };
    let (scheme, rest) = url.split_once(':').ok_or_else(|| refused("the URL has no scheme"))?;
    match scheme {
        "sqlite" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let path = path.split_once('?').map_or(path, |(path, _)| path);
            if path.is_empty() || path == ":memory:" {
                return Err(refused("the URL names no file"));
            }
            Ok(Arc::new(SqliteStore::new(&address.name, address.base.join(path), address.create, address.limits)))
        }
        "postgres" | "postgresql" => {
            let read_url = address.read_url.clone();
            Ok(Arc::new(PostgresStore::new(&address.name, address.url.clone(), read_url, address.limits)))
        }
        "mysql" | "mariadb" => {
            let read_url = address.read_url.clone();
            Ok(Arc::new(MysqlStore::new(&address.name, address.url.clone(), read_url, address.limits)))
        }
        _ => Err(refused("the URL must begin with sqlite://, postgres:// or mysql://")),
    }
}
