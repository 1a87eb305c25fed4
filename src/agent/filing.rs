//! What the agent files: certificates as soon as a task has issued them, and by the job `outbox` what waits.

use std::sync::Arc;
use std::time::Duration;

use crate::installation::Installation;
use crate::schedule::Task;
use crate::tasks::Result;
use crate::tasks::outbox::file_due;
use crate::tasks::stamps::stamp_due;

use super::{Done, note};

/// How long the tasks to come wait for filing behind a task; what is not filed by then, the job `outbox` files.
const LONGEST: Duration = Duration::from_mins(2);

/// The job `outbox`: files and stamps what is due.
pub(super) async fn outbox(installation: &Installation) -> Result<Done> {
    let report = file_due(installation, false).await?;
    if let Some(doubt) = report.doubt {
        return Ok(Done { state: "failed", ..Done::good("outbox", doubt) });
    }
    let state = if report.quarantined.is_empty() && report.alarm.is_none() { "done" } else { "partial" };
    let summary = format!(
        "{} filed, {} waiting, {} refused",
        report.receipted.len() + report.acknowledged.len(),
        report.waiting.len(),
        report.quarantined.len()
    );
    let stamps = stamp_due(installation, false).await?;
    let state = if stamps.alarm { "partial" } else { state };
    let more = report.alarm.into_iter().chain(stamps.told());
    let summary = more.fold(summary, |summary, more| format!("{summary}; {more}"));
    Ok(Done { state, ..Done::good("outbox", summary) })
}

/// How many certificates there were before a piece of work.
pub(super) struct Before(Option<i64>);

impl Before {
    /// Of a task; those that file by themselves need no more.
    pub(super) async fn task(installation: &Installation, task: &Task) -> Self {
        match task {
            Task::Outbox | Task::RollUp => Self(None),
            _ => Self::work(installation).await,
        }
    }

    pub(super) async fn work(installation: &Installation) -> Self {
        Self(next_number(installation).await)
    }

    /// Files at once what the work issued, as the job `outbox` does, with the same respect for a service that fails. What comes of it
    /// is told under the name of that job and is no fault of the work.
    pub(super) async fn file_issued(self, installation: &Installation) {
        if self.0.is_none() || next_number(installation).await <= self.0 {
            return;
        }
        let stop = Arc::clone(installation.stop_switch());
        let filed = tokio::select! {
            biased;
            filed = stop.within(LONGEST, outbox(installation)) => filed,
            () = stop.ready() => None,
        };
        let Some(filed) = filed else { return };
        let done = Done::of("outbox", filed);
        tracing::info!(state = done.state, "behind a task: {}", done.summary);
        note(installation, &[done]).await;
    }
}

/// The number of the next certificate; none when the control database does not answer.
async fn next_number(installation: &Installation) -> Option<i64> {
    let read = async { installation.control.read().await?.next_certificate().await };
    read.await.ok().map(|(number, _)| number)
}
