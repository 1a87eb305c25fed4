//! `media`: a medium with a copy of data is destroyed. What cannot be so is refused; what is recorded is signed, filed, and ends the
//! copy in the certificates of the erasures that waited for it.

use std::fs;

use chrono::{SecondsFormat, TimeDelta};
use serde_json::Value;
use wangchuan::clock::{Clock as _, SystemClock};
use wangchuan::log::tree::sha256;

use crate::output::schema;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::control_database::{ControlDatabase, server};
use crate::support::program::{Outcome, Program};

pub const COPY: &str = "[[store.copy]]\nname = \"dump\"\nkind = \"dump\"\ndies = \"10 years\"\n\n";
const FIRST_TABLE: &str = "[[store.collection]]\ntable = \"customers\"";

/// A small shop with a dump that lives ten years, out of which orders were erased, shredded and certified.
pub fn shredded() -> Workplace {
    shredded_with(COPY, None)
}

/// The same with other copies, and perhaps with its control database on a server.
pub fn shredded_with(copies: &str, control: Option<&ControlDatabase>) -> Workplace {
    let (place, database) = small::prepared();
    place.reconfigure(FIRST_TABLE, &format!("{copies}{FIRST_TABLE}"));
    if let Some(control) = control {
        place.reconfigure("sqlite://state/wangchuan.db", &control.url());
    }
    place.install();
    small::goes_through(&place, &database);
    fs::write(place.file(PHOTOGRAPH), b"a tape in pieces").unwrap();
    place
}

/// What shows that a tape was shredded.
const PHOTOGRAPH: &str = "pieces.jpg";

#[test]
fn all_of_it_with_the_control_database_on_postgresql() {
    let Some(server) = server("media") else { return };
    let parts: [fn(&Workplace); 8] = [
        a_copy_is_gone_with_its_medium_in_the_certificates_that_waited_for_it_in,
        what_cannot_be_so_is_not_recorded_in,
        what_lay_on_a_lost_medium_opens_no_more_once_its_keys_are_shredded_in,
        another_report_of_a_lost_medium_says_no_more_than_the_first_in,
        what_an_unfinished_snapshot_stored_before_a_loss_dies_too_in,
        no_increment_continues_a_chain_that_is_to_die_for_a_lost_medium_in,
        a_hold_keeps_what_lay_on_a_lost_medium_until_it_ends_in,
        a_lost_copy_in_clear_is_named_as_open_in,
    ];
    // One after the other in two lanes: each has a shop, a bucket and a database of its own.
    std::thread::scope(|scope| {
        for lane in 0..2 {
            let (server, parts) = (&server, &parts);
            scope.spawn(move || {
                for part in parts.iter().skip(lane).step_by(2) {
                    let control = ControlDatabase::create(server);
                    part(&shredded_with(COPY, Some(&control)));
                }
            });
        }
    });
}

/// `media record` of a tape that was shredded, with what differs.
pub fn record(place: &Workplace, asset: &str, more: &[&str]) -> Outcome {
    record_with(&place.program(), asset, more)
}

pub fn record_with(program: &Program, asset: &str, more: &[&str]) -> Outcome {
    let people = ["--by", "li.wei", "--witness", "wang.fang", "--witness", "chen.jie", "--checked", "inspection"];
    let how = ["--method", "destroy", "--technique", "shred"];
    let medium = ["media", "record", "--kind", "tape", "--asset", asset];
    let shown = if more.contains(&"--evidence") { &[][..] } else { &["--evidence", PHOTOGRAPH] };
    program.json(&[&medium, &how[..], &people[..], more, shown].concat())
}

