//! Job files: one declared job per file; the file's name is the job's name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use thiserror::Error;

use super::cron::Cron;
use crate::config::schema::schema_text;
use crate::config::{Document, Fault, Faults, Place, zone_advice};

/// A larger job file is not what was meant. In bytes.
const FILE_LIMIT: u64 = 65_536;
/// The longest name of a job.
const NAME_LIMIT: usize = 64;
/// The longest run time and grace that can be declared.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// A declared job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name, unique.
    pub name: String,
    /// What it does.
    pub task: Task,
    /// When.
    pub cron: Cron,
    /// What happens to times that passed while nothing ran.
    pub missed: Missed,
    /// How late a run may start and still count as on time.
    pub missed_grace: Duration,
    /// When a run is stopped.
    pub timeout: Duration,
}

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Takes a snapshot of each store.
    Backup {
        /// Whether it may continue the newest chain.
        kind: BackupKind,
        /// The stores; empty means all that are backed up.
        stores: Vec<String>,
    },
    /// Plans and erases what is past its retention.
    Retention {
        /// The policies; empty means all.
        policies: Vec<String>,
    },
    /// Carries out approved customer requests.
    Requests,
    /// Destroys the keys of what is past its grace.
    Shred,
    /// Files waiting certificates.
    Outbox,
    /// Restores into a private scratch store and compares.
    Drill {
        /// The stores; empty means all that are backed up.
        stores: Vec<String>,
    },
    /// Destroys the keys of snapshots that are not kept.
    Prune {
        /// The stores; empty means all.
        stores: Vec<String>,
    },
    /// Signs what was certified and filed since the roll-up before.
    RollUp,
    /// Looks again at what was done.
    Verify {
        /// At what.
        targets: Vec<VerifyTarget>,
        /// How much of the bytes of the bucket, in percent; none means all.
        sample: Option<u8>,
    },
}

impl Task {
    /// Whether the task destroys records or keys, so that it must stop while the clock is doubtful or the agent is held.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        match self {
            Self::Retention { .. } | Self::Requests | Self::Shred | Self::Prune { .. } => true,
            Self::Backup { .. } | Self::Outbox | Self::Drill { .. } | Self::RollUp | Self::Verify { .. } => false,
        }
    }

    /// Its name in job files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::Retention { .. } => "retention",
            Self::Requests => "requests",
            Self::Shred => "shred",
            Self::Outbox => "outbox",
            Self::Drill { .. } => "drill",
            Self::Prune { .. } => "prune",
            Self::RollUp => "roll-up",
            Self::Verify { .. } => "verify",
        }
    }
}

/// Which snapshots a job takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackupKind {
    /// Full ones, each the beginning of a chain.
    Full,
    /// Increments where the newest chain allows it, otherwise full ones.
    #[default]
    Incremental,
}

/// What is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyTarget {
    /// The objects and manifests of the bucket.
    Backups,
    /// Erased subjects and rows in the live stores.
    Erased,
    /// All nodes of the key tree, and that what was destroyed stays destroyed (as `key verify`).
    Keys,
}

/// What happens to scheduled times that passed while nothing ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// One run stands for all of them.
    #[default]
    RunOnce,
    /// They are recorded as missed.
    Skip,
}

/// Why there are no jobs. Retrying does not help, except where the folder was unreadable.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// The folder, or a file in it, cannot be read.
    #[error("cannot read the job folder `{}`", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Job files are wrong.
    #[error("{0}")]
    Invalid(Faults),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum TaskName {
    /// Takes a snapshot of each store (`stores`, `kind`).
    Backup,
    /// Erases what is past its retention (`policies`).
    Retention,
    /// Carries out approved customer requests.
    Requests,
    /// Destroys the keys of what is past its grace.
    Shred,
    /// Files waiting certificates.
    Outbox,
    /// Restores into a private scratch store and compares (`stores`).
    Drill,
    /// Destroys the keys of snapshots that `[backup] keep` does not keep (`stores`).
    Prune,
    /// Signs, once a day, what was certified and filed since the roll-up before.
    RollUp,
    /// Looks again at what was done (`targets`).
    Verify,
}

