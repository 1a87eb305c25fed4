//! The tests that use the program from outside. One binary, because linking costs more than running.
#![cfg(test)]

mod cycle;
mod erase;
mod faults;
mod fuzz;
mod kms;
mod life;
mod model;
mod output;
mod pkcs11;
mod proof;
mod rgw;
mod scenario;
mod slot_contract;
mod store_contract;
mod suites;
mod support;
mod tidy;
mod transit;
