//! What was tampered with on its way, or by the log itself, is refused: a mirror of a served log by two independent clients, heads by
//! a live witness. What is genuine is taken by each.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wangchuan::log::checkpoint::{CheckpointSigner, SignedCheckpoint};
use wangchuan::log::cosignature::{WitnessKey, add_checkpoint};
use wangchuan::log::key_file::{create_checkpoint_key, open_checkpoint_key};
use wangchuan::log::proofs::ProofReader;
use wangchuan::log::sequencer::Sequencer;
use wangchuan::random::SystemRandom;

use super::live::{ORIGIN, Served, Witness, append, get, open_log};
use super::tools::python;

/// The leaf that is proven, in the first of three tiles.
const PROVEN: &str = "5";

/// The files of a log of 700 entries.
const FILES: [&str; 8] = [
    "checkpoint",
    "tile/0/000",
    "tile/0/001",
    "tile/0/002.p/188",
    "tile/1/000.p/2",
    "tile/entries/000",
    "tile/entries/001",
    "tile/entries/002.p/188",
];

/// How a mirror is tampered with so that the leaf is no longer what the head says.
const CONTENT: [&str; 7] =
    ["entry-changed", "entries-swapped", "entry-removed", "hash-beside", "hash-above", "another-root", "cut-off"];

/// How a head is, for those who know the log's key.
const HEAD: [&str; 3] = ["signature-changed", "signed-by-another", "another-origin"];

/// A served log as files, as a mirror keeps them.
struct Mirror {
    genuine: PathBuf,
    signer: CheckpointSigner,
    stranger: CheckpointSigner,
}

impl Mirror {
    async fn of(folder: &Path, url: &str) -> Self {
        let genuine = folder.join("genuine");
        for name in FILES {
            let (status, bytes) = get(&format!("{url}/{name}")).await;
            assert_eq!(status, 200, "{name}");
            let path = genuine.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let signer = open_checkpoint_key(&folder.join("log/log-key.pem"), ORIGIN).unwrap();
        let stranger = create_checkpoint_key(&folder.join("stranger.pem"), ORIGIN, &SystemRandom).unwrap();
        Self { genuine, signer, stranger }
    }

    /// A copy that was tampered with.
    fn tampered(&self, kind: &str) -> PathBuf {
        let copy = self.genuine.with_file_name(kind);
        for name in FILES {
            std::fs::create_dir_all(copy.join(name).parent().unwrap()).unwrap();
            std::fs::copy(self.genuine.join(name), copy.join(name)).unwrap();
        }
        let edit = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let before = std::fs::read(copy.join(name)).unwrap();
            let mut after = before.clone();
            change(&mut after);
            assert_ne!(before, after, "{kind}");
            std::fs::write(copy.join(name), after).unwrap();
        };
        // Entries with one digit are 11 bytes behind their length.
        let entry = |number: usize| number * 13..(number + 1) * 13;
        let head = |change: &dyn Fn(&str) -> String| {
            edit("checkpoint", &|note| *note = change(std::str::from_utf8(note).unwrap()).into_bytes());
        };
        match kind {
            "entry-changed" => edit("tile/entries/000", &|tile| tile[entry(5).end - 2] ^= 1),
            "entries-swapped" => edit("tile/entries/000", &|tile| tile[entry(5).start..entry(6).end].rotate_left(13)),
            "entry-removed" => edit("tile/entries/000", &|tile| drop(tile.drain(entry(5)))),
            "hash-beside" => edit("tile/0/000", &|tile| tile[4 * 32] ^= 1),
            "hash-above" => edit("tile/1/000.p/2", &|tile| tile[32] ^= 1),
            "another-root" => head(&|note| with_line(note, 2, &STANDARD.encode([9; 32]))),
            // What is left of a log that lost its end, under the root that it had with it.
            "cut-off" => head(&|note| with_line(note, 1, "512")),
            "signature-changed" => head(&changed_signature),
            "signed-by-another" => head(&|note| self.stranger.sign(700, root_of(note)).note),
            "another-origin" => head(&|note| with_line(note, 0, "audit.example.com/other")),
            _ => panic!("{kind}"),
        }
        copy
    }
}

fn with_line(note: &str, number: usize, line: &str) -> String {
    let mut lines: Vec<&str> = note.lines().collect();
    lines[number] = line;
    lines.join("\n") + "\n"
}

fn root_of(note: &str) -> [u8; 32] {
    STANDARD.decode(note.lines().nth(2).unwrap()).unwrap().try_into().unwrap()
}

/// The same note, with one bit of its last signature changed.
fn changed_signature(note: &str) -> String {
    let (begin, encoded) = note.trim_end().rsplit_once(' ').unwrap();
    let mut bytes = STANDARD.decode(encoded).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    format!("{begin} {}\n", STANDARD.encode(bytes))
}

