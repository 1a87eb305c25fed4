//! A medium with copies of backups was lost or stolen: what it opens, and, on somebody's word, the end of the keys that open it.
//!
//! A copy of packs opens with the keys of its chains, and those with the root that is in force. So the chains that could lie on the
//! medium are condemned: each store gets a full snapshot first, which takes the place of the newest chain, and then their keys die with
//! the ordinary prune, whatever `keep` says. What a hold, grace, a pin, an open run or a reader needs stays, is named, and goes by a
//! later prune once nothing needs it. A declared copy on the medium is another matter: no key of ours closes it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{CopyName, MediaBody, Medium, check_medium, is_same, places};
use crate::control::{MediaRow, Tx, time_text};
use crate::crash_point;
use crate::installation::{Installation, Operation};
use crate::policy::keep::Stays;
use crate::random::uuid7;
use crate::tasks::approval::operator_name;
use crate::tasks::backup::Wanted;
use crate::tasks::locks::take_and_lock;
use crate::tasks::prune::{PruneReport, plan_condemned, prune};
use crate::tasks::{Result, TaskError};

/// The event of a medium that was lost.
pub const LOST: &str = "lost";
/// The state of a lost medium for which keys are to die.
pub const SHREDDING: &str = "shredding";
/// The state of a lost medium of which nothing opens any more.
pub const SETTLED: &str = "settled";

/// What is known of a loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Who reported it.
    pub reported_by: String,
    /// The chains that could lie on it.
    pub chains: Vec<LostChain>,
}

/// A chain that could lie on a lost medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostChain {
    /// The store.
    pub store: String,
    /// Its slot.
    pub chain: u32,
    /// Those of its snapshots that were there when the medium was lost.
    pub snapshots: Vec<String>,
}

/// What is reported of a loss.
#[derive(Debug, Clone)]
pub struct LossReport {
    /// The medium.
    pub medium: Medium,
    /// Stores of which backups lay on it.
    pub stores: Vec<String>,
    /// Declared copies that lay on it, as `STORE/COPY`.
    pub copies: Vec<String>,
    /// When it was lost at the earliest.
    pub from: DateTime<Utc>,
    /// When it was lost at the latest, but not later than now: what was stored behind that cannot lie on it.
    pub until: DateTime<Utc>,
    /// Who reports it.
    pub reported_by: String,
    /// Whether the keys of what lies on it are to die.
    pub shred: bool,
}

/// Records a loss. Reported again, the same record is gone on with; `shred` then adds what was only reported before.
///
/// # Errors
/// Refused when it cannot be so, names a store or copy that is not configured, says more than a record of the same medium, or while a
/// snapshot of a store is running; or when log or control database fail.
pub async fn record_lost(installation: &Installation, report: LossReport) -> Result<MediaRow> {
    installation.refuse_old_copy().await?;
    let now = installation.clock.now();
    if report.from > now {
        return Err(TaskError::refused("the time of the loss is still to come", "give `--when` in the past"));
    }
    check_medium(&report.medium)?;
    let (of_stores, copies) = places(installation, &report.stores, &report.copies)?;
    let reported_by = operator_name(&report.reported_by)?;
    let at = report.until.min(now);
    let known = known_loss(&mut installation.control.read().await?, &report.medium).await?;
    if let Some(known) = known {
        return go_on(installation, known, &report, (&of_stores, &copies)).await;
    }
    let mut body = MediaBody { medium: report.medium, stores: of_stores, copies, destruction: None, loss: None };
    let mut row = MediaRow {
        id: uuid7(now, installation.random.as_ref())?,
        number: 0,
        event: LOST.to_owned(),
        state: if report.shred { SHREDDING } else { "recorded" }.to_owned(),
        happened_at: at,
        recorded_at: now,
        body: String::new(),
        certified: None,
    };
    log(installation, &row, "intent").await?;
    let mut tx = installation.control.begin().await?;
    forget_unfinished(&mut tx, &report.stores).await?;
    let chains = chains_until(&mut tx, &report.stores, at).await?;
    if chains.is_empty() {
        "recorded".clone_into(&mut row.state);
    }
    body.loss = Some(Loss { reported_by, chains });
    row.body = body.text()?;
    row.number = tx.add_medium(&row).await?;
    tx.commit().await?;
    crash_point::reached("media.recorded");
    log(installation, &row, "success").await?;
    Ok(row)
}

