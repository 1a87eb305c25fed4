//! `prune`: chains of snapshots that the configuration does not keep lose their key; then their objects are not needed any more.
//!
//! 1. What goes is decided from the control database alone (`policy::keep`, with what needs a chain beside the rules: `needs.rs`). Chains of
//!    which a copy lies on a lost medium go whatever the rules say (`tasks::media`).
//! 2. The newest chain of every store concerned is read back as a whole: no older one goes before the newest is proven.
//! 3. The chains are marked, if the decision is still the same, in one transaction.
//! 4. The ordinary shred destroys their keys. It looks again before each try: a chain that something needs meanwhile is spared.
//! 5. Their keys are read back as gone. Rows of erasures that lay in no other chain are shredded with that.
//! 6. Their objects are named as unneeded, or removed (`objects.rs`), never before.
//!
//! A crash anywhere is finished by the next shred (up to 5) and the next prune. Manifests stay: they name nobody, and the hash chain
//! stays whole.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::backup::codec::Sha256;
use crate::control::{PrunedChain, SnapshotRow, Tx};
use crate::crash_point;
use crate::installation::{Installation, LEASE_SECONDS, WORK_LEASE};
use crate::keys::tree::Subtree;
use crate::policy::keep::{ChainFacts, Keep, Stays, judge};

use super::media::{condemned, needs_of_condemned};
use super::shred::{ShredReport, read_barrier, shred_due};
use super::{Result, TaskError};

mod needs;
mod objects;

pub use objects::unneeded_objects;

/// A chain, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainVerdict {
    /// The store.
    pub store: String,
    /// The chain's slot.
    pub chain: u32,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<SnapshotRow>,
    /// Why it stays; empty when it goes.
    pub stays: BTreeSet<Stays>,
    /// Until when Object Lock keeps its objects, by the configuration; the server may know better.
    pub locked_until: Option<DateTime<Utc>>,
}

impl ChainVerdict {
    /// Whether it goes.
    #[must_use]
    pub fn goes(&self) -> bool {
        self.stays.is_empty()
    }

    /// Bytes stored.
    #[must_use]
    pub fn bytes(&self) -> i64 {
        self.snapshots.iter().map(|row| row.bytes).sum()
    }
}

/// What a prune would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunePlan {
    /// Every chain, by store, oldest first.
    pub chains: Vec<ChainVerdict>,
    /// Chains that went before and whose objects may still be there.
    pub left: Vec<PrunedChain>,
    /// Chains that were marked and of which it is not noted yet that their key died.
    pub waiting: Vec<PrunedChain>,
    /// A digest of what goes, hex.
    pub hash: String,
    /// Whether only chains were judged of which a copy is lost.
    pub only_condemned: bool,
}

impl PrunePlan {
    /// Whether there is nothing to do, now or of before.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.going().next().is_none() && self.left.is_empty() && self.waiting.is_empty()
    }

    /// The chains that go.
    pub fn going(&self) -> impl Iterator<Item = &ChainVerdict> {
        self.chains.iter().filter(|chain| chain.goes())
    }
}

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// Chains whose key was destroyed now and read back as gone.
    pub destroyed: Vec<PrunedChain>,
    /// Chains that are marked, whose key dies with a later shred.
    pub waiting: Vec<PrunedChain>,
    /// Stores of which no chain went, because their newest one could not be proven, and why.
    pub unproven: Vec<(String, String)>,
    /// Objects removed and read back as gone.
    pub objects_removed: u64,
    /// Chains of which not every object is gone, and why.
    pub left: Vec<(PrunedChain, String)>,
    /// What the shred did.
    pub shred: ShredReport,
}

impl PruneReport {
    /// Whether nothing went wrong. What waits for a date is not wrong.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.unproven.is_empty() && self.left.iter().all(|(chain, _)| chain.locked_until.is_some())
    }
}

/// Decides what goes now, of some stores or (empty) of all.
///
/// # Errors
/// When the control database fails.
pub async fn plan_prune(installation: &Installation, stores: &[String]) -> Result<PrunePlan> {
    let mut tx = installation.control.read().await?;
    plan_in(installation, &mut tx, stores, false).await
}

/// The same, of nothing but chains of which a copy lies on a lost medium.
///
/// # Errors
/// When the control database fails.
pub async fn plan_condemned(installation: &Installation) -> Result<PrunePlan> {
    let mut tx = installation.control.read().await?;
    plan_in(installation, &mut tx, &[], true).await
}

