//! The quickstart: a working directory with a sample shop, in which the whole cycle runs once.

pub mod shop;
