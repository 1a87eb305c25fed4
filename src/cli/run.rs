//! `run`: runs of any kind.

use super::CommandResult;
use super::context::{Context, local_time, task_error};
use super::output::{Exit, Grid, Words};
use crate::config::Configuration;
use crate::control::RunRow;
use crate::tasks::TaskError;
use crate::tasks::erasure::RunBody;

/// Runs.
#[derive(Debug, clap::Subcommand)]
pub enum RunCommand {
    /// All erasure runs, newest last.
    List,
    /// One run.
    Show {
        /// Its id or the beginning of it.
        id: String,
    },
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
        RunCommand::Show { id } => show(context, &runs, &id),
    }
}

fn list(context: &mut Context<'_>, config: &Configuration, runs: &[RunRow]) -> CommandResult {
    let titles = [
        ("run", "运行"),
        ("kind", "类型"),
        ("state", "状态"),
        ("begun", "开始"),
        ("due", "到期"),
        ("erased", "擦除"),
        ("kept", "保留"),
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
            (body.kept + body.stripped).to_string(),
            body.failed.to_string(),
        ]);
        shown.push(document(run, &body));
    }
    context.output.table(&grid)?;
    let result = if shown.is_empty() { "nothing-found" } else { "complete" };
    context.output.document(&serde_json::json!({"result": result, "runs": shown}))?;
    Ok(Exit::Done)
}

fn show(context: &mut Context<'_>, runs: &[RunRow], id: &str) -> CommandResult {
    let mut found = runs.iter().filter(|run| run.id.starts_with(id));
    let (Some(run), None) = (found.next(), found.next()) else {
        return Err(task_error(TaskError::Unknown {
            what: format!("no single run begins with {id}"),
            advice: "see `wangchuan run list`".to_owned(),
        }));
    };
    let body = RunBody::of(run).map_err(task_error)?;
    let (due, erased, kept, failed) = (body.due, body.erased, body.kept + body.stripped, body.failed);
    context.output.say(&Words::new(
        format!("{} {}: {}; {due} due = {erased} erased + {kept} kept + {failed} failed", run.kind, run.id, run.state),
        format!("{} {}：{}；到期 {due} = 擦除 {erased} + 保留 {kept} + 失败 {failed}", run.kind, run.id, run.state),
    ))?;
    if let Some((rows, until)) = &body.pending {
        context.output.say(&Words::new(
            format!("{rows} rows still open in backups until {until}"),
            format!("{rows} 行在备份中仍可打开，直到 {until}"),
        ))?;
    }
    for (store, clean, note) in &body.physical {
        context.output.line(&format!("  {} {store}: {note}", if *clean { "✓" } else { "…" }))?;
    }
    let mut shown = document(run, &body);
    shown["result"] = "complete".into();
    shown["notes"] = body.notes.clone().into();
    context.output.document(&shown)?;
    Ok(Exit::Done)
}

fn document(run: &RunRow, body: &RunBody) -> serde_json::Value {
    serde_json::json!({
        "run": run.id, "kind": run.kind, "state": run.state, "request": run.request, "begun_at": run.begun_at, "verified_at": run.verified_at,
        "grace_until": run.grace_until, "shredded_at": run.shredded_at, "due": body.due, "erased": body.erased, "anonymised": 0,
        "kept": body.kept + body.stripped, "failed": body.failed, "pending": body.pending,
    })
}
