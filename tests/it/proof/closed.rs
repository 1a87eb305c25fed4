//! What cannot be logged is neither done nor shown, and what was tried, seen or begun is in the log, whoever did it.

use std::time::Duration;

use wangchuan::agent::run_task;
use wangchuan::installation::Installation;
use wangchuan::schedule::{BackupKind, Task};
use wangchuan::tasks::TaskError;
use wangchuan::tasks::approval::approve;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::erasure::{execute, plan_retention};
use wangchuan::tasks::oplog::{Entry, Query, query};
use wangchuan::tasks::shred::shred_due;

use super::tools::{customers, filed};
use crate::support::ports::free_port;
use crate::support::program::{Outcome, Program};
use crate::support::search::Search;
use crate::support::world::{Making, World, forget, plan_for, run_now, snapshot};

/// No entry can be written behind it.
const BLOCK: &str =
    "CREATE TRIGGER blocked BEFORE INSERT ON log_leaf BEGIN SELECT RAISE(ABORT, 'the log is full'); END";
/// Types two lines on a terminal, as a clerk does: the program is the rest of the command line.
const TERMINAL: [&str; 3] =
    ["python3", "-c", "import os,pty,sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"];

async fn entries(installation: &Installation, operation: &str) -> Vec<Entry> {
    let wanted = Query { operation: Some(operation.to_owned()), ..Query::default() };
    query(installation, &wanted).await.unwrap()
}

/// Name, outcome and object of entries.
fn told(entries: &[Entry]) -> Vec<(String, String)> {
    let text = |entry: &Entry, at: &str| entry.record.pointer(at).unwrap().as_str().unwrap().to_owned();
    let outcome = |entry: &Entry| match entry.record["status_id"].as_i64() {
        Some(1) => "success".to_owned(),
        Some(2) => "failure".to_owned(),
        _ => text(entry, "/status"),
    };
    entries.iter().map(|entry| (outcome(entry), text(entry, "/resources/0/uid"))).collect()
}

