//! Time stamps over certificates.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, parse_time, time_text};

/// A time stamp that was verified when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeStampRow {
    /// The certificate.
    pub certificate: String,
    /// The authority's reply as it came.
    pub reply: Vec<u8>,
    /// The time that it says.
    pub at: DateTime<Utc>,
    /// Who says it.
    pub authority: String,
}

/// A certificate that has no time stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstamped {
    /// The certificate.
    pub certificate: String,
    /// When it was issued, by what stands beside it; none where that cannot be read. Nothing is proved by it.
    pub issued_at: Option<DateTime<Utc>>,
}

const TIME_STAMP: &str = "SELECT certificate, reply, at, authority FROM time_stamp";

impl Tx {
    /// Keeps a time stamp; the first one of a certificate stays. Returns whether it was the first.
    pub async fn add_time_stamp(&mut self, stamp: &TimeStampRow) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO time_stamp (certificate, reply, at, authority) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(&stamp.certificate)
        .bind(&stamp.reply)
        .bind(time_text(stamp.at))
        .bind(&stamp.authority)
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// The time stamp of a certificate.
    pub async fn time_stamp(&mut self, certificate: &str) -> Result<Option<TimeStampRow>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{TIME_STAMP} WHERE certificate = $1"))).bind(certificate);
        row.fetch_optional(&mut *self.inner).await?.as_ref().map(stamp_row).transpose()
    }

    /// All time stamps.
    pub async fn time_stamps(&mut self) -> Result<Vec<TimeStampRow>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{TIME_STAMP} ORDER BY certificate")));
        rows.fetch_all(&mut *self.inner).await?.iter().map(stamp_row).collect()
    }

    /// The envelope of a certificate alone; none where there is none. What is no bytes at all is read as nothing, which no envelope is.
    pub async fn envelope(&mut self, certificate: &str) -> Result<Option<Vec<u8>>> {
        let row = sqlx::query("SELECT envelope FROM certificate WHERE id = $1").bind(certificate);
        let row = row.fetch_optional(&mut *self.inner).await?;
        Ok(row.map(|row| row.try_get(0).unwrap_or_default()))
    }

    /// Certificates without a time stamp, by number.
    pub async fn unstamped(&mut self) -> Result<Vec<Unstamped>> {
        let text = "SELECT id, issued_at FROM certificate WHERE NOT EXISTS \
                    (SELECT 1 FROM time_stamp WHERE time_stamp.certificate = certificate.id) ORDER BY sequence";
        let rows = sqlx::query(text).fetch_all(&mut *self.inner).await?;
        let row = |row: &sqlx::any::AnyRow| {
            // One damaged row keeps no other certificate from its time stamp.
            let issued_at = row.try_get::<String, _>(1).ok().and_then(|text| parse_time(&text).ok());
            Ok(Unstamped { certificate: row.try_get(0)?, issued_at })
        };
        rows.iter().map(row).collect()
    }
}

fn stamp_row(row: &sqlx::any::AnyRow) -> Result<TimeStampRow> {
    Ok(TimeStampRow {
        certificate: row.try_get(0)?,
        reply: row.try_get(1)?,
        at: parse_time(&row.try_get::<String, _>(2)?)?,
        authority: row.try_get(3)?,
    })
}
