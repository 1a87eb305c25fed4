//! `run`: runs of any kind.

mod order;

use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, certify_and_say, local_time, task_error};
use super::output::shapes::RunEntry;
use super::output::{Document, Exit, Grid, Outcome, UserError, Words};
use super::stage::{meaning_of_run, show_remaining};
use super::store::settle::{self, FilesEntry};
use crate::config::Configuration;
use crate::control::{OrderRow, PaceRow, RunRow};
use crate::installation::{Installation, Needs};
use crate::tasks::TaskError;
use crate::tasks::erasure::RunBody;
use crate::tasks::finality::{Remaining, Residual};
use crate::tasks::orders::{Tuning, Wish};
use crate::tasks::undo::{UndoReport, undo_run};
pub use order::OrderDocument;
use order::PaceEntry;

/// Runs.
#[derive(Debug, clap::Subcommand)]
pub enum RunCommand {
    /// All erasure runs, newest last.
    #[command(after_help = "Example:\n  wangchuan run list")]
    List,
    /// One run: its rows, its keys, and what the stores say about their own files.
    #[command(after_help = "Example:\n  wangchuan run show 01a200dd")]
    Show {
        /// Its id or the beginning of it.
        id: String,
    },
    /// Begin no further batch of a run, also after a restart, until it is resumed.
    #[command(after_help = "Example:\n  wangchuan run pause 01a200dd")]
    Pause {
        /// Its id or the beginning of it.
        id: String,
    },
    /// Go on with a run that is paused or waits: the agent does, or this command if none works.
    #[command(after_help = "Example:\n  wangchuan run resume 01a200dd")]
    Resume {
        /// Its id or the beginning of it.
        id: String,
    },
    /// End a run behind the batch in hand: what is erased goes its way, the other rows stay and are in the next plan.
    #[command(after_help = "Example:\n  wangchuan run stop 01a200dd")]
    Stop {
        /// Its id or the beginning of it.
        id: String,
    },
    /// Another pace for a run, from its next batch on.
    #[command(
        after_help = "Examples:\n  wangchuan run tune 01a200dd --rows-per-second 2000\n  wangchuan run tune 01a200dd --reset"
    )]
    Tune(TuneArgs),
    /// Take an erasure back within its grace: rows return as they were, never over a living row, and their keys live on.
    #[command(after_help = "Example:\n  wangchuan run undo 01a200dd")]
    Undo {
        /// Its id or the beginning of it.
        id: String,
    },
}

/// Arguments of `run tune`.
#[derive(Debug, clap::Args)]
pub struct TuneArgs {
    /// The run's id or the beginning of it.
    id: String,
    /// At most so many rows in a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), required_unless_present_any = ["transaction_ms", "reset"])]
    rows_per_second: Option<u32>,
    /// The length in milliseconds that a transaction aims at.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(5..=60_000))]
    transaction_ms: Option<u32>,
    /// What was asked before counts no more; what the configuration says does.
    #[arg(long)]
    reset: bool,
}

/// The JSON of `run list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// The runs, newest last.
    runs: Vec<RunEntry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["run list"];
}

/// The JSON of `run show`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShowDocument {
    /// Always `complete`: whether the run was found. How it went is in the counts and in `state`.
    result: Outcome,
    #[serde(flatten)]
    entry: RunEntry,
    /// What the state means for the erased rows, in English.
    meaning: String,
    /// How fast its batches went; null when none was begun.
    pace: Option<PaceEntry>,
    /// What was asked of it while its batches went: `go`, `pause` or `stop`; null when nothing was.
    wish: Option<String>,
    /// Rows that stay because it was stopped; they count as kept.
    stopped: i64,
    /// What keeps a shredded run from being final.
    residuals: Vec<Residual>,
    /// What the files of the stores may still hold of the rows.
    files: Vec<FilesEntry>,
    /// Problems, without values.
    notes: Vec<String>,
}

impl Document for ShowDocument {
    const OF: &'static [&'static str] = &["run show"];
}

/// The JSON of `run undo` and `request cancel`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UndoDocument {
    /// `complete`, or `partial` when rows were left alone or could not be put back (exit code 4 then).
    result: Outcome,
    /// The request that is withdrawn.
    request: Option<i64>,
    /// The run that is undone; null when the request only waited.
    run: Option<String>,
    /// Rows that are as they were before the run.
    restored: u64,
    /// Rows left alone, because something newer lives in their place or they were gone before.
    superseded: u64,
    /// Rows that could not be put back; the undo can be repeated within grace.
    refused: u64,
    /// Why not, without values.
    notes: Vec<String>,
    /// The certificates issued now.
    certificates: Vec<String>,
}