/// Refused because of the log, and trying again is not what helps.
#[track_caller]
fn is_blocked<T: std::fmt::Debug>(result: Result<T, TaskError>) {
    let error = result.expect_err("done without an entry");
    assert!(error.to_string().contains("operation log cannot be written"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_logged_before_it_is_shown_also_when_the_answer_is_no() {
    let world = World::standard().await;
    let program = Program::in_directory(world.folder.path());
    let id = &world.shop.picks.leaver;
    let asked = program.clone().through(&TERMINAL).reading(&format!("{id}\nno\n")).run(&["request", "new"]).ends(0);
    asked.clone().says(&["orders", "Nothing was recorded."]);
    let looked = program.json(&["log", "query", "--operation", "request"]).ends(0).list("entries");
    assert_eq!(looked.len(), 1, "{looked:?}\n{asked}");
    let record = &looked[0]["record"];
    assert_eq!((&record["api"]["operation"], &record["activity_name"]), (&"request.look".into(), &"Read".into()));
    assert!(record["unmapped"]["customer"].is_string() && !record.to_string().contains(id.as_str()), "{record}");

    world.run_sql_in("state/control.db", BLOCK).await;
    let refused = program.clone().reading(id).run(&["request", "new", "-", "--yes"]).ends(1);
    refused.clone().never_says("orders").never_says("customers").says(&["the operation log cannot be written"]);
    assert!(!refused.out.contains('*') && program.json(&["request", "list"]).code() != Some(0), "{refused}");
    assert_eq!(world.number("state/control.db", "SELECT count(*) FROM request").await, 0);
}

#[tokio::test]
async fn nothing_is_erased_shredded_certified_or_approved_without_an_entry() {
    let world = World::standard().await;
    let installation = world.open().await;
    snapshot(&installation).await;
    let pending = forget(&installation, &world.shop.picks.leaver).await;
    snapshot(&installation).await;
    let plan = plan_for(&installation, &world.shop.picks.keeper).await;
    let before = world.dump_all("shop.db").await;
    let count = |sql: &'static str| world.number("state/control.db", sql);
    let (keys, runs) = ("SELECT max(generation) FROM tree_root", "SELECT count(*) FROM run");
    let earlier = (count(keys).await, count(runs).await);
    let log = count("SELECT count(*) FROM log_leaf").await;
    world.run_sql_in("state/control.db", BLOCK).await;

    is_blocked(execute(&installation, &plan.row).await);
    is_blocked(shred_due(&installation).await);
    is_blocked(certify_due(&installation).await);
    let retention = plan_retention(&installation).await.unwrap();
    is_blocked(execute(&installation, &retention.row).await);

    assert!(world.dump_all("shop.db").await == before, "rows of the shop changed");
    assert_eq!((count(keys).await, count(runs).await), earlier);
    assert_eq!(run_now(&installation, &pending.id).await.state, "shred-pending");
    assert_eq!(count("SELECT count(*) FROM certificate").await, 0);
    assert_eq!(count("SELECT count(*) FROM log_leaf").await, log);
    // With a log again, all of it goes on where it stood.
    world.run_sql_in("state/control.db", "DROP TRIGGER blocked").await;
    let run = execute(&installation, &retention.row).await.unwrap();
    assert!(!installation.control.read().await.unwrap().ledger_of_run(&run.id).await.unwrap().is_empty());
    assert!(shred_due(&installation).await.unwrap().keys > 0);
    assert_eq!(certify_due(&installation).await.unwrap().len(), 2);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_without_an_entry() {
    let world = filed(Making { customers: 12, ..Making::default() }, 1).await;
    let program = Program::in_directory(world.folder.path());
    let run = program.json(&["run", "list"]).ends(0).list("runs")[0]["run"].as_str().unwrap().to_owned();
    let somebody = customers(&world)[5].clone();
    world.run_sql_in("state/control.db", BLOCK).await;
    let looks: [&[&str]; 12] = [
        &["request", "list"],
        &["request", "show", "1"],
        &["hold", "list"],
        &["run", "list"],
        &["run", "show", &run],
        &["certificate", "list"],
        &["certificate", "show", "1"],
        &["certificate", "export", "1", "--output", "one.json"],
        &["explain", "shop", "customers", &somebody],
        &["log", "query"],
        &["log", "export", "--output", "log.json"],
        &["verify", "erased"],
    ];
    for look in looks {
        let refused = program.run(look).ends(1);
        assert_eq!(refused.out, "", "shown without an entry\n{refused}");
        assert!(refused.err.contains("the operation log cannot be written"), "{refused}");
    }
    assert!(!world.path("one.json").exists() && !world.path("log.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_and_certificates_are_in_the_log_whoever_made_them() {
    let world = World::standard().await;
    let mut installation = world.open().await;
    let task = Task::Backup { kind: BackupKind::Full, stores: Vec::new() };
    assert_eq!(run_task(&mut installation, &task).await.state, "done");
    let taken = installation.control.read().await.unwrap().snapshots(None).await.unwrap().pop().unwrap();
    assert_eq!(told(&entries(&installation, "backup.run").await), [("success".to_owned(), taken.id.clone())]);
    // One that fails as well: the bucket cannot be written to.
    world.run_sql("ALTER TABLE newsletter RENAME TO gone").await;
    assert_ne!(run_task(&mut installation, &task).await.state, "done");
    let last = told(&entries(&installation, "backup.run").await).pop().unwrap();
    assert_eq!(last, ("failure".to_owned(), "shop".to_owned()));
    world.run_sql("ALTER TABLE gone RENAME TO newsletter").await;
    installation.close().await.unwrap();
    let installation = world.open().await;

    let run = forget(&installation, &world.shop.picks.leaver).await;
    let issued = certify_due(&installation).await.unwrap();
    let logged = entries(&installation, "certificate.issue").await;
    let expected = ["intent", "success"].map(|outcome| (outcome.to_owned(), issued[0].clone()));
    assert_eq!(told(&logged), expected);
    assert!(logged.iter().all(|entry| entry.record["unmapped"]["references"]["about"] == run.id.as_str()));
    installation.close().await.unwrap();
    // By hand it leaves the same, and once.
    let program = Program::in_directory(world.folder.path());
    program.json(&["backup", "run", "--full"]).ends(0);
    let state = world.open_state().await;
    assert_eq!(entries(&state, "backup.run").await.len(), 3);
    state.close().await.unwrap();
}

#[tokio::test]
async fn an_approval_is_logged_under_the_login_and_the_name_it_was_given_in() {
    let world = World::standard().await;
    world.edit_config("action = \"delete\"", "action = \"delete\"\napproval = \"two\"");
    let installation = world.open().await;
    let plan = plan_retention(&installation).await.unwrap();
    approve(&installation, &plan.row.hash, "Li.Wei").await.unwrap();
    approve(&installation, &plan.row.hash, "bob").await.unwrap();
    let given = entries(&installation, "plan.approve").await;
    let names: Vec<&str> =
        given.iter().map(|entry| entry.record["unmapped"]["references"]["approver"].as_str().unwrap()).collect();
    assert_eq!(names, ["li.wei", "li.wei", "bob", "bob"]);
    for entry in &given {
        let actor = entry.record.pointer("/actor/user/uid").unwrap().as_str().unwrap();
        assert!(!actor.is_empty() && !names.contains(&actor), "{}", entry.record);
        assert_eq!(entry.record["unmapped"]["references"]["plan_sha256"], plan.row.hash.as_str());
    }
    world.run_sql_in("state/control.db", "DELETE FROM approval").await;
    world.run_sql_in("state/control.db", BLOCK).await;
    is_blocked(approve(&installation, &plan.row.hash, "ann").await);
    assert_eq!(world.number("state/control.db", "SELECT count(*) FROM approval").await, 0);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_do_not_start_are_in_the_log() {
    let world = World::standard().await;
    let program = Program::in_directory(world.folder.path());
    let refused = || -> Vec<(String, String)> {
        let listed = program.json(&["log", "query", "--operation", "command.refused"]).ends(0).list("entries");
        let text =
            |entry: &serde_json::Value, at: &str| entry["record"].pointer(at).unwrap().as_str().unwrap().to_owned();
        listed.iter().map(|entry| (text(entry, "/resources/0/uid"), text(entry, "/status_detail"))).collect()
    };
    std::fs::write(world.path("jobs/broken.toml"), "task = 7\n").unwrap();
    let agent: Outcome = program.run(&["agent"]);
    assert!(agent.code().is_some_and(|code| code != 0), "{agent}");
    let logged = refused();
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].0 == "agent" && !logged[0].1.is_empty(), "{logged:?}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let served = program.run(&["audit", "serve", "--listen", &address]);
    assert!(served.code().is_some_and(|code| code != 0), "{served}");
    let logged = refused();
    assert_eq!(logged.len(), 2, "{logged:?}");
    assert!(logged[1].0 == "audit serve" && !logged[1].1.is_empty(), "{logged:?}");
    assert_eq!(Search::of(world.shop.canaries()).hits(format!("{logged:?}").as_bytes()), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_the_audit_service_no_valid_token_stands_in_the_log_once_with_the_number_of_tries() {
    let world = World::standard().await;
    let program = Program::in_directory(world.folder.path());
    let address = format!("127.0.0.1:{}", free_port());
    let served = program.start(&["audit", "serve", "--listen", &address, "--json"]);
    served.wait_for("verifier_key", Duration::from_secs(30));
    let http = reqwest::Client::new();
    let url = format!("http://{address}/v1/certificates/0190a000-0000-7000-8000-000000000001");
    for token in [None, Some("Bearer guessed"), Some("Bearer guessed-again")] {
        let asked = token.iter().fold(http.get(&url), |asked, token| asked.header("authorization", *token));
        assert_eq!(asked.send().await.unwrap().status(), 401);
    }
    // What everybody may read needs none.
    assert_eq!(http.get(format!("http://{address}/v1/trust")).send().await.unwrap().status(), 200);
    let (code, said) = served.signal("TERM", Duration::from_secs(30));
    assert_eq!(code, Some(0), "{said}");
    let listed = program.json(&["log", "query", "--operation", "audit.refused"]).ends(0).list("entries");
    assert_eq!(listed.len(), 1, "{listed:?}");
    let record = &listed[0]["record"];
    let text = |at: &str| record.pointer(at).and_then(serde_json::Value::as_str).unwrap_or_default();
    let who = (text("/actor/user/uid"), text("/src_endpoint/ip"), text("/unmapped/references/tries"));
    assert_eq!(who, ("unknown", "127.0.0.1", "3"), "{record}");
    let kind = (text("/activity_name"), text("/status_detail"), text("/unmapped/operation"));
    assert_eq!(kind, ("Logon", "NO_VALID_TOKEN", "R"), "{record}");
    assert_eq!((&record["class_uid"], &record["status_id"]), (&3002.into(), &2.into()), "{record}");
    assert!(!record.to_string().contains("guessed"), "{record}");
}
