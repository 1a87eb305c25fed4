//! Wrapped roots beside the records: what `recover` needs of a slot whose service holds the key, and nothing more.
//!
//! A slot folder that burnt took the wrapped roots with it, and a service opens nothing without them. So each is stored before
//! the first record that is sealed under it. That makes a destroyed root no more alive than before: its copy opens only with
//! what the service has destroyed. What a copy of the service from before could do with it stands in certificates anyway
//! (`ROOT_SLOT_CLASS_B`).

use std::sync::PoisonError;

use super::{SecondPlace, SecondPlaceError};
use crate::backup::codec::Sha256;
use crate::backup::object_store::{ObjectStore, get_verified};
use crate::backup::state_record::{ROOTS, RootName};
use crate::crash_point;
use crate::keyring::{Keyring, Result};
use crate::keys::Generation;
use crate::keys::wrapped_root::{WRAPPED_ROOT_LIMIT, WrappedRoot};

/// A wrapped root that was fetched.
pub struct RootCopy {
    /// Its generation.
    pub generation: Generation,
    /// As the slot stored it.
    pub bytes: Vec<u8>,
}

impl Keyring {
    /// The wrapped root of a generation, as this host has it; `None` for a root that has no wrapped form.
    pub(super) async fn own_root(&self, generation: Generation) -> Result<Option<(RootName, WrappedRoot)>> {
        let Some(slot) = self.slot.wrapping() else { return Ok(None) };
        let Some(wrapped) = slot.wrapped(generation).await? else { return Ok(None) };
        let name = RootName { generation: wrapped.generation(), sha256: Sha256::of(wrapped.bytes()) };
        Ok(Some((name, wrapped)))
    }

    /// Stores the wrapped root of a generation, and reads it back, unless this process has seen it there. Does nothing for a root
    /// that has no wrapped form.
    pub(super) async fn keep_root(&self, place: &SecondPlace, generation: Generation) -> Result<()> {
        let Some((name, wrapped)) = self.own_root(generation).await? else { return Ok(()) };
        // By its digest: a change that was given up leaves its number to another root.
        if *place.kept_root.lock().unwrap_or_else(PoisonError::into_inner) == Some(name) {
            return Ok(());
        }
        let store = place.store.as_ref();
        let is_there = store.head(&name.text()).await.map_err(SecondPlaceError::from)?.is_some();
        if !is_there {
            store.put_if_absent(&name.text(), wrapped.bytes().to_vec()).await.map_err(SecondPlaceError::from)?;
            crash_point::reached("state.root-stored");
        }
        fetch_root(store, &name).await?;
        *place.kept_root.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
        Ok(())
    }
}

/// The names of all wrapped roots, by generation.
///
/// # Errors
/// When the store cannot be listed.
pub async fn root_names(store: &dyn ObjectStore) -> Result<Vec<RootName>, SecondPlaceError> {
    let listed = store.list(ROOTS).await?;
    let mut names: Vec<RootName> = listed.iter().filter_map(|object| RootName::parse(&object.name)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Fetches a wrapped root.
///
/// # Errors
/// When it cannot be fetched or is not what its name says.
pub async fn fetch_root(store: &dyn ObjectStore, name: &RootName) -> Result<RootCopy, SecondPlaceError> {
    let bytes = get_verified(store, &name.text(), &name.sha256, WRAPPED_ROOT_LIMIT).await?;
    Ok(RootCopy { generation: name.generation, bytes })
}
