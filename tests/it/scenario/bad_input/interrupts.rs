//! Ctrl-C while the process stands at a named point of its work: it finishes what is in hand, says what is left, ends with
//! 130, and one further pass finishes everything.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use wangchuan::clock::{Clock as _, SystemClock};
use wangchuan::crash_point::POINTS;

use crate::scenario::crashes::check_books;
use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::program::{Program, Running};

/// Long enough for a busy host; who waits in vain fails later, not otherwise.
const SOON: Duration = Duration::from_mins(2);
/// Points that are tried side by side.
const WORKERS: usize = 3;

/// Tries something at every point, several at a time, and tells of all failures at once.
fn at_every_point(points: &[&str], try_it: impl Fn(&str) -> Result<(), String> + Sync) {
    let waiting = Mutex::new(points.to_vec());
    let failures: Mutex<Vec<String>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(point) = waiting.lock().unwrap().pop() else { return };
                    if let Err(what) = try_it(point) {
                        failures.lock().unwrap().push(format!("{point}: {what}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} points:\n{}", failures.len(), points.len(), failures.join("\n"));
}

/// Runs a command up to a point, sends a signal while it stands there, and lets it end.
fn interrupted(program: Program, command: &[&str], point: &str, signal: &str) -> Result<(Option<i32>, String), String> {
    let mut running = program.with("WANGCHUAN_PAUSE_AT", point).start(command);
    if !running.comes_to_a_halt(SOON) {
        return Err(format!("`{}` never came there:\n{}", command.join(" "), running.end(SOON).1));
    }
    running.send(signal);
    running.send("CONT");
    Ok(running.end(SOON))
}

/// The same with Ctrl-C, after which the command must end with 130 and say what to do.
fn stopped(program: Program, command: &[&str], point: &str) -> Result<String, String> {
    let (code, said) = interrupted(program, command, point, "INT")?;
    let complete = said.contains("[INTERRUPTED]") && said.contains("stopped by Ctrl-C; ") && said.contains("do: ");
    if code != Some(130) || !complete {
        return Err(format!("`{}` ended with {code:?}:\n{said}", command.join(" ")));
    }
    Ok(said)
}

#[test]
fn at_every_step_of_the_quickstart() {
    at_every_point(POINTS, |point| {
        let place = Workplace::new();
        let said = stopped(place.program(), &["quickstart", "--dir", "try", "--customers", "12"], point)?;
        if !said.contains("`wangchuan agent --once --config try/wangchuan.toml` goes on from here") {
            return Err(format!("it does not say how to go on:\n{said}"));
        }
        let pass = place.program().json(&["agent", "--once", "--config", "try/wangchuan.toml"]);
        if pass.code() != Some(0) {
            return Err(pass.to_string());
        }
        check_books(&place, &Program::in_directory(&place.file("try")))
    });
}

#[test]
fn while_the_quickstart_makes_its_directory() {
    let place = Workplace::new();
    let command = ["quickstart", "--dir", "try", "--customers", "12"];
    let said = stopped(place.program(), &command, "quickstart.shop-filled").unwrap();
    assert!(said.contains("remove try and run the quickstart again"), "{said}");
    // Nothing was installed, so the advice for a half-done one would lead nowhere.
    place.program().run(&command).refuses(3, &["try", "not empty", "remove"]);
    std::fs::remove_dir_all(place.file("try")).unwrap();

    let said = stopped(place.program(), &command, "quickstart.installed").unwrap();
    assert!(said.contains("goes on from here"), "{said}");
    place.program().json(&["agent", "--once", "--config", "try/wangchuan.toml"]).ends(0);
    check_books(&place, &Program::in_directory(&place.file("try"))).unwrap();
}

/// One further pass must finish everything, and the counts must add up.
fn goes_on(place: &Workplace, database: &Database) -> Result<(), String> {
    let pass = place.program().json(&["agent", "--once"]);
    if pass.code() != Some(0) {
        return Err(format!("the next pass:\n{pass}"));
    }
    let runs = place.good(&["run", "list"]);
    let mut erased = 0;
    for run in runs.list("runs") {
        let number = |name: &str| run[name].as_i64().unwrap_or(i64::MIN);
        if number("due") != number("erased") + number("anonymised") + number("kept") || number("failed") != 0 {
            return Err(format!("the counts do not add up: {run}"));
        }
        if run["state"] != "shredded" && run["state"] != "shred-pending" {
            return Err(format!("a run is not finished: {run}"));
        }
        erased += number("erased");
    }
    let missing = small::ORDERS - database.rows("orders") + 3 - database.rows("customers");
    if erased != missing || database.rows_where("orders", "completed_at < '2020-01-01'") != 0 {
        return Err(format!("{erased} rows were erased, {missing} are missing\n{runs}"));
    }
    if place.verify_certificates() < runs.list("runs").len() {
        return Err(format!("a run has no certificate\n{runs}"));
    }
    Ok(())
}

#[test]
fn at_every_step_of_one_pass() {
    at_every_point(POINTS, |point| {
        let (place, database) = small::installed();
        stopped(place.program(), &["agent", "--once"], point)?;
        goes_on(&place, &database)
    });
}

#[test]
fn at_every_step_of_an_erasure() {
    let points = [
        "run.added",
        "batch.intended",
        "batch.deleted",
        "batch.committed",
        "batch.recorded",
        "run.deleted",
        "run.verified",
        "run.keys-marked",
        "run.shred-pending",
        "certificate.issued",
    ];
    at_every_point(&points, |point| {
        let (place, database) = small::installed();
        place.good(&["backup", "run"]);
        let hash = place.plan().text("hash");
        let said = stopped(place.program(), &["erase", "--plan", &hash], point)?;
        // A batch is whole or not begun, whatever point of it the signal met.
        let gone = small::ORDERS - database.rows("orders");
        let claimed = match point {
            "run.added" => ["0 of 1 batches done, 0 of 4 due rows erased", ""],
            "run.keys-marked" | "run.shred-pending" => ["1 runs wait for their keys", ""],
            "certificate.issued" => ["1 runs wait for their keys", "1 certificates wait to be filed"],
            _ => ["1 of 1 batches done, 4 of 4 due rows erased", ""],
        };
        if gone != (if point == "run.added" { 0 } else { small::DUE })
            || !claimed.iter().all(|text| said.contains(text))
        {
            return Err(format!("{gone} rows are gone, and it says\n{said}"));
        }
        goes_on(&place, &database)
    });
}

#[test]
fn at_every_step_of_a_request() {
    let points =
        ["plan.stored", "run.added", "batch.deleted", "batch.recorded:2", "run.verified", "certificate.issued"];
    at_every_point(&points, |point| {
        let (place, database) = small::installed();
        place.good(&["backup", "run"]);
        place.program().reading("c-1001\n").json(&["request", "new", "-", "--yes"]).ends(0);
        let said = stopped(place.program(), &["request", "run"], point)?;
        if said.contains("c-1001") || (point == "plan.stored") != said.contains("1 requests wait to be carried out") {
            return Err(said);
        }
        goes_on(&place, &database)?;
        let left = database.rows_where("customers", "customer_id = 'c-1001'");
        let state = place.good(&["request", "show", "1"]).text("state");
        if left == 0 && state == "done" { Ok(()) } else { Err(format!("{left} left, request {state}")) }
    });
}

#[test]
fn at_every_step_of_an_undo() {
    at_every_point(&["undo.begun", "undo.rows-stored", "undo.chunk-restored", "undo.ended"], |point| {
        let (place, database) = small::installed();
        place.reconfigure("grace = \"0\"", "grace = \"72 hours\"");
        place.good(&["backup", "run"]);
        let hash = place.plan().text("hash");
        let run = place.good(&["erase", "--plan", &hash]).list("runs")[0].as_str().unwrap().to_owned();
        let said = stopped(place.program(), &["run", "undo", &run], point)?;
        // What is in hand may be all that was left: then it is undone. Otherwise the words say that it goes on.
        let shown = place.good(&["run", "show", &run]);
        let left = match shown.text("state").as_str() {
            "undoing" => said.contains("is being undone"),
            "undone" => point != "undo.begun",
            _ => false,
        };
        if !left {
            return Err(format!("{said}\n{shown}"));
        }
        // One pass would erase again what is due again, so only what was begun goes on.
        place.good(&["agent", "hold"]);
        place.program().json(&["agent", "--once"]);
        place.good(&["agent", "resume"]);
        place.program().json(&["agent", "--once"]);
        let state = place.good(&["run", "list"]).list("runs").iter().any(|found| found["state"] == "undone");
        let rows = database.rows("orders");
        if state && [small::ORDERS, small::ORDERS - small::DUE].contains(&rows) {
            Ok(())
        } else {
            Err(format!("{rows} orders; {}", place.good(&["run", "list"])))
        }
    });
}

#[test]
fn at_every_step_of_a_backup() {
    let points = ["backup.begun", "backup.pack-stored", "backup.directory-stored", "backup.manifest-stored"];
    at_every_point(&points, |point| {
        let (place, database) = small::installed();
        place.good(&["backup", "run"]);
        // An increment without any change stores no pack.
        database.run("UPDATE orders SET total = total + 1 WHERE order_id = 1");
        let said = stopped(place.program(), &["backup", "run"], point)?;
        // Behind its manifest a snapshot may just be finished before the stop is seen; then it says so.
        let is_finished = point == "backup.manifest-stored" && said.contains("1 snapshots were finished and are good");
        if !is_finished && !said.contains("no snapshot was finished; the earlier ones are as good as before") {
            return Err(said);
        }
        let listed = place.good(&["backup", "list"]).list("snapshots").len();
        if listed != 1 + usize::from(is_finished) {
            return Err(format!("{listed} snapshots are listed"));
        }
        place.good(&["backup", "run"]);
        if place.good(&["backup", "verify"]).text("result") != "valid" {
            return Err("the chain does not verify".to_owned());
        }
        goes_on(&place, &database)
    });
}

#[test]
fn in_the_middle_of_a_restore() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let command = ["restore", "--to", "sqlite://back.db"];
    for point in ["restore.rows-written", "restore.rows-written:2"] {
        let said = stopped(place.program(), &command, point).unwrap();
        assert!(said.contains("nothing was put into the target"), "{said}");
        assert!(!place.file("back.db").exists(), "a half-filled database was left");
    }
    place.good(&command);
    goes_on(&place, &database).unwrap();
}

#[test]
fn at_every_step_of_a_drill() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let said = stopped(place.program(), &["drill", "run"], "drill.restored").unwrap();
    assert!(said.contains("no drill was recorded, and its scratch database is wiped"), "{said}");
    let left = std::fs::read_dir(place.file("state/drill")).unwrap().count();
    assert_eq!((left, place.good(&["drill", "list"]).list("drills").len()), (0, 0), "customer data was left in clear");
    let said = stopped(place.program(), &["drill", "run"], "drill.recorded").unwrap();
    assert!(said.contains("1 drills were recorded"), "{said}");
    assert_eq!(place.good(&["drill", "list"]).list("drills").len(), 1);
    place.good(&["drill", "run"]);
    goes_on(&place, &database).unwrap();
}

