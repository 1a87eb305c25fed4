//! `run pause`, `run resume`, `run stop`, `run tune`, and how fast a run goes.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::CommandResult;
use crate::cli::context::{Context, certify_and_say, task_error};
use crate::cli::output::shapes::RunEntry;
use crate::cli::output::table::grouped;
use crate::cli::output::{Document, Exit, Outcome, UserError, Words};
use crate::cli::plan::ErasureDocument;
use crate::control::{OrderRow, PaceRow, RunRow};
use crate::installation::{Needs, WORK_LEASE};
use crate::tasks::TaskError;
use crate::tasks::erasure::{RunBody, resume_run};
use crate::tasks::orders::{self, Tuning, Wish};

/// How fast the batches of a run go.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PaceEntry {
    /// Transactions that were committed.
    batches: i64,
    /// Rows in them.
    batched_rows: i64,
    /// Rows in a second, pauses between batches included.
    rows_per_second: i64,
    /// Time spent waiting between batches, in milliseconds.
    paused_ms: i64,
    /// The longest transaction, in milliseconds.
    longest_ms: i64,
    /// Rows that the next batch would take.
    batch_rows: i64,
    /// What it waits for, or why it stopped; null while it goes.
    waits_for: Option<String>,
}

impl PaceEntry {
    /// Of a stored pace.
    pub fn of(pace: &PaceRow) -> Self {
        let spent = pace.worked_ms + pace.paused_ms;
        Self {
            batches: pace.batches,
            batched_rows: pace.rows,
            rows_per_second: pace.rows * 1000 / spent.max(1),
            paused_ms: pace.paused_ms,
            longest_ms: pace.longest_ms,
            batch_rows: pace.batch_rows,
            waits_for: pace.waits_for.clone(),
        }
    }
}

/// The JSON of `run pause`, `run resume`, `run stop` and `run tune`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OrderDocument {
    /// `complete` when it is asked; where this command carried the run on itself, how that ended.
    result: Outcome,
    /// The run.
    run: String,
    /// What is asked: `go`, `pause` or `stop`.
    wish: String,
    /// At most so many rows in a second; null when the configuration decides.
    max_rows_per_second: Option<i64>,
    /// The length in milliseconds that a transaction aims at; null when the configuration decides.
    transaction_ms: Option<i64>,
    /// The process that looks at it between batches; null when none works.
    working: Option<i64>,
    /// The run as this command left it that carried it on itself; empty otherwise.
    details: Vec<RunEntry>,
    /// The certificates issued now.
    certificates: Vec<String>,
}

impl Document for OrderDocument {
    const OF: &'static [&'static str] = &["run pause", "run resume", "run stop", "run tune"];
}

impl OrderDocument {
    fn of(order: &OrderRow, working: Option<i64>) -> Self {
        Self {
            result: Outcome::Complete,
            run: order.run.clone(),
            wish: order.wish.clone(),
            max_rows_per_second: order.rows_per_second,
            transaction_ms: order.transaction_ms,
            working,
            details: Vec::new(),
            certificates: Vec::new(),
        }
    }
}

/// `run pause`, `run resume`, `run stop`.
pub async fn ask(context: &mut Context<'_>, run: &RunRow, wish: Wish) -> CommandResult {
    let (order, working) = write(context, async |installation| orders::ask(installation, run, wish).await).await?;
    let id = &run.id;
    match (wish, working) {
        (Wish::Pause, _) => context.output.say(&Words::new(
            format!(
                "Run {id} is paused behind the batch in hand, also after a restart; `wangchuan run resume` goes on."
            ),
            format!("运行 {id} 将在当前批次后暂停，重启后仍然有效；`wangchuan run resume` 可继续。"),
        ))?,
        (Wish::Go, Some(pid)) => context.output.say(&Words::new(
            format!("Run {id} goes on; process {pid} does it."),
            format!("运行 {id} 继续，由进程 {pid} 执行。"),
        ))?,
        (Wish::Stop, Some(pid)) => context.output.say(&Words::new(
            format!("Run {id} ends behind the batch in hand; process {pid} does it. What stays is in the next plan."),
            format!("运行 {id} 将在当前批次后结束，由进程 {pid} 执行。剩余的行会进入下一个计划。"),
        ))?,
        (Wish::Go | Wish::Stop, None) => return carry_on(context, run, &order).await,
    }
    context.output.document(&OrderDocument::of(&order, working))?;
    Ok(Exit::Done)
}

/// A figure for people, or a dash where there is none.
fn told(number: Option<i64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| grouped(number.unsigned_abs()))
}

