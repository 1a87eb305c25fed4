//! The operation log: records in, positions out. No append, no destructive act.

use std::sync::Arc;

use thiserror::Error;

use super::record::{Record, SALT_BYTES};
use super::sequencer::{Placement, Sequencer, SequencerError};
use super::store::NewLeaf;
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
    /// A record cannot be written as JSON. Retrying does not help.
    #[error("a record of the operation log could not be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl OperationLogError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Log(error) => error.is_retryable(),
            Self::Random(_) => true,
            Self::IdTaken | Self::Json(_) => false,
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
        let leaves: Result<Vec<NewLeaf>, _> =
            records.iter().map(|record| salted(record, self.random.as_ref())).collect();
        self.append_salted(&leaves?).await
    }

    /// The same of records that have their salts. A try that failed behind the store may have left them there: with the same salts
    /// they are found, and are no others under the same ids.
    pub async fn append_salted(&self, leaves: &[NewLeaf]) -> Result<Vec<u64>, OperationLogError> {
        let appended = self.sequencer.append(leaves).await?;
        let index = |placement| match placement {
            Placement::Appended(index) | Placement::AlreadyThere(index) => Ok(index),
            Placement::Conflict(_) => Err(OperationLogError::IdTaken),
        };
        appended.placements.into_iter().map(index).collect()
    }
}

/// A record with a fresh salt, as the log takes it.
pub fn salted(record: &Record, random: &dyn Random) -> Result<NewLeaf, OperationLogError> {
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt)?;
    Ok(record.to_leaf(salt)?)
}
