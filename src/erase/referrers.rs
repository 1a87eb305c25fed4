//! Which rows refer to rows that are to go. The engine itself compares, by joining the child to its parent: so a number
//! kept as text, a collation, or a reference to columns that are not the key are followed as the foreign key follows them.

use std::collections::HashSet;

use super::EraseError;
use crate::plan::model::{Child, Collection};
use crate::stores::{Batch, ColumnRef, Filter, Hop, RowQuery, Snapshot};
use crate::value::{RowKey, encode_values};

/// Parents asked about at once, of which each may have many children.
pub(super) const PARENTS: usize = 1000;

/// The query for the rows of a child table that refer to one of `parents`. It returns the parent's key; `key` is the
/// child's referring columns until the caller knows a better one.
pub(super) fn referring(collection: &Collection, child: &Child, parents: &[RowKey]) -> RowQuery {
    let parent = |column: &String| ColumnRef { hop: 1, column: column.clone() };
    RowQuery {
        table: child.table.clone(),
        path: vec![Hop {
            columns: child.columns.clone(),
            parent: collection.table.name.clone(),
            parent_columns: child.parent_columns.clone(),
        }],
        columns: collection.key.iter().map(parent).collect(),
        filter: Filter::AncestorIn(1, collection.key.clone(), parents.to_vec()),
        key: child.columns.clone(),
        after: None,
        limit: 1000,
    }
}

/// How many rows of each table refer to a row, by table; those that none refers from are left out.
///
/// # Errors
/// When the store cannot be read.
pub async fn referring_tables(
    view: &mut dyn Snapshot,
    collection: &Collection,
    key: &RowKey,
) -> Result<Vec<(String, u64)>, EraseError> {
    let mut found: Vec<(String, u64)> = Vec::new();
    for child in &collection.children {
        let rows = view.count(&referring(collection, child, std::slice::from_ref(key))).await?;
        match found.iter_mut().find(|(table, _)| *table == child.table) {
            Some((_, known)) => *known = (*known).max(rows),
            None => found.push((child.table.clone(), rows)),
        }
    }
    found.retain(|(_, rows)| *rows > 0);
    Ok(found)
}

/// Of the rows that a batch is about to delete, those that must stay because a row that stays refers to them; and a
/// sentence that says so. Asked inside the batch's transaction, of every table that refers to this one.
pub(super) async fn blocked_rows(
    batch: &mut dyn Batch,
    collection: &Collection,
    doomed: &[RowKey],
) -> Result<(HashSet<Vec<u8>>, Option<String>), EraseError> {
    let mut blocked = HashSet::new();
    let mut note = None;
    for child in &collection.children {
        let found = referred_to(batch, collection, child, doomed).await?;
        if !found.is_empty() {
            note = Some(still_refer(child, collection));
        }
        blocked.extend(found);
    }
    Ok((blocked, note))
}

/// What is said of rows that are referred to.
pub(super) fn still_refer(child: &Child, collection: &Collection) -> String {
    format!("rows of {} still refer to {}", child.table, collection.table.name)
}

/// Those of these rows to which a row of a child table refers, as encoded keys. Counted, because that needs no key there.
pub(super) async fn referred_to(
    batch: &mut dyn Batch,
    collection: &Collection,
    child: &Child,
    keys: &[RowKey],
) -> Result<HashSet<Vec<u8>>, EraseError> {
    let mut found = HashSet::new();
    let mut asked: Vec<&[RowKey]> = keys.chunks(PARENTS).collect();
    while let Some(parents) = asked.pop() {
        if batch.count(&referring(collection, child, parents)).await? == 0 {
            continue;
        }
        match parents {
            [parent] => {
                found.insert(encode_values(&parent.0));
            }
            // Halves: mostly few of many are referred to.
            _ => asked.extend(<[&[RowKey]; 2]>::from(parents.split_at(parents.len() / 2))),
        }
    }
    Ok(found)
}

/// A reference between two rows: the encoded key of the row referred to, and the key of the one that refers.
pub(super) type RowReference = (Vec<u8>, RowKey);

/// The rows of a registered child collection that refer to some of these rows, locked.
pub(super) async fn references_to(
    batch: &mut dyn Batch,
    collection: &Collection,
    (child, referrer): (&Child, &Collection),
    keys: &[RowKey],
) -> Result<Vec<RowReference>, EraseError> {
    let mut references = Vec::new();
    for parents in keys.chunks(PARENTS) {
        let mut query = referring(collection, child, parents);
        query.key.clone_from(&referrer.key);
        query.columns.extend(referrer.key.iter().map(|column| ColumnRef::own(column)));
        query.limit = u32::MAX;
        let rows = batch.read_for_update(&query).await?;
        references.extend(rows.into_iter().map(|mut row| {
            let referring = row.split_off(collection.key.len());
            (encode_values(&row), RowKey(referring))
        }));
    }
    Ok(references)
}
