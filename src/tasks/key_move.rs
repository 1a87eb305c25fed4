//! `key move`: takes the root from the slot named in `[root.previous]` to the one named in `[root]`.
//!
//! It is a generation change in which no key dies: the new root is made in the new slot, the tree is sealed under it, checked
//! and committed, and the old root is destroyed in the old slot, with evidence. A crash is finished like any other's.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Result, TaskError};
use crate::control::{DyingKeys, time_text};
use crate::installation::Installation;
use crate::keyring::{self, KeyringError, ShredOrder};

/// What a move did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MoveReport {
    /// The kind of the old slot.
    pub from: &'static str,
    /// The kind of the new one.
    pub to: &'static str,
    /// The generation in force.
    pub generation: i64,
    /// Whether this call changed the generation; otherwise nothing was left to be moved.
    pub moved: bool,
    /// When the old slot's roots are irrevocably gone, where it destroys only at a date; until then it must stay configured (RFC 3339).
    pub irrevocable_at: Option<String>,
}

/// Moves the root.
///
/// # Errors
/// Refused without a slot to move from, when `to` is not the configured slot, and while destruction is held; otherwise what
/// failed. A crash inside is finished at the next start.
pub async fn move_root(installation: &Installation, to: &str) -> Result<MoveReport> {
    let root = &installation.config.root;
    let Some(previous) = &root.previous else {
        return Err(TaskError::refused(
            "the configuration names no slot to move the root away from",
            "describe the new slot under [root] and the old one under [root.previous]",
        ));
    };
    let (from, current) = (previous.kind(), root.slot.kind());
    if to != current {
        return Err(TaskError::refused(
            format!("[root] describes a slot of kind {current}, not {to}"),
            "describe the slot to move to under [root], and the old one under [root.previous]",
        ));
    }
    installation.may_destroy().await?;
    installation.settle_keys().await?;
    let slot = installation.keyring.slot();
    let left = slot.left_behind().await.map_err(KeyringError::from)?;
    let mut tx = installation.control.read().await?;
    let (generation, _) = tx.tree_root().await?.ok_or(KeyringError::NoTree)?;
    // No key dies, so no hold stands in the way; those of now are named so that none goes unnoticed.
    let holds: Vec<String> = tx.holds(true).await?.into_iter().map(|hold| hold.id).collect();
    let irrevocable_at = tx.irrevocable_before(generation).await?.map(time_text);
    drop(tx);
    if left.is_empty() {
        return Ok(MoveReport { from, to: current, generation, moved: false, irrevocable_at });
    }
    installation.log_operation("key.move", &format!("generation-{generation}"), "intent").await?;
    let none = DyingKeys::default();
    let order = ShredOrder { fence: installation.fence(), dying: &none, preserved: &[], holds: &holds };
    let done =
        keyring::shred(&installation.keyring, &installation.control, &order, installation.clock.as_ref()).await?;
    installation.log_operation("key.move", &format!("generation-{}", done.generation), "success").await?;
    let generation = done.generation;
    let irrevocable_at = installation.control.read().await?.irrevocable_before(generation).await?.map(time_text);
    Ok(MoveReport { from, to: current, generation, moved: true, irrevocable_at })
}
