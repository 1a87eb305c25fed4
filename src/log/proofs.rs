//! Computes subtree hashes and proofs from what a leaf store keeps.

use std::collections::HashMap;

use super::store::{LeafStore, LeafStoreError, Result, TILE_LEVELS};
use super::tree::{Frontier, Hash, Node, Range, complete_subtrees, consistency_ranges, fold, inclusion_ranges};

/// Answers proofs; remembers the tiles it has read, so use one for related questions and drop it then.
///
/// Tiles it remembers may be older than the log. That is harmless: a hash once there never changes, and a question that
/// needs more than the remembered part reads the tile again.
pub struct ProofReader<'a> {
    store: &'a dyn LeafStore,
    tiles: HashMap<(u8, u64), Vec<Hash>>,
}

impl<'a> ProofReader<'a> {
    /// A reader without memory yet.
    #[must_use]
    pub fn new(store: &'a dyn LeafStore) -> Self {
        Self { store, tiles: HashMap::new() }
    }

    /// The hashes that prove leaf `index` in the tree of the first `size` leaves; `None` when it is not in there.
    pub async fn inclusion(&mut self, index: u64, size: u64) -> Result<Option<Vec<Hash>>> {
        self.ranges(inclusion_ranges(index, size)).await
    }

    /// The hashes that prove that the tree of `new` leaves extends the one of `old`; `None` when `old` is larger.
    pub async fn consistency(&mut self, old: u64, new: u64) -> Result<Option<Vec<Hash>>> {
        self.ranges(consistency_ranges(old, new)).await
    }

    /// The right edge of the tree of the first `size` leaves.
    pub async fn frontier(&mut self, size: u64) -> Result<Frontier> {
        let mut hashes = Vec::new();
        for node in complete_subtrees(Range { start: 0, end: size }) {
            hashes.push(self.node(node).await?);
        }
        Frontier::from_hashes(size, hashes).ok_or_else(|| self.damaged("a tree of impossible shape"))
    }

    async fn ranges(&mut self, ranges: Option<Vec<Range>>) -> Result<Option<Vec<Hash>>> {
        let Some(ranges) = ranges else { return Ok(None) };
        let mut proof = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut hashes = Vec::new();
            for node in complete_subtrees(range) {
                hashes.push(self.node(node).await?);
            }
            proof.push(fold(&hashes).ok_or_else(|| self.damaged("an empty range in a proof"))?);
        }
        Ok(Some(proof))
    }

    /// The hash of one complete subtree, folded from the stored level at or below it.
    async fn node(&mut self, node: Node) -> Result<Hash> {
        let above = node.level % TILE_LEVELS;
        let level = node.level - above;
        let start = node.position << above;
        let (tile, from) = (start >> TILE_LEVELS, (start & 255) as usize);
        let until = from + (1 << above);
        if self.tiles.get(&(level, tile)).is_none_or(|hashes| hashes.len() < until) {
            let read = self.store.hashes(level, tile << TILE_LEVELS, 1 << TILE_LEVELS).await?;
            self.tiles.insert((level, tile), read);
        }
        let hashes = self.tiles.get(&(level, tile)).and_then(|hashes| hashes.get(from..until));
        hashes.and_then(fold_complete).ok_or_else(|| self.damaged("hashes are missing below a signed size"))
    }

    fn damaged(&self, what: &str) -> LeafStoreError {
        LeafStoreError::Damaged { log: self.store.name().to_owned(), what: what.to_owned() }
    }
}

/// The root over a power-of-two number of hashes.
fn fold_complete(hashes: &[Hash]) -> Option<Hash> {
    let mut frontier = Frontier::default();
    for hash in hashes {
        frontier.append(*hash, |_, _| ());
    }
    (!hashes.is_empty()).then(|| frontier.root())
}
