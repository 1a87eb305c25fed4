//! Looking for byte strings in files, in one pass whatever their number.

use std::collections::HashMap;
use std::io::Read;

/// The shortest value worth looking for: shorter ones stand everywhere.
pub const SHORTEST: usize = 6;
/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Bytes of a value by which it is noticed.
const HEAD: usize = 4;

/// Values to look for, by their first bytes.
pub struct Needles {
    values: Vec<Vec<u8>>,
    heads: HashMap<[u8; HEAD], Vec<usize>>,
    /// Whether a value begins with these two bytes.
    pairs: Vec<bool>,
    longest: usize,
}

impl Needles {
    /// Of these values; those that are too short are left out.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let values: Vec<Vec<u8>> = values.into_iter().filter(|value| value.len() >= SHORTEST).collect();
        let (mut heads, mut pairs): (HashMap<_, Vec<usize>>, _) = (HashMap::new(), vec![false; 1 << 16]);
        for (number, value) in values.iter().enumerate() {
            if let Some(head) = value.first_chunk::<HEAD>() {
                heads.entry(*head).or_default().push(number);
                pairs[usize::from(u16::from_be_bytes([head[0], head[1]]))] = true;
            }
        }
        let longest = values.iter().map(Vec::len).max().unwrap_or(0);
        Self { values, heads, pairs, longest }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Marks in `found` which of the values stand in what is read, up to `limit` bytes. Returns how many were read, and whether that was
    /// all.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn look(&self, mut from: impl Read, limit: u64, found: &mut [bool]) -> std::io::Result<(u64, bool)> {
        let keep = self.longest.saturating_sub(1);
        let mut bytes = Vec::with_capacity(PIECE + keep);
        let mut total = 0u64;
        loop {
            let before = bytes.len();
            let wanted = (PIECE as u64).min(limit.saturating_sub(total));
            // One byte more tells whether there is more.
            let read = from.by_ref().take(wanted.max(1)).read_to_end(&mut bytes)? as u64;
            if read == 0 {
                return Ok((total, true));
            }
            if wanted == 0 {
                return Ok((total, false));
            }
            total += read;
            self.mark(&bytes, found);
            let start = bytes.len().saturating_sub(keep);
            debug_assert!(bytes.len() > before);
            bytes.drain(..start);
        }
    }

    fn mark(&self, bytes: &[u8], found: &mut [bool]) {
        for (at, pair) in bytes.windows(2).enumerate() {
            if !self.pairs[usize::from(u16::from_be_bytes([pair[0], pair[1]]))] {
                continue;
            }
            let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEAD>()) else { continue };
            for &number in self.heads.get(head).into_iter().flatten() {
                if bytes[at..].starts_with(&self.values[number])
                    && let Some(known) = found.get_mut(number)
                {
                    *known = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(needles: &[&[u8]], text: &[u8], limit: u64) -> Vec<bool> {
        let needles = Needles::new(needles.iter().map(|needle| needle.to_vec()));
        let mut found = vec![false; needles.count()];
        needles.look(text, limit, &mut found).unwrap();
        found
    }

    #[test]
    fn values_are_found_across_pieces_and_up_to_the_limit() {
        let mut text = vec![b'.'; PIECE - 3];
        text.extend_from_slice(b"canary-one..............canary-two");
        assert_eq!(found(&[b"canary-one", b"canary-two", b"canary-six"], &text, u64::MAX), [true, true, false]);
        let limit = PIECE as u64 + 10;
        assert_eq!(found(&[b"canary-one", b"canary-two"], &text, limit), [true, false]);
        let needles = Needles::new([b"canary-two".to_vec(), b"short".to_vec()]);
        assert_eq!(needles.count(), 1, "a short value stands everywhere");
        assert_eq!(needles.look(&text[..], limit, &mut [false]).unwrap(), (limit, false));
        assert_eq!(needles.look(&text[..], text.len() as u64, &mut [false]).unwrap(), (text.len() as u64, true));
    }

    proptest! {
        #[test]
        fn it_finds_what_windows_find(text in prop::collection::vec(0u8..3, 0..400), needle in prop::collection::vec(0u8..3, 6..9)) {
            let is_there = text.windows(needle.len()).any(|window| window == needle);
            prop_assert_eq!(found(&[&needle], &text, u64::MAX), [is_there]);
        }
    }
}
