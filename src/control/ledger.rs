//! The ledger of erasures.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Result, Tx, time_text};

/// What an erasure did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerKind {
    /// It is gone.
    Erased,
    /// It was anonymised.
    Anonymised,
    /// It was stripped to its minimum.
    Stripped,
}

impl LedgerKind {
    /// What the chunks of a verdict do.
    #[must_use]
    pub fn of_verdict(verdict: &str) -> Self {
        match verdict {
            "anonymise" => Self::Anonymised,
            "strip" => Self::Stripped,
            _ => Self::Erased,
        }
    }

    /// The kind with this name in the ledger.
    fn of_text(text: &str) -> Self {
        match text {
            "anonymised" => Self::Anonymised,
            "stripped" => Self::Stripped,
            _ => Self::Erased,
        }
    }

    /// Its name in the ledger, and that of its count.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Erased => "erased",
            Self::Anonymised => "anonymised",
            Self::Stripped => "stripped",
        }
    }
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its position.
    pub position: i64,
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// Keyed digest of the row's key.
    pub row_mac: [u8; 16],
    /// Keyed digest of the row's content as it was read just before; zero when it was gone by then.
    pub content_mac: [u8; 32],
    /// What was done.
    pub kind: LedgerKind,
    /// `intended`, `done`, `void` or `undone`.
    pub state: String,
}

/// What a run did in one of its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneBlock {
    /// The chunk.
    pub chunk: i64,
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// What was done.
    pub kind: LedgerKind,
}

impl Tx {
    /// The last ledger position given out.
    pub async fn ledger_head(&mut self) -> Result<i64> {
        let row = sqlx::query("SELECT COALESCE(MAX(position), 0) FROM ledger").fetch_one(&mut *self.inner).await?;
        Ok(row.try_get(0)?)
    }

    /// Ledger entries of a store behind a position that erased something, or are about to: neither void nor undone ones.
    pub async fn ledger_after(&mut self, store: &str, position: i64) -> Result<Vec<LedgerEntry>> {
        let rows = sqlx::query(
            "SELECT position, store, collection, row_mac, kind, state, content_mac FROM ledger WHERE store = $1 AND position > $2 AND state IN ('intended', 'done') ORDER BY position",
        )
        .bind(store)
        .bind(position)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(ledger_entry).collect()
    }

    /// The done entries of a run.
    pub async fn ledger_of_run(&mut self, run: &str) -> Result<Vec<LedgerEntry>> {
        let rows = sqlx::query(
            "SELECT position, store, collection, row_mac, kind, state, content_mac FROM ledger WHERE run = $1 AND state = 'done' ORDER BY position",
        )
        .bind(run)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(ledger_entry).collect()
    }

