//! `log query`, `log export` and `log prune`: the operation log read, handed over and, after years, relieved of its contents.

mod archive;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use crate::installation::{Installation, LogView, Operation, view_operation_log};
use crate::log::prune::{between, cutoff};
use crate::log::store::{LeafStore, LeafStoreError, StoredLeaf};
use crate::plan::Subject;

pub use crate::log::archive::ARCHIVE_NAME;
pub use archive::{ArchiveFile, archive, line_of, verify_archives};

use super::erasure::{TableValues, open_values};
use super::{Result, TaskError};

/// Leaves read at once.
const PAGE_LEAVES: u64 = 1024;

/// What to look for; nothing given finds everything.
#[derive(Default)]
pub struct Query {
    /// Whom it was about.
    pub subject: Option<Subject>,
    /// How the operation's name begins: `run`, `hold.place`.
    pub operation: Option<String>,
    /// Not before.
    pub from: Option<DateTime<Utc>>,
    /// Not after.
    pub to: Option<DateTime<Utc>>,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the log.
    pub index: u64,
    /// When it was written.
    pub time: DateTime<Utc>,
    /// The record (OCSF); null once its content has expired.
    pub record: Value,
    /// What the tree holds of it: SHA-256(salt ‖ record), hex.
    pub commitment: String,
    /// The salt, hex; with it anyone can recompute the commitment from the record's text.
    pub salt: Option<String>,
    /// The record's text, byte for byte.
    pub text: Option<String>,
    /// What it seals of rows, while that still opens: table, `M` or `D`, values. Only [`query`] opens it.
    pub values: Vec<(String, String, TableValues)>,
}

impl Entry {
    fn of(leaf: StoredLeaf) -> Self {
        let text = leaf.content.map(|content| String::from_utf8_lossy(&content).into_owned());
        Self {
            index: leaf.index,
            time: DateTime::from_timestamp_millis(leaf.time_ms).unwrap_or_default(),
            record: text.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
            commitment: hex::encode(leaf.entry),
            salt: leaf.salt.map(hex::encode),
            text,
            values: Vec::new(),
        }
    }

    /// Opens what it seals of rows, as long as their erasure can be undone. What cannot be opened now is left out.
    async fn open_values(&mut self, installation: &Installation) -> Result<()> {
        let run = self.objects().next().unwrap_or_default().to_owned();
        let changes = self.record.pointer("/unmapped/changes").and_then(Value::as_array);
        for change in changes.into_iter().flatten() {
            let text = |name: &str| change[name].as_str();
            let (Some(table), Some(letter), Some(sealed)) = (text("field"), text("operation"), text("sealed")) else {
                continue;
            };
            let opened = open_values(installation, &run, (table, letter), sealed).await?;
            self.values.extend(opened.map(|values| (table.to_owned(), letter.to_owned(), values)));
        }
        Ok(())
    }

    fn customer(&self) -> Option<&str> {
        self.record.pointer("/unmapped/customer")?.as_str()
    }

    pub(super) fn operation(&self) -> &str {
        self.record.pointer("/api/operation").and_then(Value::as_str).unwrap_or_default()
    }

    fn references(&self) -> impl Iterator<Item = &str> {
        let all = self.record.pointer("/unmapped/references").and_then(Value::as_object);
        all.into_iter().flat_map(|all| all.values()).filter_map(Value::as_str)
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &str> {
        self.record["resources"].as_array().into_iter().flatten().filter_map(|resource| resource["uid"].as_str())
    }
}

pub(super) fn damaged(error: &LeafStoreError) -> TaskError {
    TaskError::Proof(error.to_string())
}

pub(super) async fn entries(view: &LogView) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    let size = view.store.size().await.map_err(|error| damaged(&error))?;
    let mut start = 0;
    // By places, not by how many a page has: where somebody took one out, those behind it are still there.
    while start < size {
        let page = view.store.leaves(start..start + PAGE_LEAVES).await.map_err(|error| damaged(&error))?;
        all.extend(page.into_iter().map(Entry::of));
        start += PAGE_LEAVES;
    }
    Ok(all)
}

/// The entries that fit, oldest first. Of a customer they are those that carry the pseudonym, and those about the same requests,
/// runs and holds. The look itself is logged before.
///
/// # Errors
/// When the log cannot be read or written.
pub async fn query(installation: &Installation, query: &Query) -> Result<Vec<Entry>> {
    let asked = Operation { name: "log.query", object: "operations", outcome: "success", ..Operation::default() };
    installation.log_look(Operation { subject: query.subject.as_ref(), ..asked }).await?;
    let mut found = entries(&view_operation_log(installation).await?).await?;
    if let Some(subject) = &query.subject {
        let pseudonym = installation.log_pseudonym(subject).await?;
        found = of_customer(found, &pseudonym);
    }
    found.retain(|entry| {
        let named = query.operation.as_deref().is_none_or(|begin| entry.operation().starts_with(begin));
        named && query.from.is_none_or(|from| from <= entry.time) && query.to.is_none_or(|to| entry.time <= to)
    });
    for entry in &mut found {
        entry.open_values(installation).await?;
    }
    Ok(found)
}

