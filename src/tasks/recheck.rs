//! Looks in the stores again for what was erased: rows of the ledger, and customers whose request was fulfilled.
//!
//! Every registered row is read, where backups read, and found by the keyed digests of its key and its customer. What seems to be
//! there is read once more where rows are written, so that a replica that lags raises no alarm, and its erasure must still stand then.
//! Memory holds some 150 bytes for every row ever erased in the store, and the keys of what seems to be there.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use crate::control::{ErasureRow, Left};
use crate::erase::anonymise::is_as_left;
use crate::erase::batch::is_blank;
use crate::erase::planner::subject_lookup;
use crate::erase::survey::{ReadRow, Shape, start_kind};
use crate::erase::{Ground, Site};
use crate::installation::{Installation, Operation};
use crate::keyring::Purpose;
use crate::keys::Key;
use crate::plan::digest::{erased_content_mac, row_mac};
use crate::plan::model::Collection;
use crate::plan::returned::{Erasure, Found, Return, judge};
use crate::policy::start::{StartEvent, read_start};
use crate::stores::{ColumnRef, Filter, RowQuery};
use crate::value::{Row, RowKey, Value};

use super::Result;

/// Rows read at once.
const PAGE: u32 = 1000;
/// Rows read again at once.
const CONFIRMED_AT_ONCE: usize = 200;
/// Rows whose keys are kept to be shown.
const SHOWN: usize = 1000;

/// What was found of one collection; all counts are rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RecheckedCollection {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// Rows looked at.
    pub rows: u64,
    /// Erased rows that are there again.
    pub resurrected: u64,
    /// New rows under an erased key, or of a customer who was forgotten.
    pub returned: u64,
}

/// A row that is there again.
#[derive(Debug, Clone)]
pub struct FoundRow {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// Its key: customer data.
    pub key: RowKey,
    /// What it is.
    pub verdict: Return,
}

/// What a look at all stores found.
#[derive(Debug, Clone, Default)]
pub struct Recheck {
    /// By collection.
    pub collections: Vec<RecheckedCollection>,
    /// The first of the rows that are there again.
    pub found: Vec<FoundRow>,
    /// Stores that could not be looked at, or not at all of what seems to be there, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Stores and collections of which rows were erased and that are not registered any more.
    pub unregistered: Vec<(String, String)>,
    /// Whether other rows are there again than at the look before, of rows that runs erased: their certificates say what is so no more.
    pub is_news: bool,
}

impl Recheck {
    /// Rows that are there again.
    #[must_use]
    pub fn resurrected(&self) -> u64 {
        self.collections.iter().map(|collection| collection.resurrected).sum()
    }

    /// New rows in the place of erased ones.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.collections.iter().map(|collection| collection.returned).sum()
    }
}

/// What must not be there.
struct Gone {
    erasures: HashMap<[u8; 16], Vec<Erasure>>,
    /// What the rows were left with whose last erasure anonymised them.
    left: HashMap<[u8; 16], Left>,
    forgotten: HashMap<[u8; 32], DateTime<Utc>>,
    keys: Digests,
}

/// The keys of digests.
struct Digests {
    suppression: Key,
    lookup: Key,
    content: Key,
}

impl Digests {
    async fn read(ground: &Ground<'_>) -> Result<Self> {
        let mut tx = ground.control.begin().await?;
        let keys = Self {
            suppression: ground.keyring.work_key(&mut tx, Purpose::Suppression, "").await?,
            lookup: ground.keyring.work_key(&mut tx, Purpose::Lookup, "").await?,
            content: ground.keyring.work_key(&mut tx, Purpose::Certificate, "").await?,
        };
        tx.commit().await?;
        Ok(keys)
    }
}

impl Gone {
    /// Of all rows of a store, or of these. Nobody who writes waits for it.
    async fn read(ground: &Ground<'_>, keys: Digests, store: &str, only: Option<&[[u8; 16]]>) -> Result<Self> {
        let mut tx = ground.control.read().await?;
        let (mut erasures, mut left) = (HashMap::new(), HashMap::new());
        for (mac, rows) in tx.erasures_in(store, only).await? {
            left.extend(rows.last().and_then(|row| row.left.clone()).map(|found| (mac, found)));
            let erasure = |row: ErasureRow| Erasure {
                at: row.at,
                stays: row.stripped || row.left.is_some(),
                content: row.content,
            };
            erasures.insert(mac, rows.into_iter().map(erasure).collect());
        }
        Ok(Self { erasures, left, forgotten: tx.forgotten_subjects().await?, keys })
    }

