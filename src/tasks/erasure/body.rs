//! The public part of a run.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::control::{ChunkCounts, ChunkRow, RunRow};
use crate::stores::{FileSearch, PhysicalStage, PhysicalState, Residue};
use crate::tasks::finality::Residual;
use crate::tasks::{Result, TaskError};

/// The public part of a run, kept as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunBody {
    /// Rows that were due.
    pub due: i64,
    /// Rows absent from the live stores.
    pub erased: i64,
    /// Rows that were anonymised.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub anonymised: i64,
    /// Rows stripped to their minimum.
    pub stripped: i64,
    /// Rows that stay.
    pub kept: i64,
    /// Rows that could not be erased.
    pub failed: i64,
    /// Rows that the read-back looked for, because they must be absent.
    pub looked_for: u64,
    /// Rows that the read-back looked at, because they must be stripped.
    #[serde(default)]
    pub looked_at: u64,
    /// Rows that the read-back looked at, because they must be anonymous.
    #[serde(default, skip_serializing_if = "is_none")]
    pub looked_through: u64,
    /// Of them found all the same.
    pub residual: u64,
    /// The smallest group of anonymised rows with the same values, by collection, where fields that could tell people apart are declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smallest_groups: Vec<SmallestGroup>,
    /// What the stores say about their own files, by store.
    pub physical: Vec<StoreFiles>,
    /// Stores that were left out, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Problems, without values.
    pub notes: Vec<String>,
    /// The subject's pseudonym for certificates, hex, of a request.
    pub subject_ref: Option<String>,
    /// Rows that still open in backups after the last shred, and until when.
    pub pending: Option<(i64, String)>,
    /// Rows that opened in backups when a shred last looked, noted before it destroys anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<i64>,
    /// When the destruction of the keys is irrevocable, while that is still to come: no key that is left opens the rows, but whoever
    /// has the right can call the destruction of an old root off until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irrevocable_at: Option<DateTime<Utc>>,
    /// Rows that an undo put back; they count as kept.
    #[serde(default)]
    pub undone: Option<i64>,
    /// The state that the newest certificate tells of.
    #[serde(default)]
    pub certified: Option<String>,
    /// What keeps a shredded run from being final, as it was last looked at; none before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residuals: Option<Vec<Residual>>,
    /// The key generation by which everything that was sealed for the run itself is destroyed: its lists, its pre-images, the
    /// id of its request. Known only some time after it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<i64>,
    /// The records of destroyed media that its newest certificate names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<String>,
    /// When it became final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_at: Option<DateTime<Utc>>,
    /// Rows that stay because somebody stopped the run; they count as kept, and the next plan has them again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stopped: i64,
    /// Whether its end is in the operation log and its markers are removed.
    #[serde(default)]
    pub closed: bool,
}

/// What the files of a store may still hold of the rows of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFiles {
    /// The store.
    pub store: String,
    /// When it was first asked, behind the deletion.
    pub since: DateTime<Utc>,
    /// When it was last asked.
    pub asked_at: DateTime<Utc>,
    /// What may hold them.
    pub residues: Vec<Residue>,
    /// Since when nothing keeps them in the tables, nor was anything of them cleaned out of there; none while something keeps them, or
    /// nobody sees whether it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_at: Option<DateTime<Utc>>,
    /// See [`crate::stores::PhysicalState::mark`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// Whether the tables were written anew since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rewritten: bool,
    /// The replicas that showed the deletion, by name. Of any other it is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas_shown: Vec<String>,
    /// What the last look into the raw files found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched: Option<FileSearch>,
}

impl StoreFiles {
    /// How far the physical stage got.
    #[must_use]
    pub fn stage(&self) -> PhysicalStage {
        PhysicalState::stage_of(&self.residues)
    }

    /// From when on copies of the store's files do not hold the rows as such any more, as far as is known.
    #[must_use]
    pub fn copied_until(&self) -> DateTime<Utc> {
        let is_kept = self.residues.iter().any(|residue| residue.code.keeps_rows());
        self.passed_at.filter(|_| !is_kept).unwrap_or(self.asked_at)
    }
}

/// The smallest group of anonymised rows of a collection that have the same values in the columns that could tell people apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallestGroup {
    /// The store.
    pub store: String,
    /// The collection.
    pub collection: String,
    /// How many rows it has.
    pub rows: u64,
}

impl RunBody {
    /// Reads it.
    pub fn of(run: &RunRow) -> Result<Self> {
        serde_json::from_str(&run.body)
            .map_err(|_| TaskError::Inconsistent(format!("the record of run {} is damaged", run.id)))
    }

    /// Rows that are gone from the live stores, or anonymised or stripped there.
    #[must_use]
    pub fn gone(&self) -> i64 {
        self.erased + self.anonymised + self.stripped
    }

    /// Takes all counts from the chunks of its plan again.
    pub(in crate::tasks) fn recount(&mut self, chunks: &[ChunkRow]) {
        (self.erased, self.anonymised, self.stripped, self.kept, self.failed) = (0, 0, 0, 0, 0);
        for chunk in chunks {
            match chunk.verdict.as_str() {
                "keep" => self.kept += chunk.rows,
                "settled" => {}
                _ => self.add(chunk.counts),
            }
        }
    }

    /// Whether rows failed and none is gone: such a run marks no key, for nothing is to die.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed > 0 && self.gone() == 0
    }

    /// Whether nothing of its rows is left in the files of a store.
    #[must_use]
    pub fn is_settled(&self, store: &str) -> bool {
        self.physical.iter().any(|files| files.store == store && files.stage() == PhysicalStage::Settled)
    }

    /// Whether something that passes by itself still holds rows in the files of a store.
    #[must_use]
    pub fn is_residue_pending(&self) -> bool {
        self.physical.iter().any(|files| files.stage() == PhysicalStage::Pending)
    }

    pub(in crate::tasks) fn add(&mut self, counts: ChunkCounts) {
        self.erased += counts.erased;
        self.anonymised += counts.anonymised;
        self.stripped += counts.stripped;
        self.kept += counts.kept;
        self.failed += counts.failed;
    }

    pub(in crate::tasks) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|_| TaskError::Inconsistent("a run's record cannot be written".to_owned()))
    }

    /// Stores it in a run.
    pub fn put(&self, run: &mut RunRow) -> Result<()> {
        run.body = self.text()?;
        Ok(())
    }

    /// The smallest groups that the read-back found, and a note of those that are too small all the same.
    pub(super) fn note_groups(&mut self, groups: Vec<(String, String, u64, u64)>) {
        for (store, collection, rows, k) in groups {
            if rows < k {
                let note = format!(
                    "{store}.{collection}: a group of {rows} anonymised rows is left, and {k} are wanted; rows were removed or changed meanwhile"
                );
                self.notes.push(note);
            }
            self.smallest_groups.push(SmallestGroup { store, collection, rows });
        }
    }
}

/// For counts that older records do not have.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(count: &i64) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_none(count: &u64) -> bool {
    *count == 0
}
