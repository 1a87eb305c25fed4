//! Reads absence back: by a query that did not do the deleting, in a read-only session of its own.

use std::collections::HashSet;

use super::batch::{RunKeys, is_blank, stripped_columns};
use super::chunk::open_items;
use super::survey::read_all;
use super::{EraseError, Ground};
use crate::control::RunRow;
use crate::plan::digest::row_mac;
use crate::stores::{ColumnRef, Filter, RowQuery};
use crate::value::{Row, RowKey};

/// What was looked at and found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadBack {
    /// Rows looked for that must be absent.
    pub looked_for: u64,
    /// Of them found all the same.
    pub present: u64,
    /// Stripped rows looked at.
    pub stripped: u64,
    /// Of them with content that should be gone.
    pub unstripped: u64,
}

impl ReadBack {
    /// Whether everything is as claimed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.present == 0 && self.unstripped == 0
    }
}

/// Looks again for every row that the run's ledger calls gone or stripped.
///
/// # Errors
/// When a store cannot be read; then nothing was shown.
pub async fn read_back(ground: &Ground<'_>, run: &RunRow, keys: &RunKeys) -> Result<ReadBack, EraseError> {
    let mut tx = ground.control.read().await?;
    let plan = run.plan.as_deref().unwrap_or_default();
    let chunks = tx.chunks(plan).await?;
    let done: HashSet<[u8; 16]> = tx.ledger_of_run(&run.id).await?.into_iter().map(|entry| entry.row_mac).collect();
    drop(tx);
    // What cannot be looked at was not shown to be absent.
    if let Some(chunk) = chunks.iter().find(|chunk| chunk.verdict != "keep" && ground.site(&chunk.store).is_none()) {
        return Err(EraseError::Refused {
            what: format!("store {} cannot be reached, so absence cannot be read back there", chunk.store),
            advice: "see `wangchuan store check`; the run goes on once the store can be reached".to_owned(),
        });
    }
    let mut result = ReadBack::default();
    for site in ground.sites {
        let store = site.model.spec.name.as_str();
        let mut view = site.store.open_snapshot().await?;
        for chunk in chunks.iter().filter(|chunk| chunk.store == store && chunk.verdict != "keep") {
            let Some((_, collection)) = site.model.collection(&chunk.collection) else { continue };
            let items = open_items(&keys.plan, plan, chunk.number, &chunk.sealed)?;
            let gone: Vec<RowKey> = items
                .into_iter()
                .map(|item| item.row.key)
                .filter(|key| done.contains(&row_mac(&keys.suppression, store, &chunk.collection, key)))
                .collect();
            if gone.is_empty() {
                continue;
            }
            let stripped = chunk.verdict == "strip";
            let emptied = if stripped { stripped_columns(collection) } else { Vec::new() };
            let columns = emptied.iter().map(|column| ColumnRef::own(&column.name)).collect();
            let count = gone.len() as u64;
            let query = RowQuery {
                table: collection.table.name.clone(),
                path: Vec::new(),
                columns,
                filter: Filter::In(collection.key.clone(), gone),
                key: collection.key.clone(),
                after: None,
                limit: 1000,
            };
            if stripped {
                let rows = read_all(view.as_mut(), query).await?;
                result.stripped += count;
                let engine = site.store.engine();
                let is_blank = |row: &&Row| {
                    emptied.iter().zip(*row).all(|(column, value)| is_blank(collection, column, value, engine))
                };
                result.unstripped += (rows.len() - rows.iter().filter(is_blank).count()) as u64;
            } else {
                result.looked_for += count;
                result.present += view.count(&query).await?;
            }
        }
        view.close().await?;
    }
    Ok(result)
}
