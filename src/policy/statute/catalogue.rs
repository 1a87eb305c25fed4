//! The catalogue as it is written: read once, checked whole, an installation's own entries laid over the built-in ones.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::check::loosens;
use super::clock::LegalClock;
use super::rules::StatuteRule;
use super::{Bilingual, Citation, LegalBound, StartRule, Status, Statute};
use crate::policy::calendar::Period;
use crate::policy::mask;

/// The built-in catalogue's text.
pub const BUILT_IN: &str = include_str!("../../../config/statutes.toml");

/// A catalogue as it stands in a file: the built-in one, or an installation's own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogueFile {
    /// Rises with every change of the file.
    pub version: u32,
    /// Statutes.
    #[serde(default)]
    statute: Vec<RawStatute>,
    /// Legal clocks.
    #[serde(default)]
    clock: Vec<LegalClock>,
    /// Industry profiles.
    #[serde(default)]
    profile: Vec<Profile>,
}

/// A statute as it is written.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawStatute {
    /// Its key, as policies name it: `cn.ecl.31`. It begins with the jurisdiction, in small letters.
    key: String,
    /// ISO 3166 code of where it applies: `CN`, `EU`, `US-CA`.
    jurisdiction: String,
    /// What records it applies to.
    applies_to: Bilingual,
    /// What it demands.
    bound: BoundKind,
    /// How long; only with `minimum` and `maximum`.
    #[serde(default)]
    period: Option<Period>,
    /// From when it counts.
    #[serde(default)]
    counts_from: StartRule,
    /// The start event that the law means.
    start_event: Bilingual,
    /// Laws and articles.
    cites: Vec<Citation>,
    /// How far the entry was confirmed.
    status: Status,
    /// What else is worth knowing.
    #[serde(default)]
    note: Option<Bilingual>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum BoundKind {
    /// Keep at least so long.
    Minimum,
    /// Keep for ever.
    Permanent,
    /// Keep at most so long; binds only when confirmed.
    Maximum,
    /// Keep no longer than necessary.
    Necessary,
    /// A duty without a period.
    Duty,
}

/// What usually binds the records of an industry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, as `profile` in the configuration chooses it.
    pub name: String,
    /// What it is for.
    pub title: Bilingual,
    /// How much is shown of values.
    #[serde(default)]
    pub masks: mask::Profile,
    /// Its kinds of records, as `records` in a policy names them.
    #[serde(default)]
    pub records: Vec<RecordKind>,
}

/// A kind of record, and what binds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordKind {
    /// Its name.
    pub name: String,
    /// What it is.
    pub title: Bilingual,
    /// The statutes that bind it, by key.
    #[serde(default)]
    pub statutes: Vec<String>,
}

impl Profile {
    /// The kind of record with this name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&RecordKind> {
        self.records.iter().find(|kind| kind.name == name)
    }
}

/// Which catalogue it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CatalogueVersion {
    /// Version of the built-in catalogue.
    pub built_in: u32,
    /// Version of the installation's own entries, when it has any.
    pub own: Option<u32>,
}

impl fmt::Display for CatalogueVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.own {
            Some(own) => write!(f, "{} + {own}", self.built_in),
            None => write!(f, "{}", self.built_in),
        }
    }
}

/// All entries that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// Which it is.
    pub version: CatalogueVersion,
    /// The statutes, built-in ones first.
    pub statutes: Vec<Arc<Statute>>,
    /// The legal clocks.
    pub clocks: Vec<LegalClock>,
    /// The industry profiles.
    pub profiles: Vec<Profile>,
}

/// A catalogue that cannot be used. Trying again does not help; the file must be corrected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogueError {
    /// It is no TOML of this form.
    #[error("the catalogue cannot be read: {0}")]
    Malformed(String),
    /// An entry contradicts itself or another.
    #[error("entry {key:?} of the catalogue: {what}")]
    Entry {
        /// Its key or name.
        key: String,
        /// What is wrong.
        what: String,
    },
}

/// A key that the catalogue does not have. Retrying does not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no statute {0:?} in the catalogue; `statute list` shows all keys")]
pub struct UnknownStatute(pub String);

fn wrong(key: &str, what: impl Into<String>) -> CatalogueError {
    CatalogueError::Entry { key: key.to_owned(), what: what.into() }
}

impl Catalogue {
    /// The built-in catalogue. A test reads it, so it only fails in a build whose tests do.
    ///
    /// # Errors
    /// When the embedded text is wrong.
    pub fn built_in() -> Result<Self, CatalogueError> {
        let file = toml::from_str::<CatalogueFile>(BUILT_IN);
        let file = file.map_err(|error| CatalogueError::Malformed(error.to_string()))?;
        let nothing = CatalogueVersion { built_in: file.version, own: None };
        let empty = Self { version: nothing, statutes: Vec::new(), clocks: Vec::new(), profiles: Vec::new() };
        let mut read = empty.with(file)?;
        read.version = nothing;
        Ok(read)
    }

