//! The smallest shop that shows everything: three customers, eight orders, four of them long over.

use chrono::TimeDelta;
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::stores::Engine;

use super::database::Database;
use super::workplace::Workplace;

/// Orders that are due under [`POLICY`].
pub const DUE: i64 = 4;
/// All orders.
pub const ORDERS: i64 = 8;
/// The customers' ids; what identifies them is `Zhang Canary`, `Li Canary`, `Wang Canary`.
pub const CUSTOMERS: [&str; 3] = ["c-1001", "c-1002", "c-1003"];

/// A policy under which [`DUE`] orders are due.
pub const POLICY: &str = r#"
[[policy]]
id = "old-orders"
collections = ["orders"]
retention = "3 years"
start = "completed_at"
action = "delete"
basis = "contract"
grace = "0"
max = { rows = 1000, percent = 100 }
"#;

/// Makes the tables and their rows.
pub fn fill(database: &Database) {
    let (time, options) = match database.engine() {
        Engine::Sqlite => ("TEXT", ""),
        Engine::Postgres => ("TIMESTAMP", ""),
        Engine::Mysql => ("DATETIME", " ENGINE=InnoDB"),
    };
    database.run(&format!(
        "CREATE TABLE customers (customer_id VARCHAR(20) NOT NULL PRIMARY KEY, name VARCHAR(40) NOT NULL, email VARCHAR(60)){options};
         CREATE TABLE orders (order_id INTEGER NOT NULL PRIMARY KEY, customer_id VARCHAR(20) NOT NULL, completed_at {time},
             total NUMERIC(10,2) NOT NULL, FOREIGN KEY (customer_id) REFERENCES customers (customer_id)){options};
         CREATE TABLE audit_trail (what VARCHAR(40)){options};
         INSERT INTO customers VALUES ('c-1001', 'Zhang Canary', 'zhang@canary.example'),
             ('c-1002', 'Li Canary', 'li@canary.example'), ('c-1003', 'Wang Canary', 'wang@canary.example');"
    ));
    let recent = (SystemClock.now() - TimeDelta::days(30)).format("%F %T").to_string();
    let times = ["2015-03-01 09:00:00", "2016-07-20 12:30:00", "2017-11-11 23:59:59", "2018-02-28 00:00:00"];
    for (at, time) in times.into_iter().chain([recent.as_str(); 4]).enumerate() {
        let customer = CUSTOMERS[at % CUSTOMERS.len()];
        database.run(&format!("INSERT INTO orders VALUES ({}, '{customer}', '{time}', {}.50)", at + 1, at + 10));
    }
}

/// The store of this database at this address.
pub fn store(url: &str) -> String {
    format!(
        r#"
[[store]]
name = "shop"
url = "{url}"

[[store.collection]]
table = "customers"
subject = "customer_id"
fields.name = {{ kind = "name" }}
fields.email = {{ kind = "email" }}

[[store.collection]]
table = "orders"
subject = "customer_id"
"#
    )
}

/// An installation over a new SQLite shop.
pub fn installed() -> (Workplace, Database) {
    let (place, database) = prepared();
    place.install();
    (place, database)
}

/// The same before `init`.
pub fn prepared() -> (Workplace, Database) {
    let place = Workplace::new();
    let database = Database::create(Engine::Sqlite, place.path()).unwrap();
    fill(&database);
    place.configure(&format!("{}{POLICY}", store(&database.url())));
    (place, database)
}

/// The whole cycle must go through now: backup, plan, erase, backup, shred, valid certificates.
#[track_caller]
pub fn goes_through(place: &Workplace, database: &Database) {
    place.good(&["backup", "run"]);
    let plan = place.plan();
    assert_eq!(plan.number("due"), DUE, "{plan}");
    let erased = place.good(&["erase", "--plan", &plan.text("hash")]);
    assert_eq!(erased.number("erased"), DUE, "{erased}");
    assert_eq!(database.rows("orders"), ORDERS - DUE);
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "shred"]);
    place.good(&["job", "run", "outbox"]);
    assert!(place.verify_certificates() > 0);
}

/// Retention must go through now, except for the due orders of one customer, who is on hold.
#[track_caller]
pub fn goes_through_under_hold(place: &Workplace, database: &Database, held: &str) {
    let of_held = format!("customer_id = '{held}'");
    let before = database.rows_where("orders", &of_held);
    let plan = place.plan();
    assert_eq!(plan.number("due"), DUE, "{plan}");
    assert_eq!(plan.number("kept"), 1, "{plan}");
    let erased = place.good(&["erase", "--plan", &plan.text("hash")]);
    assert_eq!((erased.number("erased"), erased.number("kept")), (DUE - 1, 1), "{erased}");
    assert_eq!(database.rows_where("orders", &of_held), before, "a held order is gone");
}

/// Nothing was destroyed.
#[track_caller]
pub fn is_untouched(database: &Database) {
    assert_eq!(database.rows("orders"), ORDERS);
    assert_eq!(database.rows("customers"), CUSTOMERS.len() as i64);
}
