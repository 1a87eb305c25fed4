//! An inspector with nothing but the folder: what was changed, removed or added in it is named, also where whoever can sign made the
//! manifest fit again.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Days, TimeDelta, Utc};
use serde_json::Value;
use wangchuan::certify::dsse::{Envelope, pae};
use wangchuan::certify::evidence_pack::{EvidencePackStatement, read_manifest, signed_manifest};
use wangchuan::certify::signer::CertificateSigner;
use wangchuan::certify::statement::{Digest, Subject};
use wangchuan::clock::{Clock as _, SystemClock};
use wangchuan::installation::Installation;
use wangchuan::log::checkpoint::CheckpointSigner;
use wangchuan::log::tree::sha256;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::evidence_pack::{MANIFEST, MadePack, PackFiles, make_pack, own_trust, verify_pack};

use super::tools::{customers, filed, stranger};
use crate::scenario::database::Database;
use crate::scenario::small;
use crate::scenario::workplace::Workplace;
use crate::support::program::Outcome;
use crate::support::world::{Making, World, copy_folder, forget};

/// A small shop in which something of every kind has happened, and its trust file.
fn shop() -> (Workplace, Database) {
    let (place, database) = small::installed();
    small::goes_through(&place, &database);
    place.program().reading("c-1003\n").json(&["request", "new", "-", "--yes"]).ends(0);
    place.good(&["hold", "place", "case-17", "--store", "shop", "--reason", "audit"]);
    place.program().json(&["request", "run"]);
    place.good(&["hold", "release", "case-17"]);
    place.good(&["drill", "run"]);
    place.good(&["job", "run", "outbox"]);
    place.good(&["job", "run", "roll-up"]);
    place.good(&["audit", "trust", "--output", "trust.json"]);
    (place, database)
}

/// The same, and its pack of these days in `pack`.
fn packed() -> Workplace {
    let (place, _) = shop();
    let today = SystemClock.now().date_naive();
    let [from, to] = [today - Days::new(1), today + Days::new(1)].map(|day| day.to_string());
    let made = place.good(&["evidence-pack", "--from", &from, "--to", &to, "--output", "pack"]);
    assert!(made.number("last_certificate") >= 3 && made.number("drills") >= 1, "{made}");
    place
}

/// A folder with a copy of the pack and the trust file, and nothing else.
fn handed_over(place: &Workplace) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&place.file("pack"), &folder.path().join("pack"));
    fs::copy(place.file("trust.json"), folder.path().join("trust.json")).unwrap();
    folder
}

fn verify(folder: &Path) -> Outcome {
    stranger(folder).json(&["evidence-pack", "verify", "pack", "--trust", "trust.json"])
}

fn names(pack: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(pack.join(&below)).unwrap() {
            let entry = entry.unwrap();
            let name = below.join(entry.file_name());
            if entry.path().is_dir() { open.push(name) } else { found.push(name.display().to_string()) }
        }
    }
    found.sort();
    found
}

