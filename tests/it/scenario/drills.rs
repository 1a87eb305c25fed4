//! Restore drills of every engine: what they find, that nothing of them stays, and what they say when they cannot be run.

use serde_json::Value;
use wangchuan::stores::Engine;

use super::database::Database;
use super::music::{Names, load};
use super::workplace::Workplace;

stories! {
    sqlite Engine::Sqlite => [
        told_apart as who_left_stays_away_and_who_stayed_comes_back,
        killed as a_killed_drill_leaves_nothing_for_long,
    ];
    postgres Engine::Postgres => [
        told_apart as who_left_stays_away_and_who_stayed_comes_back,
        killed as a_killed_drill_leaves_nothing_for_long,
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
