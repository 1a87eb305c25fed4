//! What several suites need.

pub mod announce;
pub mod source;
