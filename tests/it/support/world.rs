//! A small company in a folder: a sample shop in SQLite, an installation with embedded bucket and audit service, and a
//! clock that the test sets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, Connection, Row as _, SqliteConnection};
use wangchuan::clock::Clock;
use wangchuan::config::{Configuration, load};
use wangchuan::control::{RunRow, SnapshotRow};
use wangchuan::erase::planner::StoredPlan;
use wangchuan::installation::{Installation, Needs};
use wangchuan::plan::Subject;
use wangchuan::policy::registry::SecretText;
use wangchuan::quickstart::shop::{Settings, Shop};
use wangchuan::random::SystemRandom;
use wangchuan::stores::{self, DataStore, Engine, Limits, StoreAddress};
use wangchuan::tasks::backup::{Wanted, take_snapshot};
use wangchuan::tasks::erasure::{RunBody, execute, plan_retention};
use wangchuan::tasks::read_chain::{VersionSink, Versions};
use wangchuan::tasks::read_snapshot::RowSink;
use wangchuan::tasks::request::{plan_request, receive};
use wangchuan::tasks::restore::{RestoreReport, restore_snapshot};
use wangchuan::tasks::{Result, TaskError};
use wangchuan::value::Row;

use super::control_database::ControlDatabase;

/// The tables of the shop that are registered, children before parents.
pub const TABLES: [&str; 5] = ["order_lines", "newsletter", "complaints", "orders", "customers"];

/// The first instant of every world.
pub fn dawn() -> DateTime<Utc> {
    "2026-03-15T02:00:00Z".parse().unwrap()
}

/// A clock that only moves when it is told to.
pub struct ManualClock(Mutex<DateTime<Utc>>);

impl ManualClock {
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }
}

/// How a world is made.
#[derive(Clone)]
pub struct Making {
    pub customers: u32,
    pub grace: &'static str,
    pub bucket: &'static str,
    pub max_percent: u32,
    pub audit: String,
    /// The lines of `[root]`.
    pub root: String,
    /// The PostgreSQL server on which the control database is to lie; in a file when there is none.
    pub server: Option<String>,
}

/// A root slot in a file.
pub const FILE_ROOT: &str = "kind = \"file\"\npath = \"root\"\naccept_host_loss = true";

impl Default for Making {
    fn default() -> Self {
        let audit = "url = \"embedded\"\ndata = \"audit\"".to_owned();
        let root = FILE_ROOT.to_owned();
        Self { customers: 120, grace: "0", bucket: "quarter", max_percent: 95, audit, root, server: None }
    }
}

/// The folder, what is in it, and its time.
pub struct World {
    pub folder: tempfile::TempDir,
    pub shop: Shop,
    pub clock: Arc<ManualClock>,
    /// The control database, where it is no file in the folder.
    pub control: Option<ControlDatabase>,
}

/// The line that says where the control database is.
const STATE: &str = "state = \"sqlite://state/control.db\"";

