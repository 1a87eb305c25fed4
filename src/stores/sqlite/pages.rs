//! Whether a SQLite database file holds anything beside what is alive: unused parts of pages, free pages, the rest behind the
//! end of long values.
//!
//! `secure_delete` overwrites what the deleting connection frees. It does not reach copies that stayed behind when earlier connections
//! moved rows from one page to another, so that only looking tells. The format: <https://www.sqlite.org/fileformat2.html>.
//! Pieces of up to four bytes count as nothing: SQLite leaves headers of former holes, and holes of three bytes, where they are.

/// The page on which locks are kept; it holds nothing.
const LOCK_BYTE: u64 = 1 << 30;

/// The longest piece that counts as nothing.
const SPECK: usize = 4;

/// Whether unused parts of the file hold more than specks. `roots` are the root pages of all tables and indexes. None when the
/// bytes cannot be followed: then nothing can be said.
#[must_use]
pub fn read_remains(file: &[u8], roots: &[u32]) -> Option<bool> {
    let size = match u16_at(file, 16)? {
        1 => 65536,
        size if size >= 512 && size.is_power_of_two() => usize::from(size),
        _ => return None,
    };
    let usable = size.checked_sub(usize::from(*file.get(20)?)).filter(|usable| *usable >= 480)?;
    let count = file.len() / size;
    if !file.len().is_multiple_of(size) {
        return None;
    }
    let mut walk = Walk { file, size, usable, seen: vec![false; count + 1], found: false };
    for root in std::iter::once(1).chain(roots.iter().copied()) {
        walk.tree(root)?;
    }
    walk.free_list(u32_at(file, 32)?)?;
    let maps = (u32_at(file, 52)? != 0).then_some(usable / 5 + 1);
    walk.others(maps);
    Some(walk.found)
}

struct Walk<'a> {
    file: &'a [u8],
    size: usize,
    usable: usize,
    seen: Vec<bool>,
    found: bool,
}

