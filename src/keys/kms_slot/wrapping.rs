//! Copies of the wrapped roots, for a second place: the files of the shelf as they are.

use std::path::Path;

use async_trait::async_trait;

use super::shelf::{Record, Shelf};
use super::{KmsSlot, Result};
use crate::keys::shelf_files::{COPY, Kind};
use crate::keys::slot::SlotError;
use crate::keys::wrapped_root::{WrappedRoot, WrappingSlot};
use crate::keys::{Generation, Key};

#[async_trait]
impl WrappingSlot for KmsSlot {
    async fn wrapped(&self, generation: Generation) -> Result<Option<WrappedRoot>> {
        let found = self.on_shelf(move |shelf| {
            shelf.files.check()?;
            shelf.get(generation, Kind::Wrapped)?.map(|record| shelf.files.encode(&record)).transpose()
        });
        Ok(found.await?.map(|bytes| WrappedRoot::new(generation, bytes)))
    }

    async fn open_copy(&self, generation: Generation, copy: &[u8]) -> Result<Key> {
        self.open_record(&self.shelf.read_copy(copy, generation)?, Path::new(COPY)).await
    }

    async fn put_back(&self, generation: Generation, copy: &[u8]) -> Result<bool> {
        let copy = self.shelf.read_copy(copy, generation)?;
        let _lock = self.on_shelf(|shelf| shelf.files.lock()).await?;
        let opened = self.open_record(&copy, Path::new(COPY)).await;
        let (wrapped, gone) = self.on_shelf(move |shelf| on_this_host(shelf, generation)).await?;
        match opened {
            Ok(_) => {}
            // Which keys it had is what a read-back asks the service for. One that is switched off may be one whose deletion was
            // called off: its end is begun again, and nothing of it is put back.
            Err(SlotError::KeyUnusable { .. }) if wrapped.is_none() && gone.is_none() => {
                self.on_shelf(move |shelf| shelf.put(generation, Kind::Gone, copy.keys, None)).await?;
                return Ok(false);
            }
            // Of an attempt at this generation that was given up, or here already.
            Err(SlotError::KeyUnusable { .. } | SlotError::Damaged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        if gone.is_some_and(|gone| copy.keys.iter().all(|key| gone.keys.contains(key))) {
            return Ok(false);
        }
        if let Some(there) = wrapped
            && (there == copy || self.open_record(&there, Path::new(COPY)).await.is_ok())
        {
            return Ok(false);
        }
        self.on_shelf(move |shelf| shelf.put(generation, Kind::Wrapped, copy.keys, copy.root)).await?;
        Ok(true)
    }
}

/// What this host has of a generation: its wrapped root, and what became of it. A damaged record is as good as none.
fn on_this_host(shelf: &Shelf, generation: Generation) -> Result<(Option<Record>, Option<Record>)> {
    let read = |kind| match shelf.get(generation, kind) {
        Err(SlotError::Damaged { .. }) => Ok(None),
        record => record,
    };
    Ok((read(Kind::Wrapped)?, read(Kind::Gone)?))
}