impl World {
    /// A world with a loaded shop and a new installation.
    pub async fn make(making: Making) -> Self {
        let shop =
            Shop::generate(&Settings { engine: Engine::Sqlite, customers: making.customers, now: dawn(), seed: 7 });
        let control = making.server.as_deref().map(ControlDatabase::create);
        let world = Self { folder: tempfile::tempdir().unwrap(), shop, clock: manual_clock(), control };
        std::fs::create_dir(world.path("jobs")).unwrap();
        std::fs::write(world.path("wangchuan.toml"), configuration(&making)).unwrap();
        if let Some(control) = &world.control {
            world.edit_config(STATE, &format!("state = \"{}\"", control.url()));
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(world.path("wangchuan.toml"), private).unwrap();
        let tables: Vec<_> = world.shop.iter().map(|(table, rows)| (table.clone(), rows.to_vec())).collect();
        world.fill("shop.db", &tables).await;
        Installation::create(&world.config(), world.clock.clone(), Arc::new(SystemRandom)).await.unwrap();
        world
    }

    pub async fn standard() -> Self {
        Self::make(Making::default()).await
    }

    /// A copy of the whole folder at this moment, as a thief or a restored host would have it; with a control database on a server,
    /// to which nobody is connected then, a copy of that as well.
    pub fn copied(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), folder.path());
        let settings = Settings {
            engine: Engine::Sqlite,
            customers: self.shop.rows_of("customers").len() as u32,
            now: dawn(),
            seed: 7,
        };
        let control = self.control.as_ref().map(ControlDatabase::copied);
        let copy = Self { folder, shop: Shop::generate(&settings), clock: manual_clock_at(self.clock.now()), control };
        if let (Some(old), Some(new)) = (&self.control, &copy.control) {
            copy.edit_config(&old.url(), &new.url());
        }
        copy
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Loads rows into a database file of the world through the store adapter.
    pub async fn fill(&self, file: &str, tables: &[(stores::Table, Vec<wangchuan::value::Row>)]) {
        let store = self.store(file);
        let schema: Vec<_> = tables.iter().map(|(table, _)| table.clone()).collect();
        let (mut into, _) = store.begin_restore(&schema).await.unwrap();
        for (table, rows) in tables {
            let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
            for page in rows.chunks(500) {
                into.insert(&table.name, &columns, page).await.unwrap();
            }
        }
        assert_eq!(into.finish(false).await.unwrap(), Vec::<String>::new());
        store.settle(&stores::Settling::default()).await.unwrap();
    }

    /// An adapter on a database file of the world, made when it is missing.
    pub fn store(&self, file: &str) -> Arc<dyn DataStore> {
        stores::open(&StoreAddress {
            name: "shop".to_owned(),
            url: SecretText::new(format!("sqlite://{file}")),
            read_url: None,
            base: self.folder.path().to_owned(),
            create: true,
            limits: Limits::default(),
        })
        .unwrap()
    }

    pub fn config(&self) -> Configuration {
        read_config(self.folder.path())
    }

    /// Replaces a text in the configuration file, which must be there.
    pub fn edit_config(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("wangchuan.toml")).unwrap();
        assert!(text.contains(from), "the configuration does not hold {from}");
        std::fs::write(self.path("wangchuan.toml"), text.replace(from, to)).unwrap();
    }

    pub async fn open(&self) -> Installation {
        self.try_open().await.unwrap()
    }

    pub async fn try_open(&self) -> Result<Installation> {
        Installation::open(self.config(), Needs::ALL, self.clock.clone(), Arc::new(SystemRandom)).await
    }

    /// Only the state, as a command that reads has it: beside any other process, without lease or bucket.
    pub async fn open_state(&self) -> Installation {
        Installation::open(self.config(), Needs::STATE, self.clock.clone(), Arc::new(SystemRandom)).await.unwrap()
    }

    /// Statements on the shop, outside of the code under test.
    pub async fn run_sql(&self, sql: &str) {
        self.run_sql_in("shop.db", sql).await;
    }

    /// Statements on a database file, outside of the code under test.
    pub async fn run_sql_in(&self, file: &str, sql: &str) {
        let mut connection = self.connect(file).await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Statements on the control database, outside of the code under test.
    pub async fn run_sql_in_control(&self, sql: &str) {
        match &self.control {
            Some(control) => control.run(sql),
            None => self.run_sql_in("state/control.db", sql).await,
        }
    }

    /// Whether a transaction that writes to the control database is open, or waits.
    pub async fn control_is_written(&self) -> bool {
        // What was sent already arrives.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let Some(control) = &self.control else {
            let mut connection = self.connect("state/control.db").await;
            let begun =
                sqlx::raw_sql("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE; ROLLBACK").execute(&mut connection).await;
            connection.close().await.unwrap();
            return begun.is_err();
        };
        control.is_written()
    }

    /// The one number that a query on a database file returns, asked outside of the code under test.
    pub async fn number(&self, file: &str, sql: &str) -> i64 {
        let mut connection = self.connect(file).await;
        let found = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        found
    }

    /// Every row of a table as SQL literals in key order, read outside of the code under test.
    pub async fn dump(&self, file: &str, table: &str) -> Vec<String> {
        let quoted: Vec<String> = self.shop.columns_of(table).iter().map(|name| format!("quote({name})")).collect();
        let text = format!("SELECT {} FROM {table} ORDER BY 1", quoted.join(" || ',' || "));
        let mut connection = self.connect(file).await;
        let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Dumps of all registered tables.
    pub async fn dump_all(&self, file: &str) -> Vec<(String, Vec<String>)> {
        let mut all = Vec::new();
        for table in TABLES {
            all.push((table.to_owned(), self.dump(file, table).await));
        }
        all
    }

    async fn connect(&self, file: &str) -> SqliteConnection {
        SqliteConnection::connect(&format!("sqlite://{}", self.path(file).display())).await.unwrap()
    }
}

