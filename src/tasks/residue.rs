//! `verify residue`: looks for erased values in the raw files of stores.
//!
//! The values are those of pre-images, while a run is in grace and their key lives, or given by somebody; they are kept in memory only. A
//! value that stands in a living row as well is left out; which do is found out on this side, from all rows there are, for a value in a
//! statement would be written into logs of statements just when it is to be gone. Compressed, encrypted or cut values are not recognised,
//! and numbers are not looked for.

mod files;
mod search;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use self::search::{Needles, SHORTEST};
use crate::control::{ChunkRow, RunRow, time_text};
use crate::erase::Site;
use crate::erase::pre_image::open_image;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::log::tree::sha256;
use crate::plan::model::Collection;
use crate::stores::{
    ColumnKind, ColumnRef, Engine, FileKind, FileMap, FileSearch, Filter, RowQuery, TextEncoding, Transport, transport,
};
use crate::value::{RowKey, Value};

use super::settle::note_search;
use super::{Result, TaskError};

/// Rows read at once, and with bytes in them, which may be many.
const PAGE: u32 = 1000;
const PAGE_WITH_BYTES: u32 = 50;
/// The longest bytes that are looked for: longer ones do not lie in one piece.
const LONGEST: usize = 1024;

/// Why something was not, or not wholly, looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unsearched {
    /// No value is known: no run of the store is in grace, and none was given.
    NoValues,
    /// The files lie on another host.
    OtherHost,
    /// The server does not tell this login where its files are.
    Unknown,
    /// A file or folder cannot be read by this user.
    Unreadable,
    /// No file was found of a table, or of a log that is on.
    Missing,
    /// The bound on bytes was reached.
    Limit,
    /// How some of the values are written in these files is not known: other letters than ASCII in another encoding than Unicode.
    Encoding,
    /// The store could not be asked.
    StoreFailed,
}

/// What was read of one kind of file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KindSearch {
    /// Which files.
    pub kind: FileKind,
    /// How many were read.
    pub files_read: u64,
    /// How many bytes of them.
    pub bytes_read: u64,
    /// How many of the values stand in them.
    pub values_found: u64,
    /// What was not looked into, and why.
    pub gaps: Vec<Unsearched>,
}

/// What was looked for in the files of one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StoreSearch {
    /// The store.
    pub store: String,
    /// How many values were looked for.
    pub values_sought: u64,
    /// Values that were left out because they stand in living rows.
    pub living_values: u64,
    /// What was read.
    pub file_kinds: Vec<KindSearch>,
    /// Why nothing could be looked for, if so.
    pub not_searched: Option<Unsearched>,
}

impl StoreSearch {
    /// How often a value stands in some kind of file.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.file_kinds.iter().map(|kind| kind.values_found).sum()
    }

    /// Whether everything was looked into.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.not_searched.is_none() && self.file_kinds.iter().all(|kind| kind.gaps.is_empty())
    }

    fn nothing(store: &str, values: u64, living: u64, why: Unsearched) -> Self {
        Self {
            store: store.to_owned(),
            values_sought: values,
            living_values: living,
            file_kinds: Vec::new(),
            not_searched: Some(why),
        }
    }
}

/// What to look for.
pub struct Wanted<'a> {
    /// One store, or all.
    pub store: Option<&'a str>,
    /// Values that somebody gave, instead of those of pre-images.
    pub given: Option<Vec<String>>,
    /// At most so many values of a store.
    pub sample: usize,
    /// At most so many bytes of a store's files.
    pub limit: u64,
}

/// A value, and the runs that erased it.
#[derive(Default)]
struct Sought {
    value: Vec<u8>,
    /// Whether it was text, which other encodings write otherwise.
    is_text: bool,
    runs: BTreeSet<String>,
}

/// Values of a store.
#[derive(Default)]
struct Known {
    values: BTreeMap<[u8; 32], Sought>,
}

impl Known {
    /// Keeps the value if its salted digest is among the smallest: each value has the same chance, however often it occurs.
    fn add(&mut self, salt: &[u8; 32], (value, run): (&Value, Option<&str>), most: usize) {
        let (value, is_text) = match value {
            Value::Text(text) if text.len() >= SHORTEST => (text.as_bytes(), true),
            Value::Blob(bytes) if (SHORTEST..=LONGEST).contains(&bytes.len()) => (&bytes[..], false),
            _ => return,
        };
        let salted: Vec<u8> = salt.iter().chain(value).copied().collect();
        let sought = self.values.entry(sha256(&salted)).or_default();
        sought.value = value.to_vec();
        sought.is_text |= is_text;
        sought.runs.extend(run.map(str::to_owned));
        if self.values.len() > most {
            self.values.pop_last();
        }
    }
}

