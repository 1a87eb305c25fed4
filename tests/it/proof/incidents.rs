//! The file of a case: five parts, no document but by its digest, and nothing that can be taken out of it unseen.

use std::fs;

use chrono::TimeDelta;
use wangchuan::clock::Clock as _;
use wangchuan::installation::Installation;
use wangchuan::tasks::incident::{
    IncidentFault, Part, add_document, close_incident, incidents, open_incident, verify_incidents,
};
use wangchuan::tasks::oplog::prune;

use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::program::{Outcome, Program};
use crate::support::world::World;

/// A case with documents in the first parts, under names that must not be kept.
fn case(place: &Workplace, parts: usize) {
    fs::create_dir(place.file("cases")).unwrap();
    place.good(&["incident", "open", "case-17"]);
    for part in &Part::ALL[..parts] {
        let name = format!("cases/{} of Zhang Canary.txt", part.name());
        fs::write(place.file(&name), format!("what was done: {}", part.name())).unwrap();
        add(place, part.name(), &name).ends(0);
    }
}

fn add(place: &Workplace, part: &str, document: &str) -> Outcome {
    place.program().json(&["incident", "add", "case-17", "--part", part, "--document", document])
}

/// Case, part and words of each fault.
fn faults(outcome: &Outcome) -> Vec<(String, String, String)> {
    let text = |fault: &serde_json::Value, name: &str| fault[name].as_str().unwrap_or("-").to_owned();
    let fault = |fault| (text(&fault, "incident"), text(&fault, "part"), text(&fault, "what"));
    outcome.list("faults").into_iter().map(fault).collect()
}

#[test]
fn a_file_is_closed_with_five_parts_and_names_what_is_missing() {
    let (place, _) = small::installed();
    case(&place, 4);
    place.program().json(&["incident", "close", "case-17"]).refuses(3, &["4 of 5 parts; missing: evaluate"]);
    place.program().run(&["incident", "list", "--lang", "en"]).says(&["case-17", "4/5", "missing", "evaluate"]);
    place.program().run(&["incident", "list", "--lang", "zh"]).says(&["case-17", "4/5", "缺少", "评估"]);
    // Another document of a part.
    fs::write(place.file("cases/told"), "who was told").unwrap();
    add(&place, "notify", "cases/told").ends(0);
    fs::write(place.file("cases/last"), "what is to be learnt").unwrap();
    add(&place, "evaluate", "cases/last").ends(0);
    place.good(&["incident", "close", "case-17"]);
    place.program().json(&["incident", "close", "case-17"]).refuses(3, &["case-17 is closed"]);
    add(&place, "fix", "cases/last").refuses(3, &["case-17 is closed"]);

    let listed = place.good(&["incident", "list"]).list("incidents");
    let [case] = &listed[..] else { panic!("{listed:?}") };
    let parts: Vec<_> = case["documents"].as_array().unwrap().iter().map(|document| &document["part"]).collect();
    assert_eq!(parts, ["find", "investigate", "notify", "fix", "notify", "evaluate"]);
    assert_eq!((&case["parts"], &case["missing"]), (&5.into(), &serde_json::json!([])));
    assert!(case["closed_at"].is_string(), "{case}");
    place.program().run(&["incident", "list"]).ends(0).says(&["5/5"]);
    let looks = place.good(&["log", "query", "--operation", "incident.list"]);
    assert_eq!(looks.list("entries").len(), 4, "{looks}");
    let verified = place.good(&["incident", "verify"]);
    assert_eq!((verified.text("result"), verified.number("documents")), ("valid".to_owned(), 6));
}

