//! Undoes one chunk, or the chunks of a knot together: puts rows back as their pre-images show them, never over a living row.
//!
//! No marker tells what was done: a row that is as its image shows it is back, whoever put it there, so that a crash anywhere
//! is cured by doing the chunk again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::anonymise::is_as_left;
use super::batch::{is_blank, stripped_columns};
use super::pre_image::{ImageRow, PreImage};
use super::{EraseError, Site};
use crate::control::{ChunkRow, LedgerKind, Left, RunRow};
use crate::keys::Key;
use crate::plan::graph::{Link, Untie, leaving};
use crate::plan::model::Collection;
use crate::stores::{Batch, BatchMarker, ColumnRef, Filter, RowQuery};
use crate::value::{RowKey, Value, encode_values};

/// What became of the rows of a chunk.
#[derive(Debug, Default)]
pub struct PutBack {
    /// Keys of rows that are as they were.
    pub restored: Vec<RowKey>,
    /// Rows left alone: another row with their key lives now, or the stripped or anonymised row was changed or removed since.
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
    /// The key of content digests.
    pub certificate: &'a Key,
    /// What anonymised rows were left with, by encoded key.
    pub left: HashMap<Vec<u8>, Left>,
}

/// Puts rows back: all at once, or where the store refuses that, one by one until none goes in any more (a parent may
/// stand behind its child).
///
/// # Errors
/// When the store fails, or the collection has lost a column that the image has; nothing else was changed then.
pub async fn put_back(place: &Place<'_>, image: &PreImage) -> Result<PutBack, EraseError> {
    place.check_columns(image)?;
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
            number -= 1 << 40;
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

/// Puts the rows of a knot back as they went: in one transaction, what others refer to first; where they form a circle, its checks
/// are put off, or references that may be NULL are filled when all rows are there. None when the store refuses that: then nothing
/// was changed, and [`put_back`] brings back what it can.
///
/// # Errors
/// As [`put_back`].
pub async fn put_back_together(parts: &[(&Place<'_>, &PreImage)]) -> Result<Option<Vec<PutBack>>, EraseError> {
    let Some((first, _)) = parts.first() else { return Ok(Some(Vec::new())) };
    for (place, image) in parts {
        place.check_columns(image)?;
    }
    let mut batch = first.site.store.begin_batch().await?;
    batch.put_off_checks().await?;
    let outcome = match return_all(batch.as_mut(), parts).await {
        Ok((done, 0)) => batch.roll_back().await.map(|()| done).map_err(EraseError::from),
        Ok((done, changed)) => {
            let (run, chunk) = (first.run.id.clone(), -1 - first.chunk.number);
            let marker = BatchMarker { run, chunk, token: first.token, erased: 0, changed };
            batch.commit(&marker).await.map(|()| done).map_err(EraseError::from)
        }
        Err(error) => {
            batch.roll_back().await?;
            Err(error)
        }
    };
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.is_retryable() => Err(error),
        Err(_) => Ok(None),
    }
}

/// A row that comes back, and the number of its part.
struct Returning<'i> {
    part: usize,
    row: &'i ImageRow,
}

async fn return_all(
    batch: &mut dyn Batch,
    parts: &[(&Place<'_>, &PreImage)],
) -> Result<(Vec<PutBack>, i64), EraseError> {
    let (mut done, mut rows) = (Vec::new(), Vec::new());
    for (part, (place, image)) in parts.iter().enumerate() {
        let all: Vec<&ImageRow> = image.rows.iter().collect();
        let living = place.living(batch, &image.columns, &all).await?;
        let mut one = PutBack::default();
        for row in all {
            match living.get(&encode_values(&row.key.0)) {
                Some(values) if *values != row.values => one.superseded += 1,
                Some(_) => one.restored.push(row.key.clone()),
                None => {
                    one.restored.push(row.key.clone());
                    rows.push(Returning { part, row });
                }
            }
        }
        done.push(one);
    }
    let (links, emptied) = ties(parts, &rows);
    for at in leaving(rows.len(), &links).steps.into_iter().rev().flatten() {
        let Some((returning, (place, image))) = rows.get(at).and_then(|row| Some((row, parts.get(row.part)?))) else {
            continue;
        };
        let mut values = returning.row.values.clone();
        for (name, value) in image.columns.iter().zip(&mut values) {
            if emptied.get(&at).is_some_and(|columns| columns.contains(name)) {
                *value = Value::Null;
            }
        }
        batch.insert(&place.collection.table.name, &image.columns, &values).await?;
    }
    for (at, columns) in &emptied {
        let Some((returning, (place, image))) = rows.get(*at).and_then(|row| Some((row, parts.get(row.part)?))) else {
            continue;
        };
        let pairs = image.columns.iter().zip(&returning.row.values).filter(|(name, _)| columns.contains(name));
        let set: Vec<(String, Value)> = pairs.map(|(name, value)| (name.clone(), value.clone())).collect();
        let one = Filter::In(place.collection.key.clone(), vec![returning.row.key.clone()]);
        let table = &place.collection.table.name;
        if batch.update(table, &set, &one).await? != 1 {
            return Err(EraseError::Inconsistent(format!("{table}: a reference could not be filled again")));
        }
    }
    Ok((done, rows.len() as i64))
}

/// What ties rows to each other that come back together: references that bind at once, and by row the columns that can be
/// filled afterwards.
fn ties<'m>(
    parts: &[(&Place<'m>, &PreImage)],
    rows: &[Returning<'_>],
) -> (Vec<Link>, BTreeMap<usize, BTreeSet<&'m String>>) {
    let rows_of = |table: &str| {
        let of = |(_, returning): &(usize, &Returning<'_>)| {
            parts.get(returning.part).is_some_and(|(place, _)| place.collection.table.name == table)
        };
        rows.iter().enumerate().filter(of).collect::<Vec<_>>()
    };
    let values_of = |returning: &Returning<'_>, columns: &[String]| {
        let (_, image) = parts.get(returning.part)?;
        let value = |name: &String| {
            let at = image.columns.iter().position(|column| column == name)?;
            returning.row.values.get(at).filter(|value| **value != Value::Null).cloned()
        };
        Some(encode_values(&columns.iter().map(value).collect::<Option<Vec<Value>>>()?))
    };
    let (mut links, mut emptied) = (Vec::new(), BTreeMap::<usize, BTreeSet<&String>>::new());
    let parents: BTreeMap<&String, &'m Collection> =
        parts.iter().map(|(place, _)| (&place.collection.table.name, place.collection)).collect();
    for (table, parent) in parents {
        let above = rows_of(table);
        for child in &parent.children {
            let keys = above.iter().filter_map(|(at, row)| Some((values_of(row, &child.parent_columns)?, *at)));
            let keys: HashMap<Vec<u8>, usize> = keys.collect();
            for (at, row) in rows_of(&child.table) {
                let Some(to) = values_of(row, &child.columns) else { continue };
                match (child.untie, keys.get(&to)) {
                    (Untie::Empty, _) => emptied.entry(at).or_default().extend(&child.emptiable),
                    (untie @ Untie::Firm, Some(parent)) => links.push(Link { parent: *parent, child: at, untie }),
                    _ => {}
                }
            }
        }
    }
    (links, emptied)
}

impl Place<'_> {
    fn check_columns(&self, image: &PreImage) -> Result<(), EraseError> {
        let known = |name: &String| self.collection.table.columns.iter().any(|column| column.name == *name);
        match image.columns.iter().find(|name| !known(name)) {
            None => Ok(()),
            Some(lost) => Err(EraseError::Refused {
                what: format!("{}.{} has no column {lost} any more", self.chunk.store, self.chunk.collection),
                advice: "add the column again, then undo".to_owned(),
            }),
        }
    }

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
        let kind = LedgerKind::of_verdict(&self.chunk.verdict);
        for row in rows {
            match living.get(&encode_values(&row.key.0)) {
                Some(values) if *values == row.values => done.restored.push(row.key.clone()),
                Some(values) if self.is_as_changed(kind, columns, row, values) => {
                    let one = Filter::In(self.collection.key.clone(), vec![row.key.clone()]);
                    if batch.update(table, &self.taken(kind, columns, row), &one).await? != 1 {
                        return Err(EraseError::Inconsistent(format!(
                            "{table}: a row that was emptied could not be filled again"
                        )));
                    }
                    changed += 1;
                    done.restored.push(row.key.clone());
                }
                None if kind == LedgerKind::Erased => {
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

    /// Whether a row is what the strip or the anonymisation left of it.
    fn is_as_changed(&self, kind: LedgerKind, columns: &[String], row: &ImageRow, living: &[Value]) -> bool {
        match kind {
            LedgerKind::Erased => false,
            LedgerKind::Stripped => self.is_as_stripped(columns, row, living),
            LedgerKind::Anonymised => self.is_as_anonymised(columns, row, living),
        }
    }

    /// Changed columns as the ledger says. Only those are put back, so it does not matter what became of the others: a time of the
    /// last change, for one, moves by itself.
    fn is_as_anonymised(&self, columns: &[String], row: &ImageRow, living: &[Value]) -> bool {
        let Some(left) = self.left.get(&encode_values(&row.key.0)) else { return false };
        let now = |name: &str| living.get(columns.iter().position(|column| column == name)?);
        is_as_left(self.certificate, left, now)
    }

    /// Blank where it was emptied, and otherwise as it was.
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

    /// The values that were taken from a row.
    fn taken(&self, kind: LedgerKind, columns: &[String], row: &ImageRow) -> Vec<(String, Value)> {
        let emptied = stripped_columns(self.collection);
        let changed = self.left.get(&encode_values(&row.key.0)).map(|left| left.columns.as_slice()).unwrap_or_default();
        let is_taken = |name: &String| match kind {
            LedgerKind::Anonymised => changed.contains(name),
            _ => emptied.iter().any(|column| column.name == *name),
        };
        let taken = columns.iter().zip(&row.values).filter(|(name, _)| is_taken(name));
        taken.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
