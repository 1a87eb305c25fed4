//! The task that appends filings to the log, group by group, and makes their receipts.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::witnesses::Cosigned;
use crate::audit::receipt;
use crate::log::checkpoint::SignedCheckpoint;
use crate::log::proofs::ProofReader;
use crate::log::sequencer::{Placement, Sequencer, SequencerError};
use crate::log::store::{LeafStore, NewLeaf};

/// Filings per commit, at most.
const GROUP_FILINGS: usize = 256;

/// One filing on its way.
pub(super) struct Filing {
    pub leaf: NewLeaf,
    pub reply: oneshot::Sender<Result<Filed, FilingFailed>>,
}

/// What became of it.
pub(super) enum Filed {
    /// It is in the log; `new` unless it was there before.
    Receipt { new: bool, receipt: Vec<u8> },
    /// Another leaf with its id is there.
    Conflict,
}

/// The log did not take it.
pub(super) struct FilingFailed {
    pub retryable: bool,
}

/// Runs until every sender is gone and the queue is empty.
pub(super) async fn run_filing(sequencer: Arc<Sequencer>, cosigned: Arc<Cosigned>, mut queue: mpsc::Receiver<Filing>) {
    let mut group = Vec::with_capacity(GROUP_FILINGS);
    while queue.recv_many(&mut group, GROUP_FILINGS).await > 0 {
        let leaves: Vec<NewLeaf> = group.iter().map(|filing| filing.leaf.clone()).collect();
        match file_group(&sequencer, &cosigned, &leaves).await {
            Ok(outcomes) => {
                for (filing, outcome) in group.drain(..).zip(outcomes) {
                    // Nobody listens when the client went away; the leaf stays filed.
                    let _ = filing.reply.send(Ok(outcome));
                }
            }
            Err(error) => {
                let retryable = error.is_retryable();
                tracing::error!(error = %chain(&error), retryable, filings = group.len(), "filing failed");
                for filing in group.drain(..) {
                    let _ = filing.reply.send(Err(FilingFailed { retryable }));
                }
            }
        }
    }
}

async fn file_group(
    sequencer: &Sequencer,
    cosigned: &Cosigned,
    leaves: &[NewLeaf],
) -> Result<Vec<Filed>, SequencerError> {
    let appended = sequencer.append(leaves).await?;
    cosigned.ask(sequencer, &appended.checkpoint).await;
    let checkpoint = cosigned.best(appended.checkpoint).await;
    let mut reader = ProofReader::new(&**sequencer.store());
    let mut outcomes = Vec::with_capacity(leaves.len());
    for (leaf, placement) in leaves.iter().zip(appended.placements) {
        let (new, index) = match placement {
            Placement::Appended(index) => (true, index),
            Placement::AlreadyThere(index) => (false, index),
            Placement::Conflict(_) => {
                outcomes.push(Filed::Conflict);
                continue;
            }
        };
        let receipt = make_receipt(sequencer, &mut reader, &checkpoint, &leaf.entry, index).await?;
        outcomes.push(Filed::Receipt { new, receipt });
    }
    Ok(outcomes)
}

/// The receipt of a leaf under a signed head that covers it.
pub(super) async fn make_receipt(
    sequencer: &Sequencer,
    reader: &mut ProofReader<'_>,
    checkpoint: &SignedCheckpoint,
    body: &[u8],
    index: u64,
) -> Result<Vec<u8>, SequencerError> {
    let damaged = |what: &str| {
        let log = LeafStore::name(&**sequencer.store()).to_owned();
        SequencerError::Store(crate::log::store::LeafStoreError::Damaged { log, what: what.to_owned() })
    };
    let proof = reader.inclusion(index, checkpoint.checkpoint.size).await?;
    let proof = proof.ok_or_else(|| damaged("an entry lies beyond the signed head"))?;
    receipt::build(body, index, &proof, checkpoint, sequencer.key()).map_err(|_| damaged("a receipt cannot be encoded"))
}

/// An error with all its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
