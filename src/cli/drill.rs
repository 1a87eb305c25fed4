//! `drill …`: restore tests with a kept, signed record.

mod document;
mod page;
mod record;
mod verify;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;

use self::document::RecordEntry;
pub use self::document::RunDocument;
use self::page::Page;
use self::record::CheckedDrill;
pub use self::verify::VerifyDocument;
use super::CommandResult;
use super::backup::{choose, newest_of_each, open_bucket, snapshots, while_renewing};
use super::certificate::write_all;
use super::context::{Context, local_time, task_error, usage};
use super::output::shapes::{DrillOutcome, FailedStore};
use super::output::table::grouped;
use super::output::{Document, Exit, Grid, Outcome, Output, UserError, Words, say};
use crate::backup::codec::Sha256;
use crate::config::Configuration;
use crate::control::DrillRow;
use crate::installation::{Installation, Needs};
use crate::tasks::TaskError;
use crate::tasks::drill::{Drawn, DrillRecord, Pick, Picked, picks_of, run_picked};
use crate::tasks::site_drill::drill_from_bucket;

/// Restore tests with a kept, signed record.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Restore into a private scratch database, check it, wipe it, and sign what was found.
    ///
    /// Also tries to open what was shredded with every key there is. Of every store three snapshots are drilled: the newest, the oldest
    /// that is kept, and one between them by chance. Exit code 1 when a drill failed.
    #[command(
        after_help = "Examples:\n  wangchuan drill run\n  wangchuan drill run --pick latest\n  wangchuan drill run --snapshot 3f9c1a"
    )]
    Run {
        /// Of this store alone.
        #[arg(long, value_name = "STORE")]
        store: Option<String>,
        /// Not all three, but these.
        #[arg(long, value_enum, value_delimiter = ',')]
        pick: Vec<PickArg>,
        /// This snapshot, by the beginning of its id (`wangchuan backup list`).
        #[arg(long, value_name = "ID", conflicts_with = "pick")]
        snapshot: Option<String>,
        /// As if this site had burnt: from bucket, root slot and configuration alone, with the newest snapshots.
        #[arg(long, conflicts_with_all = ["snapshot", "pick"])]
        from_bucket: bool,
    },
    /// All drills, oldest first; every record's signature is checked.
    #[command(after_help = "Example:\n  wangchuan drill list")]
    List,
    /// One drill's record; its signature is checked.
    #[command(
        after_help = "Examples:\n  wangchuan drill show\n  wangchuan drill show 01a200dd\n  wangchuan drill show latest --format html"
    )]
    Show {
        /// Its number, its id or the beginning of it; `latest` for the newest.
        #[arg(default_value = "latest")]
        id: String,
        /// Write it as a file too.
        #[arg(long, value_enum)]
        format: Option<Format>,
        /// The file; by default `drill-NUMBER` with the ending of the form.
        #[arg(long, value_name = "FILE", requires = "format")]
        output: Option<PathBuf>,
    },
    /// Check the chain of all records: signatures, numbers, that each continues the one before it and none is missing.
    ///
    /// The newest ones are looked for in the operation log, whose own chain `wangchuan log verify` checks. Exit code 1 when a record was
    /// changed or taken away; it is named.
    #[command(after_help = "Example:\n  wangchuan drill verify")]
    Verify,
}

/// Which snapshots to drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PickArg {
    /// The newest.
    Latest,
    /// One between the newest and the oldest, by chance.
    Random,
    /// The oldest that is kept.
    Oldest,
}

impl PickArg {
    fn is(self, picked: Picked) -> bool {
        matches!(
            (self, picked),
            (Self::Latest, Picked::Latest) | (Self::Random, Picked::Random) | (Self::Oldest, Picked::Oldest)
        )
    }
}

/// The forms of a drill's record in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A page for people to read and print: a view of the record.
    Html,
    /// The record alone, byte for byte as it was signed (DSSE).
    Envelope,
}

