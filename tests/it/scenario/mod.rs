//! Whole stories with the built program: what an administrator types, judged by exit codes, JSON and plain SQL.

mod agent;
mod bad_input;
mod chinook;
mod crashes;
pub mod database;
mod drills;
mod keys;
mod music;
mod quickstart;
mod recovery;
pub mod small;
pub mod workplace;
