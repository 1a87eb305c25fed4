//! `plan`, `erase`, `explain`: what retention would do, doing it, and why for one record.

mod document;
mod explain;

use super::CommandResult;
use super::context::{Context, certify_and_say, local_time, task_error};
use super::output::table::grouped;
use super::output::{Exit, Grid, Lang, Words, say};
use super::statute::words::source_of;
use crate::control::RunRow;
use crate::installation::Needs;
use crate::plan::PlanBody;
use crate::policy::statute::Catalogue;
use crate::tasks::erasure::{RunBody, execute, find_plan, plan_retention};

pub use document::{ErasureDocument, PlanDocument};
pub use explain::{ExplainArgs, ExplainDocument, explain};

/// Arguments of `plan`.
///
/// Reads the stores, writes nothing to them. The plan's hash is what `erase` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan plan
  wangchuan plan --at 2027-01-01T00:00:00+08:00    a preview")]
pub struct PlanArgs {}

/// Arguments of `erase`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wangchuan erase --plan 3f9a1c")]
pub struct EraseArgs {
    /// The hash of a plan, or its first digits (six at least).
    #[arg(long, value_name = "HASH")]
    plan: String,
}

/// Shows what retention would erase.
pub async fn plan(context: &mut Context<'_>, _args: PlanArgs) -> CommandResult {
    let installation = context.open_stores(Needs { stores: true, ..Needs::STATE }).await?;
    let plan = plan_retention(&installation).await.map_err(task_error)?;
    let preview = context.global.at.is_some();
    if preview {
        // A plan for another time is only looked at.
        let mut tx = installation.control.begin().await.map_err(|error| task_error(error.into()))?;
        tx.set_plan_state(&plan.row.id, "void").await.map_err(|error| task_error(error.into()))?;
        tx.commit().await.map_err(|error| task_error(error.into()))?;
    }
    let lang = context.lang();
    context.output.table(&plan_grid(lang, &plan.body))?;
    for line in reasons(lang, &plan.body, &installation.config.catalogue) {
        context.output.line(&line)?;
    }
    let cutoff = local_time(&installation.config, plan.body.cutoff);
    let hash = &plan.row.hash[..12];
    if preview {
        context.output.say(&Words::new(
            format!("Preview for {cutoff}: it cannot be carried out."),
            format!("这是 {cutoff} 的预览，不能执行。"),
        ))?;
    } else {
        context.output.say(&Words::new(
            format!("Cutoff {cutoff}. To carry it out: wangchuan erase --plan {hash}"),
            format!("截止时间 {cutoff}。执行：wangchuan erase --plan {hash}"),
        ))?;
    }
    for (store, reason) in &plan.body.skipped {
        context.output.note(&Words::new(
            format!("store {store} was left out: {reason}"),
            format!("数据库 {store} 未纳入：{reason}"),
        ))?;
    }
    context.output.document(&PlanDocument::of(&plan.row.hash, &plan.body, !preview))?;
    installation.close().await.map_err(task_error)?;
    Ok(if plan.body.skipped.is_empty() { Exit::Done } else { Exit::Partial })
}

/// The counts of a plan as a table.
pub fn plan_grid(lang: Lang, body: &PlanBody) -> Grid {
    let mut grid = Grid::new([
        say(lang, "collection", "数据表"),
        say(lang, "policy", "策略"),
        say(lang, "rows", "总行数"),
        say(lang, "due", "到期"),
        say(lang, "erase", "擦除"),
        say(lang, "keep", "保留"),
        say(lang, "start unknown", "起点不明"),
    ]);
    for column in 2..7 {
        grid = grid.right(column);
    }
    for counts in &body.collections {
        grid.row([
            format!("{}.{}", counts.store, counts.collection),
            counts.policy.clone().unwrap_or_else(|| "–".to_owned()),
            grouped(counts.total),
            grouped(counts.due),
            grouped(counts.erase + counts.strip),
            grouped(counts.due - counts.erase - counts.strip),
            grouped(counts.unknown_start),
        ]);
    }
    grid
}

