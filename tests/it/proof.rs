//! Proof that others can check: what the program hands out, given to verifiers that were not written for it.

mod bundles;
mod contract;
mod delivery;
mod filing;
mod kills;
mod live;
mod mutual_tls;
mod operations;
mod reader;
mod roll_up;
mod tools;
mod webhooks;
