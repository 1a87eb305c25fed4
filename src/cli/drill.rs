//! `drill …`: restore tests with a kept, signed record.

mod document;
mod record;

use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use self::document::RecordEntry;
pub use self::document::RunDocument;
use self::record::CheckedDrill;
use super::CommandResult;
use super::backup::{choose, newest_of_each, open_bucket, snapshots, while_renewing};
use super::context::{Context, local_time, task_error, usage};
use super::output::shapes::{DrillOutcome, FailedStore};
use super::output::table::grouped;
use super::output::{Document, Exit, Grid, Outcome, Output, UserError, Words, say};
use crate::config::Configuration;
use crate::control::DrillRow;
use crate::installation::{Installation, Needs};
use crate::tasks::TaskError;
use crate::tasks::drill::{DrillRecord, run_drill};
use crate::tasks::site_drill::drill_from_bucket;

/// Restore tests with a kept, signed record.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Restore into a private scratch database, check it, wipe it, and sign what was found.
    ///
    /// Also tries to open what was shredded with every key there is. Without options the newest snapshot of every store is drilled.
    /// Exit code 1 when a drill failed.
    #[command(after_help = "Examples:\n  wangchuan drill run\n  wangchuan drill run --snapshot 3f9c1a")]
    Run {
        /// The newest snapshot of this store.
        #[arg(long, value_name = "STORE")]
        store: Option<String>,
        /// This snapshot, by the beginning of its id (`wangchuan backup list`).
        #[arg(long, value_name = "ID")]
        snapshot: Option<String>,
        /// As if this site had burnt: from bucket, root slot and configuration alone, with the newest snapshots.
        #[arg(long, conflicts_with = "snapshot")]
        from_bucket: bool,
    },
    /// All drills, oldest first; every record's signature is checked.
    #[command(after_help = "Example:\n  wangchuan drill list")]
    List,
    /// One drill's record; its signature is checked.
    #[command(after_help = "Examples:\n  wangchuan drill show\n  wangchuan drill show 01a200dd")]
    Show {
        /// Its id or the beginning of it; `latest` for the newest.
        #[arg(default_value = "latest")]
        id: String,
    },
}

/// `drill …`.
pub async fn drill(context: &mut Context<'_>, command: DrillCommand) -> CommandResult {
    match command {
        DrillCommand::Run { store, from_bucket: true, .. } => run_from_bucket(context, store.as_deref()).await,
        DrillCommand::Run { store, snapshot, .. } => run(context, store.as_deref(), snapshot.as_deref()).await,
        DrillCommand::List => list(context).await,
        DrillCommand::Show { id } => show(context, &id).await,
    }
}

async fn run(context: &mut Context<'_>, store: Option<&str>, snapshot: Option<&str>) -> CommandResult {
    context.only_now()?;
    let installation = open_bucket(context).await?;
    let rows = snapshots(&installation).await?;
    let wanted = match (store, snapshot) {
        (None, None) => newest_of_each(rows.iter()),
        _ => vec![choose(&rows, snapshot, store)?],
    };
    let is_only = wanted.len() == 1;
    let (mut records, mut failed) = (Vec::new(), Vec::new());
    for row in wanted {
        let drilling = async {
            let reading = installation.use_chain(row.chain).await?;
            let drilled = run_drill(&installation, row.clone()).await;
            installation.release_chain(&reading).await?;
            drilled
        };
        match while_renewing(&installation, drilling).await {
            Ok(record) => records.push(record),
            Err(error @ TaskError::Stopping) => return Err(task_error(error)),
            Err(error) if is_only => return Err(task_error(error)),
            // One store that cannot be drilled does not spare the others.
            Err(error) => {
                let (what, retry) = (error.to_string(), error.is_retryable());
                failed.push(FailedStore { store: row.store.clone(), what, retry });
            }
        }
    }
    let exit = show_run(context.output, &installation.config, &records, &failed)?;
    installation.close().await.map_err(task_error)?;
    Ok(exit)
}

