//! The background agent and the commands beside it.

use std::fs;
use std::time::Duration;

use wangchuan::clock::{Clock, SystemClock};

use super::database::wait_for;
use super::small;
use super::workplace::Workplace;
use crate::support::program::Running;

/// Long enough for a busy host; who waits in vain fails later, not otherwise.
const SOON: Duration = Duration::from_mins(2);

/// Only this job, every second.
fn only_job(place: &Workplace, name: &str, task: &str) {
    fs::remove_dir_all(place.file("jobs")).unwrap();
    let text = format!("task = \"{task}\"\nschedule = \"* * * * * *\"\nmissed = \"skip\"\n");
    place.write_private(&format!("jobs/{name}.toml"), &text);
}

fn start(place: &Workplace) -> Running {
    let agent = place.program().start(&["agent"]);
    agent.wait_for("started with", SOON);
    agent
}

#[test]
fn one_agent_works_and_commands_go_on_beside_it() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    only_job(&place, "tick", "outbox");
    let agent = start(&place);
    let pid = agent.pid().to_string();
    let second = place.program().json(&["agent"]).refuses(3, &["working on this installation already", &pid]);
    assert_eq!(second.text("result"), "refused", "{second}");
    place.program().json(&["agent", "--once"]).refuses(3, &[&pid]);
    place.program().json(&["job", "run", "tick"]).refuses(3, &[&pid]);

    let asked = place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    assert_eq!(asked.number("request"), 1, "{asked}");
    place
        .program()
        .reading("c-1002\n")
        .json(&["hold", "place", "case-1", "--subject", "-", "--reason", "lawsuit"])
        .ends(0);
    let status = place.program().json(&["status"]);
    assert!([Some(0), Some(5)].contains(&status.code()) && status.document().is_object(), "{status}");
    assert_eq!(place.good(&["hold", "list"]).list("holds").len(), 1);
    assert_eq!(place.good(&["request", "list"]).list("requests").len(), 1);

    let (code, said) = agent.signal("TERM", SOON);
    assert_eq!(code, Some(0), "{said}");
    small::is_untouched(&database);
    small::goes_through_under_hold(&place, &database, "c-1002");
}

#[test]
fn a_job_of_every_second_runs_once_for_each_of_its_times() {
    let (place, _database) = small::installed();
    only_job(&place, "tick", "outbox");
    let agent = start(&place);
    std::thread::sleep(Duration::from_secs(5));
    let (code, said) = agent.signal("TERM", SOON);
    assert_eq!(code, Some(0), "{said}");
    let times = scheduled_times(&place, "tick");
    assert!((3..=8).contains(&times.len()), "{times:?}\n{said}");
    let runs = said.lines().filter(|line| line.starts_with("outbox: done")).count();
    assert_eq!(runs, times.len(), "as often said as recorded\n{said}");
    for pair in times.windows(2) {
        assert_eq!((pair[1] - pair[0]).num_seconds(), 1, "a time was left out or run twice: {times:?}");
    }
}

/// The times for which the control database says that the job ran, in order.
fn scheduled_times(place: &Workplace, job: &str) -> Vec<chrono::DateTime<chrono::Utc>> {
    use sqlx::{Connection, SqliteConnection};
    let url = format!("sqlite://{}", place.file("state/wangchuan.db").display());
    let texts: Vec<String> = wait_for(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let query =
            sqlx::query_scalar("SELECT scheduled_for FROM job_run WHERE job = $1 ORDER BY scheduled_for").bind(job);
        query.fetch_all(&mut connection).await.unwrap()
    });
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_agent_carries_out_what_a_command_recorded_beside_it() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    only_job(&place, "wishes", "requests");
    let agent = start(&place);
    place.program().reading("c-1003\n").json(&["request", "new", "-", "--yes"]).ends(0);
    agent.wait_for("requests: done — 1 carried out", SOON);
    // Nobody else files here: there is no job for that.
    let begun = std::time::Instant::now();
    while place.program().json(&["audit", "status"]).code() != Some(0) {
        assert!(begun.elapsed() < SOON, "the certificate is not filed behind the job that issued it");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(place.good(&["audit", "status"]).number("receipted"), 1);
    let (code, said) = agent.signal("TERM", SOON);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(database.rows_where("customers", "customer_id = 'c-1003'"), 0);
    assert_eq!(database.rows_where("orders", "customer_id = 'c-1003'"), 0);
    assert_eq!(place.good(&["request", "show", "1"]).text("state"), "done");
}

