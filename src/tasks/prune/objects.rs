//! The objects of chains whose key is destroyed: named as unneeded, or removed where the configuration wants that.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::PruneReport;
use crate::backup::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::backup::object_store::ListedObject;
use crate::backup::removal::{ObjectRemover, Removal, objects_of};
use crate::control::PrunedChain;
use crate::crash_point;
use crate::installation::Installation;
use crate::tasks::{Result, TaskError};

/// The packs and directory parts in the bucket that belong to nothing but destroyed chains.
///
/// # Errors
/// When the bucket or the control database fails, or a manifest cannot be read: nothing is named then.
pub async fn unneeded_objects(installation: &Installation) -> Result<Vec<ListedObject>> {
    let chains = installation.control.read().await?.pruned_chains(Some("destroyed")).await?;
    let mut named = BTreeSet::new();
    for (chain, _) in by_end(installation, chains).await?.into_iter().filter(|(_, end)| end.is_none()) {
        named.extend(objects_of_chain(installation, &chain).await?);
    }
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let repository = &installation.backup()?.repository;
    let mut found = Vec::new();
    for prefix in ["directories/", "packs/"] {
        found.extend(repository.list(prefix).await?.into_iter().filter(|object| named.contains(&object.name)));
    }
    Ok(found)
}

/// Destroyed chains, each with the date until which a root can be called back that opens its key; none once no root does. Only a
/// slot that destroys at a date has one.
async fn by_end(
    installation: &Installation,
    chains: Vec<PrunedChain>,
) -> Result<Vec<(PrunedChain, Option<DateTime<Utc>>)>> {
    let mut tx = installation.control.read().await?;
    let mut found = Vec::new();
    for chain in chains {
        let Some(generation) = chain.generation else { continue };
        let end = tx.irrevocable_before(generation).await?;
        found.push((chain, end));
    }
    Ok(found)
}

/// What the manifests of a chain name, less what a manifest of any chain that stays names.
async fn objects_of_chain(installation: &Installation, chain: &PrunedChain) -> Result<BTreeSet<String>> {
    let mut tx = installation.control.read().await?;
    let dead = tx.pruned_manifests(&chain.store, Some(chain.chain)).await?;
    let living = tx.snapshots(Some(&chain.store)).await?;
    drop(tx);
    let mut names = BTreeSet::new();
    for (manifest, _) in dead {
        names.extend(objects_of(&read_manifest(installation, &manifest).await?));
    }
    for manifest in living.iter().filter_map(|row| row.manifest.as_deref()) {
        for needed in objects_of(&read_manifest(installation, manifest).await?) {
            names.remove(&needed);
        }
    }
    Ok(names)
}

async fn read_manifest(installation: &Installation, name: &str) -> Result<Manifest> {
    let bytes = installation.backup()?.repository.get(name, MAX_MANIFEST_BYTES).await?;
    let verifies = |key: &str, message: &[u8], signature: &[u8]| installation.signer.verifies(key, message, signature);
    Ok(Manifest::open(name, &bytes, &verifies)?)
}

/// Removes the objects of destroyed chains, where the configuration wants that. What cannot be removed now is in the report.
pub(super) async fn remove(installation: &Installation, report: &mut PruneReport) -> Result<()> {
    let Some(remover) = installation.backup()?.remover.clone() else { return Ok(()) };
    let chains = installation.control.read().await?.pruned_chains(Some("destroyed")).await?;
    for (mut chain, end) in by_end(installation, chains).await? {
        if end.is_some() {
            chain.locked_until = chain.locked_until.max(end);
            report.left.push((chain, "the root slot can still be told to give its key back".to_owned()));
            continue;
        }
        installation.goes_on()?;
        installation.renew_lease().await?;
        match remove_chain(installation, remover.as_ref(), chain.clone(), report).await {
            Ok(()) => {}
            Err(error @ (TaskError::Stopping | TaskError::Control(_))) => return Err(error),
            Err(error) => report.left.push((chain, error.with_causes())),
        }
    }
    Ok(())
}

/// Removes the objects of one chain and reads back that they are gone.
async fn remove_chain(
    installation: &Installation,
    remover: &dyn ObjectRemover,
    mut chain: PrunedChain,
    report: &mut PruneReport,
) -> Result<()> {
    let names = objects_of_chain(installation, &chain).await?;
    let object = format!("chain-{}", chain.chain);
    installation.log_operation("backup.remove", &object, "intent").await?;
    let mut locked: Vec<Option<DateTime<Utc>>> = Vec::new();
    for (number, name) in names.iter().enumerate() {
        for version in remover.versions(name).await? {
            match remover.remove(name, &version).await? {
                Removal::Gone => report.objects_removed += u64::from(!version.is_marker),
                Removal::Locked(until) => locked.push(until),
            }
        }
        crash_point::reached("prune.object-removed");
        if number % 100 == 99 {
            installation.goes_on()?;
            installation.renew_lease().await?;
        }
    }
    let mut left = 0;
    for name in &names {
        left += remover.versions(name).await?.len();
    }
    if left == 0 {
        "removed".clone_into(&mut chain.state);
        chain.removed_at = Some(installation.clock.now());
    }
    chain.locked_until = locked.iter().flatten().max().copied();
    let mut tx = installation.control.begin().await?;
    tx.set_pruned_chain(&chain).await?;
    tx.commit().await?;
    crash_point::reached("prune.removed");
    installation.log_operation("backup.remove", &object, if left == 0 { "success" } else { "failure" }).await?;
    if left > 0 {
        let why = match chain.locked_until {
            Some(until) => format!("{left} versions are locked until {}", until.format("%Y-%m-%d %H:%M")),
            None if !locked.is_empty() => format!("{left} versions are under a legal hold of the bucket"),
            None => format!("{left} versions are still there after they were removed"),
        };
        report.left.push((chain, why));
    }
    Ok(())
}
