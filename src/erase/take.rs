//! The short way of a batch: one DELETE that returns what it took, committed only if that is exactly what was planned.

use std::collections::HashMap;

use super::EraseError;
use super::batch::{Done, Gone, Terms, Work};
use super::referrers::blocked_rows;
use super::survey::{Shape, Target};
use crate::control::LedgerKind;
use crate::crash_point;
use crate::plan::digest::erased_content_mac;
use crate::plan::graph::Untie;
use crate::plan::model::Child;
use crate::policy::hold::ActiveHolds;
use crate::stores::{Engine, OnDelete, StoreError};
use crate::value::{Row, RowKey, Value, encode_values};

impl Work<'_> {
    /// The short way, for the rule: one DELETE by keys and predicate that returns what it took. It is committed only if that is every row of
    /// the list, each still as it was planned and under no hold; else nothing has happened, and the long way finds out what may go.
    pub(super) async fn take_all(&self, target: &Target, terms: &Terms) -> Result<Option<Done>, EraseError> {
        if self.ledger_kind() != LedgerKind::Erased || !self.is_alone() {
            return Ok(None);
        }
        let (shape, query) = self.planned_rows(target, terms)?;
        // A DELETE that waited for a row looks at that row again, and not at its ancestors.
        if !shape.path().is_empty() {
            return Ok(None);
        }
        let mut batch = self.site.store.begin_batch().await?;
        let keys: Vec<RowKey> = self.items.iter().map(|item| item.row.key.clone()).collect();
        let rows = match blocked_rows(batch.as_mut(), self.collection, &keys).await? {
            (blocked, _) if blocked.is_empty() => batch.take(&query).await,
            _ => Ok(None),
        };
        let rows = match rows {
            Ok(Some(rows)) if rows.len() == self.items.len() => rows,
            Ok(_) | Err(StoreError::Constraint { .. }) => {
                batch.roll_back().await?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let (gone, before) = self.sort_out(&shape, rows, &terms.holds);
        if before.len() != self.items.len() {
            batch.roll_back().await?;
            return Ok(None);
        }
        self.keep_pre_images(before).await?;
        crash_point::reached("batch.deleted");
        let marker = self.marker(gone.len() as i64);
        let commit = self.commit(batch, &marker).await?;
        Ok(Some((marker, gone, None, commit)))
    }

    /// Whether a DELETE does nothing but what it says: no trigger that may put rows back, and no reference that lets children go with their
    /// parents, empties them, or is looked at only at the commit. Nothing is locked before the DELETE, so a child may come behind the look;
    /// only a reference that refuses the DELETE itself protects it.
    fn is_alone(&self) -> bool {
        let has_trigger = self.collection.table.triggers.iter().any(|trigger| trigger.on_delete);
        let firm = |child: &Child| child.on_delete == OnDelete::Refuse && child.untie != Untie::PutOff;
        self.site.store.engine() != Engine::Sqlite && !has_trigger && self.collection.children.iter().all(firm)
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
