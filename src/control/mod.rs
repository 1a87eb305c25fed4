//! Placeholder to be written.

pub mod log_store;
