//! The physical stage: what the files of a store hold behind an erasure, on all three engines, with values planted in them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};
use wangchuan::stores::Engine;

use super::database::Database;
use super::small::{self, POLICY, store};
use super::workplace::{Workplace, contains};

/// The person who asks; nobody else has these values.
const GONE: &str = "c-1003\n";
const VALUE: &str = "wang@canary.example";
const LIVING: &str = "zhang@canary.example";

fn installed(engine: Engine) -> Option<(Workplace, Database)> {
    let place = Workplace::new();
    let database = Database::create(engine, place.path())?;
    small::fill(&database);
    let policy = POLICY.replace("grace = \"0\"", "grace = \"72 hours\"");
    place.configure(&format!("{}{policy}", store(&database.url())));
    place.install();
    place.good(&["backup", "run"]);
    Some((place, database))
}

fn ask_to_be_forgotten(place: &Workplace) {
    place.program().reading(GONE).json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "run"]);
}

/// The kinds of files in which something was found.
fn found_in(place: &Workplace, code: i32) -> Vec<String> {
    let looked = place.program().json(&["verify", "residue"]).ends(code);
    let search = looked.list("searches")[0].clone();
    assert!(search["values_sought"].as_u64() >= Some(3), "{looked}");
    let kinds = search["file_kinds"].as_array().unwrap();
    assert!(kinds.iter().any(|kind| kind["kind"] == "tables" && kind["files_read"].as_u64() > Some(0)), "{looked}");
    assert!(!looked.out.contains("canary"), "values are never shown: {looked}");
    let found = kinds.iter().filter(|kind| kind["values_found"].as_u64() > Some(0));
    found.map(|kind| kind["kind"].as_str().unwrap().to_owned()).collect()
}

fn the_run(place: &Workplace) -> Json {
    let id = place.good(&["run", "list"]).list("runs")[0]["run"].as_str().unwrap().to_owned();
    place.good(&["run", "show", &id]).document()
}

fn limitations(place: &Workplace) -> String {
    place.good(&["certificate", "show", "latest"]).out
}

#[test]
fn a_reader_keeps_rows_in_a_sqlite_file_until_it_ends() {
    let (place, database) = installed(Engine::Sqlite).unwrap();
    database.run("PRAGMA journal_mode = WAL");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = format!("sqlite://{}", database.file().display());
    let reader = runtime.block_on(async {
        let mut reader = SqliteConnection::connect(&url).await.unwrap();
        for sql in ["BEGIN", "SELECT count(*) FROM customers"] {
            sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut reader).await.unwrap();
        }
        reader
    });
    ask_to_be_forgotten(&place);
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "shred"]);
    let run = the_run(&place);
    assert_eq!(run["files"][0]["stage"], "pending", "{run}");
    assert_eq!(run["files"][0]["residues"][0]["code"], "open-reader", "{run}");
    assert!(limitations(&place).contains("RESIDUE_PENDING"));
    assert!(found_in(&place, 1).contains(&"tables".to_owned()));
    assert_eq!(place.program().json(&["store", "settle", "shop"]).ends(4).text("stage"), "pending");
    assert!(!place.program().json(&["status"]).out.contains("residue-overdue"), "there are seven days for it");
    let at_once = "name = \"shop\"\nfiles = { settle_within = \"0 days\" }";
    place.reconfigure("name = \"shop\"", at_once);
    assert!(place.program().json(&["status"]).ends(5).out.contains("residue-overdue"));
    place.reconfigure(at_once, "name = \"shop\"");

    runtime.block_on(reader.close()).unwrap();
    place.good(&["job", "run", "shred"]);
    let run = the_run(&place);
    assert_eq!(run["files"][0]["stage"], "settled", "{run}");
    assert_eq!(run["files"][0]["last_search"]["found_kinds"][0], "tables", "{run}");
    assert!(!limitations(&place).contains("RESIDUE_PENDING"), "another certificate supersedes the one before");
    assert_eq!(found_in(&place, 0), Vec::<String>::new());
    let searched = the_run(&place)["files"][0]["last_search"].clone();
    assert_eq!(searched["found_kinds"].as_array().map(Vec::len), Some(0), "{searched}");
    assert_eq!(place.good(&["store", "settle", "shop"]).text("stage"), "settled");
}

