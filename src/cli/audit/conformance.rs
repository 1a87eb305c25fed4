//! `audit conformance`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::shapes::Verification;
use super::super::output::{Document, Exit, UserError, Words};
use crate::audit::client::conformance::{Conformance, Finding};
use crate::installation::{Installation, Needs};

/// One rule of the contract.
#[derive(Debug, Serialize, JsonSchema)]
struct Tried {
    /// Its name.
    rule: &'static str,
    /// What the contract wants.
    wanted: &'static str,
    /// Whether the service keeps it.
    good: bool,
    /// Whether filing fails or proves less without it; the others are recommendations.
    required: bool,
    /// What was found.
    found: String,
}

/// The JSON of `audit conformance`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConformanceDocument {
    /// `valid` when every required rule is kept; otherwise `invalid` with exit code 1.
    result: Verification,
    /// All rules that were tried.
    rules: Vec<Tried>,
}

impl Document for ConformanceDocument {
    const OF: &'static [&'static str] = &["audit conformance"];
}

/// Exit code 1 when a required rule is broken.
pub async fn conformance(context: &mut Context<'_>) -> CommandResult {
    context.only_now()?;
    let installation = context.open(Needs { stores: false, ..Needs::ALL }).await?;
    let findings = run(&installation).await;
    installation.close().await.map_err(task_error)?;
    let findings = findings?;
    let output = &mut *context.output;
    for finding in &findings {
        let mark = match (finding.good, finding.required) {
            (true, _) => "✓",
            (false, true) => "✗",
            (false, false) => "○",
        };
        output.line(&format!("{mark} {}: {} — {}", finding.rule, finding.wanted, finding.found))?;
    }
    let is_kept = findings.iter().all(|finding| finding.good || !finding.required);
    output.say(&if is_kept {
        Words::new("every required rule is kept", "所有必要规则均符合")
    } else {
        Words::new("the service breaks rules that filing relies on (✗)", "该服务违反了存证所依赖的规则（✗）")
    })?;
    let rule = |Finding { rule, wanted, good, required, found }| Tried { rule, wanted, good, required, found };
    let rules = findings.into_iter().map(rule).collect();
    output.document(&ConformanceDocument { result: Verification::of(is_kept), rules })?;
    Ok(if is_kept { Exit::Done } else { Exit::Failed })
}

async fn run(installation: &Installation) -> Result<Vec<Finding>, UserError> {
    let mut tx = installation.control.read().await.map_err(|error| task_error(error.into()))?;
    let filed = tx.newest_receipted().await.map_err(|error| task_error(error.into()))?;
    drop(tx);
    let Some(certificate) = filed else {
        let what =
            Words::new("no certificate is filed yet, and the contract is tried with one", "尚无已存证的证书可用于测试");
        return Err(UserError::new(Exit::Failed, "NOT_FILED", what)
            .advise("file one first: `wangchuan audit flush`", "请先存证：`wangchuan audit flush`"));
    };
    let client = &installation.audit().map_err(task_error)?.client;
    Ok(Conformance::new(client).run(&certificate.id, &certificate.envelope).await)
}
