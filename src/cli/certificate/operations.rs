//! `log query`, `log export` and `log prune`: the operation log for people who examine it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::super::CommandResult;
use super::super::context::{Context, local_time, task_error};
use super::super::hold::read_subject;
use super::super::output::shapes::Time;
use super::super::output::{Document, Exit, Grid, Outcome, Words, say};
use super::export::write_all;
use crate::installation::Needs;
use crate::tasks::oplog::{Entry, Query, export as export_all, prune as prune_old, query as find};

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
    let entries = found.into_iter().map(|Entry { index, time, record, .. }| Logged { index, at: time.into(), record });
    output.document(&QueryDocument { result, entries: entries.collect() })?;
    installation.close().await.map_err(task_error)?;
    Ok(Exit::Done)
}

/// Where to write.
#[derive(Debug, Args)]
pub struct LogExportArgs {
    /// The file: one JSON object a line.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// The JSON of `log export`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LogExportDocument {
    /// Always `complete`.
    result: Outcome,
    /// The file.
    file: PathBuf,
    /// How many entries it holds: all of the log.
    entries: u64,
    /// Those whose content has expired; only their commitment is there.
    dropped: u64,
}

impl Document for LogExportDocument {
    const OF: &'static [&'static str] = &["log export"];
}

/// A line of the exported file.
#[derive(Serialize)]
struct Line<'e> {
    index: u64,
    time: String,
    /// SHA-256(salt ‖ record), which the log's tree holds.
    commitment: &'e str,
    salt: Option<&'e str>,
    /// The record's text, byte for byte.
    record: Option<&'e str>,
}

/// Writes the whole log; each line can be checked against the log's tree.
pub async fn export(context: &mut Context<'_>, args: LogExportArgs) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs::STATE).await?;
    let all = export_all(&installation).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let mut text = String::new();
    for entry in &all {
        let line = Line {
            index: entry.index,
            time: crate::control::time_text(entry.time),
            commitment: &entry.commitment,
            salt: entry.salt.as_deref(),
            record: entry.text.as_deref(),
        };
        text +=
            &serde_json::to_string(&line).map_err(|error| super::super::output::UserError::from_any(error.into()))?;
        text.push('\n');
    }
    write_all(&[(&args.output, text.as_bytes())])?;
    let (entries, dropped) = (all.len() as u64, all.iter().filter(|entry| entry.text.is_none()).count() as u64);
    let shown = args.output.display();
    context.output.say(&Words::new(format!("{shown}: {entries} entries"), format!("{shown}：{entries} 条")))?;
    context.output.document(&LogExportDocument { result: Outcome::Complete, file: args.output, entries, dropped })?;
    Ok(Exit::Done)
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
    let result = if dropped + held == 0 { Outcome::NothingFound } else { Outcome::Complete };
    let (before, holds) = (pruned.before.into(), pruned.holds);
    output.document(&PruneDocument { result, applied: args.apply, before, dropped, held, holds })?;
    Ok(Exit::Done)
}
