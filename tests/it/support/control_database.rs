//! Control databases on a private PostgreSQL, for suites that know them as a file otherwise; and copies of all their tables, as somebody
//! has them who dumped the database.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use wangchuan::control::{Control, StateLocation};
use wangchuan::policy::registry::SecretText;

use super::announce::{POSTGRES, announce_not_run, switched_on};
use super::world::read_config;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The folder, in a copy of what a host held, with the tables of its control database.
const TABLES: &str = "tables";

/// The private server; none, said aloud, when there is none.
pub fn server(suite: &str) -> Option<String> {
    let found = switched_on(POSTGRES);
    if found.is_none() {
        announce_not_run(&format!("{suite} with a control database on PostgreSQL, which needs {POSTGRES}"));
    }
    let url = found?;
    let (scheme, rest) = url.split_once("://").unwrap();
    Some(format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap()))
}

/// Runs something to its end on a thread of its own, from wherever it is called.
fn apart<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// A database that ends with its world.
pub struct ControlDatabase {
    server: String,
    name: String,
}

impl ControlDatabase {
    /// An empty one.
    pub fn create(server: &str) -> Self {
        Self::made(server, "")
    }

    /// A copy of this one, to which nobody may be connected.
    pub fn copied(&self) -> Self {
        Self::made(&self.server, &format!("TEMPLATE {}", self.name))
    }

    fn made(server: &str, how: &str) -> Self {
        let name = format!("wc_control_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let database = Self { server: server.to_owned(), name };
        apart(database.asked_of_server(format!("CREATE DATABASE {} {how}", database.name)));
        database
    }

    async fn asked_of_server(&self, sql: String) {
        run_at(&format!("{}/postgres", self.server), sql).await;
    }

    /// Runs statements in it.
    pub fn run(&self, sql: &str) {
        apart(run_at(bare(&self.url()), sql.to_owned()));
    }

    /// Its address, as it stands in a configuration: the private server does not flush to disk.
    pub fn url(&self) -> String {
        format!("{}/{}?fsync=off", self.server, self.name)
    }

    /// Whether anybody has, or waits for, the lock of its writers.
    pub fn is_written(&self) -> bool {
        let sql = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                   WHERE d.datname = current_database() AND l.locktype = 'advisory'";
        let url = self.url();
        apart(async {
            let mut connection = PgConnection::connect(bare(&url)).await.unwrap();
            let locks: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            locks > 0
        })
    }

    /// Where the program finds it.
    fn place(&self) -> StateLocation {
        StateLocation::Postgres(SecretText::new(self.url()))
    }
}

impl Drop for ControlDatabase {
    fn drop(&mut self) {
        apart(self.asked_of_server(format!("DROP DATABASE {} WITH (FORCE)", self.name)));
    }
}

async fn run_at(url: &str, sql: String) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The address under which the driver itself knows a database: without the parameter that only the program reads.
fn bare(url: &str) -> &str {
    url.split('?').next().unwrap()
}

async fn tables_of(connection: &mut PgConnection) -> Vec<String> {
    let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(connection).await.unwrap()
}

/// Copies every table of the control database of a world to the folder `to`, whoever works with it. Does nothing where it is a file.
pub fn keep_tables(folder: &Path, to: &Path) {
    let StateLocation::Postgres(url) = read_config(folder).agent.state else { return };
    apart(async {
        let to = to.join(TABLES);
        std::fs::create_dir_all(&to).unwrap();
        let mut connection = PgConnection::connect(bare(url.dangerous_text())).await.unwrap();
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ").execute(&mut connection).await.unwrap();
        for table in tables_of(&mut connection).await {
            let copy = format!("COPY \"{table}\" TO STDOUT (FORMAT binary)");
            let parts = connection.copy_out_raw(&copy).await.unwrap();
            let bytes = parts.try_fold(Vec::new(), async |mut all, part| {
                all.extend_from_slice(&part);
                Ok(all)
            });
            std::fs::write(to.join(table), bytes.await.unwrap()).unwrap();
        }
        connection.close().await.unwrap();
    });
}

/// A control database as it can be opened, and what ends with it.
pub struct Opened {
    pub control: Control,
    /// Into which kept tables were loaded.
    _loaded: Option<ControlDatabase>,
}

/// The control database of a world, or one that was kept in a folder.
pub async fn control_in(folder: &Path, server: Option<&str>) -> Opened {
    let kept: PathBuf = folder.join(TABLES);
    if kept.exists() {
        let database = ControlDatabase::create(server.unwrap());
        Control::create_at(&database.place(), [0; 16]).await.unwrap().close().await;
        let mut connection = PgConnection::connect(bare(&database.url())).await.unwrap();
        // Without it rows would have to come in the order of their references.
        sqlx::raw_sql("SET session_replication_role = replica").execute(&mut connection).await.unwrap();
        for table in tables_of(&mut connection).await {
            sqlx::raw_sql(AssertSqlSafe(format!("DELETE FROM \"{table}\""))).execute(&mut connection).await.unwrap();
            let mut into =
                connection.copy_in_raw(&format!("COPY \"{table}\" FROM STDIN (FORMAT binary)")).await.unwrap();
            into.send(std::fs::read(kept.join(&table)).unwrap()).await.unwrap();
            into.finish().await.unwrap();
        }
        connection.close().await.unwrap();
        return Opened { control: Control::open_at(&database.place()).await.unwrap(), _loaded: Some(database) };
    }
    let place = if folder.join("wangchuan.toml").exists() {
        read_config(folder).agent.state
    } else {
        StateLocation::Sqlite(folder.join("state/control.db"))
    };
    Opened { control: Control::open_at(&place).await.unwrap(), _loaded: None }
}
