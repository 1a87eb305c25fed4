//! A log as C2SP tlog-tiles: the tree in tiles of 256 hashes, the entries in bundles of 256. Pure but for reading the store.
//!
//! `/tile/<L>/<N>` holds the hashes of level 8·L, `/tile/entries/<N>` the entries themselves, each behind its length in two
//! bytes; `.p/<W>` is the part of the right-most tile that existed when the log had that size. Tiles never change, so anyone
//! may keep and pass them on.

use super::store::{LeafStore, LeafStoreError, Result, TILE_LEVELS};

/// Hashes or entries of a full tile.
pub const TILE_WIDTH: u64 = 1 << TILE_LEVELS;
/// The highest level of tiles: beyond it there are more than 2^64 leaves.
const MAX_LEVEL: u8 = 7;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileKind {
    /// Hashes of level 8·L.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// A tile, as its path names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// What it holds.
    pub kind: TileKind,
    /// Its place in its level, from 0.
    pub index: u64,
    /// How many of its places: 1 to 255 for a partial tile, 256 for a full one.
    pub width: u64,
}

impl Tile {
    /// Reads the part of a path after `/tile/`: `0/x001/234`, `1/000.p/7`, `entries/005`. `None` when it names no tile.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => {
                let level = canonical(level).and_then(|level| u8::try_from(level).ok());
                TileKind::Hashes(level.filter(|level| *level <= MAX_LEVEL)?)
            }
        };
        let (place, width) = match rest.split_once(".p/") {
            Some((place, width)) => (place, canonical(width).filter(|width| (1..TILE_WIDTH).contains(width))?),
            None => (rest, TILE_WIDTH),
        };
        Some(Self { kind, index: place_of(place)?, width })
    }

    /// The path below `/tile/`.
    #[must_use]
    pub fn path(&self) -> String {
        let kind = match self.kind {
            TileKind::Hashes(level) => level.to_string(),
            TileKind::Entries => "entries".to_owned(),
        };
        let mut place = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            place = format!("x{:03}/{place}", rest % 1000);
            rest /= 1000;
        }
        let part = if self.width == TILE_WIDTH { String::new() } else { format!(".p/{}", self.width) };
        format!("{kind}/{place}{part}")
    }

    /// Whether a tree of this many leaves has the tile. A part stays there when its tile has become full.
    #[must_use]
    pub fn is_in(&self, size: u64) -> bool {
        let there = match self.kind {
            TileKind::Hashes(level) => size >> (u32::from(TILE_LEVELS) * u32::from(level)),
            TileKind::Entries => size,
        };
        let first = self.index.checked_mul(TILE_WIDTH);
        first.and_then(|first| first.checked_add(self.width)).is_some_and(|end| end <= there)
    }

    /// The tile's bytes; the store must have it ([`Tile::is_in`]).
    ///
    /// # Errors
    /// When the store fails, or has less than it should.
    pub async fn read(&self, store: &dyn LeafStore) -> Result<Vec<u8>> {
        let damaged = |what: &str| LeafStoreError::Damaged { log: store.name().to_owned(), what: what.to_owned() };
        let first = self.index * TILE_WIDTH;
        match self.kind {
            TileKind::Hashes(level) => {
                let hashes = store.hashes(level * TILE_LEVELS, first, self.width).await?;
                if hashes.len() as u64 != self.width {
                    return Err(damaged("hashes of a tile are missing"));
                }
                Ok(hashes.concat())
            }
            TileKind::Entries => {
                let leaves = store.leaves(first..first + self.width).await?;
                if leaves.len() as u64 != self.width {
                    return Err(damaged("entries of a tile are missing"));
                }
                let mut bytes = Vec::new();
                for leaf in leaves {
                    let length =
                        u16::try_from(leaf.entry.len()).map_err(|_| damaged("an entry is too long for a tile"))?;
                    bytes.extend_from_slice(&length.to_be_bytes());
                    bytes.extend_from_slice(&leaf.entry);
                }
                Ok(bytes)
            }
        }
    }
}

/// A number without sign and leading zeros.
fn canonical(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// A tile's place from its path elements of three digits, all but the last behind an `x`.
fn place_of(text: &str) -> Option<u64> {
    let three = |part: &str| {
        (part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<u64>().ok())?
    };
    let (begin, last) = text.rsplit_once('/').map_or((None, text), |(begin, last)| (Some(begin), last));
    let mut place = 0u64;
    for (at, part) in begin.into_iter().flat_map(|begin| begin.split('/')).enumerate() {
        let digits = three(part.strip_prefix('x')?)?;
        if at == 0 && digits == 0 {
            return None;
        }
        place = place.checked_mul(1000)?.checked_add(digits)?;
    }
    place.checked_mul(1000)?.checked_add(three(last)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |kind, index, width| Tile { kind, index, width };
        for (path, expected) in [
            ("0/x001/x234/067", tile(TileKind::Hashes(0), 1_234_067, 256)),
            ("1/000.p/7", tile(TileKind::Hashes(1), 0, 7)),
            ("entries/x001/000.p/255", tile(TileKind::Entries, 1000, 255)),
            ("entries/005", tile(TileKind::Entries, 5, 256)),
            ("7/000.p/1", tile(TileKind::Hashes(7), 0, 1)),
        ] {
            assert_eq!(Tile::parse(path), Some(expected), "{path}");
            assert_eq!(expected.path(), path);
        }
        for bad in [
            "",
            "0",
            "0/",
            "0/1",
            "00/000",
            "8/000",
            "-1/000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/07",
            "0/000.p/",
            "0/0000",
            "0/x000/000",
            "0/001/000",
            "0/x001",
            "data/000",
            "0/x001/x234/",
            "0/+00",
            "entries/000.p",
            "0/000/",
            "0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Tile::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tile_is_there_as_soon_as_the_tree_has_its_places() {
        let there = |path: &str, size| Tile::parse(path).unwrap().is_in(size);
        for (path, size, expected) in [
            ("0/000.p/5", 5, true),
            ("0/000.p/5", 4, false),
            ("0/000", 255, false),
            ("0/000", 256, true),
            ("0/001.p/1", 257, true),
            ("1/000.p/1", 255, false),
            ("1/000.p/1", 256, true),
            ("2/000.p/1", 65_536, true),
            ("2/000.p/1", 65_535, false),
            ("entries/000.p/3", 3, true),
            ("entries/001", 511, false),
            ("0/x999/x999/x999/x999/x999/999", u64::MAX, false),
        ] {
            assert_eq!(there(path, size), expected, "{path} of {size}");
        }
    }
}
