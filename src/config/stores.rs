//! `[[store]]`, `[[store.copy]]` and `[[store.collection]]`: the registered data stores.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::agent::Agent;
use super::secret::SecretUrl;
use super::section::{Reading, sqlite_file};
use crate::policy::calendar::Period;
use crate::policy::registry::{
    BackupMode, Budget, CollectionSpec, CopySpec, FilesSpec, ReplicaSpec, SecretText, StoreSpec,
};
use crate::stores::{Transport, transport};

const SERVER_SCHEMES: [&str; 4] = ["postgres", "postgresql", "mysql", "mariadb"];

/// A registered data store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    /// Its name, unique: letters, digits, `-`, `_`; at most 64.
    name: String,
    /// Where it is: `sqlite://PATH`, `postgres://…`, `mysql://…`, `mariadb://…`; may hold secret references.
    #[schemars(with = "String")]
    url: SecretUrl,
    /// Where to read from, if not from `url`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    read_url: Option<SecretUrl>,
    /// Whether its servers may be on another host without TLS: what is said to them can be read on the way, and changed.
    #[serde(default)]
    insecure: bool,
    /// The responsible person or department.
    #[serde(default)]
    owner: Option<String>,
    /// What the data is for.
    #[serde(default)]
    purpose: Option<String>,
    /// The place it stands at.
    #[serde(default)]
    site: Option<String>,
    /// The zone of its columns without one; by default the agent's.
    #[serde(default)]
    timezone: Option<String>,
    /// `bucket`, or `none` if the agent does not back it up.
    #[serde(default)]
    backup: BackupMode,
    /// Further copies that the agent does not control.
    #[serde(default)]
    copy: Vec<CopySpec>,
    /// Its registered collections.
    #[serde(default)]
    collection: Vec<CollectionSpec>,
    /// Tables that hold nothing of a customer although their columns or foreign keys look so; no finding is made of them.
    #[serde(default)]
    ignored: Vec<String>,
    /// How hard it may be worked on.
    #[serde(default)]
    budget: Budget,
    /// Its replicas that must not fall behind while rows are erased.
    #[serde(default)]
    replica: Vec<RawReplica>,
    /// Its own files.
    #[serde(default)]
    files: FilesSpec,
}

/// A replica of a store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawReplica {
    /// Its name, unique in the store.
    name: String,
    /// Where to read from it; the login needs to read the marker table `wangchuan_batch` and nothing else.
    #[schemars(with = "String")]
    url: SecretUrl,
    /// How far it may be behind, in milliseconds.
    #[serde(default = "max_lag_ms")]
    max_lag_ms: u32,
}

fn max_lag_ms() -> u32 {
    500
}

impl RawStore {
    pub(super) fn literals(&self, place: &Place) -> Vec<Place> {
        let mut places = Vec::new();
        if self.url.is_literal() {
            places.push(place.key("url"));
        }
        if self.read_url.as_ref().is_some_and(SecretUrl::is_literal) {
            places.push(place.key("read_url"));
        }
        let replicas = self.replica.iter().enumerate().filter(|(_, replica)| replica.url.is_literal());
        places.extend(replicas.map(|(number, _)| place.key("replica").index(number).key("url")));
        places
    }

    /// `agent` is absent when `[agent]` itself is wrong; the rest of the store is checked all the same.
    pub(super) fn check(&self, place: &Place, agent: Option<&Agent>, reading: &mut Reading<'_>) -> Option<StoreSpec> {
        let named = reading.name(&place.key("name"), &self.name);
        let url = self.address(&place.key("url"), &self.url, reading);
        let read_url = match &self.read_url {
            Some(source) => Some(self.address(&place.key("read_url"), source, reading)?),
            None => None,
        };
        let timezone = match &self.timezone {
            Some(name) => reading.zone(&place.key("timezone"), name),
            None => agent.map(|agent| agent.timezone),
        };
        self.check_copies(place, reading);
        self.check_collections(place, reading);
        self.check_budget(&place.key("budget"), reading);
        if self.files.data.as_ref().is_some_and(|data| data.is_relative()) {
            let what = "the data folder of a server is no path relative to this file";
            reading.fault(&place.key("files").key("data"), what, "write the whole path, or leave it out");
        }
        let replicas = self.replicas(place, url.as_ref(), reading);
        named?;
        Some(StoreSpec {
            name: self.name.clone(),
            url: url?,
            read_url,
            owner: self.owner.clone(),
            purpose: self.purpose.clone(),
            site: self.site.clone(),
            timezone: timezone?,
            backup: self.backup,
            copies: self.copy.clone(),
            collections: self.collection.clone(),
            ignored: self.ignored.clone(),
            budget: self.budget,
            replicas,
            files: self.files.clone(),
        })
    }

