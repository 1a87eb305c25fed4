//! The report of a period: totals that follow from the operation log and the certificates alone, signed. Pure.
//!
//! Whoever has both can count again ([`totals`]) and is told by name what differs ([`differences`]).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::codes::{ErasureResult, Limitation};
use super::dsse::{Envelope, pae};
use super::signer::{SignedError, TrustedKeys, open_signed};
use super::statement::{Statement, Timestamp};
use super::{Said, VerifiedCertificate};

/// The payload type of a report's signed envelope.
pub const REPORT_TYPE: &str = "application/vnd.wangchuan.report+json";
/// The form of reports.
const FORMAT_VERSION: u32 = 1;
/// Within so many days a request is to be answered.
const ANSWER_DAYS: i64 = 30;
/// What stands in the place of a policy when somebody asked.
const REQUEST: &str = "request";

/// Why a report cannot be believed. Trying again does not help.
#[derive(Debug, Error)]
pub enum ReportError {
    /// It is not what a trusted key signed.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It is of another version.
    #[error("it is no report that this version knows")]
    OtherKind,
    /// The signed payload cannot be read.
    #[error("the signed report cannot be read")]
    Json(#[source] serde_json::Error),
}

/// What became of rows of one table under one policy, as certificates tell it: `due = erased + anonymised + kept + failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyRows {
    /// The policy, several with `+` between them, or `request` where a customer asked.
    pub policy: String,
    /// Store and table, as in certificates.
    pub place: String,
    /// Rows that were due.
    pub due: u64,
    /// Rows absent from the live store.
    pub erased: u64,
    /// Rows made anonymous.
    pub anonymised: u64,
    /// Rows that were kept, with a reason.
    pub kept: u64,
    /// Rows that failed.
    pub failed: u64,
}

/// What the log tells of erasures that ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSums {
    /// Runs that ended.
    pub ended: u64,
    /// Those that failed.
    pub went_wrong: u64,
    /// Those that were taken back within grace.
    pub undone: u64,
    /// Rows that were due.
    pub due: u64,
    /// Rows absent from the live stores.
    pub erased: u64,
    /// Rows made anonymous.
    pub anonymised: u64,
    /// Rows that were kept, stripped ones included.
    pub kept: u64,
    /// The rest.
    pub failed: u64,
}

/// What the log tells of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableSums {
    /// Store and table.
    pub table: String,
    /// Rows that were deleted.
    pub deleted: u64,
    /// Rows that were anonymised or stripped.
    pub modified: u64,
}

/// Customers' requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestSums {
    /// Received in the period.
    pub received: u64,
    /// Asked again while open.
    pub again: u64,
    /// Withdrawn.
    pub withdrawn: u64,
    /// Ended for another reason before anything was carried out.
    pub turned_down: u64,
    /// Answered: those with a first certificate in the period.
    pub answered: u64,
    /// Of these, those whose erasure ended after its legal date.
    pub answered_late: u64,
    /// Received in the period, and neither answered nor ended in it.
    pub unanswered: u64,
    /// Of these, those whose 30 days were over within the period.
    pub overdue: u64,
}

/// How often something was done, and how often it failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tries {
    /// It was done.
    pub done: u64,
    /// It failed, or found something wrong.
    pub went_wrong: u64,
}

/// All totals.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// By policy and table, of erasures whose first certificate is of the period; each as its last certificate in the period has it.
    pub rows: Vec<PolicyRows>,
    /// Erasures, from the log.
    pub erasures: RunSums,
    /// Tables, from the log.
    pub tables: Vec<TableSums>,
    /// Customers' requests.
    pub requests: RequestSums,
    /// Snapshots.
    pub backups: Tries,
    /// Restore tests; those that failed gave back what should not, or not what should.
    pub drills: Tries,
    /// Rows and frames of erased data that were there again in drills.
    pub reappeared: u64,
    /// Looks whether what was erased is still gone.
    pub rechecks: Tries,
    /// Changes of the key generation in which keys were destroyed.
    pub shreds: Tries,
    /// Different keys of which certificates tell the destruction.
    pub keys_destroyed: u64,
    /// Keys of applications that were destroyed.
    pub outside_keys: Tries,
    /// Certificates by result.
    pub certificates_by_result: BTreeMap<String, u64>,
    /// Of all certificates, those that replace an earlier one.
    pub superseding: u64,
    /// Daily roll-ups.
    pub roll_ups: u64,
    /// Approvals that were given.
    pub approvals: u64,
    /// Holds that were placed.
    pub holds_placed: u64,
    /// Holds that were released.
    pub holds_released: u64,
    /// Commands that were refused, by code.
    pub refusals: BTreeMap<String, u64>,
    /// Entries of the log whose content has expired: they are in no total.
    pub expired_entries: u64,
}