#[test]
fn it_is_said_in_json_and_in_chinese() {
    let (place, database) = small::installed();
    let alone = place.program().through(&["sh", "-c", "exec \"$0\" \"$@\" 2>/dev/null"]);
    let (code, said) = interrupted(alone, &["agent", "--once", "--json"], "batch.deleted", "INT").unwrap();
    let document: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert_eq!((code, &document["code"], &document["result"]), (Some(130), &"INTERRUPTED".into(), &"partial".into()));
    assert!(document["run"].is_string() && document["do"].is_string() && document["retry"] == true, "{said}");
    let (code, said) =
        interrupted(place.program(), &["agent", "--once", "--lang", "zh"], "run.shred-pending", "TERM").unwrap();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("已被 Ctrl-C 中止；1 次运行等待销毁密钥") && said.contains("会从这里继续"), "{said}");
    goes_on(&place, &database).unwrap();
}

/// The shop's file under another writer's lock, so that a batch has to wait.
fn while_locked(database: &Database, work: impl FnOnce()) {
    use sqlx::{Connection, Executor, SqliteConnection};
    crate::scenario::database::wait_for(async {
        let mut other = SqliteConnection::connect(&database.url()).await.unwrap();
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        work();
        other.execute("ROLLBACK").await.unwrap();
    });
}

