//! Copies of the wrapped roots, for a second place: the files of the shelf as they are.

use async_trait::async_trait;

use super::{Result, TransitSlot};
use crate::keys::slot_shelf::Kind;
use crate::keys::wrapped_root::{WrappedRoot, WrappingSlot};
use crate::keys::{Generation, Key};

#[async_trait]
impl WrappingSlot for TransitSlot {
    async fn wrapped(&self, generation: Generation) -> Result<Option<WrappedRoot>> {
        let found = self.on_shelf(move |shelf| {
            shelf.files.check()?;
            shelf.get(generation, Kind::Wrapped)?.map(|record| shelf.files.encode(&record)).transpose()
        });
        Ok(found.await?.map(|bytes| WrappedRoot::new(generation, bytes)))
    }

    async fn open_copy(&self, generation: Generation, copy: &[u8]) -> Result<Key> {
        self.open_wrapped(&self.shelf.read_copy(copy, generation)?).await
    }

    async fn put_back(&self, generation: Generation, copy: &[u8]) -> Result<bool> {
        let copy = self.shelf.read_copy(copy, generation)?;
        let _lock = self.on_shelf(|shelf| shelf.files.lock()).await?;
        let is_gone = copy.version < self.key_state().await?.lowest();
        self.on_shelf(move |shelf| {
            let there = shelf.get(generation, Kind::Wrapped)?.or(shelf.get(generation, Kind::Gone)?);
            if there.is_some_and(|there| there.version >= copy.version) {
                return Ok(false);
            }
            // Of a destroyed root it is remembered under which version it was: that is what a read-back asks the service for.
            let kind = if is_gone { Kind::Gone } else { Kind::Wrapped };
            shelf.put(generation, kind, copy.version, copy.root.filter(|_| !is_gone))?;
            Ok(!is_gone)
        })
        .await
    }
}
