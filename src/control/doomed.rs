//! Roots that are to be destroyed at a date: until then they are neither usable nor gone.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row as _;

use super::{Result, Tx, optional_time, parse_time, time_text};

/// An old root whose destruction was begun and becomes irrevocable at a date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoomedRoot {
    /// Its generation.
    pub generation: i64,
    /// When its destruction was first begun.
    pub begun_at: DateTime<Utc>,
    /// When it becomes irrevocable, by the newest word of the slot.
    pub irrevocable_at: DateTime<Utc>,
    /// How often somebody called it off, so that it was begun again.
    pub called_off: i64,
    /// How many of those stand in the operation log.
    pub told: i64,
    /// What was done, as JSON.
    pub destroyed: String,
    /// When it was read back as gone.
    pub gone_at: Option<DateTime<Utc>>,
    /// What was done and read back, as JSON; there once it is gone.
    pub evidence: Option<String>,
}

const COLUMNS: &str = "generation, begun_at, irrevocable_at, called_off, told, destroyed, gone_at, evidence";

impl Tx {
    /// Stores a root whose destruction was begun, or begun again.
    pub async fn put_doomed_root(&mut self, root: &DoomedRoot) -> Result<()> {
        sqlx::query(
            "INSERT INTO doomed_root (generation, begun_at, irrevocable_at, called_off, told, destroyed, gone_at, evidence) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (generation) DO UPDATE SET \
             irrevocable_at = excluded.irrevocable_at, called_off = excluded.called_off, told = excluded.told, \
             destroyed = excluded.destroyed, gone_at = excluded.gone_at, evidence = excluded.evidence",
        )
        .bind(root.generation)
        .bind(time_text(root.begun_at))
        .bind(time_text(root.irrevocable_at))
        .bind(root.called_off)
        .bind(root.told)
        .bind(&root.destroyed)
        .bind(root.gone_at.map(time_text))
        .bind(&root.evidence)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// All of them, gone or not, by generation.
    pub async fn doomed_roots(&mut self) -> Result<Vec<DoomedRoot>> {
        let text = format!("SELECT {COLUMNS} FROM doomed_root ORDER BY generation");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut *self.inner).await?;
        rows.into_iter()
            .map(|row| {
                Ok(DoomedRoot {
                    generation: row.try_get(0)?,
                    begun_at: parse_time(&row.try_get::<String, _>(1)?)?,
                    irrevocable_at: parse_time(&row.try_get::<String, _>(2)?)?,
                    called_off: row.try_get(3)?,
                    told: row.try_get(4)?,
                    destroyed: row.try_get(5)?,
                    gone_at: optional_time(row.try_get(6)?)?,
                    evidence: row.try_get(7)?,
                })
            })
            .collect()
    }

    /// When the last of those roots is irrevocably gone that could still open what died with `generation`: every earlier root
    /// opened it, with the control database of its time. `None` when all of them are gone.
    pub async fn irrevocable_before(&mut self, generation: i64) -> Result<Option<DateTime<Utc>>> {
        let row = sqlx::query("SELECT MAX(irrevocable_at) FROM doomed_root WHERE generation < $1 AND gone_at IS NULL")
            .bind(generation)
            .fetch_one(&mut *self.inner)
            .await?;
        optional_time(row.try_get(0)?)
    }
}
