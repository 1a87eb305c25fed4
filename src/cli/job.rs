//! `job`: declared jobs, their calendar, and running one now.

use chrono::{DateTime, TimeDelta, Utc};

use super::CommandResult;
use super::config::load_jobs;
use super::context::{Context, local_time, task_error};
use super::output::{Exit, Grid, UserError};
use crate::agent::run_task;
use crate::config::Configuration;
use crate::installation::Needs;
use crate::schedule::calendar::preview;
use crate::schedule::{Job, ScheduleError, load_folder};
use crate::tasks::TaskError;

/// Declared jobs.
#[derive(Debug, clap::Subcommand)]
pub enum JobCommand {
    /// All jobs, when they run next, and how they ended last.
    List,
    /// Do a job's work now.
    ///
    /// Example: wangchuan job run shred
    Run {
        /// The job's name.
        name: String,
    },
    /// The runs to come.
    ///
    /// Example: wangchuan job preview --from 2026-03-02T00:00:00+08:00 --days 7
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

fn jobs(config: &Configuration) -> Result<Vec<Job>, UserError> {
    load_folder(&config.agent.jobs, config.agent.timezone).map_err(|error| job_error(&error))
}

/// All jobs, with the stores and policies they name looked up.
pub(super) fn checked_jobs(config: &Configuration) -> Result<Vec<Job>, UserError> {
    load_jobs(config).map_err(|error| job_error(&error))
}

fn job_error(error: &ScheduleError) -> UserError {
    let text = error.to_string();
    UserError::new(Exit::Usage, "JOBS", super::output::Words::new(text.clone(), text)).advise(
        "correct the job files; `wangchuan config check` checks them again",
        "请改正任务文件；`wangchuan config check` 可再次检查",
    )
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
        shown.push(serde_json::json!({"job": job.name, "task": job.task.name(), "schedule": job.cron.text(), "timezone": job.cron.zone().name(),
            "next": next, "last": last.map(|run| run.begun_at), "state": last.map(|run| run.state.clone())}));
    }
    context.output.table(&grid)?;
    context.output.document(&serde_json::json!({"result": "complete", "jobs": shown}))?;
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
    let (result, exit) = match done.state {
        "done" => ("complete", Exit::Done),
        "partial" => ("partial", Exit::Partial),
        "refused" => ("refused", Exit::Refused),
        _ => ("failed", Exit::Failed),
    };
    context.output.document(
        &serde_json::json!({"result": result, "job": job.name, "summary": done.summary, "details": done.details}),
    )?;
    Ok(exit)
}

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
    let upcoming = preview(&jobs, from, from + TimeDelta::days(days), 10_000);
    for run in &upcoming.runs {
        context.output.line(&format!("{}  {}", run.at.format("%Y-%m-%d %H:%M %:z %a"), run.job))?;
    }
    let shown: Vec<_> =
        upcoming.runs.iter().map(|run| serde_json::json!({"job": run.job, "at": run.at.to_rfc3339()})).collect();
    context
        .output
        .document(&serde_json::json!({"result": "complete", "runs": shown, "cut_short": upcoming.is_cut_short}))?;
    Ok(Exit::Done)
}
