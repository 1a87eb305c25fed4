//! What is wrong around the installation: root folder, bucket, clock, audit service, the target of a restore.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use wangchuan::backup::embedded::{EmbeddedServer, EmbeddedSettings};
use wangchuan::log::key_file::open_checkpoint_key;
use wangchuan::policy::registry::SecretText;
use wangchuan::stores::Engine;

use crate::scenario::database::{Database, wait_for};
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::announce::announce_not_run;
use crate::support::ports::free_port;
use crate::support::program::Program;

#[test]
fn a_root_folder_that_is_gone() {
    let (place, database) = small::installed();
    fs::rename(place.file("root"), place.file("elsewhere")).unwrap();
    for command in [&["plan"][..], &["backup", "run"], &["agent", "--once"]] {
        place.program().json(command).refuses(1, &["root"]);
    }
    assert!(!place.file("root").exists(), "a new root folder was made, without the keys");
    // Another folder, or one that is not mounted.
    fs::create_dir(place.file("root")).unwrap();
    fs::set_permissions(place.file("root"), Permissions::from_mode(0o700)).unwrap();
    place.program().json(&["key", "verify"]).refuses(1, &["holds no key for generation", "not mounted"]);
    place.program().run(&["key", "status"]).ends(1).says(&["nothing can be opened", "not mounted"]);
    fs::remove_dir_all(place.file("root")).unwrap();
    small::is_untouched(&database);
    fs::rename(place.file("elsewhere"), place.file("root")).unwrap();
    small::goes_through(&place, &database);
}

#[test]
fn a_root_folder_that_others_may_read() {
    let (place, database) = small::installed();
    fs::set_permissions(place.file("root"), Permissions::from_mode(0o755)).unwrap();
    place.program().json(&["plan"]).refuses(1, &["root", "chmod 700"]);
    fs::set_permissions(place.file("root"), Permissions::from_mode(0o700)).unwrap();
    let key = fs::read_dir(place.file("root")).unwrap().map(|entry| entry.unwrap().path());
    let key = key.into_iter().find(|path| path.to_string_lossy().contains("root-")).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    place.program().json(&["plan"]).refuses(1, &["root-", "chmod 600"]);
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    small::is_untouched(&database);
    small::goes_through(&place, &database);
}

#[test]
fn a_bucket_that_does_not_exist() {
    let (place, database) = small::installed();
    let embedded = "endpoint = \"embedded\"\ndata = \"bucket\"";
    let server = wait_in_background(&place);
    let url = format!(
        "endpoint = \"{}\"\nbucket = \"misnamed\"\naccess_key_id = \"test\"\nsecret_access_key = \"S3cretAccessKey\"",
        server.endpoint
    );
    place.reconfigure(embedded, &url);
    let refused = place.program().json(&["backup", "run"]).refuses(1, &["misnamed", "does not exist"]);
    refused.never_says("S3cretAccessKey");
    place.reconfigure("misnamed", "present");
    small::goes_through(&place, &database);
    drop(server);

    // Its server is gone now: no destruction, nothing lost.
    let refused = place.program().json(&["backup", "run"]).refuses(1, &["object store"]);
    refused.never_says("S3cretAccessKey");
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
}

/// An S3 server on the loopback with one bucket, `present`, until it is dropped.
pub struct Server {
    /// Its URL.
    pub endpoint: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts one that keeps its files under the working directory.
pub fn wait_in_background(place: &Workplace) -> Server {
    let root = place.file("server");
    let (say, said) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        wait_for(async move {
            let server = EmbeddedServer::start(settings(root)).await.unwrap();
            say.send(server.endpoint()).unwrap();
            let _ = stopped.await;
            server.stop().await;
        });
    });
    Server { endpoint: said.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
}

