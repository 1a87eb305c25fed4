//! What stayed, and why. Pure.

use std::collections::BTreeMap;

use super::Facts;
use crate::certify::check::{as_id, location};
use crate::certify::codes::RetainedReason;
use crate::certify::statement::Retained;
use crate::plan::Reason;

/// Rows that stay, by place and reason.
pub(super) fn retained(facts: &Facts) -> Vec<Retained> {
    let mut by_reason: BTreeMap<(String, RetainedReason, Option<String>), u64> = BTreeMap::new();
    for counts in &facts.plan.collections {
        let target = location(&counts.store, &counts.collection);
        for (code, rows) in &counts.keep {
            let (reason, statute) = reason_of(code);
            *by_reason.entry((target.clone(), reason, statute)).or_default() += rows;
        }
    }
    for chunk in facts.chunks.iter().filter(|chunk| chunk.is_work()) {
        let target = location(&chunk.store, &chunk.collection);
        // Once an undo put rows back, those that had been kept at execution cannot be told from them any more.
        let kept = if facts.is_undone() { RetainedReason::Undone } else { RetainedReason::Renewed };
        for (rows, reason) in [(chunk.counts.stripped, RetainedReason::Referenced), (chunk.counts.kept, kept)] {
            if let Ok(rows @ 1..) = u64::try_from(rows) {
                *by_reason.entry((target.clone(), reason, None)).or_default() += rows;
            }
        }
    }
    by_reason
        .into_iter()
        .map(|((target_id, reason_code, statute), records)| Retained {
            target_id,
            records,
            reason_code,
            regime: statute.as_ref().map(|_| "statute".to_owned()),
            provision: statute.as_deref().map(as_id),
            until: None,
            restricted: false,
        })
        .collect()
}

/// The reason that certificates have for one of a plan, and the statute behind it.
pub(in crate::tasks::certify) fn reason_of(code: &str) -> (RetainedReason, Option<String>) {
    match code.split_once(':') {
        Some(("hold", _)) => (RetainedReason::Litigation, None),
        Some(("statute", key)) => (RetainedReason::StatutoryPeriod, Some(key.to_owned())),
        // The minimum keeps them; the maximum that it contradicts stands in the plan.
        Some(("restricted", keys)) => (RetainedReason::StatutoryPeriod, keys.split(':').next().map(ToOwned::to_owned)),
        _ if code == Reason::UnknownStart.code() => (RetainedReason::StartUnknown, None),
        _ if code == Reason::KAnonymity.code() => (RetainedReason::SmallGroup, None),
        _ if Reason::is_canary(code) => (RetainedReason::PolicyEdited, None),
        _ if code == Reason::Later.code() => (RetainedReason::Renewed, None),
        _ => (RetainedReason::Referenced, None),
    }
}
