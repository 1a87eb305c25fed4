//! Time stamps by an authority: asked for, checked, kept, handed out and verified by strangers; and authorities that fail or lie.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use wangchuan::certify::dsse::{Envelope, pae};
use wangchuan::clock::{Clock, SystemClock};
use wangchuan::installation::Installation;
use wangchuan::tasks::audit::{audit_status, verify_all};
use wangchuan::tasks::stamps::stamp_due;

use super::tools::{filed, python, run, script, stranger, verdicts};
use crate::support::announce::{NODE_VERIFIERS, switched_on};
use crate::support::program::Program;
use crate::support::tsa::{Conduct, Keys, Tsa};
use crate::support::world::{Making, World};

/// How time stamps are tampered with.
const TAMPERED: [&str; 6] = ["signature", "of-another", "time", "imprint", "other-authority", "cut-off"];

const STAMP: &str = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";

/// A world with filed certificates, and an authority in its configuration.
async fn with_authority(keys: Keys, certificates: usize) -> (World, Tsa) {
    let world = filed(Making { customers: 40, ..Making::default() }, certificates).await;
    let tsa = Tsa::serve(keys).await;
    let line = tsa.configured(world.folder.path());
    world.edit_config("data = \"audit\"", &format!("data = \"audit\"\n{line}"));
    (world, tsa)
}

fn read(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.sigstore.json"))).unwrap()).unwrap()
}

fn stamp_of(bundle: &Value) -> Vec<u8> {
    STANDARD.decode(bundle.pointer(STAMP).unwrap().as_str().unwrap()).unwrap()
}

/// The place after these bytes, which are there.
fn behind(bytes: &[u8], mark: &[u8]) -> usize {
    bytes.windows(mark.len()).position(|window| window == mark).unwrap() + mark.len()
}

/// Two exported bundles, and copies of the first with another time stamp each.
fn handed_out(world: &World, tsa: &Tsa) -> tempfile::TempDir {
    let owner = Program::in_directory(world.folder.path());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (number, name) in [("1", "genuine"), ("2", "another")] {
        owner.json(&["certificate", "export", number, "--output", &path(&format!("{name}.sigstore.json"))]).ends(0);
    }
    owner.json(&["audit", "trust", "--output", &path("trust.json"), "--parts", &path("parts")]).ends(0);
    for part in ["trusted_root.json", "signer.pem", "timestamp-roots.pem"] {
        std::fs::copy(folder.path().join("parts").join(part), folder.path().join(part)).unwrap();
    }
    let (genuine, another) = (read(folder.path(), "genuine"), read(folder.path(), "another"));
    let good = stamp_of(&genuine);
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let signature = genuine.pointer("/dsseEnvelope/signatures/0/sig").unwrap().as_str().unwrap();
    let made = [
        changed(good.len() - 1),
        stamp_of(&another),
        // A GeneralizedTime of 15 letters that begins with 20: its first year digit but one.
        changed(behind(&good, b"\x18\x0f20")),
        changed(behind(&good, &wangchuan::log::tree::sha256(&STANDARD.decode(signature).unwrap())[..4])),
        tsa.stranger_s(&STANDARD.decode(signature).unwrap()),
        good[..good.len() - 1].to_vec(),
    ];
    for (kind, stamp) in TAMPERED.iter().zip(made) {
        let mut bundle = genuine.clone();
        *bundle.pointer_mut(STAMP).unwrap() = STANDARD.encode(stamp).into();
        std::fs::write(folder.path().join(format!("{kind}.sigstore.json")), bundle.to_string()).unwrap();
    }
    folder
}

