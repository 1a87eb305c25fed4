//! What the operation log says of a run's rows: how many were deleted and changed in each table, and a digest of what was there before.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};

use crate::control::{LedgerEntry, LedgerKind};
use crate::log::record::Change;

/// The changes of a run, by table, from its entries in the ledger in their order.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<(String, &'static str), (u64, Option<Context>)>);

impl Changes {
    /// Adds an entry.
    pub(super) fn add(&mut self, entry: &LedgerEntry) {
        let letter = if entry.kind == LedgerKind::Erased { "D" } else { "M" };
        let (rows, contents) = self.0.entry((format!("{}.{}", entry.store, entry.collection), letter)).or_default();
        *rows += 1;
        contents.get_or_insert_with(|| Context::new(&SHA256)).update(&entry.content_mac);
    }

    /// What the operation log says.
    pub(super) fn finish(self) -> Vec<Change> {
        let change = |((field, letter), (rows, contents)): ((String, &str), (u64, Option<Context>))| Change {
            field,
            operation: letter.to_owned(),
            rows,
            before: contents.map(|contents| hex::encode(contents.finish())),
        };
        self.0.into_iter().map(change).collect()
    }
}
