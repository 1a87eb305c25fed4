//! Until when erased rows still open in backups, because other rows share their keys.

use chrono::{DateTime, TimeDelta};
use chrono_tz::Tz;

use crate::control::{RunRow, Tx};
use crate::erase::Ground;
use crate::installation::Installation;
use crate::policy::calendar::BucketPeriod;
use crate::policy::statute::{Earliest, bucket_due_with};

use super::super::Result;

/// What stands for a date where none can be computed: the key of the chain closes these rows at the latest.
const WITH_CHAIN: &str = "with its chain";

/// The day on which the last bucket of a run's readable rows may die: its period is wholly due, and its policy's grace is over.
pub(super) async fn pending_until(ground: &Ground<'_>, tx: &mut Tx, run: &RunRow, barrier: i64) -> Result<String> {
    let buckets = tx.readable_buckets(&run.id, barrier).await?;
    last_day(ground, tx, buckets).await
}

/// Until when rows of a run whose keys are marked still open after those are destroyed; `None` when none of them does.
///
/// # Errors
/// When the control database fails.
pub async fn still_open_behind_shred(installation: &Installation, run: &RunRow) -> Result<Option<String>> {
    let mut tx = installation.control.read().await?;
    let buckets = tx.buckets_open_behind_shred(&run.id, run.verified_snapshot.unwrap_or(i64::MAX)).await?;
    if buckets.is_empty() {
        return Ok(None);
    }
    last_day(&installation.ground()?, &mut tx, buckets).await.map(Some)
}

async fn last_day(ground: &Ground<'_>, tx: &mut Tx, buckets: Vec<u32>) -> Result<String> {
    let (now, mut latest) = (ground.clock.now(), None::<DateTime<Tz>>);
    for slot in buckets {
        let Some((name, _)) = tx.bucket_name(slot).await? else { continue };
        let dies = ground.site(&name.store).and_then(|site| {
            let (_, collection) = site.model.collection(&name.collection)?;
            // A bucket of another policy than today's never falls due by itself.
            let governed = collection.governed.as_ref().filter(|governed| governed.policy.id == name.policy)?;
            let policy = &governed.policy;
            let period: BucketPeriod = name.period.parse().ok()?;
            let due = bucket_due_with(period, policy.retention, &governed.statutes, site.model.spec.timezone).ok()?;
            let Earliest::At(due) = due else { return None };
            // One that is due and lives on waits for those whose policy was edited, or for a store: no day that is over is named.
            let wait = TimeDelta::hours(i64::from(policy.canary.hours));
            let due = if due <= now { now.checked_add_signed(wait)? } else { due };
            let grace = TimeDelta::try_seconds(i64::try_from(policy.grace.seconds).ok()?)?;
            Some(due.checked_add_signed(grace)?.with_timezone(&site.model.spec.timezone))
        });
        let Some(dies) = dies else { return Ok(WITH_CHAIN.to_owned()) };
        latest = latest.filter(|known| *known >= dies).or(Some(dies));
    }
    // As the store's own calendar has it: there the period ends with a day.
    Ok(latest.map_or_else(|| WITH_CHAIN.to_owned(), |day| day.format("%Y-%m-%d").to_string()))
}
