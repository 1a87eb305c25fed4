//! Storage media with copies of data: those that were destroyed, and those that were lost.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, parse_time, time_text};

/// A record of a medium as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRow {
    /// Its random id.
    pub id: String,
    /// Its number, from 1 without gaps; 0 before it is stored.
    pub number: i64,
    /// `destroyed` or `lost`.
    pub event: String,
    /// `recorded`; of a lost one `shredding` while keys are to die for it, `settled` behind that.
    pub state: String,
    /// When it happened.
    pub happened_at: DateTime<Utc>,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// What is known of it, JSON.
    pub body: String,
    /// What the newest certificate tells of; none before the first.
    pub certified: Option<String>,
}

const SELECT: &str = "SELECT id, number, event, state, happened_at, recorded_at, body, certified FROM media";

impl Tx {
    /// Adds a record; returns its number.
    pub async fn add_medium(&mut self, medium: &MediaRow) -> Result<i64> {
        let row = sqlx::query(
            "INSERT INTO media (id, number, event, state, happened_at, recorded_at, body) \
             VALUES ($1, (SELECT COALESCE(MAX(number), 0) + 1 FROM media), $2, $3, $4, $5, $6) RETURNING number",
        )
        .bind(&medium.id)
        .bind(&medium.event)
        .bind(&medium.state)
        .bind(time_text(medium.happened_at))
        .bind(time_text(medium.recorded_at))
        .bind(&medium.body)
        .fetch_one(&mut *self.inner)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Stores what became of a record that was as `from`; false when it changed meanwhile, and nothing is changed then.
    pub async fn step_medium(&mut self, medium: &MediaRow, from: &MediaRow) -> Result<bool> {
        if self.medium(&from.id).await?.as_ref() != Some(from) {
            return Ok(false);
        }
        let done = sqlx::query("UPDATE media SET state = $2, body = $3, certified = $4 WHERE id = $1")
            .bind(&medium.id)
            .bind(&medium.state)
            .bind(&medium.body)
            .bind(&medium.certified)
            .execute(&mut *self.inner)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// All records, oldest first.
    pub async fn media(&mut self) -> Result<Vec<MediaRow>> {
        let text = format!("{SELECT} ORDER BY number");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut *self.inner).await?;
        rows.iter().map(row_of).collect()
    }

    /// A record by its id.
    pub async fn medium(&mut self, id: &str) -> Result<Option<MediaRow>> {
        let text = format!("{SELECT} WHERE id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(row_of).transpose()
    }
}

fn row_of(row: &sqlx::any::AnyRow) -> Result<MediaRow> {
    Ok(MediaRow {
        id: row.try_get(0)?,
        number: row.try_get(1)?,
        event: row.try_get(2)?,
        state: row.try_get(3)?,
        happened_at: parse_time(&row.try_get::<String, _>(4)?)?,
        recorded_at: parse_time(&row.try_get::<String, _>(5)?)?,
        body: row.try_get(6)?,
        certified: row.try_get(7)?,
    })
}
