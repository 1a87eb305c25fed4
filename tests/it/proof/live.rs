//! A served log, read by clients that know nothing of this program, and signed by a witness that does not either.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use wangchuan::clock::Clock as _;
use wangchuan::control::log_store::SqlLogStore;
use wangchuan::log::cosignature::add_checkpoint;
use wangchuan::log::key_file::create_checkpoint_key;
use wangchuan::log::sequencer::{FileAnchor, Sequencer};
use wangchuan::log::store::NewLeaf;
use wangchuan::random::SystemRandom;
use wangchuan::tasks::audit::verify_all;
use wangchuan::tasks::status::status;

use super::tools::{filed, python, run};
use crate::support::ports::free_port;
use crate::support::program::{Program, Running};
use crate::support::world::{Making, World, copy_folder};

pub(super) const ORIGIN: &str = "audit.example.com/erasures";

/// A leaf that no certificate is behind: here only the tree counts.
fn leaf(number: usize) -> NewLeaf {
    let entry = format!("{{\"entry\":{number}}}").into_bytes();
    NewLeaf { id: format!("entry-{number}"), content: entry.clone(), entry, salt: None, time_ms: 0 }
}

/// The log of a folder as `audit serve --data` finds it.
pub(super) async fn open_log(folder: &Path) -> Sequencer {
    std::fs::create_dir_all(folder).unwrap();
    let key = folder.join("log-key.pem");
    let signer = if key.exists() {
        wangchuan::log::key_file::open_checkpoint_key(&key, ORIGIN)
    } else {
        create_checkpoint_key(&key, ORIGIN, &SystemRandom)
    };
    let store = SqlLogStore::open(&folder.join("audit.db"), "certificates").await.unwrap();
    let anchor = Box::new(FileAnchor(folder.join("log-head.txt")));
    Sequencer::open(Arc::new(store), signer.unwrap(), Some(anchor)).await.unwrap()
}

pub(super) async fn append(log: &Sequencer, leaves: std::ops::Range<usize>) {
    let leaves: Vec<NewLeaf> = leaves.map(leaf).collect();
    for group in leaves.chunks(250) {
        log.append(group).await.unwrap();
    }
}

/// `audit serve` on a folder with a log; killed when it is dropped.
pub(super) struct Served {
    running: Option<Running>,
    pub(super) url: String,
}

/// The command line of a log of its own.
fn serving(listen: &str) -> [&str; 12] {
    [
        "audit",
        "serve",
        "--listen",
        listen,
        "--data",
        "log",
        "--origin",
        ORIGIN,
        "--signer",
        "signer.pem",
        "--token",
        "token.txt",
    ]
}

impl Served {
    pub(super) fn start(folder: &Path) -> Self {
        let port = free_port();
        let key = aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING);
        let pkcs8 = key.unwrap().to_pkcs8v1().unwrap();
        let signer = wangchuan::certify::signer::CertificateSigner::from_pkcs8(pkcs8.as_ref()).unwrap();
        std::fs::write(folder.join("signer.pem"), signer.public().to_pem()).unwrap();
        std::fs::write(folder.join("token.txt"), "a-token-of-some-length\n").unwrap();
        let listen = format!("127.0.0.1:{port}");
        let running = Program::in_directory(folder).start(&serving(&listen));
        let url = format!("http://{listen}");
        wait_for(&url);
        Self { running: Some(running), url }
    }

    pub(super) fn stop(mut self) {
        let (code, said) = self.running.take().unwrap().signal("TERM", Duration::from_secs(20));
        assert_eq!(code, Some(0), "{said}");
    }
}

