//! Groups of anonymised rows with the same values in the columns that could tell people apart (k-anonymity): how large each is,
//! and which rows would stand in one that is too small.
//!
//! Only anonymised rows count: those that are as an earlier run left them, and those that are about to be. The former are found by
//! the ledger, so the whole collection is read, where such columns are declared.

use std::collections::{HashMap, HashSet};

use super::anonymise::{Telling, is_as_left, is_far_enough, settled_value};
use super::batch::RunKeys;
use super::chunk::open_items;
use super::survey::{Shape, read_all};
use super::{EraseError, Ground, Site};
use crate::control::{ChunkRow, LedgerKind, Left, RunRow};
use crate::plan::anonymise::{Anonymise, How};
use crate::plan::decide::{Candidate, End, Reference, decide};
use crate::plan::digest::row_mac;
use crate::plan::model::Collection;
use crate::plan::{Decision, Reason, Verdict};
use crate::policy::anonymise::SmallGroups;
use crate::stores::{ColumnRef, Engine, Filter, Snapshot};
use crate::value::{RowKey, Value, encode_values};

/// What rows of a group have in common.
type Alike = Vec<u8>;

/// The anonymised rows of a collection, and those that are about to be.
struct Crowds {
    /// How many rows are anonymised already, by what they have in common.
    settled: HashMap<Alike, u64>,
    /// What each of the others will have in common with them; none when that cannot be told.
    coming: HashMap<Vec<u8>, Option<Alike>>,
}

impl Crowds {
    /// Of these rows, by encoded key, those that would stand in a group of fewer than `k`.
    fn too_few<'r>(&self, rows: &[&'r Vec<u8>], k: u64) -> Vec<&'r Vec<u8>> {
        let mut sizes = self.settled.clone();
        for alike in rows.iter().filter_map(|row| self.coming.get(*row)?.as_ref()) {
            *sizes.entry(alike.clone()).or_default() += 1;
        }
        let is_lost = |row: &&&Vec<u8>| {
            let alike = self.coming.get(**row).and_then(Option::as_ref);
            alike.is_none_or(|alike| sizes.get(alike).is_none_or(|size| *size < k))
        };
        rows.iter().filter(is_lost).copied().collect()
    }
}

/// What the ledger knows of the rows of a store.
pub(super) type LeftRows = HashMap<[u8; 16], Left>;

/// Reads the groups of a collection; `coming` are the encoded keys of the rows that are about to be anonymised.
async fn crowds_of(
    view: &mut dyn Snapshot,
    (site, collection, changes): (&Site, &Collection, &Anonymise),
    coming: &HashSet<Vec<u8>>,
    (known, keys): (&LeftRows, Telling<'_>),
) -> Result<Crowds, EraseError> {
    let shape = Shape::of(collection);
    let columns: Vec<&str> = collection.table.columns.iter().map(|column| column.name.as_str()).collect();
    let mut query = shape.query(collection, Filter::All);
    query.columns.extend(columns.iter().map(|column| ColumnRef::own(column)));
    let mut crowds = Crowds { settled: HashMap::new(), coming: HashMap::new() };
    let (store, table, engine) = (&site.model.spec.name, &collection.table.name, site.store.engine());
    for mut row in read_all(view, query).await? {
        let values = row.split_off(shape.width());
        let key = shape.read(row).key;
        let id = encode_values(&key.0);
        let value = |name: &str| values.get(columns.iter().position(|column| *column == name)?);
        if coming.contains(&id) {
            crowds.coming.insert(id, alike(changes, engine, true, value));
        } else if known.get(&row_mac(keys.suppression, store, table, &key)).is_some_and(|left| {
            is_far_enough(changes, engine, left, value) && is_as_left(keys.certificate, left, value)
        }) && let Some(alike) = alike(changes, engine, false, value)
        {
            *crowds.settled.entry(alike).or_default() += 1;
        }
    }
    Ok(crowds)
}

/// What a row has in common with others of its group; `comes`: it is still to be anonymised.
fn alike<'v>(
    changes: &Anonymise,
    engine: Engine,
    comes: bool,
    value: impl Fn(&str) -> Option<&'v Value>,
) -> Option<Alike> {
    let one = |name: &String| {
        let old = value(name)?;
        match changes.change(name) {
            // A mask of a mask is another one; everything else is the same again, whatever form the engine prints it in.
            Some(change) if comes || !matches!(change.how, How::Mask(_)) => settled_value(change, old, engine).ok(),
            _ => Some(old.clone()),
        }
    };
    Some(encode_values(&changes.quasi.iter().map(one).collect::<Option<Vec<Value>>>()?))
}

