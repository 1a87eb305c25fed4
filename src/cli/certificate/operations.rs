//! `log query`, `log export` and `log prune`: the operation log for people who examine it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::super::CommandResult;
use super::super::context::{Context, local_time, task_error};
use super::super::hold::read_subject;
use super::super::output::shapes::Time;
use super::super::output::{Document, Exit, Grid, Lang, Outcome, UserError, Words, say};
use super::export::write_all;
use crate::installation::Needs;
use crate::tasks::erasure::{RowValues, TableValues};
use crate::tasks::oplog::{
    ARCHIVE_NAME, ArchiveFile, Entry, Query, archive, export as export_all, prune as prune_old, query as find,
};

/// What to look for.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// `-`: a customer's id is read from standard input. Also finds one who was erased.
    #[arg(long, value_name = "-", value_parser = ["-"])]
    customer: Option<String>,
    /// How the operation's name begins (`run`, `hold.place`).
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Not before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Not after this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
}

/// An entry of the operation log.
#[derive(Debug, Serialize, JsonSchema)]
struct Logged {
    /// Its place in the log, from 0.
    index: u64,
    /// When it was written.
    at: Time,
    /// The record in the names of OCSF 1.8; null once its content has expired.
    #[schemars(with = "Option<BTreeMap<String, Value>>")]
    record: Value,
    /// What its rows held, as strict masks, as long as what it erased can be put back.
    values: Vec<LoggedValues>,
}

/// What rows of a table held.
#[derive(Debug, Serialize, JsonSchema)]
struct LoggedValues {
    /// Store and table.
    table: String,
    /// `D` where they were deleted, `M` where they were modified.
    operation: String,
    /// The first rows, and the key of the last.
    #[serde(flatten)]
    values: TableValues,
}

impl Logged {
    fn of(entry: Entry) -> Self {
        let Entry { index, time, record, values, .. } = entry;
        let values = values.into_iter().map(|(table, operation, values)| LoggedValues { table, operation, values });
        Self { index, at: time.into(), record, values: values.collect() }
    }
}

/// Rows of a table as lines for people: `shop.orders 17: mobile 1********** → ******`.
fn lines_of(lang: Lang, (table, letter, values): &(String, String, TableValues)) -> Vec<String> {
    let line = |row: &RowValues| {
        let fields = row.before.iter().map(|(name, before)| {
            let after = row.after.as_ref().and_then(|after| after.get(name));
            after
                .filter(|after| *after != before)
                .map_or_else(|| format!("{name} {before}"), |after| format!("{name} {before} → {after}"))
        });
        let fields: Vec<String> = fields.collect();
        format!("  {table} {}: {}", row.key.join(", "), fields.join("; "))
    };
    let done = if letter == "D" { say(lang, "deleted", "已删除") } else { say(lang, "modified", "已修改") };
    let title = format!("{table}, {done}, … {}", values.last.join(", "));
    std::iter::once(title).chain(values.rows.iter().map(line)).collect()
}

/// The JSON of `log query`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct QueryDocument {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// The entries, oldest first.
    entries: Vec<Logged>,
}

impl Document for QueryDocument {
    const OF: &'static [&'static str] = &["log query"];
}

