//! SM4 with the processor's own instructions on x86-64: the only file of the program that may contain `unsafe`.
//!
//! With GFNI, one instruction computes an affine map of each byte, another the inversion in the field of AES with an affine map
//! behind it; together they are the S-box, with constants that [`super::algebra`] computes. (The method: IACR ePrint
//! 2022/1154.) Without GFNI, the last round of AES computes the S-box of AES, and shuffles within registers compute the affine maps
//! around it, half a byte at a time. A vector holds one 32-bit word of as many blocks as fit, and up to four such sets are under way
//! at once to hide latency. Without either, [`Lanes`] holds the bit planes of [`super::sliced`] in vector registers, which the
//! compiler by itself does not.
//!
//! Three kinds of `unsafe` occur. Operations of SSE2, which is part of x86-64. Calls of functions that need more than that: each
//! caller has a [`Vectors`], which exists only if the processor was asked. Loads and stores through pointers, each to memory that a
//! reference with a length covers.

use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_set1_epi32, _mm_unpackhi_epi64, _mm_xor_si128,
};
use std::ops::{BitAnd, BitXor, Not};

use super::algebra::{AROUND_AES, Affine, IN_AES_FIELD};
use super::{Block, ROUNDS};

const BEFORE: i64 = IN_AES_FIELD.before.gfni_matrix();
const ADDED_BEFORE: i32 = IN_AES_FIELD.before.constant as i32;
const AFTER: i64 = IN_AES_FIELD.after.gfni_matrix();
const ADDED_AFTER: i32 = IN_AES_FIELD.after.constant as i32;

/// Two tables of 16 bytes, each as the upper and the lower half of a register.
type Nibbles = [[i64; 2]; 2];
const BEFORE_AES: Nibbles = in_registers(AROUND_AES.before);
const AFTER_AES: Nibbles = in_registers(AROUND_AES.after);

const fn in_registers(map: Affine) -> Nibbles {
    let [low, high] = map.of_nibbles();
    let [low, high] = [u128::from_le_bytes(low), u128::from_le_bytes(high)];
    [[(low >> 64) as i64, low as i64], [(high >> 64) as i64, high as i64]]
}

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

/// Proof that this processor has certain instructions: only asking the processor makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vectors(Way);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Aes16,
    Aes32,
    Gfni16,
    Gfni32,
    Gfni64,
}

/// From the slowest to the fastest.
const WAYS: [Way; 5] = [Way::Aes16, Way::Aes32, Way::Gfni16, Way::Gfni32, Way::Gfni64];

impl Vectors {
    /// All that this processor has, the fastest last.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        WAYS.into_iter().filter_map(Self::ask)
    }

    /// The fastest that this processor has.
    pub(super) fn best() -> Option<Self> {
        WAYS.into_iter().rev().find_map(Self::ask)
    }

    fn ask(way: Way) -> Option<Self> {
        // The narrower of two is used by the wider one too, for keys.
        let aes = is_x86_feature_detected!("aes") && is_x86_feature_detected!("ssse3");
        let gfni = is_x86_feature_detected!("gfni") && is_x86_feature_detected!("ssse3");
        let has = match way {
            Way::Aes16 => aes,
            Way::Aes32 => aes && is_x86_feature_detected!("avx2"),
            Way::Gfni16 => gfni,
            Way::Gfni32 => gfni && is_x86_feature_detected!("avx2"),
            Way::Gfni64 => gfni && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
        };
        has.then_some(Self(way))
    }

    pub(super) fn name(self) -> &'static str {
        match self.0 {
            Way::Aes16 => "AES-NI",
            Way::Aes32 => "AES-NI and AVX2",
            Way::Gfni16 => "GFNI",
            Way::Gfni32 => "GFNI and AVX2",
            Way::Gfni64 => "GFNI and AVX-512",
        }
    }

    /// The round keys of a key, given as the four words of the standard after its first addition.
    pub(super) fn expand_key(self, words: [u32; 4], constants: &[u32; ROUNDS]) -> [u32; ROUNDS] {
        match self.0 {
            // SAFETY: these prove the features of the narrower of the two.
            Way::Aes16 | Way::Aes32 => unsafe { aes_narrow::expand_key(words, constants) },
            // SAFETY: as above.
            Way::Gfni16 | Way::Gfni32 | Way::Gfni64 => unsafe { narrow::expand_key(words, constants) },
        }
    }

    /// Encrypts blocks in place.
    pub(super) fn encrypt(self, round_keys: &[u32; ROUNDS], blocks: &mut [Block]) {
        match self.0 {
            // SAFETY: this value proves the features of its way.
            Way::Aes16 => unsafe { aes_narrow::encrypt(round_keys, blocks) },
            // SAFETY: as above.
            Way::Aes32 => unsafe { aes_middle::encrypt(round_keys, blocks) },
            // SAFETY: as above.
            Way::Gfni16 => unsafe { narrow::encrypt(round_keys, blocks) },
            // SAFETY: as above.
            Way::Gfni32 => unsafe { middle::encrypt(round_keys, blocks) },
            // SAFETY: as above.
            Way::Gfni64 => unsafe { wide::encrypt(round_keys, blocks) },
        }
    }
}

