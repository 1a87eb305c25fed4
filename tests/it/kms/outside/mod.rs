//! Outside keys in AWS KMS: an application seals fields of a small SQLite store with keys of the state machine, and the agent has
//! them deleted, which the service does only at a date.

mod life;
mod practice;
mod program;
mod service;
mod trouble;
