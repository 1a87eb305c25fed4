//! `key …` on the sample shop: what is listed, what waits and why, what is destroyed and when, and that it stays destroyed.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use wangchuan::clock::{Clock as _, SystemClock};
use wangchuan::quickstart::shop::{Settings, Shop};
use wangchuan::stores::Engine;

use super::database::wait_for;
use super::workplace::Workplace;
use crate::support::program::{Outcome, Program};

const CUSTOMERS: u32 = 60;

fn shop_of_today() -> Shop {
    Shop::generate(&Settings { engine: Engine::Sqlite, customers: CUSTOMERS, ..Settings::standard(SystemClock.now()) })
}

/// The sample shop after its cycle, and the program in it.
fn quickstart() -> (Workplace, Program) {
    let place = Workplace::new();
    place.program().run(&["quickstart", "--dir", "try", "--customers", &CUSTOMERS.to_string(), "--json"]).ends(0);
    let program = Program::in_directory(&place.file("try"));
    (place, program)
}

/// Changes the control database behind the program's back.
fn tamper(place: &Workplace, sql: &str) {
    let url = format!("sqlite://{}", place.file("try/state/wangchuan.db").display());
    wait_for(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let changed = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        assert!(changed.rows_affected() > 0, "nothing was changed by {sql}");
        connection.close().await.unwrap();
    });
}

/// How many keys are listed of a kind in a state.
fn count(listed: &Outcome, kind: &str, state: &str) -> i64 {
    let lines = listed.list("keys");
    let alike = lines.iter().filter(|line| line["kind"] == kind && line["state"] == state);
    alike.map(|line| line["count"].as_i64().unwrap()).sum()
}

fn codes(outcome: &Outcome, run: &str) -> Vec<Value> {
    let waiting = outcome.list("waiting");
    waiting.iter().filter(|line| line["run"] == run).map(|line| line["code"].clone()).collect()
}

/// Records and carries out a request; returns its run.
fn forget(program: &Program, id: &str) -> String {
    program.clone().reading(&format!("{id}\n")).json(&["request", "new", "-", "--yes"]).ends(0);
    let done = program.json(&["request", "run"]).ends(0);
    done.list("runs")[0].as_str().unwrap().to_owned()
}

#[test]
fn keys_are_listed_by_state_and_name_nobody() {
    let (place, program) = quickstart();
    let listed = program.json(&["key", "list"]).ends(0);
    assert_eq!((listed.text("result").as_str(), listed.number("generation")), ("complete", 2), "{listed}");
    assert!(count(&listed, "subjects", "active") > 30, "{listed}");
    for (kind, state) in
        [("subjects", "destroyed"), ("buckets", "destroyed"), ("work", "destroyed"), ("chains", "deactivated")]
    {
        assert!(count(&listed, kind, state) > 0, "{kind} {state}\n{listed}");
    }
    assert_eq!(count(&listed, "chains", "active"), 0, "{listed}");
    let waiting = listed.list("waiting");
    assert!(waiting.iter().all(|line| line["code"] == "bucket-not-due" && line["until"].is_string()), "{listed}");
    let shop = shop_of_today();
    let chinese = program.run(&["key", "list", "--lang", "zh"]).ends(0).says(&["已销毁 (destroyed)"]);
    assert!(!chinese.out.contains("other rows"), "{chinese}");
    // `key status` counts the same.
    let status = program.json(&["key", "status"]).ends(0).document();
    for (kind, states) in status["keys"].as_object().unwrap() {
        for (state, number) in states.as_object().unwrap() {
            assert_eq!(number.as_i64(), Some(count(&listed, kind, state)), "{kind} {state}\n{listed}");
        }
    }
    assert!(status["keys"]["chains"]["deactivated"].is_number(), "{status}");
    program.run(&["key", "status", "--lang", "zh"]).ends(0).says(&["备份链", "停用 (deactivated)"]);
    for said in [&listed.out, &listed.err, &chinese.out] {
        let told = shop.canaries().filter(|text| text.len() > 6).find(|text| said.contains(text));
        assert_eq!(told, None);
    }
    // What is not destroyed yet is deactivated, or suspended while a hold stops it.
    let leaver = shop.rows_of("customers")[5].iter().find_map(|value| match value {
        wangchuan::value::Value::Text(id) if id.starts_with('C') => Some(id.clone()),
        _ => None,
    });
    let run = forget(&program, &leaver.unwrap());
    assert_eq!(count(&program.json(&["key", "list"]).ends(0), "subjects", "deactivated"), 1);
    program.json(&["hold", "place", "audit-3", "--store", "shop", "--reason", "audit"]).ends(0);
    let held = program.json(&["key", "list"]).ends(0);
    assert_eq!((count(&held, "subjects", "suspended"), codes(&held, &run)), (1, vec!["hold".into()]), "{held}");
    drop(place);
}

