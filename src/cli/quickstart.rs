//! `quickstart`: the whole cycle once, on a sample shop, with its proof.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, read_configuration, task_error};
use super::output::shapes::{Counts, DrillOutcome, SnapshotEntry, StillReadable};
use super::output::table::grouped;
use super::output::{Document, Exit, Grid, Outcome, Progress, UserError, Words};
use super::plan::{PartialCode, plan_grid, reasons};
use crate::control::{CertificateRow, HoldRow, SnapshotRow};
use crate::erase::planner::{StoredPlan, subject_lookup};
use crate::installation::{Installation, Needs};
use crate::keyring::Purpose;
use crate::plan::Subject;
use crate::quickstart::shop::Shop;
use crate::quickstart::{Prepared, QuickstartError, prepare};
use crate::tasks::backup::Wanted;
use crate::tasks::certify::certify_due;
use crate::tasks::drill::{DrillRecord, run_drill};
use crate::tasks::erasure::{RunBody, execute, plan_retention};
use crate::tasks::locks::take_and_lock;
use crate::tasks::outbox::{FilingReport, file_due, verify_certificate};
use crate::tasks::request::{plan_request, receive};
use crate::tasks::shred::{ShredReport, shred_due};

/// The customers of the sample shop.
const CUSTOMERS: u32 = 3_000;
/// The hold that the sample places.
const SAMPLE_HOLD: &str = "case-2026-001";

/// Arguments of `quickstart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wangchuan quickstart --dir /tmp/try --lang zh")]
pub struct QuickstartArgs {
    /// The working directory to make; it must be empty or not exist.
    #[arg(long, default_value = "wangchuan-quickstart")]
    pub dir: PathBuf,
    /// How many sample customers.
    #[arg(long, default_value_t = CUSTOMERS, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    customers: u32,
}

/// What the cycle brought, for `--json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Summary {
    /// `complete` when everything went as it should and every key is destroyed, `partial` while erased rows still open in the first
    /// backup (exit code 0), otherwise `failed`.
    result: Outcome,
    /// Why it is partial.
    code: Option<PartialCode>,
    /// The erased rows that still open in the first backup, and until when.
    pending: Option<StillReadable>,
    /// The working directory that was made.
    directory: String,
    /// The snapshots taken: before the erasures, and after them.
    snapshots: Vec<SnapshotEntry>,
    /// The rows of all runs.
    #[serde(flatten)]
    counts: Counts,
    /// The ids of the runs: retention, then each request.
    runs: Vec<String>,
    /// The numbers of the sample requests.
    requests: Vec<i64>,
    /// Keys destroyed.
    keys_destroyed: u64,
    /// The ids of the certificates issued.
    certificates: Vec<String>,
    /// The id of the restore drill.
    drill: String,
    /// How the drill ended.
    drill_result: DrillOutcome,
    /// Seconds from the drill's start to a checked database.
    rto_seconds: f64,
    /// Seconds between the snapshot and the drill.
    rpo_seconds: i64,
    /// Erased rows that were in the restored database all the same.
    erased_reappeared: u64,
}

impl Document for Summary {
    const OF: &'static [&'static str] = &["quickstart"];
}

/// Runs the command.
pub async fn quickstart(context: &mut Context<'_>, args: QuickstartArgs) -> CommandResult {
    context.only_now()?;
    let lang = context.lang();
    let say = |en: &str, zh: &str| super::output::say(lang, en, zh).to_owned();
    let mut progress = if context.output.json() { Progress::silent() } else { Progress::on_stderr(lang, 9) };
    progress.step(&say("making a sample shop, keys, bucket and audit service", "生成示例商店、密钥、存储桶和审计服务"));
    let prepared = prepare(&args.dir, context.clock.now(), args.customers)
        .await
        .map_err(|error| prepare_error(error, &args.dir))?;
    let installation = install(context, &prepared).await?;
    progress.done(&format!("{} {}", grouped(u64::from(args.customers)), say("customers", "位客户")));
    let outcome = cycle(context, &installation, &prepared.shop, &mut progress).await;
    let (mut summary, story) = outcome?;
    installation.close().await.map_err(task_error)?;
    summary.directory = args.dir.display().to_string();
    tell(context, &story, &args.dir)?;
    let exit = if summary.result == Outcome::Failed { Exit::Failed } else { Exit::Done };
    context.output.document(&summary)?;
    Ok(exit)
}

fn prepare_error(error: QuickstartError, directory: &Path) -> UserError {
    let at = directory.display().to_string();
    match error {
        QuickstartError::NotEmpty(_) => UserError::new(
            Exit::Refused,
            "NOT_EMPTY",
            Words::new(format!("the directory {at} is not empty"), format!("目录 {at} 不为空")),
        )
        .advise(occupied_advice(directory).en, occupied_advice(directory).zh),
        other => UserError::from_any(other.into()).at(at),
    }
}

