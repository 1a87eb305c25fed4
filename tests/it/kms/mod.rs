//! The root slot in AWS KMS. What AWS promises is tried on a state machine of our own (`support/kms/`), the shapes of its protocol
//! on moto. Nothing here ever ran against AWS itself.

mod burnt;
mod cycle;
mod moto;
pub mod moving;
mod outside;
mod program;
mod slot;
mod trouble;
