//! The protocol of a shred: its steps in order, and what a start after a crash has to do.
//!
//! Everything hangs on two rules. The old root is destroyed only after the new generation was committed, copied to the second place and
//! read back. And once the new generation is committed, nothing ever falls back to the old one.
//!
//! The driver records a step as begun, durably, before it does any of it. A step may be done again: each is idempotent. After a
//! crash the driver asks [`recover`], does what it says, and asks again until there is nothing left to do.

#[cfg(test)]
mod tests;

use super::Generation;

/// The steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RekeyStep {
    /// The intent (both generations, the slots to shred and to put, all sealed) is written to the control database.
    /// Crash: the intent is dropped, the shred starts over.
    RecordIntent,
    /// The slot makes and keeps the new generation's root key.
    /// Crash: that root was never used; it is destroyed.
    CreateSlot,
    /// The new nodes and the new crown are written beside the old ones, which stay in force. What lies there under the same ids comes
    /// from an attempt that was given up, and is overwritten.
    /// Crash: as before; the new nodes are dropped.
    WriteNodes,
    /// Nodes and crown go to the second place. From here on the second place may be ahead, so a crash leads forward.
    /// Crash: copied again from what `WriteNodes` stored, if the slot still has the new root.
    CopyToSecondPlace,
    /// One transaction: the generation is still the old one, every replaced node still bears the mark it was read with, no hold
    /// has come; then the new crown is in force. If a mark differs, the attempt is given up as after a crash in `WriteNodes`.
    /// Crash: the transaction says which crown is in force; forward in both cases.
    CommitCrown,
    /// The tree is loaded afresh, where there is one from a replica: shredded slots are empty, survivors yield the same keys.
    /// A fault here stops everything before the old root is touched; a person must look.
    /// Crash: done again.
    VerifyReload,
    /// All readers drop keys and nodes of the old generation, and say so, or their leases run out.
    /// Crash: done again.
    FenceReaders,
    /// The slot destroys the old root. From here on the shredded keys are gone.
    /// Crash: checked from `VerifyReload` on, then destroyed again.
    DestroyOldSlot,
    /// It is read back that the old root is gone; a delayed destruction waits here for its irrevocable date.
    /// Crash: read back again.
    VerifyGone,
    /// What was done and read back is written down and signed.
    /// Crash: read back again first, since the evidence may not have been stored.
    RecordEvidence,
    /// Nodes that only old generations needed are deleted, then the intent is closed.
    /// Crash: deleted again.
    CollectOldNodes,
}

impl RekeyStep {
    /// All steps, in order.
    pub const ALL: [Self; 11] = [
        Self::RecordIntent,
        Self::CreateSlot,
        Self::WriteNodes,
        Self::CopyToSecondPlace,
        Self::CommitCrown,
        Self::VerifyReload,
        Self::FenceReaders,
        Self::DestroyOldSlot,
        Self::VerifyGone,
        Self::RecordEvidence,
        Self::CollectOldNodes,
    ];

    /// The name under which the control database stores it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::RecordIntent => "record-intent",
            Self::CreateSlot => "create-slot",
            Self::WriteNodes => "write-nodes",
            Self::CopyToSecondPlace => "copy-to-second-place",
            Self::CommitCrown => "commit-crown",
            Self::VerifyReload => "verify-reload",
            Self::FenceReaders => "fence-readers",
            Self::DestroyOldSlot => "destroy-old-slot",
            Self::VerifyGone => "verify-gone",
            Self::RecordEvidence => "record-evidence",
            Self::CollectOldNodes => "collect-old-nodes",
        }
    }

    /// The step with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.code() == code)
    }

    /// This step and those behind it, in order: what a driver does from here.
    pub fn onwards(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().skip_while(move |step| *step < self)
    }
}

/// A shred under way, as the control database recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyIntent {
    /// The generation that was in force; 0 when the tree is being made.
    pub from: Generation,
    /// The generation after it.
    pub to: Generation,
    /// The last step that was recorded as begun.
    pub begun: RekeyStep,
}

/// Records that contradict each other, as codes from a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// The intent is not about the generation in force or the one after it.
    IntentOfAnotherGeneration,
    /// The intent says that a step behind the commit was begun, and the old generation is still in force.
    BeyondAnAbsentCommit,
    /// The new generation is in force, and the intent says that its commit was not begun.
    CommittedTooEarly,
}