#[test]
fn the_second_one_stops_at_once() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let hash = place.plan().text("hash");
    let mut running = place.program().with("WANGCHUAN_PAUSE_AT", "batch.intended").start(&["erase", "--plan", &hash]);
    assert!(running.comes_to_a_halt(SOON));
    while_locked(&database, || {
        running.send("CONT");
        running.send("INT");
        running.wait_for("the same again stops at once", SOON);
        let begun = Instant::now();
        let (code, said) = running.signal("INT", SOON);
        assert_eq!(code, Some(130), "{said}");
        assert!(said.contains("stopped at once") && said.contains("wangchuan agent --once"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(2), "not at once: {:?}", begun.elapsed());
    });
    small::is_untouched(&database);
    goes_on(&place, &database).unwrap();
}

#[test]
fn somebody_who_is_asked_and_does_not_answer() {
    let (place, database) = small::installed();
    let running: Running = place.program().start_unanswered(&["request", "new", "-", "--yes"]);
    thread::sleep(Duration::from_millis(500));
    let (code, said) = running.signal("INT", Duration::from_secs(10));
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(place.good(&["request", "list"]).list("requests").len(), 0);
    goes_on(&place, &database).unwrap();
}

/// The agent with this job alone, each second.
fn agent_with(place: &Workplace, task: &str) {
    agent_at(place, task, "*", "");
}