    /// These entries with an installation's own: one with a known key takes the place of the entry it names, others are added.
    ///
    /// # Errors
    /// When an entry contradicts itself, when a profile names a statute that does not exist, or when an entry that nobody
    /// confirmed would let records go earlier than the one it replaces.
    pub fn with(mut self, file: CatalogueFile) -> Result<Self, CatalogueError> {
        self.version.own = Some(file.version);
        let mut seen = HashSet::new();
        for raw in file.statute {
            let statute = checked(raw)?;
            if !seen.insert(statute.key.clone()) {
                return Err(wrong(&statute.key, "it stands there twice"));
            }
            match self.statutes.iter_mut().find(|known| known.key == statute.key) {
                Some(known) => {
                    let (old, new) = (StatuteRule::of(known), StatuteRule::of(&statute));
                    if loosens(&old, &new) && statute.status != Status::Confirmed {
                        let what = format!(
                            "records could go earlier than by the entry it replaces ({}), and its status is {}; only a \
                             confirmed entry may do that",
                            known.bound, statute.status
                        );
                        return Err(wrong(&statute.key, what));
                    }
                    *known = Arc::new(statute);
                }
                None => self.statutes.push(Arc::new(statute)),
            }
        }
        put(&mut self.clocks, file.clock, |clock| &clock.key)?;
        put(&mut self.profiles, file.profile, |profile| &profile.name)?;
        self.check_clocks()?;
        self.check_profiles()?;
        Ok(self)
    }

    fn check_clocks(&self) -> Result<(), CatalogueError> {
        for clock in &self.clocks {
            check_names(&clock.key, &clock.jurisdiction)?;
            check_texts(&clock.key, &[&clock.applies_to, &clock.start_event], &clock.cites)?;
            if clock.steps.is_empty() {
                return Err(wrong(&clock.key, "it has no step"));
            }
        }
        Ok(())
    }

    fn check_profiles(&self) -> Result<(), CatalogueError> {
        for profile in &self.profiles {
            let mut names = HashSet::new();
            for kind in &profile.records {
                if !names.insert(&kind.name) {
                    return Err(wrong(&profile.name, format!("it has two kinds of records {:?}", kind.name)));
                }
                if let Some(unknown) = kind.statutes.iter().find(|key| self.find(key).is_none()) {
                    return Err(wrong(&profile.name, UnknownStatute(unknown.clone()).to_string()));
                }
            }
        }
        Ok(())
    }

    /// The entry with this key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Arc<Statute>> {
        self.statutes.iter().find(|statute| statute.key == key)
    }

    /// The entries with these keys, in the same order.
    ///
    /// # Errors
    /// [`UnknownStatute`] for the first key without an entry.
    pub fn find_all(&self, keys: &[String]) -> Result<Vec<Arc<Statute>>, UnknownStatute> {
        keys.iter().map(|key| self.find(key).cloned().ok_or_else(|| UnknownStatute(key.clone()))).collect()
    }

    /// The profile with this name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }
}

/// Adds entries, or puts them in the place of those with the same name.
fn put<T>(known: &mut Vec<T>, own: Vec<T>, name: fn(&T) -> &String) -> Result<(), CatalogueError> {
    let mut seen: HashSet<String> = HashSet::new();
    for entry in own {
        if !seen.insert(name(&entry).clone()) {
            return Err(wrong(name(&entry), "it stands there twice"));
        }
        match known.iter_mut().find(|other| name(other) == name(&entry)) {
            Some(other) => *other = entry,
            None => known.push(entry),
        }
    }
    Ok(())
}

fn checked(raw: RawStatute) -> Result<Statute, CatalogueError> {
    let bound = match (raw.bound, raw.period) {
        (BoundKind::Minimum, Some(period)) => LegalBound::Minimum(period),
        (BoundKind::Maximum, Some(period)) => LegalBound::Maximum(period),
        (BoundKind::Permanent, None) => LegalBound::Permanent,
        (BoundKind::Necessary, None) => LegalBound::Necessary,
        (BoundKind::Duty, None) => LegalBound::Duty,
        (BoundKind::Minimum | BoundKind::Maximum, None) => return Err(wrong(&raw.key, "its bound needs a `period`")),
        _ => return Err(wrong(&raw.key, "its bound has no `period`")),
    };
    if matches!(bound, LegalBound::Minimum(period) | LegalBound::Maximum(period) if period == Period::of_days(0)) {
        return Err(wrong(&raw.key, "its period is empty"));
    }
    check_names(&raw.key, &raw.jurisdiction)?;
    check_texts(&raw.key, &[&raw.applies_to, &raw.start_event], &raw.cites)?;
    Ok(Statute {
        key: raw.key,
        jurisdiction: raw.jurisdiction,
        applies_to: raw.applies_to,
        bound,
        start: raw.counts_from,
        start_event: raw.start_event,
        cites: raw.cites,
        status: raw.status,
        note: raw.note,
    })
}

/// Keys stand in reasons (`restricted:KEY:KEY`), so they have no colon.
fn check_names(key: &str, jurisdiction: &str) -> Result<(), CatalogueError> {
    let plain =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '.' | '-' | '_');
    let country = jurisdiction.split('-').next().unwrap_or_default();
    let is_code = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '-';
    if country.len() != 2 || !jurisdiction.chars().all(is_code) {
        return Err(wrong(
            key,
            format!("{jurisdiction:?} is no jurisdiction; write an ISO 3166 code such as CN or US-CA"),
        ));
    }
    if !key.chars().all(plain) || !key.starts_with(&format!("{}.", country.to_lowercase())) || key.len() > 64 {
        let what =
            format!("a key has at most 64 of a-z, 0-9, `.`, `-`, `_` and begins with {}.", country.to_lowercase());
        return Err(wrong(key, what));
    }
    Ok(())
}

fn check_texts(key: &str, texts: &[&Bilingual], cites: &[Citation]) -> Result<(), CatalogueError> {
    let names = cites.iter().flat_map(|citation| [&citation.en, &citation.zh]);
    let all = texts.iter().flat_map(|text| [&text.en, &text.zh]).chain(names);
    if cites.is_empty() {
        return Err(wrong(key, "it cites no law"));
    }
    if all.into_iter().any(|text| text.trim().is_empty()) {
        return Err(wrong(key, "a text is empty"));
    }
    Ok(())
}