/// A customer's entries: by pseudonym, and those about an object that an entry of theirs is about. The log itself is an object of
/// everybody's questions, so it joins nobody.
fn of_customer(all: Vec<Entry>, pseudonym: &str) -> Vec<Entry> {
    let mut objects: HashSet<String> = HashSet::new();
    for entry in all.iter().filter(|entry| entry.customer() == Some(pseudonym)) {
        objects.extend(entry.objects().filter(|object| *object != "operations").map(ToOwned::to_owned));
    }
    let is_theirs = |entry: &Entry| match entry.customer() {
        Some(customer) => customer == pseudonym,
        None => entry.objects().any(|object| objects.contains(object)),
    };
    all.into_iter().filter(is_theirs).collect()
}

/// The entries about any of these objects, by their own id or by one that they refer to; oldest first.
pub(super) async fn entries_about(installation: &Installation, objects: &HashSet<String>) -> Result<Vec<Entry>> {
    let mut all = entries(&view_operation_log(installation).await?).await?;
    all.retain(|entry| entry.objects().chain(entry.references()).any(|object| objects.contains(object)));
    Ok(all)
}

/// All entries, for handing over. Logged before.
///
/// # Errors
/// When the log cannot be read or written.
pub async fn export(installation: &Installation) -> Result<Vec<Entry>> {
    let asked = Operation { name: "log.export", object: "operations", outcome: "success", ..Operation::default() };
    installation.log_look(asked).await?;
    let all = entries(&view_operation_log(installation).await?).await?;
    installation.note_bulk("log.export", "operations", all.len() as u64).await;
    Ok(all)
}

/// The objects of all entries of an operation whose content is still there.
pub(super) async fn logged_objects(installation: &Installation, operation: &str) -> Result<Vec<String>> {
    let all = entries(&view_operation_log(installation).await?).await?;
    let named = all.iter().filter(|entry| entry.operation() == operation);
    Ok(named.flat_map(Entry::objects).map(str::to_owned).collect())
}

/// The reference of an entry to the number of a record of signing keys that was put into use.
pub(super) const KEY_RECORD: &str = "record";
/// The same of one that was only to be, or was not after all.
pub(super) const NEXT_KEY_RECORD: &str = "next_record";

/// What the operation log says of records of signing keys, in entries whose content is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LoggedKeyRecords {
    /// The highest number of one that was put into use.
    pub used: Option<u64>,
    /// The highest number of one that was to be.
    pub announced: Option<u64>,
}

/// What the operation log says of records of signing keys.
pub(super) async fn logged_key_records(installation: &Installation) -> Result<LoggedKeyRecords> {
    let all = entries(&view_operation_log(installation).await?).await?;
    let of_keys = || all.iter().filter(|entry| entry.operation().starts_with("signing."));
    let highest = |name: &str| {
        let number = |entry: &Entry| entry.record.pointer("/unmapped/references")?.get(name)?.as_str()?.parse().ok();
        of_keys().filter_map(number).max()
    };
    Ok(LoggedKeyRecords { used: highest(KEY_RECORD), announced: highest(NEXT_KEY_RECORD) })
}

/// What a pruning did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Entries written before this may go.
    pub before: DateTime<Utc>,
    /// Entries whose content went or would go.
    pub dropped: u64,
    /// Entries of that age that stay because a hold is in force.
    pub held: u64,
    /// The holds.
    pub holds: Vec<String>,
    /// Entries of that age that stay because the incident that they are about was not closed three years ago.
    pub incidents: u64,
}

