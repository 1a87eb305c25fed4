//! When objects of the bucket were last read back.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, parse_time, time_text};

impl Tx {
    /// When each object of a store was last read back and good.
    pub async fn read_back(&mut self, store: &str) -> Result<HashMap<String, DateTime<Utc>>> {
        let rows = sqlx::query("SELECT object, at FROM read_back WHERE store = $1").bind(store);
        let rows = rows.fetch_all(&mut *self.inner).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, parse_time(&row.try_get::<String, _>(1)?)?))).collect()
    }

    /// Notes objects that were read back and are good, and forgets those that do not belong to the store's snapshots any more.
    pub async fn note_read_back(
        &mut self,
        store: &str,
        good: &[String],
        listed: &HashSet<&str>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        for object in self.read_back(store).await?.into_keys().filter(|object| !listed.contains(object.as_str())) {
            sqlx::query("DELETE FROM read_back WHERE object = $1").bind(object).execute(&mut *self.inner).await?;
        }
        for object in good {
            let text = "INSERT INTO read_back (object, store, at) VALUES ($1, $2, $3) \
                        ON CONFLICT (object) DO UPDATE SET store = excluded.store, at = excluded.at";
            sqlx::query(text).bind(object).bind(store).bind(time_text(now)).execute(&mut *self.inner).await?;
        }
        Ok(())
    }
}
