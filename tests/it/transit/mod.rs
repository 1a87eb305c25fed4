//! The root slot in OpenBao, on real servers with raft storage: the slot by itself, the shipped policy, the whole cycle, what
//! happens when something stops in the middle, moving the root, and what an old copy of the service can do.

mod copies;
pub mod cycle;
mod moving;
mod policy;
mod slot;
mod trouble;
