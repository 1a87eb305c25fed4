//! What several suites need.

pub mod announce;
