//! Reads absence back: by a query that did not do the deleting, in a read-only session of its own.
//!
//! A key may be given out again: a row counts as there again only if it is still the planned row (same subject, same start
//! event), still meets the predicate it was deleted by, or hangs in the air because its parent went without it.

use std::collections::{HashMap, HashSet};

use super::anonymise::rows_as_left;
use super::batch::{RunKeys, is_blank, stripped_columns};
use super::chunk::{ChunkItem, open_items, place_of};
use super::planner::subject_lookup;
use super::survey::{Shape, Surveyor, Target};
use super::{EraseError, Ground};
use crate::control::{ChunkRow, LedgerKind, Left, RunRow};
use crate::plan::digest::row_mac;
use crate::plan::model::Collection;
use crate::plan::{PlanBody, Subject};
use crate::stores::{ColumnRef, Engine, Filter, Snapshot};
use crate::value::{RowKey, encode_values};

/// What was looked at and found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadBack {
    /// Rows looked for that must be absent.
    pub looked_for: u64,
    /// Stripped rows looked at.
    pub stripped: u64,
    /// Anonymised rows looked at.
    pub anonymised: u64,
    /// For each of them, by its digest, the digest of the subject that it leads to now; empty for none.
    pub lookups: Vec<([u8; 16], Vec<u8>)>,
    /// Rows that are there all the same, or hold content that should be gone.
    pub residues: Vec<Residue>,
}

/// The rows of a chunk that are not as the ledger says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residue {
    /// The chunk's number.
    pub chunk: i64,
    /// What it was to do.
    pub kind: LedgerKind,
    /// Keyed digests of the rows.
    pub rows: Vec<[u8; 16]>,
}

impl ReadBack {
    /// Rows that are not as claimed.
    #[must_use]
    pub fn residual(&self) -> u64 {
        self.residues.iter().map(|residue| residue.rows.len() as u64).sum()
    }
}

/// Looks again for every row that the run's ledger calls gone or stripped.
///
/// # Errors
/// When a store or collection of the run cannot be reached or read; then nothing was shown.
pub async fn read_back(
    ground: &Ground<'_>,
    run: &RunRow,
    keys: &RunKeys,
    target: &Target,
) -> Result<ReadBack, EraseError> {
    let mut tx = ground.control.read().await?;
    let plan = run.plan.as_deref().unwrap_or_default();
    let chunks = tx.chunks(plan).await?;
    let body = tx.plan(plan).await?.and_then(|row| serde_json::from_str::<PlanBody>(&row.body).ok());
    let body = body.ok_or_else(|| EraseError::Inconsistent("the run's plan is gone or damaged".to_owned()))?;
    let done = tx.done_by_chunk(&run.id).await?;
    let left = tx.left_by_run(&run.id).await?;
    drop(tx);
    let chunks: Vec<&ChunkRow> = chunks.iter().filter(|chunk| chunk.is_work()).collect();
    for chunk in &chunks {
        place_of(ground, chunk)?;
    }
    let mut result = ReadBack::default();
    for site in ground.sites {
        let store = site.model.spec.name.as_str();
        let chunks: Vec<&&ChunkRow> = chunks.iter().filter(|chunk| chunk.store == store).collect();
        if chunks.is_empty() {
            continue;
        }
        let nobody = |_: Option<&Subject>, _: &str| None;
        let engine = site.store.engine();
        let surveyor = Surveyor { model: &site.model, engine, cutoff: body.cutoff, held_by: &nobody };
        let mut view = site.store.open_snapshot().await?;
        for chunk in chunks {
            let (_, collection) = place_of(ground, chunk)?;
            let mac = |key: &RowKey| row_mac(&keys.suppression, store, &chunk.collection, key);
            let Some(done) = done.get(&chunk.number) else { continue };
            let mut items = open_items(&keys.plan, plan, chunk.number, &chunk.sealed)?;
            if *done != items.len() as i64 {
                let done = ground.control.read().await?.done_in_chunk(&run.id, chunk.number).await?;
                items.retain(|item| done.contains(&mac(&item.row.key)));
            }
            let kind = LedgerKind::of_verdict(&chunk.verdict);
            let found = match kind {
                _ if items.is_empty() => Vec::new(),
                LedgerKind::Stripped => {
                    result.stripped += items.len() as u64;
                    unstripped(view.as_mut(), collection, &items, engine).await?
                }
                LedgerKind::Anonymised => {
                    result.anonymised += items.len() as u64;
                    let items = items.iter().map(|item| (item, mac(&item.row.key))).collect::<Vec<_>>();
                    let (found, lookups) = recognisable(view.as_mut(), collection, &items, &left, keys).await?;
                    result.lookups.extend(lookups);
                    found
                }
                LedgerKind::Erased => {
                    result.looked_for += items.len() as u64;
                    present(view.as_mut(), collection, &items, surveyor.filter(collection, target)?).await?
                }
            };
            if !found.is_empty() {
                let rows = found.iter().map(mac).collect();
                result.residues.push(Residue { chunk: chunk.number, kind, rows });
            }
        }
        view.close().await?;
    }
    Ok(result)
}

