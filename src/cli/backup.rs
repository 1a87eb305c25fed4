//! `backup …` and `restore`: snapshots into the bucket, and back into a database.

mod prune;
mod restore;
mod unneeded;
mod verify;

use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, local_time, task_error, usage};
use super::output::shapes::{FailedStore, SnapshotEntry};
use super::output::table::grouped;
use super::output::{Document, Exit, Grid, Outcome, Output, Progress, UserError, Words, say};
use crate::config::{Configuration, Endpoint};
use crate::control::SnapshotRow;
use crate::installation::{Installation, LEASE_SECONDS, Needs};
use crate::policy::registry::BackupMode;
use crate::tasks;
use crate::tasks::TaskError;
use crate::tasks::backup::{Wanted, WhyFull};
use crate::tasks::locks::take_and_lock;

pub use prune::{PruneArgs, PruneDocument};
pub use restore::{RestoreArgs, RestoreDocument, restore};
pub use unneeded::UnneededDocument;
pub use verify::VerifyDocument;

/// Digits of an id that tables show; JSON has the whole one.
const SHORT_ID: usize = 12;

/// Snapshots in the bucket.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Take a snapshot now, of every store that is backed up or of one: what changed since the newest one, or all.
    ///
    /// Without a store it does what the job `backup-nightly` does, with `--full` what `backup-full` does. A full snapshot is
    /// taken as well where the newest chain does not allow an increment; the reason is said.
    #[command(after_help = "Examples:\n  wangchuan backup run\n  wangchuan backup run shop --full")]
    Run {
        /// The store; otherwise all that are backed up.
        store: Option<String>,
        /// A full snapshot, the beginning of a new chain.
        #[arg(long)]
        full: bool,
    },
    /// The snapshots there are, oldest first.
    #[command(after_help = "Example:\n  wangchuan backup list")]
    List,
    /// Read everything back and check signatures, chain and digests; needs no decryption key.
    ///
    /// Stays good after keys were destroyed: what is checked is that nothing was lost or changed. Exit code 1 when something was.
    #[command(after_help = "Examples:\n  wangchuan backup verify\n  wangchuan backup verify shop --sample 10")]
    Verify {
        /// The store; otherwise all that have snapshots.
        store: Option<String>,
        /// Read only so many percent of the bytes: what was not read for longest. 10 reads everything in ten runs. Manifests are all
        /// read, and every object is looked for by name and length.
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
        sample: Option<u8>,
    },
    /// Let snapshots go that `keep` under [backup] does not keep. Without --now or --plan it only shows what would go, and why.
    ///
    /// A full snapshot and what depends on it go together. First their key is destroyed; then `backup unneeded` names their objects, or,
    /// with `prune = "delete"`, they are removed once their Object Lock has ended. The newest of a store never goes, nor what a hold, an
    /// erasure in grace, rows that must be kept or a running restore needs.
    #[command(
        after_help = "Examples:\n  wangchuan backup prune\n  wangchuan backup prune --plan 3f9a1c\n  wangchuan backup prune --now --store shop"
    )]
    Prune(PruneArgs),
    /// Name the objects in the bucket that nothing needs any more, one a line: old sealed state of the agent, and what is left of pruned
    /// snapshots. Nothing is removed.
    ///
    /// Removing is for a job of yours with a right of its own: the agent's credentials need no DELETE, and should not have it.
    #[command(after_help = "Example:\n  wangchuan backup unneeded | xargs -I% aws s3 rm s3://BUCKET/PREFIX/%")]
    Unneeded,
}

/// Opens an installation with its bucket. The embedded bucket belongs to whoever holds the lease, so that is taken too.
pub(super) async fn open_bucket(context: &Context<'_>) -> Result<Installation, UserError> {
    open_bucket_with(context, false).await
}

/// The same, with the stores if they are wanted.
pub(super) async fn open_bucket_with(context: &Context<'_>, stores: bool) -> Result<Installation, UserError> {
    let config = context.configuration()?;
    let is_embedded = config.backup.as_ref().is_some_and(|backup| matches!(backup.endpoint, Endpoint::Embedded { .. }));
    if is_embedded {
        // A lease taken at a pretended time would be wrong for everybody else.
        context.only_now()?;
    }
    let needs = Needs { stores, backup: true, audit: false, lease: is_embedded };
    let opened = Installation::open(config, needs, context.clock.clone(), context.random.clone()).await;
    has_bucket(opened.map_err(task_error)?.under(&context.stop)).await
}

/// Gives an installation back whose bucket cannot be reached: without it these commands have nothing to do.
async fn has_bucket(installation: Installation) -> Result<Installation, UserError> {
    let (true, Err(fault)) = (installation.config.backup.is_some(), installation.backup()) else {
        return Ok(installation);
    };
    // The fault is what to report.
    let _ = installation.close().await;
    Err(task_error(fault))
}