async fn run_from_bucket(context: &mut Context<'_>, store: Option<&str>) -> CommandResult {
    context.only_now()?;
    let config = context.configuration()?;
    let drilled = drill_from_bucket(&config, store, context.clock.clone(), context.random.clone()).await;
    let drilled = drilled.map_err(task_error)?;
    let (number, at) = (drilled.recovered.record, local_time(&config, drilled.recovered.at));
    context.output.note(&Words::new(
        format!("from bucket, root slot and configuration alone: state {number} of {at}"),
        format!("仅凭存储桶、根密钥槽和配置：{at} 的第 {number} 号状态"),
    ))?;
    show_run(context.output, &config, &drilled.records, &[])
}

fn show_run(
    output: &mut Output,
    config: &Configuration,
    records: &[DrillRecord],
    failed: &[FailedStore],
) -> CommandResult {
    let document = RunDocument::of(records, failed);
    if document.result == DrillOutcome::NothingFound {
        output.say(&Words::new("there is no snapshot to drill with", "没有可以演练的快照"))?;
    }
    for record in records {
        show_record(output, config, record)?;
    }
    for store in failed {
        output.say(&Words::new(
            format!("✗ store {} was not drilled: {}", store.store, store.what),
            format!("✗ 数据源 {} 没有演练：{}", store.store, store.what),
        ))?;
    }
    output.document(&document)?;
    Ok(if document.result == DrillOutcome::Failed { Exit::Failed } else { Exit::Done })
}

fn show_record(output: &mut Output, config: &Configuration, record: &DrillRecord) -> Result<(), UserError> {
    let lang = output.lang();
    let verdict = verdict(output, record.result == "passed");
    output.heading(
        &format!("Drill {} of store {}: {verdict}", record.drill, record.store),
        &format!("演练 {}，数据源 {}：{verdict}", record.drill, record.store),
    )?;
    let titles = [
        ("collection", "集合"),
        ("restored", "恢复"),
        ("shredded", "已销毁"),
        ("erased since", "其后已删除"),
        ("stubs", "占位"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(1).right(2).right(3).right(4);
    for (name, restored, shredded, erased, stubs) in &record.collections {
        grid.row(std::iter::once(name.clone()).chain([restored, shredded, erased, stubs].map(|rows| grouped(*rows))));
    }
    if !grid.is_empty() {
        output.table(&grid)?;
    }
    for words in figures(config, record) {
        output.say(&words)?;
    }
    for problem in &record.problems {
        output.line(&format!("✗ {problem}"))?;
    }
    if !record.cleaned_up {
        let scratch = &record.scratch;
        output.say(&Words::new(
            format!("✗ {scratch} holds customers in clear; the next drill tries to remove it again, or do it by hand"),
            format!("✗ {scratch} 中有客户明文数据；下次演练会再次尝试删除，也可手工删除"),
        ))?;
    }
    Ok(())
}

fn verdict(output: &Output, passed: bool) -> &'static str {
    let lang = output.lang();
    if passed { say(lang, "passed ✓", "通过 ✓") } else { say(lang, "failed ✗", "未通过 ✗") }
}

/// The numbers of a record, as sentences.
fn figures(config: &Configuration, record: &DrillRecord) -> [Words; 4] {
    let [opened, shredded, lost, corrupt, total] = record.frames.map(grouped);
    let [tried, keys] = record.tried.map(grouped);
    let begun = local_time(config, record.begun_at);
    let (rto, rpo) = (record.rto_seconds, record.rpo_seconds);
    let (reappeared, resurrected, by) = (record.erased_reappeared, record.resurrected, &record.operator);
    [
        Words::new(
            format!("snapshot {}, drilled {begun} by {by}", record.snapshot),
            format!("快照 {}，{by} 于 {begun} 演练", record.snapshot),
        ),
        Words::new(
            format!(
                "frames: {opened} opened + {shredded} shredded + {lost} lost + {corrupt} corrupt, {total} in the manifest"
            ),
            format!("数据帧：打开 {opened} + 已销毁 {shredded} + 密钥丢失 {lost} + 损坏 {corrupt}，清单中共 {total}"),
        ),
        Words::new(
            format!("shredded frames tried: {tried}, each with {keys} keys; opened: {resurrected}"),
            format!("已销毁的数据帧试开 {tried} 个，每个用 {keys} 把密钥；打开 {resurrected} 个"),
        ),
        Words::new(
            format!("erased rows that came back: {reappeared}; time to restore {rto:.1} s; age of the data {rpo} s"),
            format!("删除后又出现的行：{reappeared}；恢复用时 {rto:.1} 秒；数据旧 {rpo} 秒"),
        ),
    ]
}

async fn stored(context: &Context<'_>) -> Result<(Installation, Vec<DrillRow>), UserError> {
    let installation = context.open(Needs::STATE).await?;
    let mut tx = installation.control.read().await.map_err(|error| task_error(error.into()))?;
    let rows = tx.drills().await.map_err(|error| task_error(error.into()))?;
    drop(tx);
    Ok((installation, rows))
}

/// The JSON of `drill list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete`, `nothing-found`, or `failed` with exit code 1 when a record's signature does not fit.
    result: Outcome,
    /// The drills, oldest first.
    drills: Vec<CheckedDrill>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["drill list"];
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let (installation, rows) = stored(context).await?;
    let drills: Vec<_> = rows.iter().map(|row| CheckedDrill::of(row, installation.signer.trusted())).collect();
    let output = &mut *context.output;
    let lang = output.lang();
    let titles = [
        ("drill", "演练"),
        ("store", "数据源"),
        ("when", "时间"),
        ("result", "结果"),
        ("restore", "恢复用时"),
        ("signature", "签名"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(4);
    for (row, drill) in rows.iter().zip(&drills) {
        let signature = drill.problem.unwrap_or(say(lang, "valid", "有效"));
        let rto = drill.rto_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
        let (when, result) =
            (local_time(&installation.config, row.at), verdict(output, drill.result == DrillOutcome::Passed));
        grid.row([&drill.drill, &drill.store, &when, result, &rto, signature]);
    }
    if grid.is_empty() {
        output.say(&Words::new(
            "there was no drill yet; `wangchuan drill run` does one",
            "还没有演练；`wangchuan drill run` 可以做一次",
        ))?;
    } else {
        output.table(&grid)?;
    }
    let is_good = drills.iter().all(|drill| drill.problem.is_none());
    let result = match (drills.is_empty(), is_good) {
        (true, _) => Outcome::NothingFound,
        (false, true) => Outcome::Complete,
        (false, false) => Outcome::Failed,
    };
    output.document(&ListDocument { result, drills })?;
    installation.close().await.map_err(task_error)?;
    Ok(if is_good { Exit::Done } else { Exit::Failed })
}

/// The JSON of `drill show`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShowDocument<'d> {
    #[serde(flatten)]
    drill: &'d CheckedDrill,
    /// What was signed; null when the signature does not fit.
    record: Option<RecordEntry<'d>>,
}

impl Document for ShowDocument<'_> {
    const OF: &'static [&'static str] = &["drill show"];
}

