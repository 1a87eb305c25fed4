//! The eraser on small SQLite databases, through the real adapter.

mod ground;
mod references;
mod runs;
