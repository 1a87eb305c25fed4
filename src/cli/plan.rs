//! `plan`, `erase`, `explain`: what retention would do, doing it, and why for one record.

mod document;
mod explain;

use super::CommandResult;
use super::context::{Context, certify_and_say, local_time, task_error};
use super::output::table::grouped;
use super::output::{Exit, Grid, Lang, UserError, Words, say};
use super::statute::words::source_of;
use super::store::show_unregistered;
use crate::config::{Configuration, Registry};
use crate::control::RunRow;
use crate::erase::caps::{OverCap, over_caps};
use crate::erase::planner::StoredPlan;
use crate::installation::{Installation, Needs, Operation};
use crate::plan::PlanBody;
use crate::plan::diff::{CauseKind, CountChange, PlanDiff, diff};
use crate::policy::calendar::Period;
use crate::policy::registry::Policy;
use crate::policy::statute::Catalogue;
use crate::tasks::TaskError;
use crate::tasks::approval::needed;
use crate::tasks::approval::waiting_plan;
use crate::tasks::erasure::{RunBody, execute, find_plan, plan_retention, preview_retention};

pub use document::{ErasureDocument, NotRun, PartialCode, PlanDocument};
pub use explain::{ExplainArgs, ExplainDocument, explain};

/// Arguments of `plan`.
///
/// Reads the stores, writes nothing to them. The plan's hash is what `erase` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan plan
  wangchuan plan --policy completed-orders         a part of it, to look at
  wangchuan plan --at 2027-01-01T00:00:00+08:00    a preview")]
pub struct PlanArgs {
    /// Show only what this policy governs; the part cannot be carried out by itself.
    #[arg(long, value_name = "ID")]
    policy: Option<String>,
    /// Also what changed since the last plan, and what can have changed it.
    #[arg(long, conflicts_with_all = ["policy", "store"])]
    diff: bool,
    /// Show only this store; the part cannot be carried out by itself.
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
}

impl PlanArgs {
    fn is_part(&self) -> bool {
        self.policy.is_some() || self.store.is_some()
    }

    /// Refuses names that the configuration does not have.
    fn check(&self, registry: &Registry) -> Result<(), UserError> {
        let policies: Vec<&str> = registry.policies.iter().map(|policy| policy.id.as_str()).collect();
        let stores: Vec<&str> = registry.stores.iter().map(|store| store.name.as_str()).collect();
        for (given, known, en, zh) in
            [(&self.policy, policies, "policy", "策略"), (&self.store, stores, "store", "数据源")]
        {
            if let Some(name) = given.as_deref().filter(|name| !known.contains(name)) {
                let hint = crate::config::suggest(name, &known);
                let what = Words::new(format!("there is no {en} {name}"), format!("没有{zh} {name}"));
                return Err(UserError::new(Exit::Usage, "NAME_UNKNOWN", what).advise(hint.clone(), hint));
            }
        }
        Ok(())
    }

    /// Leaves in a plan what was asked for.
    fn narrow(&self, body: &mut PlanBody) {
        let is_wanted = |wanted: &Option<String>, name: Option<&String>| wanted.is_none() || wanted.as_ref() == name;
        body.collections.retain(|counts| {
            is_wanted(&self.policy, counts.policy.as_ref()) && is_wanted(&self.store, Some(&counts.store))
        });
        body.skipped.retain(|(store, _)| is_wanted(&self.store, Some(store)));
    }
}

/// Arguments of `erase`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wangchuan erase --plan 3f9a1c")]
pub struct EraseArgs {
    /// The hash of a plan, or its first digits (six at least).
    #[arg(long, value_name = "HASH")]
    plan: String,
}

