//! Which rows of a snapshot a restore brings back: all, those of some collections, those of one customer.

use std::collections::BTreeSet;

use crate::backup::directory::FrameEntry;
use crate::backup::schema::CapturedSchema;
use crate::erase::Ground;
use crate::erase::batch::forms_of;
use crate::erase::planner::subject_lookup;
use crate::keyring::Purpose;
use crate::plan::Subject;

use super::{Result, TaskError};

/// What is wanted of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Tables; empty for all.
    pub collections: Vec<String>,
    /// The slots of one subject's keys; `None` for the rows of everybody and of nobody.
    pub subject: Option<BTreeSet<u32>>,
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
        if let Some(slots) = &self.subject {
            entries.retain(|entry| entry.cell.subject.is_some_and(|slot| slots.contains(&slot)));
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

/// The slots of a subject's keys, by every form that the stores write its id in; those too under which rows lie that a pin kept.
///
/// # Errors
/// [`TaskError::Unknown`] when there is no such key: nothing of this subject was ever backed up, or it is destroyed.
pub async fn slots_of_subject(ground: &Ground<'_>, subject: &Subject) -> Result<BTreeSet<u32>> {
    let mut tx = ground.control.begin().await?;
    let key = ground.keyring.work_key(&mut tx, Purpose::Lookup, "").await?;
    let mut slots = BTreeSet::new();
    for form in forms_of(ground, subject) {
        let lookup = subject_lookup(&key, &form);
        slots.extend(tx.known_subject_slots(&lookup).await?);
        slots.extend(tx.pinned_subject_slots(&lookup).await?);
    }
    tx.commit().await?;
    if slots.is_empty() {
        return Err(TaskError::Unknown {
            what: "no backup holds rows of this customer that a key opens: none were backed up, or their keys are destroyed"
                .to_owned(),
            advice: "check the id; `wangchuan request list` shows whose rows were erased on request".to_owned(),
        });
    }
    Ok(slots)
}
