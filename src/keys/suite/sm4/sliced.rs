//! SM4 without tables for any processor: logic on bit planes.
//!
//! Plane `i` of a word holds bit `i` of that word of 128 blocks, one bit a block. Rotations are then renumberings, the S-box is
//! a circuit of about 190 gates, and no secret decides a branch or an address, so that time tells nothing.

use std::ops::{BitAnd, BitXor, Not};

use super::algebra::{Affine, IN_TOWER};
use super::{Block, Lanes, ROUNDS, linear_of_key};

/// Blocks that one pass encrypts; fewer take as long.
const LANES: usize = 128;

/// What the circuit computes on: one bit of each of several bytes.
trait Plane: Copy + BitXor<Output = Self> + BitAnd<Output = Self> + Not<Output = Self> {}

impl Plane for u32 {}

impl Plane for Lanes {}

/// An element of GF(4): (a₁, a₀).
type Pair<P> = (P, P);
/// An element of GF(16): (a₁, a₀).
type Nibble<P> = (Pair<P>, Pair<P>);

#[inline]
fn pair_sum<P: Plane>(a: Pair<P>, b: Pair<P>) -> Pair<P> {
    (a.0 ^ b.0, a.1 ^ b.1)
}

#[inline]
fn pair_product<P: Plane>(a: Pair<P>, b: Pair<P>) -> Pair<P> {
    let low = a.1 & b.1;
    (((a.0 ^ a.1) & (b.0 ^ b.1)) ^ low, (a.0 & b.0) ^ low)
}

/// Times w.
#[inline]
fn pair_times_w<P: Plane>(a: Pair<P>) -> Pair<P> {
    (a.0 ^ a.1, a.0)
}

/// The square, which in GF(4) is also the inverse.
#[inline]
fn pair_square<P: Plane>(a: Pair<P>) -> Pair<P> {
    (a.0, a.0 ^ a.1)
}

#[inline]
fn nibble_sum<P: Plane>(a: Nibble<P>, b: Nibble<P>) -> Nibble<P> {
    (pair_sum(a.0, b.0), pair_sum(a.1, b.1))
}

#[inline]
fn nibble_product<P: Plane>(a: Nibble<P>, b: Nibble<P>) -> Nibble<P> {
    let low = pair_product(a.1, b.1);
    let all = pair_product(pair_sum(a.0, a.1), pair_sum(b.0, b.1));
    (pair_sum(all, low), pair_sum(low, pair_times_w(pair_product(a.0, b.0))))
}

#[inline]
fn nibble_square<P: Plane>(a: Nibble<P>) -> Nibble<P> {
    let high = pair_square(a.0);
    (high, pair_sum(pair_square(a.1), pair_times_w(high)))
}

/// Times wz, the constant of the field above.
#[inline]
fn nibble_times_wz<P: Plane>(a: Nibble<P>) -> Nibble<P> {
    (pair_times_w(pair_sum(a.0, a.1)), pair_times_w(pair_times_w(a.0)))
}

#[inline]
fn nibble_inverse<P: Plane>(a: Nibble<P>) -> Nibble<P> {
    let sum = pair_sum(a.0, a.1);
    let norm = pair_sum(pair_times_w(pair_square(a.0)), pair_product(a.1, sum));
    let inverse = pair_square(norm);
    (pair_product(a.0, inverse), pair_product(sum, inverse))
}

/// The inverse in the tower, 0 for 0; planes from bit 0 on.
#[inline]
fn inverse<P: Plane>(x: [P; 8]) -> [P; 8] {
    let high = ((x[7], x[6]), (x[5], x[4]));
    let low = ((x[3], x[2]), (x[1], x[0]));
    let sum = nibble_sum(high, low);
    let norm = nibble_sum(nibble_times_wz(nibble_square(high)), nibble_product(low, sum));
    let inverse = nibble_inverse(norm);
    let (high, low) = (nibble_product(high, inverse), nibble_product(sum, inverse));
    [low.1.1, low.1.0, low.0.1, low.0.0, high.1.1, high.1.0, high.0.1, high.0.0]
}

/// One row of an affine map. The mask is known to the compiler, so only the additions remain.
#[inline]
fn row<P: Plane, const MASK: u8, const ADDS: bool>(x: &[P; 8]) -> P {
    // No row of an invertible matrix is empty.
    let first = MASK.trailing_zeros() as usize;
    let mut sum = x[first];
    for (bit, plane) in x.iter().enumerate().skip(first + 1) {
        if (MASK >> bit) & 1 == 1 {
            sum = sum ^ *plane;
        }
    }
    if ADDS { !sum } else { sum }
}

macro_rules! affine {
    ($map:expr, $planes:expr; $($bit:literal)*) => {{
        const MAP: Affine = $map;
        let planes = $planes;
        [$(row::<P, { MAP.rows[$bit] }, { (MAP.constant >> $bit) & 1 == 1 }>(&planes)),*]
    }};
}

