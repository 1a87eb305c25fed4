//! How golden bytes are changed.

use crate::support::dice::Dice;

/// Values that length and count fields go wrong with.
const LENGTHS: [u32; 9] = [0, 1, 0x7f, 0xff, 0xffff, 0x10_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
/// Longer inputs are as if nobody looked at their ends.
const MOST: usize = 1 << 16;

/// One input: golden bytes changed in one to four ways, or now and then arbitrary bytes.
pub fn mutated(golden: &[Vec<u8>], which: usize, dice: &mut Dice) -> Vec<u8> {
    if dice.chance(4) {
        return (0..dice.below(300)).map(|_| dice.next() as u8).collect();
    }
    let mut bytes = golden[which].clone();
    for _ in 0..=dice.below(4) {
        change(&mut bytes, golden, dice);
    }
    bytes.truncate(golden[which].len().max(MOST));
    bytes
}

fn change(bytes: &mut Vec<u8>, golden: &[Vec<u8>], dice: &mut Dice) {
    if bytes.is_empty() {
        bytes.push(dice.next() as u8);
        return;
    }
    // The beginning holds what the rest is read by, so it is changed more often.
    let reach = if dice.chance(40) { bytes.len().min(128) } else { bytes.len() };
    let at = dice.below(reach);
    match dice.below(8) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at] = dice.next() as u8,
        2 => bytes.truncate(at),
        3 => bytes.extend((0..dice.below(40)).map(|_| dice.next() as u8).collect::<Vec<_>>()),
        4 => {
            // A length or a count, of one to eight bytes, in either order.
            let value = LENGTHS[dice.below(LENGTHS.len())];
            let field = if dice.chance(80) { value.to_be_bytes() } else { value.to_le_bytes() };
            let width = 1 + dice.below(4);
            for (byte, new) in bytes[at..].iter_mut().zip(&field[4 - width..]) {
                *byte = *new;
            }
        }
        5 => {
            // A piece of another golden file, or of this one, in its place.
            let from = &golden[dice.below(golden.len())];
            let start = dice.below(from.len());
            let piece = from[start..(start + 1 + dice.below(64)).min(from.len())].to_vec();
            let end = (at + dice.below(64)).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        6 => {
            let end = (at + 1 + dice.below(64)).min(bytes.len());
            let twice = bytes[at..end].to_vec();
            bytes.splice(at..at, twice);
        }
        _ => {
            let end = (at + 1 + dice.below(32)).min(bytes.len());
            bytes.drain(at..end);
        }
    }
}