/// What is said of a file.
fn told_of(outcome: &Outcome, file: &str) -> Vec<String> {
    let faults = outcome.list("faults");
    let of_file = faults.iter().filter(|fault| fault["file"] == file);
    of_file.map(|fault| fault["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_pack_verifies_where_nothing_else_is_and_each_file_is_watched() {
    let place = packed();
    let folder = handed_over(&place);
    let good = verify(folder.path()).ends(0);
    assert_eq!(good.text("result"), "valid", "{good}");
    assert_eq!(good.list("checks").len(), 10, "{good}");
    assert_eq!(good.document()["is_over"], false, "its last day is tomorrow");
    let words = stranger(folder.path()).run(&["evidence-pack", "verify", "pack", "--trust", "trust.json"]).ends(0);
    let words = format!("{}{}", words.out, words.err);
    assert!(
        words.contains("before its period was over") && !words.contains("nothing of its period is missing"),
        "{words}"
    );
    assert!(good.number("keys_destroyed") > 0, "{good}");
    // Its own trust file does as well, and that is said.
    let own = stranger(folder.path()).run(&["evidence-pack", "verify", "pack"]).ends(0);
    assert!(own.err.contains("own trust file") || own.out.contains("own trust file"), "{own}");
    let mut sums = std::process::Command::new("sha256sum");
    sums.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(folder.path().join("pack"));
    assert!(sums.status().unwrap().success());

    let all = names(&folder.path().join("pack"));
    let kinds = ["certificates/000001.sigstore.json", "drills/000001.json", "holds.json", "log/operations.ndjson"];
    let more = ["manifest.json", "policies.json", "report.json", "statutes/built-in.toml", "trust.json", "SHA256SUMS"];
    for name in kinds.iter().chain(&more) {
        assert!(all.iter().any(|known| known == name), "no {name} in {all:?}");
    }
    assert!(all.iter().any(|name| name.ends_with(".list.ndjson")), "no roll-up in {all:?}");
    for name in &all {
        let path = folder.path().join("pack").join(name);
        let genuine = fs::read(&path).unwrap();
        let mut changed = genuine.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        fs::write(&path, &changed).unwrap();
        let outcome = verify(folder.path()).ends(1);
        assert!(!told_of(&outcome, name).is_empty(), "{name} was changed\n{outcome}");
        fs::remove_file(&path).unwrap();
        let outcome = verify(folder.path()).ends(1);
        assert!(told_of(&outcome, name).iter().any(|what| what.contains("is missing")), "{name} is gone\n{outcome}");
        fs::write(&path, &genuine).unwrap();
    }
    for added in ["certificates/000099.sigstore.json", "note.txt", "log/.hidden"] {
        let path = folder.path().join("pack").join(added);
        fs::copy(folder.path().join("pack/certificates/000001.sigstore.json"), &path).unwrap();
        let outcome = verify(folder.path()).ends(1);
        assert_eq!(told_of(&outcome, added), ["was added: the manifest does not name it"], "{outcome}");
        fs::remove_file(&path).unwrap();
    }
    verify(folder.path()).ends(0);
    // A name that would write over what is said before it.
    fs::write(folder.path().join("pack/note\u{1b}[2J\n✓ the pack is what was signed"), "x").unwrap();
    let shown = stranger(folder.path()).run(&["evidence-pack", "verify", "pack", "--trust", "trust.json"]).ends(1);
    let said = format!("{}{}", shown.out, shown.err);
    assert!(said.contains("was added") && !said.contains('\u{1b}') && !said.contains("\n✓ the pack is what"), "{said}");
}

#[test]
fn an_older_log_does_not_pass_for_the_one_that_a_roll_up_saw() {
    let (place, database) = small::installed();
    small::goes_through(&place, &database);
    let today = SystemClock.now().date_naive();
    let [from, to] = [today - Days::new(1), today + Days::new(1)].map(|day| day.to_string());
    place.good(&["evidence-pack", "--from", &from, "--to", &to, "--output", "early"]);
    place.good(&["job", "run", "outbox"]);
    place.good(&["job", "run", "roll-up"]);
    place.good(&["evidence-pack", "--from", &from, "--to", &to, "--output", "late"]);
    let (early, late) = (read(&place.file("early")), read(&place.file("late")));
    let signer = CertificateSigner::open(&place.file("state/signing-key.pem")).unwrap();
    let trusted = [signer.public().clone()].into_iter().collect();
    let (before, _) = read_manifest(&early[MANIFEST], &trusted).unwrap();
    let faults = forged(&late, &signer, |files, manifest| {
        files.insert("log/operations.ndjson".to_owned(), early["log/operations.ndjson"].clone());
        manifest.predicate.operation_log = before.predicate.operation_log.clone();
    });
    assert_says(&faults, &["roll-ups: log/operations.ndjson", "does not hold the place up to which roll-up"]);
}

/// The month that the pack's days lie in.
fn this_month() -> String {
    SystemClock.now().format("%Y-%m").to_string()
}

#[test]
fn a_month_is_counted_again_from_log_and_certificates() {
    let (place, _) = shop();
    let today = SystemClock.now().date_naive();
    let month = this_month();
    let report = place.good(&["report", "monthly", "--month", &month, "--output", "report.json"]);
    assert_eq!((report.text("result"), report.text("month")), ("partial".to_owned(), month), "the month is not over");
    let totals = &report.document()["totals"];
    let of_policy: Vec<&Value> =
        totals["rows"].as_array().unwrap().iter().filter(|row| row["policy"] == "old-orders").collect();
    let erased: i64 = of_policy.iter().map(|row| row["erased"].as_i64().unwrap()).sum();
    assert_eq!(erased, small::DUE, "{report}");
    for row in totals["rows"].as_array().unwrap() {
        let sum: i64 = ["erased", "anonymised", "kept", "failed"].iter().map(|name| row[name].as_i64().unwrap()).sum();
        assert_eq!(row["due"], sum, "{row}");
    }
    assert_eq!(totals["requests"]["received"], 1, "{report}");
    assert_eq!(totals["holds_placed"], 1, "{report}");
    assert!(totals["drills"]["done"].as_i64().unwrap() >= 1 && totals["drills"]["went_wrong"] == 0, "{report}");
    assert!(totals["backups"]["done"].as_i64().unwrap() >= 2 && totals["keys_destroyed"].as_i64().unwrap() > 0);
    assert_eq!(totals["roll_ups"], 1, "{report}");
    // Words for people, in both languages.
    place.program().run(&["report", "monthly", "--month", &this_month()]).ends(0).says(&["old-orders", "requests"]);
    place.program().run(&["report", "monthly", "--month", &this_month(), "--lang", "zh"]).ends(0).says(&["请求"]);
    assert_eq!(place.good(&["report", "monthly", "--month", "2019-02"]).document()["totals"]["erasures"]["ended"], 0);
    place.program().run(&["report", "monthly", "--month", "2019-2"]).ends(2);

    let [from, to] = [today - Days::new(40), today + Days::new(40)].map(|day| day.to_string());
    place.good(&["evidence-pack", "--from", &from, "--to", &to, "--output", "pack"]);
    let folder = handed_over(&place);
    fs::copy(place.file("report.json"), folder.path().join("report.json")).unwrap();
    let again = |report: &str| {
        stranger(folder.path()).json(&["evidence-pack", "verify", "pack", "--trust", "trust.json", "--report", report])
    };
    again("report.json").ends(0);
    // One who can sign makes it look better.
    let signer = CertificateSigner::open(&place.file("state/signing-key.pem")).unwrap();
    let trusted = [signer.public().clone()].into_iter().collect();
    let genuine = fs::read(place.file("report.json")).unwrap();
    let (mut said, _) = wangchuan::certify::report::read_report(&genuine, &trusted).unwrap();
    let row = said.totals.rows.iter_mut().find(|row| row.policy == "old-orders" && row.erased > 0).unwrap();
    let place_of_row = row.place.clone();
    row.erased += 10;
    said.totals.refusals.clear();
    said.totals.requests.received = 0;
    let (payload, message) = said.to_sign().unwrap();
    let key = signer.public().key_id();
    let forged = wangchuan::certify::report::signed_report(payload, signer.sign(&message).unwrap(), key);
    fs::write(folder.path().join("forged.json"), forged).unwrap();
    let found = again("forged.json").ends(1);
    let told = told_of(&found, "forged.json");
    assert!(told.iter().any(|what| what.starts_with(&format!("rows.old-orders {place_of_row}.erased: "))), "{found}");
    assert!(told.iter().any(|what| what.starts_with("requests.received: ")), "{found}");
    // One of days that the pack does not cover.
    place.good(&["report", "monthly", "--month", "2019-02", "--output", "old.json"]);
    fs::copy(place.file("old.json"), folder.path().join("old.json")).unwrap();
    let found = again("old.json").ends(1);
    assert!(told_of(&found, "old.json")[0].contains("the pack does not cover"), "{found}");
    let mut changed = genuine;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(folder.path().join("changed.json"), changed).unwrap();
    again("changed.json").ends(1);
}

#[test]
fn nothing_in_a_pack_identifies_a_customer() {
    let place = packed();
    let bytes = place.bytes_under("pack");
    let text = String::from_utf8_lossy(&bytes);
    // Certificates and records are base64 in their envelopes.
    let opened: String = names(&place.file("pack")).iter().map(|name| opened(&place.file("pack").join(name))).collect();
    assert!(opened.contains("subjectsCount") && opened.contains("rto_seconds"), "the envelopes were opened");
    for canary in small::CUSTOMERS.iter().copied().chain(["Canary", "canary.example"]) {
        assert!(!text.contains(canary) && !opened.contains(canary), "{canary} is in the pack");
    }
    assert!(text.contains("case-17"), "the search works");
}

/// The payload of a file's envelope, if it has one.
fn opened(path: &Path) -> String {
    use base64::Engine as _;
    let Ok(value) = serde_json::from_slice::<Value>(&fs::read(path).unwrap()) else { return String::new() };
    let payload = value["payload"].as_str().or(value["dsseEnvelope"]["payload"].as_str()).unwrap_or_default();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(payload).unwrap()).unwrap()
}

fn read(folder: &Path) -> PackFiles {
    names(folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap())).collect()
}

