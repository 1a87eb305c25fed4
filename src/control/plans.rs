//! Plans and runs.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{LedgerKind, Result, Tx, optional_time, parse_time, time_text};

/// A stored plan. The body is public JSON (counts, policies, reasons); the lists are in its chunks, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// Its id.
    pub id: String,
    /// Its salted hash, hex.
    pub hash: String,
    /// `retention` or `request`.
    pub kind: String,
    /// The request it serves.
    pub request: Option<i64>,
    /// The fixed cutoff.
    pub cutoff: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Public JSON.
    pub body: String,
    /// `planned`, `executed` or `void`.
    pub state: String,
}

/// A chunk of a plan: rows of one collection with one verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRow {
    /// Its number, the place of its first row in the plan; chunks run in this order.
    pub number: i64,
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// `erase`, `anonymise`, `strip`, `keep` or `settled`.
    pub verdict: String,
    /// Chunks of a plan with the same number are one transaction: their rows refer to each other.
    pub knot: Option<i64>,
    /// How many rows.
    pub rows: i64,
    /// The sealed list.
    pub sealed: Vec<u8>,
    /// `planned`, `running` or `done`.
    pub state: String,
    /// What became of the rows.
    pub counts: ChunkCounts,
}

impl ChunkRow {
    /// Whether its rows are to be changed or removed.
    #[must_use]
    pub fn is_work(&self) -> bool {
        !matches!(self.verdict.as_str(), "keep" | "settled")
    }
}

/// What became of the rows of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChunkCounts {
    /// Absent from the live store.
    pub erased: i64,
    /// Anonymised.
    pub anonymised: i64,
    /// Stripped to their minimum.
    pub stripped: i64,
    /// Found to be kept only at execution time.
    pub kept: i64,
    /// Not done.
    pub failed: i64,
}

impl ChunkCounts {
    /// Rows that are not what they were: absent, anonymised or stripped.
    #[must_use]
    pub fn gone(&self) -> i64 {
        self.erased + self.anonymised + self.stripped
    }
}

/// A run as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Its id.
    pub id: String,
    /// `retention` or `request`.
    pub kind: String,
    /// Its plan.
    pub plan: Option<String>,
    /// Its request.
    pub request: Option<i64>,
    /// `approved`, `deleted`, `verified`, `shred-pending`, `shredded`, `final`, `failed`; `undoing`, `undone`.
    pub state: String,
    /// When it began.
    pub begun_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When absence was read back.
    pub verified_at: Option<DateTime<Utc>>,
    /// The newest snapshot number given out when absence had been read back: the barrier snapshot has a higher one.
    pub verified_snapshot: Option<i64>,
    /// When its grace ends.
    pub grace_until: Option<DateTime<Utc>>,
    /// The generation that no longer holds its keys.
    pub generation: Option<i64>,
    /// When its keys were destroyed.
    pub shredded_at: Option<DateTime<Utc>>,
    /// Public JSON.
    pub body: String,
}

const PLAN: &str = "SELECT id, hash, kind, request, cutoff, created_at, body, state FROM plan";
const RUN: &str = "SELECT id, kind, plan, request, state, begun_at, ended_at, verified_at, verified_snapshot, grace_until, \
     generation, shredded_at, body FROM run";

