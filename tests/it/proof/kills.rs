//! Kill -9 while certificates are issued and filed, at named points and at any other instant: none is lost, none is filed twice, and
//! what was once known of one never changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use wangchuan::installation::{Installation, Needs};
use wangchuan::random::SystemRandom;
use wangchuan::tasks::audit::verify_all;
use wangchuan::tasks::certify::certify_due;
use wangchuan::tasks::erasure::resume_runs;
use wangchuan::tasks::outbox::file_due;

use super::tools::customers;
use crate::support::announce::{LONG, switched_on};
use crate::support::dice::Dice;
use crate::support::world::{Making, World, forget, manual_clock, read_config, snapshot};

/// The folder of the child process.
const FOLDER: &str = "WANGCHUAN_KILLS_FOLDER";
/// The file that the child makes before it issues anything.
const AT_WORK: &str = "at-work";
/// What the child process said.
const SAID: &str = "said";
/// Kills, and how many with `--long`.
const KILLS: usize = 50;
const MANY_KILLS: usize = 1_000;
/// Where a process dies by itself, and the latest passage at which it does.
const POINTS: [(&str, usize); 7] = [
    ("certificate.reserved", 3),
    ("certificate.issued", 3),
    ("outbox.filed", 3),
    ("outbox.receipted", 3),
    ("state.announced", 5),
    ("state.stored", 5),
    ("state.noted", 5),
];

/// One customer more is forgotten, and what is due is certified and filed, until the process is killed or nobody is left.
async fn work(folder: &Path) {
    let config = read_config(folder);
    let installation = Installation::open(config, Needs::ALL, manual_clock(), Arc::new(SystemRandom)).await.unwrap();
    std::fs::write(folder.join(AT_WORK), "").unwrap();
    finish(&installation).await;
    let ids = std::fs::read_to_string(folder.join("customers")).unwrap();
    let asked = installation.control.read().await.unwrap().requests(None).await.unwrap().len();
    for id in ids.lines().skip(asked) {
        forget(&installation, id).await;
        certify_due(&installation).await.unwrap();
        file_due(&installation, true).await.unwrap();
    }
    installation.close().await.unwrap();
}

/// What a start does about work that was begun.
async fn finish(installation: &Installation) {
    resume_runs(installation).await.unwrap();
    certify_due(installation).await.unwrap();
    let filed = file_due(installation, true).await.unwrap();
    assert!(filed.waiting.is_empty() && filed.quarantined.is_empty() && filed.doubt.is_none(), "{filed:?}");
}

/// Where a process is to die.
enum Death {
    At(String),
    After(Duration),
}

fn draw(dice: &mut Dice) -> (&'static str, Death) {
    if dice.below(10) < 3 {
        // From the moment on at which it begins: long enough for two or three customers on a slow machine.
        return ("any other instant", Death::After(Duration::from_micros(dice.below(600_000) as u64)));
    }
    let (point, latest) = POINTS[dice.below(POINTS.len())];
    (point, Death::At(format!("{point}:{}", 1 + dice.below(latest))))
}

fn run_until(world: &World, death: &Death) -> ExitStatus {
    let _ = std::fs::remove_file(world.path(AT_WORK));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["proof::kills::what_is_killed_while_it_certifies_and_files_loses_and_repeats_nothing", "--exact"])
        .env(FOLDER, world.folder.path())
        .stdout(std::fs::File::create(world.path(SAID)).unwrap())
        .stderr(Stdio::null());
    if let Death::At(point) = death {
        command.env("WANGCHUAN_CRASH_AT", point);
    }
    let mut child = command.spawn().unwrap();
    if let Death::After(wait) = death {
        let begun = Instant::now();
        while !world.path(AT_WORK).exists() && begun.elapsed() < Duration::from_mins(2) {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(*wait);
        let _ = child.kill();
    }
    child.wait().unwrap()
}

/// What is known of each certificate: its number and digest, and its place in the log once it is filed.
type Known = BTreeMap<String, (i64, String, Option<u64>)>;

