//! Scratch databases on a PostgreSQL server. The login needs CREATEDB and owns what it makes; it needs no right on any other
//! database, and `url` names one that it can connect to (`postgres`, for example).

use std::sync::Arc;

use async_trait::async_trait;

use super::catalogue::{text, truth};
use super::{PgSession, PostgresStore};
use crate::policy::registry::SecretText;
use crate::stores::scratch::{ScratchServer, only_scratch};
use crate::stores::session::Session;
use crate::stores::sql::{Argument, Statement, quote};
use crate::stores::{DataStore, Engine, Finding, FindingKind, Limits, Result};

/// A PostgreSQL server for scratch databases.
pub struct PostgresServer {
    store: String,
    url: SecretText,
}

impl PostgresServer {
    /// The server at `url`, for drills of a store.
    #[must_use]
    pub fn new(store: &str, url: SecretText) -> Self {
        Self { store: store.to_owned(), url }
    }

    async fn session(&self) -> Result<PgSession> {
        PostgresStore::new(&self.store, self.url.clone(), None, Limits::default()).connect(&self.url).await
    }
}

#[async_trait]
impl ScratchServer for PostgresServer {
    async fn obstacles(&self, name: &str) -> Result<Vec<Finding>> {
        only_scratch(&self.store, name)?;
        let about = Statement::plain(
            "SELECT rolcreatedb OR rolsuper, pg_is_in_recovery(), CAST(current_user AS text) FROM pg_roles \
             WHERE rolname = current_user",
        );
        let about = self.session().await?.fetch(about).await?.into_iter().next().unwrap_or_default();
        let mut findings = Vec::new();
        let mut add = |kind, what: &str, remedy: String| {
            findings.push(Finding { kind, table: None, what: what.to_owned(), remedy });
        };
        if truth(&about, 1) {
            let remedy = "name a server of its own under `[drill.scratch]`".to_owned();
            add(FindingKind::Storage, "the scratch server is a read-only replica", remedy);
        }
        if !truth(&about, 0) {
            let user = quote(Engine::Postgres, &text(&about, 2));
            let what = "the scratch login may not make databases";
            add(FindingKind::NoRight, what, format!("ALTER ROLE {user} CREATEDB;"));
        }
        Ok(findings)
    }

    async fn databases(&self, prefix: &str) -> Result<Vec<String>> {
        let statement = Statement {
            sql: "SELECT CAST(datname AS text) FROM pg_database WHERE left(datname, length($1)) = $1 ORDER BY 1"
                .to_owned(),
            arguments: vec![Argument::Text(prefix.to_owned())],
            outputs: Vec::new(),
        };
        Ok(self.session().await?.fetch(statement).await?.iter().map(|row| text(row, 0)).collect())
    }

    async fn make(&self, name: &str) -> Result<Arc<dyn DataStore>> {
        only_scratch(&self.store, name)?;
        let place = quote(Engine::Postgres, name);
        let mut session = self.session().await?;
        session.script(&format!("CREATE DATABASE {place}")).await?;
        // Others may connect to a new database by default.
        session.script(&format!("REVOKE ALL ON DATABASE {place} FROM PUBLIC")).await?;
        let store = PostgresStore::new(&self.store, self.url.clone(), None, Limits::default());
        Ok(Arc::new(store.within_scratch(name)))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        only_scratch(&self.store, name)?;
        let place = quote(Engine::Postgres, name);
        self.session().await?.script(&format!("DROP DATABASE IF EXISTS {place} WITH (FORCE)")).await
    }
}
