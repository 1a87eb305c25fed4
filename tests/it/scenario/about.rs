//! Is this customer gone, and which copy until when? And back from a certificate to what led to it.

use serde_json::Value;
use wangchuan::stores::Engine;

use super::database::Database;
use super::small::{self, POLICY, store};
use super::workplace::Workplace;
use crate::support::program::Outcome;

/// A declared copy that lives for a month, beside what the program makes itself.
const COPY: &str = "\n[[store.copy]]\nname = \"night-dump\"\nkind = \"dump\"\ndies = \"30 days\"\n";

/// Customers go without grace too.
const CUSTOMERS: &str = "\n[[policy]]\nid = \"gone-customers\"\ncollections = [\"customers\"]\nretention = \"3 years\"\nstart = \"left_at\"\n\
     action = \"delete\"\nbasis = \"contract\"\ngrace = \"0\"\n";

fn placed() -> Option<(Workplace, Database)> {
    let place = Workplace::new();
    let database = Database::create(Engine::Sqlite, place.path())?;
    small::fill(&database);
    database.run("ALTER TABLE customers ADD COLUMN left_at TEXT");
    let registered =
        store(&database.url()).replacen("\n[[store.collection]]", &format!("{COPY}\n[[store.collection]]"), 1);
    place.configure(&format!("{registered}{POLICY}{CUSTOMERS}"));
    place.install();
    place.good(&["backup", "run"]);
    Some((place, database))
}

#[track_caller]
fn about(place: &Workplace, id: &str, code: i32) -> Outcome {
    let outcome = place.program().reading(&format!("{id}\n")).json(&["certificate", "about", "-"]).ends(code);
    assert!(!outcome.out.contains(id) && !outcome.err.contains(id), "{outcome}");
    outcome
}

/// The state and date of the one place of this kind and name.
#[track_caller]
fn place_of<'d>(document: &'d Value, kind: &str, name: &str) -> (&'d str, &'d Value) {
    let places = document["places"].as_array().unwrap();
    let mut found = places.iter().filter(|place| place["kind"] == kind && place["name"] == name);
    let place = found.next().unwrap_or_else(|| panic!("no {kind} {name} in {document:#}"));
    assert!(found.next().is_none(), "{document:#}");
    (place["state"].as_str().unwrap(), &place["until"])
}

#[test]
fn one_answer_says_whether_a_customer_is_gone_and_which_copy_opens_until_when() {
    let Some((place, database)) = placed() else { return };
    let nobody = about(&place, "c-9999", 0);
    assert_eq!(
        (nobody.text("left"), nobody.text("result")),
        ("nothing-known".into(), "nothing-found".into()),
        "{nobody}"
    );
    let there = about(&place, "c-1001", 0);
    assert_eq!(there.text("left"), "present", "{there}");
    let orders =
        there.document()["places"].as_array().unwrap().iter().find(|at| at["name"] == "shop/orders").unwrap().clone();
    assert_eq!((orders["state"].as_str(), orders["rows"].as_u64()), (Some("there"), Some(3)), "{there}");

    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    assert_eq!(about(&place, "c-1001", 0).text("left"), "present");
    place.good(&["request", "run"]);
    place.good(&["backup", "run"]);
    let pending = about(&place, "c-1001", 0);
    let document = pending.document();
    assert_eq!(pending.text("left"), "shred-pending", "{pending}");
    assert_eq!(place_of(&document, "live", "shop/orders").0, "gone", "{pending}");
    assert_eq!(place_of(&document, "backups", "shop/orders").0, "there", "{pending}");
    assert_eq!(place_of(&document, "copy", "shop/night-dump").0, "there", "{pending}");

    place.good(&["key", "shred", "--now"]);
    place.good(&["job", "run", "outbox"]);
    let shredded = about(&place, "c-1001", 0);
    let document = shredded.document();
    assert_eq!(shredded.text("left"), "shredded", "{shredded}");
    assert_eq!(place_of(&document, "backups", "shop/orders").0, "gone", "{shredded}");
    let (state, until) = place_of(&document, "copy", "shop/night-dump");
    assert!(state == "there" && until.is_string(), "{shredded}");
    // The root lies in a file: copies of the host have no date, and so there is none for the whole.
    assert!(document["gone_after"].is_null(), "{shredded}");
    assert!(document["places"].as_array().unwrap().iter().any(|at| at["residual"] == "host-copies"), "{shredded}");
    let certified = &document["requests"][0];
    assert_eq!(
        (certified["run_state"].as_str(), certified["state"].as_str()),
        (Some("shredded"), Some("done")),
        "{shredded}"
    );
    let number = certified["sequence"].as_i64().unwrap();
    assert_eq!(place.good(&["certificate", "show", &number.to_string()]).text("certificate"), certified["certificate"]);

    // Removed by the application alone: nobody erased it, and backups open.
    database.run("DELETE FROM orders WHERE customer_id = 'c-1003'; DELETE FROM customers WHERE customer_id = 'c-1003'");
    let removed = about(&place, "c-1003", 0);
    assert_eq!((removed.text("left"), removed.list("requests").len()), ("shred-pending".into(), 0), "{removed}");
    assert_eq!(place_of(&removed.document(), "backups", "shop").0, "there", "{removed}");

    // Others are not concerned, and one who came back is there.
    assert_eq!(about(&place, "c-1002", 0).text("left"), "present");
    database.run("INSERT INTO customers VALUES ('c-1001', 'Zhang Again', 'again@canary.example', NULL)");
    assert_eq!(about(&place, "c-1001", 0).text("left"), "present");
    let words = place.program().reading("c-1001\n").with("LANG", "zh_CN.UTF-8").run(&[
        "certificate",
        "about",
        "-",
        "--lang",
        "zh",
    ]);
    assert!(words.out.contains("尚未删除") && !words.out.contains("c-1001"), "{words}");
    let logged = place.good(&["log", "query", "--operation", "certificate.about"]);
    assert_eq!(logged.list("entries").len(), 9, "{logged}");
}

