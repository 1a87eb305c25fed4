//! What must be so before a plan is carried out, and before an interrupted one goes on.

use crate::control::{ChunkRow, LedgerKind, PlanRow};
use crate::erase::Ground;
use crate::erase::batch::RunKeys;
use crate::erase::planner::is_intact;
use crate::installation::Installation;
use crate::plan::PlanBody;
use crate::plan::graph::Untie;
use crate::policy::registry::BackupMode;
use crate::stores::Trigger;

use super::super::approval::check_agreement;
use super::super::orders::open_run;
use super::super::{Result, TaskError};

/// Everything that must hold before a plan becomes a run. Returns the plan's chunks, found to be what its hash was made of.
pub(super) async fn check_all(installation: &Installation, plan: &PlanRow, body: &PlanBody) -> Result<Vec<ChunkRow>> {
    let stored = installation.control.read().await?.plan(&plan.id).await?;
    let state = stored.map_or_else(|| "gone".to_owned(), |stored| stored.state);
    if state != "planned" {
        return Err(TaskError::refused(
            format!("plan {} is {state} already", &plan.hash[..12]),
            "make a new one with `wangchuan plan`",
        ));
    }
    installation.may_destroy().await?;
    check_no_snapshot(installation).await?;
    check_alone(installation, plan).await?;
    check_unchanged(installation, plan, body).await?;
    check_backups(installation).await?;
    check_agreement(installation, plan, body).await?;
    let ground = installation.ground()?;
    let keys = RunKeys::open(&ground, &plan.id).await?;
    let chunks = installation.control.read().await?.chunks(&plan.id).await?;
    if !is_intact(plan, body, &chunks, &keys)? {
        return Err(TaskError::refused(
            format!("what is stored of plan {} is not what its hash was made of", &plan.hash[..12]),
            "somebody changed the control database; make a new plan with `wangchuan plan`",
        ));
    }
    check_triggers(&ground, &chunks)?;
    Ok(chunks)
}

/// A retention that waits on its way has rows which the plan of another would have too: neither could be undone then.
async fn check_alone(installation: &Installation, plan: &PlanRow) -> Result<()> {
    if plan.kind != "retention" {
        return Ok(());
    }
    match open_run(installation, "retention").await? {
        None => Ok(()),
        Some(run) => Err(TaskError::refused(
            format!("retention run {run} is not finished; its rows would be erased twice"),
            format!("`wangchuan run resume {run}` goes on with it, `wangchuan run stop {run}` ends it where it is"),
        )),
    }
}

/// A trigger may keep or copy what is deleted, so one that nobody declared harmless stops everything before the first batch.
fn check_triggers(ground: &Ground<'_>, chunks: &[ChunkRow]) -> Result<()> {
    for chunk in chunks.iter().filter(|chunk| chunk.is_work()) {
        let Some(site) = ground.site(&chunk.store) else { continue };
        let Some((_, collection)) = site.model.collection(&chunk.collection) else { continue };
        // Rows in a circle may have references emptied before they go.
        let is_emptied = chunk.knot.is_some()
            && site.model.collections.iter().flat_map(|parent| &parent.children).any(|child| {
                child.table == chunk.collection && child.registered.is_some() && child.untie == Untie::Empty
            });
        let is_updated = LedgerKind::of_verdict(&chunk.verdict) != LedgerKind::Erased || is_emptied;
        let fires = |trigger: &&Trigger| trigger.on_delete || is_updated;
        let unknown = |trigger: &&Trigger| !collection.spec.triggers.contains(&trigger.name);
        if let Some(trigger) = collection.table.triggers.iter().filter(fires).find(unknown) {
            let event = if trigger.on_delete { "DELETE" } else { "UPDATE" };
            return Err(TaskError::refused(
                format!(
                    "store {}: trigger {} fires on {event} of {} and may keep or copy rows; nothing was erased",
                    chunk.store, trigger.name, chunk.collection
                ),
                "read the trigger; if it is harmless, list its name under `triggers` of the collection",
            ));
        }
    }
    Ok(())
}

/// Why the rest of a store's chunks must not be done: what decided about them is not in force any more.
pub(super) fn withheld(ground: &Ground<'_>, body: &PlanBody, store: &str) -> Option<String> {
    if body.policy_digest != ground.policy_digest {
        return Some("policy changed: the policies or the registry are not those of the plan".to_owned());
    }
    let planned = body.schema_digest.iter().find(|(name, _)| name == store).map(|(_, digest)| digest);
    let site = ground.site(store)?;
    (planned != Some(&site.model.schema_digest))
        .then(|| format!("schema changed: that of store {store} is not that of the plan"))
}

/// A changed policy, schema or released hold voids a plan.
async fn check_unchanged(installation: &Installation, plan: &PlanRow, body: &PlanBody) -> Result<()> {
    let changed = changes_since(installation, body).await?;
    if changed.is_empty() {
        return Ok(());
    }
    let mut tx = installation.control.begin().await?;
    tx.set_plan_state(&plan.id, "void").await?;
    tx.commit().await?;
    Err(TaskError::refused(
        format!("since plan {} was made, {}; it is void", &plan.hash[..12], changed.join(" and ")),
        "make and look at a new one with `wangchuan plan`",
    ))
}

/// What changed since a plan was made so that it is void, as phrases; none when it still stands.
///
/// # Errors
/// When the control database fails.
pub async fn changes_since(installation: &Installation, body: &PlanBody) -> Result<Vec<String>> {
    let ground = installation.ground()?;
    let mut changed = Vec::new();
    if body.policy_digest != ground.policy_digest {
        changed.push("the policies or the registry changed".to_owned());
    }
    for (store, digest) in &body.schema_digest {
        match ground.site(store) {
            Some(site) if site.model.schema_digest == *digest => {}
            Some(_) => changed.push(format!("the schema of store {store} changed")),
            None => changed.push(format!("store {store} is not reachable now")),
        }
    }
    let holds = installation.control.read().await?.holds(true).await?;
    if body.holds.iter().any(|hold| holds.iter().all(|active| active.id != *hold)) {
        changed.push("a hold was released".to_owned());
    }
    Ok(changed)
}

/// A snapshot that began before an erasure still sees the erased rows: it must not seal them under keys that outlive it.
pub(super) async fn check_no_snapshot(installation: &Installation) -> Result<()> {
    if installation.control.read().await?.running_snapshots().await? == 0 {
        return Ok(());
    }
    Err(TaskError::refused("a snapshot is being taken; nothing is erased meanwhile", "try again when it is done"))
}

/// A store that is to be backed up must have a good snapshot before anything is destroyed in it.
async fn check_backups(installation: &Installation) -> Result<()> {
    let mut tx = installation.control.read().await?;
    for spec in &installation.config.registry.stores {
        if spec.backup == BackupMode::Bucket && tx.snapshots(Some(&spec.name)).await?.is_empty() {
            return Err(TaskError::refused(
                format!("store {} has no snapshot yet; nothing is destroyed before one is good", spec.name),
                "run `wangchuan backup run` first, or set `backup = \"none\"` for the store and declare its copies",
            ));
        }
    }
    Ok(())
}