impl Tx {
    /// Stores a plan.
    pub async fn add_plan(&mut self, plan: &PlanRow, chunks: &[ChunkRow]) -> Result<()> {
        sqlx::query(
            "INSERT INTO plan (id, hash, kind, request, cutoff, created_at, body, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&plan.id)
        .bind(&plan.hash)
        .bind(&plan.kind)
        .bind(plan.request)
        .bind(time_text(plan.cutoff))
        .bind(time_text(plan.created_at))
        .bind(&plan.body)
        .bind(&plan.state)
        .execute(&mut *self.inner)
        .await?;
        self.add_chunks(&plan.id, chunks).await
    }

    pub(super) async fn add_chunks(&mut self, plan: &str, chunks: &[ChunkRow]) -> Result<()> {
        for chunk in chunks {
            sqlx::query(
                "INSERT INTO plan_chunk (plan, number, store, collection, verdict, rows, sealed, state, erased, anonymised, stripped, kept, failed, knot) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 'planned', 0, 0, 0, 0, 0, $8)",
            )
            .bind(plan)
            .bind(chunk.number)
            .bind(&chunk.store)
            .bind(&chunk.collection)
            .bind(&chunk.verdict)
            .bind(chunk.rows)
            .bind(&chunk.sealed)
            .bind(chunk.knot)
            .execute(&mut *self.inner)
            .await?;
        }
        Ok(())
    }

    /// Plans whose hash begins so (two at most: more means the prefix is ambiguous).
    pub async fn plans_by_hash(&mut self, prefix: &str) -> Result<Vec<PlanRow>> {
        let text = format!("{PLAN} WHERE substr(hash, 1, length($1)) = $1 LIMIT 2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(prefix).fetch_all(&mut *self.inner).await?;
        rows.iter().map(plan_row).collect()
    }

    /// The newest plan of a kind that was made by `at`; a preview for a later time is not.
    pub async fn newest_plan(&mut self, kind: &str, at: DateTime<Utc>) -> Result<Option<PlanRow>> {
        let text = format!("{PLAN} WHERE kind = $1 AND created_at <= $2 ORDER BY created_at DESC, id DESC LIMIT 1");
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(kind).bind(time_text(at));
        query.fetch_optional(&mut *self.inner).await?.as_ref().map(plan_row).transpose()
    }

    /// The plans of the newest 5,000 runs of retention that ended and were not undone, newest first, with when each run ended.
    pub async fn retained(&mut self) -> Result<Vec<(String, DateTime<Utc>)>> {
        let rows = sqlx::query(
            "SELECT plan, ended_at FROM run WHERE kind = 'retention' AND plan IS NOT NULL AND ended_at IS NOT NULL \
             AND state NOT IN ('undoing', 'undone', 'failed') ORDER BY begun_at DESC, id DESC LIMIT 5000",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, parse_time(&row.try_get::<String, _>(1)?)?))).collect()
    }

    /// The collections, with their stores, in which a plan's run erased, anonymised or stripped something.
    pub async fn worked_on(&mut self, plan: &str) -> Result<BTreeSet<(String, String)>> {
        let rows = sqlx::query(
            "SELECT DISTINCT store, collection FROM plan_chunk WHERE plan = $1 AND erased + anonymised + stripped > 0",
        )
        .bind(plan)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The newest plan of a kind and request that was neither carried out nor voided.
    pub async fn planned(&mut self, kind: &str, request: Option<i64>) -> Result<Option<PlanRow>> {
        let text = format!(
            "{PLAN} WHERE state = 'planned' AND kind = $1 AND COALESCE(request, -1) = COALESCE($2, -1) \
             ORDER BY created_at DESC, id DESC LIMIT 1"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(kind).bind(request);
        query.fetch_optional(&mut *self.inner).await?.as_ref().map(plan_row).transpose()
    }

    /// A plan by its id.
    pub async fn plan(&mut self, id: &str) -> Result<Option<PlanRow>> {
        let text = format!("{PLAN} WHERE id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(plan_row).transpose()
    }

    /// Moves a plan from `planned` to another state; false when it was not in that any more. What a void plan lists is
    /// forgotten with the next change of keys.
    pub async fn set_plan_state(&mut self, id: &str, state: &str) -> Result<bool> {
        let done = sqlx::query("UPDATE plan SET state = $2 WHERE id = $1 AND state = 'planned'")
            .bind(id)
            .bind(state)
            .execute(&mut *self.inner)
            .await?;
        let moved = done.rows_affected() == 1;
        if moved && state == "void" {
            self.retire_work("plan", id).await?;
        }
        Ok(moved)
    }

    /// Voids the plans of a kind and request that were not carried out.
    pub async fn void_plans(&mut self, kind: &str, request: Option<i64>) -> Result<()> {
        let rows = sqlx::query(
            "SELECT id FROM plan WHERE state = 'planned' AND kind = $1 AND COALESCE(request, -1) = COALESCE($2, -1)",
        )
        .bind(kind)
        .bind(request)
        .fetch_all(&mut *self.inner)
        .await?;
        for row in rows {
            self.set_plan_state(&row.try_get::<String, _>(0)?, "void").await?;
        }
        Ok(())
    }

    /// The chunks of a plan in order.
    pub async fn chunks(&mut self, plan: &str) -> Result<Vec<ChunkRow>> {
        let rows = sqlx::query(
            "SELECT number, store, collection, verdict, rows, sealed, state, erased, stripped, kept, failed, knot, anonymised FROM plan_chunk \
             WHERE plan = $1 ORDER BY number",
        )
        .bind(plan)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ChunkRow {
                    number: row.try_get(0)?,
                    store: row.try_get(1)?,
                    collection: row.try_get(2)?,
                    verdict: row.try_get(3)?,
                    rows: row.try_get(4)?,
                    sealed: row.try_get(5)?,
                    state: row.try_get(6)?,
                    counts: ChunkCounts {
                        erased: row.try_get(7)?,
                        stripped: row.try_get(8)?,
                        kept: row.try_get(9)?,
                        failed: row.try_get(10)?,
                        anonymised: row.try_get(12)?,
                    },
                    knot: row.try_get(11)?,
                })
            })
            .collect()
    }

