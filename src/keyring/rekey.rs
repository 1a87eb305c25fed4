//! The re-key: one generation change that destroys keys for good. Every step is named, durable and resumable.
//!
//! 1. The intent is noted.
//! 2. The new root is made in the slot.
//! 3. The new nodes are laid beside the old ones (`staging.rs`).
//! 4. The new generation is sealed into the second place, read back and checked there.
//! 5. Crown, pins and burials are committed in one transaction.
//! 6. What they concern is reloaded from disk and checked (`check.rs`): every node on the paths of victims and pins, survivors.
//! 7. The old root is destroyed.
//! 8. That is read back. A slot that destroys only at a date has its roots noted as doomed instead (`doomed.rs`).
//! 9. The evidence is stored; the old crown and what only it reached is forgotten.
//!
//! A crash before 4 leaves the old generation in force, and the unused root is destroyed. A crash after 4 leads forward, unless
//! something came in between that forbids it (a hold, a key that the copy lacks): then the copy is noise as soon as the unused
//! root is destroyed. A crash after 5 is finished forwards from 6. The old root is never destroyed before 6 succeeded.
//!
//! Every writing transaction requires the caller's fencing token, so a process that lost the lease can commit nothing. An
//! unused root is destroyed only inside a transaction that holds the write lock and has that token: nobody can be about to
//! commit a crown under it.

use chrono::{DateTime, TimeDelta, Utc};

use super::check::{self, Expected, collectable, compare_change, compare_since, refuse_new_damage};
use super::staging::{self, Change};
use super::{Keyring, KeyringError, Result, doomed, node_number};
use crate::clock::Clock;
use crate::control::{ABANDONED, CellRow, Control, DyingKeys, PinRow, Tx};
use crate::crash_point;
use crate::keys::rekey::{RecoveryAction, RekeyIntent, RekeyStep, recover as plan_recovery};
use crate::keys::slot::{Presence, RootEvidence, SlotError};
use crate::keys::tree::{KeyTree, NodeId};

/// A finished shred.
#[derive(Debug, Clone)]
pub struct Shredded {
    /// The new generation; the one before it is gone.
    pub generation: i64,
    /// When the old root was read back as gone, or, where the slot destroys later, its destruction begun.
    pub at: DateTime<Utc>,
}

/// The lease under which keys are destroyed. Losing it stops everything before the next commit.
#[derive(Debug, Clone, Copy)]
pub struct Fence<'f> {
    /// The lease's name.
    pub lease: &'f str,
    /// Its fencing token.
    pub token: i64,
    /// How long it lasts when it is renewed.
    pub lasts: TimeDelta,
}

impl Fence<'_> {
    /// Requires the lease inside a writing transaction, and renews it.
    pub(super) async fn require(&self, tx: &mut Tx, now: DateTime<Utc>) -> Result<()> {
        Ok(tx.extend_lease(self.lease, self.token, now, now + self.lasts).await?)
    }
}

/// What a shred is to do.
#[derive(Debug, Clone, Copy)]
pub struct ShredOrder<'o> {
    /// The lease of the caller.
    pub fence: Fence<'o>,
    /// The keys that die.
    pub dying: &'o DyingKeys,
    /// Cells, which have no filled pin yet, that survive under their pins.
    pub preserved: &'o [(PinRow, CellRow)],
    /// Ids of the active holds that the caller has looked at. Any other stops the shred, up to its commit.
    pub holds: &'o [String],
}

/// Whether the roots that are destroyed belong to a generation change, or came back later.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doomed {
    ByRekey,
    Stray,
}

