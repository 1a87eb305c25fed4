//! `drill …`: restore tests with a kept, signed record.

use clap::Subcommand;
use serde::Serialize;

use super::CommandResult;
use super::backup::{choose, newest_of_each, open_bucket, snapshots, while_renewing};
use super::context::{Context, local_time, task_error, usage};
use super::output::table::grouped;
use super::output::{Exit, Grid, Output, UserError, Words, say};
use crate::certify::dsse::Envelope;
use crate::certify::signer::TrustedKeys;
use crate::config::Configuration;
use crate::control::{DrillRow, time_text};
use crate::installation::{Installation, Needs, state_folder};
use crate::tasks::drill::{DrillRecord, RECORD_TYPE, run_drill};

/// Restore tests with a kept, signed record.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Restore into a private scratch database, check it, wipe it, and sign what was found.
    ///
    /// Also tries to open what was shredded with every key there is. Without options the newest snapshot of every store is drilled.
    /// Exit code 1 when a drill failed.
    Run {
        /// The newest snapshot of this store.
        #[arg(long, value_name = "STORE")]
        store: Option<String>,
        /// This snapshot, by the beginning of its id (`wangchuan backup list`).
        #[arg(long, value_name = "ID")]
        snapshot: Option<String>,
    },
    /// All drills, oldest first; every record's signature is checked.
    List,
    /// One drill's record; its signature is checked.
    Show {
        /// Its id or the beginning of it; `latest` for the newest.
        #[arg(default_value = "latest")]
        id: String,
    },
}

/// `drill …`.
pub async fn drill(context: &mut Context<'_>, command: DrillCommand) -> CommandResult {
    match command {
        DrillCommand::Run { store, snapshot } => run(context, store.as_deref(), snapshot.as_deref()).await,
        DrillCommand::List => list(context).await,
        DrillCommand::Show { id } => show(context, &id).await,
    }
}

/// The worst of all drills of one call, and each of them.
#[derive(Debug, Serialize)]
struct RunDocument<'r> {
    result: &'static str,
    drill: Option<&'r str>,
    rto_seconds: f64,
    rpo_seconds: i64,
    erased_reappeared: u64,
    drills: Vec<RunDrill<'r>>,
}

/// A record with its numbers named. The record itself is shown by `drill show`, as it was signed.
#[derive(Debug, Serialize)]
struct RunDrill<'r> {
    drill: &'r str,
    result: &'r str,
    store: &'r str,
    snapshot: &'r str,
    rto_seconds: f64,
    rpo_seconds: i64,
    erased_reappeared: u64,
    frames: Frames,
    collections: Vec<DrilledCollection<'r>>,
    frames_tried: u64,
    keys_tried: u64,
    resurrected: u64,
    problems: &'r [String],
    cleaned_up: bool,
}

#[derive(Debug, Serialize)]
struct Frames {
    opened: u64,
    shredded: u64,
    lost: u64,
    corrupt: u64,
    total: u64,
}

#[derive(Debug, Serialize)]
struct DrilledCollection<'r> {
    store: &'r str,
    collection: &'r str,
    restored: u64,
    shredded: u64,
    erased_since: u64,
    stubs: u64,
}

impl<'r> RunDrill<'r> {
    fn of(record: &'r DrillRecord) -> Self {
        let [opened, shredded, lost, corrupt, total] = record.frames;
        let [frames_tried, keys_tried] = record.tried;
        let collection = |(name, restored, shredded, erased_since, stubs): &'r (String, u64, u64, u64, u64)| {
            let (restored, shredded, erased_since, stubs) = (*restored, *shredded, *erased_since, *stubs);
            DrilledCollection { store: &record.store, collection: name, restored, shredded, erased_since, stubs }
        };
        Self {
            drill: &record.drill,
            result: &record.result,
            store: &record.store,
            snapshot: &record.snapshot,
            rto_seconds: record.rto_seconds,
            rpo_seconds: record.rpo_seconds,
            erased_reappeared: record.erased_reappeared,
            frames: Frames { opened, shredded, lost, corrupt, total },
            collections: record.collections.iter().map(collection).collect(),
            frames_tried,
            keys_tried,
            resurrected: record.resurrected,
            problems: &record.problems,
            cleaned_up: record.cleaned_up,
        }
    }
}

