//! Rows that a retention plan would strip and that are stripped already.
//!
//! A stripped row keeps its start event, so it is due for as long as a child needs it. Stripping it again every day would
//! write to the store, and issue a certificate, for nothing.

use std::collections::{HashMap, HashSet};

use super::batch::{is_blank, stripped_columns};
use super::survey::Shape;
use super::{EraseError, Site};
use crate::plan::model::Collection;
use crate::plan::{Decision, Verdict};
use crate::stores::{ColumnRef, Engine, Filter, Snapshot};
use crate::value::{RowKey, encode_values};

/// Keys asked for at once.
const KEYS: usize = 500;

/// Turns the verdict of rows to be stripped that hold nothing any more into one to keep them, for the same reason.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn keep_stripped(
    view: &mut dyn Snapshot,
    site: &Site,
    decisions: &mut [Decision],
) -> Result<(), EraseError> {
    let mut by_collection: HashMap<usize, Vec<RowKey>> = HashMap::new();
    for decision in decisions.iter().filter(|decision| matches!(decision.verdict, Verdict::Strip(_))) {
        by_collection.entry(decision.collection).or_default().push(decision.row.key.clone());
    }
    let mut blank: HashSet<(usize, Vec<u8>)> = HashSet::new();
    for (index, keys) in by_collection {
        let Some(collection) = site.model.collections.get(index) else { continue };
        for keys in keys.chunks(KEYS) {
            let found = blank_rows(view, collection, keys, site.store.engine()).await?;
            blank.extend(found.into_iter().map(|key| (index, key)));
        }
    }
    for decision in decisions {
        if let Verdict::Strip(reason) = &decision.verdict
            && blank.contains(&(decision.collection, encode_values(&decision.row.key.0)))
        {
            decision.verdict = Verdict::Keep(reason.clone());
        }
    }
    Ok(())
}

/// Which of these rows, by collection, hold something again that a strip had taken.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn filled_again(
    view: &mut dyn Snapshot,
    site: &Site,
    rows: HashMap<usize, Vec<RowKey>>,
) -> Result<HashSet<(usize, Vec<u8>)>, EraseError> {
    let mut filled = HashSet::new();
    for (index, keys) in rows {
        let Some(collection) = site.model.collections.get(index) else { continue };
        for keys in keys.chunks(KEYS) {
            let blank = blank_rows(view, collection, keys, site.store.engine()).await?;
            let encoded = keys.iter().map(|key| encode_values(&key.0));
            filled.extend(encoded.filter(|key| !blank.contains(key)).map(|key| (index, key)));
        }
    }
    Ok(filled)
}

/// The encoded keys of those rows in which every column that a strip empties is empty.
async fn blank_rows(
    view: &mut dyn Snapshot,
    collection: &Collection,
    keys: &[RowKey],
    engine: Engine,
) -> Result<Vec<Vec<u8>>, EraseError> {
    let shape = Shape::of(collection);
    let emptied = stripped_columns(collection);
    let mut query = shape.query(collection, Filter::In(collection.key.clone(), keys.to_vec()));
    query.limit = keys.len() as u32 + 1;
    query.columns.extend(emptied.iter().map(|column| ColumnRef::own(&column.name)));
    let mut blank = Vec::new();
    for mut row in view.read(&query).await? {
        let values = row.split_off(shape.width());
        if emptied.iter().zip(&values).all(|(column, value)| is_blank(collection, column, value, engine)) {
            blank.push(encode_values(&shape.read(row).key.0));
        }
    }
    Ok(blank)
}
