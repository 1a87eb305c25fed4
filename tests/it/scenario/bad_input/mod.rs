//! Everything that is wrong sooner or later: each time the exit code, a message that names what, where and what to do, nothing
//! destroyed, and a correct run afterwards that goes on.

mod clerk;
mod configuration;
mod credentials;
mod disk_full;
mod interrupts;
mod schema;
mod servers;
pub mod surroundings;