#[test]
fn what_cannot_be_recorded_is_refused_and_nothing_of_it_is_kept() {
    let (place, _) = small::installed();
    case(&place, 1);
    place.program().json(&["incident", "open", "case-17"]).refuses(3, &["there is an incident case-17"]);
    for id in ["", "case 17", "zhang@canary.example", "13812345678", "of-13812345678", "张三", &"1a".repeat(33)] {
        let refused = place.program().json(&["incident", "open", id]).refuses(3, &["no personal data"]);
        assert!(id.is_empty() || !refused.err.contains(id) && !refused.out.contains(id), "{refused}");
    }
    let unknown = ["--part", "fix", "--document", "wangchuan.toml"];
    place
        .program()
        .json(&[&["incident", "add", "13812345678"][..], &unknown].concat())
        .refuses(2, &["no such incident"]);
    place.program().json(&["incident", "close", "13812345678"]).refuses(2, &["no such incident"]);
    add(&place, "find", "cases/find of Zhang Canary.txt").refuses(3, &["has this document in its part `find`"]);
    add(&place, "fix", "cases/Li Canary").refuses(2, &["cannot be read"]);
    add(&place, "fix", "cases").refuses(2, &["cannot be read"]);
    fs::write(place.file("cases/Li Canary"), "").unwrap();
    add(&place, "fix", "cases/Li Canary").refuses(3, &["the document is empty"]);
    add(&place, "repair", "wangchuan.toml").ends(2);
    let listed = place.good(&["incident", "list"]).list("incidents");
    assert_eq!((listed.len(), listed[0]["documents"].as_array().unwrap().len()), (1, 1), "{listed:?}");
    for folder in ["state", "bucket", "audit"] {
        let bytes = place.bytes_under(folder);
        let text = String::from_utf8_lossy(&bytes);
        for kept in ["Canary", "canary", "what was done", "13812345678"] {
            assert!(!text.contains(kept), "`{kept}` in {folder}");
        }
    }
}

#[test]
fn a_document_that_is_missing_or_changed_is_named() {
    let (place, _) = small::installed();
    assert_eq!(place.good(&["incident", "verify"]).text("result"), "nothing-found");
    case(&place, 5);
    let verify = || place.program().json(&["incident", "verify", "--documents", "cases"]);
    let file = |part: &str| place.file(&format!("cases/{part} of Zhang Canary.txt"));
    fs::create_dir(place.file("cases/old")).unwrap();
    fs::rename(file("find"), place.file("cases/old/renamed")).unwrap();
    assert_eq!(verify().ends(0).text("result"), "valid");
    fs::write(file("fix"), "what was done: more").unwrap();
    fs::remove_file(file("notify")).unwrap();
    let found = faults(&verify().ends(1));
    let parts: Vec<_> = found.iter().map(|(case, part, _)| (case.as_str(), part.as_str())).collect();
    assert_eq!(parts, [("case-17", "notify"), ("case-17", "fix")], "{found:?}");
    assert!(found.iter().all(|(.., what)| what.contains("is missing or was changed")), "{found:?}");
    place.program().json(&["incident", "verify", "--documents", "nowhere"]).refuses(2, &["cannot be read"]);
    place.good(&["incident", "verify"]);
}