    fn check_budget(&self, place: &Place, reading: &mut Reading<'_>) {
        let Budget { transaction_ms, rows_per_second, lock_ms, .. } = self.budget;
        for (key, value) in [("transaction_ms", transaction_ms), ("lock_ms", lock_ms)] {
            if !(5..=60_000).contains(&value) {
                let what = format!("{value} ms is no length for a transaction or a wait");
                reading.fault(&place.key(key), what, "write 5 to 60000");
            }
        }
        if rows_per_second == Some(0) {
            let advice = "write 1 or more; `wangchuan run pause` and `wangchuan agent hold` stop the work";
            reading.fault(&place.key("rows_per_second"), "no row in a second erases nothing", advice);
        }
    }

    fn replicas(&self, place: &Place, own: Option<&SecretText>, reading: &mut Reading<'_>) -> Vec<ReplicaSpec> {
        let mut found: Vec<ReplicaSpec> = Vec::new();
        for (number, replica) in self.replica.iter().enumerate() {
            let place = place.key("replica").index(number);
            reading.name(&place.key("name"), &replica.name);
            if found.iter().any(|known| known.name == replica.name) {
                let what = format!("two replicas of the store are called `{}`", replica.name);
                reading.fault(&place.key("name"), what, "give each its own name");
            }
            let Some(url) = self.address(&place.key("url"), &replica.url, reading) else { continue };
            // An address of the store that is wrong itself is reported there.
            let is_same = own.is_none_or(|own| engine_of(own) == engine_of(&url));
            if engine_of(&url) == "sqlite" || !is_same {
                let what = "a replica is a server of the same engine as its store";
                reading.fault(&place.key("url"), what, "give the replica's own address, or take it out");
                continue;
            }
            found.push(ReplicaSpec { name: replica.name.clone(), url, max_lag_ms: replica.max_lag_ms });
        }
        found
    }

    fn address(&self, place: &Place, source: &SecretUrl, reading: &mut Reading<'_>) -> Option<SecretText> {
        let url = reading.url(place, source)?;
        let text = url.dangerous_text();
        if text.starts_with("sqlite:") {
            let absolute = absolute_sqlite(text, reading);
            if absolute.is_none() {
                let what = "an in-memory database holds nothing that could be registered";
                reading.fault(place, what, "write `sqlite://PATH`");
            }
            return absolute;
        }
        if !text.split_once("://").is_some_and(|(scheme, _)| SERVER_SCHEMES.contains(&scheme)) {
            let what = "not the address of a database this version knows";
            let advice = "begin with sqlite://, postgres://, mysql:// or mariadb://";
            reading.fault(place, what, advice);
            return None;
        }
        check_transport((place, &format!("store {}", self.name)), &url, self.insecure, reading)?;
        Some(url)
    }

    fn check_copies(&self, place: &Place, reading: &mut Reading<'_>) {
        let mut seen = BTreeSet::new();
        for (number, copy) in self.copy.iter().enumerate() {
            let place = place.key("copy").index(number);
            if !seen.insert(&copy.name) {
                let what = format!("two copies of the store are called `{}`", copy.name);
                reading.fault(&place.key("name"), what, "give each its own name");
            }
            if copy.dies == "never" {
                reading.warn(format!(
                    "store {}: copy {} never dies, so no certificate about this store can promise that all copies are gone",
                    self.name, copy.name
                ));
            } else if let Err(why) = Period::try_from(copy.dies.clone()) {
                let advice = format!("write a period after erasure such as `30 days`, or `never` ({why})");
                reading.fault(&place.key("dies"), format!("`{}` is no period", copy.dies), advice);
            }
        }
    }

    fn check_collections(&self, place: &Place, reading: &mut Reading<'_>) {
        let mut by_table: BTreeMap<&str, &CollectionSpec> = BTreeMap::new();
        for (number, collection) in self.collection.iter().enumerate() {
            let place = place.key("collection").index(number);
            if collection.table.is_empty() {
                reading.fault(&place.key("table"), "the table has no name", "write the table's name");
            }
            if by_table.insert(&collection.table, collection).is_some() {
                let what = format!("the collection `{}` is declared twice", collection.table);
                reading.fault(&place.key("table"), what, "keep one of them");
            }
            if collection.subject.is_some() && !collection.via.is_empty() {
                let what = format!("`{}` has both `subject` and `via`", collection.table);
                let advice = "keep `subject` if the table itself holds the customer's id, else `via`";
                reading.fault(&place.key("via"), what, advice);
            }
            if !collection.subject_when.is_empty() && collection.subject.is_none() {
                let what = format!("`{}` has `subject_when` and no `subject`", collection.table);
                let advice =
                    "write the column with the id as `subject`; collections that hang on this one by `via` follow it";
                reading.fault(&place.key("subject_when"), what, advice);
            }
            if collection
                .subject_when
                .values()
                .any(|spellings| spellings.all().iter().all(|value| value.trim().is_empty()))
            {
                let what = "a column of `subject_when` has no value";
                reading.fault(&place.key("subject_when"), what, "write what stands in it where the id is a customer's");
            }
        }
        for (number, collection) in self.collection.iter().enumerate() {
            let place = place.key("collection").index(number).key("via");
            self.check_owner_path(&place, collection, &by_table, reading);
        }
    }

