//! The append-only log: one kind, used for the operation log and for the embedded audit service.
//!
//! A log is a Merkle tree of RFC 6962 ([`tree`]), whose head is signed as a C2SP checkpoint ([`checkpoint`]). Leaves
//! lie behind the port [`store::LeafStore`]; [`sequencer::Sequencer`] is the only writer; [`verify`] replays a whole
//! log.
//!
//! Invariants:
//! * A checkpoint is signed only after its leaves are durable, and only when it extends the one signed before.
//! * A store that is smaller than, or differs from, what was signed is never signed again: that is a rollback.
//! * The content of a leaf may expire; its entry and its hash stay, so the tree stays provable.

pub mod archive;
pub mod checkpoint;
pub mod cosignature;
pub mod excerpt;
pub mod key_file;
pub mod operations;
pub mod proofs;
pub mod prune;
pub mod record;
pub mod sequencer;
pub mod store;
#[cfg(test)]
mod tests;
pub mod tiles;
pub mod tree;
mod verifier_key;
pub mod verify;
