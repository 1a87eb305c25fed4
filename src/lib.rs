//! wangchuan (忘川): a retention and secure-erasure agent for customer data.

pub mod agent;
pub mod audit;
pub mod backup;
pub mod certify;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crash_point;
pub mod erase;
pub mod error;
pub mod installation;
pub mod keyring;
pub mod keys;
pub mod log;
pub mod memory;
pub mod plan;
pub mod policy;
pub mod quickstart;
pub mod random;
pub mod schedule;
pub mod stop;
pub mod stores;
pub mod tasks;
pub mod telemetry;
pub mod value;
