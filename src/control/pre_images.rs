//! Pre-images of erased rows, and what an undo changes: ledger, marked keys, counts.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{ChunkRow, LedgerKind, Result, RunRow, Tx, time_text};

impl Tx {
    /// Stores the sealed pre-images of a chunk, in place of those of an earlier attempt.
    pub async fn put_pre_images(&mut self, run: &str, chunk: i64, parts: &[Vec<u8>]) -> Result<()> {
        sqlx::query("DELETE FROM pre_image WHERE run = $1 AND chunk = $2")
            .bind(run)
            .bind(chunk)
            .execute(&mut *self.inner)
            .await?;
        for (part, sealed) in parts.iter().enumerate() {
            sqlx::query("INSERT INTO pre_image (run, chunk, part, sealed) VALUES ($1, $2, $3, $4)")
                .bind(run)
                .bind(chunk)
                .bind(part as i64)
                .bind(sealed)
                .execute(&mut *self.inner)
                .await?;
        }
        Ok(())
    }

    /// The sealed pre-images of a chunk in order.
    pub async fn pre_images(&mut self, run: &str, chunk: i64) -> Result<Vec<Vec<u8>>> {
        let rows = sqlx::query("SELECT sealed FROM pre_image WHERE run = $1 AND chunk = $2 ORDER BY part")
            .bind(run)
            .bind(chunk)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Runs that have pre-images.
    pub async fn runs_with_pre_images(&mut self) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT DISTINCT run FROM pre_image ORDER BY run").fetch_all(&mut *self.inner).await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Forgets the pre-images of a run and marks their key for the next change of keys.
    pub async fn retire_pre_images(&mut self, run: &str) -> Result<()> {
        sqlx::query("DELETE FROM pre_image WHERE run = $1").bind(run).execute(&mut *self.inner).await?;
        self.retire_work("pre-image", run).await
    }

    /// Digests of the rows of a chunk that its run erased or changed, and that were not put back: those that the read-back took for
    /// failed as well.
    pub async fn done_entries(&mut self, run: &str, chunk: i64) -> Result<Vec<[u8; 16]>> {
        let rows =
            sqlx::query("SELECT row_mac FROM ledger WHERE run = $1 AND chunk = $2 AND state IN ('done', 'failed')")
                .bind(run)
                .bind(chunk)
                .fetch_all(&mut *self.inner)
                .await?;
        rows.into_iter()
            .map(|row| {
                let mac: Vec<u8> = row.try_get(0)?;
                mac.try_into()
                    .map_err(|_| super::ControlError::Inconsistent("a ledger digest has a wrong length".to_owned()))
            })
            .collect()
    }

    /// Digests of the rows of a chunk that another run erased or stripped again, or is about to, after this one did.
    pub async fn erased_again(&mut self, run: &str, chunk: i64) -> Result<HashSet<[u8; 16]>> {
        let rows = sqlx::query(
            "SELECT DISTINCT l.row_mac FROM ledger l JOIN ledger later ON later.row_mac = l.row_mac \
             AND later.position > l.position AND later.run <> l.run AND later.state IN ('done', 'intended') \
             WHERE l.run = $1 AND l.chunk = $2",
        )
        .bind(run)
        .bind(chunk)
        .fetch_all(&mut *self.inner)
        .await?;
        let damaged = || super::ControlError::Inconsistent("a ledger digest has a wrong length".to_owned());
        rows.into_iter().map(|row| row.try_get::<Vec<u8>, _>(0)?.try_into().map_err(|_| damaged())).collect()
    }

    /// Rows of a chunk are back as they were: their entries are undone, reversing ones follow, and they count as kept.
    pub async fn reverse_entries(
        &mut self,
        run: &RunRow,
        chunk: &ChunkRow,
        rows: &[[u8; 16]],
        now: DateTime<Utc>,
    ) -> Result<()> {
        // Those that counted as done, and those that counted as failed.
        let (mut undone, mut mended) = (0, 0);
        for mac in rows {
            let mut changed = [0; 2];
            for (state, changed) in ["done", "failed"].into_iter().zip(&mut changed) {
                let sql =
                    "UPDATE ledger SET state = 'undone' WHERE run = $1 AND chunk = $2 AND row_mac = $3 AND state = $4";
                let query = sqlx::query(sql).bind(&run.id).bind(chunk.number).bind(&mac[..]).bind(state);
                *changed = query.execute(&mut *self.inner).await?.rows_affected() as i64;
            }
            let [done, failed] = changed;
            if done + failed == 0 {
                continue;
            }
            undone += done;
            mended += failed;
            sqlx::query(
                "INSERT INTO ledger (run, chunk, store, collection, row_mac, kind, state, at) VALUES ($1, $2, $3, $4, $5, 'put-back', 'reversal', $6)",
            )
            .bind(&run.id)
            .bind(chunk.number)
            .bind(&chunk.store)
            .bind(&chunk.collection)
            .bind(&mac[..])
            .bind(time_text(now))
            .execute(&mut *self.inner)
            .await?;
        }
        let count = LedgerKind::of_verdict(&chunk.verdict).text();
        let text = format!(
            "UPDATE plan_chunk SET {count} = {count} - $3, failed = failed - $4, kept = kept + $3 + $4 WHERE plan = $1 AND number = $2"
        );
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(&run.plan)
            .bind(chunk.number)
            .bind(undone)
            .bind(mended)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// How many rows of a run were put back.
    pub async fn undone_rows(&mut self, run: &str) -> Result<i64> {
        let row = sqlx::query("SELECT COUNT(*) FROM ledger WHERE run = $1 AND state = 'undone'")
            .bind(run)
            .fetch_one(&mut *self.inner)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// The keys that a run marked for destruction live on. A subject or bucket that has a newer instance by now is retained
    /// beside it: old frames open, new rows go to the newer one.
    pub async fn revive_keys(&mut self, run: &str) -> Result<()> {
        for (select, update) in [
            (
                "SELECT slot FROM subject WHERE state = 'dying' AND run = $1",
                "UPDATE subject SET run = NULL, state = CASE WHEN EXISTS (SELECT 1 FROM subject newer \
                 WHERE newer.lookup = subject.lookup AND newer.state = 'active') THEN 'retained' ELSE 'active' END \
                 WHERE slot = $1",
            ),
            (
                "SELECT slot FROM bucket WHERE state = 'dying' AND run = $1",
                "UPDATE bucket SET run = NULL, state = CASE WHEN EXISTS (SELECT 1 FROM bucket newer \
                 WHERE newer.store = bucket.store AND newer.collection = bucket.collection \
                 AND newer.policy = bucket.policy AND newer.period = bucket.period AND newer.state = 'active') \
                 THEN 'retained' ELSE 'active' END WHERE slot = $1",
            ),
            (
                "SELECT slot FROM pin WHERE state = 'dying' AND dies_with = $1",
                "UPDATE pin SET dies_with = NULL, state = 'active' WHERE slot = $1",
            ),
        ] {
            // One by one: of two instances of one name only the first may become the active one.
            for row in sqlx::query(select).bind(run).fetch_all(&mut *self.inner).await? {
                sqlx::query(update).bind(row.try_get::<i64, _>(0)?).execute(&mut *self.inner).await?;
            }
        }
        Ok(())
    }
}
