//! Which rows of a snapshot a restore brings back: all, those of some collections, those of one customer.

use std::collections::BTreeSet;

use crate::backup::directory::{CellRef, FrameEntry};
use crate::backup::schema::CapturedSchema;
use crate::erase::planner::subject_lookup;
use crate::installation::Installation;
use crate::keyring::Purpose;
use crate::plan::Subject;

use super::request::every_form;
use super::{Result, TaskError};

/// Where the rows of one customer lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubjectCells {
    /// The slots of the customer's own keys: everything under them.
    pub slots: BTreeSet<u32>,
    /// Fresh pins that hold rows which stayed.
    pub fresh_pins: BTreeSet<u32>,
    /// Cells (subject's slot, bucket) that a pin kept when the slot died.
    pub kept_cells: BTreeSet<(u32, u32)>,
    /// How many such cells were kept for somebody else too, because a row in them changed hands: they are left out.
    pub shared_cells: usize,
}

impl SubjectCells {
    fn holds(&self, cell: &CellRef) -> bool {
        match (cell.pin, cell.subject) {
            (Some(pin), _) => self.fresh_pins.contains(&pin),
            (None, Some(slot)) => self.slots.contains(&slot) || self.kept_cells.contains(&(slot, cell.bucket)),
            (None, None) => false,
        }
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.fresh_pins.is_empty() && self.kept_cells.is_empty()
    }
}

/// What is wanted of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Tables; empty for all.
    pub collections: Vec<String>,
    /// The rows of one customer; `None` for those of everybody and of nobody.
    pub subject: Option<SubjectCells>,
}

impl Selection {
    /// Whether all of the snapshot is wanted.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.collections.is_empty() && self.subject.is_none()
    }

    /// Leaves of a directory what is wanted.
    ///
    /// # Errors
    /// When the snapshot has no such collection.
    pub(super) fn narrow(&self, schema: &mut CapturedSchema, entries: &mut Vec<FrameEntry>) -> Result<()> {
        if let Some(cells) = &self.subject {
            entries.retain(|entry| cells.holds(&entry.cell));
        }
        if self.collections.is_empty() {
            return Ok(());
        }
        let known: Vec<&str> = schema.collections.iter().map(|captured| captured.table.as_str()).collect();
        if let Some(unknown) = self.collections.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(TaskError::Unknown {
                what: format!("the snapshot has no collection {unknown}"),
                advice: format!("it has {}", known.join(", ")),
            });
        }
        schema.collections.retain(|captured| self.collections.contains(&captured.table));
        schema.tables.retain(|table| self.collections.contains(&table.name));
        let numbers: BTreeSet<u32> = schema.collections.iter().map(|captured| captured.number).collect();
        entries.retain(|entry| numbers.contains(&entry.collection));
        Ok(())
    }
}

/// Where a customer's rows lie, by every form that the stores write the id in, or may write it in.
///
/// # Errors
/// [`TaskError::Unknown`] when there is no such key: nothing of this subject was ever backed up, or it is destroyed.
pub async fn cells_of_subject(installation: &Installation, subject: &Subject) -> Result<SubjectCells> {
    let forms = every_form(installation, subject).await?;
    let mut tx = installation.control.begin().await?;
    let key = installation.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
    let mut cells = SubjectCells::default();
    for form in forms {
        let lookup = subject_lookup(&key, &form);
        cells.slots.extend(tx.known_subject_slots(&lookup).await?);
        cells.fresh_pins.extend(tx.fresh_pins_of(&lookup).await?);
        let (shared, own): (Vec<_>, Vec<_>) =
            tx.pinned_cells_of(&lookup).await?.into_iter().partition(|(_, is_shared)| *is_shared);
        cells.kept_cells.extend(own.into_iter().map(|(cell, _)| cell));
        cells.shared_cells += shared.len();
    }
    tx.commit().await?;
    if cells.is_empty() && cells.shared_cells > 0 {
        return Err(TaskError::refused(
            "what is kept of this customer lies together with rows of somebody else, so it cannot be restored alone",
            "restore the collections that hold it (`--collection`) to a place of your own, and take the rows from there",
        ));
    }
    if cells.is_empty() {
        return Err(TaskError::Unknown {
            what: "no backup holds rows of this customer that a key opens: none were backed up, or their keys are destroyed"
                .to_owned(),
            advice: "check the id; `wangchuan request list` shows whose rows were erased on request".to_owned(),
        });
    }
    Ok(cells)
}