/// A declared job; the file's name is the job's name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawJob {
    /// What it does.
    task: TaskName,
    /// When: crontab(5), 5 fields or 6 with seconds first, names, `@daily` and the like.
    schedule: String,
    /// IANA zone of the schedule; by default the agent's.
    #[serde(default)]
    timezone: Option<String>,
    /// What happens to times that passed while nothing ran.
    #[serde(default)]
    missed: Missed,
    /// How late a run may start and still count as on time, such as `10 minutes`.
    #[serde(default = "default_missed_grace")]
    missed_grace: String,
    /// When a run is stopped, such as `6 hours`.
    #[serde(default = "default_timeout")]
    timeout: String,
    /// For `backup`, `drill` and `prune`: the stores; by default all that are backed up.
    #[serde(default)]
    stores: Option<Vec<String>>,
    /// For `backup`: which snapshots; by default `incremental`.
    #[serde(default)]
    kind: Option<BackupKind>,
    /// For `retention`: the policies; by default all.
    #[serde(default)]
    policies: Option<Vec<String>>,
    /// For `verify`: what is looked at; by default everything.
    #[serde(default)]
    targets: Option<Vec<VerifyTarget>>,
    /// For `verify`: how many percent of the bytes in the bucket are read, by turns (25: everything in four runs); by default all.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    sample: Option<u8>,
}

fn default_missed_grace() -> String {
    "10 minutes".to_owned()
}

fn default_timeout() -> String {
    "6 hours".to_owned()
}

/// The JSON Schema of a job file, pretty-printed.
#[must_use]
pub fn job_schema() -> String {
    schema_text(&schema_for!(RawJob))
}

/// Reads every `*.toml` of a folder, sorted by name. Other files and folders are left alone, unless they could be taken for
/// a job.
///
/// # Errors
/// When something cannot be read, or with everything wrong in any of the files.
pub fn load_folder(folder: &Path, default_zone: Tz) -> Result<Vec<Job>, ScheduleError> {
    let unreadable = |path: &Path, source| ScheduleError::Unreadable { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| unreadable(folder, source))? {
        let path = entry.map_err(|source| unreadable(folder, source))?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    let mut faults = Vec::new();
    let mut jobs = Vec::new();
    for path in job_files(&files, &mut faults) {
        let length = fs::metadata(path).map_err(|source| unreadable(path, source))?.len();
        if length > FILE_LIMIT {
            faults.push(Fault::of_file(path, format!("a job file has at most {FILE_LIMIT} bytes")));
            continue;
        }
        let text = fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
        match parse_job(path, &text, default_zone) {
            Ok(job) => jobs.push(job),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(jobs) } else { Err(ScheduleError::Invalid(Faults(faults))) }
}

/// The files that are jobs. One that differs from a job only by case or ending would be ignored silently, so it is refused.
fn job_files<'p>(files: &'p [PathBuf], faults: &mut Vec<Fault>) -> Vec<&'p Path> {
    let is_job = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
    let stem = |path: &Path| path.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().to_lowercase());
    let mut jobs: BTreeMap<String, &Path> = BTreeMap::new();
    for path in files.iter().filter(|path| is_job(path)) {
        if let Some(other) = jobs.insert(stem(path), path) {
            let what = format!("`{}` has the same name but for upper and lower case", file_name(other));
            faults.push(Fault::of_file(path, what).advice("rename one of them; the file's name is the job's name"));
        }
    }
    for path in files.iter().filter(|path| !is_job(path)) {
        let is_toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
        if is_toml || jobs.contains_key(&stem(path)) {
            let what = "not read as a job, although its name looks like one";
            faults.push(Fault::of_file(path, what).advice("move it elsewhere, or let its name end in `.toml`"));
        }
    }
    jobs.into_values().collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

/// Reads one job file.
///
/// # Errors
/// With everything that is wrong with it.
pub fn parse_job(file: &Path, text: &str, default_zone: Tz) -> Result<Job, Vec<Fault>> {
    let document = Document::parse(file, text)?;
    let raw: RawJob = document.read()?;
    let mut faults = Vec::new();
    let mut fault = |key: &str, what: String, advice: &str| {
        faults.push(document.fault(&Place::of(key), what).advice(advice));
    };
    let name = file.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if name.is_empty() || name.len() > NAME_LIMIT || !name.chars().all(is_plain) {
        let advice = format!("rename the file: 1 to {NAME_LIMIT} of a-z, 0-9, `-` and `_`, then `.toml`");
        fault("task", format!("`{name}` cannot be a job's name"), &advice);
    }
    let cron = cron(&raw, default_zone, &mut fault);
    let missed_grace = span("missed_grace", &raw.missed_grace, &mut fault);
    let timeout = span("timeout", &raw.timeout, &mut fault);
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        fault("timeout", "a run cannot end before it begins".to_owned(), "write for example `6 hours`");
    }
    let task = task(&raw, &mut fault);
    if let (Some(cron), Some(missed_grace), Some(timeout), Some(task), true) =
        (cron, missed_grace, timeout, task, faults.is_empty())
    {
        return Ok(Job { name, task, cron, missed: raw.missed, missed_grace, timeout });
    }
    faults.sort_by_key(|fault| fault.position);
    Err(faults)
}