    fn judge(&self, place: &Place<'_>, row: &ReadRow, content: &[Value], now: DateTime<Utc>) -> Option<Return> {
        let mac = self.mac(place, &row.key);
        let erasures = self.erasures.get(&mac);
        let lookup = row.subject.as_ref().map(|subject| subject_lookup(&self.keys.lookup, subject));
        let forgotten = lookup.and_then(|lookup| self.forgotten.get(&lookup)).copied();
        if erasures.is_none() && forgotten.is_none() {
            return None;
        }
        let found = Found {
            content: erased_content_mac(&self.keys.content, content),
            is_blank: match self.left.get(&mac) {
                Some(left) => is_as_left(&self.keys.content, left, |name| place.value(content, name)),
                None => place.is_blank(content),
            },
            start: place.start(row, now),
        };
        judge(erasures.map(Vec::as_slice).unwrap_or_default(), &found, forgotten)
    }

    fn mac(&self, place: &Place<'_>, key: &RowKey) -> [u8; 16] {
        row_mac(&self.keys.suppression, &place.site.model.spec.name, &place.collection.table.name, key)
    }
}

/// A collection of a site.
struct Place<'p> {
    site: &'p Site,
    collection: &'p Collection,
    shape: Shape,
}

impl Place<'_> {
    /// Whole rows behind the shape's columns: what the digest of an erased row was made of.
    fn query(&self, filter: Filter, limit: u32) -> RowQuery {
        let mut query = self.shape.query(self.collection, filter);
        query.columns.extend(self.collection.table.columns.iter().map(|column| ColumnRef::own(&column.name)));
        query.limit = limit;
        query
    }

    fn take_apart(&self, mut row: Row) -> (ReadRow, Row) {
        let content = row.split_off(self.shape.width());
        (self.shape.read(row), content)
    }

    fn value<'v>(&self, content: &'v [Value], name: &str) -> Option<&'v Value> {
        content.get(self.collection.table.columns.iter().position(|column| column.name == name)?)
    }

    /// Whether everything that a strip empties is empty.
    fn is_blank(&self, content: &[Value]) -> bool {
        let (engine, columns) = (self.site.store.engine(), self.collection.table.columns.iter());
        let mut emptied = columns.zip(content).filter(|(column, _)| !self.collection.stays_when_stripped(&column.name));
        emptied.all(|(column, value)| is_blank(self.collection, column, value, engine))
    }

    fn start(&self, row: &ReadRow, now: DateTime<Utc>) -> StartEvent {
        let governed = self.collection.governed.as_ref().zip(row.start.as_ref());
        governed.map_or(StartEvent::Missing, |(governed, value)| {
            read_start(value, start_kind(governed.start.kind), self.site.model.spec.timezone, now)
        })
    }
}

/// Looks at all stores that can be reached, and writes what was found to the operation log.
///
/// # Errors
/// When the control database fails; a store that fails is among those that were skipped.
pub async fn look_for_erased(installation: &Installation) -> Result<Recheck> {
    let ground = installation.ground()?;
    let mut report = Recheck { skipped: ground.skipped.to_vec(), ..Recheck::default() };
    report.unregistered = unregistered(installation).await?;
    for site in ground.sites {
        match look_at(&ground, site, &mut report).await {
            Ok(()) => {}
            Err(error) if error.is_of_store() => report.skipped.push((site.model.spec.name.clone(), error.to_string())),
            Err(error) => return Err(error),
        }
        installation.renew_lease().await?;
    }
    let (resurrected, returned) = (report.resurrected(), report.returned());
    let references = [("resurrected", resurrected), ("returned", returned), ("skipped", report.skipped.len() as u64)];
    let references = references.map(|(name, count)| (name.to_owned(), count.to_string())).to_vec();
    let outcome = if resurrected == 0 { "success" } else { "failure" };
    let detail = (resurrected > 0).then(|| "RESURRECTED".to_owned());
    let looked =
        Operation { name: "verify.erased", object: "stores", outcome, detail, references, ..Operation::default() };
    installation.log(looked).await?;
    Ok(report)
}

/// Of what rows were erased and nothing is registered any more.
async fn unregistered(installation: &Installation) -> Result<Vec<(String, String)>> {
    let all = installation.control.read().await?.erased_collections().await?;
    let stores = &installation.config.registry.stores;
    let is_registered = |(name, table): &(String, String)| {
        let store = stores.iter().find(|store| store.name == *name);
        store.is_some_and(|store| store.collections.iter().any(|collection| collection.table == *table))
    };
    Ok(all.into_iter().filter(|place| !is_registered(place)).collect())
}