/// Does work that may last longer than the lease, renewing it meanwhile; ends with an error when another process took it.
pub(super) async fn while_renewing<T>(
    installation: &Installation,
    work: impl Future<Output = tasks::Result<T>>,
) -> tasks::Result<T> {
    let renewing = async {
        loop {
            tokio::time::sleep(Duration::from_secs(LEASE_SECONDS.unsigned_abs() / 4)).await;
            match installation.renew_lease().await {
                // A busy control database is no loss of the lease; there are more tries before it runs out.
                Err(error) if !error.is_retryable() => return error,
                Ok(()) | Err(_) => {}
            }
        }
    };
    tokio::select! {
        done = work => done,
        lost = renewing => Err(lost),
    }
}

/// The committed snapshots, oldest first.
pub(super) async fn snapshots(installation: &Installation) -> Result<Vec<SnapshotRow>, UserError> {
    let mut tx = installation.control.read().await.map_err(|error| task_error(error.into()))?;
    tx.snapshots(None).await.map_err(|error| task_error(error.into()))
}

/// The snapshot that a command names by the beginning of its id, or the newest one of a store; with neither, the newest of the
/// only store that has any.
pub(super) fn choose<'r>(
    rows: &'r [SnapshotRow],
    id: Option<&str>,
    store: Option<&str>,
) -> Result<&'r SnapshotRow, UserError> {
    let unknown = |en: String, zh: String| {
        usage("SNAPSHOT_UNKNOWN", &en, &zh).advise("see `wangchuan backup list`", "请看 `wangchuan backup list`")
    };
    if let Some(id) = id {
        let wanted = id.to_ascii_lowercase();
        let of_store = |row: &&SnapshotRow| store.is_none_or(|store| row.store == store);
        let mut found = rows.iter().filter(of_store).filter(|row| !wanted.is_empty() && row.id.starts_with(&wanted));
        return match (found.next(), found.next()) {
            (Some(row), None) => Ok(row),
            (Some(_), Some(_)) => {
                Err(unknown(format!("several snapshots begin with {id}"), format!("有多个快照以 {id} 开头")))
            }
            _ => Err(unknown(format!("no snapshot begins with {id}"), format!("没有以 {id} 开头的快照"))),
        };
    }
    let all: Vec<&SnapshotRow> = rows.iter().collect();
    newest(&all, store)?.ok_or_else(|| match store {
        Some(store) => unknown(format!("store {store} has no snapshot"), format!("数据源 {store} 没有快照")),
        None => unknown("there is no snapshot yet".to_owned(), "还没有快照".to_owned()),
    })
}

/// The newest one of a store, or of the only store that has any.
fn newest<'r>(rows: &[&'r SnapshotRow], store: Option<&str>) -> Result<Option<&'r SnapshotRow>, UserError> {
    let mut found = rows.iter().rev().filter(|row| store.is_none_or(|store| row.store == store)).copied();
    let Some(last) = found.next() else { return Ok(None) };
    if found.any(|row| row.store != last.store) {
        let error = usage("WHICH_STORE", "several stores have snapshots", "多个数据源都有快照");
        return Err(error.advise("name one with --store", "请用 --store 指定一个"));
    }
    Ok(Some(last))
}

/// The snapshot with this id, or the newest one that was begun by a time.
fn choose_at<'r>(
    rows: &'r [SnapshotRow],
    (id, as_of): (Option<&str>, Option<DateTime<Utc>>),
    store: Option<&str>,
) -> Result<&'r SnapshotRow, UserError> {
    let Some(time) = as_of else { return choose(rows, id, store) };
    let by_then: Vec<&SnapshotRow> = rows.iter().filter(|row| row.begun_at <= time).collect();
    newest(&by_then, store)?.ok_or_else(|| {
        usage("SNAPSHOT_UNKNOWN", "no snapshot is as old as that", "没有那么早的快照").advise(
            "see when they were begun: `wangchuan backup list`",
            "请看各快照的开始时间：`wangchuan backup list`",
        )
    })
}

/// The newest snapshot of every store.
pub(super) fn newest_of_each<'r>(rows: impl DoubleEndedIterator<Item = &'r SnapshotRow>) -> Vec<&'r SnapshotRow> {
    let mut newest: Vec<&SnapshotRow> = Vec::new();
    for row in rows.rev() {
        if !newest.iter().any(|known| known.store == row.store) {
            newest.push(row);
        }
    }
    newest.reverse();
    newest
}

