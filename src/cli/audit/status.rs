//! `audit status`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, local_time, task_error};
use super::super::output::shapes::Time;
use super::super::output::{Document, Exit, Outcome, Output, UserError, Words};
use crate::audit::circuit::{Circuit, Position};
use crate::audit::receipt::{Grade, LogOperator};
use crate::installation::Needs;
use crate::tasks::audit::{AuditStatus, audit_status};
use crate::tasks::stamps::StampStatus;

/// Receipts of one grade from logs of one kind.
#[derive(Debug, Serialize, JsonSchema)]
struct Graded {
    /// `A` to `D`.
    grade: String,
    /// What it is called.
    name: String,
    /// How many.
    receipts: u64,
}

/// A certificate that is not filed.
#[derive(Debug, Serialize, JsonSchema)]
struct Unfiled {
    /// Its id.
    certificate: String,
    /// Why.
    problem: String,
}

/// Whether the service is left alone because it failed.
#[derive(Debug, Serialize, JsonSchema)]
struct CircuitState {
    /// `closed`: everything is filed; `open`: nothing is sent before `retry_at`; `half-open`: the next round tries one certificate.
    position: String,
    /// Rounds in succession that the service failed.
    failures: u32,
    /// When the first of them was.
    failing_since: Option<Time>,
    /// When it is tried again; null unless it is open.
    retry_at: Option<Time>,
    /// How it failed last.
    last_failure: Option<String>,
    /// Whether only a person mends that: address, credentials.
    alarm: bool,
}

/// The JSON of `audit status`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatusDocument {
    /// `complete` when all certificates are filed, and stamped where an authority is configured; `partial` while some are not, `nothing-found` without any.
    result: Outcome,
    /// All certificates.
    issued: u64,
    /// Those with a verified receipt.
    receipted: u64,
    /// Those that were taken without a receipt: a webhook's success proves nothing.
    acknowledged: u64,
    /// Those that wait to be filed.
    pending: u64,
    /// Those that the service refuses; a person must look.
    quarantined: u64,
    /// When the oldest waiting one was issued.
    oldest_pending: Option<Time>,
    /// Receipts by grade and by who runs the log, best first.
    grades: Vec<Graded>,
    /// What waits or was refused, and why.
    problems: Vec<Unfiled>,
    /// Entries of the embedded service's log; null with another service, or before the first filing.
    leaves: Option<u64>,
    /// Whether the service is left alone because it failed.
    circuit: CircuitState,
    /// How many certificates have a time stamp.
    stamped: u64,
    /// How many have none, where an authority is configured.
    unstamped: u64,
    /// Why the authority failed last; null when it did not.
    stamp_problem: Option<String>,
}

impl Document for StatusDocument {
    const OF: &'static [&'static str] = &["audit status"];
}

/// Exit code 4 while something waits, was refused, or has no time stamp although an authority is configured.
pub async fn status(context: &mut Context<'_>) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let status = audit_status(&installation).await.map_err(task_error)?;
    let oldest = status.oldest_pending.map(|at| local_time(&installation.config, at));
    let retry_at = match status.position {
        Position::Open { until } => Some(local_time(&installation.config, until)),
        Position::Closed | Position::HalfOpen => None,
    };
    installation.close().await.map_err(task_error)?;
    let output = &mut *context.output;
    let AuditStatus { issued, receipted, acknowledged, pending, quarantined, .. } = status;
    output.say(&Words::new(
        format!("{issued} certificates: {receipted} filed, {pending} waiting, {quarantined} refused"),
        format!("共 {issued} 份证书：已存证 {receipted}，等待 {pending}，被拒 {quarantined}"),
    ))?;
    if acknowledged > 0 {
        output.say(&Words::new(
            format!("{acknowledged} taken without a receipt"),
            format!("另有 {acknowledged} 份已送达但没有回执"),
        ))?;
    }
    if status.circuit.failures > 0 {
        output.say(&circuit_words(&status, retry_at))?;
    }
    say_grades(output, &status.grades)?;
    if let Some(oldest) = oldest {
        output.say(&Words::new(
            format!("the oldest that waits was issued {oldest}"),
            format!("等待最久的一份签发于 {oldest}"),
        ))?;
    }
    say_problems(output, &status.problems, quarantined > 0)?;
    let (stamped, unstamped, stamp_problem) = stamps(output, status.stamps)?;
    let is_filed = pending == 0 && quarantined == 0 && unstamped == 0;
    let result = match (issued, is_filed) {
        (0, _) => Outcome::NothingFound,
        (_, true) => Outcome::Complete,
        (_, false) => Outcome::Partial,
    };
    let graded = |(grade, operator, receipts): &(Grade, LogOperator, u64)| Graded {
        grade: format!("{grade:?}"),
        name: grade.describe(*operator).to_owned(),
        receipts: *receipts,
    };
    let unfiled = |(certificate, problem): (String, String)| Unfiled { certificate, problem };
    output.document(&StatusDocument {
        result,
        issued,
        receipted,
        acknowledged,
        pending,
        quarantined,
        oldest_pending: status.oldest_pending.map(Time::from),
        grades: status.grades.iter().map(graded).collect(),
        problems: status.problems.into_iter().map(unfiled).collect(),
        leaves: status.log_leaves,
        circuit: circuit_state(status.circuit, status.position),
        stamped,
        unstamped,
        stamp_problem,
    })?;
    Ok(if is_filed { Exit::Done } else { Exit::Partial })
}