fn cron(raw: &RawJob, default_zone: Tz, fault: &mut impl FnMut(&str, String, &str)) -> Option<Cron> {
    let mut zone = Some(default_zone);
    if let Some(name) = &raw.timezone {
        zone = name.parse().ok();
        if zone.is_none() {
            fault("timezone", format!("unknown time zone `{name}`"), &zone_advice(name));
        }
    }
    // In a wrong zone the schedule can still be checked.
    match Cron::parse(&raw.schedule, zone.unwrap_or(default_zone)) {
        Ok(cron) => Some(cron).filter(|_| zone.is_some()),
        Err(error) => {
            fault("schedule", error.to_string(), "see crontab(5); for example `0 3 * * 0` is Sunday 03:00");
            None
        }
    }
}

fn span(key: &str, text: &str, fault: &mut impl FnMut(&str, String, &str)) -> Option<Duration> {
    let span = parse_span(text);
    if span.is_none() {
        let advice = "write for example `90 seconds`, `10 minutes`, `6 hours` or `2 days`";
        fault(key, format!("`{text}` is no length of time"), advice);
    }
    span
}

/// The task with its parameters; parameters of other tasks are refused.
fn task(raw: &RawJob, fault: &mut impl FnMut(&str, String, &str)) -> Option<Task> {
    let given = [
        ("stores", raw.stores.is_some()),
        ("kind", raw.kind.is_some()),
        ("policies", raw.policies.is_some()),
        ("targets", raw.targets.is_some()),
        ("sample", raw.sample.is_some()),
    ];
    let allowed: &[&str] = match raw.task {
        TaskName::Backup => &["stores", "kind"],
        TaskName::Drill | TaskName::Prune => &["stores"],
        TaskName::Retention => &["policies"],
        TaskName::Verify => &["targets", "sample"],
        TaskName::Requests | TaskName::Shred | TaskName::Outbox | TaskName::RollUp => &[],
    };
    let mut is_fitting = true;
    for (key, _) in given.into_iter().filter(|(key, is_given)| *is_given && !allowed.contains(key)) {
        is_fitting = false;
        let advice = if allowed.is_empty() {
            "remove it".to_owned()
        } else {
            format!("remove it; it knows `{}`", allowed.join("` and `"))
        };
        fault(key, format!("this task has no `{key}`"), &advice);
    }
    if let Some(percent) = raw.sample.filter(|percent| !(1..=100).contains(percent)) {
        is_fitting = false;
        fault("sample", format!("{percent} is no share of the bytes"), "write 1 to 100, or remove it to read all");
    }
    let stores = raw.stores.clone().unwrap_or_default();
    is_fitting.then(|| match raw.task {
        TaskName::Backup => Task::Backup { stores, kind: raw.kind.unwrap_or_default() },
        TaskName::Drill => Task::Drill { stores },
        TaskName::Prune => Task::Prune { stores },
        TaskName::Retention => Task::Retention { policies: raw.policies.clone().unwrap_or_default() },
        TaskName::Requests => Task::Requests,
        TaskName::Shred => Task::Shred,
        TaskName::Outbox => Task::Outbox,
        TaskName::RollUp => Task::RollUp,
        TaskName::Verify => Task::Verify {
            targets: raw
                .targets
                .clone()
                .unwrap_or_else(|| vec![VerifyTarget::Backups, VerifyTarget::Erased, VerifyTarget::Keys]),
            sample: raw.sample,
        },
    })
}

/// `90 seconds`, `10 minutes`, `6 hours`, `2 days`, `0`; at most a year.
fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    let seconds = match text[digits..].trim() {
        "s" | "second" | "seconds" => 1,
        "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        _ => return None,
    };
    let span = Duration::from_secs(count.checked_mul(seconds)?);
    (span <= LONGEST).then_some(span)
}

#[cfg(test)]
mod tests;
