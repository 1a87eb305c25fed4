//! The control database on PostgreSQL: the whole cycle on it, a lost host, and two agents that share the work.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use wangchuan::control::{Control, StateLocation};
use wangchuan::crash_point::POINTS;
use wangchuan::keyring::stored_nodes;
use wangchuan::keys::file_slot::FileSlot;
use wangchuan::keys::slot::RootSlot as _;
use wangchuan::keys::tree::KeyTree;
use wangchuan::policy::registry::SecretText;
use wangchuan::stores::Engine;

use super::bad_input::surroundings::{Server, wait_in_background};
use super::database::{Database, wait_for};
use super::small;
use super::workplace::Workplace;
use crate::support::program::{Outcome, Program, Running};

/// Long enough for a busy host; who waits in vain fails later, not otherwise.
const SOON: Duration = Duration::from_mins(2);

/// An SQLite shop and a control database on the private server; `None` without one.
struct Shared {
    place: Workplace,
    /// The bucket, when it is not one host's own.
    bucket: Option<Server>,
    shop: Database,
    control: Database,
}

/// The private server does not flush to disk, which has to be accepted by the address.
fn address(control: &Database) -> String {
    format!("{}?fsync=off", control.url())
}

fn location(control: &Database) -> StateLocation {
    StateLocation::Postgres(SecretText::new(address(control)))
}

impl Shared {
    fn installed() -> Option<Self> {
        let place = Workplace::new();
        let control = Database::create(Engine::Postgres, place.path())?;
        let shop = Database::create(Engine::Sqlite, place.path()).unwrap();
        small::fill(&shop);
        place.configure(&format!("{}{}", small::store(&shop.url()), small::POLICY));
        place.reconfigure("state = \"sqlite://state/wangchuan.db\"", &format!("state = \"{}\"", address(&control)));
        place.install();
        Some(Self { place, bucket: None, shop, control })
    }

    /// A second host: the same configuration, copies of the key files, a folder and a work lock of its own, and a bucket that is
    /// neither's own.
    fn with_second_host(mut self) -> Self {
        let server = wait_in_background(&self.place);
        let access = "bucket = \"present\"\naccess_key_id = \"test\"\nsecret_access_key = \"S3cretAccessKey\"";
        let bucket = format!("endpoint = \"{}\"\n{access}", self.bucket.insert(server).endpoint);
        self.place.reconfigure("endpoint = \"embedded\"\ndata = \"bucket\"", &bucket);
        let text = fs::read_to_string(self.place.file("wangchuan.toml")).unwrap();
        let second = text.replace("jobs = \"jobs\"", "jobs = \"jobs\"\nfolder = \"state-b\"");
        self.place.write_private("second.toml", &second);
        for name in ["signing-key.pem", "operation-log-key.pem"] {
            let key = fs::read_to_string(self.place.file("state").join(name)).unwrap();
            self.place.write_private(&format!("state-b/{name}"), &key);
        }
        self
    }

    fn second(&self) -> Program {
        self.place.program().with("WANGCHUAN_CONFIG", &self.place.file("second.toml").display().to_string())
    }

    /// Everything in the control database, as its administrator's backup has it. The order of rows says nothing.
    fn dumped(&self) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        for line in self.dump_text().lines() {
            // Newer programs protect their own script by a word of chance.
            if !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict") {
                *lines.entry(line.to_owned()).or_insert(0) += 1;
            }
        }
        lines
    }

    fn dump_text(&self) -> String {
        let done = Command::new("pg_dump").args(["--no-owner", &self.control.url()]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn generation(&self) -> i64 {
        self.control.number("SELECT MAX(generation) FROM tree_root")
    }

    /// Everything up to keys that are due to be destroyed.
    fn erased(&self) {
        self.place.good(&["backup", "run"]);
        let plan = self.place.plan();
        let erased = self.place.good(&["erase", "--plan", &plan.text("hash")]);
        assert_eq!(erased.number("erased"), small::DUE, "{erased}");
        self.place.good(&["backup", "run"]);
    }

    /// As if the time of a lease had passed.
    fn let_lease_run_out(&self) {
        self.control.run("UPDATE lease SET expires_at = '2001-01-01T00:00:00.000Z'");
    }
}

#[test]
fn the_whole_cycle_goes_through_and_a_dump_names_nobody() {
    let Some(shared) = Shared::installed() else { return };
    let (place, shop) = (&shared.place, &shared.shop);
    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "cancel", "1"]);
    let hold = ["hold", "place", "case-1", "--subject", "-", "--reason", "lawsuit"];
    place.program().reading("c-1002\n").json(&hold).ends(0);
    place.good(&["hold", "release", "case-1"]);
    small::goes_through(place, shop);
    assert_eq!(place.good(&["drill", "run"]).text("result"), "passed");
    assert_eq!(place.good(&["drill", "run", "--from-bucket"]).text("result"), "passed");
    place.good(&["log", "verify"]);
    let doctor = place.program().json(&["doctor"]);
    let said = doctor.document().to_string();
    assert!(said.contains("postgres://") && said.contains(shared.control.name()), "{doctor}");
    assert_eq!(shared.generation(), 2);

    let dump = shared.dump_text();
    assert!(dump.contains("COPY") && dump.contains("tree_node") && dump.len() > 20_000, "{}", dump.len());
    for canary in ["Canary", "canary.example", "c-1001", "c-1002", "c-1003"] {
        assert!(!dump.contains(canary) && !dump.contains(&hex::encode(canary)), "the dump holds {canary}");
    }
}

