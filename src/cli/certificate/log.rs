//! `log …`: the append-only logs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::shapes::Verification;
use super::super::output::{Document, Exit, Grid, Output, UserError, Words, say};
use super::operations::{self, LogExportArgs, PruneArgs, QueryArgs};
use crate::audit::receipt;
use crate::installation::{LogView, Needs, view_certificate_log, view_operation_log};
use crate::log::archive::ArchiveFault;
use crate::log::record;
use crate::log::verify::{ContentCheck, LogReport, VerifyLogError, verify_log};
use crate::tasks::oplog::verify_archives;

/// The operation log.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Replay the operation log, and the embedded audit service's, against everything that was ever signed.
    ///
    /// Says which entry differs first. Exit code 1 when one does.
    #[command(after_help = "Examples:\n  wangchuan log verify\n  wangchuan log verify --archive log-archive")]
    Verify(VerifyArgs),
    /// Who did what, when and from where; of one customer also after the erasure. The look itself is logged.
    #[command(after_help = "Examples:
  wangchuan log query --operation run
  wangchuan log query --customer - < id.txt")]
    Query(QueryArgs),
    /// Write the operation log into a file, one JSON object a line, or whole months into a folder. Logged, too.
    ///
    /// Archives are chained by hash, and new ones are added behind those that are there.
    #[command(
        after_help = "Examples:\n  wangchuan log export --output operations.ndjson\n  wangchuan log export --archive log-archive"
    )]
    Export(LogExportArgs),
    /// Drop the contents of entries that are three years old; their digests stay, so the log stays provable.
    ///
    /// A destruction like any other: it wants the work lease, a clock that is believed and no stop of destruction; what a hold may
    /// concern stays.
    #[command(after_help = "Examples:\n  wangchuan log prune\n  wangchuan log prune --apply")]
    Prune(PruneArgs),
}

/// What to check beside the logs.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Also the monthly archives in this folder: against each other, the log's signed heads, and the log itself.
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
}

/// Archives that were checked.
#[derive(Debug, Serialize, JsonSchema)]
struct CheckedArchives {
    /// How many files.
    files: u64,
    /// Entries in them; null when something does not fit.
    entries: Option<u64>,
    /// The file that does not fit; null when all do.
    archive: Option<String>,
    /// The line in it, from 1, if one is to blame.
    line: Option<u64>,
    /// What does not fit.
    problem: Option<String>,
}

impl CheckedArchives {
    fn of(files: usize, found: Result<u64, ArchiveFault>) -> Self {
        let (entries, fault) = match found {
            Ok(entries) => (Some(entries), None),
            Err(fault) => (None, Some(fault)),
        };
        Self {
            files: files as u64,
            entries,
            line: fault.as_ref().and_then(|fault| fault.line),
            problem: fault.as_ref().map(|fault| fault.what.clone()),
            archive: fault.map(|fault| fault.archive),
        }
    }
}

/// A log that was replayed. Numbers are null when it could not be read.
#[derive(Debug, Serialize, JsonSchema)]
struct CheckedLog {
    /// `operations` or `certificates`.
    log: &'static str,
    /// Its entries.
    leaves: Option<u64>,
    /// Entries whose content has expired; their digests are still there.
    dropped: Option<u64>,
    /// Signed heads.
    checkpoints: Option<u64>,
    /// Entries that no signed head covers yet.
    unsigned: Option<u64>,
    /// Whether a head that is kept outside the database was compared too.
    is_head_compared: bool,
    /// The key that heads are verified with (C2SP vkey).
    verifier_key: Option<String>,
    /// What does not fit; null when everything does.
    problem: Option<String>,
}

impl CheckedLog {
    fn of(log: &'static str, view: &LogView, found: &Result<LogReport, VerifyLogError>) -> Self {
        let report = found.as_ref().ok();
        let cause = |error: &VerifyLogError| {
            std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        };
        let mut problem = found.as_ref().err().map(cause);
        if problem.is_none() && view.head.is_none() && report.is_some_and(|report| report.leaves > 0) {
            // Without it nobody can tell a log from one that was cut back together with its checkpoints.
            problem = Some("the head kept outside the database is missing".to_owned());
        }
        Self {
            log,
            leaves: report.map(|report| report.leaves),
            dropped: report.map(|report| report.dropped),
            checkpoints: report.map(|report| report.checkpoints),
            unsigned: report.map(|report| report.unsigned),
            is_head_compared: view.head.is_some(),
            verifier_key: Some(view.key.verifier_key()),
            problem,
        }
    }

    fn unreadable(log: &'static str, problem: String) -> Self {
        Self {
            log,
            leaves: None,
            dropped: None,
            checkpoints: None,
            unsigned: None,
            is_head_compared: false,
            verifier_key: None,
            problem: Some(problem),
        }
    }
}

/// The JSON of `log verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LogDocument {
    /// `valid`, or `invalid` with exit code 1.
    result: Verification,
    /// The operation log, and the embedded audit service's when there is one.
    logs: Vec<CheckedLog>,
    /// The archives; null when none were named.
    archives: Option<CheckedArchives>,
}

