//! Every kind of copy of one customer, and what the certificates say of each: what happened to it, and until when it opens.

use serde_json::Value;
use wangchuan::stores::Engine;

use super::database::Database;
use super::small;
use super::workplace::Workplace;
use crate::support::announce::{POSTGRES, switched_on};
use crate::support::program::Running;
use crate::support::replica::Replica;

const SOON: std::time::Duration = std::time::Duration::from_mins(1);

/// An export that is thrown away after a month, as whoever makes it declares.
const EXPORT: &str = "\n[[store.copy]]\nname = \"crm-export\"\nkind = \"export\"\ndies = \"30 days\"\n";

fn replica_entry(name: &str, replica: &Replica, database: &Database) -> String {
    let address = format!("postgres://postgres@127.0.0.1:{}/{}", replica.port, database.name());
    format!("\n[[store.replica]]\nname = \"{name}\"\nurl = \"{address}\"\nmax_lag_ms = 3000\n")
}

/// What the newest certificate says.
fn newest(place: &Workplace) -> Value {
    let (_, id) = place.certificates().pop().unwrap();
    place.good(&["certificate", "show", &id]).document()["statement"]["predicate"].clone()
}

fn copy<'s>(said: &'s Value, name: &str) -> &'s Value {
    let orders = said["targets"].as_array().unwrap().iter().find(|target| target["location"] == "shop/orders").unwrap();
    orders["copies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|copy| copy["copyRef"] == name)
        .unwrap_or_else(|| panic!("no {name} in {orders:#}"))
}

