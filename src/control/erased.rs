//! What was erased and must not be there any more.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use sqlx::Row as _;

use super::built::Built;
use super::{ControlError, ROWS_PER_STATEMENT, Result, RunRow, Tx, parse_time};

/// What the ledger says of one erasure of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureRow {
    /// When.
    pub at: DateTime<Utc>,
    /// Whether the row was stripped to its minimum instead.
    pub stripped: bool,
    /// The keyed digest of its content before; zeros when nobody knows.
    pub content: [u8; 32],
    /// What it was left with, when it was anonymised instead.
    pub left: Option<Left>,
}

/// What an anonymised row was left with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The columns that were changed.
    pub columns: Vec<String>,
    /// The keyed digest of the values that they have since.
    pub digest: [u8; 32],
    /// The digest of the subject that the row leads to since; empty for none.
    pub lookup: Vec<u8>,
}

const ERASURES: &str = "SELECT row_mac, kind, at, content_mac, left_mac, left_columns, left_lookup FROM ledger WHERE state = 'done' AND store = ";

impl Tx {
    /// What the ledger says was erased, anonymised or stripped in a store and was not undone, oldest first, by the row's keyed digest; of all rows,
    /// or of these.
    pub async fn erasures_in(
        &mut self,
        store: &str,
        only: Option<&[[u8; 16]]>,
    ) -> Result<HashMap<[u8; 16], Vec<ErasureRow>>> {
        let mut found = HashMap::new();
        let Some(only) = only else {
            let mut query = Built::new(self.engine, ERASURES);
            query.bind(store)?.push(" ORDER BY position");
            self.read_erasures(query, &mut found).await?;
            return Ok(found);
        };
        for part in only.chunks(ROWS_PER_STATEMENT) {
            let mut query = Built::new(self.engine, ERASURES);
            query.bind(store)?.push(" AND row_mac IN (");
            query.list(part, |query, mac| query.bind(&mac[..]).map(|_| ()))?.push(") ORDER BY position");
            self.read_erasures(query, &mut found).await?;
        }
        Ok(found)
    }

