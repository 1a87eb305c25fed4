//! The re-key: one generation change that destroys keys for good. Every step is named, durable and resumable.
//!
//! 1. intent noted; 2. the new root made in the slot; 3. new nodes, crown, pins and burials committed in one transaction;
//! 4. reloaded from disk and checked on survivors and victims; 5. the old root destroyed; 6. read back; 7. evidence stored.
//! A crash before 3 leaves the old generation in force, and the unused root is destroyed; a crash after 3 is finished
//! forwards from 4. The old root is never destroyed before 4 succeeded.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Keyring, KeyringError, Result, cell_secret_in, node_number};
use crate::control::{CellRow, Control, DyingKeys, PinRow};
use crate::crash_point;
use crate::keys::rekey::{RecoveryAction, RekeyIntent, RekeyStep, recover as plan_recovery};
use crate::keys::slot::{DestroyEvidence, GoneEvidence, Presence, SlotClaim, SlotError};
use crate::keys::tree::{KeyTree, KeyTreeError, Slot, Subtree, check_reload};

/// Survivors that are opened in the reloaded generation before the old root is destroyed.
const CANARIES: usize = 64;

/// A finished shred.
#[derive(Debug, Clone)]
pub struct Shredded {
    /// The new generation; the one before it is gone.
    pub generation: i64,
    /// When the old root was read back as gone.
    pub at: DateTime<Utc>,
}

#[derive(Serialize)]
struct Evidence<'a> {
    destroyed: &'a DestroyEvidence,
    gone: &'a GoneEvidence,
    claim: &'a SlotClaim,
}

/// Destroys `dying` and lets `preserved` cells, which have no filled pin yet, survive under their pins, in one generation
/// change.
///
/// # Errors
/// At any failure the state is one that [`recover`] finishes or undoes.
pub async fn shred(
    keyring: &Keyring,
    control: &Control,
    dying: &DyingKeys,
    preserved: &[(PinRow, CellRow)],
    now: DateTime<Utc>,
) -> Result<Shredded> {
    let mut tx = control.begin().await?;
    let (generation, _) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
    let next = generation + 1;
    tx.note_rekey(next, RekeyStep::CreateSlot.code(), now).await?;
    tx.commit().await?;
    crash_point::reached("rekey.intended");

    let root = keyring.slot.create(next, keyring.random.as_ref()).await?;
    crash_point::reached("rekey.root-created");

    let mut tx = control.begin().await?;
    let victims = slots_of(dying)?;
    // Opened inside the writing transaction: nobody can insert a key between this reading and the commit.
    let old = keyring.open_tree(&mut tx).await?;
    let mut pinned = Vec::new();
    for (pin, cell) in preserved {
        let secret = cell_secret_in(&old, cell)?
            .ok_or_else(|| KeyringError::Lost("a cell that must be preserved".to_owned()))?;
        pinned.push((Slot::new(Subtree::Pins, pin.slot)?, secret.to_pin()));
    }
    let sealed = old.rekey(&victims, &pinned, &root, keyring.random.as_ref())?;
    tx.put_tree_root(next, &sealed.crown, now).await?;
    keyring.store_nodes(&mut tx, &sealed.nodes).await?;
    for (pin, cell) in preserved {
        tx.set_cell_pin(cell.id, pin.slot).await?;
    }
    tx.bury(dying).await?;
    let survivors = canaries(&old, dying, preserved)?;
    tx.note_rekey(next, RekeyStep::CommitCrown.code(), now).await?;
    tx.commit().await?;
    crash_point::reached("rekey.committed");

    let mut tx = control.begin().await?;
    let new = keyring.open_tree(&mut tx).await?;
    check_reload(&old, &new, &victims, &survivors)?;
    tx.note_rekey(next, RekeyStep::DestroyOldSlot.code(), now).await?;
    tx.commit().await?;
    drop(old);
    crash_point::reached("rekey.reloaded");
    finish(keyring, control, next, &[generation], now).await
}

