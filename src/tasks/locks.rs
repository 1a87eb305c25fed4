//! Object Lock over a chain: what a later snapshot depends on stays locked for as long as the snapshot itself.

use crate::backup::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::backup::removal::objects_of;
use crate::control::SnapshotRow;
use crate::installation::Installation;

use super::backup::{Wanted, take_snapshot};
use super::{Result, TaskError};

/// Takes a snapshot and locks what it depends on for as long; the operation log has how it ended, whoever asked. The locks that an earlier snapshot still lacks, because its process was
/// killed or the server was away, are made up first: a new chain would not touch them again. Why that did not succeed is beside the
/// snapshot, which is stored all the same.
///
/// # Errors
/// When no snapshot could be taken.
pub async fn take_and_lock(
    installation: &Installation,
    store: &str,
    wanted: Wanted,
) -> Result<(SnapshotRow, Option<TaskError>)> {
    let taken = take(installation, store, wanted).await;
    let (object, outcome) = match &taken {
        Ok((row, _)) => (row.id.as_str(), "success"),
        Err(_) => (store, "failure"),
    };
    let logged = installation.log_operation("backup.run", object, outcome).await;
    // A failure is told as it was, also when the log has failed as well.
    let taken = taken?;
    logged?;
    match extend_chain(installation, &taken.0).await {
        Err(TaskError::Stopping) => Err(TaskError::Stopping),
        own => Ok((taken.0, own.err().or(taken.1))),
    }
}

/// The snapshot, behind the locks that an earlier one lacks, and why those could not be had.
async fn take(installation: &Installation, store: &str, wanted: Wanted) -> Result<(SnapshotRow, Option<TaskError>)> {
    let newest = installation.control.read().await?.snapshots(Some(store)).await?.pop();
    let late = match newest {
        Some(row) => extend_chain(installation, &row).await.err(),
        None => None,
    };
    let (ground, repository) = (installation.ground()?, installation.backup()?.repository.clone());
    Ok((take_snapshot(&ground, repository.as_ref(), &installation.signer, store, wanted).await?, late))
}

/// Extends the locks of everything in the chain of a committed snapshot to the end of the lock of its own manifest, its own packs
/// among it: those that it took over from an earlier try were locked when that stored them. Returns how many objects are locked until
/// then; nothing happens where no lock is configured.
///
/// # Errors
/// When the bucket or the control database fails, or the server has no lock where it should.
pub async fn extend_chain(installation: &Installation, newest: &SnapshotRow) -> Result<u64> {
    let bucket = installation.backup()?;
    let Some(locker) = &bucket.locker else { return Ok(0) };
    let mut tx = installation.control.read().await?;
    let rows = tx.snapshots(Some(&newest.store)).await?;
    drop(tx);
    let chain = rows.iter().filter(|row| row.chain == newest.chain && row.number <= newest.number);
    let chain: Vec<&str> = chain.filter_map(|row| row.manifest.as_deref()).collect();
    let Some(own) = newest.manifest.as_deref() else { return Ok(0) };
    let Some(until) = locker.locked_until(own).await? else { return Ok(0) };
    let mut extended = 0;
    for name in chain {
        let bytes = bucket.repository.get(name, MAX_MANIFEST_BYTES).await?;
        let verifies =
            |key: &str, message: &[u8], signature: &[u8]| installation.signer.verifies(key, message, signature);
        let manifest = Manifest::open(name, &bytes, &verifies)?;
        for object in objects_of(&manifest).chain([name.to_owned()]) {
            locker.lock_until(&object, until).await?;
            extended += 1;
            if extended % 100 == 0 {
                installation.goes_on()?;
                installation.renew_lease().await?;
            }
        }
    }
    Ok(extended)
}
