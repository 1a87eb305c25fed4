//! `verify erased`: what was erased and is in a store again, told from what is new in its place.

use serde_json::Value;
use wangchuan::stores::Engine;

use super::database::Database;
use super::small::{self, POLICY, store};
use super::workplace::Workplace;

/// What comes back, by counts of `verify erased`.
fn look(place: &Workplace, code: i32) -> (i64, i64) {
    let looked = place.program().json(&["verify", "erased"]).ends(code);
    assert!(looked.list("found").is_empty(), "keys are told only when they are asked for: {looked}");
    (looked.number("resurrected"), looked.number("returned"))
}

fn told_apart(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    small::fill(&database);
    database
        .run("CREATE TABLE old_orders AS SELECT * FROM orders; CREATE TABLE old_customers AS SELECT * FROM customers;");
    let ignored = "\nignored = [\"old_orders\", \"old_customers\"]\n\n[[store.collection]]\ntable = \"customers\"";
    let stores = store(&database.url()).replace("\n[[store.collection]]\ntable = \"customers\"", ignored);
    place.configure(&format!("{stores}{POLICY}"));
    place.install();
    place.good(&["backup", "run"]);
    assert_eq!(look(&place, 0), (0, 0));

    // Retention takes orders 1 to 4; a request the rest of one customer.
    assert_eq!(place.good(&["erase", "--plan", &place.plan().text("hash")]).number("erased"), small::DUE);
    place.program().reading("c-1003\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "run"]);
    assert_eq!(look(&place, 0), (0, 0));

    // A copy is written back: the same rows again.
    database.run("INSERT INTO orders SELECT * FROM old_orders WHERE order_id = 1");
    assert_eq!(look(&place, 1), (1, 0));
    let told = place.program().json(&["verify", "erased", "--keys"]).ends(1);
    let found = &told.list("found")[0];
    assert_eq!((&found["collection"], &found["verdict"]), (&"orders".into(), &"resurrected".into()), "{told}");
    assert_eq!(found["key"], serde_json::json!(["1"]), "{told}");

    // Altered, but by its time from before; then one that is from later.
    database.run("UPDATE orders SET total = 99 WHERE order_id = 1");
    assert_eq!(look(&place, 1), (1, 0));
    database.run("UPDATE orders SET completed_at = '2999-01-01 00:00:00' WHERE order_id = 1");
    assert_eq!(look(&place, 0), (0, 1));

    // The customer comes again: new rows. Then the old ones.
    database.run("INSERT INTO customers VALUES ('c-1003', 'Somebody Else', NULL)");
    database.run("INSERT INTO orders VALUES (500, 'c-1003', '2999-01-01 00:00:00', 5)");
    assert_eq!(look(&place, 0), (0, 3));
    database.run("DELETE FROM orders WHERE order_id = 500; DELETE FROM customers WHERE customer_id = 'c-1003'");
    database.run("INSERT INTO customers SELECT * FROM old_customers WHERE customer_id = 'c-1003'");
    assert_eq!(look(&place, 1), (1, 1));

    // The monthly job says so, and `status` that it failed.
    let job = place.program().json(&["job", "run", "verify"]).ends(1);
    assert!(job.out.contains("resurrected: 1 rows"), "{job}");
    place.good(&["log", "query", "--operation", "verify.erased"]).says(&["RESURRECTED"]);
    place.good(&["log", "verify"]);
}

/// The newest certificate: its result, limitations, reason for replacing another, and rows found in `shop/orders`.
fn newest(place: &Workplace) -> (String, bool, String, u64, Value) {
    let said = place.good(&["certificate", "show", "latest"]).document()["statement"]["predicate"].clone();
    let is_told = said["limitations"].as_array().unwrap().iter().any(|code| code == "FOUND_AGAIN");
    let targets = said["targets"].as_array().unwrap();
    let orders = targets.iter().find(|target| target["location"] == "shop/orders").unwrap();
    let found = orders["verification"]["residualFound"].as_u64().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&said["result"]), is_told, text(&said["supersedes"]["reason"]), found, said)
}

/// A shop whose due orders are erased and their keys destroyed, with a copy of the orders beside it.
fn shredded(engine: Engine) -> Option<(Workplace, Database)> {
    let place = Workplace::new();
    let database = Database::create(engine, place.path())?;
    small::fill(&database);
    database.run("CREATE TABLE old_orders AS SELECT * FROM orders");
    let ignored = "\nignored = [\"old_orders\"]\n\n[[store.collection]]\ntable = \"customers\"";
    let stores = store(&database.url()).replace("\n[[store.collection]]\ntable = \"customers\"", ignored);
    place.configure(&format!("{stores}{POLICY}"));
    place.install();
    place.good(&["backup", "run"]);
    place.good(&["erase", "--plan", &place.plan().text("hash")]);
    place.good(&["backup", "run"]);
    place.good(&["key", "shred", "--now"]);
    Some((place, database))
}

