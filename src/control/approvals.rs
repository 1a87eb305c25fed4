//! Approvals of plans: who agreed to which plan.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, parse_time, time_text};

/// Somebody's agreement to a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRow {
    /// The plan's id.
    pub plan: String,
    /// Who agreed, by name.
    pub operator: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl Tx {
    /// Stores somebody's agreement to a plan; false when the same person has agreed already.
    pub async fn add_approval(&mut self, approval: &ApprovalRow) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO approval (plan, operator, at) VALUES ($1, $2, $3) ON CONFLICT (plan, operator) DO NOTHING",
        )
        .bind(&approval.plan)
        .bind(&approval.operator)
        .bind(time_text(approval.at))
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Who agreed to a plan, in that order.
    pub async fn approvals(&mut self, plan: &str) -> Result<Vec<ApprovalRow>> {
        let rows = sqlx::query("SELECT plan, operator, at FROM approval WHERE plan = $1 ORDER BY at, operator")
            .bind(plan)
            .fetch_all(&mut *self.inner)
            .await?;
        let read = |row: &sqlx::any::AnyRow| {
            let (plan, operator) = (row.try_get(0)?, row.try_get(1)?);
            Ok(ApprovalRow { plan, operator, at: parse_time(&row.try_get::<String, _>(2)?)? })
        };
        rows.iter().map(read).collect()
    }
}
