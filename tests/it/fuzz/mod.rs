//! Every parser of bytes from outside, given changed golden bytes and arbitrary ones: it must not panic, not ask for more memory than it
//! is given, and where bytes are authenticated not accept any that mean something else.
//!
//! A few seconds of it with every run, an hour with `tests/run --long`; the seed and the counts are printed, and `WANGCHUAN_FUZZ_SEED`
//! repeats a run. What runs is a process of its own with little memory: an allocation that a length field asks for ends it.

mod list;
mod mutate;
mod targets;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use wangchuan::clock::{Clock, SystemClock};

use crate::support::announce::LONG;
use crate::support::dice::Dice;
use mutate::mutated;
use targets::{Target, targets};

const PROCESS: &str = "WANGCHUAN_FUZZ_PROCESS";
const SEED: &str = "WANGCHUAN_FUZZ_SEED";
/// Address space of the process: code, stacks, and what the largest content that a format allows takes several times over.
const KIBIBYTES: u32 = 2 << 20;
/// For each target.
const SHORT: Duration = Duration::from_millis(150);
const LONGER: Duration = Duration::from_secs(100);

#[test]
fn no_parser_panics_swells_or_believes_changed_bytes() {
    let seed = std::env::var(SEED).unwrap_or_else(|_| Clock::now(&SystemClock).timestamp_micros().to_string());
    let script = format!("ulimit -v {KIBIBYTES}; exec \"$0\" \"$@\"");
    let out = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["fuzz::in_a_small_process", "--exact", "--nocapture", "--test-threads=1"])
        .env(PROCESS, "1")
        .env(SEED, &seed)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    for line in said.lines().filter(|line| line.starts_with("fuzz")) {
        // Also when the test passes: a run that cannot be repeated is worth less.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
    assert!(out.status.success(), "seed {seed}: {}\n{said}", out.status);
    assert!(said.contains("1 passed"), "nothing was run:\n{said}");
}

#[test]
fn in_a_small_process() {
    if std::env::var_os(PROCESS).is_none() {
        return;
    }
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    eprintln!("fuzz: seed {seed}");
    // What a panic says is told with the input that made it.
    std::panic::set_hook(Box::new(|_| {}));
    let time = if std::env::var_os(LONG).is_some() { LONGER } else { SHORT };
    let mut failures = Vec::new();
    let mut counts = BTreeMap::new();
    for target in targets() {
        let (tried, accepted) = try_target(&target, seed, time, &mut failures);
        counts.insert(target.name, (tried, accepted));
    }
    for (name, (tried, accepted)) in &counts {
        eprintln!("fuzz: {name}: {tried} inputs, {accepted} accepted");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Inputs tried, and accepted.
fn try_target(target: &Target, seed: u64, time: Duration, failures: &mut Vec<String>) -> (u64, u64) {
    let mut dice = Dice(seed ^ target.name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte)));
    let meaning: Vec<Option<Vec<u8>>> = target.golden.iter().map(|golden| (target.read)(golden)).collect();
    assert!(meaning.iter().all(Option::is_some), "{}: its golden bytes are refused", target.name);
    let (began, mut tried, mut accepted) = (Instant::now(), 0, 0);
    while began.elapsed() < time || tried < 200 {
        let which = dice.below(target.golden.len());
        let input = mutated(&target.golden, which, &mut dice);
        tried += 1;
        match catch_unwind(AssertUnwindSafe(|| (target.read)(&input))) {
            Err(_) => failures.push(format!("{}: panicked at {}", target.name, hex::encode(&input))),
            Ok(None) => {}
            Ok(found) => {
                accepted += 1;
                if target.is_authenticated && !meaning.contains(&found) {
                    failures.push(format!("{}: accepted {}", target.name, hex::encode(&input)));
                }
            }
        }
        if failures.len() > 5 {
            break;
        }
    }
    (tried, accepted)
}
