//! `drill verify`: the chain of records, from the first to the newest.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Words, shapes};
use crate::installation::Needs;
use crate::tasks::drill::{ChainProblem, verify_records};

/// The JSON of `drill verify`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VerifyDocument {
    /// `valid`, `invalid` with exit code 1, `nothing-found` without drills.
    result: shapes::Verification,
    /// Records that are there.
    records: u64,
    /// What does not fit.
    problems: Vec<BrokenRecord>,
}

/// A record that was changed, or is missing.
#[derive(Debug, Serialize, JsonSchema)]
struct BrokenRecord {
    /// The drill; null where only its number is known.
    drill: Option<String>,
    /// Its number; null where only its id is known.
    number: Option<u64>,
    /// What is wrong with it.
    what: String,
}

impl Document for VerifyDocument {
    const OF: &'static [&'static str] = &["drill verify"];
}

/// Checks all records: signatures, numbers, that each continues the one before it, and that none of those in the operation log is
/// missing.
pub async fn verify(context: &mut Context<'_>) -> CommandResult {
    let installation = context.open(Needs::STATE).await?;
    let (rows, problems) = verify_records(&installation).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    let output = &mut *context.output;
    for problem in &problems {
        let name = name_of(problem);
        output.line(&format!("✗ {name}: {}", problem.what))?;
    }
    let records = rows.len() as u64;
    let (result, exit) = match (rows.is_empty(), problems.is_empty()) {
        (_, false) => (shapes::Verification::Invalid, Exit::Failed),
        (true, true) => (shapes::Verification::NothingFound, Exit::Done),
        (false, true) => (shapes::Verification::Valid, Exit::Done),
    };
    match result {
        shapes::Verification::NothingFound => output.say(&Words::new(
            "there was no drill yet; `wangchuan drill run` does one",
            "还没有演练；`wangchuan drill run` 可以做一次",
        ))?,
        shapes::Verification::Valid => output.say(&Words::new(
            format!("✓ records: {}, signed and without a gap", grouped(records)),
            format!("✓ {} 份记录，签名有效，没有缺漏", grouped(records)),
        ))?,
        _ => {}
    }
    let problems = problems.into_iter().map(|ChainProblem { drill, number, what }| BrokenRecord {
        drill,
        number,
        what: what.to_owned(),
    });
    output.document(&VerifyDocument { result, records, problems: problems.collect() })?;
    Ok(exit)
}

fn name_of(problem: &ChainProblem) -> String {
    match (&problem.drill, problem.number) {
        (Some(drill), Some(number)) => format!("{number} ({drill})"),
        (Some(drill), None) => drill.clone(),
        (None, number) => number.map(|number| number.to_string()).unwrap_or_default(),
    }
}
