//! Increments of every engine: a life of changes, each point restored into a database of its own and compared row by row.

use wangchuan::stores::Engine;

use super::database::Database;
use super::small::{self, POLICY, store};
use super::workplace::Workplace;

/// Changes between two snapshots, in statements that every engine takes.
const CHANGES: [&[&str]; 9] = [
    // Nothing at all.
    &[],
    &["INSERT INTO orders VALUES (101, 'c-1001', '2025-02-01 08:00:00', 7.25), (102, 'c-1002', NULL, 0.10)"],
    &["UPDATE orders SET total = 7.26 WHERE order_id = 101", "DELETE FROM orders WHERE order_id = 102"],
    // Another owner, another period; a value that only the key tells from before.
    &["UPDATE orders SET customer_id = 'c-1003' WHERE order_id = 101"],
    &["UPDATE orders SET completed_at = '2024-12-31 23:59:59' WHERE order_id = 101"],
    // All out and in again under the same keys, then all renumbered.
    &[
        "CREATE TABLE kept AS SELECT * FROM orders",
        "DELETE FROM orders",
        "INSERT INTO orders SELECT * FROM kept",
        "DROP TABLE kept",
    ],
    &["UPDATE orders SET order_id = order_id + 1000"],
    // A key that another row had.
    &["UPDATE orders SET order_id = 5 WHERE order_id = 1006"],
    // Everything that refers to a customer, and the customer.
    &["DELETE FROM orders WHERE customer_id = 'c-1002'", "DELETE FROM customers WHERE customer_id = 'c-1002'"],
];
/// Rows that each of the changes makes an increment seal.
const SEALED: [i64; 9] = [0, 2, 1, 1, 1, 0, 9, 1, 0];

/// All rows, as the engine itself writes them.
fn rows(database: &Database) -> Vec<String> {
    let (order, customer) = match database.engine() {
        Engine::Mysql => (
            "CAST(CONCAT_WS('|', order_id, customer_id, COALESCE(completed_at, '-'), total) AS CHAR(200))",
            "CAST(CONCAT_WS('|', customer_id, name, COALESCE(email, '-')) AS CHAR(200))",
        ),
        _ => (
            "order_id || '|' || customer_id || '|' || COALESCE(CAST(completed_at AS TEXT), '-') || '|' || total",
            "customer_id || '|' || name || '|' || COALESCE(email, '-')",
        ),
    };
    let mut found = database.texts(&format!("SELECT {order} FROM orders"));
    found.extend(database.texts(&format!("SELECT {customer} FROM customers")));
    found.sort();
    found
}

/// A backup, with what the store held.
struct Point {
    snapshot: String,
    rows: Vec<String>,
}

fn take(place: &Workplace, database: &Database, kind: &str, sealed: Option<i64>) -> Point {
    let taken = place.good(&["backup", "run"]);
    let entry = &taken.list("snapshots")[0];
    let rows = rows(database);
    assert_eq!(entry["kind"], kind, "{taken}");
    assert_eq!(entry["living_rows"].as_i64(), Some(rows.len() as i64), "{taken}");
    assert!(sealed.is_none_or(|sealed| entry["rows"].as_i64() == Some(sealed)), "{sealed:?} rows expected: {taken}");
    Point { snapshot: entry["snapshot"].as_str().unwrap().to_owned(), rows }
}

fn every_point(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    small::fill(&database);
    place.configure(&format!("{}{POLICY}", store(&database.url())));
    place.install();
    let mut points = vec![take(&place, &database, "full", None)];
    for (changes, sealed) in CHANGES.into_iter().zip(SEALED) {
        for sql in changes {
            database.run(sql);
        }
        points.push(take(&place, &database, "incremental", Some(sealed)));
    }
    // Erasure, with an increment as its barrier.
    let erased = place.good(&["erase", "--plan", &place.plan().text("hash")]).number("erased");
    assert!(erased > 0);
    let last = take(&place, &database, "incremental", Some(0));
    place.good(&["job", "run", "shred"]);
    place.good(&["backup", "verify"]);
    let gone: Vec<&String> = points[points.len() - 1].rows.iter().filter(|row| !last.rows.contains(row)).collect();
    assert_eq!(gone.len() as i64, erased);
    // Rows of the periods that were erased share their keys: of what is older only the newest points are whole.
    for point in points[points.len() - 1..].iter().chain([&last]) {
        let target = Database::create(engine, place.path()).unwrap();
        place.good(&["restore", &point.snapshot[..12], "--to", &target.url()]);
        assert_eq!(rows(&target), last.rows, "{}", point.snapshot);
    }
    // The tables are others now.
    database.run("ALTER TABLE orders ADD COLUMN note VARCHAR(10)");
    let full = place.good(&["backup", "run"]);
    assert_eq!(full.list("snapshots")[0]["why_full"], "schema-changed", "{full}");
}

/// The same changes without an erasure: every point comes back as it was.
fn exactly(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    small::fill(&database);
    place.configure(&store(&database.url()));
    place.install();
    let mut points = vec![take(&place, &database, "full", None)];
    for changes in CHANGES {
        for sql in changes {
            database.run(sql);
        }
        points.push(take(&place, &database, "incremental", None));
    }
    for point in &points {
        let target = Database::create(engine, place.path()).unwrap();
        place.good(&["restore", &point.snapshot[..12], "--to", &target.url()]);
        assert_eq!(rows(&target), point.rows, "{}", point.snapshot);
    }
}

macro_rules! on {
    ($($module:ident $engine:expr),*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn every_point_of_a_life_comes_back_as_it_was() {
                exactly($engine);
            }

            #[test]
            fn an_increment_is_a_barrier_and_what_was_erased_stays_away() {
                every_point($engine);
            }
        }
    )*};
}

on!(sqlite Engine::Sqlite, postgres Engine::Postgres, mariadb Engine::Mysql);