fn keys_of(items: &[ChunkItem]) -> Vec<RowKey> {
    items.iter().map(|item| item.row.key.clone()).collect()
}

/// Erased rows that are there.
async fn present(
    view: &mut dyn Snapshot,
    collection: &Collection,
    items: &[ChunkItem],
    predicate: Option<Filter>,
) -> Result<Vec<RowKey>, EraseError> {
    let shape = Shape::of(collection);
    let by_key = Filter::In(collection.key.clone(), keys_of(items));
    let mut query = shape.query(collection, by_key.clone());
    query.limit = items.len() as u32 + 1;
    let rows = view.read(&query).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut due = HashSet::new();
    if let Some(predicate) = predicate {
        query.filter = Filter::And(vec![by_key, predicate]);
        due.extend(view.read(&query).await?.into_iter().map(|row| encode_values(&shape.read(row).key.0)));
    }
    let planned: HashMap<Vec<u8>, &ChunkItem> =
        items.iter().map(|item| (encode_values(&item.row.key.0), item)).collect();
    let hangs_on_parents = !shape.path().is_empty();
    let mut found = Vec::new();
    for row in rows {
        let row = shape.read(row);
        let id = encode_values(&row.key.0);
        let Some(item) = planned.get(&id) else { continue };
        let is_planned = row.subject == item.row.subject && row.start == item.row.start;
        if is_planned || due.contains(&id) || hangs_on_parents && row.subject.is_none() {
            found.push(row.key);
        }
    }
    Ok(found)
}

/// A row, by its digest, and the digest of the subject that it leads to.
type Leading = ([u8; 16], Vec<u8>);

/// Anonymised rows that still lead to the subject that they were planned with, or are not what their anonymisation left; and where
/// every one of them leads now.
async fn recognisable(
    view: &mut dyn Snapshot,
    collection: &Collection,
    items: &[(&ChunkItem, [u8; 16])],
    left: &HashMap<[u8; 16], Left>,
    keys: &RunKeys,
) -> Result<(Vec<RowKey>, Vec<Leading>), EraseError> {
    let known = items.iter().filter_map(|(item, mac)| Some((item.row.key.clone(), left.get(mac)?)));
    let as_left = rows_as_left(view, collection, &known.collect::<Vec<_>>(), &keys.certificate, None).await?;
    let planned: HashMap<Vec<u8>, &(&ChunkItem, [u8; 16])> =
        items.iter().map(|entry| (encode_values(&entry.0.row.key.0), entry)).collect();
    let shape = Shape::of(collection);
    let all = items.iter().map(|(item, _)| item.row.key.clone()).collect();
    let mut query = shape.query(collection, Filter::In(collection.key.clone(), all));
    query.limit = items.len() as u32 + 1;
    let (mut found, mut lookups) = (Vec::new(), Vec::new());
    for row in view.read(&query).await? {
        let row = shape.read(row);
        let id = encode_values(&row.key.0);
        let Some((item, mac)) = planned.get(&id) else { continue };
        let lookup = row.subject.as_ref().map(|subject| subject_lookup(&keys.lookup, subject).to_vec());
        lookups.push((*mac, lookup.unwrap_or_default()));
        if !as_left.contains(&id) || row.subject.is_some() && row.subject == item.row.subject {
            found.push(row.key);
        }
    }
    Ok((found, lookups))
}

/// Stripped rows that hold content all the same.
async fn unstripped(
    view: &mut dyn Snapshot,
    collection: &Collection,
    items: &[ChunkItem],
    engine: Engine,
) -> Result<Vec<RowKey>, EraseError> {
    let shape = Shape::of(collection);
    let emptied = stripped_columns(collection);
    let mut query = shape.query(collection, Filter::In(collection.key.clone(), keys_of(items)));
    query.limit = items.len() as u32 + 1;
    query.columns.extend(emptied.iter().map(|column| ColumnRef::own(&column.name)));
    let mut found = Vec::new();
    for mut row in view.read(&query).await? {
        let values = row.split_off(shape.width());
        let row = shape.read(row);
        let item = items.iter().find(|item| item.row.key == row.key);
        let is_blank = emptied.iter().zip(&values).all(|(column, value)| is_blank(collection, column, value, engine));
        if !is_blank && item.is_some_and(|item| item.row.subject == row.subject) {
            found.push(row.key);
        }
    }
    Ok(found)
}
