//! Large tables and large values: how much memory the program takes, and what it refuses.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use wangchuan::stores::Engine;

use crate::scenario::database::Database;
use crate::scenario::workplace::Workplace;
use crate::support::announce::{LONG, announce_not_run, switched_on};

/// Rows and customers of the large table; fewer by `WANGCHUAN_LARGE_ROWS`, thirty to a customer.
const ROWS: u64 = 3_000_000;
const PER_CUSTOMER: u64 = 30;

fn store(url: &str, collections: &str) -> String {
    format!(
        "[[store]]\nname = \"shop\"\nurl = \"{url}\"\nowner = \"shop\"\npurpose = \"orders\"\nsite = \"here\"\n\n{collections}"
    )
}

const ORDERS: &str = "[[store.collection]]\ntable = \"orders\"\nsubject = \"customer_id\"\n\n[[policy]]\nid = \"old-orders\"\n\
     collections = [\"orders\"]\nretention = \"3 years\"\nstart = \"completed_at\"\naction = \"delete\"\nbasis = \"contract\"\n\
     grace = \"0\"\nbucket = \"year\"\nmax = { rows = 10000000, percent = 100 }\n";

const FILES: &str = "[[store.collection]]\ntable = \"files\"\nsubject = \"customer_id\"\n";

/// Runs a command to its end, however long it takes. Returns the most memory it took, in MiB, and the seconds.
fn measured(place: &Workplace, arguments: &[&str], input: Option<&str>) -> (u64, u64) {
    let began = Instant::now();
    let stdin = place.file("stdin");
    fs::write(&stdin, input.unwrap_or_default()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_wangchuan"))
        .args(arguments)
        .current_dir(place.path())
        .env("HOME", place.path())
        .stdin(fs::File::open(&stdin).unwrap())
        .stdout(fs::File::create(place.file("stdout")).unwrap())
        .stderr(fs::File::create(place.file("stderr")).unwrap())
        .spawn()
        .unwrap();
    let mut most = 0;
    let status = loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = high.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) / 1024);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        sleep(Duration::from_millis(20));
    };
    let said = |name| fs::read_to_string(place.file(name)).unwrap();
    assert!(status.success(), "{arguments:?}: {}\n{}", said("stdout"), said("stderr"));
    (most, began.elapsed().as_secs())
}

/// Fills a table of so many rows, some 300 bytes each.
fn fill(database: &Database, rows: u64) {
    database.run(
        "CREATE TABLE orders (order_id bigint PRIMARY KEY, customer_id text NOT NULL, completed_at timestamp NULL, total numeric(12,2), \
         address text NOT NULL, note text)",
    );
    database.run(&format!(
        "INSERT INTO orders SELECT n, 'c-' || (n % {}), timestamp '2024-01-01' + (n % 900) * interval '1 day', n % 1000, \
         md5(n::text) || ' street ' || md5((n * 7)::text), md5((n * 3)::text) || md5((n * 11)::text) || md5((n * 13)::text) \
         FROM generate_series(1, {rows}) AS n",
        (rows / PER_CUSTOMER).max(1)
    ));
}

