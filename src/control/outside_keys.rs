//! Keys in a key service that applications seal fields with, and what became of them.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{ControlError, Result, Tx, optional_time, parse_time, time_text};

/// A registered outside key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideKeyRow {
    /// Its random id, by which people and certificates know it.
    pub id: String,
    /// The entry of the configuration that it belongs to.
    pub name: String,
    /// Keyed digest of the subject whose key it is; none for a policy's key, and none once it is destroyed.
    pub lookup: Option<[u8; 32]>,
    /// Keyed digest of the entry and its own name, so that one key is registered once.
    pub place_mac: [u8; 32],
    /// Sealed: whose it is, and its own name. Empty for a policy's key, whose name stands in the configuration.
    pub sealed: Vec<u8>,
    /// `active`, `ended`, `destroying`, `doubtful`, `doomed`, `destroyed` or `released`.
    pub state: String,
    /// When it was registered.
    pub registered_at: DateTime<Utc>,
    /// Since when nothing relies on it.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it may be destroyed, once that is known.
    pub due_at: Option<DateTime<Utc>>,
    /// When it was read back as gone.
    pub destroyed_at: Option<DateTime<Utc>>,
    /// The public part, JSON.
    pub body: String,
}

const SELECT: &str = "SELECT id, name, lookup, place_mac, sealed, state, registered_at, ended_at, due_at, destroyed_at, body \
                      FROM outside_key";

impl Tx {
    /// Registers an outside key.
    pub async fn add_outside_key(&mut self, key: &OutsideKeyRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO outside_key (id, name, lookup, place_mac, sealed, state, registered_at, ended_at, due_at, destroyed_at, \
             body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&key.id)
        .bind(&key.name)
        .bind(key.lookup.as_ref().map(|lookup| lookup.to_vec()))
        .bind(&key.place_mac[..])
        .bind(&key.sealed)
        .bind(&key.state)
        .bind(time_text(key.registered_at))
        .bind(key.ended_at.map(time_text))
        .bind(key.due_at.map(time_text))
        .bind(key.destroyed_at.map(time_text))
        .bind(&key.body)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Stores a key that was in state `from`; false when it is not in that state any more, and nothing is changed then.
    pub async fn step_outside_key(&mut self, key: &OutsideKeyRow, from: &str) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE outside_key SET lookup = $3, sealed = $4, state = $5, ended_at = $6, due_at = $7, destroyed_at = $8, \
             body = $9 WHERE id = $1 AND state = $2",
        )
        .bind(&key.id)
        .bind(from)
        .bind(key.lookup.as_ref().map(|lookup| lookup.to_vec()))
        .bind(&key.sealed)
        .bind(&key.state)
        .bind(key.ended_at.map(time_text))
        .bind(key.due_at.map(time_text))
        .bind(key.destroyed_at.map(time_text))
        .bind(&key.body)
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// All outside keys, in the order in which they were registered.
    pub async fn outside_keys(&mut self) -> Result<Vec<OutsideKeyRow>> {
        let text = format!("{SELECT} ORDER BY registered_at, id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut *self.inner).await?;
        rows.iter().map(row_of).collect()
    }

    /// An outside key by its id.
    pub async fn outside_key(&mut self, id: &str) -> Result<Option<OutsideKeyRow>> {
        let text = format!("{SELECT} WHERE id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(row_of).transpose()
    }
}

fn row_of(row: &sqlx::any::AnyRow) -> Result<OutsideKeyRow> {
    let digest = |bytes: Vec<u8>| {
        <[u8; 32]>::try_from(bytes)
            .map_err(|_| ControlError::Inconsistent("a digest of an outside key has a wrong length".to_owned()))
    };
    Ok(OutsideKeyRow {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        lookup: row.try_get::<Option<Vec<u8>>, _>(2)?.map(digest).transpose()?,
        place_mac: digest(row.try_get(3)?)?,
        sealed: row.try_get(4)?,
        state: row.try_get(5)?,
        registered_at: parse_time(&row.try_get::<String, _>(6)?)?,
        ended_at: optional_time(row.try_get(7)?)?,
        due_at: optional_time(row.try_get(8)?)?,
        destroyed_at: optional_time(row.try_get(9)?)?,
        body: row.try_get(10)?,
    })
}
