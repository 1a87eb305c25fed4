//! The decisions about pins and dying cells, pure: [`super`] and the shred gather the facts and carry them out, and the model
//! of the rules of dying (`tests/it/model/`) explores every order of events with these very functions.

use std::collections::BTreeSet;

use crate::control::{CellRow, DyingKeys};

/// A living cell in which rows that stay were ever sealed, and from which nothing was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanCell {
    /// The cell.
    pub cell: CellRow,
    /// Whether an active pin lies on it already.
    pub is_pinned: bool,
}

/// An active pin on rows of the same subject and bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingPin {
    /// Its slot.
    pub slot: u32,
    /// Whether its cell is one of the clean cells of any rows that stay.
    pub is_needed: bool,
    /// Whether something was erased from its cell.
    pub lost_rows: bool,
}

/// Rows of one subject and bucket that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StayingRows<'r> {
    /// Whether one of them is a new version (stripped), which must not share the cell of the old one.
    pub new_version: bool,
    /// Whether the rows need a key of their own: their subject or bucket dies, or a pin holds them already.
    pub own_key: bool,
    /// Their clean cells.
    pub cells: &'r [CleanCell],
    /// Their pins.
    pub pins: &'r [StandingPin],
}

/// What becomes of the pins of rows that stay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PinChoice {
    /// Pins that die with the run: their cells lost rows, or hold a version that must go.
    pub give_way: Vec<u32>,
    /// Cells that get a preserving pin.
    pub preserve: Vec<CellRow>,
    /// Whether a fresh pin takes the rows from the next snapshot on.
    pub fresh: bool,
}

/// Rule of dying 1: every clean cell that loses a key now is preserved, unless a pin holds it. A pin whose cell lost rows
/// gives way to a fresh one; so do all, for new versions. Without a key of their own the rows go on in their bucket's cell.
#[must_use]
pub fn choose_pins(rows: &StayingRows<'_>, dying: &DyingKeys) -> PinChoice {
    let mut choice = PinChoice::default();
    let mut is_held = false;
    for pin in rows.pins {
        if !pin.is_needed && (rows.new_version || pin.lost_rows) {
            choice.give_way.push(pin.slot);
        } else {
            is_held = true;
        }
    }
    for CleanCell { cell, is_pinned } in rows.cells {
        if *is_pinned {
            is_held = true;
        } else if cell.pin.is_none() && dying.takes(cell.subject, cell.bucket, None) {
            choice.preserve.push(*cell);
        }
    }
    is_held |= !choice.preserve.is_empty();
    choice.fresh = rows.own_key && (rows.new_version || !is_held);
    choice
}

/// A cell as a snapshot's directory names it, with the pin that holds its secret now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedCell {
    /// The subject's slot.
    pub subject: Option<u32>,
    /// The bucket's slot.
    pub bucket: u32,
    /// Whether it was made for a fresh pin.
    pub is_fresh: bool,
    /// The pin that holds its secret now.
    pub pin: Option<u32>,
}

/// Cells, as subject and bucket.
pub type CellNames = BTreeSet<(Option<u32>, u32)>;

/// Rule of dying 2: whether living rows in this cell of a barrier snapshot forbid that these keys die. `preserved` are the
/// cells whose secrets go into pins in the same generation change.
#[must_use]
pub fn forbids_death(cell: &SealedCell, dying: &DyingKeys, preserved: &CellNames) -> bool {
    let is_preserved = !cell.is_fresh && preserved.contains(&(cell.subject, cell.bucket));
    dying.takes(cell.subject, cell.bucket, cell.pin) && !is_preserved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(id: i64, pin: Option<u32>) -> CellRow {
        CellRow { id, subject: Some(1), bucket: 2, fresh: None, pin }
    }

    fn dying_subject() -> DyingKeys {
        DyingKeys { subjects: vec![1], ..DyingKeys::default() }
    }

    fn rows<'r>(cells: &'r [CleanCell], pins: &'r [StandingPin]) -> StayingRows<'r> {
        StayingRows { new_version: false, own_key: true, cells, pins }
    }

    #[test]
    fn a_clean_cell_that_loses_a_key_is_preserved() {
        let clean = [CleanCell { cell: cell(5, None), is_pinned: false }];
        let choice = choose_pins(&rows(&clean, &[]), &dying_subject());
        assert_eq!(choice, PinChoice { preserve: vec![clean[0].cell], ..PinChoice::default() });
        let untouched = choose_pins(&rows(&clean, &[]), &DyingKeys { buckets: vec![9], ..DyingKeys::default() });
        assert_eq!(untouched, PinChoice { fresh: true, ..PinChoice::default() });
    }

    #[test]
    fn a_pin_whose_cell_lost_rows_gives_way_to_a_fresh_one() {
        let pin = StandingPin { slot: 7, is_needed: false, lost_rows: true };
        let choice = choose_pins(&rows(&[], &[pin]), &dying_subject());
        assert_eq!((choice.give_way, choice.fresh), (vec![7], true));
        let clean = choose_pins(&rows(&[], &[StandingPin { lost_rows: false, ..pin }]), &dying_subject());
        assert_eq!(clean, PinChoice::default());
    }

    #[test]
    fn a_new_version_gets_a_fresh_pin_even_beside_a_preserved_cell() {
        let clean = [CleanCell { cell: cell(5, None), is_pinned: false }];
        let pins = [StandingPin { slot: 7, is_needed: true, lost_rows: false }];
        let choice = choose_pins(&StayingRows { new_version: true, ..rows(&clean, &pins) }, &dying_subject());
        assert_eq!((choice.preserve.len(), choice.give_way.len(), choice.fresh), (1, 0, true));
    }

    #[test]
    fn rows_without_a_key_of_their_own_stay_in_their_bucket() {
        let choice = choose_pins(&StayingRows { own_key: false, ..rows(&[], &[]) }, &dying_subject());
        assert_eq!(choice, PinChoice::default());
    }

    #[test]
    fn a_cell_that_loses_a_key_forbids_death_unless_it_is_preserved() {
        let sealed = SealedCell { subject: Some(1), bucket: 2, is_fresh: false, pin: None };
        let (none, kept) = (CellNames::new(), CellNames::from([(Some(1), 2)]));
        assert!(forbids_death(&sealed, &dying_subject(), &none));
        assert!(!forbids_death(&sealed, &dying_subject(), &kept));
        assert!(!forbids_death(&SealedCell { pin: Some(3), ..sealed }, &dying_subject(), &none));
        let fresh = SealedCell { is_fresh: true, pin: Some(3), ..sealed };
        assert!(forbids_death(&fresh, &DyingKeys { pins: vec![3], ..DyingKeys::default() }, &kept));
    }
}