async fn known(installation: &Installation) -> Known {
    let mut tx = installation.control.read().await.unwrap();
    let outbox = tx.outbox(None).await.unwrap();
    let place = |id: &str| {
        let receipt = outbox.iter().find(|row| row.certificate == id)?.receipt.as_deref()?;
        let receipt: Value = serde_json::from_slice(receipt).unwrap();
        receipt["logIndex"].as_str().unwrap().parse().ok()
    };
    let rows = tx.certificates(None).await.unwrap();
    rows.into_iter().map(|row| (row.id.clone(), (row.sequence, row.digest, place(&row.id)))).collect()
}

fn nothing_changed(before: &Known, after: &Known, what: &str) {
    for (id, (sequence, digest, place)) in before {
        let (now_sequence, now_digest, now_place) = after.get(id).unwrap_or_else(|| panic!("{what}: {id} is lost"));
        assert_eq!((now_sequence, now_digest), (sequence, digest), "{what}");
        assert!(place.is_none() || now_place == place, "{what}: {place:?} became {now_place:?}");
    }
}

async fn check_at_the_end(installation: &Installation, found: &Known) {
    let mut sequence: Vec<i64> = found.values().map(|(sequence, ..)| *sequence).collect();
    sequence.sort_unstable();
    assert_eq!(sequence, (1..=found.len() as i64).collect::<Vec<_>>(), "no number is missing or used twice");
    let places: BTreeSet<u64> = found.values().map(|(_, _, place)| place.expect("filed")).collect();
    assert_eq!(places, (0..found.len() as u64).collect(), "each stands once in the log, and nothing else does");
    let mut tx = installation.control.read().await.unwrap();
    for run in tx.runs(None).await.unwrap() {
        assert_eq!(tx.certificates(Some(&run.id)).await.unwrap().len(), 1, "of run {}", run.id);
    }
    drop(tx);
    let verdict = verify_all(installation).await.unwrap();
    assert_eq!(verdict.result, "valid", "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_killed_while_it_certifies_and_files_loses_and_repeats_nothing() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return work(Path::new(&folder)).await;
    }
    let kills = if switched_on(LONG).is_some() { MANY_KILLS } else { KILLS };
    let seed: u64 = std::env::var("WANGCHUAN_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_122);
    let mut dice = Dice(seed);
    // Hardly a process gets further than one customer.
    let world = World::make(Making { customers: 2 * kills as u32 + 8, ..Making::default() }).await;
    std::fs::write(world.path("customers"), customers(&world).join("\n")).unwrap();
    let installation = world.open().await;
    snapshot(&installation).await;
    installation.close().await.unwrap();
    let mut before = Known::new();
    let mut points: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut killed, mut tries) = (0, 0);
    while killed < kills {
        tries += 1;
        assert!(tries < 2 * kills + 20, "processes end before they are killed");
        let (point, death) = draw(&mut dice);
        let status = run_until(&world, &death);
        if status.signal() != Some(9) {
            let said = std::fs::read_to_string(world.path(SAID)).unwrap();
            assert!(status.success(), "seed {seed}, try {tries}, {point}: {status}\n{said}");
            continue;
        }
        killed += 1;
        *points.entry(point).or_default() += 1;
        // Beside nothing, and without finishing anything: the next process does that.
        let state = world.open_state().await;
        let after = known(&state).await;
        state.close().await.unwrap();
        nothing_changed(&before, &after, &format!("seed {seed}, kill {killed} at {point}"));
        before = after;
    }
    let installation = world.open().await;
    finish(&installation).await;
    let found = known(&installation).await;
    nothing_changed(&before, &found, "at the end");
    check_at_the_end(&installation, &found).await;
    installation.close().await.unwrap();
    let never: Vec<&str> = POINTS.iter().map(|(point, _)| *point).filter(|point| !points.contains_key(point)).collect();
    assert!(never.is_empty(), "never hit: {never:?}");
    let lines: Vec<String> = points.iter().map(|(point, times)| format!("  {times} x {point}")).collect();
    let said = format!(
        "{killed} seeded kills while certifying and filing (seed {seed}): {} certificates, 0 lost, 0 filed twice; killed at:\n{}",
        found.len(),
        lines.join("\n")
    );
    let _ = writeln!(std::io::stderr().lock(), "{said}");
}