/// Shows what retention would erase.
pub async fn plan(context: &mut Context<'_>, args: PlanArgs) -> CommandResult {
    args.check(&context.configuration()?.registry)?;
    let installation = context.open_stores(Needs { stores: true, ..Needs::STATE }).await?;
    let earlier = if args.diff { last_plan(&installation).await.map_err(task_error)? } else { None };
    // A plan for another time, or a part of one, is only looked at.
    let preview = context.global.at.is_some() || args.is_part();
    let made = if preview { preview_retention(&installation).await } else { plan_to_carry_out(&installation).await };
    let mut plan = made.map_err(task_error)?;
    if preview {
        args.narrow(&mut plan.body);
    }
    let lang = context.lang();
    let over = over_caps(&installation.ground().map_err(task_error)?, &plan.body);
    let approvals = needed(&installation.ground().map_err(task_error)?, &plan.body).0;
    let at_once = due_at_once(&installation.config.registry.policies);
    context.output.table(&plan_grid(lang, &plan.body))?;
    for line in reasons(lang, &plan.body, &installation.config.catalogue) {
        context.output.line(&line)?;
    }
    say_warnings(context, &over, &at_once)?;
    show_unregistered(context.output, &plan.body.unregistered)?;
    let changed = earlier.map(|earlier| diff(&earlier, &plan.body));
    if args.diff {
        show_diff(context, &installation.config, changed.as_ref())?;
    }
    let cutoff = local_time(&installation.config, plan.body.cutoff);
    let hash = &plan.row.hash[..12];
    if args.is_part() {
        context.output.say(&Words::new(
            format!("A part of the plan of {cutoff}: to carry out, make the whole plan with `wangchuan plan`."),
            format!("这是 {cutoff} 计划的一部分：如需执行，请用 `wangchuan plan` 生成完整计划。"),
        ))?;
    } else if preview {
        context.output.say(&Words::new(
            format!("Preview for {cutoff}: it cannot be carried out."),
            format!("这是 {cutoff} 的预览，不能执行。"),
        ))?;
    } else if approvals > 0 {
        context.output.say(&Words::new(
            format!(
                "Cutoff {cutoff}. It needs the approval of {approvals}, each with: wangchuan approve {hash} --as NAME"
            ),
            format!("截止时间 {cutoff}。需 {approvals} 人批准，各自执行：wangchuan approve {hash} --as 姓名"),
        ))?;
    } else {
        context.output.say(&Words::new(
            format!("Cutoff {cutoff}. To carry it out: wangchuan erase --plan {hash}"),
            format!("截止时间 {cutoff}。执行：wangchuan erase --plan {hash}"),
        ))?;
    }
    note_skipped(context, &plan.body)?;
    context.output.document(&PlanDocument::of(
        &plan.row.hash,
        &plan.body,
        &over,
        at_once,
        (approvals, preview),
        changed,
    ))?;
    installation.close().await.map_err(task_error)?;
    Ok(match (over.is_empty(), plan.body.skipped.is_empty()) {
        (false, _) => Exit::Refused,
        (true, false) => Exit::Partial,
        (true, true) => Exit::Done,
    })
}

/// The plan that somebody has approved already, as long as it is what another approval would be for; otherwise a new one.
async fn plan_to_carry_out(installation: &Installation) -> Result<StoredPlan, TaskError> {
    match waiting_plan(installation, "retention", None).await? {
        Some((row, body, agreement)) if !agreement.given.is_empty() => Ok(StoredPlan { row, body }),
        _ => {
            let made = plan_retention(installation).await?;
            let references = vec![("plan_sha256".to_owned(), made.row.hash.clone())];
            let new = Operation {
                name: "plan.new",
                object: &made.row.id,
                outcome: "success",
                references,
                ..Operation::default()
            };
            installation.log_look(new).await?;
            Ok(made)
        }
    }
}

fn note_skipped(context: &mut Context<'_>, body: &PlanBody) -> Result<(), UserError> {
    for (store, reason) in &body.skipped {
        context.output.note(&Words::new(
            format!("store {store} was left out: {reason}"),
            format!("数据库 {store} 未纳入：{reason}"),
        ))?;
    }
    Ok(())
}

/// The public part of the newest plan of retention, whatever became of it.
async fn last_plan(installation: &Installation) -> Result<Option<PlanBody>, TaskError> {
    let now = installation.clock.now();
    let found = installation.control.read().await?.newest_plan("retention", now).await?;
    Ok(found.and_then(|plan| serde_json::from_str(&plan.body).ok()))
}

/// What changed since an earlier plan.
fn show_diff(context: &mut Context<'_>, config: &Configuration, changed: Option<&PlanDiff>) -> Result<(), UserError> {
    let Some(changed) = changed else {
        context.output.say(&Words::new("There is no earlier plan to compare with.", "没有可比较的先前计划。"))?;
        return Ok(());
    };
    let since = local_time(config, changed.since);
    if changed.changes.is_empty() {
        context.output.say(&Words::new(
            format!("No count changed since the plan of {since}."),
            format!("自 {since} 的计划以来，各项数量没有变化。"),
        ))?;
    } else {
        context.output.say(&Words::new(
            format!("Changed since the plan of {since}:"),
            format!("自 {since} 的计划以来的变化："),
        ))?;
    }
    for CountChange { store, collection, what, before, now } in &changed.changes {
        context.output.line(&format!("  {store}.{collection} {what}: {before} → {now}"))?;
    }
    for cause in &changed.why {
        let name = cause.name.as_deref().unwrap_or_default();
        let (en, zh) = match cause.kind {
            CauseKind::Policy => (format!("policy {name} changed"), format!("策略 {name} 已变更")),
            CauseKind::Catalogue => ("the catalogue of statutes changed".to_owned(), "法规目录已变更".to_owned()),
            CauseKind::Registry => ("the policies or the registry changed".to_owned(), "策略或登记已变更".to_owned()),
            CauseKind::Schema => (format!("the schema of store {name} changed"), format!("数据源 {name} 的结构已变更")),
            CauseKind::HoldPlaced => (format!("hold {name} was placed"), format!("已设置保留令 {name}")),
            CauseKind::HoldReleased => (format!("hold {name} was released"), format!("已解除保留令 {name}")),
            CauseKind::StoreBack => (format!("store {name} can be read now"), format!("数据源 {name} 现可读取")),
            CauseKind::StoreAway => (format!("store {name} could not be read"), format!("数据源 {name} 无法读取")),
        };
        context.output.say(&Words::new(format!("  because: {en}"), format!("  原因：{zh}")))?;
    }
    Ok(())
}

