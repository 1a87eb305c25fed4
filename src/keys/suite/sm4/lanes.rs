//! Two words as one bit of each of 128 blocks, where the compiler has to find the vectors by itself.

use std::ops::{BitAnd, BitXor, Not};

/// One bit of each of 128 blocks.
#[derive(Clone, Copy)]
pub(super) struct Lanes([u64; 2]);

impl Lanes {
    /// From the bits of the first and the last 64 blocks.
    #[inline]
    pub(super) fn of(halves: [u64; 2]) -> Self {
        Self(halves)
    }

    /// The bits of the first and the last 64 blocks.
    #[inline]
    pub(super) fn halves(self) -> [u64; 2] {
        self.0
    }
}

impl BitXor for Lanes {
    type Output = Self;
    #[inline]
    fn bitxor(self, other: Self) -> Self {
        Self([self.0[0] ^ other.0[0], self.0[1] ^ other.0[1]])
    }
}

impl BitAnd for Lanes {
    type Output = Self;
    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }
}

impl Not for Lanes {
    type Output = Self;
    #[inline]
    fn not(self) -> Self {
        Self([!self.0[0], !self.0[1]])
    }
}
