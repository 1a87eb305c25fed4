//! Proof that others can check: what the program hands out, given to verifiers that were not written for it.

mod bundles;
mod filing;
mod live;
mod operations;
mod reader;
mod tools;
