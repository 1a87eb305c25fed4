//! `plan`, `erase`, `explain`: what retention would do, doing it, and why for one record.

mod document;

use super::CommandResult;
use super::context::{Context, certify_and_say, local_time, task_error};
use super::output::shapes::Time;
use super::output::table::grouped;
use super::output::{Exit, Grid, Lang, Outcome, UserError, Words, say};
use crate::control::RunRow;
use crate::erase::survey::{Shape, start_kind};
use crate::installation::{Installation, Needs};
use crate::plan::PlanBody;
use crate::plan::model::Collection;
use crate::policy::calendar::bucket_of;
use crate::policy::start::{StartEvent, read_start};
use crate::policy::statute::{DecidedBy, Earliest, bounds, find, find_all};
use crate::stores::{ColumnKind, Engine, Filter};
use crate::tasks::TaskError;
use crate::tasks::erasure::{RunBody, execute, find_plan, plan_retention};
use crate::value::{RowKey, Value};

pub use document::{ErasureDocument, ExplainDocument, PlanDocument};

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

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan explain shop orders 1042
  wangchuan explain shop order_lines 1042 3    a key of two columns")]
pub struct ExplainArgs {
    /// The store.
    store: String,
    /// The collection.
    collection: String,
    /// The key's values, in the order of the key columns.
    #[arg(required = true)]
    key: Vec<String>,
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
    for line in reasons(lang, &plan.body) {
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
pub fn reasons(lang: Lang, body: &PlanBody) -> Vec<String> {
    let mut lines = Vec::new();
    for counts in &body.collections {
        for (code, rows) in &counts.keep {
            lines.push(format!("  {} {}: {}", grouped(*rows), counts.collection, reason_text(lang, code)));
        }
    }
    lines
}

/// A reason's code in words.
pub fn reason_text(lang: Lang, code: &str) -> String {
    match code.split_once(':') {
        Some(("hold", id)) => format!("{} {id}", say(lang, "kept by hold", "因保留令保留")),
        Some(("statute", key)) => {
            let source = find(key).map_or("", |statute| statute.source);
            format!("{} {key} ({source})", say(lang, "kept by statute", "法定最短保存期"))
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

/// Explains one record.
pub async fn explain(context: &mut Context<'_>, args: ExplainArgs) -> CommandResult {
    let installation = context.open_stores(Needs { stores: true, ..Needs::STATE }).await?;
    let unknown =
        |what: String| task_error(TaskError::Unknown { what, advice: "see `wangchuan store list`".to_owned() });
    let site = installation.sites().iter().find(|site| site.model.spec.name == args.store);
    let site = site.ok_or_else(|| unknown(format!("there is no store {}, or it cannot be reached", args.store)))?;
    let collection = site.model.collection(&args.collection).map(|(_, collection)| collection);
    let collection =
        collection.ok_or_else(|| unknown(format!("store {} has no collection {}", args.store, args.collection)))?;
    let key = key_of(collection, site.store.engine(), &args.key)?;
    let shape = Shape::of(collection);
    let mut view = site.store.open_snapshot().await.map_err(|error| task_error(error.into()))?;
    let mut rows = view
        .read(&shape.query(collection, Filter::In(collection.key.clone(), vec![key])))
        .await
        .map_err(|error| task_error(error.into()))?;
    view.close().await.map_err(|error| task_error(error.into()))?;
    let Some(row) = rows.pop() else {
        context.output.say(&Words::new("There is no such record.", "没有这条记录。"))?;
        let document = ExplainDocument::undated(Outcome::NothingFound, None, "there is no such record");
        context.output.document(&document)?;
        installation.close().await.map_err(task_error)?;
        return Ok(Exit::Done);
    };
    let read = shape.read(row);
    explain_row(context, &installation, collection, read.start.as_ref())?;
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

fn explain_row(
    context: &mut Context<'_>,
    installation: &Installation,
    collection: &Collection,
    start: Option<&Value>,
) -> Result<(), UserError> {
    let Some((governed, value)) = collection.governed.as_ref().zip(start) else {
        let words = Words::new(
            "No policy governs this collection: its records never fall due, and go only on request.",
            "没有策略管辖该表：记录不会到期，只有在客户请求时才删除。",
        );
        return say_undated(context, &words, None, "no policy governs this collection");
    };
    let zone =
        installation.config.registry.stores.first().map_or(installation.config.agent.timezone, |store| store.timezone);
    let now = context.clock.now();
    let event = read_start(value, start_kind(governed.start.kind), zone, now);
    let policy = &governed.policy;
    let StartEvent::At(at) = event else {
        let (en, zh) = match event {
            StartEvent::Missing => ("its start event is missing", "起算时间缺失"),
            StartEvent::Future(_) => ("its start event lies in the future", "起算时间在未来"),
            _ => ("its start event cannot be read as a time", "起算时间无法识别"),
        };
        let id = &policy.id;
        let words = Words::new(format!("Not due: {en}. Policy {id}."), format!("未到期：{zh}。策略 {id}。"));
        return say_undated(context, &words, Some(id), en);
    };
    let failed = |error: &dyn std::fmt::Display| UserError::from_any(anyhow::anyhow!("{error}"));
    let statutes = find_all(&policy.statutes).map_err(|error| failed(&error))?;
    let found = bounds(at, policy.retention, &statutes, zone).map_err(|error| failed(&error))?;
    let bucket = bucket_of(at, policy.bucket, zone).map_err(|error| failed(&error))?;
    let by = match found.decided_by {
        DecidedBy::Policy => format!("policy {} ({} after {})", policy.id, policy.retention, policy.start),
        DecidedBy::Statute(key) => format!("statute {key} ({})", find(key).map_or("", |statute| statute.source)),
    };
    let due = match found.earliest {
        Earliest::At(due) => Some(due),
        Earliest::Never => None,
    };
    let when = due.map_or_else(|| "never".to_owned(), |due| local_time(&installation.config, due));
    let is_due = due.is_some_and(|due| due <= now);
    context.output.say(&Words::new(
        format!(
            "{} {when}, by {by}; start event {}; bucket {bucket}.",
            if is_due { "Due since" } else { "Due on" },
            local_time(&installation.config, at)
        ),
        format!(
            "{} {when}，依据 {by}；起算时间 {}；分桶 {bucket}。",
            if is_due { "已到期：" } else { "到期日：" },
            local_time(&installation.config, at)
        ),
    ))?;
    context.output.document(&ExplainDocument {
        result: Outcome::Complete,
        policy: Some(policy.id.clone()),
        statutes: policy.statutes.clone(),
        follows: governed.follows.clone(),
        start: Some(at.into()),
        due_at: due.map(Time::from),
        is_due,
        decided_by: Some(by),
        bucket: Some(bucket.to_string()),
        reason: due.is_none().then(|| "a statute forbids it for ever".to_owned()),
    })?;
    Ok(())
}

/// Explains a record that has no due date.
fn say_undated(context: &mut Context<'_>, words: &Words, policy: Option<&str>, reason: &str) -> Result<(), UserError> {
    context.output.say(words)?;
    context.output.document(&ExplainDocument::undated(Outcome::Complete, policy, reason))?;
    Ok(())
}

fn key_of(collection: &Collection, engine: Engine, texts: &[String]) -> Result<RowKey, UserError> {
    if texts.len() != collection.key.len() {
        let what = format!(
            "the key of {} has {} columns: {}",
            collection.table.name,
            collection.key.len(),
            collection.key.join(", ")
        );
        return Err(UserError::new(Exit::Usage, "KEY_COLUMNS", Words::new(what.clone(), what)));
    }
    let values = collection.key.iter().zip(texts).map(|(name, text)| {
        let kind = collection.table.columns.iter().find(|column| column.name == *name).and_then(|column| column.kind);
        match (engine, kind, text.parse::<i64>()) {
            (Engine::Sqlite, Some(ColumnKind::Integer), Ok(number)) => Value::Integer(number),
            _ => Value::Text(text.clone()),
        }
    });
    Ok(RowKey(values.collect()))
}