/// A world's configuration, read as the program reads it.
pub fn read_config(folder: &Path) -> Configuration {
    load(&folder.join("wangchuan.toml"), &|_| None).unwrap()
}

/// A clock that stands at the first instant.
pub fn manual_clock() -> Arc<ManualClock> {
    manual_clock_at(dawn())
}

pub fn manual_clock_at(now: DateTime<Utc>) -> Arc<ManualClock> {
    Arc::new(ManualClock(Mutex::new(now)))
}

/// Copies a folder with everything in it, modes included.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn configuration(making: &Making) -> String {
    let policy = |id: &str, table: &str, retention: &str, start: &str, more: &str| {
        format!(
            "[[policy]]\nid = \"{id}\"\ncollections = [\"{table}\"]\nretention = \"{retention}\"\nstart = \"{start}\"\n\
             action = \"delete\"\nbasis = \"contract\"\n{more}grace = \"{}\"\nbucket = \"{}\"\n\
             max = {{ rows = 100000, percent = {} }}\n\n",
            making.grace, making.bucket, making.max_percent
        )
    };
    let mut text = HEAD.replace("AUDIT", &making.audit).replace("ROOT", &making.root);
    text.push_str(&policy("completed-orders", "orders", "3 years", "completed_at", "statutes = [\"cn.ecl.31\"]\n"));
    text.push_str(&policy("closed-accounts", "customers", "3 years", "closed_at", ""));
    text.push_str(&policy("closed-complaints", "complaints", "3 years", "closed_at", ""));
    text.push_str(&policy("left-newsletter", "newsletter", "1 year", "unsubscribed_at", ""));
    text
}

const HEAD: &str = r#"[agent]
name = "cycle-test"
timezone = "Asia/Shanghai"
state = "sqlite://state/control.db"
jobs = "jobs"
site = "here"

[root]
ROOT

[backup]
endpoint = "embedded"
data = "bucket"
bucket = "wangchuan"

[audit]
AUDIT

[[store]]
name = "shop"
url = "sqlite://shop.db"
owner = "order department"
purpose = "payment"
site = "here"

[[store.collection]]
table = "customers"
subject = "customer_id"
fields.name = { kind = "name" }
fields.id_card = { kind = "id_card" }
fields.mobile = { kind = "mobile" }
fields.bank_card = { kind = "bank_card" }
fields.email = { kind = "email" }
fields.address = { kind = "address" }
fields.birth_date = { kind = "birth_date" }

[[store.collection]]
table = "orders"
subject = "customer_id"
fields.shipping_address = { kind = "address" }

[[store.collection]]
table = "order_lines"
via = ["order_id -> orders"]

[[store.collection]]
table = "complaints"
subject = "customer_id"
fields.body = { kind = "complaint" }

[[store.collection]]
table = "newsletter"
subject = "customer_id"
fields.email = { kind = "email" }

