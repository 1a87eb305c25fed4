//! The shop of a life in a database of one of the engines: what stands in it is read, and written, in plain SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use wangchuan::policy::registry::SecretText;
use wangchuan::quickstart::shop::{Settings, Shop};
use wangchuan::stores::{DataStore, Engine, Limits, Settling, StoreAddress, open};

use crate::scenario::database::Database;
use crate::support::world::{TABLES, dawn};

/// A row's table and key.
pub type Name = (String, String);
/// Rows as SQL literals, key first.
pub type Rows = BTreeMap<Name, Vec<String>>;

/// Stands between the values of a dumped row.
const BETWEEN: char = '\u{1f}';

/// The login of a life on MariaDB, for which alone the server's clock is set.
const LOGIN: &str = "wc_life";

/// Lets a database be at a time from the next connection on, as far as its engine has a clock: the program compares it with its own.
/// On PostgreSQL a function stands before the one of the server, on MariaDB every connection of one login begins at that time.
pub fn set_clock(database: &Database, now: DateTime<Utc>) {
    let seconds = now.timestamp();
    match database.engine() {
        Engine::Sqlite => {}
        Engine::Postgres => {
            database.run(&format!(
                "CREATE SCHEMA IF NOT EXISTS life; CREATE OR REPLACE FUNCTION life.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
                 AS 'SELECT to_timestamp({seconds})'; ALTER DATABASE {} SET search_path = public, life, pg_catalog",
                database.name()
            ));
        }
        Engine::Mysql => {
            database.run(&format!(
                "CREATE USER IF NOT EXISTS {LOGIN}@'%' IDENTIFIED BY 'life'; GRANT ALL ON {}.* TO {LOGIN}@'%'",
                database.name()
            ));
            database.run(&format!(
                "SET GLOBAL init_connect = \"SET timestamp = IF(CURRENT_USER() LIKE '{LOGIN}@%', {seconds}, 0)\""
            ));
        }
    }
}

/// The address under which the program knows the shop.
pub fn address(database: &Database) -> String {
    if database.engine() == Engine::Mysql { database.url_as(LOGIN, "life") } else { database.url() }
}

/// An adapter on a database.
pub fn adapter(database: &Database) -> Arc<dyn DataStore> {
    open(&StoreAddress {
        name: "shop".to_owned(),
        url: SecretText::new(database.url()),
        read_url: None,
        base: Path::new("/").to_owned(),
        create: true,
        limits: Limits::default(),
    })
    .unwrap()
}

/// Loads a generated shop through the adapter.
pub async fn fill(database: &Database, customers: u32) {
    let shop = Shop::generate(&Settings { engine: database.engine(), customers, now: dawn(), seed: 7 });
    let store = adapter(database);
    let (mut into, _) = store.begin_restore(&shop.tables).await.unwrap();
    for (table, rows) in shop.iter() {
        let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
        for page in rows.chunks(500) {
            into.insert(&table.name, &columns, page).await.unwrap();
        }
    }
    assert_eq!(into.finish(false).await.unwrap(), Vec::<String>::new());
    store.settle(&Settling::default()).await.unwrap();
}

/// The names of a table's columns, in their order.
fn columns(database: &Database, table: &str) -> Vec<String> {
    database.texts(&match database.engine() {
        Engine::Sqlite => format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"),
        Engine::Postgres => format!(
            "SELECT CAST(column_name AS text) FROM information_schema.columns \
             WHERE table_schema = 'public' AND table_name = '{table}' ORDER BY ordinal_position"
        ),
        Engine::Mysql => format!(
            "SELECT CONVERT(column_name USING utf8mb4) FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND table_name = '{table}' ORDER BY ordinal_position"
        ),
    })
}

/// Every row of the registered tables.
pub fn rows_in(database: &Database) -> Rows {
    let mut rows = Rows::new();
    for table in TABLES {
        let values = |literal: &dyn Fn(&String) -> String| {
            columns(database, table).iter().map(literal).collect::<Vec<_>>().join(", ")
        };
        let query = match database.engine() {
            Engine::Sqlite => {
                let parts = values(&|name| format!("quote({name})")).replace(", ", " || char(31) || ");
                format!("SELECT {parts} FROM {table}")
            }
            Engine::Postgres => {
                let parts = values(&|name| format!("quote_nullable(CAST({name} AS text))"));
                format!("SELECT concat_ws(chr(31), {parts}) FROM {table}")
            }
            Engine::Mysql => {
                let parts = values(&|name| format!("QUOTE({name})"));
                format!("SELECT CONVERT(CONCAT_WS(CHAR(31), {parts}) USING utf8mb4) FROM {table}")
            }
        };
        for line in database.texts(&query) {
            let row: Vec<String> = line.split(BETWEEN).map(str::to_owned).collect();
            let name = (table.to_owned(), row[0].clone());
            assert!(rows.insert(name, row).is_none(), "a key of {table} is there twice");
        }
    }
    rows
}

/// Empties a database of what a restore made in it.
pub fn clear(database: &Database) {
    for table in TABLES {
        database.run(&format!("DROP TABLE IF EXISTS {table}"));
    }
}

/// What a row refers to: its parent's table and key, both as they stand in a dump.
pub fn parent(name: &Name, row: &[String]) -> Option<Name> {
    match name.0.as_str() {
        "customers" => None,
        "order_lines" => Some(("orders".to_owned(), row[1].clone())),
        _ => Some(("customers".to_owned(), row[1].clone())),
    }
}

/// The customer to whom a row belongs, in rows that hold its parents.
pub fn owner(rows: &Rows, name: &Name) -> Option<String> {
    let row = rows.get(name)?;
    match parent(name, row) {
        None => Some(name.1.clone()),
        Some(order) if order.0 == "orders" => owner(rows, &order),
        Some(customer) => Some(customer.1),
    }
}

/// All that decides where a row is sealed, and what it holds.
pub fn identity(rows: &Rows, name: &Name) -> Option<Vec<String>> {
    let row = rows.get(name)?;
    let mut all = row.clone();
    if let Some(order) = parent(name, row).filter(|parent| parent.0 == "orders") {
        let order = rows.get(&order)?;
        all.extend([order[1].clone(), order[4].clone()]);
    }
    Some(all)
}

/// What of a row tells of somebody: its values with letters, less what it is known by.
pub fn telling(row: &[String]) -> BTreeSet<String> {
    let tells = |value: &&String| value.chars().any(char::is_alphabetic) && *value != "NULL" && value.len() > 6;
    row.iter().skip(2).filter(tells).cloned().collect()
}
