//! Undoes one chunk: puts its rows back as their pre-images show them, never over a living row.
//!
//! No marker tells what was done: a row that is as its image shows it is back, whoever put it there, so that a crash anywhere
//! is cured by doing the chunk again.

use std::collections::HashMap;

use super::batch::{is_blank, stripped_columns};
use super::pre_image::{ImageRow, PreImage};
use super::{EraseError, Site};
use crate::control::{ChunkRow, RunRow};
use crate::plan::model::Collection;
use crate::stores::{Batch, BatchMarker, ColumnRef, Filter, RowQuery};
use crate::value::{RowKey, Value, encode_values};

/// What became of the rows of a chunk.
#[derive(Debug, Default)]
pub struct PutBack {
    /// Keys of rows that are as they were.
    pub restored: Vec<RowKey>,
    /// Rows left alone: another row with their key lives now, or the stripped row was changed or removed since.
    pub superseded: u64,
    /// Rows that the store refused, for example because their parent is gone.
    pub refused: u64,
    /// Why the last one was refused, without values.
    pub why: Option<String>,
}

/// Where rows are put back.
pub struct Place<'a> {
    /// The store.
    pub site: &'a Site,
    /// The collection.
    pub collection: &'a Collection,
    /// The run that is undone.
    pub run: &'a RunRow,
    /// The chunk that is undone.
    pub chunk: &'a ChunkRow,
    /// The fencing token.
    pub token: i64,
}

/// Puts rows back: all at once, or where the store refuses that, one by one until none goes in any more (a parent may
/// stand behind its child).
///
/// # Errors
/// When the store fails, or the collection has lost a column that the image has; nothing else was changed then.
pub async fn put_back(place: &Place<'_>, image: &PreImage) -> Result<PutBack, EraseError> {
    let known = |name: &String| place.collection.table.columns.iter().any(|column| column.name == *name);
    if let Some(lost) = image.columns.iter().find(|name| !known(name)) {
        return Err(EraseError::Refused {
            what: format!("{}.{} has no column {lost} any more", place.chunk.store, place.chunk.collection),
            advice: "add the column again, then undo".to_owned(),
        });
    }
    let all: Vec<&ImageRow> = image.rows.iter().collect();
    let mut number = -1 - place.chunk.number;
    match place.attempt(number, &image.columns, &all).await {
        Err(error) if !error.is_retryable() && !all.is_empty() => {}
        outcome => return outcome,
    }
    let mut done = PutBack::default();
    let mut waiting = all;
    loop {
        let mut left = Vec::new();
        for row in &waiting {
            number -= 1 << 20;
            match place.attempt(number, &image.columns, &[row]).await {
                Ok(one) => {
                    done.restored.extend(one.restored);
                    done.superseded += one.superseded;
                }
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => {
                    done.why = Some(error.to_string());
                    left.push(*row);
                }
            }
        }
        if left.is_empty() || left.len() == waiting.len() {
            done.refused = left.len() as u64;
            done.why = done.why.filter(|_| done.refused > 0);
            return Ok(done);
        }
        waiting = left;
    }
}

impl Place<'_> {
    /// One transaction over these rows, for all of them or none.
    async fn attempt(&self, number: i64, columns: &[String], rows: &[&ImageRow]) -> Result<PutBack, EraseError> {
        let mut batch = self.site.store.begin_batch().await?;
        // Rows that refer to each other may go back in any order, where the database allows that.
        batch.put_off_checks().await?;
        match self.change(batch.as_mut(), columns, rows).await {
            Ok((done, 0)) => {
                batch.roll_back().await?;
                Ok(done)
            }
            Ok((done, changed)) => {
                let run = self.run.id.clone();
                batch.commit(&BatchMarker { run, chunk: number, token: self.token, erased: 0, changed }).await?;
                Ok(done)
            }
            Err(error) => {
                batch.roll_back().await?;
                Err(error)
            }
        }
    }

    async fn change(
        &self,
        batch: &mut dyn Batch,
        columns: &[String],
        rows: &[&ImageRow],
    ) -> Result<(PutBack, i64), EraseError> {
        let living = self.living(batch, columns, rows).await?;
        let table = &self.collection.table.name;
        let (mut done, mut changed) = (PutBack::default(), 0);
        for row in rows {
            match living.get(&encode_values(&row.key.0)) {
                Some(values) if *values == row.values => done.restored.push(row.key.clone()),
                Some(values) if self.chunk.verdict == "strip" && self.is_as_stripped(columns, row, values) => {
                    let one = Filter::In(self.collection.key.clone(), vec![row.key.clone()]);
                    if batch.update(table, &self.emptied(columns, row), &one).await? != 1 {
                        return Err(EraseError::Inconsistent(format!(
                            "{table}: a stripped row could not be filled again"
                        )));
                    }
                    changed += 1;
                    done.restored.push(row.key.clone());
                }
                None if self.chunk.verdict != "strip" => {
                    batch.insert(table, columns, &row.values).await?;
                    changed += 1;
                    done.restored.push(row.key.clone());
                }
                _ => done.superseded += 1,
            }
        }
        Ok((done, changed))
    }

    /// The rows that live under these keys now, locked: encoded key to values.
    async fn living(
        &self,
        batch: &mut dyn Batch,
        columns: &[String],
        rows: &[&ImageRow],
    ) -> Result<HashMap<Vec<u8>, Vec<Value>>, EraseError> {
        let key = &self.collection.key;
        let query = RowQuery {
            table: self.collection.table.name.clone(),
            path: Vec::new(),
            columns: key.iter().chain(columns).map(|name| ColumnRef::own(name)).collect(),
            filter: Filter::In(key.clone(), rows.iter().map(|row| row.key.clone()).collect()),
            key: key.clone(),
            after: None,
            limit: u32::MAX,
        };
        let mut living = HashMap::new();
        for mut row in batch.read_for_update(&query).await? {
            let values = row.split_off(key.len());
            living.insert(encode_values(&row), values);
        }
        Ok(living)
    }

    /// Whether a row is what the strip left: blank where it was emptied, and otherwise as it was.
    fn is_as_stripped(&self, columns: &[String], row: &ImageRow, living: &[Value]) -> bool {
        let emptied = stripped_columns(self.collection);
        let engine = self.site.store.engine();
        columns.iter().zip(living).zip(&row.values).all(|((name, now), before)| {
            match emptied.iter().find(|column| column.name == *name) {
                Some(column) => is_blank(self.collection, column, now, engine),
                None => now == before,
            }
        })
    }

    /// The values that a strip took.
    fn emptied(&self, columns: &[String], row: &ImageRow) -> Vec<(String, Value)> {
        let emptied = stripped_columns(self.collection);
        let pairs = columns.iter().zip(&row.values);
        let taken = pairs.filter(|(name, _)| emptied.iter().any(|column| column.name == **name));
        taken.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
