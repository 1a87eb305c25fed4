//! Rows that are sealed, or about to be, and that sealing history and change index do not know yet. They must before the pack is stored
//! that holds them: what lies in the bucket and is not in the history could outlive an erasure.
//!
//! Many are entered at once, as many as fill a pack: the history's index of digests is in no order of reading, so each time it is written
//! to all over.

use super::Begun;
use super::changes::Found;
use crate::control::IndexEntry;
use crate::erase::Ground;
use crate::tasks::Result;

/// So many rows do not wait for their pack to be full; bounds the memory of a snapshot of small rows.
const MOST: usize = 100_000;

/// Rows that wait, each with its chunk.
#[derive(Default)]
pub(super) struct Pending(Vec<(Found, i64)>);

impl Pending {
    /// Adds rows.
    pub(super) fn add(&mut self, rows: impl Iterator<Item = (Found, i64)>) {
        self.0.extend(rows);
    }

    /// Whether so many wait that they are to be entered now.
    pub(super) fn is_large(&self) -> bool {
        self.0.len() >= MOST
    }

    /// Enters all that wait, durably.
    ///
    /// # Errors
    /// When the control database fails, or the work lease was lost.
    pub(super) async fn enter(&mut self, ground: &Ground<'_>, begun: &Begun) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let history: Vec<_> = self.0.iter().map(|(row, _)| (row.row_mac, row.cell)).collect();
        let entry = |(row, chunk): (Found, i64)| IndexEntry {
            row_mac: row.row_mac,
            cell: row.cell,
            sealed: Some((row.content, chunk)),
        };
        let entries: Vec<_> = self.0.drain(..).map(entry).collect();
        let mut tx = ground.control.begin().await?;
        tx.keep_more_pages().await?;
        begun.keep_lease(ground, &mut tx).await?;
        tx.note_sealed_rows(begun.row.number, &history).await?;
        tx.enter_changes(begun.row.number, &entries).await?;
        Ok(tx.commit().await?)
    }
}
