//! What a generation change does to the rows of the keys that it destroys. All of it follows those keys, not the tables.

use super::built::Built;
use super::engine::Engine;
use super::{DyingKeys, ROWS_PER_STATEMENT, Result, Tx};

/// A burial of more keys than this gets more memory.
const LARGE_BURIAL: usize = 5000;
/// What SQLite keeps in memory by itself.
const USUAL_CACHE: &str = "-2000";

/// The cells whose secrets lie in these pin slots, found through the pins: there is no index the other way.
const PINNED: &str = "SELECT c.id FROM pin p JOIN cell c ON c.id = p.cell AND c.pin = p.slot WHERE p.slot IN (";

/// Forgets the sealing history of dead cells, of those that the condition behind it selects.
const HISTORY: &str = "DELETE FROM sealed_row WHERE cell IN (SELECT id FROM cell WHERE state = 'dead' AND";

/// Forgets what the change index knows of them.
const CHANGES: &str = "DELETE FROM change_index WHERE cell IN (SELECT id FROM cell WHERE state = 'dead' AND";

/// Stands for the generation in a statement.
const DIED: &str = ":died";

impl Tx {
    /// Marks keys destroyed with this generation, the first without them, and the cells that lost their secret with them dead, and
    /// forgets the sealing history of those cells and their rows in the change index.
    pub async fn bury(&mut self, dying: &DyingKeys, generation: i64) -> Result<()> {
        let steps: [(&[u32], &[&'static str], &'static str); 14] = [
            (
                &dying.subjects,
                &["UPDATE subject SET state = 'destroyed', lookup = NULL, died = ", DIED, " WHERE slot IN ("],
                ")",
            ),
            (&dying.buckets, &["UPDATE bucket SET state = 'destroyed', died = ", DIED, " WHERE slot IN ("], ")"),
            (&dying.chains, &["UPDATE chain SET state = 'destroyed', died = ", DIED, " WHERE slot IN ("], ")"),
            (&dying.work, &["UPDATE work SET state = 'destroyed', died = ", DIED, " WHERE slot IN ("], ")"),
            (&dying.pins, &["UPDATE pin SET state = 'destroyed', died = ", DIED, " WHERE slot IN ("], ")"),
            (&dying.pins, &["UPDATE cell SET state = 'dead' WHERE id IN (", PINNED], "))"),
            (&dying.subjects, &["UPDATE cell SET state = 'dead' WHERE pin IS NULL AND subject IN ("], ")"),
            (&dying.buckets, &["UPDATE cell SET state = 'dead' WHERE pin IS NULL AND bucket IN ("], ")"),
            (&dying.pins, &[HISTORY, " id IN (", PINNED], ")))"),
            (&dying.subjects, &[HISTORY, " subject IN ("], "))"),
            (&dying.buckets, &[HISTORY, " bucket IN ("], "))"),
            (&dying.pins, &[CHANGES, " id IN (", PINNED], ")))"),
            (&dying.subjects, &[CHANGES, " subject IN ("], "))"),
            (&dying.buckets, &[CHANGES, " bucket IN ("], "))"),
        ];
        let is_large = self.engine == Engine::Sqlite && dying.count() > LARGE_BURIAL;
        if is_large {
            self.keep_pages("-65536").await?;
        }
        for (slots, start, end) in steps {
            self.for_slots(slots, start, end, generation).await?;
        }
        self.bury_chains(&dying.chains).await?;
        if is_large {
            self.keep_pages(USUAL_CACHE).await?;
        }
        Ok(())
    }

    /// For a transaction that writes to all of large indexes: SQLite keeps more of the database in memory until its connection goes
    /// back. On PostgreSQL nothing.
    pub async fn keep_more_pages(&mut self) -> Result<()> {
        if self.engine == Engine::Sqlite { self.keep_pages("-32768").await } else { Ok(()) }
    }

    /// How much of the database SQLite keeps in memory for this connection (negative: KiB). A large burial writes to all of an index in
    /// no order; with the usual 2 MB every page would be read and journalled many times.
    async fn keep_pages(&mut self, size: &'static str) -> Result<()> {
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA cache_size = {size}"))).execute(&mut *self.inner).await?;
        Ok(())
    }

    /// Executes a statement for slots, so many at a time and in their order: neighbours lie on the same pages.
    async fn for_slots(
        &mut self,
        slots: &[u32],
        start: &[&'static str],
        end: &'static str,
        generation: i64,
    ) -> Result<()> {
        let mut slots = slots.to_vec();
        slots.sort_unstable();
        for part in slots.chunks(ROWS_PER_STATEMENT) {
            let mut query = Built::new(self.engine, "");
            for text in start {
                match *text {
                    DIED => query.bind(generation)?,
                    text => query.push(text),
                };
            }
            query.list(part, |query, slot| query.bind(i64::from(*slot)).map(|_| ()))?.push(end);
            query.done_kept(part.len() == ROWS_PER_STATEMENT).execute(&mut *self.inner).await?;
        }
        Ok(())
    }
}
