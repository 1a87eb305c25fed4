//! `backup prune`: what the retention of backups lets go. Shown, and done only when that is asked for.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, local_time, task_error, usage};
use super::super::output::shapes::Time;
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Grid, Lang, Outcome, Output, UserError, Words, say};
use super::{SHORT_ID, has_bucket};
use crate::config::{Configuration, PruneMode};
use crate::control::PrunedChain;
use crate::installation::{Installation, Needs};
use crate::policy::keep::Stays;
use crate::tasks;
use crate::tasks::certify::certify_or_wait;
use crate::tasks::prune::{ChainVerdict, PrunePlan, PruneReport, plan_prune, prune};

/// Digits of a hash that people are shown, and at least so many must be given.
const HASH_DIGITS: usize = 12;
const FEWEST_DIGITS: usize = 6;

/// Arguments of `backup prune`.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// Only this store.
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    /// Do what would be shown.
    #[arg(long, conflicts_with = "plan")]
    now: bool,
    /// Do exactly what was shown with this hash (its first digits, six at least), or nothing.
    #[arg(long, value_name = "HASH")]
    plan: Option<String>,
}

/// The JSON of `backup prune`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PruneDocument {
    /// `complete`, `nothing-found` when nothing goes, `partial` (exit code 4) when something that should be gone is not.
    result: Outcome,
    /// Whether it was only shown what would go.
    preview: bool,
    /// A digest of what goes, for `--plan`.
    hash: String,
    /// Every chain of snapshots, by store, oldest first.
    chains: Vec<ChainEntry>,
    /// Chains whose key was destroyed now.
    destroyed: Vec<PrunedEntry>,
    /// Chains whose key dies with a later change of keys.
    waiting: Vec<PrunedEntry>,
    /// Chains without a key, of which objects are still there.
    objects_left: Vec<PrunedEntry>,
    /// Objects removed and read back as gone.
    objects_removed: u64,
    /// The new key generation.
    generation: Option<i64>,
    /// Runs whose rows no key opens any more, because their last chain died.
    shredded_runs: Vec<String>,
    /// Stores of which nothing goes, because their newest snapshot could not be read back whole.
    unproven: Vec<Unproven>,
    /// The certificates issued now.
    certificates: Vec<String>,
}

impl Document for PruneDocument {
    const OF: &'static [&'static str] = &["backup prune"];
}

/// A chain, and what becomes of it.
#[derive(Debug, Serialize, JsonSchema)]
struct ChainEntry {
    /// The store.
    store: String,
    /// Its number.
    chain: u32,
    /// Ids of its snapshots, oldest first.
    snapshot_ids: Vec<String>,
    /// When the last of them was begun.
    newest: Option<Time>,
    /// Bytes stored.
    bytes_stored: i64,
    /// Why it stays; empty when it goes.
    stays: Vec<Stays>,
    /// Until when Object Lock keeps its objects, by the configuration.
    locked_until: Option<Time>,
}

impl ChainEntry {
    fn of(chain: &ChainVerdict) -> Self {
        Self {
            store: chain.store.clone(),
            chain: chain.chain,
            snapshot_ids: chain.snapshots.iter().map(|row| row.id.clone()).collect(),
            newest: chain.snapshots.last().map(|row| Time::from(row.begun_at)),
            bytes_stored: chain.bytes(),
            stays: chain.stays.iter().copied().collect(),
            locked_until: chain.locked_until.map(Time::from),
        }
    }
}

/// A chain that is not kept any more.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct PrunedEntry {
    /// The store.
    store: String,
    /// Its number.
    chain: u32,
    /// Snapshots in it.
    snapshot_count: i64,
    /// Their bytes.
    bytes_stored: i64,
    /// When its key was read back as gone.
    destroyed_at: Option<Time>,
    /// Until when the server keeps objects of it.
    locked_until: Option<Time>,
    /// Why objects of it are still there, where removing them was tried.
    what: Option<String>,
}

