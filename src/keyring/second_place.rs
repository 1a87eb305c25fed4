//! The second place: where the agent's own state is sealed, so that a burnt site can be recovered and an old copy of the
//! control database is noticed.
//!
//! What lies there is specified in [`crate::backup::state_record`]. The port is [`ObjectStore`]: conditional put, get and list
//! are all that is needed, so the bucket is the first second place, and any other store of named blobs can be one.
//!
//! A root that a key service wraps is stored before the first record of its generation (`second_place/roots.rs`).
//!
//! Order of every record: parts, the intent in the control database, the record, a look for another one of the same number, the
//! record read back and opened, the head in the control database. A start that finds the record of its own intent adopts it;
//! any other lead of the second place means that this control database is an old copy, or that two hosts work as one.

mod check;
mod compare;
mod publish;
mod roots;
#[cfg(test)]
mod tests;
mod tree_pieces;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex as Guarded;

use thiserror::Error;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{Keyring, KeyringError};
use crate::backup::codec::{Id128, Sha256};
use crate::backup::object_store::{ObjectStore, RepositoryError, get_verified};
use crate::backup::state_record::{
    MAX_RECORD_BYTES, PartRef, Piece, PiecePlace, RecordName, RootName, StateFile, StateRecord, StateRecordError,
    open_part,
};
use crate::control::{Control, ControlError, ImageRows, Tx};
use crate::keys::tree::{KeyTree, NodeSet, Slot, places};
use crate::keys::{InstallationId, Key};
use crate::value::Value;

pub use check::StateCheck;
pub use compare::Comparison;
use publish::Known;
pub use publish::Sealing;
pub use roots::{RootCopy, fetch_root, root_names};
use tree_pieces::TreePieces;

/// `meta`: the newest record that this database knows to be there.
const HEAD: &str = "second_place.head";
/// `meta`: when the image of that record was taken.
const AT: &str = "second_place.at";
/// `meta`: the record that was about to be stored.
const INTENT: &str = "second_place.intent";
/// `meta`: records that were announced, did not arrive and were given up; should one arrive late, it means nothing.
const GIVEN_UP: &str = "second_place.given_up";

/// The tables of the key tree.
const CROWNS: &str = "tree_root";
const NODES: &str = "tree_node";

/// What can go wrong with the second place.
#[derive(Debug, Error)]
pub enum SecondPlaceError {
    /// It cannot be reached, or refused.
    #[error("the second place of the agent's state failed: {0}")]
    Store(#[from] RepositoryError),
    /// A record cannot be made or opened.
    #[error(transparent)]
    Record(#[from] StateRecordError),
    /// It was not opened by this command.
    #[error("the second place of the agent's state is not reachable from this command")]
    NotOpen,
    /// It is ahead of the control database by more than what this database had announced.
    #[error(
        "the second place holds the agent's state number {found}, this control database knows only number {known}: \
         it is an old copy, or another host works with the same bucket"
    )]
    Ahead {
        /// The number known here; 0 for none.
        known: u64,
        /// The number found there.
        found: u64,
    },
    /// Another record with a number of ours is there.
    #[error(
        "the second place holds another state number {number} than this control database: two hosts work as one installation"
    )]
    Forked {
        /// The number.
        number: u64,
    },
    /// What was read back is not what was stored.
    #[error("the state record does not hold the key tree that was sealed into it: {0}")]
    NotWhole(&'static str),
}

impl SecondPlaceError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::NotOpen | Self::Record(StateRecordError::Random(_)) => true,
            _ => false,
        }
    }

    /// Whether it shows that this control database must not be worked with.
    #[must_use]
    pub fn is_old_copy(&self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::Forked { .. })
    }
}

/// Whether an installation has a second place, as far as this process knows.
#[derive(Default)]
pub enum Second {
    /// None is configured.
    #[default]
    None,
    /// One is configured, but this process has not opened it.
    Closed,
    /// One is configured, and cannot be reached.
    Unreachable(RepositoryError),
    /// It is open.
    Open(Box<SecondPlace>),
}