/// Records these parts of a case.
async fn record(world: &World, installation: &Installation, case: &str, parts: &[Part]) {
    open_incident(installation, case).await.unwrap();
    for (number, part) in parts.iter().enumerate() {
        let document = world.path(&format!("document-{number}"));
        fs::write(&document, format!("{number} of {case}")).unwrap();
        add_document(installation, case, *part, &document).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_taken_out_or_changed_is_named() {
    let world = World::standard().await;
    let installation = world.open().await;
    for case in ["case-1", "case-2"] {
        record(&world, &installation, case, &Part::ALL).await;
        close_incident(&installation, case).await.unwrap();
    }
    let twice = [Part::Find, Part::Notify, Part::Notify, Part::Fix];
    record(&world, &installation, "case-3", &twice).await;
    record(&world, &installation, "case-4", &Part::ALL).await;
    record(&world, &installation, "case-5", &[Part::Find]).await;
    installation.close().await.unwrap();
    let program = Program::in_directory(world.folder.path());
    program.json(&["incident", "verify"]).ends(0);
    let verify = || faults(&program.json(&["incident", "verify"]).ends(1));
    let names = |found: &[(String, String, String)], case: &str, part: &str, words: &str| {
        let fits = |(of, named, what): &(String, String, String)| of == case && named == part && what.contains(words);
        assert_eq!(found.iter().filter(|fault| fits(fault)).count(), 1, "{case} {part} {words}: {found:?}");
    };
    let record = |case: &str, step: &str, more: &str| {
        let like = |text: &str| format!("CAST(content AS TEXT) LIKE '%{text}%'");
        let all = [like(&format!("\"uid\":\"{case}\"")), like(&format!("\"incident.{step}\"")), like(more)];
        format!("log = 'operations' AND {}", all.join(" AND "))
    };
    let empty = |case: &str, step: &str, more: &str| {
        format!("UPDATE log_leaf SET content = NULL, salt = NULL WHERE {}", record(case, step, more))
    };
    world.run_sql_in_control(&empty("case-1", "add", "\"part\":\"fix\"")).await;
    let found = verify();
    names(&found, "case-1", "fix", "is gone or was changed");
    assert_eq!(found.len(), 1, "{found:?}");
    // Two of them, of which nobody misses the first.
    world.run_sql_in_control(&empty("case-2", "add", "\"part\":\"investigate\"")).await;
    world.run_sql_in_control(&empty("case-2", "add", "\"part\":\"notify\"")).await;
    let found = verify();
    names(&found, "case-2", "notify", "is gone or was changed");
    names(&found, "case-2", "investigate", "no record of it is left");
    names(&found, "-", "-", "lost its content before three years");
    // One of a part that has another document, in an open case.
    world.run_sql_in_control(&empty("case-3", "add", "\"previous_part\":\"find\"")).await;
    names(&verify(), "case-3", "notify", "is gone or was changed");
    // The last of a case: the log misses it.
    world.run_sql_in_control(&empty("case-1", "close", "")).await;
    names(&verify(), "-", "-", "so did 1 others");
    // Changed: one with another behind it, and a last one.
    let change = |case: &str, from: &str, to: &str| {
        let text = format!("replace(CAST(content AS TEXT), '{from}', '{to}')");
        format!("UPDATE log_leaf SET content = CAST({text} AS BLOB) WHERE {}", record(case, "add", from))
    };
    world.run_sql_in_control("DROP TRIGGER log_leaf_content").await;
    world.run_sql_in_control(&change("case-4", "\"part\":\"notify\"", "\"part\":\"find\"")).await;
    world.run_sql_in_control(&change("case-5", "\"sha256\":\"", "\"sha256\":\"0")).await;
    let found = verify();
    names(&found, "case-4", "notify", "is gone or was changed");
    names(&found, "case-5", "find", "was changed");
    names(&found, "-", "-", "the operation log: ");
    // Taken away with its entry.
    world
        .run_sql_in_control(&format!(
            "DROP TRIGGER log_leaf_stays; DELETE FROM log_leaf WHERE {}",
            record("case-4", "add", "\"part\":\"fix\"")
        ))
        .await;
    names(&verify(), "case-4", "fix", "is gone or was changed");
}

#[tokio::test]
async fn a_file_stays_until_three_years_after_it_was_closed() {
    let world = World::standard().await;
    let installation = world.open().await;
    record(&world, &installation, "case-17", &Part::ALL).await;
    record(&world, &installation, "case-18", &[Part::Find]).await;
    let pass = async |days: i64| {
        world.clock.advance(TimeDelta::days(days));
        installation.confirm_clock().await.unwrap();
        world.clock.now()
    };
    let sound = async |whole: &[&str]| {
        let listed = incidents(&installation).await.unwrap();
        let listed: Vec<&str> =
            listed.iter().filter(|case| case.missing().is_empty()).map(|case| case.id.as_str()).collect();
        assert_eq!(listed, whole);
        assert_eq!(verify_incidents(&installation, None).await.unwrap().1, Vec::<IncidentFault>::new());
    };
    pass(2 * 366).await;
    close_incident(&installation, "case-17").await.unwrap();
    for days in [366, 727] {
        let pruned = prune(&installation, pass(days).await, true).await.unwrap();
        assert_eq!(pruned.incidents, 8, "{pruned:?}");
        sound(&["case-17"]).await;
    }
    let later = pass(6).await;
    let counted = prune(&installation, later, false).await.unwrap();
    assert_eq!(counted.incidents, 2, "the case that is open still: {counted:?}");
    // A pruning that was interrupted in the file.
    let first = "UPDATE log_leaf SET content = NULL, salt = NULL WHERE CAST(content AS TEXT) LIKE '%\"part\":\"find\"%' \
                 AND CAST(content AS TEXT) LIKE '%\"case-17\"%'";
    world.run_sql_in_control(first).await;
    sound(&[]).await;
    let pruned = prune(&installation, later, true).await.unwrap();
    assert_eq!((pruned.dropped, pruned.incidents), (counted.dropped - 1, 2), "{counted:?} {pruned:?}");
    sound(&[]).await;
    let left: Vec<String> = incidents(&installation).await.unwrap().into_iter().map(|case| case.id).collect();
    assert_eq!(left, ["case-18"]);
    open_incident(&installation, "case-17").await.unwrap();
    installation.close().await.unwrap();
}
