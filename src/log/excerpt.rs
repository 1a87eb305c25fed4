//! Excerpts of a log: entries that follow each other in one file, with what shows that the log signed them in this place. Pure.
//!
//! ```text
//! file = header line, one line an entry        (JSON, each with a newline; entries as in archives)
//! ```
//! The header holds the right edge of the tree before the first entry. From there the entries lead to the root behind the last one, and a
//! proof leads from that to a head that the log signed. So the log's key and the file are enough, and nothing before it need be there: a
//! false edge, a changed, missing or added entry leads to another root.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::archive::{ArchivedEntry, check_continues, checked, stated_time, write_lines};
use super::checkpoint::CheckpointKey;
use super::tree::{Frontier, Hash, leaf_hash};

/// The version of the form.
const FORMAT: u32 = 1;
/// No log has more entries before an excerpt.
const MOST: u64 = 1 << 48;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcerptHeader {
    /// Version of the form.
    pub format: u32,
    /// The log's origin.
    pub log: String,
    /// The index of the first entry.
    pub first: u64,
    /// How many there are.
    pub entries: u64,
    /// The complete subtrees of all entries before the first, largest first: hashes, hex.
    pub before: Vec<String>,
    /// The root of the tree behind the last entry, hex.
    pub root: String,
    /// A head of the log, signed, at least as large.
    pub head: String,
    /// The proof that the head continues the root: hashes, hex.
    pub proof: Vec<String>,
}

/// What is wrong with an excerpt, and in which line, from 1, if one is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExcerptFault {
    /// The line.
    pub line: Option<u64>,
    /// What is wrong, as part of a sentence.
    pub what: &'static str,
}

/// An excerpt that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// Its entries.
    pub entries: Vec<ArchivedEntry>,
    before: Frontier,
    leaves: Vec<Hash>,
    head_size: u64,
}

impl ExcerptHeader {
    /// The header of so many entries from the right edge of what stands before them on; root, head and proof are still to come.
    #[must_use]
    pub fn new(log: &str, before: &Frontier, entries: u64) -> Self {
        Self {
            format: FORMAT,
            log: log.to_owned(),
            first: before.size(),
            entries,
            before: before.hashes().iter().map(hex::encode).collect(),
            root: String::new(),
            head: String::new(),
            proof: Vec::new(),
        }
    }

    /// The tree's size behind the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.entries)
    }
}

/// The text of an excerpt.
///
/// # Errors
/// When something cannot be written as JSON.
pub fn write_excerpt(header: &ExcerptHeader, entries: &[ArchivedEntry]) -> Result<String, serde_json::Error> {
    write_lines(header, entries)
}

/// Reads an excerpt and checks all of it against the log's key.
///
/// # Errors
/// What is wrong with it.
pub fn read_excerpt(text: &str, key: &CheckpointKey) -> Result<Excerpt, ExcerptFault> {
    let fault = |line: Option<u64>, what: &'static str| ExcerptFault { line, what };
    let mut lines = text.lines();
    let header: Option<ExcerptHeader> = lines.next().and_then(|line| serde_json::from_str(line).ok());
    let header = header.filter(|header| header.format == FORMAT && header.first <= MOST);
    let header = header.ok_or_else(|| fault(Some(1), "is no header of an excerpt that this version knows"))?;
    let hashes: Option<Vec<Hash>> =
        header.before.iter().map(|text| Hash::try_from(hex::decode(text).ok()?).ok()).collect();
    let before = hashes.and_then(|hashes| Frontier::from_hashes(header.first, hashes));
    let before = before.ok_or_else(|| fault(Some(1), "does not say what the tree was before its first entry"))?;
    let (mut frontier, mut entries, mut leaves) = (before.clone(), Vec::new(), Vec::new());
    for (at, line) in lines.enumerate() {
        let number = Some(at as u64 + 2);
        let entry: ArchivedEntry = serde_json::from_str(line).map_err(|_| fault(number, "is no entry"))?;
        let digest = checked(&entry, header.first.saturating_add(at as u64)).map_err(|what| fault(number, what))?;
        stated_time(&entry).ok_or_else(|| fault(number, "has another time than its record, or none"))?;
        let leaf = leaf_hash(&digest);
        frontier.append(leaf, |_, _| {});
        leaves.push(leaf);
        entries.push(entry);
    }
    if entries.len() as u64 != header.entries {
        return Err(fault(None, "has another number of entries than it says: some are missing or added"));
    }
    let head_size = check_continues(&frontier, (&header.root, &header.head, &header.proof), key)
        .map_err(|what| fault(None, what))?;
    Ok(Excerpt { entries, before, leaves, head_size })
}

