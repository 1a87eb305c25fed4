//! The key services of the configuration's outside keys.

use std::sync::Arc;

use super::{Installation, Result, cannot};
use crate::config::OutsideKey;
use crate::keyring::KeyringError;
use crate::keys::outside::OutsideKeys;
use crate::keys::transit_slot::{TransitKeys, TransitSetup};

impl Installation {
    /// The place of an outside key, ready to be asked. It is not asked yet.
    ///
    /// # Errors
    /// When its certificate authorities cannot be read, or its address is of no use.
    pub fn outside_keys(&self, spec: &OutsideKey) -> Result<Arc<dyn OutsideKeys>> {
        let read = |path: &std::path::PathBuf| std::fs::read(path).map_err(|error| cannot("read", path, &error));
        let ca_pem = spec.ca.as_ref().map(read).transpose()?;
        let keys = TransitKeys::new(TransitSetup { ca_pem, ..spec.access.clone() }).map_err(KeyringError::from)?;
        Ok(Arc::new(keys))
    }
}
