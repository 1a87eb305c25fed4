//! What happens to a run while its batches go: chunks cut into pieces, what somebody asked of it, and how fast it goes.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{ChunkRow, Result, RunRow, Tx, parse_time, time_text};

/// What somebody asked of a run. Looked at between batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    /// The run.
    pub run: String,
    /// `go`, `pause` or `stop`.
    pub wish: String,
    /// At most so many rows in a second; none: as the store's budget says.
    pub rows_per_second: Option<i64>,
    /// The length in milliseconds that a transaction aims at; none: as the store's budget says.
    pub transaction_ms: Option<i64>,
    /// Who asked last.
    pub asked_by: String,
    /// When.
    pub asked_at: DateTime<Utc>,
}

/// How fast a run goes, as far as it got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PaceRow {
    /// Transactions that were committed.
    pub batches: i64,
    /// Rows in them.
    pub rows: i64,
    /// Time spent with batches, intents and outcomes included.
    pub worked_ms: i64,
    /// Time spent waiting between them.
    pub paused_ms: i64,
    /// The longest transaction.
    pub longest_ms: i64,
    /// Rows that the next batch would take.
    pub batch_rows: i64,
    /// What it waits for, or why it was stopped; none while it goes.
    pub waits_for: Option<String>,
}

impl Tx {
    /// Puts pieces in the place of a chunk that was not begun.
    pub async fn cut_chunk(&mut self, plan: &str, number: i64, pieces: &[ChunkRow]) -> Result<()> {
        let gone = sqlx::query("DELETE FROM plan_chunk WHERE plan = $1 AND number = $2 AND state = 'planned'")
            .bind(plan)
            .bind(number)
            .execute(&mut *self.inner)
            .await?;
        if gone.rows_affected() != 1 {
            return Err(super::ControlError::Inconsistent(format!("chunk {number} of a plan was begun already")));
        }
        self.add_chunks(plan, pieces).await
    }

    /// Takes the intent of a chunk back: nothing of it was committed, and it is done again later.
    pub async fn release_chunk(&mut self, run: &RunRow, chunk: &ChunkRow) -> Result<()> {
        sqlx::query("UPDATE plan_chunk SET state = 'planned' WHERE plan = $1 AND number = $2 AND state = 'running'")
            .bind(&run.plan)
            .bind(chunk.number)
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("DELETE FROM ledger WHERE run = $1 AND chunk = $2 AND state = 'intended'")
            .bind(&run.id)
            .bind(chunk.number)
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("DELETE FROM pre_image WHERE run = $1 AND chunk = $2")
            .bind(&run.id)
            .bind(chunk.number)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Stores what somebody asks of a run; what was asked before is replaced.
    pub async fn set_order(&mut self, order: &OrderRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO run_order (run, wish, rows_per_second, transaction_ms, asked_by, asked_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (run) DO UPDATE SET wish = $2, rows_per_second = $3, \
             transaction_ms = $4, asked_by = $5, asked_at = $6",
        )
        .bind(&order.run)
        .bind(&order.wish)
        .bind(order.rows_per_second)
        .bind(order.transaction_ms)
        .bind(&order.asked_by)
        .bind(time_text(order.asked_at))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// What was asked of a run, if anything.
    pub async fn order(&mut self, run: &str) -> Result<Option<OrderRow>> {
        let row = sqlx::query(
            "SELECT run, wish, rows_per_second, transaction_ms, asked_by, asked_at FROM run_order WHERE run = $1",
        )
        .bind(run)
        .fetch_optional(&mut *self.inner)
        .await?;
        let read = |row: sqlx::any::AnyRow| {
            Ok(OrderRow {
                run: row.try_get(0)?,
                wish: row.try_get(1)?,
                rows_per_second: row.try_get(2)?,
                transaction_ms: row.try_get(3)?,
                asked_by: row.try_get(4)?,
                asked_at: parse_time(&row.try_get::<String, _>(5)?)?,
            })
        };
        row.map(read).transpose()
    }

    /// Stores how fast a run goes.
    pub async fn set_pace(&mut self, run: &str, pace: &PaceRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO run_pace (run, batches, rows, worked_ms, paused_ms, longest_ms, batch_rows, waits_for) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (run) DO UPDATE SET batches = $2, rows = $3, worked_ms = $4, \
             paused_ms = $5, longest_ms = $6, batch_rows = $7, waits_for = $8",
        )
        .bind(run)
        .bind(pace.batches)
        .bind(pace.rows)
        .bind(pace.worked_ms)
        .bind(pace.paused_ms)
        .bind(pace.longest_ms)
        .bind(pace.batch_rows)
        .bind(&pace.waits_for)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// How fast a run went; none when no batch of it was begun.
    pub async fn pace(&mut self, run: &str) -> Result<Option<PaceRow>> {
        let row = sqlx::query(
            "SELECT batches, rows, worked_ms, paused_ms, longest_ms, batch_rows, waits_for FROM run_pace WHERE run = $1",
        )
        .bind(run)
        .fetch_optional(&mut *self.inner)
        .await?;
        let read = |row: sqlx::any::AnyRow| {
            Ok(PaceRow {
                batches: row.try_get(0)?,
                rows: row.try_get(1)?,
                worked_ms: row.try_get(2)?,
                paused_ms: row.try_get(3)?,
                longest_ms: row.try_get(4)?,
                batch_rows: row.try_get(5)?,
                waits_for: row.try_get(6)?,
            })
        };
        row.map(read).transpose()
    }
}