/// Shows entries; the look itself is logged.
pub async fn query(context: &mut Context<'_>, args: QueryArgs) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    let subject = match &args.customer {
        Some(_) => Some(read_subject(context)?),
        None => None,
    };
    let wanted = Query { subject, operation: args.operation, from: args.from, to: args.to };
    let found = find(&installation, &wanted).await.map_err(task_error)?;
    let output = &mut *context.output;
    let lang = output.lang();
    let titles = [
        ("no.", "序号"),
        ("time", "时间"),
        ("who", "操作人"),
        ("from", "来源"),
        ("operation", "操作"),
        ("on", "对象"),
        ("outcome", "结果"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(0);
    for entry in &found {
        let text = |pointer: &str| entry.record.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
        let address = entry.record.pointer("/src_endpoint/ip").or(entry.record.pointer("/src_endpoint/hostname"));
        let outcome = match entry.record["status_id"].as_i64() {
            Some(1) => say(lang, "done", "完成"),
            Some(2) => say(lang, "refused or failed", "被拒或失败"),
            Some(_) => say(lang, "begun", "开始"),
            None => say(lang, "content expired", "内容已过期"),
        };
        grid.row([
            entry.index.to_string(),
            local_time(&installation.config, entry.time),
            text("/actor/user/uid"),
            address.and_then(Value::as_str).unwrap_or("-").to_owned(),
            text("/api/operation"),
            text("/resources/0/uid"),
            outcome.to_owned(),
        ]);
    }
    if grid.is_empty() {
        output.say(&Words::new("no entry fits", "没有符合的条目"))?;
    } else {
        output.table(&grid)?;
    }
    let result = Outcome::of_list(found.is_empty());
    for values in found.iter().flat_map(|entry| &entry.values) {
        for line in lines_of(lang, values) {
            output.say(&Words::new(line.clone(), line))?;
        }
    }
    output.document(&QueryDocument { result, entries: found.into_iter().map(Logged::of).collect() })?;
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

/// Where to write.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct LogExportArgs {
    /// The file: one JSON object a line.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A folder of archives: a file for each month that is over and has none yet.
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
}

/// The JSON of `log export`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LogExportDocument {
    /// `complete`; `nothing-found` when no month is over that has no archive.
    result: Outcome,
    /// The file; null for archives.
    file: Option<PathBuf>,
    /// The archives that were written, oldest first; empty for a file.
    archives: Vec<PathBuf>,
    /// How many entries were written: into a file all of the log.
    entries: u64,
    /// Those whose content has expired; only their commitment is there.
    dropped: u64,
}

impl Document for LogExportDocument {
    const OF: &'static [&'static str] = &["log export"];
}

/// Writes the whole log, or months of it; each line can be checked against the log's tree.
pub async fn export(context: &mut Context<'_>, args: LogExportArgs) -> CommandResult {
    context.only_now()?;
    if let Some(folder) = args.archive {
        return export_archives(context, folder).await;
    }
    let file = args.output.unwrap_or_default();
    let installation = context.open(Needs::STATE).await?;
    let all = export_all(&installation).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let mut text = String::new();
    for entry in &all {
        text += &serde_json::to_string(&entry.archived()).map_err(|error| UserError::from_any(error.into()))?;
        text.push('\n');
    }
    write_all(&[(&file, text.as_bytes())])?;
    let (entries, dropped) = (all.len() as u64, all.iter().filter(|entry| entry.text.is_none()).count() as u64);
    let shown = file.display();
    context.output.say(&Words::new(format!("{shown}: {entries} entries"), format!("{shown}：{entries} 条")))?;
    let (result, archives) = (Outcome::Complete, Vec::new());
    context.output.document(&LogExportDocument { result, file: Some(file), archives, entries, dropped })?;
    Ok(Exit::Done)
}

async fn export_archives(context: &mut Context<'_>, folder: PathBuf) -> CommandResult {
    std::fs::create_dir_all(&folder).map_err(|error| unusable(&folder, &error))?;
    let there = archives_in(&folder)?;
    let installation = context.open(Needs::STATE).await?;
    let made = archive(&installation, &there).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let archives: Vec<PathBuf> = made.iter().map(|(name, _)| folder.join(name)).collect();
    let files: Vec<(&PathBuf, &[u8])> = archives.iter().zip(made.iter().map(|(_, text)| text.as_bytes())).collect();
    write_all(&files)?;
    let entries = made.iter().map(|(_, text)| text.lines().count().saturating_sub(1) as u64).sum();
    let dropped =
        made.iter().flat_map(|(_, text)| text.lines()).filter(|line| line.ends_with("\"record\":null}")).count();
    for path in &archives {
        let shown = path.display().to_string();
        context.output.say(&Words::new(shown.clone(), shown))?;
    }
    if archives.is_empty() {
        context.output.say(&Words::new("no month is over that has no archive", "没有尚未归档的完整月份"))?;
    }
    let result = Outcome::of_list(archives.is_empty());
    context.output.document(&LogExportDocument { result, file: None, archives, entries, dropped: dropped as u64 })?;
    Ok(Exit::Done)
}