    /// What a run's done entries are, by chunk and in their order; the rows of each are for [`Tx::done_rows`] to read, because all of them
    /// may be too many to hold.
    pub async fn done_blocks(&mut self, run: &str) -> Result<Vec<DoneBlock>> {
        let rows = sqlx::query(
            "SELECT chunk, store, collection, kind, MIN(position) AS first FROM ledger WHERE run = $1 AND state = 'done' \
             GROUP BY chunk, store, collection, kind ORDER BY first",
        )
        .bind(run)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                let (chunk, store, collection) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                Ok(DoneBlock { chunk, store, collection, kind: LedgerKind::of_text(&row.try_get::<String, _>(3)?) })
            })
            .collect()
    }

    /// The rows of a block: keyed digests of key and content, in the order of their entries.
    pub async fn done_rows(&mut self, run: &str, block: &DoneBlock) -> Result<Vec<([u8; 16], [u8; 32])>> {
        let rows = sqlx::query(
            "SELECT row_mac, content_mac FROM ledger WHERE run = $1 AND chunk = $2 AND kind = $3 AND state = 'done' ORDER BY position",
        )
        .bind(run)
        .bind(block.chunk)
        .bind(block.kind.text())
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(|row| Ok((mac_of(row.try_get(0)?)?, content_of(row.try_get(1)?)))).collect()
    }

    /// What a chunk's rows are about to be left with, as keyed digests of their contents; its entries are intended by then.
    pub async fn intend_after(&mut self, run: &str, chunk: i64, rows: &[([u8; 16], [u8; 32])]) -> Result<()> {
        for (mac, content) in rows {
            sqlx::query(
                "UPDATE ledger SET after_mac = $4 WHERE run = $1 AND chunk = $2 AND row_mac = $3 AND state = 'intended'",
            )
            .bind(run)
            .bind(chunk)
            .bind(&mac[..])
            .bind(&content[..])
            .execute(&mut *self.inner)
            .await?;
        }
        Ok(())
    }

    /// The digests of what the rows of a block were left with, in the order of [`Tx::done_rows`]; none of one of which it is not known.
    pub async fn left_contents(&mut self, run: &str, block: &DoneBlock) -> Result<Vec<Option<[u8; 32]>>> {
        let rows = sqlx::query(
            "SELECT after_mac FROM ledger WHERE run = $1 AND chunk = $2 AND kind = $3 AND state = 'done' ORDER BY position",
        )
        .bind(run)
        .bind(block.chunk)
        .bind(block.kind.text())
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| Ok(row.try_get::<Option<Vec<u8>>, _>(0)?.and_then(|bytes| bytes.try_into().ok())))
            .collect()
    }

    /// The rows of a chunk's done entries.
    pub async fn done_in_chunk(&mut self, run: &str, chunk: i64) -> Result<HashSet<[u8; 16]>> {
        let rows = sqlx::query("SELECT row_mac FROM ledger WHERE run = $1 AND chunk = $2 AND state = 'done'")
            .bind(run)
            .bind(chunk)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.iter().map(|row| mac_of(row.try_get(0)?)).collect()
    }

    /// How many done entries each chunk of a run has; chunks without one are left out.
    pub async fn done_by_chunk(&mut self, run: &str) -> Result<HashMap<i64, i64>> {
        let rows = sqlx::query("SELECT chunk, COUNT(*) FROM ledger WHERE run = $1 AND state = 'done' GROUP BY chunk")
            .bind(run)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Whether a run that began by `until` and waits for its shred has erased or stripped rows of a collection.
    pub async fn has_pending_rows(&mut self, store: &str, collection: &str, until: DateTime<Utc>) -> Result<bool> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM (SELECT 1 FROM run r JOIN ledger l ON l.run = r.id WHERE r.state = 'shred-pending' \
             AND l.state = 'done' AND l.store = $1 AND l.collection = $2 AND r.begun_at <= $3 LIMIT 1) AS some_row",
        )
        .bind(store)
        .bind(collection)
        .bind(time_text(until))
        .fetch_one(&mut *self.inner)
        .await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// Of a run's erased and stripped rows, how many still lie in a cell that can be opened.
    pub async fn rows_still_readable(&mut self, run: &str, barrier: i64) -> Result<i64> {
        let row = sqlx::query(
            "SELECT COUNT(DISTINCT l.position) FROM ledger l JOIN sealed_row s ON s.row_mac = l.row_mac \
             JOIN cell c ON c.id = s.cell WHERE l.run = $1 AND l.state = 'done' AND c.state = 'live' AND s.first_snapshot <= $2",
        )
        .bind(run)
        .bind(barrier)
        .fetch_one(&mut *self.inner)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// The stores of which snapshots behind this one sealed rows that a run erased, in cells that can be opened. Rows that were anonymised or
    /// stripped are there, and are sealed as they are now.
    pub async fn stores_sealed_again(&mut self, run: &str, behind: i64) -> Result<BTreeSet<String>> {
        let rows = sqlx::query(
            "SELECT DISTINCT l.store FROM ledger l JOIN sealed_row s ON s.row_mac = l.row_mac \
             JOIN cell c ON c.id = s.cell WHERE l.run = $1 AND l.state = 'done' AND l.kind = 'erased' AND c.state = 'live' AND s.first_snapshot > $2",
        )
        .bind(run)
        .bind(behind)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The buckets of those cells in which rows of a run still open.
    pub async fn readable_buckets(&mut self, run: &str, barrier: i64) -> Result<Vec<u32>> {
        let rows = sqlx::query(
            "SELECT DISTINCT c.bucket FROM ledger l JOIN sealed_row s ON s.row_mac = l.row_mac \
             JOIN cell c ON c.id = s.cell WHERE l.run = $1 AND l.state = 'done' AND c.state = 'live' AND s.first_snapshot <= $2",
        )
        .bind(run)
        .bind(barrier)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.into_iter().map(|row| Ok(row.try_get::<i64, _>(0)? as u32)).collect()
    }
}

fn mac_of(bytes: Vec<u8>) -> Result<[u8; 16]> {
    bytes.try_into().map_err(|_| super::ControlError::Inconsistent("a ledger digest has a wrong length".to_owned()))
}

/// The digest of a content; zero when the row was gone by then.
fn content_of(bytes: Option<Vec<u8>>) -> [u8; 32] {
    bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; 32])
}