/// Whether the tree of keys that a control database holds opens with a root.
async fn opens(control: &StateLocation, slot: &FileSlot, of: i64, with: i64, id: [u8; 16]) -> bool {
    let control = Control::open_at(control).await.unwrap();
    let mut tx = control.read().await.unwrap();
    let (generation, crown) = tx.tree_root().await.unwrap().unwrap();
    assert_eq!(generation, of);
    let nodes = stored_nodes(&mut tx).await.unwrap();
    drop(tx);
    control.close().await;
    let Ok(root) = slot.open(with).await else { return false };
    KeyTree::open(id, generation, &root, &crown, nodes).is_ok()
}

#[test]
fn an_old_dump_is_noise_with_the_later_root_and_is_refused_by_the_program() {
    let Some(shared) = Shared::installed() else { return };
    shared.erased();
    let old = Database::create(Engine::Postgres, shared.place.path()).unwrap();
    let dump = shared.place.file("old.sql");
    fs::write(&dump, shared.dump_text()).unwrap();
    crate::support::world::copy_folder(&shared.place.file("root"), &shared.place.file("old-root"));
    let restored = Command::new("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&dump).arg(old.url()).output();
    assert!(restored.as_ref().unwrap().status.success(), "{restored:?}");
    shared.place.good(&["job", "run", "shred"]);
    assert_eq!(shared.generation(), 2);

    let id = hex::decode(shared.control.texts("SELECT value FROM meta WHERE name = 'installation'").remove(0)).unwrap();
    let id: [u8; 16] = id.try_into().unwrap();
    let slot = |folder: &str| FileSlot::prepare(&shared.place.file(folder), id).unwrap();
    wait_for(async {
        // The thief's own root of before shows that the search can find something.
        assert!(opens(&location(&old), &slot("old-root"), 1, 1, id).await);
        assert!(opens(&location(&shared.control), &slot("root"), 2, 2, id).await);
        assert!(!opens(&location(&old), &slot("root"), 1, 1, id).await, "the destroyed root is still there");
        assert!(!opens(&location(&old), &slot("root"), 1, 2, id).await, "the old tree opens with the new root");
    });
    // A restored old database, as after a fail-over to a replica that lacks the last commits.
    shared.place.reconfigure(shared.control.name(), old.name());
    let refused = shared.place.program().json(&["agent", "--once"]).ends(3);
    assert!(["OLD_COPY", "ROLLED_BACK"].iter().any(|code| refused.to_string().contains(code)), "{refused}");
    assert_eq!(shared.generation(), 2);
}

#[test]
fn a_lost_host_is_recovered_into_an_empty_database() {
    let Some(shared) = Shared::installed() else { return };
    let place = &shared.place;
    small::goes_through(place, &shared.shop);
    let certificates = place.certificates().len();
    place.program().json(&["recover"]).refuses(3, &["recovery overwrites nothing"]);
    for folder in ["state", "audit"] {
        fs::remove_dir_all(place.file(folder)).unwrap();
    }
    let fresh = Database::create(Engine::Postgres, place.path()).unwrap();
    place.reconfigure(shared.control.name(), fresh.name());
    place.program().json(&["status"]).refuses(2, &["does not exist"]);
    let looked = place.good(&["recover", "--into", "look"]);
    assert!(looked.number("snapshot_count") >= 2 && looked.text("database").ends_with("look/recovered.db"), "{looked}");
    let recovered = place.good(&["recover"]);
    assert_eq!(recovered.number("certificate_sequence"), certificates as i64, "{recovered}");
    assert!(recovered.text("database").ends_with(fresh.name()), "{recovered}");
    assert!(!place.file("state/recovered.db").exists());
    assert_eq!(fresh.number("SELECT COUNT(*) FROM certificate"), certificates as i64);
    // Numbers go on, and so does the work.
    let asked = place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    assert_eq!(asked.number("request"), 1);
    place.good(&["agent", "--once"]);
    assert_eq!(shared.shop.rows_where("customers", "customer_id = 'c-1001'"), 0);
    assert_eq!(place.good(&["drill", "run"]).text("result"), "passed");
    place.good(&["log", "verify"]);
}

#[test]
fn of_two_hosts_asked_to_shred_at_once_one_does_it() {
    let Some(shared) = Shared::installed() else { return };
    let shared = shared.with_second_host();
    shared.erased();
    let first = shared.place.program().start(&["job", "run", "shred", "--json"]);
    let second = shared.second().start(&["job", "run", "shred", "--json"]);
    let ends: Vec<(Option<i32>, String)> = [first, second].map(|running: Running| running.end(SOON)).into();
    // Either one came too late and is refused, or they came one after the other and the later one found nothing to do.
    assert!(ends.iter().any(|(code, _)| *code == Some(0)), "{ends:?}");
    for (code, said) in &ends {
        assert!(*code == Some(0) || (*code == Some(3) && said.contains("working on this installation")), "{ends:?}");
    }
    assert_eq!(shared.generation(), 2, "{ends:?}");
    assert_eq!(shared.control.number("SELECT COUNT(*) FROM rekey"), 1);
    assert_eq!(shared.control.number("SELECT COUNT(*) FROM rekey WHERE ended_at IS NULL"), 0);
    assert_eq!(shared.control.number("SELECT COUNT(*) FROM run WHERE state = 'shredded'"), 1);
    shared.second().json(&["job", "run", "outbox"]).ends(0);
    assert!(shared.place.verify_certificates() > 0);
    // Both hosts read the same books.
    let listed = |program: Program| program.json(&["run", "list"]).ends(0).document().to_string();
    assert_eq!(listed(shared.place.program()), listed(shared.second()));
}

#[test]
fn a_second_agent_stands_by_and_takes_over_from_a_dead_one() {
    let Some(shared) = Shared::installed() else { return };
    let shared = shared.with_second_host();
    let first = shared.place.program().start(&["agent"]);
    first.wait_for("started with", SOON);
    let second = shared.second().start(&["agent"]);
    second.wait_for("stands by", SOON);
    assert!(second.said().iter().any(|line| line.contains(&format!("process {} on host", first.pid()))));
    // Commands that would work are refused meanwhile; others go on beside the agent.
    let pid = first.pid().to_string();
    shared.second().json(&["job", "run", "shred"]).refuses(3, &["working on this installation already", &pid]);
    shared.second().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    assert!(!second.said().iter().any(|line| line.contains("started with")));
    assert_eq!(first.signal("KILL", SOON).0, None);
    second.wait_for("started with", SOON);
    let (code, said) = second.signal("TERM", SOON);
    assert_eq!(code, Some(0), "{said}");
    shared.second().json(&["agent", "--once"]).ends(0);
}

/// The holder of the lease stands still at a point of a generation change until its time is over; another host takes over and
/// finishes; then the first one goes on.
fn stopped_past_its_lease(point: &str) {
    let Some(shared) = Shared::installed() else { return };
    let shared = shared.with_second_host();
    shared.erased();
    let mut first = shared.place.program().with("WANGCHUAN_PAUSE_AT", point).start(&["job", "run", "shred"]);
    assert!(first.comes_to_a_halt(SOON), "{point}: {:?}", first.said());
    let pid = first.pid().to_string();
    shared.second().json(&["job", "run", "shred"]).refuses(3, &["working on this installation already", &pid]);
    shared.let_lease_run_out();
    let taken: Outcome = shared.second().json(&["agent", "--once"]).ends(0);
    assert_eq!(shared.control.number("SELECT COUNT(*) FROM run WHERE state = 'shredded'"), 1, "{point}: {taken}");
    assert_eq!(shared.control.number("SELECT COUNT(*) FROM rekey WHERE ended_at IS NULL"), 0, "{point}: {taken}");
    let (before, roots) = (shared.dumped(), files_in(&shared, "root"));

    let (code, said) = first.signal("CONT", SOON);
    assert_eq!(code, Some(1), "{point}: {said}");
    assert!(said.contains("is lost: another process has taken over the work"), "{point}: {said}");
    let after = shared.dumped();
    let changed: Vec<_> = after.iter().filter(|line| before.get(line.0) != Some(line.1)).collect();
    assert!(before == after, "{point}: it wrote all the same: {changed:?}");
    assert_eq!(files_in(&shared, "root"), roots, "{point}: it touched a root");
    // What is there opens, and the books balance.
    shared.second().json(&["drill", "run"]).ends(0);
    shared.second().json(&["log", "verify"]).ends(0);
    shared.second().json(&["key", "verify"]).ends(0);
    for (_, id) in shared.place.certificates() {
        assert_eq!(shared.second().json(&["certificate", "verify", &id]).ends(0).text("result"), "valid");
    }
}

/// Names and content of the files of a folder.
fn files_in(shared: &Shared, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(shared.place.file(folder)).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn a_host_that_was_stopped_behind_its_intent_past_its_lease_writes_nothing_more() {
    stopped_past_its_lease("rekey.intended");
}

#[test]
fn a_host_that_was_stopped_with_its_root_made_past_its_lease_writes_nothing_more() {
    stopped_past_its_lease("rekey.root-created");
}

#[test]
fn a_host_that_was_stopped_behind_its_copy_past_its_lease_writes_nothing_more() {
    stopped_past_its_lease("rekey.copied");
}

#[test]
fn a_host_that_was_stopped_behind_its_commit_past_its_lease_writes_nothing_more() {
    stopped_past_its_lease("rekey.committed");
}

/// A shred on the shared database, killed at a point: the next start finishes it, survivors open, and what was to die does not.
fn killed_in_a_change(point: &str) -> Option<()> {
    let shared = Shared::installed()?;
    shared.erased();
    let killed = shared.place.program().with("WANGCHUAN_CRASH_AT", point).run(&["key", "shred", "--now", "--json"]);
    assert!(killed.was_killed(), "{point}: the shred never came there\n{killed}");
    shared.place.good(&["agent", "--once"]);
    assert_eq!(shared.control.number("SELECT COUNT(*) FROM rekey WHERE ended_at IS NULL"), 0, "{point}");
    assert_eq!(shared.control.number("SELECT COUNT(*) FROM run WHERE state = 'shredded'"), 1, "{point}");
    let status = shared.place.good(&["key", "status"]);
    assert_eq!(status.list("slot_generations"), [shared.generation()], "{point}: {status}");
    let verified = shared.place.good(&["key", "verify"]);
    assert!(verified.number("frames_tried") > 0 && verified.number("frames_opened") == 0, "{point}: {verified}");
    // The snapshot from before the erasure holds them all, and gives back those that live.
    let first = shared.place.program().json(&["backup", "list"]).list("snapshots").remove(0);
    let id = first["snapshot"].as_str().unwrap();
    let restored = shared.place.good(&["restore", id, "--to", "sqlite://back.db"]);
    let orders = restored.list("collections").into_iter().find(|counts| counts["collection"] == "orders").unwrap();
    let count = |name: &str| orders[name].as_i64().unwrap();
    assert_eq!(
        (count("restored"), count("shredded"), count("lost"), count("corrupt")),
        (small::ORDERS - small::DUE, small::DUE, 0, 0),
        "{point}: {restored}"
    );
    assert_eq!(shared.place.good(&["drill", "run"]).text("result"), "passed", "{point}");
    shared.place.good(&["log", "verify"]);
    Some(())
}

#[test]
fn a_change_that_is_killed_at_any_step_is_finished_by_the_next_start() {
    let points = POINTS.iter().filter(|point| point.starts_with("rekey."));
    let mut tried = 0;
    for point in points {
        if killed_in_a_change(point).is_none() {
            return;
        }
        tried += 1;
    }
    assert!(tried >= 8, "{tried} points of a change");
}