/// What is certified as gone and is there again is certified so, once, and again when it is gone.
fn certified(engine: Engine) {
    let Some((place, database)) = shredded(engine) else { return };
    let before = newest(&place);
    let result = before.0.clone();
    let count = place.certificates().len();
    assert!(!before.1 && before.3 == 0, "{:#}", before.4);
    // Everything is absent: no certificate says it once more.
    assert_eq!(look(&place, 0), (0, 0));
    assert_eq!(place.certificates().len(), count);

    database.run("INSERT INTO orders SELECT * FROM old_orders WHERE order_id IN (1, 2)");
    let looked = place.program().json(&["verify", "erased"]).ends(1);
    assert_eq!((looked.number("resurrected"), looked.list("certificates").len()), (2, 1), "{looked}");
    let (again, told, reason, found, said) = newest(&place);
    assert_eq!((again.as_str(), told, reason.as_str(), found), ("partial", true, "recheck", 2), "{said:#}");
    assert_eq!(said["supersedes"]["certificateId"], before.4["certificateId"]);
    assert!(said["absenceCheckedAt"].as_str().unwrap() > before.4["absenceCheckedAt"].as_str().unwrap(), "{said:#}");
    assert!(said["finalSince"].is_null() && said["residualDate"].is_null(), "{said:#}");
    // The same once more is no news; one more, or one fewer, is.
    assert_eq!(look(&place, 1), (2, 0));
    assert_eq!(place.certificates().len(), count + 1);
    database.run("DELETE FROM orders WHERE order_id = 1");
    place.program().json(&["job", "run", "verify"]).ends(1);
    assert_eq!((place.certificates().len(), newest(&place).3), (count + 2, 1));

    // Retention takes it again, and is certified; what was certified before is whole again.
    let again = place.good(&["erase", "--plan", &place.plan().text("hash")]);
    assert_eq!(again.number("erased"), 1, "{again}");
    let looked = place.program().json(&["verify", "erased"]).ends(0);
    assert_eq!(looked.list("certificates").len(), 1, "{looked}");
    let (now, told, reason, found, said) = newest(&place);
    assert_eq!((now, told, reason.as_str(), found), (result, false, "recheck", 0), "{said:#}");
    assert_eq!(said["targets"][0]["recordsSelected"], before.4["targets"][0]["recordsSelected"], "{said:#}");
    assert_eq!(look(&place, 0), (0, 0));
    place.good(&["job", "run", "outbox"]);
    assert_eq!(place.verify_certificates(), place.certificates().len());
    assert_eq!(place.good(&["audit", "verify"]).text("result"), "valid");
}

/// Rows that were there again are in the snapshots of that time: when they are gone once more, that is said.
fn sealed_meanwhile(engine: Engine) {
    let Some((place, database)) = shredded(engine) else { return };
    let before = newest(&place);
    database.run("INSERT INTO orders SELECT * FROM old_orders WHERE order_id IN (1, 2)");
    assert_eq!(look(&place, 1), (2, 0));
    place.good(&["backup", "run"]);
    database.run("DELETE FROM orders WHERE order_id IN (1, 2)");
    assert_eq!(look(&place, 0), (0, 0));
    let (now, told, reason, found, said) = newest(&place);
    assert_eq!((now.as_str(), told, reason.as_str(), found), ("partial", false, "recheck", 0), "{said:#}");
    assert!(said["limitations"].as_array().unwrap().iter().any(|code| code == "BACKUP_NOT_COVERED"), "{said:#}");
    assert!(said["finalSince"].is_null() && said["residualDate"].is_null(), "{said:#}");
    assert_ne!(before.4["certificateId"], said["certificateId"]);
    let count = place.certificates().len();
    assert_eq!(look(&place, 0), (0, 0));
    assert_eq!(place.certificates().len(), count, "no news, no certificate");
}

/// An undone erasure is none; a store that is away is said to be.
fn undone_and_away(engine: Engine) {
    let place = Workplace::new();
    let Some(database) = Database::create(engine, place.path()) else { return };
    small::fill(&database);
    place.configure(&format!("{}{}", store(&database.url()), POLICY.replace("grace = \"0\"", "grace = \"3 days\"")));
    place.install();
    place.good(&["backup", "run"]);
    let erased = place.good(&["erase", "--plan", &place.plan().text("hash")]);
    let run = erased.list("runs")[0].as_str().unwrap().to_owned();
    place.good(&["run", "undo", &run]);
    assert_eq!(database.rows("orders"), small::ORDERS);
    assert_eq!(look(&place, 0), (0, 0));
    database.run("ALTER TABLE orders RENAME TO orders_elsewhere");
    let looked = place.program().json(&["verify", "erased"]).ends(4);
    assert_eq!(looked.list("failed_stores").len(), 1, "{looked}");
}

macro_rules! on {
    ($($module:ident $engine:expr),*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn a_certificate_of_what_came_back_is_replaced_and_replaced_again_when_it_is_gone() {
                certified($engine);
            }

            #[test]
            fn snapshots_of_what_was_there_again_are_said_to_have_it() {
                sealed_meanwhile($engine);
            }

            #[test]
            fn what_came_back_is_told_from_what_is_new() {
                told_apart($engine);
            }

            #[test]
            fn an_undone_erasure_is_none_and_a_store_that_is_away_is_named() {
                undone_and_away($engine);
            }
        }
    )*};
}

on!(sqlite Engine::Sqlite, postgres Engine::Postgres, mariadb Engine::Mysql);
