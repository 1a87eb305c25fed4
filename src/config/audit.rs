//! `[audit]`: the service that deletion certificates are filed to.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::secret::SecretValue;
use super::section::Reading;
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
        Some(Audit { service: service?, token, ca: self.ca.as_ref().map(|ca| reading.path(ca)) })
    }
}