/// The pack as somebody makes it who has the signing key and changes what the files and the manifest say.
fn forged(
    files: &PackFiles,
    signer: &CertificateSigner,
    change: impl FnOnce(&mut PackFiles, &mut EvidencePackStatement),
) -> Vec<String> {
    let mut files = files.clone();
    let trusted = [signer.public().clone()].into_iter().collect();
    let (mut manifest, _) = read_manifest(&files[MANIFEST], &trusted).unwrap();
    files.remove(MANIFEST);
    change(&mut files, &mut manifest);
    let subject = |(name, bytes): (&String, &Vec<u8>)| Subject {
        name: name.clone(),
        digest: Digest { sha256: hex::encode(sha256(bytes)) },
    };
    manifest.subject = files.iter().map(subject).collect();
    let (payload, message) = manifest.to_sign().unwrap();
    let key = signer.public().key_id();
    files.insert(MANIFEST.to_owned(), signed_manifest(payload, signer.sign(&message).unwrap(), key));
    let verdict = verify_pack(&files, None, &own_trust(&files).unwrap(), SystemClock.now());
    assert_eq!(verdict.is_valid(), verdict.checks.iter().all(|check| check.faults.is_empty()));
    let faults = verdict.checks.iter().flat_map(|check| check.faults.iter().map(move |fault| (check.name, fault)));
    let text = |(check, fault): (&str, &wangchuan::tasks::evidence_pack::PackFault)| {
        format!("{check}: {} {}", fault.file.as_deref().unwrap_or("-"), fault.what)
    };
    faults.map(text).collect()
}