/// `drill …`.
pub async fn drill(context: &mut Context<'_>, command: DrillCommand) -> CommandResult {
    match command {
        DrillCommand::Run { store, from_bucket: true, .. } => run_from_bucket(context, store.as_deref()).await,
        DrillCommand::Run { store, snapshot, pick, .. } => {
            run(context, store.as_deref(), snapshot.as_deref(), &pick).await
        }
        DrillCommand::List => list(context).await,
        DrillCommand::Show { id, format, output } => show(context, &id, format, output).await,
        DrillCommand::Verify => verify::verify(context).await,
    }
}

/// What to drill: the snapshot that is named, or of every wanted store what is picked.
async fn wanted(
    installation: &Installation,
    store: Option<&str>,
    snapshot: Option<&str>,
    pick: &[PickArg],
) -> Result<Vec<Pick>, UserError> {
    let rows = snapshots(installation).await?;
    if snapshot.is_some() {
        let snapshot = choose(&rows, snapshot, store)?.clone();
        return Ok(vec![Pick { snapshot, picked: Picked::Named, drawn: None }]);
    }
    let stores = match store {
        Some(_) => vec![choose(&rows, None, store)?],
        None => newest_of_each(rows.iter()),
    };
    let mut wanted = Vec::new();
    for row in stores {
        wanted.extend(picks_of(installation, &row.store).await.map_err(task_error)?);
    }
    wanted.retain(|of| pick.is_empty() || pick.iter().any(|pick| pick.is(of.picked)));
    Ok(wanted)
}

