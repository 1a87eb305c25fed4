//! `[audit]`: the service that deletion certificates are filed to.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Place;
use super::secret::SecretValue;
use super::section::Reading;
use crate::audit::webhook::WebhookSecret;
use crate::log::cosignature::{Quorum, WitnessKey};
use crate::policy::registry::SecretText;

/// `[audit]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The service.
    pub service: AuditService,
    /// Its bearer token.
    pub token: Option<SecretText>,
    /// A file of certificate authorities to trust instead of the system's, PEM.
    pub ca: Option<PathBuf>,
    /// Who the agent is to a service that asks for a client certificate.
    pub client: Option<ClientFiles>,
    /// The witnesses of the service's log, and how many of them make its heads witnessed.
    pub quorum: Quorum,
    /// Where each of those witnesses is asked, in the same order; only the embedded service asks.
    pub witness_urls: Vec<String>,
    /// Who stamps certificates with the time.
    pub timestamp: Option<Timestamping>,
}

/// A time-stamping authority (RFC 3161).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamping {
    /// Its address.
    pub url: String,
    /// The file of its root, and of those before it, PEM.
    pub trust: PathBuf,
}

/// A client certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The file of the certificate and those above it, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: SecretText,
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
    /// An address that certificates are posted to, which keeps no log.
    Webhook {
        /// The address: `https://…`, or `http://` on the loopback.
        url: String,
        /// What posts are signed with; several while one is replaced by another.
        secrets: Vec<SecretText>,
        /// The file of the keys with which it signs for what it took, PEM; none where it gives no receipts.
        acknowledged_by: Option<PathBuf>,
    },
}

/// How certificates are filed with a service elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Adapter {
    /// By the contract of audit services: PUT, and a receipt that is verified.
    #[default]
    Native,
    /// By a signed POST (Standard Webhooks): a success says that it arrived, and proves nothing but where `acknowledged_by` is set.
    Webhook,
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
    /// File of certificate authorities to trust instead of the system's, PEM.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// How it is spoken to: `native`, or `webhook`, which keeps no log.
    #[serde(default)]
    adapter: Adapter,
    /// Secrets of the webhook (`whsec_…`), the one in use first; secret references.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    webhook_secrets: Vec<SecretValue>,
    /// File of the public keys (P-256, PEM) with which the webhook signs for what it took. Each key in it is trusted: keep former ones there.
    #[serde(default)]
    acknowledged_by: Option<PathBuf>,
    /// File of the client certificate, PEM, with those between it and its authority.
    #[serde(default)]
    client_certificate: Option<PathBuf>,
    /// Private key of the client certificate, PEM; a secret reference.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    client_key: Option<SecretValue>,
    /// Folder of the embedded service.
    #[serde(default)]
    data: Option<PathBuf>,
    /// Witnesses of the log, best run by others: they sign its heads, and see origin, size and root of them.
    #[serde(default)]
    witness: Vec<RawWitness>,
    /// How many witnesses make a head witnessed; all of them unless said otherwise.
    #[serde(default)]
    quorum: Option<usize>,
    /// A time-stamping authority, which shows others when each certificate was there.
    #[serde(default)]
    timestamp: Option<RawTimestamping>,
}

