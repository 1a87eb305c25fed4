//! Whole stories with the built program: what an administrator types, judged by exit codes, JSON and plain SQL.

/// One test per story and engine, so that a failure names both.
macro_rules! stories {
    ($($engine:ident $kind:expr => [$($story:ident as $name:ident),* $(,)?];)*) => {$(
        mod $engine {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let place = Workplace::new();
                    if let Some(database) = Database::create($kind, place.path()) {
                        let names = load(&database);
                        $story(&place, &database, &names);
                    }
                }
            )*
        }
    )*};
}

mod about;
mod agent;
mod bad_input;
mod beside;
mod chinook;
mod copies;
mod crashes;
pub mod database;
mod drills;
mod failover;
mod honest;
mod increments;
mod keys;
mod lagging;
mod lint;
mod mapped_ids;
mod music;
mod mutations;
mod partial;
mod quickstart;
mod races;
mod recheck;
mod recovery;
mod residue;
mod shared;
pub mod small;
mod statutes;
pub mod workplace;