async fn run(
    context: &mut Context<'_>,
    store: Option<&str>,
    snapshot: Option<&str>,
    pick: &[PickArg],
) -> CommandResult {
    context.only_now()?;
    let installation = open_bucket(context).await?;
    let wanted = wanted(&installation, store, snapshot, pick).await?;
    let is_only = wanted.len() == 1;
    let (mut records, mut failed) = (Vec::new(), Vec::<FailedStore>::new());
    for pick in wanted {
        let (store, chain) = (pick.snapshot.store.clone(), pick.snapshot.chain);
        let drilling = async {
            let reading = installation.use_chain(chain).await?;
            let drilled = run_picked(&installation, pick).await;
            installation.release_chain(&reading).await?;
            drilled
        };
        match while_renewing(&installation, drilling).await {
            Ok(record) => records.push(record),
            Err(error @ TaskError::Stopping) => return Err(task_error(error)),
            Err(error) if is_only => return Err(task_error(error)),
            // One snapshot that cannot be drilled does not spare the others.
            Err(error) => {
                let (what, retry) = (error.to_string(), error.is_retryable());
                if !failed.iter().any(|known| known.store == store && known.what == what) {
                    failed.push(FailedStore { store, what, retry });
                }
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
    let mut grid = Grid::new(collection_titles().map(|(en, zh)| say(lang, en, zh))).right(1).right(2).right(3).right(4);
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

fn collection_titles() -> [(&'static str, &'static str); 5] {
    [
        ("collection", "集合"),
        ("restored", "恢复"),
        ("shredded", "已销毁"),
        ("erased since", "其后已删除"),
        ("stubs", "占位"),
    ]
}

/// Why a drill took its snapshot.
fn picked_words(record: &DrillRecord) -> Words {
    match (record.picked, &record.drawn) {
        (Picked::Latest, _) => Words::new("the newest", "最新快照"),
        (Picked::Oldest, _) => Words::new("the oldest that is kept", "所保留的最旧快照"),
        (Picked::Named, _) => Words::new("named", "指定"),
        (Picked::Random, None) => Words::new("by chance", "随机"),
        (Picked::Random, Some(Drawn { seed, among })) => Words::new(
            format!("by chance, one of {among} (seed {seed})"),
            format!("随机，{among} 个之一（种子 {seed}）"),
        ),
    }
}

fn verdict(output: &Output, passed: bool) -> &'static str {
    let lang = output.lang();
    if passed { say(lang, "passed ✓", "通过 ✓") } else { say(lang, "failed ✗", "未通过 ✗") }
}

/// The numbers of a record, as sentences.
fn figures(config: &Configuration, record: &DrillRecord) -> [Words; 4] {
    let [opened, shredded, lost, corrupt, total] = record.frames.map(grouped);
    let [tried, keys] = record.tried.map(grouped);
    let (begun, picked) = (local_time(config, record.begun_at), picked_words(record));
    let (rto, rpo) = (record.rto_seconds, record.rpo_seconds);
    let (reappeared, resurrected, by) = (record.erased_reappeared, record.resurrected, &record.operator);
    [
        Words::new(
            format!("snapshot {} ({}), drilled {begun} by {by}", record.snapshot, picked.en),
            format!("快照 {}（{}），{by} 于 {begun} 演练", record.snapshot, picked.zh),
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
        ("no.", "编号"),
        ("drill", "演练"),
        ("store", "数据源"),
        ("when", "时间"),
        ("result", "结果"),
        ("restore", "恢复用时"),
        ("signature", "签名"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(0).right(5);
    for (row, drill) in rows.iter().zip(&drills) {
        let signature = drill.problem.unwrap_or(say(lang, "valid", "有效"));
        let rto = drill.rto_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
        let (when, result) =
            (local_time(&installation.config, row.at), verdict(output, drill.result == DrillOutcome::Passed));
        grid.row([&row.number.to_string(), &drill.drill, &drill.store, &when, result, &rto, signature]);
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
    /// The file that was written; null without `--format`.
    file: Option<PathBuf>,
}

impl Document for ShowDocument<'_> {
    const OF: &'static [&'static str] = &["drill show"];
}

async fn show(context: &mut Context<'_>, id: &str, format: Option<Format>, output: Option<PathBuf>) -> CommandResult {
    let (installation, rows) = stored(context).await?;
    let row = find(&rows, id)?;
    let drill = CheckedDrill::of(row, installation.signer.trusted());
    let mut file = None;
    match (&drill.record, drill.problem) {
        (Some(record), _) => {
            show_record(context.output, &installation.config, record)?;
            context.output.say(&Words::new("the record's signature is good", "记录的签名有效"))?;
            file = match format {
                Some(format) => Some(write(context, &installation.config, (row, record), format, output)?),
                None => None,
            };
        }
        (None, problem) => context.output.line(&format!("✗ {}: {}", drill.drill, problem.unwrap_or_default()))?,
    }
    let record = drill.record.as_ref().map(RecordEntry::of);
    context.output.document(&ShowDocument { drill: &drill, record, file })?;
    installation.close().await.map_err(task_error)?;
    Ok(if drill.problem.is_none() { Exit::Done } else { Exit::Failed })
}

/// Writes a record whose signature is good to a file; nothing is overwritten.
fn write(
    context: &mut Context<'_>,
    config: &Configuration,
    (row, record): (&DrillRow, &DrillRecord),
    format: Format,
    output: Option<PathBuf>,
) -> Result<PathBuf, UserError> {
    let lang = context.lang();
    let (ending, bytes) = match format {
        Format::Html => {
            let digest = Sha256::of(&row.record).to_string();
            ("html", Page { record, digest, config, lang }.render().into_bytes())
        }
        Format::Envelope => ("dsse.json", row.record.clone()),
    };
    let file = output.unwrap_or_else(|| PathBuf::from(format!("drill-{}.{ending}", row.number)));
    write_all(&[(&file, bytes.as_slice())])?;
    let shown = file.display();
    context.output.say(&match format {
        Format::Html => {
            Words::new(format!("{shown}: a page to read and print"), format!("{shown}：供阅读和打印的页面"))
        }
        Format::Envelope => Words::new(format!("{shown}: the signed record"), format!("{shown}：签名的记录")),
    })?;
    Ok(file)
}

fn find<'r>(rows: &'r [DrillRow], id: &str) -> Result<&'r DrillRow, UserError> {
    let unknown = |en: String, zh: String| {
        usage("DRILL_UNKNOWN", &en, &zh).advise("see `wangchuan drill list`", "请看 `wangchuan drill list`")
    };
    if id == "latest" {
        return rows.last().ok_or_else(|| unknown("there was no drill yet".to_owned(), "还没有演练".to_owned()));
    }
    if let Some(row) = id.parse().ok().and_then(|number: i64| rows.iter().find(|row| row.number == number)) {
        return Ok(row);
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