pub fn ago(minutes: i64) -> String {
    (SystemClock.now() - TimeDelta::minutes(minutes)).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// What the certificate says that was signed under this id.
pub fn statement(place: &Workplace, id: &str) -> Value {
    place.good(&["certificate", "show", id]).document()["statement"].clone()
}

#[test]
fn a_copy_is_gone_with_its_medium_in_the_certificates_that_waited_for_it() {
    a_copy_is_gone_with_its_medium_in_the_certificates_that_waited_for_it_in(&shredded());
}

fn a_copy_is_gone_with_its_medium_in_the_certificates_that_waited_for_it_in(place: &Workplace) {
    let before = place.certificates();
    let last = before.last().unwrap().1.clone();
    let waits = statement(place, &last);
    let copies = |statement: &Value| statement["predicate"]["targets"][0]["copies"].clone();
    assert_eq!(copies(&waits)[0]["state"], "expires", "{waits}");

    // Before the rows were gone: another copy can have been made since.
    let early = record(place, "T-1", &["--copy", "shop/dump", "--when", &ago(600)]).ends(0);
    assert_eq!(early.list("certificates").len(), 1, "only the medium's own\n{early}");
    assert_eq!(early.list("gone_copies"), ["shop/dump"], "{early}");

    fs::write(place.file("shredded.jpg"), b"a heap of tape").unwrap();
    let evidence = place.file("shredded.jpg").display().to_string();
    let (now, path) = (ago(0), evidence.as_str());
    let done = record(place, "T-2", &["--copy", "shop/dump", "--when", &now, "--evidence", path]).ends(0);
    assert_eq!(done.text("result"), "complete", "{done}");
    assert_eq!(done.text("evidence_sha256"), hex::encode(sha256(b"a heap of tape")), "{done}");
    let issued = done.list("certificates");
    assert_eq!(issued.len(), 2, "its own, and another one of the run\n{done}");

    let own = statement(place, issued[0].as_str().unwrap());
    let published = schema::published("certificate");
    assert_eq!(schema::check(&published, &own, ""), Vec::<String>::new());
    let medium = &own["predicate"]["medium"];
    assert_eq!(medium["recordId"], done.text("record"), "{own}");
    assert_eq!(medium["evidenceSha256"], done.text("evidence_sha256"), "{own}");
    assert_eq!(own["predicate"]["targets"][0]["media"]["assetTag"], "T-2", "{own}");
    assert_eq!(own["predicate"]["result"], "complete", "{own}");
    assert!(!own.to_string().contains("li.wei") && !own.to_string().contains("chen.jie"), "{own}");

    let again = statement(place, issued[1].as_str().unwrap());
    assert_eq!(schema::check(&published, &again, ""), Vec::<String>::new());
    let copy = &copies(&again)[0];
    assert_eq!((&copy["state"], &copy["mediaRecord"]), (&"destroyed".into(), &done.text("record").into()), "{again}");
    assert_eq!(copy["destroyedAt"], now, "{again}");
    assert_eq!(again["predicate"]["supersedes"]["certificateId"], last, "{again}");
    let told = place.program().run(&["certificate", "show", issued[1].as_str().unwrap()]).ends(0);
    told.says(&["destroyed with its medium", &done.text("record")]);

    // Once, and filed with the rest.
    place.good(&["job", "run", "shred"]);
    place.good(&["job", "run", "outbox"]);
    assert_eq!(place.verify_certificates(), before.len() + 3);
    let shown = place.good(&["media", "show", "2"]);
    assert_eq!(shown.list("certificates"), [issued[0].clone()], "{shown}");
    assert_eq!(shown.list("named_by"), [issued[1].clone()], "{shown}");
    let log = place.program().run(&["log", "query"]).ends(0);
    assert_eq!(log.out.matches("media.record").count(), 4, "intent and outcome of each\n{log}");
}

#[test]
fn what_cannot_be_so_is_not_recorded() {
    what_cannot_be_so_is_not_recorded_in(&shredded());
}

fn what_cannot_be_so_is_not_recorded_in(place: &Workplace) {
    let past = ago(0);
    let of = ["--copy", "shop/dump", "--when", &past];
    let refused = |code: i32, more: &[&str], says: &[&str]| {
        place.program().json(&[&["media", "record"], more].concat()).refuses(code, says);
    };
    let people = ["--by", "li.wei", "--witness", "wang.fang", "--witness", "chen.jie"];
    let tape =
        ["--kind", "tape", "--asset", "T-1", "--method", "destroy", "--technique", "shred", "--checked", "inspection"];
    refused(2, &[&tape[..], &people, &["--copy", "shop/none", "--when", &past]].concat(), &["shop/none"]);
    refused(2, &[&tape[..], &people, &["--store", "none", "--when", &past]].concat(), &["none"]);
    refused(2, &[&tape[..], &people, &["--when", &past]].concat(), &["--copy"]);
    refused(3, &[&tape[..], &people, &["--copy", "shop/dump", "--when", "2099-01-01"]].concat(), &["still to come"]);
    refused(3, &[&tape[..], &people[..4], &of].concat(), &["2 different witnesses"]);
    let himself = ["--by", "li.wei", "--witness", "Li.Wei", "--witness", "chen.jie"];
    refused(3, &[&tape[..], &himself, &of].concat(), &["named twice"]);
    let disk = |technique: &'static str, method: &'static str, checked: &'static str| {
        [
            "--kind",
            "solid-state",
            "--serial",
            "S4EV-9",
            "--method",
            method,
            "--technique",
            technique,
            "--checked",
            checked,
        ]
    };
    refused(3, &[&disk("degauss", "purge", "inspection")[..], &people, &of].concat(), &["degauss", "solid-state"]);
    refused(3, &[&disk("overwrite", "purge", "full-read")[..], &people, &of].concat(), &["reaches clear"]);
    refused(3, &[&disk("crypto-erase", "purge", "full-read")[..], &people, &of].concat(), &["in clear"]);
    refused(3, &[&disk("block-erase", "purge", "inspection")[..], &people, &of].concat(), &["cannot show"]);
    let nameless = ["--kind", "tape", "--method", "destroy", "--technique", "shred", "--checked", "inspection"];
    refused(3, &[&nameless[..], &people, &of].concat(), &["--serial"]);
    let mobile = [&nameless[..], &["--serial", "13812345678"]].concat();
    refused(3, &[&mobile[..], &people, &of].concat(), &["a mobile number"]);
    refused(2, &[&tape[..], &people, &of, &["--evidence", "none.jpg"]].concat(), &["none.jpg"]);
    refused(3, &[&tape[..], &people, &of].concat(), &["no file shows", "--evidence FILE"]);
    assert_eq!(place.good(&["media", "list"]).text("result"), "nothing-found");

    // What nobody looked at is recorded and ends nothing.
    let blind = [&tape[..8], &people, &of, &["--checked", "none"]].concat();
    let done = place.program().json(&[&["media", "record"], &blind[..]].concat()).ends(0);
    assert_eq!((done.text("result").as_str(), done.list("gone_copies").len()), ("partial", 0), "{done}");
    assert_eq!(done.list("certificates").len(), 1, "{done}");
    let own = statement(place, done.list("certificates")[0].as_str().unwrap());
    assert_eq!(own["predicate"]["result"], "partial", "{own}");
    let status = place.program().json(&["status"]);
    let waits = &status.list("waiting_media")[0];
    assert_eq!((&waits["medium"], &waits["waits_for"]), (&"T-1".into(), &"look".into()), "{status}");
    let again = [&["media", "record"], &blind[..]].concat();
    place.program().json(&again).refuses(3, &["already"]);

    // Then somebody looks; and a medium ends once.
    let of = [&of[..], &["--evidence", PHOTOGRAPH]].concat();
    let looked = place.program().json(&[&["media", "record"], &tape[..], &people, &of].concat()).ends(0);
    assert_eq!(looked.list("gone_copies"), ["shop/dump"], "{looked}");
    assert_eq!(looked.list("certificates").len(), 2, "its own, and another one of the run\n{looked}");
    assert_eq!(place.program().json(&["status"]).list("waiting_media").len(), 0);
    refused(3, &[&tape[..], &people, &of].concat(), &["already"]);
    place.program().json(&again).refuses(3, &["already"]);
}