/// What was not filed and why, and how what was refused goes again.
fn say_problems(output: &mut Output, problems: &[(String, String)], is_refused: bool) -> Result<(), UserError> {
    for (certificate, problem) in problems {
        output.line(&format!("  {certificate}: {problem}"))?;
    }
    if is_refused {
        output.say(&Words::new(
            "what was refused is sent again by `wangchuan audit flush --refused`, once you have mended why",
            "处理被拒原因后，用 `wangchuan audit flush --refused` 重新提交",
        ))?;
    }
    Ok(())
}

fn say_grades(output: &mut Output, grades: &[(Grade, LogOperator, u64)]) -> Result<(), UserError> {
    for (grade, operator, receipts) in grades {
        let name = grade.describe(*operator);
        output.say(&Words::new(
            format!("{receipts} receipts of grade {grade:?}: {name}"),
            format!("{grade:?} 级回执 {receipts} 份：{name}"),
        ))?;
    }
    Ok(())
}

/// Says how time stamps stand; returns how many there are, how many are missing, and why.
fn stamps(output: &mut Output, stamps: Option<StampStatus>) -> Result<(u64, u64, Option<String>), UserError> {
    let Some(StampStatus { stamped, missing, circuit }) = stamps else { return Ok((0, 0, None)) };
    let unstamped = missing.len() as u64;
    output.say(&Words::new(
        format!("{stamped} with a time stamp, {unstamped} without"),
        format!("有时间戳 {stamped} 份，尚无 {unstamped} 份"),
    ))?;
    if let Some(reason) = &circuit.reason {
        output.say(&Words::new(
            format!("the time-stamping authority failed {} rounds in succession: {reason}", circuit.failures),
            format!("时间戳服务已连续 {} 轮失败：{reason}", circuit.failures),
        ))?;
    }
    Ok((stamped, unstamped, circuit.reason))
}

fn circuit_state(circuit: Circuit, position: Position) -> CircuitState {
    let (position, retry_at) = match position {
        Position::Closed => ("closed", None),
        Position::HalfOpen => ("half-open", None),
        Position::Open { until } => ("open", Some(Time::from(until))),
    };
    CircuitState {
        position: position.to_owned(),
        failures: circuit.failures,
        failing_since: circuit.since.map(Time::from),
        retry_at,
        last_failure: circuit.reason,
        alarm: circuit.alarm,
    }
}

/// What is said of a service that failed.
fn circuit_words(status: &AuditStatus, retry_at: Option<String>) -> Words {
    let failures = status.circuit.failures;
    let reason = status.circuit.reason.as_deref().unwrap_or_default();
    let (en, zh) = match retry_at {
        Some(at) => (format!("nothing is sent before {at}"), format!("{at} 之前不再发送")),
        None => ("the next round tries one certificate".to_owned(), "下一轮先试一份".to_owned()),
    };
    Words::new(
        format!("the service failed {failures} rounds in succession, {en}: {reason}"),
        format!("该服务已连续 {failures} 轮失败，{zh}：{reason}"),
    )
}
