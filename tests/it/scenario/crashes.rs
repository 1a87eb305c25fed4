//! The process dies at every named step of the cycle; the next start finishes the work, and the books still balance.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use wangchuan::crash_point::{GROUP_POINTS, POINTS};

use super::database::wait_for;
use super::small;
use super::workplace::Workplace;
use crate::support::program::Program;

/// Starts until everything is done; more means that a start does not get on.
const MOST_STARTS: usize = 4;
/// Workers that crash and recover side by side.
const WORKERS: usize = 3;

#[test]
fn after_a_kill_at_any_step_the_next_start_finishes_the_work() {
    // Later passes of steps that come more than once, too.
    let again = ["batch.intended:3", "batch.deleted:3", "batch.committed:3", "batch.recorded:3", "run.verified:2"];
    let more = ["backup.manifest-stored:2", "certificate.issued:2", "outbox.filed:2", "outbox.receipted:3"];
    let points: Vec<&str> = POINTS.iter().copied().chain(again).chain(more).collect();
    let waiting = Mutex::new(points.clone());
    let starts: Mutex<BTreeMap<usize, Vec<&str>>> = Mutex::new(BTreeMap::new());
    let failures: Mutex<Vec<String>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(point) = waiting.lock().unwrap().pop() else { return };
                    match crash_and_recover(point) {
                        Ok(number) => starts.lock().unwrap().entry(number).or_default().push(point),
                        Err(what) => failures.lock().unwrap().push(format!("{point}: {what}")),
                    }
                }
            });
        }
    });
    let starts = starts.into_inner().unwrap();
    println!("{} crash points; starts until all was done:", points.len());
    for (number, points) in &starts {
        println!("  {number}: {:3}  {}", points.len(), points.join(" "));
    }
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} points:\n{}", failures.len(), points.len(), failures.join("\n"));
    assert_eq!(starts.values().map(Vec::len).sum::<usize>(), points.len());
}

/// Between the batches of a group: something was asked of the run, and what was not begun is taken back.
#[test]
fn after_a_kill_behind_intents_that_were_taken_back_the_run_goes_on() {
    let (place, database) = small::installed();
    database.run(
        "WITH RECURSIVE n (id) AS (SELECT 101 UNION ALL SELECT id + 1 FROM n WHERE id < 700)
         INSERT INTO orders SELECT id, 'c-1001', '2015-03-01 09:00:00', 1 FROM n",
    );
    place.good(&["backup", "run"]);
    let hash = place.plan().text("hash");
    let due = small::DUE + 600;
    let crashing = place.program().with("WANGCHUAN_PAUSE_AT", "batch.intended");
    let crashing = crashing.with("WANGCHUAN_CRASH_AT", GROUP_POINTS[0]);
    let mut running = crashing.start(&["erase", "--plan", &hash]);
    assert!(running.comes_to_a_halt(Duration::from_mins(1)));
    let runs = place.good(&["run", "list"]);
    let run = runs.list("runs")[0]["run"].as_str().unwrap().to_owned();
    place.good(&["run", "pause", &run]);
    running.send("CONT");
    let (code, said) = running.end(Duration::from_mins(1));
    assert_eq!(code, None, "{said}");
    let gone = small::ORDERS + 600 - database.rows("orders");
    assert!(gone > 0 && gone < due, "{gone} rows are gone");
    place.good(&["run", "resume", &run]);
    place.good(&["agent", "--once"]);
    assert_eq!(small::ORDERS + 600 - database.rows("orders"), due);
    let runs = place.good(&["run", "list"]);
    let run = runs.list("runs").into_iter().find(|found| found["run"] == run.as_str()).unwrap();
    assert_eq!((run["due"].as_i64(), run["erased"].as_i64()), (Some(due), Some(due)), "{runs}");
}

/// How many starts it took.
fn crash_and_recover(point: &str) -> Result<usize, String> {
    let place = Workplace::new();
    let crashing = place.program().with("WANGCHUAN_CRASH_AT", point);
    let killed = crashing.run(&["quickstart", "--dir", "try", "--customers", "20", "--json"]);
    if !killed.was_killed() {
        return Err(format!("the cycle never came there\n{killed}"));
    }
    let program = Program::in_directory(&place.file("try"));
    let mut starts = 0;
    loop {
        starts += 1;
        let outcome = program.json(&["agent", "--once"]);
        match outcome.code() {
            Some(0) => break,
            Some(_) if starts < MOST_STARTS => {}
            _ => return Err(format!("after {starts} starts:\n{outcome}")),
        }
    }
    check_books(&place, &program)?;
    Ok(starts)
}

/// Every run ended, its counts add up, what was erased is what is missing, and certificates are without a gap and valid.
pub fn check_books(place: &Workplace, program: &Program) -> Result<(), String> {
    let listed = program.json(&["run", "list"]);
    let mut erased = 0;
    let mut of_runs = Vec::new();
    for run in listed.list("runs") {
        let number = |name: &str| run[name].as_i64().unwrap_or(i64::MIN);
        if number("due") != number("erased") + number("anonymised") + number("kept") + number("failed") {
            return Err(format!("the counts do not add up: {run}"));
        }
        if number("failed") != 0 {
            return Err(format!("rows failed: {run}"));
        }
        let pending = run["state"] == "shred-pending" && !run["pending"].is_null();
        if run["state"] != "shredded" && !pending {
            return Err(format!("a run is not finished: {run}"));
        }
        erased += number("erased");
        of_runs.push(run["run"].as_str().unwrap_or_default().to_owned());
    }
    let first = program.json(&["backup", "list"]).list("snapshots").remove(0);
    let live = live_rows(place);
    if first["rows"].as_i64() != Some(live + erased) {
        return Err(format!("{erased} rows were erased and {live} live, but the first snapshot is {first}"));
    }
    let certificates = program.json(&["certificate", "list"]);
    let rows = certificates.list("details");
    for (at, row) in rows.iter().enumerate() {
        if row["sequence"].as_i64() != Some(at as i64 + 1) {
            return Err(format!("a certificate is missing\n{certificates}"));
        }
        let id = row["certificate"].as_str().unwrap_or_default();
        let verified = program.json(&["certificate", "verify", id]);
        if verified.code() != Some(0) {
            return Err(verified.to_string());
        }
    }
    match of_runs.iter().find(|run| !rows.iter().any(|row| row["run"] == run.as_str())) {
        Some(run) => Err(format!("run {run} has no certificate\n{certificates}")),
        None => Ok(()),
    }
}

/// Rows of the registered tables of the sample shop.
fn live_rows(place: &Workplace) -> i64 {
    use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
    let url = format!("sqlite://{}", place.file("try/shop.db").display());
    wait_for(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let mut rows = 0;
        for table in ["customers", "orders", "order_lines", "complaints", "newsletter"] {
            let query = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
            let count: i64 = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
            rows += count;
        }
        rows
    })
}