impl PrunedEntry {
    fn of(chain: &PrunedChain) -> Self {
        Self {
            store: chain.store.clone(),
            chain: chain.chain,
            snapshot_count: chain.snapshots,
            bytes_stored: chain.bytes,
            destroyed_at: chain.destroyed_at.map(Time::from),
            locked_until: chain.locked_until.map(Time::from),
            what: None,
        }
    }
}

/// A store of which nothing goes.
#[derive(Debug, Serialize, JsonSchema)]
struct Unproven {
    /// The store.
    store: String,
    /// Why its newest snapshot does not count as proven.
    what: String,
}

/// `backup prune`.
pub async fn prune_backups(context: &mut Context<'_>, args: PruneArgs) -> CommandResult {
    let config = context.configuration()?;
    let stores = wanted(&config, args.store)?;
    if config.backup.is_none() {
        let what = Words::new("no backup is configured", "没有配置备份");
        return Err(UserError::new(Exit::Usage, "NO_BACKUP", what)
            .advise("add a [backup] section to the configuration", "请在配置中加入 [backup] 一节"));
    }
    if !args.now && args.plan.is_none() {
        let installation = context.open(Needs::STATE).await?;
        let plan = plan_prune(&installation, &stores).await.map_err(task_error)?;
        let document = PruneDocument::preview(&plan);
        show_plan(context.output, &installation.config, &plan)?;
        context.output.document(&document)?;
        installation.close().await.map_err(task_error)?;
        return Ok(Exit::Done);
    }
    context.only_now()?;
    let installation = has_bucket(context.open(Needs::ALL).await?).await?;
    let plan = plan_prune(&installation, &stores).await.map_err(task_error)?;
    if let Some(given) = &args.plan {
        check_hash(given, &plan)?;
    }
    let report = prune(&installation, &stores, &plan).await.map_err(task_error)?;
    let (certificates, waiting) = certify_or_wait(&installation).await.map_err(task_error)?;
    if let Some(reason) = waiting {
        tracing::warn!("{reason}");
    }
    let left = left_now(&installation, &stores).await.map_err(task_error)?;
    let document = PruneDocument::done(&plan, report, &left, certificates);
    show_done(context.output, &installation.config, &document)?;
    context.output.document(&document)?;
    installation.close().await.map_err(task_error)?;
    Ok(if document.result == Outcome::Partial { Exit::Partial } else { Exit::Done })
}

fn wanted(config: &Configuration, store: Option<String>) -> Result<Vec<String>, UserError> {
    let known: Vec<&str> = config.registry.stores.iter().map(|store| store.name.as_str()).collect();
    if let Some(name) = store.as_deref().filter(|name| !known.contains(name)) {
        let (en, zh) = (format!("store {name} is not registered"), format!("数据源 {name} 没有登记"));
        return Err(
            usage("STORE_UNKNOWN", &en, &zh).advise("see `wangchuan store list`", "请看 `wangchuan store list`")
        );
    }
    Ok(store.into_iter().collect())
}

fn check_hash(given: &str, plan: &PrunePlan) -> Result<(), UserError> {
    if given.len() >= FEWEST_DIGITS && plan.hash.starts_with(&given.to_ascii_lowercase()) {
        return Ok(());
    }
    let what = Words::new("what would go now is not what was shown with that hash", "现在要清理的与该哈希所示不同");
    Err(UserError::new(Exit::Refused, "PLAN_CHANGED", what)
        .advise("look at `wangchuan backup prune` again", "请重新查看 `wangchuan backup prune`"))
}

async fn left_now(installation: &Installation, stores: &[String]) -> tasks::Result<Vec<PrunedChain>> {
    Ok(plan_prune(installation, stores).await?.left)
}

impl PruneDocument {
    fn preview(plan: &PrunePlan) -> Self {
        Self {
            result: Outcome::of_list(plan.going().next().is_none() && plan.waiting.is_empty()),
            preview: true,
            hash: plan.hash.clone(),
            chains: plan.chains.iter().map(ChainEntry::of).collect(),
            destroyed: Vec::new(),
            waiting: plan.waiting.iter().map(PrunedEntry::of).collect(),
            objects_left: plan.left.iter().map(PrunedEntry::of).collect(),
            objects_removed: 0,
            generation: None,
            shredded_runs: Vec::new(),
            unproven: Vec::new(),
            certificates: Vec::new(),
        }
    }

