//! Backups as jobs see them: read back, and let go what is not kept any more.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::Done;
use crate::backup::codec::{Id128, Sha256};
use crate::backup::verify::{ChainHead, ReadBack, Sample, Scope, Verification, verify_store};
use crate::installation::Installation;
use crate::tasks::backup::{note_damage, store_id};
use crate::tasks::certify::certify_or_wait;
use crate::tasks::prune::{plan_prune, prune};
use crate::tasks::{Result, TaskError};

/// Verifies all snapshots of a store, without decryption keys, against the head known here.
///
/// # Errors
/// When the bucket cannot be listed.
pub async fn verify_backups(installation: &Installation, store: &str) -> Result<Verification> {
    Ok(verify_part(installation, store, None).await?.0)
}

/// What of a store's packs and directory parts was ever read back, with the run that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// The share of bytes that the run was to read; none when it read everything.
    pub percent: Option<u8>,
    /// Packs and directory parts there are.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, those that were read back and good at some time.
    pub objects_covered: u64,
    /// Their bytes.
    pub bytes_covered: u64,
    /// When the one was read that waited longest; none while some were never read.
    pub oldest_read_at: Option<DateTime<Utc>>,
}

impl Coverage {
    fn of(percent: Option<u8>, found: &Verification, read_back: &ReadBack) -> Self {
        let covered = || found.listed.iter().filter(|(name, _)| read_back.contains_key(name));
        let objects_covered = covered().count() as u64;
        let oldest = covered().filter_map(|(name, _)| read_back.get(name)).min().copied();
        Self {
            percent,
            objects: found.listed.len() as u64,
            bytes: found.listed.iter().map(|(_, bytes)| bytes).sum(),
            objects_covered,
            bytes_covered: covered().map(|(_, bytes)| bytes).sum(),
            oldest_read_at: oldest.filter(|_| objects_covered == found.listed.len() as u64),
        }
    }
}

/// The same, reading only `percent` of the bytes: what was not read back for longest. Manifests are all read, and all objects looked for in
/// the listing. What is good is noted, so that the next run takes others.
///
/// # Errors
/// As [`verify_backups`], and when the control database cannot be read or written.
pub async fn verify_part(
    installation: &Installation,
    store: &str,
    percent: Option<u8>,
) -> Result<(Verification, Coverage)> {
    let mut read_back = installation.control.read().await?.read_back(store).await?;
    let sample = percent.map(|percent| Sample { percent, read_back: &read_back });
    let found = verify_scope(installation, store, sample).await?;
    let now = installation.clock.now();
    let listed: HashSet<&str> = found.listed.iter().map(|(name, _)| name.as_str()).collect();
    let mut tx = installation.control.begin().await?;
    tx.note_read_back(store, &found.good, &listed, now).await?;
    tx.commit().await?;
    read_back.extend(found.good.iter().map(|name| (name.clone(), now)));
    let coverage = Coverage::of(percent, &found, &read_back);
    Ok((found, coverage))
}

async fn verify_scope(installation: &Installation, store: &str, sample: Option<Sample<'_>>) -> Result<Verification> {
    let digest = |text: &str| {
        Sha256::parse(text).ok_or_else(|| TaskError::Inconsistent("a manifest digest is damaged".to_owned()))
    };
    let mut tx = installation.control.begin().await?;
    let id = store_id(&mut tx, &installation.ground()?, store).await?;
    let head = tx.snapshots(Some(store)).await?.pop();
    let chain = head.as_ref().map(|row| row.chain);
    let cancelled = tx.cancelled_manifests(store).await?;
    let pruned: Vec<String> = tx.pruned_manifests(store, None).await?.into_iter().map(|(_, sha256)| sha256).collect();
    tx.commit().await?;
    // Without a known head a history that lost its newest part would pass.
    let expected_head = match head {
        Some(row) => {
            let sha256 = digest(row.manifest_sha256.as_deref().unwrap_or_default())?;
            Some(ChainHead { sequence: row.sequence as u64, sha256 })
        }
        None => None,
    };
    let cancelled = cancelled.iter().map(|text| digest(text)).collect::<Result<Vec<_>>>()?;
    let pruned = pruned.iter().map(|text| digest(text)).collect::<Result<Vec<_>>>()?;
    let installation_id = Id128(installation.id());
    let scope = Scope {
        installation: installation_id,
        store: id,
        expected_head,
        cancelled: &cancelled,
        pruned: &pruned,
        sample,
    };
    let verifies = |key: &str, message: &[u8], signature: &[u8]| installation.signer.verifies(key, message, signature);
    let found = verify_store(installation.backup()?.repository.as_ref(), scope, &verifies).await?;
    // Which chain it belongs to, a damaged object does not say: none is continued on a doubt.
    if let Some(chain) = chain.filter(|_| found.problems.iter().any(|problem| !problem.unread)) {
        note_damage(&installation.control, chain).await?;
    }
    Ok(found)
}

/// The job `prune`: destroys the keys of chains that are not kept, and names or removes their objects.
pub(super) async fn prune_backups(installation: &Installation, stores: &[String]) -> Result<Done> {
    let plan = plan_prune(installation, stores).await?;
    if plan.is_idle() {
        return Ok(Done::good("prune", "nothing to let go".to_owned()));
    }
    let report = prune(installation, stores, &plan).await?;
    // Rows that died with their chain are shredded now.
    let (_, certificate) = certify_or_wait(installation).await?;
    let mut summary =
        format!("{} chains destroyed, {} objects removed", report.destroyed.len(), report.objects_removed);
    if !report.waiting.is_empty() {
        summary = format!("{summary}, {} wait for the next change of keys", report.waiting.len());
    }
    for (store, why) in &report.unproven {
        summary = format!("{summary}; nothing of store {store} goes: {why}");
    }
    let details =
        report.left.iter().map(|(chain, why)| format!("chain {} of store {}: {why}", chain.chain, chain.store));
    let state = if report.is_well() { "done" } else { "partial" };
    Ok(Done { state, details: details.collect(), ..Done::good("prune", summary) }.with_certificate(certificate))
}