#[test]
fn it_speaks_chinese() {
    let place = shredded();
    let past = ago(0);
    let zh = |words: &[&str]| place.program().run(&[words, &["--lang", "zh"]].concat()).ends(0);
    let done = zh(&[
        "media",
        "record",
        "--kind",
        "tape",
        "--asset",
        "T-1",
        "--copy",
        "shop/dump",
        "--method",
        "destroy",
        "--technique",
        "shred",
        "--by",
        "李伟",
        "--witness",
        "王芳",
        "--witness",
        "陈杰",
        "--checked",
        "inspection",
        "--evidence",
        PHOTOGRAPH,
        "--when",
        &past,
    ]);
    assert!(done.out.contains("已登记为销毁"), "{done}");
    assert!(zh(&["media", "show"]).out.contains("见证人：王芳, 陈杰"));
    assert!(zh(&["media", "list"]).out.contains("销毁"));
    assert!(zh(&["certificate", "show", "latest"]).out.contains("随介质销毁"));
}

/// `media lost` of a disk with backups of the shop, with what differs.
pub fn lost(place: &Workplace, when: &str, more: &[&str]) -> Outcome {
    lost_with(&place.program(), "D-17", when, more)
}

pub fn lost_with(program: &Program, asset: &str, when: &str, more: &[&str]) -> Outcome {
    let disk = ["media", "lost", "--kind", "hard-disk", "--by", "li.wei", "--asset", asset, "--when", when];
    program.json(&[&disk[..], more].concat())
}

