//! Restore drills of every engine: what they find, that nothing of them stays, and what they say when they cannot be run.

use std::time::Duration;

use serde_json::Value;
use wangchuan::stores::Engine;

use super::database::Database;
use super::music::{Names, load};
use super::workplace::Workplace;

stories! {
    sqlite Engine::Sqlite => [
        told_apart as who_left_stays_away_and_who_stayed_comes_back,
        killed as a_killed_drill_leaves_nothing_for_long,
        picked as three_snapshots_are_picked_and_their_records_are_a_chain,
        row_planted as an_erased_person_who_is_in_the_restored_database_fails_loudly,
        key_planted as a_shredded_frame_that_opens_fails_loudly,
    ];
    postgres Engine::Postgres => [
        told_apart as who_left_stays_away_and_who_stayed_comes_back,
        killed as a_killed_drill_leaves_nothing_for_long,
        picked as three_snapshots_are_picked_and_their_records_are_a_chain,
        set_up as what_is_missing_is_said_exactly_and_is_enough,
    ];
    mariadb Engine::Mysql => [
        told_apart as who_left_stays_away_and_who_stayed_comes_back,
        killed as a_killed_drill_leaves_nothing_for_long,
        set_up as what_is_missing_is_said_exactly_and_is_enough,
    ];
}

/// The configuration, with the server as its own scratch server unless `scratch` says another address or, empty, none.
fn begin(place: &Workplace, database: &Database, names: &Names, scratch: Option<&str>) -> String {
    let url = scratch.map_or_else(|| database.url(), str::to_owned);
    let drill = match database.engine() {
        Engine::Sqlite => String::new(),
        _ if url.is_empty() => String::new(),
        _ => format!("\n[drill.scratch]\nmusic = \"{url}\"\n"),
    };
    place.configure(&format!("{drill}{}{}", names.store(&database.url()), names.policy("5 years", "[]")));
    place.install();
    let taken = place.good(&["backup", "run"]);
    taken.list("snapshots")[0]["snapshot"].as_str().unwrap().to_owned()
}

