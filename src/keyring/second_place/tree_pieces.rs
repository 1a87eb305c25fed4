//! Which pieces of an image hold which nodes of the key tree.

use std::collections::HashSet;

use super::{CROWNS, NODES, number};
use crate::backup::codec::Sha256;
use crate::control::{ImagePiece, ImageRows};
use crate::keys::tree::NodePlace;

/// A node's place as the table is ordered: subtree, level, index.
type Place = (i64, i64, i64);

/// The pieces of an image that hold the key tree, in their order.
#[derive(Debug, Clone, Default)]
pub(in crate::keyring) struct TreePieces {
    crowns: Vec<Sha256>,
    /// The pieces with nodes, each with the place of its first one; unknown for one that cannot be read.
    nodes: Vec<(Option<Place>, Sha256)>,
    /// Those that the second place had not got before.
    fresh: HashSet<Sha256>,
}

impl TreePieces {
    /// Notes a piece of the image.
    pub(super) fn note(&mut self, piece: &ImagePiece, digest: Sha256, is_fresh: bool) {
        match piece.table.as_deref() {
            Some(CROWNS) => self.crowns.push(digest),
            Some(NODES) => self.nodes.push((first_place(&piece.bytes), digest)),
            _ => return,
        }
        if is_fresh {
            self.fresh.insert(digest);
        }
    }

    /// The pieces with the crown, those that were stored with this image, and those with nodes of these places. What is not
    /// among them lies where the record before had it.
    pub(super) fn with(&self, places: &[NodePlace]) -> HashSet<Sha256> {
        let mut found: HashSet<Sha256> = self.crowns.iter().chain(&self.fresh).copied().collect();
        found.extend(self.nodes.iter().filter(|(first, _)| first.is_none()).map(|(_, digest)| *digest));
        for place in places {
            let wanted = Some((i64::from(place.subtree.number()), i64::from(place.level), i64::from(place.index)));
            // The versions of a place may begin at the end of one piece and go on in the next.
            let from = self.nodes.partition_point(|(first, _)| *first < wanted).saturating_sub(1);
            let to = self.nodes.partition_point(|(first, _)| *first <= wanted);
            found.extend(self.nodes[from..to].iter().map(|(_, digest)| *digest));
        }
        found
    }
}

fn first_place(piece: &[u8]) -> Option<Place> {
    let mut rows = ImageRows::of(piece).ok()??;
    let row = rows.next()?.ok()?;
    let number = |name| number(&rows.columns, &row, name).ok();
    Some((number("subtree")?, number("level")?, number("idx")?))
}
