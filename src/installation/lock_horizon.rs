//! Until when the newest snapshots are locked.

use chrono::{DateTime, TimeDelta, Utc};

use super::Installation;
use crate::backup::lock::ObjectLocker;
use crate::error::Result;

/// A lock that ends sooner is worth a word: the next backups should have taken over by then.
pub const LEAST_LOCK: TimeDelta = TimeDelta::days(7);

/// The lock of a store's newest chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHorizon {
    /// The store.
    pub store: String,
    /// The earliest end over the manifests of the chain; `None` where one of them has no lock.
    pub until: Option<DateTime<Utc>>,
}

impl LockHorizon {
    /// Whether it ends within [`LEAST_LOCK`], or there is none.
    #[must_use]
    pub fn is_near(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| until - now < LEAST_LOCK)
    }
}

/// The locks of the newest chain of every store that has snapshots, as the server has them.
///
/// # Errors
/// When the bucket or the control database fails.
pub async fn lock_horizons(installation: &Installation, locker: &dyn ObjectLocker) -> Result<Vec<LockHorizon>> {
    let rows = installation.control.read().await?.snapshots(None).await?;
    let mut found = Vec::new();
    for spec in &installation.config.registry.stores {
        let Some(newest) = rows.iter().rev().find(|row| row.store == spec.name) else { continue };
        let mut until = Some(DateTime::<Utc>::MAX_UTC);
        for manifest in rows.iter().filter(|row| row.chain == newest.chain).filter_map(|row| row.manifest.as_deref()) {
            until = until.zip(locker.locked_until(manifest).await?).map(|(known, found)| known.min(found));
        }
        found.push(LockHorizon { store: spec.name.clone(), until });
    }
    Ok(found)
}