"#;

/// Takes a full snapshot of the shop.
pub async fn snapshot(installation: &Installation) -> SnapshotRow {
    try_snapshot(installation).await.unwrap()
}

pub async fn try_snapshot(installation: &Installation) -> Result<SnapshotRow> {
    try_take(installation, Wanted::Full).await
}

/// Takes what changed in the shop since its newest snapshot, where that is possible.
pub async fn increment(installation: &Installation) -> SnapshotRow {
    try_take(installation, Wanted::increment(&installation.config)).await.unwrap()
}

pub async fn try_take(installation: &Installation, wanted: Wanted) -> Result<SnapshotRow> {
    let repository = installation.backup()?.repository.clone();
    take_snapshot(&installation.ground()?, repository.as_ref(), &installation.signer, "shop", wanted).await
}

/// Lets time pass that the program does not believe by itself; an operator confirms the clock.
pub async fn pass_time(world: &World, installation: &Installation, by: TimeDelta) {
    world.clock.advance(by);
    installation.confirm_clock().await.unwrap();
}

/// Plans retention and carries it out.
pub async fn retain(installation: &Installation) -> RunRow {
    let plan = plan_retention(installation).await.unwrap();
    execute(installation, &plan.row).await.unwrap()
}

/// Receives a request, plans it and carries it out. One that waits is asked again.
pub async fn forget(installation: &Installation, id: &str) -> RunRow {
    let plan = plan_for(installation, id).await;
    execute(installation, &plan.row).await.unwrap()
}

/// Receives a request, or asks again for the one that waits, and plans it now.
pub async fn plan_for(installation: &Installation, id: &str) -> StoredPlan {
    let number = receive(installation, &Subject::new(id)).await.unwrap().request.number;
    plan_request(installation, number).await.unwrap()
}

/// The counts of a run, which must add up.
pub fn body(run: &RunRow) -> RunBody {
    let body = RunBody::of(run).unwrap();
    assert_eq!(body.due, body.gone() + body.kept + body.failed, "{body:?}");
    assert_eq!(body.residual, 0, "{body:?}");
    body
}

/// A run as it is stored now.
pub async fn run_now(installation: &Installation, id: &str) -> RunRow {
    installation.control.read().await.unwrap().run(id).await.unwrap().unwrap()
}

/// Restores a snapshot into a database file of the world.
pub async fn restore(
    world: &World,
    installation: &Installation,
    row: &SnapshotRow,
    file: &str,
) -> Result<RestoreReport> {
    let repository = installation.backup()?.repository.clone();
    let store = world.store(file);
    let (ground, signer) = (installation.ground()?, &installation.signer);
    let report = restore_snapshot(&ground, repository.as_ref(), signer, row.clone(), store.as_ref()).await?;
    store.settle(&stores::Settling::default()).await?;
    Ok(report)
}

/// The words of a refusal; anything else fails the test.
pub fn refusal<T>(result: Result<T>) -> String {
    match result {
        Err(TaskError::Refused { what, .. } | TaskError::Erase(wangchuan::erase::EraseError::Refused { what, .. })) => {
            what
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Rows of a snapshot, or those that count in its chain, that open, by collection number.
#[derive(Default)]
pub struct OpenRows(pub BTreeMap<u32, Vec<Row>>);

#[async_trait::async_trait]
impl RowSink for OpenRows {
    async fn take(&mut self, collection: u32, _: &[u16], rows: Vec<Row>) -> Result<()> {
        self.0.entry(collection).or_default().extend(rows);
        Ok(())
    }
}

#[async_trait::async_trait]
impl VersionSink for OpenRows {
    async fn take(&mut self, versions: Versions<'_>) -> Result<()> {
        let rows = versions.rows.into_iter().map(|(_, row)| row);
        self.0.entry(versions.collection).or_default().extend(rows);
        Ok(())
    }
}
