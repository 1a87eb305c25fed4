//! Work beside work: rows that are erased while a restore or a snapshot runs.

use std::time::Duration;

use super::bad_input::surroundings::{Server, wait_in_background};
use super::database::Database;
use super::small;
use super::workplace::Workplace;
use crate::support::program::Running;

/// Long enough for a busy host.
const SOON: Duration = Duration::from_mins(2);
const TARGET: [&str; 3] = ["restore", "--to", "sqlite://back.db"];

/// The smallest shop with a bucket that belongs to no process, so that a restore needs no lease; with a first snapshot.
fn installed() -> (Workplace, Database, Server) {
    let (place, database) = small::prepared();
    let server = wait_in_background(&place);
    let access = "bucket = \"present\"\naccess_key_id = \"test\"\nsecret_access_key = \"S3cretAccessKey\"";
    let bucket = format!("endpoint = \"{}\"\n{access}", server.endpoint);
    place.reconfigure("endpoint = \"embedded\"\ndata = \"bucket\"", &bucket);
    place.install();
    place.good(&["backup", "run"]);
    (place, database, server)
}

fn paused(place: &Workplace, command: &[&str], point: &str) -> Running {
    let mut running = place.program().with("WANGCHUAN_PAUSE_AT", point).start(command);
    assert!(running.comes_to_a_halt(SOON), "{point}: {:?}", running.said());
    running
}

/// Everything up to destroyed keys and a certificate.
fn erase_and_shred(place: &Workplace, database: &Database) {
    place.good(&["agent", "--once"]);
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "shred"]);
}

#[test]
fn rows_that_are_erased_while_a_restore_runs_are_not_put_in() {
    // The last rows are put in, and indexes and references are about to be looked at, which may take long.
    are_not_put_in("restore.rows-written");
    are_not_put_in("restore.put-in");
}

fn are_not_put_in(point: &str) {
    let (place, database, _server) = installed();
    let restore = paused(&place, &TARGET, point);
    erase_and_shred(&place, &database);
    let (code, said) = restore.signal("CONT", SOON);
    assert_eq!(code, Some(3), "{point}: {said}");
    assert!(said.contains("rows were erased while the restore was running; nothing was put in"), "{point}: {said}");
    assert!(!place.file("back.db").exists(), "{point}: a half-filled database was left");
    place.good(&TARGET);
    let back = Database::at(&place.file("back.db"));
    assert_eq!(back.rows("orders"), small::ORDERS - small::DUE);
}

#[test]
fn rows_that_are_erased_while_a_restore_commits_are_told() {
    let (place, database, _server) = installed();
    let restore = paused(&place, &TARGET, "restore.filled");
    erase_and_shred(&place, &database);
    let (code, said) = restore.signal("CONT", SOON);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("the target holds rows of what was erased while it was committed"), "{said}");
    assert!(said.contains("empty the target"), "{said}");
}

#[test]
fn what_does_not_concern_the_snapshot_lets_a_restore_end() {
    let (place, _database, _server) = installed();
    let restore = paused(&place, &TARGET, "restore.filled");
    place.good(&["backup", "run"]);
    let (code, said) = restore.signal("CONT", SOON);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn nothing_is_erased_or_shredded_beside_a_snapshot_and_a_hold_is_placed() {
    let (place, database, _server) = installed();
    let plan = place.plan();
    let backup = paused(&place, &["backup", "run", "--full"], "backup.pack-stored");
    let pid = backup.pid().to_string();
    place.program().json(&["erase", "--plan", &plan.text("hash")]).refuses(3, &["working on this installation", &pid]);
    place.program().json(&["key", "shred", "--now"]).refuses(3, &["working on this installation", &pid]);
    let hold = ["hold", "place", "case-1", "--subject", "-", "--reason", "lawsuit"];
    place.program().reading("c-1001\n").json(&hold).ends(0);
    assert_eq!(database.rows("orders"), small::ORDERS);
    let (code, said) = backup.signal("CONT", SOON);
    assert_eq!(code, Some(0), "{said}");
    place.good(&["agent", "--once"]);
    let held = database.rows_where("orders", "customer_id = 'c-1001'");
    assert!(held > 0 && database.rows("orders") < small::ORDERS, "held rows stay, others go");
}