/// The key schedule, with the S-box of the module in which it stands.
macro_rules! key_schedule {
    ($features:literal) => {
        /// One word after the other, each needing the one before: only latency counts here.
        #[target_feature(enable = $features)]
        pub(super) fn expand_key(words: [u32; 4], constants: &[u32; ROUNDS]) -> [u32; ROUNDS] {
            let mut words = words.map(|word| _mm_cvtsi32_si128(word as i32));
            let mut keys = [0; ROUNDS];
            for (key, constant) in keys.iter_mut().zip(constants) {
                let early = _mm_xor_si128(_mm_xor_si128(words[1], words[2]), _mm_cvtsi32_si128(*constant as i32));
                let x = s_box(_mm_xor_si128(early, words[3]));
                let by_13 = _mm_or_si128(_mm_slli_epi32::<13>(x), _mm_srli_epi32::<19>(x));
                let by_23 = _mm_or_si128(_mm_slli_epi32::<23>(x), _mm_srli_epi32::<9>(x));
                let next = _mm_xor_si128(_mm_xor_si128(words[0], x), _mm_xor_si128(by_13, by_23));
                words = [words[1], words[2], words[3], next];
                *key = _mm_cvtsi128_si32(next) as u32;
            }
            keys
        }
    };
}

/// The linear part of a round, where no instruction rotates words.
macro_rules! linear {
    ($features:literal, $vector:ty, xor $xor:ident, or $or:ident, left $left:ident, right $right:ident, shuffle $shuffle:ident) => {
        /// `target + L(x)`, L being the sum of x and of x rotated left by 2, 10, 18 and 24 bits.
        #[target_feature(enable = $features)]
        #[inline]
        fn plus_linear(target: $vector, x: $vector) -> $vector {
            let by_2 = $or($left::<2>(x), $right::<30>(x));
            let by_10 = $shuffle(by_2, each_lane(0x0e0d_0c0f_0a09_080b, 0x0605_0407_0201_0003));
            let by_18 = $shuffle(by_2, each_lane(0x0d0c_0f0e_0908_0b0a, 0x0504_0706_0100_0302));
            let by_24 = $shuffle(x, each_lane(0x0c0f_0e0d_080b_0a09, 0x0407_0605_0003_0201));
            let sum = $xor($xor(target, x), $xor(by_2, by_10));
            $xor(sum, $xor(by_18, by_24))
        }
    };
}