/// Looks into the files of one store or all.
///
/// # Errors
/// When there is no such store, or the control database fails. A store that cannot be asked is told of in the result.
pub async fn look_for_residue(installation: &Installation, wanted: Wanted<'_>) -> Result<Vec<StoreSearch>> {
    let names: Vec<&str> = installation.config.registry.stores.iter().map(|spec| spec.name.as_str()).collect();
    if let Some(store) = wanted.store.filter(|store| !names.contains(store)) {
        return Err(TaskError::Unknown {
            what: format!("there is no store {store}"),
            advice: "see `wangchuan store list`".to_owned(),
        });
    }
    installation.log_operation("verify.residue", wanted.store.unwrap_or("stores"), "intent").await?;
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| wanted.store.is_none_or(|only| only == *name)) {
        let Some(site) = installation.sites().iter().find(|site| site.model.spec.name == name) else {
            found.push(StoreSearch::nothing(name, 0, 0, Unsearched::StoreFailed));
            continue;
        };
        found.push(look_into(installation, site, &wanted).await?);
    }
    installation.log_operation("verify.residue", wanted.store.unwrap_or("stores"), "success").await?;
    Ok(found)
}

async fn look_into(installation: &Installation, site: &Site, wanted: &Wanted<'_>) -> Result<StoreSearch> {
    let name = site.model.spec.name.as_str();
    let mut known = Known::default();
    let salt = {
        let mut salt = [0; 32];
        installation.random.fill(&mut salt)?;
        salt
    };
    // Some live still, and are left out.
    let most = wanted.sample.saturating_mul(4);
    match &wanted.given {
        Some(values) => {
            for value in values {
                known.add(&salt, (&Value::Text(value.clone()), None), usize::MAX);
            }
        }
        None => known_of(installation, site, (&salt, most), &mut known).await?,
    }
    if known.values.is_empty() {
        return Ok(StoreSearch::nothing(name, 0, 0, Unsearched::NoValues));
    }
    let all: HashSet<&[u8]> = known.values.values().map(|sought| &sought.value[..]).collect();
    let Ok(living) = living(site, &all).await else {
        return Ok(StoreSearch::nothing(name, all.len() as u64, 0, Unsearched::StoreFailed));
    };
    let count = if wanted.given.is_some() { usize::MAX } else { wanted.sample };
    let sought = chosen(known, &living, count);
    let (values, living) = (sought.len() as u64, living.len() as u64);
    if sought.is_empty() {
        return Ok(StoreSearch::nothing(name, 0, living, Unsearched::NoValues));
    }
    let tables: Vec<String> = site.model.collections.iter().map(|collection| collection.table.name.clone()).collect();
    let spec = &site.model.spec;
    if site.store.engine() != Engine::Sqlite
        && spec.files.data.is_none()
        && transport(&spec.url) != Some(Transport::Local)
    {
        return Ok(StoreSearch::nothing(name, values, living, Unsearched::OtherHost));
    }
    let map = match site.store.file_map(&tables, spec.files.data.as_deref()).await {
        Ok(map) if !map.parts.is_empty() => map,
        _ => return Ok(StoreSearch::nothing(name, values, living, Unsearched::Unknown)),
    };
    let forms = Forms::of(&sought, &map.encodings);
    let found = search_all(map, forms, wanted.limit).await?;
    let search = StoreSearch {
        store: name.to_owned(),
        values_sought: values,
        living_values: living,
        file_kinds: found.iter().map(|(kind, _)| kind.clone()).collect(),
        not_searched: None,
    };
    let runs: BTreeSet<&String> = sought.iter().flat_map(|sought| &sought.runs).collect();
    for run in runs {
        let noted = noted(run, (&sought, &found), installation.clock.now());
        note_search(installation, run, name, &noted).await?;
    }
    Ok(search)
}

/// The values to look for: those that do not live, up to a number. All of them are long enough.
fn chosen(known: Known, living: &HashSet<Vec<u8>>, count: usize) -> Vec<Sought> {
    known.values.into_values().filter(|sought| !living.contains(&sought.value)).take(count).collect()
}

/// What was read of a kind of file, and which of the values stand in it.
type KindFound = (KindSearch, Vec<bool>);

/// The values as they may stand in files.
struct Forms {
    needles: Needles,
    /// Of which value each form is.
    values: Vec<usize>,
    count: usize,
    /// Whether the form of some value is not known, or too short.
    is_lacking: bool,
}

impl Forms {
    fn of(sought: &[Sought], encodings: &BTreeSet<TextEncoding>) -> Self {
        let (mut forms, mut values, mut is_lacking) = (Vec::new(), Vec::new(), false);
        for (number, sought) in sought.iter().enumerate() {
            let mut own = BTreeSet::new();
            match std::str::from_utf8(&sought.value) {
                Ok(text) if sought.is_text => {
                    for form in encodings.iter().map(|encoding| encoding.bytes_of(text)) {
                        match form {
                            Some(form) if form.len() >= SHORTEST => _ = own.insert(form),
                            _ => is_lacking = true,
                        }
                    }
                }
                _ => _ = own.insert(sought.value.clone()),
            }
            values.extend(own.iter().map(|_| number));
            forms.extend(own);
        }
        Self { needles: Needles::new(forms), values, count: sought.len(), is_lacking }
    }