    fn done(plan: &PrunePlan, report: PruneReport, left: &[PrunedChain], certificates: Vec<String>) -> Self {
        let result = match (report.is_well(), report.destroyed.is_empty() && report.objects_removed == 0) {
            (false, _) => Outcome::Partial,
            (true, true) if report.waiting.is_empty() => Outcome::NothingFound,
            (true, _) => Outcome::Complete,
        };
        let entry = |chain: &PrunedChain| {
            let why = report.left.iter().find(|(other, _)| other.chain == chain.chain);
            PrunedEntry { what: why.map(|(_, what)| what.clone()), ..PrunedEntry::of(chain) }
        };
        Self {
            result,
            preview: false,
            destroyed: report.destroyed.iter().map(PrunedEntry::of).collect(),
            waiting: report.waiting.iter().map(PrunedEntry::of).collect(),
            objects_left: left.iter().map(entry).collect(),
            objects_removed: report.objects_removed,
            generation: report.shred.generation,
            unproven: report.unproven.into_iter().map(|(store, what)| Unproven { store, what }).collect(),
            shredded_runs: report.shred.shredded,
            certificates,
            ..Self::preview(plan)
        }
    }
}

/// Why a chain stays, in words.
fn reason(lang: Lang, why: Stays) -> &'static str {
    let (en, zh) = match why {
        Stays::NoRule => ("no rule", "未设规则"),
        Stays::Newest => ("newest", "最新"),
        Stays::NewestProven => ("newest drilled", "最近一次演练通过"),
        Stays::Last => ("last", "最近若干个"),
        Stays::Days => ("days", "最近若干天"),
        Stays::Daily => ("daily", "每日"),
        Stays::Weekly => ("weekly", "每周"),
        Stays::Monthly => ("monthly", "每月"),
        Stays::Yearly => ("yearly", "每年"),
        Stays::Hold => ("legal hold", "法律保留"),
        Stays::Pin => ("rows that must be kept", "含须保留的行"),
        Stays::Grace => ("grace of an erasure", "删除宽限期"),
        Stays::OpenRun => ("unfinished run", "运行未完成"),
        Stays::InUse => ("being read", "正在读取"),
    };
    say(lang, en, zh)
}