async fn plan_in(
    installation: &Installation,
    tx: &mut Tx,
    stores: &[String],
    only_condemned: bool,
) -> Result<PrunePlan> {
    let now = installation.clock.now();
    let backup = installation.config.backup.as_ref();
    let keep = backup.map_or_else(Keep::default, |backup| backup.keep);
    let lock = backup.and_then(|backup| backup.lock).map(|lock| TimeDelta::days(i64::from(lock.days.get())));
    let mut chains = by_chain(tx.snapshots(None).await?);
    chains.retain(|chain| stores.is_empty() || stores.contains(&chain.store));
    for chain in &mut chains {
        // One that is about to die is not judged again.
        let is_active = tx.chain_state(chain.chain).await?.as_deref() == Some("active");
        let newest = chain.snapshots.iter().filter_map(|row| row.committed_at).max();
        chain.locked_until = lock.zip(newest).map(|(lasts, at)| at + lasts).filter(|until| *until > now);
        if !is_active {
            chain.snapshots.clear();
        }
    }
    chains.retain(|chain| !chain.snapshots.is_empty());
    let needed = needs::needs(installation, tx, &chains).await?;
    for (chain, needed) in chains.iter_mut().zip(needed) {
        chain.stays = needed;
    }
    for of_store in chains.chunk_by_mut(|one, next| one.store == next.store) {
        let facts = |chain: &ChainVerdict| ChainFacts {
            begun: chain.snapshots.iter().map(|row| row.begun_at).collect(),
            needs: chain.stays.clone(),
        };
        let facts: Vec<ChainFacts> = of_store.iter().map(facts).collect();
        let zone = installation.config.agent.timezone;
        for (chain, stays) in of_store.iter_mut().zip(judge(&facts, &keep, zone, now)) {
            chain.stays = stays;
        }
        // By number too: a clock that once stood wrong must not make an older snapshot the newest.
        if let Some(last) = of_store.iter_mut().max_by_key(|chain| chain.snapshots.last().map(|row| row.number)) {
            last.stays.insert(Stays::Newest);
        }
    }
    let condemned = condemned(tx).await?;
    for chain in chains.iter_mut().filter(|chain| condemned.contains(&chain.chain)) {
        needs_of_condemned(&mut chain.stays);
    }
    if only_condemned {
        chains.retain(|chain| condemned.contains(&chain.chain));
    }
    let asked_for = |chain: &PrunedChain| stores.is_empty() || stores.contains(&chain.store);
    let left = tx.pruned_chains(Some("destroyed")).await?.into_iter().filter(asked_for).collect();
    let waiting = tx.pruned_chains(Some("marked")).await?.into_iter().filter(asked_for).collect();
    let hash = hash_of(&chains);
    Ok(PrunePlan { chains, left, waiting, hash, only_condemned })
}

/// The committed snapshots by chain, chains by store and age.
fn by_chain(rows: Vec<SnapshotRow>) -> Vec<ChainVerdict> {
    let mut chains: Vec<ChainVerdict> = Vec::new();
    for row in rows {
        match chains.iter_mut().find(|chain| chain.chain == row.chain) {
            Some(chain) => chain.snapshots.push(row),
            None => chains.push(ChainVerdict {
                store: row.store.clone(),
                chain: row.chain,
                snapshots: vec![row],
                stays: BTreeSet::new(),
                locked_until: None,
            }),
        }
    }
    chains.sort_by(|a, b| (&a.store, a.snapshots[0].number).cmp(&(&b.store, b.snapshots[0].number)));
    chains
}

/// Of the snapshots that go, by id: what stays does not change the hash, so a new snapshot does not void a plan.
fn hash_of(chains: &[ChainVerdict]) -> String {
    let ids: Vec<&str> = chains
        .iter()
        .filter(|chain| chain.goes())
        .flat_map(|chain| chain.snapshots.iter().map(|row| row.id.as_str()))
        .collect();
    Sha256::of(ids.join("\n").as_bytes()).to_string()
}

/// Destroys the keys of the chains that go, and names or removes what is left of them and of earlier ones.
///
/// # Errors
/// Refused when destruction is held or the clock is doubtful, and when the decision is another one by now; otherwise what failed.
pub async fn prune(installation: &Installation, stores: &[String], plan: &PrunePlan) -> Result<PruneReport> {
    installation.may_destroy().await?;
    let mut report = PruneReport::default();
    let marked = mark(installation, stores, plan, &mut report).await?;
    crash_point::reached("prune.marked");
    let waiting = installation.control.read().await?.pruned_chains(Some("marked")).await?;
    if !waiting.is_empty() {
        report.shred = shred_due(installation).await?;
    }
    settle(installation, &mut report).await?;
    if marked > 0 {
        let outcome = if report.waiting.is_empty() { "success" } else { "failure" };
        installation.log_operation("backup.prune", &format!("chains-{}", report.destroyed.len()), outcome).await?;
    }
    objects::remove(installation, &mut report).await?;
    Ok(report)
}