/// Drops the content of entries older than three years at `now`; with `apply` false only counts. While any hold is in force,
/// entries about a customer, a run, a request, an incident or a hold stay: the log cannot tell whom a hold is about. Those of an incident
/// stay until it was closed three years ago. Entries and hashes stay in
/// any case, so the tree stays provable. What was written while the clock was wrong stays as long as what surrounds it.
///
/// # Errors
/// When the log cannot be read or written. Applied, it is a destruction: refused without the lease, with a doubtful clock, while
/// all destruction is held, and once the holds changed meanwhile.
pub async fn prune(installation: &Installation, now: DateTime<Utc>, apply: bool) -> Result<Pruned> {
    let zone = installation.config.agent.timezone;
    let before = kept_from(now, zone);
    if apply {
        installation.may_destroy().await?;
    }
    let holds = holds_in_force(installation).await?;
    let view = view_operation_log(installation).await?;
    let all = entries(&view).await?;
    let old = older_than(&all, before, now);
    let cases = super::incident::kept(&all, &old.iter().map(|entry| entry.index).collect());
    let old = old.into_iter().filter(|entry| entry.text.is_some());
    let (of_cases, old): (Vec<&Entry>, Vec<&Entry>) = old.partition(|entry| cases.contains(&entry.index));
    let (held, free): (Vec<&Entry>, Vec<&Entry>) =
        old.into_iter().partition(|entry| !holds.is_empty() && concerns_people(entry));
    let (dropped, held, incidents) = (free.len() as u64, held.len() as u64, of_cases.len() as u64);
    let mut pruned = Pruned { before, dropped, held, holds, incidents };
    if !apply || free.is_empty() {
        return Ok(pruned);
    }
    let references = vec![("entries".to_owned(), free.len().to_string())];
    let intent =
        Operation { name: "log.prune", object: "operations", outcome: "intent", references, ..Operation::default() };
    installation.log(intent).await?;
    let goes: HashSet<u64> = free.iter().map(|entry| entry.index).collect();
    let kept: Vec<u64> = (0..all.len() as u64).filter(|index| !goes.contains(index)).collect();
    pruned.dropped = 0;
    let last = free.iter().map(|entry| entry.time).max().unwrap_or(before).timestamp_millis();
    let limit = before.timestamp_millis().max(last.saturating_add(1));
    for range in between(&kept, all.len() as u64) {
        installation.may_destroy().await?;
        if holds_in_force(installation).await? != pruned.holds {
            return Err(TaskError::refused(
                format!(
                    "a hold was placed or released meanwhile; after {} entries nothing more was dropped",
                    pruned.dropped
                ),
                "run `wangchuan log prune` again and look what may still go",
            ));
        }
        let dropped = view.store.drop_content(range, limit).await;
        pruned.dropped += dropped.map_err(|error| damaged(&error))?;
    }
    installation.log_operation("log.prune", "operations", "success").await?;
    Ok(pruned)
}

async fn holds_in_force(installation: &Installation) -> Result<Vec<String>> {
    let mut tx = installation.control.read().await?;
    Ok(tx.holds(true).await?.into_iter().map(|hold| hold.id).collect())
}

/// The entries at the beginning of the log that were written before this.
///
/// The log tells their order, their times only what the clock said. A time is not believed when `now`, which is taken to be right,
/// has not come to it yet, or when it is earlier than a believed one before it. Such an entry is older than the next one with a time
/// that is believed, and goes with that one; behind the last of those it stays. The first believed entry that is not old ends it:
/// everything behind was written later. So a clock that is set forward holds nothing back for ever: a time that has come is over
/// after as many years as any. What is assumed: a time that fits between `now` and those before it is not too early.
pub(super) fn older_than(all: &[Entry], before: DateTime<Utc>, now: DateTime<Utc>) -> Vec<&Entry> {
    let (mut old, mut doubtful) = (Vec::new(), Vec::new());
    let mut newest = DateTime::<Utc>::MIN_UTC;
    for entry in all {
        if entry.time > now || entry.time < newest {
            doubtful.push(entry);
            continue;
        }
        if entry.time >= before {
            break;
        }
        newest = entry.time;
        old.append(&mut doubtful);
        old.push(entry);
    }
    old
}

/// The instant from which on entries are kept.
pub(super) fn kept_from(now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    cutoff(now.with_timezone(&zone).date_naive(), zone)
}

/// Places of entries whose content is gone and that no pruning until `now` may have dropped. One may have dropped a young one if a later
/// one was old then, and so the time of the young one was one that had not come yet.
pub(super) fn emptied_early(all: &[Entry], now: DateTime<Utc>, zone: Tz) -> Vec<u64> {
    let (before, mut early) = (kept_from(now, zone), Vec::new());
    let mut earliest_behind = DateTime::<Utc>::MAX_UTC;
    for entry in all.iter().rev() {
        let may_be_gone = || entry.time < before || earliest_behind < kept_from(entry.time.min(now), zone);
        if entry.text.is_none() && !may_be_gone() {
            early.push(entry.index);
        }
        earliest_behind = earliest_behind.min(entry.time);
    }
    early.reverse();
    early
}

