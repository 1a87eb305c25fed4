//! The physical stage of an erasure: what the files of a store may still hold of rows that are deleted.
//!
//! A DELETE takes rows out of sight; their bytes leave the files later, or never by themselves. What is known of that is told
//! as a list of [`Residue`]s, each either passing (something ends, and then it is gone) or lasting (it stays until somebody
//! does something, or until the store's own log is recycled).

use std::collections::BTreeSet;
use std::path::PathBuf;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What may still hold bytes of deleted rows. A closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResidueCode {
    /// Another connection of a SQLite file: it keeps older pages in the log, or stands in the way of the clean-up.
    OpenReader,
    /// A transaction that began before the rows were deleted (`of`: its process): their old versions are kept for it.
    OldTransaction,
    /// A prepared transaction (`of`: its name) does the same.
    PreparedTransaction,
    /// A replication slot (`of`: its name) does the same.
    ReplicationSlot,
    /// InnoDB has not purged the deleted rows yet.
    PurgeBehind,
    /// The clean-up of a table (`of`) was not finished; it is tried again.
    Unfinished,
    /// The login may not clean the table (`of`) up: its owner may.
    NoRight,
    /// The login does not see whether InnoDB has purged the deleted rows.
    UnseenPurge,
    /// The login does not see other sessions, and so not whether one keeps old versions of rows.
    UnseenSessions,
    /// Parts of pages that are not in use were not overwritten; a rewrite of the table removes them.
    PageRemains,
    /// A SQLite file was not written anew: its disk has no room for a second copy of it.
    NoRoom,
    /// A full-text index (`of`) could not be tidied: words of the rows may stand in it.
    SearchIndex,
    /// The write-ahead log, or redo and undo logs, until they are recycled.
    TransactionLog,
    /// The archive of the write-ahead log, which the program does not reach.
    LogArchive,
    /// The binary log; `until` is the day on which its present files expire, if they do.
    BinaryLog,
    /// A log of statements is on: what was written with the rows may stand in it.
    StatementLog,
    /// A declared replica (`of`) does not show yet what the store did: the rows may be there.
    ReplicaBehind,
}

impl ResidueCode {
    /// Every code.
    pub const ALL: [Self; 17] = [
        Self::OpenReader,
        Self::OldTransaction,
        Self::PreparedTransaction,
        Self::ReplicationSlot,
        Self::PurgeBehind,
        Self::Unfinished,
        Self::NoRight,
        Self::UnseenPurge,
        Self::UnseenSessions,
        Self::PageRemains,
        Self::NoRoom,
        Self::SearchIndex,
        Self::TransactionLog,
        Self::LogArchive,
        Self::BinaryLog,
        Self::StatementLog,
        Self::ReplicaBehind,
    ];

    /// Whether it ends by itself, so that it is worth looking again.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(
            self,
            Self::OpenReader
                | Self::OldTransaction
                | Self::PreparedTransaction
                | Self::ReplicationSlot
                | Self::PurgeBehind
                | Self::Unfinished
                | Self::ReplicaBehind
        )
    }

    /// Whether rows may stand there as such for nobody knows how long, or nobody sees whether they do: no time of recycling is a date for
    /// that, whoever declares it.
    #[must_use]
    pub fn keeps_rows(self) -> bool {
        self.passes() || matches!(self, Self::NoRight | Self::UnseenPurge | Self::UnseenSessions | Self::SearchIndex)
    }

    /// Whether copies of the table files that are made while it is there hold something of the rows.
    #[must_use]
    pub fn is_in_tables(self) -> bool {
        self.keeps_rows() || self == Self::PageRemains
    }

    /// Whether it is a log, whose files stay when it is switched off.
    #[must_use]
    pub fn is_log(self) -> bool {
        matches!(self, Self::TransactionLog | Self::LogArchive | Self::BinaryLog | Self::StatementLog)
    }
}

/// One thing that may still hold bytes of deleted rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Residue {
    /// What it is.
    pub code: ResidueCode,
    /// Which one; null where there is only one.
    pub of: Option<String>,
    /// The day on which it should be gone, where the server tells one. Nothing is promised by it.
    pub until: Option<NaiveDate>,
}

impl Residue {
    /// One of which there is only one.
    #[must_use]
    pub fn new(code: ResidueCode) -> Self {
        Self { code, of: None, until: None }
    }

    /// One of several.
    #[must_use]
    pub fn of(code: ResidueCode, of: impl Into<String>) -> Self {
        Self { of: Some(of.into()), ..Self::new(code) }
    }
}

/// How far the physical stage got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PhysicalStage {
    /// Nothing of the deleted rows is left in the store's own files, as far as its engine tells.
    Settled,
    /// Something that passes by itself still holds some of it.
    Pending,
    /// Only what does not pass by itself is left; it is named.
    Residual,
}

/// How far the erasure of deleted rows got inside the store's own files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PhysicalState {
    /// What may still hold them; sorted.
    pub residues: Vec<Residue>,
    /// The point in the store's history behind which the rows were deleted, for the next look.
    pub mark: Option<String>,
    /// Whether the tables were written anew behind that point.
    pub is_rewritten: bool,
}

