//! A scan of this process's own writable memory for keys, kept in a form that is not itself found. Also part of the library's tests.

use std::os::unix::fs::FileExt;

/// Half a key is enough to be noticed: SM4 takes only that much.
const PATTERN_BYTES: usize = 16;
const MASK: u8 = 0xa5;
const CHUNK_BYTES: usize = 1 << 16;

/// Keys to look for, kept in a form that is not itself found.
#[derive(Default)]
pub struct Wanted(Vec<(&'static str, [u8; PATTERN_BYTES])>);

impl Wanted {
    /// Looks for these bytes too; only the first sixteen count.
    pub fn add(&mut self, what: &'static str, key: &[u8]) {
        let mut masked = [0; PATTERN_BYTES];
        for (masked, byte) in masked.iter_mut().zip(key) {
            *masked = byte ^ MASK;
        }
        self.0.push((what, masked));
    }

    /// What is found in this process's writable memory.
    pub fn found(&self) -> Vec<&'static str> {
        let mut starts = vec![false; 1 << 16];
        for (_, masked) in &self.0 {
            starts[usize::from(u16::from_le_bytes([masked[0] ^ MASK, masked[1] ^ MASK]))] = true;
        }
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut found = Vec::new();
        let mut buffer = vec![0; CHUNK_BYTES + PATTERN_BYTES];
        let own = buffer.as_ptr().addr() as u64;
        let own = own..own + buffer.len() as u64;
        for (from, to) in writable_ranges() {
            // The buffer itself is left out: it holds what was read last.
            for (from, to) in [(from, to.min(own.start)), (from.max(own.end), to)] {
                let mut at = from;
                while at < to {
                    let length = ((to - at) as usize).min(buffer.len());
                    // Some ranges cannot be read, as those of devices.
                    let Ok(read) = memory.read_at(&mut buffer[..length], at) else { break };
                    self.look(&buffer[..read], &starts, &mut found);
                    at += CHUNK_BYTES as u64;
                }
            }
        }
        found
    }

    fn look(&self, bytes: &[u8], starts: &[bool], found: &mut Vec<&'static str>) {
        let mut before = 0;
        for at in 1..bytes.len() {
            let byte = bytes[at];
            if starts[usize::from(u16::from_le_bytes([before, byte]))] && at + PATTERN_BYTES <= bytes.len() + 1 {
                let window = &bytes[at - 1..at - 1 + PATTERN_BYTES];
                let same = |masked: &[u8; PATTERN_BYTES]| {
                    window.iter().zip(masked).all(|(byte, masked)| byte ^ MASK == *masked)
                };
                found.extend(self.0.iter().filter(|(_, masked)| same(masked)).map(|(what, _)| *what));
            }
            before = byte;
        }
    }
}

fn writable_ranges() -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let range = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        rest.starts_with("rw").then_some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
    };
    maps.lines().filter_map(range).collect()
}
