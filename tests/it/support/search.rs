//! Whether bytes hold any of many texts.

use std::collections::HashMap;

/// Finds any of many texts in bytes, in one pass: by their first bytes.
pub struct Search<'t> {
    by_beginning: HashMap<&'t [u8], Vec<&'t str>>,
}

/// The shortest text looked for: two Chinese letters.
pub const BEGINNING: usize = 6;

impl<'t> Search<'t> {
    /// For these texts; shorter ones than [`BEGINNING`] are not looked for.
    pub fn of(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut by_beginning: HashMap<&[u8], Vec<&str>> = HashMap::new();
        for text in texts.filter(|text| text.len() >= BEGINNING) {
            by_beginning.entry(&text.as_bytes()[..BEGINNING]).or_default().push(text);
        }
        Self { by_beginning }
    }

    /// Those that the bytes hold.
    pub fn hits(&self, bytes: &[u8]) -> Vec<&'t str> {
        let mut found: Vec<&str> = bytes
            .windows(BEGINNING)
            .enumerate()
            .filter_map(|(at, window)| self.by_beginning.get(window).map(|texts| (at, texts)))
            .flat_map(|(at, texts)| texts.iter().filter(move |text| bytes[at..].starts_with(text.as_bytes())))
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}
