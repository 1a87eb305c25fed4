//! Restores of a part: one customer, one collection, the state of a time.

use chrono::SecondsFormat;
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::stores::Engine;

use super::database::Database;
use super::small::{self, POLICY, store};
use super::workplace::Workplace;

const CUSTOMER: &str = "SELECT customer_id FROM customers ORDER BY customer_id";

/// Orders as the engine writes them, with their customers.
fn orders(database: &Database, condition: &str) -> Vec<String> {
    let row = match database.engine() {
        Engine::Mysql => "CAST(CONCAT_WS('|', order_id, customer_id, COALESCE(completed_at, '-'), total) AS CHAR(200))",
        _ => "order_id || '|' || customer_id || '|' || COALESCE(CAST(completed_at AS TEXT), '-') || '|' || total",
    };
    database.texts(&format!("SELECT {row} FROM orders WHERE {condition} ORDER BY order_id"))
}

fn has_table(database: &Database, table: &str) -> bool {
    let sql = match database.engine() {
        Engine::Sqlite => format!("SELECT count(*) FROM sqlite_master WHERE name = '{table}'"),
        Engine::Postgres => {
            format!("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = '{table}'")
        }
        Engine::Mysql => format!(
            "SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = database() AND TABLE_NAME = '{table}'"
        ),
    };
    database.number(&sql) > 0
}

/// An installation with a full snapshot and an increment in which an order changes hands; the time between them.
fn begun(engine: Engine) -> Option<(Workplace, Database, String)> {
    let place = Workplace::new();
    let database = Database::create(engine, place.path())?;
    small::fill(&database);
    place.configure(&format!("{}{POLICY}", store(&database.url())));
    place.install();
    place.good(&["backup", "run"]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let between = SystemClock.now().to_rfc3339_opts(SecondsFormat::Millis, true);
    database.run("UPDATE orders SET customer_id = 'c-1002' WHERE order_id = 7");
    database.run("UPDATE orders SET total = 1.25 WHERE order_id = 4");
    place.good(&["backup", "run"]);
    Some((place, database, between))
}

/// Customers are told apart, also where an order moved from one to the other.
fn one_customer(engine: Engine) {
    let Some((place, database, between)) = begun(engine) else { return };
    for id in small::CUSTOMERS {
        let target = Database::create(engine, place.path()).unwrap();
        let program = place.program().reading(&format!("{id}\n"));
        let restored = program.json(&["restore", "--subject", "-", "--to", &target.url()]).ends(0);
        assert_eq!(restored.document()["wanted"]["of"], "subject", "{restored}");
        assert!(restored.number("bytes_read") <= restored.number("bytes_stored"), "{restored}");
        assert_eq!(target.texts(CUSTOMER), [id], "{restored}");
        assert_eq!(orders(&target, "1 = 1"), orders(&database, &format!("customer_id = '{id}'")), "{restored}");
        restored.never_says(id);
    }
    // Before the order moved, it was another's.
    let target = Database::create(engine, place.path()).unwrap();
    let arguments = ["restore", "--subject", "-", "--as-of", &between, "--to", &target.url()];
    place.program().reading("c-1001\n").json(&arguments).ends(0);
    assert_eq!(orders(&target, "order_id = 7 AND customer_id = 'c-1001'").len(), 1);
    assert_eq!(orders(&target, "1 = 1").len(), 3);

    // Who asked to be erased does not come back, in grace or not; who never was is a stranger.
    place.program().reading("c-1003\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "run"]);
    let target = Database::create(engine, place.path()).unwrap();
    let arguments = ["restore", "--subject", "-", "--to", &target.url()];
    let pending = place.program().reading("c-1003\n").json(&arguments).ends(0);
    assert_eq!(target.rows("customers") + target.rows("orders"), 0, "{pending}");
    let target = Database::create(engine, place.path()).unwrap();
    let arguments = ["restore", "--subject", "-", "--to", &target.url()];
    let refused = place.program().reading("c-4711\n").json(&arguments);
    refused.refuses(2, &["customer"]).never_says("c-4711");
    assert!(!has_table(&target, "orders"));
}

/// One collection comes alone; names that are none are refused with those that are.
fn one_collection(engine: Engine) {
    let Some((place, database, between)) = begun(engine) else { return };
    let target = Database::create(engine, place.path()).unwrap();
    let restored = place.good(&["restore", "--collection", "orders", "--to", &target.url()]);
    assert_eq!(orders(&target, "1 = 1"), orders(&database, "1 = 1"));
    assert!(!has_table(&target, "customers"), "{restored}");
    assert_eq!(restored.list("collections").len(), 1, "{restored}");
    let target = Database::create(engine, place.path()).unwrap();
    place.good(&["restore", "--collection", "orders", "--as-of", &between, "--to", &target.url()]);
    assert_eq!(orders(&target, "order_id = 7 AND customer_id = 'c-1001'").len(), 1);

    let target = Database::create(engine, place.path()).unwrap();
    let unknown = place.program().json(&["restore", "--collection", "order", "--to", &target.url()]);
    unknown.refuses(2, &["order", "customers"]);
    let early = ["restore", "--as-of", "2001-01-01T00:00:00Z", "--to", &target.url()];
    place.program().json(&early).refuses(2, &["SNAPSHOT_UNKNOWN"]);
    assert!(!has_table(&target, "orders"));
}

/// Where only ranges of a pack are read, a changed byte harms only those whose frame it is in.
#[test]
fn damage_is_found_in_ranges_too() {
    const CUSTOMERS: usize = 24;
    let (place, database) = small::installed();
    let notes = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 24) \
                 INSERT INTO customers SELECT 'd-' || i, hex(randomblob(40000)), NULL FROM n";
    database.run(notes);
    place.good(&["backup", "run"]);
    let packs = std::fs::read_dir(place.file("bucket/wangchuan/packs")).unwrap();
    for pack in packs.map(|entry| entry.unwrap().path()) {
        let mut bytes = std::fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
    }
    let mut damaged = 0;
    for number in 1..=CUSTOMERS {
        let target = format!("sqlite://{number}.db");
        let arguments = ["restore", "--subject", "-", "--to", &target];
        let restored = place.program().reading(&format!("d-{number}\n")).json(&arguments);
        assert!(restored.number("bytes_read") * 4 < restored.number("bytes_stored"), "{restored}");
        let corrupt: i64 = restored.list("collections").iter().map(|row| row["corrupt"].as_i64().unwrap()).sum();
        assert_eq!(restored.code(), Some(if corrupt == 0 { 0 } else { 4 }), "{restored}");
        damaged += corrupt;
    }
    assert_eq!(damaged, 1, "one frame was changed");
}

macro_rules! on {
    ($($module:ident $engine:expr),*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn one_customer_comes_back_alone() {
                one_customer($engine);
            }

            #[test]
            fn one_collection_comes_back_alone() {
                one_collection($engine);
            }
        }
    )*};
}

on!(sqlite Engine::Sqlite, postgres Engine::Postgres, mariadb Engine::Mysql);
