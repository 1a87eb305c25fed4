//! Configuration: one TOML file, turned once into typed values.
//!
//! Every key is known or refused, every fault is reported with its place and what to do, all faults at once. Secrets are
//! resolved here (see [`secret`]) and leave this module only as [`crate::policy::registry::SecretText`].
//! Paths are relative to the file, and absolute from here on.

mod agent;
mod alerts;
mod audit;
mod backup;
mod diagnostic;
mod document;
mod drill;
mod find;
mod law;
mod outside;
mod policies;
mod root;
mod root_kms;
pub mod schema;
pub mod secret;
mod section;
mod stores;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

pub use agent::{Agent, LogLevel, StateLocation};
pub use alerts::Alerts;
pub use audit::{Audit, AuditService, ClientFiles, Timestamping};
pub use backup::{Backup, ChainBounds, Credentials, Endpoint, Lock, LockMode, PruneMode};
pub(crate) use diagnostic::suggest;
pub use diagnostic::{Fault, Faults, Position};
pub use document::{Document, Place};
pub use drill::Drill;
pub use find::{Found, Origin, Surroundings, find};
pub use law::read_catalogue;
pub use outside::{BoundTo, OutsideAccess, OutsideKey, SealedField};
pub use policies::{Registry, UnknownCollection};
pub use root::signing::SigningSettings;
pub use root::{Root, SlotSettings};
pub use secret::secret_file;
pub(crate) use section::zone_advice;

use crate::policy::registry::Policy;
use crate::policy::{mask, statute};
use secret::Resolver;
use section::Reading;

/// The commented file that `init` starts from.
pub const TEMPLATE: &str = include_str!("../../config/default.toml");

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The file it came from.
    pub source: PathBuf,
    /// The folder of the file, from which its paths are counted.
    pub base_dir: PathBuf,
    /// Who this agent is.
    pub agent: Agent,
    /// The root slot.
    pub root: Root,
    /// Where the signing key lies.
    pub signing: SigningSettings,
    /// Where backups go, if any store is backed up.
    pub backup: Option<Backup>,
    /// Where certificates go.
    pub audit: Audit,
    /// Where restore tests find room.
    pub drill: Drill,
    /// What raises an alert.
    pub alerts: Alerts,
    /// The stores and policies; each policy names every statute that binds it, those of its kind of records included.
    pub registry: Registry,
    /// The statutes that count here.
    pub catalogue: statute::Catalogue,
    /// Keys of applications that the agent answers for.
    pub outside_keys: Vec<OutsideKey>,
    /// What is allowed but doubtful; to be shown, one line each.
    pub warnings: Vec<String>,
    effective: String,
}

impl Configuration {
    /// The configuration in effect as TOML: defaults filled in, literal secrets masked, references as written.
    #[must_use]
    pub fn show(&self) -> &str {
        &self.effective
    }

    /// How much is shown of customers' values.
    #[must_use]
    pub fn masks(&self) -> mask::Profile {
        let profile = self.agent.profile.as_ref().and_then(|name| self.catalogue.profile(name));
        self.agent.masks.or_else(|| profile.map(|profile| profile.masks)).unwrap_or_default()
    }
}

/// Why there is no configuration. None of these goes away by retrying.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No file was found.
    #[error("no configuration file found; looked for {}", looked_for.join(", "))]
    NotFound {
        /// The places, in order, with what was the matter there.
        looked_for: Vec<String>,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{0}")]
    Invalid(Faults),
}