impl Document for UndoDocument {
    const OF: &'static [&'static str] = &["run undo", "request cancel"];
}

impl UndoDocument {
    /// Of a request that was withdrawn before anything was erased.
    pub fn of_waiting(request: i64, certificates: Vec<String>) -> Self {
        Self {
            result: Outcome::Complete,
            request: Some(request),
            run: None,
            restored: 0,
            superseded: 0,
            refused: 0,
            notes: Vec::new(),
            certificates,
        }
    }
}

/// Runs the command.
pub async fn run(context: &mut Context<'_>, command: RunCommand) -> CommandResult {
    let (config, control) = context.control().await?;
    let read = async {
        let mut tx = control.read().await?;
        tx.runs(None).await
    };
    let runs = read.await.map_err(|error| task_error(TaskError::Control(error)))?;
    match command {
        RunCommand::List => list(context, &config, &runs),
        RunCommand::Show { id } => {
            let run = find(&runs, &id)?;
            let read = async {
                let mut tx = control.read().await?;
                Ok((tx.pace(&run.id).await?, tx.order(&run.id).await?))
            };
            let (pace, order) = read.await.map_err(|error| task_error(TaskError::Control(error)))?;
            show(context, &config, run, (pace, order))
        }
        RunCommand::Pause { id } => order::ask(context, find(&runs, &id)?, Wish::Pause).await,
        RunCommand::Resume { id } => order::ask(context, find(&runs, &id)?, Wish::Go).await,
        RunCommand::Stop { id } => order::ask(context, find(&runs, &id)?, Wish::Stop).await,
        RunCommand::Tune(args) => {
            let TuneArgs { id, rows_per_second, transaction_ms, reset } = args;
            let tuning = Tuning { rows_per_second, transaction_ms, is_reset: reset };
            order::tune(context, find(&runs, &id)?, tuning).await
        }
        RunCommand::Undo { id } => {
            let run = find(&runs, &id)?;
            context.only_now()?;
            let installation = context.open(Needs::ALL).await?;
            let report = undo_run(&installation, run).await.map_err(task_error)?;
            show_undo(context, installation, &report, run.request).await
        }
    }
}

fn find<'r>(runs: &'r [RunRow], id: &str) -> Result<&'r RunRow, UserError> {
    let mut found = runs.iter().filter(|run| run.id.starts_with(id));
    match (found.next(), found.next()) {
        (Some(run), None) => Ok(run),
        _ => Err(task_error(TaskError::Unknown {
            what: format!("no single run begins with {id}"),
            advice: "see `wangchuan run list`".to_owned(),
        })),
    }
}

/// Tells what an undo did, after its superseding certificate was issued.
pub async fn show_undo(
    context: &mut Context<'_>,
    installation: Installation,
    report: &UndoReport,
    request: Option<i64>,
) -> CommandResult {
    let certificates = certify_and_say(context, &installation).await?;
    installation.close().await.map_err(task_error)?;
    let UndoReport { run, restored, superseded, refused, notes } = report;
    context.output.say(&Words::new(
        format!("Run {run} is undone: {restored} rows are back as they were, and their keys live on."),
        format!("运行 {run} 已撤销：{restored} 行已恢复原状，其密钥继续有效。"),
    ))?;
    if request.is_none() && *restored > 0 {
        context.output.note(&Words::new(
            "by today's policies these rows are due again at the next retention: place a hold, or change the policy, to keep them",
            "按现行策略，这些行在下次留存处理时仍会到期：如需保留，请登记保留令或修改策略",
        ))?;
    }
    if *superseded > 0 {
        context.output.say(&Words::new(
            format!(
                "{superseded} rows were left alone: something newer lives in their place, or they were gone before."
            ),
            format!("{superseded} 行未动：其位置已有更新的数据，或在运行之前已不存在。"),
        ))?;
    }
    if *refused > 0 {
        context.output.say(&Words::new(
            format!("{refused} rows could not be put back; mend the cause and undo again within grace:"),
            format!("{refused} 行未能恢复；排除原因后可在宽限期内再次撤销："),
        ))?;
        for note in notes {
            context.output.line(&format!("  {note}"))?;
        }
    }
    let is_whole = superseded + refused == 0;
    context.output.document(&UndoDocument {
        result: if is_whole { Outcome::Complete } else { Outcome::Partial },
        request,
        run: Some(run.clone()),
        restored: *restored,
        superseded: *superseded,
        refused: *refused,
        notes: notes.clone(),
        certificates,
    })?;
    Ok(if *refused > 0 { Exit::Partial } else { Exit::Done })
}

