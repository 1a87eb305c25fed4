//! Proof that others can check: what the program hands out, given to verifiers that were not written for it.

mod accountable;
mod acknowledged;
pub mod bundles;
mod closed;
mod contract;
mod delivery;
mod entries;
mod evidence_pack;
mod filing;
mod kills;
mod live;
mod media;
mod media_killed;
mod missing;
mod mutual_tls;
mod off_hours;
mod operations;
mod reader;
mod refused;
mod roll_up;
pub mod signing_keys;
mod sigstore_rust;
mod stamps;
mod told;
pub mod tools;
mod turned_down;
mod webhooks;
