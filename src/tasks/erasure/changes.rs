//! What the operation log says of a run's rows: of each table how many were deleted and changed, which, a digest of what was there
//! before and of what was left, what became of the fields, and sealed masks of the first rows.

pub(super) mod values;

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};

use crate::control::{DoneBlock, LedgerKind, RunRow};
use crate::erase::Ground;
use crate::erase::batch::stripped_columns;
use crate::installation::Installation;
use crate::log::record::{Change, Records};
use crate::plan::Technique;
use crate::plan::anonymise::Anonymise;
use crate::plan::model::Collection;

use super::Result;
use values::{Sealer, TableValues};

/// Rows of a table whose values are shown.
const ROWS_SHOWN: usize = 10;

/// A row: its chunk, and the keyed digest of its key.
type Place = (i64, [u8; 16]);

/// What became of rows of a table in one way.
#[derive(Default)]
struct Done {
    rows: u64,
    contents: Option<Context>,
    /// Of what changed rows were left with.
    left: Option<Context>,
    /// Rows of which that is not known.
    unknown: u64,
    first: Vec<Place>,
    last: Option<Place>,
    kinds: Vec<LedgerKind>,
}

/// The changes of a run, by store, table and letter, from its entries in the ledger in their order.
#[derive(Default)]
struct Changes(BTreeMap<(String, String, &'static str), Done>);

impl Changes {
    /// Adds the rows of a block of entries, and what they were left with if they are still there.
    fn add(&mut self, block: &DoneBlock, rows: &[([u8; 16], [u8; 32])], left: &[Option<[u8; 32]>]) {
        let letter = if block.kind == LedgerKind::Erased { "D" } else { "M" };
        let done = self.0.entry((block.store.clone(), block.collection.clone(), letter)).or_default();
        let contents = done.contents.get_or_insert_with(|| Context::new(&SHA256));
        done.rows += rows.len() as u64;
        for (row, content) in rows {
            contents.update(content);
            if done.first.len() < ROWS_SHOWN {
                done.first.push((block.chunk, *row));
            }
            done.last = Some((block.chunk, *row));
        }
        for content in left {
            match content {
                Some(content) => done.left.get_or_insert_with(|| Context::new(&SHA256)).update(content),
                None => done.unknown += 1,
            }
        }
        if !done.kinds.contains(&block.kind) {
            done.kinds.push(block.kind);
        }
    }
}

/// What the operation log says of the rows that a run deleted, anonymised or stripped.
///
/// # Errors
/// When the control database, a key or a store fails; it is done again then.
pub(super) async fn changes_of(installation: &Installation, run: &RunRow) -> Result<Vec<Change>> {
    let mut changes = Changes::default();
    let mut tx = installation.control.read().await?;
    for block in tx.done_blocks(&run.id).await? {
        let left = match block.kind {
            LedgerKind::Erased => Vec::new(),
            LedgerKind::Anonymised | LedgerKind::Stripped => tx.left_contents(&run.id, &block).await?,
        };
        changes.add(&block, &tx.done_rows(&run.id, &block).await?, &left);
    }
    drop(tx);
    let ground = installation.ground()?;
    let sealer = Sealer::of(installation, &run.id).await?;
    let mut said = Vec::new();
    for ((store, table, letter), done) in changes.0 {
        let collection = collection_of(&ground, &store, &table);
        let values = match (&sealer, collection) {
            (Some(sealer), Some(_)) => sealer.read(&ground, (&store, &table, letter), &done.first, done.last).await?,
            _ => TableValues::default(),
        };
        let field = format!("{store}.{table}");
        let sealed = match &sealer {
            Some(sealer) if !values.rows.is_empty() => Some(sealer.seal(&field, letter, &values)?),
            _ => None,
        };
        said.push(Change {
            after: collection.map(|collection| after(collection, &done.kinds)).unwrap_or_default(),
            records: records(&done),
            before: done.contents.map(|contents| hex::encode(contents.finish())),
            after_digest: done.left.filter(|_| done.unknown == 0).map(|left| hex::encode(left.finish())),
            operation: letter.to_owned(),
            rows: done.rows,
            field,
            sealed,
        });
    }
    Ok(said)
}

fn collection_of<'g>(ground: &Ground<'g>, store: &str, table: &str) -> Option<&'g Collection> {
    let site = ground.sites.iter().find(|site| site.model.spec.name == store)?;
    Some(site.model.collection(table)?.1)
}

fn records(done: &Done) -> Option<Records> {
    let (first, last) = (done.first.first()?, done.last?);
    Some(Records { first: hex::encode(first.1), last: hex::encode(last.1) })
}

/// What became of the fields of rows that were modified.
fn after(collection: &Collection, kinds: &[LedgerKind]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if kinds.contains(&LedgerKind::Stripped) {
        all.extend(stripped_columns(collection).into_iter().map(|column| (column.name.clone(), "emptied".to_owned())));
    }
    if kinds.contains(&LedgerKind::Anonymised) {
        let techniques = collection.anonymise.iter().flat_map(Anonymise::techniques);
        all.extend(techniques.map(|(column, technique)| (column, name_of(technique).to_owned())));
    }
    all
}

fn name_of(technique: Technique) -> &'static str {
    match technique {
        Technique::Null => "null",
        Technique::Fixed => "fixed",
        Technique::Mask => "mask",
        Technique::Generalise => "generalise",
        Technique::Surrogate => "surrogate",
    }
}
