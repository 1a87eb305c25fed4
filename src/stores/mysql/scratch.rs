//! Scratch databases on a MariaDB server. The login needs all rights on the pattern `wangchuan\_drill\_%`, and no other; on a
//! server with a binary log also BINLOG ADMIN, so that restored rows stay out of it.

use std::sync::Arc;

use async_trait::async_trait;

use super::catalogue::text;
use super::check::account;
use super::{MysqlSession, MysqlStore, connect_to, options_of};
use crate::policy::registry::SecretText;
use crate::stores::scratch::{ScratchServer, only_scratch};
use crate::stores::session::Session;
use crate::stores::sql::{Argument, Statement, quote};
use crate::stores::{DataStore, Engine, Finding, FindingKind, Limits, Result, StoreError};

/// A MariaDB server for scratch databases.
pub struct MysqlServer {
    store: String,
    url: SecretText,
}

/// Switches the binary log off for a session, where there is one. Refused when this login may not.
pub(super) async fn keep_out_of_log(session: &mut MysqlSession) -> Result<()> {
    let logs = session.fetch(Statement::plain("SELECT CAST(@@global.log_bin AS CHAR)")).await?;
    if logs.first().is_some_and(|row| !["0", "OFF"].contains(&text(row, 0).as_str())) {
        session.script("SET SESSION sql_log_bin = 0").await?;
    }
    Ok(())
}

impl MysqlServer {
    /// The server at `url`, for drills of a store.
    #[must_use]
    pub fn new(store: &str, url: SecretText) -> Self {
        Self { store: store.to_owned(), url }
    }

    /// A session in no database: rights are needed on scratch databases only.
    async fn bare_session(&self) -> Result<MysqlSession> {
        let url = without_database(self.url.dangerous_text());
        connect_to(&self.store, options_of(&self.store, &SecretText::new(url))?).await
    }

    async fn session(&self) -> Result<MysqlSession> {
        let mut session = self.bare_session().await?;
        keep_out_of_log(&mut session).await?;
        // A removal waits for whoever is still at work in the database, but not for ever.
        session.script("SET SESSION lock_wait_timeout = 60").await?;
        Ok(session)
    }
}

/// An address with its path cut out.
fn without_database(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("mysql", url));
    let (before, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
    let authority = before.split('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{query}")
}

/// Everything that a restore does, on two tables without meaning.
async fn rehearse(session: &mut MysqlSession, name: &str) -> Result<()> {
    let place = quote(Engine::Mysql, name);
    session.script(&format!("CREATE DATABASE {place} CHARACTER SET utf8mb4")).await?;
    let steps = [
        format!("CREATE TABLE {place}.a (x int PRIMARY KEY) ENGINE=InnoDB"),
        format!("CREATE TABLE {place}.b (x int PRIMARY KEY, y int) ENGINE=InnoDB"),
        format!("CREATE INDEX y ON {place}.b (y)"),
        format!("ALTER TABLE {place}.b ADD FOREIGN KEY (x) REFERENCES {place}.a (x)"),
        format!("INSERT INTO {place}.a SELECT x FROM {place}.b"),
    ];
    let mut done = Ok(());
    for step in &steps {
        done = done.and(session.script(step).await);
    }
    done.and(session.script(&format!("DROP DATABASE {place}")).await)
}

#[async_trait]
impl ScratchServer for MysqlServer {
    async fn obstacles(&self, name: &str) -> Result<Vec<Finding>> {
        only_scratch(&self.store, name)?;
        let mut session = self.bare_session().await?;
        let user = account(&mut session).await?;
        let mut findings = Vec::new();
        let mut add = |kind, what: &str, remedy: String| {
            findings.push(Finding { kind, table: None, what: what.to_owned(), remedy });
        };
        match keep_out_of_log(&mut session).await {
            Ok(()) => {}
            Err(StoreError::Refused { .. }) => add(
                FindingKind::NoRight,
                "restored rows would go into the scratch server's binary log, and this login may not prevent that",
                format!("GRANT BINLOG ADMIN ON *.* TO {user}; or name a server without a binary log"),
            ),
            Err(error) => return Err(error),
        }
        match rehearse(&mut session, name).await {
            Ok(()) => {}
            Err(StoreError::Refused { .. }) => add(
                FindingKind::NoRight,
                "the scratch login may not make, fill and remove scratch databases",
                format!("GRANT ALL PRIVILEGES ON `wangchuan\\_drill\\_%`.* TO {user};"),
            ),
            Err(error) => return Err(error),
        }
        Ok(findings)
    }

    async fn databases(&self, prefix: &str) -> Result<Vec<String>> {
        let statement = Statement {
            sql: "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE LEFT(SCHEMA_NAME, CHAR_LENGTH(?)) = ? ORDER BY 1"
                .to_owned(),
            arguments: vec![Argument::Text(prefix.to_owned()); 2],
            outputs: Vec::new(),
        };
        Ok(self.session().await?.fetch(statement).await?.iter().map(|row| text(row, 0)).collect())
    }

    async fn make(&self, name: &str) -> Result<Arc<dyn DataStore>> {
        only_scratch(&self.store, name)?;
        let place = quote(Engine::Mysql, name);
        self.session().await?.script(&format!("CREATE DATABASE {place} CHARACTER SET utf8mb4")).await?;
        let store = MysqlStore::new(&self.store, self.url.clone(), None, Limits::default());
        Ok(Arc::new(store.within_scratch(name)))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        only_scratch(&self.store, name)?;
        self.session().await?.script(&format!("DROP DATABASE IF EXISTS {}", quote(Engine::Mysql, name))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_loses_its_database_and_nothing_else() {
        assert_eq!(
            without_database("mysql://u:p@h:3306/shop?ssl-mode=REQUIRED"),
            "mysql://u:p@h:3306/?ssl-mode=REQUIRED"
        );
        assert_eq!(without_database("mariadb://u@h"), "mariadb://u@h/");
        assert_eq!(without_database("mysql://u@h/a/b"), "mysql://u@h/");
    }
}