#[track_caller]
fn assert_says(faults: &[String], expected: &[&str]) {
    assert!(
        faults.iter().any(|fault| expected.iter().all(|text| fault.contains(text))),
        "nothing says {expected:?} in {faults:#?}"
    );
}

#[test]
fn whoever_has_the_signing_key_cannot_leave_anything_out() {
    let place = packed();
    let files = read(&place.file("pack"));
    let signer = CertificateSigner::open(&place.file("state/signing-key.pem")).unwrap();
    assert_eq!(forged(&files, &signer, |_, _| {}), Vec::<String>::new());
    let certificates: Vec<String> = files.keys().filter(|name| name.starts_with("certificates/")).cloned().collect();
    let remove = |files: &mut PackFiles, number: u64| {
        let begin = format!("certificates/{number:06}");
        files.retain(|name, _| !name.starts_with(&begin));
    };
    let last = certificates.iter().filter_map(|name| name[13..19].parse::<u64>().ok()).max().unwrap();
    assert!(last >= 3, "{certificates:?}");

    let gap = forged(&files, &signer, |files, _| remove(files, 2));
    assert_says(&gap, &["certificates: ", "certificate no. 2 is missing: the sequence has a gap"]);
    let first = forged(&files, &signer, |files, manifest| {
        remove(files, 1);
        manifest.predicate.certificates.as_mut().unwrap().first = 2;
    });
    assert_says(&first, &["completeness: ", "was issued in the period as the log says, and is missing"]);
    assert_says(&first, &["certificates: ", "begin within the period"]);
    let end = forged(&files, &signer, |files, manifest| {
        remove(files, last);
        manifest.predicate.certificates.as_mut().unwrap().last = last - 1;
    });
    assert_says(&end, &["completeness: ", "was issued in the period as the log says, and is missing"]);
    let swapped = forged(&files, &signer, |files, _| {
        let (one, two) = ("certificates/000001.sigstore.json", "certificates/000002.sigstore.json");
        let (first, second) = (files[one].clone(), files[two].clone());
        files.insert(one.to_owned(), second);
        files.insert(two.to_owned(), first);
    });
    assert_says(&swapped, &["certificates/000001.sigstore.json", "is no. 2"]);

    let drill = forged(&files, &signer, |files, manifest| {
        files.retain(|name, _| !name.starts_with("drills/"));
        manifest.predicate.drills = None;
    });
    assert_says(&drill, &["drills: ", "stands in the log, and its record is missing"]);
    let hold = forged(&files, &signer, |files, _| {
        files.insert("holds.json".to_owned(), b"[]\n".to_vec());
    });
    assert_says(&hold, &["completeness: holds.json", "lacks hold case-17"]);
    let policies = forged(&files, &signer, |files, manifest| {
        let text = String::from_utf8(files["policies.json"].clone()).unwrap();
        let text = text.replace(&manifest.predicate.policy_digest, &"ab".repeat(32));
        files.insert("policies.json".to_owned(), text.into_bytes());
        manifest.predicate.policy_digest = "ab".repeat(32);
    });
    assert_says(&policies, &["policies: policies.json", "does not have the policies that certificate no. 1 names"]);
    let replaced = forged(&files, &signer, |files, _| replace(files, &signer, last));
    assert_says(
        &replaced,
        &["completeness: ", &format!("certificate no. {last} is another than the log says was issued")],
    );
    let shifted = forged(&files, &signer, |_, manifest| manifest.predicate.since = manifest.predicate.until);
    assert_says(&shifted, &["manifest: manifest.json", "is another instant than it says"]);
    let other = CheckpointSigner::make_pkcs8(&SystemRandom).unwrap();
    let other = CheckpointSigner::from_pkcs8("other.example/log", &other).unwrap();
    let other_log = forged(&files, &signer, |_, manifest| {
        manifest.predicate.operation_log.verifier_key = other.key().verifier_key();
    });
    assert_says(&other_log, &["log: log/operations.ndjson", "that the trust file does not have"]);
    forged_logs(&files, &signer);
}

