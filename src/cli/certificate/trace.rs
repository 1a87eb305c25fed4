//! `certificate trace`: request, plan, approvals, run, log entries, keys and receipt behind a certificate, in one answer.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::super::CommandResult;
use super::super::context::{Context, local_time, task_error};
use super::super::output::shapes::Time;
use super::super::output::{Document, Exit, Grid, Outcome, Output, UserError, Words, say};
use super::super::stage::meaning;
use super::{Filing, Stored, find};
use crate::certify::statement::KeyEvidence;
use crate::config::Configuration;
use crate::tasks::oplog::Entry;
use crate::tasks::trace::{Trace, trace as follow};

/// The JSON of `certificate trace`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TraceDocument {
    /// Always `complete`: whether the certificate was followed. How its erasure ended is in `versions`.
    result: Outcome,
    /// The certificate that was asked about.
    certificate: String,
    /// All certificates about the same run, key or period, by number.
    versions: Vec<Version>,
    /// Whether it is filed.
    filing: Filing,
    /// The customer's request, if one was the reason.
    request_details: Option<TracedRequest>,
    /// The plan that was carried out; null of outside keys and roll-ups.
    plan_details: Option<TracedPlan>,
    /// Who agreed to the plan, in that order.
    approvals: Vec<TracedApproval>,
    /// The run; null of outside keys and roll-ups.
    run_details: Option<TracedRun>,
    /// The destroyed keys.
    keys: Vec<KeyEvidence>,
    /// Entries of the operation log about any of these, oldest first.
    log: Vec<TracedEntry>,
}

impl Document for TraceDocument {
    const OF: &'static [&'static str] = &["certificate trace"];
}

/// One of the certificates about the same.
#[derive(Debug, Serialize, JsonSchema)]
struct Version {
    /// Its id.
    certificate: String,
    /// Its number.
    sequence: i64,
    /// `complete`, `partial`, …
    result: String,
    /// When it was signed.
    issued_at: Time,
    /// The id of the certificate that it replaces.
    supersedes: Option<String>,
}

/// The request.
#[derive(Debug, Serialize, JsonSchema)]
struct TracedRequest {
    /// Its number.
    request: i64,
    /// How it stands.
    state: String,
    /// When it was received.
    received_at: Time,
    /// By when it had to be answered.
    due_at: Time,
}

/// The plan.
#[derive(Debug, Serialize, JsonSchema)]
struct TracedPlan {
    /// Its id.
    plan: String,
    /// Its hash, which approvals belong to.
    hash: String,
    /// When it was made.
    created_at: Time,
    /// The fixed cutoff.
    cutoff: Time,
    /// The policies that made rows due.
    policies: Vec<String>,
    /// SHA-256 of the policies, statutes and registry that decided.
    policy_digest: String,
    /// Rows that were due.
    due: u64,
}

/// An approval.
#[derive(Debug, Serialize, JsonSchema)]
struct TracedApproval {
    /// Who agreed.
    operator: String,
    /// When.
    at: Time,
}

/// The run.
#[derive(Debug, Serialize, JsonSchema)]
struct TracedRun {
    /// Its id.
    run: String,
    /// How far it is.
    state: String,
    /// When it began.
    begun_at: Time,
    /// When absence was read back.
    verified_at: Option<Time>,
    /// When the keys were destroyed.
    shredded_at: Option<Time>,
    /// The key generation that holds them no more.
    generation: Option<i64>,
}

/// An entry of the operation log.
#[derive(Debug, Serialize, JsonSchema)]
struct TracedEntry {
    /// Its place in the log, from 0.
    index: u64,
    /// When it was written.
    at: Time,
    /// What was done; null once its content has expired.
    operation: Option<String>,
    /// By whom.
    actor: Option<String>,
    /// On what.
    object: Option<String>,
}

impl TracedEntry {
    fn of(entry: &Entry) -> Self {
        let text = |pointer: &str| entry.record.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Self {
            index: entry.index,
            at: entry.time.into(),
            operation: text("/api/operation"),
            actor: text("/actor/user/uid"),
            object: text("/resources/0/uid"),
        }
    }
}

/// Follows a certificate back.
pub async fn trace(context: &mut Context<'_>, id: &str) -> CommandResult {
    let stored = Stored::open(context).await?;
    let row = find(&stored.certificates, id)?;
    let found = follow(&stored.installation, row).await.map_err(task_error)?;
    let document = document(&found);
    show(&mut *context.output, &stored.installation.config, &found, &document)?;
    context.output.document(&document)?;
    stored.close().await?;
    Ok(Exit::Done)
}

