//! Copies of the wrapped roots, for a second place: the files of the shelf as they are. They open nothing without the token.

use std::path::Path;

use async_trait::async_trait;

use super::{Inner, Pkcs11Slot, Result};
use crate::keys::slot::{SlotError, TokenError};
use crate::keys::slot_shelf::{COPY, Kind};
use crate::keys::wrapped_root::{WrappedRoot, WrappingSlot};
use crate::keys::{Generation, Key};

#[async_trait]
impl WrappingSlot for Pkcs11Slot {
    async fn wrapped(&self, generation: Generation) -> Result<Option<WrappedRoot>> {
        let shelf = self.inner.shelf.clone();
        let read = move || {
            shelf.files.check()?;
            shelf.get(generation, Kind::Wrapped)?.map(|record| shelf.files.encode(&record)).transpose()
        };
        Ok(self.blocking(move |_| read()).await?.map(|bytes| WrappedRoot::new(generation, bytes)))
    }

    async fn open_copy(&self, generation: Generation, copy: &[u8]) -> Result<Key> {
        let copy = self.inner.shelf.read_copy(copy, generation)?;
        self.blocking(move |inner| inner.open_record(&copy, Path::new(COPY))).await
    }

    async fn put_back(&self, generation: Generation, copy: &[u8]) -> Result<bool> {
        let copy = copy.to_vec();
        self.blocking(move |inner| inner.put_back(generation, &copy)).await
    }
}

impl Inner {
    /// What of a destroyed root must be known to read its end back lies in the token, so nothing is put back for one.
    fn put_back(&self, generation: Generation, copy: &[u8]) -> Result<bool> {
        let copy = self.shelf.read_copy(copy, generation)?;
        let _lock = self.shelf.files.lock()?;
        match self.open_record(&copy, Path::new(COPY)) {
            Ok(_) => {}
            // Destroyed, or of an attempt at this generation that was given up.
            Err(SlotError::Token(TokenError::KeyGone { .. }) | SlotError::Damaged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let there = match self.shelf.get(generation, Kind::Wrapped) {
            Err(SlotError::Damaged { .. }) => None,
            record => record?,
        };
        if let Some(there) = there
            && (there == copy || self.open_record(&there, Path::new(COPY)).is_ok())
        {
            return Ok(false);
        }
        self.shelf.put(generation, Kind::Wrapped, copy.version, copy.root)?;
        Ok(true)
    }
}