/// A time-stamping authority (RFC 3161).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawTimestamping {
    /// Its address; plain http is allowed, since nothing goes out but a hash and what comes back is signed.
    url: String,
    /// File of its root certificate, PEM. Each certificate in it is trusted: keep former roots there for old time stamps.
    trust: PathBuf,
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
        let place = Place::of("audit");
        let single = [("token", &self.token), ("client_key", &self.client_key)].into_iter();
        let single = single.filter_map(|(key, secret)| Some((key, secret.as_ref()?)));
        let several = self.webhook_secrets.iter().map(|secret| ("webhook_secrets", secret));
        single.chain(several).filter(|(_, secret)| secret.is_literal()).map(|(key, _)| place.key(key)).collect()
    }

    pub(super) fn check(&self, reading: &mut Reading<'_>) -> Option<Audit> {
        let place = Place::of("audit");
        let token = match &self.token {
            Some(token) => Some(reading.secret(&place.key("token"), token)?),
            None => None,
        };
        let service = self.service(reading);
        let client = self.client(reading).ok()?;
        let (quorum, witness_urls) = self.witnesses(reading)?;
        let ca = self.ca.as_ref().map(|ca| reading.path(ca));
        let timestamp = match &self.timestamp {
            Some(raw) => Some(Self::timestamp(raw, reading)?),
            None => None,
        };
        Some(Audit { service: service?, token, ca, client, quorum, witness_urls, timestamp })
    }

    fn timestamp(raw: &RawTimestamping, reading: &mut Reading<'_>) -> Option<Timestamping> {
        let place = Place::of("audit").key("timestamp").key("url");
        // To the letter: some authorities tell paths with a last slash from others.
        let url = reading.open_endpoint(&place, &raw.url)?;
        Some(Timestamping { url, trust: reading.path(&raw.trust) })
    }

    fn service(&self, reading: &mut Reading<'_>) -> Option<AuditService> {
        let place = Place::of("audit");
        if self.adapter == Adapter::Webhook {
            return self.webhook(reading);
        }
        if !self.webhook_secrets.is_empty() {
            let what = "`webhook_secrets` are for `adapter = \"webhook\"`";
            reading.fault(&place.key("webhook_secrets"), what, "remove them, or write `adapter = \"webhook\"`");
        }
        if self.acknowledged_by.is_some() {
            let what = "`acknowledged_by` is for `adapter = \"webhook\"`: any other service gives receipts of a log";
            reading.fault(&place.key("acknowledged_by"), what, "remove it, or write `adapter = \"webhook\"`");
        }
        if self.url == "embedded" {
            let data = self.data.clone().unwrap_or_else(|| PathBuf::from("audit"));
            return Some(AuditService::Embedded { data: reading.path(&data) });
        }
        self.no_folder(reading);
        reading.endpoint(&place.key("url"), &self.url).map(AuditService::Url)
    }

    fn no_folder(&self, reading: &mut Reading<'_>) {
        if self.data.is_some() {
            let what = "`data` is the folder of the embedded service, and `url` names another one";
            reading.fault(&Place::of("audit").key("data"), what, "remove `data`, or write `url = \"embedded\"`");
        }
    }

    fn webhook(&self, reading: &mut Reading<'_>) -> Option<AuditService> {
        let place = Place::of("audit");
        self.no_folder(reading);
        for (key, is_there) in [("witness", !self.witness.is_empty()), ("quorum", self.quorum.is_some())] {
            if is_there {
                let what = "a webhook has no log that witnesses could sign";
                reading.fault(&place.key(key), what, "remove it, or write `adapter = \"native\"`");
            }
        }
        let at = place.key("webhook_secrets");
        if self.webhook_secrets.is_empty() {
            let advice = "add `webhook_secrets = [\"credential:NAME\"]`: what the other side checks signatures with";
            reading.fault(&place.key("adapter"), "posts to a webhook are signed, and there is no secret", advice);
            return None;
        }
        let resolved: Vec<_> = self.webhook_secrets.iter().filter_map(|secret| reading.secret(&at, secret)).collect();
        for error in resolved.iter().filter_map(|secret| WebhookSecret::parse(secret.dangerous_text()).err()) {
            reading.fault(&at, error.to_string(), "take it from the other side as it is");
        }
        reading.endpoint(&place.key("url"), &self.url)?;
        // To the letter: a path with a last slash is another one.
        let acknowledged_by = self.acknowledged_by.as_ref().map(|keys| reading.path(keys));
        Some(AuditService::Webhook { url: self.url.clone(), secrets: resolved, acknowledged_by })
    }

    /// Both parts of a client certificate, or neither; an error is noted as a fault.
    fn client(&self, reading: &mut Reading<'_>) -> Result<Option<ClientFiles>, ()> {
        let place = Place::of("audit");
        let missing = match (&self.client_certificate, &self.client_key) {
            (None, None) => return Ok(None),
            (Some(_), None) => ("client_certificate", "the client certificate has no key", "add `client_key`"),
            (None, Some(_)) => ("client_key", "the key has no client certificate", "add `client_certificate`"),
            (Some(certificate), Some(key)) if self.url.starts_with("https://") => {
                let key = reading.secret(&place.key("client_key"), key).ok_or(())?;
                return Ok(Some(ClientFiles { certificate: reading.path(certificate), key }));
            }
            (Some(_), Some(_)) => {
                let what = "a client certificate is shown over https:// only";
                ("client_certificate", what, "remove `client_certificate` and `client_key`")
            }
        };
        let (key, what, advice) = missing;
        reading.fault(&place.key(key), what, advice);
        Err(())
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
