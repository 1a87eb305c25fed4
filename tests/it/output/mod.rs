//! The JSON contract from outside: every command is run with `--json`; its document must be as the published schema says and
//! equal its snapshot. After a wanted change `WANGCHUAN_UPDATE_SNAPSHOTS=1` renews the snapshots.

mod errors;
mod normal;
pub mod schema;
pub mod snapshot;
mod stories;