/// An open second place.
pub struct SecondPlace {
    store: Arc<dyn ObjectStore>,
    files: Vec<StateFile>,
    known: Mutex<Option<Known>>,
    /// The wrapped root that this process has seen there.
    kept_root: Guarded<Option<RootName>>,
}

impl SecondPlace {
    /// A second place in an object store. `files` travel with every record.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, files: Vec<StateFile>) -> Self {
        Self { store, files, known: Mutex::new(None), kept_root: Guarded::default() }
    }
}

/// What the control database knows of the second place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The newest record that is known to be there.
    pub head: Option<RecordName>,
    /// When its image was taken, as text.
    pub at: Option<String>,
    /// The record that was about to be stored.
    pub intent: Option<RecordName>,
    given_up: Vec<RecordName>,
}

impl Memory {
    /// Reads it.
    ///
    /// # Errors
    /// When the control database fails or holds something else.
    pub async fn read(tx: &mut Tx) -> Result<Self, ControlError> {
        let parse = |text: &str| {
            RecordName::parse(text)
                .ok_or_else(|| ControlError::Inconsistent("the name of a state record is damaged".to_owned()))
        };
        let one = |text: Option<String>| text.map(|text| parse(&text)).transpose();
        let given_up = tx.meta(GIVEN_UP).await?.unwrap_or_default();
        Ok(Self {
            head: one(tx.meta(HEAD).await?)?,
            at: tx.meta(AT).await?,
            intent: one(tx.meta(INTENT).await?)?,
            given_up: given_up.split_whitespace().map(parse).collect::<Result<_, _>>()?,
        })
    }

    /// The entries of a control database that was made from this record.
    #[must_use]
    pub fn entries_for(name: &RecordName, record: &StateRecord) -> Vec<(String, String)> {
        vec![
            (HEAD.to_owned(), name.text()),
            (AT.to_owned(), crate::control::time_text(record.at)),
            (crate::control::CLOCK.to_owned(), crate::control::time_text(record.at)),
        ]
    }
}

/// Fetches a record and opens it.
///
/// # Errors
/// When it cannot be fetched, or does not open with this root.
pub async fn fetch_record(
    store: &dyn ObjectStore,
    name: &RecordName,
    installation: InstallationId,
    root: &Key,
) -> Result<StateRecord, SecondPlaceError> {
    let bytes = get_verified(store, &name.text(), &name.sha256, MAX_RECORD_BYTES).await?;
    Ok(StateRecord::open(&bytes, name, Id128(installation), root)?)
}

/// The pieces of a record's image, fetched one after the other.
pub struct PieceReader<'r> {
    store: &'r dyn ObjectStore,
    installation: InstallationId,
    pieces: std::slice::Iter<'r, Piece>,
    only: Option<&'r HashSet<Sha256>>,
}

impl<'r> PieceReader<'r> {
    /// Reads the image of a record.
    #[must_use]
    pub fn new(store: &'r dyn ObjectStore, record: &'r StateRecord, installation: InstallationId) -> Self {
        Self { store, installation, pieces: record.pieces.iter(), only: None }
    }

    /// The next piece; none behind the last.
    ///
    /// # Errors
    /// When it cannot be fetched or is not what the record says.
    pub async fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, SecondPlaceError> {
        let wanted = |piece: &&'r Piece| self.only.is_none_or(|only| only.contains(&piece.digest));
        let Some(piece) = self.pieces.find(wanted) else { return Ok(None) };
        Ok(Some(match &piece.place {
            PiecePlace::Inline(bytes) => bytes.clone(),
            PiecePlace::Part(part) => fetch_part(self.store, part, &piece.digest, self.installation).await?.into(),
        }))
    }
}

async fn fetch_part(
    store: &dyn ObjectStore,
    part: &PartRef,
    digest: &Sha256,
    installation: InstallationId,
) -> Result<Vec<u8>, SecondPlaceError> {
    let bytes = get_verified(store, &part.name(), &part.object, part.bytes as usize).await?;
    let content = open_part(&bytes, part, Id128(installation))?;
    if Sha256::of(&content) != *digest {
        return Err(SecondPlaceError::NotWhole("a part has another content than stated"));
    }
    Ok(content)
}

