//! The key services of the configuration's outside keys.

use std::sync::Arc;

use super::{Installation, Result, cannot};
use crate::config::{OutsideAccess, OutsideKey};
use crate::keyring::KeyringError;
use crate::keys::kms_slot::{KmsKeys, KmsSetup};
use crate::keys::outside::OutsideKeys;
use crate::keys::transit_slot::{TransitKeys, TransitSetup};

impl Installation {
    /// The place of an outside key, ready to be asked. It is not asked yet.
    ///
    /// # Errors
    /// When its certificate authorities cannot be read, or its address is of no use.
    pub fn outside_keys(&self, spec: &OutsideKey) -> Result<Arc<dyn OutsideKeys>> {
        Ok(match &spec.access {
            OutsideAccess::Transit { setup, ca } => {
                let read =
                    |path: &std::path::PathBuf| std::fs::read(path).map_err(|error| cannot("read", path, &error));
                let setup = TransitSetup { ca_pem: ca.as_ref().map(read).transpose()?, ..TransitSetup::clone(setup) };
                Arc::new(TransitKeys::new(setup).map_err(KeyringError::from)?)
            }
            OutsideAccess::AwsKms { setup, sealed_prefix } => {
                let keys = KmsKeys::new(KmsSetup::clone(setup), sealed_prefix.clone());
                Arc::new(keys.map_err(KeyringError::from)?)
            }
        })
    }
}
