//! Keys: the tree whose destroyed leaves make every copy of a record unreadable.
//!
//! Names follow NIST SP 800-57. `make_` draws from randomness, `derive_` is deterministic, `shred_` destroys.
//! A [`Key`] never leaves its box: it has no `Debug`, `Clone`, `Copy` or serde, and is wiped when dropped.
//!
//! The way down: a root slot ([`slot`]) holds one root key per generation; it opens the crown of the key tree ([`tree`]), whose
//! leaves are the keys of subjects, buckets, chains, pins and works. Cells and frames ([`cell`]) are computed from those;
//! sealed columns of the control database ([`sealed`]) hang on one of them. [`rekey`] names the steps in which leaves are shredded.
//! Beside the tree are keys that applications seal fields with, in a key service ([`outside`]), and those that sign certificates
//! where they are not in a file ([`signing`]).

pub mod cell;
pub mod file_slot;
pub mod kms_slot;
pub mod moving_slot;
pub mod outside;
pub mod pkcs11_slot;
pub mod rekey;
pub mod sealed;
mod shelf_files;
pub mod signing;
pub mod slot;
mod slot_folder;
mod slot_shelf;
pub mod state;
pub mod suite;
#[cfg(test)]
pub(crate) mod testing;
pub mod transit_slot;
pub mod tree;
pub mod wrapped_root;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::random::{Random, RandomUnavailable};

/// A generation of the key tree: 1 for the first, one more with every shred. 64-bit and signed, as databases store it.
pub type Generation = i64;

/// The 16 random bytes that name an installation. They stand in the context of everything sealed, so that nothing of one
/// installation opens in another.
pub type InstallationId = [u8; 16];

/// A 256-bit secret key. Wiped on drop, never printable.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key(Box<[u8; 32]>);

impl Key {
    /// Draws a new random key.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn make(random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut key = Self::zero();
        random.fill(&mut key.0[..])?;
        Ok(key)
    }

    /// Takes a key over from bytes, which the caller must wipe.
    #[must_use]
    pub fn dangerous_from_bytes(bytes: &[u8; 32]) -> Self {
        let mut key = Self::zero();
        key.0.copy_from_slice(bytes);
        key
    }

    /// Room for a key, to be filled where it lies: a key that is moved into its box leaves a copy on the stack.
    fn zero() -> Self {
        Self(Box::new([0; 32]))
    }

    /// The bytes of the key. They must not be copied to anything that is not wiped.
    #[must_use]
    pub fn dangerous_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The two halves of the bytes, for ciphers with keys of 128 bits. As [`Key::dangerous_bytes`].
    fn halves(&self) -> [&[u8; 16]; 2] {
        let (halves, _) = self.0.as_chunks();
        [&halves[0], &halves[1]]
    }

    /// Whether both are the same key; takes the same time whatever the answer.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.has_bytes(&other.0)
    }

    /// Whether it is the key with these bytes; takes the same time whatever the answer.
    #[must_use]
    pub(crate) fn has_bytes(&self, bytes: &[u8; 32]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0[..], bytes).is_ok()
    }

    /// The exclusive-or of two keys: unknown as soon as either is.
    #[must_use]
    pub fn derive_xor(&self, other: &Self) -> Self {
        let mut key = Self::dangerous_from_bytes(&self.0);
        for (byte, with) in key.0.iter_mut().zip(other.0.iter()) {
            *byte ^= with;
        }
        key
    }
}