    /// What was found of one kind of file: by value, where the files were searched by form.
    fn by_value(&self, (mut kind, forms): KindFound) -> KindFound {
        let mut found = vec![false; self.count];
        for (form, value) in forms.into_iter().zip(&self.values) {
            found[*value] |= form;
        }
        kind.values_found = found.iter().filter(|found| **found).count() as u64;
        if self.is_lacking {
            kind.gaps.push(Unsearched::Encoding);
        }
        (kind, found)
    }
}

/// Reads every kind of file; on a thread of its own, for it may take long.
async fn search_all(map: FileMap, forms: Forms, limit: u64) -> Result<Vec<KindFound>> {
    let work = move || {
        let kinds: BTreeSet<FileKind> =
            map.parts.iter().map(|(kind, _)| *kind).chain(map.needed.iter().map(|(kind, _)| *kind)).collect();
        let mut left = limit;
        let search = |kind| forms.by_value(files::search(kind, &map, &forms.needles, &mut left));
        kinds.into_iter().map(search).collect()
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| TaskError::Inconsistent("the search of files ended early".to_owned()))
}

/// What the search says of one run: of its own values only.
fn noted(run: &str, (sought, found): (&[Sought], &[KindFound]), at: DateTime<Utc>) -> FileSearch {
    let is_own: Vec<bool> = sought.iter().map(|sought| sought.runs.contains(run)).collect();
    let kinds =
        |of: &dyn Fn(&KindFound) -> bool| found.iter().filter(|kind| of(kind)).map(|(kind, _)| kind.kind).collect();
    FileSearch {
        at: time_text(at),
        values_sought: is_own.iter().filter(|own| **own).count() as u64,
        searched_kinds: kinds(&|(kind, _)| kind.gaps.is_empty() && kind.files_read > 0),
        found_kinds: kinds(&|(_, values)| values.iter().zip(&is_own).any(|(found, own)| *found && *own)),
        unsearched_kinds: kinds(&|(kind, _)| !kind.gaps.is_empty()),
    }
}

/// Values of rows that runs in grace erased from the store.
async fn known_of(
    installation: &Installation,
    site: &Site,
    (salt, most): (&[u8; 32], usize),
    known: &mut Known,
) -> Result<()> {
    for run in installation.control.read().await?.runs(Some("shred-pending")).await? {
        let mut tx = installation.control.begin().await?;
        let key = installation.keyring.find_work_key(&mut tx, Purpose::PreImage, &run.id).await?;
        tx.commit().await?;
        let Some(key) = key else { continue };
        for chunk in chunks_of(installation, &run, site).await? {
            let Some((_, collection)) = site.model.collection(&chunk.collection) else { continue };
            let parts = installation.control.read().await?.pre_images(&run.id, chunk.number).await?;
            let image = open_image(&key, (&run.id, chunk.number), &parts)?;
            let wanted: Vec<usize> = columns(site, collection)
                .into_iter()
                .filter_map(|name| image.columns.iter().position(|column| *column == name))
                .collect();
            for row in &image.rows {
                for value in wanted.iter().filter_map(|at| row.values.get(*at)) {
                    known.add(salt, (value, Some(&run.id)), most);
                }
            }
        }
    }
    Ok(())
}

async fn chunks_of(installation: &Installation, run: &RunRow, site: &Site) -> Result<Vec<ChunkRow>> {
    let chunks = installation.control.read().await?.chunks(run.plan.as_deref().unwrap_or_default()).await?;
    let is_ours = |chunk: &ChunkRow| chunk.store == site.model.spec.name && chunk.counts.gone() > 0;
    Ok(chunks.into_iter().filter(is_ours).collect())
}

