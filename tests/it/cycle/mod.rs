//! The whole library at work on a real shop: plan, erase, read back, back up, shred, certify, file, restore, drill.

mod canaries;
mod crash;
mod dying;
mod full;
mod late;
mod refusals;
mod requests;
mod restores;
mod returning;
mod shared_cells;
mod thief;
mod undo;
