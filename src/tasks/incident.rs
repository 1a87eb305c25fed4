//! `incident`: the file of a case, as digests of its documents. It is kept in the operation log and nowhere else: what is logged cannot be
//! taken back, and its content stays until three years after the case was closed.
//!
//! Each record names the entry of the record before it of its case, and the part of that, so that the next one misses what was taken away or
//! changed. Of the last record of a case only the log itself tells: an entry that has lost its content, and nobody knows whose.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::certify::check::is_id;
use crate::certify::lint::personal_shape;
use crate::error::with_causes;
use crate::installation::{Installation, LogView, Operation, view_operation_log};
use crate::log::record::{check_content, commitment};
use crate::log::verify::verify_log;

use super::media::file_digest;
use super::oplog::{Entry, emptied_early, entries, kept_from, older_than};
use super::{Result, TaskError};

/// A part of a case's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// How it was found.
    Find,
    /// What was looked into.
    Investigate,
    /// Who was told: authorities, customers.
    Notify,
    /// What was done about it.
    Fix,
    /// What is to be learnt from it.
    Evaluate,
}

impl Part {
    /// All parts, in their order.
    pub const ALL: [Self; 5] = [Self::Find, Self::Investigate, Self::Notify, Self::Fix, Self::Evaluate];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Investigate => "investigate",
            Self::Notify => "notify",
            Self::Fix => "fix",
            Self::Evaluate => "evaluate",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// A document of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseDocument {
    /// The part it belongs to.
    pub part: Part,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// When it was recorded.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: String,
}

/// A case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Its id.
    pub id: String,
    /// When it was opened; none when that record is gone.
    pub opened_at: Option<DateTime<Utc>>,
    /// When it was closed.
    pub closed_at: Option<DateTime<Utc>>,
    /// Its documents, in the order in which they were recorded.
    pub documents: Vec<CaseDocument>,
    /// The entry of its last record by its commitment, and the part that it is of.
    last: (String, Option<Part>),
}

impl Incident {
    /// Parts of which there is no document.
    #[must_use]
    pub fn missing(&self) -> Vec<Part> {
        Part::ALL.into_iter().filter(|part| !self.documents.iter().any(|document| document.part == *part)).collect()
    }
}

/// A record of a case in the log.
struct Recorded<'e> {
    entry: &'e Entry,
    step: &'e str,
    case: &'e str,
}

impl<'e> Recorded<'e> {
    /// If it is one, whatever became of it.
    fn of(entry: &'e Entry) -> Option<Self> {
        let step =
            entry.operation().strip_prefix("incident.").filter(|step| ["open", "add", "close"].contains(step))?;
        let case = entry.objects().next()?;
        (entry.record["status_id"] == 1).then_some(Self { entry, step, case })
    }

    fn reference(&self, name: &str) -> Option<&'e str> {
        self.entry.record.pointer("/unmapped/references")?.get(name)?.as_str()
    }

    fn part(&self, name: &str) -> Option<Part> {
        self.reference(name).and_then(Part::of_name)
    }

    /// Whether its content is that to which the log is committed.
    fn is_as_written(&self) -> bool {
        let salt = self.entry.salt.as_deref().and_then(|salt| hex::decode(salt).ok()).unwrap_or_default();
        let text = self.entry.text.as_deref().unwrap_or_default();
        hex::encode(commitment(&salt, text.as_bytes())) == self.entry.commitment
    }
}

/// The records of cases as they were written, oldest first.
fn recorded(all: &[Entry]) -> impl Iterator<Item = Recorded<'_>> {
    all.iter().filter_map(Recorded::of).filter(Recorded::is_as_written)
}

fn cases(all: &[Entry]) -> BTreeMap<String, Incident> {
    let mut cases: BTreeMap<String, Incident> = BTreeMap::new();
    for record in recorded(all) {
        let case = cases.entry(record.case.to_owned()).or_insert_with(|| Incident {
            id: record.case.to_owned(),
            opened_at: None,
            closed_at: None,
            documents: Vec::new(),
            last: (String::new(), None),
        });
        let at = record.entry.time;
        let by = record.entry.record.pointer("/actor/user/uid").and_then(Value::as_str).unwrap_or_default();
        match record.step {
            "open" => case.opened_at = Some(at),
            "close" => case.closed_at = Some(at),
            _ => {
                let document = record.part(PART).zip(record.reference(SHA256));
                case.documents.extend(document.map(|(part, sha256)| CaseDocument {
                    part,
                    sha256: sha256.to_owned(),
                    at,
                    by: by.to_owned(),
                }));
            }
        }
        case.last = (record.entry.commitment.clone(), record.part(PART));
    }
    cases
}

/// What a record refers to: the part of its document, its digest, the record before it, the part of that.
const PART: &str = "part";
const SHA256: &str = "sha256";
const PREVIOUS: &str = "previous";
const PREVIOUS_PART: &str = "previous_part";