fn settings(root: PathBuf) -> EmbeddedSettings {
    EmbeddedSettings {
        root,
        port: 0,
        access_key: "test".to_owned(),
        secret_key: SecretText::new("S3cretAccessKey".to_owned()),
        bucket: "present".to_owned(),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn two_installations_in_one_place_of_a_bucket() {
    let (first, _first_shop) = small::installed();
    first.good(&["backup", "run"]);
    let (second, database) = small::installed();
    let shared = first.file("bucket").display().to_string();
    second.reconfigure("data = \"bucket\"", &format!("data = \"{shared}\""));
    let refused = second.program().json(&["backup", "run"]);
    refused.refuses(1, &["belongs to another installation", "prefix"]);
    small::is_untouched(&database);
    // A prefix of its own is enough.
    second.reconfigure(&format!("data = \"{shared}\""), &format!("data = \"{shared}\"\nprefix = \"second/\""));
    small::goes_through(&second, &database);
    assert_eq!(first.good(&["backup", "verify"]).text("result"), "valid");
}

/// The program under a clock that is off by so much, or `None`, said aloud, where that cannot be done.
fn at_another_time(place: &Workplace, offset: &str) -> Option<Program> {
    let library = std::process::Command::new("faketime").args(["-f", "+0s", "true"]).output();
    if !library.is_ok_and(|output| output.status.success()) {
        announce_not_run("clocks set back and forward (install the package faketime)");
        return None;
    }
    let program = place.program().through(&["faketime", "-m", "-f", offset]);
    Some(program.with("FAKETIME_DONT_FAKE_MONOTONIC", "1").with("FAKETIME_DONT_RESET", "1"))
}

fn clock_is_doubtful(offset: &str, naming: &[&str]) {
    let (place, database) = small::installed();
    let Some(program) = at_another_time(&place, offset) else { return };
    // A first run, so that the time was seen once.
    place.good(&["backup", "run"]);
    place.program().reading("c-1003\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "run"]);
    let orders = database.rows("orders");
    place.program().reading("c-1002\n").json(&["request", "new", "-", "--yes"]).ends(0);
    for command in [&["request", "run"][..], &["job", "run", "shred"], &["job", "run", "retention"]] {
        let refused = program.json(command).ends(3).says(naming);
        assert_eq!(refused.text("result"), "refused", "{refused}");
    }
    assert_eq!(database.rows("orders"), orders, "something was destroyed by a doubtful clock");
    // Back at the right time everything goes on.
    place.good(&["request", "run"]);
    assert_eq!(database.rows_where("customers", "customer_id = 'c-1002'"), 0);
    place.good(&["agent", "--once"]);
}

#[test]
fn a_clock_set_back_a_year() {
    clock_is_doubtful("-365d", &["clock", "set back"]);
}

#[test]
fn a_clock_set_forward_a_year() {
    clock_is_doubtful("+365d", &["clock", "forward"]);
}

#[test]
fn an_audit_service_that_is_down_for_the_whole_run() {
    let (place, database) = small::installed();
    // The embedded service makes its key; a service elsewhere would publish its own.
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "outbox"]);
    let origin = "scenario.wangchuan.invalid/certificates";
    let signer = open_checkpoint_key(&place.file("audit/log-key.pem"), origin).unwrap();
    place.write_private("state/audit-log.vkey", &signer.key().verifier_key());
    let embedded = "url = \"embedded\"\ndata = \"audit\"";
    let down = format!("url = \"http://127.0.0.1:{}\"", free_port());
    place.reconfigure(embedded, &down);

    let plan = place.plan();
    let erased = place.good(&["erase", "--plan", &plan.text("hash")]);
    assert_eq!(erased.number("erased"), small::DUE, "{erased}");
    place.good(&["backup", "run"]);
    place.good(&["job", "run", "shred"]);
    place.program().json(&["job", "run", "outbox"]).says(&["0 filed", "waiting"]);
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    let listed = place.good(&["certificate", "list"]);
    assert!(!listed.list("certificates").is_empty(), "{listed}");
    for (_, id) in place.certificates() {
        let verified = place.program().json(&["certificate", "verify", &id]).ends(1).says(&["receipt"]);
        assert_eq!(verified.text("result"), "invalid", "{verified}");
    }

    place.reconfigure(&down, embedded);
    place.good(&["agent", "--once"]);
    // The outbox waits longer after each failure, so the next tries may come later than this.
    let begun = std::time::Instant::now();
    while !all_filed(&place) {
        assert!(begun.elapsed().as_secs() < 120, "the certificates are never filed");
        std::thread::sleep(std::time::Duration::from_secs(1));
        place.good(&["job", "run", "outbox"]);
    }
    assert!(place.verify_certificates() > 0);
}

fn all_filed(place: &Workplace) -> bool {
    place.certificates().iter().all(|(_, id)| place.program().json(&["certificate", "verify", id]).code() == Some(0))
}

#[test]
fn a_restore_never_writes_over_rows() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let target = Database::create(Engine::Sqlite, place.path()).unwrap();
    small::fill(&target);
    target.run("DELETE FROM orders");
    let refused = place.program().json(&["restore", "--to", &target.url()]);
    refused.refuses(3, &["customers", "3 rows", "empty"]);
    assert_eq!((target.rows("customers"), target.rows("orders")), (3, 0));
    place.program().json(&["restore", "--to", &database.url()]).refuses(3, &["never writes over existing rows"]);
    small::is_untouched(&database);
    target.run("DELETE FROM customers");
    place.good(&["restore", "--to", &target.url()]);
    assert_eq!((target.rows("customers"), target.rows("orders")), (3, small::ORDERS));
    small::goes_through(&place, &database);
}

#[test]
fn two_commands_that_both_want_to_work() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let commands: Vec<_> = (0..3)
        .map(|_| {
            let program = place.program();
            std::thread::spawn(move || program.json(&["agent", "--once"]))
        })
        .collect();
    let outcomes: Vec<_> = commands.into_iter().map(|command| command.join().unwrap()).collect();
    assert!(outcomes.iter().any(|outcome| outcome.code() == Some(0)), "{}", outcomes[0]);
    for outcome in &outcomes {
        let refused = outcome.code() == Some(3) && outcome.err.contains("already");
        assert!(outcome.code() == Some(0) || refused, "{outcome}");
    }
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    assert!(place.verify_certificates() > 0);
}