fn document(found: &Trace) -> TraceDocument {
    let version = |row: &crate::control::CertificateRow| Version {
        certificate: row.id.clone(),
        sequence: row.sequence,
        result: row.result.clone(),
        issued_at: row.issued_at.into(),
        supersedes: row.supersedes.clone(),
    };
    TraceDocument {
        result: Outcome::Complete,
        certificate: found.certificate.id.clone(),
        versions: found.versions.iter().map(version).collect(),
        filing: Filing::of(found.filing.as_ref()),
        request_details: found.request.as_ref().map(|request| TracedRequest {
            request: request.number,
            state: request.state.clone(),
            received_at: request.received_at.into(),
            due_at: request.due_at.into(),
        }),
        plan_details: found.plan.as_ref().map(|(row, body)| {
            let mut policies: Vec<String> =
                body.collections.iter().filter_map(|counts| counts.policy.clone()).collect();
            policies.sort_unstable();
            policies.dedup();
            TracedPlan {
                plan: row.id.clone(),
                hash: row.hash.clone(),
                created_at: row.created_at.into(),
                cutoff: row.cutoff.into(),
                policies,
                policy_digest: body.policy_digest.clone(),
                due: body.due(),
            }
        }),
        approvals: found
            .approvals
            .iter()
            .map(|approval| TracedApproval { operator: approval.operator.clone(), at: approval.at.into() })
            .collect(),
        run_details: found.run.as_ref().map(|run| TracedRun {
            run: run.id.clone(),
            state: run.state.clone(),
            begun_at: run.begun_at.into(),
            verified_at: run.verified_at.map(Time::from),
            shredded_at: run.shredded_at.map(Time::from),
            generation: run.generation,
        }),
        keys: found.keys().into_iter().cloned().collect(),
        log: found.entries.iter().map(TracedEntry::of).collect(),
    }
}

fn show(output: &mut Output, config: &Configuration, found: &Trace, document: &TraceDocument) -> Result<(), UserError> {
    let at = |time| local_time(config, time);
    if let Some(request) = &found.request {
        let (number, received, due) = (request.number, at(request.received_at), at(request.due_at));
        output.say(&Words::new(
            format!("request {number}, received {received}, due {due}: {}", request.state),
            format!("请求 {number}，{received} 收到，{due} 前答复：{}", request.state),
        ))?;
    }
    if let (Some((row, body)), Some(plan)) = (&found.plan, &document.plan_details) {
        let (made, cutoff, policies) = (at(row.created_at), at(row.cutoff), plan.policies.join(", "));
        output.say(&Words::new(
            format!("plan {} of {made}, cutoff {cutoff}: {} rows due by {policies}", row.hash, body.due()),
            format!("计划 {}，{made} 制定，截止 {cutoff}：按 {policies} 到期 {} 行", row.hash, body.due()),
        ))?;
    }
    for approval in &found.approvals {
        let (who, when) = (&approval.operator, at(approval.at));
        output.say(&Words::new(format!("approved by {who}, {when}"), format!("{who} 于 {when} 批准")))?;
    }
    if found.plan.is_some() && found.approvals.is_empty() {
        output.say(&Words::new("no approval is on record", "没有批准记录"))?;
    }
    if let Some(run) = &found.run {
        let (begun, stage) = (at(run.begun_at), meaning(&run.state, None));
        output.say(&Words::new(
            format!("run {}, begun {begun}: {}", run.id, stage.en),
            format!("运行 {}，{begun} 开始：{}", run.id, stage.zh),
        ))?;
    }
    for key in &document.keys {
        let (id, kms) = (&key.key_id_sha256, &key.kms);
        let when = key.destroyed_at.map_or_else(|| "-".to_owned(), |time| at(time.instant()));
        output.say(&Words::new(
            format!("key {id} in {kms}, destroyed {when}"),
            format!("密钥 {id}（{kms}），{when} 销毁"),
        ))?;
    }
    for version in &found.versions {
        let (number, result, issued) = (version.sequence, &version.result, at(version.issued_at));
        output.say(&Words::new(
            format!("certificate no. {number}, {issued}: {result}"),
            format!("第 {number} 号证书，{issued}：{result}"),
        ))?;
    }
    output.say(&document.filing.words())?;
    show_log(output, config, document)
}

fn show_log(output: &mut Output, config: &Configuration, document: &TraceDocument) -> Result<(), UserError> {
    let lang = output.lang();
    let titles = [("no.", "序号"), ("time", "时间"), ("who", "操作人"), ("operation", "操作"), ("on", "对象")];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(0);
    for entry in &document.log {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let time = local_time(config, entry.at.instant());
        grid.row([entry.index.to_string(), time, shown(&entry.actor), shown(&entry.operation), shown(&entry.object)]);
    }
    if grid.is_empty() {
        output.say(&Words::new("no entry of the log is about it any more", "日志中已没有相关条目"))?;
    } else {
        output.table(&grid)?;
    }
    Ok(())
}
