//! What was erased and must not be there any more.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, parse_time};

/// What the ledger says of one erasure of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureRow {
    /// When.
    pub at: DateTime<Utc>,
    /// Whether the row was stripped to its minimum instead.
    pub stripped: bool,
    /// The keyed digest of its content before; zeros when nobody knows.
    pub content: [u8; 32],
}

impl Tx {
    /// What the ledger says was erased or stripped in a store and was not undone, oldest first, by the row's keyed digest.
    pub async fn erasures_in(&mut self, store: &str) -> Result<HashMap<[u8; 16], Vec<ErasureRow>>> {
        let rows = sqlx::query(
            "SELECT row_mac, kind, at, content_mac FROM ledger WHERE store = $1 AND state = 'done' ORDER BY position",
        )
        .bind(store)
        .fetch_all(&mut *self.inner)
        .await?;
        let mut found: HashMap<[u8; 16], Vec<ErasureRow>> = HashMap::new();
        for row in rows {
            let mac: Vec<u8> = row.try_get(0)?;
            let wrong = |_| super::ControlError::Inconsistent("a ledger digest has a wrong length".to_owned());
            let content: Option<Vec<u8>> = row.try_get(3)?;
            found.entry(mac.try_into().map_err(wrong)?).or_default().push(ErasureRow {
                at: parse_time(row.try_get(2)?)?,
                stripped: row.try_get::<String, _>(1)? == "stripped",
                content: content.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; 32]),
            });
        }
        Ok(found)
    }

    /// Customers whose newest request was fulfilled with nothing kept, by lookup digest, and when.
    pub async fn forgotten_subjects(&mut self) -> Result<HashMap<[u8; 32], DateTime<Utc>>> {
        let rows = sqlx::query("SELECT lookup, state, closed_at FROM request ORDER BY number")
            .fetch_all(&mut *self.inner)
            .await?;
        let mut found = HashMap::new();
        for row in rows {
            let lookup: Vec<u8> = row.try_get(0)?;
            let Ok(lookup) = <[u8; 32]>::try_from(lookup) else { continue };
            match (row.try_get::<String, _>(1)?.as_str(), row.try_get::<Option<String>, _>(2)?) {
                ("done", Some(closed)) => drop(found.insert(lookup, parse_time(&closed)?)),
                // Asked again: what is there is that request's.
                ("received" | "running" | "waiting" | "partly-kept", _) => drop(found.remove(&lookup)),
                _ => {}
            }
        }
        Ok(found)
    }
}
