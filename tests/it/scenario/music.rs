//! The shops of the scenarios: the Chinook music shop where its files are there, otherwise the project's own sample.
//!
//! Either way there are customers, their invoices, the lines of those, and reference tables that nobody registered.

use std::fs;
use std::path::PathBuf;

use chrono::{DateTime, Months, NaiveDate, TimeDelta, Utc};
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::policy::registry::SecretText;
use wangchuan::quickstart::shop::{Settings, Shop};
use wangchuan::stores::{Engine, Limits, StoreAddress, open};

use super::database::{Database, wait_for};

/// The names that a shop gives to what the scenarios talk about.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Customers.
    pub customer: &'static str,
    /// Their key.
    pub customer_id: &'static str,
    /// When the account was closed, if it was.
    pub closed: &'static str,
    /// A column of theirs that a strip empties, and that is never empty before.
    pub email: &'static str,
    /// Invoices (orders).
    pub invoice: &'static str,
    /// Their key.
    pub invoice_id: &'static str,
    /// Their date.
    pub date: &'static str,
    /// Lines of invoices.
    pub line: &'static str,
    /// Their key.
    pub line_id: &'static str,
    /// The unregistered table that lines refer to.
    pub goods: &'static str,
}

const CHINOOK: Names = Names {
    customer: "Customer",
    customer_id: "CustomerId",
    closed: "ClosedAt",
    email: "Email",
    invoice: "Invoice",
    invoice_id: "InvoiceId",
    date: "InvoiceDate",
    line: "InvoiceLine",
    line_id: "InvoiceLineId",
    goods: "Track",
};

const CHINOOK_POSTGRES: Names = Names {
    customer: "customer",
    customer_id: "customer_id",
    closed: "closed_at",
    email: "email",
    invoice: "invoice",
    invoice_id: "invoice_id",
    date: "invoice_date",
    line: "invoice_line",
    line_id: "invoice_line_id",
    goods: "track",
};

const OWN: Names = Names {
    customer: "customers",
    customer_id: "customer_id",
    closed: "closed_at",
    email: "email",
    invoice: "orders",
    invoice_id: "order_id",
    date: "completed_at",
    line: "order_lines",
    line_id: "line_id",
    goods: "products",
};