/// Signs another certificate with the same id and number as the last one.
fn replace(files: &mut PackFiles, signer: &CertificateSigner, last: u64) {
    use base64::Engine as _;
    const IN_TOTO: &str = "application/vnd.in-toto+json";
    let begin = format!("certificates/{last:06}.");
    let is_it = |name: &&String| name.starts_with(&begin) && !name.ends_with("ndjson");
    let name = files.keys().find(is_it).unwrap().clone();
    let value: Value = serde_json::from_slice(&files.remove(&name).unwrap()).unwrap();
    let payload = value["payload"].as_str().or(value["dsseEnvelope"]["payload"].as_str()).unwrap();
    let payload = base64::engine::general_purpose::STANDARD.decode(payload).unwrap();
    let changed =
        String::from_utf8(payload).unwrap().replacen("\"agentVersion\":\"", "\"agentVersion\":\"9", 1).into_bytes();
    let signature = signer.sign(&pae(IN_TOTO, &changed)).unwrap();
    let envelope = Envelope::make(IN_TOTO, changed, signature, signer.public().key_id());
    files.insert(format!("{begin}dsse.json"), envelope.as_bytes().to_vec());
}

/// Entries that are changed or left out, with numbers that fit again.
fn forged_logs(files: &PackFiles, signer: &CertificateSigner) {
    const LOG: &str = "log/operations.ndjson";
    let edit = |change: &dyn Fn(&mut Vec<String>, &mut Value)| {
        forged(files, signer, |files, manifest| {
            let text = String::from_utf8(files[LOG].clone()).unwrap();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let mut header: Value = serde_json::from_str(&lines.remove(0)).unwrap();
            change(&mut lines, &mut header);
            header["entries"] = lines.len().into();
            manifest.predicate.operation_log.entries = lines.len() as u64;
            manifest.predicate.operation_log.first = header["first"].as_u64().unwrap();
            lines.insert(0, header.to_string());
            files.insert(LOG.to_owned(), lines.join("\n").into_bytes());
        })
    };
    let changed = edit(&|lines, _| lines[3] = lines[3].replacen("\\\"category_uid\\\":", "\\\"category_uid\\\":1", 1));
    assert_says(&changed, &["log: log/operations.ndjson line 5", "was changed"]);
    let removed = edit(&|lines, _| {
        lines.remove(3);
    });
    assert_says(&removed, &["log: log/operations.ndjson line 5", "one is missing"]);
    let emptied = edit(&|lines, _| {
        let mut entry: Value = serde_json::from_str(&lines[3]).unwrap();
        (entry["salt"], entry["record"]) = (Value::Null, Value::Null);
        lines[3] = entry.to_string();
    });
    assert_says(&emptied, &["log: log/operations.ndjson", "line 5 lacks its content"]);
    let cut = edit(&|lines, _| {
        lines.pop();
    });
    assert_says(&cut, &["log: log/operations.ndjson holds other entries than the log had"]);
    let begun = edit(&|lines, header| {
        lines.remove(0);
        header["first"] = 1.into();
        header["before"] = serde_json::json!(["ab".repeat(32)]);
    });
    assert_says(&begun, &["log: log/operations.ndjson holds other entries than the log had"]);
}

