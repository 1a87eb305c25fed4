//! `audit flush`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::certificate::find;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Outcome, Output, UserError, Words};
use crate::installation::{Installation, Needs};
use crate::tasks::audit::{Refiled, file_again};
use crate::tasks::outbox::{FilingReport, file_due, release_refused};
use crate::tasks::stamps::{StampReport, stamp_due};

/// What to file.
#[derive(Debug, Args)]
pub struct FlushArgs {
    /// Also what is filed already: for better receipts, and for a log that lost its newest entries. A grade never falls.
    #[arg(long)]
    again: bool,
    /// Also what the service refused, once you have mended why: all of it, or the one certificate (its number, its id or the beginning
    /// of it). One that is refused again stays refused.
    #[arg(long, value_name = "CERTIFICATE", num_args = 0..=1, default_missing_value = "all")]
    refused: Option<String>,
}

/// The word for all that were refused; no id and no number.
const ALL: &str = "all";

/// A certificate that was not filed.
#[derive(Debug, Serialize, JsonSchema)]
struct NotFiled {
    /// Its id.
    certificate: String,
    /// Why.
    problem: String,
}

/// The JSON of `audit flush`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FlushDocument {
    /// `complete`, `nothing-found` when nothing had to be filed, `partial` when some certificates were not.
    result: Outcome,
    /// Newly filed certificates.
    certificates: Vec<String>,
    /// Certificates that were taken without a receipt.
    without_receipt: Vec<String>,
    /// With `--again`: certificates whose receipt is better now.
    better: Vec<String>,
    /// With `--refused`: certificates that had been refused and were sent again.
    sent_again: Vec<String>,
    /// With `--again`: how many were filed again with nothing gained.
    same: u64,
    /// Certificates that were not filed, and why.
    problems: Vec<NotFiled>,
    /// How many certificates were stamped with the time now.
    stamped: u64,
    /// How many have no time stamp, where an authority is configured.
    unstamped: u64,
    /// Why.
    stamp_problem: Option<String>,
}

impl Document for FlushDocument {
    const OF: &'static [&'static str] = &["audit flush"];
}

/// Exit code 4 when something was not filed, or not stamped.
pub async fn flush(context: &mut Context<'_>, args: FlushArgs) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs { stores: false, ..Needs::ALL }).await?;
    let sent_again = match &args.refused {
        Some(which) => release(&installation, which).await?,
        None => Vec::new(),
    };
    let report = file_due(&installation, true).await.map_err(task_error)?;
    let mut again = if args.again && report.doubt.is_none() {
        file_again(&installation).await.map_err(task_error)?
    } else {
        Refiled::default()
    };
    let stamps = stamp_due(&installation, true).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let FilingReport { receipted, acknowledged, waiting, quarantined, doubt, .. } = report;
    if let Some(doubt) = doubt.or(again.doubt.take()) {
        let advice = "take both receipts to whoever runs the log, and file nothing on until it is explained";
        return Err(UserError::new(Exit::Failed, "LOG_FORKED", Words::new(doubt.clone(), doubt))
            .advise(advice, "请携带两份回执联系日志运行方；查清之前请勿继续存证"));
    }
    let problems: Vec<NotFiled> = (waiting.into_iter().chain(quarantined).chain(std::mem::take(&mut again.failed)))
        .map(|(certificate, problem)| NotFiled { certificate, problem })
        .collect();
    let output = &mut *context.output;
    let (filed, not) = (receipted.len() + acknowledged.len(), problems.len());
    output.say(&Words::new(format!("{filed} filed, {not} not"), format!("已存证 {filed}，未存证 {not}")))?;
    if args.refused.is_some() {
        let sent = sent_again.len();
        output.say(&Words::new(
            format!("{sent} that had been refused were sent again"),
            format!("曾被拒而重新提交 {sent} 份"),
        ))?;
    }
    say_receipts(output, acknowledged.len(), args.again.then_some(&again))?;
    for problem in &problems {
        output.line(&format!("  {}: {}", problem.certificate, problem.problem))?;
    }
    say_stamps(output, &stamps)?;
    let result = match (problems.is_empty(), filed + again.better.len() + again.same as usize + stamps.stamped.len()) {
        _ if stamps.missing > 0 => Outcome::Partial,
        (false, _) => Outcome::Partial,
        (true, 0) => Outcome::NothingFound,
        (true, _) => Outcome::Complete,
    };
    let exit = if problems.is_empty() && stamps.missing == 0 { Exit::Done } else { Exit::Partial };
    let document = FlushDocument {
        result,
        certificates: receipted,
        without_receipt: acknowledged,
        better: again.better,
        sent_again,
        same: again.same,
        problems,
        stamped: stamps.stamped.len() as u64,
        unstamped: stamps.missing,
        stamp_problem: stamps.problem,
    };
    output.document(&document)?;
    Ok(exit)
}

/// Lets refused certificates wait again; they are filed with the others.
async fn release(installation: &Installation, which: &str) -> Result<Vec<String>, UserError> {
    if which == ALL {
        return release_refused(installation, None).await.map_err(task_error);
    }
    let read = async { installation.control.read().await?.certificates(None).await };
    let certificates = read.await.map_err(|error| task_error(error.into()))?;
    let id = &find(&certificates, which)?.id;
    release_refused(installation, Some(id)).await.map_err(task_error)
}

/// Says how many were taken without a receipt, and what filing again gained.
fn say_receipts(output: &mut Output, acknowledged: usize, again: Option<&Refiled>) -> Result<(), UserError> {
    if acknowledged > 0 {
        output.say(&Words::new(
            format!("{acknowledged} of them without a receipt: nothing proves that they were filed"),
            format!("其中 {acknowledged} 份没有回执：无法证明已存证"),
        ))?;
    }
    if let Some(Refiled { better, same, .. }) = again {
        let better = better.len();
        output.say(&Words::new(
            format!("{better} with a better receipt than before, {same} as before"),
            format!("回执提升 {better} 份，不变 {same} 份"),
        ))?;
    }
    Ok(())
}

fn say_stamps(output: &mut Output, stamps: &StampReport) -> Result<(), UserError> {
    let (stamped, missing) = (stamps.stamped.len(), stamps.missing);
    if stamped > 0 {
        output.say(&Words::new(format!("{stamped} stamped with the time"), format!("已加盖时间戳 {stamped} 份")))?;
    }
    if missing > 0 {
        let why = stamps.problem.as_ref();
        let (en, zh) = why.map_or_else(Default::default, |why| (format!(": {why}"), format!("：{why}")));
        output
            .say(&Words::new(format!("{missing} without a time stamp{en}"), format!("尚无时间戳 {missing} 份{zh}")))?;
    }
    Ok(())
}