/// Full, increment, restore, one customer; tells memory and time. Returns the most memory of full, increment and restore, in MiB.
fn all_of(rows: u64) -> Option<[u64; 4]> {
    let place = Workplace::new();
    let database = Database::create(Engine::Postgres, place.path())?;
    fill(&database, rows);
    place.configure(&store(&database.url(), ORDERS));
    place.install();
    let full = measured(&place, &["backup", "run"], None);
    database.run("UPDATE orders SET total = total + 1 WHERE order_id % 100 = 7");
    database.run("DELETE FROM orders WHERE order_id % 1000 = 3");
    let increment = measured(&place, &["backup", "run"], None);
    let listed = place.good(&["backup", "list"]);
    assert_eq!(listed.list("snapshots").len(), 2, "{listed}");
    let target = Database::create(Engine::Postgres, place.path())?;
    let restore = measured(&place, &["restore", "--store", "shop", "--to", &target.url()], None);
    let digest = "SELECT md5(string_agg(h, '')) FROM (SELECT md5(string_agg(o::text, '|' ORDER BY order_id)) AS h \
                  FROM orders o GROUP BY order_id / 10000 ORDER BY order_id / 10000) AS parts";
    assert_eq!(target.texts(digest), database.texts(digest));
    let one = Database::create(Engine::Postgres, place.path())?;
    let customer =
        measured(&place, &["restore", "--store", "shop", "--subject", "-", "--to", &one.url()], Some("c-7\n"));
    assert_eq!(one.rows("orders"), database.rows_where("orders", "customer_id = 'c-7'"));
    crate::model::tell(&format!(
        "{rows} rows, {} customers on PostgreSQL: full {} MiB {} s, increment {} MiB {} s, restore {} MiB {} s, one customer {} MiB {} s",
        rows / PER_CUSTOMER,
        full.0,
        full.1,
        increment.0,
        increment.1,
        restore.0,
        restore.1,
        customer.0,
        customer.1
    ));
    Some([full.0, increment.0, restore.0, customer.0])
}

#[test]
fn three_million_rows_on_postgres() {
    if switched_on(LONG).is_none() {
        return announce_not_run("three million rows on PostgreSQL");
    }
    let wanted = std::env::var("WANGCHUAN_LARGE_ROWS").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(ROWS);
    let Some(half) = all_of(wanted / 4) else { return };
    let Some(whole) = all_of(wanted) else { return };
    // Four times the rows: a snapshot takes no more for them, but for caches of the control database.
    for (what, (half, whole)) in ["full", "increment"].iter().zip(half.iter().zip(whole)) {
        assert!(whole <= half + half / 4 + 24, "{what}: {half} MiB became {whole} MiB");
    }
    assert!(whole.iter().all(|most| *most < 700), "{whole:?}");
}

/// A value that no frame takes is refused, with the table's name; what is just below comes back.
fn large_values(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    let (kind, zeros) = match engine {
        Engine::Sqlite => ("BLOB", "zeroblob(1048576 * 40)"),
        _ => ("bytea", "decode(repeat('00', 1048576 * 40), 'hex')"),
    };
    database
        .run(&format!("CREATE TABLE files (id integer PRIMARY KEY, customer_id varchar(20) NOT NULL, body {kind})"));
    database.run(&format!("INSERT INTO files VALUES (1, 'c-1', {zeros})"));
    for id in 2..40 {
        let size =
            if engine == Engine::Sqlite { "randomblob(3000000)" } else { "decode(repeat('ab', 3000000), 'hex')" };
        database.run(&format!("INSERT INTO files VALUES ({id}, 'c-{}', {size})", id % 3));
    }
    place.configure(&store(&database.url(), FILES));
    place.install();
    let (taken, _) = measured(&place, &["backup", "run"], None);
    let target = Database::create(engine, place.path()).unwrap();
    let (restored, _) = measured(&place, &["restore", "--store", "shop", "--to", &target.url()], None);
    assert_eq!(target.number("SELECT SUM(length(body)) FROM files"), (40 << 20) + 38 * 3_000_000);
    crate::model::tell(&format!("154 MB in 39 values on {engine:?}: backup {taken} MiB, restore {restored} MiB"));

    database.run(&match engine {
        Engine::Sqlite => "UPDATE files SET body = zeroblob(200000000) WHERE id = 2".to_owned(),
        _ => "UPDATE files SET body = decode(repeat('00', 200000000), 'hex') WHERE id = 2".to_owned(),
    });
    let refused = place.program().run(&["backup", "run"]);
    let said = format!("{}{}", refused.out, refused.err);
    assert!(refused.code() == Some(1) && said.contains("a row of files has 20000"), "{refused}");
    assert!(said.contains("48 MiB at most"), "{refused}");
}

#[test]
fn large_values_on_sqlite() {
    large_values(Engine::Sqlite);
}

#[test]
fn large_values_on_postgres() {
    large_values(Engine::Postgres);
}
