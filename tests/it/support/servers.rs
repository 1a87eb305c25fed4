//! Throw-away databases of each engine for tests.
//!
//! SQLite is always there. PostgreSQL and MariaDB come from `WANGCHUAN_TEST_POSTGRES` and `WANGCHUAN_TEST_MARIADB`
//! (superuser URLs of private instances); without them the test says so and does not run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, SqliteConnection};
use wangchuan::policy::registry::SecretText;
use wangchuan::stores::{self, DataStore, Engine, Limits, StoreAddress};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A database of its own for one test.
pub struct Lab {
    engine: Engine,
    /// The server's URL without a database; empty for SQLite.
    server: String,
    database: String,
    folder: tempfile::TempDir,
}

fn fresh_name() -> String {
    format!("wc_test_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn say_not_run(what: &str, variable: &str) {
    println!("not run here: {what} needs {variable} (tests/run starts the servers)");
}

impl Lab {
    /// A lab on this engine, or `None` when there is no server.
    pub async fn start(engine: Engine) -> Option<Self> {
        let variable = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some("WANGCHUAN_TEST_POSTGRES"),
            Engine::Mysql => Some("WANGCHUAN_TEST_MARIADB"),
        };
        let mut server = String::new();
        if let Some(variable) = variable {
            let Ok(url) = std::env::var(variable) else {
                say_not_run(&format!("{engine:?}"), variable);
                return None;
            };
            let authority = url.split("://").nth(1).unwrap_or_default();
            let authority = authority.split(['/', '?']).next().unwrap_or_default();
            server = format!("{}://{authority}", url.split("://").next().unwrap_or_default());
        }
        let lab = Self { engine, server, database: fresh_name(), folder: tempfile::tempdir().unwrap() };
        match engine {
            Engine::Sqlite => lab.run("SELECT 1").await,
            Engine::Postgres => lab.run_in("postgres", &format!("CREATE DATABASE {}", lab.database)).await,
            Engine::Mysql => {
                let sql = format!("CREATE DATABASE {} CHARACTER SET utf8mb4", lab.database);
                lab.run_in("mysql", &sql).await;
            }
        }
        Some(lab)
    }

    /// Drops the database.
    pub async fn finish(self) {
        match self.engine {
            Engine::Sqlite => {}
            Engine::Postgres => self.run_in("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.database)).await,
            Engine::Mysql => self.run_in("mysql", &format!("DROP DATABASE {}", self.database)).await,
        }
    }

    /// The folder of this test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The URL of the test's database for its superuser.
    pub fn url(&self) -> String {
        match self.engine {
            Engine::Sqlite => format!("sqlite://{}.db", self.database),
            _ => format!("{}/{}", self.server, self.database),
        }
    }

    /// The URL for another login.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        let host = self.server.rsplit(['@', '/']).next().unwrap_or_default();
        let scheme = self.server.split("://").next().unwrap_or_default();
        format!("{scheme}://{user}:{password}@{host}/{}", self.database)
    }

    /// Runs statements as the superuser, outside of the code under test.
    pub async fn run(&self, sql: &str) {
        self.run_in(&self.database, sql).await;
    }

    /// The one number that a query returns, asked outside of the code under test.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.engine {
            Engine::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.sqlite_url()).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
            }
            Engine::Postgres => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
            }
            Engine::Mysql => {
                let mut connection = MySqlConnection::connect(&self.url()).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// The texts that a query returns, asked outside of the code under test.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.engine {
            Engine::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.sqlite_url()).await.unwrap();
                sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
            }
            Engine::Postgres => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
            }
            Engine::Mysql => {
                let mut connection = MySqlConnection::connect(&self.url()).await.unwrap();
                sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
            }
        }
    }

    fn sqlite_url(&self) -> String {
        format!("sqlite://{}/{}.db?mode=rwc", self.folder.path().display(), self.database)
    }

    async fn run_in(&self, database: &str, sql: &str) {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let url = format!("{}/{database}", self.server);
        let done = match self.engine {
            Engine::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.sqlite_url()).await.unwrap();
                let done = query.execute(&mut connection).await.map(|_| ());
                connection.close().await.unwrap();
                done
            }
            Engine::Postgres => {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                query.execute(&mut connection).await.map(|_| ())
            }
            Engine::Mysql => {
                let mut connection = MySqlConnection::connect(&url).await.unwrap();
                query.execute(&mut connection).await.map(|_| ())
            }
        };
        done.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// A store on the test's database.
    pub fn store(&self) -> Arc<dyn DataStore> {
        self.store_at(&self.url(), false)
    }

    /// A store at this URL.
    pub fn store_at(&self, url: &str, create: bool) -> Arc<dyn DataStore> {
        let limits = Limits { lock_wait: std::time::Duration::from_secs(1), ..Limits::default() };
        self.store_with(url, create, limits)
    }

    /// A store on the test's database that reads from another one.
    pub fn store_reading_from(&self, read_url: &str) -> Arc<dyn DataStore> {
        let mut address = self.address(&self.url(), false, Limits::default());
        address.read_url = Some(SecretText::new(read_url.to_owned()));
        stores::open(&address).unwrap()
    }

    /// A store at this URL with these limits.
    pub fn store_with(&self, url: &str, create: bool, limits: Limits) -> Arc<dyn DataStore> {
        stores::open(&self.address(url, create, limits)).unwrap()
    }

    fn address(&self, url: &str, create: bool, limits: Limits) -> StoreAddress {
        let (name, url) = ("lab".to_owned(), SecretText::new(url.to_owned()));
        let base = self.folder.path().to_path_buf();
        StoreAddress { name, url, read_url: None, base, create, limits }
    }
}