#[test]
fn a_store_that_cannot_be_read_leaves_the_answer_open() {
    let Some((place, database)) = placed() else { return };
    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "run"]);
    place.reconfigure(&database.url(), "sqlite://nowhere/at-all.db");
    let open = about(&place, "c-1001", 4);
    assert_eq!((open.text("left"), open.text("result")), ("unknown".into(), "partial".into()), "{open}");
    assert_eq!(open.list("failed_stores").len(), 1, "{open}");
}

#[test]
fn a_certificate_leads_back_to_request_plan_run_log_and_keys() {
    let Some((place, _database)) = placed() else { return };
    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    let run = place.good(&["request", "run"]).list("runs")[0].as_str().unwrap().to_owned();
    place.good(&["backup", "run"]);
    place.good(&["key", "shred", "--now"]);
    place.good(&["job", "run", "outbox"]);
    let listed = place.good(&["certificate", "list"]);
    let traced = place.good(&["certificate", "trace", "latest"]);
    let document = traced.document();
    assert_eq!(document["versions"].as_array().unwrap().len(), listed.list("certificates").len(), "{traced}");
    assert_eq!(document["filing"]["state"], "receipted", "{traced}");
    assert_eq!(
        (document["request_details"]["request"].as_i64(), document["run_details"]["run"].as_str()),
        (Some(1), Some(&*run)),
        "{traced}"
    );
    assert_eq!(document["run_details"]["state"], "shredded", "{traced}");
    assert_eq!(document["keys"].as_array().unwrap().len(), 1, "{traced}");
    assert_eq!(document["plan_details"]["hash"].as_str().unwrap().len(), 64, "{traced}");
    let log: Vec<&str> =
        document["log"].as_array().unwrap().iter().filter_map(|entry| entry["operation"].as_str()).collect();
    for operation in ["request.new", "run.begin", "run.end", "key.shred", "certificate.issue"] {
        assert!(log.contains(&operation), "no {operation} in {log:?}");
    }
    // Entries about others' runs are not among them.
    place.program().reading("c-1002\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "run"]);
    let again = place.good(&["certificate", "trace", listed.list("certificates")[0].as_str().unwrap()]).document();
    assert!(again["log"].as_array().unwrap().iter().all(|entry| entry["object"] != "request-2"), "{again:#}");
    place.program().json(&["certificate", "trace", "99"]).ends(2);
}