#[test]
fn keys_die_with_the_next_group_or_now_and_never_before_their_time() {
    let (place, program) = quickstart();
    let leaver = shop_of_today().rows_of("customers")[7].iter().find_map(|value| match value {
        wangchuan::value::Value::Text(id) if id.starts_with('C') => Some(id.clone()),
        _ => None,
    });
    let run = forget(&program, &leaver.unwrap());
    program.run(&["run", "show", &run]).ends(0).says(&["shred-pending", "still open"]).never_says("no key opens");

    let early = program.json(&["key", "shred", "--now"]).ends(0);
    assert_eq!(
        (early.text("code").as_str(), codes(&early, &run)),
        ("KEY_SHRED_PENDING", vec!["no-snapshot-since".into()])
    );
    program.json(&["backup", "run"]).ends(0);
    let grouped = program.json(&["key", "shred"]).ends(0);
    assert!(grouped.document()["generation"].is_null(), "{grouped}");
    assert_eq!(codes(&grouped, &run), ["group-commit"], "{grouped}");
    program.json(&["hold", "place", "audit-3", "--store", "shop", "--reason", "audit"]).ends(0);
    assert_eq!(codes(&program.json(&["key", "shred", "--now"]).ends(0), &run), ["hold"]);
    program.json(&["hold", "release", "audit-3"]).ends(0);
    program.json(&["agent", "hold"]).ends(0);
    program.run(&["key", "shred", "--now", "--json"]).refuses(3, &["held"]);
    program.run(&["key", "shred", "--json"]).refuses(3, &["held"]);
    program.json(&["agent", "resume"]).ends(0);

    let before = program.json(&["key", "list"]).ends(0).number("generation");
    let done = program.json(&["key", "shred", "--now"]).ends(0);
    assert!(done.number("generation") > before && done.number("keys_destroyed") > 0, "{done}");
    assert!(done.list("shredded_runs").contains(&run.as_str().into()), "{done}");
    assert!(!done.list("certificates").is_empty(), "{done}");
    let shown = program.run(&["run", "show", &run]).ends(0).says(&["shredded: no key opens them"]);
    shown.never_says("still open");
    program.run(&["request", "show", "3"]).ends(0).says(&["no key opens them"]);
    program.run(&["status", "--lang", "zh"]).says(&["已销毁密钥", "待销毁密钥"]);
    let verified = program.json(&["key", "verify"]).ends(0);
    assert_eq!(verified.text("result"), "valid", "{verified}");
    assert!(verified.list("roots_gone").contains(&before.into()), "{verified}");
    drop(place);
}

#[test]
fn what_is_not_destroyed_as_recorded_is_found() {
    let (place, program) = quickstart();
    let verified = program.json(&["key", "verify"]).ends(0);
    assert_eq!((verified.text("result"), verified.text("class")), ("valid".to_owned(), "D".to_owned()), "{verified}");
    assert_eq!(verified.text("horizon"), "copies-of-the-host", "{verified}");
    assert!(verified.number("crowns_tried") > 0 && verified.number("frames_tried") > 10, "{verified}");
    assert!(verified.number("slots_empty") > 10 && verified.number("keys_tried") > 50, "{verified}");
    assert_eq!(verified.number("crowns_opened") + verified.number("frames_opened"), 0, "{verified}");

    // The crown in force, passed off as an old one.
    tamper(&place, "UPDATE meta SET value = (SELECT lower(hex(crown)) FROM tree_root) WHERE name LIKE 'old_crown:%'");
    let opened = program.json(&["key", "verify"]).ends(1).says(&["the crown of generation 1 still opens"]);
    assert_eq!((opened.text("result").as_str(), opened.number("crowns_opened")), ("invalid", 1), "{opened}");
    // A subject that is recorded as destroyed and is not: its frames open as well.
    tamper(
        &place,
        "UPDATE subject SET state = 'destroyed' WHERE slot = (SELECT slot FROM subject WHERE state = 'active' LIMIT 1)",
    );
    program.json(&["key", "verify"]).ends(1).says(&["1 slots recorded as destroyed still hold a key"]);
    tamper(&place, "DELETE FROM tree_node WHERE level = 4 AND subtree = (SELECT MIN(subtree) FROM tree_node)");
    program.json(&["key", "verify"]).ends(1).says(&["key nodes are missing"]);
}

#[test]
fn advice_says_what_may_be_copied_in_both_languages() {
    let (_place, program) = quickstart();
    let advised = program.json(&["key", "advice"]).ends(0);
    assert_eq!((advised.text("result").as_str(), advised.text("class").as_str()), ("complete", "D"), "{advised}");
    let may = |about: &str| {
        let lines = advised.list("advice");
        lines.iter().find(|line| line["about"] == about).map(|line| line["may"].clone()).unwrap()
    };
    assert_eq!((may("root-slot"), may("control-database")), ("never-copy".into(), "never-put-back".into()));
    assert_eq!(may("bucket"), "copy");
    program.run(&["key", "advice"]).ends(0).says(&["never copy", "brings destroyed keys back"]);
    program.run(&["key", "advice", "--lang", "zh"]).ends(0).says(&["切勿复制", "已销毁的密钥复原", "根密钥槽"]);
    for verb in ["list", "shred", "verify", "advice"] {
        program.run(&["key", verb, "--help"]).ends(0).says(&["Example", "wangchuan key"]);
    }
}