/// Steps 2 and 3. Returns how many chains were marked.
async fn mark(
    installation: &Installation,
    stores: &[String],
    plan: &PrunePlan,
    report: &mut PruneReport,
) -> Result<usize> {
    if plan.going().next().is_none() {
        return Ok(0);
    }
    let mut refused = BTreeSet::new();
    for store in plan.going().map(|chain| &chain.store).collect::<BTreeSet<_>>() {
        if let Err(why) = prove_newest(installation, store).await? {
            report.unproven.push((store.clone(), why));
            refused.insert(store.clone());
        }
    }
    let count = plan.going().filter(|chain| !refused.contains(&chain.store)).count();
    if count == 0 {
        return Ok(0);
    }
    installation.log_operation("backup.prune", &format!("chains-{count}"), "intent").await?;
    let now = installation.clock.now();
    let mut tx = installation.control.begin().await?;
    tx.extend_lease(WORK_LEASE, installation.token, now, now + TimeDelta::seconds(LEASE_SECONDS)).await?;
    // Under the write lock: nobody can begin to need a chain between this look and the mark.
    let current = plan_in(installation, &mut tx, stores, plan.only_condemned).await?;
    if current.hash != plan.hash {
        return Err(TaskError::refused(
            "what would go is not what was decided on: a snapshot, a hold or the configuration changed",
            "look at `wangchuan backup prune` again",
        ));
    }
    for chain in current.going().filter(|chain| !refused.contains(&chain.store)) {
        let marked = PrunedChain {
            chain: chain.chain,
            store: chain.store.clone(),
            state: "marked".to_owned(),
            marked_at: now,
            snapshots: chain.snapshots.len() as i64,
            bytes: chain.bytes(),
            generation: None,
            destroyed_at: None,
            locked_until: chain.locked_until,
            removed_at: None,
        };
        if !tx.mark_chain_pruned(&marked).await? {
            return Err(TaskError::Inconsistent("a chain that was to go is not in use".to_owned()));
        }
    }
    tx.commit().await?;
    Ok(count)
}

/// Opens every frame of the newest snapshot of a store, and of what it continues; why not, when that does not succeed.
async fn prove_newest(installation: &Installation, store: &str) -> Result<Result<(), String>> {
    Ok(match read_barrier(installation, &installation.ground()?, store).await? {
        Some(barrier) => barrier.opened.map(|_| ()),
        None => Err(format!("store {store} has no snapshot")),
    })
}

/// Takes the mark from chains that something needs by now. Called by the shred right before it reads which keys die.
///
/// # Errors
/// When the control database fails.
pub(super) async fn spare_needed(installation: &Installation) -> Result<()> {
    if installation.control.read().await?.pruned_chains(Some("marked")).await?.is_empty() {
        return Ok(());
    }
    let mut tx = installation.control.begin().await?;
    let marked = tx.pruned_chains(Some("marked")).await?;
    let chains: Vec<ChainVerdict> = by_chain(tx.snapshots(None).await?);
    let needed = needs::needs(installation, &mut tx, &chains).await?;
    let condemned = condemned(&mut tx).await?;
    let mut spared = 0;
    for (chain, mut needed) in chains.iter().zip(needed) {
        if condemned.contains(&chain.chain) {
            needs_of_condemned(&mut needed);
        }
        let of_store = chains.iter().filter(|other| other.store == chain.store);
        let newest = of_store.max_by_key(|other| other.snapshots.last().map(|row| row.number));
        let is_newest = newest.is_some_and(|newest| newest.chain == chain.chain);
        if marked.iter().any(|mark| mark.chain == chain.chain) && (is_newest || !needed.is_empty()) {
            tx.spare_chain(chain.chain).await?;
            spared += 1;
        }
    }
    if spared > 0 {
        tx.commit().await?;
        tracing::warn!(chains = spared, "chains that were to be pruned are needed again and stay");
    }
    Ok(())
}

/// Step 5: reads back which keys are gone.
async fn settle(installation: &Installation, report: &mut PruneReport) -> Result<()> {
    let mut tx = installation.control.begin().await?;
    if tx.open_rekey().await?.is_some() {
        return Err(TaskError::Inconsistent(
            "a generation change is not finished yet, so nothing may be called destroyed".to_owned(),
        ));
    }
    let (generation, _) = tx.tree_root().await?.ok_or(crate::keyring::KeyringError::NoTree)?;
    for mut chain in tx.pruned_chains(Some("marked")).await? {
        if tx.chain_state(chain.chain).await?.as_deref() != Some("destroyed") {
            report.waiting.push(chain);
            continue;
        }
        if installation.keyring.key(&mut tx, Subtree::Chains, chain.chain).await?.is_some() {
            return Err(TaskError::Inconsistent("a chain is recorded as destroyed, but its key is there".to_owned()));
        }
        "destroyed".clone_into(&mut chain.state);
        chain.generation = Some(generation);
        chain.destroyed_at = Some(installation.clock.now());
        tx.set_pruned_chain(&chain).await?;
        report.destroyed.push(chain);
    }
    tx.commit().await?;
    crash_point::reached("prune.destroyed");
    Ok(())
}
