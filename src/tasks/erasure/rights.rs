//! Rights that the login of a store lacks are found before the first batch: nothing is tried where they are missing.

use crate::control::ChunkRow;
use crate::erase::Ground;
use crate::stores::FindingKind;

use super::super::{Result, TaskError};

/// A store in which something is to be done, and what its login lacks for that.
struct Lacking {
    store: String,
    what: String,
    remedy: String,
}

/// The stores whose rows of this plan must stay because a right is missing, each with the reason and the exact GRANT.
///
/// # Errors
/// Refused when no store of the plan is left in which something may be done; otherwise when a store cannot be asked.
pub(super) async fn check_rights(ground: &Ground<'_>, chunks: &[ChunkRow]) -> Result<Vec<(String, String)>> {
    let mut lacking = Vec::new();
    let mut is_any_free = false;
    for site in ground.sites {
        let name = &site.model.spec.name;
        let own = chunks.iter().filter(|chunk| chunk.is_work() && chunk.store == *name);
        let mut tables: Vec<String> = own.map(|chunk| chunk.collection.clone()).collect();
        tables.sort_unstable();
        tables.dedup();
        if tables.is_empty() {
            continue;
        }
        let findings = site.store.check(&tables).await?;
        let missing: Vec<_> = findings.into_iter().filter(|finding| finding.kind == FindingKind::NoRight).collect();
        if missing.is_empty() {
            is_any_free = true;
            continue;
        }
        let (what, remedy): (Vec<&str>, Vec<&str>) =
            missing.iter().map(|finding| (finding.what.as_str(), finding.remedy.as_str())).unzip();
        lacking.push(Lacking { store: name.clone(), what: what.join("; "), remedy: remedy.join(" ") });
    }
    if lacking.is_empty() || is_any_free {
        let told = |found: Lacking| (found.store, format!("{}; nothing was tried there: {}", found.what, found.remedy));
        return Ok(lacking.into_iter().map(told).collect());
    }
    let told = |found: Lacking| (format!("store {}: {} ({})", found.store, found.what, found.remedy), found.remedy);
    let (what, remedy): (Vec<String>, Vec<String>) = lacking.into_iter().map(told).unzip();
    Err(TaskError::refused(
        format!("{}; nothing was erased", what.join("; ")),
        format!("give the login what it lacks: {} then look with `wangchuan store check`", remedy.join(" ")),
    ))
}
