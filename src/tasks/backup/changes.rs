//! What an increment finds changed: every living row is compared with the change index, and what the index knows and the store has
//! no more was removed. Nothing is believed of clocks, counters or triggers, so nothing is missed.
//!
//! A row is unchanged when it would be sealed in the very cell in which it lies, its content has the same digest, and no erasure
//! took it since. Everything else is sealed anew; a version that stays behind in another cell is named as removed there.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::control::{IndexEntry, IndexedRow, RowInCell, SnapshotRow, Tx};
use crate::erase::Ground;
use crate::tasks::Result;

/// Removed rows that are held before they are sealed; bounds the memory.
pub(super) const REMOVED_AT_ONCE: usize = 200_000;
/// Bits of a page of [`Seen`].
const PAGE_BITS: i64 = 1 << 16;

/// The entries of the index that were met: a bit each.
#[derive(Default)]
struct Seen {
    pages: BTreeMap<i64, Box<[u64]>>,
    count: u64,
}

impl Seen {
    fn insert(&mut self, id: i64) {
        let words = (PAGE_BITS / 64) as usize;
        let page = self.pages.entry(id.div_euclid(PAGE_BITS)).or_insert_with(|| vec![0; words].into_boxed_slice());
        let bit = id.rem_euclid(PAGE_BITS);
        let word = &mut page[(bit / 64) as usize];
        self.count += u64::from(*word & (1 << (bit % 64)) == 0);
        *word |= 1 << (bit % 64);
    }

    fn contains(&self, id: i64) -> bool {
        let bit = id.rem_euclid(PAGE_BITS);
        self.pages.get(&id.div_euclid(PAGE_BITS)).is_some_and(|page| page[(bit / 64) as usize] & (1 << (bit % 64)) != 0)
    }
}

/// A row of the store as it would be sealed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Its digest.
    pub row_mac: [u8; 16],
    /// The cell it belongs to.
    pub cell: i64,
    /// The digest of its content.
    pub content: [u8; 16],
}

/// What is known of the snapshot before.
pub(super) struct Changes {
    store: String,
    /// Rows that were erased since it: what is there under their keys is another version, whatever it looks like.
    erased: HashSet<[u8; 16]>,
    seen: Seen,
    /// Rows that are gone from a cell: (cell, row).
    removed: Vec<(i64, [u8; 16])>,
}

impl Changes {
    /// Begins a comparison with the newest snapshot of a store.
    pub(super) async fn since(ground: &Ground<'_>, parent: &SnapshotRow) -> Result<Self> {
        let mut tx = ground.control.read().await?;
        let erased = tx.ledger_after(&parent.store, parent.ledger_position).await?;
        let erased = erased.into_iter().map(|entry| entry.row_mac).collect();
        Ok(Self { store: parent.store.clone(), erased, seen: Seen::default(), removed: Vec::new() })
    }

    /// Compares rows. Returns, for each, whether it must be sealed. One that lay in another cell is entered as removed there.
    pub(super) async fn compare(&mut self, tx: &mut Tx, snapshot: i64, rows: &[Found]) -> Result<Vec<bool>> {
        let wanted: Vec<RowInCell> = rows.iter().map(|row| (row.row_mac, row.cell)).collect();
        let known: HashMap<[u8; 16], IndexedRow> = tx.indexed_rows(&self.store, &wanted).await?;
        let mut moved = Vec::new();
        let mut changed = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(before) = known.get(&row.row_mac) else {
                changed.push(true);
                continue;
            };
            self.seen.insert(before.id);
            let has_moved = before.cell != row.cell;
            if has_moved {
                moved.push((before.cell, row.row_mac));
            }
            changed.push(has_moved || before.content != row.content || self.erased.contains(&row.row_mac));
        }
        tx.enter_changes(snapshot, &as_removed(&moved)).await?;
        self.removed.extend(moved);
        Ok(changed)
    }

    /// How many removed rows wait to be sealed.
    pub(super) fn waiting(&self) -> usize {
        self.removed.len()
    }

    /// The removed rows that wait, by cell.
    pub(super) fn take_removed(&mut self) -> BTreeMap<i64, Vec<[u8; 16]>> {
        let mut by_cell: BTreeMap<i64, Vec<[u8; 16]>> = BTreeMap::new();
        for (cell, mac) in self.removed.drain(..) {
            by_cell.entry(cell).or_default().push(mac);
        }
        by_cell
    }

    /// After every row of the store was compared: the next known rows, behind `after`, that were not met. Returns where to go on;
    /// none at the end. They are entered as removed.
    pub(super) async fn find_removed(&mut self, tx: &mut Tx, snapshot: i64, after: i64) -> Result<Option<i64>> {
        if after == 0 && tx.count_indexed(&self.store).await? == self.seen.count {
            return Ok(None);
        }
        let page = tx.indexed_after(&self.store, after).await?;
        let Some((last, ..)) = page.last().copied() else { return Ok(None) };
        let gone = page.into_iter().filter(|(id, ..)| !self.seen.contains(*id));
        let gone: Vec<(i64, [u8; 16])> = gone.map(|(_, mac, cell)| (cell, mac)).collect();
        tx.enter_changes(snapshot, &as_removed(&gone)).await?;
        self.removed.extend(gone);
        Ok(Some(last))
    }
}

/// What is entered of rows that are gone from a cell.
fn as_removed(gone: &[(i64, [u8; 16])]) -> Vec<IndexEntry> {
    gone.iter().map(|(cell, row_mac)| IndexEntry { row_mac: *row_mac, cell: *cell, sealed: None }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_seen_is_remembered_and_nothing_else(ids in proptest::collection::vec(1_i64..400_000, 0..60), others in proptest::collection::vec(1_i64..400_000, 0..60)) {
            let (mut seen, known) = (Seen::default(), ids.iter().copied().collect::<BTreeSet<_>>());
            for id in &ids {
                seen.insert(*id);
            }
            prop_assert_eq!(seen.count, known.len() as u64);
            for id in ids.iter().chain(&others) {
                prop_assert_eq!(seen.contains(*id), known.contains(id));
            }
        }
    }
}
