//! Which job ran for which scheduled time: the unique key gives catch-up, no overlap and one runner.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, optional_time, parse_time, time_text};

/// A job's execution for one scheduled time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// The job.
    pub job: String,
    /// The time it was due.
    pub scheduled_for: DateTime<Utc>,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// When it began.
    pub begun_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// What came of it, one line without personal data.
    pub outcome: Option<String>,
}

impl Tx {
    /// Claims a job for a scheduled time; false when somebody has it already.
    pub async fn claim_job(&mut self, job: &str, scheduled_for: DateTime<Utc>, now: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO job_run (job, scheduled_for, state, begun_at) VALUES ($1, $2, 'running', $3) ON CONFLICT (job, scheduled_for) DO NOTHING",
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

    /// Marks executions that a dead agent left running as failed; the work itself is resumable.
    pub async fn fail_running_jobs(&mut self, now: DateTime<Utc>) -> Result<u64> {
        let done = sqlx::query(
            "UPDATE job_run SET state = 'failed', outcome = 'the agent stopped', ended_at = $1 WHERE state = 'running'",
        )
        .bind(time_text(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected())
    }

    /// The newest scheduled time of every job that ever ran.
    pub async fn last_scheduled(&mut self) -> Result<HashMap<String, DateTime<Utc>>> {
        let rows =
            sqlx::query("SELECT job, MAX(scheduled_for) FROM job_run GROUP BY job").fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, parse_time(&row.try_get::<String, _>(1)?)?))).collect()
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
