//! The record of signing keys: which key signs, which signed before, from when until when. Only ever added to, and each is
//! signed; that the newest one was deleted is found by `audit verify`, from the operation log.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, time_text};

impl Tx {
    /// The newest record, if a key was ever changed or made outside of this host.
    pub async fn signing_keys(&mut self) -> Result<Option<Vec<u8>>> {
        let row = sqlx::query("SELECT record FROM signing_keys ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// The number of the newest record; 0 without any.
    pub async fn signing_keys_number(&mut self) -> Result<u64> {
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) FROM signing_keys").fetch_one(&mut *self.inner).await?;
        let number: i64 = row.try_get(0)?;
        Ok(number.unsigned_abs())
    }

    /// Adds a record behind the others.
    pub async fn add_signing_keys(&mut self, number: u64, record: &[u8], at: DateTime<Utc>) -> Result<()> {
        sqlx::query("INSERT INTO signing_keys (number, recorded_at, record) VALUES ($1, $2, $3)")
            .bind(i64::try_from(number).unwrap_or(i64::MAX))
            .bind(time_text(at))
            .bind(record)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
