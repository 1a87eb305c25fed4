//! SM4 with the processor's own instructions on x86-64: the only file of the program that may contain `unsafe`.
//!
//! With GFNI, one instruction computes an affine map of each byte, another the inversion in the field of AES with an affine map
//! behind it; together they are the S-box, with constants that [`super::algebra`] computes. (The method: IACR ePrint
//! 2022/1154.) A vector holds one 32-bit word of as many blocks as fit, and up to four such sets are under way at once to hide
//! latency. Without GFNI, [`Lanes`] holds the bit planes of [`super::sliced`] in vector registers, which the compiler by itself does not.
//!
//! Three kinds of `unsafe` occur. Operations of SSE2, which is part of x86-64. Calls of functions that need more than that: each
//! caller has a [`Gfni`], which exists only if the processor was asked. Loads and stores through pointers, each to memory that a
//! reference with a length covers.

use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_cvtsi128_si64, _mm_or_si128, _mm_set_epi64x,
    _mm_set1_epi32, _mm_slli_epi32, _mm_srli_epi32, _mm_unpackhi_epi64, _mm_xor_si128,
};
use std::ops::{BitAnd, BitXor, Not};

use super::algebra::IN_AES_FIELD;
use super::{Block, ROUNDS};

const BEFORE: i64 = IN_AES_FIELD.before.gfni_matrix();
const ADDED_BEFORE: i32 = IN_AES_FIELD.before.constant as i32;
const AFTER: i64 = IN_AES_FIELD.after.gfni_matrix();
const ADDED_AFTER: i32 = IN_AES_FIELD.after.constant as i32;

/// One bit of each of 128 blocks.
#[derive(Clone, Copy)]
pub(super) struct Lanes(__m128i);

impl Lanes {
    /// From the bits of the first and the last 64 blocks.
    #[inline]
    pub(super) fn of(halves: [u64; 2]) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_set_epi64x(halves[1] as i64, halves[0] as i64) })
    }

    /// The bits of the first and the last 64 blocks.
    #[inline]
    pub(super) fn halves(self) -> [u64; 2] {
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            [_mm_cvtsi128_si64(self.0), _mm_cvtsi128_si64(_mm_unpackhi_epi64(self.0, self.0))].map(|half| half as u64)
        }
    }
}

impl BitXor for Lanes {
    type Output = Self;
    #[inline]
    fn bitxor(self, other: Self) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_xor_si128(self.0, other.0) })
    }
}

impl BitAnd for Lanes {
    type Output = Self;
    #[inline]
    fn bitand(self, other: Self) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_and_si128(self.0, other.0) })
    }
}

impl Not for Lanes {
    type Output = Self;
    #[inline]
    fn not(self) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_xor_si128(self.0, _mm_set1_epi32(-1)) })
    }
}

/// Proof that this processor has GFNI and the vectors of a width: only asking the processor makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gfni(Width);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Bytes16,
    Bytes32,
    Bytes64,
}

impl Gfni {
    /// All that this processor has, the widest last.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Width::Bytes16, Width::Bytes32, Width::Bytes64].into_iter().filter_map(Self::ask)
    }

    /// The widest that this processor has.
    pub(super) fn widest() -> Option<Self> {
        [Width::Bytes64, Width::Bytes32, Width::Bytes16].into_iter().find_map(Self::ask)
    }

    fn ask(width: Width) -> Option<Self> {
        // The narrowest one is used by all of them, for keys.
        let has = is_x86_feature_detected!("gfni") && is_x86_feature_detected!("ssse3");
        let has_width = match width {
            Width::Bytes16 => true,
            Width::Bytes32 => is_x86_feature_detected!("avx2"),
            Width::Bytes64 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
        };
        (has && has_width).then_some(Self(width))
    }

    pub(super) fn name(self) -> &'static str {
        match self.0 {
            Width::Bytes16 => "GFNI",
            Width::Bytes32 => "GFNI and AVX2",
            Width::Bytes64 => "GFNI and AVX-512",
        }
    }

    /// The round keys of a key, given as the four words of the standard after its first addition.
    pub(super) fn expand_key(self, words: [u32; 4], constants: &[u32; ROUNDS]) -> [u32; ROUNDS] {
        let Self(_any_width) = self;
        // SAFETY: every `Gfni` proves the features of the narrowest width.
        unsafe { expand_key(words, constants) }
    }

    /// Encrypts blocks in place.
    pub(super) fn encrypt(self, round_keys: &[u32; ROUNDS], blocks: &mut [Block]) {
        match self.0 {
            // SAFETY: this `Gfni` proves the features of its width.
            Width::Bytes16 => unsafe { narrow::encrypt(round_keys, blocks) },
            // SAFETY: as above.
            Width::Bytes32 => unsafe { middle::encrypt(round_keys, blocks) },
            // SAFETY: as above.
            Width::Bytes64 => unsafe { wide::encrypt(round_keys, blocks) },
        }
    }
}