/// Where the Chinook files are.
fn chinook_folder() -> Option<PathBuf> {
    let folder = match std::env::var("WANGCHUAN_CHINOOK") {
        Ok(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/chinook"),
    };
    folder.join("Chinook_Sqlite.sqlite").is_file().then_some(folder)
}

/// Fills a database with a shop and tells its names.
pub fn load(database: &Database) -> Names {
    match chinook_folder() {
        Some(folder) => load_chinook(database, &folder),
        None => load_own(database),
    }
}

fn load_chinook(database: &Database, folder: &std::path::Path) -> Names {
    let names = copy_chinook(database, folder);
    // Chinook does not say when an account was closed; a policy needs a column that does.
    let time = if database.engine() == Engine::Mysql { "DATETIME" } else { "TIMESTAMP" };
    database.run(&format!("ALTER TABLE {} ADD COLUMN {} {time} NULL", names.customer, names.closed));
    names
}

fn copy_chinook(database: &Database, folder: &std::path::Path) -> Names {
    match database.engine() {
        Engine::Sqlite => {
            let bytes = fs::read(folder.join("Chinook_Sqlite.sqlite")).unwrap();
            fs::write(database.file(), bytes).unwrap();
            CHINOOK
        }
        Engine::Postgres => {
            database.run(&statements(&folder.join("Chinook_PostgreSql.sql")));
            CHINOOK_POSTGRES
        }
        Engine::Mysql => {
            database.run(&statements(&folder.join("Chinook_MySql.sql")));
            CHINOOK
        }
    }
}

/// The statements of a file, without those that make and choose a database.
fn statements(path: &std::path::Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let chooses = |line: &&str| {
        ["DROP DATABASE", "CREATE DATABASE", "USE ", "\\c "].iter().any(|beginning| line.starts_with(beginning))
    };
    let (chosen, kept): (Vec<&str>, Vec<&str>) = text.trim_start_matches('\u{feff}').lines().partition(chooses);
    assert_eq!(chosen.len(), 3, "{} is not the file that was expected", path.display());
    kept.join("\n")
}

/// Customers of the project's own sample.
const CUSTOMERS: u32 = 60;

fn load_own(database: &Database) -> Names {
    // A day ago, because the sample's times are local and the scenario reads them as UTC.
    let now = SystemClock.now() - TimeDelta::days(1);
    let shop = Shop::generate(&Settings { engine: database.engine(), customers: CUSTOMERS, ..Settings::standard(now) });
    let wanted = [OWN.goods, OWN.customer, OWN.invoice, OWN.line];
    wait_for(async {
        let store = open(&StoreAddress {
            name: "sample".to_owned(),
            url: SecretText::new(database.url()),
            read_url: None,
            base: PathBuf::from("."),
            create: true,
            limits: Limits::default(),
        })
        .unwrap();
        let tables: Vec<_> =
            shop.tables.iter().filter(|table| wanted.contains(&table.name.as_str())).cloned().collect();
        let (mut into, _) = store.begin_restore(&tables).await.unwrap();
        for table in &tables {
            for rows in shop.rows_of(&table.name).chunks(500) {
                into.insert(&table.name, &shop.columns_of(&table.name), rows).await.unwrap();
            }
        }
        into.finish(false).await.unwrap();
    });
    // The scenarios are about dates that can be read; the awkward ones have tests of their own.
    let odd = match database.engine() {
        Engine::Sqlite => format!(
            "completed_at IS NULL OR completed_at NOT LIKE '20__-__-__ __:__:__' OR completed_at LIKE '2021-13%' OR completed_at > '{}'",
            now.format("%F %T")
        ),
        _ => format!("completed_at IS NULL OR completed_at > '{}'", now.format("%F %T")),
    };
    database.run(&format!("DELETE FROM order_lines WHERE order_id IN (SELECT order_id FROM orders WHERE {odd})"));
    database.run(&format!("DELETE FROM orders WHERE {odd}"));
    OWN
}

impl Names {
    /// The store with its collections, by owner path, without policies.
    pub fn store(&self, url: &str) -> String {
        let Self { customer, customer_id, email, invoice, invoice_id, line, .. } = self;
        format!(
            r#"
[[store]]
name = "music"
url = "{url}"
owner = "sales"
purpose = "orders"

[[store.collection]]
table = "{customer}"
subject = "{customer_id}"
fields.{email} = {{ kind = "email" }}

[[store.collection]]
table = "{invoice}"
subject = "{customer_id}"

[[store.collection]]
table = "{line}"
via = ["{invoice_id} -> {invoice}"]
"#
        )
    }

    /// A policy on the invoices, and one on the closed accounts by which none is due, whenever the scenario runs.
    pub fn policy(&self, retention: &str, statutes: &str) -> String {
        let Self { customer, closed, invoice, date, .. } = self;
        format!(
            r#"
[[policy]]
id = "invoices"
collections = ["{invoice}"]
retention = "{retention}"
start = "{date}"
action = "delete"
basis = "contract"
statutes = {statutes}
grace = "0"
max = {{ rows = 1000000, percent = 100 }}

[[policy]]
id = "accounts"
collections = ["{customer}"]
retention = "20 years"
start = "{closed}"
action = "delete"
basis = "contract"
grace = "0"
max = {{ rows = 1000000, percent = 100 }}
"#
        )
    }

    /// The condition, in plain SQL, of an invoice whose `years` are over on this day: the day of the invoice, so many years
    /// later, is here or past.
    pub fn is_over(&self, years: u32, at: DateTime<Utc>) -> String {
        let last = at.date_naive().checked_sub_months(Months::new(12 * years)).unwrap();
        format!("{} < '{} 00:00:00'", self.date, next(last))
    }

    /// Lines of the invoices with this condition.
    pub fn lines_of(&self, condition: &str) -> String {
        format!("{0} IN (SELECT {0} FROM {1} WHERE {condition})", self.invoice_id, self.invoice)
    }

    /// Customers that have an invoice with this condition.
    pub fn customers_with(&self, condition: &str) -> String {
        format!("{0} IN (SELECT {0} FROM {1} WHERE {condition})", self.customer_id, self.invoice)
    }

    /// The three registered tables, children first, with their keys.
    pub fn registered(&self) -> [(&'static str, &'static str); 3] {
        [(self.line, self.line_id), (self.invoice, self.invoice_id), (self.customer, self.customer_id)]
    }
}

fn next(day: NaiveDate) -> NaiveDate {
    day.succ_opt().unwrap()
}

/// The rows of a table as text, in the order of the key, one text a row; the same for equal rows in two databases.
pub fn rows_as_text(database: &Database, table: &str, key: &str, condition: &str) -> Vec<String> {
    let columns = columns(database, table);
    let quoted: Vec<String> = columns.iter().map(|column| format!("QUOTE({column})")).collect();
    let row = match database.engine() {
        Engine::Sqlite => quoted.join(" || '|' || "),
        Engine::Postgres => format!("CAST({table} AS text)"),
        Engine::Mysql => format!("CONCAT_WS('|', {})", quoted.join(", ")),
    };
    database.texts(&format!("SELECT {row} FROM {table} WHERE {condition} ORDER BY {key}"))
}

/// Customer and calendar quarter, in one text, of each invoice with this condition, and the invoice's id. Invoices that agree
/// in the first share their keys.
pub fn owners_and_quarters(database: &Database, names: &Names, condition: &str) -> Vec<(String, String)> {
    let Names { customer_id, invoice, date, invoice_id, .. } = names;
    let row = match database.engine() {
        Engine::Mysql => format!("CONCAT_WS('|', CAST({date} AS CHAR), {customer_id}, {invoice_id})"),
        _ => format!("CAST({date} AS TEXT) || '|' || CAST({customer_id} AS TEXT) || '|' || CAST({invoice_id} AS TEXT)"),
    };
    let rows = database.texts(&format!("SELECT {row} FROM {invoice} WHERE {condition}"));
    rows.iter()
        .map(|row| {
            let parts: Vec<&str> = row.split('|').collect();
            let quarter = (parts[0][5..7].parse::<u32>().unwrap() - 1) / 3;
            (format!("{} {} {quarter}", parts[1], &parts[0][..4]), parts[2].to_owned())
        })
        .collect()
}

fn columns(database: &Database, table: &str) -> Vec<String> {
    match database.engine() {
        Engine::Sqlite => database.texts(&format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid")),
        Engine::Postgres => Vec::new(),
        Engine::Mysql => database.texts(&format!(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}' \
             ORDER BY ORDINAL_POSITION"
        )),
    }
}