/// What to do about a directory with something in it. Its configuration is written last: without one it cannot be finished.
fn occupied_advice(directory: &Path) -> Words {
    let at = directory.display();
    if directory.join("wangchuan.toml").exists() {
        Words::new(
            format!(
                "choose another --dir for a whole quickstart; or go on with a half-done one with `wangchuan agent --once --config \
                 {at}/wangchuan.toml`, which does not make the two sample requests nor the drill: `wangchuan request new` and \
                 `wangchuan drill run` do"
            ),
            format!(
                "完整试用请换一个 --dir；也可用 `wangchuan agent --once --config {at}/wangchuan.toml` 接着做未做完的试用，\
                 但两个示例请求和演练不会补做：请用 `wangchuan request new` 和 `wangchuan drill run`"
            ),
        )
    } else {
        Words::new(
            format!("choose another --dir; if {at} is left over from a quickstart that was cut off, remove it"),
            format!("请换一个 --dir；若 {at} 是中断的试用所留，请将其删除"),
        )
    }
}

async fn install(context: &Context<'_>, prepared: &Prepared) -> Result<Installation, UserError> {
    let config = read_configuration(&prepared.configuration)?;
    Installation::create(&config, context.clock.clone(), context.random.clone()).await.map_err(task_error)?;
    let installation = Installation::open(config, Needs::ALL, context.clock.clone(), context.random.clone())
        .await
        .map_err(task_error)?;
    place_hold(&installation, &prepared.shop.picks.held).await?;
    prepared.complete().map_err(|error| UserError::from_any(error.into()))?;
    crate::crash_point::reached("quickstart.installed");
    Ok(installation.under(&context.stop))
}

async fn place_hold(installation: &Installation, customer: &str) -> Result<(), UserError> {
    let run = async {
        let mut tx = installation.control.begin().await?;
        let lookup = installation.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
        let hold = HoldRow {
            id: SAMPLE_HOLD.to_owned(),
            scope: "subject".to_owned(),
            store: None,
            collection: None,
            subject: Some(subject_lookup(&lookup, &Subject::new(customer))),
            reason: "sample lawsuit".to_owned(),
            placed_at: installation.clock.now(),
            placed_by: installation.operator.clone(),
            released_at: None,
        };
        tx.add_hold(&hold).await?;
        tx.commit().await?;
        Ok::<(), crate::tasks::TaskError>(())
    };
    run.await.map_err(task_error)
}

/// What the summary tells, step by step.
struct Story {
    barrier: SnapshotRow,
    plan: StoredPlan,
    retention: RunBody,
    requests: Vec<(i64, RunBody)>,
    shred: ShredReport,
    certificates: Vec<CertificateRow>,
    filing: FilingReport,
    grades: Vec<String>,
    drill: DrillRecord,
}

