//! `[agent]`: who this agent is, its control database, its zone and its jobs.

use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::SecretUrl;
use super::section::{Reading, sqlite_file};
use super::stores::check_transport;
pub use crate::control::StateLocation;
use crate::policy::mask;

/// `[agent]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The installation's name; part of object names, so it must not identify anybody.
    pub name: String,
    /// What its certificates are about: `prod` for the real thing, `test`, `demo`, … otherwise.
    pub environment: String,
    /// Where the control database lies.
    pub state: StateLocation,
    /// The folder of the key files and of the work lock; an SQLite control database lies in it as well.
    pub folder: PathBuf,
    /// The zone of schedules and of calendar days.
    pub timezone: Tz,
    /// The place the agent's host stands at.
    pub site: Option<String>,
    /// The folder of job files.
    pub jobs: PathBuf,
    /// The least severe events that are logged.
    pub log: LogLevel,
    /// The industry profile of policies that name none of their own.
    pub profile: Option<String>,
    /// The installation's own entries of the catalogue of statutes.
    pub statutes: Option<PathBuf>,
    /// How much is shown of customers' values, if not what the profile says.
    pub masks: Option<mask::Profile>,
    /// Secret files that everybody on the host may read, by explicit choice.
    pub allow_readable_secrets: Vec<PathBuf>,
}

/// The least severe events that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what needs attention.
    Warn,
    /// And what the agent did.
    #[default]
    Info,
    /// And why.
    Debug,
    /// Everything.
    Trace,
}

/// Who this agent is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgent {
    /// Name of the installation: letters, digits, `-`, `_`; at most 64.
    name: String,
    /// What certificates say they are about: `prod`, `test`, `demo`, …; as a name.
    #[serde(default = "default_environment")]
    environment: String,
    /// Control database, `sqlite://PATH` or `postgres://USER@HOST/DATABASE`.
    #[serde(default = "default_state")]
    #[schemars(with = "String")]
    state: SecretUrl,
    /// Whether a control database may be on another host without TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
    /// Folder of the agent's key files, beside a control database on a server; an SQLite file's own folder otherwise.
    #[serde(default)]
    folder: Option<PathBuf>,
    /// IANA zone of schedules and calendar days, for example `Asia/Shanghai`.
    timezone: String,
    /// Place of the agent's host.
    #[serde(default)]
    site: Option<String>,
    /// Folder of job files.
    #[serde(default = "default_jobs")]
    jobs: PathBuf,
    /// Log level.
    #[serde(default)]
    log: LogLevel,
    /// Industry profile of the catalogue: `ecommerce`, `finance`, `medical`, `consulting`, or one of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    /// A catalogue of your own, whose entries go before the built-in ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statutes: Option<PathBuf>,
    /// How much is shown of customers' values; by default what the profile says, and `standard` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    masks: Option<mask::Profile>,
    /// Secret files, or this file, that everybody on the host may read.
    #[serde(default)]
    pub(super) allow_readable_secrets: Vec<PathBuf>,
}

/// The folder of key files beside a control database on a server.
const DEFAULT_FOLDER: &str = "state";

fn default_environment() -> String {
    "prod".to_owned()
}

fn default_state() -> SecretUrl {
    SecretUrl::new("sqlite://wangchuan.db")
}

fn default_jobs() -> PathBuf {
    PathBuf::from("jobs")
}

impl RawAgent {
    pub(super) fn literals(&self) -> Vec<super::Place> {
        if self.state.is_literal() { vec![super::Place::of("agent").key("state")] } else { Vec::new() }
    }

    pub(super) fn check(&self, reading: &mut Reading<'_>) -> Option<Agent> {
        let place = super::Place::of("agent");
        let named = reading.name(&place.key("name"), &self.name);
        let environment = reading.name(&place.key("environment"), &self.environment);
        let timezone = reading.zone(&place.key("timezone"), &self.timezone);
        let state = self.state(&place, reading);
        named.and(environment)?;
        let state = state?;
        Some(Agent {
            name: self.name.clone(),
            environment: self.environment.clone(),
            folder: self.folder(&place, &state, reading)?,
            state,
            timezone: timezone?,
            site: self.site.clone(),
            jobs: reading.path(&self.jobs),
            log: self.log,
            profile: self.profile.clone(),
            statutes: self.statutes.as_ref().map(|path| reading.path(path)),
            masks: self.masks,
            allow_readable_secrets: self.allow_readable_secrets.iter().map(|path| reading.path(path)).collect(),
        })
    }

    fn state(&self, place: &super::Place, reading: &mut Reading<'_>) -> Option<StateLocation> {
        let url = reading.url(&place.key("state"), &self.state)?;
        let text = url.dangerous_text();
        if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            check_transport((&place.key("state"), "the control database"), &url, self.insecure, reading)?;
            return Some(StateLocation::Postgres(url));
        }
        let file = sqlite_file(text, reading.base_dir()).map(StateLocation::Sqlite);
        if file.is_none() {
            let what = "the control database is an SQLite file or a PostgreSQL database";
            let advice = "write `state = \"sqlite://wangchuan.db\"` or `state = \"postgres://USER@HOST/DATABASE\"`";
            reading.fault(&place.key("state"), what, advice);
        }
        file
    }

    fn folder(&self, place: &super::Place, state: &StateLocation, reading: &mut Reading<'_>) -> Option<PathBuf> {
        match (state, &self.folder) {
            (StateLocation::Sqlite(file), None) => Some(file.parent().map(Path::to_path_buf).unwrap_or_default()),
            (StateLocation::Sqlite(_), Some(_)) => {
                let what = "the key files lie beside an SQLite control database, so they have no folder of their own";
                reading.fault(&place.key("folder"), what, "take `folder` away, or name another file in `state`");
                None
            }
            (StateLocation::Postgres(_), folder) => {
                Some(reading.path(folder.as_deref().unwrap_or(Path::new(DEFAULT_FOLDER))))
            }
        }
    }
}