/// The archives in a folder, in the order of their names.
pub(super) fn archives_in(folder: &Path) -> Result<Vec<ArchiveFile>, UserError> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).map_err(|error| unusable(folder, &error))?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with(ARCHIVE_NAME.0) && name.ends_with(ARCHIVE_NAME.1) {
            let bytes = std::fs::read(file.path()).map_err(|error| unusable(&file.path(), &error))?;
            found.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    found.sort();
    Ok(found)
}

fn unusable(path: &Path, error: &std::io::Error) -> UserError {
    let what = Words::new(format!("the archives cannot be read: {error}"), format!("无法读取归档：{error}"));
    UserError::new(Exit::Failed, "ARCHIVE", what)
        .at(path.display().to_string())
        .advise("name the folder with the archives", "请指定归档所在的文件夹")
}

/// Whether to do it.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Drop the contents; without it they are only counted.
    #[arg(long)]
    apply: bool,
}

/// The JSON of `log prune`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PruneDocument {
    /// `complete`; `nothing-found` when no entry is old enough.
    result: Outcome,
    /// Whether contents were dropped; otherwise they were only counted.
    applied: bool,
    /// Entries written before this time are old enough: three whole years.
    before: Time,
    /// Entries whose content was or would be dropped. Their commitments stay, so the log stays provable.
    dropped: u64,
    /// Entries that are old enough and stay because of a hold.
    held: u64,
    /// The holds in force.
    holds: Vec<String>,
    /// Entries that are old enough and stay because the incident that they are about was not closed three years ago.
    incidents: u64,
}

impl Document for PruneDocument {
    const OF: &'static [&'static str] = &["log prune"];
}

/// Drops what is old enough.
pub async fn prune(context: &mut Context<'_>, args: PruneArgs) -> CommandResult {
    if args.apply {
        context.only_now()?;
    }
    let installation = context.open(Needs { lease: args.apply, ..Needs::STATE }).await?;
    let pruned = prune_old(&installation, context.clock.now(), args.apply).await.map_err(task_error)?;
    let before = local_time(&installation.config, pruned.before);
    installation.close().await.map_err(task_error)?;
    let output = &mut *context.output;
    let (dropped, held) = (pruned.dropped, pruned.held);
    output.say(&if args.apply {
        Words::new(
            format!("the contents of {dropped} entries from before {before} are gone; their digests stay"),
            format!("{before} 之前的 {dropped} 条内容已删除；其摘要保留"),
        )
    } else {
        Words::new(
            format!("{dropped} entries from before {before} could go (with --apply); nothing was dropped"),
            format!("{before} 之前有 {dropped} 条可删除（加 --apply）；尚未删除"),
        )
    })?;
    if held > 0 {
        let holds = pruned.holds.join(", ");
        output.say(&Words::new(
            format!("{held} more stay while holds are in force: {holds}"),
            format!("另有 {held} 条因保留令而保留：{holds}"),
        ))?;
    }
    let incidents = pruned.incidents;
    if incidents > 0 {
        output.say(&Words::new(
            format!("{incidents} more stay: their incidents were not closed three years ago"),
            format!("另有 {incidents} 条因所属事件结案未满三年而保留"),
        ))?;
    }
    let result = if dropped + held + incidents == 0 { Outcome::NothingFound } else { Outcome::Complete };
    let (before, holds) = (pruned.before.into(), pruned.holds);
    output.document(&PruneDocument { result, applied: args.apply, before, dropped, held, holds, incidents })?;
    Ok(Exit::Done)
}
