//! Databases of a test's own, asked in plain SQL: what the program did is judged by statements that it did not write.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, SqliteConnection};
use wangchuan::stores::Engine;

use crate::support::announce::{MARIADB, POSTGRES, announce_not_run, switched_on};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Runs something asynchronous to its end.
pub fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

/// A database that belongs to one test.
pub struct Database {
    engine: Engine,
    /// The server's address without a database; empty for SQLite.
    server: String,
    name: String,
    /// The file, for SQLite.
    file: PathBuf,
}

impl Database {
    /// An empty database; a file in `folder` for SQLite. `None`, said aloud, when there is no server.
    pub fn create(engine: Engine, folder: &Path) -> Option<Self> {
        let variable = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(POSTGRES),
            Engine::Mysql => Some(MARIADB),
        };
        let mut server = String::new();
        if let Some(variable) = variable {
            let Some(url) = switched_on(variable) else {
                announce_not_run(&format!("a scenario on {engine:?}, which needs {variable}"));
                return None;
            };
            let (scheme, rest) = url.split_once("://").unwrap();
            server = format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap());
        }
        Some(Self::create_on(server, engine, folder))
    }

    /// The same on this server (scheme, login, host and port).
    pub fn create_on(server: String, engine: Engine, folder: &Path) -> Self {
        let name = format!("wc_scenario_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let file = folder.join(format!("{name}.db"));
        let database = Self { engine, server, name, file };
        let create = format!("CREATE DATABASE {}", database.name);
        match engine {
            Engine::Sqlite => database.run("PRAGMA user_version = 0"),
            Engine::Postgres => database.run_in("postgres", &create),
            Engine::Mysql => database.run_in("mysql", &format!("{create} CHARACTER SET utf8mb4")),
        }
        database
    }

    /// An SQLite file that is there.
    pub fn at(file: &Path) -> Self {
        Self { engine: Engine::Sqlite, server: String::new(), name: String::new(), file: file.to_owned() }
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The file of an SQLite database.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address for its superuser, as it stands in a configuration.
    pub fn url(&self) -> String {
        match self.engine {
            Engine::Sqlite => format!("sqlite://{}", self.file.display()),
            _ => format!("{}/{}", self.server, self.name),
        }
    }

    /// The address for another login.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        let host = self.server.rsplit(['@', '/']).next().unwrap();
        let scheme = self.server.split("://").next().unwrap();
        format!("{scheme}://{user}:{password}@{host}/{}", self.name)
    }

    /// Runs statements as the superuser.
    pub fn run(&self, sql: &str) {
        self.run_in(&self.name, sql);
    }

    /// Runs one statement that may fail, and returns how many rows it touched.
    pub fn try_run(&self, sql: &str) -> Result<u64, sqlx::Error> {
        wait_for(async {
            let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
            Ok(match self.engine {
                Engine::Sqlite => {
                    let mut connection = self.sqlite().await;
                    query.execute(&mut connection).await?.rows_affected()
                }
                Engine::Postgres => {
                    query.execute(&mut PgConnection::connect(&self.url()).await?).await?.rows_affected()
                }
                Engine::Mysql => {
                    query.execute(&mut MySqlConnection::connect(&self.url()).await?).await?.rows_affected()
                }
            })
        })
    }

    fn run_in(&self, database: &str, sql: &str) {
        wait_for(async {
            let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
            let address = format!("{}/{database}", self.server);
            let done = match self.engine {
                Engine::Sqlite => query.execute(&mut self.sqlite().await).await.map(drop),
                Engine::Postgres => query.execute(&mut PgConnection::connect(&address).await.unwrap()).await.map(drop),
                Engine::Mysql => query.execute(&mut MySqlConnection::connect(&address).await.unwrap()).await.map(drop),
            };
            let beginning: String = sql.chars().take(200).collect();
            done.unwrap_or_else(|error| panic!("{error}: {beginning}"));
        });
    }

    async fn sqlite(&self) -> SqliteConnection {
        SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", self.file.display())).await.unwrap()
    }

    /// The one whole number that a query returns.
    pub fn number(&self, sql: &str) -> i64 {
        let query = AssertSqlSafe(sql.to_owned());
        wait_for(async {
            match self.engine {
                Engine::Sqlite => sqlx::query_scalar(query).fetch_one(&mut self.sqlite().await).await,
                Engine::Postgres => {
                    let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                    sqlx::query_scalar(query).fetch_one(&mut connection).await
                }
                Engine::Mysql => {
                    let mut connection = MySqlConnection::connect(&self.url()).await.unwrap();
                    sqlx::query_scalar(query).fetch_one(&mut connection).await
                }
            }
        })
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
    }

    /// The first column, which must be text, of all rows that a query returns.
    pub fn texts(&self, sql: &str) -> Vec<String> {
        let query = AssertSqlSafe(sql.to_owned());
        wait_for(async {
            match self.engine {
                Engine::Sqlite => sqlx::query_scalar(query).fetch_all(&mut self.sqlite().await).await,
                Engine::Postgres => {
                    let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                    sqlx::query_scalar(query).fetch_all(&mut connection).await
                }
                Engine::Mysql => {
                    let mut connection = MySqlConnection::connect(&self.url()).await.unwrap();
                    sqlx::query_scalar(query).fetch_all(&mut connection).await
                }
            }
        })
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
    }

    /// How many rows of a table there are.
    pub fn rows(&self, table: &str) -> i64 {
        self.number(&format!("SELECT COUNT(*) FROM {table}"))
    }

    /// How many rows of a table match a condition.
    pub fn rows_where(&self, table: &str, condition: &str) -> i64 {
        self.number(&format!("SELECT COUNT(*) FROM {table} WHERE {condition}"))
    }
}

impl Drop for Database {
    /// Drops the database; SQLite's file goes with its folder.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        match self.engine {
            Engine::Sqlite => {}
            Engine::Postgres => self.run_in("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name)),
            Engine::Mysql => self.run_in("mysql", &format!("DROP DATABASE {}", self.name)),
        }
    }
}