/// SHA-256 of no bytes.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// All cases.
///
/// # Errors
/// When the log cannot be read.
pub async fn incidents(installation: &Installation) -> Result<Vec<Incident>> {
    let all = entries(&view_operation_log(installation).await?).await?;
    Ok(cases(&all).into_values().collect())
}

async fn find(installation: &Installation, id: &str) -> Result<Option<Incident>> {
    let all = entries(&view_operation_log(installation).await?).await?;
    Ok(cases(&all).remove(id))
}

async fn find_open(installation: &Installation, id: &str) -> Result<Incident> {
    match find(installation, id).await? {
        None => Err(TaskError::Unknown {
            what: "there is no such incident".to_owned(),
            advice: "see `wangchuan incident list`".to_owned(),
        }),
        Some(case) if case.closed_at.is_some() => Err(TaskError::refused(
            format!("incident {id} is closed"),
            "open another one for what came later; a closed file stays as it is",
        )),
        Some(case) => Ok(case),
    }
}

/// Logs a step of a case, with the record before it.
async fn log(installation: &Installation, name: &str, case: &Incident, of: Vec<(&str, String)>) -> Result<()> {
    let (previous, part) = &case.last;
    let before = [(PREVIOUS, Some(previous.clone())), (PREVIOUS_PART, part.map(|part| part.name().to_owned()))];
    let before = before.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let references = of.into_iter().chain(before).map(|(name, value)| (name.to_owned(), value)).collect();
    installation.log(Operation { name, object: &case.id, outcome: "success", references, ..Operation::default() }).await
}

/// Opens a case.
///
/// # Errors
/// Refused when there is one with this id, or the id could be somebody's.
pub async fn open_incident(installation: &Installation, id: &str) -> Result<()> {
    if !is_id(id) || id.len() > 64 || personal_shape(id).is_some() {
        return Err(TaskError::refused(
            "an incident's id is a case or file number without spaces, and no personal data",
            "give another id, such as `case-17`",
        ));
    }
    if find(installation, id).await?.is_some() {
        return Err(TaskError::refused(format!("there is an incident {id}"), "give another id"));
    }
    installation.log_operation("incident.open", id, "success").await
}

/// Records a document of a case by its digest; the document stays where it is, and its name is not kept. Returns the digest.
///
/// # Errors
/// When the document cannot be read; refused when it is empty, there is no such case, it is closed, or it has this document in this part.
pub async fn add_document(installation: &Installation, id: &str, part: Part, document: &Path) -> Result<String> {
    let digest = file_digest(document).await.map_err(|error| unreadable(document, &error))?;
    if digest == EMPTY {
        return Err(TaskError::refused(
            "the document is empty",
            "look whether it was written to its end, and give the file with its content",
        ));
    }
    let case = find_open(installation, id).await?;
    if case.documents.iter().any(|known| known.part == part && known.sha256 == digest) {
        return Err(TaskError::refused(
            format!("incident {id} has this document in its part `{}`", part.name()),
            "nothing is left to do; see `wangchuan incident list`",
        ));
    }
    let of = vec![(PART, part.name().to_owned()), (SHA256, digest.clone())];
    log(installation, "incident.add", &case, of).await?;
    Ok(digest)
}

/// Closes a case whose file is whole.
///
/// # Errors
/// Refused when there is no such case, it is closed, or a part is missing.
pub async fn close_incident(installation: &Installation, id: &str) -> Result<()> {
    let case = find_open(installation, id).await?;
    let missing: Vec<&str> = case.missing().into_iter().map(Part::name).collect();
    if !missing.is_empty() {
        return Err(TaskError::refused(
            format!("the file of incident {id} has {} of 5 parts; missing: {}", 5 - missing.len(), missing.join(", ")),
            "add a document for each with `wangchuan incident add`",
        ));
    }
    log(installation, "incident.close", &case, vec![("documents", case.documents.len().to_string())]).await
}

fn unreadable(path: &Path, error: &std::io::Error) -> TaskError {
    TaskError::Unknown {
        what: format!("{} cannot be read: {error}", path.display()),
        advice: "check the path and its permissions".to_owned(),
    }
}

/// What is wrong with a case's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IncidentFault {
    /// The case; null where it is not known.
    pub incident: Option<String>,
    /// The part; null where none is to blame, or it is not known.
    pub part: Option<Part>,
    /// What is wrong.
    pub what: String,
}