async fn stamped_and_verified(keys: Keys) {
    let (world, tsa) = with_authority(keys, 2).await;
    let owner = Program::in_directory(world.folder.path());
    let before = owner.json(&["audit", "status"]).ends(4).document();
    assert_eq!((&before["stamped"], &before["unstamped"]), (&0.into(), &2.into()), "{before}");
    let flushed = owner.json(&["audit", "flush"]).ends(0);
    assert_eq!((flushed.document()["stamped"].clone(), tsa.asked()), (2.into(), 2), "{flushed}");
    owner.json(&["audit", "flush"]).ends(0);
    assert_eq!(tsa.asked(), 2, "each is stamped once");
    assert_eq!(owner.json(&["audit", "status"]).ends(0).document()["unstamped"], 0);
    owner.json(&["certificate", "show", "1"]).ends(0).says(&["own stamp unit"]);
    owner.json(&["certificate", "verify", "1"]).ends(0).says(&["timestamp", "own stamp unit"]);
    owner.json(&["audit", "verify"]).ends(0).says(&["2 certificates with a time stamp, 0 without"]);
    owner.json(&["certificate", "export", "1", "--format", "html", "--output", "page.html"]).ends(0);
    let page = std::fs::read_to_string(world.path("page.html")).unwrap();
    assert!(page.contains("by CN=own stamp unit"), "{page}");

    let folder = handed_out(&world, &tsa);
    strangers(folder.path());
    let stock = |tool: &str, said: &super::tools::Said| {
        for name in ["genuine", "another"] {
            assert_eq!(said.get(name).map(String::as_str), Some("accepted"), "{tool}: {said:?}");
        }
        for name in TAMPERED {
            assert!(said.get(name).is_some_and(|said| said.starts_with("rejected")), "{tool} takes {name}: {said:?}");
        }
    };
    stock("openssl", &verdicts(&run(&script("stamps.sh"), &[folder.path()])));
    // It reads no time stamp whose authority has an RSA key.
    if matches!(keys, Keys::Ec) {
        stock("sigstore-verify", &super::sigstore_rust::verdicts(folder.path()));
    }
    if let Some(python) = python("python") {
        stock("rfc3161-client", &verdicts(&run(&python, &[&script("stamps.py"), folder.path()])));
        // Who looks at certificate and log alone still takes a bundle with a time stamp.
        let said = run(&python, &[&script("bundles.py"), folder.path()]);
        assert!(
            said.contains("sigstore genuine accepted") && said.contains("securesystemslib genuine accepted"),
            "{said}"
        );
    }
    if let Some(modules) = switched_on(NODE_VERIFIERS) {
        let node = Path::new(&modules).join("node/bin/node");
        let said = run(&node, &[&script("bundles.mjs"), folder.path(), Path::new(&modules)]);
        stock("@sigstore/verify", &verdicts(&said));
    }
}

