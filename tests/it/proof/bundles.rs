//! An exported bundle and the trust file, verified by a stranger: by the program without an installation, and by stock tools.
//! Every tool must take what is genuine and refuse what was tampered with.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wangchuan::certify::dsse::pae;

use super::sigstore_rust;
use super::tools::{Said, filed, python, run, script, stranger, verdicts};
use crate::support::announce::{NODE_VERIFIERS, switched_on};
use crate::support::program::Program;
use crate::support::search::Search;
use crate::support::world::{Making, World};

/// How bundles are tampered with; each is a kind that some verifier must notice.
const TAMPERED: [&str; 9] = [
    "payload",
    "payload-type",
    "signature",
    "signature-of-another",
    "other-key",
    "receipt-of-another",
    "proof-hash",
    "checkpoint-signature",
    "checkpoint-root",
];

/// A folder with everything that a stranger gets, and tampered copies of the first bundle.
async fn handed_out() -> (World, tempfile::TempDir) {
    let world = filed(Making::default(), 3).await;
    let owner = Program::in_directory(world.folder.path());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // The first entry of a log has a proof without hashes, in which there is nothing to tamper with.
    let has_hashes = |number: &&str| {
        let name = format!("try-{number}");
        owner.json(&["certificate", "export", number, "--output", &path(&format!("{name}.sigstore.json"))]).ends(0);
        let found =
            read(folder.path(), &name).pointer("/verificationMaterial/tlogEntries/0/inclusionProof/hashes/0").is_some();
        std::fs::remove_file(path(&format!("{name}.sigstore.json"))).unwrap();
        found
    };
    let numbers = ["1", "2", "3"];
    let genuine = numbers.into_iter().find(has_hashes).unwrap();
    let another = numbers.into_iter().find(|number| *number != genuine).unwrap();
    owner.json(&["certificate", "export", genuine, "--output", &path("genuine.sigstore.json")]).ends(0);
    owner.json(&["certificate", "export", another, "--output", &path("another.sigstore.json")]).ends(0);
    owner
        .json(&["certificate", "export", genuine, "--format", "envelope", "--output", &path("bare.dsse.json")])
        .ends(0);
    owner.json(&["certificate", "export", genuine, "--format", "proof", "--output", &path("bare.tlog-proof")]).ends(0);
    owner.json(&["audit", "trust", "--output", &path("trust.json"), "--parts", &path("parts")]).ends(0);
    for part in ["trusted_root.json", "signer.pem", "log.vkey", "tlog-policy.txt"] {
        std::fs::copy(folder.path().join("parts").join(part), folder.path().join(part)).unwrap();
    }
    tamper(folder.path());
    (world, folder)
}

fn read(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.sigstore.json"))).unwrap()).unwrap()
}

