//! Which rows refer to rows that are to go. The engine itself compares, by joining the child to its parent: so a number
//! kept as text, a collation, or a reference to columns that are not the key are followed as the foreign key follows them.

use std::collections::{HashMap, HashSet};

use super::EraseError;
use crate::plan::model::{Child, Collection};
use crate::stores::{Batch, ColumnRef, Filter, Hop, RowQuery, Snapshot};
use crate::value::{RowKey, encode_values};

/// Parents asked about at once: their keys are terms of one condition, whose depth engines limit.
pub(super) const PARENTS: usize = 200;

/// The query for the rows of a child table that refer to one of `parents`. It returns the parent's key; `key` is the
/// child's referring columns until the caller knows a better one.
pub(super) fn referring(collection: &Collection, child: &Child, parents: &[RowKey]) -> RowQuery {
    let parent = |column: &String| ColumnRef { hop: 1, column: column.clone() };
    let is_one = |key: &RowKey| {
        let parts = collection.key.iter().zip(&key.0);
        Filter::And(parts.map(|(column, value)| Filter::Equals(parent(column), value.clone())).collect())
    };
    RowQuery {
        table: child.table.clone(),
        path: vec![Hop {
            columns: child.columns.clone(),
            parent: collection.table.name.clone(),
            parent_columns: child.parent_columns.clone(),
        }],
        columns: collection.key.iter().map(parent).collect(),
        filter: Filter::Or(parents.iter().map(is_one).collect()),
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
    let mut own = Vec::new();
    let mut note = None;
    let mut says =
        |child: &Child| note = Some(format!("rows of {} still refer to {}", child.table, collection.table.name));
    for child in &collection.children {
        for parents in doomed.chunks(PARENTS) {
            if child.table == collection.table.name {
                own.extend(own_references(batch, collection, child, parents).await?);
            } else if batch.count(&referring(collection, child, parents)).await? > 0 {
                says(child);
                for parent in parents {
                    if batch.count(&referring(collection, child, std::slice::from_ref(parent))).await? > 0 {
                        blocked.insert(encode_values(&parent.0));
                    }
                }
            }
        }
    }
    let doomed: HashSet<Vec<u8>> = doomed.iter().map(|key| encode_values(&key.0)).collect();
    if block_by_own_rows(&own, &doomed, &mut blocked) {
        note = note.or_else(|| Some(format!("rows of {0} still refer to {0}", collection.table.name)));
    }
    Ok((blocked, note))
}

/// A reference within one table: encoded keys of the row referred to and of the referring row.
type OwnReference = (Vec<u8>, Vec<u8>);

async fn own_references(
    batch: &mut dyn Batch,
    collection: &Collection,
    child: &Child,
    parents: &[RowKey],
) -> Result<Vec<OwnReference>, EraseError> {
    let mut query = referring(collection, child, parents);
    query.key.clone_from(&collection.key);
    query.columns.extend(collection.key.iter().map(|column| ColumnRef::own(column)));
    query.limit = u32::MAX;
    let rows = batch.read_for_update(&query).await?;
    let references = rows.into_iter().map(|mut row| {
        let referring = row.split_off(collection.key.len());
        (encode_values(&row), encode_values(&referring))
    });
    Ok(references.collect())
}

/// Rows deleted together do not hold each other; a row that stays holds the one it refers to, which then stays too.
/// Returns whether that added any.
fn block_by_own_rows(references: &[OwnReference], doomed: &HashSet<Vec<u8>>, blocked: &mut HashSet<Vec<u8>>) -> bool {
    let mut parents: HashMap<&Vec<u8>, Vec<&Vec<u8>>> = HashMap::new();
    for (parent, child) in references.iter().filter(|(parent, child)| parent != child) {
        parents.entry(child).or_default().push(parent);
    }
    let before = blocked.len();
    let mut staying: Vec<Vec<u8>> = blocked.iter().cloned().collect();
    staying.extend(parents.keys().filter(|child| !doomed.contains(**child)).map(|child| (*child).clone()));
    while let Some(child) = staying.pop() {
        for parent in parents.get(&child).into_iter().flatten() {
            if blocked.insert((*parent).clone()) {
                staying.push((*parent).clone());
            }
        }
    }
    blocked.len() > before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> Vec<u8> {
        vec![number]
    }

    #[test]
    fn a_staying_reply_holds_the_whole_thread_above_it() {
        // 1 <- 2 <- 3 <- 9 (not in the batch); 4 refers to itself; 5 <-> 6 go together.
        let references =
            [(id(1), id(2)), (id(2), id(3)), (id(3), id(9)), (id(4), id(4)), (id(5), id(6)), (id(6), id(5))];
        let doomed: HashSet<Vec<u8>> = (1..=6).map(id).collect();
        let mut blocked = HashSet::new();
        assert!(block_by_own_rows(&references, &doomed, &mut blocked));
        assert_eq!(blocked, HashSet::from([id(1), id(2), id(3)]));
        let mut blocked = HashSet::from([id(6)]);
        assert!(block_by_own_rows(&references[4..], &doomed, &mut blocked));
        assert_eq!(blocked, HashSet::from([id(5), id(6)]));
        assert!(!block_by_own_rows(&[], &doomed, &mut blocked));
    }
}