fn codes(said: &Value) -> Vec<&str> {
    said["limitations"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect()
}

/// A request that stands still behind the batch in which the orders went.
fn stopped(place: &Workplace) -> Running {
    let mut running =
        place.program().with("WANGCHUAN_PAUSE_AT", "batch.recorded:2").start(&["request", "run", "--json"]);
    assert!(running.comes_to_a_halt(SOON), "{:?}", running.said());
    running
}

/// The shop with its export and its replicas, rows and customers each with a period.
fn configure(place: &Workplace, shop: &Database, entries: &str) {
    let store = small::store(&shop.url());
    let store = store.replacen("\n[[store.collection]]", &format!("{EXPORT}{entries}\n[[store.collection]]"), 1);
    let gone = small::POLICY.replace("old-orders", "gone-customers").replace("\"orders\"", "\"customers\"");
    let gone = gone.replace("completed_at", "left_at");
    shop.run("ALTER TABLE customers ADD COLUMN left_at TIMESTAMP");
    place.configure(&format!("{store}{}{gone}", small::POLICY));
    place.install();
}

#[test]
fn eight_copies_of_a_customer_are_certified_each_with_its_end() {
    let Some(shared) = switched_on(POSTGRES) else { return };
    let place = Workplace::new();
    // A server of its own: on the shared one other tests keep old row versions, and then nothing is complete.
    let own = Replica::of(&shared);
    own.promote();
    let primary = format!("postgres://postgres@127.0.0.1:{}", own.port);
    let shop = Database::create_on(primary.clone(), Engine::Postgres, place.path());
    small::fill(&shop);
    let replicas = [Replica::of(&format!("{primary}/postgres")), Replica::of(&format!("{primary}/postgres"))];
    let entries: String =
        replicas.iter().zip(["r1", "r2"]).map(|(replica, name)| replica_entry(name, replica, &shop)).collect();
    configure(&place, &shop, &entries);

    // One full snapshot and three increments hold the customer's rows.
    place.good(&["backup", "run"]);
    for total in ["70", "71", "72"] {
        shop.run(&format!("UPDATE orders SET total = {total} WHERE customer_id = 'c-1001'"));
        place.good(&["backup", "run"]);
    }
    let snapshots = place.good(&["backup", "list"]).list("snapshots");
    assert_eq!(snapshots.len(), 4, "{snapshots:?}");

    // The rows went in the primary; of one replica nobody knows any more.
    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    let running = stopped(&place);
    assert_eq!(shop.rows_where("orders", "customer_id = 'c-1001'"), 0);
    replicas[1].asked("postgres", "SELECT pg_wal_replay_pause()");
    let (code, said) = running.signal("CONT", SOON);
    assert!(matches!(code, Some(0 | 4)), "{said}");
    place.good(&["backup", "run", "--full"]);
    place.good(&["key", "shred", "--now"]);
    let said = newest(&place);
    assert_eq!(said["result"], "partial", "{said:#}");
    assert!(codes(&said).contains(&"RESIDUE_PENDING") && codes(&said).contains(&"COPY_UNREAD"), "{said:#}");
    assert_eq!((&copy(&said, "r1")["state"], &copy(&said, "r2")["state"]), (&"absent".into(), &"unread".into()));
    assert!(said.get("residualDate").is_none(), "a date although a copy was not read: {said:#}");

    // It is asked again by itself, and another certificate says so.
    place.good(&["job", "run", "shred"]);
    assert_eq!(newest(&place)["result"], "partial");
    replicas[1].asked("postgres", "SELECT pg_wal_replay_resume()");
    let begun = std::time::Instant::now();
    while newest(&place)["result"] == "partial" && begun.elapsed() < SOON {
        place.good(&["job", "run", "shred"]);
    }
    let said = newest(&place);
    assert_eq!(said["result"], "complete", "{said:#}");
    assert!(said["supersedes"]["certificateId"].is_string(), "{said:#}");
    tells_of_all(&said, &snapshots);
    for replica in &replicas {
        assert_eq!(replica.asked(shop.name(), "SELECT count(*) FROM orders WHERE customer_id = 'c-1001'"), "0");
    }
    answered(&place, copy(&said, "crm-export"));
    place.good(&["audit", "flush"]);
    place.verify_certificates();
}

/// The same in one answer: of the copies only the export is left, until its date.
fn answered(place: &Workplace, export: &Value) {
    let about = place.program().reading("c-1001\n").json(&["certificate", "about", "-"]).ends(0);
    assert_eq!(about.text("left"), "shredded", "{about}");
    let places = about.list("places");
    let of = |name: &str| places.iter().find(|found| found["kind"] == "copy" && found["name"] == name).unwrap().clone();
    assert_eq!((&of("shop/r1")["state"], &of("shop/r2")["state"]), (&"gone".into(), &"gone".into()), "{about}");
    let left = of("shop/crm-export");
    assert_eq!((&left["state"], &left["until"]), (&"there".into(), &export["diesBy"]), "{about}");
}

/// What the last certificate says of each copy.
#[track_caller]
fn tells_of_all(said: &Value, snapshots: &[Value]) {
    // Live rows: looked for again by another session.
    let live = said["targets"].as_array().unwrap();
    assert!(live.iter().all(|target| target["verification"]["residualFound"] == 0), "{said:#}");
    assert!(live.iter().all(|target| target["verification"]["method"] == "full-readback"), "{said:#}");
    // Two replicas show it.
    for name in ["r1", "r2"] {
        assert_eq!(copy(said, name)["state"], "absent", "{said:#}");
    }
    // One full snapshot and three increments, whose key is gone.
    let sealed = said["backupCopies"].as_array().unwrap();
    let of = |kind: &str| sealed.iter().filter(|copy| copy["kind"] == kind && copy["state"] == "erased").count();
    assert_eq!((sealed.len(), of("full"), of("incremental")), (4, 1, 3), "{said:#}");
    let known: Vec<&Value> = snapshots.iter().map(|snapshot| &snapshot["snapshot"]).collect();
    assert!(sealed.iter().all(|copy| known.contains(&&copy["snapshot"])), "{sealed:?} {known:?}");
    // An export of somebody else's, with its date, which is the last one.
    let export = copy(said, "crm-export");
    assert_eq!((&export["state"], &said["residualDate"]), (&"expires".into(), &export["diesBy"]), "{said:#}");
    assert!(export["diesBy"].is_string() && codes(said).contains(&"COPY_DECLARED"), "{said:#}");
}