/// A report. This, signed, is the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Version of the form.
    pub format_version: u32,
    /// The agent.
    pub agent_id: String,
    /// The first day.
    pub from: NaiveDate,
    /// The last day.
    pub to: NaiveDate,
    /// The zone of these days.
    pub timezone: String,
    /// The first day's beginning.
    pub since: Timestamp,
    /// The last day's end, itself not in the period.
    pub until: Timestamp,
    /// When it was made. What came later is not counted, also where the last day was not over.
    pub made_at: Timestamp,
    /// The totals.
    pub totals: Totals,
}

impl Report {
    /// The version of reports that this program writes.
    #[must_use]
    pub fn version() -> u32 {
        FORMAT_VERSION
    }

    /// From when to before when it counts.
    #[must_use]
    pub fn counted(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        (self.since.instant(), self.until.min(self.made_at).instant())
    }

    /// The payload, and the bytes to sign.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_sign(&self) -> Result<(Vec<u8>, Vec<u8>), serde_json::Error> {
        let payload = serde_json::to_vec(self)?;
        let message = pae(REPORT_TYPE, &payload);
        Ok((payload, message))
    }
}

/// The report as a file.
#[must_use]
pub fn signed_report(payload: Vec<u8>, signature: Vec<u8>, key_id: &str) -> Vec<u8> {
    Envelope::make(REPORT_TYPE, payload, signature, key_id).as_bytes().to_vec()
}

/// Reads a report from the very bytes whose signature was checked; with it the id of the key.
///
/// # Errors
/// Why it counts for nothing.
pub fn read_report(envelope: &[u8], trusted: &TrustedKeys) -> Result<(Report, String), ReportError> {
    let envelope = open_signed(envelope, REPORT_TYPE, trusted)?;
    let report: Report = serde_json::from_slice(envelope.payload()).map_err(ReportError::Json)?;
    if report.format_version != FORMAT_VERSION {
        return Err(ReportError::OtherKind);
    }
    Ok((report, envelope.key_id().to_owned()))
}

/// An entry of the operation log, as far as it is counted.
#[derive(Deserialize)]
struct Logged {
    status_id: u32,
    #[serde(default)]
    status_detail: Option<String>,
    api: Api,
    resources: Vec<Resource>,
    unmapped: Unmapped,
}

#[derive(Deserialize)]
struct Api {
    operation: String,
}

#[derive(Deserialize)]
struct Resource {
    uid: String,
}

