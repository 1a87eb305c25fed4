//! Batches that share what is stored of them: one transaction of the control database for the intents of several, and one for their
//! outcomes, each of which waits for the disk once. In the store each is a transaction of its own all the same.
//!
//! A chunk whose intent is stored counts as running, although its turn may not have come. After a crash it is carried out then, or settled
//! by its marker, like any other; while the run lives, an intent that will not be followed soon is taken back.

use super::batch::{ChunkOutcome, Gone, RunKeys, Work, since};
use super::chunk::{ChunkItem, open_items, place_of};
use super::pace::Took;
use super::survey::Target;
use super::{EraseError, Ground};
use crate::control::{ChunkCounts, ChunkRow, LedgerKind, RunRow};
use crate::crash_point;
use crate::plan::digest::row_mac;

/// A chunk whose transaction was committed in its store, and whose outcome is still to be stored.
pub struct Ended {
    chunk: ChunkRow,
    counts: ChunkCounts,
    gone: Vec<Gone>,
    note: Option<String>,
    took: Took,
}

impl Ended {
    /// The outcome.
    #[must_use]
    pub fn outcome(&self) -> ChunkOutcome {
        ChunkOutcome { counts: self.counts, note: self.note.clone(), took: Some(self.took) }
    }
}

/// What became of a chunk whose turn came.
pub enum Turn {
    /// Its transaction was committed.
    Ended(Box<Ended>),
    /// It came to nothing, for good; that is stored already.
    Failed(ChunkOutcome),
}

/// The intent to carry a chunk out, ready to be stored.
pub struct Intent {
    /// The chunk.
    pub chunk: ChunkRow,
    macs: Vec<[u8; 16]>,
}

impl Intent {
    /// The intent for a chunk.
    ///
    /// # Errors
    /// When its list does not open.
    pub fn of(run: &RunRow, keys: &RunKeys, chunk: ChunkRow) -> Result<Self, EraseError> {
        let items = open_items(&keys.plan, run.plan.as_deref().unwrap_or_default(), chunk.number, &chunk.sealed)?;
        let mac = |item: &ChunkItem| row_mac(&keys.suppression, &chunk.store, &chunk.collection, &item.row.key);
        let macs = items.iter().map(mac).collect();
        Ok(Self { chunk, macs })
    }
}

/// What is to be stored of several chunks at once.
#[derive(Default)]
pub struct Entry<'a> {
    /// Outcomes.
    pub ended: &'a [Ended],
    /// Chunks that are replaced by their pieces, by number.
    pub cut: &'a [(i64, Vec<ChunkRow>)],
    /// Intents.
    pub begun: &'a [Intent],
    /// Intents that are taken back: nothing of these was begun.
    pub released: &'a [ChunkRow],
}

impl Entry<'_> {
    fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.cut.is_empty() && self.begun.is_empty() && self.released.is_empty()
    }
}

/// Stores all of it in one transaction.
///
/// # Errors
/// When the control database fails; then nothing was stored.
pub async fn store(ground: &Ground<'_>, run: &RunRow, entry: Entry<'_>) -> Result<(), EraseError> {
    if entry.is_empty() {
        return Ok(());
    }
    let plan = run.plan.as_deref().unwrap_or_default();
    let now = ground.clock.now();
    let mut tx = ground.control.begin().await?;
    for Ended { chunk, counts, gone, note, .. } in entry.ended {
        tx.end_chunk(run, chunk, *counts, gone, note.as_deref()).await?;
    }
    for chunk in entry.released {
        tx.release_chunk(run, chunk).await?;
    }
    for (number, pieces) in entry.cut {
        tx.cut_chunk(plan, *number, pieces).await?;
    }
    for Intent { chunk, macs } in entry.begun {
        tx.begin_chunk(run, chunk, LedgerKind::of_verdict(&chunk.verdict), macs, now).await?;
    }
    tx.commit().await?;
    for _ in entry.ended {
        crash_point::reached("batch.recorded");
    }
    for _ in entry.begun {
        crash_point::reached("batch.intended");
    }
    if !entry.released.is_empty() {
        crash_point::reached("batch.released");
    }
    Ok(())
}

/// The transaction of a chunk whose intent is stored.
///
/// # Errors
/// When the store fails before anything was changed, or nobody can tell whether something was.
pub async fn take_turn(
    ground: &Ground<'_>,
    (run, token): (&RunRow, i64),
    chunk: &ChunkRow,
    keys: &RunKeys,
    target: &Target,
) -> Result<Turn, EraseError> {
    let (site, collection) = place_of(ground, chunk)?;
    let items = open_items(&keys.plan, run.plan.as_deref().unwrap_or_default(), chunk.number, &chunk.sealed)?;
    let work = Work { ground, site, collection, run, chunk, keys, items: &items, token };
    let begun = ground.clock.now();
    match work.transaction(target).await {
        Ok((marker, gone, note, commit)) => {
            let took = Took::new(since(ground, begun), commit);
            crash_point::reached("batch.committed");
            let (counts, note) = work.outcome(&marker, note);
            Ok(Turn::Ended(Box::new(Ended { chunk: chunk.clone(), counts, gone, note, took })))
        }
        Err(error) => Ok(Turn::Failed(work.fail(error).await?)),
    }
}
