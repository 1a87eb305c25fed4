//! Archives of a log: a month of entries in one file, chained by hash. Pure.
//!
//! ```text
//! file = header line, one line an entry        (JSON, each with a newline)
//! ```
//! The header names the digest of the archive before, and what the log's tree was behind the last entry, with the proof that the head,
//! signed by the log, continues that. So whoever has the log's key and the files needs nothing else, and a line that was changed is
//! found by its place. Entries whose content had expired by then are there with their digest alone.

use chrono::{DateTime, Months, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::checkpoint::CheckpointKey;
use super::record::commitment;
use super::tree::{Frontier, Hash, leaf_hash, sha256, verify_consistency};

/// The version of the form.
const FORMAT: u32 = 1;
/// How the name of an archive begins and ends; the month stands between.
pub const ARCHIVE_NAME: (&str, &str) = ("operations-", ".ndjson");
/// No zone is further from UTC, in hours.
const FURTHEST_ZONE: i64 = 14;

/// The name of a month's archive.
#[must_use]
pub fn archive_name(month: &str) -> String {
    format!("{}{month}{}", ARCHIVE_NAME.0, ARCHIVE_NAME.1)
}

/// An entry as archives and exports have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedEntry {
    /// Its place in the log, from 0.
    pub index: u64,
    /// When it was written (RFC 3339).
    pub time: String,
    /// What the tree holds of it: SHA-256(salt ‖ record), hex.
    pub commitment: String,
    /// The salt, hex; none once the content has expired.
    pub salt: Option<String>,
    /// The record's text, byte for byte.
    pub record: Option<String>,
}

/// The first line of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveHeader {
    /// Version of the form.
    pub format: u32,
    /// The month, `2026-03`.
    pub month: String,
    /// The log's origin.
    pub log: String,
    /// The index of the first entry.
    pub first: u64,
    /// How many there are.
    pub entries: u64,
    /// SHA-256 of the archive before, hex; none of the first.
    pub previous: Option<String>,
    /// The root of the tree behind the last entry, hex.
    pub root: String,
    /// A head of the log, signed, at least as large.
    pub head: String,
    /// The proof that the head continues the root: hashes, hex.
    pub proof: Vec<String>,
}

impl ArchiveHeader {
    /// The header of these entries.
    #[must_use]
    pub fn new(month: String, log: String, first: u64, entries: u64) -> Self {
        let (root, head) = (String::new(), String::new());
        Self { format: FORMAT, month, log, first, entries, previous: None, root, head, proof: Vec::new() }
    }

    /// The tree's size behind the last entry.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.first.saturating_add(self.entries)
    }
}

/// The text of an archive.
///
/// # Errors
/// When something cannot be written as JSON.
pub fn write_archive(header: &ArchiveHeader, entries: &[ArchivedEntry]) -> Result<String, serde_json::Error> {
    write_lines(header, entries)
}

/// A header and entries, a line each.
pub(super) fn write_lines(header: &impl Serialize, entries: &[ArchivedEntry]) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(header)?;
    text.push('\n');
    for entry in entries {
        text.push_str(&serde_json::to_string(entry)?);
        text.push('\n');
    }
    Ok(text)
}

/// What is wrong with archives, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveFault {
    /// The archive's name.
    pub archive: String,
    /// The line in it, from 1, when one is to blame.
    pub line: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a log itself holds at a place; none beyond its end.
pub type Live<'l> = &'l dyn Fn(u64) -> Option<ArchivedEntry>;

/// Archives that were found good so far, oldest first.
#[derive(Debug, Clone, Default)]
pub struct ArchiveChain {
    frontier: Frontier,
    last: Option<(String, String)>,
}

impl ArchiveChain {
    /// Entries so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The month of the last archive.
    #[must_use]
    pub fn month(&self) -> Option<&str> {
        self.last.as_ref().map(|(month, _)| month.as_str())
    }

    /// The digest of the last archive, hex.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.last.as_ref().map(|(_, digest)| digest.as_str())
    }

    /// Checks the next archive, and that the log itself holds the same, unless it is not to be asked (`live`).
    ///
    /// # Errors
    /// What is wrong, and in which line; the chain stands where it stood.
    pub fn check_next(
        &mut self,
        name: &str,
        text: &str,
        key: &CheckpointKey,
        live: Option<Live<'_>>,
    ) -> Result<(), ArchiveFault> {
        let fault =
            |line: Option<u64>, what: &str| ArchiveFault { archive: name.to_owned(), line, what: what.to_owned() };
        let mut lines = text.lines();
        let header: Option<ArchiveHeader> = lines.next().and_then(|line| serde_json::from_str(line).ok());
        let header = header.filter(|header| header.format == FORMAT);
        let header = header.ok_or_else(|| fault(Some(1), "is no header of an archive that this version knows"))?;
        if header.previous.as_deref() != self.digest() {
            return Err(fault(Some(1), "does not name the archive before it: that one was changed, or one is missing"));
        }
        if header.first != self.size() || self.month().is_some_and(|month| month >= header.month.as_str()) {
            return Err(fault(Some(1), "does not begin where the archive before it ends"));
        }
        let span = span_of(&header.month).filter(|_| name == archive_name(&header.month));
        let (begins, ends) = span.ok_or_else(|| fault(Some(1), "is of another month than the file's name"))?;
        let mut frontier = self.frontier.clone();
        let mut entries = 0;
        for (at, line) in lines.enumerate() {
            let number = Some(at as u64 + 2);
            let read = read_line(line, header.first + at as u64, live);
            let (digest, time) = read.map_err(|what| fault(number, what))?;
            // Behind the first, earlier times are those of a clock that was set back.
            if time >= ends || (at == 0 && time < begins) {
                return Err(fault(number, "was not written in the archive's month"));
            }
            frontier.append(leaf_hash(&digest), |_, _| {});
            entries += 1;
        }
        if entries != header.entries || entries == 0 {
            return Err(fault(None, "has no entries, or another number of them than it says"));
        }
        check_root(&header, &frontier, key).map_err(|what| fault(None, what))?;
        self.frontier = frontier;
        self.last = Some((header.month, hex::encode(sha256(text.as_bytes()))));
        Ok(())
    }
}