async fn cycle(
    context: &Context<'_>,
    installation: &Installation,
    shop: &Shop,
    progress: &mut Progress,
) -> Result<(Summary, Story), UserError> {
    let lang = context.lang();
    let say = |en: &str, zh: &str| super::output::say(lang, en, zh).to_owned();
    progress.step(&say("full encrypted backup", "加密全量备份"));
    let first = back_up(installation).await?;
    progress.done(&snapshot_line(&first, &say("rows", "行")));

    progress.step(&say("plan: what is due, and what is kept and why", "计划：哪些到期、哪些保留及原因"));
    let plan = plan_retention(installation).await.map_err(task_error)?;
    progress.done(&format!("{} {}", grouped(plan.body.due()), say("rows due", "行到期")));

    progress.step(&say("erase what is due", "擦除到期数据"));
    let run = execute(installation, &plan.row).await.map_err(task_error)?;
    let retention = RunBody::of(&run).map_err(task_error)?;
    progress.done(&counts_line(&retention, &say("erased, kept", "已擦除，保留")));

    progress.step(&say("two customers ask to be erased", "两位客户要求删除"));
    let mut requests = Vec::new();
    let mut runs = vec![run.id];
    for customer in [&shop.picks.leaver, &shop.picks.keeper] {
        let received = receive(installation, &Subject::new(customer.as_str())).await.map_err(task_error)?;
        let plan = plan_request(installation, received.request.number).await.map_err(task_error)?;
        let run = execute(installation, &plan.row).await.map_err(task_error)?;
        requests.push((received.request.number, RunBody::of(&run).map_err(task_error)?));
        runs.push(run.id);
    }
    progress.done(&say("absence read back", "已复查确认不存在"));

    progress.step(&say("second backup: the barrier before keys may die", "第二次备份：销毁密钥前的屏障"));
    let barrier = back_up(installation).await?;
    progress.done(&snapshot_line(&barrier, &say("rows", "行")));

    progress.step(&say("destroy keys (grace is 0 here)", "销毁密钥（此处宽限期为 0）"));
    let shred = shred_due(installation).await.map_err(task_error)?;
    progress.done(&format!(
        "{} {}",
        grouped(shred.keys),
        say("keys gone, in one generation change", "个密钥已在一次换代中销毁")
    ));

    progress.step(&say("certificates: sign, file, verify", "证书：签名、提交、验证"));
    let ids = certify_due(installation).await.map_err(task_error)?;
    let filing = file_due(installation, true).await.map_err(task_error)?;
    let mut invalid = 0;
    for id in &ids {
        let verdict = verify_certificate(installation, id).await.map_err(task_error)?;
        invalid += usize::from(verdict.result != "valid");
    }
    progress.done(&format!("{} {}", ids.len(), say("certificates", "份证书")));

    progress.step(&say("restore drill from the first backup", "用第一次备份做恢复演练"));
    let drill = run_drill(installation, first.clone()).await.map_err(task_error)?;
    progress.done(&drill.result);

    let read = async {
        let mut tx = installation.control.read().await?;
        let certificates = tx.certificates(None).await?;
        let grades = tx.outbox(None).await?.into_iter().filter_map(|row| row.grade).collect();
        Ok::<_, crate::control::ControlError>((certificates, grades))
    };
    let (certificates, grades) = read.await.map_err(|error| task_error(error.into()))?;
    let good = invalid == 0 && drill.result == "passed" && filing.quarantined.is_empty() && retention.failed == 0;
    let summary = summarise(good, runs, &first, &barrier, &retention, &requests, &shred, &ids, &drill);
    Ok((summary, Story { barrier, plan, retention, requests, shred, certificates, filing, grades, drill }))
}

#[expect(clippy::too_many_arguments, reason = "it only gathers what the cycle brought")]
fn summarise(
    good: bool,
    runs: Vec<String>,
    first: &SnapshotRow,
    barrier: &SnapshotRow,
    retention: &RunBody,
    requests: &[(i64, RunBody)],
    shred: &ShredReport,
    ids: &[String],
    drill: &DrillRecord,
) -> Summary {
    let bodies = || std::iter::once(retention).chain(requests.iter().map(|(_, body)| body));
    let rows: i64 = shred.pending.iter().map(|(_, rows, _)| rows).sum();
    let until = shred.pending.iter().map(|(_, _, until)| until.clone()).max();
    let pending = until.map(|until| StillReadable { rows, until });
    let is_pending = pending.is_some() || !shred.waiting.is_empty();
    Summary {
        result: match (good, is_pending) {
            (false, _) => Outcome::Failed,
            (true, true) => Outcome::Partial,
            (true, false) => Outcome::Complete,
        },
        code: is_pending.then_some(PartialCode::KeyShredPending),
        pending,
        directory: String::new(),
        snapshots: vec![SnapshotEntry::of(first), SnapshotEntry::of(barrier)],
        counts: bodies().map(Counts::of).fold(Counts::default(), Counts::and),
        runs,
        requests: requests.iter().map(|(number, _)| *number).collect(),
        keys_destroyed: shred.keys,
        certificates: ids.to_vec(),
        drill: drill.drill.clone(),
        drill_result: DrillOutcome::of(drill.result == "passed"),
        rto_seconds: drill.rto_seconds,
        rpo_seconds: drill.rpo_seconds,
        erased_reappeared: drill.erased_reappeared,
    }
}

async fn back_up(installation: &Installation) -> Result<SnapshotRow, UserError> {
    let wanted = Wanted::increment(&installation.config);
    let (row, _) = take_and_lock(installation, "shop", wanted).await.map_err(task_error)?;
    Ok(row)
}

fn snapshot_line(row: &SnapshotRow, rows: &str) -> String {
    format!("{} {rows}, {} KiB", grouped(row.rows as u64), grouped(row.bytes as u64 / 1024))
}

fn counts_line(body: &RunBody, words: &str) -> String {
    format!("{} / {} {words}", grouped(body.erased as u64), grouped((body.kept + body.stripped) as u64))
}