/// Whether a client took what it was given; it must have read it to say so.
fn takes(program: &Path, arguments: &[&str]) -> bool {
    let out = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    out.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_tile_logs_refuse_what_was_tampered_with() {
    let (Some(tiles), Some(tlog)) = (python("tlog-tiles"), python("aics-tlog")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(&folder.path().join("log")).await;
    append(&log, 0..70).await;
    let old = log.checkpoint().await;
    append(&log, 70..700).await;
    let served = Served::start(folder.path());
    let mirror = Mirror::of(folder.path(), &served.url).await;
    served.stop();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let vkey = write("log.vkey", &format!("{}\n", log.key().verifier_key()));
    let before = write("old.txt", &old.note);
    let reads = |mirror: &Path| takes(&tiles, &["get-leaf", "-c", &mirror.display().to_string(), PROVEN]);
    let included = |mirror: &Path| {
        let mirror = mirror.display().to_string();
        takes(&tlog, &["verify-inclusion", "--vkey-file", &vkey, "--tiles", &mirror, "--index", PROVEN])
    };
    let grew = |mirror: &Path, old: &str| {
        let mirror = mirror.display().to_string();
        takes(&tlog, &["verify-consistency", "--old-checkpoint", old, "--vkey-file", &vkey, "--tiles", &mirror])
    };
    assert!(reads(&mirror.genuine) && included(&mirror.genuine) && grew(&mirror.genuine, &before));
    for kind in CONTENT {
        let copy = mirror.tampered(kind);
        assert!(!reads(&copy), "tlog-tiles takes {kind}");
        assert!(!included(&copy), "aics-tlog takes {kind}");
    }
    for kind in HEAD {
        assert!(!included(&mirror.tampered(kind)), "aics-tlog takes {kind}");
    }
    // Whoever kept an older head finds out that another history is served now.
    for kind in ["hash-beside", "hash-above", "another-root", "signature-changed", "signed-by-another"] {
        assert!(
            !grew(&mirror.genuine.with_file_name(kind), &before),
            "aics-tlog finds that {kind} grew from the old head"
        );
    }
    let other = [
        ("other-history", mirror.signer.sign(70, [9; 32]).note),
        ("longer", mirror.signer.sign(701, [9; 32]).note),
        ("old-signature", changed_signature(&old.note)),
        ("old-of-another", mirror.stranger.sign(70, old.checkpoint.root).note),
    ];
    for (kind, note) in other {
        assert!(!grew(&mirror.genuine, &write(kind, &note)), "aics-tlog finds that the log grew from {kind}");
    }
}

/// Heads of a log, as they are sent to a witness.
struct Heads {
    log: Sequencer,
    signer: CheckpointSigner,
    stranger: CheckpointSigner,
}

impl Heads {
    async fn proof(&self, old: u64, new: u64) -> Vec<[u8; 32]> {
        ProofReader::new(&**self.log.store()).consistency(old, new).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_witness_refuses_heads_that_do_not_continue_what_it_signed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut witness) = Witness::start(&folder.path().join("witness")) else { return };
    let log = open_log(&folder.path().join("log")).await;
    let signer = open_checkpoint_key(&folder.path().join("log/log-key.pem"), ORIGIN).unwrap();
    let stranger = create_checkpoint_key(&folder.path().join("stranger.pem"), ORIGIN, &SystemRandom).unwrap();
    witness.add_log(ORIGIN, &log.key().verifier_key());
    let key = WitnessKey::parse(&witness.key).unwrap();
    let heads = Heads { log, signer, stranger };
    append(&heads.log, 0..20).await;
    let small = heads.log.checkpoint().await;
    append(&heads.log, 20..30).await;
    let known = heads.log.checkpoint().await;
    let url = format!("{}/add-checkpoint", witness.url);
    let client = reqwest::Client::new();
    let sent = async |old: u64, proof: &[[u8; 32]], note: &str| {
        let reply = client.post(&url).body(add_checkpoint(old, proof, note)).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    let signed = async |old: u64, head: &SignedCheckpoint| {
        let proof = if old == 0 { Vec::new() } else { heads.proof(old, head.checkpoint.size).await };
        let (status, reply) = sent(old, &proof, &head.note).await;
        assert_eq!(status, 200, "{reply}");
        key.line_of_reply(&head.note, &reply).unwrap();
    };
    signed(0, &small).await;
    signed(20, &known).await;
    append(&heads.log, 30..45).await;
    let head = heads.log.checkpoint().await;
    let good = heads.proof(30, 45).await;
    let mut bad = good.clone();
    bad[0][0] ^= 1;
    let root = head.checkpoint.root;
    let forged = |size: u64| heads.signer.sign(size, [9; 32]).note;
    let other_log =
        CheckpointSigner::from_pkcs8("audit.example.com/other", &CheckpointSigner::make_pkcs8(&SystemRandom).unwrap());
    let refused = [
        ("its signature changed", 30, &good, changed_signature(&head.note), 403),
        ("signed by another key", 30, &good, heads.stranger.sign(45, root).note, 403),
        ("another log", 30, &good, other_log.unwrap().sign(45, root).note, 404),
        ("a proof that was changed", 30, &bad, head.note.clone(), 422),
        ("a proof that was cut", 30, &good[1..].to_vec(), head.note.clone(), 422),
        ("another history that is longer", 30, &good, forged(45), 422),
        ("another history as long", 30, &Vec::new(), forged(30), 422),
        ("rolled back", 30, &Vec::new(), small.note.clone(), 400),
        ("begun anew", 0, &Vec::new(), head.note.clone(), 409),
    ];
    for (kind, old, proof, note, status) in refused {
        let (got, reply) = sent(old, proof, &note).await;
        assert_eq!(got, status, "{kind}: {reply}");
        assert!(key.line_of_reply(&note, &reply).is_err(), "{kind} was signed: {reply}");
    }
    // It stays with what it signed, and keeps what the log itself signed against it.
    signed(30, &head).await;
    let kept = witness.evidence();
    assert!(kept.matches("different root hash").count() >= 1 && kept.matches("does not verify").count() >= 1, "{kept}");
}
