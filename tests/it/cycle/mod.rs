//! The whole library at work on a real shop: plan, erase, read back, back up, shred, certify, file, restore, drill.

mod full;