impl PhysicalState {
    /// The stage that these residues come to.
    #[must_use]
    pub fn stage_of(residues: &[Residue]) -> PhysicalStage {
        match (residues.is_empty(), residues.iter().any(|residue| residue.code.passes())) {
            (true, _) => PhysicalStage::Settled,
            (false, true) => PhysicalStage::Pending,
            (false, false) => PhysicalStage::Residual,
        }
    }

    /// Its own stage.
    #[must_use]
    pub fn stage(&self) -> PhysicalStage {
        Self::stage_of(&self.residues)
    }

    pub(super) fn sorted(mut self) -> Self {
        self.residues.sort_unstable();
        self.residues.dedup();
        self
    }
}

/// What a store is to clean up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settling<'a> {
    /// The tables that rows were deleted from or changed in.
    pub tables: &'a [String],
    /// What an earlier look at the same rows left in [`PhysicalState::mark`].
    pub mark: Option<&'a str>,
    /// Whether the tables were written anew since.
    pub is_rewritten: bool,
    /// Whether to tell only who keeps rows, and to leave the tables alone: they are cleaned up for several runs at once.
    pub look_only: bool,
    /// Whether to write the tables anew, which locks them: only on somebody's word.
    pub rewrite: bool,
    /// Up to which size in bytes a SQLite file is looked through, and written anew where that is needed and harms nobody.
    pub vacuum_bytes: u64,
}

/// Files that may hold bytes of a store's rows, by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// The database file of SQLite, or the files of the database's tables and indexes.
    Tables,
    /// The rollback or write-ahead log beside a SQLite file.
    Journal,
    /// The write-ahead log, or the redo log.
    TransactionLog,
    /// Undo logs, the system table space and the doublewrite buffer.
    Undo,
    /// The binary log.
    BinaryLog,
    /// Logs of statements and errors.
    StatementLog,
    /// What a server keeps for work that is under way: sorted parts, slots.
    Temporary,
}

/// What a look into the raw files of a store found of the rows of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileSearch {
    /// When (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// How many values were looked for.
    pub values_sought: u64,
    /// Files that were read from end to end.
    pub searched_kinds: Vec<FileKind>,
    /// Files in which values were found.
    pub found_kinds: Vec<FileKind>,
    /// Files that were not, or not wholly, read.
    pub unsearched_kinds: Vec<FileKind>,
}

/// How a store writes text into its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextEncoding {
    /// UTF-8.
    Utf8,
    /// UTF-16, the low byte first.
    Utf16Le,
    /// UTF-16, the high byte first.
    Utf16Be,
    /// UTF-32, the high byte first.
    Utf32Be,
    /// Another one, in which ASCII is written as it is: of anything else nobody here knows the bytes.
    OtherAscii,
}

impl TextEncoding {
    /// The bytes of a text in files; none when they are not known.
    #[must_use]
    pub fn bytes_of(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.as_bytes().to_vec()),
            Self::Utf16Le => Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            Self::Utf16Be => Some(text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            Self::Utf32Be => Some(text.chars().flat_map(|letter| u32::from(letter).to_be_bytes()).collect()),
            Self::OtherAscii => text.is_ascii().then(|| text.as_bytes().to_vec()),
        }
    }
}

/// Where the files of a store lie, as the store tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileMap {
    /// Files, folders whose files all count, and with `*` at the end beginnings of names; by what they are.
    pub parts: BTreeSet<(FileKind, PathBuf)>,
    /// Of each of these at least one file must be there, or something was not looked into: a table, a log. One without paths lies where
    /// the store does not say.
    pub needed: BTreeSet<(FileKind, Vec<PathBuf>)>,
    /// How text is written in them.
    pub encodings: BTreeSet<TextEncoding>,
}

impl FileMap {
    /// Adds files of which at least one must be there.
    pub(super) fn need(&mut self, kind: FileKind, paths: Vec<PathBuf>) {
        self.parts.extend(paths.iter().map(|path| (kind, path.clone())));
        self.needed.insert((kind, paths));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_looked_for_in_the_bytes_of_the_store() {
        let forms = |text| {
            [
                TextEncoding::Utf8,
                TextEncoding::Utf16Le,
                TextEncoding::Utf16Be,
                TextEncoding::Utf32Be,
                TextEncoding::OtherAscii,
            ]
            .map(|encoding: TextEncoding| encoding.bytes_of(text))
        };
        let ascii = [&b"a"[..], b"a\0", b"\0a", b"\0\0\0a", b"a"].map(|bytes| Some(bytes.to_vec()));
        assert_eq!(forms("a"), ascii);
        let chinese =
            [&b"\xe7\x8e\x8b"[..], b"\x8b\x73", b"\x73\x8b", b"\0\0\x73\x8b"].map(|bytes| Some(bytes.to_vec()));
        assert_eq!((&forms("王")[..4], &forms("王")[4]), (&chinese[..], &None));
    }

    #[test]
    fn what_keeps_rows_is_neither_a_log_nor_a_remain() {
        for code in ResidueCode::ALL {
            assert!(!(code.keeps_rows() && code.is_log()), "{code:?}");
            assert!(code.keeps_rows() || !code.passes(), "{code:?}");
        }
        let others = ResidueCode::ALL.into_iter().filter(|code| !code.keeps_rows() && !code.is_log());
        assert_eq!(others.collect::<Vec<_>>(), [ResidueCode::PageRemains, ResidueCode::NoRoom]);
    }
}
