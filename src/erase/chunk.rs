//! A chunk of a plan: up to some hundred rows of one collection with one verdict, and its sealed form.

use super::{EraseError, Ground, Site};
use crate::control::ChunkRow;
use crate::keys::Key;
use crate::keys::sealed::{open_column, seal_column};
use crate::plan::model::Collection;
use crate::plan::{PlannedRow, Subject};
use crate::random::Random;
use crate::value::{MalformedValues, RowKey, Value, decode_value, encode_value};

/// Rows per chunk of a plan; a batch takes one, or the piece of it that its [pace](super::pace) allows.
pub const CHUNK_ROWS: usize = 2000;
/// Rows of several circles that are put together into one transaction.
pub const KNOT_ROWS: usize = 500;

/// A row of a chunk with the reason that goes with its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkItem {
    /// The row.
    pub row: PlannedRow,
    /// The reason's code, for rows that stay.
    pub reason: Option<String>,
}

/// Where a chunk's rows are.
///
/// # Errors
/// [`EraseError::NotNow`] when its store cannot be reached, or its collection is not there.
pub fn place_of<'g>(ground: &Ground<'g>, chunk: &ChunkRow) -> Result<(&'g Site, &'g Collection), EraseError> {
    let not_now = |what: String| EraseError::NotNow {
        what,
        advice: "see `wangchuan store check`; what was begun goes on once it can be reached".to_owned(),
    };
    let site = ground.sites.iter().find(|site| site.model.spec.name == chunk.store);
    let site = site.ok_or_else(|| not_now(format!("store {} cannot be reached now", chunk.store)))?;
    let found = site.model.collection(&chunk.collection).map(|(_, collection)| (site, collection));
    found.ok_or_else(|| not_now(format!("store {}: collection {} is not there now", chunk.store, chunk.collection)))
}

/// Seals a chunk's list under the plan's work key, for this plan and number only.
///
/// # Errors
/// When no randomness is to be had.
pub fn seal_items(
    key: &Key,
    plan: &str,
    number: i64,
    items: &[ChunkItem],
    random: &dyn Random,
) -> Result<Vec<u8>, EraseError> {
    Ok(seal_column(key, &[b"plan", plan.as_bytes(), &number.to_be_bytes()], &encode_items(items), random)?)
}

/// Cuts a chunk into pieces of so many rows each, in its order. A chunk's number is the place of its first row in the plan, so
/// the pieces stand where the chunk stood, and the plan's digest of rows stays what it was.
///
/// # Errors
/// When the list does not open, has another length, or no randomness is to be had.
pub fn cut(
    key: &Key,
    plan: &str,
    chunk: &ChunkRow,
    pieces: &[usize],
    random: &dyn Random,
) -> Result<Vec<ChunkRow>, EraseError> {
    let items = open_items(key, plan, chunk.number, &chunk.sealed)?;
    if items.len() != pieces.iter().sum::<usize>() {
        return Err(EraseError::Inconsistent("a chunk of the plan has another number of rows than it says".to_owned()));
    }
    let mut rows = items.as_slice();
    let mut number = chunk.number;
    let mut cut = Vec::new();
    for piece in pieces {
        let (own, rest) = rows.split_at(*piece);
        rows = rest;
        let sealed = seal_items(key, plan, number, own, random)?;
        cut.push(ChunkRow { number, rows: own.len() as i64, sealed, ..chunk.clone() });
        number += own.len() as i64;
    }
    Ok(cut)
}

/// Opens what [`seal_items`] sealed.
///
/// # Errors
/// When the list was changed, belongs elsewhere, or its key is gone.
pub fn open_items(key: &Key, plan: &str, number: i64, sealed: &[u8]) -> Result<Vec<ChunkItem>, EraseError> {
    Ok(decode_items(&open_column(key, &[b"plan", plan.as_bytes(), &number.to_be_bytes()], sealed)?)?)
}

/// The plain form of a chunk's list, to be sealed.
#[must_use]
pub fn encode_items(items: &[ChunkItem]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        encode_value(&Value::Integer(item.row.key.0.len() as i64), &mut out);
        for value in &item.row.key.0 {
            encode_value(value, &mut out);
        }
        let subject =
            item.row.subject.as_ref().map_or(Value::Null, |subject| Value::Text(subject.dangerous_text().to_owned()));
        encode_value(&subject, &mut out);
        encode_value(&Value::Integer(i64::from(item.row.start.is_some())), &mut out);
        encode_value(item.row.start.as_ref().unwrap_or(&Value::Null), &mut out);
        encode_value(&Value::Text(item.row.period.clone()), &mut out);
        encode_value(&item.reason.clone().map_or(Value::Null, Value::Text), &mut out);
    }
    out
}

/// Reads what [`encode_items`] made.
///
/// # Errors
/// When the bytes are something else.
pub fn decode_items(bytes: &[u8]) -> Result<Vec<ChunkItem>, MalformedValues> {
    let mut at = 0;
    let mut items = Vec::new();
    while at < bytes.len() {
        let wrong = |at: usize, what: &'static str| MalformedValues { at, what };
        let Value::Integer(length) = decode_value(bytes, &mut at)? else { return Err(wrong(at, "no key length")) };
        let mut key = Vec::new();
        for _ in 0..length {
            key.push(decode_value(bytes, &mut at)?);
        }
        let subject = match decode_value(bytes, &mut at)? {
            Value::Text(text) => Some(Subject::new(text)),
            Value::Null => None,
            _ => return Err(wrong(at, "no subject")),
        };
        let has_start = decode_value(bytes, &mut at)? == Value::Integer(1);
        let start = decode_value(bytes, &mut at)?;
        let Value::Text(period) = decode_value(bytes, &mut at)? else { return Err(wrong(at, "no period")) };
        let reason = match decode_value(bytes, &mut at)? {
            Value::Text(text) => Some(text),
            _ => None,
        };
        let row = PlannedRow { key: RowKey(key), subject, start: has_start.then_some(start), period };
        items.push(ChunkItem { row, reason });
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_round_trip_and_never_panic_when_cut() {
        let items: Vec<ChunkItem> = (0..3)
            .map(|n| ChunkItem {
                row: PlannedRow {
                    key: RowKey(vec![Value::Integer(n), Value::Text("a".to_owned())]),
                    subject: (n > 0).then(|| Subject::new("C1")),
                    start: (n > 1).then_some(Value::Null),
                    period: "2023Q2".to_owned(),
                },
                reason: (n == 0).then(|| "statute:cn.ecl.31".to_owned()),
            })
            .collect();
        let bytes = encode_items(&items);
        assert_eq!(decode_items(&bytes).unwrap(), items);
        for end in 0..bytes.len() {
            assert!(decode_items(&bytes[..end]).map_or(true, |found| found.len() < items.len()));
        }
    }
}
