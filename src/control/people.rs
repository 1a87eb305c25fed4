//! Requests of customers and legal holds.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{ControlError, Result, Tx, optional_time, parse_time, time_text};

/// A request as stored; the subject's id is in `sealed`, under the request's own work leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// Its number, as told to the customer.
    pub number: i64,
    /// `erase`.
    pub kind: String,
    /// Keyed digest of the subject's id, to find the same person's request again.
    pub lookup: [u8; 32],
    /// The sealed subject id.
    pub sealed: Vec<u8>,
    /// `received`, `running`, `done`, `waiting` (for what keeps some of its rows to end), `partly-kept`, `nothing-found`, `cancelled`,
    /// `failed`.
    pub state: String,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// When it must be answered.
    pub due_at: DateTime<Utc>,
    /// The run that served it.
    pub run: Option<String>,
    /// When it was closed.
    pub closed_at: Option<DateTime<Utc>>,
    /// What it waits for, as JSON.
    pub waits: Option<String>,
    /// Why it was asked for, by the code that certificates have; none means that the person asked.
    pub reason: Option<String>,
    /// Why somebody ended it although nothing of it was carried out, as JSON.
    pub refusal: Option<String>,
}

/// A legal hold as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    /// Its id.
    pub id: String,
    /// `subject`, `collection`, `store` or `everything`.
    pub scope: String,
    /// The store, for a collection or store.
    pub store: Option<String>,
    /// The collection.
    pub collection: Option<String>,
    /// Keyed digest of the subject's id.
    pub subject: Option<[u8; 32]>,
    /// The case or file number: no personal data.
    pub reason: String,
    /// When it was placed.
    pub placed_at: DateTime<Utc>,
    /// By whom.
    pub placed_by: String,
    /// When it was released.
    pub released_at: Option<DateTime<Utc>>,
}

const REQUEST: &str = "SELECT number, kind, lookup, sealed, state, received_at, due_at, run, closed_at, waits, reason, refusal FROM request";

impl Tx {
    /// Stores a new request with a sealed subject id that is set afterwards; returns its number.
    pub async fn add_request(
        &mut self,
        kind: &str,
        lookup: &[u8; 32],
        received: DateTime<Utc>,
        due: DateTime<Utc>,
    ) -> Result<i64> {
        let row = sqlx::query(
            "INSERT INTO request (kind, lookup, sealed, state, received_at, due_at) VALUES ($1, $2, $3, 'received', $4, $5) RETURNING number",
        )
        .bind(kind)
        .bind(&lookup[..])
        .bind(&[][..])
        .bind(time_text(received))
        .bind(time_text(due))
        .fetch_one(&mut *self.inner)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Sets the sealed subject id of a request.
    pub async fn set_request_subject(&mut self, number: i64, sealed: &[u8]) -> Result<()> {
        sqlx::query("UPDATE request SET sealed = $2 WHERE number = $1")
            .bind(number)
            .bind(sealed)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Notes why a request was made, by a code of certificates.
    pub async fn set_request_reason(&mut self, number: i64, reason: &str) -> Result<()> {
        sqlx::query("UPDATE request SET reason = $2 WHERE number = $1")
            .bind(number)
            .bind(reason)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Moves a request from one state to another; false when it was not in the first.
    pub async fn step_request(
        &mut self,
        number: i64,
        from: &str,
        to: &str,
        run: Option<&str>,
        closed: Option<DateTime<Utc>>,
    ) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE request SET state = $3, run = COALESCE($4, run), closed_at = $5 WHERE number = $1 AND state = $2",
        )
        .bind(number)
        .bind(from)
        .bind(to)
        .bind(run)
        .bind(closed.map(time_text))
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The same person asked again: the request counts as received now, and waits for nothing. False when it is neither waiting nor
    /// going on after it waited.
    pub async fn ask_again(&mut self, number: i64, received: DateTime<Utc>, due: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE request SET received_at = $2, due_at = $3, closed_at = NULL, \
             waits = CASE WHEN state = 'running' THEN '{}' END, \
             state = CASE WHEN state = 'running' THEN 'running' ELSE 'received' END \
             WHERE number = $1 AND (state = 'waiting' OR state IN ('received', 'running') AND waits IS NOT NULL)",
        )
        .bind(number)
        .bind(time_text(received))
        .bind(time_text(due))
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Lets a request wait for nothing.
    pub async fn clear_request_waits(&mut self, number: i64) -> Result<()> {
        sqlx::query("UPDATE request SET waits = NULL WHERE number = $1").bind(number).execute(&mut *self.inner).await?;
        Ok(())
    }

    /// Sets what a request waits for, as JSON.
    pub async fn set_request_waits(&mut self, number: i64, waits: &str) -> Result<()> {
        let query = sqlx::query("UPDATE request SET waits = $2 WHERE number = $1").bind(number).bind(waits);
        query.execute(&mut *self.inner).await?;
        Ok(())
    }

    /// Sets why a request was ended of which nothing was carried out, as JSON; false when another reason stands there than `from`.
    pub async fn set_request_refusal(&mut self, number: i64, from: Option<&str>, refusal: &str) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE request SET refusal = $3 WHERE number = $1 AND COALESCE(refusal, '') = COALESCE($2, '')",
        )
        .bind(number)
        .bind(from)
        .bind(refusal)
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Requests that somebody ended although nothing of them was carried out, oldest first.
    pub async fn refused_requests(&mut self) -> Result<Vec<RequestRow>> {
        let text = format!("{REQUEST} WHERE refusal IS NOT NULL ORDER BY number");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut *self.inner).await?;
        rows.iter().map(request_row).collect()
    }

