//! A drill of the burnt site: from bucket, root slot and configuration alone. The control database is made again in a private
//! folder, the newest snapshot of every store is drilled with it, and the folder is wiped. Nothing that the installation works
//! with is read but the key in its slot, and of a key service not even the folder of wrapped roots: those come from the bucket too.
//! Nothing of it is changed but the list of drills.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::clock::Clock;
use crate::config::Configuration;
use crate::control::Control;
use crate::installation::{Installation, Needs, Recovered, rebuild_apart, settle_interrupted, state_folder};
use crate::random::Random;

use super::drill::{DrillRecord, Pick, Picked, keep, run_drill_since, wipe_file};
use super::{Result, TaskError};

/// What a drill of the burnt site brought.
#[derive(Debug, Clone)]
pub struct SiteDrill {
    /// What was made again.
    pub recovered: Recovered,
    /// One record for each store drilled.
    pub records: Vec<DrillRecord>,
}

/// Drills the newest snapshot of every store, or of one, as if this site had burnt.
///
/// # Errors
/// When the state cannot be made again, or a drill cannot be run at all.
pub async fn drill_from_bucket(
    config: &Configuration,
    store: Option<&str>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<SiteDrill> {
    let folder = state_folder(config).join("site-drill");
    // What an interrupted drill left.
    wipe_folder(&folder).map_err(|error| unusable(&folder, &error))?;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| unusable(&folder, &error))?;
    let drilled = drill_in(&folder, config, store, clock.clone(), random.clone()).await;
    let wiped = wipe_folder(&folder).map_err(|error| unusable(&folder, &error));
    let mut drilled = drilled?;
    wiped?;
    keep_records(config, &mut drilled.records, clock, random).await?;
    Ok(drilled)
}

fn unusable(folder: &Path, error: &std::io::Error) -> TaskError {
    TaskError::refused(
        format!("the drill's folder {} cannot be used: {error}", folder.display()),
        "make the state folder writable for the agent and for nobody else",
    )
}

async fn drill_in(
    folder: &Path,
    config: &Configuration,
    store: Option<&str>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<SiteDrill> {
    let timer = Instant::now();
    let (recovered, scratch) = rebuild_apart(config, folder, random.clone()).await?;
    // Without the lease nothing is settled: neither slot nor bucket changes.
    let needs = Needs { backup: true, ..Needs::STATE };
    let installation = Installation::open(scratch, needs, clock, random).await?;
    let drilled = drill_all(&installation, store, timer).await;
    installation.close().await?;
    Ok(SiteDrill { recovered, records: drilled? })
}

async fn drill_all(installation: &Installation, store: Option<&str>, timer: Instant) -> Result<Vec<DrillRecord>> {
    // The state is sealed just before a manifest is stored, so the newest snapshot may stand there as announced only.
    let repository = installation.backup()?.repository.clone();
    settle_interrupted(&installation.control, repository.as_ref(), installation.clock.now()).await?;
    let snapshots = installation.control.read().await?.snapshots(store).await?;
    let mut records = Vec::new();
    for (at, row) in snapshots.iter().enumerate() {
        if snapshots[at + 1..].iter().all(|later| later.store != row.store) {
            let pick = Pick { snapshot: row.clone(), picked: Picked::Latest, drawn: None };
            records.push(run_drill_since(installation, pick, timer).await?);
        }
    }
    Ok(records)
}

/// Keeps the records in the installation's own chain of them, unless it is really lost.
async fn keep_records(
    config: &Configuration,
    records: &mut [DrillRecord],
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<()> {
    if !Control::is_there(&config.agent.state).await {
        return Ok(());
    }
    let installation = Installation::open(config.clone(), Needs::STATE, clock, random).await?;
    let kept = async {
        for record in records {
            keep(&installation, record).await?;
        }
        Ok(())
    };
    let kept = kept.await;
    installation.close().await?;
    kept
}

/// Overwrites and removes everything in a folder, and the folder.
fn wipe_folder(folder: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            wipe_folder(&entry.path())?;
        } else {
            wipe_file(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder)
}
