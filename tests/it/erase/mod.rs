//! The eraser on small SQLite databases, through the real adapter.

mod ground;
mod names;
mod references;
mod runs;
