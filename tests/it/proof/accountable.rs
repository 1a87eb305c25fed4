//! Who, when, from where: in the operation log for each command, in what is handed to an analysis, and on the way from a store to a certificate.

use std::collections::BTreeMap;

use serde_json::Value;
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::installation::operation_log;
use wangchuan::log::record::{Activity, Actor, Outcome, Record, Resource, commitment};
use wangchuan::log::store::LeafStore as _;
use wangchuan::random::uuid7;

use crate::scenario::small;
use crate::support::logged::expected;
use crate::support::program::Program;
use crate::support::world::World;

/// A command, what it reads, and what the log calls it.
type Told<'t> = (&'t [&'t str], &'t str, &'t str);

const COMMANDS: [Told<'static>; 14] = [
    (&["backup", "run"], "", "backup.run"),
    (&["plan"], "", "plan.new"),
    (&["explain", "shop", "orders", "1"], "", "explain"),
    (&["hold", "place", "case-1", "--subject", "-", "--reason", "case 12"], "c-1002\n", "hold.place"),
    (&["hold", "list"], "", "hold.list"),
    (&["hold", "release", "case-1"], "", "hold.release"),
    (&["request", "new", "-", "--yes"], "c-1001\n", "request.new"),
    (&["request", "list"], "", "request.list"),
    (&["request", "show", "1"], "", "request.show"),
    (&["request", "cancel", "1"], "", "request.cancel"),
    (&["certificate", "list"], "", "certificate.list"),
    (&["restore", "--to", "sqlite://back.db"], "", "restore.end"),
    (&["verify", "erased"], "", "verify.erased"),
    (&["log", "export", "--output", "log.ndjson"], "", "log.export"),
];

#[test]
fn each_command_leaves_one_entry_with_operator_time_and_place() {
    let (place, _) = small::installed();
    let begun = SystemClock.now().timestamp_millis();
    let from = |number: usize| format!("10.8.0.{number}");
    for (number, (command, input, operation)) in COMMANDS.iter().enumerate() {
        let clerk = format!("clerk-{number}");
        let program = place.program().with("USER", &clerk).reading(input);
        // Every other one from the host itself.
        let program = match number % 2 {
            0 => program.with("SSH_CONNECTION", &format!("{} 51144 10.8.0.1 22", from(number))),
            _ => program,
        };
        let done = program.json(command);
        assert!(done.code() == Some(0), "{operation}\n{done}");
    }
    let ended = SystemClock.now().timestamp_millis();
    let entries = place.good(&["log", "query"]).list("entries");
    for (number, (_, _, operation)) in COMMANDS.iter().enumerate() {
        let clerk = format!("clerk-{number}");
        let own: Vec<&Value> =
            entries.iter().filter(|entry| entry["record"]["actor"]["user"]["uid"] == *clerk).collect();
        let named = own.iter().filter(|entry| entry["record"]["api"]["operation"] == *operation);
        let done = named.filter(|entry| entry["record"]["status_id"] == 1).count();
        assert_eq!(done, 1, "{operation}: {own:#?}");
        for entry in own {
            let (record, time) = (&entry["record"], entry["record"]["time"].as_i64().unwrap());
            assert!((begun..=ended).contains(&time), "{operation}: {time} in milliseconds of UTC");
            let kind = (record["unmapped"]["operation"].as_str().unwrap(), record["class_uid"].as_u64().unwrap());
            assert_eq!(Some(kind), expected(record["api"]["operation"].as_str().unwrap()), "{record}");
            let endpoint = &record["src_endpoint"];
            match number % 2 {
                0 => assert_eq!(endpoint["ip"], from(number), "{operation}"),
                _ => assert!(
                    endpoint["hostname"].as_str().is_some_and(|host| !host.is_empty()),
                    "{operation}: {endpoint}"
                ),
            }
        }
    }
}

/// What an analysis of logs does with the lines: every one is read by itself, and counted once by its place.
fn taken_in(text: &str) -> BTreeMap<u64, Value> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let (salt, record) = (entry["salt"].as_str().unwrap(), entry["record"].as_str().unwrap());
        let held = commitment(&hex::decode(salt).unwrap(), record.as_bytes());
        assert_eq!(entry["commitment"], hex::encode(held), "{line}");
        let record: Value = serde_json::from_str(record).unwrap();
        assert!(record["time"].is_i64() && record["actor"]["user"]["uid"].is_string(), "{line}");
        assert!(all.insert(entry["index"].as_u64().unwrap(), record).is_none(), "twice: {line}");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_entries_are_exported_and_five_thousand_taken_in() {
    const MANY: u64 = 5_000;
    let world = World::standard().await;
    // So that the hour of the test makes no entry of its own: the program goes by the clock of this host.
    world.edit_config("[audit]\n", "[alerts]\nbulk_rows = 1000000\n\n[audit]\n");
    let installation = world.open().await;
    let log = installation.control.log_store("operations").await.unwrap();
    let wanted = MANY - log.size().await.unwrap();
    // All at once, as one writer: five thousand commands would take minutes. The export itself is the last entry.
    let records: Vec<Record> = (0..wanted - 1)
        .map(|number| Record {
            id: uuid7(installation.clock.now(), installation.random.as_ref()).unwrap(),
            time: installation.clock.now(),
            actor: Actor { uid: "clerk".to_owned() },
            ip: None,
            host: "till".to_owned(),
            activity: Activity::of_operation("request.show"),
            operation: "request.show".to_owned(),
            resources: vec![Resource { kind: "request".to_owned(), uid: format!("request-{number}") }],
            customer: None,
            outcome: Outcome::Success,
            detail: None,
            changes: Vec::new(),
            references: Vec::new(),
        })
        .collect();
    operation_log(&installation).await.unwrap().append(&records).await.unwrap();
    installation.close().await.unwrap();
    let program = Program::in_directory(world.folder.path());
    let said = program.json(&["log", "export", "--output", "all.ndjson"]).ends(0);
    let all = taken_in(&std::fs::read_to_string(world.path("all.ndjson")).unwrap());
    let state = world.open_state().await;
    let source = state.control.log_store("operations").await.unwrap().size().await.unwrap();
    state.close().await.unwrap();
    assert_eq!((said.number("entries") as u64, all.len() as u64, source), (MANY, MANY, MANY));
    assert_eq!((all.keys().next(), all.keys().last()), (Some(&0), Some(&(MANY - 1))), "none is missing");
    // One that somebody took out hides none of those behind it.
    let shown = all.values().filter(|record| record["api"]["operation"] == "request.show").count();
    world
        .run_sql_in_control("DROP TRIGGER log_leaf_stays; DELETE FROM log_leaf WHERE log = 'operations' AND idx = 2500")
        .await;
    let found = program.json(&["log", "query", "--operation", "request.show"]).ends(0);
    assert_eq!(found.list("entries").len(), shown - 1);
}

#[test]
fn store_plan_approval_and_certificate_each_name_somebody() {
    let (place, _) = small::installed();
    place.reconfigure("name = \"shop\"", "name = \"shop\"\nowner = \"order department\"");
    place.reconfigure("action = \"delete\"", "action = \"delete\"\napproval = \"one\"");
    place.good(&["backup", "run"]);
    let by = |name: &str, command: &[&str]| place.program().with("USER", name).json(command).ends(0);
    let stores = by("ann", &["store", "list"]);
    assert!(stores.list("stores").iter().all(|store| store["owner"] == "order department"), "{stores}");
    let hash = by("ann", &["plan"]).text("hash");
    by("bob", &["approve", &hash[..12], "--as", "bob"]);
    by("eve", &["erase", "--plan", &hash]);
    let newest = place.good(&["certificate", "show", "latest"]).document();
    let approvals = newest["statement"]["predicate"]["approvals"].as_array().unwrap().clone();
    assert_eq!((approvals.len(), &approvals[0]["role"]), (1, &"operator".into()), "{newest:#}");
    assert!(approvals[0]["actorRef"].as_str().unwrap().starts_with("hmac-sha256:"), "{newest:#}");
    // In one command from the certificate to everybody by name.
    let traced = place.good(&["certificate", "trace", "latest"]);
    assert_eq!(traced.list("approvals")[0]["operator"], "bob", "{traced}");
    let log = traced.list("log");
    let who = |operation: &str| {
        let found = log.iter().find(|entry| entry["operation"] == operation);
        found.unwrap_or_else(|| panic!("no {operation} in {traced}"))["actor"].as_str().unwrap().to_owned()
    };
    let named = ["plan.new", "plan.approve", "run.begin", "certificate.issue"].map(who);
    assert_eq!(named, ["ann", "bob", "eve", "eve"], "{traced}");
}
