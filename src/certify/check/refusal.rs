//! The rules for a certificate about a request of which nothing was carried out.

use super::{Result, is_sha256_hex, require};
use crate::certify::statement::{ErasureResult, Predicate, RefusalReason, TriggerKind};

/// The version of the members that is known here.
const VERSION: u64 = 1;

pub(super) fn check_refusal(predicate: &Predicate) -> Result {
    let is_refused = predicate.result == ErasureResult::Refused;
    let Some(refusal) = &predicate.refusal else {
        return require(!is_refused, "refusal", "is missing");
    };
    require(is_refused, "refusal", "stands in a certificate of something that was not refused")?;
    require(refusal.version == VERSION, "refusal/version", "is none that is known")?;
    let is_sorted = refusal.reasons.windows(2).all(|pair| pair[0] < pair[1]);
    require(!refusal.reasons.is_empty() && is_sorted, "refusal/reasons", "are none, or not each once in their order")?;
    let asked = predicate.trigger.kind != TriggerKind::RetentionExpiry && predicate.trigger.request_ref.is_some();
    require(asked, "refusal", "is of nothing that was asked for")?;
    require(refusal.decided_at <= predicate.issued_at, "refusal/decidedAt", "is after the issue")?;
    let prefix = format!("hmac-sha256:{}:", predicate.privacy.ref_key_id);
    let is_keyed = |who: &String| who.strip_prefix(&prefix).is_some_and(is_sha256_hex);
    require(refusal.decided_by.as_ref().is_none_or(is_keyed), "refusal/decidedBy", "is not a keyed pseudonym")?;
    let is_decision = |reason: &RefusalReason| RefusalReason::DECISIONS.contains(reason);
    let decided = refusal.reasons.iter().filter(|reason| is_decision(reason)).count();
    let is_one = decided == 1 && refusal.reasons.len() == 1;
    require(decided == 0 || is_one, "refusal/reasons", "are a decision beside others")?;
    require(is_one == refusal.decided_by.is_some(), "refusal/decidedBy", "does not fit the reasons")?;
    require(!(is_one && refusal.waits), "refusal/waits", "is said of what somebody ended")?;
    let by_statute = refusal.reasons.contains(&RefusalReason::Statute) && refusal.waits;
    require(refusal.looked_at_again.is_none() || by_statute, "refusal/lookedAtAgain", "is no date of a statute")?;
    // What rules keep is counted and explained; a decision looks at no row.
    let kept: u64 = predicate.targets.iter().map(|target| target.records_retained).fold(0, u64::saturating_add);
    require(is_one || kept > 0, "refusal/reasons", "are about rows, and none is counted")?;
    let mut shown: Vec<RefusalReason> =
        predicate.retained.iter().filter_map(|kept| RefusalReason::of_kept(kept.reason_code)).collect();
    shown.sort_unstable();
    shown.dedup();
    require(is_one || shown == refusal.reasons, "refusal/reasons", "are not those for which rows were retained")?;
    let nothing = predicate.targets.iter().all(|target| target.keys.is_empty() && target.records_failed == 0);
    let reached = predicate.scope.targets_reached == predicate.scope.targets_declared;
    require(
        nothing && reached && !predicate.is_of_object(),
        "refusal",
        "stands beside something that was done or missed",
    )?;
    require(predicate.residual_date.is_none(), "residualDate", "is said although nothing was to go")
}
