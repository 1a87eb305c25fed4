//! Whether a row that is in a store again, although it was erased, is what was erased. Pure.

use chrono::{DateTime, Utc};

use crate::policy::start::StartEvent;

/// What an erasure left in the ledger about a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// When.
    pub at: DateTime<Utc>,
    /// Whether the row was stripped or anonymised instead, and so is still there by right.
    pub stays: bool,
    /// The keyed digest of its content before; zeros when nobody knows.
    pub content: [u8; 32],
}

/// What became of something that was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Return {
    /// It is there again: with the content that was erased, or with a start event from before the erasure.
    Resurrected,
    /// Something new stands in its place: the same key or the same customer, as far as can be told later than the erasure.
    Returned,
}

/// A row that is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The digest of what it holds.
    pub content: [u8; 32],
    /// Whether it is as the strip or the anonymisation left it.
    pub is_blank: bool,
    /// When what it is about began or ended.
    pub start: StartEvent,
}

/// Judges a row that is there now. `erasures` are those of its key; `forgotten` is when its customer asked for what was fulfilled
/// with nothing kept. Nothing when it is there by right.
#[must_use]
pub fn judge(erasures: &[Erasure], row: &Found, forgotten: Option<DateTime<Utc>>) -> Option<Return> {
    let last = erasures.last();
    let stays = last.is_some_and(|last| last.stays);
    if stays && row.is_blank {
        return None;
    }
    let is_known = |erasure: &Erasure| erasure.content != [0; 32] && erasure.content == row.content;
    if erasures.iter().any(is_known) {
        return Some(Return::Resurrected);
    }
    let gone = last.map(|last| last.at).or(forgotten)?;
    match row.start {
        // A row that stayed keeps its start event.
        StartEvent::At(start) if start < gone && !stays => Some(Return::Resurrected),
        _ => Some(Return::Returned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn erasure(second: i64, stays: bool, content: u8) -> Erasure {
        Erasure { at: at(second), stays, content: [content; 32] }
    }

    #[test]
    fn what_was_erased_is_told_from_what_came_later() {
        let (early, late) = (StartEvent::At(at(50)), StartEvent::At(at(150)));
        for (erasures, content, start, forgotten, expected) in [
            // Nothing is known of it.
            (vec![], 7, early, None, None),
            // The same content, whenever it is said to be from.
            (vec![erasure(100, false, 7)], 7, late, None, Some(Return::Resurrected)),
            (vec![erasure(100, false, 7), erasure(120, false, 8)], 7, late, None, Some(Return::Resurrected)),
            // Other content under the same key.
            (vec![erasure(100, false, 7)], 8, early, None, Some(Return::Resurrected)),
            (vec![erasure(100, false, 7)], 8, StartEvent::At(at(100)), None, Some(Return::Returned)),
            (vec![erasure(100, false, 7)], 8, late, None, Some(Return::Returned)),
            (vec![erasure(100, false, 7)], 8, StartEvent::Missing, None, Some(Return::Returned)),
            // Nobody knows what it was.
            (vec![erasure(100, false, 0)], 0, late, None, Some(Return::Returned)),
            // A stripped row that was filled again; its start event was never gone.
            (vec![erasure(100, true, 7)], 7, early, None, Some(Return::Resurrected)),
            (vec![erasure(100, true, 7)], 8, early, None, Some(Return::Returned)),
            // Rows of a customer who was forgotten.
            (vec![], 8, early, Some(at(100)), Some(Return::Resurrected)),
            (vec![], 8, late, Some(at(100)), Some(Return::Returned)),
            (vec![], 8, StartEvent::Unreadable, Some(at(100)), Some(Return::Returned)),
        ] {
            let row = Found { content: [content; 32], is_blank: false, start };
            assert_eq!(judge(&erasures, &row, forgotten), expected, "{erasures:?} {row:?}");
        }
    }

    #[test]
    fn a_stripped_row_is_there_by_right_as_long_as_it_is_blank() {
        let row = Found { content: [7; 32], is_blank: true, start: StartEvent::At(at(50)) };
        // Stripped twice: the second time it was blank before.
        assert_eq!(judge(&[erasure(90, true, 6), erasure(100, true, 7)], &row, Some(at(100))), None);
        // Stripped, and erased later: it must not be there at all.
        let erased = [erasure(90, true, 6), erasure(100, false, 7)];
        assert_eq!(judge(&erased, &row, None), Some(Return::Resurrected));
    }
}
