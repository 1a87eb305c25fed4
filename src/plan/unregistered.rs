//! Tables that seem to hold a subject's data and are not registered: nothing will be erased from them, which must be said.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::Collection;
use crate::policy::registry::StoreSpec;
use crate::stores::{Catalogue, Table};

/// A table that seems to hold a subject's data, by its columns or its foreign keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnregisteredTable {
    /// The store.
    pub store: String,
    /// The table.
    pub table: String,
    /// The columns that say so.
    pub columns: Vec<String>,
    /// The table that they refer to, by a foreign key; none when they are called, and hold, what the subject's column of a
    /// registered collection does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refers_to: Option<String>,
}

impl UnregisteredTable {
    /// What is wrong, as one sentence.
    #[must_use]
    pub fn what(&self) -> String {
        let (table, columns) = (&self.table, self.columns.join(", "));
        match &self.refers_to {
            Some(parent) => format!("table {table} is not registered, and its rows belong to {parent} by {columns}"),
            None => {
                format!("table {table} is not registered, and its column {columns} is called as that of the subject is")
            }
        }
    }
}

/// What to do about one.
pub const UNREGISTERED_ADVICE: &str = "register it as a [[store.collection]], or list it under `ignored` of the store when \
     it holds nothing of a customer";

/// The tables of a store that seem to hold a subject's data and are neither registered nor declared to be of no concern:
/// those with a foreign key to a collection that has a subject (or to another such table), and those with a column that
/// has the name and the kind of a collection's subject column. A column that is only called `id` says nothing.
#[must_use]
pub fn unregistered(spec: &StoreSpec, collections: &[Collection], catalogue: &Catalogue) -> Vec<UnregisteredTable> {
    let owned = |name: &str| collections.iter().any(|found| found.table.name == name && found.owner.is_some());
    let is_open = |table: &&Table| {
        !spec.ignored.contains(&table.name) && collections.iter().all(|found| found.table.name != table.name)
    };
    let mut found: BTreeMap<&str, UnregisteredTable> = BTreeMap::new();
    loop {
        let before = found.len();
        for table in catalogue.tables.iter().filter(is_open) {
            let belongs = |parent: &str| owned(parent) || found.contains_key(parent) && parent != table.name;
            if found.contains_key(table.name.as_str()) {
                continue;
            }
            let key = table.foreign_keys.iter().find(|key| belongs(&key.parent));
            let named = || same_column(table, collections).map(|column| (vec![column], None));
            let why = key.map(|key| (key.columns.clone(), Some(key.parent.clone()))).or_else(named);
            if let Some((columns, refers_to)) = why {
                let (store, name) = (spec.name.clone(), table.name.clone());
                found.insert(&table.name, UnregisteredTable { store, table: name, columns, refers_to });
            }
        }
        if found.len() == before {
            return found.into_values().collect();
        }
    }
}

/// The column of a table that has name and kind of a subject's column.
fn same_column(table: &Table, collections: &[Collection]) -> Option<String> {
    let owners = collections.iter().filter_map(|found| found.owner.as_ref());
    let own: Vec<_> = owners.filter(|owner| owner.path.is_empty() && owner.column.column != "id").collect();
    let is_same = |name: &str, kind| own.iter().any(|owner| owner.column.column == name && Some(owner.kind) == kind);
    table.columns.iter().find(|column| is_same(&column.name, column.kind)).map(|column| column.name.clone())
}