/// Destroys old roots, reads back, stores the evidence and collects what no crown reaches any more.
async fn finish(
    keyring: &Keyring,
    control: &Control,
    generation: i64,
    old: &[i64],
    now: DateTime<Utc>,
) -> Result<Shredded> {
    let claim = keyring.slot.claim();
    let mut evidence = Vec::new();
    for doomed in old {
        let destroyed = keyring.slot.destroy(*doomed).await?;
        crash_point::reached("rekey.root-destroyed");
        let gone = keyring.slot.verify_gone(*doomed).await?;
        evidence.push(
            serde_json::to_value(Evidence { destroyed: &destroyed, gone: &gone, claim: &claim }).unwrap_or_default(),
        );
    }
    let mut tx = control.begin().await?;
    let orphans: Vec<_> =
        keyring.open_tree(&mut tx).await?.survey().orphans.iter().map(|id| node_number(*id)).collect();
    tx.drop_tree_nodes(&orphans).await?;
    tx.end_rekey(generation, RekeyStep::CollectOldNodes.code(), &serde_json::Value::from(evidence).to_string(), now)
        .await?;
    tx.commit().await?;
    crash_point::reached("rekey.evidence-stored");
    Ok(Shredded { generation, at: now })
}

/// Finishes or undoes a generation change that a crash interrupted, and destroys old roots that came back.
///
/// # Errors
/// When slot and control database do not belong together: nothing is touched then.
pub async fn recover(keyring: &Keyring, control: &Control, now: DateTime<Utc>) -> Result<Option<Shredded>> {
    let mut tx = control.read().await?;
    let open = tx.open_rekey().await?;
    let (committed, _) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
    drop(tx);
    let intent = match &open {
        Some((to, step)) => {
            let begun = RekeyStep::from_code(step)
                .ok_or_else(|| KeyringError::Contradiction(format!("unknown step {step}")))?;
            Some(RekeyIntent { from: to - 1, to: *to, begun })
        }
        None => None,
    };
    let present = keyring.slot.list().await?;
    let usable: Vec<i64> =
        present.iter().filter(|root| root.presence == Presence::Usable).map(|root| root.generation).collect();
    match plan_recovery(&usable, committed, intent) {
        RecoveryAction::Nothing => Ok(None),
        RecoveryAction::DestroyUnusedSlot { generation } => {
            keyring.slot.destroy(generation).await?;
            let mut tx = control.begin().await?;
            tx.end_rekey(generation, "abandoned", "[]", now).await?;
            tx.commit().await?;
            Ok(None)
        }
        RecoveryAction::FinishFrom { destroy, .. } => {
            let mut tx = control.begin().await?;
            let survey = keyring.open_tree(&mut tx).await?.survey();
            drop(tx);
            if let Some(id) = survey.missing.first().or(survey.corrupt.first()) {
                return Err(KeyringError::Tree(KeyTreeError::Missing { node: *id }));
            }
            finish(keyring, control, committed, &destroy, now).await.map(Some)
        }
        RecoveryAction::RefuseMissingRoot { generation } => {
            Err(KeyringError::Slot(SlotError::Missing { generation, place: "configured under [root]".to_owned() }))
        }
        RecoveryAction::RefuseUnknownRoot { generation } => {
            Err(KeyringError::RolledBack { database: committed, slot: generation })
        }
        RecoveryAction::RefuseContradiction(what) => Err(KeyringError::Contradiction(format!("{what:?}"))),
    }
}

fn slots_of(dying: &DyingKeys) -> Result<Vec<Slot>> {
    let mut slots = Vec::with_capacity(dying.count());
    for (subtree, numbers) in [
        (Subtree::Subjects, &dying.subjects),
        (Subtree::Buckets, &dying.buckets),
        (Subtree::Pins, &dying.pins),
        (Subtree::Chains, &dying.chains),
        (Subtree::Work, &dying.work),
    ] {
        for number in numbers {
            slots.push(Slot::new(subtree, *number)?);
        }
    }
    Ok(slots)
}

/// Slots that must read the same in both generations: the buckets and subjects of preserved cells that do not die.
fn canaries(old: &KeyTree, dying: &DyingKeys, preserved: &[(PinRow, CellRow)]) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for (_, cell) in preserved.iter().take(CANARIES) {
        if !dying.buckets.contains(&cell.bucket) {
            slots.push(Slot::new(Subtree::Buckets, cell.bucket)?);
        }
        if let Some(subject) = cell.subject.filter(|subject| !dying.subjects.contains(subject)) {
            slots.push(Slot::new(Subtree::Subjects, subject)?);
        }
    }
    let mut present = Vec::new();
    for slot in slots {
        if old.key(slot)?.is_some() {
            present.push(slot);
        }
    }
    present.sort_unstable_by_key(|slot| (slot.subtree().number(), slot.number()));
    present.dedup();
    Ok(present)
}
