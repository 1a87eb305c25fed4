//! What several suites need.

pub mod announce;
pub mod source;
pub mod world;
