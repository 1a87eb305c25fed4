//! Chains that the retention of backups lets go: what is recorded of them, and what the end of their keys means for the sealing
//! history.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{BucketName, Result, Tx, optional_time, parse_time, time_text};

/// A chain that is not kept any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedChain {
    /// Its slot.
    pub chain: u32,
    /// The store.
    pub store: String,
    /// `marked`: its key dies with the next shred. `destroyed`: it opens nothing any more. `removed`: its objects are gone too.
    pub state: String,
    /// When it was marked.
    pub marked_at: DateTime<Utc>,
    /// Snapshots in it.
    pub snapshots: i64,
    /// Their bytes.
    pub bytes: i64,
    /// The key generation, or one after it, in which its key was gone.
    pub generation: Option<i64>,
    /// When its key was read back as gone.
    pub destroyed_at: Option<DateTime<Utc>>,
    /// Until when the server keeps its objects from being removed, as far as it was met.
    pub locked_until: Option<DateTime<Utc>>,
    /// When its objects were read back as gone.
    pub removed_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "SELECT chain, store, state, marked_at, snapshots, bytes, generation, destroyed_at, locked_until, removed_at \
     FROM pruned_chain";

impl Tx {
    /// Marks a chain for destruction with the next change of keys. False when it is not in use any more.
    pub async fn mark_chain_pruned(&mut self, chain: &PrunedChain) -> Result<bool> {
        let done = sqlx::query("UPDATE chain SET state = 'dying' WHERE slot = $1 AND state = 'active'")
            .bind(i64::from(chain.chain))
            .execute(&mut *self.inner)
            .await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO pruned_chain (chain, store, state, marked_at, snapshots, bytes) VALUES ($1, $2, 'marked', $3, $4, $5)",
        )
        .bind(i64::from(chain.chain))
        .bind(&chain.store)
        .bind(time_text(chain.marked_at))
        .bind(chain.snapshots)
        .bind(chain.bytes)
        .execute(&mut *self.inner)
        .await?;
        Ok(true)
    }

    /// Takes the mark from a chain whose key was not destroyed yet.
    pub async fn spare_chain(&mut self, chain: u32) -> Result<()> {
        let done = sqlx::query("DELETE FROM pruned_chain WHERE chain = $1 AND state = 'marked'")
            .bind(i64::from(chain))
            .execute(&mut *self.inner)
            .await?;
        if done.rows_affected() == 1 {
            sqlx::query("UPDATE chain SET state = 'active' WHERE slot = $1 AND state = 'dying'")
                .bind(i64::from(chain))
                .execute(&mut *self.inner)
                .await?;
        }
        Ok(())
    }

    /// Whether the keys of all these chains are still marked for destruction.
    pub async fn chains_are_dying(&mut self, slots: &[u32]) -> Result<bool> {
        for slot in slots {
            if self.chain_state(*slot).await?.as_deref() != Some("dying") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Pruned chains, by slot; those in one state when given.
    pub async fn pruned_chains(&mut self, state: Option<&str>) -> Result<Vec<PrunedChain>> {
        let text = format!("{COLUMNS} WHERE $1 IS NULL OR state = $1 ORDER BY chain");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(state).fetch_all(&mut *self.inner).await?;
        rows.iter().map(pruned_chain).collect()
    }

    /// Whether a living process reads this chain.
    pub async fn chain_is_in_use(&mut self, chain: u32, now: DateTime<Utc>) -> Result<bool> {
        let rows = sqlx::query("SELECT name FROM lease WHERE name LIKE $1 AND holder <> ''")
            .bind(format!("chain-{chain}-%"))
            .fetch_all(&mut *self.inner)
            .await?;
        for row in rows {
            if self.lease_holder(&row.try_get::<String, _>(0)?, now).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stores what became of a pruned chain.
    pub async fn set_pruned_chain(&mut self, chain: &PrunedChain) -> Result<()> {
        sqlx::query(
            "UPDATE pruned_chain SET state = $2, generation = $3, destroyed_at = $4, locked_until = $5, removed_at = $6 \
             WHERE chain = $1",
        )
        .bind(i64::from(chain.chain))
        .bind(&chain.state)
        .bind(chain.generation)
        .bind(chain.destroyed_at.map(time_text))
        .bind(chain.locked_until.map(time_text))
        .bind(chain.removed_at.map(time_text))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Manifests, name and digest, of a store's snapshots whose chain was pruned; of one chain when given.
    pub async fn pruned_manifests(&mut self, store: &str, chain: Option<u32>) -> Result<Vec<(String, String)>> {
        let rows = sqlx::query(
            "SELECT manifest, manifest_sha256 FROM snapshot WHERE store = $1 AND state = 'pruned' AND manifest IS NOT NULL \
             AND ($2 IS NULL OR chain = $2) ORDER BY number",
        )
        .bind(store)
        .bind(chain.map(i64::from))
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The stores in which rows of a subject are sealed under keys that exist.
    pub async fn stores_of_subject(&mut self, lookup: &[u8]) -> Result<Vec<String>> {
        let rows = sqlx::query(
            "SELECT DISTINCT b.store FROM subject u JOIN cell c ON c.subject = u.slot JOIN bucket b ON b.slot = c.bucket \
             WHERE u.lookup = $1 AND c.state = 'live'",
        )
        .bind(lookup)
        .fetch_all(&mut *self.inner)
        .await?;
        let mut stores = rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<String>>>()?;
        let rows = sqlx::query("SELECT DISTINCT bucket_name FROM pin WHERE lookup = $1 AND state <> 'destroyed'")
            .bind(lookup)
            .fetch_all(&mut *self.inner)
            .await?;
        for row in rows {
            stores.push(BucketName::of_text(&row.try_get::<String, _>(0)?)?.store);
        }
        Ok(stores)
    }

    /// Where rows that pins keep were last sealed, unless they were erased since: store and number of the snapshot.
    pub async fn last_seals_of_pinned_rows(&mut self) -> Result<Vec<(String, i64)>> {
        let rows = sqlx::query(
            "SELECT DISTINCT b.store, s.last_snapshot FROM pin p JOIN cell c ON c.id = p.cell JOIN bucket b ON b.slot = c.bucket \
             JOIN sealed_row s ON s.cell = c.id LEFT JOIN snapshot n ON n.number = s.last_snapshot WHERE p.state = 'active' \
             AND NOT EXISTS (SELECT 1 FROM ledger l WHERE l.row_mac = s.row_mac AND l.state = 'done' \
             AND l.position > COALESCE(n.ledger_position, 0)) ORDER BY 1, 2",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The number of the newest snapshot of a store that was begun before the first row of a run went there; 0 without one.
    pub async fn snapshot_before_run(&mut self, run: &str, store: &str) -> Result<i64> {
        let row = sqlx::query(
            "SELECT COALESCE(MAX(number), 0) FROM snapshot WHERE store = $2 AND state = 'committed' AND ledger_position < \
             (SELECT MIN(position) FROM ledger WHERE run = $1 AND store = $2)",
        )
        .bind(run)
        .bind(store)
        .fetch_one(&mut *self.inner)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// The stores in which a run has erased or stripped rows.
    pub async fn stores_of_run(&mut self, run: &str) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT DISTINCT store FROM ledger WHERE run = $1 ORDER BY 1")
            .bind(run)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// What the end of chains means: their snapshots are no snapshots any more, and rows that lay in no other chain are forgotten by the
    /// sealing history, for nothing opens them. The chains are recorded as destroyed already.
    pub(super) async fn bury_chains(&mut self, chains: &[u32]) -> Result<()> {
        let mut dead = Vec::new();
        for chain in chains {
            let rows = sqlx::query("SELECT number, store FROM snapshot WHERE chain = $1")
                .bind(i64::from(*chain))
                .fetch_all(&mut *self.inner)
                .await?;
            for row in rows {
                dead.push((row.try_get::<i64, _>(0)?, row.try_get::<String, _>(1)?));
            }
            sqlx::query("UPDATE snapshot SET state = 'pruned' WHERE chain = $1 AND state = 'committed'")
                .bind(i64::from(*chain))
                .execute(&mut *self.inner)
                .await?;
        }
        for (number, store) in &dead {
            // A row that was first sealed there counts from the next snapshot on that opens; behind its last one it is forgotten.
            let row = sqlx::query(
                "SELECT MIN(n.number) FROM snapshot n JOIN chain h ON h.slot = n.chain \
                 WHERE n.store = $1 AND n.number > $2 AND h.state <> 'destroyed'",
            )
            .bind(store)
            .bind(number)
            .fetch_one(&mut *self.inner)
            .await?;
            let next: Option<i64> = row.try_get(0)?;
            sqlx::query("UPDATE sealed_row SET first_snapshot = $2 WHERE first_snapshot = $1")
                .bind(number)
                .bind(next.unwrap_or(i64::MAX))
                .execute(&mut *self.inner)
                .await?;
        }
        if !dead.is_empty() {
            sqlx::query("DELETE FROM sealed_row WHERE last_snapshot < first_snapshot")
                .execute(&mut *self.inner)
                .await?;
        }
        Ok(())
    }
}

fn pruned_chain(row: &sqlx::any::AnyRow) -> Result<PrunedChain> {
    Ok(PrunedChain {
        chain: row.try_get::<i64, _>(0)? as u32,
        store: row.try_get(1)?,
        state: row.try_get(2)?,
        marked_at: parse_time(&row.try_get::<String, _>(3)?)?,
        snapshots: row.try_get(4)?,
        bytes: row.try_get(5)?,
        generation: row.try_get(6)?,
        destroyed_at: optional_time(row.try_get(7)?)?,
        locked_until: optional_time(row.try_get(8)?)?,
        removed_at: optional_time(row.try_get(9)?)?,
    })
}