impl Document for LogDocument {
    const OF: &'static [&'static str] = &["log verify"];
}

/// `log …`.
pub async fn log(context: &mut Context<'_>, command: LogCommand) -> CommandResult {
    match command {
        LogCommand::Verify(args) => verify(context, args).await,
        LogCommand::Query(args) => operations::query(context, args).await,
        LogCommand::Export(args) => operations::export(context, args).await,
        LogCommand::Prune(args) => operations::prune(context, args).await,
    }
}

async fn verify(context: &mut Context<'_>, args: VerifyArgs) -> CommandResult {
    let files = args.archive.as_deref().map(operations::archives_in).transpose()?;
    let installation = context.open(Needs::STATE).await?;
    let mut logs = Vec::new();
    logs.push(match view_operation_log(&installation).await {
        Ok(view) => replay("operations", &view, &record::check_content).await,
        Err(error) => CheckedLog::unreadable("operations", error.to_string()),
    });
    let trusted = installation.signer.trusted();
    match view_certificate_log(&installation).await {
        Ok(Some(view)) => {
            logs.push(replay("certificates", &view, &|leaf| receipt::check_content(leaf, trusted)).await);
            view.store.close().await;
        }
        Ok(None) => {}
        Err(error) => logs.push(CheckedLog::unreadable("certificates", error.to_string())),
    }
    let archives = match &files {
        Some(files) => {
            let found = verify_archives(&installation, files).await.map_err(task_error)?;
            Some(CheckedArchives::of(files.len(), found))
        }
        None => None,
    };
    let exit = show(context.output, logs, archives)?;
    installation.close().await.map_err(task_error)?;
    Ok(exit)
}

async fn replay(log: &'static str, view: &LogView, content: ContentCheck<'_>) -> CheckedLog {
    CheckedLog::of(log, view, &verify_log(&view.store, &view.key, view.head.as_deref(), content).await)
}

fn show(output: &mut Output, logs: Vec<CheckedLog>, archives: Option<CheckedArchives>) -> Result<Exit, UserError> {
    let lang = output.lang();
    let titles = [
        ("log", "日志"),
        ("entries", "条目"),
        ("content expired", "内容已过期"),
        ("signed heads", "签名的树头"),
        ("not signed yet", "尚未签名"),
        ("verdict", "结论"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(1).right(2).right(3).right(4);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for log in &logs {
        let verdict = match &log.problem {
            None => say(lang, "✓ unchanged", "✓ 未改动").to_owned(),
            Some(problem) => format!("✗ {problem}"),
        };
        grid.row([
            log.log.to_owned(),
            number(log.leaves),
            number(log.dropped),
            number(log.checkpoints),
            number(log.unsigned),
            verdict,
        ]);
    }
    output.table(&grid)?;
    if let Some(archives) = &archives {
        output.say(&archive_words(archives))?;
    }
    let is_bad = archives.as_ref().is_some_and(|archives| archives.problem.is_some());
    let is_valid = !is_bad && logs.iter().all(|log| log.problem.is_none());
    if is_valid && logs.iter().any(|log| log.leaves == Some(0)) {
        output.note(&Words::new("an empty log proves nothing yet", "空日志尚不能证明什么"))?;
    }
    output.document(&LogDocument { result: Verification::of(is_valid), logs, archives })?;
    Ok(if is_valid { Exit::Done } else { Exit::Failed })
}

/// What is to be said of archives.
fn archive_words(checked: &CheckedArchives) -> Words {
    let files = checked.files;
    let Some((archive, problem)) = checked.archive.as_ref().zip(checked.problem.as_ref()) else {
        let entries = checked.entries.unwrap_or_default();
        return Words::new(
            format!("✓ {files} archives with {entries} entries are what the log holds"),
            format!("✓ {files} 个归档共 {entries} 条，与日志一致"),
        );
    };
    let (line, zh) =
        checked.line.map_or_else(Default::default, |line| (format!(", line {line}"), format!("，第 {line} 行")));
    Words::new(format!("✗ {archive}{line}: {problem}"), format!("✗ {archive}{zh}：{problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::testing;

    fn good(log: &'static str) -> CheckedLog {
        CheckedLog {
            leaves: Some(3),
            problem: None,
            is_head_compared: true,
            ..CheckedLog::unreadable(log, String::new())
        }
    }

    #[test]
    fn one_bad_log_makes_the_verdict_invalid() {
        let bad = CheckedLog::unreadable("certificates", "its key is gone".to_owned());
        for (logs, result, exit) in
            [(vec![good("operations")], "valid", Exit::Done), (vec![good("operations"), bad], "invalid", Exit::Failed)]
        {
            let (mut output, out, err) = testing::output(true);
            assert_eq!(show(&mut output, logs, None).unwrap(), exit);
            let document: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
            assert_eq!(document["result"], result);
            assert_eq!(err.text().contains("✗ its key is gone"), exit == Exit::Failed);
        }
    }
}