fn list(context: &mut Context<'_>, config: &Configuration, runs: &[RunRow]) -> CommandResult {
    let titles = [
        ("run", "运行"),
        ("kind", "类型"),
        ("state", "状态"),
        ("begun", "开始"),
        ("due", "到期"),
        ("erased", "擦除"),
        ("anonymised", "匿名化"),
        ("kept", "保留"),
        ("stripped", "其中裁减"),
        ("failed", "失败"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| context.output.say_in(en, zh).to_owned()));
    let mut shown = Vec::new();
    for run in runs {
        let body = RunBody::of(run).map_err(task_error)?;
        grid.row([
            run.id.clone(),
            run.kind.clone(),
            run.state.clone(),
            local_time(config, run.begun_at),
            body.due.to_string(),
            body.erased.to_string(),
            body.anonymised.to_string(),
            (body.kept + body.stripped).to_string(),
            body.stripped.to_string(),
            body.failed.to_string(),
        ]);
        shown.push(RunEntry::of(run, &body));
    }
    context.output.table(&grid)?;
    context.output.document(&ListDocument { result: Outcome::of_list(shown.is_empty()), runs: shown })?;
    Ok(Exit::Done)
}

fn show(
    context: &mut Context<'_>,
    config: &Configuration,
    run: &RunRow,
    (pace, order): (Option<PaceRow>, Option<OrderRow>),
) -> CommandResult {
    let body = RunBody::of(run).map_err(task_error)?;
    let (due, erased, kept, failed) = (body.due, body.erased, body.kept + body.stripped, body.failed);
    let (more, zh_more) = super::plan::also_anonymised(body.anonymised);
    context.output.say(&Words::new(
        format!(
            "{} {}: {}; {due} due = {erased} erased{more} + {kept} kept ({} of them stripped) + {failed} failed",
            run.kind, run.id, run.state, body.stripped
        ),
        format!(
            "{} {}：{}；到期 {due} = 擦除 {erased}{zh_more} + 保留 {kept}（其中裁减 {}）+ 失败 {failed}",
            run.kind, run.id, run.state, body.stripped
        ),
    ))?;
    order::say_pace(context, run, (pace.as_ref(), order.as_ref()), &body)?;
    let meaning = meaning_of_run(run, &body);
    context.output.say(&meaning)?;
    let remaining = Remaining::of(run).map_err(task_error)?;
    if let Some(remaining) = &remaining {
        show_remaining(context.output, remaining)?;
    }
    if let Some(rows) = body.undone {
        context.output.say(&Words::new(
            format!("undone: {rows} rows were put back, and count as kept"),
            format!("已撤销：{rows} 行已恢复，计为保留"),
        ))?;
    }
    if let Some(until) = run.grace_until.filter(|until| run.state == "shred-pending" && *until > context.clock.now()) {
        let until = local_time(config, until);
        context.output.say(&Words::new(
            format!("in grace until {until}: `wangchuan run undo` puts the rows back"),
            format!("宽限期至 {until}：可用 `wangchuan run undo` 恢复"),
        ))?;
    }
    if let Some((rows, until)) = &body.pending {
        context.output.say(&Words::new(
            format!("{rows} rows still open in backups until {until}"),
            format!("{rows} 行在备份中仍可打开，直到 {until}"),
        ))?;
    }
    for files in &body.physical {
        context.output.say(&settle::line(&files.store, &files.residues))?;
    }
    context.output.document(&ShowDocument {
        result: Outcome::Complete,
        entry: RunEntry::of(run, &body),
        meaning: meaning.en,
        pace: pace.as_ref().map(PaceEntry::of),
        wish: order.map(|order| order.wish),
        stopped: body.stopped,
        residuals: remaining.map(|remaining| remaining.residuals).unwrap_or_default(),
        files: body.physical.iter().map(FilesEntry::of).collect(),
        notes: body.notes,
    })?;
    Ok(Exit::Done)
}