/// The whole file as written. The sections are read one by one, this type describes them together.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawConfiguration {
    /// Who this agent is.
    agent: agent::RawAgent,
    /// Where the root key lies.
    root: root::RawRoot,
    /// Where the key lies that signs certificates.
    #[serde(default, skip_serializing_if = "root::signing::RawSigning::is_default")]
    signing: root::signing::RawSigning,
    /// Where backups go.
    #[serde(default)]
    backup: Option<backup::RawBackup>,
    /// Where certificates go.
    audit: audit::RawAudit,
    /// Where restore tests find room.
    #[serde(default, skip_serializing_if = "drill::RawDrill::is_empty")]
    drill: drill::RawDrill,
    /// What raises an alert: work on many records outside of working hours.
    #[serde(default, skip_serializing_if = "alerts::RawAlerts::is_default")]
    alerts: alerts::RawAlerts,
    /// Registered data stores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    store: Vec<stores::RawStore>,
    /// Deletion rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    policy: Vec<Policy>,
    /// Keys of applications that the agent destroys when their time is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outside_key: Vec<outside::RawOutsideKey>,
}

/// A larger file is not what was meant. In bytes.
const FILE_LIMIT: u64 = 1 << 20;

const SECTIONS: [&str; 10] =
    ["agent", "root", "signing", "backup", "audit", "drill", "alerts", "store", "policy", "outside_key"];

/// Reads and checks the configuration file at `path`.
///
/// # Errors
/// When it cannot be read, or with everything that is wrong with it.
pub fn load(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Configuration, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut opened = fs::File::open(path).map_err(unreadable)?;
    let metadata = opened.metadata().map_err(unreadable)?;
    if metadata.len() > FILE_LIMIT {
        let fault = Fault::of_file(path, format!("a configuration file has at most {FILE_LIMIT} bytes"));
        return Err(ConfigError::Invalid(Faults(vec![fault.advice("name the right file")])));
    }
    let mut text = Zeroizing::new(String::new());
    opened.read_to_string(&mut text).map_err(unreadable)?;
    let source = std::path::absolute(path).map_err(unreadable)?;
    let is_readable = secret::is_world_readable(&metadata);
    let file = File { shown_as: path, source: &source, is_world_readable: is_readable };
    parse(&text, &file, variable).map_err(|faults| ConfigError::Invalid(Faults(faults)))
}

/// The file a text came from.
struct File<'a> {
    shown_as: &'a Path,
    source: &'a Path,
    is_world_readable: bool,
}

fn parse(text: &str, file: &File<'_>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Configuration, Vec<Fault>> {
    let document = Document::parse(file.shown_as, text)?;
    let raw = read_sections(&document)?;
    let base_dir = file.source.parent().unwrap_or(Path::new("/"));
    let allow_readable: Vec<PathBuf> =
        raw.agent.allow_readable_secrets.iter().map(|path| base_dir.join(path)).collect();
    let resolver = Resolver { variable, base_dir, allow_readable: &allow_readable };
    let mut reading = Reading::new(&document, resolver);
    if file.is_world_readable && !allow_readable.iter().any(|path| path == file.source) {
        check_literals(&raw, file, &mut reading);
    }
    let agent = raw.agent.check(&mut reading);
    let root = raw.root.check(&mut reading);
    let signing = raw.signing.check(&mut reading);
    let backup = raw.backup.as_ref().map(|backup| backup.check(&mut reading));
    let audit = raw.audit.check(&mut reading);
    let alerts = raw.alerts.check(agent.as_ref().map(|agent| agent.timezone), &mut reading);
    let mut stores = Vec::new();
    for (number, store) in raw.store.iter().enumerate() {
        stores.push(store.check(&Place::of("store").index(number), agent.as_ref(), &mut reading));
    }
    // Cross checks would only repeat what is already known to be wrong with a store or the bucket.
    let stores: Option<Vec<_>> = stores.into_iter().collect();
    let backup = backup.map_or(Some(None), |backup| backup.map(Some));
    let drill = stores.as_ref().and_then(|stores| raw.drill.check(stores, &mut reading));
    let catalogue = agent.as_ref().and_then(|agent| law::check(agent, &mut reading));
    let mut registry = stores.map(|stores| Registry { stores, policies: raw.policy.clone() });
    if let (Some(registry), Some(backup), Some(agent), Some(catalogue)) = (&mut registry, &backup, &agent, &catalogue) {
        law::apply_profiles(agent, catalogue, &mut registry.policies, &mut reading);
        policies::check(registry, backup.as_ref(), catalogue, &mut reading);
    }
    let outside_keys = outside::check_all(&raw.outside_key, registry.as_ref(), &mut reading);
    let effective = toml::to_string_pretty(&raw);
    let registry = registry.zip(catalogue);
    let (
        Some(agent),
        Some(root),
        Some(signing),
        Some(backup),
        Some(audit),
        Some((drill, alerts)),
        Some((registry, catalogue)),
        Ok(effective),
        true,
    ) = (agent, root, signing, backup, audit, drill.zip(alerts), registry, effective, reading.faults.is_empty())
    else {
        return Err(sorted(reading.faults));
    };
    let (source, base_dir) = (file.source.to_owned(), base_dir.to_owned());
    let warnings = reading.warnings;
    Ok(Configuration {
        source,
        base_dir,
        agent,
        root,
        signing,
        backup,
        audit,
        drill,
        alerts,
        registry,
        catalogue,
        outside_keys,
        warnings,
        effective,
    })
}

