//! What several suites need.

pub mod announce;
pub mod bao;
pub mod control_database;
pub mod dice;
pub mod kms;
pub mod logged;
pub mod memory_scan;
pub mod moto;
pub mod ports;
pub mod program;
pub mod proxy;
pub mod replica;
pub mod rgw;
pub mod search;
pub mod softhsm;
pub mod source;
pub mod tsa;
pub mod world;