async fn pack_of(installation: &Installation, day: DateTime<Utc>) -> MadePack {
    let day = day.with_timezone(&installation.config.agent.timezone).date_naive();
    make_pack(installation, day, day).await.unwrap()
}

async fn next_day(world: &World, installation: &Installation) {
    world.clock.advance(TimeDelta::days(1));
    installation.confirm_clock().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_that_is_over_shows_its_ends() {
    let world = filed(Making { customers: 30, ..Making::default() }, 2).await;
    let installation = world.open().await;
    let yesterday = world.clock.now();
    next_day(&world, &installation).await;
    let day = world.clock.now();
    forget(&installation, &customers(&world)[5]).await;
    certify_due(&installation).await.unwrap();
    next_day(&world, &installation).await;
    forget(&installation, &customers(&world)[7]).await;
    certify_due(&installation).await.unwrap();

    let made = pack_of(&installation, day).await;
    let numbers = made.manifest.predicate.certificates.unwrap();
    assert_eq!((numbers.first, numbers.last), (2, 4), "one before and one behind it");
    let log = made.manifest.predicate.operation_log.clone();
    assert!(log.first > 5 && log.entries > 3, "{log:?}");
    let now = world.clock.now();
    let trust = own_trust(&made.files).unwrap();
    let verdict = verify_pack(&made.files, None, &trust, now);
    assert!(verdict.is_valid(), "{:#?}", verdict.checks);
    assert_eq!(verdict.without_receipt, [3, 4]);
    let first = pack_of(&installation, yesterday).await;
    assert_eq!(first.manifest.predicate.operation_log.first, 0);
    assert!(verify_pack(&first.files, None, &trust, now).is_valid());
    // A day on which nothing happened: its neighbours show that.
    let before = pack_of(&installation, yesterday - TimeDelta::days(3)).await;
    assert_eq!(before.manifest.predicate.certificates.map(|all| (all.first, all.last)), Some((1, 1)));
    let verdict = verify_pack(&before.files, None, &trust, now);
    assert!(verdict.is_valid(), "{:#?}", verdict.checks);

    // Entries of before, which prove themselves, and nothing of the period.
    let signer = CertificateSigner::open(&world.path("state/signing-key.pem")).unwrap();
    let faults = forged(&made.files, &signer, |files, manifest| {
        files.insert("log/operations.ndjson".to_owned(), first.files["log/operations.ndjson"].clone());
        files.retain(|name, _| !name.starts_with("certificates/"));
        manifest.predicate.operation_log = first.manifest.predicate.operation_log.clone();
        (manifest.predicate.certificates, manifest.predicate.drills) = (None, None);
        manifest.predicate.since = (manifest.predicate.since.instant() + TimeDelta::days(1)).into();
        manifest.predicate.until = (manifest.predicate.until.instant() + TimeDelta::days(1)).into();
        manifest.predicate.from = manifest.predicate.from + Days::new(1);
        manifest.predicate.to = manifest.predicate.to + Days::new(1);
    });
    assert_says(
        &faults,
        &["log: log/operations.ndjson", "ends earlier than the period, and later entries may be missing"],
    );

    // The entry behind the period is left out, with everything else made to fit by whoever can sign.
    let faults = forged(&made.files, &signer, |_, manifest| {
        manifest.predicate.to = manifest.predicate.to + Days::new(1);
        manifest.predicate.until = (manifest.predicate.until.instant() + TimeDelta::days(1)).into();
    });
    assert_says(
        &faults,
        &["log: log/operations.ndjson", "ends earlier than the period, and later entries may be missing"],
    );
    installation.close().await.unwrap();
}
