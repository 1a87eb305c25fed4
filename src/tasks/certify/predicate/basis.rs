//! Why rows went: the request or the policies, the statutes, and the kinds of data. Pure.

use std::collections::BTreeSet;

use super::{AskedFor, Facts};
use crate::certify::check::as_id;
use crate::certify::codes::TriggerKind;
use crate::certify::statement::{Digest, LegalBasis, PolicyRef, Timestamp, Trigger};
use crate::policy::calendar::Period;

/// Statutes that one certificate names; an own catalogue can have any number of them.
const MOST_STATUTES: usize = 64;

/// The policies by which rows fell due, as the plan that was carried out read them; none when somebody asked.
pub(super) fn policy(facts: &Facts) -> Option<PolicyRef> {
    if facts.run.request.is_some() {
        return None;
    }
    let due = facts.plan.collections.iter().filter(|counts| counts.due > 0);
    let ids: BTreeSet<&str> = due.filter_map(|counts| counts.policy.as_deref()).collect();
    let rule = |id: &str| facts.plan.rules.iter().find(|rule| rule.policy == id);
    let only = if ids.len() == 1 { ids.first().and_then(|id| rule(id)) } else { None };
    let version = facts.plan.catalogue.map_or_else(
        || "none".to_owned(),
        |version| match version.own {
            Some(own) => format!("{}+{own}", version.built_in),
            None => version.built_in.to_string(),
        },
    );
    (!ids.is_empty()).then(|| PolicyRef {
        id: as_id(&ids.into_iter().collect::<Vec<_>>().join("+")),
        version,
        digest: Digest { sha256: facts.plan.policy_digest.clone() },
        retention_period: only.map(|rule| iso(rule.retention)),
        retention_anchor: None,
    })
}

/// A period as ISO 8601 has it.
pub(crate) fn iso(period: Period) -> String {
    match (period.months / 12, period.months % 12, period.days) {
        (0, 0, days) => format!("P{days}D"),
        (years, months, days) => [(years, 'Y'), (months, 'M'), (days, 'D')]
            .iter()
            .filter(|(count, _)| *count > 0)
            .fold("P".to_owned(), |text, (count, unit)| format!("{text}{count}{unit}")),
    }
}

/// The kinds of the declared fields of every collection that the plan takes rows from.
pub(super) fn data_categories(facts: &Facts) -> Vec<String> {
    let mut kinds = BTreeSet::new();
    for counts in facts.plan.collections.iter().filter(|counts| counts.to_do() > 0) {
        let collections = facts.spec(&counts.store).map_or(&[][..], |spec| &spec.collections[..]);
        let fields = collections.iter().filter(|spec| spec.table == counts.collection).flat_map(|spec| &spec.fields);
        for (_, field) in fields {
            if let Ok(serde_json::Value::String(kind)) = serde_json::to_value(field.kind) {
                kinds.insert(kind);
            }
        }
    }
    kinds.into_iter().collect()
}

/// Why, and by when.
pub(super) fn trigger(facts: &Facts) -> Trigger {
    match facts.request {
        Some(AskedFor { number, reason, received, due }) => Trigger {
            kind: reason,
            request_ref: Some(format!("request-{number}")),
            received_at: Some(Timestamp::from(received)),
            due_at: Some(Timestamp::from(due)),
        },
        None => Trigger { kind: TriggerKind::RetentionExpiry, request_ref: None, received_at: None, due_at: None },
    }
}

/// The statutes that the plan checked every row against, by their keys in the catalogue.
pub(super) fn legal_basis(facts: &Facts) -> Vec<LegalBasis> {
    let checked = facts.plan.rules.iter().flat_map(|rule| &rule.statutes);
    let keys: BTreeSet<&str> = checked.map(|statute| statute.key.as_str()).collect();
    let provision = |key| LegalBasis { regime: "statute".to_owned(), provision: as_id(key) };
    keys.into_iter().take(MOST_STATUTES).map(provision).collect()
}