    async fn read_erasures(&mut self, query: Built, found: &mut HashMap<[u8; 16], Vec<ErasureRow>>) -> Result<()> {
        let mut rows = query.done().fetch(&mut *self.inner);
        while let Some(row) = rows.try_next().await? {
            let mac: Vec<u8> = row.try_get(0)?;
            let wrong = |_| super::ControlError::Inconsistent("a ledger digest has a wrong length".to_owned());
            let content: Option<Vec<u8>> = row.try_get(3)?;
            found.entry(mac.try_into().map_err(wrong)?).or_default().push(ErasureRow {
                at: parse_time(row.try_get(2)?)?,
                stripped: row.try_get::<String, _>(1)? == "stripped",
                content: content.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; 32]),
                left: left_of(&row, 4)?,
            });
        }
        Ok(())
    }

    /// What the rows of a chunk are about to be left with; its entries are intended by then.
    pub async fn intend_left(&mut self, run: &RunRow, chunk: i64, rows: &[([u8; 16], Left)]) -> Result<()> {
        for (mac, left) in rows {
            let columns = serde_json::to_string(&left.columns)
                .map_err(|_| ControlError::Inconsistent("column names cannot be written as JSON".to_owned()))?;
            sqlx::query(
                "UPDATE ledger SET left_mac = $4, left_columns = $5, left_lookup = $6 \
                 WHERE run = $1 AND chunk = $2 AND row_mac = $3 AND state = 'intended'",
            )
            .bind(&run.id)
            .bind(chunk)
            .bind(&mac[..])
            .bind(&left.digest[..])
            .bind(columns)
            .bind(&left.lookup)
            .execute(&mut *self.inner)
            .await?;
        }
        Ok(())
    }

    /// To whom the rows lead that a run anonymised, as the read-back found them: the digest of that subject, empty for none.
    pub async fn set_left_lookups(&mut self, run: &str, rows: &[([u8; 16], Vec<u8>)]) -> Result<()> {
        for (mac, lookup) in rows {
            sqlx::query("UPDATE ledger SET left_lookup = $3 WHERE run = $1 AND row_mac = $2 AND kind = 'anonymised'")
                .bind(run)
                .bind(&mac[..])
                .bind(lookup)
                .execute(&mut *self.inner)
                .await?;
        }
        Ok(())
    }

    /// What the rows that a run anonymised, or is about to, were left with.
    pub async fn left_by_run(&mut self, run: &str) -> Result<HashMap<[u8; 16], Left>> {
        let rows = sqlx::query(
            "SELECT row_mac, left_mac, left_columns, left_lookup FROM ledger \
             WHERE run = $1 AND kind = 'anonymised' AND state IN ('done', 'intended', 'failed')",
        )
        .bind(run)
        .fetch_all(&mut *self.inner)
        .await?;
        let mut found = HashMap::new();
        for row in rows {
            let mac: Vec<u8> = row.try_get(0)?;
            let wrong = |_| ControlError::Inconsistent("a ledger digest has a wrong length".to_owned());
            let mac: [u8; 16] = mac.try_into().map_err(wrong)?;
            found.extend(left_of(&row, 1)?.map(|left| (mac, left)));
        }
        Ok(found)
    }

    /// Those of these rows that were stripped and not erased since.
    pub async fn stripped_among(&mut self, rows: &[[u8; 16]]) -> Result<Vec<[u8; 16]>> {
        let mut last: HashMap<Vec<u8>, String> = HashMap::new();
        for part in rows.chunks(ROWS_PER_STATEMENT) {
            let text = "SELECT row_mac, kind FROM ledger WHERE state = 'done' AND row_mac IN (";
            let mut query = Built::new(self.engine, text);
            query.list(part, |query, mac| query.bind(&mac[..]).map(|_| ()))?.push(") ORDER BY position");
            for row in query.done().fetch_all(&mut *self.inner).await? {
                last.insert(row.try_get(0)?, row.try_get(1)?);
            }
        }
        let is_stripped = |mac: &[u8; 16]| last.get(&mac[..]).is_some_and(|kind| kind == "stripped");
        Ok(rows.iter().copied().filter(is_stripped).collect())
    }

    /// The stores and collections of which the ledger has erasures.
    pub async fn erased_collections(&mut self) -> Result<Vec<(String, String)>> {
        let rows = sqlx::query(
            "SELECT DISTINCT store, collection FROM ledger WHERE state = 'done' ORDER BY store, collection",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Customers whose newest request was fulfilled with nothing kept, not even rows that came after it, by lookup digest, and when they
    /// asked.
    pub async fn forgotten_subjects(&mut self) -> Result<HashMap<[u8; 32], DateTime<Utc>>> {
        let sql = "SELECT r.lookup, r.state, r.received_at, u.body FROM request r LEFT JOIN run u ON u.id = r.run ORDER BY r.number";
        let rows = sqlx::query(sql).fetch_all(&mut *self.inner).await?;
        let mut found = HashMap::new();
        for row in rows {
            let lookup: Vec<u8> = row.try_get(0)?;
            let Ok(lookup) = <[u8; 32]>::try_from(lookup) else { continue };
            match row.try_get::<String, _>(1)?.as_str() {
                "done" if kept_nothing(row.try_get::<Option<String>, _>(3)?) => {
                    found.insert(lookup, parse_time(row.try_get(2)?)?);
                }
                "nothing-found" | "cancelled" | "failed" => {}
                // What is there is there by that request, or is its concern.
                _ => drop(found.remove(&lookup)),
            }
        }
        Ok(found)
    }
}

/// What stands in three columns of the ledger from `at`; none when nothing does.
fn left_of(row: &sqlx::any::AnyRow, at: usize) -> Result<Option<Left>> {
    let digest: Option<Vec<u8>> = row.try_get(at)?;
    let Some(digest) = digest else { return Ok(None) };
    let damaged = || ControlError::Inconsistent("what an anonymised row was left with is damaged".to_owned());
    let columns: Option<String> = row.try_get(at + 1)?;
    Ok(Some(Left {
        columns: serde_json::from_str(&columns.unwrap_or_default()).map_err(|_| damaged())?,
        digest: digest.try_into().map_err(|_| damaged())?,
        lookup: row.try_get::<Option<Vec<u8>>, _>(at + 2)?.unwrap_or_default(),
    }))
}

/// Whether a run's body says that no row stayed.
fn kept_nothing(body: Option<String>) -> bool {
    let body = body.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    body.is_some_and(|body| body["kept"] == 0)
}

#[cfg(test)]
mod tests {
    use crate::control::Control;

    #[tokio::test]
    async fn whose_newest_request_left_nothing_is_forgotten_since_it_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::create(&folder.path().join("a.db"), [7; 16]).await.unwrap();
        let mut sql = "INSERT INTO run (id, kind, state, begun_at, body) VALUES ('all', 'request', 'shredded', '', '{\"kept\":0}'), \
                       ('some', 'request', 'shredded', '', '{\"kept\":2}');"
            .to_owned();
        let requests = [
            (1, "done", "all"),
            (2, "done", "some"),
            (3, "done", "all"),
            (3, "received", "all"),
            (4, "done", "all"),
            (4, "cancelled", "all"),
            (5, "waiting", "all"),
            (6, "nothing-found", "all"),
        ];
        sql.extend(requests.map(|(who, state, run)| {
            let lookup = hex::encode([who; 32]);
            format!(
                "INSERT INTO request (kind, lookup, sealed, state, received_at, due_at, run, closed_at) VALUES \
                 ('erase', x'{lookup}', x'', '{state}', '2026-01-01T00:00:00.000Z', '', '{run}', '2026-02-01T00:00:00.000Z');"
            )
        }));
        crate::control::testing::run(&control, &sql).await;
        let found = control.read().await.unwrap().forgotten_subjects().await.unwrap();
        let mut whom: Vec<u8> = found.keys().map(|lookup| lookup[0]).collect();
        whom.sort_unstable();
        assert_eq!(whom, [1, 4]);
        assert!(found.values().all(|asked| asked.to_rfc3339().starts_with("2026-01-01")));
    }
}