/// Of a server: found in its tables before, not there once they were written anew, and in the log that nobody rewrites all along.
fn planted_on(engine: Engine) {
    let Some((place, database)) = installed(engine) else { return };
    match engine {
        Engine::Postgres => database.run("CHECKPOINT"),
        _ => database.run("FLUSH TABLES customers, orders FOR EXPORT; UNLOCK TABLES"),
    }
    ask_to_be_forgotten(&place);
    let found = found_in(&place, 1);
    assert!(found.contains(&"tables".to_owned()) && found.contains(&"transaction-log".to_owned()), "{found:?}");
    let given = format!("{VALUE}\n{LIVING}\n");
    let told = place.program().reading(&given).json(&["verify", "residue", "shop", "--values"]).ends(1);
    let search = &told.list("searches")[0];
    assert_eq!((&search["values_sought"], &search["living_values"]), (&1.into(), &1.into()), "{told}");

    let settled = place.program().json(&["store", "settle", "shop", "--rewrite"]).ends(0);
    assert_eq!(settled.text("stage"), "residual", "{settled}");
    let run = the_run(&place);
    let codes: Vec<&str> =
        run["files"][0]["residues"].as_array().unwrap().iter().map(|of| of["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"transaction-log") && !codes.contains(&"page-remains"), "{codes:?}");
    let found = found_in(&place, 1);
    assert!(!found.contains(&"tables".to_owned()) && found.contains(&"transaction-log".to_owned()), "{found:?}");
}

#[test]
fn planted_values_leave_the_tables_of_postgresql() {
    planted_on(Engine::Postgres);
}

/// Parted tables have no file themselves, and logs may lie elsewhere.
#[test]
fn planted_values_are_found_in_the_parts_of_a_table_of_postgresql() {
    let place = Workplace::new();
    let Some(database) = Database::create(Engine::Postgres, place.path()) else { return };
    small::fill(&database);
    database.run(
        "ALTER TABLE orders DROP CONSTRAINT orders_customer_id_fkey;
         CREATE TABLE parted (LIKE customers INCLUDING ALL) PARTITION BY HASH (customer_id);
         CREATE TABLE part_a PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE part_b PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO parted SELECT * FROM customers; DROP TABLE customers; ALTER TABLE parted RENAME TO customers",
    );
    let policy = POLICY.replace("grace = \"0\"", "grace = \"72 hours\"");
    place.configure(&format!("{}{policy}", store(&database.url())));
    place.install();
    place.good(&["backup", "run"]);
    database.run("CHECKPOINT");
    ask_to_be_forgotten(&place);
    assert!(found_in(&place, 1).contains(&"tables".to_owned()));
}

#[test]
fn planted_values_leave_the_tables_of_mariadb() {
    planted_on(Engine::Mysql);
}

#[test]
fn without_values_nothing_is_claimed() {
    let (place, _database) = installed(Engine::Sqlite).unwrap();
    let looked = place.program().json(&["verify", "residue"]).ends(4);
    assert_eq!(looked.list("searches")[0]["not_searched"], "no-values", "{looked}");
    assert_eq!(looked.text("result"), "failed", "{looked}");
    place.program().reading("").json(&["verify", "residue", "--values"]).ends(2);
    assert_ne!(place.program().json(&["verify", "residue", "elsewhere"]).code(), Some(0));
}

/// A port that passes on whatever it is told to a server, and what it was told.
fn listening_on_the_way(server: &str) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, server) = (Arc::new(Mutex::new(Vec::new())), server.to_owned());
    let told = Arc::clone(&heard);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
            let (mut back, mut answers, told) =
                (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&told));
            std::thread::spawn(move || {
                _ = std::io::copy(&mut answers, &mut back);
                _ = back.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut bytes = [0; 8192];
                while let Ok(read @ 1..) = client.read(&mut bytes) {
                    told.lock().unwrap().extend(&bytes[..read]);
                    if server.write_all(&bytes[..read]).is_err() {
                        break;
                    }
                }
                _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    (port, heard)
}

/// What is sent to a server stands in its logs of statements: while erased values are looked for, none is.
fn nothing_of_it_is_said_on(engine: Engine) {
    let Some((place, database)) = installed(engine) else { return };
    ask_to_be_forgotten(&place);
    let url = database.url();
    let address =
        url.split(['@', '/']).find(|part| part.contains("127.0.0.1:") || part.contains("localhost:")).unwrap();
    let (port, heard) = listening_on_the_way(&address.replace("localhost", "127.0.0.1"));
    // In clear, so that it can be listened to.
    let mode = if engine == Engine::Postgres { "sslmode=disable" } else { "ssl-mode=disabled" };
    let log = log_of_statements(&database);
    let written = log.as_ref().map_or(0, |log| std::fs::metadata(log).unwrap().len());
    place.reconfigure(&url, &format!("{}?{mode}", url.replace(address, &format!("127.0.0.1:{port}"))));
    let looked = place.program().json(&["verify", "residue"]);
    assert!(looked.list("searches")[0]["values_sought"].as_u64() >= Some(3), "{looked}");
    let given = format!("{VALUE}\n{LIVING}\n");
    let told = place.program().reading(&given).json(&["verify", "residue", "shop", "--values"]);
    assert_eq!(told.list("searches")[0]["living_values"], 1, "{told}");
    let heard = heard.lock().unwrap();
    assert!(contains(&heard, "customers"), "nothing was heard");
    for value in [VALUE, LIVING, "Wang Canary", "c-1003"] {
        assert!(!contains(&heard, value), "{value} was sent to the server");
    }
    if let Some(log) = log {
        let said = std::fs::read(log).unwrap().split_off(usize::try_from(written).unwrap());
        let said = String::from_utf8_lossy(&said);
        assert!(said.lines().any(|line| line.contains("execute") && line.contains("customers")), "the log is not on");
        // Other databases log no parameters.
        let bound: Vec<&str> = said.lines().filter(|line| line.contains("arameters:")).collect();
        assert!(!bound.iter().any(|line| line.contains("canary") || line.contains("c-1003")), "{bound:#?}");
    }
}

/// Switches the log of statements on for this database; where it is, if it is one that `tests/run` has started.
fn log_of_statements(database: &Database) -> Option<PathBuf> {
    if database.engine() != Engine::Postgres {
        return None;
    }
    database.run(&format!("ALTER DATABASE {} SET log_statement = 'all'", database.name()));
    let data = PathBuf::from(database.texts("SELECT current_setting('data_directory')").remove(0));
    let log = data.parent()?.parent()?.join("postgres.log");
    log.is_file().then_some(log)
}

#[test]
fn erased_values_are_not_sent_to_postgresql_to_be_looked_for() {
    nothing_of_it_is_said_on(Engine::Postgres);
}

#[test]
fn erased_values_are_not_sent_to_mariadb_to_be_looked_for() {
    nothing_of_it_is_said_on(Engine::Mysql);
}

/// Text in UTF-16 and bytes, on free pages; and a rewrite that leaves nothing in a temporary file.
#[test]
fn values_are_looked_for_as_they_stand_in_a_sqlite_file() {
    let place = Workplace::new();
    let database = Database::create(Engine::Sqlite, place.path()).unwrap();
    std::fs::remove_file(database.file()).unwrap();
    database.run("PRAGMA encoding = 'UTF-16le'; CREATE TABLE first (x)");
    assert_eq!(database.texts("PRAGMA encoding"), ["UTF-16le"]);
    small::fill(&database);
    database.run("UPDATE customers SET email = CAST(email AS BLOB)");
    database.run(
        "CREATE TABLE more_than_a_cache AS WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 8000)
           SELECT zeroblob(1000) FROM n;
         CREATE TABLE old AS WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 2000)
           SELECT customers.* FROM customers, n WHERE customer_id = 'c-1003';
         PRAGMA secure_delete = OFF; DROP TABLE old",
    );
    let policy = POLICY.replace("grace = \"0\"", "grace = \"72 hours\"");
    place.configure(&format!("{}{policy}", store(&database.url())));
    place.install();
    place.good(&["backup", "run"]);
    ask_to_be_forgotten(&place);
    let looked = place.program().json(&["verify", "residue"]).ends(1);
    let search = &looked.list("searches")[0];
    let tables = search["file_kinds"].as_array().unwrap().iter().find(|kind| kind["kind"] == "tables").unwrap();
    assert_eq!((&search["values_sought"], &tables["values_found"]), (&3.into(), &3.into()), "{looked}");

    let elsewhere = place.file("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let changed = || std::fs::metadata(&elsewhere).unwrap().modified().unwrap();
    let rewrite = || {
        let program = place.program().with("SQLITE_TMPDIR", elsewhere.to_str().unwrap());
        let settled = program.json(&["store", "settle", "shop", "--rewrite"]).ends(0);
        assert_eq!(settled.text("stage"), "settled", "{settled}");
    };
    let before = changed();
    rewrite();
    assert_eq!(changed(), before, "the rewrite went through a temporary file");
    assert_eq!(found_in(&place, 0), Vec::<String>::new());
    place.reconfigure("name = \"shop\"", "name = \"shop\"\nfiles = { vacuum_mb = 0 }");
    rewrite();
    assert_ne!(changed(), before, "a large file is not written anew in memory");
}
