//! Keys: the tree whose destroyed leaves make every copy of a record unreadable.
//!
//! Names follow NIST SP 800-57. `make_` draws from randomness, `derive_` is deterministic, `shred_` destroys.
//! A [`Key`] never leaves its box: it has no `Debug`, `Clone`, `Copy` or serde, and is wiped when dropped.

pub mod suite;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::random::{Random, RandomUnavailable};

/// A 256-bit secret key. Wiped on drop, never printable.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key(Box<[u8; 32]>);

impl Key {
    /// Draws a new random key.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn make(random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut key = Self(Box::new([0; 32]));
        random.fill(&mut key.0[..])?;
        Ok(key)
    }

    /// Takes a key over from bytes, which the caller must wipe.
    #[must_use]
    pub fn dangerous_from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Box::new(*bytes))
    }

    /// The bytes of the key. They must not be copied to anything that is not wiped.
    #[must_use]
    pub fn dangerous_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The exclusive-or of two keys: unknown as soon as either is.
    #[must_use]
    pub fn derive_xor(&self, other: &Self) -> Self {
        let mut key = Self(Box::new(*self.0));
        for (byte, with) in key.0.iter_mut().zip(other.0.iter()) {
            *byte ^= with;
        }
        key
    }
}
