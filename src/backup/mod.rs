//! Backups.

pub mod codec;
pub mod directory;
pub mod embedded;
pub mod envelope;
pub mod frame;
pub mod group;
pub mod manifest;
pub mod memory;
pub mod object_store;
pub mod pack;
pub mod repository;
pub mod schema;
pub mod verify;