    /// Follows `via` to the collection that holds the subject's id.
    fn check_owner_path(
        &self,
        place: &Place,
        collection: &CollectionSpec,
        by_table: &BTreeMap<&str, &CollectionSpec>,
        reading: &mut Reading<'_>,
    ) {
        let mut seen = BTreeSet::new();
        let mut at = collection;
        while !at.via.is_empty() {
            if !seen.insert(&at.table) {
                let what = format!("the owner path of `{}` runs in a circle", collection.table);
                reading.fault(place, what, "end it at a collection with `subject`");
                return;
            }
            let mut last = "";
            for (number, hop) in at.via.iter().enumerate() {
                let Some(parent) = hop_parent(hop) else {
                    if std::ptr::eq(at, collection) {
                        let advice = "write `column -> parent_table`, for a composite key `a, b -> parent_table`";
                        reading.fault(&place.index(number), format!("`{hop}` is no hop of an owner path"), advice);
                    }
                    return;
                };
                last = parent;
            }
            let Some(next) = by_table.get(last) else {
                if std::ptr::eq(at, collection) {
                    let what =
                        format!("the owner path ends at `{last}`, which is no collection of store `{}`", self.name);
                    let near = super::diagnostic::suggest(last, &by_table.keys().copied().collect::<Vec<_>>());
                    reading.fault(place, what, format!("declare `{last}` as a collection of this store; {near}"));
                }
                return;
            };
            at = next;
        }
    }
}

/// The engine that an address speaks of; some have two names.
fn engine_of(url: &SecretText) -> &str {
    match url.dangerous_text().split(':').next().unwrap_or_default() {
        "postgresql" => "postgres",
        "mariadb" => "mysql",
        other => other,
    }
}

/// Refuses the address of a server on another host that may carry data in clear, unless its section says `insecure = true`; then
/// it is warned of.
pub(super) fn check_transport(
    (place, whose): (&Place, &str),
    url: &SecretText,
    insecure: bool,
    reading: &mut Reading<'_>,
) -> Option<()> {
    match transport(url) {
        Some(Transport::Local | Transport::Encrypted) => Some(()),
        Some(Transport::MayBeClear) if insecure => {
            reading.warn(format!("{whose}: `insecure = true`: the connection may be unencrypted"));
            Some(())
        }
        Some(Transport::MayBeClear) => {
            let what = format!("{whose}: the connection to another host may be unencrypted");
            let advice = "add `sslmode=verify-full` (MariaDB: `ssl-mode=VERIFY_IDENTITY`) to the address; where the network \
                          itself is protected, write `insecure = true` in the section of the store, [drill] or [agent]";
            reading.fault(place, what, advice);
            None
        }
        None => {
            let what = format!("{whose}: the database URL cannot be read");
            let advice = "encode signs such as `@`, `/` and `%` in user and password; see the modes of TLS in config/default.toml";
            reading.fault(place, what, advice);
            None
        }
    }
}

/// The parent table of `a, b -> parent`, if every part is there.
fn hop_parent(hop: &str) -> Option<&str> {
    let (columns, parent) = hop.split_once("->")?;
    let is_complete = columns.split(',').all(|column| !column.trim().is_empty());
    let parent = parent.trim();
    (is_complete && !parent.is_empty() && !parent.contains("->")).then_some(parent)
}

/// An `sqlite:` address with an absolute path. What the driver would decode in the folder's own name is encoded.
fn absolute_sqlite(url: &str, reading: &Reading<'_>) -> Option<SecretText> {
    let file = sqlite_file(url, reading.base_dir())?;
    let rest = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let absolute = if path.starts_with('/') {
        path.to_owned()
    } else {
        let folder = reading.base_dir().to_str()?.replace('%', "%25").replace('?', "%3F");
        debug_assert!(file.ends_with(path));
        format!("{folder}/{path}")
    };
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    Some(SecretText::new(format!("sqlite://{absolute}{query}")))
}
