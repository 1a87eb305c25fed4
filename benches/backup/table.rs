//! The table that is backed up: orders of customers as a shop has them, in the order of their time, so that the rows of a customer lie
//! far from each other.

use super::Result;
use super::measure::shell;

/// Customers of the whole table.
pub const CUSTOMERS: u32 = 100_000;
/// Rows of each.
pub const ROWS_EACH: u32 = 30;
/// One row in a hundred gets another text.
pub const SCATTERED: &str = "UPDATE orders SET note = note || ', looked at again' WHERE id % 100 = 7";

const DEFINITION: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, placed_at timestamptz NOT NULL,
    done_at date, status text NOT NULL, total numeric(10,2) NOT NULL, items jsonb NOT NULL, ship_to text, email text, reference text,
    note text) WITH (autovacuum_enabled = false); CREATE INDEX orders_customer ON orders (customer)";

/// The id of a customer.
pub fn customer(number: u32) -> String {
    format!("C{number:07}")
}

/// The rows from `first` on, of so many customers, spread over three years when there are `of` of them.
fn rows(first: u32, count: u32, customers: u32, of: u32) -> String {
    let last = first + count - 1;
    format!(
        r#"INSERT INTO orders SELECT i, 'C' || lpad(c::text, 7, '0'), at, at::date + (r % 9)::int,
        (ARRAY['completed','completed','completed','completed','returned','shipped','refunded'])[1 + r % 7],
        ((10 + r % 30000)::numeric / 100), ('[{{"sku": "A-' || (r % 4999) || '", "quantity": '
        || 1 + r % 3 || ', "lot": "' || upper(substr(md5(i::text || 'l'), 1, 12)) || '"}}]')::jsonb, (c * 31 % 311) || ' ' || (ARRAY['Garden Road','Station Street','Lake Avenue','Temple Lane'])[1 + c % 4]
        || ', district ' || (c * 7 % 97) || ', ' || (ARRAY['Hangzhou','Suzhou','Nanjing'])[1 + c % 3] || ' ' || (310000 + c * 13 % 9999),
        'customer.' || c || '@mail' || (c % 11) || '.example', md5(i::text),
        'paid by ' || (ARRAY['transfer','card','wallet'])[1 + r % 3] || ', transaction ' || md5(i::text || 't') || ', neighbour ' || r % 59
        FROM (SELECT i, i::bigint * 7919 % {customers} AS c, ('x' || substr(md5(i::text || 'r'), 1, 8))::bit(32)::bigint AS r,
        timestamptz '2023-01-01 00:00:00+00' + (i::float8 / {of}) * interval '1094 days' + (i::bigint * 7331 % 9999991) * interval '1 microsecond' AS at
        FROM generate_series({first}, {last}) AS g (i)) AS made"#
    )
}

/// The address of a database on the server of the tests.
pub fn url(database: &str) -> Result<String> {
    let server = std::env::var("WANGCHUAN_TEST_POSTGRES").map_err(|_| "run it by tests/run --bench backup")?;
    let (base, _) = server.rsplit_once('/').ok_or("the address of the server has no database")?;
    Ok(format!("{base}/{database}"))
}

fn psql(database: &str, statement: &str) -> Result<String> {
    let quoted = statement.replace('\'', r"'\''");
    shell(&format!("psql -X -q -A -t -v ON_ERROR_STOP=1 {} -c '{quoted}'", url(database)?))
}

/// Runs statements.
pub fn run(database: &str, statement: &str) -> Result<()> {
    psql(database, statement).map(|_| ())
}

/// An empty database.
pub fn make_database(name: &str) -> Result<()> {
    run("postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
    run("postgres", &format!("CREATE DATABASE {name}"))
}

/// Makes the table.
pub fn fill(database: &str, customers: u32, count: u32) -> Result<()> {
    run(database, DEFINITION)?;
    run(database, &rows(1, count, customers, count))?;
    run(database, "VACUUM (FREEZE, ANALYZE) orders")?;
    run(database, "CHECKPOINT")
}

/// Adds rows behind those that there are.
pub fn append(database: &str, customers: u32, there: u32, count: u32) -> Result<()> {
    run(database, &rows(there + 1, count, customers, there))
}

/// Deletes the oldest twentieth.
pub fn oldest_deleted(rows: u32) -> String {
    format!("DELETE FROM orders WHERE id <= {rows} / 20")
}

/// How many rows a table has.
pub fn count(database: &str, table: &str) -> Result<u64> {
    Ok(psql(database, &format!("SELECT count(*) FROM {table}"))?.trim().parse()?)
}

/// What tells whether two tables hold the same rows.
pub fn digest(database: &str) -> Result<String> {
    let text = psql(database, "SELECT count(*) || ' ' || sum(hashtextextended(o::text, 0)::numeric) FROM orders o")?;
    Ok(text.trim().to_owned())
}

/// The size of the table without its indexes.
pub fn megabytes(database: &str) -> Result<String> {
    Ok(psql(database, "SELECT pg_table_size('orders') / 1000000")?.trim().to_owned())
}

/// The process to which the server's other processes belong.
pub fn postmaster() -> Result<String> {
    let backend = psql("postgres", "SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)")?;
    Ok(backend.trim().to_owned())
}

/// The lowest id.
pub fn lowest(database: &str) -> Result<u64> {
    Ok(psql(database, "SELECT min(id) FROM orders")?.trim().parse()?)
}
