//! Where things are in the key tree. All of it is computed from a slot's number; nothing has to be opened for it.

use std::fmt;

use thiserror::Error;

use super::super::Generation;

/// Children of one node.
pub const FAN_OUT: usize = 64;
/// Levels of nodes in each subtree; level 0 is the subtree's root, the last one holds the slots' keys.
pub const DEPTH: usize = 5;
/// Slots of one subtree: 64 to the power of 5.
pub const SLOTS: u32 = 1 << (BITS_PER_LEVEL * DEPTH as u32);
/// Consecutive slot numbers that one cohort shares.
pub const COHORT_SLOTS: u32 = 4096;

const BITS_PER_LEVEL: u32 = 6;

/// The five subtrees. Numbers stand in sealed contexts and in the control database: they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Subtree {
    /// Keys of subjects and of owner sets.
    Subjects = 1,
    /// Keys of buckets.
    Buckets = 2,
    /// Keys of chains (a full snapshot and its increments).
    Chains = 3,
    /// Secrets of cells that outlive their subject's or bucket's key.
    Pins = 4,
    /// Keys of requests, runs and pseudonyms.
    Work = 5,
}

impl Subtree {
    /// All, in the order in which the crown lists them.
    pub const ALL: [Self; 5] = [Self::Subjects, Self::Buckets, Self::Chains, Self::Pins, Self::Work];

    /// The number that stands in sealed contexts and in the control database.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The subtree with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|subtree| subtree.number() == number)
    }

    pub(super) fn position(self) -> usize {
        usize::from(self.number() - 1)
    }
}

/// A slot number outside 1 … 2^30 − 1.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("a slot number must lie between 1 and {}", SLOTS - 1)]
pub struct BadSlotNumber;

/// A place for one key. Its number names no one, yet it is tied to a person, so `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    subtree: Subtree,
    number: u32,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({:?}, …)", self.subtree)
    }
}

impl Slot {
    /// A slot by subtree and number.
    ///
    /// # Errors
    /// [`BadSlotNumber`] for 0 and for numbers from [`SLOTS`] on.
    pub fn new(subtree: Subtree, number: u32) -> Result<Self, BadSlotNumber> {
        if number == 0 || number >= SLOTS {
            return Err(BadSlotNumber);
        }
        Ok(Self { subtree, number })
    }

    /// Its subtree.
    #[must_use]
    pub fn subtree(self) -> Subtree {
        self.subtree
    }

    /// Its number, as the control database stores it.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number
    }

    /// The nodes from the subtree's root down to the one that holds this slot's key.
    #[must_use]
    pub fn path(self) -> [NodePlace; DEPTH] {
        std::array::from_fn(|level| self.place_at(level))
    }

    fn place_at(self, level: usize) -> NodePlace {
        let below = BITS_PER_LEVEL * (DEPTH - level) as u32;
        NodePlace { subtree: self.subtree, level: level as u8, index: self.number >> below }
    }

    /// Which child of the node at `level` leads to this slot.
    pub(super) fn position_at(self, level: u8) -> usize {
        let below = BITS_PER_LEVEL * (DEPTH as u32 - 1 - u32::from(level));
        (self.number >> below) as usize % FAN_OUT
    }
}

/// The place of a node, whatever its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePlace {
    /// The subtree.
    pub subtree: Subtree,
    /// 0 for the subtree's root, 4 for the nodes that hold slots.
    pub level: u8,
    /// Counted from the left on its level.
    pub index: u32,
}

impl NodePlace {
    /// The root node of a subtree.
    #[must_use]
    pub fn root_of(subtree: Subtree) -> Self {
        Self { subtree, level: 0, index: 0 }
    }

    pub(super) fn is_leaf(self) -> bool {
        usize::from(self.level) == DEPTH - 1
    }

    pub(super) fn child(self, position: usize) -> Self {
        Self { subtree: self.subtree, level: self.level + 1, index: (self.index << BITS_PER_LEVEL) | position as u32 }
    }

    /// A slot of this node, when it is a leaf; none for the number 0, which is no slot.
    pub(super) fn slot(self, position: usize) -> Option<Slot> {
        Slot::new(self.subtree, (self.index << BITS_PER_LEVEL) | position as u32).ok()
    }

    /// This place with the generation that gave the node its present key.
    #[must_use]
    pub fn at(self, version: Generation) -> NodeId {
        NodeId { place: self, version }
    }
}

impl fmt::Display for NodePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}/{}", self.subtree, self.level, self.index)
    }
}

/// One sealed node: what the control database stores it under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Where it is.
    pub place: NodePlace,
    /// The generation that gave it its present key.
    pub version: Generation,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of generation {}", self.place, self.version)
    }
}

/// The places of all nodes that reading or changing these slots may touch, each once, in their order: what a caller loads
/// beforehand.
#[must_use]
pub fn places(slots: &[Slot]) -> Vec<NodePlace> {
    let mut sorted = slots.to_vec();
    sorted.sort_unstable();
    let mut places: Vec<NodePlace> = Vec::new();
    for group in sorted.chunk_by(|a, b| a.subtree == b.subtree) {
        for level in 0..DEPTH {
            // Indices on a level grow with the slots' numbers, so what repeats stands side by side.
            for slot in group {
                let place = slot.place_at(level);
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
    }
    places
}
