//! Ids and masked values of rows that a run touched, sealed for the operation log under the key of the run's pre-images: once what was
//! erased can no longer be put back, nobody can read them either.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::erase::pre_image::{ImageRow, PreImage, open_image};
use crate::erase::{EraseError, Ground};
use crate::error::with_causes;
use crate::installation::Installation;
use crate::keyring::{KeyringError, Purpose};
use crate::keys::Key;
use crate::keys::sealed::{open_column, seal_column};
use crate::plan::digest::row_mac;
use crate::plan::model::Collection;
use crate::policy::classification::FieldKind;
use crate::policy::mask::{HIDDEN, Profile, mask_value};
use crate::stores::{ColumnRef, Filter, RowQuery};
use crate::tasks::{Result, TaskError};
use crate::value::{RowKey, Value, encode_values};

use super::Place;

/// What stood in a row, as strict masks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowValues {
    /// Its key. What leads to a customer, and text that is not declared, is hidden.
    pub key: Vec<String>,
    /// Declared fields before.
    pub before: BTreeMap<String, String>,
    /// The same after; null when the row is gone.
    pub after: Option<BTreeMap<String, String>>,
}

/// Which rows of a table were touched, and what stood in the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TableValues {
    /// The last row's key, as far as it may be shown.
    pub last: Vec<String>,
    /// The first rows.
    pub rows: Vec<RowValues>,
}

/// The keys of a run that can still be undone.
pub(super) struct Sealer<'i> {
    installation: &'i Installation,
    run: &'i str,
    key: Key,
    suppression: Key,
}

impl<'i> Sealer<'i> {
    /// None where nothing was kept of the rows, or is any more.
    pub(super) async fn of(installation: &'i Installation, run: &'i str) -> Result<Option<Self>> {
        let mut tx = installation.control.begin().await?;
        let key = installation.keyring.find_work_key(&mut tx, Purpose::PreImage, run).await?;
        let suppression = installation.keyring.work_key(&mut tx, Purpose::Suppression, "").await?;
        tx.commit().await?;
        Ok(key.map(|key| Self { installation, run, key, suppression }))
    }

    /// Reads rows from the pre-images, and of modified ones (`M`) from the store what is there of them now. In place of a deleted row
    /// there may be another by now, to which its key was given out again.
    pub(super) async fn read(
        &self,
        ground: &Ground<'_>,
        (store, table, letter): (&str, &str, &str),
        first: &[Place],
        last: Option<Place>,
    ) -> Result<TableValues> {
        let Some(site) = ground.sites.iter().find(|site| site.model.spec.name == store) else {
            return Ok(TableValues::default());
        };
        let Some((_, collection)) = site.model.collection(table) else { return Ok(TableValues::default()) };
        let mut images: HashMap<i64, PreImage> = HashMap::new();
        let mut tx = self.installation.control.read().await?;
        for (chunk, _) in first.iter().chain(&last) {
            if !images.contains_key(chunk) {
                let parts = tx.pre_images(self.run, *chunk).await?;
                let image = open_image(&self.key, (self.run, *chunk), &parts)?;
                images.insert(*chunk, image);
            }
        }
        drop(tx);
        let find = |(chunk, digest): &Place| {
            let image = images.get(chunk)?;
            let is_it = |row: &&ImageRow| row_mac(&self.suppression, store, table, &row.key) == *digest;
            Some((image, image.rows.iter().find(is_it)?))
        };
        let found: Vec<(&PreImage, &ImageRow)> = first.iter().filter_map(find).collect();
        let fields: Vec<&String> = collection.spec.fields.keys().filter(|name| has_column(collection, name)).collect();
        let keys: Vec<RowKey> = found.iter().map(|(_, row)| row.key.clone()).collect();
        let query = RowQuery {
            table: collection.table.name.clone(),
            path: Vec::new(),
            columns: collection.key.iter().chain(fields.iter().copied()).map(|name| ColumnRef::own(name)).collect(),
            filter: Filter::In(collection.key.clone(), keys),
            key: collection.key.clone(),
            after: None,
            limit: u32::MAX,
        };
        let mut living: HashMap<Vec<u8>, Vec<Value>> = HashMap::new();
        if !found.is_empty() && letter == "M" {
            let mut view = site.store.open_snapshot().await?;
            for mut row in view.read(&query).await? {
                let values = row.split_off(collection.key.len());
                living.insert(encode_values(&row), values);
            }
            view.close().await?;
        }
        let rows = found.into_iter().map(|(image, row)| {
            let before = |name: &str| {
                let at = image.columns.iter().position(|column| column == name)?;
                row.values.get(at)
            };
            let masked = |name: &String, value: &Value| (name.clone(), masked(collection, name, value));
            RowValues {
                key: shown_key(collection, &row.key),
                before: fields.iter().filter_map(|name| Some(masked(name, before(name)?))).collect(),
                after: living
                    .get(&encode_values(&row.key.0))
                    .map(|values| fields.iter().zip(values).map(|(name, value)| masked(name, value)).collect()),
            }
        });
        let last = last.as_ref().and_then(find).map(|(_, row)| shown_key(collection, &row.key));
        Ok(TableValues { rows: rows.collect(), last: last.unwrap_or_default() })
    }

