//! Processor time and memory of other processes, from `/proc`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Result;

/// Ticks of `/proc` in a second (USER_HZ, fixed on Linux).
const TICKS: f64 = 100.0;

/// Of a line of `/proc/PID/stat`: the parent, own ticks, and those of children that were waited for.
fn stat(process: &str) -> Option<(u32, u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Some((number(1) as u32, number(11) + number(12), number(13) + number(14)))
}

/// Processor seconds of a server so far: its first process, those that it started, and those of them that ended.
pub fn server_seconds(first: u32) -> f64 {
    let mut ticks = stat(&first.to_string()).map_or(0, |(_, own, ended)| own + ended);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((parent, own, _)) = name.to_str().and_then(stat) else { continue };
        if parent == first {
            ticks += own;
        }
    }
    ticks as f64 / TICKS
}

/// Processor seconds of this process's ended children.
fn children_seconds() -> f64 {
    stat("self").map_or(0.0, |(_, _, ended)| ended as f64 / TICKS)
}

/// What a program took.
pub struct Took {
    pub seconds: f64,
    pub processor: f64,
    /// Most memory, in MB.
    pub memory: u64,
    /// What it printed.
    pub out: String,
}

/// Runs a program to its end, which must be a good one.
pub fn run(command: &mut Command) -> Result<Took> {
    let (out, err) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    let before = children_seconds();
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(out.reopen()?).stderr(err.reopen()?).spawn()?;
    let mut most = 0;
    let status = loop {
        let text = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = high.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) / 1000);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let seconds = begun.elapsed().as_secs_f64();
    let said = fs::read_to_string(out.path())?;
    if !status.success() {
        return Err(format!("{command:?}: {status}\n{said}\n{}", fs::read_to_string(err.path())?).into());
    }
    Ok(Took { seconds, processor: children_seconds() - before, memory: most, out: said })
}