/// Whether a snapshot restores.
pub fn opens(place: &Workplace, snapshot: &str, file: &str) -> bool {
    let done = place.program().json(&["restore", snapshot, "--to", &format!("sqlite://{file}")]);
    done.code() == Some(0)
}

pub fn newest_snapshot(place: &Workplace) -> String {
    place.good(&["backup", "list"]).list("snapshots").last().unwrap()["snapshot"].as_str().unwrap().to_owned()
}

#[test]
fn what_lay_on_a_lost_medium_opens_no_more_once_its_keys_are_shredded() {
    what_lay_on_a_lost_medium_opens_no_more_once_its_keys_are_shredded_in(&shredded());
}

fn what_lay_on_a_lost_medium_opens_no_more_once_its_keys_are_shredded_in(place: &Workplace) {
    let when = ago(0);
    let on_it = newest_snapshot(place);
    let told = lost(place, &when, &["--backups-of", "shop"]).ends(4);
    assert_eq!((told.text("result").as_str(), told.text("class").as_str()), ("partial", "D"), "{told}");
    let chains = told.list("chains");
    assert!(!chains.is_empty() && chains.iter().all(|chain| chain["opens"] == true), "{told}");
    assert_eq!(told.list("certificates").len(), 0, "{told}");
    assert!(opens(place, &on_it, "before.db"));
    let status = place.program().json(&["status"]).ends(5);
    let waits = &status.list("waiting_media")[0];
    assert_eq!((&waits["record"], &waits["waits_for"]), (&told.text("record").into(), &"decision".into()), "{status}");
    assert_eq!(waits["open_chains"], chains.len(), "{status}");
    assert!(status.list("overdue").iter().any(|item| item["code"] == "medium-open"), "{status}");
    let zh = place.program().run(&["status", "--lang", "zh"]).ends(5);
    zh.says(&["遗失的介质上的快照仍可打开"]);

    // No rule lets a snapshot go here; this does, behind a new one.
    let done = lost(place, &when, &["--backups-of", "shop", "--shred"]).ends(0);
    assert_eq!(done.text("record"), told.text("record"), "{done}");
    assert!(done.list("chains").iter().all(|chain| chain["opens"] == false), "{done}");
    assert_eq!(done.list("taken").len(), 1, "{done}");
    assert!(!opens(place, &on_it, "after.db"), "it opens still");
    assert!(opens(place, &newest_snapshot(place), "new.db"));
    let shown = place.good(&["media", "show"]);
    let lost_chains = shown.document()["loss"]["chains"].clone();
    assert!(lost_chains.as_array().unwrap().iter().all(|chain| chain["opens"] == false), "{shown}");
    assert!(lost_chains.to_string().contains(&on_it), "{shown}");
    place.program().run(&["media", "show"]).ends(0).says(&["li.wei", "unreadable, its key is destroyed"]);
    let status = place.program().json(&["status"]);
    assert_eq!(status.list("waiting_media").len(), 0, "{status}");
    assert!(!status.list("overdue").iter().any(|item| item["code"] == "medium-open"), "{status}");
    let issued = done.list("certificates");
    let own = statement(place, issued[0].as_str().unwrap());
    let published = schema::published("certificate");
    assert_eq!(schema::check(&published, &own, ""), Vec::<String>::new());
    let lost_medium = &own["predicate"]["lostMedium"];
    assert_eq!(lost_medium["chains"], lost_medium["chainsDestroyed"], "{own}");
    assert_eq!(lost_medium["recordId"], done.text("record"), "{own}");
    assert_eq!(own["predicate"]["result"], "complete", "{own}");
    place.good(&["job", "run", "outbox"]);
    assert!(place.verify_certificates() > 0);
    let again = lost(place, &when, &["--backups-of", "shop", "--shred"]).ends(0);
    assert_eq!((again.list("taken").len(), again.list("certificates").len()), (0, 0), "{again}");
}

