//! A folder with one small SQLite store of the test's own making, and an installation without backups.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use wangchuan::clock::SystemClock;
use wangchuan::config::{Configuration, load};
use wangchuan::control::{HoldRow, RunRow};
use wangchuan::installation::{Installation, Needs};
use wangchuan::plan::Subject;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::TaskError;
use wangchuan::tasks::erasure::{RunBody, execute, plan_retention};
use wangchuan::tasks::request::{plan_request, receive};

const HEAD: &str = r#"[agent]
name = "erase-test"
timezone = "Asia/Shanghai"
state = "sqlite://state/control.db"
jobs = "jobs"
site = "here"

[root]
kind = "file"
path = "root"
accept_host_loss = true

[audit]
url = "embedded"
data = "audit"

[[store]]
name = "shop"
url = "sqlite://shop.db"
owner = "order department"
purpose = "payment"
site = "here"
backup = "none"

"#;

/// A collection whose rows are due a year after `ended`.
pub fn governed(table: &str, more: &str) -> String {
    format!(
        "[[store.collection]]\ntable = \"{table}\"\n{more}\n\n[[policy]]\nid = \"{table}-rule\"\ncollections = [\"{table}\"]\n\
         retention = \"1 year\"\nstart = \"ended\"\naction = \"delete\"\nbasis = \"contract\"\ngrace = \"0\"\n\
         max = {{ rows = 100000, percent = 100 }}\n\n"
    )
}

/// The folder of one test.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A store made by `sql` and registered by `collections`.
    pub async fn make(sql: &str, collections: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(place.path("shop.db"), []).unwrap();
        place.sql(sql).await;
        place.found("sqlite://shop.db", collections).await;
        place
    }

    /// An installation for a store that is there already.
    pub async fn make_for(url: &str, collections: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.found(url, collections).await;
        place
    }

    async fn found(&self, url: &str, collections: &str) {
        let place = self;
        std::fs::create_dir(place.path("jobs")).unwrap();
        // Collections belong to the store above them, so every policy stands behind the last one.
        let (mut stores, mut policies) = (HEAD.replace("sqlite://shop.db", url), String::new());
        for part in collections.split("\n\n").filter(|part| !part.trim().is_empty()) {
            let target = if part.trim_start().starts_with("[[policy]]") { &mut policies } else { &mut stores };
            target.push_str(part);
            target.push_str("\n\n");
        }
        std::fs::write(place.path("wangchuan.toml"), stores + &policies).unwrap();
        Installation::create(&place.config(), Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> Configuration {
        load(&self.path("wangchuan.toml"), &|_| None).unwrap()
    }

    /// Replaces a text in the configuration file, which must be there.
    pub fn edit_config(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("wangchuan.toml")).unwrap();
        assert!(text.contains(from), "the configuration does not hold {from}");
        std::fs::write(self.path("wangchuan.toml"), text.replace(from, to)).unwrap();
    }

    pub async fn open(&self) -> Installation {
        Installation::open(self.config(), Needs::ALL, Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap()
    }

    /// Opens it as a command does that works side by side with the agent.
    pub async fn open_beside(&self) -> Installation {
        let needs = Needs { stores: true, ..Needs::STATE };
        Installation::open(self.config(), needs, Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap()
    }

    /// Statements on the store, outside of the code under test.
    pub async fn sql(&self, sql: &str) {
        self.sql_in("shop.db", sql).await;
    }

    pub async fn sql_in(&self, file: &str, sql: &str) {
        let mut connection = self.connect(file).await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// The one text that a query on the store returns, asked outside of the code under test.
    pub async fn ask(&self, sql: &str) -> String {
        self.ask_in("shop.db", sql).await
    }

    pub async fn ask_in(&self, file: &str, sql: &str) -> String {
        let mut connection = self.connect(file).await;
        let text = format!("SELECT coalesce(CAST(({sql}) AS TEXT), '')");
        let found = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        found
    }

    async fn connect(&self, file: &str) -> SqliteConnection {
        SqliteConnection::connect(&format!("sqlite://{}", self.path(file).display())).await.unwrap()
    }
}

/// Plans retention and carries it out.
pub async fn retain(installation: &Installation) -> RunRow {
    let plan = plan_retention(installation).await.unwrap();
    execute(installation, &plan.row).await.unwrap()
}

/// Receives a request, plans it and carries it out.
pub async fn forget(installation: &Installation, id: &str) -> RunRow {
    let received = receive(installation, &Subject::new(id)).await.unwrap();
    let plan = plan_request(installation, received.request.number).await.unwrap();
    execute(installation, &plan.row).await.unwrap()
}

/// What became of a run's rows: due, erased, stripped, kept, failed. They must add up.
pub fn counts(run: &RunRow) -> [i64; 5] {
    let body = RunBody::of(run).unwrap();
    assert_eq!(body.due, body.gone() + body.kept + body.failed, "{body:?}");
    [body.due, body.erased, body.stripped, body.kept, body.failed]
}

/// Rows that a run anonymised.
pub fn anonymised(run: &RunRow) -> i64 {
    RunBody::of(run).unwrap().anonymised
}

/// The words of a refusal; anything else fails the test.
pub fn refusal<T>(result: Result<T, TaskError>) -> String {
    match result {
        Err(TaskError::Refused { what, .. } | TaskError::Erase(wangchuan::erase::EraseError::Refused { what, .. })) => {
            what
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

/// A hold on a subject, as somebody places it.
pub fn hold_row(id: &str, placed_at: DateTime<Utc>) -> HoldRow {
    HoldRow {
        id: id.to_owned(),
        scope: "subject".to_owned(),
        store: None,
        collection: None,
        subject: None,
        reason: "lawsuit".to_owned(),
        placed_at,
        placed_by: "tester".to_owned(),
        released_at: None,
    }
}
