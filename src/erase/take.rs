//! The short way of a batch: one DELETE that returns what it took, committed only if that is exactly what was planned.

use std::collections::{HashMap, HashSet};

use super::EraseError;
use super::batch::{Gone, Terms, Work};
use super::referrers::blocked_rows;
use super::survey::{Shape, Target};
use crate::control::LedgerKind;
use crate::crash_point;
use crate::plan::digest::erased_content_mac;
use crate::policy::hold::ActiveHolds;
use crate::stores::{Batch, BatchMarker, RowQuery, StoreError};
use crate::value::{Row, RowKey, Value, encode_values};

/// What a transaction did: its marker, the digests of the rows that are gone, a note.
type Done = (BatchMarker, Vec<Gone>, Option<String>);

impl Work<'_> {
    /// The short way, for the rule: one DELETE by keys and predicate that returns what it took. It is committed only if that is every row of
    /// the list, each still as it was planned and under no hold; else nothing has happened, and the long way finds out what may go.
    pub(super) async fn take_all(&self, target: &Target, terms: &Terms) -> Result<Option<Done>, EraseError> {
        // A trigger may put back what a DELETE says it took.
        let has_trigger = self.collection.table.triggers.iter().any(|trigger| trigger.on_delete);
        if self.ledger_kind() != LedgerKind::Erased || has_trigger {
            return Ok(None);
        }
        let (shape, query) = self.planned_rows(target, terms)?;
        let mut batch = self.site.store.begin_batch().await?;
        let keys: Vec<RowKey> = self.items.iter().map(|item| item.row.key.clone()).collect();
        let rows = match blocked_rows(batch.as_mut(), self.collection, &keys).await? {
            (blocked, _) if blocked.is_empty() => self.take_rows(batch.as_mut(), &shape, query).await,
            _ => Ok(None),
        };
        let rows = match rows {
            Ok(Some(rows)) if rows.len() == self.items.len() => rows,
            Ok(_) | Err(EraseError::Store(StoreError::Constraint { .. })) => {
                batch.roll_back().await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (gone, before) = self.sort_out(&shape, rows, &terms.holds);
        if before.len() != self.items.len() {
            batch.roll_back().await?;
            return Ok(None);
        }
        self.keep_pre_images(before).await?;
        crash_point::reached("batch.deleted");
        let marker = self.marker(gone.len() as i64);
        batch.commit(&marker).await?;
        Ok(Some((marker, gone, None)))
    }

    /// Deletes by a query of planned rows and returns them as they were; `None` when the engine cannot, or one changed meanwhile.
    async fn take_rows(
        &self,
        batch: &mut dyn Batch,
        shape: &Shape,
        query: RowQuery,
    ) -> Result<Option<Vec<Row>>, EraseError> {
        if let Some(rows) = batch.take(&query).await? {
            return Ok(Some(rows));
        }
        if shape.path().is_empty() {
            return Ok(None);
        }
        // What stands in their ancestors is read before, the rows themselves are compared with what was taken.
        let rows = batch.read(&query).await?;
        let width = shape.width();
        let own = RowQuery { columns: query.columns[width..].to_vec(), ..query };
        let Some(taken) = batch.take(&own).await? else { return Ok(None) };
        let taken: HashSet<Vec<u8>> = taken.iter().map(|row| encode_values(row)).collect();
        let is_same = taken.len() == rows.len() && rows.iter().all(|row| taken.contains(&encode_values(&row[width..])));
        Ok(is_same.then_some(rows))
    }

    /// The rows of the list that were read as planned, in its order: their digests, and their values.
    fn sort_out(&self, shape: &Shape, rows: Vec<Row>, holds: &ActiveHolds) -> (Vec<Gone>, Vec<(RowKey, Vec<Value>)>) {
        let mut found = HashMap::new();
        for mut row in rows {
            let values = row.split_off(shape.width());
            let row = shape.read(row);
            found.insert(encode_values(&row.key.0), (row, values));
        }
        let (mut gone, mut before) = (Vec::new(), Vec::new());
        for item in self.items {
            let Some((row, values)) = found.remove(&encode_values(&item.row.key.0)) else { continue };
            if self.is_doomed(&row, Some(item), holds) {
                gone.push((self.mac(&row.key), erased_content_mac(&self.keys.certificate, &values)));
                before.push((row.key, values));
            }
        }
        (gone, before)
    }
}