impl<'r> RunDocument<'r> {
    fn of(records: &'r [DrillRecord]) -> Self {
        let failed = records.iter().find(|record| record.result != "passed");
        let result = match (failed, records) {
            (Some(_), _) => "failed",
            (None, []) => "nothing-found",
            (None, _) => "passed",
        };
        Self {
            result,
            drill: failed.or(records.last()).map(|record| record.drill.as_str()),
            rto_seconds: records.iter().map(|record| record.rto_seconds).fold(0.0, f64::max),
            rpo_seconds: records.iter().map(|record| record.rpo_seconds).max().unwrap_or(0),
            erased_reappeared: records.iter().map(|record| record.erased_reappeared).sum(),
            drills: records.iter().map(RunDrill::of).collect(),
        }
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
    let mut records = Vec::new();
    for row in wanted {
        let done = while_renewing(&installation, run_drill(&installation, row.clone())).await;
        records.push(done.map_err(task_error)?);
    }
    let document = RunDocument::of(&records);
    if records.is_empty() {
        context.output.say(&Words::new("there is no snapshot to drill with", "没有可以演练的快照"))?;
    }
    for record in &records {
        show_record(context.output, &installation.config, record)?;
    }
    context.output.document(&document)?;
    let exit = if document.result == "failed" { Exit::Failed } else { Exit::Done };
    installation.close().await.map_err(task_error)?;
    Ok(exit)
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
        let folder = state_folder(config);
        output.say(&Words::new(
            format!("✗ the scratch database in {} could not be wiped; remove it by hand", folder.display()),
            format!("✗ {} 中的临时数据库未能清除，请手工删除", folder.display()),
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

/// A stored drill, read and checked.
#[derive(Debug, Serialize)]
struct CheckedDrill {
    drill: String,
    result: &'static str,
    store: String,
    snapshot: String,
    at: String,
    /// `valid` or `invalid`.
    signature: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
    rto_seconds: Option<f64>,
    rpo_seconds: Option<i64>,
    erased_reappeared: Option<u64>,
    #[serde(skip)]
    record: Option<DrillRecord>,
}

/// Reads a stored record from the very bytes whose signature was checked.
fn check_record(row: &DrillRow, trusted: &TrustedKeys) -> Result<DrillRecord, &'static str> {
    let envelope = Envelope::parse(&row.record).map_err(|_| "the record is no signed envelope")?;
    if envelope.payload_type() != RECORD_TYPE {
        return Err("the envelope holds something else than a drill record");
    }
    let key = trusted.get(envelope.key_id()).ok_or("the record is signed by a key that is not trusted")?;
    if !key.verifies(&envelope.signed_bytes(), envelope.signature()) {
        return Err("the record was changed: its signature does not fit");
    }
    let record: DrillRecord =
        serde_json::from_slice(envelope.payload()).map_err(|_| "the signed record cannot be read")?;
    let passed = record.result == "passed";
    if record.drill != row.id || passed != row.passed || record.snapshot != row.snapshot {
        return Err("the control database says something else than the signed record");
    }
    Ok(record)
}

impl CheckedDrill {
    fn of(row: &DrillRow, trusted: &TrustedKeys) -> Self {
        let checked = check_record(row, trusted);
        let problem = checked.as_ref().err().copied();
        let record = checked.ok();
        Self {
            drill: row.id.clone(),
            // What is not signed for did not pass.
            result: if row.passed && problem.is_none() { "passed" } else { "failed" },
            store: row.store.clone(),
            snapshot: row.snapshot.clone(),
            at: time_text(row.at),
            signature: if problem.is_none() { "valid" } else { "invalid" },
            problem,
            rto_seconds: record.as_ref().map(|record| record.rto_seconds),
            rpo_seconds: record.as_ref().map(|record| record.rpo_seconds),
            erased_reappeared: record.as_ref().map(|record| record.erased_reappeared),
            record,
        }
    }
}

async fn stored(context: &Context<'_>) -> Result<(Installation, Vec<DrillRow>), UserError> {
    let installation = context.open(Needs::STATE).await?;
    let mut tx = installation.control.read().await.map_err(|error| task_error(error.into()))?;
    let rows = tx.drills().await.map_err(|error| task_error(error.into()))?;
    drop(tx);
    Ok((installation, rows))
}

#[derive(Serialize)]
struct ListDocument {
    result: &'static str,
    drills: Vec<CheckedDrill>,
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
        let (when, result) = (local_time(&installation.config, row.at), verdict(output, drill.result == "passed"));
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
        (true, _) => "nothing-found",
        (false, true) => "complete",
        (false, false) => "failed",
    };
    output.document(&ListDocument { result, drills })?;
    installation.close().await.map_err(task_error)?;
    Ok(if is_good { Exit::Done } else { Exit::Failed })
}

#[derive(Serialize)]
struct ShowDocument<'d> {
    #[serde(flatten)]
    drill: &'d CheckedDrill,
    record: Option<&'d DrillRecord>,
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
    context.output.document(&ShowDocument { drill: &drill, record: drill.record.as_ref() })?;
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
