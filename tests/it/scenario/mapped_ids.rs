//! Two stores of one company that know a customer by different ids. The second one's mapping table is a collection like others: its key is
//! the local id, its subject the customer's id of the first store, and tables with the local id lead to it. And a request that finds
//! one of the two stores away.

use std::path::PathBuf;

use chrono::{SecondsFormat, TimeDelta};
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::stores::Engine;

use super::database::Database;
use super::small;
use super::workplace::Workplace;

/// The call centre: `tickets` and their `messages` carry the contact's id; `contact_links` says who that is. A contact whom nobody
/// linked is no customer that the company knows.
fn fill(database: &Database) {
    let options = if database.engine() == Engine::Mysql { " ENGINE=InnoDB" } else { "" };
    database.run(&format!(
        "CREATE TABLE contact_links (contact_id VARCHAR(40) NOT NULL PRIMARY KEY, customer VARCHAR(20) NOT NULL){options};
         CREATE TABLE tickets (ticket_id INTEGER NOT NULL PRIMARY KEY, contact VARCHAR(40) NOT NULL, what VARCHAR(60)){options};
         CREATE TABLE messages (message_id INTEGER NOT NULL PRIMARY KEY, ticket_id INTEGER NOT NULL, text VARCHAR(60)){options};
         CREATE INDEX by_customer ON contact_links (customer);
         CREATE INDEX by_contact ON tickets (contact);
         CREATE INDEX by_ticket ON messages (ticket_id);
         INSERT INTO contact_links VALUES ('call-a1', 'c-1001'), ('call-a2', 'c-1001'), ('call-b', 'c-1002');
         INSERT INTO tickets VALUES (1, 'call-a1', 'first canary'), (2, 'call-a2', 'second canary'), (3, 'call-b', 'third'),
             (4, 'call-nobody', 'fourth');
         INSERT INTO messages VALUES (10, 1, 'canary one'), (11, 1, 'canary two'), (12, 2, 'canary three'), (13, 3, 'of another'),
             (14, 4, 'of nobody')"
    ));
}

fn store(url: &str) -> String {
    format!(
        r#"
[[store]]
name = "calls"
url = "{url}"

[[store.collection]]
table = "contact_links"
subject = "customer"

[[store.collection]]
table = "tickets"
via = ["contact -> contact_links"]

[[store.collection]]
table = "messages"
via = ["ticket_id -> tickets"]
"#
    )
}

fn asks(place: &Workplace, customer: &str) {
    place.program().reading(&format!("{customer}\n")).json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "run"]);
}

fn story(calls: &Database, place: &Workplace) {
    let shop = Database::create(Engine::Sqlite, place.path()).unwrap();
    small::fill(&shop);
    fill(calls);
    place.configure(&format!("{}{}{}", small::store(&shop.url()), store(&calls.url()), small::POLICY));
    place.install();
    let first = place.good(&["backup", "run"]);

    asks(place, "c-1001");
    // Both contacts of the one customer are gone with all that hangs on them, and the link itself; nothing else is.
    assert_eq!((calls.rows("contact_links"), calls.rows("tickets"), calls.rows("messages")), (1, 2, 2));
    assert_eq!(calls.rows_where("tickets", "contact IN ('call-b', 'call-nobody')"), 2);
    assert_eq!(shop.rows_where("customers", "customer_id = 'c-1001'"), 0);
    let newest = place.good(&["certificate", "show", "latest"]).document();
    let targets = newest["statement"]["predicate"]["targets"].as_array().unwrap().clone();
    assert!(targets.len() >= 2, "{newest:#}");

    // The keys die with both stores' rows: of the old snapshot the one who asked comes back from neither.
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "shred"]);
    let snapshots = first.list("snapshots");
    let first = snapshots.iter().find(|row| row["store"] == "calls").unwrap();
    let into = Database::create(calls.engine(), place.path()).unwrap();
    place.good(&["restore", first["snapshot"].as_str().unwrap(), "--to", &into.url()]);
    assert_eq!((into.rows("contact_links"), into.rows("tickets"), into.rows("messages")), (1, 2, 2));
    // A hold on another customer holds what is hers under the other id.
    place
        .program()
        .reading("c-1002\n")
        .json(&["hold", "place", "case-17", "--subject", "-", "--reason", "lawsuit"])
        .ends(0);
    place.program().reading("c-1002\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.program().json(&["request", "run"]);
    assert_eq!((calls.rows("contact_links"), calls.rows("tickets"), calls.rows("messages")), (1, 2, 2));
    place.good(&["job", "run", "outbox"]);
    assert!(place.verify_certificates() > 0);
}