/// `backup …`.
pub async fn backup(context: &mut Context<'_>, command: BackupCommand) -> CommandResult {
    match command {
        BackupCommand::Run { store, full } => run(context, store.as_deref(), full).await,
        BackupCommand::List => list(context).await,
        BackupCommand::Verify { store, sample } => verify::verify(context, store.as_deref(), sample).await,
        BackupCommand::Prune(args) => prune::prune_backups(context, args).await,
        BackupCommand::Unneeded => unneeded::unneeded(context).await,
    }
}

/// The JSON of `backup run`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RunDocument {
    /// `complete`, `partial` with exit code 4, `failed`, or `nothing-found` when no store is backed up.
    result: Outcome,
    /// The snapshots taken.
    snapshots: Vec<SnapshotEntry>,
    /// Stores without a new snapshot.
    failed_stores: Vec<FailedStore>,
}

impl Document for RunDocument {
    const OF: &'static [&'static str] = &["backup run"];
}

/// The stores a `backup run` is for.
fn stores_to_back_up(config: &Configuration, store: Option<&str>) -> Result<Vec<String>, UserError> {
    let stores = &config.registry.stores;
    let Some(name) = store else {
        let backed_up = stores.iter().filter(|store| store.backup == BackupMode::Bucket);
        return Ok(backed_up.map(|store| store.name.clone()).collect());
    };
    match stores.iter().find(|store| store.name == name) {
        Some(store) if store.backup == BackupMode::Bucket => Ok(vec![store.name.clone()]),
        Some(_) => {
            let (en, zh) =
                (format!("store {name} says `backup = \"none\"`"), format!("数据源 {name} 写着 `backup = \"none\"`"));
            Err(usage("NOT_BACKED_UP", &en, &zh).advise(
                "remove that line from the configuration to have it backed up",
                "若要备份，请从配置中去掉这一行",
            ))
        }
        None => {
            let (en, zh) = (format!("store {name} is not registered"), format!("数据源 {name} 没有登记"));
            Err(usage("STORE_UNKNOWN", &en, &zh).advise("see `wangchuan store list`", "请看 `wangchuan store list`"))
        }
    }
}

async fn run(context: &mut Context<'_>, store: Option<&str>, full: bool) -> CommandResult {
    context.only_now()?;
    let config = context.configuration()?;
    let names = stores_to_back_up(&config, store)?;
    let needs = Needs { stores: true, backup: true, audit: false, lease: true };
    let opened = Installation::open(config, needs, context.clock.clone(), context.random.clone()).await;
    let installation = has_bucket(opened.map_err(task_error)?.under(&context.stop)).await?;
    let mut progress = Progress::on_stderr(context.lang(), names.len());
    let (mut taken, mut failed) = (Vec::new(), Vec::new());
    for name in &names {
        progress.step(&format!("{} {name}", say(context.lang(), "snapshot of", "快照")));
        match take(&installation, name, full).await {
            Ok((row, unlocked)) => {
                progress.done(&format!("{} {}", grouped(row.rows.unsigned_abs()), say(context.lang(), "rows", "行")));
                taken.push(row);
                if let Some(error) = unlocked {
                    let (what, retry) = (error.with_causes(), error.is_retryable());
                    failed.push(FailedStore { store: name.clone(), what, retry });
                }
            }
            Err(error) => {
                let skipped = installation.skipped().iter().find(|(skipped, _)| skipped == name);
                let retry = skipped.is_some() || error.is_retryable();
                let what = skipped.map_or_else(|| error.to_string(), |(_, reason)| reason.clone());
                let what = what.strip_prefix(&format!("store {name}: ")).unwrap_or(&what).to_owned();
                failed.push(FailedStore { store: name.clone(), what, retry });
            }
        }
    }
    drop(progress);
    let exit = show_run(context.output, &installation.config, &taken, failed)?;
    installation.close().await.map_err(task_error)?;
    Ok(exit)
}

async fn take(installation: &Installation, store: &str, full: bool) -> tasks::Result<(SnapshotRow, Option<TaskError>)> {
    let wanted = if full { Wanted::Full } else { Wanted::increment(&installation.config) };
    while_renewing(installation, take_and_lock(installation, store, wanted)).await
}

