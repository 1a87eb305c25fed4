//! The operation log: records in, positions out. No append, no destructive act.

use std::sync::Arc;

use thiserror::Error;

use super::record::{Record, SALT_BYTES};
use super::sequencer::{Placement, Sequencer, SequencerError};
use crate::random::{Random, RandomUnavailable};

/// Why records were not logged. The caller must not go on with what it wanted to log.
#[derive(Debug, Error)]
pub enum OperationLogError {
    /// The log did not take them.
    #[error("the operation log could not be written")]
    Log(#[from] SequencerError),
    /// There is no randomness for the salts. Worth retrying.
    #[error("no salt for a log record")]
    Random(#[from] RandomUnavailable),
    /// A record's id is taken. Retrying does not help: ids must be new.
    #[error("a record with this id is in the operation log already")]
    IdTaken,
}

impl OperationLogError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Log(error) => error.is_retryable(),
            Self::Random(_) => true,
            Self::IdTaken => false,
        }
    }
}

/// Appends records to the operation log.
pub struct OperationLog {
    sequencer: Sequencer,
    random: Arc<dyn Random>,
}

impl OperationLog {
    /// A log over an opened sequencer.
    #[must_use]
    pub fn new(sequencer: Sequencer, random: Arc<dyn Random>) -> Self {
        Self { sequencer, random }
    }

    /// The sequencer below, for checkpoints and reading.
    #[must_use]
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// Appends the records durably, in order, and returns their indexes.
    pub async fn append(&self, records: &[Record]) -> Result<Vec<u64>, OperationLogError> {
        let mut leaves = Vec::with_capacity(records.len());
        for record in records {
            let mut salt = [0; SALT_BYTES];
            self.random.fill(&mut salt)?;
            leaves.push(record.to_leaf(salt));
        }
        let appended = self.sequencer.append(&leaves).await?;
        let index = |placement| match placement {
            Placement::Appended(index) | Placement::AlreadyThere(index) => Ok(index),
            Placement::Conflict(_) => Err(OperationLogError::IdTaken),
        };
        appended.placements.into_iter().map(index).collect()
    }
}
