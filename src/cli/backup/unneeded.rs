//! `backup unneeded`: what lies in the bucket and nothing needs any more: of the agent's state, and of pruned snapshots. It is named,
//! not removed.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::CommandResult;
use super::super::context::{Context, task_error};
use super::super::output::table::grouped;
use super::super::output::{Document, Exit, Outcome, Words};
use super::has_bucket;
use crate::backup::object_store::ListedObject;
use crate::installation::{Installation, Needs};
use crate::keyring::second_place::StateCheck;
use crate::tasks::TaskError;
use crate::tasks::prune::unneeded_objects;

/// The JSON of `backup unneeded`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnneededDocument {
    /// `complete`, `nothing-found`, or `failed` when the newest state is not as it was stored: then nothing is named.
    result: Outcome,
    /// The number of the newest state record; null while there is none.
    record: Option<i64>,
    /// Objects that nothing needs any more, by their names below the prefix.
    objects: Vec<UnneededObject>,
    /// Their bytes.
    bytes: u64,
    /// What is wrong with the newest state.
    problems: Vec<String>,
}

impl Document for UnneededDocument {
    const OF: &'static [&'static str] = &["backup unneeded"];
}

/// An object that nothing needs any more.
#[derive(Debug, Serialize, JsonSchema)]
struct UnneededObject {
    /// Its name.
    object: String,
    /// Its bytes.
    bytes: u64,
}

impl UnneededDocument {
    fn of(mut check: StateCheck, of_snapshots: Vec<ListedObject>) -> Self {
        check.unneeded.extend(of_snapshots);
        let problems: Vec<String> = check.problems.iter().map(|(object, what)| format!("{object}: {what}")).collect();
        // What a damaged newest state does not name may be what it is to be mended from.
        let bytes = if problems.is_empty() { check.unneeded_bytes() } else { 0 };
        let named = if problems.is_empty() { check.unneeded } else { Vec::new() };
        let objects: Vec<UnneededObject> =
            named.into_iter().map(|found| UnneededObject { object: found.name, bytes: found.bytes }).collect();
        let result = match (problems.is_empty(), objects.is_empty()) {
            (false, _) => Outcome::Failed,
            (true, is_empty) => Outcome::of_list(is_empty),
        };
        let record = check.record.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        Self { result, record, objects, bytes, problems }
    }
}

/// `backup unneeded`. Takes the lease: what another process is just storing would look unneeded.
pub async fn unneeded(context: &mut Context<'_>) -> CommandResult {
    context.only_now()?;
    let needs = Needs { backup: true, lease: true, ..Needs::STATE };
    let installation = has_bucket(context.open(needs).await?).await?;
    let document = read(&installation).await.map_err(task_error)?;
    installation.close().await.map_err(task_error)?;
    for UnneededObject { object, .. } in &document.objects {
        context.output.line(object)?;
    }
    for problem in &document.problems {
        context.output.line(&format!("✗ {problem}"))?;
    }
    let (count, bytes) = (grouped(document.objects.len() as u64), grouped(document.bytes));
    context.output.note(&Words::new(
        format!("{count} objects, {bytes} bytes: nothing needs them any more. They are not removed; that takes a right of its own"),
        format!("{count} 个对象，{bytes} 字节：已不再需要。本程序不删除它们；删除需要另外的权限"),
    ))?;
    let exit = if document.result == Outcome::Failed { Exit::Failed } else { Exit::Done };
    context.output.document(&document)?;
    Ok(exit)
}

async fn read(installation: &Installation) -> Result<UnneededDocument, TaskError> {
    // Without one there is nothing to be needed or not.
    let check = installation.keyring.check_state(&installation.control).await?.unwrap_or_default();
    Ok(UnneededDocument::of(check, unneeded_objects(installation).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_named_while_the_newest_state_is_damaged() {
        let unneeded = vec![ListedObject { name: "state/old".to_owned(), bytes: 7 }];
        let good = StateCheck { record: Some(3), objects_read: 2, problems: Vec::new(), unneeded };
        let document = UnneededDocument::of(good.clone(), Vec::new());
        assert_eq!((document.result, document.objects.len(), document.bytes), (Outcome::Complete, 1, 7));
        let pack = ListedObject { name: "packs/old".to_owned(), bytes: 5 };
        let document = UnneededDocument::of(good.clone(), vec![pack]);
        assert_eq!((document.objects.len(), document.bytes), (2, 12));
        let bad = StateCheck { problems: vec![("state-parts/x".to_owned(), "gone".to_owned())], ..good };
        let document = UnneededDocument::of(bad, Vec::new());
        assert_eq!((document.result, document.objects.len(), document.bytes), (Outcome::Failed, 0, 0));
        assert_eq!(UnneededDocument::of(StateCheck::default(), Vec::new()).result, Outcome::NothingFound);
    }
}
