//! Rows of the key tree: crown, nodes, re-key intents, and what the work leaves are for.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row as _};

use super::built::Built;
use super::engine::Engine;
use super::{CellRow, ROWS_PER_STATEMENT, Result, RunRow, Tx, time_text};

/// The step of a generation change that was given up before its commit.
pub const ABANDONED: &str = "abandoned";

/// 2^32 divided by the golden ratio: multiples of it spread over the numbers below 2^32, and the selection can be repeated.
const SPREAD: i64 = 2_654_435_761;
/// A table with fewer rows is sampled by reading all of it.
const SMALL_TABLE_ROWS: i64 = 4096;

/// A stored node: (subtree, level, index, version) and its sealed bytes.
pub type NodeRow = ((u8, u8, u32, i64), Vec<u8>);

fn node_row(row: &sqlx::any::AnyRow) -> Result<NodeRow> {
    let number = |at: usize| row.try_get::<i64, _>(at);
    Ok(((number(0)? as u8, number(1)? as u8, number(2)? as u32, number(3)?), row.try_get(4)?))
}

impl Tx {
    /// The newest generation and its crown.
    pub async fn tree_root(&mut self) -> Result<Option<(i64, Vec<u8>)>> {
        let row = sqlx::query("SELECT generation, crown FROM tree_root ORDER BY generation DESC LIMIT 1")
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    /// The crown of one generation: the one in force, or the one before while a generation change is not finished.
    pub async fn crown_of(&mut self, generation: i64) -> Result<Option<Vec<u8>>> {
        let row = sqlx::query("SELECT crown FROM tree_root WHERE generation = $1")
            .bind(generation)
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// Stores the crown of a generation. Older ones stay until [`Tx::drop_crowns_before`]: the new one is compared with them.
    pub async fn put_tree_root(&mut self, generation: i64, crown: &[u8], now: DateTime<Utc>) -> Result<()> {
        sqlx::query(
            "INSERT INTO tree_root (generation, crown, created_at) VALUES ($1, $2, $3) \
             ON CONFLICT (generation) DO UPDATE SET crown = excluded.crown",
        )
        .bind(generation)
        .bind(crown)
        .bind(time_text(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Forgets the crowns of generations whose roots are gone; the newest of them are put aside, to be tried.
    pub async fn drop_crowns_before(&mut self, generation: i64) -> Result<()> {
        self.keep_crowns_before(generation).await?;
        sqlx::query("DELETE FROM tree_root WHERE generation < $1").bind(generation).execute(&mut *self.inner).await?;
        Ok(())
    }

    /// All nodes.
    pub async fn tree_nodes(&mut self) -> Result<Vec<NodeRow>> {
        let rows = sqlx::query("SELECT subtree, level, idx, version, sealed FROM tree_node")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.iter().map(node_row).collect()
    }

    /// The nodes at these places (subtree, level, index), of every version from `since` on.
    pub async fn tree_nodes_at(&mut self, places: &[(u8, u8, u32)], since: i64) -> Result<Vec<NodeRow>> {
        let mut found = Vec::with_capacity(places.len());
        for part in places.chunks(ROWS_PER_STATEMENT) {
            // Through a SELECT, because SQLite does not use the index for rows that are compared with VALUES directly.
            let mut query = Built::new(
                self.engine,
                "SELECT subtree, level, idx, version, sealed FROM tree_node \
                 WHERE (subtree, level, idx) IN (SELECT column1, column2, column3 FROM (VALUES ",
            );
            query.list(part, |query, (subtree, level, index)| {
                query.push("(").bind(i64::from(*subtree))?.push(", ").bind(i64::from(*level))?.push(", ");
                query.bind(i64::from(*index))?.push(")");
                Ok(())
            })?;
            query.push(") AS wanted) AND version >= ").bind(since)?;
            // The driver keeps what was compiled; one of a length that seldom comes again is not worth the memory.
            let query = query.done_kept(part.len() == ROWS_PER_STATEMENT);
            for row in query.fetch_all(&mut *self.inner).await? {
                found.push(node_row(&row)?);
            }
        }
        Ok(found)
    }

    /// Stores nodes (replacing those with the same id).
    pub async fn put_tree_nodes(&mut self, nodes: &[NodeRow]) -> Result<()> {
        for part in nodes.chunks(ROWS_PER_STATEMENT) {
            let mut query =
                Built::new(self.engine, "INSERT INTO tree_node (subtree, level, idx, version, sealed) VALUES ");
            query.list(part, |query, (id, sealed)| {
                bind_node(query.push("("), *id)?.push(", ").bind(&sealed[..])?.push(")");
                Ok(())
            })?;
            query.push(" ON CONFLICT (subtree, level, idx, version) DO UPDATE SET sealed = excluded.sealed");
            query.done().execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    /// Removes nodes that no crown reaches any more.
    ///
    /// SQLite does not overwrite their pages where that alone would write them: the keys of these nodes hang on a root that dies,
    /// and nothing in them opens then, here or in older journals and copies.
    pub async fn drop_tree_nodes(&mut self, nodes: &[(u8, u8, u32, i64)]) -> Result<()> {
        self.overwrite("FAST").await?;
        let dropped = self.drop_nodes(nodes).await;
        self.overwrite("ON").await?;
        dropped
    }

    /// How SQLite overwrites what is deleted through this connection.
    async fn overwrite(&mut self, how: &'static str) -> Result<()> {
        if self.engine == Engine::Sqlite {
            sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA secure_delete = {how}"))).execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    async fn drop_nodes(&mut self, nodes: &[(u8, u8, u32, i64)]) -> Result<()> {
        for part in nodes.chunks(ROWS_PER_STATEMENT) {
            let mut query = Built::new(
                self.engine,
                "DELETE FROM tree_node WHERE (subtree, level, idx, version) \
                 IN (SELECT column1, column2, column3, column4 FROM (VALUES ",
            );
            query.list(part, |query, id| {
                bind_node(query.push("("), *id)?.push(")");
                Ok(())
            })?;
            query.push(") AS gone)");
            query.done().execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    /// Removes the nodes that a generation change which was given up had laid beside the others.
    pub async fn drop_tree_nodes_of(&mut self, generation: i64) -> Result<()> {
        sqlx::query("DELETE FROM tree_node WHERE version = $1").bind(generation).execute(&mut *self.inner).await?;
        Ok(())
    }

    /// The re-key in progress, if any: the new generation and the last step noted.
    pub async fn open_rekey(&mut self) -> Result<Option<(i64, String)>> {
        let row = sqlx::query("SELECT generation, step FROM rekey WHERE ended_at IS NULL")
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    /// Notes a step of the re-key to `generation` (the first one begins it).
    pub async fn note_rekey(&mut self, generation: i64, step: &str, now: DateTime<Utc>) -> Result<()> {
        sqlx::query(
            "INSERT INTO rekey (generation, step, begun_at) VALUES ($1, $2, $3) \
             ON CONFLICT (generation) DO UPDATE SET step = excluded.step, ended_at = NULL, evidence = NULL",
        )
        .bind(generation)
        .bind(step)
        .bind(time_text(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Ends a re-key with its evidence.
    pub async fn end_rekey(&mut self, generation: i64, step: &str, evidence: &str, now: DateTime<Utc>) -> Result<()> {
        sqlx::query("UPDATE rekey SET step = $2, evidence = $3, ended_at = $4 WHERE generation = $1")
            .bind(generation)
            .bind(step)
            .bind(evidence)
            .bind(time_text(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Keeps the evidence that old roots, which had come back into the slot, were destroyed again.
    pub async fn add_stray_root(&mut self, generation: i64, evidence: &str, now: DateTime<Utc>) -> Result<()> {
        sqlx::query("INSERT INTO stray_root (generation, destroyed_at, evidence) VALUES ($1, $2, $3)")
            .bind(generation)
            .bind(time_text(now))
            .bind(evidence)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// When and with what evidence the re-key to `generation` ended; `None` as well when it was given up.
    pub async fn rekey_evidence(&mut self, generation: i64) -> Result<Option<(String, String)>> {
        let row = sqlx::query(
            "SELECT ended_at, evidence FROM rekey WHERE generation = $1 AND ended_at IS NOT NULL AND step <> $2",
        )
        .bind(generation)
        .bind(ABANDONED)
        .fetch_optional(&mut *self.inner)
        .await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    /// End and evidence of all generation changes up to the one to `generation` that were not given up, oldest first.
    pub async fn rekeys_until(&mut self, generation: i64) -> Result<Vec<(String, String)>> {
        let rows = sqlx::query(
            "SELECT ended_at, evidence FROM rekey WHERE generation <= $1 AND ended_at IS NOT NULL AND step <> $2 \
             ORDER BY generation",
        )
        .bind(generation)
        .bind(ABANDONED)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// When the first chain was made; before it nothing was sealed for a backup.
    pub async fn first_chain_at(&mut self) -> Result<Option<String>> {
        let row = sqlx::query("SELECT MIN(created_at) FROM chain").fetch_one(&mut *self.inner).await?;
        Ok(row.try_get(0)?)
    }

    /// The slot of a work leaf.
    pub async fn work_slot(&mut self, purpose: &str, reference: &str) -> Result<Option<u32>> {
        let row = sqlx::query("SELECT slot FROM work WHERE purpose = $1 AND reference = $2 AND state = 'active'")
            .bind(purpose)
            .bind(reference)
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).transpose()
    }

    /// Registers a work leaf.
    pub async fn add_work(&mut self, slot: u32, purpose: &str, reference: &str) -> Result<()> {
        sqlx::query("INSERT INTO work (slot, purpose, reference, state) VALUES ($1, $2, $3, 'active')")
            .bind(i64::from(slot))
            .bind(purpose)
            .bind(reference)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Marks the work leaf of a finished run or request for the next re-key.
    pub async fn retire_work(&mut self, purpose: &str, reference: &str) -> Result<()> {
        sqlx::query("UPDATE work SET state = 'dying' WHERE purpose = $1 AND reference = $2 AND state = 'active'")
            .bind(purpose)
            .bind(reference)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Whether anything that was sealed for a run itself can still be opened: its plan's lists, its pre-images, the id of its
    /// request.
    pub async fn has_own_leaves(&mut self, run: &RunRow) -> Result<bool> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM work WHERE state <> 'destroyed' AND ((purpose = 'plan' AND reference = $1) \
             OR (purpose = 'pre-image' AND reference = $2) OR (purpose = 'request' AND reference = $3))",
        )
        .bind(run.plan.clone().unwrap_or_default())
        .bind(&run.id)
        .bind(run.request.map(|number| number.to_string()).unwrap_or_default())
        .fetch_one(&mut *self.inner)
        .await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// How many slot numbers were ever given out in each run of `width` numbers that has any (numbers are never used twice).
    pub async fn slots_by_cohort(&mut self, table: SlotTable, width: u32) -> Result<HashMap<u32, u64>> {
        let text = format!("SELECT slot / $1, COUNT(*) FROM ({}) AS given GROUP BY 1", table.select());
        let rows = sqlx::query(AssertSqlSafe(text)).bind(i64::from(width)).fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok((row.try_get::<i64, _>(0)? as u32, row.try_get::<i64, _>(1)? as u64))).collect()
    }

    /// The slot numbers from `first` on, `width` of them, that were ever given out.
    pub async fn slots_in_use(&mut self, table: SlotTable, first: u32, width: u32) -> Result<HashSet<u32>> {
        let text = format!("{} WHERE slot >= $1 AND slot < $2", table.select());
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(i64::from(first))
            .bind(i64::from(first) + i64::from(width))
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }
}

impl Tx {
    /// The state of a slot as recorded.
    pub async fn slot_state(&mut self, table: SlotTable, number: u32) -> Result<Option<String>> {
        let row = sqlx::query(table.select_state()).bind(i64::from(number)).fetch_optional(&mut *self.inner).await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// At most `limit` slots that are in use and not dying, spread over the table; another `salt`, another selection. In a large
    /// table it looks near that many points, and only where it finds too little it reads everything.
    pub async fn sample_slots(&mut self, table: SlotTable, limit: u32, salt: i64) -> Result<Vec<u32>> {
        let near = self.slots_near_points(table, limit, salt).await?;
        if near.len() >= (limit / 2) as usize {
            return Ok(near);
        }
        let text = format!(
            "{} WHERE state IN ('active', 'retained') ORDER BY ((slot + $1) * {SPREAD}) % 4294967296, slot LIMIT $2",
            table.select()
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(salt % 1_000_000)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }

    /// For each of `limit` points between the first and the last slot the next slot that is in use and not dying, unless it is
    /// far. Empty for a small table.
    async fn slots_near_points(&mut self, table: SlotTable, limit: u32, salt: i64) -> Result<Vec<u32>> {
        let name = table.name();
        let ends = format!(
            "SELECT (SELECT MIN(slot) FROM {name}), (SELECT MAX(slot) FROM {name}), \
             (SELECT COUNT(*) FROM (SELECT slot FROM {name} LIMIT {SMALL_TABLE_ROWS}) AS few)"
        );
        let row = sqlx::query(AssertSqlSafe(ends)).fetch_one(&mut *self.inner).await?;
        let (first, last): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
        if row.try_get::<i64, _>(2)? < SMALL_TABLE_ROWS {
            return Ok(Vec::new());
        }
        let mut query = Built::new(self.engine, "WITH wanted (number) AS (VALUES ");
        query.list(0..i64::from(limit), |query, number| {
            let hash = ((number + 1) * SPREAD + salt % 1_000_000 * SPREAD) % (1 << 32);
            query.push("(").bind(first + hash % (last - first + 1))?.push(")");
            Ok(())
        })?;
        query.push(") SELECT DISTINCT (SELECT slot FROM (SELECT slot, state FROM ").push(name).push(
            " WHERE slot >= wanted.number ORDER BY slot \
             LIMIT 64) AS near WHERE state IN ('active', 'retained') ORDER BY slot LIMIT 1) AS slot FROM wanted ORDER BY 1",
        );
        let rows = query.done().fetch_all(&mut *self.inner).await?;
        let found: Result<Vec<Option<i64>>> = rows.iter().map(|row| Ok(row.try_get(0)?)).collect();
        Ok(found?.into_iter().flatten().map(|slot| slot as u32).collect())
    }

    /// All slots that are recorded as destroyed.
    pub async fn destroyed_slots(&mut self, table: SlotTable) -> Result<Vec<u32>> {
        let text = format!("{} WHERE state = 'destroyed' ORDER BY slot", table.select());
        let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }

    /// Preserving pins that hold their cell's secret, each with its cell as it was before.
    pub async fn filled_pins(&mut self) -> Result<Vec<(u32, CellRow)>> {
        let rows = sqlx::query(
            "SELECT pin.slot, cell.id, cell.subject, cell.bucket FROM pin JOIN cell ON cell.id = pin.cell \
             WHERE cell.pin = pin.slot AND pin.kind = 'preserving' AND pin.state <> 'destroyed' ORDER BY pin.slot",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter()
            .map(|row| {
                let subject = row.try_get::<Option<i64>, _>(2)?.map(|slot| slot as u32);
                let bucket = row.try_get::<i64, _>(3)? as u32;
                Ok((
                    row.try_get::<i64, _>(0)? as u32,
                    CellRow { id: row.try_get(1)?, subject, bucket, fresh: None, pin: None },
                ))
            })
            .collect()
    }
}

fn bind_node(query: &mut Built, id: (u8, u8, u32, i64)) -> Result<&mut Built, sqlx::Error> {
    let (subtree, level, index, version) = id;
    query.bind(i64::from(subtree))?.push(", ").bind(i64::from(level))?.push(", ").bind(i64::from(index))?;
    query.push(", ").bind(version)
}

/// The tables that hand out slot numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotTable {
    /// Subject slots.
    Subject,
    /// Bucket slots.
    Bucket,
    /// Chain slots.
    Chain,
    /// Pin slots.
    Pin,
    /// Work slots.
    Work,
}

impl SlotTable {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Subject, Self::Bucket, Self::Chain, Self::Pin, Self::Work];

    fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Bucket => "bucket",
            Self::Chain => "chain",
            Self::Pin => "pin",
            Self::Work => "work",
        }
    }

    fn select(self) -> &'static str {
        match self {
            Self::Subject => "SELECT slot FROM subject",
            Self::Bucket => "SELECT slot FROM bucket",
            Self::Chain => "SELECT slot FROM chain",
            Self::Pin => "SELECT slot FROM pin",
            Self::Work => "SELECT slot FROM work",
        }
    }

    fn select_state(self) -> &'static str {
        match self {
            Self::Subject => "SELECT state FROM subject WHERE slot = $1",
            Self::Bucket => "SELECT state FROM bucket WHERE slot = $1",
            Self::Chain => "SELECT state FROM chain WHERE slot = $1",
            Self::Pin => "SELECT state FROM pin WHERE slot = $1",
            Self::Work => "SELECT state FROM work WHERE slot = $1",
        }
    }
}