/// Until something listens there.
fn wait_for(url: &str) {
    let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let begun = Instant::now();
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing listens at {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) async fn get(url: &str) -> (u16, Vec<u8>) {
    let reply = reqwest::get(url).await.unwrap();
    let status = reply.status().as_u16();
    (status, reply.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_log_is_read_by_independent_clients() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(&folder.path().join("log")).await;
    append(&log, 0..70).await;
    let old = log.checkpoint().await;
    append(&log, 70..700).await;
    let served = Served::start(folder.path());
    let tile = async |path: &str| get(&format!("{}/tile/{path}", served.url)).await;
    // Full and partial tiles, and nothing beyond the head.
    assert_eq!(tile("0/000").await.1.len(), 8192);
    assert_eq!(tile("0/002.p/188").await.1.len(), 188 * 32);
    assert_eq!(tile("1/000.p/2").await.1.len(), 64);
    assert_eq!(&tile("entries/000").await.1[..15], b"\x00\x0b{\"entry\":0}\x00\x0b");
    for missing in ["0/002", "0/002.p/189", "0/003.p/1", "1/000.p/3", "0/1", "9/000", "x"] {
        assert_eq!(tile(missing).await.0, 404, "{missing}");
    }
    let head = String::from_utf8(get(&format!("{}/checkpoint", served.url)).await.1).unwrap();
    let head = log.key().open(&head).unwrap().checkpoint;
    assert_eq!(head, log.checkpoint().await.checkpoint);
    clients_agree(folder.path(), &served.url, &log, &old.note);
    // What another process appends is served without a restart.
    append(&log, 700..701).await;
    let grown = String::from_utf8(get(&format!("{}/checkpoint", served.url)).await.1).unwrap();
    assert_eq!(log.key().open(&grown).unwrap().checkpoint.size, 701);
    served.stop();
}

fn clients_agree(folder: &Path, url: &str, log: &Sequencer, old: &str) {
    let (Some(tiles), Some(tlog)) = (python("tlog-tiles"), python("aics-tlog")) else { return };
    let url = Path::new(url);
    for index in ["0", "255", "256", "511", "699"] {
        let leaf = run(&tiles, &[Path::new("get-leaf"), Path::new("-c"), url, Path::new(index)]);
        assert_eq!(leaf, format!("{{\"entry\":{index}}}"));
    }
    let vkey = folder.join("log.vkey");
    std::fs::write(&vkey, format!("{}\n", log.key().verifier_key())).unwrap();
    let before = folder.join("old.txt");
    std::fs::write(&before, old).unwrap();
    let consistency = |key: &Path, old: &Path| {
        Command::new(&tlog)
            .args([Path::new("verify-consistency"), Path::new("--old-checkpoint"), old, Path::new("--vkey-file"), key])
            .args([Path::new("--tiles"), url])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let good = consistency(&vkey, &before);
    assert!(good.status.success(), "{good:?}");
    // The head of another history, signed by the same key, is not consistent with what is served.
    let forged = folder.join("forged.txt");
    std::fs::write(&forged, other_history(folder)).unwrap();
    assert!(!consistency(&vkey, &forged).status.success());
}

/// A head of 70 other entries under the same key.
fn other_history(folder: &Path) -> String {
    let key = wangchuan::log::key_file::open_checkpoint_key(&folder.join("log/log-key.pem"), ORIGIN).unwrap();
    key.sign(70, [9; 32]).note
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rolled_back_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("log");
    let log = open_log(&data).await;
    append(&log, 0..20).await;
    drop(log);
    for name in ["audit.db", "audit.db-wal", "audit.db-shm"] {
        let from = data.join(name);
        if from.exists() {
            std::fs::copy(from, folder.path().join(name)).unwrap();
        }
    }
    let log = open_log(&data).await;
    append(&log, 20..30).await;
    drop(log);
    tokio::time::sleep(Duration::from_millis(100)).await;
    for name in ["audit.db", "audit.db-wal", "audit.db-shm"] {
        let _ = std::fs::remove_file(data.join(name));
        let kept = folder.path().join(name);
        if kept.exists() {
            std::fs::copy(kept, data.join(name)).unwrap();
        }
    }
    std::fs::write(folder.path().join("token.txt"), "a-token-of-some-length").unwrap();
    let key = folder.path().join("key.pem");
    let signer = wangchuan::certify::signer::CertificateSigner::create(&key).unwrap();
    std::fs::write(folder.path().join("signer.pem"), signer.public().to_pem()).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let refused = Program::in_directory(folder.path()).json(&serving(&listen));
    let refused = refused.ends(3);
    refused.says(&["rolled back", "audit flush --again", "log-head.txt"]);
}

/// The folder of a log as it was, head and all, put back: only a head that lies elsewhere tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_on_another_volume_gives_a_restored_folder_away() {
    let folder = tempfile::tempdir().unwrap();
    let (data, elsewhere) = (folder.path().join("log"), folder.path().join("volume"));
    drop(open_log(&data).await);
    let log = open_log(&data).await;
    append(&log, 0..20).await;
    drop(log);
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(data.join("log-head.txt"), elsewhere.join("head")).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("head"), data.join("log-head.txt")).unwrap();
    let log = open_log(&data).await;
    append(&log, 20..30).await;
    drop(log);
    assert!(data.join("log-head.txt").is_symlink(), "the link stays one");
    copy_folder(&data, &folder.path().join("kept"));
    let log = open_log(&data).await;
    append(&log, 30..40).await;
    drop(log);
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::remove_dir_all(&data).unwrap();
    copy_folder(&folder.path().join("kept"), &data);
    let _ = std::fs::remove_file(data.join("log-head.txt"));
    std::os::unix::fs::symlink(elsewhere.join("head"), data.join("log-head.txt")).unwrap();
    std::fs::write(folder.path().join("token.txt"), "a-token-of-some-length").unwrap();
    let signer = wangchuan::certify::signer::CertificateSigner::create(&folder.path().join("key.pem")).unwrap();
    std::fs::write(folder.path().join("signer.pem"), signer.public().to_pem()).unwrap();
    let serve = || Program::in_directory(folder.path()).json(&serving(&format!("127.0.0.1:{}", free_port())));
    serve().ends(3).says(&["rolled back", "log-head.txt"]);
    // Nor is a volume that is away taken for a log that has no head yet.
    std::fs::remove_dir_all(&elsewhere).unwrap();
    let unmounted = serve();
    assert_ne!(unmounted.code(), Some(0), "{unmounted}");
    unmounted.says(&["is its volume mounted?"]);
}

/// A witness from PyPI; killed when it is dropped.
pub(super) struct Witness {
    server: Child,
    pub(super) url: String,
    pub(super) key: String,
    folder: PathBuf,
    program: PathBuf,
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Witness {
    pub(super) fn start(folder: &Path) -> Option<Self> {
        let program = python("aics-witness")?;
        std::fs::create_dir_all(folder).unwrap();
        let listen = format!("127.0.0.1:{}", free_port());
        let init = Command::new(&program)
            .args(["init", "--config", "witness.json", "--name", "witness.example/one", "--listen", &listen])
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(init.status.success(), "{init:?}");
        let said = String::from_utf8_lossy(&init.stdout).into_owned();
        let key = said.split_whitespace().find(|word| word.starts_with("witness.example/one+"));
        let key = key.unwrap_or_else(|| panic!("no vkey in {said}")).to_owned();
        let serve = |program: &Path| {
            Command::new(program)
                .args(["serve", "--config", "witness.json"])
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let server = serve(&program);
        let url = format!("http://{listen}");
        wait_for(&url);
        Some(Self { server, url, key, folder: folder.to_owned(), program })
    }

    /// What it kept of heads that it refused, as JSON.
    pub(super) fn evidence(&self) -> String {
        let kept = Command::new(&self.program)
            .args(["evidence", "--config", "witness.json"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(kept.status.success(), "{kept:?}");
        String::from_utf8(kept.stdout).unwrap()
    }

    pub(super) fn add_log(&mut self, origin: &str, key: &str) {
        let added = Command::new(&self.program)
            .args(["add-log", "--config", "witness.json", "--origin", origin, "--vkey", key])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
        // It reads its list of logs when it starts.
        let _ = self.server.kill();
        let _ = self.server.wait();
        self.server = Command::new(&self.program)
            .args(["serve", "--config", "witness.json"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&self.url);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_become_grade_a_with_a_witness_and_stay_b_without() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut witness) = Witness::start(&folder.path().join("witness")) else { return };
    let audit = format!(
        "url = \"embedded\"\ndata = \"audit\"\nwitness = [{{ key = \"{}\", url = \"{}\" }}]",
        witness.key, witness.url
    );
    // The witness does not know the log yet, so the first receipts are unwitnessed.
    let world = filed(Making { audit, ..Making::default() }, 2).await;
    let program = Program::in_directory(world.folder.path());
    assert_eq!(grades(&program), [("B".to_owned(), 2)]);
    let trust = world.path("trust.json");
    program.json(&["audit", "trust", "--output", &trust.display().to_string()]).ends(0);
    let trust: Value = serde_json::from_slice(&std::fs::read(&trust).unwrap()).unwrap();
    let log = &trust["logs"][0];
    witness.add_log(log["origin"].as_str().unwrap(), log["verifierKey"].as_str().unwrap());
    again(&world).await;
    assert_eq!(grades(&program), [("A".to_owned(), 2)]);
    let (codes, line) = of_witnesses(&world).await;
    let (good, said) = line.unwrap();
    assert!(codes.is_empty() && good && said.starts_with("1 of 1 have signed"), "{codes:?} {said}");
    // Nobody asked it since; the signature is by the witness's own clock.
    let now = world.clock.now();
    world.clock.advance(wangchuan::clock::SystemClock.now() + chrono::TimeDelta::hours(27) - now);
    let (codes, line) = of_witnesses(&world).await;
    assert_eq!((codes.as_slice(), line.map(|(good, _)| good)), (["witness-overdue"].as_slice(), Some(false)));
    program.json(&["certificate", "export", "1", "--output", "c.sigstore.json"]).ends(0);
    let verified = program.json(&["certificate", "verify", "c.sigstore.json", "--trust", "trust.json"]).ends(0);
    verified.says(&["self-hosted, witnessed"]);
    // Whoever does not trust this witness sees grade B.
    let mut other = trust.clone();
    other["witnesses"] = serde_json::json!([]);
    other["quorum"] = 0.into();
    std::fs::write(world.path("other.json"), other.to_string()).unwrap();
    let verified = program.json(&["certificate", "verify", "c.sigstore.json", "--trust", "other.json"]).ends(0);
    verified.says(&["self-hosted, unwitnessed"]);
}

/// What `status` says of witnesses, and the line of `audit verify`, at the world's time.
async fn of_witnesses(world: &World) -> (Vec<&'static str>, Option<(bool, String)>) {
    let state = world.open_state().await;
    let found = status(&state.control, &state.config, &*world.clock).await.unwrap();
    let codes = found.overdue.iter().map(|item| item.code).filter(|code| code.starts_with("witness"));
    let verdict = verify_all(&state).await.unwrap();
    let line = verdict.checks.into_iter().find(|(check, ..)| check == "witnesses").map(|(_, good, said)| (good, said));
    state.close().await.unwrap();
    (codes.collect(), line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_silent_or_saw_another_history_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut witness) = Witness::start(&folder.path().join("witness")) else { return };
    let audit = format!(
        "url = \"embedded\"\ndata = \"audit\"\nwitness = [{{ key = \"{}\", url = \"{}\" }}]",
        witness.key, witness.url
    );
    // It does not know this log.
    let world = filed(Making { audit, ..Making::default() }, 2).await;
    assert_eq!(of_witnesses(&world).await, (Vec::new(), Some((true, "0 of 1 have signed the log's head".to_owned()))));
    world.clock.advance(chrono::TimeDelta::hours(4));
    let (codes, line) = of_witnesses(&world).await;
    let (good, said) = line.unwrap();
    assert_eq!((codes.as_slice(), good), (["witness-overdue"].as_slice(), false), "{said}");
    assert!(said.contains("whoever runs it must add the log's key"), "{said}");

    let program = Program::in_directory(world.folder.path());
    program.json(&["audit", "trust", "--output", "trust.json"]).ends(0);
    let trust: Value = serde_json::from_slice(&std::fs::read(world.path("trust.json")).unwrap()).unwrap();
    let origin = trust["logs"][0]["origin"].as_str().unwrap().to_owned();
    witness.add_log(&origin, trust["logs"][0]["verifierKey"].as_str().unwrap());
    // Somebody with the log's key shows the witness another log under the same name.
    let key = wangchuan::log::key_file::open_checkpoint_key(&world.path("audit/log-key.pem"), &origin).unwrap();
    let forged = add_checkpoint(0, &[], &key.sign(1, [9; 32]).note);
    let shown = reqwest::Client::new().post(format!("{}/add-checkpoint", witness.url)).body(forged).send().await;
    assert_eq!(shown.unwrap().status().as_u16(), 200);
    let installation = world.open().await;
    wangchuan::tasks::audit::file_again(&installation).await.unwrap();
    installation.close().await.unwrap();
    let (codes, line) = of_witnesses(&world).await;
    let (good, said) = line.unwrap();
    assert_eq!((codes.as_slice(), good), (["witness-other-history"].as_slice(), false), "{said}");
    assert!(said.contains("has seen another history"), "{said}");
    assert_eq!(grades(&program), [("B".to_owned(), 2)]);
    program.run(&["status"]).ends(5).says(&["witness.example/one", "another history"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_entries_has_a_signed_head() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(&folder.path().join("log")).await;
    let served = Served::start(folder.path());
    let head = String::from_utf8(get(&format!("{}/checkpoint", served.url)).await.1).unwrap();
    let head = log.key().open(&head).unwrap().checkpoint;
    assert_eq!((head.size, head.root), (0, wangchuan::log::tree::empty_root()));
    served.stop();
}

/// `audit flush --again`, within the world's time.
async fn again(world: &World) {
    let installation = world.open().await;
    let refiled = wangchuan::tasks::audit::file_again(&installation).await.unwrap();
    assert_eq!((refiled.better.len(), refiled.failed.len()), (2, 0), "{refiled:?}");
    installation.close().await.unwrap();
}

fn grades(program: &Program) -> Vec<(String, u64)> {
    let status = program.json(&["audit", "status"]).ends(0);
    let grade = |entry: &Value| (entry["grade"].as_str().unwrap().to_owned(), entry["receipts"].as_u64().unwrap());
    status.list("grades").iter().map(grade).collect()
}
