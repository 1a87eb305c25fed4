//! A sample shop: customers, orders, complaints and a newsletter over several years, as plain data.
//!
//! The same settings always give the same shop. Any store adapter's [`crate::stores::Restore`] can load it: parents stand
//! before children, and the types and values are those of the chosen engine. A few records are awkward on purpose
//! (an order that ends in the future, one whose end nobody can read, one that never ended), because a retention agent has to
//! keep them.

mod dice;
mod history;
mod people;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::Asia::Shanghai;

use crate::stores::{Engine, Table};
use crate::value::{Row, Value};

/// The fewest customers a shop can have, so that all [`Picks`] exist and differ.
pub const MIN_CUSTOMERS: u32 = 10;

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The engine that will hold the shop.
    pub engine: Engine,
    /// How many customers; fewer than [`MIN_CUSTOMERS`] are rounded up. Orders follow at about three each, lines at nearly three
    /// an order.
    pub customers: u32,
    /// The present: the shop's history ends here.
    pub now: DateTime<Utc>,
    /// Which shop of its size.
    pub seed: u64,
}

impl Settings {
    /// The quickstart's shop: 3,000 customers in SQLite.
    #[must_use]
    pub fn standard(now: DateTime<Utc>) -> Self {
        Self { engine: Engine::Sqlite, customers: 3_000, now, seed: 20_260_101 }
    }
}

/// Customers with a known story, by `customer_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picks {
    /// Can go entirely: closed the account 60 days ago; every order was completed more than 3 years ago, while a complaint and
    /// the newsletter ended within the last 420 days, too young for retention and bound by no statute.
    pub leaver: String,
    /// A customer of today: 3 orders completed more than 3 years ago, 3 completed within the last 2 years, newsletter running.
    pub keeper: String,
    /// To be put on legal hold: everything of this customer, the account included, ended more than 3 years ago, so that nothing
    /// but the hold keeps it.
    pub held: String,
}

/// Orders whose end is no good start event, by `order_id`; none of them belongs to a pick.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OddOrders {
    /// `completed_at` lies after the present.
    pub future: Vec<i64>,
    /// `completed_at` is nothing that can be read as a time (empty for MariaDB, whose columns refuse such values).
    pub unreadable: Vec<i64>,
    /// `completed_at` is NULL.
    pub open: Vec<i64>,
}

/// A generated shop.
pub struct Shop {
    /// The tables, parents before children.
    pub tables: Vec<Table>,
    /// The rows of each table, in the order of `tables` and of their columns.
    pub rows: Vec<Vec<Row>>,
    /// Customers with a known story.
    pub picks: Picks,
    /// Orders that must be kept because their end is unknown.
    pub odd_orders: OddOrders,
    /// Every identifying text with the one customer it belongs to, or `None` when several share it.
    canaries: BTreeMap<String, Option<String>>,
}

impl Shop {
    /// Generates a shop. Pure: the same settings give the same rows.
    #[must_use]
    pub fn generate(settings: &Settings) -> Self {
        history::Writer::new(settings).write()
    }

    /// Each table with its rows, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (&Table, &[Row])> {
        self.tables.iter().zip(self.rows.iter().map(Vec::as_slice))
    }

    /// The rows of a table; empty when there is no such table.
    #[must_use]
    pub fn rows_of(&self, table: &str) -> &[Row] {
        self.iter().find(|(known, _)| known.name == table).map_or(&[], |(_, rows)| rows)
    }

    /// The names of a table's columns, in the order of its rows' values.
    #[must_use]
    pub fn columns_of(&self, table: &str) -> Vec<String> {
        let table = self.tables.iter().find(|known| known.name == table);
        table.map_or_else(Vec::new, |table| table.columns.iter().map(|column| column.name.clone()).collect())
    }

    /// Every text in the shop that identifies somebody (names, numbers, addresses, mailboxes), each once. None of them may
    /// ever be found outside the store.
    pub fn canaries(&self) -> impl Iterator<Item = &str> {
        self.canaries.keys().map(String::as_str)
    }

    /// The texts that identify this customer and nobody else. None of them may be found anywhere after the customer's
    /// erasure.
    pub fn canaries_of<'a>(&'a self, customer_id: &'a str) -> impl Iterator<Item = &'a str> {
        self.canaries
            .iter()
            .filter(move |(_, owner)| owner.as_deref() == Some(customer_id))
            .map(|(text, _)| text.as_str())
    }
}

/// How an engine's rows carry numbers and times.
#[derive(Clone, Copy)]
struct Dialect(Engine);

impl Dialect {
    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// SQLite stores integers; the others cross as text.
    fn number(self, number: i64) -> Value {
        match self.0 {
            Engine::Sqlite => Value::Integer(number),
            Engine::Postgres | Engine::Mysql => Value::Text(number.to_string()),
        }
    }

    /// An amount in hundredths. SQLite's NUMERIC columns keep whole amounts as integers and others as doubles.
    fn money(self, hundredths: i64) -> Value {
        match self.0 {
            Engine::Sqlite if hundredths % 100 == 0 => Value::Integer(hundredths / 100),
            Engine::Sqlite => Value::Real(hundredths as f64 / 100.0),
            Engine::Postgres | Engine::Mysql => Value::Text(format!("{}.{:02}", hundredths / 100, hundredths % 100)),
        }
    }

    fn time(time: NaiveDateTime) -> Value {
        Value::Text(time.format("%Y-%m-%d %H:%M:%S").to_string())
    }

    fn time_or_null(time: Option<NaiveDateTime>) -> Value {
        time.map_or(Value::Null, Self::time)
    }

    /// A value that the column takes but that is no point in time, if the engine has one.
    fn unreadable_time(self, variant: usize) -> Option<Value> {
        const SEEN_IN_SHOPS: [&str; 5] = ["0000-00-00 00:00:00", "2021-13-45 10:00:00", "31/12/2019", "unknown", ""];
        match self.0 {
            Engine::Sqlite => Some(Self::text(SEEN_IN_SHOPS[variant % SEEN_IN_SHOPS.len()])),
            Engine::Postgres => Some(Self::text("infinity")),
            Engine::Mysql => None,
        }
    }
}

/// The present in the shop's own time (Asia/Shanghai), to the second.
fn local_now(now: DateTime<Utc>) -> NaiveDateTime {
    let local = now.with_timezone(&Shanghai).naive_local();
    chrono::Timelike::with_nanosecond(&local, 0).unwrap_or(local)
}