fn show_run(
    output: &mut Output,
    config: &Configuration,
    taken: &[SnapshotRow],
    failed: Vec<FailedStore>,
) -> CommandResult {
    let (result, exit) = match (taken.is_empty(), failed.is_empty()) {
        (true, true) => (Outcome::NothingFound, Exit::Done),
        (false, true) => (Outcome::Complete, Exit::Done),
        (false, false) => (Outcome::Partial, Exit::Partial),
        (true, false) => (Outcome::Failed, Exit::Failed),
    };
    if result == Outcome::NothingFound {
        output.say(&Words::new("no registered store is backed up", "没有需要备份的数据源"))?;
    }
    show_snapshots(output, config, taken)?;
    for row in taken {
        if let Some(why) = row.why_full.as_deref().and_then(WhyFull::of_code) {
            output.say(&why_full(&row.store, why))?;
        }
    }
    for store in &failed {
        let FailedStore { store, what, .. } = store;
        let is_taken = taken.iter().any(|row| row.store == *store);
        output.say(&if is_taken {
            Words::new(
                format!("✗ earlier objects of the chain of store {store} are not locked as long: {what}"),
                format!("✗ 数据源 {store} 快照链中较早的对象未能延长锁定：{what}"),
            )
        } else {
            Words::new(format!("✗ no snapshot of store {store}: {what}"), format!("✗ 数据源 {store} 没有快照：{what}"))
        })?;
    }
    let snapshots = taken.iter().map(SnapshotEntry::of).collect();
    output.document(&RunDocument { result, snapshots, failed_stores: failed })?;
    Ok(exit)
}

/// Why a full snapshot was taken where an increment was asked for.
fn why_full(store: &str, why: WhyFull) -> Words {
    let (en, zh) = match why {
        WhyFull::First => ("it is the first", "这是第一个快照"),
        WhyFull::SchemaChanged => ("its tables changed", "表结构有变化"),
        WhyFull::LayoutChanged => {
            ("collections, policies, classification or paths changed", "登记的集合、策略、分类或归属路径有变化")
        }
        WhyFull::IndexLost => ("there is no change index of the newest one", "最新快照的变更索引不存在"),
        WhyFull::ChainEnding => {
            ("the key of the newest chain is gone or to be destroyed", "最新备份链的密钥已销毁或将销毁")
        }
        WhyFull::ChainMissing => {
            ("a snapshot of the newest chain is not in the bucket", "最新备份链中有快照不在存储桶里")
        }
        WhyFull::ChainDamaged => ("the newest chain was found damaged", "最新备份链已发现损坏"),
        WhyFull::ChainLong => {
            ("the newest chain is as long as `backup.chain` allows", "最新备份链已达到 `backup.chain` 规定的长度")
        }
        WhyFull::ChainOld => {
            ("the newest chain is as old as `backup.chain` allows", "最新备份链已达到 `backup.chain` 规定的期限")
        }
    };
    Words::new(
        format!("store {store}: a full snapshot, because {en}"),
        format!("数据源 {store}：做了全量快照，因为{zh}"),
    )
}

fn show_snapshots(output: &mut Output, config: &Configuration, rows: &[SnapshotRow]) -> Result<(), UserError> {
    if rows.is_empty() {
        return Ok(());
    }
    let lang = output.lang();
    let titles = [
        ("store", "数据源"),
        ("snapshot", "快照"),
        ("kind", "类型"),
        ("chain", "备份链"),
        ("continues", "接续"),
        ("begun", "开始时间"),
        ("rows sealed", "封存行数"),
        ("of rows", "全部行数"),
        ("bytes stored", "存储字节"),
    ];
    let short = |id: &str| id.chars().take(SHORT_ID).collect::<String>();
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(6).right(7).right(8);
    for row in rows {
        grid.row([
            row.store.clone(),
            short(&row.id),
            row.kind.clone(),
            short(&row.begins_with),
            row.parent.as_deref().map(short).unwrap_or_default(),
            local_time(config, row.begun_at),
            grouped(row.rows.unsigned_abs()),
            grouped(row.living.unsigned_abs()),
            grouped(row.bytes.unsigned_abs()),
        ]);
    }
    output.table(&grid)?;
    Ok(())
}

/// The JSON of `backup list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListDocument {
    /// `complete` or `nothing-found`.
    result: Outcome,
    /// The snapshots, oldest first.
    snapshots: Vec<SnapshotEntry>,
}

impl Document for ListDocument {
    const OF: &'static [&'static str] = &["backup list"];
}

async fn list(context: &mut Context<'_>) -> CommandResult {
    let (config, control) = context.control().await?;
    let mut tx = control.read().await.map_err(|error| task_error(error.into()))?;
    let rows = tx.snapshots(None).await.map_err(|error| task_error(error.into()))?;
    drop(tx);
    control.close().await;
    if rows.is_empty() {
        context.output.say(&Words::new(
            "there is no snapshot yet; `wangchuan backup run` takes one",
            "还没有快照；`wangchuan backup run` 可以做一个",
        ))?;
    }
    show_snapshots(context.output, &config, &rows)?;
    let result = Outcome::of_list(rows.is_empty());
    context.output.document(&ListDocument { result, snapshots: rows.iter().map(SnapshotEntry::of).collect() })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