/// Whether an entry may be about somebody under a hold: it is about a customer, or about something done to what customers own.
fn concerns_people(entry: &Entry) -> bool {
    let kinds = [
        "run.",
        "request.",
        "hold.",
        "incident.",
        "explain",
        "restore",
        "plan.approve",
        "key.shred",
        "key.outside",
        "command.refused",
    ];
    entry.customer().is_some() || kinds.iter().any(|kind| entry.operation().starts_with(kind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(index: u64, operation: &str, object: &str, customer: Option<&str>) -> Entry {
        let record = json!({"api": {"operation": operation}, "resources": [{"uid": object}], "unmapped": {"customer": customer}});
        Entry {
            index,
            time: DateTime::UNIX_EPOCH,
            record,
            commitment: String::new(),
            salt: None,
            text: None,
            values: Vec::new(),
        }
    }

    #[test]
    fn a_customer_s_entries_are_all_of_theirs_and_no_others() {
        let all = vec![
            entry(0, "request.new", "request-1", Some("a")),
            entry(1, "request.new", "request-2", Some("b")),
            entry(2, "run.begin", "run-1", Some("a")),
            entry(3, "run.end", "run-1", None),
            entry(4, "run.end", "run-2", None),
            entry(5, "log.query", "operations", Some("a")),
            entry(6, "log.query", "operations", Some("b")),
            entry(7, "log.query", "operations", None),
            entry(8, "request.cancel", "request-2", None),
            entry(9, "key.shred", "generation-2", None),
        ];
        let indexes =
            |pseudonym: &str| of_customer(all.clone(), pseudonym).iter().map(|entry| entry.index).collect::<Vec<_>>();
        assert_eq!(indexes("a"), [0, 2, 3, 5]);
        assert_eq!(indexes("b"), [1, 6, 8]);
        assert_eq!(indexes("c"), Vec::<u64>::new());
    }

    #[test]
    fn only_what_was_surely_written_before_is_old_whatever_the_clock_said() {
        let year = |year: i32| {
            chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default().and_time(chrono::NaiveTime::MIN).and_utc()
        };
        let old = |years: &[i32]| {
            let entries = years.iter().enumerate();
            let all: Vec<Entry> = entries
                .map(|(index, at)| Entry { time: year(*at), ..entry(index as u64, "run.end", "run-1", None) })
                .collect();
            older_than(&all, year(2027), year(2030)).iter().map(|entry| entry.index).collect::<Vec<_>>()
        };
        assert_eq!(old(&[2025, 2026, 2027, 2028]), [0, 1]);
        // Set forward for one entry, or for some.
        assert_eq!(old(&[2025, 2036, 2026, 2028]), [0, 1, 2]);
        assert_eq!(old(&[2025, 2036, 9999, 2026, 2028]), [0, 1, 2, 3]);
        // Nothing says that it is old itself.
        assert_eq!(old(&[2025, 2036]), [0]);
        assert_eq!(old(&[2025, 2036, 2028, 2026]), [0]);
        // Set forward to a time that has come: that could be true.
        assert_eq!(old(&[2025, 2029, 2026]), [0]);
        // Set back.
        assert_eq!(old(&[2025, 2028, 1970]), [0]);
        assert_eq!(old(&[2025, 1970, 2028]), [0]);
        assert_eq!(old(&[2025, 1970, 2026, 2028]), [0, 1, 2]);
        // Set forward, then back.
        assert_eq!(old(&[2025, 2036, 1970, 2028]), [0]);
    }

    #[test]
    fn content_that_no_pruning_has_dropped_is_missed() {
        let day = |day: &str| DateTime::parse_from_rfc3339(&format!("{day}T00:00:00Z")).unwrap().to_utc();
        let early = |days: &[&str]| {
            let entries = days.iter().enumerate();
            let all: Vec<Entry> = entries
                .map(|(index, at)| Entry {
                    time: day(at.trim_start_matches('+')),
                    text: at.starts_with('+').then(String::new),
                    ..entry(index as u64, "run.end", "run-1", None)
                })
                .collect();
            emptied_early(&all, day("2030-06-01"), Tz::UTC)
        };
        assert_eq!(early(&["2025-01-01", "2027-06-01", "+2027-06-02"]), Vec::<u64>::new());
        assert_eq!(early(&["2025-01-01", "2027-06-02", "+2028-01-01", "2029-01-01"]), [1, 3]);
        // A clock was far ahead; the later entry was old before that time had come, or is now, or was not.
        assert_eq!(early(&["2029-09-01", "+2026-09-01"]), Vec::<u64>::new());
        assert_eq!(early(&["2036-01-01", "+2027-06-01"]), Vec::<u64>::new());
        assert_eq!(early(&["2029-09-01", "+2026-09-02"]), [0]);
        assert_eq!(early(&["2036-01-01", "+2027-06-02"]), [0]);
    }

    #[test]
    fn what_may_be_about_somebody_under_a_hold_is_known() {
        for operation in
            ["plan.approve", "key.shred", "key.outside", "command.refused", "run.end", "hold.place", "incident.add"]
        {
            assert!(concerns_people(&entry(0, operation, "x", None)), "{operation}");
        }
        assert!(concerns_people(&entry(0, "log.query", "operations", Some("a"))));
        assert!(!concerns_people(&entry(0, "log.query", "operations", None)));
    }
}