    /// All requests, oldest first; in one state when given.
    pub async fn requests(&mut self, state: Option<&str>) -> Result<Vec<RequestRow>> {
        let text = format!("{REQUEST} WHERE ($1 IS NULL OR state = $1) ORDER BY number");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(state).fetch_all(&mut *self.inner).await?;
        rows.iter().map(request_row).collect()
    }

    /// A request by its number.
    pub async fn request(&mut self, number: i64) -> Result<Option<RequestRow>> {
        let text = format!("{REQUEST} WHERE number = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(number).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(request_row).transpose()
    }

    /// The open request of the same subject, if any.
    pub async fn open_request_of(&mut self, lookup: &[u8; 32]) -> Result<Option<RequestRow>> {
        let text = format!(
            "{REQUEST} WHERE lookup = $1 AND state IN ('received', 'running', 'waiting') ORDER BY number LIMIT 1"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(&lookup[..]).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(request_row).transpose()
    }

    /// Places a hold.
    pub async fn add_hold(&mut self, hold: &HoldRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO hold (id, scope, store, collection, subject, reason, placed_at, placed_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&hold.id)
        .bind(&hold.scope)
        .bind(&hold.store)
        .bind(&hold.collection)
        .bind(hold.subject.as_ref().map(|subject| subject.to_vec()))
        .bind(&hold.reason)
        .bind(time_text(hold.placed_at))
        .bind(&hold.placed_by)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Releases a hold, and with it those placed on further forms of the same subject's id (`id#2`, …); false when there is
    /// no such active hold.
    pub async fn release_hold(&mut self, id: &str, by: &str, now: DateTime<Utc>) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE hold SET released_at = $2, released_by = $3 WHERE released_at IS NULL \
             AND (id = $1 OR substr(id, 1, length($1) + 1) = $1 || '#')",
        )
        .bind(id)
        .bind(time_text(now))
        .bind(by)
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// All holds, oldest first.
    pub async fn holds(&mut self, active_only: bool) -> Result<Vec<HoldRow>> {
        let rows = sqlx::query(
            "SELECT id, scope, store, collection, subject, reason, placed_at, placed_by, released_at FROM hold \
             WHERE released_at IS NULL OR NOT $1 ORDER BY placed_at, id",
        )
        .bind(active_only)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(HoldRow {
                    id: row.try_get(0)?,
                    scope: row.try_get(1)?,
                    store: row.try_get(2)?,
                    collection: row.try_get(3)?,
                    subject: row.try_get::<Option<Vec<u8>>, _>(4)?.map(digest).transpose()?,
                    reason: row.try_get(5)?,
                    placed_at: parse_time(&row.try_get::<String, _>(6)?)?,
                    placed_by: row.try_get(7)?,
                    released_at: optional_time(row.try_get(8)?)?,
                })
            })
            .collect()
    }
}

fn request_row(row: &sqlx::any::AnyRow) -> Result<RequestRow> {
    Ok(RequestRow {
        number: row.try_get(0)?,
        kind: row.try_get(1)?,
        lookup: digest(row.try_get(2)?)?,
        sealed: row.try_get(3)?,
        state: row.try_get(4)?,
        received_at: parse_time(&row.try_get::<String, _>(5)?)?,
        due_at: parse_time(&row.try_get::<String, _>(6)?)?,
        run: row.try_get(7)?,
        closed_at: optional_time(row.try_get(8)?)?,
        waits: row.try_get(9)?,
        reason: row.try_get(10)?,
        refusal: row.try_get(11)?,
    })
}

fn digest(bytes: Vec<u8>) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| ControlError::Inconsistent("a subject digest has a wrong length".to_owned()))
}