/// SM4's S-box on planes, from bit 0 on.
#[inline]
fn s_box<P: Plane>(x: [P; 8]) -> [P; 8] {
    let x = affine!(IN_TOWER.before, x; 0 1 2 3 4 5 6 7);
    affine!(IN_TOWER.after, inverse(x); 0 1 2 3 4 5 6 7)
}

/// The S-box on each byte of one word: the planes have their bits at the bytes' lowest places.
fn s_box_of_word(word: u32) -> u32 {
    const LOWEST: u32 = 0x0101_0101;
    let out = s_box(std::array::from_fn(|bit| (word >> bit) & LOWEST));
    out.iter().enumerate().fold(0, |word, (bit, plane)| word | ((plane & LOWEST) << bit))
}

/// The round keys of a key, given as the four words of the standard after its first addition.
pub(super) fn expand_key(mut words: [u32; 4], constants: &[u32; ROUNDS]) -> [u32; ROUNDS] {
    constants.map(|constant| {
        let next = words[0] ^ linear_of_key(s_box_of_word(words[1] ^ words[2] ^ words[3] ^ constant));
        words = [words[1], words[2], words[3], next];
        next
    })
}

/// The 32 planes of one word of the state.
type Planes = [Lanes; 32];

/// Encrypts blocks in place.
pub(super) fn encrypt(round_keys: &[u32; ROUNDS], blocks: &mut [Block]) {
    for part in blocks.chunks_mut(LANES) {
        let mut state = [[Lanes::of([0; 2]); 32]; 4];
        for (at, planes) in state.iter_mut().enumerate() {
            into_planes(part, at, planes);
        }
        for keys in round_keys.as_chunks::<4>().0 {
            let [a, b, c, d] = &mut state;
            round(a, [b, c, d], keys[0]);
            round(b, [c, d, a], keys[1]);
            round(c, [d, a, b], keys[2]);
            round(d, [a, b, c], keys[3]);
        }
        // The standard gives the words out in reverse order.
        for (at, planes) in state.iter().rev().enumerate() {
            out_of_planes(planes, at, part);
        }
        super::wipe(&mut state, [Lanes::of([0; 2]); 32]);
    }
}

/// `target ^= L(S(others ^ key))`.
fn round(target: &mut Planes, others: [&mut Planes; 3], key: u32) {
    let [x, y, z] = others;
    let mut out = [Lanes::of([0; 2]); 32];
    for first in [0, 8, 16, 24] {
        let byte = s_box(std::array::from_fn(|bit| {
            let at = first + bit;
            let mask = u64::from((key >> at) & 1).wrapping_neg();
            x[at] ^ y[at] ^ z[at] ^ Lanes::of([mask; 2])
        }));
        out[first..first + 8].copy_from_slice(&byte);
    }
    // Rotated left by n, bit i comes from bit i − n.
    for at in 0..32 {
        let rotated = |by: usize| out[(at + 32 - by) % 32];
        target[at] = target[at] ^ out[at] ^ rotated(2) ^ rotated(10) ^ rotated(18) ^ rotated(24);
    }
}

/// Collects word `at` of up to 128 blocks into planes; missing blocks are zero.
fn into_planes(blocks: &[Block], at: usize, planes: &mut Planes) {
    let word =
        |block: &Block| u32::from_be_bytes([block[4 * at], block[4 * at + 1], block[4 * at + 2], block[4 * at + 3]]);
    let mut rows = [[0_u64; 32]; 2];
    for (half, rows) in blocks.chunks(64).zip(&mut rows) {
        // Two blocks a row: transposed as one matrix of 32 rows with 2 × 32 columns.
        for (lane, block) in half.iter().enumerate() {
            rows[lane % 32] |= u64::from(word(block)) << (32 * (lane / 32));
        }
        transpose(rows);
    }
    for (plane, (low, high)) in planes.iter_mut().zip(rows[0].iter().zip(&rows[1])) {
        *plane = Lanes::of([*low, *high]);
    }
}

/// Undoes [`into_planes`] for the blocks that there are.
fn out_of_planes(planes: &Planes, at: usize, blocks: &mut [Block]) {
    for (part, half) in blocks.chunks_mut(64).enumerate() {
        let mut rows = planes.map(|plane| plane.halves()[part]);
        transpose(&mut rows);
        for (lane, block) in half.iter_mut().enumerate() {
            let word = (rows[lane % 32] >> (32 * (lane / 32))) as u32;
            block[4 * at..4 * at + 4].copy_from_slice(&word.to_be_bytes());
        }
    }
}

/// Transposes two matrices of 32 × 32 bits that lie side by side: row i of both in `rows[i]`, column j at bit j.
fn transpose(rows: &mut [u64; 32]) {
    let mut mask = 0x0000_ffff_0000_ffff_u64;
    let mut distance = 16;
    while distance > 0 {
        for at in (0..32).filter(|at| at & distance == 0) {
            let swapped = ((rows[at] >> distance) ^ rows[at + distance]) & mask;
            rows[at] ^= swapped << distance;
            rows[at + distance] ^= swapped;
        }
        distance /= 2;
        mask ^= mask << distance;
    }
}
