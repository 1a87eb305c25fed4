//! `agent`: the background agent, one pass of it, and the switch that stops all destruction.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, task_error};
use super::job::checked_jobs;
use super::output::{Document, Exit, Grid, Outcome, UserError, Words};
use crate::agent::{AgentError, Done, once, serve};
use crate::control::time_text;
use crate::installation::{Installation, Needs, Operation, who_works};
use crate::tasks::TaskError;

/// Arguments of `agent`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan agent                   until SIGTERM or Ctrl-C
  wangchuan agent --once            one pass, as from a crontab
  wangchuan agent hold              stop all destruction; backups go on")]
pub struct AgentArgs {
    /// Do everything that is pending or due now, in the order of a cycle, and end.
    #[arg(long)]
    once: bool,
    #[command(subcommand)]
    command: Option<AgentCommand>,
}

/// The switch.
#[derive(Debug, clap::Subcommand)]
enum AgentCommand {
    /// Stop every destruction, on the command line too; backups go on.
    #[command(after_help = "Example:\n  wangchuan agent hold")]
    Hold,
    /// Let destruction go on.
    #[command(after_help = "Example:\n  wangchuan agent resume")]
    Resume,
}

impl AgentArgs {
    /// Whether this is the long-running agent, which ends by itself when a stop is asked for.
    pub fn runs(&self) -> bool {
        self.command.is_none() && !self.once
    }

    /// Whether this is one pass of everything.
    pub fn is_one_pass(&self) -> bool {
        self.command.is_none() && self.once
    }
}

/// Runs the command.
pub async fn agent(context: &mut Context<'_>, args: AgentArgs) -> CommandResult {
    context.only_now()?;
    match args.command {
        Some(AgentCommand::Hold) => hold(context, true).await,
        Some(AgentCommand::Resume) => hold(context, false).await,
        None if args.once => one_pass(context).await,
        None => run(context).await,
    }
}

/// The JSON of `agent hold` and `agent resume`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HoldDocument {
    /// Always `complete`.
    result: Outcome,
    /// Whether all destruction is held now.
    held: bool,
}

impl Document for HoldDocument {
    const OF: &'static [&'static str] = &["agent hold", "agent resume"];
}

/// The JSON of `agent --once`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PassDocument {
    /// `complete` when every piece of work is, `refused` when every one is, otherwise `partial`.
    result: Outcome,
    /// What was done, in this order.
    tasks: Vec<WorkEntry>,
}

impl Document for PassDocument {
    const OF: &'static [&'static str] = &["agent --once"];
}

/// A piece of work that ended. The running agent prints one a line (NDJSON).
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkEntry {
    /// How it ended.
    result: Outcome,
    /// The task or job.
    work: String,
    /// One line for people, without personal data.
    summary: String,
    /// Of what waits: why and until when, one line each.
    details: Vec<String>,
}

impl Document for WorkEntry {
    const OF: &'static [&'static str] = &["agent"];
}

impl WorkEntry {
    fn of(done: &Done) -> Self {
        Self {
            result: outcome_of(done).0,
            work: done.work.clone(),
            summary: done.summary.clone(),
            details: done.details.clone(),
        }
    }
}

/// How a piece of work ended, as `result` and as exit code.
pub(super) fn outcome_of(done: &Done) -> (Outcome, Exit) {
    match done.state {
        "done" => (Outcome::Complete, Exit::Done),
        "partial" => (Outcome::Partial, Exit::Partial),
        "refused" => (Outcome::Refused, Exit::Refused),
        _ => (Outcome::Failed, Exit::Failed),
    }
}

async fn hold(context: &mut Context<'_>, set: bool) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let name = if set { "agent.hold" } else { "agent.resume" };
    let wish = Operation { name, object: "agent", outcome: "success", ..Operation::default() };
    // To destroy nothing can be asked of an old copy too.
    let logged = if set { installation.log_look(wish).await } else { installation.log(wish).await };
    logged.map_err(task_error)?;
    let mut tx = installation.control.begin().await.map_err(control)?;
    if set {
        tx.set_meta("agent_hold", &time_text(context.clock.now())).await.map_err(control)?;
    } else {
        tx.clear_meta("agent_hold").await.map_err(control)?;
    }
    tx.commit().await.map_err(control)?;
    installation.close().await.map_err(task_error)?;
    let words = if set {
        Words::new(
            "All destruction is held. Backups go on. `wangchuan agent resume` ends the hold.",
            "所有销毁已暂停，备份照常。`wangchuan agent resume` 可恢复。",
        )
    } else {
        Words::new("Destruction may go on.", "销毁已恢复。")
    };
    context.output.say(&words)?;
    context.output.document(&HoldDocument { result: Outcome::Complete, held: set })?;
    Ok(Exit::Done)
}

