//! `audit verify`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::shapes::{Checked, Verification};
use super::super::output::{Document, Exit, Words};
use crate::installation::Needs;
use crate::tasks::audit::verify_all;

/// The JSON of `audit verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerifyDocument {
    /// `valid`, or `invalid` with exit code 1.
    result: Verification,
    /// What was checked: `sequence`, `chain`, `certificates`, `heads`, and with the embedded service `log` and `filed`.
    checks: Vec<Checked>,
}

impl Document for VerifyDocument {
    const OF: &'static [&'static str] = &["audit verify"];
}

/// Exit code 1 when anything does not fit.
pub async fn verify(context: &mut Context<'_>) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let verdict = verify_all(&installation).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let output = &mut *context.output;
    for (check, good, what) in &verdict.checks {
        output.line(&format!("{} {check}: {what}", if *good { "✓" } else { "✗" }))?;
    }
    let is_valid = verdict.result == "valid";
    output.say(&if is_valid {
        Words::new("everything fits", "全部相符")
    } else {
        Words::new("something was changed, removed or never filed as it says", "有内容被改动、删除或与记录不符")
    })?;
    let checks = verdict.checks.into_iter().map(|(check, good, what)| Checked { check, good, what }).collect();
    output.document(&VerifyDocument { result: Verification::of(is_valid), checks })?;
    Ok(if is_valid { Exit::Done } else { Exit::Failed })
}
