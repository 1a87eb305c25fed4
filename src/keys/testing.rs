//! What the tests of the keys share: repeatable randomness and the reader of the golden vectors.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Key;
use super::suite::{Suite, mac};
use crate::random::{Random, RandomUnavailable};

/// Random bytes that a seed determines: HMAC-SHA-256 of a counter.
pub struct SeededRandom {
    key: Key,
    counter: AtomicU64,
}

impl SeededRandom {
    pub fn new(seed: u8) -> Self {
        Self { key: key_of(seed), counter: AtomicU64::new(0) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
        for chunk in out.chunks_mut(32) {
            let counter = self.counter.fetch_add(1, Ordering::Relaxed);
            let block = mac(Suite::Intl, &self.key, &[&counter.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

/// Random bytes that are written down beforehand, for golden vectors; dry afterwards.
pub struct ScriptedRandom(std::sync::Mutex<Vec<u8>>);

impl ScriptedRandom {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(std::sync::Mutex::new(bytes))
    }
}

impl Random for ScriptedRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomUnavailable> {
        let mut left = self.0.lock().unwrap();
        if left.len() < out.len() {
            return Err(RandomUnavailable);
        }
        let rest = left.split_off(out.len());
        out.copy_from_slice(&left);
        *left = rest;
        Ok(())
    }
}

/// No randomness at all.
pub struct DryRandom;

impl Random for DryRandom {
    fn fill(&self, _: &mut [u8]) -> Result<(), RandomUnavailable> {
        Err(RandomUnavailable)
    }
}

/// A key of 32 equal bytes.
pub fn key_of(byte: u8) -> Key {
    Key::dangerous_from_bytes(&[byte; 32])
}

/// One golden vector: named hexadecimal strings, as `tests/vectors/keys/*.json` hold them.
pub struct Vector(serde_json::Value);

impl Vector {
    pub fn all(json: &str) -> Vec<Self> {
        let list: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
        assert!(!list.is_empty());
        list.into_iter().map(Self).collect()
    }

    pub fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("the vector has no {name}"))
    }

    pub fn number(&self, name: &str) -> i64 {
        self.0[name].as_i64().unwrap_or_else(|| panic!("the vector has no {name}"))
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        hex::decode(self.text(name)).unwrap()
    }

    pub fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap()
    }

    pub fn key(&self, name: &str) -> Key {
        Key::dangerous_from_bytes(&self.array(name))
    }

    pub fn list(&self, name: &str) -> Vec<Vector> {
        self.0[name].as_array().unwrap().iter().cloned().map(Vector).collect()
    }
}
