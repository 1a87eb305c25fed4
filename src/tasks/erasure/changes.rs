//! What the operation log says of a run's rows: how many were deleted and changed in each table, and a digest of what was there before.

use std::collections::BTreeMap;

use crate::control::{LedgerEntry, LedgerKind};
use crate::log::record::Change;
use crate::log::tree::sha256;

/// Bytes of a row's content digest in the ledger.
const CONTENT_MAC_BYTES: usize = 32;

/// The changes of a run, by table, from its entries in the ledger in their order.
pub(super) fn of(ledger: &[LedgerEntry]) -> Vec<Change> {
    let mut tables: BTreeMap<(String, &str), Vec<u8>> = BTreeMap::new();
    for entry in ledger {
        let letter = if entry.kind == LedgerKind::Erased { "D" } else { "M" };
        let table = (format!("{}.{}", entry.store, entry.collection), letter);
        tables.entry(table).or_default().extend_from_slice(&entry.content_mac);
    }
    let change = |((field, letter), contents): ((String, &str), Vec<u8>)| Change {
        field,
        operation: letter.to_owned(),
        rows: (contents.len() / CONTENT_MAC_BYTES) as u64,
        before: Some(hex::encode(sha256(&contents))),
    };
    tables.into_iter().map(change).collect()
}