/// Whether the server has a database of this name, or the folder of drills a file.
fn exists(database: &Database, place: &Workplace, name: &str) -> bool {
    match database.engine() {
        Engine::Sqlite => std::fs::read_dir(place.file("state/drill")).is_ok_and(|files| files.count() > 0),
        Engine::Postgres => database.number(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")) == 1,
        Engine::Mysql => {
            let sql = "SELECT count(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME";
            database.number(&format!("{sql} = '{name}'")) == 1
        }
    }
}

/// The scratch that the control database says is in use; a SQLite store's is in the folder instead.
fn noted(place: &Workplace) -> Vec<String> {
    let control = Database::at(&place.file("state/wangchuan.db"));
    control.texts("SELECT value FROM meta WHERE name LIKE 'drill_scratch:%'")
}

fn told_apart(place: &Workplace, database: &Database, names: &Names) {
    let first = begin(place, database, names, None);
    let before: i64 = names.registered().iter().map(|(table, _)| database.rows(table)).sum();
    let text = if database.engine() == Engine::Mysql { "CHAR" } else { "TEXT" };
    let ids = format!("SELECT CAST({0} AS {text}) FROM {1} ORDER BY {0}", names.customer_id, names.customer);
    let leavers: Vec<String> = database.texts(&ids).iter().step_by(3).map(|id| format!("{id},on paper\n")).collect();
    place.write_private("ids.csv", &leavers.concat());
    place.good(&["request", "new", "--file", "ids.csv", "--yes"]);
    place.good(&["request", "run"]);
    let live: i64 = names.registered().iter().map(|(table, _)| database.rows(table)).sum();

    // In grace, or at least not shredded yet: the rows open, and the ledger alone keeps them away.
    let pending = place.good(&["drill", "run", "--snapshot", &first]);
    let [restored, shredded, erased] = sums(&pending.list("drills")[0]);
    assert_eq!((restored, shredded, erased), (live, 0, before - live), "{pending}");

    place.good(&["backup", "run"]);
    place.good(&["job", "run", "shred"]);
    let drilled = place.good(&["drill", "run", "--snapshot", &first]);
    let drill = &drilled.list("drills")[0];
    let [restored, shredded, erased] = sums(drill);
    assert_eq!((restored, shredded + erased), (live, before - live), "{drilled}");
    let frames = |name: &str| drill["frames"][name].as_i64().unwrap();
    assert!(frames("opened") > 0 && frames("shredded") > 0, "{drilled}");
    assert_eq!(frames("opened") + frames("shredded"), frames("total"), "{drilled}");
    assert!(drill["frames_tried"].as_i64() > Some(0) && drill["keys_tried"].as_i64() > Some(0), "{drilled}");
    assert_eq!((&drill["resurrected"], &drill["erased_reappeared"]), (&0.into(), &0.into()), "{drilled}");
    assert_eq!((&drill["result"], &drill["cleaned_up"]), (&"passed".into(), &true.into()), "{drilled}");

    let shown = place.good(&["drill", "show"]);
    let scratch = shown.document()["record"]["scratch"].as_str().unwrap().to_owned();
    assert!(!scratch.is_empty() && !exists(database, place, &scratch), "{scratch} is still there");
    assert_eq!(noted(place), Vec::<String>::new());
    let after: i64 = names.registered().iter().map(|(table, _)| database.rows(table)).sum();
    assert_eq!(after, live, "a drill touched the store itself");
}

/// Rows restored, shredded and erased since.
fn sums(drill: &Value) -> [i64; 3] {
    let collections = drill["collections"].as_array().unwrap();
    ["restored", "shredded", "erased_since"]
        .map(|name| collections.iter().filter_map(|counts| counts[name].as_i64()).sum())
}

fn killed(place: &Workplace, database: &Database, names: &Names) {
    begin(place, database, names, None);
    let kill = || {
        let crashing = place.program().with("WANGCHUAN_CRASH_AT", "drill.restored");
        let killed = crashing.run(&["drill", "run"]);
        assert!(killed.was_killed(), "{killed}");
        let name = noted(place).pop().unwrap_or_default();
        assert!(exists(database, place, &name), "the killed drill left nothing that could be found");
        name
    };
    let left = kill();
    let doctor = place.program().json(&["doctor"]);
    assert!(said_by_doctor(&doctor.list("checks")).iter().any(|(mark, _, _)| mark == "missing"), "{doctor}");
    let drilled = place.good(&["drill", "run"]);
    assert_eq!(drilled.text("result"), "passed", "{drilled}");
    assert!(!exists(database, place, &left), "the next drill did not remove {left}");

    let left = kill();
    place.good(&["agent", "--once"]);
    assert!(!exists(database, place, &left), "the agent did not remove {left}");
    let doctor = place.good(&["doctor"]);
    assert!(said_by_doctor(&doctor.list("checks")).iter().all(|(mark, _, _)| mark == "good"), "{doctor}");
}

/// Mark, what and what to do of doctor's lines about drills.
fn said_by_doctor(checks: &[Value]) -> Vec<(String, String, String)> {
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let drills = checks.iter().filter(|line| line["check"] == "drill");
    drills.map(|line| (text(line, "mark"), text(line, "what"), text(line, "do"))).collect()
}

fn set_up(place: &Workplace, database: &Database, names: &Names) {
    begin(place, database, names, Some(""));
    place.program().json(&["drill", "run"]).refuses(3, &["no ", "server is named", "[drill.scratch]"]);
    let doctor = place.good(&["doctor"]);
    let said = said_by_doctor(&doctor.list("checks"));
    assert!(said.len() == 1 && said[0].0 == "doubtful" && said[0].2.contains("music = "), "{doctor}");

    // A login that may do nothing at all.
    let user = format!("{}_drill", database.name());
    database.run(&match database.engine() {
        Engine::Postgres => format!("CREATE ROLE {user} LOGIN PASSWORD 'word'"),
        _ => format!("CREATE USER {user} IDENTIFIED BY 'word'"),
    });
    let mut url = database.url_as(&user, "word");
    if database.engine() == Engine::Postgres {
        url = format!("{}/postgres", url.rsplit_once('/').unwrap().0);
    }
    place.write_private("drill-url", &url);
    place.reconfigure("\n[[store]]", "\n[drill.scratch]\nmusic = \"${file:drill-url}\"\n\n[[store]]");
    let doctor = place.program().json(&["doctor"]);
    assert_eq!(doctor.code(), Some(5), "{doctor}");
    let said = said_by_doctor(&doctor.list("checks"));
    assert!(!said.is_empty() && said.iter().all(|(mark, _, _)| mark == "missing"), "{doctor}");
    place.program().json(&["drill", "run"]).refuses(3, &[said[0].2.as_str()]);

    // Exactly what it asked for is enough.
    for (_, _, remedy) in &said {
        database.run(remedy.split(';').next().unwrap());
    }
    let drilled = place.good(&["drill", "run"]);
    assert_eq!(drilled.text("result"), "passed", "{drilled}");
    let doctor = place.good(&["doctor"]);
    assert!(said_by_doctor(&doctor.list("checks")).iter().all(|(mark, _, _)| mark == "good"), "{doctor}");
    let forget = if database.engine() == Engine::Postgres { "ROLE" } else { "USER" };
    database.run(&format!("DROP {forget} {user}"));
}

/// The agent's own database, as whoever has the host can change it.
fn control(place: &Workplace) -> Database {
    Database::at(&place.file("state/wangchuan.db"))
}

/// A record's number and id, as far as they are known.
type Named = (Option<u64>, Option<String>);

/// What `drill verify` names: numbers and ids.
fn broken(place: &Workplace) -> (Option<i32>, Vec<Named>) {
    let checked = place.program().json(&["drill", "verify"]);
    let named = |problem: &Value| (problem["number"].as_u64(), problem["drill"].as_str().map(str::to_owned));
    (checked.code(), checked.list("problems").iter().map(named).collect())
}

fn picked(place: &Workplace, database: &Database, names: &Names) {
    let first = begin(place, database, names, None);
    let mut taken = vec![first];
    for _ in 0..3 {
        let backup = place.good(&["backup", "run"]);
        taken.push(backup.list("snapshots")[0]["snapshot"].as_str().unwrap().to_owned());
    }
    let drilled = place.good(&["drill", "run"]);
    let drills = drilled.list("drills");
    let said: Vec<_> = drills.iter().map(|drill| drill["picked"].as_str().unwrap()).collect();
    assert_eq!(said, ["latest", "random", "oldest"], "{drilled}");
    let place_drawn = u64::from_str_radix(drills[1]["pick_seed"].as_str().unwrap(), 16).unwrap() % 2;
    assert_eq!(drills[1]["pick_among"], 2);
    let expected = [&taken[3], &taken[1 + place_drawn as usize], &taken[0]];
    assert_eq!(drills.iter().map(|drill| drill["snapshot"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(drills.iter().map(|drill| drill["number"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    let job = place.good(&["job", "run", "drill"]);
    assert!(job.out.contains("music latest: passed; music random: passed; music oldest: passed"), "{job}");
    assert_eq!(place.good(&["drill", "run", "--pick", "oldest,latest"]).list("drills").len(), 2);
    assert_eq!(broken(place), (Some(0), vec![]));

    place.program().run(&["drill", "show", "2", "--format", "html"]).ends(0);
    let page = std::fs::read_to_string(place.file("drill-2.html")).unwrap();
    let id = drills[1]["drill"].as_str().unwrap();
    assert!(page.contains(id) && page.contains(drills[1]["pick_seed"].as_str().unwrap()), "{page}");
    // Nothing is overwritten.
    place.program().run(&["drill", "show", "2", "--format", "html"]).ends(1);

    let control = control(place);
    let ids: Vec<String> = control.texts("SELECT id FROM drill ORDER BY number");
    assert_eq!(ids.len(), 8);
    let beside = "CREATE TABLE drill_beside AS SELECT * FROM drill";
    let again = "DELETE FROM drill; INSERT INTO drill SELECT * FROM drill_beside";
    control.run(beside);
    for (sql, named) in [
        ("DELETE FROM drill WHERE number = 4", vec![(Some(4), None), (None, Some(ids[3].clone()))]),
        ("DELETE FROM drill WHERE number = 8", vec![(None, Some(ids[7].clone()))]),
        ("UPDATE drill SET passed = 0 WHERE number = 5", vec![(Some(5), Some(ids[4].clone()))]),
        (
            "UPDATE drill SET record = CAST(replace(CAST(record AS TEXT), 'payload\":\"', 'payload\":\"e30') AS BLOB) \
          WHERE number = 6",
            vec![(Some(6), Some(ids[5].clone()))],
        ),
        (
            "UPDATE drill SET record = (SELECT record FROM drill_beside WHERE number = 1) WHERE number = 2",
            vec![(Some(2), Some(ids[1].clone()))],
        ),
    ] {
        control.run(sql);
        assert_eq!(broken(place), (Some(1), named), "{sql}");
        control.run(again);
    }
    control.run("DROP TABLE drill_beside");
    assert_eq!(broken(place), (Some(0), vec![]));
}

/// The codes of what `status` says needs somebody, about drills.
fn alarms(place: &Workplace) -> Vec<String> {
    let status = place.program().json(&["status"]);
    let codes = status.list("overdue").into_iter().map(|item| item["code"].as_str().unwrap().to_owned());
    let found: Vec<String> = codes.filter(|code| code.contains("drill")).collect();
    assert!(found.is_empty() || status.code() == Some(5), "{status}");
    found
}

/// Whether the newest entry of the operation log about a drill says that erased data came back.
fn is_logged(place: &Workplace) -> bool {
    let log = place.good(&["log", "query", "--operation", "drill.run"]);
    log.out.contains("RESURRECTED")
}

fn row_planted(place: &Workplace, database: &Database, names: &Names) {
    let first = begin(place, database, names, None);
    assert_eq!(alarms(place), ["no-drill"]);
    let customer = names.customer;
    let leaver = database.texts(&format!("SELECT CAST(MIN({}) AS TEXT) FROM {customer}", names.customer_id)).remove(0);
    place.write_private("ids.csv", &format!("{leaver},on paper\n"));
    place.good(&["request", "new", "--file", "ids.csv", "--yes"]);
    place.good(&["request", "run"]);
    place.good(&["backup", "run"]);

    let program = place.program().with("WANGCHUAN_PAUSE_AT", "drill.restored");
    let mut running = program.start(&["drill", "run", "--snapshot", &first]);
    assert!(running.comes_to_a_halt(Duration::from_mins(1)), "{}", running.end(Duration::from_secs(5)).1);
    let file = std::fs::read_dir(place.file("state/drill")).unwrap().map(|entry| entry.unwrap().path());
    let scratch = Database::at(&file.into_iter().find(|path| path.extension().is_some_and(|end| end == "db")).unwrap());
    let columns = scratch.texts(&format!("SELECT name FROM pragma_table_info('{customer}')"));
    let values = columns
        .iter()
        .map(|column| if *column == names.customer_id { format!("'{leaver}'") } else { format!("\"{column}\"") });
    let values: Vec<String> = values.collect();
    let columns: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
    let (columns, values) = (columns.join(", "), values.join(", "));
    scratch.run(&format!("INSERT INTO {customer} ({columns}) SELECT {values} FROM {customer} LIMIT 1"));
    running.send("CONT");
    let (code, said) = running.end(Duration::from_mins(1));
    assert_eq!(code, Some(1), "{said}");
    for words in
        ["erased data came back in a drill", "rows that were erased since are in the restored database", "failed"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let shown = place.good(&["drill", "show"]);
    assert_eq!((shown.text("result").as_str(), shown.number("erased_reappeared")), ("failed", 1), "{shown}");
    assert_eq!(alarms(place), ["drill-erased-returned"]);
    assert!(is_logged(place));
    // A good drill of another snapshot does not make up for it, one of the same does.
    place.good(&["drill", "run", "--pick", "latest"]);
    assert_eq!(alarms(place), ["drill-erased-returned"]);
    place.good(&["drill", "run", "--pick", "oldest"]);
    assert_eq!(alarms(place), Vec::<String>::new());
}

fn key_planted(place: &Workplace, database: &Database, names: &Names) {
    let first = begin(place, database, names, None);
    let control = control(place);
    // A key that counts as destroyed, and is not: the cell's name leads to a destroyed pin, and another cell to the living key.
    let cell = control.number(
        "SELECT MIN(id) FROM cell WHERE state = 'live' AND subject IS NOT NULL AND pin IS NULL AND fresh IS NULL",
    );
    control.run(&format!(
        "INSERT INTO pin (slot, cell, lookup, bucket_name, kind, reason, state, run, rows) \
         VALUES (60000, {cell}, x'00', 'b', 'preserving', 'r', 'destroyed', 'r', 0); \
         INSERT INTO cell (subject, bucket, fresh, pin, state) SELECT subject, bucket, 60000, NULL, 'live' FROM cell \
         WHERE id = {cell}; UPDATE cell SET pin = 60000 WHERE id = {cell}"
    ));
    let drilled = place.program().json(&["drill", "run", "--snapshot", &first]);
    assert_eq!(drilled.code(), Some(1), "{drilled}");
    let drill = &drilled.list("drills")[0];
    assert!(drill["resurrected"].as_u64() > Some(0) && drill["result"] == "failed", "{drilled}");
    assert!(drilled.err.contains("erased data came back in a drill"), "{drilled}");
    assert_eq!(alarms(place), ["drill-erased-returned"]);
    assert!(is_logged(place));
    let job = place.program().json(&["job", "run", "drill"]);
    assert!(job.code() != Some(0) && job.out.contains("ERASED DATA CAME BACK"), "{job}");
}
