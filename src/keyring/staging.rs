//! The middle of a generation change: the new nodes are made and laid beside the old ones, copied to the second place, and put
//! in force. What is staged is remembered, so that a start after a crash can go on from there.

use serde::{Deserialize, Serialize};

use super::check::{Expected, canaries, compare_change, retain_held};
use super::rekey::{Fence, ShredOrder, refuse_new_holds};
use super::{Keyring, KeyringError, Result, TREE_TOKEN, cell_secret_in, node_number};
use crate::clock::Clock;
use crate::control::{Control, DyingKeys, Tx};
use crate::keys::rekey::RekeyStep;
use crate::keys::slot::SlotError;
use crate::keys::tree::{KeyTree, Slot, Subtree};
use crate::keys::{Generation, Key};

/// `meta`: the change that is staged.
const STAGED: &str = "rekey_staged";

/// A change under way.
pub(super) struct Change<'c> {
    pub(super) keyring: &'c Keyring,
    pub(super) control: &'c Control,
    pub(super) fence: &'c Fence<'c>,
    /// The generation in force.
    pub(super) generation: Generation,
    /// The root of the one after it.
    pub(super) root: &'c Key,
    pub(super) clock: &'c dyn Clock,
}

impl Change<'_> {
    fn next(&self) -> Generation {
        self.generation + 1
    }

    /// Begins a writing transaction under the lease.
    async fn begin(&self) -> Result<Tx> {
        let mut tx = self.control.begin().await?;
        self.fence.require(&mut tx, self.clock.now()).await?;
        Ok(tx)
    }

    pub(super) async fn keep_lease(&self) -> Result<()> {
        Ok(self.begin().await?.commit().await?)
    }

    /// Whether nobody has undone, or overtaken, this change: the crown must be sealed by a root that the slot really keeps.
    async fn still_ours(&self, tx: &mut Tx, steps: &[RekeyStep]) -> Result<()> {
        if tx.tree_root().await?.map(|(generation, _)| generation) != Some(self.generation) {
            return Err(KeyringError::Overtaken("another generation is in force"));
        }
        let noted = tx.open_rekey().await?;
        if !noted.is_some_and(|(to, code)| to == self.next() && steps.iter().any(|step| step.code() == code)) {
            return Err(KeyringError::Overtaken("the intent was taken back"));
        }
        match self.keyring.slot.open(self.next()).await {
            Ok(kept) if kept.is_same(self.root) => Ok(()),
            Ok(_) | Err(SlotError::Missing { .. }) => {
                Err(KeyringError::Overtaken("the new root is not the one made here"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What is staged: numbers and a sealed crown, nothing that identifies anybody.
#[derive(Serialize, Deserialize)]
pub(super) struct Staged {
    /// The mark of the tree that the new nodes were made from; any key that came since has another.
    token: String,
    /// The mark that it gets.
    next_token: String,
    crown: String,
    subjects: Vec<u32>,
    buckets: Vec<u32>,
    chains: Vec<u32>,
    work: Vec<u32>,
    pins: Vec<u32>,
    /// Pin slots and the cells that survive under them.
    preserved: Vec<(u32, i64)>,
    /// Holds that were looked at.
    holds: Vec<String>,
}

impl Staged {
    fn dying(&self) -> DyingKeys {
        DyingKeys {
            pins: self.pins.clone(),
            subjects: self.subjects.clone(),
            buckets: self.buckets.clone(),
            chains: self.chains.clone(),
            work: self.work.clone(),
        }
    }

    fn crown(&self) -> Result<Vec<u8>> {
        hex::decode(&self.crown).map_err(|_| damaged())
    }
}

fn damaged() -> KeyringError {
    KeyringError::Contradiction("the staged generation change is damaged".to_owned())
}

/// Makes the new nodes from the tree in force and lays them beside it. Returns the generation in force and what the new one is
/// to be checked for.
pub(super) async fn stage(change: &Change<'_>, order: &ShredOrder<'_>) -> Result<(KeyTree, Expected, Staged)> {
    let keyring = change.keyring;
    let mut tx = change.begin().await?;
    change.still_ours(&mut tx, &[RekeyStep::CreateSlot, RekeyStep::CopyToSecondPlace]).await?;
    let victims = slots_of(order.dying)?;
    let pins = order.preserved.iter().map(|(pin, cell)| (pin.slot, *cell)).collect();
    let (old, expected) = concerned(&mut tx, change, Expected { victims, survivors: Vec::new(), pins }).await?;
    refuse_new_holds(&mut tx, order.holds).await?;
    let mut pinned = Vec::new();
    for (pin, cell) in &expected.pins {
        let secret = cell_secret_in(&old, cell)?
            .ok_or_else(|| KeyringError::Lost("a cell that must be preserved".to_owned()))?;
        pinned.push((Slot::new(Subtree::Pins, *pin)?, secret.to_pin()));
    }
    let sealed = old.rekey(&expected.victims, &pinned, change.root, keyring.random.as_ref())?;
    let token = keyring.store_nodes(&mut tx, &sealed.nodes).await?;
    let mut next_token = [0; 16];
    keyring.random.fill(&mut next_token)?;
    let staged = Staged {
        token,
        next_token: hex::encode(next_token),
        crown: hex::encode(&sealed.crown),
        subjects: order.dying.subjects.clone(),
        buckets: order.dying.buckets.clone(),
        chains: order.dying.chains.clone(),
        work: order.dying.work.clone(),
        pins: order.dying.pins.clone(),
        preserved: order.preserved.iter().map(|(pin, cell)| (pin.slot, cell.id)).collect(),
        holds: order.holds.to_vec(),
    };
    tx.set_meta(STAGED, &serde_json::to_string(&staged).map_err(|_| damaged())?).await?;
    tx.note_rekey(change.next(), RekeyStep::CopyToSecondPlace.code(), change.clock.now()).await?;
    tx.commit().await?;
    Ok((old, expected, staged))
}

/// Opens what a change concerns of the tree in force, inside the writing transaction, so that nobody can insert a key between
/// this reading and the commit; and chooses the survivors that it is checked on.
async fn concerned(tx: &mut Tx, change: &Change<'_>, mut expected: Expected) -> Result<(KeyTree, Expected)> {
    expected.survivors = canaries(tx, change.generation, &expected.victims).await?;
    let old = change.keyring.open_paths(tx, &expected.concerned()?).await?;
    retain_held(&old, &mut expected.survivors);
    Ok((old, expected))
}

/// Reads what an interrupted process had staged.
pub(super) async fn resume(change: &Change<'_>) -> Result<(KeyTree, Expected, Staged)> {
    let mut tx = change.begin().await?;
    change.still_ours(&mut tx, &[RekeyStep::CopyToSecondPlace]).await?;
    let text = tx.meta(STAGED).await?.ok_or(KeyringError::Overtaken("nothing is staged"))?;
    let staged: Staged = serde_json::from_str(&text).map_err(|_| damaged())?;
    refuse_new_holds(&mut tx, &staged.holds).await?;
    if tx.meta(TREE_TOKEN).await?.as_deref() != Some(staged.token.as_str()) {
        return Err(KeyringError::Overtaken("keys were added since the new generation was made"));
    }
    let mut pins = Vec::new();
    for (pin, cell) in &staged.preserved {
        let cell = tx.cell_by_id(*cell).await?.ok_or(KeyringError::Overtaken("a cell to be preserved is gone"))?;
        pins.push((*pin, cell));
    }
    let victims = slots_of(&staged.dying())?;
    let (old, expected) = concerned(&mut tx, change, Expected { victims, survivors: Vec::new(), pins }).await?;
    tx.commit().await?;
    Ok((old, expected, staged))
}

/// Enters the new generation: crown, pins, burials. Refused when a chain that it lacks was taken back since it was staged: a
/// snapshot goes on in it. Whoever takes one back does so in a writing transaction like this one, and so comes before or behind it.
async fn enter(tx: &mut Tx, change: &Change<'_>, staged: &Staged) -> Result<()> {
    if !tx.chains_are_dying(&staged.chains).await? {
        return Err(KeyringError::Overtaken("a chain that was to die is in use again"));
    }
    let now = change.clock.now();
    tx.put_tree_root(change.next(), &staged.crown()?, now).await?;
    tx.set_meta(TREE_TOKEN, &staged.next_token).await?;
    for (pin, cell) in &staged.preserved {
        tx.set_cell_pin(*cell, *pin).await?;
    }
    tx.bury(&staged.dying(), change.next()).await?;
    tx.note_rekey(change.next(), RekeyStep::CommitCrown.code(), now).await?;
    forget(tx).await
}

/// Seals the state as it will be under the new generation into the second place, reads it back, and checks the tree in it like
/// a reloaded one. Nothing is in force here yet. Without a second place it does nothing.
pub(super) async fn copy_to_second_place(
    change: &Change<'_>,
    staged: &Staged,
    old: &KeyTree,
    expected: &Expected,
) -> Result<()> {
    let keyring = change.keyring;
    let Some(place) = keyring.second_place()? else { return Ok(()) };
    let mut tx = change.begin().await?;
    enter(&mut tx, change, staged).await?;
    // The copy holds the new generation's tree and nothing of the old one's.
    let unreachable: Vec<_> = old.nodes_on(&expected.changed()?)?.into_iter().map(node_number).collect();
    tx.drop_tree_nodes(&unreachable).await?;
    tx.drop_crowns_before(change.next()).await?;
    let next = (change.next(), change.root);
    let (record, pieces) = keyring.seal_generation(place, change.control, tx, next, change.clock.now()).await?;
    let concerned = expected.concerned()?;
    let copied = keyring.tree_of_record(place, (&record, &pieces), change.root, &concerned).await?;
    compare_change(old, &copied, expected)
}

/// Puts what is staged in force. False when keys were added meanwhile, which the new nodes lack.
pub(super) async fn put_in_force(change: &Change<'_>, staged: &Staged) -> Result<bool> {
    let mut tx = change.begin().await?;
    change.still_ours(&mut tx, &[RekeyStep::CopyToSecondPlace]).await?;
    refuse_new_holds(&mut tx, &staged.holds).await?;
    if tx.meta(TREE_TOKEN).await?.as_deref() != Some(staged.token.as_str()) {
        return Ok(false);
    }
    enter(&mut tx, change, staged).await?;
    tx.commit().await?;
    Ok(true)
}

/// Forgets what is staged.
pub(super) async fn forget(tx: &mut Tx) -> Result<()> {
    Ok(tx.clear_meta(STAGED).await?)
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