/// `run tune`.
pub async fn tune(context: &mut Context<'_>, run: &RunRow, tuning: Tuning) -> CommandResult {
    let (order, working) = write(context, async |installation| orders::tune(installation, run, tuning).await).await?;
    let (rows, aim) = (told(order.rows_per_second), told(order.transaction_ms));
    context.output.say(&Words::new(
        format!("From its next batch on run {} takes at most {rows} rows a second and aims at transactions of {aim} ms (-: as configured).", run.id),
        format!("运行 {} 从下一批次起每秒最多 {rows} 行，事务目标 {aim} 毫秒（-：按配置）。", run.id),
    ))?;
    context.output.document(&OrderDocument::of(&order, working))?;
    Ok(Exit::Done)
}

/// Writes an order beside whoever works, and tells who does.
async fn write(
    context: &Context<'_>,
    order: impl AsyncFnOnce(&crate::installation::Installation) -> crate::tasks::Result<OrderRow>,
) -> Result<(OrderRow, Option<i64>), UserError> {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    let written = async {
        let order = order(&installation).await?;
        let mut tx = installation.control.read().await?;
        let holder = tx.lease_holder(WORK_LEASE, context.clock.now()).await?;
        Ok::<_, TaskError>((order, holder.map(|holder| holder.pid)))
    };
    let written = written.await.map_err(task_error);
    installation.close().await.map_err(task_error)?;
    written
}

/// Nobody works, so this command does.
async fn carry_on(context: &mut Context<'_>, run: &RunRow, order: &OrderRow) -> CommandResult {
    let installation = context.open_stores(Needs::ALL).await?;
    let run = resume_run(&installation, run.clone()).await.map_err(task_error)?;
    let body = RunBody::of(&run).map_err(task_error)?;
    let certificates = certify_and_say(context, &installation).await?;
    installation.close().await.map_err(task_error)?;
    let (due, erased, kept, failed) = (body.due, body.erased, body.kept + body.stripped, body.failed);
    let stopped = body.stopped;
    context.output.say(&Words::new(
        format!(
            "Run {} is {}: {due} due = {erased} erased + {kept} kept ({stopped} of them because it was stopped) + {failed} failed",
            run.id, run.state
        ),
        format!(
            "运行 {}：{}；到期 {due} = 擦除 {erased} + 保留 {kept}（其中因停止 {stopped}）+ 失败 {failed}",
            run.id, run.state
        ),
    ))?;
    let details = vec![RunEntry::of(&run, &body)];
    let (_, exit) = ErasureDocument::of(&[(run, body)], Vec::new());
    let result = if exit == Exit::Done { Outcome::Complete } else { Outcome::Partial };
    let document = OrderDocument { result, details, certificates, ..OrderDocument::of(order, None) };
    context.output.document(&document)?;
    Ok(exit)
}

/// How fast a run goes, what was asked of it, and what it waits for.
pub fn say_pace(
    context: &mut Context<'_>,
    run: &RunRow,
    (pace, order): (Option<&PaceRow>, Option<&OrderRow>),
    body: &RunBody,
) -> Result<(), UserError> {
    if let Some(pace) = pace.map(PaceEntry::of).filter(|pace| pace.batches > 0) {
        let rows = told(Some(pace.rows_per_second));
        let (batches, longest, next) = (pace.batches, pace.longest_ms, pace.batch_rows);
        context.output.say(&Words::new(
            format!(
                "{batches} batches, {rows} rows/s, longest transaction {longest} ms, {next} rows a batch at the end"
            ),
            format!("{batches} 个批次，每秒 {rows} 行，最长事务 {longest} 毫秒，最后每批 {next} 行"),
        ))?;
    }
    if run.state == "approved" {
        if let Some(why) = pace.and_then(|pace| pace.waits_for.as_ref()) {
            context.output.say(&Words::new(format!("waits: {why}"), format!("等待：{why}")))?;
        }
        if let Some(order) = order.filter(|order| order.wish != Wish::Go.name()) {
            let (wish, by) = (&order.wish, &order.asked_by);
            context.output.say(&Words::new(format!("{by} asked it to {wish}"), format!("{by} 要求：{wish}")))?;
        }
    }
    if body.stopped > 0 {
        let rows = body.stopped;
        context.output.say(&Words::new(
            format!("it was stopped: {rows} rows stay, count as kept, and are in the next plan"),
            format!("已停止：{rows} 行保留，会进入下一个计划"),
        ))?;
    }
    Ok(())
}