/// Destroys the keys of an order and lets its preserved cells survive under their pins, in one generation change.
///
/// # Errors
/// [`KeyringError::Unsettled`] while an earlier change is open, [`KeyringError::Held`] when a hold came, lost leases. At any
/// failure the state is one that [`recover`] finishes or undoes; what was not committed is undone at once if possible.
pub async fn shred(
    keyring: &Keyring,
    control: &Control,
    order: &ShredOrder<'_>,
    clock: &dyn Clock,
) -> Result<Shredded> {
    // Looked at before anything is begun: without it the change could not be finished.
    keyring.second_place()?;
    let generation = note_intent(control, order, clock.now()).await?;
    let next = generation + 1;
    crash_point::reached("rekey.intended");
    let (old, expected) = match change_generation(keyring, control, order, generation, clock).await {
        Ok(changed) => changed,
        Err(error) => {
            // Whatever cannot be undone now is undone by the next recovery; the first error is the one to report.
            let _ = abandon(keyring, control, &order.fence, generation, clock).await;
            return Err(error);
        }
    };
    crash_point::reached("rekey.committed");

    let mut tx = control.begin().await?;
    order.fence.require(&mut tx, clock.now()).await?;
    let changed = expected.changed()?;
    let new = keyring.open_changed(&mut tx, &changed, &expected.concerned()?).await?;
    if new.generation() != next {
        return Err(KeyringError::Overtaken("another generation is in force"));
    }
    compare_change(&old, &new, &expected)?;
    let unreachable = old.nodes_on(&changed)?;
    tx.note_rekey(next, RekeyStep::DestroyOldSlot.code(), clock.now()).await?;
    tx.commit().await?;
    drop((old, new));
    crash_point::reached("rekey.reloaded");
    let doomed = Doom { roots: &[generation], why: Doomed::ByRekey, unreachable };
    finish(keyring, control, &order.fence, next, doomed, clock).await
}

/// Step 1. Returns the generation in force.
async fn note_intent(control: &Control, order: &ShredOrder<'_>, now: DateTime<Utc>) -> Result<i64> {
    let mut tx = control.begin().await?;
    order.fence.require(&mut tx, now).await?;
    if let Some((open, _)) = tx.open_rekey().await? {
        return Err(KeyringError::Unsettled(open));
    }
    refuse_new_holds(&mut tx, order.holds).await?;
    let (generation, _) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
    tx.note_rekey(generation + 1, RekeyStep::CreateSlot.code(), now).await?;
    tx.commit().await?;
    Ok(generation)
}

/// How often new nodes are made again because keys were added while they were copied.
const STAGE_TRIES: u32 = 4;

/// Steps 2 to 5. Returns the generation before and what the new one is checked for.
async fn change_generation(
    keyring: &Keyring,
    control: &Control,
    order: &ShredOrder<'_>,
    generation: i64,
    clock: &dyn Clock,
) -> Result<(KeyTree, Expected)> {
    let next = generation + 1;
    let root = keyring.slot.create(next, keyring.random.as_ref()).await?;
    crash_point::reached("rekey.root-created");
    let change = Change { keyring, control, fence: &order.fence, generation, root: &root, clock };
    change.keep_lease().await?;
    for _ in 0..STAGE_TRIES {
        let (old, expected, staged) = staging::stage(&change, order).await?;
        crash_point::reached("rekey.staged");
        staging::copy_to_second_place(&change, &staged, &old, &expected).await?;
        crash_point::reached("rekey.copied");
        if staging::put_in_force(&change, &staged).await? {
            return Ok((old, expected));
        }
    }
    Err(KeyringError::Overtaken("keys were added while the new generation was copied"))
}

/// Refuses holds that the caller has not looked at, and the hold on all destruction.
pub(super) async fn refuse_new_holds(tx: &mut Tx, known: &[String]) -> Result<()> {
    if tx.meta("agent_hold").await?.is_some() {
        return Err(KeyringError::Held("the hold on all destruction".to_owned()));
    }
    match tx.holds(true).await?.into_iter().find(|hold| !known.contains(&hold.id)) {
        Some(hold) => Err(KeyringError::Held(format!("hold {}", hold.id))),
        None => Ok(()),
    }
}

/// Gives up the change behind `generation` unless it was committed: marks it, destroys the unused root, ends it.
async fn abandon(
    keyring: &Keyring,
    control: &Control,
    fence: &Fence<'_>,
    generation: i64,
    clock: &dyn Clock,
) -> Result<()> {
    let next = generation + 1;
    let mut tx = control.begin().await?;
    let in_force = tx.tree_root().await?.is_some_and(|(found, _)| found == generation);
    if !in_force {
        return Ok(());
    }
    match tx.open_rekey().await? {
        Some((to, _)) if to == next => {
            fence.require(&mut tx, clock.now()).await?;
            tx.note_rekey(next, ABANDONED, clock.now()).await?;
            tx.commit().await?;
        }
        Some(_) => return Ok(()),
        None => {
            // Somebody undid it before this process made its root. No intent is open and this transaction keeps any from
            // beginning, so no crown can rest on that root.
            keyring.slot.destroy(next).await?;
            return Ok(());
        }
    }
    destroy_unused(keyring, control, fence, next, clock).await
}