/// The same at these seconds of each minute.
fn agent_at(place: &Workplace, task: &str, seconds: &str, more: &str) {
    std::fs::remove_dir_all(place.file("jobs")).unwrap();
    let text = format!("task = \"{task}\"\nschedule = \"{seconds} * * * * *\"\nmissed = \"skip\"\n{more}");
    place.write_private("jobs/only.toml", &text);
}

/// Whoever cut it off would leave the batch to the next start, and its rows where they were.
#[test]
fn a_job_that_is_out_of_time_finishes_its_batch_first() {
    let (place, database) = small::installed();
    place.good(&["backup", "run"]);
    let soon = (SystemClock.now().timestamp() + 5) % 60;
    agent_at(&place, "retention", &soon.to_string(), "timeout = \"5 seconds\"\n");
    let mut running = place.program().with("WANGCHUAN_PAUSE_AT", "batch.intended").start(&["agent"]);
    assert!(running.comes_to_a_halt(SOON));
    while_locked(&database, || {
        thread::sleep(Duration::from_secs(6));
        running.send("CONT");
        thread::sleep(Duration::from_secs(1));
    });
    running.wait_for("out of time", SOON);
    assert_eq!(running.signal("TERM", SOON).0, Some(0));
    assert_eq!(small::ORDERS - database.rows("orders"), small::DUE);
    goes_on(&place, &database).unwrap();
}

#[test]
fn the_agent_ends_with_0_wherever_it_is_met() {
    let points = [
        "retention plan.stored TERM",
        "retention batch.deleted INT",
        "retention run.verified TERM",
        // An increment without changes has no pack.
        "backup backup.directory-stored INT",
    ];
    at_every_point(&points, |words| {
        let [task, point, signal] = words.split(' ').collect::<Vec<_>>()[..] else { return Err("?".to_owned()) };
        let (place, database) = small::installed();
        place.good(&["backup", "run"]);
        agent_with(&place, task);
        let (code, said) = interrupted(place.program(), &["agent"], point, signal)?;
        if code != Some(0) || said.contains("failed") {
            return Err(format!("{code:?}\n{said}"));
        }
        let gone = small::ORDERS - database.rows("orders");
        if ![0, small::DUE].contains(&gone) {
            return Err(format!("{gone} rows are gone: a batch was cut off"));
        }
        goes_on(&place, &database)
    });
}
