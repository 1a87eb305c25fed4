//! The root slot as the configuration describes it, or two of them while the root is moved.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Root, SlotSettings};
use crate::error::{Result, TaskError};
use crate::keyring::KeyringError;
use crate::keys::InstallationId;
use crate::keys::file_slot::FileSlot;
use crate::keys::kms_slot::KmsSlot;
use crate::keys::moving_slot::MovingSlot;
use crate::keys::pkcs11_slot::Pkcs11Slot;
use crate::keys::slot::{RootSlot, SlotError};
use crate::keys::transit_slot::{TransitSetup, TransitSlot};

/// Whether a folder that is missing is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Folder {
    Make,
    MustBeThere,
}

/// The slot of a new installation; its folder is made.
pub(super) fn prepare(root: &Root, installation: InstallationId) -> Result<Arc<dyn RootSlot>> {
    build(root, installation, Folder::Make)
}

/// The slot of an installation. The new slot of a move may be without its folder until the move begins.
pub(super) fn open(root: &Root, installation: InstallationId) -> Result<Arc<dyn RootSlot>> {
    let folder = if root.previous.is_some() { Folder::Make } else { Folder::MustBeThere };
    build(root, installation, folder)
}

/// The slot of an installation whose host was lost: a folder of wrapped roots may be gone, for they lie in the second place too.
pub(super) fn open_for_recovery(root: &Root, installation: InstallationId) -> Result<Arc<dyn RootSlot>> {
    let is_lost_with_it = matches!(root.slot, SlotSettings::File { .. }) && root.previous.is_none();
    build(root, installation, if is_lost_with_it { Folder::MustBeThere } else { Folder::Make })
}

fn build(root: &Root, installation: InstallationId, folder: Folder) -> Result<Arc<dyn RootSlot>> {
    let current = one(&root.slot, installation, folder)?;
    match &root.previous {
        None => Ok(current),
        Some(previous) => {
            let previous = one(previous, installation, Folder::MustBeThere)?;
            Ok(Arc::new(MovingSlot::new(current, previous)))
        }
    }
}

fn one(settings: &SlotSettings, installation: InstallationId, folder: Folder) -> Result<Arc<dyn RootSlot>> {
    if folder == Folder::Make {
        let path = settings.folder();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| super::cannot("make", parent, &error))?;
        }
    }
    let made: Result<Arc<dyn RootSlot>, SlotError> = match settings {
        SlotSettings::File { path } => {
            let slot = match folder {
                Folder::Make => FileSlot::prepare(path, installation),
                Folder::MustBeThere => FileSlot::at(path, installation),
            };
            slot.map(|slot| Arc::new(slot) as Arc<dyn RootSlot>)
        }
        SlotSettings::Transit { setup, ca } => {
            let setup = with_authorities(setup, ca.as_deref())?;
            let slot = match folder {
                Folder::Make => TransitSlot::prepare(&setup, installation),
                Folder::MustBeThere => TransitSlot::at(&setup, installation),
            };
            slot.map(|slot| Arc::new(slot) as Arc<dyn RootSlot>)
        }
        SlotSettings::AwsKms { setup } => {
            let slot = match folder {
                Folder::Make => KmsSlot::prepare(setup, installation),
                Folder::MustBeThere => KmsSlot::at(setup, installation),
            };
            slot.map(|slot| Arc::new(slot) as Arc<dyn RootSlot>)
        }
        SlotSettings::Pkcs11 { setup } => {
            let slot = match folder {
                Folder::Make => Pkcs11Slot::prepare(setup, installation),
                Folder::MustBeThere => Pkcs11Slot::at(setup, installation),
            };
            slot.map(|slot| Arc::new(slot) as Arc<dyn RootSlot>)
        }
    };
    Ok(made.map_err(KeyringError::from)?)
}

pub(super) fn with_authorities(setup: &TransitSetup, ca: Option<&Path>) -> Result<TransitSetup> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| super::cannot("read", path, &error));
    let ca_pem = ca.map(read).transpose()?;
    Ok::<_, TaskError>(TransitSetup { ca_pem, ..setup.clone() })
}