/// One word after the other, each needing the one before: only latency counts here.
#[target_feature(enable = "gfni,ssse3")]
fn expand_key(words: [u32; 4], constants: &[u32; ROUNDS]) -> [u32; ROUNDS] {
    let mut words = words.map(|word| _mm_cvtsi32_si128(word as i32));
    let mut keys = [0; ROUNDS];
    for (key, constant) in keys.iter_mut().zip(constants) {
        let early = _mm_xor_si128(_mm_xor_si128(words[1], words[2]), _mm_cvtsi32_si128(*constant as i32));
        let x = narrow::s_box(_mm_xor_si128(early, words[3]));
        let by_13 = _mm_or_si128(_mm_slli_epi32::<13>(x), _mm_srli_epi32::<19>(x));
        let by_23 = _mm_or_si128(_mm_slli_epi32::<23>(x), _mm_srli_epi32::<9>(x));
        let next = _mm_xor_si128(_mm_xor_si128(words[0], x), _mm_xor_si128(by_13, by_23));
        words = [words[1], words[2], words[3], next];
        *key = _mm_cvtsi128_si32(next) as u32;
    }
    keys
}

/// The program for one width, from the operations of that width.
macro_rules! engine {
    (
        $features:literal, $vector:ty, load $load:ident, store $store:ident, zero $zero:ident, each_word $each_word:ident,
        xor $xor:ident, shuffle $shuffle:ident, unpack $low_32:ident $high_32:ident $low_64:ident $high_64:ident
    ) => {
        /// Vectors in which one word of each block has one lane.
        type Words = [$vector; 4];

        /// Blocks of one set: each vector has a lane of 16 bytes for a quarter of them.
        const SET: usize = 4 * size_of::<$vector>() / BLOCK_BYTES;

        /// Encrypts blocks in place, four sets at once as long as there are enough.
        #[target_feature(enable = $features)]
        pub(super) fn encrypt(keys: &[u32; ROUNDS], blocks: &mut [Block]) {
            for part in blocks.chunks_mut(4 * SET) {
                if part.len() == 4 * SET {
                    pass::<4>(keys, part);
                    continue;
                }
                let mut padded = [[0; BLOCK_BYTES]; 4 * SET];
                padded[..part.len()].copy_from_slice(part);
                match part.len().div_ceil(SET) {
                    1 => pass::<1>(keys, &mut padded[..SET]),
                    2 => pass::<2>(keys, &mut padded[..2 * SET]),
                    _ => pass::<4>(keys, &mut padded),
                }
                part.copy_from_slice(&padded[..part.len()]);
                super::super::wipe(&mut padded[..part.len()], [0; BLOCK_BYTES]);
            }
        }

        #[target_feature(enable = $features)]
        fn pass<const SETS: usize>(keys: &[u32; ROUNDS], blocks: &mut [Block]) {
            let mut state = [[$zero(); 4]; SETS];
            let (sets, _) = blocks.as_chunks_mut::<SET>();
            for (words, set) in state.iter_mut().zip(sets.iter()) {
                *words = transposed(load(set));
            }
            for keys in keys.as_chunks::<4>().0 {
                for at in 0..4 {
                    let key = $each_word(keys[at] as i32);
                    for words in &mut state {
                        let others = $xor($xor(words[(at + 1) % 4], words[(at + 2) % 4]), words[(at + 3) % 4]);
                        words[at] = plus_linear(words[at], s_box($xor(others, key)));
                    }
                }
            }
            for (words, set) in state.iter().zip(sets) {
                // The standard gives the words out in reverse order.
                let [a, b, c, d] = *words;
                store(set, transposed([d, c, b, a]));
            }
        }

        /// In every 16-byte lane, word i of vector j and word j of vector i change places.
        #[target_feature(enable = $features)]
        #[inline]
        fn transposed([a, b, c, d]: Words) -> Words {
            let (low_a, high_a) = ($low_32(a, b), $high_32(a, b));
            let (low_c, high_c) = ($low_32(c, d), $high_32(c, d));
            [$low_64(low_a, low_c), $high_64(low_a, low_c), $low_64(high_a, high_c), $high_64(high_a, high_c)]
        }

        /// The words of a set; the standard reads them with the highest byte first.
        #[target_feature(enable = $features)]
        #[inline]
        fn load(set: &[Block; SET]) -> Words {
            let (quarters, _) = set.as_chunks::<{ SET / 4 }>();
            let mut words = [$zero(); 4];
            for (word, quarter) in words.iter_mut().zip(quarters) {
                // SAFETY: a quarter of a set is as long as a vector; the load needs no alignment.
                *word = reversed_bytes(unsafe { $load(quarter.as_ptr().cast()) });
            }
            words
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store(set: &mut [Block; SET], words: Words) {
            let (quarters, _) = set.as_chunks_mut::<{ SET / 4 }>();
            for (quarter, word) in quarters.iter_mut().zip(words) {
                // SAFETY: a quarter of a set is as long as a vector; the store needs no alignment.
                unsafe { $store(quarter.as_mut_ptr().cast(), reversed_bytes(word)) };
            }
        }

        /// The bytes of each word in the other order.
        #[target_feature(enable = $features)]
        #[inline]
        fn reversed_bytes(words: $vector) -> $vector {
            $shuffle(words, each_lane(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203))
        }
    };
}

/// Vectors of 16 bytes.
mod narrow {
    use std::arch::x86_64::{
        __m128i, _mm_gf2p8affine_epi64_epi8, _mm_gf2p8affineinv_epi64_epi8, _mm_loadu_si128, _mm_or_si128,
        _mm_set_epi64x, _mm_set1_epi32, _mm_set1_epi64x, _mm_setzero_si128, _mm_shuffle_epi8, _mm_slli_epi32,
        _mm_srli_epi32, _mm_storeu_si128, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32,
        _mm_unpacklo_epi64, _mm_xor_si128,
    };

    use super::super::{BLOCK_BYTES, Block, ROUNDS};
    use super::{ADDED_AFTER, ADDED_BEFORE, AFTER, BEFORE};

    engine! {
        "gfni,ssse3", __m128i, load _mm_loadu_si128, store _mm_storeu_si128, zero _mm_setzero_si128,
        each_word _mm_set1_epi32, xor _mm_xor_si128, shuffle _mm_shuffle_epi8,
        unpack _mm_unpacklo_epi32 _mm_unpackhi_epi32 _mm_unpacklo_epi64 _mm_unpackhi_epi64
    }

    #[target_feature(enable = "gfni,ssse3")]
    #[inline]
    fn each_lane(high: i64, low: i64) -> __m128i {
        _mm_set_epi64x(high, low)
    }

    #[target_feature(enable = "gfni,ssse3")]
    #[inline]
    pub(super) fn s_box(x: __m128i) -> __m128i {
        let x = _mm_gf2p8affine_epi64_epi8::<ADDED_BEFORE>(x, _mm_set1_epi64x(BEFORE));
        _mm_gf2p8affineinv_epi64_epi8::<ADDED_AFTER>(x, _mm_set1_epi64x(AFTER))
    }

    /// `target + L(x)`, L being the sum of x and of x rotated left by 2, 10, 18 and 24 bits.
    #[target_feature(enable = "gfni,ssse3")]
    #[inline]
    fn plus_linear(target: __m128i, x: __m128i) -> __m128i {
        let by_2 = _mm_or_si128(_mm_slli_epi32::<2>(x), _mm_srli_epi32::<30>(x));
        let by_10 = _mm_shuffle_epi8(by_2, each_lane(0x0e0d_0c0f_0a09_080b, 0x0605_0407_0201_0003));
        let by_18 = _mm_shuffle_epi8(by_2, each_lane(0x0d0c_0f0e_0908_0b0a, 0x0504_0706_0100_0302));
        let by_24 = _mm_shuffle_epi8(x, each_lane(0x0c0f_0e0d_080b_0a09, 0x0407_0605_0003_0201));
        let sum = _mm_xor_si128(_mm_xor_si128(target, x), _mm_xor_si128(by_2, by_10));
        _mm_xor_si128(sum, _mm_xor_si128(by_18, by_24))
    }
}

/// Vectors of 32 bytes.
mod middle {
    use std::arch::x86_64::{
        __m256i, _mm_set_epi64x, _mm256_broadcastsi128_si256, _mm256_gf2p8affine_epi64_epi8,
        _mm256_gf2p8affineinv_epi64_epi8, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi32, _mm256_set1_epi64x,
        _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256,
        _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
    };

    use super::super::{BLOCK_BYTES, Block, ROUNDS};
    use super::{ADDED_AFTER, ADDED_BEFORE, AFTER, BEFORE};

    engine! {
        "gfni,avx2", __m256i, load _mm256_loadu_si256, store _mm256_storeu_si256, zero _mm256_setzero_si256,
        each_word _mm256_set1_epi32, xor _mm256_xor_si256, shuffle _mm256_shuffle_epi8,
        unpack _mm256_unpacklo_epi32 _mm256_unpackhi_epi32 _mm256_unpacklo_epi64 _mm256_unpackhi_epi64
    }

    #[target_feature(enable = "gfni,avx2")]
    #[inline]
    fn each_lane(high: i64, low: i64) -> __m256i {
        _mm256_broadcastsi128_si256(_mm_set_epi64x(high, low))
    }

    #[target_feature(enable = "gfni,avx2")]
    #[inline]
    fn s_box(x: __m256i) -> __m256i {
        let x = _mm256_gf2p8affine_epi64_epi8::<ADDED_BEFORE>(x, _mm256_set1_epi64x(BEFORE));
        _mm256_gf2p8affineinv_epi64_epi8::<ADDED_AFTER>(x, _mm256_set1_epi64x(AFTER))
    }

    #[target_feature(enable = "gfni,avx2")]
    #[inline]
    fn plus_linear(target: __m256i, x: __m256i) -> __m256i {
        let by_2 = _mm256_or_si256(_mm256_slli_epi32::<2>(x), _mm256_srli_epi32::<30>(x));
        let by_10 = _mm256_shuffle_epi8(by_2, each_lane(0x0e0d_0c0f_0a09_080b, 0x0605_0407_0201_0003));
        let by_18 = _mm256_shuffle_epi8(by_2, each_lane(0x0d0c_0f0e_0908_0b0a, 0x0504_0706_0100_0302));
        let by_24 = _mm256_shuffle_epi8(x, each_lane(0x0c0f_0e0d_080b_0a09, 0x0407_0605_0003_0201));
        let sum = _mm256_xor_si256(_mm256_xor_si256(target, x), _mm256_xor_si256(by_2, by_10));
        _mm256_xor_si256(sum, _mm256_xor_si256(by_18, by_24))
    }
}

/// Vectors of 64 bytes.
mod wide {
    use std::arch::x86_64::{
        __m512i, _mm_set_epi64x, _mm512_broadcast_i32x4, _mm512_gf2p8affine_epi64_epi8,
        _mm512_gf2p8affineinv_epi64_epi8, _mm512_loadu_si512, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_set1_epi64,
        _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_storeu_si512, _mm512_ternarylogic_epi32,
        _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
    };

    use super::super::{BLOCK_BYTES, Block, ROUNDS};
    use super::{ADDED_AFTER, ADDED_BEFORE, AFTER, BEFORE};

    engine! {
        "gfni,avx512f,avx512bw", __m512i, load _mm512_loadu_si512, store _mm512_storeu_si512, zero _mm512_setzero_si512,
        each_word _mm512_set1_epi32, xor _mm512_xor_si512, shuffle _mm512_shuffle_epi8,
        unpack _mm512_unpacklo_epi32 _mm512_unpackhi_epi32 _mm512_unpacklo_epi64 _mm512_unpackhi_epi64
    }

    /// The truth table of `a ^ b ^ c`.
    const XOR3: i32 = 0x96;

    #[target_feature(enable = "gfni,avx512f,avx512bw")]
    #[inline]
    fn each_lane(high: i64, low: i64) -> __m512i {
        _mm512_broadcast_i32x4(_mm_set_epi64x(high, low))
    }

    #[target_feature(enable = "gfni,avx512f,avx512bw")]
    #[inline]
    fn s_box(x: __m512i) -> __m512i {
        let x = _mm512_gf2p8affine_epi64_epi8::<ADDED_BEFORE>(x, _mm512_set1_epi64(BEFORE));
        _mm512_gf2p8affineinv_epi64_epi8::<ADDED_AFTER>(x, _mm512_set1_epi64(AFTER))
    }

    #[target_feature(enable = "gfni,avx512f,avx512bw")]
    #[inline]
    fn plus_linear(target: __m512i, x: __m512i) -> __m512i {
        let (by_2, by_10) = (_mm512_rol_epi32::<2>(x), _mm512_rol_epi32::<10>(x));
        let (by_18, by_24) = (_mm512_rol_epi32::<18>(x), _mm512_rol_epi32::<24>(x));
        let sum = _mm512_ternarylogic_epi32::<XOR3>(target, x, by_2);
        _mm512_ternarylogic_epi32::<XOR3>(sum, by_10, _mm512_xor_si512(by_18, by_24))
    }
}
