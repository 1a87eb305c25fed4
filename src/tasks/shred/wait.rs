//! Why keys that are marked for destruction are not destroyed yet, and until when.

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use crate::control::{RunRow, Tx};
use crate::erase::Ground;
use crate::installation::Installation;
use crate::keys::Generation;

use super::super::Result;
use super::super::erasure::RunBody;

/// Customers' keys die together, at most so often, unless somebody cannot wait (the hourly job `shred`).
pub const GROUP_COMMIT: TimeDelta = TimeDelta::hours(1);

/// What a run waits for, as a code from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WaitCode {
    /// The end of its grace.
    Grace,
    /// The release of a hold.
    Hold,
    /// Another run, whose rows lie in the same cells.
    OtherRun,
    /// A collection that is not registered any more.
    Unregistered,
    /// A snapshot that is being taken.
    SnapshotRunning,
    /// A snapshot begun after the erasure.
    NoSnapshotSince,
    /// A barrier snapshot that can be read as a whole.
    SnapshotUnreadable,
    /// A snapshot that holds its living rows elsewhere.
    LivingRows,
    /// The end of a period: other rows share the bucket's key.
    BucketNotDue,
    /// The least time between two generations of the root slot.
    SlotInterval,
    /// The date at which the root slot's destruction is irrevocable; until then it can be called off.
    Irrevocable,
    /// The next group commit.
    GroupCommit,
    /// Nothing: the next shred takes it.
    Nothing,
}

/// Why a run waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tasks) struct Wait {
    pub(super) code: WaitCode,
    pub(super) what: String,
    pub(super) until: Option<DateTime<Utc>>,
}

impl Wait {
    pub(super) fn new(code: WaitCode, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), until: None }
    }

    pub(super) fn irrevocable(at: DateTime<Utc>) -> Self {
        let what = "its keys are destroyed, but the root slot can be told to call that off until the date";
        Self::new(WaitCode::Irrevocable, what).until(at)
    }

    pub(super) fn until(self, until: DateTime<Utc>) -> Self {
        Self { until: Some(until), ..self }
    }
}

/// A run whose keys are not destroyed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WaitingRun {
    /// The run.
    pub run: String,
    /// What it waits for.
    pub code: WaitCode,
    /// The same as a sentence.
    pub what: String,
    /// Until when at least, where that is known: RFC 3339, or a date.
    pub until: Option<String>,
}

impl WaitingRun {
    pub(super) fn of(run: &RunRow, wait: Wait) -> Self {
        let until = wait.until.map(crate::control::time_text);
        Self { run: run.id.clone(), code: wait.code, what: wait.what, until }
    }
}

/// All runs whose keys are not destroyed yet, with what can be said without reading the bucket.
///
/// # Errors
/// When the control database fails.
pub async fn waiting_runs(installation: &Installation) -> Result<Vec<WaitingRun>> {
    let ground = installation.ground()?;
    let runs = installation.control.read().await?.runs(Some("shred-pending")).await?;
    let mut waiting = Vec::new();
    for run in runs {
        if let Some(at) = RunBody::of(&run)?.irrevocable_at {
            waiting.push(WaitingRun::of(&run, Wait::irrevocable(at)));
            continue;
        }
        let wait = match super::why_waiting(installation, &ground, &run).await? {
            Some(wait) => wait,
            None => last_wait(installation, &run).await?,
        };
        let mut found = WaitingRun::of(&run, wait);
        if found.code == WaitCode::BucketNotDue {
            found.until = match RunBody::of(&run)?.pending {
                Some((_, until)) => Some(until),
                None => Some(pending_since_marking(installation, &ground, &run).await?),
            };
        }
        waiting.push(found);
    }
    Ok(waiting)
}

/// What a run waits for that nothing forbids.
async fn last_wait(installation: &Installation, run: &RunRow) -> Result<Wait> {
    let mut tx = installation.control.read().await?;
    let dying = tx.dying_cell_keys(std::slice::from_ref(&run.id)).await?;
    let barrier = run.verified_snapshot.unwrap_or(i64::MAX);
    if dying.has_cells() {
        for spec in super::barrier_stores(&mut tx, installation, run).await? {
            let newest = tx.snapshots(Some(&spec.name)).await?.pop();
            if newest.is_none_or(|row| row.number <= barrier) {
                return Ok(no_snapshot_since(&spec.name));
            }
        }
    } else if tx.rows_still_readable(&run.id, barrier).await? > 0 {
        return Ok(Wait::new(WaitCode::BucketNotDue, "other rows of its periods stay, under the same keys"));
    }
    drop(tx);
    Ok(slot_wait(installation).await?.unwrap_or_else(|| Wait::new(WaitCode::Nothing, "the next shred takes it")))
}

/// Until when the rows of a run still open that no shred has looked at yet.
async fn pending_since_marking(installation: &Installation, ground: &Ground<'_>, run: &RunRow) -> Result<String> {
    let mut tx = installation.control.read().await?;
    super::pending::pending_until(ground, &mut tx, run, run.verified_snapshot.unwrap_or(i64::MAX)).await
}

pub(super) fn no_snapshot_since(store: &str) -> Wait {
    Wait::new(WaitCode::NoSnapshotSince, format!("store {store} has no snapshot since the erasure yet"))
}

/// Whether the root slot wants more time between two generations.
pub(super) async fn slot_wait(installation: &Installation) -> Result<Option<Wait>> {
    let least = TimeDelta::from_std(installation.keyring.slot().abilities().minimum_interval).unwrap_or(TimeDelta::MAX);
    let mut tx = installation.control.read().await?;
    let until = not_before(tx.generation_made_at().await?, least, installation.clock.now());
    Ok(until.map(|until| {
        let what = format!("the root slot takes its next generation after {}", until.format("%Y-%m-%d %H:%M"));
        Wait::new(WaitCode::SlotInterval, what).until(until)
    }))
}

/// When the next group commit is, unless it may come now.
///
/// # Errors
/// When the control database fails.
pub async fn next_group_commit(tx: &mut Tx, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    Ok(not_before(tx.generation_made_at().await?, GROUP_COMMIT, now))
}

/// When a generation may follow one that was made at a time; `None`: now. The first one was made by no destruction.
fn not_before(
    made: Option<(Generation, DateTime<Utc>)>,
    least: TimeDelta,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let (_, at) = made.filter(|(generation, _)| *generation > 1)?;
    let until = at.checked_add_signed(least).unwrap_or(DateTime::<Utc>::MAX_UTC);
    (until > now).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_waits_for_the_interval_but_not_for_the_first_one() {
        let made: DateTime<Utc> = "2026-03-15T02:00:00Z".parse().unwrap();
        let hour = TimeDelta::hours(1);
        assert_eq!(not_before(Some((2, made)), hour, made), Some(made + hour));
        assert_eq!(not_before(Some((2, made)), hour, made + hour), None);
        assert_eq!(not_before(Some((1, made)), hour, made), None);
        assert_eq!(not_before(None, hour, made), None);
        assert_eq!(not_before(Some((2, made)), TimeDelta::MAX, made), Some(DateTime::<Utc>::MAX_UTC));
    }
}
