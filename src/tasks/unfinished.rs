//! What an interrupted process leaves to the next one, read from the control database alone.

use crate::control::Control;

use super::Result;
use super::erasure::RunBody;

/// A run that was begun and whose keys are not marked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRun {
    /// Its id.
    pub id: String,
    /// Batches with an outcome, out of all.
    pub batches: [usize; 2],
    /// Rows that are gone from the live stores.
    pub erased: i64,
    /// Rows that were due.
    pub due: i64,
}

/// Everything that the next pass goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unfinished {
    /// Runs in the middle.
    pub runs: Vec<UnfinishedRun>,
    /// Runs that are being undone, by id.
    pub undoing: Vec<String>,
    /// Requests that wait to be carried out.
    pub requests: usize,
    /// Runs whose rows are gone and whose keys are still there.
    pub to_shred: usize,
    /// Certificates without a receipt.
    pub unfiled: usize,
}

/// Looks.
///
/// # Errors
/// When the control database cannot be read or contradicts itself.
pub async fn find_unfinished(control: &Control) -> Result<Unfinished> {
    let mut tx = control.read().await?;
    let mut found = Unfinished {
        requests: tx.requests(Some("received")).await?.len(),
        to_shred: tx.runs(Some("shred-pending")).await?.len(),
        undoing: tx.runs(Some("undoing")).await?.into_iter().map(|run| run.id).collect(),
        unfiled: tx.outbox(Some("pending")).await?.len(),
        ..Unfinished::default()
    };
    for state in ["approved", "deleted", "verified"] {
        for run in tx.runs(Some(state)).await? {
            let chunks = tx.chunks(run.plan.as_deref().unwrap_or_default()).await?;
            let batches: Vec<_> = chunks.iter().filter(|chunk| chunk.is_work()).collect();
            let done = batches.iter().filter(|chunk| chunk.state == "done");
            found.runs.push(UnfinishedRun {
                batches: [done.clone().count(), batches.len()],
                erased: done.map(|chunk| chunk.counts.erased).sum(),
                due: RunBody::of(&run)?.due,
                id: run.id,
            });
        }
    }
    Ok(found)
}