/// The key tree in a record: its crown and its nodes.
///
/// # Errors
/// When a piece cannot be fetched or read.
pub async fn fetch_tree(
    store: &dyn ObjectStore,
    record: &StateRecord,
    installation: InstallationId,
) -> Result<(Vec<u8>, NodeSet), KeyringError> {
    read_tree(PieceReader::new(store, record, installation)).await
}

async fn read_tree(mut pieces: PieceReader<'_>) -> Result<(Vec<u8>, NodeSet), KeyringError> {
    let mut crown = Vec::new();
    let mut nodes = NodeSet::new();
    while let Some(piece) = pieces.next().await? {
        let Some(rows) = ImageRows::of(&piece)? else { continue };
        let columns = rows.columns.clone();
        match rows.table.as_str() {
            CROWNS => {
                for row in rows {
                    crown = blob(&columns, row?, "crown")?;
                }
            }
            NODES => {
                for row in rows {
                    let row = row?;
                    let number = |name| number(&columns, &row, name);
                    let (subtree, level) = (number("subtree")? as u8, number("level")? as u8);
                    let id = (subtree, level, number("idx")? as u32, number("version")?);
                    if let Some(id) = super::node_id(id) {
                        nodes.insert(id, blob(&columns, row, "sealed")?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok((crown, nodes))
}

fn column(columns: &[String], name: &str) -> Result<usize, SecondPlaceError> {
    columns.iter().position(|column| column == name).ok_or(SecondPlaceError::NotWhole("a column is missing"))
}

fn number(columns: &[String], row: &[Value], name: &str) -> Result<i64, SecondPlaceError> {
    match row.get(column(columns, name)?) {
        Some(Value::Integer(number)) => Ok(*number),
        _ => Err(SecondPlaceError::NotWhole("a number is missing")),
    }
}

fn blob(columns: &[String], mut row: Vec<Value>, name: &str) -> Result<Vec<u8>, SecondPlaceError> {
    let place = column(columns, name)?;
    match row.get_mut(place) {
        Some(Value::Blob(bytes)) => Ok(std::mem::take(bytes)),
        _ => Err(SecondPlaceError::NotWhole("bytes are missing")),
    }
}

impl Keyring {
    /// Gives the keyring its second place.
    pub fn set_second_place(&mut self, second: Second) {
        self.second = second;
    }

    /// The open second place; `None` when none is configured.
    pub(super) fn second_place(&self) -> Result<Option<&SecondPlace>, SecondPlaceError> {
        match &self.second {
            Second::None => Ok(None),
            Second::Closed => Err(SecondPlaceError::NotOpen),
            Second::Unreachable(error) => Err(SecondPlaceError::Store(error.clone())),
            Second::Open(place) => Ok(Some(place)),
        }
    }

    /// Opens the tree that a record holds, with the paths of these slots. Fetched are the pieces that hold any of it, and those
    /// that were stored with the record; the others it has in common with the record before.
    ///
    /// # Errors
    /// When a piece cannot be fetched, or the crown does not open.
    pub(super) async fn tree_of_record(
        &self,
        place: &SecondPlace,
        (record, pieces): (&StateRecord, &TreePieces),
        root: &Key,
        slots: &[Slot],
    ) -> Result<KeyTree, KeyringError> {
        let places = places(slots);
        let wanted = pieces.with(&places);
        let mut reader = PieceReader::new(place.store.as_ref(), record, self.installation);
        reader.only = Some(&wanted);
        let (crown, nodes) = read_tree(reader).await?;
        let mut tree = KeyTree::open_bare(self.installation, record.generation, root, &crown)?;
        tree.load(&places, nodes);
        Ok(tree)
    }
}

/// What the control database knows of the second place.
///
/// # Errors
/// When the control database fails.
pub async fn memory(control: &Control) -> Result<Memory, ControlError> {
    Memory::read(&mut control.read().await?).await
}