impl Excerpt {
    /// The index of the first entry.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.before.size()
    }

    /// The tree's size behind the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.before.size() + self.leaves.len() as u64
    }

    /// Whether the log had no more entries when the head was signed.
    #[must_use]
    pub fn is_newest(&self) -> bool {
        self.head_size == self.end()
    }

    /// The roots of the trees of the log's first entries, for each of these numbers of them that the excerpt reaches.
    #[must_use]
    pub fn roots(&self, sizes: &BTreeSet<u64>) -> BTreeMap<u64, Hash> {
        let mut frontier = self.before.clone();
        let mut roots = BTreeMap::new();
        for leaf in self.leaves.iter().map(Some).chain([None]) {
            if sizes.contains(&frontier.size()) {
                roots.insert(frontier.size(), frontier.root());
            }
            if let Some(leaf) = leaf {
                frontier.append(*leaf, |_, _| {});
            }
        }
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::checkpoint::CheckpointSigner;
    use crate::log::record::commitment;
    use crate::log::tree::sha256;
    use crate::random::SystemRandom;

    /// Entries 0 to 12 of a log, as an excerpt from `first` to before `end`; the head is signed over all 13 of them.
    fn excerpt(signer: &CheckpointSigner, first: u64, end: u64) -> String {
        let all: Vec<ArchivedEntry> = (0..13).map(entry).collect();
        let grown = |size: u64| {
            let mut frontier = Frontier::default();
            for entry in &all[..size as usize] {
                frontier.append(leaf_hash(&hex::decode(&entry.commitment).unwrap()), |_, _| {});
            }
            frontier
        };
        let leaves: Vec<Hash> = all.iter().map(|entry| leaf_hash(&hex::decode(&entry.commitment).unwrap())).collect();
        let mut header = ExcerptHeader::new(signer.key().origin(), &grown(first), end - first);
        header.root = hex::encode(grown(end).root());
        header.head = signer.sign(13, grown(13).root()).note;
        let ranges = crate::log::tree::consistency_ranges(end, 13).unwrap();
        let of_range = |range: &crate::log::tree::Range| {
            let mut frontier = Frontier::default();
            for leaf in &leaves[range.start as usize..range.end as usize] {
                frontier.append(*leaf, |_, _| {});
            }
            hex::encode(frontier.root())
        };
        header.proof = ranges.iter().map(of_range).collect();
        write_excerpt(&header, &all[first as usize..end as usize]).unwrap()
    }

    fn entry(index: u64) -> ArchivedEntry {
        let salt = sha256(&index.to_be_bytes());
        let record = format!("{{\"time\":{}}}", index * 1000);
        ArchivedEntry {
            index,
            time: format!("1970-01-01T00:00:{index:02}.000Z"),
            commitment: hex::encode(commitment(&salt, record.as_bytes())),
            salt: Some(hex::encode(salt)),
            record: Some(record),
        }
    }

    fn signer() -> CheckpointSigner {
        CheckpointSigner::from_pkcs8("a.example/log", &CheckpointSigner::make_pkcs8(&SystemRandom).unwrap()).unwrap()
    }

    #[test]
    fn any_part_of_a_log_proves_itself() {
        let signer = signer();
        for first in 0..13 {
            for end in first + 1..=13 {
                let read = read_excerpt(&excerpt(&signer, first, end), signer.key());
                let read = read.unwrap_or_else(|fault| panic!("{first}..{end}: {fault:?}"));
                assert_eq!((read.first(), read.end(), read.is_newest()), (first, end, end == 13));
                let whole = read_excerpt(&excerpt(&signer, 0, 13), signer.key()).unwrap();
                let mut roots = whole.roots(&(0..=13).collect());
                assert_eq!(roots.len(), 14);
                roots.retain(|size, _| (first..=end).contains(size));
                assert_eq!(read.roots(&(0..=20).collect()), roots, "{first}..{end}");
            }
        }
    }

    #[test]
    fn whatever_is_changed_is_refused() {
        let signer = signer();
        let text = excerpt(&signer, 3, 9);
        let lines: Vec<&str> = text.lines().collect();
        let without = |at: usize| {
            let kept = lines.iter().enumerate().filter(|(number, _)| *number != at).map(|(_, line)| *line);
            kept.collect::<Vec<_>>().join("\n")
        };
        let line = |text: &str| read_excerpt(text, signer.key()).unwrap_err().line;
        assert_eq!(line(&without(3)), Some(4), "one in the middle is missing");
        assert_eq!(line(&without(6)), None, "the last is missing");
        assert_eq!(line(&text.replacen("{\\\"time\\\":5000}", "{\\\"time\\\":5001}", 1)), Some(4));
        assert_eq!(line(&text.replacen("00:00:05", "00:00:06", 1)), Some(4), "another time than its record");
        let swapped = text.replacen(&hex::encode(sha256(&4u64.to_be_bytes())), &"00".repeat(32), 1);
        assert_eq!(line(&swapped), Some(3));
        // A record that is dropped together with its salt leaves its digest, as an expired one does.
        let mut expired = entry(5);
        (expired.salt, expired.record) = (None, None);
        let dropped = text.replacen(lines[3], &serde_json::to_string(&expired).unwrap(), 1);
        assert!(read_excerpt(&dropped, signer.key()).is_ok());
        expired.commitment = "11".repeat(32);
        let forged = text.replacen(lines[3], &serde_json::to_string(&expired).unwrap(), 1);
        assert_eq!(line(&forged), None, "an expired entry cannot be made up");
        let header: ExcerptHeader = serde_json::from_str(lines[0]).unwrap();
        let edge = text.replacen(&header.before[0], &"22".repeat(32), 1);
        assert_eq!(line(&edge), None, "what stands before is bound as well");
        assert!(read_excerpt(&text, self::signer().key()).is_err(), "another log's key");
    }
}