    /// Seals them, base64.
    pub(super) fn seal(&self, table: &str, letter: &str, values: &TableValues) -> Result<String> {
        let plain = serde_json::to_vec(values).map_err(|error| TaskError::Inconsistent(error.to_string()))?;
        let random = self.installation.random.as_ref();
        let sealed = seal_column(&self.key, &context(self.run, table, letter), &plain, random);
        Ok(STANDARD.encode(sealed.map_err(EraseError::Column)?))
    }
}

fn context<'c>(run: &'c str, table: &'c str, letter: &'c str) -> [&'c [u8]; 4] {
    [b"operation-values", run.as_bytes(), table.as_bytes(), letter.as_bytes()]
}

/// Opens what stands sealed in an entry of the operation log; none once the key is gone, or when it cannot be opened now, which is
/// told in the program's own log: the other entries can be read all the same.
///
/// # Errors
/// When the control database fails.
pub async fn open_values(
    installation: &Installation,
    run: &str,
    (table, letter): (&str, &str),
    sealed: &str,
) -> Result<Option<TableValues>> {
    let mut tx = installation.control.read().await?;
    let key = installation.keyring.find_work_key(&mut tx, Purpose::PreImage, run).await;
    drop(tx);
    let key = match key {
        Ok(Some(key)) => key,
        Ok(None) => return Ok(None),
        Err(error @ KeyringError::Control(_)) => return Err(error.into()),
        Err(error) => {
            let error = with_causes(&error);
            tracing::warn!(run, table, %error, "what the operation log seals of rows cannot be opened now");
            return Ok(None);
        }
    };
    let sealed = STANDARD.decode(sealed).ok();
    let plain = sealed.and_then(|sealed| open_column(&key, &context(run, table, letter), &sealed).ok());
    let opened: Option<TableValues> = plain.and_then(|plain| serde_json::from_slice(&plain).ok());
    if opened.is_none() {
        tracing::warn!(run, table, "what the operation log seals of rows is damaged and cannot be opened");
    }
    Ok(opened)
}

fn has_column(collection: &Collection, name: &str) -> bool {
    collection.table.columns.iter().any(|column| column.name == name)
}

fn masked(collection: &Collection, name: &str, value: &Value) -> String {
    let kind = collection.spec.fields.get(name).map(|field| field.kind);
    match kind {
        // Its own form is the id itself.
        None | Some(FieldKind::CustomerId) => HIDDEN.to_owned(),
        // In running text names and addresses are not recognised.
        Some(FieldKind::FreeText) if *value != Value::Null => HIDDEN.to_owned(),
        Some(kind) => mask_value(kind, value, Profile::Strict),
    }
}

/// A row's key, without what leads to its subject.
fn shown_key(collection: &Collection, key: &RowKey) -> Vec<String> {
    let owner = collection.owner.as_ref();
    let leads = |name: &str| match owner {
        Some(reach) => {
            reach.path.first().map_or(reach.column.column == name, |hop| hop.columns.iter().any(|own| own == name))
        }
        None => false,
    };
    let shown = |(name, value): (&String, &Value)| match value {
        _ if leads(name) || collection.spec.fields.contains_key(name) => masked(collection, name, value),
        Value::Integer(number) => number.to_string(),
        _ => HIDDEN.to_owned(),
    };
    collection.key.iter().zip(&key.0).map(shown).collect()
}
