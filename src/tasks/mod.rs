//! What a job or a command can do, one file per task. All of them work on an opened [`crate::installation::Installation`],
//! and the agent, the command line and the drill call the same functions.

pub mod about;
pub mod approval;
pub mod audit;
pub mod backup;
pub mod certify;
pub mod doomed;
pub mod drill;
pub mod erasure;
pub mod evidence_pack;
pub mod finality;
pub mod incident;
pub mod key_check;
pub mod key_due;
pub mod key_move;
pub mod locks;
pub mod media;
pub mod oplog;
pub mod orders;
pub mod outbox;
pub mod outcome;
pub mod outside;
pub mod prune;
pub mod read_chain;
mod read_pack;
pub mod read_snapshot;
pub mod recheck;
pub mod report;
pub mod request;
pub mod residue;
pub mod restore;
pub mod selection;
pub mod settle;
pub mod shred;
pub mod signing_keys;
pub mod site_drill;
pub mod stamps;
pub mod status;
pub mod statute_diff;
pub mod trace;
pub mod trust;
pub mod undo;
pub mod unfinished;
mod witnesses;

pub use crate::error::{Result, TaskError};
