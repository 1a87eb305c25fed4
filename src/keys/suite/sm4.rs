//! SM4 (GB/T 32907-2016), encryption only, which is all that counter mode needs.
//!
//! No part of it looks a secret up in a table or branches on one, so its time tells nothing about keys or data, whoever else
//! runs on the processor. On x86-64 with GFNI (Intel from 2019, AMD from 2022 on) the S-box is two instructions; on those with
//! AES-NI and SSSE3 (from 2010 on) it is the one of AES between shuffles; everywhere else a circuit of logic gates on bit planes does
//! the same. The tests compare them with each other and with an independent implementation.

mod algebra;
#[cfg(not(target_arch = "x86_64"))]
mod lanes;
mod sliced;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "processor instructions: the one place of the program with unsafe code")]
mod x86;

#[cfg(not(target_arch = "x86_64"))]
use lanes::Lanes;
#[cfg(target_arch = "x86_64")]
use x86::{Lanes, Vectors};

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 16;
/// One block.
pub type Block = [u8; BLOCK_BYTES];

const ROUNDS: usize = 32;

/// FK of the standard: what is added to the key first.
const SYSTEM_PARAMETERS: [u32; 4] = [0xa3b1_bac6, 0x56aa_3350, 0x677d_9197, 0xb270_22dc];

/// CK of the standard: byte j of word i is (4i + j) × 7 mod 256.
const ROUND_CONSTANTS: [u32; ROUNDS] = {
    let (mut words, mut at) = ([0; ROUNDS], 0);
    while at < 4 * ROUNDS {
        words[at / 4] = (words[at / 4] << 8) | ((at as u32 * 7) % 256);
        at += 1;
    }
    words
};

/// The linear part of the key schedule, L′.
fn linear_of_key(word: u32) -> u32 {
    word ^ word.rotate_left(13) ^ word.rotate_left(23)
}

/// What carries SM4 out. All engines give the same results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sliced,
    #[cfg(target_arch = "x86_64")]
    Vectors(Vectors),
}

impl Engine {
    /// Logic on bit planes, for any processor.
    pub const PORTABLE: Self = Self(Kind::Sliced);

    /// The fastest engine that this processor has.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = Vectors::best() {
            return Self(Kind::Vectors(vectors));
        }
        Self::PORTABLE
    }

    /// All engines that this processor has.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        all.extend(Vectors::all().map(|vectors| Self(Kind::Vectors(vectors))));
        all
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Sliced => "bit planes",
            #[cfg(target_arch = "x86_64")]
            Kind::Vectors(vectors) => vectors.name(),
        }
    }
}

/// A key, expanded to its round keys. Wiped on drop.
#[derive(ZeroizeOnDrop)]
pub struct Sm4 {
    #[zeroize(skip)]
    engine: Engine,
    round_keys: [u32; ROUNDS],
}

impl Sm4 {
    /// Expands a key.
    #[must_use]
    pub fn new(engine: Engine, key: &[u8; 16]) -> Self {
        let mut words = SYSTEM_PARAMETERS;
        for (word, bytes) in words.iter_mut().zip(key.as_chunks::<4>().0) {
            *word ^= u32::from_be_bytes(*bytes);
        }
        let round_keys = match engine.0 {
            Kind::Sliced => sliced::expand_key(words, &ROUND_CONSTANTS),
            #[cfg(target_arch = "x86_64")]
            Kind::Vectors(vectors) => vectors.expand_key(words, &ROUND_CONSTANTS),
        };
        words.zeroize();
        Self { engine, round_keys }
    }

    /// Encrypts blocks in place, many at once.
    pub fn encrypt(&self, blocks: &mut [Block]) {
        match self.engine.0 {
            Kind::Sliced => sliced::encrypt(&self.round_keys, blocks),
            #[cfg(target_arch = "x86_64")]
            Kind::Vectors(vectors) => vectors.encrypt(&self.round_keys, blocks),
        }
    }
}

/// Overwrites working memory, and keeps the compiler from leaving that out.
pub(super) fn wipe<T: Copy>(memory: &mut [T], with: T) {
    memory.fill(with);
    zeroize::optimization_barrier(memory);
}