/// Destroys the root of a change that is marked as given up, and ends it. The write lock is held meanwhile.
async fn destroy_unused(
    keyring: &Keyring,
    control: &Control,
    fence: &Fence<'_>,
    next: i64,
    clock: &dyn Clock,
) -> Result<()> {
    let mut tx = control.begin().await?;
    fence.require(&mut tx, clock.now()).await?;
    let marked = tx.open_rekey().await? == Some((next, ABANDONED.to_owned()));
    let in_force = tx.tree_root().await?.is_some_and(|(found, _)| found + 1 == next);
    if !(marked && in_force) {
        return Err(KeyringError::Overtaken("the records changed while a root was to be destroyed"));
    }
    keyring.slot.destroy(next).await?;
    tx.end_rekey(next, ABANDONED, "[]", clock.now()).await?;
    staging::forget(&mut tx).await?;
    tx.drop_tree_nodes_of(next).await?;
    tx.commit().await?;
    // Should the newest state record be of the generation that was given up, nothing opens it any more.
    if let Err(error) = keyring.replace_record_of(control, next, clock).await {
        tracing::warn!(error = %error, "the state could not be sealed again after a generation change was given up");
    }
    Ok(())
}

/// What a generation change leaves to be destroyed.
struct Doom<'d> {
    roots: &'d [i64],
    why: Doomed,
    /// Nodes that the generation in force does not reach: those that the change replaced, or, behind a crash, all that a walk over
    /// the whole tree did not find. Insertions meanwhile make none of them reachable: those write nodes that are reached, or new
    /// ones.
    unreachable: Vec<NodeId>,
}

/// Destroys old roots, reads back, stores the evidence and collects what no crown reaches any more.
async fn finish(
    keyring: &Keyring,
    control: &Control,
    fence: &Fence<'_>,
    generation: i64,
    doom: Doom<'_>,
    clock: &dyn Clock,
) -> Result<Shredded> {
    if doom.roots.iter().any(|doomed| *doomed >= generation) {
        return Err(KeyringError::Contradiction("the root in force would be destroyed".to_owned()));
    }
    // The tree of the generation before may still be cached, with keys that are about to be gone.
    keyring.forget().await;
    let (mut evidence, mut delayed) = (Vec::new(), Vec::new());
    for root in doom.roots {
        let destroyed = keyring.slot.destroy(*root).await?;
        crash_point::reached("rekey.root-destroyed");
        if destroyed.irrevocable_at.is_some() {
            delayed.push(destroyed);
            continue;
        }
        let gone = keyring.slot.verify_gone(*root).await?;
        let found = serde_json::to_value(RootEvidence::new(destroyed, gone));
        evidence.push((*root, found.unwrap_or_default()));
    }
    // Only now are they gone: this, and not the beginning, is the time that a certificate may state. Those of a slot that destroys
    // later are noted as doomed, and have a time of their own.
    let at = clock.now();
    let mut tx = control.begin().await?;
    fence.require(&mut tx, at).await?;
    let unreachable: Vec<_> = doom.unreachable.iter().map(|id| node_number(*id)).collect();
    tx.drop_tree_nodes(&unreachable).await?;
    tx.drop_crowns_before(generation).await?;
    for destroyed in &delayed {
        doomed::doom(&mut tx, destroyed, at).await?;
    }
    match doom.why {
        Doomed::ByRekey => {
            let all: Vec<_> = evidence.into_iter().map(|(_, found)| found).collect();
            let text = serde_json::Value::from(all).to_string();
            tx.end_rekey(generation, RekeyStep::CollectOldNodes.code(), &text, at).await?;
        }
        Doomed::Stray => {
            for (doomed, found) in evidence {
                tx.add_stray_root(doomed, &found.to_string(), at).await?;
            }
        }
    }
    tx.commit().await?;
    crash_point::reached("rekey.evidence-stored");
    Ok(Shredded { generation, at })
}

