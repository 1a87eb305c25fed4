//! Outside keys on a real OpenBao: an application seals fields of a small SQLite store with transit, and the agent destroys its
//! keys when their time is over.

pub mod clinic;
mod life;
mod program;
mod service;
mod trouble;
mod whole;
