//! `approve`: somebody agrees to a plan.

use schemars::JsonSchema;
use serde::Serialize;

use super::CommandResult;
use super::context::{Context, task_error};
use super::output::{Document, Exit, Outcome, Words};
use crate::installation::Needs;
use crate::tasks::approval;

/// Arguments of `approve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wangchuan approve 3f9a1c
  wangchuan approve 3f9a1c --as li.wei")]
pub struct ApproveArgs {
    /// The hash of a plan, or its first digits (six at least).
    #[arg(value_name = "HASH")]
    plan: String,
    /// Who agrees, by a short name that is stored and shown in clear; by default the name of this login. Small and capital
    /// letters are one.
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

/// The JSON of `approve`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ApproveDocument {
    /// `complete` when nobody's approval is missing any more, else `partial`.
    result: Outcome,
    /// The hash of the plan.
    hash: String,
    /// Who agreed now.
    operator: String,
    /// How many different operators must agree.
    needed: usize,
    /// Those who did, in that order.
    given: Vec<String>,
}

impl Document for ApproveDocument {
    const OF: &'static [&'static str] = &["approve"];
}

/// Runs the command.
pub async fn approve(context: &mut Context<'_>, args: ApproveArgs) -> CommandResult {
    context.only_now()?;
    let operator = args.name.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "operator".to_owned());
    let installation = context.open_stores(Needs { stores: true, ..Needs::STATE }).await?;
    let agreed = approval::approve(&installation, &args.plan, &operator).await;
    let (plan, agreement) = agreed.map_err(task_error)?;
    // As it is stored.
    let operator = agreement.given.last().cloned().unwrap_or(operator);
    installation.close().await.map_err(task_error)?;
    let hash = &plan.hash[..12];
    let missing = agreement.needed.saturating_sub(agreement.given.len());
    let words = if missing == 0 {
        Words::new(
            format!("{operator} approved plan {hash}. To carry it out: wangchuan erase --plan {hash}"),
            format!("{operator} 已批准计划 {hash}。执行：wangchuan erase --plan {hash}"),
        )
    } else {
        Words::new(
            format!("{operator} approved plan {hash}; {missing} more must agree."),
            format!("{operator} 已批准计划 {hash}；还需 {missing} 人批准。"),
        )
    };
    context.output.say(&words)?;
    context.output.document(&ApproveDocument {
        result: if missing == 0 { Outcome::Complete } else { Outcome::Partial },
        hash: plan.hash,
        operator,
        needed: agreement.needed,
        given: agreement.given,
    })?;
    Ok(Exit::Done)
}