/// Whether the tree is what the header says, and the log's signed head continues it.
fn check_root(header: &ArchiveHeader, frontier: &Frontier, key: &CheckpointKey) -> Result<(), &'static str> {
    check_continues(frontier, (&header.root, &header.head, &header.proof), key).map(|_| ())
}

/// Whether a tree has this root, and this signed head continues it by this proof; returns the head's size.
pub(super) fn check_continues(
    frontier: &Frontier,
    (root_text, head, proof): (&str, &str, &[String]),
    key: &CheckpointKey,
) -> Result<u64, &'static str> {
    let root = frontier.root();
    if hex::encode(root) != root_text {
        return Err("holds other entries than the log had: one was changed together with its digest");
    }
    let head = key.open(head).map_err(|_| "has a head that the log did not sign")?.checkpoint;
    let hash = |text: &String| hex::decode(text).ok().and_then(|bytes| Hash::try_from(bytes).ok());
    let proof: Option<Vec<Hash>> = proof.iter().map(hash).collect();
    let continues = |proof: &Vec<Hash>| verify_consistency(frontier.size(), head.size, &root, &head.root, proof);
    if proof.as_ref().is_some_and(continues) {
        Ok(head.size)
    } else {
        Err("holds entries of which the log's signed head knows nothing")
    }
}

/// From when and before when a month's entries were written, in whatever zone it was counted.
fn span_of(month: &str) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let first = NaiveDate::parse_from_str(&format!("{month}-01"), "%Y-%m-%d").ok()?;
    if first.format("%Y-%m").to_string() != month {
        return None;
    }
    let (next, apart) = (first.checked_add_months(Months::new(1))?, TimeDelta::hours(FURTHEST_ZONE));
    let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    Some((midnight(first).checked_sub_signed(apart)?, midnight(next).checked_add_signed(apart)?))
}

/// What the tree holds of an entry, and when it was written, when it fits and the log holds the same.
fn read_line(line: &str, index: u64, live: Option<Live<'_>>) -> Result<(Vec<u8>, DateTime<Utc>), &'static str> {
    let entry: ArchivedEntry = serde_json::from_str(line).map_err(|_| "is no entry")?;
    let digest = checked(&entry, index)?;
    let there = match live {
        Some(live) => {
            Some(live(index).ok_or("is beyond the log's end: the log was cut back, or an old copy restored")?)
        }
        None => None,
    };
    if there.as_ref().is_some_and(|there| there.commitment != entry.commitment) {
        return Err("is not what the log holds in its place");
    }
    if entry.record.is_none() && there.as_ref().is_some_and(|there| there.record.is_some()) {
        return Err("lacks its text, which the log still holds");
    }
    let time = read_time(&entry.time).ok_or("has no time")?;
    let own = match (&entry.record, &there) {
        (Some(record), _) => record_time(record),
        (None, Some(there)) => read_time(&there.time),
        (None, None) => Some(time),
    };
    if own == Some(time) { Ok((digest, time)) } else { Err("has another time than its record, or than the log") }
}

fn read_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
}

/// When an entry was written, if its record says the same; of one whose content has expired what the file says.
pub(super) fn stated_time(entry: &ArchivedEntry) -> Option<DateTime<Utc>> {
    let time = read_time(&entry.time)?;
    let own = entry.record.as_deref().map_or(Some(time), record_time);
    (own == Some(time)).then_some(time)
}

/// When a record says that it was written.
fn record_time(record: &str) -> Option<DateTime<Utc>> {
    #[derive(Deserialize)]
    struct Dated {
        time: i64,
    }
    let dated: Dated = serde_json::from_str(record).ok()?;
    DateTime::from_timestamp_millis(dated.time)
}

/// What the tree holds of an entry, when its text fits.
pub(super) fn checked(entry: &ArchivedEntry, index: u64) -> Result<Vec<u8>, &'static str> {
    if entry.index != index {
        return Err("is not the next entry: one is missing, twice there or out of order");
    }
    let digest = hex::decode(&entry.commitment).map_err(|_| "has no digest")?;
    match (&entry.salt, &entry.record) {
        (None, None) => Ok(digest),
        (Some(salt), Some(record)) => {
            let salt = hex::decode(salt).map_err(|_| "has no salt")?;
            let fits = commitment(&salt, record.as_bytes())[..] == digest;
            if fits { Ok(digest) } else { Err("was changed: its text does not fit its digest") }
        }
        _ => Err("lacks its salt or its text"),
    }
}