/// Finishes or undoes a generation change that was interrupted, by a crash or by a failure in this very process, and
/// destroys old roots that came back. `None` when no key was destroyed by a generation change.
///
/// # Errors
/// When slot and control database do not belong together, or the new generation fails its check: nothing is touched then.
pub async fn recover(
    keyring: &Keyring,
    control: &Control,
    fence: &Fence<'_>,
    clock: &dyn Clock,
) -> Result<Option<Shredded>> {
    let mut tx = control.begin().await?;
    fence.require(&mut tx, clock.now()).await?;
    let open = tx.open_rekey().await?;
    let (committed, _) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
    tx.commit().await?;
    let intent = open.map(|(to, step)| intent_of(to, &step)).transpose()?;
    let present = keyring.slot.list().await?;
    let usable: Vec<i64> =
        present.iter().filter(|root| root.presence == Presence::Usable).map(|root| root.generation).collect();
    match plan_recovery(&usable, committed, intent) {
        RecoveryAction::Nothing => Ok(None),
        RecoveryAction::DestroyUnusedSlot { .. } => {
            abandon(keyring, control, fence, committed, clock).await?;
            Ok(None)
        }
        RecoveryAction::FinishFrom { step: RekeyStep::CopyToSecondPlace, destroy } => {
            if keyring.second_place().is_err() {
                tracing::warn!("a generation change waits for the second place");
                return Ok(None);
            }
            if let Err(error) = roll_forward(keyring, control, fence, committed, clock).await {
                if !error.forbids_change() {
                    return Err(error);
                }
                tracing::warn!(error = %error, "an interrupted generation change is given up");
                abandon(keyring, control, fence, committed, clock).await?;
                return Ok(None);
            }
            let unreachable = check_committed(keyring, control, fence, committed + 1, &usable, clock).await?;
            let doom = Doom { roots: &destroy, why: Doomed::ByRekey, unreachable };
            finish(keyring, control, fence, committed + 1, doom, clock).await.map(Some)
        }
        RecoveryAction::FinishFrom { destroy, .. } => {
            let unreachable = check_committed(keyring, control, fence, committed, &usable, clock).await?;
            let why = if intent.is_some() { Doomed::ByRekey } else { Doomed::Stray };
            let doom = Doom { roots: &destroy, why, unreachable };
            let done = finish(keyring, control, fence, committed, doom, clock).await?;
            Ok((why == Doomed::ByRekey).then_some(done))
        }
        RecoveryAction::RefuseMissingRoot { generation } => {
            // A slot that knows more says why it has none.
            let known = keyring.slot.open(generation).await.err();
            let missing = || SlotError::Missing { generation, place: "configured under [root]".to_owned() };
            Err(KeyringError::Slot(known.unwrap_or_else(missing)))
        }
        RecoveryAction::RefuseUnknownRoot { generation } => {
            Err(KeyringError::RolledBack { database: committed, slot: generation })
        }
        RecoveryAction::RefuseContradiction(what) => Err(KeyringError::Contradiction(format!("{what:?}"))),
    }
}

/// Steps 4 and 5 of a change that was interrupted between them or before: what was staged is copied again and put in force.
async fn roll_forward(
    keyring: &Keyring,
    control: &Control,
    fence: &Fence<'_>,
    generation: i64,
    clock: &dyn Clock,
) -> Result<()> {
    let root = keyring.slot.open(generation + 1).await?;
    let change = Change { keyring, control, fence, generation, root: &root, clock };
    let (old, expected, staged) = staging::resume(&change).await?;
    staging::copy_to_second_place(&change, &staged, &old, &expected).await?;
    if staging::put_in_force(&change, &staged).await? {
        return Ok(());
    }
    Err(KeyringError::Overtaken("keys were added since the new generation was made"))
}

fn intent_of(to: i64, step: &str) -> Result<RekeyIntent> {
    // What was given up is as if it had only been intended: its root, if there, is unused.
    let begun = if step == ABANDONED { Some(RekeyStep::RecordIntent) } else { RekeyStep::from_code(step) };
    let begun = begun.ok_or_else(|| KeyringError::Contradiction(format!("unknown step {step}")))?;
    Ok(RekeyIntent { from: to - 1, to, begun })
}

/// Repeats the check of a committed generation: against the one before as long as it can be opened. Once no old root is
/// left there is nothing to be kept by refusing. Returns the nodes that it does not reach.
async fn check_committed(
    keyring: &Keyring,
    control: &Control,
    fence: &Fence<'_>,
    committed: i64,
    usable: &[i64],
    clock: &dyn Clock,
) -> Result<Vec<NodeId>> {
    let mut tx = control.begin().await?;
    fence.require(&mut tx, clock.now()).await?;
    let new = keyring.open_tree(&mut tx).await?;
    if new.generation() != committed {
        return Err(KeyringError::Overtaken("another generation is in force"));
    }
    let former = keyring.open_former(&mut tx, committed - 1).await?;
    if let Some(old) = &former {
        let expected = check::expected(&mut tx, old).await?;
        compare_since(old, &new, &expected)?;
    }
    let survey = new.survey();
    if usable.iter().any(|generation| *generation < committed) {
        refuse_new_damage(former.as_ref(), &survey)?;
    }
    tx.commit().await?;
    Ok(collectable(survey))
}
