//! `[audit]`: the service that deletion certificates are filed to.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::secret::SecretValue;
use super::section::Reading;
use crate::log::cosignature::{Quorum, WitnessKey};
use crate::policy::registry::SecretText;

/// `[audit]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The service.
    pub service: AuditService,
    /// Its bearer token.
    pub token: Option<SecretText>,
    /// A file of additional certificate authorities, PEM.
    pub ca: Option<PathBuf>,
    /// The witnesses of the service's log, and how many of them make its heads witnessed.
    pub quorum: Quorum,
    /// Where each of those witnesses is asked, in the same order; only the embedded service asks.
    pub witness_urls: Vec<String>,
}

/// An audit service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditService {
    /// The one inside the agent: a log run by the audited party itself.
    Embedded {
        /// Its folder.
        data: PathBuf,
    },
    /// One elsewhere: `https://…`, or `http://` on the loopback.
    Url(String),
}

/// Where certificates go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudit {
    /// `embedded`, or the address of a service.
    url: String,
    /// Bearer token; a secret reference.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    token: Option<SecretValue>,
    /// File of additional certificate authorities, PEM.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// Folder of the embedded service.
    #[serde(default)]
    data: Option<PathBuf>,
    /// Witnesses of the log, best run by others: they sign its heads, and see origin, size and root of them.
    #[serde(default)]
    witness: Vec<RawWitness>,
    /// How many witnesses make a head witnessed; all of them unless said otherwise.
    #[serde(default)]
    quorum: Option<usize>,
}

/// A witness.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawWitness {
    /// Its public key (C2SP vkey, type 4), as whoever runs it gives it out.
    key: String,
    /// Where the embedded service asks it (the prefix of `/add-checkpoint`).
    #[serde(default)]
    url: Option<String>,
}

impl RawAudit {
    pub(super) fn literals(&self) -> Vec<Place> {
        let is_literal = self.token.as_ref().is_some_and(SecretValue::is_literal);
        if is_literal { vec![Place::of("audit").key("token")] } else { Vec::new() }
    }

    pub(super) fn check(&self, reading: &mut Reading<'_>) -> Option<Audit> {
        let place = Place::of("audit");
        let token = match &self.token {
            Some(token) => Some(reading.secret(&place.key("token"), token)?),
            None => None,
        };
        let service = if self.url == "embedded" {
            let data = self.data.clone().unwrap_or_else(|| PathBuf::from("audit"));
            Some(AuditService::Embedded { data: reading.path(&data) })
        } else {
            if self.data.is_some() {
                let what = "`data` is the folder of the embedded service, and `url` names another one";
                reading.fault(&place.key("data"), what, "remove `data`, or write `url = \"embedded\"`");
            }
            reading.endpoint(&place.key("url"), &self.url).map(AuditService::Url)
        };
        let (quorum, witness_urls) = self.witnesses(reading)?;
        let ca = self.ca.as_ref().map(|ca| reading.path(ca));
        Some(Audit { service: service?, token, ca, quorum, witness_urls })
    }

    fn witnesses(&self, reading: &mut Reading<'_>) -> Option<(Quorum, Vec<String>)> {
        let place = Place::of("audit").key("witness");
        let (mut keys, mut urls) = (Vec::new(), Vec::new());
        for raw in &self.witness {
            match WitnessKey::parse(&raw.key) {
                Ok(key) => keys.push(key),
                Err(error) => reading.fault(&place, error.to_string(), "write the vkey that the witness gives out"),
            }
            match (&raw.url, self.url == "embedded") {
                (Some(url), true) => urls.extend(reading.endpoint(&place, url)),
                (None, false) => {}
                (Some(_), false) => {
                    let what = "the audit service asks its witnesses itself";
                    reading.fault(&place, what, "remove `url` of the witness, and keep its `key`");
                }
                (None, true) => {
                    let what = "the embedded service cannot ask a witness without its address";
                    reading.fault(&place, what, "write `url = \"https://…\"` beside its `key`");
                }
            }
        }
        match Quorum::new(keys, self.quorum.unwrap_or(self.witness.len())) {
            Ok(quorum) => Some((quorum, urls)),
            Err(error) => {
                let advice = "write 1 to the number of witnesses, each with a key of its own";
                reading.fault(&Place::of("audit").key("quorum"), error.to_string(), advice);
                None
            }
        }
    }
}
