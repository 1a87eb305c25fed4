//! `job`: declared jobs, their calendar, and running one now.

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::agent::outcome_of;
use super::config::load_jobs;
use super::context::{Context, faults_error, local_time, task_error};
use super::output::shapes::Time;
use super::output::{Document, Exit, Grid, Outcome, UserError, Words};
use crate::agent::run_task;
use crate::config::Configuration;
use crate::installation::Needs;
use crate::schedule::calendar::{Upcoming, preview};
use crate::schedule::{Job, ScheduleError, load_folder};
use crate::tasks::TaskError;

/// Declared jobs.
#[derive(Debug, clap::Subcommand)]
pub enum JobCommand {
    /// All jobs, when they run next, and how they ended last.
    #[command(after_help = "Example:\n  wangchuan job list")]
    List,
    /// Do a job's work now.
    #[command(after_help = "Example:\n  wangchuan job run shred")]
    Run {
        /// The job's name.
        name: String,
    },
    /// The runs to come.
    #[command(after_help = "Examples:
  wangchuan job preview --days 30 --job drill
  wangchuan job preview --from 2026-03-02T00:00:00+08:00")]
    Preview {
        /// From when; now without it.
        #[arg(long)]
        from: Option<DateTime<Utc>>,
        /// For how many days.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(i64).range(1..=3660))]
        days: i64,
        /// Only this job.
        #[arg(long)]
        job: Option<String>,
    },
}

/// Runs the command.
pub async fn job(context: &mut Context<'_>, command: JobCommand) -> CommandResult {
    match command {
        JobCommand::List => list(context).await,
        JobCommand::Run { name } => run(context, &name).await,
        JobCommand::Preview { from, days, job } => show_preview(context, from, days, job.as_deref()),
    }
}

/// The JSON of `job list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete`, or `nothing-found` when no job is declared.
    result: Outcome,
    /// The jobs by name.
    jobs: Vec<JobEntry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["job list"];
}

/// A declared job.
#[derive(Debug, Serialize, JsonSchema)]
struct JobEntry {
    /// Its name: that of its file.
    job: String,
    /// What it does.
    task: String,
    /// When, as it is declared: crontab(5).
    schedule: String,
    /// The IANA time zone that the schedule is meant in.
    timezone: String,
    /// When it runs next.
    next: Option<Time>,
    /// When it ran last.
    last: Option<Time>,
    /// How that ended, or `running`.
    state: Option<String>,
}

/// The JSON of `job run`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RunDocument {
    /// How the work ended.
    result: Outcome,
    /// The job.
    job: String,
    /// One line for people, without personal data.
    summary: String,
    /// Of what waits: why and until when, one line each.
    details: Vec<String>,
}

impl Document for RunDocument {
    const OF: &'static [&'static str] = &["job run"];
}

/// The JSON of `job preview`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PreviewDocument {
    /// `complete`, or `nothing-found` when no job runs in that time.
    result: Outcome,
    /// The runs to come, earliest first.
    runs: Vec<UpcomingEntry>,
    /// Whether there are more than are shown.
    cut_short: bool,
}

impl Document for PreviewDocument {
    const OF: &'static [&'static str] = &["job preview"];
}

/// A run to come.
#[derive(Debug, Serialize, JsonSchema)]
struct UpcomingEntry {
    /// The job.
    job: String,
    /// When, in the job's own time zone: RFC 3339 with its offset.
    #[schemars(extend("format" = "date-time"))]
    at: String,
}

fn jobs(config: &Configuration) -> Result<Vec<Job>, UserError> {
    load_folder(&config.agent.jobs, config.agent.timezone).map_err(|error| job_error(&error))
}

/// All jobs, with the stores and policies they name looked up.
pub(super) fn checked_jobs(config: &Configuration) -> Result<Vec<Job>, UserError> {
    load_jobs(config).map_err(|error| job_error(&error))
}

fn job_error(error: &ScheduleError) -> UserError {
    let text = error.to_string();
    match error {
        ScheduleError::Invalid(faults) => faults_error("JOBS", faults),
        ScheduleError::Unreadable { path, .. } => UserError::new(Exit::Usage, "JOBS", Words::new(text.clone(), text))
            .at(path.display().to_string())
            .advise("check the path and its permissions", "请检查路径和权限"),
    }
}

