//! The tests.

mod store_contract;
