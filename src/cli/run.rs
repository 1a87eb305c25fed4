//! `run`: runs of any kind.

use super::CommandResult;
use super::context::{Context, certify_and_say, local_time, task_error};
use super::output::{Exit, Grid, UserError, Words};
use super::stage::meaning;
use crate::config::Configuration;
use crate::control::RunRow;
use crate::installation::{Installation, Needs};
use crate::tasks::TaskError;
use crate::tasks::erasure::RunBody;
use crate::tasks::undo::{UndoReport, undo_run};

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
    /// Take an erasure back within its grace: rows return as they were, never over a living row, and their keys live on.
    ///
    /// Example: wangchuan run undo 01a200dd
    Undo {
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
        RunCommand::Show { id } => show(context, &config, find(&runs, &id)?),
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
    let result = if superseded + refused == 0 { "complete" } else { "partial" };
    context.output.document(&serde_json::json!({
        "result": result, "run": run, "request": request, "restored": restored, "superseded": superseded, "refused": refused,
        "notes": notes, "certificates": certificates,
    }))?;
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

fn show(context: &mut Context<'_>, config: &Configuration, run: &RunRow) -> CommandResult {
    let body = RunBody::of(run).map_err(task_error)?;
    let (due, erased, kept, failed) = (body.due, body.erased, body.kept + body.stripped, body.failed);
    context.output.say(&Words::new(
        format!("{} {}: {}; {due} due = {erased} erased + {kept} kept + {failed} failed", run.kind, run.id, run.state),
        format!("{} {}：{}；到期 {due} = 擦除 {erased} + 保留 {kept} + 失败 {failed}", run.kind, run.id, run.state),
    ))?;
    let until = body.pending.as_ref().map(|(_, until)| until.as_str());
    context.output.say(&meaning(&run.state, until))?;
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
    for (store, clean, note) in &body.physical {
        context.output.line(&format!("  {} {store}: {note}", if *clean { "✓" } else { "…" }))?;
    }
    let mut shown = document(run, &body);
    shown["result"] = "complete".into();
    shown["meaning"] = meaning(&run.state, until).en.into();
    shown["notes"] = body.notes.clone().into();
    context.output.document(&shown)?;
    Ok(Exit::Done)
}

fn document(run: &RunRow, body: &RunBody) -> serde_json::Value {
    serde_json::json!({
        "run": run.id, "kind": run.kind, "state": run.state, "request": run.request, "begun_at": run.begun_at, "verified_at": run.verified_at,
        "grace_until": run.grace_until, "shredded_at": run.shredded_at, "due": body.due, "erased": body.erased, "anonymised": 0,
        "kept": body.kept + body.stripped, "failed": body.failed, "pending": body.pending, "undone": body.undone,
    })
}