#[test]
fn another_report_of_a_lost_medium_says_no_more_than_the_first() {
    another_report_of_a_lost_medium_says_no_more_than_the_first_in(&shredded());
}

fn another_report_of_a_lost_medium_says_no_more_than_the_first_in(place: &Workplace) {
    let when = ago(0);
    let told = lost(place, &when, &["--copy", "shop/dump"]).ends(4);
    let record = told.text("record");
    // Snapshots of the store, where only a copy of it was reported; a later loss.
    lost(place, &when, &["--backups-of", "shop", "--shred"]).refuses(3, &[&record, "no backups of store shop"]);
    lost(place, &ago(0), &["--copy", "shop/dump"]).refuses(3, &[&record, "lost by"]);
    assert_eq!(lost(place, &when, &["--copy", "shop/dump"]).ends(4).text("record"), record);
    assert_eq!(lost(place, &ago(60 * 24), &["--copy", "shop/dump"]).ends(4).text("record"), record);
    lost(place, "2099-01-01", &["--copy", "shop/dump"]).refuses(3, &["still to come"]);
    assert_eq!(place.good(&["media", "list"]).list("media").len(), 1);
}

#[test]
fn what_an_unfinished_snapshot_stored_before_a_loss_dies_too() {
    what_an_unfinished_snapshot_stored_before_a_loss_dies_too_in(&shredded());
}