/// Policies under which rows are due as soon as their start event is there.
fn due_at_once(policies: &[Policy]) -> Vec<String> {
    let at_once = policies.iter().filter(|policy| policy.retention == Period { months: 0, days: 0 });
    at_once.map(|policy| policy.id.clone()).collect()
}

/// What makes a plan one to look at twice.
fn say_warnings(context: &mut Context<'_>, over: &[OverCap], at_once: &[String]) -> Result<(), UserError> {
    for id in at_once {
        context.output.say(&Words::new(
            format!("! policy {id}: its retention is 0, so a row is due as soon as its start event is there"),
            format!("! 策略 {id}：保留期为 0，起算时间一到即到期"),
        ))?;
    }
    for cap in over {
        let OverCap { policy, store, collection, rows, total, at_least, max_rows, max_percent } = cap;
        let least = if *at_least { "至少 " } else { "" };
        context.output.say(&Words::new(
            format!("! {}", cap.what()),
            format!("! 策略 {policy} 将擦除 {store}.{collection} 的 {least}{total} 行中的 {rows} 行，超过上限 {max_rows} 行或 {max_percent} %"),
        ))?;
    }
    if !over.is_empty() {
        context.output.say(&Words::new(
            "Nothing of this plan is carried out before two operators agree.\n    do: if it is right (a first backlog, say), let two approve it, or raise `max` in the policy for this run, plan again, and lower it afterwards.",
            "本计划须经两人批准方可执行。\n    处理：若确属应当（例如首次积压），请两人批准，或为本次运行调高策略的 `max`，重新计划，之后再调低。",
        ))?;
    }
    Ok(())
}

/// The counts of a plan as a table.
pub fn plan_grid(lang: Lang, body: &PlanBody) -> Grid {
    let mut grid = Grid::new([
        say(lang, "collection", "数据表"),
        say(lang, "policy", "策略"),
        say(lang, "rows", "总行数"),
        say(lang, "due", "到期"),
        say(lang, "erase", "擦除"),
        say(lang, "anonymise", "匿名化"),
        say(lang, "strip", "裁减"),
        say(lang, "keep", "保留"),
        say(lang, "start unknown", "起点不明"),
    ]);
    for column in 2..9 {
        grid = grid.right(column);
    }
    for counts in &body.collections {
        grid.row([
            format!("{}.{}", counts.store, counts.collection),
            counts.policy.clone().unwrap_or_else(|| "–".to_owned()),
            if counts.at_least { format!("≥ {}", grouped(counts.total)) } else { grouped(counts.total) },
            grouped(counts.due),
            grouped(counts.erase),
            grouped(counts.anonymise),
            grouped(counts.strip),
            grouped(counts.due - counts.to_do()),
            grouped(counts.unknown_start),
        ]);
    }
    grid
}

/// Why rows are kept, one line per reason.
pub fn reasons(lang: Lang, body: &PlanBody, law: &Catalogue) -> Vec<String> {
    let mut lines = Vec::new();
    for counts in &body.collections {
        for (code, rows) in &counts.keep {
            lines.push(format!("  {} {}: {}", grouped(*rows), counts.collection, reason_text(lang, code, law)));
        }
    }
    lines
}