async fn look_at(ground: &Ground<'_>, site: &Site, report: &mut Recheck) -> Result<()> {
    let name = &site.model.spec.name;
    let gone = Gone::read(ground, Digests::read(ground).await?, name, None).await?;
    let mut suspects = Vec::new();
    let mut view = site.store.open_snapshot().await?;
    for collection in &site.model.collections {
        let place = Place { site, collection, shape: Shape::of(collection) };
        let mut query = place.query(Filter::All, PAGE);
        let (mut rows, mut keys) = (0, Vec::new());
        loop {
            let page = view.read(&query).await?;
            let is_last = page.len() < PAGE as usize;
            rows += page.len() as u64;
            for row in page {
                let (row, content) = place.take_apart(row);
                let verdict = gone.judge(&place, &row, &content, ground.clock.now());
                query.after = Some(row.key.clone());
                keys.extend(verdict.map(|_| row.key));
            }
            if is_last {
                break;
            }
        }
        suspects.push((place, rows, keys));
    }
    view.close().await?;
    let Gone { keys: mut digests, .. } = gone;
    for (place, rows, keys) in suspects {
        let (store, collection) = (name.clone(), place.collection.table.name.clone());
        let mut counts = RecheckedCollection { store, collection, rows, ..RecheckedCollection::default() };
        let (mut again, mut is_whole) = (Vec::new(), true);
        for keys in keys.chunks(CONFIRMED_AT_ONCE) {
            let macs: Vec<[u8; 16]> =
                keys.iter().map(|key| row_mac(&digests.suppression, name, &place.collection.table.name, key)).collect();
            let gone = Gone::read(ground, digests, name, Some(&macs)).await?;
            match confirm(ground, &place, &gone, keys).await {
                Ok(found) => {
                    let resurrected = found.iter().filter(|(_, verdict)| *verdict == Return::Resurrected);
                    again.extend(resurrected.map(|(key, _)| gone.mac(&place, key)));
                    note_found(&mut counts, found, &mut report.found);
                }
                Err(error) if error.is_of_store() => {
                    let unread = format!(
                        "{} rows of {} that seem to be there again could not be read once more: {error}",
                        keys.len(),
                        counts.collection
                    );
                    report.skipped.push((name.clone(), unread));
                    is_whole = false;
                }
                Err(error) => return Err(error),
            }
            digests = gone.keys;
        }
        report.is_news |= note_runs(ground, &counts, &again, is_whole).await?;
        report.collections.push(counts);
    }
    Ok(())
}

/// Notes of which runs rows are there again in a place: their certificates are replaced. Of a place that was not looked at as a whole,
/// only what is there more than before is known. Whether that is news.
async fn note_runs(
    ground: &Ground<'_>,
    counts: &RecheckedCollection,
    again: &[[u8; 16]],
    is_whole: bool,
) -> Result<bool> {
    let (store, collection) = (counts.store.as_str(), counts.collection.as_str());
    let mut tx = ground.control.begin().await?;
    let erasers = tx.erasers_of(store, again).await?;
    let mut by_run: HashMap<String, i64> = HashMap::new();
    for run in again.iter().filter_map(|row| erasers.get(row)) {
        *by_run.entry(run.clone()).or_default() += 1;
    }
    if !is_whole {
        for known in tx.found_again(None).await? {
            if known.store == store && known.collection == collection {
                let rows = by_run.entry(known.run).or_default();
                *rows = known.rows.max(*rows);
            }
        }
    }
    let changed = tx.note_found_again((store, collection), &by_run, ground.clock.now()).await?;
    tx.commit().await?;
    Ok(changed > 0)
}

fn note_found(counts: &mut RecheckedCollection, found: Vec<(RowKey, Return)>, shown: &mut Vec<FoundRow>) {
    for (key, verdict) in found {
        match verdict {
            Return::Resurrected => counts.resurrected += 1,
            Return::Returned => counts.returned += 1,
        }
        if shown.len() < SHOWN {
            let (store, collection) = (counts.store.clone(), counts.collection.clone());
            shown.push(FoundRow { store, collection, key, verdict });
        }
    }
}

/// Reads rows that seem to be there again once more, where they would be written, beside what the ledger says by now.
async fn confirm(
    ground: &Ground<'_>,
    place: &Place<'_>,
    gone: &Gone,
    keys: &[RowKey],
) -> Result<Vec<(RowKey, Return)>> {
    let filter = Filter::In(place.collection.key.clone(), keys.to_vec());
    let mut batch = place.site.store.begin_batch().await?;
    let rows = batch.read_for_update(&place.query(filter, keys.len() as u32)).await;
    batch.roll_back().await?;
    let mut found = Vec::new();
    for row in rows? {
        let (row, content) = place.take_apart(row);
        let verdict = gone.judge(place, &row, &content, ground.clock.now());
        found.extend(verdict.map(|verdict| (row.key, verdict)));
    }
    Ok(found)
}