/// The program itself, with nothing but the trust file.
fn strangers(folder: &Path) {
    let program = stranger(folder);
    let verify = |name: &str, trust: &str| {
        program.json(&["certificate", "verify", &format!("{name}.sigstore.json"), "--trust", trust])
    };
    for name in ["genuine", "another"] {
        let verified = verify(name, "trust.json").ends(0);
        let checks = verified.list("checks");
        let stamp = checks.iter().find(|check| check["check"] == "timestamp").unwrap();
        assert!(stamp["good"] == true && stamp["what"].as_str().unwrap().contains("own stamp unit"), "{verified}");
    }
    for name in TAMPERED {
        let verified = verify(name, "trust.json").ends(1);
        let checks = verified.list("checks");
        let wrong: Vec<&Value> = checks.iter().filter(|check| check["good"] == false).collect();
        assert_eq!(wrong.len(), 1, "{name}: {verified}");
        assert_eq!(wrong[0]["check"], "timestamp", "{name}: {verified}");
    }
    // Without an authority nothing is said of it, and that is said.
    let mut trust: Value = serde_json::from_slice(&std::fs::read(folder.join("trust.json")).unwrap()).unwrap();
    for member in ["timestampRoots", "timestampChains"] {
        trust.as_object_mut().unwrap().remove(member).unwrap();
    }
    std::fs::write(folder.join("less.json"), trust.to_string()).unwrap();
    let verified = verify("signature", "less.json").ends(0);
    assert!(verified.list("checks").iter().all(|check| check["check"] != "timestamp"), "{verified}");
    verified.says(&["was not checked"]);
    trust["timestampRoots"] = serde_json::json!(["no certificate"]);
    std::fs::write(folder.join("bad.json"), trust.to_string()).unwrap();
    assert_eq!(verify("genuine", "bad.json").ends(2).text("code"), "TRUST_FILE");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_with_an_rsa_key_stamps_and_strangers_verify() {
    stamped_and_verified(Keys::Rsa).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_with_an_ec_key_stamps_and_strangers_verify() {
    stamped_and_verified(Keys::Ec).await;
}

/// At the time of day, as the authority has it.
async fn opened_now(world: &World) -> Installation {
    world.clock.advance(SystemClock.now() - world.clock.now());
    world.open().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_down_slow_or_lies_gives_no_time_stamp_and_holds_up_nothing() {
    let (world, tsa) = with_authority(Keys::Ec, 2).await;
    let installation = opened_now(&world).await;
    let wrong = [
        (Conduct::Down, "not ready (status 503)", false),
        (Conduct::Slow, "does not answer", false),
        (Conduct::Elsewhere, "configured wrongly (status 404)", true),
        (Conduct::Page, "malformed", true),
        (Conduct::Endless, "too long", true),
        (Conduct::Refusing, "refused (status 2)", true),
        (Conduct::OtherImprint, "about another signature", true),
        (Conduct::OtherNonce, "nonce is not ours", true),
        (Conduct::Stranger, "does not lead to a trusted root", true),
        (Conduct::Damaged, "signature is wrong", true),
    ];
    for (conduct, said, alarm) in wrong {
        tsa.behave(conduct);
        let (begun, asked) = (SystemClock.now(), tsa.asked());
        let report = stamp_due(&installation, true).await.unwrap();
        assert_eq!((report.stamped.len(), report.missing), (0, 2), "{conduct:?}: {report:?}");
        assert!(report.problem.as_ref().is_some_and(|why| why.contains(said)), "{conduct:?}: {report:?}");
        assert_eq!(report.alarm, alarm, "{conduct:?}: {report:?}");
        assert_eq!(tsa.asked(), asked + 1, "{conduct:?}: one failure ends a round");
        assert!(SystemClock.now() - begun < TimeDelta::seconds(30), "{conduct:?}");
        let status = audit_status(&installation).await.unwrap().stamps.unwrap();
        assert_eq!((status.stamped, status.missing.len()), (0, 2), "{conduct:?}");
        assert!(status.circuit.reason.is_some_and(|why| why.contains(said)), "{conduct:?}");
    }
    // It is left alone now, and what is missing is told.
    let asked = tsa.asked();
    let report = stamp_due(&installation, false).await.unwrap();
    assert_eq!((report.missing, report.alarm, tsa.asked()), (2, true, asked), "{report:?}");
    let verdict = verify_all(&installation).await.unwrap();
    assert_eq!(verdict.result, "valid", "certificates are good without: {verdict:?}");
    assert!(verdict.checks.iter().any(|(_, _, said)| said.contains("0 certificates with a time stamp, 2 without")));
    let mut tx = installation.control.read().await.unwrap();
    let status = wangchuan::tasks::status::status(&installation.control, &installation.config, world.clock.as_ref());
    let codes: Vec<&str> = status.await.unwrap().overdue.iter().map(|overdue| overdue.code).collect();
    assert!(codes.contains(&"stamp-alarm") && codes.contains(&"stamp-overdue"), "{codes:?}");
    assert!(tx.time_stamps().await.unwrap().is_empty());
    drop(tx);
    // Once it works, nothing was lost.
    tsa.behave(Conduct::Honest);
    world.clock.advance(TimeDelta::minutes(1));
    let report = stamp_due(&installation, true).await.unwrap();
    assert_eq!((report.stamped.len(), report.missing, report.problem), (2, 0, None));
    let status = audit_status(&installation).await.unwrap().stamps.unwrap();
    assert_eq!((status.stamped, status.circuit.failures), (2, 0));
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_stamp_far_from_this_host_s_clock_is_not_kept_and_one_that_was_changed_is_found() {
    let (world, _tsa) = with_authority(Keys::Ec, 1).await;
    let installation = opened_now(&world).await;
    world.clock.advance(TimeDelta::hours(2));
    let report = stamp_due(&installation, true).await.unwrap();
    assert!(report.stamped.is_empty() && report.alarm, "{report:?}");
    assert!(report.problem.unwrap().contains("far from this host's clock"));
    world.clock.advance(TimeDelta::hours(-2));
    assert_eq!(stamp_due(&installation, true).await.unwrap().stamped.len(), 1);
    installation.close().await.unwrap();
    world.clock.advance(TimeDelta::hours(1));
    let sql = "UPDATE time_stamp SET reply = CAST(substr(reply, 1, length(reply) - 1) || x'00' AS BLOB)";
    world.run_sql_in("state/control.db", sql).await;
    let installation = world.open_state().await;
    let verdict = verify_all(&installation).await.unwrap();
    assert_eq!(verdict.result, "invalid");
    assert!(verdict.checks.iter().any(|(_, good, said)| !good && said.contains("timestamp")), "{verdict:?}");
    installation.close().await.unwrap();
}

/// Has the first certificate say that it was signed at another time, with the key of the installation; the date beside it stays.
async fn redated(world: &World, installation: &Installation, said: DateTime<Utc>) {
    let row = installation.control.read().await.unwrap().certificates(None).await.unwrap().remove(0);
    let mut payload: Value = serde_json::from_slice(Envelope::parse(&row.envelope).unwrap().payload()).unwrap();
    payload["predicate"]["issuedAt"] = wangchuan::control::time_text(said).into();
    let (kind, payload) = ("application/vnd.in-toto+json", payload.to_string().into_bytes());
    let signature = installation.signer.sign(&pae(kind, &payload)).await.unwrap();
    let envelope = Envelope::make(kind, payload, signature, installation.signer.key_id());
    let sql = format!("UPDATE certificate SET envelope = x'{}' WHERE sequence = 1", hex::encode(envelope.as_bytes()));
    world.run_sql_in("state/control.db", &sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_read_is_named_and_holds_up_no_other() {
    let changed = "replace(CAST(envelope AS TEXT), '\"sig\":\"ME', '\"sig\":\"MF')";
    let damages = [
        format!("UPDATE certificate SET envelope = CAST({changed} AS BLOB) WHERE sequence = 1"),
        "UPDATE certificate SET envelope = 'text' WHERE sequence = 1".to_owned(),
        "UPDATE certificate SET envelope = x'7b7d' WHERE sequence = 1".to_owned(),
        "UPDATE certificate SET issued_at = 'yesterday', envelope = x'' WHERE sequence = 1".to_owned(),
    ];
    let (world, tsa) = with_authority(Keys::Ec, 3).await;
    let installation = opened_now(&world).await;
    let first = installation.control.read().await.unwrap().certificates(None).await.unwrap().remove(0).id;
    for damage in damages {
        world.run_sql_in("state/control.db", &damage).await;
        let report = stamp_due(&installation, true).await.unwrap();
        assert_eq!((report.missing, report.alarm, tsa.asked()), (1, true, 2), "{damage}: {report:?}");
        let why = report.told().unwrap();
        assert!(why.contains(&first) && why.contains("audit verify"), "{why}");
    }
    let mut tx = installation.control.read().await.unwrap();
    assert_eq!(tx.time_stamps().await.unwrap().len(), 2);
    drop(tx);
    installation.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_dated_ahead_holds_up_no_other_and_says_nothing_of_the_authority() {
    let (world, tsa) = with_authority(Keys::Ec, 3).await;
    let installation = opened_now(&world).await;
    let day = TimeDelta::days(1);
    redated(&world, &installation, world.clock.now() + day).await;
    // The date beside a certificate is not what was signed: nothing hangs on it.
    for (number, at) in [(2, world.clock.now() + day), (3, world.clock.now() - day)] {
        let at = wangchuan::control::time_text(at);
        let sql = format!("UPDATE certificate SET issued_at = '{at}' WHERE sequence = {number}");
        world.run_sql_in("state/control.db", &sql).await;
    }
    let report = stamp_due(&installation, true).await.unwrap();
    assert_eq!((report.stamped.len(), report.missing, report.alarm, tsa.asked()), (2, 1, false, 3), "{report:?}");
    assert!(report.told().unwrap().contains("signed later"), "{report:?}");
    let status = audit_status(&installation).await.unwrap().stamps.unwrap();
    assert_eq!((status.stamped, status.circuit.failures), (2, 0));
    installation.close().await.unwrap();
}