fn control(error: crate::control::ControlError) -> UserError {
    task_error(TaskError::Control(error))
}

async fn one_pass(context: &mut Context<'_>) -> CommandResult {
    let mut installation = context.open(Needs::ALL).await?;
    installation.is_scheduled = true;
    let done = once(&mut installation).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let mut grid = Grid::new(["task", "state", "what"]);
    for work in &done {
        grid.row([work.work.as_str(), work.state, &work.summary]);
    }
    context.output.table(&grid)?;
    for detail in done.iter().flat_map(|work| &work.details) {
        context.output.line(&format!("  {detail}"))?;
    }
    let exit = exit_of(&done);
    let result = match exit {
        Exit::Done => Outcome::Complete,
        Exit::Refused => Outcome::Refused,
        _ => Outcome::Partial,
    };
    context.output.document(&PassDocument { result, tasks: done.iter().map(WorkEntry::of).collect() })?;
    Ok(exit)
}

fn exit_of(done: &[Done]) -> Exit {
    if done.iter().all(|work| work.state == "refused") {
        Exit::Refused
    } else if done.iter().any(|work| work.state != "done") {
        Exit::Partial
    } else {
        Exit::Done
    }
}

async fn run(context: &mut Context<'_>) -> CommandResult {
    context.verbose = true;
    // Before the lease is taken: what is wrong with a job file is a matter of configuration.
    let jobs = checked_jobs(&context.configuration()?)?;
    let Some(mut installation) = open_when_free(context).await? else { return Ok(Exit::Done) };
    context.output.note(&Words::new(
        format!(
            "agent {} started with {} jobs; SIGTERM or Ctrl-C stops it after the batch in hand",
            std::process::id(),
            jobs.len()
        ),
        format!("代理 {} 已启动，共 {} 个任务；SIGTERM 或 Ctrl-C 会在当前批次后停止", std::process::id(), jobs.len()),
    ))?;
    let output = &mut *context.output;
    let mut say = |done: &Done| {
        let words = Words::new(
            format!("{}: {} — {}", done.work, done.state, done.summary),
            format!("{}：{} — {}", done.work, done.state, done.summary),
        );
        let _ = output.note(&words);
        for detail in &done.details {
            let _ = output.note(&Words::new(format!("  {detail}"), format!("  {detail}")));
        }
        let _ = output.stream_item(&WorkEntry::of(done));
    };
    serve(&mut installation, &jobs, &mut say).await.map_err(agent_error)?;
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

/// How often an agent that stands by looks whether it can take over.
const STANDBY_PAUSE: Duration = Duration::from_secs(2);

/// Opens the installation. Where several hosts share the control database and another one works, this agent stands by until that one
/// stops or its lease is over; `None` when it is stopped meanwhile.
async fn open_when_free(context: &mut Context<'_>) -> Result<Option<Installation>, UserError> {
    let config = context.configuration()?;
    let mut said = None;
    loop {
        let who = who_works(&config, context.clock.as_ref()).await.map_err(task_error)?;
        if let Some(who) = who {
            if said.as_ref() != Some(&who) {
                context.output.note(&Words::new(
                    format!("{who} is at work; this agent stands by and takes over when its lease is over"),
                    format!("{who} 正在工作；本代理待命，待其租约结束后接管"),
                ))?;
                said = Some(who);
            }
            tokio::select! {
                () = tokio::time::sleep(STANDBY_PAUSE) => continue,
                () = context.stop.asked() => return Ok(None),
            }
        }
        let opened = tokio::select! {
            opened = context.open(Needs::ALL) => opened,
            () = context.stop.asked() => return Ok(None),
        };
        match opened {
            Ok(mut installation) => {
                installation.is_scheduled = true;
                return Ok(Some(installation));
            }
            // Another agent that stood by as well was faster.
            Err(_) if who_works(&config, context.clock.as_ref()).await.map_err(task_error)?.is_some() => {}
            Err(error) => return Err(error),
        }
    }
}

fn agent_error(error: AgentError) -> UserError {
    match error {
        AgentError::Task(error) => task_error(error),
        AgentError::Control(error) => control(error),
        error @ AgentError::Waker(_) => UserError::from_any(error.into()),
    }
}
