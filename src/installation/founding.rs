//! A new installation: control database, first key generation, signing key.

use std::path::Path;
use std::sync::Arc;

use super::{Installation, ManifestSigner, cannot, root_slot, services, state_folder};
use crate::clock::Clock;
use crate::config::Configuration;
use crate::control::{Control, ControlError};
use crate::error::{Result, TaskError};
use crate::keyring::Keyring;
use crate::random::Random;

impl Installation {
    /// Makes a new installation. Does nothing where its parts exist. Returns whether there was no control database before.
    ///
    /// # Errors
    /// When a file cannot be made. Refused when the root slot holds keys whose control database is gone.
    pub async fn create(config: &Configuration, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<bool> {
        let folder = state_folder(config);
        let place = &config.agent.state;
        let is_new = match Control::open_at(place).await {
            Ok(control) => {
                control.close().await;
                false
            }
            Err(ControlError::Missing { .. } | ControlError::Incomplete { .. }) => true,
            Err(other) => return Err(other.into()),
        };
        if is_new {
            refuse_orphaned_roots(config.root.slot.folder())?;
        }
        std::fs::create_dir_all(&folder).map_err(|error| cannot("make", &folder, &error))?;
        // Also where the file is there: a crash may have come before its tables. A complete one keeps its own id.
        let mut id = [0; 16];
        random.fill(&mut id)?;
        Control::create_at(place, id).await?.close().await;
        let control = Control::open_at(place).await?;
        let installation = control.read().await?.installation().await?;
        let slot = root_slot::prepare(&config.root, installation)?;
        Keyring::new(installation, slot, random.clone()).create_tree(&control, clock.now()).await?;
        ManifestSigner::found(config, &control, installation, clock.now()).await?;
        services::create_operation_log_key(&folder, installation, random.as_ref())?;
        control.close().await;
        Ok(is_new)
    }
}

/// Refuses a root slot's folder that holds roots: an installation made over them would hide that they, and the backups that they
/// open, belong to a control database that is lost.
fn refuse_orphaned_roots(folder: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| cannot("read", folder, &error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| cannot("read", folder, &error))?;
        if entry.file_name().to_string_lossy().starts_with("root-") {
            return Err(TaskError::refused(
                format!(
                    "the root slot {} holds the root key of an installation whose control database is missing",
                    folder.display()
                ),
                "run `wangchuan recover` to bring its control database back from the bucket; for a new installation choose another \
                 `path` under [root], another bucket or prefix, and another `state`",
            ));
        }
    }
    Ok(())
}