fn ledger_entry(row: &sqlx::any::AnyRow) -> Result<LedgerEntry> {
    let mac: Vec<u8> = row.try_get(3)?;
    let kind: String = row.try_get(4)?;
    Ok(LedgerEntry {
        position: row.try_get(0)?,
        store: row.try_get(1)?,
        collection: row.try_get(2)?,
        row_mac: mac_of(mac)?,
        kind: LedgerKind::of_text(&kind),
        state: row.try_get(5)?,
        content_mac: content_of(row.try_get(6)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::create;
    use crate::control::{ChunkCounts, ChunkRow, RunRow};

    fn run() -> RunRow {
        RunRow {
            id: "run".to_owned(),
            kind: "retention".to_owned(),
            plan: Some("plan".to_owned()),
            request: None,
            state: "approved".to_owned(),
            begun_at: DateTime::UNIX_EPOCH,
            ended_at: None,
            verified_at: None,
            verified_snapshot: None,
            grace_until: None,
            generation: None,
            shredded_at: None,
            body: "{}".to_owned(),
        }
    }

    fn chunk(number: i64, rows: i64) -> ChunkRow {
        ChunkRow {
            number,
            store: "shop".to_owned(),
            collection: "orders".to_owned(),
            verdict: "erase".to_owned(),
            rows,
            sealed: Vec::new(),
            state: "planned".to_owned(),
            counts: ChunkCounts::default(),
            knot: None,
        }
    }

    #[tokio::test]
    async fn each_row_that_is_gone_gets_its_own_digest_and_the_others_are_void() {
        let folder = tempfile::tempdir().unwrap();
        let control = create(&folder.path().join("control.db"), [1; 16]).await;
        let mac = |number: u8| [number; 16];
        let gone = |number: u8| ([number; 16], [number + 100; 32]);
        let (all, some): (Vec<_>, Vec<_>) = ((1..=5).map(mac).collect(), vec![gone(12), gone(15), gone(11)]);
        let mut tx = control.begin().await.unwrap();
        for (number, rows) in [(0, all), (5, (11..=15).map(mac).collect())] {
            // An attempt that came to nothing before leaves no entry.
            for _ in 0..2 {
                let begun = DateTime::UNIX_EPOCH;
                tx.begin_chunk(&run(), &chunk(number, 5), LedgerKind::Erased, &rows, begun).await.unwrap();
            }
        }
        let whole: Vec<_> = (1..=5).map(gone).collect();
        tx.end_chunk(&run(), &chunk(0, 5), ChunkCounts::default(), &whole, None).await.unwrap();
        // Neither all of them nor in their order.
        tx.end_chunk(&run(), &chunk(5, 5), ChunkCounts::default(), &some, None).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = control.read().await.unwrap();
        let blocks = tx.done_blocks("run").await.unwrap();
        assert_eq!(
            blocks.iter().map(|block| (block.chunk, block.kind)).collect::<Vec<_>>(),
            [0, 5].map(|chunk| (chunk, LedgerKind::Erased))
        );
        assert_eq!(tx.done_rows("run", &blocks[0]).await.unwrap(), whole);
        assert_eq!(tx.done_rows("run", &blocks[1]).await.unwrap(), [gone(11), gone(12), gone(15)]);
        assert_eq!(tx.done_by_chunk("run").await.unwrap(), HashMap::from([(0, 5), (5, 3)]));
        assert_eq!(tx.done_in_chunk("run", 5).await.unwrap(), [11, 12, 15].map(mac).into());
        assert_eq!(tx.ledger_of_run("run").await.unwrap().len(), 8);
        assert!(tx.ledger_after("shop", 0).await.unwrap().iter().all(|entry| entry.state == "done"));
    }

    #[tokio::test]
    async fn what_rows_were_left_with_is_known_whatever_came_between() {
        let folder = tempfile::tempdir().unwrap();
        let control = create(&folder.path().join("control.db"), [1; 16]).await;
        let chunk = ChunkRow { verdict: "strip".to_owned(), ..chunk(0, 3) };
        let rows = [1, 2, 3].map(|number: u8| [number; 16]);
        let mut tx = control.begin().await.unwrap();
        for left in [vec![(rows[1], [9; 32])], vec![(rows[0], [7; 32]), (rows[2], [8; 32])]] {
            // What an attempt left that came to nothing counts no more.
            tx.begin_chunk(&run(), &chunk, LedgerKind::Stripped, &rows, DateTime::UNIX_EPOCH).await.unwrap();
            tx.intend_after("run", 0, &left).await.unwrap();
        }
        // As behind a crash: nobody knows what was there before.
        let gone = rows.map(|mac| (mac, [0; 32]));
        tx.end_chunk(&run(), &chunk, ChunkCounts::default(), &gone, None).await.unwrap();
        let block = tx.done_blocks("run").await.unwrap().remove(0);
        assert_eq!(tx.left_contents("run", &block).await.unwrap(), [Some([7; 32]), None, Some([8; 32])]);
        tx.intend_after("run", 0, &[(rows[1], [5; 32])]).await.unwrap();
        assert_eq!(tx.left_contents("run", &block).await.unwrap()[1], None, "what is done stays");
    }

    #[tokio::test]
    async fn what_was_erased_and_sealed_again_is_told_of_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let control = create(&folder.path().join("control.db"), [1; 16]).await;
        let mut tx = control.begin().await.unwrap();
        let stores = ["again", "earlier", "dead", "anonymised"];
        for (at, store) in stores.into_iter().enumerate() {
            let kind = if store == "anonymised" { LedgerKind::Anonymised } else { LedgerKind::Erased };
            let chunk = ChunkRow { store: store.to_owned(), ..chunk(at as i64, 1) };
            let mac = [at as u8; 16];
            tx.begin_chunk(&run(), &chunk, kind, &[mac], DateTime::UNIX_EPOCH).await.unwrap();
            tx.end_chunk(&run(), &chunk, ChunkCounts::default(), &[(mac, [0; 32])], None).await.unwrap();
            let state = if store == "dead" { "dead" } else { "live" };
            let cell = at as i64 + 1;
            let made = "INSERT INTO cell (id, subject, bucket, state) VALUES ($1, $1, 5, $2)";
            sqlx::query(made).bind(cell).bind(state).execute(&mut *tx.inner).await.unwrap();
            let snapshot = if store == "earlier" { 7 } else { 8 };
            tx.note_sealed_rows(snapshot, &[(mac, cell)]).await.unwrap();
        }
        assert_eq!(tx.stores_sealed_again("run", 7).await.unwrap(), ["again".to_owned()].into());
        assert!(tx.stores_sealed_again("run", 8).await.unwrap().is_empty());
    }
}
