//! `key move`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::{Document, Exit, Outcome, Words};
use crate::installation::Needs;
use crate::tasks::key_move::{MoveReport, move_root};

/// Arguments of `key move`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wangchuan key move --to transit")]
pub struct MoveArgs {
    /// The kind of slot that `[root]` describes; the old one stands under `[root.previous]`.
    #[arg(long, value_name = "KIND")]
    to: String,
}

/// What `key move --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyMoveDocument {
    /// Always `complete`: the root key is in the new slot, and in no other.
    result: Outcome,
    #[serde(flatten)]
    report: MoveReport,
}

impl Document for KeyMoveDocument {
    const OF: &'static [&'static str] = &["key move"];
}

/// Moves the root key, then says what to take out of the configuration.
pub async fn move_key(context: &mut Context<'_>, args: MoveArgs) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs { backup: true, audit: true, lease: true, ..Needs::STATE }).await?;
    let moved = move_root(&installation, &args.to).await;
    let closed = installation.close().await;
    let report = moved.map_err(task_error)?;
    closed.map_err(task_error)?;
    let (from, to, generation) = (report.from, report.to, report.generation);
    context.output.say(&if report.moved {
        Words::new(
            format!("the root key is in the slot of kind {to} now, as generation {generation}; it was destroyed in that of kind {from}"),
            format!("根密钥现已在 {to} 密钥槽中，第 {generation} 代；{from} 密钥槽中的已销毁"),
        )
    } else {
        Words::new(
            format!("nothing was left in the slot of kind {from}; generation {generation} is in that of kind {to}"),
            format!("{from} 密钥槽中已无根密钥；第 {generation} 代在 {to} 密钥槽中"),
        )
    })?;
    context.output.note(&match &report.irrevocable_at {
        None => Words::new("take [root.previous] out of the configuration now", "现在请从配置中删去 [root.previous]"),
        Some(at) => Words::new(
            format!("old roots are irrevocably gone only at {at}: leave [root.previous] in the configuration until `key status` names none"),
            format!("旧根密钥 {at} 起才不可恢复：在 `key status` 不再列出之前，请保留配置中的 [root.previous]"),
        ),
    })?;
    context.output.document(&KeyMoveDocument { result: Outcome::Complete, report })?;
    Ok(Exit::Done)
}
