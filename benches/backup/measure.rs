//! What a command of the shell costs: processor time, memory, and what it left in a folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::{Result, table};

/// Ticks of `/proc/PID/stat` in a second.
const TICKS: f64 = 100.0;
/// How often the memory of running processes is looked at. Their own high-water mark is what is read, so little is missed.
const LOOK: Duration = Duration::from_millis(5);

/// What a command cost.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// Processor seconds of all its processes.
    pub client: f64,
    /// Processor seconds of the database server for it.
    pub server: f64,
    /// Seconds that it took.
    pub wall: f64,
    /// Largest resident set of one of its processes.
    pub peak_kib: u64,
    /// Bytes that it added to the bucket.
    pub bytes: u64,
    /// Objects that it added.
    pub objects: u64,
    /// What it printed.
    pub output: String,
    /// What is worth saying of it.
    pub note: String,
}

/// Runs a command of the shell to its end; an error with what it said when it fails.
pub fn shell(command: &str) -> Result<String> {
    run(command, &AtomicU64::new(0))
}

fn run(command: &str, peak: &AtomicU64) -> Result<String> {
    let child = Command::new("bash")
        .args(["-c", &format!("set -euo pipefail; {command}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let is_over = Arc::new(AtomicBool::new(false));
    let output = std::thread::scope(|scope| {
        let over = is_over.clone();
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(highest(pid), Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        });
        let output = child.wait_with_output();
        is_over.store(true, Ordering::Relaxed);
        output
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "{command}\nended with {}:\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        )
        .into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The highest resident set, in KiB, of a process and what it started.
fn highest(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse().ok());
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below = children.split_whitespace().filter_map(|child| child.parse().ok()).map(highest).max();
    own.unwrap_or(0).max(below.unwrap_or(0))
}

/// Processor seconds of the ended children of a process.
fn of_children(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name in parentheses, which may hold anything, the 14th and 15th are those of children.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(13) + ticks(14)) / TICKS)
}

/// Runs a command of the shell and tells what it cost, and what it added to a folder.
pub fn measured(command: &str, bucket: Option<&Path>) -> Result<Cost> {
    let postmaster = table::postmaster()?;
    let stored = |bucket: Option<&Path>| bucket.map_or(Ok((0, 0)), stored);
    let before = (of_children("self")?, of_children(&postmaster)?, stored(bucket)?);
    let (begun, peak) = (Instant::now(), AtomicU64::new(0));
    let output = run(command, &peak)?;
    let wall = begun.elapsed().as_secs_f64();
    let client = of_children("self")? - before.0;
    // A backend ends a moment behind its client.
    std::thread::sleep(Duration::from_millis(300));
    let server = of_children(&postmaster)? - before.1;
    let after = stored(bucket)?;
    let (bytes, objects) = (after.0.saturating_sub(before.2.0), after.1.saturating_sub(before.2.1));
    Ok(Cost { client, server, wall, peak_kib: peak.into_inner(), bytes, objects, output, note: String::new() })
}

/// Bytes and number of files below a folder.
fn stored(folder: &Path) -> Result<(u64, u64)> {
    let all = listing(folder)?;
    Ok((all.values().map(|(bytes, _)| bytes).sum(), all.len() as u64))
}

/// All files below a folder, with their length and the time of their last change; without those whose names begin with a dot, in which
/// the embedded server keeps its notes on objects.
pub fn listing(folder: &Path) -> Result<BTreeMap<String, (u64, SystemTime)>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        if !next.exists() {
            continue;
        }
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            let is_note = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let facts = std::fs::symlink_metadata(&path)?;
            if facts.is_dir() {
                folders.push(path);
            } else if !is_note {
                all.insert(path.display().to_string(), (facts.len(), facts.modified()?));
            }
        }
    }
    Ok(all)
}