/// Columns that are about somebody and may hold text or bytes: declared fields, and the subject. In SQLite any column may.
fn columns(site: &Site, collection: &Collection) -> Vec<String> {
    let declared = collection.spec.fields.keys().chain(collection.spec.subject.as_ref());
    let is_any = site.store.engine() == Engine::Sqlite;
    let is_sought = |name: &&String| {
        let column = collection.table.columns.iter().find(|column| column.name == **name);
        column.is_some_and(|column| is_any || matches!(column.kind, Some(ColumnKind::Text | ColumnKind::Bytes)))
    };
    declared.filter(is_sought).cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Those of the values that stand in living rows of a registered collection. No value is sent to the store: all rows are read.
async fn living(site: &Site, values: &HashSet<&[u8]>) -> Result<HashSet<Vec<u8>>> {
    let failed = |error| TaskError::Erase(crate::erase::EraseError::Store(error));
    let mut living = HashSet::new();
    let mut view = site.store.open_snapshot().await.map_err(failed)?;
    for collection in &site.model.collections {
        let columns = columns(site, collection);
        if columns.is_empty() {
            continue;
        }
        let has_bytes = columns.iter().any(|name| {
            collection.table.columns.iter().any(|column| column.name == *name && column.kind != Some(ColumnKind::Text))
        });
        let mut query = RowQuery {
            table: collection.table.name.clone(),
            path: Vec::new(),
            columns: collection.key.iter().chain(&columns).map(|name| ColumnRef::own(name)).collect(),
            filter: Filter::All,
            key: collection.key.clone(),
            after: None,
            limit: if has_bytes { PAGE_WITH_BYTES } else { PAGE },
        };
        loop {
            let rows = view.read(&query).await.map_err(failed)?;
            let is_last = rows.len() < query.limit as usize;
            for mut row in rows {
                for value in row.split_off(collection.key.len()) {
                    match value {
                        Value::Text(text) if values.contains(text.as_bytes()) => _ = living.insert(text.into_bytes()),
                        Value::Blob(bytes) if values.contains(&bytes[..]) => _ = living.insert(bytes),
                        _ => {}
                    }
                }
                query.after = Some(RowKey(row));
            }
            if is_last {
                break;
            }
        }
    }
    view.close().await.map_err(failed)?;
    Ok(living)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_of_its_own_values_only() {
        let mut known = Known::default();
        for (value, run) in [("canary-1", "a"), ("canary-1", "b"), ("canary-2", "b"), ("living-1", "c")] {
            known.add(&[0; 32], (&Value::Text(value.to_owned()), Some(run)), 10);
        }
        let living = HashSet::from([b"living-1".to_vec()]);
        let sought = chosen(known, &living, 10);
        assert!(sought.iter().all(|sought| !sought.runs.contains("c")), "nothing of it was looked for");
        let kind =
            KindSearch { kind: FileKind::Tables, files_read: 1, bytes_read: 9, values_found: 1, gaps: Vec::new() };
        let found: KindFound = (kind, sought.iter().map(|sought| sought.value == b"canary-2").collect());
        let of = |run| noted(run, (&sought, std::slice::from_ref(&found)), DateTime::UNIX_EPOCH);
        assert_eq!((of("a").values_sought, of("a").found_kinds), (1, Vec::new()));
        assert_eq!((of("b").values_sought, of("b").found_kinds), (2, vec![FileKind::Tables]));
    }

    #[test]
    fn a_value_that_is_left_out_takes_its_run_with_it() {
        let mut known = Known::default();
        known.add(&[0; 32], (&Value::Blob(b"canary-1".to_vec()), Some("a")), 1);
        known.add(&[0; 32], (&Value::Blob(b"canary-2".to_vec()), Some("b")), 1);
        let sought = chosen(known, &HashSet::new(), 1);
        assert_eq!(sought.iter().map(|sought| sought.runs.len()).sum::<usize>(), 1);
    }

    #[test]
    fn a_value_is_found_in_any_form_and_what_has_none_is_a_gap() {
        let mut known = Known::default();
        for value in [
            Value::Text("canary-1".to_owned()),
            Value::Blob(b"\xff\xfe\0bytes".to_vec()),
            Value::Text("short".to_owned()),
        ] {
            known.add(&[0; 32], (&value, None), 10);
        }
        let sought = chosen(known, &HashSet::new(), 10);
        assert_eq!(sought.len(), 2, "bytes are looked for as they are");
        let forms = Forms::of(&sought, &BTreeSet::from([TextEncoding::Utf8, TextEncoding::Utf16Le]));
        assert_eq!((forms.needles.count(), forms.is_lacking), (3, false));
        let kind =
            KindSearch { kind: FileKind::Tables, files_read: 1, bytes_read: 9, values_found: 9, gaps: Vec::new() };
        let text = sought.iter().position(|sought| sought.is_text).unwrap();
        let hits: Vec<bool> = forms.values.iter().map(|value| *value == text).collect();
        let (kind, found) = forms.by_value((kind, hits));
        assert_eq!((kind.values_found, kind.gaps, found[text]), (1, Vec::new(), true));
        let lacks = |value: &str, encoding| {
            let sought = [Sought { value: value.as_bytes().to_vec(), is_text: true, ..Sought::default() }];
            Forms::of(&sought, &BTreeSet::from([encoding])).is_lacking
        };
        assert!(lacks("王小明", TextEncoding::OtherAscii) && !lacks("wang-1", TextEncoding::OtherAscii));
        assert!(lacks("王明", TextEncoding::Utf16Be), "its four bytes stand everywhere");
    }
}