#[derive(Deserialize)]
struct Unmapped {
    #[serde(default)]
    changes: Vec<Change>,
    #[serde(default)]
    references: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
struct Change {
    field: String,
    operation: String,
    rows: u64,
}

impl Logged {
    fn count(&self, name: &str) -> u64 {
        self.unmapped.references.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn object(&self) -> &str {
        self.resources.first().map_or("", |resource| resource.uid.as_str())
    }
}

/// Counts what happened from `since` to before `until`. Records (when they were written and their texts; none of expired entries) and
/// certificates of other times may be there, and are not counted.
#[must_use]
pub fn totals<'a>(
    records: impl Iterator<Item = (DateTime<Utc>, Option<&'a str>)>,
    certificates: &[&VerifiedCertificate],
    (since, until): (DateTime<Utc>, DateTime<Utc>),
) -> Totals {
    let mut counting = Counting { until, ..Counting::default() };
    for (at, text) in records.filter(|(at, _)| since <= *at && *at < until) {
        match text.map(serde_json::from_str::<Logged>) {
            Some(Ok(record)) => counting.log(&record, at),
            Some(Err(_)) => {}
            None => counting.totals.expired_entries += 1,
        }
    }
    let own: Vec<&VerifiedCertificate> =
        certificates.iter().filter(|found| since <= found.issued_at() && found.issued_at() < until).copied().collect();
    counting.certificates(&own);
    counting.end()
}

#[derive(Default)]
struct Counting {
    until: DateTime<Utc>,
    totals: Totals,
    tables: BTreeMap<String, (u64, u64)>,
    received: BTreeMap<String, DateTime<Utc>>,
    closed: BTreeSet<String>,
    /// By run: whether it went well, its numbers, its changes.
    ended: BTreeMap<String, (bool, [u64; 4], Vec<Change>)>,
}

/// What the log says of a request that whoever asked withdrew.
const WITHDRAWN: &str = "withdrawn";

impl Counting {
    fn log(&mut self, record: &Logged, at: DateTime<Utc>) {
        let totals = &mut self.totals;
        let is_done = match record.status_id {
            1 => true,
            2 => false,
            _ => return,
        };
        let tried = |tries: &mut Tries| *(if is_done { &mut tries.done } else { &mut tries.went_wrong }) += 1;
        match record.api.operation.as_str() {
            "run.end" => self.run_end(record, is_done),
            "backup.run" => tried(&mut totals.backups),
            "verify.erased" => tried(&mut totals.rechecks),
            "key.shred" => tried(&mut totals.shreds),
            "key.outside" => tried(&mut totals.outside_keys),
            "drill.run" => {
                tried(&mut totals.drills);
                add(&mut totals.reappeared, record.count("erased_reappeared"));
                add(&mut totals.reappeared, record.count("resurrected"));
            }
            "command.refused" => {
                let code = record.status_detail.clone().unwrap_or_default();
                *totals.refusals.entry(code).or_default() += 1;
            }
            _ if !is_done => {}
            "run.undo" => totals.erasures.undone += 1,
            "request.new" => {
                self.received.insert(record.object().to_owned(), at);
            }
            "request.again" => totals.requests.again += 1,
            "request.cancel" => {
                let reason = record.unmapped.references.get("reason").map(String::as_str);
                let is_withdrawn = reason.is_none_or(|reason| reason == WITHDRAWN);
                let requests = &mut totals.requests;
                *(if is_withdrawn { &mut requests.withdrawn } else { &mut requests.turned_down }) += 1;
                self.closed.insert(record.object().to_owned());
            }
            "plan.approve" => totals.approvals += 1,
            "hold.place" => totals.holds_placed += 1,
            "hold.release" => totals.holds_released += 1,
            _ => {}
        }
    }

    /// One that was killed behind its entry writes it again: the last one counts.
    fn run_end(&mut self, record: &Logged, is_done: bool) {
        let counts = ["due", "erased", "anonymised", "kept"].map(|name| record.count(name));
        self.ended.insert(record.object().to_owned(), (is_done, counts, record.unmapped.changes.clone()));
    }

    fn runs(&mut self) {
        let sums = &mut self.totals.erasures;
        for (is_done, [due, erased, anonymised, kept], changes) in std::mem::take(&mut self.ended).into_values() {
            sums.ended += 1;
            sums.went_wrong += u64::from(!is_done);
            add(&mut sums.due, due);
            add(&mut sums.erased, erased);
            add(&mut sums.anonymised, anonymised);
            add(&mut sums.kept, kept);
            add(&mut sums.failed, [erased, anonymised, kept].into_iter().fold(due, u64::saturating_sub));
            for change in changes {
                let (deleted, modified) = self.tables.entry(change.field).or_default();
                add(if change.operation == "D" { deleted } else { modified }, change.rows);
            }
        }
    }

    fn certificates(&mut self, own: &[&VerifiedCertificate]) {
        let mut keys = BTreeSet::new();
        let mut statements: BTreeMap<&str, &Statement> = BTreeMap::new();
        // By what they replace: the next of each.
        let mut next: BTreeMap<&str, &Statement> = BTreeMap::new();
        for certificate in own {
            let Said::Erasure(statement) = &certificate.said else {
                self.totals.roll_ups += 1;
                continue;
            };
            let said = &statement.predicate;
            let result = serde_json::to_value(said.result).ok().and_then(|value| value.as_str().map(str::to_owned));
            *self.totals.certificates_by_result.entry(result.unwrap_or_default()).or_default() += 1;
            let destroyed =
                said.targets.iter().flat_map(|target| &target.keys).filter(|key| key.destroyed_at.is_some());
            keys.extend(destroyed.map(|key| key.key_id_sha256.as_str()));
            statements.insert(&said.certificate_id, statement);
            if let Some(replaced) = &said.supersedes {
                self.totals.superseding += 1;
                next.insert(&replaced.certificate_id, statement);
            }
        }
        self.totals.keys_destroyed = keys.len() as u64;
        let mut rows: BTreeMap<(String, String), PolicyRows> = BTreeMap::new();
        for first in statements.values().filter(|statement| statement.predicate.supersedes.is_none()) {
            self.answer(first);
            let mut last = *first;
            // None names one that comes behind it, so this ends; the bound is for what was forged.
            for _ in 0..statements.len() {
                match next.get(last.predicate.certificate_id.as_str()) {
                    Some(later) => last = later,
                    None => break,
                }
            }
            add_rows(&mut rows, last);
        }
        self.totals.rows = rows.into_values().collect();
    }

