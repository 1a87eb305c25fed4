//! The eraser on small SQLite databases, through the real adapter.

mod anonymise;
mod approvals;
mod circles;
mod edited;
mod generated;
mod gentle;
pub mod ground;
mod groups;
mod names;
mod owners;
mod references;
mod resumed;
mod runs;
mod waiting;
