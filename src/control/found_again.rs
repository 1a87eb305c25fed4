//! Rows that runs erased and that a later look found again.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::built::Built;
use super::{ControlError, ROWS_PER_STATEMENT, Result, Tx, parse_time, time_text};

/// How many rows of a run are there again in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAgain {
    /// The run that erased them.
    pub run: String,
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// How many; 0 once they are gone again.
    pub rows: i64,
    /// When the look was that found so many.
    pub looked_at: DateTime<Utc>,
}

impl Tx {
    /// What was ever found again, of one run when given, by run and place.
    pub async fn found_again(&mut self, run: Option<&str>) -> Result<Vec<FoundAgain>> {
        let rows = sqlx::query(
            "SELECT run, store, collection, rows, looked_at FROM found_again WHERE ($1 IS NULL OR run = $1) \
             ORDER BY run, store, collection",
        )
        .bind(run)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(FoundAgain {
                    run: row.try_get(0)?,
                    store: row.try_get(1)?,
                    collection: row.try_get(2)?,
                    rows: row.try_get(3)?,
                    looked_at: parse_time(&row.try_get::<String, _>(4)?)?,
                })
            })
            .collect()
    }

    /// Notes what a look at a whole place found of the runs that erased rows there, by run; of those that are not named it found none.
    /// Returns how many runs it changed something for.
    pub async fn note_found_again(
        &mut self,
        (store, collection): (&str, &str),
        found: &HashMap<String, i64>,
        looked_at: DateTime<Utc>,
    ) -> Result<usize> {
        let known = self.found_again(None).await?.into_iter();
        let known: HashMap<String, i64> = known
            .filter(|row| row.store == store && row.collection == collection)
            .map(|row| (row.run, row.rows))
            .collect();
        let gone = known.keys().filter(|run| !found.contains_key(*run)).map(|run| (run.clone(), 0));
        let mut changed = 0;
        for (run, rows) in found.iter().map(|(run, rows)| (run.clone(), *rows)).chain(gone.collect::<Vec<_>>()) {
            // The same as before is no news.
            if known.get(&run) == Some(&rows) {
                continue;
            }
            changed += 1;
            sqlx::query(
                "INSERT INTO found_again (run, store, collection, rows, looked_at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (run, store, collection) DO UPDATE SET rows = excluded.rows, looked_at = excluded.looked_at",
            )
            .bind(run)
            .bind(store)
            .bind(collection)
            .bind(rows)
            .bind(time_text(looked_at))
            .execute(&mut *self.inner)
            .await?;
        }
        Ok(changed)
    }

    /// The runs that erased these rows of a store last; of rows that none erased there is no entry.
    pub async fn erasers_of(&mut self, store: &str, rows: &[[u8; 16]]) -> Result<HashMap<[u8; 16], String>> {
        let mut found = HashMap::new();
        for part in rows.chunks(ROWS_PER_STATEMENT) {
            let text = "SELECT row_mac, run FROM ledger WHERE state = 'done' AND store = ";
            let mut query = Built::new(self.engine, text);
            query.bind(store)?.push(" AND row_mac IN (");
            query.list(part, |query, mac| query.bind(&mac[..]).map(|_| ()))?.push(") ORDER BY position");
            for row in query.done().fetch_all(&mut *self.inner).await? {
                let mac: Vec<u8> = row.try_get(0)?;
                let wrong = |_| ControlError::Inconsistent("a ledger digest has a wrong length".to_owned());
                found.insert(mac.try_into().map_err(wrong)?, row.try_get(1)?);
            }
        }
        Ok(found)
    }
}