/// What to do at a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryAction {
    /// All is as it should be.
    Nothing,
    /// The shred is given up: destroy this generation in the slot if it is there, drop its nodes and crown, close the intent.
    DestroyUnusedSlot {
        /// The generation that never came into force.
        generation: Generation,
    },
    /// Go on with this step and all behind it.
    FinishFrom {
        /// The first step to do.
        step: RekeyStep,
        /// The generations to destroy and to read back as gone, ascending. One without an intent came back from a copy: report it.
        destroy: Vec<Generation>,
    },
    /// The slot lacks the root of the generation in force. Start nothing; a person must find the right slot.
    RefuseMissingRoot {
        /// The generation.
        generation: Generation,
    },
    /// The slot holds a root newer than anything this control database knows: the database is an old copy. Start nothing,
    /// destroy nothing: that root may be the only way to every customer's data.
    RefuseUnknownRoot {
        /// The generation.
        generation: Generation,
    },
    /// The control database contradicts itself.
    RefuseContradiction(Contradiction),
}

/// Decides what a start has to do. `usable` are the generations whose roots the slot can open, `committed` is the generation in force
/// (0 before the first), `intent` a shred that was not closed.
#[must_use]
pub fn recover(usable: &[Generation], committed: Generation, intent: Option<RekeyIntent>) -> RecoveryAction {
    if let Some(contradiction) = intent.and_then(|intent| contradiction(committed, intent)) {
        return RecoveryAction::RefuseContradiction(contradiction);
    }
    let newest_known = intent.map_or(committed, |intent| intent.to);
    if let Some(generation) = usable.iter().copied().filter(|generation| *generation > newest_known).max() {
        return RecoveryAction::RefuseUnknownRoot { generation };
    }
    if committed > 0 && !usable.contains(&committed) {
        return RecoveryAction::RefuseMissingRoot { generation: committed };
    }
    let mut stale: Vec<Generation> = usable.iter().copied().filter(|generation| *generation < committed).collect();
    stale.sort_unstable();
    stale.dedup();
    match intent {
        None if stale.is_empty() => RecoveryAction::Nothing,
        None => RecoveryAction::FinishFrom { step: RekeyStep::VerifyReload, destroy: stale },
        Some(intent) if committed == intent.from => recover_before_commit(usable, stale, intent),
        Some(intent) => recover_after_commit(stale, intent),
    }
}

fn contradiction(committed: Generation, intent: RekeyIntent) -> Option<Contradiction> {
    let follows = intent.from >= 0 && intent.from.checked_add(1) == Some(intent.to);
    if !follows || (committed != intent.from && committed != intent.to) {
        return Some(Contradiction::IntentOfAnotherGeneration);
    }
    if committed == intent.from && intent.begun > RekeyStep::CommitCrown {
        return Some(Contradiction::BeyondAnAbsentCommit);
    }
    (committed == intent.to && intent.begun < RekeyStep::CommitCrown).then_some(Contradiction::CommittedTooEarly)
}

fn recover_before_commit(usable: &[Generation], stale: Vec<Generation>, intent: RekeyIntent) -> RecoveryAction {
    // Without the new root the new crown is worthless, however far it was copied; the old one is whole.
    if intent.begun < RekeyStep::CopyToSecondPlace || !usable.contains(&intent.to) {
        return RecoveryAction::DestroyUnusedSlot { generation: intent.to };
    }
    RecoveryAction::FinishFrom { step: RekeyStep::CopyToSecondPlace, destroy: with_old(stale, intent) }
}

fn recover_after_commit(stale: Vec<Generation>, intent: RekeyIntent) -> RecoveryAction {
    let step = match intent.begun {
        // An old root that is there after its destruction has come back, or was never gone.
        _ if !stale.is_empty() => RekeyStep::VerifyReload,
        RekeyStep::VerifyGone | RekeyStep::RecordEvidence => RekeyStep::VerifyGone,
        RekeyStep::CollectOldNodes => RekeyStep::CollectOldNodes,
        _ => RekeyStep::VerifyReload,
    };
    RecoveryAction::FinishFrom { step, destroy: with_old(stale, intent) }
}

fn with_old(mut stale: Vec<Generation>, intent: RekeyIntent) -> Vec<Generation> {
    if intent.from > 0 && !stale.contains(&intent.from) {
        stale.push(intent.from);
    }
    stale
}
