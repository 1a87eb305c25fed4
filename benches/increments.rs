//! Increments of one table of 300,000 rows, 10,000 customers with 30 rows each over three years: what they cost and store after no
//! change, 1 % of rows appended, 1 % changed here and there, and 5 % deleted. `increments quick` takes a tenth.
//!
//! The whole of `backup run` in one process: reading an SQLite store, comparing, sealing, the embedded bucket, the control database
//! with its journal, and the sealing of the agent's state into the second place, which is shown beside it.

#[expect(dead_code, reason = "the medians are for work that can be repeated")]
mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::{Row, Table, cpu_time};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use wangchuan::clock::SystemClock;
use wangchuan::config::load;
use wangchuan::control::SnapshotRow;
use wangchuan::installation::{Installation, Needs};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::backup::{Wanted, take_snapshot};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const CUSTOMERS: u32 = 10_000;
const ROWS_EACH: u32 = 30;

const CONFIGURATION: &str = r#"[agent]
name = "bench"
timezone = "UTC"
state = "sqlite://control.db"
site = "here"

[root]
kind = "file"
path = "root"
accept_host_loss = true

[backup]
endpoint = "embedded"
data = "bucket"

[audit]
url = "embedded"
data = "audit"

[[store]]
name = "shop"
url = "sqlite://shop.db"

[[store.collection]]
table = "orders"
subject = "customer"
fields.address = { kind = "address" }

[[policy]]
id = "old-orders"
collections = ["orders"]
retention = "5 years"
start = "done_at"
action = "delete"
basis = "contract"
bucket = "year"
max = { rows = 100000, percent = 50 }
"#;

/// Some 330 bytes a row, none like another.
fn fill(first: u32, count: u32, customers: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {first} + {count} - 1)
         INSERT INTO orders SELECT i, 'c' || (i % {customers}), date('2023-01-01', '+' || (i % 1095) || ' days'),
             'order ' || i || ' of street ' || (i * 7919 % 100003) || ', house ' || (i % 311), 10 + i % 977,
             hex(randomblob(60)), 'paid by transfer, delivered by post, nothing to remark about number ' || i FROM n"
    )
}

async fn sql(folder: &Path, statement: &str) -> Result<()> {
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", folder.join("shop.db").display())).await?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Bytes and number of files below a folder.
fn stored(folder: &Path) -> Result<(u64, u64)> {
    let (mut bytes, mut files) = (0, 0);
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let (more, others) = if path.is_dir() { stored(&path)? } else { (std::fs::metadata(&path)?.len(), 1) };
        bytes += more;
        files += others;
    }
    Ok((bytes, files))
}

async fn measured(
    installation: &Installation,
    folder: &Path,
    name: &str,
    wanted: Wanted,
    table: &mut Table,
) -> Result<SnapshotRow> {
    let (before, processor) = (stored(&folder.join("bucket"))?, cpu_time());
    let begun = std::time::Instant::now();
    let repository = installation.backup()?.repository.clone();
    let row = take_snapshot(&installation.ground()?, repository.as_ref(), &installation.signer, "shop", wanted).await?;
    let seconds = (cpu_time().saturating_sub(processor).as_secs_f64(), begun.elapsed().as_secs_f64());
    let after = stored(&folder.join("bucket"))?;
    let own = row.bytes.unsigned_abs();
    let state = (after.0 - before.0).saturating_sub(own);
    let control = std::fs::metadata(folder.join("control.db"))?.len();
    let kb = |bytes: u64| (bytes / 1000).to_string();
    let cells = vec![
        row.rows.to_string(),
        row.frames.to_string(),
        kb(own),
        kb(state),
        (after.1 - before.1).to_string(),
        kb(control),
        format!("{:.2}", seconds.0),
        format!("{:.2}", seconds.1),
    ];
    table.push(Row { name: name.to_owned(), cells });
    Ok(row)
}

#[tokio::main]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "quick");
    let customers = if quick { CUSTOMERS / 10 } else { CUSTOMERS };
    let rows = customers * ROWS_EACH;
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    std::fs::write(path.join("wangchuan.toml"), CONFIGURATION)?;
    std::fs::set_permissions(path.join("wangchuan.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    std::fs::create_dir(path.join("jobs"))?;
    sql(
        path,
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, done_at TEXT, address TEXT, total INTEGER, token TEXT, \
         remark TEXT)",
    )
    .await?;
    sql(path, &fill(1, rows, customers)).await?;
    let config = load(&path.join("wangchuan.toml"), &|_| None)?;
    Installation::create(&config, Arc::new(SystemClock), Arc::new(SystemRandom)).await?;
    let installation = Installation::open(config, Needs::ALL, Arc::new(SystemClock), Arc::new(SystemRandom)).await?;
    let increment = Wanted::increment(&installation.config);
    let headings =
        ["rows sealed", "frames", "kB", "kB of state", "objects", "control database kB", "processor s", "wall s"];
    let mut table = Table::new(&format!("{rows} rows of {customers} customers"), &headings);
    measured(&installation, path, "full", Wanted::Full, &mut table).await?;
    measured(&installation, path, "increment: nothing changed", increment, &mut table).await?;
    sql(path, &fill(rows + 1, rows / 100, customers)).await?;
    measured(&installation, path, "increment: 1 % appended", increment, &mut table).await?;
    sql(path, "UPDATE orders SET remark = remark || '!' WHERE id % 100 = 7").await?;
    measured(&installation, path, "increment: 1 % changed, scattered", increment, &mut table).await?;
    sql(path, &format!("DELETE FROM orders WHERE id <= {rows} / 20")).await?;
    measured(&installation, path, "increment: 5 % deleted", increment, &mut table).await?;
    table.print();
    installation.close().await?;
    Ok(())
}
