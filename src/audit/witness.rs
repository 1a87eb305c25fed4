//! The port to witnesses of a log (C2SP tlog-witness); its adapter over HTTP is in `client/witness.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
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
    /// What it signed does not verify under its key.
    #[error("the witness's signature does not verify")]
    BadSignature,
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

/// What came of asking a witness for its signature under the log's newest head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witnessing {
    /// It signed, at this time by its own clock.
    Signed(DateTime<Utc>),
    /// It did not.
    Failed(WitnessFailed),
}

/// Where it is noted what came of asking witnesses, by the names of their keys.
#[async_trait]
pub trait WitnessNotes: Send + Sync {
    /// Notes it. What cannot be noted is told in the program's own log, and stops nothing.
    async fn note(&self, witness: &str, found: Witnessing);
}

/// The witnesses of a log: their keys, and how to ask them, in the same order.
#[derive(Clone, Default)]
pub struct Witnesses {
    /// The keys, and how many must sign.
    pub quorum: Quorum,
    /// The ways to ask; fewer, where others ask them.
    pub clients: Vec<Arc<dyn Witness>>,
    /// Where it is noted how they answer; nowhere, where nobody could read it.
    pub notes: Option<Arc<dyn WitnessNotes>>,
}