impl<'a> Walk<'a> {
    fn page(&self, number: u32) -> Option<&'a [u8]> {
        let start = (number as usize).checked_sub(1)?.checked_mul(self.size)?;
        self.file.get(start..start.checked_add(self.usable)?)
    }

    /// The page, once.
    fn visit(&mut self, number: u32) -> Option<&'a [u8]> {
        let page = self.page(number)?;
        let seen = self.seen.get_mut(number as usize)?;
        if std::mem::replace(seen, true) {
            return None;
        }
        Some(page)
    }

    fn unused(&mut self, bytes: &[u8]) {
        self.found |= bytes.split(|byte| *byte == 0).any(|piece| piece.len() > SPECK);
    }

    /// The gap behind the numbers of the cells, in which numbers of former cells stand first.
    fn gap(&mut self, bytes: &[u8]) {
        let is_number =
            |word: &[u8]| u16_at(word, 0).is_some_and(|number| number > 0 && usize::from(number) <= self.usable);
        // On large pages text could look like numbers.
        let numbers = if self.usable > 8192 { 0 } else { bytes.chunks(2).take_while(|word| is_number(word)).count() };
        self.unused(bytes.get(2 * numbers..).unwrap_or_default());
    }

    fn tree(&mut self, root: u32) -> Option<()> {
        if root == 1 && self.seen.get(1) == Some(&true) {
            return Some(());
        }
        let mut waiting = vec![root];
        while let Some(number) = waiting.pop() {
            let page = self.visit(number)?;
            let start = if number == 1 { 100 } else { 0 };
            let kind = *page.get(start)?;
            let is_leaf = match kind {
                2 | 5 => false,
                10 | 13 => true,
                _ => return None,
            };
            let cells = usize::from(u16_at(page, start + 3)?);
            let pointers = start + if is_leaf { 8 } else { 12 };
            let content = match usize::from(u16_at(page, start + 5)?) {
                0 => 65536,
                content => content,
            };
            self.gap(page.get(pointers + 2 * cells..content.min(page.len()))?);
            self.holes(page, usize::from(u16_at(page, start + 1)?))?;
            if !is_leaf {
                waiting.push(u32_at(page, start + 8)?);
            }
            for cell in 0..cells {
                let at = usize::from(u16_at(page, pointers + 2 * cell)?);
                if !is_leaf {
                    waiting.push(u32_at(page, at)?);
                }
                self.cell(page, kind, at)?;
            }
        }
        Some(())
    }

    /// The chain of free blocks inside a page. It goes up, so it ends.
    fn holes(&mut self, page: &[u8], first: usize) -> Option<()> {
        let mut at = first;
        while at != 0 {
            let (next, length) = (usize::from(u16_at(page, at)?), usize::from(u16_at(page, at + 2)?));
            self.unused(page.get(at + 4..at.checked_add(length)?)?);
            if next != 0 && next <= at {
                return None;
            }
            at = next;
        }
        Some(())
    }

    /// Follows the part of a cell that lies on pages of its own.
    fn cell(&mut self, page: &'a [u8], kind: u8, at: usize) -> Option<()> {
        let mut at = match kind {
            5 => return Some(()),
            2 => at + 4,
            _ => at,
        };
        let (payload, length) = varint(page, at)?;
        at += length;
        if kind == 13 {
            at += varint(page, at)?.1;
        }
        let payload = usize::try_from(payload).ok()?;
        let most = if kind == 13 { self.usable - 35 } else { (self.usable - 12) * 64 / 255 - 23 };
        if payload <= most {
            return Some(());
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let spread = least + (payload - least) % (self.usable - 4);
        let local = if spread <= most { spread } else { least };
        let mut rest = payload - local;
        let mut next = u32_at(page, at + local)?;
        while rest > 0 {
            let page = self.visit(next)?;
            let here = rest.min(self.usable - 4);
            self.unused(page.get(4 + here..)?);
            rest -= here;
            next = u32_at(page, 0)?;
        }
        Some(())
    }

    fn free_list(&mut self, first: u32) -> Option<()> {
        let mut trunk = first;
        while trunk != 0 {
            let page = self.visit(trunk)?;
            let leaves = u32_at(page, 4)? as usize;
            for leaf in 0..leaves {
                let number = u32_at(page, 8 + 4 * leaf)?;
                let bytes = self.visit(number)?;
                self.unused(bytes);
            }
            // Numbers of pages that were in the list before stay behind its end.
            let last = self.seen.len();
            let rest = page.get(8 + 4 * leaves..)?;
            self.found |= rest.chunks(4).any(|word| u32_at(word, 0).is_none_or(|number| number as usize >= last));
            trunk = u32_at(page, 0)?;
        }
        Some(())
    }

    /// Pages that belong to nothing. `maps`: how far apart pages lie that map others.
    fn others(&mut self, maps: Option<usize>) {
        for number in 1..self.seen.len() {
            let is_map = maps.is_some_and(|step| number >= 2 && (number - 2).is_multiple_of(step));
            let is_lock = number as u64 == LOCK_BYTE / self.size as u64 + 1;
            if !self.seen[number] && !is_map && !is_lock {
                let page = u32::try_from(number).ok().and_then(|number| self.page(number)).unwrap_or_default();
                self.unused(page);
            }
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A number of one to nine bytes, and how many.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for length in 0..8 {
        let byte = *bytes.get(at + length)?;
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((number, length + 1));
        }
    }
    Some((number << 8 | u64::from(*bytes.get(at + 8)?), 9))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::read_remains;

    /// A file of one page with an empty schema.
    fn empty() -> Vec<u8> {
        let mut page = vec![0; 512];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..18].copy_from_slice(&512u16.to_be_bytes());
        page[100] = 13;
        page[105..107].copy_from_slice(&512u16.to_be_bytes());
        page
    }

    #[test]
    fn an_unused_byte_is_seen_wherever_it_stands() {
        assert_eq!(read_remains(&empty(), &[1]), Some(false));
        let mut gap = empty();
        gap[300..304].copy_from_slice(b"four");
        assert_eq!(read_remains(&gap, &[1]), Some(false), "a speck");
        gap[304] = b'x';
        assert_eq!(read_remains(&gap, &[1]), Some(true));
        // Numbers of former cells stand at the beginning of the gap, and nothing else does.
        let mut numbers = empty();
        numbers[108..116].copy_from_slice(&[1, 0x90, 1, 0x80, 1, 0x70, 1, 0x60]);
        assert_eq!(read_remains(&numbers, &[1]), Some(false));
        numbers[108..116].copy_from_slice(b"somebody");
        assert_eq!(read_remains(&numbers, &[1]), Some(true));
        // A page that belongs to nothing.
        let mut loose = empty();
        loose.extend([0; 512]);
        assert_eq!(read_remains(&loose, &[1]), Some(false));
        loose[900..905].copy_from_slice(b"words");
        assert_eq!(read_remains(&loose, &[1]), Some(true));
        // A free page: the first of the list names the second, which holds something.
        let mut free = empty();
        free.extend([0; 1024]);
        free[32..36].copy_from_slice(&2u32.to_be_bytes());
        free[512 + 7] = 1;
        free[512 + 11] = 3;
        assert_eq!(read_remains(&free, &[1]), Some(false));
        free[1024 + 40..1024 + 45].copy_from_slice(b"words");
        assert_eq!(read_remains(&free, &[1]), Some(true));
        // A hole inside the page.
        let mut hole = empty();
        hole[101..103].copy_from_slice(&400u16.to_be_bytes());
        hole[105..107].copy_from_slice(&400u16.to_be_bytes());
        hole[402..404].copy_from_slice(&20u16.to_be_bytes());
        assert_eq!(read_remains(&hole, &[1]), Some(false));
        hole[410..415].copy_from_slice(b"words");
        assert_eq!(read_remains(&hole, &[1]), Some(true));
        // What cannot be followed says nothing.
        hole[402..404].copy_from_slice(&2000u16.to_be_bytes());
        assert_eq!(read_remains(&hole, &[1]), None);
        assert_eq!(read_remains(&empty(), &[7]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_make_it_panic_or_run_for_ever(
            changes in prop::collection::vec((0usize..2048, any::<u8>()), 0..60),
            root in 0u32..6,
        ) {
            let mut file = empty();
            file.resize(2048, 0);
            for (at, byte) in changes {
                file[at] = byte;
            }
            let _ = read_remains(&file, &[root]);
        }
    }
}