fn tamper(folder: &Path) {
    const PAYLOAD: &str = "/dsseEnvelope/payload";
    const SIGNATURE: &str = "/dsseEnvelope/signatures/0/sig";
    const PROOF: &str = "/verificationMaterial/tlogEntries/0/inclusionProof";
    let (genuine, another) = (read(folder, "genuine"), read(folder, "another"));
    let member =
        |bundle: &Value, pointer: &str| STANDARD.decode(bundle.pointer(pointer).unwrap().as_str().unwrap()).unwrap();
    let write = |kind: &str, pointer: &str, value: Value| {
        assert!(TAMPERED.contains(&kind));
        let mut bundle = genuine.clone();
        *bundle.pointer_mut(pointer).unwrap() = value;
        assert_ne!(bundle, genuine, "{kind}");
        std::fs::write(folder.join(format!("{kind}.sigstore.json")), bundle.to_string()).unwrap();
    };
    let payload = member(&genuine, PAYLOAD);
    let text = String::from_utf8(payload.clone()).unwrap();
    let count = text.find("\"recordsErased\":").unwrap() + "\"recordsErased\":".len();
    let changed = format!("{}9{}", &text[..count], &text[count..]);
    write("payload", PAYLOAD, STANDARD.encode(changed).into());
    write("payload-type", "/dsseEnvelope/payloadType", "application/json".into());
    let mut signature = member(&genuine, SIGNATURE);
    *signature.last_mut().unwrap() ^= 1;
    write("signature", SIGNATURE, STANDARD.encode(signature).into());
    write("signature-of-another", SIGNATURE, another.pointer(SIGNATURE).unwrap().clone());
    let stranger = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let forged = stranger.sign(&SystemRandom::new(), &pae("application/vnd.in-toto+json", &payload)).unwrap();
    write("other-key", SIGNATURE, STANDARD.encode(forged.as_ref()).into());
    let entries = "/verificationMaterial/tlogEntries";
    write("receipt-of-another", entries, another.pointer(entries).unwrap().clone());
    let mut hash = member(&genuine, &format!("{PROOF}/hashes/0"));
    hash[7] ^= 1;
    write("proof-hash", &format!("{PROOF}/hashes/0"), STANDARD.encode(hash).into());
    let note = genuine.pointer(&format!("{PROOF}/checkpoint/envelope")).unwrap().as_str().unwrap().to_owned();
    let (text, line) = note.split_once("\n\n").unwrap();
    let (begin, encoded) = line.trim_end().rsplit_once(' ').unwrap();
    let mut bytes = STANDARD.decode(encoded).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let resigned = format!("{text}\n\n{begin} {}\n", STANDARD.encode(bytes));
    write("checkpoint-signature", &format!("{PROOF}/checkpoint/envelope"), resigned.into());
    let mut lines: Vec<String> = note.lines().map(ToOwned::to_owned).collect();
    lines[2] = STANDARD.encode([9; 32]);
    let other_root = lines.join("\n") + "\n";
    write("checkpoint-root", &format!("{PROOF}/checkpoint/envelope"), other_root.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_what_was_signed_in_both_languages() {
    let world = filed(Making::default(), 2).await;
    let owner = Program::in_directory(world.folder.path());
    let shown = owner.json(&["certificate", "show", "1"]).ends(0).document();
    owner.json(&["certificate", "export", "1", "--output", "one.sigstore.json"]).ends(0);
    let checkpoint = "/verificationMaterial/tlogEntries/0/inclusionProof/checkpoint/envelope";
    let bundle = read(world.folder.path(), "one");
    let note = bundle.pointer(checkpoint).unwrap().as_str().unwrap();
    for (lang, title, mark) in [("en", "Deletion certificate", "lang=\"en\""), ("zh", "删除证书", "lang=\"zh-CN\"")]
    {
        let name = format!("{lang}.html");
        owner.json(&["certificate", "export", "1", "--format", "html", "--output", &name, "--lang", lang]).ends(0);
        let page = std::fs::read_to_string(world.path(&name)).unwrap();
        for text in [
            title,
            mark,
            "<svg",
            if lang == "zh" { "没有见证人" } else { "unwitnessed" },
            shown["digest"].as_str().unwrap(),
            shown["certificate"].as_str().unwrap(),
        ] {
            assert!(page.contains(text), "{lang}: no `{text}` in\n{page}");
        }
        for limitation in shown["statement"]["predicate"]["limitations"].as_array().unwrap() {
            assert!(page.contains(limitation.as_str().unwrap()), "{lang}: {limitation}");
        }
        // The printed code holds id, digest and the signed head of the log.
        let said = [&shown["certificate"], &shown["digest"]].map(|member| member.as_str().unwrap());
        let code = read_code(&page);
        assert!(code.starts_with(&format!("{}\n{}\nindex ", said[0], said[1])) && code.ends_with(note), "{code}");
        // No script, nothing fetched from anywhere.
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="), "{lang}");
        // What the sample shop knows of people stands nowhere.
        assert_eq!(Search::of(world.shop.canaries()).hits(page.as_bytes()), Vec::<&str>::new(), "{lang}");
    }
}

/// What a camera reads of the code on a page: its modules drawn four pixels wide, and decoded by another library.
fn read_code(page: &str) -> String {
    const SCALE: usize = 4;
    let (_, svg) = page.split_once("<svg").unwrap();
    let (_, side) = svg.split_once("viewBox=\"0 0 ").unwrap();
    let side: usize = side.split(' ').next().unwrap().parse().unwrap();
    let (_, path) = svg.split_once(" d=\"").unwrap();
    let path = path.split('"').next().unwrap();
    let mut dark = vec![false; side * side];
    for module in path.split('M').filter(|module| !module.is_empty()) {
        let (x, rest) = module.split_once(',').unwrap();
        let y: usize = rest.split('h').next().unwrap().parse().unwrap();
        dark[y * side + x.parse::<usize>().unwrap()] = true;
    }
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(side * SCALE, side * SCALE, |x, y| {
        if dark[y / SCALE * side + x / SCALE] { 0 } else { 255 }
    });
    let found = image.detect_grids();
    assert_eq!(found.len(), 1, "one code");
    found[0].decode().unwrap().1
}

/// What is genuine is taken, and each of these kinds refused.
#[track_caller]
fn takes_and_refuses(tool: &str, said: &Said, refused: &[&str]) {
    assert!(refused.len() >= 5);
    for genuine in ["genuine", "another"] {
        assert_eq!(said.get(genuine).map(String::as_str), Some("accepted"), "{tool} refuses {genuine}: {said:?}");
    }
    for kind in refused {
        let verdict = said.get(*kind).unwrap_or_else(|| panic!("{tool} says nothing of {kind}: {said:?}"));
        assert!(verdict.starts_with("rejected"), "{tool} takes {kind}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_verifies_with_the_trust_file_alone() {
    let (_world, folder) = handed_out().await;
    // Nothing but two files, in a folder of their own.
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = |name: &str| std::fs::copy(folder.path().join(name), elsewhere.path().join(name)).unwrap();
    copy("trust.json");
    let program = stranger(elsewhere.path());
    let verify = |arguments: &[&str]| {
        program.json(&[&["certificate", "verify"], arguments, &["--trust", "trust.json"]].concat())
    };
    for name in ["genuine", "another"] {
        copy(&format!("{name}.sigstore.json"));
        let verified = verify(&[&format!("{name}.sigstore.json")]).ends(0);
        assert_eq!(verified.text("result"), "valid", "{verified}");
        let checks: Vec<String> =
            verified.list("checks").iter().map(|check| check["check"].as_str().unwrap().to_owned()).collect();
        assert_eq!(checks, ["signature", "key", "receipt"], "{verified}");
        verified.says(&["self-hosted, unwitnessed"]);
    }
    // With the evidence beside it, that is checked too.
    copy("genuine.evidence.ndjson");
    let verified = verify(&["genuine.sigstore.json"]).ends(0);
    assert_eq!(verified.list("checks")[1]["check"], "evidence", "{verified}");
    std::fs::write(elsewhere.path().join("genuine.evidence.ndjson"), "{}\n").unwrap();
    assert_eq!(verify(&["genuine.sigstore.json"]).ends(1).text("result"), "invalid");
    for kind in TAMPERED {
        copy(&format!("{kind}.sigstore.json"));
        let verified = verify(&[&format!("{kind}.sigstore.json")]).ends(1);
        assert_eq!(verified.text("result"), "invalid", "{kind}: {verified}");
    }
    // The envelope and its proof text together say the same.
    copy("bare.dsse.json");
    copy("bare.tlog-proof");
    let verified = verify(&["bare.dsse.json", "--proof", "bare.tlog-proof"]).ends(0);
    assert_eq!(verified.list("checks").len(), 3, "{verified}");
    assert_eq!(verify(&["bare.dsse.json"]).ends(0).list("checks").len(), 2);
    let text = std::fs::read_to_string(elsewhere.path().join("bare.tlog-proof")).unwrap();
    let line = text.lines().nth(1).unwrap();
    let moved = if line == "index 0" { "index 1" } else { "index 0" };
    std::fs::write(elsewhere.path().join("moved.tlog-proof"), text.replacen(line, moved, 1)).unwrap();
    assert_eq!(verify(&["bare.dsse.json", "--proof", "moved.tlog-proof"]).ends(1).text("result"), "invalid");
    trust_is_not_negotiable(elsewhere.path(), &program);
}

/// Other keys, other times and damaged trust files.
fn trust_is_not_negotiable(folder: &Path, program: &Program) {
    let good: Value = serde_json::from_slice(&std::fs::read(folder.join("trust.json")).unwrap()).unwrap();
    let verify = |pointer: &str, value: Value| {
        let mut trust = good.clone();
        *trust.pointer_mut(pointer).unwrap() = value;
        std::fs::write(folder.join("other-trust.json"), trust.to_string()).unwrap();
        program.json(&["certificate", "verify", "another.sigstore.json", "--trust", "other-trust.json"])
    };
    let early = verify("/certificateKeys/0/validFor", json!({"end": "2026-01-01T00:00:00Z"})).ends(1);
    early.says(&["signed when its key was not good"]);
    let late = verify("/certificateKeys/0/validFor", json!({"start": "2026-06-01T00:00:00Z"})).ends(1);
    assert_eq!(late.text("result"), "invalid");
    let broken = verify("/certificateKeys/0/keyId", "00".into()).ends(2);
    assert_eq!(broken.text("code"), "TRUST_FILE", "{broken}");
    verify("/certificateKeys", json!([])).ends(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_verifiers_take_what_is_genuine_and_refuse_the_rest() {
    let (_world, folder) = handed_out().await;
    let of_signature = ["payload", "payload-type", "signature", "signature-of-another", "other-key"];
    let said = verdicts(&run(&script("openssl.sh"), &[folder.path()]));
    takes_and_refuses("openssl", &said, &of_signature);
    // It looks at the file that a certificate is about, too.
    other_evidence(folder.path());
    let refused = [&TAMPERED[..], &["other-evidence"]].concat();
    takes_and_refuses("sigstore-verify", &sigstore_rust::verdicts(folder.path()), &refused);
    std::fs::remove_file(folder.path().join("other-evidence.sigstore.json")).unwrap();
    if let Some(modules) = switched_on(NODE_VERIFIERS) {
        let node = Path::new(&modules).join("node/bin/node");
        let said = verdicts(&run(&node, &[&script("bundles.mjs"), folder.path(), Path::new(&modules)]));
        takes_and_refuses("@sigstore/verify", &said, &TAMPERED);
    }
    if let Some(python) = python("python") {
        statements(folder.path());
        let said = run(&python, &[&script("bundles.py"), folder.path()]);
        let of = |tool: &str| {
            let lines = said.lines().filter_map(|line| line.strip_prefix(tool)?.strip_prefix(' '));
            verdicts(&lines.collect::<Vec<_>>().join("\n"))
        };
        takes_and_refuses("securesystemslib", &of("securesystemslib"), &of_signature);
        takes_and_refuses("sigstore", &of("sigstore"), &TAMPERED);
        takes_and_refuses("in-toto-attestation", &of("in_toto_attestation"), &BAD_STATEMENTS);
    }
}

/// A genuine bundle beside evidence in which a line was changed.
fn other_evidence(folder: &Path) {
    let evidence = std::fs::read_to_string(folder.join("genuine.evidence.ndjson")).unwrap();
    let changed = evidence.replacen("full-readback", "sample", 1);
    assert_ne!(changed, evidence);
    std::fs::write(folder.join("other-evidence.evidence.ndjson"), changed).unwrap();
    std::fs::copy(folder.join("genuine.sigstore.json"), folder.join("other-evidence.sigstore.json")).unwrap();
}

/// What every verifier that is installed says of the bundles in a folder.
pub fn all_verifiers(folder: &Path) -> Vec<(&'static str, Said)> {
    let mut all = vec![("openssl", verdicts(&run(&script("openssl.sh"), &[folder])))];
    all.push(("sigstore-verify", sigstore_rust::verdicts(folder)));
    if let Some(modules) = switched_on(NODE_VERIFIERS) {
        let node = Path::new(&modules).join("node/bin/node");
        all.push(("@sigstore/verify", verdicts(&run(&node, &[&script("bundles.mjs"), folder, Path::new(&modules)]))));
    }
    if let Some(python) = python("python") {
        let said = run(&python, &[&script("bundles.py"), folder]);
        for tool in ["securesystemslib", "sigstore", "in_toto_attestation"] {
            let lines = said.lines().filter_map(|line| line.strip_prefix(tool)?.strip_prefix(' '));
            all.push((tool, verdicts(&lines.collect::<Vec<_>>().join("\n"))));
        }
    }
    all
}

/// Statements that are not as in-toto wants them.
const BAD_STATEMENTS: [&str; 5] =
    ["statement-type", "statement-subject", "statement-digest", "statement-predicate-type", "statement-predicate"];

fn statements(folder: &Path) {
    let genuine = read(folder, "genuine");
    let payload = STANDARD.decode(genuine.pointer("/dsseEnvelope/payload").unwrap().as_str().unwrap()).unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    let members = ["_type", "subject", "subject/0/digest", "predicateType", "predicate"];
    let bad = [json!("https://in-toto.io/Statement/v0"), json!([]), json!({}), json!(""), json!({})];
    for ((name, member), value) in BAD_STATEMENTS.iter().zip(members).zip(bad) {
        let mut statement = statement.clone();
        *statement.pointer_mut(&format!("/{member}")).unwrap() = value;
        let mut bundle = genuine.clone();
        bundle["dsseEnvelope"]["payload"] = STANDARD.encode(statement.to_string()).into();
        std::fs::write(folder.join(format!("{name}.sigstore.json")), bundle.to_string()).unwrap();
    }
}