fn read_sections(document: &Document<'_>) -> Result<RawConfiguration, Vec<Fault>> {
    let mut faults = document.unknown_keys(&SECTIONS);
    let mut note = |more: Vec<Fault>| faults.extend(more);
    let agent = document.section(&Place::of("agent")).map_err(&mut note).ok();
    let root = document.section(&Place::of("root")).map_err(&mut note).ok();
    let signing = if document.has("signing") {
        document.section(&Place::of("signing")).map_err(&mut note).ok()
    } else {
        Some(root::signing::RawSigning::default())
    };
    let backup = if document.has("backup") {
        document.section(&Place::of("backup")).map_err(&mut note).ok().map(Some)
    } else {
        Some(None)
    };
    let audit = document.section(&Place::of("audit")).map_err(&mut note).ok();
    let drill = if document.has("drill") {
        document.section(&Place::of("drill")).map_err(&mut note).ok()
    } else {
        Some(drill::RawDrill::default())
    };
    let alerts = if document.has("alerts") {
        document.section(&Place::of("alerts")).map_err(&mut note).ok()
    } else {
        Some(alerts::RawAlerts::default())
    };
    let store = document.elements("store").map_err(&mut note).ok();
    let policy = document.elements("policy").map_err(&mut note).ok();
    let outside_key = document.elements("outside_key").map_err(&mut note).ok();
    let repeated = (store, policy, outside_key);
    match (agent, root, signing, backup, audit, drill.zip(alerts), repeated, faults.is_empty()) {
        (
            Some(agent),
            Some(root),
            Some(signing),
            Some(backup),
            Some(audit),
            Some((drill, alerts)),
            (Some(store), Some(policy), Some(outside_key)),
            true,
        ) => Ok(RawConfiguration { agent, root, signing, backup, audit, drill, alerts, store, policy, outside_key }),
        _ => Err(sorted(faults)),
    }
}

/// A literal password in a file that everybody can read is as good as published.
fn check_literals(raw: &RawConfiguration, file: &File<'_>, reading: &mut Reading<'_>) {
    let mut places = raw.agent.literals();
    places.extend(raw.backup.iter().flat_map(backup::RawBackup::literals));
    places.extend(raw.root.literals());
    places.extend(raw.signing.literals());
    places.extend(raw.audit.literals());
    places.extend(raw.drill.literals());
    for (number, store) in raw.store.iter().enumerate() {
        places.extend(store.literals(&Place::of("store").index(number)));
    }
    for (number, key) in raw.outside_key.iter().enumerate() {
        places.extend(key.literals(&Place::of("outside_key").index(number)));
    }
    for place in places {
        let what = "a secret stands here in clear, and everybody on this host can read the file";
        let advice = format!(
            "use `${{VARIABLE}}` or `file:PATH`, or chmod o-r '{}', or name the file in `allow_readable_secrets`",
            file.shown_as.display()
        );
        reading.fault(&place, what, advice);
    }
}

/// In the order of the file.
fn sorted(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|fault| fault.position);
    faults
}