/// A reason's code in words.
pub fn reason_text(lang: Lang, code: &str, law: &Catalogue) -> String {
    match code.split_once(':') {
        Some(("hold", id)) => format!("{} {id}", say(lang, "kept by hold", "因保留令保留")),
        Some(("statute", key)) => {
            format!("{} {key} ({})", say(lang, "kept by statute", "法定最短保存期"), source_of(lang, key, law))
        }
        Some(("restricted", keys)) => {
            let (minimum, maximum) = keys.split_once(':').unwrap_or((keys, ""));
            let (least, most) = (source_of(lang, minimum, law), source_of(lang, maximum, law));
            match lang {
                Lang::En => format!(
                    "restricted: {minimum} ({least}) wants them kept, {maximum} ({most}) wants them gone; use them for nothing \
                     but storage"
                ),
                Lang::Zh => {
                    format!("限制处理：{minimum}（{least}）要求保存，{maximum}（{most}）要求删除；除存储外不得使用")
                }
            }
        }
        Some(("canary", until)) => format!(
            "{} {}",
            say(
                lang,
                "kept: its policy was edited; what the first share did can be looked at until",
                "保留：策略已修改，首批处理结果供核查，其余记录最早处理时间："
            ),
            until
        ),
        Some(("unregistered-child", table)) => {
            format!(
                "{} {table}",
                say(lang, "kept: rows of an unregistered table refer to it:", "保留：未登记的表仍引用它：")
            )
        }
        _ => match code {
            "kept-child" => say(lang, "kept: a row that refers to it stays", "保留：引用它的记录仍在").to_owned(),
            "kept-parent" => {
                say(lang, "kept: the row that it follows stays as it is", "保留：所从属的记录仍保持原样").to_owned()
            }
            "k-anonymity" => say(
                lang,
                "kept: too few anonymised rows have the same values, so it could be told whose it was",
                "保留：取值相同的匿名记录过少，仍可能识别出本人",
            )
            .to_owned(),
            "unknown-start" => say(
                lang,
                "kept: a statute binds it, but its start event is unknown",
                "保留：受法定期限约束，但起算时间不明",
            )
            .to_owned(),
            "canary" => say(
                lang,
                "kept: its policy was edited, so that a first share of the rows goes before the rest",
                "保留：策略已修改，先处理一小部分，其余稍后",
            )
            .to_owned(),
            "circle" => say(
                lang,
                "kept: it stands in a circle of rows too large for one transaction",
                "保留：处于过大的循环引用中，无法在一个事务内删除",
            )
            .to_owned(),
            "later" => say(lang, "kept: it came after the request", "保留：在请求之后产生").to_owned(),
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

/// What is added to a sum of rows when some were anonymised, in English and Chinese.
pub fn also_anonymised(rows: i64) -> (String, String) {
    match rows {
        0 => (String::new(), String::new()),
        rows => (format!(" + {rows} anonymised"), format!(" + 匿名化 {rows}")),
    }
}

/// Shows how a run ended, and what will happen to its keys.
pub fn show_run(context: &mut Context<'_>, run: RunRow, body: RunBody, certificates: Vec<String>) -> CommandResult {
    let RunBody { due, erased, anonymised, stripped, failed, .. } = &body;
    let kept = body.kept + stripped;
    // Rows that were found again count as failed, not as absent.
    let (absent, emptied) = ((*erased).min(body.looked_for as i64), (*stripped).min(body.looked_at as i64));
    let unlinked = (*anonymised).min(body.looked_through as i64);
    let (more, zh_more) = also_anonymised(*anonymised);
    let (seen, zh_seen) = match unlinked {
        0 => (String::new(), String::new()),
        rows => (format!(", {rows} as anonymous"), format!("，{rows} 行已匿名")),
    };
    context.output.say(&Words::new(
        format!(
            "{due} due = {erased} erased{more} + {kept} kept ({stripped} of them stripped) + {failed} failed; \
             {absent} read back as absent, {emptied} read back as stripped{seen}"
        ),
        format!(
            "到期 {due} = 擦除 {erased}{zh_more} + 保留 {kept}（其中裁减 {stripped}）+ 失败 {failed}；\
             复查 {absent} 行不存在，{emptied} 行已裁减{zh_seen}"
        ),
    ))?;
    if body.erased + body.stripped > 0 {
        context.output.say(&Words::new(
            "Deleted from the live stores. Backups still open these rows until their keys are destroyed, after grace and the next snapshot.",
            "已从在线数据库删除。在宽限期和下一次快照之后销毁密钥之前，备份中仍可打开这些行。",
        ))?;
    }
    if body.anonymised > 0 {
        context.output.say(&Words::new(
            "Anonymised in the live stores. Until the keys are destroyed, backups still open these rows as they were; within grace `run undo` brings them back.",
            "已在在线数据库匿名化。密钥销毁之前，备份仍可打开原来的行；宽限期内可用 `run undo` 恢复。",
        ))?;
    }
    for note in &body.notes {
        context.output.note(&Words::new(note.clone(), note.clone()))?;
    }
    let (document, exit) = ErasureDocument::of(&[(run, body)], certificates);
    context.output.document(&document)?;
    Ok(exit)
}
