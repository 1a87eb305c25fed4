//! Nothing is called better than it is: failures, skipped stores and work that was refused show until they are mended.

use wangchuan::stores::Engine;

use super::database::Database;
use super::small;
use super::workplace::Workplace;
use crate::support::program::Outcome;

/// Makes every DELETE of an order fail, by a trigger that is declared harmless.
fn refuse_deletes(place: &Workplace, database: &Database) {
    database.run("CREATE TRIGGER never BEFORE DELETE ON orders BEGIN SELECT RAISE(ABORT, 'no'); END");
    place.reconfigure("table = \"orders\"", "table = \"orders\"\ntriggers = [\"never\"]");
}

/// The codes of what needs a person.
fn overdue(place: &Workplace) -> Vec<String> {
    let status = place.program().json(&["status"]);
    let codes: Vec<String> =
        status.list("overdue").iter().map(|item| item["code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(status.code(), Some(if codes.is_empty() { 0 } else { 5 }), "{status}");
    codes
}

fn says_of(outcome: &Outcome, code: &str) -> String {
    let items = outcome.list("overdue");
    let item = items.iter().find(|item| item["code"] == code).unwrap_or_else(|| panic!("no {code}\n{outcome}"));
    item["what"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_of_which_every_row_failed_is_failed_until_it_is_mended() {
    let (place, database) = small::installed();
    let first = place.good(&["backup", "run"]).list("snapshots")[0]["snapshot"].as_str().unwrap().to_owned();
    place.good(&["drill", "run"]);
    assert_eq!(overdue(&place), Vec::<String>::new());
    refuse_deletes(&place, &database);
    let plan = place.plan();
    let erased = place.program().json(&["erase", "--plan", &plan.text("hash")]).ends(1);
    assert_eq!((erased.text("result").as_str(), erased.number("failed")), ("failed", small::DUE), "{erased}");
    small::is_untouched(&database);
    let run = erased.list("runs")[0].as_str().unwrap().to_owned();
    let shown = place.good(&["run", "show", &run]);
    assert_eq!((shown.text("state").as_str(), shown.number("failed")), ("failed", small::DUE), "{shown}");
    assert_eq!(overdue(&place), ["run-failed"]);
    let status = place.program().json(&["status"]);
    assert!(says_of(&status, "run-failed").contains("4 rows failed"), "{status}");

    // However often it is tried, no key dies for rows that are alive, and it is listed once.
    let (_, newest) = place.certificates().pop().unwrap();
    assert_eq!(place.good(&["certificate", "show", &newest]).text("result"), "failed");
    place.program().json(&["agent", "--once"]).ends(4);
    place.good(&["backup", "run"]);
    place.program().json(&["job", "run", "shred"]);
    for key in place.good(&["key", "list"]).list("keys") {
        let is_of_rows = ["subjects", "buckets", "pins"].contains(&key["kind"].as_str().unwrap());
        assert!(!is_of_rows || key["run"].is_null(), "a key dies with a run that erased nothing: {key}");
    }
    let codes = overdue(&place);
    assert!(codes.contains(&"run-failed".to_owned()) && codes.len() <= 2, "{codes:?}");
    let restored = place.good(&["restore", &first, "--to", "sqlite://restored.db"]);
    assert_eq!(Database::at(&place.file("restored.db")).rows("orders"), small::ORDERS, "{restored}");

    database.run("DROP TRIGGER never");
    place.good(&["agent", "--once"]);
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    assert_eq!(overdue(&place), Vec::<String>::new());
    place.program().run(&["status"]).ends(0).says(&["nothing is overdue"]);
    assert!(place.verify_certificates() >= 2);
}

#[test]
fn a_failing_task_and_a_skipped_store_show_in_the_status() {
    let (place, database) = small::installed();
    place.good(&["agent", "--once"]);
    place.good(&["drill", "run"]);
    assert_eq!(overdue(&place), Vec::<String>::new());
    let url = database.url();
    let away = "sqlite://nowhere/shop.db";
    place.reconfigure(&url, away);
    place.program().json(&["agent", "--once"]);
    let codes = overdue(&place);
    assert!(codes.contains(&"task-failed".to_owned()), "{codes:?}");
    let status = place.program().json(&["status"]);
    assert!(says_of(&status, "task-failed").contains("shop"), "{status}");
    // The switch that stops destruction is no failure.
    place.reconfigure(away, &url);
    place.good(&["agent", "--once"]);
    assert_eq!(overdue(&place), Vec::<String>::new());
    place.good(&["agent", "hold"]);
    place.program().json(&["agent", "--once"]);
    assert_eq!(overdue(&place), Vec::<String>::new());
}

#[test]
fn a_store_that_was_left_out_shows_until_it_is_reached() {
    let (place, _database) = small::installed();
    place.good(&["backup", "run"]);
    place.good(&["drill", "run"]);
    let other = "[[store]]\nname = \"crm\"\nbackup = \"none\"\nurl = \"sqlite://crm.db\"\n\n[[store.collection]]\n\
                 table = \"people\"\nsubject = \"id\"\n\n[[policy]]";
    place.reconfigure("[[policy]]", other);
    let plan = place.program().json(&["plan"]).ends(4);
    place.program().json(&["erase", "--plan", &plan.text("hash")]).ends(4);
    let status = place.program().json(&["status"]).ends(5);
    assert!(says_of(&status, "store-skipped").contains("crm"), "{status}");
    place.reconfigure(other, "[[policy]]");
    place.good(&["agent", "--once"]);
    assert_eq!(overdue(&place), Vec::<String>::new());
}

#[test]
fn a_plan_beyond_its_cap_is_shown_and_refused_only_when_carried_out() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    place.reconfigure("max = { rows = 1000, percent = 100 }", "max = { rows = 3, percent = 100 }");
    let said = place.program().run(&["plan"]).ends(3);
    said.says(&["shop.orders", "old-orders", "4 of 8 rows", "3 rows", "`max`", "first backlog"]);
    let plan = place.program().json(&["plan"]).ends(3);
    assert_eq!((plan.text("result").as_str(), plan.number("due")), ("refused", small::DUE), "{plan}");
    let over = plan.list("over_cap");
    assert_eq!((over.len(), &over[0]["policy"], &over[0]["rows"]), (1, &"old-orders".into(), &4.into()), "{plan}");
    let refused = place.program().json(&["erase", "--plan", &plan.text("hash")]);
    refused.refuses(3, &["old-orders", "cap", "`max`"]);
    place.program().json(&["agent", "--once"]).ends(4).says(&["old-orders", "cap"]);
    small::is_untouched(&database);
}

#[test]
fn what_a_plan_strips_and_what_was_read_back_have_counts_of_their_own() {
    let (place, _database) = small::installed();
    place.good(&["backup", "run"]);
    place.program().reading("c-1002\n").json(&["request", "new", "-", "--yes"]).ends(0);
    // The statute keeps the newer order of the customer, and with it the customer, stripped.
    place.reconfigure("basis = \"contract\"", "basis = \"contract\"\nstatutes = [\"cn.ecl.31\"]");
    let said = place.program().run(&["request", "run", "1"]).ends(0);
    said.says(&["1 erased + 3 kept (1 of them stripped)", "1 read back as absent, 1 read back as stripped"]);
    let shown = place.good(&["run", "list"]).list("runs").remove(0);
    assert_eq!((&shown["kept"], &shown["stripped"]), (&3.into(), &1.into()), "{shown}");
}

#[test]
fn explain_says_what_keeps_a_record() {
    let (place, _database) = small::installed();
    place.good(&["hold", "place", "case-9", "--store", "shop", "--reason", "audit"]);
    let held = place.good(&["explain", "shop", "orders", "1"]);
    assert_eq!(held.document()["hold"], "case-9", "{held}");
    place.program().run(&["explain", "shop", "orders", "1"]).ends(0).says(&["Due since", "Hold case-9 keeps it"]);
    place.good(&["hold", "release", "case-9"]);
    let free = place.good(&["explain", "shop", "orders", "1"]);
    assert!(free.document()["hold"].is_null(), "{free}");
}

#[test]
fn a_key_of_several_columns_is_asked_for_in_order() {
    let place = Workplace::new();
    let database = Database::create(Engine::Sqlite, place.path()).unwrap();
    database.run("CREATE TABLE lines (order_id INTEGER, line INTEGER, at TEXT, PRIMARY KEY (order_id, line))");
    let store = "[[store]]\nname = \"shop\"\nurl = \"URL\"\n[[store.collection]]\ntable = \"lines\"\n";
    place.configure(&store.replace("URL", &database.url()));
    place.install();
    let refused = place.program().json(&["explain", "shop", "lines", "1,2"]);
    refused.refuses(2, &["2 columns", "separate arguments", "explain shop lines <order_id> <line>"]);
}

#[test]
fn one_request_that_cannot_run_does_not_hide_the_others() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    for id in ["c-1001\n", "c-1002\n", "c-1003\n"] {
        place.program().reading(id).json(&["request", "new", "-", "--yes"]).ends(0);
    }
    database.run(
        "CREATE TRIGGER never BEFORE DELETE ON orders WHEN old.customer_id = 'c-1002' BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    // Nobody declared the trigger, and so every request that deletes orders is refused, each by itself.
    let done = place.program().json(&["request", "run"]).ends(3);
    let refused = done.list("not_run");
    assert_eq!(refused.len(), 3, "{done}");
    assert_eq!((&refused[0]["request"], &refused[2]["request"]), (&1.into(), &3.into()), "{done}");
    place.reconfigure("table = \"orders\"", "table = \"orders\"\ntriggers = [\"never\"]");
    let done = place.program().json(&["request", "run"]).ends(4);
    assert_eq!((done.list("runs").len(), done.list("details").len()), (3, 3), "{done}");
    assert_eq!(database.rows("customers"), 1);
}

#[test]
fn a_retention_of_nothing_is_warned_of() {
    let (place, _database) = small::installed();
    place.reconfigure("retention = \"3 years\"", "retention = \"0 days\"");
    let checked = place.good(&["config", "check"]);
    let warnings = checked.list("warnings");
    assert!(warnings.iter().any(|text| text.as_str().unwrap().contains("old-orders: its retention is 0")), "{checked}");
    place.program().run(&["plan"]).says(&["old-orders", "as soon as"]);
}

#[test]
fn a_store_out_of_reach_holds_up_no_keys_of_another() {
    let (place, database) = small::installed();
    let archive = Database::create(Engine::Sqlite, place.path()).unwrap();
    archive.run(
        "CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT); INSERT INTO people VALUES ('p-1', 'Somebody Else')",
    );
    let other = "[[store]]\nname = \"archive\"\nurl = \"URL\"\n\n[[store.collection]]\ntable = \"people\"\nsubject = \"id\"\n\n[[policy]]";
    place.reconfigure("[[policy]]", &other.replace("URL", &archive.url()));
    place.good(&["backup", "run"]);
    place.reconfigure(&archive.url(), "sqlite://nowhere/archive.db");
    let plan = place.program().json(&["plan"]).ends(4);
    let erased = place.program().json(&["erase", "--plan", &plan.text("hash")]).ends(4);
    assert_eq!(erased.number("erased"), small::DUE, "{erased}");
    let pass = place.program().json(&["agent", "--once"]).ends(4).says(&["archive was not backed up"]);
    let runs = place.good(&["run", "list"]).list("runs");
    assert_eq!(runs[0]["state"], "shredded", "{runs:?}\n{pass}");
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
}

#[test]
fn a_part_of_a_plan_is_shown_and_never_carried_out() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let part = place.good(&["plan", "--policy", "old-orders", "--store", "shop"]);
    let shown = part.list("collections");
    assert_eq!(
        (shown.len(), part.number("due"), &part.document()["executable"]),
        (1, small::DUE, &false.into()),
        "{part}"
    );
    place.program().json(&["erase", "--plan", &part.text("hash")]).refuses(3, &["void"]);
    place.program().json(&["plan", "--policy", "old-order"]).refuses(2, &["old-order", "old-orders"]);
    place.program().json(&["plan", "--store", "shp"]).refuses(2, &["shp", "shop"]);
    small::is_untouched(&database);
}

#[test]
fn what_never_dies_is_not_called_outstanding_of_nothing() {
    let (place, _database) = small::installed();
    let copy = "table = \"orders\"\nsubject = \"customer_id\"\n\n[[store.copy]]\nname = \"tape\"\nkind = \"dump\"\ndies = \"never\"";
    place.reconfigure("table = \"orders\"\nsubject = \"customer_id\"", copy);
    place.good(&["agent", "--once"]);
    let shown = place.program().run(&["certificate", "show", "latest"]).ends(0);
    shown.says(&["residual date: none can be named"]).never_says("none outstanding");
}