/// Why rows are kept, one line per reason.
pub fn reasons(lang: Lang, body: &PlanBody, law: &Catalogue) -> Vec<String> {
    let mut lines = Vec::new();
    for counts in &body.collections {
        for (code, rows) in &counts.keep {
            lines.push(format!("  {} {}: {}", grouped(*rows), counts.collection, reason_text(lang, code, law)));
        }
    }
    lines
}

/// A reason's code in words.
pub fn reason_text(lang: Lang, code: &str, law: &Catalogue) -> String {
    match code.split_once(':') {
        Some(("hold", id)) => format!("{} {id}", say(lang, "kept by hold", "因保留令保留")),
        Some(("statute", key)) => {
            format!("{} {key} ({})", say(lang, "kept by statute", "法定最短保存期"), source_of(lang, key, law))
        }
        Some(("restricted", keys)) => {
            let (minimum, maximum) = keys.split_once(':').unwrap_or((keys, ""));
            let (least, most) = (source_of(lang, minimum, law), source_of(lang, maximum, law));
            match lang {
                Lang::En => format!(
                    "restricted: {minimum} ({least}) wants them kept, {maximum} ({most}) wants them gone; use them for nothing \
                     but storage"
                ),
                Lang::Zh => {
                    format!("限制处理：{minimum}（{least}）要求保存，{maximum}（{most}）要求删除；除存储外不得使用")
                }
            }
        }
        Some(("unregistered-child", table)) => {
            format!(
                "{} {table}",
                say(lang, "kept: rows of an unregistered table refer to it:", "保留：未登记的表仍引用它：")
            )
        }
        _ => match code {
            "kept-child" => say(lang, "kept: a row that refers to it stays", "保留：引用它的记录仍在").to_owned(),
            "unknown-start" => say(
                lang,
                "kept: a statute binds it, but its start event is unknown",
                "保留：受法定期限约束，但起算时间不明",
            )
            .to_owned(),
            other => other.to_owned(),
        },
    }
}

/// Carries a plan out.
pub async fn erase(context: &mut Context<'_>, args: EraseArgs) -> CommandResult {
    context.only_now()?;
    let installation = context.open_stores(Needs::ALL).await?;
    let plan = find_plan(&installation, &args.plan).await.map_err(task_error)?;
    let run = execute(&installation, &plan).await.map_err(task_error)?;
    let certificates = certify_and_say(context, &installation).await?;
    let body = RunBody::of(&run).map_err(task_error)?;
    let exit = show_run(context, run, body, certificates)?;
    installation.close().await.map_err(task_error)?;
    Ok(exit)
}

/// Shows how a run ended, and what will happen to its keys.
pub fn show_run(context: &mut Context<'_>, run: RunRow, body: RunBody, certificates: Vec<String>) -> CommandResult {
    let kept = body.kept + body.stripped;
    context.output.say(&Words::new(
        format!(
            "{} due = {} erased + {kept} kept + {} failed; {} read back as absent",
            body.due, body.erased, body.failed, body.looked_for
        ),
        format!(
            "到期 {} = 擦除 {} + 保留 {kept} + 失败 {}；复查 {} 行均不存在",
            body.due, body.erased, body.failed, body.looked_for
        ),
    ))?;
    if body.erased + body.stripped > 0 {
        context.output.say(&Words::new(
            "Deleted from the live stores. Backups still open these rows until their keys are destroyed, after grace and the next snapshot.",
            "已从在线数据库删除。在宽限期和下一次快照之后销毁密钥之前，备份中仍可打开这些行。",
        ))?;
    }
    for note in &body.notes {
        context.output.note(&Words::new(note.clone(), note.clone()))?;
    }
    let (document, exit) = ErasureDocument::of(&[(run, body)], certificates);
    context.output.document(&document)?;
    Ok(exit)
}
