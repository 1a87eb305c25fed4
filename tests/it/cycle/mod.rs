//! The whole library at work on a real shop: plan, erase, read back, back up, shred, certify, file, restore, drill.

pub mod adversary;
mod anonymised;
pub mod burnt_service;
mod burnt_site;
mod canaries;
mod ciphers;
pub mod crash;
mod crash_twice;
mod dying;
mod full;
mod increments;
mod interrupted;
mod late;
mod points;
mod prune;
mod pruned_chains;
mod rechecks;
mod refusals;
pub mod requests;
mod residual;
mod restores;
pub mod resumed;
mod returning;
mod second_place;
mod shared_cells;
pub mod thief;
mod undo;
