//! What the operation log says of a run's rows: how many were deleted and changed in each table, and a digest of what was there before.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};

use crate::control::{DoneBlock, LedgerKind};
use crate::log::record::Change;

/// The changes of a run, by table, from its entries in the ledger in their order.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<(String, &'static str), (u64, Option<Context>)>);

impl Changes {
    /// Adds the rows of a block of entries.
    pub(super) fn add(&mut self, block: &DoneBlock, done: &[([u8; 16], [u8; 32])]) {
        let letter = if block.kind == LedgerKind::Erased { "D" } else { "M" };
        let (rows, contents) = self.0.entry((format!("{}.{}", block.store, block.collection), letter)).or_default();
        let contents = contents.get_or_insert_with(|| Context::new(&SHA256));
        *rows += done.len() as u64;
        for (_, content) in done {
            contents.update(content);
        }
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
