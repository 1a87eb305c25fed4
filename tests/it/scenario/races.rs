//! What somebody else commits while a DELETE waits for their lock: children that come, and rows that are renewed through their parents.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use wangchuan::stores::Engine;

use super::database::Database;
use super::workplace::Workplace;

/// Long enough for a busy host.
const SOON: Duration = Duration::from_mins(1);

/// Customers who are due, and visits that go with them.
const GUESTS: &str = "CREATE TABLE guests (id INTEGER NOT NULL PRIMARY KEY, left_at TIMESTAMP NULL)";
const VISITS: &str = "CREATE TABLE visits (id INTEGER NOT NULL PRIMARY KEY, guest INTEGER NOT NULL, \
     FOREIGN KEY (guest) REFERENCES guests (id) ON DELETE CASCADE)";

/// A contract that ended, and its lines, whose time counts from its end.
const CONTRACTS: &str = "CREATE TABLE contracts (id INTEGER NOT NULL PRIMARY KEY, ended_at TIMESTAMP NULL)";
const LINES: &str = "CREATE TABLE contract_lines (id INTEGER NOT NULL PRIMARY KEY, contract INTEGER NOT NULL, note VARCHAR(20), \
     FOREIGN KEY (contract) REFERENCES contracts (id))";

fn store(url: &str, collections: &str, policy: &str) -> String {
    format!(
        "[[store]]\nname = \"shop\"\nurl = \"{url}\"\nbackup = \"none\"\nbudget = {{ lock_ms = 20000 }}\n{collections}\n[[policy]]\n{policy}\n\
         retention = \"3 years\"\naction = \"delete\"\nbasis = \"contract\"\ngrace = \"0\"\nmax = {{ rows = 1000, percent = 100 }}\n"
    )
}

fn collection(table: &str, more: &str) -> String {
    format!("\n[[store.collection]]\ntable = \"{table}\"\n{more}\n")
}

/// A transaction of somebody else's, open with what it changed.
enum Other {
    Postgres(PgConnection),
    Mysql(MySqlConnection),
}

impl Other {
    async fn begun(database: &Database, changes: &[&str]) -> Self {
        let mut other = match database.engine() {
            Engine::Mysql => Self::Mysql(MySqlConnection::connect(&database.url()).await.unwrap()),
            _ => Self::Postgres(PgConnection::connect(&database.url()).await.unwrap()),
        };
        for change in ["BEGIN"].iter().chain(changes) {
            other.run(change).await;
        }
        other
    }

    async fn run(&mut self, sql: &str) {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Postgres(connection) => connection.execute(query).await.map(drop),
            Self::Mysql(connection) => connection.execute(query).await.map(drop),
        }
        .unwrap();
    }
}

/// Sessions that wait for a lock in this database.
fn waiting(database: &Database) -> i64 {
    database.number(match database.engine() {
        Engine::Mysql => "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
        _ => "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    })
}

/// Carries out what is planned now, while somebody changes something that they commit only when the program waits for it.
fn erase_beside(place: &Workplace, database: &Database, changes: &[&str]) {
    let plan = place.plan();
    assert!(plan.number("due") > 0, "{plan}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut other = runtime.block_on(Other::begun(database, changes));
    let erasing = place.program().start(&["erase", "--plan", &plan.text("hash"), "--json"]);
    let began = Instant::now();
    while waiting(database) == 0 {
        assert!(began.elapsed() < SOON, "nobody waits: {:?}", erasing.said());
        // MariaDB shows anew only what nobody asked for in the last tenth of a second.
        std::thread::sleep(Duration::from_millis(300));
    }
    runtime.block_on(other.run("COMMIT"));
    let (code, said) = erasing.end(SOON);
    assert!(matches!(code, Some(0 | 4)), "{said}");
}

fn a_child_comes(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    for sql in [GUESTS, VISITS, "INSERT INTO guests VALUES (1, '2015-01-01'), (2, '2015-01-01'), (3, '2015-01-01')"] {
        database.run(sql);
    }
    let collections = collection("guests", "subject = \"id\"") + &collection("visits", "subject = \"guest\"");
    let policy = "id = \"guests\"\ncollections = [\"guests\"]\nstart = \"left_at\"";
    place.configure(&store(&database.url(), &collections, policy));
    place.install();
    erase_beside(&place, &database, &["INSERT INTO visits VALUES (1, 2)"]);
    assert_eq!(database.rows("visits"), 1, "the visit went with its guest, unplanned");
    assert_eq!(database.rows_where("guests", "id = 2"), 1, "the visit's guest is gone");
}

fn a_row_is_renewed_through_its_parent(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    for sql in [
        CONTRACTS,
        LINES,
        "INSERT INTO contracts VALUES (1, '2015-01-01'), (2, '2015-01-01')",
        "INSERT INTO contract_lines VALUES (1, 1, 'a'), (2, 2, 'b')",
    ] {
        database.run(sql);
    }
    let collections = collection("contracts", "subject = \"id\"")
        + &collection("contract_lines", "via = [\"contract -> contracts\"]");
    let policy = "id = \"contracts\"\ncollections = [\"contracts\"]\nstart = \"ended_at\"";
    place.configure(&store(&database.url(), &collections, policy));
    place.install();
    let renewed =
        ["UPDATE contracts SET ended_at = NULL WHERE id = 2", "UPDATE contract_lines SET note = 'c' WHERE id = 2"];
    erase_beside(&place, &database, &renewed);
    assert_eq!(database.rows_where("contract_lines", "id = 2"), 1, "the line of a contract that goes on again is gone");
    assert_eq!(database.rows_where("contract_lines", "id = 1"), 0);
}

#[test]
fn a_child_that_comes_while_its_parent_is_waited_for_stays_on_postgres() {
    a_child_comes(Engine::Postgres);
}

#[test]
fn a_child_that_comes_while_its_parent_is_waited_for_stays_on_mariadb() {
    a_child_comes(Engine::Mysql);
}

#[test]
fn a_row_that_is_renewed_through_its_parent_stays_on_postgres() {
    a_row_is_renewed_through_its_parent(Engine::Postgres);
}

#[test]
fn a_row_that_is_renewed_through_its_parent_stays_on_mariadb() {
    a_row_is_renewed_through_its_parent(Engine::Mysql);
}
