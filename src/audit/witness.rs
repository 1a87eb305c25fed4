//! The port to witnesses of a log (C2SP tlog-witness); its adapter over HTTP is in `client/witness.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use crate::log::cosignature::Quorum;

/// What a witness answers to `add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessAnswer {
    /// It signed: signature lines, not checked yet.
    Signed(String),
    /// It knows the log at this size, and wants a proof from there.
    Knows(u64),
}

/// Why a witness did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WitnessFailed {
    /// No answer, or not the witness: try again later.
    #[error("the witness does not answer")]
    Unreachable,
    /// It does not know this log or its key; whoever runs it must add them.
    #[error("the witness does not know this log (status {0}); whoever runs it must add the log's key")]
    Unknown(u16),
    /// It saw another history of this log. Someone must look at once: two faces of one log, or a log that was rolled back.
    #[error("the witness has seen another history of this log")]
    OtherHistory,
}

/// A witness that can be asked.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Sends the body of an `add-checkpoint`.
    async fn add_checkpoint(&self, body: String) -> Result<WitnessAnswer, WitnessFailed>;
}

/// The witnesses of a log: their keys, and how to ask them, in the same order.
#[derive(Clone, Default)]
pub struct Witnesses {
    /// The keys, and how many must sign.
    pub quorum: Quorum,
    /// The ways to ask; fewer, where others ask them.
    pub clients: Vec<Arc<dyn Witness>>,
}