#[test]
fn one_request_finds_both_ids_on_sqlite() {
    let place = Workplace::new();
    story(&Database::create(Engine::Sqlite, place.path()).unwrap(), &place);
}

#[test]
fn one_request_finds_both_ids_on_postgresql() {
    let place = Workplace::new();
    if let Some(calls) = Database::create(Engine::Postgres, place.path()) {
        story(&calls, &place);
    }
}

#[test]
fn one_request_finds_both_ids_on_mariadb() {
    let place = Workplace::new();
    if let Some(calls) = Database::create(Engine::Mysql, place.path()) {
        story(&calls, &place);
    }
}

/// Both stores, backed up; then the second is away, and a customer asks. Returns its file meanwhile.
fn asked_while_away() -> (Workplace, Database, Database, PathBuf) {
    let place = Workplace::new();
    let shop = Database::create(Engine::Sqlite, place.path()).unwrap();
    let calls = Database::create(Engine::Sqlite, place.path()).unwrap();
    small::fill(&shop);
    fill(&calls);
    place.configure(&format!("{}{}{}", small::store(&shop.url()), store(&calls.url()), small::POLICY));
    place.install();
    place.good(&["backup", "run"]);
    let away = place.file("calls-away.db");
    std::fs::rename(calls.file(), &away).unwrap();
    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    let run = place.program().json(&["request", "run"]).ends(4);
    assert_eq!(run.list("skipped")[0]["store"], "calls", "{run}");
    assert_eq!(shop.rows_where("customers", "customer_id = 'c-1001'"), 0, "what could be reached is gone");
    assert_eq!(place.good(&["request", "show", "1"]).text("state"), "waiting");
    // It is on nobody's list before its date, and is when that is past.
    let late = |at: &str| place.program().json(&["status", "--at", at]).says(&["request 1 is past its date"]);
    let far = (SystemClock.now() + TimeDelta::days(60)).to_rfc3339_opts(SecondsFormat::Secs, true);
    late(&far);
    (place, shop, calls, away)
}

#[test]
fn a_request_stays_open_until_a_store_that_was_away_is_done_too() {
    let (place, shop, calls, away) = asked_while_away();
    let newest = place.good(&["certificate", "show", "latest"]);
    assert_eq!(newest.text("result"), "partial", "{newest}");
    // Nothing has come of itself: it is tried again after a day. What the person leaves meanwhile where it was looked before is hers.
    place.program().json(&["agent", "--once"]);
    assert_eq!(place.good(&["request", "show", "1"]).text("state"), "waiting");
    shop.run("INSERT INTO customers VALUES ('c-1001', 'Zhang again', 'again@canary.example')");

    std::fs::rename(&away, calls.file()).unwrap();
    place.good(&["request", "run", "1"]);
    assert_eq!((calls.rows("contact_links"), calls.rows("tickets"), calls.rows("messages")), (1, 2, 2));
    assert_eq!(shop.rows_where("customers", "customer_id = 'c-1001'"), 1, "who came back stays");
    let request = place.good(&["request", "show", "1"]);
    assert_eq!(request.text("state"), "done", "{request}");
    place.good(&["job", "run", "outbox"]);
    assert!(place.verify_certificates() >= 2);
}

#[test]
fn a_request_that_was_tried_again_in_vain_is_withdrawn_with_all_it_took() {
    let (place, shop, _calls, _away) = asked_while_away();
    place.program().json(&["request", "run", "1"]);
    assert_eq!(place.good(&["run", "list"]).list("runs").len(), 2, "the second found nothing that it could take");
    let undone = place.good(&["request", "cancel", "1"]);
    assert_eq!(undone.number("restored"), 4, "{undone}");
    assert_eq!((shop.rows("customers"), shop.rows("orders")), (3, small::ORDERS));
    assert_eq!(place.good(&["request", "show", "1"]).text("state"), "cancelled");
}

#[test]
fn a_request_whose_last_store_has_nothing_is_done_and_not_without_a_find() {
    let (place, _shop, calls, away) = asked_while_away();
    let nothing = Database::at(&away);
    nothing.run("DELETE FROM messages; DELETE FROM tickets; DELETE FROM contact_links");
    std::fs::rename(&away, calls.file()).unwrap();
    place.good(&["request", "run", "1"]);
    assert_eq!(place.good(&["request", "show", "1"]).text("state"), "done");
}