/// An affine map of bytes, half of each at a time.
macro_rules! by_nibbles {
    ($features:literal, $vector:ty, and $and:ident, xor $xor:ident, right $right:ident, shuffle $shuffle:ident) => {
        #[target_feature(enable = $features)]
        #[inline]
        fn mapped(x: $vector, [low, high]: &Nibbles) -> $vector {
            let nibble = each_lane(0x0f0f_0f0f_0f0f_0f0f, 0x0f0f_0f0f_0f0f_0f0f);
            let of_low = $shuffle(each_lane(low[0], low[1]), $and(x, nibble));
            $xor(of_low, $shuffle(each_lane(high[0], high[1]), $and($right::<4>(x), nibble)))
        }
    };
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

/// Vectors of 16 bytes without GFNI.
mod aes_narrow {
    use std::arch::x86_64::{
        __m128i, _mm_aesenclast_si128, _mm_and_si128, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_loadu_si128,
        _mm_or_si128, _mm_set_epi64x, _mm_set1_epi32, _mm_setzero_si128, _mm_shuffle_epi8, _mm_slli_epi32,
        _mm_srli_epi32, _mm_storeu_si128, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32,
        _mm_unpacklo_epi64, _mm_xor_si128,
    };

    use super::super::{BLOCK_BYTES, Block, ROUNDS};
    use super::{AFTER_AES, BEFORE_AES, Nibbles};

    engine! {
        "aes,ssse3", __m128i, load _mm_loadu_si128, store _mm_storeu_si128, zero _mm_setzero_si128,
        each_word _mm_set1_epi32, xor _mm_xor_si128, shuffle _mm_shuffle_epi8,
        unpack _mm_unpacklo_epi32 _mm_unpackhi_epi32 _mm_unpacklo_epi64 _mm_unpackhi_epi64
    }

    #[target_feature(enable = "aes,ssse3")]
    #[inline]
    fn each_lane(high: i64, low: i64) -> __m128i {
        _mm_set_epi64x(high, low)
    }

    /// What is a round of AES to the processor is a substitution and a permutation of bytes; the latter is undone beforehand.
    #[target_feature(enable = "aes,ssse3")]
    #[inline]
    pub(super) fn aes_s_box(x: __m128i) -> __m128i {
        let x = _mm_shuffle_epi8(x, each_lane(0x0306_090c_0f02_0508, 0x0b0e_0104_070a_0d00));
        _mm_aesenclast_si128(x, _mm_setzero_si128())
    }

    #[target_feature(enable = "aes,ssse3")]
    #[inline]
    fn s_box(x: __m128i) -> __m128i {
        mapped(aes_s_box(mapped(x, &BEFORE_AES)), &AFTER_AES)
    }

    by_nibbles! {
        "aes,ssse3", __m128i, and _mm_and_si128, xor _mm_xor_si128, right _mm_srli_epi32, shuffle _mm_shuffle_epi8
    }

    key_schedule! { "aes,ssse3" }

    linear! {
        "aes,ssse3", __m128i, xor _mm_xor_si128, or _mm_or_si128, left _mm_slli_epi32, right _mm_srli_epi32,
        shuffle _mm_shuffle_epi8
    }
}

/// Vectors of 32 bytes without GFNI.
mod aes_middle {
    use std::arch::x86_64::{
        __m256i, _mm_set_epi64x, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_si128,
        _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_set_m128i, _mm256_set1_epi32,
        _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256,
        _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
    };

    use super::super::{BLOCK_BYTES, Block, ROUNDS};
    use super::aes_narrow::aes_s_box;
    use super::{AFTER_AES, BEFORE_AES, Nibbles};

    engine! {
        "aes,avx2", __m256i, load _mm256_loadu_si256, store _mm256_storeu_si256, zero _mm256_setzero_si256,
        each_word _mm256_set1_epi32, xor _mm256_xor_si256, shuffle _mm256_shuffle_epi8,
        unpack _mm256_unpacklo_epi32 _mm256_unpackhi_epi32 _mm256_unpacklo_epi64 _mm256_unpackhi_epi64
    }

    #[target_feature(enable = "aes,avx2")]
    #[inline]
    fn each_lane(high: i64, low: i64) -> __m256i {
        _mm256_broadcastsi128_si256(_mm_set_epi64x(high, low))
    }

    /// Processors that have AES for whole such vectors mostly have GFNI, too.
    #[target_feature(enable = "aes,avx2")]
    #[inline]
    fn s_box(x: __m256i) -> __m256i {
        let x = mapped(x, &BEFORE_AES);
        let (low, high) = (_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        mapped(_mm256_set_m128i(aes_s_box(high), aes_s_box(low)), &AFTER_AES)
    }

    by_nibbles! {
        "aes,avx2", __m256i, and _mm256_and_si256, xor _mm256_xor_si256, right _mm256_srli_epi32,
        shuffle _mm256_shuffle_epi8
    }

    linear! {
        "aes,avx2", __m256i, xor _mm256_xor_si256, or _mm256_or_si256, left _mm256_slli_epi32, right _mm256_srli_epi32,
        shuffle _mm256_shuffle_epi8
    }
}

/// Vectors of 16 bytes.
mod narrow {
    use std::arch::x86_64::{
        __m128i, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_gf2p8affine_epi64_epi8, _mm_gf2p8affineinv_epi64_epi8,
        _mm_loadu_si128, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi32, _mm_set1_epi64x, _mm_setzero_si128,
        _mm_shuffle_epi8, _mm_slli_epi32, _mm_srli_epi32, _mm_storeu_si128, _mm_unpackhi_epi32, _mm_unpackhi_epi64,
        _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm_xor_si128,
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
    fn s_box(x: __m128i) -> __m128i {
        let x = _mm_gf2p8affine_epi64_epi8::<ADDED_BEFORE>(x, _mm_set1_epi64x(BEFORE));
        _mm_gf2p8affineinv_epi64_epi8::<ADDED_AFTER>(x, _mm_set1_epi64x(AFTER))
    }

    key_schedule! { "gfni,ssse3" }

    linear! {
        "gfni,ssse3", __m128i, xor _mm_xor_si128, or _mm_or_si128, left _mm_slli_epi32, right _mm_srli_epi32,
        shuffle _mm_shuffle_epi8
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

    linear! {
        "gfni,avx2", __m256i, xor _mm256_xor_si256, or _mm256_or_si256, left _mm256_slli_epi32, right _mm256_srli_epi32,
        shuffle _mm256_shuffle_epi8
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
