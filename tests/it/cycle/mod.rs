//! The whole library at work on a real shop: plan, erase, read back, back up, shred, certify, file, restore, drill.

mod adversary;
mod burnt_site;
mod canaries;
pub mod crash;
mod crash_twice;
mod dying;
mod full;
mod late;
mod prune;
mod refusals;
pub mod requests;
mod residual;
mod restores;
mod returning;
mod second_place;
mod shared_cells;
pub mod thief;
mod undo;