    fn answer(&mut self, first: &Statement) {
        let trigger = &first.predicate.trigger;
        let Some(request) = &trigger.request_ref else { return };
        // The request stays open, and is answered by what comes of the next try.
        let limitations = &first.predicate.limitations;
        if first.predicate.result == ErasureResult::Failed || limitations.contains(&Limitation::TargetsUnreached) {
            return;
        }
        if self.closed.insert(request.clone()) {
            let is_late = trigger.due_at.is_some_and(|due| due < first.predicate.finished_at);
            self.totals.requests.answered += 1;
            self.totals.requests.answered_late += u64::from(is_late);
        }
    }

    fn end(mut self) -> Totals {
        self.runs();
        let requests = &mut self.totals.requests;
        requests.received = self.received.len() as u64;
        for at in self.received.iter().filter(|(request, _)| !self.closed.contains(*request)).map(|(_, at)| *at) {
            requests.unanswered += 1;
            requests.overdue += u64::from(at + TimeDelta::days(ANSWER_DAYS) < self.until);
        }
        let table = |(table, (deleted, modified))| TableSums { table, deleted, modified };
        self.totals.tables = self.tables.into_iter().map(table).collect();
        self.totals
    }
}

/// Numbers of outside bytes may be of any size.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

fn add_rows(rows: &mut BTreeMap<(String, String), PolicyRows>, statement: &Statement) {
    let said = &statement.predicate;
    if said.outside_key.is_some() || said.medium.is_some() || said.lost_medium.is_some() {
        return;
    }
    let policy = said.policy.as_ref().map_or(REQUEST, |policy| policy.id.as_str());
    for target in &said.targets {
        let key = (policy.to_owned(), target.location.clone());
        let sums = rows.entry(key.clone()).or_insert_with(|| PolicyRows {
            policy: key.0,
            place: key.1,
            due: 0,
            erased: 0,
            anonymised: 0,
            kept: 0,
            failed: 0,
        });
        add(&mut sums.due, target.records_selected);
        add(&mut sums.erased, target.records_erased);
        add(&mut sums.anonymised, target.records_anonymized);
        add(&mut sums.kept, target.records_retained);
        add(&mut sums.failed, target.records_failed);
    }
}

/// What differs between the totals that a report says and those that were counted, each by its name.
#[must_use]
pub fn differences(said: &Totals, counted: &Totals) -> Vec<String> {
    let value = |totals: &Totals| serde_json::to_value(totals).unwrap_or_default();
    let mut found = Vec::new();
    compare("", &value(said), &value(counted), &mut found);
    found
}

fn compare(name: &str, said: &Value, counted: &Value, found: &mut Vec<String>) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match (said, counted) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for part in names {
                let of = |all: &serde_json::Map<String, Value>| all.get(part).cloned().unwrap_or_default();
                compare(&below(part), &of(one), &of(other), found);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for at in 0..one.len().max(other.len()) {
                let of = |all: &[Value]| all.get(at).cloned().unwrap_or_default();
                compare(&below(&row_name(&of(one), &of(other), at)), &of(one), &of(other), found);
            }
        }
        _ if said == counted => {}
        _ => found.push(format!("{name}: the report says {said}, the log and the certificates {counted}")),
    }
}

/// What a row of a table is called.
fn row_name(one: &Value, other: &Value, at: usize) -> String {
    let text = |name: &str| one[name].as_str().or(other[name].as_str());
    match (text("policy"), text("place"), text("table")) {
        (Some(policy), Some(place), _) => format!("{policy} {place}"),
        (_, _, Some(table)) => table.to_owned(),
        _ => at.to_string(),
    }
}

#[cfg(test)]
mod tests;