    /// Intent: the chunk is about to run, and these rows are about to go.
    pub async fn begin_chunk(
        &mut self,
        run: &RunRow,
        chunk: &ChunkRow,
        kind: LedgerKind,
        rows: &[[u8; 16]],
        now: DateTime<Utc>,
    ) -> Result<()> {
        sqlx::query("UPDATE plan_chunk SET state = 'running' WHERE plan = $1 AND number = $2")
            .bind(&run.plan)
            .bind(chunk.number)
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("DELETE FROM ledger WHERE run = $1 AND chunk = $2 AND state = 'intended'")
            .bind(&run.id)
            .bind(chunk.number)
            .execute(&mut *self.inner)
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        // One statement for all of them: a round trip for each row is what a batch would mostly wait for.
        sqlx::query(
            "WITH RECURSIVE n (i) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $8) \
             INSERT INTO ledger (run, chunk, store, collection, row_mac, kind, state, at) \
             SELECT $1, $2, $3, $4, substr($5, CAST(i * 16 + 1 AS INTEGER), 16), $6, 'intended', $7 FROM n ORDER BY i",
        )
        .bind(&run.id)
        .bind(chunk.number)
        .bind(&chunk.store)
        .bind(&chunk.collection)
        .bind(rows.concat())
        .bind(kind.text())
        .bind(time_text(now))
        .bind(rows.len() as i64)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Outcome: what became of the chunk; the ledger entries of `gone` are done, the others of the chunk void.
    pub async fn end_chunk(
        &mut self,
        run: &RunRow,
        chunk: &ChunkRow,
        counts: ChunkCounts,
        gone: &[([u8; 16], [u8; 32])],
        note: Option<&str>,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE plan_chunk SET state = 'done', erased = $3, stripped = $4, kept = $5, failed = $6, note = $7, anonymised = $8 WHERE plan = $1 AND number = $2",
        )
        .bind(&run.plan)
        .bind(chunk.number)
        .bind(counts.erased)
        .bind(counts.stripped)
        .bind(counts.kept)
        .bind(counts.failed)
        .bind(note)
        .bind(counts.anonymised)
        .execute(&mut *self.inner)
        .await?;
        self.end_entries(&run.id, chunk.number, gone).await?;
        sqlx::query("UPDATE ledger SET state = 'void' WHERE run = $1 AND chunk = $2 AND state = 'intended'")
            .bind(&run.id)
            .bind(chunk.number)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The entries of rows that are gone become `done`. Intended in the order of the list, they mostly stand one behind the other: then one
    /// statement finds each at its place; where that does not find all, each is looked up.
    async fn end_entries(&mut self, run: &str, chunk: i64, gone: &[([u8; 16], [u8; 32])]) -> Result<()> {
        let mut digests = Vec::with_capacity(gone.len() * 48);
        for (mac, content) in gone {
            digests.extend_from_slice(mac);
            digests.extend_from_slice(content);
        }
        let first = "SELECT MIN(position) FROM ledger WHERE run = $1 AND chunk = $2 AND state = 'intended'";
        let first = sqlx::query(first).bind(run).bind(chunk).fetch_one(&mut *self.inner).await?;
        let Some(first) = first.try_get::<Option<i64>, _>(0)? else { return Ok(()) };
        let ended = sqlx::query(
            "UPDATE ledger SET state = 'done', content_mac = substr($3, CAST((position - $4) * 48 + 17 AS INTEGER), 32) \
             WHERE run = $1 AND chunk = $2 AND state = 'intended' AND position >= $4 AND position < $5 \
             AND row_mac = substr($3, CAST((position - $4) * 48 + 1 AS INTEGER), 16)",
        )
        .bind(run)
        .bind(chunk)
        .bind(digests)
        .bind(first)
        .bind(first + gone.len() as i64)
        .execute(&mut *self.inner)
        .await?;
        if ended.rows_affected() == gone.len() as u64 {
            return Ok(());
        }
        let contents: HashMap<&[u8], &[u8; 32]> = gone.iter().map(|(mac, content)| (&mac[..], content)).collect();
        let left = "SELECT position, row_mac FROM ledger WHERE run = $1 AND chunk = $2 AND state = 'intended'";
        for row in sqlx::query(left).bind(run).bind(chunk).fetch_all(&mut *self.inner).await? {
            let Some(content) = contents.get(row.try_get::<Vec<u8>, _>(1)?.as_slice()) else { continue };
            sqlx::query("UPDATE ledger SET state = 'done', content_mac = $2 WHERE position = $1")
                .bind(row.try_get::<i64, _>(0)?)
                .bind(&content[..])
                .execute(&mut *self.inner)
                .await?;
        }
        Ok(())
    }

    /// Rows of a finished chunk turned out not to be erased (or anonymised, or stripped): their ledger entries are void, and they count
    /// as failed. Returns how many there were. An entry of a row that was anonymised is `failed` instead: an undo finds by it what was
    /// changed, and for everything else it is void.
    pub async fn fail_rows(
        &mut self,
        run: &RunRow,
        (chunk, kind): (i64, LedgerKind),
        rows: &[[u8; 16]],
        note: &str,
    ) -> Result<i64> {
        let mut failed = 0;
        for mac in rows {
            let done = sqlx::query(
                "UPDATE ledger SET state = CASE WHEN left_mac IS NULL THEN 'void' ELSE 'failed' END \
                 WHERE run = $1 AND chunk = $2 AND row_mac = $3 AND state = 'done'",
            )
            .bind(&run.id)
            .bind(chunk)
            .bind(&mac[..])
            .execute(&mut *self.inner)
            .await?;
            failed += done.rows_affected() as i64;
        }
        let count = kind.text();
        let text = format!(
            "UPDATE plan_chunk SET {count} = {count} - $3, failed = failed + $3, note = $4 WHERE plan = $1 AND number = $2"
        );
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(&run.plan)
            .bind(chunk)
            .bind(failed)
            .bind(note)
            .execute(&mut *self.inner)
            .await?;
        Ok(failed)
    }

    /// Ends the chunks that a run can never go on with: their rows count as failed. Entries of a chunk that was begun stay
    /// intended, because nobody can tell any more whether its rows are gone.
    pub async fn abandon_chunks(&mut self, plan: &str, note: &str) -> Result<()> {
        sqlx::query(
            "UPDATE plan_chunk SET state = 'done', failed = rows, note = $2 \
             WHERE plan = $1 AND state <> 'done' AND verdict NOT IN ('keep', 'settled')",
        )
        .bind(plan)
        .bind(note)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Whether a chunk or a generation change is in the middle of happening.
    pub async fn is_destroying(&mut self) -> Result<bool> {
        Ok(!self.destroying().await?.is_empty())
    }

    /// What is in the middle of happening: chunks, generation changes and keys of applications, by name.
    pub async fn destroying(&mut self) -> Result<BTreeSet<String>> {
        let rows = sqlx::query(
            "SELECT 'chunk ' || plan || ' ' || CAST(number AS TEXT) FROM plan_chunk WHERE state = 'running' \
             UNION ALL SELECT 'generation ' || CAST(generation AS TEXT) FROM rekey WHERE ended_at IS NULL \
             UNION ALL SELECT 'key ' || id FROM outside_key WHERE state = 'destroying'",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Notes of chunks that did not go well.
    pub async fn chunk_notes(&mut self, plan: &str) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT DISTINCT note FROM plan_chunk WHERE plan = $1 AND note IS NOT NULL")
            .bind(plan)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// How many rows of a plan's finished chunks stay for the reason of this note.
    pub async fn rows_kept_with_note(&mut self, plan: &str, note: &str) -> Result<i64> {
        let row = sqlx::query(
            "SELECT CAST(COALESCE(SUM(kept), 0) AS BIGINT) FROM plan_chunk WHERE plan = $1 AND state = 'done' AND note = $2",
        )
        .bind(plan)
        .bind(note)
        .fetch_one(&mut *self.inner)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Stores a new run.
    pub async fn add_run(&mut self, run: &RunRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO run (id, kind, plan, request, state, begun_at, body) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&run.id)
        .bind(&run.kind)
        .bind(&run.plan)
        .bind(run.request)
        .bind(&run.state)
        .bind(time_text(run.begun_at))
        .bind(&run.body)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Stores the changed fields of a run, but only when it is still in state `from` (each state is entered from its predecessor).
    pub async fn step_run(&mut self, run: &RunRow, from: &str) -> Result<bool> {
        let done = sqlx::query(
            "UPDATE run SET state = $2, ended_at = $3, verified_at = $4, verified_snapshot = $5, grace_until = $6, generation = $7, \
             shredded_at = $8, body = $9 WHERE id = $1 AND state = $10",
        )
        .bind(&run.id)
        .bind(&run.state)
        .bind(run.ended_at.map(time_text))
        .bind(run.verified_at.map(time_text))
        .bind(run.verified_snapshot)
        .bind(run.grace_until.map(time_text))
        .bind(run.generation)
        .bind(run.shredded_at.map(time_text))
        .bind(&run.body)
        .bind(from)
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Runs in a state, oldest first; all when `None`.
    pub async fn runs(&mut self, state: Option<&str>) -> Result<Vec<RunRow>> {
        let text = format!("{RUN} WHERE ($1 IS NULL OR state = $1) ORDER BY begun_at, id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(state).fetch_all(&mut *self.inner).await?;
        rows.iter().map(run_row).collect()
    }

    /// The runs of a request, oldest first.
    pub async fn runs_of_request(&mut self, request: i64) -> Result<Vec<RunRow>> {
        let text = format!("{RUN} WHERE request = $1 ORDER BY begun_at, id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(request).fetch_all(&mut *self.inner).await?;
        rows.iter().map(run_row).collect()
    }

    /// The state of every run, by its id.
    pub async fn run_states(&mut self) -> Result<HashMap<String, String>> {
        let rows = sqlx::query("SELECT id, state FROM run").fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// A run by its id.
    pub async fn run(&mut self, id: &str) -> Result<Option<RunRow>> {
        let text = format!("{RUN} WHERE id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(run_row).transpose()
    }
}

fn plan_row(row: &sqlx::any::AnyRow) -> Result<PlanRow> {
    Ok(PlanRow {
        id: row.try_get(0)?,
        hash: row.try_get(1)?,
        kind: row.try_get(2)?,
        request: row.try_get(3)?,
        cutoff: parse_time(&row.try_get::<String, _>(4)?)?,
        created_at: parse_time(&row.try_get::<String, _>(5)?)?,
        body: row.try_get(6)?,
        state: row.try_get(7)?,
    })
}

fn run_row(row: &sqlx::any::AnyRow) -> Result<RunRow> {
    Ok(RunRow {
        id: row.try_get(0)?,
        kind: row.try_get(1)?,
        plan: row.try_get(2)?,
        request: row.try_get(3)?,
        state: row.try_get(4)?,
        begun_at: parse_time(&row.try_get::<String, _>(5)?)?,
        ended_at: optional_time(row.try_get(6)?)?,
        verified_at: optional_time(row.try_get(7)?)?,
        verified_snapshot: row.try_get(8)?,
        grace_until: optional_time(row.try_get(9)?)?,
        generation: row.try_get(10)?,
        shredded_at: optional_time(row.try_get(11)?)?,
        body: row.try_get(12)?,
    })
}