fn show_plan(output: &mut Output, config: &Configuration, plan: &PrunePlan) -> Result<(), UserError> {
    let lang = output.lang();
    let titles = [
        ("store", "数据源"),
        ("newest snapshot", "最新快照"),
        ("begun", "开始时间"),
        ("snapshots", "快照数"),
        ("bytes stored", "存储字节"),
        ("what becomes of it", "处理"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(3).right(4);
    for chain in &plan.chains {
        let Some(newest) = chain.snapshots.last() else { continue };
        let fate = if chain.goes() {
            match chain.locked_until {
                Some(until) => {
                    let until = local_time(config, until);
                    say(lang, "goes; objects locked until ", "清理；对象锁定至 ").to_owned() + &until
                }
                None => say(lang, "goes", "清理").to_owned(),
            }
        } else {
            let reasons: Vec<&str> = chain.stays.iter().map(|why| reason(lang, *why)).collect();
            format!("{}{}", say(lang, "stays: ", "保留："), reasons.join(say(lang, ", ", "、")))
        };
        grid.row([
            chain.store.clone(),
            newest.id.chars().take(SHORT_ID).collect(),
            local_time(config, newest.begun_at),
            chain.snapshots.len().to_string(),
            grouped(chain.bytes().unsigned_abs()),
            fate,
        ]);
    }
    if plan.chains.is_empty() {
        output.say(&Words::new("there is no snapshot yet", "还没有快照"))?;
    } else {
        output.table(&grid)?;
    }
    show_left(output, config, plan.left.iter().map(PrunedEntry::of))?;
    show_waiting(output, plan.waiting.iter().map(PrunedEntry::of))?;
    let count = plan.going().count();
    if count == 0 {
        return Ok(output.say(&Words::new("Nothing goes.", "没有需要清理的快照。"))?);
    }
    let hash = &plan.hash[..HASH_DIGITS];
    Ok(output.say(&Words::new(
        format!("{count} chains go: no key will open them any more. To do it: wangchuan backup prune --plan {hash}"),
        format!("将清理 {count} 条快照链，之后没有密钥可以打开。执行：wangchuan backup prune --plan {hash}"),
    ))?)
}

fn show_waiting(output: &mut Output, waiting: impl Iterator<Item = PrunedEntry>) -> Result<(), UserError> {
    for PrunedEntry { chain, store, .. } in waiting {
        output.say(&Words::new(
            format!("chain {chain} of store {store} waits for the next change of keys"),
            format!("数据源 {store} 的快照链 {chain} 等待下次更换密钥"),
        ))?;
    }
    Ok(())
}

fn show_left(
    output: &mut Output,
    config: &Configuration,
    left: impl Iterator<Item = PrunedEntry>,
) -> Result<(), UserError> {
    let removes = config.backup.as_ref().is_some_and(|backup| backup.prune == PruneMode::Delete);
    for chain in left {
        let (number, store, bytes) = (chain.chain, &chain.store, grouped(chain.bytes_stored.unsigned_abs()));
        let (en, zh) = match (&chain.locked_until, &chain.what) {
            (Some(until), _) => {
                let until = local_time(config, until.instant());
                (format!("locked until {until}"), format!("锁定至 {until}"))
            }
            (None, Some(what)) => (what.clone(), what.clone()),
            (None, None) if removes => {
                ("the next prune removes its objects".to_owned(), "下次清理时删除其对象".to_owned())
            }
            (None, None) => (
                "its objects are not removed; `wangchuan backup unneeded` names them".to_owned(),
                "其对象未删除；`wangchuan backup unneeded` 列出它们".to_owned(),
            ),
        };
        output.say(&Words::new(
            format!("chain {number} of store {store} ({bytes} bytes) opens with no key: {en}"),
            format!("数据源 {store} 的快照链 {number}（{bytes} 字节）已无法打开：{zh}"),
        ))?;
    }
    Ok(())
}

fn show_done(output: &mut Output, config: &Configuration, document: &PruneDocument) -> Result<(), UserError> {
    for chain in &document.destroyed {
        let (number, store, count) = (chain.chain, &chain.store, chain.snapshot_count);
        output.say(&Words::new(
            format!(
                "✓ chain {number} of store {store}: the key of its {count} snapshots is destroyed and read back as gone"
            ),
            format!("✓ 数据源 {store} 的快照链 {number}：其 {count} 个快照的密钥已销毁，并已核实不存在"),
        ))?;
    }
    show_waiting(output, document.waiting.iter().cloned())?;
    for Unproven { store, what } in &document.unproven {
        output.say(&Words::new(
            format!("✗ nothing of store {store} goes: {what}"),
            format!("✗ 数据源 {store} 不清理：{what}"),
        ))?;
    }
    if document.objects_removed > 0 {
        let count = grouped(document.objects_removed);
        output.say(&Words::new(
            format!("{count} objects were removed and read back as gone"),
            format!("已删除 {count} 个对象，并已核实不存在"),
        ))?;
    }
    let left = document.objects_left.iter().map(|chain| PrunedEntry {
        store: chain.store.clone(),
        what: chain.what.clone(),
        ..*chain
    });
    show_left(output, config, left)?;
    for run in &document.shredded_runs {
        output.say(&Words::new(
            format!("run {run}: its last rows in backups opened with these chains; they are shredded"),
            format!("运行 {run}：其在备份中的最后一批行随快照链一并销毁"),
        ))?;
    }
    if document.result == Outcome::NothingFound {
        output.say(&Words::new("Nothing goes.", "没有需要清理的快照。"))?;
    }
    for certificate in &document.certificates {
        output.line(&format!("  {certificate}"))?;
    }
    Ok(())
}
