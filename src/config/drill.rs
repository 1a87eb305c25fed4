//! `[drill]`: where restore tests of server databases find room.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::secret::SecretUrl;
use super::section::Reading;
use super::stores::check_transport;
use crate::policy::registry::{SecretText, StoreSpec};

/// `[drill]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drill {
    /// By store, the server on which its drills may make and remove databases of their own.
    pub scratch: BTreeMap<String, SecretText>,
}

/// Where drills find room.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDrill {
    /// By store, a server of the same engine, `postgres://…` or `mysql://…`; may hold secret references. A SQLite store needs
    /// none.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    scratch: BTreeMap<String, SecretUrl>,
    /// Whether these servers may be on another host without TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
}

/// The engine that a scheme stands for.
fn family(url: &str) -> Option<&'static str> {
    match url.split_once("://")?.0 {
        "postgres" | "postgresql" => Some("postgres"),
        "mysql" | "mariadb" => Some("mysql"),
        _ => None,
    }
}

impl RawDrill {
    pub(super) fn is_empty(&self) -> bool {
        self.scratch.is_empty() && !self.insecure
    }

    pub(super) fn literals(&self) -> Vec<Place> {
        let place = Place::of("drill").key("scratch");
        self.scratch.iter().filter(|(_, url)| url.is_literal()).map(|(store, _)| place.key(store)).collect()
    }

    pub(super) fn check(&self, stores: &[StoreSpec], reading: &mut Reading<'_>) -> Option<Drill> {
        let mut scratch = BTreeMap::new();
        let mut is_good = true;
        for (store, source) in &self.scratch {
            match Self::server(store, (source, self.insecure), stores, reading) {
                Some(url) => {
                    scratch.insert(store.clone(), url);
                }
                None => is_good = false,
            }
        }
        is_good.then_some(Drill { scratch })
    }

    fn server(
        store: &str,
        (source, insecure): (&SecretUrl, bool),
        stores: &[StoreSpec],
        reading: &mut Reading<'_>,
    ) -> Option<SecretText> {
        let place = Place::of("drill").key("scratch").key(store);
        let Some(spec) = stores.iter().find(|spec| spec.name == store) else {
            let near = super::diagnostic::suggest(store, &stores.iter().map(|spec| &*spec.name).collect::<Vec<_>>());
            reading.fault(&place, format!("there is no store `{store}`"), near);
            return None;
        };
        let Some(wanted) = family(spec.url.dangerous_text()) else {
            let what = "a SQLite store is drilled in a private file, and needs no scratch server";
            reading.fault(&place, what, "remove the key");
            return None;
        };
        let url = reading.url(&place, source)?;
        if family(url.dangerous_text()) != Some(wanted) {
            let what = format!("the scratch of store `{store}` must be a server of the same engine");
            reading.fault(&place, what, format!("begin with {wanted}://"));
            return None;
        }
        check_transport((&place, &format!("the scratch of store {store}")), &url, insecure, reading)?;
        Some(url)
    }
}
