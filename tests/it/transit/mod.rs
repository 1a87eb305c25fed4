//! The root slot in OpenBao, on real servers with raft storage: the slot by itself, the shipped policy, the whole cycle, what
//! happens when something stops in the middle, moving the root, what an old copy of the service can do, the
//! keys of applications, and the key that signs certificates.

mod burnt;
mod copies;
pub mod cycle;
mod finality;
mod lives;
mod memory;
mod moving;
pub mod outside;
mod policy;
mod signing;
mod slot;
pub mod trouble;
