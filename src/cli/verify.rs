//! `verify …`: looks again for what was erased.

mod residue;

pub use residue::ResidueDocument;

use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::backup::{open_bucket_with, while_renewing};
use super::context::{Context, certify_now, task_error};
use super::output::shapes::{FailedStore, Verification};
use super::output::table::grouped;
use super::output::{Document, Exit, Grid, Output, UserError, Words, say};
use crate::plan::returned::Return;
use crate::tasks::recheck::{FoundRow, Recheck, RecheckedCollection, look_for_erased};
use crate::value::Value;

/// Looks again whether what was destroyed is still gone.
#[derive(Debug, Subcommand)]
pub enum VerifyCommand {
    /// Look in all stores for rows that were erased, and for customers who asked to be forgotten.
    ///
    /// `resurrected` is what was erased and is there again, by its content or by a start event from before its erasure: somebody restored
    /// a copy, another system wrote it back, or somebody entered the very same values once more. `returned` is something new in its place:
    /// a customer who came again, a key that was given out again. Only registered collections are looked at. What is certified as gone and was resurrected gets another certificate, which counts it, and one more once
    /// it is gone again. Exit code 1 when something was resurrected, 4 when a store could not be looked at. The job `verify` does the same; whether
    /// erased rows come back from a snapshot is for `drill run` to say.
    #[command(after_help = "Examples:\n  wangchuan verify erased\n  wangchuan verify erased --keys --json | jq .found")]
    Erased {
        /// Also tell the keys of the rows that were found, up to a thousand. They are customer data.
        #[arg(long)]
        keys: bool,
    },
    /// Look into the raw files of stores for values that were erased: database files, journals, logs.
    ///
    /// The values are those of runs in grace, as long as their pre-images can be opened, or come from standard input. Values that living rows
    /// have as well are left out. Compressed, encrypted and cut values are not recognised, and numbers are not looked for. Exit code 1 when
    /// something was found, 4 when something was not looked into.
    #[command(
        after_help = "Examples:\n  wangchuan verify residue\n  wangchuan verify residue shop --values < values.txt"
    )]
    Residue(residue::ResidueArgs),
}

/// The JSON of `verify erased`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErasedDocument {
    /// `valid`; `invalid` with exit code 1 when something was resurrected; `failed` with exit code 4 when a store could not be looked at.
    result: Verification,
    /// Erased rows that are there again.
    resurrected: u64,
    /// New rows under an erased key, or of a customer who was forgotten.
    returned: u64,
    /// What was looked at.
    collections: Vec<RecheckedCollection>,
    /// The stores that could not be looked at.
    failed_stores: Vec<FailedStore>,
    /// Collections (`store.collection`) of which rows were erased and that are not registered any more: nobody looked there.
    unregistered: Vec<String>,
    /// With `--keys`, the rows that were found.
    found: Vec<FoundEntry>,
    /// The certificates issued now: those of runs of which other rows are there again than at the look before.
    certificates: Vec<String>,
}

impl Document for ErasedDocument {
    const OF: &'static [&'static str] = &["verify erased"];
}

/// A row that is there again.
#[derive(Debug, Serialize, JsonSchema)]
struct FoundEntry {
    /// The store.
    store: String,
    /// The collection.
    collection: String,
    /// The values of its key, as text; bytes in hex.
    key: Vec<String>,
    /// `resurrected` or `returned`.
    verdict: &'static str,
}

impl FoundEntry {
    fn of(row: FoundRow) -> Self {
        let text = |value: Value| match value {
            Value::Null => String::new(),
            Value::Integer(number) => number.to_string(),
            Value::Real(number) => number.to_string(),
            Value::Text(text) => text,
            Value::Blob(bytes) => hex::encode(bytes),
        };
        let verdict = match row.verdict {
            Return::Resurrected => "resurrected",
            Return::Returned => "returned",
        };
        let key = row.key.0.into_iter().map(text).collect();
        Self { store: row.store, collection: row.collection, key, verdict }
    }
}

/// Runs the command.
pub async fn verify(context: &mut Context<'_>, command: VerifyCommand) -> CommandResult {
    match command {
        VerifyCommand::Erased { keys } => erased(context, keys).await,
        VerifyCommand::Residue(args) => residue::residue(context, args).await,
    }
}