/// Sees to it that no packs of a snapshot that is not committed, which could lie on the medium too, become part of a later one: their
/// chain would live on. Left alone, it dies with the next change of keys.
async fn forget_unfinished(tx: &mut Tx, stores: &[String]) -> Result<()> {
    if let Some(running) = tx.running_snapshot_rows().await?.iter().find(|row| stores.contains(&row.store)) {
        return Err(TaskError::refused(
            format!("a snapshot of store {} is running, and its packs could lie on the medium", running.store),
            "repeat when it has ended; what a crash left of one ends with the next `wangchuan backup run`",
        ));
    }
    for store in stores {
        tx.forget_tries(store, None).await?;
    }
    Ok(())
}

async fn known_loss(tx: &mut Tx, medium: &Medium) -> Result<Option<MediaRow>> {
    for row in tx.media().await?.into_iter().filter(|row| row.event == LOST) {
        if is_same(&MediaBody::of(&row)?.medium, medium) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// What a second report says beyond the record of the first, for people; none when it says no more.
async fn news(
    tx: &mut Tx,
    known: &MediaRow,
    report: &LossReport,
    (stores, copies): (&[String], &[CopyName]),
) -> Result<Option<String>> {
    let body = MediaBody::of(known)?;
    if report.from > known.happened_at {
        return Ok(Some(format!("it was lost by {}", time_text(known.happened_at))));
    }
    if let Some(store) = stores.iter().find(|store| !body.stores.contains(store)) {
        return Ok(Some(format!("it names no store {store}")));
    }
    if let Some(copy) = copies.iter().find(|copy| !body.copies.contains(copy)) {
        return Ok(Some(format!("it names no copy {copy}")));
    }
    // A store can be named for a copy of it alone.
    let listed: BTreeSet<u32> = body.loss.iter().flat_map(|loss| &loss.chains).map(|chain| chain.chain).collect();
    let chains = chains_until(tx, &report.stores, report.until.min(known.happened_at)).await?;
    let other = chains.iter().find(|chain| !listed.contains(&chain.chain));
    Ok(other.map(|chain| format!("it names no backups of store {}", chain.store)))
}

async fn go_on(
    installation: &Installation,
    known: MediaRow,
    report: &LossReport,
    places: (&[String], &[CopyName]),
) -> Result<MediaRow> {
    if let Some(known_as) = news(&mut installation.control.read().await?, &known, report, places).await? {
        return Err(TaskError::refused(
            format!("record {} says otherwise of this medium: {known_as}", known.id),
            "repeat what was reported (`wangchuan media show`); report what is new under another `--asset`",
        ));
    }
    let has_chains = MediaBody::of(&known)?.loss.is_some_and(|loss| !loss.chains.is_empty());
    if !report.shred || !has_chains || known.state != "recorded" {
        return Ok(known);
    }
    let condemned = MediaRow { state: SHREDDING.to_owned(), ..known.clone() };
    log(installation, &condemned, "intent").await?;
    let mut tx = installation.control.begin().await?;
    forget_unfinished(&mut tx, &report.stores).await?;
    if !tx.step_medium(&condemned, &known).await? {
        return Err(TaskError::Inconsistent(format!("the record of medium {} changed meanwhile", known.id)));
    }
    tx.commit().await?;
    log(installation, &condemned, "success").await?;
    Ok(condemned)
}

async fn log(installation: &Installation, row: &MediaRow, outcome: &str) -> Result<()> {
    let references = vec![("state".to_owned(), row.state.clone())];
    let operation = Operation { name: "media.lost", object: &row.id, outcome, references, ..Operation::default() };
    installation.log(operation).await
}

/// The chains of some stores with snapshots that were there at a time, and whose keys were not destroyed since.
async fn chains_until(tx: &mut Tx, stores: &[String], at: DateTime<Utc>) -> Result<Vec<LostChain>> {
    let mut chains: Vec<LostChain> = Vec::new();
    for store in stores.iter().collect::<BTreeSet<_>>() {
        let starts = tx.chain_starts(store).await?;
        for row in tx.snapshots(Some(store)).await? {
            // A snapshot's packs lie in the bucket before it is committed, and the first of a chain may have taken over an earlier try's.
            let was_begun = starts.get(&row.chain).is_some_and(|start| *start <= at);
            match chains.iter_mut().find(|known| known.chain == row.chain) {
                Some(known) if row.begun_at <= at => known.snapshots.push(row.id),
                None if was_begun => {
                    chains.push(LostChain { store: row.store, chain: row.chain, snapshots: vec![row.id] });
                }
                _ => {}
            }
        }
    }
    Ok(chains)
}

/// The chains whose keys are to die because a medium with a copy of them is lost.
///
/// # Errors
/// When the control database fails.
pub async fn condemned(tx: &mut Tx) -> Result<BTreeSet<u32>> {
    let mut chains = BTreeSet::new();
    for row in tx.media().await?.iter().filter(|row| row.event == LOST && row.state == SHREDDING) {
        chains.extend(MediaBody::of(row)?.loss.iter().flat_map(|loss| &loss.chains).map(|chain| chain.chain));
    }
    Ok(chains)
}

/// What needs a condemned chain all the same: the rules do not count, nor that a drill proved it, for a newer one is read back whole.
pub fn needs_of_condemned(stays: &mut BTreeSet<Stays>) {
    use Stays::{Grace, Hold, InUse, Newest, OpenRun, Pin};
    stays.retain(|why| matches!(why, Newest | Hold | Pin | Grace | OpenRun | InUse));
}

/// What became of a chain on a lost medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The chain.
    pub chain: LostChain,
    /// Whether its key was destroyed, and with it every root that opened it, for good: nothing opens it any more, within the limits of the
    /// root slot's class.
    pub is_dead: bool,
    /// Whether it is marked, so that its key dies with the next change of keys.
    pub is_marked: bool,
    /// Until when a root can be called back that opens it, though its own key is destroyed.
    pub until: Option<DateTime<Utc>>,
    /// Why it stays, as a prune sees it now.
    pub stays: BTreeSet<Stays>,
}

/// How the chains on a lost medium stand.
///
/// # Errors
/// When the control database fails.
pub async fn exposed(installation: &Installation, row: &MediaRow) -> Result<Vec<Exposed>> {
    let plan = plan_condemned(installation).await?;
    let mut found = chains_of(&mut installation.control.read().await?, row).await?;
    for chain in &mut found {
        let verdict = plan.chains.iter().find(|verdict| verdict.chain == chain.chain.chain);
        chain.stays = verdict.map(|verdict| verdict.stays.clone()).unwrap_or_default();
    }
    Ok(found)
}

/// The same from the control database alone, without what keeps them.
///
/// # Errors
/// When the control database fails, or the record is damaged.
pub async fn chains_of(tx: &mut Tx, row: &MediaRow) -> Result<Vec<Exposed>> {
    let Some(loss) = MediaBody::of(row)?.loss else { return Ok(Vec::new()) };
    let pruned = tx.pruned_chains(None).await?;
    let mut found = Vec::new();
    for chain in loss.chains {
        let own = pruned.iter().find(|pruned| pruned.chain == chain.chain);
        let died_with = own.and_then(|pruned| pruned.generation);
        // An earlier root may wait for its date, and can be called back until then.
        let until = match died_with {
            Some(generation) => tx.irrevocable_before(generation).await?,
            None => None,
        };
        let (is_dead, is_marked) = (died_with.is_some() && until.is_none(), own.is_some() && died_with.is_none());
        found.push(Exposed { chain, is_dead, is_marked, until, stays: BTreeSet::new() });
    }
    Ok(found)
}

/// Destroys the keys of what lies on lost media: a full snapshot of each store whose newest chain is condemned, then the prune of all
/// that are. Returns the snapshots by number, and what the prune did.
///
/// # Errors
/// Refused when destruction is held or the clock is doubtful; otherwise the first that failed, when all that could be done is. The next
/// prune goes on.
pub async fn shred_lost(installation: &Installation) -> Result<(Vec<String>, PruneReport)> {
    installation.may_destroy().await?;
    let mut tx = installation.control.read().await?;
    let condemned = condemned(&mut tx).await?;
    let rows = tx.snapshots(None).await?;
    drop(tx);
    let stores: BTreeSet<&str> =
        rows.iter().filter(|row| condemned.contains(&row.chain)).map(|row| row.store.as_str()).collect();
    let (mut taken, mut failed) = (Vec::new(), None);
    for store in stores {
        let newest = rows.iter().filter(|row| row.store == store).max_by_key(|row| row.number);
        if newest.is_some_and(|newest| condemned.contains(&newest.chain)) {
            match take_and_lock(installation, store, Wanted::Full).await {
                Ok((row, _)) => taken.push(row.id),
                Err(TaskError::Stopping) => return Err(TaskError::Stopping),
                // One store that cannot be read keeps none of the others' keys alive.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    let plan = plan_condemned(installation).await?;
    let report = prune(installation, &[], &plan).await;
    match failed {
        Some(error) => Err(error),
        None => Ok((taken, report?)),
    }
}