fn what_an_unfinished_snapshot_stored_before_a_loss_dies_too_in(place: &Workplace) {
    let broken_off = || {
        let full = ["backup", "run", "--full"];
        let killed = place.program().with("WANGCHUAN_CRASH_AT", "backup.directory-stored").json(&full);
        assert_ne!(killed.code(), Some(0), "{killed}");
        ago(0)
    };
    let chains = |asset: &str, when: &str| {
        let disk = ["media", "lost", "--kind", "hard-disk", "--asset", asset, "--by", "li.wei", "--backups-of", "shop"];
        let told = place.program().json(&[&disk[..], &["--when", when]].concat()).ends(4);
        told.list("chains").iter().map(|chain| chain["chain"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let before = chains("D-1", &ago(0));
    let first = broken_off();
    // This goes on with what was stored before the loss.
    place.good(&["backup", "run", "--full"]);
    let gone_on = chains("D-2", &first);
    assert_eq!(gone_on.len(), before.len() + 1, "{before:?} {gone_on:?}");
    // Behind a report nothing does.
    let second = broken_off();
    let asked = ["media", "lost", "--kind", "tape", "--asset", "D-0", "--by", "li.wei", "--backups-of", "shop"];
    place.program().json(&[&asked[..], &["--when", &second]].concat()).refuses(3, &["is running"]);
    place.good(&["job", "run", "prune"]);
    assert_eq!(chains("D-3", &second), gone_on);
    place.good(&["backup", "run", "--full"]);
    assert_eq!(chains("D-4", &second), gone_on);
}

#[test]
fn no_increment_continues_a_chain_that_is_to_die_for_a_lost_medium() {
    no_increment_continues_a_chain_that_is_to_die_for_a_lost_medium_in(&shredded());
}

fn no_increment_continues_a_chain_that_is_to_die_for_a_lost_medium_in(place: &Workplace) {
    let when = ago(0);
    let crashing = place.program().with("WANGCHUAN_CRASH_AT", "backup.begun");
    let killed = lost_with(&crashing, "D-17", &when, &["--backups-of", "shop", "--shred"]);
    assert_ne!(killed.code(), Some(0), "{killed}");
    let next = place.good(&["backup", "run"]);
    let taken = &next.list("snapshots")[0];
    assert_eq!((&taken["kind"], &taken["why_full"]), (&"full".into(), &"chain-ending".into()), "{next}");
}

#[test]
fn a_hold_keeps_what_lay_on_a_lost_medium_until_it_ends() {
    a_hold_keeps_what_lay_on_a_lost_medium_until_it_ends_in(&shredded());
}

fn a_hold_keeps_what_lay_on_a_lost_medium_until_it_ends_in(place: &Workplace) {
    let when = ago(0);
    let on_it = newest_snapshot(place);
    place.good(&["hold", "place", "case-1", "--store", "shop", "--reason", "lawsuit"]);
    let kept = lost(place, &when, &["--backups-of", "shop", "--shred"]).ends(4);
    for chain in kept.list("chains") {
        assert_eq!((&chain["opens"], &chain["stays"]), (&true.into(), &serde_json::json!(["hold"])), "{kept}");
    }
    assert_eq!(kept.list("certificates").len(), 0, "{kept}");
    assert!(opens(place, &on_it, "held.db"));
    // Nobody can do anything about that while the hold is in force.
    let status = place.program().json(&["status"]);
    let waits = &status.list("waiting_media")[0];
    assert_eq!((&waits["waits_for"], &waits["until"]), (&"keys".into(), &Value::Null), "{status}");
    assert!(!status.list("overdue").iter().any(|item| item["code"] == "medium-shred-overdue"), "{status}");
    let shown = place.program().run(&["media", "show"]).ends(0);
    shown.says(&["still to die"]);
    place.good(&["hold", "release", "case-1"]);
    place.good(&["job", "run", "prune"]);
    assert!(!opens(place, &on_it, "released.db"), "it opens still");
    let shown = place.good(&["media", "show"]);
    assert_eq!(shown.list("certificates").len(), 1, "{shown}");
}

#[test]
fn a_lost_copy_in_clear_is_named_as_open() {
    a_lost_copy_in_clear_is_named_as_open_in(&shredded());
}

fn a_lost_copy_in_clear_is_named_as_open_in(place: &Workplace) {
    let when = ago(0);
    let told = lost(place, &when, &["--copy", "shop/dump", "--shred"]).ends(4);
    assert_eq!(told.list("open_copies"), ["shop/dump"], "{told}");
    lost(place, &when, &["--backups-of", "none"]).refuses(2, &["none"]);
    lost(place, &when, &[]).refuses(2, &["whose data"]);
}