async fn erased(context: &mut Context<'_>, keys: bool) -> CommandResult {
    context.only_now()?;
    // The second place tells an old copy of the state, whose ledger lacks what was erased since.
    let installation = open_bucket_with(context, true).await?;
    let looked = while_renewing(&installation, look_for_erased(&installation)).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    // What they say is so no more, or again.
    let certificates = if looked.is_news { certify_now(context).await? } else { Vec::new() };
    show(context.output, looked, keys, certificates)
}

fn show(output: &mut Output, looked: Recheck, keys: bool, certificates: Vec<String>) -> CommandResult {
    let lang = output.lang();
    let titles = [
        ("store", "数据源"),
        ("collection", "集合"),
        ("rows looked at", "检查行数"),
        ("resurrected", "复现"),
        ("returned", "新出现"),
    ];
    let mut grid = Grid::new(titles.map(|(en, zh)| say(lang, en, zh))).right(2).right(3).right(4);
    for counts in &looked.collections {
        let numbers = [counts.rows, counts.resurrected, counts.returned].map(grouped);
        grid.row([counts.store.clone(), counts.collection.clone()].into_iter().chain(numbers));
    }
    output.table(&grid)?;
    let (resurrected, returned) = (looked.resurrected(), looked.returned());
    let unregistered: Vec<String> =
        looked.unregistered.iter().map(|(store, collection)| format!("{store}.{collection}")).collect();
    for words in verdicts(resurrected, returned, &looked.skipped, &unregistered) {
        output.say(&words)?;
    }
    let (result, exit) = match (resurrected, looked.skipped.is_empty()) {
        (0, true) => (Verification::Valid, Exit::Done),
        (0, false) => (Verification::Failed, Exit::Partial),
        _ => (Verification::Invalid, Exit::Failed),
    };
    let failed = |(store, what)| FailedStore { store, what, retry: true };
    let found: Vec<FoundEntry> = if keys { looked.found.into_iter().map(FoundEntry::of).collect() } else { Vec::new() };
    show_keys(output, &found)?;
    if !certificates.is_empty() {
        let count = certificates.len();
        output.say(&Words::new(
            format!("{count} certificates were replaced by what is so now."),
            format!("已按现状重新签发 {count} 份证书。"),
        ))?;
    }
    output.document(&ErasedDocument {
        result,
        resurrected,
        returned,
        collections: looked.collections,
        failed_stores: looked.skipped.into_iter().map(failed).collect(),
        unregistered,
        found,
        certificates,
    })?;
    Ok(exit)
}

fn show_keys(output: &mut Output, found: &[FoundEntry]) -> Result<(), UserError> {
    for row in found {
        output.line(&format!("{} {}.{} {}", row.verdict, row.store, row.collection, row.key.join(", ")))?;
    }
    Ok(())
}

fn verdicts(resurrected: u64, returned: u64, skipped: &[(String, String)], unregistered: &[String]) -> Vec<Words> {
    let mut all = Vec::new();
    if resurrected > 0 {
        all.push(Words::new(
            format!(
                "{} rows that were erased are there again. Find out where they came from (a restored copy, another system), then \
                 erase them again: `wangchuan plan`, or `wangchuan request new`; `--keys` tells which they are.",
                grouped(resurrected)
            ),
            format!(
                "有 {} 行已删除的数据重新出现。请查明来源（恢复的副本、其他系统），然后再次删除：`wangchuan plan` 或 \
                 `wangchuan request new`；用 `--keys` 可列出这些行。",
                grouped(resurrected)
            ),
        ));
    } else {
        all.push(Words::new(
            "Nothing that was erased is there again in what was looked at.",
            "在已检查的范围内，已删除的数据没有重新出现。",
        ));
    }
    if returned > 0 {
        all.push(Words::new(
            format!(
                "{} rows are new in the place of erased ones: customers who came again, or keys given out again.",
                grouped(returned)
            ),
            format!("有 {} 行是在已删除位置上新出现的：客户再次注册，或主键被重新使用。", grouped(returned)),
        ));
    }
    for (store, why) in skipped {
        all.push(Words::new(
            format!("Store {store} was not looked at: {why}"),
            format!("数据源 {store} 未能检查：{why}"),
        ));
    }
    all.extend(unregistered.iter().map(|place| {
        Words::new(
            format!("{place} was not looked at: rows of it were erased, and it is not registered any more."),
            format!("{place} 未检查：其中的行曾被删除，但该集合已不再登记。"),
        )
    }));
    all
}
