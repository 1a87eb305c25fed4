//! Which job ran for which scheduled time: the unique key gives catch-up, no overlap and one runner.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row as _;

use super::{Result, Tx, optional_time, parse_time, time_text};

/// A job's execution for one scheduled time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// The job.
    pub job: String,
    /// The time it was due.
    pub scheduled_for: DateTime<Utc>,
    /// `running`, `done`, `partial`, `refused`, `failed`; `stopped` before its end by a clean stop; `killed` together with the
    /// agent, and `rerunning` when it was and runs once more.
    pub state: String,
    /// When it began.
    pub begun_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// What came of it, one line without personal data.
    pub outcome: Option<String>,
}

impl Tx {
    /// Claims a job for a scheduled time; false when somebody has it already. One that was stopped or killed is claimed anew.
    pub async fn claim_job(&mut self, job: &str, scheduled_for: DateTime<Utc>, now: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO job_run (job, scheduled_for, state, begun_at) VALUES ($1, $2, 'running', $3) ON CONFLICT (job, scheduled_for) \
             DO UPDATE SET state = CASE WHEN job_run.state = 'killed' THEN 'rerunning' ELSE excluded.state END, \
             begun_at = excluded.begun_at, ended_at = NULL WHERE job_run.state IN ('stopped', 'killed')",
        )
        .bind(job)
        .bind(time_text(scheduled_for))
        .bind(time_text(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a job.
    pub async fn end_job(
        &mut self,
        job: &str,
        scheduled_for: DateTime<Utc>,
        state: &str,
        outcome: &str,
        now: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query("UPDATE job_run SET state = $3, outcome = $4, ended_at = $5 WHERE job = $1 AND scheduled_for = $2")
            .bind(job)
            .bind(time_text(scheduled_for))
            .bind(state)
            .bind(outcome)
            .bind(time_text(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Ends what a dead agent left running. An execution of one of the `again` jobs that died for the first time is due once
    /// more; one that died twice is not, so that a job which kills its agent does not do so for ever.
    pub async fn end_killed_jobs(&mut self, again: &[&str], now: DateTime<Utc>) -> Result<()> {
        for job in again {
            sqlx::query(
                "UPDATE job_run SET state = 'killed', outcome = 'the agent was killed; it runs once more', ended_at = $2 \
                 WHERE state = 'running' AND job = $1",
            )
            .bind(*job)
            .bind(time_text(now))
            .execute(&mut *self.inner)
            .await?;
        }
        sqlx::query(
            "UPDATE job_run SET state = 'failed', outcome = 'the agent was killed', ended_at = $1 \
             WHERE state IN ('running', 'rerunning')",
        )
        .bind(time_text(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// The newest scheduled time of every job that ever ran; just before it when the run was stopped or killed, so that it is due
    /// again.
    pub async fn last_scheduled(&mut self) -> Result<HashMap<String, DateTime<Utc>>> {
        let rows = sqlx::query(
            "SELECT job, scheduled_for, state FROM job_run WHERE scheduled_for = \
             (SELECT MAX(newest.scheduled_for) FROM job_run newest WHERE newest.job = job_run.job)",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        let of_row = |row: sqlx::any::AnyRow| {
            let at = parse_time(&row.try_get::<String, _>(1)?)?;
            let is_open = ["stopped", "killed"].contains(&row.try_get::<String, _>(2)?.as_str());
            Ok((row.try_get(0)?, if is_open { at - TimeDelta::milliseconds(1) } else { at }))
        };
        rows.into_iter().map(of_row).collect()
    }

    /// The newest executions, newest first.
    pub async fn job_runs(&mut self, limit: i64) -> Result<Vec<JobRun>> {
        let rows = sqlx::query(
            "SELECT job, scheduled_for, state, begun_at, ended_at, outcome FROM job_run ORDER BY begun_at DESC, job LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(JobRun {
                    job: row.try_get(0)?,
                    scheduled_for: parse_time(&row.try_get::<String, _>(1)?)?,
                    state: row.try_get(2)?,
                    begun_at: parse_time(&row.try_get::<String, _>(3)?)?,
                    ended_at: optional_time(row.try_get(4)?)?,
                    outcome: row.try_get(5)?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_stopped_job_is_due_again_and_any_other_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let control = crate::control::testing::create(&folder.path().join("control.db"), [1; 16]).await;
        let (early, late) = ("2026-01-01T01:00:00Z".parse().unwrap(), "2026-01-02T01:00:00Z".parse().unwrap());
        let mut tx = control.begin().await.unwrap();
        for (job, state) in [("a", "stopped"), ("b", "failed")] {
            for at in [early, late] {
                assert!(tx.claim_job(job, at, at).await.unwrap());
                tx.end_job(job, at, if at == late { state } else { "done" }, "", at).await.unwrap();
            }
        }
        let last = tx.last_scheduled().await.unwrap();
        assert!(last["a"] < late && last["a"] > early && last["b"] == late, "{last:?}");
        assert!(!tx.claim_job("b", late, late).await.unwrap());
        assert!(!tx.claim_job("a", early, late).await.unwrap(), "what was done is not done again");
        assert!(tx.claim_job("a", late, late).await.unwrap());
        assert!(!tx.claim_job("a", late, late).await.unwrap(), "only one gets it");
        assert_eq!(tx.last_scheduled().await.unwrap()["a"], late);
    }

    #[tokio::test]
    async fn a_killed_job_is_due_once_more_and_no_third_time() {
        let folder = tempfile::tempdir().unwrap();
        let control = crate::control::testing::create(&folder.path().join("control.db"), [1; 16]).await;
        let at = "2026-01-01T23:00:00Z".parse().unwrap();
        let mut tx = control.begin().await.unwrap();
        for job in ["backup", "tick"] {
            assert!(tx.claim_job(job, at, at).await.unwrap());
        }
        // `tick` is declared with `missed = "skip"`.
        tx.end_killed_jobs(&["backup", "gone"], at).await.unwrap();
        let last = tx.last_scheduled().await.unwrap();
        assert!(last["backup"] < at && last["tick"] == at, "{last:?}");
        assert!(!tx.claim_job("tick", at, at).await.unwrap());
        assert!(tx.claim_job("backup", at, at).await.unwrap());
        assert!(!tx.claim_job("backup", at, at).await.unwrap(), "only one gets it");
        tx.end_killed_jobs(&["backup"], at).await.unwrap();
        assert_eq!(tx.last_scheduled().await.unwrap()["backup"], at);
        assert!(!tx.claim_job("backup", at, at).await.unwrap());
        let states: Vec<String> = tx.job_runs(9).await.unwrap().into_iter().map(|run| run.state).collect();
        assert_eq!(states, ["failed", "failed"]);
        // What ended well is left alone.
        tx.claim_job("done", at, at).await.unwrap();
        tx.end_job("done", at, "done", "", at).await.unwrap();
        tx.end_killed_jobs(&["done"], at).await.unwrap();
        assert_eq!(tx.last_scheduled().await.unwrap()["done"], at);
    }
}
