//! The command line: the only folder that speaks to people, and the only one that knows exit codes.

pub mod output;