#[test]
fn a_killed_agent_is_followed_by_the_next_at_once() {
    let (place, database) = small::installed();
    only_job(&place, "tick", "outbox");
    let agent = start(&place);
    let (code, _) = agent.signal("KILL", SOON);
    assert_eq!(code, None, "a kill leaves no exit code");
    let next = start(&place);
    assert_eq!(next.signal("INT", SOON).0, Some(0), "Ctrl-C ends an agent as SIGTERM does");
    place.write_jobs();
    small::goes_through(&place, &database);
}

#[test]
fn a_held_agent_destroys_nothing_and_backs_up_all_the_same() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let plan = place.plan();
    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    assert_eq!(place.good(&["agent", "hold"]).document()["held"], true);
    for command in [&["erase", "--plan", &plan.text("hash")][..], &["request", "run"], &["job", "run", "shred"]] {
        let refused = place.program().json(command);
        let refused = refused.ends(3).says(&["held"]);
        assert_eq!(refused.text("result"), "refused", "{refused}");
    }
    let once = place.program().json(&["agent", "--once"]);
    assert!([Some(3), Some(4)].contains(&once.code()), "{once}");
    small::is_untouched(&database);
    place.good(&["backup", "run"]);
    assert_eq!(place.good(&["agent", "resume"]).document()["held"], false);
    place.good(&["request", "run"]);
    assert_eq!(database.rows_where("customers", "customer_id = 'c-1001'"), 0);
}

#[test]
fn one_pass_does_the_whole_cycle() {
    let (place, database) = small::installed();
    let pass = place.good(&["agent", "--once"]);
    assert_eq!(pass.text("result"), "complete", "{pass}");
    assert_eq!(database.rows("orders"), small::ORDERS - small::DUE);
    let runs = place.good(&["run", "list"]).list("runs");
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0]["state"], "shredded", "{runs:?}");
    assert!(place.verify_certificates() >= 1);
    let second = place.good(&["agent", "--once"]);
    assert_eq!(place.good(&["run", "list"]).list("runs").len(), 1, "{second}");
}

#[test]
fn what_no_policy_governs_has_three_days_of_grace() {
    // The orders' policy says 0, but nothing says how long a customer's own row can be undone.
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["request", "run"]);
    assert_eq!(database.rows_where("customers", "customer_id = 'c-1001'"), 0);
    place.good(&["backup", "run"]);
    let shredded = place.good(&["job", "run", "shred"]);
    assert!(shredded.text("summary").ends_with(" 0 runs shredded, 1 waiting"), "{shredded}");
    let runs = place.good(&["run", "list"]);
    let run = &runs.list("runs")[0];
    let time = |name: &str| run[name].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(run["state"], "shred-pending", "{runs}");
    assert_eq!((time("grace_until") - time("verified_at")).num_hours(), 72, "{runs}");
}

/// Only a backup, due once, some seconds from now, and not again for a year.
fn backup_soon(place: &Workplace) {
    fs::remove_dir_all(place.file("jobs")).unwrap();
    let at = SystemClock.now() + chrono::TimeDelta::seconds(7);
    let schedule = at.format("%-S %-M %-H %-d %-m *");
    let text = format!("task = \"backup\"\nschedule = \"{schedule}\"\ntimezone = \"UTC\"\nmissed = \"run-once\"\n");
    place.write_private("jobs/rare.toml", &text);
}

/// Starts an agent that dies in the middle of its first backup.
fn dies_in_a_backup(place: &Workplace) {
    let agent = place.program().with("WANGCHUAN_CRASH_AT", "backup.begun").start(&["agent"]);
    let (code, said) = agent.end(SOON);
    assert_eq!(code, None, "it was to be killed\n{said}");
}

#[test]
fn a_job_that_was_killed_with_the_agent_runs_once_more_at_the_next_start() {
    let (place, _database) = small::installed();
    backup_soon(&place);
    dies_in_a_backup(&place);
    let agent = start(&place);
    agent.wait_for("backup: done", SOON);
    assert_eq!(agent.signal("TERM", SOON).0, Some(0));
    assert_eq!(place.good(&["backup", "list"]).list("snapshots").len(), 1);
    assert_eq!(place.good(&["job", "list"]).list("jobs")[0]["state"], "done");
}

#[test]
fn a_job_that_kills_its_agent_does_not_do_so_at_every_start() {
    let (place, _database) = small::installed();
    backup_soon(&place);
    dies_in_a_backup(&place);
    dies_in_a_backup(&place);
    let agent = place.program().with("WANGCHUAN_CRASH_AT", "backup.begun").start(&["agent"]);
    agent.wait_for("started with", SOON);
    std::thread::sleep(Duration::from_secs(4));
    let (code, said) = agent.signal("TERM", SOON);
    assert_eq!(code, Some(0), "a third time\n{said}");
    let jobs = place.good(&["job", "list"]).list("jobs");
    assert_eq!(jobs[0]["state"], "failed", "{jobs:?}");
}
