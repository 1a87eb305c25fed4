//! How every command speaks: two languages, tables, progress, one JSON document, errors with a way out, exit codes.
//!
//! Invariants:
//! * What is printed as JSON is a [`Document`]: a type with a published schema and a snapshot, never a value made up in place.
//! * With `--json`, standard output carries exactly one JSON document (or NDJSON for streams) and nothing else; words for
//!   people go to standard error.
//! * Text that came from elsewhere (names of tables, driver messages) never reaches a terminal with its control characters.
//! * The chain of causes of an error is printed once, here.

pub mod document;
pub mod error_report;
pub mod exit;
pub mod lang;
pub mod progress;
pub mod screen;
pub mod shapes;
pub mod table;
#[cfg(test)]
pub(super) mod testing;

pub use document::{Document, Output};
pub use error_report::UserError;
pub use exit::Exit;
pub use lang::{Lang, Words, say};
pub use progress::Progress;
pub use screen::{Screen, harmless};
pub use shapes::Outcome;
pub use table::Grid;