async fn show(context: &mut Context<'_>, id: &str) -> CommandResult {
    let (installation, rows) = stored(context).await?;
    let drill = CheckedDrill::of(find(&rows, id)?, installation.signer.trusted());
    match (&drill.record, drill.problem) {
        (Some(record), _) => {
            show_record(context.output, &installation.config, record)?;
            context.output.say(&Words::new("the record's signature is good", "记录的签名有效"))?;
        }
        (None, problem) => context.output.line(&format!("✗ {}: {}", drill.drill, problem.unwrap_or_default()))?,
    }
    context.output.document(&ShowDocument { drill: &drill, record: drill.record.as_ref().map(RecordEntry::of) })?;
    installation.close().await.map_err(task_error)?;
    Ok(if drill.problem.is_none() { Exit::Done } else { Exit::Failed })
}

fn find<'r>(rows: &'r [DrillRow], id: &str) -> Result<&'r DrillRow, UserError> {
    let unknown = |en: String, zh: String| {
        usage("DRILL_UNKNOWN", &en, &zh).advise("see `wangchuan drill list`", "请看 `wangchuan drill list`")
    };
    if id == "latest" {
        return rows.last().ok_or_else(|| unknown("there was no drill yet".to_owned(), "还没有演练".to_owned()));
    }
    let mut found = rows.iter().filter(|row| !id.is_empty() && row.id.starts_with(id));
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) => {
            Err(unknown(format!("several drills begin with {id}"), format!("有多个演练以 {id} 开头")))
        }
        _ => Err(unknown(format!("no drill begins with {id}"), format!("没有以 {id} 开头的演练"))),
    }
}

#[cfg(test)]
mod tests;
