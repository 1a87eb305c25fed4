//! `log export --archive`: whole months of the operation log as files that are chained by hash, and `log verify --archive`.

use chrono::{DateTime, Datelike, Months, NaiveDate, TimeZone, Utc};
use chrono_tz::Tz;

use crate::control::time_text;
use crate::installation::{Installation, Operation, operation_log, view_operation_log};
use crate::log::archive::{ArchiveChain, ArchiveFault, ArchiveHeader, ArchivedEntry, archive_name, write_archive};
use crate::log::checkpoint::CheckpointKey;
use crate::log::proofs::ProofReader;
use crate::tasks::{Result, TaskError};

use super::{Entry, damaged, entries};

/// An archive: its name and text.
pub type ArchiveFile = (String, String);

impl Entry {
    /// As it stands in files.
    #[must_use]
    pub fn archived(&self) -> ArchivedEntry {
        ArchivedEntry {
            index: self.index,
            time: time_text(self.time),
            commitment: self.commitment.clone(),
            salt: self.salt.clone(),
            record: self.text.clone(),
        }
    }
}

/// Archives of the months that are over and not among `there`, which are all there are so far in the order of their names. Logged before.
///
/// # Errors
/// Refused when what is there does not check; when the log cannot be read or written.
pub async fn archive(installation: &Installation, there: &[ArchiveFile]) -> Result<Vec<ArchiveFile>> {
    let asked = Operation { name: "log.export", object: "operations", outcome: "success", ..Operation::default() };
    let references = vec![("form".to_owned(), "archive".to_owned())];
    installation.log_look(Operation { references, ..asked }).await?;
    let view = view_operation_log(installation).await?;
    let all = entries(&view).await?;
    let mut chain = check(&all, &view.key, there).map_err(|fault| {
        TaskError::refused(
            format!("{}{}: {}", fault.archive, line_of(&fault), fault.what),
            "put the archives back as they were written; a new one is only chained to good ones",
        )
    })?;
    let zone = installation.config.agent.timezone;
    let today = installation.clock.now().with_timezone(&zone).date_naive();
    let signed = operation_log(installation).await?.sequencer().checkpoint().await;
    let mut made = Vec::new();
    while let Some(month) = next_month(&all, chain.size(), chain.month(), zone).filter(|month| after(*month) <= today) {
        let first = chain.size();
        let own: Vec<ArchivedEntry> = of_month(&all, first, month, zone).map(Entry::archived).collect();
        let name = month.format("%Y-%m").to_string();
        let mut header = ArchiveHeader::new(name.clone(), view.key.origin().to_owned(), first, own.len() as u64);
        let mut reader = ProofReader::new(&view.store);
        header.root = hex::encode(reader.frontier(header.size()).await.map_err(|error| damaged(&error))?.root());
        let proof = reader.consistency(header.size(), signed.checkpoint.size).await.map_err(|error| damaged(&error))?;
        let proof = proof.ok_or_else(|| TaskError::Proof("the operation log's signed head is behind it".to_owned()))?;
        header.proof = proof.iter().map(hex::encode).collect();
        header.head.clone_from(&signed.note);
        header.previous = chain.digest().map(str::to_owned);
        let text = write_archive(&header, &own).map_err(|error| TaskError::Inconsistent(error.to_string()))?;
        let file = archive_name(&name);
        let unfit = |fault: ArchiveFault| TaskError::Inconsistent(format!("{}: {}", fault.archive, fault.what));
        chain.check_next(&file, &text, &view.key, None).map_err(unfit)?;
        made.push((file, text));
    }
    Ok(made)
}

/// Checks archives, in the order of their names, against each other and the log, and that no month that is over lacks its own.
/// Returns how many entries they hold.
///
/// # Errors
/// When the log cannot be read; what is wrong with the archives is the inner error.
pub async fn verify_archives(
    installation: &Installation,
    there: &[ArchiveFile],
) -> Result<std::result::Result<u64, ArchiveFault>> {
    let view = view_operation_log(installation).await?;
    let all = entries(&view).await?;
    let zone = installation.config.agent.timezone;
    let today = installation.clock.now().with_timezone(&zone).date_naive();
    Ok(check(&all, &view.key, there).and_then(|chain| {
        let missing = missing_months(&all, &chain, zone, today);
        let fault = |month: &str, what: String| ArchiveFault { archive: archive_name(month), line: None, what };
        match missing.split_first() {
            Some((first, [])) => Err(fault(first, "is missing, and its month is over".to_owned())),
            Some((first, rest)) => {
                Err(fault(first, format!("is missing, and its month is over; so are those of {}", rest.join(", "))))
            }
            None if there.is_empty() => Err(fault("*", "is not there: nothing was checked".to_owned())),
            None => Ok(chain.size()),
        }
    }))
}

fn check(all: &[Entry], key: &CheckpointKey, there: &[ArchiveFile]) -> std::result::Result<ArchiveChain, ArchiveFault> {
    let live = |index: u64| all.get(usize_of(index)).map(Entry::archived);
    let mut chain = ArchiveChain::default();
    for (name, text) in there {
        chain.check_next(name, text, key, Some(&live))?;
    }
    Ok(chain)
}

/// `, line 7` of a fault that has one.
#[must_use]
pub fn line_of(fault: &ArchiveFault) -> String {
    fault.line.map_or_else(String::new, |line| format!(", line {line}"))
}

/// Months that are over and not in these archives, as [`archive`] would write them.
fn missing_months(all: &[Entry], chain: &ArchiveChain, zone: Tz, today: NaiveDate) -> Vec<String> {
    let (mut size, mut months) = (chain.size(), Vec::<String>::new());
    loop {
        let last = months.last().map(String::as_str).or(chain.month());
        let next = next_month(all, size, last, zone).filter(|month| after(*month) <= today);
        let Some(month) = next else { return months };
        size += of_month(all, size, month, zone).count() as u64;
        months.push(month.format("%Y-%m").to_string());
    }
}

/// The entries of a month, of which this is the first.
fn of_month(all: &[Entry], first: u64, month: NaiveDate, zone: Tz) -> impl Iterator<Item = &Entry> {
    let ends = start_of(after(month), zone);
    all.iter().skip(usize_of(first)).take_while(move |entry| entry.time < ends)
}

/// The month of the entry at this place; after a clock that was set back, the one behind the last archive's.
fn next_month(all: &[Entry], first: u64, last: Option<&str>, zone: Tz) -> Option<NaiveDate> {
    let entry = all.get(usize_of(first))?;
    let own = entry.time.with_timezone(&zone).date_naive().with_day(1)?;
    let last = last.and_then(|month| NaiveDate::parse_from_str(&format!("{month}-01"), "%Y-%m-%d").ok());
    Some(last.map_or(own, |last| own.max(after(last))))
}

fn after(month: NaiveDate) -> NaiveDate {
    month.checked_add_months(Months::new(1)).unwrap_or(NaiveDate::MAX)
}

/// The first instant of a day.
fn start_of(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let midnight = day.and_time(chrono::NaiveTime::MIN);
    zone.from_local_datetime(&midnight).earliest().map_or_else(|| midnight.and_utc(), |at| at.with_timezone(&Utc))
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