/// Checks the log whole, that no record of a case is missing, and, with `folder`, that each document of every case lies in it or below, under
/// whatever name. Cases that were closed three years ago are left out: what is kept of them may go at any time. Returns the others.
///
/// # Errors
/// When the log, the folder or a file in it cannot be read.
pub async fn verify_incidents(
    installation: &Installation,
    folder: Option<&Path>,
) -> Result<(Vec<Incident>, Vec<IncidentFault>)> {
    let there = match folder {
        Some(folder) => Some(digests_below(folder).await?),
        None => None,
    };
    let view = view_operation_log(installation).await?;
    let all = entries(&view).await?;
    let (now, zone) = (installation.clock.now(), installation.config.agent.timezone);
    let old = older_than(&all, kept_from(now, zone), now).into_iter().map(|entry| entry.index).collect();
    let over = over(&all, &old);
    let mut faults = of_log(&view).await;
    let mut named = HashSet::new();
    faults.extend(of_records(&all, &over, &mut named));
    let lost: Vec<u64> = emptied_early(&all, now, zone).into_iter().filter(|index| !named.contains(index)).collect();
    if let Some((first, others)) = lost.split_first() {
        let more = if others.is_empty() { String::new() } else { format!("; so did {} others", others.len()) };
        let what = format!("entry {first} of the operation log lost its content before three years were over{more}");
        faults.push(IncidentFault { incident: None, part: None, what });
    }
    let cases: Vec<Incident> = cases(&all).into_values().filter(|case| !over.contains(case.id.as_str())).collect();
    for case in &cases {
        of_case(case, there.as_ref(), &mut faults);
    }
    Ok((cases, faults))
}

/// What is wrong with the log as such.
async fn of_log(view: &LogView) -> Vec<IncidentFault> {
    let replayed = verify_log(&view.store, &view.key, view.head.as_deref(), &check_content).await;
    let wrong = replayed.err().map(|error| format!("the operation log: {}", with_causes(&error)));
    wrong.into_iter().map(|what| IncidentFault { incident: None, part: None, what }).collect()
}

/// Records that the next one misses, and changed ones that none misses. Adds the places of entries that are named.
fn of_records(all: &[Entry], over: &HashSet<String>, named: &mut HashSet<u64>) -> Vec<IncidentFault> {
    let places: HashMap<&str, u64> = all.iter().map(|entry| (entry.commitment.as_str(), entry.index)).collect();
    let mut known: HashSet<(&str, &str)> = HashSet::new();
    let mut faults = Vec::new();
    for record in recorded(all).filter(|record| !over.contains(record.case)) {
        let previous = record.reference(PREVIOUS);
        if previous.is_some_and(|previous| !known.contains(&(record.case, previous))) {
            let place = previous.and_then(|previous| places.get(previous));
            named.extend(place);
            let place = place.map_or_else(String::new, |index| format!(", entry {index} of the operation log,"));
            faults.push(IncidentFault {
                incident: Some(record.case.to_owned()),
                part: record.part(PREVIOUS_PART),
                what: format!("a record of it{place} is gone or was changed"),
            });
        }
        known.insert((record.case, &record.entry.commitment));
    }
    for record in all.iter().filter_map(Recorded::of).filter(|record| !record.is_as_written()) {
        if named.insert(record.entry.index) {
            faults.push(IncidentFault {
                incident: Some(record.case.to_owned()),
                part: record.part(PART),
                what: format!("its record, entry {} of the operation log, was changed", record.entry.index),
            });
        }
    }
    faults
}

/// Parts that are missing in a file that was closed, and documents that are not `there`.
fn of_case(case: &Incident, there: Option<&BTreeSet<String>>, faults: &mut Vec<IncidentFault>) {
    let fault = |part, what| IncidentFault { incident: Some(case.id.clone()), part: Some(part), what };
    for part in case.missing().into_iter().filter(|_| case.closed_at.is_some()) {
        let is_named = |known: &IncidentFault| known.incident.as_ref() == Some(&case.id) && known.part == Some(part);
        if !faults.iter().any(is_named) {
            faults.push(fault(part, "no record of it is left, and the file was whole when it was closed".to_owned()));
        }
    }
    let gone = |document: &&CaseDocument| there.is_some_and(|there| !there.contains(&document.sha256));
    faults.extend(
        case.documents.iter().filter(gone).map(|document| {
            fault(document.part, format!("its document {} is missing or was changed", document.sha256))
        }),
    );
}

/// SHA-256 of all files in a folder and below it, hex. Links to folders are not followed.
async fn digests_below(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(place) = open.pop() {
        let unread = |error| unreadable(&place, &error);
        let mut files = tokio::fs::read_dir(&place).await.map_err(unread)?;
        while let Some(file) = files.next_entry().await.map_err(unread)? {
            let path = file.path();
            if file.file_type().await.map_err(unread)?.is_dir() {
                open.push(path);
            } else if tokio::fs::metadata(&path).await.is_ok_and(|file| file.is_file()) {
                found.insert(file_digest(&path).await.map_err(|error| unreadable(&path, &error))?);
            }
        }
    }
    Ok(found)
}

/// Cases of which nothing must be kept any more: the entry of their closing is among the old ones.
fn over(all: &[Entry], old: &HashSet<u64>) -> HashSet<String> {
    let closings = recorded(all).filter(|record| record.step == "close" && old.contains(&record.entry.index));
    closings.map(|record| record.case.to_owned()).collect()
}

/// Places of entries that stay although they are `old`: those of all other cases.
pub(super) fn kept(all: &[Entry], old: &HashSet<u64>) -> HashSet<u64> {
    let over = over(all, old);
    let stays = all.iter().filter_map(Recorded::of).filter(|record| !over.contains(record.case));
    stays.map(|record| record.entry.index).collect()
}
