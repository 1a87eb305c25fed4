//! Roots that lie on this host only as a key service wrapped them, and so may lie anywhere.
//!
//! A wrapped root opens nothing without the service, and nothing at all once the service has destroyed what it was wrapped
//! under: a copy of an old one is worth what the destruction is worth, and no less than the one that the slot has wiped. So the
//! copies lie in the second place, unsealed by anything else, for nothing else is left when a host is lost.
//!
//! Only a [`WrappingSlot`] makes a [`WrappedRoot`], and only that can be stored there. A slot that keeps the root itself
//! (the file) does not implement it: its root cannot get into a bucket by any mistake.

use async_trait::async_trait;

use super::slot::SlotError;
use super::{Generation, Key};

/// No wrapped root is longer, in bytes.
pub const WRAPPED_ROOT_LIMIT: usize = 16 << 10;

/// A root as its slot's service wrapped it.
pub struct WrappedRoot {
    generation: Generation,
    bytes: Vec<u8>,
}

impl WrappedRoot {
    /// For slots alone: `bytes` must open nothing without their service.
    pub(in crate::keys) fn new(generation: Generation, bytes: Vec<u8>) -> Self {
        Self { generation, bytes }
    }

    /// Its generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What may be stored elsewhere.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A slot whose service wraps roots, and that keeps nothing but the wrapped form.
#[async_trait]
pub trait WrappingSlot: Send + Sync {
    /// The wrapped root of a generation; `None` when it is not in this slot.
    async fn wrapped(&self, generation: Generation) -> Result<Option<WrappedRoot>, SlotError>;

    /// Opens a copy that was stored elsewhere; the slot is not changed.
    ///
    /// # Errors
    /// As [`super::slot::RootSlot::open`]. Of one whose root was destroyed it is said what is gone: the service's version
    /// ([`SlotError::VersionGone`]), its key ([`SlotError::KeyUnusable`]), the token's key ([`super::slot::TokenError::KeyGone`]).
    async fn open_copy(&self, generation: Generation, copy: &[u8]) -> Result<Key, SlotError>;

    /// Puts a copy into the slot where the slot has none of that generation, or one from an earlier attempt at it. Whether it did:
    /// a root that the service has destroyed is not put back, but what is needed to read its end back is.
    async fn put_back(&self, generation: Generation, copy: &[u8]) -> Result<bool, SlotError>;
}
