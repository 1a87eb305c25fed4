//! The physical stage: what the files of a store hold behind an erasure, on all three engines, with values planted in them.

use serde_json::Value as Json;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};
use wangchuan::stores::Engine;

use super::database::Database;
use super::small::{self, POLICY, store};
use super::workplace::Workplace;

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