/// The closing page: what happened, in tables, and what to try next.
fn tell(context: &mut Context<'_>, story: &Story, directory: &Path) -> Result<(), UserError> {
    let output = &mut *context.output;
    output.heading("What retention found", "保留期检查结果")?;
    output.table(&plan_grid(output.lang(), &story.plan.body))?;
    for line in reasons(output.lang(), &story.plan.body, &super::statute::built_in()?) {
        output.line(&line)?;
    }
    output.heading("What became of it", "处理结果")?;
    let mut grid = Grid::new([
        output.say_in("what", "事项"),
        output.say_in("due", "到期"),
        output.say_in("erased", "已擦除"),
        output.say_in("kept", "保留"),
        output.say_in("stripped", "其中裁减"),
        output.say_in("failed", "失败"),
    ])
    .right(1)
    .right(2)
    .right(3)
    .right(4)
    .right(5);
    let mut add = |name: String, body: &RunBody| {
        let number = |value: i64| grouped(value as u64);
        let kept = number(body.kept + body.stripped);
        grid.row([name, number(body.due), number(body.erased), kept, number(body.stripped), number(body.failed)]);
    };
    add(output.say_in("retention", "保留期到期").to_owned(), &story.retention);
    for (number, body) in &story.requests {
        add(format!("{} {number}", output.say_in("request", "删除请求")), body);
    }
    output.table(&grid)?;
    output.heading("Proof", "证明")?;
    for certificate in &story.certificates {
        output.line(&format!("  {}  {}  {}", certificate.sequence, certificate.id, certificate.result))?;
    }
    let grade = story.grades.first().cloned().unwrap_or_default();
    output.say(&Words::new(
        format!("  Receipts: {} of {} verified; grade {grade}. Root slot class D (a file on this host). Bucket on this host: a demo, not off-site.", story.filing.receipted.len(), story.certificates.len()),
        format!("  回执：{}/{} 已验证；等级 {grade}。根密钥等级 D（本机文件）。存储桶在本机：仅为演示，并非异地。", story.filing.receipted.len(), story.certificates.len()),
    ))?;
    for (run, rows, until) in &story.shred.pending {
        let short = &run[..13];
        output.say(&Words::new(
            format!("  Run {short}: {rows} erased rows still open in the first backup until {until}, because their quarter is not wholly due."),
            format!("  运行 {short}：{rows} 行已擦除的数据在首个备份中仍可打开，直到 {until}，因为其季度尚未全部到期。"),
        ))?;
    }
    output.heading("Restore drill", "恢复演练")?;
    let [opened, shredded, lost, corrupt, frames] = story.drill.frames;
    output.say(&Words::new(
        format!("  {}: {} frames = {} opened + {} shredded + {lost} lost + {corrupt} corrupt; {:.1} s; {} shredded frames tried with {} keys each, {} opened.", story.drill.result, grouped(frames), grouped(opened), grouped(shredded), story.drill.rto_seconds, story.drill.tried[0], grouped(story.drill.tried[1]), story.drill.resurrected),
        format!("  {}：{} 帧 = 打开 {} + 已销毁 {} + 丢失 {lost} + 损坏 {corrupt}；{:.1} 秒；对 {} 个已销毁帧各试 {} 个密钥，打开 {} 个。", story.drill.result, grouped(frames), grouped(opened), grouped(shredded), story.drill.rto_seconds, story.drill.tried[0], grouped(story.drill.tried[1]), story.drill.resurrected),
    ))?;
    next_steps(context, story, directory)
}

fn next_steps(context: &mut Context<'_>, story: &Story, directory: &Path) -> Result<(), UserError> {
    let output = &mut *context.output;
    output.heading("Where it lies", "文件位置")?;
    let mut grid = Grid::new(["", ""]);
    for (name, en, zh) in [
        ("wangchuan.toml, jobs/", "configuration and calendar", "配置与任务日历"),
        ("shop.db", "the sample shop", "示例商店"),
        ("bucket/", "encrypted snapshots", "加密快照"),
        (
            "state/, root/",
            "control database and root key: never restore an old copy",
            "控制数据库与根密钥：切勿恢复旧副本",
        ),
        ("audit/", "the audit service's log", "审计日志"),
    ] {
        grid.row([format!("  {}", directory.join(name).display()), output.say_in(en, zh).to_owned()]);
    }
    output.table(&grid)?;
    output.heading("Try next", "接下来可以试试")?;
    output.line(&format!("  cd {}", directory.display()))?;
    let certificate = story.certificates.last().map(|row| row.id.clone()).unwrap_or_default();
    let commands = [
        "wangchuan status".to_owned(),
        "wangchuan plan".to_owned(),
        format!("wangchuan certificate verify {certificate}"),
        format!("wangchuan restore {} --to sqlite://restored.db", &story.barrier.id[..12]),
        "wangchuan request new".to_owned(),
    ];
    for command in commands {
        output.line(&format!("  {command}"))?;
    }
    Ok(())
}