fn unknown(name: &str) -> UserError {
    task_error(TaskError::Unknown {
        what: format!("there is no job {name}"),
        advice: "see `wangchuan job list`".to_owned(),
    })
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let (config, control) = context.control().await?;
    let jobs = jobs(&config)?;
    let read = async {
        let mut tx = control.read().await?;
        tx.job_runs(1000).await
    };
    let runs = read.await.map_err(|error| task_error(TaskError::Control(error)))?;
    let titles = [
        ("job", "任务"),
        ("task", "类型"),
        ("schedule", "计划"),
        ("next", "下次"),
        ("last", "上次"),
        ("outcome", "结果"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| context.output.say_in(en, zh).to_owned()));
    let mut shown = Vec::new();
    for job in &jobs {
        let next = job.cron.next(context.clock.now());
        let last = runs.iter().find(|run| run.job == job.name);
        let time = |time: Option<DateTime<Utc>>| time.map(|time| local_time(&config, time)).unwrap_or_default();
        let outcome =
            last.map(|run| format!("{} {}", run.state, run.outcome.clone().unwrap_or_default())).unwrap_or_default();
        grid.row([
            job.name.clone(),
            job.task.name().to_owned(),
            job.cron.text().to_owned(),
            time(next),
            time(last.map(|run| run.begun_at)),
            outcome,
        ]);
        shown.push(JobEntry {
            job: job.name.clone(),
            task: job.task.name().to_owned(),
            schedule: job.cron.text().to_owned(),
            timezone: job.cron.zone().name().to_owned(),
            next: next.map(Time::from),
            last: last.map(|run| run.begun_at.into()),
            state: last.map(|run| run.state.clone()),
        });
    }
    context.output.table(&grid)?;
    context.output.document(&ListDocument { result: Outcome::of_list(shown.is_empty()), jobs: shown })?;
    Ok(Exit::Done)
}

async fn run(context: &mut Context<'_>, name: &str) -> CommandResult {
    context.only_now()?;
    let config = context.configuration()?;
    let job = jobs(&config)?.into_iter().find(|job| job.name == name).ok_or_else(|| unknown(name))?;
    let mut installation = context.open(Needs::ALL).await?;
    let done = run_task(&mut installation, &job.task).await;
    installation.close().await.map_err(task_error)?;
    context.output.line(&format!("{}: {} — {}", job.name, done.state, done.summary))?;
    for detail in &done.details {
        context.output.line(&format!("  {detail}"))?;
    }
    let (result, exit) = outcome_of(&done);
    let (summary, details) = (done.summary, done.details);
    context.output.document(&RunDocument { result, job: job.name, summary, details })?;
    Ok(exit)
}

/// How many runs to come are listed at most.
const MOST_RUNS: usize = 100_000;

fn show_preview(
    context: &mut Context<'_>,
    from: Option<DateTime<Utc>>,
    days: i64,
    only: Option<&str>,
) -> CommandResult {
    let config = context.configuration()?;
    let mut jobs = jobs(&config)?;
    if let Some(name) = only {
        jobs.retain(|job| job.name == name);
        if jobs.is_empty() {
            return Err(unknown(name));
        }
    }
    let from = from.unwrap_or_else(|| context.clock.now());
    let upcoming = preview(&jobs, from, from + TimeDelta::days(days), MOST_RUNS);
    let often = if only.is_none() { upcoming.often(days) } else { Vec::new() };
    for run in upcoming.runs.iter().filter(|run| !often.contains(&run.job.as_str())) {
        context.output.line(&format!("{}  {}", run.at.format("%Y-%m-%d %H:%M %:z %a"), run.job))?;
    }
    for job in jobs.iter().filter(|job| often.contains(&job.name.as_str())) {
        let (name, schedule) = (&job.name, job.cron.text());
        let english = format!("and often: {name} ({schedule}); each time: --job {name}");
        let chinese = format!("频繁执行：{name}（{schedule}）；逐次列出：--job {name}");
        context.output.line(context.output.say_in(&english, &chinese))?;
    }
    if upcoming.is_cut_short {
        context
            .output
            .line(context.output.say_in("and later ones; choose fewer --days", "以及更晚的；请减少 --days"))?;
    }
    let entry = |run: &Upcoming| UpcomingEntry { job: run.job.clone(), at: run.at.to_rfc3339() };
    context.output.document(&PreviewDocument {
        result: Outcome::of_list(upcoming.runs.is_empty()),
        runs: upcoming.runs.iter().map(entry).collect(),
        cut_short: upcoming.is_cut_short,
    })?;
    Ok(Exit::Done)
}