/// The collections of a site in which groups count, with what is changed there.
fn with_groups(site: &Site) -> impl Iterator<Item = (usize, &Collection, &Anonymise)> {
    let collections = site.model.collections.iter().enumerate();
    collections.filter_map(|(index, collection)| {
        let changes = collection.anonymise.as_ref().filter(|changes| !changes.quasi.is_empty())?;
        Some((index, collection, changes))
    })
}

/// Decides as [`decide`] does; rows that would stand in too small a group stay, or go, as their policy says, with those that
/// follow them.
pub(super) async fn decide_in_crowds(
    view: &mut dyn Snapshot,
    site: &Site,
    mut candidates: Vec<Candidate>,
    references: &[Reference],
    (known, keys): (&LeftRows, Telling<'_>),
) -> Result<Vec<Decision>, EraseError> {
    let groups: Vec<usize> = site.model.collections.iter().map(|collection| collection.group).collect();
    let mut crowds = Vec::new();
    for (index, collection, changes) in with_groups(site) {
        let own = candidates.iter().filter(|row| row.collection == index && row.end == End::Anonymise);
        let coming: HashSet<Vec<u8>> = own.map(|row| encode_values(&row.row.key.0)).collect();
        if !coming.is_empty() {
            let found = crowds_of(view, (site, collection, changes), &coming, (known, keys)).await?;
            crowds.push((index, changes, found));
        }
    }
    if crowds.is_empty() {
        return Ok(decide(candidates, references, &groups));
    }
    loop {
        let decisions = decide(candidates.clone(), references, &groups);
        let mut lost: HashMap<(usize, Vec<u8>), SmallGroups> = HashMap::new();
        for (index, changes, crowds) in &crowds {
            let own = decisions.iter().filter(|row| row.collection == *index && row.verdict == Verdict::Anonymise);
            let rows: Vec<Vec<u8>> = own.map(|row| encode_values(&row.row.key.0)).collect();
            let too_few = crowds.too_few(&rows.iter().collect::<Vec<_>>(), changes.k);
            lost.extend(too_few.into_iter().map(|row| ((*index, row.clone()), changes.small_groups)));
        }
        if lost.is_empty() {
            return Ok(decisions);
        }
        for candidate in &mut candidates {
            let own = lost.get(&(candidate.collection, encode_values(&candidate.row.key.0)));
            let followed = candidate.follows.as_ref().and_then(|anchor| lost.get(anchor));
            match (own, followed) {
                (Some(SmallGroups::Erase), _) | (_, Some(SmallGroups::Erase)) => candidate.end = End::Erase,
                (Some(SmallGroups::Keep), _) => candidate.keep = Some(Reason::KAnonymity),
                _ => {}
            }
        }
    }
}

/// Rows that a run is about to anonymise and whose groups have become too small since the plan, with those that follow them, by
/// keyed digest. Asked just before the first batch.
///
/// # Errors
/// When a store cannot be read.
pub async fn rows_in_small_groups(
    ground: &Ground<'_>,
    plan: &str,
    chunks: &[ChunkRow],
    keys: &RunKeys,
) -> Result<HashSet<[u8; 16]>, EraseError> {
    let mut found = HashSet::new();
    for site in ground.sites.iter().filter(|site| with_groups(site).next().is_some()) {
        let store = &site.model.spec.name;
        let mut planned: HashMap<&str, Vec<RowKey>> = HashMap::new();
        let is_waiting = |chunk: &&ChunkRow| {
            chunk.store == *store
                && chunk.state != "done"
                && chunk.is_work()
                && LedgerKind::of_verdict(&chunk.verdict) == LedgerKind::Anonymised
        };
        for chunk in chunks.iter().filter(is_waiting) {
            let items = open_items(&keys.plan, plan, chunk.number, &chunk.sealed)?;
            planned.entry(&chunk.collection).or_default().extend(items.into_iter().map(|item| item.row.key));
        }
        if planned.is_empty() {
            continue;
        }
        let known = known_in(ground, site).await?;
        let mac = |table: &str, key: &RowKey| row_mac(&keys.suppression, store, table, key);
        let mut view = site.store.open_snapshot().await?;
        let mut lost: HashSet<(&str, Vec<u8>)> = HashSet::new();
        for (_, collection, changes) in with_groups(site) {
            let table = collection.table.name.as_str();
            let Some(rows) = planned.get(table) else { continue };
            let coming: HashSet<Vec<u8>> = rows.iter().map(|key| encode_values(&key.0)).collect();
            let crowds =
                crowds_of(view.as_mut(), (site, collection, changes), &coming, (&known, keys.telling())).await?;
            let there: Vec<&Vec<u8>> = crowds.coming.keys().collect();
            lost.extend(crowds.too_few(&there, changes.k).into_iter().map(|row| (table, row.clone())));
        }
        for collection in site.model.collections.iter().filter(|_| !lost.is_empty()) {
            let Some(rows) = planned.get(collection.table.name.as_str()) else { continue };
            found.extend(
                following(view.as_mut(), collection, rows, &lost)
                    .await?
                    .iter()
                    .map(|key| mac(&collection.table.name, key)),
            );
        }
        view.close().await?;
    }
    Ok(found)
}

/// Keys asked for at once.
const KEYS: usize = 500;

/// Of these rows, those that are lost, or follow one that is.
async fn following(
    view: &mut dyn Snapshot,
    collection: &Collection,
    rows: &[RowKey],
    lost: &HashSet<(&str, Vec<u8>)>,
) -> Result<Vec<RowKey>, EraseError> {
    let shape = Shape::of(collection);
    let anchor = collection.governed.as_ref().and_then(|governed| governed.follows.as_deref());
    let mut found = Vec::new();
    for part in rows.chunks(KEYS) {
        let mut query = shape.query(collection, Filter::In(collection.key.clone(), part.to_vec()));
        query.limit = part.len() as u32 + 1;
        for row in view.read(&query).await? {
            let row = shape.read(row);
            let follows = anchor.zip(row.anchor).map(|(table, key)| (table, encode_values(&key)));
            let own = (collection.table.name.as_str(), encode_values(&row.key.0));
            if lost.contains(&own) || follows.is_some_and(|anchor| lost.contains(&anchor)) {
                found.push(row.key);
            }
        }
    }
    Ok(found)
}

/// What the rows of a site were left with that were anonymised and not erased since.
pub(super) async fn known_in(ground: &Ground<'_>, site: &Site) -> Result<LeftRows, EraseError> {
    let all = ground.control.read().await?.erasures_in(&site.model.spec.name, None).await?;
    Ok(all.into_iter().filter_map(|(mac, mut rows)| Some((mac, rows.pop()?.left?))).collect())
}

/// The smallest group that is left, by store and collection, where a run anonymised rows and groups count; and how large it must be.
///
/// # Errors
/// When a store cannot be read.
pub async fn smallest_groups(
    ground: &Ground<'_>,
    run: &RunRow,
    keys: &RunKeys,
) -> Result<Vec<(String, String, u64, u64)>, EraseError> {
    let touched: HashSet<(String, String)> = {
        let entries = ground.control.read().await?.ledger_of_run(&run.id).await?;
        let own = entries.into_iter().filter(|entry| entry.kind == LedgerKind::Anonymised);
        own.map(|entry| (entry.store, entry.collection)).collect()
    };
    let mut smallest = Vec::new();
    for site in ground.sites {
        for (_, collection, changes) in with_groups(site) {
            let (store, table) = (&site.model.spec.name, &collection.table.name);
            if !touched.contains(&(store.clone(), table.clone())) {
                continue;
            }
            let known = known_in(ground, site).await?;
            let mut view = site.store.open_snapshot().await?;
            let place = (site, collection, changes);
            let crowds = crowds_of(view.as_mut(), place, &HashSet::new(), (&known, keys.telling())).await?;
            view.close().await?;
            let size = crowds.settled.values().min().copied().unwrap_or(0);
            smallest.push((store.clone(), table.clone(), size, changes.k));
        }
    }
    Ok(smallest)
}
