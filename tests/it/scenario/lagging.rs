//! Replicas that fall behind, are paused, or are gone, while rows are erased on a real streaming replica's primary.

use std::time::{Duration, Instant};

use wangchuan::stores::Engine;

use super::database::Database;
use super::small;
use super::workplace::Workplace;
use crate::support::announce::{POSTGRES, switched_on};
use crate::support::replica::Replica;

const LONGEST: Duration = Duration::from_mins(1);

/// More old orders than one batch takes.
fn fill_more(database: &Database, from: i64, rows: i64) {
    let (first, last) = (from, from + rows - 1);
    let series = match database.engine() {
        Engine::Postgres => format!("generate_series({first}, {last}) AS n"),
        _ => format!("(SELECT seq AS n FROM seq_{first}_to_{last}) AS s"),
    };
    database.run(&format!("INSERT INTO orders SELECT n, 'c-1001', '2012-01-01 00:00:00', 1 FROM {series}"));
}

fn configured(place: &Workplace, database: &Database, replica: &str, budget: &str) {
    let replica = format!("[[store.replica]]\nname = \"r1\"\nurl = \"{replica}\"\nmax_lag_ms = 300\n");
    let store = small::store(&database.url()).replacen("name = \"shop\"", "name = \"shop\"\nbackup = \"none\"", 1);
    let store = format!("{store}\n[store.budget]\n{budget}\n{replica}");
    let policy = small::POLICY.replace("rows = 1000", "rows = 100000");
    place.configure(&format!("{store}{policy}"));
    place.install();
}

fn due(database: &Database) -> i64 {
    database.rows_where("orders", "completed_at < '2020-01-01'")
}

#[track_caller]
fn erase(place: &Workplace) -> crate::support::program::Outcome {
    let plan = place.plan();
    place.program().json(&["erase", "--plan", &plan.text("hash")])
}

#[test]
fn a_paused_replica_stops_the_rows_and_a_resumed_one_lets_them_go() {
    let Some(primary) = switched_on(POSTGRES) else { return };
    let place = Workplace::new();
    let Some(shop) = Database::create(Engine::Postgres, place.path()) else { return };
    small::fill(&shop);
    let replica = Replica::of(&primary);
    let address = format!("postgres://postgres@127.0.0.1:{}/{}", replica.port, shop.name());
    configured(&place, &shop, &address, "patience_s = 2");

    // With a replica that keeps up everything goes, and the heartbeat is there afterwards.
    erase(&place).ends(0);
    assert_eq!(due(&shop), 0);
    assert_eq!(shop.rows_where("wangchuan_batch", "run = 'heartbeat'"), 1);

    // Behind for longer than it has patience: nothing is erased, and the run goes on afterwards.
    fill_more(&shop, 1000, 900);
    replica.asked("postgres", "SELECT pg_wal_replay_pause()");
    let refused = erase(&place).refuses(3, &["replica r1 is", "ms behind (at most 300)"]);
    assert!(refused.to_string().contains("wangchuan run resume"), "{refused}");
    assert_eq!(due(&shop), 900, "rows were erased although the replica is behind");
    let runs = place.good(&["run", "list"]);
    let run = runs.list("runs").last().unwrap()["run"].as_str().unwrap().to_owned();
    let shown = place.good(&["run", "show", &run]);
    assert_eq!(shown.text("state"), "approved");
    assert!(shown.document()["pace"]["waits_for"].as_str().unwrap().contains("replica r1"), "{shown}");

    // Within its patience it waits, and goes on by itself when the replica does.
    place.reconfigure("patience_s = 2", "patience_s = 100");
    let waiting = place.program().start(&["run", "resume", &run, "--json"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(due(&shop), 900, "rows were erased although the replica is behind");
    replica.asked("postgres", "SELECT pg_wal_replay_resume()");
    assert_eq!(waiting.end(LONGEST).0, Some(0));
    assert_eq!(due(&shop), 0);
    let pace = place.good(&["run", "show", &run]);
    let pace = &pace.document()["pace"];
    assert!(pace["batches"].as_i64().unwrap() >= 3 && pace["paused_ms"].as_i64().unwrap() > 1_000, "{pace}");
    assert!(pace["waits_for"].is_null(), "{pace}");

    // Nobody answers: it is not known, so nothing goes.
    fill_more(&shop, 5000, 5);
    place.good(&["store", "check"]);
    drop(replica);
    let checked = place.program().json(&["store", "check"]).ends(3);
    assert!(checked.to_string().contains("replica r1"), "{checked}");
    erase(&place).refuses(3, &["how far replica r1 is behind is not known"]);
    assert_eq!(due(&shop), 5);
}

#[test]
fn a_server_that_gets_no_heartbeat_is_no_replica() {
    for engine in [Engine::Postgres, Engine::Mysql] {
        let place = Workplace::new();
        let Some(shop) = Database::create(engine, place.path()) else { continue };
        let Some(other) = Database::create(engine, place.path()) else { continue };
        small::fill(&shop);
        configured(&place, &shop, &other.url(), "");
        let begun = Instant::now();
        erase(&place).refuses(3, &["how far replica r1 is behind is not known"]);
        assert_eq!(due(&shop), small::DUE);
        assert!(begun.elapsed() < LONGEST);
        // The store itself gets every heartbeat at once.
        place.reconfigure(&format!("url = \"{}\"\nmax", other.url()), &format!("url = \"{}\"\nmax", shop.url()));
        let runs = place.good(&["run", "list"]);
        let run = runs.list("runs")[0]["run"].as_str().unwrap().to_owned();
        place.good(&["run", "resume", &run]);
        assert_eq!(due(&shop), 0);
    }
}
