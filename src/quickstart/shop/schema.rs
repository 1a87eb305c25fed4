//! The shop's tables, in the type names of each engine.

use crate::stores::{Column, ColumnKind, Engine, ForeignKey, OnDelete, Table};

/// What a column of the shop holds, before an engine gives it a type.
#[derive(Clone, Copy)]
enum Holds {
    /// A short identifying text; may be a key.
    Code,
    /// Text of any length.
    Words,
    /// A whole number.
    Number,
    /// An amount with two decimals.
    Money,
    /// A calendar date.
    Date,
    /// A local date and time.
    Time,
}

use Holds::{Code, Date, Money, Number, Time, Words};

/// A column's name, what it holds, and whether it may be NULL.
type Outline = (&'static str, Holds, bool);

const PRODUCTS: &[Outline] = &[("sku", Code, false), ("title", Code, false), ("price", Money, false)];

const CUSTOMERS: &[Outline] = &[
    ("customer_id", Code, false),
    ("name", Code, false),
    ("id_card", Code, false),
    ("mobile", Code, false),
    ("bank_card", Code, false),
    ("email", Code, false),
    ("address", Words, false),
    ("birth_date", Date, false),
    ("created_at", Time, false),
    ("closed_at", Time, true),
    ("credit_limit", Money, false),
    ("notes", Words, true),
];

const ORDERS: &[Outline] = &[
    ("order_id", Number, false),
    ("customer_id", Code, false),
    ("status", Code, false),
    ("placed_at", Time, false),
    ("completed_at", Time, true),
    ("total", Money, false),
    ("shipping_address", Words, false),
];

const ORDER_LINES: &[Outline] = &[
    ("line_id", Number, false),
    ("order_id", Number, false),
    ("sku", Code, false),
    ("quantity", Number, false),
    ("unit_price", Money, false),
];

const COMPLAINTS: &[Outline] = &[
    ("complaint_id", Number, false),
    ("customer_id", Code, false),
    ("opened_at", Time, false),
    ("closed_at", Time, true),
    ("body", Words, false),
];

const NEWSLETTER: &[Outline] = &[
    ("email", Code, false),
    ("customer_id", Code, false),
    ("subscribed_at", Time, false),
    ("unsubscribed_at", Time, true),
];

/// All tables, parents before children. The first column of each is its key.
pub fn tables(engine: Engine) -> Vec<Table> {
    let customer = ("customer_id", "customers");
    let table = |name: &str, columns: &[Outline], parents: &[(&str, &str)]| Table {
        name: name.to_owned(),
        columns: columns.iter().map(|(name, holds, nullable)| column(engine, name, *holds, *nullable)).collect(),
        key: vec![columns[0].0.to_owned()],
        unique: Vec::new(),
        foreign_keys: parents.iter().map(|(column, parent)| reference(column, parent)).collect(),
        triggers: Vec::new(),
        rows_may_be_hidden: false,
        index_statements: parents.iter().map(|(column, _)| index(name, column)).collect(),
    };
    vec![
        table("products", PRODUCTS, &[]),
        table("customers", CUSTOMERS, &[]),
        table("orders", ORDERS, &[customer]),
        table("order_lines", ORDER_LINES, &[("order_id", "orders"), ("sku", "products")]),
        table("complaints", COMPLAINTS, &[customer]),
        table("newsletter", NEWSLETTER, &[customer]),
    ]
}

fn column(engine: Engine, name: &str, holds: Holds, nullable: bool) -> Column {
    let (type_name, kind) = type_of(engine, holds);
    Column {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        kind: Some(kind),
        nullable,
        default: None,
        generated: false,
        numbered: false,
    }
}

fn type_of(engine: Engine, holds: Holds) -> (&'static str, ColumnKind) {
    match (engine, holds) {
        (Engine::Sqlite, Code | Words | Date | Time) => ("TEXT", ColumnKind::Text),
        (Engine::Sqlite, Number) => ("INTEGER", ColumnKind::Integer),
        (Engine::Sqlite, Money) => ("NUMERIC", ColumnKind::Decimal),
        (Engine::Postgres, Code | Words) | (Engine::Mysql, Words) => ("text", ColumnKind::Text),
        (Engine::Postgres, Number) => ("bigint", ColumnKind::Integer),
        (Engine::Postgres, Money) => ("numeric(12,2)", ColumnKind::Decimal),
        (Engine::Postgres, Time) => ("timestamp without time zone", ColumnKind::LocalTime),
        (Engine::Mysql, Code) => ("varchar(96)", ColumnKind::Text),
        (Engine::Mysql, Number) => ("bigint(20)", ColumnKind::Integer),
        (Engine::Mysql, Money) => ("decimal(12,2)", ColumnKind::Decimal),
        (Engine::Mysql, Time) => ("datetime", ColumnKind::LocalTime),
        (Engine::Postgres | Engine::Mysql, Date) => ("date", ColumnKind::Date),
    }
}

/// A foreign key to the parent's column of the same name; no engine deletes children on its own here.
fn reference(column: &str, parent: &str) -> ForeignKey {
    ForeignKey {
        columns: vec![column.to_owned()],
        parent: parent.to_owned(),
        parent_columns: vec![column.to_owned()],
        on_delete: OnDelete::Refuse,
    }
}

/// The index that makes looking for children cheap, in the form that all three engines read.
fn index(table: &str, column: &str) -> String {
    format!("CREATE INDEX {table}_{column} ON {table} ({column})")
}
