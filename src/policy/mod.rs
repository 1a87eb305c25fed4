//! Policy: what must go, when, and what must stay. Pure: no I/O, no clock, no randomness.

pub mod calendar;
pub mod classification;
pub mod hold;
pub mod mask;
pub mod registry;
pub mod start;
pub mod statute;
